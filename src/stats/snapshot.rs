//! All statistics of one service at one moment, in the order in which the service wants them printed.

use std::time::Duration;

/// The name of a metric as people and their scripts know it.
pub type Label = &'static str;

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

    /// Adds a value of any kind.
    pub fn push(&mut self, label: Label, value: Value) {
        self.rows.push((label, value));
    }
}
