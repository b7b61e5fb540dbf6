//! The number of workers of a pool: fixed by `num-daemons`, or following the load between the other keys.
//!
//! `max-workers` makes it follow the load; the other keys have a meaning only with it, and `num-daemons` only without
//! it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{KEY, KeyRef, LONGEST, Mistakes, SHORTEST_TIMEOUT};
use crate::config::spec::pool::PoolSpec;
use crate::doors::pool::options::{MAX_WORKERS, PoolSize};

const DEFAULT_WORKERS: usize = 4;
const DEFAULT_MIN: usize = 1;
/// The value of Squid for its own helpers.
const DEFAULT_SPARE: usize = 1;
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

const WORKERS: RangeInclusive<usize> = 1..=MAX_WORKERS;
const SPARE: RangeInclusive<usize> = 0..=MAX_WORKERS;
const IDLE_TIMEOUT: RangeInclusive<Duration> = SHORTEST_TIMEOUT..=LONGEST;

/// Returns the size of the pool. Every key is read, even without a meaning, so that all mistakes are reported at once.
pub(super) fn pool_size(mistakes: &mut Mistakes, spec: &PoolSpec) -> PoolSize {
    let number = mistakes.count("num-daemons", spec.num_daemons, WORKERS);
    let min = mistakes.count("min-workers", spec.min_workers, WORKERS);
    let max = mistakes.count("max-workers", spec.max_workers, WORKERS);
    let spare = mistakes.count("spare-workers", spec.spare_workers, SPARE);
    let idle_timeout = mistakes.time("worker-idle-timeout", spec.worker_idle_timeout, &IDLE_TIMEOUT);
    let given = [
        ("min-workers", min.is_some()),
        ("spare-workers", spare.is_some()),
        ("worker-idle-timeout", idle_timeout.is_some()),
    ];
    let given = given.into_iter().filter(|(_, given)| *given).map(|(key, _)| key);
    let Some(max) = max else {
        for key in given {
            let text = format!("without {KEY}max-workers the number of workers is fixed");
            let remedy = format!("give {KEY}max-workers as well, and no {KEY}num-daemons, or leave it out");
            mistakes.add(KeyRef::key(key), text, remedy);
        }
        return PoolSize::fixed(number.unwrap_or(DEFAULT_WORKERS));
    };
    if number.is_some() {
        let text = format!("it fixes the number of workers, and {KEY}max-workers lets it follow the load");
        mistakes.add(KeyRef::key("num-daemons"), text, "leave out one of the two");
    }
    let within_max = |key, said: Option<usize>, mistakes: &mut Mistakes| {
        if let Some(said) = said.filter(|said| *said > max) {
            let text = format!("{said} is more than {KEY}max-workers {max}");
            mistakes.add(
                KeyRef::key(key),
                text,
                format!("write at most {max}, or raise {KEY}max-workers"),
            );
        }
    };
    within_max("min-workers", min, mistakes);
    within_max("spare-workers", spare, mistakes);
    let min = min.unwrap_or(DEFAULT_MIN).min(max);
    if min == max {
        for key in given.filter(|key| *key != "min-workers") {
            let text = format!("{min} workers are the fewest and the most, so none comes or goes");
            mistakes.add(
                KeyRef::key(key),
                text,
                format!("lower {KEY}min-workers, or leave it out"),
            );
        }
        return PoolSize::fixed(max);
    }
    PoolSize {
        min,
        max,
        spare: spare.unwrap_or(DEFAULT_SPARE).min(max),
        idle_timeout: idle_timeout.unwrap_or(DEFAULT_IDLE_TIMEOUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::{Time, Whole};

    type Said = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<u64>);

    /// The values of `num-daemons`, `min-workers`, `max-workers`, `spare-workers`, and `worker-idle-timeout` in
    /// seconds.
    fn lower((number, min, max, spare, seconds): Said) -> (PoolSize, Vec<String>) {
        let spec = PoolSpec {
            num_daemons: number.map(Whole),
            min_workers: min.map(Whole),
            max_workers: max.map(Whole),
            spare_workers: spare.map(Whole),
            worker_idle_timeout: seconds.map(|seconds| Time(Duration::from_secs(seconds))),
            ..PoolSpec::default()
        };
        let mut mistakes = Mistakes::default();
        let size = pool_size(&mut mistakes, &spec);
        (size, mistakes.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn valid_settings_give_the_size_of_the_pool() {
        let accepted = |said| {
            let (size, mistakes) = lower(said);
            assert_eq!(mistakes, [""; 0]);
            size
        };
        assert_eq!(accepted((None, None, None, None, None)), PoolSize::fixed(4));
        assert_eq!(accepted((Some(9), None, None, None, None)), PoolSize::fixed(9));
        assert_eq!(accepted((None, Some(9), Some(9), None, None)), PoolSize::fixed(9));
        assert_eq!(accepted((None, None, Some(1), None, None)), PoolSize::fixed(1));
        let size = |min, max, spare, seconds| PoolSize {
            min,
            max,
            spare,
            idle_timeout: Duration::from_secs(seconds),
        };
        assert_eq!(accepted((None, None, Some(8), None, None)), size(1, 8, 1, 60));
        assert_eq!(
            accepted((None, Some(2), Some(4096), Some(0), Some(5))),
            size(2, 4096, 0, 5)
        );
    }

    #[test]
    fn conflicting_settings_are_reported_with_a_remedy() {
        let one = |said| match lower(said).1.as_slice() {
            [one] => one.clone(),
            told => panic!("{told:?}"),
        };
        for (said, told) in [
            (
                (Some(4), None, Some(8), None, None),
                "num-daemons: it fixes the number of workers, and max-workers lets it follow the load; \
                 leave out one of the two",
            ),
            (
                (Some(4), Some(2), None, None, None),
                "min-workers: without max-workers the number of workers is fixed; \
                 give max-workers as well, and no num-daemons, or leave it out",
            ),
            (
                (None, Some(9), Some(8), None, None),
                "min-workers: 9 is more than max-workers 8; write at most 8, or raise max-workers",
            ),
            (
                (None, None, Some(8), Some(9), None),
                "spare-workers: 9 is more than max-workers 8; write at most 8, or raise max-workers",
            ),
            (
                (None, Some(8), Some(8), None, Some(3)),
                "worker-idle-timeout: 8 workers are the fewest and the most, so none comes or goes; \
                 lower min-workers, or leave it out",
            ),
        ] {
            assert_eq!(one(said), told);
        }
    }
}
