//! The bounded queue between the code that logs and the thread that writes.
//!
//! The channel of the standard library that is bounded prepares all its places when it is made, and they would be most
//! of what a small daemon has in memory. This one takes memory for the lines that are in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvError, TrySendError};

/// The end for code that logs.
#[derive(Debug)]
pub(super) struct Sender<T> {
    messages: mpsc::Sender<T>,
    waiting: Arc<AtomicUsize>,
    capacity: usize,
}

/// The end for the thread that writes.
#[derive(Debug)]
pub(super) struct Receiver<T> {
    messages: mpsc::Receiver<T>,
    waiting: Arc<AtomicUsize>,
}

/// Returns the two ends of a queue that holds `capacity` messages.
pub(super) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let sender = Sender {
        messages: sender,
        waiting: Arc::clone(&waiting),
        capacity,
    };
    let receiver = Receiver {
        messages: receiver,
        waiting,
    };
    (sender, receiver)
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            messages: self.messages.clone(),
            waiting: Arc::clone(&self.waiting),
            capacity: self.capacity,
        }
    }
}

impl<T> Sender<T> {
    /// Adds a message, without waiting.
    ///
    /// # Errors
    /// The message, if the queue is full or has no receiver any more.
    pub(super) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        // Several threads may log at once: a place is taken first, and the number is never more than the capacity but
        // for the moment in which a place that does not exist is given back.
        let outcome = if self.waiting.fetch_add(1, Ordering::Relaxed) < self.capacity {
            let sent = self.messages.send(message);
            sent.map_err(|failure| TrySendError::Disconnected(failure.0))
        } else {
            Err(TrySendError::Full(message))
        };
        if outcome.is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        outcome
    }
}

impl<T> Receiver<T> {
    /// Returns the oldest message; waits for one if there is none.
    ///
    /// # Errors
    /// There is no message, and no sender any more.
    pub(super) fn recv(&self) -> Result<T, RecvError> {
        let message = self.messages.recv()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(message)
    }

    /// Returns the oldest message, or none if there is none at the moment.
    pub(super) fn try_recv(&self) -> Option<T> {
        let message = self.messages.try_recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_takes_again_what_the_receiver_makes_room_for() {
        let (sender, receiver) = bounded(2);
        assert_eq!((sender.try_send(1), sender.try_send(2)), (Ok(()), Ok(())));
        for refused in 3..6 {
            assert_eq!(sender.try_send(refused), Err(TrySendError::Full(refused)));
        }
        assert_eq!(receiver.recv(), Ok(1));
        assert_eq!(sender.try_send(6), Ok(()));
        assert_eq!(sender.try_send(7), Err(TrySendError::Full(7)));
        assert_eq!((receiver.try_recv(), receiver.try_recv()), (Some(2), Some(6)));
        assert_eq!(receiver.try_recv(), None);
        assert_eq!(sender.try_send(8), Ok(()));
    }

    #[test]
    fn a_queue_without_a_receiver_never_becomes_full() {
        let (sender, receiver) = bounded(2);
        drop(receiver);
        for refused in 0..5 {
            assert_eq!(sender.try_send(refused), Err(TrySendError::Disconnected(refused)));
        }
    }

    #[test]
    fn several_threads_fill_a_queue_exactly() {
        let (sender, receiver) = bounded(1000);
        let threads = [(); 4].map(|()| {
            let sender = sender.clone();
            std::thread::spawn(move || (0..400).filter(|number| sender.try_send(*number).is_ok()).count())
        });
        let taken: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(taken, 1000);
        assert_eq!(std::iter::from_fn(|| receiver.try_recv()).count(), 1000);
    }
}
