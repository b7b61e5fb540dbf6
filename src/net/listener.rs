//! A listening socket, TCP or UNIX.
//!
//! It is made bound and listening ([`Listener::bind`]) or is taken over from the service manager
//! ([`inherit`](super::inherit)); [`Listener::open`] does whichever the address asks for. It is registered once with
//! the reactor for reading. A service that accepts from it must go on until `WouldBlock` or remember that there is
//! more: [`Acceptor`](super::accept::Acceptor) does that.
//!
//! A listener that has made a socket file deletes it when it is dropped, before its socket closes, so that a client
//! finds either a server or nothing. It leaves a file alone that another process has put there since, and any file
//! after [`disown_file`](Listener::disown_file), which is for a socket that another process has been given. That
//! process becomes responsible for the file when it calls [`take_charge`](Listener::take_charge), so that one that
//! never gets to serve deletes nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpNoDelay;

use super::addr::{ListenAddr, PeerAddr, UnixAddr};
use super::bind::{self, UnixSocketOptions};
use super::bind_error::{Attempt, BindError, Cause};
use super::inherit::Inherited;
use super::stream::Stream;
use super::unix_file::{FileId, OwnedFile};

/// A socket from which connections are accepted.
#[derive(Debug)]
pub struct Listener {
    // Before `socket`, so that it is dropped before it: see the head of this file.
    file: Option<OwnedFile>,
    socket: Socket,
    local: ListenAddr,
    provenance: Provenance,
}

/// The way in which this process has got a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Provenance {
    /// This process has bound it.
    Bound,
    /// The service manager has handed it over under this name.
    Given(String),
    /// A predecessor has bound it and handed it over, with this file if there is one. The file is not this
    /// process's yet.
    HandedOver(Option<FileId>),
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The kind of address that a socket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Tcp,
    Unix,
}

impl Listener {
    /// Opens the listeners that `address` stands for: one bound here, or the sockets (one or more) that the service
    /// manager has handed over under that name. `backlog` is the number of connections that may wait to be accepted;
    /// the kernel caps it at net.core.somaxconn. An inherited socket keeps its backlog, mode and owner.
    ///
    /// # Errors
    /// One line that says what failed and what to do.
    pub fn open(
        address: &ListenAddr,
        options: &UnixSocketOptions,
        backlog: u32,
        inherited: &mut Inherited,
    ) -> Result<Vec<Listener>, BindError> {
        let ListenAddr::Inherited(name) = address else {
            return Listener::bind(address, options, backlog).map(|listener| vec![listener]);
        };
        let claimed = inherited.claim(name.as_deref());
        claimed.map_err(|error| BindError::new(address, Cause::Inherited(error)))
    }

    /// Binds `address` and listens. A stale socket file is deleted first; a file that is anything else never is.
    ///
    /// # Errors
    /// One line that says what failed and what to do; also for [`ListenAddr::Inherited`], which cannot be bound.
    pub fn bind(address: &ListenAddr, options: &UnixSocketOptions, backlog: u32) -> Result<Listener, BindError> {
        Listener::try_bind(address, options, backlog).map_err(|cause| BindError::new(address, cause))
    }

    fn try_bind(address: &ListenAddr, options: &UnixSocketOptions, backlog: u32) -> Result<Listener, Cause> {
        let (socket, file, family) = match address {
            ListenAddr::Tcp(address) => (bind::tcp(*address, backlog)?, None, Family::Tcp),
            ListenAddr::TcpAny { port } => (bind::tcp_any(*port, backlog)?, None, Family::Tcp),
            ListenAddr::Unix(name) => {
                let (socket, file) = bind::unix(name, options, backlog)?;
                (socket, file, Family::Unix)
            }
            ListenAddr::Inherited(_) => return Err(Cause::NotBound),
        };
        let listener = Listener::from_socket(socket, family, Provenance::Bound);
        let mut listener = listener.map_err(|error| Attempt::Name.failed()(bind::errno(&error)))?;
        listener.file = file;
        listener.tell_as(address);
        Ok(listener)
    }

    /// Shows a listener for `*:PORT` under that address, unless it is IPv4 alone, for want of IPv6.
    pub(super) fn tell_as(&mut self, address: &ListenAddr) {
        if let (ListenAddr::TcpAny { .. }, ListenAddr::Tcp(SocketAddr::V6(local))) = (address, &self.local) {
            self.local = ListenAddr::TcpAny { port: local.port() };
        }
    }

    /// A socket that listens already, is non-blocking and close-on-exec, and whose file, if any, belongs to others.
    pub(super) fn from_socket(socket: OwnedFd, family: Family, provenance: Provenance) -> io::Result<Listener> {
        let socket = match family {
            Family::Tcp => Socket::Tcp(TcpListener::from(socket)),
            Family::Unix => Socket::Unix(UnixListener::from(socket)),
        };
        let local = match &socket {
            Socket::Tcp(listener) => ListenAddr::tcp(listener.local_addr()?),
            Socket::Unix(listener) => {
                let name = UnixAddr::from_socket_addr(&listener.local_addr()?);
                ListenAddr::Unix(name.ok_or(nix::errno::Errno::EADDRNOTAVAIL)?)
            }
        };
        Ok(Listener {
            file: None,
            socket,
            local,
            provenance,
        })
    }

    /// The address on which it listens, as the kernel knows it: port 0 has become the port chosen, an inherited socket
    /// the address that it is bound to. `*:PORT` is still that, or `0.0.0.0:PORT` on a machine without IPv6.
    pub fn local_addr(&self) -> &ListenAddr {
        &self.local
    }

    /// Makes the connections accepted from now on send small writes at once although earlier ones are unacknowledged:
    /// accepted sockets inherit TCP_NODELAY, so it costs no system call for each. A UNIX socket does so anyway.
    ///
    /// # Errors
    /// setsockopt(2), which does not fail on an open socket.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(listener) => Ok(setsockopt(listener, TcpNoDelay, &true)?),
            Socket::Unix(_) => Ok(()),
        }
    }

    /// Accepts one connection, with one system call (accept4): non-blocking, close-on-exec, TCP_NODELAY as the listener
    /// [has it](Self::set_nodelay).
    ///
    /// # Errors
    /// accept(2), all of it; [`accept::verdict`](super::accept::verdict) says what each means.
    pub fn accept(&self) -> io::Result<(Stream, PeerAddr)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream::Tcp(stream), PeerAddr::tcp(peer)))
            }
            Socket::Unix(listener) => {
                let (stream, _unnamed) = listener.accept()?;
                Ok((Stream::Unix(stream), PeerAddr::Unix))
            }
        }
    }

    /// Leaves the socket's file to another process, which has been given the socket: dropping this listener does not
    /// delete it.
    pub fn disown_file(&mut self) {
        if let Some(file) = self.file.take() {
            file.disown();
        }
    }

    /// Takes over the file of a socket that a predecessor has handed over. Must be called once this process serves in
    /// its place.
    pub fn take_charge(&mut self) {
        if let Provenance::HandedOver(file) = self.provenance {
            let path = match &self.local {
                ListenAddr::Unix(name) => name.path(),
                _ => None,
            };
            self.file = path.zip(file).map(|(path, id)| OwnedFile::inherited(path, id));
            self.provenance = Provenance::Bound;
        }
    }

    /// The file that goes with the socket when it is handed over.
    pub(super) fn file_id(&self) -> Option<FileId> {
        self.file.as_ref().map(OwnedFile::id)
    }

    pub(super) fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The source of its events.
    pub(super) fn source(&mut self) -> &mut dyn Source {
        match &mut self.socket {
            Socket::Tcp(listener) => listener,
            Socket::Unix(listener) => listener,
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::net as unix;
    use std::path::Path;

    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    use nix::sys::socket::getsockopt;

    use super::super::scaffold::{accept, listen, tcp_addr};
    use super::*;

    fn unix_addr(path: &Path) -> ListenAddr {
        ListenAddr::Unix(UnixAddr::Path(path.to_path_buf()))
    }

    fn bind(address: &ListenAddr) -> Result<Listener, BindError> {
        Listener::bind(address, &UnixSocketOptions::default(), 16)
    }

    fn refusal(address: &ListenAddr) -> String {
        bind(address).expect_err("a refusal").to_string()
    }

    fn has_flags(socket: &impl AsFd) -> bool {
        let closes = fcntl(socket, FcntlArg::F_GETFD).expect("F_GETFD") & FdFlag::FD_CLOEXEC.bits() != 0;
        closes && fcntl(socket, FcntlArg::F_GETFL).expect("F_GETFL") & OFlag::O_NONBLOCK.bits() != 0
    }

    #[test]
    fn port_zero_becomes_the_port_chosen() {
        let listener = listen("127.0.0.1:0");
        let address = tcp_addr(&listener);
        assert_ne!(address.port(), 0);
        let client = TcpStream::connect(address).expect("connect");
        let (stream, peer) = accept(&listener);
        assert_eq!(peer, PeerAddr::Tcp(client.local_addr().expect("an address")));
        assert!(has_flags(&listener) && has_flags(&stream));
    }

    #[test]
    fn the_star_takes_both_families_and_knows_ipv4_peers_as_such() {
        let listener = listen("*:0");
        let port = listener.local_addr().port().expect("a port");
        let _four = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
        assert_eq!(accept(&listener).1.ip(), Some(Ipv4Addr::LOCALHOST.into()));
        // A machine without IPv6, or whose loopback has none, can show the first half only.
        if bind(&"[::1]:0".parse().expect("an address")).is_ok() {
            assert_eq!(listener.local_addr(), &ListenAddr::TcpAny { port });
            let _six = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("connect");
            assert_eq!(accept(&listener).1.ip(), Some(Ipv6Addr::LOCALHOST.into()));
        }
    }

    #[test]
    fn both_unspecified_addresses_may_be_given_with_one_port() {
        // The port that the kernel gives may be another program's in the other family.
        let pair = std::iter::repeat_with(|| {
            let six = listen("[::]:0");
            let port = six.local_addr().port().expect("a port");
            let four = bind(&ListenAddr::Tcp((Ipv4Addr::UNSPECIFIED, port).into()));
            Some((six, four.ok()?, port))
        });
        let (_six, four, port) = pair.take(100).flatten().next().expect("the IPv6 socket is IPv6 only");
        let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
        assert_eq!(accept(&four).1.ip(), Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_port_in_use_is_told_with_the_command_that_finds_its_user() {
        let listener = listen("127.0.0.1:0");
        let error = bind(listener.local_addr()).expect_err("in use");
        assert_eq!(error.errno(), Some(nix::errno::Errno::EADDRINUSE));
        let port = tcp_addr(&listener).port();
        assert!(
            error.to_string().contains(&format!("`ss -ltnp sport = :{port}`")),
            "{error}"
        );
    }

    #[test]
    fn an_address_of_another_machine_is_told_so() {
        // TEST-NET-1 (RFC 5737) belongs to no machine.
        let error = refusal(&"192.0.2.1:0".parse().expect("an address"));
        assert!(
            error.contains("EADDRNOTAVAIL") && error.contains("`ip address`"),
            "{error}"
        );
    }

    #[test]
    fn a_unix_listener_serves_and_takes_its_file_along() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let listener = bind(&unix_addr(&path)).expect("bind");
        assert_eq!(listener.local_addr(), &unix_addr(&path));
        let mut client = unix::UnixStream::connect(&path).expect("connect");
        let (mut stream, peer) = accept(&listener);
        assert_eq!(peer, PeerAddr::Unix);
        assert!(has_flags(&listener) && has_flags(&stream));
        stream.write_all(b"hello").expect("write");
        drop(stream);
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("read");
        assert_eq!(answer, "hello");
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn accepted_connections_inherit_that_small_writes_leave_at_once() {
        let listener = listen("127.0.0.1:0");
        for is_set in [false, true] {
            if is_set {
                listener.set_nodelay().expect("an open socket");
            }
            let _client = TcpStream::connect(tcp_addr(&listener)).expect("connect");
            let (served, _) = accept(&listener);
            assert_eq!(getsockopt(&served, TcpNoDelay).expect("an option"), is_set);
        }
        let directory = tempfile::tempdir().expect("a directory");
        let unix = bind(&unix_addr(&directory.path().join("s"))).expect("bind");
        unix.set_nodelay().expect("nothing to be set");
    }

    #[test]
    fn an_abstract_socket_has_no_file() {
        let name = format!("unix:@iotcpd-test-{}", std::process::id());
        let listener = listen(&name);
        assert_eq!(listener.local_addr().to_string(), name);
        let error = refusal(&name.parse().expect("an address"));
        assert!(error.contains("`ss -lxp`"), "{error}");
        let ListenAddr::Unix(address) = listener.local_addr() else {
            panic!("not UNIX")
        };
        let _client = Stream::connect_unix(address).expect("connect");
        assert_eq!(accept(&listener).1, PeerAddr::Unix);
    }

    #[test]
    fn mode_and_owner_are_as_asked_whatever_the_umask() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let me = fs::metadata(directory.path()).expect("metadata");
        // Only root can show that the file changes hands; others can but give it to themselves.
        let (owner, group) = match nix::unistd::geteuid().is_root() {
            true => (54_321, 54_322),
            false => (me.uid(), me.gid()),
        };
        // 0o606 is nothing that a umask leaves by chance.
        let options = UnixSocketOptions {
            mode: Some(0o606),
            owner: Some(owner),
            group: Some(group),
        };
        let _listener = Listener::bind(&unix_addr(&path), &options, 1).expect("bind");
        let file = fs::metadata(&path).expect("metadata");
        assert_eq!(file.permissions().mode() & 0o7777, 0o606);
        assert_eq!((file.uid(), file.gid()), (owner, group));
    }

    #[test]
    fn the_remains_of_a_dead_server_are_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        // std leaves the file behind, as a killed server does.
        drop(unix::UnixListener::bind(&path).expect("bind"));
        assert!(path.exists());
        let _listener = bind(&unix_addr(&path)).expect("bind over the remains");
        assert!(unix::UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_running_server_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let _server = unix::UnixListener::bind(&path).expect("bind");
        let error = refusal(&unix_addr(&path));
        assert!(error.contains("address in use by a running server"), "{error}");
        assert!(unix::UnixStream::connect(&path).is_ok());
        let datagrams = directory.path().join("d");
        let _server = unix::UnixDatagram::bind(&datagrams).expect("bind");
        assert!(refusal(&unix_addr(&datagrams)).contains("running server"));
    }

    #[test]
    fn a_file_that_is_no_socket_is_never_deleted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("precious");
        fs::write(&path, "data").expect("write");
        assert!(refusal(&unix_addr(&path)).contains("not a socket"));
        let link = directory.path().join("link");
        drop(unix::UnixListener::bind(directory.path().join("stale")).expect("bind"));
        std::os::unix::fs::symlink(directory.path().join("stale"), &link).expect("symlink");
        assert!(
            refusal(&unix_addr(&link)).contains("not a socket"),
            "a link is not followed"
        );
        assert!(refusal(&unix_addr(directory.path())).contains("not a socket"));
        assert_eq!(fs::read_to_string(&path).expect("read"), "data");
    }

    #[test]
    fn a_successors_file_is_not_deleted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let first = bind(&unix_addr(&path)).expect("bind");
        fs::remove_file(&path).expect("remove");
        let _second = bind(&unix_addr(&path)).expect("bind");
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn a_file_given_away_is_not_deleted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let mut listener = bind(&unix_addr(&path)).expect("bind");
        let handed_over = listener.as_fd().try_clone_to_owned().expect("dup");
        listener.disown_file();
        drop(listener);
        assert!(
            unix::UnixStream::connect(&path).is_ok(),
            "the other owner still listens"
        );
        drop(handed_over);
        assert!(path.exists());
    }

    #[test]
    fn a_missing_directory_is_told_with_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = directory.path().join("missing");
        let error = refusal(&unix_addr(&missing.join("s")));
        assert!(
            error.contains(&format!("the directory {} must exist", missing.display())),
            "{error}"
        );
        let file = directory.path().join("file");
        fs::write(&file, "").expect("write");
        let error = refusal(&unix_addr(&file.join("s")));
        assert!(error.contains("is not a directory"), "{error}");
    }
}
