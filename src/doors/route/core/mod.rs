//! The decisions of a route door, without I/O.

pub mod table;
