//! What the daemon knows about itself, on its way to the person who asks.
//!
//! A service counts in its own plain structs ([`histogram`] for latencies) and, when asked, writes everything into one
//! [`Snapshot`]; a renderer ([`text`]) turns that into what is printed. Services name no format, renderers name no
//! metric. Nothing here does I/O.

pub mod histogram;
mod snapshot;
pub mod text;
pub mod throttle;

pub use snapshot::{Label, Snapshot, Value};
