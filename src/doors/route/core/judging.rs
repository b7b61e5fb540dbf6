//! The judgement of a client's first bytes: what they ask for, the rule that the tables have for it, and the server, or the
//! reason for which there is none.
//!
//! A client has one wish: all that it sends behind it goes the same way. In per-request mode its later requests are
//! judged as well, and refused if they would go another way.

use std::sync::Arc;
use std::time::Instant;

use super::answer;
use super::ending::{Ending, Refusal};
use super::event::{RouteId, Step};
use super::exchange::body_behind;
use super::head::{self, Head};
use super::hello::{Alpn, Hello};
use super::life::{Asked, Destination, Life, Opening, Protocol, Relaying, State, TABLE_PATIENCE, Waiting, listed};
use super::name::Name;
use super::opening::{Entrance, Fault, Progress, Verdict, judge};
use super::router::Router;
use super::table::{ACME, Choice, Decision, EndedTls, Source, Target, Undecided, Way, Why};
use super::turn::Turn;

/// The wish of a client, in first bytes that are complete.
#[derive(Default)]
struct Wish<'a> {
    protocol: Protocol,
    /// The name as it is written there.
    name: Option<&'a [u8]>,
    alpn: Alpn<'a>,
    has_ech: bool,
    /// The head of a request of HTTP/1.
    head: Option<Head<'a>>,
}

/// The outcome of a judgement without a fault.
enum Outcome {
    /// The destination, behind the TLS handshake with the server of this name, if TLS ends here.
    Go(Destination, Option<Arc<str>>),
    /// The answer that sends the client on to https.
    Redirection(Vec<u8>),
    End(Ending),
}

impl Router {
    /// Judges the first bytes of a client, and looks for a server if they are complete.
    pub(super) fn judge(
        &mut self,
        id: RouteId,
        life: &mut Life,
        mut opening: Opening,
        bytes: &[u8],
        now: Instant,
    ) -> Turn {
        let (entrance, may_wait) = (opening.entrance, opening.may_wait);
        let wish = match judge(entrance, bytes, &mut opening.progress) {
            Verdict::NeedMore => return (State::Opening(opening), Step::Read),
            Verdict::Refuse(fault) => {
                if matches!(fault, Fault::Hello(_)) {
                    life.asked.protocol = Protocol::Tls;
                }
                let ending = Ending::Refused(Refusal::Opening(fault));
                return self.finish(life, State::Opening(opening), ending, now);
            }
            Verdict::Tls(hello) => Wish::tls(&hello),
            Verdict::Http(head) => Wish::http(head),
            Verdict::Http2 => Wish {
                protocol: Protocol::Http { is_head: false },
                ..Wish::default()
            },
            // Bytes without a name, for the service for all other names.
            Verdict::Plain => Wish::default(),
            Verdict::PostgresTls => return invited(opening, Entrance::Invited, answer::POSTGRES_TLS),
            Verdict::PostgresGss => return invited(opening, Entrance::GssDenied, answer::POSTGRES_NO_GSS),
        };
        let name = wish.name.and_then(Name::parse);
        life.asked = Asked::new(wish.name, name.as_ref(), wish.protocol);
        life.asked.protocols = if self.keeps_protocols { listed(wish.alpn) } else { None };
        life.asked.has_ech = wish.has_ech;
        life.asked.starts_tls = entrance == Entrance::Invited;
        life.asked.has_head = wish.head.is_some();
        let decision = wish.decide(self, name.as_ref());
        if self.is_store_awaited && may_wait && may_change(name.as_ref().map(Name::as_str), &decision) {
            let waiting = Waiting {
                entrance,
                ticket: self.waiting.push(id),
                until: now + TABLE_PATIENCE,
            };
            return (State::Waiting(waiting), Step::Hold);
        }
        let is_catch_all = decision.is_ok_and(|decision| decision.why == Why::CatchAll);
        let outcome = wish.outcome(decision, name.as_ref(), self.https_port);
        self.counters.catch_all += u64::from(is_catch_all);
        self.count(&life.asked);
        life.times.decided = Some(now);
        match outcome {
            Outcome::Go(destination, None) => self.go_to(id, life, destination, now),
            Outcome::Go(destination, Some(server)) => secure(life, destination, server),
            Outcome::Redirection(answer) => self.redirect(life, answer, now),
            Outcome::End(ending) => self.finish(life, State::Opening(opening), ending, now),
        }
    }

    /// Returns true if a later request of a filtered route may go to its server. Must be called once for the head of
    /// each, in order. A request that may not is reported as [`Event::Bytes`](super::event::Event::Bytes).
    pub fn admits(&mut self, life: &Life, head: &Head<'_>) -> bool {
        let is_admitted = life
            .routed()
            .is_some_and(|routed| self.refusal(&routed.choice, head).is_none());
        self.counters.requests += u64::from(is_admitted);
        is_admitted
    }

    /// Takes note that the client has begun the head of its next request and not completed it, while nothing else is
    /// under way; or of the opposite. Must be called after bytes of a filtered route were read.
    pub fn note_head(&self, life: &mut Life, is_begun: bool, now: Instant) {
        if let State::Relaying(relaying) = &mut life.state {
            let until = relaying.head_until.unwrap_or(now + self.hello_timeout);
            relaying.head_until = is_begun.then_some(until);
        }
    }

    /// Returns the reason for which this request may not follow others that have gone by this decision.
    fn refusal(&self, choice: &Choice, head: &Head<'_>) -> Option<Refusal> {
        if let Err(fault) = body_behind(head) {
            return Some(Refusal::Opening(Fault::Request(fault)));
        }
        let wish = Wish::http(*head);
        let name = wish.name.and_then(Name::parse);
        let decision = wish.decide(self, name.as_ref());
        match wish.outcome(decision, name.as_ref(), self.https_port) {
            Outcome::Go(Destination::Servers(now), _) if now.is_same_service(choice) => None,
            Outcome::Go(..) | Outcome::Redirection(_) | Outcome::End(_) => Some(Refusal::Misdirected),
        }
    }

    /// Judges the next request of a route, which was not admitted.
    pub(super) fn judge_next(&mut self, life: &mut Life, relaying: Relaying, bytes: &[u8], now: Instant) -> Turn {
        let refusal = match head::parse(bytes, &mut head::Progress::default()) {
            head::Parsed::Head(head) => {
                let refusal = self.refusal(&relaying.routed.choice, &head);
                if refusal.is_some() {
                    let wish = Wish::http(head);
                    let name = wish.name.and_then(Name::parse);
                    life.asked = Asked::new(wish.name, name.as_ref(), wish.protocol);
                }
                refusal
            }
            head::Parsed::Wrong(fault) => Some(Refusal::Opening(Fault::Head(fault))),
            // The filter would have waited.
            head::Parsed::NeedMore => None,
        };
        match refusal {
            Some(refusal) => self.finish(life, State::Relaying(relaying), Ending::Refused(refusal), now),
            // A table that has come in between.
            None => (State::Relaying(relaying), Step::Nothing),
        }
    }

    fn count(&mut self, asked: &Asked) {
        let is_http = matches!(asked.protocol, Protocol::Http { .. });
        self.counters.tls += u64::from(asked.protocol == Protocol::Tls);
        self.counters.http += u64::from(is_http);
        self.counters.plain += u64::from(asked.protocol == Protocol::Plain);
        self.counters.postgres += u64::from(asked.starts_tls);
        self.counters.ech += u64::from(asked.has_ech);
    }

    /// Returns true if clients may have to wait for the first table of the store.
    pub fn awaits_store(&self) -> bool {
        self.is_store_awaited
    }

    /// The client need not wait any longer: its first bytes are judged by the tables as they are.
    pub(super) fn judge_again(&mut self, waiting: Waiting, now: Instant) -> Turn {
        let entrance = waiting.entrance;
        self.leave(State::Waiting(waiting), now);
        (self.opening(entrance, now, false), Step::Judge)
    }
}

/// Lets a client make its handshake. From now on the door can say nothing to it in the clear, and the server is not asked
/// for TLS.
fn secure(life: &mut Life, destination: Destination, server: Arc<str>) -> Turn {
    life.asked.is_tls_ended = true;
    life.asked.starts_tls = false;
    (State::Securing(destination), Step::Secure(server))
}

/// Answers a request of PostgreSQL, behind which this entrance lies. The client has no more time for that.
fn invited(opening: Opening, entrance: Entrance, answer: &'static [u8]) -> Turn {
    let opening = Opening {
        entrance,
        progress: Progress::default(),
        ..opening
    };
    (State::Opening(opening), Step::Reply(answer))
}

/// Returns true if a table of the store that is still to come may decide otherwise. The file goes before it in each
/// step, so an exact name there is final, and for a client without a name the file's service for all others is.
fn may_change(name: Option<&str>, decision: &Result<Decision<'_>, Undecided<'_>>) -> bool {
    match decision {
        Ok(decision) => match (decision.source, decision.why) {
            (Source::File, Why::Exact) => false,
            (Source::File, Why::CatchAll) => name.is_some(),
            (Source::File, Why::Suffix) | (Source::Store, _) => true,
        },
        Err(Undecided::NoService | Undecided::NoProtocol(_)) => true,
    }
}

impl<'a> Wish<'a> {
    fn tls(hello: &Hello<'a>) -> Self {
        Wish {
            protocol: Protocol::Tls,
            name: hello.name,
            alpn: hello.alpn,
            has_ech: hello.has_encrypted,
            head: None,
        }
    }

    fn http(head: Head<'a>) -> Self {
        Wish {
            protocol: Protocol::Http {
                is_head: head.method == "HEAD",
            },
            name: head.host.map(str::as_bytes),
            head: Some(head),
            ..Wish::default()
        }
    }

    fn way(&self, ended: Option<&EndedTls>) -> Way {
        match self.protocol {
            Protocol::Tls if ended.is_none() => Way::Tls,
            Protocol::Tls | Protocol::Http { .. } | Protocol::Plain => Way::Http,
        }
    }

    fn is_acme_challenge(&self) -> bool {
        match &self.head {
            Some(head) => head.is_acme_challenge(),
            None => self.alpn.offers(ACME),
        }
    }

    fn decide<'r>(&self, router: &'r Router, name: Option<&Name>) -> Result<Decision<'r>, Undecided<'r>> {
        let offers = |protocol: &[u8]| self.alpn.offers(protocol);
        let name = name.map(Name::as_str);
        router.tables().decide(name, offers, self.is_acme_challenge())
    }

    /// Returns what a decision comes to for this client.
    fn outcome(&self, decision: Result<Decision<'_>, Undecided<'_>>, name: Option<&Name>, https_port: u16) -> Outcome {
        let refused = |refusal| Outcome::End(Ending::Refused(refusal));
        let decision = match decision {
            Ok(decision) => decision,
            Err(Undecided::NoService) => return refused(Refusal::NoService),
            Err(Undecided::NoProtocol(_)) => return refused(Refusal::NoProtocol),
        };
        let redirects = decision.rule.redirects_to_https && !decision.is_for_acme;
        if let Some(head) = self.head.filter(|_| redirects) {
            return match name {
                Some(name) => Outcome::Redirection(answer::redirect(name, https_port, head.path)),
                // A request of HTTP/1.0 without a host, which could not be written behind https.
                None => refused(Refusal::Opening(Fault::Head(head::Fault::NoHost))),
            };
        }
        // A challenge goes to its responder as it comes.
        let ended = decision.rule.tls.as_ref().filter(|_| !decision.is_for_acme);
        let is_plain = self.protocol != Protocol::Tls;
        if is_plain && ended.is_some_and(|tls| tls.asks_clients) {
            return refused(Refusal::ClosedWay);
        }
        let destination = match (decision.choice(self.way(ended)), &decision.rule.target) {
            (Some(choice), _) => match self.head.map(|head| body_behind(&head)) {
                Some(Err(fault)) if choice.rule.judges_each_request => {
                    return refused(Refusal::Opening(Fault::Request(fault)));
                }
                Some(_) | None => Destination::Servers(choice),
            },
            (None, Target::Door(door)) if is_plain || ended.is_some() => Destination::Door(Arc::clone(door)),
            (None, Target::Servers { .. } | Target::Door(_) | Target::Tunnel(_)) => return refused(Refusal::ClosedWay),
        };
        let server = ended.filter(|_| !is_plain).map(|tls| Arc::clone(&tls.server));
        Outcome::Go(destination, server)
    }
}
