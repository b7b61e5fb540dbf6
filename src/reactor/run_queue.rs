//! Work left over: sources that have used up their share of a turn but are not drained.
//!
//! An edge-triggered source that was not read to `WouldBlock` gets no further event, so whoever stops early must
//! stand here. While the queue holds anything the poll does not wait.

use std::collections::VecDeque;

use super::token::Token;

#[derive(Debug, Default)]
pub(super) struct RunQueue {
    waiting: VecDeque<Token>,
}

impl RunQueue {
    pub(super) fn push(&mut self, token: Token) {
        self.waiting.push_back(token);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn pop(&mut self) -> Option<Token> {
        self.waiting.pop_front()
    }
}
