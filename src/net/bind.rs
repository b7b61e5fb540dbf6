//! From an address to a listening socket: the steps, and which of them failed.
//!
//! **UNIX sockets and the users that may connect.** bind(2) makes the file with whatever the umask leaves, and the
//! umask belongs to the whole process, so it is not touched. Instead the order does it: bind, chmod, chown, and only
//! then listen; before listen(2) every connect(2) is refused, so no client slips in while the file has the wrong mode.
//! (The directory must be one in which only users that may have the socket can replace files, as for every socket
//! file.)

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, setsockopt};

use super::addr::UnixAddr;
use super::bind_error::{Attempt, Cause};
use super::sys;
use super::unix_file::{self, OwnedFile, Taken};

/// The users that may connect to a UNIX socket: the mode and owner of its file. An abstract socket has no file, and
/// these do not apply to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnixSocketOptions {
    /// Permission bits, such as 0o660: to connect takes write permission (unix(7)). `None`: 0o777 less the umask.
    pub mode: Option<u32>,
    /// User id. `None`: the user this process runs as.
    pub owner: Option<u32>,
    /// Group id. `None`: the group of this process, or of a directory with the set-group-id bit.
    pub group: Option<u32>,
}

/// The families of addresses from which an IPv6 socket takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Families {
    OwnOnly,
    Both,
}

/// The most connections that the kernel lets wait for one listener, whatever it is asked for (listen(2),
/// net.core.somaxconn of this network namespace); `None`: it does not say.
#[must_use]
pub fn longest_backlog() -> Option<u32> {
    let limit = fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?;
    limit.trim().parse().ok()
}

/// A socket that listens on exactly this address.
pub(super) fn tcp(address: SocketAddr, backlog: u32) -> Result<OwnedFd, Cause> {
    listening_tcp(address, Families::OwnOnly, backlog)
}

/// A socket that listens on every address; IPv4 alone where the kernel has no IPv6 (ipv6.disable=1, or a container
/// without it).
pub(super) fn tcp_any(port: u16, backlog: u32) -> Result<OwnedFd, Cause> {
    match listening_tcp((Ipv6Addr::UNSPECIFIED, port).into(), Families::Both, backlog) {
        Err(cause) if lacks_ipv6(&cause) => tcp((Ipv4Addr::UNSPECIFIED, port).into(), backlog),
        outcome => outcome,
    }
}

fn lacks_ipv6(cause: &Cause) -> bool {
    matches!(cause, Cause::System(_, Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

fn listening_tcp(address: SocketAddr, families: Families, backlog: u32) -> Result<OwnedFd, Cause> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = new_socket(family)?;
    // Or a restart would have to wait until the last connection of the predecessor has left TIME_WAIT. On Linux two
    // sockets that listen on the same address are refused all the same.
    setsockopt(&socket, ReuseAddr, &true).map_err(Attempt::Option.failed())?;
    match address {
        SocketAddr::V4(address) => bind(&socket, &SockaddrIn::from(address))?,
        SocketAddr::V6(address) => {
            // One way or the other, so that net.ipv6.bindv6only does not matter.
            let own_only = families == Families::OwnOnly;
            setsockopt(&socket, Ipv6V6Only, &own_only).map_err(Attempt::Option.failed())?;
            bind(&socket, &SockaddrIn6::from(address))?;
        }
    }
    listen(&socket, backlog)?;
    Ok(socket)
}

/// A socket that listens on `name`, and the file it has made there, if it has.
pub(super) fn unix(
    name: &UnixAddr,
    options: &UnixSocketOptions,
    backlog: u32,
) -> Result<(OwnedFd, Option<OwnedFile>), Cause> {
    let socket = new_socket(AddressFamily::Unix)?;
    let file = match name {
        UnixAddr::Abstract(name) => {
            let name = socket::UnixAddr::new_abstract(name).map_err(Attempt::Bind.failed())?;
            bind(&socket, &name)?;
            None
        }
        UnixAddr::Path(path) => Some(bind_path(&socket, path, options)?),
    };
    listen(&socket, backlog)?;
    Ok((socket, file))
}

fn bind_path(socket: &OwnedFd, path: &Path, options: &UnixSocketOptions) -> Result<OwnedFile, Cause> {
    unix_file::clear(path).map_err(|taken| match taken {
        Taken::Running => Cause::Running,
        Taken::NotASocket => Cause::NotASocket,
        Taken::Unknown(error) => Attempt::Clear.failed()(errno(&error)),
    })?;
    let name = socket::UnixAddr::new(path).map_err(Attempt::Bind.failed())?;
    bind(socket, &name)?;
    let file = OwnedFile::new(path).map_err(|error| Attempt::Bind.failed()(errno(&error)))?;
    // Mode before owner: a process that may give files away need not be allowed to change those of others.
    if let Some(mode) = options.mode {
        let mode = Permissions::from_mode(mode & 0o7777);
        fs::set_permissions(path, mode).map_err(|error| Attempt::Mode.failed()(errno(&error)))?;
    }
    if options.owner.is_some() || options.group.is_some() {
        lchown(path, options.owner, options.group).map_err(|error| Attempt::Owner.failed()(errno(&error)))?;
    }
    Ok(file)
}

fn new_socket(family: AddressFamily) -> Result<OwnedFd, Cause> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket::socket(family, SockType::Stream, flags, None).map_err(Attempt::Socket.failed())
}

fn bind(socket: &OwnedFd, address: &dyn SockaddrLike) -> Result<(), Cause> {
    socket::bind(socket.as_raw_fd(), address).map_err(Attempt::Bind.failed())
}

fn listen(socket: &OwnedFd, backlog: u32) -> Result<(), Cause> {
    sys::listen(socket.as_fd(), backlog).map_err(|error| Attempt::Listen.failed()(errno(&error)))
}

/// The error number behind an error of std. One that std has made up itself (a path with a NUL) is an invalid argument.
pub(super) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}
