//! The door through which the tests, the fuzz targets and the examples of this repository reach the inside of the
//! crate.
//!
//! The rooms of the crate are private, and the program needs only [`crate::main`]. Every other item that a simulation,
//! a fuzz target or an example drives directly is listed here under the name of its room. The list is not an interface
//! for other crates: it changes whenever the rooms do. No room may use it, for a room can name another one itself.
//!
//! A test that drives the real binary (`tests/it`) needs nothing from here, and a test of one type stands beside that
//! type. Add an item only if the test must feed a pure core or a parser from outside of `src`.

/// The flags of the command line.
pub mod cli {
    pub use crate::cli::command;
}

/// Configuration: reading files, and the vocabulary that the manual is checked against.
pub mod config {
    pub use crate::config::file;
    pub use crate::config::framing::Framing;
    pub use crate::config::levels::Levels;
    pub use crate::config::spec;
    pub use crate::config::units;
}

/// The blame and the reason that an error carries.
pub mod error {
    pub use crate::error::{Blame, Reason};
}

/// The pure core of the client `ask`, and the parsers of its input and of replies.
pub mod ask {
    pub use crate::client::ask::core::{AskAction, AskEvent, Asker, AttemptId, ConnectionId, Fault};
    pub use crate::client::ask::cutter::{Cut, Cutter};
    pub use crate::client::ask::input::{LONGEST_LINE, Line, Splitter};
    pub use crate::client::ask::options::Policy;
    pub use crate::client::ask::protocol::{self, Protocol, Question, Reading};
    pub use crate::client::ask::reply::{self, Collector, Flaw, LONGEST_FOR_SQUID, LONGEST_REPLY};
    pub use crate::client::ask::{ChannelIds, Mode};
}

/// The parser of an exec door's answers, as the client `call` reads them.
pub mod call {
    pub use crate::client::call::core::{AnswerError, AnswerReader, Finding, Output, ProgramEnd};
}

/// The parser of a command door's messages.
pub mod command {
    pub use crate::doors::command::core::exchange::{Exchange, Found};
}

/// The parsers of an exec door's requests.
pub mod exec {
    pub use crate::doors::exec::core::protocol::Protocol;
    pub use crate::doors::exec::core::request::{End, Found, PER_ARGUMENT, Wrong};
}

/// The pure core of the pool, with every event and action, and the options that it is made from.
pub mod pool {
    pub use crate::doors::pool::core;
    pub use crate::doors::pool::options;
}

/// The pure core of the route door.
pub mod route {
    pub use crate::doors::route::core;
}

/// A session of many streams: its pure core, the headers of its frames, and its shell.
pub mod mux {
    pub use crate::mux::{core, frame, session};
}

/// The entries of a store, and the decisions about them.
pub mod store {
    pub use crate::store::{cache, entry, keeper, key, reading};
}

/// The framings, and the searches that they are built from.
pub mod framing {
    pub use crate::framing::channel::{Channel, Prefix, channel};
    pub use crate::framing::line_rules::LineRules;
    pub use crate::framing::multiplex;
    pub use crate::framing::search::LineSearch;
    pub use crate::framing::signals::PASSED_ON;
    pub use crate::framing::{Framing, Progress};
}

/// The rooms of the program that the log's filter knows.
pub mod log {
    pub use crate::log::{ROOMS, room};
}

/// Addresses, access lists, the header of a proxy, and the list of sockets that a predecessor hands over.
pub mod net {
    pub use crate::net::access::{AccessList, parse_net};
    pub use crate::net::addr::{Connect, Listen, PeerAddr};
    pub use crate::net::conn::Conn;
    pub use crate::net::handover;
    pub use crate::net::origin::{Asserted, Origin};
    pub use crate::net::proxy;
    pub use crate::net::stream::Stream;
}

/// TLS without a socket, and the readers of certificates.
pub mod tls {
    pub use crate::net::tls::Version;
    pub use crate::net::tls::choice::Choice;
    pub use crate::net::tls::engine::{Engine, Plain};
    pub use crate::net::tls::error::Fault;
    pub use crate::net::tls::identity::{Identity, certificates_from_pem};
    pub use crate::net::tls::names::Names;
    pub use crate::net::tls::ocsp;
    pub use crate::net::tls::server::ServerTls;
    pub use crate::net::tls::subjects::{Subjects, shown};
}

/// Bytes from socket to socket, and the pipes for that.
pub mod relay {
    pub use crate::reactor::Readiness;
    pub use crate::relay::carrier::{Carrier, PIECE, Tools};
    pub use crate::relay::conversation::{Conversation, Outcome, Side, Standing};
    pub use crate::relay::direction::Event;
    pub use crate::relay::endpoint::Endpoint;
    pub use crate::relay::pipes::{Budget, Limits, PAUSE, Pipes, Shortage};
}

/// Spawning, and the standard error of children.
pub mod process {
    pub use crate::process::spawn::{SpawnDefaults, Spawner, Stdio};
    pub use crate::process::spec::{Command, SpawnContext};
    pub use crate::process::stderr_log::{LINES_PER_SECOND, MAX_LINE, StderrLog};
    pub use crate::process::unread_bytes;
}
