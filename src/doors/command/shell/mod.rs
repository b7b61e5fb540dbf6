//! The command door's only I/O: events from the reactor become events of the [`Scheduler`], and its [`Action`]s become
//! processes, bytes and closed connections.
//!
//! Every action is carried out by one `match` in `act`. The modules: `connection` is one connection with its bytes,
//! `clients` accepts and closes connections, `programs` prepares the commands, `runs` starts and ends their programs,
//! `pump` moves the bytes of both, `describe` writes the dump, and `lifecycle` starts, reloads and stops the door.
//!
//! Invariants: clients and runs are known by the scheduler's numbers, which are keys of the reactor as well and never
//! used again, so a late event finds no other. Every event of a client or a run ends in `pump`, which moves bytes,
//! bounded a turn, and sets their alarms. Events are reported to the scheduler only through `tell_client` and
//! `tell_run`, and its actions are carried out at once.

mod clients;
mod connection;
mod describe;
mod lifecycle;
mod programs;
mod pump;
mod runs;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::core::event::{Action, ClientEvent, ClientId, RunId};
use super::core::scheduler::Scheduler;
use super::options::Options;
use crate::doors::Door;
use crate::doors::front::Front;
use crate::doors::programs::{ProgramStatistics, RunsPrograms};
use crate::doors::standstill::Hoard;
use crate::net::listening::Accepting;
use crate::reactor::{Context, Key, Readiness, Service, Source, SourceKind, source_kinds};

use connection::Connection;
pub use programs::{Programs, prepare};
use runs::Running;

/// A command door on the loop.
#[derive(Debug)]
pub struct CommandDoor {
    front: Front,
    options: Options,
    /// The prepared programs of the commands.
    programs: Programs,
    scheduler: Scheduler,
    connections: BTreeMap<ClientId, Connection>,
    runs: BTreeMap<RunId, Running>,
    next_client: u64,
    /// The connections whose programs wait to be started.
    starting: VecDeque<RunId>,
    statistics: ProgramStatistics,
    /// The memory that is held because clients and programs wait for each other.
    hoard: Hoard,
}

source_kinds! {
    /// The kinds of sources a command door has.
    enum CommandSource {
        Listener,
        Arrival,
        Client,
        Run,
        Stdin,
        Output,
        Exit,
        Ending,
        Starting,
        Upkeep,
        Drain,
    }
}

impl CommandSource {
    fn client(id: ClientId) -> Source {
        CommandSource::Client.at(Key::from_bits(id.0))
    }

    fn run(self, id: RunId) -> Source {
        self.at(Key::from_bits(id.0))
    }
}

impl Service for CommandDoor {
    fn handle_ready(&mut self, cx: &mut Context<'_>, source: Source, readiness: Readiness) {
        let number = source.key.to_bits();
        match CommandSource::from_source(source) {
            Some(CommandSource::Listener) => self.accept(cx, source.key),
            Some(CommandSource::Client) => self.client_ready(cx, ClientId(number), readiness),
            Some(CommandSource::Arrival) => self.arrival_ready(cx, source.key, readiness),
            Some(of @ (CommandSource::Stdin | CommandSource::Output)) => self.pipe_ready(cx, RunId(number), of),
            Some(CommandSource::Exit) => self.exit_ready(cx, RunId(number)),
            // These sources are never registered with the poll.
            Some(
                CommandSource::Run
                | CommandSource::Ending
                | CommandSource::Starting
                | CommandSource::Upkeep
                | CommandSource::Drain,
            )
            | None => {}
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>, source: Source) {
        let number = source.key.to_bits();
        match CommandSource::from_source(source) {
            Some(CommandSource::Listener) => self.retry_accepting(cx, source.key),
            Some(CommandSource::Client) => self.client_timeout(cx, ClientId(number)),
            Some(CommandSource::Arrival) => self.arrival_timeout(cx, source.key),
            Some(CommandSource::Run) => self.run_timeout(cx, RunId(number)),
            Some(CommandSource::Ending) => self.kill_timeout(cx, RunId(number)),
            Some(CommandSource::Upkeep) => self.front.sum_up(cx),
            Some(CommandSource::Drain) => self.drain_timeout(cx),
            // These sources have no alarm.
            Some(CommandSource::Stdin | CommandSource::Output | CommandSource::Exit | CommandSource::Starting)
            | None => {}
        }
    }

    fn resume(&mut self, cx: &mut Context<'_>, source: Source) {
        let number = source.key.to_bits();
        match CommandSource::from_source(source) {
            Some(CommandSource::Listener) => self.accept(cx, source.key),
            Some(CommandSource::Client) => self.pump(cx, ClientId(number)),
            Some(CommandSource::Arrival) => self.resume_arrival(cx, source.key),
            Some(CommandSource::Run) => self.pump_run(cx, RunId(number)),
            Some(CommandSource::Starting) => self.start_waiting(cx),
            // These sources are never resumed.
            Some(
                CommandSource::Stdin
                | CommandSource::Output
                | CommandSource::Exit
                | CommandSource::Ending
                | CommandSource::Upkeep
                | CommandSource::Drain,
            )
            | None => {}
        }
    }

    fn receive_mail(&mut self, cx: &mut Context<'_>) {
        self.take_signatures(cx);
    }

    fn end_turn(&mut self, _cx: &mut Context<'_>) {
        // Bytes are written when they come.
    }
}

impl CommandDoor {
    /// Reports an event of a client to the scheduler. The caller must move bytes afterwards.
    fn tell_client(&mut self, cx: &mut Context<'_>, id: ClientId, event: ClientEvent) {
        let held_up = event == ClientEvent::Gone && self.holds_up_others(id);
        if let Some(connection) = self.connections.get_mut(&id).filter(|_| event == ClientEvent::Gone) {
            // No byte comes or goes any more. Without this each further try would report the same.
            connection.peer.conn.abandon();
            if let Some(run) = connection.follows.filter(|_| held_up) {
                cx.resume_later(CommandSource::Run.run(run));
            }
        }
        self.scheduler.client_event(id, event, cx.now());
        self.obey(cx);
    }

    /// Carries out the scheduler's actions, until there are none.
    fn obey(&mut self, cx: &mut Context<'_>) {
        loop {
            let actions = self.scheduler.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.trace_action(&action);
                self.act(cx, action);
            }
        }
    }

    fn act(&mut self, cx: &mut Context<'_>, action: Action) {
        match action {
            Action::Prompt(id) => self.prompt(cx, id),
            Action::Complete(id) => self.complete(cx, id),
            Action::Refuse { client, name, why } => self.refuse(cx, client, &name, &why),
            Action::List(id) => self.list(cx, id),
            Action::Start { run, name, arguments } => self.add_run(cx, run, name, arguments),
            Action::Attach { client, run, leads } => self.attach(cx, client, run, leads),
            Action::Detach { client, run } => self.detach(cx, client, run),
            Action::Program(run, step) => self.take_step(cx, run, step),
            Action::Drop(run) => self.drop_run(cx, run),
            Action::BeginClose(id) => self.begin_close(cx, id),
            Action::LeftUnread(id) => self.log_unread(cx, id),
            Action::Close(id) => self.close(cx, id),
        }
    }

    /// Writes one step of a connection to the log, with `--debug`.
    fn trace(&self, id: ClientId, step: fmt::Arguments<'_>) {
        if self.options.debug {
            let connection = self.connections.get(&id);
            let origin = connection.map(|it| it.peer.origin.to_string()).unwrap_or_default();
            log::info!(service:% = self.front.name(); "{}: {origin}, connection {}: {step}", self.front.name(), id.0);
        }
    }

    /// Writes an action to the log, with `--debug`. The bytes from the client are left out: arguments may be
    /// confidential.
    fn trace_action(&self, action: &Action) {
        match action {
            Action::Prompt(id) => self.trace(*id, format_args!("prompted for an argument")),
            Action::Complete(id) => self.trace(*id, format_args!("a message without an end is taken for complete")),
            Action::Refuse { client, why, .. } => self.trace(*client, format_args!("told: {why}")),
            Action::List(id) => self.trace(*id, format_args!("told the list of commands")),
            Action::Attach { client, run, leads } => {
                let what = if *leads { "begins" } else { "joins" };
                self.trace(*client, format_args!("{what} run {}", run.0));
            }
            Action::Detach { client, run } => self.trace(*client, format_args!("gets nothing more of run {}", run.0)),
            Action::BeginClose(id) => self.trace(*id, format_args!("has everything")),
            Action::Close(id) => self.trace(*id, format_args!("closed")),
            // These have lines of their own in the log, or follow from the client's steps.
            Action::Start { .. } | Action::Program(..) | Action::Drop(_) | Action::LeftUnread(_) => {}
        }
    }
}
