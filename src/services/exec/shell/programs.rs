//! Programs: started, watched, ended, reaped.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use log::Level;
use mio::Interest;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::super::core::reply::{self, CANNOT_RUN, NOT_FOUND};
use super::super::core::run::{Cause, Event, State};
use super::super::report::{self, Topic};
use super::connection::{Connection, Program, Tap};
use super::{ExecDoor, Of};
use crate::process::child::Child;
use crate::process::exit_status::ExitStatus;
use crate::process::failure::{SpawnError, Step};
use crate::process::reaper::{self, Manner};
use crate::process::spawn::{Spawner, Stdio};
use crate::process::spec::ProcessSpec;
use crate::process::unread_bytes;
use crate::reactor::{Alarm, Context, Key};

/// How many programs are started in one turn: each costs tenths of a millisecond, in which nobody else is served.
const STARTS_PER_TURN: usize = 4;

impl ExecDoor {
    // ---- started -----------------------------------------------------------------------------------------------

    pub(super) fn queue_start(&mut self, cx: &mut Context<'_>, key: Key) {
        self.starting.push_back(key);
        cx.resume_later(Of::Starting.only());
    }

    /// Starts some of the programs that are to be started; the rest in the next turn.
    pub(super) fn start_waiting(&mut self, cx: &mut Context<'_>) {
        for _ in 0..STARTS_PER_TURN {
            let Some(key) = self.starting.pop_front() else { return };
            self.start_program(cx, key);
            self.pump(cx, key);
        }
        if !self.starting.is_empty() {
            cx.resume_later(Of::Starting.only());
        }
    }

    fn start_program(&mut self, cx: &mut Context<'_>, key: Key) {
        // It may have been refused, or have gone, while it waited.
        let waits = |connection: &&Connection| connection.run.state() == State::Starting;
        let Some(connection) = self.connections.get(key).filter(waits) else {
            return;
        };
        let arguments = connection.arguments.iter().cloned().map(OsString::from_vec).collect();
        let spawned = match ProcessSpec::new(arguments) {
            Ok(spec) => Spawner::prepare(&spec, &self.spawn_defaults).and_then(|mut it| it.spawn(Stdio::piped())),
            // The reader of requests has seen to it that there is a name.
            Err(empty) => return self.not_started(cx, key, CANNOT_RUN, &empty.to_string()),
        };
        match spawned {
            Ok(child) => self.has_started(cx, key, child),
            Err(error) => self.not_started(cx, key, status_of(&error), &error.to_string()),
        }
    }

    fn has_started(&mut self, cx: &mut Context<'_>, key: Key, mut child: Child) {
        self.guard.watch(child.pid());
        if let Err(error) = register(cx, key, &mut child) {
            // Dropped, it is killed with its group, and reaped; the guard kills an empty group once, or forgets it now.
            let _ = child.kill_group(Signal::SIGKILL);
            self.guard.forget(child.pid());
            drop(child);
            return self.not_started(cx, key, CANNOT_RUN, &format!("cannot watch it: {error}"));
        }
        let pid = child.pid();
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.program = Some(Program {
            child,
            ending: reaper::Ending::new(self.options.kill_timeout),
            ending_alarm: Alarm::default(),
            started: cx.now(),
            stdin_ready: true,
            stdout: Tap::OPEN,
            stderr: Tap::OPEN,
        });
        self.trace(key, format_args!("process {pid}"));
        self.tell(cx, key, Event::Started);
    }

    fn not_started(&mut self, cx: &mut Context<'_>, key: Key, status: u8, why: &str) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        reply::refusal(why, status, connection.output.end());
        let peer = connection.peer;
        self.counters.not_started += 1;
        self.note(cx, Level::Warn, Topic::Spawn, format_args!("{peer}: {why}"));
        self.tell(cx, key, Event::NotStarted);
    }

    // ---- watched -----------------------------------------------------------------------------------------------

    pub(super) fn pipe_ready(&mut self, cx: &mut Context<'_>, key: Key, which: Of) {
        let Some(program) = self.connections.get_mut(key).and_then(|it| it.program.as_mut()) else {
            return;
        };
        match which {
            Of::Stdin => program.stdin_ready = true,
            Of::Stdout => program.stdout.ready = true,
            _ => program.stderr.ready = true,
        }
        self.pump(cx, key);
    }

    pub(super) fn exit_ready(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(program) = self.connections.get_mut(key).and_then(|it| it.program.as_mut()) else {
            return;
        };
        // It is reaped later, when its output has ended; from here on it needs no signal.
        let _ = program.ending.handle(reaper::Event::Exited, cx.now());
        cx.set_alarm(&mut program.ending_alarm, Of::Ending.of(key), None);
        self.tell(cx, key, Event::Exited);
        self.pump(cx, key);
    }

    // ---- ended -------------------------------------------------------------------------------------------------

    pub(super) fn end_program(&mut self, cx: &mut Context<'_>, key: Key, cause: Cause) {
        self.log_cause(cx, key, cause);
        self.on_ladder(cx, key, reaper::Event::Stop(Manner::Promptly));
    }

    pub(super) fn kill_program(&mut self, cx: &mut Context<'_>, key: Key) {
        self.on_ladder(cx, key, reaper::Event::Stop(Manner::AtOnce));
    }

    pub(super) fn ending_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(program) = self.connections.get_mut(key).and_then(|it| it.program.as_mut()) {
            cx.alarm_fired(&mut program.ending_alarm);
            self.on_ladder(cx, key, reaper::Event::Deadline);
            self.pump(cx, key);
        }
    }

    fn on_ladder(&mut self, cx: &mut Context<'_>, key: Key, event: reaper::Event) {
        let Some(program) = self.connections.get_mut(key).and_then(|it| it.program.as_mut()) else {
            return;
        };
        let (mut failed, mut given_up) = (None, false);
        for action in program.ending.handle(event, cx.now()) {
            match action {
                reaper::Action::CloseStdin => program.child.end_input(),
                reaper::Action::Terminate => failed = program.child.terminate_group().err(),
                reaper::Action::Kill => {
                    self.counters.killed += 1;
                    failed = program.child.kill_group(Signal::SIGKILL).err();
                }
                // Its exit is told by its pidfd alone.
                reaper::Action::Reap => {}
                reaper::Action::GiveUp => given_up = true,
            }
        }
        let (deadline, pid) = (program.ending.deadline(), program.child.pid());
        cx.set_alarm(&mut program.ending_alarm, Of::Ending.of(key), deadline);
        if let Some(error) = failed {
            // The next rung comes all the same.
            let line = format_args!("cannot signal process {pid} and its group: {error}");
            self.note(cx, Level::Error, Topic::System, line);
        }
        if given_up {
            let line = format_args!("process {pid} does not end, not even by KILL, and is given up");
            self.note(cx, Level::Error, Topic::System, line);
            self.tell(cx, key, Event::Undying);
        }
    }

    pub(super) fn forsake(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.end_input();
            if let Some(program) = &mut connection.program {
                (program.child.stdout, program.child.stderr) = (None, None);
            }
        }
    }

    /// What lies in the pipes now is all that is still read of them.
    pub(super) fn cut_output(&mut self, key: Key) {
        let Some(program) = self.connections.get_mut(key).and_then(|it| it.program.as_mut()) else {
            return;
        };
        let Program {
            child, stdout, stderr, ..
        } = program;
        let rest = |pipe: &Option<_>| pipe.as_ref().map_or(0, |pipe| unread_bytes(pipe).unwrap_or(0));
        stdout.left = Some(rest(&child.stdout));
        stderr.left = Some(rest(&child.stderr));
    }

    /// Kills what is left of its group, takes its status, and tells the log of the run.
    pub(super) fn reap(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Some(program) = &mut connection.program else { return };
        let (pid, ran) = (program.child.pid(), cx.now().saturating_duration_since(program.started));
        let reaped = program.child.reap_with_group(&mut self.guard);
        connection.status = reaped.as_ref().ok().copied().flatten();
        match connection.status {
            Some(status) if status.success() => self.counters.exit_zero += 1,
            Some(ExitStatus::Code(_)) => self.counters.exit_nonzero += 1,
            Some(ExitStatus::Signal { .. }) => self.counters.exit_signal += 1,
            None => {
                let line = format_args!("cannot take the status of process {pid}: {reaped:?}");
                self.note(cx, Level::Error, Topic::System, line);
            }
        }
        self.times.run.record(ran);
        self.log_run(key, ran);
    }

    fn log_run(&mut self, key: Key, ran: std::time::Duration) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let bytes = connection.bytes;
        self.traffic.input += bytes.input;
        self.traffic.output += bytes.output;
        self.traffic.errors += bytes.errors;
        let user = connection.stream.peer_credentials().ok().flatten();
        let user = user.map(|user| format!(" ({user})")).unwrap_or_default();
        let status = connection
            .status
            .map_or_else(|| "unknown".to_owned(), |status| status.to_string());
        log::info!(
            "{}: {}{user} ran {}: {status} after {ran:.3?}, {} bytes in, {} out, {} err",
            self.options.name,
            connection.peer,
            report::command(&connection.arguments, self.options.log_arguments),
            bytes.input,
            bytes.output,
            bytes.errors
        );
    }
}

/// What a shell would end with.
fn status_of(error: &SpawnError) -> u8 {
    match (error.step, error.errno) {
        (Step::Lookup | Step::Exec, Errno::ENOENT | Errno::ENOTDIR) => NOT_FOUND,
        _ => CANNOT_RUN,
    }
}

fn register(cx: &Context<'_>, key: Key, child: &mut Child) -> std::io::Result<()> {
    if let Some(stdin) = &mut child.stdin {
        cx.register(Of::Stdin.of(key), stdin, Interest::WRITABLE)?;
    }
    if let Some(stdout) = &mut child.stdout {
        cx.register(Of::Stdout.of(key), stdout, Interest::READABLE)?;
    }
    if let Some(stderr) = &mut child.stderr {
        cx.register(Of::Stderr.of(key), stderr, Interest::READABLE)?;
    }
    cx.register(Of::Exit.of(key), child.pidfd(), Interest::READABLE)
}
