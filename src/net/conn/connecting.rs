//! The beginning of a connection to a server: it is being established, and then it is read and written like any other.
//!
//! The socket is connected first, and then the transport makes its handshake, if it has one: TLS. Over a plain socket,
//! an owner that has bytes to send asks [by sending them](Conn::begin_with) if it is connected.

use std::io::{self, ErrorKind, Write};

use super::super::stream::Stream;
use super::super::tls::transport::Step;
use super::{Conn, retried};

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

/// The outcome of the first write to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// The socket is not connected yet: ask again after the next event.
    Waiting,
    /// The connection is established, and the kernel has taken this number of bytes.
    Sent(usize),
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

    /// Goes on with connecting a plain socket by writing the first bytes to it, in one system call: a socket takes none
    /// before it is connected, and the write tells the reason if it cannot be. Must be called after every event until
    /// the connection is established; on the loopback and over a UNIX socket it commonly is before the first event. The
    /// connection must be registered after connect(2) was called, or else the first event tells of a hang-up.
    ///
    /// `suspect` is the port of the server, if the connection [may be one to
    /// itself](super::super::local_ports::LocalPorts::suspect): that is a refusal.
    ///
    /// # Errors
    /// The reason why connecting has failed: ConnectionRefused, TimedOut, HostUnreachable, ... No server has taken a
    /// byte, so they may be offered to another one. The connection must be dropped: the kernel tells the reason once.
    pub fn begin_with(&mut self, first: &[u8], suspect: Option<u16>) -> io::Result<Begun> {
        debug_assert!(self.stream.plain_socket().is_some(), "TLS speaks first");
        if !self.is_writable {
            return Ok(Begun::Waiting);
        }
        match retried(|| self.stream.write(first)) {
            Ok(count) => {
                if let Some(port) = suspect
                    && self.stream.has_reached_itself(port)?
                {
                    return Err(ErrorKind::ConnectionRefused.into());
                }
                self.connecting = Connecting::Over;
                self.is_writable = count == first.len();
                Ok(Begun::Sent(count))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_writable = false;
                Ok(Begun::Waiting)
            }
            Err(error) => Err(error),
        }
    }
}
