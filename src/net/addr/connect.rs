//! A server as an operator names it: an address and a transport.

use std::fmt;
use std::str::FromStr;

use super::listen::behind_transport;
use super::{AddrError, ConnectAddr, Transport, parse_connect};

/// `ADDR`, or `tls:HOST:PORT` for a server that is asked by TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Connect {
    /// The address.
    pub address: ConnectAddr,
    /// The transport of the connections to it. A UNIX socket has no TLS.
    pub transport: Transport,
}

impl fmt::Display for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.transport.prefix(), self.address)
    }
}

impl FromStr for Connect {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Connect, AddrError> {
        let (transport, address) = behind_transport(text, parse_connect)?;
        Ok(Connect { address, transport })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_stands_in_front_of_an_address_and_is_written_back() {
        for address in ["pool.example:9443", "127.0.0.1:9443", "[::1]:9443"] {
            let plain: Connect = address.parse().expect(address);
            assert_eq!(
                (plain.transport, plain.to_string().as_str()),
                (Transport::Plain, address)
            );
            let written = format!("tls:{address}");
            let tls: Connect = written.parse().expect(&written);
            assert_eq!((tls.transport, &tls.address), (Transport::Tls, &plain.address));
            assert_eq!(tls.to_string(), written);
        }
    }

    #[test]
    fn a_mistake_behind_tls_says_what_to_write_instead() {
        for (text, remedy) in [
            ("tls:unix:/x", "needs no TLS; write unix:/x"),
            ("tls:/x", "needs no TLS; write unix:/x"),
            ("tls://pool.example:9443", "it is no URL; write tls:pool.example:9443"),
            (
                "tls:pool.example",
                "the port is missing; write pool.example:PORT (behind tls:)",
            ),
            ("tls:*:1", "write HOST:1 (behind tls:)"),
        ] {
            let error = text.parse::<Connect>().expect_err(text).to_string();
            assert!(error.ends_with(remedy), "{error}");
        }
    }
}
