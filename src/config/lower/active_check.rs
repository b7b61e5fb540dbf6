//! The active check of a service's servers: `check` and the keys that go with it become a [`Check`].

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::{KEY, KeyRef, LONGEST, Mistakes, SHORTEST_TIMEOUT, setting};
use crate::config::quote::Quoted;
use crate::config::spec::route::ServiceSpec;
use crate::doors::route::options::{Address, Check, Question, Servers, Target};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
/// A server that is asked more often has little else to do.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=LONGEST;
const TIMEOUT: RangeInclusive<Duration> = SHORTEST_TIMEOUT..=Duration::from_secs(600);
/// The longest path, in bytes.
const LONGEST_PATH: usize = 1024;

/// Lowers the check of a service whose connections end at `target`. Returns `None` without one, and after a mistake in it.
pub(super) fn check(
    mistakes: &mut Mistakes,
    spec: &ServiceSpec,
    target: &Target,
    is_whole: bool,
) -> Option<Arc<Check>> {
    let interval = mistakes.time("check-interval", spec.check_interval, &INTERVAL);
    let timeout = mistakes.time("check-timeout", spec.check_timeout, &TIMEOUT);
    let port = mistakes.count("check-port", spec.check_port, 1..=u16::MAX);
    let Some(text) = spec.check.as_deref() else {
        if is_whole {
            add_without_check(mistakes, spec);
        }
        return None;
    };
    let question = question(mistakes, text)?;
    let Target::Servers { tls, http } = target else {
        // A door has said so for each key of servers.
        if matches!(target, Target::Tunnel(_)) {
            let text = "the tunnel is checked by pings, whatever is written here";
            mistakes.add(KeyRef::key("check"), text, "leave it out");
        }
        return None;
    };
    if spec.start.is_some() {
        let text = "the program behind the server runs only while it is used, so it is not checked";
        let remedy = format!("leave out one of {KEY}check and {KEY}start");
        mistakes.add(KeyRef::key("check"), text, remedy);
    }
    if port.is_some() && [tls, http].into_iter().flatten().any(has_socket) {
        let text = "a UNIX socket has no port";
        mistakes.add(KeyRef::key("check-port"), text, "leave it out");
    }
    if let (Question::Http(_), None, None, Some(_)) = (&question, port, http, tls) {
        let text = "a check of HTTP needs a port for HTTP, and the servers have one for TLS alone";
        let remedy = format!(
            "write {KEY}check-port or {KEY}http-port as well, or {}",
            setting("check", "tcp")
        );
        mistakes.add(KeyRef::key("check"), text, remedy);
    }
    let interval = interval.unwrap_or(DEFAULT_INTERVAL);
    // An interval below the usual time-out is the shorter of the two.
    let timeout = timeout.unwrap_or_else(|| DEFAULT_TIMEOUT.min(interval));
    if timeout > interval {
        let text = "an answer may take longer than the time to the next check";
        let remedy = format!("write a time of at most {KEY}check-interval");
        mistakes.add(KeyRef::key("check-timeout"), text, remedy);
    }
    Some(Arc::new(Check {
        question,
        port,
        interval,
        timeout,
    }))
}

/// Adds a mistake for each setting of a check that is not there.
fn add_without_check(mistakes: &mut Mistakes, spec: &ServiceSpec) {
    for (key, is_set) in [
        ("check-interval", spec.check_interval.is_some()),
        ("check-timeout", spec.check_timeout.is_some()),
        ("check-port", spec.check_port.is_some()),
    ] {
        if is_set {
            let remedy = format!("write {} as well, or leave this out", setting("check", "tcp"));
            mistakes.add(KeyRef::key(key), "no server of this service is checked", remedy);
        }
    }
}

fn has_socket(servers: &Arc<Servers>) -> bool {
    let mut addresses = servers.list.iter().map(|server| &server.address);
    addresses.any(|address| matches!(address, Address::Unix(_)))
}

fn question(mistakes: &mut Mistakes, text: &str) -> Option<Question> {
    let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    match text {
        "tcp" => Some(Question::Tcp),
        path if is_path && path.len() <= LONGEST_PATH => Some(Question::Http(path.into())),
        other => {
            let shown = Quoted(other);
            let text = format!("{shown} is neither tcp nor the path of a page");
            let remedy = format!(
                "write {}, or a path of at most {LONGEST_PATH} signs without blanks, such as {}",
                setting("check", "tcp"),
                setting("check", "/healthz")
            );
            mistakes.add(KeyRef::key("check"), text, remedy);
            None
        }
    }
}
