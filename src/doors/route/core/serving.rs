//! Routes whose server is a program of the door: they connect when the [`Starter`] says so, wait
//! for it, or are refused.

use std::sync::Arc;
use std::time::Instant;

use super::ending::{Ending, Phase};
use super::event::{Event, RouteId, Side, Step};
use super::life::{Connecting, Life, PROGRAM_SLACK, Routed, Starting, State};
use super::router::Router;
use super::starter::{Counts, Descent, Failure, Order, Plan, ProgramEvent, ProgramId, Reply, Starter};
use super::table::{Choice, Way};
use super::turn::{Turn, connecting_to};

impl Router {
    /// Puts other programs in the place of those of before: see [`Starter::replace`]. Must be called with each table that
    /// names programs.
    pub fn replace_programs(&mut self, plans: &[(Plan, Descent)], now: Instant) -> Vec<ProgramId> {
        self.starter.replace(plans, now)
    }

    /// Has every program end when no route uses it.
    pub fn retire_programs(&mut self, now: Instant) {
        self.starter.retire_all(now);
    }

    /// Moves a program on by an event.
    pub fn handle_program(&mut self, id: ProgramId, event: ProgramEvent, now: Instant) {
        self.starter.handle(id, event, now);
    }

    /// Returns the next order about programs. Must be called until it returns `None` after each event of a route or of a
    /// program.
    pub fn next_order(&mut self) -> Option<Order> {
        self.starter.next_order()
    }

    /// Returns the programs.
    pub fn programs(&self) -> &Starter {
        &self.starter
    }

    /// Returns the numbers of programs since the start of the door.
    pub fn program_counts(&self) -> Counts {
        self.starter.counts()
    }

    /// Connects to a server of a service, or waits for the program of its server.
    pub(super) fn connect(&mut self, id: RouteId, life: &Life, choice: Choice, now: Instant) -> Turn {
        match self.program_of(&choice) {
            Some(program) => self.ask_program(id, life, choice, program, now),
            None => self.connect_to_server(id, life, choice, None, now),
        }
    }

    /// Connects to a server, of which this program was asked for leave.
    fn connect_to_server(
        &mut self,
        id: RouteId,
        life: &Life,
        choice: Choice,
        program: Option<ProgramId>,
        now: Instant,
    ) -> Turn {
        if let Some((share, server)) = self.choose(life, &choice, None, now) {
            return connecting_to(Routed { choice, server }, share, program, None, now);
        }
        self.release_program(program, now);
        match self.expect_client(id, choice, now) {
            Ok(turn) => turn,
            Err(_) => self.end(life, Ending::NoServer, None, now),
        }
    }

    /// Returns the program behind the servers of a choice. The responder to challenges of ACME has none.
    fn program_of(&self, choice: &Choice) -> Option<ProgramId> {
        match choice.way {
            Way::Tls | Way::Http => self.starter.planned(choice.rule.program?),
            Way::Acme => None,
        }
    }

    /// Asks a program for a route that has just been decided.
    fn ask_program(&mut self, id: RouteId, life: &Life, choice: Choice, program: ProgramId, now: Instant) -> Turn {
        let reply = self.starter.ask(program, id, now);
        let Some(server) = choice.servers.list.first() else {
            self.withdraw(program, reply, now);
            return self.end(life, Ending::NoServer, None, now);
        };
        let server = Arc::new(server.address.clone());
        self.obey(id, life, Routed { choice, server }, program, reply, now)
    }

    /// No server was found: the program has to start, or is starting.
    pub(super) fn await_program(
        &mut self,
        id: RouteId,
        life: &Life,
        connecting: Connecting,
        program: ProgramId,
        now: Instant,
    ) -> Turn {
        // The server is not blamed, and the route still has the program.
        let routed = self.leave(State::Connecting(connecting), now);
        let reply = self.starter.missed(program, id, now);
        match routed {
            Some(routed) => self.obey(id, life, routed, program, reply, now),
            None => {
                self.withdraw(program, reply, now);
                self.end(life, Ending::ProgramFailed, None, now)
            }
        }
    }

    pub(super) fn after_starting(
        &mut self,
        id: RouteId,
        life: &mut Life,
        starting: Starting,
        event: Event<'_>,
        now: Instant,
    ) -> Turn {
        let ending = match event {
            Event::Called => {
                let Starting {
                    routed, program, place, ..
                } = starting;
                let reply = self.starter.called(program, &place, id, now);
                return self.obey(id, life, routed, program, reply, now);
            }
            Event::Deadline if starting.until <= now => Ending::ProgramLate,
            Event::Lost(Side::Client) => Ending::ClientLeft(Phase::Connecting),
            Event::Abort => Ending::Stopped(Phase::Connecting),
            // The client is not read, so its bytes and its end keep; there is no server; and a client with a complete
            // wish is served although the door drains.
            Event::Bytes(_)
            | Event::Garbled { .. }
            | Event::Ended(_)
            | Event::Lost(Side::Server)
            | Event::Secured
            | Event::NotSecured
            | Event::TableCame
            | Event::ClientCame
            | Event::Connected
            | Event::ConnectFailed(_)
            | Event::Replied(_)
            | Event::Deadline
            | Event::Stop(_)
            | Event::Answered => return (State::Starting(starting), Step::Nothing),
        };
        self.finish(life, State::Starting(starting), ending, now)
    }

    fn obey(
        &mut self,
        id: RouteId,
        life: &Life,
        routed: Routed,
        program: ProgramId,
        reply: Reply,
        now: Instant,
    ) -> Turn {
        match reply {
            Reply::Connect => self.connect_to_server(id, life, routed.choice, Some(program), now),
            Reply::Wait(place) => {
                // A route waits once for all runs of the program.
                let until = life.times.decided.unwrap_or(now) + self.starter.patience(program) + PROGRAM_SLACK;
                let starting = Starting {
                    routed,
                    program,
                    place,
                    until,
                };
                (State::Starting(starting), Step::Hold)
            }
            Reply::Refuse(failure) => {
                let ending = match failure {
                    Failure::Exited => Ending::ProgramFailed,
                    Failure::Late => Ending::ProgramLate,
                };
                self.end(life, ending, Some(routed), now)
            }
        }
    }

    /// Gives back what a reply has given to a route that does not take it.
    fn withdraw(&mut self, program: ProgramId, reply: Reply, now: Instant) {
        match reply {
            Reply::Connect => self.starter.release(program, now),
            Reply::Wait(place) => self.starter.leave(program, &place, now),
            Reply::Refuse(_) => {}
        }
    }

    /// Takes note that the server of a program was reached.
    pub(super) fn note_reached(&mut self, program: Option<ProgramId>, now: Instant) {
        if let Some(program) = program {
            self.starter.connected(program, now);
        }
    }

    /// Gives back the program that a route has connected by.
    pub(super) fn release_program(&mut self, program: Option<ProgramId>, now: Instant) {
        if let Some(program) = program {
            self.starter.release(program, now);
        }
    }
}
