//! The settings of a tunnel door as written: `iotcpd tunnel [flags]`, and a table `[tunnel.NAME]` of a file.

use clap::Args;
use serde::Deserialize;

use crate::config::units::{Time, Whole};

/// All settings of a tunnel door. The flags of trc, the client of tcprouter, keep their names.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct TunnelSpec {
    /// The server to connect to: HOST:PORT, the port is its tunnel-listen or clientsport; tls:HOST:PORT for one with TLS;
    /// may be repeated, each is connected to
    #[arg(long, value_name = "ADDR", help_heading = "The tunnel")]
    pub remote: Vec<String>,
    /// The secret of the services that are served here. It is better kept in a file
    #[arg(long, value_name = "SECRET", help_heading = "The tunnel")]
    pub secret: Option<String>,
    /// The file whose first line is the secret
    #[arg(long, value_name = "FILE", help_heading = "The tunnel")]
    pub secret_file: Option<String>,
    /// The local service that clients are connected to: HOST:PORT or unix:PATH; in a file also door:NAME, another door of it
    #[arg(long, value_name = "ADDR", help_heading = "The tunnel")]
    pub local: Option<String>,
    /// The local service for clients that speak TLS [default: that of local]
    #[arg(long, value_name = "ADDR", help_heading = "The tunnel")]
    pub local_tls: Option<String>,
    /// Each client begins with a header of the PROXY protocol, which tells the door that it goes to its address
    #[arg(long, help_heading = "The tunnel")]
    pub accept_proxy: bool,
    /// The longest time from one attempt to connect to a server to the next; the first ones follow sooner [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "The tunnel")]
    pub backoff: Option<Time>,
    /// At most this many clients at once, over all tunnels [default: 4096]
    #[arg(long, value_name = "NUM", help_heading = "The tunnel")]
    pub max_streams: Option<Whole>,
    /// How long an attempt to connect may take, to a server or to a local service [default: 5s]
    #[arg(long, value_name = "TIME", help_heading = "The tunnel")]
    pub connect_timeout: Option<Time>,
    /// A client on whose connection neither side sends a byte for this time is cut; 0: never [default: 1h]
    #[arg(long, value_name = "TIME", help_heading = "The tunnel")]
    pub idle_timeout: Option<Time>,
    /// How long clients may stay once the daemon is told to stop [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "The tunnel")]
    pub stop_timeout: Option<Time>,
    /// How long clients may stay at the old process after an upgrade [default: 1h]
    #[arg(long, value_name = "TIME", help_heading = "The tunnel")]
    pub old_generation_timeout: Option<Time>,
    /// Log each step of a tunnel
    #[arg(long, help_heading = "The tunnel")]
    pub debug: bool,
    /// Speak TLS with every server, as with tls: in front of its address
    #[arg(long, help_heading = "TLS with the server")]
    pub tls: bool,
    /// With tls: the authorities of the server's certificate, in PEM [default: those of the system]
    #[arg(long, value_name = "FILE", help_heading = "TLS with the server")]
    pub ca: Option<String>,
    /// With tls: the certificate that is shown to the server, in PEM [default: none]
    #[arg(long, value_name = "FILE", help_heading = "TLS with the server")]
    pub cert: Option<String>,
    /// The key of that certificate, in PEM [default: in the file of cert]
    #[arg(long, value_name = "FILE", help_heading = "TLS with the server")]
    pub key: Option<String>,
    /// With tls: the name that the server's certificate must have [default: the host of remote]
    #[arg(long, value_name = "NAME", help_heading = "TLS with the server")]
    pub server_name: Option<String>,
}
