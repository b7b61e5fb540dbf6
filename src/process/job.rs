//! A program that runs for a client, on the loop: a child, the readiness of its pipes, and the steps to its end.
//!
//! The life of a job: its owner [takes charge](Job::take_charge) of a child that was just started, which registers its
//! pipes and its pidfd. The readiness of a pipe is [kept](Job::mark_ready) until a read or a write returns WouldBlock,
//! so no call is made in vain. The events of [`kill_sequence`](super::kill_sequence) [escalate](Job::escalate) its end.
//! When it has exited, processes that it has started may still hold its outputs open; [`Job::cut_output`] bounds the
//! bytes that are read then. It is [reaped](Job::reap) with its group, and must be [closed](Job::close) before it is
//! dropped.
//!
//! Invariants: an output ends once and is then closed, and the end of the input is passed on once. The owner decides
//! when the program must end, and owns the bytes.

use std::fmt;
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
use crate::amount;
use crate::reactor::{Alarm, Context, Source};

/// The sources of a job on the loop, numbered by its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sources {
    /// The job's standard input, writable.
    pub stdin: Source,
    /// The job's standard output, readable.
    pub stdout: Source,
    /// The job's standard error, readable.
    pub stderr: Source,
    /// The job's pidfd, readable once the program has exited.
    pub exit: Source,
    /// The alarm of the job's kill sequence.
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

/// The outcome of one read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// This number of bytes was moved, and there may be more.
    Bytes(usize),
    /// Nothing can be moved before another edge, or nothing is left to be moved.
    Nothing,
    /// The pipe has ended with this call.
    Over,
}

/// The outcome of a step towards the end of the program.
#[derive(Debug, Default)]
pub struct Escalation {
    /// True if it was sent KILL.
    pub killed: bool,
    /// The reason why it could not be signalled. The next step follows all the same.
    pub failed: Option<io::Error>,
    /// True if not even KILL has ended it.
    pub given_up: bool,
}

/// The bytes that have gone to a program and come from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes into standard input.
    pub input: u64,
    /// Bytes out of standard output.
    pub output: u64,
    /// Bytes out of standard error.
    pub errors: u64,
}

/// The exit of a program that was reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit status; `None` if it could not be read.
    pub status: Option<ExitStatus>,
    /// The time that the program ran.
    pub ran: Duration,
}

/// The status and the time, as the line about a run has them.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => status.fmt(f)?,
            None => f.write_str("unknown")?,
        }
        write!(f, " after {}", amount::span(self.ran))
    }
}

/// One program that runs.
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
    /// True if another process had an output open when the program was reaped.
    held: bool,
    traffic: Traffic,
    exit: Option<Exit>,
}

/// The reading of an output.
#[derive(Debug, Clone, Copy)]
struct Tap {
    ready: bool,
    /// The number of bytes that are still read; `None` for everything until the end.
    left: Option<usize>,
}

impl Tap {
    /// An output of a program that was just started, which has hardly written anything yet. If it has, the next poll
    /// reports it.
    const OPEN: Tap = Tap {
        ready: false,
        left: None,
    };
}

impl Job {
    /// Takes charge of a child that was just started. `kill_timeout` is the time from TERM to KILL.
    ///
    /// # Errors
    /// The child cannot be watched (epoll_ctl(2): ENOMEM, ENOSPC), and has been killed.
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
            traffic: Traffic::default(),
            exit: None,
        })
    }

    /// Returns the process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.child.pid()
    }

    /// Returns the time of the start.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// Returns the bytes that were written to it and read from it.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Returns its exit, which is there from its reaping until it is taken.
    #[must_use]
    pub const fn exit(&self) -> Option<Exit> {
        self.exit
    }

    /// Takes its exit, which is there once it is reaped.
    pub const fn take_exit(&mut self) -> Option<Exit> {
        self.exit.take()
    }

    // ---- its bytes ---------------------------------------------------------------------------------------------

    /// Marks a pipe as ready. Must be called at each of its edges.
    pub const fn mark_ready(&mut self, pipe: Pipe) {
        match pipe {
            Pipe::Stdin => self.stdin_ready = true,
            Pipe::Stdout => self.stdout.ready = true,
            Pipe::Stderr => self.stderr.ready = true,
        }
    }

    /// Returns true if its input has neither ended nor been closed by the program.
    #[must_use]
    pub const fn takes_input(&self) -> bool {
        self.child.stdin.is_some()
    }

    /// Ends its input.
    pub fn end_input(&mut self) {
        self.child.end_input();
    }

    /// Writes to its input. If the program has closed its input, that is no error: the input has ended.
    pub fn write_input(&mut self, bytes: &[u8]) -> Moved {
        let Some(stdin) = self.child.stdin.as_mut().filter(|_| self.stdin_ready) else {
            return Moved::Nothing;
        };
        loop {
            match stdin.write(bytes) {
                Ok(count) => {
                    self.traffic.input += count as u64;
                    return Moved::Bytes(count);
                }
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

    /// Reads an output into `buffer`, which must not be empty.
    pub fn read_output(&mut self, pipe: Pipe, buffer: &mut [u8]) -> Moved {
        let (source, tap, total) = match pipe {
            Pipe::Stdin => return Moved::Nothing,
            Pipe::Stdout => (&mut self.child.stdout, &mut self.stdout, &mut self.traffic.output),
            Pipe::Stderr => (&mut self.child.stderr, &mut self.stderr, &mut self.traffic.errors),
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
                *total += count as u64;
                Moved::Bytes(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && tap.left.is_none() => {
                tap.ready = false;
                Moved::Nothing
            }
            // Another reader has taken the rest, or the pipe cannot be read for a reason that read(2) does not know.
            Err(_) => {
                *source = None;
                Moved::Over
            }
        }
    }

    /// Limits the reading of its outputs to the bytes that are in them now, because a process that still holds them
    /// open is not waited for. Returns true if there was such a process when the program was [reaped](Self::reap).
    /// Otherwise nothing is lost: the outputs were only read slowly.
    pub fn cut_output(&mut self) -> bool {
        let rest = |pipe: &Option<Receiver>| pipe.as_ref().map_or(0, |pipe| unread_bytes(pipe).unwrap_or(0));
        self.stdout.left = Some(rest(&self.child.stdout));
        self.stderr.left = Some(rest(&self.child.stderr));
        self.held
    }

    /// Closes all its streams, which are not wanted any more.
    pub fn close_streams(&mut self) {
        self.end_input();
        (self.child.stdout, self.child.stderr) = (None, None);
    }

    // ---- its end -----------------------------------------------------------------------------------------------

    /// Carries out the steps of the kill sequence that follow an event.
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
                // The owner decides when the program is reaped.
                KillStep::Reap => {}
                KillStep::GiveUp => done.given_up = true,
            }
        }
        cx.set_alarm(&mut self.alarm, self.sources.ending, self.kill_sequence.deadline());
        done
    }

    /// Sends a signal to the program and its group, as its client has asked.
    ///
    /// # Errors
    /// As [`Child::kill_group`].
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.child.kill_group(signal)
    }

    /// Disarms the alarm of the kill sequence, which has gone off.
    pub fn clear_alarm(&mut self, cx: &Context<'_>) {
        cx.clear_alarm(&mut self.alarm);
    }

    /// Ends the rest of its group, unless that is meant to go on, and keeps its [exit](Self::take_exit). Must be called
    /// once, when it has exited. Returns the exit status, or `None` if it has not exited.
    ///
    /// # Errors
    /// As [`Child::reap_with_group`].
    pub fn reap(&mut self, now: Instant) -> io::Result<Option<ExitStatus>> {
        self.held = is_held(self.child.stdout.as_ref()) || is_held(self.child.stderr.as_ref());
        let reaped = self.child.reap_with_group();
        self.exit = Some(Exit {
            status: reaped.as_ref().ok().copied().flatten(),
            ran: now.saturating_duration_since(self.started),
        });
        reaped
    }

    /// Returns true if it was reaped and has left background processes that go on.
    #[must_use]
    pub const fn has_left_background(&self) -> bool {
        self.child.has_left_background()
    }

    /// Disarms the alarm and drops the child. One that is not reaped is killed with its group.
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

/// Returns true if a process has the other end of this pipe open. A pipe hangs up when the last one closes it, whatever
/// bytes it holds (poll(2)).
fn is_held(pipe: Option<&Receiver>) -> bool {
    let Some(pipe) = pipe else { return false };
    let mut asked = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    // After a failure (EINTR, ENOMEM) the pipe counts as held, because a process that has taken this long usually holds
    // it.
    let _ = poll(&mut asked, PollTimeout::ZERO);
    let [asked] = asked;
    !asked.revents().is_some_and(|found| found.contains(PollFlags::POLLHUP))
}

/// Reads from a pipe. An empty `buffer` counts as the end.
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
