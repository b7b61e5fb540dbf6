//! `iotcpd ask ADDRESS...`: sends the lines of standard input to a pool and writes the answers to standard output.
//!
//! The life of a line: a chunk is read from standard input ([`stdio`](super::stdio)) → the chunk is split into lines
//! ([`input`]) → the channel-ID is removed ([`protocol`]) → the asker chooses an address, and the way to it ([`core`])
//! → a [`connection`] sends the question, together with others or alone, and reads the reply → a reply that Squid could
//! not parse is repaired or refused ([`reply`]) → the channel-ID is put back → it is written with the other answers of
//! the turn ([`streams`]).
//! [`shell`] connects these parts; [`resolver`] holds the addresses of host names.
//!
//! Invariants:
//! - **Every line gets exactly one answer within the time-out**, whatever the pools do: a reply, or the text for
//!   failures.
//! - **The program ends with its input**, when every line is answered; or when its output is closed. A daemon that is
//!   away never ends it.
//! - Without channel-IDs the answers keep the order of the lines; with channel-IDs each is written as soon as it is
//!   ready.
//! - Memory is bounded: while answers are outstanding or cannot be written, no more is read.
//! - TERM and INT are not caught: they end the program at once, and the kernel resets its connections. USR1 prints the
//!   counts; HUP and USR2, which are meant for a daemon, are ignored.
//!
//! **Exit status.** For Squid, 0 at the end of the input and when Squid hung up (ECONNRESET, EPIPE). In plain mode, 0
//! if a pool answered every line, else 1 with a message that gives the number of lines that got the text for failures,
//! and the cause of the last one. In both modes 1 if input or output fail in another way.

mod connection;
pub mod core;
pub mod cutter;
mod failures;
pub mod input;
pub mod options;
pub mod protocol;
pub mod reply;
mod reporter;
mod resolver;
mod shell;
mod streams;

use std::io;
use std::time::Instant;

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit};

use self::core::{Cause, Fault};
use super::name;
use super::server::Server;
use crate::error::{Blame, Error};
use crate::framing::signals::{HUP, USR1, USR2};
use crate::reactor::{Context, Reactor};
use options::Policy;
use shell::Shell;
use streams::{Ends, RunEnd};

pub use options::{ChannelIds, Mode, Options, Privacy};

/// The largest number of connections for one line each that are open at once.
const MAX_SINGLES: usize = 1000;
/// The number of descriptors kept for other purposes: standard streams, epoll, eventfd, files of the name resolution.
const RESERVED_DESCRIPTORS: u64 = 32;
/// The number of such connections per address in plain mode, where there is no hurry: as many as a pool has workers by
/// default, so that no line waits in a pool for longer than the pool's queue time-out.
const PLAIN_SINGLES: usize = 4;
/// The largest number of lines in hand: more than any `concurrency` or `queue-size` in a squid.conf.
const MAX_LINES: usize = 10_000;
/// The number of bytes of questions and answers in hand above which no more lines are read.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Answers every line of standard input, and returns at its end.
///
/// # Errors
/// See the comment of this module.
pub fn run(options: Options) -> Result<(), Error> {
    name::rename_process("ask");
    if options.privacy == Privacy::Confidential {
        // The call fails only for values that do not exist.
        let _ = set_dumpable(false);
    }
    serve(options, Ends::open)
}

fn serve(options: Options, open: impl FnOnce(&mut Context<'_>) -> io::Result<Ends>) -> Result<(), Error> {
    let policy = policy(&options);
    let servers = Server::prepare_all(options.addresses, &options.tls)?;
    let mut reactor =
        Reactor::<Shell>::new(&[HUP, USR1, USR2]).map_err(|error| broken("cannot make an event loop", &error))?;
    let shell = Shell::new(servers, policy, options.privacy, Instant::now());
    let id = reactor
        .add(Box::new(shell))
        .map_err(|_| Error::new(Blame::Bug, "a new event loop is full", "report this"))?;
    reactor
        .with(id, |shell, cx| shell.start(cx, open))
        .unwrap_or(Ok(()))
        .map_err(|error| broken("cannot start a thread", &error))?;
    loop {
        let signals = reactor
            .turn(None)
            .map_err(|error| broken("cannot wait for events", &error))?;
        // The other two signals are meant for a daemon and have hit this process by mistake.
        let asked = signals.contains(&USR1);
        let ended = reactor.with(id, |shell, cx| {
            if asked {
                shell.print_counts(cx);
            }
            let end = shell.take_end()?;
            Some(outcome(options.mode, end, shell))
        });
        if let Some(outcome) = ended.flatten() {
            return outcome;
        }
    }
}

fn policy(options: &Options) -> Policy {
    let addresses = options.addresses.len();
    let singles_per_address = match options.mode {
        Mode::Plain => PLAIN_SINGLES,
        Mode::Squid => MAX_SINGLES,
    };
    let free = descriptors().saturating_sub(options.connections.saturating_mul(addresses));
    let most = singles_per_address.saturating_mul(addresses).min(MAX_SINGLES);
    Policy {
        mode: options.mode,
        timeout: options.timeout,
        channel_ids: options.channel_ids,
        on_failure: options.on_failure.clone(),
        on_contradiction: options.on_contradiction.clone(),
        addresses,
        max_singles: most.min(free).max(1),
        singles_per_address,
        connections: options.connections,
        max_connection_age: options.max_connection_age,
        spread: u64::from(std::process::id()),
        max_lines: MAX_LINES,
        max_bytes: MAX_BYTES,
    }
}

/// Returns the number of connections that this process may open.
fn descriptors() -> usize {
    // getrlimit fails only for a resource that does not exist; a limit not found here would show as EMFILE later.
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    usize::try_from(soft.saturating_sub(RESERVED_DESCRIPTORS)).unwrap_or(usize::MAX)
}

fn outcome(mode: Mode, end: RunEnd, shell: &Shell) -> Result<(), Error> {
    if mode == Mode::Squid {
        shell.report_totals();
    }
    let counters = shell.counters();
    match end {
        RunEnd::OutputFailed(error) | RunEnd::InputFailed(error) if mode == Mode::Squid && is_hang_up(&error) => Ok(()),
        RunEnd::OutputFailed(error) => Err(broken("cannot write to standard output", &error)),
        RunEnd::InputFailed(error) => Err(broken("cannot read standard input", &error)),
        RunEnd::Done if counters.failed == 0 || mode == Mode::Squid => Ok(()),
        RunEnd::Done => {
            let why = counters.last_cause.and_then(|cause| shell.unreported_cause(cause));
            let why = why.map_or_else(String::new, |why| format!(", the last of them: {why}"));
            let remedy = match counters.last_cause {
                Some(Cause::Fault(_, Fault::Unresolved)) => {
                    "see that the name is spelled right, and that its name server answers (getent hosts NAME)"
                }
                Some(Cause::Fault(_, Fault::Disagreed)) => {
                    "see that TLS is spoken there, and compare --ca, --cert and --server-name with the certificates and the log \
                     of the pool"
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

/// Returns true if the other side has simply hung up. Squid's end of a helper is a socket: when Squid closes it with
/// answers unread, readers and writers here get ECONNRESET.
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
