//! What a service may ask of the reactor while it is being called.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use mio::{Interest, Registry};

use super::helper::{self, Mailbox, Sender};
use super::run_queue::RunQueue;
use super::timers::{Alarm, Timers};
use super::token::{ServiceId, Source, Token};

/// The size of the loop's one read buffer, in bytes: the most that one read takes from one source.
pub const READ_BUFFER: usize = 64 * 1024;

/// What outlives a turn and is lent to services through [`Context`].
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) timers: Timers,
    pub(super) run_queue: RunQueue,
    pub(super) waker: Arc<mio::Waker>,
    pub(super) read_buffer: Vec<u8>,
}

/// The reactor as one service sees it during one call.
#[derive(Debug)]
pub struct Context<'a> {
    pub(super) service: ServiceId,
    pub(super) now: Instant,
    pub(super) shared: &'a mut Shared,
}

impl Context<'_> {
    /// The time of this turn: read once, after the poll.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Registers a source once and for all, edge-triggered. An edge that was there before is reported at the next poll. A
    /// source that is closed leaves epoll by itself, because its descriptor has no other holder; a listening socket that
    /// a successor has been given must be [taken out](Self::deregister).
    ///
    /// # Errors
    /// epoll_ctl(2): ENOMEM and ENOSPC; the caller ends what it wanted to watch.
    pub fn register(&self, at: Source, source: &mut impl mio::event::Source, interest: Interest) -> io::Result<()> {
        self.shared.registry.register(source, self.token(at).into(), interest)
    }

    /// Takes a source out that another process goes on holding: closing it here would leave it registered.
    ///
    /// # Errors
    /// epoll_ctl(2): the source was not registered. Events that are still reported of it are dropped.
    pub fn deregister(&self, source: &mut impl mio::event::Source) -> io::Result<()> {
        self.shared.registry.deregister(source)
    }

    /// For what registers more than one source of its own, together with [`token_for`](Self::token_for).
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// What such a source is registered under.
    pub fn token_for(&self, at: Source) -> mio::Token {
        self.token(at).into()
    }

    /// Arms, moves or disarms (`None`) an alarm; when it goes off, [`Service::timeout`](super::Service::timeout) is
    /// called with `at` and the owner calls [`alarm_fired`](Self::alarm_fired).
    pub fn set_alarm(&mut self, alarm: &mut Alarm, at: Source, deadline: Option<Instant>) {
        let token = self.token(at);
        self.shared.timers.set(alarm, token, deadline);
    }

    /// The owner has been told that its alarm went off.
    pub fn alarm_fired(&self, alarm: &mut Alarm) {
        Timers::clear(alarm);
    }

    /// The source has more to do than its share of this turn: [`Service::resume`](super::Service::resume) is called
    /// for it in the next one.
    pub fn resume_later(&mut self, at: Source) {
        let token = self.token(at);
        self.shared.run_queue.push(token);
    }

    /// The loop's one read buffer, [`READ_BUFFER`] bytes, until it is [given back](Self::return_buffer).
    pub fn lend_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.shared.read_buffer);
        buffer.resize(READ_BUFFER, 0);
        buffer
    }

    /// See [`lend_buffer`](Self::lend_buffer).
    pub fn return_buffer(&mut self, buffer: Vec<u8>) {
        self.shared.read_buffer = buffer;
    }

    /// A channel from helper threads to this loop that holds at most `capacity` values.
    pub fn mailbox<T>(&self, capacity: usize) -> (Sender<T>, Mailbox<T>) {
        helper::mailbox(Arc::clone(&self.shared.waker), capacity)
    }

    fn token(&self, source: Source) -> Token {
        Token {
            service: self.service,
            source,
        }
    }
}
