//! Addresses as people write them: to listen at, to connect to, and of clients that have connected.
//!
//! Text becomes an address here and nowhere else, once, when the configuration is read; from then on only the value is
//! passed around. `Display` writes what `FromStr` reads, so a log line can be pasted into a configuration. No name of a
//! host is resolved here; the name of an interface, behind the `%` of a link-local address, becomes its number at once,
//! for which the kernel is asked. A listener has no use for names (what `localhost` means would depend on a file and
//! may be two addresses), and a client resolves its own, away from the event loop.
//!
//! **Dual stack.** `*:PORT` is every address of the machine, IPv4 and IPv6, on one socket. An address that is spelled
//! out is that family only, `[::]:PORT` too (IPV6_V6ONLY), so that `0.0.0.0:PORT` and `[::]:PORT` may stand side by
//! side and each means what it says whatever net.ipv6.bindv6only is set to.
//!
//! An IPv4 address in IPv6 clothes (`::ffff:10.0.0.1`, which is how IPv4 peers appear on a dual-stack socket) is turned
//! into IPv4 at the border, here, so that access lists, counts and logs know one form.

mod connect;
mod listen;
mod server;

use std::borrow::Cow;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixSocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use connect::Connect;
pub use listen::{Listen, Mark, Transport};
use nix::net::if_::if_nametoindex;
pub use server::{ServerAddr, ServerAddrError};

/// The longest path or abstract name of a UNIX socket, in bytes: sun_path has 108, one of which is the NUL that ends a
/// path or begins an abstract name (unix(7)).
pub const MAX_UNIX_NAME: usize = 107;

/// The name of a UNIX socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UnixAddr {
    /// A file in the file system, whose mode says which users may connect.
    Path(PathBuf),
    /// A name in the network namespace's abstract name space, without its leading NUL: no file, no mode; every process
    /// in the namespace may connect.
    Abstract(Vec<u8>),
}

impl UnixAddr {
    /// Reads `PATH` or `@NAME`; a file whose name begins with `@` is written `./@...`.
    fn parse(name: &str) -> Result<UnixAddr, Mistake> {
        let (bare, address) = match name.strip_prefix('@') {
            Some(name) => (name, UnixAddr::Abstract(name.as_bytes().to_vec())),
            None => (name, UnixAddr::Path(PathBuf::from(name))),
        };
        match bare.len() {
            0 => Err(Mistake::NoUnixName),
            _ if bare.contains(char::is_control) => Err(Mistake::ControlInName),
            length if length > MAX_UNIX_NAME => Err(Mistake::UnixNameTooLong(length)),
            _ => Ok(address),
        }
    }

    /// The form the system calls take.
    ///
    /// # Errors
    /// InvalidInput for a name that is too long or has a NUL; one that was parsed has been checked already.
    pub fn to_socket_addr(&self) -> std::io::Result<UnixSocketAddr> {
        match self {
            UnixAddr::Path(path) => UnixSocketAddr::from_pathname(path),
            UnixAddr::Abstract(name) => UnixSocketAddr::from_abstract_name(name),
        }
    }

    /// The name a socket is bound to; `None` if it has none.
    pub fn from_socket_addr(address: &UnixSocketAddr) -> Option<UnixAddr> {
        if let Some(path) = address.as_pathname() {
            return Some(UnixAddr::Path(path.to_path_buf()));
        }
        address.as_abstract_name().map(|name| UnixAddr::Abstract(name.to_vec()))
    }

    /// The path, unless the name is an abstract one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            UnixAddr::Path(path) => Some(path),
            UnixAddr::Abstract(_) => None,
        }
    }
}

/// `unix:/run/x.sock` or `unix:@name`; bytes that are not UTF-8 (in an inherited socket's name) are shown as U+FFFD.
impl fmt::Display for UnixAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnixAddr::Path(path) => write!(f, "unix:{}", path.display()),
            UnixAddr::Abstract(name) => write!(f, "unix:@{}", OsStr::from_bytes(name).display()),
        }
    }
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// `127.0.0.1:9991`, `[::1]:9991`: one address, of its own family only. Port 0: any free port.
    Tcp(SocketAddr),
    /// `*:9991`: every address of the machine, IPv4 and IPv6.
    TcpAny {
        /// The port; 0: any free one.
        port: u16,
    },
    /// `unix:/run/x.sock`, `unix:@name`.
    Unix(UnixAddr),
    /// `systemd`, `systemd:NAME`: sockets that the service manager has opened, all of them or those of that
    /// FileDescriptorName= (by default the name of the socket unit, sd_listen_fds(3)).
    Inherited(Option<String>),
}

impl ListenAddr {
    /// The address that a TCP socket is bound to, IPv4-mapped addresses as IPv4.
    pub fn tcp(address: SocketAddr) -> ListenAddr {
        ListenAddr::Tcp(canonical(address))
    }

    /// The TCP port; `None` for what is not TCP or not known before the socket is taken over.
    pub fn port(&self) -> Option<u16> {
        match self {
            ListenAddr::Tcp(address) => Some(address.port()),
            ListenAddr::TcpAny { port } => Some(*port),
            ListenAddr::Unix(_) | ListenAddr::Inherited(_) => None,
        }
    }

    /// Returns true if other machines may reach this address. Of a socket that is handed over, this is not known before
    /// it has come.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        match self {
            ListenAddr::Tcp(address) => !address.ip().is_loopback(),
            ListenAddr::TcpAny { .. } => true,
            ListenAddr::Unix(_) | ListenAddr::Inherited(_) => false,
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp(address) => address.fmt(f),
            ListenAddr::TcpAny { port } => write!(f, "*:{port}"),
            ListenAddr::Unix(name) => name.fmt(f),
            ListenAddr::Inherited(None) => f.write_str("systemd"),
            ListenAddr::Inherited(Some(name)) => write!(f, "systemd:{name}"),
        }
    }
}

impl FromStr for ListenAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<ListenAddr, AddrError> {
        parse_listen(text).map_err(|mistake| AddrError::new(text, mistake))
    }
}

fn parse_listen(text: &str) -> Result<ListenAddr, Mistake> {
    if let Some(name) = text.strip_prefix("unix:") {
        return UnixAddr::parse(name).map(ListenAddr::Unix);
    }
    if text == "systemd" {
        return Ok(ListenAddr::Inherited(None));
    }
    if let Some(name) = text.strip_prefix("systemd:") {
        return match name {
            "" => Err(Mistake::NoSystemdName),
            // sd_listen_fds(3) does not allow them either.
            name if name.contains(char::is_control) => Err(Mistake::ControlInName),
            name => Ok(ListenAddr::Inherited(Some(name.to_owned()))),
        };
    }
    if text.starts_with('/') {
        return Err(Mistake::BarePath);
    }
    let (host, port) = split_port(text)?;
    if text.starts_with('*') && host == "*" {
        return Ok(ListenAddr::TcpAny { port });
    }
    if host.parse::<Ipv4Addr>().is_err() && !text.starts_with('[') {
        return Err(if host.is_empty() {
            Mistake::NoHost(port)
        } else {
            Mistake::NameToListenOn(port)
        });
    }
    // The whole text and not `host`: only there does the standard library read an IPv6 scope (`[fe80::1%2]:80`).
    numbered(text)?
        .parse()
        .map(ListenAddr::tcp)
        .map_err(|_| Mistake::BadAddress)
}

/// An address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConnectAddr {
    /// `HOST:PORT` or `[IPV6]:PORT`.
    Tcp {
        /// A name still to be resolved, or an address in figures (without brackets).
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// `unix:/run/x.sock`, `unix:@name`, or a bare `/run/x.sock`.
    Unix(UnixAddr),
}

impl ConnectAddr {
    /// The address, when the host is one in figures and nothing needs to be resolved.
    pub fn to_socket_addr(&self) -> Option<SocketAddr> {
        match self {
            ConnectAddr::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}").parse().ok(),
            ConnectAddr::Tcp { host, port } => host.parse().ok().map(|ip| SocketAddr::new(IpAddr::V4(ip), *port)),
            ConnectAddr::Unix(_) => None,
        }
    }
}

impl fmt::Display for ConnectAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectAddr::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            ConnectAddr::Tcp { host, port } => write!(f, "{host}:{port}"),
            ConnectAddr::Unix(name) => name.fmt(f),
        }
    }
}

impl FromStr for ConnectAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<ConnectAddr, AddrError> {
        parse_connect(text).map_err(|mistake| AddrError::new(text, mistake))
    }
}

fn parse_connect(text: &str) -> Result<ConnectAddr, Mistake> {
    if let Some(name) = text.strip_prefix("unix:") {
        return UnixAddr::parse(name).map(ConnectAddr::Unix);
    }
    if text.starts_with('/') {
        return UnixAddr::parse(text).map(ConnectAddr::Unix);
    }
    let text = &numbered(text)?;
    let (host, port) = split_port(text)?;
    if port == 0 {
        return Err(Mistake::ConnectToPortZero);
    }
    if text.starts_with('[') && text.parse::<SocketAddrV6>().is_err() {
        return Err(Mistake::BadAddress);
    }
    if host == "*" || host.is_empty() {
        return Err(Mistake::NobodyToConnectTo(port));
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@')) {
        return Err(Mistake::BadAddress);
    }
    Ok(ConnectAddr::Tcp {
        host: host.to_owned(),
        port,
    })
}

/// Replaces the name of the interface by its number: `[fe80::1%eth0]:80` becomes `[fe80::1%2]:80`. Only the kernel is
/// asked for it. Numbers are left as they are, and so are addresses without an interface.
fn numbered(text: &str) -> Result<Cow<'_, str>, Mistake> {
    let zoned = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let Some((ip, zone, rest)) = zoned.and_then(|(host, rest)| host.split_once('%').map(|(ip, zone)| (ip, zone, rest)))
    else {
        return Ok(Cow::Borrowed(text));
    };
    if !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Cow::Borrowed(text));
    }
    if ip.parse::<Ipv6Addr>().is_err() {
        return Err(Mistake::BadAddress);
    }
    let number = if_nametoindex(zone).map_err(|_| Mistake::NoInterface(zone.to_owned()))?;
    Ok(Cow::Owned(format!("[{ip}%{number}]{rest}")))
}

/// `HOST:PORT` or `[HOST]:PORT` in its two parts, without the brackets. The host is not looked into.
fn split_port(text: &str) -> Result<(&str, u16), Mistake> {
    let parts = match text.strip_prefix('[') {
        Some(rest) => rest
            .split_once(']')
            .and_then(|(host, rest)| Some((host, rest.strip_prefix(':')?))),
        None => text.rsplit_once(':'),
    };
    let Some((host, port)) = parts else {
        return Err(match text {
            _ if is_port(text) => Mistake::OnlyPort,
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Mistake::BadPort(text.to_owned())
            }
            _ => Mistake::NoPort,
        });
    };
    if !text.starts_with('[') && host.contains(':') {
        return Err(Mistake::NoBrackets);
    }
    if !is_port(port) {
        return Err(Mistake::BadPort(port.to_owned()));
    }
    port.parse()
        .map(|port| (host, port))
        .map_err(|_| Mistake::BadPort(port.to_owned()))
}

/// Figures only: the standard library would take a plus sign.
fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// The other end of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerAddr {
    /// Never IPv4-mapped when it comes from [`PeerAddr::tcp`].
    Tcp(SocketAddr),
    /// A process of this machine. Its socket rarely has a name. The process's credentials cost a system call:
    /// [`Stream::peer_credentials`](super::stream::Stream::peer_credentials).
    Unix,
}

impl PeerAddr {
    /// The peer of a TCP connection, IPv4-mapped addresses as IPv4.
    pub fn tcp(address: SocketAddr) -> PeerAddr {
        PeerAddr::Tcp(canonical(address))
    }

    /// The peer's address in the internet; `None` for a UNIX socket. Never IPv4-mapped.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            PeerAddr::Tcp(address) => Some(address.ip().to_canonical()),
            PeerAddr::Unix => None,
        }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddr::Tcp(address) => address.fmt(f),
            PeerAddr::Unix => f.write_str("unix"),
        }
    }
}

/// IPv4-mapped becomes IPv4; a true IPv6 address keeps its scope.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// A text that is no address, with what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddrError {
    /// The transport whose prefix stands in front of the text.
    transport: Transport,
    text: String,
    mistake: Mistake,
}

impl AddrError {
    fn new(text: &str, mistake: Mistake) -> AddrError {
        AddrError {
            transport: Transport::Plain,
            text: text.to_owned(),
            mistake,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Mistake {
    NoUnixName,
    ControlInName,
    UnixNameTooLong(usize),
    NoSystemdName,
    BarePath,
    NoHost(u16),
    NameToListenOn(u16),
    NobodyToConnectTo(u16),
    ConnectToPortZero,
    BadAddress,
    NoPort,
    OnlyPort,
    NoBrackets,
    BadPort(String),
    NoInterface(String),
    TlsOnUnixSocket,
    Url,
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A message is one line, whatever was written.
        let text = self.text.escape_debug().to_string();
        write!(f, "\"{}{text}\" is not an address: ", self.transport.prefix())?;
        match &self.mistake {
            Mistake::NoUnixName => f.write_str("the socket has no name; write unix:/PATH or unix:@NAME"),
            Mistake::ControlInName => f.write_str("the name of a socket cannot hold a control character"),
            Mistake::UnixNameTooLong(length) => {
                write!(
                    f,
                    "the name of a UNIX socket has at most {MAX_UNIX_NAME} bytes, this one has {length}; write a shorter one"
                )
            }
            Mistake::NoSystemdName => f.write_str("write systemd for all sockets handed over, or systemd:NAME"),
            Mistake::BarePath => write!(f, "a path stands behind unix: here; write unix:{text}"),
            Mistake::NoHost(port) => write!(f, "write *:{port} for every address, or 127.0.0.1:{port}"),
            Mistake::NameToListenOn(port) => write!(
                f,
                "names are not looked up to listen on; write the address, such as 127.0.0.1:{port} or [::1]:{port}"
            ),
            Mistake::NobodyToConnectTo(port) => write!(f, "it names nobody; write HOST:{port}"),
            Mistake::ConnectToPortZero => f.write_str("nobody can be reached at port 0"),
            Mistake::BadAddress => f.write_str("write 127.0.0.1:PORT, [::1]:PORT or unix:/PATH"),
            Mistake::NoPort => write!(f, "the port is missing; write {text}:PORT"),
            Mistake::OnlyPort => write!(f, "it is a port alone; write 127.0.0.1:{text}"),
            Mistake::NoBrackets => f.write_str("an IPv6 address stands in brackets, such as [::1]:9991"),
            Mistake::NoInterface(name) => write!(
                f,
                "this machine has no network interface called \"{}\"; write one that `ip link` lists",
                name.escape_debug()
            ),
            Mistake::BadPort(port) => write!(f, "the port is a number from 0 to 65535, not {port:?}"),
            Mistake::Url => return write!(f, "it is no URL; write tls:{}", text.trim_start_matches('/')),
            Mistake::TlsOnUnixSocket => {
                let path = text.strip_prefix("unix:").unwrap_or(&text);
                return write!(
                    f,
                    "what goes through a UNIX socket does not leave this machine and needs no TLS; write unix:{path}"
                );
            }
        }?;
        match self.transport {
            Transport::Plain => Ok(()),
            Transport::Tls => f.write_str(" (behind tls:)"),
        }
    }
}

impl Error for AddrError {}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use proptest::prelude::*;

    use super::*;

    fn listen(text: &str) -> ListenAddr {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn listen_error(text: &str) -> String {
        text.parse::<ListenAddr>().expect_err(text).to_string()
    }

    fn connect_error(text: &str) -> String {
        text.parse::<ConnectAddr>().expect_err(text).to_string()
    }

    #[test]
    fn every_form_to_listen_on_is_read() {
        assert_eq!(listen("127.0.0.1:9991"), ListenAddr::Tcp(([127, 0, 0, 1], 9991).into()));
        assert_eq!(
            listen("[::1]:9991"),
            ListenAddr::Tcp((Ipv6Addr::LOCALHOST, 9991).into())
        );
        assert_eq!(listen("[::]:80"), ListenAddr::Tcp((Ipv6Addr::UNSPECIFIED, 80).into()));
        assert_eq!(listen("*:0"), ListenAddr::TcpAny { port: 0 });
        assert_eq!(
            listen("unix:/run/x.sock"),
            ListenAddr::Unix(UnixAddr::Path("/run/x.sock".into()))
        );
        assert_eq!(
            listen("unix:@name"),
            ListenAddr::Unix(UnixAddr::Abstract(b"name".to_vec()))
        );
        assert_eq!(listen("unix:./@x"), ListenAddr::Unix(UnixAddr::Path("./@x".into())));
        assert_eq!(listen("systemd"), ListenAddr::Inherited(None));
        assert_eq!(
            listen("systemd:pool.socket"),
            ListenAddr::Inherited(Some("pool.socket".into()))
        );
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_an_ipv4_address() {
        assert_eq!(listen("[::ffff:10.0.0.1]:80"), listen("10.0.0.1:80"));
        let mapped = "[::ffff:10.0.0.1]:4711".parse().expect("a socket address");
        assert_eq!(PeerAddr::tcp(mapped).to_string(), "10.0.0.1:4711");
        assert_eq!(PeerAddr::Tcp(mapped).ip(), Some([10, 0, 0, 1].into()));
    }

    #[test]
    fn a_scope_survives() {
        assert_eq!(listen("[fe80::1%2]:80").to_string(), "[fe80::1%2]:80");
        let connect: ConnectAddr = "[fe80::1%2]:80".parse().expect("an address");
        assert_eq!(connect.to_socket_addr().expect("figures").to_string(), "[fe80::1%2]:80");
    }

    #[test]
    fn each_mistake_is_told_what_to_write_instead() {
        for (text, remedy) in [
            ("localhost:9991", "127.0.0.1:9991"),
            ("host.example:80", "names are not looked up"),
            ("9991", "write 127.0.0.1:9991"),
            ("99999", "a number from 0 to 65535, not \"99999\""),
            (":9991", "write *:9991"),
            ("127.0.0.1", "write 127.0.0.1:PORT"),
            ("::1:9991", "in brackets"),
            ("127.0.0.1:65536", "not \"65536\""),
            ("127.0.0.1:+1", "not \"+1\""),
            ("127.0.0.1:", "not \"\""),
            ("[::1]", "the port is missing"),
            ("[::1]9991", "the port is missing"),
            ("[127.0.0.1]:80", "write 127.0.0.1:PORT"),
            ("[*]:80", "write"),
            ("127.0.0.256:80", "names are not looked up"),
            ("/run/x.sock", "write unix:/run/x.sock"),
            ("unix:", "unix:/PATH"),
            ("unix:@", "unix:/PATH"),
            ("unix:/a\0b", "control character"),
            ("unix:@a\nb", "control character"),
            ("systemd:a\x1bb", "control character"),
            ("a\nb", "write a\\nb:PORT"),
            ("/a\nb", "write unix:/a\\nb"),
            ("systemd:", "systemd:NAME"),
            ("", "port is missing"),
        ] {
            let error = listen_error(text);
            assert!(error.contains(remedy), "{error:?} does not say {remedy:?}");
            assert!(
                error.contains(&format!("{text:?}")),
                "{error:?} does not repeat what was written"
            );
        }
    }

    #[test]
    fn a_unix_name_may_fill_sun_path_and_no_more() {
        let path = format!("unix:/{}", "x".repeat(MAX_UNIX_NAME - 1));
        let ListenAddr::Unix(name) = listen(&path) else {
            panic!("{path} is no UNIX socket")
        };
        assert!(name.to_socket_addr().is_ok());
        assert!(listen_error(&format!("{path}x")).contains("107 bytes, this one has 108"));
        let name = UnixAddr::Abstract(vec![b'x'; MAX_UNIX_NAME]);
        assert!(name.to_socket_addr().is_ok());
    }

    #[test]
    fn every_form_to_connect_to_is_read() {
        let read = |text: &str| text.parse::<ConnectAddr>().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            read("filter.example:9991"),
            ConnectAddr::Tcp {
                host: "filter.example".into(),
                port: 9991
            }
        );
        assert_eq!(read("filter.example:9991").to_socket_addr(), None);
        assert_eq!(
            read("10.0.0.5:9991").to_socket_addr(),
            Some(([10, 0, 0, 5], 9991).into())
        );
        assert_eq!(
            read("[::1]:9991").to_socket_addr(),
            Some((Ipv6Addr::LOCALHOST, 9991).into())
        );
        assert_eq!(read("/run/x.sock"), read("unix:/run/x.sock"));
        assert_eq!(read("/run/x.sock").to_string(), "unix:/run/x.sock");
        assert_eq!(
            read("unix:@name"),
            ConnectAddr::Unix(UnixAddr::Abstract(b"name".to_vec()))
        );
    }

    #[test]
    fn each_mistake_of_a_client_is_told_as_well() {
        for (text, remedy) in [
            ("*:9991", "write HOST:9991"),
            (":9991", "write HOST:9991"),
            ("host:0", "port 0"),
            ("host", "write host:PORT"),
            ("::1:9991", "in brackets"),
            ("[host]:1", "write"),
            ("a b:1", "write"),
            ("http://host:1", "in brackets"),
            ("user@host:1", "write"),
        ] {
            let error = connect_error(text);
            assert!(error.contains(remedy), "{error:?} does not say {remedy:?}");
        }
    }

    fn any_listen_addr() -> impl Strategy<Value = ListenAddr> {
        prop_oneof![
            any::<SocketAddrV4>().prop_map(|address| ListenAddr::tcp(address.into())),
            // No flow label: it is not part of the text.
            any::<(Ipv6Addr, u16, u32)>()
                .prop_map(|(ip, port, scope)| ListenAddr::tcp(SocketAddrV6::new(ip, port, 0, scope).into())),
            any::<u16>().prop_map(|port| ListenAddr::TcpAny { port }),
            "/\\PC{0,26}".prop_map(|path| ListenAddr::Unix(UnixAddr::Path(path.into()))),
            "\\PC{1,26}".prop_map(|name| ListenAddr::Unix(UnixAddr::Abstract(name.into_bytes()))),
            "[^:\\pC]{1,30}".prop_map(|name| ListenAddr::Inherited(Some(name))),
        ]
    }

    proptest! {
        #[test]
        fn an_address_that_is_written_is_read_back(address in any_listen_addr()) {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn no_text_is_read_as_something_else(text in "[\\[\\]:*@%./a-f0-9]{0,24}") {
            // An address that was parsed can be written and parsed again, and means the same.
            if let Ok(address) = text.parse::<ListenAddr>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
            if let Ok(address) = text.parse::<ConnectAddr>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
