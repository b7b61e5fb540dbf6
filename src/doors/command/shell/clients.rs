//! The clients of the command door: admitted, answered, and closed.

use std::time::Duration;

use log::Level;
use mio::Interest;

use super::super::core::event::{ClientEvent, ClientId, Refusal};
use super::super::core::exchange::Exchange;
use super::super::core::reply;
use super::super::report;
use super::connection::Connection;
use super::{CommandDoor, CommandSource};
use crate::buffer::Buffer;
use crate::doors::front::OverLimit;
use crate::doors::programs::{REFUSAL, SYSTEM, UNREAD};
use crate::doors::standstill::Watch;
use crate::net::conn::{CloseStep, Conn, LingerLimits};
use crate::net::origin::Origin;
use crate::reactor::{Alarm, Context, Readiness};

/// A client may be sending a large file to a program that has ended without reading it, and reads its answer only
/// behind that: so there is no limit in bytes.
const LINGER: LingerLimits = LingerLimits {
    time: Duration::from_secs(5),
    bytes: usize::MAX,
};

impl CommandDoor {
    // ---- in ----------------------------------------------------------------------------------------------------

    pub(super) fn welcome(&mut self, cx: &mut Context<'_>, mut conn: Conn, origin: Origin) {
        if let Err(over) = self.front.count_in(&origin) {
            return self.turn_away(cx, conn, &origin, over);
        }
        // Output leaves as it comes, and the kernel notices a client over TCP that dies in silence. An error means that
        // the peer has gone, which the next read tells as well.
        let _ = conn.socket().set_nodelay().and_then(|()| conn.socket().set_keepalive());
        let id = ClientId(self.next_client);
        self.next_client += 1;
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = cx.register(CommandSource::client(id), &mut conn, both) {
            self.front.release(&origin);
            let line = format_args!("cannot watch {origin}: {error}");
            self.front.note(cx, Level::Error, SYSTEM, line);
            return;
        }
        let connection = Connection {
            conn,
            origin,
            accepted: cx.now(),
            exchange: Exchange::new(self.options.max_message),
            alarm: Alarm::default(),
            follows: None,
            input: Buffer::default(),
            input_ends: false,
            watch: Watch::default(),
        };
        self.connections.insert(id, connection);
        self.scheduler.connect(id, cx.now());
        self.trace(id, format_args!("connected"));
        self.pump(cx, id);
    }

    /// Refuses a client over the limit.
    fn turn_away(&mut self, cx: &mut Context<'_>, conn: Conn, origin: &Origin, over: OverLimit) {
        let mut wire = Vec::new();
        reply::refusal(b"", &Refusal::Busy, &mut wire);
        conn.turn_away(&wire, false);
        let line = format_args!("refused {origin}: as many connections as {} allows", over.flag());
        self.front.note(cx, Level::Warn, over.topic(), line);
    }

    pub(super) fn client_ready(&mut self, cx: &mut Context<'_>, id: ClientId, readiness: Readiness) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.conn.note(readiness);
        if readiness.hung_up {
            self.tell_client(cx, id, ClientEvent::Gone);
        }
        self.pump(cx, id);
    }

    pub(super) fn client_timeout(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            cx.clear_alarm(&mut connection.alarm);
            if connection.conn.close_deadline().is_some_and(|until| until <= cx.now()) {
                return self.tell_client(cx, id, ClientEvent::Left);
            }
            self.tell_client(cx, id, ClientEvent::Tick);
            self.pump(cx, id);
        }
    }

    // ---- told --------------------------------------------------------------------------------------------------

    pub(super) fn prompt(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.conn.output_mut().extend_from_slice(reply::PROMPT);
            cx.resume_later(CommandSource::client(id));
        }
    }

    pub(super) fn list(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let names = self.options.commands.iter().map(|command| command.name.as_slice());
            reply::list(names, connection.conn.output_mut());
            cx.resume_later(CommandSource::client(id));
        }
    }

    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, id: ClientId, name: &[u8], why: &Refusal) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        reply::refusal(name, why, connection.conn.output_mut());
        cx.resume_later(CommandSource::client(id));
        let topic = match why {
            // The log has these when the program ends.
            Refusal::TimedOut(_) | Refusal::Standstill | Refusal::NotStarted | Refusal::Unkillable => return,
            Refusal::NotFound => report::NOT_FOUND,
            Refusal::Busy => report::BUSY,
            _ => REFUSAL,
        };
        let (origin, name) = (&connection.origin, report::command(name, &[], false));
        let line = format_args!("refused {origin}: {name}: {why}");
        self.front.note(cx, Level::Warn, topic, line);
    }

    pub(super) fn log_unread(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get(&id) {
            let origin = &connection.origin;
            let line = format_args!("{origin} has left its output unread for --write-timeout, and is let go");
            self.front.note(cx, Level::Warn, UNREAD, line);
        }
    }

    // ---- out ---------------------------------------------------------------------------------------------------

    /// Begins the lingering close. Must be called once the client has everything.
    pub(super) fn part(&mut self, cx: &mut Context<'_>, id: ClientId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match connection.conn.begin_close(!connection.input_ends, LINGER, cx.now()) {
            CloseStep::Done => self.tell_client(cx, id, ClientEvent::Left),
            CloseStep::Waiting | CloseStep::MoreLater => cx.resume_later(CommandSource::client(id)),
        }
    }

    pub(super) fn close(&mut self, cx: &mut Context<'_>, id: ClientId) {
        let Some(mut connection) = self.connections.remove(&id) else {
            return;
        };
        cx.set_alarm(&mut connection.alarm, CommandSource::client(id), None);
        connection.watch.leave(&mut self.hoard);
        self.front.release(&connection.origin);
        drop(connection);
        self.front.descriptor_freed(cx);
    }
}
