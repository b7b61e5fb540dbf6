//! One connection: its plan carried out, and what came of it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::plan::{Expect, Leave, Plan, Step, Via};

/// What the daemon says to whom it refuses.
const REFUSAL: &[u8] = b"ERR\n";

/// Where the daemon is, and whether it has been told to end.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) tcp: SocketAddr,
    pub(crate) unix: PathBuf,
    /// The longest time from the last byte sent to the end of the connection.
    pub(crate) patience: Duration,
    /// Set before the signal is sent.
    pub(crate) ending: AtomicBool,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With its own answer, whole, and nothing else.
    Answered,
    Refused,
    /// Closed without a word, which it may be: it had not asked.
    Closed,
    /// The client left first.
    Left,
    /// Its request was not yet with the daemon when that was told to end.
    TooLate,
    /// With bytes that are not its answer.
    Wrong(Vec<u8>),
    /// With neither answer nor refusal, or not in time.
    Lost(String),
}

/// Carries a plan out; returns its outcome and the time from the last byte sent to the end.
pub(crate) fn perform(plan: &Plan, target: &Target) -> (Outcome, Duration) {
    let is_ending = || target.ending.load(Ordering::SeqCst);
    let mut stream = match connect(plan.via, target) {
        Ok(stream) => stream,
        Err(_) if is_ending() => return (Outcome::TooLate, Duration::ZERO),
        Err(error) => return (Outcome::Lost(format!("cannot connect: {error}")), Duration::ZERO),
    };
    // A daemon that has refused already may close while this one still sends; what it said is there to be read.
    let sent = plan.steps.iter().try_for_each(|step| take(step, &mut stream));
    let in_time = !is_ending();
    let since = Instant::now();
    let outcome = match &plan.expect {
        Expect::Nothing(leave) => leave_by(*leave, stream),
        expect => {
            let (bytes, end) = read_all(&mut stream, plan.reads_every, since + target.patience);
            judge(expect, &bytes, end.and(sent))
        }
    };
    match outcome {
        Outcome::Lost(_) if !in_time => (Outcome::TooLate, since.elapsed()),
        outcome => (outcome, since.elapsed()),
    }
}

/// A stream of either family. The type is that of UNIX sockets for both: what is done with it here (send, receive, shut
/// down, set a time-out) is the same call for every connected socket.
fn connect(via: Via, target: &Target) -> io::Result<UnixStream> {
    let stream = match via {
        Via::Tcp => OwnedFd::from(TcpStream::connect_timeout(&target.tcp, target.patience)?).into(),
        Via::Unix => UnixStream::connect(&target.unix)?,
    };
    stream.set_write_timeout(Some(target.patience))?;
    Ok(stream)
}

fn take(step: &Step, stream: &mut UnixStream) -> io::Result<()> {
    match step {
        Step::Send(bytes) => stream.write_all(bytes),
        Step::Pause(time) => {
            thread::sleep(*time);
            Ok(())
        }
        Step::EndInput => stream.shutdown(Shutdown::Write),
    }
}

fn leave_by(leave: Leave, stream: UnixStream) -> Outcome {
    if leave == Leave::Reset {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // Without effect on a UNIX socket, whose peer sees a reset when something is left unread.
        setsockopt(&stream, sockopt::Linger, &linger).ok();
    }
    Outcome::Left
}

/// Everything until the end, and how it ended.
fn read_all(stream: &mut UnixStream, every: Duration, deadline: Instant) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    // A reader with pauses also takes small pieces.
    let mut piece = vec![0; if every.is_zero() { 64 * 1024 } else { 512 }];
    loop {
        match read_before(stream, &mut piece, deadline) {
            Ok(0) => return (bytes, Ok(())),
            Ok(length) => bytes.extend_from_slice(piece.get(..length).unwrap_or_default()),
            Err(error) => return (bytes, Err(error)),
        }
        thread::sleep(every);
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

/// Bytes are judged however the connection ended; a connection that did not end in time is lost whatever came.
fn judge(expect: &Expect, bytes: &[u8], end: io::Result<()>) -> Outcome {
    if let Err(error) = &end
        && error.kind() == ErrorKind::TimedOut
    {
        return Outcome::Lost(format!("no end in time, after {} bytes", bytes.len()));
    }
    if bytes == REFUSAL {
        return Outcome::Refused;
    }
    let right = match expect {
        Expect::Answer(answer) => bytes == answer,
        Expect::Number => is_number(bytes),
        Expect::Refusal | Expect::End | Expect::Nothing(_) => false,
    };
    match (right, bytes.is_empty(), expect) {
        (true, _, _) => Outcome::Answered,
        (false, true, Expect::End) => Outcome::Closed,
        (false, true, _) => Outcome::Lost(format!("ended without a word: {end:?}")),
        (false, false, _) => Outcome::Wrong(bytes.to_owned()),
    }
}

fn is_number(bytes: &[u8]) -> bool {
    let digits = bytes.strip_suffix(b"\n").unwrap_or_default();
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}
