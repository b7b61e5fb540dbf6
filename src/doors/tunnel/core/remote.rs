//! One remote server: when it is connected to.
//!
//! ```text
//!              its time has come          connected
//!   Waiting ──────────────────────▶ Connecting ──────▶ Up
//!      ▲  ◀───── failed, or too late ─────┘            │
//!      └──────────── the session is over, or goes away ┘
//! ```
//!
//! The delay doubles with each failure, from [`SHORTEST`] up to the longest that the operator wants, give or take a tenth,
//! so that many clients of a server that comes back do not come together. A session has proved itself once the server has
//! answered through it and it was up for [`PROVED`]: that makes the delay the shortest again. One that ends sooner counts
//! as a failure, for a server that does not know the secret closes it, or goes away, and one that never answers must not
//! be tried without growth. A server that says that it goes away is connected to again at once, since its successor waits;
//! but not behind another failure.

use std::time::{Duration, Instant};

use crate::doors::jitter::Jitter;

/// The first delay.
pub const SHORTEST: Duration = Duration::from_millis(500);
/// The time after which a session through which the server has answered has proved that the server takes it.
pub const PROVED: Duration = Duration::from_secs(10);

/// The state of a remote server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is connected to at this time.
    Waiting(Instant),
    /// It is being connected to, until this time at most.
    Connecting(Instant),
    /// It has a session since this time, through which it has answered or not.
    Up { since: Instant, has_answered: bool },
    /// It is not connected to any more.
    Ended,
}

/// The events of a remote server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The time of [`Remote::deadline`] has come.
    Deadline,
    /// The connection is there, with its handshake.
    Connected,
    /// It could not be made.
    Failed,
    /// The server has answered a ping through the session.
    Answered,
    /// The session is over.
    Over,
    /// The server takes no more streams in this session, which keeps the ones that are up.
    WentAway,
    /// The door drains.
    Stop,
}

/// The thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Connect, and report [`Event::Connected`] or [`Event::Failed`].
    Connect,
    /// Give the attempt to connect up: it has taken too long. The next one comes after this delay.
    GiveUp(Duration),
    /// Log that the next attempt comes after this delay.
    Wait(Duration),
}

/// One remote server.
#[derive(Debug)]
pub struct Remote {
    state: State,
    failures: u32,
    connect_timeout: Duration,
    longest: Duration,
}

impl Remote {
    /// A server that is connected to at once.
    pub fn new(connect_timeout: Duration, longest: Duration, now: Instant) -> Remote {
        Remote {
            state: State::Waiting(now),
            failures: 0,
            connect_timeout,
            longest,
        }
    }

    /// Takes on other times, from now on.
    pub fn set_times(&mut self, connect_timeout: Duration, longest: Duration) {
        (self.connect_timeout, self.longest) = (connect_timeout, longest);
    }

    /// Moves on by an event.
    pub fn handle(&mut self, event: Event, now: Instant, jitter: &mut Jitter) -> Step {
        match (self.state, event) {
            (State::Ended, _) => Step::Nothing,
            (_, Event::Stop) => {
                self.state = State::Ended;
                Step::Nothing
            }
            (State::Waiting(at), Event::Deadline) if at <= now => self.connect(now),
            (State::Connecting(until), Event::Deadline) if until <= now => Step::GiveUp(self.fail(now, jitter)),
            (State::Connecting(_), Event::Connected) => {
                self.state = State::Up {
                    since: now,
                    has_answered: false,
                };
                Step::Nothing
            }
            (State::Up { since, .. }, Event::Answered) => {
                self.state = State::Up {
                    since,
                    has_answered: true,
                };
                Step::Nothing
            }
            (State::Connecting(_), Event::Failed | Event::Over) => Step::Wait(self.fail(now, jitter)),
            (State::Up { .. }, Event::WentAway) => {
                self.forgive(now);
                match self.failures {
                    0 => {
                        self.failures = 1;
                        self.connect(now)
                    }
                    1.. => Step::Wait(self.fail(now, jitter)),
                }
            }
            (State::Up { .. }, Event::Over | Event::Failed) => {
                self.forgive(now);
                Step::Wait(self.fail(now, jitter))
            }
            // A time that was put off; an attempt that was given up; a session of before.
            (State::Waiting(_) | State::Connecting(_), Event::Deadline | Event::WentAway | Event::Answered)
            | (State::Waiting(_), Event::Connected | Event::Failed | Event::Over)
            | (State::Up { .. }, Event::Deadline | Event::Connected) => Step::Nothing,
        }
    }

    fn connect(&mut self, now: Instant) -> Step {
        self.state = State::Connecting(now + self.connect_timeout);
        Step::Connect
    }

    /// Forgets the failures of a server whose session has proved itself.
    fn forgive(&mut self, now: Instant) {
        if self.has_proved(now) {
            self.failures = 0;
        }
    }

    /// Returns true if its session has proved that the server takes it.
    pub fn has_proved(&self, now: Instant) -> bool {
        match self.state {
            State::Up { since, has_answered } => has_answered && now.saturating_duration_since(since) >= PROVED,
            State::Waiting(_) | State::Connecting(_) | State::Ended => false,
        }
    }

    fn fail(&mut self, now: Instant, jitter: &mut Jitter) -> Duration {
        let doublings = self.failures.min(16);
        let delay = jitter.around_duration(SHORTEST.saturating_mul(1 << doublings).min(self.longest));
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting(now + delay);
        delay
    }

    /// Returns the time at which [`Event::Deadline`] must be reported.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) | State::Connecting(at) => Some(at),
            State::Up { .. } | State::Ended => None,
        }
    }

    /// Returns the time since which it has a session that takes streams.
    pub fn up_since(&self) -> Option<Instant> {
        match self.state {
            State::Up { since, .. } => Some(since),
            State::Waiting(_) | State::Connecting(_) | State::Ended => None,
        }
    }

    /// Returns a word for the state.
    pub fn state(&self) -> &'static str {
        match self.state {
            State::Waiting(_) => "waiting",
            State::Connecting(_) => "connecting",
            State::Up { .. } => "up",
            State::Ended => "ended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Server {
        remote: Remote,
        now: Instant,
        jitter: Jitter,
    }

    impl Server {
        fn new() -> Self {
            let now = Instant::now();
            Server {
                remote: Remote::new(5 * SECOND, 60 * SECOND, now),
                now,
                jitter: Jitter::new(1),
            }
        }

        fn tell(&mut self, event: Event) -> Step {
            self.remote.handle(event, self.now, &mut self.jitter)
        }

        /// Lets the next deadline come.
        fn wait(&mut self) -> Step {
            self.now = self.now.max(self.remote.deadline().expect("a deadline"));
            self.tell(Event::Deadline)
        }

        fn up(&mut self) {
            assert_eq!(self.wait(), Step::Connect);
            assert_eq!(self.tell(Event::Connected), Step::Nothing);
            assert_eq!(self.remote.up_since(), Some(self.now));
        }

        fn prove(&mut self) {
            assert_eq!(self.tell(Event::Answered), Step::Nothing);
            assert!(!self.remote.has_proved(self.now));
            self.now += PROVED;
            assert!(self.remote.has_proved(self.now));
        }
    }

    fn is_about(step: Step, seconds: f64) -> bool {
        let (Step::Wait(delay) | Step::GiveUp(delay)) = step else {
            return false;
        };
        (delay.as_secs_f64() / seconds - 1.0).abs() <= 0.101
    }

    #[test]
    fn a_server_that_is_away_is_tried_with_growing_delays_for_ever() {
        let mut server = Server::new();
        for seconds in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0] {
            assert_eq!(server.wait(), Step::Connect);
            let step = server.tell(Event::Failed);
            assert!(is_about(step, seconds), "{step:?} {seconds}");
            assert_eq!(server.tell(Event::Deadline), Step::Nothing, "it is not the time yet");
        }
        assert_eq!(server.wait(), Step::Connect);
        let step = server.wait();
        assert!(matches!(step, Step::GiveUp(_)) && is_about(step, 60.0), "{step:?}");
    }

    #[test]
    fn a_session_that_has_proved_itself_makes_the_delay_short_again() {
        let mut server = Server::new();
        for seconds in [0.5, 1.0, 2.0] {
            server.up();
            // A secret that the server does not know.
            let step = server.tell(Event::Over);
            assert!(is_about(step, seconds), "{step:?}");
        }
        server.up();
        server.prove();
        let step = server.tell(Event::Over);
        assert!(is_about(step, 0.5), "{step:?}");
    }

    #[test]
    fn a_server_that_never_answers_is_tried_with_growing_delays() {
        let mut server = Server::new();
        for seconds in [0.5, 1.0, 2.0, 4.0] {
            server.up();
            // The end of the wait for an answer comes with the time in which a session proves itself.
            server.now += PROVED;
            let step = server.tell(Event::Over);
            assert!(is_about(step, seconds), "{step:?}");
        }
    }

    #[test]
    fn a_server_that_goes_away_is_connected_to_at_once_but_not_in_a_loop() {
        let mut server = Server::new();
        server.up();
        server.prove();
        assert_eq!(server.tell(Event::WentAway), Step::Connect);
        // Its successor does not know the secret.
        server.tell(Event::Connected);
        for seconds in [1.0, 2.0, 4.0] {
            let step = server.tell(Event::WentAway);
            assert!(is_about(step, seconds), "{step:?}");
            server.up();
        }
        server.prove();
        assert_eq!(server.tell(Event::WentAway), Step::Connect);
    }

    #[test]
    fn a_server_that_was_stopped_is_left_alone() {
        let mut server = Server::new();
        server.up();
        assert_eq!(server.tell(Event::Stop), Step::Nothing);
        for event in [
            Event::Over,
            Event::Deadline,
            Event::Failed,
            Event::WentAway,
            Event::Answered,
            Event::Connected,
        ] {
            assert_eq!(server.tell(event), Step::Nothing);
        }
        assert_eq!((server.remote.deadline(), server.remote.state()), (None, "ended"));
    }
}
