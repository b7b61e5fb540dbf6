//! A client's connection for the load generators: plain, or with TLS 1.3 by rustls. Writes wait until the kernel has
//! taken all; a read takes once what has arrived.
//!
//! A TLS connection makes its handshake along the way: [`Connection::send`] may be called at once, and what it is given
//! leaves when the handshake is over, which the calls of [`Connection::receive`] bring about.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

/// The kind of connections that the load makes.
#[derive(Clone)]
pub(crate) enum Transport {
    Plain,
    /// The server must show the certificate in a file, for the name `localhost`.
    Tls(Arc<ClientConfig>),
}

impl Transport {
    /// Takes `[--ca FILE [--resume]]` from the front of the command line. With `--ca` connections have TLS; each makes a
    /// whole handshake, or with `--resume`, if there was one before, resumes its session.
    pub(crate) fn parse<'a, 'w>(words: &'w [&'a str]) -> Result<(Self, &'w [&'a str]), Box<dyn Error>> {
        match words {
            ["--ca", file, "--resume", words @ ..] => Ok((Self::tls(file, Resumption::in_memory_sessions(64))?, words)),
            ["--ca", file, words @ ..] => Ok((Self::tls(file, Resumption::disabled())?, words)),
            words => Ok((Self::Plain, words)),
        }
    }

    fn tls(file: &str, resumption: Resumption) -> Result<Self, Box<dyn Error>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file)?)?;
        let provider = rustls::crypto::ring::default_provider();
        let mut config = ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = resumption;
        Ok(Self::Tls(config.into()))
    }
}

/// A connection, or one of two handles for it.
pub(crate) struct Connection {
    socket: TcpStream,
    tls: Option<Arc<Mutex<ClientConnection>>>,
}

/// A plain one.
impl From<TcpStream> for Connection {
    fn from(socket: TcpStream) -> Self {
        Self { socket, tls: None }
    }
}

impl Connection {
    /// Connects, for which it waits, and begins the handshake.
    pub(crate) fn start(address: SocketAddr, transport: &Transport) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        let Transport::Tls(config) = transport else {
            return Ok(socket.into());
        };
        // The end of the handshake and the request may leave in two segments.
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        tls.set_buffer_limit(None);
        let started = Self {
            socket,
            tls: Some(Arc::new(Mutex::new(tls))),
        };
        started.flush()?;
        Ok(started)
    }

    /// A second handle, for another thread. Must be called when the handshake is over.
    #[allow(dead_code, reason = "for streams alone")]
    pub(crate) fn second(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            tls: self.tls.clone(),
        })
    }

    #[allow(dead_code, reason = "for epoll")]
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn tls(&self) -> Option<MutexGuard<'_, ClientConnection>> {
        let tls = self.tls.as_ref()?;
        Some(tls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends all of these bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.tls() {
            Some(mut tls) => tls.writer().write_all(bytes)?,
            None => return (&self.socket).write_all(bytes),
        }
        self.flush()
    }

    /// Says that nothing more comes from this side.
    #[allow(dead_code, reason = "for streams alone")]
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if let Some(mut tls) = self.tls() {
            tls.send_close_notify();
        }
        self.flush()?;
        self.socket.shutdown(Shutdown::Write)
    }

    /// Writes what TLS has to send. The lock is not held meanwhile, so the other handle can read.
    fn flush(&self) -> io::Result<()> {
        let mut ciphertext = Vec::new();
        if let Some(mut tls) = self.tls() {
            while tls.wants_write() {
                tls.write_tls(&mut ciphertext)?;
            }
        }
        (&self.socket).write_all(&ciphertext)
    }

    /// Reads once into the buffer, and appends what has come to `to`. Returns false if the server has said its end.
    pub(crate) fn receive(&mut self, buffer: &mut [u8], to: &mut Vec<u8>) -> io::Result<bool> {
        let count = (&self.socket).read(buffer)?;
        let received = buffer.get(..count).unwrap_or_default();
        let Some(tls) = self.tls() else {
            to.extend_from_slice(received);
            return Ok(count > 0);
        };
        let was_handshaking = tls.is_handshaking();
        let goes_on = decrypt(tls, received, to)?;
        // Later there is nothing to say, and the other handle may be writing.
        if was_handshaking {
            self.flush()?;
        }
        Ok(goes_on)
    }

    /// Receives until the handshake is over, and as many tickets have come.
    #[allow(dead_code, reason = "not for everyone")]
    pub(crate) fn finish_handshake(&mut self, tickets: u32) -> io::Result<()> {
        let (mut buffer, mut early) = ([0; 4096], Vec::new());
        while self
            .tls()
            .is_some_and(|tls| tls.is_handshaking() || tls.tls13_tickets_received() < tickets)
        {
            if !self.receive(&mut buffer, &mut early)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    #[allow(dead_code, reason = "not for everyone")]
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls().is_some_and(|tls| tls.is_handshaking())
    }

    /// Returns true if the handshake has resumed a session.
    #[allow(dead_code, reason = "not for everyone")]
    pub(crate) fn is_resumed(&self) -> bool {
        self.tls()
            .is_some_and(|tls| tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }
}

/// Takes in all of these bytes. Returns false if they are the server's last.
fn decrypt(mut tls: MutexGuard<'_, ClientConnection>, mut received: &[u8], to: &mut Vec<u8>) -> io::Result<bool> {
    if received.is_empty() {
        // Without close_notify. nginx says none behind that of the client, and every load counts what has come.
        return Ok(false);
    }
    while !received.is_empty() {
        tls.read_tls(&mut received)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        if state.plaintext_bytes_to_read() > 0 {
            match tls.reader().read_to_end(to) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        if state.peer_has_closed() {
            return Ok(false);
        }
    }
    Ok(true)
}
