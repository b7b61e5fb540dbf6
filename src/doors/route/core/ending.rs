//! The end of a route: its reason, the two letters of it in the access log, and the answer that the client gets.

use std::fmt;

use super::answer::{self, Page};
use super::event::Side;
use super::exchange::{self, Given};
use super::life::Protocol;
use super::opening::{Fault, NoTls};

/// The part of a route's life before bytes are relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The first bytes of the client were awaited, or what they ask for was.
    Opening,
    /// A server was being connected to.
    Connecting,
    /// The answer of a server to a request for TLS was awaited.
    Asking,
}

/// The reason for which a route has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Both sides have ended, and everything was passed on.
    Done,
    /// The client has left before a server was reached.
    ClientLeft(Phase),
    /// The client's first bytes were not complete in time.
    Slow,
    /// No server is for this client.
    Refused(Refusal),
    /// The client was refused in its TLS handshake, or has left in it.
    NotSecured,
    /// The client was sent on to the same address by https.
    Redirected,
    /// The client was handed over to another door.
    HandedOver,
    /// The service has no server that could be tried: none has weight, or it is served by a tunnel without a client.
    NoServer,
    /// The program of the server could not be started, or has exited before the server was there.
    ProgramFailed,
    /// The server was not there in time after the start of its program.
    ProgramLate,
    /// The last server that was tried could not be reached, or has not answered a request for TLS.
    ServerFailed,
    /// The last server that was tried could not be reached, or has not answered a request for TLS, in time.
    ServerLate,
    /// The server was asked for TLS, and does not speak it now. It is up, so no other is tried.
    NoTls(NoTls),
    /// The daemon lacked a descriptor, a port or memory for the connection to the server.
    NoResources,
    /// This side has broken the connection, or it was lost.
    Cut(Side),
    /// This side has sent bytes that are no valid message, in per-request mode.
    Garbled(Side, exchange::Fault, Given),
    /// No byte came for too long, and this side was the next to send.
    Idle(Side),
    /// The door has ended before a server was reached.
    Stopped(Phase),
    /// The door has ended while bytes were relayed.
    BrokenOff,
}

/// The reason for which no server is for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its first bytes are nothing that may begin there.
    Opening(Fault),
    /// No service has its name, and there is none for all others.
    NoService,
    /// Its service has only rules for protocols that it does not offer.
    NoProtocol,
    /// Its service has no port for what it speaks.
    ClosedWay,
    /// A request behind the first one, in per-request mode, is not for the service that the connection has gone to.
    Misdirected,
}

/// Writes the reason as the end of a sentence that begins with the client and "refused".
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Opening(fault) => fault.fmt(f),
            Refusal::NoService => f.write_str("no service has its name, and there is no CATCH_ALL"),
            Refusal::NoProtocol => f.write_str("its service has no rule for a protocol that it offers"),
            Refusal::ClosedWay => f.write_str("its service has no port for what it speaks"),
            Refusal::Misdirected => f.write_str("its connection has gone to another service"),
        }
    }
}

impl Ending {
    /// Returns the two letters of the access log, in HAProxy's language: the first for the side or the cause, in lower
    /// case for a time that was over, the second for the phase.
    pub fn letters(self) -> &'static str {
        match self {
            Ending::Done => "--",
            Ending::ClientLeft(Phase::Opening) => "CR",
            Ending::ClientLeft(Phase::Connecting) => "CC",
            Ending::ClientLeft(Phase::Asking) => "CH",
            Ending::Cut(Side::Client) => "CD",
            Ending::Slow => "cR",
            Ending::Refused(_) | Ending::NotSecured | Ending::Garbled(Side::Client, ..) => "PR",
            Ending::Garbled(Side::Server, ..) => "PH",
            Ending::Redirected | Ending::HandedOver => "LR",
            Ending::NoServer | Ending::ProgramFailed | Ending::ServerFailed => "SC",
            Ending::ProgramLate | Ending::ServerLate => "sC",
            Ending::NoTls(_) => "PH",
            Ending::NoResources => "RC",
            Ending::Cut(Side::Server) => "SD",
            Ending::Idle(Side::Client) => "cD",
            Ending::Idle(Side::Server) => "sD",
            Ending::Stopped(Phase::Opening) => "KR",
            Ending::Stopped(Phase::Connecting) => "KC",
            Ending::Stopped(Phase::Asking) => "KH",
            Ending::BrokenOff => "KD",
        }
    }

    /// Returns the answer to a client that speaks this protocol; `None` if it is closed without a word. An empty one is
    /// for a client that may still have to take an answer of its server. That of [`Ending::Redirected`] is not known
    /// here.
    pub(in super::super) fn answer(self, protocol: Protocol) -> Option<&'static [u8]> {
        match protocol {
            Protocol::Plain => None,
            Protocol::Tls => self.alert(),
            Protocol::Http { .. } if matches!(self, Ending::Garbled(_, _, Given::Whole)) => Some(b""),
            Protocol::Http { is_head } => self.page().map(|page| page.answer(is_head)),
        }
    }

    fn page(self) -> Option<Page> {
        match self {
            Ending::Refused(Refusal::Opening(_)) => Some(Page::BadRequest),
            Ending::Refused(Refusal::NoService | Refusal::NoProtocol | Refusal::ClosedWay) => Some(Page::NotFound),
            Ending::Refused(Refusal::Misdirected) => Some(Page::Misdirected),
            Ending::Garbled(Side::Client, _, Given::Nothing) => Some(Page::BadRequest),
            Ending::Garbled(Side::Server, _, Given::Nothing) => Some(Page::BadGateway),
            Ending::Slow => Some(Page::RequestTimeout),
            Ending::NoServer
            | Ending::ProgramFailed
            | Ending::ProgramLate
            | Ending::ServerFailed
            | Ending::ServerLate
            | Ending::NoTls(_)
            | Ending::NoResources => Some(Page::BadGateway),
            // The client has gone, has its answer or its server's bytes, or is another door's; or the door ends.
            Ending::Done
            | Ending::ClientLeft(_)
            | Ending::NotSecured
            | Ending::Redirected
            | Ending::HandedOver
            | Ending::Cut(_)
            | Ending::Garbled(_, _, Given::Part | Given::Whole)
            | Ending::Idle(_)
            | Ending::Stopped(_)
            | Ending::BrokenOff => None,
        }
    }

    fn alert(self) -> Option<&'static [u8]> {
        match self {
            Ending::Refused(Refusal::Opening(_)) => Some(answer::DECODE_ERROR),
            Ending::Refused(Refusal::NoService | Refusal::NoProtocol | Refusal::ClosedWay | Refusal::Misdirected) => {
                Some(answer::UNRECOGNIZED_NAME)
            }
            Ending::NoServer
            | Ending::ProgramFailed
            | Ending::ProgramLate
            | Ending::ServerFailed
            | Ending::ServerLate
            | Ending::NoTls(_)
            | Ending::NoResources => Some(answer::INTERNAL_ERROR),
            // The client has gone, was not heard completely, has its server's bytes, or is another door's.
            Ending::Done
            | Ending::ClientLeft(_)
            | Ending::Slow
            | Ending::NotSecured
            | Ending::Redirected
            | Ending::HandedOver
            | Ending::Cut(_)
            | Ending::Garbled(..)
            | Ending::Idle(_)
            | Ending::Stopped(_)
            | Ending::BrokenOff => None,
        }
    }

    /// Returns true if both connections are to be reset, so that neither side takes the part that it has for the whole.
    pub(super) fn breaks_off(self) -> bool {
        match self {
            Ending::Cut(_) | Ending::Garbled(_, _, Given::Part) | Ending::BrokenOff => true,
            Ending::Done
            | Ending::ClientLeft(_)
            | Ending::Slow
            | Ending::Refused(_)
            | Ending::NotSecured
            | Ending::Redirected
            | Ending::HandedOver
            | Ending::NoServer
            | Ending::ProgramFailed
            | Ending::ProgramLate
            | Ending::ServerFailed
            | Ending::ServerLate
            | Ending::NoTls(_)
            | Ending::NoResources
            | Ending::Garbled(_, _, Given::Nothing | Given::Whole)
            | Ending::Idle(_)
            | Ending::Stopped(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hello;
    use super::*;

    /// Every ending, with its letters.
    fn endings() -> Vec<(Ending, &'static str)> {
        let refusal = |refusal| (Ending::Refused(refusal), "PR");
        let mut all = vec![
            (Ending::Done, "--"),
            (Ending::Slow, "cR"),
            refusal(Refusal::Opening(Fault::NoHello)),
            refusal(Refusal::Opening(Fault::Hello(hello::Fault::Malformed))),
            refusal(Refusal::NoService),
            refusal(Refusal::NoProtocol),
            refusal(Refusal::ClosedWay),
            (Ending::Redirected, "LR"),
            (Ending::HandedOver, "LR"),
            (Ending::NoServer, "SC"),
            (Ending::ServerFailed, "SC"),
            (Ending::ServerLate, "sC"),
            (Ending::NoTls(NoTls::Declined), "PH"),
            (Ending::NoTls(NoTls::Wrong), "PH"),
            (Ending::NoResources, "RC"),
            (Ending::BrokenOff, "KD"),
        ];
        for (phase, left, stopped) in [
            (Phase::Opening, "CR", "KR"),
            (Phase::Connecting, "CC", "KC"),
            (Phase::Asking, "CH", "KH"),
        ] {
            all.extend([(Ending::ClientLeft(phase), left), (Ending::Stopped(phase), stopped)]);
        }
        for (side, cut, idle) in [(Side::Client, "CD", "cD"), (Side::Server, "SD", "sD")] {
            all.extend([(Ending::Cut(side), cut), (Ending::Idle(side), idle)]);
        }
        all
    }

    #[test]
    fn each_ending_has_its_letters_and_each_pair_of_letters_is_in_the_manual() {
        let page = include_str!("../../../../man/iotcpd-route.1");
        let items = page.lines().filter_map(|line| line.strip_prefix(".It Li "));
        let documented: Vec<&str> = items.flat_map(|item| item.split(" , ")).collect();
        for (ending, letters) in endings() {
            assert_eq!(ending.letters(), letters, "{ending:?}");
            assert!(documented.contains(&letters), "{letters} is not in the manual");
        }
    }

    #[test]
    fn an_ending_that_sends_an_answer_resets_no_connection() {
        for (ending, _) in endings() {
            let protocols = [Protocol::Tls, Protocol::Http { is_head: false }, Protocol::Plain];
            let is_answered = protocols.iter().any(|protocol| ending.answer(*protocol).is_some());
            assert!(!(is_answered && ending.breaks_off()), "{ending:?}");
            assert_eq!(ending.answer(Protocol::Plain), None);
        }
    }
}
