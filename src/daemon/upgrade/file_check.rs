//! A check of the program's file before the program is started.
//!
//! The start of a successor blocks the loop until its exec, and no watchdog can end a child that waits in the kernel
//! for a file system that does not answer. So a thread reads the file first, as exec will. At most one thread hangs in
//! that, and while it does, there is no upgrade.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use crate::doors::Door;
use crate::reactor::Reactor;
use crate::reactor::helper::Mailbox;

/// The time limit of a check.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
/// The number of bytes that are read: the header by which exec knows the file's format.
const HEADER: usize = 4096;

/// The state of the check.
#[derive(Debug, Default)]
pub(super) enum FileCheck {
    #[default]
    Idle,
    UnderWay {
        answer: Mailbox<()>,
        until: Instant,
    },
    /// The check has exceeded its time limit, and its thread has not ended.
    Stuck {
        answer: Mailbox<()>,
    },
}

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckOutcome {
    /// The file system has answered, with the file or with an error. In the latter case the start will report it.
    Answered,
    Overdue,
}

impl FileCheck {
    /// Forgets a check that was stuck and has ended. Returns true if it is still stuck.
    pub(super) fn check_stuck(&mut self) -> bool {
        if let FileCheck::Stuck { answer } = self
            && answer.take().is_some()
        {
            *self = FileCheck::Idle;
        }
        matches!(self, FileCheck::Stuck { .. })
    }

    pub(super) const fn is_under_way(&self) -> bool {
        matches!(self, FileCheck::UnderWay { .. })
    }

    /// Returns the time at which [`take_outcome`](Self::take_outcome) must be called at the latest.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self {
            FileCheck::UnderWay { until, .. } => Some(*until),
            FileCheck::Idle | FileCheck::Stuck { .. } => None,
        }
    }

    /// Starts a check. No check may be under way or stuck.
    ///
    /// # Errors
    /// There is no thread.
    pub(super) fn start(&mut self, program: PathBuf, reactor: &Reactor<dyn Door>, now: Instant) -> io::Result<()> {
        let (sender, answer) = reactor.mailbox(1);
        let look = move || {
            // Signals are handled by the loop alone.
            let _ = SigSet::all().thread_block();
            let _ = File::open(program).and_then(|mut file| file.read(&mut [0; HEADER]));
            // An error: the daemon is ending and takes no result.
            let _ = sender.send(());
        };
        std::thread::Builder::new().name("look".to_owned()).spawn(look)?;
        let until = now + TIMEOUT;
        *self = FileCheck::UnderWay { answer, until };
        Ok(())
    }

    /// Returns the outcome of the check under way, once.
    pub(super) fn take_outcome(&mut self, now: Instant) -> Option<CheckOutcome> {
        match std::mem::take(self) {
            FileCheck::UnderWay { answer, .. } if answer.take().is_some() => Some(CheckOutcome::Answered),
            FileCheck::UnderWay { answer, until } if until <= now => {
                *self = FileCheck::Stuck { answer };
                Some(CheckOutcome::Overdue)
            }
            other => {
                *self = other;
                None
            }
        }
    }
}
