//! "Did you mean": the known word nearest to an unknown one.

/// Returns the word of `known` that was most probably meant by `written`, if one is near enough: one slip in a short
/// word, two in a word of medium length, three in a long one. Underscores, capitals and dashes in front, the usual
/// slips, are not counted. A more distant word is more often another word than a misspelt one, and a wrong guess
/// misleads.
#[must_use]
pub fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written = normalized(written);
    let length = written.chars().count();
    let most = match length {
        0 | 1 => return None,
        2..=4 => 1,
        5..=9 => 2,
        _ => 3,
    };
    known
        .into_iter()
        // A cheap test that rejects nearly all words: each missing or additional letter is at least one slip.
        .filter(|word| word.chars().count().abs_diff(length) <= most)
        .map(|word| (strsim::osa_distance(&written, word), word))
        .filter(|(distance, _)| *distance <= most)
        .min_by(|(one, a), (other, b)| {
            one.cmp(other)
                .then_with(|| similarity(&written, b).total_cmp(&similarity(&written, a)))
        })
        .map(|(_, word)| word)
}

/// Returns the similarity of two words, to choose between equally distant ones: a common beginning counts more.
fn similarity(written: &str, known: &str) -> f64 {
    strsim::jaro_winkler(written, known)
}

/// Returns a word in the spelling of flags and keys.
pub(super) fn normalized(written: &str) -> String {
    written.trim_start_matches('-').to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 7] = [
        "queue-size",
        "queue-timeout",
        "busy-timeout",
        "max-requests",
        "max-request",
        "pipeline",
        "pty",
    ];

    #[test]
    fn a_slip_finds_its_word() {
        assert_eq!(nearest("queue-timout", KNOWN), Some("queue-timeout"));
        assert_eq!(nearest("busy_timeout", KNOWN), Some("busy-timeout"));
        assert_eq!(nearest("MAX-REQUEST", KNOWN), Some("max-request"));
        assert_eq!(nearest("max-requets", KNOWN), Some("max-request"));
        assert_eq!(nearest("ptty", KNOWN), Some("pty"));
        assert_eq!(nearest("pipline", KNOWN), Some("pipeline"));
    }

    #[test]
    fn a_word_unlike_all_others_gets_no_suggestion() {
        for other in ["colour", "", "x", "pidfile", "pid", "queue", "timeout", "ip"] {
            assert_eq!(nearest(other, KNOWN), None, "{other}");
        }
        assert_eq!(nearest("x", []), None);
    }
}
