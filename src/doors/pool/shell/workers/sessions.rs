//! Workers that have a session: the session has their standard input and output, and a worker keeps its key.

use mio::unix::pipe::{Receiver, Sender};

use super::Workers;
use super::process::WorkerProcess;
use crate::doors::pool::core::WorkerId;
use crate::process::child::Child;
use crate::reactor::Key;

/// The part of a worker that goes to its session.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: Sender,
    pub(crate) stdout: Receiver,
    /// The text that the worker has written behind its ready line.
    pub(crate) said: Vec<u8>,
    pub(crate) is_on_terminal: bool,
}

impl Workers {
    /// Gives the streams of a worker to the session at `key`. `None`: it has closed one of them.
    pub(crate) fn attach_session(&mut self, id: WorkerId, key: Key) -> Option<Streams> {
        let process = self.get_mut(id)?;
        let (stdin, stdout) = (process.child.stdin.take()?, process.child.stdout.take()?);
        if let Some(tie) = process.session_tie() {
            (tie.session, tie.has_begun) = (Some(key), true);
        }
        Some(Streams {
            stdin,
            stdout,
            said: std::mem::take(&mut process.reply),
            is_on_terminal: process.child.is_on_terminal(),
        })
    }

    /// Takes a worker away from its session.
    pub(crate) fn detach_session(&mut self, id: WorkerId) {
        if let Some(tie) = self.get_mut(id).and_then(WorkerProcess::session_tie) {
            tie.session = None;
        }
    }

    /// The session that a worker has.
    pub(crate) fn session_of(&self, id: WorkerId) -> Option<Key> {
        self.get(id)?.session()
    }

    /// The process of a worker.
    pub(crate) fn child(&self, id: WorkerId) -> Option<&Child> {
        self.get(id).map(|process| &process.child)
    }
}
