//! How far an upgrade has gone, as the predecessor sees it: every decision, without I/O.
//!
//! ```text
//!         asked            ready             serving
//!  Idle ---------> Starting ------> Deciding ---------> Done
//!    ^                |                 |
//!    |                | ended, overdue, confused, told to end
//!    |      gone      v                 v
//!    +------------- Failing <-----------+
//! ```

use std::fmt;

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stage {
    /// There is no successor.
    #[default]
    Idle,
    /// It starts up; this daemon serves.
    Starting,
    /// It has been told to serve, and has not said that it does; this daemon serves.
    Deciding,
    /// It ends, or has been killed; what is awaited is its end.
    Failing(FailureReason),
    /// It serves. This daemon only finishes what it has accepted.
    Done,
}

/// The reason why an upgrade failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureReason {
    /// The successor has ended, or let go of the connection.
    Ended,
    /// It took too long.
    Overdue,
    /// It said what it should not have said.
    UnexpectedMessage,
    /// This daemon was told to end meanwhile.
    ShutDown,
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureReason::Ended => "it ended before it could serve",
            FailureReason::Overdue => "it was not ready in time",
            FailureReason::UnexpectedMessage => "it does not speak as this program does",
            FailureReason::ShutDown => "this daemon was told to end",
        })
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Somebody wants an upgrade.
    Requested,
    /// The successor could not be started.
    NotStarted,
    /// The successor said READY.
    Ready,
    /// The successor said SERVING.
    Serving,
    /// The successor said something else.
    UnknownMessage,
    /// The successor has closed the connection.
    Disconnected,
    /// The successor has not said in time what was awaited.
    Overdue,
    /// The successor's process has ended, or will not even when killed.
    ProcessEnded,
    /// This daemon was told to end.
    ShutDown,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Start a successor.
    Start,
    /// There is one already.
    Refuse,
    /// Tell it to serve.
    Go,
    /// Leave the sockets to it, and let it go.
    HandOver,
    /// Kill it; its end is an event.
    Kill,
    /// It may be serving: pass on to it that it is to end.
    ForwardTerm,
    /// Say why there was no upgrade, and do what has waited for its end.
    Report(FailureReason),
}

impl Stage {
    /// What comes of an event, and what is to be done.
    pub(super) fn handle(self, event: Event) -> (Stage, Action) {
        let fail = |why| (Stage::Failing(why), Action::Kill);
        match (self, event) {
            (Stage::Idle, Event::Requested) => (Stage::Starting, Action::Start),
            (_, Event::Requested) => (self, Action::Refuse),
            (Stage::Starting, Event::NotStarted) => (Stage::Idle, Action::Nothing),
            (Stage::Starting, Event::Ready) => (Stage::Deciding, Action::Go),
            (Stage::Deciding, Event::Serving) => (Stage::Done, Action::HandOver),
            // It is about to exit, and may have to say why: it is given a moment for it.
            (Stage::Starting | Stage::Deciding, Event::Disconnected) => {
                (Stage::Failing(FailureReason::Ended), Action::Nothing)
            }
            (Stage::Starting | Stage::Deciding, Event::Overdue) => fail(FailureReason::Overdue),
            (Stage::Starting | Stage::Deciding, Event::UnknownMessage)
            | (Stage::Starting, Event::Serving)
            | (Stage::Deciding, Event::Ready) => fail(FailureReason::UnexpectedMessage),
            (Stage::Starting, Event::ShutDown) => fail(FailureReason::ShutDown),
            (Stage::Deciding, Event::ShutDown) => (self, Action::ForwardTerm),
            (Stage::Failing(why), Event::ProcessEnded) => (Stage::Idle, Action::Report(why)),
            // The end of the connection comes before that of the process, and was decided on.
            (Stage::Starting | Stage::Deciding, Event::ProcessEnded) => fail(FailureReason::Ended),
            // Words that were under way when it was killed; the end of a connection that has served its purpose.
            (Stage::Failing(_) | Stage::Done, _) => (self, Action::Nothing),
            // Nobody there who could have said it; and an end that concerns no upgrade.
            (Stage::Idle, _) | (Stage::Deciding, Event::NotStarted) => (self, Action::Nothing),
        }
    }

    /// Whether there is a successor whose fate is not decided.
    pub(super) fn is_under_way(self) -> bool {
        matches!(self, Stage::Starting | Stage::Deciding | Stage::Failing(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 9] = [
        Event::Requested,
        Event::NotStarted,
        Event::Ready,
        Event::Serving,
        Event::UnknownMessage,
        Event::Disconnected,
        Event::Overdue,
        Event::ProcessEnded,
        Event::ShutDown,
    ];
    const STAGES: [Stage; 5] = [
        Stage::Idle,
        Stage::Starting,
        Stage::Deciding,
        Stage::Failing(FailureReason::Overdue),
        Stage::Done,
    ];

    fn walk(events: &[Event]) -> (Stage, Vec<Action>) {
        let (mut stage, mut actions) = (Stage::Idle, Vec::new());
        for event in events {
            let (next, action) = stage.handle(*event);
            stage = next;
            actions.push(action);
        }
        (stage, actions)
    }

    #[test]
    fn a_successor_that_gets_ready_takes_over() {
        let events = [
            Event::Requested,
            Event::Ready,
            Event::Serving,
            Event::Disconnected,
            Event::ProcessEnded,
        ];
        let expected = vec![
            Action::Start,
            Action::Go,
            Action::HandOver,
            Action::Nothing,
            Action::Nothing,
        ];
        assert_eq!(walk(&events), (Stage::Done, expected));
    }

    #[test]
    fn a_failure_before_it_serves_ends_the_successor_and_is_reported_once_it_has_ended() {
        for (event, why, action) in [
            (Event::Disconnected, FailureReason::Ended, Action::Nothing),
            (Event::Overdue, FailureReason::Overdue, Action::Kill),
            (Event::UnknownMessage, FailureReason::UnexpectedMessage, Action::Kill),
            (Event::Serving, FailureReason::UnexpectedMessage, Action::Kill),
            (Event::ShutDown, FailureReason::ShutDown, Action::Kill),
        ] {
            let (stage, actions) = walk(&[
                Event::Requested,
                event,
                Event::Ready,
                Event::Serving,
                Event::ProcessEnded,
            ]);
            let expected = [
                Action::Start,
                action,
                Action::Nothing,
                Action::Nothing,
                Action::Report(why),
            ];
            assert_eq!((stage, actions.as_slice()), (Stage::Idle, &expected[..]), "{event:?}");
        }
        for event in [Event::Disconnected, Event::Overdue, Event::UnknownMessage, Event::Ready] {
            let (stage, _) = walk(&[Event::Requested, Event::Ready, event]);
            assert!(matches!(stage, Stage::Failing(_)), "{event:?}");
        }
    }

    #[test]
    fn there_is_one_successor_at_a_time_and_none_after_it() {
        for stage in STAGES.into_iter().filter(|stage| *stage != Stage::Idle) {
            assert_eq!(stage.handle(Event::Requested), (stage, Action::Refuse));
        }
    }

    #[test]
    fn only_a_serving_successor_gets_the_sockets_and_one_that_may_serve_is_not_killed_at_shutdown() {
        for (stage, event) in STAGES.into_iter().flat_map(|stage| EVENTS.map(|event| (stage, event))) {
            let (next, action) = stage.handle(event);
            let served = (stage, event) == (Stage::Deciding, Event::Serving);
            assert_eq!(action == Action::HandOver, served, "{stage:?} {event:?}");
            assert_eq!(
                next == Stage::Done && stage != Stage::Done,
                served,
                "{stage:?} {event:?}"
            );
        }
        assert_eq!(
            Stage::Deciding.handle(Event::ShutDown),
            (Stage::Deciding, Action::ForwardTerm)
        );
    }
}
