//! The preface of a connection: bytes in front of the ones that its door reads. Pure: all bytes that were read so far
//! in, a verdict out.
//!
//! The one preface is the header of the [PROXY protocol](crate::net::proxy). Bytes that a door goes by itself, as a
//! ClientHello whose name decides where a connection goes, are none: the door reads them once it has the connection.

use std::fmt;

use crate::net::origin::Asserted;
use crate::net::proxy::{self, Details, Fault, LONGEST, Parsed};

/// The preface that is awaited of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preface {
    /// A header of the PROXY protocol.
    ProxyHeader {
        /// True if the connection may also begin without it.
        is_optional: bool,
    },
}

/// The decision about a connection, by the bytes that were read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// More bytes are needed.
    NeedMore,
    /// The connection may be admitted.
    Complete {
        /// The number of bytes that the preface takes. The others are the door's.
        taken: usize,
        /// The client that the preface asserts; `None` if there is no preface, and the peer is the client.
        client: Option<Asserted>,
        /// The names that it gives.
        details: Option<Details>,
    },
    /// The connection is refused.
    Refuse(Refusal),
    /// The peer has only looked if the door answers, as health checks do. The connection is closed, and nothing is wrong.
    Close,
}

/// The reason why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The peer has ended its side.
    Closed,
    /// The time is over.
    Deadline,
}

/// The reason to refuse a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It does not begin with a header.
    NoHeader,
    /// Its header has a fault.
    Wrong(Fault),
    /// It ended before the end of its header.
    Unended,
    /// Its header was not complete in time.
    TooSlow,
    /// Its header was not complete, and newer connections needed the place.
    Displaced,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoHeader => f.write_str("it begins without a PROXY header, which --accept-proxy asks of it"),
            Refusal::Wrong(fault) => write!(f, "its PROXY header {fault}"),
            Refusal::Unended => f.write_str("it closed before the end of its PROXY header"),
            Refusal::TooSlow => f.write_str("its PROXY header was not complete in time"),
            Refusal::Displaced => f.write_str(
                "its PROXY header was not complete, and as many wait for theirs as half of --max-connections allows",
            ),
        }
    }
}

impl Preface {
    /// The most bytes that are read of a connection before the verdict.
    pub(super) const MOST: usize = LONGEST;

    /// Judges a connection that goes on.
    pub(super) fn judge(self, bytes: &[u8]) -> Verdict {
        let Preface::ProxyHeader { is_optional } = self;
        match proxy::parse(bytes) {
            Parsed::NeedMore { .. } if bytes.len() < Self::MOST => Verdict::NeedMore,
            Parsed::NeedMore { .. } => Verdict::Refuse(Refusal::Wrong(Fault::TooLong)),
            Parsed::NoHeader if is_optional => no_preface(),
            Parsed::NoHeader => Verdict::Refuse(Refusal::NoHeader),
            Parsed::Wrong(fault) => Verdict::Refuse(Refusal::Wrong(fault)),
            Parsed::Header(header) => Verdict::Complete {
                taken: header.length,
                client: Some(header.client),
                details: header.details,
            },
        }
    }

    /// Judges a connection of which more was [needed](Verdict::NeedMore), and of which no more comes.
    pub(super) fn judge_rest(self, bytes: &[u8], ending: Ending) -> Verdict {
        let Preface::ProxyHeader { is_optional } = self;
        let may_be_none = is_optional && proxy::parse(bytes) == (Parsed::NeedMore { has_signature: false });
        match ending {
            Ending::Closed if bytes.is_empty() => Verdict::Close,
            Ending::Closed | Ending::Deadline if may_be_none => no_preface(),
            Ending::Closed => Verdict::Refuse(Refusal::Unended),
            Ending::Deadline => Verdict::Refuse(Refusal::TooSlow),
        }
    }
}

/// The verdict about a connection that begins with the bytes of its door.
fn no_preface() -> Verdict {
    Verdict::Complete {
        taken: 0,
        client: None,
        details: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: Preface = Preface::ProxyHeader { is_optional: false };
    const OPTIONAL: Preface = Preface::ProxyHeader { is_optional: true };

    fn complete(taken: usize, client: Option<Asserted>) -> Verdict {
        Verdict::Complete {
            taken,
            client,
            details: None,
        }
    }

    #[test]
    fn a_header_that_is_required_is_taken_and_anything_else_is_refused() {
        let unknown = complete(15, Some(Asserted::Unknown));
        assert_eq!(REQUIRED.judge(b"PROXY UNKNOWN\r\nline\n"), unknown);
        assert_eq!(REQUIRED.judge(b"PROXY UN"), Verdict::NeedMore);
        assert_eq!(REQUIRED.judge(b"line\n"), Verdict::Refuse(Refusal::NoHeader));
        assert_eq!(
            REQUIRED.judge(b"PROXY x\r\n"),
            Verdict::Refuse(Refusal::Wrong(Fault::Line))
        );
    }

    #[test]
    fn without_a_header_that_is_optional_the_peer_is_the_client_and_its_bytes_are_the_doors() {
        assert_eq!(OPTIONAL.judge(b"line\n"), complete(0, None));
        assert_eq!(
            OPTIONAL.judge(b"PROXY UNKNOWN\r\n"),
            complete(15, Some(Asserted::Unknown))
        );
        // A header that has begun is none to be passed on as data.
        assert_eq!(
            OPTIONAL.judge(b"PROXY x\r\n"),
            Verdict::Refuse(Refusal::Wrong(Fault::Line))
        );
    }

    #[test]
    fn the_end_of_a_connection_is_a_health_check_a_short_request_or_a_broken_header() {
        for (bytes, required, optional) in [
            (&b""[..], Verdict::Close, Verdict::Close),
            (b"PROX", Verdict::Refuse(Refusal::Unended), complete(0, None)),
            (
                b"PROXY U",
                Verdict::Refuse(Refusal::Unended),
                Verdict::Refuse(Refusal::Unended),
            ),
        ] {
            assert_eq!(REQUIRED.judge_rest(bytes, Ending::Closed), required, "{bytes:?}");
            assert_eq!(OPTIONAL.judge_rest(bytes, Ending::Closed), optional, "{bytes:?}");
        }
    }

    #[test]
    fn a_silent_connection_is_refused_at_the_deadline_unless_the_header_is_optional() {
        let late = Verdict::Refuse(Refusal::TooSlow);
        for (bytes, optional) in [
            (&b""[..], complete(0, None)),
            (b"PROX", complete(0, None)),
            (b"PROXY U", late.clone()),
        ] {
            assert_eq!(REQUIRED.judge_rest(bytes, Ending::Deadline), late, "{bytes:?}");
            assert_eq!(OPTIONAL.judge_rest(bytes, Ending::Deadline), optional, "{bytes:?}");
        }
    }
}
