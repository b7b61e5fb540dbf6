//! The settings of a route door as written: `iotcpd route [flags]`, a table `[route.NAME]` of a file, the table
//! `[server]` of a router.toml; of one of its services: a table `[route.NAME.services."www.example.org"]`; and of its
//! store: a table `[route.NAME.store]`.

use std::fmt;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::listen::{AccessSpec, MinTls, SocketSpec, TlsSpec};
use super::overlay::{overlay, overlay_access, overlay_sockets, overlay_tls};
use super::process::ProcessSpec;
pub use super::store::{StoreKind, StoreSpec};
use crate::config::units::{Time, Whole};

/// All settings of a route door, except its services.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct RouteSpec {
    /// The addresses of clients that speak TLS with a server; each in the syntax of `net::addr`.
    // The help is not the doc comment, because rustdoc takes an IPv6 address in brackets for a link.
    #[arg(
        long,
        value_name = "ADDR",
        help_heading = "Where clients connect",
        help = "Listen here for TLS, which goes to the server that its name belongs to; may be repeated. One of \
                127.0.0.1:443, [::1]:443, *:443 (IPv4 and IPv6), unix:/run/iotcpd.sock, unix:@NAME (abstract), systemd \
                (sockets handed over), systemd:NAME"
    )]
    pub tls_listen: Vec<String>,

    /// The addresses of clients that speak HTTP; each in the syntax of `net::addr`.
    // For the same reason.
    #[arg(
        long,
        value_name = "ADDR",
        help_heading = "Where clients connect",
        help = "Listen here for HTTP, which goes to the server that the name in its Host belongs to; may be repeated. \
                Written as for --tls-listen, for example *:80"
    )]
    pub http_listen: Vec<String>,

    /// The addresses of tunnel clients; each in the syntax of `net::addr`.
    #[arg(
        long,
        value_name = "ADDR",
        help_heading = "Where clients connect",
        help = "Listen here for tunnel clients, which serve the names with their client-secret; may be repeated. Written \
                as for --tls-listen, for example *:18000; with tls: in front, as in tls:*:18000, they speak TLS there"
    )]
    pub tunnel_listen: Vec<String>,

    /// The settings of the sockets.
    #[command(flatten)]
    #[serde(flatten)]
    pub sockets: SocketSpec,
    /// The clients that may connect.
    #[command(flatten)]
    #[serde(flatten)]
    pub access: AccessSpec,
    /// The settings of the `tls:` addresses, which are those of tunnel clients.
    #[command(flatten)]
    #[serde(flatten)]
    pub tls: TlsSpec,

    /// How long a client may take until the name of its server has come [default: 10s]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub hello_timeout: Option<Time>,
    /// How long one attempt to connect to a server may take [default: 5s]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub connect_timeout: Option<Time>,
    /// How long the addresses of a server that is named by its host are good [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub resolve_interval: Option<Time>,
    /// A connection on which neither side sends a byte for this time is cut; 0: it may stay as long as it likes [default: 1h]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub idle_timeout: Option<Time>,
    /// The header of the PROXY protocol in front of each connection to a server, which names the client [default: none]
    #[arg(long, value_name = "VERSION", help_heading = "Connections")]
    pub send_proxy: Option<SendProxy>,
    /// How often a tunnel client is asked for a sign of life through its tunnel [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub tunnel_ping: Option<Time>,
    /// A tunnel whose client does not answer for this time is given up [default: 10s]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub tunnel_ping_timeout: Option<Time>,
    /// How long connections for a service wait for a tunnel client of it, after the last one has left and after the start of
    /// the daemon; 0: not at all [default: 10s]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub tunnel_wait: Option<Time>,
    /// How long connections may go on once the daemon is told to stop [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub stop_timeout: Option<Time>,
    /// How long connections may go on once a successor has taken over [default: 1h]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub old_generation_timeout: Option<Time>,
    /// What is decided by a request of HTTP/1: where its connection goes, or, with per-request, that each one on it may
    /// go there: others are answered by 421 [default: per-connection]
    #[arg(long, value_name = "MODE", help_heading = "Connections")]
    pub http: Option<HttpMode>,
    /// Send HTTP on to the same address by https, at the port of --tls-listen
    #[arg(long, help_heading = "Connections")]
    pub redirect_https: bool,
    /// The server that challenges of ACME go to, which certificates are got by (acme-tls/1, and
    /// /.well-known/acme-challenge/ over HTTP) [default: as all else]
    #[arg(long, value_name = "ADDR", help_heading = "Connections")]
    pub acme_addr: Option<String>,
    /// Log each connection at its end
    #[arg(long, help_heading = "Connections")]
    pub log_connections: bool,
    /// Log each step of a connection
    #[arg(short, long, help_heading = "Connections")]
    pub debug: bool,
}

impl RouteSpec {
    /// Overwrites settings in `under` with the settings made here: key by key, a list as a whole. A switch that is on
    /// in either is on. Returns the keys of the settings made here.
    pub fn overlay_onto(self, under: &mut RouteSpec) -> Vec<&'static str> {
        let RouteSpec {
            tls_listen,
            http_listen,
            tunnel_listen,
            sockets,
            access,
            tls,
            hello_timeout,
            connect_timeout,
            resolve_interval,
            idle_timeout,
            send_proxy,
            tunnel_ping,
            tunnel_ping_timeout,
            tunnel_wait,
            stop_timeout,
            old_generation_timeout,
            http,
            redirect_https,
            acme_addr,
            log_connections,
            debug,
        } = self;
        let mut said = Vec::new();
        let of_old = &mut under.old_generation_timeout;
        overlay(&mut said, "tls-listen", tls_listen, &mut under.tls_listen);
        overlay(&mut said, "http-listen", http_listen, &mut under.http_listen);
        overlay(&mut said, "tunnel-listen", tunnel_listen, &mut under.tunnel_listen);
        overlay_sockets(&mut said, sockets, &mut under.sockets);
        overlay_access(&mut said, access, &mut under.access);
        overlay_tls(&mut said, tls, &mut under.tls);
        overlay(&mut said, "hello-timeout", hello_timeout, &mut under.hello_timeout);
        overlay(
            &mut said,
            "connect-timeout",
            connect_timeout,
            &mut under.connect_timeout,
        );
        overlay(
            &mut said,
            "resolve-interval",
            resolve_interval,
            &mut under.resolve_interval,
        );
        overlay(&mut said, "idle-timeout", idle_timeout, &mut under.idle_timeout);
        overlay(&mut said, "send-proxy", send_proxy, &mut under.send_proxy);
        overlay(&mut said, "stop-timeout", stop_timeout, &mut under.stop_timeout);
        overlay(&mut said, "old-generation-timeout", old_generation_timeout, of_old);
        overlay(&mut said, "http", http, &mut under.http);
        overlay(&mut said, "redirect-https", redirect_https, &mut under.redirect_https);
        overlay(&mut said, "acme-addr", acme_addr, &mut under.acme_addr);
        overlay_notes(&mut said, [log_connections, debug], under);
        overlay_tunnels(&mut said, [tunnel_ping, tunnel_ping_timeout, tunnel_wait], under);
        said
    }
}

fn overlay_notes(said: &mut Vec<&'static str>, [log_connections, debug]: [bool; 2], under: &mut RouteSpec) {
    overlay(said, "log-connections", log_connections, &mut under.log_connections);
    overlay(said, "debug", debug, &mut under.debug);
}

fn overlay_tunnels(said: &mut Vec<&'static str>, over: [Option<Time>; 3], under: &mut RouteSpec) {
    let [ping, timeout, wait] = over;
    overlay(said, "tunnel-ping", ping, &mut under.tunnel_ping);
    overlay(said, "tunnel-ping-timeout", timeout, &mut under.tunnel_ping_timeout);
    overlay(said, "tunnel-wait", wait, &mut under.tunnel_wait);
}

/// All settings of one service. They are never flags; the clap definition lists the known keys.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ServiceSpec {
    /// The server: HOST, HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub addr: Option<String>,
    /// Several servers, each as addr, or with a weight
    #[arg(long, value_name = "ADDR")]
    pub addrs: Vec<ServerSpec>,
    /// The TLS that clients speak with this door, which passes what they say on without it [default: none, it goes through]
    #[arg(long, value_name = "TABLE")]
    pub tls: Option<ServiceTls>,
    /// Another door of this file, which is handed the connections instead
    #[arg(long, value_name = "NAME")]
    pub door: Option<String>,
    /// How one of several servers is chosen [default: round-robin]
    #[arg(long, value_name = "RULE")]
    pub balance: Option<Balance>,
    /// The port of the servers for TLS [default: the port in the address]
    #[arg(long, value_name = "PORT")]
    pub tls_port: Option<Whole>,
    /// The port of the servers for HTTP [default: the port in the address]
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<Whole>,
    /// In place of a server, the secret of the tunnel clients that serve the name
    #[arg(long, value_name = "SECRET")]
    pub client_secret: Option<Hidden>,
    /// The tunnel client that has come last serves alone, as with tcprouter [default: all with the secret share the
    /// connections]
    #[arg(long, value_name = "TRUE")]
    pub replace: Option<bool>,
    /// The protocol that a client must offer (ALPN) to come here; the others come to the next entry of the same name
    /// [default: any]
    #[arg(long, value_name = "PROTOCOL")]
    pub alpn: Option<String>,
    /// What is decided by a request of HTTP/1: the way of its connection, or of itself [default: the door's]
    #[arg(long, value_name = "MODE")]
    pub http: Option<HttpMode>,
    /// Send HTTP on to the same address by https [default: the door's]
    #[arg(long, value_name = "TRUE")]
    pub redirect_https: Option<bool>,
    /// The server that challenges of ACME go to [default: the door's]
    #[arg(long, value_name = "ADDR")]
    pub acme_addr: Option<String>,
    /// How long one attempt to connect to a server may take [default: the door's]
    #[arg(long, value_name = "TIME")]
    pub connect_timeout: Option<Time>,
    /// A connection on which neither side sends a byte for this time is cut; 0: never [default: the door's]
    #[arg(long, value_name = "TIME")]
    pub idle_timeout: Option<Time>,
    /// The header of the PROXY protocol in front of each connection to a server [default: the door's]
    #[arg(long, value_name = "VERSION")]
    pub send_proxy: Option<SendProxy>,
    /// Ask the servers all the time whether they are there: tcp, by a connection; or the path of a page that must be
    /// answered well by HTTP [default: not asked]
    #[arg(long, value_name = "CHECK")]
    pub check: Option<String>,
    /// How often a server is asked [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub check_interval: Option<Time>,
    /// How long an answer may take [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub check_timeout: Option<Time>,
    /// The port that is asked [default: that of the servers]
    #[arg(long, value_name = "PORT")]
    pub check_port: Option<Whole>,
    /// The program that listens at the address of the server, and is started by the first connection [default: the
    /// server is there]
    #[arg(long, value_name = "CMD")]
    pub start: Option<String>,
    /// How long the program may take until it listens [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub ready_timeout: Option<Time>,
    /// The program is ended when it was without a connection for this time; 0: never [default: 5m]
    #[arg(long, value_name = "TIME")]
    pub idle: Option<Time>,
    /// From TERM to KILL for a program that does not end [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub kill_timeout: Option<Time>,

    /// The environment and the limits of the program.
    #[command(flatten)]
    #[serde(flatten)]
    pub process: ProcessSpec,
}

/// A text that is shown nowhere, not even for debugging.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The conversion that clap requires of the type of an option.
impl From<&str> for Hidden {
    fn from(text: &str) -> Self {
        Hidden(text.to_owned())
    }
}

/// The value of [`tls`](ServiceSpec::tls): what the flags of a listener with TLS say.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServiceTls {
    /// The certificates.
    pub cert: OneOrMore,
    /// Their keys.
    pub key: OneOrMore,
    /// The authorities that clients must have their certificates from.
    #[serde(alias = "client_ca")]
    pub client_ca: Option<String>,
    /// The names of which the certificate of a client must have one.
    #[serde(alias = "allow_subject")]
    pub allow_subject: OneOrMore,
    /// The oldest version.
    #[serde(alias = "min_tls")]
    pub min_tls: Option<MinTls>,
}

/// A text, or a list of texts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "this is no name of a file; write one in quotes, or a list of them"
)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Any number.
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        OneOrMore::More(Vec::new())
    }
}

impl OneOrMore {
    fn to_list(&self) -> Vec<String> {
        match self {
            OneOrMore::One(text) => vec![text.clone()],
            OneOrMore::More(texts) => texts.clone(),
        }
    }
}

impl ServiceTls {
    /// Returns the same settings in the form that they have for listeners.
    #[must_use]
    pub fn to_spec(&self) -> TlsSpec {
        TlsSpec {
            cert: self.cert.to_list(),
            key: self.key.to_list(),
            client_ca: self.client_ca.clone(),
            allow_subject: self.allow_subject.to_list(),
            min_tls: self.min_tls,
        }
    }
}

/// The conversion that clap requires of the type of an option.
impl From<&str> for ServiceTls {
    fn from(text: &str) -> Self {
        ServiceTls {
            cert: OneOrMore::One(text.to_owned()),
            ..ServiceTls::default()
        }
    }
}

/// One of several servers. [`lower`](crate::config::lower) reads the address, so that every mistake is reported.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "this is no server; write \"10.0.0.5\", \"10.0.0.5:8443\" or { addr = \"10.0.0.5\", weight = 2 }"
)]
pub enum ServerSpec {
    /// The address.
    Address(String),
    /// The address, and the share of the connections relative to the other servers.
    Weighted(WeightedServer),
}

/// The form of a server with a weight.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedServer {
    /// The address.
    pub addr: String,
    /// The weight; 1 if it is absent.
    pub weight: Option<Whole>,
}

/// The conversion that clap requires of the type of an option.
impl From<&str> for ServerSpec {
    fn from(text: &str) -> Self {
        ServerSpec::Address(text.to_owned())
    }
}

/// The value of [`balance`](ServiceSpec::balance).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// The one with the fewest connections.
    LeastConnections,
    /// Always the same one for the same client.
    Sticky,
}

/// Not derived, for the reason given at [`HalfClose`](super::pool::HalfClose).
impl ValueEnum for Balance {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::RoundRobin, Self::LeastConnections, Self::Sticky]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::Sticky => "sticky",
        }))
    }
}

/// The value of [`http`](ServiceSpec::http).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HttpMode {
    /// The first request decides for its connection, and the others are not read.
    PerConnection,
    /// Each request is read, and must be for the service of the first one.
    PerRequest,
}

/// Not derived, for the reason given at [`HalfClose`](super::pool::HalfClose).
impl ValueEnum for HttpMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::PerConnection, Self::PerRequest]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::PerConnection => "per-connection",
            Self::PerRequest => "per-request",
        }))
    }
}

/// The value of [`send-proxy`](ServiceSpec::send_proxy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SendProxy {
    /// No header.
    None,
    /// A line with the addresses.
    V1,
    /// A binary header with the addresses, the name and the protocol that the client asks for.
    V2,
}

/// Not derived, for the reason given at [`HalfClose`](super::pool::HalfClose).
impl ValueEnum for SendProxy {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::None, Self::V1, Self::V2]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::None => "none",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }))
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        spec: RouteSpec,
    }

    #[test]
    fn every_flag_is_overlaid_under_its_own_name() {
        let command = RouteSpec::augment_args(Command::new("route"));
        for flag in command.get_arguments() {
            let name = flag.get_long().unwrap();
            let value = match name {
                "debug" | "log-connections" | "redirect-https" | "accept-proxy-optional" => None,
                "socket-mode" => Some("0660"),
                "send-proxy" => Some("v2"),
                "http" => Some("per-request"),
                "min-tls" => Some("1.3"),
                _ => Some("7"),
            };
            let flag = value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}"));
            let spec = Flags::try_parse_from(["route", &flag]).unwrap().spec;
            let mut under = RouteSpec::default();
            assert_eq!(spec.clone().overlay_onto(&mut under), [name]);
            assert_eq!(under, spec, "{flag}");
        }
    }
}
