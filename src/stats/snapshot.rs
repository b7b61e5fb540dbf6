//! Everything one service has to say about itself at one moment, in the order in which it wants it read.

use std::time::Duration;

/// The name of a metric as people and their scripts know it.
pub type Label = &'static str;

/// What a metric says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A number of things.
    Count(u64),
    /// A length of time, shown in milliseconds with three decimals.
    Milliseconds(Duration),
    /// A length of time, shown in seconds with three decimals.
    Seconds(Duration),
    /// A name.
    Text(String),
}

/// All metrics of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Label and value, in order.
    pub rows: Vec<(Label, Value)>,
}

impl Snapshot {
    /// Adds a number.
    pub fn count(&mut self, label: Label, value: u64) {
        self.rows.push((label, Value::Count(value)));
    }

    /// Adds any value.
    pub fn push(&mut self, label: Label, value: Value) {
        self.rows.push((label, value));
    }
}
