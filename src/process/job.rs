//! A program that is run for somebody on the loop: a child, the edges of its pipes, and how it is brought to its end.
//!
//! The life of a job: its owner [takes charge](Job::take_charge) of a child that was just started, which registers
//! its pipes and its pidfd. Edges are [kept](Job::ready) until a read or a write says WouldBlock, so that
//! no call is made in vain. It is [escalated](Job::escalate) on its way out by the events of [`kill_sequence`]. When it has exited, its
//! outputs may still be held open by what it has started; [`Job::cut_output`] bounds what is read of them. It is
//! [reaped](Job::reap) with its group, and [closed](Job::close) before it is dropped.
//!
//! What holds: an output is over once, and then closed; the end of the input is given once. What does not belong here: when it
//! is to end, and whose bytes they are. That is its owner's.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mio::Interest;
use mio::unix::pipe::Receiver;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::child::Child;
use super::exit_status::ExitStatus;
use super::kill_sequence::{KillEvent, KillSequence, KillStep};
use super::unread_bytes;
use crate::reactor::{Alarm, Context, Source};

/// What a job's parts are called on the loop; its owner's to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sources {
    /// Its standard input, writable.
    pub stdin: Source,
    /// Its standard output, readable.
    pub stdout: Source,
    /// Its standard error, readable.
    pub stderr: Source,
    /// Its pidfd: it has exited.
    pub exit: Source,
    /// The alarm of its ending.
    pub ending: Source,
}

/// One of the pipes between a job and its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipe {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What an attempt to move bytes has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many were; there may be more.
    Bytes(usize),
    /// Nothing can be moved before there is another edge; or there is nothing left to be moved.
    Nothing,
    /// That pipe is over, as of now.
    Over,
}

/// What a step towards its end has come to.
#[derive(Debug, Default)]
pub struct Escalation {
    /// It was sent KILL.
    pub killed: bool,
    /// It could not be signalled. The next step comes all the same.
    pub failed: Option<io::Error>,
    /// Not even KILL has ended it.
    pub given_up: bool,
}

/// One program that is run.
#[derive(Debug)]
pub struct Job {
    child: Child,
    sources: Sources,
    kill_sequence: KillSequence,
    alarm: Alarm,
    started: Instant,
    stdin_ready: bool,
    stdout: Tap,
    stderr: Tap,
    /// Whether something had an output open when it was reaped.
    held: bool,
}

/// How an output is read.
#[derive(Debug, Clone, Copy)]
struct Tap {
    ready: bool,
    /// So much of it is still read; `None`: everything until its end.
    left: Option<usize>,
}

impl Tap {
    const OPEN: Tap = Tap {
        ready: true,
        left: None,
    };
}

impl Job {
    /// Takes charge of a child that was just started. From TERM to KILL it is given `kill_timeout`.
    ///
    /// # Errors
    /// It cannot be watched (epoll_ctl(2): ENOMEM, ENOSPC), and has been killed.
    pub fn take_charge(
        cx: &Context<'_>,
        mut child: Child,
        sources: Sources,
        kill_timeout: Duration,
    ) -> io::Result<Job> {
        // A child that is dropped is killed with its group.
        register(cx, sources, &mut child)?;
        Ok(Job {
            child,
            sources,
            kill_sequence: KillSequence::new(kill_timeout),
            alarm: Alarm::default(),
            started: cx.now(),
            stdin_ready: true,
            stdout: Tap::OPEN,
            stderr: Tap::OPEN,
            held: false,
        })
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.child.pid()
    }

    /// When it was started.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    // ---- its bytes ---------------------------------------------------------------------------------------------

    /// There was an edge: this pipe may be good for something.
    pub const fn ready(&mut self, pipe: Pipe) {
        match pipe {
            Pipe::Stdin => self.stdin_ready = true,
            Pipe::Stdout => self.stdout.ready = true,
            Pipe::Stderr => self.stderr.ready = true,
        }
    }

    /// Whether its input has neither ended nor been closed by it.
    #[must_use]
    pub const fn takes_input(&self) -> bool {
        self.child.stdin.is_some()
    }

    /// Ends its input.
    pub fn end_input(&mut self) {
        self.child.end_input();
    }

    /// Writes into its input, which is over when it has closed that: it wants none, which is its own affair.
    pub fn write_input(&mut self, bytes: &[u8]) -> Moved {
        let Some(stdin) = self.child.stdin.as_mut().filter(|_| self.stdin_ready) else {
            return Moved::Nothing;
        };
        loop {
            match stdin.write(bytes) {
                Ok(count) => return Moved::Bytes(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stdin_ready = false;
                    return Moved::Nothing;
                }
                // EPIPE.
                Err(_) => {
                    self.end_input();
                    return Moved::Over;
                }
            }
        }
    }

    /// Reads an output, as much as there is room for; `buffer` is not empty.
    pub fn read_output(&mut self, pipe: Pipe, buffer: &mut [u8]) -> Moved {
        let (source, tap) = match pipe {
            Pipe::Stdin => return Moved::Nothing,
            Pipe::Stdout => (&mut self.child.stdout, &mut self.stdout),
            Pipe::Stderr => (&mut self.child.stderr, &mut self.stderr),
        };
        let Some(output) = source.as_ref().filter(|_| tap.ready || tap.left.is_some()) else {
            return Moved::Nothing;
        };
        let room = buffer.len().min(tap.left.unwrap_or(usize::MAX));
        match read(output, buffer.get_mut(..room).unwrap_or_default()) {
            Ok(0) => {
                *source = None;
                Moved::Over
            }
            Ok(count) => {
                tap.left = tap.left.map(|left| left.saturating_sub(count));
                Moved::Bytes(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && tap.left.is_none() => {
                tap.ready = false;
                Moved::Nothing
            }
            // Somebody else has taken the rest; or a pipe that cannot be read, which read(2) does not know.
            Err(_) => {
                *source = None;
                Moved::Over
            }
        }
    }

    /// A process that still holds its outputs open is not waited for: what lies in them now is all that is still read of them.
    /// Whether anybody did when it was [reaped](Self::reap); if not, nothing is lost, and it was only read slowly.
    pub fn cut_output(&mut self) -> bool {
        let rest = |pipe: &Option<Receiver>| pipe.as_ref().map_or(0, |pipe| unread_bytes(pipe).unwrap_or(0));
        self.stdout.left = Some(rest(&self.child.stdout));
        self.stderr.left = Some(rest(&self.child.stderr));
        self.held
    }

    /// Its streams are not wanted any more.
    pub fn close_streams(&mut self) {
        self.end_input();
        (self.child.stdout, self.child.stderr) = (None, None);
    }

    // ---- its end -----------------------------------------------------------------------------------------------

    /// A step on the way out.
    pub fn escalate(&mut self, cx: &mut Context<'_>, event: KillEvent) -> Escalation {
        let mut done = Escalation::default();
        for action in self.kill_sequence.handle(event, cx.now()) {
            match action {
                KillStep::CloseStdin => self.child.end_input(),
                KillStep::Terminate => done.failed = self.child.terminate_group().err(),
                KillStep::Kill => {
                    done.killed = true;
                    done.failed = self.child.kill_group(Signal::SIGKILL).err();
                }
                // When that is done is its owner's to decide.
                KillStep::Reap => {}
                KillStep::GiveUp => done.given_up = true,
            }
        }
        cx.set_alarm(&mut self.alarm, self.sources.ending, self.kill_sequence.deadline());
        done
    }

    /// Sends it and its group a signal that a client has asked for.
    ///
    /// # Errors
    /// As [`Child::kill_group`].
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.child.kill_group(signal)
    }

    /// The alarm of its ending has gone off.
    pub fn alarm_fired(&mut self, cx: &Context<'_>) {
        cx.alarm_fired(&mut self.alarm);
    }

    /// Kills what is left of its group, unless it is meant to go on, and takes its status; `None` while it runs.
    ///
    /// # Errors
    /// As [`Child::reap_with_group`].
    pub fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        self.held = is_held(self.child.stdout.as_ref()) || is_held(self.child.stderr.as_ref());
        self.child.reap_with_group()
    }

    /// Whether it was reaped and has left something in the background that goes on.
    #[must_use]
    pub const fn has_left_background(&self) -> bool {
        self.child.has_left_background()
    }

    /// Lets go of it. A child that is not reaped is killed with its group.
    pub fn close(mut self, cx: &mut Context<'_>) {
        cx.set_alarm(&mut self.alarm, self.sources.ending, None);
    }
}

fn register(cx: &Context<'_>, sources: Sources, child: &mut Child) -> io::Result<()> {
    if let Some(stdin) = &mut child.stdin {
        cx.register(sources.stdin, stdin, Interest::WRITABLE)?;
    }
    if let Some(stdout) = &mut child.stdout {
        cx.register(sources.stdout, stdout, Interest::READABLE)?;
    }
    if let Some(stderr) = &mut child.stderr {
        cx.register(sources.stderr, stderr, Interest::READABLE)?;
    }
    cx.register(sources.exit, child.pidfd(), Interest::READABLE)
}

/// Whether a process has the other end of this pipe: a pipe hangs up with the last of them, whatever lies in it (poll(2)).
fn is_held(pipe: Option<&Receiver>) -> bool {
    let Some(pipe) = pipe else { return false };
    let mut asked = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    // A failure (EINTR, ENOMEM) leaves it unknown: then it is taken for held, as a process that is awaited for so long mostly is.
    let _ = poll(&mut asked, PollTimeout::ZERO);
    let [asked] = asked;
    !asked.revents().is_some_and(|found| found.contains(PollFlags::POLLHUP))
}

/// Nothing is read where there is no room for anything, which is an end as well.
fn read(mut pipe: &Receiver, buffer: &mut [u8]) -> io::Result<usize> {
    if buffer.is_empty() {
        return Ok(0);
    }
    loop {
        match pipe.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
