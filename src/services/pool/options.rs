//! What a pool is told: every number decided, every default applied, nothing left to look up.
//!
//! `config::lower` is the only writer; [`core`](super::core) sees [`Policy`] alone.

use std::time::Duration;

/// What the end of a TCP client's sending side means while its request is unanswered. The two cases look alike on
/// the wire: a client that only says "no more requests" (`nc -N`), and one that has closed its socket and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfClose {
    /// It still reads: answer it.
    Answer,
    /// It has gone: drop its request, as iotcpd 1.1 did.
    HangUp,
}

/// The numbers the dispatcher decides by. All durations are positive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How many workers serve, 1 to [`MAX_WORKERS`].
    pub workers: usize,
    /// How many requests may wait for a worker.
    pub queue_size: usize,
    /// How long a request may wait for a worker.
    pub queue_timeout: Duration,
    /// How long a worker may take over one request.
    pub busy_timeout: Duration,
    /// How often a request is given to another worker after its worker died. 0: never.
    pub retries: u32,
    /// The supervisor's tick, and the respawn delay after the second early death in a row; it doubles from there.
    pub alarm_interval: Duration,
    /// How long a worker may take from exec to its ready line.
    pub start_timeout: Duration,
    /// A worker is recycled after about this many requests. `None`: never.
    pub max_requests: Option<u64>,
    /// A worker is recycled at about this age. `None`: never.
    pub max_age: Option<Duration>,
}

/// The most workers one pool may have.
pub const MAX_WORKERS: usize = 4096;
