//! One client of the command door as the shell holds it: its connection, its messages, and its program's input.

use super::super::core::event::RunId;
use super::super::core::exchange::Exchange;
use crate::doors::program_client::ProgramClient;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: ProgramClient,
    pub(super) exchange: Exchange,
    /// The program whose output the client gets.
    pub(super) follows: Option<RunId>,
}
