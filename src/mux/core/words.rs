//! The vocabulary of a session: its settings, events, faults and counters.

use std::fmt;
use std::time::Duration;

use crate::mux::frame::NoHeader;

/// The window of each stream when it begins, which no side can make smaller.
pub const FIRST_WINDOW: u32 = 256 << 10;
/// The number of a stream. It is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// The side that this is. The client's streams have odd numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that has connected.
    Client,
    /// The side that was connected to.
    Server,
}

/// The bounds of a session, and its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The window that each stream is granted while the total allows it. Less than [`FIRST_WINDOW`] counts as that.
    pub window: u32,
    /// The number of bytes that may be held for all streams; also the bound on the sum of windows above the first.
    pub total: u64,
    /// The number of streams of the peer that may be up.
    pub streams: usize,
    /// The number of our streams that the peer may leave unacknowledged. More would be reset by the original, which has
    /// room for 256.
    pub unaccepted: usize,
    /// The time from the answer to a ping to the next.
    pub ping_interval: Duration,
    /// The longest silence after a ping.
    pub ping_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: 1 << 20,
            total: 64 << 20,
            streams: 4096,
            unaccepted: 256,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

/// The payload that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The stream that it is for. `None` if nothing wants it, and it is thrown away.
    pub stream: Option<StreamId>,
    /// The number of bytes: at least 1.
    pub left: u32,
}

/// Something that has happened to a stream or to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The peer has opened this stream: it must be [accepted](super::Session::accept) or [reset](super::Session::reset).
    Opened(StreamId),
    /// A payload comes for this stream, or its end has come.
    Readable(StreamId),
    /// This stream has had no credit, and has some now.
    Writable(StreamId),
    /// The peer has reset this stream.
    Reset(StreamId),
    /// This stream was reset because it held the most, and all together held too much.
    Evicted(StreamId),
    /// The peer opens and takes no more streams, and gives this reason: 0 for none.
    WentAway(u32),
}

/// The state of the bytes that come from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// More may come.
    Open,
    /// The peer has said its end, behind the last byte that has come.
    Ended,
    /// The stream is not known: it was reset, or both its ends are said and it is forgotten.
    Gone,
}

/// The reason why the session cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are no header.
    NoHeader(NoHeader),
    /// A stream with this number may not be opened by the peer.
    Number(u32),
    /// A stream that is up was opened again.
    Again(u32),
    /// This stream was sent more than its window.
    OverWindow(u32),
    /// This stream was sent something behind its end.
    BehindEnd(u32),
    /// This stream was granted more than can be counted.
    Credit(u32),
    /// The peer asks faster than it reads the answers.
    Flood,
    /// No answer has come to a ping.
    Silent,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoHeader(NoHeader::Version(version)) => {
                write!(f, "bytes that are no yamux frame (version {version})")
            }
            Fault::NoHeader(NoHeader::Kind(kind)) => write!(f, "a frame of the unknown type {kind}"),
            Fault::Number(stream) => write!(f, "a stream with the number {stream}, which is not its to give"),
            Fault::Again(stream) => write!(f, "stream {stream} opened again"),
            Fault::OverWindow(stream) => write!(f, "more than the window of stream {stream}"),
            Fault::BehindEnd(stream) => write!(f, "bytes behind the end of stream {stream}"),
            Fault::Credit(stream) => write!(f, "a window for stream {stream} that is too large to count"),
            Fault::Flood => f.write_str("more questions than it reads answers"),
            Fault::Silent => f.write_str("no answer to a ping"),
        }
    }
}

/// The counters of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Streams that this side has opened.
    pub opened: u64,
    /// Streams that the peer has opened, refused ones among them.
    pub taken: u64,
    /// Streams that the peer wanted to open, and that were reset at once.
    pub refused: u64,
    /// Bytes of payload that were sent.
    pub sent: u64,
    /// Bytes of payload that have come.
    pub received: u64,
    /// Streams that the peer has reset.
    pub resets: u64,
    /// Streams that were reset because too much was held.
    pub evicted: u64,
}
