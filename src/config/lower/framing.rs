//! The framings of a pool's messages: which of them can be combined, and with which other settings.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{KEY, KeyRef, LONGEST, Mistakes};
use crate::config::framing::Framing as Written;
use crate::config::spec::pool::{HalfClose, LineEnd as WrittenEnd, PoolSpec};
use crate::config::units::Time;
use crate::doors::pool::options::{Framing, Framings, LineEnd, LineRules, Policy};

/// Shorter pauses happen by themselves, whenever a worker does not get a processor.
const QUIET: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;

/// Returns the framings of a pool with the given policy.
pub(super) fn framings(mistakes: &mut Mistakes, spec: &PoolSpec, policy: &Policy) -> Framings {
    let framings = written(spec);
    for (key, framing) in [
        ("request-framing", spec.request_framing),
        ("worker-request-framing", spec.worker_request_framing),
    ] {
        if let Some(Written(Framing::Quiet(_))) = framing {
            let text = "a request that pauses on its way is not over, so quiet does not tell where one ends";
            mistakes.add(KeyRef::key(key), text, "write another framing, for example eof");
        }
    }
    if let Framing::Quiet(time) = framings.worker_reply {
        quiet(mistakes, spec, framings, policy, time);
    }
    if matches!(framings.reply, Framing::Quiet(_)) && framings.worker_reply != framings.reply {
        let text =
            "to a client quiet is eof, and no reply of these workers is over by this pause, so it decides nothing";
        mistakes.add(KeyRef::key("reply-framing"), text, "write eof");
    }
    if framings.single_use() {
        single_use(mistakes, spec, policy);
    } else if matches!(framings.worker_reply, Framing::Quiet(_)) && policy.pipeline > 1 {
        let text = "a pause cannot tell the replies to several requests apart";
        mistakes.add(
            KeyRef::key("pipeline"),
            text,
            "leave it out, or give the workers another framing",
        );
    }
    if policy.concurrency.is_some()
        && (framings.worker_request, framings.worker_reply) != (Framing::Line, Framing::Line)
    {
        let text = "channel-IDs stand before lines, and these workers do not read or write lines";
        let remedy = format!("leave it out, or set {KEY}worker-request-framing and {KEY}worker-reply-framing to line");
        mistakes.add(KeyRef::key("concurrency"), text, remedy);
    }
    if framings.request == Framing::Eof && spec.half_close == Some(HalfClose::HangUp) {
        let text = format!("with {KEY}request-framing eof every client ends its input before its answer has come");
        mistakes.add(KeyRef::key("half-close"), text, "leave it out");
    }
    for (key, framing) in [("request-framing", framings.request), ("reply-framing", framings.reply)] {
        if spec.persistent && !framing.tells_the_end() {
            let text = format!("with {KEY}{key} {framing} the end of the connection is what ends a message");
            mistakes.add(
                KeyRef::key("persistent"),
                text,
                "leave it out, or give the clients another framing",
            );
        }
    }
    framings
}

/// Returns the rules for the lines that workers get, for framings that have lines. `pipeline` is the number of requests
/// that may be written ahead to a worker.
///
/// A worker for which a line with a CR is not empty would read past the end of an `until-empty-line` request with CR
/// LF, into the next request. If that request is there already, its answer would go to the wrong client, so with a
/// pipeline the lines end in LF by default.
pub(super) fn line_rules(mistakes: &mut Mistakes, spec: &PoolSpec, framing: Framing, pipeline: usize) -> LineRules {
    let reads = |known: &[Framing]| known.contains(&framing);
    let (lines, up_to_an_empty_one) = ([Framing::Line, Framing::UntilEmptyLine], [Framing::UntilEmptyLine]);
    for (key, given, has_a_meaning) in [
        ("worker-line-end", spec.worker_line_end.is_some(), reads(&lines)),
        ("allow-lone-cr", spec.allow_lone_cr, reads(&lines)),
        ("allow-blank-lines", spec.allow_blank_lines, reads(&up_to_an_empty_one)),
        ("refuse-unicode-line-ends", spec.refuse_unicode_line_ends, reads(&lines)),
    ] {
        if given && !has_a_meaning {
            let text =
                format!("with {KEY}worker-request-framing {framing} no such lines are read, so this decides nothing");
            mistakes.add(KeyRef::key(key), text, "leave it out");
        }
    }
    LineRules {
        allow_lone_cr: spec.allow_lone_cr,
        allow_blank_lines: spec.allow_blank_lines,
        refuse_unicode: spec.refuse_unicode_line_ends,
        end: match spec.worker_line_end {
            None if framing == Framing::UntilEmptyLine && pipeline > 1 => LineEnd::Lf,
            None | Some(WrittenEnd::AsIs) => LineEnd::AsItCame,
            Some(WrittenEnd::Lf) => LineEnd::Lf,
            Some(WrittenEnd::Crlf) => LineEnd::CrLf,
        },
    }
}

/// Returns the framings as written. The framing towards a worker is that of the client by default.
fn written(spec: &PoolSpec) -> Framings {
    let framing = |given: Option<Written>, default| given.map_or(default, |Written(framing)| framing);
    let (request, reply) = (
        framing(spec.request_framing, Framing::Line),
        framing(spec.reply_framing, Framing::Line),
    );
    Framings {
        request,
        reply,
        worker_request: framing(spec.worker_request_framing, request),
        worker_reply: framing(spec.worker_reply_framing, reply),
    }
}

fn quiet(mistakes: &mut Mistakes, spec: &PoolSpec, framings: Framings, policy: &Policy, time: Duration) {
    let key = match spec.worker_reply_framing {
        Some(_) => "worker-reply-framing",
        None => "reply-framing",
    };
    let text = if !QUIET.contains(&time) {
        format!("a pause of {} is out of range", Time(time))
    } else if time >= policy.busy_timeout {
        format!(
            "a pause of {} is not over before the {KEY}busy-timeout {}",
            Time(time),
            Time(policy.busy_timeout)
        )
    } else if framings.worker_request == Framing::Eof {
        let text = "a worker whose input ends with its request ends its output as well";
        return mistakes.add(KeyRef::key(key), text, "write eof here");
    } else {
        return;
    };
    mistakes.add(
        KeyRef::key(key),
        text,
        format!("write a time from 1ms to less than {KEY}busy-timeout, for example quiet=20ms"),
    );
}

fn single_use(mistakes: &mut Mistakes, spec: &PoolSpec, policy: &Policy) {
    let text = "with framing eof a worker takes one request and ends";
    for (key, is_too_much) in [
        ("pipeline", policy.pipeline > 1),
        ("max-requests", spec.max_requests.is_some()),
        ("rest", !policy.rest.is_zero()),
        ("probe", spec.probe.is_some()),
    ] {
        if is_too_much {
            mistakes.add(
                KeyRef::key(key),
                text,
                "leave it out, or give the workers another framing",
            );
        }
    }
}

/// Returns the refusal, encoded for the client. In framings that are not lines, the line end at the end of the text is
/// removed.
pub(super) fn error_reply(mistakes: &mut Mistakes, text: Vec<u8>, framing: Framing) -> Vec<u8> {
    if text.is_empty() || framing == Framing::Line || !framing.tells_the_end() {
        return text;
    }
    let mut wire = Vec::new();
    if let Err(unfit) = framing.encode(text.strip_suffix(b"\n").unwrap_or(&text), &mut wire) {
        let text = format!("it {unfit}, which {KEY}reply-framing {framing} cannot carry");
        mistakes.add(KeyRef::key("error-reply"), text, "write another text, or an empty one");
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::lower::pool;
    use crate::config::units::{Escaped, Time, Whole};

    type Said<'t> = [Option<&'t str>; 4];

    fn spec([request, reply, worker_request, worker_reply]: Said<'_>) -> PoolSpec {
        let written = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        PoolSpec {
            request_framing: written(request),
            reply_framing: written(reply),
            worker_request_framing: written(worker_request),
            worker_reply_framing: written(worker_reply),
            ..PoolSpec::default()
        }
    }

    fn told(spec: &PoolSpec) -> Vec<String> {
        let mistakes = pool("pool", spec).err().unwrap_or_default();
        mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_framing_of_workers_defaults_to_that_of_clients() {
        let lowered = |said| pool("pool", &spec(said)).unwrap().options;
        assert_eq!(lowered([None; 4]).framings, Framings::default());
        let framings = lowered([Some("nul"), Some("netstring"), None, Some("eof")]).framings;
        assert_eq!(
            (framings.request, framings.worker_request),
            (Framing::Nul, Framing::Nul)
        );
        assert_eq!(
            (framings.reply, framings.worker_reply),
            (Framing::Netstring, Framing::Eof)
        );
        assert!(lowered([None, None, Some("eof"), None]).policy.single_use);
        assert!(!lowered([Some("eof"), None, Some("line"), None]).policy.single_use);
    }

    /// Every combination that is not refused below makes sense: the table of the manual.
    #[test]
    fn only_senseless_combinations_are_refused() {
        let names = [
            "line",
            "netstring",
            "nul",
            "u32be",
            "content-length",
            "until-empty-line",
            "eof",
            "quiet=20ms",
        ];
        for (client, worker) in names.iter().flat_map(|one| names.map(|other| (*one, other))) {
            let requests = told(&spec([Some(client), None, Some(worker), None]));
            let is_quiet = [client, worker].iter().filter(|name| name.starts_with("quiet")).count();
            assert_eq!(requests.len(), is_quiet, "{client} {worker}: {requests:?}");
            let replies = told(&spec([None, Some(client), None, Some(worker)]));
            let is_idle = client.starts_with("quiet") && client != worker;
            assert_eq!(replies.len(), usize::from(is_idle), "{client} {worker}: {replies:?}");
        }
    }

    #[test]
    fn senseless_combinations_are_refused_with_a_remedy() {
        let only = |spec: &PoolSpec| match told(spec).as_slice() {
            [one] => one.clone(),
            all => panic!("{all:?}"),
        };
        let quiet = only(&spec([Some("quiet=20ms"), None, Some("line"), None]));
        assert!(quiet.starts_with("request-framing: a request that pauses"), "{quiet}");
        assert!(only(&spec([None, None, Some("eof"), Some("quiet=20ms")])).ends_with("; write eof here"));
        assert!(only(&spec([None, None, None, Some("quiet=0")])).starts_with("worker-reply-framing: a pause of 0s"));
        assert!(only(&spec([None, Some("quiet=15s"), None, None])).starts_with("reply-framing: a pause of 15s is not"));
        for workers in ["line", "eof", "quiet=30ms"] {
            let idle = only(&spec([None, Some("quiet=20ms"), None, Some(workers)]));
            assert!(idle.starts_with("reply-framing: to a client quiet is eof") && idle.ends_with("; write eof"));
        }
        for framing in ["eof", "quiet=20ms"] {
            let mut pipelined = spec([None, None, None, Some(framing)]);
            pipelined.pipeline = Some(Whole(2));
            assert!(only(&pipelined).starts_with("pipeline: "), "{framing}");
        }
        let mut counted = spec([None, None, Some("eof"), None]);
        counted.max_requests = Some(Whole(1));
        assert!(only(&counted).starts_with("max-requests: with framing eof"));
        for framing in ["eof", "quiet=20ms"] {
            let mut kept = spec([None, Some(framing), None, None]);
            kept.persistent = true;
            assert!(only(&kept).starts_with(&format!("persistent: with reply-framing {framing} ")));
        }
        let mut closing = spec([Some("eof"), None, None, None]);
        closing.half_close = Some(HalfClose::HangUp);
        assert!(only(&closing).starts_with("half-close: with request-framing eof"));
        let mut patient = spec([None, None, None, Some("quiet=20s")]);
        patient.busy_timeout = Some(Time(Duration::from_secs(30)));
        assert_eq!(told(&patient), [""; 0]);
    }

    #[test]
    fn rules_for_lines_need_a_framing_of_lines() {
        let mut spec = spec([Some("until-empty-line"), None, None, None]);
        assert_eq!(pool("pool", &spec).unwrap().options.line_rules, LineRules::default());
        let end = |spec: &PoolSpec| pool("pool", spec).unwrap().options.line_rules.end;
        spec.pipeline = Some(Whole(2));
        assert_eq!(end(&spec), LineEnd::Lf);
        spec.worker_line_end = Some(WrittenEnd::AsIs);
        assert_eq!(end(&spec), LineEnd::AsItCame);
        spec.request_framing = None;
        spec.worker_line_end = None;
        assert_eq!(end(&spec), LineEnd::AsItCame, "a line has one end to all");
        spec.request_framing = Some("until-empty-line".parse().unwrap());
        spec.pipeline = None;
        (
            spec.allow_lone_cr,
            spec.allow_blank_lines,
            spec.refuse_unicode_line_ends,
        ) = (true, true, true);
        spec.worker_line_end = Some(WrittenEnd::Crlf);
        let rules = pool("pool", &spec).unwrap().options.line_rules;
        assert_eq!(rules.end, LineEnd::CrLf);
        assert!(rules.allow_lone_cr && rules.allow_blank_lines && rules.refuse_unicode);
        spec.request_framing = None;
        let said = told(&spec);
        let why = "allow-blank-lines: with worker-request-framing line no such lines are read, so this decides \
                   nothing; leave it out";
        assert_eq!(said, [why]);
        spec.worker_request_framing = Some("netstring".parse().unwrap());
        assert_eq!(told(&spec).len(), 4);
    }

    #[test]
    fn a_refusal_is_framed_as_replies_are() {
        let refusal = |framing: &str, text: Option<&[u8]>| {
            let mut spec = spec([None, Some(framing), None, None]);
            spec.error_reply = text.map(|text| Escaped(text.to_vec()));
            pool("pool", &spec)
                .map(|lowered| lowered.options.error_reply)
                .map_err(|mistakes| mistakes[0].to_string())
        };
        assert_eq!(refusal("line", None), Ok(b"ERR\n".to_vec()));
        assert_eq!(refusal("line", Some(b"no line")), Ok(b"no line".to_vec()));
        assert_eq!(refusal("eof", None), Ok(b"ERR\n".to_vec()));
        assert_eq!(refusal("netstring", None), Ok(b"3:ERR,".to_vec()));
        assert_eq!(
            refusal("until-empty-line", Some(b"action=DUNNO\n")),
            Ok(b"action=DUNNO\n\n".to_vec())
        );
        assert_eq!(refusal("netstring", Some(b"")), Ok(Vec::new()));
        let unfit = refusal("nul", Some(b"a\0b")).unwrap_err();
        assert!(
            unfit.starts_with("error-reply: it holds a NUL byte, which reply-framing nul cannot carry"),
            "{unfit}"
        );
    }
}
