//! What to spawn, spawning it, watching it and ending it. Knows nothing of pools, requests or sockets.
//!
//! The life of one child:
//!
//! 1. [`spec`] describes it as data; [`identity`] has turned the names of users and groups into numbers.
//! 2. [`spawn::PreparedProgram::prepare`] looks the program up and lays out once what every start of it needs; a program that
//!    cannot be started is known here, by name and errno ([`failure`]). Where clients bring the program,
//!    [`spawn::Spawner::new`] does that for all that is the same for each.
//! 3. [`spawn::PreparedProgram::spawn`], or [`spawn::Spawner::spawn_program`], starts it: leader of its own session and process group,
//!    default signals, nothing inherited but its three standard descriptors, which belong to its user. It costs the same
//!    whatever the size of the daemon. A failed exec is an error of this call, never an exit status to be guessed. With
//!    [`spec::SpawnContext::terminal`] two of these are a pseudo-terminal ([`terminal`]). With [`spec::SpawnContext::sandbox`]
//!    it can open no files but those that it is given ([`sandbox`]).
//! 4. Before its exec it enters itself into the [`watch_list`], so that nothing outlives the daemon: the [`guard`] sees to it.
//! 5. [`child::Child`] is its pidfd (readable once: it has exited) and our ends of its pipes; [`stderr_log`] makes log
//!    lines of what it complains about, [`rss`] says how much memory it holds.
//! 6. [`kill_sequence::KillSequence`] decides how and when it is ended: input closed, TERM, KILL. A program that is run once,
//!    for a client, is a [`job::Job`]: all of this with its sources on the loop.
//! 7. [`child::Child::reap_with_group`] kills what is left of its group, strikes it off the list, and only then reaps it.
//!
//! What holds throughout: a process id is used for signals only while its process is unreaped, since until then the
//! kernel gives the number to no other; the daemon calls [`claim_children`] first of all. Every descriptor is
//! close-on-exec. Nothing here blocks on a child. SIGCHLD tells of the guard and of orphans alone; the exit of any other
//! child is its pidfd's event. All `unsafe` of this room is in
//! `sys.rs` and `sys/`.
//!
//! What leaves its group or its session (`timeout`, a shell with job control, `setsid`, a double-forking daemon) is found by
//! [`descendants`], and where control groups are delegated to the daemon by its [`control_group`].
//!
//! The kernel must be Linux 5.4 or later (`waitid` on a pidfd).

pub mod child;
pub mod control_group;
pub mod descendants;
pub mod exit_status;
pub mod failure;
pub mod guard;
pub mod identity;
pub mod job;
pub mod kill_sequence;
pub mod leftovers;
pub mod limits;
mod plan;
mod procfs;
mod program;
pub mod rss;
pub mod sandbox;
pub mod signs;
pub mod spawn;
pub mod spec;
pub mod stderr_log;
mod stdio;
pub mod successor;
mod sys;
pub mod terminal;
pub mod watch_list;
pub mod watchdog;

pub use sys::{claim_children, shorten_time_slice, unread_bytes};

#[cfg(test)]
mod testing;
