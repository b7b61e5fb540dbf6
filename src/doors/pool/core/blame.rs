//! The fate of the requests that a lost worker had in flight: some may be to blame, and others go to other workers as
//! if nothing had happened.
//!
//! Without channels a worker works on the oldest alone, and that one may be to blame; those written behind it are not.
//! With channels it works on all of them:
//! - If it took too long, those are to blame whose time was over.
//! - If a reply was too long, the request that it was for.
//! - If it died, or answered under a number that was not in flight, any of them may have brought it to that: each has
//!   one death more against it. One whose reply had begun is not asked again.

use std::time::Instant;

use super::event::{Refusal, RequestId, Restart};
use super::workers::Flight;

/// The requests that may have brought about a worker's loss, if the reason for it does not say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// No request.
    NoRequest,
    /// All requests that the worker was working on.
    Working,
    /// All requests that the worker was working on before this one: of this one, and of the ones behind it, not a byte
    /// has reached the worker.
    WorkingBefore(RequestId),
}

/// The fate of a request whose worker is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Refused(Refusal),
    /// The request goes to another worker.
    AskedAgain {
        /// The worker had been given a byte of the request, and may have died over it.
        is_suspect: bool,
    },
}

/// A lost worker, with what decides about its requests.
#[derive(Debug)]
pub(super) struct Wreck {
    pub(super) reason: Restart,
    pub(super) blame: Blame,
    /// True if the worker worked on all of its requests at once.
    pub(super) at_once: bool,
    /// The time by which a request must have begun to be over its time now.
    pub(super) overdue: Option<Instant>,
    /// The requests that were decided to be given to it, and of which it has not had a byte.
    pub(super) unwritten: Vec<RequestId>,
}

impl Wreck {
    /// Decides about the requests in the order in which the worker was given them; `number` counts from 0. Those whose
    /// clients have gone are left out.
    pub(super) fn decide(&mut self, number: usize, flight: &Flight, request: RequestId) -> Fate {
        if self.blame == Blame::WorkingBefore(request) {
            self.blame = Blame::NoRequest;
        }
        if let Some(refusal) = self.refusal(number == 0, flight) {
            return Fate::Refused(refusal);
        }
        let is_worked_on = (self.at_once || number == 0) && !self.unwritten.contains(&request);
        let is_suspect = is_worked_on && self.blame != Blame::NoRequest;
        Fate::AskedAgain { is_suspect }
    }

    /// The reason why a flight's request is not asked again. `is_oldest`: the worker's deadline was for it.
    fn refusal(&self, is_oldest: bool, flight: &Flight) -> Option<Refusal> {
        let is_overdue = self.at_once && self.overdue.is_some_and(|by| flight.began <= by);
        if self.reason == Restart::BusyTimeout && (is_oldest || is_overdue) {
            Some(Refusal::BusyTimeout)
        } else if self.reason == Restart::Malformed && is_oldest {
            Some(Refusal::BadReply)
        } else if self.reason == Restart::Oversize {
            flight.reply_begun.then_some(Refusal::ReplyTooLong)
        } else {
            // Part of the reply may have reached the client.
            flight.reply_begun.then_some(Refusal::WorkerDied)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{
        Action, AfterReply, Assignment, ChannelId, ClientId, Completion, Dispatcher, Event, Fault, RefusedRequest,
        ReplyTo, WorkerId,
    };
    use super::*;
    use crate::doors::pool::options::{Policy, PoolSize};

    const BUSY: Duration = Duration::from_secs(10);

    /// One worker that has answered once and takes `concurrency` requests at once; no retries.
    struct Pool {
        dispatcher: Dispatcher,
        start: Instant,
        worker: WorkerId,
        told: Vec<Action>,
    }

    impl Pool {
        fn new(concurrency: usize) -> Self {
            let start = Instant::now();
            let policy = Policy {
                single_use: false,
                mode: crate::doors::pool::options::Mode::Request,
                probe_interval: None,
                workers: PoolSize::fixed(1),
                queue_size: 100,
                queue_timeout: Duration::from_secs(60),
                busy_timeout: BUSY,
                retries: 0,
                pipeline: 1,
                concurrency: Some(concurrency),
                alarm_interval: Duration::from_secs(2),
                ready_line: false,
                start_timeout: Duration::from_secs(60),
                max_requests: None,
                max_age: None,
                rest: Duration::ZERO,
            };
            let dispatcher = Dispatcher::new(policy, start, 1);
            let worker = dispatcher.slots().next().unwrap().worker;
            let told = Vec::new();
            let mut pool = Pool {
                dispatcher,
                start,
                worker,
                told,
            };
            pool.at(0, Event::Started(worker));
            pool.at(0, Event::Ready(worker));
            let channel = pool.ask(0, 100);
            pool.reply(0, channel);
            pool.told.clear();
            pool
        }

        /// Tells of an event at this number of milliseconds after the start.
        fn at(&mut self, at: u64, event: Event) {
            self.dispatcher.handle(self.start + Duration::from_millis(at), event);
            while let Some(action) = self.dispatcher.next_action() {
                self.told.push(action);
            }
        }

        fn ask(&mut self, at: u64, client: u64) -> ChannelId {
            let client = ClientId(client);
            self.at(at, Event::Request { client, size: 5000 });
            match self.told.last() {
                Some(Action::Assign(Assignment {
                    channel: Some(channel), ..
                })) => *channel,
                other => panic!("{other:?}"),
            }
        }

        fn reply(&mut self, at: u64, channel: ChannelId) {
            let (worker, to, after) = (self.worker, ReplyTo::Channel(channel), AfterReply::InStep);
            self.at(at, Event::Reply { worker, to, after });
        }

        fn refused(&self) -> Vec<(u64, Refusal)> {
            let refused = self.told.iter().filter_map(|action| match action {
                Action::Refuse(RefusedRequest { client, reason, .. }) => Some((client.0, *reason)),
                _ => None,
            });
            refused.collect()
        }

        fn waiting(&self) -> Vec<u64> {
            self.dispatcher.queued().map(|waiting| waiting.client.0).collect()
        }
    }

    #[test]
    fn each_has_the_whole_busy_time_from_when_it_was_given() {
        let mut pool = Pool::new(4);
        let first = pool.ask(0, 1);
        pool.ask(4_000, 2);
        pool.ask(4_000, 3);
        pool.ask(9_000, 4);
        pool.reply(9_500, first);
        pool.at(13_999, Event::Tick);
        assert_eq!((pool.refused(), pool.waiting()), (vec![], vec![]));
        pool.at(14_000, Event::Tick);
        // The requests whose time is over are refused; the other goes elsewhere, and was to blame for nothing.
        let over = Refusal::BusyTimeout;
        assert_eq!((pool.refused(), pool.waiting()), (vec![(2, over), (3, over)], vec![4]));
        assert_eq!(pool.dispatcher.counters().restarts.busy_timeout, 1);
    }

    #[test]
    fn an_answer_that_took_long_counts_from_when_it_was_given() {
        let mut pool = Pool::new(2);
        let first = pool.ask(0, 1);
        let second = pool.ask(3_000, 2);
        pool.reply(5_000, first);
        pool.reply(6_000, second);
        let served: Vec<u128> = pool
            .told
            .iter()
            .filter_map(|action| match action {
                Action::Answer(Completion { served, waited, .. }) => Some((*served + *waited).as_millis()),
                _ => None,
            })
            .collect();
        assert_eq!(served, [5_000, 3_000]);
        let counters = pool.dispatcher.counters();
        assert_eq!((counters.concurrent, counters.ahead, counters.delayed), (1, 0, 0));
        assert_eq!(
            pool.dispatcher.saturated(pool.start + Duration::from_secs(60)),
            Duration::from_secs(2)
        );
    }

    #[test]
    fn only_the_request_whose_reply_was_too_long_is_refused() {
        let mut pool = Pool::new(3);
        let (_, second, _) = (pool.ask(0, 1), pool.ask(1, 2), pool.ask(2, 3));
        let to = ReplyTo::Channel(second);
        pool.at(3, Event::Broken(pool.worker, Fault::ReplyTooLong(to)));
        assert_eq!(pool.refused(), [(2, Refusal::ReplyTooLong)]);
        assert_eq!(pool.waiting(), [1, 3]);
    }

    #[test]
    fn a_request_that_has_not_reached_the_worker_is_not_to_blame() {
        let mut pool = Pool::new(3);
        pool.ask(0, 1);
        pool.ask(1, 2);
        let Some(Action::Assign(Assignment { request, .. })) = pool.told.last().copied() else {
            panic!("{:?}", pool.told)
        };
        pool.ask(2, 3);
        pool.at(3, Event::Broken(pool.worker, Fault::InputClosed(request)));
        assert_eq!(pool.refused(), [(1, Refusal::WorkerDied)]);
        assert_eq!(pool.waiting(), [2, 3]);
    }
}
