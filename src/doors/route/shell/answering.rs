//! Lingering closes: a refusal is answered, and a side that may still be sending is read to its end, or a reset would
//! overtake what it was sent.

use std::time::{Duration, Instant};

use super::super::core::event::{Event, Side};
use super::super::core::life;
use super::carrying::Traffic;
use super::end::Server;
use super::routes::{Route, Stage};
use super::streams::{Drained, Lingering};
use super::{RouteDoor, RouteSource};
use crate::doors::socket_end::SocketEnd;
use crate::net::conn::{CloseStep, LingerLimits, Sent};
use crate::reactor::{Context, Key, SourceKind};

/// The bounds within which input is thrown away before a close.
const LINGER: LingerLimits = LingerLimits {
    time: Duration::from_secs(5),
    bytes: 1 << 20,
};

/// A lingering close of one side. The other side is closed with it.
#[derive(Debug)]
pub(super) struct Closing {
    /// The bytes that were passed on before.
    pub(super) traffic: Traffic,
    side: ClosingSide,
}

/// The side that is being closed.
#[derive(Debug)]
enum ClosingSide {
    /// The client, which its route has.
    Client,
    /// A server.
    Server(Box<SocketEnd>),
    /// A server behind a tunnel.
    Stream(Lingering),
}

impl Closing {
    /// The connection to the server, if that is the side.
    pub(super) fn server(&mut self) -> Option<&mut SocketEnd> {
        match &mut self.side {
            ClosingSide::Server(end) => Some(end),
            ClosingSide::Client | ClosingSide::Stream(_) => None,
        }
    }

    /// The same connection, of which the other side is closed with it.
    pub(super) fn into_server(self) -> Option<SocketEnd> {
        match self.side {
            ClosingSide::Server(end) => Some(*end),
            ClosingSide::Client | ClosingSide::Stream(_) => None,
        }
    }

    /// The stream of the server, if that is the side.
    pub(super) fn lingering(&mut self) -> Option<&mut Lingering> {
        match &mut self.side {
            ClosingSide::Stream(lingering) => Some(lingering),
            ClosingSide::Client | ClosingSide::Server(_) => None,
        }
    }
}

impl RouteDoor {
    /// Sends the client the last bytes that it gets, and begins to close its connection.
    pub(super) fn answer(&mut self, cx: &mut Context<'_>, key: Key, bytes: &[u8]) {
        if let Some(route) = self.routes.get_mut(key) {
            // An error means that the client has gone. Behind the answers of a server there may be no room.
            let _ = route.client.conn.send(bytes);
            self.begin_closing(cx, key, Side::Client);
        }
    }

    /// Begins to close the connection of one side, which has everything, or has it in its write buffer, but may be about
    /// to send.
    pub(super) fn begin_closing(&mut self, cx: &mut Context<'_>, key: Key, side: Side) {
        self.leave_name(key);
        if side == Side::Client {
            self.leave_stream(key);
        }
        let Some(route) = self.routes.get_mut(key) else { return };
        let traffic = route.stage.traffic();
        let side = match (side, std::mem::replace(&mut route.stage, Stage::Held(Vec::new()))) {
            (Side::Server, Stage::Relaying(relay)) => match relay.server {
                Server::Socket(end) => ClosingSide::Server(Box::new(end)),
                Server::Stream(stream) => ClosingSide::Stream(Lingering::new(stream, cx.now())),
            },
            (Side::Client | Side::Server, _) => ClosingSide::Client,
        };
        route.stage = Stage::Closing(Closing { traffic, side });
        self.go_on_closing(cx, key);
    }

    /// Goes on with such a close.
    pub(super) fn go_on_closing(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(SocketEnd { conn, .. }) = self.routes.get_mut(key).and_then(Route::closing_end) {
            let is_lost = conn.flush() == Sent::Failed;
            let step = match conn.unwritten() {
                _any if is_lost => CloseStep::Done,
                0 if conn.is_closing() => conn.go_on_closing(),
                0 => conn.begin_close(true, LINGER, cx.now()),
                _more => CloseStep::Waiting,
            };
            self.take_step(cx, key, step);
        } else {
            let step = match self.drain_stream(cx, key) {
                Drained::Waiting => CloseStep::Waiting,
                Drained::MoreLater => CloseStep::MoreLater,
                Drained::Done => CloseStep::Done,
            };
            self.take_step(cx, key, step);
        }
    }

    fn take_step(&mut self, cx: &mut Context<'_>, key: Key, step: CloseStep) {
        match step {
            CloseStep::Waiting => {}
            CloseStep::MoreLater => cx.resume_later(RouteSource::Route.at(key)),
            CloseStep::Done => self.finish_closing(cx, key),
        }
    }

    /// Must be called when the side that is being closed has ended, or its time is over.
    pub(super) fn finish_closing(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(route) = self.routes.get(key) else { return };
        let events: &[Event<'_>] = match route.life.stage() {
            life::Stage::Answering => &[Event::Answered],
            // One side takes nothing more, and has everything that the other has sent to it.
            life::Stage::Relaying => &[Event::Ended(Side::Client), Event::Ended(Side::Server)],
            life::Stage::Opening
            | life::Stage::Waiting
            | life::Stage::Securing
            | life::Stage::Starting
            | life::Stage::Expecting
            | life::Stage::Connecting
            | life::Stage::Asking
            | life::Stage::Over => &[Event::Abort],
        };
        for event in events {
            self.tell(cx, key, *event);
        }
    }
}

impl Route {
    /// The side that is being closed.
    fn closing_end(&mut self) -> Option<&mut SocketEnd> {
        match &mut self.stage {
            Stage::Closing(closing) => match &mut closing.side {
                ClosingSide::Client => Some(&mut self.client),
                ClosingSide::Server(end) => Some(end),
                ClosingSide::Stream(_) => None,
            },
            Stage::Held(_) | Stage::Naming(_) | Stage::Connecting(_) | Stage::Asking(_) | Stage::Relaying(_) => None,
        }
    }

    /// The stream whose input is thrown away, if one is.
    pub(super) fn lingering(&mut self) -> Option<&mut Lingering> {
        match &mut self.stage {
            Stage::Closing(closing) => closing.lingering(),
            Stage::Held(_) | Stage::Naming(_) | Stage::Connecting(_) | Stage::Asking(_) | Stage::Relaying(_) => None,
        }
    }

    /// The time at which a lingering close is over, whatever the peer does.
    pub(super) fn close_deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Closing(closing) => match &closing.side {
                ClosingSide::Client => self.client.conn.close_deadline(),
                ClosingSide::Server(end) => end.conn.close_deadline(),
                ClosingSide::Stream(lingering) => Some(lingering.until),
            },
            Stage::Held(_) | Stage::Naming(_) | Stage::Connecting(_) | Stage::Asking(_) | Stage::Relaying(_) => None,
        }
    }
}
