//! Listening sockets that a daemon hands to its successor, and the table that describes them.
//!
//! A daemon that is upgraded starts its new binary with a duplicate of each of its listening sockets. To the kernel it
//! is the same socket, with the same backlog, in two processes: a client that connects at any moment of the change is
//! accepted by one or the other. The table names the service and the address for which each descriptor was opened, so
//! that the successor, which reads its configuration again, knows which ones it has already; a port that was 0 stays
//! the one chosen then. Sockets of the service manager keep the names that it has given them.
//!
//! A line a socket, fields separated by tabs:
//!
//! ```text
//! FD bound DEVICE:INODE SERVICE ADDRESS     bound here; `-` for what has made no file
//! FD given NAME                             from the service manager
//! ```
//!
//! The successor takes charge of the socket files only once it serves ([`Listener::take_charge`]). The way and the time
//! in which table and descriptors get there do not belong here.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use super::addr::ListenAddr;
use super::inherit::{InheritError, Inherited, adopt};
use super::listener::{Listener, Provenance};
use super::sys;
use super::unix_file::FileId;

/// The sockets to be handed over, collected by the daemon that ends.
#[derive(Debug, Default)]
pub struct Outgoing {
    sockets: Vec<OwnedFd>,
    table: String,
}

impl Outgoing {
    /// Adds a listener that `service` has opened for `address`. It stays as it is; a duplicate goes.
    ///
    /// # Errors
    /// EMFILE; InvalidInput for a name that the service manager could not have given.
    pub fn add(&mut self, service: &str, address: &ListenAddr, listener: &Listener) -> io::Result<()> {
        let what = match listener.provenance() {
            Provenance::Given(name) if name.contains(char::is_control) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            Provenance::Given(name) => What::Given(name.clone()),
            Provenance::Bound | Provenance::HandedOver(_) => What::Bound {
                service: service.to_owned(),
                address: address.clone(),
                file: listener.file_id(),
            },
        };
        let socket = listener.as_fd().try_clone_to_owned()?;
        let fd = socket.as_raw_fd();
        self.sockets.push(socket);
        self.table.push_str(&Entry { fd, what }.to_string());
        Ok(())
    }

    /// The descriptors, which keep their numbers in the successor, and the table.
    #[must_use]
    pub fn into_parts(self) -> (Vec<OwnedFd>, String) {
        (self.sockets, self.table)
    }
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    fd: RawFd,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Bound {
        service: String,
        address: ListenAddr,
        file: Option<FileId>,
    },
    Given(String),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fd = self.fd;
        match &self.what {
            What::Given(name) => writeln!(f, "{fd}\tgiven\t{name}"),
            What::Bound { service, address, file } => {
                write!(f, "{fd}\tbound\t")?;
                match file {
                    Some(file) => file.fmt(f)?,
                    None => f.write_str("-")?,
                }
                writeln!(f, "\t{service}\t{address}")
            }
        }
    }
}

/// A line of the table that makes no sense: it was not written by a daemon of this kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTable(String);

impl fmt::Display for BadTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the table of the sockets handed over makes no sense: {:?}", self.0)
    }
}

impl std::error::Error for BadTable {}

/// Reads the table.
///
/// # Errors
/// The first line that makes no sense.
pub fn parse(table: &str) -> Result<Vec<Entry>, BadTable> {
    let lines = table.split('\n').filter(|line| !line.is_empty());
    lines
        .map(|line| entry(line).ok_or_else(|| BadTable(line.to_owned())))
        .collect()
}

fn entry(line: &str) -> Option<Entry> {
    let (fd, rest) = line.split_once('\t')?;
    let (kind, rest) = rest.split_once('\t')?;
    let what = match kind {
        "given" => (!rest.contains(char::is_control)).then(|| What::Given(rest.to_owned()))?,
        "bound" => {
            let mut fields = rest.splitn(3, '\t');
            let (file, service, address) = (fields.next()?, fields.next()?, fields.next()?);
            What::Bound {
                service: service.to_owned(),
                address: address.parse().ok()?,
                file: (file != "-").then(|| file.parse()).transpose().ok()?,
            }
        }
        _ => return None,
    };
    let fd = fd.parse().ok().filter(|fd| *fd >= 0)?;
    Some(Entry { fd, what })
}

/// Takes over the connection to the predecessor, which was handed over like the sockets.
///
/// # Errors
/// As for those: the descriptor is not open, or not what was handed over.
pub fn take_over_connection(fd: RawFd) -> io::Result<UnixStream> {
    sys::take_over(fd).map(UnixStream::from)
}

/// The sockets that were handed over to this successor and are not claimed yet.
#[derive(Debug, Default)]
pub struct HandedOver {
    bound: Vec<Bound>,
}

#[derive(Debug)]
struct Bound {
    service: String,
    address: ListenAddr,
    listener: Listener,
}

impl HandedOver {
    /// Takes over the descriptors of the table, which a predecessor has bound or the service manager has given. Must be
    /// called once, before any child is started.
    ///
    /// # Errors
    /// A descriptor is not what the table says; all are closed then.
    pub fn take_over(table: Vec<Entry>) -> Result<(HandedOver, Inherited), InheritError> {
        let (mut bound, mut given) = (Vec::new(), Vec::new());
        for Entry { fd, what } in table {
            match what {
                What::Given(name) => given.push((name.clone(), adopt(fd, Provenance::Given(name))?)),
                What::Bound { service, address, file } => {
                    let mut listener = adopt(fd, Provenance::HandedOver(file))?;
                    listener.tell_as(&address);
                    bound.push(Bound {
                        service,
                        address,
                        listener,
                    });
                }
            }
        }
        Ok((HandedOver { bound }, Inherited::handed_on(given)))
    }

    /// Takes the socket for an address of a service: its own, or that of another which has given it up. Port 0 is no
    /// address that could be given up.
    pub fn claim(&mut self, service: &str, address: &ListenAddr) -> Option<Listener> {
        let same = |bound: &Bound| bound.address == *address;
        let own = self.bound.iter().position(|it| same(it) && it.service == service);
        let anybodys = || self.bound.iter().position(same).filter(|_| address.port() != Some(0));
        let place = own.or_else(anybodys)?;
        Some(self.bound.remove(place).listener)
    }

    /// The sockets that were not claimed, with what their service and address were.
    pub fn into_rest(self) -> impl Iterator<Item = (String, ListenAddr, Listener)> {
        let rest = self.bound.into_iter();
        rest.map(|bound| (bound.service, bound.address, bound.listener))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::IntoRawFd;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::super::bind::UnixSocketOptions;
    use super::super::scaffold::tcp_addr;
    use super::*;

    fn bind(address: &str) -> (ListenAddr, Listener) {
        let address: ListenAddr = address.parse().unwrap();
        let listener = Listener::bind(&address, &UnixSocketOptions::default(), 16).unwrap();
        (address, listener)
    }

    /// Does to descriptors what the exec of a successor does: they have no owner, and stay open.
    fn pass(outgoing: Outgoing) -> (HandedOver, Inherited) {
        let (sockets, table) = outgoing.into_parts();
        for socket in sockets {
            fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            let _ = socket.into_raw_fd();
        }
        HandedOver::take_over(parse(&table).unwrap()).unwrap()
    }

    #[test]
    fn a_socket_is_claimed_by_service_and_address_and_keeps_its_port() {
        let (any, first) = bind("127.0.0.1:0");
        let (_, second) = bind("127.0.0.1:0");
        let mut outgoing = Outgoing::default();
        outgoing.add("a", &any, &first).unwrap();
        outgoing.add("b", &any, &second).unwrap();
        let (mut handed, _) = pass(outgoing);
        assert!(handed.claim("c", &any).is_none(), "any port is nobody's to give up");
        assert_eq!(tcp_addr(&handed.claim("b", &any).unwrap()), tcp_addr(&second));
        assert_eq!(tcp_addr(&handed.claim("a", &any).unwrap()), tcp_addr(&first));
        assert!(handed.claim("a", &any).is_none());
    }

    #[test]
    fn a_service_under_a_new_name_gets_the_address_of_the_old_one() {
        let (_, listener) = bind("127.0.0.1:0");
        let address = ListenAddr::tcp(tcp_addr(&listener));
        let mut outgoing = Outgoing::default();
        outgoing.add("old", &address, &listener).unwrap();
        let (mut handed, _) = pass(outgoing);
        assert!(handed.claim("new", &"127.0.0.1:1".parse().unwrap()).is_none());
        assert!(handed.claim("new", &address).is_some());
        assert_eq!(handed.into_rest().count(), 0);
    }

    #[test]
    fn the_file_is_deleted_by_the_process_that_has_charge_of_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let (address, listener) = bind(&format!("unix:{}", path.display()));
        let mut outgoing = Outgoing::default();
        outgoing.add("a", &address, &listener).unwrap();
        drop(pass(outgoing));
        assert!(path.exists(), "a successor that never serves deletes nothing");

        let mut outgoing = Outgoing::default();
        outgoing.add("a", &address, &listener).unwrap();
        let mut successor = pass(outgoing).0.claim("a", &address).unwrap();
        let mut predecessor = listener;
        predecessor.disown_file();
        drop(predecessor);
        assert!(path.exists());
        successor.take_charge();
        // And it can hand it on in its turn.
        let mut outgoing = Outgoing::default();
        outgoing.add("a", &address, &successor).unwrap();
        let mut third = pass(outgoing).0.claim("a", &address).unwrap();
        successor.disown_file();
        drop(successor);
        third.take_charge();
        fs::symlink_metadata(&path).unwrap();
        drop(third);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_from_the_service_manager_keeps_its_name() {
        let (_, bound) = bind("127.0.0.1:0");
        let mut outgoing = Outgoing::default();
        let given = adopted(&bound, Provenance::Given("web".into()));
        outgoing.add("a", &ListenAddr::Inherited(None), &given).unwrap();
        let (mut handed, mut inherited) = pass(outgoing);
        assert!(handed.claim("a", &ListenAddr::Inherited(None)).is_none());
        assert_eq!(inherited.claim(Some("web")).unwrap().len(), 1);
    }

    fn adopted(listener: &Listener, provenance: Provenance) -> Listener {
        let socket = listener.as_fd().try_clone_to_owned().unwrap();
        Listener::from_socket(socket, super::super::listener::Family::Tcp, provenance).unwrap()
    }

    #[test]
    fn a_table_that_makes_no_sense_is_refused_by_its_line() {
        for line in [
            "3",
            "3\tbound",
            "-1\tgiven\tx",
            "x\tgiven\tx",
            "3\tgiven\ta\tb",
            "3\tbound\t-\tpool\tnowhere",
            "3\tbound\t1\tpool\t127.0.0.1:1",
            "3\ttaken\tx",
        ] {
            let table = format!("4\tgiven\tfine\n{line}\n");
            assert_eq!(parse(&table), Err(BadTable(line.to_owned())));
        }
        assert_eq!(parse(""), Ok(Vec::new()));
    }
}
