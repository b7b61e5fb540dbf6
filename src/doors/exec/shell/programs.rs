//! Programs: started, watched, ended, reaped.

use std::ffi::OsStr;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use log::Level;
use nix::errno::Errno;

use super::super::core::client::ClientEvent;
use super::super::core::reply::{CANNOT_RUN, NOT_FOUND};
use super::super::report::{self, Topic};
use super::connection::Connection;
use super::lookups::Looked;
use super::permits::Unfit;
use super::{ExecDoor, ExecSource};
use crate::amount;
use crate::doors::on_request;
use crate::doors::run::{EndCause, RunEvent};
use crate::process::child::Child;
use crate::process::exit_status::ExitStatus;
use crate::process::failure::{SpawnError, Step};
use crate::process::job::{Escalation, Job, Pipe, Sources};
use crate::process::kill_sequence::{KillEvent, Manner};
use crate::process::spawn::Stdio;
use crate::process::spec::Command;
use crate::process::watchdog;
use crate::reactor::{Context, Key, SourceKind};

/// How many programs are started in one turn: each costs tenths of a millisecond, in which nobody else is served.
const STARTS_PER_TURN: usize = 4;

impl ExecDoor {
    // ---- started -----------------------------------------------------------------------------------------------

    pub(super) fn queue_start(&mut self, cx: &mut Context<'_>, key: Key) {
        self.starting.push_back(key);
        cx.resume_later(ExecSource::Starting.only());
    }

    /// Starts some of the programs that are to be started; the rest in the next turn.
    pub(super) fn start_waiting(&mut self, cx: &mut Context<'_>) {
        for _ in 0..STARTS_PER_TURN {
            let Some(key) = self.starting.pop_front() else { return };
            self.start_program(cx, key);
            self.pump(cx, key);
            if cx.now().elapsed() >= watchdog::SLOW {
                break;
            }
        }
        if !self.starting.is_empty() {
            cx.resume_later(ExecSource::Starting.only());
        }
    }

    fn start_program(&mut self, cx: &mut Context<'_>, key: Key) {
        // It may have been refused, or have gone, while it waited.
        let waits = |connection: &&Connection| connection.client.is_starting();
        let Some(connection) = self.connections.get(key).filter(waits) else {
            return;
        };
        let arguments = connection
            .arguments
            .words()
            .map(|word| OsStr::from_bytes(word).to_owned())
            .collect();
        let mut command = match Command::new(arguments) {
            Ok(command) => command,
            // The reader of requests has seen to it that there is a name.
            Err(empty) => return self.not_started(cx, key, CANNOT_RUN, &empty.to_string()),
        };
        command.client_variables = on_request::asker(connection.conn.socket(), &connection.origin);
        let begun = Instant::now();
        let program = match self.take_looked(key) {
            _ if !self.options.programs.restrict() => match self.spawner.named(command.program()) {
                Ok(program) => program,
                Err(error) => return self.not_started(cx, key, status_of(&error), &error.to_string()),
            },
            Looked::Not => return self.look_up(cx, key, &command),
            asked @ Looked::UnderWay { .. } => return self.put_back(key, asked),
            Looked::Unfit(unfit, _) => return self.forbid(cx, key, &unfit),
            Looked::Fit(fit) => {
                command.argv0 = fit.argv0;
                fit.program
            }
        };
        match self.spawner.spawn_program(&program, &command, Stdio::piped()) {
            Ok(child) => {
                self.times.spawn.record(begun.elapsed());
                self.take_charge_of(cx, key, child);
            }
            Err(error) => self.not_started(cx, key, status_of(&error), &error.to_string()),
        }
    }

    fn take_charge_of(&mut self, cx: &mut Context<'_>, key: Key, child: Child) {
        let job = Job::take_charge(cx, child, sources(key), self.options.kill_timeout);
        let job = match job {
            Ok(job) => job,
            Err(error) => return self.not_started(cx, key, CANNOT_RUN, &format!("cannot watch it: {error}")),
        };
        let pid = job.pid();
        match self.connections.get_mut(key) {
            Some(connection) => {
                connection.program = Some(job);
                report::keep_shown(&mut connection.arguments);
            }
            None => return job.close(cx),
        }
        self.trace(key, format_args!("process {pid}"));
        self.tell(cx, key, ClientEvent::Program(RunEvent::Started));
    }

    fn not_started(&mut self, cx: &mut Context<'_>, key: Key, status: u8, why: &str) {
        self.counters.not_started += 1;
        self.give_none(cx, key, status, why, why);
    }

    /// A list stands between the client and its program: whatever the reason, the client is told the same.
    fn forbid(&mut self, cx: &mut Context<'_>, key: Key, unfit: &Unfit) {
        match unfit {
            Unfit::Forbidden(_) => self.counters.forbidden_programs += 1,
            Unfit::Missing(_) | Unfit::Unanswered => self.counters.not_started += 1,
        }
        let told = "this program is not allowed (--allow-program)";
        self.give_none(cx, key, CANNOT_RUN, told, &unfit.to_string());
    }

    fn put_back(&mut self, key: Key, looked: Looked) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.looked = looked;
        }
    }

    fn take_looked(&mut self, key: Key) -> Looked {
        let connection = self.connections.get_mut(key);
        connection.map_or(Looked::Not, |connection| mem::take(&mut connection.looked))
    }

    /// Tells client and log why a request that was complete is given no program. It has its line as a run has: were some left
    /// out, whoever tries what he may not could hide it behind others.
    fn give_none(&mut self, cx: &mut Context<'_>, key: Key, status: u8, told: &str, why: &str) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let why = on_request::reason(why);
        connection
            .encoder
            .refuse(&on_request::reason(told), status, connection.conn.output_mut());
        log::warn!(
            service:% = self.options.front.name; "{}: {} did not get to run {}: status {status}: {why}",
            self.options.front.name,
            connection.who(),
            report::command(&connection.arguments, self.options.log_arguments)
        );
        self.tell(cx, key, ClientEvent::Program(RunEvent::NotStarted));
    }

    // ---- watched -----------------------------------------------------------------------------------------------

    pub(super) fn pipe_ready(&mut self, cx: &mut Context<'_>, key: Key, which: ExecSource) {
        let Some(program) = self.connections.get_mut(key).and_then(|it| it.program.as_mut()) else {
            return;
        };
        program.ready(match which {
            ExecSource::Stdin => Pipe::Stdin,
            ExecSource::Stdout => Pipe::Stdout,
            _ => Pipe::Stderr,
        });
        self.pump(cx, key);
    }

    pub(super) fn exit_ready(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(program) = self.connections.get_mut(key).and_then(|it| it.program.as_mut()) else {
            return;
        };
        // It is reaped later, when its output has ended; from here on it needs no signal.
        program.escalate(cx, KillEvent::Exited);
        self.tell(cx, key, ClientEvent::Program(RunEvent::Exited));
        self.pump(cx, key);
    }

    // ---- ended -------------------------------------------------------------------------------------------------

    pub(super) fn end_program(&mut self, cx: &mut Context<'_>, key: Key, cause: EndCause) {
        self.log_cause(cx, key, cause);
        self.escalate(cx, key, KillEvent::Stop(Manner::Promptly));
    }

    pub(super) fn kill_program(&mut self, cx: &mut Context<'_>, key: Key) {
        self.escalate(cx, key, KillEvent::Stop(Manner::AtOnce));
    }

    pub(super) fn ending_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(program) = self.connections.get_mut(key).and_then(|it| it.program.as_mut()) {
            program.alarm_fired(cx);
            self.escalate(cx, key, KillEvent::Deadline);
            self.pump(cx, key);
        }
    }

    fn escalate(&mut self, cx: &mut Context<'_>, key: Key, event: KillEvent) {
        let Some(program) = self.connections.get_mut(key).and_then(|it| it.program.as_mut()) else {
            return;
        };
        let (
            pid,
            Escalation {
                killed,
                failed,
                given_up,
            },
        ) = (program.pid(), program.escalate(cx, event));
        if killed {
            self.counters.killed += 1;
        }
        if let Some(error) = failed {
            // The next step of the escalation follows all the same.
            let line = format_args!("cannot signal process {pid} and its group: {error}");
            self.note(cx, Level::Error, Topic::System, line);
        }
        if given_up {
            let line = format_args!("process {pid} does not end, not even by KILL, and is given up");
            self.note(cx, Level::Error, Topic::System, line);
            self.tell(cx, key, ClientEvent::Program(RunEvent::Unkillable));
        }
    }

    pub(super) fn close_streams(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.end_input();
            if let Some(program) = &mut connection.program {
                program.close_streams();
            }
        }
    }

    pub(super) fn cut_output(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.program.as_mut().is_some_and(Job::cut_output) {
            let origin = connection.origin.clone();
            self.counters.cut += 1;
            let line = format_args!("{origin}: something held the output open beyond --linger, and was not waited for");
            self.note(cx, Level::Info, Topic::Cut, line);
        }
    }

    /// Ends what is left of its group, unless it is meant to go on, and takes its status.
    pub(super) fn reap(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Some(program) = &mut connection.program else { return };
        let (pid, ran) = (program.pid(), cx.now().saturating_duration_since(program.started()));
        let reaped = program.reap();
        let (left, origin) = (program.has_left_background(), connection.origin.clone());
        connection.status = reaped.as_ref().ok().copied().flatten();
        connection.ran = Some(ran);
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
        if left {
            self.counters.background += 1;
            let line = format_args!("{origin}: what process {pid} has left in the background goes on");
            self.note(cx, Level::Info, Topic::Background, line);
        }
    }

    /// Tells the log of a run, and counts its bytes, once no more of its output is read. That is later than it is reaped where
    /// some of that lies in its pipes by then.
    pub(super) fn log_run(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Some(ran) = connection.ran.take() else { return };
        let bytes = connection.bytes;
        self.traffic.input += bytes.input;
        self.traffic.output += bytes.output;
        self.traffic.errors += bytes.errors;
        let status = connection
            .status
            .map_or_else(|| "unknown".to_owned(), |status| status.to_string());
        log::info!(
            service:% = self.options.front.name; "{}: {} ran {}: {status} after {}, {} bytes in, {} out, {} err",
            self.options.front.name,
            connection.who(),
            report::command(&connection.arguments, self.options.log_arguments),
            amount::span(ran),
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

fn sources(key: Key) -> Sources {
    Sources {
        stdin: ExecSource::Stdin.at(key),
        stdout: ExecSource::Stdout.at(key),
        stderr: ExecSource::Stderr.at(key),
        exit: ExecSource::Exit.at(key),
        ending: ExecSource::Ending.at(key),
    }
}
