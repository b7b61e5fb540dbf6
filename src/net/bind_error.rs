//! Errors of opening a listener, with their remedies.
//!
//! The message is one line: the step that failed, the address, the error of the system, and the remedy.

use std::error::Error;
use std::fmt;
use std::path::Path;

use nix::errno::Errno;

use super::addr::{ListenAddr, UnixAddr};
use super::inherit::InheritError;

/// The reason why there is no listener at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindError {
    address: ListenAddr,
    cause: Cause,
}

impl BindError {
    pub(super) fn new(address: &ListenAddr, cause: Cause) -> BindError {
        BindError {
            address: address.clone(),
            cause,
        }
    }

    /// The address on which it was to listen.
    pub fn address(&self) -> &ListenAddr {
        &self.address
    }

    /// The error of the system; `None` if it was not the system that refused.
    pub fn errno(&self) -> Option<Errno> {
        match &self.cause {
            Cause::System(_, errno) => Some(*errno),
            Cause::Running | Cause::NotASocket | Cause::NotBound | Cause::Inherited(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    System(Attempt, Errno),
    /// A server answers at the path.
    Running,
    /// Something that is no socket is at the path.
    NotASocket,
    /// Several sockets may stand behind such an address; they are claimed, not bound.
    NotBound,
    Inherited(InheritError),
}

/// The step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    Socket,
    Option,
    Clear,
    Bind,
    Mode,
    Owner,
    Listen,
    Name,
}

impl Attempt {
    /// For `map_err`.
    pub(super) fn failed(self) -> impl FnOnce(Errno) -> Cause {
        move |errno| Cause::System(self, errno)
    }

    fn words(self) -> &'static str {
        match self {
            Attempt::Socket => "make a socket",
            Attempt::Option => "set the options of the socket",
            Attempt::Clear => "find out who uses the socket file",
            Attempt::Bind => "bind the socket",
            Attempt::Mode => "set the mode of the socket file",
            Attempt::Owner => "set the owner of the socket file",
            Attempt::Listen => "listen on the socket",
            Attempt::Name => "learn the name of the socket",
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unable to listen on {}: ", self.address)?;
        match &self.cause {
            Cause::Running => {
                f.write_str("address in use by a running server; stop that one first, or give this one another path")
            }
            Cause::NotASocket => {
                f.write_str("what is there is not a socket and is not touched; move it away, or choose another path")
            }
            Cause::NotBound => f.write_str("sockets of the service manager are taken over, not bound"),
            Cause::Inherited(error) => error.fmt(f),
            Cause::System(attempt, errno) => {
                write!(f, "unable to {}: {} ({errno:?})", attempt.words(), errno.desc())?;
                match remedy(&self.address, *attempt, *errno) {
                    Some(remedy) => write!(f, "; {remedy}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Error for BindError {}

/// The remedy; `None` if the error of the system explains itself.
fn remedy(address: &ListenAddr, attempt: Attempt, errno: Errno) -> Option<String> {
    if let Some(remedy) = remedy_anywhere(attempt, errno) {
        return Some(remedy.to_owned());
    }
    match address {
        ListenAddr::Unix(UnixAddr::Path(path)) => remedy_path(path, errno),
        ListenAddr::Unix(UnixAddr::Abstract(_)) => {
            (errno == Errno::EADDRINUSE).then(|| "another program listens there: `ss -lxp` shows which".to_owned())
        }
        _ => remedy_tcp(address.port()?, errno).or_else(|| remedy_ip(errno).map(str::to_owned)),
    }
}

fn remedy_anywhere(attempt: Attempt, errno: Errno) -> Option<&'static str> {
    match (attempt, errno) {
        (Attempt::Owner, Errno::EPERM) => {
            Some("only root gives a file away, and others may choose only among their own groups")
        }
        (_, Errno::EMFILE) => Some("raise the limit on open files (`ulimit -n`, LimitNOFILE= in a systemd unit)"),
        (_, Errno::ENFILE) => Some("the whole machine is out of file descriptors: raise the sysctl fs.file-max"),
        _ => None,
    }
}

fn remedy_tcp(port: u16, errno: Errno) -> Option<String> {
    match errno {
        Errno::EADDRINUSE => Some(format!(
            "another program listens there: `ss -ltnp sport = :{port}` shows which"
        )),
        Errno::EACCES => Some(format!(
            "ports below the sysctl net.ipv4.ip_unprivileged_port_start (1024) need CAP_NET_BIND_SERVICE: take a higher \
             port, start as root, or add AmbientCapabilities=CAP_NET_BIND_SERVICE or a socket unit with \
             ListenStream={port} to the systemd unit"
        )),
        _ => None,
    }
}

fn remedy_ip(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EADDRNOTAVAIL => Some("no interface of this machine has that address: `ip address` lists them"),
        Errno::EAFNOSUPPORT => Some("the kernel has no IPv6: listen on an IPv4 address or on *:PORT"),
        Errno::EINVAL | Errno::ENODEV => {
            Some("a link-local address needs its interface, as in [fe80::1%eth0]:9991: `ip link` lists them")
        }
        _ => None,
    }
}

fn remedy_path(path: &Path, errno: Errno) -> Option<String> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.display().to_string(),
        _ => ".".to_owned(),
    };
    match errno {
        Errno::EADDRINUSE => Some("another server was started there at the same moment".to_owned()),
        Errno::EACCES | Errno::EPERM => Some(format!(
            "this user must be allowed to write to the directory {directory}, to enter it and those above it, and to \
             connect to a socket that is there already"
        )),
        Errno::ENOENT => Some(format!(
            "the directory {directory} must exist: create it, or add RuntimeDirectory= to the systemd unit"
        )),
        Errno::ENOTDIR => Some(format!("{directory} is not a directory")),
        Errno::EROFS => Some(format!(
            "{directory} is on a read-only file system; /run is made for sockets"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_operators_meet_names_its_remedy() {
        use Attempt::{Bind, Clear, Owner, Socket};
        for (address, attempt, errno, remedy) in [
            ("127.0.0.1:443", Bind, Errno::EACCES, "CAP_NET_BIND_SERVICE"),
            ("*:443", Bind, Errno::EACCES, "ListenStream=443"),
            ("*:9991", Attempt::Listen, Errno::EADDRINUSE, "`ss -ltnp sport = :9991`"),
            ("[2001:db8::1]:1", Bind, Errno::EADDRNOTAVAIL, "`ip address`"),
            ("[::1]:1", Socket, Errno::EAFNOSUPPORT, "*:PORT"),
            ("[fe80::1]:1", Bind, Errno::EINVAL, "[fe80::1%eth0]"),
            ("*:1", Socket, Errno::EMFILE, "LimitNOFILE="),
            ("*:1", Socket, Errno::ENFILE, "fs.file-max"),
            ("unix:/run/x/s", Bind, Errno::EACCES, "directory /run/x,"),
            ("unix:/run/x/s", Clear, Errno::ENOTDIR, "/run/x is not a directory"),
            (
                "unix:/run/x/s",
                Bind,
                Errno::EROFS,
                "/run/x is on a read-only file system",
            ),
            ("unix:s", Bind, Errno::ENOENT, "directory . must exist"),
            ("unix:/s", Owner, Errno::EPERM, "only root gives a file away"),
            ("unix:@s", Bind, Errno::EADDRINUSE, "`ss -lxp`"),
        ] {
            let error = BindError::new(&address.parse().expect(address), Cause::System(attempt, errno));
            let text = error.to_string();
            assert!(text.contains(remedy), "{text:?} does not name {remedy:?}");
            assert!(text.starts_with(&format!("unable to listen on {address}: unable to {}", attempt.words())));
            assert!(text.contains(&format!("({errno:?})")), "{text:?}");
        }
    }

    #[test]
    fn an_error_without_a_remedy_is_told_as_the_system_tells_it() {
        let cause = Cause::System(Attempt::Bind, Errno::EFAULT);
        let error = BindError::new(&"*:1".parse().expect("an address"), cause);
        assert_eq!(
            error.to_string(),
            "unable to listen on *:1: unable to bind the socket: Bad address (EFAULT)"
        );
    }
}
