//! The reference of `scripts/bench route`: a router as one would write it in C. One thread, one epoll loop; it reads a
//! ClientHello, looks the name up, connects to the one server, and passes bytes on: small pieces by read and write, more
//! by splice through a pipe. It has no limits, no deadlines, no retries and no statistics, and what it cannot do at once
//! it does not do: the connection is closed.
//!
//! `bare-router PORT SERVER NAMES`: routes `www0.example.org` up to that number of names to SERVER, an address. It says
//! `listening on ADDRESS` on standard error when it is ready, and ends by a signal.
#![expect(unsafe_code, reason = "epoll without a library in between; see epoll/mod.rs")]

mod epoll;
mod hello;

use std::collections::HashSet;
use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use epoll::{Change, LISTENER};
use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::sys::socket::sockopt::TcpNoDelay;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, SockaddrStorage, accept4, connect, setsockopt, shutdown, socket,
};
use nix::unistd::{pipe2, read, write};

/// The number of bytes that are read at most. A read of that many is followed by splices.
const PIECE: usize = 16 << 10;
/// The number of bytes that a splice is asked to move.
const BULK: usize = 1 << 20;

type Pipe = (OwnedFd, OwnedFd);

/// One direction: the bytes that have been taken and not put.
#[derive(Default)]
struct Way {
    held: Vec<u8>,
    /// A pipe with this number of bytes in it.
    piped: Option<(Pipe, usize)>,
    /// True if the last piece was as large as a piece can be.
    is_bulk: bool,
    /// True if a read may find something.
    is_readable: bool,
    /// True if the end is behind the bytes that have come, of which no further event tells.
    reads_to_end: bool,
    has_ended: bool,
}

/// A connection of a client, and the one to the server once the name is known.
struct Route {
    client: OwnedFd,
    server: Option<OwnedFd>,
    up: Way,
    down: Way,
}

/// The state of a way, or of a route, after it was driven.
#[derive(PartialEq)]
enum After {
    Wait,
    Ended,
    Close,
}

struct Router {
    epoll: epoll::Epoll,
    server: SockaddrStorage,
    names: HashSet<String>,
    routes: Vec<Option<Route>>,
    /// The places of routes by the number of either descriptor.
    places: Vec<usize>,
    free: Vec<usize>,
    pipes: Vec<Pipe>,
    buffer: Vec<u8>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, server, names] = arguments.as_slice() else {
        return Err("usage: bare-router PORT SERVER NAMES".into());
    };
    let listener = epoll::listen_on(port.parse()?)?;
    // Accepted sockets inherit it.
    setsockopt(&listener, TcpNoDelay, &true)?;
    let names: usize = names.parse()?;
    let mut router = Router {
        epoll: epoll::Epoll::of_server(&listener)?,
        server: SockaddrStorage::from(server.parse::<SocketAddr>()?),
        names: (0..names).map(|number| format!("www{number}.example.org")).collect(),
        routes: Vec::new(),
        places: Vec::new(),
        free: Vec::new(),
        pipes: Vec::new(),
        buffer: vec![0; PIECE],
    };
    loop {
        let names: Vec<usize> = router.epoll.wait()?.collect();
        let changes: Vec<Change> = (0..names.len()).map(|event| router.epoll.change(event)).collect();
        for (name, change) in names.into_iter().zip(changes) {
            if name == LISTENER {
                router.accept_all(&listener)?;
            } else {
                router.take_in(name, change)?;
            }
        }
    }
}

impl Router {
    fn accept_all(&mut self, listener: &TcpListener) -> Result<(), Box<dyn Error>> {
        loop {
            let accepted = match accept4(listener.as_raw_fd(), SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC) {
                Ok(accepted) => accepted,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
                Err(error) => return Err(error.into()),
            };
            // SAFETY: accept4 has just returned this descriptor, and nothing else owns it.
            let client = unsafe { OwnedFd::from_raw_fd(accepted) };
            let mut route = Route {
                client,
                server: None,
                up: Way::default(),
                down: Way::default(),
            };
            route.up.is_readable = true;
            let place = self.free.pop().unwrap_or(self.routes.len());
            if place == self.routes.len() {
                self.routes.push(None);
            }
            self.note(&route.client, place)?;
            if let Some(slot) = self.routes.get_mut(place) {
                *slot = Some(route);
            }
            self.drive(place)?;
        }
    }

    /// Reports events of this socket as those of the route in this place.
    fn note(&mut self, socket: &OwnedFd, place: usize) -> Result<(), Box<dyn Error>> {
        let name = usize::try_from(socket.as_raw_fd())?;
        if self.places.len() <= name {
            self.places.resize(name + 1, usize::MAX);
        }
        if let Some(slot) = self.places.get_mut(name) {
            *slot = place;
        }
        Ok(self.epoll.add_both(socket, name)?)
    }

    /// Takes in the change of a socket of a route.
    fn take_in(&mut self, name: usize, change: Change) -> Result<(), Box<dyn Error>> {
        let Some(place) = self.places.get(name).copied() else {
            return Ok(());
        };
        if let Some(Some(route)) = self.routes.get_mut(place) {
            let is_of_client = usize::try_from(route.client.as_raw_fd()) == Ok(name);
            let way = if is_of_client { &mut route.up } else { &mut route.down };
            way.is_readable |= change.is_readable;
            way.reads_to_end |= change.has_ended;
        }
        self.drive(place)
    }

    /// Does what can be done for a route.
    fn drive(&mut self, place: usize) -> Result<(), Box<dyn Error>> {
        let Some(mut route) = self.routes.get_mut(place).and_then(Option::take) else {
            return Ok(());
        };
        if route.server.is_none() && self.open(&mut route, place)? == After::Close {
            self.free.push(place);
            return Ok(());
        }
        if let Some(server) = &route.server {
            let up = self.pass(&mut route.up, &route.client, server, route.down.has_ended);
            let down = self.pass(&mut route.down, server, &route.client, route.up.has_ended);
            let is_over = up == After::Close || down == After::Close || (up, down) == (After::Ended, After::Ended);
            if is_over {
                self.free.push(place);
                return Ok(());
            }
        }
        if let Some(slot) = self.routes.get_mut(place) {
            *slot = Some(route);
        }
        Ok(())
    }

    /// Reads the hello and connects, or waits for the rest of it.
    fn open(&mut self, route: &mut Route, place: usize) -> Result<After, Box<dyn Error>> {
        if !route.up.is_readable {
            return Ok(After::Wait);
        }
        route.up.is_readable = false;
        match read(&route.client, &mut self.buffer) {
            Ok(0) => return Ok(After::Close),
            Ok(count) => route
                .up
                .held
                .extend_from_slice(self.buffer.get(..count).unwrap_or_default()),
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(After::Wait),
            Err(_) => return Ok(After::Close),
        }
        match hello::read(&route.up.held) {
            hello::Found::More => return Ok(After::Wait),
            hello::Found::Name(Some(name)) if self.names.contains(name) => {}
            hello::Found::Name(_) => return Ok(After::Close),
        }
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let server = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        match connect(server.as_raw_fd(), &self.server) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(_) => return Ok(After::Close),
        }
        self.note(&server, place)?;
        route.server = Some(server);
        Ok(After::Wait)
    }

    /// Passes bytes from one socket to the other until one of them has none or takes none.
    fn pass(&mut self, way: &mut Way, from: &OwnedFd, to: &OwnedFd, is_last: bool) -> After {
        if way.has_ended {
            return After::Ended;
        }
        loop {
            match put(way, to) {
                Err(Errno::EAGAIN) => return After::Wait,
                Err(_) => return After::Close,
                Ok(()) => {}
            }
            if !way.is_readable {
                return After::Wait;
            }
            match self.take(way, from, to) {
                Ok(true) => {}
                Ok(false) => {
                    way.has_ended = true;
                    // Closing says the second end.
                    if !is_last && shutdown(to.as_raw_fd(), Shutdown::Write).is_err() {
                        return After::Close;
                    }
                    return After::Ended;
                }
                Err(Errno::EAGAIN) => way.is_readable = false,
                Err(_) => return After::Close,
            }
        }
    }

    /// Takes a piece and puts it, or takes what a pipe holds. Returns false at the end.
    fn take(&mut self, way: &mut Way, from: &OwnedFd, to: &OwnedFd) -> Result<bool, Errno> {
        if let Some((pipe, _)) = way.piped.take() {
            self.pipes.push(pipe);
        }
        if way.is_bulk {
            let pipe = match self.pipes.pop() {
                Some(pipe) => pipe,
                None => new_pipe()?,
            };
            match splice(from, None, &pipe.1, None, BULK, FLAGS) {
                Ok(count) if count > 0 => {
                    way.is_bulk = count >= PIECE;
                    way.piped = Some((pipe, count));
                    return Ok(true);
                }
                outcome => {
                    self.pipes.push(pipe);
                    return outcome.map(|_| false);
                }
            }
        }
        let count = read(from, &mut self.buffer)?;
        if count == 0 {
            return Ok(false);
        }
        way.is_bulk = count == PIECE;
        way.is_readable = way.is_bulk || way.reads_to_end;
        let piece = self.buffer.get(..count).unwrap_or_default();
        let written = match write(to, piece) {
            Err(Errno::EAGAIN) => 0,
            outcome => outcome?,
        };
        way.held.extend_from_slice(piece.get(written..).unwrap_or_default());
        Ok(true)
    }
}

const FLAGS: SpliceFFlags = SpliceFFlags::SPLICE_F_NONBLOCK.union(SpliceFFlags::SPLICE_F_MOVE);

fn new_pipe() -> Result<Pipe, Errno> {
    let pipe = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // A smaller one will do.
    let _ = nix::fcntl::fcntl(&pipe.0, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 20));
    Ok(pipe)
}

/// Puts all that the way holds.
fn put(way: &mut Way, to: &OwnedFd) -> Result<(), Errno> {
    while !way.held.is_empty() {
        let count = write(to, &way.held)?;
        way.held.drain(..count);
    }
    // The memory of the hello.
    way.held = Vec::new();
    while let Some((pipe, held)) = &mut way.piped
        && *held > 0
    {
        *held -= splice(&pipe.0, None, to, None, *held, FLAGS)?;
    }
    Ok(())
}
