//! What a pool is told: every number decided, every default applied, nothing left to look up.
//!
//! `config::lower` is the only writer; [`core`](super::core) sees [`Policy`] alone.

use std::sync::Arc;
use std::time::Duration;

pub use super::cache::CacheLimits;
pub use crate::framing::Framing;
pub use crate::framing::line_rules::{LineEnd, LineRules};

use crate::process::spec::ProcessSpec;

use crate::doors::front::options::{DescriptorNeeds, FrontOptions};
use crate::doors::pattern::Pattern;

/// One pool, ready to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The options that every door has.
    pub front: FrontOptions,
    /// The worker program and everything it is started with.
    pub process: ProcessSpec,
    /// Whether that is the default, for no program was named.
    pub has_default_worker: bool,
    /// What the dispatcher decides by.
    pub policy: Policy,
    /// A worker counts as started when it has written this line; `None`: when its exec succeeded.
    pub ready_line: Option<Vec<u8>>,
    /// What workers are asked before they serve, and now and then; there exactly when the policy has an interval for it.
    /// A process keeps what was asked at its start.
    pub probe: Option<Arc<Probe>>,
    /// How messages are told apart. The same for the whole life of a pool.
    pub framings: Framings,
    /// How workers read lines: what may be two to them is not given to them.
    pub line_rules: LineRules,
    /// The longest request in bytes, what its framing adds not counted. ≥ 1.
    pub max_request: usize,
    /// The longest reply in bytes, what its framing adds not counted. ≥ 1.
    pub max_reply: usize,
    /// Connections stay for more than one request. `None`: each is closed after its answer.
    pub persistent: Option<Persistent>,
    /// Answers that are kept for identical requests. `None`: none is.
    pub cache: Option<CacheOptions>,
    /// From accept until the request line is whole; on a connection that stays, from the first byte of each.
    pub read_timeout: Duration,
    /// Without progress in writing a reply to its client.
    pub write_timeout: Duration,
    /// What a refused client is told, as it goes over the wire. May be empty: then its connection is just closed.
    pub error_reply: Vec<u8>,
    /// What a client means that closes its sending side before its answer has come.
    pub half_close: HalfClose,
    /// From TERM (or the request to stop) to KILL.
    pub kill_timeout: Duration,
    /// A worker whose resident memory is over this many bytes is recycled.
    pub max_rss: Option<u64>,
    /// How many of its last requests are kept of each worker, for the log of its loss. 0: none.
    pub record: usize,
    /// Whether the log may show them.
    pub disclosure: Disclosure,
    /// A request whose worker takes longer than this gets a line in the log. `None`: none does.
    pub slow_log: Option<Duration>,
    /// A session in which no byte goes either way for so long is ended. `None`: none is.
    pub session_idle: Option<Duration>,
    /// What [`standstill`](crate::doors::standstill) takes for usual to be held of a session's input: while its client and
    /// its worker wait for each other, many times as much is held.
    pub max_buffer: usize,
}

impl Options {
    /// Returns the descriptors that may be open at the same time: three pipes and a pidfd for each worker, twice, because a
    /// successor comes up before its predecessor goes; one for each connection, and in session mode also the pipe with the
    /// last words of a worker that has gone.
    pub fn descriptor_needs(&self) -> DescriptorNeeds {
        DescriptorNeeds {
            beside: self.policy.workers.max.saturating_mul(8),
            per_connection: match self.policy.mode {
                Mode::Request => 1,
                Mode::Session => 2,
            },
        }
    }

    /// How many workers of what, in a few words.
    pub fn summary(&self) -> String {
        let size = self.policy.workers;
        let workers = match (size.is_fixed(), size.max) {
            (true, 1) => "1 worker".to_owned(),
            (true, number) => format!("{number} workers"),
            (false, most) => format!("{} to {most} workers", size.min),
        };
        format!("{workers} of {}", self.process.command)
    }
}

/// Whether the log may show what stands in requests and replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disclosure {
    /// Their beginnings, where they help to find out why a worker was lost or slow.
    Excerpts,
    /// Nothing: they hold passwords or the like.
    Nothing,
}

/// What is kept of answers.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheOptions {
    /// How much, and for how long.
    pub limits: CacheLimits,
    /// Requests in which this is found are always asked, and their answers not kept.
    pub skip: Option<Pattern>,
}

/// What holds for connections that stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Persistent {
    /// A connection on which nothing is asked for so long, and nothing owed, is closed.
    pub idle_timeout: Duration,
    /// How many requests of one connection may be unanswered before it is not read from. ≥ 1.
    pub max_unanswered: usize,
}

/// A question with a known answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// The question, framed as workers read it.
    pub question: Vec<u8>,
    /// What is in the answer of a worker in good order, the line end not counted.
    pub expect: Pattern,
}

/// How messages are told apart, on both sides of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framings {
    /// What clients send. Never [`Framing::Quiet`].
    pub request: Framing,
    /// What clients are sent. [`Framing::Quiet`] is to them what [`Framing::Eof`] is: the end of the connection ends it.
    pub reply: Framing,
    /// What workers are given. Never [`Framing::Quiet`].
    pub worker_request: Framing,
    /// What workers write.
    pub worker_reply: Framing,
}

impl Framings {
    /// A worker's one request, or its one reply, ends with the stream: it serves once.
    pub fn single_use(&self) -> bool {
        self.worker_request == Framing::Eof || self.worker_reply == Framing::Eof
    }

    /// How much of a request of so many bytes a worker has to hold at once to see its end. One that is told the length
    /// beforehand reads on until it has all of it, and takes no part of it for the whole.
    pub fn searched_for_its_end(&self, length: usize) -> usize {
        match self.worker_request {
            Framing::Line | Framing::Nul | Framing::UntilEmptyLine | Framing::Quiet(_) => length,
            Framing::Netstring | Framing::U32be | Framing::ContentLength | Framing::Eof => 0,
        }
    }
}

impl Default for Framings {
    /// Lines on all sides, as with iotcpd 1.1.
    fn default() -> Self {
        Framings {
            request: Framing::Line,
            reply: Framing::Line,
            worker_request: Framing::Line,
            worker_reply: Framing::Line,
        }
    }
}

/// What the end of a TCP client's sending side means while its request is unanswered. The two cases look alike on
/// the wire: a client that only says "no more requests" (`nc -N`), and one that has closed its socket and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfClose {
    /// It still reads: answer it.
    Answer,
    /// It has gone: drop its request, if it still waits for a worker. One that a worker has in hand is finished either way.
    HangUp,
}

/// What a connection gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Its request is answered by a worker that it shares with others.
    Request,
    /// A worker of its own, from its connecting until either of the two ends: bytes pass as they are, both ways. To the
    /// dispatcher that is one request, and the only one that a worker takes.
    Session,
}

/// The numbers the dispatcher decides by. All durations are positive, unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What a connection gets.
    pub mode: Mode,
    /// How many workers serve.
    pub workers: PoolSize,
    /// How many requests may wait for a worker.
    pub queue_size: usize,
    /// How long a request may wait for a worker.
    pub queue_timeout: Duration,
    /// How long a worker may take over one request.
    pub busy_timeout: Duration,
    /// How often a request is given to another worker after its worker died. 0: never.
    pub retries: u32,
    /// How many requests one worker may have at a time; further ones are written ahead only when no worker is free. ≥ 1.
    pub pipeline: usize,
    /// How many requests one worker may have at a time, told apart by channel-IDs and answered in any order, ≥ 1.
    /// `None`: it is told no channel-IDs. Where there is a number, `pipeline` is 1.
    pub concurrency: Option<usize>,
    /// Whether a worker takes one request and ends: then one that dies over a request may be as healthy as any.
    pub single_use: bool,
    /// The supervisor's tick, and the respawn delay after the second early death in a row; it doubles from there.
    pub alarm_interval: Duration,
    /// Whether a worker says itself when it is ready; else it is as soon as it runs.
    pub ready_line: bool,
    /// How long a worker may take from exec to its ready line.
    pub start_timeout: Duration,
    /// A worker is recycled after about this many requests. `None`: never.
    pub max_requests: Option<u64>,
    /// A worker is recycled at about this age. `None`: never.
    pub max_age: Option<Duration>,
    /// A worker that is started is probed, and about so long after each probe that it has passed. `None`: none is probed.
    pub probe_interval: Option<Duration>,
    /// A worker that has answered is given nothing for so long, though somebody waits; unless it is told channel-IDs. May be
    /// zero.
    pub rest: Duration,
}

/// How many workers a pool has: always as many, or as many as the load wants within limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSize {
    /// The fewest, 1 to `max`.
    pub min: usize,
    /// The most, up to [`MAX_WORKERS`].
    pub max: usize,
    /// So many are kept idle beyond those that are busy, as far as `max` allows.
    pub spare: usize,
    /// A worker that has been one too many for so long is let go. Positive, unless the size is fixed.
    pub idle_timeout: Duration,
}

impl PoolSize {
    /// Always as many.
    pub const fn fixed(workers: usize) -> Self {
        Self {
            min: workers,
            max: workers,
            spare: 0,
            idle_timeout: Duration::ZERO,
        }
    }

    /// Whether load changes nothing.
    pub const fn is_fixed(&self) -> bool {
        self.min == self.max
    }
}

/// The most workers one pool may have.
pub const MAX_WORKERS: usize = 4096;

#[cfg(test)]
impl Policy {
    /// For tests of the dispatcher: nobody is in a hurry, and nothing is replaced for its age.
    pub(in crate::doors::pool) fn for_tests(workers: usize) -> Policy {
        Policy {
            single_use: false,
            concurrency: None,
            mode: Mode::Request,
            workers: PoolSize::fixed(workers),
            queue_size: 100,
            queue_timeout: Duration::from_secs(3600),
            busy_timeout: Duration::from_secs(3600),
            retries: 1,
            pipeline: 1,
            alarm_interval: Duration::from_secs(2),
            ready_line: true,
            start_timeout: Duration::from_secs(3600),
            max_requests: None,
            max_age: None,
            probe_interval: None,
            rest: Duration::ZERO,
        }
    }
}
