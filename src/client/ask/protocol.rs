//! The protocol of the asking program: the part of a line that is the question, and the text around its answer.
//!
//! Squid puts a channel-ID in front of each line if `concurrency` is at least 1 and none otherwise, for as long as the
//! helper lives. Only the lines themselves show which of the two applies, and a line may begin with a number of its
//! own: the line of `auth_param basic` is a user's name and password, and names can be numbers. So the operator states
//! it, or it is guessed from the first line: the first channel-ID of a new helper is 0 (up to Squid 3.5) or 1 (since
//! Squid 4), and no other number is taken for one. A later line that contradicts the guess is not asked at all, because
//! it would be asked as the wrong question.
//!
//! A channel-ID is opaque: it is put in front of the answer byte for byte.

use super::options::{ChannelIds, Mode};

/// The way in which lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The whole line is the question.
    Plain,
    /// Squid, before its first line.
    Undecided,
    /// Squid without channel-IDs: the answers keep the order of the lines.
    Serial(Evidence),
    /// Squid with channel-IDs: the answers come in any order.
    Concurrent,
}

/// The reason to believe that there are no channel-IDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The operator has said so.
    Stated,
    /// The first line did not begin with one.
    FirstLine,
}

/// A line, separated into its parts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Question {
    /// The channel-ID; empty if there is none.
    pub channel: Vec<u8>,
    /// The question to the pool, without LF.
    pub text: Vec<u8>,
}

/// The result of reading a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// A question.
    Question(Question),
    /// A line with a channel-ID where none is expected, or without one where one is expected. It holds the channel-ID
    /// for the answer, if there is one.
    Contradiction(Vec<u8>),
}

impl Protocol {
    /// Returns the protocol before the first line.
    pub fn new(mode: Mode, channel_ids: ChannelIds) -> Protocol {
        match (mode, channel_ids) {
            (Mode::Plain, _) => Protocol::Plain,
            (Mode::Squid, ChannelIds::Auto) => Protocol::Undecided,
            (Mode::Squid, ChannelIds::Yes) => Protocol::Concurrent,
            (Mode::Squid, ChannelIds::No) => Protocol::Serial(Evidence::Stated),
        }
    }

    /// Separates a line (given without its LF) into its parts. The first line may fix the protocol for all following
    /// lines.
    pub fn read(&mut self, line: &[u8]) -> Reading {
        if *self == Protocol::Plain {
            return question(b"", line);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let channel = channel_of(line);
        let is_first_id = channel.is_some_and(|channel| matches!(channel, b"0" | b"1") && line.len() > channel.len());
        if *self == Protocol::Undecided {
            *self = if is_first_id {
                Protocol::Concurrent
            } else {
                Protocol::Serial(Evidence::FirstLine)
            };
        }
        match (*self, channel) {
            (Protocol::Concurrent, Some(channel)) => {
                let text = line.get(channel.len() + 1..).unwrap_or_default();
                question(channel, text)
            }
            (Protocol::Concurrent, None) => Reading::Contradiction(Vec::new()),
            // Other numbers may be the names of users. 0 and 1 may be as well, but then the guess from the first line
            // was unfounded.
            (Protocol::Serial(Evidence::FirstLine), Some(channel)) if is_first_id => {
                Reading::Contradiction(channel.to_vec())
            }
            _ => question(b"", line),
        }
    }
}

fn question(channel: &[u8], text: &[u8]) -> Reading {
    Reading::Question(Question {
        channel: channel.to_vec(),
        text: text.to_vec(),
    })
}

/// Returns the decimal number that is the first word of a line, up to a blank or the end of the line.
fn channel_of(line: &[u8]) -> Option<&[u8]> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_word = digits > 0 && line.get(digits).is_none_or(|byte| *byte == b' ');
    line.get(..digits).filter(|_| is_word)
}

/// Returns the line of an answer: the channel-ID, if there is one, the result, and the LF.
pub fn answer(channel: &[u8], result: &[u8]) -> Vec<u8> {
    let blank = if channel.is_empty() { &b""[..] } else { b" " };
    [channel, blank, result, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONTRADICTION: Reading = Reading::Contradiction(Vec::new());

    fn squid(channel_ids: ChannelIds) -> Protocol {
        Protocol::new(Mode::Squid, channel_ids)
    }

    #[test]
    fn the_first_line_decides_if_there_are_channel_ids() {
        for first in ["0", "1"] {
            let mut squid = squid(ChannelIds::Auto);
            let line = format!("{first} http://a/ 1/- - GET\r");
            assert_eq!(
                squid.read(line.as_bytes()),
                question(first.as_bytes(), b"http://a/ 1/- - GET")
            );
            assert_eq!(squid, Protocol::Concurrent);
            assert_eq!(squid.read(b"8"), question(b"8", b""));
            assert_eq!(squid.read(b"007 x"), question(b"007", b"x"));
        }
        let mut squid = squid(ChannelIds::Auto);
        assert_eq!(
            squid.read(b"http://a/ 1/- - GET"),
            question(b"", b"http://a/ 1/- - GET")
        );
        assert_eq!(squid.read(b"8 x"), question(b"", b"8 x"), "decided once and for all");
    }

    #[test]
    fn a_users_name_that_is_a_number_is_no_channel_id() {
        for first in [&b"1042 pw1042"[..], b"2 pw", b"00 pw", b"01 pw", b"10 pw", b"1", b"0"] {
            for channel_ids in [ChannelIds::Auto, ChannelIds::No] {
                let mut squid = squid(channel_ids);
                assert_eq!(squid.read(first), question(b"", first));
                assert_eq!(squid.read(b"1043 pw1043"), question(b"", b"1043 pw1043"));
            }
        }
        assert_eq!(squid(ChannelIds::No).read(b"1 pw1"), question(b"", b"1 pw1"));
    }

    #[test]
    fn a_line_that_contradicts_the_use_of_channel_ids_is_not_asked() {
        let mut with = squid(ChannelIds::Auto);
        with.read(b"0 http://a/");
        for mut squid in [with, squid(ChannelIds::Yes)] {
            for line in [&b"http://a/"[..], b"", b" 1 x", b"1a x", b"1\tx", b"-1 x"] {
                assert_eq!(squid.read(line), CONTRADICTION, "{line:?}");
            }
            assert_eq!(
                squid.read(b"5 http://b/"),
                question(b"5", b"http://b/"),
                "the next is as good as ever"
            );
        }
        let mut without = squid(ChannelIds::Auto);
        without.read(b"http://a/");
        for channel in ["0", "1"] {
            let line = format!("{channel} http://b/");
            assert_eq!(without.read(line.as_bytes()), Reading::Contradiction(channel.into()));
        }
        assert_eq!(without.read(b"http://c/"), question(b"", b"http://c/"));
    }

    #[test]
    fn text_that_only_resembles_a_channel_id_belongs_to_the_question() {
        for line in [
            &b"80"[..],
            b"10.0.0.1:443 1/- - CONNECT",
            b" 1 x",
            b"",
            b"1\tx",
            b"1a x",
        ] {
            assert_eq!(squid(ChannelIds::Auto).read(line), question(b"", line));
        }
    }

    #[test]
    fn a_plain_line_is_asked_as_it_is() {
        for channel_ids in [ChannelIds::Auto, ChannelIds::Yes] {
            assert_eq!(
                Protocol::new(Mode::Plain, channel_ids).read(b"1 x\r"),
                question(b"", b"1 x\r")
            );
        }
    }

    proptest! {
        /// The channel-ID that was removed from a line is put back in front of its answer, byte for byte.
        #[test]
        fn a_channel_id_is_put_back_unchanged(channel in "[0-9]{1,30}", text in "[ -~]{0,60}") {
            let read = squid(ChannelIds::Yes).read(format!("{channel} {text}").as_bytes());
            prop_assert_eq!(read, question(channel.as_bytes(), text.as_bytes()));
            prop_assert_eq!(answer(channel.as_bytes(), b"ERR"), format!("{channel} ERR\n").into_bytes());
        }

        /// Without channel-IDs the line is asked unchanged.
        #[test]
        fn a_line_without_channel_id_is_asked_as_it_is(first in "[0-9]{0,3}[ -~]{0,20}", next in "[0-9]{0,3}[ -~]{0,20}") {
            let mut squid = squid(ChannelIds::No);
            prop_assert_eq!(squid.read(first.as_bytes()), question(b"", first.as_bytes()));
            prop_assert_eq!(squid.read(next.as_bytes()), question(b"", next.as_bytes()));
        }
    }
}
