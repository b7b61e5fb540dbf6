//! The numbers of routes, by their states.

use super::life::Stage;

/// The routes that are not over, by their states.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Routes whose first bytes are awaited.
    pub opening: usize,
    /// Routes that wait for a table.
    pub waiting: usize,
    /// Routes whose client makes its TLS handshake.
    pub securing: usize,
    /// Routes that wait for the program of their server.
    pub starting: usize,
    /// Routes that wait for a tunnel client of their service.
    pub expecting: usize,
    /// Routes whose server is being connected to.
    pub connecting: usize,
    /// Routes whose server is asked for TLS.
    pub asking: usize,
    /// Routes whose bytes are relayed.
    pub relaying: usize,
    /// Routes whose client gets an answer.
    pub answering: usize,
}

impl Census {
    /// Returns the number of routes.
    pub fn total(&self) -> usize {
        let before = self.opening + self.waiting + self.securing + self.starting + self.expecting;
        before + self.connecting + self.asking + self.relaying + self.answering
    }

    /// A route comes into a state.
    pub(super) fn enter(&mut self, stage: Stage) {
        if let Some(count) = self.count(stage) {
            *count += 1;
        }
    }

    /// A route leaves a state.
    pub(super) fn leave(&mut self, stage: Stage) {
        if let Some(count) = self.count(stage) {
            *count = count.saturating_sub(1);
        }
    }

    fn count(&mut self, stage: Stage) -> Option<&mut usize> {
        match stage {
            Stage::Opening => Some(&mut self.opening),
            Stage::Waiting => Some(&mut self.waiting),
            Stage::Securing => Some(&mut self.securing),
            Stage::Starting => Some(&mut self.starting),
            Stage::Expecting => Some(&mut self.expecting),
            Stage::Connecting => Some(&mut self.connecting),
            Stage::Asking => Some(&mut self.asking),
            Stage::Relaying => Some(&mut self.relaying),
            Stage::Answering => Some(&mut self.answering),
            Stage::Over => None,
        }
    }
}
