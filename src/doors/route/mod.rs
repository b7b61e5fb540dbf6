//! The route door: a connection to the server that its name asks for, which is the SNI of TLS or the Host of HTTP.

pub mod core;
pub mod options;
