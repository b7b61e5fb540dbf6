//! The counters of a route door. The router is their only writer.

use super::ending::{Ending, Phase, Refusal};
use super::event::Side;
use super::life::Protocol;
use super::opening::Fault;

/// Since the start of the door.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Connections of clients.
    pub total: u64,
    /// Connections on which TLS began.
    pub tls: u64,
    /// Connections on which HTTP began, on a listener for it.
    pub http: u64,
    /// Connections on which something else began.
    pub plain: u64,
    /// Connections of PostgreSQL whose TLS begins behind an SSLRequest.
    pub postgres: u64,
    /// Connections that went to the service for all other names.
    pub catch_all: u64,
    /// Connections whose ClientHello has the extension Encrypted ClientHello.
    pub ech: u64,
    /// Clients that were sent on to https.
    pub redirected: u64,
    /// Clients that were handed over to another door.
    pub handed_over: u64,
    /// Those of them that their door could not take.
    pub hand_over_failed: u64,
    /// Requests that were passed on, of connections whose requests are judged one by one.
    pub requests: u64,
    /// Requests of such connections that were not for the service of the first one.
    pub misdirected: u64,
    /// Answers on such connections that were no valid ones.
    pub answers_bad: u64,
    /// Connections whose first bytes were nothing that may begin there, on a listener for TLS.
    pub hello_bad: u64,
    /// Connections whose first bytes were not complete in time, on a listener for TLS.
    pub hello_slow: u64,
    /// Connections whose client has left before its first bytes were complete.
    pub hello_left: u64,
    /// Requests whose head has a fault.
    pub head_bad: u64,
    /// Requests whose head was not complete in time.
    pub head_slow: u64,
    /// Connections that no service, or no rule of their service, was for.
    pub name_unknown: u64,
    /// Connections that a successor has passed on, for the tunnel clients that are still here.
    pub passed: u64,
    /// Connections that have waited for a tunnel client of their service.
    pub expected: u64,
    /// Attempts to connect to a server that failed.
    pub connect_failed: u64,
    /// Attempts to connect to a server that took too long.
    pub connect_late: u64,
    /// Attempts to connect to another server after one that failed.
    pub connect_again: u64,
    /// Servers that were asked for TLS and do not speak it.
    pub connect_no_tls: u64,
    /// Checks of servers that have found something out.
    pub checks: u64,
    /// Checks of servers that have failed.
    pub checks_failed: u64,
    /// Relays that were closed because no byte came for too long.
    pub relay_idle: u64,
    /// Relays that the client has cut.
    pub relay_cut_client: u64,
    /// Relays that the server has cut.
    pub relay_cut_server: u64,
}

impl Counters {
    /// Counts a route whose client speaks this protocol, and that has ended for this reason.
    pub(super) fn count(&mut self, ending: Ending, protocol: Protocol) {
        let count = match ending {
            Ending::Slow if matches!(protocol, Protocol::Http { .. }) => &mut self.head_slow,
            Ending::Refused(Refusal::Opening(Fault::Head(_) | Fault::Request(_))) => &mut self.head_bad,
            Ending::Garbled(Side::Client, ..) => &mut self.head_bad,
            Ending::Garbled(Side::Server, ..) => &mut self.answers_bad,
            Ending::Refused(Refusal::Misdirected) => &mut self.misdirected,
            Ending::Redirected => &mut self.redirected,
            Ending::HandedOver => &mut self.handed_over,
            Ending::ClientLeft(Phase::Opening) => &mut self.hello_left,
            Ending::Slow => &mut self.hello_slow,
            Ending::Refused(Refusal::Opening(_)) => &mut self.hello_bad,
            Ending::Refused(Refusal::NoService | Refusal::NoProtocol | Refusal::ClosedWay) => &mut self.name_unknown,
            Ending::NoTls(_) => &mut self.connect_no_tls,
            Ending::Idle(_) => &mut self.relay_idle,
            Ending::Cut(Side::Client) => &mut self.relay_cut_client,
            Ending::Cut(Side::Server) => &mut self.relay_cut_server,
            // A good end; the attempts to connect are counted one by one, and handshakes by the front; the door's end is no
            // event of a route.
            Ending::Done
            | Ending::ClientLeft(Phase::Connecting | Phase::Asking)
            | Ending::NotSecured
            | Ending::NoServer
            | Ending::ProgramFailed
            | Ending::ProgramLate
            | Ending::ServerFailed
            | Ending::ServerLate
            | Ending::NoResources
            | Ending::Stopped(_)
            | Ending::BrokenOff => return,
        };
        *count += 1;
    }
}
