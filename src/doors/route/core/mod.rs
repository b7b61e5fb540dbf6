//! The decisions of a route door, without I/O.
//!
//! [`router`] takes each route from one state to the next, by a `turn`; [`life`] has the states and their deadlines,
//! [`event`] the events and the steps, [`ending`] the reasons for an end. They go by these:
//! - `judging` finds the service of a client by its first bytes. [`opening`] tells which protocol begins there:
//!   [`hello`] reads the one of TLS, [`head`] the one of HTTP/1, and [`name`] the name in them. With that name [`table`]
//!   decides, by the [`pattern`] of each service.
//! - `connecting` brings a route to its destination.
//! - [`filter`] lets the requests of a connection through one by one where each is judged: [`exchange`] takes them
//!   apart, and [`body`] finds the end of one.
//! - [`upstreams`] has the servers of the services that are in use: [`balance`] chooses one, and [`health`] knows which
//!   are out; [`checks`] has the questions that servers are asked meanwhile. [`names`] has the addresses of servers that are named by their hosts.
//! - [`tunnels`] has the sessions of tunnel clients, and chooses one: [`handshake`] reads the secret of a client, and
//!   [`secrets`] knows which services have it.
//! - [`starter`] has the programs that are started by the first connection to their server; `serving` is the part of the
//!   router that asks it, `reaching` the one that connects.
//! - [`answer`] has what the router itself answers, and [`counters`] the numbers of a door.

pub mod answer;
pub mod balance;
pub mod body;
mod census;
mod checking;
pub mod checks;
mod connecting;
pub mod counters;
pub mod ending;
pub mod event;
pub mod exchange;
mod expecting;
pub mod filter;
pub mod handshake;
pub mod head;
pub mod health;
pub mod hello;
#[cfg(debug_assertions)]
mod invariants;
mod judging;
pub mod life;
pub mod name;
pub mod names;
pub mod opening;
pub mod pattern;
mod reaching;
pub mod router;
pub mod secrets;
mod serving;
mod share;
pub mod starter;
pub mod table;
pub mod tunnels;
mod turn;
pub mod upstreams;
