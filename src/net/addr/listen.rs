//! A listener as it is configured: an address, a transport, and the mark of its door.
//!
//! The address alone identifies the socket. A socket can therefore change its transport and its mark while it is open,
//! two listeners on one address conflict whatever their transports are, and TLS cannot hide that other machines reach an
//! address.

use std::fmt;
use std::str::FromStr;

use super::{AddrError, ListenAddr, Mistake, parse_listen};

/// The protocol between a listener and its clients, beneath that of the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// The bytes of the door as they are.
    Plain,
    /// TLS.
    Tls,
}

impl Transport {
    /// Returns the prefix of addresses that clients reach by this transport.
    pub fn prefix(self) -> &'static str {
        match self {
            Transport::Plain => "",
            Transport::Tls => "tls:",
        }
    }
}

/// A number by which a door tells its listeners apart; 0 where all are alike. It has a meaning to that door alone: the
/// text of a listener does not show it, and a successor that takes the socket over has it from its own options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Mark(pub u8);

/// `ADDR`, or `tls:ADDR` for a listener whose clients speak TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listen {
    /// The address of the socket.
    pub address: ListenAddr,
    /// The transport of all its connections. A UNIX socket has no TLS, but one that is inherited may turn out to be a
    /// UNIX socket.
    pub transport: Transport,
    /// The mark that all its connections [carry](super::super::origin::Origin::mark).
    pub mark: Mark,
}

impl Listen {
    /// Returns a listener without TLS, of a door whose listeners are alike.
    pub fn plain(address: ListenAddr) -> Listen {
        Listen {
            address,
            transport: Transport::Plain,
            mark: Mark::default(),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.transport.prefix(), self.address)
    }
}

impl FromStr for Listen {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Listen, AddrError> {
        let (transport, address) = behind_transport(text, parse_listen)?;
        let mark = Mark::default();
        Ok(Listen {
            address,
            transport,
            mark,
        })
    }
}

/// Reads a transport, and the address behind it.
pub(super) fn behind_transport<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, Mistake>,
) -> Result<(Transport, T), AddrError> {
    let (transport, address) = match text.strip_prefix(Transport::Tls.prefix()) {
        Some(address) => (Transport::Tls, address),
        None => (Transport::Plain, text),
    };
    let parsed = match transport {
        Transport::Tls if address.starts_with("//") => Err(Mistake::Url),
        Transport::Tls if address.starts_with("unix:") || address.starts_with('/') => Err(Mistake::TlsOnUnixSocket),
        _ => parse(address),
    };
    let error = |mistake| AddrError {
        transport,
        ..AddrError::new(address, mistake)
    };
    parsed.map(|address| (transport, address)).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen_error(text: &str) -> String {
        text.parse::<Listen>().expect_err(text).to_string()
    }

    #[test]
    fn a_transport_stands_in_front_of_an_address_and_is_written_back() {
        for address in ["127.0.0.1:9443", "[::1]:9443", "*:9443", "systemd", "systemd:pool"] {
            let plain: Listen = address.parse().expect(address);
            assert_eq!(
                (plain.transport, plain.to_string().as_str()),
                (Transport::Plain, address)
            );
            let written = format!("tls:{address}");
            let tls: Listen = written.parse().expect(&written);
            assert_eq!((tls.transport, &tls.address), (Transport::Tls, &plain.address));
            assert_eq!(tls.to_string(), written);
        }
        assert_eq!(
            "unix:/x".parse(),
            Ok(Listen::plain("unix:/x".parse().expect("an address")))
        );
    }

    #[test]
    fn a_mistake_behind_tls_repeats_what_was_written_and_asks_for_tls() {
        assert_eq!(
            listen_error("tls:9443"),
            "\"tls:9443\" is not an address: it is a port alone; write 127.0.0.1:9443 (behind tls:)"
        );
        assert!(listen_error("tls:").starts_with("\"tls:\" is not an address: the port is missing"));
        assert!(listen_error("tls:tls:127.0.0.1:1").starts_with("\"tls:tls:127.0.0.1:1\" is not an address"));
    }

    #[test]
    fn a_unix_socket_has_no_tls() {
        for (text, path) in [
            ("tls:unix:/x", "unix:/x"),
            ("tls:unix:@x", "unix:@x"),
            ("tls:/x", "unix:/x"),
        ] {
            let error = listen_error(text);
            assert!(error.ends_with(&format!("needs no TLS; write {path}")), "{error}");
        }
    }
}
