//! Clients whose TLS ends at the door: each leaves its route for its handshake, which the front makes as it makes those of
//! listeners with TLS, and gets a route again when that is done. Meanwhile its life is kept here.

use std::sync::Arc;

use super::super::access_log::Record;
use super::super::core::event::{Event, Step};
use super::super::core::life::Life;
use super::carrying::Traffic;
use super::{RouteDoor, id};
use crate::doors::front::Secured;
use crate::net::origin::Origin;
use crate::reactor::{Context, Key};

/// A client that makes its handshake.
#[derive(Debug)]
pub(super) struct Securing {
    life: Life,
    /// The key of the route that it has left.
    left: Key,
    /// For the place that it has among the connections of the door.
    origin: Origin,
    /// The name of the server that it speaks with.
    server: Option<Arc<str>>,
}

impl RouteDoor {
    /// Takes a client out of its route, and lets it make its handshake with the server of this name.
    pub(super) fn secure(&mut self, cx: &mut Context<'_>, key: Key, server: Arc<str>) {
        let Some((conn, origin, life)) = self.take_client(cx, key) else {
            return;
        };
        let server = Some(server);
        let tls = self.front.tls_of(&server).map(Arc::clone);
        let securing = Securing {
            life,
            left: key,
            origin: origin.clone(),
            server,
        };
        match (self.securing.insert(securing), tls) {
            (Ok(key), Some(tls)) => {
                self.front.secure(cx, (conn, origin), tls, key);
                // There may be no place for it, or it may have taken that of another.
                self.take_secured(cx);
            }
            // The certificates of a table come with it, and the limit on connections is far below the number of keys.
            (Ok(key), None) => self.give_up_securing(cx, key, Event::NotSecured),
            (Err(securing), _) => self.end_securing(cx, securing, Event::NotSecured),
        }
    }

    /// Goes on with the clients whose handshakes have come to their ends.
    pub(super) fn take_secured(&mut self, cx: &mut Context<'_>) {
        while let Some(Secured { key, outcome }) = self.front.take_secured() {
            // The door may have given it up.
            let Some(securing) = self.securing.remove(key) else {
                continue;
            };
            match outcome {
                Some((conn, origin, made_with))
                    if self
                        .front
                        .permits_secured(cx, &conn, &origin, (&made_with, &securing.server)) =>
                {
                    self.insert_route(cx, securing.life, conn, origin, |door, cx, key| {
                        door.advance(cx, key, Event::Secured)
                    });
                }
                Some(_) | None => self.end_securing(cx, securing, Event::NotSecured),
            }
        }
    }

    /// Gives up every client that makes its handshake, since the door ends.
    pub(super) fn give_up_all_securing(&mut self, cx: &mut Context<'_>) {
        let keys: Vec<Key> = self.securing.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.give_up_securing(cx, key, Event::Abort);
        }
    }

    fn give_up_securing(&mut self, cx: &mut Context<'_>, key: Key, event: Event<'static>) {
        if let Some(securing) = self.securing.remove(key) {
            self.end_securing(cx, securing, event);
        }
    }

    /// Gives the place of a client back whose connection is closed.
    fn end_securing(&mut self, cx: &mut Context<'_>, mut securing: Securing, event: Event<'static>) {
        let step = self.router.advance(id(Key::ONLY), &mut securing.life, event, cx.now());
        debug_assert!(matches!(step, Step::Close { .. }), "it is over");
        self.log_record(&Record {
            number: id(securing.left).0,
            client: &securing.origin,
            life: &securing.life,
            door: None,
            traffic: Traffic::default(),
            ended: cx.now(),
        });
        self.front.connection_closed(cx, &securing.origin);
    }
}
