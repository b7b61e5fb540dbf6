//! The gist of a line of a worker's standard error: a number that is the same for lines which differ only in a process
//! id, times, dates or addresses in memory.
//!
//! A number that may have a meaning (the line of a configuration file, a port, an exit status) counts: a complaint
//! about line 7 differs from one about line 3. Where the meaning is not known, a number of five figures or more is
//! taken for one that differs each time.

use std::hash::{DefaultHasher, Hasher};

/// The distance, above a worker's process id, within which the process ids of its children lie as a rule.
const FAMILY: u64 = 16;

/// The number of figures from which on a number is taken for one that differs each time.
const LONG: usize = 5;

/// The number of figures from which on a fraction is taken for a measured time.
const MEASURED: usize = 3;

const MONTHS: [&[u8]; 12] = [
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
];

/// Returns the gist of a line that the worker with the process id `pid` has written.
pub(super) fn gist(line: &str, pid: i32) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut rest = line.as_bytes();
    // The word before, for a day of the month.
    let mut word: &[u8] = b"";
    while let Some(first) = rest.first() {
        let (length, varies) = if first.is_ascii_digit() {
            let figures = figures(rest);
            (figures.len(), varies(figures, word, pid))
        } else if is_of_word(*first) {
            word = prefix(rest, is_of_word);
            (word.len(), false)
        } else if *first == b' ' {
            // Columns are padded: `Nov  9`, `Nov 10`.
            (prefix(rest, |byte| byte == b' ').len(), false)
        } else {
            (1, false)
        };
        let (token, behind) = rest.split_at(length);
        hasher.write(match token {
            _ if varies => b"#",
            [b' ', ..] => b" ",
            token => token,
        });
        rest = behind;
    }
    hasher.finish()
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn prefix(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> &[u8] {
    let end = bytes.iter().position(|byte| !belongs(*byte)).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or(bytes)
}

/// A number, a time, a date or an address at the beginning: with all that holds it together, and without the stop
/// behind it.
fn figures(bytes: &[u8]) -> &[u8] {
    if let Some(address) = bytes.strip_prefix(b"0x") {
        let length = 2 + prefix(address, |byte| byte.is_ascii_hexdigit()).len();
        return bytes.get(..length).unwrap_or(bytes);
    }
    let figures = prefix(bytes, |byte| byte.is_ascii_digit() || b":.,-/".contains(&byte));
    let last = figures.iter().rposition(u8::is_ascii_digit).unwrap_or(0);
    let figures = figures.get(..=last).unwrap_or(figures);
    if is_time(figures) || is_date(figures) {
        return figures;
    }
    prefix(figures, |byte| byte.is_ascii_digit() || byte == b'.')
}

/// Returns true if it differs each time.
fn varies(figures: &[u8], word: &[u8], pid: i32) -> bool {
    if figures.starts_with(b"0x") || is_time(figures) || is_date(figures) {
        return true;
    }
    let mut parts = figures.split(|byte| *byte == b'.');
    let whole = parts.next().unwrap_or_default();
    if whole.len() >= LONG || is_of_family(whole, pid) {
        return true;
    }
    match (parts.next(), parts.next()) {
        (Some(fraction), None) => fraction.len() >= MEASURED,
        // A version, or an address of the network.
        (Some(_), Some(_)) => false,
        (None, _) => whole.len() <= 2 && MONTHS.iter().any(|month| word.eq_ignore_ascii_case(month)),
    }
}

fn is_of_family(figures: &[u8], pid: i32) -> bool {
    let number = std::str::from_utf8(figures)
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let (Some(number), Ok(pid)) = (number, u64::try_from(pid)) else {
        return false;
    };
    number == pid || (pid >= 100 && (pid..=pid + FAMILY).contains(&number))
}

/// `23:35:12`, `23:35:12.345`, `23:35`.
fn is_time(figures: &[u8]) -> bool {
    let clock = prefix(figures, |byte| byte.is_ascii_digit() || byte == b':');
    let fraction = figures.get(clock.len()..).unwrap_or_default();
    let is_fraction = match fraction {
        [] => true,
        [b'.' | b',', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let parts: Vec<usize> = clock.split(|byte| *byte == b':').map(<[u8]>::len).collect();
    let is_clock = matches!(parts[..], [1 | 2, 2, 2] | [2, 2]);
    is_fraction && is_clock
}

/// `2026-11-29`, `29.11.2026`, `2026/11/29`.
fn is_date(figures: &[u8]) -> bool {
    let parts = |separator| figures.split(move |byte| *byte == separator);
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    [b'-', b'/', b'.'].into_iter().any(|separator| {
        let lengths: Vec<usize> = parts(separator).map(<[u8]>::len).collect();
        parts(separator).all(is_number) && matches!(lengths[..], [4, 1 | 2, 1 | 2] | [1 | 2, 1 | 2, 4])
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PID: i32 = 4321;

    fn same(one: &str, other: &str) -> bool {
        gist(one, PID) == gist(other, PID + 1000)
    }

    #[test]
    fn lines_that_differ_in_process_ids_times_and_addresses_have_one_gist() {
        for (one, other) in [
            ("[4321] cannot open x", "[5321] cannot open x"),
            ("sh: 4322 Killed", "sh: 5324 Killed"),
            (
                "2026-11-29T23:35:12.123Z: no config",
                "2026-11-30T01:02:03.456Z: no config",
            ),
            ("29.11.2026 23:35 no config", "1.12.2026 09:05 no config"),
            ("Nov  9 23:35:12 no config", "Nov 10 23:35:13 no config"),
            ("squid[123456]: fatal.", "squid[99999]: fatal."),
            ("failed after 0.123 s", "failed after 0.124 s"),
            ("at 1764459312 the end", "at 1764459999 the end"),
            ("segfault at 0x7ffe12ab", "segfault at 0x55cafe00"),
            ("0:00:01.5, over", "0:00:02.7, over"),
            ("caf\u{e9} 4321", "caf\u{e9} 5321"),
        ] {
            assert!(same(one, other), "{one} / {other}");
        }
    }

    #[test]
    fn a_number_that_may_have_a_meaning_is_part_of_the_gist() {
        for (one, other) in [
            ("config error line 3", "config error line 4"),
            ("cannot bind port 9991", "cannot bind port 9992"),
            ("version 1.2.3", "version 1.2.4"),
            ("127.0.0.1 refused", "127.0.0.2 refused"),
            ("a.c:12: error", "a.c:13: error"),
            ("exit 1", "exit 2"),
            ("took 1.5", "took 1.6"),
            ("error", "errors"),
            ("line3", "line4"),
            ("", " "),
        ] {
            assert!(!same(one, other), "{one} / {other}");
        }
    }

    proptest! {
        #[test]
        fn any_line_has_one(line: String, pid: i32) {
            prop_assert_eq!(gist(&line, pid), gist(&line, pid));
        }

        #[test]
        fn words_of_letters_are_all_that_they_say(one in "[a-z ]{0,20}", other in "[a-z ]{0,20}") {
            let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
            prop_assert!(!same(&one, &other) || words(&one) == words(&other));
        }
    }
}
