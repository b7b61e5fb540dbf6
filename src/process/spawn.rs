//! From a [`ProcessSpec`] to a running [`Child`].
//!
//! A [`Spawner`] is made once for a spec and used for every start of it: the program is found and every string laid out
//! beforehand, so that a start is a few system calls and almost no allocation. When the program's file has gone by the
//! time of a start (an upgrade moved it), it is looked up once more.
//!
//! The parent-death signal that a child is given is tied to the *thread* that started it (`PR_SET_PDEATHSIG(2const)`):
//! spawn from a thread that lives as long as the daemon.

use std::ffi::{CString, OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use mio::unix::pipe::{Receiver, Sender};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, getegid, geteuid, pipe2};

use super::child::{Child, PidFd};
use super::failure::{SpawnError, Step};
use super::limits::LimitSetting;
use super::plan::{Credentials, Plan};
use super::program::{Search, interpreter};
use super::spec::ProcessSpec;
use super::sys;
use super::terminal::open_terminal;

/// What every child of a daemon is given unless its spec says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpawnDefaults {
    /// The soft limit on open files: the `original` of an [`OpenFileLimit`](super::limits::OpenFileLimit). `None`: the
    /// daemon's present one.
    pub open_files: Option<u64>,
}

/// What one standard stream of a child is connected to.
#[derive(Debug)]
pub enum Stream {
    /// A pipe, whose other end is in the [`Child`].
    Pipe,
    /// `/dev/null`.
    Null,
    /// The daemon's own stream of the same number.
    Inherit,
    /// This descriptor.
    Descriptor(OwnedFd),
}

/// The standard streams of a child.
#[derive(Debug)]
pub struct Stdio {
    /// Standard input.
    pub stdin: Stream,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
}

impl Stdio {
    /// Three pipes.
    #[must_use]
    pub const fn piped() -> Self {
        Self {
            stdin: Stream::Pipe,
            stdout: Stream::Pipe,
            stderr: Stream::Pipe,
        }
    }
}

/// Starts one program, again and again.
#[derive(Debug)]
pub struct Spawner {
    search: Search,
    program: CString,
    argv: Vec<CString>,
    environment: Vec<CString>,
    nice: Option<i32>,
    limits: Vec<LimitSetting>,
    credentials: Option<Credentials>,
    directory: Option<CString>,
    terminal: bool,
    no_new_privileges: bool,
}

impl Spawner {
    /// Looks the program up and lays out all that its starts need. Reads the daemon's environment and limits as they
    /// are now.
    ///
    /// # Errors
    /// The program is not found or may not be run, or a string holds a NUL byte: see [`SpawnError`].
    pub fn prepare(spec: &ProcessSpec, defaults: &SpawnDefaults) -> Result<Self, SpawnError> {
        let fail = |step, errno| SpawnError::new(step, spec.program(), errno);
        let variables = spec.environment.resolve(std::env::vars_os());
        let search = Search {
            name: spec.program().to_owned(),
            path: variables.get(OsStr::new("PATH")).cloned(),
            directory: spec.working_directory.clone(),
        };
        let path = search.resolve().map_err(|errno| fail(Step::Lookup, errno))?;
        let argv = c_strings(spec.argv().iter().cloned());
        let environment = c_strings(variables.into_iter().map(|(name, value)| assignment(name, &value)));
        let directory = spec.working_directory.as_deref().map(c_path).transpose();
        let open_files = defaults.open_files;
        Ok(Self {
            search,
            program: c_path(&path).map_err(|errno| fail(Step::Arguments, errno))?,
            argv: argv.map_err(|errno| fail(Step::Arguments, errno))?,
            environment: environment.map_err(|errno| fail(Step::Arguments, errno))?,
            nice: spec.nice,
            limits: spec
                .limits
                .settings(open_files)
                .map_err(|errno| fail(Step::ReadLimits, errno))?,
            credentials: credentials(spec),
            directory: directory.map_err(|errno| fail(Step::Arguments, errno))?,
            terminal: spec.terminal,
            no_new_privileges: spec.no_new_privileges,
        })
    }

    /// The program as the operator wrote it.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.search.name
    }

    /// The file that is run.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.program.to_bytes()))
    }

    /// Starts the program. When this returns its exec has succeeded.
    ///
    /// Blocks for as long as the kernel takes over the exec, which is what any way of starting a program costs.
    ///
    /// # Errors
    /// The step that failed, with its errno: see [`SpawnError`]. No process is left behind.
    pub fn spawn(&mut self, stdio: Stdio) -> Result<Child, SpawnError> {
        let pipes_failed = |error: io::Error| SpawnError::new(Step::Pipes, &self.search.name, errno_of(&error));
        if self.terminal {
            return self.spawn_on_terminal(stdio.stderr);
        }
        let (child_stdin, stdin) = input(stdio.stdin).map_err(pipes_failed)?;
        let (child_stdout, stdout) = output(stdio.stdout, io::stdout()).map_err(pipes_failed)?;
        let (child_stderr, stderr) = output(stdio.stderr, io::stderr()).map_err(pipes_failed)?;
        let (pid, pidfd) = self.start([child_stdin.as_fd(), child_stdout.as_fd(), child_stderr.as_fd()])?;
        Ok(Child::new(pid, PidFd::new(pidfd), stdin, stdout, stderr))
    }

    /// The same with one side of a terminal for standard input and output; ours stands for both ends of the pipes.
    fn spawn_on_terminal(&mut self, stderr: Stream) -> Result<Child, SpawnError> {
        let fail = |step| move |name: &OsStr, errno| SpawnError::new(step, name, errno);
        let name = &self.search.name;
        let owner = self.credentials.as_ref().and_then(|credentials| credentials.user);
        let terminal = open_terminal(owner.map(Uid::from_raw)).map_err(|errno| fail(Step::Terminal)(name, errno))?;
        let (child_stderr, stderr) =
            output(stderr, io::stderr()).map_err(|error| fail(Step::Pipes)(name, errno_of(&error)))?;
        let ours = terminal.ours.try_clone();
        let ours = ours.map_err(|error| fail(Step::Terminal)(name, errno_of(&error)))?;
        let child = terminal.child.as_fd();
        let (pid, pidfd) = self.start([child, child, child_stderr.as_fd()])?;
        let (stdin, stdout) = (Sender::from(ours), Receiver::from(terminal.ours));
        let child = Child::new(pid, PidFd::new(pidfd), Some(stdin), Some(stdout), stderr);
        Ok(child.on_terminal())
    }

    fn start(&mut self, stdio: [BorrowedFd<'_>; 3]) -> Result<(nix::unistd::Pid, OwnedFd), SpawnError> {
        match sys::spawn(&self.plan(stdio)) {
            Ok(started) => Ok(started),
            Err((Step::Exec, Errno::ENOENT)) => {
                self.look_up_again()?;
                sys::spawn(&self.plan(stdio)).map_err(|failure| self.error(failure))
            }
            Err(failure) => Err(self.error(failure)),
        }
    }

    fn plan<'a>(&'a self, stdio: [BorrowedFd<'a>; 3]) -> Plan<'a> {
        Plan {
            program: &self.program,
            argv: &self.argv,
            environment: &self.environment,
            stdio,
            nice: self.nice,
            limits: &self.limits,
            credentials: self.credentials.as_ref(),
            directory: self.directory.as_deref(),
            terminal: self.terminal,
            no_new_privileges: self.no_new_privileges,
        }
    }

    fn look_up_again(&mut self) -> Result<(), SpawnError> {
        let path = self
            .search
            .resolve()
            .map_err(|errno| self.error((Step::Lookup, errno)))?;
        self.program = c_path(&path).map_err(|errno| self.error((Step::Arguments, errno)))?;
        Ok(())
    }

    /// "No such file" for a file that is there means its interpreter, which the kernel does not name.
    fn error(&self, (step, errno): sys::Failure) -> SpawnError {
        let mut error = SpawnError::new(step, self.name(), errno);
        if (step, errno) == (Step::Exec, Errno::ENOENT) {
            error.missing_interpreter = interpreter(&self.search.seen_from_here(self.path()));
        }
        error
    }
}

/// Becoming what one is already needs no privilege, unlike the calls for it: it is left out. So a configuration that
/// names a user also works in a daemon that was started as that user.
fn credentials(spec: &ProcessSpec) -> Option<Credentials> {
    let (own_user, own_group) = (geteuid(), getegid());
    let same_user = spec.user.is_none_or(|user| Uid::from_raw(user) == own_user);
    let same_group = spec.group.is_none_or(|group| Gid::from_raw(group) == own_group);
    let asked = spec.user.is_some() || spec.group.is_some();
    (asked && (own_user.is_root() || !same_user || !same_group)).then(|| Credentials {
        user: spec.user,
        group: spec.group,
        supplementary_groups: spec.supplementary_groups.clone(),
    })
}

fn assignment(name: OsString, value: &OsStr) -> OsString {
    let mut whole = name;
    whole.push("=");
    whole.push(value);
    whole
}

fn c_strings(strings: impl Iterator<Item = OsString>) -> Result<Vec<CString>, Errno> {
    strings
        .map(|string| CString::new(string.into_vec()).map_err(|_| Errno::EINVAL))
        .collect()
}

fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// The child's end of its standard input, and ours where it is a pipe.
fn input(stream: Stream) -> io::Result<(OwnedFd, Option<Sender>)> {
    if !matches!(stream, Stream::Pipe) {
        return Ok((existing(stream, io::stdin())?, None));
    }
    let (child, ours) = pipe2(OFlag::O_CLOEXEC)?;
    set_nonblocking(&ours)?;
    Ok((child, Some(Sender::from(ours))))
}

/// The child's end of its standard output or error, and ours where it is a pipe.
fn output(stream: Stream, own: impl AsFd) -> io::Result<(OwnedFd, Option<Receiver>)> {
    if !matches!(stream, Stream::Pipe) {
        return Ok((existing(stream, own)?, None));
    }
    let (ours, child) = pipe2(OFlag::O_CLOEXEC)?;
    set_nonblocking(&ours)?;
    Ok((child, Some(Receiver::from(ours))))
}

/// A stream that needs no pipe. `own` is the daemon's stream of the same number.
fn existing(stream: Stream, own: impl AsFd) -> io::Result<OwnedFd> {
    match stream {
        Stream::Descriptor(descriptor) => Ok(descriptor),
        Stream::Inherit => own.as_fd().try_clone_to_owned(),
        Stream::Null | Stream::Pipe => Ok(OpenOptions::new().read(true).write(true).open("/dev/null")?.into()),
    }
}

/// Our end alone: a stdio program expects its own to block. The two ends of a pipe have separate flags.
fn set_nonblocking(ours: &OwnedFd) -> io::Result<()> {
    // A fresh pipe end has no other status flag that setting this one could clear.
    fcntl(ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use nix::sys::signal::{SigSet, SigmaskHow, Signal};

    use super::super::spec::{Environment, EnvironmentBase};
    use super::super::testing::{self, output_of, read_line, shell, shell_spec, wait_readable};
    use super::*;

    fn prepare(argv: &[&str]) -> Result<Spawner, SpawnError> {
        let mut spec = ProcessSpec::new(argv.iter().map(Into::into).collect()).unwrap();
        // A directory that whoever runs the tests may not enter would be "permission denied".
        spec.environment.set.insert("PATH".into(), "/bin:/usr/bin".into());
        Spawner::prepare(&spec, &SpawnDefaults::default())
    }

    fn script(directory: &Path, text: &str) -> PathBuf {
        let path = directory.join("script");
        // Made by a child: were this process to hold it open for writing while another test spawns, its exec would find
        // it busy.
        let spec = shell_spec(&format!("printf '%s' '{text}' > {0}; chmod +x {0}", path.display()));
        output_of(&spec);
        path
    }

    #[test]
    fn arguments_and_streams_arrive() {
        let mut spawner = prepare(&[
            "sh",
            "-c",
            "read line; echo \"$line $1\"; echo complaint >&2",
            "sh",
            "a  b",
        ])
        .unwrap();
        for _ in 0..2 {
            let mut child = spawner.spawn(Stdio::piped()).unwrap();
            nix::unistd::write(child.stdin.as_ref().unwrap(), b"hello\n").unwrap();
            assert_eq!(testing::rest_of_output(&mut child), "hello a  b\n");
            child.stdout = child.stderr.take();
            assert_eq!(testing::rest_of_output(&mut child), "complaint\n");
            assert!(testing::wait(&mut child).success());
        }
    }

    #[test]
    fn a_missing_program_is_known_before_any_start() {
        let error = prepare(&["no-such-program", "x"]).unwrap_err();
        assert_eq!(
            (error.step, error.errno, error.program.as_os_str()),
            (Step::Lookup, Errno::ENOENT, OsStr::new("no-such-program"))
        );
        assert!(error.is_permanent());
        assert_eq!(prepare(&["/etc/passwd"]).unwrap_err().errno, Errno::EACCES);
        assert_eq!(prepare(&["/etc/passwd/x"]).unwrap_err().errno, Errno::ENOTDIR);
        assert_eq!(prepare(&["sh", "a\0b"]).unwrap_err().step, Step::Arguments);
    }

    #[test]
    fn a_failed_exec_is_an_error_with_its_errno_and_leaves_no_zombie() {
        let directory = tempfile::tempdir().unwrap();
        let path = script(directory.path(), "no program of this machine");
        let error = prepare(&[path.to_str().unwrap()])
            .unwrap()
            .spawn(Stdio::piped())
            .unwrap_err();
        assert_eq!((error.step, error.errno), (Step::Exec, Errno::ENOEXEC));
        assert_eq!(error.program, path);
    }

    #[test]
    fn a_missing_interpreter_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = script(directory.path(), "#!/no/such/perl -w\n");
        let error = prepare(&[path.to_str().unwrap()])
            .unwrap()
            .spawn(Stdio::piped())
            .unwrap_err();
        assert_eq!((error.step, error.errno), (Step::Exec, Errno::ENOENT));
        assert_eq!(error.missing_interpreter, Some("/no/such/perl".into()));
        assert!(error.is_permanent());
    }

    #[test]
    fn a_program_that_has_moved_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        for place in [&first, &second] {
            fs::create_dir(place).unwrap();
            std::os::unix::fs::symlink("/bin/true", place.join("tool")).unwrap();
        }
        let mut spec = ProcessSpec::new(vec!["tool".into()]).unwrap();
        let path = format!("{}:{}", first.display(), second.display());
        spec.environment.set.insert("PATH".into(), path.into());
        let mut spawner = Spawner::prepare(&spec, &SpawnDefaults::default()).unwrap();
        assert_eq!(spawner.path(), first.join("tool"));
        fs::remove_file(first.join("tool")).unwrap();
        assert!(testing::wait(&mut spawner.spawn(Stdio::piped()).unwrap()).success());
        assert_eq!(spawner.path(), second.join("tool"));
        fs::remove_file(second.join("tool")).unwrap();
        let error = spawner.spawn(Stdio::piped()).unwrap_err();
        assert_eq!((error.step, error.errno), (Step::Lookup, Errno::ENOENT));
    }

    #[test]
    fn a_child_has_three_descriptors_and_no_more() {
        // One without close-on-exec, as whoever started the daemon may have left it.
        let leaked = nix::unistd::dup(io::stdin()).unwrap();
        fcntl(&leaked, FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let last = std::os::fd::AsRawFd::as_raw_fd(&leaked) + 100;
        // Not a listing of the directory, which would itself need a descriptor.
        let script = format!("i=0; while [ $i -le {last} ]; do [ -e /proc/$$/fd/$i ] && echo $i; i=$((i+1)); done; :");
        assert_eq!(output_of(&shell_spec(&script)), "0\n1\n2\n");
    }

    #[test]
    fn streams_survive_any_order_of_source_descriptors() {
        let mut spawner = prepare(&["sh", "-c", "echo out; echo err >&2"]).unwrap();
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let both = write.try_clone().unwrap();
        let stdio = Stdio {
            stdin: Stream::Null,
            stdout: Stream::Descriptor(write),
            stderr: Stream::Descriptor(both),
        };
        let mut child = spawner.spawn(stdio).unwrap();
        child.stdout = Some(Receiver::from(read));
        assert_eq!(testing::rest_of_output(&mut child), "out\nerr\n");
        assert!(testing::wait(&mut child).success());
    }

    fn status_field(status: &str, field: &str) -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    }

    #[test]
    fn signals_are_as_a_new_program_expects_them() {
        // Rust ignores SIGPIPE already; a mask of this thread's must not be passed on either.
        let blocked = SigSet::from_iter([Signal::SIGUSR1, Signal::SIGTERM]);
        let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
        let mut spec = ProcessSpec::new(["cat", "/proc/self/status"].map(Into::into).to_vec()).unwrap();
        spec.no_new_privileges = true;
        let status = output_of(&spec);
        assert_eq!(
            SigSet::thread_get_mask().unwrap().iter().count(),
            2,
            "the parent's own mask is put back"
        );
        before.thread_set_mask().unwrap();
        for field in ["SigBlk", "SigIgn", "SigCgt", "SigPnd"] {
            assert_eq!(status_field(&status, field), 0, "{field}");
        }
        assert_eq!(status_field(&status, "NoNewPrivs"), 1);
    }

    #[test]
    fn each_child_leads_a_group_of_its_own() {
        let mut child = shell("cut -d' ' -f5 /proc/self/stat");
        assert_eq!(read_line(&mut child), child.pid().to_string());
        testing::wait(&mut child);
    }

    #[test]
    fn the_childs_environment_and_directory_are_its_own() {
        let mut spec = shell_spec("pwd; env | sort");
        spec.working_directory = Some("/usr".into());
        spec.environment = Environment {
            base: EnvironmentBase::Cleared,
            set: [("A".into(), "1".into()), ("PATH".into(), "/bin:/usr/bin".into())].into(),
            ..Default::default()
        };
        assert_eq!(output_of(&spec), "/usr\nA=1\nPATH=/bin:/usr/bin\nPWD=/usr\n");
        spec.working_directory = Some("/no/such/directory".into());
        let mut spawner = Spawner::prepare(&spec, &SpawnDefaults::default()).unwrap();
        let error = spawner.spawn(Stdio::piped()).unwrap_err();
        assert_eq!((error.step, error.errno), (Step::WorkingDirectory, Errno::ENOENT));
    }

    #[test]
    fn limits_and_niceness_are_set() {
        let mut spec = shell_spec("ulimit -v; ulimit -t; ulimit -n; nice");
        spec.limits.memory = Some(512 * 1024 * 1024);
        spec.limits.cpu_seconds = Some(77);
        spec.nice = Some(5);
        let defaults = SpawnDefaults { open_files: Some(111) };
        let output = |spec: &ProcessSpec| {
            let mut child = Spawner::prepare(spec, &defaults)
                .unwrap()
                .spawn(Stdio::piped())
                .unwrap();
            testing::rest_of_output(&mut child)
        };
        assert_eq!(output(&spec), "524288\n77\n111\n5\n");
        spec.limits.open_files = Some(99);
        assert_eq!(output(&spec), "524288\n77\n99\n5\n");
    }

    #[test]
    fn a_program_too_large_for_its_memory_limit_is_a_failure_at_its_start_or_its_death() {
        let mut spec = shell_spec("echo alive");
        spec.limits.memory = Some(4096);
        let mut spawner = Spawner::prepare(&spec, &SpawnDefaults::default()).unwrap();
        match spawner.spawn(Stdio::piped()) {
            Ok(mut child) => assert!(!testing::wait(&mut child).success()),
            Err(error) => assert_eq!((error.step, error.errno), (Step::Exec, Errno::ENOMEM)),
        }
    }

    #[test]
    fn credentials_are_all_changed_or_refused() {
        let mut spec = shell_spec("id -u; id -g; id -G; cut -d' ' -f4 /proc/self/stat");
        (spec.user, spec.group, spec.supplementary_groups) = (Some(65534), Some(65533), vec![65532]);
        let mut spawner = Spawner::prepare(&spec, &SpawnDefaults::default()).unwrap();
        match spawner.spawn(Stdio::piped()) {
            Ok(mut child) => {
                assert!(geteuid().is_root());
                assert_eq!(read_line(&mut child), "65534");
                assert_eq!(read_line(&mut child), "65533");
                assert_eq!(read_line(&mut child), "65533 65532");
                testing::wait(&mut child);
                assert!(geteuid().is_root(), "the daemon itself keeps its user");
            }
            Err(error) => {
                assert!(!geteuid().is_root());
                assert_eq!((error.step, error.errno), (Step::SupplementaryGroups, Errno::EPERM));
            }
        }
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let mut child = std::thread::spawn(|| shell("read end")).join().unwrap();
        wait_readable(child.pidfd());
        assert_eq!(testing::wait(&mut child).to_string(), "signal 9 (SIGKILL)");
    }

    #[test]
    fn the_guarding_signal_outlives_a_change_of_user() {
        let mut spec = shell_spec("read end");
        if geteuid().is_root() {
            (spec.user, spec.group) = (Some(65534), Some(65534));
        } else {
            (spec.user, spec.group) = (Some(geteuid().as_raw()), Some(getegid().as_raw()));
        }
        let mut child = std::thread::spawn(move || testing::start(&spec)).join().unwrap();
        assert_eq!(testing::wait(&mut child).to_string(), "signal 9 (SIGKILL)");
    }

    #[test]
    fn many_threads_may_spawn_at_once() {
        let spawn_some = || {
            let mut spawner = prepare(&["echo", "x"]).unwrap();
            for _ in 0..50 {
                assert_eq!(
                    testing::rest_of_output(&mut spawner.spawn(Stdio::piped()).unwrap()),
                    "x\n"
                );
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(spawn_some);
            }
        });
    }

    #[test]
    fn a_program_that_the_childs_user_may_not_run_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = script(directory.path(), "#!/bin/sh\n");
        let root = geteuid().is_root();
        let mode = if root { 0o700 } else { 0o600 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let mut spec = ProcessSpec::new(vec![path.into()]).unwrap();
        if root {
            (spec.user, spec.group) = (Some(65534), Some(65534));
        }
        let prepared = Spawner::prepare(&spec, &SpawnDefaults::default());
        let error = prepared
            .and_then(|mut spawner| spawner.spawn(Stdio::piped()))
            .unwrap_err();
        // Root may run it, so only the exec of the child's own user can tell; anybody else is told before.
        let step = if root { Step::Exec } else { Step::Lookup };
        assert_eq!((error.step, error.errno), (step, Errno::EACCES));
    }
}
