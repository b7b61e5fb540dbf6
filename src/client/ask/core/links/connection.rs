//! One connection that carries many lines, and the lines that are under way on it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::event::{AttemptId, ConnectionId};

/// A connection for many lines.
#[derive(Debug)]
pub(in super::super) struct Connection {
    pub(in super::super) id: ConnectionId,
    pub(in super::super) address: usize,
    pub(in super::super) phase: Phase,
}

/// The phase in the life of a connection.
#[derive(Debug)]
pub(in super::super) enum Phase {
    /// It is being established, with the hello as its first bytes. These attempts wait for it.
    Connecting { since: Instant, held: Vec<AttemptId> },
    /// It is established, and the answer to the hello must come by then. These attempts wait for it.
    Greeting { until: Instant, held: Vec<AttemptId> },
    /// It takes lines, until then at most.
    Open {
        retire_at: Option<Instant>,
        lines: UnderWay,
    },
    /// It takes no more lines, and ends when it owes no answer.
    Retiring { lines: UnderWay },
}

/// The lines that were sent on a connection and are not answered.
#[derive(Debug, Default)]
pub(in super::super) struct UnderWay {
    by_number: BTreeMap<u32, Sent>,
    /// The number of the next line. No number is used twice on a connection, so that an answer that comes late finds no
    /// other line.
    next: u32,
    /// The time of the last line from the pool since the welcome.
    heard: Option<Instant>,
    has_answered: bool,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    attempt: AttemptId,
    at: Instant,
}

/// The health of a connection on which a line has run out of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Sign {
    /// Something has come from the pool since that line was sent.
    Alive,
    /// Nothing has. The machine at the other end may have gone without a word.
    Silent,
}

impl Connection {
    /// Returns the attempts that wait for the connection to open.
    pub(in super::super) fn held(&self) -> &[AttemptId] {
        match &self.phase {
            Phase::Connecting { held, .. } | Phase::Greeting { held, .. } => held,
            Phase::Open { .. } | Phase::Retiring { .. } => &[],
        }
    }

    /// Returns the lines under way; `None` before the connection has opened.
    pub(in super::super) fn lines(&self) -> Option<&UnderWay> {
        match &self.phase {
            Phase::Open { lines, .. } | Phase::Retiring { lines } => Some(lines),
            Phase::Connecting { .. } | Phase::Greeting { .. } => None,
        }
    }

    pub(super) fn held_mut(&mut self) -> Option<&mut Vec<AttemptId>> {
        match &mut self.phase {
            Phase::Connecting { held, .. } | Phase::Greeting { held, .. } => Some(held),
            Phase::Open { .. } | Phase::Retiring { .. } => None,
        }
    }

    pub(super) fn lines_mut(&mut self) -> Option<&mut UnderWay> {
        match &mut self.phase {
            Phase::Open { lines, .. } | Phase::Retiring { lines } => Some(lines),
            Phase::Connecting { .. } | Phase::Greeting { .. } => None,
        }
    }

    /// Returns true if the answer to the hello has not come yet.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Connecting { .. } | Phase::Greeting { .. })
    }

    /// Returns true if the connection takes no more lines and owes no answer.
    pub(super) fn is_done(&self) -> bool {
        match &self.phase {
            Phase::Retiring { lines } => lines.is_empty(),
            Phase::Connecting { .. } | Phase::Greeting { .. } | Phase::Open { .. } => false,
        }
    }

    /// Returns the time at which the connection needs attention whatever happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Greeting { until, .. } => Some(*until),
            Phase::Open { retire_at, .. } => *retire_at,
            // The attempts that wait have deadlines of their own, and the kernel gives up connecting in the end.
            Phase::Connecting { .. } | Phase::Retiring { .. } => None,
        }
    }
}

impl UnderWay {
    pub(in super::super) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// Returns true if the pool has answered a line on this connection.
    pub(in super::super) fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Returns true when every number but the last has been used: the connection must take no more lines.
    pub(super) fn is_used_up(&self) -> bool {
        self.next == u32::MAX
    }

    /// Adds a line that is sent now, and returns its number.
    pub(super) fn add(&mut self, attempt: AttemptId, now: Instant) -> u32 {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        self.by_number.insert(number, Sent { attempt, at: now });
        number
    }

    /// Notes that the pool has said something.
    pub(super) fn note_sign(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// Removes the line with this number, which was answered. Returns `None` if it is not under way any more.
    pub(super) fn take_answered(&mut self, number: u32, now: Instant) -> Option<AttemptId> {
        self.heard = Some(now);
        self.has_answered = true;
        self.by_number.remove(&number).map(|sent| sent.attempt)
    }

    /// Removes the line with this number, whose time is over.
    pub(super) fn abandon(&mut self, number: u32) -> Sign {
        match self.by_number.remove(&number) {
            Some(sent) if self.heard.is_none_or(|heard| heard <= sent.at) => Sign::Silent,
            Some(_) | None => Sign::Alive,
        }
    }

    /// Returns the attempts under way, in the order in which they were sent.
    pub(in super::super) fn attempts(&self) -> impl Iterator<Item = AttemptId> {
        self.by_number.values().map(|sent| sent.attempt)
    }

    /// Returns the attempt with this number, for the invariants.
    #[cfg(debug_assertions)]
    pub(in super::super) fn get(&self, number: u32) -> Option<AttemptId> {
        self.by_number.get(&number).map(|sent| sent.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::event::RequestId;
    use super::*;
    use std::time::Duration;

    fn attempt(ticket: u64) -> AttemptId {
        let request = RequestId { index: 0, ticket };
        AttemptId { request, number: 1 }
    }

    #[test]
    fn no_number_is_used_twice_and_the_last_but_one_is_the_last() {
        let now = Instant::now();
        let mut lines = UnderWay {
            next: u32::MAX - 2,
            ..UnderWay::default()
        };
        assert_eq!(lines.add(attempt(1), now), u32::MAX - 2);
        assert!(!lines.is_used_up());
        assert_eq!(lines.add(attempt(2), now), u32::MAX - 1);
        assert!(lines.is_used_up());
        assert_eq!(lines.take_answered(u32::MAX - 2, now), Some(attempt(1)));
        assert_eq!(lines.take_answered(u32::MAX - 2, now), None, "an answer comes once");
    }

    #[test]
    fn silence_since_a_line_was_sent_is_a_sign_and_silence_before_is_none() {
        let start = Instant::now();
        let mut lines = UnderWay::default();
        let (first, second) = (lines.add(attempt(1), start), lines.add(attempt(2), start));
        assert_eq!(lines.abandon(first), Sign::Silent);
        lines.note_sign(start + Duration::from_millis(1));
        assert_eq!(lines.abandon(second), Sign::Alive);
        let third = lines.add(attempt(3), start + Duration::from_millis(2));
        assert_eq!(lines.abandon(third), Sign::Silent);
        assert!(lines.is_empty());
    }
}
