//! TLS without a socket: the peer's bytes in, the bytes for the peer out, and the plaintext of both directions.
//!
//! [`Engine`] is a connection of rustls, a server's or a client's, with the rules of this program on top:
//!
//! 1. [`feed`](Engine::feed) takes the peer's bytes. It stops while plaintext waits, for rustls bounds neither the
//!    plaintext of what it has been given already nor says by any event that there is room again.
//! 2. [`read`](Engine::read) returns the plaintext, and behind it the end, the cut or the fault.
//! 3. [`encrypt`](Engine::encrypt) takes plaintext for the peer, [`end`](Engine::end) says the end of it.
//! 4. [`drain`](Engine::drain) writes what is to go to the peer. Anything may have put something there: a handshake, an
//!    alert because of a fault, a ticket. So the caller asks [`has_unsent`](Engine::has_unsent) after every call.
//!
//! The invariants: at most [`Engine::LONGEST_QUIET`] bytes are taken without a byte of plaintext (during a handshake,
//! as many as the constructor was given), so that a peer cannot keep this side busy or fill its memory with messages of
//! TLS itself. The first fault stays, and what comes behind it, or behind the peer's end, is dropped. Behind the end of
//! this side nothing more is sent.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, Error, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection,
};

use super::error::Fault;
use super::names::Names;
use super::{Established, Version};

/// The largest number of bytes that rustls is given at once. All of their plaintext is decrypted at once, too.
const STEP: usize = 4096;

/// The amount of waiting plaintext in bytes at which nothing more is decrypted. Above it, rustls takes nothing.
const FULL: usize = 16 * 1024;

/// The number of first bytes that a message about a peer without TLS repeats.
const QUOTED: usize = 16;

/// The largest number of records of a connection with TLS 1.2. At 2^24, rustls would say the end, drop the plaintext
/// and report it as taken.
const RECORDS_OF_1_2: u64 = (1 << 24) - (1 << 10);

/// The most plaintext in a record, in bytes.
const RECORD: usize = 16 * 1024;

/// The outcome of a read.
#[derive(Debug, Clone, PartialEq)]
pub enum Plain {
    /// There is nothing yet.
    Nothing,
    /// This number of bytes. It is never zero.
    Bytes(usize),
    /// The peer has said that nothing more comes.
    End,
    /// The connection has ended, and the peer has not said so by TLS: bytes may be missing.
    Cut,
    /// The connection has failed.
    Failed(Fault),
}

/// The progress of the direction from the peer.
#[derive(Debug)]
enum Receiving {
    Open,
    /// The peer has said its end.
    Ended,
    /// The connection has ended without it.
    Cut,
    Failed(Fault),
}

/// The progress of the direction to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    /// The end is said, but not all of it is drained.
    Ending,
    Ended,
}

/// One side of a TLS connection. See the [module](self).
#[derive(Debug)]
pub struct Engine {
    connection: Connection,
    receiving: Receiving,
    sending: Sending,
    /// The amount of decrypted plaintext in bytes that waits to be read.
    waiting: usize,
    /// The number of bytes taken since the last plaintext, or since the beginning of the handshake.
    quiet: usize,
    /// The largest value of `quiet` until the handshake is over.
    longest_handshake: usize,
    /// The number of records encrypted.
    records: u64,
}

impl Engine {
    /// The largest number of bytes that a peer may send without any plaintext in them, after the handshake. It has room
    /// for the longest record and the tickets of a server with the longest chains of certificates in use.
    pub const LONGEST_QUIET: usize = 32 * 1024;

    /// Creates the side of a server. The client may send `longest_handshake` bytes until the handshake is over.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn server(config: Arc<ServerConfig>, longest_handshake: usize) -> Result<Self, Fault> {
        let connection = ServerConnection::new(config)?;
        Ok(Self::new(connection.into(), longest_handshake))
    }

    /// Creates the side of a client, with a message for the server unsent. `name` is the name that the server's
    /// certificate must have. The server may send `longest_handshake` bytes until the handshake is over.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        longest_handshake: usize,
    ) -> Result<Self, Fault> {
        let connection = ClientConnection::new(config, name)?;
        Ok(Self::new(connection.into(), longest_handshake))
    }

    const fn new(connection: Connection, longest_handshake: usize) -> Self {
        Self {
            connection,
            receiving: Receiving::Open,
            sending: Sending::Open,
            waiting: 0,
            quiet: 0,
            longest_handshake,
            records: 0,
        }
    }

    /// Takes bytes from the peer, and returns the number taken: fewer than there are if plaintext has to be read first,
    /// else all. What comes behind the peer's end is taken and dropped.
    ///
    /// # Errors
    /// The first fault of the connection, in this call and all later ones. The plaintext in front of it can still be
    /// read; behind that, [`read`](Self::read) returns the fault, too.
    pub fn feed(&mut self, ciphertext: &[u8]) -> Result<usize, Fault> {
        let mut rest = ciphertext;
        while !rest.is_empty() {
            match &self.receiving {
                Receiving::Failed(fault) => return Err(fault.clone()),
                Receiving::Ended | Receiving::Cut => return Ok(ciphertext.len()),
                Receiving::Open if self.waiting >= FULL => break,
                Receiving::Open => {}
            }
            let taken = self.take(rest).inspect_err(|fault| self.fail(fault.clone()))?;
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(ciphertext.len() - rest.len())
    }

    /// Takes at most [`STEP`] bytes, at least one.
    fn take(&mut self, ciphertext: &[u8]) -> Result<usize, Fault> {
        let was_handshaking = self.is_handshaking();
        if was_handshaking && self.quiet == 0 && !begins_tls(ciphertext) {
            return Err(Fault::NotTls(ciphertext.iter().take(QUOTED).copied().collect()));
        }
        let limit = if was_handshaking {
            self.longest_handshake
        } else {
            Self::LONGEST_QUIET
        };
        let mut step = ciphertext.get(..STEP).unwrap_or(ciphertext);
        let taken = match self.connection.read_tls(&mut step) {
            // rustls has a limit of its own for a message that is not complete.
            Ok(0) | Err(_) => return Err(Fault::TooLong(limit)),
            Ok(taken) => taken,
        };
        let state = self.connection.process_new_packets()?;
        let plaintext = state.plaintext_bytes_to_read();
        if plaintext > self.waiting || was_handshaking != self.is_handshaking() {
            self.quiet = 0;
        } else {
            self.quiet += taken;
        }
        self.waiting = plaintext;
        if state.peer_has_closed() {
            self.receiving = Receiving::Ended;
        } else if self.quiet > limit {
            return Err(Fault::TooLong(limit));
        }
        Ok(taken)
    }

    fn fail(&mut self, fault: Fault) {
        self.receiving = Receiving::Failed(fault);
        // Of the plaintext in front of the fault, rustls shows the first piece.
        let first = self.connection.reader().into_first_chunk().map_or(0, <[u8]>::len);
        self.waiting = self.waiting.max(first);
    }

    /// Takes the end of the peer's bytes, in the sense of the transport below. It is a fault during the handshake, and
    /// a cut if the peer has not said its end before.
    pub fn feed_end(&mut self) {
        if !matches!(self.receiving, Receiving::Open) {
            return;
        }
        if self.is_handshaking() {
            let has_begun = self.has_begun();
            self.fail(Fault::Left { has_begun });
        } else {
            self.receiving = Receiving::Cut;
        }
    }

    /// Reads plaintext. Everything but bytes is returned again and again.
    pub fn read(&mut self, to: &mut [u8]) -> Plain {
        if to.is_empty() {
            return Plain::Nothing;
        }
        if let Ok(count @ 1..) = self.connection.reader().read(to) {
            self.waiting = self.waiting.saturating_sub(count);
            return Plain::Bytes(count);
        }
        self.waiting = 0;
        match &self.receiving {
            Receiving::Open => Plain::Nothing,
            Receiving::Ended => Plain::End,
            Receiving::Cut => Plain::Cut,
            Receiving::Failed(fault) => Plain::Failed(fault.clone()),
        }
    }

    /// Returns true if a read returns bytes.
    #[must_use]
    pub const fn has_plaintext(&self) -> bool {
        self.waiting > 0
    }

    /// Returns true if a read returns nothing, neither bytes nor the end.
    #[must_use]
    pub const fn is_drained(&self) -> bool {
        self.waiting == 0 && matches!(self.receiving, Receiving::Open)
    }

    /// Returns the fault that has ended the connection.
    #[must_use]
    pub const fn fault(&self) -> Option<&Fault> {
        match &self.receiving {
            Receiving::Failed(fault) => Some(fault),
            Receiving::Open | Receiving::Ended | Receiving::Cut => None,
        }
    }

    /// Returns true if the peer has sent a byte of the handshake. Must be called during that.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.quiet > 0
    }

    /// Returns true until both sides have finished the handshake. Nothing is encrypted before.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Returns the outcome of the handshake.
    ///
    /// # Errors
    /// The handshake is not over.
    pub fn established(&self) -> Result<Established, Fault> {
        if self.is_handshaking() {
            return Err(Error::HandshakeNotComplete.into());
        }
        let version = match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Version::V1_3,
            _ => Version::V1_2,
        };
        let (server_name, subject) = match &self.connection {
            Connection::Server(server) => (
                server.server_name().map(str::to_owned),
                server.peer_certificates().and_then(subject),
            ),
            Connection::Client(_) => (None, None),
        };
        let is_resumed = self.connection.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok(Established {
            version,
            server_name,
            subject,
            is_resumed,
        })
    }

    /// Returns the certificates that the peer has shown in this handshake, or in the one whose session it has resumed:
    /// its own, and the chain behind it. Those of a resumed session were not verified in this handshake.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.connection.peer_certificates().unwrap_or_default()
    }

    /// Encrypts plaintext for the peer, and returns the number of bytes taken: at most 64 KiB, less what is unsent
    /// already. None is taken during the handshake and behind the end of this side.
    ///
    /// # Errors
    /// The connection has failed, now or earlier.
    pub fn encrypt(&mut self, pieces: &[IoSlice<'_>]) -> Result<usize, Fault> {
        if let Receiving::Failed(fault) = &self.receiving {
            return Err(fault.clone());
        }
        if self.is_handshaking() || self.sending != Sending::Open {
            return Ok(0);
        }
        if self.records >= RECORDS_OF_1_2 && self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_2) {
            self.fail(Fault::KeyIsUsedUp);
            return Err(Fault::KeyIsUsedUp);
        }
        // The only error is that of an earlier call of rustls, which has become a fault of this engine.
        let taken = self.connection.writer().write_vectored(pieces).unwrap_or(0);
        self.records += taken.div_ceil(RECORD) as u64;
        Ok(taken)
    }

    /// Says that nothing more comes from this side (close_notify).
    pub fn end(&mut self) {
        if self.sending == Sending::Open {
            self.connection.send_close_notify();
            self.sending = Sending::Ending;
        }
    }

    /// Returns true if there is something to drain.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.sending != Sending::Ended && self.connection.wants_write()
    }

    /// Writes what is to go to the peer until nothing is left.
    ///
    /// # Errors
    /// Those of the first write that fails, WouldBlock among them. What was taken before has been forgotten here.
    pub fn drain(&mut self, to: &mut impl Write) -> io::Result<()> {
        while self.has_unsent() {
            match self.connection.write_tls(to) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        if self.sending == Sending::Ending {
            self.sending = Sending::Ended;
        }
        Ok(())
    }
}

/// Returns true if the first byte is one of the four types of records: change of cipher, alert, handshake, data.
const fn begins_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [20..=23, ..])
}

/// The subject of the first of these certificates.
fn subject(certificates: &[CertificateDer<'_>]) -> Option<String> {
    let names = Names::read(certificates.first()?).ok()?;
    Some(names.subject)
}

#[cfg(test)]
mod tests;
