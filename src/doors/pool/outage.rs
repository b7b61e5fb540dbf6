//! The words for a pool in which no worker can serve: the reason, and the fate of requests meanwhile.

use std::collections::HashMap;
use std::time::Duration;

use super::core::Restart;
use super::options::{Disclosure, Mode, Options};
use super::recorder::Excerpt;
use crate::amount::span;

/// The reason of an outage, and the last loss of a worker for each reason.
#[derive(Debug, Default)]
pub(super) struct Outage {
    last_losses: HashMap<Restart, String>,
    /// The reason why no worker can serve, or could serve during the last outage.
    reason: Option<Restart>,
    /// True if the outage is not logged yet. Its line follows the lines about the losses that led to it.
    is_untold: bool,
}

impl Outage {
    /// Remembers the cause of a loss, in words that can follow `: `.
    pub(super) fn note_loss(&mut self, reason: Restart, detail: String) {
        self.last_losses.insert(reason, detail);
    }

    /// Begins an outage.
    pub(super) fn begin(&mut self, reason: Restart) {
        (self.reason, self.is_untold) = (Some(reason), true);
    }

    /// Returns the cause of an outage that is not logged yet, once.
    pub(super) fn take_untold(&mut self, start_timeout: Duration) -> Option<String> {
        std::mem::take(&mut self.is_untold).then(|| self.cause(start_timeout))?
    }

    /// Returns the cause of the present or the last outage.
    pub(super) fn cause(&self, start_timeout: Duration) -> Option<String> {
        let reason = self.reason?;
        let known = self.last_losses.get(&reason);
        Some(cause(reason, known.map(String::as_str), start_timeout))
    }
}

fn cause(reason: Restart, detail: Option<&str>, start_timeout: Duration) -> String {
    let what = match reason {
        Restart::Quarantined => "none passes its probe".to_owned(),
        Restart::SpawnFailed => "none can be started".to_owned(),
        Restart::StartTimeout => format!("none is ready within --start-timeout {}", span(start_timeout)),
        Restart::Died => "each dies soon after its start".to_owned(),
        Restart::Desync => {
            "each writes before it is asked, or more than it is asked (a greeting at its start? see --ready-line)"
                .to_owned()
        }
        Restart::Malformed => "none writes replies in its --worker-reply-framing".to_owned(),
        Restart::BusyTimeout
        | Restart::UnknownChannel
        | Restart::Oversize
        | Restart::Recycled
        | Restart::Spent
        | Restart::Asked => "each is lost soon after its start".to_owned(),
    };
    match detail {
        Some(detail) => format!("{what}: {detail}"),
        None => what,
    }
}

/// Returns the fate of requests during an outage.
pub(super) fn meanwhile(options: &Options) -> String {
    let wait = span(options.policy.queue_timeout);
    let subject = match options.policy.mode {
        Mode::Request => "requests",
        Mode::Session => "connections",
    };
    let known = match options.cache {
        Some(_) => "; answers that --cache-size holds are given as before",
        None => "",
    };
    format!(
        "{subject} wait for --queue-timeout {wait} and are then {}{known}",
        refusal(&options.error_reply)
    )
}

/// Returns the answer to a refused request, and its meaning to a Squid.
fn refusal(reply: &[u8]) -> String {
    let shown = Excerpt::of(reply, Disclosure::Excerpts);
    match reply {
        b"" => "closed without an answer".to_owned(),
        b"ERR\n" => format!("refused by {shown}, which lets URLs pass; --fail closed would deny them"),
        denial if denial.starts_with(b"302:") => format!("denied by {shown}"),
        _ => format!("refused by {shown}"),
    }
}

/// Returns the event for which a starting pool waits, before a worker has failed.
pub(super) fn expectation(options: &Options) -> &'static str {
    if options.probe.is_some() {
        "no worker has passed its probe yet"
    } else if options.ready_line.is_some() {
        "no worker has written its --ready-line yet"
    } else {
        "its workers have only just been started"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_last_loss_is_told_once_and_with_its_own_reason_alone() {
        let mut outage = Outage::default();
        assert_eq!(outage.take_untold(MINUTE), None);
        outage.begin(Restart::Died);
        assert_eq!(outage.cause(MINUTE).as_deref(), Some("each dies soon after its start"));
        outage.note_loss(Restart::Quarantined, "asked \"q\"".to_owned());
        assert_eq!(outage.cause(MINUTE).as_deref(), Some("each dies soon after its start"));
        outage.note_loss(Restart::Died, "the last one exited with status 4".to_owned());
        let told = "each dies soon after its start: the last one exited with status 4";
        assert_eq!(outage.take_untold(MINUTE).as_deref(), Some(told));
        assert_eq!(outage.take_untold(MINUTE), None);
        outage.begin(Restart::StartTimeout);
        let told = outage.take_untold(MINUTE).unwrap();
        assert_eq!(told, "none is ready within --start-timeout 1 min");
    }

    #[test]
    fn the_meaning_of_a_known_refusal_is_told() {
        assert_eq!(
            refusal(b"ERR\n"),
            "refused by \"ERR\", which lets URLs pass; --fail closed would deny them"
        );
        assert_eq!(refusal(b"302:http://a/\n"), "denied by \"302:http://a/\"");
        assert_eq!(refusal(b""), "closed without an answer");
        assert_eq!(refusal(b"BH\x1b\n"), "refused by \"BH\\x1b\"");
    }
}
