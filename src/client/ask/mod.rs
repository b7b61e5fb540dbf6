//! `iotcpd ask ADDRESS...`: asks a pool what stands on standard input, and says its answers on standard output.
//!
//! The life of a line: the reading thread sends a chunk ([`stdio`](super::stdio)) → it becomes lines ([`input`]) → a channel-ID
//! is taken off ([`dialect`]) → the asker chooses an address ([`core`]) → one connection asks and gets a reply ([`connection`])
//! → what Squid could not read is mended or refused ([`reply`]) → the channel-ID is put back → the writing thread has it.
//! [`shell`] holds all of it together; [`resolver`] knows what the addresses stand for.
//!
//! What holds:
//! - **Every line gets exactly one answer within the time-out**, whatever the pools do: a pool's, or the text for failures.
//! - **It ends when its input does**, every line being answered; or when its answers are not taken any more. A daemon that is
//!   away is never a reason.
//! - Without channel-IDs the answers come in the order of the lines, with them as they are ready.
//! - Memory is bounded: what cannot be answered yet, or not be written, is not read.
//! - TERM and INT are not caught: they end it at once, and the kernel resets its connections. USR1 prints the counts; HUP and
//!   USR2, which are meant for a daemon, are ignored.
//!
//! **Exit status.** For Squid 0 at the end of input, which is also when it has hung up (ECONNRESET, EPIPE). Plainly 0 if a pool
//! has answered every line, else 1 with a message that says how many got the text for failures and why the last one did. 1 in
//! both cases if input or output break otherwise.

mod connection;
pub mod core;
pub mod dialect;
mod failures;
pub mod input;
pub mod options;
pub mod reply;
mod resolver;
mod shell;
mod words;

use std::io::{self, Read, Write};
use std::time::Instant;

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit};

use self::core::{Cause, Fault};
use super::name;
use crate::error::{Blame, Error};
use crate::framing::signals::{HUP, USR1, USR2};
use crate::net::standard::Standard;
use crate::reactor::Reactor;
use options::Policy;
use shell::{End, Shell};

pub use options::{ChannelIds, Mode, Options, Privacy};

/// The most connections that are open at once.
const MAX_IN_FLIGHT: usize = 1000;
/// Descriptors that are not for connections: standard streams, epoll, eventfd, what libraries open to resolve names.
const RESERVED_DESCRIPTORS: u64 = 32;
/// How many lines are asked at once at one address if nothing is in a hurry: as many as a pool has workers by default, so
/// that none has to wait there for longer than the pool lets it wait.
const PLAIN_IN_FLIGHT: usize = 4;
/// The most lines in hand: more than any `concurrency` or `queue-size` in a squid.conf.
const MAX_LINES: usize = 10_000;
/// The most bytes of questions and answers in hand before no more lines are read.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Answers every line of standard input, and returns at its end.
///
/// # Errors
/// See the head of this file.
pub fn run(options: Options) -> Result<(), Error> {
    name::take_on("ask");
    if options.privacy == Privacy::Confidential {
        // It fails only for values that do not exist.
        let _ = set_dumpable(false);
    }
    serve(options, Standard::Input, Standard::Output)
}

fn serve(
    options: Options,
    input: impl Read + Send + 'static,
    output: impl Write + Send + 'static,
) -> Result<(), Error> {
    let policy = policy(&options);
    let mut reactor =
        Reactor::<Shell>::new(&[HUP, USR1, USR2]).map_err(|error| broken("cannot make an event loop", &error))?;
    let shell = Shell::new(options.addresses, policy, options.privacy, Instant::now());
    let id = reactor
        .add(Box::new(shell))
        .map_err(|_| Error::new(Blame::Bug, "a new event loop is full", "report this"))?;
    reactor
        .with(id, |shell, cx| shell.start(cx, input, output))
        .unwrap_or(Ok(()))
        .map_err(|error| broken("cannot start a thread", &error))?;
    loop {
        let signals = reactor
            .turn(None)
            .map_err(|error| broken("cannot wait for events", &error))?;
        // The other two mean a daemon, and have found this process by mistake.
        let asked = signals.contains(&USR1);
        let ended = reactor.with(id, |shell, _| {
            if asked {
                shell.tell_counts();
            }
            let end = shell.end()?;
            Some(outcome(options.mode, end, shell))
        });
        if let Some(outcome) = ended.flatten() {
            return outcome;
        }
    }
}

fn policy(options: &Options) -> Policy {
    let max_in_flight = match options.mode {
        Mode::Plain => PLAIN_IN_FLIGHT.saturating_mul(options.addresses.len()),
        Mode::Squid => MAX_IN_FLIGHT,
    };
    let max_in_flight = max_in_flight.min(descriptors()).max(1);
    Policy {
        mode: options.mode,
        timeout: options.timeout,
        channel_ids: options.channel_ids,
        on_failure: options.on_failure.clone(),
        on_contradiction: options.on_contradiction.clone(),
        addresses: options.addresses.len(),
        max_in_flight,
        max_unanswered: match options.mode {
            // A line's time begins when it is read: it is read when it can be asked.
            Mode::Plain => max_in_flight,
            Mode::Squid => MAX_LINES,
        },
        max_lines: MAX_LINES,
        max_bytes: MAX_BYTES,
    }
}

/// How many connections this process may open.
fn descriptors() -> usize {
    // getrlimit fails only for a resource that does not exist; if it ever did, connections would tell (EMFILE).
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    usize::try_from(soft.saturating_sub(RESERVED_DESCRIPTORS)).unwrap_or(usize::MAX)
}

fn outcome(mode: Mode, end: End, shell: &Shell) -> Result<(), Error> {
    if mode == Mode::Squid {
        shell.tell_the_end();
    }
    match end {
        End::OutputFailed(error) | End::InputFailed(error) if mode == Mode::Squid && is_hang_up(&error) => Ok(()),
        End::OutputFailed(error) => Err(broken("cannot write to standard output", &error)),
        End::InputFailed(error) => Err(broken("cannot read standard input", &error)),
        End::Done(counters) if counters.failed == 0 || mode == Mode::Squid => Ok(()),
        End::Done(counters) => {
            let why = counters.last_cause.and_then(|cause| shell.why_untold(cause));
            let why = why.map_or_else(String::new, |why| format!(", the last of them: {why}"));
            let remedy = match counters.last_cause {
                Some(Cause::Fault(_, Fault::Unresolved)) => {
                    "see that the name is spelled right, and that its name server answers (getent hosts NAME)"
                }
                Some(Cause::LineTooLong) => "send shorter lines",
                _ => {
                    "see that the daemon runs, listens there and lets this machine in (its log tells), or allow it more time \
                     with --timeout"
                }
            };
            let core::Counters { failed, lines, .. } = counters;
            let what = format_args!("{failed} of {lines} lines were not answered{why}");
            Err(Error::new(Blame::Peer, what, remedy))
        }
    }
}

/// Whether the other end has simply gone. Squid's end of a helper is a socket, and one that is closed with answers unread says so
/// by ECONNRESET, to readers and writers alike.
fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn broken(what: &str, error: &io::Error) -> Error {
    let remedy = match error.kind() {
        io::ErrorKind::BrokenPipe => "whoever read the answers has gone: see why it ended",
        _ => "see what standard input and output are connected to, and the limits on processes and open files",
    };
    Error::new(Blame::System, format_args!("{what}: {error}"), remedy)
}

#[cfg(test)]
mod tests;
