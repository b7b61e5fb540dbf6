//! Accepting: who has connected becomes a client. How listeners take turns and pause is [`Listening`]'s business.

use log::Level;

use super::super::report::Topic;
use super::Pool;
use crate::net::accept::Batch;
use crate::net::listening::LAST_BATCHES;
use crate::reactor::{Context, Key};

impl Pool {
    pub(super) fn accept(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(batch) = self.accept_batch(cx, key) else {
            return;
        };
        if let Some(pause) = self.listening.settle(cx, key, batch) {
            let line = format_args!(
                "accepting pauses: {:?}; connections wait until one ends \
                 (raise the limit on open files, or lower --max-connections)",
                pause.why
            );
            self.note(cx, Level::Error, Topic::Accept, line);
        }
    }

    fn accept_batch(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Batch> {
        let (mut accepted, batch) = self.listening.take(key, cx.now())?;
        for (stream, peer) in accepted.drain(..) {
            self.welcome(cx, stream, peer);
        }
        self.listening.give_back(accepted);
        Some(batch)
    }

    /// Everybody who has connected by now.
    pub(super) fn accept_all(&mut self, cx: &mut Context<'_>) {
        for key in self.listening.keys() {
            for _ in 0..LAST_BATCHES {
                let Some(Batch::More) = self.accept_batch(cx, key) else {
                    break;
                };
            }
        }
    }

    pub(super) fn retry_accepting(&mut self, cx: &mut Context<'_>, key: Key) {
        if self.listening.alarm_fired(cx, key) {
            // Paused for want of descriptors, it tries again by itself once its time has come.
            self.accept(cx, key);
        }
    }

    /// A descriptor has been closed: whoever paused for want of one may go on.
    pub(super) fn descriptor_freed(&mut self, cx: &mut Context<'_>) {
        self.listening.descriptor_freed(cx);
    }
}
