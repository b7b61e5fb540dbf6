//! Counts of connections that go wrong after their handshake.
//!
//! The owner of many connections makes one [`Meter`] and shares it with them. Each has an [`Account`], which looks at what
//! its reads and writes have come to, and counts the connection at most once.
//!
//! An end without close_notify is common and harmless where the client has its answer. It is counted only behind bytes of
//! the client that nothing was written after: then a request may have been cut off.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::rc::Rc;

/// The counts of all connections of one owner.
#[derive(Debug, Default)]
pub struct Meter {
    failed: Cell<u64>,
    cut: Cell<u64>,
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
}

/// The account of one connection.
#[derive(Debug)]
pub(super) struct Account {
    meter: Rc<Meter>,
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
    pub(super) const fn new(meter: Rc<Meter>) -> Self {
        let state = State::Answered;
        Self { meter, state }
    }

    /// Must be called with the result of every read.
    pub(super) fn note_read(&mut self, result: &io::Result<usize>) {
        let counter = match (result, self.state) {
            (Ok(1..), State::Answered) => {
                self.state = State::Unanswered;
                return;
            }
            (Err(error), State::Answered | State::Unanswered) if error.kind() == ErrorKind::InvalidData => {
                &self.meter.failed
            }
            (Err(error), State::Unanswered) if is_cut(error) => &self.meter.cut,
            _ => return,
        };
        counter.set(counter.get() + 1);
        self.state = State::Counted;
    }

    /// Must be called with the result of every write.
    pub(super) fn note_write(&mut self, result: &io::Result<usize>) {
        if matches!((result, self.state), (Ok(1..), State::Unanswered)) {
            self.state = State::Answered;
        }
    }
}

fn is_cut(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counts of failed and of cut connections after these calls: `Ok` of a read or a write, and the error of a read.
    fn counts(calls: &[(&str, Result<usize, ErrorKind>)]) -> (u64, u64) {
        let meter = Rc::new(Meter::default());
        let mut account = Account::new(Rc::clone(&meter));
        for (call, result) in calls {
            let result = result.map_err(io::Error::from);
            match *call {
                "read" => account.note_read(&result),
                _ => account.note_write(&result),
            }
        }
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
}
