//! The operator's addresses and the targets that their host names resolve to.
//!
//! A host name is looked up on a thread of its own, because getaddrinfo(3) blocks: at the start, and again whenever its
//! address has failed or is probed. Connections to be made before the first result are parked here; the core holds the
//! deadlines of their lines.
//! Of several targets of one name the one that worked last is tried first, and the next one as soon as it refuses.

use std::io;
use std::net::SocketAddr;

use super::super::server::Server;
use super::super::target::{self, Target};
use super::connection::Purpose;
use super::core::Fault;
use crate::error::error_text;
use crate::net::addr::ConnectAddr;
use crate::reactor::helper::Sender;

/// The result of a look-up for one address.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) address: usize,
    pub(super) targets: io::Result<Vec<SocketAddr>>,
}

/// One of the operator's addresses.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) server: Server,
    targets: Vec<Target>,
    /// The index of the target to try first.
    preferred: usize,
    lookup: Lookup,
    /// The text of the last [`Fault::Tls`] or [`Fault::Disagreed`].
    tls_fault: String,
    /// The purposes of the connections that wait for the look-up.
    parked: Vec<Purpose>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lookup {
    /// The address holds no host name.
    Unneeded,
    Idle,
    UnderWay,
}

impl Destination {
    pub(super) fn new(server: Server) -> Destination {
        let target = Target::without_look_up(&server.name.address);
        Destination {
            server,
            lookup: target.as_ref().map_or(Lookup::Idle, |_| Lookup::Unneeded),
            targets: target.into_iter().collect(),
            preferred: 0,
            tls_fault: String::new(),
            parked: Vec::new(),
        }
    }

    /// Returns the target for an attempt that `refused` targets have refused already; `None` after all of them have.
    pub(super) fn target(&self, refused: usize) -> Option<&Target> {
        if refused >= self.targets.len() {
            return None;
        }
        self.targets.get((self.preferred + refused) % self.targets.len())
    }

    pub(super) fn has_targets(&self) -> bool {
        !self.targets.is_empty()
    }

    /// Notes that the preferred target and the ones after it, `refused` in number, did not answer: the next one is
    /// preferred.
    pub(super) fn prefer_next(&mut self, refused: usize) {
        if let Some(preferred) = (self.preferred + refused).checked_rem(self.targets.len()) {
            self.preferred = preferred;
        }
    }

    /// Notes the error behind a fault, if the fault does not hold it.
    pub(super) fn note_error(&mut self, fault: Fault, error: &io::Error) {
        if matches!(fault, Fault::Tls | Fault::Disagreed) {
            self.tls_fault = error_text(error);
        }
    }

    /// Returns the text of a fault of this address, for people.
    pub(super) fn fault_text(&self, fault: Fault) -> String {
        match fault {
            Fault::Tls | Fault::Disagreed if !self.tls_fault.is_empty() => self.tls_fault.clone(),
            _ => fault.to_string(),
        }
    }

    pub(super) fn park(&mut self, purpose: Purpose) {
        self.parked.push(purpose);
    }

    /// Removes what is parked here for this purpose.
    pub(super) fn unpark(&mut self, purpose: Purpose) {
        self.parked.retain(|parked| *parked != purpose);
    }

    /// Starts to look up the host name. Does nothing if there is none, or if a look-up is under way.
    ///
    /// # Errors
    /// EAGAIN if the thread cannot be created.
    pub(super) fn look_up(&mut self, address: usize, to: &Sender<Resolved>) -> io::Result<()> {
        let ConnectAddr::Tcp { host, port } = &self.server.name.address else {
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

    /// Takes the result of the look-up and returns what was parked. After an error the old targets stay: a name
    /// server that is away says nothing about them.
    pub(super) fn take_resolved(&mut self, targets: io::Result<Vec<SocketAddr>>) -> (Vec<Purpose>, Option<io::Error>) {
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
    use crate::client::TlsOptions;

    fn destination(text: &str) -> Destination {
        Destination::new(Server::prepare(text.parse().unwrap(), &TlsOptions::default()).unwrap())
    }

    fn target(text: &str) -> Target {
        Target::Tcp(text.parse().unwrap())
    }

    #[test]
    fn an_address_in_figures_needs_no_look_up() {
        for text in ["127.0.0.1:1", "[::1]:1"] {
            assert_eq!(destination(text).target(0), Some(&target(text)));
            assert_eq!(destination(text).lookup, Lookup::Unneeded);
        }
        assert_eq!(destination("unix:/run/x").lookup, Lookup::Unneeded);
        assert_eq!(destination("localhost:1").target(0), None);
    }

    #[test]
    fn the_target_that_worked_last_is_tried_first_and_the_others_after_it() {
        let mut destination = destination("pool.example:1");
        let found: Vec<SocketAddr> = ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap()).into();
        assert!(destination.take_resolved(Ok(found.clone())).1.is_none());
        assert_eq!(destination.target(1), Some(&target("10.0.0.2:1")));
        destination.prefer_next(1);
        assert_eq!(destination.target(0), Some(&target("10.0.0.2:1")));
        assert_eq!(destination.target(1), Some(&target("10.0.0.1:1")));
        assert_eq!(destination.target(2), None);
        assert!(destination.take_resolved(Ok(found)).1.is_none());
        assert_eq!(
            destination.target(0),
            Some(&target("10.0.0.2:1")),
            "the same again: nothing changes"
        );
        assert!(destination.take_resolved(Err(ErrorKind::TimedOut.into())).1.is_some());
        assert!(destination.has_targets(), "what was found before stays");
    }
}
