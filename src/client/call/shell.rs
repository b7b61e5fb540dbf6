//! The only I/O of `call`: moves bytes between the connection and the threads of the standard streams, as far as the
//! call allows it. One `match` over [`CallAction`] carries out the decisions of the call.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

use log::warn;
use mio::Interest;

use super::super::server::{Server, is_disagreement};
use super::super::stdio::{self, Chunk};
use super::super::target::{self, Target};
use super::core::{Call, CallAction, CallEvent, ConnectError, InputSource, Outcome, Output, WriteError};
use super::options::Options;
use crate::error::error_text;
use crate::net::addr::ConnectAddr;
use crate::net::conn::{Conn, Received, Sent};
use crate::net::standard::Standard;
use crate::reactor::helper::Mailbox;
use crate::reactor::{Alarm, Context, Key, Kind, Readiness, Service, Source};

const CONNECTION: Source = Source {
    kind: Kind(0),
    key: Key::ONLY,
};
/// The timer of the call's next deadline.
const TICK: Source = Source {
    kind: Kind(1),
    key: Key::ONLY,
};
/// The number of times that each direction may move bytes in one turn.
const ROUNDS_PER_TURN: usize = 8;

/// The service behind `iotcpd call`.
#[derive(Debug)]
pub(super) struct Shell {
    call: Call,
    server: Server,
    targets: Vec<Target>,
    resolved: Option<Mailbox<io::Result<Vec<SocketAddr>>>>,
    /// The connection, made or in the making.
    conn: Option<Conn>,
    alarm: Alarm,
    /// Present once standard input is read.
    input: Option<stdio::InputThread>,
    /// Present after [`start`](Self::start).
    outputs: Option<[(Output, stdio::OutputThread); 2]>,
}

impl Shell {
    pub(super) fn new(options: Options, server: Server, input: InputSource, now: Instant) -> Shell {
        let Options {
            arguments,
            connect_timeout,
            ..
        } = options;
        Shell {
            call: Call::new(&arguments, input, connect_timeout, now),
            targets: Target::without_look_up(&server.name.address).into_iter().collect(),
            server,
            resolved: None,
            conn: None,
            alarm: Alarm::default(),
            input: None,
            outputs: None,
        }
    }

    /// Starts the threads and begins to connect.
    ///
    /// # Errors
    /// EAGAIN if a thread cannot be created.
    pub(super) fn start(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.outputs = Some([
            (
                Output::Stdout,
                stdio::OutputThread::start(cx, "stdout", Standard::Output)?,
            ),
            (
                Output::Stderr,
                stdio::OutputThread::start(cx, "stderr", Standard::Error)?,
            ),
        ]);
        match &self.server.name.address {
            ConnectAddr::Tcp { host, port } if self.targets.is_empty() => {
                let (to, resolved) = cx.mailbox(1);
                target::look_up((host.clone(), *port), to, |found| found)?;
                self.resolved = Some(resolved);
            }
            _ => self.handle(cx, CallEvent::Targets(self.targets.len())),
        }
        self.end_turn(cx);
        Ok(())
    }

    /// Reports signals of this process to the call, as the events that they are for it.
    pub(super) fn handle_signals(&mut self, cx: &mut Context<'_>, signals: impl Iterator<Item = CallEvent<'static>>) {
        for signal in signals {
            self.handle(cx, signal);
            self.end_turn(cx);
        }
    }

    /// Returns the outcome, once the call is over.
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.call.outcome()
    }

    fn handle(&mut self, cx: &mut Context<'_>, event: CallEvent<'_>) {
        for action in self.call.handle(event, cx.now()) {
            self.carry_out(cx, action);
        }
    }

    fn carry_out(&mut self, cx: &mut Context<'_>, action: CallAction) {
        match action {
            CallAction::Connect(target) => self.connect(cx, target),
            CallAction::GiveUp | CallAction::HangUp => self.conn = None,
            CallAction::Send(bytes) => {
                if let Some(conn) = &mut self.conn {
                    conn.output_mut().extend_from_slice(&bytes);
                }
            }
            CallAction::ReadInput => self.read_input(cx),
        }
    }

    // ---- the connection ----------------------------------------------------------------------------------------

    fn connect(&mut self, cx: &mut Context<'_>, number: usize) {
        let Some(target) = self.targets.get(number) else {
            return;
        };
        let begun = self.server.connect(target).and_then(|mut conn| {
            let both = Interest::READABLE | Interest::WRITABLE;
            cx.register(CONNECTION, &mut conn, both)?;
            Ok(conn)
        });
        match begun {
            Ok(conn) => self.conn = Some(conn),
            Err(error) => self.handle(cx, CallEvent::NotConnected(connect_error(&error))),
        }
    }

    /// Checks if the connection is established or has failed.
    fn check_connecting(&mut self, cx: &mut Context<'_>) {
        let Some(conn) = self.conn.as_mut().filter(|conn| conn.is_connecting()) else {
            return;
        };
        match conn.advance_connecting() {
            Ok(false) => {}
            Ok(true) => {
                // Output and signals should leave at once, and a server that dies silently should be noticed. Neither
                // option can be set if the peer has gone; the next read reports that.
                let _ = conn.socket().set_nodelay().and_then(|()| conn.socket().set_keepalive());
                self.handle(cx, CallEvent::Connected);
            }
            Err(error) => {
                self.conn = None;
                self.handle(cx, CallEvent::NotConnected(connect_error(&error)));
            }
        }
    }

    /// Sends some bytes to the server. Returns true if something was done.
    fn send(&mut self, cx: &mut Context<'_>) -> bool {
        match self.conn.as_mut().map(Conn::flush) {
            None | Some(Sent::Nothing) => return false,
            Some(Sent::Bytes(count)) => self.handle(cx, CallEvent::Sent(count)),
            Some(Sent::Failed) => self.handle(cx, CallEvent::SendFailed),
        }
        true
    }

    /// Reads some bytes from the server. Returns true if something was done.
    fn receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> bool {
        if !self.call.wants_answer() {
            return false;
        }
        let Some(conn) = &mut self.conn else { return false };
        match conn.read(buffer) {
            Received::Nothing => return false,
            Received::Bytes(count) => self.handle(cx, CallEvent::Received(buffer.get(..count).unwrap_or_default())),
            Received::End => self.handle(cx, CallEvent::Closed(None)),
            Received::Cut | Received::Failed => {
                let event = match conn.error() {
                    Some(error) if error.kind() == ErrorKind::InvalidData => CallEvent::TlsFailed(error_text(error)),
                    error => CallEvent::Closed(error.map(error_text)),
                };
                self.handle(cx, event);
            }
        }
        true
    }

    // ---- the standard streams ----------------------------------------------------------------------------------

    fn read_input(&mut self, cx: &mut Context<'_>) {
        match stdio::InputThread::start(cx, Standard::Input) {
            Ok(input) => self.input = Some(input),
            Err(error) => self.handle(cx, CallEvent::InputFailed(error_text(&error))),
        }
    }

    /// Takes a chunk of standard input, while the call wants it. Returns true if something was done.
    fn take_input(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.call.wants_input() {
            return false;
        }
        let Some(chunk) = self.input.as_ref().and_then(stdio::InputThread::take_chunk) else {
            return false;
        };
        match chunk {
            Chunk::Bytes(bytes) => self.handle(cx, CallEvent::Input(&bytes)),
            Chunk::End => self.handle(cx, CallEvent::InputEnd),
            Chunk::Failed(error) => {
                // nohup(1) opens standard input for writing only, cron(8) may close it, a background job may not read
                // its terminal: the program gets an empty input in all these cases.
                warn!(
                    "cannot read standard input: {error}; the program finds its end there (--no-stdin leaves it out)"
                );
                self.handle(cx, CallEvent::InputEnd);
            }
        }
        true
    }

    /// Hands the pending output to the writers, and reports the results of their last batches.
    fn write_outputs(&mut self, cx: &mut Context<'_>) {
        let Some(mut outputs) = self.outputs.take() else { return };
        let mut flushed = true;
        for (which, writer) in &mut outputs {
            match writer.take_report() {
                None => {}
                Some(Ok(buffer)) if self.call.batch(*which).is_empty() => *self.call.batch(*which) = buffer,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let broken = match error.kind() {
                        ErrorKind::BrokenPipe => WriteError::BrokenPipe,
                        _ => WriteError::Other(error_text(&error)),
                    };
                    self.handle(cx, CallEvent::OutputFailed(*which, broken));
                }
            }
            writer.offer(self.call.batch(*which));
            flushed &= writer.is_idle();
        }
        self.outputs = Some(outputs);
        if flushed {
            self.handle(cx, CallEvent::Flushed);
        }
    }
}

/// Classifies an error of connect(2). EAGAIN comes from a UNIX socket whose queue is full.
fn connect_error(error: &io::Error) -> ConnectError {
    match error.kind() {
        ErrorKind::WouldBlock => ConnectError::Full,
        ErrorKind::InvalidData if is_disagreement(error) => ConnectError::Tls(error_text(error)),
        _ => ConnectError::Other(error_text(error)),
    }
}

impl Service for Shell {
    fn handle_ready(&mut self, _: &mut Context<'_>, _: Source, readiness: Readiness) {
        if let Some(conn) = &mut self.conn {
            conn.note(readiness);
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>, _: Source) {
        cx.clear_alarm(&mut self.alarm);
        self.handle(cx, CallEvent::Tick);
    }

    fn resume(&mut self, _: &mut Context<'_>, _: Source) {
        // The rest is done at the end of every turn.
    }

    fn receive_mail(&mut self, cx: &mut Context<'_>) {
        match self.resolved.as_ref().and_then(Mailbox::take) {
            Some(Ok(found)) => {
                self.targets = found.into_iter().map(Target::Tcp).collect();
                self.handle(cx, CallEvent::Targets(self.targets.len()));
            }
            Some(Err(error)) => self.handle(cx, CallEvent::Unresolved(error_text(&error))),
            None => {}
        }
        // The reports of the streams are taken at the end of the turn.
    }

    fn end_turn(&mut self, cx: &mut Context<'_>) {
        self.check_connecting(cx);
        let mut buffer = cx.lend_buffer();
        let (mut rounds, mut moved) = (0, true);
        while moved && rounds < ROUNDS_PER_TURN {
            moved = self.take_input(cx) | self.send(cx) | self.receive(cx, &mut buffer);
            self.write_outputs(cx);
            rounds += 1;
        }
        cx.return_buffer(buffer);
        if moved {
            cx.resume_later(CONNECTION);
        }
        cx.set_alarm(&mut self.alarm, TICK, self.call.deadline());
    }
}
