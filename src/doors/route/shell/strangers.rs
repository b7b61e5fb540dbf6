//! Tunnel clients whose handshakes are not done: the first stream of each is read until its secret is complete, and held
//! against the tables.
//!
//! A secret that no table has is refused, unless the first reading of the store is awaited: then the client waits for
//! that, as routes do.
//!
//! Invariant: at most [`MOST_STRANGERS`] sessions have no complete handshake, each for a bounded time; a further one takes
//! the place of the oldest.

use std::sync::Arc;
use std::time::Instant;

use log::Level;

use super::super::core::handshake::Fault;
use super::super::core::life::TABLE_PATIENCE;
use super::super::core::table::Address;
use super::super::report;
use super::tunnels::{State, Tunnel, session_id};
use super::{RouteDoor, RouteSource};
use crate::mux::core::StreamId;
use crate::reactor::{Context, Key, SourceKind};
use crate::relay::direction::Event as Moved;
use crate::relay::endpoint::Endpoint as _;

/// The most sessions whose handshakes are not done.
const MOST_STRANGERS: usize = 256;
/// The owner of the stream that brings the handshake. No route has this number.
pub(super) const HANDSHAKE: u64 = u64::MAX;
/// The number of reads of the handshake's stream in a turn.
const READS_PER_TURN: usize = 16;

/// The outcome of reading the stream of a handshake.
enum Taken {
    Nothing,
    /// More may be there.
    More,
    /// The secret is complete.
    Secret,
    Refused(String),
}

impl RouteDoor {
    /// Gives the oldest of the sessions up whose handshakes are not done, if they are too many.
    pub(super) fn make_room_for_strangers(&mut self, cx: &mut Context<'_>) {
        let list = &self.sessions.list;
        let is_strange = |key: &Key| matches!(list.get(*key).map(|tunnel| &tunnel.state), Some(State::Strange { .. }));
        self.sessions.strangers.retain(is_strange);
        if self.sessions.strangers.len() > MOST_STRANGERS
            && let Some(oldest) = self.sessions.strangers.pop_front()
        {
            let why = "too many others connect, and its handshake was not complete";
            self.turn_client_away(cx, oldest, why);
        }
    }

    /// Reads the stream that brings the secret. What follows that is thrown away.
    pub(super) fn read_handshake(&mut self, cx: &mut Context<'_>, key: Key, stream: StreamId) {
        let mut piece = cx.lend_buffer();
        let taken = match self.sessions.list.get_mut(key) {
            Some(tunnel) => tunnel.take_handshake(stream, &mut piece, cx.now() + TABLE_PATIENCE),
            None => Taken::Nothing,
        };
        cx.return_buffer(piece);
        match taken {
            Taken::Nothing => {}
            Taken::More => cx.resume_later(RouteSource::Tunnel.at(key)),
            // It waits for the store, as long as that is awaited.
            Taken::Secret if self.router.awaits_store() && !self.is_known(key) => {}
            Taken::Secret => self.judge_client(cx, key),
            Taken::Refused(why) => self.turn_client_away(cx, key, &why),
        }
    }

    fn is_known(&self, key: Key) -> bool {
        match self.sessions.list.get(key).map(|tunnel| &tunnel.state) {
            Some(State::Undecided { secret, .. }) => self.router.tables().served_with(secret).is_some(),
            Some(State::Strange { .. } | State::Serving | State::Over) | None => false,
        }
    }

    /// Lets a client serve whose secret a service has, or refuses it.
    pub(super) fn judge_client(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(tunnel) = self.sessions.list.get_mut(key) else {
            return;
        };
        let State::Undecided { secret, .. } = &tunnel.state else {
            return;
        };
        let secret = secret.clone();
        let Some((first, others)) = self.router.tables().served_with(&secret) else {
            return self.turn_client_away(cx, key, "no service has its secret");
        };
        let names = names(first, others);
        let origin = &tunnel.origin;
        let line = format!("tunnel client {origin} is connected, and serves {names}");
        tunnel.state = State::Serving;
        let address = Address::Tunnel(origin.client().unwrap_or(origin.peer).to_string().into());
        self.router
            .tunnels_mut()
            .enter(session_id(key), secret, Arc::new(address));
        self.front
            .note(cx, Level::Info, report::TUNNEL_BEGUN, format_args!("{line}"));
        let is_gone_away = tunnel.session.is_gone_away();
        self.wake_expectants(cx);
        if is_gone_away {
            self.router.tunnels_mut().note_gone_away(session_id(key), cx.now());
        }
    }

    /// Lets the routes go on that have waited for a tunnel client, if one has come.
    pub(super) fn wake_expectants(&mut self, cx: &mut Context<'_>) {
        while let Some(route) = self.router.next_expectant() {
            cx.resume_later(RouteSource::Route.at(Key::from_bits(route.0)));
        }
    }

    /// Judges the clients that have waited for the first reading of the store.
    pub(super) fn judge_undecided_clients(&mut self, cx: &mut Context<'_>) {
        let is_undecided =
            |(key, tunnel): (Key, &Tunnel)| matches!(tunnel.state, State::Undecided { .. }).then_some(key);
        let keys: Vec<Key> = self.sessions.list.iter().filter_map(is_undecided).collect();
        for key in keys {
            self.judge_client(cx, key);
        }
    }

    /// Tells the log of the clients that the present tables have left without a name. They stay: another table may have
    /// one for them again.
    pub(super) fn look_at_secrets(&mut self, cx: &mut Context<'_>) {
        if !std::mem::take(&mut self.sessions.has_new_secrets) {
            return;
        }
        let mut lines = Vec::new();
        for (key, tunnel) in self.sessions.list.iter() {
            let secret = self.router.tunnels().secret(session_id(key));
            if secret.is_some_and(|secret| self.router.tables().served_with(secret).is_none()) {
                lines.push(format!(
                    "no service has the secret of tunnel client {} any more",
                    tunnel.origin
                ));
            }
        }
        for line in lines {
            self.front.note(cx, Level::Warn, report::TUNNEL, format_args!("{line}"));
        }
    }

    /// Refuses a client that has not served.
    pub(super) fn turn_client_away(&mut self, cx: &mut Context<'_>, key: Key, why: &str) {
        let Some(tunnel) = self.sessions.list.get_mut(key) else {
            return;
        };
        self.tunnel_counts.refused += 1;
        tunnel.session.go_away();
        let line = format!("refused tunnel client {}: {why}", tunnel.origin);
        self.front
            .note(cx, Level::Warn, report::TUNNEL_REFUSED, format_args!("{line}"));
        self.drop_session(cx, key);
    }
}

impl Tunnel {
    /// Reads what is there of the stream of the handshake. A client whose secret is complete is undecided from then on,
    /// until that time at most.
    fn take_handshake(&mut self, stream: StreamId, piece: &mut [u8], until: Instant) -> Taken {
        let Tunnel {
            session,
            state,
            handshake: place,
            ..
        } = self;
        let mut is_complete = false;
        for _ in 0..READS_PER_TURN {
            match (session.end_of(stream).read(piece), &mut *state) {
                (Ok(count), State::Strange { handshake, .. }) => {
                    match handshake.take(piece.get(..count).unwrap_or_default()) {
                        Ok(None) => {}
                        Ok(Some(secret)) => {
                            // The original closes its half, and never answers.
                            session.end_of(stream).say_end();
                            (*state, is_complete) = (State::Undecided { secret, until }, true);
                        }
                        Err(fault) => return Taken::Refused(fault.to_string()),
                    }
                }
                (Ok(_), _) => {}
                (Err(Moved::SourceEmpty), _) if is_complete => return Taken::Secret,
                (Err(Moved::SourceEmpty), _) => return Taken::Nothing,
                (Err(outcome), state) => {
                    *place = None;
                    session.release(stream, None);
                    return match state {
                        _ if is_complete => Taken::Secret,
                        // The session is over, which is told.
                        _ if outcome != Moved::SourceEnded && session.is_over() => Taken::Nothing,
                        State::Strange { .. } => Taken::Refused(Fault::Short.to_string()),
                        State::Undecided { .. } | State::Serving | State::Over => Taken::Nothing,
                    };
                }
            }
        }
        // Behind the secret nothing is wanted, so the rest is read when more comes.
        if is_complete { Taken::Secret } else { Taken::More }
    }

    /// The client has opened a stream: the first is that of its handshake, and no other is wanted.
    pub(super) fn take_stream(&mut self, stream: StreamId) {
        match &self.state {
            State::Strange { .. } if self.handshake.is_none() => {
                self.handshake = Some(stream);
                self.session.accept(stream, HANDSHAKE);
            }
            State::Strange { .. } | State::Undecided { .. } | State::Serving | State::Over => {
                self.session.refuse(stream);
            }
        }
    }
}

/// The names that a client serves, for the log.
fn names(first: &str, others: usize) -> String {
    match others {
        0 => format!("{first:?}"),
        1 => format!("{first:?} and 1 other name"),
        _ => format!("{first:?} and {others} other names"),
    }
}
