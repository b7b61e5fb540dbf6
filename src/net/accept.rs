//! Taking connections from a listener, a bounded number a turn, and stopping while the machine has no room.
//!
//! ```text
//!                     EMFILE, ENFILE, ENOBUFS, ENOMEM: until a second later
//!     Accepting  ------------------------------------------------------------->  Paused
//!                <-------------------------------------------------------------
//!                     resume(), or accept_batch() at or after the deadline
//! ```
//!
//! During a pause clients wait in the backlog: nothing is lost, and no client is accepted only to be dropped. A lack of
//! descriptors ends when one is closed, and the service that closes one calls [`Acceptor::resume`]; the deadline is for
//! descriptors and memory that other programs have freed.
//!
//! **Edges.** The poll is edge-triggered, and the edge for clients that wait has been reported already. So a service
//! that resumes must try to accept without waiting for an event, and a batch that ends with [`Batch::More`] belongs on
//! the run queue.

use std::io;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token, event};
use nix::errno::Errno;

use super::addr::PeerAddr;
use super::bind::errno;
use super::listener::Listener;
use super::stream::Stream;

/// The time from a lack of descriptors or memory until accepting is tried again, if nothing has resumed it before.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A listener from which connections are accepted, except during a pause.
#[derive(Debug)]
pub struct Acceptor {
    listener: Listener,
    pause: Option<Pause>,
}

/// A time in which no client is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// The reason.
    pub why: PauseReason,
    /// The time at which accepting is tried again, unless [`Acceptor::resume`] comes first.
    pub until: Instant,
}

/// The reason of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseReason {
    /// EMFILE: this process has all the descriptors that its limit allows.
    ProcessDescriptors,
    /// ENFILE: the machine has no descriptor left.
    MachineDescriptors,
    /// ENOBUFS, ENOMEM: the kernel has no memory for sockets.
    KernelMemory,
    /// An error that accept(2) does not give for a listening socket: a bug, here or in the kernel. Trying again later
    /// keeps a service alive that would be gone otherwise.
    Unexpected(Errno),
}

/// The end of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Batch {
    /// No client waits any more; an event comes when one does.
    Drained,
    /// The budget is used up and clients may still wait. No event comes for them: the listener belongs on the run
    /// queue.
    More,
    /// Nothing is accepted for now. The owner must call again at `until` at the latest.
    Paused(Pause),
}

/// The consequence of [`Acceptor::resume`] for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Resume {
    /// The acceptor was paused. [`Acceptor::accept_batch`] must be called, now or by the run queue, because no event
    /// comes for clients that wait already.
    AcceptNow,
    /// The acceptor was not paused, and there is nothing to do.
    Nothing,
}

/// The meaning of an error of accept(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No client waits.
    Drained,
    /// The error was about one connection, which is gone; the next may be accepted.
    PassOver,
    /// The error is about the machine or the process: accepting pauses.
    Pause(PauseReason),
}

/// Returns the meaning of an error of accept(2). On Linux accept hands on errors that are already pending on the new
/// connection; the manual page wants those treated like EAGAIN, and they are many.
pub fn verdict(errno: Errno) -> Verdict {
    match errno {
        Errno::EAGAIN => Verdict::Drained,
        // The client has given up while it waited, or a signal came.
        Errno::ECONNABORTED | Errno::ECONNRESET | Errno::EINTR => Verdict::PassOver,
        // Forbidden by a firewall rule or a security module: about this one connection.
        Errno::EPERM | Errno::EACCES => Verdict::PassOver,
        // Pending network errors, "Error handling" and ERRORS in accept(2).
        Errno::ENETDOWN
        | Errno::EPROTO
        | Errno::ENOPROTOOPT
        | Errno::EHOSTDOWN
        | Errno::ENONET
        | Errno::EHOSTUNREACH
        | Errno::EOPNOTSUPP
        | Errno::ENETUNREACH
        | Errno::ESOCKTNOSUPPORT
        | Errno::EPROTONOSUPPORT
        | Errno::ETIMEDOUT => Verdict::PassOver,
        Errno::EMFILE => Verdict::Pause(PauseReason::ProcessDescriptors),
        Errno::ENFILE => Verdict::Pause(PauseReason::MachineDescriptors),
        Errno::ENOBUFS | Errno::ENOMEM | Errno::ENOSR => Verdict::Pause(PauseReason::KernelMemory),
        other => Verdict::Pause(PauseReason::Unexpected(other)),
    }
}

impl Acceptor {
    /// Accepts from `listener`.
    pub fn new(listener: Listener) -> Acceptor {
        Acceptor { listener, pause: None }
    }

    /// Accepts at most `budget` connections and gives each to `out`. Connections that turned out to be gone count, so
    /// that a flood of them cannot keep the turn from ending.
    ///
    /// While paused it does nothing until `now` has reached the deadline; then it tries again by itself.
    pub fn accept_batch(&mut self, budget: usize, now: Instant, mut out: impl FnMut(Stream, PeerAddr)) -> Batch {
        if let Some(pause) = self.pause.filter(|pause| now < pause.until) {
            return Batch::Paused(pause);
        }
        self.pause = None;
        for _ in 0..budget {
            let error = match self.listener.accept() {
                Ok((stream, peer)) => {
                    out(stream, peer);
                    continue;
                }
                Err(error) => error,
            };
            match verdict(errno(&error)) {
                Verdict::Drained => return Batch::Drained,
                Verdict::PassOver => {}
                Verdict::Pause(why) => {
                    let until = now + RETRY_AFTER;
                    return self.paused(Pause { why, until });
                }
            }
        }
        Batch::More
    }

    /// Accepts again: a connection has ended, a descriptor is free. Cheap when it was not paused.
    pub fn resume(&mut self) -> Resume {
        match self.pause.take() {
            Some(_) => Resume::AcceptNow,
            None => Resume::Nothing,
        }
    }

    /// Another process has been given the listener: see [`Listener::disown_file`].
    pub fn disown_file(&mut self) {
        self.listener.disown_file();
    }

    /// The listener becomes this process's own: see [`Listener::take_charge`].
    pub fn take_charge(&mut self) {
        self.listener.take_charge();
    }

    /// The listener.
    pub const fn listener(&self) -> &Listener {
        &self.listener
    }

    fn paused(&mut self, pause: Pause) -> Batch {
        self.pause = Some(pause);
        Batch::Paused(pause)
    }
}

/// Registered once, for reading; pausing and resuming leave the registration alone.
impl event::Source for Acceptor {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.listener.source().register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.listener.source().reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.listener.source().deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::super::scaffold::{listen, tcp_addr, wait_readable};
    use super::*;

    #[test]
    fn every_error_number_has_its_consequence() {
        use PauseReason::{KernelMemory, MachineDescriptors, ProcessDescriptors, Unexpected};
        for (errno, expected) in [
            (Errno::EAGAIN, Verdict::Drained),
            (Errno::EWOULDBLOCK, Verdict::Drained),
            (Errno::EINTR, Verdict::PassOver),
            (Errno::ECONNABORTED, Verdict::PassOver),
            (Errno::EPERM, Verdict::PassOver),
            (Errno::ENETDOWN, Verdict::PassOver),
            (Errno::EPROTO, Verdict::PassOver),
            (Errno::ENOPROTOOPT, Verdict::PassOver),
            (Errno::EHOSTDOWN, Verdict::PassOver),
            (Errno::ENONET, Verdict::PassOver),
            (Errno::EHOSTUNREACH, Verdict::PassOver),
            (Errno::EOPNOTSUPP, Verdict::PassOver),
            (Errno::ENETUNREACH, Verdict::PassOver),
            (Errno::ETIMEDOUT, Verdict::PassOver),
            (Errno::EMFILE, Verdict::Pause(ProcessDescriptors)),
            (Errno::ENFILE, Verdict::Pause(MachineDescriptors)),
            (Errno::ENOBUFS, Verdict::Pause(KernelMemory)),
            (Errno::ENOMEM, Verdict::Pause(KernelMemory)),
            (Errno::EBADF, Verdict::Pause(Unexpected(Errno::EBADF))),
            (Errno::EINVAL, Verdict::Pause(Unexpected(Errno::EINVAL))),
            (Errno::ENOTSOCK, Verdict::Pause(Unexpected(Errno::ENOTSOCK))),
        ] {
            assert_eq!(verdict(errno), expected, "{errno:?}");
        }
    }

    /// An acceptor with `count` clients waiting in its backlog.
    fn besieged(count: usize) -> (Acceptor, Vec<TcpStream>) {
        let listener = listen("127.0.0.1:0");
        let address = tcp_addr(&listener);
        let clients = (0..count)
            .map(|_| TcpStream::connect(address).expect("connect"))
            .collect();
        (Acceptor::new(listener), clients)
    }

    /// Accepts with `budget` at a time until `count` have come.
    fn accept_all(acceptor: &mut Acceptor, budget: usize, count: usize) -> Vec<Batch> {
        let mut streams = Vec::new();
        let mut batches = Vec::new();
        while streams.len() < count {
            wait_readable(acceptor.listener());
            batches.push(acceptor.accept_batch(budget, Instant::now(), |stream, peer| streams.push((stream, peer))));
        }
        batches
    }

    fn pause(now: Instant) -> Pause {
        Pause {
            why: PauseReason::ProcessDescriptors,
            until: now + RETRY_AFTER,
        }
    }

    #[test]
    fn a_batch_keeps_to_its_budget_and_says_that_there_may_be_more() {
        let (mut acceptor, _clients) = besieged(3);
        let batches = accept_all(&mut acceptor, 1, 3);
        assert_eq!(batches, [Batch::More; 3]);
        assert_eq!(
            acceptor.accept_batch(1, Instant::now(), |_, _| panic!("no client is left")),
            Batch::Drained
        );
    }

    #[test]
    fn a_pause_keeps_clients_waiting_and_ends_without_an_event() {
        let (mut acceptor, _clients) = besieged(1);
        assert_eq!(acceptor.resume(), Resume::Nothing);
        let now = Instant::now();
        let pause = pause(now);
        assert_eq!(acceptor.paused(pause), Batch::Paused(pause));
        wait_readable(acceptor.listener());
        let batch = acceptor.accept_batch(9, now, |_, _| panic!("paused"));
        assert_eq!(batch, Batch::Paused(pause));
        assert_eq!(acceptor.resume(), Resume::AcceptNow);
        let mut count = 0;
        assert_eq!(acceptor.accept_batch(9, now, |_, _| count += 1), Batch::Drained);
        assert_eq!(count, 1);
    }

    #[test]
    fn a_lack_of_descriptors_is_tried_again_at_its_deadline_and_not_before() {
        let (mut acceptor, _clients) = besieged(1);
        let now = Instant::now();
        let pause = pause(now);
        assert_eq!(acceptor.paused(pause), Batch::Paused(pause));
        let before = now + RETRY_AFTER - Duration::from_nanos(1);
        assert_eq!(
            acceptor.accept_batch(9, before, |_, _| panic!("too early")),
            Batch::Paused(pause)
        );
        wait_readable(acceptor.listener());
        let mut count = 0;
        assert_eq!(
            acceptor.accept_batch(9, now + RETRY_AFTER, |_, _| count += 1),
            Batch::Drained
        );
        assert_eq!(count, 1);
    }

    #[test]
    fn an_edge_comes_for_each_newcomer_after_the_backlog_was_drained() {
        let mut poll = mio::Poll::new().expect("poll");
        let mut events = mio::Events::with_capacity(8);
        let (mut acceptor, _) = besieged(0);
        poll.registry()
            .register(&mut acceptor, Token(7), Interest::READABLE)
            .expect("register");
        let address = tcp_addr(acceptor.listener());
        for _ in 0..3 {
            let _client = TcpStream::connect(address).expect("connect");
            let mut count = 0;
            while count == 0 {
                poll.poll(&mut events, Some(Duration::from_secs(10))).expect("poll");
                assert!(
                    events.iter().any(|event| event.token() == Token(7)),
                    "no event for ten seconds"
                );
                let _ = acceptor.accept_batch(9, Instant::now(), |_, _| count += 1);
            }
        }
    }
}
