//! A pool: [`PoolSpec`] becomes [`Options`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::listen::{Listening, listening};
use super::process::process;
use super::{LONGEST, Lowered, Mistake, Mistakes, Origin, SHORTEST_TIMEOUT};
use crate::config::spec::pool::{HalfClose as Written, PoolSpec};
use crate::net::addr::ListenAddr;
use crate::services::pool::options::{HalfClose, MAX_WORKERS, Options, Policy};

/// The worker of iotcpd 1.1.
const DEFAULT_COMMAND: &str = "squidGuard -c sg/adblock.conf";
const DEFAULT_PORT: u16 = 9991;
const DEFAULT_WORKERS: usize = 4;
const DEFAULT_QUEUE_SIZE: usize = 1024;
const DEFAULT_QUEUE_TIMEOUT: Duration = Duration::from_millis(500);
const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(15);
const DEFAULT_ALARM_INTERVAL: Duration = Duration::from_secs(2);
const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_KILL_TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_RETRIES: u32 = 1;
const DEFAULT_MAX_REQUEST: u64 = 64 << 10;
const DEFAULT_MAX_REPLY: u64 = 1 << 20;
/// Also what a URL rewriter answers for "leave this URL alone".
const DEFAULT_ERROR_REPLY: &[u8] = b"ERR\n";

/// iotcpd 1.1 asked for at least 3 s, because its clock was the alarm tick. Deadlines are exact here, so what
/// remains is what keeps a busy machine from killing healthy workers.
const TIMEOUT: RangeInclusive<Duration> = SHORTEST_TIMEOUT..=LONGEST;
/// Waiting for a worker may be over quickly: a caller with a fallback of its own wants it so.
const QUEUE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;
/// 1.1 asked for at least 1 s.
const ALARM_INTERVAL: RangeInclusive<Duration> = SHORTEST_TIMEOUT..=Duration::from_secs(3600);
/// A worker that is recycled more often than it can start serves nobody.
const MAX_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST;
const MAX_RSS: RangeInclusive<u64> = 1 << 20..=1 << 50;
const MAX_REQUESTS: RangeInclusive<u64> = 1..=1_000_000_000_000;
const QUEUE_SIZE: RangeInclusive<usize> = 0..=1_000_000;
const RETRIES: RangeInclusive<u32> = 0..=100;
/// A frame is held in memory whole.
const FRAME: RangeInclusive<u64> = 1..=1 << 30;
const ERROR_REPLY_BYTES: usize = 64 << 10;

/// Lowers one pool.
///
/// # Errors
/// Everything that is wrong with it.
pub fn pool(name: &str, spec: &PoolSpec) -> Result<Lowered<Options>, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let addresses = addresses(&mut mistakes, spec);
    let Listening {
        addresses,
        unix_socket,
        backlog,
        access,
        connection_limits,
    } = listening(&mut mistakes, addresses, &spec.listen);
    let policy = policy(&mut mistakes, spec);
    let frames = frames(&mut mistakes, spec);
    let times = times(&mut mistakes, spec);
    let ready_line = ready_line(&mut mistakes, spec, frames.max_reply);
    let max_rss = mistakes.size("max-rss", spec.max_rss, &MAX_RSS);
    let command = spec.daemon.as_deref().unwrap_or(DEFAULT_COMMAND);
    let Some(process) = process(&mut mistakes, "daemon", command, &spec.process) else {
        return Err(mistakes.0);
    };
    let options = Options {
        name: name.to_owned(),
        listen: addresses.iter().map(|(_, address)| address.clone()).collect(),
        unix_socket,
        backlog,
        access,
        connection_limits,
        process,
        policy,
        ready_line,
        max_request: frames.max_request,
        max_reply: frames.max_reply,
        read_timeout: times.read,
        write_timeout: times.write,
        error_reply: frames.error_reply,
        half_close: half_close(spec),
        kill_timeout: times.kill,
        stop_timeout: times.stop,
        max_rss,
    };
    mistakes.unless_any(Lowered {
        options,
        listen: addresses,
    })
}

/// The addresses of `--ipv4`, `--ipv6` and `--port`. Asking for IPv6 alone binds no IPv4, and `--listen` alone only
/// what it names; naming the port asks for the address that goes with it.
fn addresses(mistakes: &mut Mistakes, spec: &PoolSpec) -> Vec<(Origin, ListenAddr)> {
    let port = mistakes.count("port", spec.port, 0..=u16::MAX).unwrap_or(DEFAULT_PORT);
    let mut addresses = Vec::new();
    let mut add = |key, ip: IpAddr| addresses.push((Origin::key(key), ListenAddr::Tcp(SocketAddr::new(ip, port))));
    match &spec.ipv4 {
        Some(text) => match text.parse::<Ipv4Addr>() {
            Ok(ip) => add("ipv4", ip.into()),
            Err(_) => not_an_ip(mistakes, "ipv4", text, "127.0.0.1, or 0.0.0.0 for every one"),
        },
        None if spec.ipv6.is_none() && (spec.listen.listen.is_empty() || spec.port.is_some()) => {
            add("port", Ipv4Addr::LOCALHOST.into());
        }
        None => {}
    }
    if let Some(text) = &spec.ipv6 {
        match text.trim_start_matches('[').trim_end_matches(']').parse::<Ipv6Addr>() {
            Ok(ip) => add("ipv6", ip.into()),
            Err(_) => not_an_ip(mistakes, "ipv6", text, "::1, or :: for every one"),
        }
    }
    addresses
}

fn not_an_ip(mistakes: &mut Mistakes, key: &'static str, text: &str, examples: &str) {
    let family = if key == "ipv4" { "IPv4" } else { "IPv6" };
    let text = format!("`{}` is not an {family} address", text.escape_debug());
    mistakes.add(Origin::key(key), text, format!("write for example {examples}"));
}

fn policy(mistakes: &mut Mistakes, spec: &PoolSpec) -> Policy {
    let mut timeout = |key, given, default| mistakes.time(key, given, &TIMEOUT).unwrap_or(default);
    let busy_timeout = timeout("busy-timeout", spec.busy_timeout, DEFAULT_BUSY_TIMEOUT);
    let start_timeout = timeout("start-timeout", spec.start_timeout, DEFAULT_START_TIMEOUT);
    if spec.start_timeout.is_some() && spec.ready_line.is_none() {
        let text = "without ready-line a worker is started as soon as it runs, so there is nothing to wait for";
        mistakes.add(Origin::key("start-timeout"), text, "give a ready-line, or leave it out");
    }
    Policy {
        workers: mistakes
            .count("num-daemons", spec.num_daemons, 1..=MAX_WORKERS)
            .unwrap_or(DEFAULT_WORKERS),
        queue_size: mistakes
            .count("queue-size", spec.queue_size, QUEUE_SIZE)
            .unwrap_or(DEFAULT_QUEUE_SIZE),
        queue_timeout: mistakes
            .time("queue-timeout", spec.queue_timeout, &QUEUE_TIMEOUT)
            .unwrap_or(DEFAULT_QUEUE_TIMEOUT),
        busy_timeout,
        retries: mistakes
            .count("retries", spec.retries, RETRIES)
            .unwrap_or(DEFAULT_RETRIES),
        alarm_interval: mistakes
            .time("alarm-interval", spec.alarm_interval, &ALARM_INTERVAL)
            .unwrap_or(DEFAULT_ALARM_INTERVAL),
        start_timeout,
        max_requests: mistakes.count("max-requests", spec.max_requests, MAX_REQUESTS),
        max_age: mistakes.time("max-age", spec.max_age, &MAX_AGE),
    }
}

/// What goes over the wire.
struct Frames {
    max_request: usize,
    max_reply: usize,
    error_reply: Vec<u8>,
}

fn frames(mistakes: &mut Mistakes, spec: &PoolSpec) -> Frames {
    let mut frame = |key, given, default| {
        let bytes = mistakes.size(key, given, &FRAME).unwrap_or(default);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    };
    let (max_request, max_reply) = (
        frame("max-request", spec.max_request, DEFAULT_MAX_REQUEST),
        frame("max-reply", spec.max_reply, DEFAULT_MAX_REPLY),
    );
    let error_reply = spec
        .error_reply
        .as_ref()
        .map_or_else(|| DEFAULT_ERROR_REPLY.to_vec(), |reply| reply.0.clone());
    if error_reply.len() > ERROR_REPLY_BYTES {
        let text = format!("it is {} bytes long", error_reply.len());
        mistakes.add(
            Origin::key("error-reply"),
            text,
            format!("write at most {ERROR_REPLY_BYTES} bytes"),
        );
    }
    Frames {
        max_request,
        max_reply,
        error_reply,
    }
}

/// The time-outs that are the shell's business, not the dispatcher's.
struct Times {
    read: Duration,
    write: Duration,
    kill: Duration,
    stop: Duration,
}

fn times(mistakes: &mut Mistakes, spec: &PoolSpec) -> Times {
    let mut timeout = |key, given, default| mistakes.time(key, given, &TIMEOUT).unwrap_or(default);
    Times {
        read: timeout("read-timeout", spec.read_timeout, DEFAULT_CLIENT_TIMEOUT),
        write: timeout("write-timeout", spec.write_timeout, DEFAULT_CLIENT_TIMEOUT),
        kill: timeout("kill-timeout", spec.kill_timeout, DEFAULT_KILL_TIMEOUT),
        stop: timeout("stop-timeout", spec.stop_timeout, DEFAULT_STOP_TIMEOUT),
    }
}

/// One line that can be recognised when it comes.
fn ready_line(mistakes: &mut Mistakes, spec: &PoolSpec, max_reply: usize) -> Option<Vec<u8>> {
    let line = spec.ready_line.as_ref()?;
    let wrong = match line.len() {
        0 => Some((
            "an empty line would be taken for readiness".to_owned(),
            "write what the worker prints".to_owned(),
        )),
        _ if line.contains(['\n', '\r']) => Some((
            "it is more than one line".to_owned(),
            "write one line, without its line end".to_owned(),
        )),
        length if length > max_reply => Some((
            format!("it is {length} bytes long, and a worker's line may have {max_reply}"),
            "raise max-reply".to_owned(),
        )),
        _ => None,
    };
    if let Some((text, remedy)) = wrong {
        mistakes.add(Origin::key("ready-line"), text, remedy);
    }
    Some(line.clone().into_bytes())
}

fn half_close(spec: &PoolSpec) -> HalfClose {
    match spec.half_close {
        Some(Written::HangUp) => HalfClose::HangUp,
        Some(Written::Answer) | None => HalfClose::Answer,
    }
}
