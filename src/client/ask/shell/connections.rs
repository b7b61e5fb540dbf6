//! The connections of the shell: made, written, read and closed as the asker decides.

use std::io;

use mio::Interest;

use super::{Shell, failure, source};
use crate::client::ask::connection::{Connection, Progress, Purpose, cannot_connect};
use crate::client::ask::core::{AskEvent, AttemptId, ConnectionId, Fault};
use crate::client::ask::cutter::Cut;
use crate::framing::multiplex::HELLO;
use crate::net::conn::Sent;
use crate::reactor::{Context, Key};

impl Shell {
    /// Connects to the target of that address that follows `refused` others.
    pub(super) fn connect(&mut self, cx: &mut Context<'_>, purpose: Purpose, address: usize, refused: usize) {
        let first = match purpose {
            Purpose::Single(attempt) => self.asker.question(attempt),
            Purpose::Shared(_) => HELLO.strip_suffix(b"\n"),
        };
        let (Some(first), Some(destination)) = (first, self.destinations.get_mut(address)) else {
            return;
        };
        if !destination.has_targets() {
            destination.park(purpose);
            return self.look_up(cx.now(), address);
        }
        let mut last = Fault::Unresolved;
        for refused in refused.. {
            let Some(target) = destination.target(refused) else {
                break;
            };
            match Connection::begin(purpose, address, refused, (&destination.server, target), first) {
                Ok(connection) => return self.watch(cx, connection),
                Err(fault) => last = fault,
            }
        }
        self.asker.handle(cx.now(), failure(purpose, last));
    }

    fn watch(&mut self, cx: &mut Context<'_>, connection: Connection) {
        let purpose = connection.purpose;
        let Ok(key) = self.connections.insert(connection) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        match cx.register(source(key), &mut connection.conn, interest) {
            Ok(()) => {
                self.keys.insert(purpose, key);
            }
            Err(error) => {
                self.connections.remove(key);
                let fault = Fault::Shortage((&error).into());
                self.asker.handle(cx.now(), failure(purpose, fault));
            }
        }
    }

    /// Goes on with a connection after an event.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.conn.is_connecting() {
            match connection.conn.advance_connecting() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.fail_connecting(cx, key, &error),
            }
            if let Some(destination) = self.destinations.get_mut(connection.address) {
                destination.prefer_next(connection.refused);
            }
            if let Purpose::Shared(id) = connection.purpose {
                self.asker.handle(cx.now(), AskEvent::Connected(id));
            }
        }
        self.exchange(cx, key);
    }

    /// Writes and reads on a connection that is established.
    fn exchange(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let (purpose, now, asker) = (connection.purpose, cx.now(), &mut self.asker);
        let mut buffer = cx.lend_buffer();
        let progress = connection.advance(&mut buffer, |line| match (purpose, line) {
            (Purpose::Shared(id), Cut::Whole(line)) => asker.handle(now, AskEvent::Received(id, line)),
            (Purpose::Shared(id), Cut::Overlong(line)) => asker.handle(now, AskEvent::Overlong(id, line)),
            (Purpose::Single(_), _) => {}
        });
        cx.return_buffer(buffer);
        match (progress, purpose) {
            (Progress::Pending, _) => {}
            (Progress::More, _) => cx.resume_later(source(key)),
            (Progress::Replied(reply), Purpose::Single(attempt)) => {
                self.close(key);
                self.asker.handle(cx.now(), AskEvent::Reply(attempt, reply));
            }
            (Progress::Replied(_), Purpose::Shared(_)) => {}
            (Progress::Over(fault), _) => {
                if let Some(connection) = self.close(key)
                    && let Some(error) = connection.conn.error()
                    && let Some(destination) = self.destinations.get_mut(connection.address)
                {
                    destination.note_error(fault, error);
                }
                self.asker.handle(cx.now(), failure(purpose, fault));
            }
        }
        self.carry_out(cx);
    }

    fn fail_connecting(&mut self, cx: &mut Context<'_>, key: Key, error: &io::Error) {
        let Some(connection) = self.close(key) else { return };
        let Connection {
            purpose,
            address,
            refused,
            ..
        } = connection;
        let fault = cannot_connect(error);
        let destination = self.destinations.get_mut(address);
        let has_another = destination.is_some_and(|destination| {
            destination.note_error(fault, error);
            destination.target(refused + 1).is_some()
        });
        if matches!(fault, Fault::Unreachable(_) | Fault::Tls | Fault::Disagreed) && has_another {
            self.connect(cx, purpose, address, refused + 1);
            self.carry_out(cx);
        } else {
            self.handle(cx, failure(purpose, fault));
        }
    }

    /// Closes the connection for this purpose, or forgets that it was to be made.
    pub(super) fn drop_connection(&mut self, purpose: Purpose) {
        let Some(key) = self.keys.get(&purpose).copied() else {
            for destination in &mut self.destinations {
                destination.unpark(purpose);
            }
            return;
        };
        if let Some(connection) = self.close(key)
            && connection.conn.is_connecting()
            && let Some(destination) = self.destinations.get_mut(connection.address)
        {
            // Its packets seem to get lost: the next attempt begins with another target.
            destination.prefer_next(connection.refused + 1);
        }
    }

    fn close(&mut self, key: Key) -> Option<Connection> {
        let connection = self.connections.remove(key)?;
        self.keys.remove(&connection.purpose);
        Some(connection)
    }

    // ---- connections for many lines ----------------------------------------------------------------------------

    pub(super) fn append_line(&mut self, id: ConnectionId, number: u32, attempt: AttemptId) {
        // An attempt that has ended since, in the same turn, is not sent.
        if let (Some(key), Some(question)) = (self.key_of(id), self.asker.question(attempt))
            && let Some(connection) = self.connections.get_mut(key)
        {
            connection.append_line(number, question);
            self.note_appended(key);
        }
    }

    pub(super) fn append_cancel(&mut self, id: ConnectionId, number: u32) {
        if let Some(key) = self.key_of(id)
            && let Some(connection) = self.connections.get_mut(key)
        {
            connection.append_cancel(number);
            self.note_appended(key);
        }
    }

    pub(super) fn finish(&mut self, id: ConnectionId) {
        if let Some(key) = self.key_of(id)
            && let Some(connection) = self.connections.get_mut(key)
        {
            connection.finish();
            self.note_appended(key);
        }
    }

    pub(super) fn end_connection(&mut self, id: ConnectionId) {
        if let Some(connection) = self.key_of(id).and_then(|key| self.close(key)) {
            connection.end();
        }
    }

    /// Closes the connections that are left at the end of the run, when no line is under way.
    pub(super) fn end_all(&mut self) {
        for (_, key) in std::mem::take(&mut self.keys) {
            if let Some(connection) = self.connections.remove(key) {
                connection.end();
            }
        }
    }

    fn key_of(&self, id: ConnectionId) -> Option<Key> {
        self.keys.get(&Purpose::Shared(id)).copied()
    }

    fn note_appended(&mut self, key: Key) {
        if self.appended.last() != Some(&key) && !self.appended.contains(&key) {
            self.appended.push(key);
        }
    }

    /// Writes what was appended in this turn, each connection's in one write.
    pub(super) fn write_appended(&mut self, cx: &mut Context<'_>) {
        while let Some(key) = self.appended.pop() {
            if let Some(connection) = self.connections.get_mut(key)
                && connection.write() == Sent::Failed
            {
                // The last lines of the pool are still to be read.
                cx.resume_later(source(key));
            }
        }
    }
}
