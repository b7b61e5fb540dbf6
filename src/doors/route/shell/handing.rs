//! Clients that are for another door of the process: they leave this one with the bytes that are held, and wait for the
//! daemon, which gives them to that door behind the turn of the loop. Their places here are free from then on.

use std::rc::Rc;
use std::sync::Arc;

use log::Level;

use super::super::core::ending::Ending;
use super::super::core::life::Life;
use super::super::report;
use super::routes::Route;
use super::{RouteDoor, RouteSource};
use crate::doors::HandedConnection;
use crate::net::addr::Mark;
use crate::net::conn::Conn;
use crate::net::origin::Origin;
use crate::reactor::{Context, Key, SourceKind};

impl RouteDoor {
    /// Takes a client out of its route, which is over, for the door of this name.
    pub(super) fn hand_over(&mut self, cx: &mut Context<'_>, key: Key, door: Arc<str>) {
        if let Some(route) = self.routes.get(key) {
            self.log_connection(key, route, Some(&door), cx.now());
        }
        let Some((conn, origin, life)) = self.take_client(cx, key) else {
            return;
        };
        self.front.release(&origin);
        let refusal = Ending::NoServer.answer(life.asked().answered_in()).unwrap_or_default();
        self.handed.push_back(Box::new(HandedConnection {
            conn,
            origin: Origin {
                door: Some(Rc::from(self.front.name())),
                mark: Mark::default(),
                ..origin
            },
            door,
            refusal,
        }));
    }

    /// Takes the client of a route out of it, not registered, as if nothing had been read of it.
    pub(super) fn take_client(&mut self, cx: &mut Context<'_>, key: Key) -> Option<(Conn, Origin, Life)> {
        let mut route = self.routes.remove(key)?;
        cx.set_alarm(&mut route.alarm, RouteSource::Route.at(key), None);
        let Route {
            origin,
            client,
            mut stage,
            life,
            is_registered,
            ..
        } = route;
        let mut conn = client.conn;
        if is_registered {
            // Its next owner registers it for events of its own. An error would mean that it is not registered.
            let _ = cx.deregister(&mut conn);
        }
        Some((conn.restart(stage.take_held()), origin, life))
    }

    /// Counts, logs and refuses a client that its door could not take.
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, handed: Box<HandedConnection>, why: &str) {
        let HandedConnection {
            conn,
            origin,
            door,
            refusal,
        } = *handed;
        self.router.count_failed_hand_over();
        let line = format_args!("refused {origin}, which is for the door {door}: {why}");
        self.front.note(cx, Level::Error, report::HAND_OVER, line);
        conn.turn_away(refusal, false);
        self.front.descriptor_freed(cx);
    }

    /// Returns true if a client of this door may still be handed over to the door of this name.
    pub(super) fn may_still_hand_to(&self, door: &str) -> bool {
        let census = self.router.census();
        let is_undecided = self.front.is_serving()
            || self.front.has_arrivals()
            || census.opening + census.waiting + census.securing > 0;
        (self.options.targets.contains(door) && is_undecided) || self.handed.iter().any(|handed| *handed.door == *door)
    }
}
