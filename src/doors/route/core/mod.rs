//! The decisions of a route door, without I/O.
//!
//! [`opening`] tells which protocol begins with the first bytes of a connection: [`hello`] reads the one of TLS, and
//! [`name`] the name in it. With that name [`table`] decides. [`answer`] has what the router itself answers.

pub mod answer;
pub mod balance;
pub mod health;
pub mod hello;
pub mod name;
pub mod opening;
pub mod table;
pub mod upstreams;
