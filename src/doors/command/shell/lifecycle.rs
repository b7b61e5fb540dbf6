//! The command door as the daemon sees it: its start, its change, its end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use log::Level;

use super::super::core::event::Refusal;
use super::super::core::reply;
use super::super::core::scheduler::{Rules, Scheduler};
use super::super::options::Options;
use super::super::report;
use super::connection::Connection;
use super::{CommandDoor, CommandSource, Programs};
use crate::doors::dump::{FIRST, FIRST_PROCESSES};
use crate::doors::front::{Front, FrontKind, OverLimit};
use crate::doors::program_client::ProgramClient;
use crate::doors::programs::ProgramStatistics;
use crate::doors::standstill::Hoard;
use crate::doors::{self, Door, Listeners, Prepared, Shutdown};
use crate::error::Error;
use crate::net::conn::Conn;
use crate::net::origin::Origin;
use crate::process::rss::Survey;
use crate::reactor::{Context, SourceKind};
use crate::stats::Snapshot;

impl CommandDoor {
    /// A door that listens already but serves no client yet.
    pub fn new(options: Options, programs: Programs, listeners: Listeners, now: Instant) -> CommandDoor {
        let kind = FrontKind {
            module: module_path!(),
            listener: CommandSource::Listener.kind(),
            arrival: CommandSource::Arrival.kind(),
            upkeep: CommandSource::Upkeep.only(),
            drain: CommandSource::Drain.only(),
            at_stop_timeout: "what still runs is ended",
            serves_at_once: true,
        };
        CommandDoor {
            front: Front::new(kind, Arc::clone(&options.front), listeners, now),
            programs,
            scheduler: Scheduler::new(options.timing, options.list, rules(&options)),
            connections: BTreeMap::new(),
            runs: BTreeMap::new(),
            next_client: 0,
            starting: VecDeque::new(),
            statistics: ProgramStatistics::default(),
            hoard: Hoard::default(),
            options,
        }
    }

    fn pump_all(&mut self, cx: &mut Context<'_>) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            self.pump(cx, id);
        }
    }
}

impl Door for CommandDoor {
    fn front(&self) -> &Front {
        &self.front
    }

    fn front_mut(&mut self) -> &mut Front {
        &mut self.front
    }

    fn admit(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        match self.front.count_in(&origin) {
            Ok(()) => self.add_client(cx, conn, origin),
            Err(over) => self.turn_away(cx, conn, &origin, over),
        }
    }

    fn takes_handed(&self) -> bool {
        self.options.takes_handed
    }

    fn turn_away(&mut self, cx: &mut Context<'_>, conn: Conn, origin: &Origin, over: OverLimit) {
        let mut wire = Vec::new();
        reply::refusal(b"", &Refusal::Busy, &mut wire);
        conn.turn_away(&wire, false);
        let line = format_args!("refused {origin}: as many connections as {} allows", over.flag());
        self.front.note(cx, Level::Warn, over.topic(), line);
    }

    /// The options are for requests that are completed from now on. A program that runs goes on as it was started.
    fn reload(
        &mut self,
        cx: &mut Context<'_>,
        options: doors::Options,
        prepared: Prepared,
        new: Listeners,
    ) -> Result<(), Error> {
        let (options, programs) = match (options, prepared) {
            (doors::Options::Command(options), Prepared::Command(programs)) => (*options, programs),
            (other, _) => return Err(doors::other_kind(self.front.name(), &other)),
        };
        self.front.reload(cx, Arc::clone(&options.front), new);
        self.scheduler
            .reconfigure(options.timing, options.list, rules(&options), cx.now());
        self.programs = programs;
        self.options = options;
        self.obey(cx);
        Ok(())
    }

    fn set_prepared(&mut self, prepared: Prepared) {
        if let Prepared::Command(programs) = prepared {
            self.programs = programs;
            let name = self.front.name();
            log::info!(service:% = name; "{name}: programs that are started from now on find the directories and limits of now");
        }
    }

    fn shutdown(&mut self, cx: &mut Context<'_>, how: Shutdown) {
        match how {
            Shutdown::Drain { hasten: None } => return,
            Shutdown::Drain { hasten: Some(by) } => self.scheduler.hasten(by),
            Shutdown::Stop => self.scheduler.stop(cx.now()),
            Shutdown::Abort => self.scheduler.abort(cx.now()),
        }
        self.obey(cx);
        self.pump_all(cx);
    }

    fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    fn statistics(&self, now: Instant) -> Snapshot {
        let load = self.scheduler.total_load();
        report::snapshot(&self.scheduler.counters, &self.statistics, load, &self.front, now)
    }

    fn dump(&self, now: Instant) -> String {
        let held = self.connections.values().map(|Connection { peer, .. }| peer.held());
        let mut dump = ProgramClient::begin_dump(&self.front, "command door", held, now);
        self.describe_commands(&mut dump, now);
        let clients = self.connections.iter();
        let clients = clients.map(|(id, connection)| self.describe_client(*id, connection, now));
        dump.registers(FIRST, self.front.connections(), clients);
        let (survey, with_arguments) = (Survey::begin(now), self.options.log_arguments);
        let runs = self.runs.iter();
        let runs = runs.map(|(id, run)| run.describe(*id, &survey, with_arguments, now));
        dump.registers(FIRST_PROCESSES, self.runs.len(), runs);
        dump.text()
    }
}

/// Returns the rules that the scheduler decides by.
fn rules(options: &Options) -> Rules {
    let commands = options.commands.iter();
    commands
        .map(|command| (command.name.clone(), command.rule.clone()))
        .collect()
}
