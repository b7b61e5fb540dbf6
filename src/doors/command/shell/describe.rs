//! The dump: a line for each command, for each connection and for each run. Its cost is bounded, as that of every
//! door's dump is.

use std::time::Instant;

use super::super::core::client::{Asking, ClientState, Queued};
use super::super::core::event::ClientId;
use super::super::report;
use super::CommandDoor;
use super::connection::Connection;
use crate::amount;
use crate::doors::dump::Dump;

impl CommandDoor {
    pub(super) fn describe_commands(&self, dump: &mut Dump<'_>, now: Instant) {
        let commands = &self.options.commands;
        let lines = commands.iter().map(|command| {
            let (name, load) = (&command.name, self.scheduler.load(&command.name));
            report::dump_command(&String::from_utf8_lossy(name), &command.rule, load)
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

    pub(super) fn describe_client(&self, id: ClientId, connection: &Connection, now: Instant) -> String {
        let (state, with_arguments) = (self.scheduler.client(id), self.options.log_arguments);
        let since = match state {
            Some(ClientState::Queued(Queued { since, .. })) => {
                format!(", since = {} ago", amount::span(now.saturating_duration_since(*since)))
            }
            _ => String::new(),
        };
        let command = match state {
            Some(ClientState::Asking(Asking { request, .. }) | ClientState::Queued(Queued { request, .. })) => {
                let name = request.name.as_deref();
                name.map(|name| report::command(name, &request.arguments, with_arguments))
            }
            Some(ClientState::Following { run, .. }) => self.runs.get(run).map(|run| run.command(with_arguments)),
            Some(ClientState::Answered { .. } | ClientState::Closing) | None => None,
        };
        let (command, state) = (command.unwrap_or_default(), state.map_or("over", ClientState::name));
        let (_, to_client) = connection.peer.held();
        let state = format_args!("{state}{since}");
        connection
            .peer
            .describe(id.0, state, ("command", &command), to_client, now)
    }
}
