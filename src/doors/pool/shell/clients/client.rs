//! One connected client, from accept to close.
//!
//! ```text
//!            +--room again--+
//!            v              |
//!   Taking --+--too much ---+-> Full
//!      |     unanswered
//!      +--its one request, its end of input, or a line that ends it--> Finishing --all said--> closed
//!                                                                          |
//!                                                                          +--input unread--> Lingering --> closed
//! ```
//!
//! A [kept](Kind::kept) connection stays in `Taking` from one request to the next; on any other the first request is the
//! last. The deadline, and whether events are wanted at all, follow from the phase, from what the client is owed and
//! from what it has not taken yet.

use std::time::{Duration, Instant};

use super::exchange::Owed;
use super::multiplexed::Channels;
use crate::doors::pool::options::{HalfClose, KeptLimits, Options};
use crate::framing::Framer;
use crate::net::conn::Conn;
use crate::net::origin::Origin;
use crate::reactor::Alarm;

/// A client with more bytes than this of answers that it has not taken is not read from.
const OUTPUT_HIGH_WATER: usize = 256 * 1024;

/// A connection and what is known of it. It owns memory only while a request is unfinished or an answer not taken.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) conn: Conn,
    pub(crate) origin: Origin,
    pub(crate) kind: Kind,
    /// True until its first request is whole. That may make the connection a multiplexed one.
    pub(crate) is_new: bool,
    pub(crate) phase: Phase,
    pub(crate) framer: Framer,
    /// Bytes of a request that is not whole.
    pub(crate) input: Vec<u8>,
    /// Its requests that are not answered yet.
    pub(crate) owed: Owed,
    pub(crate) flush: Flush,
    pub(crate) accepted: Instant,
    /// The last time at which it has sent or taken something.
    pub(crate) active: Instant,
    /// By then its request must be whole, or, while it says nothing, it must have begun one.
    pub(crate) read_by: Instant,
    /// By then it must have taken something of what is there for it.
    pub(crate) write_by: Instant,
    pub(crate) alarm: Alarm,
    /// The connection is registered with the poll. A client whose line is there at once and whose answer fits into one
    /// write never needs it: two system calls saved of ten.
    pub(crate) is_watched: bool,
}

/// The use that a client makes of its connection.
#[derive(Debug)]
pub(crate) enum Kind {
    /// It asks one request, and the answer ends the connection.
    OneShot,
    /// It asks any number of requests within these limits, and gets the answers in the order of the requests.
    Persistent(KeptLimits),
    /// It asks any number of requests, each behind a number, and gets each answer as soon as it is there.
    Multiplexed(Box<Channels>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its requests are taken in.
    Taking,
    /// It is owed, or has not taken, so much that it is not read from for now.
    Full,
    /// Nothing more is taken in; it goes when it has got all its answers.
    Finishing(After),
    /// The client has all its answers, and the lingering close is under way.
    Lingering,
}

/// The state of a client's input when its last answer is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It has said all it had to say, as far as is known.
    LookForInput,
    /// There is more, or may be: it was refused in the middle of its line, or its connection is kept and it has not
    /// said that it wants nothing more, so its next request may be on its way at this very moment.
    Linger,
}

/// The time at which the answers that are gathered for a client are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// None were gathered since they were written last.
    None,
    /// At the end of this turn.
    ThisTurn,
    /// At the end of the next turn, together with the answers that come until then.
    NextTurn,
}

impl Kind {
    /// Returns the kind of a connection that is accepted in a pool with these options.
    pub(crate) fn accepted(options: &Options) -> Self {
        options.persistent.map_or(Kind::OneShot, Kind::Persistent)
    }

    /// Returns the limits of a connection that stays for further requests.
    pub(crate) fn kept(&self) -> Option<&KeptLimits> {
        match self {
            Kind::OneShot => None,
            Kind::Persistent(limits) => Some(limits),
            Kind::Multiplexed(channels) => Some(channels.limits()),
        }
    }

    /// Returns true if many requests are under way on the connection, each behind a number.
    pub(crate) fn is_multiplexed(&self) -> bool {
        matches!(self, Kind::Multiplexed(_))
    }

    /// Returns the number of unanswered requests at which the client is not read from.
    pub(crate) fn most_unanswered(&self) -> usize {
        self.kept().map_or(1, |limits| limits.max_unanswered)
    }

    /// Returns the time for which a client may say nothing and be owed nothing.
    pub(crate) fn idle_timeout(&self, options: &Options) -> Duration {
        self.kept().map_or(options.read_timeout, |limits| limits.idle_timeout)
    }

    /// Returns the meaning of a client's closing its sending side. Where more than one request may come, it means that
    /// there are no more.
    pub(crate) fn half_close(&self, options: &Options) -> HalfClose {
        match self {
            Kind::OneShot => options.half_close,
            Kind::Persistent(_) | Kind::Multiplexed(_) => HalfClose::Answer,
        }
    }
}

impl Client {
    /// By when something must have happened. None while its requests are in hand: the dispatcher keeps their deadlines.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadline = match self.phase {
            Phase::Lingering => return self.conn.close_deadline(),
            Phase::Taking | Phase::Full | Phase::Finishing(_) if self.conn.unwritten() > 0 => Some(self.write_by),
            Phase::Taking if self.is_idle() || self.has_unfinished_request() => Some(self.read_by),
            Phase::Taking | Phase::Full | Phase::Finishing(_) => None,
        };
        match &self.kind {
            Kind::Multiplexed(channels) if self.phase == Phase::Taking => channels.earlier_of_drain(deadline),
            Kind::OneShot | Kind::Persistent(_) | Kind::Multiplexed(_) => deadline,
        }
    }

    /// Returns true if the client has not taken enough of its answers in time.
    pub(crate) fn is_overdue_to_read(&self, now: Instant) -> bool {
        self.conn.unwritten() > 0 && self.write_by <= now
    }

    /// Returns true if the client is in the middle of a request.
    pub(crate) fn has_unfinished_request(&self) -> bool {
        let skips = matches!(&self.kind, Kind::Multiplexed(channels) if channels.is_skipping());
        skips || !self.input.is_empty()
    }

    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Returns true if an event would tell anything. A client that waits long for a worker is watched by
    /// `Clients::watch_waiting`.
    pub(crate) fn wants_events(&self) -> bool {
        match self.phase {
            Phase::Taking | Phase::Lingering => true,
            Phase::Full | Phase::Finishing(_) => self.conn.unwritten() > 0,
        }
    }

    /// It has said nothing that is not answered, and has taken all its answers.
    pub(crate) fn is_idle(&self) -> bool {
        self.owed.count() == 0 && self.conn.unwritten() == 0
    }

    /// It is idle, and not in the middle of a request either.
    pub(crate) fn has_nothing_open(&self) -> bool {
        self.is_idle() && !self.has_unfinished_request()
    }

    /// Returns true if one more request may be taken in.
    pub(crate) fn has_room(&self) -> bool {
        self.owed.count() < self.kind.most_unanswered() && self.takes_more()
    }

    /// Returns true if the gathered answers must not leave before the end of the turn. Those of a client that is not
    /// multiplexed may: it is woken sooner, and no further answers would leave with them for long.
    pub(crate) fn holds_answers_back(&self) -> bool {
        match self.flush {
            Flush::None => false,
            Flush::ThisTurn => self.kind.is_multiplexed(),
            Flush::NextTurn => true,
        }
    }

    /// Returns true if further answers may follow the gathered ones soon enough to leave with them.
    pub(crate) fn expects_more_answers(&self) -> bool {
        self.kind.is_multiplexed() && self.phase == Phase::Taking && self.owed.count() > 0
    }

    /// Returns true if the client has taken enough of its answers to be given the next.
    pub(crate) fn takes_more(&self) -> bool {
        self.conn.unwritten() <= OUTPUT_HIGH_WATER
    }
}
