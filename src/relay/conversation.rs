//! A conversation of a client with a server by two [`Carrier`]s, and the rules by which it ends.
//!
//! The owner keeps both ends, [notes](Conversation::note) every event of the poll, and [runs](Conversation::run) the
//! conversation after that. The end of one side is said to the other behind the last byte, and the way back stays
//! open. The rules:
//!
//! - If both sides have ended, the conversation is over, and closing the sockets says the second end.
//! - A side that takes no more bytes may still send: that direction goes on until its end.
//! - A side of which a read has failed (a reset, a time-out) will neither take nor give anything: the conversation is
//!   over at once.
//! - After a write that has failed, what the side has sent before is still delivered. The side has never said the end
//!   that is found behind that: the write has taken the error, and leaves an end to a read. So it is a failure as well.
//! - A side that has hung up takes nothing more, whether or not there is something to write to it: once what it has sent is
//!   delivered with its end, the direction to it is cut. Otherwise a server that has nothing to say would be kept for a
//!   client that is gone.
//!
//! Deadlines, the closing of the sockets and their resets are the owner's.

use super::carrier::{Carrier, FailedEnd, Tools};
use super::direction::Event;
use super::endpoint::Endpoint;
use super::pipes::Pipe;
use super::pump::PumpEnd;
use crate::reactor::Readiness;

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The side that has connected.
    Client,
    /// The side that it was connected to.
    Server,
}

/// The state of a conversation after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Standing {
    /// Nothing is to be done before the next event.
    Waiting,
    /// The conversation has used up its share of this turn and must be run again in the next.
    MoreLater,
    /// Nothing more will be carried.
    Over(Outcome),
}

/// The way in which a conversation has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Both sides have ended, and everything was delivered. The owner closes both; an end that is not said by closing,
    /// as with TLS, was said.
    Complete,
    /// This side has taken no more before everything was delivered to it, and all that it has sent was delivered. The
    /// other side may be about to send, so unread bytes of it must be thrown away before its socket is closed, or a
    /// reset overtakes what it was sent.
    Closed(Side),
    /// This side has failed, and what it has sent may be a part of a whole. The other side must be reset.
    Failed(Side),
}

/// Both directions between a client and a server.
#[derive(Debug)]
pub struct Conversation {
    /// From the client to the server.
    up: Carrier,
    /// From the server to the client.
    down: Carrier,
    /// The sides that have hung up.
    is_client_gone: bool,
    is_server_gone: bool,
}

impl Conversation {
    /// Returns a conversation in which the server gets `first` before any other bytes of the client, and the client gets
    /// `answer` before any other bytes of the server.
    #[must_use]
    pub fn new(first: Vec<u8>, answer: Vec<u8>) -> Self {
        Self {
            up: Carrier::new(first),
            down: Carrier::new(answer),
            is_client_gone: false,
            is_server_gone: false,
        }
    }

    /// Returns the direction from the client to the server.
    #[must_use]
    pub const fn up(&self) -> &Carrier {
        &self.up
    }

    /// Returns the direction from the server to the client.
    #[must_use]
    pub const fn down(&self) -> &Carrier {
        &self.down
    }

    /// Ends the direction to this side, and takes the pipe with the bytes that the side was to get next, if they lie in
    /// one. See [`Carrier::take_rest`].
    pub fn take_rest(&mut self, side: Side) -> Option<Pipe> {
        match side {
            Side::Client => self.down.take_rest(),
            Side::Server => self.up.take_rest(),
        }
    }

    /// Takes in an event of the poll for one side.
    pub fn note(&mut self, side: Side, readiness: Readiness) {
        let (from, to, is_gone) = match side {
            Side::Client => (&mut self.up, &mut self.down, &mut self.is_client_gone),
            Side::Server => (&mut self.down, &mut self.up, &mut self.is_server_gone),
        };
        *is_gone |= readiness.hung_up;
        // After a hang-up the next call has its reason to tell.
        if readiness.readable || readiness.read_closed || readiness.hung_up {
            from.handle(Event::SourceReady);
        }
        if readiness.writable || readiness.hung_up {
            to.handle(Event::SinkReady);
        }
    }

    /// Lets a side be read again although no event of it has come: its [`Endpoint`] holds bytes, or their end, and had
    /// none to give before.
    pub fn wake(&mut self, side: Side) {
        let from = match side {
            Side::Client => &mut self.up,
            Side::Server => &mut self.down,
        };
        from.handle(Event::SourceReady);
    }

    /// Moves bytes both ways, and says the ends. Must be called first when both ends are connected, and then after every
    /// event.
    pub fn run(&mut self, client: &mut impl Endpoint, server: &mut impl Endpoint, tools: &mut Tools<'_>) -> Standing {
        let up = carry(&mut self.up, &self.down, client, server, tools);
        let down = carry(&mut self.down, &self.up, server, client, tools);
        cut_behind(&self.up, &mut self.down, self.is_client_gone);
        cut_behind(&self.down, &mut self.up, self.is_server_gone);
        match self.outcome() {
            Some(outcome) => Standing::Over(outcome),
            None if up == PumpEnd::MoreLater || down == PumpEnd::MoreLater => Standing::MoreLater,
            None => Standing::Waiting,
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        if self.up.failed() == Some(FailedEnd::Source) {
            return Some(Outcome::Failed(Side::Client));
        }
        if self.down.failed() == Some(FailedEnd::Source) {
            return Some(Outcome::Failed(Side::Server));
        }
        let (up, down) = (self.up.direction(), self.down.direction());
        let is_over = up.is_over() && down.is_over();
        is_over.then(|| match (up.has_ended(), down.has_ended()) {
            (true, true) => Outcome::Complete,
            (false, _) => Outcome::Closed(Side::Server),
            (true, false) => Outcome::Closed(Side::Client),
        })
    }
}

/// Cuts the direction to a side that has hung up, once nothing more can come from it.
fn cut_behind(from: &Carrier, to: &mut Carrier, is_gone: bool) {
    if is_gone && from.direction().is_over() && !to.direction().is_over() {
        to.handle(Event::SinkClosed);
    }
}

/// Runs one direction, and says the end to its sink. `back` is the other direction.
fn carry(
    carrier: &mut Carrier,
    back: &Carrier,
    source: &mut impl Endpoint,
    sink: &mut impl Endpoint,
    tools: &mut Tools<'_>,
) -> PumpEnd {
    let end = carrier.run(source, sink, tools);
    if end == PumpEnd::AtEnd {
        if back.failed().is_some() {
            carrier.fail(FailedEnd::Source);
            return PumpEnd::Over;
        }
        // Closing the socket says the second end, unless it must be said.
        if !back.direction().has_ended() || !sink.ends_when_closed() {
            sink.say_end();
        }
        if sink.has_unsent() {
            return PumpEnd::Waiting;
        }
        carrier.handle(Event::EndSignalled);
    }
    end
}

#[cfg(test)]
mod tests;
