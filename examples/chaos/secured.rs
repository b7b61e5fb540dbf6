//! The connections of clients: sockets, and TLS on some of them.

use std::error::Error;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// The name in the certificate of the daemon.
pub(crate) const NAME: &str = "localhost";

/// The files of the certificate and of its key, in the daemon's directory.
pub(crate) fn files(home: &Path) -> (PathBuf, PathBuf) {
    (home.join("cert.pem"), home.join("key.pem"))
}

/// Makes a certificate for the daemon, unless there is one.
pub(crate) fn make_certificate(home: &Path) -> Result<(), Box<dyn Error>> {
    let (certificate, key) = files(home);
    if certificate.exists() {
        return Ok(());
    }
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    fs::set_permissions(&key, Permissions::from_mode(0o600))?;
    fs::write(certificate, made.cert.pem())?;
    Ok(())
}

/// The clients of a pool, which share their sessions: most of their handshakes resume one.
pub(crate) fn clients(home: &Path) -> Result<Arc<ClientConfig>, Box<dyn Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files(home).0)?)?;
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A stream. The type of its socket is that of UNIX sockets for both families: what is done with it here (send, receive,
/// shut down, set a time-out) is the same call for every connected socket.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: UnixStream,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    pub(crate) fn plain(socket: UnixStream) -> Self {
        Self { socket, tls: None }
    }

    /// Makes the handshake on a socket.
    pub(crate) fn secured(mut socket: UnixStream, clients: &Arc<ClientConfig>, patience: Duration) -> io::Result<Self> {
        socket.set_read_timeout(Some(patience))?;
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(Arc::clone(clients), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let tls = Some(Box::new(connection));
        Ok(Self { socket, tls })
    }

    pub(crate) fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(time))
    }

    pub(crate) fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        self.socket.set_write_timeout(Some(time))
    }

    pub(crate) fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(is_nonblocking)
    }

    /// Says that nothing more comes.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            push(tls, &mut self.socket)?;
        }
        self.socket.shutdown(Shutdown::Write)
    }

    /// Has the drop reset the connection. Without effect on a UNIX socket, whose peer sees a reset when something is left
    /// unread.
    pub(crate) fn reset_on_drop(&self) {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&self.socket.as_fd(), sockopt::Linger, &linger).ok();
    }
}

fn push(tls: &mut ClientConnection, socket: &mut UnixStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(socket)?;
    }
    Ok(())
}

impl Read for Stream {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.read(piece);
        };
        loop {
            match tls.reader().read(piece) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            tls.read_tls(&mut self.socket)?;
            let processed = tls.process_new_packets().map_err(io::Error::other);
            // The word about a fault, if there is one.
            push(tls, &mut self.socket).ok();
            processed?;
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.write(bytes);
        };
        push(tls, &mut self.socket)?;
        let count = tls.writer().write(bytes)?;
        push(tls, &mut self.socket)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
