//! The log line about a lost worker: the cause first, then the future of its place.
//!
//! `worker 0 (pid 912) was killed by signal 9 (SIGKILL) while it had a request in hand; started again at once`
//!
//! The worker's last requests stand below it ([`recorder`](super::recorder)). The shell knows the facts, and decides
//! whether the line is due.

use std::fmt;
use std::time::Duration;

use log::Level;

use super::core::Restart;
use super::options::Options;
use super::repeats::{Again, Ended};
use crate::amount;
use crate::process::exit_status::ExitStatus;
use crate::process::leftovers::Left;

/// The end of a worker's process, as far as it is known when the line is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The process still runs, and is stopped.
    Stopped,
    /// The process still runs, and is stopped because it has closed this stream.
    Closed(Side),
    /// The process has ended by itself.
    Ended(ExitStatus),
    /// The process has ended by itself, and processes that it has started go on.
    Background(Left),
    /// The process has ended, and its status cannot be read, for this reason.
    Unknown(String),
}

/// The stream that a worker has closed though it needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

/// The words for the cause of a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) level: Level,
    /// The event, to stand behind the worker's name.
    pub(super) what: String,
    /// The fault in particular, to stand behind the event, punctuation included. May be empty.
    pub(super) detail: String,
    /// The circumstances, to stand behind the detail. They may differ between losses with the same cause. May be empty.
    pub(super) remark: String,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Stopped => f.write_str("is stopped"),
            End::Closed(Side::Input) => f.write_str("closed its standard input"),
            End::Closed(Side::Output) => f.write_str("closed its standard output"),
            End::Ended(ExitStatus::Code(code)) => write!(f, "exited with status {code}"),
            End::Ended(ExitStatus::Signal { number, .. }) => {
                let core_dumped = false;
                write!(
                    f,
                    "was killed by {}",
                    ExitStatus::Signal {
                        number: *number,
                        core_dumped
                    }
                )
            }
            End::Background(_) => f.write_str("has put itself in the background"),
            End::Unknown(why) => write!(f, "has ended, and its status cannot be read ({why})"),
        }
    }
}

impl End {
    fn remark(&self) -> String {
        let left = match self {
            End::Background(left) => left,
            End::Closed(_) => return "; it is stopped".to_owned(),
            End::Ended(ExitStatus::Signal { core_dumped: true, .. }) => return " (core dumped)".to_owned(),
            End::Stopped | End::Ended(_) | End::Unknown(_) => return String::new(),
        };
        let go_on = match *left {
            Left::Exactly(1) => "one of its descendants goes on".to_owned(),
            Left::Exactly(count) => format!("{count} of its descendants go on"),
            Left::AtMost(_) => "what it has started goes on".to_owned(),
        };
        format!(" (its process ended with status 0 while {go_on}); use its option to stay in the foreground")
    }
}

/// Returns the cause of a loss. `complaint` is a fact about this worker beyond the reason, if there is one.
pub(super) fn cause(reason: Restart, end: &End, complaint: Option<&str>, options: &Options) -> Cause {
    let (level, what) = what(reason, end, options);
    let colon = complaint.map(|complaint| format!(": {complaint}")).unwrap_or_default();
    let detail = match reason {
        Restart::Died | Restart::SpawnFailed | Restart::Quarantined => colon,
        Restart::Desync => ": it wrote more than one reply, or wrote while nothing was asked \
             (a request longer than its line buffer? lower --max-request; a greeting? see --ready-line)"
            .to_owned(),
        Restart::UnknownChannel => stray(complaint),
        Restart::Malformed => {
            let framing = options.framings.worker_reply;
            format!("{colon} (--worker-reply-framing {framing}); it is stopped")
        }
        _ => String::new(),
    };
    let remark = match reason {
        Restart::Died | Restart::Quarantined => end.remark(),
        _ => String::new(),
    };
    Cause {
        level,
        what,
        detail,
        remark,
    }
}

/// Returns the cause of a loss for a line about an outage, to stand behind a colon and without the worker's name.
/// Returns `None` if the reason says it all.
pub(super) fn as_a_cause(reason: Restart, cause: &Cause) -> Option<String> {
    let Cause {
        what, detail, remark, ..
    } = cause;
    match (reason, detail.strip_prefix(": ")) {
        (Restart::StartTimeout | Restart::Desync, _) => None,
        (Restart::Quarantined | Restart::SpawnFailed, Some(detail)) => Some(format!("{detail}{remark}")),
        _ => Some(format!("the last one {what}{detail}{remark}")),
    }
}

/// Returns the level of the line and the words for the event.
fn what(reason: Restart, end: &End, options: &Options) -> (Level, String) {
    let policy = &options.policy;
    let (level, what) = match reason {
        Restart::Died => return (Level::Warn, end.to_string()),
        Restart::StartTimeout => {
            let limit = amount::span(policy.start_timeout);
            let what = format!("was not ready within --start-timeout {limit} and is stopped");
            return (Level::Error, what);
        }
        Restart::BusyTimeout => {
            let limit = amount::span(policy.busy_timeout);
            let what = format!("took longer than --busy-timeout {limit} and is stopped");
            return (Level::Warn, what);
        }
        Restart::Oversize => {
            let limit = amount::limit(options.max_reply);
            let what = format!("wrote a reply longer than --max-reply {limit} and is stopped");
            return (Level::Warn, what);
        }
        Restart::SpawnFailed => (Level::Error, "could not be started"),
        Restart::Desync => (Level::Error, "has lost step and is stopped"),
        Restart::UnknownChannel => (
            Level::Error,
            "has answered under a channel-ID that no request of its has, and is stopped",
        ),
        Restart::Quarantined => (Level::Error, "has failed its probe and is quarantined"),
        Restart::Malformed => (Level::Error, "wrote what is no reply"),
        Restart::Recycled => (Level::Info, "has served long enough and is let go"),
        // There is one for each request.
        Restart::Spent => (Level::Debug, "has done its work"),
        Restart::Asked => (Level::Info, "is let go"),
    };
    (level, what.to_owned())
}

/// Returns the detail about a line that answers no request, with the possible mistakes of a worker that writes one.
pub(super) fn stray(line: Option<&str>) -> String {
    let line = line.map(|line| format!(": {line}")).unwrap_or_default();
    format!("{line} (an ID twice, or none: does it speak the concurrent protocol? see --concurrency)")
}

/// Returns words that tell of the same losses before, to stand behind the event.
pub(super) fn again(again: Option<Again>) -> String {
    let Some(again) = again else { return String::new() };
    let words = if again.with_same_words {
        ", with the same last words"
    } else {
        ""
    };
    match again.number {
        1 if again.with_same_words => ", with the same last words as another before it".to_owned(),
        1 => String::new(),
        number => {
            let pool = if again.in_several_places { " in this pool" } else { "" };
            format!(" again, the {} time in a row{pool}{words}", Ordinal(number))
        }
    }
}

/// The age from which on the age of a lost worker is worth mentioning.
const OLD: Duration = Duration::from_secs(60);

/// Returns the age of the worker and its work in hand, each behind a comma if other words stand before it.
pub(super) fn circumstances(lived: Duration, requests: usize, has_session: bool, again: &str) -> String {
    let age = if lived < OLD {
        String::new()
    } else {
        format!(", {} after its start", amount::span(lived))
    };
    let comma = if age.is_empty() && again.is_empty() { "" } else { "," };
    let in_hand = match requests {
        _ if has_session => format!("{comma} while it had a session"),
        0 => String::new(),
        1 => format!("{comma} while it had a request in hand"),
        count => format!("{comma} while it had {count} requests in hand"),
    };
    format!("{again}{age}{in_hand}")
}

/// The future of the place of a lost worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Another process is started in it. `stays` is the worker that serves there meanwhile, if there is one.
    Start { delay: Duration, stays: Option<String> },
    /// Another worker is being started already.
    Successor,
    /// No worker is started: the worker had no place any more.
    Nothing,
    /// No worker is started, because the pool ends.
    TheEnd,
}

impl Next {
    /// Returns the words for the end of the line. `in_a_row` is the number of workers that have ended early in this
    /// place, this one included, or 0 if it is not to be mentioned. `is_tried` is true if the start itself failed.
    pub(super) fn story(&self, in_a_row: u32, is_tried: bool) -> String {
        match self {
            Next::Start {
                delay,
                stays: Some(worker),
            } => {
                format!(
                    "the old {worker} stays in service, and another is started {}",
                    when(*delay)
                )
            }
            Next::Start { delay, stays: None } => {
                let verb = if is_tried { "tried again" } else { "started again" };
                let because = match in_a_row {
                    _ if delay.is_zero() => String::new(),
                    0 | 1 => String::new(),
                    count => format!(", as it has died {count} times in a row"),
                };
                format!("{verb} {}{because}", when(*delay))
            }
            Next::Successor => "its successor takes its place".to_owned(),
            Next::Nothing => "not started again: it had been replaced before, or its place is gone".to_owned(),
            Next::TheEnd => "not started again: the pool stops".to_owned(),
        }
    }
}

fn when(delay: Duration) -> String {
    match delay {
        Duration::ZERO => "at once".to_owned(),
        delay => format!("in {}", amount::span(delay)),
    }
}

/// Returns words for a row of losses that is over, to stand behind the good news.
pub(super) fn after_all(ended: &Ended) -> String {
    let Ended { cause, count, untold } = ended;
    let untold = match untold {
        0 => String::new(),
        count => format!(" (the last {count} are not told here)"),
    };
    format!("after {count} losses in a row{untold}: each time a worker {cause}")
}

/// Returns a line about a row of losses that is over, if some of them were not logged.
pub(super) fn untold(ended: &Ended) -> Option<String> {
    let Ended { cause, count, untold } = ended;
    let were = if *untold == 1 { "was" } else { "were" };
    (*untold > 0).then(|| {
        format!("of {count} losses in a row the last {untold} {were} not told here: each time a worker {cause}")
    })
}

#[derive(Debug, Clone, Copy)]
struct Ordinal(u32);

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match (self.0 % 100, self.0 % 10) {
            (11..=13, _) => "th",
            (_, 1) => "st",
            (_, 2) => "nd",
            (_, 3) => "rd",
            _ => "th",
        };
        write!(f, "{}{end}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words() {
        let signal = |number, core_dumped| End::Ended(ExitStatus::Signal { number, core_dumped });
        for (end, words) in [
            (End::Ended(ExitStatus::Code(3)), "exited with status 3"),
            (signal(9, false), "was killed by signal 9 (SIGKILL)"),
            (signal(11, true), "was killed by signal 11 (SIGSEGV) (core dumped)"),
            (End::Closed(Side::Output), "closed its standard output; it is stopped"),
            (End::Closed(Side::Input), "closed its standard input; it is stopped"),
        ] {
            assert_eq!(format!("{end}{}", end.remark()), words);
        }
        let told = |left| format!("{0}{1}", End::Background(left), End::Background(left).remark());
        assert_eq!(
            told(Left::Exactly(2)),
            "has put itself in the background (its process ended with status 0 while 2 of its descendants go on); \
             use its option to stay in the foreground"
        );
        assert!(told(Left::Exactly(1)).contains("while one of its descendants goes on"));
        assert!(told(Left::AtMost(3)).contains("while what it has started goes on"));
    }

    #[test]
    fn the_future_of_the_place_is_told() {
        let start = |delay| Next::Start {
            delay: Duration::from_millis(delay),
            stays: None,
        };
        for (next, in_a_row, story) in [
            (start(0), 1, "started again at once"),
            (start(800), 0, "started again in 800 ms"),
            (start(5000), 4, "started again in 5 s, as it has died 4 times in a row"),
            (Next::Successor, 4, "its successor takes its place"),
            (Next::TheEnd, 0, "not started again: the pool stops"),
        ] {
            assert_eq!(next.story(in_a_row, false), story);
        }
        assert_eq!(start(2000).story(0, true), "tried again in 2 s");
        let stays = Next::Start {
            delay: Duration::from_secs(1),
            stays: Some("worker 0 (pid 9)".to_owned()),
        };
        assert_eq!(
            stays.story(4, false),
            "the old worker 0 (pid 9) stays in service, and another is started in 1 s"
        );
    }

    #[test]
    fn the_how_manyeth_it_is_is_told_from_the_second_on() {
        let told = |number, with_same_words, in_several_places| {
            again(Some(Again {
                number,
                with_same_words,
                in_several_places,
                is_told: true,
            }))
        };
        assert_eq!((again(None), told(1, false, false)), (String::new(), String::new()));
        assert_eq!(told(1, true, false), ", with the same last words as another before it");
        assert_eq!(
            told(7, true, false),
            " again, the 7th time in a row, with the same last words"
        );
        assert_eq!(told(22, false, true), " again, the 22nd time in a row in this pool");
        let ordinals: Vec<_> = [1, 2, 3, 4, 11, 12, 13, 21, 101, 111, 113]
            .map(|number| Ordinal(number).to_string())
            .into();
        assert_eq!(
            ordinals,
            [
                "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "101st", "111th", "113th"
            ]
        );
    }

    #[test]
    fn the_age_and_the_work_in_hand_of_a_lost_worker_are_told() {
        let told = |lived, requests, again| circumstances(Duration::from_secs(lived), requests, false, again);
        assert_eq!(
            (told(59, 0, ""), told(0, 1, "")),
            (String::new(), " while it had a request in hand".to_owned())
        );
        assert_eq!(
            told(125, 3, ""),
            ", 2 min 5 s after its start, while it had 3 requests in hand"
        );
        assert_eq!(told(0, 1, " again"), " again, while it had a request in hand");
        assert_eq!(circumstances(Duration::ZERO, 0, true, ""), " while it had a session");
    }

    #[test]
    fn losses_that_were_not_logged_are_summed_up() {
        let ended = |untold| Ended {
            cause: "exited with status 1".to_owned(),
            count: 40,
            untold,
        };
        assert_eq!(untold(&ended(0)), None);
        assert_eq!(
            untold(&ended(5)).unwrap(),
            "of 40 losses in a row the last 5 were not told here: each time a worker exited with status 1"
        );
        assert!(untold(&ended(1)).unwrap().contains("the last 1 was not told"));
    }
}
