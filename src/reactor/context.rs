//! The calls that a service may make to the reactor while the reactor calls it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use mio::{Interest, Registry};

use super::helper::{self, Mailbox, Sender};
use super::run_queue::RunQueue;
use super::tasks::{Task, Tasks};
use super::timers::{Alarm, Timers};
use super::token::{ServiceId, Source, Token};

/// The size in bytes of a read buffer of the loop, and so the most that one read takes from one source.
pub const READ_BUFFER: usize = 64 * 1024;

/// The state that outlives a turn and that services use through [`Context`].
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) timers: Timers,
    pub(super) run_queue: RunQueue,
    pub(super) tasks: Tasks,
    pub(super) waker: Arc<mio::Waker>,
    /// The buffers that are not lent.
    pub(super) read_buffers: Vec<Vec<u8>>,
}

/// The reactor as one service sees it during one call.
#[derive(Debug)]
pub struct Context<'a> {
    pub(super) service: ServiceId,
    pub(super) now: Instant,
    pub(super) shared: &'a mut Shared,
}

impl Context<'_> {
    /// Returns the same context for a shorter time, for a value that lends it together with other things.
    pub fn reborrow(&mut self) -> Context<'_> {
        Context {
            service: self.service,
            now: self.now,
            shared: self.shared,
        }
    }

    /// Returns the time of this turn, which is read once, after the poll.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Registers a source, edge-triggered, for as long as it is open. An edge that was there before is reported at the
    /// next poll. A source that is closed leaves epoll by itself, because its descriptor has no other holder; a
    /// listening socket that a successor has been given must be [deregistered](Self::deregister) first.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): ENOMEM and ENOSPC. The caller ends what it wanted to watch.
    pub fn register(&self, at: Source, source: &mut impl mio::event::Source, interest: Interest) -> io::Result<()> {
        self.shared.registry.register(source, self.token(at).into(), interest)
    }

    /// Deregisters a source that another process goes on holding, because closing it here would leave it registered.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): the source was not registered. Events that are still reported for it are dropped.
    pub fn deregister(&self, source: &mut impl mio::event::Source) -> io::Result<()> {
        self.shared.registry.deregister(source)
    }

    /// Returns the registry, for a part that registers several sources of its own, together with
    /// [`token_for`](Self::token_for).
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// Returns the token under which such a source is registered.
    pub fn token_for(&self, at: Source) -> mio::Token {
        self.token(at).into()
    }

    /// Arms, moves or (with `None`) disarms an alarm. When it goes off,
    /// [`Service::handle_timeout`](super::Service::handle_timeout) is called with `at`, and the owner must call
    /// [`clear_alarm`](Self::clear_alarm).
    pub fn set_alarm(&mut self, alarm: &mut Alarm, at: Source, deadline: Option<Instant>) {
        let token = self.token(at);
        self.shared.timers.set(alarm, token, deadline);
    }

    /// Disarms an alarm that has gone off. Must be called by the owner in
    /// [`Service::handle_timeout`](super::Service::handle_timeout).
    pub fn clear_alarm(&self, alarm: &mut Alarm) {
        Timers::clear(alarm);
    }

    /// Puts a source that has more to do than its share of this turn on the run queue:
    /// [`Service::resume`](super::Service::resume) is called for it in the next turn.
    pub fn resume_later(&mut self, at: Source) {
        let token = self.token(at);
        self.shared.run_queue.push(token);
    }

    /// Takes a read buffer of [`READ_BUFFER`] bytes. Must be [returned](Self::return_buffer) before the call ends. One
    /// is nearly always enough; a worker whose loss is found in what it wrote has its last words read into a second one,
    /// which is kept as well, so that no loss costs an allocation.
    pub fn lend_buffer(&mut self) -> Vec<u8> {
        let mut buffer = self.shared.read_buffers.pop().unwrap_or_default();
        buffer.resize(READ_BUFFER, 0);
        buffer
    }

    /// Returns the buffer of [`lend_buffer`](Self::lend_buffer).
    pub fn return_buffer(&mut self, buffer: Vec<u8>) {
        self.shared.read_buffers.push(buffer);
    }

    /// Returns a channel from helper threads to this loop that holds at most `capacity` values.
    pub fn mailbox<T>(&self, capacity: usize) -> (Sender<T>, Mailbox<T>) {
        helper::mailbox(Arc::clone(&self.shared.waker), capacity)
    }

    /// Makes sure that there is a helper thread for tasks. Must be called before a task is given.
    ///
    /// # Errors
    /// clone(2): no thread can be started. The caller has to do its task itself, or without it.
    pub fn prepare_tasks(&mut self) -> io::Result<()> {
        self.shared.tasks.prepare()
    }

    /// Gives a task to the helper threads. No other task of this service that waits may have the same number. Returns
    /// the number of a waiting task of this service that had to make room, if too many wait: it was dropped.
    pub fn give_task(&mut self, number: u64, task: Task) -> Option<u64> {
        self.shared.tasks.give(self.service, number, task)
    }

    /// Withdraws a task of this service if it waits. One that has begun goes on to its end.
    pub fn withdraw_task(&mut self, number: u64) {
        self.shared.tasks.withdraw(self.service, number);
    }

    fn token(&self, source: Source) -> Token {
        Token {
            service: self.service,
            source,
        }
    }
}
