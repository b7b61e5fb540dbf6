//! The TLS handshakes of arrivals: their time, their share of a turn of the loop, and their failures.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::net::tls::error::Fault;

/// The time from the first moment at which a client may begin its handshake to the end of that. A client far away needs
/// two or three ways there and back, and a lost packet is sent again after one second and after three.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The number of steps of handshakes that one turn makes for all arrivals of a door. A step may sign with the key of a
/// certificate, which takes a tenth of a millisecond with an elliptic curve.
const STEPS_PER_TURN: usize = 8;

/// The share that the handshakes of a door have in a turn of the loop.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// The time of the turn, which no other has.
    at: Option<Instant>,
    left: usize,
}

impl Share {
    /// Returns true if a step may be made in the turn of this time.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        if self.at != Some(now) {
            (self.at, self.left) = (Some(now), STEPS_PER_TURN);
        }
        self.left > 0
    }

    /// Counts a step.
    pub(super) fn take(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

/// The reason to refuse a client within its handshake.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Failure {
    /// The client has broken the rules of TLS, or the two sides cannot agree.
    Fault(Fault),
    /// The handshake was not complete in time.
    TooSlow,
    /// The handshake was not complete, and newer connections needed the place.
    Displaced,
}

impl Failure {
    /// Returns the failure for an error of a handshake; `None` if the client has gone, as health checks do.
    pub(super) fn from_error(error: io::Error) -> Option<Self> {
        match error.downcast::<Fault>() {
            Ok(Fault::Left { has_begun: false }) | Err(_) => None,
            Ok(fault) => Some(Failure::Fault(fault)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Fault(Fault::NoCertificate) => f.write_str("it sends no certificate, which --client-ca asks for"),
            Failure::Fault(Fault::NotListed(names)) => {
                write!(f, "its certificate is for {names}, which --allow-subject does not name")
            }
            Failure::Fault(fault) => write!(f, "its TLS handshake fails: {fault}"),
            Failure::TooSlow => f.write_str("its TLS handshake was not complete in time"),
            Failure::Displaced => f.write_str(
                "its TLS handshake was not complete, and as many wait for theirs as half of --max-connections allows",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_a_bounded_number_of_steps_and_the_next_turn_has_them_again() {
        let (mut share, now) = (Share::default(), Instant::now());
        let mut made = 0;
        while share.begin(now) {
            share.take();
            made += 1;
        }
        assert_eq!(made, STEPS_PER_TURN);
        assert!(!share.begin(now));
        assert!(share.begin(now + Duration::from_nanos(1)));
    }

    #[test]
    fn a_client_that_has_said_nothing_or_was_cut_off_is_no_failure() {
        assert_eq!(Failure::from_error(Fault::Left { has_begun: false }.into()), None);
        assert_eq!(Failure::from_error(io::ErrorKind::ConnectionReset.into()), None);
        let left = Fault::Left { has_begun: true };
        assert_eq!(Failure::from_error(left.clone().into()), Some(Failure::Fault(left)));
    }
}
