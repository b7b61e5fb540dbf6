//! One session: a connection that has a worker to itself, or waits for one.
//!
//! ```text
//!  Waiting --assigned--> Running --worker ended--> Running without worker --all delivered--> over
//!     ^                     |  |
//!     |                     |  +--both directions over, client gone, idle--> over
//!     +--worker ended before anything went either way
//! ```
//!
//! Up is from client to worker, down from worker to client. The end of what the client sends is the end of the worker's
//! input, the end of the worker's output is our FIN; the one may come long before the other. A worker that has ended
//! without having been given or having said anything was none: its client gets another.
//!
//! A client that ends what it sends may still listen, or have gone; over TCP that cannot be known. One that has closed
//! a UNIX socket has gone: what it has sent is carried, but its worker, which may never write a word and so never learn
//! of it, is not waited for longer than a client that reads nothing.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use mio::unix::pipe::{Receiver, Sender};

use crate::doors::pool::core::{Assignment, RequestId, WorkerId};
use crate::doors::pool::options::Options;
use crate::doors::pool::shell::workers::sessions::Streams;
use crate::doors::standstill;
use crate::net::conn::{Conn, Received, Sent};
use crate::net::origin::Origin;
use crate::process::child::Child;
use crate::process::terminal::END_AGAIN;
use crate::process::unread_bytes;
use crate::reactor::{Alarm, Readiness};
use crate::relay::direction::{Cut, Event, Todo, Transfer};
use crate::relay::pump::{Pump, PumpEnd, try_read, try_write};

/// A connection in session mode.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) conn: Conn,
    pub(crate) origin: Origin,
    pub(crate) accepted: Instant,
    pub(crate) stage: Stage,
    /// The connection is registered with the poll: at once if there is a worker for it, else when it begins to wait.
    pub(crate) is_watched: bool,
    pub(crate) alarm: Alarm,
}

#[derive(Debug)]
pub(crate) enum Stage {
    /// Its request is with the dispatcher, which names it at once.
    Waiting(Option<RequestId>),
    /// It has a worker, or what that has left to be delivered.
    Running(Box<Running>),
}

/// The two directions and their ends at the worker's side.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) request: RequestId,
    /// `None`: it has ended. What it has written before is still delivered.
    pub(crate) worker: Option<WorkerId>,
    stdin: Option<Sender>,
    stdout: Receiver,
    up: Pump,
    down: Pump,
    client: ClientSide,
    /// When bytes last went either way.
    pub(crate) active: Instant,
    /// The watch over client and worker that wait for each other, and the bytes that are held for that.
    pub(crate) standstill: Standstill,
    /// On a terminal, whose input cannot be closed: its end is to be entered again then, and after how long once more.
    again: Option<(Instant, Duration)>,
}

/// The watch over a session that may stand still both ways.
#[derive(Debug, Default)]
pub(crate) struct Standstill {
    pub(crate) watch: standstill::Watch,
    /// When to look next, though nothing is known to stand still: a moment after something was tried.
    pub(crate) look_at: Option<Instant>,
}

/// The client's end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientSide {
    /// As far as can be known.
    There,
    Gone,
}

/// The longest pause between two ends of file that a terminal is given.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The state of a session after its directions were run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It waits for an edge.
    Waiting,
    /// It has had its share of this turn.
    MoreLater,
    /// Nothing will go either way again.
    Over,
    /// The client has gone before that.
    Vanished,
}

/// Bytes that went each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) up: u64,
    pub(crate) down: u64,
}

impl Running {
    /// A session begins. `early` was read from the client before. From here on the buffers of the client's [`Conn`] stay
    /// empty, and bytes go past it if it [allows](Conn::raw) that.
    pub(crate) fn new(begun: Assignment, early: Vec<u8>, streams: Streams, now: Instant) -> Self {
        let transfer = if streams.is_on_terminal {
            Transfer::Copy
        } else {
            Transfer::Splice
        };
        Self {
            request: begun.request,
            worker: Some(begun.worker),
            stdin: Some(streams.stdin),
            stdout: streams.stdout,
            up: Pump::new(transfer, early),
            down: Pump::new(transfer, streams.said),
            client: ClientSide::There,
            active: now,
            standstill: Standstill::default(),
            again: None,
        }
    }

    pub(crate) fn volume(&self) -> Volume {
        Volume {
            up: self.up.direction().delivered(),
            down: self.down.direction().delivered(),
        }
    }

    /// Returns true if anything has happened between these two, so that the client cannot be given to another worker as
    /// if nothing had.
    pub(crate) fn has_begun(&self) -> bool {
        self.volume() != Volume::default() || self.has_whole_input() || self.held() > 0
    }

    /// Returns true if the worker has got all that the client has sent, and the end of it.
    pub(crate) fn has_whole_input(&self) -> bool {
        self.up.direction().has_ended()
    }

    /// Takes what was read from the client for a worker that had ended before it took anything.
    pub(crate) fn take_undelivered(&mut self) -> Vec<u8> {
        self.up.take_undelivered()
    }

    /// The number of bytes that the client has sent and that are held.
    pub(crate) fn held(&self) -> usize {
        self.up.direction().held()
    }

    /// Lets `limit` bytes of it be held from now on while the worker takes nothing. Returns true if there may be
    /// something to be read for that.
    pub(crate) fn let_hold(&mut self, limit: usize) -> bool {
        self.up.set_hold_limit(limit);
        matches!(self.up.direction().next(), Todo::Hold(_))
    }

    /// Returns true if bytes wait both ways, those of the client for the worker and those of the worker for the client,
    /// as far as is known before the next edge.
    pub(crate) fn is_jammed(&self, conn: &Conn) -> bool {
        let worker_waits = || self.down.direction().is_blocked(|| unread(&self.stdout));
        self.stdin.is_some() && self.up.direction().is_blocked(|| conn.has_unread()) && worker_waits()
    }

    pub(crate) fn mark_client_readable(&mut self) {
        self.up.handle(Event::SourceReady);
    }

    pub(crate) fn mark_client_writable(&mut self) {
        self.down.handle(Event::SinkReady);
    }

    /// Its connection is closed in both directions. If we have closed ours, it may have read all there was.
    pub(crate) fn mark_client_gone(&mut self, now: Instant) {
        if !self.down.direction().is_over() && self.client == ClientSide::There {
            (self.client, self.active) = (ClientSide::Gone, now);
        }
    }

    /// Returns true if the session is on its last legs: one of the two has gone, and what is left to do for the other
    /// has its time.
    pub(crate) fn is_one_sided(&self) -> bool {
        self.worker.is_none() || self.client == ClientSide::Gone
    }

    /// The deadline of the side that is left for taking something of what the other has left; `None` while both are
    /// there.
    pub(crate) fn take_by(&self, options: &Options) -> Option<Instant> {
        self.is_one_sided().then(|| self.active + options.write_timeout)
    }

    /// The deadline for a byte either way, if there is one.
    pub(crate) fn idle_at(&self, options: &Options) -> Option<Instant> {
        options.session_idle.map(|idle| self.active + idle)
    }

    /// Returns true if one of these two deadlines has passed.
    pub(crate) fn is_overdue(&self, options: &Options, now: Instant) -> bool {
        let deadlines = [self.take_by(options), self.idle_at(options)];
        deadlines.into_iter().flatten().any(|at| at <= now)
    }

    /// Lets both directions be tried again, because an edge may not have been reported yet.
    pub(crate) fn expect_edges(&mut self, conn: &mut Conn) {
        conn.note(Readiness {
            readable: true,
            writable: true,
            ..Readiness::default()
        });
        for pump in [&mut self.up, &mut self.down] {
            pump.handle(Event::SourceReady);
            pump.handle(Event::SinkReady);
        }
    }

    pub(crate) fn mark_worker_writable(&mut self) {
        self.up.handle(Event::SinkReady);
    }

    pub(crate) fn mark_worker_readable(&mut self) {
        self.down.handle(Event::SourceReady);
    }

    /// The worker has ended: it reads nothing more, and what it has written lies in the pipe.
    pub(crate) fn detach_worker(&mut self, now: Instant) {
        self.worker = None;
        self.active = now;
        (self.stdin, self.again) = (None, None);
        self.up.handle(Event::SinkClosed);
        self.down.handle(Event::SourceReady);
    }

    /// When something is to be done though nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.again.map(|(at, _)| at)
    }

    /// A program at a terminal that has not taken its end of input gets it again: a file at its end would tell it with
    /// every read.
    pub(crate) fn on_deadline(&mut self, child: &Child, now: Instant) {
        if let (Some((at, pause)), Some(stdin)) = (self.again, &self.stdin)
            && at <= now
        {
            child.enter_end_of_file(stdin);
            let pause = (pause * 2).min(LONGEST_PAUSE);
            self.again = Some((now + pause, pause));
        }
    }

    /// Carries what can be carried both ways. `child` is the worker's process, while there is one.
    pub(crate) fn carry(
        &mut self,
        conn: &mut Conn,
        child: Option<&Child>,
        scratch: &mut [u8],
        now: Instant,
    ) -> Standing {
        let up = self.carry_up(conn, child, scratch, now);
        let down = self.carry_down(conn, scratch);
        match (up, down) {
            (Standing::Vanished, _) | (_, Standing::Vanished) => Standing::Vanished,
            (Standing::Over, Standing::Over) => Standing::Over,
            (Standing::MoreLater, _) | (_, Standing::MoreLater) => Standing::MoreLater,
            (Standing::Waiting | Standing::Over, Standing::Waiting | Standing::Over) => Standing::Waiting,
        }
    }

    fn carry_up(&mut self, conn: &mut Conn, child: Option<&Child>, scratch: &mut [u8], now: Instant) -> Standing {
        match self.run_up(conn, scratch) {
            PumpEnd::Waiting => return Standing::Waiting,
            PumpEnd::MoreLater => return Standing::MoreLater,
            PumpEnd::AtEnd => {
                self.up.handle(Event::EndSignalled);
                self.end_input(child, now);
            }
            PumpEnd::Over => {}
        }
        match self.up.direction().cut() {
            // The input stays open, so that the worker does not take its part for the whole: the pool ends it first.
            Some(Cut::Failed) => return Standing::Vanished,
            // The worker does not read any more: what its client sends stays where it is.
            Some(Cut::SinkClosed) | None if self.again.is_none() => self.stdin = None,
            Some(Cut::SinkClosed) | None => {}
        }
        Standing::Over
    }

    fn run_up(&mut self, conn: &mut Conn, scratch: &mut [u8]) -> PumpEnd {
        let Some(stdin) = &self.stdin else {
            return PumpEnd::Over;
        };
        match conn.raw() {
            Some(socket) => self.up.run(socket, stdin, scratch),
            None => {
                let (read, write) = (
                    |to: &mut [u8]| read_client(conn, to),
                    |bytes: &[u8]| try_write(stdin, bytes),
                );
                self.up.run_with(read, write, scratch)
            }
        }
    }

    fn end_input(&mut self, child: Option<&Child>, now: Instant) {
        match (&self.stdin, child) {
            (Some(stdin), Some(child)) if child.is_on_terminal() => {
                child.enter_end_of_file(stdin);
                self.again = Some((now + END_AGAIN, END_AGAIN));
            }
            _ => self.stdin = None,
        }
    }

    fn run_down(&mut self, conn: &mut Conn, scratch: &mut [u8]) -> PumpEnd {
        let stdout = &self.stdout;
        match conn.raw() {
            Some(socket) => self.down.run(stdout, socket, scratch),
            None => {
                let (read, write) = (
                    |to: &mut [u8]| try_read(stdout, to),
                    |bytes: &[u8]| write_client(conn, bytes),
                );
                self.down.run_with(read, write, scratch)
            }
        }
    }

    fn carry_down(&mut self, conn: &mut Conn, scratch: &mut [u8]) -> Standing {
        let mut end = self.run_down(conn, scratch);
        // A process that has left the worker's group may hold the pipe open; it is not waited for.
        if end == PumpEnd::Waiting && self.worker.is_none() && !unread(&self.stdout) {
            self.down.handle(Event::SourceEnded);
            end = self.run_down(conn, scratch);
        }
        match end {
            PumpEnd::Waiting => return Standing::Waiting,
            PumpEnd::MoreLater => return Standing::MoreLater,
            // Perhaps it has died before it was of any use: the end of its process will tell.
            PumpEnd::AtEnd if self.worker.is_some() && !self.has_begun() => return Standing::Waiting,
            PumpEnd::AtEnd => {
                // An error: the client has gone, and the next call says so.
                let _ = conn.say_end();
                self.down.handle(Event::EndSignalled);
            }
            PumpEnd::Over => {}
        }
        match self.down.direction().cut() {
            Some(_) => Standing::Vanished,
            None => Standing::Over,
        }
    }
}

/// A read of a [`Pump`] from a client whose bytes are not on its socket as they are.
fn read_client(conn: &mut Conn, to: &mut [u8]) -> Result<usize, Event> {
    match conn.read(to) {
        Received::Bytes(count) => Ok(count),
        Received::Nothing => Err(Event::SourceEmpty),
        Received::End => Err(Event::SourceEnded),
        Received::Cut | Received::Failed => Err(Event::Failed),
    }
}

/// A write of a [`Pump`] to such a client.
fn write_client(conn: &mut Conn, bytes: &[u8]) -> Event {
    match conn.write_messages(&[&[IoSlice::new(bytes)]]) {
        Sent::Bytes(count) => Event::Wrote(count),
        Sent::Nothing => Event::SinkFull,
        Sent::Failed => Event::SinkClosed,
    }
}

/// Returns true if there is output that was not read.
fn unread(stdout: &Receiver) -> bool {
    unread_bytes(stdout).is_ok_and(|unread| unread > 0)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;

    use mio::unix::pipe;

    use super::*;
    use crate::doors::pool::core::ClientId;
    use crate::net::stream::Stream;

    /// The worker of a client that was cut off must be ended before its input ends, or it takes the part for the whole.
    #[test]
    fn the_input_of_a_worker_stays_open_when_its_client_is_cut_off() {
        let (mut served, client) = UnixStream::pair().unwrap();
        served.set_nonblocking(true).unwrap();
        (&client).write_all(b"a part").unwrap();
        served.write_all(b"unread").unwrap();
        // Closing a socket with unread bytes resets the connection (unix(7)).
        drop(client);
        let ((stdin, mut input), (_output, stdout)) = (pipe::new().unwrap(), pipe::new().unwrap());
        let streams = Streams {
            stdin,
            stdout,
            is_on_terminal: false,
            said: Vec::new(),
        };
        let begun = Assignment {
            worker: WorkerId {
                index: 0,
                incarnation: 0,
            },
            request: RequestId::FIRST,
            client: ClientId(1),
            channel: None,
        };
        let now = Instant::now();
        let mut running = Running::new(begun, Vec::new(), streams, now);
        let mut conn = Conn::new(Stream::Unix(mio::net::UnixStream::from_std(served)));
        running.expect_edges(&mut conn);
        assert_eq!(running.carry(&mut conn, None, &mut [0; 64], now), Standing::Vanished);
        let mut taken = Vec::new();
        let end = input.read_to_end(&mut taken).map_err(|error| error.kind());
        assert_eq!(end, Err(ErrorKind::WouldBlock), "the input has ended after {taken:?}");
    }
}
