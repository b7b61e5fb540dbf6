//! All connected clients and their exchanges: one table each, and what is kept from one to the next.
//!
//! `intake` takes requests in, `multiplexed` has the lines of connections on which many are under way, `transcode` writes them in the worker's framing, `coalescing` answers requests that need
//! no worker of their own, `waiting` watches their clients, `respond` answers them and closes connections.

pub(crate) mod client;
mod coalescing;
pub(crate) mod exchange;
pub(crate) mod intake;
mod multiplexed;
mod respond;
mod transcode;
mod waiting;

use mio::Interest;

use crate::doors::pool::cache::{Cache, CacheLimits};
use crate::doors::pool::core::{ClientId, RequestId};
use crate::doors::pool::options::Options;
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::shell::desk::Desk;
use crate::doors::pool::shell::sessions::session::Session;
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Alarm, Key, SourceKind};
use client::{After, Client, Kind, Phase};
use exchange::{Asker, Bytes, Exchange, Exchanges, QueuePlace, State};

/// Buffers of requests and answers kept for the next, the largest worth keeping, and what all of them may hold.
const SPARE_BUFFERS: usize = 1024;
const SPARE_CAPACITY: usize = 64 * 1024;
const SPARE_BYTES: usize = 1024 * 1024;

/// All connected clients.
#[derive(Debug)]
pub(crate) struct Clients {
    table: GenerationalSlab<Client>,
    exchanges: Exchanges,
    pub(crate) cache: Cache,
    /// Clients with output that is to be written at the end of the turn.
    unflushed: Vec<Key>,
    /// Clients whose output waits for the end of the next turn.
    held_back: Vec<Key>,
    /// Clients whose alarm and registration are to be brought in line with their state at the end of the step.
    touched: Vec<Key>,
    /// Requests that have begun to wait for a worker lately, and perhaps do no longer.
    unwatched: Vec<ClientId>,
    /// The time to watch the clients of requests that still wait.
    queue_alarm: Alarm,
    spare: Spare,
    /// The number of multiplexed connections.
    multiplexed: usize,
}

/// The last thing that is written to a connection which another room has served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    Nothing,
    Refusal,
}

/// Empty buffers.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Clients {
    pub(crate) fn new(cache: Option<CacheLimits>) -> Self {
        Clients {
            table: GenerationalSlab::default(),
            exchanges: Exchanges::default(),
            cache: Cache::new(cache),
            unflushed: Vec::new(),
            held_back: Vec::new(),
            touched: Vec::new(),
            unwatched: Vec::new(),
            queue_alarm: Alarm::default(),
            spare: Spare::default(),
            multiplexed: 0,
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Client> {
        self.table.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Client> {
        self.table.get_mut(key)
    }

    /// The client of a request.
    pub(crate) fn of(&self, id: ClientId) -> Option<&Client> {
        self.get(self.key_of(id)?)
    }

    pub(crate) fn key_of(&self, id: ClientId) -> Option<Key> {
        Some(self.exchanges.get(id)?.asker?.client)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Applies the options of a reload to the connections that there are.
    pub(crate) fn reload(&mut self, options: &Options) {
        self.cache.set_limits(options.cache.as_ref().map(|cache| cache.limits));
        for key in self.keys() {
            match self.get_mut(key) {
                Some(Client { kind, .. }) if !kind.is_multiplexed() => *kind = Kind::accepted(options),
                // It keeps the limits that its client was told.
                _ => {}
            }
        }
    }

    /// Returns true if a client still has something to get: not merely lingers.
    pub(crate) fn any_unserved(&self) -> bool {
        self.table
            .iter()
            .any(|(_, client)| !matches!(client.phase, Phase::Lingering))
    }

    /// The number of multiplexed connections.
    pub(crate) fn multiplexed(&self) -> usize {
        self.multiplexed
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.table.iter().map(|(key, _)| key).collect()
    }

    pub(crate) fn has_unflushed(&self) -> bool {
        !self.unflushed.is_empty()
    }

    /// Returns true if output waits for the end of the next turn.
    pub(crate) fn has_held_back(&self) -> bool {
        !self.held_back.is_empty()
    }

    /// Has the output that was held back in the turn before written in this one. Must be called once at the end of each
    /// turn, before clients are flushed.
    pub(crate) fn stop_holding_back(&mut self) {
        self.unflushed.append(&mut self.held_back);
    }

    /// Notes that something has changed about a client. Must be called after every change of what it waits for.
    pub(crate) fn touch(&mut self, key: Key) {
        if self.touched.last() != Some(&key) {
            self.touched.push(key);
        }
    }

    /// Takes a client from the list of clients that were [touched](Self::touch).
    pub(crate) fn next_touched(&mut self) -> Option<Key> {
        self.touched.pop()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Client)> {
        self.table.iter()
    }

    /// The unanswered requests of a client, the oldest first.
    pub(crate) fn owed(&self, client: &Client) -> impl Iterator<Item = &Exchange> {
        self.exchanges.of(&client.owed)
    }

    /// The bytes of a request that has no answer yet.
    pub(crate) fn request_bytes(&self, id: ClientId) -> Option<&[u8]> {
        Some(&self.exchanges.asked(id)?.bytes)
    }

    /// Returns true if every request belongs to a client that is there.
    pub(crate) fn is_consistent(&self) -> bool {
        self.len() > 0 || (self.exchanges.is_empty() && self.cache.is_idle())
    }

    /// The dispatcher has named a request, and says where it is. `false`: its client has gone.
    pub(crate) fn set_request(&mut self, id: ClientId, named: RequestId, place: QueuePlace) -> bool {
        let asked = self.exchanges.asked_mut(id);
        asked
            .map(|asked| (asked.request, asked.queue) = (Some(named), place))
            .is_some()
    }

    /// A copy of some bytes in a buffer that has served before, where there is one.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut copy = self.spare.take();
        copy.extend_from_slice(bytes);
        copy
    }

    /// Takes in the connection of a session, which is counted already and has nothing more to ask: it gets its
    /// farewell, and is closed.
    pub(crate) fn adopt_finished(&mut self, desk: &mut Desk<'_>, session: Session, farewell: Farewell) {
        let Session {
            conn,
            origin,
            stage,
            is_watched,
            ..
        } = session;
        // Our ends of the worker's streams are closed here, before anything else happens to it.
        drop(stage);
        let Some(key) = self.add(desk, conn, origin) else {
            return;
        };
        let Some(client) = self.get_mut(key) else { return };
        client.phase = Phase::Finishing(After::LookForInput);
        if is_watched {
            let (token, interest) = (
                desk.cx.token_for(PoolSource::Client.at(key)),
                Interest::READABLE | Interest::WRITABLE,
            );
            // An error would mean that it is not registered after all: then it will be when it has to be.
            if desk.cx.registry().reregister(&mut client.conn, token, interest).is_ok() {
                client.is_watched = true;
            }
        }
        match farewell {
            Farewell::Nothing => self.lingering_close(desk, key, After::LookForInput),
            Farewell::Refusal => self.send_refusal(desk, Asker::in_order(key)),
        }
    }

    /// Keeps the buffer of a state for the next, where it was its own.
    pub(crate) fn keep_bytes_of(&mut self, state: State) {
        if let Some(Bytes::Own(buffer)) = state.into_bytes() {
            self.spare.keep(buffer);
        }
    }
}

impl Spare {
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        let has_room = self.buffers.len() < SPARE_BUFFERS && self.bytes + capacity <= SPARE_BYTES;
        if capacity > 0 && capacity <= SPARE_CAPACITY && has_room {
            buffer.clear();
            self.bytes += capacity;
            self.buffers.push(buffer);
        }
    }
}
