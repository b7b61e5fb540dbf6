//! The successor's side of an upgrade, until it serves: it gets ready, says so, and serves when the predecessor says
//! so.

use std::time::Instant;

use super::super::{Daemon, Places, Start};
use super::invitation::{self, LINKS_VARIABLE, Parts, Terms, VARIABLE};
use super::link::{Link as Connection, LinkEvent};
use super::message;
use crate::doors::{Door, Readiness};
use crate::error::{Blame, Error};
use crate::net::handover::{self, HandedOver};
use crate::net::inherit::Inherited;
use crate::net::link::Link;
use crate::process::predecessors::Predecessors;
use crate::process::successor;
use crate::reactor::Reactor;

/// The contents of the variable by which a predecessor starts its successor.
#[derive(Debug)]
pub(in crate::daemon) struct Invitation {
    pub(in crate::daemon) terms: Terms,
    pub(in crate::daemon) sockets: HandedOver,
    pub(in crate::daemon) given: Inherited,
    pub(in crate::daemon) places: Places,
    pub(in crate::daemon) predecessors: Predecessors,
    /// The links of doors, with their names.
    pub(in crate::daemon) links: Vec<(String, Link)>,
}

impl Invitation {
    /// Returns the process id of the predecessor.
    pub(in crate::daemon) fn predecessor(&self) -> i32 {
        self.terms.parent
    }

    /// Returns the invitation in the environment, or `None` if this daemon was started in the ordinary way.
    ///
    /// # Errors
    /// A predecessor has started this daemon, which cannot be its successor.
    pub(in crate::daemon) fn from_environment() -> Result<Option<Invitation>, Error> {
        let Ok(value) = std::env::var(VARIABLE) else {
            return Ok(None);
        };
        let remedy = "restart the daemon instead";
        let refused = |what: String| Error::new(Blame::System, format!("cannot take over: {what}"), remedy);
        let Some(parts) = invitation::parse(&value) else {
            return Err(refused(format!("{VARIABLE} was not written by a program like this")));
        };
        let Parts {
            terms,
            earlier,
            places,
            sockets,
        } = parts;
        // The parent may be killed at this moment. Then there is nothing to take over.
        if !successor::depend_on_parent(terms.parent) {
            return Err(refused(format!(
                "{VARIABLE} was meant for a child of process {}",
                terms.parent
            )));
        }
        let (sockets, given) = HandedOver::take_over(sockets).map_err(|error| refused(error.to_string()))?;
        Ok(Some(Invitation {
            terms,
            sockets,
            given,
            places,
            predecessors: Predecessors::of(terms.parent, earlier),
            links: links(),
        }))
    }
}

/// Takes over the links of doors that the predecessor offers.
fn links() -> Vec<(String, Link)> {
    let lines = std::env::var(LINKS_VARIABLE).unwrap_or_default();
    let link = |(service, number)| Some((service, Link::take_over(number).ok()?));
    invitation::read_links(&lines).into_iter().filter_map(link).collect()
}

/// The state of a daemon that is about to take over from its predecessor.
#[derive(Debug)]
pub(in crate::daemon) struct Candidate {
    link: Connection,
    predecessor: i32,
    /// True once it has told its predecessor that it is ready.
    announced: bool,
    /// True if HUP was received since the start.
    reload_postponed: bool,
}

impl Candidate {
    /// Starts to listen to the predecessor.
    ///
    /// # Errors
    /// The descriptor is no connection, or there is no thread.
    pub(in crate::daemon) fn new(terms: Terms, reactor: &Reactor<dyn Door>) -> Result<Candidate, Error> {
        // Twice the time, because the predecessor decides when half of it is over.
        let by = Instant::now() + terms.time.saturating_mul(2);
        let link = handover::take_over_connection(terms.connection)
            .and_then(|stream| Connection::listen(stream, by, None, reactor))
            .map_err(|error| super::super::system("listen to its predecessor", &error))?;
        Ok(Candidate {
            link,
            predecessor: terms.parent,
            announced: false,
            reload_postponed: false,
        })
    }

    /// Remembers a HUP, which is handled once this daemon serves.
    pub(in crate::daemon) fn postpone_reload(&mut self) {
        self.reload_postponed = true;
    }
}

impl Daemon {
    /// Tells the predecessor when this daemon is ready, and serves once the predecessor says so. Must be called after
    /// each turn of the loop.
    ///
    /// # Errors
    /// The predecessor has ended or given up, or clients cannot be accepted.
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
