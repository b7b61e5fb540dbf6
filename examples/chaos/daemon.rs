//! The daemon under fire: the real binary with its sockets in a directory of its own, everything it starts marked as its.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::plan::{MAX_REPLY, MAX_REQUEST};

/// The variable that marks everything started for this daemon; its value is the daemon's own directory.
const MARK: &str = "IOTCPD_CHAOS_HOME";

const LISTENING: &str = ": listening on ";
const BEGIN: &str = " --- statistics ---- >8 -------";
const END: &str = " --- statistics ---- 8< -------";

/// Lines of the log that are kept for who looks into a broken promise.
const LOG_KEPT: usize = 300;

/// How long anything may take that should happen at once; a pass waits for none of it.
const AT_ONCE: Duration = Duration::from_secs(20);
/// Between two looks at what cannot be waited for: processes that are nobody's children here.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The time-outs that the daemon is given, in milliseconds: short, so that many of them are met.
pub(crate) const QUEUE_TIMEOUT: u64 = 500;
pub(crate) const BUSY_TIMEOUT: u64 = 1000;
pub(crate) const READ_TIMEOUT: u64 = 1000;

/// What the log says of an upgrade's end, one way or the other.
const SERVES: &str = " serves; this one finishes what it has in hand";
const FAILED: &str = "upgrade failed";

/// A running daemon; one that is dropped is killed.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// The process that was started here.
    child: Child,
    /// Those that have taken its place, one after the other.
    successors: Vec<Pid>,
    upgrades: Receiver<Option<Pid>>,
    home: TempDir,
    pub(crate) tcp: SocketAddr,
    pub(crate) unix: PathBuf,
    blocks: Receiver<Statistics>,
    log: Arc<Mutex<VecDeque<String>>>,
}

/// One block of statistics.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statistics(HashMap<String, u64>);

impl Statistics {
    pub(crate) fn count(&self, label: &str) -> u64 {
        self.0.get(label).copied().unwrap_or_default()
    }

    /// The counts whose labels begin like this, sorted, in words.
    pub(crate) fn all_of(&self, beginning: &str) -> String {
        let rows = self.0.iter().filter(|(_, value)| **value > 0);
        let mut rows: Vec<String> = rows
            .filter_map(|(label, value)| Some(format!("{} {value}", label.strip_prefix(beginning)?.trim())))
            .collect();
        rows.sort();
        rows.join(", ")
    }

    /// Requests that have neither been answered nor refused nor abandoned. `None`: the counters do not add up.
    pub(crate) fn in_hand(&self) -> Option<u64> {
        let over = ["queries replied", "queries failed", "queries timeout"];
        let over: u64 = over.iter().map(|label| self.count(label)).sum();
        let in_hand = self.count("queries total").checked_sub(over)?;
        let waiting = self.count("queue length");
        // Of the busy workers, some may be watched after a long request, and have none.
        let most = waiting
            + self
                .count("daemon S_BUSY")
                .checked_sub(self.count("workers draining"))?;
        (waiting..=most).contains(&in_hand).then_some(in_hand)
    }
}

impl Daemon {
    /// Starts it and waits until it listens.
    pub(crate) fn start(workers: usize) -> Result<Self, Box<dyn Error>> {
        // A successor outlives whoever started it: it becomes a child of this process then.
        nix::sys::prctl::set_child_subreaper(true)?;
        let home = tempfile::Builder::new().prefix("iotcpd-chaos-").tempdir()?;
        let unix = home.path().join("pool");
        let mut child = command(workers, home.path(), &unix)?.spawn()?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (blocks_to, blocks) = mpsc::channel();
        let (listening_to, listening) = mpsc::channel();
        let (upgrades_to, upgrades) = mpsc::channel();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            thread::spawn(move || read_blocks(stdout, &blocks_to));
            let log = Arc::clone(&log);
            thread::spawn(move || read_log(stderr, &log, &listening_to, &upgrades_to));
        }
        let tcp = loop {
            let line = listening.recv_timeout(AT_ONCE)?;
            if let Ok(address) = line.parse() {
                break address;
            }
        };
        Ok(Self {
            child,
            successors: Vec::new(),
            upgrades,
            home,
            tcp,
            unix,
            blocks,
            log,
        })
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The process that serves.
    fn pid(&self) -> io::Result<Pid> {
        self.successors
            .last()
            .map_or_else(|| pid_of(&self.child), |pid| Ok(*pid))
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(self.pid()?, signal)?)
    }

    /// Upgrades it, to the same program, and waits until the new process serves.
    pub(crate) fn upgrade(&mut self) -> Result<(), Box<dyn Error>> {
        self.signal(Signal::SIGURG)?;
        let successor = self.upgrades.recv_timeout(AT_ONCE);
        let successor = successor.map_err(|error| format!("no upgrade after URG: {error}"))?;
        self.successors.push(successor.ok_or("an upgrade has failed")?);
        Ok(())
    }

    /// Whether it is still the process that was started here, which has counted everything.
    pub(crate) fn was_upgraded(&self) -> bool {
        !self.successors.is_empty()
    }

    /// Asks for the statistics and waits for them.
    pub(crate) fn statistics(&self) -> Result<Statistics, Box<dyn Error>> {
        self.signal(Signal::SIGUSR1)?;
        let block = self.blocks.recv_timeout(AT_ONCE);
        block.map_err(|error| format!("no statistics after USR1: {error}").into())
    }

    /// Its children with this name, as the kernel has it (15 bytes).
    pub(crate) fn children(&self, name: &str) -> io::Result<Vec<Pid>> {
        let mut children = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()?))? {
            // A thread may have ended in between.
            let list = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            children.extend(list.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        let is_named =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        Ok(children.into_iter().filter(is_named).map(Pid::from_raw).collect())
    }

    /// Waits for the end of a daemon that was told to end, and of those whose place it took: the first status that is no
    /// success, or else the last one's.
    pub(crate) fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let mut status = look_until(limit, || self.child.try_wait())?;
        for successor in &self.successors {
            if status.is_none_or(|status| !status.success()) {
                break;
            }
            status = look_until(limit, || try_wait(*successor))?;
        }
        Ok(status)
    }

    /// The processes that are left of a daemon which has ended, after the moment that they may take.
    pub(crate) fn left_behind(&self) -> io::Result<Vec<String>> {
        let mark = format!("{MARK}={}", self.home().display());
        let none = look_until(AT_ONCE, || Ok(marked(&mark)?.is_empty().then(Vec::new)))?;
        none.map_or_else(|| marked(&mark), Ok)
    }

    /// The last lines of its log.
    pub(crate) fn log(&self) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().cloned().collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail if it has ended, as it should.
        self.child.kill().ok();
        self.child.wait().ok();
        for successor in &self.successors {
            kill(*successor, Signal::SIGKILL).ok();
        }
    }
}

/// The status of a process that has become a child of this one, once it has ended. Before it has become one, it runs.
fn try_wait(pid: Pid) -> io::Result<Option<ExitStatus>> {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Ok(Some(ExitStatus::from_raw(code << 8))),
        Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(ExitStatus::from_raw(signal as i32))),
        Ok(_) | Err(Errno::ECHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn command(workers: usize, home: &Path, unix: &Path) -> Result<Command, Box<dyn Error>> {
    let examples = std::env::current_exe()?;
    let examples = examples.parent().ok_or("no directory around this program")?;
    let binary = examples
        .parent()
        .ok_or("no directory around the examples")?
        .join("iotcpd");
    let worker = examples.join("scripted-worker");
    for program in [&binary, &worker] {
        if !program.exists() {
            let program = program.display();
            return Err(format!("{program} is missing: cargo build --bins --examples").into());
        }
    }
    let worker = shell_words::quote(worker.to_str().ok_or("the target folder is not UTF-8")?).into_owned();
    let mut command = Command::new(binary);
    command
        .args(["-n", &workers.to_string(), "-d", &worker, "-i", "127.0.0.1", "-p", "0"])
        .args(["--listen", &format!("unix:{}", unix.display())])
        .args(["--queue-size", "100", "--queue-timeout", &format!("{QUEUE_TIMEOUT}ms")])
        .args(["--busy-timeout", &format!("{BUSY_TIMEOUT}ms")])
        .args(["--read-timeout", &format!("{READ_TIMEOUT}ms")])
        .args([
            "--max-request",
            &MAX_REQUEST.to_string(),
            "--max-reply",
            &MAX_REPLY.to_string(),
        ])
        .args(["--max-requests", "500", "--max-age", "20s", "--alarm-interval", "100ms"])
        .args(["--kill-timeout", "300ms", "--stop-timeout", "5s"])
        .env(MARK, home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

fn pid_of(child: &Child) -> io::Result<Pid> {
    i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)
}

fn read_blocks(stdout: impl Read, blocks: &Sender<Statistics>) {
    let mut block = None;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match (line.as_str(), &mut block) {
            (BEGIN, _) => block = Some(Statistics::default()),
            (END, _) => {
                // Nobody listens any more when the program ends.
                block.take().and_then(|block| blocks.send(block).ok());
            }
            (line, Some(Statistics(rows))) => {
                if let Some((label, value)) = line.rsplit_once(' ')
                    && let Ok(value) = value.parse()
                {
                    rows.insert(label.trim_end().to_owned(), value);
                }
            }
            // The dump of USR2.
            (_, None) => {}
        }
    }
}

fn read_log(
    stderr: impl Read,
    log: &Mutex<VecDeque<String>>,
    listening: &Sender<String>,
    upgrades: &Sender<Option<Pid>>,
) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if line.contains(FAILED) {
            upgrades.send(None).ok();
        } else if let Some((before, _)) = line.split_once(SERVES) {
            let pid = before.rsplit(' ').next().and_then(|pid| pid.parse().ok());
            upgrades.send(pid.map(Pid::from_raw)).ok();
        }
        if let Some((_, address)) = line.split_once(LISTENING) {
            listening.send(address.to_owned()).ok();
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_KEPT {
            log.pop_front();
        }
        log.push_back(line);
    }
}

/// Looks until there is something, or the time is over.
fn look_until<T>(limit: Duration, mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look()?;
        if found.is_some() || Instant::now() >= deadline {
            return Ok(found);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// The living processes with this entry in their environment, in words.
fn marked(mark: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // What is no process, or has just gone, has none.
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == mark.as_bytes())
        {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            found.push(format!("{} {}", path.display(), name.trim_end()));
        }
    }
    Ok(found)
}
