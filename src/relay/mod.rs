//! The relay: bytes from one descriptor to another, as they are, until either ends.
//!
//! A conversation is two [`Pump`](pump::Pump)s, one for each direction. Each has a [`Direction`](direction::Direction), the pure
//! machine that knows how far its direction has come and what to try next, and does what that says: `splice(2)` where
//! one of the two ends is a pipe, so that the bytes never enter this program, and read and write where neither is (a
//! terminal).
//!
//! The life of a direction: its owner [tells it](direction::Event) of every edge that the poll reports, and
//! [runs](pump::Pump::run) it; what it says then ([`PumpEnd`](pump::PumpEnd)) is all that its owner has to act upon. At the
//! end of the source its owner passes the end on, in the way of that sink (close, shutdown, what a terminal knows), and says
//! so.
//!
//! What holds: no byte is lost, doubled or overtaken. The end is passed on after the last byte. A direction that waits has
//! met an end that did not take or give any more, so an edge will come; one that has used up its share of a turn says so.
//! It holds at most [`PIECE`](pump::PIECE) bytes in memory, what it was given to deliver first, and, while its sink takes
//! nothing, as many as its owner [lets it hold](pump::Pump::let_hold).
//!
//! Which two ends talk to each other, when a conversation is over, deadlines and the ownership of descriptors belong to the
//! callers.

pub mod direction;
pub mod pump;
