//! The daemon that is tested: the real binary with its sockets in a directory of its own, everything it starts marked
//! as its.
//!
//! It may be several processes, one after the other: each upgrade adds one, and the one before finishes meanwhile.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::clock;
use crate::log::{Log, News};
use crate::mode::Mode;
use crate::secured;
use crate::statistics::{Statistics, read_blocks};
use crate::timeline::Timeline;

/// The variable that marks everything started for this daemon; its value is the daemon's own directory.
const MARK: &str = "IOTCPD_CHAOS_HOME";

/// The time that anything may take that should happen at once; a pass waits for none of it.
const AT_ONCE: Duration = Duration::from_secs(20);
/// The time that an upgrade may take; the daemon's own limit comes first.
const UPGRADE: Duration = Duration::from_secs(60);
/// The time between two looks at processes that cannot be waited for, because they are not children of this one.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The time after the end of a process in which its last lines may still be on their way through the log.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The pools whose answers show when a worker was started.
const WATCHED: [&str; 2] = ["cache", "multiplexed-cache"];

/// A running daemon; one that is dropped is killed.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// All processes that ever served; the last one serves now.
    processes: Vec<Process>,
    home: TempDir,
    tcp: HashMap<String, SocketAddr>,
    pools: usize,
    blocks: Receiver<Statistics>,
    news: Receiver<News>,
    log: Arc<Log>,
    rolls: Vec<Roll>,
}

/// The replacements of all workers of a pool.
#[derive(Debug)]
struct Roll {
    pool: &'static str,
    /// The times at which HUP was sent, of each one that the log has not reported as done.
    under_way: VecDeque<u64>,
    /// The time of the last that is done.
    done: u64,
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    /// On [`clock`]: everything of it is younger.
    born: u64,
    status: Option<(ExitStatus, Instant)>,
}

impl Daemon {
    /// The directory that its modes will have.
    pub(crate) fn directory() -> io::Result<TempDir> {
        tempfile::Builder::new().prefix("iotcpd-chaos-").tempdir()
    }

    /// Starts it in its directory and waits until it listens everywhere.
    pub(crate) fn start(home: TempDir, modes: &[Mode]) -> Result<Self, Box<dyn Error>> {
        // A successor outlives the process that started it: it becomes a child of this process then.
        nix::sys::prctl::set_child_subreaper(true)?;
        secured::make_certificate(home.path())?;
        let born = clock::now();
        let mut child = command(home.path(), modes)?.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let log = Arc::new(Log::create(&log_file(&home))?);
        let (blocks_to, blocks) = mpsc::channel();
        let (news_to, news) = mpsc::channel();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            thread::spawn(move || read_blocks(stdout, &blocks_to));
            let log = Arc::clone(&log);
            thread::spawn(move || log.read(stderr, &news_to));
        }
        let mut daemon = Self {
            processes: vec![Process {
                pid,
                born,
                status: None,
            }],
            home,
            tcp: HashMap::new(),
            pools: modes.len(),
            blocks,
            news,
            log,
            rolls: modes.iter().filter_map(Roll::watched).collect(),
        };
        while daemon.tcp.len() < modes.len() {
            let news = daemon.news.recv_timeout(AT_ONCE);
            let news =
                news.map_err(|error| format!("no pool is there: {error}\n{}", daemon.log().last_lines().join("\n")))?;
            if let News::Listening(name, address) = news {
                daemon.tcp.insert(name, address);
            }
        }
        Ok(daemon)
    }

    pub(crate) fn tcp(&self, mode: &Mode) -> Result<SocketAddr, Box<dyn Error>> {
        let address = self.tcp.get(mode.name).copied();
        address.ok_or_else(|| format!("{} does not listen", mode.name).into())
    }

    /// The process that serves.
    fn pid(&self) -> io::Result<Pid> {
        let serving = self.processes.last();
        serving
            .map(|process| process.pid)
            .ok_or_else(|| io::Error::other("there never was a daemon"))
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(self.pid()?, signal)?)
    }

    /// Has all workers replaced; when they are, [`Self::follow`] hears of it.
    pub(crate) fn hup(&mut self) -> io::Result<()> {
        let now = clock::now();
        self.rolls.iter_mut().for_each(|roll| roll.under_way.push_back(now));
        self.signal(Signal::SIGHUP)
    }

    /// Upgrades it, to the same program, and waits until the new process serves.
    pub(crate) fn upgrade(&mut self, timeline: &Timeline) -> Result<(), Box<dyn Error>> {
        let born = clock::now();
        timeline.begin_upgrade();
        self.signal(Signal::SIGURG)?;
        let deadline = Instant::now() + UPGRADE;
        let successor = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let news = self.news.recv_timeout(left);
            if let News::Upgraded(pid) = news.map_err(|error| format!("no upgrade after URG: {error}"))? {
                break pid.ok_or("an upgrade has failed")?;
            }
        };
        // HUPs that the old process has obeyed, or passed on, are done as far as the new one goes.
        self.rolls.iter_mut().for_each(|roll| roll.under_way.clear());
        self.processes.push(Process {
            pid: successor,
            born,
            status: None,
        });
        timeline.upgrade_done();
        Ok(())
    }

    /// Reads the log and the processes, so that clients know the oldest worker that may answer.
    ///
    /// Each line that says that all workers were replaced stands for the oldest HUP not heard of: at least as many were
    /// sent before it. Where two HUPs became one, or a line was not counted, answers may be older for a while than they
    /// have to be. It is not counted while a process finishes that may have written it about itself.
    pub(crate) fn follow(&mut self, timeline: &Timeline) -> io::Result<()> {
        let are_gone = self.have_predecessors_gone()?;
        if let Some(serving) = self.processes.last().filter(|_| are_gone) {
            timeline.all_new_since(serving.born);
        }
        for news in self.news.try_iter() {
            if let News::Replaced(name) = news
                && are_gone
                && let Some(roll) = self.rolls.iter_mut().find(|roll| roll.pool == name)
                && let Some(sent) = roll.under_way.pop_front()
            {
                roll.done = sent;
            }
        }
        // One pool may take longer than another.
        if let Some(done) = self.rolls.iter().map(|roll| roll.done).min() {
            timeline.all_new_since(done);
        }
        Ok(())
    }

    fn have_predecessors_gone(&mut self) -> io::Result<bool> {
        let mut are_gone = true;
        let Some((_, before)) = self.processes.split_last_mut() else {
            return Ok(true);
        };
        for process in before {
            let status = process.look()?;
            are_gone &= status.is_some_and(|(_, seen)| seen.elapsed() > LAST_LINES);
        }
        Ok(are_gone)
    }

    /// Returns true if another process serves than the one that was started here, which has counted everything.
    pub(crate) fn was_upgraded(&self) -> bool {
        self.processes.len() > 1
    }

    /// Asks for the statistics of all pools and waits for them.
    pub(crate) fn statistics(&self) -> Result<Vec<Statistics>, Box<dyn Error>> {
        self.signal(Signal::SIGUSR1)?;
        let blocks = (0..self.pools).map(|_| self.blocks.recv_timeout(AT_ONCE));
        let blocks: Result<Vec<_>, _> = blocks.collect();
        blocks.map_err(|error| format!("no statistics after USR1: {error}").into())
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

    /// Waits for the end of a daemon that has got TERM, and of its predecessors. Returns the first status that is no
    /// success, or else the last one's; `None` if a process goes on.
    pub(crate) fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let mut last = None;
        for process in &mut self.processes {
            last = look_until(limit, || process.look())?.map(|(status, _)| status);
            if last.is_none_or(|status| !status.success()) {
                break;
            }
        }
        Ok(last)
    }

    /// The processes that are left of a daemon which has ended, after the moment that they may take.
    pub(crate) fn left_behind(&self) -> io::Result<Vec<String>> {
        let mark = format!("{MARK}={}", self.home.path().display());
        let none = look_until(AT_ONCE, || Ok(marked(&mark)?.is_empty().then(Vec::new)))?;
        none.map_or_else(|| marked(&mark), Ok)
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Keeps the file with its log beyond the end of this program. Returns its path.
    pub(crate) fn keep_log(&self) -> io::Result<PathBuf> {
        let name = self.home.path().file_name().unwrap_or_default();
        let path = std::env::temp_dir().join(name).with_extension("log");
        fs::copy(log_file(&self.home), &path)?;
        Ok(path)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for process in self.processes.iter().filter(|process| process.status.is_none()) {
            // It fails if it has ended, as it should have.
            kill(process.pid, Signal::SIGKILL).ok();
        }
    }
}

impl Roll {
    fn watched(mode: &Mode) -> Option<Self> {
        WATCHED.contains(&mode.name).then(|| Self {
            pool: mode.name,
            under_way: VecDeque::new(),
            done: 0,
        })
    }
}

impl Process {
    /// Returns its status, once it has ended, and the time at which that was seen. It becomes a child of this process
    /// when its parent ends; if it ends before its parent, it is reaped there, and its status is unknown here.
    fn look(&mut self) -> io::Result<Option<(ExitStatus, Instant)>> {
        if self.status.is_none() {
            let status = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::from_raw(code << 8)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(ExitStatus::from_raw(signal as i32)),
                Err(Errno::ECHILD) if !Path::new(&format!("/proc/{}", self.pid)).exists() => {
                    Some(ExitStatus::from_raw(0))
                }
                Ok(_) | Err(Errno::ECHILD) => None,
                Err(error) => return Err(error.into()),
            };
            self.status = status.map(|status| (status, Instant::now()));
        }
        Ok(self.status)
    }
}

fn log_file(home: &TempDir) -> PathBuf {
    home.path().join("log")
}

/// Returns the path of the program that is tested.
pub(crate) fn binary() -> Result<PathBuf, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let examples = program.parent().ok_or("no directory around this program")?;
    let target = examples.parent().ok_or("no directory around the examples")?;
    let binary: PathBuf = target.join("iotcpd");
    if !binary.exists() {
        return Err(format!("{} is missing: cargo build --bins", binary.display()).into());
    }
    Ok(binary)
}

fn command(home: &Path, modes: &[Mode]) -> Result<Command, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let binary = binary()?;
    let program = program.to_str().ok_or("the target folder is not UTF-8")?;
    let tables: String = modes.iter().map(|mode| mode.table(program)).collect();
    let file = home.join("iotcpd.toml");
    fs::write(&file, tables)?;
    let mut command = Command::new(binary);
    command
        .arg("run")
        .arg("--config")
        .arg(file)
        .env(MARK, home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Looks until there is something, or the time is over.
fn look_until<T>(limit: Duration, mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look()?;
        if found.is_some() || Instant::now() >= deadline {
            return Ok(found);
        }
        // No event says that a process of another parent has gone.
        thread::sleep(LOOK_AGAIN);
    }
}

/// The living processes with this entry in their environment, in words.
fn marked(mark: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // An entry that is no process, or has just gone, has no environment.
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
