//! The reports that doors which run programs for their clients have in common: the latencies of runs, the description
//! of a run in the log, and the description of its client in the program's environment.

use std::fmt::{self, Write};
use std::iter;

use crate::net::addr::PeerAddr;
use crate::net::origin::Origin;
use crate::net::stream::{PeerCredentials, Stream};
use crate::process::strings::Strings;
use crate::stats::histogram::Latency;
use crate::stats::{Labels, Snapshot};

/// The most bytes of one word of a command in a log line.
pub(super) const SHOWN_BYTES: usize = 200;
/// The most words of a command in a log line.
pub(super) const SHOWN_WORDS: usize = 16;
/// The most characters of a reason in a log line.
const SHOWN_REASON: usize = 1000;
/// The bytes that a command in a log line, and the variables about a client, seldom exceed.
const USUAL_COMMAND: usize = 64;
const USUAL_VARIABLES: usize = 128;

/// The percentiles of a latency, in the order of the statistics.
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

/// The latencies of the runs of one door.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// The time that a start took, until the program's exec had succeeded.
    pub(super) spawn: Latency,
    /// The time from the moment at which a program could be started to its first byte of output, if it wrote any.
    pub(super) first_byte: Latency,
    /// The time from a program's start until it was reaped.
    pub(super) run: Latency,
}

impl Times {
    /// Adds the percentiles of all three to the statistics.
    pub(super) fn report(&self, snapshot: &mut Snapshot) {
        snapshot.latency(SPAWN, &self.spawn);
        snapshot.latency(FIRST_BYTE, &self.first_byte);
        snapshot.latency(RUN, &self.run);
    }
}

/// Returns variables that describe the client to its program, as assignments `NAME=VALUE`. They are those of tcpserver
/// and s6-ipcserver, and two of this program about TLS. `process` is the one at the other end of a UNIX socket.
pub(super) fn asker(stream: &Stream, origin: &Origin, process: Option<PeerCredentials>) -> Strings {
    let mut told = Strings::with_capacity(USUAL_VARIABLES);
    // No name and no value holds a NUL.
    let mut tell = |name: &str, value: &dyn fmt::Display| told.push_text(format_args!("{name}={value}"));
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
            if let Some(process) = process.filter(|_| origin.is_direct()) {
                tell("IPCREMOTEPID", &process.pid);
                tell("IPCREMOTEEUID", &process.uid);
                tell("IPCREMOTEEGID", &process.gid);
            }
        }
        None => tell("PROTO", &"TCP"),
    }
    if let Some(tls) = origin.tls.as_deref() {
        tell("IOTCPD_TLS_VERSION", &tls.version);
        if let Some(subject) = &tls.subject {
            tell("IOTCPD_TLS_SUBJECT", subject);
        }
    }
    told
}

/// Returns a program and its arguments, or its name alone, for a log line. The text is one line of bounded length,
/// whatever the words are. `words` are the first of the `given` words that the client sent, at least [`SHOWN_WORDS`] if
/// it sent that many.
pub(super) fn command<'w>(words: impl Iterator<Item = &'w [u8]>, given: usize, with_arguments: bool) -> String {
    let left_out = given.saturating_sub(SHOWN_WORDS);
    let number = if with_arguments { SHOWN_WORDS } else { 1 };
    let mut text = String::with_capacity(USUAL_COMMAND);
    for (word, blank) in words.take(number).zip(iter::once("").chain(iter::repeat(" "))) {
        // Writing to a string cannot fail.
        let _ = match word.get(..SHOWN_BYTES) {
            Some(begin) => write!(text, "{blank}{:?}...", String::from_utf8_lossy(begin)),
            None => write!(text, "{blank}{:?}", String::from_utf8_lossy(word)),
        };
    }
    if with_arguments && left_out > 0 {
        let _ = write!(text, " and {left_out} more");
    }
    text
}

/// Cuts the reason why a client gets no program: it may quote a program's name, which is as long as the client likes.
pub(super) fn reason(why: &str) -> String {
    match why.char_indices().nth(SHOWN_REASON) {
        Some((end, _)) => format!("{}...", why.get(..end).unwrap_or_default()),
        None => why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::net::origin::Asserted;
    use crate::net::tls::{Established, Version};
    use crate::process::spec::tells_of_a_client;

    #[test]
    fn a_program_is_told_the_process_only_of_a_client_that_has_come_by_itself() {
        let (stream, _client) = mio::net::UnixStream::pair().unwrap();
        let stream = Stream::Unix(stream);
        let direct = Origin::direct(PeerAddr::Unix);
        let tells_user = |origin: &Origin| {
            let told = asker(&stream, origin, stream.peer_credentials().unwrap());
            told.iter().any(|it| it.to_bytes().starts_with(b"IPCREMOTEEUID="))
        };
        assert!(tells_user(&direct));
        let handed_over = Origin {
            door: Some("route".into()),
            ..direct.clone()
        };
        let unknown = Origin {
            asserted: Some(Asserted::Unknown),
            ..direct
        };
        assert!(!tells_user(&handed_over) && !tells_user(&unknown));
    }

    #[test]
    fn every_variable_about_a_client_has_a_name_that_tells_of_one() {
        let (stream, _client) = mio::net::UnixStream::pair().unwrap();
        let stream = Stream::Unix(stream);
        let address = PeerAddr::tcp("192.0.2.1:7".parse().unwrap());
        let established = Established {
            version: Version::V1_2,
            subject: Some("CN=a".to_owned()),
            is_resumed: false,
        };
        let secured = Origin {
            tls: Some(established.into()),
            ..Origin::direct(address)
        };
        for origin in [Origin::direct(PeerAddr::Unix), Origin::direct(address), secured] {
            let told = asker(&stream, &origin, stream.peer_credentials().unwrap());
            let names = told
                .iter()
                .map(|it| OsStr::from_bytes(it.to_bytes().split(|byte| *byte == b'=').next().unwrap()));
            assert!(
                names.clone().count() > 2 && names.clone().all(tells_of_a_client),
                "{told:?}"
            );
        }
    }

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
