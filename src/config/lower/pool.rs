//! The options of a pool: [`PoolSpec`] becomes [`Options`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::cache::cache;
use super::framing::{framings, line_rules};
use super::listen::{MACHINE, limit_kind, listening};
use super::probe::{probe, probe_interval};
use super::process::process;
use super::refusal::refusal;
use super::session;
use super::workers::pool_size;
use super::{KEY, KeyRef, LONGEST, Lowered, Mistake, Mistakes, SHORTEST_TIMEOUT, setting};
use crate::config::quote::Quoted;
use crate::config::spec::pool::{HalfClose as Written, Mode as WrittenMode, PoolSpec};
use crate::doors::pool::options::{Disclosure, Framing, Framings, HalfClose, KeptLimits, Mode, Options, Policy};
use crate::doors::pool::squidguard::DEFAULT_COMMAND;
use crate::net::addr::{AddrError, Listen, ListenAddr};
use crate::process::spec::ProcessSpec;

/// The port of iotcpd 1.1.
const DEFAULT_PORT: u16 = 9991;
const DEFAULT_QUEUE_SIZE: usize = 1024;
const DEFAULT_QUEUE_TIMEOUT: Duration = Duration::from_millis(500);
const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(15);
const DEFAULT_ALARM_INTERVAL: Duration = Duration::from_secs(2);
const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_KILL_TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_RETRIES: u32 = 1;
const DEFAULT_PIPELINE: usize = 1;
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const DEFAULT_MAX_UNANSWERED: usize = 64;
const DEFAULT_MAX_UNANSWERED_MULTIPLEXED: usize = 512;
const DEFAULT_RECORD: usize = 8;
const DEFAULT_MAX_REQUEST: u64 = 64 << 10;
const DEFAULT_MAX_REPLY: u64 = 1 << 20;

/// The range of most time-outs. iotcpd 1.1 demanded at least 3 s, because its clock was the alarm tick. Deadlines are
/// exact here, so only this minimum remains, which keeps a busy machine from killing healthy workers.
pub(super) const TIMEOUT: RangeInclusive<Duration> = SHORTEST_TIMEOUT..=LONGEST;
/// The wait for a worker may be short: a client with a fallback of its own wants that.
const QUEUE_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;
/// iotcpd 1.1 demanded at least 1 s.
const ALARM_INTERVAL: RangeInclusive<Duration> = SHORTEST_TIMEOUT..=Duration::from_secs(3600);
/// A worker that is replaced more often than it can start serves no requests.
const MAX_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST;
const MAX_RSS: RangeInclusive<u64> = 1 << 20..=1 << 50;
const MAX_REQUESTS: RangeInclusive<u64> = 1..=1_000_000_000_000;
const QUEUE_SIZE: RangeInclusive<usize> = 0..=1_000_000;
const RETRIES: RangeInclusive<u32> = 0..=100;
/// The requests written ahead have to fit into a pipe, or the daemon holds them in memory.
const PIPELINE: RangeInclusive<usize> = 1..=1024;
/// Each of these is held in memory with its answer, if that comes before its turn.
const MAX_UNANSWERED: RangeInclusive<usize> = 1..=4096;
/// A worker that still writes after the longest rest is not late, but broken.
const REST: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
/// As many as Squid gives a helper, and more; each answer is looked up among them.
const CONCURRENCY: RangeInclusive<usize> = 1..=1024;
/// The log's channel has room for five records of this size at once.
const RECORD: RangeInclusive<usize> = 0..=100;
/// A shorter time cannot be distinguished from the daemon's own work.
const SLOW_LOG: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;
/// A frame is held in memory as a whole.
const FRAME: RangeInclusive<u64> = 1..=1 << 30;

/// Lowers one pool.
///
/// # Errors
/// All mistakes in its settings.
pub fn pool(name: &str, spec: &PoolSpec) -> Result<Lowered<Options>, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let addresses = addresses(&mut mistakes, spec);
    let listening = listening(&mut mistakes, addresses, &spec.listen, &MACHINE);
    let mut policy = policy(&mut mistakes, spec);
    let framings = framings(&mut mistakes, spec, &policy);
    policy.single_use = framings.single_use();
    let (frames, times) = (frames(&mut mistakes, spec), times(&mut mistakes, spec));
    let kept = kept(&mut mistakes, spec, &framings);
    let cache = cache(&mut mistakes, spec);
    let ready_line = ready_line(&mut mistakes, spec);
    let rules = line_rules(&mut mistakes, spec, framings.worker_request, policy.pipeline);
    let probe = probe(&mut mistakes, spec, frames.max_request, framings.worker_request, rules);
    let record = mistakes.count("record", spec.record, RECORD).unwrap_or(DEFAULT_RECORD);
    let error_reply = refusal(&mut mistakes, spec, framings.reply);
    let max_rss = mistakes.size("max-rss", spec.max_rss, &MAX_RSS);
    let process = worker(&mut mistakes, spec);
    let Some(process) = process else { return Err(mistakes.0) };
    let (front, listen) = listening.into_front(name, limit_kind(&spec.listen.access), times.stop);
    let options = Options {
        front,
        process,
        has_default_worker: spec.daemon.is_none(),
        policy,
        ready_line,
        probe,
        framings,
        line_rules: rules,
        max_request: frames.max_request,
        max_reply: frames.max_reply,
        persistent: kept.persistent,
        multiplexed: kept.multiplexed,
        cache,
        read_timeout: times.read,
        write_timeout: times.write,
        error_reply,
        half_close: half_close(spec),
        kill_timeout: times.kill,
        max_rss,
        record,
        disclosure: disclosure(spec),
        slow_log: times.slow_log,
        session_idle: times.session_idle,
        max_buffer: session::max_buffer(&mut mistakes, spec),
    };
    mistakes.into_result(Lowered { options, listen })
}

/// Returns the program of a pool, even if the pool has other mistakes; `None` if the program itself has one.
#[must_use]
pub fn program_of_pool(spec: &PoolSpec) -> Option<ProcessSpec> {
    let mut mistakes = Mistakes::default();
    worker(&mut mistakes, spec).filter(|_| mistakes.0.is_empty())
}

/// Returns the program of a worker and the environment to start it with. It is lowered last, because without it there
/// are no options, independent of all other mistakes.
fn worker(mistakes: &mut Mistakes, spec: &PoolSpec) -> Option<ProcessSpec> {
    let command = spec.daemon.as_deref().unwrap_or(DEFAULT_COMMAND);
    let mut process = process(mistakes, "daemon", command, &spec.process)?;
    process.context.terminal = spec.pty;
    Some(process)
}

/// Returns the addresses of `--ipv4`, `--ipv6` and `--port`. IPv6 alone binds no IPv4, and `--listen` alone binds only
/// its own addresses; a port binds the default address. An empty address means that there is none. A pool that other doors
/// hand connections over to listens nowhere by default.
fn addresses(mistakes: &mut Mistakes, spec: &PoolSpec) -> Vec<(KeyRef, Listen)> {
    let port = mistakes.count("port", spec.port, 0..=u16::MAX).unwrap_or(DEFAULT_PORT);
    let mut addresses = Vec::new();
    let mut add = |key, ip: IpAddr| {
        let address = ListenAddr::Tcp(SocketAddr::new(ip, port));
        addresses.push((KeyRef::key(key), Listen::plain(address)));
    };
    let ipv6 = spec.ipv6.as_ref().filter(|text| !text.is_empty());
    match &spec.ipv4 {
        Some(none) if none.is_empty() => {}
        Some(text) => match text.parse::<Ipv4Addr>() {
            Ok(ip) => add("ipv4", ip.into()),
            Err(_) => not_an_ip(mistakes, "ipv4", text, "127.0.0.1, or 0.0.0.0 for every one"),
        },
        None if ipv6.is_none() && (spec.port.is_some() || spec.listen.listen.is_empty() && !spec.handed_over) => {
            add("port", Ipv4Addr::LOCALHOST.into());
        }
        None => {}
    }
    if let Some(text) = ipv6 {
        match ipv6_at(text, port) {
            Ok(address) => addresses.push((KeyRef::key("ipv6"), Listen::plain(address))),
            Err(Some(error)) => mistakes.add_error(KeyRef::key("ipv6"), &error, "write for example ::1"),
            Err(None) => not_an_ip(mistakes, "ipv6", text, "::1, or :: for every one"),
        }
    } else if spec.ipv4.as_ref().is_some_and(String::is_empty) && spec.listen.listen.is_empty() && !spec.handed_over {
        let text = "it is empty, which means no IPv4, and there is no other address to listen on";
        mistakes.add(
            KeyRef::key("ipv4"),
            text,
            format!("give {KEY}ipv6 or {KEY}listen, or leave it out"),
        );
    }
    addresses
}

/// Parses an IPv6 address, with or without brackets, and with its interface after a `%` if it has one.
///
/// # Errors
/// `None` if it is no IPv6 address, or the mistake in its interface.
fn ipv6_at(text: &str, port: u16) -> Result<ListenAddr, Option<String>> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.split('%').next().unwrap_or(bare).parse::<Ipv6Addr>();
    if ip.is_err() || ip.is_ok_and(|ip| ip.to_ipv4_mapped().is_some()) {
        return Err(None);
    }
    format!("[{bare}]:{port}")
        .parse()
        .map_err(|error: AddrError| Some(error.to_string()))
}

fn not_an_ip(mistakes: &mut Mistakes, key: &'static str, text: &str, examples: &str) {
    let (family, other) = if key == "ipv4" {
        ("IPv4", "ipv6")
    } else {
        ("IPv6", "ipv4")
    };
    let ip = text.parse().map(|ip: IpAddr| ip.to_canonical());
    let remedy = match (ip, text.parse::<SocketAddr>()) {
        (Ok(ip), _) => format!("give it by {}", setting(other, &ip.to_string())),
        (_, Ok(address)) => format!(
            "the port is another setting: {} and {}",
            setting(key, &address.ip().to_string()),
            setting("port", &address.port().to_string())
        ),
        _ => format!("write for example {examples}"),
    };
    let text = format!("{} is not an {family} address", Quoted(text));
    mistakes.add(KeyRef::key(key), text, remedy);
}

fn policy(mistakes: &mut Mistakes, spec: &PoolSpec) -> Policy {
    let mode = session::mode(mistakes, spec);
    let mut timeout = |key, given, default| mistakes.time(key, given, &TIMEOUT).unwrap_or(default);
    let busy_timeout = match mode {
        Mode::Request => DEFAULT_BUSY_TIMEOUT,
        Mode::Session => session::DEFAULT_BUSY_TIMEOUT,
    };
    let busy_timeout = timeout("busy-timeout", spec.busy_timeout, busy_timeout);
    let start_timeout = timeout("start-timeout", spec.start_timeout, DEFAULT_START_TIMEOUT);
    if spec.start_timeout.is_some() && spec.ready_line.is_none() && spec.probe.is_none() {
        let text = format!(
            "without {KEY}ready-line and {KEY}probe a worker is started as soon as it runs, so there is nothing to wait for"
        );
        let remedy = format!("give a {KEY}ready-line or a {KEY}probe, or leave it out");
        mistakes.add(KeyRef::key("start-timeout"), text, remedy);
    }
    let pipeline = mistakes
        .count("pipeline", spec.pipeline, PIPELINE)
        .unwrap_or(DEFAULT_PIPELINE);
    let concurrency = mistakes.count("concurrency", spec.concurrency, CONCURRENCY);
    if concurrency.is_some() && pipeline > 1 {
        let text = "a worker that is told channel-IDs has all its requests at once, so none is written ahead";
        mistakes.add(
            KeyRef::key("concurrency"),
            text,
            format!("leave out {KEY}pipeline, or {KEY}concurrency for a worker that answers in order"),
        );
    }
    Policy {
        mode,
        workers: pool_size(mistakes, spec),
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
        pipeline,
        concurrency,
        // Set later, according to the framings.
        single_use: false,
        ready_line: spec.ready_line.is_some(),
        start_timeout,
        max_requests: mistakes.count("max-requests", spec.max_requests, MAX_REQUESTS),
        max_age: mistakes.time("max-age", spec.max_age, &MAX_AGE),
        probe_interval: probe_interval(mistakes, spec),
        rest: rest(mistakes, spec, pipeline, concurrency),
    }
}

/// Returns the time for which a worker rests after an answer. Adds a mistake for settings that exclude a rest.
fn rest(mistakes: &mut Mistakes, spec: &PoolSpec, pipeline: usize, concurrency: Option<usize>) -> Duration {
    let rest = mistakes.time("rest", spec.rest, &REST).unwrap_or_default();
    let text = match concurrency {
        Some(_) => "a worker that is told channel-IDs shows by them what its answer is to; it needs no rest",
        None if pipeline > 1 => "a worker that is written to ahead has no time in which it has nothing to do",
        None => return rest,
    };
    if !rest.is_zero() {
        let remedy = format!("leave it out, or leave out {KEY}pipeline or {KEY}concurrency");
        mistakes.add(KeyRef::key("rest"), text, remedy);
    }
    rest
}

/// The limits on the messages.
struct Frames {
    max_request: usize,
    max_reply: usize,
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
    Frames { max_request, max_reply }
}

const fn disclosure(spec: &PoolSpec) -> Disclosure {
    if spec.confidential {
        Disclosure::Nothing
    } else {
        Disclosure::Excerpts
    }
}

/// The time-outs that the shell applies, not the dispatcher.
struct Times {
    read: Duration,
    write: Duration,
    kill: Duration,
    stop: Duration,
    slow_log: Option<Duration>,
    session_idle: Option<Duration>,
}

fn times(mistakes: &mut Mistakes, spec: &PoolSpec) -> Times {
    let mut timeout = |key, given, default| mistakes.time(key, given, &TIMEOUT).unwrap_or(default);
    Times {
        read: timeout("read-timeout", spec.read_timeout, DEFAULT_CLIENT_TIMEOUT),
        write: timeout("write-timeout", spec.write_timeout, DEFAULT_CLIENT_TIMEOUT),
        kill: timeout("kill-timeout", spec.kill_timeout, DEFAULT_KILL_TIMEOUT),
        stop: timeout("stop-timeout", spec.stop_timeout, DEFAULT_STOP_TIMEOUT),
        slow_log: mistakes.time("slow-log", spec.slow_log, &SLOW_LOG),
        session_idle: session::idle_timeout(mistakes, spec),
    }
}

/// The limits of connections that stay, by their kinds; `None` for a kind that the pool does not offer.
#[derive(Default)]
struct Kept {
    persistent: Option<KeptLimits>,
    multiplexed: Option<KeptLimits>,
}

/// Returns the settings of kept connections. Adds a mistake for settings that need or exclude them.
fn kept(mistakes: &mut Mistakes, spec: &PoolSpec, framings: &Framings) -> Kept {
    let idle_timeout = mistakes.time("idle-timeout", spec.idle_timeout, &TIMEOUT);
    let max_unanswered = mistakes.count("max-unanswered", spec.max_unanswered, MAX_UNANSWERED);
    if spec.mode == Some(WrittenMode::Session) {
        // A session needs none of these settings for its connection; `session` reports the keys that it excludes.
        return Kept::default();
    }
    if spec.persistent {
        check_persistent(mistakes, spec, framings.reply);
    }
    let limits = |default: usize| KeptLimits {
        idle_timeout: idle_timeout.unwrap_or(DEFAULT_IDLE_TIMEOUT),
        max_unanswered: max_unanswered.unwrap_or(default),
    };
    let speak_lines = (framings.request, framings.reply) == (Framing::Line, Framing::Line);
    let is_multiplexed = speak_lines && !spec.no_multiplex;
    if !spec.persistent && !is_multiplexed {
        let given = [
            ("idle-timeout", spec.idle_timeout.is_some()),
            ("max-unanswered", spec.max_unanswered.is_some()),
        ];
        for (key, _) in given.into_iter().filter(|(_, given)| *given) {
            let text =
                format!("without {KEY}persistent each connection is closed after its answer, so this decides nothing");
            let remedy = format!("give {KEY}persistent as well, or leave it out");
            mistakes.add(KeyRef::key(key), text, remedy);
        }
    }
    Kept {
        persistent: spec.persistent.then(|| limits(DEFAULT_MAX_UNANSWERED)),
        multiplexed: is_multiplexed.then(|| limits(DEFAULT_MAX_UNANSWERED_MULTIPLEXED)),
    }
}

/// Adds a mistake for each setting that connections with answers in the order of their requests exclude.
fn check_persistent(mistakes: &mut Mistakes, spec: &PoolSpec, reply_framing: Framing) {
    if spec.half_close == Some(Written::HangUp) {
        let text = format!("with {KEY}persistent the end of a client's input means that it has no more requests");
        mistakes.add(KeyRef::key("half-close"), text, "leave one of the two out");
    }
    let wrong = match spec.error_reply.as_ref().map(|reply| reply.0.split_last()) {
        Some(None) => Some((
            "a refused request needs an answer in its place, or all behind it would be misread",
            "write what a refused client is told, or leave it out",
        )),
        // In other framings the text is framed.
        Some(Some((last, line))) if reply_framing == Framing::Line && (*last != b'\n' || line.contains(&b'\n')) => {
            Some((
                "a refused request needs one line in its place, or all behind it would be misread",
                "write one line that ends in \\n, or leave it out",
            ))
        }
        Some(Some(_)) | None => None,
    };
    if let Some((text, remedy)) = wrong {
        let text = format!("with {KEY}persistent {text}");
        mistakes.add(KeyRef::key("error-reply"), text, remedy);
    }
}

/// Returns the ready line. Adds a mistake unless it is one line that can be recognized.
fn ready_line(mistakes: &mut Mistakes, spec: &PoolSpec) -> Option<Vec<u8>> {
    let line = spec.ready_line.as_ref()?;
    // White space at the end of a line is not compared.
    let wrong = if line.trim_ascii_end().is_empty() {
        Some((
            "an empty line would be taken for readiness",
            "write what the worker prints",
        ))
    } else if line.contains(['\n', '\r']) {
        Some(("it is more than one line", "write one line, without its line end"))
    } else {
        None
    };
    if let Some((text, remedy)) = wrong {
        mistakes.add(KeyRef::key("ready-line"), text, remedy);
    }
    Some(line.clone().into_bytes())
}

fn half_close(spec: &PoolSpec) -> HalfClose {
    match spec.half_close {
        Some(Written::HangUp) => HalfClose::HangUp,
        Some(Written::Answer) | None => HalfClose::Answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::spec::listen::ListenSpec;
    use crate::config::units::{Escaped, Size, Time, Whole};
    use crate::doors::pool::options::PoolSize;
    use crate::net::limits::ConnectionLimits;
    use crate::process::spec::ProcessSpec;

    fn lower(spec: &PoolSpec) -> Options {
        pool("pool", spec).unwrap().options
    }

    fn mistakes(spec: &PoolSpec) -> Vec<String> {
        pool("pool", spec)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn addresses(ipv4: Option<&str>, ipv6: Option<&str>, port: Option<i64>, listen: &[&str]) -> Vec<String> {
        let listen = ListenSpec {
            listen: listen.iter().map(ToString::to_string).collect(),
            ..ListenSpec::default()
        };
        let (ipv4, ipv6, port) = (ipv4.map(Into::into), ipv6.map(Into::into), port.map(Whole));
        let options = lower(&PoolSpec {
            ipv4,
            ipv6,
            port,
            listen,
            ..PoolSpec::default()
        });
        options.front.listen.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_are_those_of_iotcpd_1_1() {
        let options = lower(&PoolSpec::default());
        let command = ["squidGuard", "-c", "sg/adblock.conf"].map(Into::into).to_vec();
        assert_eq!(options.process, ProcessSpec::new(command).unwrap());
        assert_eq!(options.front.listen, ["127.0.0.1:9991".parse().unwrap()]);
        assert_eq!(options.error_reply, b"ERR\n");
        assert_eq!((options.max_request, options.max_reply), (65_536, 1_048_576));
        assert_eq!(
            options.front.connection_limits,
            ConnectionLimits {
                total: 4096,
                per_address: None
            }
        );
        assert_eq!(
            (options.half_close, options.front.backlog, options.max_rss),
            (HalfClose::Answer, 1024, None)
        );
        assert_eq!(
            (options.kill_timeout, options.front.stop_timeout),
            (Duration::from_secs(3), Duration::from_secs(30))
        );
        assert_eq!((options.record, options.slow_log), (8, None));
        assert_eq!(options.framings, Framings::default());
        let policy = Policy {
            mode: Mode::Request,
            workers: PoolSize::fixed(4),
            queue_size: 1024,
            queue_timeout: Duration::from_millis(500),
            busy_timeout: Duration::from_secs(15),
            retries: 1,
            pipeline: 1,
            concurrency: None,
            single_use: false,
            alarm_interval: Duration::from_secs(2),
            ready_line: false,
            start_timeout: Duration::from_secs(60),
            max_requests: None,
            max_age: None,
            probe_interval: None,
            rest: Duration::ZERO,
        };
        assert_eq!((&options.policy, options.probe), (&policy, None));
    }

    #[test]
    fn addresses_add_up_and_no_other_address_is_bound() {
        assert_eq!(addresses(None, None, Some(80), &[]), ["127.0.0.1:80"]);
        assert_eq!(addresses(Some("0.0.0.0"), None, None, &[]), ["0.0.0.0:9991"]);
        assert_eq!(addresses(None, Some("::1"), None, &[]), ["[::1]:9991"]);
        assert_eq!(addresses(None, Some("[::1]"), Some(80), &[]), ["[::1]:80"]);
        assert_eq!(
            addresses(Some("127.0.0.2"), Some("::1"), Some(1), &[]),
            ["127.0.0.2:1", "[::1]:1"]
        );
        assert_eq!(addresses(None, None, None, &["unix:/x"]), ["unix:/x"]);
        assert_eq!(
            addresses(None, None, Some(80), &["unix:/x"]),
            ["127.0.0.1:80", "unix:/x"]
        );
        assert_eq!(
            addresses(None, Some("::1"), None, &["unix:/x", "127.0.0.1:7"]),
            ["[::1]:9991", "unix:/x", "127.0.0.1:7"]
        );
        assert_eq!(addresses(None, None, None, &["127.0.0.1:0", "127.0.0.1:0"]).len(), 2);
    }

    /// Sets one option, so that a test can iterate over all of them.
    type Set<T> = fn(&mut PoolSpec, T);

    fn check<T: Copy>(key: &str, set: Set<T>, allowed: &[T], refused: &[T], limits: &str) {
        let with = |value: T| {
            let mut spec = PoolSpec {
                ready_line: Some("up".into()),
                ..PoolSpec::default()
            };
            set(&mut spec, value);
            spec
        };
        for value in allowed {
            assert!(pool("pool", &with(*value)).is_ok(), "{key}");
        }
        for value in refused {
            let told = mistakes(&with(*value));
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(&format!("{key}: ")), "{told:?}");
            assert!(
                told[0].ends_with(&format!(" is out of range; write a value from {limits}")),
                "{told:?}"
            );
        }
    }

    #[test]
    fn counts_have_ranges() {
        let count = |key, set: Set<i64>, (least, most): (i64, i64)| {
            let limits = format!("{least} to {most}");
            check(
                key,
                set,
                &[least, most],
                &[least - 1, most + 1, i64::MIN, i64::MAX],
                &limits,
            );
        };
        count("num-daemons", |spec, n| spec.num_daemons = Some(Whole(n)), (1, 4096));
        count("max-workers", |spec, n| spec.max_workers = Some(Whole(n)), (1, 4096));
        count(
            "min-workers",
            |spec, n| (spec.min_workers, spec.max_workers) = (Some(Whole(n)), Some(Whole(4096))),
            (1, 4096),
        );
        count(
            "spare-workers",
            |spec, n| (spec.spare_workers, spec.max_workers) = (Some(Whole(n)), Some(Whole(4096))),
            (0, 4096),
        );
        count("port", |spec, n| spec.port = Some(Whole(n)), (0, 65_535));
        count("queue-size", |spec, n| spec.queue_size = Some(Whole(n)), (0, 1_000_000));
        count("retries", |spec, n| spec.retries = Some(Whole(n)), (0, 100));
        count("pipeline", |spec, n| spec.pipeline = Some(Whole(n)), (1, 1024));
        count(
            "max-unanswered",
            |spec, n| (spec.persistent, spec.max_unanswered) = (true, Some(Whole(n))),
            (1, 4096),
        );
        count("concurrency", |spec, n| spec.concurrency = Some(Whole(n)), (1, 1024));
        count("record", |spec, n| spec.record = Some(Whole(n)), (0, 100));
        count(
            "max-requests",
            |spec, n| spec.max_requests = Some(Whole(n)),
            (1, 1_000_000_000_000),
        );
        count(
            "backlog",
            |spec, n| spec.listen.sockets.backlog = Some(Whole(n)),
            (1, 65_535),
        );
        count(
            "max-connections",
            |spec, n| spec.listen.access.max_connections = Some(Whole(n)),
            (1, 1_000_000),
        );
        count("nice", |spec, n| spec.process.nice = Some(Whole(n)), (-20, 19));
        count(
            "limit-open-files",
            |spec, n| spec.process.limit_open_files = Some(Whole(n)),
            (3, 1 << 30),
        );
        count(
            "limit-processes",
            |spec, n| spec.process.limit_processes = Some(Whole(n)),
            (1, 1 << 22),
        );
    }

    #[test]
    fn times_have_ranges() {
        let time = |key, set: Set<Time>, least: &str, most: &str| {
            let (start, end): (Time, Time) = (least.parse().unwrap(), most.parse().unwrap());
            let step = Duration::from_nanos(1);
            let refused = [Time(Duration::ZERO), Time(start.0 - step), Time(end.0 + step)];
            check(key, set, &[start, end], &refused, &format!("{least} to {most}"));
        };
        time("busy-timeout", |spec, t| spec.busy_timeout = Some(t), "100ms", "366d");
        time("start-timeout", |spec, t| spec.start_timeout = Some(t), "100ms", "366d");
        time("read-timeout", |spec, t| spec.read_timeout = Some(t), "100ms", "366d");
        time("write-timeout", |spec, t| spec.write_timeout = Some(t), "100ms", "366d");
        time("kill-timeout", |spec, t| spec.kill_timeout = Some(t), "100ms", "366d");
        time("stop-timeout", |spec, t| spec.stop_timeout = Some(t), "100ms", "366d");
        time("queue-timeout", |spec, t| spec.queue_timeout = Some(t), "1ms", "366d");
        time("alarm-interval", |spec, t| spec.alarm_interval = Some(t), "100ms", "1h");
        time(
            "worker-idle-timeout",
            |spec, t| (spec.worker_idle_timeout, spec.max_workers) = (Some(t), Some(Whole(4096))),
            "100ms",
            "366d",
        );
        time("slow-log", |spec, t| spec.slow_log = Some(t), "1ms", "366d");
        let probed = |spec: &mut PoolSpec, t| {
            (spec.probe, spec.probe_expect) = (Some("q".into()), Some("a".into()));
            spec.probe_interval = Some(t);
        };
        time("probe-interval", probed, "1s", "366d");
        time("max-age", |spec, t| spec.max_age = Some(t), "1s", "366d");
        let minute = Duration::from_secs(60);
        let over = [Time(minute + Duration::from_nanos(1))];
        let within = [Time(Duration::ZERO), Time(minute)];
        check("rest", |spec, t| spec.rest = Some(t), &within, &over, "0s to 1m");
    }

    #[test]
    fn sizes_have_ranges() {
        let size = |key, set: Set<Size>, (least, most): (u64, u64)| {
            let limits = format!("{} to {}", Size(least), Size(most));
            check(
                key,
                set,
                &[Size(least), Size(most)],
                &[Size(least - 1), Size(most + 1)],
                &limits,
            );
        };
        size("max-request", |spec, n| spec.max_request = Some(n), (1, 1 << 30));
        // The ready line of `check` is two bytes long, so one byte would be another mistake.
        check(
            "max-reply",
            |spec, n| spec.max_reply = Some(n),
            &[Size(2), Size(1 << 30)],
            &[Size((1 << 30) + 1)],
            "1 to 1GiB",
        );
        size("max-rss", |spec, n| spec.max_rss = Some(n), (1 << 20, 1 << 50));
        size(
            "limit-memory",
            |spec, n| spec.process.limit_memory = Some(n),
            (1 << 20, 1 << 50),
        );
    }

    #[test]
    fn conflicting_settings_are_reported() {
        let told = |change: fn(&mut PoolSpec)| {
            let mut spec = PoolSpec::default();
            change(&mut spec);
            let told = mistakes(&spec);
            assert_eq!(told.len(), 1, "{told:?}");
            told[0].clone()
        };
        assert!(
            told(|spec| spec.start_timeout = Some(Time(Duration::from_secs(1))))
                .ends_with("give a ready-line or a probe, or leave it out")
        );
        assert!(told(|spec| spec.ready_line = Some(String::new())).starts_with("ready-line: an empty line"));
        assert!(
            told(|spec| spec.ready_line = Some("up\n".into())).starts_with("ready-line: it is more than one line; ")
        );
        assert!(told(|spec| spec.ready_line = Some(" ".into())).starts_with("ready-line: an empty line"));
        let both = told(|spec| (spec.pipeline, spec.concurrency) = (Some(Whole(2)), Some(Whole(1))));
        assert_eq!(
            both,
            "concurrency: a worker that is told channel-IDs has all its requests at once, so none is written ahead; \
             leave out pipeline, or concurrency for a worker that answers in order"
        );
        let rest = Some(Time(Duration::from_millis(5)));
        let ahead = told_of_rest(rest, Some(2), None);
        assert!(
            ahead[0].starts_with("rest: a worker that is written to ahead"),
            "{ahead:?}"
        );
        let at_once = told_of_rest(rest, None, Some(1));
        assert!(
            at_once[0].starts_with("rest: a worker that is told channel-IDs"),
            "{at_once:?}"
        );
        assert_eq!(told_of_rest(Some(Time(Duration::ZERO)), Some(2), None), [""; 0]);
        let long = told(|spec| spec.error_reply = Some(Escaped(vec![b'x'; 65_537])));
        assert_eq!(long, "error-reply: it is 65537 bytes long; write at most 65536 bytes");
        let ipv6 = told(|spec| spec.ipv6 = Some("127.0.0.1".into()));
        assert_eq!(
            ipv6,
            "ipv6: `127.0.0.1` is not an IPv6 address; give it by ipv4 = \"127.0.0.1\""
        );
        let twice = told(|spec| (spec.port, spec.listen.listen) = (Some(Whole(7)), vec!["127.0.0.1:7".into()]));
        assert_eq!(
            twice,
            "listen: 127.0.0.1:7 and 127.0.0.1:7 are in each other's way; leave out one of the two"
        );
    }

    fn told_of_rest(rest: Option<Time>, pipeline: Option<i64>, concurrency: Option<i64>) -> Vec<String> {
        let spec = PoolSpec {
            rest,
            pipeline: pipeline.map(Whole),
            concurrency: concurrency.map(Whole),
            ..PoolSpec::default()
        };
        let mistakes = pool("pool", &spec).err().unwrap_or_default();
        mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_refusal_on_a_kept_connection_is_one_answer() {
        let told = |text: &[u8], framing: Option<&str>| {
            let spec = PoolSpec {
                persistent: true,
                error_reply: Some(Escaped(text.to_vec())),
                reply_framing: framing.map(|text| text.parse().unwrap()),
                ..PoolSpec::default()
            };
            let mistakes = pool("pool", &spec).err().unwrap_or_default();
            mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for text in ["BH", "\nBH", "a\nb\n", "a\n\n"] {
            let told = told(text.as_bytes(), None);
            assert_eq!(told.len(), 1, "{text:?}: {told:?}");
            let (key, remedy) = ("error-reply: ", "write one line that ends in \\n, or leave it out");
            assert!(told[0].starts_with(key) && told[0].ends_with(remedy), "{told:?}");
        }
        assert_eq!(told(b"BH\n", None), [""; 0]);
        assert_eq!(told(b"a\nb", Some("netstring")), [""; 0]);
    }

    #[test]
    fn a_connection_carries_many_requests_where_clients_speak_lines_unless_that_is_refused() {
        let kept = |change: fn(&mut PoolSpec)| {
            let mut spec = PoolSpec::default();
            change(&mut spec);
            let Options {
                persistent,
                multiplexed,
                ..
            } = lower(&spec);
            [persistent, multiplexed].map(|limits| limits.map(|limits| limits.max_unanswered))
        };
        let netstring = || Some("netstring".parse().unwrap());
        assert_eq!(kept(|_| {}), [None, Some(512)]);
        assert_eq!(kept(|spec| spec.persistent = true), [Some(64), Some(512)]);
        let all = kept(|spec| (spec.persistent, spec.max_unanswered) = (true, Some(Whole(7))));
        assert_eq!(all, [Some(7), Some(7)]);
        assert_eq!(kept(|spec| spec.no_multiplex = true), [None, None]);
        assert_eq!(kept(|spec| spec.mode = Some(WrittenMode::Session)), [None, None]);
        let workers = kept(|spec| {
            spec.worker_request_framing = Some("netstring".parse().unwrap());
            spec.worker_reply_framing = Some("netstring".parse().unwrap());
        });
        assert_eq!(workers, [None, Some(512)], "whatever the workers speak");
        for (request, reply) in [(netstring(), None), (None, netstring()), (netstring(), netstring())] {
            let options = lower(&PoolSpec {
                request_framing: request,
                reply_framing: reply,
                ..PoolSpec::default()
            });
            assert_eq!(options.multiplexed, None);
        }
        let told = mistakes(&PoolSpec {
            no_multiplex: true,
            idle_timeout: Some(Time(Duration::from_secs(9))),
            ..PoolSpec::default()
        });
        assert!(told[0].starts_with("idle-timeout: without persistent"), "{told:?}");
    }

    #[test]
    fn a_refusal_may_be_empty() {
        let options = lower(&PoolSpec {
            error_reply: Some(Escaped(Vec::new())),
            ..PoolSpec::default()
        });
        assert!(options.error_reply.is_empty());
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let spec = PoolSpec {
            daemon: Some("'".into()),
            num_daemons: Some(Whole(0)),
            queue_timeout: Some(Time(Duration::ZERO)),
            max_request: Some(Size(0)),
            ipv4: Some("localhost".into()),
            ..PoolSpec::default()
        };
        let told = mistakes(&spec);
        for key in ["daemon", "num-daemons", "queue-timeout", "max-request", "ipv4"] {
            assert!(
                told.iter().any(|line| line.starts_with(&format!("{key}: "))),
                "{key}: {told:?}"
            );
        }
        assert_eq!(told.len(), 5);
    }
}
