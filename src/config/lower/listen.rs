//! Where clients connect and who may: the part of lowering that every listening door shares.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::{Mistakes, Origin};
use crate::config::spec::listen::ListenSpec;
use crate::config::units::FileMode;
use crate::net::access::AccessList;
use crate::net::addr::ListenAddr;
use crate::net::limits::ConnectionLimits;
use crate::net::listener::UnixSocketOptions;
use crate::process::identity::{UserIdentity, lookup_group};

/// `listen(2)`: the kernel caps it at net.core.somaxconn.
const BACKLOG: RangeInclusive<u32> = 1..=65_535;
const DEFAULT_BACKLOG: u32 = 1024;
/// The end of the range is what the open-file limit of the largest machines allows; the daemon checks it against its own.
const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;
const DEFAULT_CONNECTIONS: usize = 4096;

/// Everything about listening that a door's options hold.
pub(super) struct Listening {
    pub(super) addresses: Vec<(Origin, ListenAddr)>,
    pub(super) unix_socket: UnixSocketOptions,
    pub(super) backlog: u32,
    pub(super) access: AccessList,
    pub(super) connection_limits: ConnectionLimits,
}

/// Lowers the shared part. `addresses` are those that the door's own flags name; what `--listen` names is added to them.
pub(super) fn listening(
    mistakes: &mut Mistakes,
    mut addresses: Vec<(Origin, ListenAddr)>,
    spec: &ListenSpec,
) -> Listening {
    for (index, text) in spec.listen.iter().enumerate() {
        let origin = Origin::element("listen", index);
        match text.parse::<ListenAddr>() {
            Ok(address) if addresses.iter().any(|(_, other)| clash(other, &address)) => {
                mistakes.add(origin, format!("{address} is listened on already"), "leave it out here");
            }
            Ok(address) => addresses.push((origin, address)),
            Err(error) => mistakes.add_said(origin, &error.to_string()),
        }
    }
    let unix_socket = unix_socket(mistakes, &addresses, spec);
    Listening {
        addresses,
        unix_socket,
        backlog: mistakes
            .count("backlog", spec.backlog, BACKLOG)
            .unwrap_or(DEFAULT_BACKLOG),
        access: access(mistakes, spec),
        connection_limits: connection_limits(mistakes, spec),
    }
}

/// Whether two listeners on these addresses would be in each other's way. Port 0 is another port each time.
pub(in crate::config) fn clash(one: &ListenAddr, other: &ListenAddr) -> bool {
    let any_port = matches!(one, ListenAddr::Tcp(address) if address.port() == 0);
    one == other && !any_port
}

/// Mode and owner of the UNIX sockets. They must have something to apply to: a mode that protects nothing is a mistake
/// worth knowing about.
fn unix_socket(mistakes: &mut Mistakes, addresses: &[(Origin, ListenAddr)], spec: &ListenSpec) -> UnixSocketOptions {
    let said = [
        ("socket-mode", spec.socket_mode.is_some()),
        ("socket-owner", spec.socket_owner.is_some()),
        ("socket-group", spec.socket_group.is_some()),
    ];
    let any_unix = addresses
        .iter()
        .any(|(_, address)| matches!(address, ListenAddr::Unix(_)));
    for (key, _) in said.iter().filter(|(_, said)| *said && !any_unix) {
        let remedy = "add a listen address such as unix:/run/iotcpd.sock, or leave it out";
        mistakes.add(Origin::key(key), "there is no UNIX socket to apply it to", remedy);
    }
    if let Some(FileMode(mode)) = spec.socket_mode.filter(|mode| mode.0 > 0o777) {
        let text = format!("{mode:04o} has bits that mean nothing on a socket");
        mistakes.add(Origin::key("socket-mode"), text, "write 0000 to 0777, for example 0660");
    }
    let owner = spec.socket_owner.as_deref().map(UserIdentity::lookup);
    let group = spec.socket_group.as_deref().map(lookup_group);
    UnixSocketOptions {
        mode: spec.socket_mode.map(|mode| mode.0),
        owner: owner
            .and_then(|found| mistakes.found("socket-owner", found))
            .map(|identity| identity.user),
        group: group.and_then(|found| mistakes.found("socket-group", found)),
    }
}

fn access(mistakes: &mut Mistakes, spec: &ListenSpec) -> AccessList {
    AccessList::new(
        networks(mistakes, "allow", &spec.allow),
        networks(mistakes, "deny", &spec.deny),
    )
}

/// Networks in CIDR notation; a lone address is the network of that one address.
fn networks(mistakes: &mut Mistakes, key: &'static str, texts: &[String]) -> Vec<IpNet> {
    let mut networks = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        {
            Ok(network) => networks.push(network),
            Err(_) => {
                let text = format!("`{}` is not a network", text.escape_debug());
                mistakes.add(
                    Origin::element(key, index),
                    text,
                    "write for example 10.0.0.0/8, 192.0.2.7 or fd00::/8",
                );
            }
        }
    }
    networks
}

fn connection_limits(mistakes: &mut Mistakes, spec: &ListenSpec) -> ConnectionLimits {
    let total = mistakes
        .count("max-connections", spec.max_connections, CONNECTIONS)
        .unwrap_or(DEFAULT_CONNECTIONS);
    let per_ip = mistakes.count("max-connections-per-ip", spec.max_connections_per_ip, CONNECTIONS);
    if per_ip.is_some_and(|per_ip| per_ip > total) {
        let text = format!("it is over max-connections, which is {total}, so it limits nothing");
        let remedy = format!("write at most {total}, or raise max-connections");
        mistakes.add(Origin::key("max-connections-per-ip"), text, remedy);
    }
    ConnectionLimits { total, per_ip }
}
