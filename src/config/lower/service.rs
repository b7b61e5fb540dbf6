//! The services of a route door: the name of each becomes a [`Pattern`], and each [`ServiceSpec`] a [`Rule`] of the
//! door's table.
//!
//! A service is lowered separately from its door, because it has keys of its own and its mistakes are reported there;
//! only the settings that it does not have come from the door.

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::active_check::check;
use super::pool::TIMEOUT;
use super::tls::of_service;
use super::{KEY, KeyRef, Mistake, Mistakes, setting};
use crate::config::quote::Quoted;
use crate::config::spec::route::{self, HttpMode, SendProxy, ServerSpec, ServiceSpec};
use crate::config::units::Whole;
use crate::doors::front::options::TlsOptions;
use crate::doors::route::options::{
    Address, Balance, CATCH_ALL, EndedTls, LONGEST_SECRET, Pattern, ProxyVersion, Rule, Server, Servers, Target,
    Tunnel, TunnelSecret,
};
use crate::net::addr::{ServerAddr, ServerAddrError};

const PORT: RangeInclusive<u16> = 1..=u16::MAX;
/// The longest name of a protocol (RFC 7301 §3.1).
const LONGEST_PROTOCOL: usize = 255;
const DEFAULT_WEIGHT: u16 = 1;

/// The settings of a door that count for its services without such a setting.
#[derive(Debug, Clone, Default)]
pub struct ServiceDefaults {
    /// The longest time that one attempt to connect may take.
    pub(super) connect_timeout: Duration,
    /// The time without a byte after which a connection is cut, if it ever is.
    pub(super) idle_timeout: Option<Duration>,
    /// True if HTTP is sent on to https.
    pub(super) redirects_to_https: bool,
    /// True if each request of HTTP is judged.
    pub(super) judges_each_request: bool,
    /// The responder to challenges of ACME.
    pub(super) acme: Option<Arc<Servers>>,
    /// True if the door listens for TLS.
    pub(super) listens_for_tls: bool,
    /// True if the door listens for HTTP.
    pub(super) listens_for_http: bool,
    /// True if the door listens for tunnel clients.
    pub(super) listens_for_tunnels: bool,
    /// The header in front of each connection to a server.
    pub(super) send_proxy: Option<ProxyVersion>,
}

impl ServiceDefaults {
    /// Returns true if the door listens for HTTP.
    #[must_use]
    pub fn listens_for_http(&self) -> bool {
        self.listens_for_http
    }

    /// Returns true if the door listens for tunnel clients.
    #[must_use]
    pub fn listens_for_tunnels(&self) -> bool {
        self.listens_for_tunnels
    }
}

/// A service, or one of its entries.
#[derive(Debug, Clone, PartialEq)]
pub struct LoweredService {
    /// The rule for the table.
    pub rule: Rule,
    /// The settings of the TLS that ends at the door, under the name that the rule has for them.
    pub tls: Option<(Arc<str>, TlsOptions)>,
}

/// Reads the name of a service.
///
/// # Errors
/// The mistake in it, with its remedy.
pub fn service_name(name: &str) -> Result<Pattern, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("{} cannot be the name of a service: {why}", Quoted(name));
    if name != CATCH_ALL && name.eq_ignore_ascii_case(CATCH_ALL) {
        let why = "the service for all other names is written in capitals; write";
        return Err(wrong(&format!("{why} {CATCH_ALL}")));
    }
    let is_address = name.parse::<Ipv6Addr>().is_ok();
    if !is_address && name.contains([':', '/', '[']) {
        let why = "it is the name that a client asks for, without a scheme, a port or a path; write for example";
        return Err(wrong(&format!("{why} www.example.org")));
    }
    if !name.is_ascii() {
        let why = "a name with other letters stands here in the form in which it is sent; write the one that begins with xn--";
        return Err(wrong(&why));
    }
    name.parse::<Pattern>().map_err(|error| {
        wrong(&format!(
            "{error}; write for example www.example.org, *.example.org or {CATCH_ALL}"
        ))
    })
}

/// Returns the rule of a service of the store, which has no settings but its servers. Its target is replaced by them.
pub(super) fn rule_of_store(defaults: &ServiceDefaults) -> Rule {
    Rule {
        alpn: None,
        tls: None,
        target: Target::Servers { tls: None, http: None },
        acme: defaults.acme.clone(),
        redirects_to_https: defaults.redirects_to_https,
        judges_each_request: defaults.judges_each_request,
        connect_timeout: defaults.connect_timeout,
        idle_timeout: defaults.idle_timeout,
        send_proxy: defaults.send_proxy,
        check: None,
        program: None,
    }
}

/// Lowers one service, or one of the entries of a service, whose name within the door is `id`. `is_whole` is true if the
/// spec holds all settings that were
/// written: if not, the missing ones were reported as mistakes already, and must not cause a second one.
///
/// # Errors
/// All mistakes in its settings. Those of its name are found by [`service_name`].
pub fn service(
    id: &str,
    spec: &ServiceSpec,
    is_whole: bool,
    defaults: &ServiceDefaults,
) -> Result<LoweredService, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let tls = tls(&mut mistakes, id, spec, is_whole, defaults);
    let ended = tls.as_ref().map(|(server, tls)| EndedTls {
        server: Arc::clone(server),
        asks_clients: tls.clients.is_some(),
    });
    let connect_timeout = mistakes.time("connect-timeout", spec.connect_timeout, &TIMEOUT);
    if spec.redirect_https == Some(true) && !defaults.listens_for_tls && is_whole {
        add_without_tls(&mut mistakes);
    }
    if spec.replace.is_some() && spec.client_secret.is_none() && is_whole {
        let remedy = format!("write {KEY}client-secret as well, or leave it out");
        mistakes.add(KeyRef::key("replace"), "no tunnel client serves this name", remedy);
    }
    let target = target(&mut mistakes, spec, is_whole);
    let rule = Rule {
        alpn: alpn(&mut mistakes, spec.alpn.as_deref()),
        tls: ended,
        check: check(&mut mistakes, spec, &target, is_whole),
        target,
        acme: acme(&mut mistakes, spec.acme_addr.as_deref()).or_else(|| defaults.acme.clone()),
        redirects_to_https: spec.redirect_https.unwrap_or(defaults.redirects_to_https),
        judges_each_request: judges_each_request(spec.http, defaults.judges_each_request),
        connect_timeout: connect_timeout.unwrap_or(defaults.connect_timeout),
        idle_timeout: mistakes.limit("idle-timeout", spec.idle_timeout, defaults.idle_timeout),
        send_proxy: send_proxy(spec.send_proxy, defaults.send_proxy),
        program: None,
    };
    mistakes.into_result(LoweredService { rule, tls })
}

/// Returns the settings of the TLS that ends at the door, under the name of the service.
fn tls(
    mistakes: &mut Mistakes,
    id: &str,
    spec: &ServiceSpec,
    is_whole: bool,
    defaults: &ServiceDefaults,
) -> Option<(Arc<str>, TlsOptions)> {
    let tls = spec.tls.as_ref()?;
    if !defaults.listens_for_tls && is_whole {
        let text = "the door does not listen for TLS, so none ends here";
        let remedy = format!("write {KEY}tls-listen as well, for example *:443");
        mistakes.add(KeyRef::key("tls"), text, remedy);
    }
    if spec.tls_port.is_some() && spec.door.is_none() {
        let text = "TLS ends at this door, and servers are reached without it";
        let remedy = format!("write {KEY}http-port, or leave {KEY}tls out");
        mistakes.add(KeyRef::key("tls-port"), text, remedy);
    }
    let options = of_service(mistakes, &tls.to_spec(), spec.alpn.as_deref());
    Some((id.into(), options))
}

/// Returns true if each request of HTTP is judged.
pub(super) fn judges_each_request(given: Option<HttpMode>, default: bool) -> bool {
    match given {
        None => default,
        Some(HttpMode::PerConnection) => false,
        Some(HttpMode::PerRequest) => true,
    }
}

/// Returns the version of the header that servers get.
pub(super) fn send_proxy(given: Option<SendProxy>, default: Option<ProxyVersion>) -> Option<ProxyVersion> {
    match given {
        None => default,
        Some(SendProxy::None) => None,
        Some(SendProxy::V1) => Some(ProxyVersion::One),
        Some(SendProxy::V2) => Some(ProxyVersion::Two),
    }
}

/// Returns the name of the protocol that a client must offer.
fn alpn(mistakes: &mut Mistakes, protocol: Option<&str>) -> Option<Box<[u8]>> {
    let protocol = protocol?;
    if protocol.is_empty() || protocol.len() > LONGEST_PROTOCOL {
        let text = format!("the name of a protocol has 1 to {LONGEST_PROTOCOL} bytes");
        mistakes.add(KeyRef::key("alpn"), text, "write for example h2 or postgresql");
    }
    Some(protocol.as_bytes().into())
}

/// Adds the mistake that clients are sent on to a door without a listener for TLS.
pub(super) fn add_without_tls(mistakes: &mut Mistakes) {
    let text = "the door does not listen for TLS, so clients cannot come by https";
    let remedy = format!("write {KEY}tls-listen as well, for example *:443");
    mistakes.add(KeyRef::key("redirect-https"), text, remedy);
}

/// Reads the address of a responder to challenges of ACME.
pub(super) fn acme(mistakes: &mut Mistakes, text: Option<&str>) -> Option<Arc<Servers>> {
    let address = place(text?).and_then(|place| match place {
        Place::Socket(address) => Ok(address),
        Place::Host(host, Some(port)) => Ok(Address::Network { host, port }),
        Place::Host(_, None) => Err("its port is missing".to_owned()),
    });
    match address {
        Ok(address) => {
            let weight = DEFAULT_WEIGHT;
            let (list, balance) = ([Server { address, weight }].into(), Balance::default());
            Some(Arc::new(Servers { list, balance }))
        }
        Err(error) => {
            let otherwise = "write for example 127.0.0.1:8402 or unix:/run/acme.sock";
            mistakes.add_error(KeyRef::key("acme-addr"), &error, otherwise);
            None
        }
    }
}

/// One server as written.
struct Written {
    origin: KeyRef,
    place: Place,
    weight: u16,
}

/// The place of a server.
pub(super) enum Place {
    /// A UNIX socket, which has no port.
    Socket(Address),
    /// A host, and the port behind it, if there is one.
    Host(Box<str>, Option<u16>),
}

fn target(mistakes: &mut Mistakes, spec: &ServiceSpec, is_whole: bool) -> Target {
    match (&spec.door, &spec.client_secret) {
        (Some(door), _) => {
            check_idle(mistakes, spec, door);
            Target::Door(door.as_str().into())
        }
        (None, Some(secret)) => match TunnelSecret::new(secret.reveal().as_bytes()) {
            Some(secret) => Target::Tunnel(Tunnel {
                secret,
                takes_newest_alone: spec.replace.unwrap_or(false),
            }),
            None => {
                // Without the text.
                let text = format!("a secret has 1 to {LONGEST_SECRET} bytes");
                mistakes.add(KeyRef::key("client-secret"), text, "write that of the tunnel client");
                Target::Servers { tls: None, http: None }
            }
        },
        (None, None) => to_servers(mistakes, spec, is_whole),
    }
}

/// Adds a mistake for each setting of servers beside a door: it counts for nothing.
fn check_idle(mistakes: &mut Mistakes, spec: &ServiceSpec, door: &str) {
    let said = [
        ("addr", spec.addr.is_some()),
        ("addrs", !spec.addrs.is_empty()),
        ("tls-port", spec.tls_port.is_some()),
        ("http-port", spec.http_port.is_some()),
        ("client-secret", spec.client_secret.is_some()),
        ("replace", spec.replace.is_some() && spec.client_secret.is_some()),
        ("balance", spec.balance.is_some()),
        ("connect-timeout", spec.connect_timeout.is_some()),
        ("idle-timeout", spec.idle_timeout.is_some()),
        ("send-proxy", spec.send_proxy.is_some()),
        ("http", spec.http.is_some()),
        ("check", spec.check.is_some()),
    ];
    for (key, _) in said.into_iter().filter(|(_, said)| *said) {
        let text = format!(
            "connections go to the door {} of this process, and to no server",
            Quoted(door)
        );
        mistakes.add(
            KeyRef::key(key),
            text,
            format!("leave out one of {KEY}{key} and {KEY}door"),
        );
    }
}

fn to_servers(mistakes: &mut Mistakes, spec: &ServiceSpec, is_whole: bool) -> Target {
    let written = servers(mistakes, spec);
    if written.is_empty() && spec.addr.is_none() && spec.addrs.is_empty() && is_whole {
        let remedy = format!(
            "write for example {} and {}",
            setting("addr", "10.0.0.5"),
            example_of_port(spec)
        );
        mistakes.add(KeyRef::key("addr"), "no server is named", remedy);
    }
    let tls_port = mistakes.count("tls-port", spec.tls_port, PORT);
    let http_port = mistakes.count("http-port", spec.http_port, PORT);
    for server in &written {
        check_port(mistakes, server, (tls_port, http_port), example_of_port(spec), is_whole);
    }
    if !written.is_empty() && written.iter().all(|server| server.weight == 0) {
        let remedy = "give one of them a weight of 1 or more";
        mistakes.add(
            KeyRef::key("addrs"),
            "every weight is 0, so no server gets a connection",
            remedy,
        );
    }
    let balance = match spec.balance {
        None | Some(route::Balance::RoundRobin) => Balance::RoundRobin,
        Some(route::Balance::LeastConnections) => Balance::LeastConnections,
        Some(route::Balance::Sticky) => Balance::Sticky,
    };
    let mut twice = HashSet::new();
    let has_ports = tls_port.is_some() || http_port.is_some();
    let mut way = |port: Option<u16>| {
        let list = reached(&written, port, port.is_some() || !has_ports, &mut twice);
        let servers = Servers { list, balance };
        (!servers.list.is_empty()).then(|| Arc::new(servers))
    };
    let (mut tls, http) = (way(tls_port), way(http_port));
    if spec.tls.is_some() {
        tls = None;
    }
    for (_, server) in written.iter().enumerate().filter(|(index, _)| twice.contains(index)) {
        mistakes.add(
            server.origin,
            "this server is in the list already",
            "leave it out, or raise its weight",
        );
    }
    Target::Servers { tls, http }
}

/// Returns the example of a port for the servers of a service.
fn example_of_port(spec: &ServiceSpec) -> &'static str {
    match spec.tls {
        Some(_) => "http-port = 80",
        None => "tls-port = 443",
    }
}

/// Reads the servers of `addr` or `addrs`, except those with a mistake.
fn servers(mistakes: &mut Mistakes, spec: &ServiceSpec) -> Vec<Written> {
    if spec.addr.is_some() && !spec.addrs.is_empty() {
        let remedy = format!("write every server in {KEY}addrs, and leave {KEY}addr out");
        mistakes.add(KeyRef::key("addr"), format!("there is {KEY}addrs as well"), remedy);
    }
    let one = spec.addr.iter().map(|text| (KeyRef::key("addr"), &**text, None));
    let several = spec.addrs.iter().enumerate().map(|(index, server)| {
        let origin = KeyRef::element("addrs", index);
        match server {
            ServerSpec::Address(text) => (origin, &**text, None),
            ServerSpec::Weighted(server) => (origin, &*server.addr, server.weight),
        }
    });
    let mut written = Vec::new();
    for (origin, text, weight) in one.chain(several) {
        let weight = weight.map_or(DEFAULT_WEIGHT, |Whole(weight)| {
            u16::try_from(weight).unwrap_or_else(|_| {
                let remedy = format!("write a weight from 0 to {}", u16::MAX);
                mistakes.add(origin, format!("the weight {weight} is out of range"), remedy);
                DEFAULT_WEIGHT
            })
        });
        match place(text) {
            Ok(place) => written.push(Written { origin, place, weight }),
            Err(error) => mistakes.add_error(
                origin,
                &error,
                "write for example 10.0.0.5, 10.0.0.5:443 or unix:/run/web",
            ),
        }
    }
    written
}

/// Reads `HOST`, `HOST:PORT`, `IPV6`, `[IPV6]`, `[IPV6]:PORT` or the address of a UNIX socket.
pub(super) fn place(text: &str) -> Result<Place, String> {
    match text.parse::<ServerAddr>() {
        Ok(ServerAddr::Tcp { host, port }) => Ok(Place::Host(host.into(), port)),
        Ok(ServerAddr::Unix(socket)) => {
            let name = socket.to_string();
            let name = name.strip_prefix("unix:").unwrap_or(&name);
            Ok(Place::Socket(Address::Unix(name.into())))
        }
        Err(ServerAddrError::Url) => {
            Err("it is a URL; write the host and the port alone, such as 10.0.0.5:443".to_owned())
        }
        Err(ServerAddrError::Number) => Err(format!("{} is no address of a server", Quoted(text))),
        Err(ServerAddrError::NoIp(host)) => Err(format!(
            "{} is no IP address; write one such as 10.0.0.5",
            Quoted(&host)
        )),
        Err(ServerAddrError::Address(error)) => Err(error.to_string()),
    }
}

/// Adds a mistake for a server that has no port, or a port that counts for nothing.
fn check_port(
    mistakes: &mut Mistakes,
    server: &Written,
    (tls, http): (Option<u16>, Option<u16>),
    example: &str,
    is_whole: bool,
) {
    let Place::Host(_, port) = &server.place else {
        return;
    };
    match (*port, tls, http) {
        (None, None, None) if is_whole => {
            let remedy = format!("write {KEY}{example} as well, or a port behind the address");
            mistakes.add(server.origin, "it is not said at which port the server listens", remedy);
        }
        (Some(port), Some(tls), Some(http)) if port != tls && port != http => {
            let text =
                format!("its port {port} counts for nothing: {KEY}tls-port and {KEY}http-port are written as well");
            mistakes.add(server.origin, text, "leave one of the ports out");
        }
        _ => {}
    }
}

/// Returns the servers that are reached by a way into the service: those with a port, which is `port` if that is
/// written, else the one behind the address; and `with_sockets` UNIX sockets. The indices of servers that are there a
/// second time are added to `twice`.
fn reached(written: &[Written], port: Option<u16>, with_sockets: bool, twice: &mut HashSet<usize>) -> Box<[Server]> {
    let mut seen = HashSet::new();
    let mut list = Vec::with_capacity(written.len());
    for (index, server) in written.iter().enumerate() {
        let address = match &server.place {
            Place::Socket(address) if with_sockets => address.clone(),
            Place::Socket(_) => continue,
            Place::Host(host, own) => match port.or(*own) {
                Some(port) => Address::Network {
                    host: host.clone(),
                    port,
                },
                None => continue,
            },
        };
        if !seen.insert(address.clone()) {
            twice.insert(index);
        }
        list.push(Server {
            address,
            weight: server.weight,
        });
    }
    list.into()
}
