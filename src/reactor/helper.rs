//! Threads for work that may block, and the way of their results back to the loop.
//!
//! A helper thread owns a [`Sender`]. Each value that it sends is put into the service's [`Mailbox`] and wakes the
//! loop, which calls [`Service::receive_mail`](super::Service::receive_mail). Nothing else is shared between the
//! threads.

use std::sync::Arc;
use std::sync::mpsc;

/// The receiving end of a channel from helper threads, owned by a service.
#[derive(Debug)]
pub struct Mailbox<T> {
    receiver: mpsc::Receiver<T>,
}

impl<T> Mailbox<T> {
    /// Takes the next value, if there is one. Never waits.
    pub fn take(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

/// The end of the channel that a helper thread owns.
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

/// The error when the receiver of a channel no longer exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceGone;

impl<T> Sender<T> {
    /// Sends a value, and waits while the mailbox is full: backpressure for a thread that produces faster than the loop
    /// takes.
    ///
    /// # Errors
    /// [`ServiceGone`] if the value will never be taken. The thread should end then.
    pub fn send(&self, value: T) -> Result<(), ServiceGone> {
        self.sender.send(value).map_err(|_| ServiceGone)?;
        // The write to an eventfd fails only if its counter is full, and then the loop is awake already.
        let _ = self.waker.wake();
        Ok(())
    }
}

pub(super) fn mailbox<T>(waker: Arc<mio::Waker>, capacity: usize) -> (Sender<T>, Mailbox<T>) {
    let (sender, receiver) = mpsc::sync_channel(capacity);
    (Sender { sender, waker }, Mailbox { receiver })
}
