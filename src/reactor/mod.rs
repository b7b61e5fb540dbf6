//! The event loop: the one `mio::Poll`, and the order of a turn.
//!
//! A turn:
//!
//! 1. The poll waits until the next deadline, or not at all while the run queue holds something. Then the clock is read
//!    once.
//! 2. Each event is delivered to the service that its token names. If a helper thread has sent something, every
//!    service's `receive_mail` is called, and waiting tasks are given to free threads. Signals are collected for the
//!    caller of the turn.
//! 3. Alarms that are due go off, unless the loop was away ([`lateness`]).
//! 4. The sources on the run queue are resumed.
//! 5. Every service's `end_turn` is called, where writes that were gathered during the turn leave together.
//!
//! Invariants:
//!
//! * mio is edge-triggered: a service drains a source to `WouldBlock` or puts it on the run queue.
//! * One source gets a bounded share of a turn. The service enforces that, and the run queue makes it possible.
//! * A service never blocks. Work that may block is done on a helper thread ([`helper`]), and so are [`tasks`] that need
//!   a processor for long.
//! * An event for a source that no longer exists has a stale generation and is dropped ([`token`]).
//!
//! The reactor knows nothing of sockets, processes or protocols.

mod context;
pub mod helper;
mod lateness;
mod readiness;
mod run_queue;
pub mod slab;
mod source_kind;
mod sys;
mod tasks;
mod timers;
mod token;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Instant;

use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use signal_hook_mio::v1_0::Signals;

pub use context::{Context, READ_BUFFER};
pub use readiness::Readiness;
pub use source_kind::SourceKind;
pub(crate) use source_kind::source_kinds;
pub use timers::Alarm;
pub use token::{Key, Kind, ServiceId, Source};

use context::Shared;
use lateness::{Lateness, Polled};
use run_queue::RunQueue;
use tasks::{MOST_THREADS, Tasks};
use timers::Timers;
use token::{MAX_SERVICES, REACTOR, Token};

/// A part of the program that lives on the loop and owns sources. Every call must be short: it does its share and
/// returns.
pub trait Service {
    /// Called when a source of this service may make progress.
    fn handle_ready(&mut self, cx: &mut Context<'_>, source: Source, readiness: Readiness);
    /// Called when an alarm that was armed for this source is due.
    fn handle_timeout(&mut self, cx: &mut Context<'_>, source: Source);
    /// Called for a source that [`Context::resume_later`] has put on the run queue.
    fn resume(&mut self, cx: &mut Context<'_>, source: Source);
    /// Called when a helper thread may have sent something.
    fn receive_mail(&mut self, _cx: &mut Context<'_>) {}
    /// Called at the end of a turn, for writes that were gathered during it.
    fn end_turn(&mut self, cx: &mut Context<'_>);
}

/// The event loop. `S` is the trait by which the owner sees its services, besides [`Service`].
pub struct Reactor<S: Service + ?Sized> {
    poll: Poll,
    events: Events,
    signals: Signals,
    /// The descriptor of the signals that are received without a handler.
    quiet: Option<SignalFd>,
    shared: Shared,
    services: Vec<Option<Box<S>>>,
    next_id: u16,
    received: Vec<i32>,
    lateness: Lateness,
}

impl<S: Service + ?Sized> std::fmt::Debug for Reactor<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let services = self.services.iter().flatten().count();
        f.debug_struct("Reactor")
            .field("services", &services)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

const SIGNALS: Token = Token {
    service: REACTOR,
    source: Source {
        kind: Kind(0),
        key: Key::ONLY,
    },
};
const WAKER: Token = Token {
    service: REACTOR,
    source: Source {
        kind: Kind(1),
        key: Key::ONLY,
    },
};
const QUIET: Token = Token {
    service: REACTOR,
    source: Source {
        kind: Kind(2),
        key: Key::ONLY,
    },
};
const EVENTS_PER_POLL: usize = 1024;
/// The size in bytes of `struct signalfd_siginfo`, which begins with the number of the signal (signalfd(2)).
const SIGNAL_INFORMATION: usize = 128;

/// The error when all service ids are in use. At most 4094 services live on one loop.
#[derive(Debug)]
pub struct TooManyServices;

impl<S: Service + ?Sized> Reactor<S> {
    /// Returns a loop that also receives the given signals, whose default action no longer takes place.
    ///
    /// # Errors
    /// epoll_create1(2), eventfd(2) or sigaction(2) failed, and the program cannot run.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut signals = Signals::new(signals)?;
        poll.registry()
            .register(&mut signals, SIGNALS.into(), Interest::READABLE)?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER.into())?);
        let shared = Shared {
            registry: poll.registry().try_clone()?,
            timers: Timers::default(),
            run_queue: RunQueue::default(),
            tasks: Tasks::new(helper::mailbox(Arc::clone(&waker), MOST_THREADS)),
            waker,
            read_buffers: Vec::new(),
        };
        Ok(Reactor {
            poll,
            events: Events::with_capacity(EVENTS_PER_POLL),
            signals,
            quiet: None,
            shared,
            services: Vec::new(),
            next_id: 0,
            received: Vec::new(),
            lateness: Lateness::default(),
        })
    }

    /// Makes the loop receive a frequent signal as well, without a handler, which would interrupt the system calls of
    /// this thread. The signal is blocked for this thread and the threads that it starts from now on. All other threads
    /// must have blocked it already.
    ///
    /// # Errors
    /// sigprocmask(2), signalfd(2) or epoll_ctl(2) failed.
    pub fn watch_signal(&mut self, signal: Signal) -> io::Result<()> {
        let mask = SigSet::from(signal);
        mask.thread_block()?;
        let descriptor = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let number = descriptor.as_fd().as_raw_fd();
        SourceFd(&number).register(self.poll.registry(), QUIET.into(), Interest::READABLE)?;
        self.quiet = Some(descriptor);
        Ok(())
    }

    /// Adds a service. Ids are given out in a circle, so that a late event for a removed service meets no other
    /// service.
    ///
    /// # Errors
    /// [`TooManyServices`].
    pub fn add(&mut self, service: Box<S>) -> Result<ServiceId, TooManyServices> {
        for _ in 0..MAX_SERVICES {
            let id = self.next_id;
            self.next_id = (id + 1) % MAX_SERVICES;
            let index = usize::from(id);
            if index >= self.services.len() {
                self.services.resize_with(index + 1, || None);
            }
            if let Some(place @ None) = self.services.get_mut(index) {
                *place = Some(service);
                return Ok(ServiceId(id));
            }
        }
        Err(TooManyServices)
    }

    /// Removes a service. Dropping the returned value drops everything that the service owns.
    pub fn remove(&mut self, id: ServiceId) -> Option<Box<S>> {
        self.services.get_mut(usize::from(id.0))?.take()
    }

    /// Calls a service from outside a turn, with the present time. Returns `None` if there is no such service.
    pub fn with<R>(&mut self, id: ServiceId, call: impl FnOnce(&mut S, &mut Context<'_>) -> R) -> Option<R> {
        self.call(id, Instant::now(), call)
    }

    /// Returns a channel from helper threads to the owner of the loop. A value that is sent wakes the loop, and the
    /// owner must look into the mailbox after each turn. It holds at most `capacity` values.
    pub fn mailbox<T>(&self, capacity: usize) -> (helper::Sender<T>, helper::Mailbox<T>) {
        helper::mailbox(Arc::clone(&self.shared.waker), capacity)
    }

    /// Runs one turn, whose poll waits until `by` at most. Returns the signals that came during it, in no particular
    /// order.
    ///
    /// # Errors
    /// epoll_wait(2) failed in a way that no retry mends. EINTR is retried.
    pub fn turn(&mut self, by: Option<Instant>) -> io::Result<&[i32]> {
        let mut polled = self.poll(by)?;
        let now = Instant::now();
        self.received.clear();
        polled.is_full = self.deliver_events(now) >= EVENTS_PER_POLL;
        polled.is_continued &= self.received.is_empty();
        let is_due = self.shared.timers.next().is_some_and(|at| at <= now);
        if self.lateness.release_alarms(polled, now, is_due) {
            while let Some(token) = self.shared.timers.pop_due(now) {
                self.call(token.service, now, |service, cx| {
                    service.handle_timeout(cx, token.source)
                });
            }
        }
        // Only entries from before this phase: what is added meanwhile waits for the next turn.
        for _ in 0..self.shared.run_queue.len() {
            let Some(token) = self.shared.run_queue.pop() else {
                break;
            };
            self.call(token.service, now, |service, cx| service.resume(cx, token.source));
        }
        self.each(now, |service, cx| service.end_turn(cx));
        Ok(&self.received)
    }

    /// Waits for events. An interruption does not end the wait: a signal that the loop receives is an event as well,
    /// and after a stop (SIGCONT interrupts the poll too) the events that came meanwhile must be reported.
    fn poll(&mut self, by: Option<Instant>) -> io::Result<Polled> {
        let begun = Instant::now();
        let until = if self.shared.run_queue.is_empty() {
            let alarm = self.lateness.next(self.shared.timers.next());
            [alarm, by].into_iter().flatten().min()
        } else {
            Some(begun)
        };
        let (mut now, mut is_interrupted) = (begun, false);
        loop {
            let timeout = until.map(|until| until.saturating_duration_since(now));
            match self.poll.poll(&mut self.events, timeout) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    (now, is_interrupted) = (Instant::now(), true);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Polled {
            begun,
            until,
            is_full: false,
            is_continued: is_interrupted,
        })
    }

    /// Delivers the events of the last poll and returns their number.
    fn deliver_events(&mut self, now: Instant) -> usize {
        let mut count = 0;
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            count += 1;
            let token = Token::from(event.token());
            match token {
                SIGNALS => self.received.extend(self.signals.pending()),
                QUIET => self.read_quiet_signals(),
                WAKER => {
                    self.shared.tasks.go_on();
                    self.each(now, |service, cx| service.receive_mail(cx));
                }
                _ => {
                    let readiness = Readiness::from(event);
                    self.call(token.service, now, |service, cx| {
                        service.handle_ready(cx, token.source, readiness)
                    });
                }
            }
        }
        self.events = events;
        count
    }

    /// Reads all signals of the descriptor, which is edge-triggered. A read that does not fill its buffer has left none
    /// (signalfd(2)); at most one is pending, unless it is a real-time signal.
    fn read_quiet_signals(&mut self) {
        let Some(quiet) = &self.quiet else { return };
        let mut buffer = [0; 2 * SIGNAL_INFORMATION];
        loop {
            let count = nix::unistd::read(quiet, &mut buffer).unwrap_or(0);
            let informations = buffer.get(..count).unwrap_or_default().chunks_exact(SIGNAL_INFORMATION);
            let numbers = informations.filter_map(|information| information.first_chunk());
            self.received.extend(numbers.map(|number| i32::from_ne_bytes(*number)));
            if count < buffer.len() {
                return;
            }
        }
    }

    fn call<R>(&mut self, id: ServiceId, now: Instant, call: impl FnOnce(&mut S, &mut Context<'_>) -> R) -> Option<R> {
        let service = self.services.get_mut(usize::from(id.0))?.as_mut()?;
        Some(call(
            service,
            &mut Context {
                service: id,
                now,
                shared: &mut self.shared,
            },
        ))
    }

    fn each(&mut self, now: Instant, call: impl Fn(&mut S, &mut Context<'_>)) {
        for (id, service) in (0u16..).zip(&mut self.services) {
            if let Some(service) = service {
                call(
                    service,
                    &mut Context {
                        service: ServiceId(id),
                        now,
                        shared: &mut self.shared,
                    },
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) struct Idle;

    impl Service for Idle {
        fn handle_ready(&mut self, _: &mut Context<'_>, _: Source, _: Readiness) {}
        fn handle_timeout(&mut self, _: &mut Context<'_>, _: Source) {}
        fn resume(&mut self, _: &mut Context<'_>, _: Source) {}
        fn end_turn(&mut self, _: &mut Context<'_>) {}
    }

    /// A configuration file may describe that many.
    #[test]
    fn a_loop_holds_four_thousand_services_each_with_an_id_of_its_own() {
        let mut reactor: Reactor<Idle> = Reactor::new(&[]).unwrap();
        let ids: Vec<_> = (0..4000).map(|_| reactor.add(Box::new(Idle)).unwrap()).collect();
        let unique: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len());
        assert!(!unique.contains(&REACTOR), "the reactor's own id is left out");
    }
    #[test]
    fn a_second_buffer_that_was_lent_is_lent_again() {
        let mut reactor: Reactor<Idle> = Reactor::new(&[]).unwrap();
        let id = reactor.add(Box::new(Idle)).unwrap();
        let lend_two = |_: &mut Idle, cx: &mut Context<'_>| {
            let (first, second) = (cx.lend_buffer(), cx.lend_buffer());
            let at = std::collections::BTreeSet::from([first.as_ptr().addr(), second.as_ptr().addr()]);
            assert!(first.len() == READ_BUFFER && second.len() == READ_BUFFER);
            cx.return_buffer(second);
            cx.return_buffer(first);
            at
        };
        let before = reactor.with(id, lend_two);
        assert_eq!(reactor.with(id, lend_two), before, "no third one was allocated");
    }
}
