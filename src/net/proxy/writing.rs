//! Headers that this daemon writes in front of a connection to a server, so that the server learns of the client.
//!
//! [`parse`](super::parse) finds in each of them the client that was written. A client of unknown address stays one: it is
//! never taken for this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::SIGNATURE_2;
use super::version2::{ALPN, AUTHORITY, LOCAL, PROXY};
use crate::net::origin::Asserted;

/// The family and transport of TCP over IPv4, of TCP over IPv6, and of a connection without addresses.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;

/// The longest text in a field of version 2, in bytes. A longer one is left out.
const LONGEST_FIELD: usize = 255;

/// A client's connection, as a header describes it to a server.
#[derive(Debug, Clone, Copy)]
pub struct Described<'a> {
    /// The client.
    pub client: Asserted,
    /// The address to which the client has connected; `None` if it is no address of TCP.
    pub to: Option<SocketAddr>,
    /// The name of the host that the client has asked for. Only version 2 has a place for it.
    pub authority: Option<&'a [u8]>,
    /// The protocol that the client speaks above TLS. Only version 2 has a place for it.
    pub alpn: Option<&'a [u8]>,
}

impl Described<'_> {
    /// Both addresses, in one family: if only one of the two is of IPv4, it is mapped. `None` for a client without an
    /// address.
    fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let Asserted::Address(client) = self.client else {
            return None;
        };
        let unspecified = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let to = self.to.unwrap_or(unspecified);
        if client.is_ipv4() == to.is_ipv4() {
            return Some((client, to));
        }
        Some((mapped(client), mapped(to)))
    }

    /// Returns the line of version 1, of at most 107 bytes.
    #[must_use]
    pub fn version_1(&self) -> Vec<u8> {
        let Some((client, to)) = self.addresses() else {
            return b"PROXY UNKNOWN\r\n".to_vec();
        };
        let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to, from_port, to_port) = (client.ip(), to.ip(), client.port(), to.port());
        format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
    }

    /// Returns the header of version 2, which is shorter than 600 bytes.
    #[must_use]
    pub fn version_2(&self) -> Vec<u8> {
        let command = match self.client {
            Asserted::Proxy => LOCAL,
            Asserted::Address(_) | Asserted::Unknown => PROXY,
        };
        let (family, mut body) = match self.addresses() {
            Some((client, to)) if client.is_ipv4() => (TCP4, octets(client, to)),
            Some((client, to)) => (TCP6, octets(client, to)),
            None => (UNSPECIFIED, Vec::new()),
        };
        for (kind, text) in [(ALPN, self.alpn), (AUTHORITY, self.authority)] {
            if let Some(text) = text.filter(|text| text.len() <= LONGEST_FIELD) {
                body.push(kind);
                body.extend_from_slice(&length(text));
                body.extend_from_slice(text);
            }
        }
        [SIGNATURE_2, &[command, family], &length(&body), &body].concat()
    }
}

/// Returns both addresses and both ports, in the order of version 2.
fn octets(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut octets = Vec::with_capacity(36);
    for address in [client, to] {
        match address.ip() {
            IpAddr::V4(ip) => octets.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => octets.extend_from_slice(&ip.octets()),
        }
    }
    for address in [client, to] {
        octets.extend_from_slice(&address.port().to_be_bytes());
    }
    octets
}

/// Returns the address in the family of IPv6.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Returns the length of a part of a header. No part is longer than a few hundred bytes.
fn length(part: &[u8]) -> [u8; 2] {
    u16::try_from(part.len()).unwrap_or_default().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::{Details, Header, Parsed, parse};
    use super::*;

    const ADDRESSES: [&str; 4] = [
        "192.0.2.7:56324",
        "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
        "127.0.0.1:1",
        "[::1]:443",
    ];

    fn header(bytes: &[u8]) -> Header {
        match parse(bytes) {
            Parsed::Header(header) => header,
            other => panic!("{other:?} of {}", bytes.escape_ascii()),
        }
    }

    /// Every client, with every address to which it may have connected.
    fn connections() -> Vec<Described<'static>> {
        let addresses = ADDRESSES.map(|text| text.parse::<SocketAddr>().expect(text));
        let clients = addresses.map(Asserted::Address);
        let mut all = Vec::new();
        for client in clients.into_iter().chain([Asserted::Unknown, Asserted::Proxy]) {
            for to in addresses.map(Some).into_iter().chain([None]) {
                all.push(Described {
                    client,
                    to,
                    authority: None,
                    alpn: None,
                });
            }
        }
        all
    }

    /// The client as its address is compared: an IPv4-mapped address is that of IPv4.
    fn canonical(client: Asserted) -> Asserted {
        match client {
            Asserted::Address(address) => {
                Asserted::Address(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }
            other => other,
        }
    }

    #[test]
    fn both_versions_name_the_client_that_is_described() {
        for connection in connections() {
            let line = connection.version_1();
            let found = header(&[&line[..], b"behind"].concat());
            assert_eq!(found.length, line.len());
            // The line has no word for a proxy that speaks for itself.
            let expected = match connection.client {
                Asserted::Proxy => Asserted::Unknown,
                client => client,
            };
            assert_eq!(canonical(found.client), expected, "{connection:?}");
            let bytes = connection.version_2();
            let found = header(&[&bytes[..], b"behind"].concat());
            assert_eq!((found.length, found.details), (bytes.len(), None));
            assert_eq!(canonical(found.client), connection.client, "{connection:?}");
        }
    }

    #[test]
    fn a_line_is_that_of_the_specification() {
        let connection = |client: &str, to: &str| Described {
            client: Asserted::Address(client.parse().unwrap()),
            to: Some(to.parse().unwrap()),
            authority: Some(b"www.example.org"),
            alpn: Some(b"h2"),
        };
        for (client, to, line) in [
            (
                "192.0.2.7:5",
                "203.0.113.1:443",
                "PROXY TCP4 192.0.2.7 203.0.113.1 5 443\r\n",
            ),
            ("[::1]:5", "[::2]:443", "PROXY TCP6 ::1 ::2 5 443\r\n"),
            ("[::1]:5", "10.0.0.1:443", "PROXY TCP6 ::1 ::ffff:10.0.0.1 5 443\r\n"),
        ] {
            let written = connection(client, to).version_1();
            assert_eq!(String::from_utf8_lossy(&written), line);
        }
    }

    #[test]
    fn the_binary_header_has_the_name_and_the_protocol_and_leaves_out_a_text_that_is_too_long() {
        for mut connection in connections() {
            connection.authority = Some(b"www.example.org");
            connection.alpn = Some(b"h2");
            let bytes = connection.version_2();
            let protocol = [&[ALPN, 0, 2][..], b"h2"].concat();
            assert!(bytes.windows(5).any(|part| part == protocol));
            let found = header(&bytes);
            assert_eq!(found.length, bytes.len());
            if let Asserted::Address(_) = connection.client {
                let authority = found.details.and_then(|Details { authority, .. }| authority);
                assert_eq!(authority.as_deref(), Some("www.example.org"));
            }
            let long = [b'a'; 256];
            connection.authority = Some(&long);
            connection.alpn = Some(&long);
            let bytes = connection.version_2();
            assert!(bytes.len() <= 16 + 36);
            connection.authority = Some(&long[1..]);
            connection.alpn = Some(&long[1..]);
            let longest = connection.version_2();
            assert!(longest.len() < 600);
            assert_eq!(header(&longest).length, longest.len());
        }
    }
}
