//! `iotcpd call ADDRESS ARGV...`: has an exec door run a program, and behaves towards its caller like that program.
//!
//! The life of a call: it connects ([`core`] decides how long that is tried) and sends the arguments at once; then
//! standard input as a thread reads it ([`stdio`](super::stdio)), and the end of the input. The answer consists of
//! pairs of netstrings, which [`core`] reads; two threads write the output to the same two streams, and the last pair
//! is the exit status. [`shell`] connects these parts.
//!
//! Invariants:
//! - **The call behaves as the program would**: its streams, in order, byte for byte; its status; its signals.
//! - Memory is bounded: a slow reader of the output slows the program, and a program that reads slowly slows the writer
//!   of the input.
//! - The sending side is never shut down alone, because sockexec takes that for a client that has gone: an empty string
//!   ends the input.
//! - The connection is closed at the end of the call, whatever the reason, so that the door ends a program that still
//!   runs.
//!
//! **Signals.** INT, QUIT and TERM are passed on to the program, except signals that were ignored when the call started
//! (nohup(1), background jobs of a shell). A signal that is to end the program hangs up when it comes a second time.
//! HUP, USR1 and USR2 are sent by administrators to daemons of this name, so they are passed on only on demand, and
//! ignored otherwise; a HUP because of a closed terminal ends the call. STOP and the like stop the call, and the
//! program too as soon as the buffers for its output are full.

pub mod core;
pub mod options;
mod shell;

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::time::Instant;

use super::name;
use super::server::Server;
use crate::error::{Blame, Error};
use crate::framing::signals::{HUP, PASSED_ON, USR1, USR2};
use crate::reactor::{Reactor, ServiceId};
use core::{CallEvent, Failure, InputSource, Outcome, Output};
use shell::Shell;

pub use core::FAILED;
pub use options::{Options, Signals, Stdin};

/// Has a program run, and returns its exit status, or 128 plus the number of the signal that killed it.
///
/// # Errors
/// Every failure that is not the program's own. The exit status for all of them is [`FAILED`].
pub fn run(options: Options) -> Result<u8, Error> {
    let server = Server::prepare(options.address.clone(), &options.tls)?;
    let input = match options.stdin {
        Stdin::UnlessTerminal if io::stdin().is_terminal() => InputSource::None,
        Stdin::UnlessTerminal | Stdin::Sent => InputSource::Standard,
        Stdin::Ignored => InputSource::None,
    };
    name::rename_process("call");
    let address = options.address.to_string();
    let forwarding = Forwarding {
        signals: options.signals,
        had_terminal: has_terminal(),
    };
    let ignored = ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default());
    let signals: Vec<i32> = PASSED_ON.into_iter().filter(|it| !is_set(ignored, *it)).collect();
    let mut reactor = Reactor::<Shell>::new(&signals).map_err(|error| broken("cannot make an event loop", &error))?;
    let shell = Shell::new(options, server, input, Instant::now());
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

/// The rule for the signals that reach the program.
#[derive(Debug, Clone, Copy)]
struct Forwarding {
    signals: Signals,
    /// True if the process had a controlling terminal at the start.
    had_terminal: bool,
}

impl Forwarding {
    /// Returns the event that a signal is for the call; `None` for a signal to be ignored.
    fn event(self, signal: i32) -> Option<CallEvent<'static>> {
        match (self.signals, signal) {
            (Signals::All, _) => Some(CallEvent::Signal(signal)),
            (Signals::ToEnd, HUP) => (self.had_terminal && !has_terminal()).then_some(CallEvent::TerminalGone),
            (Signals::ToEnd, USR1 | USR2) => None,
            (Signals::ToEnd, _) => Some(CallEvent::Signal(signal)),
        }
    }
}

/// Returns true if this process has a controlling terminal that has not been hung up: tty(4).
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
        reactor.with(id, |shell, cx| shell.handle_signals(cx, events));
    }
}

/// Returns the set of signals that a process ignores, from the line `SigIgn` of /proc/PID/status: one bit each, the
/// lowest for signal 1. The set is empty where the line cannot be read.
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
        // A name without a slash may have been meant as a host name.
        Failure::Unreachable(why) if name.starts_with("unix:") && !name.contains(['/', '@']) => Error::new(
            Blame::Peer,
            format_args!("{cannot}: {why}"),
            format_args!("{IS_IT_A_DOOR}; if this is a host, write its port behind it, as in HOST:9000"),
        ),
        Failure::Unreachable(why) => Error::new(Blame::Peer, format_args!("{cannot}: {why}"), IS_IT_A_DOOR),
        Failure::Tls(why) => Error::new(
            Blame::Peer,
            format_args!("{cannot}: {why}"),
            "see that TLS is spoken there, and compare --ca, --cert and --server-name with the certificates and the log of that door",
        ),
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
    fn signals_ignored_at_the_start_are_found() {
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
