//! The certificates of clients: which of them a server accepts.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::error::Fault;
use super::names::Names;
use super::provider::provider;
use super::subjects::{Subjects, shown};

/// The rule about the certificates of clients: each must come from one of the authorities, must be valid at the moment,
/// and must have a name that is on the list. Every client must show one.
#[derive(Debug)]
pub struct ClientVerifier {
    roots: Arc<RootCertStore>,
    subjects: Subjects,
    chains: Arc<dyn ClientCertVerifier>,
}

/// The certificate is good, but none of its names is on the list. They are given here.
#[derive(Debug)]
pub(super) struct NotListed(pub(super) String);

impl fmt::Display for NotListed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not listed: {}", self.0)
    }
}

impl std::error::Error for NotListed {}

impl ClientVerifier {
    /// The rule with these authorities and this list.
    ///
    /// # Errors
    /// There is no authority.
    pub fn new(roots: RootCertStore, subjects: Subjects) -> Result<Self, Fault> {
        let roots = Arc::new(roots);
        let chains = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self {
            roots,
            subjects,
            chains,
        })
    }

    /// Returns true if both have the same authorities and the same list.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.roots.roots == other.roots.roots && self.subjects == other.subjects
    }

    /// Judges the certificates that a client has shown earlier, its own first, at the moment `now`.
    ///
    /// # Errors
    /// The client may not connect.
    pub(super) fn judge(&self, shown: &[CertificateDer<'_>], now: SystemTime) -> Result<(), Fault> {
        let Some((own, chain)) = shown.split_first() else {
            return Err(Fault::NoCertificate);
        };
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.verify_client_cert(own, chain, UnixTime::since_unix_epoch(now))?;
        Ok(())
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chains.verify_client_cert(own, chain, now)?;
        let names = Names::read(own).map_err(|_| CertificateError::BadEncoding)?;
        if !self.subjects.permit(&names) {
            let not_listed = OtherError(Arc::new(NotListed(shown(&names))));
            return Err(CertificateError::Other(not_listed).into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, own, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, own, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
