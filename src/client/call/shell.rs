//! The only I/O of `call`: bytes go between the connection and the threads of the standard streams, as far as the call wants
//! them; what it decides is done in one `match` over [`Action`].
//!
//! Edges of the connection are kept: it is tried again only after an event, or when it has not said WouldBlock.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use log::warn;
use mio::Interest;

use super::super::stdio::{self, Chunk};
use super::super::target::{self, Target};
use super::core::{Action, Broken, Call, Event, Input, Outcome, Output, Refused};
use super::options::Options;
use crate::error::words;
use crate::net::addr::ConnectAddr;
use crate::net::standard::Standard;
use crate::net::stream::Stream;
use crate::reactor::helper::Mailbox;
use crate::reactor::{Alarm, Context, Key, Kind, Readiness, Service, Source};

const CONNECTION: Source = Source {
    kind: Kind(0),
    key: Key::ONLY,
};
/// The call's next deadline.
const TICK: Source = Source {
    kind: Kind(1),
    key: Key::ONLY,
};
/// How often each way of moving bytes is gone in one turn.
const ROUNDS_PER_TURN: usize = 8;

/// The service behind `iotcpd call`.
#[derive(Debug)]
pub(super) struct Shell {
    call: Call,
    address: ConnectAddr,
    targets: Vec<Target>,
    resolved: Option<Mailbox<io::Result<Vec<SocketAddr>>>>,
    link: Option<Link>,
    alarm: Alarm,
    /// Once standard input is read.
    input: Option<stdio::Input>,
    /// From [`start`](Self::start) on.
    outputs: Option<[(Output, stdio::Output); 2]>,
}

/// A connection, or one that is being made.
#[derive(Debug)]
struct Link {
    stream: Stream,
    stage: Stage,
    readable: bool,
    writable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Connected,
}

impl Shell {
    pub(super) fn new(options: Options, input: Input, now: Instant) -> Shell {
        let Options {
            address,
            arguments,
            connect_timeout,
            ..
        } = options;
        Shell {
            call: Call::new(&arguments, input, connect_timeout, now),
            targets: Target::of(&address).into_iter().collect(),
            address,
            resolved: None,
            link: None,
            alarm: Alarm::default(),
            input: None,
            outputs: None,
        }
    }

    /// Starts the threads and begins to connect.
    ///
    /// # Errors
    /// A thread could not be made.
    pub(super) fn start(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.outputs = Some([
            (Output::Stdout, stdio::Output::start(cx, "stdout", Standard::Output)?),
            (Output::Stderr, stdio::Output::start(cx, "stderr", Standard::Error)?),
        ]);
        match &self.address {
            ConnectAddr::Tcp { host, port } if self.targets.is_empty() => {
                let (to, resolved) = cx.mailbox(1);
                target::look_up((host.clone(), *port), to, |found| found)?;
                self.resolved = Some(resolved);
            }
            _ => self.tell(cx, Event::Targets(self.targets.len())),
        }
        self.turn_end(cx);
        Ok(())
    }

    /// Tells the call what the signals that this process has got mean to it.
    pub(super) fn signals(&mut self, cx: &mut Context<'_>, signals: impl Iterator<Item = Event<'static>>) {
        for signal in signals {
            self.tell(cx, signal);
            self.turn_end(cx);
        }
    }

    /// What it has come to, once it has.
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.call.outcome()
    }

    fn tell(&mut self, cx: &mut Context<'_>, event: Event<'_>) {
        for action in self.call.handle(event, cx.now()) {
            self.act(cx, action);
        }
    }

    fn act(&mut self, cx: &mut Context<'_>, action: Action) {
        match action {
            Action::Connect(target) => self.connect(cx, target),
            Action::GiveUp | Action::HangUp => self.link = None,
            Action::ReadInput => self.read_input(cx),
        }
    }

    // ---- the connection ----------------------------------------------------------------------------------------

    fn connect(&mut self, cx: &mut Context<'_>, number: usize) {
        let Some(target) = self.targets.get(number) else {
            return;
        };
        let begun = target.connect().and_then(|mut stream| {
            let both = Interest::READABLE | Interest::WRITABLE;
            cx.register(CONNECTION, &mut stream, both)?;
            Ok(stream)
        });
        match begun {
            Ok(stream) => {
                self.link = Some(Link {
                    stream,
                    stage: Stage::Connecting,
                    readable: true,
                    writable: true,
                });
            }
            Err(error) => self.tell(cx, Event::NotConnected(refused(&error))),
        }
    }

    /// Sees whether the connection has come about.
    fn look(&mut self, cx: &mut Context<'_>) {
        let Some(link) = self.link.as_mut().filter(|link| link.stage == Stage::Connecting) else {
            return;
        };
        match link.stream.is_connected() {
            Ok(false) => {}
            Ok(true) => {
                link.stage = Stage::Connected;
                // Output and signals leave as they come, and a server that dies in silence is noticed. Where either cannot be
                // set (the peer has gone) the next read says so.
                let _ = link.stream.set_nodelay().and_then(|()| link.stream.set_keepalive());
                self.tell(cx, Event::Connected);
            }
            Err(error) => {
                self.link = None;
                self.tell(cx, Event::NotConnected(refused(&error)));
            }
        }
    }

    /// Sends some of what is to be sent; whether anything came of it.
    fn send(&mut self, cx: &mut Context<'_>) -> bool {
        let bytes = self.call.to_send();
        let Some(link) = self.link.as_mut().filter(|link| link.can_move() && link.writable) else {
            return false;
        };
        if bytes.is_empty() {
            return false;
        }
        match (&link.stream).write(bytes) {
            Ok(count) => self.tell(cx, Event::Sent(count)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                link.writable = false;
                return false;
            }
            Err(_) => self.tell(cx, Event::SendFailed),
        }
        true
    }

    /// Reads some of what the server says; whether anything came of it.
    fn receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> bool {
        if !self.call.wants_answer() {
            return false;
        }
        let Some(link) = self.link.as_mut().filter(|link| link.can_move() && link.readable) else {
            return false;
        };
        match (&link.stream).read(buffer) {
            Ok(0) => self.tell(cx, Event::Closed(None)),
            Ok(count) => self.tell(cx, Event::Received(buffer.get(..count).unwrap_or_default())),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                link.readable = false;
                return false;
            }
            Err(error) => self.tell(cx, Event::Closed(Some(words(&error)))),
        }
        true
    }

    // ---- the standard streams ----------------------------------------------------------------------------------

    fn read_input(&mut self, cx: &mut Context<'_>) {
        match stdio::Input::start(cx, Standard::Input) {
            Ok(input) => self.input = Some(input),
            Err(error) => self.tell(cx, Event::InputFailed(words(&error))),
        }
    }

    /// Takes some of standard input, while it is wanted; whether anything came of it.
    fn take_input(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.call.wants_input() {
            return false;
        }
        let Some(chunk) = self.input.as_ref().and_then(stdio::Input::take) else {
            return false;
        };
        match chunk {
            Chunk::Bytes(bytes) => self.tell(cx, Event::Input(&bytes)),
            Chunk::End => self.tell(cx, Event::InputEnd),
            Chunk::Failed(error) => {
                // nohup(1) opens it for writing alone, cron(8) may close it, a job in the background may not read its terminal:
                // to the program each is an input without anything in it.
                warn!(
                    "cannot read standard input: {error}; the program finds its end there (--no-stdin leaves it out)"
                );
                self.tell(cx, Event::InputEnd);
            }
        }
        true
    }

    /// Gives the writers what there is for them, and tells what has become of what they had.
    fn write_outputs(&mut self, cx: &mut Context<'_>) {
        let Some(mut outputs) = self.outputs.take() else { return };
        let mut flushed = true;
        for (which, writer) in &mut outputs {
            match writer.report() {
                None => {}
                Some(Ok(buffer)) if self.call.batch(*which).is_empty() => *self.call.batch(*which) = buffer,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let broken = match error.kind() {
                        ErrorKind::BrokenPipe => Broken::Pipe,
                        _ => Broken::Other(words(&error)),
                    };
                    self.tell(cx, Event::OutputFailed(*which, broken));
                }
            }
            writer.offer(self.call.batch(*which));
            flushed &= writer.is_idle();
        }
        self.outputs = Some(outputs);
        if flushed {
            self.tell(cx, Event::Flushed);
        }
    }
}

impl Link {
    fn can_move(&self) -> bool {
        self.stage == Stage::Connected
    }
}

/// Sorts what connect(2) and its like say. EAGAIN is what a UNIX socket says whose queue is full.
fn refused(error: &io::Error) -> Refused {
    match error.kind() {
        ErrorKind::WouldBlock => Refused::Full,
        _ => Refused::Other(words(error)),
    }
}

impl Service for Shell {
    fn ready(&mut self, _: &mut Context<'_>, _: Source, readiness: Readiness) {
        if let Some(link) = &mut self.link {
            link.readable |= readiness.readable || readiness.read_closed || readiness.hung_up;
            link.writable |= readiness.writable || readiness.hung_up;
        }
    }

    fn timeout(&mut self, cx: &mut Context<'_>, _: Source) {
        cx.alarm_fired(&mut self.alarm);
        self.tell(cx, Event::Tick);
    }

    fn resume(&mut self, _: &mut Context<'_>, _: Source) {
        // What is left is done at the end of every turn.
    }

    fn mail(&mut self, cx: &mut Context<'_>) {
        match self.resolved.as_ref().and_then(Mailbox::take) {
            Some(Ok(found)) => {
                self.targets = found.into_iter().map(Target::Tcp).collect();
                self.tell(cx, Event::Targets(self.targets.len()));
            }
            Some(Err(error)) => self.tell(cx, Event::Unresolved(words(&error))),
            None => {}
        }
        // What has come of the streams is taken at the end of the turn.
    }

    fn turn_end(&mut self, cx: &mut Context<'_>) {
        self.look(cx);
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
