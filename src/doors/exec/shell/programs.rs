//! The programs of clients: started, watched, ended, reaped, logged.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;
use std::{iter, mem};

use nix::errno::Errno;

use super::super::core::client::ClientEvent;
use super::super::core::reply::{CANNOT_RUN, NOT_FOUND};
use super::super::report;
use super::connection::Connection;
use super::lookups::Looked;
use super::permits::Unfit;
use super::{ExecDoor, ExecSource};
use crate::doors::front::Topic;
use crate::doors::job_log;
use crate::doors::program_client::ProgramClient;
use crate::doors::programs::{ProgramStatistics, RunsPrograms};
use crate::doors::run::RunEvent;
use crate::process::child::Child;
use crate::process::failure::{SpawnError, Step};
use crate::process::job::{Job, Pipe, Sources};
use crate::process::spawn::{Stdio, Stream};
use crate::process::spec::EmptyCommand;
use crate::reactor::{Context, Key, Source, SourceKind};

impl RunsPrograms for ExecDoor {
    type Id = Key;

    const TIMEOUT: Topic = report::TIMEOUT;

    fn starting_source() -> Source {
        ExecSource::Starting.only()
    }

    fn starting(&mut self) -> &mut VecDeque<Key> {
        &mut self.starting
    }

    fn program_statistics(&mut self) -> &mut ProgramStatistics {
        &mut self.statistics
    }

    fn start_program(&mut self, cx: &mut Context<'_>, key: Key) {
        // The client may have been refused, or be gone, since it asked.
        let waits = |connection: &&mut Connection| connection.client.is_starting();
        let Some(connection) = self.connections.get_mut(key).filter(waits) else {
            return;
        };
        // The reader of requests has checked that there is a name.
        let Some(name) = connection.arguments.name().filter(|name| !name.is_empty()) else {
            return self.not_started(cx, key, CANNOT_RUN, &EmptyCommand.to_string());
        };
        let (name, variables) = (OsStr::from_bytes(name), connection.peer.variables());
        let begun = Instant::now();
        let mut argv0 = None;
        let program = match mem::take(&mut connection.looked) {
            _ if !self.options.programs.restrict() => self.spawner.named(name),
            Looked::Not => {
                let name = name.to_owned();
                return self.look_up(cx, key, name);
            }
            asked @ Looked::UnderWay { .. } => {
                connection.looked = asked;
                return;
            }
            Looked::Unfit(unfit, _) => return self.forbid(cx, key, &unfit),
            Looked::Fit(fit) => {
                argv0 = fit.argv0;
                Ok(fit.program)
            }
        };
        let arguments = connection.arguments.words().skip(1).map(OsStr::from_bytes);
        let argv = iter::once(argv0.as_deref().unwrap_or(name)).chain(arguments);
        let (spawner, stdio) = (&mut self.spawner, stdio(&connection.peer));
        let spawned = program.and_then(|program| spawner.spawn_program(&program, argv, &variables, stdio));
        match spawned {
            Ok(child) => {
                self.statistics.times.spawn.record(begun.elapsed());
                self.take_charge_of(cx, key, child);
            }
            Err(error) => self.not_started(cx, key, status_of(&error), &error.to_string()),
        }
    }

    fn job(&mut self, key: Key) -> Option<&mut Job> {
        self.connections.get_mut(key)?.program.as_mut()
    }

    fn peer(&self, key: Key) -> String {
        let connection = self.connections.get(key);
        connection.map_or_else(String::new, |connection| connection.peer.origin.to_string())
    }

    fn command(&self, key: Key) -> String {
        let with_arguments = self.options.log_arguments;
        let connection = self.connections.get(key);
        connection.map_or_else(String::new, |connection| {
            report::command(&connection.arguments, with_arguments)
        })
    }

    fn end_input(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.end_input();
        }
    }

    fn expire(&mut self, key: Key) -> &'static str {
        let max_buffer = self.options.max_buffer;
        match self.connections.get_mut(key) {
            Some(connection) if connection.peer.conn.unwritten() >= max_buffer => {
                connection.unread_at_timeout = true;
                "its --timeout is over, and its client has left unread as much as --max-buffer allows"
            }
            Some(_) | None => "its --timeout is over",
        }
    }

    fn read_rest(&mut self, _cx: &mut Context<'_>, _key: Key) {
        // The client gets the rest at its own pace.
    }

    fn tell_run(&mut self, cx: &mut Context<'_>, key: Key, event: RunEvent) {
        self.tell(cx, key, ClientEvent::Program(event));
    }

    fn pump_program(&mut self, cx: &mut Context<'_>, key: Key) {
        self.pump(cx, key);
    }
}

impl ExecDoor {
    // ---- started -----------------------------------------------------------------------------------------------

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
        self.tell_run(cx, key, RunEvent::Started);
    }

    fn not_started(&mut self, cx: &mut Context<'_>, key: Key, status: u8, why: &str) {
        self.statistics.counters.not_started += 1;
        self.give_none(cx, key, status, why, why);
    }

    /// Refuses a program because of the list. The client is told the same whatever the reason.
    fn forbid(&mut self, cx: &mut Context<'_>, key: Key, unfit: &Unfit) {
        match unfit {
            Unfit::Forbidden(_) => self.counters.forbidden_programs += 1,
            Unfit::Missing(_) | Unfit::Unanswered => self.statistics.counters.not_started += 1,
        }
        let told = "this program is not allowed (--allow-program)";
        self.give_none(cx, key, CANNOT_RUN, told, &unfit.to_string());
    }

    /// Tells the client and the log the reason for which a complete request gets no program. The line is never left out
    /// of the log: a client could hide a forbidden request behind others.
    fn give_none(&mut self, cx: &mut Context<'_>, key: Key, status: u8, told: &str, why: &str) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let why = job_log::reason(why);
        connection
            .encoder
            .refuse(&job_log::reason(told), status, connection.peer.conn.output_mut());
        log::warn!(
            service:% = self.front.name(); "{}: {} did not get to run {}: status {status}: {why}",
            self.front.name(),
            connection.peer.description(),
            report::command(&connection.arguments, self.options.log_arguments)
        );
        self.tell_run(cx, key, RunEvent::NotStarted);
    }

    // ---- watched -----------------------------------------------------------------------------------------------

    pub(super) fn pipe_ready(&mut self, cx: &mut Context<'_>, key: Key, which: ExecSource) {
        let Some(program) = self.connections.get_mut(key).and_then(|it| it.program.as_mut()) else {
            return;
        };
        program.mark_ready(match which {
            ExecSource::Stdin => Pipe::Stdin,
            ExecSource::Stdout => Pipe::Stdout,
            _ => Pipe::Stderr,
        });
        self.pump(cx, key);
    }

    /// Logs a run and counts its bytes, once. Must be called when no more of its output is read, which is later than its
    /// reaping if its pipes held output then.
    pub(super) fn log_run(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let exit = connection.program.as_mut().and_then(Job::take_exit);
        let (Some(job), Some(exit)) = (&connection.program, exit) else {
            return;
        };
        let traffic = job.traffic();
        self.statistics.add_traffic(traffic);
        log::info!(
            service:% = self.front.name(); "{}: {} ran {}: {exit}, {} bytes in, {} out, {} err",
            self.front.name(),
            connection.peer.description(),
            report::command(&connection.arguments, self.options.log_arguments),
            traffic.input,
            traffic.output,
            traffic.errors
        );
    }
}

/// The exit status of a shell for the same error.
fn status_of(error: &SpawnError) -> u8 {
    match (error.step, error.errno) {
        (Step::Lookup | Step::Exec, Errno::ENOENT | Errno::ENOTDIR) => NOT_FOUND,
        _ => CANNOT_RUN,
    }
}

/// Returns the streams of a program. The input of one whose client sends none ends with its start.
fn stdio(peer: &ProgramClient) -> Stdio {
    let stdin = match peer.has_no_input() {
        true => Stream::EndedPipe,
        false => Stream::Pipe,
    };
    Stdio {
        stdin,
        ..Stdio::piped()
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
