//! The orphans that children leave behind, wherever these have moved to.
//!
//! A process that leaves its group or its session (`timeout`, a shell with job control, `setsid`) is not reached by a
//! signal to its parent's group. While its ancestors live it is found as their descendant ([`Tree`]). When its parent
//! ends it becomes a child of this daemon, which is the reaper of its descendants ([`become_reaper`]). Then there are
//! three cases:
//!
//! * It ends, and must be reaped: [`Orphans::reap_exited`].
//! * The run that it comes from has ended: [`Orphans::scan`] finds it by its session, by the [sign](super::signs) in
//!   its environment, or by its [control group](super::control_group), asks it to end, and kills it after [`GRACE`].
//! * That run goes on, and so may the orphan.
//!
//! Unrelated processes can become children of the daemon too, if it is process 1 of a container, or if the program that
//! became the daemon by an exec had children before. They have no sign and are left alone.
//!
//! A run without descendants costs only a number here. A scan reads a line of `/proc` for all children of the daemon
//! and a few lines for each orphan. Runs that end together are scanned together, and scans are so far apart that they
//! take at most a twentieth of the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::control_group::Leaves;
use super::procfs::{self, Stat};
use super::signs::{Instance, Readings, Sign};
use super::sys;
use super::tree::Tree;
use super::watch_list::{ChildRegistry, Table};

/// The times that an orphan has to end when it is asked to: ordinarily, and at the daemon's own end.
const GRACE: Duration = Duration::from_millis(500);
const GRACE_AT_SHUTDOWN: Duration = Duration::from_millis(100);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(300);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The time between the end of a run and the scan for its orphans, in which other runs may end as well.
const SCAN_INTERVAL: Duration = Duration::from_millis(20);
/// The share of the time that scans may take: one part in this number.
const SCAN_SHARE: u32 = 20;
/// The most processes that are examined or reaped at once. The others wait for another turn.
const MAX_PER_SCAN: usize = 256;
/// The number of times that an empty environment is read before its process is taken for one without a sign. A process
/// has no environment in the middle of an exec.
const MAX_BLANK_READS: u8 = 3;
/// The most times that the guard examines all processes: about a second.
const MAX_GUARD_ROUNDS: u32 = 200;
/// The time until the next attempt when an exited child that its owner has not reaped may hide others.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Makes this process, instead of process 1, the new parent of orphans among its descendants.
///
/// # Errors
/// None that Linux knows.
pub fn become_reaper() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// The children of this process that it has not started.
#[derive(Debug)]
pub struct Orphans {
    registry: Arc<ChildRegistry>,
    known: BTreeMap<i32, OrphanState>,
    /// The sessions of runs that have ended, as long as something may be left of them.
    ended: BTreeSet<i32>,
    /// The control groups of these runs, and the processes in them that must end.
    leaves: Leaves,
    in_leaves: BTreeSet<i32>,
    readings: Readings,
    /// The process id at which the next scan begins, and the number of orphans that are still to be examined for the
    /// ended runs.
    cursor: i32,
    unseen: usize,
    next: Option<Instant>,
    /// The end of the latest scan, and its duration.
    latest: (Instant, Duration),
}

/// The knowledge about one orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrphanState {
    /// The orphan's environment is being read, and was empty this number of times.
    Reading { blank: u8 },
    /// The orphan's environment must be read again, and was empty this number of times.
    Blank { times: u8 },
    /// The orphan comes from no known run.
    Unrelated,
    /// The orphan comes from this run.
    Run(u64),
    /// The orphan was asked to end.
    Terminating { since: Instant },
    /// The orphan was killed, with all its descendants.
    Killed,
}

/// The results of a scan.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// The ids and names of the processes that were asked to end.
    pub terminated: Vec<(i32, String)>,
    /// The number of processes that did not end in time and were killed.
    pub killed: usize,
    /// The reason why a child had no control group although each was to have one.
    pub failure: Option<String>,
}

/// The decision about an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrphanAction {
    Leave,
    /// Read its environment.
    Read,
    Terminate,
    Kill,
}

impl Orphans {
    pub(super) fn new(registry: &Arc<ChildRegistry>) -> Self {
        Self {
            registry: Arc::clone(registry),
            known: BTreeMap::new(),
            ended: BTreeSet::new(),
            leaves: Leaves::default(),
            in_leaves: BTreeSet::new(),
            readings: Readings::default(),
            cursor: 0,
            unseen: 0,
            next: None,
            latest: (Instant::now(), Duration::ZERO),
        }
    }

    /// Returns the time of the next [`scan`](Self::scan), as far as is known.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let pending = self.registry.has_ended().then(|| self.earliest());
        let leaves = self.leaves.deadline().map(|due| due.max(self.earliest()));
        [self.next, pending, leaves, self.readings.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns the earliest time of another scan: not before other runs can have ended as well, and not before scans
    /// have taken no more than their share of the time.
    fn earliest(&self) -> Instant {
        let (ended, took) = self.latest;
        ended + SCAN_INTERVAL.max(took.saturating_mul(SCAN_SHARE))
    }

    fn scan_by(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Reaps exited children that have no other owner. Must be called when some child has changed its state (SIGCHLD).
    /// `is_spared` returns true for children of this process that are neither on the list nor orphans.
    pub fn reap_exited(&mut self, now: Instant, is_spared: impl Fn(Pid) -> bool) {
        for _ in 0..MAX_PER_SCAN {
            match sys::any_exited() {
                None => return,
                // Its owner will reap it. It may hide others.
                Some(pid) if self.registry.table.contains(pid) || is_spared(pid) => {
                    return self.scan_by(now + RETRY_INTERVAL);
                }
                Some(pid) => self.reap(pid, now),
            }
        }
        self.scan_by(now);
    }

    fn reap(&mut self, pid: Pid, now: Instant) {
        sys::reap(pid);
        if matches!(
            self.known.remove(&pid.as_raw()),
            Some(OrphanState::Terminating { .. } | OrphanState::Killed)
        ) {
            // Its own children have become children of this process.
            self.scan_by(now.max(self.earliest()));
        }
    }

    /// Examines the orphans of ended runs. A thread gives `tell` the results that
    /// [`handle_reading`](Self::handle_reading) must be called with.
    pub fn scan(
        &mut self,
        now: Instant,
        is_spared: impl Fn(Pid) -> bool,
        tell: impl Fn(Reading) -> bool + Send + 'static,
    ) -> ScanReport {
        self.scan_with(now, GRACE, is_spared, tell)
    }

    fn scan_with(
        &mut self,
        now: Instant,
        grace: Duration,
        is_spared: impl Fn(Pid) -> bool,
        tell: impl Fn(Reading) -> bool + Send + 'static,
    ) -> ScanReport {
        let began = Instant::now();
        self.next = None;
        let ended = self.registry.take_ended();
        let has_ended = !ended.is_empty();
        self.ended.extend(ended);
        let overdue = self.readings.take_overdue(now);
        // The first of them is the one that hangs. The others are read again.
        self.known
            .extend(overdue.first().map(|pid| (*pid, OrphanState::Unrelated)));
        self.known
            .retain(|pid, _| overdue.first() == Some(pid) || !overdue.contains(pid));
        let mut found = ScanReport {
            failure: self.registry.take_failure(),
            ..ScanReport::default()
        };
        self.in_leaves = self.leaves.scan(self.registry.take_leaves(), now, grace);
        if !self.registry.has_procfs {
            return found;
        }
        let children = procfs::own_children().unwrap_or_default();
        let is_orphan = |pid: &i32| {
            let pid = Pid::from_raw(*pid);
            !self.registry.table.contains(pid) && !is_spared(pid)
        };
        let orphans: BTreeSet<i32> = children.into_iter().filter(is_orphan).collect();
        self.known.retain(|pid, _| orphans.contains(pid));
        let mut asked = Vec::new();
        for pid in self.next_batch(&orphans, has_ended) {
            match procfs::stat(pid) {
                Some(stat) if !stat.has_ended => match self.decide(pid, stat, now, grace) {
                    OrphanAction::Leave => {}
                    OrphanAction::Read => asked.push(pid),
                    OrphanAction::Terminate => found.terminated.push(self.terminate(pid, stat, now)),
                    OrphanAction::Kill => {
                        found.killed += 1;
                        self.kill(pid, stat);
                    }
                },
                Some(_) => self.reap(Pid::from_raw(pid), now),
                None => {}
            }
        }
        self.start_reading(asked, now, tell);
        self.schedule(grace);
        self.latest = (Instant::now(), began.elapsed());
        found
    }

    /// Returns the orphans that one scan examines, going around in a circle.
    fn next_batch(&mut self, orphans: &BTreeSet<i32>, has_ended: bool) -> Vec<i32> {
        if has_ended {
            self.unseen = orphans.len();
        }
        let circle = orphans.range(self.cursor..).chain(orphans.range(..self.cursor));
        let batch: Vec<i32> = circle.take(MAX_PER_SCAN).copied().collect();
        self.unseen = self.unseen.saturating_sub(batch.len());
        self.cursor = batch.last().map_or(0, |last| last.saturating_add(1));
        batch
    }

    fn decide(&self, pid: i32, stat: Stat, now: Instant, grace: Duration) -> OrphanAction {
        let registry = &self.registry;
        let is_of_ended = self.ended.contains(&stat.session) && !registry.table.contains(Pid::from_raw(stat.session));
        match self.known.get(&pid) {
            Some(OrphanState::Terminating { since }) if now >= *since + grace => OrphanAction::Kill,
            Some(OrphanState::Terminating { .. } | OrphanState::Killed) => OrphanAction::Leave,
            Some(OrphanState::Run(run)) if registry.is_alive(*run) => OrphanAction::Leave,
            Some(OrphanState::Run(_)) => OrphanAction::Terminate,
            _ if is_of_ended || self.in_leaves.contains(&pid) => OrphanAction::Terminate,
            Some(OrphanState::Unrelated | OrphanState::Reading { .. }) => OrphanAction::Leave,
            Some(OrphanState::Blank { .. }) => OrphanAction::Read,
            // The orphan has not left the session in which it was started, whose leader is alive.
            None if registry.table.contains(Pid::from_raw(stat.session)) => OrphanAction::Leave,
            None => OrphanAction::Read,
        }
    }

    /// Has a thread read the environments of these processes, one batch after another, so that one that hangs can be
    /// identified.
    fn start_reading(&mut self, pids: Vec<i32>, now: Instant, tell: impl Fn(Reading) -> bool + Send + 'static) {
        if pids.is_empty() || self.readings.deadline().is_some() {
            return;
        }
        for pid in &pids {
            let blank = match self.known.get(pid) {
                Some(OrphanState::Blank { times }) => *times,
                _ => 0,
            };
            self.known.insert(*pid, OrphanState::Reading { blank });
        }
        let tell = move |pid, sign| tell(Reading { pid, sign });
        if !self.readings.start(&pids, self.registry.instance, now, tell) {
            // Too many threads hang already.
            self.known
                .extend(pids.into_iter().map(|pid| (pid, OrphanState::Unrelated)));
        }
    }

    /// Asks an orphan to end, and the group that it leads, if it leads one. The orphan is our child and not reaped, so
    /// its id is its own.
    fn terminate(&mut self, pid: i32, stat: Stat, now: Instant) -> (i32, String) {
        self.known.insert(pid, OrphanState::Terminating { since: now });
        let name = procfs::name(pid);
        for signal in [Signal::SIGTERM, Signal::SIGCONT] {
            let _ = send(pid, stat, signal);
        }
        (pid, name)
    }

    fn kill(&mut self, pid: i32, stat: Stat) {
        self.known.insert(pid, OrphanState::Killed);
        let tree = Tree::below(Pid::from_raw(pid));
        let _ = send(pid, stat, Signal::SIGKILL);
        tree.kill();
    }

    /// Decides when the next scan is due, and forgets ended runs of which nothing is left.
    fn schedule(&mut self, grace: Duration) {
        let endings = || {
            self.known.values().filter_map(|kin| match kin {
                OrphanState::Terminating { since } => Some(*since + grace),
                _ => None,
            })
        };
        let due = endings().min();
        if self.unseen > 0 {
            // As soon as scans may be: `latest` is set after this.
            self.scan_by(Instant::now() + SCAN_INTERVAL);
        } else if !self.has_work() {
            self.ended.clear();
        }
        if let Some(due) = due {
            // Not at once, so that other orphans may be examined first.
            self.scan_by(due.max(Instant::now() + SCAN_INTERVAL));
        }
    }

    /// Returns true if something of an ended run is left, or may be.
    fn has_work(&self) -> bool {
        let is_unrelated = |kin: &OrphanState| matches!(kin, OrphanState::Unrelated | OrphanState::Run(_));
        self.unseen > 0 || !self.known.values().all(is_unrelated)
    }

    /// Ends all orphans at the end of the daemon, which takes a moment at most.
    pub fn finish(&mut self, is_spared: impl Fn(Pid) -> bool) {
        let (sender, receiver) = mpsc::channel();
        let until = Instant::now() + SHUTDOWN_TIMEOUT;
        while Instant::now() < until {
            let (now, sender) = (Instant::now(), sender.clone());
            self.reap_exited(now, &is_spared);
            self.scan_with(now, GRACE_AT_SHUTDOWN, &is_spared, move |reading| {
                sender.send(reading).is_ok()
            });
            if !self.has_work() && self.leaves.is_empty() && !self.registry.has_ended() {
                break;
            }
            if let Ok(reading) = receiver.recv_timeout(POLL_INTERVAL) {
                self.handle_reading(reading, Instant::now());
            }
        }
        if let Some(group) = &self.registry.group {
            group.end();
        }
    }

    /// Records an environment that a thread has read. The next scan may have something to do then.
    pub fn handle_reading(&mut self, reading: Reading, now: Instant) {
        let Reading { pid, sign } = reading;
        if !self.readings.receive(pid, now) {
            return;
        }
        let Some(OrphanState::Reading { blank }) = self.known.get(&pid).copied() else {
            return;
        };
        let kin = match sign {
            Sign::Run(run) => OrphanState::Run(run),
            Sign::Blank if blank < MAX_BLANK_READS => OrphanState::Blank { times: blank + 1 },
            Sign::Foreign | Sign::Blank => OrphanState::Unrelated,
        };
        self.known.insert(pid, kin);
        self.scan_by(now.max(self.earliest()));
    }
}

/// The result of reading one environment.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pid: i32,
    sign: Sign,
}

/// Ends, as the guard's last action after the end of the daemon, every process that is in the session or the group of a
/// child on the list or has a sign of this daemon. All processes of the machine are examined for that.
pub(super) fn end_all(table: &Table) {
    if !procfs::is_own() {
        return;
    }
    let leaders: BTreeSet<i32> = table.children().map(Pid::as_raw).collect();
    let own = nix::unistd::getpid().as_raw();
    let mut unrelated = BTreeSet::new();
    for round in 0..MAX_GUARD_ROUNDS {
        let all = procfs::all().unwrap_or_default().into_iter().filter(|pid| *pid != own);
        let alive = all.filter_map(|pid| Some((pid, procfs::stat(pid).filter(|stat| !stat.has_ended)?)));
        let (kin, others): (Vec<_>, Vec<_>) =
            alive.partition(|(_, stat)| leaders.contains(&stat.session) || leaders.contains(&stat.group));
        let unknown = others
            .into_iter()
            .filter(|(pid, stat)| !unrelated.contains(&(*pid, stat.started)));
        let (signed, foreign) = signed(unknown.collect(), table.instance());
        let found = Tree(kin.into_iter().chain(signed).collect());
        found.kill();
        unrelated.extend(foreign);
        // The second round finds processes that were in the middle of an exec or a fork.
        if round > 0 && found.0.is_empty() {
            return;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Processes by their ids and start times.
type Unrelated = Vec<(i32, u64)>;

/// Divides processes into those with a sign of this instance and those without.
fn signed(all: Vec<(i32, Stat)>, instance: Instance) -> (Vec<(i32, Stat)>, Unrelated) {
    let mut rest: BTreeMap<i32, Stat> = all.into_iter().collect();
    let (mut signed, mut foreign) = (Vec::new(), Vec::new());
    let mut readings = Readings::default();
    while !rest.is_empty() {
        let (sender, receiver) = mpsc::channel();
        let pids: Vec<i32> = rest.keys().copied().collect();
        if !readings.start(&pids, instance, Instant::now(), move |pid, sign| {
            sender.send((pid, sign)).is_ok()
        }) {
            break;
        }
        while let Some(deadline) = readings.deadline() {
            let Ok((pid, sign)) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                break;
            };
            readings.receive(pid, Instant::now());
            let Some(stat) = rest.remove(&pid) else { continue };
            match sign {
                Sign::Run(_) => signed.push((pid, stat)),
                Sign::Foreign => foreign.push((pid, stat.started)),
                Sign::Blank => {}
            }
        }
        // A process whose environment hangs is left alone, and the ones after it are read again.
        if let Some(hangs) = readings.take_overdue(Instant::now()).first() {
            rest.remove(hangs);
        }
    }
    (signed, foreign)
}

fn send(pid: i32, stat: Stat, signal: Signal) -> Result<(), Errno> {
    let process = Pid::from_raw(pid);
    if stat.group == pid {
        killpg(process, signal)
    } else {
        kill(process, signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(session: i32) -> Stat {
        Stat {
            has_ended: false,
            parent: 1,
            group: session,
            session,
            started: 1,
        }
    }

    #[test]
    fn an_orphan_ends_with_its_run_and_no_other_does() {
        let registry = Arc::new(ChildRegistry::new(None).unwrap());
        let mut orphans = Orphans::new(&registry);
        let now = Instant::now();
        let (alive, ended, foreign) = (100, 200, 300);
        registry.table.insert(Pid::from_raw(alive));
        orphans.ended.insert(ended);
        // The number of this session was given to another run since.
        let again = 400;
        orphans.ended.insert(again);
        registry.table.insert(Pid::from_raw(again));
        let overdue = now.checked_sub(GRACE).unwrap();
        for (kin, session, verdict) in [
            (None, alive, OrphanAction::Leave),
            (None, again, OrphanAction::Leave),
            (None, ended, OrphanAction::Terminate),
            (None, foreign, OrphanAction::Read),
            (Some(OrphanState::Blank { times: 1 }), foreign, OrphanAction::Read),
            (Some(OrphanState::Reading { blank: 0 }), foreign, OrphanAction::Leave),
            (Some(OrphanState::Unrelated), foreign, OrphanAction::Leave),
            (Some(OrphanState::Unrelated), ended, OrphanAction::Terminate),
            // There is no such run any more, or never was.
            (Some(OrphanState::Run(7)), foreign, OrphanAction::Terminate),
            (
                Some(OrphanState::Terminating { since: now }),
                ended,
                OrphanAction::Leave,
            ),
            (
                Some(OrphanState::Terminating { since: overdue }),
                ended,
                OrphanAction::Kill,
            ),
            (Some(OrphanState::Killed), ended, OrphanAction::Leave),
        ] {
            orphans.known = kin.map(|kin| (5, kin)).into_iter().collect();
            assert_eq!(
                orphans.decide(5, stat(session), now, GRACE),
                verdict,
                "{kin:?} in {session}"
            );
        }
    }

    #[test]
    fn many_orphans_are_looked_at_in_lots_and_each_of_them_once() {
        let mut orphans = Orphans::new(&Arc::new(ChildRegistry::new(None).unwrap()));
        let all: BTreeSet<i32> = (1..=1000).collect();
        let mut seen = orphans.next_batch(&all, true);
        assert_eq!(seen.len(), MAX_PER_SCAN);
        while orphans.unseen > 0 {
            seen.extend(orphans.next_batch(&all, false));
        }
        assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), all);
        assert!(seen.len() < 1000 + MAX_PER_SCAN);
        assert_eq!(orphans.next_batch(&BTreeSet::new(), true), [0_i32; 0]);
    }
}
