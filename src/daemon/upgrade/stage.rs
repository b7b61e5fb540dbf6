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
    Failing(Why),
    /// It serves. This daemon only finishes what it has accepted.
    Done,
}

/// Why an upgrade failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The successor has ended, or let go of the connection.
    Ended,
    /// It took too long.
    Overdue,
    /// It said what it should not have said.
    Confused,
    /// This daemon was told to end meanwhile.
    ToldToEnd,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Ended => "it ended before it could serve",
            Why::Overdue => "it was not ready in time",
            Why::Confused => "it does not speak as this program does",
            Why::ToldToEnd => "this daemon was told to end",
        })
    }
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Somebody wants an upgrade.
    Asked,
    /// The successor could not be started.
    NotStarted,
    /// The successor said READY.
    Ready,
    /// The successor said SERVING.
    Serving,
    /// The successor said something else.
    Gibberish,
    /// The successor has closed the connection.
    Silent,
    /// The successor has not said in time what was awaited.
    Overdue,
    /// The successor's process has ended, or will not even when killed.
    Gone,
    /// This daemon was told to end.
    Ending,
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
    PassOn,
    /// Say why there was no upgrade, and do what has waited for its end.
    Report(Why),
}

impl Stage {
    /// What comes of an event, and what is to be done.
    pub(super) fn on(self, event: Event) -> (Stage, Action) {
        let fail = |why| (Stage::Failing(why), Action::Kill);
        match (self, event) {
            (Stage::Idle, Event::Asked) => (Stage::Starting, Action::Start),
            (_, Event::Asked) => (self, Action::Refuse),
            (Stage::Starting, Event::NotStarted) => (Stage::Idle, Action::Nothing),
            (Stage::Starting, Event::Ready) => (Stage::Deciding, Action::Go),
            (Stage::Deciding, Event::Serving) => (Stage::Done, Action::HandOver),
            // It is about to exit, and may have to say why: it is given a moment for it.
            (Stage::Starting | Stage::Deciding, Event::Silent) => (Stage::Failing(Why::Ended), Action::Nothing),
            (Stage::Starting | Stage::Deciding, Event::Overdue) => fail(Why::Overdue),
            (Stage::Starting | Stage::Deciding, Event::Gibberish)
            | (Stage::Starting, Event::Serving)
            | (Stage::Deciding, Event::Ready) => fail(Why::Confused),
            (Stage::Starting, Event::Ending) => fail(Why::ToldToEnd),
            (Stage::Deciding, Event::Ending) => (self, Action::PassOn),
            (Stage::Failing(why), Event::Gone) => (Stage::Idle, Action::Report(why)),
            // The end of the connection comes before that of the process, and was decided on.
            (Stage::Starting | Stage::Deciding, Event::Gone) => fail(Why::Ended),
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
        Event::Asked,
        Event::NotStarted,
        Event::Ready,
        Event::Serving,
        Event::Gibberish,
        Event::Silent,
        Event::Overdue,
        Event::Gone,
        Event::Ending,
    ];
    const STAGES: [Stage; 5] = [
        Stage::Idle,
        Stage::Starting,
        Stage::Deciding,
        Stage::Failing(Why::Overdue),
        Stage::Done,
    ];

    fn walk(events: &[Event]) -> (Stage, Vec<Action>) {
        let (mut stage, mut actions) = (Stage::Idle, Vec::new());
        for event in events {
            let (next, action) = stage.on(*event);
            stage = next;
            actions.push(action);
        }
        (stage, actions)
    }

    #[test]
    fn the_good_way() {
        let events = [Event::Asked, Event::Ready, Event::Serving, Event::Silent, Event::Gone];
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
    fn whatever_goes_wrong_before_it_serves_ends_it_and_is_told_once_it_has_gone() {
        for (event, why, action) in [
            (Event::Silent, Why::Ended, Action::Nothing),
            (Event::Overdue, Why::Overdue, Action::Kill),
            (Event::Gibberish, Why::Confused, Action::Kill),
            (Event::Serving, Why::Confused, Action::Kill),
            (Event::Ending, Why::ToldToEnd, Action::Kill),
        ] {
            let (stage, actions) = walk(&[Event::Asked, event, Event::Ready, Event::Serving, Event::Gone]);
            let expected = [
                Action::Start,
                action,
                Action::Nothing,
                Action::Nothing,
                Action::Report(why),
            ];
            assert_eq!((stage, actions.as_slice()), (Stage::Idle, &expected[..]), "{event:?}");
        }
        for event in [Event::Silent, Event::Overdue, Event::Gibberish, Event::Ready] {
            let (stage, _) = walk(&[Event::Asked, Event::Ready, event]);
            assert!(matches!(stage, Stage::Failing(_)), "{event:?}");
        }
    }

    #[test]
    fn there_is_one_successor_at_a_time_and_none_after_it() {
        for stage in STAGES.into_iter().filter(|stage| *stage != Stage::Idle) {
            assert_eq!(stage.on(Event::Asked), (stage, Action::Refuse));
        }
    }

    #[test]
    fn the_sockets_are_left_only_to_one_that_serves_and_one_that_may_serve_is_not_killed_for_an_end() {
        for (stage, event) in STAGES.into_iter().flat_map(|stage| EVENTS.map(|event| (stage, event))) {
            let (next, action) = stage.on(event);
            let served = (stage, event) == (Stage::Deciding, Event::Serving);
            assert_eq!(action == Action::HandOver, served, "{stage:?} {event:?}");
            assert_eq!(
                next == Stage::Done && stage != Stage::Done,
                served,
                "{stage:?} {event:?}"
            );
        }
        assert_eq!(Stage::Deciding.on(Event::Ending), (Stage::Deciding, Action::PassOn));
    }
}
