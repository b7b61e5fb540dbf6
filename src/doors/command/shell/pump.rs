//! Moves bytes between clients and the scheduler, and between runs and the clients that follow them.

use super::super::core::client::ClientState;
use super::super::core::event::{ClientEvent, ClientId, RunId};
use super::super::core::exchange::Found;
use super::connection::Connection;
use super::{CommandDoor, CommandSource};
use crate::doors::program_client::ProgramClient;
use crate::doors::programs::RunsPrograms;
use crate::doors::run::RunEvent;
use crate::doors::standstill::Advice;
use crate::net::conn::{CloseStep, Received, Sent};
use crate::process::job::{Moved, Pipe};
use crate::reactor::Context;

/// The number of moves of each stream in one turn, up to a read buffer each. The clients that follow a run share them,
/// but each is served once.
const ROUNDS_PER_TURN: usize = 8;

impl CommandDoor {
    /// Moves the bytes of one client, and of the run that it follows.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>, id: ClientId) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        if let Some(run) = connection.follows {
            return self.pump_follower(cx, id, run);
        }
        let mut buffer = cx.lend_buffer();
        let mut rounds = 0;
        while rounds < ROUNDS_PER_TURN && self.move_client(cx, id, &mut buffer) {
            rounds += 1;
        }
        cx.return_buffer(buffer);
        if rounds == ROUNDS_PER_TURN {
            cx.resume_later(CommandSource::client(id));
        }
        self.arm_client(cx, id);
    }

    /// Moves the bytes of one client that follows a run with others. The other clients are left alone, or the work
    /// would grow with the square of their number; they are served when there is output, or new room for it.
    fn pump_follower(&mut self, cx: &mut Context<'_>, client: ClientId, id: RunId) {
        if self.runs.get(&id).is_none_or(|run| run.audience.len() <= 1) {
            return self.pump_run(cx, id);
        }
        let held_up = self.holds_up_others(client);
        let mut buffer = cx.lend_buffer();
        let mut rounds = 0;
        while rounds < ROUNDS_PER_TURN {
            let moved = self.move_client(cx, client, &mut buffer);
            let leads = self.runs.get(&id).is_some_and(|run| run.leader == Some(client));
            if !(moved | (leads && self.move_input(id))) {
                break;
            }
            rounds += 1;
        }
        cx.return_buffer(buffer);
        if rounds == ROUNDS_PER_TURN {
            cx.resume_later(CommandSource::client(client));
        }
        self.arm_client(cx, client);
        if held_up && !self.holds_up_others(client) {
            cx.resume_later(CommandSource::Run.run(id));
        }
    }

    /// Returns true if no output of a program is read because this client has left too much unread.
    pub(super) fn holds_up_others(&self, client: ClientId) -> bool {
        let connection = self.connections.get(&client);
        connection.is_some_and(|connection| connection.peer.conn.unwritten() >= self.options.max_buffer)
    }

    /// Moves the bytes of one run and of all clients that follow it.
    pub(super) fn pump_run(&mut self, cx: &mut Context<'_>, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let audience: Vec<ClientId> = run.audience.iter().copied().collect();
        let mut buffer = cx.lend_buffer();
        let (share, mut rounds) = ((ROUNDS_PER_TURN / audience.len().max(1)).max(1), 0);
        while rounds < share && self.move_run(cx, id, &audience, &mut buffer) {
            rounds += 1;
        }
        cx.return_buffer(buffer);
        if rounds == share {
            cx.resume_later(CommandSource::Run.run(id));
        }
        for client in audience {
            self.arm_client(cx, client);
        }
        if let Some(run) = self.runs.get_mut(&id) {
            let deadline = self.scheduler.run_deadline(id);
            cx.set_alarm(&mut run.alarm, CommandSource::Run.run(id), deadline);
        }
    }

    fn move_run(&mut self, cx: &mut Context<'_>, id: RunId, audience: &[ClientId], buffer: &mut [u8]) -> bool {
        let mut any = false;
        for client in audience {
            any |= self.move_client(cx, *client, buffer);
        }
        any |= self.move_input(id);
        any | self.move_output(cx, id, buffer)
    }

    fn arm_client(&mut self, cx: &mut Context<'_>, id: ClientId) {
        self.look_for_standstill(cx, id);
        if let Some(connection) = self.connections.get_mut(&id) {
            let deadline = self.scheduler.client_deadline(id);
            connection.peer.set_alarm(cx, CommandSource::client(id), deadline);
        }
    }

    /// Checks if client and program wait for each other. Must be called when no more bytes can be moved.
    fn look_for_standstill(&mut self, cx: &mut Context<'_>, id: ClientId) {
        let limits = (self.options.max_buffer, self.options.timing.write_timeout);
        let Some(Connection { peer, follows, .. }) = self.connections.get_mut(&id) else {
            return;
        };
        let run = follows.and_then(|run| self.runs.get(&run));
        let led = run
            .filter(|run| run.leader == Some(id))
            .and_then(|run| run.job.as_ref());
        match peer.look_for_standstill(&mut self.hoard, led, limits, cx.now()) {
            Advice::Wait => {}
            Advice::Grow => cx.resume_later(CommandSource::client(id)),
            Advice::GiveUp => {
                self.tell_client(cx, id, ClientEvent::Standstill);
                cx.resume_later(CommandSource::client(id));
            }
        }
    }

    // ---- to and from a client ----------------------------------------------------------------------------------

    /// Moves bytes once each way. Returns true if anything was moved.
    fn move_client(&mut self, cx: &mut Context<'_>, id: ClientId, buffer: &mut [u8]) -> bool {
        let written = self.write_client(cx, id);
        self.read_client(cx, id, buffer) || written
    }

    fn write_client(&mut self, cx: &mut Context<'_>, id: ClientId) -> bool {
        let is_answered = matches!(self.scheduler.client(id), Some(ClientState::Answered { .. }));
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let ProgramClient { conn, watch, .. } = &mut connection.peer;
        let event = match conn.flush() {
            // There was nothing to be written, as of a program without output.
            Sent::Nothing if is_answered && conn.unwritten() == 0 => ClientEvent::Flushed,
            Sent::Nothing => return false,
            Sent::Failed => ClientEvent::Gone,
            Sent::Bytes(count) => {
                watch.sent(count);
                if conn.unwritten() == 0 {
                    ClientEvent::Flushed
                } else {
                    ClientEvent::Progress
                }
            }
        };
        self.tell_client(cx, id, event);
        true
    }

    /// Returns true if the bytes from the client are its program's input, now or once that is started.
    fn sends_input(&self, id: ClientId) -> bool {
        match self.scheduler.client(id) {
            Some(ClientState::Queued(_)) => true,
            Some(ClientState::Following { run, .. }) => self.runs.get(run).is_some_and(|run| run.leader == Some(id)),
            _ => false,
        }
    }

    fn read_client(&mut self, cx: &mut Context<'_>, id: ClientId, buffer: &mut [u8]) -> bool {
        let Some(Connection { peer, .. }) = self.connections.get_mut(&id) else {
            return false;
        };
        if peer.conn.is_closing() {
            return self.go_on_closing(cx, id);
        }
        let room = buffer.len().min(peer.room(&self.hoard, self.options.max_buffer));
        if room == 0 {
            return false;
        }
        let room = buffer.get_mut(..room).unwrap_or_default();
        match peer.read(room) {
            Received::Nothing => return false,
            Received::Cut | Received::Failed => self.tell_client(cx, id, ClientEvent::Gone),
            Received::End => self.client_ends(cx, id),
            Received::Bytes(count) => self.take(cx, id, buffer.get(..count).unwrap_or_default()),
        }
        true
    }

    /// One step of the lingering close; returns true if anything came of it.
    fn go_on_closing(&mut self, cx: &mut Context<'_>, id: ClientId) -> bool {
        let connection = self.connections.get_mut(&id);
        match connection.map_or(CloseStep::Waiting, |connection| connection.peer.conn.go_on_closing()) {
            CloseStep::Waiting => false,
            CloseStep::MoreLater => true,
            CloseStep::Done => {
                self.tell_client(cx, id, ClientEvent::Left);
                true
            }
        }
    }

    /// Handles the end of the client's side.
    fn client_ends(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.peer.input_ends = true;
        }
        self.complete(cx, id);
        // A client that has named no command is closed without an answer.
        if self.has_named_nothing(id)
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.peer.conn.say_end_before_close();
        }
        self.tell_client(cx, id, ClientEvent::Left);
    }

    /// Takes the bytes of a message that has begun for all of it.
    pub(super) fn complete(&mut self, cx: &mut Context<'_>, id: ClientId) {
        let message = self.connections.get_mut(&id).and_then(|it| it.exchange.complete());
        if let Some(message) = message.filter(|_| self.asks(id)) {
            self.tell_client(cx, id, ClientEvent::Message(message));
        }
    }

    fn has_named_nothing(&self, id: ClientId) -> bool {
        let state = self.scheduler.client(id);
        matches!(state, Some(ClientState::Asking(asking)) if asking.request.name.is_none())
    }

    fn asks(&self, id: ClientId) -> bool {
        matches!(self.scheduler.client(id), Some(ClientState::Asking(_)))
    }

    /// Takes bytes that were read: messages, and behind the last of them input.
    fn take(&mut self, cx: &mut Context<'_>, id: ClientId, bytes: &[u8]) {
        let mut rest = bytes;
        while self.asks(id) {
            let Some(connection) = self.connections.get_mut(&id) else {
                return;
            };
            let (taken, found) = connection.exchange.advance(rest);
            let pending = connection.exchange.is_pending();
            rest = rest.get(taken..).unwrap_or_default();
            match found {
                Found::Message(message) => self.tell_client(cx, id, ClientEvent::Message(message)),
                Found::TooLong => return self.tell_client(cx, id, ClientEvent::TooLong),
                Found::NeedMore if pending => return self.tell_client(cx, id, ClientEvent::Pending),
                Found::NeedMore => return,
            }
        }
        let sends_input = self.sends_input(id);
        if let Some(connection) = self.connections.get_mut(&id).filter(|_| sends_input) {
            let skipped = connection.exchange.finish(rest);
            let input = rest.get(skipped..).unwrap_or_default();
            connection.peer.input.end().extend_from_slice(input);
        }
    }

    // ---- to and from a program ---------------------------------------------------------------------------------

    /// Writes the leader's input to the program, and closes its input behind that.
    fn move_input(&mut self, id: RunId) -> bool {
        let Some(run) = self.runs.get_mut(&id) else {
            return false;
        };
        let leader = run.leader.and_then(|leader| self.connections.get_mut(&leader));
        let Some(job) = &mut run.job else {
            return false;
        };
        let Some(connection) = leader else {
            // The leader may have gone before the program was started.
            job.end_input();
            return false;
        };
        connection.peer.write_input(job)
    }

    /// Reads output of the program, while all clients that follow it have room.
    fn move_output(&mut self, cx: &mut Context<'_>, id: RunId, buffer: &mut [u8]) -> bool {
        let Some(run) = self.runs.get(&id) else { return false };
        let held = |client: &ClientId| Some((*client, self.connections.get(client)?.peer.conn.unwritten()));
        let held: Vec<(ClientId, usize)> = run.audience.iter().filter_map(held).collect();
        let max_buffer = self.options.max_buffer;
        let most = held.iter().map(|(_, held)| *held).max().unwrap_or(0);
        if most >= max_buffer {
            for (client, _) in held.into_iter().filter(|(_, held)| *held >= max_buffer) {
                self.tell_client(cx, client, ClientEvent::Full);
            }
            return false;
        }
        let room = (max_buffer - most).min(buffer.len());
        self.read_program(cx, id, buffer.get_mut(..room).unwrap_or_default())
    }

    /// Reads output once, and passes it on to all clients that follow the run. Returns true if anything was read.
    pub(super) fn read_program(&mut self, cx: &mut Context<'_>, id: RunId, buffer: &mut [u8]) -> bool {
        let Some(run) = self.runs.get_mut(&id) else {
            return false;
        };
        let Some(job) = &mut run.job else { return false };
        let is_first = job.traffic().output == 0;
        let count = match job.read_output(Pipe::Stdout, buffer) {
            Moved::Nothing => return false,
            Moved::Over => {
                self.tell_run(cx, id, RunEvent::OutputOver);
                return true;
            }
            Moved::Bytes(count) => count,
        };
        if is_first {
            self.statistics.times.first_byte.record(run.decided.elapsed());
        }
        let come = buffer.get(..count).unwrap_or_default();
        for client in &run.audience {
            if let Some(connection) = self.connections.get_mut(client) {
                connection.peer.conn.output_mut().extend_from_slice(come);
            }
        }
        if !run.remember(come, self.options.max_buffer) {
            self.scheduler.close_to_joining(id);
        }
        true
    }
}
