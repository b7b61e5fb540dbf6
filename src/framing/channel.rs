//! The request number of Squid's helper protocol, which stands before a line so that a program can have many requests
//! at a time and answer them in any order: `ID SP text LF`, in both directions. A helper repeats the number that it was
//! given.
//!
//! A number is accepted only in the digits in which it is written: no sign, no leading zero, no other white space. `ID
//! LF` is an answer too, an empty one.

use std::io::Write;

/// The length of the longest prefix: ten digits and the blank.
pub const LONGEST_PREFIX: usize = 11;

/// The text before a line: the digits and the blank.
#[derive(Debug, Clone, Copy)]
pub struct Prefix {
    bytes: [u8; LONGEST_PREFIX],
    length: usize,
}

impl Prefix {
    /// Returns the prefix for a number.
    pub fn of(number: u32) -> Self {
        let mut bytes = [0; LONGEST_PREFIX];
        let mut room = bytes.as_mut_slice();
        // Every number fits: see the tests.
        let _ = write!(room, "{number} ");
        let left = room.len();
        Prefix {
            bytes,
            length: LONGEST_PREFIX - left,
        }
    }

    /// Returns the bytes to be written.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The result of reading the beginning of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The digits may not be complete.
    NeedMore,
    /// The line has this number. Its text (or its line end) begins after `prefix` bytes.
    Number {
        /// The number.
        number: u32,
        /// The length of the digits, and of the blank if there is one.
        prefix: usize,
    },
    /// The line has no number, whatever follows.
    None,
}

/// Reads the number before a line, or before the part of a line that has arrived.
pub fn channel(line: &[u8]) -> Channel {
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (text, rest) = line.split_at(digits);
    let blank = match rest {
        // More digits, or the first one, may follow.
        [] | [b'\r'] if digits < LONGEST_PREFIX => {
            return if is_number(text) || line.is_empty() {
                Channel::NeedMore
            } else {
                Channel::None
            };
        }
        [b' ', ..] => 1,
        [b'\n', ..] | [b'\r', b'\n', ..] => 0,
        _ => return Channel::None,
    };
    let number = text.iter().try_fold(0u32, |number, digit| {
        number.checked_mul(10)?.checked_add(u32::from(digit - b'0'))
    });
    match number.filter(|_| is_number(text)) {
        Some(number) => Channel::Number {
            number,
            prefix: digits + blank,
        },
        None => Channel::None,
    }
}

/// Returns true if digits are written as a number is: there is at least one, and no leading zero.
fn is_number(digits: &[u8]) -> bool {
    matches!(digits, [b'0'] | [b'1'..=b'9', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_digits_and_a_blank() {
        for number in [0, 7, 10, 999_999_999, u32::MAX] {
            assert_eq!(Prefix::of(number).as_bytes(), format!("{number} ").as_bytes());
        }
    }

    #[test]
    fn the_text_begins_behind_one_blank() {
        let of = |number, prefix| Channel::Number { number, prefix };
        assert_eq!(channel(b"12 OK\n"), of(12, 3));
        assert_eq!(channel(b"12  OK\n"), of(12, 3), "the second blank is text");
        assert_eq!(channel(b"12 "), of(12, 3), "before anything of the text has come");
        assert_eq!(channel(b"0 \n"), of(0, 2));
        assert_eq!(channel(b"4294967295\n"), of(u32::MAX, 10));
        assert_eq!(channel(b"12\r\n"), of(12, 2), "an empty answer may end like any other");
    }

    #[test]
    fn a_number_in_any_other_form_is_none() {
        for line in [
            "OK\n",
            " 1 OK\n",
            "\n",
            "\r\n",
            "+1 OK\n",
            "-1 OK\n",
            "01 OK\n",
            "00\n",
            "1\tOK\n",
            "1x\n",
            "1\rx\n",
            "4294967296 OK\n",
            "99999999999",
            "00",
            "x",
            "\r",
        ] {
            assert_eq!(channel(line.as_bytes()), Channel::None, "{line:?}");
        }
    }

    #[test]
    fn unfinished_digits_need_more() {
        for line in ["", "1", "12", "12\r", "0"] {
            assert_eq!(channel(line.as_bytes()), Channel::NeedMore, "{line:?}");
        }
    }
}
