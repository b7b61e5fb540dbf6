//! What the operator's addresses stand for.
//!
//! A name is looked up on a thread of its own, because getaddrinfo(3) waits: at the start, and again whenever its address has
//! failed or is probed. Attempts that come before the first answer are parked here; core has their deadlines. Of several
//! targets behind one name the one that worked last is tried first, and the next one as soon as one refuses.

use std::io;
use std::net::SocketAddr;

use super::super::target::{self, Target};
use super::core::AttemptId;
use crate::net::addr::ConnectAddr;
use crate::reactor::helper::Sender;

/// What a look-up has found for one address.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) address: usize,
    pub(super) targets: io::Result<Vec<SocketAddr>>,
}

/// One of the operator's addresses.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: ConnectAddr,
    targets: Vec<Target>,
    /// The target to try first.
    preferred: usize,
    lookup: Lookup,
    /// Attempts that wait for the look-up.
    parked: Vec<AttemptId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lookup {
    /// There is no name in it.
    Needless,
    Idle,
    UnderWay,
}

impl Place {
    pub(super) fn new(name: ConnectAddr) -> Place {
        let target = Target::of(&name);
        Place {
            name,
            lookup: target.as_ref().map_or(Lookup::Idle, |_| Lookup::Needless),
            targets: target.into_iter().collect(),
            preferred: 0,
            parked: Vec::new(),
        }
    }

    /// The target for an attempt that so many have refused already; `None` when it has been at all of them.
    pub(super) fn target(&self, refused: usize) -> Option<&Target> {
        if refused >= self.targets.len() {
            return None;
        }
        self.targets.get((self.preferred + refused) % self.targets.len())
    }

    pub(super) fn has_targets(&self) -> bool {
        !self.targets.is_empty()
    }

    /// The preferred target, and so many behind it, did not answer.
    pub(super) fn prefer_next(&mut self, refused: usize) {
        if let Some(preferred) = (self.preferred + refused).checked_rem(self.targets.len()) {
            self.preferred = preferred;
        }
    }

    pub(super) fn park(&mut self, attempt: AttemptId) {
        self.parked.push(attempt);
    }

    /// Whether the attempt was parked here; it is not any more.
    pub(super) fn unpark(&mut self, attempt: AttemptId) -> bool {
        let before = self.parked.len();
        self.parked.retain(|parked| *parked != attempt);
        self.parked.len() < before
    }

    /// Looks the name up, unless there is none or that is being done already.
    ///
    /// # Errors
    /// The thread could not be made: EAGAIN.
    pub(super) fn look_up(&mut self, address: usize, to: &Sender<Resolved>) -> io::Result<()> {
        let ConnectAddr::Tcp { host, port } = &self.name else {
            return Ok(());
        };
        if self.lookup != Lookup::Idle {
            return Ok(());
        }
        let report = move |targets| Resolved { address, targets };
        target::look_up((host.clone(), *port), to.clone(), report)?;
        self.lookup = Lookup::UnderWay;
        Ok(())
    }

    /// Takes in what the look-up has found and gives the parked attempts back. When it has found nothing, the old targets
    /// stay: a name server that is away says nothing about them.
    pub(super) fn resolved(&mut self, targets: io::Result<Vec<SocketAddr>>) -> (Vec<AttemptId>, Option<io::Error>) {
        self.lookup = Lookup::Idle;
        let error = match targets {
            Ok(found) => {
                let found: Vec<Target> = found.into_iter().map(Target::Tcp).collect();
                if found != self.targets {
                    (self.targets, self.preferred) = (found, 0);
                }
                None
            }
            Err(error) => Some(error),
        };
        (std::mem::take(&mut self.parked), error)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    fn place(text: &str) -> Place {
        Place::new(text.parse().unwrap())
    }

    fn target(text: &str) -> Target {
        Target::Tcp(text.parse().unwrap())
    }

    #[test]
    fn an_address_in_figures_needs_no_look_up() {
        for text in ["127.0.0.1:1", "[::1]:1"] {
            assert_eq!(place(text).target(0), Some(&target(text)));
            assert_eq!(place(text).lookup, Lookup::Needless);
        }
        assert_eq!(place("unix:/run/x").lookup, Lookup::Needless);
        assert_eq!(place("localhost:1").target(0), None);
    }

    #[test]
    fn the_target_that_worked_last_is_tried_first_and_the_others_after_it() {
        let mut place = place("pool.example:1");
        let found: Vec<SocketAddr> = ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap()).into();
        assert!(place.resolved(Ok(found.clone())).1.is_none());
        assert_eq!(place.target(1), Some(&target("10.0.0.2:1")));
        place.prefer_next(1);
        assert_eq!(place.target(0), Some(&target("10.0.0.2:1")));
        assert_eq!(place.target(1), Some(&target("10.0.0.1:1")));
        assert_eq!(place.target(2), None);
        assert!(place.resolved(Ok(found)).1.is_none());
        assert_eq!(
            place.target(0),
            Some(&target("10.0.0.2:1")),
            "the same again: nothing changes"
        );
        assert!(place.resolved(Err(ErrorKind::TimedOut.into())).1.is_some());
        assert!(place.has_targets(), "what was found before stays");
    }
}
