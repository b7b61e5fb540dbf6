//! Any program as a child of the test: its output collected, its exit an event, its end certain.
//!
//! A program lives from [`Program::start`] until its exit or its drop, which kills it. Its pid is signalled only while
//! it has not been reaped, so a signal can never hit a stranger that got the number.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::patience;
use super::transcript::Transcript;

/// A running (or ended) child.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    pid: Pid,
    /// Its standard input; take and drop it for end of file.
    pub(crate) stdin: Option<ChildStdin>,
    /// Its standard output.
    pub(crate) stdout: Transcript,
    /// Its standard error.
    pub(crate) stderr: Transcript,
    exit: Arc<Exit>,
}

#[derive(Debug, Default)]
struct Exit {
    status: Mutex<Option<ExitStatus>>,
    came: Condvar,
}

impl Program {
    /// Starts `command` with its output collected and a pipe for its standard input.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with_stdin(command, Stdio::piped())
    }

    /// The same with a standard input of the caller's choice.
    #[track_caller]
    pub(crate) fn start_with_stdin(command: &mut Command, stdin: Stdio) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error} (scripts/install-peers installs the peers)"));
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits an i32"));
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(Transcript::of).unwrap_or_default();
        let stderr = child.stderr.take().map(Transcript::of).unwrap_or_default();
        let exit = Arc::new(Exit::default());
        let reporter = Arc::clone(&exit);
        thread::spawn(move || report_exit(pid, child, &reporter));
        Self {
            name,
            pid,
            stdin,
            stdout,
            stderr,
            exit,
        }
    }

    /// Its process number; of a stranger, perhaps, once it has exited.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Its resident memory in bytes.
    #[track_caller]
    pub(crate) fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("a running process");
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = kilobytes.map(|text| text.trim().trim_end_matches(" kB").parse());
        let kilobytes: usize = kilobytes.expect("a process with memory").expect("a number");
        kilobytes << 10
    }

    /// Sends it a signal; nothing happens when it has already exited.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        let status = self.exit.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.is_none() {
            kill(self.pid, signal).unwrap_or_else(|error| panic!("cannot send {signal} to {}: {error}", self.name));
        }
    }

    /// Stops it, and waits until it stands still: whatever comes from now on it finds when it goes on (SIGCONT).
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        while waitid(Id::Pid(self.pid), WaitPidFlag::WSTOPPED) == Err(nix::errno::Errno::EINTR) {}
    }

    /// Waits for its exit.
    #[track_caller]
    pub(crate) fn wait_exit(&self) -> ExitStatus {
        let status = self.exit.status.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, _) = self
            .exit
            .came
            .wait_timeout_while(status, patience(), |status| status.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let status = *status;
        status.unwrap_or_else(|| self.fail("did not exit"))
    }

    /// Waits for its exit and for the end of both its output streams; returns the status and what it wrote.
    #[track_caller]
    pub(crate) fn finish(&self) -> (ExitStatus, String, String) {
        let status = self.wait_exit();
        let stdout = self
            .stdout
            .wait_ended()
            .unwrap_or_else(|why| self.fail(&format!("standard output: {why}")));
        let stderr = self
            .stderr
            .wait_ended()
            .unwrap_or_else(|why| self.fail(&format!("standard error: {why}")));
        (status, stdout, stderr)
    }

    /// Waits for a line of its standard error that contains `pattern`.
    #[track_caller]
    pub(crate) fn stderr_wait(&self, pattern: &str) -> String {
        self.stderr_wait_nth(pattern, 1)
    }

    /// Waits for the `nth` line (from 1) of its standard error that contains `pattern`.
    #[track_caller]
    pub(crate) fn stderr_wait_nth(&self, pattern: &str, nth: usize) -> String {
        let mut from = 0;
        let mut found = String::new();
        for count in 1..=nth {
            let waited = self.stderr.wait_from(from, |line| line.contains(pattern));
            let why = |why| format!("wanted line {count} of {nth} with {pattern:?} on standard error: {why}");
            let (place, line) = waited.unwrap_or_else(|error: String| self.fail(&why(error)));
            from = place + 1;
            found = line;
        }
        found
    }

    /// Fails the test with everything the program has said.
    #[track_caller]
    pub(crate) fn fail(&self, what: &str) -> ! {
        panic!(
            "{} (pid {}): {what}\n--- its standard error:\n{}\n--- its standard output:\n{}\n---",
            self.name,
            self.pid,
            self.stderr.text(),
            self.stdout.text()
        )
    }
}

/// Waits without reaping, then reaps under the lock: a thread that holds the lock and sees no status has a pid that is
/// ours.
fn report_exit(pid: Pid, mut child: Child, exit: &Exit) {
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(nix::errno::Errno::EINTR) {}
    let mut status = exit.status.lock().unwrap_or_else(PoisonError::into_inner);
    // A failure to reap would mean that another thread had done so; the wait status 0xff00 stands for "unknown".
    *status = Some(child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0xff00)));
    exit.came.notify_all();
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_exit();
    }
}

#[test]
fn output_input_and_exit_of_a_program() {
    let mut program = Program::start(Command::new("sh").args(["-c", "read line; echo \"got $line\" >&2; exit 3"]));
    std::io::Write::write_all(program.stdin.as_mut().unwrap(), b"x\n").unwrap();
    assert_eq!(program.stderr_wait("got"), "got x");
    let (status, stdout, stderr) = program.finish();
    assert_eq!(
        (status.code(), stdout.as_str(), stderr.as_str()),
        (Some(3), "", "got x")
    );
    program.signal(Signal::SIGTERM);
}

#[test]
fn a_dropped_program_is_gone() {
    let program = Program::start(Command::new("sh").args(["-c", "echo up >&2; read never"]));
    program.stderr_wait("up");
    let pid = program.pid;
    drop(program);
    assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH));
}
