//! `iotcpd call ADDRESS ARGV...`: has an exec door run a program, and is, to the one that runs it, that program.
//!
//! The life of a call. It connects ([`core`] decides how long that is tried) and sends the arguments at once; then standard
//! input as it comes, from a thread that reads it ([`stdio`](super::stdio)), and its end. Back come pairs of netstrings
//! ([`core`] reads them); output goes to the same two streams by way of two threads, and the end is the exit status. [`shell`]
//! holds all of it together.
//!
//! What holds:
//! - **It behaves as the program would**: its streams, in order, byte for byte; its status; its signals.
//! - Memory is bounded whatever passes: a slow reader slows the program, and a program that reads slowly slows whatever
//!   writes to us.
//! - There is never a half-close, which sockexec takes for a client that has gone: the input ends by an empty string.
//! - When it ends, for whatever reason, the connection is closed, so that the door ends a program that still runs.
//!
//! **Signals.** INT, QUIT and TERM are passed on to the program, those excepted that were ignored when we were started (nohup(1),
//! a shell's background jobs). A signal that is to end the program and comes a second time hangs up. HUP, USR1 and USR2 are what
//! administrators send daemons of this name, so they are passed on only if that is asked for, and else ignored; a HUP that comes
//! because our terminal has gone ends us. STOP and its like stop us, and the program when it has written as much as is held.

pub mod core;
pub mod options;
mod shell;

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::time::Instant;

use super::name;
use crate::error::{Blame, Error};
use crate::framing::signals::{HUP, PASSED_ON, USR1, USR2};
use crate::reactor::{Reactor, ServiceId};
use core::{Event, Failure, Input, Outcome, Output};
use shell::Shell;

pub use core::FAILED;
pub use options::{Options, Signals, Stdin};

/// Has a program run, and returns its exit status, or 128 and the number of the signal that has ended it.
///
/// # Errors
/// Whatever is not the program's doing. The exit status for all of it is [`FAILED`].
pub fn run(options: Options) -> Result<u8, Error> {
    let input = match options.stdin {
        Stdin::UnlessTerminal if io::stdin().is_terminal() => Input::None,
        Stdin::UnlessTerminal | Stdin::Sent => Input::Standard,
        Stdin::Ignored => Input::None,
    };
    name::take_on("call");
    let address = options.address.to_string();
    let forwarding = Forwarding {
        signals: options.signals,
        had_terminal: has_terminal(),
    };
    let ignored = ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default());
    let signals: Vec<i32> = PASSED_ON.into_iter().filter(|it| !is_set(ignored, *it)).collect();
    let mut reactor = Reactor::<Shell>::new(&signals).map_err(|error| broken("cannot make an event loop", &error))?;
    let shell = Shell::new(options, input, Instant::now());
    let id = reactor
        .add(Box::new(shell))
        .map_err(|_| Error::new(Blame::Bug, "a new event loop is full", "report this"))?;
    reactor
        .with(id, |shell, cx| shell.start(cx))
        .unwrap_or(Ok(()))
        .map_err(|error| broken("cannot start a thread", &error))?;
    match serve(&mut reactor, id, forwarding)? {
        Outcome::Failed(failure) => Err(failed(&address, &failure)),
        outcome => Ok(outcome.status()),
    }
}

/// Which signals reach the program.
#[derive(Debug, Clone, Copy)]
struct Forwarding {
    signals: Signals,
    /// Whether there was a controlling terminal at the start.
    had_terminal: bool,
}

impl Forwarding {
    /// What a signal means to the call; `None` for one that is not for it.
    fn event(self, signal: i32) -> Option<Event<'static>> {
        match (self.signals, signal) {
            (Signals::All, _) => Some(Event::Signal(signal)),
            (Signals::ToEnd, HUP) => (self.had_terminal && !has_terminal()).then_some(Event::TerminalGone),
            (Signals::ToEnd, USR1 | USR2) => None,
            (Signals::ToEnd, _) => Some(Event::Signal(signal)),
        }
    }
}

/// Whether this process has a controlling terminal that has not been hung up: tty(4).
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

fn serve(reactor: &mut Reactor<Shell>, id: ServiceId, forwarding: Forwarding) -> Result<Outcome, Error> {
    loop {
        let outcome = reactor.with(id, |shell, _| shell.outcome().cloned());
        if let Some(outcome) = outcome.flatten() {
            return Ok(outcome);
        }
        let signals = reactor
            .turn(None)
            .map_err(|error| broken("cannot wait for events", &error))?
            .to_vec();
        let events = signals.into_iter().filter_map(|signal| forwarding.event(signal));
        reactor.with(id, |shell, cx| shell.signals(cx, events));
    }
}

/// Which signals a process ignores, as the line `SigIgn` of /proc/PID/status has it: one bit for each, the lowest for signal
/// 1. None, where that cannot be read.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn is_set(mask: u64, signal: i32) -> bool {
    let bit = u32::try_from(signal - 1).ok().and_then(|place| 1u64.checked_shl(place));
    bit.is_some_and(|bit| mask & bit != 0)
}

fn failed(name: &str, failure: &Failure) -> Error {
    const IS_IT_A_DOOR: &str = "see that an exec door serves there (iotcpd exec), and its log";
    const SPELLED_RIGHT: &str =
        "see that the name is spelled right, and that its name server answers (getent hosts NAME)";
    let cannot = format!("cannot connect to {name}");
    match failure {
        Failure::Unresolved(why) => Error::new(Blame::Operator, format_args!("{cannot}: {why}"), SPELLED_RIGHT),
        // A name without a slash may have been meant for that of a host.
        Failure::Unreachable(why) if name.starts_with("unix:") && !name.contains(['/', '@']) => Error::new(
            Blame::Peer,
            format_args!("{cannot}: {why}"),
            format_args!("{IS_IT_A_DOOR}; if this is a host, write its port behind it, as in HOST:9000"),
        ),
        Failure::Unreachable(why) => Error::new(Blame::Peer, format_args!("{cannot}: {why}"), IS_IT_A_DOOR),
        Failure::TimedOut => Error::new(
            Blame::Peer,
            format_args!("{cannot}: no answer in time"),
            "see that its machine can be reached, or allow it more time with --connect-timeout",
        ),
        Failure::Full => Error::new(
            Blame::Peer,
            format_args!("{cannot}: its queue of connections stays full"),
            "see why it does not accept them, or allow it more time with --connect-timeout",
        ),
        Failure::Lost(why) => {
            let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let what = format!("{name} has hung up before the end of the program{why}");
            Error::new(Blame::Peer, what, IS_IT_A_DOOR)
        }
        Failure::Malformed(wrong) => {
            let what = format!("what {name} says is no answer of an exec door: {wrong}");
            Error::new(Blame::Peer, what, IS_IT_A_DOOR)
        }
        Failure::Input(why) => Error::new(
            Blame::System,
            format_args!("cannot start to read standard input: {why}"),
            "see the limit on threads, or leave it out with --no-stdin",
        ),
        Failure::Output(output, why) => {
            let which = match output {
                Output::Stdout => "standard output",
                Output::Stderr => "standard error",
            };
            let what = format!("cannot write to {which}: {why}");
            Error::new(Blame::System, what, "see what it is connected to")
        }
    }
}

fn broken(what: &str, error: &io::Error) -> Error {
    Error::new(
        Blame::System,
        format_args!("{what}: {error}"),
        "see the limits on processes and open files",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_ignored_at_the_start_is_known() {
        let mask = ignored("Name:\tx\nSigBlk:\tffff\nSigIgn:\t0000000000001001\nSigCgt:\t00000001800004c2\n");
        assert!(is_set(mask, 1) && is_set(mask, 13));
        assert!(PASSED_ON.into_iter().filter(|it| *it != 1).all(|it| !is_set(mask, it)));
        assert_eq!((ignored(""), ignored("SigIgn:\tx\n")), (0, 0));
        assert!(!is_set(u64::MAX, 0) && !is_set(u64::MAX, 65) && is_set(u64::MAX, 64));
    }

    #[test]
    fn a_failure_says_where_and_what_to_do() {
        let text = failed("unix:/run/x", &Failure::Lost(None)).to_string();
        assert!(
            text.starts_with("unix:/run/x has hung up before the end of the program; see"),
            "{text}"
        );
    }
}
