//! The relay: it passes bytes from one descriptor to another, unchanged, until one of them ends.
//!
//! Each direction has a [`Direction`](direction::Direction), a pure state machine that knows how far it has come and what
//! to try next. Two kinds of workers carry that out:
//!
//! - A [`Pump`](pump::Pump) is for ends of which one is a pipe, a terminal or a file: it moves bytes by one `splice(2)`,
//!   so that they never enter this program, and by read and write where neither end is a pipe or the owner reads and
//!   writes one of them itself (a connection that encrypts).
//! - A [`Carrier`](carrier::Carrier) is for two sockets, which no single splice connects. It copies small pieces, and
//!   moves bulk through a pipe that it borrows from [`Pipes`](pipes::Pipes) while bytes lie in it. A
//!   [`Conversation`](conversation::Conversation) is two of them, with the rules by which both ways end.
//!
//! The life of a direction: its owner [reports](direction::Event) every edge of the poll to it and
//! [runs](pump::Pump::run) it. The owner then acts on the returned [`PumpEnd`](pump::PumpEnd) alone. At the end of the
//! source, the owner passes the end on in the way of that sink (close, shutdown, the end-of-file character of a
//! terminal) and reports that; a conversation does so by itself.
//!
//! Invariants:
//!
//! * No byte is lost, duplicated or overtaken, and the end is passed on after the last byte.
//! * A direction that waits has met an end that gave or took no more bytes, so an edge will come. A direction that has
//!   used up its share of a turn says so.
//! * A direction holds at most a piece in memory ([`pump::PIECE`], [`carrier::PIECE`]), besides the bytes that it was
//!   given at the start and, while its sink takes nothing, as many as its owner
//!   [allows](pump::Pump::set_hold_limit). A carrier may hold a pipe full of bytes in its place.
//!
//! The callers decide which two ends talk to each other and when a conversation is over. They also own the descriptors
//! and the deadlines.

pub mod carrier;
pub mod conversation;
pub mod direction;
pub mod endpoint;
pub mod pipes;
pub mod pump;
