//! Beginning, change and end of a command door: start, reload, drain, stop.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::super::core::counters::Traffic;
use super::super::core::scheduler::{Rule, Rules, Scheduler};
use super::super::options::{Command, Options};
use super::{CommandDoor, CommandSource, Programs};
use crate::doors::closing::Closing;
use crate::doors::front::options::FrontOptions;
use crate::doors::journal::Journal;
use crate::doors::on_request::Times;
use crate::doors::standstill::Hoard;
use crate::doors::{Listeners, cannot_watch};
use crate::error::Error;
use crate::net::addr::ListenAddr;
use crate::net::limits::ConnectionCount;
use crate::net::listener::Listener;
use crate::net::listening::{Accepting, Listening};
use crate::reactor::{Context, SourceKind};

/// Once the door drains, a client whose request is not complete has so long to complete it.
const LAST_WORDS: Duration = Duration::from_millis(500);

impl CommandDoor {
    /// A door that listens already but serves nobody yet; [`start`](crate::doors::Door::start) gives it life.
    pub fn new(options: Options, programs: Programs, listeners: Listeners, now: Instant) -> CommandDoor {
        CommandDoor {
            programs,
            listening: Listening::new(CommandSource::Listener.kind(), listeners),
            count: ConnectionCount::new(options.front.connection_limits.clone()),
            scheduler: Scheduler::new(options.timing, options.list, rules(&options)),
            connections: BTreeMap::new(),
            runs: BTreeMap::new(),
            next_client: 0,
            starting: VecDeque::new(),
            traffic: Traffic::default(),
            times: Times::default(),
            hoard: Hoard::default(),
            closing: Closing::new(module_path!(), CommandSource::Closing.only()),
            journal: Journal::new(module_path!(), CommandSource::Upkeep.only()),
            started: now,
            options,
        }
    }

    pub(in crate::doors::command) fn begin_accepting(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let registered = self.listening.register(cx, &self.options.front.name);
        registered.map_err(|error| cannot_watch(&error))?;
        log::info!(service:% = self.options.front.name; "{}: ready", self.options.front.name);
        Ok(())
    }

    pub(in crate::doors::command) fn listening(&self) -> impl Iterator<Item = (&ListenAddr, &Listener)> {
        self.listening.iter()
    }

    // ---- change ------------------------------------------------------------------------------------------------

    /// Takes on new options, for requests that are completed from now on; `new` are the listeners for addresses that were not
    /// listened on before. What runs goes on as it was started.
    pub(in crate::doors::command) fn change(
        &mut self,
        cx: &mut Context<'_>,
        options: Options,
        programs: Programs,
        new: Listeners,
    ) {
        self.programs = programs;
        self.options = options;
        self.count.set_limits(self.options.front.connection_limits.clone());
        let Options {
            front: FrontOptions { name, listen, .. },
            timing,
            list,
            ..
        } = &self.options;
        self.listening.replace(cx, name, listen, new);
        self.scheduler
            .reconfigure(*timing, *list, rules(&self.options), cx.now());
        self.obey(cx);
    }

    /// Programs are started with this from now on.
    pub(in crate::doors::command) fn start_with(&mut self, programs: Programs) {
        self.programs = programs;
        let name = &self.options.front.name;
        log::info!(service:% = name; "{name}: programs that are started from now on find the directories and limits of now");
    }

    // ---- end ---------------------------------------------------------------------------------------------------

    pub(in crate::doors::command) fn begin_draining(&mut self, cx: &mut Context<'_>) {
        if self.closing.is_far() {
            // Who has connected is in, even if nobody has accepted him yet.
            self.accept_all(cx);
            self.listening.close();
            self.finish(cx);
        }
        // Those of a door that finishes already, because a successor serves, have had all the time they wanted.
        if self.closing.is_patient() {
            self.scheduler.hasten(cx.now() + LAST_WORDS);
            self.pump_all(cx);
        }
    }

    /// Others are accepted by the successor; who was accepted here has all the time that he would have had.
    pub(in crate::doors::command) fn leave_to_successor(&mut self, cx: &mut Context<'_>) {
        if self.closing.is_far() {
            self.listening.leave(cx);
            self.finish(cx);
        }
    }

    fn finish(&mut self, cx: &mut Context<'_>) {
        let FrontOptions { name, stop_timeout, .. } = &self.options.front;
        self.closing.begin(cx, name, self.connections.len(), *stop_timeout);
    }

    pub(super) fn stop_timeout(&mut self, cx: &mut Context<'_>) {
        if self.closing.time_is_up(cx, &self.options.front.name) {
            self.scheduler.stop(cx.now());
            self.obey(cx);
            self.pump_all(cx);
        }
    }

    pub(in crate::doors::command) fn hurry_everybody(&mut self, cx: &mut Context<'_>) {
        self.listening.close();
        self.closing.hurry(cx);
        self.scheduler.abort(cx.now());
        self.obey(cx);
    }

    fn pump_all(&mut self, cx: &mut Context<'_>) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            self.pump(cx, id);
        }
    }

    pub(in crate::doors::command) fn is_over(&self) -> bool {
        !self.closing.is_far() && self.scheduler.is_idle()
    }
}

/// What the scheduler decides by.
fn rules(options: &Options) -> Rules {
    let rule = |command: &Command| Rule {
        threads: command.threads,
        arguments: command.arguments.clone(),
        queue: command.queue,
        max_wait: command.max_wait,
        join: command.join,
        timeout: command.timeout,
    };
    let commands = options.commands.iter();
    commands.map(|command| (command.name.clone(), rule(command))).collect()
}
