//! The ways in which workers are given work: what differs between them is decided here.

use nix::sys::signal::Signal;

use super::process::WorkerProcess;
use crate::doors::pool::core::{ChannelId, ReplyTo};
use crate::doors::pool::options::{Mode, Options};
use crate::framing::channel::{self, Channel};
use crate::process::exit_status::ExitStatus;
use crate::reactor::Key;

/// The way in which a worker is given work, from its start to its end.
#[derive(Debug)]
pub(crate) enum WorkerProtocol {
    /// Messages as the clients write and get them; the worker answers in order.
    InOrder,
    /// Lines with a channel-ID before each, both ways; the worker answers in any order.
    Numbered,
    /// One request and its reply, of which at least one ends with its stream.
    Once,
    /// No messages: a session has the worker's standard input and output.
    Session(SessionTie),
}

impl WorkerProtocol {
    /// The protocol of a worker that is started now. It stays what it is, whatever the policy will be.
    pub(super) fn new(options: &Options) -> Self {
        if options.policy.mode == Mode::Session {
            WorkerProtocol::Session(SessionTie::default())
        } else if options.policy.concurrency.is_some() {
            WorkerProtocol::Numbered
        } else if options.framings.single_use() {
            WorkerProtocol::Once
        } else {
            WorkerProtocol::InOrder
        }
    }
}

/// The tie of a worker to its session.
#[derive(Debug, Default)]
pub(crate) struct SessionTie {
    /// The session that has the worker.
    pub(super) session: Option<Key>,
    /// The worker has, or had, a session.
    pub(super) has_begun: bool,
    /// The worker had been sent a signal when it ended.
    pub(super) was_signalled: bool,
}

/// The request that a line of a worker answers, or the beginning of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addressee {
    /// This request; the text begins behind `prefix` bytes.
    Request { to: ReplyTo, prefix: usize },
    /// No request that it has in flight.
    None,
    /// It cannot be told yet.
    NotKnownYet,
}

impl WorkerProcess {
    /// Returns true if a worker that ended like this in its session has crashed: by a signal that is neither ours nor
    /// the usual consequence of a client's having gone.
    pub(crate) fn crashed(&self, status: ExitStatus) -> bool {
        let WorkerProtocol::Session(tie) = &self.protocol else {
            return false;
        };
        let usual = [Signal::SIGPIPE as i32, Signal::SIGHUP as i32];
        let by_signal = matches!(status, ExitStatus::Signal { number, .. } if !usual.contains(&number));
        tie.has_begun && by_signal && !tie.was_signalled
    }

    /// Notes of a worker that has ended in its session if we had sent it a signal, which may be the reason.
    pub(crate) fn note_signalled(&mut self) {
        let was_signalled = self.ending.has_signalled();
        if let Some(tie) = self.session_tie() {
            tie.was_signalled = was_signalled;
        }
    }

    /// Returns true if the worker may have done what it was started for.
    pub(crate) fn may_have_answered(&self) -> bool {
        match &self.protocol {
            WorkerProtocol::Session(tie) => tie.has_begun,
            // Its output may be its answer, which is known in a moment.
            WorkerProtocol::Once => self.has_written,
            WorkerProtocol::InOrder | WorkerProtocol::Numbered => false,
        }
    }

    /// The session that has this worker.
    pub(crate) fn session(&self) -> Option<Key> {
        match &self.protocol {
            WorkerProtocol::Session(tie) => tie.session,
            WorkerProtocol::InOrder | WorkerProtocol::Numbered | WorkerProtocol::Once => None,
        }
    }

    pub(super) fn session_tie(&mut self) -> Option<&mut SessionTie> {
        match &mut self.protocol {
            WorkerProtocol::Session(tie) => Some(tie),
            WorkerProtocol::InOrder | WorkerProtocol::Numbered | WorkerProtocol::Once => None,
        }
    }

    pub(crate) fn is_numbered(&self) -> bool {
        matches!(self.protocol, WorkerProtocol::Numbered)
    }

    pub(crate) fn is_for_one_request(&self) -> bool {
        matches!(self.protocol, WorkerProtocol::Once)
    }

    pub(crate) fn is_for_sessions(&self) -> bool {
        matches!(self.protocol, WorkerProtocol::Session(_))
    }

    /// The request that a line with this beginning answers.
    pub(crate) fn addressee(&self, line: &[u8]) -> Addressee {
        if !self.is_numbered() {
            return Addressee::Request {
                to: ReplyTo::Oldest,
                prefix: 0,
            };
        }
        match channel::channel(line) {
            Channel::Number { number, prefix } => {
                let to = ReplyTo::Channel(ChannelId(number));
                match self.position(to) {
                    Some(_) => Addressee::Request { to, prefix },
                    None => Addressee::None,
                }
            }
            Channel::NeedMore if !self.given.is_empty() => Addressee::NotKnownYet,
            Channel::NeedMore | Channel::None => Addressee::None,
        }
    }
}
