//! The sandbox: programs that can open only the files that they have been given (Landlock, `landlock(7)`).
//!
//! The rules are made once for all starts in the same context, as a descriptor. Each child applies them to itself as
//! its last action before the exec, and neither it nor any process that it starts can leave them. The rules apply to
//! the files that the paths meant when the rules were made: a directory that later takes the place of another one is
//! not accessible.
//!
//! **The protection** is the same on every kernel that has it, because an operator cannot rely on one that depends on
//! the kernel. It covers opening files and directories, executing, truncating, creating, renaming, linking and removing
//! them. That requires the third version of Landlock (Linux 6.2); with an older one, or without Landlock, nothing is
//! started. In addition, the kernel prevents a child from tracing a process outside and from mounting anything.
//!
//! **Not covered** is everything that needs no file to be opened. A child may read the size, owner and times of any
//! file, and change mode, owner, times and attributes of the files that its user may change. It may use the network and
//! sockets of other processes, and send signals to processes of its user. Descriptors that it was given go on working.
//!
//! **Device nodes** can be created nowhere: root could create the node of a disk in a writable directory.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessError, AccessFs, BitFlags, CompatError, CompatLevel, Compatible, HandleAccessError,
    HandleAccessesError, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError,
};
use nix::errno::Errno;

use super::program::errno_of;
use super::spec::Sandbox;

/// The version whose access rights are handled, on this kernel and on every later one.
const VERSION: ABI = ABI::V3;

/// The files that programs need in order to run at all: the programs, their libraries, and descriptions of the machine.
/// On some machines half of these are symbolic links, or do not exist.
const PROGRAMS: [&str; 8] = ["/bin", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr"];
const SOURCES: [&str; 2] = ["/dev/random", "/dev/urandom"];
const SINKS: [&str; 3] = ["/dev/full", "/dev/null", "/dev/zero"];
/// The child's terminal, which is accessible to a child that has its own.
const TERMINAL: [&str; 1] = ["/dev/tty"];

/// The kinds of access to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A file may be read and executed, and a directory listed.
    Read,
    /// A file may be read, written and truncated. In a directory everything is allowed but executing and creating
    /// device nodes.
    Write,
}

impl Access {
    fn rights(self) -> BitFlags<AccessFs> {
        match self {
            Self::Read => AccessFs::from_read(VERSION),
            Self::Write => {
                let devices = AccessFs::MakeChar | AccessFs::MakeBlock;
                (AccessFs::from_all(VERSION) & !devices) & !BitFlags::from(AccessFs::Execute)
            }
        }
    }

    /// Returns the key by which an operator allows this.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Read => "sandbox-read",
            Self::Write => "sandbox-write",
        }
    }
}

/// The reason why there is no sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The kernel has no Landlock, was started without it, or a filter forbids it.
    NoLandlock,
    /// The kernel's Landlock does not know all rights that must be handled.
    TooOld,
    /// A path of the configuration cannot be opened.
    Path {
        /// The access that was to be allowed.
        access: Access,
        /// The path.
        path: PathBuf,
        /// The kernel's error.
        errno: Errno,
    },
    /// A system call failed that can fail only in a shortage.
    Rules(Errno),
}

impl Fault {
    pub(super) const fn errno(&self) -> Errno {
        match *self {
            Self::NoLandlock => Errno::ENOSYS,
            Self::TooOld => Errno::EOPNOTSUPP,
            Self::Path { errno, .. } | Self::Rules(errno) => errno,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLandlock => f.write_str(
                "this kernel has no Landlock, or was started without it, or a filter of system calls forbids it; \
                 put landlock into its lsm= parameter, or do without sandbox",
            ),
            Self::TooOld => f.write_str(
                "the Landlock of this kernel cannot keep files from being truncated; \
                 run Linux 6.2 or later, or do without sandbox",
            ),
            Self::Path { access, path, errno } => {
                let key = access.key();
                write!(
                    f,
                    "cannot open {path:?}, which {key} names: {}; correct the path, or make it first",
                    errno.desc()
                )
            }
            Self::Rules(errno) => write!(f, "cannot make its rules: {}; see landlock(7)", errno.desc()),
        }
    }
}

impl std::error::Error for Fault {}

/// Checks that a sandbox can include a path now.
///
/// # Errors
/// The reason why it cannot.
pub fn look_at(path: &Path) -> Result<(), Errno> {
    PathFd::new(path).map(drop).map_err(|error| refusal(&error))
}

/// Makes the rules, as a descriptor above those of the standard streams.
pub(super) fn rules(sandbox: &Sandbox, terminal: bool) -> Result<OwnedFd, Fault> {
    let mut rules = empty_rules()?;
    let devices = if terminal { &TERMINAL[..] } else { &[] };
    for path in PROGRAMS.iter().chain(&SOURCES) {
        rules = allow_if_there(rules, Access::Read, Path::new(path))?;
    }
    for path in SINKS.iter().chain(devices) {
        rules = allow_if_there(rules, Access::Write, Path::new(path))?;
    }
    for path in &sandbox.read {
        rules = allow(rules, Access::Read, open(Access::Read, path)?)?;
    }
    for path in &sandbox.write {
        rules = allow(rules, Access::Write, open(Access::Write, path)?)?;
    }
    let descriptor = Option::<OwnedFd>::from(rules).ok_or(Fault::NoLandlock)?;
    above_the_streams(descriptor).map_err(|error| Fault::Rules(errno_of(&error)))
}

fn empty_rules() -> Result<RulesetCreated, Fault> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let rules = rules.handle_access(AccessFs::from_all(VERSION)).map_err(missing)?;
    rules.create().map_err(|error| failed(&error))
}

/// Returns the fault that explains an error of the kernel: which of the rights it does not know.
fn missing(error: RulesetError) -> Fault {
    use {CompatError::Access, HandleAccessError::Compat, HandleAccessesError::Fs, RulesetError::HandleAccesses};
    match error {
        HandleAccesses(Fs(Compat(Access(AccessError::PartiallyCompatible { .. })))) => Fault::TooOld,
        _ => Fault::NoLandlock,
    }
}

fn failed(error: &RulesetError) -> Fault {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Fault::Rules(errno_of(error));
        }
        cause = error.source();
    }
    Fault::Rules(Errno::UnknownErrno)
}

fn open(access: Access, path: &Path) -> Result<PathFd, Fault> {
    PathFd::new(path).map_err(|error| Fault::Path {
        access,
        path: path.to_owned(),
        errno: refusal(&error),
    })
}

fn refusal(error: &PathFdError) -> Errno {
    match error {
        PathFdError::OpenCall { source, .. } => errno_of(source),
        _ => Errno::UnknownErrno,
    }
}

fn allow_if_there(rules: RulesetCreated, access: Access, path: &Path) -> Result<RulesetCreated, Fault> {
    match open(access, path) {
        Ok(file) => allow(rules, access, file),
        Err(fault) if fault.errno() == Errno::ENOENT => Ok(rules),
        Err(fault) => Err(fault),
    }
}

fn allow(rules: RulesetCreated, access: Access, file: PathFd) -> Result<RulesetCreated, Fault> {
    let stat = nix::sys::stat::fstat(&file).map_err(Fault::Rules)?;
    let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    // The kernel refuses rights of directories for anything else.
    let possible = if directory {
        AccessFs::from_all(VERSION)
    } else {
        AccessFs::from_file(VERSION)
    };
    let rule = PathBeneath::new(file, access.rights() & possible).set_compatibility(CompatLevel::HardRequirement);
    rules.add_rule(rule).map_err(|error| failed(&error))
}

/// Returns the descriptor under a number that the child's standard streams, which are connected before it is used, do
/// not take.
fn above_the_streams(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(descriptor);
    }
    // The standard library counts from 3 here.
    descriptor.try_clone()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::unistd::geteuid;

    use super::super::failure::{Cause, SpawnError, Step};
    use super::super::spawn::{PreparedProgram, SpawnDefaults, Stdio};
    use super::super::spec::ProcessSpec;
    use super::super::testing::{self, shell_spec};
    use super::*;

    /// Returns a directory with a file outside of the sandbox and two directories in it: `read/` with a file `text`,
    /// and `write/`.
    fn rooms() -> (tempfile::TempDir, Sandbox) {
        let root = tempfile::tempdir().unwrap();
        let (read, write) = (root.path().join("read"), root.path().join("write"));
        for directory in [&read, &write] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(root.path().join("outside"), "secret\n").unwrap();
        fs::write(read.join("text"), "text\n").unwrap();
        let sandbox = Sandbox {
            read: vec![read],
            write: vec![write],
        };
        (root, sandbox)
    }

    /// Returns `None` if this kernel has no sandbox, and checks that the error says so.
    fn prepare(mut spec: ProcessSpec, sandbox: Sandbox) -> Option<Result<PreparedProgram, SpawnError>> {
        spec.context.sandbox = Some(sandbox);
        let prepared = PreparedProgram::prepare(&spec, &SpawnDefaults::default());
        let Err(lacking) = empty_rules() else {
            return Some(prepared);
        };
        assert_eq!(prepared.unwrap_err().cause, Some(Cause::Fault(lacking)));
        None
    }

    /// Returns the output of a script in a sandbox, on both of its streams. The script begins in `directory`.
    fn output(directory: &Path, sandbox: Sandbox, script: &str) -> Option<String> {
        let mut spec = shell_spec(&format!("exec 2>&1; {script}"));
        spec.context.working_directory = Some(directory.to_owned());
        let mut program = prepare(spec, sandbox)?.unwrap();
        let mut child = program.spawn(Stdio::piped()).unwrap();
        drop(child.stdin.take());
        Some(testing::rest_of_output(&mut child))
    }

    /// Checks for each line of a script whether it succeeds.
    fn each_line(directory: &Path, sandbox: Sandbox, lines: &[(&str, bool)]) {
        for (line, expected) in lines {
            let said = output(
                directory,
                sandbox.clone(),
                &format!("if {line}; then echo yes; else echo no; fi"),
            );
            let Some(said) = said else { return };
            let expected = if *expected { "yes" } else { "no" };
            assert_eq!(said.lines().last(), Some(expected), "{line}: {said}");
        }
    }

    #[test]
    fn files_outside_can_be_neither_read_nor_changed() {
        let (root, sandbox) = rooms();
        each_line(
            root.path(),
            sandbox,
            &[
                ("cat outside", false),
                ("ls .", false),
                ("sh -c 'sh -c \"cat outside\"'", false),
                ("echo new > outside", false),
                ("echo more >> outside", false),
                ("truncate -s 0 outside", false),
                ("rm -f outside", false),
                ("mv outside write/", false),
                ("ln outside write/linked", false),
                ("touch made", false),
                ("mkdir made", false),
                ("ln -s outside made", false),
                ("ls /proc/1", false),
            ],
        );
        assert_eq!(fs::read_to_string(root.path().join("outside")).unwrap(), "secret\n");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
    }

    #[test]
    fn readable_files_can_be_read_and_nothing_more() {
        let (root, sandbox) = rooms();
        each_line(
            root.path(),
            sandbox,
            &[
                ("[ $(cat read/text) = text ]", true),
                ("ls read", true),
                ("sh -c 'cat read/text'", true),
                ("echo more >> read/text", false),
                ("truncate -s 0 read/text", false),
                ("rm -f read/text", false),
                ("touch read/made", false),
            ],
        );
    }

    #[test]
    fn writable_files_can_be_changed_but_not_executed() {
        let (root, sandbox) = rooms();
        each_line(
            root.path(),
            sandbox.clone(),
            &[
                (
                    "echo one > write/a && echo two >> write/a && [ $(wc -l < write/a) = 2 ]",
                    true,
                ),
                ("truncate -s 1 write/a", true),
                (
                    "mkdir -p write/b && mv write/a write/b/c && ln write/b/c write/d && rm -r write/b",
                    true,
                ),
                ("ln -s d write/e && mkfifo write/f && rm write/e write/f", true),
                ("cp /bin/true write/true && write/true", false),
                ("mknod write/null c 1 3", false),
                ("[ -e write/true ]", true),
            ],
        );
        let both = Sandbox {
            read: sandbox.write.clone(),
            ..sandbox
        };
        each_line(root.path(), both, &[("write/true", true)]);
    }

    #[test]
    fn a_single_file_can_be_given() {
        let (root, _) = rooms();
        let sandbox = Sandbox {
            read: vec![root.path().join("read/text")],
            write: vec![root.path().join("outside")],
        };
        each_line(
            root.path(),
            sandbox,
            &[
                ("cat read/text", true),
                ("ls read", false),
                ("echo new > outside && [ $(cat outside) = new ]", true),
                ("rm -f outside", false),
            ],
        );
    }

    #[test]
    fn programs_run_and_have_what_every_program_needs() {
        each_line(
            Path::new("/"),
            Sandbox::default(),
            &[
                ("head -c 8 /dev/urandom > /dev/null", true),
                ("cat < /dev/null", true),
                ("head -c 8 /dev/zero | wc -c", true),
                ("cat /etc/passwd", true),
                ("echo x > /dev/stderr", true),
                ("grep -q 'NoNewPrivs:.*1' /proc/self/status", false),
                ("touch /tmp/iotcpd-made-in-a-sandbox", false),
            ],
        );
    }

    #[test]
    fn no_privileges_can_be_gained_and_no_descriptor_is_inherited() {
        let sandbox = Sandbox {
            read: vec!["/proc".into()],
            ..Sandbox::default()
        };
        let script = "grep NoNewPrivs: /proc/self/status | tr -d '\\t'; \
                      i=3; while [ $i -le 99 ]; do [ -e /proc/$$/fd/$i ] && echo $i; i=$((i+1)); done; :";
        if let Some(output) = output(Path::new("/"), sandbox, script) {
            assert_eq!(output, "NoNewPrivs:1\n");
        }
    }

    #[test]
    fn a_child_of_another_user_is_in_it_too() {
        if !geteuid().is_root() {
            return;
        }
        let mut spec = shell_spec("exec 2>&1; id -u; cat /proc/self/status");
        (spec.context.user, spec.context.group) = (Some(65534), Some(65534));
        let Some(prepared) = prepare(spec, Sandbox::default()) else {
            return;
        };
        let mut child = prepared.unwrap().spawn(Stdio::piped()).unwrap();
        assert_eq!(testing::read_line(&mut child), "65534");
        assert!(testing::rest_of_output(&mut child).contains("Permission denied"));
    }

    #[test]
    fn a_child_on_a_terminal_may_use_it() {
        let mut spec = shell_spec("echo here > /dev/tty");
        spec.context.terminal = true;
        let Some(prepared) = prepare(spec, Sandbox::default()) else {
            return;
        };
        let mut child = prepared.unwrap().spawn(Stdio::piped()).unwrap();
        assert_eq!(testing::read_line(&mut child), "here");
        testing::wait(&mut child);
    }

    #[test]
    fn a_missing_path_is_reported_before_any_start() {
        let missing = || vec![PathBuf::from("/no/such/path")];
        for (sandbox, key) in [
            (
                Sandbox {
                    read: missing(),
                    ..Sandbox::default()
                },
                "sandbox-read",
            ),
            (
                Sandbox {
                    write: missing(),
                    ..Sandbox::default()
                },
                "sandbox-write",
            ),
        ] {
            let Some(prepared) = prepare(shell_spec(""), sandbox) else {
                return;
            };
            let error = prepared.unwrap_err();
            assert_eq!((error.step, error.errno), (Step::SandboxRules, Errno::ENOENT));
            assert!(error.is_permanent());
            assert_eq!(
                error.to_string(),
                format!(
                    "cannot start \"sh\": making its sandbox: cannot open \"/no/such/path\", which {key} names: \
                     No such file or directory; correct the path, or make it first"
                )
            );
        }
    }

    #[test]
    fn a_program_outside_is_refused_with_the_reason() {
        let (root, sandbox) = rooms();
        let program = root.path().join("program");
        fs::copy("/bin/true", &program).unwrap();
        let spec = ProcessSpec::new(vec![program.into()]).unwrap();
        let Some(prepared) = prepare(spec, sandbox) else { return };
        let error = prepared.unwrap().spawn(Stdio::piped()).unwrap_err();
        assert_eq!((error.step, error.errno), (Step::Exec, Errno::EACCES));
        assert!(error.to_string().contains("let the sandbox read it"), "{error}");
    }

    #[test]
    fn an_old_kernel_is_distinguished_from_one_without_landlock() {
        let all = AccessFs::from_all(VERSION);
        let told = |error| {
            missing(RulesetError::HandleAccesses(HandleAccessesError::Fs(
                HandleAccessError::Compat(CompatError::Access(error)),
            )))
        };
        let old = AccessError::PartiallyCompatible {
            access: all,
            incompatible: AccessFs::Truncate.into(),
        };
        assert_eq!(told(old), Fault::TooOld);
        assert_eq!(told(AccessError::Incompatible { access: all }), Fault::NoLandlock);
        for fault in [Fault::NoLandlock, Fault::TooOld] {
            assert!(SpawnError::of_sandbox(fault).is_permanent());
        }
    }
}
