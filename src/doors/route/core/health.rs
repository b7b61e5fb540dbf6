//! The health of one server: whether connections are given to it, and when it is tried again.
//!
//! Two things are known of a server. Clients connect to it: one that fails takes the server out, for a time that grows
//! from [`SHORTEST`] to [`LONGEST`] while it goes on failing; then one client alone tries it. An active check asks it:
//! [`MISSES`] answers in a row that fail take it out until [`PASSES`] in a row are good. A server that fails its check
//! is not brought back by a connection that succeeds, for it may take connections and serve none; and no client tries it
//! when a time is over, also if one had found it away before its checks did.
//!
//! ```text
//!          connect failed                   its time is over, one client tries
//!   Up  ──────────────────▶  Out, At(time)  ──────────────────────────────────▶  Out, Running
//!    │  ◀────────── connected, or checks passed ──────────  ◀── failed: At(later) ───┘ │
//!    └── checks missed ──▶  Failing  ◀── checks missed ────────────────────────────────┘
//!                              └── checks passed ──▶  Up
//! ```
//!
//! A server that is out may still be tried because no other is left (`upstreams`). Such an attempt moves nothing when
//! it fails: a thousand clients that fail together make the delay no longer.

use std::time::{Duration, Instant};

use crate::doors::jitter::Jitter;

/// The first time for which a server is out.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// The longest time for which a server is out, before jitter.
pub const LONGEST: Duration = Duration::from_secs(60);
/// The number of checks in a row that must fail to take a server out.
pub const MISSES: u8 = 3;
/// The number of checks in a row that must pass to bring a server back.
pub const PASSES: u8 = 2;

/// The state of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The server gets its share of the connections.
    Up {
        /// The checks in a row that have failed.
        misses: u8,
    },
    /// A client could not connect to the server.
    Out(Outage),
    /// The active check has failed.
    Failing {
        /// The time from which on the server is out: that of the last of these checks, or of a failure before it.
        since: Instant,
        /// The checks in a row that have passed.
        passes: u8,
    },
}

/// The state of a server that no client could connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// The time of the first failure.
    pub since: Instant,
    /// The failures that have made the delay longer.
    pub failures: u32,
    /// The checks in a row that have failed.
    pub misses: u8,
    /// The checks in a row that have passed.
    pub passes: u8,
    /// The next attempt.
    pub trial: Trial,
}

/// The one attempt to connect by which a server that is out may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// The next client from this time on makes it.
    At(Instant),
    /// A client makes it.
    Running,
}

/// An event in the life of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthEvent {
    /// A client begins to connect.
    Tried,
    /// A client has connected.
    Connected,
    /// A client could not connect, or not in time.
    Failed,
    /// A client has given up before it knew.
    Abandoned,
    /// An active check has passed.
    Passed,
    /// An active check has failed.
    Missed,
    /// The server is not checked any more.
    Unchecked,
}

/// A change that the log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthChange {
    /// The server is out.
    Out {
        /// The time until it is tried again, or `None` if its checks decide that.
        delay: Option<Duration>,
    },
    /// The server gets connections again.
    Back {
        /// The time for which it was out.
        after: Duration,
    },
}

impl Health {
    /// The state of a server of which nothing is known.
    pub const UNTRIED: Health = Health::Up { misses: 0 };

    /// Returns true if the next connection may be given to the server.
    pub fn is_available(&self, now: Instant) -> bool {
        match self {
            Health::Up { .. } => true,
            Health::Out(outage) => outage.is_due(now),
            Health::Failing { .. } => false,
        }
    }

    /// Returns true if the server is out, also while it is tried again.
    pub fn is_out(&self) -> bool {
        match self {
            Health::Up { .. } => false,
            Health::Out(_) | Health::Failing { .. } => true,
        }
    }

    /// Returns true if checks have found something out that the next ones go by.
    pub fn is_known_by_checks(&self) -> bool {
        match self {
            Health::Up { misses } => *misses > 0,
            Health::Out(outage) => outage.misses > 0 || outage.passes > 0,
            Health::Failing { .. } => true,
        }
    }

    /// Returns the place of the server in the order in which servers are tried if none is available. The least is
    /// first: the server whose time is next, then one that is tried already, then one that fails its check.
    pub fn last_resort(&self) -> (u8, Option<Instant>) {
        match self {
            Health::Up { .. } => (0, None),
            Health::Out(outage) => match outage.trial {
                Trial::At(time) => (1, Some(time)),
                Trial::Running => (2, Some(outage.since)),
            },
            Health::Failing { since, .. } => (3, Some(*since)),
        }
    }

    /// Moves on by an event. Returns the change that the log tells, if there is one.
    pub fn handle(&mut self, event: HealthEvent, now: Instant, jitter: &mut Jitter) -> Option<HealthChange> {
        let (next, change) = match *self {
            Health::Up { misses } => after_up(misses, event, now, jitter),
            Health::Out(outage) => outage.after(event, now, jitter),
            Health::Failing { since, passes } => after_failing(since, passes, event, now),
        };
        *self = next;
        change
    }
}

type Moved = (Health, Option<HealthChange>);

fn after_up(misses: u8, event: HealthEvent, now: Instant, jitter: &mut Jitter) -> Moved {
    match event {
        // An attempt is under way, or has ended well; neither says anything of the checks.
        HealthEvent::Tried | HealthEvent::Connected | HealthEvent::Abandoned => (Health::Up { misses }, None),
        HealthEvent::Failed => {
            let first = Outage {
                since: now,
                failures: 0,
                misses,
                passes: 0,
                trial: Trial::Running,
            };
            first.failed(now, jitter)
        }
        HealthEvent::Passed | HealthEvent::Unchecked => (Health::UNTRIED, None),
        HealthEvent::Missed if misses + 1 < MISSES => (Health::Up { misses: misses + 1 }, None),
        HealthEvent::Missed => {
            let failing = Health::Failing { since: now, passes: 0 };
            (failing, Some(HealthChange::Out { delay: None }))
        }
    }
}

impl Outage {
    /// Returns true if the next client is the one that tries the server.
    fn is_due(&self, now: Instant) -> bool {
        match self.trial {
            Trial::At(time) => time <= now,
            Trial::Running => false,
        }
    }

    fn after(self, event: HealthEvent, now: Instant, jitter: &mut Jitter) -> Moved {
        let is_running = self.trial == Trial::Running;
        let with = |trial| Health::Out(Outage { trial, ..self });
        match event {
            HealthEvent::Tried if self.is_due(now) => (with(Trial::Running), None),
            // That says nothing of the checks.
            HealthEvent::Connected => back(self.misses, self.since, now),
            HealthEvent::Failed if is_running || self.is_due(now) => self.failed(now, jitter),
            HealthEvent::Abandoned if is_running => (with(Trial::At(now)), None),
            // An attempt because no other server was left, or one from before the server was out.
            HealthEvent::Tried | HealthEvent::Failed | HealthEvent::Abandoned => (Health::Out(self), None),
            HealthEvent::Passed if self.passes + 1 < PASSES => {
                let (misses, passes) = (0, self.passes + 1);
                let outage = Outage { misses, passes, ..self };
                (Health::Out(outage), None)
            }
            HealthEvent::Passed => back(0, self.since, now),
            HealthEvent::Missed if self.misses + 1 < MISSES => {
                let (misses, passes) = (self.misses + 1, 0);
                let outage = Outage { misses, passes, ..self };
                (Health::Out(outage), None)
            }
            HealthEvent::Missed => {
                let (since, passes) = (self.since, 0);
                (
                    Health::Failing { since, passes },
                    Some(HealthChange::Out { delay: None }),
                )
            }
            HealthEvent::Unchecked => {
                let (misses, passes) = (0, 0);
                let outage = Outage { misses, passes, ..self };
                (Health::Out(outage), None)
            }
        }
    }

    /// The server is out, from now on until a delay is over that grows with the failures.
    fn failed(self, now: Instant, jitter: &mut Jitter) -> Moved {
        let doublings = self.failures.min(16);
        let delay = jitter.around_duration(SHORTEST.saturating_mul(1 << doublings).min(LONGEST));
        let outage = Outage {
            failures: self.failures.saturating_add(1),
            passes: 0,
            trial: Trial::At(now + delay),
            ..self
        };
        (Health::Out(outage), Some(HealthChange::Out { delay: Some(delay) }))
    }
}

fn after_failing(since: Instant, passes: u8, event: HealthEvent, now: Instant) -> Moved {
    let with = |passes| (Health::Failing { since, passes }, None);
    match event {
        // The check decides.
        HealthEvent::Tried | HealthEvent::Connected | HealthEvent::Failed | HealthEvent::Abandoned => with(passes),
        HealthEvent::Passed if passes + 1 < PASSES => with(passes + 1),
        HealthEvent::Passed | HealthEvent::Unchecked => back(0, since, now),
        HealthEvent::Missed => with(0),
    }
}

fn back(misses: u8, since: Instant, now: Instant) -> Moved {
    let after = now.saturating_duration_since(since);
    (Health::Up { misses }, Some(HealthChange::Back { after }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [HealthEvent; 7] = [
        HealthEvent::Tried,
        HealthEvent::Connected,
        HealthEvent::Failed,
        HealthEvent::Abandoned,
        HealthEvent::Passed,
        HealthEvent::Missed,
        HealthEvent::Unchecked,
    ];

    const SECOND: Duration = Duration::from_secs(1);

    struct Server {
        health: Health,
        now: Instant,
        jitter: Jitter,
    }

    impl Server {
        fn new() -> Self {
            Server {
                health: Health::UNTRIED,
                now: Instant::now(),
                jitter: Jitter::new(1),
            }
        }

        fn tell(&mut self, event: HealthEvent) -> Option<HealthChange> {
            self.health.handle(event, self.now, &mut self.jitter)
        }

        fn fail(&mut self) -> Duration {
            match self.tell(HealthEvent::Failed) {
                Some(HealthChange::Out { delay: Some(delay) }) => delay,
                other => panic!("{other:?}"),
            }
        }
    }

    /// A server that is out. The numbers are of its last checks in a row that have failed, or have passed.
    fn outage(trial: Trial, (misses, passes): (u8, u8), since: Instant) -> Health {
        Health::Out(Outage {
            since,
            failures: 3,
            misses,
            passes,
            trial,
        })
    }

    #[test]
    fn every_pair_of_state_and_event_is_decided() {
        use HealthEvent::{Abandoned, Connected, Failed, Missed, Passed, Tried, Unchecked};
        let since = Instant::now();
        let now = since + 100 * SECOND;
        let up = |misses| Health::Up { misses };
        let failing = |passes| Health::Failing { since, passes };
        let waiting = |misses, passes| outage(Trial::At(now + SECOND), (misses, passes), since);
        let due = outage(Trial::At(now), (0, 0), since);
        let running = |misses, passes| outage(Trial::Running, (misses, passes), since);
        let out = |failures, misses| {
            move |health: Health| match health {
                Health::Out(Outage {
                    failures: counted,
                    misses: kept,
                    trial: Trial::At(time),
                    passes: 0,
                    ..
                }) => (counted, kept) == (failures, misses) && time > now,
                _ => false,
            }
        };
        let is = |expected: Health| move |health: Health| health == expected;
        type IsExpected = Box<dyn Fn(Health) -> bool>;
        let rows: Vec<(Health, HealthEvent, IsExpected)> = vec![
            (up(2), Tried, Box::new(is(up(2)))),
            (up(2), Connected, Box::new(is(up(2)))),
            (up(2), Failed, Box::new(out(1, 2))),
            (up(2), Abandoned, Box::new(is(up(2)))),
            (up(2), Passed, Box::new(is(up(0)))),
            (up(0), Missed, Box::new(is(up(1)))),
            (up(2), Missed, Box::new(is(Health::Failing { since: now, passes: 0 }))),
            (waiting(0, 1), Tried, Box::new(is(waiting(0, 1)))),
            (waiting(0, 1), Connected, Box::new(is(up(0)))),
            (waiting(2, 0), Connected, Box::new(is(up(2)))),
            (waiting(0, 1), Failed, Box::new(is(waiting(0, 1)))),
            (waiting(0, 1), Abandoned, Box::new(is(waiting(0, 1)))),
            (waiting(2, 0), Passed, Box::new(is(waiting(0, 1)))),
            (waiting(0, 1), Passed, Box::new(is(up(0)))),
            (waiting(0, 1), Missed, Box::new(is(waiting(1, 0)))),
            (waiting(2, 0), Missed, Box::new(is(failing(0)))),
            (due, Tried, Box::new(is(running(0, 0)))),
            (due, Connected, Box::new(is(up(0)))),
            (due, Failed, Box::new(out(4, 0))),
            (due, Abandoned, Box::new(is(due))),
            (due, Passed, Box::new(is(outage(Trial::At(now), (0, 1), since)))),
            (due, Missed, Box::new(is(outage(Trial::At(now), (1, 0), since)))),
            (running(0, 1), Tried, Box::new(is(running(0, 1)))),
            (running(0, 1), Connected, Box::new(is(up(0)))),
            (running(2, 0), Failed, Box::new(out(4, 2))),
            (running(0, 0), Abandoned, Box::new(is(due))),
            (running(1, 0), Passed, Box::new(is(running(0, 1)))),
            (running(0, 1), Passed, Box::new(is(up(0)))),
            (running(0, 1), Missed, Box::new(is(running(1, 0)))),
            (running(2, 0), Missed, Box::new(is(failing(0)))),
            (failing(1), Tried, Box::new(is(failing(1)))),
            (failing(1), Connected, Box::new(is(failing(1)))),
            (failing(1), Failed, Box::new(is(failing(1)))),
            (failing(1), Abandoned, Box::new(is(failing(1)))),
            (failing(0), Passed, Box::new(is(failing(1)))),
            (failing(1), Passed, Box::new(is(up(0)))),
            (failing(1), Missed, Box::new(is(failing(0)))),
            (up(2), Unchecked, Box::new(is(up(0)))),
            (waiting(0, 1), Unchecked, Box::new(is(waiting(0, 0)))),
            (running(2, 0), Unchecked, Box::new(is(running(0, 0)))),
            (failing(1), Unchecked, Box::new(is(up(0)))),
        ];
        for (number, (before, event, is_expected)) in rows.into_iter().enumerate() {
            let mut health = before;
            let change = health.handle(event, now, &mut Jitter::new(7));
            assert!(is_expected(health), "row {number}: {before:?} {event:?} {health:?}");
            let is_told = matches!(change, Some(HealthChange::Out { .. }));
            let is_failing = |health| matches!(health, Health::Failing { .. });
            let has_failed = event == Failed && health.is_out() && health != before;
            let is_out_by_checks = is_failing(health) && !is_failing(before);
            assert_eq!(is_told, has_failed || is_out_by_checks, "row {number}: {change:?}");
            let is_back = before.is_out() && !health.is_out();
            let after = is_back.then_some(HealthChange::Back { after: 100 * SECOND });
            assert_eq!(change.filter(|_| !is_told), after, "row {number}");
        }
    }

    #[test]
    fn the_delay_doubles_from_a_second_to_a_minute_and_begins_again_after_a_success() {
        let mut server = Server::new();
        for expected in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let delay = server.fail();
            let tenth = Duration::from_secs(expected) / 10;
            assert!(delay >= 9 * tenth && delay <= 11 * tenth, "{expected} s: {delay:?}");
            assert!(!server.health.is_available(server.now));
            server.now += delay;
            assert!(server.health.is_available(server.now));
            server.tell(HealthEvent::Tried);
            assert!(!server.health.is_available(server.now), "one client at a time tries it");
        }
        server.tell(HealthEvent::Connected);
        assert!(server.health.is_available(server.now));
        assert!(server.fail() < 2 * SECOND);
    }

    #[test]
    fn a_thousand_clients_that_fail_together_make_the_delay_no_longer() {
        let mut server = Server::new();
        server.fail();
        for _ in 0..1000 {
            assert_eq!(server.tell(HealthEvent::Failed), None);
        }
        server.now += 2 * SECOND;
        assert!(server.health.is_available(server.now));
    }

    #[test]
    fn the_server_whose_time_is_next_is_the_last_resort_before_one_that_fails_its_check() {
        let now = Instant::now();
        let order = [
            Health::UNTRIED,
            outage(Trial::At(now + SECOND), (0, 0), now),
            outage(Trial::At(now + 2 * SECOND), (0, 0), now),
            outage(Trial::Running, (0, 0), now),
            Health::Failing { since: now, passes: 1 },
        ];
        assert!(order.is_sorted_by_key(Health::last_resort));
    }

    #[test]
    fn a_server_that_a_client_has_found_away_is_left_to_its_checks_when_they_fail_as_well() {
        let mut server = Server::new();
        let begin = server.now;
        server.tell(HealthEvent::Missed);
        server.fail();
        server.tell(HealthEvent::Missed);
        let change = server.tell(HealthEvent::Missed);
        assert_eq!(change, Some(HealthChange::Out { delay: None }));
        server.now += LONGEST * 2;
        assert!(!server.health.is_available(server.now), "no client tries it");
        server.tell(HealthEvent::Tried);
        assert_eq!(server.tell(HealthEvent::Connected), None);
        assert_eq!(server.tell(HealthEvent::Passed), None);
        let after = server.now - begin;
        assert_eq!(server.tell(HealthEvent::Passed), Some(HealthChange::Back { after }));
    }

    proptest! {
        /// In any order of events: the checks decide once enough in a row have failed, and until enough have passed.
        #[test]
        fn only_checks_take_a_server_out_for_its_checks_and_only_checks_bring_it_back(
            events in prop::collection::vec((0..EVENTS.len(), 0..100_u32), 1..300),
        ) {
            let mut server = Server::new();
            let (mut misses, mut passes) = (0_u8, 0_u8);
            for (event, seconds) in events {
                server.now += SECOND * seconds;
                let event = EVENTS[event];
                let before = server.health;
                let change = server.tell(event);
                match event {
                    HealthEvent::Missed => (misses, passes) = (misses.saturating_add(1), 0),
                    HealthEvent::Passed => (misses, passes) = (0, passes.saturating_add(1)),
                    HealthEvent::Unchecked => (misses, passes) = (0, 0),
                    _ => {}
                }
                let was_failing = matches!(before, Health::Failing { .. });
                let is_failing = matches!(server.health, Health::Failing { .. });
                let is_told = misses >= MISSES || was_failing && passes < PASSES && event != HealthEvent::Unchecked;
                prop_assert_eq!(is_failing, is_told, "{:?} {:?} {:?}", before, event, server.health);
                prop_assert!(!(is_failing && server.health.is_available(server.now + 2 * LONGEST)));
                let is_back = matches!(change, Some(HealthChange::Back { .. }));
                prop_assert_eq!(is_back, before.is_out() && !server.health.is_out());
                if event == HealthEvent::Unchecked {
                    prop_assert!(!server.health.is_known_by_checks());
                }
            }
        }
    }
}
