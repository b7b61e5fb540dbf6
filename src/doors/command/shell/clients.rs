//! Clients: taken in, told, and let go.

use std::fmt;

use log::Level;
use mio::Interest;

use super::super::core::event::{ClientEvent, ClientId, Refusal};
use super::super::core::exchange::Exchange;
use super::super::core::reply;
use super::super::report::{self, Topic};
use super::connection::Connection;
use super::{CommandDoor, CommandSource};
use crate::buffer::Buffer;
use crate::doors::standstill::Watch;
use crate::net::addr::PeerAddr;
use crate::net::edges::Edges;
use crate::net::limits::Full;
use crate::net::listening::{Accepting, Listening};
use crate::net::stream::{Stream, Unread};
use crate::reactor::{Alarm, Context, Readiness};

impl Accepting for CommandDoor {
    fn listening_mut(&mut self) -> &mut Listening {
        &mut self.listening
    }

    fn admit(&mut self, cx: &mut Context<'_>, stream: Stream, peer: PeerAddr) {
        self.welcome(cx, stream, peer);
    }

    fn log_pause(&mut self, cx: &mut Context<'_>, line: fmt::Arguments<'_>) {
        self.note(cx, Level::Error, Topic::Accept, line);
    }
}

impl CommandDoor {
    // ---- in ----------------------------------------------------------------------------------------------------

    pub(in crate::doors::command) fn welcome(&mut self, cx: &mut Context<'_>, mut stream: Stream, peer: PeerAddr) {
        if !self.options.access.permits(&peer) {
            self.scheduler.counters.denied += 1;
            let line = format_args!("refused {peer}: not allowed by --allow and --deny");
            return self.note(cx, Level::Warn, Topic::Denied, line);
        }
        if let Err(full) = self.count.admit(&peer) {
            return self.turn_away(cx, &stream, &peer, full);
        }
        // Output leaves as it comes; and of a client over TCP that dies in silence nobody else would tell. Where either
        // cannot be set (the peer has gone) the next read says so.
        let _ = stream.set_nodelay().and_then(|()| stream.set_keepalive());
        let id = ClientId(self.next_client);
        self.next_client += 1;
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = cx.register(CommandSource::client(id), &mut stream, both) {
            self.count.release(&peer);
            let line = format_args!("cannot watch {peer}: {error}");
            return self.note(cx, Level::Error, Topic::System, line);
        }
        let connection = Connection {
            stream,
            peer,
            accepted: cx.now(),
            exchange: Exchange::new(self.options.max_message),
            edges: Edges::UNTRIED,
            alarm: Alarm::default(),
            follows: None,
            input: Buffer::default(),
            input_ends: false,
            output: Buffer::default(),
            watch: Watch::default(),
        };
        self.connections.insert(id, connection);
        self.scheduler.connect(id, cx.now());
        self.trace(id, format_args!("connected"));
        self.pump(cx, id);
    }

    /// Over the limit: told at once, and not kept. A reset may overtake the refusal where what it sends is unread; to wait for
    /// that would be to keep the connection after all.
    fn turn_away(&mut self, cx: &mut Context<'_>, stream: &Stream, peer: &PeerAddr, full: Full) {
        self.scheduler.counters.over_limit += 1;
        let (topic, limit) = match full {
            Full::Total => (Topic::MaxConnections, "--max-connections"),
            Full::Address => (Topic::MaxConnectionsPerIp, "--max-connections-per-ip"),
        };
        let _ = stream.discard_unread();
        let mut wire = Buffer::default();
        reply::refusal(b"", &Refusal::Busy, wire.end());
        // A fresh socket has room for so little; a peer that has gone is told nothing.
        let _ = wire.write_to(stream);
        let line = format_args!("refused {peer}: as many connections as {limit} allows");
        self.note(cx, Level::Warn, topic, line);
    }

    pub(super) fn client_ready(&mut self, cx: &mut Context<'_>, id: ClientId, readiness: Readiness) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.edges.note(readiness);
        if readiness.hung_up {
            self.tell_client(cx, id, ClientEvent::Gone);
        }
        self.pump(cx, id);
    }

    pub(super) fn client_timeout(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            cx.alarm_fired(&mut connection.alarm);
            self.tell_client(cx, id, ClientEvent::Tick);
            self.pump(cx, id);
        }
    }

    // ---- told --------------------------------------------------------------------------------------------------

    pub(super) fn prompt(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.output.end().extend_from_slice(reply::PROMPT);
            cx.resume_later(CommandSource::client(id));
        }
    }

    pub(super) fn list(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let names = self.options.commands.iter().map(|command| command.name.as_slice());
            reply::list(names, connection.output.end());
            cx.resume_later(CommandSource::client(id));
        }
    }

    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, id: ClientId, name: &[u8], why: &Refusal) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        reply::refusal(name, why, connection.output.end());
        cx.resume_later(CommandSource::client(id));
        let peer = connection.peer;
        let topic = match why {
            // Said when the program was.
            Refusal::TimedOut(_) | Refusal::Standstill | Refusal::NotStarted | Refusal::Unkillable => return,
            Refusal::NotFound => Topic::NotFound,
            Refusal::Busy => Topic::Busy,
            _ => Topic::Refusal,
        };
        let name = report::command(name, &[], false);
        self.note(cx, Level::Warn, topic, format_args!("refused {peer}: {name}: {why}"));
    }

    pub(super) fn log_unread(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if let Some(connection) = self.connections.get(&id) {
            let peer = connection.peer;
            let line = format_args!("{peer} has left its output unread for --write-timeout, and is let go");
            self.note(cx, Level::Warn, Topic::Unread, line);
        }
    }

    // ---- out ---------------------------------------------------------------------------------------------------

    /// The client has everything. One that may still send is told that nothing more comes, and read away for a while: were its
    /// socket closed over unread bytes, the kernel would answer with a reset, which may overtake the answer.
    pub(super) fn part(&mut self, cx: &mut Context<'_>, id: ClientId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        // An error: it has gone.
        let unread = connection.stream.discard_unread().unwrap_or(Unread::End);
        let quiet = match unread {
            Unread::End => true,
            Unread::None => connection.input_ends,
            Unread::Bytes(_) => false,
        };
        if quiet || connection.stream.shutdown_write().is_err() {
            self.tell_client(cx, id, ClientEvent::Left);
        } else {
            connection.edges.expect_input();
            cx.resume_later(CommandSource::client(id));
        }
    }

    pub(super) fn close(&mut self, cx: &mut Context<'_>, id: ClientId) {
        let Some(mut connection) = self.connections.remove(&id) else {
            return;
        };
        cx.set_alarm(&mut connection.alarm, CommandSource::client(id), None);
        connection.watch.leave(&mut self.hoard);
        self.count.release(&connection.peer);
        drop(connection);
        self.listening.descriptor_freed(cx);
    }
}
