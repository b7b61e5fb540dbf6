//! The client of a program: its connection, and its input on the way to the program. It is the part of a client that
//! the exec and the command door have in common.
//!
//! The life of a client: it is [made](ProgramClient::new) of a connection that the door admits, and
//! [registered](ProgramClient::register). Its bytes are [read](ProgramClient::room) as far as the program takes them; a
//! [watch](ProgramClient::look_for_standstill) sees when the two wait for each other. Once it has its answer it begins
//! the [lingering close](ProgramClient::begin_close), and at last it is [closed](ProgramClient::close).
//!
//! Invariant: no more input is held than the buffer of a connection may have, but for a standstill. The requests of
//! clients, their answers, and the events of their lives belong to the doors.

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use mio::Interest;

use super::dump::{Dump, describe_peer};
use super::front::Front;
use super::job_log;
use super::standstill::{Advice, Hoard, Sight, Watch};
use crate::amount;
use crate::buffer::Buffer;
use crate::net::conn::{CloseStep, Conn, LingerLimits, Received};
use crate::net::origin::Origin;
use crate::net::stream::PeerCredentials;
use crate::process::job::{Job, Moved};
use crate::process::strings::Strings;
use crate::reactor::{Alarm, Context, Readiness, Source};

/// A client may be sending a large file to a program that has ended without reading it, and reads its answer only
/// behind that: so there is no limit in bytes.
const LINGER: LingerLimits = LingerLimits {
    time: Duration::from_secs(5),
    bytes: usize::MAX,
};

/// One client of a door that runs programs.
#[derive(Debug)]
pub(super) struct ProgramClient {
    pub(super) conn: Conn,
    pub(super) origin: Origin,
    /// The process at the other end of a UNIX socket, once the kernel was asked.
    process: OnceCell<Option<PeerCredentials>>,
    accepted: Instant,
    alarm: Alarm,
    /// True if the last read has left nothing, and no event has come since.
    is_drained: bool,
    /// The input that the program has not taken yet. Nothing is added to it once `input_ends`.
    pub(super) input: Buffer,
    pub(super) input_ends: bool,
    pub(super) watch: Watch,
}

impl ProgramClient {
    /// A client whose connection was admitted and counted at `now`.
    pub(super) fn new(conn: Conn, origin: Origin, now: Instant) -> Self {
        // Output leaves as it comes, and the kernel notices a client over TCP that dies in silence. An error means that
        // the peer has gone, which the next read tells as well.
        let _ = conn.socket().set_nodelay().and_then(|()| conn.socket().set_keepalive());
        ProgramClient {
            conn,
            origin,
            process: OnceCell::new(),
            accepted: now,
            alarm: Alarm::default(),
            is_drained: false,
            input: Buffer::default(),
            input_ends: false,
            watch: Watch::default(),
        }
    }

    /// Registers the connection with the poll.
    ///
    /// # Errors
    /// The kernel watches no more descriptors.
    pub(super) fn register(&mut self, cx: &Context<'_>, source: Source) -> io::Result<()> {
        cx.register(source, &mut self.conn, Interest::READABLE | Interest::WRITABLE)
    }

    /// Returns the client as it stands in log lines: with its user, where that is known.
    pub(super) fn description(&self) -> String {
        describe_peer(&self.origin, self.process())
    }

    /// Returns the variables that tell a program of this client.
    pub(super) fn variables(&self) -> Strings {
        job_log::asker(self.conn.socket(), &self.origin, self.process())
    }

    fn process(&self) -> Option<PeerCredentials> {
        let ask = || self.conn.socket().peer_credentials().ok().flatten();
        *self.process.get_or_init(ask)
    }

    /// Returns the number of bytes that are held each way: to the program, and to the client.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.input.len(), self.conn.unwritten())
    }

    // ---- bytes -------------------------------------------------------------------------------------------------

    /// Takes in an event of the poll.
    pub(super) fn note(&mut self, readiness: Readiness) {
        self.is_drained &= !(readiness.readable || readiness.read_closed || readiness.hung_up);
        self.conn.note(readiness);
    }

    /// Returns true if the last read has left nothing, and no event has told of more since. A door that reads
    /// nevertheless learns at once of a client that has gone, and not only in the next turn.
    pub(super) fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Reads once from the client. `buffer` must not be empty.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Received {
        let received = self.conn.read(buffer);
        self.is_drained = matches!(received, Received::Bytes(_)) && self.conn.is_drained();
        received
    }

    /// Returns the number of bytes that may be read, at most `max_buffer`. It is 0 while input waits for the program,
    /// unless more may be held because the two wait for each other.
    pub(super) fn room(&self, hoard: &Hoard, max_buffer: usize) -> usize {
        let held = self.input.len();
        match held == 0 || self.input_ends {
            true => max_buffer,
            false => max_buffer.min(self.watch.growth(hoard, held, max_buffer)),
        }
    }

    /// Returns true if all input has been taken, and no more comes.
    pub(super) fn has_no_input(&self) -> bool {
        self.input_ends && self.input.is_empty()
    }

    /// Writes input to the program, and ends the program's input behind the last of it. Returns true if some was
    /// written or dropped.
    pub(super) fn write_input(&mut self, job: &mut Job) -> bool {
        if !job.takes_input() {
            // The program's input has ended. What the client sends is read and dropped, so that the client's end is
            // seen.
            let any = !self.input.is_empty();
            self.input.clear();
            return any;
        }
        if self.input.is_empty() {
            if self.input_ends {
                job.end_input();
            }
            return false;
        }
        match job.write_input(self.input.bytes()) {
            Moved::Bytes(count) => {
                self.watch.taken();
                self.input.consume(count);
                true
            }
            Moved::Nothing => false,
            Moved::Over => true,
        }
    }

    /// Checks if the client and the program that takes its input wait for each other, and returns what is to be done.
    /// Must be called when no more bytes can be moved. `doubt` is the time that a client is given of which nothing is
    /// known.
    pub(super) fn look_for_standstill(
        &mut self,
        hoard: &mut Hoard,
        job: Option<&Job>,
        (max_buffer, doubt): (usize, Duration),
        now: Instant,
    ) -> Advice {
        let input_waits = !self.input.is_empty() && !self.input_ends && job.is_some_and(Job::takes_input);
        let sight = Sight {
            is_jammed: input_waits && self.conn.unwritten() >= max_buffer,
            input: self.input.len(),
            usual: max_buffer,
            doubt,
        };
        match self.watch.look(hoard, &self.conn, sight, now) {
            Advice::Grow if self.is_drained || !self.conn.is_readable() => Advice::Wait,
            advice => advice,
        }
    }

    // ---- time and end ------------------------------------------------------------------------------------------

    /// Sets the alarm for `deadline`, or for one of the connection's own if that is earlier.
    pub(super) fn set_alarm(&mut self, cx: &mut Context<'_>, source: Source, deadline: Option<Instant>) {
        let deadlines = [deadline, self.watch.deadline(), self.conn.close_deadline()];
        cx.set_alarm(&mut self.alarm, source, deadlines.into_iter().flatten().min());
    }

    /// Must be called when the alarm has gone off. Returns true if the time of the lingering close is over.
    pub(super) fn clear_alarm(&mut self, cx: &Context<'_>) -> bool {
        cx.clear_alarm(&mut self.alarm);
        self.conn.close_deadline().is_some_and(|until| until <= cx.now())
    }

    /// Begins the lingering close. Must be called once the client has everything.
    pub(super) fn begin_close(&mut self, now: Instant) -> CloseStep {
        self.conn.begin_close(!self.input_ends, LINGER, now)
    }

    /// Closes the connection, and gives its place back.
    pub(super) fn close(mut self, cx: &mut Context<'_>, source: Source, front: &mut Front, hoard: &mut Hoard) {
        cx.set_alarm(&mut self.alarm, source, None);
        self.watch.leave(hoard);
        drop(self.conn);
        front.connection_closed(cx, &self.origin);
    }

    // ---- dump --------------------------------------------------------------------------------------------------

    /// Begins the dump of a door of this kind. `held` are the bytes that are held for each client: its input, and what
    /// it is to get.
    pub(super) fn begin_dump<'d>(
        front: &'d Front,
        kind: &str,
        held: impl Iterator<Item = (usize, usize)>,
        now: Instant,
    ) -> Dump<'d> {
        let (total, most) = (front.connections(), front.options().connection_limits.total);
        let (to_program, to_client) = held.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        let load = format_args!("clients = {total} of {most}, to program = {to_program}, to client = {to_client}");
        let mut dump = Dump::begin(front.name(), kind, front.uptime(now), String::new(), load);
        dump.front(front, now);
        dump
    }

    /// Returns the line of the dump for a client with this number. `asked` names the program that it has asked for, if
    /// it has; `to_client` is the number of bytes that wait for the client.
    pub(super) fn describe(
        &self,
        number: u64,
        state: fmt::Arguments<'_>,
        (noun, asked): (&str, &str),
        to_client: usize,
        now: Instant,
    ) -> String {
        let connected = amount::span(now.saturating_duration_since(self.accepted));
        let asked = if asked.is_empty() { "none" } else { asked };
        format!(
            "c[{number}] state = {state}, connected for = {connected}, client = {}, {noun} = {asked}, to program = {}, \
             to client = {to_client}",
            self.description(),
            self.input.len()
        )
    }
}
