//! What a successor is told at its start, in one variable of its environment: who its predecessor is, on which descriptor it
//! hears it, how long it has, which limit on open files its workers get, and which sockets it has.
//!
//! The first line is `1 PARENT CONNECTION MILLISECONDS OPEN-FILES`, the rest the table of [`handover`](crate::net::handover).
//! A variable that names another parent was passed on by mistake, and means nothing.

use std::fmt;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::net::handover::{self, Entry};

/// The variable.
pub(super) const VARIABLE: &str = "IOTCPD_HANDOVER";
/// What the successor must not have: it is told of those sockets here.
pub(super) const NOT_FOR_IT: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// The way of upgrading that this program knows, which both sides must.
const PROTOCOL: &str = "1";

/// The first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) struct Terms {
    /// The predecessor's process id.
    pub(super) parent: i32,
    /// The successor's end of the connection.
    pub(super) connection: RawFd,
    /// From its start until it has to be ready.
    pub(super) time: Duration,
    /// The soft limit that the first daemon was started with.
    pub(in crate::daemon) open_files: u64,
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parent, connection, time) = (self.parent, self.connection, self.time.as_millis());
        writeln!(f, "{PROTOCOL} {parent} {connection} {time} {}", self.open_files)
    }
}

/// The variable's value as the two parts of an invitation; `None`: it makes no sense.
pub(super) fn parse(value: &str) -> Option<(Terms, Vec<Entry>)> {
    let (first, table) = value.split_once('\n')?;
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
    Some((terms, handover::parse(table).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let terms = Terms {
            parent: 7,
            connection: 9,
            time: Duration::from_secs(90),
            open_files: 1024,
        };
        let table = "12\tgiven\tweb\n13\tbound\t-\tpool\t127.0.0.1:0\n";
        let (read, entries) = parse(&format!("{terms}{table}")).unwrap();
        assert_eq!(read, terms);
        assert_eq!(entries, handover::parse(table).unwrap());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for value in [
            "",
            "1 2 3 4 5",
            "2 2 3 4 5\n",
            "1 2 3 4\n",
            "1 2 3 4 5 6\n",
            "1 2 3 4 5\nx\n",
            "1 a 3 4 5\n",
        ] {
            assert_eq!(parse(value), None, "{value:?}");
        }
    }
}
