//! The daemon under test: the real binary, on a port of its own, with everything it starts marked as its.
//!
//! [`Daemon::pool`] and [`Daemon::start`] return once it listens. The drop kills it with KILL, as a crash would, and
//! asserts that every process which carries its mark goes without further help.

use std::ffi::OsStr;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::stats::{self, StatsBlock};
use super::{Address, Certificate, Client, Program, processes, tls};

/// The variable that marks everything started for one daemon; its value is the daemon's own directory.
const MARK: &str = "IOTCPD_TEST_HOME";

/// The program under test.
const BINARY: &str = env!("CARGO_BIN_EXE_iotcpd");

/// The daemon's line, once for each listener, when it is ready.
const LISTENING: &str = ": listening on ";

/// The line that ends (and, with nothing before it, begins) the USR2 block.
const DUMP_EDGE: &str = " --- internal regs - 8< -------";

/// A daemon that is being tried. Whatever [`Program`] can do, it can.
#[derive(Debug)]
pub(crate) struct Daemon {
    program: Program,
    home: TempDir,
    may_be_succeeded: bool,
    /// The certificate of its listeners, in a test that runs over TLS.
    certificate: Option<Arc<Certificate>>,
}

/// Returns true if this is the guard's program: the daemon's, in memory that has no name.
fn is_guards(program: &Path) -> bool {
    program.starts_with("/memfd:io-guard (deleted)")
}

/// The command line, environment and streams of a daemon that is about to be started.
#[derive(Debug)]
pub(crate) struct Builder {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    open_files: Option<u32>,
    listener: Option<OwnedFd>,
    stdin: Stdio,
    binary: PathBuf,
    launcher: Vec<String>,
    may_be_succeeded: bool,
}

impl Daemon {
    /// A pool of `workers` that run `command`, on a free port of 127.0.0.1, with more flags; ready for clients.
    #[track_caller]
    pub(crate) fn pool(workers: u32, command: &str, flags: &[&str]) -> Self {
        let workers = workers.to_string();
        Self::with(["-n", workers.as_str(), "-d", command, "-p", "0"])
            .args(flags)
            .start()
    }

    /// A daemon with these arguments, to be started.
    pub(crate) fn with<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Builder {
        Builder {
            arguments: arguments.into_iter().map(str::to_owned).collect(),
            environment: Vec::new(),
            open_files: None,
            listener: None,
            stdin: Stdio::null(),
            binary: BINARY.into(),
            launcher: Vec::new(),
            may_be_succeeded: false,
        }
    }

    /// The first address that it listens on.
    #[track_caller]
    pub(crate) fn addr(&self) -> Address {
        self.nth_addr(1)
    }

    /// The `nth` address (from 1) that it listens on, in the order of its flags.
    #[track_caller]
    pub(crate) fn nth_addr(&self, nth: usize) -> Address {
        let line = self.stderr_wait_nth(LISTENING, nth);
        let (_, rest) = line.split_once(LISTENING).expect("the line was chosen for these words");
        let word = rest
            .split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '"'))
            .next()
            .unwrap_or(rest);
        match (Address::parse(word), &self.certificate) {
            (Some(Address::Tcp(address)), Some(certificate)) if word.starts_with("tls:") => {
                Address::Tls(address, Arc::clone(certificate))
            }
            (address, _) => address.unwrap_or_else(|| self.fail(&format!("no address in {line:?}"))),
        }
    }

    /// A new connection to its first address.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.addr())
    }

    /// A new connection that the daemon has already accepted and, as nothing was there to be read, watches. Only for a
    /// test whose other connections stay as they are meanwhile.
    #[track_caller]
    pub(crate) fn watched_client(&self) -> Client {
        let before = self.usr1().count("connections");
        let client = self.client();
        self.usr1_until(|stats| stats.count("connections") > before);
        client
    }

    /// Asks one line over a connection of its own, as a one-shot client does: everything until the daemon closes.
    #[track_caller]
    pub(crate) fn ask(&self, line: &str) -> String {
        let mut client = self.client();
        client.send(format!("{line}\n"));
        String::from_utf8_lossy(&client.read_to_end()).into_owned()
    }

    /// Asks for the statistics and reads them.
    #[track_caller]
    pub(crate) fn usr1(&self) -> StatsBlock {
        self.usr1_of_process(self.pid())
    }

    /// The statistics of this process, which is the daemon or a successor of it.
    #[track_caller]
    pub(crate) fn usr1_of_process(&self, pid: i32) -> StatsBlock {
        let text = self.signalled_block(pid, Signal::SIGUSR1, stats::END);
        StatsBlock::parse(&text).unwrap_or_else(|| self.fail("no statistics block on standard output"))
    }

    /// Asks for the statistics and reads those of the door of this name, one of several.
    #[track_caller]
    pub(crate) fn usr1_of(&self, door: &str) -> StatsBlock {
        let mut from = self.stdout.len();
        self.signal(Signal::SIGUSR1);
        loop {
            let end = self.stdout_line(from, stats::END);
            let text = self.stdout.text();
            let block: Vec<&str> = text.lines().skip(from).take(end + 1 - from).collect();
            match StatsBlock::parse(&block.join("\n")) {
                Some(block) if block.get("name") == Some(door) => return block,
                _ => from = end + 1,
            }
        }
    }

    /// Asks for the statistics until they show what `wanted` looks for. Each answer is an event of the daemon's loop,
    /// so this is for states that the daemon reaches by itself and tells in no other way (a request has been queued).
    #[track_caller]
    pub(crate) fn usr1_until(&self, wanted: impl Fn(&StatsBlock) -> bool) -> StatsBlock {
        let deadline = std::time::Instant::now() + super::patience();
        loop {
            let block = self.usr1();
            if wanted(&block) {
                return block;
            }
            if std::time::Instant::now() >= deadline {
                self.fail(&format!("the statistics never came to what was wanted: {block:#?}"));
            }
        }
    }

    /// Asks for the dump of every worker: the lines between the two edges.
    #[track_caller]
    pub(crate) fn usr2(&self) -> Vec<String> {
        let from = self.stdout.len();
        self.signal(Signal::SIGUSR2);
        let begin = self.stdout_line(from, DUMP_EDGE);
        let end = self.stdout_line(begin + 1, DUMP_EDGE);
        let text = self.stdout.text();
        text.lines()
            .skip(begin + 1)
            .take(end - begin - 1)
            .map(str::to_owned)
            .collect()
    }

    /// Its living workers: its children but the guard, and one that is just being started, which is no program of its
    /// own yet.
    pub(crate) fn children(&self) -> Vec<i32> {
        let children = processes::children_of(self.pid()).into_iter();
        let is_worker = |program: PathBuf| program != Path::new(BINARY) && !is_guards(&program);
        children
            .filter(|pid| processes::program_of(*pid).is_some_and(is_worker))
            .collect()
    }

    /// The process that sees to it that nothing outlives the daemon; it is a child, but no worker. One that has just
    /// taken the place of another is awaited until it is what it will be.
    #[track_caller]
    pub(crate) fn guard(&self) -> i32 {
        let deadline = std::time::Instant::now() + super::patience();
        loop {
            let children = processes::children_of(self.pid()).into_iter();
            let is_one = |pid: &i32| processes::program_of(*pid).is_some_and(|program| is_guards(&program));
            let guards: Vec<i32> = children.filter(is_one).collect();
            assert!(guards.len() < 2, "more than one guard: {guards:?}");
            match guards.first() {
                Some(guard) => return *guard,
                None if std::time::Instant::now() >= deadline => self.fail("there is no guard"),
                None => std::thread::yield_now(),
            }
        }
    }

    /// A directory that is this daemon's, for its sockets and files; removed with it.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    #[track_caller]
    fn signalled_block(&self, pid: i32, signal: Signal, end: &str) -> String {
        let from = self.stdout.len();
        kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| self.fail(&format!("cannot signal {pid}: {error}")));
        let end = self.stdout_line(from, end);
        let text = self.stdout.text();
        let lines: Vec<&str> = text.lines().skip(from).take(end + 1 - from).collect();
        lines.join("\n")
    }

    #[track_caller]
    fn stdout_line(&self, from: usize, wanted: &str) -> usize {
        let waited = self.stdout.wait_from(from, |line| line == wanted);
        let (place, _) =
            waited.unwrap_or_else(|why| self.fail(&format!("wanted {wanted:?} on standard output: {why}")));
        place
    }
}

impl Builder {
    /// More arguments.
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// One more environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The most files it may have open, soft and hard.
    pub(crate) fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Hands it this listening socket as systemd would: descriptor 3, `LISTEN_FDS` and `LISTEN_PID`.
    pub(crate) fn inherit(mut self, listener: impl Into<OwnedFd>) -> Self {
        self.listener = Some(listener.into());
        self
    }

    /// Starts it by this name of the program under test, as one that may be upgraded: a successor that has taken its
    /// place by the time of the drop is killed with it.
    pub(crate) fn installed_at(mut self, binary: &Path) -> Self {
        binary.clone_into(&mut self.binary);
        self.may_be_succeeded = true;
        self
    }

    /// Starts it by a program that changes what it inherits and then becomes it, as `env` and `setsid` do.
    pub(crate) fn through(mut self, launcher: &[&str]) -> Self {
        self.launcher = launcher.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Its standard input; nothing unless set.
    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub(crate) fn start(self) -> Daemon {
        let daemon = self.spawn();
        daemon.addr();
        daemon
    }

    /// Starts it and waits for nothing: for daemons that are expected to refuse.
    #[track_caller]
    pub(crate) fn spawn(mut self) -> Daemon {
        processes::adopt_orphans();
        let certificate = tls::put_on_tls(&mut self.arguments);
        let home = super::temp_dir();
        let mut command = self.command();
        let stdin = match self.listener.take() {
            Some(listener) => Stdio::from(listener),
            None => std::mem::replace(&mut self.stdin, Stdio::null()),
        };
        let program = Program::start_with_stdin(command.env(MARK, home.path()), stdin);
        Daemon {
            program,
            home,
            may_be_succeeded: self.may_be_succeeded,
            certificate,
        }
    }

    /// Settings that only the new process can make are made by a shell, which then becomes the daemon: the pid stays.
    fn command(&self) -> Command {
        let mut setup = String::new();
        if let Some(limit) = self.open_files {
            setup.push_str(&format!("ulimit -n {limit}; "));
        }
        let mut redirect = "";
        if self.listener.is_some() {
            setup.push_str("LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; ");
            redirect = " 3<&0 </dev/null";
        }
        let binary = self.binary.as_os_str();
        let mut words: Vec<&OsStr> = self.launcher.iter().map(OsStr::new).chain([binary]).collect();
        let script = format!("{setup}exec \"$0\" \"$@\"{redirect}");
        if !setup.is_empty() {
            words.splice(0..0, ["/bin/sh", "-c", &script].map(OsStr::new));
        }
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().expect("the program under test"));
        command.args(words).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Deref for Daemon {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_exit();
        let mark = format!("{MARK}={}", self.home.path().display());
        if self.may_be_succeeded {
            processes::kill_marked(&mark, "iotcpd");
        }
        let gone = processes::wait_all_gone(&mark);
        if std::thread::panicking() {
            // The test has already failed; what its daemon said is what its reader needs.
            eprintln!("--- standard error of the daemon:\n{}\n---", self.stderr.text());
        } else if let Err(left) = gone {
            self.fail(&format!("was killed and left processes behind: {left}"));
        }
    }
}
