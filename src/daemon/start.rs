//! The start of a daemon: the first line of the log, and the report to the service manager when the start is over.
//!
//! A start is over when no door is [waiting](Readiness::Waiting) any more; then `READY=1` is sent. Clients are accepted
//! before that. If that time never comes, the service manager's own time limit ends the start (`TimeoutStartSec=` of
//! systemd), and nothing here asks for more time. A start that takes longer than [`PATIENCE`] reports as `STATUS=` what
//! it waits for.
//!
//! A successor reports to its predecessor instead, and has no start of this kind.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use super::Shutdown;
use super::notify::Notifier;
use crate::doors::{Options, Readiness};
use crate::process::arguments;

/// The time after which a start reports what it waits for, and the time between two such reports.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most services that are shown. The others are counted.
const SERVICES: usize = 16;
/// The most addresses of each service that are shown.
const ADDRESSES: usize = 4;
/// The number of characters after which a line is cut.
const LONGEST_LINE: usize = 4000;

/// The progress of the start.
#[derive(Debug)]
pub(super) enum Start {
    /// At least one door is not ready.
    UnderWay {
        /// The time of the next report of what the start waits for.
        tell_at: Instant,
        /// The last report.
        told: Option<String>,
    },
    /// Every door was ready, or this daemon has taken the place of one whose doors were.
    Over,
}

impl Start {
    pub(super) fn new(now: Instant) -> Start {
        Start::UnderWay {
            tell_at: now + PATIENCE,
            told: None,
        }
    }

    /// Returns the time of the next report, if there is a service manager.
    pub(super) fn deadline(&self, notifier: &Notifier) -> Option<Instant> {
        match self {
            Start::UnderWay { tell_at, .. } if notifier.is_connected() => Some(*tell_at),
            Start::UnderWay { .. } | Start::Over => None,
        }
    }

    /// Reports the state of the start to the service manager. `wait_for` describes what the doors wait for.
    pub(super) fn look_after(
        &mut self,
        now: Instant,
        readiness: Readiness,
        wait_for: impl FnOnce() -> String,
        notifier: &mut Notifier,
    ) {
        let Start::UnderWay { tell_at, told } = self else {
            return;
        };
        if readiness != Readiness::Waiting {
            notifier.report_ready();
            if told.is_some() {
                notifier.report_status("ready");
            }
            *self = Start::Over;
        } else if *tell_at <= now && notifier.is_connected() {
            *tell_at = now + PATIENCE;
            let status = format!("waiting for {}", wait_for());
            if told.as_ref() != Some(&status) {
                notifier.report_status(&status);
                *told = Some(status);
            }
        }
    }
}

impl super::Daemon {
    /// Reports the state of the start. Must be called after each turn of the loop.
    pub(super) fn report_start(&mut self) {
        // A candidate reports to its predecessor, and a daemon that shuts down has no start to report.
        if matches!(self.start, Start::Over) || self.candidate.is_some() || self.shutdown != Shutdown::NotBegun {
            return;
        }
        let Self {
            start,
            doors,
            reactor,
            notifier,
            ..
        } = self;
        let readiness = doors.readiness(reactor);
        start.look_after(Instant::now(), readiness, || doors.wait_for(reactor), notifier);
    }
}

/// Returns the first line of the log, with the process id and the services. `predecessor` is the process that it
/// replaces.
pub(super) fn announcement(process: u32, predecessor: Option<i32>, services: &[Options]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let place = predecessor.map(|process| format!(" in the place of process {process}"));
    let place = place.unwrap_or_default();
    let shown = services.iter().take(SERVICES).map(service);
    let mut shown: Vec<String> = shown.collect();
    if let Some(more) = services.len().checked_sub(SERVICES).filter(|more| *more > 0) {
        shown.push(format!("and {more} more"));
    }
    let mut line = format!(
        "iotcpd {version} (pid {process}) is starting{place}: {}",
        shown.join("; ")
    );
    if let Some((end, _)) = line.char_indices().nth(LONGEST_LINE) {
        line.truncate(end);
        line.push_str("...");
    }
    line
}

fn service(options: &Options) -> String {
    let (name, kind) = (options.name(), options.kind());
    let kind = if name == kind {
        String::new()
    } else {
        format!(" ({kind})")
    };
    let addresses = options.front().listen.iter().take(ADDRESSES).map(ToString::to_string);
    let mut addresses: Vec<String> = addresses.collect();
    if let Some(more) = options
        .front()
        .listen
        .len()
        .checked_sub(ADDRESSES)
        .filter(|more| *more > 0)
    {
        addresses.push(format!("{more} more"));
    }
    if addresses.is_empty() {
        addresses.push("no address of its own".to_owned());
    }
    format!("{name}{kind}: {}, on {}", options.summary(), addresses.join(", "))
}

/// Overwrites a secret on the command line, and warns of it. Must be called once the arguments of a successor are known.
pub(super) fn hide_secret(secret: &str) {
    const REMEDY: &str = "write it to a file and name that with --secret-file";
    match arguments::hide(OsStr::new(secret)) {
        Ok(()) => log::warn!(
            "--secret: until now other users could see it on the command line, where it is overwritten; {REMEDY}"
        ),
        Err(error) => log::warn!(
            "--secret: other users see it on the command line, where it cannot be overwritten: {error}; {REMEDY}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// Returns all messages that were sent so far.
    fn sent(manager: &UnixDatagram) -> Vec<String> {
        let mut message = [0; 2048];
        let next = || {
            let length = manager.recv(&mut message).ok()?;
            Some(String::from_utf8_lossy(&message[..length]).into_owned())
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_long_start_reports_once_what_it_waits_for_and_then_that_it_is_over() {
        let (mut notifier, manager) = Notifier::for_tests();
        let begin = Instant::now();
        let mut start = Start::new(begin);
        let mut after = |seconds, readiness, what: &str| {
            let now = begin + Duration::from_secs(seconds);
            start.look_after(now, readiness, || what.to_owned(), &mut notifier);
            sent(&manager)
        };
        assert_eq!(after(0, Readiness::Waiting, "web"), Vec::<String>::new());
        assert_eq!(
            after(5, Readiness::Waiting, "web: a\nb"),
            ["STATUS=waiting for web: ab"]
        );
        for seconds in 6..30 {
            assert_eq!(after(seconds, Readiness::Waiting, "web: a\nb"), Vec::<String>::new());
        }
        assert_eq!(after(60, Readiness::Waiting, "mail"), ["STATUS=waiting for mail"]);
        assert_eq!(after(61, Readiness::Partly, ""), ["READY=1", "STATUS=ready"]);
        assert_eq!(after(99, Readiness::Waiting, "mail"), Vec::<String>::new());
    }

    #[test]
    fn a_start_that_is_over_at_once_reports_only_that() {
        let (mut notifier, manager) = Notifier::for_tests();
        let mut start = Start::new(Instant::now());
        start.look_after(Instant::now(), Readiness::Fully, String::new, &mut notifier);
        assert_eq!(sent(&manager), ["READY=1"]);
        assert_eq!(start.deadline(&notifier), None);
    }
}
