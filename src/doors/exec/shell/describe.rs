//! The dump: a line for each connection, with its program. Its cost is bounded, as that of every door's dump is.

use std::time::Instant;

use super::super::report::{self, ConnectionView};
use super::ExecDoor;
use super::connection::Connection;
use crate::doors::dump::{Dump, FIRST_PROCESSES, ProcessView};
use crate::process::rss::Survey;
use crate::reactor::Key;

impl ExecDoor {
    pub(super) fn describe(&self, now: Instant) -> String {
        let (total, most) = (self.front.connections(), self.front.options().connection_limits.total);
        let held = self.connections.iter().map(|(_, it)| held(it));
        let (to_program, to_client) = held.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        let load = format_args!("clients = {total} of {most}, to program = {to_program}, to client = {to_client}");
        let mut dump = Dump::begin(
            self.front.name(),
            "exec door",
            self.front.uptime(now),
            String::new(),
            load,
        );
        let survey = Survey::begin(now);
        let lines = self.connections.iter();
        let lines = lines.map(|(key, it)| report::dump(&self.view(key, it, &survey, now)));
        dump.registers(FIRST_PROCESSES, total, lines);
        dump.text()
    }

    fn view(&self, key: Key, it: &Connection, survey: &Survey, now: Instant) -> ConnectionView {
        let (to_program, to_client) = held(it);
        ConnectionView {
            number: key.slot(),
            state: it.client.state().name(),
            process: it.program.as_ref().map(|program| ProcessView {
                pid: program.pid().as_raw(),
                age: now.saturating_duration_since(program.started()),
                memory: survey.look_at(program.pid()),
            }),
            connected: now.saturating_duration_since(it.accepted),
            who: it.who(),
            program: report::command(&it.arguments, self.options.log_arguments),
            to_program,
            to_client,
        }
    }
}

/// Returns the numbers of bytes that are held for the program and for the client.
fn held(it: &Connection) -> (usize, usize) {
    (it.input.len(), it.conn.unwritten() + it.encoder.held())
}
