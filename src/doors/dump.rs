//! The readable part of the dump that `USR2` prints, in one form for every door: lines that begin with the door's name,
//! lists of bounded length, and descriptions of processes and clients.
//!
//! No content breaks a line in two, and no line looks like a register of iotcpd 1.1, which begins with `d[`. Bytes that
//! a client has sent stand at the end of a line, so that they cannot imitate a field behind them. The content of a dump
//! does not belong here: each door describes itself.

use std::fmt::{self, Write};
use std::time::{Duration, Instant, SystemTime};

use super::front::{Awaited, Front};
use crate::amount;
use crate::net::origin::Origin;
use crate::net::stream::{PeerCredentials, Stream};
use crate::process::job::Job;
use crate::process::rss::{Memory, Survey};

/// The most entries in a list whose length is not bounded otherwise, such as that of the clients.
pub(super) const FIRST: usize = 100;
/// The most entries in a list of processes.
pub(super) const FIRST_PROCESSES: usize = 1000;

/// The dump of one door while it is written.
#[derive(Debug)]
pub(super) struct Dump<'d> {
    door: &'d str,
    text: String,
}

impl<'d> Dump<'d> {
    /// Begins a dump with `registers`, which are complete lines, and with a headline: the kind of the door, the daemon,
    /// and the load.
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

    /// Adds the certificates, and the connections that are not admitted yet; nothing if there are none.
    pub(super) fn front(&mut self, front: &Front, now: Instant) {
        let servers = front.prepared_servers().map(|(_, tls)| tls.server());
        for identity in servers.flat_map(|server| server.identities()).take(FIRST) {
            let (file, names) = (identity.file().to_string_lossy(), identity.names());
            let (file, hosts) = (file.escape_debug(), names.all_hosts().join(" "));
            let (hosts, end) = (hosts.escape_debug(), names.last_day());
            self.line(format_args!("tls: certificate = {file}, names = {hosts}, ends = {end}"));
        }
        self.arrivals(front, now);
    }

    fn arrivals(&mut self, front: &Front, now: Instant) {
        let (total, arrivals) = front.arrivals(now);
        if total > 0 {
            let awaited = if front.prepared_servers().next().is_some() {
                "PROXY header or TLS handshake"
            } else {
                "PROXY header"
            };
            self.line(format_args!("arrivals: {total} whose {awaited} is awaited"));
            let lines = arrivals.map(|it| {
                let (peer, connected, received) = (it.peer, amount::span(it.connected), it.received);
                let stage = match it.awaited {
                    Awaited::Preface => {
                        return format!(
                            "arrival: by way of = {peer}, connected for = {connected}, received = {received}"
                        );
                    }
                    Awaited::Handshake => "handshake",
                    Awaited::Signature => "signature",
                };
                format!("arrival: peer = {peer}, connected for = {connected}, stage = {stage}")
            });
            self.list(FIRST, total, lines);
        }
    }

    /// Adds a line that begins with the door's name.
    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) {
        use std::fmt::Write;
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{}: {line}", self.door);
    }

    /// Adds the first `most` of `total` lines, and a line with the number of the others. Returns the number of lines
    /// that were added from the list.
    pub(super) fn list(&mut self, most: usize, total: usize, lines: impl Iterator<Item = String>) -> usize {
        let mut told = 0;
        for line in lines.take(most) {
            self.line(format_args!("{line}"));
            told += 1;
        }
        self.tell_more(total, told, most);
        told
    }

    /// Adds such a list of lines that do not begin with the door's name. They are older than the other lines, and
    /// scripts may read them.
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

    /// Returns the whole text.
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

/// Returns the description of a process, or the words for none.
pub(super) fn process(view: Option<&ProcessView>) -> String {
    match view {
        Some(ProcessView { pid, age, memory }) => {
            let age = amount::span(*age);
            format!("pid = {pid}, age = {age}, memory = {memory}")
        }
        None => "pid = none".to_owned(),
    }
}

/// Returns the description of a program that runs for a client, or the words for none.
pub(super) fn program(job: Option<&Job>, survey: &Survey, now: Instant) -> String {
    let view = job.map(|job| ProcessView {
        pid: job.pid().as_raw(),
        age: now.saturating_duration_since(job.started()),
        memory: survey.look_at(job.pid()),
    });
    process(view.as_ref())
}

/// Returns the description of a client: its address, and over a UNIX socket also the process and the user at the other
/// end.
pub(super) fn describe_client(stream: &Stream, origin: &Origin) -> String {
    describe_peer(origin, stream.peer_credentials().ok().flatten())
}

/// Returns the same description, given the process at the other end of the client's UNIX socket.
pub(super) fn describe_peer(origin: &Origin, process: Option<PeerCredentials>) -> String {
    let mut text = String::with_capacity(USUAL_DESCRIPTION);
    // Writing to a string cannot fail.
    let _ = match process.filter(|_| origin.is_direct()) {
        Some(process) => write!(text, "{origin} ({process})"),
        None => write!(text, "{origin}"),
    };
    text
}

/// The bytes that the description of a client seldom exceeds.
const USUAL_DESCRIPTION: usize = 64;

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
    fn a_long_list_is_cut_and_has_the_number_of_the_other_entries() {
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
