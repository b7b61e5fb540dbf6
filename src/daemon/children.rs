//! The daemon's duties towards the processes that its doors start: one [guard](crate::process::guard) for all doors,
//! and an end for the processes that children [leave behind](crate::process::descendants).

use std::fmt;
use std::time::Instant;

use nix::unistd::Pid;

use crate::doors::Door;
use crate::error::{Blame, Error};
use crate::process;
use crate::process::control_group::ControlGroup;
use crate::process::descendants::{self, Orphans, Reading, ScanReport};
use crate::process::guard::{Guard, GuardStatus, Kind};
use crate::process::watch_list::WatchList;
use crate::reactor::Reactor;
use crate::reactor::helper::{Mailbox, Sender};
use crate::stats::throttle::{Throttle, Verdict};

/// The number of results from threads that may wait for the loop.
const MAILBOX_CAPACITY: usize = 64;

pub(super) struct Children {
    guard: Guard,
    /// True once the log has said that there is no guard.
    missing_reported: bool,
    orphans: Orphans,
    sender: Sender<Reading>,
    mailbox: Mailbox<Reading>,
    throttle: Throttle<Topic>,
}

/// The topics of log messages that are throttled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    LeftBehind,
    NoControlGroup,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Topic::LeftBehind => "processes that had been left behind",
            Topic::NoControlGroup => "failures to give a child a control group",
        })
    }
}

/// Starts the guard, with a control group for all children where there can be one. Must be called before the daemon has
/// much memory, threads or a socket.
///
/// # Errors
/// The guard cannot be started.
pub(super) fn start_guard() -> Result<Guard, Error> {
    let group = match ControlGroup::make() {
        Ok(group) => {
            log::debug!(
                "each child has a control group of its own in {}",
                group.path().display()
            );
            Some(group)
        }
        Err(reason) => {
            log::debug!("children have no control groups of their own: {reason}");
            None
        }
    };
    Guard::start(Kind::Program, group).map_err(|error| {
        let what = format!("cannot start the guard process: {error}");
        let remedy = "see whether the machine is short of processes or memory";
        Error::new(Blame::System, what, remedy)
    })
}

impl Children {
    pub(super) fn new(guard: Guard, reactor: &Reactor<dyn Door>) -> Result<Children, Error> {
        descendants::become_reaper()
            .map_err(|errno| super::system("become the reaper of what its children leave", &errno))?;
        match process::shorten_time_slice() {
            Ok(true) => {}
            Ok(false) => {
                log::debug!("the event loop keeps its time slice: it runs with a priority or policy of its own")
            }
            Err(errno) => log::debug!("the event loop keeps its time slice: sched_setattr: {}", errno.desc()),
        }
        let (sender, mailbox) = reactor.mailbox(MAILBOX_CAPACITY);
        Ok(Children {
            orphans: guard.orphans(),
            guard,
            missing_reported: false,
            sender,
            mailbox,
            throttle: Throttle::default(),
        })
    }

    /// Returns the list on which the doors register their children.
    pub(super) fn watch_list(&self) -> WatchList {
        self.guard.watch_list()
    }

    /// Returns the time at which [`run_due_work`](Self::run_due_work) must be called at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.guard.deadline(),
            self.orphans.deadline(),
            self.throttle.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Does everything that has become due. Must be called after each turn of the loop. `successor` is a child that
    /// neither a door nor the guard accounts for.
    pub(super) fn run_due_work(&mut self, now: Instant, successor: Option<Pid>) {
        while let Some(reading) = self.mailbox.take() {
            self.orphans.handle_reading(reading, now);
        }
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if is_due(self.guard.deadline()) {
            self.check_guard(now);
        }
        if is_due(self.orphans.deadline()) {
            self.scan_orphans(now, successor);
        }
        if is_due(self.throttle.next_deadline()) {
            for (topic, left_out) in self.throttle.take_overdue(now) {
                log::info!("{left_out} more {topic} were left out of this log");
            }
        }
    }

    /// Checks the guard and reaps orphans. Must be called when some child has changed its state (SIGCHLD).
    pub(super) fn handle_sigchld(&mut self, now: Instant, successor: Option<Pid>) {
        self.check_guard(now);
        self.orphans.reap_exited(now, is_ours(self.guard.pid(), successor));
    }

    fn scan_orphans(&mut self, now: Instant, successor: Option<Pid>) {
        let (guard, sender) = (self.guard.pid(), self.sender.clone());
        let tell = move |reading| sender.send(reading).is_ok();
        let ScanReport {
            terminated,
            killed,
            failure,
        } = self.orphans.scan(now, is_ours(guard, successor), tell);
        for (pid, name) in terminated {
            if let Verdict::Log { .. } = self.throttle.admit(Topic::LeftBehind, now) {
                log::info!("process {pid} ({name}), which had been left behind by a child that has ended, is ended");
            }
        }
        if let Some(failure) = failure
            && let Verdict::Log { .. } = self.throttle.admit(Topic::NoControlGroup, now)
        {
            log::warn!(
                "{failure}; it runs without, and what it starts is found by its session and its environment alone"
            );
        }
        if killed > 0 {
            log::info!("{killed} processes that had been left behind did not end by TERM and are killed");
        }
    }

    /// Replaces or resumes the guard if necessary. Should also be called when a failed start may succeed now.
    pub(super) fn check_guard(&mut self, now: Instant) {
        match self.guard.check(now) {
            GuardStatus::Running => {}
            GuardStatus::Replaced => {
                self.missing_reported = false;
                log::warn!("the guard process had died; there is another");
            }
            GuardStatus::Resumed => log::warn!("the guard process had been stopped; it goes on"),
            GuardStatus::Missing(error) => {
                if !std::mem::replace(&mut self.missing_reported, true) {
                    log::error!(
                        "the guard process has died and cannot be started again: {error}; it is tried every second; \
                         if this daemon is killed meanwhile, what its children have started may outlive it"
                    );
                }
            }
        }
    }

    /// Ends all orphans. Must be called at the end of the daemon, after its last door.
    pub(super) fn finish(&mut self, successor: Option<Pid>) {
        self.orphans.finish(is_ours(self.guard.pid(), successor));
    }
}

/// Returns a predicate for children that are neither started by a door nor orphans.
fn is_ours(guard: Option<Pid>, successor: Option<Pid>) -> impl Fn(Pid) -> bool {
    move |pid| Some(pid) == guard || Some(pid) == successor
}
