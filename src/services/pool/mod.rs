//! The pool.
pub mod core;
pub mod options;
