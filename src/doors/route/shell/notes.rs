//! The lines of the log, and the times of the statistics: how routes were decided and have ended, and which servers are
//! out.

use std::time::Instant;

use log::Level;

use super::super::access_log::Record;
use super::super::core::ending::{Ending, Phase, Refusal};
use super::super::core::event::{Side, Step};
use super::super::core::health::{HealthChange, MISSES, PASSES};
use super::super::core::life::{self, Life};
use super::super::report;
use super::routes::Route;
use super::{RouteDoor, id};
use crate::amount;
use crate::reactor::{Context, Key};

impl RouteDoor {
    /// Records the times that a route has taken until its server was connected.
    pub(super) fn record_times(&mut self, key: Key) {
        let Some(route) = self.routes.get(key) else { return };
        let times = route.life.times();
        if let (Some(decided), Some(connected)) = (times.decided, times.connected) {
            self.times
                .hello
                .record(decided.saturating_duration_since(times.accepted));
            self.times.connect.record(connected.saturating_duration_since(decided));
        }
    }

    /// Writes one step of a route to the log, with `debug`.
    pub(super) fn trace(&self, key: Key, step: &Step) {
        let Some(route) = self.routes.get(key).filter(|_| self.options.debug) else {
            return;
        };
        let words = match step {
            // They change nothing.
            Step::Nothing | Step::Judge => return,
            Step::Read => "its first bytes are awaited".to_owned(),
            Step::Reply(bytes) => format!("a request of PostgreSQL is answered {}", bytes.escape_ascii()),
            Step::Hold if route.life.stage() == life::Stage::Starting => {
                "the program of its server is awaited".to_owned()
            }
            Step::Hold if route.life.stage() == life::Stage::Expecting => {
                "a tunnel client of its service is expected".to_owned()
            }
            Step::Hold => "a table is awaited".to_owned(),
            Step::Connect => match route.life.routed() {
                Some(routed) => format!("service {:?}, server {}", routed.choice.service, routed.server),
                None => return,
            },
            Step::OpenStream(_) => match route.life.routed() {
                Some(routed) => format!("service {:?}, over {}", routed.choice.service, routed.server),
                None => return,
            },
            Step::Ask => "connected, and asked for TLS".to_owned(),
            Step::Relay => "connected".to_owned(),
            Step::Secure(_) => "its TLS ends here, and its handshake is awaited".to_owned(),
            Step::HandOver(door) => format!("handed over to the door {door}"),
            Step::Answer(_) => "answered".to_owned(),
            Step::Close { .. } => match route.life.ending() {
                Some(ending) => format!("closed ({})", ending.letters()),
                None => return,
            },
        };
        let (name, origin) = (self.front.name(), &route.origin);
        log::info!(service:% = name; "{name}: {origin}, route {}: {words}", id(key).0);
    }

    /// Writes the line about a connection that has ended, with `log-connections`. None is left out for being like others.
    /// `door` is the one that it was handed over to.
    pub(super) fn log_connection(&self, key: Key, route: &Route, door: Option<&str>, now: Instant) {
        self.log_record(&Record {
            number: id(key).0,
            client: &route.origin,
            life: &route.life,
            door,
            traffic: route.stage.traffic(),
            ended: now,
        });
    }

    /// Writes the same for a connection in whatever place.
    pub(super) fn log_record(&self, record: &Record<'_>) {
        if self.options.log_connections {
            let name = self.front.name();
            log::info!(service:% = name; "{name}: {record}");
        }
    }

    /// Logs changes of servers.
    pub(super) fn log_notices(&mut self, cx: &mut Context<'_>) {
        while let Some(notice) = self.router.next_notice() {
            let (service, server) = (&notice.service, &notice.server);
            match notice.change {
                HealthChange::Out { delay: Some(delay) } => {
                    let delay = amount::span(delay);
                    let line = format_args!("service {service:?}: server {server} is out for {delay}");
                    self.front.note(cx, Level::Error, report::SERVER, line);
                }
                HealthChange::Out { delay: None } => {
                    let why = notice.why.as_deref().unwrap_or("its checks have failed");
                    let line = format_args!(
                        "service {service:?}: server {server} is out: {MISSES} checks in a row have failed ({why}); it gets \
                         no connections until {PASSES} have passed"
                    );
                    self.front.note(cx, Level::Error, report::SERVER, line);
                }
                HealthChange::Back { after } => {
                    let after = amount::span(after);
                    let line = format_args!("service {service:?}: server {server} is back after {after}");
                    self.front.note(cx, Level::Warn, report::SERVER, line);
                }
            }
        }
    }

    /// Logs the end of a route, if it is one that an operator may want to know of.
    pub(super) fn log_end(&mut self, cx: &mut Context<'_>, route: &Route) {
        let origin = &route.origin;
        let name = name_of(route);
        let routed = route.life.routed();
        let service = routed.map_or("none", |routed| &routed.choice.service);
        let server = routed.map(|routed| routed.server.to_string()).unwrap_or_default();
        let Some(ending) = route.life.ending() else { return };
        match ending {
            Ending::Refused(Refusal::Opening(fault)) => {
                let line = format_args!("refused {origin}: {fault}");
                self.front.note(cx, Level::Info, report::OPENING, line);
            }
            Ending::Refused(refusal) => {
                let line = format_args!("refused {origin}, which asks for {name}: {refusal}");
                self.front.note(cx, Level::Info, report::NAME, line);
            }
            Ending::Slow => {
                let part = late_part(&route.life);
                let line = format_args!("refused {origin}: {part} not complete within --hello-timeout");
                self.front.note(cx, Level::Info, report::OPENING, line);
            }
            Ending::Garbled(Side::Client, fault, _) => {
                let line = format_args!("refused {origin}: its request {fault}");
                self.front.note(cx, Level::Info, report::REQUEST, line);
            }
            Ending::Garbled(Side::Server, fault, _) => {
                let line =
                    format_args!("service {service:?}: cut {origin} off from server {server}: its answer {fault}");
                self.front.note(cx, Level::Warn, report::ANSWER, line);
            }
            Ending::ClientLeft(Phase::Opening) => {
                let line = format_args!("{origin} has left before its first bytes were complete");
                self.front.note(cx, Level::Debug, report::OPENING, line);
            }
            Ending::NoServer => {
                let why = "its service has no server, or no tunnel client";
                let line = format_args!("{origin}, which asks for {name}, was not served: {why}");
                self.front.note(cx, Level::Error, report::CONNECT, line);
            }
            Ending::ProgramFailed
            | Ending::ProgramLate
            | Ending::ServerFailed
            | Ending::ServerLate
            | Ending::NoTls(_)
            | Ending::NoResources => {
                let why = unreached(ending);
                let line = format_args!("service {service:?}: {origin} was not served: server {server} {why}");
                self.front.note(cx, Level::Error, report::CONNECT, line);
            }
            // The good end; what clients and servers do; what the front logs; and the end of the door, which logs itself.
            Ending::Done
            | Ending::Redirected
            | Ending::NotSecured
            | Ending::HandedOver
            | Ending::ClientLeft(Phase::Connecting | Phase::Asking)
            | Ending::Cut(_)
            | Ending::Idle(_)
            | Ending::Stopped(_)
            | Ending::BrokenOff => {}
        }
    }
}

/// The name that a client asks for, in quotes, or the words for none.
fn name_of(route: &Route) -> String {
    match route.life.asked().name.as_deref() {
        Some(name) => format!("{name:?}"),
        None => "no name".to_owned(),
    }
}

/// The bytes of a client that were too late.
fn late_part(life: &Life) -> &'static str {
    match life.times().connected {
        None => "its first bytes were",
        Some(_) => "the head of its next request was",
    }
}

/// The reason for which a server was not reached.
fn unreached(ending: Ending) -> String {
    match ending {
        Ending::NoTls(reason) => return reason.to_string(),
        Ending::ProgramFailed => "is not there: its program has failed",
        Ending::ProgramLate => "was not there within its ready-timeout",
        Ending::ServerFailed => "cannot be reached",
        Ending::ServerLate => "was not reached within its connect-timeout",
        _ => "was not tried: this process is short of descriptors, ports or memory",
    }
    .to_owned()
}
