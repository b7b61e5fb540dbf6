//! Faults injected from outside: workers and guards are killed and stopped, and the daemon gets signals.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};

use crate::daemon::Daemon;
use crate::dice::Dice;
use crate::mode::Mode;
use crate::statistics::Statistics;
use crate::timeline::Timeline;

/// The number of the injector's stream of dice; clients have small ones.
pub(crate) const STREAM: u64 = u64::MAX;

/// Names of processes as the kernel has them.
const WORKER: &str = "chaos";
const GUARD: &str = "io-guard";
/// A child until its exec has that of the daemon.
const STARTING: &str = "iotcpd";

/// The time that the injector waits for a start.
const HUNT: Duration = Duration::from_millis(100);

/// Milliseconds that pass between two faults, at most.
const PAUSE: u64 = 80;
/// Milliseconds that a worker stays stopped which goes on later, at most: some are met by the busy time-out. And that
/// new workers stay poisoned.
pub(crate) const STOPPED: u64 = 1500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillWorker,
    TermWorker,
    StopWorker,
    StopWorkerForGood,
    StopAllWorkers,
    /// Between its clone and its exec, when the daemon stands still for it.
    StopStart,
    KillGuard,
    StopGuard,
    /// Workers that start are sick for a while, and all are to be replaced.
    Poison,
    Hup,
    Upgrade,
    Usr1,
    Usr2,
}

const FAULTS: [(Fault, usize); 13] = [
    (Fault::KillWorker, 300),
    (Fault::TermWorker, 150),
    (Fault::StopWorker, 150),
    (Fault::StopWorkerForGood, 40),
    (Fault::StopAllWorkers, 6),
    (Fault::StopStart, 15),
    (Fault::KillGuard, 40),
    (Fault::StopGuard, 20),
    (Fault::Poison, 8),
    (Fault::Hup, 15),
    (Fault::Upgrade, 6),
    (Fault::Usr1, 60),
    (Fault::Usr2, 10),
];

/// The number of times that each fault was injected.
#[derive(Debug, Default)]
pub(crate) struct FaultCounts(BTreeMap<Fault, u64>);

impl fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self
            .0
            .iter()
            .map(|(fault, count)| format!("{fault:?} {count}"))
            .collect();
        f.write_str(&faults.join(", "))
    }
}

/// The daemon that faults are injected into, and the faults that must be taken back.
pub(crate) struct FaultInjector<'a> {
    daemon: &'a mut Daemon,
    modes: Vec<&'a Mode>,
    timeline: &'a Timeline,
    counts: FaultCounts,
    stopped: Vec<(Instant, Pid)>,
    poisoned_until: Option<Instant>,
}

impl<'a> FaultInjector<'a> {
    pub(crate) fn new(daemon: &'a mut Daemon, modes: Vec<&'a Mode>, timeline: &'a Timeline) -> Self {
        Self {
            daemon,
            modes,
            timeline,
            counts: FaultCounts::default(),
            stopped: Vec::new(),
            poisoned_until: None,
        }
    }

    /// Goes on until the other end of `stop` is dropped. An error is a broken promise: the daemon is not there, or its
    /// counters do not add up.
    pub(crate) fn run(mut self, dice: &mut Dice, stop: &Receiver<()>) -> Result<FaultCounts, Box<dyn Error>> {
        while stop.recv_timeout(dice.pause(PAUSE)) == Err(RecvTimeoutError::Timeout) {
            self.wake(Instant::now());
            self.daemon.follow(self.timeline)?;
            let Some(fault) = dice.weighted(&FAULTS) else { continue };
            *self.counts.0.entry(fault).or_default() += 1;
            self.daemon.log().note(format_args!("chaos: {fault:?}"));
            // Drawn in any case, so that what comes later does not depend on how many there are.
            let (choice, time) = (dice.roll(), dice.pause(STOPPED));
            self.inject(fault, choice, Instant::now() + time)?;
        }
        self.wake(Instant::now() + Duration::from_millis(STOPPED));
        Ok(self.counts)
    }

    fn inject(&mut self, fault: Fault, choice: u64, until: Instant) -> Result<(), Box<dyn Error>> {
        match fault {
            Fault::KillWorker => self.signal_one(WORKER, choice, Signal::SIGKILL).map(drop)?,
            Fault::TermWorker => self.signal_one(WORKER, choice, Signal::SIGTERM).map(drop)?,
            Fault::StopWorker => {
                let pid = self.signal_one(WORKER, choice, Signal::SIGSTOP)?;
                self.stopped.extend(pid.map(|pid| (until, pid)));
            }
            Fault::StopWorkerForGood => self.signal_one(WORKER, choice, Signal::SIGSTOP).map(drop)?,
            Fault::StopAllWorkers => {
                let all = self.daemon.children(WORKER)?.into_iter();
                let halted = all.filter(|pid| kill(*pid, Signal::SIGSTOP).is_ok());
                self.stopped.extend(halted.map(|pid| (until, pid)));
            }
            Fault::StopStart => {
                // Another one is started in its place.
                self.signal_one(WORKER, choice, Signal::SIGKILL)?;
                self.stop_start(Instant::now() + HUNT)?;
            }
            Fault::KillGuard => self.signal_one(GUARD, choice, Signal::SIGKILL).map(drop)?,
            // It is woken.
            Fault::StopGuard => self.signal_one(GUARD, choice, Signal::SIGSTOP).map(drop)?,
            Fault::Poison => {
                for poison in self.poisons() {
                    std::fs::write(poison, "")?;
                }
                self.poisoned_until = Some(until);
                self.daemon.hup()?;
            }
            Fault::Hup => self.daemon.hup()?,
            Fault::Upgrade => {
                // A new process whose workers fail their probes never serves, and rightly so.
                self.cure();
                self.daemon.upgrade(self.timeline)?;
            }
            Fault::Usr2 => self.daemon.signal(Signal::SIGUSR2)?,
            Fault::Usr1 => {
                for statistics in self.daemon.statistics()? {
                    let mode = self.modes.iter().find(|mode| mode.name == statistics.name);
                    check(&statistics, mode.ok_or("statistics of an unknown pool")?)?;
                }
            }
        }
        Ok(())
    }

    /// One of the daemon's children of that name gets the signal, if there is one. That it has gone in between is
    /// possible.
    fn signal_one(&self, name: &str, choice: u64, signal: Signal) -> Result<Option<Pid>, Box<dyn Error>> {
        let children = self.daemon.children(name)?;
        let count = u64::try_from(children.len())?.max(1);
        let chosen = children.get(usize::try_from(choice % count)?).copied();
        let signalled = chosen.filter(|pid| kill(*pid, signal).is_ok());
        if let Some(pid) = signalled {
            self.daemon.log().note(format_args!("chaos: {signal} to {name} {pid}"));
        }
        Ok(signalled)
    }

    /// Stops what the daemon starts until then, where it can be met before it runs its program. It is not woken: the
    /// daemon has to get rid of it.
    fn stop_start(&self, until: Instant) -> Result<(), Box<dyn Error>> {
        while Instant::now() < until {
            let has_own_session = |pid: &Pid| getsid(Some(*pid)) == Ok(*pid);
            // A new process of the daemon itself, at an upgrade, has its session and is left alone.
            if let Some(pid) = self.daemon.children(STARTING)?.into_iter().find(has_own_session) {
                kill(pid, Signal::SIGSTOP).ok();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Wakes the stopped processes whose time is over. One that the daemon has killed meanwhile is gone; CONT does no
    /// harm to another process that has its number now.
    fn wake(&mut self, now: Instant) {
        self.stopped.retain(|(until, pid)| {
            let waits = *until > now;
            if !waits {
                self.daemon.log().note(format_args!("chaos: SIGCONT to {pid}"));
                kill(*pid, Signal::SIGCONT).ok();
            }
            waits
        });
        if self.poisoned_until.is_some_and(|until| until <= now) {
            self.cure();
        }
    }

    fn cure(&mut self) {
        if self.poisoned_until.take().is_some() {
            for poison in self.poisons() {
                std::fs::remove_file(poison).ok();
            }
        }
    }

    fn poisons(&self) -> impl Iterator<Item = &Path> + use<'_> {
        self.modes.iter().filter_map(|mode| mode.poison.as_deref())
    }
}

/// Fails if the counters of a pool do not add up, which they must at any moment.
fn check(statistics: &Statistics, mode: &Mode) -> Result<(), String> {
    let in_hand = statistics.in_hand();
    let adds_up = in_hand.is_some_and(|in_hand| !mode.is_one_by_one || statistics.is_in_place(in_hand));
    if !adds_up {
        return Err(format!("the counters of {} do not add up: {statistics:?}", mode.name));
    }
    if statistics.count("workers current") > mode.most_workers {
        return Err(format!("too many workers in {}: {statistics:?}", mode.name));
    }
    Ok(())
}
