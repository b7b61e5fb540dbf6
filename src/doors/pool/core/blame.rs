//! What becomes of the requests that a lost worker had in flight: which of them may be to blame, and which go to others as
//! if nothing had happened.
//!
//! Without channels a worker works on the oldest alone, and that one may be to blame; those written behind it are not. With
//! channels it works on all of them:
//! - If it took too long, those are to blame whose time was over.
//! - If a reply was too long, the request that it was for.
//! - If it died, or answered under a number that nobody had, any of them may have brought it to that: each has one death more
//!   against it. One whose reply had begun is not asked again.

use std::time::Instant;

use super::Dispatcher;
use super::event::{Action, Refusal, ReplyTo, RequestId, Restart, WorkerId};
use super::requests::Delivered;
use super::worker::{Flight, Phase};

/// Who may have brought about a worker's loss, if the reason for it does not say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// None of those that it had.
    NoRequest,
    /// Whatever it was working on.
    Working,
    /// The same, but of this one, and of those behind it, not a byte has reached it.
    WorkingBefore(RequestId),
}

impl Blame {
    /// For this request and those behind it.
    fn from(self, request: RequestId) -> Self {
        match self {
            Blame::WorkingBefore(first) if first == request => Blame::NoRequest,
            blame => blame,
        }
    }

    fn delivered(self) -> Delivered {
        match self {
            Blame::Working | Blame::WorkingBefore(_) => Delivered::Yes,
            Blame::NoRequest => Delivered::No,
        }
    }
}

impl Dispatcher {
    /// Notes that a reply has begun. `false`: to no request that this worker has.
    pub(super) fn mark_reply_begun(&mut self, id: WorkerId, to: ReplyTo) -> bool {
        let flight = self.worker_mut(id).and_then(|worker| worker.flight_mut(to));
        flight.map(|flight| flight.reply_begun = true).is_some()
    }

    /// Ends all flights of a lost worker, whose phase was `phase` until then.
    pub(super) fn end_flights_of(&mut self, id: WorkerId, phase: Phase, reason: Restart, mut blame: Blame) {
        let Phase::Busy { .. } = phase else { return };
        let Some(worker) = self.worker_mut(id) else { return };
        let at_once = worker.channels.is_some();
        let flights = std::mem::take(&mut worker.flights);
        // What was decided for it in the same breath, and not carried out yet, is not to be.
        let mut untold = Vec::new();
        self.actions.retain(|action| match action {
            Action::Assign { worker, request, .. } if *worker == id => {
                untold.push(*request);
                false
            }
            _ => true,
        });
        let overdue = self.now.checked_sub(self.policy.busy_timeout);
        for (number, flight) in flights.into_iter().enumerate() {
            let Some(request) = flight.request else { continue };
            blame = blame.from(request);
            let working = (at_once || number == 0) && !untold.contains(&request);
            match refusal(reason, &flight, number == 0, overdue.filter(|_| at_once)) {
                Some(refusal) => self.refuse(request, refusal, Some(id)),
                None if working => self.requeue(request, id, blame.delivered()),
                None => self.requeue(request, id, Delivered::No),
            }
        }
    }
}

/// Why a flight's request is not asked again. `oldest`: it is the oldest, for which the worker's deadline was. `overdue`: what
/// began by then is over its time as well.
fn refusal(reason: Restart, flight: &Flight, oldest: bool, overdue: Option<Instant>) -> Option<Refusal> {
    match reason {
        Restart::BusyTimeout if oldest || overdue.is_some_and(|by| flight.began <= by) => Some(Refusal::BusyTimeout),
        Restart::Malformed if oldest => Some(Refusal::BadReply),
        Restart::Oversize if flight.reply_begun => Some(Refusal::ReplyTooLong),
        _ if flight.reply_begun => Some(Refusal::WorkerDied),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{AfterReply, ChannelId, ClientId, Event, Fault};
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
            let worker = dispatcher.slots.get(0).unwrap().serving;
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

        /// So many milliseconds after the start.
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
                Some(Action::Assign {
                    channel: Some(channel), ..
                }) => *channel,
                other => panic!("{other:?}"),
            }
        }

        fn reply(&mut self, at: u64, channel: ChannelId) {
            let (worker, to, after) = (self.worker, ReplyTo::Channel(channel), AfterReply::InStep);
            self.at(at, Event::Reply { worker, to, after });
        }

        fn refused(&self) -> Vec<(u64, Refusal)> {
            let refused = self.told.iter().filter_map(|action| match action {
                Action::Refuse { client, reason, .. } => Some((client.0, *reason)),
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
        // Those whose time is over; the other goes elsewhere, and was to blame for nothing.
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
                Action::Answer { served, waited, .. } => Some((*served + *waited).as_millis()),
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
    fn the_one_whose_reply_was_too_long_is_refused_and_nobody_else() {
        let mut pool = Pool::new(3);
        let (_, second, _) = (pool.ask(0, 1), pool.ask(1, 2), pool.ask(2, 3));
        let to = ReplyTo::Channel(second);
        pool.at(3, Event::Broken(pool.worker, Fault::ReplyTooLong(to)));
        assert_eq!(pool.refused(), [(2, Refusal::ReplyTooLong)]);
        assert_eq!(pool.waiting(), [1, 3]);
    }

    #[test]
    fn what_has_not_reached_it_is_not_to_blame() {
        let mut pool = Pool::new(3);
        pool.ask(0, 1);
        pool.ask(1, 2);
        let Some(Action::Assign { request, .. }) = pool.told.last().copied() else {
            panic!("{:?}", pool.told)
        };
        pool.ask(2, 3);
        pool.at(3, Event::Broken(pool.worker, Fault::InputClosed(request)));
        assert_eq!(pool.refused(), [(1, Refusal::WorkerDied)]);
        assert_eq!(pool.waiting(), [2, 3]);
    }
}
