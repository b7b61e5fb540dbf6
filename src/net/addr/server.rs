//! A server whose port may be said elsewhere.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::{AddrError, ConnectAddr, UnixAddr};

/// `HOST`, `HOST:PORT`, `IPV6`, `[IPV6]`, `[IPV6]:PORT`, or the address of a UNIX socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddr {
    /// A host.
    Tcp {
        /// An IP address in its shortest form, without brackets, or a name in lower case that is to be resolved.
        host: String,
        /// 1 to 65535, if it is written there.
        port: Option<u16>,
    },
    /// A socket, which has no port.
    Unix(UnixAddr),
}

/// The reason for which a text names no server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddrError {
    /// The text is a URL.
    Url,
    /// The text is a number.
    Number,
    /// This host ends in a label of figures, as no name does, and is no IP address.
    NoIp(String),
    /// The text is no address to connect to.
    Address(AddrError),
}

/// Writes the reason as a sentence about "it", the text.
impl fmt::Display for ServerAddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerAddrError::Url => f.write_str("it is a URL"),
            ServerAddrError::Number => f.write_str("it is a number"),
            ServerAddrError::NoIp(_) => f.write_str("it is no IP address"),
            ServerAddrError::Address(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServerAddrError {}

impl FromStr for ServerAddr {
    type Err = ServerAddrError;

    fn from_str(text: &str) -> Result<ServerAddr, ServerAddrError> {
        let is_ipv6 = text.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        let has_port = text.contains(':') && !text.ends_with(']') && !is_ipv6;
        let is_socket = text.starts_with("unix:") || text.starts_with('/');
        if text.contains("://") {
            return Err(ServerAddrError::Url);
        }
        if is_number(text) {
            return Err(ServerAddrError::Number);
        }
        let complete = match text {
            _ if has_port || is_socket => text.to_owned(),
            // The address is read with a port, which is dropped.
            _ if is_ipv6 => format!("[{text}]:443"),
            _ => format!("{text}:443"),
        };
        let (host, port) = match complete.parse().map_err(ServerAddrError::Address)? {
            ConnectAddr::Unix(socket) => return Ok(ServerAddr::Unix(socket)),
            ConnectAddr::Tcp { host, port } => (host, port),
        };
        let host = match host.parse::<IpAddr>() {
            Ok(ip) => ip.to_string(),
            // An address of IPv6 with the number of its interface.
            Err(_) if host.contains(':') => host,
            Err(_) if ends_in_figures(&host) => return Err(ServerAddrError::NoIp(host)),
            Err(_) => host.to_ascii_lowercase(),
        };
        let port = Some(port).filter(|_| has_port);
        Ok(ServerAddr::Tcp { host, port })
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns true for a host whose last label is a number. A dot behind it is no label.
fn ends_in_figures(host: &str) -> bool {
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next();
    last.is_some_and(|label| !label.is_empty() && is_number(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_with_and_without_its_port() {
        for (text, host, port) in [
            ("10.0.0.5", "10.0.0.5", None),
            ("10.0.0.5:443", "10.0.0.5", Some(443)),
            ("::1", "::1", None),
            ("[0::1]", "::1", None),
            ("[::1]:80", "::1", Some(80)),
            ("fe80::1%7", "fe80::1%7", None),
            ("[fe80::1%7]:80", "fe80::1%7", Some(80)),
            ("Web.Internal", "web.internal", None),
            ("web.internal.", "web.internal.", None),
            ("web7", "web7", None),
            ("Web.Internal:8443", "web.internal", Some(8443)),
        ] {
            let host = host.to_owned();
            assert_eq!(text.parse(), Ok(ServerAddr::Tcp { host, port }), "{text}");
        }
        for text in ["unix:/run/x", "/run/x"] {
            assert_eq!(text.parse(), Ok(ServerAddr::Unix(UnixAddr::Path("/run/x".into()))));
        }
    }

    #[test]
    fn a_text_that_names_no_server_is_refused_for_a_reason() {
        for (text, error) in [
            ("https://web", ServerAddrError::Url),
            ("443", ServerAddrError::Number),
            ("", ServerAddrError::Number),
            ("10.0.0", ServerAddrError::NoIp("10.0.0".to_owned())),
            ("10.0.0.5.", ServerAddrError::NoIp("10.0.0.5.".to_owned())),
            ("10.0.0.256:1", ServerAddrError::NoIp("10.0.0.256".to_owned())),
        ] {
            assert_eq!(text.parse::<ServerAddr>(), Err(error), "{text}");
        }
        for text in ["web:0", "web:65536", "a b", "*", "unix:", ":443", "[::1"] {
            let error = text.parse::<ServerAddr>().expect_err(text);
            assert!(matches!(error, ServerAddrError::Address(_)), "{text}: {error:?}");
        }
    }
}
