//! The request for TLS to a server of PostgreSQL, whose client has made one. It is sent as the first bytes of the
//! connection; here its answer is awaited, while the ClientHello is held.
//!
//! The answer is judged together with whatever came with it: [`judge_reply`]. It is read with room for more than itself,
//! so that bytes behind it, which the client would take for TLS, are found.

use super::super::core::event::{ConnectFault, Event};
use super::super::core::opening::{NoTls, judge_reply};
use super::RouteDoor;
use super::carrying::Relay;
use super::end::Server;
use super::routes::Stage;
use super::streams::Stream;
use crate::doors::socket_end::SocketEnd;
use crate::net::conn::{Conn, Received};
use crate::reactor::{Key, Readiness};

/// A server that was asked for TLS.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) asked: Asked,
    /// The ClientHello, and all that is held behind it.
    pub(super) held: Vec<u8>,
}

/// The way to a server that was asked for TLS.
#[derive(Debug)]
pub(super) enum Asked {
    Conn(Conn),
    Stream {
        stream: Stream,
        /// The part of the request that was not sent.
        unsent: Vec<u8>,
    },
}

impl Asking {
    /// The server has got the first `sent` of these bytes, which end with the request.
    pub(super) fn new(mut conn: Conn, first: &[u8], sent: usize, held: Vec<u8>) -> Asking {
        // The kernel has room for so little; if not, the rest follows.
        let rest = first.get(sent..).unwrap_or_default();
        conn.output_mut().extend_from_slice(rest);
        let asked = Asked::Conn(conn);
        Asking { asked, held }
    }

    /// Takes in an event of the poll.
    pub(super) fn note(&mut self, readiness: Readiness) {
        match &mut self.asked {
            Asked::Conn(conn) => conn.note(readiness),
            // It has no events of its own.
            Asked::Stream { .. } => {}
        }
    }

    /// The server is to get these bytes, which end with the request, by a stream.
    pub(super) fn over_stream(stream: Stream, unsent: Vec<u8>, held: Vec<u8>) -> Asking {
        let asked = Asked::Stream { stream, unsent };
        Asking { asked, held }
    }
}

impl RouteDoor {
    /// Goes on with the request, and reads the answer. Returns the event, if one has come.
    pub(super) fn read_reply(&mut self, key: Key) -> Option<Event<'static>> {
        let Stage::Asking(asking) = &mut self.routes.get_mut(key)?.stage else {
            return None;
        };
        let mut answer = [0; 16];
        let (count, has_sent) = match &mut asking.asked {
            Asked::Conn(conn) => {
                // If it fails, the read tells.
                let _ = conn.flush();
                let count = match conn.read(&mut answer) {
                    Received::Nothing => return None,
                    Received::End | Received::Cut | Received::Failed => None,
                    Received::Bytes(count) => Some(count),
                };
                (count, conn.unwritten() == 0)
            }
            Asked::Stream { stream, unsent } => {
                let sessions = &mut self.sessions;
                let count = match sessions.ask(*stream, unsent, &mut answer) {
                    Ok(0) => return None,
                    outcome => outcome.ok(),
                };
                (count, unsent.is_empty())
            }
        };
        let reply = match count {
            None => return Some(Event::ConnectFailed(ConnectFault::Server)),
            // It cannot be the answer to what the server does not have yet.
            Some(_) if !has_sent => Err(NoTls::Wrong),
            Some(count) => judge_reply(answer.get(..count).unwrap_or_default()),
        };
        if reply.is_ok()
            && let Some(route) = self.routes.get_mut(key)
        {
            route.stage.begin_tls();
        }
        Some(Event::Replied(reply))
    }
}

impl Stage {
    /// Goes over to the relay, whose first bytes for the server are the ClientHello.
    fn begin_tls(&mut self) {
        if let Stage::Asking(asking) = std::mem::replace(self, Stage::Held(Vec::new())) {
            let Asking { asked, held } = *asking;
            let server = match asked {
                Asked::Conn(conn) => Server::Socket(SocketEnd::server(conn)),
                Asked::Stream { stream, .. } => Server::Stream(stream),
            };
            *self = Stage::Relaying(Box::new(Relay::new(server, 0, held, None)));
        }
    }
}
