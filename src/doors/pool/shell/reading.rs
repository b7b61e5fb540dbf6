//! The loops that read: what comes from a client or a worker is taken piece by piece, and each piece is settled before the next
//! is judged, because what becomes of it may change what the next one means.

use log::Level;

use super::Pool;
use super::clients::intake::Piece;
use crate::doors::pool::report::Topic;
use crate::net::conn::Conn;
use crate::net::limits::Full;
use crate::net::origin::Origin;
use crate::reactor::{Context, Key, Readiness};

/// Reads from one client in one turn; four full buffers.
const READS_PER_TURN: usize = 4;

impl Pool {
    // ---- connections -------------------------------------------------------------------------------------------

    /// Takes in a connection and all that follows from it; its request is usually there already.
    pub(in crate::doors::pool) fn welcome(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        self.add_connection(cx, conn, origin);
        self.end_step(cx);
    }

    fn add_connection(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        if !self.options.front.access.permits(&origin) {
            self.dispatcher.counters_mut().refusals.denied += 1;
            let line = format_args!("refused {origin}: not allowed by --allow and --deny");
            return self.note(cx, Level::Warn, Topic::Denied, line);
        }
        if let Err(full) = self.connections.admit(&origin) {
            return self.turn_away(cx, conn, &origin, full);
        }
        let stream = conn.into_stream();
        if self.has_sessions() {
            return self.welcome_session(cx, stream, origin);
        }
        let mut rooms = self.rooms();
        if let Some(key) = rooms.clients.add(&mut rooms.desk, stream, origin, cx.now()) {
            self.read_client(cx, key, false);
        }
    }

    /// Refuses a connection over the limit.
    fn turn_away(&mut self, cx: &mut Context<'_>, conn: Conn, origin: &Origin, full: Full) {
        let refusals = &mut self.dispatcher.counters_mut().refusals;
        let (count, topic, limit) = match full {
            Full::Total => (
                &mut refusals.max_connections,
                Topic::MaxConnections,
                "--max-connections",
            ),
            Full::Address => (
                &mut refusals.max_connections_per_ip,
                Topic::MaxConnectionsPerIp,
                "--max-connections-per-ip",
            ),
        };
        *count += 1;
        conn.turn_away(&self.options.error_reply);
        let line = format_args!("refused {origin}: as many connections as {limit} allows");
        self.note(cx, Level::Warn, topic, line);
    }

    // ---- clients -----------------------------------------------------------------------------------------------

    pub(super) fn client_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        let mut rooms = self.rooms();
        if rooms.clients.handle_ready(cx, &mut rooms.desk, key, readiness) {
            self.read_client(cx, key, readiness.read_closed || readiness.hung_up);
        }
    }

    /// Goes on with a client that had more to be read than one turn was for, or that has room again.
    pub(super) fn resume_client(&mut self, cx: &mut Context<'_>, key: Key) {
        let mut rooms = self.rooms();
        if rooms.clients.resume(cx, &mut rooms.desk, key) {
            self.take_requests(cx, key, &[]);
            self.read_client(cx, key, true);
            let mut rooms = self.rooms();
            rooms.clients.close_if_drained(cx, &mut rooms.desk, key);
        }
    }

    pub(super) fn client_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        if self.clients.handle_alarm(cx, key) {
            self.read_client(cx, key, true);
        }
        let mut rooms = self.rooms();
        rooms.clients.end_overdue(cx, &mut rooms.desk, key);
    }

    /// Reads what a client has sent, a bounded share of it. On epoll a read that does not fill the buffer has drained the
    /// socket, and what comes later is a new event; only where the end may be there already is it read up to that.
    fn read_client(&mut self, cx: &mut Context<'_>, key: Key, to_the_end: bool) {
        let mut buffer = cx.lend_buffer();
        let mut is_drained = false;
        for _ in 0..READS_PER_TURN {
            let mut rooms = self.rooms();
            match rooms.clients.read(cx, &mut rooms.desk, key, &mut buffer) {
                Piece::Interrupted => continue,
                Piece::Nothing => is_drained = true,
                Piece::Bytes(length) => {
                    self.take_requests(cx, key, buffer.get(..length).unwrap_or_default());
                    is_drained = length < buffer.len() && !to_the_end;
                }
            }
            if is_drained {
                break;
            }
        }
        cx.return_buffer(buffer);
        if is_drained {
            self.clients.touch(key);
        } else {
            self.clients.read_later(cx, key);
        }
    }

    /// Takes the requests out of `new`, which was read behind what the client has left unfinished before.
    fn take_requests(&mut self, cx: &mut Context<'_>, key: Key, new: &[u8]) {
        let Some(mut held) = self.clients.take_held(key) else {
            return;
        };
        let had_begun = !held.is_empty();
        if had_begun {
            held.extend_from_slice(new);
        }
        let bytes = if had_begun { held.as_slice() } else { new };
        let mut taken = 0;
        loop {
            let (rest, mut rooms) = (bytes.get(taken..).unwrap_or_default(), self.rooms());
            match rooms.clients.take_next(cx, &mut rooms.desk, key, rest) {
                0 => break,
                length => taken += length,
            }
            self.settle(cx, None);
        }
        if had_begun {
            held.drain(..taken);
        } else {
            match bytes.get(taken..).filter(|rest| !rest.is_empty()) {
                Some(rest) => held = self.clients.copy(rest),
                None => return,
            }
        }
        let is_new_request = taken > 0 || !had_begun;
        self.clients
            .keep_rest(&self.options, key, held, is_new_request, cx.now());
    }

    /// Writes what was gathered for all clients in this turn.
    pub(super) fn flush_all(&mut self, cx: &mut Context<'_>) {
        loop {
            let mut rooms = self.rooms();
            let Some(key) = rooms.clients.next_unflushed() else {
                break;
            };
            rooms.clients.flush(cx, &mut rooms.desk, key);
            self.settle(cx, None);
        }
    }
}
