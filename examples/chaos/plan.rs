//! The steps of one client on one connection: decided by its dice alone.

use std::fmt;
use std::time::Duration;

use crate::dice::Dice;
use crate::mode::Mode;
use crate::numbered;
use crate::request::{self, Expect, NUMBERED, RequestKind};
use crate::wire::Wire;

/// The manners of a client that sends one request, with their weights.
const ONE_SHOT: &[(Manner, usize)] = &[
    (Manner::Plain, 780),
    (Manner::InPieces, 60),
    (Manner::HalfClosed, 60),
    (Manner::SlowReader, 15),
    (Manner::AsksTwice, 20),
    (Manner::Silent, 3),
    (Manner::GoneInside, 15),
    (Manner::Gone, 35),
];
/// The manners of a client that keeps its connection.
const KEPT: &[(Manner, usize)] = &[
    (Manner::InPieces, 30),
    (Manner::Waiting, 20),
    (Manner::Bursts, 20),
    (Manner::Closes, 10),
    (Manner::Idles, 3),
    (Manner::SlowReader, 4),
    (Manner::Silent, 1),
    (Manner::GoneInside, 3),
    (Manner::Gone, 9),
];
/// The manners of a client that has a worker to itself.
const SESSION: &[(Manner, usize)] = &[
    (Manner::InPieces, 60),
    (Manner::HalfClosed, 15),
    (Manner::SlowReader, 5),
    (Manner::Silent, 2),
    (Manner::GoneInside, 8),
    (Manner::Gone, 10),
];
/// The manners of a client that puts numbers before its lines.
const WITH_NUMBERS: &[(Manner, usize)] = &[
    (Manner::InPieces, 30),
    (Manner::Waiting, 15),
    (Manner::Bursts, 30),
    (Manner::Closes, 10),
    (Manner::Idles, 3),
    (Manner::SlowReader, 4),
    (Manner::Silent, 1),
    (Manner::GoneInside, 4),
    (Manner::Gone, 9),
    (Manner::Deaf, 3),
];
/// The flaws of a request itself, out of a thousand requests.
const FLAWS: [(RequestKind, usize); 3] = [
    (RequestKind::Unended, 8),
    (RequestKind::LongRequest, 8),
    (RequestKind::Malformed, 8),
];
/// The flaws of the last line of a client that puts numbers before them.
const FLAWED_LINES: [(RequestKind, usize); 2] = [(RequestKind::Unended, 1), (RequestKind::WithoutNumber, 1)];
/// The percentage of kept connections whose last request is flawed.
const FLAWED_END: usize = 6;
/// The most requests on one connection; fewer than the daemon reads from one client ahead, or more.
const MOST_REQUESTS: usize = 24;
pub(crate) const MOST_WITH_NUMBERS: usize = 60;
/// The most requests in one burst.
pub(crate) const LONGEST_BURST: usize = 8;
/// The most long ones among them: all that is under way at once must find room in sockets that are not read.
const MOST_LONG: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    InPieces,
    /// Ends its input behind its request.
    HalfClosed,
    SlowReader,
    /// Sends two requests where one is heard.
    AsksTwice,
    Silent,
    /// Leaves in the middle of its last request.
    GoneInside,
    /// Leaves some time later.
    Gone,
    /// Asks the next when it has the answer to the last.
    Waiting,
    /// Asks some at once, and the next when all are answered.
    Bursts,
    /// Closes the connection itself once all is answered.
    Closes,
    /// Has all its answers and stays until the daemon closes.
    Idles,
    /// Sends everything, reads nothing, and leaves some time later.
    Deaf,
}

/// The choice between the two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Tcp,
    Unix,
    /// `iotcpd ask --squid` between client and pool, which knows both addresses.
    Ask,
}

/// The number of requests that a connection is for, and what tells their answers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    OneRequest,
    /// Answers come in the order of the requests.
    Kept,
    /// Answers come in any order, each with the number of its request.
    Numbered,
    Session,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Pause(Duration),
    /// Reads until this number of answers is there, counted from the first.
    Await(usize),
    /// Reads until the hello is answered.
    AwaitWelcome,
    EndInput,
}

/// The behaviour of a client after its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// It reads to the end.
    ReadsToEnd,
    /// It reads what it is owed and closes.
    ReadsAnswers,
    Closes,
    /// Closes as a process does that dies with something unread.
    Resets,
}

/// One request and what comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub(crate) kind: RequestKind,
    bytes: Vec<u8>,
    pub(crate) expect: Expect,
    /// The number before it, if it has one.
    pub(crate) number: Option<u32>,
    /// True if the client says that it does not want the answer any more.
    pub(crate) is_cancelled: bool,
}

impl Exchange {
    /// Returns the bytes that go over the wire.
    pub(crate) fn wire(&self) -> Vec<u8> {
        match self.number {
            Some(number) => numbered::request(number, &self.bytes),
            None => self.bytes.clone(),
        }
    }

    /// Returns true if no line need come for it: it is no whole request.
    pub(crate) fn is_optional(&self) -> bool {
        match self.kind {
            RequestKind::Unended => self.number.is_some(),
            RequestKind::WithoutNumber => true,
            _ => false,
        }
    }
}

/// One connection.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    manner: Manner,
    pub(crate) protocol: Protocol,
    pub(crate) via: Via,
    pub(crate) exchanges: Vec<Exchange>,
    pub(crate) steps: Vec<Step>,
    pub(crate) finish: Finish,
    /// Between two reads.
    pub(crate) reads_every: Duration,
}

impl Plan {
    /// Draws the next connection of a client. No other connection has the same `name`.
    pub(crate) fn draw(dice: &mut Dice, mode: &Mode, name: &str) -> Self {
        let protocol = match mode {
            Mode { is_session: true, .. } => Protocol::Session,
            Mode { numbered, .. } if *numbered > 0 && dice.percent(*numbered) => Protocol::Numbered,
            Mode { is_kept: true, .. } => Protocol::Kept,
            _ => Protocol::OneRequest,
        };
        let manners = match protocol {
            Protocol::Session => SESSION,
            Protocol::Numbered => WITH_NUMBERS,
            Protocol::Kept => KEPT,
            Protocol::OneRequest => ONE_SHOT,
        };
        let drawn = dice.weighted(manners).unwrap_or(Manner::Plain);
        // The other modes try the rest enough.
        let via = match dice.percent(if mode.is_secured { 85 } else { 50 }) {
            _ if mode.is_asked => Via::Ask,
            true => Via::Tcp,
            false => Via::Unix,
        };
        let mut exchanges = exchanges(dice, (mode, protocol), drawn, name);
        // Where only the end of input ends a request there is no second.
        let is_open =
            mode.request == Wire::Whole || exchanges.iter().any(|exchange| exchange.kind == RequestKind::Unended);
        let manner = if is_open && drawn == Manner::AsksTwice {
            Manner::Plain
        } else {
            drawn
        };
        let steps = match protocol {
            Protocol::Numbered => numbered::steps(dice, via, manner, &mut exchanges),
            _ => steps(dice, (mode, protocol), manner, &exchanges),
        };
        let finish = match manner {
            Manner::GoneInside | Manner::Gone | Manner::Deaf if dice.percent(50) => Finish::Closes,
            Manner::GoneInside | Manner::Gone | Manner::Deaf => Finish::Resets,
            Manner::Closes => Finish::ReadsAnswers,
            _ => Finish::ReadsToEnd,
        };
        let reads_every = if manner == Manner::SlowReader {
            dice.pause(40)
        } else {
            Duration::ZERO
        };
        Self {
            manner,
            protocol,
            via,
            exchanges,
            steps,
            finish,
            reads_every,
        }
    }

    /// Returns true if its connection begins with a hello.
    pub(crate) fn has_hello(&self) -> bool {
        self.protocol == Protocol::Numbered && self.via != Via::Ask
    }

    /// Returns true if the client reads what the server has said before it sends more.
    pub(crate) fn is_attentive(&self) -> bool {
        !matches!(self.manner, Manner::SlowReader | Manner::Deaf)
    }

    /// Returns the plan from this exchange on, for a client that was not served any more.
    pub(crate) fn again(&self, from: usize) -> Self {
        let mut exchanges = self.exchanges.get(from..).unwrap_or_default().to_owned();
        // All are under way at once now.
        for (exchange, number) in exchanges.iter_mut().zip(0..) {
            exchange.number = exchange.number.map(|_| number);
        }
        let hello = if self.has_hello() { numbered::HELLO } else { b"" };
        let bytes = exchanges.iter().flat_map(Exchange::wire);
        let bytes = hello.iter().copied().chain(bytes).collect();
        Self {
            steps: vec![Step::Send(bytes), Step::EndInput],
            finish: Finish::ReadsToEnd,
            exchanges,
            ..self.clone()
        }
    }
}

fn exchanges(dice: &mut Dice, (mode, protocol): (&Mode, Protocol), manner: Manner, name: &str) -> Vec<Exchange> {
    let is_kept = matches!(protocol, Protocol::Kept | Protocol::Numbered);
    let count = match manner {
        Manner::Silent => 0,
        Manner::SlowReader if is_kept => 1 + dice.below(4),
        _ if protocol == Protocol::Numbered => 1 + dice.below(MOST_WITH_NUMBERS),
        _ if is_kept => 1 + dice.below(MOST_REQUESTS),
        _ => 1,
    };
    let mut kinds = mode.kinds();
    match protocol {
        Protocol::OneRequest => kinds.extend(flaws(mode)),
        Protocol::Numbered if !mode.is_asked => kinds.extend(NUMBERED),
        Protocol::Numbered | Protocol::Kept | Protocol::Session => {}
    }
    let mut long = 0;
    let mut exchanges: Vec<Exchange> = (0..count)
        .map(|number| {
            let mut kind = dice.weighted(&kinds).unwrap_or(RequestKind::Echo);
            if kind == RequestKind::LongEcho {
                long += 1;
                kind = if long > MOST_LONG { RequestKind::Echo } else { kind };
            }
            exchange(dice, mode, kind, &format!("{name}.{number}"))
        })
        .collect();
    let last_flaws = match protocol {
        Protocol::Numbered if mode.is_asked => Vec::new(),
        Protocol::Numbered => FLAWED_LINES.to_vec(),
        _ => flaws(mode),
    };
    if is_kept
        && dice.percent(FLAWED_END)
        && let Some(last) = exchanges.last_mut()
        && let Some(flaw) = dice.weighted(&last_flaws)
    {
        *last = exchange(dice, mode, flaw, &format!("{name}.last"));
    }
    exchanges
}

/// The flaws that exist in this mode.
fn flaws(mode: &Mode) -> Vec<(RequestKind, usize)> {
    let exists = |kind: RequestKind| match kind {
        RequestKind::Unended => mode.request != Wire::Whole,
        RequestKind::Malformed => mode.request.garbage().is_some(),
        _ => true,
    };
    FLAWS.into_iter().filter(|(kind, _)| exists(*kind)).collect()
}

fn exchange(dice: &mut Dice, mode: &Mode, kind: RequestKind, name: &str) -> Exchange {
    let token = format!("{name}-{:016x}", dice.roll());
    let (bytes, expect) = request::request(kind, &token, mode, dice);
    Exchange {
        kind,
        bytes,
        expect,
        number: None,
        is_cancelled: false,
    }
}

fn steps(dice: &mut Dice, (mode, protocol): (&Mode, Protocol), manner: Manner, exchanges: &[Exchange]) -> Vec<Step> {
    let is_kept = protocol == Protocol::Kept;
    let mut bytes: Vec<u8> = exchanges.iter().flat_map(Exchange::wire).collect();
    let mut steps = match manner {
        Manner::Silent => return Vec::new(),
        Manner::Waiting | Manner::Bursts => bursts(dice, manner, exchanges),
        Manner::GoneInside => {
            let last = exchanges.last().map_or(0, |exchange| exchange.wire().len());
            bytes.truncate(bytes.len() - 1 - dice.below(last - 1));
            return vec![Step::Send(bytes), Step::Pause(dice.pause(20))];
        }
        Manner::Gone => {
            let mut steps = in_pieces(dice, bytes, 50);
            if dice.percent(50) {
                // On a kept connection some of the answers are there.
                steps.push(Step::Await(dice.below(exchanges.len())));
                steps.push(Step::Pause(dice.pause(100)));
            }
            return steps;
        }
        Manner::InPieces | Manner::SlowReader | Manner::Closes | Manner::Idles if !mode.is_session => {
            in_pieces(dice, bytes, 50)
        }
        // Long enough for something to come in between.
        Manner::InPieces | Manner::SlowReader | Manner::Closes | Manner::Idles | Manner::Deaf => {
            in_pieces(dice, bytes, 500)
        }
        Manner::AsksTwice => {
            bytes.extend(
                mode.request
                    .encode(b"echo the second request of a connection is nobody's"),
            );
            vec![Step::Send(bytes)]
        }
        Manner::Plain | Manner::HalfClosed => vec![Step::Send(bytes)],
    };
    let stays = matches!(manner, Manner::Closes | Manner::Idles) || (!is_kept && manner != Manner::HalfClosed);
    let needs_end =
        mode.request == Wire::Whole || exchanges.iter().any(|exchange| exchange.kind == RequestKind::Unended);
    if !stays || (needs_end && !is_kept) {
        steps.push(Step::EndInput);
    }
    steps
}

/// Cuts the bytes anywhere, with pauses of less than `pause` milliseconds.
pub(crate) fn in_pieces(dice: &mut Dice, mut bytes: Vec<u8>, pause: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..dice.below(4) {
        let rest = bytes.split_off(dice.below(bytes.len()));
        steps.push(Step::Send(bytes));
        steps.push(Step::Pause(dice.pause(pause)));
        bytes = rest;
    }
    steps.push(Step::Send(bytes));
    steps
}

fn bursts(dice: &mut Dice, manner: Manner, exchanges: &[Exchange]) -> Vec<Step> {
    let (mut steps, mut asked) = (Vec::new(), 0);
    while asked < exchanges.len() {
        let size = if manner == Manner::Waiting {
            1
        } else {
            1 + dice.below(LONGEST_BURST)
        };
        let burst = exchanges.iter().skip(asked).take(size);
        steps.push(Step::Send(burst.flat_map(Exchange::wire).collect()));
        asked = (asked + size).min(exchanges.len());
        // The last answer to a request without an end comes behind the end of input.
        if asked < exchanges.len() {
            steps.push(Step::Await(asked));
        }
    }
    steps
}

/// Bytes as text, the middle of long ones left out.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const END: usize = 60;
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    match (bytes.first_chunk::<END>(), bytes.last_chunk::<END>()) {
        (Some(head), Some(tail)) if bytes.len() > 2 * END => {
            format!("{}...{} ({} bytes)", text(head), text(tail), bytes.len())
        }
        _ => text(bytes),
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<RequestKind> = self.exchanges.iter().map(|exchange| exchange.kind).collect();
        let Self {
            manner, protocol, via, ..
        } = self;
        write!(
            f,
            "{manner:?}, {protocol:?} over {via:?}, {kinds:?}: {:?} {:?}",
            self.steps, self.finish
        )
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => write!(f, "send \"{}\"", shown(bytes)),
            Self::Pause(time) => write!(f, "pause {time:?}"),
            Self::Await(count) => write!(f, "await {count}"),
            Self::AwaitWelcome => f.write_str("await the welcome"),
            Self::EndInput => f.write_str("end input"),
        }
    }
}
