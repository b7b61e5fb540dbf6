//! The pings of a session: when one is due, and for how long its answer is awaited.

use std::time::{Duration, Instant};

/// The state between two pings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next is due then.
    Due(Instant),
    /// An answer to this number is awaited, since the question was put.
    Asked { number: u32, at: Instant },
}

/// The pings of a session.
#[derive(Debug)]
pub(super) struct Ping {
    state: State,
    next: u32,
    /// The time of the last frame of the peer.
    heard: Option<Instant>,
    /// True if bytes of a payload have come since the last question, or since the end of the wait was put off for them.
    has_payload: bool,
    round_trip: Option<Duration>,
}

impl Ping {
    pub(super) fn new(due: Instant) -> Self {
        Self {
            state: State::Due(due),
            next: 0,
            heard: None,
            has_payload: false,
            round_trip: None,
        }
    }

    /// Takes in that a frame has come.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// Takes in that bytes of a payload have come: a frame may take a slow link longer than the wait for an answer.
    pub(super) fn hear_payload(&mut self) {
        self.has_payload = true;
    }

    /// Puts the end of the wait off, if bytes of a payload have come meanwhile. Returns false if none have.
    pub(super) fn put_off(&mut self, now: Instant) -> bool {
        let has_payload = std::mem::take(&mut self.has_payload);
        if has_payload {
            self.heard = Some(now);
        }
        has_payload
    }

    /// Returns the time of the next question, or the end of the wait for an answer: that is put off by each frame that
    /// comes, since an answer may be on its way behind many bytes. See [`put_off`](Self::put_off) for those of one frame.
    pub(super) fn deadline(&self, timeout: Duration) -> Instant {
        match self.state {
            State::Due(at) => at,
            State::Asked { at, .. } => self.heard.map_or(at, |heard| heard.max(at)) + timeout,
        }
    }

    pub(super) fn asked_at(&self) -> Option<Instant> {
        match self.state {
            State::Due(_) => None,
            State::Asked { at, .. } => Some(at),
        }
    }

    /// Puts a question, unless one is put, and returns its number.
    pub(super) fn ask(&mut self, now: Instant) -> Option<u32> {
        let State::Due(_) = self.state else { return None };
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.state = State::Asked { number, at: now };
        self.has_payload = false;
        Some(number)
    }

    /// Takes in an answer. One to no question changes nothing.
    pub(super) fn answer(&mut self, number: u32, now: Instant, interval: Duration) {
        if let State::Asked { number: asked, at } = self.state
            && asked == number
        {
            self.round_trip = Some(now.saturating_duration_since(at));
            self.state = State::Due(now + interval);
        }
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }
}
