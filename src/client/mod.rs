//! Programs that talk to a daemon: one folder each, on the same loop and the same streams as the daemon itself.
//!
//! [`ask`] asks a pool, for people, scripts and Squid. What a daemon does to answer does not belong here.

pub mod ask;
