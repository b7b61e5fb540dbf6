//! TLS handshakes with clients, before their door has them or later: their time, their share of a turn of the loop, and
//! their failures.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::net::tls::error::Fault;

/// The time from the first moment at which a client may begin its handshake to the end of that. A client far away needs
/// two or three ways there and back, and a lost packet is sent again after one second and after three.
pub(in crate::doors) const PATIENCE: Duration = Duration::from_secs(10);

/// The number of steps of handshakes that one turn makes for all clients of a door. A step may sign with the key of a
/// certificate, which takes a tenth of a millisecond with an elliptic curve. With other keys it is left to
/// [helper threads](super::signatures).
const STEPS_PER_TURN: usize = 8;

/// The share that the handshakes of a door have in a turn of the loop.
#[derive(Debug, Default)]
pub(in crate::doors) struct Share {
    /// The time of the turn, which no other has.
    at: Option<Instant>,
    left: usize,
}

impl Share {
    /// Returns true if a step may be made in the turn of this time.
    pub(in crate::doors) fn begin(&mut self, now: Instant) -> bool {
        if self.at != Some(now) {
            (self.at, self.left) = (Some(now), STEPS_PER_TURN);
        }
        self.left > 0
    }

    /// Counts a step.
    pub(in crate::doors) fn take(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

/// The reason to refuse a client within its handshake.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::doors) enum Failure {
    /// The client has broken the rules of TLS, or the two sides cannot agree.
    Fault(Fault),
    /// The handshake was not complete in time.
    TooSlow,
    /// The handshake was not complete, and newer connections needed the place.
    Displaced,
    /// The handshake waited for a signature, and too many newer ones did as well.
    Unsigned,
}

impl Failure {
    /// Returns the failure for an error of a handshake; `None` if the client has gone, as health checks do, before it
    /// `has_begun`.
    pub(in crate::doors) fn from_error(error: io::Error, has_begun: bool) -> Option<Self> {
        match error.downcast() {
            Ok(Fault::Left { has_begun: false }) => None,
            Ok(fault) => Some(Failure::Fault(fault)),
            // A reset, or a peer that the kernel has given up.
            Err(_) => has_begun.then_some(Failure::Fault(Fault::Left { has_begun })),
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
            Failure::Unsigned => f.write_str(
                "its TLS handshake waited for a signature with an RSA key, and too many newer ones wait for theirs",
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
    fn a_client_that_leaves_is_a_failure_unless_it_has_said_nothing() {
        let left = |has_begun| Fault::Left { has_begun };
        let reset = || io::ErrorKind::ConnectionReset.into();
        for error in [left(false).into(), reset()] {
            assert_eq!(Failure::from_error(error, false), None);
        }
        for error in [left(true).into(), reset()] {
            assert_eq!(Failure::from_error(error, true), Some(Failure::Fault(left(true))));
        }
    }
}
