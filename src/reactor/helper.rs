//! Threads for what may block, and how their results come back to the loop.
//!
//! A helper thread owns a [`Sender`]; each value it sends is put into the service's [`Mailbox`] and wakes the loop,
//! which calls [`Service::mail`](super::Service::mail). Nothing else is shared between threads.

use std::sync::Arc;
use std::sync::mpsc;

/// Where a service finds what its helper threads have sent.
#[derive(Debug)]
pub struct Mailbox<T> {
    receiver: mpsc::Receiver<T>,
}

impl<T> Mailbox<T> {
    /// The next value, if there is one; never waits.
    pub fn take(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

/// A helper thread's end.
#[derive(Debug)]
pub struct Sender<T> {
    sender: mpsc::SyncSender<T>,
    waker: Arc<mio::Waker>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender {
            sender: self.sender.clone(),
            waker: Arc::clone(&self.waker),
        }
    }
}

/// The service that would have received it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceGone;

impl<T> Sender<T> {
    /// Sends, waiting while the mailbox is full: backpressure for a thread that produces faster than the loop takes.
    ///
    /// # Errors
    /// [`ServiceGone`] when it will never be taken; the thread should end.
    pub fn send(&self, value: T) -> Result<(), ServiceGone> {
        self.sender.send(value).map_err(|_| ServiceGone)?;
        // The write to an eventfd fails only when its counter is full, and then the loop is awake already.
        let _ = self.waker.wake();
        Ok(())
    }
}

pub(super) fn mailbox<T>(waker: Arc<mio::Waker>, capacity: usize) -> (Sender<T>, Mailbox<T>) {
    let (sender, receiver) = mpsc::sync_channel(capacity);
    (Sender { sender, waker }, Mailbox { receiver })
}
