//! Listening sockets that the service manager has opened before it started this program (socket activation).
//!
//! The protocol (sd_listen_fds(3)): descriptors 3, 4, ... are the sockets, LISTEN_FDS is their number, LISTEN_PID the
//! process that they are meant for, LISTEN_FDNAMES (separated by colons) their names. The service manager keeps its own
//! copies, so a client that connects while the program restarts waits in the backlog and notices nothing; and the
//! socket file is the service manager's, so it is never deleted here.
//!
//! The environment is read at the start of the program and arrives here as values. [`given`] is pure; [`Inherited`]
//! takes the descriptors over, once, before any child is started: until then they are not close-on-exec.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::sockopt::{AcceptConn, SockType as SoType};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt};

use super::listener::{Family, Listener, Provenance};
use super::sys;

/// The first descriptor that the service manager hands over (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;

/// The name of a socket for which the service manager gives none (sd_listen_fds_with_names(3)).
const UNNAMED: &str = "unknown";

/// The environment's variables, as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Variables<'a> {
    /// LISTEN_PID.
    pub pid: Option<&'a str>,
    /// LISTEN_FDS.
    pub fds: Option<&'a str>,
    /// LISTEN_FDNAMES.
    pub names: Option<&'a str>,
}

/// A descriptor that was handed over, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The number of the descriptor in this process.
    pub fd: RawFd,
    /// The FileDescriptorName= of the descriptor; several may have the same.
    pub name: String,
}

/// The reason why there are no sockets to take over, or not the ones that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InheritError {
    /// LISTEN_FDS or LISTEN_PID is not set.
    NothingGiven,
    /// The variables are meant for another process and were only passed on.
    ForAnother {
        /// LISTEN_PID.
        listen_pid: u32,
        /// This process.
        own_pid: u32,
    },
    /// A variable is no number, or not as many names as descriptors.
    Malformed(&'static str, String),
    /// Descriptors were given, but none of this name is left unclaimed.
    NoSuchName {
        /// The name asked for; `None`: any.
        name: Option<String>,
        /// The names still there.
        left: Vec<String>,
    },
    /// No connection can be accepted from a descriptor.
    Unfit {
        /// The number of the descriptor.
        fd: RawFd,
        /// The flaw of the descriptor.
        reason: Unfit,
    },
}

/// The flaw of a descriptor from which nothing can be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The descriptor is not open, not a socket, or cannot be asked.
    System(Errno),
    /// The socket does not listen (Accept=yes in the socket unit, or a connected socket).
    NotListening,
    /// The socket is one for datagrams or packets.
    NotAStream,
    /// The socket is neither TCP nor UNIX.
    Family,
}

impl fmt::Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InheritError::NothingGiven => f.write_str(
                "the service manager has handed over no sockets (LISTEN_PID, LISTEN_FDS); start the socket unit, or \
                 listen on an address",
            ),
            InheritError::ForAnother { listen_pid, own_pid } => write!(
                f,
                "the sockets are meant for process {listen_pid} (LISTEN_PID), and this is {own_pid}; start this program \
                 directly from the unit, not through a shell or wrapper"
            ),
            InheritError::Malformed(variable, value) => write!(f, "{variable} makes no sense: {value:?}"),
            InheritError::NoSuchName { name, left } => {
                match name {
                    Some(name) => write!(f, "no socket of the name {name:?} is to be had")?,
                    None => f.write_str("no socket is left to be had")?,
                }
                match left.as_slice() {
                    [] => f.write_str("; all that were handed over are in use already"),
                    left => write!(f, "; there are: {}", left.join(", ")),
                }
            }
            InheritError::Unfit { fd, reason } => {
                write!(f, "descriptor {fd} that was handed over is not fit: ")?;
                reason.fmt(f)
            }
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::System(errno) => write!(f, "{} ({errno:?})", errno.desc()),
            Unfit::NotListening => f.write_str("it does not listen; write Accept=no in the socket unit"),
            Unfit::NotAStream => f.write_str("it is not a stream socket; write ListenStream= in the socket unit"),
            Unfit::Family => f.write_str("it is neither TCP nor UNIX"),
        }
    }
}

impl Error for InheritError {}

/// Returns the descriptors that the variables hand to the process `own_pid`.
///
/// # Errors
/// [`InheritError::NothingGiven`], [`InheritError::ForAnother`], [`InheritError::Malformed`].
pub fn given(variables: Variables<'_>, own_pid: u32) -> Result<Vec<Given>, InheritError> {
    let (Some(pid), Some(fds)) = (variables.pid, variables.fds) else {
        return Err(InheritError::NothingGiven);
    };
    let malformed = |variable, value: &str| InheritError::Malformed(variable, value.to_owned());
    let listen_pid = pid.parse().map_err(|_| malformed("LISTEN_PID", pid))?;
    if listen_pid != own_pid {
        return Err(InheritError::ForAnother { listen_pid, own_pid });
    }
    let count: u16 = fds.parse().map_err(|_| malformed("LISTEN_FDS", fds))?;
    let numbers = (0..count).map(|index| FIRST + RawFd::from(index));
    let names: Vec<&str> = match variables.names {
        None => vec![UNNAMED; usize::from(count)],
        // No descriptor, no name; splitting the empty string would make one.
        Some("") if count == 0 => Vec::new(),
        Some(names) => names.split(':').collect(),
    };
    if names.len() != usize::from(count) {
        return Err(malformed("LISTEN_FDNAMES", variables.names.unwrap_or_default()));
    }
    Ok(numbers
        .zip(names)
        .map(|(fd, name)| Given {
            fd,
            name: name.to_owned(),
        })
        .collect())
}

/// The sockets handed over and not claimed yet, each of them checked, close-on-exec and non-blocking.
#[derive(Debug)]
pub struct Inherited {
    sockets: Result<Vec<(String, Listener)>, InheritError>,
}

impl Inherited {
    /// Takes over what [`given`] has found.
    ///
    /// An error is kept for [`claim`](Self::claim), where it reaches a service that has asked for the sockets; to
    /// all others it does not matter. All descriptors are closed if one of them is not fit.
    pub fn take_over(given: Result<Vec<Given>, InheritError>) -> Inherited {
        let sockets = given.and_then(|given| given.into_iter().map(adopt_given).collect());
        Inherited { sockets }
    }

    /// The sockets that a predecessor was given by the service manager and has handed on.
    pub(super) fn handed_on(sockets: Vec<(String, Listener)>) -> Inherited {
        Inherited { sockets: Ok(sockets) }
    }

    /// An empty set: nothing was handed over.
    pub fn none() -> Inherited {
        Inherited {
            sockets: Err(InheritError::NothingGiven),
        }
    }

    /// The sockets called `name`, at least one; with `None`, all that are left.
    ///
    /// # Errors
    /// The reason why there are none, [`InheritError::NoSuchName`] above all.
    pub fn claim(&mut self, name: Option<&str>) -> Result<Vec<Listener>, InheritError> {
        let sockets = self.sockets.as_mut().map_err(|error| error.clone())?;
        let wanted = |(its, _): &mut (String, Listener)| name.is_none_or(|name| name == its);
        let claimed: Vec<Listener> = sockets.extract_if(.., wanted).map(|(_, listener)| listener).collect();
        if claimed.is_empty() {
            let left = sockets.iter().map(|(name, _)| name.clone()).collect();
            return Err(InheritError::NoSuchName {
                name: name.map(str::to_owned),
                left,
            });
        }
        Ok(claimed)
    }

    /// The sockets that were not claimed, with their names.
    pub fn rest(&self) -> impl Iterator<Item = &Listener> {
        self.sockets.iter().flatten().map(|(_, listener)| listener)
    }

    /// The names of sockets that were not claimed: unit and configuration do not fit together, which is worth a
    /// warning.
    pub fn unclaimed(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().flatten().map(|(name, _)| name.as_str())
    }
}

fn adopt_given(given: Given) -> Result<(String, Listener), InheritError> {
    let listener = adopt(given.fd, Provenance::Given(given.name.clone()))?;
    Ok((given.name, listener))
}

/// Takes over one descriptor that this process was started with, if it can be accepted from.
pub(super) fn adopt(fd: RawFd, provenance: Provenance) -> Result<Listener, InheritError> {
    let unfit = |reason| InheritError::Unfit { fd, reason };
    let socket = sys::take_over(fd).map_err(|error| unfit(Unfit::System(super::bind::errno(&error))))?;
    let family = check(&socket).map_err(unfit)?;
    set_nonblocking(&socket).map_err(|errno| unfit(Unfit::System(errno)))?;
    let listener = Listener::from_socket(socket, family, provenance);
    listener.map_err(|error: io::Error| unfit(Unfit::System(super::bind::errno(&error))))
}

/// Accepting works on a socket, of a stream type, that listens, of a family we speak.
fn check(socket: &OwnedFd) -> Result<Family, Unfit> {
    // A type that nix does not know comes back as EINVAL; something that is no socket, as ENOTSOCK.
    match getsockopt(socket, SoType) {
        Ok(SockType::Stream) => {}
        Ok(_) | Err(Errno::EINVAL) => return Err(Unfit::NotAStream),
        Err(errno) => return Err(Unfit::System(errno)),
    }
    if !getsockopt(socket, AcceptConn).map_err(Unfit::System)? {
        return Err(Unfit::NotListening);
    }
    let name: SockaddrStorage = getsockname(socket.as_raw_fd()).map_err(Unfit::System)?;
    match name.family() {
        Some(AddressFamily::Inet | AddressFamily::Inet6) => Ok(Family::Tcp),
        Some(AddressFamily::Unix) => Ok(Family::Unix),
        _ => Err(Unfit::Family),
    }
}

fn set_nonblocking(socket: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsFd, IntoRawFd};
    use std::os::unix::net::UnixListener;

    use super::super::addr::ListenAddr;
    use super::super::bind::UnixSocketOptions;
    use super::super::scaffold::{accept, tcp_addr};
    use super::*;

    fn variables<'a>(pid: &'a str, fds: &'a str, names: Option<&'a str>) -> Variables<'a> {
        Variables {
            pid: Some(pid),
            fds: Some(fds),
            names,
        }
    }

    #[test]
    fn the_variables_say_which_descriptors() {
        let found = given(variables("42", "2", Some("web:admin")), 42).expect("two");
        let expected = [(3, "web"), (4, "admin")].map(|(fd, name)| Given { fd, name: name.into() });
        assert_eq!(found, expected);
        let found = given(variables("42", "1", None), 42).expect("one");
        assert_eq!(
            found,
            [Given {
                fd: 3,
                name: "unknown".into()
            }]
        );
        assert_eq!(given(variables("42", "0", Some("")), 42), Ok(Vec::new()));
    }

    #[test]
    fn a_missing_or_malformed_variable_is_an_error_of_its_own() {
        assert_eq!(given(Variables::default(), 42), Err(InheritError::NothingGiven));
        let another = InheritError::ForAnother {
            listen_pid: 41,
            own_pid: 42,
        };
        assert_eq!(given(variables("41", "1", None), 42), Err(another));
        for (pid, fds, names, variable) in [
            ("x", "1", None, "LISTEN_PID"),
            ("42", "-1", None, "LISTEN_FDS"),
            ("42", "99999999", None, "LISTEN_FDS"),
            ("42", "2", Some("one"), "LISTEN_FDNAMES"),
            ("42", "1", Some("one:two"), "LISTEN_FDNAMES"),
        ] {
            let error = given(variables(pid, fds, names), 42).expect_err(variable);
            assert!(
                matches!(&error, InheritError::Malformed(found, _) if *found == variable),
                "{error}"
            );
        }
    }

    /// A descriptor as exec leaves it: open, without an owner, not close-on-exec.
    fn bequeath(socket: impl Into<OwnedFd>, name: &str) -> Given {
        let fd = nix::unistd::dup(socket.into()).expect("dup").into_raw_fd();
        Given {
            fd,
            name: name.to_owned(),
        }
    }

    fn tcp(name: &str) -> Given {
        bequeath(TcpListener::bind("127.0.0.1:0").expect("bind"), name)
    }

    fn refusal(given: Given) -> InheritError {
        Inherited::take_over(Ok(vec![given])).claim(None).expect_err("unfit")
    }

    #[test]
    fn sockets_are_claimed_by_name_once_and_serve() {
        let mut inherited = Inherited::take_over(Ok(vec![tcp("web"), tcp("admin"), tcp("web")]));
        let web = inherited.claim(Some("web")).expect("two sockets of that name");
        assert_eq!(web.len(), 2);
        assert_eq!(inherited.unclaimed().collect::<Vec<_>>(), ["admin"]);
        let gone = inherited.claim(Some("web")).expect_err("claimed already");
        assert!(gone.to_string().contains("there are: admin"), "{gone}");
        assert_eq!(inherited.claim(None).expect("the rest").len(), 1);
        assert!(
            inherited
                .claim(None)
                .expect_err("none left")
                .to_string()
                .contains("in use already")
        );
        for listener in &web {
            let _client = TcpStream::connect(tcp_addr(listener)).expect("connect");
            accept(listener);
            // std has made it a blocking one.
            let flags = fcntl(listener, FcntlArg::F_GETFL).expect("F_GETFL");
            assert!(OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
        }
    }

    #[test]
    fn the_file_of_an_inherited_socket_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let mut inherited = Inherited::take_over(Ok(vec![bequeath(UnixListener::bind(&path).expect("bind"), "x")]));
        let address = ListenAddr::Inherited(Some("x".into()));
        let listeners = Listener::open(&address, &UnixSocketOptions::default(), 1, &mut inherited).expect("open");
        assert_eq!(
            listeners[0].local_addr().to_string(),
            format!("unix:{}", path.display())
        );
        drop(listeners);
        assert!(path.exists());
    }

    #[test]
    fn a_descriptor_that_is_no_listening_stream_is_refused() {
        let unfit = |error| match error {
            InheritError::Unfit { reason, .. } => reason,
            other => panic!("{other}"),
        };
        let udp = bequeath(UdpSocket::bind("127.0.0.1:0").expect("bind"), "u");
        assert_eq!(unfit(refusal(udp)), Unfit::NotAStream);
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("pair");
        assert_eq!(unfit(refusal(bequeath(one, "c"))), Unfit::NotListening);
        let (pipe, _other) = std::io::pipe().expect("pipe");
        assert_eq!(unfit(refusal(bequeath(pipe, "p"))), Unfit::System(Errno::ENOTSOCK));
        assert_eq!(
            unfit(refusal(Given {
                fd: RawFd::MAX,
                name: String::new()
            })),
            Unfit::System(Errno::EBADF)
        );
    }

    #[test]
    fn a_descriptor_that_this_process_owns_already_is_not_taken() {
        let owned = TcpListener::bind("127.0.0.1:0").expect("bind");
        let error = refusal(Given {
            fd: owned.as_fd().as_raw_fd(),
            name: String::new(),
        });
        assert!(
            matches!(
                error,
                InheritError::Unfit {
                    reason: Unfit::System(Errno::EBUSY),
                    ..
                }
            ),
            "{error}"
        );
        assert!(owned.local_addr().is_ok(), "still open");
    }

    #[test]
    fn an_inherited_address_without_a_socket_names_the_remedy() {
        let address = ListenAddr::Inherited(None);
        let error = Listener::open(&address, &UnixSocketOptions::default(), 1, &mut Inherited::none());
        let error = error.expect_err("nothing given").to_string();
        assert!(
            error.contains("unable to listen on systemd") && error.contains("socket unit"),
            "{error}"
        );
        assert!(Listener::bind(&address, &UnixSocketOptions::default(), 1).is_err());
    }
}
