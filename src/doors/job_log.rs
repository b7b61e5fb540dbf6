//! What the doors that run programs for their clients report alike: how long things took, and the words of a run in the log.

use std::ffi::CString;
use std::fmt;
use std::iter;

use crate::net::addr::PeerAddr;
use crate::net::origin::Origin;
use crate::net::stream::Stream;
use crate::stats::histogram::Latency;
use crate::stats::{Label, Snapshot, Value};

/// A word of a command is shown up to so many bytes, and so many words of it.
pub(super) const SHOWN_BYTES: usize = 200;
pub(super) const SHOWN_WORDS: usize = 16;
/// A reason is shown up to so many characters.
const SHOWN_REASON: usize = 1000;

/// The percentiles of a latency, in the order of the statistics.
type Labels = [Label; 5];
const SPAWN: Labels = [
    "spawn p50 ms",
    "spawn p90 ms",
    "spawn p99 ms",
    "spawn p99.9 ms",
    "spawn max ms",
];
const FIRST_BYTE: Labels = [
    "first p50 ms",
    "first p90 ms",
    "first p99 ms",
    "first p99.9 ms",
    "first max ms",
];
const RUN: Labels = ["run p50 ms", "run p90 ms", "run p99 ms", "run p99.9 ms", "run max ms"];

/// How long things took.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// What it took to start a program: until its exec had succeeded.
    pub(super) spawn: Latency,
    /// From the moment that a program could be started to the first byte of output, of programs that write any.
    pub(super) first_byte: Latency,
    /// From a program's start until it was reaped.
    pub(super) run: Latency,
}

impl Times {
    /// Adds all of them to the statistics.
    pub(super) fn report(&self, snapshot: &mut Snapshot) {
        let latencies = [(SPAWN, &self.spawn), (FIRST_BYTE, &self.first_byte), (RUN, &self.run)];
        for (labels, latency) in latencies {
            let seen = latency.percentiles();
            let values = [seen.p50, seen.p90, seen.p99, seen.p999, seen.max];
            for (label, value) in iter::zip(labels, values) {
                snapshot.push(label, Value::Milliseconds(value));
            }
        }
    }
}

/// What a program is told of its client, as programs under tcpserver and s6-ipcserver are: assignments, `NAME=VALUE`.
pub(super) fn asker(stream: &Stream, origin: &Origin) -> Vec<CString> {
    let mut told = Vec::new();
    let mut tell = |name: &str, value: &dyn fmt::Display| {
        // None of them holds a NUL.
        told.extend(CString::new(format!("{name}={value}")));
    };
    match origin.client() {
        Some(PeerAddr::Tcp(remote)) => {
            tell("PROTO", &"TCP");
            tell("TCPREMOTEIP", &remote.ip());
            tell("TCPREMOTEPORT", &remote.port());
            if let Ok(Some(local)) = stream.local_addr() {
                tell("TCPLOCALIP", &local.ip());
                tell("TCPLOCALPORT", &local.port());
            }
        }
        Some(PeerAddr::Unix) => {
            tell("PROTO", &"IPC");
            if let Ok(Some(process)) = stream.peer_credentials() {
                tell("IPCREMOTEPID", &process.pid);
                tell("IPCREMOTEEUID", &process.uid);
                tell("IPCREMOTEEGID", &process.gid);
            }
        }
        None => tell("PROTO", &"TCP"),
    }
    told
}

/// A program and its arguments, `given` words of which the first ones are there, or its name alone, as a log line has it: nothing
/// in it breaks the line, and its length is bounded.
pub(super) fn command<'w>(words: impl Iterator<Item = &'w [u8]>, given: usize, with_arguments: bool) -> String {
    let left_out = given.saturating_sub(SHOWN_WORDS);
    let number = if with_arguments { SHOWN_WORDS } else { 1 };
    let shown = words.take(number).map(|word| match word.get(..SHOWN_BYTES) {
        Some(begin) => format!("{:?}...", String::from_utf8_lossy(begin)),
        None => format!("{:?}", String::from_utf8_lossy(word)),
    });
    let mut text = shown.collect::<Vec<_>>().join(" ");
    if with_arguments && left_out > 0 {
        text.push_str(&format!(" and {left_out} more"));
    }
    text
}

/// Why somebody gets no program: a program's name may be among it, which is as long as the client likes.
pub(super) fn reason(why: &str) -> String {
    match why.char_indices().nth(SHOWN_REASON) {
        Some((end, _)) => format!("{}...", why.get(..end).unwrap_or_default()),
        None => why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_bounded() {
        assert_eq!(reason("no"), "no");
        assert_eq!(reason(&"\u{fffd}".repeat(1000)), "\u{fffd}".repeat(1000));
        assert_eq!(reason(&"x".repeat(1001)), format!("{}...", "x".repeat(1000)));
    }

    #[test]
    fn a_command_is_one_bounded_line_without_its_arguments_if_so_wished() {
        let words = |text: &'static str| text.split(' ').map(str::as_bytes).collect::<Vec<_>>();
        assert_eq!(command(words("a b\nc").into_iter(), 2, true), r#""a" "b\nc""#);
        assert_eq!(command(words("a b\nc").into_iter(), 2, false), r#""a""#);
        let long = [b'x'; 10_000];
        let text = command(iter::repeat_n(&long[..], 16), 100, true);
        assert!(text.len() < 4000 && text.ends_with("... and 84 more"), "{text}");
    }
}
