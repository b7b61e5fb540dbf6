//! The cure for a deadlock between a client and its program: the client reads nothing before it has sent everything,
//! and the program takes no input before its output is read. The daemon between the two ends it by holding more of the
//! input.
//!
//! ```text
//! Flowing ─jammed─▸ Still ─so for 100 ms─▸ Growing ─as much is held as may be─▸ Full ─no sign of a reader─▸ given up
//!    ▴                │                       │ ▴                                │
//!    └────────────────┴── something moves ────┴─┼────────────────────────────────┤
//!                                               └──────────── there is room ─────┘
//! ```
//!
//! A door has a [`Watch`] for each conversation and one [`Hoard`] for all of them. It reports each byte that moves, and
//! calls [`Watch::look`] after it has moved all that it could; the [`Advice`] says whether to read on from the client.
//!
//! The input is held, and not the output, because input has an end, after which the client reads; output may have none.
//!
//! A client that is only slow jams as well, now and then. After a moment it reads, and everything flows again. A client
//! that pauses for longer is told from one that waits by the number of bytes that it has read: it is never given up
//! while that number grows, or once it exceeds a prompt. The kernel knows this number for a UNIX socket, so 5 s without
//! growth are enough. For TCP it knows only the number of bytes that have arrived at the other machine. The client has
//! certainly read some of them if that machine was full and has taken more since, or if they are more than a machine
//! keeps unread. A client without such a sign may still have read a little, so it gets the time of --write-timeout. A
//! client that has no more to send is never given up.

use std::time::{Duration, Instant};

use crate::net::conn::Conn;
use crate::net::stream::Reading;

/// The time without movement after which a client is not only slow, so that more is held.
const PATIENCE: Duration = Duration::from_millis(100);
/// The time between two looks for room, or for a sign of a reader, while no more may be held.
const PAUSE: Duration = Duration::from_secs(1);
/// The time without movement, while no more may be held, after which a client that does not read is given up.
const GIVE_UP: Duration = Duration::from_secs(5);

/// The limit of one connection, as a multiple of the input that it may hold while everything flows.
const TIMES: usize = 32;
/// The bound on that limit in bytes, unless a connection may hold more than this while everything flows.
const MOST: usize = 64 << 20;
/// The limit of all connections of a door together, as a multiple of the limit of one. Only the input beyond the amount
/// that a connection may hold while everything flows counts.
const CONNECTIONS: usize = 8;

/// The length of the longest prompt in bytes. A client that has read more reads its output as it comes; a client that
/// sends everything first may still read a line and wait for the next.
const PROMPT: u64 = 16 << 10;
/// The most bytes that a machine keeps for a client that reads nothing: its buffers grow as the client reads, and begin
/// with 128 KiB (Linux, tcp_rmem) or less. A client on a machine whose buffers begin with more passes for one that
/// reads, and is waited for.
const MOST_UNREAD: u64 = 1 << 20;

/// The topic of log lines about clients that were given up.
pub(super) const TOPIC: &str = "programs whose clients sent more than --max-buffer allows and read nothing";
/// The reason in the log why the program is ended.
pub(super) const CAUSE: &str =
    "its client has sent more than --max-buffer allows to be held, and reads none of the output";
/// The reason as the client gets it.
pub(super) const REASON: &str =
    "more input was sent than the server holds while none of the output is read (--max-buffer)";

/// The state of one conversation.
#[derive(Debug, Default)]
pub(super) struct Watch {
    standstill: Standstill,
    share: Share,
    signs: Signs,
    /// The number of bytes that the client's socket has taken.
    sent: u64,
    /// True if client or program have taken bytes since the last look.
    moved: bool,
}

/// The state of the buffers of a conversation, after its door has moved all bytes that it could.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    /// True if there is no room for output while input waits for the program and the client may have more.
    pub(super) is_jammed: bool,
    /// The number of bytes of input that are held.
    pub(super) input: usize,
    /// The most bytes of input that are held while everything flows.
    pub(super) usual: usize,
    /// The patience with a TCP client that shows no sign of reading.
    pub(super) doubt: Duration,
}

impl Watch {
    /// Must be called whenever the client's socket has taken bytes.
    pub(super) fn sent(&mut self, count: usize) {
        self.moved = true;
        self.sent += count as u64;
    }

    /// Must be called whenever the program has taken bytes of input.
    pub(super) fn taken(&mut self) {
        self.moved = true;
    }

    /// Returns the number of bytes that may be read from the client beyond the usual, although its program has not
    /// taken the `input` bytes that are held. `usual` is the most that are held while everything flows.
    pub(super) fn growth(&self, hoard: &Hoard, input: usize, usual: usize) -> usize {
        match self.standstill.may_grow() {
            true => hoard.room(&self.share, input, usual),
            false => 0,
        }
    }

    /// Decides about the conversation. Must be called after bytes have moved, and at the [`deadline`](Self::deadline).
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

    /// Returns true if bytes flow and no more input is held than usual.
    pub(super) fn is_at_rest(&self) -> bool {
        self.standstill.0 == State::Flowing && self.share.0 == 0
    }

    /// Returns the time of the next look, if bytes do not move before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.standstill.deadline()
    }

    /// Gives back the share of the hoard. Must be called when the conversation is over.
    pub(super) fn leave(&mut self, hoard: &mut Hoard) {
        hoard.count(&mut self.share, 0, 0);
    }
}

/// The evidence that a client reads.
#[derive(Debug, Clone, Copy, Default)]
struct Signs {
    /// The number of bytes that had arrived at the client's machine when that was first seen to take no more.
    full_at: Option<u64>,
    /// The number of bytes that the client has certainly read.
    read: u64,
}

/// The facts about a client on which giving it up depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Client {
    /// The number of bytes that the client has certainly read.
    read: u64,
    /// True if the client has more to send.
    has_more: bool,
    /// The time that the client may stand still at the limit, if it has read no more than a prompt.
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

/// The state machine of a conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standstill(State);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Bytes move, or neither side waits for the other.
    #[default]
    Flowing,
    /// No byte moves. `until` is the end of [`PATIENCE`].
    Still { until: Instant },
    /// No byte moves, so more of the input is held.
    Growing,
    /// No byte moves, and no more may be held.
    Full {
        /// The time of the last sign of a reader, or of the beginning of this state.
        since: Instant,
        /// The number of bytes that the client had read by then.
        read: u64,
        /// The time of the next look.
        until: Instant,
    },
}

/// The result of one look at the buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// There is room for output, or no input waits for the program.
    Flow,
    /// The buffers are jammed, but client or program have taken bytes since the last look.
    Moved,
    /// The buffers are jammed, and no byte has moved. `room` is true if more of the input may be held.
    Jam { room: bool },
}

/// The step that a door has to take after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// No step: the next event, or the deadline, brings the next look.
    Wait,
    /// More is read from the client, although its program has not taken all of the input that is held.
    Grow,
    /// The conversation is ended.
    GiveUp,
}

impl Standstill {
    /// Takes one look at the buffers into account. `ask` looks at the client, at the cost of system calls; so it is
    /// called only when its result decides, and when more is held for the first time, since the number of bytes that
    /// have arrived by then can prove later that the client has read.
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

    /// Returns true if more may be held than while everything flows.
    fn may_grow(&self) -> bool {
        self.0 == State::Growing
    }

    /// Returns the time of the next look, if bytes do not move before.
    fn deadline(&self) -> Option<Instant> {
        match self.0 {
            State::Still { until } | State::Full { until, .. } => Some(until),
            State::Flowing | State::Growing => None,
        }
    }
}

/// The count of the bytes of input that the connections of one door hold beyond the usual.
#[derive(Debug, Default)]
pub(super) struct Hoard {
    held: usize,
}

/// The part of one connection in a [`Hoard`], which alone changes it.
#[derive(Debug, Default)]
struct Share(usize);

impl Hoard {
    /// Returns the number of bytes that a connection may hold in addition to its `input` bytes. `usual` is the most
    /// that it holds while everything flows.
    fn room(&self, share: &Share, input: usize, usual: usize) -> usize {
        let one = usual.max(usual.saturating_mul(TIMES).min(MOST));
        let others = self.held.saturating_sub(share.0);
        let left = one
            .saturating_mul(CONNECTIONS)
            .saturating_sub(others)
            .saturating_add(usual);
        one.min(left).saturating_sub(input)
    }

    /// Notes that a connection holds `input` bytes now: 0 when it ends.
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

    /// Returns a client that has more to send and has certainly read `read` bytes.
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

    /// Looks at each deadline until the conversation is given up, and returns the time that this took.
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
    fn bytes_beyond_a_full_machine_or_beyond_its_buffers_were_certainly_read() {
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
        /// A conversation is given up only if, at every look during the client's whole patience, no byte had moved, the
        /// client had read nothing and had more to send, and there was no room; and never if it has read more than a
        /// prompt. More is held only if no byte has moved for [`PATIENCE`]. A conversation that waits has a deadline or
        /// may grow.
        #[test]
        fn the_rules_of_giving_up_hold_for_events_in_any_order(deeds in vec(deed(), 0..200), patience in prop_oneof![Just(5), Just(30)]) {
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
            // A client that does nothing any more is given up, unless it has read enough or has no more to send.
            let end = given_up_after(&mut it, now, |_| it_is);
            prop_assert_eq!(end.is_some(), it_is.has_more && it_is.read <= PROMPT);
            prop_assert!(end.is_none_or(|end| end <= it_is.patience + PATIENCE + PAUSE * 2), "{:?} {}", end, given_up);
        }

        /// Neither one connection nor all of them together exceed their limits, however many stand still and in any
        /// order.
        #[test]
        fn the_input_that_is_held_is_bounded(deeds in vec((0..20_usize, any::<bool>(), 0..1_usize << 24), 0..300)) {
            let usual = 256 << 10;
            let (mut hoard, mut shares) = (Hoard::default(), Vec::new());
            shares.resize_with(20, || (Share::default(), 0_usize));
            for (index, takes, much) in deeds {
                let (share, input) = &mut shares[index];
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
