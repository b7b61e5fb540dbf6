//! The composition root: it builds doors and listeners, connects the signals, and ends when the last door has finished.
//!
//! The life of a daemon: [`run`] raises the limit on open files, takes over sockets from systemd, opens a door for each
//! service of the [`Plan`] ([`doors`]), and turns the reactor until all of them have finished. In between it handles
//! signals, and gives doors the certificates whose files have changed ([`renewal`]):
//!
//! | signal | effect |
//! | --- | --- |
//! | CHLD | the guard is checked, and processes that children have left behind are reaped ([`children`]) |
//! | USR1 | every door's statistics are printed to standard output |
//! | USR2 | every door's inner state is printed |
//! | HUP | the configuration and everything that it names are read again ([`reload`]), and every door rolls |
//! | TERM, INT | every door drains; at the second signal, requests under way are aborted |
//! | URG | a new process is given the listening sockets; once it serves, every door drains ([`upgrade`]) |
//!
//! Invariants: a reload is applied as a whole or not at all, and printing ([`output`]) never makes the daemon wait for
//! a reader. The meaning of all this to a door does not belong here.

mod children;
mod doors;
mod fitting;
mod notify;
mod output;
mod passing;
mod reload;
mod renewal;
mod start;
mod survey;
mod upgrade;

use std::ffi::OsString;
use std::time::Instant;

use nix::sys::signal::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGURG, SIGUSR1, SIGUSR2};

use crate::config::file::Source;
use crate::config::lower::log::LogSettings;
use crate::doors::preparing::Surroundings;
use crate::doors::{Door, Options};
use crate::error::{Blame, Error};
use crate::net::handover::HandedOver;
use crate::process::limits::OpenFileLimit;
use crate::process::predecessors::Predecessors;
use crate::process::spawn::SpawnDefaults;
use crate::process::watchdog::Watchdog;
use crate::process::{self, guard};
use crate::reactor::Reactor;
use crate::stats::text;

use children::Children;
use doors::{Doors, Places};
use notify::Notifier;
use output::Output;
use reload::Reloader;
use renewal::Renewal;
use start::Start;
use survey::Surveyed;
use upgrade::candidate::{Candidate, Invitation};
use upgrade::predecessor::Upgrade;

/// Everything that a daemon is to run.
#[derive(Debug)]
pub struct Plan {
    /// The options of the services, at least one.
    pub services: Vec<Options>,
    /// The file from which they were read, which is read again at HUP; `None` if they came from the command line.
    pub source: Option<Source>,
    /// The settings of the log, some of which the file may change.
    pub log: LogSettings,
    /// A secret that stands on the command line, and is to be seen there no longer.
    pub secret: Option<String>,
}

/// A running daemon.
struct Daemon {
    reactor: Reactor<dyn Door>,
    doors: Doors,
    /// Dropped after the doors, so that the guard outlives them.
    children: Children,
    reloader: Reloader,
    renewal: Renewal,
    log: LogSettings,
    output: Output,
    notifier: Notifier,
    start: Start,
    shutdown: Shutdown,
    upgrade: Upgrade,
    /// The processes that this one has taken the place of.
    predecessors: Predecessors,
    /// Present while this daemon is about to take the place of another one and accepts no clients yet.
    candidate: Option<Candidate>,
}

/// The progress of the daemon's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    NotBegun,
    /// A successor serves, and this daemon finishes the clients that it has accepted.
    HandedOver,
    Draining,
    Aborting,
}

/// Runs the life of a guard if this process was started as one. Returns true when that is over, and the process must
/// end.
#[must_use]
pub fn was_guard(arguments: &[OsString]) -> bool {
    arguments.len() == 1 && arguments.first().is_some_and(|name| guard::called_as_guard(name)) && guard::live_as_guard()
}

/// Runs the services of a plan until a signal ends them.
///
/// # Errors
/// The reason why the daemon could not start, or could not go on.
pub fn run(plan: Plan) -> Result<(), Error> {
    let invitation = Invitation::from_environment()?;
    let predecessor = invitation.as_ref().map(Invitation::predecessor);
    let announcement = start::announcement(std::process::id(), predecessor, &plan.services);
    let mut limit = OpenFileLimit::raise().map_err(|error| system("raise the limit on open files", &error))?;
    process::claim_children().map_err(|error| system("claim its children", &error))?;
    let guard = children::start_guard()?;
    let mut reactor: Reactor<dyn Door> = Reactor::new(&[SIGHUP, SIGINT, SIGTERM, SIGURG, SIGUSR1, SIGUSR2])
        .map_err(|error| system("make an event loop", &error))?;
    let heard = reactor.watch_signal(Signal::SIGCHLD);
    heard.map_err(|error| system("hear of its children", &error))?;
    let children = Children::new(guard, &reactor)?;
    let mut predecessors = Predecessors::default();
    let mut links = Vec::new();
    let (candidate, handed_over, inherited, places) = match invitation {
        None => (None, HandedOver::default(), doors::inherited(), Places::new()),
        Some(invitation) => {
            // A predecessor has raised its own limit, and this process inherited the raised one.
            limit.original = invitation.terms.open_files;
            predecessors = invitation.predecessors;
            links = invitation.links;
            let candidate = Candidate::new(invitation.terms, &reactor)?;
            (Some(candidate), invitation.sockets, invitation.given, invitation.places)
        }
    };
    let surroundings = Surroundings::new(SpawnDefaults {
        open_files: Some(limit.original),
        watch_list: children.watch_list(),
        watchdog: Watchdog::default(),
    });
    let watchdog = surroundings.spawn.watchdog.start();
    watchdog.map_err(|error| system("start the thread that watches over starts", &error))?;
    let mut daemon = Daemon {
        reloader: Reloader::new(plan.source, &reactor),
        renewal: Renewal::new(&reactor),
        reactor,
        children,
        doors: Doors::new(limit, surroundings, handed_over, inherited, places),
        log: plan.log,
        output: Output::start(),
        notifier: Notifier::from_environment(),
        start: Start::new(Instant::now()),
        shutdown: Shutdown::NotBegun,
        upgrade: Upgrade::new(limit.original),
        predecessors,
        candidate,
    };
    if let Some(secret) = plan.secret {
        start::hide_secret(&secret);
    }
    daemon.doors.set_links(links);
    daemon.doors.open_all(&mut daemon.reactor, plan.services)?;
    log::info!("{announcement}");
    daemon.watch_certificates();
    if daemon.candidate.is_none() {
        daemon.doors.accept(&mut daemon.reactor)?;
    }
    daemon.serve()
}

impl Daemon {
    fn serve(&mut self) -> Result<(), Error> {
        // Doors that are ready from the start cause no event.
        self.advance_candidacy()?;
        self.report_start();
        while !self.doors.remove_finished(&mut self.reactor) {
            let signals = self
                .reactor
                .turn(self.deadline())
                .map_err(|error| system("wait for events", &error))?
                .to_vec();
            for signal in signals {
                self.handle_signal(signal);
            }
            self.children.run_due_work(Instant::now(), self.upgrade.successor());
            self.apply_finished_reload();
            self.renew_certificates();
            self.poll_upgrade();
            self.doors.pass_on(&mut self.reactor);
            self.advance_candidacy()?;
            self.report_start();
        }
        self.children.finish(self.upgrade.successor());
        Ok(())
    }

    /// Returns the time at which something must be done that no event announces.
    fn deadline(&self) -> Option<Instant> {
        let reading = self.reloader.deadline();
        let start = self.start.deadline(&self.notifier);
        let others = [reading, self.renewal.deadline(), self.upgrade.deadline(), start]
            .into_iter()
            .flatten();
        self.children.deadline().into_iter().chain(others).min()
    }

    fn handle_signal(&mut self, signal: i32) {
        match signal {
            SIGCHLD => {
                let successor = self.upgrade.successor();
                self.children.handle_sigchld(Instant::now(), successor);
            }
            SIGUSR1 => self.print_statistics(),
            SIGUSR2 => self.print_dump(),
            SIGHUP => self.handle_hup(),
            SIGTERM | SIGINT => self.shut_down(),
            SIGURG => self.upgrade(),
            // No other signal is registered.
            _ => {}
        }
    }

    fn print_statistics(&mut self) {
        let earlier = self.predecessors.running().len();
        let blocks = self.doors.each(&mut self.reactor, |door, cx| {
            door.front_mut().note_predecessors(earlier);
            text::block(&door.statistics(cx.now()))
        });
        self.output.print(blocks.concat());
    }

    fn print_dump(&mut self) {
        let dumps = self
            .doors
            .each(&mut self.reactor, |door, cx| text::dump(&door.dump(cx.now())));
        self.output.print(dumps.concat());
    }

    fn handle_hup(&mut self) {
        self.children.check_guard(Instant::now());
        if self.shutdown != Shutdown::NotBegun {
            return;
        }
        if let Some(candidate) = &mut self.candidate {
            candidate.postpone_reload();
            return;
        }
        if self.upgrade.postpone_reload() {
            log::info!(
                "an upgrade is under way: whoever serves after it reads the configuration and replaces the workers"
            );
            return;
        }
        self.notifier.report_reloading();
        if let Err(error) = self.reloader.start(Instant::now(), &self.doors, &mut self.reactor) {
            self.apply_reload(Err(error));
        }
    }

    /// If a reload is complete, applies its changes and replaces every worker, as HUP asks for.
    fn apply_finished_reload(&mut self) {
        let outcome = self
            .reloader
            .take_outcome(Instant::now(), &self.doors, &mut self.reactor);
        if let Some(read) = outcome {
            self.apply_reload(read);
        }
    }

    fn apply_reload(&mut self, read: Result<Surveyed, Error>) {
        if self.shutdown != Shutdown::NotBegun {
            return;
        }
        if self.reloader.has_file() {
            let applied = read.and_then(|read| {
                self.doors.reload(&mut self.reactor, read.services)?;
                Ok(read.log)
            });
            match applied {
                Ok(log) => {
                    self.log.apply(&log);
                    log::info!("the configuration was read again");
                    self.watch_certificates();
                }
                Err(error) => {
                    log::error!("the configuration was read again and is refused; the old one stays:\n{error}");
                }
            }
        } else {
            match read {
                Ok(read) => {
                    self.doors.set_prepared(&mut self.reactor, read.services);
                    self.watch_certificates();
                }
                Err(error) => log::error!("programs are started with what was there before:\n{error}"),
            }
        }
        self.doors.each(&mut self.reactor, |door, cx| door.roll(cx));
        self.notifier.report_reloaded();
    }

    fn shut_down(&mut self) {
        self.notifier.report_stopping();
        self.renewal.stop();
        self.abandon_upgrade();
        match self.shutdown {
            Shutdown::NotBegun | Shutdown::HandedOver => {
                self.shutdown = Shutdown::Draining;
                self.doors.expect_handed(&mut self.reactor);
                self.doors.each(&mut self.reactor, |door, cx| door.drain(cx));
            }
            Shutdown::Draining | Shutdown::Aborting => {
                self.shutdown = Shutdown::Aborting;
                log::warn!("told to end again: hurrying");
                self.doors.each(&mut self.reactor, |door, cx| door.abort(cx));
            }
        }
    }
}

fn system(attempted: &str, error: &dyn std::fmt::Display) -> Error {
    let remedy = "see whether the machine is short of memory, descriptors or processes";
    Error::new(Blame::System, format!("cannot {attempted}: {error}"), remedy)
}
