//! Routes that go over a tunnel: each has a stream of the session of a tunnel client, where others have a connection to a
//! server.
//!
//! A stream is there as soon as it is opened, and the first bytes of the client leave with it. A client that leaves too
//! many streams unanswered lets further routes wait, in the order in which they have come. From then on a stream is one
//! side of the relay (`carrying`), and its session tells when it is to be looked at ([`stream_ready`](RouteDoor::stream_ready)).
//!
//! A stream that a route gives up is [released](RouteDoor::leave_stream): at the end of the route, for an answer, or for
//! another attempt.

use std::time::{Duration, Instant};

use super::super::core::event::{ConnectFault, Event};
use super::super::core::filter::Filter;
use super::super::core::opening::SSL_REQUEST;
use super::super::core::tunnels::SessionId;
use super::RouteDoor;
use super::asking::{Asked, Asking};
use super::carrying::Relay;
use super::end::Server;
use super::routes::{Route, Stage};
use super::tunnels::{Sessions, session_id};
use crate::mux::core::StreamId;
use crate::reactor::{Context, Key};
use crate::relay::direction::Event as Moved;
use crate::relay::endpoint::Endpoint as _;
use crate::relay::pipes::Pipe;

/// The bounds within which input of a stream is thrown away before it is given up.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 1 << 20;
/// The number of reads of one such stream in a turn.
const READS_PER_TURN: usize = 16;

/// A stream of a route, or one that a route waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    /// The session.
    pub(super) session: Key,
    pub(super) id: StreamId,
}

/// A stream whose input is thrown away.
#[derive(Debug)]
pub(super) struct Lingering {
    pub(super) stream: Stream,
    pub(super) until: Instant,
    left: usize,
}

impl Lingering {
    pub(super) fn new(stream: Stream, now: Instant) -> Self {
        Self {
            stream,
            until: now + LINGER,
            left: LINGER_BYTES,
        }
    }
}

/// The state of a stream whose input is thrown away.
pub(super) enum Drained {
    Waiting,
    MoreLater,
    Done,
}

impl RouteDoor {
    /// Opens a stream of this session for a route. Returns the outcome, unless the route has to wait.
    pub(super) fn open_stream(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        SessionId(session): SessionId,
    ) -> Option<Event<'static>> {
        self.leave_stream(key);
        self.leave_name(key);
        let elsewhere = self.passing.secret_of(SessionId(session));
        let session = Key::from_bits(session);
        let failed = Some(Event::ConnectFailed(ConnectFault::Server));
        let route = self.routes.get_mut(key)?;
        // An attempt before this one is given up.
        route.stage = Stage::Held(route.stage.take_held());
        if let Some(secret) = elsewhere {
            return self.connect_elsewhere(cx, key, secret);
        }
        let Some(tunnel) = self.sessions.list.get_mut(session) else {
            return failed;
        };
        if tunnel.session.is_gone_away() {
            return failed;
        }
        tunnel.prove_path(cx.now());
        let opened = if tunnel.waiting.is_empty() {
            tunnel.session.open(key.to_bits())
        } else {
            None
        };
        let outcome = match opened {
            Some(id) => {
                route.begin_stream(Stream { session, id });
                Some(Event::Connected)
            }
            None if tunnel.session.is_gone_away() => failed,
            None => {
                tunnel.waiting.push_back(key);
                None
            }
        };
        self.sessions.touch(session);
        outcome
    }

    /// Opens streams for the routes that wait for one of this session, as many as its client takes; or tells them that there
    /// will be none.
    pub(super) fn open_waiting(&mut self, cx: &mut Context<'_>, session: Key) {
        loop {
            let RouteDoor { sessions, routes, .. } = self;
            let Some(tunnel) = sessions.list.get_mut(session) else {
                return;
            };
            let Some(key) = tunnel.waiting.front().copied() else {
                return;
            };
            let waits = |route: &&mut Route| {
                matches!(route.stage, Stage::Held(_)) && route.life.opens_stream_of() == Some(session_id(session))
            };
            let Some(route) = routes.get_mut(key).filter(waits) else {
                // It has ended, or has gone elsewhere.
                tunnel.waiting.pop_front();
                continue;
            };
            let event = match tunnel.session.open(key.to_bits()) {
                Some(id) => {
                    route.begin_stream(Stream { session, id });
                    Event::Connected
                }
                None if tunnel.session.is_gone_away() => Event::ConnectFailed(ConnectFault::Server),
                None => return,
            };
            tunnel.waiting.pop_front();
            self.sessions.touch(session);
            self.tell(cx, key, event);
            self.settle(cx, key);
        }
    }

    /// Goes on with a route after an event of its stream.
    pub(super) fn stream_ready(&mut self, cx: &mut Context<'_>, key: Key) {
        let RouteDoor { routes, sessions, .. } = self;
        if let Some(Route {
            stage: Stage::Relaying(relay),
            ..
        }) = routes.get_mut(key)
        {
            relay.note_stream(sessions);
        }
        self.go_on(cx, key);
    }

    /// Gives the stream of a route up, if it has one. The route must get another stage behind that.
    pub(super) fn leave_stream(&mut self, key: Key) {
        let Some(route) = self.routes.get_mut(key) else { return };
        if let Some((stream, rest)) = route.stage.take_stream() {
            self.release_stream(stream, rest);
        }
    }

    /// Gives a stream up. `rest` is what was to be written to it next.
    pub(super) fn release_stream(&mut self, stream: Stream, rest: Option<Pipe>) {
        if let Some(tunnel) = self.sessions.list.get_mut(stream.session) {
            tunnel.session.release(stream.id, rest);
            tunnel.cut += usize::from(tunnel.session.is_over());
            tunnel.has_released = true;
            self.sessions.touch(stream.session);
        }
    }

    /// Throws input of a stream away.
    pub(super) fn drain_stream(&mut self, cx: &mut Context<'_>, key: Key) -> Drained {
        let RouteDoor { routes, sessions, .. } = self;
        let Some(lingering) = routes.get_mut(key).and_then(Route::lingering) else {
            return Drained::Waiting;
        };
        let Some(tunnel) = sessions.list.get_mut(lingering.stream.session) else {
            return Drained::Done;
        };
        let mut piece = cx.lend_buffer();
        let mut drained = Drained::MoreLater;
        for _ in 0..READS_PER_TURN {
            match tunnel.session.end_of(lingering.stream.id).read(&mut piece) {
                Ok(count) if count < lingering.left => lingering.left -= count,
                Ok(_) => {
                    drained = Drained::Done;
                    break;
                }
                Err(Moved::SourceEmpty) => {
                    drained = Drained::Waiting;
                    break;
                }
                Err(_) => {
                    drained = Drained::Done;
                    break;
                }
            }
        }
        cx.return_buffer(piece);
        let session = lingering.stream.session;
        sessions.touch(session);
        drained
    }
}

impl Sessions {
    /// Goes on with a request for TLS over a stream, and reads the answer into `answer`. Returns its length; 0 for none
    /// yet.
    ///
    /// # Errors
    /// The stream was reset, or has ended.
    pub(super) fn ask(&mut self, stream: Stream, unsent: &mut Vec<u8>, answer: &mut [u8]) -> Result<usize, ()> {
        let tunnel = self.list.get_mut(stream.session).ok_or(())?;
        let mut end = tunnel.session.end_of(stream.id);
        while !unsent.is_empty() {
            match end.write(unsent) {
                Moved::Wrote(count) => drop(unsent.drain(..count.min(unsent.len()))),
                Moved::SinkFull => break,
                _failed => return Err(()),
            }
        }
        let read = end.read(answer);
        self.touch(stream.session);
        match read {
            Ok(count) => Ok(count),
            Err(Moved::SourceEmpty) => Ok(0),
            Err(_) => Err(()),
        }
    }
}

impl Stage {
    /// Takes the stream out of a stage that is left, with what was to be written to it next.
    fn take_stream(&mut self) -> Option<(Stream, Option<Pipe>)> {
        match self {
            Stage::Relaying(relay) => relay.take_stream(),
            Stage::Asking(asking) => match &asking.asked {
                Asked::Stream { stream, .. } => Some((*stream, None)),
                Asked::Conn(_) => None,
            },
            Stage::Closing(closing) => closing.lingering().map(|lingering| (lingering.stream, None)),
            Stage::Held(_) | Stage::Naming(_) | Stage::Connecting(_) => None,
        }
    }
}

impl Route {
    /// Goes over from the held bytes to a stream that was opened for them.
    fn begin_stream(&mut self, stream: Stream) {
        let held = self.stage.take_held();
        let header = self.header(&held).unwrap_or_default();
        self.stage = if self.life.asked().starts_tls {
            let request = [&header[..], &SSL_REQUEST].concat();
            Stage::Asking(Box::new(Asking::over_stream(stream, request, held)))
        } else {
            let (filter, first) = if self.life.is_filtered() {
                let (filter, first) = Filter::open(held);
                (Some(Box::new(filter)), first)
            } else {
                (None, held)
            };
            let rest = [&header[..], &first].concat();
            let relay = Relay::new(Server::Stream(stream), 0, rest, filter);
            Stage::Relaying(Box::new(relay.behind_header(header.len())))
        };
    }
}
