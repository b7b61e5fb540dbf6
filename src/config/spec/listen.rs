//! The addresses, the sockets, the access and the TLS of listeners: the parts of a spec that listening doors share.
//! A door with one kind of listener has [`ListenSpec`], which is all of them.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::config::units::{FileMode, Whole};

/// The heading of two of the parts in `--help`.
const WHERE_CLIENTS_CONNECT: &str = "Where clients connect";

/// The settings of listening, as written. Addresses are text here: [`lower`](crate::config::lower) reads them, so that
/// every mistake is reported, not only the first.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[command(next_help_heading = WHERE_CLIENTS_CONNECT)]
pub struct ListenSpec {
    /// The addresses to listen on, in addition to those of the door's own keys; each in the syntax of `net::addr`.
    // The help is not the doc comment, because rustdoc takes an IPv6 address in brackets for a link.
    #[arg(
        long,
        value_name = "ADDR",
        help = "Listen here as well; may be repeated. One of 127.0.0.1:9991, [::1]:9991, *:9991 (IPv4 and IPv6), \
                unix:/run/iotcpd.sock, unix:@NAME (abstract), systemd (sockets handed over), systemd:NAME; with tls: \
                in front, as in tls:*:9443, clients speak TLS there"
    )]
    pub listen: Vec<String>,

    /// The settings of the sockets.
    #[command(flatten)]
    #[serde(flatten)]
    pub sockets: SocketSpec,
    /// The clients that may connect.
    #[command(flatten)]
    #[serde(flatten)]
    pub access: AccessSpec,
    /// The settings of the `tls:` addresses.
    #[command(flatten)]
    #[serde(flatten)]
    pub tls: TlsSpec,
}

/// The settings of the listening sockets, wherever they listen.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[command(next_help_heading = WHERE_CLIENTS_CONNECT)]
pub struct SocketSpec {
    /// Length of the kernel's queue of connections not yet accepted [default: 1024]
    #[arg(long, value_name = "NUM")]
    pub backlog: Option<Whole>,
    /// Permissions of the UNIX sockets, in octal, for example 0660 [default: what the umask leaves]
    #[arg(long, value_name = "MODE")]
    pub socket_mode: Option<FileMode>,
    /// Owner of the UNIX sockets, by name or number [default: the daemon's]
    #[arg(long, value_name = "USER")]
    pub socket_owner: Option<String>,
    /// Group of the UNIX sockets, by name or number [default: the daemon's]
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<String>,
}

/// The clients that may connect, the proxies that speak for them, and the number of connections.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[command(next_help_heading = "Who may connect")]
pub struct AccessSpec {
    /// Only these addresses may connect over TCP, for example 10.0.0.0/8; may be repeated [default: all]
    #[arg(long, value_name = "CIDR")]
    pub allow: Vec<String>,
    /// These addresses may not connect over TCP, whatever --allow says; may be repeated
    #[arg(long, value_name = "CIDR")]
    pub deny: Vec<String>,
    /// From these proxies a PROXY header that names the client is expected: an address, a network, or "unix" for UNIX
    /// sockets; may be repeated
    #[arg(long, value_name = "CIDR")]
    pub accept_proxy: Vec<String>,
    /// Their connections may also come without the header, and are their own then
    #[arg(long)]
    pub accept_proxy_optional: bool,
    /// At most this many clients at once [default: 4096]
    #[arg(long, value_name = "NUM")]
    pub max_connections: Option<Whole>,
    /// At most this many clients at once from one address (IPv6: one /64 network) [default: no limit]
    #[arg(long, value_name = "NUM")]
    pub max_connections_per_ip: Option<Whole>,
}

/// The certificates of a server of TLS, and the certificates that it asks its clients for.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[command(next_help_heading = "TLS")]
pub struct TlsSpec {
    /// Certificate for the tls: addresses, a PEM file that may hold those of its authorities behind it; may be
    /// repeated: a client chooses by the name that it asks for, and has the first otherwise
    #[arg(long, value_name = "FILE")]
    pub cert: Vec<String>,
    /// Private key of the certificate, a PEM file; repeated as --cert is, in the same order [default: the file of the
    /// certificate]
    #[arg(long, value_name = "FILE")]
    pub key: Vec<String>,
    /// Only clients with a certificate of these authorities, a PEM file, may connect to the tls: addresses
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<String>,
    /// Only clients whose certificate has a name like this may: a common name, a host, a URI or an address of e-mail, in
    /// which * stands for any characters; may be repeated [default: all]
    #[arg(long, value_name = "GLOB")]
    pub allow_subject: Vec<String>,
    /// Oldest version of TLS that clients may speak [default: 1.2]
    #[arg(long, value_name = "VERSION")]
    pub min_tls: Option<MinTls>,
}

/// The value of [`min_tls`](TlsSpec::min_tls).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum MinTls {
    /// TLS 1.2 and later.
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

/// Not derived, for the reason given at [`HalfClose`](super::pool::HalfClose).
impl ValueEnum for MinTls {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::V1_2, Self::V1_3]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }))
    }
}
