//! Reads the configuration again and looks at everything that it names ([`survey`](super::survey)), on a thread: files
//! and directories may lie on a slow disk, and user names may be looked up over a network, while the loop has requests
//! to serve.
//!
//! A disk may also never answer, and a thread that waits for one cannot be ended. So each attempt has a time limit. An
//! attempt that exceeds it is reported in the log and left alone, and the next HUP starts another. The result of a late
//! attempt is dropped, because the file may have changed since. Only a few attempts may hang at a time; beyond that a
//! HUP reads nothing, and the log says why.

use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use crate::amount;
use crate::config::file::Source;
use crate::doors::Door;
use crate::error::{Blame, Error};
use crate::reactor::Reactor;
use crate::reactor::helper::{Mailbox, Sender};

use super::doors::Doors;
use super::survey::Surveyed;

type Outcome = Result<Surveyed, Error>;

/// The time limit of one attempt. Name services have time limits of their own, which are shorter.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// The number of attempts that may hang at a time.
const MAX_HANGING: usize = 4;

#[derive(Debug)]
pub(super) struct Reloader {
    /// The configuration file. If it is `None`, a reload only prepares the programs of the present services again.
    source: Option<Source>,
    sender: Sender<(u64, Outcome)>,
    mailbox: Mailbox<(u64, Outcome)>,
    attempts: Attempts,
}

impl Reloader {
    pub(super) fn new(source: Option<Source>, reactor: &Reactor<dyn Door>) -> Self {
        let (sender, mailbox) = reactor.mailbox(MAX_HANGING + 1);
        Reloader {
            source,
            sender,
            mailbox,
            attempts: Attempts::default(),
        }
    }

    /// Returns true if there is a file to read.
    pub(super) fn has_file(&self) -> bool {
        self.source.is_some()
    }

    /// Starts a thread that reads the file and looks at everything that it names. If an attempt is under way, another
    /// one follows it.
    ///
    /// # Errors
    /// Nothing was started: there is no thread for it, or too many attempts hang.
    pub(super) fn start(&mut self, now: Instant, doors: &Doors, reactor: &mut Reactor<dyn Door>) -> Result<(), Error> {
        let number = match self.attempts.request(now) {
            Request::Begin(number) => number,
            Request::Postponed => return Ok(()),
            Request::TooMany => {
                return Err(Error::new(
                    Blame::System,
                    format_args!("{MAX_HANGING} attempts to read the configuration have not come to an end"),
                    "see why a file system that it is on or names, or a name service, does not answer",
                ));
            }
        };
        let (survey, sender) = (doors.survey(reactor, self.source.clone()), self.sender.clone());
        let read = move || {
            // Signals are handled by the loop alone.
            let _ = SigSet::all().thread_block();
            // An error: the daemon is ending and takes no result.
            let _ = sender.send((number, survey.make()));
        };
        let started = std::thread::Builder::new().name("reload".to_owned()).spawn(read);
        started.map(drop).map_err(|error| {
            self.attempts.finish(number);
            Error::new(
                Blame::System,
                format_args!("no thread to read it on: {error}"),
                "send HUP again later",
            )
        })
    }

    /// Returns true while an attempt is under way.
    pub(super) fn is_reading(&self) -> bool {
        self.attempts.under_way.is_some()
    }

    /// Returns the time at which [`take_outcome`](Self::take_outcome) must be called at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.attempts.under_way.as_ref().map(|attempt| attempt.until)
    }

    /// Returns the result of an attempt once it is complete, or an error once its time limit is exceeded. Must be
    /// called after each turn of the loop.
    pub(super) fn take_outcome(
        &mut self,
        now: Instant,
        doors: &Doors,
        reactor: &mut Reactor<dyn Door>,
    ) -> Option<Outcome> {
        while let Some((number, outcome)) = self.mailbox.take() {
            match self.attempts.finish(number) {
                Arrival::InTime => return Some(outcome),
                Arrival::Outdated => return self.start(now, doors, reactor).err().map(Err),
                Arrival::Late => {
                    log::info!("an earlier attempt to read the configuration has come to its end and is dropped")
                }
            }
        }
        match self.attempts.expire(now) {
            Expiry::Nothing => None,
            Expiry::Attempt { again } => {
                let hangs = Error::new(
                    Blame::System,
                    format_args!(
                        "reading it, and looking at what it names, takes longer than {} and is not waited for any more",
                        amount::span(READ_TIMEOUT)
                    ),
                    "see why a file system that it is on or names, or a name service, does not answer, and send HUP again",
                );
                // There was another request since. The outcome of its attempt is the one to report, unless that cannot
                // start.
                if again && self.start(now, doors, reactor).is_ok() {
                    log::error!("the configuration cannot be read again: {hangs}");
                    return None;
                }
                Some(Err(hangs))
            }
        }
    }
}

/// The record of all attempts. Decides when an attempt starts and whether its outcome counts.
#[derive(Debug, Default)]
struct Attempts {
    started: u64,
    under_way: Option<Attempt>,
    /// The number of attempts that have exceeded their time limit and not ended.
    hanging: usize,
}

#[derive(Debug)]
struct Attempt {
    number: u64,
    until: Instant,
    /// True if the file may have changed since the attempt began, so that another one must follow.
    again: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Begin(u64),
    /// An attempt is under way, and another one will follow it.
    Postponed,
    TooMany,
}

#[derive(Debug, PartialEq, Eq)]
enum Arrival {
    InTime,
    /// The file may have changed since, and must be read again.
    Outdated,
    /// The attempt had exceeded its time limit.
    Late,
}

#[derive(Debug, PartialEq, Eq)]
enum Expiry {
    Nothing,
    Attempt {
        /// True if the file may have changed since, and must be read again.
        again: bool,
    },
}

impl Attempts {
    fn request(&mut self, now: Instant) -> Request {
        if let Some(attempt) = &mut self.under_way {
            attempt.again = true;
            return Request::Postponed;
        }
        if self.hanging >= MAX_HANGING {
            return Request::TooMany;
        }
        self.started += 1;
        self.under_way = Some(Attempt {
            number: self.started,
            until: now + READ_TIMEOUT,
            again: false,
        });
        Request::Begin(self.started)
    }

    /// Records the end of an attempt, successful or not.
    fn finish(&mut self, number: u64) -> Arrival {
        match self.under_way.take_if(|attempt| attempt.number == number) {
            Some(attempt) if attempt.again => Arrival::Outdated,
            Some(_) => Arrival::InTime,
            None => {
                self.hanging = self.hanging.saturating_sub(1);
                Arrival::Late
            }
        }
    }

    fn expire(&mut self, now: Instant) -> Expiry {
        match self.under_way.take_if(|attempt| attempt.until <= now) {
            None => Expiry::Nothing,
            Some(attempt) => {
                self.hanging += 1;
                Expiry::Attempt { again: attempt.again }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_during_a_reading_starts_another_afterwards() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        assert_eq!(attempts.request(now), Request::Begin(1));
        assert_eq!(attempts.finish(1), Arrival::InTime);
        assert_eq!(attempts.request(now), Request::Begin(2));
        assert_eq!(attempts.request(now), Request::Postponed);
        assert_eq!(attempts.finish(2), Arrival::Outdated);
        assert_eq!(attempts.request(now), Request::Begin(3));
    }

    #[test]
    fn a_hanging_attempt_does_not_delay_later_ones() {
        let (mut attempts, mut now) = (Attempts::default(), Instant::now());
        assert_eq!(attempts.request(now), Request::Begin(1));
        assert_eq!(attempts.expire(now), Expiry::Nothing);
        now += READ_TIMEOUT;
        assert_eq!(attempts.expire(now), Expiry::Attempt { again: false });
        assert_eq!(attempts.request(now), Request::Begin(2));
        assert_eq!(attempts.request(now), Request::Postponed);
        assert_eq!(
            attempts.finish(1),
            Arrival::Late,
            "it is not taken for the one that was asked for"
        );
        now += READ_TIMEOUT;
        assert_eq!(attempts.expire(now), Expiry::Attempt { again: true });
        assert_eq!(attempts.request(now), Request::Begin(3));
        assert_eq!(attempts.finish(3), Arrival::InTime);
    }

    #[test]
    fn no_more_than_the_limit_hang() {
        let (mut attempts, mut now) = (Attempts::default(), Instant::now());
        for _ in 0..MAX_HANGING {
            assert!(matches!(attempts.request(now), Request::Begin(_)));
            now += READ_TIMEOUT;
            attempts.expire(now);
        }
        assert_eq!(attempts.request(now), Request::TooMany);
        assert_eq!(attempts.finish(2), Arrival::Late);
        assert!(matches!(attempts.request(now), Request::Begin(_)));
    }
}
