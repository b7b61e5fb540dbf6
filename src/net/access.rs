//! Who may come in, by address.
//!
//! Refusal has the last word: an address in `deny` is out, whatever `allow` says. With an empty `allow` everybody else is
//! in; otherwise those in `allow`. A UNIX peer has no address and is always let in: there the mode of the socket file has
//! decided already.
//!
//! Networks and peers are compared in one form, IPv4-mapped addresses as IPv4, so that `--deny 10.0.0.0/8` holds on a
//! dual-stack socket too. Lists are short and looked through from the front.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::addr::PeerAddr;

/// Whom to let in. The default: everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessList {
    /// These, and nobody else; empty: everybody who is not in `deny`.
    pub allow: Vec<IpNet>,
    /// Not these.
    pub deny: Vec<IpNet>,
}

impl AccessList {
    /// Whether this peer may come in.
    pub fn permits(&self, peer: &PeerAddr) -> bool {
        let Some(ip) = peer.ip() else {
            return true;
        };
        let holds = |nets: &[IpNet]| nets.iter().any(|net| canonical(*net).contains(&ip));
        !holds(&self.deny) && (self.allow.is_empty() || holds(&self.allow))
    }
}

/// IPv4-mapped networks (`::ffff:10.0.0.0/104`) as IPv4 ones; others unchanged. A network wider than the mapped range
/// (`::/0`) is about IPv6.
fn canonical(net: IpNet) -> IpNet {
    let mapped = match (net.addr().to_canonical(), net.prefix_len().checked_sub(96)) {
        (IpAddr::V4(ip), Some(prefix)) if matches!(net, IpNet::V6(_)) => Ipv4Net::new(ip, prefix).ok(),
        _ => None,
    };
    mapped.map_or(net, IpNet::V4)
}

/// Reads a network, `10.0.0.0/8`, `2001:db8::/32`, or a single address, which is a network of one.
///
/// # Errors
/// What it should look like. Bits behind the prefix (`10.0.0.1/8`) are refused: in an access list one had better not
/// guess whether the address or its length is the slip of the pen.
pub fn parse_net(text: &str) -> Result<IpNet, NetError> {
    let refused = |mistake| NetError {
        text: text.to_owned(),
        mistake,
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip.to_canonical()));
    }
    let Some((address, prefix)) = text.split_once('/') else {
        return Err(refused(NetMistake::NoAddress));
    };
    let ip: IpAddr = address.parse().map_err(|_| refused(NetMistake::NoAddress))?;
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let length = if prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        prefix.parse().ok()
    } else {
        None
    };
    let net = length.and_then(|length: u8| IpNet::new(ip, length).ok());
    let net = net.ok_or_else(|| refused(NetMistake::BadPrefix { longest }))?;
    if net.trunc() != net {
        return Err(refused(NetMistake::BitsBehindPrefix { net: net.trunc(), ip }));
    }
    Ok(canonical(net))
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetError {
    text: String,
    mistake: NetMistake,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum NetMistake {
    NoAddress,
    BadPrefix { longest: u8 },
    BitsBehindPrefix { net: IpNet, ip: IpAddr },
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a network: ", self.text)?;
        match &self.mistake {
            NetMistake::NoAddress => {
                f.write_str("write an address such as 10.0.0.1 or 2001:db8::1, or a network such as 10.0.0.0/8")
            }
            NetMistake::BadPrefix { longest } => write!(f, "the length of the prefix is a number from 0 to {longest}"),
            NetMistake::BitsBehindPrefix { net, ip } => {
                write!(
                    f,
                    "it has bits behind its prefix; write {net} for the network or {ip} for the one address"
                )
            }
        }
    }
}

impl Error for NetError {}
