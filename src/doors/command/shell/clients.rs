//! The clients of the command door: admitted, answered, and closed.

use log::Level;

use super::super::core::event::{ClientEvent, ClientId, Refusal};
use super::super::core::exchange::Exchange;
use super::super::core::reply;
use super::super::report;
use super::connection::Connection;
use super::{CommandDoor, CommandSource};
use crate::doors::program_client::ProgramClient;
use crate::doors::programs::{REFUSAL, SYSTEM, UNREAD};
use crate::net::conn::{CloseStep, Conn};
use crate::net::origin::Origin;
use crate::reactor::{Context, Readiness};

impl CommandDoor {
    // ---- in ----------------------------------------------------------------------------------------------------

    /// Adds the client of a connection that has a place, and serves it.
    pub(super) fn add_client(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        let id = ClientId(self.next_client);
        self.next_client += 1;
        let mut peer = ProgramClient::new(conn, origin, cx.now());
        let source = CommandSource::client(id);
        if let Err(error) = peer.register(cx, source) {
            let line = format_args!("cannot watch {}: {error}", peer.origin);
            self.front.note(cx, Level::Error, SYSTEM, line);
            return peer.close(cx, source, &mut self.front, &mut self.hoard);
        }
        let connection = Connection {
            peer,
            exchange: Exchange::new(self.options.max_message),
            follows: None,
        };
        self.connections.insert(id, connection);
        self.scheduler.connect(id, cx.now());
        self.trace(id, format_args!("connected"));
        self.pump(cx, id);
    }

    pub(super) fn client_ready(&mut self, cx: &mut Context<'_>, id: ClientId, readiness: Readiness) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.peer.note(readiness);
        if readiness.hung_up {
            self.tell_client(cx, id, ClientEvent::Gone);
        }
        self.pump(cx, id);
    }

    pub(super) fn client_timeout(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            if connection.peer.clear_alarm(cx) {
                return self.tell_client(cx, id, ClientEvent::Left);
            }
            self.tell_client(cx, id, ClientEvent::Tick);
            self.pump(cx, id);
        }
    }

    // ---- told --------------------------------------------------------------------------------------------------

    pub(super) fn prompt(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.peer.conn.output_mut().extend_from_slice(reply::PROMPT);
            cx.resume_later(CommandSource::client(id));
        }
    }

    pub(super) fn list(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let names = self.options.commands.iter().map(|command| command.name.as_slice());
            reply::list(names, connection.peer.conn.output_mut());
            cx.resume_later(CommandSource::client(id));
        }
    }

    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, id: ClientId, name: &[u8], why: &Refusal) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        reply::refusal(name, why, connection.peer.conn.output_mut());
        cx.resume_later(CommandSource::client(id));
        let topic = match why {
            // The log has these when the program ends.
            Refusal::TimedOut(_) | Refusal::Standstill | Refusal::NotStarted | Refusal::Unkillable => return,
            Refusal::NotFound => report::NOT_FOUND,
            Refusal::Busy => report::BUSY,
            _ => REFUSAL,
        };
        let (origin, name) = (&connection.peer.origin, report::command(name, &[], false));
        let line = format_args!("refused {origin}: {name}: {why}");
        self.front.note(cx, Level::Warn, topic, line);
    }

    pub(super) fn log_unread(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get(&id) {
            let origin = &connection.peer.origin;
            let line = format_args!("{origin} has left its output unread for --write-timeout, and is let go");
            self.front.note(cx, Level::Warn, UNREAD, line);
        }
    }

    // ---- out ---------------------------------------------------------------------------------------------------

    /// Begins the lingering close. Must be called once the client has everything.
    pub(super) fn begin_close(&mut self, cx: &mut Context<'_>, id: ClientId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match connection.peer.begin_close(cx.now()) {
            CloseStep::Done => self.tell_client(cx, id, ClientEvent::Left),
            CloseStep::Waiting | CloseStep::MoreLater => cx.resume_later(CommandSource::client(id)),
        }
    }

    pub(super) fn close(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.remove(&id) {
            let source = CommandSource::client(id);
            connection.peer.close(cx, source, &mut self.front, &mut self.hoard);
        }
    }
}
