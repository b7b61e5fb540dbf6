//! The beginning of a connection to a server: it is being established, and then it is read and written like any other.
//!
//! A transport that has more to do than the kernel's handshake, such as TLS, does it here, too.

use std::io;

use super::super::stream::Stream;
use super::Conn;

impl Conn {
    /// A connection to a server over a stream that has begun to connect. Bytes to be sent may be
    /// [appended](Self::output_mut) at once, but nothing may be read or written until [it is
    /// established](Self::advance_connecting).
    #[must_use]
    pub fn connecting(stream: Stream) -> Self {
        Self {
            is_connecting: true,
            // Nothing can have come yet, and the registration with a poll reports what does.
            is_readable: false,
            ..Self::new(stream)
        }
    }

    /// Returns true until the connection is known to be established.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        self.is_connecting
    }

    /// Goes on with connecting, if it is not over. Returns true once the connection is established; until then it must
    /// be called after every event.
    ///
    /// # Errors
    /// The reason why connecting has failed: ConnectionRefused, TimedOut, HostUnreachable, ...
    pub fn advance_connecting(&mut self) -> io::Result<bool> {
        if self.is_connecting && self.is_writable {
            self.is_connecting = !self.stream.is_connected()?;
            self.is_writable = !self.is_connecting;
        }
        Ok(!self.is_connecting)
    }
}
