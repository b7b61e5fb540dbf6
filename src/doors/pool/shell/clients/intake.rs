//! Bytes of clients become requests.
//!
//! The bytes of one read are cut into requests where they lie; each is copied once, because another worker may need it
//! again. Only what is unfinished at the end of a read is kept with the connection. The pool drives this: it reads a
//! piece ([`Clients::read`]), takes the requests out of it one by one ([`Clients::take_next`]), each of which it
//! settles before the next is judged, and lets the rest be kept ([`Clients::keep_rest`]).

use std::rc::Rc;
use std::time::Instant;

use log::Level;

use super::Clients;
use super::client::{After, Client, Flush, Kind, Phase};
use super::coalescing::Route;
use super::exchange::{Asked, Asker, Bytes, Owed, QueuePlace, State};
use super::transcode;
use crate::amount;
use crate::doors::pool::core::Event;
use crate::doors::pool::options::Options;
use crate::doors::pool::report::Topic;
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::shell::desk::Desk;
use crate::framing::multiplex::is_hello;
use crate::framing::{Frame, Progress, Unfit};
use crate::net::conn::{Conn, Received};
use crate::net::origin::Origin;
use crate::net::stream::PeerState;
use crate::reactor::{Alarm, Context, Key, Readiness, SourceKind};

/// A mistake in a client's request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Line {
    TooLong,
    /// It is no request in the framing that clients speak.
    Malformed(&'static str),
    /// Workers cannot be given it.
    Unfit(Unfit),
    Unended,
    TooSlow,
    OneTooMany,
    /// It has no number, on a multiplexed connection.
    Unnumbered,
    /// Its number is that of a request under way.
    NumberInUse(u32),
}

/// A piece that was read from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Some bytes.
    Bytes {
        /// The number of bytes.
        length: usize,
        /// True if nothing more has arrived, as far as is known: see [`Conn::is_drained`].
        is_last: bool,
    },
    /// Nothing more is to be read for now.
    Nothing,
}

impl Clients {
    // ---- coming ------------------------------------------------------------------------------------------------

    /// Takes in a connection that was counted. Returns `None` when there is no place for it, and it was closed.
    pub(crate) fn add(&mut self, desk: &mut Desk<'_>, conn: Conn, origin: Origin) -> Option<Key> {
        let (now, kind) = (desk.cx.now(), Kind::accepted(desk.options));
        if kind.kept().is_some() {
            // Answers leave one after the other, and the kernel is not to hold one back until the last is acknowledged.
            // Where it cannot be set (the peer has gone) the next read tells.
            let _ = conn.socket().set_nodelay();
        }
        let client = Client {
            conn,
            origin,
            is_new: true,
            phase: Phase::Taking,
            framer: desk.options.framings.request.framer(desk.options.max_request),
            input: Vec::new(),
            owed: Owed::default(),
            flush: Flush::None,
            accepted: now,
            active: now,
            read_by: now + kind.idle_timeout(desk.options),
            kind,
            write_by: now,
            alarm: Alarm::default(),
            is_watched: false,
        };
        match self.table.insert(client) {
            Ok(key) => Some(key),
            Err(client) => {
                desk.release_connection(&client.origin);
                None
            }
        }
    }

    // ---- reading -----------------------------------------------------------------------------------------------

    /// Handles an event of a client's socket. Returns true if the client is to be read from.
    pub(crate) fn handle_ready(&mut self, desk: &mut Desk<'_>, key: Key, readiness: Readiness) -> bool {
        let Some(client) = self.get_mut(key) else { return false };
        client.conn.note(readiness);
        let input = readiness.readable || readiness.read_closed || readiness.hung_up;
        if (readiness.writable || readiness.hung_up) && client.conn.unwritten() > 0 && !client.holds_answers_back() {
            self.flush(desk, key);
        }
        let Some(client) = self.get(key) else { return false };
        match client.phase {
            Phase::Taking => return input,
            Phase::Lingering if input => self.continue_lingering_close(desk, key),
            // The socket has room, which is not what is waited for.
            Phase::Lingering => {}
            Phase::Full | Phase::Finishing(_) => {
                let state = match readiness {
                    Readiness { hung_up: true, .. } => PeerState::Gone,
                    Readiness { read_closed: true, .. } => PeerState::HalfClosed,
                    Readiness { .. } => PeerState::Connected,
                };
                if super::waiting::means_gone(client, desk.options, state) {
                    self.close(desk, key);
                }
            }
        }
        false
    }

    /// Goes on with a client that had more to be read than one turn was for, or that has room again. Returns true if it
    /// is to be read from, after the requests in what is [held](Self::take_held) of it.
    pub(crate) fn resume(&mut self, desk: &mut Desk<'_>, key: Key) -> bool {
        let Some(client) = self.get_mut(key) else { return false };
        match client.phase {
            Phase::Lingering => {
                self.continue_lingering_close(desk, key);
                false
            }
            Phase::Finishing(_) => false,
            Phase::Taking => true,
            Phase::Full => {
                client.phase = Phase::Taking;
                client.read_by = desk.cx.now() + desk.options.read_timeout;
                true
            }
        }
    }

    /// Reads a piece of what a client has sent.
    pub(crate) fn read(&mut self, desk: &mut Desk<'_>, key: Key, buffer: &mut [u8]) -> Piece {
        let Some(client) = self.get_mut(key) else {
            return Piece::Nothing;
        };
        if client.phase == Phase::Taking {
            match client.conn.read(buffer) {
                Received::End => {
                    self.handle_end_of_input(desk, key);
                    return Piece::Nothing;
                }
                Received::Bytes(length) => {
                    client.active = desk.cx.now();
                    if let Kind::Multiplexed(channels) = &mut client.kind {
                        channels.note_read(length, client.active);
                    }
                    let is_last = client.conn.is_drained();
                    return Piece::Bytes { length, is_last };
                }
                Received::Nothing => {}
                // The requests before are whole, and their answers can reach it.
                Received::Cut if !client.is_idle() => {
                    let begun = std::mem::take(&mut client.input);
                    self.spare.keep(begun);
                    self.handle_end_of_input(desk, key);
                    return Piece::Nothing;
                }
                Received::Cut | Received::Failed => {
                    self.close(desk, key);
                    return Piece::Nothing;
                }
            }
        }
        self.touch(key);
        Piece::Nothing
    }

    /// Makes the next reads of a client ask its socket up to the end, because events may have been missed.
    pub(crate) fn expect_input(&mut self, key: Key) {
        if let Some(client) = self.get_mut(key) {
            client.conn.expect_input();
        }
    }

    /// Takes the unfinished input that is kept with a client. `None`: the client has gone.
    pub(crate) fn take_held(&mut self, key: Key) -> Option<Vec<u8>> {
        self.get_mut(key).map(|client| std::mem::take(&mut client.input))
    }

    /// Keeps the unfinished rest of a client's input. `is_new_request`: the rest begins a request of which nothing was kept
    /// before, so its time begins now.
    pub(crate) fn keep_rest(&mut self, options: &Options, key: Key, rest: Vec<u8>, is_new_request: bool, now: Instant) {
        let client = self.table.get_mut(key);
        let client = client.filter(|client| matches!(client.phase, Phase::Taking | Phase::Full));
        if let Some(client) = client.filter(|_| !rest.is_empty()) {
            if client.kind.kept().is_some() && is_new_request {
                client.read_by = now + options.read_timeout;
            }
            client.input = rest;
            return;
        }
        self.spare.keep(rest);
    }

    /// Takes in the request at the beginning of `bytes`, if it is whole and the client may have one more in hand, or
    /// refuses a wrong one. Returns its length, 0 when nothing more can be taken from these bytes.
    pub(crate) fn take_next(&mut self, desk: &mut Desk<'_>, key: Key, bytes: &[u8]) -> usize {
        let client = self.get_mut(key).filter(|client| client.phase == Phase::Taking);
        let Some(client) = client.filter(|_| !bytes.is_empty()) else {
            return 0;
        };
        if !client.has_room() {
            client.phase = Phase::Full;
            return 0;
        }
        if client.kind.is_multiplexed() {
            return self.take_line(desk, key, bytes);
        }
        let wrong = match client.framer.advance(bytes) {
            Progress::NeedMore => return 0,
            Progress::Frame(frame) => {
                let is_first = std::mem::take(&mut client.is_new);
                match desk
                    .options
                    .multiplexed
                    .filter(|_| is_first && is_hello(frame.payload_in(bytes)))
                {
                    Some(limits) => self.begin_multiplexing(desk, key, limits),
                    None => self.take_request(desk, Asker::in_order(key), &frame, bytes),
                }
                return frame.length;
            }
            Progress::TooLong => Line::TooLong,
            Progress::Malformed(reason) => Line::Malformed(reason),
        };
        self.refuse_unfinished(desk, key, wrong);
        0
    }

    /// Takes in the request that lies at the beginning of `bytes`.
    pub(super) fn take_request(&mut self, desk: &mut Desk<'_>, asker: Asker, frame: &Frame, bytes: &[u8]) {
        let (options, key) = (desk.options, asker.client);
        if let Some(client) = self.get_mut(key).filter(|client| client.kind.kept().is_none()) {
            // No request is taken from what may come behind it.
            client.phase = Phase::Finishing(After::LookForInput);
        }
        let mut wire = self.spare.take();
        if let Err(unfit) = transcode::request(options.framings, options.line_rules, frame, bytes, &mut wire) {
            self.spare.keep(wire);
            return self.refuse_request(desk, asker, Line::Unfit(unfit));
        }
        let route = self.choose_route(desk, asker, &wire, frame.payload_in(bytes));
        if matches!(route, Route::Answered) {
            return self.spare.keep(wire);
        }
        let size = options.framings.searched_for_its_end(wire.len());
        let bytes = if matches!(route, Route::Leader) {
            let bytes = Rc::from(wire.as_slice());
            self.spare.keep(wire);
            Bytes::Shared(bytes)
        } else {
            Bytes::Own(wire)
        };
        let state = State::Asked(Asked {
            bytes,
            request: None,
            queue: QueuePlace::WithWorker,
        });
        let Some(client) = self.table.get_mut(key) else {
            return;
        };
        match self.exchanges.open(&mut client.owed, asker, state) {
            Ok(id) => {
                if matches!(route, Route::Leader) {
                    self.add_leader(id);
                }
                desk.report(Event::Request { client: id, size });
            }
            // Four million requests are in hand.
            Err(_) => self.refuse_request(desk, asker, Line::OneTooMany),
        }
    }

    fn handle_end_of_input(&mut self, desk: &mut Desk<'_>, key: Key) {
        let Some(client) = self.get_mut(key) else {
            return;
        };
        if !client.input.is_empty() {
            return self.take_final_request(desk, key);
        }
        if client.is_idle() {
            // It has all it wanted, or has only knocked, as health checks do.
            client.conn.say_end_before_close();
            return self.close(desk, key);
        }
        if client.conn.socket().peer_state() == PeerState::Gone {
            return self.close(desk, key);
        }
        client.phase = Phase::Finishing(After::LookForInput);
        self.touch(key);
    }

    /// Takes what a client has sent before the end of its input for a request, where that end is what ends one.
    fn take_final_request(&mut self, desk: &mut Desk<'_>, key: Key) {
        let Some(client) = self.get_mut(key) else {
            return;
        };
        let Some(frame) = client.framer.end(&client.input) else {
            return self.refuse_unfinished(desk, key, Line::Unended);
        };
        let input = std::mem::take(&mut client.input);
        self.take_request(desk, Asker::in_order(key), &frame, &input);
        self.spare.keep(input);
        self.touch(key);
    }

    /// Refuses a whole request. The connection goes on behind it.
    pub(super) fn refuse_request(&mut self, desk: &mut Desk<'_>, asker: Asker, line: Line) {
        self.log_wrong_line(desk, asker.client, line);
        self.send_refusal(desk, asker);
    }

    /// Refuses a request that is not whole, or whose end is not known. It is the end of the connection, once all
    /// requests before it have their answers.
    pub(super) fn refuse_unfinished(&mut self, desk: &mut Desk<'_>, key: Key, line: Line) {
        let Some(client) = self.get_mut(key) else {
            return;
        };
        if client.kind.is_multiplexed() {
            return self.end_multiplexing(desk, key, line);
        }
        let after = match line {
            Line::Unended => After::LookForInput,
            _ => After::Linger,
        };
        self.take_nothing_more(key, after);
        self.log_wrong_line(desk, key, line);
        self.send_refusal(desk, Asker::in_order(key));
    }

    /// Takes in nothing more of a client. What is unfinished is dropped.
    pub(super) fn take_nothing_more(&mut self, key: Key, after: After) {
        if let Some(client) = self.get_mut(key) {
            client.phase = Phase::Finishing(after);
            let input = std::mem::take(&mut client.input);
            self.spare.keep(input);
        }
    }

    /// Counts and logs a line that has not become a request.
    pub(super) fn log_wrong_line(&mut self, desk: &mut Desk<'_>, key: Key, line: Line) {
        let Some(client) = self.get(key) else {
            return;
        };
        desk.counters.count_early_refusal();
        let refusals = &mut desk.counters.refusals;
        let (count, topic) = match line {
            Line::TooLong => (&mut refusals.request_too_long, Topic::RequestTooLong),
            Line::Malformed(_) | Line::Unfit(_) | Line::Unended | Line::Unnumbered | Line::NumberInUse(_) => {
                (&mut refusals.bad_request, Topic::BadRequest)
            }
            Line::TooSlow => (&mut refusals.read_timeout, Topic::ReadTimeout),
            Line::OneTooMany => (&mut refusals.queue_full, Topic::System),
        };
        *count += 1;
        let limit = desk.options.max_request;
        let cause = match line {
            Line::TooLong => format!("its request is longer than --max-request {}", amount::limit(limit)),
            Line::Malformed(reason) => format!("its request is malformed: {reason}"),
            Line::Unfit(unfit) => format!("its request {unfit}, which workers are not given"),
            Line::Unended => "it closed before the end of its request".to_owned(),
            Line::Unnumbered => "its line has no number, so the connection ends".to_owned(),
            Line::NumberInUse(number) => format!("its request has the number {number}, as one under way has"),
            Line::TooSlow => "its request was not whole within --read-timeout".to_owned(),
            Line::OneTooMany => "more requests are in hand than can be told apart".to_owned(),
        };
        desk.note(Level::Warn, topic, format_args!("refused {}: {cause}", client.origin));
    }

    /// Gives clients that have not finished a request no longer than `by`: for a pool that drains. Multiplexed ones have
    /// a [time of their own](Self::announce_drain).
    pub(crate) fn hasten_readers(&mut self, by: Instant) {
        for key in self.keys() {
            self.hasten(key, by);
        }
    }

    /// Gives a client that has not finished a request no longer than `by`.
    pub(crate) fn hasten(&mut self, key: Key, by: Instant) {
        if let Some(client) = self.get_mut(key)
            && client.phase == Phase::Taking
            && !client.kind.is_multiplexed()
        {
            client.read_by = by.min(client.read_by);
            self.touch(key);
        }
    }

    /// Notes that a client has had its share of this turn, and is read on in the next.
    pub(crate) fn read_later(&mut self, cx: &mut Context<'_>, key: Key) {
        self.touch(key);
        cx.resume_later(PoolSource::Client.at(key));
    }
}
