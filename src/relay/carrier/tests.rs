//! The carrier against a model of both sockets and of a pipe that counts slots.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::relay::direction::Cut;

/// The slots of a pipe. The kernel's default is 16.
const SLOTS: usize = 16;
/// The number of bytes in a slot.
const PAGE: usize = 4096;

/// An operation of the peers, of the kernel or of the owner, in any order.
#[derive(Debug, Clone)]
enum Operation {
    /// The source gets segments of this number of bytes each.
    Send(usize, usize),
    /// The source gets a segment that no splice passes.
    SendUrgent(usize),
    EndSource,
    FailSource,
    Take(usize),
    /// The sink takes nothing any more: EPIPE, or with true a reset.
    CloseSink(bool),
    /// An edge of the source, or with true of the sink, although nothing has changed.
    SpuriousEdge(bool),
    /// The next calls of this number are refused, and an edge follows.
    Refuse(usize),
    /// With false, there is no pipe to borrow.
    LendPipes(bool),
    Run,
}

fn operations(with_failures: bool) -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        4 => (1usize..60_000).prop_map(|length| Operation::Send(1, length)),
        2 => (1usize..40, 1usize..2000).prop_map(|(count, length)| Operation::Send(count, length)),
        1 => (1usize..3000).prop_map(Operation::SendUrgent),
        6 => (1usize..100_000).prop_map(Operation::Take),
        9 => Just(Operation::Run),
        1 => any::<bool>().prop_map(Operation::SpuriousEdge),
        2 => (1usize..4).prop_map(Operation::Refuse),
        2 => any::<bool>().prop_map(Operation::LendPipes),
        1 => Just(Operation::EndSource),
        1 => Just(if with_failures { Operation::FailSource } else { Operation::Run }),
        1 => any::<bool>().prop_map(move |is_failure| match with_failures {
            true => Operation::CloseSink(is_failure),
            false => Operation::Run,
        }),
    ];
    proptest::collection::vec(operation, 0..60)
}

/// A pipe: the bytes of each slot.
#[derive(Debug, Clone, Default)]
struct ModelPipe(Rc<RefCell<VecDeque<Vec<u8>>>>);

impl ModelPipe {
    fn length(&self) -> usize {
        self.0.borrow().iter().map(Vec::len).sum()
    }
}

#[derive(Debug, PartialEq)]
enum Sink {
    Open,
    Closed,
    Failed,
}

/// Both sockets as the kernel has them. An edge comes for whatever arrives, and for room in a sink that had none.
#[derive(Debug)]
struct Model {
    number: u32,
    sent: Vec<u8>,
    /// The segments that have arrived and are not read. True stands for one with urgent data.
    source: VecDeque<(Vec<u8>, bool)>,
    source_ended: bool,
    source_failed: bool,
    is_drained: bool,
    sink: Sink,
    unread: usize,
    room: usize,
    /// True if a write was refused since the sink had room.
    sink_was_full: bool,
    taken: Vec<u8>,
    refusals: usize,
    /// Edges of the source and of the sink that are to be reported.
    edges: [bool; 2],
    scratch: Vec<u8>,
    lends_pipes: bool,
    lent: Vec<ModelPipe>,
    calls: usize,
}

impl Model {
    fn new(room: usize) -> Self {
        Self {
            number: 0,
            sent: Vec::new(),
            source: VecDeque::new(),
            source_ended: false,
            source_failed: false,
            is_drained: false,
            sink: Sink::Open,
            unread: 0,
            room,
            sink_was_full: false,
            taken: Vec::new(),
            refusals: 0,
            edges: [false; 2],
            scratch: vec![0; PIECE],
            lends_pipes: true,
            lent: Vec::new(),
            calls: 0,
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let bytes: Vec<u8> = (0..length)
            .map(|at| {
                (self.number + u32::try_from(at).unwrap())
                    .wrapping_mul(2_654_435_761)
                    .to_be_bytes()[0]
            })
            .collect();
        self.number += u32::try_from(length).unwrap();
        self.sent.extend_from_slice(&bytes);
        bytes
    }

    fn send(&mut self, length: usize, is_urgent: bool) {
        if !self.source_ended && !self.source_failed {
            let bytes = self.bytes(length);
            self.source.push_back((bytes, is_urgent));
            self.edges[0] = true;
        }
    }

    fn take_from_sink(&mut self, count: usize) {
        let count = count.min(self.unread);
        self.unread -= count;
        if count > 0 && std::mem::take(&mut self.sink_was_full) {
            self.edges[1] = true;
        }
    }

    /// Refuses this call if that was asked for. An edge of this end follows.
    fn refuses(&mut self, end: usize) -> bool {
        self.calls += 1;
        let refuses = self.refusals > 0;
        if refuses {
            self.refusals -= 1;
            self.edges[end] = true;
        }
        refuses
    }

    fn accept(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        assert!(!bytes.is_empty(), "a write of nothing");
        match self.sink {
            Sink::Closed => return Err(Errno::EPIPE),
            Sink::Failed => return Err(Errno::ECONNRESET),
            Sink::Open => {}
        }
        let count = bytes.len().min(self.room - self.unread);
        if count == 0 {
            self.sink_was_full = true;
            return Err(Errno::EAGAIN);
        }
        self.unread += count;
        self.taken.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_once(&mut self, bytes: &[u8]) -> Event {
        if self.refuses(1) {
            return Event::SinkFull;
        }
        match self.accept(bytes) {
            Ok(count) => Event::Wrote(count),
            Err(Errno::EAGAIN) => Event::SinkFull,
            Err(Errno::EPIPE) => Event::SinkClosed,
            Err(_) => Event::Failed,
        }
    }
}

impl Calls for Model {
    type Pipe = ModelPipe;

    fn borrow(&mut self) -> Option<ModelPipe> {
        self.lends_pipes.then(|| {
            assert!(self.lent.is_empty(), "one pipe at a time");
            let pipe = ModelPipe::default();
            self.lent.push(pipe.clone());
            pipe
        })
    }

    fn give_back(&mut self, pipe: ModelPipe) {
        assert_eq!(pipe.length(), 0, "a pipe is given back empty");
        self.lent.clear();
    }

    fn read(&mut self) -> Result<usize, Event> {
        if self.refuses(0) {
            return Err(Event::SourceEmpty);
        }
        let mut count = 0;
        while let Some((segment, _)) = self.source.front_mut() {
            let part = segment.len().min(PIECE - count);
            self.scratch[count..count + part].copy_from_slice(&segment[..part]);
            segment.drain(..part);
            count += part;
            if !segment.is_empty() {
                break;
            }
            self.source.pop_front();
        }
        self.is_drained = count < PIECE && !self.source_ended && !self.source_failed;
        match count {
            0 if self.source_failed => Err(Event::Failed),
            0 if self.source_ended => Err(Event::SourceEnded),
            0 => Err(Event::SourceEmpty),
            count => Ok(count),
        }
    }

    fn is_drained(&self) -> bool {
        self.is_drained
    }

    fn piece(&self, length: usize) -> &[u8] {
        &self.scratch[..length]
    }

    fn write_piece(&mut self, length: usize) -> Event {
        let piece = self.scratch[..length].to_vec();
        self.write_once(&piece)
    }

    fn write(&mut self, bytes: &[u8]) -> Event {
        self.write_once(bytes)
    }

    fn fill(&mut self, pipe: &ModelPipe) -> Result<usize, Errno> {
        assert_eq!(pipe.length(), 0, "only an empty pipe is filled");
        if self.refuses(0) {
            return Err(Errno::EAGAIN);
        }
        let mut slots = pipe.0.borrow_mut();
        while slots.len() < SLOTS {
            let Some((segment, false)) = self.source.front_mut() else {
                break;
            };
            let part = segment.len().min(PAGE);
            slots.push_back(segment.drain(..part).collect());
            if segment.is_empty() {
                self.source.pop_front();
            }
        }
        match slots.iter().map(Vec::len).sum() {
            0 if self.source.is_empty() && self.source_failed => Err(Errno::ECONNRESET),
            0 if self.source_ended => Ok(0),
            0 => Err(Errno::EAGAIN),
            count => Ok(count),
        }
    }

    fn drain(&mut self, pipe: &ModelPipe, held: usize) -> Result<usize, Errno> {
        assert_eq!(pipe.length(), held, "the carrier knows what its pipe holds");
        if self.refuses(1) {
            return Err(Errno::EAGAIN);
        }
        let (mut count, mut slots) = (0, pipe.0.borrow_mut());
        while let Some(slot) = slots.front_mut() {
            let part = match self.accept(slot) {
                Ok(part) => part,
                Err(errno) if count == 0 => return Err(errno),
                Err(_) => break,
            };
            slot.drain(..part);
            count += part;
            if !slot.is_empty() {
                break;
            }
            slots.pop_front();
        }
        Ok(count)
    }
}

/// Reports the edges that are due, and runs the carrier once.
fn run(carrier: &mut Carrier<ModelPipe>, model: &mut Model) -> PumpEnd {
    for (edge, event) in model.edges.iter_mut().zip([Event::SourceReady, Event::SinkReady]) {
        if std::mem::take(edge) {
            carrier.handle(event);
        }
    }
    let end = carrier.run_with(model);
    match &carrier.held {
        Held::Pipe(pipe) => assert!(pipe.length() > 0, "a pipe is kept only while it holds bytes"),
        Held::Memory(buffer) => assert_eq!(buffer.len(), carrier.direction.held()),
        Held::Nothing => assert_eq!(carrier.direction.held(), 0),
        Held::Rest(pipe) => assert!(pipe.length() > 0 && carrier.direction.cut().is_some()),
    }
    end
}

fn operate(operation: &Operation, carrier: &mut Carrier<ModelPipe>, model: &mut Model) {
    match *operation {
        Operation::Send(count, length) => (0..count).for_each(|_| model.send(length, false)),
        Operation::SendUrgent(length) => model.send(length, true),
        Operation::EndSource => {
            model.edges[0] |= !model.source_failed;
            model.source_ended |= !model.source_failed;
        }
        Operation::FailSource => {
            model.edges[0] |= !model.source_ended;
            model.source_failed |= !model.source_ended;
        }
        Operation::Take(count) => model.take_from_sink(count),
        Operation::CloseSink(is_failure) if model.sink == Sink::Open => {
            model.sink = if is_failure { Sink::Failed } else { Sink::Closed };
            model.edges[1] = true;
        }
        Operation::CloseSink(_) => {}
        Operation::SpuriousEdge(is_of_sink) => model.edges[usize::from(is_of_sink)] = true,
        Operation::Refuse(count) => model.refusals = count,
        Operation::LendPipes(lends) => model.lends_pipes = lends,
        Operation::Run => drop(run(carrier, model)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_byte_arrives_once_and_in_order_and_then_the_end(
        operations in operations(false), room in 1usize..100_000, first in 0usize..20_000,
    ) {
        let mut model = Model::new(room);
        let held = model.bytes(first);
        let mut carrier = Carrier::new(held);
        for operation in &operations {
            operate(operation, &mut carrier, &mut model);
            if let Held::Memory(buffer) = &carrier.held {
                prop_assert!(buffer.len() <= PIECE.max(first), "flat memory");
            }
        }
        // From here on the peers do their part, and the carrier gets only the edges that the kernel would report.
        model.edges[0] |= !std::mem::replace(&mut model.source_ended, true);
        loop {
            let (before, calls) = (carrier.direction.delivered(), model.calls);
            let end = run(&mut carrier, &mut model);
            if end == PumpEnd::AtEnd {
                break;
            }
            prop_assert_ne!(end, PumpEnd::Over);
            let has_moved = end == PumpEnd::MoreLater || carrier.direction.delivered() > before || model.calls > calls;
            let had_unread = model.unread > 0;
            model.take_from_sink(7000);
            prop_assert!(has_moved || had_unread || model.edges != [false; 2], "asleep with work to do: {:?}", carrier);
        }
        prop_assert!(model.lent.is_empty(), "a pipe is still lent");
        prop_assert!(model.taken == model.sent, "{} bytes of {}", model.taken.len(), model.sent.len());
        carrier.handle(Event::EndSignalled);
        prop_assert!(carrier.direction.has_ended());
    }

    /// After any failure the sink has a part from the beginning, the end that has failed is named, and no pipe with
    /// bytes in it is lent to another.
    #[test]
    fn a_direction_that_fails_has_delivered_a_beginning(
        operations in operations(true), room in 1usize..100_000,
    ) {
        let mut model = Model::new(room);
        let mut carrier = Carrier::new(Vec::new());
        for operation in &operations {
            operate(operation, &mut carrier, &mut model);
        }
        model.refusals = 0;
        for _ in 0..10_000 {
            run(&mut carrier, &mut model);
            model.take_from_sink(7000);
        }
        let expected = match (&model.sink, carrier.direction.cut()) {
            (_, None) => {
                prop_assert!(!model.source_failed, "a failed source is noticed when all its bytes are delivered");
                None
            }
            (Sink::Closed, Some(Cut::SinkClosed)) => None,
            (Sink::Failed, Some(Cut::Failed)) if carrier.failed() == Some(FailedEnd::Sink) => Some(FailedEnd::Sink),
            (_, Some(Cut::Failed)) => Some(FailedEnd::Source),
            (sink, Some(Cut::SinkClosed)) => panic!("{sink:?}"),
        };
        prop_assert_eq!(carrier.failed(), expected);
        prop_assert!(expected != Some(FailedEnd::Source) || model.source_failed);
        prop_assert!(carrier.direction.cut().is_none() || matches!(carrier.held, Held::Nothing | Held::Rest(_)));
        prop_assert!(model.sent.starts_with(&model.taken));
        prop_assert_eq!(carrier.direction.delivered(), model.taken.len() as u64);
    }
}

/// Counts the calls that a carrier makes for what one edge brings.
fn calls_for(carrier: &mut Carrier<ModelPipe>, model: &mut Model, segments: usize, length: usize) -> usize {
    (0..segments).for_each(|_| model.send(length, false));
    let before = model.calls;
    let mut end = run(carrier, model);
    while end == PumpEnd::MoreLater {
        end = run(carrier, model);
    }
    model.take_from_sink(usize::MAX);
    model.calls - before
}

#[test]
fn a_small_piece_costs_two_calls_and_no_pipe() {
    let (mut model, mut carrier) = (Model::new(10 << 20), Carrier::new(Vec::new()));
    for length in [1, 100, 1400, PIECE - 1] {
        assert_eq!(calls_for(&mut carrier, &mut model, 1, length), 2, "{length}");
        assert_eq!(carrier.gauge, Gauge::Pieces);
    }
}

/// Two calls for each pipe full, and two to learn that there is no more.
#[test]
fn bulk_is_spliced_and_small_fills_end_that() {
    let (mut model, mut carrier) = (Model::new(10 << 20), Carrier::new(Vec::new()));
    assert_eq!(
        calls_for(&mut carrier, &mut model, 1, PIECE + SLOTS * PAGE * 3),
        2 + 6 + 2
    );
    assert_eq!(carrier.spliced(), 3 * (SLOTS * PAGE) as u64);
    assert_eq!(calls_for(&mut carrier, &mut model, 1, 5000), 2 + 2);
    assert_eq!(
        calls_for(&mut carrier, &mut model, 1, 5000),
        2 + 1,
        "the read is the one of a piece"
    );
    assert_eq!(calls_for(&mut carrier, &mut model, 1, 5000), 2);
    assert!(model.lent.is_empty());
}

#[test]
fn a_direction_without_a_pipe_copies_the_same_bytes() {
    let (mut model, mut carrier) = (Model::new(10 << 20), Carrier::new(Vec::new()));
    model.lends_pipes = false;
    calls_for(&mut carrier, &mut model, 5, 50_000);
    assert_eq!((carrier.spliced(), carrier.direction.delivered()), (0, 250_000));
    assert!(model.taken == model.sent);
}

#[test]
fn one_direction_does_not_take_the_whole_turn() {
    let (mut model, mut carrier) = (Model::new(100 << 20), Carrier::new(Vec::new()));
    model.send(20 << 20, false);
    assert_eq!(run(&mut carrier, &mut model), PumpEnd::MoreLater);
    assert!(carrier.direction.delivered() <= BYTES_PER_TURN + (SLOTS * PAGE) as u64);
    model.lends_pipes = false;
    model.source.clear();
    (0..1000).for_each(|_| model.send(PIECE, false));
    let before = carrier.direction.delivered();
    assert_eq!(run(&mut carrier, &mut model), PumpEnd::MoreLater);
    assert!(carrier.direction.delivered() - before <= (STEPS_PER_TURN * PIECE) as u64);
}
