//! The three epoll calls, for the reference servers and the load generators: level-triggered for reading, or
//! edge-triggered for both; and the start of a server.
//!
//! Plain epoll instead of mio, because the reference must have nothing between itself and the kernel.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{Backlog, listen};

/// The number of events that one wait may return.
const BATCH: usize = 256;

/// The name of the listener of a server; no descriptor has it.
#[allow(dead_code, reason = "for servers")]
pub(crate) const LISTENER: usize = usize::MAX;

/// A listener on this port of 127.0.0.1 that does not block. Its queue is as long as that of a pool: the one of std has
/// 128 places, and a full one costs a client a second.
#[allow(dead_code, reason = "for servers")]
pub(crate) fn listen_on(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listen(&listener, Backlog::new(1024)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// An epoll instance and the events of its last wait.
pub(crate) struct Epoll {
    descriptor: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// A change of a source.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "for routers")]
pub(crate) struct Change {
    /// There are bytes, an end or an error to read.
    pub(crate) is_readable: bool,
    /// The end is behind the bytes that have come.
    pub(crate) has_ended: bool,
}

impl Epoll {
    /// An empty one.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self {
            descriptor,
            events: Vec::with_capacity(BATCH),
        })
    }

    /// One that reports [`LISTENER`] when there is something to accept. Says on standard error that the server is ready.
    #[allow(dead_code, reason = "for servers")]
    pub(crate) fn of_server(listener: &TcpListener) -> io::Result<Self> {
        let epoll = Self::new()?;
        epoll.add(listener, LISTENER)?;
        eprintln!("listening on {}", listener.local_addr()?);
        Ok(epoll)
    }

    /// From now on, reports `name` when `source` can be read. Closing `source` takes it out again.
    pub(crate) fn add(&self, source: &impl AsRawFd, name: usize) -> io::Result<()> {
        self.add_for(libc::EPOLLIN, source, name)
    }

    /// The same, but once for each change, and also when it can be written or the peer has ended its side.
    #[allow(dead_code, reason = "for routers")]
    pub(crate) fn add_both(&self, source: &impl AsRawFd, name: usize) -> io::Result<()> {
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        self.add_for(events, source, name)
    }

    fn add_for(&self, events: libc::c_int, source: &impl AsRawFd, name: usize) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: name as u64,
        };
        let (epoll, source) = (self.descriptor.as_raw_fd(), source.as_raw_fd());
        // SAFETY: `event` lives through the call, which copies it; both descriptors are open, being borrowed.
        let done = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, source, &raw mut event) };
        if done < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Waits for events and returns the names of what can be read.
    pub(crate) fn wait(&mut self) -> io::Result<impl Iterator<Item = usize> + use<>> {
        let capacity = i32::try_from(self.events.capacity()).unwrap_or(i32::MAX);
        let buffer = self.events.as_mut_ptr();
        // SAFETY: `buffer` has room for `capacity` events and lives through the call.
        let found = unsafe { libc::epoll_wait(self.descriptor.as_raw_fd(), buffer, capacity, -1) };
        self.take(found)
    }

    /// The same, but for no longer than this; then there may be none.
    #[allow(dead_code, reason = "the reference server waits for ever")]
    pub(crate) fn wait_for(&mut self, longest: Duration) -> io::Result<impl Iterator<Item = usize> + use<>> {
        let capacity = i32::try_from(self.events.capacity()).unwrap_or(i32::MAX);
        let buffer = self.events.as_mut_ptr();
        let longest = libc::timespec {
            tv_sec: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(longest.subsec_nanos()),
        };
        let (epoll, no_mask) = (self.descriptor.as_raw_fd(), std::ptr::null());
        // SAFETY: `buffer` has room for `capacity` events; it and `longest` live through the call; a null mask changes
        // none.
        let found = unsafe { libc::epoll_pwait2(epoll, buffer, capacity, &raw const longest, no_mask) };
        self.take(found)
    }

    fn take(&mut self, found: i32) -> io::Result<impl Iterator<Item = usize> + use<>> {
        let found = match usize::try_from(found) {
            Ok(found) => found,
            // A tracer that attaches interrupts the wait.
            Err(_) if Errno::last() == Errno::EINTR => 0,
            Err(_) => return Err(io::Error::last_os_error()),
        };
        // SAFETY: the kernel has initialised the first `found` events, and `found` is at most the capacity.
        unsafe { self.events.set_len(found) };
        let names: Vec<usize> = self
            .events
            .iter()
            .filter_map(|event| usize::try_from(event.u64).ok())
            .collect();
        Ok(names.into_iter())
    }

    /// Returns the change that the event in this place of the last wait has reported.
    #[allow(dead_code, reason = "for routers")]
    pub(crate) fn change(&self, place: usize) -> Change {
        let events = self.events.get(place).map_or(0, |event| event.events);
        let ended = libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;
        Change {
            is_readable: events & (libc::EPOLLIN | ended) as u32 != 0,
            has_ended: events & ended as u32 != 0,
        }
    }
}
