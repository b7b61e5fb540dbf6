//! The start of this program's present file as the successor of this process.
//!
//! A successor is no worker: it must outlive the process that started it. So it is not started by a
//! [`PreparedProgram`](super::spawn::PreparedProgram) but here: in a process group of its own, with the arguments,
//! directory, environment and standard streams of this process, with more descriptors, and without the parent-death
//! signal. Until it is [released](Successor::release) it can be killed, and is killed when its handle is dropped. It
//! asks by itself, with [`depend_on_parent`], to be killed if its parent is killed meanwhile.
//!
//! The file is the one that this process was started from, by the name that it was started by ([`Image`]), so an
//! upgrade may replace the file or point a symbolic link to another version. It is not `/proc/self/exe`, which still
//! means the file that was replaced.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{self, Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getppid};

use super::exit_status::ExitStatus;
use super::program::Search;
use super::sys::{self, Wait};

/// The file of this process's own program.
const OWN_IMAGE: &str = "/proc/self/exe";

/// The program of this process and the arguments of its start.
#[derive(Debug, Clone)]
pub struct Image {
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// The things that a successor gets from this process.
#[derive(Debug)]
pub struct Inheritance<'a> {
    /// Descriptors, which keep their numbers.
    pub descriptors: Vec<OwnedFd>,
    /// The names and values of variables to add to its environment.
    pub variables: &'a [(&'a str, &'a str)],
    /// The names of variables to remove.
    pub without: &'a [&'a str],
}

impl Image {
    /// Returns the image of this process. Must be called at its start, while the file is still the one that was
    /// started.
    ///
    /// # Errors
    /// The name of the program leads to another file, and `/proc` does not show the right one.
    pub fn of_this_process() -> io::Result<Image> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let called = arguments.first().and_then(|name| called_file(name));
        let own = fs::metadata(OWN_IMAGE)?;
        let program = match called {
            Some(file) if fs::metadata(&file).is_ok_and(|found| same_file(&found, &own)) => file,
            // Started under another name (`exec -a`), or through a directory that has moved.
            _ => fs::read_link(OWN_IMAGE)?,
        };
        Ok(Image { program, arguments })
    }

    /// Returns the path of the file that is run.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts the program. When this returns, its exec has succeeded.
    ///
    /// # Errors
    /// Those of `fork(2)` and `execve(2)`. No process is left behind.
    pub fn start(&self, inheritance: Inheritance<'_>) -> io::Result<Successor> {
        let mut command = Command::new(&self.program);
        let (name, arguments) = match self.arguments.split_first() {
            Some((name, arguments)) => (name.as_os_str(), arguments),
            None => (self.program.as_os_str(), &[][..]),
        };
        command.arg0(name).args(arguments).process_group(0);
        for variable in inheritance.without {
            command.env_remove(variable);
        }
        command.envs(inheritance.variables.iter().copied());
        // Only for the time of the start: these are duplicates, and nothing else is started meanwhile.
        for descriptor in &inheritance.descriptors {
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        let child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(|_| Errno::EOVERFLOW)?);
        match sys::pidfd_open(pid) {
            Ok(pidfd) => Ok(Successor {
                pid,
                pidfd,
                stage: Stage::Owned,
            }),
            Err(errno) => {
                // A successor whose end cannot be noticed is of no use. It ends at once, so waiting for it is short.
                let mut child = child;
                let _ = child.kill().and_then(|()| child.wait());
                Err(errno.into())
            }
        }
    }
}

/// Returns the file that `name` means to `execvp`, as an absolute path, because this process may change its directory.
fn called_file(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return path::absolute(name).ok();
    }
    let search = Search {
        path: std::env::var_os("PATH"),
        directory: None,
    };
    path::absolute(search.resolve(name).ok()?).ok()
}

fn same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// A successor that was started.
#[derive(Debug)]
pub struct Successor {
    pid: Pid,
    pidfd: OwnedFd,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Owned,
    Reaped(ExitStatus),
    Released,
}

impl Successor {
    /// Returns its process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns a handle for a thread that waits for its end.
    ///
    /// # Errors
    /// EMFILE.
    pub fn watch(&self) -> io::Result<Watch> {
        self.pidfd.try_clone().map(Watch)
    }

    /// Kills the successor and the processes in its group. Its workers then end by themselves.
    pub fn kill(&self) {
        if self.stage == Stage::Owned {
            // ESRCH cannot happen, because it is not reaped. EPERM: it has become another user, and nothing can be
            // done.
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }

    /// Sends it a signal. Nothing is sent once it is reaped or released.
    pub fn signal(&self, signal: Signal) {
        if self.stage == Stage::Owned {
            let _ = kill(self.pid, signal);
        }
    }

    /// Reaps it if it has ended, and returns its exit status. Returns `None` while it runs.
    ///
    /// # Errors
    /// Those of `waitid(2)`.
    pub fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        match self.stage {
            Stage::Reaped(status) => Ok(Some(status)),
            Stage::Released => Ok(None),
            Stage::Owned => {
                let status = sys::wait(&self.pidfd, Wait::Reap)?;
                self.stage = status.map_or(Stage::Owned, Stage::Reaped);
                Ok(status)
            }
        }
    }

    /// Lets the successor live on without this process. If it ends first, because it has had a successor of its own, a
    /// thread reaps it.
    pub fn release(mut self) {
        self.stage = Stage::Released;
        let Ok(pidfd) = self.pidfd.try_clone() else {
            return;
        };
        let reap = move || {
            let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            while poll(&mut ended, PollTimeout::NONE) == Err(Errno::EINTR) {}
            let _ = sys::wait(&pidfd, Wait::Reap);
        };
        // Without a descriptor or a thread it stays a zombie until this process ends, which does no other harm.
        let _ = std::thread::Builder::new().name("reaper".to_owned()).spawn(reap);
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.kill();
        let _ = self.reap();
    }
}

/// A handle by which a thread can wait for the end of a successor.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Waits for the end, for `at_most` this time. Returns false if it has not ended.
    #[must_use]
    pub fn wait(&self, at_most: Duration) -> bool {
        let mut ended = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let milliseconds = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
        // EINTR should not happen, because the thread has no signal handler of its own. If it does (SA_RESTART does not
        // apply to poll), this returns false as if the time were over, and the exit status says more.
        poll(&mut ended, timeout).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Has this process killed when its parent ends, until [`be_independent`] is called. Returns false if the parent is not
/// `parent` or has already ended.
#[must_use]
pub fn depend_on_parent(parent: i32) -> bool {
    // If the kernel refuses this, the end of the connection between the two shows the same a moment later.
    let _ = nix::sys::prctl::set_pdeathsig(Some(Signal::SIGKILL));
    getppid() == Pid::from_raw(parent)
}

/// Lets this process live on after the end of its parent.
///
/// # Errors
/// None that Linux knows.
pub fn be_independent() -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(None).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Image {
        Image {
            program: "/bin/sh".into(),
            arguments: ["sh", "-c", script].map(OsString::from).into(),
        }
    }

    fn inheritance(descriptors: Vec<OwnedFd>) -> Inheritance<'static> {
        Inheritance {
            descriptors,
            variables: &[("SUCCESSION", "yes")],
            without: &["HOME"],
        }
    }

    #[test]
    fn a_successor_has_its_descriptors_under_their_numbers_and_its_variables() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let number = std::os::fd::AsRawFd::as_raw_fd(&writer);
        let script = format!(
            "echo \"$SUCCESSION ${{HOME-none}} $(cut -d ' ' -f 5 /proc/$$/stat) $$\" >/proc/self/fd/{number}; exit 5"
        );
        let mut successor = shell(&script).start(inheritance(vec![writer])).unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("yes none {0} {0}\n", successor.pid()));
        assert!(successor.watch().unwrap().wait(PATIENCE));
        assert_eq!(successor.reap().unwrap(), Some(ExitStatus::Code(5)));
    }

    #[test]
    fn a_dropped_successor_is_killed_and_a_released_one_lives() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let successor = shell("read -r never </dev/zero")
            .start(inheritance(vec![writer]))
            .unwrap();
        let watch = successor.watch().unwrap();
        drop(successor);
        assert!(watch.wait(PATIENCE));
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);

        let (input, hold) = std::io::pipe().unwrap();
        let input = OwnedFd::from(input);
        let number = std::os::fd::AsRawFd::as_raw_fd(&input);
        let script = format!("read -r line </proc/self/fd/{number}");
        let successor = shell(&script).start(inheritance(vec![input])).unwrap();
        let watch = successor.watch().unwrap();
        successor.release();
        assert!(!watch.wait(Duration::ZERO));
        drop(hold);
        assert!(watch.wait(PATIENCE));
        let _ = sys::wait(&watch, Wait::Reap);
    }

    #[test]
    fn the_file_is_the_one_this_process_was_started_by() {
        let image = Image::of_this_process().unwrap();
        assert!(image.program().is_absolute());
        let (found, own) = (fs::metadata(image.program()).unwrap(), fs::metadata(OWN_IMAGE).unwrap());
        assert!(same_file(&found, &own));
    }

    #[test]
    fn a_name_without_a_slash_is_looked_for_in_path() {
        let found = called_file(OsStr::new("sh")).unwrap();
        assert!(found.is_absolute() && found.ends_with("sh"), "{found:?}");
        assert_eq!(called_file(OsStr::new("no such program")), None);
    }
}
