//! Lengths of time and sizes in the form that people read: in every line of the log, in errors, and in the dump of
//! USR2.
//!
//! This module writes all of them, in one form: a number, a blank and a unit, such as `0.99 ms`, `107.7 ms`, `8.06 s`,
//! `2 min 5 s`, `64 KiB`, `12000 bytes`. Measured values have three or four figures, because more cannot be compared by
//! eye. Moments are in UTC. `tests/it/house.rs` looks for lines of code that write a time in another way.
//!
//! Other forms remain where they have a reason: the statistics of USR1 and the answers to clients, which programs read;
//! flags and keys in the form in which they are typed (`--busy-timeout 15s`), which is that of
//! [`config::units`](crate::config::units); and counts of transferred bytes, which are exact, like counts of requests.

use std::fmt;
use std::time::{Duration, SystemTime};

use humantime::Rfc3339Timestamp;

/// A length of time. It prints rounded to the precision that a person needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(Duration);

/// Returns the printable form of `time`.
#[must_use]
pub const fn span(time: Duration) -> Span {
    Span(time)
}

/// A number of bytes. It prints rounded or exact, see [`size`] and [`limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    bytes: u64,
    precision: Precision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Precision {
    Rounded,
    Exact,
}

/// Returns the printable form of a measured number of bytes: rounded.
#[must_use]
pub const fn size(bytes: u64) -> Size {
    Size {
        bytes,
        precision: Precision::Rounded,
    }
}

/// Returns the printable form of a configured limit in bytes: exact, in the largest unit of which it is a multiple.
#[must_use]
pub fn limit(bytes: impl TryInto<u64>) -> Size {
    Size {
        // A number that exceeds u64 is larger than any memory of this machine.
        bytes: bytes.try_into().unwrap_or(u64::MAX),
        precision: Precision::Exact,
    }
}

const MILLISECOND: u128 = 1_000_000;
const SECOND: u128 = 1_000_000_000;
const MINUTE: u128 = 60 * SECOND;
const HOUR: u128 = 60 * MINUTE;
const DAY: u128 = 24 * HOUR;

/// The scale of times below a minute, each row `(bound, unit, decimals, name)`: a time below the bound is printed in
/// the unit with that number of decimals.
const SCALE: [(u128, u128, u32, &str); 4] = [
    (10 * MILLISECOND, MILLISECOND, 2, "ms"),
    (SECOND, MILLISECOND, 1, "ms"),
    (10 * SECOND, SECOND, 2, "s"),
    (MINUTE, SECOND, 1, "s"),
];

/// The length of a unit in nanoseconds, and its name.
type Unit = (u128, &'static str);

/// The scale of times from a minute on: a time below the bound is printed as a number of the first unit and a number of
/// the second.
const LONG_SCALE: [(u128, Unit, Unit); 3] = [
    (HOUR, (MINUTE, "min"), (SECOND, "s")),
    (DAY, (HOUR, "h"), (MINUTE, "min")),
    (u128::MAX, (DAY, "d"), (HOUR, "h")),
];

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0.as_nanos();
        match length {
            0 => return out.write_str("0 ms"),
            // Rounding would print it as zero.
            1..5_000 => return out.write_str("<0.01 ms"),
            _ => {}
        }
        for (below, unit, decimals, name) in SCALE {
            let step = unit / 10_u128.pow(decimals);
            let steps = rounded(length, step);
            if steps * step < below {
                return decimal(out, steps, decimals, name);
            }
        }
        for (below, (unit, name), (part, part_name)) in LONG_SCALE {
            let length = rounded(length, part) * part;
            if length < below {
                write!(out, "{} {name}", length / unit)?;
                return match length % unit / part {
                    0 => Ok(()),
                    parts => write!(out, " {parts} {part_name}"),
                };
            }
        }
        Ok(())
    }
}

/// Formats a moment as RFC 3339 does, in UTC. `form` is the function of humantime that decides the precision.
pub fn moment(at: SystemTime, form: fn(SystemTime) -> Rfc3339Timestamp) -> String {
    // A clock that has not been set yet may stand before 1970, which the library does not write.
    let at = at.max(SystemTime::UNIX_EPOCH);
    let mut text = String::with_capacity(24);
    // Writing fails for a year of five digits; the text is empty then.
    let _ = fmt::write(&mut text, format_args!("{}", form(at)));
    text
}

const KIB: u64 = 1 << 10;

/// Units of size, the smallest first.
const UNITS: [(u64, &str); 6] = [
    (1 << 10, "KiB"),
    (1 << 20, "MiB"),
    (1 << 30, "GiB"),
    (1 << 40, "TiB"),
    (1 << 50, "PiB"),
    (1 << 60, "EiB"),
];

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes;
        if let Precision::Exact = self.precision {
            let whole = |(unit, _): &&(u64, _)| bytes >= *unit && bytes.is_multiple_of(*unit);
            if let Some((unit, name)) = UNITS.iter().rev().find(whole) {
                return write!(out, "{} {name}", bytes / unit);
            }
        }
        if self.precision == Precision::Exact || bytes < KIB {
            let plural = if bytes == 1 { "" } else { "s" };
            return write!(out, "{bytes} byte{plural}");
        }
        for (unit, name) in UNITS {
            for (below, decimals) in [(10, 2), (KIB, 1)] {
                let scale = 10_u128.pow(decimals);
                let steps = rounded(u128::from(bytes) * scale, u128::from(unit));
                if steps < u128::from(below) * scale {
                    return decimal(out, steps, decimals, name);
                }
            }
        }
        // Not reached: no u64 amounts to 1024 of the largest unit.
        Ok(())
    }
}

/// Returns the number of `step`s in `length`, rounded to the nearest.
const fn rounded(length: u128, step: u128) -> u128 {
    (length + step / 2) / step
}

/// Writes `steps`, of which `10^decimals` make one `unit`, without the zeros at the end of the decimals.
fn decimal(out: &mut fmt::Formatter<'_>, steps: u128, decimals: u32, unit: &str) -> fmt::Result {
    let (mut fraction, mut width) = (steps % 10_u128.pow(decimals), decimals as usize);
    write!(out, "{}", steps / 10_u128.pow(decimals))?;
    if fraction > 0 {
        while fraction.is_multiple_of(10) {
            (fraction, width) = (fraction / 10, width - 1);
        }
        write!(out, ".{fraction:0width$}")?;
    }
    write!(out, " {unit}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanos(count: u64) -> String {
        span(Duration::from_nanos(count)).to_string()
    }

    #[test]
    fn a_time_is_printed_with_a_blank_before_its_unit() {
        for (count, text) in [
            (0, "0 ms"),
            (1, "<0.01 ms"),
            (4_999, "<0.01 ms"),
            (5_000, "0.01 ms"),
            (992_487, "0.99 ms"),
            (996_000, "1 ms"),
            (8_060_000, "8.06 ms"),
            (9_994_999, "9.99 ms"),
            (9_996_000, "10 ms"),
            (107_712_345, "107.7 ms"),
            (200_000_000, "200 ms"),
            (999_940_000, "999.9 ms"),
            (999_960_000, "1 s"),
            (1_500_000_000, "1.5 s"),
            (8_064_000_000, "8.06 s"),
            (15_000_000_000, "15 s"),
            (59_960_000_000, "1 min"),
            (125_400_000_000, "2 min 5 s"),
            (3_599_600_000_000, "1 h"),
            (3_600_000_000_000, "1 h"),
            (11_520_000_000_000, "3 h 12 min"),
            (86_399_000_000_000, "1 d"),
            (366 * 86_400_000_000_000, "366 d"),
            (90_000_000_000_000, "1 d 1 h"),
        ] {
            assert_eq!(nanos(count), text, "{count}");
        }
        assert!(span(Duration::MAX).to_string().ends_with(" h"));
    }

    #[test]
    fn a_size_is_rounded_and_a_limit_is_not() {
        for (bytes, found, set) in [
            (0_u64, "0 bytes", "0 bytes"),
            (1, "1 byte", "1 byte"),
            (1023, "1023 bytes", "1023 bytes"),
            (1024, "1 KiB", "1 KiB"),
            (12_000, "11.7 KiB", "12000 bytes"),
            (64 << 10, "64 KiB", "64 KiB"),
            ((1 << 20) - 1, "1 MiB", "1048575 bytes"),
            (1 << 20, "1 MiB", "1 MiB"),
            (3 << 19, "1.5 MiB", "1536 KiB"),
            (71_500_000, "68.2 MiB", "71500000 bytes"),
            (1 << 50, "1 PiB", "1 PiB"),
            (u64::MAX, "16 EiB", "18446744073709551615 bytes"),
        ] {
            assert_eq!(size(bytes).to_string(), found, "{bytes}");
            assert_eq!(limit(bytes).to_string(), set, "{bytes}");
        }
    }

    proptest! {
        /// A longer time never looks shorter within one unit, and the figures are never more than five.
        #[test]
        fn a_printed_time_has_few_figures_and_is_nearly_exact(count in any::<u64>(), shift in 0_u32..64) {
            let text = nanos(count >> shift);
            let units = ["ms", "s", "min", "h", "d"];
            let words: Vec<&str> = text.split(' ').collect();
            prop_assert!(matches!(words.len(), 2 | 4), "{}", text);
            for pair in words.chunks(2) {
                prop_assert!(pair[0].chars().filter(char::is_ascii_digit).count() <= 6, "{}", text);
                prop_assert!(units.contains(&pair[1]), "{}", text);
            }
            if let ["ms" | "s", number] = [words[1], words[0]].as_slice() && let Ok(number) = number.parse::<f64>() {
                let unit = if words[1] == "s" { 1e9 } else { 1e6 };
                let exact = (count >> shift) as f64;
                prop_assert!(words.len() == 4 || (number * unit - exact).abs() <= exact * 0.01 + 5_000.0, "{}", text);
            }
        }
    }
}
