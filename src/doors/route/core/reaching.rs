//! Routes that make their handshake with the door, connect to a server, or ask it for TLS as PostgreSQL does, and go on to another one where that fails.

use std::time::Instant;

use super::ending::{Ending, Phase};
use super::event::{ConnectFault, Event, RouteId, Side, Step};
use super::health::HealthEvent;
use super::life::{Connecting, Destination, Life, State};
use super::router::Router;
use super::turn::Turn;

impl Router {
    /// The handshake has a deadline of its own, and a door that drains shortens that.
    pub(super) fn after_securing(
        &mut self,
        id: RouteId,
        life: &mut Life,
        destination: Destination,
        event: Event<'_>,
        now: Instant,
    ) -> Turn {
        let ending = match event {
            Event::Secured => {
                life.times.decided = Some(now);
                return self.go_to(id, life, destination, now);
            }
            Event::NotSecured => Ending::NotSecured,
            Event::Abort => Ending::Stopped(Phase::Opening),
            // No server and no table was asked for, and the client's bytes belong to the handshake.
            Event::Bytes(_)
            | Event::Garbled { .. }
            | Event::Ended(_)
            | Event::Lost(_)
            | Event::TableCame
            | Event::Called
            | Event::ClientCame
            | Event::Connected
            | Event::ConnectFailed(_)
            | Event::Replied(_)
            | Event::Answered
            | Event::Deadline
            | Event::Stop(_) => return (State::Securing(destination), Step::Nothing),
        };
        self.finish(life, State::Securing(destination), ending, now)
    }

    pub(super) fn after_connecting(
        &mut self,
        id: RouteId,
        life: &mut Life,
        mut connecting: Connecting,
        event: Event<'_>,
        now: Instant,
    ) -> Turn {
        let ending = match event {
            Event::Connected => {
                self.note_reached(connecting.program, now);
                if life.asked.starts_tls {
                    return (State::Asking(connecting), Step::Ask);
                }
                return self.relay(life, connecting, now);
            }
            Event::ConnectFailed(ConnectFault::Absent) => match connecting.program.take() {
                Some(program) => return self.await_program(id, life, connecting, program, now),
                None => return self.connect_failed(id, life, connecting, now),
            },
            Event::ConnectFailed(ConnectFault::Server) => return self.connect_failed(id, life, connecting, now),
            Event::Deadline if connecting.until <= now => return self.connect_late(id, life, connecting, now),
            Event::ConnectFailed(ConnectFault::Daemon) => Ending::NoResources,
            Event::Lost(Side::Client) => Ending::ClientLeft(Phase::Connecting),
            Event::Abort => Ending::Stopped(Phase::Connecting),
            // The client is not read, so its bytes and its end keep; a server that is not connected has nothing to end;
            // and a client with a complete wish is served although the door drains.
            Event::Bytes(_)
            | Event::Garbled { .. }
            | Event::Ended(_)
            | Event::Lost(Side::Server)
            | Event::Secured
            | Event::NotSecured
            | Event::TableCame
            | Event::Replied(_)
            | Event::Called
            | Event::ClientCame
            | Event::Deadline
            | Event::Stop(_)
            | Event::Answered => return (State::Connecting(connecting), Step::Nothing),
        };
        self.finish(life, State::Connecting(connecting), ending, now)
    }

    /// Until the server has answered, it has nothing of the client, so another one may be tried. One that answers is up,
    /// whatever it answers.
    pub(super) fn after_asking(
        &mut self,
        id: RouteId,
        life: &mut Life,
        connecting: Connecting,
        event: Event<'_>,
        now: Instant,
    ) -> Turn {
        let ending = match event {
            Event::Replied(Ok(())) => return self.relay(life, connecting, now),
            Event::Replied(Err(reason)) => {
                self.report(&connecting.routed, connecting.share, HealthEvent::Connected, now);
                Ending::NoTls(reason)
            }
            Event::ConnectFailed(ConnectFault::Absent | ConnectFault::Server) => {
                return self.connect_failed(id, life, connecting, now);
            }
            Event::Deadline if connecting.until <= now => return self.connect_late(id, life, connecting, now),
            Event::ConnectFailed(ConnectFault::Daemon) => Ending::NoResources,
            Event::Lost(Side::Client) => Ending::ClientLeft(Phase::Asking),
            Event::Abort => Ending::Stopped(Phase::Asking),
            // As while it was being connected to.
            Event::Bytes(_)
            | Event::Garbled { .. }
            | Event::Ended(_)
            | Event::Lost(Side::Server)
            | Event::Secured
            | Event::NotSecured
            | Event::TableCame
            | Event::Called
            | Event::ClientCame
            | Event::Connected
            | Event::Deadline
            | Event::Stop(_)
            | Event::Answered => return (State::Asking(connecting), Step::Nothing),
        };
        self.finish(life, State::Asking(connecting), ending, now)
    }
}
