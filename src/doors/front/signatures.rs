//! The signatures with slow keys that the handshakes of a door need: helper threads make them.
//!
//! The number of an arrival is the number of its task, so signatures are made in the order in which the connections were
//! accepted. A result for an arrival that has ended meanwhile finds none, because numbers are never used again.

use crate::net::tls::engine::Engine;
use crate::net::tls::error::Fault;
use crate::net::tls::signature::Unsigned;
use crate::reactor::Context;
use crate::reactor::helper::{Mailbox, Sender};

/// The number of results that wait for the loop. A thread with one more waits until the next turn.
const RESULTS: usize = 16;

/// The way of the signatures of one door. It is opened with the first.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    post: Option<(Sender<Signed>, Mailbox<Signed>)>,
}

/// The result of a task.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) number: u64,
    /// The engine that goes on with the handshake of this arrival.
    pub(super) engine: Result<Engine, Fault>,
}

impl Signatures {
    /// Has a signature made for the arrival of this number. Returns the number of an arrival that had to make room,
    /// because too many wait for theirs: it gets none. There must [be a thread](Context::prepare_tasks).
    pub(super) fn order(&mut self, cx: &mut Context<'_>, number: u64, unsigned: Unsigned) -> Option<u64> {
        let (post, _) = self.post.get_or_insert_with(|| cx.mailbox(RESULTS));
        let post = post.clone();
        let sign = move || {
            let engine = unsigned.sign();
            // An error: the door has ended.
            let _ = post.send(Signed { number, engine });
        };
        cx.give_task(number, Box::new(sign))
    }

    /// Takes the next result, if there is one.
    pub(super) fn take(&self) -> Option<Signed> {
        self.post.as_ref().and_then(|(_, mailbox)| mailbox.take())
    }
}
