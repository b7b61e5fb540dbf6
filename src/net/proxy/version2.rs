//! Version 2: a binary header of a stated length, with fields (TLVs) behind the addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc};

use super::{Fault, Header, LONGEST, Parsed, SIGNATURE_2};
use crate::net::origin::Asserted;

/// The length of the part in front of the addresses.
const FIXED: usize = 16;

/// The command of a header about the connection of the proxy itself.
pub(super) const LOCAL: u8 = 0x20;
/// The command of a header about a client's connection.
pub(super) const PROXY: u8 = 0x21;

/// The type of the TLV with the checksum of the header.
const CHECKSUM: u8 = 0x03;
/// The checksum, which the specification calls CRC32c.
static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The type of the TLV with the protocol above TLS.
pub(super) const ALPN: u8 = 0x01;
/// The types of the TLVs that are kept.
pub(super) const AUTHORITY: u8 = 0x02;
const SSL: u8 = 0x20;
/// The types of the TLVs within the one about TLS.
const SSL_VERSION: u8 = 0x21;
const SSL_COMMON_NAME: u8 = 0x22;
/// The length of the part in front of these: flags (1) and the outcome of the verification (4).
const SSL_FIXED: usize = 5;

/// The length of two names of UNIX sockets.
const UNIX_ADDRESSES: usize = 2 * 108;

/// The longest name that is kept, in bytes: that of a host name. A longer one is cut.
const LONGEST_NAME: usize = 255;

/// The names that a header gives beside the client's address, for the log. They are the client's own words: nothing is
/// decided by them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// The name of the host that the client has asked the proxy for.
    pub authority: Option<String>,
    /// The version of TLS that the client speaks with the proxy.
    pub tls: Option<String>,
    /// The common name in the client's certificate.
    pub subject: Option<String>,
}

/// Writes each name behind a comma, in quotes where a client has chosen it.
impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(authority) = &self.authority {
            write!(f, ", for {authority:?}")?;
        }
        if let Some(tls) = &self.tls {
            write!(f, ", with {tls:?}")?;
        }
        if let Some(subject) = &self.subject {
            write!(f, ", subject {subject:?}")?;
        }
        Ok(())
    }
}

/// Returns true if the specification defines this family of addresses and this transport.
const fn is_defined(family: u8) -> bool {
    family >> 4 <= 3 && family & 0xf <= 2
}

/// Parses bytes that begin with the signature.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let rest = bytes.get(SIGNATURE_2.len()..).unwrap_or_default();
    if rest.first().is_some_and(|command| !matches!(*command, LOCAL | PROXY)) {
        return Parsed::Wrong(Fault::Command);
    }
    // Of a proxy that speaks for itself the family is to be ignored, whatever it is.
    if let [PROXY, family, ..] = rest
        && !is_defined(*family)
    {
        return Parsed::Wrong(Fault::Family);
    }
    let [command, family, high, low, body @ ..] = rest else {
        return Parsed::NeedMore { has_signature: true };
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if FIXED + length > LONGEST {
        return Parsed::Wrong(Fault::TooLong);
    }
    let (Some(header), Some(body)) = (bytes.get(..FIXED + length), body.get(..length)) else {
        return Parsed::NeedMore { has_signature: true };
    };
    let found = match *command {
        LOCAL => without_addresses(Asserted::Proxy, *family, header, body),
        _ => of_client(*family, header, body),
    };
    match found {
        Ok((client, details)) => Parsed::Header(Header {
            length: FIXED + length,
            client,
            details,
        }),
        Err(fault) => Parsed::Wrong(fault),
    }
}

/// Reads the addresses and the TLVs of a client's connection, which are the body of the header.
fn of_client(family: u8, header: &[u8], body: &[u8]) -> Result<(Asserted, Option<Details>), Fault> {
    let (client, rest) = match (family >> 4, family & 0xf) {
        // Without a family or a transport the addresses are to be ignored; their length is not known either.
        (0, _) | (_, 0) => return without_addresses(Asserted::Unknown, family, header, body),
        (1, _) => internet::<4>(body).ok_or(Fault::TooShort)?,
        (2, _) => internet::<16>(body).ok_or(Fault::TooShort)?,
        (_, _) => (Asserted::Unknown, body.get(UNIX_ADDRESSES..).ok_or(Fault::TooShort)?),
    };
    let details = details(header, rest)?;
    Ok((client, (details != Details::default()).then_some(details)))
}

/// Holds a header whose body is to be ignored against its checksum, if there is one: one bit makes a health check of a
/// client. A body that is not made of addresses and TLVs has none.
fn without_addresses(
    client: Asserted,
    family: u8,
    header: &[u8],
    body: &[u8],
) -> Result<(Asserted, Option<Details>), Fault> {
    let addresses = match (family >> 4, family & 0xf) {
        (0, _) | (_, 0) => 0,
        (1, _) => 12,
        (2, _) => 36,
        (3, _) => UNIX_ADDRESSES,
        (_, _) => return Ok((client, None)),
    };
    match details(header, body.get(addresses..).unwrap_or_default()) {
        Err(Fault::Checksum) => Err(Fault::Checksum),
        Ok(_) | Err(_) => Ok((client, None)),
    }
}

/// Reads two addresses of `N` bytes and two ports. Returns the source, and the bytes behind them.
fn internet<const N: usize>(body: &[u8]) -> Option<(Asserted, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (_, rest) = rest.split_first_chunk::<N>()?;
    let ([high, low, _, _], rest) = rest.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([*high, *low]);
    Some((Asserted::Address(SocketAddr::new(IpAddr::from(*source), port)), rest))
}

/// Reads the TLVs that are kept, each of which counts when it comes first, and holds the header against its checksum.
/// The TLVs are the rest of the header.
fn details(header: &[u8], mut rest: &[u8]) -> Result<Details, Fault> {
    let mut details = Details::default();
    let mut has_checksum = false;
    while let Some((kind, value)) = next(&mut rest)? {
        match kind {
            CHECKSUM => {
                let before = header.len() - value.len() - rest.len();
                if std::mem::replace(&mut has_checksum, true) || !is_sound(header, before, value) {
                    return Err(Fault::Checksum);
                }
            }
            AUTHORITY => keep(&mut details.authority, value),
            SSL => {
                let mut within = value.get(SSL_FIXED..).ok_or(Fault::Tlv)?;
                while let Some((kind, value)) = next(&mut within)? {
                    match kind {
                        SSL_VERSION => keep(&mut details.tls, value),
                        SSL_COMMON_NAME => keep(&mut details.subject, value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(details)
}

/// Returns true if the header has this checksum, which stands behind the first `before` bytes of it and counts as zeros
/// in the sum.
fn is_sound(header: &[u8], before: usize, checksum: &[u8]) -> bool {
    let mut sum = CRC32C.digest();
    sum.update(header.get(..before).unwrap_or_default());
    sum.update(&[0; size_of::<u32>()]);
    sum.update(header.get(before + checksum.len()..).unwrap_or_default());
    sum.finalize().to_be_bytes() == checksum
}

/// Takes the TLV at the beginning of `rest`: its type and its value.
fn next<'b>(rest: &mut &'b [u8]) -> Result<Option<(u8, &'b [u8])>, Fault> {
    let bytes: &'b [u8] = rest;
    if bytes.is_empty() {
        return Ok(None);
    }
    let [kind, high, low, behind @ ..] = bytes else {
        return Err(Fault::Tlv);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (value, behind) = behind.split_at_checked(length).ok_or(Fault::Tlv)?;
    *rest = behind;
    Ok(Some((*kind, value)))
}

fn keep(name: &mut Option<String>, value: &[u8]) {
    let value = value.get(..LONGEST_NAME).unwrap_or(value);
    name.get_or_insert_with(|| String::from_utf8_lossy(value).into_owned());
}
