//! The cryptography under TLS, which is chosen when the program is built.
//!
//! Every configuration of this program is built with [`provider`]. A default for the process is there for a library
//! alone that asks rustls for one ([`serve_as_default`]).

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, SupportedProtocolVersion};

use super::Version;

#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
compile_error!("TLS needs its cryptography: build with the feature \"ring\" or \"aws-lc-rs\"");

#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as chosen;
#[cfg(not(feature = "aws-lc-rs"))]
use rustls::crypto::ring as chosen;

/// Returns the cipher suites, key exchanges and signatures of the chosen library.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(chosen::default_provider())
}

/// Makes the chosen library the one that rustls uses where a configuration does not name any. Without it such a
/// configuration panics if the program was built with both libraries.
pub fn serve_as_default() {
    // An error: it was done before.
    let _ = chosen::default_provider().install_default();
}

/// Returns the versions of TLS from `lowest` on.
#[must_use]
pub fn versions(lowest: Version) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static FROM_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
    match lowest {
        Version::V1_2 => &FROM_1_2,
        Version::V1_3 => &FROM_1_3,
    }
}

/// Returns the maker of tickets, by which clients resume their sessions: each holds the session in encrypted form. Its
/// key is random, is replaced every six hours, and is of use for twelve.
///
/// # Errors
/// The machine has no random numbers.
pub fn ticketer() -> Result<Arc<dyn ProducesTickets>, Error> {
    chosen::Ticketer::new()
}
