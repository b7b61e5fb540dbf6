//! The reply of a pool, and the part of it that the asking program gets.
//!
//! A reply is one line. It is complete at its LF; bytes after the LF are ignored, because the connection has served its
//! purpose. A connection that ends before the LF brought no reply, however many bytes came: a pool closes the
//! connection of a request that it lost, and half an answer to a URL rewriter is a wrong answer.
//!
//! Squid gets the reply byte for byte, with these exceptions, each for the sake of Squid's parser:
//! - a CR before the LF is removed;
//! - an empty line, by which squidGuard 1.4 and 1.5 leave a URL alone, becomes `ERR`, which means the same today: after
//!   a channel-ID an empty answer could not be parsed;
//! - a reply with a NUL, at which Squid would stop looking for the end of the line, is no answer;
//! - nor is a reply longer than Squid's buffer for helpers.
//!
//! Squid understands everything else (`OK ...`, `ERR`, `BH ...`, a bare URL, `302:URL`, `URL ip/fqdn ident method`) as
//! it is, with a channel-ID in front or without.

use crate::framing::Progress;
use crate::framing::line::LineFramer;
use crate::framing::tls_alert::is_alert;

use super::options::Mode;

/// The longest reply that is accepted from a pool, in bytes, without its LF.
pub const LONGEST_REPLY: usize = 1024 * 1024;

/// The longest line that Squid accepts, in bytes, including its LF: Squid reads helpers through a buffer of 32 KiB, of
/// which it uses one byte itself (ReadBufSize in its helper.cc).
pub const LONGEST_FOR_SQUID: usize = 32 * 1024 - 1;

/// The reason why a reply is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The pool closed the connection without a byte.
    Empty,
    /// The pool closed the connection within its reply.
    Unfinished,
    /// The reply is longer than the asking program can take.
    TooLong,
    /// The reply holds a NUL.
    Nul,
    /// The reply is an alert of TLS.
    Tls,
}

/// A reply that is being received.
#[derive(Debug)]
pub struct Collector {
    framer: LineFramer,
    bytes: Vec<u8>,
}

impl Default for Collector {
    fn default() -> Self {
        Collector {
            framer: LineFramer::new(LONGEST_REPLY),
            bytes: Vec::new(),
        }
    }
}

impl Collector {
    /// Adds the next bytes. Returns the reply without its LF when it is complete; must not be called after that, nor
    /// after an error.
    ///
    /// # Errors
    /// [`Flaw::TooLong`] and [`Flaw::Tls`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Flaw> {
        self.bytes.extend_from_slice(bytes);
        match self.framer.advance(&self.bytes) {
            Progress::NeedMore => Ok(None),
            // LineFramer never returns `Malformed`.
            Progress::TooLong | Progress::Malformed(_) => Err(Flaw::TooLong),
            // The description of an alert may be 10, which is LF.
            Progress::Frame(_) if is_alert(&self.bytes) => Err(Flaw::Tls),
            Progress::Frame(frame) => {
                self.bytes.truncate(frame.payload.end);
                Ok(Some(std::mem::take(&mut self.bytes)))
            }
        }
    }

    /// Returns the flaw of a reply whose connection has ended before it was complete.
    pub fn flaw_at_end(&self) -> Flaw {
        if self.bytes.is_empty() {
            Flaw::Empty
        } else if is_alert(&self.bytes) {
            Flaw::Tls
        } else {
            Flaw::Unfinished
        }
    }
}

/// Returns the part of a complete reply (without its LF) that goes to the asking program. `ahead` is the number of
/// bytes of channel-ID and blank that will be put in front of it.
///
/// # Errors
/// [`Flaw::Nul`] and [`Flaw::TooLong`], for Squid only.
pub fn result(mode: Mode, reply: &[u8], ahead: usize) -> Result<&[u8], Flaw> {
    if mode == Mode::Plain {
        return Ok(reply);
    }
    let reply = reply.strip_suffix(b"\r").unwrap_or(reply);
    if reply.contains(&0) {
        return Err(Flaw::Nul);
    }
    if ahead + reply.len() + 1 > LONGEST_FOR_SQUID {
        return Err(Flaw::TooLong);
    }
    if reply.iter().all(u8::is_ascii_whitespace) {
        return Ok(b"ERR");
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn for_squid(reply: &[u8]) -> Result<&[u8], Flaw> {
        result(Mode::Squid, reply, 0)
    }

    #[test]
    fn a_reply_that_squid_understands_is_passed_unchanged() {
        let replies: [&[u8]; 7] = [
            b"OK rewrite-url=\"http://b/\"",
            b"OK status=302 url=\"http://b/?u=x\"",
            b"ERR",
            b"BH message=\"squidGuard error parsing squid line\"",
            b"http://b/",
            b"302:http://b/",
            b"http://b/ 10.0.0.1/- - GET",
        ];
        for reply in replies {
            assert_eq!(for_squid(reply), Ok(reply));
            assert_eq!(for_squid(&[reply, b"\r"].concat()), Ok(reply));
        }
    }

    #[test]
    fn an_empty_line_becomes_err() {
        for reply in [&b""[..], b"\r", b" ", b" \r"] {
            assert_eq!(for_squid(reply), Ok(&b"ERR"[..]));
        }
    }

    #[test]
    fn a_reply_that_squid_cannot_parse_is_no_answer() {
        assert_eq!(for_squid(b"OK\0"), Err(Flaw::Nul));
        let longest = vec![b'x'; LONGEST_FOR_SQUID - 1];
        assert_eq!(for_squid(&longest), Ok(longest.as_slice()));
        assert_eq!(result(Mode::Squid, &longest, 1), Err(Flaw::TooLong));
    }

    #[test]
    fn a_plain_reply_is_not_touched() {
        for reply in [&b""[..], b"a\r", b"a\0b"] {
            assert_eq!(result(Mode::Plain, reply, 0), Ok(reply));
        }
    }

    #[test]
    fn a_reply_is_complete_at_its_lf_and_not_before() {
        let mut collector = Collector::default();
        assert_eq!(collector.flaw_at_end(), Flaw::Empty);
        assert_eq!(collector.push(b"OK"), Ok(None));
        assert_eq!(collector.flaw_at_end(), Flaw::Unfinished);
        assert_eq!(collector.push(b" x\nmore"), Ok(Some(b"OK x".to_vec())));
    }

    #[test]
    fn a_reply_without_end_is_given_up() {
        let mut collector = Collector::default();
        assert_eq!(collector.push(&vec![b'x'; LONGEST_REPLY]), Ok(None));
        assert_eq!(collector.push(b"x"), Err(Flaw::TooLong));
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_matter(reply in "[a-c\r]{0,40}", behind in "[a-c\n]{0,9}", size in 1usize..9) {
            let sent = format!("{reply}\n{behind}");
            let mut collector = Collector::default();
            let got = sent.as_bytes().chunks(size).find_map(|piece| collector.push(piece).unwrap());
            prop_assert_eq!(got, Some(reply.into_bytes()));
        }

        /// Squid gets one line that is not empty and that it can hold, for any reply of a pool.
        #[test]
        fn squid_always_gets_one_line(reply in proptest::collection::vec(any::<u8>().prop_filter("LF", |byte| *byte != b'\n'), 0..60)) {
            if let Ok(result) = for_squid(&reply) {
                prop_assert!(!result.is_empty() && !result.contains(&b'\n') && !result.contains(&0));
                prop_assert!(!result.ends_with(b"\r") || reply.ends_with(b"\r\r"));
            }
        }
    }
}
