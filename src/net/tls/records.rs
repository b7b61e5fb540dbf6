//! rustls without buffers of its own: one side of a connection, and the bytes that it has not used up yet.
//!
//! [`Records`] asks rustls again and again for the next thing to do, until it waits for the peer or for a reader.
//! It goes one record of data at a time: what comes behind is decrypted when that was read.
//!
//! The invariants:
//!
//! - If no plaintext waits, the bytes that are kept hold no record that is complete.
//! - All that rustls has to say stands among the bytes for the peer when a call returns.
//! - A connection at rest has no memory here. That of the other interface of rustls keeps 4 KiB.
//! - Behind an error nothing is decrypted or encrypted: rustls may have noted places in bytes that are dropped then.
//!
//! The bounds of what a peer may send are the engine's.

use std::fmt;
use std::io::Read;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, ReadTraffic, UnbufferedStatus};
use rustls::{CommonState, Error};

use crate::buffer::Buffer;

/// The room in bytes that a record takes at most, besides its plaintext.
const OVERHEAD: usize = 64;

/// The most plaintext in a record, in bytes.
pub(super) const RECORD: usize = 16 * 1024;

/// A fatal alert that is not encrypted: protocol_version (RFC 8446, section 6). OpenSSL says the same to a client that
/// speaks no TLS. No byte of it is the end of a line.
const TLS_IS_SPOKEN_HERE: [u8; 7] = [21, 3, 3, 0, 2, 2, 70];

/// One side of a connection.
pub(super) enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Records {
    side: Side,
    /// Bytes of the peer. rustls decrypts in place and notes where it was, so the front may only be taken away when it
    /// says so.
    incoming: Buffer,
    /// The size of the plaintext that rustls holds.
    held: usize,
    /// Plaintext behind which rustls holds more.
    decrypted: Buffer,
    /// Bytes for the peer.
    outgoing: Buffer,
    has_peer_ended: bool,
    has_stopped: bool,
}

/// The thing to be done when rustls is ready for it.
enum Task<'a> {
    /// None: the peer's bytes are taken in until plaintext waits.
    Receive,
    /// Plaintext is read.
    Read { to: &'a mut [u8], count: usize },
    /// Data is encrypted.
    Encrypt(&'a [u8]),
    /// The end of this side is said.
    End,
}

/// The outcome of one question to rustls.
enum Turn {
    /// There is more to do.
    GoesOn,
    /// Plaintext waits, of this size.
    Plaintext(usize),
    /// The peer has said its end.
    PeerEnded,
    /// The task is done, or there is nothing to do for now.
    Over,
}

impl Records {
    /// A connection before its first byte. What it has to say by itself can be drained.
    pub(super) fn new(side: Side) -> Result<Self, Error> {
        let mut records = Self {
            side,
            incoming: Buffer::default(),
            held: 0,
            decrypted: Buffer::default(),
            outgoing: Buffer::default(),
            has_peer_ended: false,
            has_stopped: false,
        };
        records.run(&mut Task::Receive)?;
        Ok(records)
    }

    pub(super) fn state(&self) -> &CommonState {
        match &self.side {
            Side::Server(server) => server,
            Side::Client(client) => client,
        }
    }

    pub(super) const fn is_server(&self) -> bool {
        matches!(self.side, Side::Server(_))
    }

    pub(super) const fn has_peer_ended(&self) -> bool {
        self.has_peer_ended
    }

    /// The size of the plaintext that waits to be read, as far as it is decrypted.
    pub(super) fn waiting(&self) -> usize {
        self.decrypted.len() + self.held
    }

    /// The number of bytes of the peer that are kept.
    pub(super) fn kept(&self) -> usize {
        self.incoming.len()
    }

    /// Takes bytes from the peer. Must be called while no plaintext waits.
    pub(super) fn receive(&mut self, ciphertext: &[u8]) -> Result<(), Error> {
        self.incoming.end().extend_from_slice(ciphertext);
        self.run(&mut Task::Receive)
    }

    /// Reads plaintext, and returns the number of bytes. They are good even if there is an error, which is about what
    /// comes behind them.
    pub(super) fn read(&mut self, to: &mut [u8]) -> (usize, Result<(), Error>) {
        if !self.decrypted.is_empty() {
            let count = self.decrypted.bytes().read(to).unwrap_or_default();
            self.decrypted.consume(count);
            if self.decrypted.is_empty() {
                self.decrypted.clear();
            }
            return (count, self.go_on());
        }
        if self.held == 0 {
            return (0, Ok(()));
        }
        let mut task = Task::Read { to, count: 0 };
        let outcome = self.run(&mut task);
        let Task::Read { count, .. } = task else {
            return (0, outcome);
        };
        (count, outcome.and_then(|()| self.go_on()))
    }

    /// Decrypts the next record if no plaintext waits.
    fn go_on(&mut self) -> Result<(), Error> {
        match self.waiting() {
            0 => self.run(&mut Task::Receive),
            _ => Ok(()),
        }
    }

    /// Encrypts data. The handshake must be over.
    pub(super) fn encrypt(&mut self, plaintext: &[u8]) -> Result<(), Error> {
        self.run(&mut Task::Encrypt(plaintext))
    }

    /// Says the end of this side, if the handshake is so far that it can be said.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.run(&mut Task::End)
    }

    /// The bytes for the peer.
    pub(super) fn outgoing(&self) -> &[u8] {
        self.outgoing.bytes()
    }

    /// Takes away bytes for the peer that were sent.
    pub(super) fn consume(&mut self, sent: usize) {
        self.outgoing.consume(sent);
        if self.outgoing.is_empty() {
            self.outgoing.clear();
        }
    }

    /// Tells a client that has begun without TLS that it is spoken here.
    pub(super) fn refuse_clear_text(&mut self) {
        self.outgoing.end().extend_from_slice(&TLS_IS_SPOKEN_HERE);
    }

    /// Drops what the peer has sent and is not decrypted. Nothing is taken in or encrypted any more.
    pub(super) fn stop(&mut self) {
        self.has_stopped = true;
        self.incoming.clear();
    }

    /// Asks rustls until the task is done or nothing is left to do.
    fn run(&mut self, task: &mut Task<'_>) -> Result<(), Error> {
        while !self.has_stopped {
            match self.ask(task) {
                Ok(Turn::GoesOn) => {}
                Ok(Turn::Over) => break,
                Ok(Turn::Plaintext(held)) => {
                    self.held = held;
                    break;
                }
                Ok(Turn::PeerEnded) => self.has_peer_ended = true,
                Err(error) => {
                    self.tell_fault();
                    return Err(error);
                }
            }
        }
        if self.has_peer_ended || self.incoming.is_empty() {
            self.incoming.clear();
        }
        Ok(())
    }

    /// One question to rustls, and what follows from its answer.
    fn ask(&mut self, task: &mut Task<'_>) -> Result<Turn, Error> {
        let incoming = self.incoming.bytes_mut();
        let mut answer = Answer {
            task,
            held: &mut self.held,
            decrypted: self.decrypted.end(),
            outgoing: self.outgoing.end(),
        };
        let (used, turn) = match &mut self.side {
            Side::Server(server) => answer.follow(server.process_tls_records(incoming)),
            Side::Client(client) => answer.follow(client.process_tls_records(incoming)),
        };
        self.incoming.consume(used);
        turn
    }

    /// Puts the alert about a fault among the bytes for the peer, and stops.
    fn tell_fault(&mut self) {
        while self.state().wants_write() {
            // rustls says first what it has to say, and repeats its error behind that.
            if self.ask(&mut Task::Receive).is_err() {
                break;
            }
        }
        self.stop();
    }
}

/// That by which the answer of rustls is followed.
struct Answer<'a, 't> {
    task: &'a mut Task<'t>,
    held: &'a mut usize,
    decrypted: &'a mut Vec<u8>,
    outgoing: &'a mut Vec<u8>,
}

impl Answer<'_, '_> {
    /// Returns the number of the peer's bytes that are used up, too.
    fn follow<Data>(&mut self, status: UnbufferedStatus<'_, '_, Data>) -> (usize, Result<Turn, Error>) {
        let turn = status.state.and_then(|state| match state {
            ConnectionState::ReadTraffic(traffic) => Ok(self.read(traffic)),
            ConnectionState::EncodeTlsData(mut data) => {
                append(self.outgoing, 0, |to| {
                    data.encode(to).map_err(|error| match error {
                        EncodeError::InsufficientSize(size) => Some(size.required_size),
                        EncodeError::AlreadyEncoded => None,
                    })
                });
                Ok(Turn::GoesOn)
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                Ok(Turn::GoesOn)
            }
            ConnectionState::PeerClosed => Ok(Turn::PeerEnded),
            ConnectionState::WriteTraffic(mut traffic) => {
                let written = match self.task {
                    Task::Encrypt(plaintext) => {
                        let room = plaintext.len() + plaintext.len().div_ceil(RECORD) * OVERHEAD;
                        append(self.outgoing, room, |to| {
                            traffic.encrypt(plaintext, to).map_err(required)
                        })
                    }
                    Task::End => append(self.outgoing, OVERHEAD, |to| {
                        traffic.queue_close_notify(to).map_err(required)
                    }),
                    Task::Receive | Task::Read { .. } => Some(()),
                };
                written.map(|()| Turn::Over).ok_or(Error::EncryptError)
            }
            // The handshake waits for the peer, or both sides have said their ends.
            _ if matches!(self.task, Task::Encrypt(_)) => Err(Error::HandshakeNotComplete),
            _ => Ok(Turn::Over),
        });
        (status.discard, turn)
    }

    fn read<Data>(&mut self, mut traffic: ReadTraffic<'_, '_, Data>) -> Turn {
        match self.task {
            Task::Receive => Turn::Plaintext(traffic.peek_len().map_or(0, |size| size.get())),
            Task::Read { to, count } => {
                if let Some(Ok(record)) = traffic.next_record() {
                    let mut plaintext = record.payload;
                    // A slice is read without errors.
                    *count = plaintext.read(to).unwrap_or_default();
                    self.decrypted.extend_from_slice(plaintext);
                }
                *self.held = 0;
                Turn::Over
            }
            // rustls does not write while it holds plaintext.
            Task::Encrypt(_) | Task::End => {
                while let Some(Ok(record)) = traffic.next_record() {
                    self.decrypted.extend_from_slice(record.payload);
                }
                *self.held = 0;
                Turn::GoesOn
            }
        }
    }
}

/// The room that rustls has not found for something, if that is what it lacks.
fn required(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    }
}

/// Appends what `write` writes. It is called with this room, and again with more if it asks for that. Returns `None` if it
/// has failed.
fn append(
    to: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Option<()> {
    let (start, mut room) = (to.len(), room);
    loop {
        to.resize(start + room, 0);
        match write(to.get_mut(start..)?) {
            Ok(count) => {
                to.truncate(start + count);
                return Some(());
            }
            Err(Some(required)) if required > room => room = required,
            Err(_) => {
                to.truncate(start);
                return None;
            }
        }
    }
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(_) => "Server",
            Self::Client(_) => "Client",
        })
    }
}
