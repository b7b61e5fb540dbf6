//! Beginning, change and end of an exec door: start, reload, drain, stop.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::core::client::{ClientEvent, ClientState};
use super::super::core::counters::{Counters, Traffic};
use super::super::options::Options;
use super::lookups::Desk;
use super::permits::check_listeners;
use super::{ExecDoor, ExecSource};
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
use crate::process::spawn::Spawner;
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Context, Key, SourceKind};

/// Once the door drains, a client whose arguments are not complete has so long to complete them.
const LAST_WORDS: Duration = Duration::from_millis(500);

impl ExecDoor {
    /// A door that listens already but serves nobody yet; [`start`](crate::doors::Door::start) gives it life.
    ///
    /// # Errors
    /// The lists of who may run what do not suffice for one of the listeners.
    pub fn new(options: Options, spawner: Spawner, listeners: Listeners, now: Instant) -> Result<ExecDoor, Error> {
        check_listeners(
            &options,
            listeners.iter().map(|(address, listener)| (address, listener)),
        )?;
        Ok(ExecDoor {
            listening: Listening::new(ExecSource::Listener.kind(), listeners),
            connections: GenerationalSlab::default(),
            count: ConnectionCount::new(options.front.connection_limits.clone()),
            starting: VecDeque::new(),
            counters: Counters::default(),
            traffic: Traffic::default(),
            times: Times::default(),
            hoard: Hoard::default(),
            desk: Desk::default(),
            closing: Closing::new(module_path!(), ExecSource::Closing.only()),
            journal: Journal::new(module_path!(), ExecSource::Upkeep.only()),
            started: now,
            options,
            spawner,
        })
    }

    pub(in crate::doors::exec) fn begin_accepting(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let registered = self.listening.register(cx, &self.options.front.name);
        registered.map_err(|error| cannot_watch(&error))?;
        log::info!(service:% = self.options.front.name; "{}: ready", self.options.front.name);
        Ok(())
    }

    pub(in crate::doors::exec) fn listening(&self) -> impl Iterator<Item = (&ListenAddr, &Listener)> {
        self.listening.iter()
    }

    // ---- change ------------------------------------------------------------------------------------------------

    /// Takes on new options, for those who connect from now on; `new` are the listeners for addresses that were not listened
    /// on before.
    pub(in crate::doors::exec) fn change(
        &mut self,
        cx: &mut Context<'_>,
        options: Options,
        spawner: Spawner,
        new: Listeners,
    ) -> Result<(), Error> {
        let stays = |(address, _): &(&ListenAddr, _)| options.front.listen.contains(address);
        let new_ones = new.iter().map(|(address, listener)| (address, listener));
        check_listeners(&options, self.listening.iter().filter(stays).chain(new_ones))?;
        self.spawner = spawner;
        self.options = options;
        self.count.set_limits(self.options.front.connection_limits.clone());
        let FrontOptions { name, listen, .. } = &self.options.front;
        self.listening.replace(cx, name, listen, new);
        Ok(())
    }

    /// Programs are started with this from now on.
    pub(in crate::doors::exec) fn start_with(&mut self, spawner: Spawner) {
        self.spawner = spawner;
        let name = &self.options.front.name;
        log::info!(service:% = name; "{name}: programs that are started from now on find the directories and limits of now");
    }

    // ---- end ---------------------------------------------------------------------------------------------------

    pub(in crate::doors::exec) fn begin_draining(&mut self, cx: &mut Context<'_>) {
        if self.closing.is_far() {
            // Who has connected is in, even if nobody has accepted him yet.
            self.accept_all(cx);
            self.listening.close();
            self.finish(cx);
        }
        // Those of a door that finishes already, because a successor serves, have had all the time they wanted.
        if self.closing.is_patient() {
            let by = cx.now() + LAST_WORDS;
            for key in self.keys() {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.client.hasten(by);
                    self.pump(cx, key);
                }
            }
        }
    }

    /// Others are accepted by the successor; who was accepted here has all the time that he would have had.
    pub(in crate::doors::exec) fn leave_to_successor(&mut self, cx: &mut Context<'_>) {
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
            self.tell_everybody(cx, ClientEvent::Stop);
        }
    }

    pub(in crate::doors::exec) fn hurry_everybody(&mut self, cx: &mut Context<'_>) {
        self.listening.close();
        self.closing.hurry(cx);
        self.tell_everybody(cx, ClientEvent::Abort);
    }

    fn tell_everybody(&mut self, cx: &mut Context<'_>, event: ClientEvent) {
        for key in self.keys() {
            self.tell(cx, key, event);
            self.pump(cx, key);
        }
    }

    pub(in crate::doors::exec) fn is_over(&self) -> bool {
        // Who has been told everything, and sends on, does not hold up the end.
        let parts = |state| state == ClientState::Closing;
        !self.closing.is_far() && self.connections.iter().all(|(_, it)| parts(it.client.state()))
    }

    fn keys(&self) -> Vec<Key> {
        self.connections.iter().map(|(key, _)| key).collect()
    }
}
