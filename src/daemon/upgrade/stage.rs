//! The stages of an upgrade, as the predecessor sees it: every decision, without I/O.
//!
//! ```text
//!        requested           ready             serving
//!  Idle ---------> Starting ------> Deciding ---------> Done
//!    ^                |                 |
//!    |                | ended, overdue, unexpected message, shut down
//!    |  process ended v                 v
//!    +------------- Failing <-----------+
//! ```

use std::fmt;

/// The stage of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stage {
    /// There is no successor.
    #[default]
    Idle,
    /// The successor starts, and this daemon serves.
    Starting,
    /// The successor was told to serve and has not confirmed it. This daemon serves.
    Deciding,
    /// The successor is ending or was killed, and its end is awaited.
    Failing(FailureReason),
    /// The successor serves. This daemon finishes the clients that it has accepted.
    Done,
}

/// The reason why an upgrade failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureReason {
    /// The successor has ended or closed the connection.
    Ended,
    /// The successor took too long.
    Overdue,
    /// The successor sent a message that was not expected.
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

/// An event of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// An upgrade was requested.
    Requested,
    /// The successor could not be started.
    NotStarted,
    /// The successor has sent READY.
    Ready,
    /// The successor has sent SERVING.
    Serving,
    /// The successor has sent something else.
    UnknownMessage,
    /// The successor has closed the connection.
    Disconnected,
    /// The successor has not sent the expected message in time.
    Overdue,
    /// The successor's process has ended, or does not end even when killed.
    ProcessEnded,
    /// This daemon was told to end.
    ShutDown,
}

/// The action that follows an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Start a successor.
    Start,
    /// Refuse the request, because an upgrade is under way.
    Refuse,
    /// Tell the successor to serve.
    Go,
    /// Leave the sockets to the successor and release it.
    HandOver,
    /// Kill the successor. Its end will be an event.
    Kill,
    /// Forward TERM to the successor, which may be serving already.
    ForwardTerm,
    /// Log the failure, and do what was postponed until the end of the upgrade.
    Report(FailureReason),
}

impl Stage {
    /// Returns the next stage and the action after an event.
    pub(super) fn handle(self, event: Event) -> (Stage, Action) {
        let fail = |why| (Stage::Failing(why), Action::Kill);
        match (self, event) {
            (Stage::Idle, Event::Requested) => (Stage::Starting, Action::Start),
            (_, Event::Requested) => (self, Action::Refuse),
            (Stage::Starting, Event::NotStarted) => (Stage::Idle, Action::Nothing),
            (Stage::Starting, Event::Ready) => (Stage::Deciding, Action::Go),
            (Stage::Deciding, Event::Serving) => (Stage::Done, Action::HandOver),
            // The successor is about to exit and may have to log its reason, so it is given a moment.
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
            // The end of the connection usually comes first, and is decided on above.
            (Stage::Starting | Stage::Deciding, Event::ProcessEnded) => fail(FailureReason::Ended),
            // Messages that were under way when the successor was killed, and the end of a connection that is no longer
            // needed.
            (Stage::Failing(_) | Stage::Done, _) => (self, Action::Nothing),
            // No successor could have caused these events; the end of this daemon concerns no upgrade here.
            (Stage::Idle, _) | (Stage::Deciding, Event::NotStarted) => (self, Action::Nothing),
        }
    }

    /// Returns true if there is a successor whose fate is not decided.
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
