//! The settings of a pool's health checks: `--probe`, `--probe-expect`, `--probe-interval`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::pattern::pattern;
use super::{KEY, KeyRef, LONGEST, Mistakes};
use crate::config::quote::Quoted;
use crate::config::spec::pool::PoolSpec;
use crate::doors::pattern::Pattern;
use crate::doors::pool::options::{Framing, LineRules, Probe};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
/// More frequent checks would take a noticeable part of the workers' time.
const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST;
/// The longest question, in bytes. A correct program may answer a longer line twice, as squidGuard does, and the health
/// check itself must not break the worker.
const LONGEST_QUESTION: usize = 4000;

/// Returns the time between two health checks of a worker; `None` if there are none.
pub(super) fn probe_interval(mistakes: &mut Mistakes, spec: &PoolSpec) -> Option<Duration> {
    let interval = mistakes.time("probe-interval", spec.probe_interval, &INTERVAL);
    if spec.probe.is_none() && spec.probe_interval.is_some() {
        let text = "there is nothing to be asked";
        let text = format!("without a {KEY}probe {text}");
        mistakes.add(
            KeyRef::key("probe-interval"),
            text,
            format!("give a {KEY}probe, or leave it out"),
        );
    }
    spec.probe.as_ref()?;
    Some(interval.unwrap_or(DEFAULT_INTERVAL))
}

/// Returns the question and the expected answer. Both must be set, or neither.
pub(super) fn probe(
    mistakes: &mut Mistakes,
    spec: &PoolSpec,
    max_request: usize,
    framing: Framing,
    rules: LineRules,
) -> Option<Arc<Probe>> {
    let (question, expect) = match (&spec.probe, &spec.probe_expect) {
        (Some(question), Some(expect)) => (question, expect),
        (Some(_), None) => {
            let remedy = format!("give {KEY}probe-expect with it");
            let text = "nothing says what its answer is to be";
            mistakes.add(KeyRef::key("probe"), text, remedy);
            return None;
        }
        (None, Some(_)) => {
            let text = format!("without a {KEY}probe there is no answer");
            let remedy = format!("give a {KEY}probe, or leave it out");
            mistakes.add(KeyRef::key("probe-expect"), text, remedy);
            return None;
        }
        (None, None) => return None,
    };
    let question = message(mistakes, question, max_request, framing, rules);
    let expect = expected(mistakes, expect);
    Some(Arc::new(Probe {
        question: question?,
        expect: expect?,
    }))
}

/// Returns the question, encoded for the worker.
fn message(
    mistakes: &mut Mistakes,
    text: &str,
    max_request: usize,
    framing: Framing,
    rules: LineRules,
) -> Option<Vec<u8>> {
    let longest = max_request.min(LONGEST_QUESTION);
    let mut wire = Vec::new();
    let wrong = if framing == Framing::Line && text.contains(['\n', '\r']) {
        Some((
            "it is more than one line".to_owned(),
            "write one line, without its line end".to_owned(),
        ))
    } else if let Err(unfit) = framing.encode(text.as_bytes(), &mut wire) {
        let text = format!("it {unfit}, which {KEY}worker-request-framing {framing} cannot carry");
        Some((text, "write another question".to_owned()))
    } else if let Err(unfit) = rules.check(framing, &wire) {
        Some((format!("it {unfit}"), "write another question".to_owned()))
    } else if text.len() > longest {
        let text = format!("it is {} bytes long", text.len());
        Some((text, format!("write at most {longest} bytes")))
    } else {
        None
    };
    rules.write_ends(framing, &mut wire);
    match wrong {
        Some((text, remedy)) => mistakes.add(KeyRef::key("probe"), text, remedy),
        None => return Some(wire),
    }
    None
}

fn expected(mistakes: &mut Mistakes, text: &str) -> Option<Pattern> {
    let pattern = pattern(mistakes, KeyRef::key("probe-expect"), text)?;
    if pattern.is_in(b"") && !pattern.as_str().contains(['^', '$']) {
        let what = format!("{} is found in every answer", Quoted(text));
        let remedy = "write what only the right answer holds, for example ^OK";
        mistakes.add(KeyRef::key("probe-expect"), what, remedy);
    }
    Some(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::lower::pool;
    use crate::config::units::{Size, Time};

    fn spec(probe: Option<&str>, expect: Option<&str>) -> PoolSpec {
        PoolSpec {
            probe: probe.map(Into::into),
            probe_expect: expect.map(Into::into),
            ..PoolSpec::default()
        }
    }

    fn told(spec: &PoolSpec) -> String {
        let told = pool("pool", spec).unwrap_err();
        assert_eq!(told.len(), 1, "{told:?}");
        told[0].to_string()
    }

    #[test]
    fn a_probe_is_a_line_and_an_expression() {
        let options = pool("pool", &spec(Some("q 1"), Some("^OK"))).unwrap().options;
        let probe = options.probe.unwrap();
        assert_eq!((&probe.question[..], probe.expect.as_str()), (&b"q 1\n"[..], "^OK"));
        assert_eq!(options.policy.probe_interval, Some(DEFAULT_INTERVAL));
        assert!(
            pool("pool", &spec(Some(""), Some("^$"))).is_ok(),
            "an empty line is one"
        );
    }

    #[test]
    fn a_question_and_its_answer_need_each_other() {
        assert_eq!(
            told(&spec(Some("q"), None)),
            "probe: nothing says what its answer is to be; give probe-expect with it"
        );
        assert_eq!(
            told(&spec(None, Some("OK"))),
            "probe-expect: without a probe there is no answer; give a probe, or leave it out"
        );
        let interval = PoolSpec {
            probe_interval: Some(Time(Duration::from_secs(5))),
            ..PoolSpec::default()
        };
        assert_eq!(
            told(&interval),
            "probe-interval: without a probe there is nothing to be asked; give a probe, or leave it out"
        );
    }

    #[test]
    fn a_question_must_be_a_valid_request() {
        let ask = |text: &str| told(&spec(Some(text), Some("OK")));
        assert!(ask("a\nb").starts_with("probe: it is more than one line; "));
        assert!(ask("a\0b").starts_with("probe: it holds a NUL byte; "));
        let lines = PoolSpec {
            request_framing: Some("until-empty-line".parse().unwrap()),
            ..spec(Some("a=b\n \nc=d"), Some("OK"))
        };
        assert!(told(&lines).starts_with("probe: it holds a line of nothing but blanks"));
        assert_eq!(
            ask(&"x".repeat(4001)),
            "probe: it is 4001 bytes long; write at most 4000 bytes"
        );
        let short = PoolSpec {
            max_request: Some(Size(5)),
            ..spec(Some("longer"), Some("OK"))
        };
        assert_eq!(told(&short), "probe: it is 6 bytes long; write at most 5 bytes");
    }

    #[test]
    fn a_malformed_expectation_is_reported_with_its_position() {
        let expect = |text: &str| told(&spec(Some("q"), Some(text)));
        let said = expect("^OK (a|b");
        let what = "probe-expect: `^OK (a|b` is not a regular expression at character 5: unclosed group; mend it there";
        assert!(said.starts_with(what), "{said}");
        for anything in ["", ".*", "(OK)?"] {
            let said = expect(anything);
            assert!(said.contains("is found in every answer; write what only"), "{said}");
        }
    }
}
