//! One connection as the shell holds it: the client's socket, and what is on its way to and from it.

use std::time::Instant;

use super::super::core::event::RunId;
use super::super::core::exchange::Exchange;
use crate::buffer::Buffer;
use crate::doors::standstill::Watch;
use crate::net::addr::PeerAddr;
use crate::net::edges::Edges;
use crate::net::stream::Stream;
use crate::reactor::Alarm;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) peer: PeerAddr,
    pub(super) accepted: Instant,
    pub(super) exchange: Exchange,
    pub(super) edges: Edges,
    pub(super) alarm: Alarm,
    /// The program that it gets the output of.
    pub(super) follows: Option<RunId>,
    /// What its program has not taken yet of what it has sent, and whether more may come.
    pub(super) input: Buffer,
    pub(super) input_ends: bool,
    /// What it has not taken yet.
    pub(super) output: Buffer,
    /// Whether it and its program wait for each other, and what is held for that.
    pub(super) watch: Watch,
}
