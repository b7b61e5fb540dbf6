//! Many streams on one connection, by the protocol of a reverse tunnel: yamux, version 0, as hashicorp's library speaks
//! it (<https://github.com/hashicorp/yamux/blob/master/spec.md>, protocols.md §5).
//!
//! A [`Session`](session::Session) is one tunnel connection. The life of a stream: one side opens it, at once with bytes
//! if it has some; both sides send frames as long as they have credit for them; each says its end, or one of them resets
//! it. What lives here:
//!
//! - [`frame`]: the header of a frame.
//! - [`core`]: the rules, without I/O: which frame may come, which bytes belong to which stream, how many may be sent, what
//!   is answered, when a ping is due.
//! - `queue`: the streams that wait for something, in their order.
//! - [`session`], [`stream`], `next`, `window`, `kept`: the connection's reads and writes, and a stream as one end of a
//!   [`Conversation`](crate::relay::conversation::Conversation). Its bulk is spliced both ways.
//!
//! The opening words of a tunnel (its secret), which session a stream goes to, and where its bytes go behind the tunnel
//! belong to the doors.

pub mod core;
pub mod frame;
mod kept;
mod next;
mod queue;
pub mod session;
pub mod stream;
mod window;
