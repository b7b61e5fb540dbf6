//! How whoever asks speaks: what of a line is the question, and what stands around its answer.
//!
//! Squid puts a channel-ID in front of each line if `concurrency` is at least 1 and none otherwise, for as long as the
//! helper lives. Which of the two it is shows in the first line: a word of decimal digits alone in front of a blank is a
//! channel-ID, because no URL is a number. A channel-ID is opaque: it is put in front of the answer byte for byte.

use super::options::Mode;

/// How lines are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The line is the question.
    Plain,
    /// Squid, which has not said anything yet.
    Unheard,
    /// Squid without channel-IDs: one line after the other.
    Serial,
    /// Squid with channel-IDs: answers in any order.
    Concurrent,
}

/// One line, understood.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Question {
    /// The channel-ID; empty if there is none.
    pub channel: Vec<u8>,
    /// What the pool is asked, without its LF.
    pub text: Vec<u8>,
}

impl Dialect {
    /// How to begin.
    pub fn new(mode: Mode) -> Dialect {
        match mode {
            Mode::Plain => Dialect::Plain,
            Mode::Squid => Dialect::Unheard,
        }
    }

    /// Whose replies are fit for whom.
    pub fn mode(self) -> Mode {
        match self {
            Dialect::Plain => Mode::Plain,
            Dialect::Unheard | Dialect::Serial | Dialect::Concurrent => Mode::Squid,
        }
    }

    /// Understands a line (without its LF); the first one decides about all.
    pub fn read(&mut self, line: &[u8]) -> Question {
        if *self == Dialect::Unheard {
            *self = if begins_with_channel(line) {
                Dialect::Concurrent
            } else {
                Dialect::Serial
            };
        }
        let line = match self {
            Dialect::Plain => line,
            _ => line.strip_suffix(b"\r").unwrap_or(line),
        };
        let (channel, text) = match self {
            Dialect::Concurrent => split_channel(line),
            _ => (&b""[..], line),
        };
        Question {
            channel: channel.to_vec(),
            text: text.to_vec(),
        }
    }
}

fn begins_with_channel(line: &[u8]) -> bool {
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && line.get(digits) == Some(&b' ')
}

/// In a line that lacks the blank all is channel-ID, so that the answer finds its way back.
fn split_channel(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b' ', line) {
        Some(at) => (
            line.get(..at).unwrap_or_default(),
            line.get(at + 1..).unwrap_or_default(),
        ),
        None => (line, b""),
    }
}

/// The line that answers: the channel-ID, if there is one, the result, and the LF.
pub fn answer(channel: &[u8], result: &[u8]) -> Vec<u8> {
    let blank = if channel.is_empty() { &b""[..] } else { b" " };
    [channel, blank, result, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question(channel: &[u8], text: &[u8]) -> Question {
        Question {
            channel: channel.to_vec(),
            text: text.to_vec(),
        }
    }

    #[test]
    fn the_first_line_tells_whether_there_are_channel_ids() {
        let mut squid = Dialect::new(Mode::Squid);
        assert_eq!(
            squid.read(b"007 http://a/ 1/- - GET\r"),
            question(b"007", b"http://a/ 1/- - GET")
        );
        assert_eq!(squid, Dialect::Concurrent);
        assert_eq!(squid.read(b"8"), question(b"8", b""));

        let mut squid = Dialect::new(Mode::Squid);
        assert_eq!(
            squid.read(b"http://a/ 1/- - GET"),
            question(b"", b"http://a/ 1/- - GET")
        );
        assert_eq!(squid, Dialect::Serial);
        assert_eq!(squid.read(b"8 x"), question(b"", b"8 x"), "decided once and for all");
    }

    #[test]
    fn what_only_looks_like_a_channel_id_is_none() {
        for line in [
            &b"80"[..],
            b"10.0.0.1:443 1/- - CONNECT",
            b" 1 x",
            b"",
            b"1\tx",
            b"1a x",
        ] {
            let mut squid = Dialect::new(Mode::Squid);
            assert_eq!(squid.read(line), question(b"", line));
        }
    }

    #[test]
    fn a_plain_line_is_asked_as_it_is() {
        assert_eq!(Dialect::new(Mode::Plain).read(b"1 x\r"), question(b"", b"1 x\r"));
    }

    proptest! {
        /// What is taken off a line is put back in front of its answer, byte for byte.
        #[test]
        fn a_channel_id_comes_back(channel in "[0-9]{1,30}", text in "[ -~]{0,60}") {
            let read = Dialect::new(Mode::Squid).read(format!("{channel} {text}").as_bytes());
            prop_assert_eq!(&read, &question(channel.as_bytes(), text.as_bytes()));
            prop_assert_eq!(answer(&read.channel, b"ERR"), format!("{channel} ERR\n").into_bytes());
        }
    }
}
