//! Statistics: what a service counts, and how that is printed.
//!
//! A service counts in plain structs of its own ([`histogram`] for latencies) and, when asked, writes all of it into
//! one [`Snapshot`]; a renderer ([`text`]) turns that into text. Services name no format, and renderers name no metric.
//! [`throttle`] bounds the log lines about events of one kind. Nothing here does I/O.

pub mod histogram;
mod snapshot;
pub mod text;
pub mod throttle;

pub use snapshot::{Label, Labels, Snapshot, Value};
