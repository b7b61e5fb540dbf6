//! One connection: its plan carried out, and what came of it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::mode::{IDLE_TIMEOUT, Mode};
use crate::plan::{Exchange, Finish, Plan, Step, Via};
use crate::request::Expect;
use crate::timeline::Timeline;
use crate::wire::Wire;
use crate::worker;

/// The daemon's refusal, without the end of its line.
const REFUSAL: &[u8] = b"ERR";

/// Where a pool is, and what may be asked of it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) mode: Mode,
    pub(crate) tcp: SocketAddr,
    pub(crate) unix: PathBuf,
    /// The longest time from the last byte sent to the end of the connection.
    pub(crate) patience: Duration,
    /// The longest time that a worker may be sick and serve.
    pub(crate) sickness: Duration,
}

/// The outcome of one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its own answer came, whole, and nothing else.
    Answered,
    Refused,
    /// The client left first.
    Left,
    /// The connection ended in good order where the answer would have begun, because its process finishes: to be asked
    /// again.
    Unserved,
    /// It was not yet with the daemon when TERM came.
    TooLate,
    /// Bytes came that are not its answer.
    Wrong(Vec<u8>),
    /// Neither answer nor refusal came, or not in time.
    Lost(String),
}

/// The outcomes of one connection.
#[derive(Debug)]
pub(crate) struct Seen {
    /// One for each of the plan's exchanges.
    pub(crate) outcomes: Vec<Outcome>,
    /// Another fault of the connection, outside of its requests.
    pub(crate) fault: Option<Outcome>,
    /// From the last byte sent to the end.
    pub(crate) took: Duration,
}

/// The end of the stream of answers.
#[derive(Debug)]
enum End {
    Eof,
    Error(String),
    /// It did not, in time.
    NotYet,
    /// The client did not wait for it.
    Ignored,
}

/// The facts that excuse an outcome: known when the connection was begun, or while it went on.
struct Conditions {
    oldest_allowed: u64,
    is_excused: bool,
    is_in_time: bool,
    /// The session ended no sooner after the last byte of its client than one in which nothing is said is ended.
    may_be_idle: bool,
}

pub(crate) fn perform(plan: &Plan, target: &Target, timeline: &Timeline) -> Seen {
    let (upgrades, oldest_allowed) = (timeline.upgrades_done(), timeline.oldest_allowed());
    let mut connection = match Connection::begin(plan, target) {
        Ok(connection) => connection,
        Err(error) => return not_connected(plan, &error, timeline.is_ending()),
    };
    // A daemon that has refused already may close while this one still sends; what it said is there to be read.
    let sent = plan
        .steps
        .iter()
        .try_for_each(|step| connection.take(step, target.patience));
    let is_in_time = !timeline.is_ending();
    let since = Instant::now();
    let deadline = since + target.patience;
    let end = match plan.finish {
        Finish::ReadsToEnd => connection.read_until(usize::MAX, deadline),
        Finish::ReadsAnswers => connection.read_until(plan.exchanges.len(), deadline),
        Finish::Closes | Finish::Resets => {
            connection.leave(plan.finish);
            End::Ignored
        }
    };
    let took = since.elapsed();
    let may_be_idle = connection.last_sent.elapsed() >= Duration::from_millis(IDLE_TIMEOUT);
    let conditions = Conditions {
        may_be_idle,
        oldest_allowed,
        is_excused: target.mode.is_kept && timeline.was_upgraded_since(upgrades),
        is_in_time: is_in_time && !(target.mode.is_kept && timeline.is_ending()),
    };
    connection.judge(plan, target, &conditions, &end, sent.err(), took)
}

fn not_connected(plan: &Plan, error: &io::Error, is_ending: bool) -> Seen {
    let outcome = || match is_ending {
        true => Outcome::TooLate,
        false => Outcome::Lost(format!("cannot connect: {error}")),
    };
    Seen {
        outcomes: plan.exchanges.iter().map(|_| outcome()).collect(),
        fault: plan.exchanges.is_empty().then(outcome),
        took: Duration::ZERO,
    }
}

/// A stream and what has come on it. The type is that of UNIX sockets for both families: what is done with it here
/// (send, receive, shut down, set a time-out) is the same call for every connected socket.
struct Connection {
    stream: UnixStream,
    /// Before its last bytes were sent.
    last_sent: Instant,
    wire: Wire,
    reads_every: Duration,
    pending: Vec<u8>,
    answers: Vec<Vec<u8>>,
    end: Option<End>,
}

impl Connection {
    fn begin(plan: &Plan, target: &Target) -> io::Result<Self> {
        let stream: UnixStream = match plan.via {
            Via::Tcp => OwnedFd::from(TcpStream::connect_timeout(&target.tcp, target.patience)?).into(),
            Via::Unix => UnixStream::connect(&target.unix)?,
        };
        stream.set_write_timeout(Some(target.patience))?;
        Ok(Self {
            stream,
            last_sent: Instant::now(),
            wire: target.mode.reply,
            reads_every: plan.reads_every,
            pending: Vec::new(),
            answers: Vec::new(),
            end: None,
        })
    }

    fn take(&mut self, step: &Step, patience: Duration) -> io::Result<()> {
        match step {
            Step::Send(bytes) => {
                self.last_sent = Instant::now();
                self.stream.write_all(bytes)
            }
            Step::Pause(time) => {
                // The pause is the client's behaviour under test.
                thread::sleep(*time);
                Ok(())
            }
            Step::Await(count) => {
                let end = self.read_until(*count, Instant::now() + patience);
                // There is no point in asking on.
                let is_over = matches!(end, End::Eof | End::Error(_) | End::NotYet);
                self.end = is_over.then_some(end);
                if is_over {
                    return Err(ErrorKind::BrokenPipe.into());
                }
                Ok(())
            }
            Step::EndInput => self.stream.shutdown(Shutdown::Write),
        }
    }

    fn leave(&self, finish: Finish) {
        if finish == Finish::Resets {
            let linger = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            // Without effect on a UNIX socket, whose peer sees a reset when something is left unread.
            setsockopt(&self.stream, sockopt::Linger, &linger).ok();
        }
    }

    /// Reads until `count` answers are there, or the end.
    fn read_until(&mut self, count: usize, deadline: Instant) -> End {
        if let Some(end) = self.end.take() {
            return end;
        }
        // A reader with pauses also takes small pieces.
        let mut piece = vec![0; if self.reads_every.is_zero() { 64 * 1024 } else { 1024 }];
        while self.answers.len() < count {
            match read_before(&mut self.stream, &mut piece, deadline) {
                Ok(0) => return End::Eof,
                Ok(length) => self.pending.extend_from_slice(piece.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::TimedOut => return End::NotYet,
                Err(error) => return End::Error(error.to_string()),
            }
            while let Some((answer, taken)) = self.wire.decode(&self.pending) {
                self.answers.push(answer);
                self.pending.drain(..taken);
            }
            // A slow reader is slow on purpose.
            thread::sleep(self.reads_every);
        }
        End::Ignored
    }

    fn judge(
        mut self,
        plan: &Plan,
        target: &Target,
        conditions: &Conditions,
        end: &End,
        sent: Option<io::Error>,
        took: Duration,
    ) -> Seen {
        // A session may be over before anything is said.
        let is_something = !self.pending.is_empty() || (target.mode.is_session && !plan.exchanges.is_empty());
        let is_whole = matches!(end, End::Eof) && self.wire == Wire::Whole && is_something;
        if is_whole {
            self.answers.push(std::mem::take(&mut self.pending));
        }
        let mut answers = self.answers.into_iter();
        let mut rest = self.pending;
        let has_left = matches!(plan.finish, Finish::Closes | Finish::Resets);
        let absent = |rest: &mut Vec<u8>| match end {
            // After the one that was cut nothing more can be told.
            _ if has_left => Outcome::Left,
            End::Eof | End::Error(_) if !rest.is_empty() => Outcome::Wrong(std::mem::take(rest)),
            End::NotYet => Outcome::Lost(format!("no answer in time, after \"{}\"", rest.escape_ascii())),
            _ if !conditions.is_in_time => Outcome::TooLate,
            End::Eof if conditions.is_excused => Outcome::Unserved,
            End::Error(error) => Outcome::Lost(format!("without a word: {error}; sending: {sent:?}")),
            End::Eof | End::Ignored => Outcome::Lost(format!("the end without a word; sending: {sent:?}")),
        };
        let judged = |exchange: &Exchange| match answers.next() {
            Some(answer) => judge(exchange, answer, target, conditions),
            None => absent(&mut rest),
        };
        let outcomes = plan.exchanges.iter().map(judged).collect();
        let is_silent = plan.exchanges.is_empty();
        let fault = match answers.next() {
            Some(answer) if is_silent && is_refusal(&answer) => None,
            Some(answer) => Some(Outcome::Wrong(answer)),
            None if has_left => None,
            None if !rest.is_empty() && !matches!(end, End::NotYet) => Some(Outcome::Wrong(rest)),
            None if matches!(end, End::NotYet) => Some(Outcome::Lost("no end in time".to_owned())),
            None => None,
        };
        Seen { outcomes, fault, took }
    }
}

fn read_before(stream: &mut UnixStream, piece: &mut [u8], deadline: Instant) -> io::Result<usize> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    match stream.read(piece) {
        Err(error) if error.kind() == ErrorKind::Interrupted => read_before(stream, piece, deadline),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
        read => read,
    }
}

fn is_refusal(answer: &[u8]) -> bool {
    answer.trim_ascii_end() == REFUSAL
}

fn judge(exchange: &Exchange, answer: Vec<u8>, target: &Target, conditions: &Conditions) -> Outcome {
    if is_refusal(&answer) {
        return Outcome::Refused;
    }
    let number_after = |text: &str| -> Option<u64> {
        let rest = answer.strip_prefix(text.as_bytes())?.strip_prefix(b" ")?;
        std::str::from_utf8(rest).ok()?.parse().ok()
    };
    if let Expect::Session { bytes, token } = &exchange.expect
        && bytes.starts_with(&answer)
        && answer.len() < bytes.len()
        && (conditions.may_be_idle || !worker::has_ended(&target.mode.home, token))
    {
        // Its worker was killed, or its session was ended because its worker was stopped for too long: what had been
        // said until then came. That worker may have been woken in the very moment of the end, and have come to its own.
        return Outcome::Refused;
    }
    let is_right = match &exchange.expect {
        Expect::Answer(expected) => answer == *expected,
        Expect::Refusal => false,
        Expect::Session { bytes, .. } => answer == *bytes,
        Expect::Shared(key) => number_after(key).is_some_and(|born| born >= conditions.oldest_allowed),
        Expect::Health(token) => {
            answer == token.as_bytes()
                || number_after(token).is_some_and(|time| Duration::from_millis(time) < target.sickness)
        }
    };
    if is_right {
        Outcome::Answered
    } else {
        Outcome::Wrong(answer)
    }
}
