//! The standard streams of a client.

mod threads;

pub(super) use threads::{Chunk, InputThread, OutputThread};
