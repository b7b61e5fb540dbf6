//! The pool: long-lived stdio workers that answer one message each with one, a line unless it is said otherwise, shared
//! by any number of clients.
//!
//! The story of a request. A client connects and sends a line (`shell::clients::intake` reads it). The dispatcher
//! ([`core`]) gives it to a free worker, or lets it wait. Its bytes go into that worker's standard input
//! (`shell::workers::spawning`), its reply comes out of the standard output (`shell::workers::output`) and goes to the
//! client, whose connection is then closed (`shell::clients::respond`).
//!
//! **Where a request gets its worker:** [`core::Dispatcher`], in `core/dispatcher/assigning.rs`: `submit` takes the
//! best of the available (`Workers::choose`, by the rule of `core/workers/available.rs`), `serve_queue` gives a worker
//! that has become free to the request that has waited longest.
//!
//! The invariants stand in [`core`] (decisions) and in `shell` (I/O). The source of the options, binding the listeners
//! and the moment of a reload do not belong here: they are the daemon's.

mod buffering;
mod cache;
pub mod core;
mod dump;
mod echoes;
mod gist;
pub mod options;
mod outage;
mod recorder;
mod repeats;
mod report;
mod shell;
pub mod squidguard;
mod story;

use std::fmt;

use crate::error::{Blame, Error};
use crate::process::spawn::{PreparedProgram, SpawnDefaults};

pub use shell::Pool;

/// Prepares the worker program. Blocks on the file system without a limit.
///
/// # Errors
/// The reason why the worker program could not be started, or why the default worker would be of no use.
pub fn prepare(options: &options::Options, defaults: &SpawnDefaults) -> Result<PreparedProgram, Error> {
    let prepared = PreparedProgram::prepare(&options.process, defaults);
    if !options.has_default_worker {
        let program = prepared.map_err(|error| shell::cannot_start(options, &error))?;
        if let Some(lack) = squidguard::look(&options.process) {
            log::warn!(service:% = options.front.name; "{}: {lack}", options.front.name);
        }
        return Ok(program);
    }
    let useless = |why: &dyn fmt::Display| {
        let (name, command) = (&options.front.name, squidguard::DEFAULT_COMMAND);
        let what = format_args!("{name}: the default worker, {command}, is of no use here: {why}");
        Error::new(
            Blame::System,
            what,
            "say which program to run: by --daemon (-d), or daemon in a file",
        )
    };
    let program = prepared.map_err(|error| useless(&error))?;
    match squidguard::look(&options.process) {
        Some(lack) => Err(useless(&lack)),
        None => Ok(program),
    }
}

/// Checks that a pool with the options `now` can take on others, with the clients and workers that it has.
///
/// # Errors
/// The mode would change, but the conversations under way are of the present one. Or the framings would change, but
/// requests that wait are already framed for the present workers.
pub fn may_become(now: &options::Options, others: &options::Options) -> Result<(), Error> {
    let what = if now.policy.mode != others.policy.mode {
        "mode"
    } else if now.framings != others.framings {
        "framings"
    } else {
        return Ok(());
    };
    let what = format!("{}: the {what} of a pool cannot change while it serves", now.front.name);
    Err(Error::new(
        Blame::Operator,
        what,
        "restart the daemon; or take the pool out of the file, send HUP, put it back, and send HUP again",
    ))
}
