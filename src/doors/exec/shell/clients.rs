//! The clients of the exec door: admitted, answered, and closed.

use std::time::Duration;

use log::Level;
use mio::Interest;

use super::super::core::arguments::Arguments;
use super::super::core::client::{Client, ClientEvent, ClientState, Refusal};
use super::super::core::reply::{Outcome, Output};

use super::super::report;
use super::connection::Connection;
use super::lookups::{self, Looked};
use super::permits::{may_run_anything, permit_client};
use super::signals::Signals;
use super::{ExecDoor, ExecSource};
use crate::buffer::Buffer;
use crate::doors::front::Topic;
use crate::doors::programs::{REFUSAL, SYSTEM, UNREAD};
use crate::doors::run::RunEvent;
use crate::doors::standstill::Watch;
use crate::net::conn::{CloseStep, Conn, LingerLimits};
use crate::net::origin::Origin;
use crate::process::exit_status::ExitStatus;
use crate::reactor::{Alarm, Context, Key, Readiness, SourceKind};

/// A client may be sending a large file to a program that has ended without reading it, and reads its answer only
/// behind that: so there is no limit in bytes.
const LINGER: LingerLimits = LingerLimits {
    time: Duration::from_secs(5),
    bytes: usize::MAX,
};

impl ExecDoor {
    // ---- in ----------------------------------------------------------------------------------------------------

    pub(super) fn welcome(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        if may_run_anything(&self.options.programs, &origin) {
            let why = "it is another machine, which without --allow-program could run anything here";
            return self.front.deny(cx, &origin, why);
        }
        if let Err(why) = permit_client(&self.options.clients, &conn, &origin) {
            self.counters.forbidden_clients += 1;
            return self.turn_away(cx, conn, &origin, report::FORBIDDEN_CLIENT, &why);
        }
        if let Err(over) = self.front.count_in(&origin) {
            let why = format!("{over} ({})", over.flag());
            return self.turn_away(cx, conn, &origin, over.topic(), &why);
        }
        // Output leaves as it comes, and the kernel notices a client over TCP that dies in silence. An error means that
        // the peer has gone, which the next read tells as well.
        let _ = conn.socket().set_nodelay().and_then(|()| conn.socket().set_keepalive());
        let connection = Connection {
            conn,
            origin,
            accepted: cx.now(),
            client: Client::new(self.options.policy, cx.now()),
            reader: self.options.protocol.reader(self.options.max_arguments),
            encoder: self.options.protocol.encoder(),
            alarm: Alarm::default(),
            arguments: Arguments::default(),
            asked: None,
            looked: Looked::Not,
            program: None,
            input: Buffer::default(),
            input_ends: false,
            signals: Signals::default(),
            watch: Watch::default(),
            growth: 0,
            unread_at_timeout: false,
        };
        let key = match self.connections.insert(connection) {
            Ok(key) => key,
            Err(connection) => return self.front.connection_closed(cx, &connection.origin),
        };
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = cx.register(ExecSource::Client.at(key), &mut connection.conn, both) {
            let line = format_args!("cannot watch {}: {error}", connection.origin);
            self.front.note(cx, Level::Error, SYSTEM, line);
            return self.close(cx, key);
        }
        self.trace(key, format_args!("connected"));
        self.pump(cx, key);
    }

    /// Refuses a client that is not admitted, in its protocol.
    fn turn_away(&mut self, cx: &mut Context<'_>, conn: Conn, origin: &Origin, topic: Topic, why: &str) {
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
        connection.conn.note(readiness);
        if readiness.hung_up {
            self.tell(cx, key, ClientEvent::Gone);
        }
        self.pump(cx, key);
    }

    pub(super) fn client_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            cx.clear_alarm(&mut connection.alarm);
            if connection.conn.close_deadline().is_some_and(|until| until <= cx.now()) {
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
            (ClientState::Remains { .. } | ClientState::Answered { .. }, ClientEvent::Tick) => {
                self.counters.unread += 1;
                let origin = &connection.origin;
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
        connection.encoder.turn_down(&why, connection.conn.output_mut());
        let who = connection.who();
        self.counters.refused += 1;
        let line = format_args!("refused {who}: {why}");
        self.front.note(cx, Level::Warn, REFUSAL, line);
    }

    /// Tells the client the exit status of the program.
    pub(super) fn conclude(&mut self, key: Key) {
        let status = self.log_run(key).and_then(|exit| exit.status);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Connection { encoder, conn, .. } = connection;
        let output = conn.output_mut();
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
    pub(super) fn part(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if let Some(program) = connection.program.take() {
            program.close(cx);
        }
        let may_send = connection.conn.end().is_none() && !connection.reader.is_complete();
        if connection.conn.begin_close(may_send, LINGER, cx.now()) == CloseStep::Done {
            self.tell(cx, key, ClientEvent::Left);
        }
    }

    pub(super) fn close(&mut self, cx: &mut Context<'_>, key: Key) {
        self.log_run(key);
        let Some(mut connection) = self.connections.remove(key) else {
            return;
        };
        cx.set_alarm(&mut connection.alarm, ExecSource::Client.at(key), None);
        if let Some(program) = connection.program.take() {
            program.close(cx);
        }
        connection.watch.leave(&mut self.hoard);
        lookups::withdraw(&mut self.desk, &connection);
        self.front.release(&connection.origin);
        drop(connection);
        self.front.descriptor_freed(cx);
    }
}
