//! The invitation by which a predecessor starts its successor, in one variable of the environment: the predecessor's
//! process id, the descriptor of the connection to it, the time until the successor must be ready, the limit on open
//! files for its workers, the processes before the predecessor that still run, the present number of workers of each
//! service (its minimum would be too few for the load), and the sockets.
//!
//! The first line is `1 PARENT CONNECTION MILLISECONDS OPEN-FILES`. Then come `earlier PID STARTED` for each of those
//! processes, and `places NUMBER SERVICE` for each service, separated by tabs. The rest is the table of [`handover`]. A process that finds the variable with another
//! parent's number has it by mistake, and must refuse to start.
//!
//! A second variable has a line `FD SERVICE`, separated by a tab, for each link of a door (`Door::offer_link`). It is apart, so
//! that a version without links, which does not read it, can be a successor.

use std::fmt;
use std::os::fd::RawFd;
use std::time::Duration;

use super::super::Places;
use crate::net::handover::{self, Entry};
use crate::process::predecessors::Earlier;

/// The name of the variable.
pub(super) const VARIABLE: &str = "IOTCPD_HANDOVER";
/// The name of the variable with the links.
pub(super) const LINKS_VARIABLE: &str = "IOTCPD_LINKS";
/// The variables that the successor must not inherit, because the invitation describes those sockets.
pub(super) const REMOVED_VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// The version of the upgrade protocol, which must be the same on both sides.
const PROTOCOL: &str = "1";

/// The first line of the invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) struct Terms {
    /// The predecessor's process id.
    pub(super) parent: i32,
    /// The successor's end of the connection.
    pub(super) connection: RawFd,
    /// The time from the successor's start until it must be ready.
    pub(super) time: Duration,
    /// The soft limit on open files that the first daemon was started with.
    pub(in crate::daemon) open_files: u64,
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parent, connection, time) = (self.parent, self.connection, self.time.as_millis());
        writeln!(f, "{PROTOCOL} {parent} {connection} {time} {}", self.open_files)
    }
}

/// Returns the lines about earlier processes.
pub(super) fn write_earlier(processes: &[Earlier]) -> String {
    let line = |process: &Earlier| format!("earlier\t{}\t{}\n", process.pid, process.started);
    processes.iter().map(line).collect()
}

/// Parses a line about an earlier process, and returns the lines after it as well.
fn read_earlier(lines: &str) -> Option<(Earlier, &str)> {
    let (line, rest) = lines.split_once('\n')?;
    let (pid, started) = line.strip_prefix("earlier\t")?.split_once('\t')?;
    let process = Earlier {
        pid: pid.parse().ok()?,
        started: started.parse().ok()?,
    };
    Some((process, rest))
}

/// Returns the lines about the services.
pub(super) fn write_places(places: &Places) -> String {
    let line = |(service, number): &(String, usize)| format!("places\t{number}\t{service}\n");
    places.iter().map(line).collect()
}

/// Parses a line about a service, and returns the lines after it as well.
fn read_places(lines: &str) -> Option<((String, usize), &str)> {
    let (line, rest) = lines.split_once('\n')?;
    let (number, service) = line.strip_prefix("places\t")?.split_once('\t')?;
    Some(((service.to_owned(), number.parse().ok()?), rest))
}

/// Returns the lines about the links of doors.
pub(super) fn write_links<'l>(links: impl Iterator<Item = (&'l str, RawFd)>) -> String {
    links.map(|(service, fd)| format!("{fd}\t{service}\n")).collect()
}

/// Returns the links of the lines that make sense. Without one a door works as well.
pub(super) fn read_links(lines: &str) -> Vec<(String, RawFd)> {
    let link = |line: &str| {
        let (fd, service) = line.split_once('\t')?;
        Some((service.to_owned(), fd.parse().ok()?))
    };
    lines.lines().filter_map(link).collect()
}

/// The parts of an invitation.
#[derive(Debug, PartialEq)]
pub(super) struct Parts {
    pub(super) terms: Terms,
    pub(super) earlier: Vec<Earlier>,
    pub(super) places: Places,
    pub(super) sockets: Vec<Entry>,
}

/// Parses the variable's value. Returns `None` if it is malformed.
pub(super) fn parse(value: &str) -> Option<Parts> {
    let (first, mut table) = value.split_once('\n')?;
    let mut words = first.split(' ');
    let mut next = || words.next();
    if next()? != PROTOCOL {
        return None;
    }
    let terms = Terms {
        parent: next()?.parse().ok()?,
        connection: next()?.parse().ok()?,
        time: Duration::from_millis(next()?.parse().ok()?),
        open_files: next()?.parse().ok()?,
    };
    if next().is_some() {
        return None;
    }
    let mut earlier = Vec::new();
    while let Some((process, rest)) = read_earlier(table) {
        earlier.push(process);
        table = rest;
    }
    let mut places = Places::new();
    while let Some((service, rest)) = read_places(table) {
        places.push(service);
        table = rest;
    }
    Some(Parts {
        terms,
        earlier,
        places,
        sockets: handover::parse(table).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_read_as_it_was_written() {
        let terms = Terms {
            parent: 7,
            connection: 9,
            time: Duration::from_secs(90),
            open_files: 1024,
        };
        let table = "12\tgiven\tweb\n13\tbound\t-\tpool\t127.0.0.1:0\n";
        let places = vec![("pool".to_owned(), 4), ("a b".to_owned(), 4096)];
        let earlier = vec![Earlier { pid: 5, started: 77 }, Earlier { pid: 4, started: 66 }];
        let written = write_earlier(&earlier) + &write_places(&places);
        let parts = Parts {
            terms,
            earlier,
            places,
            sockets: handover::parse(table).unwrap(),
        };
        assert_eq!(parse(&format!("{terms}{written}{table}")), Some(parts));
    }

    #[test]
    fn links_are_read_as_they_were_written() {
        let links = [("web", 7), ("a b", 12)];
        let expected = links.map(|(service, fd)| (service.to_owned(), fd));
        assert_eq!(read_links(&write_links(links.into_iter())), expected);
        assert_eq!(read_links("x\tweb\n7\n\n9\tb\n"), [("b".to_owned(), 9)]);
    }

    #[test]
    fn a_malformed_invitation_is_refused() {
        for value in [
            "",
            "1 2 3 4 5",
            "2 2 3 4 5\n",
            "1 2 3 4\n",
            "1 2 3 4 5 6\n",
            "1 2 3 4 5\nx\n",
            "1 2 3 4 5\nplaces\t-1\tpool\n",
            "1 2 3 4 5\nplaces\t4\n",
            "1 2 3 4 5\nearlier\t4\n",
            "1 2 3 4 5\nearlier\tx\t5\n",
            "1 a 3 4 5\n",
        ] {
            assert_eq!(parse(value), None, "{value:?}");
        }
    }
}
