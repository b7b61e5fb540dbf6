//! All statistics of one service at one moment, in the order in which the service wants them printed.

use std::iter;
use std::time::Duration;

use super::histogram::Latency;

/// The name of a metric as people and their scripts know it.
pub type Label = &'static str;

/// The names of the percentiles of a latency: of 50, 90, 99 and 99.9 percent, and of the longest time.
pub type Labels = [Label; 5];

/// The value of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A number of things.
    Count(u64),
    /// A duration, printed in milliseconds with three decimals.
    Milliseconds(Duration),
    /// A duration, printed in seconds with three decimals.
    Seconds(Duration),
    /// A name.
    Text(String),
}

/// All metrics of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Labels and values, in order.
    pub rows: Vec<(Label, Value)>,
}

impl Snapshot {
    /// Adds a number.
    pub fn count(&mut self, label: Label, value: u64) {
        self.rows.push((label, Value::Count(value)));
    }

    /// Adds the percentiles of a latency.
    pub fn latency(&mut self, labels: Labels, latency: &Latency) {
        let seen = latency.percentiles();
        let values = [seen.p50, seen.p90, seen.p99, seen.p999, seen.max];
        for (label, value) in iter::zip(labels, values) {
            self.push(label, Value::Milliseconds(value));
        }
    }

    /// Adds a value of any kind.
    pub fn push(&mut self, label: Label, value: Value) {
        self.rows.push((label, value));
    }
}
