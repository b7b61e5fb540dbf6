//! All connected clients and their exchanges: one table each, and what is kept from one to the next.
//!
//! Reading them is `intake`'s, answering them and letting them go `respond`'s, their time with the dispatcher `waiting`'s.

pub(in crate::doors::pool::shell) mod client;
pub(in crate::doors::pool::shell) mod coalescing;
pub(in crate::doors::pool::shell) mod exchange;
pub(in crate::doors::pool::shell) mod intake;
pub(in crate::doors::pool::shell) mod outgoing;
pub(in crate::doors::pool::shell) mod respond;
pub(in crate::doors::pool::shell) mod transcode;
pub(in crate::doors::pool::shell) mod waiting;

use std::time::Instant;

use crate::doors::pool::core::{ClientId, RequestId};
use crate::framing::Framing;
use crate::net::limits::ConnectionCount;
use crate::net::origin::Origin;
use crate::net::stream::Stream;
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Alarm, Key};
use client::{After, Client, Phase, Watch};
use exchange::{Bytes, Exchange, Exchanges, Owed, QueuePlace, State};
use outgoing::Outgoing;

/// Buffers of requests and answers kept for the next, the largest worth keeping, and what all of them may hold.
const SPARE_BUFFERS: usize = 1024;
const SPARE_CAPACITY: usize = 64 * 1024;
const SPARE_BYTES: usize = 1024 * 1024;

/// All connected clients.
#[derive(Debug)]
pub(in crate::doors::pool::shell) struct Clients {
    pub(in crate::doors::pool::shell) table: GenerationalSlab<Client>,
    pub(in crate::doors::pool::shell) exchanges: Exchanges,
    pub(in crate::doors::pool::shell) count: ConnectionCount,
    /// Those with output that is to be written at the end of the turn.
    pub(in crate::doors::pool::shell) unflushed: Vec<Key>,
    /// Clients whose alarm and registration are to be brought in line with their state at the end of the step.
    pub(in crate::doors::pool::shell) touched: Vec<Key>,
    /// Those that have begun to wait for a worker lately, and perhaps do no longer.
    pub(in crate::doors::pool::shell) unwatched: Vec<ClientId>,
    pub(in crate::doors::pool::shell) spare: Spare,
}

/// Empty buffers.
#[derive(Debug, Default)]
pub(in crate::doors::pool::shell) struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Clients {
    pub(in crate::doors::pool::shell) fn new(count: ConnectionCount) -> Self {
        Clients {
            table: GenerationalSlab::default(),
            exchanges: Exchanges::default(),
            count,
            unflushed: Vec::new(),
            touched: Vec::new(),
            unwatched: Vec::new(),
            spare: Spare::default(),
        }
    }

    pub(in crate::doors::pool::shell) fn get(&self, key: Key) -> Option<&Client> {
        self.table.get(key)
    }

    pub(in crate::doors::pool::shell) fn get_mut(&mut self, key: Key) -> Option<&mut Client> {
        self.table.get_mut(key)
    }

    /// Whose request that is.
    pub(in crate::doors::pool::shell) fn of(&self, id: ClientId) -> Option<&Client> {
        self.get(self.key_of(id)?)
    }

    pub(in crate::doors::pool::shell) fn key_of(&self, id: ClientId) -> Option<Key> {
        self.exchanges.get(id)?.client
    }

    pub(in crate::doors::pool::shell) fn len(&self) -> usize {
        self.table.len()
    }

    /// Those that still have something to get: not merely lingering.
    pub(in crate::doors::pool::shell) fn any_unserved(&self) -> bool {
        self.table
            .iter()
            .any(|(_, client)| !matches!(client.phase, Phase::Lingering { .. }))
    }

    pub(in crate::doors::pool::shell) fn keys(&self) -> Vec<Key> {
        self.table.iter().map(|(key, _)| key).collect()
    }

    pub(in crate::doors::pool::shell) fn has_unflushed(&self) -> bool {
        !self.unflushed.is_empty()
    }

    /// Notes that something has changed about a client. Must be called after every change of what it waits for.
    pub(in crate::doors::pool::shell) fn touch(&mut self, key: Key) {
        if self.touched.last() != Some(&key) {
            self.touched.push(key);
        }
    }

    /// Takes a client out, and off the count.
    pub(in crate::doors::pool::shell) fn remove(&mut self, key: Key) -> Option<Client> {
        let client = self.table.remove(key)?;
        self.count.release(&client.origin);
        Some(client)
    }

    /// The dispatcher has named a request, and says where it is. `false`: its client has gone.
    pub(in crate::doors::pool::shell) fn set_request(
        &mut self,
        id: ClientId,
        named: RequestId,
        place: QueuePlace,
    ) -> bool {
        let Some(Exchange {
            state: State::Asked { request, queue, .. },
            ..
        }) = self.exchanges.get_mut(id)
        else {
            return false;
        };
        (*request, *queue) = (Some(named), place);
        true
    }

    /// A copy of some bytes in a buffer that has served before, where there is one.
    pub(in crate::doors::pool::shell) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut copy = self.spare.take();
        copy.extend_from_slice(bytes);
        copy
    }

    /// An empty one.
    pub(in crate::doors::pool::shell) fn spare_buffer(&mut self) -> Vec<u8> {
        self.spare.take()
    }

    /// Takes in a connection that is counted already and has nothing more to ask: it is only to be parted from. `None`: there
    /// is no place for it, and it was closed.
    pub(in crate::doors::pool::shell) fn adopt_finished(
        &mut self,
        stream: Stream,
        origin: Origin,
        now: Instant,
    ) -> Option<Key> {
        let client = Client {
            stream,
            origin,
            phase: Phase::Finishing(After::LookForInput),
            framer: Framing::Eof.framer(1),
            input: Vec::new(),
            owed: Owed::default(),
            output: Outgoing::default(),
            accepted: now,
            active: now,
            read_by: now,
            write_by: now,
            alarm: Alarm::default(),
            watch: Watch::NotYet,
        };
        match self.table.insert(client) {
            Ok(key) => Some(key),
            Err(client) => {
                self.count.release(&client.origin);
                None
            }
        }
    }

    pub(in crate::doors::pool::shell) fn keep_buffer(&mut self, buffer: Vec<u8>) {
        self.spare.keep(buffer);
    }

    /// What a state has held serves the next, where it was its own.
    pub(in crate::doors::pool::shell) fn keep_bytes_of(&mut self, state: State) {
        if let Some(Bytes::Own(buffer)) = state.into_bytes() {
            self.spare.keep(buffer);
        }
    }
}

impl Spare {
    pub(in crate::doors::pool::shell) fn take(&mut self) -> Vec<u8> {
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
