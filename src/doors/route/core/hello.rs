//! The ClientHello, with which a TLS client begins (RFC 8446, section 4.1.2): the name that it asks for, the protocols
//! that it offers, and the question if its real name is encrypted.
//!
//! ```text
//! record     22 (1) | version 3.x (2) | length (2) | a part of the message, of 1 to 16,384 bytes
//! message    1 (1) | length (3) | version (2) | random (32) | session id <1> | cipher suites <2>
//!            | compression methods <1> | extensions <2>, which may be absent
//! extension  type (2) | data <2>                          (n): a field of n bytes; <n>: n bytes of length, then data
//! ```
//!
//! A client may cut the message into records, and the network these into packets, at any byte. [`parse`] is pure: all
//! bytes that have been read so far in, "more is needed", the hello or a fault out. [`Progress`] remembers the records
//! that are behind, so no byte is looked at twice however small the pieces are. A hello in one record is read where it
//! lies; parts of several records are gathered, at most [`LONGEST`] bytes.
//!
//! The invariants: nothing is found before the message is whole. The backend reads the same bytes with another parser,
//! and must find the same name in them. So a length that lies is a fault, and so is a second name, a list of names with
//! anything but one host name, or an extension twice that is read here. The other extensions and the bytes
//! behind the message are not looked at.
//!
//! The form and the meaning of a name do not belong here: see [`name`](super::name).

use std::fmt;

/// The longest message that is accepted, in bytes, its type and length included.
pub const LONGEST: usize = 1 << 14;
/// The most records that a message may be cut into. Real clients cut it into three or fewer.
pub const MOST_RECORDS: u8 = 64;
/// The most bytes that [`parse`] needs to see: no more have to be held for it.
pub const MOST_BYTES: usize = LONGEST + MOST_RECORDS as usize * RECORD_HEAD;

/// The length of the type, the version and the length of a record.
const RECORD_HEAD: usize = 5;
/// The longest part of a message that a record may hold.
const LONGEST_PART: usize = 1 << 14;
/// The length of the type and the length of a message.
const MESSAGE_HEAD: usize = 4;
/// The longest session identifier.
const LONGEST_SESSION: usize = 32;

/// The type of a record that holds a part of the handshake, and the first byte of every TLS connection.
pub const HANDSHAKE: u8 = 22;
/// The first byte of the version of every record.
const MAJOR_VERSION: u8 = 3;
/// The type of the message.
const CLIENT_HELLO: u8 = 1;
/// The type of a name that is the name of a host; no other was ever defined.
const HOST_NAME: usize = 0;

/// The types of the extensions that are read.
const SERVER_NAME: usize = 0;
const ALPN: usize = 16;
const ENCRYPTED_HELLO: usize = 0xfe0d;

/// The finding about the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// They are the beginning of a ClientHello.
    NeedMore,
    /// A whole ClientHello.
    Hello(Hello<'a>),
    /// They are no valid ClientHello, whatever follows.
    Wrong(Fault),
}

/// A ClientHello, as far as it matters for a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The name of the host that the client wants, as it is written there; never empty. `None` if it names no host.
    pub name: Option<&'a [u8]>,
    /// The protocols that the client offers.
    pub alpn: Alpn<'a>,
    /// True if the extension Encrypted ClientHello is there. [`name`](Self::name) is the outer name then: it may be the
    /// name of a provider instead of the host, or the real name if the client only pretends to encrypt another.
    pub has_encrypted: bool,
}

/// The protocols that a client offers by ALPN (RFC 7301), in the order of its preference.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Alpn<'a> {
    /// Names that are not empty, each behind a byte of length. Empty if the client offers no protocol.
    list: &'a [u8],
}

impl<'a> Alpn<'a> {
    /// Returns the names of the protocols.
    pub fn protocols(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.list;
        std::iter::from_fn(move || vector(&mut rest, 1))
    }

    /// Returns true if the client offers this protocol.
    pub fn offers(self, protocol: &[u8]) -> bool {
        self.protocols().any(|offered| offered == protocol)
    }
}

impl fmt::Debug for Alpn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.protocols().map(|protocol| protocol.escape_ascii().to_string());
        f.debug_list().entries(shown).finish()
    }
}

/// A fault in a ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A record before its end is of another type or version.
    Record,
    /// A record is empty, or longer than a record may be.
    RecordLength,
    /// It is cut into more than [`MOST_RECORDS`] records.
    TooManyRecords,
    /// The message is of another type.
    OtherMessage,
    /// The message is longer than [`LONGEST`].
    TooLong,
    /// A length in it does not fit what is there, or a list has fewer elements than it must have.
    Malformed,
    /// An extension is there twice.
    Repeated,
    /// The list of names is not one name of a host.
    Names,
    /// The list of protocols is empty, or has one without a name.
    Protocols,
}

/// Writes the fault as the end of a sentence that begins "its ClientHello".
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Record => f.write_str("has a record of another type or version"),
            Fault::RecordLength => write!(f, "has a record that is empty or longer than {LONGEST_PART} bytes"),
            Fault::TooManyRecords => write!(f, "is cut into more than {MOST_RECORDS} records"),
            Fault::OtherMessage => f.write_str("is a message of another type"),
            Fault::TooLong => write!(f, "is longer than {LONGEST} bytes"),
            Fault::Malformed => f.write_str("has a length that does not fit"),
            Fault::Repeated => f.write_str("has an extension twice"),
            Fault::Names => f.write_str("has a list of names that is not one name of a host"),
            Fault::Protocols => f.write_str("has a list of protocols that is empty, or one without a name"),
        }
    }
}

/// The records that have been read. It belongs to the beginning of one connection.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The place of the first record that is not behind.
    at: usize,
    /// The number of records that are behind.
    records: u8,
    /// Their parts of the message, and the last part as soon as the message is whole. It stays empty if the first
    /// record holds the whole message.
    gathered: Vec<u8>,
}

/// The place of a whole message.
enum Place<'a> {
    /// In the first record: these bytes.
    InRecord(&'a [u8]),
    /// In [`Progress::gathered`].
    Gathered,
}

/// Parses the ClientHello at the beginning of a connection. `bytes` are all bytes that were read of it, at least the
/// ones of the call before with the same `progress`. Once it is decided, each further call decides the same.
pub fn parse<'a>(bytes: &'a [u8], progress: &'a mut Progress) -> Parsed<'a> {
    let message = match progress.walk(bytes) {
        Ok(None) => return Parsed::NeedMore,
        Ok(Some(Place::InRecord(message))) => message,
        Ok(Some(Place::Gathered)) => &progress.gathered,
        Err(fault) => return Parsed::Wrong(fault),
    };
    let body = message.get(MESSAGE_HEAD..).unwrap_or_default();
    read(body).map_or_else(Parsed::Wrong, Parsed::Hello)
}

impl Progress {
    /// Goes on over the records until the message is whole. Returns `None` if the bytes end before.
    fn walk<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Place<'a>>, Fault> {
        loop {
            if self.whole_length(&[])? == Some(self.gathered.len()) {
                return Ok(Some(Place::Gathered));
            }
            if self.records == MOST_RECORDS {
                return Err(Fault::TooManyRecords);
            }
            let record = bytes.get(self.at..).unwrap_or_default();
            let Some((&[kind, major, _minor, high, low], rest)) = record.split_first_chunk() else {
                return Ok(None);
            };
            if kind != HANDSHAKE || major != MAJOR_VERSION {
                return Err(Fault::Record);
            }
            let length = usize::from(u16::from_be_bytes([high, low]));
            if !(1..=LONGEST_PART).contains(&length) {
                return Err(Fault::RecordLength);
            }
            let part = rest.get(..length).unwrap_or(rest);
            let whole = self.whole_length(part)?;
            let last = whole.and_then(|whole| part.get(..whole.saturating_sub(self.gathered.len())));
            match last {
                Some(message) if self.records == 0 => return Ok(Some(Place::InRecord(message))),
                Some(last) => self.gathered.extend_from_slice(last),
                None if part.len() < length => return Ok(None),
                None => {
                    self.gathered.extend_from_slice(part);
                    self.at += RECORD_HEAD + length;
                    self.records += 1;
                }
            }
        }
    }

    /// Returns the length of the whole message, as the gathered bytes and the `part` behind them say it; `None` if they
    /// end before it is said.
    fn whole_length(&self, part: &[u8]) -> Result<Option<usize>, Fault> {
        let mut bytes = self.gathered.iter().chain(part).map(|byte| usize::from(*byte));
        if bytes.next().is_some_and(|kind| kind != usize::from(CLIENT_HELLO)) {
            return Err(Fault::OtherMessage);
        }
        let (Some(high), Some(middle), Some(low)) = (bytes.next(), bytes.next(), bytes.next()) else {
            return Ok(None);
        };
        match MESSAGE_HEAD + (high << 16 | middle << 8 | low) {
            whole if whole <= LONGEST => Ok(Some(whole)),
            _longer => Err(Fault::TooLong),
        }
    }
}

/// Reads a whole message, without its type and length.
fn read(mut rest: &[u8]) -> Result<Hello<'_>, Fault> {
    let is_well_formed = |(session, suites, methods): &(&[u8], &[u8], &[u8])| {
        session.len() <= LONGEST_SESSION && !suites.is_empty() && suites.len() % 2 == 0 && !methods.is_empty()
    };
    fixed_part(&mut rest).filter(is_well_formed).ok_or(Fault::Malformed)?;
    let mut hello = Hello::default();
    if rest.is_empty() {
        return Ok(hello);
    }
    let mut extensions = vector(&mut rest, 2).ok_or(Fault::Malformed)?;
    if !rest.is_empty() {
        return Err(Fault::Malformed);
    }
    while !extensions.is_empty() {
        let kind = number(&mut extensions, 2).ok_or(Fault::Malformed)?;
        let data = vector(&mut extensions, 2).ok_or(Fault::Malformed)?;
        let is_repeated = if kind == SERVER_NAME {
            hello.name.replace(host_name(data).ok_or(Fault::Names)?).is_some()
        } else if kind == ALPN {
            let alpn = protocols(data).ok_or(Fault::Protocols)?;
            std::mem::replace(&mut hello.alpn, alpn) != Alpn::default()
        } else {
            kind == ENCRYPTED_HELLO && std::mem::replace(&mut hello.has_encrypted, true)
        };
        if is_repeated {
            return Err(Fault::Repeated);
        }
    }
    Ok(hello)
}

/// Takes what stands in front of the extensions; returns the session identifier, the cipher suites and the compression
/// methods.
fn fixed_part<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8], &'a [u8])> {
    const VERSION_AND_RANDOM: usize = 2 + 32;
    take(rest, VERSION_AND_RANDOM)?;
    Some((vector(rest, 1)?, vector(rest, 2)?, vector(rest, 1)?))
}

/// Returns the one name in the extension `server_name` (RFC 6066, section 3).
fn host_name(mut data: &[u8]) -> Option<&[u8]> {
    let mut names = vector(&mut data, 2)?;
    let kind = number(&mut names, 1)?;
    let name = vector(&mut names, 2)?;
    (kind == HOST_NAME && !name.is_empty() && names.is_empty() && data.is_empty()).then_some(name)
}

/// Returns the list in the extension ALPN.
fn protocols(mut data: &[u8]) -> Option<Alpn<'_>> {
    let list = vector(&mut data, 2).filter(|list| !list.is_empty() && data.is_empty())?;
    let mut rest = list;
    while !rest.is_empty() {
        vector(&mut rest, 1).filter(|protocol| !protocol.is_empty())?;
    }
    Some(Alpn { list })
}

/// Takes a vector, whose length stands in front of it in `width` bytes.
fn vector<'a>(rest: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let length = number(rest, width)?;
    take(rest, length)
}

/// Takes a number of `width` bytes.
fn number(rest: &mut &[u8], width: usize) -> Option<usize> {
    let digits = take(rest, width)?;
    Some(digits.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

/// Takes this number of bytes, if there are as many.
fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}

#[cfg(test)]
mod tests;
