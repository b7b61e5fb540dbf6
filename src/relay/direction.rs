//! One direction of a conversation, decided without I/O: an [`Event`] goes in, and [`Direction::next`] says what to do.
//!
//! ```text
//! Open ──source ended──▸ Emptying ──nothing held──▸ AtEnd ──end signalled──▸ Ended
//!   └───────────────────────┴── an end failed ──▸ Cut
//! ```
//!
//! The poll is edge-triggered: the owner tries an end until that end has no bytes, or takes none, and waits for an edge
//! of it from then on. A splice that would block does not say which of the two ends blocks it, so an edge of either end
//! is worth another try.
//!
//! While the sink takes nothing, the source waits as well, unless the owner [lets more bytes be
//! held](Direction::set_hold_limit): then the source is read up to that limit. Held bytes go out before any others, so
//! all bytes keep their order.

/// The ways in which bytes go from source to sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// The bytes go by `splice(2)`, inside the kernel.
    Splice,
    /// The bytes go by `read(2)` into memory and by `write(2)` from there.
    Copy,
}

/// An observation or the outcome of a step, as the owner reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// This number of bytes was spliced from source to sink.
    Spliced(usize),
    /// This number of bytes was read and is held.
    Read(usize),
    /// This number of the held bytes was written.
    Wrote(usize),
    /// A splice would block. Which of the ends blocks it is not known.
    Stuck,
    /// The source has no bytes at the moment.
    SourceEmpty,
    /// The sink takes no bytes at the moment.
    SinkFull,
    /// The source has ended, or the owner wants nothing more from it. The held bytes are still delivered.
    SourceEnded,
    /// The sink takes no bytes any more.
    SinkClosed,
    /// One of the ends has failed.
    Failed,
    /// The owner has told the sink that nothing more comes.
    EndSignalled,
    /// An edge: the source may be readable.
    SourceReady,
    /// An edge: the sink may be writable.
    SinkReady,
    /// The kernel cannot splice between these two ends at all.
    NotSpliceable,
}

/// The next step. The owner carries it out and reports its outcome as an [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Todo {
    /// Splice bytes from source to sink.
    Splice,
    /// Read bytes from the source.
    Read,
    /// Read at most this number of bytes although the sink takes nothing, and keep them behind the held ones.
    Hold(usize),
    /// Write the held bytes to the sink.
    Write,
    /// Tell the sink that nothing more comes.
    SignalEnd,
    /// Do nothing before the next edge.
    Wait,
    /// Do nothing any more.
    Nothing,
}

/// The reason why a direction ended before all bytes were delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The sink takes no bytes any more.
    SinkClosed,
    /// One of the ends has failed.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// More bytes may come.
    Open,
    /// Nothing more comes, and held bytes are still to be delivered.
    Emptying,
    /// All bytes are delivered, and the sink does not know yet that nothing more comes.
    AtEnd,
    /// All bytes are delivered, and the sink knows that nothing more comes.
    Ended,
    Cut(Cut),
}

/// The ends of which an edge is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Neither,
    Source,
    Sink,
    /// An edge of either end is enough.
    Either,
    /// The sink takes nothing, and the source, which would be read up to the limit, has nothing.
    Both,
}

/// The state of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    transfer: Transfer,
    state: State,
    awaited: Awaited,
    held: usize,
    /// The number of bytes that may be held while the sink takes nothing.
    limit: usize,
    delivered: u64,
}

impl Direction {
    /// Returns a direction that begins with `held` bytes, which are delivered first.
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

    /// Returns the next step.
    #[must_use]
    pub const fn next(&self) -> Todo {
        match (self.state, self.awaited) {
            (State::AtEnd, _) => Todo::SignalEnd,
            (State::Ended | State::Cut(_), _) => Todo::Nothing,
            // Held bytes go first, whatever the state of the source.
            (State::Open | State::Emptying, Awaited::Neither | Awaited::Source) if self.held > 0 => Todo::Write,
            (State::Open, Awaited::Neither) => match self.transfer {
                Transfer::Splice => Todo::Splice,
                Transfer::Copy => Todo::Read,
            },
            // After a splice that would block, the source may be the end without bytes. A read finds that out.
            (State::Open, Awaited::Sink | Awaited::Either) if self.held < self.limit => {
                Todo::Hold(self.limit - self.held)
            }
            (State::Open | State::Emptying, _) => Todo::Wait,
        }
    }

    /// Takes an event into account. An event that cannot happen in this state, or comes too late for it, changes
    /// nothing.
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
            // These edges tell nothing new, and these steps were not asked for.
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

    /// Sets the number of bytes that may be held while the sink takes nothing. It is 0 at first: then nothing is read
    /// while the sink is full. Bytes that are held already stay.
    pub const fn set_hold_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Returns the number of bytes that were read, or given at the start, and that the sink has not taken.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Returns true if bytes wait for the sink, which takes none. `source_has` returns true if the source has bytes to
    /// read; it is called only if none are held.
    #[must_use]
    pub fn is_blocked(&self, source_has: impl FnOnce() -> bool) -> bool {
        match (self.state, self.awaited) {
            (State::Open | State::Emptying, Awaited::Sink | Awaited::Both) if self.held > 0 => true,
            (State::Open, Awaited::Either) => source_has(),
            _ => false,
        }
    }

    /// Returns the number of bytes that the sink has taken.
    #[must_use]
    pub const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Returns true once all bytes are delivered and the sink knows that nothing more comes.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Returns true once nothing is left to do, in good order or not.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Ended | State::Cut(_))
    }

    /// Returns the reason if the direction was cut short.
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

    /// The operations of the peers at both ends, in any order.
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

    /// A model of both ends as the kernel has them: an edge comes when an end had or took nothing and now does, and
    /// never twice for the same change.
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

        /// An edge of the sink comes when the sink was full and is no longer.
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

        /// Returns true if another step may be taken at once.
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
            // From here on both peers do their part, and the direction gets only edges that the kernel would report.
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

        /// For any events in any state, a direction that is over stays over and has no next step.
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
        /// While the sink takes nothing, the source is read up to the limit, and the accessors report that truly.
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
            // A direction that copies reads one piece before it learns that the sink is full.
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
