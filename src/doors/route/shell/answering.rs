//! Lingering closes: a refusal is answered, and a side that may still be sending is read to its end, or a reset would
//! overtake what it was sent.

use std::time::{Duration, Instant};

use super::super::core::event::{Event, Side};
use super::super::core::life;
use super::carrying::Traffic;
use super::end::End;
use super::routes::{Route, Stage};
use super::{RouteDoor, RouteSource};
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
    /// `None` if the side is the client, which its route has.
    pub(super) server: Option<Box<End>>,
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
        let Some(route) = self.routes.get_mut(key) else { return };
        let traffic = route.stage.traffic();
        let server = match (side, std::mem::replace(&mut route.stage, Stage::Held(Vec::new()))) {
            (Side::Server, Stage::Relaying(relay)) => Some(Box::new(relay.server)),
            (Side::Client | Side::Server, _) => None,
        };
        route.stage = Stage::Closing(Closing { traffic, server });
        self.go_on_closing(cx, key);
    }

    /// Goes on with such a close.
    pub(super) fn go_on_closing(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(End { conn, .. }) = self.routes.get_mut(key).and_then(Route::closing_end) {
            let is_lost = conn.flush() == Sent::Failed;
            let step = match conn.unwritten() {
                _any if is_lost => CloseStep::Done,
                0 if conn.is_closing() => conn.go_on_closing(),
                0 => conn.begin_close(true, LINGER, cx.now()),
                _more => CloseStep::Waiting,
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
    fn closing_end(&mut self) -> Option<&mut End> {
        match &mut self.stage {
            Stage::Closing(closing) => Some(closing.server.as_deref_mut().unwrap_or(&mut self.client)),
            Stage::Held(_) | Stage::Naming(_) | Stage::Connecting(_) | Stage::Asking(_) | Stage::Relaying(_) => None,
        }
    }

    /// The time at which a lingering close is over, whatever the peer does.
    pub(super) fn close_deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Closing(closing) => closing.server.as_deref().unwrap_or(&self.client).conn.close_deadline(),
            Stage::Held(_) | Stage::Naming(_) | Stage::Connecting(_) | Stage::Asking(_) | Stage::Relaying(_) => None,
        }
    }
}
