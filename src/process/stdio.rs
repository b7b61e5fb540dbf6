//! The connections of a child's three standard streams, and the two ends of its pipes.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mio::unix::pipe::{Receiver, Sender};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, geteuid, pipe2};

use super::plan::Credentials;

/// The connection of one standard stream of a child.
#[derive(Debug)]
pub enum Stream {
    /// A pipe, whose other end is in the [`Child`](super::child::Child).
    Pipe,
    /// For standard input only: a pipe without input, at whose end the child is from its start. The other end is closed
    /// already. For the other streams this is EINVAL.
    EndedPipe,
    /// `/dev/null`.
    Null,
    /// The daemon's own stream of the same number.
    Inherit,
    /// This descriptor.
    Descriptor(OwnedFd),
    /// For standard error only: the connection of standard output, so that what is written to the two keeps its order.
    /// The child has no `stderr` then. For the other streams this is EINVAL.
    SameAsOutput,
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
    /// Returns three pipes.
    #[must_use]
    pub const fn piped() -> Self {
        Self {
            stdin: Stream::Pipe,
            stdout: Stream::Pipe,
            stderr: Stream::Pipe,
        }
    }
}

/// Both ends of a child's streams, until the child has its own.
#[derive(Debug)]
pub(super) struct ConnectedStdio {
    pub(super) child_ends: ChildEnds,
    pub(super) stdin: Option<Sender>,
    pub(super) stdout: Option<Receiver>,
    pub(super) stderr: Option<Receiver>,
}

/// The child's ends. One that is `None` is the same as another.
#[derive(Debug)]
pub(super) struct ChildEnds {
    pub(super) stdin: OwnedFd,
    /// `None` for the end of standard input, as on a terminal.
    pub(super) stdout: Option<OwnedFd>,
    /// `None` for the end of standard output.
    pub(super) stderr: Option<OwnedFd>,
}

impl ChildEnds {
    /// Returns the ends in the order of their numbers.
    pub(super) fn in_order(&self) -> [BorrowedFd<'_>; 3] {
        let stdin = self.stdin.as_fd();
        let stdout = self.stdout.as_ref().map_or(stdin, AsFd::as_fd);
        let stderr = self.stderr.as_ref().map_or(stdout, AsFd::as_fd);
        [stdin, stdout, stderr]
    }
}

/// The owner of a child's pipes, if the child has another user than the daemon. The mode of a pipe allows no other
/// user, and a program that opens `/dev/stderr` opens its pipe again, with its own rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) user: Uid,
    group: Option<Gid>,
}

impl Owner {
    /// Returns the owner, or `None` if the process that makes the pipes is already their owner.
    pub(super) fn of(credentials: &Credentials) -> Option<Self> {
        let user = credentials.user.map(Uid::from_raw);
        let group = credentials.group.map(Gid::from_raw);
        user.filter(|user| *user != geteuid()).map(|user| Self { user, group })
    }
}

impl Stdio {
    /// Makes the pipes. A stream that is no pipe keeps its owner, because it does not belong to the child alone.
    pub(super) fn connect(self, owner: Option<Owner>) -> io::Result<ConnectedStdio> {
        let (their_stdin, stdin) = input(self.stdin, owner)?;
        let (their_stdout, stdout) = output(self.stdout, io::stdout(), owner)?;
        let (their_stderr, stderr) = errors(self.stderr, owner)?;
        let child_ends = ChildEnds {
            stdin: their_stdin,
            stdout: Some(their_stdout),
            stderr: their_stderr,
        };
        Ok(ConnectedStdio {
            child_ends,
            stdin,
            stdout,
            stderr,
        })
    }
}

/// Returns the child's end of its standard input, and ours if it is a pipe.
fn input(stream: Stream, owner: Option<Owner>) -> io::Result<(OwnedFd, Option<Sender>)> {
    match stream {
        Stream::Pipe => {
            let (child, ours) = pipe(owner)?;
            set_nonblocking(&ours)?;
            Ok((child, Some(Sender::from(ours))))
        }
        Stream::EndedPipe => pipe(owner).map(|(child, _)| (child, None)),
        other => Ok((existing(other, io::stdin())?, None)),
    }
}

/// Returns the child's end of its standard output or error, and ours if it is a pipe.
fn output(stream: Stream, own: impl AsFd, owner: Option<Owner>) -> io::Result<(OwnedFd, Option<Receiver>)> {
    if !matches!(stream, Stream::Pipe) {
        return Ok((existing(stream, own)?, None));
    }
    let (ours, child) = pipe(owner)?;
    set_nonblocking(&ours)?;
    Ok((child, Some(Receiver::from(ours))))
}

/// Returns the child's end of its standard error, unless it is the one of its output, and ours if it is a pipe.
pub(super) fn errors(stream: Stream, owner: Option<Owner>) -> io::Result<(Option<OwnedFd>, Option<Receiver>)> {
    if matches!(stream, Stream::SameAsOutput) {
        return Ok((None, None));
    }
    let (child, ours) = output(stream, io::stderr(), owner)?;
    Ok((Some(child), ours))
}

/// Returns the reading and the writing end of a new pipe. Both are one file with one owner.
fn pipe(owner: Option<Owner>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    if let Some(Owner { user, group }) = owner {
        match fchown(&read, Some(user), group) {
            // A user that may not give files away usually may not become that user either, which the start will report.
            // A daemon that may (CAP_SETUID without CAP_CHOWN) has children that can use their streams and cannot open
            // them again.
            Ok(()) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok((read, write))
}

/// Returns a stream that needs no pipe. `own` is the daemon's stream of the same number.
fn existing(stream: Stream, own: impl AsFd) -> io::Result<OwnedFd> {
    match stream {
        Stream::Descriptor(descriptor) => Ok(descriptor),
        Stream::Inherit => own.as_fd().try_clone_to_owned(),
        Stream::Null | Stream::Pipe => Ok(OpenOptions::new().read(true).write(true).open("/dev/null")?.into()),
        Stream::EndedPipe | Stream::SameAsOutput => Err(Errno::EINVAL.into()),
    }
}

/// Makes only our end non-blocking: a stdio program expects its own to block. The two ends of a pipe have separate
/// flags.
fn set_nonblocking(ours: &OwnedFd) -> io::Result<()> {
    // A new pipe end has no other status flag that this could clear.
    fcntl(ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
