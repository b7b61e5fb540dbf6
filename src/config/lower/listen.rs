//! The addresses, the sockets, the access and the limits of listeners: the parts of lowering that listening doors share.
//! [`listening`] lowers all of them; a door with several kinds of listener lowers its lists of addresses one by one.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::tls::tls;
use super::{KEY, KeyRef, Mistakes};
use crate::config::spec::listen::{AccessSpec, ListenSpec, SocketSpec};
use crate::config::units::FileMode;
use crate::doors::front::options::{FrontOptions, LimitKind, TlsOptions};
use crate::net::access::{AccessList, TrustedProxies, parse_net};
use crate::net::addr::{Listen, ListenAddr, UnixAddr};
use crate::net::bind::UnixSocketOptions;
use crate::net::limits::ConnectionLimits;
use crate::process::identity::{UserIdentity, lookup_group};

const DEFAULT_BACKLOG: u32 = 1024;
const DEFAULT_CONNECTIONS: usize = 4096;
const CONNECTIONS_PER_IP: RangeInclusive<usize> = 1..=MACHINE.connections;

/// The largest accepted numbers of things that the machine limits.
pub(super) struct Ceilings {
    backlog: u32,
    connections: usize,
}

/// A larger number is a slip, because no machine can have it. The daemon finds out the real limits of the machine.
pub(super) const MACHINE: Ceilings = Ceilings {
    // The kernel caps it at net.core.somaxconn, see `listen(2)`.
    backlog: 65_535,
    // The open-file limit of the largest machines.
    connections: 1_000_000,
};
/// As with sockexec: any number, of which the door uses as many as the machine has.
pub(super) const ANY_NUMBER: Ceilings = Ceilings {
    backlog: u32::MAX,
    connections: u32::MAX as usize,
};

/// The settings of listening in a door's options.
pub(super) struct Listening {
    pub(super) addresses: Vec<(KeyRef, Listen)>,
    pub(super) tls: Option<TlsOptions>,
    pub(super) unix_socket: UnixSocketOptions,
    pub(super) backlog: u32,
    pub(super) access: AccessList,
    pub(super) proxies: TrustedProxies,
    pub(super) connection_limits: ConnectionLimits,
}

impl Listening {
    /// Returns the part of the options that every door has, and each address with its origin.
    pub(super) fn into_front(
        self,
        name: &str,
        limit_kind: LimitKind,
        stop_timeout: Duration,
    ) -> (Arc<FrontOptions>, Vec<(KeyRef, Listen)>) {
        let front = FrontOptions {
            name: name.to_owned(),
            listen: self.addresses.iter().map(|(_, listen)| listen.clone()).collect(),
            tls: self.tls,
            named_tls: BTreeMap::new(),
            unix_socket: self.unix_socket,
            backlog: self.backlog,
            access: self.access,
            proxies: self.proxies,
            connection_limits: self.connection_limits,
            limit_kind,
            stop_timeout,
            old_generation_timeout: None,
        };
        (Arc::new(front), self.addresses)
    }
}

/// Returns the kind of the limit on connections: a default may be lowered to the machine's limit.
pub(super) fn limit_kind(spec: &AccessSpec) -> LimitKind {
    match spec.max_connections {
        Some(_) => LimitKind::Fixed,
        None => LimitKind::Flexible,
    }
}

/// Lowers all parts. `addresses` are those of the door's own flags; those of `--listen` are added to them.
pub(super) fn listening(
    mistakes: &mut Mistakes,
    mut addresses: Vec<(KeyRef, Listen)>,
    spec: &ListenSpec,
    ceilings: &Ceilings,
) -> Listening {
    add_addresses(mistakes, &mut addresses, "listen", &spec.listen);
    let (access, proxies) = (access(mistakes, &spec.access), proxies(mistakes, &spec.access));
    let tls = tls(mistakes, &spec.tls, ("listen", &spec.listen), &addresses, &proxies);
    Listening {
        addresses,
        tls,
        unix_socket: unix_socket(mistakes, &spec.sockets, "listen", &spec.listen),
        backlog: backlog(mistakes, &spec.sockets, ceilings),
        access,
        proxies,
        connection_limits: connection_limits(mistakes, &spec.access, ceilings),
    }
}

/// Reads the list of addresses `texts` under `key`, and adds them to those of the door's other keys.
pub(super) fn add_addresses(
    mistakes: &mut Mistakes,
    addresses: &mut Vec<(KeyRef, Listen)>,
    key: &'static str,
    texts: &[String],
) {
    for (index, text) in texts.iter().enumerate() {
        let origin = KeyRef::element(key, index);
        match text.parse::<Listen>() {
            Ok(listen) => match addresses
                .iter()
                .find(|(_, other)| clash(&other.address, &listen.address))
            {
                Some((_, other)) => {
                    let text = format!("{listen} and {other} are in each other's way");
                    mistakes.add(origin, text, "leave out one of the two");
                }
                None => addresses.push((origin, listen)),
            },
            Err(error) => {
                let otherwise = "write for example 127.0.0.1:9991, [::1]:9991, *:9991 or unix:/run/iotcpd.sock";
                mistakes.add_error(origin, &error.to_string(), otherwise);
            }
        }
    }
}

/// Returns true if two listeners on these addresses would conflict: the same port, and a common address (`bind(2)`,
/// EADDRINUSE). Port 0 is a different port each time.
pub(in crate::config) fn clash(one: &ListenAddr, other: &ListenAddr) -> bool {
    match (one, other) {
        (ListenAddr::Inherited(None), ListenAddr::Inherited(_))
        | (ListenAddr::Inherited(_), ListenAddr::Inherited(None)) => true,
        _ => match (one.port(), other.port()) {
            (Some(0), _) => false,
            (Some(port), Some(other_port)) => port == other_port && overlap(one, other),
            _ => one == other,
        },
    }
}

/// Returns true if two TCP listeners have a common address. A listener with an address has that address's family only.
fn overlap(one: &ListenAddr, other: &ListenAddr) -> bool {
    match (one, other) {
        (ListenAddr::Tcp(one), ListenAddr::Tcp(other)) => {
            let every = one.ip().is_unspecified() || other.ip().is_unspecified();
            one.is_ipv4() == other.is_ipv4() && (every || one == other)
        }
        _ => true,
    }
}

/// Returns mode and owner of the UNIX sockets among the addresses `texts` of `key`. They must apply to at least one
/// socket: a mode that protects nothing is a mistake that the operator should know of.
pub(super) fn unix_socket(
    mistakes: &mut Mistakes,
    spec: &SocketSpec,
    key: &'static str,
    texts: &[String],
) -> UnixSocketOptions {
    let said = [
        ("socket-mode", spec.socket_mode.is_some()),
        ("socket-owner", spec.socket_owner.is_some()),
        ("socket-group", spec.socket_group.is_some()),
    ];
    let any_file = texts.iter().any(|text| may_be_a_file(text));
    for (setting, _) in said.iter().filter(|(_, said)| *said && !any_file) {
        let remedy = format!("add a {KEY}{key} address such as unix:/run/iotcpd.sock, or leave it out");
        mistakes.add(
            KeyRef::key(setting),
            "there is no UNIX socket with a path to apply it to",
            remedy,
        );
    }
    if let Some(FileMode(mode)) = spec.socket_mode.filter(|mode| mode.0 > 0o777) {
        let text = format!("{mode:04o} has bits that mean nothing on a socket");
        mistakes.add(KeyRef::key("socket-mode"), text, "write 0000 to 0777, for example 0660");
    }
    let owner = spec.socket_owner.as_deref().map(UserIdentity::lookup);
    let group = spec.socket_group.as_deref().map(lookup_group);
    UnixSocketOptions {
        mode: spec.socket_mode.map(|mode| mode.0),
        owner: owner
            .and_then(|found| mistakes.resolve("socket-owner", found))
            .map(|identity| identity.user),
        group: group.and_then(|found| mistakes.resolve("socket-group", found)),
    }
}

/// Returns true if this listener creates a file. An address with a mistake, which is reported elsewhere, may have been
/// meant to.
fn may_be_a_file(text: &str) -> bool {
    text.parse::<Listen>().map_or(true, |listen| {
        matches!(listen.address, ListenAddr::Unix(UnixAddr::Path(_)))
    })
}

/// Returns the length of the queue of connections not yet accepted.
pub(super) fn backlog(mistakes: &mut Mistakes, spec: &SocketSpec, ceilings: &Ceilings) -> u32 {
    mistakes
        .count("backlog", spec.backlog, 1..=ceilings.backlog)
        .unwrap_or(DEFAULT_BACKLOG)
}

/// Returns the networks whose clients may connect.
pub(super) fn access(mistakes: &mut Mistakes, spec: &AccessSpec) -> AccessList {
    AccessList {
        allow: networks(mistakes, "allow", &spec.allow),
        deny: networks(mistakes, "deny", &spec.deny),
    }
}

/// The word for the processes at the other end of UNIX sockets.
const UNIX: &str = "unix";

/// Returns the proxies from which a PROXY header is expected.
pub(super) fn proxies(mistakes: &mut Mistakes, spec: &AccessSpec) -> TrustedProxies {
    let proxies = TrustedProxies {
        nets: networks(mistakes, "accept-proxy", &spec.accept_proxy),
        unix: spec.accept_proxy.iter().any(|text| text == UNIX),
        is_optional: spec.accept_proxy_optional,
    };
    if proxies.is_optional && spec.accept_proxy.is_empty() {
        let text = format!("there is no {KEY}accept-proxy, so no header is accepted");
        let remedy = format!("name the proxies with {KEY}accept-proxy, or leave it out");
        mistakes.add(KeyRef::key("accept-proxy-optional"), text, remedy);
    }
    proxies
}

/// Reads the networks of a list. The word [`UNIX`], which only a list of proxies may have, is passed over there.
fn networks(mistakes: &mut Mistakes, key: &'static str, texts: &[String]) -> Vec<IpNet> {
    let mut networks = Vec::with_capacity(texts.len());
    let is_network = |(_, text): &(usize, &String)| key != "accept-proxy" || *text != UNIX;
    for (index, text) in texts.iter().enumerate().filter(is_network) {
        match parse_net(text) {
            Ok(network) => networks.push(network),
            Err(error) => {
                let otherwise = "write for example 10.0.0.0/8, 192.0.2.7 or fd00::/8";
                mistakes.add_error(KeyRef::element(key, index), &error.to_string(), otherwise);
            }
        }
    }
    networks
}

/// Returns the limits on connections, of all clients and of one address.
pub(super) fn connection_limits(mistakes: &mut Mistakes, spec: &AccessSpec, ceilings: &Ceilings) -> ConnectionLimits {
    let total = mistakes
        .count("max-connections", spec.max_connections, 1..=ceilings.connections)
        .unwrap_or(DEFAULT_CONNECTIONS);
    let per_ip = mistakes.count(
        "max-connections-per-ip",
        spec.max_connections_per_ip,
        CONNECTIONS_PER_IP,
    );
    if per_ip.is_some_and(|per_ip| per_ip > total) {
        let text = format!("it is over {KEY}max-connections, which is {total}, so it limits nothing");
        let remedy = format!("write at most {total}, or raise {KEY}max-connections");
        mistakes.add(KeyRef::key("max-connections-per-ip"), text, remedy);
    }
    ConnectionLimits {
        total,
        per_address: per_ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::lower::Mistake;
    use crate::config::units::Whole;

    fn lower(spec: &ListenSpec) -> Result<Listening, Vec<Mistake>> {
        let mut mistakes = Mistakes::default();
        let listening = listening(&mut mistakes, Vec::new(), spec, &MACHINE);
        mistakes.into_result(listening)
    }

    fn told(spec: &ListenSpec) -> Vec<(KeyRef, String)> {
        let Err(mistakes) = lower(spec) else {
            panic!("no mistake was found")
        };
        mistakes
            .iter()
            .map(|mistake| (mistake.origin, mistake.to_string()))
            .collect()
    }

    fn sockets(mode: u32, owner: &str, group: &str) -> SocketSpec {
        SocketSpec {
            socket_mode: Some(FileMode(mode)),
            socket_owner: Some(owner.into()),
            socket_group: Some(group.into()),
            ..SocketSpec::default()
        }
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn socket_options_reach_the_unix_sockets() {
        let spec = ListenSpec {
            listen: texts(&["unix:/x"]),
            sockets: sockets(0o660, "root", "7"),
            ..ListenSpec::default()
        };
        let unix_socket = lower(&spec).ok().unwrap().unix_socket;
        assert_eq!(
            unix_socket,
            UnixSocketOptions {
                mode: Some(0o660),
                owner: Some(0),
                group: Some(7)
            }
        );
    }

    #[test]
    fn socket_options_without_a_unix_socket_are_a_mistake() {
        let spec = ListenSpec {
            listen: texts(&["127.0.0.1:1", "unix:@abstract", "systemd"]),
            sockets: sockets(0o660, "root", "root"),
            ..ListenSpec::default()
        };
        let keys: Vec<_> = told(&spec).iter().map(|(origin, _)| origin.key).collect();
        assert_eq!(keys, ["socket-mode", "socket-owner", "socket-group"]);
    }

    #[test]
    fn a_mode_has_nine_bits_and_names_must_exist() {
        let spec = ListenSpec {
            listen: texts(&["unix:/x"]),
            sockets: sockets(0o4755, "no such user", "no such group"),
            ..ListenSpec::default()
        };
        let told = told(&spec);
        let lines: Vec<_> = told.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(
            lines[0],
            "socket-mode: 4755 has bits that mean nothing on a socket; write 0000 to 0777, for example 0660"
        );
        assert!(lines[1].starts_with("socket-owner: there is no user"), "{lines:?}");
        assert!(lines[2].starts_with("socket-group: there is no group"), "{lines:?}");
    }

    #[test]
    fn proxies_are_networks_and_the_processes_on_unix_sockets() {
        let spec = ListenSpec {
            listen: texts(&["127.0.0.1:1"]),
            access: AccessSpec {
                accept_proxy: texts(&["10.0.0.5", "unix", "fd00::/8"]),
                accept_proxy_optional: true,
                ..AccessSpec::default()
            },
            ..ListenSpec::default()
        };
        let proxies = lower(&spec).ok().unwrap().proxies;
        assert_eq!((proxies.nets.len(), proxies.unix, proxies.is_optional), (2, true, true));
        let spec = ListenSpec {
            listen: texts(&["127.0.0.1:1"]),
            access: AccessSpec {
                allow: texts(&["unix"]),
                accept_proxy: texts(&["unix", "haproxy.example"]),
                ..AccessSpec::default()
            },
            ..ListenSpec::default()
        };
        let origins: Vec<_> = told(&spec).into_iter().map(|(origin, _)| origin).collect();
        assert_eq!(
            origins,
            [KeyRef::element("allow", 0), KeyRef::element("accept-proxy", 1)]
        );
    }

    #[test]
    fn an_optional_header_needs_a_proxy_that_may_send_it() {
        let spec = ListenSpec {
            listen: texts(&["127.0.0.1:1"]),
            access: AccessSpec {
                accept_proxy_optional: true,
                ..AccessSpec::default()
            },
            ..ListenSpec::default()
        };
        let told = told(&spec);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].1.starts_with("accept-proxy-optional: there is no accept-proxy"),
            "{told:?}"
        );
    }

    #[test]
    fn listeners_clash_where_they_would_answer_at_one_address() {
        let clashes = |one: &str, other: &str| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(clash(&one, &other), clash(&other, &one), "{one} {other}");
            clash(&one, &other)
        };
        for (one, other) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("127.0.0.1:1", "0.0.0.0:1"),
            ("[::]:1", "[::1]:1"),
            ("*:1", "[::1]:1"),
            ("*:1", "0.0.0.0:1"),
            ("*:1", "*:1"),
            ("unix:/x", "unix:/x"),
            ("systemd", "systemd:a"),
            ("systemd:a", "systemd:a"),
        ] {
            assert!(clashes(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("127.0.0.1:1", "127.0.0.2:1"),
            ("0.0.0.0:1", "[::]:1"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("*:0", "*:0"),
            ("unix:/x", "unix:@x"),
            ("unix:/x", "*:1"),
            ("systemd:a", "systemd:b"),
            ("systemd", "*:1"),
        ] {
            assert!(!clashes(one, other), "{one} {other}");
        }
    }

    #[test]
    fn networks_may_be_single_addresses() {
        let allowed = |networks: &[&str]| {
            let mut spec = ListenSpec::default();
            spec.access.allow = texts(networks);
            lower(&spec).ok().unwrap().access
        };
        assert_eq!(
            allowed(&["192.0.2.7", "::1", "10.0.0.0/8"]),
            allowed(&["192.0.2.7/32", "::1/128", "10.0.0.0/8"])
        );
    }

    #[test]
    fn each_wrong_element_is_reported_by_its_index() {
        let spec = ListenSpec {
            listen: texts(&["127.0.0.1:1", "nonsense", "127.0.0.1:1"]),
            access: AccessSpec {
                allow: texts(&["10.0.0.0/8", "10/8"]),
                deny: texts(&["10.0.0.0/33"]),
                ..AccessSpec::default()
            },
            ..ListenSpec::default()
        };
        let origins: Vec<_> = told(&spec).into_iter().map(|(origin, _)| origin).collect();
        let expected = [
            KeyRef::element("listen", 1),
            KeyRef::element("listen", 2),
            KeyRef::element("allow", 1),
            KeyRef::element("deny", 0),
        ];
        assert_eq!(origins, expected);
    }

    #[test]
    fn a_limit_that_limits_nothing_is_a_mistake() {
        let limits = |total, per_ip| ListenSpec {
            access: AccessSpec {
                max_connections: Some(Whole(total)),
                max_connections_per_ip: Some(Whole(per_ip)),
                ..AccessSpec::default()
            },
            ..ListenSpec::default()
        };
        assert!(lower(&limits(8, 8)).is_ok());
        let (origin, line) = told(&limits(8, 9)).remove(0);
        assert_eq!(origin, KeyRef::key("max-connections-per-ip"));
        assert!(line.ends_with("write at most 8, or raise max-connections"), "{line}");
    }
}
