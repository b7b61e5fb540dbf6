//! The queue of sources that have used up their share of a turn and are not drained.
//!
//! An edge-triggered source that was not read to `WouldBlock` gets no further event, so a service that stops reading
//! early must queue the source here. While the queue holds anything, the poll does not wait.
//!
//! A source is queued once, however often it is added. An event and the queue may both give it a share of the same
//! turn; if each of the two added another entry, there would be three and then four, until one source filled the turn.

use std::collections::{BTreeSet, VecDeque};

use super::token::Token;

#[derive(Debug, Default)]
pub(super) struct RunQueue {
    waiting: VecDeque<Token>,
    /// The same tokens, for look-ups.
    standing: BTreeSet<Token>,
}

impl RunQueue {
    pub(super) fn push(&mut self, token: Token) {
        if self.standing.insert(token) {
            self.waiting.push_back(token);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn pop(&mut self) -> Option<Token> {
        let token = self.waiting.pop_front()?;
        self.standing.remove(&token);
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::super::token::{Key, Kind, ServiceId, Source};
    use super::*;

    fn token(slot: u32) -> Token {
        Token {
            service: ServiceId(1),
            source: Source {
                kind: Kind(0),
                key: Key::numbered(slot),
            },
        }
    }

    #[test]
    fn a_source_stands_in_the_queue_once_and_may_come_back() {
        let mut queue = RunQueue::default();
        for slot in [0, 1, 0, 0] {
            queue.push(token(slot));
        }
        assert_eq!(queue.pop(), Some(token(0)));
        queue.push(token(0));
        assert_eq!((queue.pop(), queue.pop()), (Some(token(1)), Some(token(0))));
        assert_eq!((queue.pop(), queue.is_empty()), (None, true));
    }
}
