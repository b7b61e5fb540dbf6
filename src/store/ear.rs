//! The second connection to a store, by which changes are heard of, and the thread that listens to it.
//!
//! A thread of its own reads each notification at once, so that the store never has to keep them. The notification names
//! a key, which goes to the thread that follows the store; the value is read there. How many are on the way to it has a
//! bound ([`Backlog`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::SigSet;

use super::key::Key;
use super::place::Place;
use super::redis::{Failure, Listening, Subscription};

/// The largest number of keys on the way to the thread that follows.
const MOST_WAITING: usize = 50_000;

/// A word of the thread that listens.
#[derive(Debug)]
pub(super) enum Heard {
    /// The thread listens from now on.
    Begin,
    /// The store does not let it listen. It ends.
    Refused(Failure),
    /// This key has changed in some way.
    Change(Key),
    /// The connection is lost. The thread ends.
    Failed(Failure),
}

/// The keys that are on the way.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: AtomicUsize,
    has_overflowed: AtomicBool,
}

impl Backlog {
    /// Takes a place for a key. Returns false if there is none; then all keys must be read.
    fn enter(&self) -> bool {
        let has_place = self.waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING;
        if !has_place {
            self.leave();
            self.has_overflowed.store(true, Ordering::Release);
        }
        has_place
    }

    /// Gives the place of a key back.
    pub(super) fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns true if there was a key without a place since the last call.
    pub(super) fn has_overflowed(&self) -> bool {
        self.has_overflowed.load(Ordering::Relaxed) && self.has_overflowed.swap(false, Ordering::Acquire)
    }
}

/// The thread that listens. Dropping this ends it within a moment; it is not waited for.
#[derive(Debug)]
pub(super) struct Ear {
    is_over: Arc<AtomicBool>,
}

impl Ear {
    /// Starts a thread that connects and listens. `tell` returns false if its words are wanted no more.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(super) fn open(
        place: Place,
        backlog: Arc<Backlog>,
        tell: impl Fn(Heard) -> bool + Send + 'static,
    ) -> Result<Ear, Failure> {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let life = move || {
            // Signals are handled by the loop's thread.
            let _ = SigSet::all().thread_block();
            let last = match Subscription::connect(&place) {
                Ok(subscription) => listen(subscription, &over, &backlog, &tell),
                Err(failure) => Some(Heard::Failed(failure)),
            };
            if let Some(last) = last {
                tell(last);
            }
        };
        let started: io::Result<_> = thread::Builder::new().name("store-changes".to_owned()).spawn(life);
        started.map_err(|error| Failure::new(format!("there is no thread for its changes: {error}")))?;
        Ok(Ear { is_over })
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Listens until the connection fails or is wanted no more. Returns the last word.
fn listen(
    mut subscription: Subscription,
    is_over: &AtomicBool,
    backlog: &Backlog,
    tell: &impl Fn(Heard) -> bool,
) -> Option<Heard> {
    let mut listening = match subscription.listen() {
        Ok(Listening::To(listening)) => listening,
        Ok(Listening::Refused(failure)) => return Some(Heard::Refused(failure)),
        Err(failure) => return Some(Heard::Failed(failure)),
    };
    let mut is_heard = tell(Heard::Begin);
    while is_heard && !is_over.load(Ordering::Relaxed) {
        match listening.next() {
            Ok(Some(key)) if backlog.enter() => is_heard = tell(Heard::Change(key)),
            // Everything is read again; or nothing has come for a moment.
            Ok(_) => {}
            Err(failure) => return Some(Heard::Failed(failure)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_a_place_is_remembered_once_for_all() {
        let backlog = Backlog::default();
        assert!((0..MOST_WAITING).all(|_| backlog.enter()));
        assert!(!backlog.has_overflowed());
        assert!(!backlog.enter() && !backlog.enter());
        assert!(backlog.has_overflowed() && !backlog.has_overflowed());
        backlog.leave();
        assert!(backlog.enter() && !backlog.enter());
    }
}
