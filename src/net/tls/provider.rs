//! The cryptography under TLS, which is chosen when the program is built.
//!
//! Every configuration is built with [`provider`], and rustls is given no default for the process: nothing here is
//! global.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
compile_error!("TLS needs its cryptography: build with the feature \"ring\" or \"aws-lc-rs\"");

/// Returns the cipher suites, key exchanges and signatures of the chosen library.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
}
