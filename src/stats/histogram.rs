//! Latencies with percentiles exact to three significant digits, from one microsecond to an hour.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The distribution of one kind of latency.
#[derive(Debug)]
pub struct Latency {
    /// The counts, which grow with the longest latency: 16 KiB up to 2 ms, 8 KiB more for each power of two beyond.
    /// `None` only if the digits below were refused, which a test excludes.
    microseconds: Option<Histogram<u64>>,
}

const LONGEST: u64 = 3_600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// The percentiles that an administrator is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Percentiles {
    /// Half of the latencies were at most this long.
    pub p50: Duration,
    /// 90 % of the latencies were at most this long.
    pub p90: Duration,
    /// 99 % of the latencies were at most this long.
    pub p99: Duration,
    /// 99.9 % of the latencies were at most this long.
    pub p999: Duration,
    /// The longest latency.
    pub max: Duration,
}

impl Default for Latency {
    fn default() -> Self {
        Latency {
            microseconds: Histogram::new(SIGNIFICANT_DIGITS).ok(),
        }
    }
}

impl Latency {
    /// Counts one latency. One of more than an hour counts as an hour.
    pub fn record(&mut self, took: Duration) {
        if let Some(histogram) = &mut self.microseconds {
            let microseconds = u64::try_from(took.as_micros()).unwrap_or(LONGEST);
            // Growing fails only where an index cannot express the length, and an hour needs less than 200 KiB.
            let _ = histogram.record(microseconds.min(LONGEST));
        }
    }

    /// Returns the percentiles of all counted latencies, all zero if none was counted.
    pub fn percentiles(&self) -> Percentiles {
        let Some(histogram) = &self.microseconds else {
            return Percentiles::default();
        };
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
        let max = Duration::from_micros(histogram.max());
        Percentiles {
            p50: at(0.5).min(max),
            p90: at(0.9).min(max),
            p99: at(0.99).min(max),
            p999: at(0.999).min(max),
            max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut latency = Latency::default();
        for milliseconds in 1..=1000 {
            latency.record(Duration::from_millis(milliseconds));
        }
        let seen = latency.percentiles();
        for (got, expected) in [
            (seen.p50, 500),
            (seen.p90, 900),
            (seen.p99, 990),
            (seen.p999, 999),
            (seen.max, 1000),
        ] {
            let (got, expected) = (got.as_secs_f64(), f64::from(expected) / 1000.0);
            assert!((got - expected).abs() <= expected / 1000.0, "{got} is not {expected}");
        }
    }

    #[test]
    fn an_empty_histogram_is_zero_and_a_day_counts_as_an_hour() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentiles(), Percentiles::default());
        latency.record(Duration::from_secs(86_400));
        assert!(latency.percentiles().max >= Duration::from_secs(3600));
    }
}
