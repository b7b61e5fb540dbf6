//! "Did you mean": the known word nearest to an unknown one.

/// The least Jaro-Winkler similarity worth a suggestion; below it, the guess is more often wrong than right.
const LEAST_SIMILARITY: f64 = 0.8;

/// The one of `known` that was most probably meant by `written`, if any comes close. Underscores and capitals, the
/// usual slips, do not count as differences.
#[must_use]
pub fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written = written.to_lowercase().replace('_', "-");
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&written, word), word))
        .filter(|(similarity, _)| *similarity >= LEAST_SIMILARITY)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = [
        "queue-size",
        "queue-timeout",
        "busy-timeout",
        "max-requests",
        "max-request",
    ];

    #[test]
    fn a_slip_finds_its_word() {
        assert_eq!(nearest("queue-timout", KNOWN), Some("queue-timeout"));
        assert_eq!(nearest("busy_timeout", KNOWN), Some("busy-timeout"));
        assert_eq!(nearest("MAX-REQUEST", KNOWN), Some("max-request"));
        assert_eq!(nearest("max-requets", KNOWN), Some("max-request"));
    }

    #[test]
    fn what_resembles_nothing_gets_no_suggestion() {
        assert_eq!(nearest("colour", KNOWN), None);
        assert_eq!(nearest("", KNOWN), None);
        assert_eq!(nearest("x", []), None);
    }
}
