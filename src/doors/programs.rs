//! The programs of a door that runs them for its clients: the part of the shell that the exec and the command door have
//! in common.
//!
//! A door implements [`RunsPrograms`] over the [`Job`] that it keeps for each run. The methods that the trait provides
//! start programs in their turn, take the steps of a [`Run`](super::run::Run), escalate from TERM to KILL, reap, and
//! report to the run each exit. The door itself prepares a start, moves the bytes, and logs a run that is over.

use std::collections::VecDeque;
use std::time::Instant;

use log::Level;

use super::front::{Front, Topic};
use super::job_log::Times;
use super::run::{EndCause, RunEvent, RunStep};
use super::{Door, standstill};
use crate::process::exit_status::ExitStatus;
use crate::process::job::{Escalation, Job, Traffic};
use crate::process::kill_sequence::{KillEvent, Manner};
use crate::process::watchdog;
use crate::reactor::{Context, Source};
use crate::stats::{Label, Snapshot};

/// The number of programs that are started in one turn. Each start takes tenths of a millisecond, in which no client is
/// served.
const STARTS_PER_TURN: usize = 4;

/// The topics of log lines that both doors write.
pub(super) const REFUSAL: Topic = Topic::new("refused requests");
pub(super) const UNREAD: Topic = Topic::new("clients over --write-timeout");
pub(super) const SYSTEM: Topic = Topic::new("failed system calls");
const OVERFLOW: Topic = Topic::new("programs over --max-output");
const STANDSTILL: Topic = Topic::new(standstill::TOPIC);
const STOP: Topic = Topic::new("programs ended by --stop-timeout");
const VANISHED: Topic = Topic::new("clients that have gone");
const CUT: Topic = Topic::new("outputs held open beyond --linger");
const BACKGROUND: Topic = Topic::new("programs that have left something in the background");

/// The statistics of the programs of one door, since its start.
#[derive(Debug, Default)]
pub(super) struct ProgramStatistics {
    pub(super) counters: ProgramCounters,
    /// The bytes that were passed on to and from programs that are over.
    pub(super) traffic: Traffic,
    pub(super) times: Times,
}

/// The numbers of events. Each is a line of the statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ProgramCounters {
    /// Programs that could not be started.
    pub(super) not_started: u64,
    /// Programs that ran for as long as they might.
    pub(super) timed_out: u64,
    /// Programs that wrote more than may be held.
    pub(super) overflown: u64,
    /// Programs that needed a KILL.
    pub(super) killed: u64,
    /// Outputs that another process held open beyond the program's end.
    pub(super) cut: u64,
    /// Programs that have left something in the background.
    pub(super) background: u64,
    /// Exits with status 0.
    pub(super) exit_zero: u64,
    /// Exits with another status.
    pub(super) exit_nonzero: u64,
    /// Exits by a signal.
    pub(super) exit_signal: u64,
}

impl ProgramStatistics {
    /// Adds the bytes of a program that is over.
    pub(super) fn add_traffic(&mut self, of_program: Traffic) {
        self.traffic.input += of_program.input;
        self.traffic.output += of_program.output;
        self.traffic.errors += of_program.errors;
    }

    /// Returns the statistics of a door: its own `rows`, then those of its front, then the times of its programs.
    pub(super) fn snapshot(&self, rows: &[(Label, u64)], front: &Front, now: Instant) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (label, value) in rows {
            snapshot.count(label, *value);
        }
        front.report(&mut snapshot, now);
        self.times.report(&mut snapshot);
        front.report_tls(&mut snapshot);
        snapshot
    }
}

/// A door that runs programs for its clients.
pub(super) trait RunsPrograms: Door {
    /// The key of a run.
    type Id: Copy;

    /// The topic of programs that have run for as long as they may.
    const TIMEOUT: Topic;

    /// The source that is resumed while programs wait to be started.
    fn starting_source() -> Source;
    /// The runs whose programs wait to be started.
    fn starting(&mut self) -> &mut VecDeque<Self::Id>;
    /// The statistics of all programs.
    fn program_statistics(&mut self) -> &mut ProgramStatistics;
    /// Starts the program of a run, unless the run was cancelled while it waited.
    fn start_program(&mut self, cx: &mut Context<'_>, id: Self::Id);
    /// The program of a run; `None` before its start and after the run.
    fn job(&mut self, id: Self::Id) -> Option<&mut Job>;
    /// The client of a run, as log lines name it.
    fn peer(&self, id: Self::Id) -> String;
    /// The program of a run with its arguments, as log lines show it.
    fn command(&self, id: Self::Id) -> String;
    /// Closes the input of a program, and drops what waits for it.
    fn end_input(&mut self, id: Self::Id);
    /// Returns, in words, the limit that a program has reached whose time is over. Called once, before it is ended.
    fn expire(&mut self, id: Self::Id) -> &'static str;
    /// Reads what is left in the pipes of a program whose output was cut, or leaves that to
    /// [`pump_program`](Self::pump_program).
    fn read_rest(&mut self, cx: &mut Context<'_>, id: Self::Id);
    /// Reports an event to the run.
    fn tell_run(&mut self, cx: &mut Context<'_>, id: Self::Id, event: RunEvent);
    /// Moves the bytes of a run.
    fn pump_program(&mut self, cx: &mut Context<'_>, id: Self::Id);

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
                self.count_and_log_end(cx, id, cause);
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

    /// Counts and logs the reason for which a program is about to be ended.
    fn count_and_log_end(&mut self, cx: &mut Context<'_>, id: Self::Id, cause: EndCause) {
        let (level, topic, why) = match cause {
            EndCause::Timeout => {
                self.program_statistics().counters.timed_out += 1;
                (Level::Warn, Self::TIMEOUT, self.expire(id))
            }
            EndCause::Standstill => (Level::Warn, STANDSTILL, standstill::CAUSE),
            EndCause::Overflow => {
                self.program_statistics().counters.overflown += 1;
                (Level::Warn, OVERFLOW, "its output is longer than --max-output")
            }
            EndCause::Invalid => (Level::Warn, REFUSAL, "what its client sends is no input"),
            EndCause::Stop => (Level::Warn, STOP, "the door closes (--stop-timeout)"),
            EndCause::Deserted => (Level::Info, VANISHED, "its client has gone"),
        };
        let (peer, command) = (self.peer(id), self.command(id));
        let line = format_args!("{peer}: {command} is ended: {why}");
        self.front_mut().note(cx, level, topic, line);
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
            job.clear_alarm(cx);
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
            self.program_statistics().counters.killed += 1;
        }
        if let Some(error) = failed {
            // The next step follows at its time all the same.
            let line = format_args!("cannot signal process {pid} and its group: {error}");
            self.front_mut().note(cx, Level::Error, SYSTEM, line);
        }
        if given_up {
            let line = format_args!("process {pid} does not end, not even by KILL, and is given up");
            self.front_mut().note(cx, Level::Error, SYSTEM, line);
            self.tell_run(cx, id, RunEvent::Unkillable);
        }
    }

    /// Kills the rest of a program's process group, unless it is meant to go on, and takes the exit status.
    fn reap(&mut self, cx: &mut Context<'_>, id: Self::Id) {
        let Some(job) = self.job(id) else { return };
        let (pid, ran) = (job.pid(), cx.now().saturating_duration_since(job.started()));
        let reaped = job.reap(cx.now());
        let has_left_background = job.has_left_background();
        let ProgramStatistics { counters, times, .. } = self.program_statistics();
        times.run.record(ran);
        match &reaped {
            Ok(Some(status)) if status.success() => counters.exit_zero += 1,
            Ok(Some(ExitStatus::Code(_))) => counters.exit_nonzero += 1,
            Ok(Some(ExitStatus::Signal { .. })) => counters.exit_signal += 1,
            Ok(None) | Err(_) => {
                let line = format_args!("cannot take the status of process {pid}: {reaped:?}");
                self.front_mut().note(cx, Level::Error, SYSTEM, line);
            }
        }
        if has_left_background {
            self.program_statistics().counters.background += 1;
            let peer = self.peer(id);
            let line = format_args!("{peer}: what process {pid} has left in the background goes on");
            self.front_mut().note(cx, Level::Info, BACKGROUND, line);
        }
    }

    /// Bounds the outputs of a program, which was reaped, to what is in their pipes now.
    fn cut_output(&mut self, cx: &mut Context<'_>, id: Self::Id) {
        if self.job(id).is_some_and(Job::cut_output) {
            self.program_statistics().counters.cut += 1;
            let peer = self.peer(id);
            let line = format_args!("{peer}: something held the output open beyond --linger, and was not waited for");
            self.front_mut().note(cx, Level::Info, CUT, line);
        }
        self.read_rest(cx, id);
    }
}
