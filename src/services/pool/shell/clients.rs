//! What the pool does with its clients: reads their line, answers or refuses them, lets them go.

use std::io;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use log::Level;
use mio::Interest;

use super::super::core::{ClientId, Event, RequestId};
use super::super::options::HalfClose;
use super::super::report::Topic;
use super::client::{After, Client, Phase, QueuePlace, Watch};
use super::{Of, Pool};
use crate::framing::Progress;
use crate::framing::line::LineFramer;
use crate::net::addr::PeerAddr;
use crate::net::limits::{ConnectionCount, Full};
use crate::net::stream::{PeerState, Stream};
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Context, Key, Readiness};

/// A wait for a worker that is over before this needs no watching.
const UNWATCHED_WAIT: Duration = Duration::from_millis(50);
/// Reads from one client in one turn; four full buffers.
const READS_PER_TURN: usize = 4;
/// Request buffers kept for the next request, and the largest worth keeping.
const SPARE_BUFFERS: usize = 64;
const SPARE_CAPACITY: usize = 16 * 1024;

/// All connected clients.
#[derive(Debug)]
pub(super) struct Clients {
    table: GenerationalSlab<Client>,
    count: ConnectionCount,
    spare: Vec<Vec<u8>>,
}

impl Clients {
    pub(super) fn new(count: ConnectionCount) -> Self {
        Clients {
            table: GenerationalSlab::default(),
            count,
            spare: Vec::new(),
        }
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&Client> {
        self.table.get(Key::from_bits(id.0))
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.table.iter().map(|(key, _)| key).collect()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Client> {
        self.table.get_mut(key)
    }

    /// Takes a client out, and off the count.
    pub(super) fn remove(&mut self, key: Key) -> Option<Client> {
        let client = self.table.remove(key)?;
        self.count.release(&client.peer);
        Some(client)
    }

    pub(super) fn count_mut(&mut self) -> &mut ConnectionCount {
        &mut self.count
    }

    /// Those that still have something to get: not merely lingering.
    pub(super) fn any_unserved(&self) -> bool {
        self.table
            .iter()
            .any(|(_, client)| !matches!(client.phase, Phase::Lingering { .. }))
    }

    pub(super) fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= SPARE_CAPACITY && self.spare.len() < SPARE_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

/// What the bytes of one read make of a client's line.
enum Heard {
    Unfinished,
    Request,
    TooLong,
    /// A byte that no line may hold.
    Forbidden,
}

impl Pool {
    // ---- coming ------------------------------------------------------------------------------------------------

    /// A connection becomes a client of this pool; its line is usually there already.
    pub(in crate::services::pool) fn welcome(&mut self, cx: &mut Context<'_>, stream: Stream, peer: PeerAddr) {
        if !self.options.access.permits(&peer) {
            self.dispatcher.counters_mut().refusals.denied += 1;
            let line = format_args!("refused {peer}: not allowed by --allow and --deny");
            return self.note(cx, Level::Warn, Topic::Denied, line);
        }
        if let Err(full) = self.clients.count.admit(&peer) {
            return self.turn_away(cx, &stream, &peer, full);
        }
        let framer = LineFramer::new(self.options.max_request);
        let deadline = cx.now() + self.options.read_timeout;
        let client = Client {
            stream,
            peer,
            phase: Phase::Reading { framer, deadline },
            input: Vec::new(),
            alarm: crate::reactor::Alarm::default(),
            watch: Watch::NotYet,
        };
        match self.clients.table.insert(client) {
            Ok(key) => self.read_client(cx, key),
            Err(client) => self.clients.count.release(&client.peer),
        }
    }

    /// Over the limit: told at once, and not kept. A reset may overtake the refusal where the client's line is unread;
    /// to wait for that would be to keep the connection after all.
    fn turn_away(&mut self, cx: &mut Context<'_>, mut stream: &Stream, peer: &PeerAddr, full: Full) {
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
        // What is there of its line is read away first, against that very reset.
        let _ = stream.discard_unread();
        let _ = stream.write(&self.options.error_reply);
        self.note(
            cx,
            Level::Warn,
            topic,
            format_args!("refused {peer}: as many connections as {limit} allows"),
        );
    }

    // ---- reading -----------------------------------------------------------------------------------------------

    pub(super) fn client_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        let Some(client) = self.clients.table.get(key) else {
            return;
        };
        let input = readiness.readable || readiness.read_closed || readiness.hung_up;
        match client.phase {
            Phase::Reading { .. } if input => self.read_client(cx, key),
            Phase::Lingering { .. } if input => self.linger_on(cx, key),
            Phase::Writing { .. } if readiness.writable || readiness.hung_up => self.write_on(cx, key),
            // The socket has room, or something to read, which is not what is waited for.
            Phase::Reading { .. } | Phase::Lingering { .. } | Phase::Writing { .. } => {}
            Phase::Asked { .. } => {
                let state = match readiness {
                    Readiness { hung_up: true, .. } => PeerState::Gone,
                    Readiness { read_closed: true, .. } => PeerState::HalfClosed,
                    Readiness { .. } => PeerState::Connected,
                };
                if self.means_gone(state) {
                    self.hung_up(cx, key);
                }
            }
        }
    }

    fn read_client(&mut self, cx: &mut Context<'_>, key: Key) {
        let mut buffer = cx.lend_buffer();
        self.read_into(cx, key, &mut buffer);
        cx.return_buffer(buffer);
    }

    fn read_into(&mut self, cx: &mut Context<'_>, key: Key, buffer: &mut [u8]) {
        for _ in 0..READS_PER_TURN {
            let Some(client) = self.clients.table.get_mut(key) else {
                return;
            };
            match client.stream.read(buffer) {
                Ok(0) => return self.input_ended(cx, key),
                Ok(length) => match self.hear(key, buffer.get(..length).unwrap_or_default()) {
                    Heard::Unfinished => {}
                    Heard::Request => return self.ask(cx, key),
                    Heard::TooLong => return self.refuse_line(cx, key, Line::TooLong),
                    Heard::Forbidden => return self.refuse_line(cx, key, Line::Forbidden),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.settle(cx, key),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // ECONNRESET and its like: nobody is there to be told.
                Err(_) => return self.close(cx, key),
            }
        }
        self.settle(cx, key);
        cx.resume_later(Of::client(key));
    }

    /// Takes in what one read brought. A line that came whole is copied once, for the worker that may need it again.
    fn hear(&mut self, key: Key, bytes: &[u8]) -> Heard {
        let Clients { table, spare, .. } = &mut self.clients;
        let Some(client) = table.get_mut(key) else {
            return Heard::Unfinished;
        };
        let Phase::Reading { framer, .. } = &mut client.phase else {
            return Heard::Unfinished;
        };
        if client.input.capacity() == 0 {
            client.input = spare.pop().unwrap_or_default();
        }
        client.input.extend_from_slice(bytes);
        match framer.advance(&client.input) {
            Progress::NeedMore => Heard::Unfinished,
            Progress::TooLong => Heard::TooLong,
            Progress::Frame(length) => {
                // One request per connection: what came behind it is not for anybody.
                client.input.truncate(length);
                if memchr::memchr(0, &client.input).is_some() {
                    Heard::Forbidden
                } else {
                    Heard::Request
                }
            }
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.table.get_mut(key) else {
            return;
        };
        client.phase = Phase::Asked {
            request: None,
            queue: QueuePlace::WithWorker,
        };
        let size = client.input.len();
        self.settle(cx, key);
        self.tell(
            cx,
            Event::Request {
                client: ClientId(key.to_bits()),
                size,
            },
        );
    }

    /// The client sends nothing more, and its line is not whole.
    fn input_ended(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.table.get(key) else {
            return;
        };
        if client.input.is_empty() {
            // It only knocked, as health checks do.
            return self.close(cx, key);
        }
        self.refuse_line(cx, key, Line::Unended);
    }

    // ---- with the dispatcher -----------------------------------------------------------------------------------

    pub(super) fn enqueued(&mut self, cx: &mut Context<'_>, id: ClientId, request: RequestId) {
        self.set_request(id, request, QueuePlace::Waiting);
        if self.queue_alarm.at().is_none() {
            cx.set_alarm(&mut self.queue_alarm, Of::Queue.only(), Some(cx.now() + UNWATCHED_WAIT));
        }
    }

    /// Most waits are over in a moment, and whether the client is still there is then asked once, when a worker is found
    /// for it. Who waits longer is watched, so that his place in the queue is free again as soon as he goes.
    pub(super) fn watch_waiting(&mut self, cx: &mut Context<'_>) {
        cx.alarm_fired(&mut self.queue_alarm);
        let waiting: Vec<ClientId> = self.dispatcher.waiting_clients().collect();
        for id in &waiting {
            self.watch(cx, Key::from_bits(id.0));
        }
        if !waiting.is_empty() {
            cx.set_alarm(&mut self.queue_alarm, Of::Queue.only(), Some(cx.now() + UNWATCHED_WAIT));
        }
    }

    /// Whether a client whose turn has come after a wait has gone meanwhile. Those that are watched are asked too: that one
    /// has gone may stand further down in the very list of events that has made its worker free.
    pub(super) fn has_left(&self, id: ClientId) -> bool {
        let Some(client) = self.clients.get(id) else {
            return true;
        };
        let waited = matches!(
            client.phase,
            Phase::Asked {
                queue: QueuePlace::Waiting,
                ..
            }
        );
        waited && self.means_gone(client.stream.peer_state())
    }

    fn means_gone(&self, state: PeerState) -> bool {
        match state {
            PeerState::Connected => false,
            PeerState::HalfClosed => self.options.half_close == HalfClose::HangUp,
            PeerState::Gone => true,
        }
    }

    /// The dispatcher has named the client's request, and says where it is.
    pub(super) fn set_request(&mut self, id: ClientId, named: RequestId, place: QueuePlace) {
        if let Some(Client {
            phase: Phase::Asked { request, queue },
            ..
        }) = self.clients.table.get_mut(Key::from_bits(id.0))
        {
            (*request, *queue) = (Some(named), place);
        }
    }

    /// The client has gone while its request is in hand.
    pub(super) fn hung_up(&mut self, cx: &mut Context<'_>, key: Key) {
        let request = self.clients.table.get(key).and_then(Client::request);
        self.close(cx, key);
        if let Some(request) = request {
            self.tell(cx, Event::Abandoned(request));
        }
    }

    // ---- keeping ------------------------------------------------------------------------------------------------

    /// Refuses a client whose line is not one.
    pub(super) fn refuse_line(&mut self, cx: &mut Context<'_>, key: Key, line: Line) {
        let limit = self.options.max_request;
        let counters = self.dispatcher.counters_mut();
        counters.refused_early();
        let (count, topic, after) = match line {
            Line::TooLong => (
                &mut counters.refusals.request_too_long,
                Topic::RequestTooLong,
                After::Linger,
            ),
            Line::Forbidden => (
                &mut counters.refusals.bad_request,
                Topic::BadRequest,
                After::LookForInput,
            ),
            Line::Unended => (
                &mut counters.refusals.bad_request,
                Topic::BadRequest,
                After::LookForInput,
            ),
            Line::TooSlow => (&mut counters.refusals.read_timeout, Topic::ReadTimeout, After::Linger),
        };
        *count += 1;
        let peer = self.peer_name(ClientId(key.to_bits()));
        let cause = match line {
            Line::TooLong => format!("its request is longer than --max-request {limit}"),
            Line::Forbidden => "its request holds a NUL byte".to_owned(),
            Line::Unended => "it closed before the end of its line".to_owned(),
            Line::TooSlow => "its line was not whole within --read-timeout".to_owned(),
        };
        self.note(cx, Level::Warn, topic, format_args!("refused {peer}: {cause}"));
        self.send_refusal(cx, key, after);
    }

    /// Brings alarm and registration in line with the phase. Called after every change of phase.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.table.get_mut(key) else {
            return;
        };
        let deadline = client.deadline();
        cx.set_alarm(&mut client.alarm, Of::client(key), deadline);
        if client.wants_events() {
            self.watch(cx, key);
        }
    }

    /// Makes a connection known to the poll, once and for all.
    fn watch(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.table.get_mut(key) else {
            return;
        };
        if client.watch == Watch::Registered {
            return;
        }
        match cx.register(
            Of::client(key),
            &mut client.stream,
            Interest::READABLE | Interest::WRITABLE,
        ) {
            Ok(()) => client.watch = Watch::Registered,
            Err(error) => {
                let peer = client.peer;
                let line = format_args!("closed {peer}: cannot watch its connection: {error}");
                self.note(cx, Level::Error, Topic::System, line);
                self.hung_up(cx, key);
            }
        }
    }

    /// While the pool drains: whoever has not said anything has so long to begin.
    pub(super) fn hasten_readers(&mut self, cx: &mut Context<'_>, by: Instant) {
        for key in self.clients.keys() {
            if let Some(Client {
                phase: Phase::Reading { deadline, .. },
                ..
            }) = self.clients.table.get_mut(key)
            {
                *deadline = by.min(*deadline);
                self.settle(cx, key);
            }
        }
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy)]
pub(super) enum Line {
    TooLong,
    Forbidden,
    Unended,
    TooSlow,
}
