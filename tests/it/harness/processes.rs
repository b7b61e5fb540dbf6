//! Processes as `/proc` shows them: their children, and the marks in their environments.
//!
//! A mark is one `NAME=value` entry that a daemon is started with and its workers, and theirs, inherit. The test
//! program makes itself the reaper of its orphans, so that processes left behind by a killed daemon become its own
//! children and their end can be waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The time that processes left behind by a daemon may take to go: the daemon promises a second, the rest is for a
/// loaded machine, and no test that passes waits for any of it. It passes in slices: when the machine, or this process,
/// has stood still for a while, the processes had no time to go either, and that costs one slice and not all of them.
const GONE_WITHIN: [Duration; 100] = [Duration::from_millis(100); 100];

/// A zombie is left to the test that waits for it for the time of a hang divided by this.
const SPARED: u32 = 3;

/// Makes orphans of this process's descendants its own children.
pub(crate) fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).expect("become the reaper of orphans (Linux 3.4 and later)");
}

/// The living children of a process, oldest number first.
pub(crate) fn children_of(pid: i32) -> Vec<i32> {
    all_pids()
        .into_iter()
        .filter(|child| parent_of(*child) == Some(pid))
        .collect()
}

/// A process's name as the kernel has it: 15 bytes of its program's.
pub(crate) fn name_of(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .ok()
        .map(|name| name.trim_end().to_owned())
}

/// The file that a process runs.
pub(crate) fn program_of(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The living processes whose environment began with (or holds) the entry `mark`.
pub(crate) fn marked(mark: &str) -> BTreeSet<i32> {
    let carries = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == mark.as_bytes())
    };
    all_pids().into_iter().filter(carries).collect()
}

/// Kills every process that carries `mark` and has this name.
pub(crate) fn kill_marked(mark: &str, name: &str) {
    for pid in marked(mark)
        .into_iter()
        .filter(|pid| name_of(*pid).is_some_and(|its| its == name))
    {
        // It may have gone in between, which is what was wanted.
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
}

/// Waits until a process whose parent stands still has ended, and that parent will find it so. Its `/proc/PID/exe` goes
/// much earlier, while it still ends, and its state a moment before its parent is told: both happen under a lock of the
/// kernel for which a signal to a process group, even none, waits.
#[track_caller]
pub(crate) fn wait_zombie(leader: i32) {
    let deadline = Instant::now() + super::patience();
    while !fs::read_to_string(format!("/proc/{leader}/stat")).is_ok_and(|stat| stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "process {leader} did not end");
        thread::yield_now();
    }
    kill(Pid::from_raw(-leader), None).expect("look for the group of a zombie");
}

/// Waits for the end of a process whose parent has ended, or is about to: it is, or becomes, a child of ours.
#[track_caller]
pub(crate) fn wait_orphan(pid: i32) -> WaitStatus {
    let (done, waiting) = mpsc::channel();
    thread::spawn(move || {
        let status = loop {
            match waitpid(Pid::from_raw(pid), None) {
                // It is not a child of ours yet.
                Err(Errno::ECHILD | Errno::EINTR) => thread::yield_now(),
                outcome => break outcome,
            }
        };
        // The receiver is gone when the wait below has given up.
        done.send(status).ok();
    });
    let status = waiting.recv_timeout(super::patience());
    let status = status.unwrap_or_else(|_| panic!("process {pid} did not end"));
    status.expect("wait for a child")
}

/// Reaps processes that became children of this one by the end of their parents and that no test waits for. Must be called
/// now and then. A run of all tests would leave thousands of zombies, and whatever reads /proc, as every daemon does, would
/// become slower and slower.
fn reap_orphans() {
    static ZOMBIES: Mutex<BTreeMap<(i32, u64), Instant>> = Mutex::new(BTreeMap::new());
    // Another thread is at it.
    let Ok(mut zombies) = ZOMBIES.try_lock() else { return };
    let me = std::process::id();
    // The kernel gives orphans to the main thread. A program that a test has started is a child of the test's own thread.
    let children = fs::read_to_string(format!("/proc/self/task/{me}/children")).unwrap_or_default();
    let (now, spared) = (Instant::now(), super::patience() / SPARED);
    let before = std::mem::take(&mut *zombies);
    for pid in children.split(' ').filter_map(|pid| pid.parse().ok()) {
        let Some(stat) = read_stat(pid).filter(|stat| stat.state == "Z") else {
            continue;
        };
        let since = before.get(&(pid, stat.started)).copied().unwrap_or(now);
        if now.duration_since(since) < spared {
            zombies.insert((pid, stat.started), since);
        } else {
            // A failure means that a test has waited for it after all.
            waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)).ok();
        }
    }
}

/// Waits until no process carries `mark`. `Err` names the ones that stayed; they are killed, so that one failed test
/// does not disturb the next.
pub(crate) fn wait_all_gone(mark: &str) -> Result<(), String> {
    reap_orphans();
    let (done, waiting) = mpsc::channel();
    let thread_mark = mark.to_owned();
    thread::spawn(move || {
        while let Some(orphan) = marked(&thread_mark).into_iter().next() {
            wait_for(orphan);
        }
        // The receiver is gone when the wait below has given up.
        done.send(()).ok();
    });
    if GONE_WITHIN.iter().any(|slice| waiting.recv_timeout(*slice).is_ok()) {
        return Ok(());
    }
    let deadline = Instant::now() + super::patience();
    loop {
        let seen = marked(mark);
        let left: Vec<String> = seen.iter().filter_map(|pid| describe_and_kill(*pid)).collect();
        if !left.is_empty() {
            return Err(left.join(", "));
        }
        if seen.is_empty() {
            return Ok(());
        }
        // Each of them has ended since it was seen, so that none was left. It may have started others.
        if Instant::now() >= deadline {
            return Err(format!(
                "processes that start one another and end, the last ones {seen:?}"
            ));
        }
    }
}

/// Waits for one process that is, or is about to become, a child of ours: its nearest ancestor that is one.
fn wait_for(pid: i32) {
    let me = i32::try_from(std::process::id()).expect("a pid fits an i32");
    let mut nearest = pid;
    while let Some(parent) = parent_of(nearest) {
        if parent == me || parent <= 1 {
            break;
        }
        nearest = parent;
    }
    match waitpid(Pid::from_raw(nearest), None) {
        // ECHILD: between its parent's death and its becoming ours; the caller looks at the whole picture afresh.
        Ok(_) | Err(Errno::EINTR | Errno::ECHILD) => thread::yield_now(),
        Err(error) => panic!("cannot wait for process {nearest}: {error}"),
    }
}

/// Kills a process and returns its description, or returns `None` if the process has ended.
fn describe_and_kill(pid: i32) -> Option<String> {
    let description = describe(pid)?;
    // It may have gone in between, which is what was wanted.
    kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    Some(description)
}

/// The number, name, state and command line of a process, and the place in the kernel where it waits. `None` if it has
/// ended: it still lives after all of this was read, so nothing in the description is missing because it has gone, and
/// nothing is about a later process with its number.
fn describe(pid: i32) -> Option<String> {
    let before = stat_of(pid)?;
    let name = name_of(pid)?;
    let [command, place] = ["cmdline", "wchan"].map(|file| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default());
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let after = stat_of(pid)?;
    (before.started == after.started).then(|| {
        format!(
            "{pid} {name} ({}), {} in {}",
            command.trim_end(),
            after.state,
            String::from_utf8_lossy(&place)
        )
    })
}

fn all_pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("list /proc");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    stat_of(pid).map(|stat| stat.parent)
}

/// A few fields of `/proc/PID/stat`.
struct Stat {
    state: String,
    parent: i32,
    /// The time of the start, in the kernel's ticks: with its number it names one process for ever.
    started: u64,
}

/// The state of a process that lives: `None` for a zombie.
fn stat_of(pid: i32) -> Option<Stat> {
    read_stat(pid).filter(|stat| !matches!(stat.state.as_str(), "Z" | "X"))
}

fn read_stat(pid: i32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything, parentheses included; the state, which is the third field,
    // follows the last one.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some(Stat {
        state: (*fields.first()?).to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[test]
fn a_process_that_has_ended_is_not_described_and_a_living_one_is_in_full() {
    use std::process::Command;

    use nix::sys::wait::{Id, waitid};

    let program = super::Program::start(Command::new("sh").args(["-c", "echo up >&2; read never; exit 0"]));
    program.stderr_wait("up");
    let described = describe(program.pid()).expect("it lives");
    let begins = format!("{} sh (sh -c echo up >&2; read never; exit 0), ", program.pid());
    assert!(described.starts_with(&begins), "{described}");
    program.signal(Signal::SIGKILL);
    program.wait_exit();
    assert_eq!(describe(program.pid()), None);
    // A zombie has a name still, but no command line.
    let mut zombie = Command::new("true").spawn().expect("start true");
    let pid = i32::try_from(zombie.id()).expect("a pid fits an i32");
    let exited = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(Pid::from_raw(pid)), exited) == Err(Errno::EINTR) {}
    assert_eq!(name_of(pid).as_deref(), Some("true"));
    assert_eq!(describe(pid), None);
    zombie.wait().expect("reap it");
}

#[test]
fn marked_processes_are_found_waited_for_and_gone() {
    use std::process::Command;

    adopt_orphans();
    let directory = super::temp_dir();
    let mark = format!("IOTCPD_TEST_HOME={}", directory.path().display());
    // The shell leaves an orphan behind that lives until its input, which the test holds, ends. (Descriptor 3, because
    // a shell gives its background children an empty standard input.) It is the orphan that says that it is there, and
    // it runs nothing else: in the middle of an exec a process has no environment to be known by.
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "exec 3<&0; (echo started >&2; read -r line <&3) & exec sh -c 'kill -9 $$'",
    ]);
    shell.env("IOTCPD_TEST_HOME", directory.path());
    let mut shell = super::Program::start(&mut shell);
    shell.stderr_wait("started");
    shell.wait_exit();
    assert_eq!(marked(&mark).len(), 1, "the orphan");
    drop(shell.stdin.take());
    assert_eq!(wait_all_gone(&mark), Ok(()));
    assert!(marked(&mark).is_empty());
}
