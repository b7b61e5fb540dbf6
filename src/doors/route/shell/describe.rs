//! The dump: the table, a line for each server in use, one for each that is checked, one for each program, and a line for
//! each route. Its cost is bounded, as that of every door's dump is.

use std::time::Instant;

use super::super::core::checks::{Found, Question, Subject};
use super::super::core::health::Health;
use super::super::core::life;
use super::super::core::table::Way;
use super::carrying::Traffic;
use super::routes::Route;
use super::{RouteDoor, id};
use crate::amount;
use crate::doors::dump::{Dump, FIRST};
use crate::reactor::Key;

impl RouteDoor {
    pub(super) fn describe(&self, now: Instant) -> String {
        let (front, upstreams) = (&self.front, self.router.upstreams());
        let (total, most) = (front.connections(), front.options().connection_limits.total);
        let load = format_args!("clients = {total} of {most}");
        let mut dump = Dump::begin(front.name(), "route door", front.uptime(now), String::new(), load);
        dump.front(front, now);
        dump.line(format_args!("table: names = {}", self.options.table.len()));
        if let Some(line) = self.describe_store(now) {
            dump.line(format_args!("{line}"));
        }
        let backends = upstreams.views().map(|view| {
            let (service, address, weight, active) = (view.service, view.address, view.weight, view.active);
            let (state, way) = (state_name(&view.health), way_name(view.way));
            format!(
                "backend of {service:?}: way = {way}, address = {address}, weight = {weight}, active = {active}, state = {state}"
            )
        });
        dump.list(FIRST, upstreams.known(), backends);
        let checker = self.router.checker();
        let checks = checker
            .views()
            .map(|(subject, found)| describe_check(subject, found, now));
        dump.list(FIRST, checker.count(), checks);
        dump.list(FIRST, self.sessions.list.len(), self.describe_sessions(now));
        dump.list(FIRST, self.programs.len(), self.describe_programs(now));
        let routes = self.routes.iter().map(|(key, route)| route.describe(key, now));
        dump.list(FIRST, self.routes.len(), routes);
        dump.text()
    }
}

impl Route {
    fn describe(&self, key: Key, now: Instant) -> String {
        let (number, since) = (id(key).0, now.saturating_duration_since(self.life.times().accepted));
        let (origin, stage, since) = (&self.origin, stage_name(self.life.stage()), amount::span(since));
        let server = self.life.routed().map(|routed| routed.server.to_string());
        let (server, Traffic { input, output, .. }) = (server.as_deref().unwrap_or("none"), self.stage.traffic());
        let name = self.life.asked().name.as_deref().unwrap_or("none");
        let mode = if self.life.is_filtered() {
            "http = per-request, "
        } else {
            ""
        };
        format!(
            "route {number}: state = {stage}, connected for = {since}, client = {origin}, server = {server}, \
             in = {input}, out = {output}, {mode}name = {name:?}"
        )
    }
}

fn describe_check(subject: &Subject, found: Option<&Found>, now: Instant) -> String {
    let (service, address) = (&subject.service, &subject.address);
    let question = match &subject.check.question {
        Question::Tcp => "tcp",
        Question::Http(path) => path,
    };
    let found = match found {
        None => "unknown".to_owned(),
        Some(Found { fault, since }) => {
            let time = amount::span(now.saturating_duration_since(*since));
            match fault {
                None => format!("passed for {time}"),
                Some(fault) => format!("failed for {time} ({fault})"),
            }
        }
    };
    format!("check of {service:?}: address = {address}, check = {question}, state = {found}")
}

fn way_name(way: Way) -> &'static str {
    match way {
        Way::Tls => "tls",
        Way::Http => "http",
        Way::Acme => "acme",
    }
}

fn state_name(health: &Health) -> &'static str {
    match health {
        Health::Up { .. } => "up",
        Health::Out(_) => "out",
        Health::Failing { .. } => "out by its checks",
    }
}

fn stage_name(stage: life::Stage) -> &'static str {
    match stage {
        life::Stage::Opening => "opening",
        life::Stage::Waiting => "waiting",
        life::Stage::Securing => "securing",
        life::Stage::Starting => "starting",
        life::Stage::Expecting => "expecting",
        life::Stage::Connecting => "connecting",
        life::Stage::Asking => "asking",
        life::Stage::Relaying => "relaying",
        life::Stage::Answering => "answering",
        life::Stage::Over => "over",
    }
}
