//! The tools that every test of the binary uses: the daemon as a handle, clients, gates, the scripted worker.
//!
//! The life of one test: it makes a [`Daemon`] (its own directory, its own port, its own mark in the environment),
//! talks to it with [`Client`]s, holds workers still at [`Gate`]s, and drops it; the drop kills the daemon with KILL
//! and asserts that nothing which carries its mark is left.
//!
//! The invariant: nothing here sleeps, looks again after a while, or measures time. Every wait is for an event (a line,
//! a connection, an exit) and ends early when the event can no longer come; [`patience`] only turns a hang into a
//! failure that shows what the program has said. A test that needs an order makes it with gates.
//!
//! Knowledge of one door, and anything that a single test needs, do not belong here.

mod client;
mod daemon;
mod gate;
mod installation;
mod manager;
mod processes;
mod program;
mod squidguard;
mod stats;
mod tls;
mod transcript;
mod worker;

pub(crate) use client::{Address, Client, reset_on_close};
pub(crate) use daemon::{Builder, Daemon};
pub(crate) use gate::{Arrival, Gate};
pub(crate) use installation::Installation;
pub(crate) use manager::Manager;
pub(crate) use processes::{children_of, name_of, program_of, wait_all_gone, wait_orphan, wait_zombie};
pub(crate) use program::Program;
pub(crate) use squidguard::{BLOCKED_DOMAIN, SquidGuard};
pub(crate) use stats::StatsBlock;
pub(crate) use tls::{Certificate, done, is_over_tls, leave_daemons_to_another_process, over_tls, run_over_tls};
pub(crate) use transcript::untimed;
pub(crate) use worker::{ScriptedWorker, worker_command, worker_path};

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) use tempfile::TempDir;

/// A wait this long is a hang: far beyond what a loaded machine needs, so no test may depend on its length.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(30);

/// The number of programs for each processor up to which a machine is not overloaded.
const BEARABLE: f64 = 4.0;

/// The time after which a wait that begins now is a hang. It is [`WATCHDOG`], and longer by as much as the machine is
/// overloaded, as everything takes longer then.
pub(crate) fn patience() -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let bearable = BEARABLE * f64::from(u32::try_from(processors).unwrap_or(u32::MAX));
    WATCHDOG.mul_f64((load / bearable).clamp(1.0, 20.0))
}

/// A directory that goes with its handle. Short paths: a UNIX socket's address holds 107 bytes.
#[track_caller]
pub(crate) fn temp_dir() -> TempDir {
    tempfile::Builder::new()
        .prefix("iotcpd-it-")
        .tempdir()
        .expect("make a temporary directory")
}

/// A TCP port of 127.0.0.1 that was free a moment ago, for programs that cannot be given port 0, or come back to it. It
/// lies below the ports that the kernel gives to programs that ask for any (32768 and up, ip(7)), so no other test's
/// daemon is given it meanwhile.
#[track_caller]
pub(crate) fn free_port() -> u16 {
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    loop {
        let place = std::process::id().wrapping_mul(97) + DRAWN.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + u16::try_from(place % 20_000).expect("less than 20,000");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
