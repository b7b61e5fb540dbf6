//! A look at the program's file, before it is started.
//!
//! The start of a successor keeps the loop waiting until its exec, and no watchdog can end a child that the kernel keeps for
//! the sake of a file system that does not answer. So a thread asks that file system first, for what exec will ask it. One
//! thread at most is stuck with that: as long as it is, there is no upgrade.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;

use crate::doors::Door;
use crate::reactor::Reactor;
use crate::reactor::helper::Mailbox;

/// How long the look is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// So much of the file is read: its header, by which exec knows what it is.
const HEADER: usize = 4096;

/// How far the look at it has come.
#[derive(Debug, Default)]
pub(super) enum FileCheck {
    #[default]
    Idle,
    UnderWay {
        answer: Mailbox<()>,
        until: Instant,
    },
    /// It is not waited for any more.
    Stuck {
        answer: Mailbox<()>,
    },
}

/// What has become of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckOutcome {
    /// The file system answers, whatever it says: the start will tell.
    Answered,
    Overdue,
}

impl FileCheck {
    /// Sees whether one that is not waited for any more has ended; true: there is one, and it has not.
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

    /// When [`take_outcome`](Self::take_outcome) has to be asked, whatever happens.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self {
            FileCheck::UnderWay { until, .. } => Some(*until),
            FileCheck::Idle | FileCheck::Stuck { .. } => None,
        }
    }

    /// Begins one. None may be under way, nor stuck.
    ///
    /// # Errors
    /// No thread.
    pub(super) fn start(&mut self, program: PathBuf, reactor: &Reactor<dyn Door>, now: Instant) -> io::Result<()> {
        let (sender, answer) = reactor.mailbox(1);
        let look = move || {
            // Signals are the loop's.
            let _ = SigSet::all().thread_block();
            let _ = File::open(program).and_then(|mut file| file.read(&mut [0; HEADER]));
            // The daemon is ending when nobody takes it.
            let _ = sender.send(());
        };
        std::thread::Builder::new().name("look".to_owned()).spawn(look)?;
        let until = now + PATIENCE;
        *self = FileCheck::UnderWay { answer, until };
        Ok(())
    }

    /// What has become of the one under way, once.
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
