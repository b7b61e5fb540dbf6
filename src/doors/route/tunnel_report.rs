//! The numbers of a door's tunnel clients, and the words for their ends.

use crate::mux::core::{Counters, Fault};
use crate::mux::session::{Departure, End};

/// Since the start of the door.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct TunnelCounts {
    /// Tunnel connections.
    pub(super) total: u64,
    /// Connections that were refused in their handshake, or have not completed it.
    pub(super) refused: u64,
    /// Connections that their clients have closed.
    pub(super) closed: u64,
    /// Connections that have failed.
    pub(super) lost: u64,
    /// Connections whose clients did not answer.
    pub(super) silent: u64,
    /// Connections whose clients did not keep to the protocol.
    pub(super) faulty: u64,
    /// The streams that were opened for connections.
    pub(super) streams: u64,
    /// Streams that the client has reset.
    pub(super) resets: u64,
    /// Streams that were reset because their session held too much.
    pub(super) evicted: u64,
    /// The bytes from tunnel clients.
    pub(super) input: u64,
    /// The bytes to tunnel clients.
    pub(super) output: u64,
}

impl TunnelCounts {
    /// Counts a client that has left.
    pub(super) fn count(&mut self, departure: Departure) {
        *match departure {
            Departure::Closed => &mut self.closed,
            Departure::Lost => &mut self.lost,
            Departure::Silent => &mut self.silent,
            Departure::Faulty => &mut self.faulty,
        } += 1;
    }

    /// Adds the numbers of a session.
    pub(super) fn add(&mut self, more: &Counters) {
        self.streams += more.opened;
        self.resets += more.resets;
        self.evicted += more.evicted;
        self.input += more.received;
        self.output += more.sent;
    }
}

/// The reason for the end of a session, as the end of a sentence about its client.
pub(super) fn departed(end: &End) -> String {
    match end {
        End::Closed => "it has closed the tunnel".to_owned(),
        End::Cut => "the tunnel was cut in the middle of a frame".to_owned(),
        End::Failed(why) => format!("the tunnel has failed: {why}"),
        End::Fault(fault @ Fault::Silent) => format!("{fault} through the tunnel within --tunnel-ping-timeout"),
        End::Fault(fault) => format!("it has sent {fault}"),
        End::Unpaid => "a frame to it could not be completed".to_owned(),
    }
}

/// The same for a client whose handshake was not complete.
pub(super) fn stranger_ended(end: &End) -> String {
    match end {
        End::Closed => "it has closed its connection before its handshake was complete".to_owned(),
        end => departed(end),
    }
}
