//! The settings of the answer cache of a pool.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::pattern::pattern;
use super::{KEY, KeyRef, LONGEST, Mistakes};
use crate::config::spec::pool::PoolSpec;
use crate::doors::pool::options::{CacheLimits, CacheOptions};

const DEFAULT_TTL: Duration = Duration::from_secs(60);

/// Less than 64 KiB would hold no more than a page of answers.
const SIZE: RangeInclusive<u64> = 64 << 10..=1 << 40;
const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST;

/// Returns the settings of the cache, if there is one.
pub(super) fn cache(mistakes: &mut Mistakes, spec: &PoolSpec) -> Option<CacheOptions> {
    let size = mistakes.size("cache-size", spec.cache_size, &SIZE);
    let ttl = mistakes.time("cache-ttl", spec.cache_ttl, &TTL);
    let skip = spec.cache_skip.as_deref();
    let skip = skip.and_then(|text| pattern(mistakes, KeyRef::key("cache-skip"), text));
    if spec.cache_size.is_none() {
        let given = [
            ("cache-ttl", spec.cache_ttl.is_some()),
            ("cache-skip", spec.cache_skip.is_some()),
        ];
        for (key, _) in given.into_iter().filter(|(_, given)| *given) {
            let text = format!("without {KEY}cache-size no answer is kept, so this decides nothing");
            let remedy = format!("give {KEY}cache-size as well, or leave it out");
            mistakes.add(KeyRef::key(key), text, remedy);
        }
    }
    let size = usize::try_from(size?).unwrap_or(usize::MAX);
    let ttl = ttl.unwrap_or(DEFAULT_TTL);
    Some(CacheOptions {
        limits: CacheLimits { size, ttl },
        skip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::lower::pool;
    use crate::config::units::{Size, Time};

    fn spec(size: Option<u64>, ttl: Option<u64>, skip: Option<&str>) -> PoolSpec {
        PoolSpec {
            cache_size: size.map(Size),
            cache_ttl: ttl.map(|seconds| Time(Duration::from_secs(seconds))),
            cache_skip: skip.map(Into::into),
            ..PoolSpec::default()
        }
    }

    #[test]
    fn there_is_no_cache_by_default() {
        assert_eq!(pool("pool", &PoolSpec::default()).unwrap().options.cache, None);
        let cache = pool("pool", &spec(Some(1 << 20), None, Some("^POST")))
            .unwrap()
            .options
            .cache;
        let limits = CacheLimits {
            size: 1 << 20,
            ttl: DEFAULT_TTL,
        };
        let skip = crate::doors::pattern::Pattern::new("^POST").ok();
        assert_eq!(cache, Some(CacheOptions { limits, skip }));
    }

    #[test]
    fn keys_without_effect_are_refused() {
        let told = pool("pool", &spec(None, Some(5), Some("x"))).unwrap_err();
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("cache-ttl: without cache-size"), "{told:?}");
        assert!(told[1].starts_with("cache-skip: without cache-size"), "{told:?}");
    }

    #[test]
    fn a_malformed_expression_is_reported_with_its_position() {
        let told = pool("pool", &spec(Some(1 << 20), None, Some("a(b"))).unwrap_err();
        assert!(
            told[0]
                .to_string()
                .starts_with("cache-skip: `a(b` is not a regular expression at character 2"),
            "{}",
            told[0]
        );
    }
}
