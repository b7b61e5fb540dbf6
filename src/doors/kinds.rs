//! The kinds of doors: a variant for each, of its options and of what is prepared for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::front::options::{DescriptorNeeds, FrontOptions};
use super::preparing::Surroundings;
use super::{Door, Listeners, command, exec, pool, route, tunnel};
use crate::error::{Blame, Error};
use crate::process::spawn::{PreparedProgram, Spawner};

/// The options of a door. Each kind of door is a variant.
#[derive(Debug, Clone, PartialEq)]
pub enum Options {
    /// The options of a pool of stdio workers.
    Pool(Box<pool::options::Options>),
    /// The options of a door that runs the program of its choice for each client.
    Exec(Box<exec::options::Options>),
    /// The options of a door that runs commands named by the operator.
    Command(Box<command::options::Options>),
    /// The options of a door that takes connections to servers by name.
    Route(Box<route::options::Options>),
    /// The options of a door that serves the clients of a remote server through a tunnel.
    Tunnel(Box<tunnel::options::Options>),
}

/// The part of a door that [`Options::prepare`] makes from the file system: programs have been looked for and directories
/// opened. This may take long, or never end; so a daemon that serves does it on a thread, and hands the result to the
/// door.
#[derive(Debug)]
pub enum Prepared {
    /// The worker program.
    Pool(Box<PreparedProgram>),
    /// The context of the programs that clients ask for.
    Exec(Box<Spawner>),
    /// The program of every command.
    Command(command::Programs),
    /// The pipes that bytes go through, and the programs behind servers.
    Route(Box<route::Prepared>),
    /// The secret, and TLS with the servers.
    Tunnel(Box<tunnel::Prepared>),
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
            Options::Route(options) => &options.front,
            Options::Tunnel(options) => &options.front,
        }
    }

    /// Returns the part that every door has, to be adjusted to the machine. Must be called before the door is opened: what
    /// a door has already does not change.
    pub fn front_mut(&mut self) -> &mut FrontOptions {
        Arc::make_mut(match self {
            Options::Pool(options) => &mut options.front,
            Options::Exec(options) => &mut options.front,
            Options::Command(options) => &mut options.front,
            Options::Route(options) => &mut options.front,
            Options::Tunnel(options) => &mut options.front,
        })
    }

    /// Returns true if the messages of clients must not appear in the log or in a core dump of the daemon.
    pub fn is_confidential(&self) -> bool {
        match self {
            Options::Pool(options) => options.disclosure == pool::options::Disclosure::Nothing,
            Options::Exec(_) | Options::Command(_) | Options::Route(_) | Options::Tunnel(_) => false,
        }
    }

    /// Returns the descriptors that the work of the door takes.
    pub fn descriptor_needs(&self) -> DescriptorNeeds {
        match self {
            Options::Pool(options) => options.descriptor_needs(),
            Options::Exec(options) => options.descriptor_needs(),
            Options::Command(options) => options.descriptor_needs(),
            Options::Route(options) => options.descriptor_needs(),
            Options::Tunnel(options) => options.descriptor_needs(),
        }
    }

    /// Returns the most time that its workers may take until they serve, if that is limited.
    pub fn start_timeout(&self) -> Option<Duration> {
        match self {
            Options::Pool(options) => {
                let takes_time = options.ready_line.is_some() || options.probe.is_some();
                takes_time.then_some(options.policy.start_timeout)
            }
            Options::Exec(_) | Options::Command(_) | Options::Route(_) | Options::Tunnel(_) => None,
        }
    }

    /// Prepares what the door needs of the file system. Blocks on it without a limit.
    ///
    /// # Errors
    /// The reason why the door cannot be opened.
    pub fn prepare(&self, surroundings: &Surroundings) -> Result<Prepared, Error> {
        let defaults = &surroundings.spawn;
        match self {
            Options::Pool(options) => pool::prepare(options, defaults).map(|program| Prepared::Pool(Box::new(program))),
            // The program is not known before a client names it; but the context in which it starts is.
            Options::Exec(options) => exec::prepare(options, defaults).map(|spawner| Prepared::Exec(Box::new(spawner))),
            Options::Command(options) => command::prepare(options, defaults).map(Prepared::Command),
            Options::Route(options) => {
                route::prepare(options, surroundings).map(|prepared| Prepared::Route(Box::new(prepared)))
            }
            Options::Tunnel(options) => {
                tunnel::prepare(options, surroundings).map(|prepared| Prepared::Tunnel(Box::new(prepared)))
            }
        }
    }

    /// Checks that a door that was opened with these options can take on others.
    ///
    /// # Errors
    /// The option that cannot change while the door is open.
    pub fn may_become(&self, others: &Options) -> Result<(), Error> {
        match (self, others) {
            (Options::Pool(options), Options::Pool(others)) => pool::may_become(options, others),
            (Options::Exec(_), Options::Exec(_))
            | (Options::Command(_), Options::Command(_))
            | (Options::Route(_), Options::Route(_))
            | (Options::Tunnel(_), Options::Tunnel(_)) => Ok(()),
            (
                Options::Pool(_) | Options::Exec(_) | Options::Command(_) | Options::Route(_) | Options::Tunnel(_),
                others,
            ) => Err(other_kind(self.name(), others)),
        }
    }

    /// Returns the door, which listens but does not serve yet. `prepared` must come from [`prepare`](Self::prepare) of
    /// options of the same kind.
    ///
    /// # Errors
    /// The reason why the door cannot be opened.
    pub fn open(self, prepared: Prepared, listeners: Listeners, now: Instant) -> Result<Box<dyn Door>, Error> {
        match (self, prepared) {
            (Options::Pool(options), Prepared::Pool(program)) => {
                Ok(Box::new(pool::Pool::new(*options, *program, listeners, now)))
            }
            (Options::Exec(options), Prepared::Exec(spawner)) => {
                Ok(Box::new(exec::ExecDoor::new(*options, *spawner, listeners, now)?))
            }
            (Options::Command(options), Prepared::Command(programs)) => {
                Ok(Box::new(command::CommandDoor::new(*options, programs, listeners, now)))
            }
            (Options::Route(options), Prepared::Route(prepared)) => {
                Ok(Box::new(route::RouteDoor::new(*options, *prepared, listeners, now)))
            }
            (Options::Tunnel(options), Prepared::Tunnel(prepared)) => {
                Ok(Box::new(tunnel::TunnelDoor::new(*options, *prepared, listeners, now)))
            }
            (options, _) => Err(other_kind(options.name(), &options)),
        }
    }

    /// Returns true if a door of this kind may hand connections over to others.
    pub fn may_hand_over(&self) -> bool {
        matches!(self, Options::Route(_) | Options::Tunnel(_))
    }

    /// Returns a few words for the log about the programs of the door.
    pub fn summary(&self) -> String {
        match self {
            Options::Pool(options) => options.summary(),
            Options::Exec(options) => options.summary(),
            Options::Command(options) => options.summary(),
            Options::Route(options) => options.summary(),
            Options::Tunnel(options) => options.summary(),
        }
    }

    /// Returns the name of this kind of door in a configuration file.
    pub fn kind(&self) -> &'static str {
        match self {
            Options::Pool(_) => "pool",
            Options::Exec(_) => "exec",
            Options::Command(_) => "command",
            Options::Route(_) => "route",
            Options::Tunnel(_) => "tunnel",
        }
    }
}

/// Returns the error of a reload that would turn the service `name` into one of another kind.
pub(super) fn other_kind(name: &str, others: &Options) -> Error {
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
