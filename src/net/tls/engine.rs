//! TLS without a socket: the peer's bytes in, the bytes for the peer out, and the plaintext of both directions.
//!
//! [`Engine`] is a connection of rustls, a server's or a client's, with the rules of this program on top:
//!
//! 1. [`feed`](Engine::feed) takes the peer's bytes. It stops while plaintext waits, so that the memory behind one
//!    connection is bounded.
//! 2. [`read`](Engine::read) returns the plaintext, and behind it the end, the cut or the fault.
//! 3. [`encrypt`](Engine::encrypt) takes plaintext for the peer, [`end`](Engine::end) says the end of it.
//! 4. [`drain`](Engine::drain) writes what is to go to the peer. Anything may have put something there: a handshake, an
//!    alert because of a fault, a ticket. So the caller asks [`has_unsent`](Engine::has_unsent) after every call.
//!
//! On a server with a slow key, an engine may stop within the handshake for a [`signature`]: it takes
//! and sends nothing any more, and another engine takes its place.
//!
//! The invariants: at most [`Engine::LONGEST_QUIET`] bytes are taken without a byte of plaintext (during a handshake,
//! as many as the constructor was given), so that a peer cannot keep this side busy or fill its memory with messages of
//! TLS itself. The first fault stays, and what comes behind it, or behind the peer's end, is dropped. Behind the end of
//! this side nothing more is sent.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, Error, HandshakeKind, ProtocolVersion, ServerConfig};

use super::error::Fault;
use super::names::Names;
use super::records::{RECORD, Records, Side};
use super::signature::{self, Unsigned};
use super::{Established, Version};

/// The largest number of bytes that are taken at once.
const STEP: usize = 64 << 10;

/// The most plaintext in bytes that is encrypted before its ciphertext is drained.
const ENCRYPTED: usize = 64 << 10;

/// The number of first bytes that a message about a peer without TLS repeats.
const QUOTED: usize = 16;

/// The largest number of records of a connection with TLS 1.2. At 2^24, rustls would say the end, drop the plaintext
/// and report it as taken.
const RECORDS_OF_1_2: u64 = (1 << 24) - (1 << 10);

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
    records: Records,
    receiving: Receiving,
    sending: Sending,
    /// The number of bytes used up since the last plaintext, or since the beginning of the handshake.
    quiet: usize,
    /// The largest value of `quiet` until the handshake is over.
    longest_handshake: usize,
    /// The number of records encrypted.
    encrypted: u64,
    signing: Signing,
}

/// The signature of a server within its handshake.
#[derive(Debug)]
enum Signing {
    /// It is made here, or was, or none is made.
    Here,
    /// It may turn out that a slow key is to make it.
    Open(Box<Unsigned>),
    /// A slow key is to make it. `None` once that was taken.
    Needed(Option<Box<Unsigned>>),
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
        let connection = UnbufferedServerConnection::new(config)?;
        Self::new(Side::Server(connection), longest_handshake)
    }

    /// Creates the side of a server that stops for a signature with a slow key. `reserved` is the configuration with
    /// these keys reserved, `config` the one with the keys.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub(super) fn server_that_stops(
        reserved: Arc<ServerConfig>,
        config: Arc<ServerConfig>,
        longest_handshake: usize,
    ) -> Result<Self, Fault> {
        let engine = Self::server(reserved, longest_handshake)?;
        let signing = Signing::Open(Box::new(Unsigned::new(config, longest_handshake)));
        Ok(Self { signing, ..engine })
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
        let connection = UnbufferedClientConnection::new(config, name)?;
        Self::new(Side::Client(connection), longest_handshake)
    }

    fn new(side: Side, longest_handshake: usize) -> Result<Self, Fault> {
        Ok(Self {
            records: Records::new(side)?,
            receiving: Receiving::Open,
            sending: Sending::Open,
            quiet: 0,
            longest_handshake,
            encrypted: 0,
            signing: Signing::Here,
        })
    }

    /// Takes bytes from the peer, and returns the number taken: fewer than there are if plaintext has to be read first,
    /// or a [signature is needed](Self::needs_signature), else all. What comes behind the peer's end is taken and dropped.
    ///
    /// # Errors
    /// The first fault of the connection, in this call and all later ones. The plaintext in front of it was read before.
    pub fn feed(&mut self, ciphertext: &[u8]) -> Result<usize, Fault> {
        let mut rest = ciphertext;
        while !rest.is_empty() {
            match &self.receiving {
                Receiving::Failed(fault) => return Err(fault.clone()),
                Receiving::Ended | Receiving::Cut => return Ok(ciphertext.len()),
                Receiving::Open if self.has_plaintext() || self.needs_signature() => break,
                Receiving::Open => {}
            }
            let step = rest.get(..STEP).unwrap_or(rest);
            self.take(step).inspect_err(|fault| self.fail(fault.clone()))?;
            rest = rest.get(step.len()..).unwrap_or_default();
        }
        Ok(ciphertext.len() - rest.len())
    }

    fn take(&mut self, ciphertext: &[u8]) -> Result<(), Fault> {
        if self.is_handshaking() && !self.has_begun() && !begins_tls(ciphertext) {
            if self.records.is_server() {
                self.records.refuse_clear_text();
            }
            return Err(Fault::NotTls(ciphertext.iter().take(QUOTED).copied().collect()));
        }
        if let Signing::Open(unsigned) = &mut self.signing {
            unsigned.note_received(ciphertext);
        }
        match self.watch(ciphertext.len(), |records| records.receive(ciphertext)) {
            Err(Fault::Tls(error)) if signature::is_needed(&error) => self.stop_for_signature(),
            outcome => outcome?,
        }
        let kind = self.records.state().handshake_kind();
        if matches!(kind, Some(HandshakeKind::Full | HandshakeKind::Resumed)) && !self.needs_signature() {
            self.signing = Signing::Here;
        }
        Ok(())
    }

    /// Calls something that may use up bytes of the peer, to which it adds `more`, and holds the peer to what it may
    /// send without any plaintext.
    fn watch(&mut self, more: usize, call: impl FnOnce(&mut Records) -> Result<(), Error>) -> Result<(), Fault> {
        let was_handshaking = self.is_handshaking();
        let had = self.records.kept() + more;
        call(&mut self.records)?;
        if self.records.has_peer_ended() && !matches!(self.receiving, Receiving::Failed(_)) {
            self.receiving = Receiving::Ended;
            return Ok(());
        }
        let limit = if was_handshaking {
            self.longest_handshake
        } else {
            Self::LONGEST_QUIET
        };
        if self.has_plaintext() || was_handshaking != self.is_handshaking() {
            self.quiet = 0;
            return Ok(());
        }
        self.quiet += had - self.records.kept();
        match self.quiet + self.records.kept() > limit {
            true => Err(Fault::TooLong(limit)),
            false => Ok(()),
        }
    }

    fn stop_for_signature(&mut self) {
        self.signing = match std::mem::replace(&mut self.signing, Signing::Here) {
            Signing::Open(unsigned) => Signing::Needed(Some(unsigned)),
            Signing::Here | Signing::Needed(_) => Signing::Needed(None),
        };
    }

    /// Returns true if the handshake has stopped for a signature with a slow key.
    #[must_use]
    pub const fn needs_signature(&self) -> bool {
        matches!(self.signing, Signing::Needed(_))
    }

    /// Takes the handshake that is to be signed. There is one, once, if a [signature is
    /// needed](Self::needs_signature).
    pub fn take_unsigned(&mut self) -> Option<Unsigned> {
        match &mut self.signing {
            Signing::Needed(unsigned) => unsigned.take().map(|unsigned| *unsigned),
            Signing::Here | Signing::Open(_) => None,
        }
    }

    fn fail(&mut self, fault: Fault) {
        if !matches!(self.receiving, Receiving::Failed(_)) {
            self.receiving = Receiving::Failed(fault);
            self.records.stop();
        }
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

    /// Reads plaintext, as much as is there and has room. Everything but bytes is returned again and again.
    pub fn read(&mut self, to: &mut [u8]) -> Plain {
        if to.is_empty() {
            return Plain::Nothing;
        }
        let mut count = 0;
        while let Some(room) = to.get_mut(count..).filter(|room| !room.is_empty())
            && self.has_plaintext()
        {
            let outcome = self.watch(0, |records| {
                let (read, outcome) = records.read(room);
                count += read;
                outcome
            });
            if let Err(fault) = outcome {
                self.fail(fault);
            }
        }
        if count > 0 {
            return Plain::Bytes(count);
        }
        match &self.receiving {
            Receiving::Open => Plain::Nothing,
            Receiving::Ended => Plain::End,
            Receiving::Cut => Plain::Cut,
            Receiving::Failed(fault) => Plain::Failed(fault.clone()),
        }
    }

    /// Returns true if a read returns bytes.
    #[must_use]
    pub fn has_plaintext(&self) -> bool {
        self.records.waiting() > 0
    }

    /// Returns true if a read returns nothing, neither bytes nor the end.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        !self.has_plaintext() && matches!(self.receiving, Receiving::Open)
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
    pub fn has_begun(&self) -> bool {
        self.quiet > 0 || self.records.kept() > 0
    }

    /// Returns true until both sides have finished the handshake. Nothing is encrypted before.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.records.state().is_handshaking()
    }

    /// Returns the outcome of the handshake.
    ///
    /// # Errors
    /// The handshake is not over.
    pub fn established(&self) -> Result<Established, Fault> {
        if self.is_handshaking() {
            return Err(Error::HandshakeNotComplete.into());
        }
        let state = self.records.state();
        Ok(Established {
            version: match state.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => Version::V1_3,
                _ => Version::V1_2,
            },
            subject: match self.records.is_server() {
                true => state.peer_certificates().and_then(subject),
                false => None,
            },
            is_resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }

    /// Returns the certificates that the peer has shown in this handshake, or in the one whose session it has resumed:
    /// its own, and the chain behind it. Those of a resumed session were not verified in this handshake.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.records.state().peer_certificates().unwrap_or_default()
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
        let is_old = self.records.state().protocol_version() == Some(ProtocolVersion::TLSv1_2);
        if self.encrypted >= RECORDS_OF_1_2 && is_old {
            self.fail(Fault::KeyIsUsedUp);
            return Err(Fault::KeyIsUsedUp);
        }
        let room = ENCRYPTED.saturating_sub(self.records.outgoing().len());
        let gathered;
        let plaintext = match pieces {
            [piece] => piece.get(..room).unwrap_or(piece),
            pieces => {
                gathered = gather(pieces, room);
                &gathered
            }
        };
        if !plaintext.is_empty() {
            let encrypted = self.watch(0, |records| records.encrypt(plaintext));
            encrypted.inspect_err(|fault| self.fail(fault.clone()))?;
            self.encrypted += plaintext.len().div_ceil(RECORD) as u64;
        }
        Ok(plaintext.len())
    }

    /// Says that nothing more comes from this side (close_notify).
    pub fn end(&mut self) {
        if self.sending == Sending::Open {
            self.sending = Sending::Ending;
            if !matches!(self.receiving, Receiving::Failed(_))
                && let Err(fault) = self.watch(0, Records::end)
            {
                self.fail(fault);
            }
        }
    }

    /// Returns true if there is something to drain.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        // Behind the place where it has stopped, the beginning of a message may stand that has no end.
        self.sending != Sending::Ended && !self.needs_signature() && !self.records.outgoing().is_empty()
    }

    /// Writes what is to go to the peer until nothing is left.
    ///
    /// # Errors
    /// Those of the first write that fails, WouldBlock among them. What was taken before has been forgotten here.
    pub fn drain(&mut self, to: &mut impl Write) -> io::Result<()> {
        while self.has_unsent() {
            match to.write(self.records.outgoing()) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.records.consume(count);
                    if let Signing::Open(unsigned) = &mut self.signing {
                        unsigned.note_sent(count);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
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

/// The first bytes of these pieces, as many as there is room for.
fn gather(pieces: &[IoSlice<'_>], room: usize) -> Vec<u8> {
    let length = pieces.iter().map(|piece| piece.len()).sum();
    let mut gathered = Vec::with_capacity(room.min(length));
    for piece in pieces {
        let left = room - gathered.len();
        gathered.extend_from_slice(piece.get(..left).unwrap_or(piece));
    }
    gathered
}

/// The subject of the first of these certificates.
fn subject(certificates: &[CertificateDer<'_>]) -> Option<String> {
    let names = Names::read(certificates.first()?).ok()?;
    Some(names.subject)
}

#[cfg(test)]
mod tests;
