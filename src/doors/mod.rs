//! The front doors: one folder each, and none knows another.
//!
//! A [`Door`] is a service on the loop that clients connect to, and that the daemon starts, changes, rolls and drains.
//! The part that is the same for all of them is the [`front`]. The folder of a door has `mod.rs` with its story,
//! `options.rs`, `core/` with its decisions, a shell with its I/O, and `report.rs` with its words. A new door is a new
//! folder here, a variant in [`Options`] and in [`Prepared`] (`kinds`), and its specification in `config`; no other
//! door changes for it.

pub mod command;
mod dump;
pub mod exec;
pub mod front;
mod handed;
mod jitter;
mod job_log;
mod kinds;
mod lent_pipes;
pub mod pattern;
pub mod pool;
pub mod preparing;
mod program_client;
mod programs;
pub mod route;
mod run;
#[cfg(test)]
mod scaffold;
mod socket_end;
mod standstill;
pub mod tunnel;
pub mod waiters;

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use front::admission::Admission;
use front::{Front, OverLimit};
pub use handed::HandedConnection;
use kinds::other_kind;
pub use kinds::{Options, Prepared};

use crate::error::Error;
use crate::net::addr::{Listen, Transport};
use crate::net::conn::Conn;
use crate::net::link::Link;
use crate::net::listener::Listener;
use crate::net::listening::{Accepting, Listening};
use crate::net::origin::Origin;
use crate::reactor::{Context, Key, Readiness as SourceReadiness, Service};
use crate::stats::Snapshot;

/// Listeners, each with the setting that the operator has written for it.
pub type Listeners = Vec<(Listen, Listener)>;

/// The progress of a door on its way to serving. A start is over when no door is waiting, and a successor takes over
/// when every door serves fully.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// No client can be served: the programs behind the door have not shown yet that they work, or have failed.
    Waiting,
    /// The door serves, with less than it wants: some of the programs behind it have failed.
    Partly,
    /// The door serves.
    Fully,
}

/// A step on the way of a door to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// No client is accepted any more, and work in hand goes on. `hasten` is the end of the time in which clients may
    /// complete a request; `None` if they have all the time that they would have had.
    Drain {
        /// The deadline of incomplete requests.
        hasten: Option<Instant>,
    },
    /// The stop timeout is over: work in hand is ended.
    Stop,
    /// The door ends at once.
    Abort,
}

/// The time that a client has to complete its request once the door drains.
const LAST_REQUEST: Duration = Duration::from_millis(500);

/// A service on the loop that clients connect to. It has methods that differ between doors, and methods on its
/// [`Front`] that are the same for all.
pub trait Door: Service {
    /// Returns the part that every door has.
    fn front(&self) -> &Front;

    /// Returns the part that every door has.
    fn front_mut(&mut self) -> &mut Front;

    /// Starts the programs that run behind the door from the beginning. Called once, after the door was given its place
    /// on the loop. No client is accepted yet: clients wait in the backlog, or are served by a predecessor that holds
    /// the same sockets.
    ///
    /// # Errors
    /// The reason why the daemon cannot run with this door.
    fn start(&mut self, _cx: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Returns the progress of the door on its way to serving.
    fn readiness(&self) -> Readiness {
        Readiness::Fully
    }

    /// Returns words for the event that the door waits for while it is [waiting](Readiness::Waiting).
    fn waits_for(&self) -> String {
        String::new()
    }

    /// Returns the number of places for workers behind the door, with which a successor is to
    /// [begin](Self::begin_with). It is 0 where no program runs before a client asks for it.
    fn places(&self) -> usize {
        0
    }

    /// Sets the number of places to begin with, where the options leave a choice. Called before [`start`](Self::start),
    /// if at all.
    fn begin_with(&mut self, _places: usize) {}

    /// Begins to accept clients. Called once, after [`start`](Self::start).
    ///
    /// # Errors
    /// The kernel watches no more descriptors.
    fn begin_serving(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.front_mut().begin_accepting(cx)
    }

    /// Takes a connection that the access list permits: serves it, or refuses it. While the door drains, the client must
    /// have completed its request by the [deadline of the others](Front::hastened).
    fn admit(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin);

    /// Returns true if connections that other doors hand over are taken.
    fn takes_handed(&self) -> bool {
        false
    }

    /// Returns the successor's end of a connection over which the door passes connections on, if it does. Called at each
    /// start of a successor; the one before is given up then.
    fn offer_link(&mut self, _cx: &mut Context<'_>) -> Option<OwnedFd> {
        None
    }

    /// Takes this process's end of the connection that the same door of the predecessor has [offered](Self::offer_link).
    /// Called before [`start`](Self::start), if at all.
    fn take_link(&mut self, _link: Link) {}

    /// Returns the next connection that is to be given to another door. The daemon asks after every turn of the loop, if
    /// doors of this kind [may have one](Options::may_hand_over).
    fn next_handed(&mut self) -> Option<Box<HandedConnection>> {
        None
    }

    /// Returns true if a connection for the door of this name may still come from [`next_handed`](Self::next_handed).
    fn may_hand_to(&self, _door: &str) -> bool {
        false
    }

    /// Refuses a connection that this door has handed over and that cannot be given to the other one, for this reason.
    fn refuse_handed(&mut self, _cx: &mut Context<'_>, _handed: Box<HandedConnection>, _why: &str) {}

    /// Refuses a connection over a limit, in the door's protocol, and logs it.
    fn turn_away(&mut self, cx: &mut Context<'_>, conn: Conn, origin: &Origin, over: OverLimit);

    /// Takes on new options and what was prepared for them; `new` are the listeners for addresses that
    /// were not listened on before.
    ///
    /// # Errors
    /// The mistake in the options; everything stays as it was.
    fn reload(
        &mut self,
        cx: &mut Context<'_>,
        options: Options,
        prepared: Prepared,
        new: Listeners,
    ) -> Result<(), Error>;

    /// Takes on what was prepared again for its present options. What was prepared for another kind of door is dropped.
    fn set_prepared(&mut self, prepared: Prepared);

    /// Replaces the workers behind the door without refusing a client. A program that a client has asked for is not
    /// replaced.
    fn roll(&mut self, _cx: &mut Context<'_>) {}

    /// Does the door's part of the next step to its end, after the front has done its part: accepting has ended.
    fn shutdown(&mut self, cx: &mut Context<'_>, how: Shutdown);

    /// Returns true if a door that ends has nothing left to do.
    fn is_idle(&self) -> bool;

    /// Returns all statistics.
    fn statistics(&self, now: Instant) -> Snapshot;

    /// Returns the state in detail, as text.
    fn dump(&self, now: Instant) -> String;

    // ---- the same for all --------------------------------------------------------------------------------------

    /// Begins to drain: the door stops accepting, finishes the work in hand, and then ends.
    fn drain(&mut self, cx: &mut Context<'_>) {
        if self.front().is_serving() {
            // A client that has connected is admitted, although its connection has not been accepted yet.
            self.accept_all(cx);
            self.front_mut().listening_mut().close();
        }
        // After a hand-over the door drains already, and its clients have had all the time that they wanted.
        if !self.front().is_stopping() {
            let allowance = self.front().options().allowance_after_stop();
            self.front_mut().begin_draining(cx, allowance);
            let by = cx.now() + LAST_REQUEST;
            self.front_mut().hasten_arrivals(cx, by);
            self.shutdown(cx, Shutdown::Drain { hasten: Some(by) });
        }
    }

    /// Takes a connection that another door has handed over, as if it were accepted here: the access lists, the limits
    /// and the end of this door count for it.
    ///
    /// # Errors
    /// The connection, and the reason for which this door takes none.
    fn take_handed(
        &mut self,
        cx: &mut Context<'_>,
        handed: Box<HandedConnection>,
    ) -> Result<(), (Box<HandedConnection>, &'static str)> {
        if !self.takes_handed() {
            return Err((handed, "it takes no connections that another door hands over"));
        }
        if self.front().is_stopping() {
            return Err((handed, "it is about to end"));
        }
        if self.front_mut().permits(cx, &handed.origin) {
            Door::admit(self, cx, handed.conn, handed.origin);
            // No turn follows before the next event, and a door may have gathered writes for the end of one.
            self.end_turn(cx);
        }
        Ok(())
    }

    /// Must be called when no door will hand over any more connections to this one, which drains.
    fn end_handed(&mut self, cx: &mut Context<'_>) {
        self.front_mut().expect_handed(false);
        self.shutdown(cx, Shutdown::Drain { hasten: None });
    }

    /// Must be called when there is an event for a connection whose preface is read.
    fn arrival_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: SourceReadiness) {
        let admission = self.front_mut().arrival_ready(cx, key, readiness);
        self.follow_admission(cx, admission);
    }

    /// Must be called when such a connection is resumed.
    fn resume_arrival(&mut self, cx: &mut Context<'_>, key: Key) {
        let admission = self.front_mut().resume_arrival(cx, key);
        self.follow_admission(cx, admission);
    }

    /// Must be called when the alarm of such a connection has gone off.
    fn arrival_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let admission = self.front_mut().arrival_timeout(cx, key);
        self.follow_admission(cx, admission);
    }

    /// Must be called when a helper thread may have made a signature. Returns true if there was one.
    fn take_signatures(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Some(admission) = self.front_mut().take_signature(cx) {
            self.follow_admission(cx, admission);
            any = true;
        }
        any
    }

    /// Admits a connection whose preface was read, or turns it away.
    fn follow_admission(&mut self, cx: &mut Context<'_>, admission: Admission) {
        match admission {
            Admission::Granted(conn, origin) => Door::admit(self, cx, conn, origin),
            Admission::Full(conn, origin, over) => self.turn_away(cx, conn, &origin, over),
            Admission::Nothing => {}
        }
        self.go_on_with_secured(cx);
    }

    /// Goes on with the connections of the door whose handshakes have [come to their ends](Front::take_secured), if it has
    /// any made.
    fn go_on_with_secured(&mut self, _cx: &mut Context<'_>) {}

    /// Drains after a successor has begun to accept from the same sockets: clients in their backlog are left to it, and
    /// clients that were accepted here are not hastened. Some doors give them longer than they have once the daemon is
    /// told to stop, which still [shortens](Self::drain) that.
    fn hand_over(&mut self, cx: &mut Context<'_>) {
        if self.front().is_serving() {
            self.front_mut().listening_mut().leave(cx);
            let allowance = self.front().options().allowance_after_hand_over();
            self.front_mut().begin_draining(cx, allowance);
            self.shutdown(cx, Shutdown::Drain { hasten: None });
        }
    }

    /// Must be called when the alarm of draining has gone off.
    fn drain_timeout(&mut self, cx: &mut Context<'_>) {
        if self.front_mut().expire_drain(cx) {
            self.shutdown(cx, Shutdown::Stop);
        }
    }

    /// Ends at once.
    fn abort(&mut self, cx: &mut Context<'_>) {
        self.front_mut().stop(cx);
        self.shutdown(cx, Shutdown::Abort);
    }

    /// Returns true if the door has drained, or was aborted, to the end: the daemon may drop it.
    fn is_finished(&self) -> bool {
        !self.front().is_serving() && !self.front().has_arrivals() && self.is_idle()
    }
}

impl<D: Door + ?Sized> Accepting for D {
    fn listening_mut(&mut self) -> &mut Listening {
        self.front_mut().listening_mut()
    }

    fn admit(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin, transport: Transport) {
        if transport == Transport::Tls || self.front().awaits_preface(origin.peer) {
            let admission = self.front_mut().receive(cx, conn, origin, transport);
            self.follow_admission(cx, admission);
        } else if self.front_mut().permits(cx, &origin) {
            Door::admit(self, cx, conn, origin);
        }
    }

    fn log_pause(&mut self, cx: &mut Context<'_>, line: fmt::Arguments<'_>) {
        self.front_mut().log_pause(cx, line);
    }
}
