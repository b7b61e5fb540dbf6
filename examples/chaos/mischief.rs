//! What befalls the daemon from its own side: its workers and its guard are killed and stopped, and it gets signals.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::Daemon;
use crate::dice::Dice;

/// The player's number of the mischief's dice; clients have small ones.
pub(crate) const PLAYER: u64 = u64::MAX;

/// Names of processes as the kernel has them.
const WORKER: &str = "scripted-worker";
const GUARD: &str = "iotcpd-guard";

/// Milliseconds that pass between two deeds, at most.
const PAUSE: u64 = 120;
/// Milliseconds that a worker stays stopped which goes on later, at most: some are met by the busy time-out.
const STOPPED: u64 = 1500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    KillWorker,
    TermWorker,
    StopWorker,
    StopWorkerForGood,
    StopAllWorkers,
    KillGuard,
    Hup,
    Upgrade,
    Usr1,
    Usr2,
}

const DEEDS: [(Deed, usize); 10] = [
    (Deed::KillWorker, 30),
    (Deed::TermWorker, 15),
    (Deed::StopWorker, 15),
    (Deed::StopWorkerForGood, 3),
    (Deed::StopAllWorkers, 2),
    (Deed::KillGuard, 5),
    (Deed::Hup, 4),
    (Deed::Upgrade, 3),
    (Deed::Usr1, 20),
    (Deed::Usr2, 3),
];

/// How often each was done.
#[derive(Debug, Default)]
pub(crate) struct Done(BTreeMap<Deed, u64>);

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deeds: Vec<String> = self.0.iter().map(|(deed, count)| format!("{deed:?} {count}")).collect();
        f.write_str(&deeds.join(", "))
    }
}

/// Goes on until the other end of `stop` is dropped. An error is a broken promise: the daemon is not there, or its counters
/// do not add up.
pub(crate) fn make(daemon: &mut Daemon, dice: &mut Dice, stop: &Receiver<()>) -> Result<Done, Box<dyn Error>> {
    let mut done = Done::default();
    let mut stopped: Vec<(Instant, Pid)> = Vec::new();
    while stop.recv_timeout(dice.pause(PAUSE)) == Err(RecvTimeoutError::Timeout) {
        wake(&mut stopped, Instant::now());
        let Some(deed) = dice.weighted(&DEEDS) else { continue };
        *done.0.entry(deed).or_default() += 1;
        // Drawn in any case, so that what comes later does not depend on how many there are.
        let (choice, time) = (dice.roll(), dice.pause(STOPPED));
        match deed {
            Deed::KillWorker => strike(daemon, WORKER, choice, Signal::SIGKILL).map(drop)?,
            Deed::TermWorker => strike(daemon, WORKER, choice, Signal::SIGTERM).map(drop)?,
            Deed::StopWorker => {
                let pid = strike(daemon, WORKER, choice, Signal::SIGSTOP)?;
                stopped.extend(pid.map(|pid| (Instant::now() + time, pid)));
            }
            Deed::StopWorkerForGood => strike(daemon, WORKER, choice, Signal::SIGSTOP).map(drop)?,
            Deed::StopAllWorkers => {
                let all = daemon.children(WORKER)?.into_iter();
                let halted = all.filter(|pid| kill(*pid, Signal::SIGSTOP).is_ok());
                stopped.extend(halted.map(|pid| (Instant::now() + time, pid)));
            }
            Deed::KillGuard => strike(daemon, GUARD, choice, Signal::SIGKILL).map(drop)?,
            Deed::Hup => daemon.signal(Signal::SIGHUP)?,
            Deed::Upgrade => daemon.upgrade()?,
            Deed::Usr2 => daemon.signal(Signal::SIGUSR2)?,
            Deed::Usr1 => {
                let statistics = daemon.statistics()?;
                if statistics.in_hand().is_none() {
                    return Err(format!("the counters do not add up: {statistics:?}").into());
                }
            }
        }
    }
    wake(&mut stopped, Instant::now() + Duration::from_millis(STOPPED));
    Ok(done)
}

/// One of the daemon's children of that name gets the signal, if there is one. That it has gone in between is possible.
fn strike(daemon: &Daemon, name: &str, choice: u64, signal: Signal) -> Result<Option<Pid>, Box<dyn Error>> {
    let children = daemon.children(name)?;
    let count = u64::try_from(children.len())?.max(1);
    let chosen = children.get(usize::try_from(choice % count)?).copied();
    Ok(chosen.filter(|pid| kill(*pid, signal).is_ok()))
}

/// Whom the time is over for goes on. One that the daemon has killed meanwhile is not there any more; CONT would not harm
/// whoever has its number now.
fn wake(stopped: &mut Vec<(Instant, Pid)>, now: Instant) {
    stopped.retain(|(until, pid)| {
        let waits = *until > now;
        if !waits {
            kill(*pid, Signal::SIGCONT).ok();
        }
        waits
    });
}
