//! The tunnel clients that serve names: each has a session, over which the door opens a stream for each connection.
//!
//! The life of a session here: it [enters](Tunnels::enter) when its handshake has brought the secret of a service, is
//! chosen for connections ([`Tunnels::choose`]) until it has gone away, and [leaves](Tunnels::leave) when it is over. Each
//! connection has a stream of its session until it gives that back ([`Tunnels::release`]).
//!
//! Of several sessions with one secret the one with the fewest streams is chosen, and of equals the one that has come
//! last: it is the one whose path was proved last. One that owes an answer to a ping is suspect, and chosen only if every
//! other one is.
//!
//! A service that had a session a moment ago is [expected](Tunnels::expect) to have one again: until then its connections
//! may wait, in the order in which they have come, and are [named](Tunnels::next_expectant) when one has come.
//!
//! The invariants:
//! - A choice costs in proportion to the sessions with its secret, and not to those with others.
//! - A stream that was chosen is given back once. Of a session that has left nothing is left.
//!
//! The tables, which say which secrets are known, and the wire do not belong here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::RouteId;
use super::secrets::{Secret, Tunnel};
use super::table::Address;
use crate::doors::waiters::{Ticket, Waiters};

/// The number of secrets of which it may be known at least that their sessions have left.
const FEW: usize = 64;

/// A session, named by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

#[derive(Debug)]
struct Session {
    id: SessionId,
    /// The place of its client, for the log.
    address: Arc<Address>,
    /// The connections that have a stream of it.
    streams: usize,
    /// It takes no more streams.
    has_gone_away: bool,
    /// It owes the answer to a ping.
    is_suspect: bool,
    /// Another process has it, to which connections are passed on.
    is_elsewhere: bool,
}

impl Session {
    /// The order of choice, the best first. Of equals the last in the list comes first.
    fn rank(&self) -> (bool, bool, usize) {
        (self.is_elsewhere, self.is_suspect, self.streams)
    }
}

/// The sessions of a door. See the module.
#[derive(Debug, Default)]
pub struct Tunnels {
    /// The sessions with each secret, in the order in which they have come. No list is empty.
    by_secret: HashMap<Secret, Vec<Session>>,
    /// The secret of each session.
    secrets: HashMap<SessionId, Secret>,
    /// The streams of all sessions.
    streams: usize,
    /// The time for which a client is expected to come back.
    patience: Duration,
    /// The time until which a client is expected with any secret.
    all_until: Option<Instant>,
    /// The secrets whose last session has left or gone away, and when. Those of long ago are dropped now and then.
    left: HashMap<Secret, Instant>,
    /// The number of entries above which that is done.
    most_left: usize,
    /// The connections that wait, by the secrets. No list is empty.
    expecting: HashMap<Secret, Waiters<RouteId>>,
    /// The secrets with which a session has come while connections waited.
    came: VecDeque<Secret>,
    /// The secrets with which a first session has come, or the last one has left, if that is to be told.
    changed: Option<VecDeque<Secret>>,
}

impl Tunnels {
    /// Takes in a session whose client has presented this secret. It has a new id.
    pub fn enter(&mut self, id: SessionId, secret: Secret, address: Arc<Address>) {
        self.add(id, secret, address, false);
    }

    /// Takes in that another process has sessions with this secret, to which connections are passed on while there are none
    /// here. They have a new id together.
    pub fn enter_elsewhere(&mut self, id: SessionId, secret: Secret, address: Arc<Address>) {
        self.add(id, secret, address, true);
    }

    /// Takes in that another process has none any more with the secret of this id. Connections that are there go on.
    pub fn leave_elsewhere(&mut self, id: SessionId, now: Instant) {
        self.note_gone_away(id, now);
        self.tidy(id, now);
    }

    /// Forgets the sessions of another process that are gone, and have no connections.
    fn tidy(&mut self, id: SessionId, now: Instant) {
        let is_done = |session: &mut Session| session.is_elsewhere && session.has_gone_away && session.streams == 0;
        if self.get_mut(id).is_some_and(is_done) {
            self.leave(id, now);
        }
    }

    fn add(&mut self, id: SessionId, secret: Secret, address: Arc<Address>, is_elsewhere: bool) {
        if self.serving(&secret) == 0
            && let Some(changed) = &mut self.changed
        {
            changed.push_back(secret.clone());
        }
        self.secrets.insert(id, secret.clone());
        self.left.remove(&secret);
        if self.expecting.contains_key(&secret) {
            self.came.push_back(secret.clone());
        }
        self.by_secret.entry(secret).or_default().push(Session {
            id,
            address,
            streams: 0,
            has_gone_away: false,
            is_suspect: false,
            is_elsewhere,
        });
    }

    /// Chooses a session for a connection, which has a stream of it until [`release`](Self::release). `tried` is the one
    /// that could not open it. Returns `None` if there is none besides that.
    pub fn choose(&mut self, tunnel: &Tunnel, tried: Option<SessionId>) -> Option<(SessionId, Arc<Address>)> {
        let sessions = self.by_secret.get_mut(&tunnel.secret)?;
        let takes_streams = sessions.iter_mut().rev().filter(|session| !session.has_gone_away);
        let session = if tunnel.takes_newest_alone {
            takes_streams
                .min_by_key(|session| session.is_elsewhere)
                .filter(|session| Some(session.id) != tried)
        } else {
            takes_streams
                .filter(|session| Some(session.id) != tried)
                .min_by_key(|session| session.rank())
        }?;
        session.streams += 1;
        self.streams += 1;
        Some((session.id, Arc::clone(&session.address)))
    }

    /// Gives the stream of a session back. Must be called once for each choice, before the session leaves.
    pub fn release(&mut self, id: SessionId, now: Instant) {
        if let Some(session) = self.get_mut(id) {
            session.streams = session.streams.saturating_sub(1);
            self.streams = self.streams.saturating_sub(1);
            self.tidy(id, now);
        }
    }

    /// Has every secret told from now on with which a first session comes, or the last one leaves. The secrets that are
    /// served now are told first.
    pub fn tell_changes(&mut self) {
        let serving = self.by_secret.keys().filter(|secret| self.serving(secret) > 0);
        self.changed = Some(serving.cloned().collect());
    }

    /// Ends that.
    pub fn tell_no_changes(&mut self) {
        self.changed = None;
    }

    /// Returns the next secret that may be served or not since the last time, and whether it is.
    pub fn next_change(&mut self) -> Option<(Secret, bool)> {
        let secret = self.changed.as_mut()?.pop_front()?;
        let is_served = self.serving(&secret) > 0;
        Some((secret, is_served))
    }

    /// Takes note that a session takes no more streams. The present ones go on.
    pub fn note_gone_away(&mut self, id: SessionId, now: Instant) {
        if let Some(session) = self.get_mut(id)
            && !std::mem::replace(&mut session.has_gone_away, true)
        {
            self.note_left(id, now);
        }
    }

    /// Takes note of the time, if a session was the last one with its secret that takes streams.
    fn note_left(&mut self, id: SessionId, now: Instant) {
        let Some(secret) = self.secrets.get(&id) else { return };
        if self.serving(secret) > 0 {
            return;
        }
        let secret = secret.clone();
        if let Some(changed) = &mut self.changed {
            changed.push_back(secret.clone());
        }
        self.left.insert(secret, now);
        if self.left.len() > self.most_left {
            let patience = self.patience;
            self.left.retain(|_, at| *at + patience > now);
            self.most_left = (2 * self.left.len()).max(FEW);
        }
    }

    /// Takes note that a session owes the answer to a ping, or has given it.
    pub fn note_suspect(&mut self, id: SessionId, is_suspect: bool) {
        if let Some(session) = self.get_mut(id) {
            session.is_suspect = is_suspect;
        }
    }

    /// Takes a session out that is over. Every connection must have given its stream back. Does nothing for a session that
    /// has not entered.
    pub fn leave(&mut self, id: SessionId, now: Instant) {
        self.note_gone_away(id, now);
        let Some(secret) = self.secrets.remove(&id) else { return };
        if let Some(sessions) = self.by_secret.get_mut(&secret) {
            if let Some(session) = sessions.iter().find(|session| session.id == id) {
                debug_assert_eq!(session.streams, 0, "every stream was given back");
                self.streams = self.streams.saturating_sub(session.streams);
            }
            sessions.retain(|session| session.id != id);
            if sessions.is_empty() {
                self.by_secret.remove(&secret);
            }
        }
    }

    /// Sets the time for which a client is expected to come back.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Expects clients with every secret from now on, as at the start of a door.
    pub fn expect_all(&mut self, now: Instant) {
        self.all_until = Some(now + self.patience);
    }

    /// Lets a connection wait for a session with this secret, if one is expected: returns its place, and the time until
    /// which it may wait.
    pub fn expect(&mut self, secret: &Secret, route: RouteId, now: Instant) -> Option<(Ticket, Instant)> {
        let until = self
            .left
            .get(secret)
            .map(|at| *at + self.patience)
            .max(self.all_until)?;
        (until > now).then(|| (self.expect_on(secret, route), until))
    }

    /// Lets a connection wait on, for which a session had come that has left again.
    pub fn expect_on(&mut self, secret: &Secret, route: RouteId) -> Ticket {
        self.expecting.entry(secret.clone()).or_default().push(route)
    }

    /// Takes a connection out that waits. Does nothing for one that was named.
    pub fn expect_no_longer(&mut self, secret: &Secret, ticket: Ticket) {
        if let Some(waiters) = self.expecting.get_mut(secret) {
            waiters.remove(ticket);
            if waiters.is_empty() {
                self.expecting.remove(secret);
            }
        }
    }

    /// Returns the next connection for which a session has come.
    pub fn next_expectant(&mut self) -> Option<RouteId> {
        while let Some(secret) = self.came.front() {
            if let Some(route) = self.expecting.get_mut(secret).and_then(Waiters::pop) {
                return Some(route);
            }
            self.expecting.remove(secret);
            self.came.pop_front();
        }
        None
    }

    /// Returns the number of connections that wait.
    pub fn expecting(&self) -> usize {
        self.expecting.values().map(Waiters::len).sum()
    }

    /// Returns the secret of a session that has entered.
    pub fn secret(&self, id: SessionId) -> Option<&Secret> {
        self.secrets.get(&id)
    }

    /// Returns the number of sessions with this secret that take streams.
    pub fn serving(&self, secret: &Secret) -> usize {
        let sessions = self.by_secret.get(secret).into_iter().flatten();
        sessions.filter(|session| !session.has_gone_away).count()
    }

    /// Returns the number of connections that have a stream.
    pub fn streams(&self) -> usize {
        self.streams
    }

    fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        let sessions = self.by_secret.get_mut(self.secrets.get(&id)?)?;
        sessions.iter_mut().find(|session| session.id == id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Instant {
        Instant::now()
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes()).unwrap()
    }

    fn tunnel(text: &str) -> Tunnel {
        Tunnel {
            secret: secret(text),
            takes_newest_alone: false,
        }
    }

    /// Sessions 1, 2, ... with these secrets.
    fn tunnels(secrets: &[&str]) -> Tunnels {
        let mut tunnels = Tunnels::default();
        for (id, text) in (1..).zip(secrets) {
            tunnels.enter(SessionId(id), secret(text), Address::Tunnel("a".into()).into());
        }
        tunnels
    }

    fn chosen(tunnels: &mut Tunnels, tunnel: &Tunnel) -> Option<u64> {
        tunnels.choose(tunnel, None).map(|(SessionId(id), _)| id)
    }

    #[test]
    fn a_session_serves_the_names_with_its_secret_and_no_others() {
        let mut tunnels = tunnels(&["a", "b"]);
        assert_eq!(chosen(&mut tunnels, &tunnel("a")), Some(1));
        assert_eq!(chosen(&mut tunnels, &tunnel("b")), Some(2));
        assert_eq!(chosen(&mut tunnels, &tunnel("c")), None);
        assert_eq!((tunnels.secrets.len(), tunnels.streams()), (2, 2));
    }

    #[test]
    fn sessions_with_one_secret_share_the_streams_and_the_newest_is_first() {
        let mut tunnels = tunnels(&["a", "a", "a"]);
        let order: Vec<_> = (0..6).map(|_| chosen(&mut tunnels, &tunnel("a"))).collect();
        assert_eq!(order, [3, 2, 1, 3, 2, 1].map(Some));
        tunnels.release(SessionId(2), now());
        assert_eq!(chosen(&mut tunnels, &tunnel("a")), Some(2));
    }

    #[test]
    fn the_newest_alone_serves_a_name_that_wants_it_so() {
        let mut tunnels = tunnels(&["a", "a"]);
        let newest = Tunnel {
            takes_newest_alone: true,
            ..tunnel("a")
        };
        for _ in 0..3 {
            assert_eq!(chosen(&mut tunnels, &newest), Some(2));
        }
        assert!(tunnels.choose(&newest, Some(SessionId(2))).is_none());
        tunnels.note_gone_away(SessionId(2), now());
        assert_eq!(chosen(&mut tunnels, &newest), Some(1));
    }

    #[test]
    fn a_suspect_session_is_chosen_last_and_one_that_has_gone_away_is_not() {
        let mut tunnels = tunnels(&["a", "a"]);
        tunnels.note_suspect(SessionId(2), true);
        assert_eq!(chosen(&mut tunnels, &tunnel("a")), Some(1));
        assert_eq!(chosen(&mut tunnels, &tunnel("a")), Some(1));
        tunnels.note_gone_away(SessionId(1), now());
        assert_eq!(chosen(&mut tunnels, &tunnel("a")), Some(2));
        assert_eq!(tunnels.serving(&secret("a")), 1);
        tunnels.note_gone_away(SessionId(2), now());
        assert_eq!(chosen(&mut tunnels, &tunnel("a")), None);
    }

    #[test]
    fn another_session_is_tried_after_one_that_has_failed() {
        let mut tunnels = tunnels(&["a", "a"]);
        assert_eq!(chosen(&mut tunnels, &tunnel("a")), Some(2));
        let other = tunnels.choose(&tunnel("a"), Some(SessionId(2)));
        assert_eq!(other.map(|(id, _)| id), Some(SessionId(1)));
    }

    #[derive(Debug, Clone)]
    enum Deed {
        Enter(u8),
        Choose(u8),
        Release(usize),
        GoAway(usize),
        Suspect(usize, bool),
        Leave(usize),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            (0..3u8).prop_map(Deed::Enter),
            (0..3u8).prop_map(Deed::Choose),
            (0..3u8).prop_map(Deed::Choose),
            any::<usize>().prop_map(Deed::Release),
            any::<usize>().prop_map(Deed::GoAway),
            (any::<usize>(), any::<bool>()).prop_map(|(index, is)| Deed::Suspect(index, is)),
            any::<usize>().prop_map(Deed::Leave),
        ]
    }

    /// A session of the model: its secret, its streams, and what was noted.
    #[derive(Debug, Clone)]
    struct Shadow {
        id: SessionId,
        secret: u8,
        streams: usize,
        has_gone_away: bool,
        is_suspect: bool,
    }

    proptest! {
        /// Against a list of all sessions, in which each is looked for from the end.
        #[test]
        fn the_best_session_is_chosen_and_every_stream_is_counted(deeds in prop::collection::vec(deed(), 0..80)) {
            let mut tunnels = Tunnels::default();
            let mut model: Vec<Shadow> = Vec::new();
            let text = |secret: u8| secret.to_string();
            for (next, deed) in deeds.into_iter().enumerate() {
                let index = |at: usize| (!model.is_empty()).then(|| at % model.len().max(1));
                match deed {
                    Deed::Enter(of) => {
                        let id = SessionId(u64::try_from(next).unwrap());
                        tunnels.enter(id, secret(&text(of)), Address::Tunnel("a".into()).into());
                        model.push(Shadow { id, secret: of, streams: 0, has_gone_away: false, is_suspect: false });
                    }
                    Deed::Choose(of) => {
                        let candidates = model.iter_mut().rev().filter(|shadow| shadow.secret == of && !shadow.has_gone_away);
                        let best = candidates.min_by_key(|shadow| (shadow.is_suspect, shadow.streams));
                        let chosen = tunnels.choose(&tunnel(&text(of)), None).map(|(id, _)| id);
                        prop_assert_eq!(chosen, best.as_ref().map(|shadow| shadow.id));
                        if let Some(best) = best {
                            best.streams += 1;
                        }
                    }
                    Deed::Release(at) => {
                        if let Some(shadow) = index(at).map(|at| &mut model[at]).filter(|shadow| shadow.streams > 0) {
                            shadow.streams -= 1;
                            tunnels.release(shadow.id, now());
                        }
                    }
                    Deed::GoAway(at) => {
                        if let Some(at) = index(at) {
                            model[at].has_gone_away = true;
                            tunnels.note_gone_away(model[at].id, now());
                        }
                    }
                    Deed::Suspect(at, is_suspect) => {
                        if let Some(at) = index(at) {
                            model[at].is_suspect = is_suspect;
                            tunnels.note_suspect(model[at].id, is_suspect);
                        }
                    }
                    Deed::Leave(at) => {
                        if let Some(at) = index(at) {
                            let shadow = model.remove(at);
                            (0..shadow.streams).for_each(|_| tunnels.release(shadow.id, now()));
                            tunnels.leave(shadow.id, now());
                        }
                    }
                }
                prop_assert_eq!(tunnels.secrets.len(), model.len());
                prop_assert_eq!(tunnels.streams(), model.iter().map(|shadow| shadow.streams).sum::<usize>());
                let lists: usize = tunnels.by_secret.values().map(Vec::len).sum();
                prop_assert_eq!(lists, model.len());
                prop_assert!(tunnels.by_secret.values().all(|list| !list.is_empty()));
            }
        }
    }
}
