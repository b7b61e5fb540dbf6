//! One client of the command door as the shell holds it: its connection, its messages, and its program's input.

use std::time::Instant;

use super::super::core::event::RunId;
use super::super::core::exchange::Exchange;
use crate::buffer::Buffer;
use crate::doors::standstill::Watch;
use crate::net::conn::Conn;
use crate::net::origin::Origin;
use crate::reactor::Alarm;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) conn: Conn,
    pub(super) origin: Origin,
    pub(super) accepted: Instant,
    pub(super) exchange: Exchange,
    pub(super) alarm: Alarm,
    /// The program whose output the client gets.
    pub(super) follows: Option<RunId>,
    /// The input that the client's program has not taken yet. Nothing is added to it once `input_ends`.
    pub(super) input: Buffer,
    pub(super) input_ends: bool,
    /// The watch for a client and a program that wait for each other, with the number of bytes held meanwhile.
    pub(super) watch: Watch,
}
