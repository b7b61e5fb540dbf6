//! Runs: started, followed, watched, ended, reaped, logged.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use log::Level;

use super::super::core::event::{ClientId, RunId};
use super::super::report;
use super::{CommandDoor, CommandSource};
use crate::doors::dump::program;
use crate::doors::front::Topic;
use crate::doors::programs::{ProgramStatistics, RunsPrograms};
use crate::doors::run::{RunEvent, RunState};
use crate::process::job::{Exit, Job, Pipe, Sources};
use crate::process::rss::Survey;
use crate::process::strings::Strings;
use crate::reactor::{Alarm, Context, Source, SourceKind};

/// The shell's part of a run.
#[derive(Debug)]
pub(super) struct Running {
    name: Vec<u8>,
    arguments: Vec<Vec<u8>>,
    /// The time of the decision to start it, by the clock: the time of the turn is too coarse for short programs.
    pub(super) decided: Instant,
    /// The program; `None` until it is started.
    pub(super) job: Option<Job>,
    pub(super) alarm: Alarm,
    /// The clients that get its output.
    pub(super) audience: BTreeSet<ClientId>,
    /// The client that sends its input; `None` once it is gone.
    pub(super) leader: Option<ClientId>,
    /// All output so far, for clients that join; `None`: none may join, or there was too much output.
    history: Option<Vec<u8>>,
    /// The client that asked for it first, as log lines name it.
    peer: String,
    /// The variables that tell the program of that client.
    asker: Strings,
    joined: usize,
}

impl Running {
    /// Keeps output for clients that join. Returns false if it is too much.
    pub(super) fn remember(&mut self, come: &[u8], most: usize) -> bool {
        let Some(history) = &mut self.history else { return true };
        if history.len() + come.len() > most {
            self.history = None;
            return false;
        }
        history.extend_from_slice(come);
        true
    }

    /// Returns its line in the dump.
    pub(super) fn describe(&self, id: RunId, survey: &Survey, with_arguments: bool, now: Instant) -> String {
        let (command, process) = (self.command(with_arguments), program(self.job.as_ref(), survey, now));
        let (number, leader, clients) = (id.0, &self.peer, self.audience.len());
        format!("r[{number}] command = {command}, {process}, client = {leader}, clients = {clients}")
    }

    pub(super) fn command(&self, with_arguments: bool) -> String {
        report::command(&self.name, &self.arguments, with_arguments)
    }

    fn age(&self, now: Instant) -> Duration {
        let started = self.job.as_ref().map(Job::started);
        started.map_or(Duration::ZERO, |started| now.saturating_duration_since(started))
    }
}

impl RunsPrograms for CommandDoor {
    type Id = RunId;

    const TIMEOUT: Topic = report::TIMEOUT;

    fn starting_source() -> Source {
        CommandSource::Starting.only()
    }

    fn starting(&mut self) -> &mut VecDeque<RunId> {
        &mut self.starting
    }

    fn program_statistics(&mut self) -> &mut ProgramStatistics {
        &mut self.statistics
    }

    fn start_program(&mut self, cx: &mut Context<'_>, id: RunId) {
        if self.scheduler.run(id) != Some(RunState::Starting) {
            return;
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(program) = self.programs.get_mut(&run.name) else {
            return self.not_started(cx, id, &"its command has been taken out of the configuration");
        };
        let before = Instant::now();
        let child = match program.start(&run.arguments, std::mem::take(&mut run.asker)) {
            Ok(child) => child,
            Err(error) => return self.not_started(cx, id, &error),
        };
        self.statistics.times.spawn.record(before.elapsed());
        match Job::take_charge(cx, child, sources(id), self.options.kill_timeout) {
            Ok(job) => {
                run.job = Some(job);
                self.tell_run(cx, id, RunEvent::Started);
            }
            Err(error) => self.not_started(cx, id, &format_args!("cannot watch it: {error}")),
        }
    }

    fn job(&mut self, id: RunId) -> Option<&mut Job> {
        self.runs.get_mut(&id)?.job.as_mut()
    }

    fn peer(&self, id: RunId) -> String {
        self.runs.get(&id).map_or_else(String::new, |run| run.peer.clone())
    }

    fn command(&self, id: RunId) -> String {
        let run = self.runs.get(&id);
        run.map_or_else(String::new, |run| run.command(self.options.log_arguments))
    }

    fn end_input(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if let Some(job) = &mut run.job {
            job.end_input();
        }
        if let Some(connection) = run.leader.and_then(|leader| self.connections.get_mut(&leader)) {
            connection.peer.input.clear();
        }
    }

    fn expire(&mut self, _: RunId) -> &'static str {
        "its timeout is over"
    }

    /// Reads at once what is in the pipe, which is no more than a pipe holds.
    fn read_rest(&mut self, cx: &mut Context<'_>, id: RunId) {
        let mut buffer = cx.lend_buffer();
        while self.read_program(cx, id, &mut buffer) {}
        cx.return_buffer(buffer);
    }

    fn tell_run(&mut self, cx: &mut Context<'_>, id: RunId, event: RunEvent) {
        self.scheduler.run_event(id, event, cx.now());
        self.obey(cx);
    }

    fn pump_program(&mut self, cx: &mut Context<'_>, id: RunId) {
        self.pump_run(cx, id);
    }
}

impl CommandDoor {
    // ---- started -----------------------------------------------------------------------------------------------

    pub(super) fn add_run(&mut self, cx: &mut Context<'_>, id: RunId, name: Vec<u8>, arguments: Vec<Vec<u8>>) {
        let mut commands = self.options.commands.iter();
        let may_be_joined = commands.any(|command| command.rule.join && command.name == name);
        let run = Running {
            name,
            arguments,
            decided: Instant::now(),
            job: None,
            alarm: Alarm::default(),
            audience: BTreeSet::new(),
            leader: None,
            history: may_be_joined.then(Vec::new),
            peer: String::new(),
            asker: Strings::default(),
            joined: 0,
        };
        self.runs.insert(id, run);
        self.queue_start(cx, id);
    }

    fn not_started(&mut self, cx: &mut Context<'_>, id: RunId, why: &dyn fmt::Display) {
        self.statistics.counters.not_started += 1;
        if let Some(run) = self.runs.get(&id) {
            let (peer, command) = (&run.peer, report::command(&run.name, &[], false));
            let line = format_args!("{peer}: {command}: {why}");
            self.front.note(cx, Level::Warn, report::SPAWN, line);
        }
        self.tell_run(cx, id, RunEvent::NotStarted);
    }

    // ---- followed ----------------------------------------------------------------------------------------------

    pub(super) fn attach(&mut self, cx: &mut Context<'_>, client: ClientId, id: RunId, leads: bool) {
        let (Some(run), Some(connection)) = (self.runs.get_mut(&id), self.connections.get_mut(&client)) else {
            return;
        };
        connection.follows = Some(id);
        if leads {
            run.leader = Some(client);
            run.asker = connection.peer.variables();
            run.peer = connection.peer.description();
        } else {
            run.joined += 1;
            connection.peer.input.clear();
            let so_far = run.history.as_deref().unwrap_or_default();
            connection.peer.conn.output_mut().extend_from_slice(so_far);
        }
        run.audience.insert(client);
        // A client that joins is served by itself, not with the whole audience.
        cx.resume_later(if leads {
            CommandSource::Run.run(id)
        } else {
            CommandSource::client(client)
        });
    }

    pub(super) fn detach(&mut self, cx: &mut Context<'_>, client: ClientId, id: RunId) {
        let held_up = self.holds_up_others(client);
        let mut is_shared = false;
        if let Some(run) = self.runs.get_mut(&id) {
            run.audience.remove(&client);
            run.leader = run.leader.filter(|leader| *leader != client);
            is_shared = run.audience.len() > 1;
        }
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.follows = None;
            connection.peer.input.clear();
            cx.resume_later(CommandSource::client(client));
        }
        // The client that has held up the others is gone; or one client is left, which holds up no others.
        if held_up || !is_shared {
            cx.resume_later(CommandSource::Run.run(id));
        }
    }

    // ---- watched -----------------------------------------------------------------------------------------------

    pub(super) fn pipe_ready(&mut self, cx: &mut Context<'_>, id: RunId, which: CommandSource) {
        let Some(job) = self.runs.get_mut(&id).and_then(|run| run.job.as_mut()) else {
            return;
        };
        job.mark_ready(if which == CommandSource::Stdin {
            Pipe::Stdin
        } else {
            Pipe::Stdout
        });
        self.pump_run(cx, id);
    }

    pub(super) fn run_timeout(&mut self, cx: &mut Context<'_>, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            cx.clear_alarm(&mut run.alarm);
            self.tell_run(cx, id, RunEvent::Tick);
            self.pump_run(cx, id);
        }
    }

    // ---- ended -------------------------------------------------------------------------------------------------

    /// Drops a run that is over, and logs it.
    pub(super) fn drop_run(&mut self, cx: &mut Context<'_>, id: RunId) {
        let Some(mut run) = self.runs.remove(&id) else { return };
        cx.set_alarm(&mut run.alarm, CommandSource::Run.run(id), None);
        let ran = run.age(cx.now());
        let Some(mut job) = run.job.take() else { return };
        let (exit, traffic) = (job.take_exit(), job.traffic());
        let exit = exit.unwrap_or(Exit { status: None, ran });
        job.close(cx);
        self.front.descriptor_freed(cx);
        self.statistics.add_traffic(traffic);
        let shared = match run.joined {
            0 => String::new(),
            joined => format!(", shared with {joined} more"),
        };
        log::info!(
            service:% = self.front.name(); "{}: {} ran {}: {exit}, {} bytes in, {} out{shared}",
            self.front.name(),
            run.peer,
            run.command(self.options.log_arguments),
            traffic.input,
            traffic.output,
        );
    }
}

fn sources(id: RunId) -> Sources {
    Sources {
        stdin: CommandSource::Stdin.run(id),
        stdout: CommandSource::Output.run(id),
        // Standard error goes into the pipe of standard output.
        stderr: CommandSource::Output.run(id),
        exit: CommandSource::Exit.run(id),
        ending: CommandSource::Ending.run(id),
    }
}
