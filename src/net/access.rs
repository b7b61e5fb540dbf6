//! Access lists: which clients may connect, by address.
//!
//! Refusal has the last word: an address in `deny` is refused, whatever `allow` says. With an empty `allow` all others
//! are permitted, otherwise those in `allow`. The address is the client's, which a trusted proxy may have asserted: see
//! [`origin`](super::origin). A local process on a UNIX socket of the door has no address and is always permitted,
//! because the mode of the socket's file has decided already. No other client without an address passes a list: neither
//! one whose address is unknown, nor one that has come by a UNIX socket of another door.
//!
//! Networks and addresses are compared in one form, IPv4-mapped addresses as IPv4, so that `--deny 10.0.0.0/8` holds on
//! a dual-stack socket too. Lists are short and searched from the front.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::addr::{ListenAddr, PeerAddr};
use super::origin::Origin;

/// The networks that may connect and the networks that may not. The default permits all clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessList {
    /// If not empty, only these networks may connect.
    pub allow: Vec<IpNet>,
    /// These networks may not connect.
    pub deny: Vec<IpNet>,
}

impl AccessList {
    /// Returns true if a client of this origin may connect.
    pub fn permits(&self, origin: &Origin) -> bool {
        let Some(ip) = origin.ip() else {
            return origin.is_direct() || (self.allow.is_empty() && self.deny.is_empty());
        };
        !hold(&self.deny, ip) && (self.allow.is_empty() || hold(&self.allow, ip))
    }

    /// Returns true if the peer of a socket may not connect, not even as a proxy.
    pub fn denies(&self, peer: PeerAddr) -> bool {
        peer.ip().is_some_and(|ip| hold(&self.deny, ip))
    }
}

/// The proxies whose PROXY headers are believed. The default believes none.
///
/// From each of them a header is expected at the beginning of every connection. A connection from any other peer is
/// that peer's own, and bytes that look like a header are data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// The networks that they are in.
    pub nets: Vec<IpNet>,
    /// True if every process at the other end of a UNIX socket is one.
    pub unix: bool,
    /// True if a connection may also come without a header, and is the proxy's own then.
    pub is_optional: bool,
}

impl TrustedProxies {
    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty() && !self.unix
    }

    /// Returns true if one of them may connect to a socket that other machines do not reach. It is not known of a socket
    /// that is handed over before it has come.
    #[must_use]
    pub fn may_reach_local(&self, address: &ListenAddr) -> bool {
        match address {
            ListenAddr::Tcp(address) => {
                let ip = address.ip();
                let is_loopback = |net: IpAddr| net.is_loopback() && net.is_ipv4() == ip.is_ipv4();
                hold(&self.nets, ip) || self.nets.iter().any(|net| is_loopback(canonical(*net).network()))
            }
            ListenAddr::TcpAny { .. } => !self.nets.is_empty(),
            ListenAddr::Unix(_) => self.unix,
            ListenAddr::Inherited(_) => false,
        }
    }

    /// Returns true if a header is expected from this peer.
    pub fn include(&self, peer: PeerAddr) -> bool {
        match peer.ip() {
            Some(ip) => hold(&self.nets, ip),
            None => self.unix,
        }
    }
}

fn hold(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| canonical(*net).contains(&ip))
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
/// The form that it should have. Bits behind the prefix (`10.0.0.1/8`) are refused: in an access list one had better
/// not guess whether the address or its length is the slip of the pen.
pub fn parse_net(text: &str) -> Result<IpNet, NetError> {
    let refused = |mistake| NetError {
        text: text.to_owned(),
        mistake,
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip.to_canonical()));
    }
    let without_interface = text.split('%').next().unwrap_or(text);
    if text.contains('%') && without_interface.parse::<Ipv6Addr>().is_ok() {
        return Err(refused(NetMistake::Interface(without_interface.to_owned())));
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
    Interface(String),
    BitsBehindPrefix { net: IpNet, ip: IpAddr },
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a network: ", self.text)?;
        match &self.mistake {
            NetMistake::NoAddress => {
                f.write_str("write an address such as 10.0.0.1 or 2001:db8::1, or a network such as 10.0.0.0/8")
            }
            NetMistake::Interface(address) => {
                write!(
                    f,
                    "addresses are compared whichever interface they come by; write {address}"
                )
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts
            .iter()
            .map(|text| parse_net(text).unwrap_or_else(|error| panic!("{error}")))
            .collect()
    }

    fn from_ip(ip: IpAddr) -> Origin {
        Origin::direct(PeerAddr::tcp((ip, 4711).into()))
    }

    fn peer(ip: &str) -> Origin {
        from_ip(ip.parse().expect("an address"))
    }

    const UNIX: Origin = Origin::direct(PeerAddr::Unix);

    #[test]
    fn without_a_list_all_clients_are_permitted() {
        let list = AccessList::default();
        assert!(list.permits(&peer("192.0.2.1")) && list.permits(&peer("::1")) && list.permits(&UNIX));
    }

    #[test]
    fn a_header_is_expected_from_the_listed_proxies_alone() {
        let end = |text: &str| PeerAddr::tcp(text.parse().expect("an address"));
        let mut proxies = TrustedProxies::default();
        assert!(proxies.is_empty() && !proxies.include(end("10.0.0.5:1")) && !proxies.include(PeerAddr::Unix));
        proxies.nets = nets(&["10.0.0.5", "fd00::/8"]);
        for (text, expected) in [
            ("10.0.0.5:1", true),
            ("[::ffff:10.0.0.5]:1", true),
            ("10.0.0.6:1", false),
            ("[fd00::1]:1", true),
        ] {
            assert_eq!(proxies.include(end(text)), expected, "{text}");
        }
        assert!(
            !proxies.include(PeerAddr::Unix),
            "processes of this machine are no proxies unless it is said"
        );
        proxies.unix = true;
        assert!(proxies.include(PeerAddr::Unix));
    }

    #[test]
    fn a_denied_proxy_is_refused_before_its_header_is_read() {
        let list = AccessList {
            allow: nets(&["192.0.2.0/24"]),
            deny: nets(&["10.6.6.6"]),
        };
        let end = |text: &str| PeerAddr::tcp(text.parse().expect("an address"));
        assert!(list.denies(end("10.6.6.6:1")) && list.denies(end("[::ffff:10.6.6.6]:1")));
        assert!(!list.denies(end("10.0.0.5:1")), "a proxy need not be in --allow");
        assert!(!list.denies(PeerAddr::Unix));
    }

    #[test]
    fn deny_has_the_last_word() {
        let list = AccessList {
            allow: nets(&["10.0.0.0/8"]),
            deny: nets(&["10.6.6.6"]),
        };
        assert!(list.permits(&peer("10.6.6.5")));
        assert!(!list.permits(&peer("10.6.6.6")));
        assert!(!list.permits(&peer("11.0.0.1")), "an allow list leaves all others out");
        assert!(!list.permits(&peer("::1")), "of the other family too");
        assert!(list.permits(&UNIX), "where the file mode has decided");
    }

    #[test]
    fn deny_alone_permits_all_other_clients() {
        let list = AccessList {
            allow: Vec::new(),
            deny: nets(&["2001:db8::/32"]),
        };
        assert!(
            !list.permits(&peer("2001:db8::1"))
                && list.permits(&peer("2001:db9::1"))
                && list.permits(&peer("10.0.0.1"))
        );
    }

    #[test]
    fn a_mapped_address_is_no_way_around_the_list() {
        let list = AccessList {
            allow: Vec::new(),
            deny: nets(&["10.0.0.0/8"]),
        };
        let mapped = "[::ffff:10.0.0.1]:1".parse().expect("an address");
        assert!(!list.permits(&Origin::direct(PeerAddr::Tcp(mapped))));
        let written = AccessList {
            allow: Vec::new(),
            deny: nets(&["::ffff:10.0.0.0/104", "::ffff:192.0.2.1"]),
        };
        assert!(!written.permits(&peer("10.0.0.1")) && !written.permits(&peer("192.0.2.1")));
    }

    #[test]
    fn a_list_made_without_the_parser_is_read_the_same() {
        let mapped: IpNet = "::ffff:10.0.0.0/104".parse().expect("a network");
        let list = AccessList {
            allow: Vec::new(),
            deny: vec![mapped],
        };
        assert!(!list.permits(&peer("10.1.2.3")) && list.permits(&peer("11.0.0.0")));
    }

    #[test]
    fn each_mistake_is_told_what_to_write_instead() {
        for (text, remedy) in [
            ("example.com", "write an address"),
            ("10.0.0.0/33", "0 to 32"),
            ("::/129", "0 to 128"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("10.0.0.0/255.0.0.0", "0 to 32"),
            ("10.0.0.1/8", "write 10.0.0.0/8 for the network or 10.0.0.1"),
            ("", "write an address"),
            ("fe80::1%eth0", "write fe80::1"),
        ] {
            let error = parse_net(text).expect_err(text).to_string();
            assert!(error.contains(remedy), "{error:?} does not say {remedy:?}");
        }
        assert_eq!(parse_net("10.0.0.1").expect("a net").to_string(), "10.0.0.1/32");
        assert_eq!(parse_net("::1").expect("a net").to_string(), "::1/128");
    }

    /// A network and an address by their bits, compared one after the other: nothing of ipnet.
    fn bit_by_bit(address: u128, prefix: u8, ip: u128, width: u32) -> bool {
        (0..u32::from(prefix)).all(|bit| (address ^ ip) >> (width - 1 - bit) & 1 == 0)
    }

    /// Addresses that have long prefixes in common, so that a list says yes as often as no.
    fn near() -> impl Strategy<Value = u32> {
        (0_u32..32, any::<bool>()).prop_map(|(bit, flip)| 0x0a00_0000 ^ (u32::from(flip) << bit))
    }

    proptest! {
        #[test]
        fn it_says_what_a_naive_list_says(
            allow in prop::collection::vec((near(), 0_u8..=32), 0..4),
            deny in prop::collection::vec((near(), 0_u8..=32), 0..4),
            ip in near(),
            wide in any::<bool>(),
        ) {
            let net = |&(bits, prefix): &(u32, u8)| -> IpNet {
                if wide {
                    // The same at the top of an IPv6 address, under a first bit that keeps it out of the mapped range.
                    let bits = u128::from(bits) << 64 | 1 << 127;
                    IpNet::new(Ipv6Addr::from_bits(bits).into(), prefix + 32).expect("a network").trunc()
                } else {
                    IpNet::new(Ipv4Addr::from_bits(bits).into(), prefix).expect("a network").trunc()
                }
            };
            let list = AccessList { allow: allow.iter().map(net).collect(), deny: deny.iter().map(net).collect() };
            let holds = |nets: &[(u32, u8)]| nets.iter().any(|&(bits, prefix)| bit_by_bit(bits.into(), prefix, ip.into(), 32));
            let expected = !holds(&deny) && (allow.is_empty() || holds(&allow));
            let ip: IpAddr = if wide {
                Ipv6Addr::from_bits(u128::from(ip) << 64 | 1 << 127).into()
            } else {
                Ipv4Addr::from_bits(ip).into()
            };
            prop_assert_eq!(list.permits(&from_ip(ip)), expected);
        }
    }
}
