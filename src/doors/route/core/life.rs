//! The life of one route: its states, what each holds, and the deadline of each.
//!
//! ```text
//!                                              ┌─ its program is awaited: Starting; a tunnel client: Expecting
//!                                              │   ▲
//!            ┌─ a table is awaited: Waiting ─┐ ▼   │        ┌─ TLS is asked for: Asking ─┐
//!   Opening ─┴───────────────────────────────┴─▶ Connecting ┴────────────────────────────┴─▶ Relaying ─▶ Over
//!      │                                        (again once)               │                              ▲
//!      └───────────── refused, no server ────────────┴─────────────────────┴──────────▶ Answering ────────┘
//! ```
//!
//! A state owns what belongs to it, and what it holds of the router (a place among the waiting routes, a connection's share
//! of a server) goes back when the state is left: see `Router::leave`. The transitions are in `router`, all of them.
//!
//! A client whose TLS ends at the door is in Securing before it is in Connecting, or is over because it is handed over to
//! another door.
//!
//! Every state that waits has a deadline (that of Securing is the handshake's own), with one exception: a relay without a limit for idle connections, as long as
//! neither side has ended. The operator has wished for that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::ClientKey;
use super::ending::Ending;
use super::event::Side;
use super::hello::Alpn;
use super::name::{self, Name};
use super::opening::{Entrance, Progress};
use super::secrets::Secret;
use super::share::Share;
use super::starter::{Place, ProgramId};
use super::table::{Address, Choice};
use super::tunnels::SessionId;
use crate::doors::waiters::Ticket;

/// The longest time without a byte of the other side after one side has ended, also if the operator has allowed more.
pub const HALF_CLOSED: Duration = Duration::from_secs(5 * 60);
/// The longest time for which a connection waits for the first reading of the store.
pub const TABLE_PATIENCE: Duration = Duration::from_secs(5);
/// The time for which a connection waits for the program of its server beyond the time that the program has: so the
/// program is found late before the connection is.
pub const PROGRAM_SLACK: Duration = Duration::from_millis(500);
/// The longest time that a client has to take its answer and to end its side.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// The length in bytes of the protocols of a client that are kept for the log.
pub const LONGEST_PROTOCOLS: usize = 200;

/// One route: a client's connection from its acceptance to its end. The shell keeps it beside its sockets.
#[derive(Debug)]
pub struct Life {
    pub(super) state: State,
    pub(super) client: ClientKey,
    pub(super) asked: Asked,
    pub(super) times: Times,
}

/// The wish of a client, as far as its first bytes tell.
#[derive(Debug, Default)]
pub struct Asked {
    /// The name, in lower case and without a trailing dot. Bytes that cannot be a name are escaped, and cut after 253 of
    /// them: for the log alone.
    pub name: Option<Box<str>>,
    /// The protocols that the client offers (ALPN), separated by commas, with other characters than signs of ASCII
    /// escaped, and cut after [`LONGEST_PROTOCOLS`] bytes. Only if the router [keeps](super::router::Router::keep_protocols)
    /// them: for the log alone.
    pub protocols: Option<Box<str>>,
    /// The protocol that the client speaks, and in which it is answered.
    pub protocol: Protocol,
    /// True if the TLS of the client ends at the door.
    pub is_tls_ended: bool,
    /// True if the ClientHello has the extension Encrypted ClientHello, so that the name may be another's.
    pub has_ech: bool,
    /// True if TLS begins behind an SSLRequest of PostgreSQL, which the server must have as well.
    pub starts_tls: bool,
    /// True if it was read from the head of a request of HTTP/1, behind which others may follow.
    pub has_head: bool,
}

/// A protocol, as far as it decides how a client is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// None of the others, or one that is not known yet: there is no answer.
    #[default]
    Plain,
    /// TLS: the answer is an alert.
    Tls,
    /// HTTP: the answer is a page.
    Http {
        /// True if the method is HEAD, whose answers have no body.
        is_head: bool,
    },
}

/// The moments of a route, as far as they have come.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The connection was accepted.
    pub accepted: Instant,
    /// The client's first bytes were complete, and its service known.
    pub decided: Option<Instant>,
    /// The server was connected.
    pub connected: Option<Instant>,
}

/// The state of a route.
#[derive(Debug)]
pub(super) enum State {
    /// The first bytes of the client are awaited.
    Opening(Opening),
    /// The first bytes are complete, and a table is awaited that may have the name.
    Waiting(Waiting),
    /// The client makes its TLS handshake with the door, and goes there when that is done.
    Securing(Destination),
    /// The program of the server is awaited.
    Starting(Starting),
    /// A tunnel client of the service is expected. In a box, so that the others need not have room for it.
    Expecting(Box<Expecting>),
    /// A server is being connected to.
    Connecting(Connecting),
    /// A server is connected, and its answer to a request for TLS is awaited, within the time for connecting.
    Asking(Connecting),
    /// Bytes are relayed.
    Relaying(Relaying),
    /// The client gets an answer instead of a server.
    Answering(Answering),
    /// Nothing more happens.
    Over(Over),
}

#[derive(Debug)]
pub(super) struct Opening {
    pub(super) entrance: Entrance,
    pub(super) progress: Progress,
    pub(super) until: Instant,
    /// The door drains, which has shortened the time.
    pub(super) is_stopping: bool,
    /// A table that is still to come may be awaited.
    pub(super) may_wait: bool,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entrance: Entrance,
    pub(super) ticket: Ticket,
    pub(super) until: Instant,
}

/// The end to which a client goes.
#[derive(Debug)]
pub(super) enum Destination {
    /// One of these servers, or of the tunnel clients of the service.
    Servers(Choice),
    /// The door of this name.
    Door(Arc<str>),
}

/// A decision, and the server that was chosen by it.
#[derive(Debug)]
pub struct Routed {
    /// The decision.
    pub choice: Choice,
    /// The server that was chosen last.
    pub server: Arc<Address>,
}

#[derive(Debug)]
pub(super) struct Starting {
    pub(super) routed: Routed,
    pub(super) program: ProgramId,
    pub(super) place: Place,
    pub(super) until: Instant,
}

#[derive(Debug)]
pub(super) struct Expecting {
    pub(super) choice: Choice,
    pub(super) secret: Secret,
    pub(super) ticket: Ticket,
    pub(super) until: Instant,
}

#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) routed: Routed,
    pub(super) share: Share,
    /// The program of the server.
    pub(super) program: Option<ProgramId>,
    /// The server of the attempt before.
    pub(super) tried: Option<Share>,
    pub(super) until: Instant,
}

#[derive(Debug)]
pub(super) struct Relaying {
    pub(super) routed: Routed,
    pub(super) share: Share,
    /// The program of the server.
    pub(super) program: Option<ProgramId>,
    /// The side that has ended, and when.
    pub(super) ended: Option<(Side, Instant)>,
    /// The time of the last bytes, and the side that has sent them.
    pub(super) last: (Side, Instant),
    /// The time until which the head of the next request must be complete, once it has begun.
    pub(super) head_until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Answering {
    pub(super) ending: Ending,
    pub(super) routed: Option<Routed>,
    pub(super) until: Instant,
}

#[derive(Debug)]
pub(super) struct Over {
    pub(super) ending: Ending,
    pub(super) routed: Option<Routed>,
}

/// The name of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The first bytes of the client are awaited.
    Opening,
    /// A table is awaited.
    Waiting,
    /// The client makes its TLS handshake.
    Securing,
    /// The program of the server is awaited.
    Starting,
    /// A tunnel client of the service is expected.
    Expecting,
    /// A server is being connected to.
    Connecting,
    /// The answer of a server to a request for TLS is awaited.
    Asking,
    /// Bytes are relayed.
    Relaying,
    /// The client gets an answer instead of a server.
    Answering,
    /// Nothing more happens.
    Over,
}

impl Life {
    /// Takes note of bytes that came from this side and were passed on. Must be called for each, or the route is taken
    /// for idle.
    pub fn note_bytes(&mut self, from: Side, now: Instant) {
        match &mut self.state {
            State::Relaying(relaying) => relaying.last = (from, now),
            State::Opening(_)
            | State::Waiting(_)
            | State::Securing(_)
            | State::Starting(_)
            | State::Expecting(_)
            | State::Connecting(_)
            | State::Asking(_)
            | State::Answering(_)
            | State::Over(_) => {}
        }
    }

    /// Returns the time at which [`Event::Deadline`](super::event::Event::Deadline) must be reported. An event may move
    /// it to an earlier time, and bytes that are relayed to a later one. An alarm that rings before it has come finds
    /// nothing to do, and is set again.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Opening(opening) => Some(opening.until),
            State::Waiting(waiting) => Some(waiting.until),
            State::Starting(starting) => Some(starting.until),
            State::Expecting(expecting) => Some(expecting.until),
            State::Connecting(connecting) | State::Asking(connecting) => Some(connecting.until),
            State::Relaying(relaying) => relaying.deadline(),
            State::Answering(answering) => Some(answering.until),
            // A handshake has a deadline of its own.
            State::Securing(_) | State::Over(_) => None,
        }
    }

    /// Returns true if the requests of this connection are judged one by one, so that its bytes must go through a
    /// [`Filter`](super::filter::Filter).
    pub fn is_filtered(&self) -> bool {
        self.routed()
            .is_some_and(|routed| self.asked.is_filtered(&routed.choice))
    }

    /// Returns the session of which the route is to have a stream, which was not opened yet.
    pub fn opens_stream_of(&self) -> Option<SessionId> {
        match &self.state {
            State::Connecting(connecting) => connecting.share.session(),
            State::Opening(_)
            | State::Waiting(_)
            | State::Securing(_)
            | State::Starting(_)
            | State::Expecting(_)
            | State::Asking(_)
            | State::Relaying(_)
            | State::Answering(_)
            | State::Over(_) => None,
        }
    }

    /// Returns the name of the state.
    pub fn stage(&self) -> Stage {
        self.state.stage()
    }

    /// Returns the wish of the client.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Returns the moments of the route.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Returns the decision and the server that was chosen last, also when the route is over.
    pub fn routed(&self) -> Option<&Routed> {
        match &self.state {
            State::Opening(_) | State::Waiting(_) | State::Securing(_) | State::Expecting(_) => None,
            State::Starting(starting) => Some(&starting.routed),
            State::Connecting(connecting) | State::Asking(connecting) => Some(&connecting.routed),
            State::Relaying(relaying) => Some(&relaying.routed),
            State::Answering(answering) => answering.routed.as_ref(),
            State::Over(over) => over.routed.as_ref(),
        }
    }

    /// Returns the reason for which the route has ended, or is about to.
    pub fn ending(&self) -> Option<Ending> {
        match &self.state {
            State::Opening(_)
            | State::Waiting(_)
            | State::Securing(_)
            | State::Starting(_)
            | State::Expecting(_)
            | State::Connecting(_)
            | State::Asking(_)
            | State::Relaying(_) => None,
            State::Answering(answering) => Some(answering.ending),
            State::Over(over) => Some(over.ending),
        }
    }
}

impl Asked {
    /// Returns the protocol in which the client may be answered. Where its TLS ends here, nothing is said in the clear.
    pub(in super::super) fn answered_in(&self) -> Protocol {
        if self.is_tls_ended {
            Protocol::Plain
        } else {
            self.protocol
        }
    }

    /// The wish of a client that was not heard yet.
    pub(super) fn at(entrance: Entrance) -> Asked {
        let protocol = match entrance {
            Entrance::Http => Protocol::Http { is_head: false },
            Entrance::Tls | Entrance::GssDenied | Entrance::Invited => Protocol::Plain,
        };
        Asked::new(None, None, protocol)
    }

    /// Returns true if a connection with this wish that goes by this decision is filtered.
    pub(super) fn is_filtered(&self, choice: &Choice) -> bool {
        self.has_head && choice.rule.judges_each_request
    }

    /// The wish of a client that has written these bytes for a name, which are `name` if they can be one.
    pub(super) fn new(written: Option<&[u8]>, name: Option<&Name>, protocol: Protocol) -> Asked {
        Asked {
            name: written.map(|bytes| match name {
                Some(name) => name.as_str().into(),
                None => {
                    let beginning = bytes.get(..name::LONGEST).unwrap_or(bytes);
                    beginning.escape_ascii().to_string().into()
                }
            }),
            protocols: None,
            protocol,
            is_tls_ended: false,
            has_ech: false,
            starts_tls: false,
            has_head: false,
        }
    }
}

/// Returns the protocols of a client as they are [kept](Asked::protocols).
pub(super) fn listed(alpn: Alpn<'_>) -> Option<Box<str>> {
    let mut list = String::new();
    for protocol in alpn.protocols() {
        let comma = if list.is_empty() { "" } else { "," };
        let next = format!("{comma}{}", protocol.escape_ascii());
        if list.len() + next.len() > LONGEST_PROTOCOLS {
            break;
        }
        list.push_str(&next);
    }
    (!list.is_empty()).then(|| list.into())
}

impl State {
    pub(super) fn stage(&self) -> Stage {
        match self {
            State::Opening(_) => Stage::Opening,
            State::Waiting(_) => Stage::Waiting,
            State::Securing(_) => Stage::Securing,
            State::Starting(_) => Stage::Starting,
            State::Expecting(_) => Stage::Expecting,
            State::Connecting(_) => Stage::Connecting,
            State::Asking(_) => Stage::Asking,
            State::Relaying(_) => Stage::Relaying,
            State::Answering(_) => Stage::Answering,
            State::Over(_) => Stage::Over,
        }
    }

    /// The state of a route whose own state has been taken out to be moved on.
    pub(super) fn nothing() -> State {
        State::Over(Over {
            ending: Ending::Done,
            routed: None,
        })
    }
}

impl Relaying {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let idle = self.routed.choice.rule.idle_timeout;
        let idle_until = match self.ended {
            Some((_, ended)) => Some(ended.max(self.last.1) + idle.unwrap_or(HALF_CLOSED).min(HALF_CLOSED)),
            None => idle.map(|idle| self.last.1 + idle),
        };
        [idle_until, self.head_until].into_iter().flatten().min()
    }

    /// Returns the side that was the next to send: the one that has not ended, or the one that did not send last.
    pub(super) fn owing(&self) -> Side {
        match self.ended {
            Some((side, _)) => side.other(),
            None => self.last.0.other(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands of routes may be idle, and each has the size of the largest state.
    #[test]
    fn a_route_takes_at_most_256_bytes_beside_its_name() {
        assert!(size_of::<Life>() <= 256, "{} bytes", size_of::<Life>());
    }

    fn asked(bytes: &[u8]) -> Option<Box<str>> {
        Asked::new(Some(bytes), Name::parse(bytes).as_ref(), Protocol::Tls).name
    }

    #[test]
    fn a_name_that_is_none_is_escaped_and_cut_for_the_log() {
        assert_eq!(asked(b"WWW.Example.").as_deref(), Some("www.example"));
        assert_eq!(asked(b"a\n\xff").as_deref(), Some("a\\n\\xff"));
        let longest = asked(&[0; 16_000]).expect("a name");
        assert_eq!(longest.len(), name::LONGEST * "\\x00".len());
    }
}
