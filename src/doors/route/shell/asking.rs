//! The request for TLS to a server of PostgreSQL, whose client has made one. It is sent as the first bytes of the
//! connection; here its answer is awaited, while the ClientHello is held.
//!
//! The answer is judged together with whatever came with it: [`judge_reply`]. It is read with room for more than itself,
//! so that bytes behind it, which the client would take for TLS, are found.

use super::super::core::event::{ConnectFault, Event};
use super::super::core::opening::{NoTls, judge_reply};
use super::RouteDoor;
use super::carrying::Relay;
use super::end::End;
use super::routes::Stage;
use crate::net::conn::{Conn, Received};
use crate::reactor::Key;

/// A server that was asked for TLS.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) conn: Conn,
    /// The ClientHello, and all that is held behind it.
    pub(super) held: Vec<u8>,
}

impl Asking {
    /// The server has got the first `sent` of these bytes, which end with the request.
    pub(super) fn new(mut conn: Conn, first: &[u8], sent: usize, held: Vec<u8>) -> Asking {
        // The kernel has room for so little; if not, the rest follows.
        let rest = first.get(sent..).unwrap_or_default();
        conn.output_mut().extend_from_slice(rest);
        Asking { conn, held }
    }
}

impl RouteDoor {
    /// Goes on with the request, and reads the answer. Returns the event, if one has come.
    pub(super) fn read_reply(&mut self, key: Key) -> Option<Event<'static>> {
        let stage = &mut self.routes.get_mut(key)?.stage;
        let Stage::Asking(asking) = stage else { return None };
        // If it fails, the read tells.
        let _ = asking.conn.flush();
        let mut answer = [0; 16];
        let reply = match asking.conn.read(&mut answer) {
            Received::Nothing => return None,
            Received::End | Received::Cut | Received::Failed => {
                return Some(Event::ConnectFailed(ConnectFault::Server));
            }
            // It cannot be the answer to what the server does not have yet.
            Received::Bytes(_) if asking.conn.unwritten() > 0 => Err(NoTls::Wrong),
            Received::Bytes(count) => judge_reply(answer.get(..count).unwrap_or_default()),
        };
        if reply.is_ok() {
            stage.begin_tls();
        }
        Some(Event::Replied(reply))
    }
}

impl Stage {
    /// Goes over to the relay, whose first bytes for the server are the ClientHello.
    fn begin_tls(&mut self) {
        if let Stage::Asking(asking) = std::mem::replace(self, Stage::Held(Vec::new())) {
            let Asking { conn, held } = *asking;
            *self = Stage::Relaying(Box::new(Relay::new(End::server(conn), 0, held, None)));
        }
    }
}
