//! The active checks: a server is connected to and, if its check wants that, asked for a page.
//!
//! The life of a [`Probe`]: it is begun when the router says whose turn it is, connects, sends its first bytes (the header
//! of the PROXY protocol that the server wants, and the request), reads up to the status of the answer, and ends with an
//! outcome, at the latest when its time is over. A host is looked up as it is for clients; while its look-up is under way,
//! and while this process lacks descriptors, nothing is found out, and no server is blamed.
//!
//! Which server is asked when, and what an outcome means, is the core's. A door that drains checks nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::core::checks::{CheckId, MOST, Outcome, Question, Subject};
use super::super::core::event::ConnectFault;
use super::super::core::names::Reply;
use super::super::core::table::{Address, CATCH_ALL, ProxyVersion};
use super::connecting::{Target, fault};
use super::routes::register;
use super::{RouteDoor, RouteSource};
use crate::amount;
use crate::net::conn::{Begun, Conn, Received};
use crate::net::origin::Asserted;
use crate::net::proxy::writing::Described;
use crate::net::stream::Stream;
use crate::reactor::{Alarm, Context, Key, Readiness, SourceKind};

/// The most bytes of an answer that are read for its status.
const LONGEST_HEAD: usize = 16 << 10;
/// The most fields of an answer that are looked at. The status stands before them.
const FIELDS: usize = 64;

/// A server that is being asked.
#[derive(Debug)]
pub(super) struct Probe {
    id: CheckId,
    conn: Conn,
    stage: Stage,
    /// True if the answer of HTTP is awaited, and not the connection alone.
    awaits_status: bool,
    timeout: Duration,
    /// The end of the time for it.
    until: Instant,
    /// The other addresses of its host, which are tried if this one cannot be connected to.
    others: Vec<SocketAddr>,
    /// The port of the server, if the connection may be one to itself.
    suspect: Option<u16>,
    alarm: Alarm,
}

#[derive(Debug)]
enum Stage {
    /// The server is being connected to, and is to get these bytes.
    Connecting(Vec<u8>),
    /// It is asked, and has answered these bytes.
    Asked(Vec<u8>),
}

impl RouteDoor {
    /// Begins the checks whose time has come, and sets the alarm for the next. Must be called after each change of the
    /// checks, and at that alarm.
    pub(super) fn check_servers(&mut self, cx: &mut Context<'_>) {
        cx.clear_alarm(&mut self.checks_alarm);
        if self.front.is_stopping() {
            return;
        }
        // Many that fail at once, such as all at closed ports of this machine, do not keep the loop from its clients.
        for _ in 0..MOST {
            let Some((id, subject)) = self.router.begin_check(cx.now()) else {
                break;
            };
            if let Err(outcome) = self.begin_probe(cx, id, &subject) {
                self.end_check(cx, id, outcome);
            }
        }
        let next = self.router.next_check();
        cx.set_alarm(&mut self.checks_alarm, RouteSource::Checks.only(), next);
    }

    /// Gives up all checks, for a door that drains.
    pub(super) fn stop_checks(&mut self, cx: &mut Context<'_>) {
        cx.clear_alarm(&mut self.checks_alarm);
        let keys: Vec<Key> = self.probes.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(mut probe) = self.probes.remove(key) {
                cx.clear_alarm(&mut probe.alarm);
            }
        }
    }

    /// Connects to a server. Returns the outcome, if it is known at once.
    fn begin_probe(&mut self, cx: &mut Context<'_>, id: CheckId, subject: &Subject) -> Result<(), Outcome> {
        let (stream, address, others) = match Target::parse(&subject.address) {
            Some(target) => (
                target.connect().map_err(|error| outcome(&error))?,
                target.address(),
                Vec::new(),
            ),
            None => connect_to_first(self.addresses_of_host(cx, &subject.address)?)?,
        };
        let suspect = address.and_then(|address| self.local_ports.suspect(address));
        let awaits_status = matches!(subject.check.question, Question::Http(_));
        let timeout = subject.check.timeout;
        let key = self.probes.insert(Probe {
            id,
            stage: Stage::Connecting(first_bytes(subject)),
            awaits_status,
            timeout,
            until: cx.now() + timeout,
            others,
            suspect,
            alarm: Alarm::default(),
            conn: Conn::connecting(stream),
        });
        let Ok(key) = key else { return Err(Outcome::Unknown) };
        let Some(probe) = self.probes.get_mut(key) else {
            return Err(Outcome::Unknown);
        };
        if let Err(error) = register(cx, &mut probe.conn, RouteSource::Probe, key) {
            self.probes.remove(key);
            return Err(outcome(&error));
        }
        probe.set_alarm(cx, key);
        Ok(())
    }

    /// Goes on with the next address of a host, if the one before cannot be connected to. Returns the outcome if there is no
    /// other.
    fn probe_next(&mut self, cx: &mut Context<'_>, key: Key, failed: Outcome) -> Option<Outcome> {
        let probe = self.probes.get_mut(key)?;
        let may_go_on = matches!(probe.stage, Stage::Connecting(_)) && matches!(failed, Outcome::Failed(_));
        if !may_go_on || probe.others.is_empty() {
            return Some(failed);
        }
        let (stream, address, others) = match connect_to_first(std::mem::take(&mut probe.others)) {
            Ok(begun) => begun,
            Err(outcome) => return Some(outcome),
        };
        probe.suspect = address.and_then(|address| self.local_ports.suspect(address));
        probe.conn = Conn::connecting(stream);
        probe.others = others;
        if let Err(error) = register(cx, &mut probe.conn, RouteSource::Probe, key) {
            return Some(outcome(&error));
        }
        probe.set_alarm(cx, key);
        None
    }

    /// Returns the addresses of a server that is named by its host.
    fn addresses_of_host(&mut self, cx: &mut Context<'_>, server: &Address) -> Result<Vec<SocketAddr>, Outcome> {
        let Address::Network { host, port } = server else {
            return Err(Outcome::Failed("its address cannot be used".to_owned()));
        };
        match self.ask_name(cx, host) {
            Reply::Known(addresses) if addresses.is_empty() => Err(Outcome::Unknown),
            Reply::Known(mut addresses) => {
                addresses.iter_mut().for_each(|address| address.set_port(*port));
                Ok(addresses)
            }
            Reply::Wait(_) | Reply::LookUp(_) => Err(Outcome::Unknown),
            Reply::Failed => Err(Outcome::Failed("its host cannot be looked up".to_owned())),
        }
    }

    /// Takes in an event of a server that is being asked.
    pub(super) fn probe_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        let mut scratch = cx.lend_buffer();
        let outcome = self.probes.get_mut(key).and_then(|probe| {
            probe.conn.note(readiness);
            probe.go_on(&mut scratch)
        });
        cx.return_buffer(scratch);
        let outcome = outcome.and_then(|outcome| self.probe_next(cx, key, outcome));
        if let Some(outcome) = outcome {
            self.end_probe(cx, key, outcome);
        }
    }

    /// The time of a check is over.
    pub(super) fn probe_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(probe) = self.probes.get(key) else { return };
        let what = match probe.stage {
            Stage::Connecting(_) => "no connection",
            Stage::Asked(_) => "no answer",
        };
        let why = format!("{what} within {}", amount::span(probe.timeout));
        if let Some(outcome) = self.probe_next(cx, key, Outcome::Failed(why)) {
            self.end_probe(cx, key, outcome);
        }
    }

    fn end_probe(&mut self, cx: &mut Context<'_>, key: Key, outcome: Outcome) {
        let Some(mut probe) = self.probes.remove(key) else {
            return;
        };
        cx.clear_alarm(&mut probe.alarm);
        self.end_check(cx, probe.id, outcome);
        // Another one may have waited for its turn.
        self.check_servers(cx);
    }

    fn end_check(&mut self, cx: &mut Context<'_>, id: CheckId, outcome: Outcome) {
        self.router.end_check(id, outcome, cx.now());
        self.log_notices(cx);
    }
}

/// Begins to connect to the first of these addresses that does not fail at once. Returns it, and the others.
fn connect_to_first(mut addresses: Vec<SocketAddr>) -> Result<(Stream, Option<SocketAddr>, Vec<SocketAddr>), Outcome> {
    let mut failed = Outcome::Unknown;
    while !addresses.is_empty() {
        let address = addresses.remove(0);
        match Stream::connect_tcp(address) {
            Ok(stream) => return Ok((stream, Some(address), addresses)),
            Err(error) => failed = outcome(&error),
        }
    }
    Err(failed)
}

impl Probe {
    /// Sets the alarm for the end of its time, of which each address has its share.
    fn set_alarm(&mut self, cx: &mut Context<'_>, key: Key) {
        let shares = u32::try_from(1 + self.others.len()).unwrap_or(u32::MAX);
        let share = self.until.saturating_duration_since(cx.now()) / shares;
        cx.set_alarm(&mut self.alarm, RouteSource::Probe.at(key), Some(cx.now() + share));
    }

    /// Goes on after an event. Returns the outcome, once it is known.
    fn go_on(&mut self, scratch: &mut [u8]) -> Option<Outcome> {
        if let Stage::Connecting(first) = &self.stage {
            match self.conn.begin_with(first, self.suspect) {
                Ok(Begun::Waiting) => return None,
                Err(error) => return Some(outcome(&error)),
                Ok(Begun::Sent(_)) if !self.awaits_status => return Some(Outcome::Passed),
                Ok(Begun::Sent(count)) => {
                    // The kernel has room for so little; if not, the rest follows.
                    let rest = first.get(count..).unwrap_or_default();
                    self.conn.output_mut().extend_from_slice(rest);
                    self.stage = Stage::Asked(Vec::new());
                }
            }
        }
        let Stage::Asked(answer) = &mut self.stage else {
            return None;
        };
        // If it fails, the read tells.
        let _ = self.conn.flush();
        loop {
            match self.conn.read(scratch) {
                Received::Nothing => return None,
                Received::Bytes(count) => answer.extend_from_slice(scratch.get(..count).unwrap_or_default()),
                Received::End | Received::Cut | Received::Failed => {
                    let why = match self.conn.error() {
                        Some(error) => format!("no answer: {error}"),
                        None => "the connection was closed without an answer".to_owned(),
                    };
                    return Some(Outcome::Failed(why));
                }
            }
            if let Some(outcome) = judge(answer) {
                return Some(outcome);
            }
        }
    }
}

/// Returns the outcome by the beginning of an answer, once it has its status. Heads with a status of 100 to 199, but for
/// 101, come before the one that counts (RFC 9110, section 15.2).
fn judge(answer: &[u8]) -> Option<Outcome> {
    let is_long = answer.len() >= LONGEST_HEAD;
    let mut rest = answer;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let outcome = response.parse(rest);
        match (response.code, outcome) {
            (Some(200..=399), _) => return Some(Outcome::Passed),
            (Some(100 | 102..=199), Ok(httparse::Status::Complete(length))) => {
                rest = rest.get(length..).unwrap_or_default();
            }
            (Some(100 | 102..=199) | None, Ok(_)) if !is_long => return None,
            (Some(code), _) => return Some(Outcome::Failed(format!("it has answered {code}"))),
            (None, Ok(_) | Err(_)) => return Some(Outcome::Failed("its answer is no HTTP".to_owned())),
        }
    }
}

/// Returns the outcome of a check that could not connect.
fn outcome(error: &io::Error) -> Outcome {
    match fault(error) {
        ConnectFault::Daemon => Outcome::Unknown,
        ConnectFault::Absent | ConnectFault::Server => Outcome::Failed(error.to_string()),
    }
}

/// Returns the bytes that a server gets first.
fn first_bytes(subject: &Subject) -> Vec<u8> {
    let own = Described {
        client: Asserted::Proxy,
        to: None,
        authority: None,
        alpn: None,
    };
    let mut first = match subject.send_proxy {
        None => Vec::new(),
        Some(ProxyVersion::One) => own.version_1(),
        Some(ProxyVersion::Two) => own.version_2(),
    };
    if let Question::Http(path) = &subject.check.question {
        let host = host(subject);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: iotcpd\r\nConnection: close\r\n\r\n");
        first.extend_from_slice(request.as_bytes());
    }
    first
}

/// Returns the name that a server is asked for: that of its service if that is one name, else its own.
fn host(subject: &Subject) -> Arc<str> {
    let is_one_name = !subject.service.starts_with("*.") && &*subject.service != CATCH_ALL;
    match &*subject.address {
        _ if is_one_name => Arc::clone(&subject.service),
        Address::Unix(_) | Address::Tunnel(_) => "localhost".into(),
        address @ Address::Network { .. } => address.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_its_status_at_every_split() {
        let cases: [(&[u8], Option<Outcome>); 9] = [
            (b"HTTP/1.1 200 OK\r\n", Some(Outcome::Passed)),
            (b"HTTP/1.0 302 Found\r\nLocation: /x\r\n\r\n", Some(Outcome::Passed)),
            (
                b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
                Some(Outcome::Failed("it has answered 503".to_owned())),
            ),
            (
                b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n",
                Some(Outcome::Passed),
            ),
            (
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\n",
                Some(Outcome::Failed("it has answered 500".to_owned())),
            ),
            (b"HTTP/1.1 103 Early Hints\r\n\r\n", None),
            (
                b"HTTP/1.1 101 Switching Protocols\r\n",
                Some(Outcome::Failed("it has answered 101".to_owned())),
            ),
            (
                b"SSH-2.0-OpenSSH_9.2\r\n",
                Some(Outcome::Failed("its answer is no HTTP".to_owned())),
            ),
            (b"HTTP/1.1 20", None),
        ];
        for (answer, expected) in cases {
            let first = (0..=answer.len()).find_map(|length| judge(&answer[..length]));
            assert_eq!(first, expected, "{}", answer.escape_ascii());
        }
        let endless = [&b"HTTP/1.1 "[..], &[b' '; LONGEST_HEAD]].concat();
        assert!(matches!(judge(&endless), Some(Outcome::Failed(_))));
        let hints = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(LONGEST_HEAD / 28 + 1);
        assert!(matches!(judge(&hints), Some(Outcome::Failed(_))));
    }
}
