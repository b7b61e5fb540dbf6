//! The first bytes of a route: they are read and held until the router knows where they go.

use super::super::core::event::{Event, Side, Step};
use super::super::core::hello::MOST_BYTES;
use super::routes::Stage;
use super::{RouteDoor, id};
use crate::net::conn::Sent;
use crate::reactor::{Context, Key};
use crate::relay::direction;
use crate::relay::endpoint::Endpoint as _;

impl RouteDoor {
    /// Reads what has come of a client. Returns the step that follows; `None` if more must come.
    pub(super) fn read_opening(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Step> {
        let route = self.routes.get_mut(key)?;
        let Stage::Held(held) = &mut route.stage else {
            return None;
        };
        // Behind that many bytes there is always a decision.
        let room = MOST_BYTES.saturating_sub(held.len()).max(1);
        let mut piece = cx.lend_buffer();
        let read = route.client.read(piece.get_mut(..room).unwrap_or_default());
        if let Ok(count) = read {
            held.extend_from_slice(piece.get(..count).unwrap_or_default());
        }
        cx.return_buffer(piece);
        let event = match read {
            Ok(_) => Event::Bytes(held),
            Err(direction::Event::SourceEmpty) => return None,
            Err(direction::Event::SourceEnded) => Event::Ended(Side::Client),
            Err(_) => Event::Lost(Side::Client),
        };
        Some(self.router.advance(id(key), &mut route.life, event, cx.now()))
    }

    /// Answers a request of the client, which is all that is held. Returns the step that follows.
    pub(super) fn reply(&mut self, cx: &mut Context<'_>, key: Key, answer: &[u8]) -> Option<Step> {
        let route = self.routes.get_mut(key)?;
        route.stage = Stage::Held(Vec::new());
        match route.client.conn.send(answer) {
            Sent::Bytes(count) if count == answer.len() => Some(Step::Read),
            // The client has gone, for it has not been sent as much as fills a socket.
            Sent::Bytes(_) | Sent::Nothing | Sent::Failed => self.advance(cx, key, Event::Lost(Side::Client)),
        }
    }

    /// Has the bytes that are held judged once more.
    pub(super) fn judge_again(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Step> {
        let route = self.routes.get_mut(key)?;
        let Stage::Held(held) = &route.stage else { return None };
        Some(
            self.router
                .advance(id(key), &mut route.life, Event::Bytes(held), cx.now()),
        )
    }
}
