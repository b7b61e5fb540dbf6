//! The start of a program: from a [`ProcessSpec`], or from a [`SpawnContext`] and a command, to a running [`Child`].
//!
//! A [`Spawner`] is made once for a [`SpawnContext`] and starts any command in it. Everything that does not depend on
//! the command is prepared, so that a start is a few system calls and almost no allocation. A [`PreparedProgram`] is a
//! spawner with one command, whose program has been looked up.
//!
//! **Which file is run.** Usually the child finds it at each start, by its PATH and with its rights
//! ([`Spawner::named`]). A caller that must know the file before the start calls [`Spawner::find`]; then
//! [`Spawner::spawn_program`] runs exactly that path. A caller that decides by the path whether the file may be run
//! needs [`find_real`](Spawner::find_real). That path holds no symbolic link, so a user without write access to its
//! directories cannot put another file in its place between the decision and the start. The decision does not cover
//! what the program runs by itself, above all the interpreter of a script.
//!
//! The parent-death signal of a child is tied to the *thread* that started it (`PR_SET_PDEATHSIG(2const)`): children
//! must be started by a thread that lives as long as the daemon.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use mio::unix::pipe::{Receiver, Sender};
use nix::errno::Errno;
use nix::unistd::{Gid, Pid, Uid, getegid, geteuid, getpid};

use super::child::{Child, PidFd};
use super::failure::{Cause, SpawnError, Step};
use super::limits::LimitSetting;
use super::plan::{Credentials, Plan};
use super::program::{Finder, Lookup, Program, Search, errno_of, interpreter};
use super::sandbox;
use super::signs;
use super::spec::{Command, ProcessSpec, SpawnContext, tells_of_a_client};
use super::stdio::{ChildEnds, ConnectedStdio, Owner, errors};
pub use super::stdio::{Stdio, Stream};
use super::strings::Strings;
use super::sys::{self, ChildStack, Detail, SignalBits};
use super::terminal::open_terminal;
use super::watch_list::{Registration, WatchList};
use super::watchdog::Watchdog;

/// The settings of every child of a daemon, which its spec may override.
#[derive(Debug, Clone, Default)]
pub struct SpawnDefaults {
    /// The soft limit on open files, which is the `original` of an [`OpenFileLimit`](super::limits::OpenFileLimit);
    /// `None` for the daemon's present one.
    pub open_files: Option<u64>,
    /// The list on which each child is registered while it lives.
    pub watch_list: WatchList,
    /// The watchdog over starts.
    pub watchdog: Watchdog,
}

/// Looks the program of a process up, by the PATH and with the rights that the process would have.
///
/// # Errors
/// The reason why the program could not be started.
pub fn look_up(spec: &ProcessSpec) -> Result<(), SpawnError> {
    let name = spec.command.program();
    let spawner = Spawner::new(&spec.context, &SpawnDefaults::default());
    spawner.map_err(|error| error.of_program(name))?.find(name).map(drop)
}

/// Checks that a process could read a file with the rights that it would have. Waits for the file system. A relative
/// path begins in the daemon's directory.
///
/// # Errors
/// The error of reading. A process whose start cannot be prepared causes no error here.
pub fn may_read(spec: &ProcessSpec, file: &Path) -> Result<(), Errno> {
    match Spawner::new(&spec.context, &SpawnDefaults::default()) {
        Ok(spawner) => spawner.finder.may_read(file),
        Err(_) => Ok(()),
    }
}

/// Starts any program in one context.
#[derive(Debug)]
pub struct Spawner {
    /// This process, the parent of every child.
    daemon: Pid,
    finder: Finder,
    environment: Vec<CString>,
    /// The variables of the environment that those of a client replace.
    about_clients: Vec<CString>,
    signals: SignalBits,
    nice: Option<i32>,
    limits: Vec<LimitSetting>,
    directory: Option<CString>,
    terminal: bool,
    no_new_privileges: bool,
    leave_background: bool,
    /// The rules of the sandbox.
    sandbox: Option<OwnedFd>,
    watch_list: WatchList,
    /// The stack of a child until its exec. All children use it, one after another.
    stack: ChildStack,
    watchdog: Watchdog,
}

impl Spawner {
    /// Prepares everything that the context says. Reads the daemon's environment, limits and signal dispositions as
    /// they are now: a handler that is installed later would not be reset in its children.
    ///
    /// # Errors
    /// A string holds a NUL byte, the daemon's limits cannot be read, or the sandbox cannot be made: see
    /// [`SpawnError`].
    pub fn new(context: &SpawnContext, defaults: &SpawnDefaults) -> Result<Self, SpawnError> {
        let fail = |step| move |errno| SpawnError::of_context(step, errno);
        let mut variables = context.environment.resolve(std::env::vars_os());
        // Each child is given one of its own.
        variables.remove(OsStr::new(signs::VARIABLE));
        let search = Search {
            path: variables.get(OsStr::new("PATH")).cloned(),
            directory: context.working_directory.clone(),
        };
        let (about_clients, others): (Vec<_>, Vec<_>) =
            variables.into_iter().partition(|(name, _)| tells_of_a_client(name));
        let directory = context.working_directory.clone().map(PathBuf::into_os_string);
        let limits = context.limits.settings(defaults.open_files);
        let rules = |sandbox| sandbox::rules(sandbox, context.terminal);
        let sandbox = context.sandbox.as_ref().map(rules).transpose();
        Ok(Self {
            daemon: getpid(),
            finder: Finder {
                search,
                credentials: credentials(context),
            },
            signals: SignalBits::with_dispositions(),
            environment: assignments(others).map_err(fail(Step::Arguments))?,
            about_clients: assignments(about_clients).map_err(fail(Step::Arguments))?,
            nice: context.nice,
            limits: limits.map_err(fail(Step::ReadLimits))?,
            directory: directory.map(c_string).transpose().map_err(fail(Step::Arguments))?,
            terminal: context.terminal,
            no_new_privileges: context.no_new_privileges || context.sandbox.is_some(),
            leave_background: context.leave_background,
            sandbox: sandbox.map_err(SpawnError::of_sandbox)?,
            watch_list: defaults.watch_list.clone(),
            stack: ChildStack::map().map_err(fail(Step::NewProcess))?,
            watchdog: defaults.watchdog.clone(),
        })
    }

    /// Returns a program that the child finds by its PATH, from its directory and with its rights. Does not touch the
    /// file system.
    ///
    /// # Errors
    /// The name holds a NUL byte, at [`Step::Arguments`].
    pub fn named(&self, name: &OsStr) -> Result<Program, SpawnError> {
        let candidates = self.finder.search.candidates(name);
        let candidates = candidates.map_err(|errno| SpawnError::new(Step::Arguments, name, errno))?;
        Ok(Program::new(name, candidates))
    }

    /// Returns a value that looks names up as [`find`](Self::find) and [`find_real`](Self::find_real) do, on any
    /// thread, because that waits for the file system.
    #[must_use]
    pub fn lookup(&self) -> Lookup {
        Lookup::new(self.finder.clone())
    }

    /// Finds the file that a name means, by the child's PATH, from its directory and with its rights. Waits for the
    /// file system.
    ///
    /// # Errors
    /// There is no such file, or none that may be run, at [`Step::Lookup`].
    pub fn find(&self, name: &OsStr) -> Result<Program, SpawnError> {
        let path = self.finder.resolve(name);
        Program::found(name, &path.map_err(|errno| SpawnError::new(Step::Lookup, name, errno))?)
    }

    /// Finds the same file by its real path: absolute, and without symbolic links. A script that is run by this path
    /// has it as its `$0`.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_real(&self, name: &OsStr) -> Result<Program, SpawnError> {
        let path = self.finder.resolve_links(name);
        Program::found(name, &path.map_err(|errno| SpawnError::new(Step::Lookup, name, errno))?)
    }

    /// Starts a command whose program the child finds; see [`spawn_program`](Self::spawn_program).
    ///
    /// # Errors
    /// Those of [`named`](Self::named) and [`spawn_program`](Self::spawn_program).
    pub fn spawn(&mut self, command: &Command, stdio: Stdio) -> Result<Child, SpawnError> {
        let program = self.named(command.program())?;
        self.spawn_program(&program, command.argv(), &command.client_variables, stdio)
    }

    /// Starts a program that was named or found by this spawner. When this returns, its exec has succeeded.
    /// `client_variables` are those of a [`Command`].
    ///
    /// Blocks until the exec, as any way to start a program does, but no longer than the [watchdog](super::watchdog)
    /// allows.
    ///
    /// # Errors
    /// The step that failed, with its errno: see [`SpawnError`]. No process is left behind.
    pub fn spawn_program<'w>(
        &mut self,
        program: &Program,
        argv: impl Iterator<Item = &'w OsStr> + Clone,
        client_variables: &Strings,
        stdio: Stdio,
    ) -> Result<Child, SpawnError> {
        let argv = strings(argv).map_err(|errno| SpawnError::new(Step::Arguments, program.name(), errno))?;
        let streams = self.connect(program, stdio)?;
        let started = self.start(program, &argv, client_variables, &streams.child_ends);
        let started = started.map_err(|refusal| self.error(program, &refusal))?;
        Ok(self.child(started, streams))
    }

    /// Opens both ends of the streams: pipes, or for standard input and output a terminal, whose daemon's side takes
    /// the place of both pipe ends.
    fn connect(&self, program: &Program, stdio: Stdio) -> Result<ConnectedStdio, SpawnError> {
        let fail = |step| move |error: &io::Error| SpawnError::new(step, program.name(), errno_of(error));
        let owner = self.finder.credentials.as_ref().and_then(Owner::of);
        if !self.terminal {
            return stdio.connect(owner).map_err(|error| fail(Step::Pipes)(&error));
        }
        let user = owner.map(|owner| owner.user);
        let terminal = open_terminal(user).map_err(|errno| fail(Step::Terminal)(&errno.into()))?;
        let (their_stderr, stderr) = errors(stdio.stderr, owner).map_err(|error| fail(Step::Pipes)(&error))?;
        let ours = terminal.ours.try_clone();
        let ours = ours.map_err(|error| fail(Step::Terminal)(&error))?;
        let child_ends = ChildEnds {
            stdin: terminal.child,
            stdout: None,
            stderr: their_stderr,
        };
        Ok(ConnectedStdio {
            child_ends,
            stdin: Some(Sender::from(ours)),
            stdout: Some(Receiver::from(terminal.ours)),
            stderr,
        })
    }

    fn start(
        &mut self,
        program: &Program,
        argv: &Strings,
        client_variables: &Strings,
        streams: &ChildEnds,
    ) -> Result<Started, sys::Refusal> {
        let (registration, entrance) = self.watch_list.register(!self.leave_background);
        let sign = registration.sign();
        let plan = Plan {
            program: program.candidates(),
            parent: self.daemon,
            argv,
            environment: &self.environment,
            about_clients: &self.about_clients,
            signals: self.signals,
            client_variables,
            sign: &sign,
            stdio: streams.in_order(),
            nice: self.nice,
            limits: &self.limits,
            credentials: self.finder.credentials.as_ref(),
            directory: self.directory.as_deref(),
            terminal: self.terminal,
            no_new_privileges: self.no_new_privileges,
            sandbox: self.sandbox.as_ref().map(AsFd::as_fd),
            entrance: entrance.as_ref(),
            watch_list: self.watch_list.table(),
        };
        let (pid, pidfd) = sys::spawn(&plan, &mut self.stack, &self.watchdog)?;
        if let Some(entrance) = &entrance {
            self.watch_list.record_refusal(entrance);
        }
        Ok(Started {
            pid,
            pidfd,
            registration,
        })
    }

    fn child(&self, started: Started, streams: ConnectedStdio) -> Child {
        let Started {
            pid,
            pidfd,
            registration,
        } = started;
        let ConnectedStdio {
            stdin, stdout, stderr, ..
        } = streams;
        let child = Child::new(pid, PidFd::new(pidfd), registration, stdin, stdout, stderr);
        let child = if self.terminal { child.on_terminal() } else { child };
        if self.leave_background {
            child.leaving_background()
        } else {
            child
        }
    }

    /// Adds the cause to an error. "No such file" for a file that exists means its interpreter, which the kernel does
    /// not name, and "permission denied" may come from the sandbox.
    fn error(&self, program: &Program, refusal: &sys::Refusal) -> SpawnError {
        let mut error = SpawnError::new(refusal.step, program.name(), refusal.errno);
        error.cause = match (&refusal.detail, refusal.step, refusal.errno) {
            (Detail::Stuck, ..) => Some(Cause::Stuck),
            (Detail::Script(beginning), ..) => interpreter(beginning).map(Cause::MissingInterpreter),
            (_, Step::Exec | Step::Lookup, Errno::EACCES) => self.sandbox.is_some().then_some(Cause::InSandbox),
            _ => None,
        };
        error
    }
}

/// A child whose exec has succeeded.
struct Started {
    pid: Pid,
    pidfd: OwnedFd,
    registration: Registration,
}

/// Starts one program any number of times.
#[derive(Debug)]
pub struct PreparedProgram {
    spawner: Spawner,
    program: Program,
    argv: Strings,
}

impl PreparedProgram {
    /// Looks the program up and prepares everything that its starts need. Reads the daemon's environment and limits as
    /// they are now.
    ///
    /// # Errors
    /// The program is not found or may not be run, or a string holds a NUL byte: see [`SpawnError`].
    pub fn prepare(spec: &ProcessSpec, defaults: &SpawnDefaults) -> Result<Self, SpawnError> {
        let name = spec.command.program();
        let spawner = Spawner::new(&spec.context, defaults).map_err(|error| error.of_program(name))?;
        spawner.find(name)?;
        Ok(Self {
            program: spawner.named(name)?,
            argv: strings(spec.command.argv()).map_err(|errno| SpawnError::new(Step::Arguments, name, errno))?,
            spawner,
        })
    }

    /// Returns the program's name as the operator wrote it.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        self.program.name()
    }

    /// Starts the program. When this returns, its exec has succeeded.
    ///
    /// Blocks until the exec, as any way to start a program does, but no longer than the [watchdog](super::watchdog)
    /// allows.
    ///
    /// # Errors
    /// The step that failed, with its errno: see [`SpawnError`]. No process is left behind.
    pub fn spawn(&mut self, stdio: Stdio) -> Result<Child, SpawnError> {
        let streams = self.spawner.connect(&self.program, stdio)?;
        let started = self
            .spawner
            .start(&self.program, &self.argv, &Strings::default(), &streams.child_ends);
        let started = started.map_err(|refusal| self.spawner.error(&self.program, &refusal))?;
        Ok(self.spawner.child(started, streams))
    }
}

/// Returns the user and group to change to, or `None` if the daemon has these already. The change would need a
/// privilege even then, so it is left out, and a configuration that names a user also works in a daemon that was
/// started as that user.
fn credentials(context: &SpawnContext) -> Option<Credentials> {
    let SpawnContext { user, group, .. } = *context;
    let (own_user, own_group) = (geteuid(), getegid());
    let same_user = user.is_none_or(|user| Uid::from_raw(user) == own_user);
    let same_group = group.is_none_or(|group| Gid::from_raw(group) == own_group);
    let asked = user.is_some() || group.is_some();
    (asked && (own_user.is_root() || !same_user || !same_group)).then(|| Credentials {
        user,
        group,
        supplementary_groups: context.supplementary_groups.clone(),
    })
}

fn strings<'w>(words: impl Iterator<Item = &'w OsStr> + Clone) -> Result<Strings, Errno> {
    let mut strings = Strings::with_capacity(words.clone().map(|word| word.len() + 1).sum());
    words.map(OsStr::as_bytes).try_for_each(|word| strings.push(&[word]))?;
    Ok(strings)
}

fn assignments(variables: Vec<(OsString, OsString)>) -> Result<Vec<CString>, Errno> {
    let whole = variables.into_iter().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        c_string(name)
    });
    whole.collect()
}

fn c_string(string: OsString) -> Result<CString, Errno> {
    CString::new(string.into_vec()).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::signal::{SigSet, SigmaskHow, Signal};
    use nix::unistd::pipe2;

    use super::super::spec::{Environment, EnvironmentBase};
    use super::super::testing::{self, output_of, read_line, shell, shell_spec, wait_readable};
    use super::*;

    fn prepare(argv: &[&str]) -> Result<PreparedProgram, SpawnError> {
        let mut spec = ProcessSpec::new(argv.iter().map(Into::into).collect()).unwrap();
        // A directory that the user of the tests may not search would be "permission denied".
        spec.context
            .environment
            .set
            .insert("PATH".into(), "/bin:/usr/bin".into());
        PreparedProgram::prepare(&spec, &SpawnDefaults::default())
    }

    fn script(directory: &Path, text: &str) -> PathBuf {
        let path = directory.join("script");
        // A child writes the script: if this process held it open for writing while another test spawns, its exec would
        // find it busy.
        let spec = shell_spec(&format!("printf '%s' '{text}' > {0}; chmod +x {0}", path.display()));
        output_of(&spec);
        path
    }

    #[test]
    fn arguments_and_streams_arrive() {
        let mut program = prepare(&[
            "sh",
            "-c",
            "read line; echo \"$line $1\"; echo complaint >&2",
            "sh",
            "a  b",
        ])
        .unwrap();
        for _ in 0..2 {
            let mut child = program.spawn(Stdio::piped()).unwrap();
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
            (error.step, error.errno, error.program.as_deref()),
            (Step::Lookup, Errno::ENOENT, Some(OsStr::new("no-such-program")))
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
        assert_eq!(error.program, Some(path.into()));
    }

    /// Two directories of PATH with the same tool, which prints its path. The child may not search the first one.
    fn behind_a_closed_door(names: [&str; 2]) -> (tempfile::TempDir, ProcessSpec) {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let directories = ["closed", "open"].map(|name| root.path().join(name));
        for (directory, name) in directories.iter().zip(names) {
            fs::create_dir(directory).unwrap();
            fs::rename(script(root.path(), "#!/bin/sh\necho $0"), directory.join(name)).unwrap();
        }
        let closed = if geteuid().is_root() { 0o700 } else { 0 };
        fs::set_permissions(&directories[0], fs::Permissions::from_mode(closed)).unwrap();
        let mut spec = ProcessSpec::new(vec!["tool".into()]).unwrap();
        let path = directories
            .map(|directory| directory.into_os_string().into_string().unwrap())
            .join(":");
        spec.context.environment.set.insert("PATH".into(), path.into());
        if geteuid().is_root() {
            (spec.context.user, spec.context.group) = (Some(65534), Some(65534));
        }
        (root, spec)
    }

    #[test]
    fn a_directory_that_the_child_may_not_search_is_passed_over() {
        let (root, spec) = behind_a_closed_door(["tool", "tool"]);
        let real = fs::canonicalize(root.path()).unwrap().join("open/tool");
        assert_eq!(output_of(&spec), format!("{}/open/tool\n", root.path().display()));
        let spawner = Spawner::new(&spec.context, &SpawnDefaults::default()).unwrap();
        let name = spec.command.program();
        assert_eq!(spawner.find(name).unwrap().path(), root.path().join("open/tool"));
        assert_eq!(spawner.find_real(name).unwrap().path(), real);
        assert!(geteuid() == nix::unistd::getuid() && fs::read_dir(root.path().join("open")).is_ok());
    }

    #[test]
    fn a_program_that_may_lie_where_the_child_may_not_look_is_denied_and_not_missing() {
        let (_root, spec) = behind_a_closed_door(["tool", "other"]);
        let mut spawner = Spawner::new(&spec.context, &SpawnDefaults::default()).unwrap();
        let error = spawner.spawn(&spec.command, Stdio::piped()).unwrap_err();
        assert_eq!((error.step, error.errno), (Step::Lookup, Errno::EACCES));
        assert_eq!(spawner.find(spec.command.program()).unwrap_err().errno, Errno::EACCES);
    }

    /// The look-up leaves the thread as it was: it may do what it could before, and dies with its parent as before.
    #[test]
    fn looking_with_the_rights_of_a_child_changes_nothing_of_the_daemon() {
        let (root, spec) = behind_a_closed_door(["tool", "tool"]);
        let thread = || {
            let groups: Vec<_> = nix::unistd::getgroups().unwrap();
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let of_rights = |line: &&str| ["Uid", "Gid", "Groups", "Cap"].iter().any(|key| line.starts_with(key));
            let rights: Vec<_> = status.lines().filter(of_rights).map(str::to_owned).collect();
            (groups, rights, nix::sys::prctl::get_pdeathsig().unwrap())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                nix::sys::prctl::set_pdeathsig(Some(Signal::SIGUSR1)).unwrap();
                let before = thread();
                let spawner = Spawner::new(&spec.context, &SpawnDefaults::default()).unwrap();
                spawner.find(spec.command.program()).unwrap();
                assert_eq!(thread(), before);
                nix::sys::prctl::set_pdeathsig(None).unwrap();
                assert_eq!(fs::read_dir(root.path().join("closed")).is_ok(), geteuid().is_root());
            });
        });
    }

    /// A search that takes long enough for another process to intervene.
    fn long_search() -> ProcessSpec {
        let mut spec = ProcessSpec::new(vec!["true".into()]).unwrap();
        let path = format!("{}/bin:/usr/bin", "/no/such/directory:".repeat(20_000));
        spec.context.environment = Environment {
            base: EnvironmentBase::Cleared,
            ..Default::default()
        };
        spec.context.environment.set.insert("PATH".into(), path.into());
        spec
    }

    #[test]
    fn a_child_that_is_stopped_before_its_exec_is_killed_and_the_next_one_runs() {
        let mut spec = long_search();
        // A PATH of two megabytes is too long for a program, so it is searched and not passed on.
        let path = spec.context.environment.set.remove(OsStr::new("PATH"));
        let mut spawner = Spawner::new(&spec.context, &SpawnDefaults::default()).unwrap();
        spawner.finder.search.path = path;
        let (done, is_done) = (AtomicBool::new(false), std::sync::mpsc::channel());
        let thread = nix::unistd::gettid();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The only child of that thread, as soon as there is one.
                let children = format!("/proc/self/task/{thread}/children");
                while !done.load(Ordering::Relaxed) {
                    let found = fs::read_to_string(&children).unwrap_or_default();
                    if let Some(child) = found.split(' ').next().and_then(|pid| pid.parse().ok()) {
                        let _ = nix::sys::signal::kill(Pid::from_raw(child), Signal::SIGSTOP);
                    }
                }
                is_done.0.send(()).unwrap();
            });
            let error = loop {
                // The thread that stops it may have been late. The next child is the only one again.
                match spawner.spawn(&spec.command, Stdio::piped()) {
                    Ok(mut child) => assert!(testing::wait(&mut child).success()),
                    Err(error) => break error,
                }
            };
            done.store(true, Ordering::Relaxed);
            assert_eq!(
                (error.cause.as_ref(), error.errno),
                (Some(&Cause::Stuck), Errno::ETIMEDOUT),
                "{error}"
            );
            assert!(!error.is_permanent());
            is_done.1.recv().unwrap();
            let mut child = spawner.spawn(&spec.command, Stdio::piped()).unwrap();
            assert!(testing::wait(&mut child).success());
        });
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
        assert_eq!(error.cause, Some(Cause::MissingInterpreter("/no/such/perl".into())));
        assert!(error.is_permanent());
    }

    #[test]
    fn a_program_that_has_moved_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        for directory in [&first, &second] {
            fs::create_dir(directory).unwrap();
            symlink("/bin/true", directory.join("tool")).unwrap();
        }
        let mut spec = ProcessSpec::new(vec!["tool".into()]).unwrap();
        let path = format!("{}:{}", first.display(), second.display());
        spec.context.environment.set.insert("PATH".into(), path.into());
        let mut program = PreparedProgram::prepare(&spec, &SpawnDefaults::default()).unwrap();
        assert!(testing::wait(&mut program.spawn(Stdio::piped()).unwrap()).success());
        fs::remove_file(first.join("tool")).unwrap();
        assert!(testing::wait(&mut program.spawn(Stdio::piped()).unwrap()).success());
        fs::remove_file(second.join("tool")).unwrap();
        let error = program.spawn(Stdio::piped()).unwrap_err();
        assert_eq!((error.step, error.errno), (Step::Lookup, Errno::ENOENT));
    }

    #[test]
    fn a_child_has_three_descriptors_and_no_more() {
        // A descriptor without close-on-exec, as the process that started the daemon may have left one.
        let leaked = nix::unistd::dup(io::stdin()).unwrap();
        fcntl(&leaked, FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let last = std::os::fd::AsRawFd::as_raw_fd(&leaked) + 100;
        // A listing of the directory would itself need a descriptor.
        let script = format!("i=0; while [ $i -le {last} ]; do [ -e /proc/$$/fd/$i ] && echo $i; i=$((i+1)); done; :");
        assert_eq!(output_of(&shell_spec(&script)), "0\n1\n2\n");
    }

    #[test]
    fn streams_survive_any_order_of_source_descriptors() {
        let mut program = prepare(&["sh", "-c", "echo out; echo err >&2"]).unwrap();
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let both = write.try_clone().unwrap();
        let stdio = Stdio {
            stdin: Stream::Null,
            stdout: Stream::Descriptor(write),
            stderr: Stream::Descriptor(both),
        };
        let mut child = program.spawn(stdio).unwrap();
        child.stdout = Some(Receiver::from(read));
        assert_eq!(testing::rest_of_output(&mut child), "out\nerr\n");
        assert!(testing::wait(&mut child).success());
    }

    #[test]
    fn standard_error_in_the_pipe_of_standard_output_keeps_its_place() {
        for terminal in [false, true] {
            let mut spec = shell_spec("echo 1; echo 2 >&2; echo 3; echo 4 >&2; read end");
            spec.context.terminal = terminal;
            let mut program = PreparedProgram::prepare(&spec, &SpawnDefaults::default()).unwrap();
            let stdio = Stdio {
                stderr: Stream::SameAsOutput,
                ..Stdio::piped()
            };
            let mut child = program.spawn(stdio).unwrap();
            assert!(child.stderr.is_none());
            let lines: Vec<_> = (0..4).map(|_| read_line(&mut child)).collect();
            assert_eq!(lines, ["1", "2", "3", "4"], "terminal: {terminal}");
        }
        let stdio = Stdio {
            stdout: Stream::SameAsOutput,
            ..Stdio::piped()
        };
        let error = prepare(&["true"]).unwrap().spawn(stdio).unwrap_err();
        assert_eq!((error.step, error.errno), (Step::Pipes, Errno::EINVAL));
    }

    fn command(words: &[&str]) -> Command {
        Command::new(words.iter().map(Into::into).collect()).unwrap()
    }

    #[test]
    fn a_spawner_starts_any_program_in_its_context() {
        let mut context = SpawnContext::default();
        context.environment.set.insert("WHERE".into(), "here".into());
        context.working_directory = Some("/usr".into());
        let mut spawner = Spawner::new(&context, &SpawnDefaults::default()).unwrap();
        for (words, output) in [
            (&["pwd"][..], "/usr\n"),
            (&["printenv", "WHERE"], "here\n"),
            (&["sh", "-c", "echo $WHERE $0", "x"], "here x\n"),
        ] {
            let mut child = spawner.spawn(&command(words), Stdio::piped()).unwrap();
            assert_eq!(testing::rest_of_output(&mut child), output);
            assert!(testing::wait(&mut child).success());
        }
        let error = spawner
            .spawn(&command(&["no-such-program"]), Stdio::piped())
            .unwrap_err();
        assert_eq!((error.step, error.errno), (Step::Lookup, Errno::ENOENT));
        let error = spawner.spawn(&command(&["true", "a\0b"]), Stdio::piped()).unwrap_err();
        assert_eq!((error.step, error.errno), (Step::Arguments, Errno::EINVAL));
    }

    #[test]
    fn a_context_that_no_program_can_be_given_is_known_before_any_start() {
        let mut context = SpawnContext::default();
        context.environment.set.insert("A".into(), "1\0".into());
        let error = Spawner::new(&context, &SpawnDefaults::default()).unwrap_err();
        assert_eq!((error.step, error.program), (Step::Arguments, None));
    }

    #[test]
    fn a_program_may_be_given_another_argv0() {
        let mut spawner = Spawner::new(&SpawnContext::default(), &SpawnDefaults::default()).unwrap();
        let mut command = command(&["sh", "-c", "echo $0"]);
        command.argv0 = Some("greeting".into());
        let mut child = spawner.spawn(&command, Stdio::piped()).unwrap();
        assert_eq!(testing::rest_of_output(&mut child), "greeting\n");
    }

    #[test]
    fn the_file_that_was_found_is_the_one_that_is_run() {
        let directory = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(directory.path()).unwrap().join("script");
        script(directory.path(), "#!/bin/sh\necho $0");
        let link = directory.path().join("link");
        symlink("script", &link).unwrap();
        let mut spawner = Spawner::new(&SpawnContext::default(), &SpawnDefaults::default()).unwrap();
        let by_link = spawner.find(link.as_os_str()).unwrap();
        assert_eq!((by_link.name(), by_link.path()), (link.as_os_str(), link.as_path()));
        let by_itself = spawner.find_real(link.as_os_str()).unwrap();
        assert_eq!((by_itself.name(), by_itself.path()), (link.as_os_str(), real.as_path()));
        let command = command(&[link.to_str().unwrap()]);
        // A later change of the link has no effect on a program that was found without it.
        fs::remove_file(&link).unwrap();
        symlink("/bin/false", &link).unwrap();
        let mut child = spawner
            .spawn_program(&by_itself, command.argv(), &Strings::default(), Stdio::piped())
            .unwrap();
        assert_eq!(testing::rest_of_output(&mut child), format!("{}\n", real.display()));
        let mut child = spawner
            .spawn_program(&by_link, command.argv(), &Strings::default(), Stdio::piped())
            .unwrap();
        assert!(!testing::wait(&mut child).success());
    }

    fn status_field(status: &str, field: &str) -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    }

    #[test]
    fn signals_are_as_a_new_program_expects_them() {
        // Rust ignores SIGPIPE already. A signal mask of this thread must not be inherited either.
        let blocked = SigSet::from_iter([Signal::SIGUSR1, Signal::SIGTERM]);
        let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
        let mut spec = ProcessSpec::new(["cat", "/proc/self/status"].map(Into::into).to_vec()).unwrap();
        spec.context.no_new_privileges = true;
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
    fn each_child_leads_a_group_and_a_session_of_its_own() {
        let mut child = shell("cut -d' ' -f5,6 /proc/$$/stat");
        assert_eq!(read_line(&mut child), format!("{0} {0}", child.pid()));
        testing::wait(&mut child);
    }

    #[test]
    fn the_childs_environment_and_directory_are_its_own() {
        let mut spec = shell_spec("pwd; env | sort");
        spec.context.working_directory = Some("/usr".into());
        spec.context.environment = Environment {
            base: EnvironmentBase::Cleared,
            set: [("A".into(), "1".into()), ("PATH".into(), "/bin:/usr/bin".into())].into(),
            ..Default::default()
        };
        assert_eq!(output_of(&spec), "/usr\nA=1\nPATH=/bin:/usr/bin\nPWD=/usr\n");
        spec.context.working_directory = Some("/no/such/directory".into());
        let mut program = PreparedProgram::prepare(&spec, &SpawnDefaults::default()).unwrap();
        let error = program.spawn(Stdio::piped()).unwrap_err();
        assert_eq!((error.step, error.errno), (Step::WorkingDirectory, Errno::ENOENT));
    }

    #[test]
    fn limits_and_niceness_are_set() {
        let mut spec = shell_spec("ulimit -v; ulimit -t; ulimit -n; nice");
        spec.context.limits.memory = Some(512 * 1024 * 1024);
        spec.context.limits.cpu_seconds = Some(77);
        spec.context.nice = Some(5);
        let defaults = SpawnDefaults {
            open_files: Some(111),
            ..SpawnDefaults::default()
        };
        let output = |spec: &ProcessSpec| {
            let mut child = PreparedProgram::prepare(spec, &defaults)
                .unwrap()
                .spawn(Stdio::piped())
                .unwrap();
            testing::rest_of_output(&mut child)
        };
        assert_eq!(output(&spec), "524288\n77\n111\n5\n");
        spec.context.limits.open_files = Some(99);
        assert_eq!(output(&spec), "524288\n77\n99\n5\n");
    }

    #[test]
    fn a_program_too_large_for_its_memory_limit_is_a_failure_at_its_start_or_its_death() {
        let mut spec = shell_spec("echo alive");
        spec.context.limits.memory = Some(4096);
        let mut program = PreparedProgram::prepare(&spec, &SpawnDefaults::default()).unwrap();
        match program.spawn(Stdio::piped()) {
            Ok(mut child) => assert!(!testing::wait(&mut child).success()),
            Err(error) => assert_eq!((error.step, error.errno), (Step::Exec, Errno::ENOMEM)),
        }
    }

    #[test]
    fn credentials_are_all_changed_or_refused() {
        let mut spec = shell_spec("id -u; id -g; id -G; cut -d' ' -f4 /proc/self/stat");
        (spec.context.user, spec.context.group, spec.context.supplementary_groups) =
            (Some(65534), Some(65533), vec![65532]);
        let mut program = PreparedProgram::prepare(&spec, &SpawnDefaults::default()).unwrap();
        match program.spawn(Stdio::piped()) {
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
            (spec.context.user, spec.context.group) = (Some(65534), Some(65534));
        } else {
            (spec.context.user, spec.context.group) = (Some(geteuid().as_raw()), Some(getegid().as_raw()));
        }
        let mut child = std::thread::spawn(move || testing::start(&spec)).join().unwrap();
        assert_eq!(testing::wait(&mut child).to_string(), "signal 9 (SIGKILL)");
    }

    #[test]
    fn many_threads_may_spawn_at_once() {
        let spawn_some = || {
            let mut program = prepare(&["echo", "x"]).unwrap();
            for _ in 0..50 {
                assert_eq!(
                    testing::rest_of_output(&mut program.spawn(Stdio::piped()).unwrap()),
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
            (spec.context.user, spec.context.group) = (Some(65534), Some(65534));
        }
        let prepared = PreparedProgram::prepare(&spec, &SpawnDefaults::default());
        let error = prepared
            .and_then(|mut program| program.spawn(Stdio::piped()))
            .unwrap_err();
        assert_eq!((error.step, error.errno), (Step::Lookup, Errno::EACCES));
    }
}
