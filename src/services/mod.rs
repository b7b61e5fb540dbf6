//! The front doors.
pub mod pool;
