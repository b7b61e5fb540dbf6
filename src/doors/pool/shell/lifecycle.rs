//! The pool as the daemon sees it: its start, its change, its end; and the upkeep in between.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use log::Level;

use super::super::core::{Dispatcher, Event, Health, StopMode};
use super::super::options::{Disclosure, Options};
use super::super::outage;
use super::super::report::{self, Held, Latencies, Topic};
use super::clients::Clients;
use super::desk::{Base, Outbox};
use super::sessions::Sessions;
use super::workers::Workers;
use super::workers::process::Stage;
use super::{Pool, PoolSource};
use crate::amount;
use crate::doors::front::{Front, FrontKind, OverLimit};
use crate::doors::{self, Door, Listeners, Prepared, Readiness, Shutdown};
use crate::error::{Blame, Error};
use crate::net::conn::Conn;
use crate::net::origin::Origin;
use crate::process::failure::SpawnError;
use crate::process::rss;
use crate::process::spawn::PreparedProgram;
use crate::reactor::{Alarm, Context, SourceKind};
use crate::stats::Snapshot;

impl Pool {
    /// A pool that listens already but does not serve yet; [`start`](crate::doors::Door::start) gives it life.
    pub fn new(options: Options, program: PreparedProgram, listeners: Listeners, now: Instant) -> Pool {
        // From the system's randomness: channel-IDs are made from it, and they are not to be foreseen.
        let seed = RandomState::new().hash_one(std::process::id());
        let kind = FrontKind {
            module: module_path!(),
            listener: PoolSource::Listener.kind(),
            arrival: PoolSource::Arrival.kind(),
            upkeep: PoolSource::Upkeep.only(),
            drain: PoolSource::Drain.only(),
            at_stop_timeout: "what is still in hand is refused",
            serves_at_once: false,
        };
        Pool {
            dispatcher_alarm: Alarm::default(),
            clients: Clients::new(options.cache.as_ref().map(|cache| cache.limits)),
            sessions: Sessions::default(),
            workers: Workers::new(program),
            latencies: Latencies::default(),
            disclosed_from: None,
            base: Base {
                dispatcher: Dispatcher::new(options.policy.clone(), now, seed),
                front: Front::new(kind, Arc::clone(&options.front), listeners, now),
                outbox: Outbox::default(),
                options,
            },
        }
    }

    pub(super) fn announce_rolled(&mut self) {
        self.clients.cache.end_roll();
        let but = match self.base.dispatcher.health() {
            Health::Down(_) => ", but none can serve yet",
            Health::Starting | Health::Serving => "",
        };
        let name = self.base.front.name();
        log::info!(service:% = name; "{name}: every worker has been replaced{but}");
    }

    // ---- end ---------------------------------------------------------------------------------------------------

    /// The end comes nearer when the last client is served and when the last process has gone.
    pub(super) fn advance_drain(&mut self, cx: &mut Context<'_>) {
        let is_served = !self.clients.any_unserved() && self.sessions.len() == 0;
        if self.base.front.is_draining() && !self.base.front.has_arrivals() && is_served {
            self.stop(cx, StopMode::EndInput);
        }
        if self.is_finished() {
            self.close_all(cx);
        }
    }

    fn stop(&mut self, cx: &mut Context<'_>, mode: StopMode) {
        self.base.front.stop(cx);
        self.base.front.stop_upkeep(cx);
        self.base.desk(cx).report(Event::Shutdown(mode));
        self.end_step(cx);
    }

    fn close_all(&mut self, cx: &mut Context<'_>) {
        self.workers.end_row(&self.base.options);
        self.base.front.finish_log();
        for key in self.clients.keys() {
            self.clients.close(&mut self.base.desk(cx), key);
        }
        for key in self.sessions.keys() {
            self.sessions.close(&mut self.base.desk(cx), key);
        }
    }

    // ---- in between --------------------------------------------------------------------------------------------

    /// Upkeep is due at every tick where memory is watched, and else when there are log lines to be summed up.
    fn plan_upkeep(&mut self, cx: &mut Context<'_>) {
        let Options { max_rss, policy, .. } = &self.base.options;
        let tick = max_rss.map(|_| cx.now() + policy.alarm_interval);
        self.base.front.plan_upkeep(cx, tick);
    }

    pub(super) fn upkeep(&mut self, cx: &mut Context<'_>) {
        self.base.front.sum_up(cx);
        self.look_at_memory(cx);
        self.plan_upkeep(cx);
    }

    fn look_at_memory(&mut self, cx: &mut Context<'_>) {
        let Some(limit) = self.base.options.max_rss else {
            return;
        };
        let serving = self.workers.iter().filter(|process| process.stage == Stage::Serving);
        // A process that has just ended has no memory to be read, and its end is reported by its pidfd.
        let outgrown = serving.filter_map(|process| {
            let resident = rss::resident_bytes(process.child.pid()).ok()?;
            (resident > limit).then_some((process.id, resident))
        });
        for (id, resident) in outgrown.collect::<Vec<_>>() {
            let label = self.workers.describe(id).unwrap_or_default();
            let (resident, limit) = (amount::size(resident), amount::limit(limit));
            let line = format_args!("{label} holds {resident}, more than --max-rss {limit}, and is replaced");
            self.note(cx, Level::Info, Topic::Outgrown, line);
            self.base.desk(cx).report(Event::Outgrown(id));
            self.settle(cx, None);
        }
    }
}

impl Door for Pool {
    fn front(&self) -> &Front {
        &self.base.front
    }

    fn front_mut(&mut self) -> &mut Front {
        &mut self.base.front
    }

    /// Starts the first worker at once: a program that cannot be started at all ends the daemon here. The others follow
    /// in the next turns, while the pool serves already.
    fn start(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.settle(cx, None);
        self.plan_upkeep(cx);
        match self.spawn_next(cx) {
            Err(error) if error.is_permanent() => return Err(cannot_start(&self.base.options, &error)),
            // A failure that may pass is tried again after a while, as that of any other worker.
            Ok(()) | Err(_) => self.settle(cx, None),
        }
        Ok(())
    }

    fn readiness(&self) -> Readiness {
        match self.base.dispatcher.health() {
            Health::Starting | Health::Down(_) => Readiness::Waiting,
            Health::Serving if self.base.dispatcher.is_in_full_force() => Readiness::Fully,
            Health::Serving => Readiness::Partly,
        }
    }

    fn waits_for(&self) -> String {
        match self.base.dispatcher.health() {
            Health::Down(_) => {
                let cause = self.workers.cause_of_outage(&self.base.options);
                format!("no worker can serve: {}", cause.unwrap_or_default())
            }
            Health::Starting | Health::Serving => outage::expectation(&self.base.options).to_owned(),
        }
    }

    fn places(&self) -> usize {
        self.base.dispatcher.places()
    }

    fn begin_with(&mut self, places: usize) {
        self.base.dispatcher.begin_with(places);
    }

    fn admit(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        self.add_connection(cx, conn, origin);
        self.end_step(cx);
    }

    fn takes_handed(&self) -> bool {
        true
    }

    fn turn_away(&mut self, cx: &mut Context<'_>, conn: Conn, origin: &Origin, over: OverLimit) {
        conn.turn_away(&self.base.options.error_reply, false);
        let line = format_args!("refused {origin}: as many connections as {} allows", over.flag());
        self.base.front.note(cx, Level::Warn, over.topic(), line);
    }

    fn reload(
        &mut self,
        cx: &mut Context<'_>,
        options: doors::Options,
        prepared: Prepared,
        new: Listeners,
    ) -> Result<(), Error> {
        let (options, program) = match (options, prepared) {
            (doors::Options::Pool(options), Prepared::Pool(program)) => (*options, *program),
            (other, _) => return Err(doors::other_kind(self.base.front.name(), &other)),
        };
        self.workers.program = program;
        if self.base.options.disclosure == Disclosure::Nothing {
            self.disclosed_from = Some(cx.now());
        }
        self.base.options = options;
        self.clients.reload(&self.base.options);
        self.base.front.reload(cx, Arc::clone(&self.base.options.front), new);
        let policy = Box::new(self.base.options.policy.clone());
        self.base.desk(cx).report(Event::Reconfigure(policy));
        self.end_step(cx);
        self.plan_upkeep(cx);
        Ok(())
    }

    fn set_prepared(&mut self, prepared: Prepared) {
        if let Prepared::Pool(program) = prepared {
            self.workers.program = *program;
        }
    }

    /// Replaces every worker, unless the pool drains: then they are about to go.
    fn roll(&mut self, cx: &mut Context<'_>) {
        if self.base.front.is_serving() {
            let (name, workers) = (self.base.front.name(), self.base.dispatcher.places());
            log::info!(service:% = name; "{name}: replacing every worker, {workers} of them");
            self.clients.cache.begin_roll();
            // Their limits may be others now, and clients may be wanted elsewhere.
            self.clients.announce_drain(&mut self.base.desk(cx));
            // The operator has changed something, and is to see what they say now.
            self.workers.end_row(&self.base.options);
            self.base.desk(cx).report(Event::Roll);
            self.end_step(cx);
        }
    }

    fn shutdown(&mut self, cx: &mut Context<'_>, how: Shutdown) {
        match how {
            Shutdown::Drain { hasten } => {
                self.advance_drain(cx);
                self.clients.announce_drain(&mut self.base.desk(cx));
                if let Some(by) = hasten.filter(|_| self.base.front.is_draining()) {
                    self.clients.hasten_readers(by);
                }
                self.end_step(cx);
            }
            Shutdown::Stop => self.stop(cx, StopMode::Terminate),
            Shutdown::Abort => self.stop(cx, StopMode::Kill),
        }
    }

    fn is_idle(&self) -> bool {
        self.base.front.is_stopping() && self.base.dispatcher.is_finished()
    }

    fn statistics(&self, now: Instant) -> Snapshot {
        let held = Held {
            cached: self.clients.cache.size(),
            sessions: self.sessions.totals(),
            multiplexed: self.clients.multiplexed(),
        };
        report::snapshot(
            &self.base.dispatcher,
            &self.latencies,
            &self.base.options,
            &held,
            &self.base.front,
            now,
        )
    }

    fn dump(&self, now: Instant) -> String {
        self.describe(now)
    }
}

/// The worker program cannot be started at all: the operator has to change something.
pub(in crate::doors::pool) fn cannot_start(options: &Options, error: &SpawnError) -> Error {
    Error::with_remedy(Blame::System, format_args!("{}: {error}", options.front.name))
}
