//! The command door: one of the commands named in its options is run for each client that asks for it, with the client's
//! arguments, and so many of each at once.

pub mod options;
