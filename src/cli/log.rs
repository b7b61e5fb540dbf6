//! The log: a line per event on standard error.
//!
//! `LEVEL message`, without the time: whatever keeps the log (journald, syslog, a container's runtime) adds it, and two
//! would disagree. `RUST_LOG` chooses what is kept, as `env_logger` describes it; the default is `info`.

use std::io::Write;

use env_logger::Env;

/// Starts logging. To be called once, before anything that logs; a second call changes nothing.
pub fn start() {
    let started = env_logger::Builder::from_env(Env::default().default_filter_or("info"))
        .format(|out, record| writeln!(out, "{} {}", record.level(), record.args()))
        .try_init();
    // It fails only where a log runs already, and that one is as good.
    drop(started);
}
