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

use x509_cert::Certificate;
use x509_cert::der::Decode;

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

/// The largest number of certificates behind a client's own that are looked at.
const LONGEST_CHAIN: usize = 10;

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
        let verified = self.chains.verify_client_cert(own, &one_of_each_name(chain), now)?;
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

/// The certificates of a chain, of several with the same subject the first alone. Among more, webpki would try every way
/// up to a hundred signatures: 50 ms for a client that has no valid certificate.
fn one_of_each_name<'c>(chain: &'c [CertificateDer<'_>]) -> Vec<CertificateDer<'c>> {
    let (mut subjects, mut kept) = (Vec::new(), Vec::new());
    for der in chain.iter().take(LONGEST_CHAIN) {
        let Ok(certificate) = Certificate::from_der(der) else {
            continue;
        };
        let subject = certificate.tbs_certificate.subject;
        if !subjects.contains(&subject) {
            subjects.push(subject);
            kept.push(CertificateDer::from(der.as_ref()));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::scaffold::Authority;
    use super::*;

    #[test]
    fn of_certificates_with_one_name_the_first_alone_is_tried() {
        let named = |name: &str| Authority::named(name).certificate.der().clone();
        let (first, other) = (named("a"), named("b"));
        let garbage = CertificateDer::from(b"no certificate".to_vec());
        let chain = [
            first.clone(),
            named("a"),
            garbage,
            other.clone(),
            named("a"),
            named("b"),
        ];
        assert_eq!(one_of_each_name(&chain), [first, other]);
        let many: Vec<_> = (0..30).map(|number| named(&number.to_string())).collect();
        assert_eq!(one_of_each_name(&many), many[..LONGEST_CHAIN]);
    }
}
