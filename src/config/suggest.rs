//! "Did you mean": the known word nearest to an unknown one.

/// The one of `known` that was most probably meant by `written`, if any is near enough: two slips of the pen in a word of
/// medium length, one in a short one, three in a long one. Underscores, capitals and dashes in front, the usual slips, do not count as such. What
/// is farther off is more often another word than a misspelt one, and a wrong guess leads astray.
#[must_use]
pub fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written = normal(written);
    let length = written.chars().count();
    let most = match length {
        0 | 1 => return None,
        2..=4 => 1,
        5..=9 => 2,
        _ => 3,
    };
    known
        .into_iter()
        // Cheap, and true of nearly all: so many letters too many or too few are as many slips.
        .filter(|word| word.chars().count().abs_diff(length) <= most)
        .map(|word| (strsim::osa_distance(&written, word), word))
        .filter(|(distance, _)| *distance <= most)
        .min_by(|(one, a), (other, b)| {
            one.cmp(other)
                .then_with(|| likeness(&written, b).total_cmp(&likeness(&written, a)))
        })
        .map(|(_, word)| word)
}

/// Of two that are equally far off, the one that begins in the same way is more like it.
fn likeness(written: &str, known: &str) -> f64 {
    strsim::jaro_winkler(written, known)
}

/// A word as it would be spelled here.
pub(super) fn normal(written: &str) -> String {
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
    fn what_resembles_nothing_gets_no_suggestion() {
        for other in ["colour", "", "x", "pidfile", "pid", "queue", "timeout", "ip"] {
            assert_eq!(nearest(other, KNOWN), None, "{other}");
        }
        assert_eq!(nearest("x", []), None);
    }
}
