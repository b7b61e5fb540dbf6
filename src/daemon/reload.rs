//! Reading the configuration again, on a thread: a file may lie on a slow disk, and names of users may be looked up over
//! a network, while the loop has requests to serve.

use crate::config::file::Source;
use crate::error::Error;
use crate::reactor::Reactor;
use crate::reactor::helper::{Mailbox, Sender};
use crate::services::{Door, Options};

type Outcome = Result<Vec<Options>, Error>;

#[derive(Debug)]
pub(super) struct Reloader {
    source: Source,
    sender: Sender<Outcome>,
    mailbox: Mailbox<Outcome>,
    reading: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Idle,
    Under,
    /// The file may have changed since reading began: read it once more.
    UnderAndAgain,
}

impl Reloader {
    pub(super) fn new(source: Source, reactor: &Reactor<dyn Door>) -> Self {
        let (sender, mailbox) = reactor.mailbox(1);
        Reloader {
            source,
            sender,
            mailbox,
            reading: Reading::Idle,
        }
    }

    /// Begins to read the file.
    pub(super) fn start(&mut self) {
        if self.reading != Reading::Idle {
            self.reading = Reading::UnderAndAgain;
            return;
        }
        self.reading = Reading::Under;
        let (source, sender) = (self.source.clone(), self.sender.clone());
        let read = move || {
            // The daemon is ending when nobody takes it.
            let _ = sender.send(source.load());
        };
        if let Err(error) = std::thread::Builder::new().name("reload".to_owned()).spawn(read) {
            self.reading = Reading::Idle;
            log::error!("cannot read the configuration again: no thread: {error}; send HUP again later");
        }
    }

    /// Whether what was begun is not finished.
    pub(super) fn is_reading(&self) -> bool {
        self.reading != Reading::Idle
    }

    /// What was read, once it has been.
    pub(super) fn finished(&mut self) -> Option<Outcome> {
        let outcome = self.mailbox.take()?;
        if std::mem::replace(&mut self.reading, Reading::Idle) == Reading::UnderAndAgain {
            self.start();
            return None;
        }
        Some(outcome)
    }
}
