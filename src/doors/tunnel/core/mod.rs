//! The decisions of a tunnel door, without I/O.
//!
//! [`remote`] decides when a server is connected to, [`greeting`] has the first bytes that it gets, and [`opening`] chooses
//! the local service of a stream; [`counters`] has the numbers.

pub mod counters;
pub mod greeting;
pub mod opening;
pub mod remote;
