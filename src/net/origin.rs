//! The origin of a connection: the one place that decides whose address counts.
//!
//! A connection that a door has accepted itself comes from the peer of its socket. One that came by way of a proxy or a
//! tunnel comes from a client behind that peer: a trusted header has asserted the client's address, or has said that
//! it is unknown. A connection may also have been accepted by one door and handed over to another.
//!
//! The rules, which the door that receives the connection applies:
//!
//! - Access lists and limits per address apply to the [client's address](Origin::ip), not to the proxy's.
//! - A connection is [local](Origin::is_local) only if both the peer and the client are: on a loopback address, or a
//!   process at the other end of a UNIX socket. A client without an address is remote.
//! - The process at the other end of a UNIX socket is the client only if [nothing stands
//!   between](Origin::is_direct): lists of users refuse whatever was handed over or comes from behind a proxy.
//!
//! The header of the [PROXY protocol](super::proxy) asserts addresses. A route door hands connections over to other doors.
//!
//! [TLS](super::tls) on the connection is part of its origin for the log and for programs, and the [mark](Origin::mark) of
//! the listener for the door. They change none of these rules.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::addr::{Mark, PeerAddr, canonical};
use super::proxy::Details;
use super::tls::Established;

/// The origin of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The peer of the socket.
    pub peer: PeerAddr,
    /// The client behind the peer, as a trusted header or tunnel has asserted it. `None`: the peer is the client.
    pub asserted: Option<Asserted>,
    /// The names that such a header has given beside, for the log.
    pub details: Option<Rc<Details>>,
    /// The name of the door that has accepted the connection and handed it over. `None`: no other door has.
    pub door: Option<Rc<str>>,
    /// The outcome of the handshake on the socket. `None` without TLS, and before the end of the handshake.
    pub tls: Option<Rc<Established>>,
    /// The mark of the listener that has accepted the connection; the default if the connection was handed over.
    pub mark: Mark,
}

/// The client of a connection that came by way of a trusted proxy or tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asserted {
    /// It has this address.
    Address(SocketAddr),
    /// Its address is not known, or it has none.
    Unknown,
    /// It is the proxy itself, which looks if the door answers. Its address is that of the peer.
    Proxy,
}

impl Origin {
    /// The origin of a connection that comes from the peer of its socket itself.
    #[must_use]
    pub const fn direct(peer: PeerAddr) -> Self {
        Origin {
            peer,
            asserted: None,
            details: None,
            door: None,
            tls: None,
            mark: Mark(0),
        }
    }

    /// The client's own end; `None` if it is unknown.
    #[must_use]
    pub fn client(&self) -> Option<PeerAddr> {
        match self.asserted {
            None | Some(Asserted::Proxy) => Some(self.peer),
            Some(Asserted::Address(address)) => Some(PeerAddr::Tcp(canonical(address))),
            Some(Asserted::Unknown) => None,
        }
    }

    /// The client, as a proxy asserts it towards the next one that the connection is passed on to.
    #[must_use]
    pub fn assertion(&self) -> Asserted {
        match (self.asserted, self.peer) {
            (Some(asserted), _) => asserted,
            (None, PeerAddr::Tcp(address)) => Asserted::Address(address),
            (None, PeerAddr::Unix) => Asserted::Unknown,
        }
    }

    /// The client's address, to which access lists and limits apply; `None` if it is unknown, or if the client is a
    /// process at the other end of a UNIX socket. Never IPv4-mapped.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.client().and_then(|client| client.ip())
    }

    /// Returns true if the client is a process of this machine. A proxy that speaks for itself does not count as one,
    /// because another machine may have made it speak.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let is_local = |end: PeerAddr| end.ip().is_none_or(|ip| ip.is_loopback());
        match self.asserted {
            Some(Asserted::Unknown | Asserted::Proxy) => false,
            None | Some(Asserted::Address(_)) => is_local(self.peer) && self.client().is_some_and(is_local),
        }
    }

    /// Returns true if the process at the other end of the socket is the client, and the connection was handed over by
    /// no other door.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.asserted.is_none() && self.door.is_none()
    }
}

/// The client as it stands in log lines, with the proxy that it came by, with TLS, and with the door that has accepted it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (peer, details, tls) = (self.peer, self.details.as_deref(), self.tls.as_deref());
        let mut is_open = self.asserted.is_some();
        match self.asserted {
            None => peer.fmt(f)?,
            Some(Asserted::Proxy) => write!(f, "{peer} (the proxy itself")?,
            Some(Asserted::Address(address)) => write!(f, "{} (by way of {peer}", PeerAddr::tcp(address))?,
            Some(Asserted::Unknown) => write!(f, "unknown (by way of {peer}")?,
        }
        if let (true, Some(details)) = (is_open, details) {
            details.fmt(f)?;
        }
        let mut separator = || {
            if std::mem::replace(&mut is_open, true) {
                ", "
            } else {
                " ("
            }
        };
        if let Some(tls) = tls {
            write!(f, "{}{tls}", separator())?;
        }
        if let Some(door) = &self.door {
            write!(f, "{}handed over by {door}", separator())?;
        }
        f.write_str(if is_open { ")" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::{AccessList, parse_net};
    use super::super::limits::{ConnectionCount, ConnectionLimits, Full};
    use super::super::proxy::{Parsed, parse};
    use super::super::tls::Version;
    use super::*;

    /// A row of the table: the socket's peer, the asserted client, the handing door; then the expectations.
    struct Row {
        peer: &'static str,
        asserted: &'static str,
        is_local: bool,
        /// Passes `--deny 192.0.2.0/24`.
        passes_deny: bool,
        /// Passes `--allow 127.0.0.0/8 --allow 10.0.0.0/8`.
        passes_allow: bool,
        shown: &'static str,
    }

    const fn row(
        (peer, asserted): (&'static str, &'static str),
        is_local: bool,
        passes_deny: bool,
        passes_allow: bool,
        shown: &'static str,
    ) -> Row {
        Row {
            peer,
            asserted,
            is_local,
            passes_deny,
            passes_allow,
            shown,
        }
    }

    const UNIX: &str = "unix";
    const NONE: &str = "";
    const UNKNOWN: &str = "unknown";
    const PROXY: &str = "proxy";

    #[rustfmt::skip]
    const TABLE: &[Row] = &[
        row(("127.0.0.1:1", NONE), true, true, true, "127.0.0.1:1"),
        row(("[::1]:1", NONE), true, true, false, "[::1]:1"),
        row(("[::ffff:127.0.0.1]:1", NONE), true, true, true, "127.0.0.1:1"),
        row(("10.0.0.1:1", NONE), false, true, true, "10.0.0.1:1"),
        row(("192.0.2.7:1", NONE), false, false, false, "192.0.2.7:1"),
        row((UNIX, NONE), true, true, true, "unix"),
        // The asserted address counts, for better and for worse.
        row(("192.0.2.7:1", "10.0.0.1:2"), false, true, true, "10.0.0.1:2 (by way of 192.0.2.7:1)"),
        row(("127.0.0.1:1", "192.0.2.7:2"), false, false, false, "192.0.2.7:2 (by way of 127.0.0.1:1)"),
        row((UNIX, "192.0.2.7:2"), false, false, false, "192.0.2.7:2 (by way of unix)"),
        row((UNIX, "[::ffff:192.0.2.7]:2"), false, false, false, "192.0.2.7:2 (by way of unix)"),
        row((UNIX, "10.0.0.1:2"), false, true, true, "10.0.0.1:2 (by way of unix)"),
        // A remote proxy does not make its client local.
        row(("192.0.2.7:1", "127.0.0.1:2"), false, true, true, "127.0.0.1:2 (by way of 192.0.2.7:1)"),
        row(("127.0.0.1:1", "127.0.0.1:2"), true, true, true, "127.0.0.1:2 (by way of 127.0.0.1:1)"),
        row((UNIX, "127.0.0.1:2"), true, true, true, "127.0.0.1:2 (by way of unix)"),
        // A client without an address is remote, and passes no list.
        row(("127.0.0.1:1", UNKNOWN), false, false, false, "unknown (by way of 127.0.0.1:1)"),
        row(("10.0.0.1:1", UNKNOWN), false, false, false, "unknown (by way of 10.0.0.1:1)"),
        row((UNIX, UNKNOWN), false, false, false, "unknown (by way of unix)"),
        // A proxy that speaks for itself is remote, and held against the lists by its own address.
        row(("127.0.0.1:1", PROXY), false, true, true, "127.0.0.1:1 (the proxy itself)"),
        row(("192.0.2.7:1", PROXY), false, false, false, "192.0.2.7:1 (the proxy itself)"),
        row((UNIX, PROXY), false, false, false, "unix (the proxy itself)"),
    ];

    fn origin(peer: &str, asserted: &str) -> Origin {
        let peer = match peer {
            UNIX => PeerAddr::Unix,
            text => PeerAddr::tcp(text.parse().unwrap()),
        };
        let asserted = match asserted {
            NONE => None,
            UNKNOWN => Some(Asserted::Unknown),
            PROXY => Some(Asserted::Proxy),
            text => Some(Asserted::Address(text.parse().unwrap())),
        };
        Origin {
            asserted,
            ..Origin::direct(peer)
        }
    }

    fn list(allow: &[&str], deny: &[&str]) -> AccessList {
        let nets = |texts: &[&str]| texts.iter().map(|text| parse_net(text).unwrap()).collect();
        AccessList {
            allow: nets(allow),
            deny: nets(deny),
        }
    }

    #[test]
    fn the_clients_address_decides_and_locality_needs_both_ends() {
        let (deny, allow) = (list(&[], &["192.0.2.0/24"]), list(&["127.0.0.0/8", "10.0.0.0/8"], &[]));
        for it in TABLE {
            let mut origin = origin(it.peer, it.asserted);
            let direct = it.asserted == NONE;
            assert_eq!(origin.is_direct(), direct, "{origin:?}");
            assert!(AccessList::default().permits(&origin), "{origin:?}: there is no list");
            for door in [None, Some("route".into())] {
                origin.door = door;
                assert_eq!(origin.is_local(), it.is_local, "{origin:?}");
                // The mode of a socket's file has decided for its own door alone.
                let by_mode_of_another = origin.door.is_some() && origin.client() == Some(PeerAddr::Unix);
                assert_eq!(
                    deny.permits(&origin),
                    it.passes_deny && !by_mode_of_another,
                    "{origin:?}"
                );
                assert_eq!(
                    allow.permits(&origin),
                    it.passes_allow && !by_mode_of_another,
                    "{origin:?}"
                );
                let shown = match (&origin.door, it.shown.strip_suffix(')')) {
                    (None, _) => it.shown.to_owned(),
                    (Some(door), Some(open)) => format!("{open}, handed over by {door})"),
                    (Some(door), None) => format!("{} (handed over by {door})", it.shown),
                };
                assert_eq!(origin.to_string(), shown, "{origin:?}");
            }
            assert!(!origin.is_direct(), "it was handed over");
        }
    }

    /// A header of version 2 with this command, family and body.
    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, body].concat()
    }

    /// The addresses of a header of version 2: this client's, and the proxy's.
    fn addresses(client: &str) -> Vec<u8> {
        let client: SocketAddr = client.parse().unwrap();
        let (ip, port) = (client.ip(), client.port().to_be_bytes());
        match ip {
            IpAddr::V4(ip) => [&ip.octets()[..], &[203, 0, 113, 1], &port, &[1, 187]].concat(),
            IpAddr::V6(ip) => [&ip.octets()[..], &[0; 16], &port, &[1, 187]].concat(),
        }
    }

    /// Every kind of header, with the client that it asserts.
    fn headers() -> Vec<(Vec<u8>, &'static str)> {
        let mut headers = vec![
            (b"PROXY UNKNOWN\r\n".to_vec(), UNKNOWN),
            (b"PROXY UNKNOWN 127.0.0.1 127.0.0.1 5 6\r\n".to_vec(), UNKNOWN),
            (binary(0x21, 0x00, b""), UNKNOWN),
            (binary(0x21, 0x00, &addresses("127.0.0.1:5")), UNKNOWN),
            (binary(0x21, 0x10, &addresses("127.0.0.1:5")), UNKNOWN),
            (binary(0x21, 0x31, &[0; 216]), UNKNOWN),
            (binary(0x21, 0x32, &[b'/'; 216]), UNKNOWN),
            (binary(0x20, 0x00, b""), PROXY),
            (binary(0x20, 0x11, &addresses("127.0.0.1:5")), PROXY),
            (binary(0x20, 0x11, &addresses("192.0.2.7:5")), PROXY),
            (binary(0x20, 0x31, &[0; 216]), PROXY),
        ];
        for client in ["127.0.0.1:5", "127.9.9.9:5", "10.0.0.1:5", "192.0.2.7:5"] {
            let ip = client.trim_end_matches(":5");
            headers.push((format!("PROXY TCP4 {ip} 203.0.113.1 5 6\r\n").into_bytes(), client));
            headers.push((binary(0x21, 0x11, &addresses(client)), client));
            headers.push((binary(0x21, 0x12, &addresses(client)), client));
        }
        for client in [
            "[::1]:5",
            "[2001:db8::7]:5",
            "[::ffff:127.0.0.1]:5",
            "[::ffff:192.0.2.7]:5",
        ] {
            let ip = client.trim_start_matches('[').trim_end_matches("]:5");
            headers.push((format!("PROXY TCP6 {ip} ::1 5 6\r\n").into_bytes(), client));
            headers.push((binary(0x21, 0x21, &addresses(client)), client));
        }
        headers
    }

    /// The origins that a door may meet: each peer, alone and with each header, over TCP and TLS, with the certificate of a
    /// client whose subject claims to be local, and handed over by another door. Beside each the asserted client.
    fn every_origin() -> Vec<(Origin, &'static str)> {
        const PEERS: [&str; 8] = [
            UNIX,
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
            "10.0.0.1:1",
            "192.0.2.7:1",
            "[2001:db8::7]:1",
        ];
        let asserted = headers().into_iter().map(|(bytes, asserted)| match parse(&bytes) {
            Parsed::Header(header) => (Some(header.client), asserted),
            other => panic!("{other:?} of {bytes:?}"),
        });
        let asserted: Vec<_> = asserted.chain([(None, NONE)]).collect();
        let established = |subject: Option<&str>| Established {
            version: Version::V1_3,
            subject: subject.map(str::to_owned),
            is_resumed: false,
        };
        let mut all = Vec::new();
        for peer in PEERS {
            for (client, written) in &asserted {
                for tls in [None, Some(None), Some(Some("CN=127.0.0.1")), Some(Some("CN=root"))] {
                    for door in [None, Some("route".into())] {
                        let origin = Origin {
                            asserted: *client,
                            tls: tls.map(established).map(Rc::new),
                            door,
                            ..origin(peer, NONE)
                        };
                        all.push((origin, *written));
                    }
                }
            }
        }
        all
    }

    /// The table of all combinations: each rule again, from what the header says and nothing else.
    #[test]
    fn no_header_no_certificate_and_no_door_makes_a_client_what_it_is_not() {
        let (deny, allow) = (list(&[], &["192.0.2.0/24"]), list(&["127.0.0.0/8", "10.0.0.0/8"], &[]));
        for (found, asserted) in every_origin() {
            let peer = found.peer.ip();
            let itself = asserted == NONE;
            let client: Option<IpAddr> = match asserted {
                NONE | PROXY => peer,
                UNKNOWN => None,
                text => Some(text.parse::<SocketAddr>().unwrap().ip().to_canonical()),
            };
            assert_eq!(found.ip(), client, "{found:?}");
            // Local is a direct client of this machine, and a client of this machine behind a proxy of this machine.
            let of_this_machine = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_loopback());
            let is_local =
                of_this_machine(peer) && (itself || client.is_some_and(|ip| ip.is_loopback() && asserted != PROXY));
            assert_eq!(found.is_local(), is_local, "{found:?}");
            let is_direct = itself && found.door.is_none();
            assert_eq!(found.is_direct(), is_direct, "{found:?}");
            // Without an address no list is passed, except by a direct client of a UNIX socket.
            let by_mode = client.is_none() && is_direct;
            let within = |net: &str| client.is_some_and(|ip| parse_net(net).unwrap().contains(&ip));
            let passes_deny = by_mode || (client.is_some() && !within("192.0.2.0/24"));
            assert_eq!(deny.permits(&found), passes_deny, "{found:?}");
            let passes_allow = by_mode || within("127.0.0.0/8") || within("10.0.0.0/8");
            assert_eq!(allow.permits(&found), passes_allow, "{found:?}");
            let mut count = ConnectionCount::new(ConnectionLimits {
                total: 100,
                per_address: Some(1),
            });
            // A second one from there is one too many, if there is an address that could be counted: the client's, or
            // else the proxy's.
            let counted = client.or(peer).is_some();
            assert_eq!(count.admit(&found), Ok(()));
            assert_eq!(count.admit(&found).is_err(), counted, "{found:?}");
            if let Some(ip) = client.or(peer) {
                let direct = Origin::direct(PeerAddr::tcp((ip, 9).into()));
                assert_eq!(count.admit(&direct), Err(Full::Address), "{found:?}");
            }
        }
    }

    #[test]
    fn the_version_of_tls_and_the_subject_stand_behind_the_address_or_the_proxy() {
        for (peer, asserted, shown) in [
            ("192.0.2.7:1", NONE, r#"192.0.2.7:1 (TLSv1.3, subject "CN=a")"#),
            (
                "10.0.0.1:1",
                "192.0.2.7:2",
                r#"192.0.2.7:2 (by way of 10.0.0.1:1, TLSv1.3, subject "CN=a")"#,
            ),
            (
                "10.0.0.1:1",
                UNKNOWN,
                r#"unknown (by way of 10.0.0.1:1, TLSv1.3, subject "CN=a")"#,
            ),
            (
                "10.0.0.1:1",
                PROXY,
                r#"10.0.0.1:1 (the proxy itself, TLSv1.3, subject "CN=a")"#,
            ),
        ] {
            let plain = origin(peer, asserted);
            let established = Established {
                version: Version::V1_3,
                subject: Some("CN=a".to_owned()),
                is_resumed: false,
            };
            let secured = Origin {
                tls: Some(Rc::new(established)),
                ..plain.clone()
            };
            assert_eq!(secured.to_string(), shown);
            assert_eq!(
                (secured.ip(), secured.is_local(), secured.is_direct()),
                (plain.ip(), plain.is_local(), plain.is_direct())
            );
        }
    }

    #[test]
    fn the_names_that_a_proxy_gives_stand_in_the_log_and_cannot_break_its_lines() {
        let details = Details {
            authority: Some("www.example\n".to_owned()),
            tls: Some("TLSv1.3".to_owned()),
            subject: Some("a \"b\"".to_owned()),
        };
        let origin = Origin {
            details: Some(Rc::new(details)),
            ..origin("10.0.0.1:1", "192.0.2.7:2")
        };
        let shown = r#"192.0.2.7:2 (by way of 10.0.0.1:1, for "www.example\n", with "TLSv1.3", subject "a \"b\"")"#;
        assert_eq!(origin.to_string(), shown);
    }

    #[test]
    fn a_limit_per_address_counts_the_clients_of_one_proxy_apart() {
        let mut count = ConnectionCount::new(ConnectionLimits {
            total: 100,
            per_address: Some(1),
        });
        for asserted in ["10.0.0.1:1", "10.0.0.2:1"] {
            assert_eq!(count.admit(&origin("192.0.2.7:1", asserted)), Ok(()));
            assert_eq!(count.admit(&origin("192.0.2.8:1", asserted)), Err(Full::Address));
        }
        count.release(&origin("192.0.2.9:1", "10.0.0.1:2"));
        assert_eq!(count.admit(&origin(UNIX, "10.0.0.1:3")), Ok(()));
    }

    #[test]
    fn clients_of_unknown_address_are_counted_as_their_proxy() {
        let mut count = ConnectionCount::new(ConnectionLimits {
            total: 100,
            per_address: Some(1),
        });
        let unknown = origin("192.0.2.7:1", UNKNOWN);
        assert_eq!(count.admit(&unknown), Ok(()));
        assert_eq!(count.admit(&unknown), Err(Full::Address));
        assert_eq!(count.admit(&origin("192.0.2.7:1", "10.0.0.1:1")), Ok(()));
        count.release(&unknown);
        assert_eq!(count.admit(&unknown), Ok(()));
    }
}
