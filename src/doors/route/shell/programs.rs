//! The programs behind servers: started, read, ended and reaped as the [`Starter`](super::super::core::starter::Starter)
//! orders.
//!
//! The life of a program: [prepared](super::launching) with the options, started when the first connection needs it, and then
//! watched by its pidfd and by the pipe into which both its outputs go. Its lines are logged. A program that has exited
//! is reaped at once, with its group, and the rest of what it wrote is read.
//!
//! The process of a program outlives a change of its settings as long as connections use it: the new ones are for the
//! next start.

use std::sync::Arc;
use std::time::Instant;

use log::Level;

use super::super::core::starter::{Descent, Order, ProgramEvent, ProgramId, Stage, StopCause};
use super::super::options::ProgramOptions;
use super::super::report;
use super::launching::{Launcher, Prepared};
use super::{RouteDoor, RouteSource};
use crate::amount;
use crate::process::job::{Exit, Job, Moved, Pipe, Sources};
use crate::process::kill_sequence::{KillEvent, Manner};
use crate::process::stderr_log::StderrLog;
use crate::reactor::{Alarm, Context, Key, SourceKind};

/// The number of programs that are started in one turn. Each start takes tenths of a millisecond, in which no client is
/// served.
const STARTS_PER_TURN: usize = 4;
/// The most reads of what a program has written before its exit is logged. A pipe holds 64 KiB, which is less.
const LAST_READS: usize = 16;

/// A program that may be started.
#[derive(Debug)]
pub(super) struct Program {
    /// The newest settings.
    options: Arc<ProgramOptions>,
    launcher: Launcher,
    /// It is to be started in the next turn.
    is_ordered: bool,
    process: Option<Process>,
    alarm: Alarm,
}

/// A program that runs.
#[derive(Debug)]
struct Process {
    job: Job,
    /// The settings by which it was started.
    options: Arc<ProgramOptions>,
    /// Its outputs.
    lines: StderrLog,
    /// It was told to end.
    is_ending: bool,
}

impl RouteDoor {
    // ---- settings ----------------------------------------------------------------------------------------------

    /// Puts the programs of the present options in the place of those of before. [`follow_orders`](Self::follow_orders)
    /// must be called behind it.
    pub(super) fn replace_programs(&mut self, prepared: Prepared, now: Instant) {
        let options = self.options.programs.iter().map(Arc::clone);
        let new: Vec<_> = options.zip(prepared.launchers).collect();
        let descents = self.descents(&new);
        let plans: Vec<_> = new.iter().map(|(options, _)| options.plan()).zip(descents).collect();
        let ids = self.router.replace_programs(&plans, now);
        for (id, (options, launcher)) in ids.into_iter().zip(new) {
            match self.programs.get_mut(&id) {
                Some(program) => (program.options, program.launcher) = (options, launcher),
                None => {
                    let program = Program {
                        options,
                        launcher,
                        is_ordered: false,
                        process: None,
                        alarm: Alarm::default(),
                    };
                    self.programs.insert(id, program);
                }
            }
        }
    }

    /// Finds for each of the new programs the one that it takes the place of: one with the same settings, else one
    /// whose server has an address in common, for both cannot listen there.
    fn descents(&self, new: &[(Arc<ProgramOptions>, Launcher)]) -> Vec<Descent> {
        let mut free: Vec<ProgramId> = self.programs.keys().copied().collect();
        let mut descents = vec![Descent::New; new.len()];
        for is_one in [ProgramOptions::runs_as, ProgramOptions::has_an_address_of] {
            for (descent, (options, _)) in descents.iter_mut().zip(new) {
                let found = |id: &ProgramId| {
                    self.programs
                        .get(id)
                        .is_some_and(|before| is_one(&before.options, options))
                };
                if *descent == Descent::New
                    && let Some(place) = free.iter().position(found)
                {
                    let id = free.remove(place);
                    let process = self.programs.get(&id).and_then(|program| program.process.as_ref());
                    let is_same = process.is_none_or(|process| process.options.runs_as(options));
                    *descent = if is_same {
                        Descent::Same(id)
                    } else {
                        Descent::Changed(id)
                    };
                }
            }
        }
        descents
    }

    /// Takes programs that were prepared again for the present options.
    pub(super) fn set_launchers(&mut self, prepared: Prepared) {
        for (index, launcher) in prepared.launchers.into_iter().enumerate() {
            let id = self.router.programs().planned(index);
            if let Some(program) = id.and_then(|id| self.programs.get_mut(&id)) {
                program.launcher = launcher;
            }
        }
    }

    // ---- orders ------------------------------------------------------------------------------------------------

    /// Carries out what the router has ordered about programs.
    pub(super) fn follow_orders(&mut self, cx: &mut Context<'_>) {
        while let Some(order) = self.router.next_order() {
            match order {
                Order::Start(id) => {
                    if let Some(program) = self.programs.get_mut(&id) {
                        program.is_ordered = true;
                    }
                    cx.resume_later(RouteSource::Program.at(key(id)));
                }
                Order::Stop(id, cause) => self.stop_program(cx, id, cause),
                Order::Call(route) => cx.resume_later(RouteSource::Route.at(Key::from_bits(route.0))),
                Order::TellReady(id, after) => {
                    let after = amount::span(after);
                    self.log_program(id, format_args!("its server is there after {after}"));
                }
                Order::SetAlarm(id) => self.settle_program(cx, id),
                Order::Forget(id) => {
                    if let Some(mut program) = self.programs.remove(&id) {
                        cx.set_alarm(&mut program.alarm, RouteSource::Program.at(key(id)), None);
                    }
                }
            }
        }
    }

    /// Starts a program that was ordered, unless it was stopped since.
    pub(super) fn start_program(&mut self, cx: &mut Context<'_>, source: Key) {
        let id = id(source);
        let Some(program) = self.programs.get_mut(&id) else {
            return self.tell_program(cx, id, ProgramEvent::NotStarted);
        };
        if self.starts >= STARTS_PER_TURN && program.is_ordered {
            return cx.resume_later(RouteSource::Program.at(source));
        }
        if !std::mem::take(&mut program.is_ordered) {
            return;
        }
        self.starts += 1;
        let options = Arc::clone(&program.options);
        let started = program
            .launcher
            .start()
            .map_err(|error| error.to_string())
            .and_then(|child| {
                let job = Job::take_charge(cx, child, sources(id), options.kill_timeout);
                job.map_err(|error| format!("cannot watch its process: {error}"))
            });
        match started {
            Ok(job) => {
                program.process = Some(Process {
                    job,
                    options,
                    lines: StderrLog::new(cx.now()),
                    is_ending: false,
                });
                self.log_program(id, format_args!("started, because a client asks for its server"));
                self.tell_program(cx, id, ProgramEvent::Started);
            }
            Err(error) => {
                let line = format_args!("{options} cannot be started: {error}");
                self.front.note(cx, Level::Error, report::PROGRAM, line);
                self.tell_program(cx, id, ProgramEvent::NotStarted);
            }
        }
    }

    fn stop_program(&mut self, cx: &mut Context<'_>, id: ProgramId, cause: StopCause) {
        let Some(program) = self.programs.get_mut(&id) else {
            return;
        };
        program.is_ordered = false;
        let Some(process) = &mut program.process else {
            return self.router.handle_program(id, ProgramEvent::Exited, cx.now());
        };
        process.is_ending = true;
        let (label, timeout) = (process.label(), amount::span(program.options.ready_timeout));
        match cause {
            StopCause::Idle => self.log_program(id, format_args!("is ended: no client has used it for its idle time")),
            StopCause::Unwanted => self.log_program(id, format_args!("is ended: it is not wanted any more")),
            StopCause::Late => {
                let line = format_args!("{label} is ended: its server was not there within {timeout} (ready-timeout)");
                self.front.note(cx, Level::Error, report::PROGRAM, line);
            }
        }
        self.escalate_program(cx, id, KillEvent::Stop(Manner::Promptly));
    }

    /// Kills every program at once.
    pub(super) fn kill_programs(&mut self, cx: &mut Context<'_>) {
        for id in self.programs.keys().copied().collect::<Vec<_>>() {
            if let Some(process) = self.programs.get_mut(&id).and_then(|program| program.process.as_mut()) {
                process.is_ending = true;
                self.escalate_program(cx, id, KillEvent::Stop(Manner::AtOnce));
            }
        }
        self.follow_orders(cx);
    }

    // ---- events ------------------------------------------------------------------------------------------------

    pub(super) fn program_timeout(&mut self, cx: &mut Context<'_>, source: Key) {
        let id = id(source);
        let Some(program) = self.programs.get_mut(&id) else {
            return;
        };
        cx.clear_alarm(&mut program.alarm);
        let now = cx.now();
        self.hear(id, |lines, tell| lines.on_deadline(now, tell));
        self.tell_program(cx, id, ProgramEvent::Deadline);
        self.settle_program(cx, id);
    }

    /// Must be called when the alarm of a kill sequence has gone off.
    pub(super) fn program_kill_timeout(&mut self, cx: &mut Context<'_>, source: Key) {
        let id = id(source);
        if let Some(process) = self.programs.get_mut(&id).and_then(|program| program.process.as_mut()) {
            process.job.clear_alarm(cx);
            self.escalate_program(cx, id, KillEvent::Deadline);
            self.follow_orders(cx);
        }
    }

    /// Must be called when the outputs of a program are readable, and when their reading is resumed. One read a turn.
    pub(super) fn program_writes(&mut self, cx: &mut Context<'_>, source: Key, is_new: bool) {
        let id = id(source);
        if let Some(process) = self.programs.get_mut(&id).and_then(|program| program.process.as_mut()) {
            if is_new {
                process.job.mark_ready(Pipe::Stdout);
            }
            if self.read_program(cx, id) {
                cx.resume_later(RouteSource::Output.at(source));
            }
            self.settle_program(cx, id);
        }
    }

    /// Must be called when the pidfd of a program is readable.
    pub(super) fn program_exited(&mut self, cx: &mut Context<'_>, source: Key) {
        let id = id(source);
        let Some(process) = self.programs.get_mut(&id).and_then(|program| program.process.as_mut()) else {
            return;
        };
        process.job.escalate(cx, KillEvent::Exited);
        if let Err(error) = process.job.reap(cx.now()) {
            let line = format_args!("cannot take the status of {}: {error}", process.label());
            self.front.note(cx, Level::Error, report::SYSTEM, line);
        }
        self.end_process(cx, id);
    }

    // ---- one program -------------------------------------------------------------------------------------------

    /// Reports an event of a program, and carries out what follows.
    fn tell_program(&mut self, cx: &mut Context<'_>, id: ProgramId, event: ProgramEvent) {
        self.router.handle_program(id, event, cx.now());
        self.follow_orders(cx);
    }

    /// Sets the alarm of a program. One that is set already is put off by nothing.
    fn settle_program(&mut self, cx: &mut Context<'_>, id: ProgramId) {
        let Some(program) = self.programs.get_mut(&id) else {
            return;
        };
        let of_lines = program.process.as_ref().and_then(|process| process.lines.deadline());
        let deadline = [self.router.programs().deadline(id), of_lines]
            .into_iter()
            .flatten()
            .min();
        if deadline.is_some_and(|deadline| program.alarm.at().is_none_or(|at| deadline < at)) {
            cx.set_alarm(&mut program.alarm, RouteSource::Program.at(key(id)), deadline);
        }
    }

    /// Takes the steps of the kill sequence that an event calls for.
    fn escalate_program(&mut self, cx: &mut Context<'_>, id: ProgramId, event: KillEvent) {
        let Some(process) = self.programs.get_mut(&id).and_then(|program| program.process.as_mut()) else {
            return;
        };
        let (done, label) = (process.job.escalate(cx, event), process.label());
        if let Some(error) = done.failed {
            // The next step follows at its time all the same.
            let line = format_args!("{label}: cannot signal it and its group: {error}");
            self.front.note(cx, Level::Error, report::SYSTEM, line);
        }
        if done.given_up {
            let line = format_args!("{label} does not end, not even by KILL, and is given up");
            self.front.note(cx, Level::Error, report::SYSTEM, line);
            self.end_process(cx, id);
        }
    }

    /// Drops a process that has exited or was given up, behind its last words, and logs its end.
    fn end_process(&mut self, cx: &mut Context<'_>, id: ProgramId) {
        if let Some(process) = self.programs.get_mut(&id).and_then(|program| program.process.as_mut()) {
            process.job.cut_output();
        }
        for _ in 0..LAST_READS {
            if !self.read_program(cx, id) {
                break;
            }
        }
        let now = cx.now();
        self.hear(id, |lines, tell| lines.close(now, tell));
        let process = self.programs.get_mut(&id).and_then(|program| program.process.take());
        let Some(mut process) = process else { return };
        let (label, ran) = (process.label(), now.saturating_duration_since(process.job.started()));
        let exit = process.job.take_exit().unwrap_or(Exit { status: None, ran });
        process.job.close(cx);
        self.front.descriptor_freed(cx);
        if process.is_ending {
            let name = self.front.name();
            log::info!(service:% = name; "{name}: {label} has ended: {exit}");
        } else {
            let line = format_args!("{label} has exited by itself: {exit}");
            self.front.note(cx, Level::Error, report::PROGRAM, line);
        }
        self.tell_program(cx, id, ProgramEvent::Exited);
    }

    /// Reads from the outputs of a program once, and logs the lines. Returns true if there may be more.
    fn read_program(&mut self, cx: &mut Context<'_>, id: ProgramId) -> bool {
        let Some(process) = self.programs.get_mut(&id).and_then(|program| program.process.as_mut()) else {
            return false;
        };
        let mut buffer = cx.lend_buffer();
        let moved = process.job.read_output(Pipe::Stdout, &mut buffer);
        if let Moved::Bytes(count) = moved {
            let (bytes, now) = (buffer.get(..count).unwrap_or_default(), cx.now());
            self.hear(id, |lines, tell| lines.feed(bytes, now, tell));
        }
        cx.return_buffer(buffer);
        matches!(moved, Moved::Bytes(_))
    }

    /// Logs the lines that `come` yields.
    fn hear(&mut self, id: ProgramId, come: impl FnOnce(&mut StderrLog, &mut dyn FnMut(&str))) {
        let Some(process) = self.programs.get_mut(&id).and_then(|program| program.process.as_mut()) else {
            return;
        };
        let (name, label) = (self.front.name(), process.label());
        come(&mut process.lines, &mut |line| {
            log::info!(service:% = name; "{name}: {label}: {line}");
        });
    }

    /// Logs a step in the life of a process.
    fn log_program(&self, id: ProgramId, line: std::fmt::Arguments<'_>) {
        let process = self.programs.get(&id).and_then(|program| program.process.as_ref());
        if let Some(process) = process {
            let (name, label) = (self.front.name(), process.label());
            log::info!(service:% = name; "{name}: {label} {line}");
        }
    }

    // ---- told --------------------------------------------------------------------------------------------------

    /// Returns the number of programs that run.
    pub(super) fn programs_running(&self) -> usize {
        self.programs
            .values()
            .filter(|program| program.process.is_some())
            .count()
    }

    /// Returns true if no program runs, and none is about to be started.
    pub(super) fn has_no_program(&self) -> bool {
        let is_at_rest = |program: &Program| program.process.is_none() && !program.is_ordered;
        self.programs.values().all(is_at_rest)
    }

    /// Returns the lines of the programs in the dump.
    pub(super) fn describe_programs(&self, now: Instant) -> impl Iterator<Item = String> {
        self.programs.iter().map(move |(id, program)| {
            let view = self.router.programs().view(*id);
            let (stage, waiting, active) = view.unwrap_or((Stage::Stopped, 0, 0));
            let (stage, options) = (stage_name(stage), &program.options);
            let process = match &program.process {
                Some(Process { job, .. }) => {
                    let age = amount::span(now.saturating_duration_since(job.started()));
                    format!("pid = {}, started = {age} ago", job.pid())
                }
                None => "pid = none".to_owned(),
            };
            format!("{options}: state = {stage}, {process}, waiting = {waiting}, active = {active}")
        })
    }
}

impl Process {
    /// The name of the program in the log.
    fn label(&self) -> String {
        format!("{} (pid {})", self.options, self.job.pid())
    }
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Stopped => "stopped",
        Stage::Resting => "resting",
        Stage::Starting => "starting",
        Stage::Up => "up",
        Stage::Stopping => "stopping",
    }
}

fn key(id: ProgramId) -> Key {
    Key::from_bits(u64::from(id.0))
}

fn id(key: Key) -> ProgramId {
    // Every key of a program was made by the function above.
    ProgramId(u32::try_from(key.to_bits()).unwrap_or(u32::MAX))
}

fn sources(id: ProgramId) -> Sources {
    let key = key(id);
    Sources {
        // There is no pipe for it.
        stdin: RouteSource::Output.at(key),
        stdout: RouteSource::Output.at(key),
        // Standard error goes into the pipe of standard output.
        stderr: RouteSource::Output.at(key),
        exit: RouteSource::Exit.at(key),
        ending: RouteSource::Ending.at(key),
    }
}
