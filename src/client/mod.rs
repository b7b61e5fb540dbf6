//! Programs that talk to a daemon: one folder each, on the same loop and the same streams as the daemon itself.
//!
//! [`ask`] asks a pool, for people, scripts and Squid; [`call`] has an exec door run a program. What several of them need
//! stands beside them: standard streams on threads (`stdio`), where a connection goes (`target`), what they are called among the
//! processes (`name`). What a daemon does to answer does not belong here.

pub mod ask;
pub mod call;
mod name;
mod stdio;
mod sys;
mod target;
