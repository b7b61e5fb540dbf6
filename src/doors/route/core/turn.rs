//! The turns of a route: its next state, and the step that leads into it. The decision for one is the router's.

use std::borrow::Cow;
use std::time::Instant;

use super::ending::Ending;
use super::event::Step;
use super::life::{ANSWER_PATIENCE, Answering, Connecting, Over, Routed, State};
use super::share::Share;
use super::starter::ProgramId;

/// The next state of a route, and the step that leads into it.
pub(super) type Turn = (State, Step);

/// The client gets this answer instead of a server, or behind it.
pub(super) fn answering(answer: Cow<'static, [u8]>, ending: Ending, routed: Option<Routed>, now: Instant) -> Turn {
    let answering = Answering {
        ending,
        routed,
        until: now + ANSWER_PATIENCE,
    };
    (State::Answering(answering), Step::Answer(answer))
}

/// Nothing more happens.
pub(super) fn over(ending: Ending, routed: Option<Routed>) -> Turn {
    let breaks_off = ending.breaks_off();
    (State::Over(Over { ending, routed }), Step::Close { breaks_off })
}

/// This server is connected to. `tried` is the one of the attempt before.
/// `program` is behind the server.
pub(super) fn connecting_to(
    routed: Routed,
    share: Share,
    program: Option<ProgramId>,
    tried: Option<Share>,
    now: Instant,
) -> Turn {
    let step = match share {
        Share::Backend(_) => Step::Connect,
        Share::Stream(session) => Step::OpenStream(session),
    };
    let connecting = Connecting {
        until: now + routed.choice.rule.connect_timeout,
        routed,
        share,
        program,
        tried,
    };
    (State::Connecting(connecting), step)
}
