//! The readable part of what `USR2` prints, in one form for every door: lines that begin with the door's name, lists that end
//! after so many, and who a client is.
//!
//! What holds: whatever stands in a line, it is one line, and none of them looks like a register of iotcpd 1.1, which begins with
//! `d[`. What a client has sent stands at the end of its line, where nothing follows that it could pretend to be. What does not
//! belong here: what there is to be told.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::amount;
use crate::net::origin::Origin;
use crate::net::stream::Stream;
use crate::process::rss::Memory;

/// Of those that may be many thousands so many are listed.
pub(super) const FIRST: usize = 100;
/// And so many of the processes that serve, or that run for somebody.
pub(super) const FIRST_PROCESSES: usize = 1000;

/// The lines of one door.
#[derive(Debug)]
pub(super) struct Dump<'d> {
    door: &'d str,
    text: String,
}

impl<'d> Dump<'d> {
    /// Begins with what is there already, and with a line that says what this is, and how much of it.
    pub(super) fn begin(
        door: &'d str,
        kind: &str,
        uptime: Duration,
        registers: String,
        load: fmt::Arguments<'_>,
    ) -> Self {
        let mut dump = Dump { door, text: registers };
        let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
        let since = SystemTime::now().checked_sub(uptime).unwrap_or(SystemTime::UNIX_EPOCH);
        let since = amount::moment(since, humantime::format_rfc3339_seconds);
        let uptime = amount::span(uptime);
        dump.line(format_args!(
            "{kind} of iotcpd {version}, pid = {pid}, up since {since} ({uptime}), {load}"
        ));
        dump
    }

    /// One line.
    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) {
        use std::fmt::Write;
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{}: {line}", self.door);
    }

    /// A line for each of the first `most` of `total` things, and how many more there are; how many were told.
    pub(super) fn list(&mut self, most: usize, total: usize, lines: impl Iterator<Item = String>) -> usize {
        let mut told = 0;
        for line in lines.take(most) {
            self.line(format_args!("{line}"));
            told += 1;
        }
        self.tell_more(total, told, most);
        told
    }

    /// The same with lines that do not begin with the door's name, for they were there before there were others, and scripts may
    /// read them.
    pub(super) fn registers(&mut self, most: usize, total: usize, lines: impl Iterator<Item = String>) {
        let mut told = 0;
        for line in lines.take(most) {
            self.text.push_str(&line);
            self.text.push('\n');
            told += 1;
        }
        self.tell_more(total, told, most);
    }

    fn tell_more(&mut self, total: usize, told: usize, most: usize) {
        if total > told && told == most {
            self.line(format_args!("... and {} more", total - told));
        }
    }

    /// All of it.
    pub(super) fn text(self) -> String {
        self.text
    }
}

/// A process behind a door.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessView {
    pub(super) pid: i32,
    pub(super) age: Duration,
    pub(super) memory: Memory,
}

/// A process, or that there is none.
pub(super) fn process(view: Option<&ProcessView>) -> String {
    match view {
        Some(ProcessView { pid, age, memory }) => {
            let age = amount::span(*age);
            format!("pid = {pid}, age = {age}, memory = {memory}")
        }
        None => "pid = none".to_owned(),
    }
}

/// A client: its address, or, over a UNIX socket, the process and the user at the other end.
pub(super) fn who(stream: &Stream, origin: &Origin) -> String {
    match stream.peer_credentials() {
        Ok(Some(process)) if origin.is_direct() => format!("{origin} ({process})"),
        Ok(_) | Err(_) => origin.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_has_not_been_set_yet_upsets_nothing() {
        let century = Duration::from_secs(100 * 365 * 86_400);
        let dump = Dump::begin("main", "pool", century, String::new(), format_args!("load"));
        assert!(dump.text().contains(", up since 1970-01-01T00:00:00Z ("));
    }

    #[test]
    fn a_list_ends_after_so_many_and_says_how_many_more_there_are() {
        let listed = |total: usize| {
            let (uptime, registers) = (Duration::from_secs(125), "r[0] = 1\n".to_owned());
            let mut dump = Dump::begin("main", "pool", uptime, registers, format_args!("load = {total}"));
            dump.list(2, total, (0..total).map(|number| format!("number {number}")));
            dump.text()
        };
        let header = |text: &str, load: usize| {
            let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
            let begin = format!("r[0] = 1\nmain: pool of iotcpd {version}, pid = {pid}, up since ");
            let rest = text.strip_prefix(&begin).unwrap();
            let (since, rest) = rest.split_once(' ').unwrap();
            let since = humantime::parse_rfc3339(since).unwrap().elapsed().unwrap();
            assert!(since >= Duration::from_secs(125), "{since:?}");
            let rest = rest.strip_prefix(&format!("(2 min 5 s), load = {load}\n"));
            rest.unwrap_or_else(|| panic!("{text}")).to_owned()
        };
        let two = "main: number 0\nmain: number 1\n";
        assert_eq!(header(&listed(0), 0), "");
        assert_eq!(header(&listed(2), 2), two);
        assert_eq!(header(&listed(902), 902), format!("{two}main: ... and 900 more\n"));
    }
}
