//! The filter of a connection in per-request mode: it lets the bytes of both sides through when their turn has come, and
//! holds the others.
//!
//! ```text
//! client ─▶ held ── one request at a time, its head once it is admitted ──▶ server
//! client ◀── answers, interim ones and what follows an agreed change of protocol ── held ◀─ server
//! ```
//!
//! [`Exchange`] tells where messages end. The life of a byte: it is [sifted](Filter::sift) when it comes; if its turn has
//! not come it is held, and [taken](Filter::take) later. The filter stops for good at a [`Finding`]; its owner waits until
//! everything that went through has reached the client, and then tells the router.
//!
//! The invariants:
//! - Bytes go through unchanged and in order; behind a finding of their side none goes through.
//! - No head goes through that its owner has not admitted, and no second request before the first is answered: so an
//!   answer of the router is always the last one, and the right one.
//! - A side has at most [`LONGEST`](head::LONGEST) bytes held besides the ones that it began with, since no more are
//!   [read](Filter::room).
//!
//! The service that a head is for, deadlines and answers do not belong here.

use super::event::Side;
use super::exchange::{Exchange, Fault, FromClient, FromServer, Given};
use super::head::{self, Head};

/// The filter of one connection.
#[derive(Debug, Default)]
pub struct Filter {
    exchange: Exchange,
    client: Lane,
    server: Lane,
    found: Option<Finding>,
    /// The turn of held bytes of the client may have come.
    is_client_due: bool,
    /// A request of this connection was answered.
    has_answered: bool,
}

/// The bytes of one side that are held.
#[derive(Debug, Default)]
struct Lane {
    bytes: Vec<u8>,
    /// The number of the first of them that go through.
    through: usize,
    /// The side sends nothing more.
    has_ended: bool,
}

/// The reason for which a filter has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The next request of the client is not admitted, or its head has a fault: the bytes that are
    /// [held](Filter::held) begin with it. Everything that was asked before is answered.
    Unfit,
    /// The bytes of this side are no valid message.
    Garbled(Side, Fault),
}

impl Filter {
    /// Returns a filter for a client whose first bytes these are, and the first of them that go through: the head of
    /// the first request, which was admitted before, and the part of its body that is there.
    pub fn open(first: Vec<u8>) -> (Filter, Vec<u8>) {
        let mut filter = Filter::default();
        filter.client.bytes = first;
        let mut through = vec![0; filter.client.bytes.len()];
        let count = filter.take(Side::Client, &mut through, &mut |_| true);
        through.truncate(count);
        (filter, through)
    }

    /// Takes bytes that have come from this side. Returns the number of the first of them that go through now; the others
    /// are held. `admits` is asked about the head of each request.
    pub fn sift(&mut self, side: Side, bytes: &[u8], admits: &mut dyn FnMut(&Head<'_>) -> bool) -> usize {
        if !self.lane(side).bytes.is_empty() {
            self.lane_mut(side).bytes.extend_from_slice(bytes);
            return 0;
        }
        let through = self.judge(side, bytes, admits);
        let rest = bytes.get(through..).unwrap_or_default();
        if !rest.is_empty() {
            self.lane_mut(side).bytes = rest.to_vec();
        }
        through
    }

    /// Moves held bytes whose turn has come into the front of `to`, and returns their number.
    pub fn take(&mut self, side: Side, to: &mut [u8], admits: &mut dyn FnMut(&Head<'_>) -> bool) -> usize {
        let lane = self.lane_mut(side);
        if lane.bytes.is_empty() {
            return 0;
        }
        if lane.through == 0 {
            let bytes = std::mem::take(&mut lane.bytes);
            let through = self.judge(side, &bytes, admits);
            let lane = self.lane_mut(side);
            (lane.bytes, lane.through) = (bytes, through);
        }
        self.lane_mut(side).take(to)
    }

    /// Returns the number of the bytes, from the first one on, whose turn has come.
    fn judge(&mut self, side: Side, bytes: &[u8], admits: &mut dyn FnMut(&Head<'_>) -> bool) -> usize {
        match side {
            Side::Client => self.judge_client(bytes, admits),
            Side::Server => self.judge_server(bytes),
        }
    }

    fn judge_client(&mut self, bytes: &[u8], admits: &mut dyn FnMut(&Head<'_>) -> bool) -> usize {
        let mut through = 0;
        while self.found.is_none() && !self.is_deserted() {
            let is_idle = self.exchange.is_idle();
            match self.exchange.from_client(bytes.get(through..).unwrap_or_default()) {
                FromClient::Hold => break,
                FromClient::Pass(count) => through += count,
                FromClient::Head(head) => match admits(&head).then(|| self.exchange.begin(&head)) {
                    Some(Ok(count)) => through += count,
                    Some(Err(_)) | None => self.found = Some(Finding::Unfit),
                },
                FromClient::Wrong(_) if is_idle => self.found = Some(Finding::Unfit),
                FromClient::Wrong(fault) => self.found = Some(Finding::Garbled(Side::Client, fault)),
            }
        }
        through
    }

    fn judge_server(&mut self, bytes: &[u8]) -> usize {
        let mut through = 0;
        while self.found.is_none() {
            match self.exchange.from_server(bytes.get(through..).unwrap_or_default()) {
                FromServer::Hold => break,
                FromServer::Pass(count) => through += count,
                FromServer::Wrong(fault) => self.found = Some(Finding::Garbled(Side::Server, fault)),
            }
        }
        self.has_answered |= through > 0 && self.exchange.is_idle();
        let is_its_turn = self.exchange.is_idle() || self.exchange.is_raw();
        self.is_client_due |= through > 0 && is_its_turn && !self.client.bytes.is_empty();
        through
    }

    /// Returns true if the server takes no more requests, since it has ended.
    fn is_deserted(&self) -> bool {
        self.server.has_ended && self.exchange.is_idle()
    }

    /// Must be called when this side has ended its output, and no held byte of it may go through. An answer that a server
    /// has not given, or has broken off, is a fault; but one that has answered before may have ended while the next
    /// request was on its way, which a client knows by the end of its connection, and may repeat (RFC 9112 §9.3.1).
    pub fn end(&mut self, side: Side) {
        self.lane_mut(side).has_ended = true;
        if side == Side::Client || self.found.is_some() {
            return;
        }
        let is_untouched = self.exchange.given() == Given::Nothing && self.server.bytes.is_empty();
        if self.exchange.may_server_end() || (self.has_answered && is_untouched) {
            self.is_client_due = true;
        } else {
            self.found = Some(Finding::Garbled(Side::Server, Fault::BrokenOff));
        }
    }

    /// Returns true if the end of this side may be passed on, since nothing of it is left in front of the end. The
    /// beginning of a head is dropped.
    pub fn has_ended(&self, side: Side) -> bool {
        let lane = self.lane(side);
        let may_go_on = side == Side::Client && self.exchange.is_answer_awaited() && !self.server.has_ended;
        lane.has_ended && lane.through == 0 && self.found.is_none() && (lane.bytes.is_empty() || !may_go_on)
    }

    /// Returns the number of bytes that may be read from this side.
    pub fn room(&self, side: Side) -> usize {
        let held = self.lane(side).bytes.len();
        match (self.found, self.lane(side).has_ended, held) {
            (Some(_), _, _) | (None, true, _) => 0,
            (None, false, 0) => usize::MAX,
            (None, false, held) => head::LONGEST.saturating_sub(held),
        }
    }

    /// Returns true once bytes of the client that were held may go through although nothing more has come of it.
    pub fn is_client_due(&self) -> bool {
        self.is_client_due
    }

    /// The same, and forgets it.
    pub fn take_client_due(&mut self) -> bool {
        std::mem::take(&mut self.is_client_due)
    }

    /// Returns the reason for which the filter has stopped.
    pub fn finding(&self) -> Option<Finding> {
        self.found
    }

    /// Goes on behind a finding: the request is admitted after all.
    pub fn resume(&mut self) {
        self.found = None;
        self.is_client_due = true;
    }

    /// Returns the part of the last answer that went through.
    pub fn given(&self) -> Given {
        self.exchange.given()
    }

    /// Returns the bytes of the client that are held.
    pub fn held(&self) -> &[u8] {
        &self.client.bytes
    }

    /// Returns true if the client has sent the beginning of a request, and not all of its head.
    pub fn is_in_head(&self) -> bool {
        self.exchange.is_idle() && self.found.is_none() && !self.client.bytes.is_empty()
    }

    /// Returns true if the server has ended, and nothing that the client may still send is for it.
    pub fn is_over(&self) -> bool {
        self.server.has_ended && (self.exchange.is_idle() || self.exchange.is_answer_awaited())
    }

    /// Returns true if both sides have left HTTP/1: all bytes go through, for good.
    pub fn is_open(&self) -> bool {
        self.exchange.is_raw() && self.client.bytes.is_empty() && self.server.bytes.is_empty()
    }

    fn lane(&self, side: Side) -> &Lane {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    fn lane_mut(&mut self, side: Side) -> &mut Lane {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

impl Lane {
    fn take(&mut self, to: &mut [u8]) -> usize {
        let count = self.through.min(to.len());
        if let (Some(front), Some(bytes)) = (to.get_mut(..count), self.bytes.get(..count)) {
            front.copy_from_slice(bytes);
        }
        self.bytes.drain(..count);
        self.through -= count;
        if self.bytes.is_empty() {
            // Thousands of connections may be idle.
            self.bytes = Vec::new();
        }
        count
    }
}

#[cfg(test)]
mod tests;
