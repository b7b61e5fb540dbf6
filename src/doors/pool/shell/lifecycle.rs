//! Beginning, change and end of a pool: start, reload, roll, drain, stop; and the upkeep in between.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use log::Level;

use super::super::core::{Dispatcher, Event, Health, StopMode};
use super::super::options::{Disclosure, Options};
use super::super::report::{Latencies, Topic};
use super::clients::Clients;
use super::desk::Outbox;
use super::sessions::Sessions;
use super::workers::Workers;
use super::workers::process::Stage;
use super::{Pool, PoolSource};
use crate::amount;
use crate::doors::front::options::FrontOptions;
use crate::doors::journal::Journal;
use crate::doors::{Listeners, cannot_watch};
use crate::error::{Blame, Error};
use crate::net::addr::ListenAddr;
use crate::net::limits::ConnectionCount;
use crate::net::listener::Listener;
use crate::net::listening::{Accepting, Listening};
use crate::process::failure::SpawnError;
use crate::process::rss;
use crate::process::spawn::PreparedProgram;
use crate::reactor::{Alarm, Context, SourceKind};

/// Once the pool drains, a client that has connected but not finished its line has so long to do so.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The stages of a pool's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Serving,
    /// No connection is accepted any more; clients that are connected get their answers.
    Draining,
    /// The workers end, and then the pool.
    Stopping,
}

impl Pool {
    /// A pool that listens already but does not serve yet; [`start`](crate::doors::Door::start) gives it life.
    pub fn new(options: Options, program: PreparedProgram, listeners: Listeners, now: Instant) -> Pool {
        // From the system's randomness: channel-IDs are made from it, and they are not to be foreseen.
        let seed = RandomState::new().hash_one(std::process::id());
        Pool {
            dispatcher: Dispatcher::new(options.policy.clone(), now, seed),
            dispatcher_alarm: Alarm::default(),
            listening: Listening::new(PoolSource::Listener.kind(), listeners),
            clients: Clients::new(options.cache.as_ref().map(|cache| cache.limits)),
            connections: ConnectionCount::new(options.front.connection_limits.clone()),
            sessions: Sessions::default(),
            workers: Workers::new(program),
            life: Life::Serving,
            life_alarm: Alarm::default(),
            latencies: Latencies::default(),
            journal: Journal::new(module_path!(), PoolSource::Upkeep.only()),
            started: now,
            disclosed_from: None,
            outbox: Outbox::default(),
            options,
        }
    }

    pub(in crate::doors::pool) fn size(&self) -> usize {
        self.dispatcher.places()
    }

    pub(in crate::doors::pool) fn begin_with_size(&mut self, places: usize) {
        self.dispatcher.begin_with(places);
    }

    /// Starts the first worker at once: a program that cannot be started at all ends the daemon here. The others follow
    /// in the next turns, while the pool serves already.
    pub(in crate::doors::pool) fn begin(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.settle(cx, None);
        self.plan_upkeep(cx);
        self.spawn_next(cx).map_err(|error| cannot_start(&self.options, &error))
    }

    pub(in crate::doors::pool) fn begin_accepting(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.listening
            .register(cx, &self.options.front.name)
            .map_err(|error| cannot_watch(&error))
    }

    pub(in crate::doors::pool) fn listening(&self) -> impl Iterator<Item = (&ListenAddr, &Listener)> {
        self.listening.iter()
    }

    // ---- change ------------------------------------------------------------------------------------------------

    /// Takes on new options, and what their workers are started with; `new` are the listeners for addresses that were
    /// not listened on before.
    pub(in crate::doors::pool) fn change(
        &mut self,
        cx: &mut Context<'_>,
        options: Options,
        program: PreparedProgram,
        new: Listeners,
    ) {
        self.workers.set_program(program);
        if self.options.disclosure == Disclosure::Nothing {
            self.disclosed_from = Some(cx.now());
        }
        self.options = options;
        self.clients
            .cache_mut()
            .set_limits(self.options.cache.as_ref().map(|cache| cache.limits));
        self.connections
            .set_limits(self.options.front.connection_limits.clone());
        let FrontOptions { name, listen, .. } = &self.options.front;
        self.listening.replace(cx, name, listen, new);
        self.report(Event::Reconfigure(Box::new(self.options.policy.clone())));
        self.end_step(cx);
        self.plan_upkeep(cx);
    }

    /// Workers are started with this from now on.
    pub(in crate::doors::pool) fn start_with(&mut self, program: PreparedProgram) {
        self.workers.set_program(program);
    }

    /// Replaces every worker; not in a pool that drains, whose workers are about to go.
    pub(in crate::doors::pool) fn begin_rolling(&mut self, cx: &mut Context<'_>) {
        if self.life == Life::Serving {
            let (name, workers) = (&self.options.front.name, self.dispatcher.places());
            log::info!(service:% = name; "{name}: replacing every worker, {workers} of them");
            self.clients.cache_mut().begin_roll();
            // The operator has changed something, and is to see what they say now.
            self.workers.end_row(&self.options);
            self.report(Event::Roll);
            self.end_step(cx);
        }
    }

    pub(super) fn announce_rolled(&mut self) {
        self.clients.cache_mut().end_roll();
        let but = match self.dispatcher.health() {
            Health::Down(_) => ", but none can serve yet",
            Health::Starting | Health::Serving => "",
        };
        let name = &self.options.front.name;
        log::info!(service:% = name; "{name}: every worker has been replaced{but}");
    }

    // ---- end ---------------------------------------------------------------------------------------------------

    pub(in crate::doors::pool) fn begin_draining(&mut self, cx: &mut Context<'_>) {
        if self.life == Life::Serving {
            // A client that has connected is served, even if its connection was not accepted yet.
            self.accept_all(cx);
            self.listening.close();
            self.finish(cx);
        }
        // Those of a pool that finishes already, because a successor serves, have had all the time they wanted.
        if self.life == Life::Draining {
            self.clients.hasten_readers(cx.now() + LAST_WORDS);
        }
        self.end_step(cx);
    }

    /// Leaves new connections to the successor. A client that was accepted here has all the time that it would have
    /// had: no end of the daemon waits for this pool.
    pub(in crate::doors::pool) fn leave_to_successor(&mut self, cx: &mut Context<'_>) {
        if self.life == Life::Serving {
            self.listening.leave(cx);
            self.finish(cx);
        }
    }

    fn finish(&mut self, cx: &mut Context<'_>) {
        self.life = Life::Draining;
        log::info!(
            service:% = self.options.front.name; "{}: draining, {} clients connected",
            self.options.front.name,
            self.clients.len() + self.sessions.len()
        );
        cx.set_alarm(
            &mut self.life_alarm,
            PoolSource::Life.only(),
            Some(cx.now() + self.options.front.stop_timeout),
        );
        self.advance_life(cx);
    }

    /// The end comes nearer when the last client is served and when the last process has gone.
    pub(super) fn advance_life(&mut self, cx: &mut Context<'_>) {
        if self.life == Life::Draining && !self.clients.any_unserved() && self.sessions.len() == 0 {
            self.stop(cx, StopMode::EndInput);
        }
        if self.is_over() {
            self.close_all(cx);
        }
    }

    pub(super) fn stop_timeout(&mut self, cx: &mut Context<'_>) {
        cx.alarm_fired(&mut self.life_alarm);
        if self.life == Life::Draining {
            log::warn!(
                service:% = self.options.front.name; "{}: --stop-timeout is over; what is still in hand is refused",
                self.options.front.name
            );
            self.stop(cx, StopMode::Terminate);
        }
    }

    pub(in crate::doors::pool) fn stop(&mut self, cx: &mut Context<'_>, mode: StopMode) {
        self.listening.close();
        self.life = Life::Stopping;
        cx.set_alarm(&mut self.life_alarm, PoolSource::Life.only(), None);
        self.journal.stop(cx);
        self.report(Event::Shutdown(mode));
        self.end_step(cx);
    }

    pub(in crate::doors::pool) fn is_over(&self) -> bool {
        self.life == Life::Stopping && self.dispatcher.is_finished()
    }

    fn close_all(&mut self, cx: &mut Context<'_>) {
        self.workers.end_row(&self.options);
        self.journal.drain(&self.options.front.name);
        let mut rooms = self.rooms();
        for key in rooms.clients.keys() {
            rooms.clients.close(cx, &mut rooms.desk, key);
        }
        self.close_sessions(cx);
    }

    // ---- in between --------------------------------------------------------------------------------------------

    /// Upkeep is due at every tick where memory is watched, and else when there are log lines to be summed up.
    fn plan_upkeep(&mut self, cx: &mut Context<'_>) {
        let tick = self
            .options
            .max_rss
            .map(|_| cx.now() + self.options.policy.alarm_interval);
        self.journal.plan(cx, tick);
    }

    pub(super) fn upkeep(&mut self, cx: &mut Context<'_>) {
        self.journal.sum_up(cx, &self.options.front.name);
        self.look_at_memory(cx);
        self.plan_upkeep(cx);
    }

    fn look_at_memory(&mut self, cx: &mut Context<'_>) {
        let Some(limit) = self.options.max_rss else { return };
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
            self.report(Event::Outgrown(id));
            self.settle(cx, None);
        }
    }
}

/// The worker program cannot be started at all: the operator has to change something.
pub(in crate::doors::pool) fn cannot_start(options: &Options, error: &SpawnError) -> Error {
    Error::with_remedy(Blame::System, format_args!("{}: {error}", options.front.name))
}
