//! The line of a connection in the dump, with its program.

use std::time::Instant;

use super::super::report;
use super::connection::Connection;
use crate::doors::dump::program;
use crate::process::rss::Survey;
use crate::reactor::Key;

impl Connection {
    pub(super) fn describe(&self, key: Key, survey: &Survey, with_arguments: bool, now: Instant) -> String {
        let (state, program) = (self.client.state().name(), program(self.program.as_ref(), survey, now));
        let asked = report::command(&self.arguments, with_arguments);
        let (number, (_, to_client)) = (key.slot() as u64, self.held());
        let state = format_args!("{state}, {program}");
        self.peer.describe(number, state, ("program", &asked), to_client, now)
    }

    /// Returns the number of bytes that are held each way: to the program, and to the client.
    pub(super) fn held(&self) -> (usize, usize) {
        let (to_program, to_client) = self.peer.held();
        (to_program, to_client + self.encoder.held())
    }
}
