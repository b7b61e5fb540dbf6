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
use crate::net::stream::{Stream, Unread};
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Context, Key, Readiness};

/// How long, and for how many bytes, a client that has its answer may go on sending.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;
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

    pub(super) fn count_mut(&mut self) -> &mut ConnectionCount {
        &mut self.count
    }

    /// Those that still have something to get: not merely lingering.
    pub(super) fn any_unserved(&self) -> bool {
        self.table
            .iter()
            .any(|(_, client)| !matches!(client.phase, Phase::Lingering { .. }))
    }

    fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
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
                let hangs_up = self.options.half_close == HalfClose::HangUp && readiness.read_closed;
                if readiness.hung_up || hangs_up {
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
        self.set_request(cx, id, request, QueuePlace::Waiting);
    }

    /// The dispatcher has named the client's request, and says where it is.
    pub(super) fn set_request(&mut self, cx: &mut Context<'_>, id: ClientId, named: RequestId, place: QueuePlace) {
        let key = Key::from_bits(id.0);
        if let Some(Client {
            phase: Phase::Asked { request, queue },
            ..
        }) = self.clients.table.get_mut(key)
        {
            (*request, *queue) = (Some(named), place);
            self.settle(cx, key);
        }
    }

    /// The client has gone while its request is in hand.
    fn hung_up(&mut self, cx: &mut Context<'_>, key: Key) {
        let request = self.clients.table.get(key).and_then(Client::request);
        self.close(cx, key);
        if let Some(request) = request {
            self.tell(cx, Event::Abandoned(request));
        }
    }

    // ---- answering ---------------------------------------------------------------------------------------------

    pub(super) fn answer(&mut self, cx: &mut Context<'_>, id: ClientId, reply: &[u8]) {
        if let Err(gone) = self.send(cx, Key::from_bits(id.0), reply, After::LookForInput) {
            self.dispatcher.counters_mut().answer_was_lost();
            let line = format_args!("{gone} hung up before its answer");
            self.note(cx, Level::Debug, Topic::HungUp, line);
        }
    }

    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, id: ClientId) {
        self.send_refusal(cx, Key::from_bits(id.0), After::LookForInput);
    }

    fn send_refusal(&mut self, cx: &mut Context<'_>, key: Key, after: After) {
        let refusal = std::mem::take(&mut self.options.error_reply);
        // Whom it does not reach has gone, and is counted as refused already.
        let _ = self.send(cx, key, &refusal, after);
        self.options.error_reply = refusal;
    }

    /// Refuses a client whose line is not one.
    fn refuse_line(&mut self, cx: &mut Context<'_>, key: Key, line: Line) {
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

    /// Writes the last words to a client. An error names the client that is not there any more.
    fn send(&mut self, cx: &mut Context<'_>, key: Key, bytes: &[u8], after: After) -> Result<(), PeerAddr> {
        let Some(client) = self.clients.table.get_mut(key) else {
            return Ok(());
        };
        let written = match write_some(&mut client.stream, bytes) {
            Ok(written) => written,
            Err(_) => {
                let peer = client.peer;
                self.close(cx, key);
                return Err(peer);
            }
        };
        let input = std::mem::take(&mut client.input);
        if let Some(unsent) = bytes.get(written..).filter(|unsent| !unsent.is_empty()) {
            let deadline = cx.now() + self.options.write_timeout;
            client.phase = Phase::Writing {
                unsent: unsent.to_vec(),
                written: 0,
                deadline,
                after,
            };
            self.settle(cx, key);
        } else {
            self.part(cx, key, after);
        }
        self.clients.keep_buffer(input);
        Ok(())
    }

    fn write_on(&mut self, cx: &mut Context<'_>, key: Key) {
        let progress_by = cx.now() + self.options.write_timeout;
        let Some(client) = self.clients.table.get_mut(key) else {
            return;
        };
        let Phase::Writing {
            unsent,
            written,
            deadline,
            after,
        } = &mut client.phase
        else {
            return;
        };
        match write_some(&mut client.stream, unsent.get(*written..).unwrap_or_default()) {
            Ok(0) => {}
            Ok(more) => {
                *written += more;
                *deadline = progress_by;
            }
            Err(_) => return self.close(cx, key),
        }
        if *written == unsent.len() {
            let after = *after;
            return self.part(cx, key, after);
        }
        self.settle(cx, key);
    }

    // ---- going -------------------------------------------------------------------------------------------------

    /// All is said. The connection is closed, at once where nothing of the client's is left unread.
    fn part(&mut self, cx: &mut Context<'_>, key: Key, after: After) {
        let Some(client) = self.clients.table.get_mut(key) else {
            return;
        };
        let unread = match after {
            After::Linger => Ok(Unread::Bytes(0)),
            After::LookForInput => client.stream.discard_unread(),
        };
        match unread {
            Ok(Unread::Bytes(_)) if client.stream.shutdown_write().is_ok() => {
                client.phase = Phase::Lingering {
                    deadline: cx.now() + LINGER,
                    budget: LINGER_BYTES,
                };
                self.linger_on(cx, key);
            }
            Ok(Unread::Bytes(_) | Unread::None | Unread::End) | Err(_) => self.close(cx, key),
        }
    }

    fn linger_on(&mut self, cx: &mut Context<'_>, key: Key) {
        for _ in 0..READS_PER_TURN {
            let Some(client) = self.clients.table.get_mut(key) else {
                return;
            };
            let Phase::Lingering { budget, .. } = &mut client.phase else {
                return;
            };
            match client.stream.discard_unread() {
                Ok(Unread::Bytes(count)) if count < *budget => *budget -= count,
                Ok(Unread::None) => return self.settle(cx, key),
                // The end, an error, or a client that never stops.
                Ok(Unread::Bytes(_) | Unread::End) | Err(_) => return self.close(cx, key),
            }
        }
        self.settle(cx, key);
        cx.resume_later(Of::client(key));
    }

    pub(super) fn client_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.table.get_mut(key) else {
            return;
        };
        cx.alarm_fired(&mut client.alarm);
        match client.phase {
            Phase::Reading { .. } if client.input.is_empty() => {
                let line = format_args!("closed {}: it sent nothing within --read-timeout", client.peer);
                let line = line.to_string();
                self.dispatcher.counters_mut().refusals.read_timeout += 1;
                self.note(cx, Level::Info, Topic::ReadTimeout, format_args!("{line}"));
                self.close(cx, key);
            }
            Phase::Reading { .. } => self.refuse_line(cx, key, Line::TooSlow),
            Phase::Writing { .. } => {
                let peer = client.peer;
                self.dispatcher.counters_mut().refusals.write_timeout += 1;
                let line = format_args!("closed {peer}: it took nothing of its answer within --write-timeout");
                self.note(cx, Level::Warn, Topic::WriteTimeout, line);
                self.close(cx, key);
            }
            Phase::Lingering { .. } => self.close(cx, key),
            // It has no deadline; the dispatcher keeps it.
            Phase::Asked { .. } => {}
        }
    }

    /// Ends a connection: the only way out of the table.
    pub(super) fn close(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(mut client) = self.clients.table.remove(key) else {
            return;
        };
        cx.set_alarm(&mut client.alarm, Of::client(key), None);
        self.clients.count.release(&client.peer);
        self.clients.keep_buffer(client.input);
        drop(client.stream);
        self.descriptor_freed(cx);
    }

    /// Brings alarm and registration in line with the phase. Called after every change of phase.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.table.get_mut(key) else {
            return;
        };
        let deadline = client.deadline();
        cx.set_alarm(&mut client.alarm, Of::client(key), deadline);
        if client.watch == Watch::Registered || !client.wants_events() {
            return;
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        match cx.register(Of::client(key), &mut client.stream, interest) {
            Ok(()) => client.watch = Watch::Registered,
            Err(error) => {
                let line = format!("closed {}: cannot watch its connection: {error}", client.peer);
                self.note(cx, Level::Error, Topic::System, format_args!("{line}"));
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
enum Line {
    TooLong,
    Forbidden,
    Unended,
    TooSlow,
}

/// Writes as much as the socket takes at once; 0 when it is full.
fn write_some(stream: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
