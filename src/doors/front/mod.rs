//! The part of a door that is the same for all of them.

pub mod options;
