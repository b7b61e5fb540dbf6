//! The front doors: one folder each, and none knows another.
//!
//! A [`Door`] is a service on the loop that the daemon can start, ask about itself, change, roll and drain. Each door's
//! folder has `mod.rs` with its story, `options.rs` with what it is told, `core/` with its decisions, a shell with its I/O,
//! and `report.rs` with its words. A new door is a new folder here, a variant in [`Options`], and its specification in
//! `config`; no other door changes for it.

mod closing;
pub mod command;
mod dump;
pub mod exec;
pub mod front;
mod journal;
mod on_request;
pub mod pattern;
pub mod pool;
mod programs;
mod run;
mod standstill;
pub mod waiters;

use std::io;
use std::time::{Duration, Instant};

use front::options::{DescriptorNeeds, FrontOptions};

use crate::error::{Blame, Error};
use crate::net::addr::ListenAddr;
use crate::net::conn::Conn;
use crate::net::listener::Listener;
use crate::net::origin::Origin;
use crate::process::spawn::{PreparedProgram, SpawnDefaults, Spawner};
use crate::reactor::{Context, Service};
use crate::stats::Snapshot;

/// Listeners, each with the address that the operator has written for it.
pub type Listeners = Vec<(ListenAddr, Listener)>;

/// What a door is told: one variant a door.
#[derive(Debug, Clone, PartialEq)]
pub enum Options {
    /// A pool of stdio workers.
    Pool(Box<pool::options::Options>),
    /// A program of its choice for each client.
    Exec(Box<exec::options::Options>),
    /// Commands that the operator has named.
    Command(Box<command::options::Options>),
}

/// What a door starts its programs with, laid out by [`Options::lay_out`]: files have been looked for and directories
/// opened. That may take its time, or never end; so a daemon that serves has it done on a thread, and a door is given it.
#[derive(Debug)]
pub enum Kit {
    /// The worker.
    Pool(Box<PreparedProgram>),
    /// Whatever clients ask for.
    Exec(Box<Spawner>),
    /// Every command's program.
    Command(command::Programs),
}

impl Options {
    /// Returns the name in logs and statistics, which is unique in a daemon.
    pub fn name(&self) -> &str {
        &self.front().name
    }

    /// Returns the part that every door has.
    pub fn front(&self) -> &FrontOptions {
        match self {
            Options::Pool(options) => &options.front,
            Options::Exec(options) => &options.front,
            Options::Command(options) => &options.front,
        }
    }

    /// Returns the part that every door has, to be adjusted to the machine.
    pub fn front_mut(&mut self) -> &mut FrontOptions {
        match self {
            Options::Pool(options) => &mut options.front,
            Options::Exec(options) => &mut options.front,
            Options::Command(options) => &mut options.front,
        }
    }

    /// Whether what clients say may not be seen by people, in the log or in a core dump of the daemon.
    pub fn is_confidential(&self) -> bool {
        match self {
            Options::Pool(options) => options.disclosure == pool::options::Disclosure::Nothing,
            Options::Exec(_) | Options::Command(_) => false,
        }
    }

    /// Returns the descriptors that the work of the door takes.
    pub fn descriptor_needs(&self) -> DescriptorNeeds {
        match self {
            Options::Pool(options) => options.descriptor_needs(),
            Options::Exec(options) => options.descriptor_needs(),
            Options::Command(options) => options.descriptor_needs(),
        }
    }

    /// How long its workers may take until they serve, if that is limited.
    pub fn start_timeout(&self) -> Option<Duration> {
        match self {
            Options::Pool(options) => {
                let takes_time = options.ready_line.is_some() || options.probe.is_some();
                takes_time.then_some(options.policy.start_timeout)
            }
            Options::Exec(_) | Options::Command(_) => None,
        }
    }

    /// Lays out what such a door starts its programs with. Asks the file system, for as long as that takes.
    ///
    /// # Errors
    /// What keeps it from being opened.
    pub fn lay_out(&self, defaults: &SpawnDefaults) -> Result<Kit, Error> {
        match self {
            Options::Pool(options) => pool::lay_out(options, defaults).map(|program| Kit::Pool(Box::new(program))),
            // What it will run is not known before a client says so; but what that is started with is.
            Options::Exec(options) => exec::lay_out(options, defaults).map(|spawner| Kit::Exec(Box::new(spawner))),
            Options::Command(options) => command::lay_out(options, defaults).map(Kit::Command),
        }
    }

    /// Whether a door that was opened with these options can go on with others.
    ///
    /// # Errors
    /// What cannot change while it is open.
    pub fn may_become(&self, others: &Options) -> Result<(), Error> {
        match (self, others) {
            (Options::Pool(options), Options::Pool(others)) => pool::may_become(options, others),
            (Options::Exec(_), Options::Exec(_)) | (Options::Command(_), Options::Command(_)) => Ok(()),
            (Options::Pool(_) | Options::Exec(_) | Options::Command(_), others) => Err(other_kind(self.name(), others)),
        }
    }

    /// The door, listening but not yet serving.
    ///
    /// # Errors
    /// What keeps it from being opened.
    pub fn open(self, kit: Kit, listeners: Listeners, now: Instant) -> Result<Box<dyn Door>, Error> {
        match (self, kit) {
            (Options::Pool(options), Kit::Pool(program)) => {
                Ok(Box::new(pool::Pool::new(*options, *program, listeners, now)))
            }
            (Options::Exec(options), Kit::Exec(spawner)) => {
                Ok(Box::new(exec::ExecDoor::new(*options, *spawner, listeners, now)?))
            }
            (Options::Command(options), Kit::Command(programs)) => {
                Ok(Box::new(command::CommandDoor::new(*options, programs, listeners, now)))
            }
            (options, _) => Err(other_kind(options.name(), &options)),
        }
    }

    /// What it is to run, in a few words for the log.
    pub fn summary(&self) -> String {
        match self {
            Options::Pool(options) => options.summary(),
            Options::Exec(options) => options.summary(),
            Options::Command(options) => options.summary(),
        }
    }

    /// What such a service is called in a file.
    pub fn kind(&self) -> &'static str {
        match self {
            Options::Pool(_) => "pool",
            Options::Exec(_) => "exec",
            Options::Command(_) => "command",
        }
    }
}

/// A service of this name is open, and would have to become one of another kind.
fn other_kind(name: &str, others: &Options) -> Error {
    let what = format!(
        "{name}: a service cannot become one of another kind ({}) while it serves",
        others.kind()
    );
    Error::new(
        Blame::Operator,
        what,
        "give it another name; or take it out of the file, send HUP, put it back, and send HUP again",
    )
}

/// A door cannot begin, because the kernel watches no more for it.
fn cannot_watch(error: &io::Error) -> Error {
    let what = format!("cannot watch descriptors: {error}");
    Error::new(Blame::System, what, "raise fs.epoll.max_user_watches")
}

/// How far a door is on its way to serving. The one notion of that there is: a start is over when no door is waiting, and a
/// successor takes over when every door serves fully.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// Nobody can be served: what runs behind it has not shown yet that it works, or has failed.
    Waiting,
    /// It serves, with less than it wants: some of what runs behind it has failed.
    Partly,
    /// It serves.
    Fully,
}

/// What the daemon can do with a door.
pub trait Door: Service {
    /// How many workers there are places for behind the door: what a successor is to [begin with](Self::begin_with). None
    /// where nothing runs before somebody asks for it.
    fn places(&self) -> usize {
        0
    }

    /// Begins with so many, if it can choose. Called before [`start`](Self::start), if at all.
    fn begin_with(&mut self, _places: usize) {}

    /// Starts what runs behind the door. Called once, after the door was given its place on the loop. Nobody is accepted
    /// yet: clients wait in the backlog, or are served by a predecessor that holds the same sockets.
    ///
    /// # Errors
    /// What makes it useless to go on.
    fn start(&mut self, cx: &mut Context<'_>) -> Result<(), Error>;

    /// How far it is on its way to serving.
    fn readiness(&self) -> Readiness {
        Readiness::Fully
    }

    /// What it waits for while it is [waiting](Readiness::Waiting), in words.
    fn waits_for(&self) -> String {
        String::new()
    }

    /// Begins to accept. Called once, after [`start`](Self::start).
    ///
    /// # Errors
    /// What makes it useless to go on.
    fn accept(&mut self, cx: &mut Context<'_>) -> Result<(), Error>;

    /// What it listens on, each with its address as it was written.
    fn listeners(&self) -> Vec<(&ListenAddr, &Listener)>;

    /// What it was told.
    fn options(&self) -> Options;

    /// Takes over a connection that another door, or nobody, has accepted.
    fn adopt(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin);

    /// Takes on new options, and what was laid out for them; `new` are listeners for addresses that were not listened on
    /// before. Those whose address is not named any more are closed.
    ///
    /// # Errors
    /// What is wrong with the options: then everything stays as it was.
    fn reload(&mut self, cx: &mut Context<'_>, options: Options, kit: Kit, new: Listeners) -> Result<(), Error>;

    /// Takes on what was laid out anew for the options that it has. One for another door is dropped.
    fn equip(&mut self, kit: Kit);

    /// Replaces what runs behind the door, without refusing anybody.
    fn roll(&mut self, cx: &mut Context<'_>);

    /// Stops accepting, finishes what is in hand, ends.
    fn drain(&mut self, cx: &mut Context<'_>);

    /// The same after a successor has begun to accept from the same sockets: who waits in their backlog is left to it,
    /// and who has been accepted is not hastened.
    fn hand_over(&mut self, cx: &mut Context<'_>);

    /// Ends at once.
    fn hurry(&mut self, cx: &mut Context<'_>);

    /// Whether it has drained, or hurried, to the end: the daemon may drop it.
    fn is_finished(&self) -> bool;

    /// Everything it counts.
    fn snapshot(&self, now: Instant) -> Snapshot;

    /// Its state in detail, as text.
    fn dump(&self, now: Instant) -> String;
}
