//! What the reactor's events and alarms are about: every kind of source that a pool has, and which one of it.

use super::super::core::WorkerId;
use crate::reactor::{Key, Kind, MAX_KINDS, Source};

/// The kinds of sources a pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Of {
    Listener,
    Client,
    WorkerOutput,
    WorkerInput,
    WorkerErrors,
    WorkerExit,
    WorkerEnding,
    Spawning,
    Dispatcher,
    Queue,
    Upkeep,
    Life,
    Session,
}

const KINDS: &[Of] = &[
    Of::Listener,
    Of::Client,
    Of::WorkerOutput,
    Of::WorkerInput,
    Of::WorkerErrors,
    Of::WorkerExit,
    Of::WorkerEnding,
    Of::Spawning,
    Of::Dispatcher,
    Of::Queue,
    Of::Upkeep,
    Of::Life,
    Of::Session,
];

// A kind that does not fit, or is not found again where it stands, would take another's events.
const _: () = {
    assert!(
        KINDS.len() <= MAX_KINDS,
        "the pool has more kinds of sources than a token can tell apart"
    );
    let (mut number, mut rest) = (0, KINDS);
    while let [kind, behind @ ..] = rest {
        assert!(*kind as usize == number, "KINDS lists every kind in its order");
        (number, rest) = (number + 1, behind);
    }
};

impl Of {
    pub(super) fn kind(self) -> Kind {
        Kind(self as u8)
    }

    pub(super) fn only(self) -> Source {
        Source {
            kind: self.kind(),
            key: Key::ONLY,
        }
    }

    pub(super) fn client(key: Key) -> Source {
        Source {
            kind: Of::Client.kind(),
            key,
        }
    }

    pub(super) fn session(key: Key) -> Source {
        Source {
            kind: Of::Session.kind(),
            key,
        }
    }

    pub(super) fn worker(self, id: WorkerId) -> Source {
        Source {
            kind: self.kind(),
            key: Key::new(id.index, id.incarnation),
        }
    }

    pub(super) fn which(source: Source) -> Option<Of> {
        KINDS.get(usize::from(source.kind.0)).copied()
    }
}
