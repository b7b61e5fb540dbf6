//! One request and its answer, and the order in which a connection gets its answers: that of its requests.
//!
//! The life of an exchange: [`Exchanges::open`] when its request is whole → the dispatcher names it and finds a worker
//! → its answer comes. If all before it on its connection are answered, that answer goes out at once and the exchange
//! ends; otherwise it is kept until its turn. On a multiplexed connection each exchange ends with its answer.
//!
//! Invariants: the exchanges of one connection form a list from the oldest to the youngest, and none is in two lists.
//! The dispatcher knows an exchange as its [`ClientId`], so that answers find their way even among many on one
//! connection. No memory is owned by a connection for its list: all exchanges lie in one table. Only a multiplexed
//! connection owns a table, in which exactly its exchanges stand, by their numbers.

use std::collections::HashMap;
use std::ops::Deref;
use std::rc::Rc;

use crate::doors::pool::cache::Place;
use crate::doors::pool::core::{ClientId, RequestId};
use crate::reactor::Key;
use crate::reactor::slab::GenerationalSlab;

/// A request that is not answered yet, or whose answer waits for its turn.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The asker. `None`: it has gone, and others wait for the answer.
    pub(crate) asker: Option<Asker>,
    pub(crate) state: State,
    /// The next older one on the same connection.
    previous: Option<Key>,
    /// The next younger one on the same connection.
    next: Option<Key>,
}

/// The destination of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) client: Key,
    /// The number that the client has given to its request, on a multiplexed connection.
    pub(crate) number: Option<u32>,
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

impl Asker {
    /// Returns the asker on a connection whose answers come in the order of its requests.
    pub(crate) fn in_order(client: Key) -> Self {
        Asker { client, number: None }
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
    /// The exchanges that have a number. `None`: none ever had.
    #[expect(
        clippy::box_collection,
        reason = "nearly all connections have none, and there may be thousands"
    )]
    numbered: Option<Box<HashMap<u32, Key>>>,
}

impl Owed {
    pub(crate) fn count(&self) -> usize {
        self.count as usize
    }

    pub(crate) fn oldest(&self) -> Option<Key> {
        self.oldest
    }

    /// Returns the request that has this number.
    pub(crate) fn numbered(&self, number: u32) -> Option<ClientId> {
        let key = self.numbered.as_ref()?.get(&number)?;
        Some(ClientId(key.to_bits()))
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

    /// Opens an exchange behind all others of its connection. Its number must not be that of another. An error gives
    /// the state back: the table is full.
    pub(crate) fn open(&mut self, owed: &mut Owed, asker: Asker, state: State) -> Result<ClientId, State> {
        let exchange = Exchange {
            asker: Some(asker),
            state,
            previous: owed.youngest,
            next: None,
        };
        let key = self.table.insert(exchange).map_err(|exchange| exchange.state)?;
        match owed.youngest.and_then(|youngest| self.table.get_mut(youngest)) {
            Some(youngest) => youngest.next = Some(key),
            None => owed.oldest = Some(key),
        }
        owed.youngest = Some(key);
        owed.count += 1;
        if let Some(number) = asker.number {
            owed.numbered.get_or_insert_default().insert(number, key);
        }
        Ok(ClientId(key.to_bits()))
    }

    /// Takes out the oldest of a connection.
    pub(crate) fn close_oldest(&mut self, owed: &mut Owed) -> Option<State> {
        self.close(owed, ClientId(owed.oldest?.to_bits()))
    }

    /// Takes out an exchange of a connection, wherever it stands in the list.
    pub(crate) fn close(&mut self, owed: &mut Owed, id: ClientId) -> Option<State> {
        self.unlink(owed, id)?;
        let exchange = self.table.remove(Key::from_bits(id.0))?;
        Some(exchange.state)
    }

    /// Takes an exchange out of the list of a connection that does not want its answer any more, but keeps it: others
    /// wait for that.
    pub(crate) fn orphan(&mut self, owed: &mut Owed, id: ClientId) {
        self.unlink(owed, id);
    }

    fn unlink(&mut self, owed: &mut Owed, id: ClientId) -> Option<()> {
        let exchange = self.get_mut(id)?;
        let (asker, previous, next) = (exchange.asker.take()?, exchange.previous.take(), exchange.next.take());
        match previous.and_then(|previous| self.table.get_mut(previous)) {
            Some(previous) => previous.next = next,
            None => owed.oldest = next,
        }
        match next.and_then(|next| self.table.get_mut(next)) {
            Some(next) => next.previous = previous,
            None => owed.youngest = previous,
        }
        owed.count = owed.count.saturating_sub(1);
        if let (Some(number), Some(numbered)) = (asker.number, &mut owed.numbered) {
            numbered.remove(&number);
        }
        Some(())
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
    use proptest::prelude::*;

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
            exchanges.open(&mut first, Asker::in_order(one), asked(word)).unwrap();
            exchanges
                .open(&mut second, Asker::in_order(other), asked(&word.to_ascii_uppercase()))
                .unwrap();
        }
        assert_eq!((first.count(), second.count()), (3, 3));
        for word in [b"a", b"b", b"c"] {
            assert_eq!(text(exchanges.close_oldest(&mut first)), Some(word.to_vec()));
        }
        assert_eq!((first.count(), first.oldest()), (0, None));
        assert!(exchanges.close_oldest(&mut first).is_none());
        assert_eq!(text(exchanges.close_oldest(&mut second)), Some(b"A".to_vec()));
        exchanges.open(&mut first, Asker::in_order(one), asked(b"d")).unwrap();
        assert_eq!(text(exchanges.close_oldest(&mut first)), Some(b"d".to_vec()));
    }

    #[test]
    fn an_answer_that_came_early_is_known_when_its_turn_comes() {
        let (one, _) = connections();
        let (mut exchanges, mut owed) = (Exchanges::default(), Owed::default());
        exchanges.open(&mut owed, Asker::in_order(one), asked(b"a")).unwrap();
        let second = exchanges.open(&mut owed, Asker::in_order(one), asked(b"b")).unwrap();
        exchanges.get_mut(second).unwrap().state = State::Answered(Bytes::Own(b"B".to_vec()));
        assert!(exchanges.asked(second).is_none());
        assert!(!exchanges.oldest_is_answered(&owed));
        exchanges.close_oldest(&mut owed);
        assert!(exchanges.oldest_is_answered(&owed));
        assert_eq!(text(exchanges.close_oldest(&mut owed)), Some(b"B".to_vec()));
        assert!(exchanges.get(second).is_none());
    }

    proptest! {
        /// Exchanges leave in any order, and the list, its length and the numbers are those of the ones that stay.
        #[test]
        fn a_list_is_right_whichever_exchange_leaves(steps in prop::collection::vec((any::<bool>(), 0u32..8), 0..60)) {
            let (client, _) = connections();
            let (mut exchanges, mut owed, mut model) = (Exchanges::default(), Owed::default(), Vec::new());
            for (orphan, number) in steps {
                let asker = Asker { client, number: Some(number) };
                match owed.numbered(number) {
                    None => model.push((number, exchanges.open(&mut owed, asker, asked(&[])).unwrap())),
                    Some(id) => {
                        prop_assert!(model.contains(&(number, id)));
                        if orphan {
                            exchanges.orphan(&mut owed, id);
                            prop_assert!(exchanges.get(id).unwrap().asker.is_none());
                            exchanges.forget_orphan(id);
                        } else {
                            prop_assert!(exchanges.close(&mut owed, id).is_some());
                        }
                        model.retain(|(left, _)| *left != number);
                    }
                }
                let listed: Vec<_> = exchanges.of(&owed).map(|exchange| exchange.asker.unwrap().number).collect();
                let wanted: Vec<_> = model.iter().map(|(number, _)| Some(*number)).collect();
                prop_assert_eq!(listed, wanted);
                prop_assert_eq!(owed.count(), model.len());
                let oldest = owed.oldest().map(|oldest| ClientId(oldest.to_bits()));
                prop_assert_eq!(oldest, model.first().map(|(_, id)| *id));
            }
        }
    }
}
