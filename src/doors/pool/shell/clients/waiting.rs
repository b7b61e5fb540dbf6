//! Clients whose requests are with the dispatcher: noticed when they go, and not asked for more than need be.

use std::time::Duration;

use super::Clients;
use super::client::Client;
use super::exchange::{Asker, QueuePlace, State};
use crate::doors::pool::core::{ClientId, Event, RequestId};
use crate::doors::pool::options::{HalfClose, Options};
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::shell::desk::Desk;
use crate::net::stream::PeerState;
use crate::reactor::{Key, SourceKind};

/// A wait for a worker that is over before this needs no watching.
const UNWATCHED_WAIT: Duration = Duration::from_millis(50);
/// The room in the list of requests that have begun to wait which is kept for the next ones.
const MOST_KEPT: usize = 1024;

impl Clients {
    pub(crate) fn mark_waiting(&mut self, desk: &mut Desk<'_>, id: ClientId, request: RequestId) {
        if !self.set_request(id, request, QueuePlace::Waiting) {
            // It has gone in this very turn, before the dispatcher had a name for its request.
            return desk.report(Event::Abandoned(request));
        }
        let client = self.of(id);
        if client.is_none_or(|client| !client.is_watched) {
            self.unwatched.push(id);
        }
        if self.queue_alarm.at().is_none() {
            let at = desk.cx.now() + UNWATCHED_WAIT;
            desk.cx
                .set_alarm(&mut self.queue_alarm, PoolSource::Queue.only(), Some(at));
        }
    }

    /// Most waits are over in a moment, and whether the client is still there is then asked once, when a worker is
    /// found for it. A client that waits longer is watched, so that its place in the queue is free again as soon as it
    /// goes. Each is looked at once: a look at the whole queue every now and then would cost the more, the longer that
    /// is.
    pub(crate) fn watch_waiting(&mut self, desk: &mut Desk<'_>) {
        desk.cx.clear_alarm(&mut self.queue_alarm);
        let mut begun = std::mem::take(&mut self.unwatched);
        for id in begun.drain(..) {
            let asked = self.exchanges.asked(id);
            let waits = asked.is_some_and(|asked| asked.queue == QueuePlace::Waiting);
            if let Some(key) = self.key_of(id).filter(|_| waits) {
                self.watch(desk, key);
            }
        }
        // Its memory serves again, unless that was for a rush that is over.
        begun.shrink_to(MOST_KEPT);
        if self.unwatched.is_empty() {
            self.unwatched = begun;
        }
    }

    /// Returns true if a client whose turn has come after a wait has gone meanwhile. A client that is watched is asked
    /// too: its end may stand further down in the very list of events that has made its worker free. Not so a
    /// connection that stays: there is an event for its end, and to ask would cost a system call for each of its many
    /// requests.
    pub(crate) fn has_left(&self, options: &Options, id: ClientId) -> bool {
        let Some(exchange) = self.exchanges.get(id) else {
            return true;
        };
        let Some(Asker { client: key, .. }) = exchange.asker else {
            // Gone it has, but others wait for what it has asked.
            return false;
        };
        let Some(client) = self.get(key) else {
            return true;
        };
        if client.kind.kept().is_some() && client.is_watched {
            return false;
        }
        let waited = matches!(&exchange.state, State::Asked(asked) if asked.queue == QueuePlace::Waiting);
        waited && means_gone(client, options, client.conn.socket().peer_state())
    }

    /// Notes that a worker is found for a request. Returns false if the worker is not to be given it, because its
    /// client has gone and no other waits for the answer.
    pub(crate) fn start_request(&mut self, desk: &mut Desk<'_>, id: ClientId, request: RequestId) -> bool {
        if self.has_left(desk.options, id) {
            // Or the close would report it as abandoned to a worker that works on it.
            if let Some(asked) = self.exchanges.asked_mut(id) {
                asked.request = None;
            }
            if let Some(key) = self.key_of(id) {
                self.close(desk, key);
            }
            if self.exchanges.get(id).is_none() {
                desk.report(Event::Withdrawn(request));
                return false;
            }
        }
        self.set_request(id, request, QueuePlace::WithWorker);
        true
    }

    /// Brings alarm and registration of a client in line with what is waited for. The alarm is never put off, only
    /// brought forward: a client that asks again and again would else cost two changes of the timer queue a request.
    /// One that goes off early finds nothing due.
    pub(crate) fn settle_client(&mut self, desk: &mut Desk<'_>, key: Key) {
        let Some(client) = self.get_mut(key) else {
            return;
        };
        if let Some(deadline) = client.deadline()
            && client.alarm.at().is_none_or(|armed| deadline < armed)
        {
            desk.cx
                .set_alarm(&mut client.alarm, PoolSource::Client.at(key), Some(deadline));
        }
        if client.wants_events() {
            self.watch(desk, key);
        }
    }

    /// Registers a client with the poll, or closes it if that fails.
    fn watch(&mut self, desk: &mut Desk<'_>, key: Key) {
        let Some(client) = self.table.get_mut(key) else {
            return;
        };
        let (conn, is_watched) = (&mut client.conn, &mut client.is_watched);
        if !desk.watch(PoolSource::Client.at(key), conn, &client.origin, is_watched) {
            self.close(desk, key);
        }
    }
}

/// Returns true if a client with its connection in this state counts as gone.
pub(super) fn means_gone(client: &Client, options: &Options, state: PeerState) -> bool {
    match state {
        PeerState::Connected => false,
        PeerState::HalfClosed => client.kind.half_close(options) == HalfClose::HangUp,
        PeerState::Gone => true,
    }
}
