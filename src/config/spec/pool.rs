//! The settings of a pool of stdio workers as written: `iotcpd [flags]`, and a table `[pool.NAME]` of a file.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::fail::Fail;
use super::listen::ListenSpec;
use super::process::ProcessSpec;
use crate::config::framing::Framing;
use crate::config::units::{Escaped, Size, Time, Whole};

/// All settings of a pool. The flags of iotcpd 1.1 keep their names and letters.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct PoolSpec {
    /// The worker program and its arguments, with shell quoting but no shell
    /// [default: squidGuard -c sg/adblock.conf]
    #[arg(short, long, value_name = "CMD", help_heading = "Workers")]
    pub daemon: Option<String>,
    /// How many workers to keep running, 1 to 4096 [default: 4]
    #[arg(short, long, value_name = "NUM", help_heading = "Workers")]
    pub num_daemons: Option<Whole>,
    /// Let the number of workers follow the load, up to this, instead of --num-daemons [default: none, it is fixed]
    #[arg(long, value_name = "NUM", help_heading = "Workers")]
    pub max_workers: Option<Whole>,
    /// How many workers there are at least, whatever the load; with --max-workers [default: 1]
    #[arg(long, value_name = "NUM", help_heading = "Workers")]
    pub min_workers: Option<Whole>,
    /// Keep this many workers idle beyond the busy ones; with --max-workers [default: 1]
    #[arg(long, value_name = "NUM", help_heading = "Workers")]
    pub spare_workers: Option<Whole>,
    /// Stop idle workers that have been too many for this time; with --max-workers [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "Workers")]
    pub worker_idle_timeout: Option<Time>,
    /// True if there is a listener only where one is written, because other doors of the same file hand connections
    /// over: a key of files alone.
    #[arg(skip)]
    #[serde(skip)]
    pub handed_over: bool,
    /// What a connection gets: an answer to its request, or a worker of its own until either ends [default: request]
    #[arg(long, value_name = "MODE", help_heading = "Workers")]
    pub mode: Option<Mode>,
    /// A worker is ready once it has written this line [default: once it runs]
    #[arg(long, value_name = "TEXT", help_heading = "Workers", allow_hyphen_values = true)]
    pub ready_line: Option<String>,
    /// How long a worker may take to its ready line and its first answer to --probe [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "Workers")]
    pub start_timeout: Option<Time>,
    /// Ask every worker this before its first request, and now and then afterwards [default: none]
    #[arg(long, value_name = "TEXT", help_heading = "Workers", allow_hyphen_values = true)]
    pub probe: Option<String>,
    /// A worker whose answer to --probe does not hold this regular expression is quarantined [default: none]
    #[arg(long, value_name = "REGEX", help_heading = "Workers", allow_hyphen_values = true)]
    pub probe_expect: Option<String>,
    /// How long after a probe a worker is probed again [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "Workers")]
    pub probe_interval: Option<Time>,
    /// Respawn delays of workers that keep dying grow from here; memory is looked at this often [default: 2s]
    #[arg(short, long, value_name = "TIME", help_heading = "Workers")]
    pub alarm_interval: Option<Time>,
    /// Replace a worker after about this many requests [default: never]
    #[arg(long, value_name = "NUM", help_heading = "Workers")]
    pub max_requests: Option<Whole>,
    /// Replace a worker at about this age [default: never]
    #[arg(long, value_name = "TIME", help_heading = "Workers")]
    pub max_age: Option<Time>,
    /// Replace a worker whose resident memory is over this size [default: never]
    #[arg(long, value_name = "SIZE", help_heading = "Workers")]
    pub max_rss: Option<Size>,
    /// From TERM to KILL for a worker that does not end [default: 3s]
    #[arg(long, value_name = "TIME", help_heading = "Workers")]
    pub kill_timeout: Option<Time>,
    /// How long requests in hand may take once the daemon is told to stop [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Workers")]
    pub stop_timeout: Option<Time>,
    /// How many of its last requests are logged when a worker is killed or dies; 0: none [default: 8]
    #[arg(long, value_name = "NUM", help_heading = "Workers")]
    pub record: Option<Whole>,
    /// Requests hold passwords: show nothing of them or of replies in the log and at USR2, and write no core dump
    #[arg(long, help_heading = "Workers")]
    pub confidential: bool,
    /// Log each request that its worker takes longer for [default: never]
    #[arg(long, value_name = "TIME", help_heading = "Workers")]
    pub slow_log: Option<Time>,

    /// Listen on this IPv4 address [default: 127.0.0.1, unless --ipv6 or --listen is given]
    #[arg(
        short,
        long,
        visible_short_alias = '4',
        value_name = "IP",
        help_heading = "Where clients connect"
    )]
    pub ipv4: Option<String>,
    /// Listen on this IPv6 address; alone, it binds no IPv4 [default: none]
    #[arg(
        short = 'I',
        long,
        visible_short_alias = '6',
        value_name = "IP",
        help_heading = "Where clients connect"
    )]
    pub ipv6: Option<String>,
    /// The port of --ipv4 and --ipv6; 0: any free one, named in the log [default: 9991]
    #[arg(short, long, value_name = "PORT", help_heading = "Where clients connect")]
    pub port: Option<Whole>,
    /// The other settings of the listeners.
    #[command(flatten)]
    #[serde(flatten)]
    pub listen: ListenSpec,

    /// A worker that takes longer over one request is killed and replaced [default: 15s, unless --mode session is given]
    #[arg(short, long, value_name = "TIME", help_heading = "Requests and replies")]
    pub busy_timeout: Option<Time>,
    /// How many requests may wait for a worker; 0: none [default: 1024]
    #[arg(long, value_name = "NUM", help_heading = "Requests and replies")]
    pub queue_size: Option<Whole>,
    /// How long a request may wait for a worker [default: 500ms]
    #[arg(long, value_name = "TIME", help_heading = "Requests and replies")]
    pub queue_timeout: Option<Time>,
    /// How often a request goes to another worker after its worker died; 0: never [default: 1]
    #[arg(long, value_name = "NUM", help_heading = "Requests and replies")]
    pub retries: Option<Whole>,
    /// Write up to this many requests ahead to a worker that answers them in order, once none is free [default: 1]
    #[arg(long, value_name = "NUM", help_heading = "Requests and replies")]
    pub pipeline: Option<Whole>,
    /// Give a worker nothing for this time after each answer, though requests wait: a stray line then meets none
    /// [default: 0]
    #[arg(long, value_name = "TIME", help_heading = "Requests and replies")]
    pub rest: Option<Time>,
    /// Give a worker up to this many requests at once, each behind a channel-ID, as Squid does with its helpers
    #[arg(long, value_name = "NUM", help_heading = "Requests and replies")]
    pub concurrency: Option<Whole>,
    /// Keep connections for further requests, also before the last is answered; answers come in order
    #[arg(long, help_heading = "Requests and replies")]
    pub persistent: bool,
    /// Refuse clients that want to send many requests on one connection and get their answers in any order
    #[arg(long, help_heading = "Requests and replies")]
    pub no_multiplex: bool,
    /// How much input of a session, times 32, is held while client and worker wait for each other [default: 256KiB]
    #[arg(long, value_name = "SIZE", help_heading = "Requests and replies")]
    pub max_buffer: Option<Size>,
    /// How long a kept connection may ask nothing, or a session be silent [default: 5m, unless --mode session is given]
    #[arg(long, value_name = "TIME", help_heading = "Requests and replies")]
    pub idle_timeout: Option<Time>,
    /// Read nothing more from a kept connection with this many requests unanswered
    /// [default: 64, or 512 where each has a number]
    #[arg(long, value_name = "NUM", help_heading = "Requests and replies")]
    pub max_unanswered: Option<Whole>,
    /// Keep answers for identical requests in this much memory; the worker must answer these alike [default: none]
    #[arg(long, value_name = "SIZE", help_heading = "Requests and replies")]
    pub cache_size: Option<Size>,
    /// How long a kept answer is good [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "Requests and replies")]
    pub cache_ttl: Option<Time>,
    /// Always ask, and keep no answer, where this is found in the request [default: none]
    #[arg(
        long,
        value_name = "REGEX",
        help_heading = "Requests and replies",
        allow_hyphen_values = true
    )]
    pub cache_skip: Option<String>,
    /// How clients end a request: line, netstring, nul, u32be, content-length, until-empty-line or eof
    /// [default: line]
    #[arg(long, value_name = "FRAMING", help_heading = "Requests and replies")]
    pub request_framing: Option<Framing>,
    /// How clients are told the end of a reply: one of these, or quiet=TIME, which is eof to them [default: line]
    #[arg(long, value_name = "FRAMING", help_heading = "Requests and replies")]
    pub reply_framing: Option<Framing>,
    /// How workers are told the end of a request [default: what --request-framing says]
    #[arg(long, value_name = "FRAMING", help_heading = "Requests and replies")]
    pub worker_request_framing: Option<Framing>,
    /// How workers end a reply; quiet=TIME: nothing more has come for this time [default: what --reply-framing says]
    #[arg(long, value_name = "FRAMING", help_heading = "Requests and replies")]
    pub worker_reply_framing: Option<Framing>,
    /// How lines end that workers are given, for workers that know lf or crlf alone; as-is: as they came
    /// [default: as-is, unless the framing is until-empty-line, with --pipeline: then lf]
    #[arg(long, value_name = "END", help_heading = "Requests and replies")]
    pub worker_line_end: Option<LineEnd>,
    /// Pass requests with a carriage return within a line: no worker takes it for a line end
    #[arg(long, help_heading = "Requests and replies")]
    pub allow_lone_cr: bool,
    /// Pass requests with lines of blanks to workers that read up to an empty line: to them these are not empty
    #[arg(long, help_heading = "Requests and replies")]
    pub allow_blank_lines: bool,
    /// Refuse requests with characters that end lines in Unicode, as Java's Scanner has it
    #[arg(long, help_heading = "Requests and replies")]
    pub refuse_unicode_line_ends: bool,
    /// The longest request, its line end or other framing not counted [default: 64KiB]
    #[arg(long, value_name = "SIZE", help_heading = "Requests and replies")]
    pub max_request: Option<Size>,
    /// The longest reply, its line end or other framing not counted [default: 1MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Requests and replies")]
    pub max_reply: Option<Size>,
    /// How long a client may take over its request line [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Requests and replies")]
    pub read_timeout: Option<Time>,
    /// How long a client may leave its reply unread [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Requests and replies")]
    pub write_timeout: Option<Time>,
    /// What a refused client is told; knows \n \r \t \0 \xNN \\; empty: just close [default: ERR\n]
    #[arg(
        long,
        value_name = "TEXT",
        help_heading = "Requests and replies",
        allow_hyphen_values = true
    )]
    pub error_reply: Option<Escaped>,
    /// The same in one word for Squid: a URL whose request fails passes, or is denied [default: open]
    #[arg(long, value_name = "WHAT", help_heading = "Requests and replies")]
    pub fail: Option<Fail>,
    /// Where a browser is sent whose URL is denied by fail closed [default: http://url-filter-unavailable.invalid/]
    #[arg(long, value_name = "URL", help_heading = "Requests and replies")]
    #[allow(rustdoc::bare_urls, reason = "--help shows this text as it is")]
    pub fail_url: Option<String>,
    /// A client that ends its input before its answer: still answer it, or take it for gone [default: answer]
    #[arg(long, value_name = "WHAT", help_heading = "Requests and replies")]
    pub half_close: Option<HalfClose>,

    /// The environment and the limits of the workers.
    #[command(flatten)]
    #[serde(flatten)]
    pub process: ProcessSpec,
    /// Give workers a terminal for standard input and output, in place of pipes
    #[arg(long, help_heading = "What programs run with")]
    pub pty: bool,
}

/// The unit that a connection gets, see [`options::Mode`](crate::doors::pool::options::Mode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Answers to requests.
    Request,
    /// A worker of its own.
    Session,
}

/// Not derived, for the reason given at [`HalfClose`].
impl ValueEnum for Mode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Request, Self::Session]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Request => "request",
            Self::Session => "session",
        }))
    }
}

/// The end of the lines that workers get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineEnd {
    /// Unchanged.
    AsIs,
    /// A line feed.
    Lf,
    /// A carriage return and a line feed.
    Crlf,
}

/// Not derived, for the reason given at [`HalfClose`].
impl ValueEnum for LineEnd {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::AsIs, Self::Lf, Self::Crlf]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::AsIs => "as-is",
            Self::Lf => "lf",
            Self::Crlf => "crlf",
        }))
    }
}

/// The meaning of the end of a client's sending side, see
/// [`options::HalfClose`](crate::doors::pool::options::HalfClose).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HalfClose {
    /// The client still reads.
    Answer,
    /// The client has gone.
    HangUp,
}

/// Not derived: the derived code would take the comments above for help, and `--help` would take twice the lines to
/// show them.
impl ValueEnum for HalfClose {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Answer, Self::HangUp]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Answer => "answer",
            Self::HangUp => "hang-up",
        }))
    }
}
