//! Seeded simulations of the pure cores: a virtual clock, a weighted grammar of events with deliberate bad luck, a
//! shadow model that knows what must never happen, and a final drain to zero.
//!
//! `IOTCPD_SIM_SEEDS=N` runs N seeds instead of 256; `IOTCPD_SIM_SEED=N` runs that one alone. A failure prints its
//! seed.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test says what it expects by failing"
)]

mod ask;
mod mux;
mod mux_peer;
mod pool;
mod random;
mod route;
mod route_tunnels;
mod seeds;
