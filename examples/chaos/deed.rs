//! What one request asks of its worker, or how it is broken itself, and what its client must see for it.
//!
//! Every answer bears a token that nobody else has, so one that belongs to somebody else, or is cut, or has something behind
//! it, is seen. Left out is what nobody could judge: a worker that writes a second reply, or chats, some time after its
//! first. If it has been given another request by then, that is the reply to it as far as any reader of its output can
//! know. So [`Deed::TwoReplies`] writes both at once, and is not asked where requests are written ahead; nor is
//! [`Deed::NoEnd`], which the next reply would end. [`Deed::LineTooMany`] writes them one after the other, but only where
//! workers rest after each reply, and only if the second comes soon enough for that.

use crate::dice::Dice;
use crate::mode::Mode;
use crate::plan::shown;
use crate::worker;

pub(crate) const MAX_REQUEST: usize = 16 * 1024;
/// More than a pipe or a socket of the kernel takes at once when nobody reads.
pub(crate) const MAX_REPLY: usize = 64 * 1024;

/// Milliseconds that slow workers take, and how often of 100. The last one is longer than any busy time-out here.
const TIMES: [(u64, usize); 5] = [(5, 40), (30, 40), (150, 15), (700, 4), (3000, 1)];
/// Milliseconds between a reply and a line too many behind it, at most.
const LONGEST_PAUSE: usize = 8;
/// How many different requests there are that share an answer.
const KEYS: usize = 12;
/// What fits into pipes and sockets while nobody reads.
const LONGEST_TALK: usize = 60_000;

/// See the groups below and [`request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    Echo,
    LongEcho,
    /// Any bytes, also those that end a message elsewhere.
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
    Talk,
    // The client's own.
    Unended,
    LongRequest,
    NulRequest,
    Malformed,
}

/// A group of deeds, and how often each comes; weights of all groups of a mode are added up.
pub(crate) type Group = &'static [(Deed, usize)];

pub(crate) const SOUND: Group = &[(Deed::Echo, 560), (Deed::Slow, 60), (Deed::Complain, 5)];
pub(crate) const LONG: Group = &[(Deed::LongEcho, 40), (Deed::SlowInside, 25), (Deed::TooLong, 2)];
pub(crate) const DEADLY: Group = &[
    (Deed::Die, 4),
    (Deed::KillSelf, 2),
    (Deed::DieFirst, 10),
    (Deed::Hang, 1),
    (Deed::IgnoreTerm, 3),
];
/// Also of a worker that serves once.
pub(crate) const DEADLY_INSIDE: Group = &[(Deed::DieInside, 6), (Deed::Child, 4)];
/// Only of a worker that is used again.
pub(crate) const LASTING: Group = &[
    (Deed::SlowAfter, 15),
    (Deed::DieAfter, 10),
    (Deed::StopReading, 1),
    (Deed::CloseStdin, 2),
    (Deed::CloseStdout, 2),
];
/// Only of a worker that has one request at a time: see the head of this file.
pub(crate) const OUT_OF_STEP: Group = &[(Deed::TwoReplies, 8), (Deed::NoEnd, 2)];
/// Only of a worker that rests.
pub(crate) const TOO_MANY: Group = &[(Deed::LineTooMany, 60)];
pub(crate) const CHANNELS: Group = &[(Deed::Doubled, 4), (Deed::UnknownId, 3), (Deed::WithoutId, 3)];
pub(crate) const LINES: Group = &[(Deed::NulReply, 5), (Deed::NulRequest, 8)];
pub(crate) const UNSAYABLE: Group = &[(Deed::Lines, 8)];
pub(crate) const BINARY: Group = &[(Deed::Binary, 200)];
pub(crate) const GARBAGE: Group = &[(Deed::Garbage, 4)];
pub(crate) const SHARED: Group = &[(Deed::Shared, 1500)];
pub(crate) const PROBED: Group = &[(Deed::TurnSick, 20), (Deed::Health, 100)];

pub(crate) const SESSION: Group = &[(Deed::Talk, 100)];

/// What a client must see for its request. A refusal is always allowed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Expect {
    Answer(Vec<u8>),
    Refusal,
    /// This key, and when the worker was started, which is not before what was in force when the request was sent.
    Shared(String),
    /// All of this; or a part of it from its beginning on, if the worker with this token has not come to its end.
    Talk {
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
            Self::Talk { bytes, .. } => write!(f, "\"{}\" or a part of it", shown(bytes)),
            Self::Health(token) => write!(f, "\"{token}\" of a worker that is not sick for long"),
        }
    }
}

/// The request as it goes over the wire, and what comes back for it. No other request of this run has the same `token`.
pub(crate) fn request(deed: Deed, token: &str, mode: &Mode, dice: &mut Dice) -> (Vec<u8>, Expect) {
    let filled = |fill: char, count: usize| format!("{token}{}", fill.to_string().repeat(count));
    let text = match deed {
        Deed::Echo | Deed::Unended | Deed::NulRequest => filled('x', dice.below(200)),
        Deed::LongEcho => filled('y', dice.below(MAX_REQUEST - 100)),
        Deed::LongRequest => filled('z', MAX_REQUEST + dice.below(200_000)),
        _ => token.to_owned(),
    };
    let verb = verb(deed, &text, mode, dice);
    let answer = Expect::Answer(text.into_bytes());
    let plain = |verb: String| mode.request.encode(verb.as_bytes());
    match deed {
        Deed::Binary => {
            let noise: Vec<u8> = (0..dice.below(300)).map(|_| dice.roll().to_be_bytes()[0]).collect();
            let text = [token.as_bytes(), &noise].concat();
            (
                mode.request.encode(&[b"echo ", text.as_slice()].concat()),
                Expect::Answer(text),
            )
        }
        Deed::Talk => {
            let noise = (0..dice.below(LONGEST_TALK)).map(|_| dice.roll().to_be_bytes()[0]);
            let said: Vec<u8> = token.bytes().chain([b' ']).chain(noise).collect();
            let bytes = [said.as_slice(), worker::sum(&said).as_bytes()].concat();
            let token = token.to_owned();
            (said, Expect::Talk { bytes, token })
        }
        Deed::NulReply => (plain(verb), Expect::Answer(format!("\0{token}\0").into_bytes())),
        Deed::Shared => {
            let key = format!("key-{}", dice.below(KEYS));
            (plain(format!("born {} {key}", 5)), Expect::Shared(key))
        }
        Deed::Health => (plain(verb), Expect::Health(token.to_owned())),
        Deed::Unended => {
            let mut bytes = plain(verb);
            bytes.truncate(1 + dice.below(bytes.len() - 1));
            (bytes, Expect::Refusal)
        }
        Deed::NulRequest => {
            let mut bytes = verb.into_bytes();
            bytes.insert(dice.below(bytes.len()), 0);
            (mode.request.encode(&bytes), Expect::Refusal)
        }
        Deed::Malformed => (mode.request.garbage().unwrap_or_default().to_owned(), Expect::Refusal),
        Deed::LongRequest | Deed::TooLong | Deed::Garbage | Deed::Die | Deed::KillSelf | Deed::Hang => {
            (plain(verb), Expect::Refusal)
        }
        Deed::DieInside | Deed::CloseStdout | Deed::NoEnd | Deed::UnknownId | Deed::WithoutId | Deed::Lines => {
            (plain(verb), Expect::Refusal)
        }
        _ => (plain(verb), answer),
    }
}

/// What the worker is told: see `worker.rs`.
fn verb(deed: Deed, text: &str, mode: &Mode, dice: &mut Dice) -> String {
    let time = dice.weighted(&TIMES).unwrap_or_default();
    match deed {
        Deed::Slow => format!("wait {time} {text}"),
        Deed::SlowInside => format!("inside {time} {text}"),
        Deed::SlowAfter => format!("wait-after {time} {text}"),
        Deed::Complain => format!("complain {text}"),
        Deed::NulReply => format!("nul {text}"),
        Deed::Lines => format!("lines {text}"),
        Deed::TooLong => format!("big {}", MAX_REPLY + 1 + dice.below(MAX_REPLY)),
        Deed::Garbage => "garbage".to_owned(),
        Deed::Die => "die".to_owned(),
        Deed::KillSelf => "kill-self".to_owned(),
        Deed::DieFirst => format!("die-first {}/once-{text} {text}", mode.home.display()),
        Deed::DieInside => format!("die-inside {text}"),
        Deed::DieAfter => format!("die-after {text}"),
        Deed::Hang => "hang".to_owned(),
        Deed::StopReading => format!("stop-reading {text}"),
        Deed::CloseStdin => format!("close-stdin {text}"),
        Deed::CloseStdout => "close-stdout".to_owned(),
        Deed::IgnoreTerm => format!("ignore-term {text}"),
        Deed::Child if dice.percent(50) => format!("child {text}"),
        Deed::Child => format!("holding-child {text}"),
        Deed::TwoReplies | Deed::Doubled => format!("two {text}"),
        Deed::LineTooMany => format!("behind {} {text}", dice.below(LONGEST_PAUSE)),
        Deed::NoEnd => format!("no-end {text}"),
        Deed::UnknownId => format!("under {} {text}", 1 + dice.below(1 << 30)),
        Deed::WithoutId => format!("without-id {text}"),
        Deed::TurnSick => format!("turn-sick {text}"),
        Deed::Health => format!("health {text}"),
        _ => format!("echo {text}"),
    }
}
