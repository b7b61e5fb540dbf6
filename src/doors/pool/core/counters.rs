//! The counters of a pool. The dispatcher and the shell are its only writers, `report` its only reader.
//!
//! `total` = `replied` + `failed` + `hung_up` + requests in hand, at every moment.

use std::time::{Duration, Instant};

use super::event::{Refusal, Restart};

/// Since the start of the pool.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Requests, and attempts at one that were refused before they were whole.
    pub total: u64,
    /// Requests whose reply went to their client.
    pub replied: u64,
    /// Requests that found no free worker.
    pub delayed: u64,
    /// Requests whose client hung up before its answer.
    pub hung_up: u64,
    /// Requests, or attempts at one, that were refused or lost.
    pub failed: u64,
    /// Output of workers that answered no request.
    pub unknown: u64,
    /// Replies by processing time: below 100, 250, 500, 750, 1000 milliseconds, and longer.
    pub by_time: [u64; 6],
    /// Processes started.
    pub spawns: u64,
    /// Requests that were written ahead to a busy worker.
    pub ahead: u64,
    /// Probes that were asked. They are no requests.
    pub probes: u64,
    /// Requests that were given to a worker which had others in hand, all to be answered at once.
    pub concurrent: u64,
    /// Places opened because of load.
    pub grown: u64,
    /// Places closed because they were not needed.
    pub shrunk: u64,
    /// Processes that have left something in the background when they ended.
    pub background: u64,
    /// Requests that were given to another worker.
    pub retried: u64,
    /// Kept connections closed because they asked nothing for too long.
    pub idle_closed: u64,
    /// Requests that the cache was asked for.
    pub cache: CacheCounters,
    /// The use of multiplexed connections.
    pub multiplexed: MultiplexedCounters,
    /// Workers replaced, by reason.
    pub restarts: Restarts,
    /// Requests, connections and attempts refused, by reason.
    pub refusals: Refusals,
}

/// The requests that the cache was asked for, by what it knew.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CacheCounters {
    /// Their answer was known.
    pub hits: u64,
    /// A worker was asked.
    pub misses: u64,
    /// A worker was being asked the same.
    pub shared: u64,
}

/// The use of multiplexed connections.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MultiplexedCounters {
    /// Connections whose client has asked for it.
    pub connections: u64,
    /// Requests on them. Requests that were refused before they reached the dispatcher are included.
    pub requests: u64,
    /// Requests that their client has cancelled. They count as hung up too.
    pub cancelled: u64,
}

/// Workers replaced, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named for its reason in event::Restart")]
pub struct Restarts {
    pub died: u64,
    pub spawn_failed: u64,
    pub start_timeout: u64,
    pub busy_timeout: u64,
    pub desync: u64,
    pub unknown_channel: u64,
    pub oversize: u64,
    pub quarantined: u64,
    pub malformed: u64,
    pub recycled: u64,
    pub spent: u64,
    pub asked: u64,
}

/// Refusals by reason: the dispatcher's own, then those of the shell.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Refusals {
    /// As many requests as allowed waited already.
    pub queue_full: u64,
    /// No worker became free in time.
    pub queue_timeout: u64,
    /// The worker took too long.
    pub busy_timeout: u64,
    /// The worker died, once too often or in the middle of its reply.
    pub worker_died: u64,
    /// The reply was over the limit.
    pub reply_too_long: u64,
    /// The worker's output was no reply, or could not be said in the client's framing.
    pub bad_reply: u64,
    /// The daemon was ending.
    pub shutdown: u64,
    /// The request was over the limit.
    pub request_too_long: u64,
    /// The request held a byte that no line may hold.
    pub bad_request: u64,
    /// The request did not become whole in time.
    pub read_timeout: u64,
    /// The client did not take its answer in time.
    pub write_timeout: u64,
}

impl Counters {
    /// Counts a client that was refused before its request was whole.
    pub fn count_early_refusal(&mut self) {
        self.total += 1;
        self.failed += 1;
    }

    /// Counts a request that was answered without asking a worker.
    pub fn count_answer_without_worker(&mut self) {
        self.total += 1;
        self.count_reply(Duration::ZERO);
    }

    /// Counts a request whose client has gone, and about which no worker was asked.
    pub fn count_departure_without_worker(&mut self) {
        self.total += 1;
        self.hung_up += 1;
    }

    /// Counts an answer, already counted as given after the processing time `served`, as lost: its client had hung up.
    pub fn count_lost_answer(&mut self, served: Duration) {
        self.uncount_reply(served);
        self.hung_up += 1;
    }

    /// Counts an answer, already counted as given after the processing time `served`, as a refusal: it cannot be
    /// written in its client's framing.
    pub fn count_unfit_answer(&mut self, served: Duration) {
        self.uncount_reply(served);
        self.failed += 1;
        self.refusals.bad_reply += 1;
    }

    fn uncount_reply(&mut self, served: Duration) {
        self.replied = self.replied.saturating_sub(1);
        if let Some(count) = self.bucket(served) {
            *count = count.saturating_sub(1);
        }
    }

    /// Counts a reply that has gone to its client, after the processing time `served`.
    pub(super) fn count_reply(&mut self, served: Duration) {
        self.replied += 1;
        if let Some(count) = self.bucket(served) {
            *count += 1;
        }
    }

    /// A worker is replaced for this reason.
    pub(super) fn count_restart(&mut self, reason: Restart) {
        let restarts = &mut self.restarts;
        let count = match reason {
            Restart::Died => &mut restarts.died,
            Restart::SpawnFailed => &mut restarts.spawn_failed,
            Restart::StartTimeout => &mut restarts.start_timeout,
            Restart::BusyTimeout => &mut restarts.busy_timeout,
            Restart::Desync => &mut restarts.desync,
            Restart::UnknownChannel => &mut restarts.unknown_channel,
            Restart::Oversize => &mut restarts.oversize,
            Restart::Quarantined => &mut restarts.quarantined,
            Restart::Malformed => &mut restarts.malformed,
            Restart::Recycled => &mut restarts.recycled,
            Restart::Spent => &mut restarts.spent,
            Restart::Asked => &mut restarts.asked,
        };
        *count += 1;
    }

    /// A request is refused for this reason.
    pub(super) fn count_refusal(&mut self, reason: Refusal) {
        self.failed += 1;
        let refusals = &mut self.refusals;
        let count = match reason {
            Refusal::QueueFull => &mut refusals.queue_full,
            Refusal::QueueTimeout => &mut refusals.queue_timeout,
            Refusal::BusyTimeout => &mut refusals.busy_timeout,
            Refusal::WorkerDied => &mut refusals.worker_died,
            Refusal::ReplyTooLong => &mut refusals.reply_too_long,
            Refusal::BadReply => &mut refusals.bad_reply,
            Refusal::Shutdown => &mut refusals.shutdown,
        };
        *count += 1;
    }

    fn bucket(&mut self, served: Duration) -> Option<&mut u64> {
        let bucket = match served.as_millis() {
            0..100 => 0,
            100..250 => 1,
            250..500 => 2,
            500..750 => 3,
            750..1000 => 4,
            1000.. => 5,
        };
        self.by_time.get_mut(bucket)
    }
}

/// The time for which every worker that could serve was busy, all such times together.
#[derive(Debug, Default)]
pub(super) struct Saturation {
    total: Duration,
    since: Option<Instant>,
}

impl Saturation {
    pub(super) fn update(&mut self, saturated: bool, now: Instant) {
        match (saturated, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(since)) => {
                self.total += now.saturating_duration_since(since);
                self.since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    pub(super) fn total(&self, now: Instant) -> Duration {
        self.total
            + self
                .since
                .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_counts_in_the_bucket_whose_lower_bound_it_reaches() {
        let mut counters = Counters::default();
        for milliseconds in [0, 99, 100, 249, 250, 499, 500, 749, 750, 999, 1000, 60_000] {
            counters.count_reply(Duration::from_millis(milliseconds));
        }
        assert_eq!(counters.by_time, [2; 6]);
    }

    #[test]
    fn an_answer_that_was_lost_is_in_no_bucket() {
        let (mut counters, served) = (Counters::default(), Duration::from_millis(300));
        counters.count_reply(served);
        counters.count_lost_answer(served);
        assert_eq!((counters.replied, counters.by_time, counters.hung_up), (0, [0; 6], 1));
        counters.count_reply(served);
        counters.count_unfit_answer(served);
        assert_eq!((counters.replied, counters.by_time, counters.failed), (0, [0; 6], 1));
        assert_eq!(counters.refusals.bad_reply, 1);
    }

    #[test]
    fn saturation_adds_up_over_its_times_and_runs_on() {
        let (start, mut saturation) = (Instant::now(), Saturation::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        saturation.update(true, at(0));
        saturation.update(true, at(1));
        saturation.update(false, at(2));
        saturation.update(true, at(5));
        assert_eq!(saturation.total(at(6)), Duration::from_secs(3));
    }
}
