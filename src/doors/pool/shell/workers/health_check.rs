//! Asking a worker the question with the known answer, and judging what it says.
//!
//! A probe goes the way of a request: the worker is looked at first, has to have read all of it when it answers, and to
//! answer once and within `--max-reply`; it stands in the record of its requests. Whatever is wrong with it is kept for
//! the log line that tells of the worker's quarantine.

use std::sync::Arc;

use log::Level;

use super::Workers;
use super::process::{Silence, Unread, WorkerProcess};
use crate::doors::pool::core::{ChannelId, Event, Fault, ProbeResult, WorkerId};
use crate::doors::pool::options::{Disclosure, Probe};
use crate::doors::pool::recorder::Excerpt;
use crate::doors::pool::report::Topic;
use crate::doors::pool::shell::desk::Desk;
use crate::doors::pool::story::{self, End};

/// The question that one process is asked, and the state of that.
#[derive(Debug)]
pub(crate) struct HealthCheck {
    /// The probe of the time at which the worker was started: an older worker need not know newer answers.
    probe: Option<Arc<Probe>>,
    state: State,
    passed: Passed,
}

#[derive(Debug)]
enum State {
    Resting,
    Asked,
    /// In words.
    Failed(String),
    /// It died, or closed its input or output.
    Lost,
}

/// Which time-out a probe has depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passed {
    Never,
    Before,
}

impl HealthCheck {
    pub(crate) fn new(probe: Option<Arc<Probe>>) -> Self {
        HealthCheck {
            probe,
            state: State::Resting,
            passed: Passed::Never,
        }
    }

    /// Returns true if the next reply is the answer to the probe.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.state, State::Asked)
    }

    /// Returns true if the worker has served, and may have answered others as wrongly as its probe.
    pub(crate) fn has_passed(&self) -> bool {
        self.passed == Passed::Before
    }

    /// The question, which is on its way from now on.
    fn begin(&mut self) -> Option<Arc<Probe>> {
        let probe = self.probe.clone()?;
        self.state = State::Asked;
        Some(probe)
    }

    /// Judges the answer to the probe.
    pub(super) fn judge(&mut self, answer: &[u8], unread: Unread, excess: bool, disclosure: Disclosure) -> ProbeResult {
        let Some(probe) = &self.probe else {
            return ProbeResult::Failed;
        };
        let expect = Excerpt::of(probe.expect.as_str().as_bytes(), Disclosure::Excerpts);
        let said = Excerpt::of(answer, disclosure);
        self.state = match unread {
            Unread::Nothing if excess => State::Failed(format!("it answered {said} and more than that one line")),
            Unread::Nothing if probe.expect.is_in(line(answer)) => {
                self.passed = Passed::Before;
                State::Resting
            }
            Unread::Nothing => State::Failed(format!(
                "it answered {said}, in which --probe-expect {expect} is not found"
            )),
            Unread::Some | Unread::Everything => {
                State::Failed(format!("it wrote {said} before it had read all of that"))
            }
        };
        match self.state {
            State::Resting => ProbeResult::Passed,
            State::Asked | State::Failed(_) | State::Lost => ProbeResult::Failed,
        }
    }

    /// Takes a fault of the worker, if it was being asked, for the reason why it has not passed.
    pub(crate) fn cut_short(&mut self, fault: Fault) {
        if !self.is_under_way() {
            return;
        }
        let why = match fault {
            Fault::OutputClosed | Fault::InputClosed(_) => {
                self.state = State::Lost;
                return;
            }
            Fault::Unasked => "it had written before it was asked anything (a greeting? see --ready-line)",
            Fault::Malformed => "what it wrote was no reply",
            Fault::UnknownChannel => "it answered under a number that it had not been told, or under none",
            Fault::ReplyTooLong(_) => "its answer was longer than --max-reply",
        };
        self.state = State::Failed(why.to_owned());
    }

    /// Why it has failed, for a log line. `end`: how its process has ended, if it has.
    pub(crate) fn story(&self, disclosure: Disclosure, end: &End) -> Option<String> {
        let probe = self.probe.as_ref()?;
        let ended;
        let why = match (&self.state, self.passed) {
            (State::Failed(why), _) => why,
            (State::Lost, _) => {
                ended = format!("it {end}");
                &ended
            }
            (State::Resting | State::Asked, Passed::Never) => "it gave no answer within --start-timeout",
            (State::Resting | State::Asked, Passed::Before) => "it gave no answer within --busy-timeout",
        };
        Some(format!("asked {}, {why}", Excerpt::of(&probe.question, disclosure)))
    }
}

/// An answer without its line end.
fn line(answer: &[u8]) -> &[u8] {
    match answer {
        [line @ .., b'\r', b'\n'] | [line @ .., b'\n'] => line,
        line => line,
    }
}

impl WorkerProcess {
    pub(crate) fn probe(&mut self, desk: &mut Desk<'_>, channel: Option<ChannelId>) {
        let Some(probe) = self.health_check.begin() else {
            // Only a worker that was started with a probe is asked; one that cannot be asked is not believed.
            return desk.report(Event::Probed(self.id, ProbeResult::Failed));
        };
        match self.check_silence() {
            Silence::Kept => {}
            Silence::Broken => return self.report_fault(desk, Fault::Unasked),
            Silence::Closed => return self.report_fault(desk, Fault::OutputClosed),
        }
        self.queue_request(None, channel, &probe.question);
        let disclosure = desk.options.disclosure;
        self.recorder.begin(&probe.question, channel, desk.cx.now(), disclosure);
        self.send(desk);
    }
}

impl Workers {
    /// The good news after the bad.
    pub(crate) fn log_cleared(&mut self, desk: &mut Desk<'_>, id: WorkerId) {
        let label = self.describe(id).unwrap_or_default();
        let ended = self.repeats.end().filter(|ended| ended.count > 1);
        let after = ended
            .map(|ended| format!(", {}", story::after_all(&ended)))
            .unwrap_or_default();
        let line = format_args!("{label} ends the quarantine of its place, and serves{after}");
        desk.note(Level::Info, Topic::Cleared, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::pattern::Pattern;
    use crate::process::exit_status::ExitStatus;

    const SHOWN: Disclosure = Disclosure::Excerpts;

    fn asked(expect: &str) -> HealthCheck {
        let probe = Probe {
            question: b"q\n".to_vec(),
            expect: Pattern::new(expect).unwrap(),
        };
        let mut health_check = HealthCheck::new(Some(Arc::new(probe)));
        assert!(health_check.begin().is_some() && health_check.is_under_way());
        health_check
    }

    #[test]
    fn the_line_end_is_no_part_of_the_answer() {
        for answer in [&b"OK\n"[..], b"OK\r\n"] {
            let mut health_check = asked("^OK$");
            assert_eq!(
                health_check.judge(answer, Unread::Nothing, false, SHOWN),
                ProbeResult::Passed
            );
            assert!(!health_check.is_under_way());
        }
    }

    #[test]
    fn why_it_failed_is_told() {
        let told = |answer: &[u8], unread, excess| {
            let mut health_check = asked("^OK$");
            assert_eq!(health_check.judge(answer, unread, excess, SHOWN), ProbeResult::Failed);
            health_check.story(SHOWN, &End::Stopped).unwrap()
        };
        assert_eq!(
            told(b"ERR\n", Unread::Nothing, false),
            "asked \"q\", it answered \"ERR\", in which --probe-expect \"^OK$\" is not found"
        );
        assert!(told(b"OK\n", Unread::Nothing, true).ends_with("it answered \"OK\" and more than that one line"));
        for unread in [Unread::Some, Unread::Everything] {
            assert!(told(b"OK\n", unread, false).ends_with("it wrote \"OK\" before it had read all of that"));
        }
    }

    #[test]
    fn which_time_is_over_is_told() {
        let mut health_check = asked("OK");
        let story = |health_check: &HealthCheck| health_check.story(SHOWN, &End::Ended(ExitStatus::Code(3))).unwrap();
        assert!(story(&health_check).ends_with("no answer within --start-timeout"));
        health_check.judge(b"OK\n", Unread::Nothing, false, SHOWN);
        health_check.begin();
        assert!(story(&health_check).ends_with("no answer within --busy-timeout"));
        health_check.cut_short(Fault::OutputClosed);
        assert!(story(&health_check).ends_with("asked \"q\", it exited with status 3"));
    }
}
