//! Quantities as people write them: times, sizes, whole numbers, file modes, text with escapes.
//!
//! Each type is parsed in the same way from a flag ([`FromStr`]) and from a key of a file ([`Deserialize`]), because
//! the second uses the first: `busy-timeout = 15`, `= 1.5`, `= "500ms"` and `--busy-timeout 500ms` go through one
//! parser. The output of [`Display`](fmt::Display) is parsed as the same value again. The range of a value depends on
//! its option and is checked in [`lower`](super::lower), not here.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use super::quote::Quoted;
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A quantity with a written form, and the words that describe this form.
pub(super) trait Quantity: FromStr<Err = QuantityError> {
    /// The end of the sentence "not …": the wanted quantity, then an example.
    const WANTED: &'static str;
}

/// The error for a text that is not the wanted quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantityError {
    wanted: &'static str,
}

impl QuantityError {
    pub(super) fn wanted<T: Quantity>() -> Self {
        Self { wanted: T::WANTED }
    }
}

impl fmt::Display for QuantityError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "not {}", self.wanted)
    }
}

impl std::error::Error for QuantityError {}

/// A length of time. The unit may be `ms`, `s`, `m`, `h` or `d`, and is the second if missing; fractions count down to
/// a nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

/// A number of bytes. `k`, `M`, `G` and `T` are powers of 1024, with or without `iB` after them, in either case. `kB`
/// is refused, because it means 1000 to some and 1024 to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A whole number, possibly negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whole(pub i64);

/// Permission bits, written in octal. In a file they must be quoted: TOML reads a bare `660` as a decimal number, which
/// is a different mode, and does not accept `0660` at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

/// Bytes written as text, with `\n`, `\r`, `\t`, `\0`, `\\` and `\xNN` for bytes that are hard to type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escaped(pub Vec<u8>);

/// The units of [`Time`] in nanoseconds, the longest last.
const TIME_UNITS: [(&str, u64); 6] = [
    ("", 1_000_000_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// The units of [`Size`] in bytes, in lower case, the largest last.
const SIZE_UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("t", 1 << 40),
    ("tib", 1 << 40),
];

/// Parses `NUMBER[.FRACTION][UNIT]` and returns it in the smallest unit, rounded down. `None` if it has another form,
/// or exceeds u64.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim_start();
    let scale = units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| u128::from(*scale))?;
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    if fraction.contains('.') || fraction.len() > 20 {
        return None;
    }
    let whole = u128::from(whole.parse::<u64>().ok()?).checked_mul(scale)?;
    let fraction = match fraction {
        "" => 0,
        digits => {
            digits.parse::<u128>().ok()?.checked_mul(scale)? / 10_u128.checked_pow(u32::try_from(digits.len()).ok()?)?
        }
    };
    u64::try_from(whole.checked_add(fraction)?).ok()
}

impl Quantity for Time {
    const WANTED: &'static str = "a length of time; write for example 15 (seconds), 500ms, 1.5s, 2m or 1h";
}

impl FromStr for Time {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        scaled(text, &TIME_UNITS)
            .map(|nanos| Self(Duration::from_nanos(nanos)))
            .ok_or_else(QuantityError::wanted::<Self>)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let fits = |(_, scale): &&(&str, u64)| nanos >= u128::from(*scale) && nanos.is_multiple_of(u128::from(*scale));
        match TIME_UNITS.iter().skip(1).rev().find(fits) {
            Some((unit, scale)) => write!(out, "{}{unit}", nanos / u128::from(*scale)),
            None if nanos == 0 => out.write_str("0s"),
            None => {
                let fraction = format!("{:09}", self.0.subsec_nanos());
                write!(out, "{}.{}s", self.0.as_secs(), fraction.trim_end_matches('0'))
            }
        }
    }
}

impl Quantity for Size {
    const WANTED: &'static str = "a number of bytes; write for example 12000, 64KiB or 1MiB";
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        scaled(&text.to_ascii_lowercase(), &SIZE_UNITS)
            .map(Self)
            .ok_or_else(QuantityError::wanted::<Self>)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            ("TiB", 1_u64 << 40),
            ("GiB", 1 << 30),
            ("MiB", 1 << 20),
            ("KiB", 1 << 10),
        ];
        match names
            .iter()
            .find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale))
        {
            Some((unit, scale)) => write!(out, "{}{unit}", self.0 / scale),
            None => write!(out, "{}", self.0),
        }
    }
}

impl Quantity for Whole {
    const WANTED: &'static str = "a whole number; write for example 4";
}

impl FromStr for Whole {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        text.trim()
            .parse()
            .map(Self)
            .map_err(|_| QuantityError::wanted::<Self>())
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl Quantity for FileMode {
    const WANTED: &'static str = "permission bits in octal; write for example \"0660\"";
}

impl FromStr for FileMode {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let text = text.trim();
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let octal = !digits.is_empty() && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        let mode = if octal {
            u32::from_str_radix(digits, 8).ok()
        } else {
            None
        };
        mode.map(Self).ok_or_else(QuantityError::wanted::<Self>)
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04o}", self.0)
    }
}

impl Quantity for Escaped {
    const WANTED: &'static str =
        "text with known escapes; write \\n, \\r, \\t, \\0, \\xNN (two hexadecimal digits) or \\\\, for example ERR\\n";
}

impl FromStr for Escaped {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'\\' => bytes.push(escape(&mut rest).ok_or_else(QuantityError::wanted::<Self>)?),
                plain => bytes.push(plain),
            }
        }
        Ok(Self(bytes))
    }
}

/// Returns the byte of an escape sequence, after its backslash.
fn escape(rest: &mut impl Iterator<Item = u8>) -> Option<u8> {
    match rest.next()? {
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'0' => Some(0),
        b'\\' => Some(b'\\'),
        b'x' => Some(16 * hex_digit(rest.next()?)? + hex_digit(rest.next()?)?),
        _ => None,
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

impl fmt::Display for Escaped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b'\n' => out.write_str("\\n"),
            b'\r' => out.write_str("\\r"),
            b'\t' => out.write_str("\\t"),
            b'\\' => out.write_str("\\\\"),
            b' '..=b'~' => write!(out, "{}", char::from(*byte)),
            other => write!(out, "\\x{other:02x}"),
        })
    }
}

/// Passes every form of a TOML value to the one parser of `T`. `numbers` tells if a bare number may be a `T`; if not,
/// it is refused here.
pub(super) struct QuantityVisitor<T> {
    numbers: Numbers,
    wanted: PhantomData<T>,
}

/// Tells if a bare number in a file may be the quantity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    Allowed,
    QuotesOnly,
}

impl<T: Quantity> QuantityVisitor<T> {
    pub(super) const fn new(numbers: Numbers) -> Self {
        Self {
            numbers,
            wanted: PhantomData,
        }
    }

    fn number<E: de::Error>(self, number: &impl fmt::Display) -> Result<T, E> {
        match self.numbers {
            Numbers::Allowed => self.visit_str(&number.to_string()),
            Numbers::QuotesOnly => Err(E::custom(format_args!(
                "the bare number {number} is {}",
                QuantityError::wanted::<T>()
            ))),
        }
    }
}

impl<T: Quantity> Visitor<'_> for QuantityVisitor<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(T::WANTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse()
            .map_err(|error: QuantityError| E::custom(format_args!("{} is {error}", Quoted(text))))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.number(&number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.number(&number)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.number(&number)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(QuantityVisitor::new(Numbers::Allowed))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(QuantityVisitor::new(Numbers::Allowed))
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(QuantityVisitor::new(Numbers::Allowed))
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(QuantityVisitor::new(Numbers::QuotesOnly))
    }
}

impl<'de> Deserialize<'de> for Escaped {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(QuantityVisitor::new(Numbers::QuotesOnly))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Option<Duration> {
        text.parse::<Time>().ok().map(|time| time.0)
    }

    fn size(text: &str) -> Option<u64> {
        text.parse::<Size>().ok().map(|size| size.0)
    }

    #[derive(Debug, serde::Deserialize)]
    struct Keys {
        time: Option<Time>,
        size: Option<Size>,
        mode: Option<FileMode>,
        text: Option<Escaped>,
    }

    #[test]
    fn times_are_seconds_by_default() {
        assert_eq!(time("15"), Some(Duration::from_secs(15)));
        assert_eq!(time("15s"), Some(Duration::from_secs(15)));
        assert_eq!(time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(time("0.25ms"), Some(Duration::from_micros(250)));
        assert_eq!(time("2m"), Some(Duration::from_secs(120)));
        assert_eq!(time("1 h"), Some(Duration::from_secs(3600)));
        assert_eq!(time("1d"), Some(Duration::from_secs(86_400)));
    }

    #[test]
    fn an_invalid_time_is_refused_with_an_example() {
        for text in [
            "",
            "s",
            "15x",
            "-1",
            "1.",
            ".5",
            "1.2.3",
            "1e3",
            "15S",
            "99999999999999999999",
            "9999999999999d",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
        let error = "soon".parse::<Time>().unwrap_err().to_string();
        assert_eq!(
            error,
            "not a length of time; write for example 15 (seconds), 500ms, 1.5s, 2m or 1h"
        );
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("12000"), Some(12_000));
        for text in ["64KiB", "64kib", "64k", "64K", "64 KiB", "65536B"] {
            assert_eq!(size(text), Some(65_536), "{text}");
        }
        assert_eq!(size("1MiB"), Some(1 << 20));
        assert_eq!(size("1.5G"), Some(3 << 29));
        assert_eq!(size("1kB"), None);
        assert_eq!(size("-1"), None);
        assert_eq!(size("16777216T"), None);
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!("0660".parse(), Ok(FileMode(0o660)));
        assert_eq!("660".parse(), Ok(FileMode(0o660)));
        assert_eq!("0o660".parse(), Ok(FileMode(0o660)));
        assert_eq!(FileMode(0o660).to_string(), "0660");
        for text in ["", "0o", "0680", "rw-rw----", "-1", "+7"] {
            assert!(text.parse::<FileMode>().is_err(), "{text}");
        }
    }

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(r"ERR\n".parse(), Ok(Escaped(b"ERR\n".to_vec())));
        assert_eq!(
            r"\r\t\0\\\x7f\xFF".parse(),
            Ok(Escaped(vec![b'\r', b'\t', 0, b'\\', 0x7f, 0xff]))
        );
        assert_eq!("ü".parse(), Ok(Escaped("ü".as_bytes().to_vec())));
        for text in ["\\", r"\q", r"\x", r"\x1", r"\x+1", r"\xgg"] {
            assert!(text.parse::<Escaped>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_may_use_numbers_where_they_are_unambiguous() {
        let keys: Keys = toml::from_str("time = 15\nsize = 12000\nmode = '0660'\ntext = \"ERR\\n\"").unwrap();
        assert_eq!(keys.time, Some(Time(Duration::from_secs(15))));
        assert_eq!(keys.size, Some(Size(12_000)));
        assert_eq!(keys.mode, Some(FileMode(0o660)));
        assert_eq!(keys.text, Some(Escaped(b"ERR\n".to_vec())));
        let keys: Keys = toml::from_str("time = 1.5\nsize = '64KiB'").unwrap();
        assert_eq!(keys.time, Some(Time(Duration::from_millis(1500))));
        assert_eq!(keys.size, Some(Size(65_536)));
        for refused in [
            "mode = 432",
            "mode = 0o660",
            "time = nan",
            "time = inf",
            "time = -1",
            "time = true",
            "text = 1",
        ] {
            let error = toml::from_str::<Keys>(refused).unwrap_err();
            assert!(error.message().contains("write "), "{refused}: {error}");
        }
    }

    proptest! {
        #[test]
        fn times_read_back(nanos in any::<u64>()) {
            let time = Time(Duration::from_nanos(nanos));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }

        #[test]
        fn round_times_read_back(count in 0_u64..100_000, unit in 0_usize..6) {
            let time = Time(Duration::from_nanos(count * TIME_UNITS[unit].1));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }

        #[test]
        fn sizes_read_back(bytes in any::<u64>(), shift in 0_u32..64) {
            let size = Size(bytes >> shift << shift);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn modes_read_back(mode in 0_u32..=0o7777) {
            prop_assert_eq!(FileMode(mode).to_string().parse(), Ok(FileMode(mode)));
        }

        #[test]
        fn escaped_bytes_read_back(bytes in any::<Vec<u8>>()) {
            let text = Escaped(bytes);
            prop_assert_eq!(text.to_string().parse(), Ok(text));
        }

        #[test]
        fn any_text_can_be_parsed(text in any::<String>()) {
            let _ = (text.parse::<Time>(), text.parse::<Size>(), text.parse::<Escaped>(), text.parse::<FileMode>());
        }
    }
}
