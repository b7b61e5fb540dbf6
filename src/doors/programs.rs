//! The programs of a door that runs them for its clients: the part of the shell that the exec and the command door have
//! in common.
//!
//! A door implements [`RunsPrograms`] over the [`Job`] that it keeps for each run. The methods that the trait provides
//! start programs in their turn, take the steps of a [`Run`](super::run::Run), escalate from TERM to KILL, reap, and
//! report to the run each exit. The door itself prepares a start, moves the bytes, and logs a run that is over.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use log::Level;

use super::run::{EndCause, RunEvent, RunStep};
use crate::process::exit_status::ExitStatus;
use crate::process::job::{Escalation, Job};
use crate::process::kill_sequence::{KillEvent, Manner};
use crate::process::watchdog;
use crate::reactor::{Context, Source};

/// The number of programs that are started in one turn. Each start takes tenths of a millisecond, in which no client is
/// served.
const STARTS_PER_TURN: usize = 4;

/// An event that a door counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProgramCount {
    /// A program was sent KILL.
    Killed,
    /// The outputs of a program were cut while another process had them open.
    Cut,
    /// A program has left processes that go on in the background.
    Background,
    /// A program has exited with status 0.
    ExitZero,
    /// A program has exited with another status.
    ExitNonzero,
    /// A program was ended by a signal.
    ExitSignal,
}

/// The subject of a log line. The door has a topic for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProgramTopic {
    /// An output that was cut.
    Cut,
    /// Processes in the background.
    Background,
    /// A failed system call.
    System,
}

/// A door that runs programs for its clients.
pub(super) trait RunsPrograms {
    /// The key of a run.
    type Id: Copy;

    /// The source that is resumed while programs wait to be started.
    fn starting_source() -> Source;
    /// The runs whose programs wait to be started.
    fn starting(&mut self) -> &mut VecDeque<Self::Id>;
    /// Starts the program of a run, unless the run was cancelled while it waited.
    fn start_program(&mut self, cx: &mut Context<'_>, id: Self::Id);
    /// The program of a run; `None` before its start and after the run.
    fn job(&mut self, id: Self::Id) -> Option<&mut Job>;
    /// The client of a run, as log lines name it.
    fn peer(&self, id: Self::Id) -> String;
    /// Closes the input of a program, and drops what waits for it.
    fn end_input(&mut self, id: Self::Id);
    /// Logs the reason for which a program is about to be ended.
    fn log_end(&mut self, cx: &mut Context<'_>, id: Self::Id, cause: EndCause);
    /// Keeps the exit status of a program that has run for `ran`. `None`: it could not be read.
    fn keep_status(&mut self, id: Self::Id, status: Option<ExitStatus>, ran: Duration);
    /// Reads what is left in the pipes of a program whose output was cut, or leaves that to
    /// [`pump_program`](Self::pump_program).
    fn read_rest(&mut self, cx: &mut Context<'_>, id: Self::Id);
    /// Reports an event to the run.
    fn tell_run(&mut self, cx: &mut Context<'_>, id: Self::Id, event: RunEvent);
    /// Moves the bytes of a run.
    fn pump_program(&mut self, cx: &mut Context<'_>, id: Self::Id);
    /// Counts an event.
    fn count(&mut self, what: ProgramCount);
    /// Writes a line to the door's log.
    fn note_program(&mut self, cx: &mut Context<'_>, level: Level, topic: ProgramTopic, line: fmt::Arguments<'_>);

    /// Starts a program when it is its turn.
    fn queue_start(&mut self, cx: &mut Context<'_>, id: Self::Id) {
        self.starting().push_back(id);
        cx.resume_later(Self::starting_source());
    }

    /// Starts some of the programs that wait for that, and leaves the rest to the next turn.
    fn start_waiting(&mut self, cx: &mut Context<'_>) {
        for _ in 0..STARTS_PER_TURN {
            let Some(id) = self.starting().pop_front() else { return };
            self.start_program(cx, id);
            self.pump_program(cx, id);
            if cx.now().elapsed() >= watchdog::SLOW {
                break;
            }
        }
        if !self.starting().is_empty() {
            cx.resume_later(Self::starting_source());
        }
    }

    /// Takes one step of a run.
    fn take_step(&mut self, cx: &mut Context<'_>, id: Self::Id, step: RunStep) {
        match step {
            RunStep::EndInput => self.end_input(id),
            RunStep::End(cause) => {
                self.log_end(cx, id, cause);
                self.escalate(cx, id, KillEvent::Stop(Manner::Promptly));
            }
            RunStep::Kill => self.escalate(cx, id, KillEvent::Stop(Manner::AtOnce)),
            RunStep::CloseStreams => {
                self.end_input(id);
                if let Some(job) = self.job(id) {
                    job.close_streams();
                }
            }
            RunStep::Reap => self.reap(cx, id),
            RunStep::CutOutput => self.cut_output(cx, id),
        }
    }

    /// Must be called when the pidfd of a program is readable. The program is reaped when its outputs have ended.
    fn exit_ready(&mut self, cx: &mut Context<'_>, id: Self::Id) {
        if let Some(job) = self.job(id) {
            job.escalate(cx, KillEvent::Exited);
            self.tell_run(cx, id, RunEvent::Exited);
            self.pump_program(cx, id);
        }
    }

    /// Must be called when the alarm of a program's kill sequence has gone off.
    fn kill_timeout(&mut self, cx: &mut Context<'_>, id: Self::Id) {
        if let Some(job) = self.job(id) {
            job.alarm_fired(cx);
            self.escalate(cx, id, KillEvent::Deadline);
            self.pump_program(cx, id);
        }
    }

    /// Takes the steps of the kill sequence that an event calls for.
    fn escalate(&mut self, cx: &mut Context<'_>, id: Self::Id, event: KillEvent) {
        let Some(job) = self.job(id) else { return };
        let pid = job.pid();
        let Escalation {
            killed,
            failed,
            given_up,
        } = job.escalate(cx, event);
        if killed {
            self.count(ProgramCount::Killed);
        }
        if let Some(error) = failed {
            // The next step follows at its time all the same.
            let line = format_args!("cannot signal process {pid} and its group: {error}");
            self.note_program(cx, Level::Error, ProgramTopic::System, line);
        }
        if given_up {
            let line = format_args!("process {pid} does not end, not even by KILL, and is given up");
            self.note_program(cx, Level::Error, ProgramTopic::System, line);
            self.tell_run(cx, id, RunEvent::Unkillable);
        }
    }

    /// Kills the rest of a program's process group, unless it is meant to go on, and takes the exit status.
    fn reap(&mut self, cx: &mut Context<'_>, id: Self::Id) {
        let Some(job) = self.job(id) else { return };
        let (pid, ran) = (job.pid(), cx.now().saturating_duration_since(job.started()));
        let reaped = job.reap();
        let has_left_background = job.has_left_background();
        let status = reaped.as_ref().ok().copied().flatten();
        self.keep_status(id, status, ran);
        match status {
            Some(status) if status.success() => self.count(ProgramCount::ExitZero),
            Some(ExitStatus::Code(_)) => self.count(ProgramCount::ExitNonzero),
            Some(ExitStatus::Signal { .. }) => self.count(ProgramCount::ExitSignal),
            None => {
                let line = format_args!("cannot take the status of process {pid}: {reaped:?}");
                self.note_program(cx, Level::Error, ProgramTopic::System, line);
            }
        }
        if has_left_background {
            self.count(ProgramCount::Background);
            let peer = self.peer(id);
            let line = format_args!("{peer}: what process {pid} has left in the background goes on");
            self.note_program(cx, Level::Info, ProgramTopic::Background, line);
        }
    }

    /// Bounds the outputs of a program, which was reaped, to what is in their pipes now.
    fn cut_output(&mut self, cx: &mut Context<'_>, id: Self::Id) {
        if self.job(id).is_some_and(Job::cut_output) {
            self.count(ProgramCount::Cut);
            let peer = self.peer(id);
            let line = format_args!("{peer}: something held the output open beyond --linger, and was not waited for");
            self.note_program(cx, Level::Info, ProgramTopic::Cut, line);
        }
        self.read_rest(cx, id);
    }
}
