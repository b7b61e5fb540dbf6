//! The options of a route door: [`RouteSpec`] becomes [`Options`].
//!
//! The services are lowered before ([`service`](mod@super::service)), with the [defaults](service_defaults) of the door.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::exec::DEFAULT_STOP_TIMEOUT;
use super::listen::{
    Listening, MACHINE, access, add_addresses, backlog, connection_limits, limit_kind, proxies, unix_socket,
};
use super::pool::TIMEOUT;
use super::service::{ServiceDefaults, acme, add_without_tls, judges_each_request, rule_of_store, send_proxy};
use super::start::Programs;
use super::tls::tls;
use super::{KeyRef, Lowered, Mistake, Mistakes, SHORTEST_TIMEOUT};
use crate::config::spec::route::RouteSpec;
use crate::doors::front::options::TlsOptions;
use crate::doors::route::options::{HTTP, Options, StoreOptions, StoreSettings, TLS, TUNNEL, Table, Target, subjects};
use crate::net::addr::{Listen, Mark, Transport};

const DEFAULT_HELLO_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
const DEFAULT_RESOLVE_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_TUNNEL_PING: Duration = Duration::from_secs(30);
const DEFAULT_TUNNEL_PING_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_TUNNEL_WAIT: Duration = Duration::from_secs(10);
const DEFAULT_OLD_GENERATION_TIMEOUT: Duration = Duration::from_secs(3600);

/// A client whose hello takes longer holds memory for nothing.
const HELLO_TIMEOUT: RangeInclusive<Duration> = SHORTEST_TIMEOUT..=Duration::from_secs(600);
/// Pings that are more frequent would be traffic of their own.
const TUNNEL_PING: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// The keys of the listeners.
const TLS_LISTEN: &str = "tls-listen";
const HTTP_LISTEN: &str = "http-listen";
const TUNNEL_LISTEN: &str = "tunnel-listen";

/// The services of a route door, which are lowered before it.
#[derive(Debug, Default)]
pub struct Services {
    /// The services of its file.
    pub table: Table,
    /// The settings of the TLS that ends at the door for some of them, under the names that they have there.
    pub tls: BTreeMap<Arc<str>, TlsOptions>,
    /// The programs that they name.
    pub programs: Programs,
    /// The store of others.
    pub store: Option<StoreSettings>,
}

/// Lowers one route door with its services. `is_whole` is true if the spec holds all settings that were
/// written: if not, the missing ones were reported as mistakes already, and must not cause a second one.
///
/// # Errors
/// All mistakes in the settings of the door itself.
pub fn route(
    name: &str,
    spec: &RouteSpec,
    services: Services,
    is_whole: bool,
) -> Result<Lowered<Options>, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let written = [&spec.tls_listen[..], &spec.http_listen, &spec.tunnel_listen].concat();
    let addresses = addresses(&mut mistakes, spec, is_whole);
    let listening = Listening {
        tls: tls_of_tunnels(&mut mistakes, spec, &addresses),
        addresses,
        unix_socket: unix_socket(&mut mistakes, &spec.sockets, TLS_LISTEN, &written),
        backlog: backlog(&mut mistakes, &spec.sockets, &MACHINE),
        access: access(&mut mistakes, &spec.access),
        proxies: proxies(&mut mistakes, &spec.access),
        connection_limits: connection_limits(&mut mistakes, &spec.access, &MACHINE),
    };
    let hello_timeout = mistakes.time("hello-timeout", spec.hello_timeout, &HELLO_TIMEOUT);
    let stop_timeout = mistakes.time("stop-timeout", spec.stop_timeout, &TIMEOUT);
    let old_generation_timeout = mistakes.time("old-generation-timeout", spec.old_generation_timeout, &TIMEOUT);
    let resolve_interval = mistakes.time("resolve-interval", spec.resolve_interval, &TIMEOUT);
    let tunnel_ping = mistakes.time("tunnel-ping", spec.tunnel_ping, &TUNNEL_PING);
    let tunnel_ping_timeout = mistakes.time("tunnel-ping-timeout", spec.tunnel_ping_timeout, &TIMEOUT);
    let tunnel_wait = mistakes.limit("tunnel-wait", spec.tunnel_wait, Some(DEFAULT_TUNNEL_WAIT));
    let rule = rule_of_store(&defaults(&mut mistakes, spec));
    if spec.redirect_https && spec.tls_listen.is_empty() && is_whole {
        add_without_tls(&mut mistakes);
    }
    let stop_timeout = stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT);
    let (mut front, listen) = listening.into_front(name, limit_kind(&spec.access), stop_timeout);
    let own = Arc::make_mut(&mut front);
    own.old_generation_timeout = Some(old_generation_timeout.unwrap_or(DEFAULT_OLD_GENERATION_TIMEOUT));
    own.named_tls = services.tls;
    let options = Options {
        front,
        targets: Arc::new(targets(&services.table)),
        checks: subjects(&services.table).into(),
        table: Arc::new(services.table),
        programs: services.programs.into_list(),
        store: services.store.map(|settings| StoreOptions { settings, rule }),
        hello_timeout: hello_timeout.unwrap_or(DEFAULT_HELLO_TIMEOUT),
        resolve_interval: resolve_interval.unwrap_or(DEFAULT_RESOLVE_INTERVAL),
        tunnel_ping: tunnel_ping.unwrap_or(DEFAULT_TUNNEL_PING),
        tunnel_ping_timeout: tunnel_ping_timeout.unwrap_or(DEFAULT_TUNNEL_PING_TIMEOUT),
        tunnel_wait: tunnel_wait.unwrap_or_default(),
        log_connections: spec.log_connections,
        debug: spec.debug,
    };
    mistakes.into_result(Lowered { options, listen })
}

/// Returns the settings of a door that count for its services. A wrong one has its default; [`route`] reports it.
#[must_use]
pub fn service_defaults(spec: &RouteSpec) -> ServiceDefaults {
    defaults(&mut Mistakes::default(), spec)
}

/// Returns the doors that services name.
fn targets(table: &Table) -> BTreeSet<Arc<str>> {
    let rules = table.services().flat_map(|service| &service.rules);
    let doors = rules.filter_map(|rule| match &rule.target {
        Target::Door(door) => Some(Arc::clone(door)),
        Target::Servers { .. } | Target::Tunnel(_) => None,
    });
    doors.collect()
}

fn defaults(mistakes: &mut Mistakes, spec: &RouteSpec) -> ServiceDefaults {
    let connect_timeout = mistakes.time("connect-timeout", spec.connect_timeout, &TIMEOUT);
    ServiceDefaults {
        connect_timeout: connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        idle_timeout: mistakes.limit("idle-timeout", spec.idle_timeout, Some(DEFAULT_IDLE_TIMEOUT)),
        redirects_to_https: spec.redirect_https,
        judges_each_request: judges_each_request(spec.http, false),
        acme: acme(mistakes, spec.acme_addr.as_deref()),
        listens_for_tls: !spec.tls_listen.is_empty(),
        listens_for_http: !spec.http_listen.is_empty(),
        listens_for_tunnels: !spec.tunnel_listen.is_empty(),
        send_proxy: send_proxy(spec.send_proxy, None),
    }
}

fn addresses(mistakes: &mut Mistakes, spec: &RouteSpec, is_whole: bool) -> Vec<(KeyRef, Listen)> {
    let mut addresses = Vec::new();
    add_addresses(mistakes, &mut addresses, TLS_LISTEN, &spec.tls_listen);
    mark(&mut addresses, 0, TLS);
    let first = addresses.len();
    add_addresses(mistakes, &mut addresses, HTTP_LISTEN, &spec.http_listen);
    mark(&mut addresses, first, HTTP);
    let first = addresses.len();
    add_addresses(mistakes, &mut addresses, TUNNEL_LISTEN, &spec.tunnel_listen);
    mark(&mut addresses, first, TUNNEL);
    for (origin, listen) in addresses
        .iter()
        .filter(|(_, listen)| listen.transport == Transport::Tls && listen.mark != TUNNEL)
    {
        let text = format!(
            "with tls: in front the TLS of {} would end at the door, which has no certificate",
            listen.address
        );
        let remedy = match listen.mark {
            HTTP => format!("write {} for HTTP in the clear", listen.address),
            _ => format!(
                "write {}: TLS goes through to the server, or ends where a service says so with tls",
                listen.address
            ),
        };
        mistakes.add(*origin, text, remedy);
    }
    if spec.tls_listen.is_empty() && spec.http_listen.is_empty() && is_whole {
        mistakes.add(
            KeyRef::key(TLS_LISTEN),
            "there is no address to listen on",
            "write for example *:443",
        );
    }
    addresses
}

/// Returns the settings of TLS for tunnel clients. Those of other clients pass the door in their own TLS.
fn tls_of_tunnels(mistakes: &mut Mistakes, spec: &RouteSpec, addresses: &[(KeyRef, Listen)]) -> Option<TlsOptions> {
    let of_tunnels = addresses.iter().filter(|(_, listen)| listen.mark == TUNNEL);
    let of_tunnels: Vec<_> = of_tunnels.cloned().collect();
    let proxies = proxies(&mut Mistakes::default(), &spec.access);
    let written = (TUNNEL_LISTEN, &spec.tunnel_listen[..]);
    tls(mistakes, &spec.tls, written, &of_tunnels, &proxies)
}

/// Gives the listeners from this one on a mark.
fn mark(addresses: &mut [(KeyRef, Listen)], first: usize, mark: Mark) {
    for (_, listen) in addresses.iter_mut().skip(first) {
        listen.mark = mark;
    }
}
