//! The reasons why a program could not be started: the step that failed, its errno, the program's name, and a remedy.
//!
//! [`SpawnError::is_permanent`] is the criterion for a supervisor: after a shortage of memory, for example, it tries
//! again, and after a missing program it does not.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::resource::Resource;

use super::sandbox::Fault;

/// The steps of a start, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Looking the program up.
    Lookup,
    /// Turning arguments and variables into C strings, which cannot hold a NUL.
    Arguments,
    /// Reading the daemon's own limits, on which those of the child are based.
    ReadLimits,
    /// Making the rules of the sandbox.
    SandboxRules,
    /// Making the pipes, or opening `/dev/null`.
    Pipes,
    /// Making a terminal, or making it the child's controlling terminal.
    Terminal,
    /// Making the new process (`clone(2)`).
    NewProcess,
    /// Putting it into a session, and so a process group, of its own.
    Session,
    /// Connecting standard input, output and error.
    StandardStreams,
    /// Setting the nice value.
    Nice,
    /// Setting one of the limits.
    Limit(Resource),
    /// Setting the supplementary groups.
    SupplementaryGroups,
    /// Setting the group.
    Group,
    /// Setting the user.
    User,
    /// Entering the working directory.
    WorkingDirectory,
    /// Requesting the signal at the daemon's end.
    ParentDeathSignal,
    /// Giving up new privileges.
    NoNewPrivileges,
    /// Entering the sandbox.
    Sandbox,
    /// Running the program (`execve(2)`).
    Exec,
}

/// The place in which a program is looked for, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the directories of PATH: the name has no slash.
    InPath,
    /// Below the directory in which the program is started.
    Relative,
    Absolute,
}

/// The error of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnError {
    /// The step that failed.
    pub step: Step,
    /// The program as the operator wrote it; `None` if the error concerns every program, because of the context.
    pub program: Option<OsString>,
    /// The kernel's error.
    pub errno: Errno,
    /// The cause behind it, if it is known.
    pub cause: Option<Cause>,
}

/// A cause that an errno does not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The script exists and its interpreter does not.
    MissingInterpreter(PathBuf),
    /// The sandbox cannot be made.
    Fault(Fault),
    /// The program is in a sandbox, which may have refused it.
    InSandbox,
    /// The step took too long and the watchdog has killed the child.
    Stuck,
}

impl SpawnError {
    pub(super) fn new(step: Step, program: &OsStr, errno: Errno) -> Self {
        Self::of_context(step, errno).of_program(program)
    }

    pub(super) const fn of_context(step: Step, errno: Errno) -> Self {
        Self {
            step,
            program: None,
            errno,
            cause: None,
        }
    }

    pub(super) fn of_sandbox(fault: Fault) -> Self {
        Self {
            cause: Some(Cause::Fault(fault.clone())),
            ..Self::of_context(Step::SandboxRules, fault.errno())
        }
    }

    /// Returns the same error, for this program in that context.
    #[must_use]
    pub fn of_program(self, program: &OsStr) -> Self {
        Self {
            program: Some(program.to_owned()),
            ..self
        }
    }

    /// Returns true if another attempt cannot help until an operator has changed something. Errors that are not
    /// permanent come from a passing shortage of memory, processes or descriptors.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        !matches!(
            self.errno,
            Errno::EAGAIN
                | Errno::ENOMEM
                | Errno::EMFILE
                | Errno::ENFILE
                | Errno::EINTR
                // The child was stopped by another process, or a file system does not answer.
                | Errno::ETIMEDOUT
                | Errno::ETXTBSY
                | Errno::EIO
                | Errno::ENOBUFS
                // A shortage of terminals.
                | Errno::ENOSPC
        )
    }

    /// Returns true if the program's name may have been meant as a name with arguments.
    fn has_blanks(&self) -> bool {
        let name = self.program.as_deref().map(OsStr::as_encoded_bytes);
        name.is_some_and(|name| name.contains(&b' '))
    }

    fn place(&self) -> Place {
        match self.program.as_deref().map(OsStr::as_encoded_bytes) {
            Some([b'/', ..]) => Place::Absolute,
            Some(name) if name.contains(&b'/') => Place::Relative,
            _ => Place::InPath,
        }
    }

    fn remedy(&self) -> &'static str {
        match (self.step, self.errno) {
            (Step::Arguments, _) => "take the NUL byte out of its arguments and variables",
            (Step::Lookup | Step::Exec, Errno::ENOENT | Errno::ENOTDIR) if self.has_blanks() => {
                "a blank in it is part of its name here: give arguments as words of their own, outside of its quotes \
                 (in a torc.cfg cmd is a name alone, and arguments come from clients)"
            }
            (Step::Lookup | Step::Exec, Errno::ENOENT | Errno::ENOTDIR) => match self.place() {
                Place::InPath => "install it, give its full path, or correct PATH",
                Place::Relative => {
                    "install it, or correct its path, which begins in the directory that it is started in (chdir)"
                }
                Place::Absolute => "install it, or correct its path",
            },
            (Step::Lookup, Errno::EACCES) if self.place() == Place::InPath => {
                "make it an executable file that the child's user may read and run, on a file system without noexec; \
                 or it is not there at all, and PATH has a directory that this user may not search"
            }
            (Step::Lookup | Step::Exec, Errno::EACCES | Errno::EPERM) => {
                "make it an executable file that the child's user may read and run, on a file system without noexec"
            }
            (Step::Exec, Errno::ENOEXEC) => {
                "it is neither a program for this machine nor a script with a #! line; \
                 add one, or run it through its interpreter"
            }
            (Step::Exec, Errno::E2BIG) => "shorten its arguments, or clear variables from its environment",
            (Step::Exec, Errno::ETXTBSY) => "it is being written at this moment; finish the upgrade",
            (Step::Exec | Step::NewProcess | Step::User, Errno::EAGAIN) => {
                "the limit on processes is reached (ulimit -u, TasksMax, pids.max); raise it or run fewer"
            }
            (_, Errno::ENOMEM) => {
                "memory is short, or the memory limit leaves no room for the program; raise it or run fewer"
            }
            (_, Errno::EMFILE) => "the daemon's limit on open files is reached; raise it (ulimit -n, LimitNOFILE)",
            (_, Errno::ENFILE) => "the machine's limit on open files is reached; raise fs.file-max",
            (Step::Terminal, Errno::ENOSPC) => {
                "there are as many terminals as kernel.pty.max allows; raise it or run fewer"
            }
            (Step::Terminal, Errno::ENOENT | Errno::EACCES) => {
                "mount devpts on /dev/pts, with ptmxmode=0666, or do without a terminal"
            }
            (Step::Limit(_), Errno::EPERM) => {
                "only root may go over the hard limit; ask for less or raise the daemon's"
            }
            (Step::Nice, Errno::EACCES | Errno::EPERM) => "only root may lower a nice value; ask for a higher one",
            (Step::SupplementaryGroups | Step::Group | Step::User, Errno::EPERM) => {
                "only root may change users and groups; \
                 start the daemon as root, or as that user and leave the setting out"
            }
            (Step::Sandbox, Errno::E2BIG) => {
                "the daemon itself is in as many sandboxes as there can be, one in the other"
            }
            (Step::WorkingDirectory, _) => "make it a directory that the child's user may enter",
            _ => "see the manual page of the system call",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arguments => "passing its arguments",
            Self::Lookup => "looking it up",
            Self::ReadLimits => "reading the daemon's limits",
            Self::Pipes => "making its pipes",
            Self::Terminal => "making its terminal",
            Self::NewProcess => "making a process",
            Self::Session => "making its session",
            Self::StandardStreams => "connecting its standard streams",
            Self::Nice => "setting its nice value",
            Self::Limit(Resource::RLIMIT_AS) => "setting its memory limit",
            Self::Limit(Resource::RLIMIT_CPU) => "setting its limit on processor time",
            Self::Limit(Resource::RLIMIT_NOFILE) => "setting its limit on open files",
            Self::Limit(Resource::RLIMIT_NPROC) => "setting its limit on processes",
            Self::Limit(_) => "setting its limits",
            Self::SupplementaryGroups => "setting its supplementary groups",
            Self::Group => "setting its group",
            Self::User => "setting its user",
            Self::WorkingDirectory => "entering its working directory",
            Self::ParentDeathSignal => "setting its parent-death signal",
            Self::NoNewPrivileges => "giving up new privileges",
            Self::SandboxRules => "making its sandbox",
            Self::Sandbox => "entering its sandbox",
            Self::Exec => "running it",
        })
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            step,
            program,
            errno,
            cause,
        } = self;
        match program {
            Some(program) => write!(f, "cannot start {program:?}: {step}: ")?,
            None => write!(f, "cannot start any program: {step}: ")?,
        }
        match cause {
            Some(Cause::MissingInterpreter(path)) => write!(
                f,
                "its interpreter {path:?} is missing; install that, or correct the script's #! line"
            ),
            Some(Cause::Fault(fault)) => write!(f, "{fault}"),
            Some(Cause::Stuck) => f.write_str(
                "it was not done in time, and was killed; a process of its user has stopped it, or a file system that it needs \
                 does not answer, or the machine has no processor to spare: end that process, mend or unmount that file \
                 system, or give the machine less to do",
            ),
            Some(Cause::InSandbox) => write!(
                f,
                "{}; let the sandbox read it and its interpreter, and make it an executable file that the child's user \
                 may read and run",
                errno.desc()
            ),
            None => write!(f, "{}; {}", errno.desc(), self.remedy()),
        }
    }
}

impl std::error::Error for SpawnError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(step: Step, errno: Errno) -> SpawnError {
        SpawnError::new(step, OsStr::new("squidGuard"), errno)
    }

    #[test]
    fn a_shortage_passes_and_a_missing_program_does_not() {
        for errno in [
            Errno::EAGAIN,
            Errno::ENOMEM,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::ETXTBSY,
        ] {
            assert!(!error(Step::Exec, errno).is_permanent(), "{errno}");
        }
        for errno in [
            Errno::ENOENT,
            Errno::EACCES,
            Errno::ENOEXEC,
            Errno::ENOTDIR,
            Errno::E2BIG,
            Errno::EPERM,
        ] {
            assert!(error(Step::Exec, errno).is_permanent(), "{errno}");
        }
    }

    #[test]
    fn the_message_names_program_attempt_cause_and_remedy() {
        assert_eq!(
            error(Step::Lookup, Errno::ENOENT).to_string(),
            "cannot start \"squidGuard\": looking it up: No such file or directory; \
             install it, give its full path, or correct PATH"
        );
        for (name, errno, remedy) in [
            ("/usr/bin/no", Errno::ENOENT, "; install it, or correct its path"),
            ("bin/no", Errno::ENOENT, "started in (chdir)"),
            (
                "no",
                Errno::EACCES,
                "PATH has a directory that this user may not search",
            ),
            ("./no", Errno::EACCES, "on a file system without noexec"),
        ] {
            let told = SpawnError::new(Step::Lookup, OsStr::new(name), errno).to_string();
            assert!(told.ends_with(remedy), "{told}");
        }
        let with_arguments = SpawnError::new(Step::Lookup, OsStr::new("squidGuard -c x"), Errno::ENOENT);
        assert!(
            with_arguments
                .to_string()
                .contains("; a blank in it is part of its name here: give arguments as words"),
            "{with_arguments}"
        );
        let missing = SpawnError {
            cause: Some(Cause::MissingInterpreter("/opt/perl".into())),
            ..error(Step::Exec, Errno::ENOENT)
        };
        assert_eq!(
            missing.to_string(),
            "cannot start \"squidGuard\": running it: its interpreter \"/opt/perl\" is missing; \
             install that, or correct the script's #! line"
        );
    }
}
