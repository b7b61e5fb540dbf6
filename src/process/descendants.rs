//! What children have started, and left behind, wherever it has moved to.
//!
//! A process that leaves its group or its session (`timeout`, a shell with job control, `setsid`) is met by no signal for its
//! parent's group. While its ancestors live it is found as their descendant ([`Tree`]). When its parent ends it becomes a child
//! of this daemon, which is the reaper of its descendants ([`become_reaper`]), and then
//!
//! * it ends, and has to be reaped, whichever it was: [`Orphans::reap_exited`];
//! * or the run that it comes from has ended: [`Orphans::scan`] finds it by its session, by the [sign](super::signs) in its
//!   environment, or by its [control group](super::control_group), asks it to end, and kills it after [`GRACE`];
//! * or that run goes on: then it may as well.
//!
//! Strangers become our children too: where the daemon is process 1 of a container, and where a program that became the daemon
//! by its exec had children before. They bear no sign and are left alone.
//!
//! A run without descendants costs nothing here but a number. A look costs a line of `/proc` for all children of the daemon and
//! a few for each orphan; runs that end together are looked after together, and looks are so far apart that they take a
//! twentieth of the time at most.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
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
use super::watch_list::{ChildRegistry, Table};

/// How long an orphan may take to end when it is asked to, and how long at the daemon's own end.
const GRACE: Duration = Duration::from_millis(500);
const LAST_GRACE: Duration = Duration::from_millis(100);
const LAST_MOMENTS: Duration = Duration::from_millis(300);
const MOMENT: Duration = Duration::from_millis(5);
/// Between the end of a run and the look at what it has left, during which others end as well.
const PAUSE: Duration = Duration::from_millis(20);
/// How often in a look's own time there is one.
const SHARE: u32 = 20;
/// The most that is looked at, killed, or reaped at once: the rest becomes orphans, or waits for another turn.
const MOST_AT_ONCE: usize = 256;
/// A process in the middle of an exec has no environment: it is looked at so often before it is taken for one without a sign.
const READS_OF_BLANK: u8 = 3;
/// So often the guard looks at all processes, at most: about a second.
const LAST_ROUNDS: u32 = 200;
/// When it is tried again where an exited child, which its owner has not reaped, may hide others.
const AGAIN: Duration = Duration::from_secs(1);

/// Orphans become children of this process, instead of process 1's.
///
/// # Errors
/// None that Linux knows.
pub fn become_reaper() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

// ---- trees -----------------------------------------------------------------------------------------------------

/// The descendants of a process, as they were a moment ago.
#[derive(Debug, Default)]
pub(super) struct Tree(Vec<(i32, Stat)>);

impl Tree {
    /// Of a process without children this takes a few system calls.
    pub(super) fn below(root: Pid) -> Self {
        let (mut tree, mut from) = (Vec::new(), 0);
        let mut parents = vec![root.as_raw()];
        while let Some(parent) = parents.get(from).copied()
            && tree.len() < MOST_AT_ONCE
        {
            from += 1;
            let room = MOST_AT_ONCE.saturating_sub(tree.len());
            for child in procfs::children(parent).unwrap_or_default().into_iter().take(room) {
                if let Some(stat) = procfs::stat(child).filter(|stat| !stat.has_ended) {
                    tree.push((child, stat));
                    parents.push(child);
                }
            }
        }
        Self(tree)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Kills those that are still the same processes.
    pub(super) fn kill(&self) {
        for (pid, was) in &self.0 {
            // The descriptor stands for one process, whatever becomes of its id: then it is asked which one that is.
            let Ok(process) = sys::pidfd_open(Pid::from_raw(*pid)) else {
                continue;
            };
            if procfs::stat(*pid).is_some_and(|stat| stat.started == was.started) {
                let _ = sys::signal(process.as_fd(), Signal::SIGKILL);
            }
        }
    }
}

// ---- orphans ---------------------------------------------------------------------------------------------------

/// The children of this process that it has not started.
#[derive(Debug)]
pub struct Orphans {
    registry: Arc<ChildRegistry>,
    known: BTreeMap<i32, OrphanState>,
    /// The sessions of runs that have ended, as long as something of them may be left.
    ended: BTreeSet<i32>,
    /// The control groups of those, and the processes in them that are to end.
    leaves: Leaves,
    in_leaves: BTreeSet<i32>,
    readings: Readings,
    /// Where the next look begins, and how many it, or those behind it, still have to look at for what has ended.
    cursor: i32,
    unseen: usize,
    next: Option<Instant>,
    /// When the latest look ended, and how long it took.
    latest: (Instant, Duration),
}

/// Where an orphan comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrphanState {
    /// Its environment is being read; so often it had none.
    Reading { blank: u8 },
    /// Its environment is to be read again; so often it had none.
    Blank { times: u8 },
    /// From nowhere that is known.
    Unrelated,
    /// From this run.
    Run(u64),
    /// It has been asked to end.
    Terminating { since: Instant },
    /// It has been killed, with all that was below it.
    Killed,
}

/// What a look has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// Those that are asked to end: their ids and names.
    pub terminated: Vec<(i32, String)>,
    /// So many that would not are killed.
    pub killed: usize,
    /// Why a child had no control group, where each was to have one.
    pub failure: Option<String>,
}

/// What is to be done with an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrphanAction {
    Leave,
    /// Its environment is to be read.
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

    /// When there is something to [look](Self::scan) for, as far as is known.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let pending = self.registry.has_ended().then(|| self.earliest());
        let leaves = self.leaves.deadline().map(|due| due.max(self.earliest()));
        [self.next, pending, leaves, self.readings.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Neither before others can have ended as well, nor before a look has become cheap again.
    fn earliest(&self) -> Instant {
        let (ended, took) = self.latest;
        ended + PAUSE.max(took.saturating_mul(SHARE))
    }

    fn scan_by(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// To be called when some child has changed (SIGCHLD): reaps those that are not reaped elsewhere. `is_spared`: children of
    /// this process that are neither on the list nor orphans.
    pub fn reap_exited(&mut self, now: Instant, is_spared: impl Fn(Pid) -> bool) {
        for _ in 0..MOST_AT_ONCE {
            match sys::any_exited() {
                None => return,
                // Its owner will reap it; it may hide others.
                Some(pid) if self.registry.table.contains(pid) || is_spared(pid) => return self.scan_by(now + AGAIN),
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
            // What it has left has become ours.
            self.scan_by(now.max(self.earliest()));
        }
    }

    /// Looks at what ended runs have left. `tell` takes what [`heard`](Self::handle_reading) is to be given, in a thread.
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
        // The first of them is the one that hangs. The others are asked for again.
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

    /// So many of them as one look may look at, in a circle.
    fn next_batch(&mut self, orphans: &BTreeSet<i32>, has_ended: bool) -> Vec<i32> {
        if has_ended {
            self.unseen = orphans.len();
        }
        let circle = orphans.range(self.cursor..).chain(orphans.range(..self.cursor));
        let batch: Vec<i32> = circle.take(MOST_AT_ONCE).copied().collect();
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
            // It has not left the session that it was started in, whose leader is alive.
            None if registry.table.contains(Pid::from_raw(stat.session)) => OrphanAction::Leave,
            None => OrphanAction::Read,
        }
    }

    /// Those are asked one batch after the other: when one does not answer it is known which.
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

    /// Its group is signalled with it if it leads that. It is our unreaped child, so its id is its own.
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

    /// When there has to be another look; and which runs are done with.
    fn schedule(&mut self, grace: Duration) {
        let endings = || {
            self.known.values().filter_map(|kin| match kin {
                OrphanState::Terminating { since } => Some(*since + grace),
                _ => None,
            })
        };
        let due = endings().min();
        if self.unseen > 0 {
            // As soon as looks may be: `latest` is set behind this.
            self.scan_by(Instant::now() + PAUSE);
        } else if !self.has_work() {
            self.ended.clear();
        }
        if let Some(due) = due {
            // Never in a hurry: it may be the turn of others first.
            self.scan_by(due.max(Instant::now() + PAUSE));
        }
    }

    /// Whether something of a run that has ended is, or may be, left.
    fn has_work(&self) -> bool {
        let is_unrelated = |kin: &OrphanState| matches!(kin, OrphanState::Unrelated | OrphanState::Run(_));
        self.unseen > 0 || !self.known.values().all(is_unrelated)
    }

    /// The daemon ends: whatever its children have left is ended as well, which takes a moment at most.
    pub fn finish(&mut self, is_spared: impl Fn(Pid) -> bool) {
        let (sender, receiver) = mpsc::channel();
        let until = Instant::now() + LAST_MOMENTS;
        while Instant::now() < until {
            let (now, sender) = (Instant::now(), sender.clone());
            self.reap_exited(now, &is_spared);
            self.scan_with(now, LAST_GRACE, &is_spared, move |reading| sender.send(reading).is_ok());
            if !self.has_work() && self.leaves.is_empty() && !self.registry.has_ended() {
                break;
            }
            if let Ok(reading) = receiver.recv_timeout(MOMENT) {
                self.handle_reading(reading, Instant::now());
            }
        }
        if let Some(group) = &self.registry.group {
            group.end();
        }
    }

    /// A thread has read an environment. There may be something to look for now.
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
            Sign::Blank if blank < READS_OF_BLANK => OrphanState::Blank { times: blank + 1 },
            Sign::Foreign | Sign::Blank => OrphanState::Unrelated,
        };
        self.known.insert(pid, kin);
        self.scan_by(now.max(self.earliest()));
    }
}

/// What a thread has read.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pid: i32,
    sign: Sign,
}

/// The guard's last work, when the daemon has gone: ends every process that is in the session or the group of a child on the
/// list, or bears a sign of this daemon, which is looked for among all that there are.
pub(super) fn end_all(table: &Table) {
    if !procfs::is_own() {
        return;
    }
    let leaders: BTreeSet<i32> = table.children().map(Pid::as_raw).collect();
    let own = nix::unistd::getpid().as_raw();
    let mut strangers = BTreeSet::new();
    for round in 0..LAST_ROUNDS {
        let all = procfs::all().unwrap_or_default().into_iter().filter(|pid| *pid != own);
        let alive = all.filter_map(|pid| Some((pid, procfs::stat(pid).filter(|stat| !stat.has_ended)?)));
        let (kin, others): (Vec<_>, Vec<_>) =
            alive.partition(|(_, stat)| leaders.contains(&stat.session) || leaders.contains(&stat.group));
        let unknown = others
            .into_iter()
            .filter(|(pid, stat)| !strangers.contains(&(*pid, stat.started)));
        let (signed, foreign) = signed(unknown.collect(), table.instance());
        let found = Tree(kin.into_iter().chain(signed).collect());
        found.kill();
        strangers.extend(foreign);
        // What was in the middle of an exec, or of a fork, is found by the second.
        if round > 0 && found.0.is_empty() {
            return;
        }
        thread::sleep(MOMENT);
    }
}

/// Processes by their ids and when they were started.
type Strangers = Vec<(i32, u64)>;

/// Those that bear a sign of this instance, and those that bear none.
fn signed(all: Vec<(i32, Stat)>, instance: Instance) -> (Vec<(i32, Stat)>, Strangers) {
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
        // One that hangs is left alone, and those behind it are asked anew.
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
        // Its number was given to another run since.
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
        assert_eq!(seen.len(), MOST_AT_ONCE);
        while orphans.unseen > 0 {
            seen.extend(orphans.next_batch(&all, false));
        }
        assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), all);
        assert!(seen.len() < 1000 + MOST_AT_ONCE);
        assert_eq!(orphans.next_batch(&BTreeSet::new(), true), [0_i32; 0]);
    }
}
