//! Child processes: their description, their start, their supervision and their end. This room knows nothing of pools,
//! requests or sockets.
//!
//! The life of one child:
//!
//! 1. [`spec`] describes it as data. [`identity`] has turned the names of users and groups into numbers.
//! 2. [`spawn::PreparedProgram::prepare`] looks the program up and prepares everything that each of its starts needs. A
//!    program that cannot be started is reported here, by name and errno ([`failure`]). If clients choose the program,
//!    [`spawn::Spawner::new`] prepares what is the same for all programs.
//! 3. [`spawn::PreparedProgram::spawn`] or [`spawn::Spawner::spawn_program`] starts the program. It leads a session and
//!    a process group of its own, has default signal dispositions, and inherits only its three standard descriptors,
//!    which belong to its user. The cost does not depend on the size of the daemon. A failed exec is an error of this
//!    call and never has to be guessed from an exit status. With [`spec::SpawnContext::terminal`], standard input and
//!    output are a pseudo-terminal ([`terminal`]). With [`spec::SpawnContext::sandbox`], the child can open only the
//!    files that it is given ([`sandbox`]).
//! 4. Before its exec, the child enters itself into the [`watch_list`], so that the [`guard`] can end it if the daemon
//!    is killed.
//! 5. [`child::Child`] owns its pidfd, which is readable once it has exited, and the daemon's ends of its pipes.
//!    [`stderr_log`] turns its standard error into log lines, and [`rss`] reads how much memory it uses.
//! 6. [`kill_sequence::KillSequence`] decides how and when it is ended: input closed, TERM, KILL. A program that is run
//!    once, for a client, is a [`job::Job`]: all of this with its sources on the loop.
//! 7. [`child::Child::reap_with_group`] ends the rest of its group, removes it from the list, and only then reaps it.
//!
//! Invariants: a process id is used for signals only while its process is not reaped, because until then the kernel
//! gives the number to no other process. For this the daemon must call [`claim_children`] before anything else. Every
//! descriptor is close-on-exec. Nothing here waits for a child. SIGCHLD is needed for the guard and for orphans only;
//! the exit of any other child is an event of its pidfd. All `unsafe` of this room is in `sys.rs` and `sys/`.
//!
//! A process that leaves its group or its session (`timeout`, a shell with job control, `setsid`, a double-forking
//! daemon) is found by [`descendants`] and, if control groups are delegated to the daemon, by its [`control_group`].
//!
//! The kernel must be Linux 5.4 or later (`waitid` on a pidfd).

pub mod arguments;
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
pub mod predecessors;
mod procfs;
pub mod program;
pub mod rss;
pub mod sandbox;
pub mod signs;
pub mod spawn;
pub mod spec;
pub mod stderr_log;
mod stdio;
pub mod strings;
pub mod successor;
mod sys;
pub mod terminal;
mod tree;
pub mod watch_list;
pub mod watchdog;

pub use sys::{claim_children, shorten_time_slice, unread_bytes};

#[cfg(test)]
mod testing;
