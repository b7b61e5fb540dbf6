//! A server as the operator names it, with the TLS that is spoken there.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

use log::log;
use rustls::pki_types::ServerName;

use super::target::Target;
use crate::error::Error;
use crate::net::addr::{Connect, ConnectAddr, Transport};
use crate::net::conn::Conn;
use crate::net::tls::client::{ClientTls, server_name};
use crate::net::tls::error::Fault;
use crate::net::tls::files::{IdentityFiles, read_client};

/// The operator's choices for servers that are asked by TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsOptions {
    /// The file of the authorities whose certificates are trusted; `None`: those of the system.
    pub authorities: Option<PathBuf>,
    /// The certificate for servers that ask for one.
    pub identity: Option<IdentityFiles>,
    /// The name that the certificate of each server must have; `None`: the host in its address.
    pub server_name: Option<ServerName<'static>>,
}

impl TlsOptions {
    /// Returns the name that the certificate of the server at an address must have; `None` if it can have none.
    pub fn name_of(&self, address: &ConnectAddr) -> Option<ServerName<'static>> {
        if self.server_name.is_some() {
            return self.server_name.clone();
        }
        match address {
            ConnectAddr::Tcp { host, .. } => server_name(host),
            ConnectAddr::Unix(_) => None,
        }
    }
}

/// A server, ready to be connected to.
#[derive(Debug)]
pub(super) struct Server {
    /// Its name for people, and for the look-up.
    pub(super) name: Connect,
    security: Option<Security>,
}

/// TLS with one server.
#[derive(Debug)]
struct Security {
    tls: Rc<ClientTls>,
    name: ServerName<'static>,
}

impl Server {
    /// Prepares one server: see [`prepare_all`](Self::prepare_all).
    ///
    /// # Errors
    /// A mistake for each file that cannot be used.
    pub(super) fn prepare(name: Connect, options: &TlsOptions) -> Result<Self, Error> {
        Self::prepared(name, options, &mut None)
    }

    /// Prepares the servers of the operator. If one of them is asked by TLS, this reads the files, and logs what there
    /// is to say about them.
    ///
    /// # Errors
    /// A mistake for each file that cannot be used.
    pub(super) fn prepare_all(names: Vec<Connect>, options: &TlsOptions) -> Result<Vec<Self>, Error> {
        let mut tls = None;
        let names = names.into_iter();
        names.map(|name| Self::prepared(name, options, &mut tls)).collect()
    }

    fn prepared(name: Connect, options: &TlsOptions, tls: &mut Option<Rc<ClientTls>>) -> Result<Self, Error> {
        let security = match name.transport {
            Transport::Plain => None,
            Transport::Tls => Some(Security {
                name: options.name_of(&name.address).ok_or_else(|| nameless(&name))?,
                tls: match tls {
                    Some(tls) => Rc::clone(tls),
                    None => Rc::clone(tls.insert(Rc::new(read(options)?))),
                },
            }),
        };
        Ok(Self { name, security })
    }

    /// Returns true if it is asked by TLS.
    pub(super) fn is_secured(&self) -> bool {
        self.security.is_some()
    }

    /// Begins to connect to a target of this server. Dropping the connection will reset it, so that the other side
    /// learns of it at once.
    ///
    /// # Errors
    /// See [`Stream::connect_tcp`](crate::net::stream::Stream::connect_tcp) and
    /// [`connect_unix`](crate::net::stream::Stream::connect_unix).
    pub(super) fn connect(&self, target: &Target) -> io::Result<Conn> {
        let conn = target.connect()?;
        match &self.security {
            None => Ok(conn),
            Some(Security { tls, name }) => {
                let engine = tls.engine(name.clone())?;
                Ok(conn.secure(engine))
            }
        }
    }
}

fn read(options: &TlsOptions) -> Result<ClientTls, Error> {
    let (authorities, identity) = (options.authorities.as_deref(), options.identity.as_ref());
    match read_client(authorities, identity, SystemTime::now()) {
        Ok((tls, remarks)) => {
            for remark in remarks {
                log!(remark.level, "{}", remark.text);
            }
            Ok(tls)
        }
        Err(errors) => {
            let lines = errors.iter().map(|error| format!("iotcpd: {error}"));
            Err(Error::mistakes(lines.collect()))
        }
    }
}

/// Returns true if an error of a connection says that the two sides do not agree on TLS, and will not until one of them
/// is changed.
pub(super) fn is_disagreement(error: &io::Error) -> bool {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>());
    fault.is_some_and(Fault::is_lasting)
}

fn nameless(name: &Connect) -> Error {
    Error::mistakes(vec![format!("iotcpd: ADDRESS: {}", nameless_text(name))])
}

/// Returns the mistake of an operator who names a server that no certificate can name.
pub fn nameless_text(name: &Connect) -> String {
    format!("no certificate can be for the host of {name}; give the name that its certificate has with --server-name")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(address: &str, given: Option<&str>) -> Option<String> {
        let options = TlsOptions {
            server_name: given.map(|name| server_name(name).unwrap()),
            ..TlsOptions::default()
        };
        let name = options.name_of(&address.parse().unwrap())?;
        Some(name.to_str().into_owned())
    }

    #[test]
    fn a_certificate_must_be_for_the_host_of_the_address_or_for_the_name_that_was_given() {
        assert_eq!(name_of("pool.example:1", None).unwrap(), "pool.example");
        assert_eq!(name_of("10.0.0.5:1", None).unwrap(), "10.0.0.5");
        assert_eq!(name_of("[::1]:1", None).unwrap(), "::1");
        assert_eq!(name_of("10.0.0.5:1", Some("pool.example")).unwrap(), "pool.example");
        assert_eq!(name_of("[fe80::1%2]:1", None).unwrap(), "fe80::1");
        assert_eq!(name_of("a..b:1", None), None);
        assert_eq!(name_of("a..b:1", Some("a")).unwrap(), "a");
    }

    #[test]
    fn files_are_read_only_for_a_server_with_tls() {
        let options = TlsOptions {
            authorities: Some("/none".into()),
            ..TlsOptions::default()
        };
        let prepare = |address: &str| Server::prepare(address.parse().unwrap(), &options);
        assert!(!prepare("127.0.0.1:1").unwrap().is_secured());
        let error = prepare("tls:127.0.0.1:1").unwrap_err().to_string();
        assert!(
            error.starts_with("iotcpd: cannot read CA certificate /none: "),
            "{error}"
        );
    }
}
