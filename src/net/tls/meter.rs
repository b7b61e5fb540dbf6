//! Counts of connections that go wrong after their handshake.
//!
//! The owner of many connections makes one [`Meter`] and shares it with them. Each has an [`Account`], which looks at what
//! its reads and writes have come to, and counts the connection at most once. The owner takes the [`Trouble`] of each from
//! the meter, for its log.
//!
//! An end without close_notify is common and harmless where the client has its answer. It is counted only behind bytes of
//! the client that nothing was written after: then a request may have been cut off.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, ErrorKind};
use std::mem;
use std::rc::Rc;

use super::error::Fault;
use crate::net::origin::Origin;

/// The largest number of troubles that are kept. Further ones are only counted.
const KEPT: usize = 64;

/// The counts of all connections of one owner.
#[derive(Debug, Default)]
pub struct Meter {
    failed: Cell<u64>,
    cut: Cell<u64>,
    troubles: RefCell<Vec<(Origin, Trouble)>>,
}

/// The way in which a connection has gone wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// The peer has broken the rules of TLS.
    Failed(Fault),
    /// The connection has ended without close_notify behind bytes without an answer.
    Cut,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(fault) => write!(f, "its TLS connection fails: {fault}"),
            Self::Cut => f.write_str("its TLS connection was cut: what it has sent may not be all (no close_notify)"),
        }
    }
}

impl Meter {
    /// The number of connections whose peer has broken the rules of TLS.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.get()
    }

    /// The number of connections that have ended without close_notify behind bytes without an answer.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.cut.get()
    }

    /// Takes the troubles since the last call, each with the origin of its connection.
    pub fn take_troubles(&self) -> Vec<(Origin, Trouble)> {
        mem::take(&mut *self.troubles.borrow_mut())
    }

    fn count(&self, origin: &Origin, trouble: Trouble) {
        let counter = match trouble {
            Trouble::Failed(_) => &self.failed,
            Trouble::Cut => &self.cut,
        };
        counter.set(counter.get() + 1);
        let mut troubles = self.troubles.borrow_mut();
        if troubles.len() < KEPT {
            troubles.push((origin.clone(), trouble));
        }
    }
}

/// The account of one connection.
#[derive(Debug)]
pub(super) struct Account {
    meter: Rc<Meter>,
    origin: Origin,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The last bytes have gone to the peer, or there were none yet.
    Answered,
    /// The last bytes have come from the peer.
    Unanswered,
    /// The connection is counted.
    Counted,
}

impl Account {
    pub(super) const fn new(meter: Rc<Meter>, origin: Origin) -> Self {
        let state = State::Answered;
        Self { meter, origin, state }
    }

    /// Must be called with the result of every read.
    pub(super) fn note_read(&mut self, result: &io::Result<usize>) {
        let trouble = match (result, self.state) {
            (_, State::Counted) => None,
            (Err(error), State::Unanswered) if is_cut(error) => Some(Trouble::Cut),
            (Err(error), _) => fault(error).map(Trouble::Failed),
            (Ok(0), _) => None,
            (Ok(_), _) => {
                self.state = State::Unanswered;
                None
            }
        };
        if let Some(trouble) = trouble {
            self.meter.count(&self.origin, trouble);
            self.state = State::Counted;
        }
    }

    /// Must be called with the result of every write.
    pub(super) fn note_write(&mut self, result: &io::Result<usize>) {
        if matches!((result, self.state), (Ok(1..), State::Unanswered)) {
            self.state = State::Answered;
        }
    }
}

fn fault(error: &io::Error) -> Option<Fault> {
    error.get_ref()?.downcast_ref().cloned()
}

fn is_cut(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::addr::PeerAddr;

    /// The counts of failed and of cut connections after these calls: `Ok` of a read or a write, and the error of a read.
    fn counts(calls: &[(&str, Result<usize, ErrorKind>)]) -> (u64, u64) {
        let meter = Rc::new(Meter::default());
        let mut account = Account::new(Rc::clone(&meter), Origin::direct(PeerAddr::Unix));
        for (call, result) in calls {
            let result = result.map_err(|kind| match kind {
                ErrorKind::InvalidData => Fault::KeyIsUsedUp.into(),
                other => io::Error::from(other),
            });
            match *call {
                "read" => account.note_read(&result),
                _ => account.note_write(&result),
            }
        }
        let troubles = meter.take_troubles();
        let failed = (Origin::direct(PeerAddr::Unix), Trouble::Failed(Fault::KeyIsUsedUp));
        assert!(
            troubles
                .iter()
                .all(|trouble| *trouble == failed || trouble.1 == Trouble::Cut)
        );
        assert_eq!(troubles.len() as u64, meter.failed() + meter.cut());
        assert_eq!(meter.take_troubles(), []);
        (meter.failed(), meter.cut())
    }

    #[test]
    fn an_end_without_close_notify_counts_only_behind_bytes_without_an_answer() {
        for error in [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset] {
            let cut = ("read", Err(error));
            assert_eq!(counts(&[cut]), (0, 0), "nothing was asked");
            assert_eq!(counts(&[("read", Ok(5)), cut]), (0, 1));
            assert_eq!(
                counts(&[("read", Ok(5)), ("read", Err(ErrorKind::WouldBlock)), cut]),
                (0, 1)
            );
            assert_eq!(counts(&[("read", Ok(5)), ("write", Ok(1)), cut]), (0, 0));
            let blocked = ("write", Err(ErrorKind::WouldBlock));
            assert_eq!(counts(&[("read", Ok(5)), blocked, cut]), (0, 1));
            assert_eq!(
                counts(&[("read", Ok(5)), ("write", Ok(1)), ("read", Ok(1)), cut]),
                (0, 1)
            );
        }
        assert_eq!(counts(&[("read", Ok(5)), ("read", Ok(0))]), (0, 0), "the end was said");
    }

    #[test]
    fn a_connection_counts_once() {
        let (failed, cut) = (
            ("read", Err(ErrorKind::InvalidData)),
            ("read", Err(ErrorKind::UnexpectedEof)),
        );
        assert_eq!(counts(&[failed, failed, ("read", Ok(1)), cut]), (1, 0));
        assert_eq!(counts(&[("read", Ok(1)), cut, cut, failed]), (0, 1));
    }

    #[test]
    fn of_many_troubles_some_are_kept_and_all_are_counted() {
        let meter = Rc::new(Meter::default());
        for _ in 0..1000 {
            let mut account = Account::new(Rc::clone(&meter), Origin::direct(PeerAddr::Unix));
            account.note_read(&Err(Fault::KeyIsUsedUp.into()));
        }
        assert_eq!((meter.failed(), meter.take_troubles().len()), (1000, KEPT));
    }
}
