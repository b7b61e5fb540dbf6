//! The promise of each parser that reads bytes from outside, and of the pure cores, whatever the bytes are.
//!
//! One function for each parser: it takes any bytes, feeds the parser with them, and panics if the result breaks the
//! parser's promise. Each is the whole of one fuzz target in `fuzz_targets` and one line of [`TARGETS`], which `cargo
//! test --test fuzz` runs over the seeds and over mutations of them. The module is compiled twice: as a part of that
//! test, and as the library of the fuzz crate.
//!
//! Where a parser needs more than bytes (the places where a stream is cut, the next event), the first bytes of the
//! input decide it ([`Choices`]). An oracle here is written the slow and obvious way, never the way of the parser.
//!
//! The drivers reach the crate through `iotcpd::internals` alone.

mod ask;
mod call;
mod choices;
mod command;
mod config;
mod exec;
mod framing;
mod multiplex;
mod mux;
mod net;
mod pool;
mod process;
mod readings;
mod route;
mod store;
mod tls;
mod tunnel;

pub use ask::{fuzz_ask_input, fuzz_ask_reply, fuzz_asker, fuzz_multiplexed_stream};
pub use call::fuzz_call_answer;
pub use command::fuzz_command_exchange;
pub use config::{fuzz_config_file, fuzz_quantities, fuzz_torc_cfg};
pub use exec::{fuzz_exec_request, fuzz_sockproc_request};
pub use framing::{fuzz_channel, fuzz_framings, fuzz_line, fuzz_ready_line};
pub use multiplex::fuzz_multiplexed_line;
pub use mux::fuzz_mux_frames;
pub use net::{fuzz_addresses, fuzz_handover, fuzz_networks, fuzz_proxy_header};
pub use pool::fuzz_dispatcher;
pub use process::fuzz_stderr_log;
pub use readings::{fuzz_heads, fuzz_line_rules};
pub use route::{fuzz_client_hello, fuzz_http_exchange, fuzz_http_head, fuzz_tunnel_handshake};
pub use store::fuzz_store_entry;
pub use tls::{fuzz_certificate_file, fuzz_tls_records, fuzz_tls_server};
pub use tunnel::fuzz_tunnel_session;

use choices::Choices;

/// A fuzz target: its name, and the function that takes an input and panics if a promise is broken.
pub type Target = (&'static str, fn(&[u8]));

/// Every fuzz target.
pub const TARGETS: &[Target] = &[
    ("line", fuzz_line),
    ("channel", fuzz_channel),
    ("framings", fuzz_framings),
    ("heads", fuzz_heads),
    ("line_rules", fuzz_line_rules),
    ("ready_line", fuzz_ready_line),
    ("multiplexed_line", fuzz_multiplexed_line),
    ("config_file", fuzz_config_file),
    ("torc_cfg", fuzz_torc_cfg),
    ("quantities", fuzz_quantities),
    ("addresses", fuzz_addresses),
    ("networks", fuzz_networks),
    ("handover", fuzz_handover),
    ("proxy_header", fuzz_proxy_header),
    ("ask_input", fuzz_ask_input),
    ("ask_reply", fuzz_ask_reply),
    ("asker", fuzz_asker),
    ("multiplexed_stream", fuzz_multiplexed_stream),
    ("stderr_log", fuzz_stderr_log),
    ("dispatcher", fuzz_dispatcher),
    ("exec_request", fuzz_exec_request),
    ("sockproc_request", fuzz_sockproc_request),
    ("call_answer", fuzz_call_answer),
    ("command_exchange", fuzz_command_exchange),
    ("tls_server", fuzz_tls_server),
    ("tls_records", fuzz_tls_records),
    ("certificate_file", fuzz_certificate_file),
    ("client_hello", fuzz_client_hello),
    ("tunnel_handshake", fuzz_tunnel_handshake),
    ("http_head", fuzz_http_head),
    ("http_exchange", fuzz_http_exchange),
    ("store_entry", fuzz_store_entry),
    ("mux_frames", fuzz_mux_frames),
    ("tunnel_session", fuzz_tunnel_session),
];
