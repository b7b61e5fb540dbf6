//! The exec door as the daemon sees it: its start, its change, its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::super::core::client::{ClientEvent, ClientState};
use super::super::core::counters::Counters;
use super::super::options::Options;
use super::super::report;
use super::lookups::Desk;
use super::permits::check_listeners;
use super::{ExecDoor, ExecSource};
use crate::doors::dump::FIRST_PROCESSES;
use crate::doors::front::{Front, FrontKind, OverLimit};
use crate::doors::program_client::ProgramClient;
use crate::doors::programs::ProgramStatistics;
use crate::doors::standstill::Hoard;
use crate::doors::{self, Door, Listeners, Prepared, Shutdown};
use crate::error::Error;
use crate::net::addr::ListenAddr;
use crate::net::conn::Conn;
use crate::net::origin::Origin;
use crate::process::rss::Survey;
use crate::process::spawn::Spawner;
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Context, Key, SourceKind};
use crate::stats::Snapshot;

impl ExecDoor {
    /// A door that listens already but serves no client yet.
    ///
    /// # Errors
    /// The lists of programs and users do not suffice for one of the listeners.
    pub fn new(options: Options, spawner: Spawner, listeners: Listeners, now: Instant) -> Result<ExecDoor, Error> {
        check_listeners(
            &options,
            listeners.iter().map(|(listen, listener)| (&listen.address, listener)),
        )?;
        let kind = FrontKind {
            module: module_path!(),
            listener: ExecSource::Listener.kind(),
            arrival: ExecSource::Arrival.kind(),
            upkeep: ExecSource::Upkeep.only(),
            drain: ExecSource::Drain.only(),
            at_stop_timeout: "what still runs is ended",
            serves_at_once: true,
        };
        Ok(ExecDoor {
            front: Front::new(kind, Arc::clone(&options.front), listeners, now),
            connections: GenerationalSlab::default(),
            starting: VecDeque::new(),
            counters: Counters::default(),
            statistics: ProgramStatistics::default(),
            hoard: Hoard::default(),
            desk: Desk::default(),
            options,
            spawner,
        })
    }

    fn tell_all(&mut self, cx: &mut Context<'_>, event: ClientEvent) {
        for key in self.keys() {
            self.tell(cx, key, event);
            self.pump(cx, key);
        }
    }

    fn keys(&self) -> Vec<Key> {
        self.connections.iter().map(|(key, _)| key).collect()
    }
}

impl Door for ExecDoor {
    fn front(&self) -> &Front {
        &self.front
    }

    fn front_mut(&mut self) -> &mut Front {
        &mut self.front
    }

    fn start(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.open_desk(cx);
        Ok(())
    }

    fn admit(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        if let Some(conn) = self.permit(cx, conn, &origin) {
            self.add_client(cx, conn, origin);
        }
    }

    fn takes_handed(&self) -> bool {
        self.options.takes_handed
    }

    fn turn_away(&mut self, cx: &mut Context<'_>, conn: Conn, origin: &Origin, over: OverLimit) {
        let why = format!("{over} ({})", over.flag());
        self.turn_down(cx, conn, origin, over.topic(), &why);
    }

    /// The options are for clients that connect from now on.
    fn reload(
        &mut self,
        cx: &mut Context<'_>,
        options: doors::Options,
        prepared: Prepared,
        new: Listeners,
    ) -> Result<(), Error> {
        let (options, spawner) = match (options, prepared) {
            (doors::Options::Exec(options), Prepared::Exec(spawner)) => (*options, *spawner),
            (other, _) => return Err(doors::other_kind(self.front.name(), &other)),
        };
        let stays = |(address, _): &(&ListenAddr, _)| options.front.listens_on(address);
        let new_ones = new.iter().map(|(listen, listener)| (&listen.address, listener));
        check_listeners(&options, self.front.listening().iter().filter(stays).chain(new_ones))?;
        self.front.reload(cx, Arc::clone(&options.front), new);
        self.spawner = spawner;
        self.options = options;
        Ok(())
    }

    fn set_prepared(&mut self, prepared: Prepared) {
        if let Prepared::Exec(spawner) = prepared {
            self.spawner = *spawner;
            let name = self.front.name();
            log::info!(service:% = name; "{name}: programs that are started from now on find the directories and limits of now");
        }
    }

    fn shutdown(&mut self, cx: &mut Context<'_>, how: Shutdown) {
        match how {
            Shutdown::Drain { hasten: None } => {}
            Shutdown::Drain { hasten: Some(by) } => {
                for key in self.keys() {
                    if let Some(connection) = self.connections.get_mut(key) {
                        connection.client.hasten(by);
                        self.pump(cx, key);
                    }
                }
            }
            Shutdown::Stop => self.tell_all(cx, ClientEvent::Stop),
            Shutdown::Abort => self.tell_all(cx, ClientEvent::Abort),
        }
    }

    fn is_idle(&self) -> bool {
        // A client that has its whole answer, and goes on sending, does not hold up the end.
        let parts = |state| state == ClientState::Closing;
        self.connections.iter().all(|(_, it)| parts(it.client.state()))
    }

    fn statistics(&self, now: Instant) -> Snapshot {
        let running = self.connections.iter().filter(|(_, it)| it.program.is_some()).count();
        report::snapshot(&self.counters, &self.statistics, running, &self.front, now)
    }

    fn dump(&self, now: Instant) -> String {
        let held = self.connections.iter().map(|(_, connection)| connection.held());
        let mut dump = ProgramClient::begin_dump(&self.front, "exec door", held, now);
        let (survey, with_arguments) = (Survey::begin(now), self.options.log_arguments);
        let lines = self.connections.iter();
        let lines = lines.map(|(key, connection)| connection.describe(key, &survey, with_arguments, now));
        dump.registers(FIRST_PROCESSES, self.front.connections(), lines);
        dump.text()
    }
}
