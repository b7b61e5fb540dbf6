//! Settings made by flags over those of a file: key by key, a list as a whole. A switch that is on in either is on.
//!
//! Each function adds the keys of the settings made by flags to `said`, so that a mistake in one is reported as one in
//! a flag.

use super::listen::{AccessSpec, ListenSpec, SocketSpec, TlsSpec};

pub(super) fn overlay_listening(said: &mut Vec<&'static str>, over: ListenSpec, under: &mut ListenSpec) {
    let ListenSpec {
        listen,
        sockets,
        access,
        tls,
    } = over;
    overlay(said, "listen", listen, &mut under.listen);
    overlay_sockets(said, sockets, &mut under.sockets);
    overlay_access(said, access, &mut under.access);
    overlay_tls(said, tls, &mut under.tls);
}

pub(super) fn overlay_sockets(said: &mut Vec<&'static str>, over: SocketSpec, under: &mut SocketSpec) {
    let SocketSpec {
        backlog,
        socket_mode,
        socket_owner,
        socket_group,
    } = over;
    overlay(said, "backlog", backlog, &mut under.backlog);
    overlay(said, "socket-mode", socket_mode, &mut under.socket_mode);
    overlay(said, "socket-owner", socket_owner, &mut under.socket_owner);
    overlay(said, "socket-group", socket_group, &mut under.socket_group);
}

pub(super) fn overlay_access(said: &mut Vec<&'static str>, over: AccessSpec, under: &mut AccessSpec) {
    let AccessSpec {
        allow,
        deny,
        accept_proxy,
        accept_proxy_optional,
        max_connections,
        max_connections_per_ip,
    } = over;
    let optional = &mut under.accept_proxy_optional;
    let per_ip = &mut under.max_connections_per_ip;
    overlay(said, "allow", allow, &mut under.allow);
    overlay(said, "deny", deny, &mut under.deny);
    overlay(said, "accept-proxy", accept_proxy, &mut under.accept_proxy);
    overlay(said, "accept-proxy-optional", accept_proxy_optional, optional);
    overlay(said, "max-connections", max_connections, &mut under.max_connections);
    overlay(said, "max-connections-per-ip", max_connections_per_ip, per_ip);
}

pub(super) fn overlay_tls(said: &mut Vec<&'static str>, over: TlsSpec, under: &mut TlsSpec) {
    let TlsSpec {
        cert,
        key,
        client_ca,
        allow_subject,
        min_tls,
    } = over;
    overlay(said, "cert", cert, &mut under.cert);
    overlay(said, "key", key, &mut under.key);
    overlay(said, "client-ca", client_ca, &mut under.client_ca);
    overlay(said, "allow-subject", allow_subject, &mut under.allow_subject);
    overlay(said, "min-tls", min_tls, &mut under.min_tls);
}

/// Overwrites `under` unless `over` is the default, which stands for absence in every field.
pub(super) fn overlay<T: Default + PartialEq>(said: &mut Vec<&'static str>, key: &'static str, over: T, under: &mut T) {
    if over != T::default() {
        said.push(key);
        *under = over;
    }
}
