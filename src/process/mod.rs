//! What to spawn, spawning it, watching it and ending it. Knows nothing of pools, requests or sockets.

pub mod identity;
pub mod limits;
pub mod spec;
