//! The beginning of a connection to a server: it is being established, and then it is read and written like any other.
//!
//! The socket is connected first, and then the transport makes its handshake, if it has one: TLS.

use std::io;

use super::super::stream::Stream;
use super::super::tls::transport::Step;
use super::Conn;

/// The progress of a connection to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connecting {
    /// The kernel connects the socket.
    Socket,
    /// The socket is connected, and the transport makes its handshake.
    Handshake,
    /// The connection is established, as one from a client always is.
    Over,
}

impl Conn {
    /// A connection to a server over a stream that has begun to connect. Bytes to be sent may be
    /// [appended](Self::output_mut) at once, but nothing may be read or written until [it is
    /// established](Self::advance_connecting).
    #[must_use]
    pub fn connecting(stream: Stream) -> Self {
        Self {
            connecting: Connecting::Socket,
            // Nothing can have come yet, and the registration with a poll reports what does.
            is_readable: false,
            ..Self::new(stream)
        }
    }

    /// Returns true until the connection is known to be established.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        self.connecting != Connecting::Over
    }

    /// Goes on with connecting, if it is not over. Returns true once the connection is established; until then it must
    /// be called after every event.
    ///
    /// # Errors
    /// The reason why connecting has failed: ConnectionRefused, TimedOut, HostUnreachable, ... If the handshake of TLS
    /// has, it is a [`Fault`](super::super::tls::error::Fault) within an error of the kind InvalidData.
    pub fn advance_connecting(&mut self) -> io::Result<bool> {
        if self.connecting == Connecting::Socket && self.is_writable {
            self.is_writable = self.stream.is_connected()?;
            if self.is_writable {
                self.connecting = Connecting::Handshake;
            }
        }
        while self.connecting == Connecting::Handshake {
            match self.advance_handshake()? {
                // A client signs at once.
                Step::Waiting | Step::NeedsSignature => break,
                // The engine takes a bounded number of bytes for a handshake.
                Step::MoreLater => {}
                Step::Done => self.connecting = Connecting::Over,
            }
        }
        Ok(!self.is_connecting())
    }
}
