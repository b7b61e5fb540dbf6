//! The front doors: one folder each, and none knows another.
//!
//! A [`Door`] is a service on the loop that clients connect to, and that the daemon starts, changes, rolls and drains.
//! The part that is the same for all of them is the [`front`]. The folder of a door has `mod.rs` with its story,
//! `options.rs`, `core/` with its decisions, a shell with its I/O, and `report.rs` with its words. A new door is a new
//! folder here, a variant in [`Options`] and in [`Prepared`], and its specification in `config`; no other door
//! changes for it.

pub mod command;
mod dump;
pub mod exec;
pub mod front;
mod handed;
mod jitter;
mod job_log;
pub mod pattern;
pub mod pool;
pub mod preparing;
mod program_client;
mod programs;
pub mod route;
mod run;
#[cfg(test)]
mod scaffold;
mod standstill;
pub mod waiters;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use front::admission::Admission;
use front::options::{DescriptorNeeds, FrontOptions};
use front::{Front, OverLimit};
pub use handed::HandedConnection;
use preparing::Surroundings;

use crate::error::{Blame, Error};
use crate::net::addr::{Listen, Transport};
use crate::net::conn::Conn;
use crate::net::listener::Listener;
use crate::net::listening::{Accepting, Listening};
use crate::net::origin::Origin;
use crate::process::spawn::{PreparedProgram, Spawner};
use crate::reactor::{Context, Key, Readiness as SourceReadiness, Service};
use crate::stats::Snapshot;

/// Listeners, each with the setting that the operator has written for it.
pub type Listeners = Vec<(Listen, Listener)>;

/// The options of a door. Each kind of door is a variant.
#[derive(Debug, Clone, PartialEq)]
pub enum Options {
    /// The options of a pool of stdio workers.
    Pool(Box<pool::options::Options>),
    /// The options of a door that runs the program of its choice for each client.
    Exec(Box<exec::options::Options>),
    /// The options of a door that runs commands named by the operator.
    Command(Box<command::options::Options>),
    /// The options of a door that takes connections to servers by name.
    Route(Box<route::options::Options>),
}

/// The part of a door that [`Options::prepare`] makes from the file system: programs have been looked for and directories
/// opened. This may take long, or never end; so a daemon that serves does it on a thread, and hands the result to the
/// door.
#[derive(Debug)]
pub enum Prepared {
    /// The worker program.
    Pool(Box<PreparedProgram>),
    /// The context of the programs that clients ask for.
    Exec(Box<Spawner>),
    /// The program of every command.
    Command(command::Programs),
    /// The pipes that bytes go through, and the programs behind servers.
    Route(Box<route::Prepared>),
}

impl Options {
    /// Returns the name in logs and statistics, which is unique in a daemon.
    pub fn name(&self) -> &str {
        &self.front().name
    }

    /// Returns the part that every door has.
    pub fn front(&self) -> &FrontOptions {
        match self {
            Options::Pool(options) => &options.front,
            Options::Exec(options) => &options.front,
            Options::Command(options) => &options.front,
            Options::Route(options) => &options.front,
        }
    }

    /// Returns the part that every door has, to be adjusted to the machine. Must be called before the door is opened: what
    /// a door has already does not change.
    pub fn front_mut(&mut self) -> &mut FrontOptions {
        Arc::make_mut(match self {
            Options::Pool(options) => &mut options.front,
            Options::Exec(options) => &mut options.front,
            Options::Command(options) => &mut options.front,
            Options::Route(options) => &mut options.front,
        })
    }

    /// Returns true if the messages of clients must not appear in the log or in a core dump of the daemon.
    pub fn is_confidential(&self) -> bool {
        match self {
            Options::Pool(options) => options.disclosure == pool::options::Disclosure::Nothing,
            Options::Exec(_) | Options::Command(_) | Options::Route(_) => false,
        }
    }

    /// Returns the descriptors that the work of the door takes.
    pub fn descriptor_needs(&self) -> DescriptorNeeds {
        match self {
            Options::Pool(options) => options.descriptor_needs(),
            Options::Exec(options) => options.descriptor_needs(),
            Options::Command(options) => options.descriptor_needs(),
            Options::Route(options) => options.descriptor_needs(),
        }
    }

    /// Returns the most time that its workers may take until they serve, if that is limited.
    pub fn start_timeout(&self) -> Option<Duration> {
        match self {
            Options::Pool(options) => {
                let takes_time = options.ready_line.is_some() || options.probe.is_some();
                takes_time.then_some(options.policy.start_timeout)
            }
            Options::Exec(_) | Options::Command(_) | Options::Route(_) => None,
        }
    }

    /// Prepares what the door needs of the file system. Blocks on it without a limit.
    ///
    /// # Errors
    /// The reason why the door cannot be opened.
    pub fn prepare(&self, surroundings: &Surroundings) -> Result<Prepared, Error> {
        let defaults = &surroundings.spawn;
        match self {
            Options::Pool(options) => pool::prepare(options, defaults).map(|program| Prepared::Pool(Box::new(program))),
            // The program is not known before a client names it; but the context in which it starts is.
            Options::Exec(options) => exec::prepare(options, defaults).map(|spawner| Prepared::Exec(Box::new(spawner))),
            Options::Command(options) => command::prepare(options, defaults).map(Prepared::Command),
            Options::Route(options) => {
                route::prepare(options, surroundings).map(|prepared| Prepared::Route(Box::new(prepared)))
            }
        }
    }

    /// Checks that a door that was opened with these options can take on others.
    ///
    /// # Errors
    /// The option that cannot change while the door is open.
    pub fn may_become(&self, others: &Options) -> Result<(), Error> {
        match (self, others) {
            (Options::Pool(options), Options::Pool(others)) => pool::may_become(options, others),
            (Options::Exec(_), Options::Exec(_))
            | (Options::Command(_), Options::Command(_))
            | (Options::Route(_), Options::Route(_)) => Ok(()),
            (Options::Pool(_) | Options::Exec(_) | Options::Command(_) | Options::Route(_), others) => {
                Err(other_kind(self.name(), others))
            }
        }
    }

    /// Returns the door, which listens but does not serve yet. `prepared` must come from [`prepare`](Self::prepare) of
    /// options of the same kind.
    ///
    /// # Errors
    /// The reason why the door cannot be opened.
    pub fn open(self, prepared: Prepared, listeners: Listeners, now: Instant) -> Result<Box<dyn Door>, Error> {
        match (self, prepared) {
            (Options::Pool(options), Prepared::Pool(program)) => {
                Ok(Box::new(pool::Pool::new(*options, *program, listeners, now)))
            }
            (Options::Exec(options), Prepared::Exec(spawner)) => {
                Ok(Box::new(exec::ExecDoor::new(*options, *spawner, listeners, now)?))
            }
            (Options::Command(options), Prepared::Command(programs)) => {
                Ok(Box::new(command::CommandDoor::new(*options, programs, listeners, now)))
            }
            (Options::Route(options), Prepared::Route(prepared)) => {
                Ok(Box::new(route::RouteDoor::new(*options, *prepared, listeners, now)))
            }
            (options, _) => Err(other_kind(options.name(), &options)),
        }
    }

    /// Returns true if a door of this kind may hand connections over to others.
    pub fn may_hand_over(&self) -> bool {
        matches!(self, Options::Route(_))
    }

    /// Returns a few words for the log about the programs of the door.
    pub fn summary(&self) -> String {
        match self {
            Options::Pool(options) => options.summary(),
            Options::Exec(options) => options.summary(),
            Options::Command(options) => options.summary(),
            Options::Route(options) => options.summary(),
        }
    }

    /// Returns the name of this kind of door in a configuration file.
    pub fn kind(&self) -> &'static str {
        match self {
            Options::Pool(_) => "pool",
            Options::Exec(_) => "exec",
            Options::Command(_) => "command",
            Options::Route(_) => "route",
        }
    }
}

/// Returns the error of a reload that would turn the service `name` into one of another kind.
fn other_kind(name: &str, others: &Options) -> Error {
    let what = format!(
        "{name}: a service cannot become one of another kind ({}) while it serves",
        others.kind()
    );
    Error::new(
        Blame::Operator,
        what,
        "give it another name; or take it out of the file, send HUP, put it back, and send HUP again",
    )
}

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

    /// Takes a connection that the access list permits: serves it, or refuses it. While the door drains, the client must
    /// have completed its request by the [deadline of the others](Front::hastened).
    fn admit(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin);

    /// Returns true if connections that other doors hand over are taken.
    fn takes_handed(&self) -> bool {
        false
    }

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
