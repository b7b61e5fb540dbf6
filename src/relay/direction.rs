//! One direction of a conversation, decided without touching it: [`Event`] in, [`Todo`] out.
//!
//! ```text
//! Open ──source ended──▸ Emptying ──nothing held──▸ AtEnd ──end told──▸ Ended
//!   └───────────────────────┴── an end failed ──▸ Cut
//! ```
//!
//! The poll is edge-triggered: an end is tried until it says that it has nothing, or takes nothing, and from then on it is
//! waited for. A direct move (`splice`) that says so does not say which of the two ends it was: then either's edge is
//! worth a try.
//!
//! While the sink takes nothing the source waits as well, unless its owner [lets more be held](Direction::set_hold_limit): then the
//! source is read on, up to that limit. What is held goes out before anything else, so bytes keep their order.

/// How bytes go from source to sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// In one step, inside the kernel.
    Splice,
    /// Read, held, written.
    Copy,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// So many bytes went from source to sink in one step.
    Spliced(usize),
    /// So many were read and are held.
    Read(usize),
    /// So many of those held were written.
    Wrote(usize),
    /// A direct move is not possible now; which end it is that does not follow is not known.
    Stuck,
    /// The source has nothing at the moment.
    SourceEmpty,
    /// The sink takes nothing at the moment.
    SinkFull,
    /// The source has ended, or whatever comes from it is not wanted any more: what is held is still delivered.
    SourceEnded,
    /// The sink takes nothing any more.
    SinkClosed,
    /// One of the ends has failed.
    Failed,
    /// The sink was told that nothing more comes.
    EndSignalled,
    /// An edge: there may be something to read.
    SourceReady,
    /// An edge: something may be written.
    SinkReady,
    /// Direct moves are not possible between these two at all.
    NotSpliceable,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Todo {
    /// Move bytes in one step, and report how it went.
    Splice,
    /// Read, and report how it went.
    Read,
    /// Read at most so many bytes although the sink takes nothing, keep them behind those that are held, and report how it
    /// went.
    Hold(usize),
    /// Write what is held, and report how it went.
    Write,
    /// Tell the sink that nothing more comes, and report that.
    SignalEnd,
    /// Nothing before the next edge.
    Wait,
    /// Nothing ever again.
    Nothing,
}

/// How a direction was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The sink takes nothing any more.
    SinkClosed,
    /// One of the ends has failed.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// More may come.
    Open,
    /// Nothing more comes; what is held is still to be delivered.
    Emptying,
    /// All is delivered, and the sink does not know yet that this was all.
    AtEnd,
    /// It knows.
    Ended,
    Cut(Cut),
}

/// Which end is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Neither,
    Source,
    Sink,
    /// An edge of one of the two is enough.
    Either,
    /// The sink takes nothing, and the source, which would be read on, has nothing.
    Both,
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    transfer: Transfer,
    state: State,
    awaited: Awaited,
    held: usize,
    /// How many may be held while the sink takes nothing.
    limit: usize,
    delivered: u64,
}

impl Direction {
    /// A direction that begins; `held` bytes are there already, to be delivered first.
    #[must_use]
    pub const fn new(transfer: Transfer, held: usize) -> Self {
        Self {
            transfer,
            state: State::Open,
            awaited: Awaited::Neither,
            held,
            limit: 0,
            delivered: 0,
        }
    }

    /// What is to be done next.
    #[must_use]
    pub const fn next(&self) -> Todo {
        match (self.state, self.awaited) {
            (State::AtEnd, _) => Todo::SignalEnd,
            (State::Ended | State::Cut(_), _) => Todo::Nothing,
            // What is held goes first; whatever the source has or has not does not matter to it.
            (State::Open | State::Emptying, Awaited::Neither | Awaited::Source) if self.held > 0 => Todo::Write,
            (State::Open, Awaited::Neither) => match self.transfer {
                Transfer::Splice => Todo::Splice,
                Transfer::Copy => Todo::Read,
            },
            // After a direct move that was stuck it may be the source that has nothing. Then a read says so.
            (State::Open, Awaited::Sink | Awaited::Either) if self.held < self.limit => {
                Todo::Hold(self.limit - self.held)
            }
            (State::Open | State::Emptying, _) => Todo::Wait,
        }
    }

    /// Takes in what has happened. What cannot happen in a state, or comes too late for it, changes nothing.
    pub fn handle(&mut self, event: Event) {
        match (self.state, event) {
            (State::Ended | State::Cut(_), _) => {}
            (State::AtEnd, Event::EndSignalled) => self.state = State::Ended,
            (_, Event::SinkClosed) => self.cut_short(Cut::SinkClosed),
            (_, Event::Failed) => self.cut_short(Cut::Failed),
            (State::Open, Event::Spliced(count)) => self.count(count),
            (State::Open, Event::Read(count)) => {
                self.held += count;
                if self.awaited == Awaited::Either {
                    self.awaited = Awaited::Neither;
                }
            }
            (State::Open | State::Emptying, Event::Wrote(count)) => {
                let count = count.min(self.held);
                self.held -= count;
                self.count(count);
                self.settle();
            }
            (State::Open, Event::Stuck) => self.awaited = Awaited::Either,
            (State::Open, Event::SourceEmpty) => {
                self.awaited = match self.awaited {
                    Awaited::Sink | Awaited::Both => Awaited::Both,
                    Awaited::Neither | Awaited::Source | Awaited::Either => Awaited::Source,
                };
            }
            (State::Open | State::Emptying, Event::SinkFull) => self.awaited = Awaited::Sink,
            (State::Open, Event::SourceEnded) => {
                self.state = State::Emptying;
                self.settle();
            }
            (State::Open | State::Emptying, Event::SourceReady) => self.mark_ready(Awaited::Source),
            (State::Open | State::Emptying, Event::SinkReady) => self.mark_ready(Awaited::Sink),
            (State::Open, Event::NotSpliceable) => self.transfer = Transfer::Copy,
            // Edges that tell nothing new, and steps that were not asked for.
            (State::AtEnd, _) | (State::Open, Event::EndSignalled) | (State::Emptying, _) => {}
        }
    }

    fn cut_short(&mut self, cut: Cut) {
        (self.state, self.held) = (State::Cut(cut), 0);
    }

    fn count(&mut self, count: usize) {
        self.delivered += u64::try_from(count).unwrap_or(u64::MAX);
    }

    fn settle(&mut self) {
        if self.state == State::Emptying && self.held == 0 {
            self.state = State::AtEnd;
        }
    }

    fn mark_ready(&mut self, end: Awaited) {
        self.awaited = match (self.awaited, end) {
            (Awaited::Both, Awaited::Source) => Awaited::Sink,
            (Awaited::Both, Awaited::Sink) => Awaited::Source,
            (Awaited::Either, _) => Awaited::Neither,
            (awaited, end) if awaited == end => Awaited::Neither,
            (awaited, _) => awaited,
        };
    }

    /// So many bytes may be held from now on while the sink takes nothing. At first, and with 0, none are read then; what is
    /// held already stays.
    pub const fn set_hold_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// How many bytes were read, or given, that the sink has not taken.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Whether bytes wait for the sink, which takes none. `source_has` says whether there are some to be read; it is asked only
    /// if none are held.
    #[must_use]
    pub fn is_blocked(&self, source_has: impl FnOnce() -> bool) -> bool {
        match (self.state, self.awaited) {
            (State::Open | State::Emptying, Awaited::Sink | Awaited::Both) if self.held > 0 => true,
            (State::Open, Awaited::Either) => source_has(),
            _ => false,
        }
    }

    /// How many bytes the sink has taken.
    #[must_use]
    pub const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Whether all was delivered, and the sink knows that it was all.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether nothing will ever be done again.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Ended | State::Cut(_))
    }

    /// How it was cut short, if it was.
    #[must_use]
    pub const fn cut(&self) -> Option<Cut> {
        match self.state {
            State::Cut(cut) => Some(cut),
            State::Open | State::Emptying | State::AtEnd | State::Ended => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// What a peer of the two ends may do, in any order.
    #[derive(Debug, Clone, Copy)]
    enum Operation {
        Send(u8),
        End,
        Take(u8),
        Run(u8),
        SetHoldLimit(usize),
    }

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let operation = prop_oneof![
            3 => (1u8..40).prop_map(Operation::Send),
            3 => (1u8..40).prop_map(Operation::Take),
            4 => (1u8..6).prop_map(Operation::Run),
            1 => Just(Operation::End),
            1 => prop_oneof![Just(0), 1usize..100].prop_map(Operation::SetHoldLimit),
        ];
        proptest::collection::vec(operation, 0..200)
    }

    /// Both ends as the kernel has them: edges come when something has changed from nothing to something, and never
    /// again for the same.
    struct Ends {
        direction: Direction,
        number: u8,
        source: VecDeque<u8>,
        source_ended: bool,
        held: VecDeque<u8>,
        limit: usize,
        sink: VecDeque<u8>,
        capacity: usize,
        taken: Vec<u8>,
        sent: Vec<u8>,
        end_signalled: bool,
    }

    impl Ends {
        fn new(transfer: Transfer, capacity: usize, first: u8) -> Self {
            let held: VecDeque<u8> = (0..first).map(|byte| 200 + byte % 50).collect();
            Self {
                direction: Direction::new(transfer, held.len()),
                number: 0,
                source: VecDeque::new(),
                source_ended: false,
                sent: held.iter().copied().collect(),
                held,
                limit: 0,
                sink: VecDeque::new(),
                capacity,
                taken: Vec::new(),
                end_signalled: false,
            }
        }

        fn room(&self) -> usize {
            self.capacity - self.sink.len()
        }

        fn send(&mut self, count: u8) {
            if self.source_ended {
                return;
            }
            for _ in 0..count {
                self.source.push_back(self.number);
                self.sent.push(self.number);
                self.number = self.number.wrapping_add(1);
            }
            self.direction.handle(Event::SourceReady);
        }

        fn end(&mut self) {
            if !std::mem::replace(&mut self.source_ended, true) {
                self.direction.handle(Event::SourceReady);
            }
        }

        /// The edge of a sink comes when it was full and is not any more.
        fn take(&mut self, count: u8) {
            assert!(
                !self.end_signalled || self.direction.is_over(),
                "nothing is written behind the end"
            );
            let was_full = self.room() == 0;
            let count = usize::from(count).min(self.sink.len());
            self.taken.extend(self.sink.drain(..count));
            if was_full && count > 0 {
                self.direction.handle(Event::SinkReady);
            }
        }

        fn set_hold_limit(&mut self, limit: usize) {
            self.limit = limit;
            self.direction.set_hold_limit(limit);
        }

        /// Whether it may be asked again at once.
        fn step(&mut self) -> bool {
            match self.direction.next() {
                Todo::Splice => match self.source.len().min(self.room()).min(7) {
                    0 if self.source.is_empty() && self.source_ended => self.direction.handle(Event::SourceEnded),
                    0 => self.direction.handle(Event::Stuck),
                    count => {
                        self.sink.extend(self.source.drain(..count));
                        self.direction.handle(Event::Spliced(count));
                    }
                },
                Todo::Read => match self.source.len().min(5) {
                    0 if self.source_ended => self.direction.handle(Event::SourceEnded),
                    0 => self.direction.handle(Event::SourceEmpty),
                    count => {
                        assert!(self.held.is_empty(), "one piece at a time is held");
                        self.held.extend(self.source.drain(..count));
                        self.direction.handle(Event::Read(count));
                    }
                },
                Todo::Hold(most) => {
                    let sink_is_full = self.room() == 0;
                    assert!(most > 0 && self.held.len() + most <= self.limit);
                    assert!(sink_is_full || self.held.is_empty(), "held though the sink takes it");
                    match self.source.len().min(5).min(most) {
                        0 if self.source_ended => self.direction.handle(Event::SourceEnded),
                        0 => self.direction.handle(Event::SourceEmpty),
                        count => {
                            self.held.extend(self.source.drain(..count));
                            self.direction.handle(Event::Read(count));
                        }
                    }
                }
                Todo::Write => match self.held.len().min(self.room()) {
                    0 => self.direction.handle(Event::SinkFull),
                    count => {
                        self.sink.extend(self.held.drain(..count));
                        self.direction.handle(Event::Wrote(count));
                    }
                },
                Todo::SignalEnd => {
                    assert!(self.source_ended && self.source.is_empty() && self.held.is_empty());
                    assert!(
                        !std::mem::replace(&mut self.end_signalled, true),
                        "the end is told once"
                    );
                    self.direction.handle(Event::EndSignalled);
                }
                Todo::Wait | Todo::Nothing => return false,
            }
            true
        }
    }

    proptest! {
        #[test]
        fn every_byte_arrives_in_order_and_then_the_end(
            operations in operations(), direct in any::<bool>(), capacity in 1usize..50, first in 0u8..20,
        ) {
            let transfer = if direct { Transfer::Splice } else { Transfer::Copy };
            let mut ends = Ends::new(transfer, capacity, first);
            for operation in operations {
                match operation {
                    Operation::Send(count) => ends.send(count),
                    Operation::End => ends.end(),
                    Operation::Take(count) => ends.take(count),
                    Operation::Run(steps) => for _ in 0..steps { ends.step(); },
                    Operation::SetHoldLimit(limit) => ends.set_hold_limit(limit),
                }
                prop_assert_eq!(ends.direction.held(), ends.held.len());
            }
            // From here on both ends do their part, and the direction gets no edge but those the kernel would report.
            ends.end();
            while !ends.end_signalled {
                let mut moved = false;
                while ends.step() { moved = true; }
                let before = ends.taken.len();
                ends.take(3);
                prop_assert!(moved || ends.taken.len() > before, "asleep with work to do: {:?}", ends.direction);
            }
            ends.take(255);
            prop_assert_eq!(&ends.taken, &ends.sent);
            prop_assert_eq!(ends.direction.delivered(), ends.sent.len() as u64);
            prop_assert!(ends.direction.is_over() && ends.direction.cut().is_none());
        }

        /// Any event in any state: over stays over, and what is over has nothing to do.
        #[test]
        fn a_direction_that_is_over_stays_over(events in proptest::collection::vec(0usize..13, 0..60), direct in any::<bool>()) {
            let all = [
                Event::Spliced(3), Event::Read(3), Event::Wrote(3), Event::Stuck, Event::SourceEmpty, Event::SinkFull,
                Event::SourceEnded, Event::SinkClosed, Event::Failed, Event::EndSignalled, Event::SourceReady,
                Event::SinkReady, Event::NotSpliceable,
            ];
            let mut direction = Direction::new(if direct { Transfer::Splice } else { Transfer::Copy }, 2);
            for event in events {
                let before = direction;
                direction.handle(all[event]);
                if before.is_over() {
                    prop_assert_eq!(before, direction);
                }
                prop_assert_eq!(direction.is_over(), direction.next() == Todo::Nothing);
                prop_assert!(direction.delivered() >= before.delivered());
            }
        }
    }

    proptest! {
        /// The sink takes nothing any more: all that the limit allows is read from the source, and what is told of it is
        /// true.
        #[test]
        fn a_source_is_read_on_up_to_the_limit_while_the_sink_is_full(
            pieces in proptest::collection::vec(1u8..40, 1..20), direct in any::<bool>(), limit in 1usize..300,
        ) {
            let transfer = if direct { Transfer::Splice } else { Transfer::Copy };
            let mut ends = Ends::new(transfer, 10, 0);
            let sent: usize = pieces.iter().map(|piece| usize::from(*piece)).sum();
            for (at, piece) in pieces.iter().enumerate() {
                if at == pieces.len() / 2 {
                    ends.set_hold_limit(limit);
                }
                ends.send(*piece);
                while ends.step() {}
            }
            let beyond = sent.saturating_sub(10);
            // A direction that copies reads a piece before it is known that the sink is full.
            let held = if direct { beyond.min(limit) } else { beyond.min(limit.max(ends.held.len().min(5))) };
            prop_assert_eq!((ends.direction.delivered(), ends.direction.held()), (sent.min(10) as u64, held));
            let source_has = !ends.source.is_empty();
            prop_assert_eq!(ends.direction.is_blocked(|| source_has), beyond > 0);
            ends.set_hold_limit(0);
            ends.end();
            while !ends.end_signalled {
                while ends.step() {}
                ends.take(3);
            }
            ends.take(255);
            prop_assert_eq!(&ends.taken, &ends.sent);
        }
    }

    #[test]
    fn a_stuck_splice_is_tried_again_after_an_edge_of_either_end() {
        for edge in [Event::SourceReady, Event::SinkReady] {
            let mut direction = Direction::new(Transfer::Splice, 0);
            direction.handle(Event::Stuck);
            assert_eq!(direction.next(), Todo::Wait);
            direction.handle(edge);
            assert_eq!(direction.next(), Todo::Splice);
        }
    }

    #[test]
    fn held_bytes_go_first_and_do_not_wait_for_the_source() {
        let mut direction = Direction::new(Transfer::Splice, 5);
        direction.handle(Event::SourceEmpty);
        assert_eq!(direction.next(), Todo::Write);
        direction.handle(Event::SinkFull);
        direction.handle(Event::SourceReady);
        assert_eq!(direction.next(), Todo::Wait);
        direction.handle(Event::SinkReady);
        direction.handle(Event::Wrote(5));
        assert_eq!(direction.next(), Todo::Splice);
    }

    #[test]
    fn a_cut_drops_the_held_bytes() {
        let mut direction = Direction::new(Transfer::Copy, 5);
        direction.handle(Event::SinkClosed);
        assert_eq!(
            (direction.next(), direction.cut()),
            (Todo::Nothing, Some(Cut::SinkClosed))
        );
        assert_eq!(direction.delivered(), 0);
    }
}
