//! What one client does with its one connection, and what it must see for it: decided by its dice alone.
//!
//! Every request that is answered by its own text has a token that nobody else has, so an answer that belongs to somebody
//! else, or is cut, or has something behind it, is seen. Left out on purpose is everything of which nobody could tell the
//! right answer: a worker that writes a second reply, or chats, some time after its first. If it has been given another
//! request by then, that line is the reply to it as far as any reader of its output can know; so the scripted worker's
//! `unasked` and `two-writes` are not asked here, and `two` writes both replies at once. The same goes for answers like
//! `ok`: they are checked, but one `ok` is as good as another.

use std::fmt;
use std::time::Duration;

use crate::dice::Dice;
use crate::gates::Gates;

/// What a client does, by name, and how often of all.
const KINDS: [(Kind, usize); 32] = [
    (Kind::Echo, 560),
    (Kind::LongEcho, 30),
    (Kind::InPieces, 60),
    (Kind::HalfClosed, 40),
    (Kind::SlowReader, 15),
    (Kind::TwoLines, 20),
    (Kind::Slow, 60),
    (Kind::SlowInside, 25),
    (Kind::SlowAfter, 15),
    (Kind::TwoReplies, 8),
    (Kind::NulReply, 5),
    (Kind::NoLineEnd, 2),
    (Kind::TooLongReply, 2),
    (Kind::Die, 4),
    (Kind::KillSelf, 2),
    (Kind::DieFirst, 10),
    (Kind::DieInReply, 6),
    (Kind::DieAfter, 10),
    (Kind::Hang, 1),
    (Kind::StopReading, 1),
    (Kind::CloseStdin, 2),
    (Kind::CloseStdout, 2),
    (Kind::IgnoreTerm, 3),
    (Kind::Complain, 5),
    (Kind::Grandchild, 4),
    (Kind::Unended, 8),
    (Kind::LongLine, 8),
    (Kind::NulLine, 8),
    (Kind::Silent, 3),
    (Kind::GoneInLine, 15),
    (Kind::GoneAtOnce, 15),
    (Kind::GoneWhileBusy, 20),
];

/// See [`KINDS`] and [`Plan::draw`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Echo,
    LongEcho,
    InPieces,
    HalfClosed,
    SlowReader,
    TwoLines,
    Slow,
    SlowInside,
    SlowAfter,
    TwoReplies,
    NulReply,
    NoLineEnd,
    TooLongReply,
    Die,
    KillSelf,
    DieFirst,
    DieInReply,
    DieAfter,
    Hang,
    StopReading,
    CloseStdin,
    CloseStdout,
    IgnoreTerm,
    Complain,
    Grandchild,
    Unended,
    LongLine,
    NulLine,
    Silent,
    GoneInLine,
    GoneAtOnce,
    GoneWhileBusy,
}

/// Which of the two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Tcp,
    Unix,
}

/// What a client does before it reads.
#[derive(PartialEq, Eq)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Pause(Duration),
    EndInput,
}

/// What it must see then. A refusal is always allowed.
#[derive(PartialEq, Eq)]
pub(crate) enum Expect {
    /// These bytes and the end.
    Answer(Vec<u8>),
    /// A decimal number and the end.
    Number,
    /// A refusal alone.
    Refusal,
    /// A refusal, or the end: it has not asked anything.
    End,
    /// It does not look: it leaves.
    Nothing(Leave),
}

/// How somebody leaves who does not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    Close,
    Reset,
}

/// One connection.
#[derive(PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) via: Via,
    pub(crate) steps: Vec<Step>,
    pub(crate) expect: Expect,
    /// Between two reads.
    pub(crate) reads_every: Duration,
}

/// The longest request that the daemon of this program takes.
pub(crate) const MAX_REQUEST: usize = 16 * 1024;
/// The longest reply.
pub(crate) const MAX_REPLY: usize = 64 * 1024;

impl Plan {
    /// The next thing that this client does. No other connection has the same `name`.
    pub(crate) fn draw(dice: &mut Dice, gates: &Gates, name: &str) -> Self {
        let kind = dice.weighted(&KINDS).unwrap_or(Kind::Echo);
        let via = if dice.percent(50) { Via::Tcp } else { Via::Unix };
        let token = format!("{name}-{:016x}", dice.roll());
        let text = request(kind, &token, dice, gates);
        let expect = expectation(kind, &token, &text, dice);
        let reads_every = if kind == Kind::SlowReader {
            dice.pause(40)
        } else {
            Duration::ZERO
        };
        Self {
            kind,
            via,
            steps: steps(kind, text, dice),
            expect,
            reads_every,
        }
    }
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
        let Self { kind, via, .. } = self;
        write!(f, "{kind:?} over {via:?} {:?} expecting {:?}", self.steps, self.expect)
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => write!(f, "send \"{}\"", shown(bytes)),
            Self::Pause(time) => write!(f, "pause {time:?}"),
            Self::EndInput => f.write_str("end input"),
        }
    }
}

impl fmt::Debug for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(bytes) => write!(f, "\"{}\"", shown(bytes)),
            Self::Number => f.write_str("a number"),
            Self::Refusal => f.write_str("a refusal"),
            Self::End => f.write_str("the end"),
            Self::Nothing(leave) => write!(f, "nothing ({leave:?})"),
        }
    }
}

/// The line without its end.
fn request(kind: Kind, token: &str, dice: &mut Dice, gates: &Gates) -> String {
    match kind {
        Kind::Echo | Kind::InPieces | Kind::HalfClosed | Kind::TwoLines | Kind::Unended | Kind::NulLine => {
            format!("echo {token}{}", "x".repeat(dice.below(200)))
        }
        Kind::LongEcho | Kind::SlowReader => format!("echo {token}{}", "y".repeat(dice.below(MAX_REQUEST - 64))),
        Kind::LongLine => format!("echo {token}{}", "z".repeat(MAX_REQUEST + dice.below(200_000))),
        Kind::Slow | Kind::GoneWhileBusy => format!("wait {} {token}", gates.pick(dice)),
        Kind::SlowInside => format!("partial {token} {} {token}", gates.pick(dice)),
        Kind::SlowAfter => format!("wait-twice {} {} {token}", gates.pick(dice), gates.pick(dice)),
        Kind::TwoReplies => format!("two {token} nobody-{token}"),
        Kind::NulReply => format!("raw \\0{token}\\0\\n"),
        Kind::NoLineEnd => format!("raw {token}"),
        Kind::TooLongReply => format!("big {}", MAX_REPLY + 1 + dice.below(MAX_REPLY)),
        Kind::Die => "die 1".to_owned(),
        Kind::KillSelf => "kill-self".to_owned(),
        Kind::DieFirst => format!("die-first {} {token}", gates.fresh_file(token)),
        Kind::DieInReply => format!("die-after-partial {token}"),
        Kind::DieAfter => format!("die-after {token}"),
        Kind::Hang => "hang".to_owned(),
        Kind::StopReading => "stop-reading".to_owned(),
        Kind::CloseStdin => "close-stdin".to_owned(),
        Kind::CloseStdout => "close-stdout".to_owned(),
        Kind::IgnoreTerm => "ignore-term".to_owned(),
        Kind::Complain => format!("stderr {token}"),
        Kind::Grandchild if dice.percent(50) => "spawn-grandchild".to_owned(),
        Kind::Grandchild => "spawn-holding-grandchild".to_owned(),
        Kind::Silent => String::new(),
        Kind::GoneInLine | Kind::GoneAtOnce => format!("echo {token}"),
    }
}

fn expectation(kind: Kind, token: &str, text: &str, dice: &mut Dice) -> Expect {
    let line = |answer: &str| Expect::Answer(format!("{answer}\n").into_bytes());
    match kind {
        Kind::Echo | Kind::LongEcho | Kind::InPieces | Kind::HalfClosed | Kind::SlowReader | Kind::TwoLines => {
            line(text.strip_prefix("echo ").unwrap_or_default())
        }
        Kind::Slow | Kind::SlowAfter | Kind::TwoReplies | Kind::DieFirst | Kind::DieAfter => line(token),
        Kind::SlowInside => line(&format!("{token}{token}")),
        Kind::NulReply => line(&format!("\0{token}\0")),
        Kind::StopReading | Kind::CloseStdin | Kind::IgnoreTerm | Kind::Complain => line("ok"),
        Kind::Grandchild => Expect::Number,
        Kind::NoLineEnd | Kind::TooLongReply | Kind::Die | Kind::KillSelf | Kind::DieInReply | Kind::Hang => {
            Expect::Refusal
        }
        Kind::CloseStdout | Kind::Unended | Kind::LongLine | Kind::NulLine => Expect::Refusal,
        Kind::Silent => Expect::End,
        Kind::GoneInLine | Kind::GoneAtOnce | Kind::GoneWhileBusy if dice.percent(50) => Expect::Nothing(Leave::Close),
        Kind::GoneInLine | Kind::GoneAtOnce | Kind::GoneWhileBusy => Expect::Nothing(Leave::Reset),
    }
}

fn steps(kind: Kind, text: String, dice: &mut Dice) -> Vec<Step> {
    let mut line = text.into_bytes();
    match kind {
        Kind::Silent => return Vec::new(),
        Kind::GoneInLine => {
            line.truncate(dice.below(line.len()));
            return vec![Step::Send(line), Step::Pause(dice.pause(20))];
        }
        Kind::Unended => return vec![Step::Send(line), Step::EndInput],
        Kind::NulLine => {
            let place = dice.below(line.len());
            line.insert(place, 0);
        }
        _ => {}
    }
    line.push(b'\n');
    match kind {
        // The daemon watches whom it has had to wait for: this one's leaving is noticed while its worker is busy.
        Kind::GoneWhileBusy => {
            let rest = line.split_off(dice.below(line.len()));
            let (middle, end) = (dice.pause(20), dice.pause(100));
            vec![
                Step::Send(line),
                Step::Pause(middle),
                Step::Send(rest),
                Step::Pause(end),
            ]
        }
        Kind::InPieces => {
            let rest = line.split_off(dice.below(line.len()));
            vec![Step::Send(line), Step::Pause(dice.pause(50)), Step::Send(rest)]
        }
        Kind::HalfClosed => vec![Step::Send(line), Step::EndInput],
        Kind::TwoLines => {
            line.extend_from_slice(b"echo the second line of a connection is nobody's\n");
            vec![Step::Send(line)]
        }
        _ => vec![Step::Send(line)],
    }
}
