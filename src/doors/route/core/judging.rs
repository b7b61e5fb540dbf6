//! The judgement of a client's first bytes: what they ask for, the rule that the tables have for it, and the server, or the
//! reason for which there is none.

use std::time::Instant;

use super::ending::{Ending, Refusal};
use super::event::{RouteId, Step};
use super::hello::Hello;
use super::life::{Asked, Life, Opening, State, TABLE_PATIENCE, Waiting};
use super::name::Name;
use super::opening::{Fault, Verdict, judge};
use super::router::{Router, Turn};
use super::table::{Choice, Decision, Source, Target, Undecided, Way, Why};

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
        let (way, hello) = match judge(opening.entrance, bytes, &mut opening.progress) {
            Verdict::NeedMore => return (State::Opening(opening), Step::Read),
            Verdict::Refuse(fault) => {
                life.asked.is_tls = matches!(fault, Fault::Hello(_));
                let ending = Ending::Refused(Refusal::Opening(fault));
                return self.finish(life, State::Opening(opening), ending, now);
            }
            Verdict::Tls(hello) => (Way::Tls, hello),
            // Bytes without a name, for the service for all other names.
            Verdict::Plain | Verdict::PostgresTls | Verdict::PostgresGss | Verdict::Http(_) | Verdict::Http2 => {
                (Way::Http, Hello::default())
            }
        };
        let name = hello.name.and_then(Name::parse);
        life.asked = Asked::new(&hello, name.as_ref(), way);
        let name = name.as_ref().map(Name::as_str);
        let decision = self.tables.decide(name, |protocol| hello.alpn.offers(protocol));
        if self.is_store_awaited && opening.may_wait && may_change(name, &decision) {
            let waiting = Waiting {
                entrance: opening.entrance,
                ticket: self.waiting.push(id),
                until: now + TABLE_PATIENCE,
            };
            return (State::Waiting(waiting), Step::Hold);
        }
        let is_catch_all = decision.is_ok_and(|decision| decision.why == Why::CatchAll);
        let choice = chosen(decision, way);
        self.counters.tls += u64::from(life.asked.is_tls);
        self.counters.plain += u64::from(!life.asked.is_tls);
        self.counters.ech += u64::from(life.asked.has_ech);
        self.counters.catch_all += u64::from(is_catch_all);
        life.times.decided = Some(now);
        match choice {
            Ok(choice) => self.connect(life, choice, now),
            Err(ending) => self.finish(life, State::Opening(opening), ending, now),
        }
    }

    /// The client need not wait any longer: its first bytes are judged by the tables as they are.
    pub(super) fn judge_again(&mut self, waiting: Waiting, now: Instant) -> Turn {
        let entrance = waiting.entrance;
        self.leave(State::Waiting(waiting), now);
        (self.opening(entrance, now, false), Step::Judge)
    }
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

/// Returns the servers that a decision leads to, or the reason for which there are none.
fn chosen(decision: Result<Decision<'_>, Undecided<'_>>, way: Way) -> Result<Choice, Ending> {
    match decision {
        Ok(decision) => decision.choice(way).ok_or(match decision.rule.target {
            Target::Servers { .. } => Ending::Refused(Refusal::ClosedWay),
            Target::Tunnel => Ending::NoServer,
        }),
        Err(Undecided::NoService) => Err(Ending::Refused(Refusal::NoService)),
        Err(Undecided::NoProtocol(_)) => Err(Ending::Refused(Refusal::NoProtocol)),
    }
}
