//! The keys that `mode = session` excludes: all that concern requests and replies, which a session does not have.

use std::time::Duration;

use super::exec::{DEFAULT_MAX_BUFFER, MAX_BUFFER};
use super::pool::TIMEOUT;
use super::{KEY, KeyRef, LONGEST, Mistakes, setting};
use crate::config::spec::pool::{Mode as Written, PoolSpec};
use crate::doors::pool::options::Mode;

/// The longest session unless `busy-timeout` is set: no limit in practice.
pub(super) const DEFAULT_BUSY_TIMEOUT: Duration = LONGEST;

/// A key without effect in a session, the test if it is set, and the reason.
type Ruled = (&'static str, fn(&PoolSpec) -> bool, &'static str);

const RULED_OUT: &[Ruled] = &[
    (
        "pipeline",
        |spec| spec.pipeline.is_some(),
        "a worker has one session in its life",
    ),
    (
        "rest",
        |spec| spec.rest.is_some(),
        "a worker has one session in its life",
    ),
    ("persistent", |spec| spec.persistent, "a connection is one session"),
    ("no-multiplex", |spec| spec.no_multiplex, "a connection is one session"),
    (
        "max-unanswered",
        |spec| spec.max_unanswered.is_some(),
        "there are no requests to be answered",
    ),
    (
        "concurrency",
        |spec| spec.concurrency.is_some(),
        "a worker has one session in its life",
    ),
    // The keys that depend on the next two demand them, so they need no line of their own.
    (
        "probe",
        |spec| spec.probe.is_some(),
        "a worker has one session in its life, and that is its client's",
    ),
    (
        "cache-size",
        |spec| spec.cache_size.is_some(),
        "there are no answers to be kept",
    ),
    (
        "max-requests",
        |spec| spec.max_requests.is_some(),
        "a worker has one session in its life",
    ),
    (
        "request-framing",
        |spec| spec.request_framing.is_some(),
        "bytes pass as they come",
    ),
    (
        "reply-framing",
        |spec| spec.reply_framing.is_some(),
        "bytes pass as they come",
    ),
    (
        "worker-request-framing",
        |spec| spec.worker_request_framing.is_some(),
        "bytes pass as they come",
    ),
    (
        "worker-reply-framing",
        |spec| spec.worker_reply_framing.is_some(),
        "bytes pass as they come",
    ),
    (
        "worker-line-end",
        |spec| spec.worker_line_end.is_some(),
        "bytes pass as they come",
    ),
    ("allow-lone-cr", |spec| spec.allow_lone_cr, "bytes pass as they come"),
    (
        "allow-blank-lines",
        |spec| spec.allow_blank_lines,
        "bytes pass as they come",
    ),
    (
        "refuse-unicode-line-ends",
        |spec| spec.refuse_unicode_line_ends,
        "bytes pass as they come",
    ),
    (
        "max-request",
        |spec| spec.max_request.is_some(),
        "bytes pass as they come",
    ),
    ("max-reply", |spec| spec.max_reply.is_some(), "bytes pass as they come"),
    (
        "read-timeout",
        |spec| spec.read_timeout.is_some(),
        "no request is waited for",
    ),
    (
        "half-close",
        |spec| spec.half_close.is_some(),
        "the end of what a client sends is passed on to the worker",
    ),
    (
        "record",
        |spec| spec.record.is_some(),
        "there are no requests to be recorded",
    ),
    (
        "slow-log",
        |spec| spec.slow_log.is_some(),
        "a session takes as long as it takes",
    ),
];

/// Returns the silence after which a session ends. A kept connection has a default; a session has none, because people
/// think, and a program may take its time.
pub(super) fn idle_timeout(mistakes: &mut Mistakes, spec: &PoolSpec) -> Option<Duration> {
    let in_session = spec.mode == Some(Written::Session);
    let given = spec.idle_timeout.filter(|_| in_session);
    mistakes.time("idle-timeout", given, &TIMEOUT)
}

/// Returns the number of bytes of a session that are held, with the range of an exec door.
pub(super) fn max_buffer(mistakes: &mut Mistakes, spec: &PoolSpec) -> usize {
    let size = mistakes.size("max-buffer", spec.max_buffer, &MAX_BUFFER);
    if spec.max_buffer.is_some() && spec.mode != Some(Written::Session) {
        let text = format!("it is about sessions: requests and replies have {KEY}max-request and {KEY}max-reply");
        let remedy = format!("give {} as well, or leave it out", setting("mode", "session"));
        mistakes.add(KeyRef::key("max-buffer"), text, remedy);
    }
    usize::try_from(size.unwrap_or(DEFAULT_MAX_BUFFER)).unwrap_or(usize::MAX)
}

/// Returns the mode. Adds a mistake for each key without effect in it.
pub(super) fn mode(mistakes: &mut Mistakes, spec: &PoolSpec) -> Mode {
    match spec.mode {
        None | Some(Written::Request) => return Mode::Request,
        Some(Written::Session) => {}
    }
    for (key, is_given, reason) in RULED_OUT {
        if is_given(spec) {
            let text = format!("it means nothing to a session: {reason}");
            let remedy = format!("leave it out, or leave out {KEY}mode session");
            mistakes.add(KeyRef::key(key), text, remedy);
        }
    }
    Mode::Session
}

#[cfg(test)]
mod tests {
    use super::super::pool::pool;
    use super::*;
    use crate::config::units::{Size, Time, Whole};

    fn sessions() -> PoolSpec {
        PoolSpec {
            mode: Some(Written::Session),
            ..PoolSpec::default()
        }
    }

    #[test]
    fn a_session_has_no_limit_by_default() {
        let options = pool("pool", &sessions()).unwrap().options;
        assert_eq!(
            (options.policy.mode, options.policy.busy_timeout),
            (Mode::Session, LONGEST)
        );
        let hour = Time(Duration::from_secs(3600));
        let limited = PoolSpec {
            busy_timeout: Some(hour),
            ..sessions()
        };
        assert_eq!(pool("pool", &limited).unwrap().options.policy.busy_timeout, hour.0);
        assert_eq!((options.session_idle, options.max_buffer), (None, 256 << 10));
        let silent = PoolSpec {
            idle_timeout: Some(hour),
            ..sessions()
        };
        assert_eq!(pool("pool", &silent).unwrap().options.session_idle, Some(hour.0));
        let requests = pool(
            "pool",
            &PoolSpec {
                mode: Some(Written::Request),
                ..PoolSpec::default()
            },
        )
        .unwrap();
        assert_eq!(requests.options, pool("pool", &PoolSpec::default()).unwrap().options);
    }

    #[test]
    fn keys_of_sessions_need_the_session_mode() {
        let told = pool(
            "pool",
            &PoolSpec {
                max_buffer: Some(Size(1 << 20)),
                ..PoolSpec::default()
            },
        );
        let mistake = &told.unwrap_err()[0];
        assert_eq!(
            mistake.to_string(),
            "max-buffer: it is about sessions: requests and replies have max-request and max-reply; give mode = \"session\" \
             as well, or leave it out"
        );
        assert_eq!(
            mistake.for_flags(),
            "--max-buffer: it is about sessions: requests and replies have --max-request and --max-reply; give --mode \
             session as well, or leave it out"
        );
        let spec = PoolSpec {
            max_buffer: Some(Size(1 << 20)),
            ..sessions()
        };
        assert_eq!(pool("pool", &spec).unwrap().options.max_buffer, 1 << 20);
    }

    #[test]
    fn keys_without_meaning_in_a_session_are_reported_one_by_one() {
        let time = Some(Time(Duration::from_secs(9)));
        let lines = Some(crate::config::framing::Framing(
            crate::doors::pool::options::Framing::Line,
        ));
        let spec = PoolSpec {
            pipeline: Some(Whole(2)),
            rest: time,
            persistent: true,
            no_multiplex: true,
            concurrency: Some(Whole(2)),
            probe: Some("x".into()),
            probe_expect: Some("x".into()),
            cache_size: Some(Size(1 << 20)),
            max_unanswered: Some(Whole(2)),
            request_framing: lines,
            reply_framing: lines,
            worker_request_framing: lines,
            worker_reply_framing: lines,
            worker_line_end: Some(crate::config::spec::pool::LineEnd::Lf),
            allow_lone_cr: true,
            allow_blank_lines: true,
            refuse_unicode_line_ends: true,
            max_requests: Some(Whole(2)),
            max_request: Some(Size(2)),
            max_reply: Some(Size(2)),
            read_timeout: time,
            half_close: Some(crate::config::spec::pool::HalfClose::Answer),
            record: Some(Whole(2)),
            slow_log: time,
            ..sessions()
        };
        let told = pool("pool", &spec).unwrap_err();
        // Some of these keys also exclude each other, which is another mistake.
        let of_sessions = told
            .iter()
            .filter(|mistake| mistake.text.starts_with("it means nothing"));
        let keys: Vec<_> = of_sessions.map(|mistake| mistake.origin.key).collect();
        assert_eq!(keys, RULED_OUT.iter().map(|(key, ..)| *key).collect::<Vec<_>>());
        assert_eq!(
            told[0].to_string(),
            "pipeline: it means nothing to a session: a worker has one session in its life; leave it out, or leave out \
             mode session"
        );
    }
}
