//! The lines of a multiplexed connection to a pool, on which many requests are under way at a time. `doc/protocol.md`
//! describes them for people who write a client.
//!
//! The life of a connection: the client sends the hello, the server answers with the [`Welcome`]. From then on each
//! line of the client is a request behind a number, in the form of [`channel`], or cancels one; each
//! line of the server is an answer behind the number of its request, or announces that the server drains.
//!
//! Both sides of the connection use this module, and nothing here knows which requests are under way: the two rooms that
//! hold connections do.

use std::io::Write;

use super::channel::{self, Channel};

/// The highest version of the protocol that this program speaks.
pub const VERSION: u32 = 1;
/// The hello, which is the first line of a client.
pub const HELLO: &[u8] = b"iotcpd-multiplex 1\n";
/// The announcement of the server that it takes nothing new on this connection.
pub const DRAIN: &[u8] = b"!drain\n";

/// The first word of hello and welcome.
const NAME: &[u8] = b"iotcpd-multiplex";
/// The beginning of a cancellation; the number of the request follows.
const CANCEL: &[u8] = b"!cancel ";

/// The server's answer to the hello: the limits within which the client has to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The number of unanswered requests at which the server does not read from the connection any more. At least 1.
    pub max_unanswered: usize,
    /// The length of the longest request, in bytes, without its number and LF.
    pub max_request: usize,
    /// The number of requests that the workers can have in hand together. A client that is in no hurry keeps not much
    /// more than these under way, so that none waits long in the queue. At least 1.
    pub at_once: usize,
}

/// A line of a client, after the hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientLine {
    /// A request, whose text (or line end) begins after `prefix` bytes.
    Request {
        /// The number that the client has chosen.
        number: u32,
        /// The length of the digits, and of the blank if there is one.
        prefix: usize,
    },
    /// The answer to the request with this number is not wanted any more.
    Cancel(u32),
    /// A line that has no place on such a connection.
    Unknown,
}

/// A line of a server, after the welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerLine {
    /// An answer, whose text (or line end) begins after `prefix` bytes.
    Answer {
        /// The number of its request.
        number: u32,
        /// The length of the digits, and of the blank if there is one.
        prefix: usize,
    },
    /// The server takes nothing new on this connection.
    Drain,
    /// An announcement that a later version has added. It can be ignored.
    Announcement,
    /// A line that has no place on such a connection.
    Unknown,
}

/// Returns true if a line is a hello, of this version or another. `line` may include its line end.
pub fn is_hello(line: &[u8]) -> bool {
    version_of(line).is_some()
}

impl Welcome {
    /// Appends the welcome, with its LF.
    pub fn encode(&self, wire: &mut Vec<u8>) {
        let Welcome {
            max_unanswered,
            max_request,
            at_once,
        } = self;
        wire.extend_from_slice(NAME);
        // A Vec takes all that is written to it.
        let _ = writeln!(
            wire,
            " {VERSION} max-unanswered={max_unanswered} max-request={max_request} at-once={at_once}"
        );
    }

    /// Reads a welcome, with or without its line end. Returns `None` for any other line, and for a version that this
    /// program does not speak. Words that are not known are skipped.
    pub fn parse(line: &[u8]) -> Option<Welcome> {
        version_of(line).filter(|version| *version == VERSION)?;
        let text = std::str::from_utf8(line).ok()?;
        let number = |name: &str| {
            let mut values = text.split_ascii_whitespace().filter_map(|word| word.split_once('='));
            let (_, value) = values.find(|(key, _)| *key == name)?;
            value.parse::<usize>().ok()
        };
        Some(Welcome {
            max_unanswered: number("max-unanswered").filter(|number| *number > 0)?,
            max_request: number("max-request")?,
            at_once: number("at-once").filter(|number| *number > 0)?,
        })
    }
}

impl ClientLine {
    /// Reads a whole line of a client, with its LF.
    pub fn parse(line: &[u8]) -> ClientLine {
        if let Some(rest) = line.strip_prefix(CANCEL) {
            return match channel::channel(rest) {
                Channel::Number { number, prefix } if is_line_end(rest.get(prefix..)) => ClientLine::Cancel(number),
                _ => ClientLine::Unknown,
            };
        }
        match channel::channel(line) {
            Channel::Number { number, prefix } => ClientLine::Request { number, prefix },
            Channel::NeedMore | Channel::None => ClientLine::Unknown,
        }
    }
}

impl ServerLine {
    /// Reads a whole line of a server, with its LF.
    pub fn parse(line: &[u8]) -> ServerLine {
        if line.starts_with(b"!") {
            return match line.trim_ascii_end() {
                b"!drain" => ServerLine::Drain,
                _ => ServerLine::Announcement,
            };
        }
        match channel::channel(line) {
            Channel::Number { number, prefix } => ServerLine::Answer { number, prefix },
            Channel::NeedMore | Channel::None => ServerLine::Unknown,
        }
    }
}

/// Appends the line that cancels a request.
pub fn encode_cancel(number: u32, wire: &mut Vec<u8>) {
    wire.extend_from_slice(CANCEL);
    // A Vec takes all that is written to it.
    let _ = writeln!(wire, "{number}");
}

/// Returns the version in a hello or a welcome; `None` for any other line.
fn version_of(line: &[u8]) -> Option<u32> {
    let rest = line.strip_prefix(NAME)?.strip_prefix(b" ")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at(digits);
    let is_word = matches!(rest, [] | [b' ' | b'\r' | b'\n', ..]);
    let version = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (is_word && version > 0).then_some(version)
}

fn is_line_end(rest: Option<&[u8]>) -> bool {
    matches!(rest, Some(b"\n" | b"\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A worker that reads lines takes the hello for one request, whatever its limits.
    #[test]
    fn the_hello_is_one_harmless_line_and_long_enough_to_be_no_accident() {
        assert!(is_hello(HELLO));
        assert!(HELLO.len() > 16 && HELLO.ends_with(b"\n"));
        assert_eq!(HELLO.iter().filter(|byte| byte.is_ascii_control()).count(), 1);
    }

    #[test]
    fn a_hello_of_another_version_is_one_and_a_similar_line_is_not() {
        for line in [
            &b"iotcpd-multiplex 2\n"[..],
            b"iotcpd-multiplex 1\r\n",
            b"iotcpd-multiplex 17 later=1",
        ] {
            assert!(is_hello(line), "{line:?}");
        }
        for line in [
            &b"iotcpd-multiplex\n"[..],
            b"iotcpd-multiplex 0\n",
            b"iotcpd-multiplex x\n",
            b"iotcpd-multiplex 1x\n",
            b"iotcpd-multiplexer 1\n",
            b"iotcpd-multiplex 99999999999999999999\n",
            b" iotcpd-multiplex 1\n",
            b"\n",
            b"",
        ] {
            assert!(!is_hello(line), "{line:?}");
        }
    }

    #[test]
    fn a_welcome_with_unknown_words_is_read_and_one_that_lacks_a_limit_is_not() {
        let welcome = Welcome {
            max_unanswered: 64,
            max_request: 4096,
            at_once: 4,
        };
        let mut wire = Vec::new();
        welcome.encode(&mut wire);
        assert_eq!(
            wire,
            b"iotcpd-multiplex 1 max-unanswered=64 max-request=4096 at-once=4\n"
        );
        assert_eq!(
            Welcome::parse(b"iotcpd-multiplex 1 later at-once=4 x=y max-request=4096 max-unanswered=64\r\n"),
            Some(welcome)
        );
        for line in [
            &b"ERR\n"[..],
            b"iotcpd-multiplex 1\n",
            b"iotcpd-multiplex 2 max-unanswered=64 max-request=4096 at-once=4\n",
            b"iotcpd-multiplex 1 max-unanswered=0 max-request=4096 at-once=4\n",
            b"iotcpd-multiplex 1 max-unanswered=-1 max-request=4096 at-once=4\n",
            b"iotcpd-multiplex 1 max-unanswered=64 max-request=4096 at-once=\xff\n",
        ] {
            assert_eq!(Welcome::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_line_of_a_client_is_a_request_a_cancellation_or_out_of_place() {
        let request = |number, prefix| ClientLine::Request { number, prefix };
        assert_eq!(ClientLine::parse(b"7 http://a/\n"), request(7, 2));
        assert_eq!(ClientLine::parse(b"7 \n"), request(7, 2), "an empty request is one");
        assert_eq!(ClientLine::parse(b"7\n"), request(7, 1), "with or without the blank");
        assert_eq!(ClientLine::parse(b"!cancel 7\n"), ClientLine::Cancel(7));
        assert_eq!(ClientLine::parse(b"!cancel 7\r\n"), ClientLine::Cancel(7));
        for line in [
            "http://a/\n",
            "\n",
            "!cancel\n",
            "!cancel 7 8\n",
            "!cancel x\n",
            "!drain\n",
            "07 x\n",
        ] {
            assert_eq!(ClientLine::parse(line.as_bytes()), ClientLine::Unknown, "{line:?}");
        }
    }

    #[test]
    fn the_line_of_a_server_is_an_answer_an_announcement_or_out_of_place() {
        assert_eq!(
            ServerLine::parse(b"7 OK\n"),
            ServerLine::Answer { number: 7, prefix: 2 }
        );
        assert_eq!(ServerLine::parse(DRAIN), ServerLine::Drain);
        assert_eq!(ServerLine::parse(b"!later 7\n"), ServerLine::Announcement);
        for line in ["OK\n", "\n", "7x\n"] {
            assert_eq!(ServerLine::parse(line.as_bytes()), ServerLine::Unknown, "{line:?}");
        }
    }

    proptest! {
        /// A limit arrives as it was sent.
        #[test]
        fn a_welcome_is_read_as_it_was_written(max_unanswered in 1usize.., max_request: usize, at_once in 1usize..) {
            let welcome = Welcome { max_unanswered, max_request, at_once };
            let mut wire = Vec::new();
            welcome.encode(&mut wire);
            prop_assert_eq!(Welcome::parse(&wire), Some(welcome));
        }

        /// A cancellation names the request that it was made for.
        #[test]
        fn a_cancellation_is_read_as_it_was_written(number: u32) {
            let mut wire = Vec::new();
            encode_cancel(number, &mut wire);
            prop_assert_eq!(ClientLine::parse(&wire), ClientLine::Cancel(number));
        }

        /// Any bytes are read without a panic, and no prefix reaches beyond the line.
        #[test]
        fn any_line_is_read(line in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (is_hello(&line), Welcome::parse(&line), ServerLine::parse(&line));
            if let ClientLine::Request { prefix, .. } = ClientLine::parse(&line) {
                prop_assert!(prefix <= line.len());
            }
        }
    }
}
