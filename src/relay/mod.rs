//! The relay: it passes bytes from one descriptor to another, unchanged, until one of them ends.
//!
//! A conversation is two [`Pump`](pump::Pump)s, one for each direction. Each has a [`Direction`](direction::Direction),
//! a pure state machine that knows how far its direction has come and what to try next. The pump carries that out: by
//! `splice(2)` where one of the ends is a pipe, so that the bytes never enter this program, and by read and write where
//! neither is (a terminal) or the owner reads and writes one of them itself (a connection that encrypts).
//!
//! The life of a direction: its owner [reports](direction::Event) every edge of the poll to it and
//! [runs](pump::Pump::run) it. The owner then acts on the returned [`PumpEnd`](pump::PumpEnd) alone. At the end of the
//! source, the owner passes the end on in the way of that sink (close, shutdown, the end-of-file character of a
//! terminal) and reports that.
//!
//! Invariants:
//!
//! * No byte is lost, duplicated or overtaken, and the end is passed on after the last byte.
//! * A direction that waits has met an end that gave or took no more bytes, so an edge will come. A direction that has
//!   used up its share of a turn says so.
//! * A direction holds at most [`PIECE`](pump::PIECE) bytes in memory, besides the bytes that it was given at the start
//!   and, while its sink takes nothing, as many as its owner [allows](pump::Pump::set_hold_limit).
//!
//! The callers decide which two ends talk to each other and when a conversation is over. They also own the descriptors
//! and the deadlines.

pub mod direction;
pub mod pump;
