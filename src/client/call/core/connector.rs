//! The phase of connecting: the targets of the address are tried in turn, within one deadline.
//!
//! A target that does not answer takes no more than its share of the remaining time. A UNIX socket whose queue of
//! connections is full reports that at once, and no event will tell when it has room: after a pause all targets are
//! tried again.

use std::time::{Duration, Instant};

use super::{CallAction, ConnectError, Failure};

/// The pause before the second round; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Clone)]
pub(super) struct Connector {
    until: Instant,
    targets: usize,
    pause: Duration,
    /// True if a target of this round had a full queue.
    full: bool,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    LookingUp,
    Trying { target: usize, until: Instant },
    Pausing { until: Instant },
}

/// The actions that come next, or the failure that ends the call.
pub(super) type Step = Result<Vec<CallAction>, Failure>;

impl Connector {
    pub(super) fn new(timeout: Duration, now: Instant) -> Connector {
        Connector {
            until: now + timeout,
            targets: 0,
            pause: FIRST_PAUSE,
            full: false,
            phase: Phase::LookingUp,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        match self.phase {
            Phase::LookingUp => self.until,
            Phase::Trying { until, .. } | Phase::Pausing { until } => until,
        }
    }

    /// The address was resolved to this number of targets.
    pub(super) fn start(&mut self, targets: usize, now: Instant) -> Step {
        self.targets = targets;
        self.try_target(0, now, Failure::Unreachable("it stands for nothing".to_owned()))
    }

    pub(super) fn handle_refused(&mut self, refused: ConnectError, now: Instant) -> Step {
        let Phase::Trying { target, .. } = self.phase else {
            return Ok(Vec::new());
        };
        let (full, why) = match refused {
            ConnectError::Full => (true, Failure::Full),
            ConnectError::Tls(why) => (false, Failure::Tls(why)),
            ConnectError::Other(why) => (false, Failure::Unreachable(why)),
        };
        self.full |= full;
        self.try_target(target + 1, now, why)
    }

    pub(super) fn handle_tick(&mut self, now: Instant) -> Step {
        if now < self.deadline() {
            return Ok(Vec::new());
        }
        match self.phase {
            Phase::LookingUp => Err(Failure::Unresolved("its name was not resolved in time".to_owned())),
            Phase::Pausing { .. } => self.try_target(0, now, Failure::Full),
            Phase::Trying { target, .. } => {
                let next = self.try_target(target + 1, now, Failure::TimedOut)?;
                Ok([vec![CallAction::GiveUp], next].concat())
            }
        }
    }

    /// Tries the given target. After the last one, schedules another round if a full queue may have room later; `why`
    /// is the failure of the target before.
    fn try_target(&mut self, target: usize, now: Instant, why: Failure) -> Step {
        let left = self.until.saturating_duration_since(now);
        if left.is_zero() {
            return Err(why);
        }
        let untried = u32::try_from(self.targets.saturating_sub(target)).unwrap_or(u32::MAX);
        if let Some(share) = left.checked_div(untried) {
            let until = now + share;
            self.phase = Phase::Trying { target, until };
            return Ok(vec![CallAction::Connect(target)]);
        }
        if !std::mem::take(&mut self.full) {
            return Err(why);
        }
        let until = (now + self.pause).min(self.until);
        self.phase = Phase::Pausing { until };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn other() -> ConnectError {
        ConnectError::Other("no".to_owned())
    }

    #[test]
    fn each_target_is_tried_once_within_its_share() {
        let now = Instant::now();
        let mut connector = Connector::new(SECOND * 9, now);
        assert_eq!(connector.start(3, now), Ok(vec![CallAction::Connect(0)]));
        assert_eq!(connector.deadline(), now + SECOND * 3);
        assert_eq!(connector.handle_tick(now + SECOND), Ok(vec![]), "early");
        let later = now + SECOND * 3;
        assert_eq!(
            connector.handle_tick(later),
            Ok(vec![CallAction::GiveUp, CallAction::Connect(1)])
        );
        assert_eq!(
            connector.handle_refused(other(), later),
            Ok(vec![CallAction::Connect(2)])
        );
        assert_eq!(
            connector.deadline(),
            now + SECOND * 9,
            "the last one has all that is left"
        );
        assert_eq!(
            connector.handle_refused(other(), later),
            Err(Failure::Unreachable("no".to_owned()))
        );
    }

    #[test]
    fn a_silent_name_server_or_target_times_out() {
        let now = Instant::now();
        let mut connector = Connector::new(SECOND, now);
        assert_eq!(
            connector.clone().handle_tick(now + SECOND),
            Err(Failure::Unresolved("its name was not resolved in time".to_owned()))
        );
        connector.start(1, now).unwrap();
        assert_eq!(connector.handle_tick(now + SECOND), Err(Failure::TimedOut));
    }

    #[test]
    fn a_full_queue_is_tried_again_with_growing_pauses_until_the_deadline() {
        let start = Instant::now();
        let (mut connector, mut now, mut tries) = (Connector::new(SECOND, start), start, 0);
        let mut step = connector.start(1, now);
        let failure = loop {
            match step {
                Ok(actions) if actions == [CallAction::Connect(0)] => {
                    tries += 1;
                    step = connector.handle_refused(ConnectError::Full, now);
                }
                Ok(actions) => {
                    assert_eq!(actions, []);
                    now = connector.deadline();
                    step = connector.handle_tick(now);
                }
                Err(failure) => break failure,
            }
        };
        assert_eq!((failure, now), (Failure::Full, start + SECOND));
        assert!((6..15).contains(&tries), "{tries}");
    }
}
