//! One connection: its plan carried out, and what came of it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::ask::AskProcess;
use crate::mode::{IDLE_TIMEOUT, Mode};
use crate::numbered::{self, Numbered};
use crate::plan::{Exchange, Finish, Plan, Protocol, Step, Via};
use crate::request::Expect;
use crate::secured::Stream;
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
    /// The settings of clients over TCP, if they speak TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// The longest time from the last byte sent to the end of the connection.
    pub(crate) patience: Duration,
    /// The longest time that a worker may be sick and serve.
    pub(crate) sickness: Duration,
    /// True once a client was answered.
    pub(crate) has_answered: AtomicBool,
}

/// The outcome of one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its own answer came, whole, and nothing else.
    Answered,
    Refused,
    /// The client left first.
    Left,
    /// The client had said that it did not want the answer.
    Cancelled,
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
        Err(error) => {
            // Of a process that finishes, a handshake gets less time.
            let is_excused = target.tls.is_some() && timeline.was_upgraded_since(upgrades);
            return not_connected(plan, &error, is_excused, timeline.is_ending());
        }
    };
    // A daemon that has refused already may close while this one still sends; what it said is there to be read.
    let sent = connection.carry_out(plan, target.patience);
    let is_in_time = !timeline.is_ending();
    let since = Instant::now();
    let deadline = since + target.patience;
    let end = match plan.finish {
        Finish::ReadsToEnd => connection.read_until(deadline, |_| false),
        Finish::ReadsAnswers => connection.read_until(deadline, |this| this.answers.len() >= plan.exchanges.len()),
        Finish::Closes | Finish::Resets => {
            connection.leave(plan.finish);
            End::Ignored
        }
    };
    let took = since.elapsed();
    let may_be_idle = connection.last_sent.elapsed() >= Duration::from_millis(IDLE_TIMEOUT);
    let is_kept = plan.protocol == Protocol::Kept;
    let conditions = Conditions {
        may_be_idle,
        oldest_allowed,
        is_excused: (is_kept || !connection.is_welcome()) && timeline.was_upgraded_since(upgrades),
        is_in_time: is_in_time && !(is_kept && timeline.is_ending()),
    };
    connection.judge(plan, target, &conditions, &end, sent.err(), took)
}

fn not_connected(plan: &Plan, error: &io::Error, is_excused: bool, is_ending: bool) -> Seen {
    let outcome = || match (is_ending, is_excused) {
        (true, _) => Outcome::TooLate,
        (false, true) => Outcome::Unserved,
        (false, false) => Outcome::Lost(format!("cannot connect: {error}")),
    };
    Seen {
        outcomes: plan.exchanges.iter().map(|_| outcome()).collect(),
        fault: plan.exchanges.is_empty().then(outcome),
        took: Duration::ZERO,
    }
}

/// A stream and what has come on it.
struct Connection {
    stream: Stream,
    ask: Option<AskProcess>,
    /// Before its last bytes were sent.
    last_sent: Instant,
    wire: Wire,
    numbered: Option<Numbered>,
    reads_every: Duration,
    pending: Vec<u8>,
    answers: Vec<Vec<u8>>,
    end: Option<End>,
}

impl Connection {
    fn begin(plan: &Plan, target: &Target) -> io::Result<Self> {
        let (stream, ask) = match plan.via {
            Via::Tcp => {
                let socket = TcpStream::connect_timeout(&target.tcp, target.patience)?;
                let socket = OwnedFd::from(socket).into();
                let stream = match &target.tls {
                    Some(clients) => Stream::secured(socket, clients, target.patience)?,
                    None => Stream::plain(socket),
                };
                (stream, None)
            }
            Via::Unix => (Stream::plain(UnixStream::connect(&target.unix)?), None),
            Via::Ask => {
                let (process, stream) = AskProcess::start(target)?;
                (Stream::plain(stream), Some(process))
            }
        };
        stream.set_write_timeout(target.patience)?;
        let is_numbered = plan.protocol == Protocol::Numbered;
        Ok(Self {
            stream,
            ask,
            last_sent: Instant::now(),
            wire: target.mode.reply,
            numbered: is_numbered.then(|| Numbered::new(plan.has_hello())),
            reads_every: plan.reads_every,
            pending: Vec::new(),
            answers: Vec::new(),
            end: None,
        })
    }

    fn is_welcome(&self) -> bool {
        self.numbered.as_ref().is_none_or(|numbered| numbered.is_welcome)
    }

    fn is_draining(&self) -> bool {
        self.numbered.as_ref().is_some_and(|numbered| numbered.is_draining)
    }

    /// Carries out the steps of a plan, or as many as there are until the server says that it takes nothing new.
    fn carry_out(&mut self, plan: &Plan, patience: Duration) -> io::Result<()> {
        for (place, step) in plan.steps.iter().enumerate() {
            if plan.has_hello() && plan.is_attentive() {
                self.read_available()?;
                if self.is_draining() {
                    return self.stop_asking(plan.steps.get(place..).unwrap_or_default());
                }
            }
            self.take(step, patience)?;
        }
        Ok(())
    }

    /// Sends the rest of the line that was sent in part, and ends the input.
    fn stop_asking(&mut self, steps: &[Step]) -> io::Result<()> {
        let sends = steps.iter().filter_map(|step| match step {
            Step::Send(bytes) => Some(bytes.as_slice()),
            _ => None,
        });
        let rest = sends.collect::<Vec<_>>().concat();
        let rest = rest.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        if self.numbered.as_ref().is_some_and(Numbered::is_inside_line) {
            self.send(rest)?;
        }
        self.stream.end()
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.last_sent = Instant::now();
        self.stream.write_all(bytes)?;
        if let Some(numbered) = &mut self.numbered {
            numbered.note_sent(bytes);
        }
        Ok(())
    }

    fn take(&mut self, step: &Step, patience: Duration) -> io::Result<()> {
        match step {
            Step::Send(bytes) => self.send(bytes),
            Step::Pause(time) => {
                // The pause is the client's behaviour under test.
                thread::sleep(*time);
                Ok(())
            }
            Step::Await(count) => self.wait(Instant::now() + patience, |this| this.answers.len() >= *count),
            Step::AwaitWelcome => self.wait(Instant::now() + patience, Self::is_welcome),
            Step::EndInput => self.stream.end(),
        }
    }

    fn leave(&self, finish: Finish) {
        if finish == Finish::Resets {
            self.stream.reset_on_drop();
        }
    }

    /// Reads until `is_enough`. An end before that is an error.
    fn wait(&mut self, deadline: Instant, is_enough: impl Fn(&Self) -> bool) -> io::Result<()> {
        let end = self.read_until(deadline, is_enough);
        // There is no point in asking on.
        let is_over = matches!(end, End::Eof | End::Error(_) | End::NotYet);
        self.end = is_over.then_some(end);
        if is_over {
            return Err(ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    /// Reads until `is_enough`, or to the end.
    fn read_until(&mut self, deadline: Instant, is_enough: impl Fn(&Self) -> bool) -> End {
        if let Some(end) = self.end.take() {
            return end;
        }
        // A reader with pauses also takes small pieces.
        let mut piece = vec![0; if self.reads_every.is_zero() { 64 * 1024 } else { 1024 }];
        while !is_enough(self) {
            match read_before(&mut self.stream, &mut piece, deadline) {
                Ok(0) => return End::Eof,
                Ok(length) => self.note_read(piece.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::TimedOut => return End::NotYet,
                Err(error) => return End::Error(error.to_string()),
            }
            // A slow reader is slow on purpose.
            thread::sleep(self.reads_every);
        }
        End::Ignored
    }

    /// Reads what is there.
    fn read_available(&mut self) -> io::Result<()> {
        let mut piece = vec![0; 64 * 1024];
        self.stream.set_nonblocking(true)?;
        let end = loop {
            match self.stream.read(&mut piece) {
                Ok(0) => break Some(End::Eof),
                Ok(length) => self.note_read(piece.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break None,
                Err(error) => break Some(End::Error(error.to_string())),
            }
        };
        self.stream.set_nonblocking(false)?;
        self.end = end;
        match self.end {
            Some(_) => Err(ErrorKind::BrokenPipe.into()),
            None => Ok(()),
        }
    }

    fn note_read(&mut self, piece: &[u8]) {
        self.pending.extend_from_slice(piece);
        while let Some((line, taken)) = self.wire.decode(&self.pending) {
            self.pending.drain(..taken);
            if self.numbered.as_mut().is_none_or(|numbered| numbered.hear(&line)) {
                self.answers.push(line);
            }
        }
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
        let has_left = matches!(plan.finish, Finish::Closes | Finish::Resets);
        let (answers, surplus) = match self.numbered {
            Some(_) => numbered::lay_out(self.answers, &plan.exchanges),
            None => in_order(self.answers, plan.exchanges.len()),
        };
        let mut rest = self.pending;
        let is_unserved = |place: usize| match &self.numbered {
            Some(numbered) if numbered.is_draining => place >= numbered.requests_sent || !plan.is_attentive(),
            _ => conditions.is_excused,
        };
        let absent = |place: usize, exchange: &Exchange, rest: &mut Vec<u8>| match end {
            // After the one that was cut nothing more can be told.
            _ if has_left => Outcome::Left,
            End::Eof | End::Error(_) if !rest.is_empty() => Outcome::Wrong(std::mem::take(rest)),
            End::NotYet => Outcome::Lost(format!("no answer in time, after \"{}\"", rest.escape_ascii())),
            _ if !conditions.is_in_time => Outcome::TooLate,
            End::Eof | End::Ignored if exchange.is_optional() => Outcome::Refused,
            End::Eof if is_unserved(place) => Outcome::Unserved,
            End::Error(error) => Outcome::Lost(format!("without a word: {error}; sending: {sent:?}")),
            End::Eof | End::Ignored => Outcome::Lost(format!("the end without a word; sending: {sent:?}")),
        };
        let judged = |(place, (exchange, answer)): (usize, (&Exchange, Option<Vec<u8>>))| match answer {
            Some(answer) => judge(exchange, answer, target, conditions),
            None => absent(place, exchange, &mut rest),
        };
        let outcomes = plan.exchanges.iter().zip(answers).enumerate().map(judged).collect();
        let may_be_refused = plan.exchanges.is_empty() && self.numbered.is_none();
        let mut surplus = surplus.into_iter();
        let fault = match surplus.next() {
            Some(answer) if may_be_refused && is_refusal(&answer) => None,
            Some(answer) => Some(Outcome::Wrong(answer)),
            None if has_left => None,
            None if !rest.is_empty() && !matches!(end, End::NotYet) => Some(Outcome::Wrong(rest)),
            None if matches!(end, End::NotYet) => Some(Outcome::Lost("no end in time".to_owned())),
            None => None,
        };
        // The end of the stream ends it, however it came.
        drop(self.stream);
        let fault_of_ask = self.ask.and_then(|ask| ask.end(target.patience)).map(Outcome::Lost);
        Seen {
            outcomes,
            fault: fault.or(fault_of_ask),
            took,
        }
    }
}

/// Lays each answer to the request in its place. Returns the answers that are too many as well.
fn in_order(mut answers: Vec<Vec<u8>>, requests: usize) -> (Vec<Option<Vec<u8>>>, Vec<Vec<u8>>) {
    let surplus = answers.split_off(requests.min(answers.len()));
    let mut laid: Vec<Option<Vec<u8>>> = answers.into_iter().map(Some).collect();
    laid.resize(requests, None);
    (laid, surplus)
}

fn read_before(stream: &mut Stream, piece: &mut [u8], deadline: Instant) -> io::Result<usize> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(left)?;
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
        return match exchange.is_cancelled {
            true => Outcome::Cancelled,
            false => Outcome::Refused,
        };
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
