//! What children have started, and left behind, wherever it has moved to.
//!
//! A process that leaves its group or its session (`timeout`, a shell with job control, `setsid`) is met by no signal for its
//! parent's group. While its ancestors live it is found as their descendant ([`Tree`]). When its parent ends it becomes a child
//! of this daemon, which is the reaper of its descendants ([`become_reaper`]), and then
//!
//! * it ends, and has to be reaped, whichever it was: [`Orphans::collect`];
//! * or the run that it comes from has ended: [`Orphans::look`] finds it by its session, by the [sign](super::signs) in its
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
use super::watch_list::{Household, Table};

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
const LOOKS_AT_BLANK: u8 = 3;
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
    household: Arc<Household>,
    known: BTreeMap<i32, Kin>,
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
enum Kin {
    /// Its environment is being read; so often it had none.
    Asked { blank: u8 },
    /// Its environment is to be read again; so often it had none.
    Blank { times: u8 },
    /// From nowhere that is known.
    Stranger,
    /// From this run.
    Of(u64),
    /// It has been asked to end.
    Ending { since: Instant },
    /// It has been killed, with all that was below it.
    Killed,
}

/// What a look has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Those that are asked to end: their ids and names.
    pub ended: Vec<(i32, String)>,
    /// So many that would not are killed.
    pub killed: usize,
    /// Why a child had no control group, where each was to have one.
    pub trouble: Option<String>,
}

/// What is to be done with an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Leave,
    /// Its environment is to be read.
    Ask,
    End,
    Kill,
}

impl Orphans {
    pub(super) fn new(household: &Arc<Household>) -> Self {
        Self {
            household: Arc::clone(household),
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

    /// When there is something to [look](Self::look) for, as far as is known.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let pending = self.household.has_ended().then(|| self.earliest());
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

    fn look_by(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// To be called when some child has changed (SIGCHLD): reaps those that are not reaped elsewhere. `is_spared`: children of
    /// this process that are neither on the list nor orphans.
    pub fn collect(&mut self, now: Instant, is_spared: impl Fn(Pid) -> bool) {
        for _ in 0..MOST_AT_ONCE {
            match sys::any_exited() {
                None => return,
                // Its owner will reap it; it may hide others.
                Some(pid) if self.household.table.contains(pid) || is_spared(pid) => return self.look_by(now + AGAIN),
                Some(pid) => self.reap(pid, now),
            }
        }
        self.look_by(now);
    }

    fn reap(&mut self, pid: Pid, now: Instant) {
        sys::reap(pid);
        if matches!(self.known.remove(&pid.as_raw()), Some(Kin::Ending { .. } | Kin::Killed)) {
            // What it has left has become ours.
            self.look_by(now.max(self.earliest()));
        }
    }

    /// Looks at what ended runs have left. `tell` takes what [`heard`](Self::heard) is to be given, in a thread.
    pub fn look(
        &mut self,
        now: Instant,
        is_spared: impl Fn(Pid) -> bool,
        tell: impl Fn(Heard) -> bool + Send + 'static,
    ) -> Found {
        self.look_with(now, GRACE, is_spared, tell)
    }

    fn look_with(
        &mut self,
        now: Instant,
        grace: Duration,
        is_spared: impl Fn(Pid) -> bool,
        tell: impl Fn(Heard) -> bool + Send + 'static,
    ) -> Found {
        let began = Instant::now();
        self.next = None;
        let ended = self.household.take_ended();
        let has_ended = !ended.is_empty();
        self.ended.extend(ended);
        let overdue = self.readings.overdue(now);
        // The first of them is the one that hangs. The others are asked for again.
        self.known.extend(overdue.first().map(|pid| (*pid, Kin::Stranger)));
        self.known
            .retain(|pid, _| overdue.first() == Some(pid) || !overdue.contains(pid));
        let mut found = Found {
            trouble: self.household.take_trouble(),
            ..Found::default()
        };
        self.in_leaves = self.leaves.look(self.household.take_leaves(), now, grace);
        if !self.household.has_procfs {
            return found;
        }
        let children = procfs::own_children().unwrap_or_default();
        let is_orphan = |pid: &i32| {
            let pid = Pid::from_raw(*pid);
            !self.household.table.contains(pid) && !is_spared(pid)
        };
        let orphans: BTreeSet<i32> = children.into_iter().filter(is_orphan).collect();
        self.known.retain(|pid, _| orphans.contains(pid));
        let mut asked = Vec::new();
        for pid in self.next_lot(&orphans, has_ended) {
            match procfs::stat(pid) {
                Some(stat) if !stat.has_ended => match self.judge(pid, stat, now, grace) {
                    Verdict::Leave => {}
                    Verdict::Ask => asked.push(pid),
                    Verdict::End => found.ended.push(self.end(pid, stat, now)),
                    Verdict::Kill => {
                        found.killed += 1;
                        self.kill(pid, stat);
                    }
                },
                Some(_) => self.reap(Pid::from_raw(pid), now),
                None => {}
            }
        }
        self.ask(asked, now, tell);
        self.plan(grace);
        self.latest = (Instant::now(), began.elapsed());
        found
    }

    /// So many of them as one look may look at, in a circle.
    fn next_lot(&mut self, orphans: &BTreeSet<i32>, has_ended: bool) -> Vec<i32> {
        if has_ended {
            self.unseen = orphans.len();
        }
        let circle = orphans.range(self.cursor..).chain(orphans.range(..self.cursor));
        let lot: Vec<i32> = circle.take(MOST_AT_ONCE).copied().collect();
        self.unseen = self.unseen.saturating_sub(lot.len());
        self.cursor = lot.last().map_or(0, |last| last.saturating_add(1));
        lot
    }

    fn judge(&self, pid: i32, stat: Stat, now: Instant, grace: Duration) -> Verdict {
        let household = &self.household;
        let is_of_ended = self.ended.contains(&stat.session) && !household.table.contains(Pid::from_raw(stat.session));
        match self.known.get(&pid) {
            Some(Kin::Ending { since }) if now >= *since + grace => Verdict::Kill,
            Some(Kin::Ending { .. } | Kin::Killed) => Verdict::Leave,
            Some(Kin::Of(run)) if household.is_alive(*run) => Verdict::Leave,
            Some(Kin::Of(_)) => Verdict::End,
            _ if is_of_ended || self.in_leaves.contains(&pid) => Verdict::End,
            Some(Kin::Stranger | Kin::Asked { .. }) => Verdict::Leave,
            Some(Kin::Blank { .. }) => Verdict::Ask,
            // It has not left the session that it was started in, whose leader is alive.
            None if household.table.contains(Pid::from_raw(stat.session)) => Verdict::Leave,
            None => Verdict::Ask,
        }
    }

    /// Those are asked one lot after the other: when one does not answer it is known which.
    fn ask(&mut self, pids: Vec<i32>, now: Instant, tell: impl Fn(Heard) -> bool + Send + 'static) {
        if pids.is_empty() || self.readings.deadline().is_some() {
            return;
        }
        for pid in &pids {
            let blank = match self.known.get(pid) {
                Some(Kin::Blank { times }) => *times,
                _ => 0,
            };
            self.known.insert(*pid, Kin::Asked { blank });
        }
        let tell = move |pid, sign| tell(Heard { pid, sign });
        if !self.readings.ask(&pids, self.household.instance, now, tell) {
            // Too many threads hang already.
            self.known.extend(pids.into_iter().map(|pid| (pid, Kin::Stranger)));
        }
    }

    /// Its group is signalled with it if it leads that. It is our unreaped child, so its id is its own.
    fn end(&mut self, pid: i32, stat: Stat, now: Instant) -> (i32, String) {
        self.known.insert(pid, Kin::Ending { since: now });
        let name = procfs::name(pid);
        for signal in [Signal::SIGTERM, Signal::SIGCONT] {
            let _ = send(pid, stat, signal);
        }
        (pid, name)
    }

    fn kill(&mut self, pid: i32, stat: Stat) {
        self.known.insert(pid, Kin::Killed);
        let tree = Tree::below(Pid::from_raw(pid));
        let _ = send(pid, stat, Signal::SIGKILL);
        tree.kill();
    }

    /// When there has to be another look; and which runs are done with.
    fn plan(&mut self, grace: Duration) {
        let endings = || {
            self.known.values().filter_map(|kin| match kin {
                Kin::Ending { since } => Some(*since + grace),
                _ => None,
            })
        };
        let due = endings().min();
        if self.unseen > 0 {
            // As soon as looks may be: `latest` is set behind this.
            self.look_by(Instant::now() + PAUSE);
        } else if !self.is_at_work() {
            self.ended.clear();
        }
        if let Some(due) = due {
            // Never in a hurry: it may be the turn of others first.
            self.look_by(due.max(Instant::now() + PAUSE));
        }
    }

    /// Whether something of a run that has ended is, or may be, left.
    fn is_at_work(&self) -> bool {
        let is_stranger = |kin: &Kin| matches!(kin, Kin::Stranger | Kin::Of(_));
        self.unseen > 0 || !self.known.values().all(is_stranger)
    }

    /// The daemon ends: whatever its children have left is ended as well, which takes a moment at most.
    pub fn finish(&mut self, is_spared: impl Fn(Pid) -> bool) {
        let (sender, receiver) = mpsc::channel();
        let until = Instant::now() + LAST_MOMENTS;
        while Instant::now() < until {
            let (now, sender) = (Instant::now(), sender.clone());
            self.collect(now, &is_spared);
            self.look_with(now, LAST_GRACE, &is_spared, move |heard| sender.send(heard).is_ok());
            if !self.is_at_work() && self.leaves.is_empty() && !self.household.has_ended() {
                break;
            }
            if let Ok(heard) = receiver.recv_timeout(MOMENT) {
                self.heard(heard, Instant::now());
            }
        }
        if let Some(group) = &self.household.group {
            group.end();
        }
    }

    /// A thread has read an environment. There may be something to look for now.
    pub fn heard(&mut self, heard: Heard, now: Instant) {
        let Heard { pid, sign } = heard;
        if !self.readings.heard(pid, now) {
            return;
        }
        let Some(Kin::Asked { blank }) = self.known.get(&pid).copied() else {
            return;
        };
        let kin = match sign {
            Sign::Of(run) => Kin::Of(run),
            Sign::Blank if blank < LOOKS_AT_BLANK => Kin::Blank { times: blank + 1 },
            Sign::Foreign | Sign::Blank => Kin::Stranger,
        };
        self.known.insert(pid, kin);
        self.look_by(now.max(self.earliest()));
    }
}

/// What a thread has read.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
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
        if !readings.ask(&pids, instance, Instant::now(), move |pid, sign| {
            sender.send((pid, sign)).is_ok()
        }) {
            break;
        }
        while let Some(deadline) = readings.deadline() {
            let Ok((pid, sign)) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                break;
            };
            readings.heard(pid, Instant::now());
            let Some(stat) = rest.remove(&pid) else { continue };
            match sign {
                Sign::Of(_) => signed.push((pid, stat)),
                Sign::Foreign => foreign.push((pid, stat.started)),
                Sign::Blank => {}
            }
        }
        // One that hangs is left alone, and those behind it are asked anew.
        if let Some(hangs) = readings.overdue(Instant::now()).first() {
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
        let household = Arc::new(Household::new(None).unwrap());
        let mut orphans = Orphans::new(&household);
        let now = Instant::now();
        let (alive, ended, foreign) = (100, 200, 300);
        household.table.insert(Pid::from_raw(alive));
        orphans.ended.insert(ended);
        // Its number was given to another run since.
        let again = 400;
        orphans.ended.insert(again);
        household.table.insert(Pid::from_raw(again));
        let overdue = now.checked_sub(GRACE).unwrap();
        for (kin, session, verdict) in [
            (None, alive, Verdict::Leave),
            (None, again, Verdict::Leave),
            (None, ended, Verdict::End),
            (None, foreign, Verdict::Ask),
            (Some(Kin::Blank { times: 1 }), foreign, Verdict::Ask),
            (Some(Kin::Asked { blank: 0 }), foreign, Verdict::Leave),
            (Some(Kin::Stranger), foreign, Verdict::Leave),
            (Some(Kin::Stranger), ended, Verdict::End),
            // There is no such run any more, or never was.
            (Some(Kin::Of(7)), foreign, Verdict::End),
            (Some(Kin::Ending { since: now }), ended, Verdict::Leave),
            (Some(Kin::Ending { since: overdue }), ended, Verdict::Kill),
            (Some(Kin::Killed), ended, Verdict::Leave),
        ] {
            orphans.known = kin.map(|kin| (5, kin)).into_iter().collect();
            assert_eq!(
                orphans.judge(5, stat(session), now, GRACE),
                verdict,
                "{kin:?} in {session}"
            );
        }
    }

    #[test]
    fn many_orphans_are_looked_at_in_lots_and_each_of_them_once() {
        let mut orphans = Orphans::new(&Arc::new(Household::new(None).unwrap()));
        let all: BTreeSet<i32> = (1..=1000).collect();
        let mut seen = orphans.next_lot(&all, true);
        assert_eq!(seen.len(), MOST_AT_ONCE);
        while orphans.unseen > 0 {
            seen.extend(orphans.next_lot(&all, false));
        }
        assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), all);
        assert!(seen.len() < 1000 + MOST_AT_ONCE);
        assert_eq!(orphans.next_lot(&BTreeSet::new(), true), [0_i32; 0]);
    }
}
