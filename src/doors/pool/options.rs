//! The options of a pool: every number is decided, every default applied, nothing is left to look up.
//!
//! `config::lower` is the only writer; [`core`](super::core) sees [`Policy`] alone.

use std::sync::Arc;
use std::time::Duration;

pub use super::cache::CacheLimits;
pub use crate::framing::Framing;
pub use crate::framing::line_rules::{LineEnd, LineRules};

use crate::process::spec::ProcessSpec;

#[cfg(test)]
use crate::doors::front::options::LimitKind;
use crate::doors::front::options::{DescriptorNeeds, FrontOptions};
use crate::doors::pattern::Pattern;

/// One pool, ready to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The options that every door has.
    pub front: Arc<FrontOptions>,
    /// The worker program and everything it is started with.
    pub process: ProcessSpec,
    /// True if the operator named no program, so that this is the default one.
    pub has_default_worker: bool,
    /// The numbers that the dispatcher decides by.
    pub policy: Policy,
    /// The line by which a worker says that it has started. `None`: it has started when its exec has succeeded.
    pub ready_line: Option<Vec<u8>>,
    /// The question that tests a worker before it serves, and now and then afterwards. `Some` exactly when the policy
    /// has a [`probe_interval`](Policy::probe_interval). A worker is asked the question that was set when it started,
    /// also after a reload.
    pub probe: Option<Arc<Probe>>,
    /// The framings of messages. They are the same for the whole life of a pool.
    pub framings: Framings,
    /// The ways in which workers may read lines. A request that one of them takes for two lines is refused.
    pub line_rules: LineRules,
    /// The longest request in bytes, without the bytes that its framing adds. ≥ 1.
    pub max_request: usize,
    /// The longest reply in bytes, without the bytes that its framing adds. ≥ 1.
    pub max_reply: usize,
    /// The limits of connections that stay for one request after the other. `None`: each is closed after its answer.
    pub persistent: Option<KeptLimits>,
    /// The limits of connections on which many requests are under way, each behind a number. `None`: no client may have
    /// one. `Some` only where clients speak lines.
    pub multiplexed: Option<KeptLimits>,
    /// The limits of the store of answers to identical requests. `None`: no answer is kept.
    pub cache: Option<CacheOptions>,
    /// The most time that a client has for its request. It runs from accept until the request is whole; on a connection
    /// that stays, from the first byte of each request.
    pub read_timeout: Duration,
    /// The most time that may pass without a client taking some more of its reply.
    pub write_timeout: Duration,
    /// The answer to a refused client, framed. If it is empty, the connection is just closed.
    pub error_reply: Vec<u8>,
    /// The meaning of a client's closing its sending side before its answer has come.
    pub half_close: HalfClose,
    /// The time from TERM (or the request to stop) to KILL.
    pub kill_timeout: Duration,
    /// The resident memory, in bytes, above which a worker is recycled. `None`: it is not looked at.
    pub max_rss: Option<u64>,
    /// The number of its last requests that are remembered of each worker, for the log of its loss. May be 0.
    pub record: usize,
    /// The permission to show these requests in the log.
    pub disclosure: Disclosure,
    /// The time in a worker's hands above which a request gets a line in the log. `None`: none does.
    pub slow_log: Option<Duration>,
    /// The time without a byte in either direction after which a session is ended. `None`: none is.
    pub session_idle: Option<Duration>,
    /// The most bytes of a session's input that are held while everything flows. While the session's client and worker
    /// wait for each other, [`standstill`](crate::doors::standstill) permits many times as much.
    pub max_buffer: usize,
}

impl Options {
    /// Returns the descriptors that may be open at the same time: three pipes and a pidfd for each worker, twice,
    /// because a successor comes up before its predecessor goes; one for each connection, and in session mode also the
    /// pipe with the last words of a worker that has gone.
    pub fn descriptor_needs(&self) -> DescriptorNeeds {
        DescriptorNeeds {
            beside: self.policy.workers.max.saturating_mul(8),
            per_connection: match self.policy.mode {
                Mode::Request => 1,
                Mode::Session => 2,
            },
        }
    }

    /// Returns the number of workers and their command, for a log line.
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

/// The permission to show the content of requests and replies in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disclosure {
    /// The log shows their beginnings, where they help to find out why a worker was lost or slow.
    Excerpts,
    /// The log shows nothing of them: they hold passwords or the like.
    Nothing,
}

/// The options of the store of answers.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheOptions {
    /// The bounds on its size, and on the age of an answer.
    pub limits: CacheLimits,
    /// Requests in which this is found always go to a worker, and their answers are not kept.
    pub skip: Option<Pattern>,
}

/// The limits of connections that stay for more than one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptLimits {
    /// The time without a request after which a connection that is owed no answer is closed.
    pub idle_timeout: Duration,
    /// The number of unanswered requests at which a connection is not read from. ≥ 1.
    pub max_unanswered: usize,
}

/// A question with a known answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// The question, framed as workers read it.
    pub question: Vec<u8>,
    /// The pattern that is found in the answer of a healthy worker. The line end is no part of the text.
    pub expect: Pattern,
}

/// The framings of messages on both sides of a pool: clients and workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framings {
    /// The framing of requests as clients send them. Never [`Framing::Quiet`].
    pub request: Framing,
    /// The framing of replies as clients get them. [`Framing::Quiet`] acts like [`Framing::Eof`]: the reply ends where
    /// the connection ends.
    pub reply: Framing,
    /// The framing of requests as workers get them. Never [`Framing::Quiet`].
    pub worker_request: Framing,
    /// The framing of replies as workers write them.
    pub worker_reply: Framing,
}

impl Framings {
    /// Returns true if a worker serves once, because its request or its reply ends with the stream.
    pub fn single_use(&self) -> bool {
        self.worker_request == Framing::Eof || self.worker_reply == Framing::Eof
    }

    /// Returns the number of bytes that a worker has to hold at once to find the end of a request of `length` bytes. It
    /// is 0 where the length stands before the request: the worker then reads on until it has all of it, and takes no
    /// part of it for the whole.
    pub fn searched_for_its_end(&self, length: usize) -> usize {
        match self.worker_request {
            Framing::Line | Framing::Nul | Framing::UntilEmptyLine | Framing::Quiet(_) => length,
            Framing::Netstring | Framing::U32be | Framing::ContentLength | Framing::Eof => 0,
        }
    }
}

impl Default for Framings {
    /// Returns lines on all sides, as with iotcpd 1.1.
    fn default() -> Self {
        Framings {
            request: Framing::Line,
            reply: Framing::Line,
            worker_request: Framing::Line,
            worker_reply: Framing::Line,
        }
    }
}

/// The meaning of the end of a TCP client's sending side while its request is unanswered. Two cases look alike on the
/// wire: a client that only says "no more requests" (`nc -N`), and one that has closed its socket and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfClose {
    /// The client still reads, so it is answered.
    Answer,
    /// The client has gone, so its request is dropped if it still waits for a worker. A request that a worker has in
    /// hand is finished either way.
    HangUp,
}

/// The service that a connection gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Each of its requests is answered by a worker that it shares with other connections.
    Request,
    /// The connection gets a worker of its own until either of the two ends, and bytes pass both ways as they are. To
    /// the dispatcher a session is one request, and the only one that its worker takes.
    Session,
}

/// The numbers that the dispatcher decides by. All durations are positive, unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The service that a connection gets.
    pub mode: Mode,
    /// The number of workers.
    pub workers: PoolSize,
    /// The most requests that wait for a worker; a further one is refused.
    pub queue_size: usize,
    /// The most time that a request waits for a worker.
    pub queue_timeout: Duration,
    /// The most time that a worker may take over one request.
    pub busy_timeout: Duration,
    /// The number of times that a request is given to another worker after its worker died. May be 0.
    pub retries: u32,
    /// The most requests that one worker has at a time; more than one is written to it only when no worker is free. ≥
    /// 1.
    pub pipeline: usize,
    /// The most requests that one worker has at a time, told apart by channel-IDs and answered in any order. ≥ 1.
    /// `None`: requests carry no channel-IDs. Where there is a number, `pipeline` is 1.
    pub concurrency: Option<usize>,
    /// True if a worker takes one request and ends. The death of such a worker over a request is no sign of bad health.
    pub single_use: bool,
    /// The supervisor's tick, and the respawn delay after the second early death in a row; it doubles from there.
    pub alarm_interval: Duration,
    /// True if a worker says itself that it is ready; otherwise it is ready as soon as it runs.
    pub ready_line: bool,
    /// The most time that a worker may take from exec to its ready line.
    pub start_timeout: Duration,
    /// The number of requests after which, more or less, a worker is recycled. `None`: never.
    pub max_requests: Option<u64>,
    /// The age at which, more or less, a worker is recycled. `None`: never.
    pub max_age: Option<Duration>,
    /// The time from a probe that a worker has passed to its next probe, more or less; the first follows its start.
    /// `None`: workers are not probed.
    pub probe_interval: Option<Duration>,
    /// The time for which a worker that has answered is given no request, even if one waits. It does not apply to
    /// workers that read channel-IDs. May be zero.
    pub rest: Duration,
}

/// The number of workers of a pool: a fixed one, or one that follows the load within limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSize {
    /// The fewest, 1 to `max`.
    pub min: usize,
    /// The most, up to [`MAX_WORKERS`].
    pub max: usize,
    /// The number of idle workers to keep beside the busy ones, as far as `max` allows.
    pub spare: usize,
    /// The time after which a worker that was not needed is ended. Positive, unless the size is fixed.
    pub idle_timeout: Duration,
}

impl PoolSize {
    /// Returns a size that does not change.
    pub const fn fixed(workers: usize) -> Self {
        Self {
            min: workers,
            max: workers,
            spare: 0,
            idle_timeout: Duration::ZERO,
        }
    }

    /// Returns true if the number of workers does not follow the load.
    pub const fn is_fixed(&self) -> bool {
        self.min == self.max
    }
}

/// The most workers one pool may have.
pub const MAX_WORKERS: usize = 4096;

#[cfg(test)]
impl Policy {
    /// Returns a policy for tests of the dispatcher: time-outs are an hour, and no worker is replaced for its age.
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

#[cfg(test)]
impl Options {
    /// The options of a pool that gives each connection its one worker, and ends no session for its length.
    pub(in crate::doors::pool) fn of_sessions(process: ProcessSpec) -> Options {
        let forever = Duration::from_secs(3600);
        Options {
            front: Arc::new(FrontOptions::sample(LimitKind::Fixed)),
            process,
            has_default_worker: false,
            policy: Policy {
                mode: Mode::Session,
                ready_line: false,
                ..Policy::for_tests(1)
            },
            ready_line: None,
            probe: None,
            framings: Framings::default(),
            line_rules: LineRules::default(),
            max_request: 1000,
            max_reply: 1000,
            persistent: None,
            multiplexed: None,
            cache: None,
            read_timeout: forever,
            write_timeout: forever,
            error_reply: Vec::new(),
            half_close: HalfClose::Answer,
            kill_timeout: Duration::from_secs(3),
            max_rss: None,
            record: 0,
            disclosure: Disclosure::Excerpts,
            slow_log: None,
            session_idle: None,
            max_buffer: 4096,
        }
    }
}
