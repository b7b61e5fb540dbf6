//! The kinds of requests: what each makes its worker do, or its own flaw, and what its client must see for it.
//!
//! Every answer bears a token of its own, so an answer that belongs to another request, or is cut, or has something
//! behind it, is seen. One kind is left out because no client could judge it: a worker that writes a second reply, or
//! chats, some time after its first. If it has been given another request by then, that is the reply to it as far as
//! any reader of its output can know. So [`RequestKind::TwoReplies`] writes both at once, and is not asked where
//! requests are written ahead; nor is [`RequestKind::NoEnd`], which the next reply would end.
//! [`RequestKind::LineTooMany`] writes them one after the other, but only where workers rest after each reply, and only
//! if the second comes soon enough for that.

use crate::dice::Dice;
use crate::mode::Mode;
use crate::plan::shown;
use crate::worker;

pub(crate) const MAX_REQUEST: usize = 16 * 1024;
/// More than a pipe or a socket of the kernel takes at once while the other end does not read.
pub(crate) const MAX_REPLY: usize = 64 * 1024;

/// Milliseconds that slow workers take, and how often of 100. The last one is longer than any busy time-out here.
const TIMES: [(u64, usize); 5] = [(5, 40), (30, 40), (150, 15), (700, 4), (3000, 1)];
/// Milliseconds between a reply and a line too many behind it, at most.
const LONGEST_PAUSE: usize = 8;
/// The number of different requests that share an answer.
const KEYS: usize = 12;
/// The bytes that fit into pipes and sockets while the other end does not read.
const LONGEST_SESSION: usize = 60_000;

/// See the groups below and [`request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RequestKind {
    Echo,
    LongEcho,
    /// Any bytes, also the ones that end a message elsewhere.
    Binary,
    Slow,
    SlowInside,
    SlowAfter,
    Complain,
    NulReply,
    /// A reply of two lines, which a client that reads lines cannot be given.
    Lines,
    TooLong,
    Garbage,
    Die,
    KillSelf,
    DieFirst,
    DieInside,
    DieAfter,
    Hang,
    StopReading,
    CloseStdin,
    CloseStdout,
    IgnoreTerm,
    Child,
    TwoReplies,
    /// Two replies, the second one right behind the first.
    LineTooMany,
    NoEnd,
    /// Two replies under one channel-ID.
    Doubled,
    UnknownId,
    WithoutId,
    /// The same request as others ask at the same time.
    Shared,
    /// From now on the worker's probes fail; nothing else does.
    TurnSick,
    /// For how long they have failed already.
    Health,
    /// Bytes without a meaning, which come back, and their sum.
    Session,
    // The client's own.
    Unended,
    LongRequest,
    NulRequest,
    Malformed,
    /// With a CR in the middle, which some programs take for the end of a line.
    LoneCr,
    /// The same line twice, under the same number.
    SameNumber,
    /// A line without a number where each has one, and one with a number behind it.
    WithoutNumber,
}

/// A group of kinds, and how often each comes; weights of all groups of a mode are added up.
pub(crate) type Group = &'static [(RequestKind, usize)];

pub(crate) const SOUND: Group = &[
    (RequestKind::Echo, 560),
    (RequestKind::Slow, 60),
    (RequestKind::Complain, 5),
];
pub(crate) const LONG: Group = &[
    (RequestKind::LongEcho, 40),
    (RequestKind::SlowInside, 25),
    (RequestKind::TooLong, 2),
];
pub(crate) const DEADLY: Group = &[
    (RequestKind::Die, 4),
    (RequestKind::KillSelf, 2),
    (RequestKind::DieFirst, 10),
    (RequestKind::Hang, 1),
    (RequestKind::IgnoreTerm, 3),
];
/// Faults that a worker which serves once can have as well.
pub(crate) const DEADLY_INSIDE: Group = &[(RequestKind::DieInside, 6), (RequestKind::Child, 4)];
/// Only of a worker that is used again.
pub(crate) const LASTING: Group = &[
    (RequestKind::SlowAfter, 15),
    (RequestKind::DieAfter, 10),
    (RequestKind::StopReading, 1),
    (RequestKind::CloseStdin, 2),
    (RequestKind::CloseStdout, 2),
];
/// Only of a worker that has one request at a time: see the head of this file.
pub(crate) const OUT_OF_STEP: Group = &[(RequestKind::TwoReplies, 8), (RequestKind::NoEnd, 2)];
/// Only of a worker that rests.
pub(crate) const TOO_MANY: Group = &[(RequestKind::LineTooMany, 60)];
pub(crate) const CHANNELS: Group = &[
    (RequestKind::Doubled, 4),
    (RequestKind::UnknownId, 3),
    (RequestKind::WithoutId, 3),
];
pub(crate) const LINES: Group = &[
    (RequestKind::NulReply, 5),
    (RequestKind::NulRequest, 8),
    (RequestKind::LoneCr, 8),
];
/// Only of clients that put numbers before their lines: a flaw costs them nothing else.
pub(crate) const NUMBERED: Group = &[(RequestKind::LongRequest, 8), (RequestKind::SameNumber, 10)];
pub(crate) const UNSAYABLE: Group = &[(RequestKind::Lines, 8)];
pub(crate) const BINARY: Group = &[(RequestKind::Binary, 200)];
pub(crate) const GARBAGE: Group = &[(RequestKind::Garbage, 4)];
pub(crate) const SHARED: Group = &[(RequestKind::Shared, 1500)];
pub(crate) const PROBED: Group = &[(RequestKind::TurnSick, 20), (RequestKind::Health, 100)];

pub(crate) const SESSION: Group = &[(RequestKind::Session, 100)];

/// The result that a client must see for its request. A refusal is always allowed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Expect {
    Answer(Vec<u8>),
    Refusal,
    /// This key, and when the worker was started, which is not before what was in force when the request was sent.
    Shared(String),
    /// All of this; or a part of it from its beginning on, if the worker with this token has not come to its end or the
    /// idle time-out was over.
    Session {
        bytes: Vec<u8>,
        token: String,
    },
    /// This token, and how long the worker has been sick, if it is.
    Health(String),
}

impl std::fmt::Debug for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answer(bytes) => write!(f, "\"{}\"", shown(bytes)),
            Self::Refusal => f.write_str("a refusal"),
            Self::Shared(key) => write!(f, "\"{key}\" of a worker that is new enough"),
            Self::Session { bytes, .. } => write!(f, "\"{}\" or a part of it", shown(bytes)),
            Self::Health(token) => write!(f, "\"{token}\" of a worker that is not sick for long"),
        }
    }
}

/// The request as it goes over the wire, and what comes back for it. No other request of this run has the same `token`.
pub(crate) fn request(kind: RequestKind, token: &str, mode: &Mode, dice: &mut Dice) -> (Vec<u8>, Expect) {
    let text = text(kind, token, dice);
    let verb = verb(kind, &text, mode, dice);
    let answer = Expect::Answer(text.into_bytes());
    let plain = |verb: String| mode.request.encode(verb.as_bytes());
    match kind {
        RequestKind::Binary => {
            let noise: Vec<u8> = (0..dice.below(300)).map(|_| dice.roll().to_be_bytes()[0]).collect();
            let text = [token.as_bytes(), &noise].concat();
            (
                mode.request.encode(&[b"echo ", text.as_slice()].concat()),
                Expect::Answer(text),
            )
        }
        RequestKind::Session => {
            let noise = (0..dice.below(LONGEST_SESSION)).map(|_| dice.roll().to_be_bytes()[0]);
            let said: Vec<u8> = token.bytes().chain([b' ']).chain(noise).collect();
            let bytes = [said.as_slice(), worker::sum(&said).as_bytes()].concat();
            let token = token.to_owned();
            (said, Expect::Session { bytes, token })
        }
        RequestKind::NulReply => (plain(verb), Expect::Answer(format!("\0{token}\0").into_bytes())),
        RequestKind::Shared => {
            let key = format!("key-{}", dice.below(KEYS));
            (plain(format!("born {} {key}", 5)), Expect::Shared(key))
        }
        RequestKind::Health => (plain(verb), Expect::Health(token.to_owned())),
        RequestKind::Unended => {
            let mut bytes = plain(verb);
            bytes.truncate(1 + dice.below(bytes.len() - 1));
            (bytes, Expect::Refusal)
        }
        RequestKind::NulRequest | RequestKind::LoneCr => {
            let mut bytes = verb.into_bytes();
            let flaw = if kind == RequestKind::LoneCr { b'\r' } else { 0 };
            bytes.insert(dice.below(bytes.len()), flaw);
            (mode.request.encode(&bytes), Expect::Refusal)
        }
        RequestKind::WithoutNumber => {
            let bytes = format!("without a number\n{} echo this is nobody's\n", u32::MAX - 1);
            (bytes.into_bytes(), Expect::Refusal)
        }
        RequestKind::Malformed => (mode.request.garbage().unwrap_or_default().to_owned(), Expect::Refusal),
        RequestKind::LongRequest
        | RequestKind::TooLong
        | RequestKind::Garbage
        | RequestKind::Die
        | RequestKind::KillSelf
        | RequestKind::Hang
        | RequestKind::DieInside
        | RequestKind::CloseStdout
        | RequestKind::NoEnd
        | RequestKind::UnknownId
        | RequestKind::WithoutId
        | RequestKind::Lines => (plain(verb), Expect::Refusal),
        _ => (plain(verb), answer),
    }
}

/// The text that a request holds, which begins with its token.
fn text(kind: RequestKind, token: &str, dice: &mut Dice) -> String {
    let filled = |fill: char, count: usize| format!("{token}{}", fill.to_string().repeat(count));
    match kind {
        RequestKind::Echo | RequestKind::Unended | RequestKind::NulRequest | RequestKind::LoneCr => {
            filled('x', dice.below(200))
        }
        RequestKind::LongEcho => filled('y', dice.below(MAX_REQUEST - 100)),
        RequestKind::LongRequest => filled('z', MAX_REQUEST + dice.below(200_000)),
        _ => token.to_owned(),
    }
}

/// The line that the worker gets: see `worker.rs`.
fn verb(kind: RequestKind, text: &str, mode: &Mode, dice: &mut Dice) -> String {
    let time = dice.weighted(&TIMES).unwrap_or_default();
    match kind {
        RequestKind::Slow => format!("wait {time} {text}"),
        RequestKind::SlowInside => format!("inside {time} {text}"),
        RequestKind::SlowAfter => format!("wait-after {time} {text}"),
        RequestKind::Complain => format!("complain {text}"),
        RequestKind::NulReply => format!("nul {text}"),
        RequestKind::Lines => format!("lines {text}"),
        RequestKind::TooLong => format!("big {}", MAX_REPLY + 1 + dice.below(MAX_REPLY)),
        RequestKind::Garbage => "garbage".to_owned(),
        RequestKind::Die => "die".to_owned(),
        RequestKind::KillSelf => "kill-self".to_owned(),
        RequestKind::DieFirst => format!("die-first {}/once-{text} {text}", mode.home.display()),
        RequestKind::DieInside => format!("die-inside {text}"),
        RequestKind::DieAfter => format!("die-after {text}"),
        RequestKind::Hang => "hang".to_owned(),
        RequestKind::StopReading => format!("stop-reading {text}"),
        RequestKind::CloseStdin => format!("close-stdin {text}"),
        RequestKind::CloseStdout => "close-stdout".to_owned(),
        RequestKind::IgnoreTerm => format!("ignore-term {text}"),
        RequestKind::Child if dice.percent(50) => format!("child {text}"),
        RequestKind::Child => format!("holding-child {text}"),
        RequestKind::TwoReplies | RequestKind::Doubled => format!("two {text}"),
        RequestKind::LineTooMany => format!("behind {} {text}", dice.below(LONGEST_PAUSE)),
        RequestKind::NoEnd => format!("no-end {text}"),
        RequestKind::UnknownId => format!("under {} {text}", 1 + dice.below(1 << 30)),
        RequestKind::WithoutId => format!("without-id {text}"),
        RequestKind::TurnSick => format!("turn-sick {text}"),
        RequestKind::Health => format!("health {text}"),
        _ => format!("echo {text}"),
    }
}
