//! Reading the configuration again, and looking at all that it names ([`survey`](super::survey)), on a thread: files and
//! directories may lie on a slow disk, and names of users may be looked up over a network, while the loop has requests to
//! serve.
//!
//! A disk may also never answer, and a thread that waits for one cannot be ended. So each attempt has its time: one that is not
//! over by then is told in the log and left alone, and the next HUP begins another. What a late one comes to is dropped, for
//! the file may have changed since. Only so many may hang at a time; beyond that a HUP is told why it reads nothing.

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

/// How long reading may take. Name services have their own time-outs, which are shorter.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// So many attempts may hang at a time.
const MOST_HANGING: usize = 4;

#[derive(Debug)]
pub(super) struct Reloader {
    /// `None`: there is no file, and what there is is laid out anew.
    source: Option<Source>,
    sender: Sender<(u64, Outcome)>,
    mailbox: Mailbox<(u64, Outcome)>,
    attempts: Attempts,
}

impl Reloader {
    pub(super) fn new(source: Option<Source>, reactor: &Reactor<dyn Door>) -> Self {
        let (sender, mailbox) = reactor.mailbox(MOST_HANGING + 1);
        Reloader {
            source,
            sender,
            mailbox,
            attempts: Attempts::default(),
        }
    }

    /// Whether there is a file to be read.
    pub(super) fn has_file(&self) -> bool {
        self.source.is_some()
    }

    /// Begins to read the file and to look at what it names.
    ///
    /// # Errors
    /// Nothing was started, and why: no thread, or too many hang.
    pub(super) fn start(&mut self, now: Instant, doors: &Doors) -> Result<(), Error> {
        let number = match self.attempts.request(now) {
            Request::Begin(number) => number,
            Request::Postponed => return Ok(()),
            Request::TooMany => {
                return Err(Error::new(
                    Blame::System,
                    format_args!("{MOST_HANGING} attempts to read the configuration have not come to an end"),
                    "see why a file system that it is on or names, or a name service, does not answer",
                ));
            }
        };
        let (survey, sender) = (doors.survey(self.source.clone()), self.sender.clone());
        let read = move || {
            // Signals are the loop's.
            let _ = SigSet::all().thread_block();
            // The daemon is ending when nobody takes it.
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

    /// Whether what was started is not finished.
    pub(super) fn is_reading(&self) -> bool {
        self.attempts.under_way.is_some()
    }

    /// When [`take_outcome`](Self::take_outcome) has to be asked, whatever happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.attempts.under_way.as_ref().map(|attempt| attempt.until)
    }

    /// What was read, once it has been; or that it is not waited for any more.
    pub(super) fn take_outcome(&mut self, now: Instant, doors: &Doors) -> Option<Outcome> {
        while let Some((number, outcome)) = self.mailbox.take() {
            match self.attempts.finish(number) {
                Arrival::InTime => return Some(outcome),
                Arrival::Outdated => return self.start(now, doors).err().map(Err),
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
                // Somebody has asked since: that attempt's outcome is the one to tell, unless there is none.
                if again && self.start(now, doors).is_ok() {
                    log::error!("the configuration cannot be read again: {hangs}");
                    return None;
                }
                Some(Err(hangs))
            }
        }
    }
}

/// Which attempts there are. Decides when one begins and whose outcome counts.
#[derive(Debug, Default)]
struct Attempts {
    started: u64,
    under_way: Option<Attempt>,
    /// How many are not waited for any more, and have not come to their end.
    hanging: usize,
}

#[derive(Debug)]
struct Attempt {
    number: u64,
    until: Instant,
    /// The file may have changed since it began: it is to be read once more.
    again: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Request {
    Begin(u64),
    /// When the one under way is over.
    Postponed,
    TooMany,
}

#[derive(Debug, PartialEq, Eq)]
enum Arrival {
    InTime,
    /// It is to be read once more.
    Outdated,
    /// Nobody has waited for it.
    Late,
}

#[derive(Debug, PartialEq, Eq)]
enum Expiry {
    Nothing,
    Attempt {
        /// It is to be read once more.
        again: bool,
    },
}

impl Attempts {
    fn request(&mut self, now: Instant) -> Request {
        if let Some(attempt) = &mut self.under_way {
            attempt.again = true;
            return Request::Postponed;
        }
        if self.hanging >= MOST_HANGING {
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

    /// An attempt has come to its end, whatever that was.
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
        for _ in 0..MOST_HANGING {
            assert!(matches!(attempts.request(now), Request::Begin(_)));
            now += READ_TIMEOUT;
            attempts.expire(now);
        }
        assert_eq!(attempts.request(now), Request::TooMany);
        assert_eq!(attempts.finish(2), Arrival::Late);
        assert!(matches!(attempts.request(now), Request::Begin(_)));
    }
}
