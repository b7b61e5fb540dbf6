//! The header of the PROXY protocol, versions 1 and 2: a proxy says at the beginning of a connection which client it
//! comes from (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>).
//!
//! [`parse`] is pure: all bytes that have been read so far in; "more is needed", a header with its length, a fault, or
//! the finding that no header begins here out.
//!
//! ```text
//! version 1   PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\r\n      at most 107 bytes
//!             PROXY UNKNOWN ...\r\n
//! version 2   \r\n\r\n\0\r\nQUIT\n | 2 and command | family and transport | length (2) | addresses | TLVs
//!             0                   12             13                     14           16
//! ```
//!
//! The invariants: nothing is decided by a guess. The bytes before the end of a signature are a part of it or no
//! header; behind it everything that the specification does not define is a fault. A fault is found as soon as its
//! bytes are there. The destination is read and dropped. Of the TLVs the ones that name something for the log are kept
//! ([`Details`]), the header is held against its checksum if it has one, and all others are skipped.
//!
//! The question if a proxy is trusted does not belong here: [`access`](super::access) has the list. [`writing`] makes the
//! headers that this daemon sends itself.

mod version1;
mod version2;
pub mod writing;

use std::fmt;

use super::origin::Asserted;

pub use version2::Details;

/// The first bytes of version 1.
const SIGNATURE_1: &[u8] = b"PROXY ";
/// The first bytes of version 2. No text protocol begins like this.
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header that is accepted, in bytes. The specification allows 64 KiB; a header of 4 KiB has room for both
/// addresses, the names and a certificate's subject.
pub const LONGEST: usize = 4096;

/// The finding about the first bytes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// They may be the beginning of a header. `has_signature` is true if they can be nothing else.
    NeedMore {
        /// True if the signature is complete.
        has_signature: bool,
    },
    /// No header begins with them.
    NoHeader,
    /// A whole header.
    Header(Header),
    /// A header with a fault.
    Wrong(Fault),
}

/// A whole header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The number of bytes that it takes.
    pub length: usize,
    /// The client that it asserts.
    pub client: Asserted,
    /// The names that it gives; `None` if it gives none.
    pub details: Option<Details>,
}

/// A fault in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Version 1: no end of the line within 107 bytes.
    LongLine,
    /// Version 1: no line that the specification defines.
    Line,
    /// Version 2: a version or command that is not defined.
    Command,
    /// Version 2: a family or transport that is not defined.
    Family,
    /// Version 2: the header is longer than [`LONGEST`].
    TooLong,
    /// Version 2: it is too short for its addresses.
    TooShort,
    /// Version 2: a TLV is longer than the rest of the header.
    Tlv,
    /// Version 2: the header has not the checksum that it says, or says more than one.
    Checksum,
}

/// Writes the fault as the end of a sentence that begins "its PROXY header".
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::LongLine => f.write_str("has no end within 107 bytes"),
            Fault::Line => f.write_str("is malformed"),
            Fault::Command => f.write_str("has an unknown version or command"),
            Fault::Family => f.write_str("has an unknown family of addresses"),
            Fault::TooLong => write!(f, "is longer than {LONGEST} bytes"),
            Fault::TooShort => f.write_str("is too short for its addresses"),
            Fault::Tlv => f.write_str("has a field that is longer than it"),
            Fault::Checksum => f.write_str("has a wrong checksum"),
        }
    }
}

/// Parses the header at the beginning of a connection. `bytes` are all bytes that were read of it.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    for (signature, parse) in [
        (SIGNATURE_1, version1::parse as fn(&[u8]) -> Parsed),
        (SIGNATURE_2, version2::parse),
    ] {
        if bytes.starts_with(signature) {
            return parse(bytes);
        }
        if signature.starts_with(bytes) {
            return Parsed::NeedMore { has_signature: false };
        }
    }
    Parsed::NoHeader
}

#[cfg(test)]
mod tests;
