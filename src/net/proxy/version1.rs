//! Version 1: one line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Fault, Header, Parsed, SIGNATURE_1};
use crate::net::origin::Asserted;

/// The longest line, its end included: `PROXY UNKNOWN` with two of the longest IPv6 addresses and ports.
const LONGEST_LINE: usize = 107;

/// Parses bytes that begin with the signature.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let within = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return match within.len() {
            LONGEST_LINE => Parsed::Wrong(Fault::LongLine),
            _ => Parsed::NeedMore { has_signature: true },
        };
    };
    let line = within.get(SIGNATURE_1.len()..end).unwrap_or_default();
    let client = line.strip_suffix(b"\r").and_then(client);
    client.map_or(Parsed::Wrong(Fault::Line), |client| {
        Parsed::Header(Header {
            length: end + 1,
            client,
            details: None,
        })
    })
}

/// Returns the client of a line without its signature and its end; `None` if it is not as the specification has it.
fn client(line: &[u8]) -> Option<Asserted> {
    // The rest of such a line is to be ignored, whatever it is.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Some(Asserted::Unknown);
    }
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let family = words.next()?;
    let [source, destination, source_port, destination_port] =
        [words.next()?, words.next()?, words.next()?, words.next()?];
    let ip: IpAddr = match family {
        "TCP4" => addresses::<Ipv4Addr>(source, destination)?.into(),
        "TCP6" => addresses::<Ipv6Addr>(source, destination)?.into(),
        _ => return None,
    };
    let (port, _) = (port(source_port)?, port(destination_port)?);
    words
        .next()
        .is_none()
        .then(|| Asserted::Address(SocketAddr::new(ip, port)))
}

/// Reads both addresses of a family, and returns the source.
fn addresses<A: FromStr>(source: &str, destination: &str) -> Option<A> {
    destination.parse::<A>().ok()?;
    source.parse().ok()
}

/// Reads a decimal number without leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok()).flatten()
}
