//! A conversation through a program that stands still both ways: its client reads nothing until it has sent everything, and its
//! program takes nothing until its output is read. Whoever stands between the two has to hold more, or it stays so for ever.
//!
//! ```text
//! Flowing ─jammed─▸ Still ─so for 100 ms─▸ Growing ─as much is held as may be─▸ Full ─so for 5 s─▸ given up
//!    ▴                │                       │ ▴                                │
//!    └────────────────┴── something moves ────┴─┼────────────────────────────────┤
//!                                               └──────────── there is room ─────┘
//! ```
//!
//! A client that is only slow jams as well, now and then. It gets a moment, and what it then reads makes everything flow
//! again: hence both times. Whether one that pauses for longer is known to read is for the owner to say, and then nothing is given
//! up. What is held is the client's input, for that has an end, after which the client reads; output may
//! have none.

use std::time::{Duration, Instant};

/// Nothing has moved for so long: it is not only slow.
const PATIENCE: Duration = Duration::from_millis(100);
/// Nothing has moved for so long, and no more may be held.
const GIVE_UP: Duration = Duration::from_secs(5);

/// What a connection may hold of its input is so many times what it holds while everything flows, ...
const TIMES: usize = 32;
/// ... but no more than this, unless that alone is more.
const MOST: usize = 64 << 20;
/// What all connections of a door may hold beyond what they hold while everything flows, as so many times the limit of one.
const CONNECTIONS: usize = 8;

/// A client that has read more than this reads its output as it comes. One that sends everything first may wait for a line.
const PROMPT: u64 = 16 << 10;

/// What the log calls such conversations, together.
pub(super) const TOPIC: &str = "programs whose clients sent more than --max-buffer allows and read nothing";
/// Why the program is ended, for the log.
pub(super) const CAUSE: &str =
    "its client has sent more than --max-buffer allows to be held, and reads none of the output";
/// The same for the client.
pub(super) const REASON: &str =
    "more input was sent than the server holds while none of the output is read (--max-buffer)";

/// What is kept of one conversation: where it is, and what is held of it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    standstill: Standstill,
    share: Share,
    /// How many bytes the client's socket has taken.
    sent: u64,
    /// Whether client or program have taken something since this was looked at.
    moved: bool,
}

impl Watch {
    /// The client's socket has taken so many bytes.
    pub(super) fn sent(&mut self, count: usize) {
        self.moved = true;
        self.sent += count as u64;
    }

    /// The program has taken something.
    pub(super) fn taken(&mut self) {
        self.moved = true;
    }

    /// Whether the client has read some of the output while it still sends, and more than a prompt: then it is only slow, and
    /// goes on some time. `read_by_peer` says how many of so many bytes it has read for certain.
    pub(super) fn client_reads(&self, read_by_peer: impl FnOnce(u64) -> u64) -> bool {
        read_by_peer(self.sent) > PROMPT
    }

    /// How much more may be read from the client, although its program has not taken the `input` bytes that are held. `usual`
    /// is how many that are while everything flows.
    pub(super) fn growth(&self, hoard: &Hoard, input: usize, usual: usize) -> usize {
        match self.standstill.may_grow() {
            true => hoard.room(&self.share, input, usual),
            false => 0,
        }
    }

    /// To be told whenever something has been moved, and when [`deadline`](Self::deadline) is there. `is_jammed`: there is
    /// no room for output, and input waits for the program, behind which the client may have more.
    pub(super) fn look(
        &mut self,
        hoard: &mut Hoard,
        is_jammed: bool,
        (input, usual): (usize, usize),
        now: Instant,
    ) -> Advice {
        let moved = std::mem::take(&mut self.moved);
        hoard.count(&mut self.share, input, usual);
        let room = hoard.room(&self.share, input, usual) > 0;
        let seen = if is_jammed {
            Seen::Jam { moved, room }
        } else {
            Seen::Flow
        };
        self.standstill.see(seen, now)
    }

    /// When to come back.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.standstill.deadline()
    }

    /// It is over: nothing is held of it.
    pub(super) fn leave(&mut self, hoard: &mut Hoard) {
        hoard.count(&mut self.share, 0, 0);
    }
}

/// Where a conversation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standstill(State);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Something moves, or nobody waits for anybody.
    #[default]
    Flowing,
    /// Nothing moves.
    Still { until: Instant },
    /// Nothing moves, so more is held.
    Growing,
    /// Nothing moves, and no more may be held.
    Full { until: Instant },
}

/// How things are after everything was moved that could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// There is room for output, or no input waits for the program.
    Flow,
    /// Neither.
    Jam {
        /// Whether client or program have taken something since this was looked at.
        moved: bool,
        /// Whether more of the input may be held.
        room: bool,
    },
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Nothing.
    Wait,
    /// Read on from the client although its program has not taken what was read before.
    Grow,
    /// End it, if the client has still more to send.
    GiveUp,
}

impl Standstill {
    /// To be told whenever something has been moved, and when [`deadline`](Self::deadline) is there.
    fn see(&mut self, seen: Seen, now: Instant) -> Advice {
        let still = State::Still { until: now + PATIENCE };
        let full = State::Full { until: now + GIVE_UP };
        self.0 = match (seen, self.0) {
            (Seen::Flow, _) => State::Flowing,
            (Seen::Jam { moved: true, .. }, _) | (_, State::Flowing) => still,
            (_, State::Still { until }) if now < until => return Advice::Wait,
            (Seen::Jam { room: true, .. }, _) => State::Growing,
            (_, State::Still { .. } | State::Growing) => full,
            (_, State::Full { until }) if now < until => return Advice::Wait,
            (_, State::Full { .. }) => {
                self.0 = full;
                return Advice::GiveUp;
            }
        };
        match self.0 {
            State::Growing => Advice::Grow,
            State::Flowing | State::Still { .. } | State::Full { .. } => Advice::Wait,
        }
    }

    /// Whether more may be held than while everything flows.
    fn may_grow(&self) -> bool {
        self.0 == State::Growing
    }

    /// When to come back.
    fn deadline(&self) -> Option<Instant> {
        match self.0 {
            State::Still { until } | State::Full { until } => Some(until),
            State::Flowing | State::Growing => None,
        }
    }
}

/// What the connections of a door hold of their input while it stands still.
#[derive(Debug, Default)]
pub(super) struct Hoard {
    held: usize,
}

/// What one connection holds of it; counted by the [`Hoard`] alone.
#[derive(Debug, Default)]
struct Share(usize);

impl Hoard {
    /// How much more one connection may hold that holds `input` bytes already, where `usual` are held while everything flows.
    fn room(&self, share: &Share, input: usize, usual: usize) -> usize {
        let one = usual.max(usual.saturating_mul(TIMES).min(MOST));
        let others = self.held.saturating_sub(share.0);
        let left = one
            .saturating_mul(CONNECTIONS)
            .saturating_sub(others)
            .saturating_add(usual);
        one.min(left).saturating_sub(input)
    }

    /// A connection holds `input` bytes now. One that goes holds none.
    fn count(&mut self, share: &mut Share, input: usize, usual: usize) {
        let beyond = input.saturating_sub(usual);
        self.held = self.held.saturating_sub(share.0).saturating_add(beyond);
        share.0 = beyond;
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const JAM: Seen = Seen::Jam {
        moved: false,
        room: true,
    };
    const FULL: Seen = Seen::Jam {
        moved: false,
        room: false,
    };

    #[test]
    fn who_is_only_slow_is_left_alone() {
        let (mut it, mut now) = (Standstill::default(), Instant::now());
        for _ in 0..1000 {
            assert_eq!(it.see(FULL, now), Advice::Wait);
            now += PATIENCE - Duration::from_millis(1);
            assert_eq!(it.see(FULL, now), Advice::Wait);
            let moved = Seen::Jam {
                moved: true,
                room: true,
            };
            assert_eq!(it.see(moved, now), Advice::Wait);
            assert_eq!(it.deadline(), Some(now + PATIENCE), "nothing may come to wake it");
        }
        assert_eq!(it.see(Seen::Flow, now), Advice::Wait);
        assert_eq!(it.deadline(), None);
    }

    #[test]
    fn more_is_held_after_a_moment_and_given_up_after_a_while() {
        let (mut it, start) = (Standstill::default(), Instant::now());
        assert_eq!(it.see(JAM, start), Advice::Wait);
        let moment = it.deadline().unwrap();
        assert_eq!(it.see(JAM, moment), Advice::Grow);
        assert!(it.may_grow() && it.deadline().is_none());
        assert_eq!(it.see(FULL, moment), Advice::Wait);
        let end = it.deadline().unwrap();
        assert_eq!(end, start + PATIENCE + GIVE_UP);
        assert_eq!(it.see(FULL, end), Advice::GiveUp);
    }

    #[derive(Debug, Clone, Copy)]
    enum Deed {
        Flow,
        Jam(bool, bool),
        Time(u64),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            1 => Just(Deed::Flow),
            1 => any::<bool>().prop_map(|room| Deed::Jam(true, room)),
            4 => any::<bool>().prop_map(|room| Deed::Jam(false, room)),
            4 => (0..7000_u64).prop_map(Deed::Time),
        ]
    }

    proptest! {
        /// Nobody is given up who has moved, or had room, within five seconds, nor grows who has moved within the moment;
        /// whoever waits has a deadline or may grow.
        #[test]
        fn in_any_order(deeds in vec(deed(), 0..200)) {
            let (mut it, mut now) = (Standstill::default(), Instant::now());
            let (mut moved, mut full_since) = (now, None);
            for deed in deeds {
                let seen = match deed {
                    Deed::Time(milliseconds) => {
                        now += Duration::from_millis(milliseconds);
                        continue;
                    }
                    Deed::Flow => Seen::Flow,
                    Deed::Jam(moved, room) => Seen::Jam { moved, room },
                };
                if seen != JAM && seen != FULL {
                    moved = now;
                }
                full_since = if seen == FULL { full_since.or(Some(now)) } else { None };
                let advice = it.see(seen, now);
                if advice == Advice::GiveUp {
                    prop_assert!(now >= moved + GIVE_UP && full_since.is_some());
                    full_since = Some(now);
                }
                prop_assert!(advice != Advice::Grow || (seen == JAM && now >= moved + PATIENCE));
                prop_assert_eq!(it.may_grow(), advice == Advice::Grow);
                prop_assert!(seen == Seen::Flow || it.may_grow() || it.deadline().is_some());
            }
        }

        /// However many stand still, and in whatever order, neither one nor all of them hold more than may be held.
        #[test]
        fn what_is_held_is_bounded(deeds in vec((0..20_usize, any::<bool>(), 0..1_usize << 24), 0..300)) {
            let usual = 256 << 10;
            let (mut hoard, mut shares) = (Hoard::default(), Vec::new());
            shares.resize_with(20, || (Share::default(), 0_usize));
            for (who, takes, much) in deeds {
                let (share, input) = &mut shares[who];
                let room = hoard.room(share, *input, usual);
                *input = if takes { *input + much.min(room) } else { input.saturating_sub(much) };
                hoard.count(share, *input, usual);
                prop_assert!(*input <= 8 << 20);
                let beyond: usize = shares.iter().map(|(_, input)| input.saturating_sub(usual)).sum();
                prop_assert_eq!(beyond, hoard.held);
                prop_assert!(beyond <= 64 << 20);
            }
            for (share, _) in &mut shares {
                hoard.count(share, 0, usual);
            }
            prop_assert_eq!(hoard.held, 0);
        }
    }

    #[test]
    fn the_limits_follow_what_is_usual_up_to_a_point() {
        let (hoard, share) = (Hoard::default(), Share::default());
        for (usual, one) in [
            (4 << 10, 128 << 10),
            (256 << 10, 8 << 20),
            (4 << 20, 64 << 20),
            (1 << 30, 1 << 30),
        ] {
            assert_eq!(hoard.room(&share, 0, usual), one);
        }
    }
}
