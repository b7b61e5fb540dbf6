//! The first bytes of a connection: which protocol begins there.
//!
//! ```text
//! on a listener for TLS     22                          a ClientHello: the name in it decides
//!                           00 00 00 08 04 d2 16 2f     PostgreSQL's SSLRequest: answered `S`, a ClientHello follows
//!                           00 00 00 08 04 d2 16 30     PostgreSQL's GSSENCRequest: answered `N`, all else may follow
//!                           anything else               plain bytes
//! on a listener for HTTP    PRI * HTTP/2.0 ..           HTTP/2 with prior knowledge
//!                           anything else               HTTP/1: the host in its head decides
//! ```
//!
//! [`judge`] is pure: all bytes that are held in, a [`Verdict`] out. The router asks after each read, until the verdict
//! is another than [`Verdict::NeedMore`]; a request of PostgreSQL is then dropped, answered, and judging begins again
//! with the next [`Entrance`] and a new [`Progress`]. The server of such a client is asked for TLS by [`SSL_REQUEST`] as
//! well, and [`judge_reply`] tells what it answers.
//!
//! The invariants: a verdict is the same however the bytes were cut into reads, except behind a request of PostgreSQL:
//! its client waits for the answer, so bytes that come in the same read were not meant to be there (CVE-2021-23214).

use std::fmt;

use super::exchange;
use super::head::{self, Head};
use super::hello::{self, Hello};

/// PostgreSQL's request for TLS, before its first message: a length of 8, and a number in place of a version.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Its request for encryption by GSSAPI.
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

/// The first bytes of HTTP/2 from a client that knows that the server speaks it (RFC 9113, section 3.4).
const HTTP_2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The place in a connection at which bytes are judged: it decides what may begin there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// The beginning, on a listener for TLS.
    Tls,
    /// Behind a GSSENCRequest that was answered `N`: everything may follow except another one.
    GssDenied,
    /// Behind an SSLRequest that was answered `S`: a ClientHello must follow.
    Invited,
    /// The beginning, on a listener for HTTP.
    Http,
}

/// The finding about the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// More bytes are needed.
    NeedMore,
    /// TLS.
    Tls(Hello<'a>),
    /// An SSLRequest, and nothing behind it. The answer is `S`, what follows is [`Entrance::Invited`].
    PostgresTls,
    /// A GSSENCRequest, and nothing behind it. The answer is `N`, what follows is [`Entrance::GssDenied`].
    PostgresGss,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// A request of HTTP/1.
    Http(Head<'a>),
    /// Something else, at least one byte of it.
    Plain,
    /// Nothing that may begin here, whatever follows.
    Refuse(Fault),
}

/// The reason for which a connection is refused because of its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The ClientHello has a fault. A client of TLS is told so by an alert.
    Hello(hello::Fault),
    /// The head of the request has a fault. Its answer is 400.
    Head(head::Fault),
    /// The end of the request is not clear, in per-request mode. Its answer is 400.
    Request(exchange::Fault),
    /// Bytes came together with a request of PostgreSQL, before it was answered.
    BeforeTheAnswer,
    /// No ClientHello follows an SSLRequest.
    NoHello,
    /// A second GSSENCRequest.
    GssAgain,
}

/// Writes the fault as the end of a sentence that begins with the name of the client and "refused: ".
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Hello(fault) => write!(f, "its ClientHello {fault}"),
            Fault::Head(fault) => write!(f, "its request {fault}"),
            Fault::Request(fault) => write!(f, "its request {fault}"),
            Fault::BeforeTheAnswer => f.write_str("it did not wait for the answer to its SSLRequest or GSSENCRequest"),
            Fault::NoHello => f.write_str("no ClientHello follows its SSLRequest"),
            Fault::GssAgain => f.write_str("it sent a GSSENCRequest twice"),
        }
    }
}

/// The part of the bytes that is judged. It belongs to one [`Entrance`] of one connection.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    hello: hello::Progress,
    head: head::Progress,
}

/// Judges the bytes that came at this entrance: all of them, at least the ones of the call before with the same
/// `progress`.
pub fn judge<'a>(entrance: Entrance, bytes: &'a [u8], progress: &'a mut Progress) -> Verdict<'a> {
    match entrance {
        Entrance::Http => judge_http(bytes, &mut progress.head),
        Entrance::Tls | Entrance::GssDenied | Entrance::Invited => match bytes.first() {
            None => Verdict::NeedMore,
            Some(&hello::HANDSHAKE) => match hello::parse(bytes, &mut progress.hello) {
                hello::Parsed::NeedMore => Verdict::NeedMore,
                hello::Parsed::Hello(hello) => Verdict::Tls(hello),
                hello::Parsed::Wrong(fault) => Verdict::Refuse(Fault::Hello(fault)),
            },
            Some(_) if entrance == Entrance::Invited => Verdict::Refuse(Fault::NoHello),
            Some(_) => judge_plain(entrance, bytes),
        },
    }
}

/// Judges bytes that are no TLS, at least one.
fn judge_plain<'a>(entrance: Entrance, bytes: &[u8]) -> Verdict<'a> {
    let requests = [(SSL_REQUEST, Verdict::PostgresTls), (GSS_REQUEST, Verdict::PostgresGss)];
    for (request, verdict) in requests {
        if bytes == request && (entrance, verdict) == (Entrance::GssDenied, Verdict::PostgresGss) {
            return Verdict::Refuse(Fault::GssAgain);
        }
        if bytes == request {
            return verdict;
        }
        if bytes.starts_with(&request) {
            return Verdict::Refuse(Fault::BeforeTheAnswer);
        }
        if request.starts_with(bytes) {
            return Verdict::NeedMore;
        }
    }
    Verdict::Plain
}

/// Judges bytes on a listener for HTTP. The preface of HTTP/2 looks like a faulty head, so it is known first.
fn judge_http<'a>(bytes: &'a [u8], progress: &mut head::Progress) -> Verdict<'a> {
    if bytes.starts_with(HTTP_2_PREFACE) {
        return Verdict::Http2;
    }
    if HTTP_2_PREFACE.starts_with(bytes) {
        return Verdict::NeedMore;
    }
    match head::parse(bytes, progress) {
        head::Parsed::NeedMore => Verdict::NeedMore,
        head::Parsed::Head(head) => Verdict::Http(head),
        head::Parsed::Wrong(fault) => Verdict::Refuse(Fault::Head(fault)),
    }
}

/// The reason for which a server of PostgreSQL gets no TLS, although its client has asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoTls {
    /// The server has declined, by `N`.
    Declined,
    /// The server has sent something else, or something behind its answer: it is not to speak before the ClientHello
    /// has come (CVE-2021-23222).
    Wrong,
}

/// Writes the reason as the end of a sentence that begins with the server.
impl fmt::Display for NoTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoTls::Declined => "has no TLS (it answered N to an SSLRequest)",
            NoTls::Wrong => "has answered an SSLRequest by neither S nor N alone",
        })
    }
}

/// Judges the answer of a server to [`SSL_REQUEST`]: all bytes that came, at least one.
///
/// # Errors
/// The ClientHello must not be sent.
pub fn judge_reply(bytes: &[u8]) -> Result<(), NoTls> {
    if bytes == b"S" {
        Ok(())
    } else if bytes == b"N" {
        Err(NoTls::Declined)
    } else {
        Err(NoTls::Wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello for `a`, in one record.
    const HELLO: &[u8] = b"\x16\x03\x01\x00\x39\x01\x00\x00\x35\x03\x03\
        RRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRR\x00\x00\x02\x13\x01\x01\x00\x00\x0a\x00\x00\x00\x06\x00\x04\x00\x00\x01a";

    const ALL: [Entrance; 4] = [Entrance::Tls, Entrance::GssDenied, Entrance::Invited, Entrance::Http];

    /// The verdict about the bytes when they come one by one.
    #[track_caller]
    fn assert_judged(entrance: Entrance, bytes: &[u8], expected: Verdict<'_>) {
        let mut progress = Progress::default();
        for end in 0..bytes.len() {
            let part = &bytes[..end];
            assert_eq!(
                judge(entrance, part, &mut progress),
                Verdict::NeedMore,
                "{entrance:?} {end}"
            );
        }
        assert_eq!(judge(entrance, bytes, &mut progress), expected, "{entrance:?}");
        assert_eq!(
            judge(entrance, bytes, &mut Progress::default()),
            expected,
            "{entrance:?} at once"
        );
    }

    #[test]
    fn tls_is_judged_by_its_hello_at_each_entrance_for_it() {
        let hello = Hello {
            name: Some(b"a"),
            ..Hello::default()
        };
        for entrance in [Entrance::Tls, Entrance::GssDenied, Entrance::Invited] {
            assert_judged(entrance, HELLO, Verdict::Tls(hello));
            let fault = Fault::Hello(hello::Fault::RecordLength);
            assert_judged(entrance, b"\x16\x03\x01\x00\x00", Verdict::Refuse(fault));
        }
    }

    #[test]
    fn nothing_is_judged_without_a_byte() {
        for entrance in ALL {
            assert_judged(entrance, b"", Verdict::NeedMore);
        }
    }

    #[test]
    fn a_request_of_postgresql_is_known_when_it_is_complete() {
        for entrance in [Entrance::Tls, Entrance::GssDenied] {
            assert_judged(entrance, &SSL_REQUEST, Verdict::PostgresTls);
        }
        assert_judged(Entrance::Tls, &GSS_REQUEST, Verdict::PostgresGss);
        assert_judged(Entrance::GssDenied, &GSS_REQUEST, Verdict::Refuse(Fault::GssAgain));
    }

    #[test]
    fn a_client_of_postgresql_that_does_not_wait_for_its_answer_is_refused() {
        let refused = Verdict::Refuse(Fault::BeforeTheAnswer);
        for request in [SSL_REQUEST, GSS_REQUEST] {
            for behind in [&b"\x16"[..], HELLO, &SSL_REQUEST, b"\0"] {
                for entrance in [Entrance::Tls, Entrance::GssDenied] {
                    let bytes = [&request, behind].concat();
                    assert_eq!(judge(entrance, &bytes, &mut Progress::default()), refused, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn a_server_is_sent_a_hello_only_if_it_has_answered_by_one_letter() {
        assert_eq!(judge_reply(b"S"), Ok(()));
        assert_eq!(judge_reply(b"N"), Err(NoTls::Declined));
        for wrong in [
            &b"E"[..],
            b"s",
            b"SS",
            b"S\x16\x03",
            b"N\0",
            b"ESFATAL",
            b"\x16",
            b"HTTP/1.1 400",
        ] {
            assert_eq!(judge_reply(wrong), Err(NoTls::Wrong), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn only_a_hello_follows_the_invitation_to_tls() {
        for bytes in [&SSL_REQUEST[..], &GSS_REQUEST, b"\0", b"G", b"\x15\x03\x03\0\x02\x01\0"] {
            let refused = Verdict::Refuse(Fault::NoHello);
            assert_eq!(
                judge(Entrance::Invited, bytes, &mut Progress::default()),
                refused,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn everything_else_on_a_listener_for_tls_is_plain_from_its_first_different_byte_on() {
        // HTTP, SSH, a hello of SSL 2, PostgreSQL without TLS and its cancelling, an alert, what is nearly a request.
        let plain: [&[u8]; 9] = [
            b"G",
            b"S",
            b"\x80",
            b"\0\0\0\x08\x04\xd2\x16\x2e",
            b"\0\0\0\x10",
            b"\0\x03",
            b"\x15",
            b"\x17",
            b"\0\0\0\x08\x04\xd2\x16\x31",
        ];
        for bytes in plain {
            for entrance in [Entrance::Tls, Entrance::GssDenied] {
                assert_judged(entrance, bytes, Verdict::Plain);
            }
        }
    }

    #[test]
    fn http_2_is_known_by_its_whole_preface() {
        assert_judged(Entrance::Http, HTTP_2_PREFACE, Verdict::Http2);
        let with_settings = [HTTP_2_PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
        let mut progress = Progress::default();
        assert_eq!(judge(Entrance::Http, &with_settings, &mut progress), Verdict::Http2);
        let other = b"PRI * HTTP/2.0\r\n\r\nSN";
        assert_judged(
            Entrance::Http,
            other,
            Verdict::Refuse(Fault::Head(head::Fault::RequestLine)),
        );
    }

    #[test]
    fn everything_else_on_a_listener_for_http_is_a_head_or_a_fault_in_one() {
        for bytes in [
            &b"POST /a HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"PRI / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            let head::Parsed::Head(head) = head::parse(bytes, &mut head::Progress::default()) else {
                panic!("a head")
            };
            assert_judged(Entrance::Http, bytes, Verdict::Http(head));
        }
        for bytes in [&HELLO[..1], &SSL_REQUEST[..1], b"\r"] {
            let refused = Verdict::Refuse(Fault::Head(head::Fault::RequestLine));
            assert_judged(Entrance::Http, bytes, refused);
        }
    }
}
