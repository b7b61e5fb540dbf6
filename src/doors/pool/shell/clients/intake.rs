//! Clients come and say what they want: connections become clients, bytes become requests.
//!
//! What comes in one read is cut into requests where it lies; each is copied once, because another worker may need it again.
//! Only what is unfinished at the end of a read is kept with the connection.

use std::io;
use std::io::Read;
use std::rc::Rc;
use std::time::Instant;

use log::Level;

use super::client::{After, Client, Phase, Watch};
use super::coalescing::Route;
use super::exchange::{Bytes, Owed, QueuePlace, State};
use super::outgoing::Outgoing;
use super::transcode;
use crate::amount;
use crate::doors::pool::core::Event;
use crate::doors::pool::report::Topic;
use crate::doors::pool::shell::{Pool, PoolSource};
use crate::framing::{Frame, Framer, Progress, Unfit};
use crate::net::conn::Conn;
use crate::net::limits::Full;
use crate::net::origin::Origin;
use crate::net::stream::PeerState;
use crate::reactor::{Alarm, Context, Key, Readiness, SourceKind};

/// Reads from one client in one turn; four full buffers.
const READS_PER_TURN: usize = 4;

/// What the bytes at hand begin with.
enum Heard {
    Unfinished,
    Request(Frame),
    Wrong(Line),
}

impl Pool {
    // ---- coming ------------------------------------------------------------------------------------------------

    /// Takes in a connection and all that follows from it; its request is usually there already.
    pub(in crate::doors::pool) fn welcome(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        self.add_client(cx, conn, origin);
        self.end_step(cx);
    }

    fn add_client(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        if !self.options.front.access.permits(&origin) {
            self.dispatcher.counters_mut().refusals.denied += 1;
            let line = format_args!("refused {origin}: not allowed by --allow and --deny");
            return self.note(cx, Level::Warn, Topic::Denied, line);
        }
        if let Err(full) = self.clients.count.admit(&origin) {
            return self.turn_away(cx, conn, &origin, full);
        }
        let stream = conn.into_stream();
        if self.has_sessions() {
            return self.welcome_session(cx, stream, origin);
        }
        if self.options.persistent.is_some() {
            // Answers leave one after the other, and the kernel is not to hold one back until the last is acknowledged.
            // Where it cannot be set (the peer has gone) the next read tells.
            let _ = stream.set_nodelay();
        }
        let client = Client {
            stream,
            origin,
            phase: Phase::Taking,
            framer: self.options.framings.request.framer(self.options.max_request),
            input: Vec::new(),
            owed: Owed::default(),
            output: Outgoing::default(),
            accepted: cx.now(),
            active: cx.now(),
            read_by: self.idle_until(cx),
            write_by: cx.now(),
            alarm: Alarm::default(),
            watch: Watch::NotYet,
        };
        match self.clients.table.insert(client) {
            Ok(key) => self.read_client(cx, key, Readiness::default()),
            Err(client) => self.clients.count.release(&client.origin),
        }
    }

    /// How long a client that says nothing may stay.
    pub(in crate::doors::pool::shell) fn idle_until(&self, cx: &Context<'_>) -> Instant {
        let kept = self.options.persistent.map(|persistent| persistent.idle_timeout);
        cx.now() + kept.unwrap_or(self.options.read_timeout)
    }

    /// Refuses a client over the limit.
    fn turn_away(&mut self, cx: &mut Context<'_>, conn: Conn, origin: &Origin, full: Full) {
        let counters = self.dispatcher.counters_mut();
        let (count, topic, limit) = match full {
            Full::Total => (
                &mut counters.refusals.max_connections,
                Topic::MaxConnections,
                "--max-connections",
            ),
            Full::Address => (
                &mut counters.refusals.max_connections_per_ip,
                Topic::MaxConnectionsPerIp,
                "--max-connections-per-ip",
            ),
        };
        *count += 1;
        conn.turn_away(&self.options.error_reply);
        self.note(
            cx,
            Level::Warn,
            topic,
            format_args!("refused {origin}: as many connections as {limit} allows"),
        );
    }

    // ---- reading -----------------------------------------------------------------------------------------------

    pub(in crate::doors::pool::shell) fn client_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        let Some(client) = self.clients.get(key) else { return };
        let input = readiness.readable || readiness.read_closed || readiness.hung_up;
        if (readiness.writable || readiness.hung_up) && !client.output.is_empty() {
            self.flush(cx, key);
        }
        let Some(client) = self.clients.get(key) else { return };
        match client.phase {
            Phase::Taking if input => self.read_client(cx, key, readiness),
            Phase::Lingering { .. } if input => self.continue_lingering_close(cx, key),
            // The socket has room, which is not what is waited for.
            Phase::Taking | Phase::Lingering { .. } => {}
            Phase::Full | Phase::Finishing(_) => {
                let state = match readiness {
                    Readiness { hung_up: true, .. } => PeerState::Gone,
                    Readiness { read_closed: true, .. } => PeerState::HalfClosed,
                    Readiness { .. } => PeerState::Connected,
                };
                if self.means_gone(state) {
                    self.close(cx, key);
                }
            }
        }
    }

    /// There is more to be read than one turn was for, or room again for what had to wait.
    pub(in crate::doors::pool::shell) fn continue_reading(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        match client.phase {
            Phase::Lingering { .. } => return self.continue_lingering_close(cx, key),
            Phase::Finishing(_) => return,
            Phase::Taking | Phase::Full => {}
        }
        if client.phase == Phase::Full {
            client.phase = Phase::Taking;
            client.read_by = cx.now() + self.options.read_timeout;
            self.take_in(cx, key, &[]);
        }
        self.look_for_input(cx, key);
        self.close_if_drained(cx, key);
    }

    /// Reads where nothing is known of what the socket holds meanwhile, not even whether it is the end.
    pub(in crate::doors::pool::shell) fn look_for_input(&mut self, cx: &mut Context<'_>, key: Key) {
        let readiness = Readiness {
            read_closed: true,
            ..Readiness::default()
        };
        self.read_client(cx, key, readiness);
    }

    fn read_client(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        let mut buffer = cx.lend_buffer();
        self.read_into(cx, key, &mut buffer, readiness.read_closed || readiness.hung_up);
        cx.return_buffer(buffer);
    }

    /// Reads what a client has sent, a bounded share of it. On epoll a read that does not fill the buffer has drained the
    /// socket, and what comes later is a new event; only where the end is known to be there it is read up to that.
    fn read_into(&mut self, cx: &mut Context<'_>, key: Key, buffer: &mut [u8], to_the_end: bool) {
        for _ in 0..READS_PER_TURN {
            let Some(client) = self.clients.get_mut(key) else {
                return;
            };
            if client.phase != Phase::Taking {
                return self.clients.touch(key);
            }
            match client.stream.read(buffer) {
                Ok(0) => return self.end_input_of_client(cx, key),
                Ok(length) => {
                    client.active = cx.now();
                    self.take_in(cx, key, buffer.get(..length).unwrap_or_default());
                    if length < buffer.len() && !to_the_end {
                        return self.clients.touch(key);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.clients.touch(key),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // ECONNRESET and its like: nobody is there to be told.
                Err(_) => return self.close(cx, key),
            }
        }
        self.clients.touch(key);
        cx.resume_later(PoolSource::Client.at(key));
    }

    /// Takes in what one read brought, behind what was unfinished before.
    fn take_in(&mut self, cx: &mut Context<'_>, key: Key, new: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let mut held = std::mem::take(&mut client.input);
        let had_begun = !held.is_empty();
        let (rest, taken) = if had_begun {
            held.extend_from_slice(new);
            let taken = self.take_requests(cx, key, &held);
            held.drain(..taken);
            (held, taken)
        } else {
            let taken = self.take_requests(cx, key, new);
            match new.get(taken..).filter(|rest| !rest.is_empty()) {
                Some(rest) => (self.clients.copy(rest), taken),
                None => return,
            }
        };
        let begun_by = cx.now() + self.options.read_timeout;
        let is_kept = self.options.persistent.is_some();
        let client = self.clients.get_mut(key);
        let Some(client) = client.filter(|client| matches!(client.phase, Phase::Taking | Phase::Full)) else {
            return self.clients.keep_buffer(rest);
        };
        if is_kept && (taken > 0 || !had_begun) {
            client.read_by = begun_by;
        }
        if rest.is_empty() {
            self.clients.keep_buffer(rest);
        } else {
            client.input = rest;
        }
    }

    /// The requests at the beginning of `bytes`, as many as the client may have in hand; how many bytes they are.
    fn take_requests(&mut self, cx: &mut Context<'_>, key: Key, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let limit = self
                .options
                .persistent
                .map_or(1, |persistent| persistent.max_unanswered);
            let client = self.clients.get_mut(key);
            let Some(client) = client.filter(|client| client.phase == Phase::Taking) else {
                break;
            };
            if !client.has_room(limit) {
                client.phase = Phase::Full;
                break;
            }
            match hear(&mut client.framer, rest) {
                Heard::Unfinished => break,
                Heard::Wrong(line) => {
                    self.refuse_line(cx, key, line);
                    break;
                }
                Heard::Request(frame) => {
                    self.take_request(cx, key, &frame, rest);
                    // The next is judged by what has become of this one.
                    self.settle(cx, None);
                    taken += frame.length;
                }
            }
        }
        taken
    }

    /// Takes in the request that lies at the beginning of `bytes`.
    fn take_request(&mut self, cx: &mut Context<'_>, key: Key, frame: &Frame, bytes: &[u8]) {
        if self.options.persistent.is_none()
            && let Some(client) = self.clients.get_mut(key)
        {
            // What may come behind it is not for anybody.
            client.phase = Phase::Finishing(After::LookForInput);
        }
        let mut wire = self.clients.spare_buffer();
        if let Err(unfit) = transcode::request(self.options.framings, self.options.line_rules, frame, bytes, &mut wire)
        {
            self.clients.keep_buffer(wire);
            return self.refuse_line(cx, key, Line::Unfit(unfit));
        }
        let route = self.choose_route(cx, key, &wire, frame.payload_in(bytes));
        if matches!(route, Route::Answered) {
            return self.clients.keep_buffer(wire);
        }
        let size = self.options.framings.searched_for_its_end(wire.len());
        let bytes = if matches!(route, Route::Leader) {
            let bytes = Rc::from(wire.as_slice());
            self.clients.keep_buffer(wire);
            Bytes::Shared(bytes)
        } else {
            Bytes::Own(wire)
        };
        let state = State::Asked {
            bytes,
            request: None,
            queue: QueuePlace::WithWorker,
        };
        let Some(client) = self.clients.table.get_mut(key) else {
            return;
        };
        match self.clients.exchanges.open(&mut client.owed, key, state) {
            Ok(id) => {
                if matches!(route, Route::Leader) {
                    self.add_leader(id);
                }
                self.report(Event::Request { client: id, size });
            }
            // Sixteen million requests are in hand.
            Err(_) => self.refuse_line(cx, key, Line::OneTooMany),
        }
    }

    /// The client sends nothing more.
    fn end_input_of_client(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if !client.input.is_empty() {
            return self.take_final_request(cx, key);
        }
        if client.is_idle() || client.stream.peer_state() == PeerState::Gone {
            // It has all it wanted, or has only knocked, as health checks do; or it wants nothing any more.
            return self.close(cx, key);
        }
        client.phase = Phase::Finishing(After::LookForInput);
        self.clients.touch(key);
    }

    /// What a client has sent before the end of its input: its request, where that is what ends one.
    fn take_final_request(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let Some(frame) = client.framer.end(&client.input) else {
            return self.refuse_line(cx, key, Line::Unended);
        };
        let input = std::mem::take(&mut client.input);
        self.take_request(cx, key, &frame, &input);
        self.clients.keep_buffer(input);
        self.clients.touch(key);
    }

    /// Refuses a client whose line is not one. Where the next one begins is known only after one that is unfit; any other
    /// mistake is the end of the connection, once all requests before it have their answers.
    pub(in crate::doors::pool::shell) fn refuse_line(&mut self, cx: &mut Context<'_>, key: Key, line: Line) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let (origin, input) = (client.origin.clone(), std::mem::take(&mut client.input));
        match line {
            Line::Unfit(_) | Line::OneTooMany => client.input = input,
            Line::Unended => client.phase = Phase::Finishing(After::LookForInput),
            Line::TooLong | Line::Malformed(_) | Line::TooSlow => client.phase = Phase::Finishing(After::Linger),
        }
        let limit = self.options.max_request;
        let counters = self.dispatcher.counters_mut();
        counters.refused_early();
        let (count, topic) = match line {
            Line::TooLong => (&mut counters.refusals.request_too_long, Topic::RequestTooLong),
            Line::Malformed(_) | Line::Unfit(_) | Line::Unended => {
                (&mut counters.refusals.bad_request, Topic::BadRequest)
            }
            Line::TooSlow => (&mut counters.refusals.read_timeout, Topic::ReadTimeout),
            Line::OneTooMany => (&mut counters.refusals.queue_full, Topic::System),
        };
        *count += 1;
        let cause = match line {
            Line::TooLong => format!("its request is longer than --max-request {}", amount::limit(limit)),
            Line::Malformed(reason) => format!("its request is malformed: {reason}"),
            Line::Unfit(unfit) => format!("its request {unfit}, which workers are not given"),
            Line::Unended => "it closed before the end of its request".to_owned(),
            Line::TooSlow => "its request was not whole within --read-timeout".to_owned(),
            Line::OneTooMany => "more requests are in hand than can be told apart".to_owned(),
        };
        self.note(cx, Level::Warn, topic, format_args!("refused {origin}: {cause}"));
        self.send_refusal(cx, key);
    }

    /// While the pool drains: whoever has not said anything has so long to begin.
    pub(in crate::doors::pool::shell) fn hasten_readers(&mut self, by: Instant) {
        for key in self.clients.keys() {
            if let Some(client) = self.clients.get_mut(key)
                && client.phase == Phase::Taking
            {
                client.read_by = by.min(client.read_by);
                self.clients.touch(key);
            }
        }
    }
}

fn hear(framer: &mut Framer, bytes: &[u8]) -> Heard {
    match framer.advance(bytes) {
        Progress::NeedMore => Heard::Unfinished,
        Progress::TooLong => Heard::Wrong(Line::TooLong),
        Progress::Malformed(reason) => Heard::Wrong(Line::Malformed(reason)),
        Progress::Frame(frame) => Heard::Request(frame),
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy)]
pub(in crate::doors::pool::shell) enum Line {
    TooLong,
    /// It is none, in the framing that clients speak.
    Malformed(&'static str),
    /// Workers cannot be given it.
    Unfit(Unfit),
    Unended,
    TooSlow,
    OneTooMany,
}
