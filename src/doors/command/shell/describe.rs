//! The dump: a line for each command, for each connection and for each run. Its cost is bounded, as that of every
//! door's dump is.

use std::time::Instant;

use super::super::core::client::ClientState;
use super::super::core::event::ClientId;
use super::super::report::{self, ClientView};
use super::CommandDoor;
use super::connection::Connection;
use crate::doors::dump::{Dump, FIRST, FIRST_PROCESSES, who};
use crate::process::rss::Survey;

impl CommandDoor {
    pub(super) fn describe(&self, now: Instant) -> String {
        let (total, most) = (self.front.connections(), self.front.options().connection_limits.total);
        let held = self
            .connections
            .values()
            .map(|it| (it.input.len(), it.conn.unwritten()));
        let (to_program, to_client) = held.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        let load = format_args!("clients = {total} of {most}, to program = {to_program}, to client = {to_client}");
        let mut dump = Dump::begin(
            self.front.name(),
            "command door",
            self.front.uptime(now),
            String::new(),
            load,
        );
        self.describe_commands(&mut dump, now);
        let clients = self.connections.iter();
        let clients = clients.map(|(id, it)| report::dump_client(&self.client_view(*id, it, now)));
        dump.registers(FIRST, total, clients);
        let survey = Survey::begin(now);
        let runs = self.runs.iter();
        let runs = runs.map(|(id, run)| report::dump_run(&run.view(*id, &survey, now, self.options.log_arguments)));
        dump.registers(FIRST_PROCESSES, self.runs.len(), runs);
        dump.text()
    }

    fn describe_commands(&self, dump: &mut Dump<'_>, now: Instant) {
        let commands = &self.options.commands;
        let lines = commands.iter().map(|command| {
            let (name, load) = (&command.name, self.scheduler.load(&command.name));
            report::dump_command(&String::from_utf8_lossy(name), command.threads, command.queue, load)
        });
        dump.registers(commands.len(), commands.len(), lines);
        for command in commands {
            if let Some(since) = self.scheduler.waiting_since(&command.name) {
                let waiting = self.scheduler.load(&command.name).waiting;
                let longest = now.saturating_duration_since(since);
                let line = report::dump_queue(&String::from_utf8_lossy(&command.name), waiting, longest);
                dump.line(format_args!("{line}"));
            }
        }
    }

    fn client_view(&self, id: ClientId, it: &Connection, now: Instant) -> ClientView {
        let (state, with_arguments) = (self.scheduler.client(id), self.options.log_arguments);
        let waits = match state {
            Some(ClientState::Queued { since, .. }) => Some(now.saturating_duration_since(*since)),
            _ => None,
        };
        let command = match state {
            Some(ClientState::Asking { request, .. } | ClientState::Queued { request, .. }) => {
                let name = request.name.as_deref();
                name.map(|name| report::command(name, &request.arguments, with_arguments))
            }
            Some(ClientState::Following { run, .. }) => self.runs.get(run).map(|run| run.command(with_arguments)),
            Some(ClientState::Answered { .. } | ClientState::Closing) | None => None,
        };
        ClientView {
            number: id.0,
            state: state.map_or("over", ClientState::name),
            waits,
            connected: now.saturating_duration_since(it.accepted),
            who: who(it.conn.socket(), &it.origin),
            command: command.unwrap_or_default(),
            to_program: it.input.len(),
            to_client: it.conn.unwritten(),
        }
    }
}
