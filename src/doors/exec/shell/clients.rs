//! The clients of the exec door: admitted, answered, and closed.

use log::Level;

use super::super::core::arguments::Arguments;
use super::super::core::client::{Client, ClientEvent, ClientState, Refusal};
use super::super::core::reply::{Outcome, Output};

use super::super::report;
use super::connection::Connection;
use super::lookups::{self, Looked};
use super::permits::{may_run_anything, permit_client};
use super::signals::Signals;
use super::{ExecDoor, ExecSource};
use crate::doors::Door;
use crate::doors::front::Topic;
use crate::doors::program_client::ProgramClient;
use crate::doors::programs::{REFUSAL, SYSTEM, UNREAD};
use crate::doors::run::RunEvent;
use crate::net::conn::{CloseStep, Conn};
use crate::net::origin::Origin;
use crate::process::exit_status::ExitStatus;
use crate::process::job::Job;
use crate::reactor::{Context, Key, Readiness, SourceKind};

impl ExecDoor {
    // ---- in ----------------------------------------------------------------------------------------------------

    /// Returns the connection if its client may have programs run, and takes a place for it. Otherwise the client was
    /// refused.
    pub(super) fn permit(&mut self, cx: &mut Context<'_>, conn: Conn, origin: &Origin) -> Option<Conn> {
        if may_run_anything(&self.options.programs, origin) {
            let why = "it is another machine, which without --allow-program could run anything here";
            self.front.deny(cx, origin, why);
            return None;
        }
        if let Err(why) = permit_client(&self.options.clients, &conn, origin) {
            self.counters.forbidden_clients += 1;
            self.turn_down(cx, conn, origin, report::FORBIDDEN_CLIENT, &why);
            return None;
        }
        if let Err(over) = self.front.count_in(origin) {
            self.turn_away(cx, conn, origin, over);
            return None;
        }
        Some(conn)
    }

    /// Adds the client of a connection that is permitted, and serves it.
    pub(super) fn add_client(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        let mut client = Client::new(self.options.policy, cx.now());
        if let Some(by) = self.front.hastened() {
            client.hasten(by);
        }
        let connection = Connection {
            peer: ProgramClient::new(conn, origin, cx.now()),
            client,
            reader: self.options.protocol.reader(self.options.max_arguments),
            encoder: self.options.protocol.encoder(),
            arguments: Arguments::default(),
            asked: None,
            looked: Looked::Not,
            program: None,
            signals: Signals::default(),
            unread_at_timeout: false,
        };
        let key = match self.connections.insert(connection) {
            Ok(key) => key,
            Err(connection) => return self.front.connection_closed(cx, &connection.peer.origin),
        };
        let Some(Connection { peer, .. }) = self.connections.get_mut(key) else {
            return;
        };
        if let Err(error) = peer.register(cx, ExecSource::Client.at(key)) {
            let line = format_args!("cannot watch {}: {error}", peer.origin);
            self.front.note(cx, Level::Error, SYSTEM, line);
            return self.close(cx, key);
        }
        self.trace(key, format_args!("connected"));
        self.pump(cx, key);
    }

    /// Refuses a client that is not admitted, in its protocol.
    pub(super) fn turn_down(&mut self, cx: &mut Context<'_>, conn: Conn, origin: &Origin, topic: Topic, why: &str) {
        let mut wire = Vec::new();
        self.options.protocol.encoder().turn_down(why, &mut wire);
        conn.turn_away(&wire, true);
        self.front
            .note(cx, Level::Warn, topic, format_args!("refused {origin}: {why}"));
    }

    pub(super) fn client_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.peer.note(readiness);
        if readiness.hung_up {
            self.tell(cx, key, ClientEvent::Gone);
        }
        self.pump(cx, key);
    }

    pub(super) fn client_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            if connection.peer.clear_alarm(cx) {
                return self.tell(cx, key, ClientEvent::Left);
            }
            self.look_at_the_clock(cx, key);
            self.tell(cx, key, ClientEvent::Tick);
            self.pump(cx, key);
        }
    }

    /// Counts an event of a connection that was in the state `before`, and logs it where it is worth a line.
    pub(super) fn count_event(&mut self, cx: &mut Context<'_>, key: Key, before: ClientState, event: ClientEvent) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let after = connection.client.state();
        if after == before {
            return;
        }
        match (before, event) {
            (_, ClientEvent::Arguments) => {
                self.counters.total += 1;
                connection.asked = Some(cx.now());
            }
            (ClientState::Served { run, .. }, ClientEvent::Gone) if !run.has_exited() => self.counters.vanished += 1,
            (ClientState::Answered { .. }, ClientEvent::Tick) => {
                self.counters.unread += 1;
                let origin = &connection.peer.origin;
                let line = format_args!("{origin} has left its answer unread for --write-timeout, and is let go");
                self.front.note(cx, Level::Warn, UNREAD, line);
            }
            _ => {}
        }
        match event {
            ClientEvent::Progress | ClientEvent::Program(RunEvent::OutputOver) => {}
            ClientEvent::Program(event) => self.trace(key, format_args!("{event:?}, now {}", after.name())),
            event => self.trace(key, format_args!("{event:?}, now {}", after.name())),
        }
    }

    // ---- told --------------------------------------------------------------------------------------------------

    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, key: Key, refusal: Refusal) {
        self.log_run(key);
        let why = report::refusal(refusal);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.encoder.turn_down(&why, connection.peer.conn.output_mut());
        let client = connection.peer.description();
        self.counters.refused += 1;
        let line = format_args!("refused {client}: {why}");
        self.front.note(cx, Level::Warn, REFUSAL, line);
    }

    /// Tells the client the exit status of the program. The run is logged once that is written, so that no client waits
    /// for the log.
    pub(super) fn conclude(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Connection {
            encoder, peer, program, ..
        } = connection;
        let status = program.as_ref().and_then(Job::exit).and_then(|exit| exit.status);
        let output = peer.conn.output_mut();
        if connection.unread_at_timeout {
            let line = b"iotcpd: the program was ended by --timeout while its output waited to be read\n";
            encoder.output(Output::Stderr, line, output);
        }
        match status {
            Some(ExitStatus::Code(code)) => encoder.conclude(Outcome::Code(code), output),
            Some(ExitStatus::Signal { number, core_dumped }) => {
                encoder.conclude(Outcome::Signal { number, core_dumped }, output);
            }
            None => encoder.turn_down("how the program has ended cannot be known", output),
        }
    }

    // ---- out ---------------------------------------------------------------------------------------------------

    /// Begins the lingering close. Must be called once the client has everything.
    pub(super) fn begin_close(&mut self, cx: &mut Context<'_>, key: Key) {
        self.log_run(key);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if let Some(program) = connection.program.take() {
            program.close(cx);
        }
        if connection.peer.begin_close(cx.now()) == CloseStep::Done {
            self.tell(cx, key, ClientEvent::Left);
        }
    }

    pub(super) fn close(&mut self, cx: &mut Context<'_>, key: Key) {
        self.log_run(key);
        let Some(mut connection) = self.connections.remove(key) else {
            return;
        };
        if let Some(program) = connection.program.take() {
            program.close(cx);
        }
        lookups::withdraw(&mut self.desk, &connection);
        let source = ExecSource::Client.at(key);
        connection.peer.close(cx, source, &mut self.front, &mut self.hoard);
    }
}
