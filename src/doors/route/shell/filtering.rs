//! The relay of a route in per-request mode: what is read of a side goes through the [`Filter`] first.
//!
//! Both ends stand behind a [`Strained`] end, of which no bytes can be spliced past the filter before both sides have
//! left HTTP/1.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;

use super::super::core::event::Side;
use super::super::core::exchange::Given;
use super::super::core::filter::{Filter, Finding};
use super::super::core::head::Head;
use crate::doors::socket_end::SocketEnd;
use crate::mux::stream::StreamEnd;
use crate::net::stream::PeerState;
use crate::relay::carrier::Tools;
use crate::relay::conversation::{self, Conversation, Standing};
use crate::relay::direction::Event;
use crate::relay::endpoint::Endpoint;

/// The filter, and the judgement of heads. It is lent to one call of one end at a time.
struct Sieve<'a> {
    filter: &'a mut Filter,
    admits: &'a mut dyn FnMut(&Head<'_>) -> bool,
}

/// An end that may stand behind a filter.
pub(super) trait Strainable: Endpoint {
    /// Returns true if the peer is known to have gone, also behind bytes that were not read.
    fn has_gone(&self) -> bool;
}

impl Strainable for SocketEnd {
    fn has_gone(&self) -> bool {
        self.conn.socket().peer_state() == PeerState::Gone
    }
}

impl Strainable for StreamEnd<'_> {
    /// The bytes that its peer has sent before are delivered first.
    fn has_gone(&self) -> bool {
        false
    }
}

/// The end of one side, of which only the bytes are read that go through the filter.
struct Strained<'a, E> {
    end: &'a mut E,
    side: Side,
    sieve: &'a RefCell<Sieve<'a>>,
}

/// Runs a conversation whose bytes go through a filter.
pub(super) fn run<S: Strainable>(
    conversation: &mut Conversation,
    filter: &mut Filter,
    admits: &mut dyn FnMut(&Head<'_>) -> bool,
    (client, server): (&mut SocketEnd, &mut S),
    tools: &mut Tools<'_>,
) -> Standing {
    if filter.take_client_due() {
        conversation.wake(conversation::Side::Client);
    }
    let sieve = RefCell::new(Sieve { filter, admits });
    let (side, sieve) = (Side::Client, &sieve);
    let mut client = Strained {
        end: client,
        side,
        sieve,
    };
    let side = Side::Server;
    let mut server = Strained {
        end: server,
        side,
        sieve,
    };
    let standing = conversation.run(&mut client, &mut server, tools);
    match standing {
        Standing::Waiting if sieve.borrow().filter.is_client_due() => Standing::MoreLater,
        Standing::Waiting | Standing::MoreLater | Standing::Over(_) => standing,
    }
}

/// Returns the finding of a filter once the router can answer it: when everything that went through has reached the
/// client. One who has a part of an answer gets no other.
pub(super) fn ripe(conversation: &Conversation, filter: &Filter) -> Option<Finding> {
    let is_delivered = conversation.down().direction().held() == 0;
    filter
        .finding()
        .filter(|_| is_delivered || filter.given() == Given::Part)
}

impl<E: Strainable> Strained<'_, E> {
    /// The event of a side that is not read, since enough of it is held. A client that has gone must be noticed all the
    /// same; from a server that has gone the client gets what went through.
    fn unread(&self) -> Event {
        match self.side {
            Side::Client if self.end.has_gone() => Event::Failed,
            Side::Client | Side::Server => Event::SourceEmpty,
        }
    }
}

impl<E: Strainable> Endpoint for Strained<'_, E> {
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Event> {
        loop {
            let mut sieve = self.sieve.borrow_mut();
            let Sieve { filter, admits } = &mut *sieve;
            let count = filter.take(self.side, to, admits);
            if count > 0 {
                return Ok(count);
            }
            if filter.has_ended(self.side) {
                return Err(Event::SourceEnded);
            }
            // Each further turn of the loop has read a byte that is held.
            let room = filter.room(self.side).min(to.len());
            let Some(to) = to.get_mut(..room).filter(|to| !to.is_empty()) else {
                return Err(self.unread());
            };
            match self.end.read(to) {
                Ok(count) => {
                    let through = filter.sift(self.side, to.get(..count).unwrap_or_default(), admits);
                    if through > 0 {
                        return Ok(through);
                    }
                }
                Err(Event::SourceEnded) => filter.end(self.side),
                Err(event) => return Err(event),
            }
        }
    }

    /// The next read finds it out.
    fn is_drained(&self) -> bool {
        false
    }

    fn write(&mut self, bytes: &[u8]) -> Event {
        self.end.write(bytes)
    }

    fn say_end(&mut self) {
        self.end.say_end();
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        let is_open = self.sieve.borrow().filter.is_open();
        self.end.fd().filter(|_| is_open)
    }
}
