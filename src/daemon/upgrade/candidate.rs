//! The daemon that was started by another to take its place: makes itself ready, says so, serves when it is told to.

use std::time::Instant;

use super::super::{Daemon, Places, Start};
use super::invitation::{self, Terms, VARIABLE};
use super::link::{Link, LinkEvent};
use super::message;
use crate::doors::{Door, Readiness};
use crate::error::{Blame, Error};
use crate::net::handover::{self, HandedOver};
use crate::net::inherit::Inherited;
use crate::process::successor;
use crate::reactor::Reactor;

/// What the variable has brought.
#[derive(Debug)]
pub(in crate::daemon) struct Invitation {
    pub(in crate::daemon) terms: Terms,
    pub(in crate::daemon) sockets: HandedOver,
    pub(in crate::daemon) given: Inherited,
    pub(in crate::daemon) places: Places,
}

impl Invitation {
    /// Whose place is to be taken.
    pub(in crate::daemon) fn predecessor(&self) -> i32 {
        self.terms.parent
    }

    /// `None`: this daemon was started in the ordinary way.
    ///
    /// # Errors
    /// It was started by a predecessor, and cannot be its successor.
    pub(in crate::daemon) fn from_environment() -> Result<Option<Invitation>, Error> {
        let Ok(value) = std::env::var(VARIABLE) else {
            return Ok(None);
        };
        let remedy = "restart the daemon instead";
        let refused = |what: String| Error::new(Blame::System, format!("cannot take over: {what}"), remedy);
        let Some((terms, places, table)) = invitation::parse(&value) else {
            return Err(refused(format!("{VARIABLE} was not written by a program like this")));
        };
        // Its parent may have been killed at this moment: then there is nothing to take over.
        if !successor::depend_on_parent(terms.parent) {
            return Err(refused(format!(
                "{VARIABLE} was meant for a child of process {}",
                terms.parent
            )));
        }
        let (sockets, given) = HandedOver::take_over(table).map_err(|error| refused(error.to_string()))?;
        Ok(Some(Invitation {
            terms,
            sockets,
            given,
            places,
        }))
    }
}

/// A daemon that does not serve yet.
#[derive(Debug)]
pub(in crate::daemon) struct Candidate {
    link: Link,
    predecessor: i32,
    /// It has said that it is ready.
    announced: bool,
    /// HUP came meanwhile.
    reload_postponed: bool,
}

impl Candidate {
    /// Listens to the predecessor.
    ///
    /// # Errors
    /// The descriptor is no connection; or no thread.
    pub(in crate::daemon) fn new(terms: Terms, reactor: &Reactor<dyn Door>) -> Result<Candidate, Error> {
        // Twice the time, because it is the predecessor that decides by the first half.
        let by = Instant::now() + terms.time.saturating_mul(2);
        let link = handover::take_over_connection(terms.connection)
            .and_then(|stream| Link::listen(stream, by, None, reactor))
            .map_err(|error| super::super::system("listen to its predecessor", &error))?;
        Ok(Candidate {
            link,
            predecessor: terms.parent,
            announced: false,
            reload_postponed: false,
        })
    }

    /// A reload waits until this daemon serves.
    pub(in crate::daemon) fn postpone_reload(&mut self) {
        self.reload_postponed = true;
    }
}

impl Daemon {
    /// What the candidate can do now: say that it is ready, or serve.
    ///
    /// # Errors
    /// The predecessor has ended or given up; or nothing can be accepted.
    pub(in crate::daemon) fn advance_candidacy(&mut self) -> Result<(), Error> {
        let Some(candidate) = &mut self.candidate else {
            return Ok(());
        };
        if !candidate.announced && self.doors.readiness(&mut self.reactor) == Readiness::Fully {
            candidate.announced = true;
            candidate.link.send(message::READY);
        }
        match candidate.link.receive() {
            None => Ok(()),
            Some(LinkEvent::Message(message::GO)) if candidate.announced => self.take_over(),
            Some(_) => {
                let what = format!(
                    "process {}, from which this one was to take over, has given up",
                    candidate.predecessor
                );
                Err(Error::new(Blame::System, what, "see what it has logged"))
            }
        }
    }

    fn take_over(&mut self) -> Result<(), Error> {
        let Some(candidate) = self.candidate.take() else {
            return Ok(());
        };
        successor::be_independent().map_err(|error| super::super::system("outlive its predecessor", &error))?;
        self.doors.accept(&mut self.reactor)?;
        candidate.link.send(message::SERVING);
        self.start = Start::Over;
        self.notifier.assume_ready();
        log::info!("serving in the place of process {}", candidate.predecessor);
        if candidate.reload_postponed {
            self.handle_hup();
        }
        Ok(())
    }
}
