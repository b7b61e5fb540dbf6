//! The exec door's only I/O: events from the reactor become [`ClientEvent`]s of a connection, and its [`ClientAction`]s
//! become processes, bytes and closed connections.
//!
//! Every action is carried out by one `match` in [`ExecDoor::act`]. The modules: `connection` is one connection with
//! its bytes, `clients` accepts and closes connections, `permits` holds them against the lists, `lookups` looks
//! programs up on threads, `programs` starts and ends programs, `spawn_context` prepares their environment, `signals`
//! passes signals of clients on, `describe` writes the dump, and `lifecycle` starts, reloads and stops the door.
//!
//! Invariants: every event of a connection ends in [`ExecDoor::pump`], which moves bytes, bounded a turn, and sets the
//! connection's one alarm. Events are reported to a connection only through [`ExecDoor::tell`].

mod clients;
mod connection;
mod describe;
mod lifecycle;
mod lookups;
mod permits;
mod programs;
mod signals;
mod spawn_context;

use std::collections::VecDeque;
use std::fmt;

use super::core::client::{ClientAction, ClientEvent, ClientState};
use super::core::counters::Counters;
use super::core::reply::Output;
use super::options::Options;
use crate::doors::Door;
use crate::doors::front::Front;
use crate::doors::programs::{ProgramStatistics, RunsPrograms};
use crate::doors::run::RunEvent;
use crate::doors::standstill::{Advice, Hoard};
use crate::net::listening::Accepting;
use crate::process::spawn::Spawner;
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Context, Key, Readiness, Service, Source, SourceKind, source_kinds};

use connection::{Connection, Moved};
use lookups::Desk;

pub use spawn_context::prepare;

/// The number of moves of each stream of a connection in one turn, up to a read buffer each.
const ROUNDS_PER_TURN: usize = 8;

/// A function that moves bytes of one stream. It is given the read buffer, the most bytes that may be held, and the
/// memory for more.
type Move = fn(&mut Connection, &mut [u8], usize, &Hoard) -> Moved;

/// An exec door on the loop.
#[derive(Debug)]
pub struct ExecDoor {
    front: Front,
    options: Options,
    spawner: Spawner,
    connections: GenerationalSlab<Connection>,
    /// The connections whose programs wait to be started.
    starting: VecDeque<Key>,
    counters: Counters,
    statistics: ProgramStatistics,
    /// The memory that is held because clients and programs wait for each other.
    hoard: Hoard,
    /// The threads that look programs up.
    desk: Desk,
}

source_kinds! {
    /// The kinds of sources an exec door has.
    enum ExecSource {
        Listener,
        Arrival,
        Client,
        Stdin,
        Stdout,
        Stderr,
        Exit,
        Ending,
        Starting,
        Upkeep,
        Drain,
    }
}

impl Service for ExecDoor {
    fn handle_ready(&mut self, cx: &mut Context<'_>, source: Source, readiness: Readiness) {
        match ExecSource::from_source(source) {
            Some(ExecSource::Listener) => self.accept(cx, source.key),
            Some(ExecSource::Client) => self.client_ready(cx, source.key, readiness),
            Some(ExecSource::Arrival) => self.arrival_ready(cx, source.key, readiness),
            Some(of @ (ExecSource::Stdin | ExecSource::Stdout | ExecSource::Stderr)) => {
                self.pipe_ready(cx, source.key, of)
            }
            Some(ExecSource::Exit) => self.exit_ready(cx, source.key),
            // These sources are never registered with the poll.
            Some(ExecSource::Ending | ExecSource::Starting | ExecSource::Upkeep | ExecSource::Drain) | None => {}
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>, source: Source) {
        match ExecSource::from_source(source) {
            Some(ExecSource::Listener) => self.retry_accepting(cx, source.key),
            Some(ExecSource::Client) => self.client_timeout(cx, source.key),
            Some(ExecSource::Arrival) => self.arrival_timeout(cx, source.key),
            Some(ExecSource::Ending) => self.kill_timeout(cx, source.key),
            Some(ExecSource::Upkeep) => self.front.sum_up(cx),
            Some(ExecSource::Drain) => self.drain_timeout(cx),
            // These sources have no alarm.
            Some(
                ExecSource::Stdin | ExecSource::Stdout | ExecSource::Stderr | ExecSource::Exit | ExecSource::Starting,
            )
            | None => {}
        }
    }

    fn resume(&mut self, cx: &mut Context<'_>, source: Source) {
        match ExecSource::from_source(source) {
            Some(ExecSource::Listener) => self.accept(cx, source.key),
            Some(ExecSource::Client) => self.pump(cx, source.key),
            Some(ExecSource::Arrival) => self.resume_arrival(cx, source.key),
            Some(ExecSource::Starting) => self.start_waiting(cx),
            // These sources are never resumed.
            Some(
                ExecSource::Stdin
                | ExecSource::Stdout
                | ExecSource::Stderr
                | ExecSource::Exit
                | ExecSource::Ending
                | ExecSource::Upkeep
                | ExecSource::Drain,
            )
            | None => {}
        }
    }

    fn receive_mail(&mut self, cx: &mut Context<'_>) {
        self.take_answers(cx);
        self.take_signatures(cx);
    }

    fn end_turn(&mut self, _cx: &mut Context<'_>) {
        // Bytes are written when they come.
    }
}

impl ExecDoor {
    /// Moves the bytes of one connection, bounded a turn, and sets its alarm.
    fn pump(&mut self, cx: &mut Context<'_>, key: Key) {
        let mut buffer = cx.lend_buffer();
        let mut rounds = 0;
        while rounds < ROUNDS_PER_TURN && self.round(cx, key, &mut buffer) {
            rounds += 1;
        }
        cx.return_buffer(buffer);
        if rounds == ROUNDS_PER_TURN {
            cx.resume_later(ExecSource::Client.at(key));
        }
        let is_concluded = |it: &Connection| matches!(it.client.state(), ClientState::Answered { rest: None, .. });
        if self.connections.get(key).is_some_and(is_concluded) {
            self.log_run(key);
        }
        self.look_for_standstill(cx, key);
        if let Some(connection) = self.connections.get_mut(key) {
            let deadlines = [connection.client.deadline(), connection.looked.deadline()];
            let deadline = deadlines.into_iter().flatten().min();
            connection.peer.set_alarm(cx, ExecSource::Client.at(key), deadline);
        }
    }

    /// Checks if client and program wait for each other. Must be called when no more bytes can be moved.
    fn look_for_standstill(&mut self, cx: &mut Context<'_>, key: Key) {
        let limits = (self.options.max_buffer, self.options.policy.write_timeout);
        let Some(Connection { peer, program, .. }) = self.connections.get_mut(key) else {
            return;
        };
        match peer.look_for_standstill(&mut self.hoard, program.as_ref(), limits, cx.now()) {
            Advice::Wait => {}
            Advice::Grow => cx.resume_later(ExecSource::Client.at(key)),
            Advice::GiveUp => {
                self.tell(cx, key, ClientEvent::Program(RunEvent::Standstill));
                cx.resume_later(ExecSource::Client.at(key));
            }
        }
    }

    /// Moves each stream of a connection once. Returns true if anything was moved.
    fn round(&mut self, cx: &mut Context<'_>, key: Key, buffer: &mut [u8]) -> bool {
        let limit = self.options.max_buffer;
        let moves: [Move; 6] = [
            |it, _, _, _| it.write_client(),
            |it, _, _, _| it.write_stdin(),
            Connection::read_client,
            |it, _, _, _| it.next_signal(),
            |it, buffer, limit, _| it.read_output(Output::Stdout, buffer, limit),
            |it, buffer, limit, _| it.read_output(Output::Stderr, buffer, limit),
        ];
        let mut any = false;
        for make in moves {
            let Some(connection) = self.connections.get_mut(key) else {
                return false;
            };
            match make(connection, buffer, limit, &self.hoard) {
                Moved::Nothing => continue,
                Moved::Some => {}
                Moved::Event(event) => self.tell(cx, key, event),
            }
            any = true;
            if let Some(asked) = self.connections.get_mut(key).and_then(Connection::first_byte) {
                self.statistics.times.first_byte.record(asked.elapsed());
            }
        }
        any
    }

    /// Reports an event to a connection, and carries out the actions. The caller must move bytes afterwards.
    fn tell(&mut self, cx: &mut Context<'_>, key: Key, event: ClientEvent) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if event == ClientEvent::Gone {
            // No byte comes or goes any more. Without this each further try would report the same.
            connection.peer.conn.abandon();
        }
        let before = connection.client.state();
        let actions = connection.client.handle(event, cx.now());
        self.count_event(cx, key, before, event);
        for action in actions {
            self.act(cx, key, action);
        }
    }

    fn act(&mut self, cx: &mut Context<'_>, key: Key, action: ClientAction) {
        match action {
            ClientAction::Start => self.queue_start(cx, key),
            ClientAction::Refuse(refusal) => self.refuse(cx, key, refusal),
            ClientAction::Signal(number) => self.signal_program(cx, key, number),
            ClientAction::Program(step) => self.take_step(cx, key, step),
            ClientAction::Conclude => self.conclude(key),
            ClientAction::BeginClose => self.begin_close(cx, key),
            ClientAction::Close => self.close(cx, key),
        }
    }

    /// Writes one step of a connection to the log, with `--debug`.
    fn trace(&self, key: Key, step: fmt::Arguments<'_>) {
        if self.options.debug {
            let connection = self.connections.get(key);
            let origin = connection.map(|it| it.peer.origin.to_string()).unwrap_or_default();
            log::info!(service:% = self.front.name(); "{}: {origin}, connection {}: {step}", self.front.name(), key.slot());
        }
    }
}
