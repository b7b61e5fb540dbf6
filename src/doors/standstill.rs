//! A conversation through a program that stands still both ways: its client reads nothing until it has sent everything, and its
//! program takes nothing until its output is read. The daemon between the two has to hold more, or it stays so for ever.
//!
//! ```text
//! Flowing ─jammed─▸ Still ─so for 100 ms─▸ Growing ─as much is held as may be─▸ Full ─no sign of a reader─▸ given up
//!    ▴                │                       │ ▴                                │
//!    └────────────────┴── something moves ────┴─┼────────────────────────────────┤
//!                                               └──────────── there is room ─────┘
//! ```
//!
//! A client that is only slow jams as well, now and then. It gets a moment, and what it then reads makes everything flow
//! again. One that reads and pauses for longer is told from one that waits by what it has read: while that goes on,
//! or once it has come to more than a prompt, the client is never given up. What is known of it differs. The kernel tells what
//! the peer of a UNIX socket has read, so 5 s without any of it are enough. Over TCP it tells what has arrived at the other
//! machine, of which the client has read some for certain only if that machine was full and has taken more since, or if it is
//! more than a machine keeps unread. A client without such a sign may have read a little, so it is given the time of its owner's
//! --write-timeout, and a client that has no more to send all the time there is.
//!
//! What is held is the client's input, for that has an end, after which the client reads; output may have none.

use std::time::{Duration, Instant};

use crate::net::conn::Conn;
use crate::net::stream::Reading;

/// Nothing has moved for so long: it is not only slow.
const PATIENCE: Duration = Duration::from_millis(100);
/// No more may be held: whether there is room again, or a sign of a reader, is looked at so often.
const PAUSE: Duration = Duration::from_secs(1);
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
/// More than this is not kept by a machine for a client that reads nothing: buffers grow with what is read, and begin with
/// 128 KiB (Linux, tcp_rmem) or less. A client of a machine where they begin with more is taken for one that reads, and waited
/// for.
const MOST_UNREAD: u64 = 1 << 20;

/// What the log calls such conversations, together.
pub(super) const TOPIC: &str = "programs whose clients sent more than --max-buffer allows and read nothing";
/// Why the program is ended, for the log.
pub(super) const CAUSE: &str =
    "its client has sent more than --max-buffer allows to be held, and reads none of the output";
/// The same for the client.
pub(super) const REASON: &str =
    "more input was sent than the server holds while none of the output is read (--max-buffer)";

/// What is kept of one conversation: where it is, what is held of it, and what its client has read.
#[derive(Debug, Default)]
pub(super) struct Watch {
    standstill: Standstill,
    share: Share,
    signs: Signs,
    /// How many bytes the client's socket has taken.
    sent: u64,
    /// Whether client or program have taken something since this was looked at.
    moved: bool,
}

/// How things are after everything was moved that could be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    /// There is no room for output, and input waits for the program, behind which the client may have more.
    pub(super) is_jammed: bool,
    /// How many bytes of the input are held.
    pub(super) input: usize,
    /// How many are held while everything flows, at most.
    pub(super) usual: usize,
    /// For how long a client is waited for of which nothing is known.
    pub(super) doubt: Duration,
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

    /// How much more may be read from the client, although its program has not taken the `input` bytes that are held. `usual`
    /// is how many that are while everything flows.
    pub(super) fn growth(&self, hoard: &Hoard, input: usize, usual: usize) -> usize {
        match self.standstill.may_grow() {
            true => hoard.room(&self.share, input, usual),
            false => 0,
        }
    }

    /// To be told whenever something has been moved, and when [`deadline`](Self::deadline) is there.
    pub(super) fn look(&mut self, hoard: &mut Hoard, client: &Conn, sight: Sight, now: Instant) -> Advice {
        let moved = std::mem::take(&mut self.moved);
        hoard.count(&mut self.share, sight.input, sight.usual);
        let room = hoard.room(&self.share, sight.input, sight.usual) > 0;
        let seen = match (sight.is_jammed, moved) {
            (false, _) => Seen::Flow,
            (true, true) => Seen::Moved,
            (true, false) => Seen::Jam { room },
        };
        let (signs, sent) = (&mut self.signs, self.sent);
        let ask = || signs.see(client.socket().read_by_peer(sent), client.has_unread(), sight.doubt);
        self.standstill.see(seen, ask, now)
    }

    /// Whether nothing stands still, and no more is held than usual.
    pub(super) fn is_at_rest(&self) -> bool {
        self.standstill.0 == State::Flowing && self.share.0 == 0
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

/// What shows that a client reads.
#[derive(Debug, Clone, Copy, Default)]
struct Signs {
    /// How many bytes had arrived at its machine when that was first seen to take no more.
    full_at: Option<u64>,
    /// How many bytes it has read for certain.
    read: u64,
}

/// What is known of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Client {
    /// How many bytes it has read for certain.
    read: u64,
    /// Whether it has more to send.
    has_more: bool,
    /// How long it may stand still at the limit, if it has read no more than a prompt.
    patience: Duration,
}

impl Signs {
    fn see(&mut self, reading: Reading, has_more: bool, doubt: Duration) -> Client {
        let (read, patience) = match reading {
            Reading::Known(read) => (read, GIVE_UP),
            Reading::Arrived { bytes, is_full } => {
                if is_full {
                    self.full_at.get_or_insert(bytes);
                }
                let since_full = self.full_at.map_or(0, |full_at| bytes.saturating_sub(full_at));
                (since_full.max(bytes.saturating_sub(MOST_UNREAD)), doubt.max(GIVE_UP))
            }
        };
        self.read = self.read.max(read);
        Client {
            read: self.read,
            has_more,
            patience,
        }
    }
}

/// Where a conversation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standstill(State);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Something moves, or neither side waits for the other.
    #[default]
    Flowing,
    /// Nothing moves.
    Still { until: Instant },
    /// Nothing moves, so more is held.
    Growing,
    /// Nothing moves, and no more may be held.
    Full {
        /// Since when the client, which has more to send, has shown no sign of a reader.
        since: Instant,
        /// What it had read by then.
        read: u64,
        /// When to look again.
        until: Instant,
    },
}

/// How things are after everything was moved that could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// There is room for output, or no input waits for the program.
    Flow,
    /// Neither, but client or program have taken something since this was looked at.
    Moved,
    /// Neither, and nothing has moved. `room`: more of the input may be held.
    Jam { room: bool },
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Nothing.
    Wait,
    /// Read on from the client although its program has not taken what was read before.
    Grow,
    /// End it.
    GiveUp,
}

impl Standstill {
    /// To be told whenever something has been moved, and when [`deadline`](Self::deadline) is there. `ask` says what is known of
    /// the client; it is asked when the answer counts, and when what it says now may show later that the client has read.
    fn see(&mut self, seen: Seen, ask: impl FnOnce() -> Client, now: Instant) -> Advice {
        let full = |since, read| State::Full {
            since,
            read,
            until: now + PAUSE,
        };
        let mut advice = Advice::Wait;
        self.0 = match (seen, self.0) {
            (Seen::Flow, _) => State::Flowing,
            (Seen::Moved, _) | (_, State::Flowing) => State::Still { until: now + PATIENCE },
            (_, State::Still { until } | State::Full { until, .. }) if now < until => self.0,
            (Seen::Jam { room: true }, before) => {
                if let State::Still { .. } = before {
                    ask();
                }
                advice = Advice::Grow;
                State::Growing
            }
            (_, State::Still { .. } | State::Growing) => full(now, ask().read),
            (_, State::Full { since, read, .. }) => {
                let client = ask();
                let goes_on = client.read > read || client.read > PROMPT || !client.has_more;
                if goes_on {
                    full(now, client.read)
                } else if now < since + client.patience {
                    full(since, read)
                } else {
                    advice = Advice::GiveUp;
                    full(now, read)
                }
            }
        };
        advice
    }

    /// Whether more may be held than while everything flows.
    fn may_grow(&self) -> bool {
        self.0 == State::Growing
    }

    /// When to come back.
    fn deadline(&self) -> Option<Instant> {
        match self.0 {
            State::Still { until } | State::Full { until, .. } => Some(until),
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

    const JAM: Seen = Seen::Jam { room: true };
    const FULL: Seen = Seen::Jam { room: false };

    /// One that has more to send and has read so many bytes for certain.
    fn client(read: u64, patience: Duration) -> Client {
        Client {
            read,
            has_more: true,
            patience,
        }
    }

    fn silent() -> Client {
        client(0, GIVE_UP)
    }

    #[test]
    fn a_client_that_is_only_slow_is_left_alone() {
        let (mut it, mut now) = (Standstill::default(), Instant::now());
        for _ in 0..1000 {
            assert_eq!(it.see(FULL, silent, now), Advice::Wait);
            now += PATIENCE - Duration::from_millis(1);
            assert_eq!(it.see(FULL, silent, now), Advice::Wait);
            assert_eq!(it.see(Seen::Moved, silent, now), Advice::Wait);
            assert_eq!(it.deadline(), Some(now + PATIENCE), "nothing may come to wake it");
        }
        assert_eq!(it.see(Seen::Flow, silent, now), Advice::Wait);
        assert_eq!(it.deadline(), None);
    }

    /// Comes back whenever that is asked for, until it is given up; how long that took.
    fn given_up_after(
        it: &mut Standstill,
        start: Instant,
        mut ask: impl FnMut(Duration) -> Client,
    ) -> Option<Duration> {
        let mut now = start;
        while now < start + Duration::from_secs(3600) {
            now = it.deadline().unwrap_or(now);
            if it.see(FULL, || ask(now - start), now) == Advice::GiveUp {
                return Some(now - start);
            }
        }
        None
    }

    #[test]
    fn more_is_held_after_a_moment_and_given_up_after_a_while() {
        let (mut it, start) = (Standstill::default(), Instant::now());
        assert_eq!(it.see(JAM, silent, start), Advice::Wait);
        let moment = it.deadline().unwrap();
        assert_eq!(it.see(JAM, silent, moment), Advice::Grow);
        assert!(it.may_grow() && it.deadline().is_none());
        assert_eq!(it.see(FULL, silent, moment), Advice::Wait);
        assert_eq!(given_up_after(&mut it, moment, |_| silent()), Some(GIVE_UP));
    }

    #[test]
    fn a_client_that_shows_that_it_reads_or_has_no_more_to_send_is_never_given_up() {
        let (still, start) = (Standstill::default(), Instant::now());
        let seconds = Duration::from_secs;
        let after = |ask: &mut dyn FnMut(Duration) -> Client| {
            given_up_after(&mut still.clone(), start, ask).map(|time| time.as_secs())
        };
        assert_eq!(after(&mut |_| client(PROMPT, GIVE_UP)), Some(5));
        assert_eq!(after(&mut |_| client(PROMPT + 1, GIVE_UP)), None);
        assert_eq!(after(&mut |_| client(0, seconds(30))), Some(30));
        let content = |_| Client {
            has_more: false,
            ..silent()
        };
        assert_eq!(after(&mut { content }), None);
        // A byte in four seconds, for 20 of them: then so long again.
        let drops = |time: Duration| client(time.as_secs().min(20) / 4, GIVE_UP);
        assert_eq!(after(&mut { drops }), Some(25));
    }

    #[test]
    fn what_has_arrived_is_read_if_more_came_after_the_machine_was_full_or_more_than_that_keeps() {
        let mut signs = Signs::default();
        let mut read = |bytes, is_full| {
            let client = signs.see(Reading::Arrived { bytes, is_full }, true, Duration::from_secs(30));
            assert_eq!(client.patience, Duration::from_secs(30));
            client.read
        };
        assert_eq!(read(100_000, false), 0);
        assert_eq!(read(128_000, true), 0);
        assert_eq!(read(128_000, true), 0);
        assert_eq!(read(130_000, false), 2000);
        assert_eq!(read(150_000, true), 22_000);
        let mut signs = Signs::default();
        let mut read = |bytes| {
            signs
                .see(Reading::Arrived { bytes, is_full: false }, true, GIVE_UP)
                .read
        };
        assert_eq!((read(MOST_UNREAD), read(MOST_UNREAD + 9)), (0, 9));
        let known = Signs::default().see(Reading::Known(7), true, Duration::from_secs(30));
        assert_eq!((known.read, known.patience), (7, GIVE_UP));
    }

    #[derive(Debug, Clone, Copy)]
    enum Deed {
        Flow,
        Moved,
        Jam(bool),
        Read(u64),
        Sends(bool),
        Time(u64),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            1 => Just(Deed::Flow),
            1 => Just(Deed::Moved),
            8 => (0..4_u8).prop_map(|room| Deed::Jam(room == 0)),
            1 => (1..PROMPT / 2).prop_map(Deed::Read),
            1 => any::<bool>().prop_map(Deed::Sends),
            8 => (0..3000_u64).prop_map(Deed::Time),
        ]
    }

    proptest! {
        /// A conversation is given up only if nothing has moved, its client has read nothing, has had more to send and there
        /// was no room, whenever that was looked at, for as long as it is waited for; nor if it has read more than a prompt. More
        /// is held only if nothing has moved within the moment. One that waits has a deadline or may grow.
        #[test]
        fn in_any_order(deeds in vec(deed(), 0..200), patience in prop_oneof![Just(5), Just(30)]) {
            let (mut it, mut now) = (Standstill::default(), Instant::now());
            let mut it_is = client(0, Duration::from_secs(patience));
            let (mut moved, mut showed, mut given_up) = (now, now, 0);
            for deed in deeds {
                let seen = match deed {
                    Deed::Time(milliseconds) => { now += Duration::from_millis(milliseconds); continue; }
                    Deed::Read(count) => { it_is.read += count; continue; }
                    Deed::Sends(has_more) => { it_is.has_more = has_more; continue; }
                    Deed::Flow => Seen::Flow,
                    Deed::Moved => Seen::Moved,
                    Deed::Jam(room) => Seen::Jam { room },
                };
                if matches!(seen, Seen::Flow | Seen::Moved) {
                    (moved, showed) = (now, now);
                }
                let mut asked = None;
                let before = it;
                let advice = it.see(seen, || { asked = Some(it_is); it_is }, now);
                if let State::Full { read, .. } = before.0
                    && asked.is_some_and(|client| client.read > read || !client.has_more)
                {
                    showed = now;
                }
                if seen == JAM && advice == Advice::Grow {
                    showed = now;
                }
                if advice == Advice::GiveUp {
                    given_up += 1;
                    prop_assert!(seen == FULL && it_is.has_more && it_is.read <= PROMPT);
                    prop_assert!(now >= showed + it_is.patience && now >= moved + it_is.patience);
                    showed = now;
                }
                prop_assert!(advice != Advice::Grow || (seen == JAM && now >= moved + PATIENCE));
                prop_assert_eq!(it.may_grow(), advice == Advice::Grow || (before == it && it.may_grow()));
                prop_assert!(seen == Seen::Flow || it.may_grow() || it.deadline().is_some());
            }
            // And one that does nothing any more is given up, unless it reads or has no more to send.
            let end = given_up_after(&mut it, now, |_| it_is);
            prop_assert_eq!(end.is_some(), it_is.has_more && it_is.read <= PROMPT);
            prop_assert!(end.is_none_or(|end| end <= it_is.patience + PATIENCE + PAUSE * 2), "{:?} {}", end, given_up);
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
