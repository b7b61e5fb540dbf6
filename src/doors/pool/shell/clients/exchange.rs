//! One request and its answer, and the order in which a connection gets its answers: that of its requests.
//!
//! The life of an exchange: [`Exchanges::open`] when its request is whole → the dispatcher names it and finds a worker
//! → its answer comes. If all before it on its connection are answered, that answer goes out at once and the exchange
//! ends; otherwise it is kept until its turn.
//!
//! Invariants: the exchanges of one connection form a list from the oldest to the youngest, and none is in two lists.
//! The dispatcher knows an exchange as its [`ClientId`], so that answers find their way even among many on one
//! connection. No memory is owned by a connection for its list: all exchanges lie in one table.

use std::ops::Deref;
use std::rc::Rc;

use crate::doors::pool::cache::Place;
use crate::doors::pool::core::{ClientId, RequestId};
use crate::reactor::Key;
use crate::reactor::slab::GenerationalSlab;

/// A request that is not answered yet, or whose answer waits for its turn.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The client that asked. `None`: it has gone, and others wait for the answer.
    pub(crate) client: Option<Key>,
    pub(crate) state: State,
    /// The next younger one on the same connection.
    next: Option<Key>,
}

#[derive(Debug)]
pub(crate) enum State {
    /// With the dispatcher.
    Asked(Asked),
    /// Not with the dispatcher: its bytes are those of a request that is there already, and the answer is for both. It
    /// has no bytes of its own, for there may be thousands like it.
    Coalesced(Place),
    /// Its answer, which waits for those before it, or for its client to take those.
    Answered(Bytes),
}

/// A request that is with the dispatcher.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The bytes of the request, kept until the answer, for another worker may need them.
    pub(crate) bytes: Bytes,
    /// The dispatcher's name for it; `None` until the dispatcher has told it.
    pub(crate) request: Option<RequestId>,
    pub(crate) queue: QueuePlace,
}

/// The bytes of a request or of an answer.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// In a buffer of its own.
    Own(Vec<u8>),
    /// In a buffer that others keep too.
    Shared(Rc<[u8]>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Own(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
        }
    }
}

impl State {
    /// The bytes that it has held, whose buffer can serve again.
    pub(crate) fn into_bytes(self) -> Option<Bytes> {
        match self {
            State::Asked(Asked { bytes, .. }) | State::Answered(bytes) => Some(bytes),
            State::Coalesced(_) => None,
        }
    }
}

/// The place of a request, as far as its connection must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueuePlace {
    /// With a worker: the answer will find its way, or the write will tell that the client has gone.
    WithWorker,
    /// Waiting: a client that goes meanwhile is to be noticed, so that its request costs no worker anything.
    Waiting,
}

/// The exchanges of one connection: the ends of their list.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    oldest: Option<Key>,
    youngest: Option<Key>,
    count: u32,
}

impl Owed {
    pub(crate) fn count(&self) -> usize {
        self.count as usize
    }

    pub(crate) fn oldest(&self) -> Option<Key> {
        self.oldest
    }
}

/// All exchanges of a pool.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    table: GenerationalSlab<Exchange>,
}

impl Exchanges {
    pub(crate) fn get(&self, id: ClientId) -> Option<&Exchange> {
        self.table.get(Key::from_bits(id.0))
    }

    pub(crate) fn get_mut(&mut self, id: ClientId) -> Option<&mut Exchange> {
        self.table.get_mut(Key::from_bits(id.0))
    }

    /// A request that is with the dispatcher.
    pub(crate) fn asked(&self, id: ClientId) -> Option<&Asked> {
        match &self.get(id)?.state {
            State::Asked(asked) => Some(asked),
            State::Coalesced(_) | State::Answered(_) => None,
        }
    }

    pub(crate) fn asked_mut(&mut self, id: ClientId) -> Option<&mut Asked> {
        match &mut self.get_mut(id)?.state {
            State::Asked(asked) => Some(asked),
            State::Coalesced(_) | State::Answered(_) => None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// The exchanges of one connection, the oldest first.
    pub(crate) fn of(&self, owed: &Owed) -> impl Iterator<Item = &Exchange> {
        let find = |key: Option<Key>| key.and_then(|key| self.table.get(key));
        std::iter::successors(find(owed.oldest), move |exchange| find(exchange.next))
    }

    /// Opens an exchange behind all others of its connection. An error gives the state back: the table is full.
    pub(crate) fn open(&mut self, owed: &mut Owed, client: Key, state: State) -> Result<ClientId, State> {
        let exchange = Exchange {
            client: Some(client),
            state,
            next: None,
        };
        let key = self.table.insert(exchange).map_err(|exchange| exchange.state)?;
        match owed.youngest.and_then(|youngest| self.table.get_mut(youngest)) {
            Some(youngest) => youngest.next = Some(key),
            None => owed.oldest = Some(key),
        }
        owed.youngest = Some(key);
        owed.count += 1;
        Ok(ClientId(key.to_bits()))
    }

    /// Takes out the oldest of a connection.
    pub(crate) fn close_oldest(&mut self, owed: &mut Owed) -> Option<State> {
        let exchange = self.table.remove(owed.oldest?)?;
        owed.oldest = exchange.next;
        owed.count = owed.count.saturating_sub(1);
        if owed.oldest.is_none() {
            owed.youngest = None;
        }
        Some(exchange.state)
    }

    /// Takes the oldest out of the list of a connection that has gone, but keeps it: others wait for its answer.
    pub(crate) fn orphan_oldest(&mut self, owed: &mut Owed) {
        owed.oldest = owed.oldest.and_then(|oldest| {
            let exchange = self.table.get_mut(oldest)?;
            exchange.client = None;
            exchange.next.take()
        });
        owed.count = owed.count.saturating_sub(1);
    }

    /// Takes out an exchange whose connection has gone before.
    pub(crate) fn forget_orphan(&mut self, id: ClientId) {
        self.table.remove(Key::from_bits(id.0));
    }

    /// Returns true if the oldest of a connection has its answer already.
    pub(crate) fn oldest_is_answered(&self, owed: &Owed) -> bool {
        let oldest = owed.oldest.and_then(|oldest| self.table.get(oldest));
        oldest.is_some_and(|oldest| matches!(oldest.state, State::Answered(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &[u8]) -> State {
        State::Asked(Asked {
            bytes: Bytes::Own(text.to_vec()),
            request: None,
            queue: QueuePlace::WithWorker,
        })
    }

    fn connections() -> (Key, Key) {
        let mut table = GenerationalSlab::default();
        (table.insert(()).unwrap(), table.insert(()).unwrap())
    }

    fn text(state: Option<State>) -> Option<Vec<u8>> {
        state?.into_bytes().map(|bytes| bytes.to_vec())
    }

    #[test]
    fn each_connection_has_its_own_order() {
        let (one, other) = connections();
        let (mut exchanges, mut first, mut second) = (Exchanges::default(), Owed::default(), Owed::default());
        for word in [b"a", b"b", b"c"] {
            exchanges.open(&mut first, one, asked(word)).unwrap();
            exchanges
                .open(&mut second, other, asked(&word.to_ascii_uppercase()))
                .unwrap();
        }
        assert_eq!((first.count(), second.count()), (3, 3));
        for word in [b"a", b"b", b"c"] {
            assert_eq!(text(exchanges.close_oldest(&mut first)), Some(word.to_vec()));
        }
        assert_eq!((first.count(), first.oldest()), (0, None));
        assert!(exchanges.close_oldest(&mut first).is_none());
        assert_eq!(text(exchanges.close_oldest(&mut second)), Some(b"A".to_vec()));
        exchanges.open(&mut first, one, asked(b"d")).unwrap();
        assert_eq!(text(exchanges.close_oldest(&mut first)), Some(b"d".to_vec()));
    }

    #[test]
    fn an_answer_that_came_early_is_known_when_its_turn_comes() {
        let (one, _) = connections();
        let (mut exchanges, mut owed) = (Exchanges::default(), Owed::default());
        exchanges.open(&mut owed, one, asked(b"a")).unwrap();
        let second = exchanges.open(&mut owed, one, asked(b"b")).unwrap();
        exchanges.get_mut(second).unwrap().state = State::Answered(Bytes::Own(b"B".to_vec()));
        assert!(exchanges.asked(second).is_none());
        assert!(!exchanges.oldest_is_answered(&owed));
        exchanges.close_oldest(&mut owed);
        assert!(exchanges.oldest_is_answered(&owed));
        assert_eq!(text(exchanges.close_oldest(&mut owed)), Some(b"B".to_vec()));
        assert!(exchanges.get(second).is_none());
    }
}
