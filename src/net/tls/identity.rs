//! A certificate, the chain behind it, and its key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys, SignatureAlgorithm, SignatureScheme};

use super::error::is_version_1;
use super::names::Names;
use super::ocsp::{self, Useless};
use super::provider::provider;
use super::signature::reserved;

/// That by which one side proves its names to the other.
#[derive(Debug)]
pub struct Identity {
    file: PathBuf,
    certified: Arc<CertifiedKey>,
    names: Names,
    stapled: Option<Stapled>,
}

/// The same with the word of its authority.
#[derive(Debug, Clone)]
struct Stapled {
    certified: Arc<CertifiedKey>,
    until: SystemTime,
}

/// The reason why a certificate and a key are no identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// A mistake in the file of the certificate.
    Certificate(Mistake),
    /// A mistake in the file of the key.
    Key(Mistake),
    /// The key is not that of the certificate.
    Pair,
    /// The key is that of a later certificate in the file.
    Order,
}

/// A mistake in a PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mistake {
    /// There is nothing of the kind in it.
    Missing,
    /// It is in DER, the form without text.
    Binary,
    /// The key is encrypted, and a daemon has no terminal to ask for the password at.
    Encrypted,
    /// The certificate has no extensions, as `openssl x509 -req` makes it where nothing else is said.
    Version1,
    /// It cannot be used, for this reason, which has a subject of its own.
    Malformed(String),
}

const UNUSABLE_KEY: &str =
    "the key is malformed, or of a kind that is not used here (RSA of 2048 to 4096 bits, P-256, P-384 and Ed25519 are)";

impl Identity {
    /// Reads the certificates, of which the first is that of the identity itself, and the key. `file` is the name of
    /// the file of the certificates, for messages.
    ///
    /// # Errors
    /// See [`Wrong`].
    pub fn from_pem(file: &Path, certificates: &[u8], key: &[u8]) -> Result<Self, Wrong> {
        let chain = certificates_from_pem(certificates).map_err(Wrong::Certificate)?;
        let own = chain.first().ok_or(Wrong::Certificate(Mistake::Missing))?;
        let names = Names::read(own).map_err(|error| Wrong::Certificate(Mistake::Malformed(error.to_string())))?;
        let key = key_from_pem(key).map_err(Wrong::Key)?;
        Ok(Self {
            file: file.to_owned(),
            certified: Arc::new(CertifiedKey::new(paired(chain, &key)?, key)),
            names,
            stapled: None,
        })
    }

    /// Adds the word of its authority that the certificate is good, an answer of OCSP in DER. It is shown as long as it
    /// is of use.
    ///
    /// # Errors
    /// The answer is of no use.
    pub fn staple(&mut self, answer: Vec<u8>, now: SystemTime) -> Result<(), Useless> {
        let own = self.certified.cert.first().ok_or(Useless::Other)?;
        let until = ocsp::good_until(&answer, own, now)?;
        let mut certified = CertifiedKey::clone(&self.certified);
        certified.ocsp = Some(answer);
        let certified = Arc::new(certified);
        self.stapled = Some(Stapled { certified, until });
        Ok(())
    }

    /// The same identity without an answer of OCSP.
    pub(super) fn without_answer(&self) -> Self {
        Self {
            file: self.file.clone(),
            certified: Arc::clone(&self.certified),
            names: self.names.clone(),
            stapled: None,
        }
    }

    /// Takes over the answer of OCSP of an earlier identity, which must be about the same certificate.
    pub(super) fn keep_answer(&mut self, earlier: &Self) {
        self.stapled.clone_from(&earlier.stapled);
    }

    /// Returns true if both show the same certificates. Then they have the same key, too.
    #[must_use]
    pub fn has_same_chain(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }

    /// The answer of OCSP, also if it is too old to be sent along.
    #[must_use]
    pub fn answer(&self) -> Option<&[u8]> {
        self.stapled.as_ref()?.certified.ocsp.as_deref()
    }

    /// Returns the moment until which the answer of OCSP is sent along, if there is one.
    #[must_use]
    pub fn answer_until(&self) -> Option<SystemTime> {
        Some(self.stapled.as_ref()?.until)
    }

    /// The file of its certificate.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The names in its certificate.
    #[must_use]
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// The form that rustls uses, with all that is of use at the moment `now`.
    #[must_use]
    pub fn certified(&self, now: SystemTime) -> Arc<CertifiedKey> {
        match &self.stapled {
            Some(stapled) if now <= stapled.until => Arc::clone(&stapled.certified),
            _ => Arc::clone(&self.certified),
        }
    }

    /// Returns true if the key makes signatures of one of these kinds.
    #[must_use]
    pub fn can_sign(&self, schemes: &[SignatureScheme]) -> bool {
        self.certified.key.choose_scheme(schemes).is_some()
    }

    /// The same with a key that refuses to sign, and without the certificates.
    pub(super) fn reserved(&self) -> Arc<CertifiedKey> {
        Arc::new(reserved(&self.certified))
    }

    /// Returns true if a signature takes so long that other connections would have to wait for it: from 0.7 ms
    /// (RSA-2048) to 4 ms (RSA-4096), and 0.1 ms for the other kinds of keys. To check a signature of RSA takes 0.1 ms
    /// at most, so that the certificates of clients need no such care.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.certified.key.algorithm() == SignatureAlgorithm::RSA
    }
}

/// Reads all certificates of a PEM file. There is at least one.
///
/// # Errors
/// There is none, or one is malformed.
pub fn certificates_from_pem(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Mistake> {
    let bytes = sections(bytes)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(absent(bytes)),
        Ok(chain) => Ok(chain),
        Err(error) => Err(malformed(&error)),
    }
}

/// Reads the first key of a PEM file.
fn key_from_pem(bytes: &[u8]) -> Result<Arc<dyn SigningKey>, Mistake> {
    let bytes = sections(bytes)?;
    if bytes
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .any(tells_of_encryption)
    {
        return Err(Mistake::Encrypted);
    }
    let key = PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => absent(bytes),
        error => malformed(&error),
    })?;
    let loaded = provider().key_provider.load_private_key(key);
    loaded.map_err(|_| Mistake::Malformed(UNUSABLE_KEY.to_owned()))
}

/// Returns the text of a PEM file without the mark that editors of Windows put in front.
fn sections(bytes: &[u8]) -> Result<&[u8], Mistake> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // The reader of sections would pass over the second one, as if it were not there.
    let glued = b"----------BEGIN ";
    match text.windows(glued.len()).any(|part| part == glued) {
        true => Err(Mistake::Malformed(
            "a section begins in the line in which another ends".to_owned(),
        )),
        false => Ok(text),
    }
}

/// Returns true if this line of a PEM file says that a key is encrypted. In the older form, a header below the first
/// line does.
fn tells_of_encryption(line: &[u8]) -> bool {
    line.starts_with(b"-----BEGIN ENCRYPTED ")
        || (line.starts_with(b"Proc-Type:") && line.trim_ascii_end().ends_with(b"ENCRYPTED"))
}

fn absent(bytes: &[u8]) -> Mistake {
    // The first byte of a sequence, as which each certificate and each key begins.
    if bytes.first() == Some(&0x30) {
        Mistake::Binary
    } else {
        Mistake::Missing
    }
}

fn malformed(error: &pem::Error) -> Mistake {
    Mistake::Malformed(match error {
        pem::Error::MissingSectionEnd { .. } => "the end of a section is missing".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "the first line of a section is malformed".to_owned(),
        _ => "a section is not in base64".to_owned(),
    })
}

/// Returns the chain if the key is that of its first certificate.
fn paired(
    chain: Vec<CertificateDer<'static>>,
    key: &Arc<dyn SigningKey>,
) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let matches = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(key)).keys_match()
    };
    let mut outcomes = chain.iter().map(matches);
    match outcomes.next() {
        // A library may not be able to tell the public half of a key.
        Some(Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown))) => Ok(chain),
        Some(Err(Error::InconsistentKeys(_))) if outcomes.any(|outcome| outcome.is_ok()) => Err(Wrong::Order),
        Some(Err(Error::InconsistentKeys(_))) | None => Err(Wrong::Pair),
        Some(Err(Error::InvalidCertificate(error))) if is_version_1(&error) => {
            Err(Wrong::Certificate(Mistake::Version1))
        }
        Some(Err(error)) => {
            let reason = format!("the certificate is of no use for TLS ({error})");
            Err(Wrong::Certificate(Mistake::Malformed(reason)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::KeyPair;

    use super::super::scaffold::{Authority, RSA_KEY};
    use super::*;

    fn read(certificates: &str, key: &str) -> Result<Identity, Wrong> {
        Identity::from_pem(Path::new("a.pem"), certificates.as_bytes(), key.as_bytes())
    }

    fn reason(wrong: Result<Identity, Wrong>) -> String {
        match wrong.unwrap_err() {
            Wrong::Certificate(Mistake::Malformed(reason)) | Wrong::Key(Mistake::Malformed(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_certificate_its_chain_and_its_key_are_an_identity() {
        let authority = Authority::new();
        let (certificate, key) = authority.certify_pem(&["a.example"]);
        let chain = format!("Some text.\n{certificate}{}", authority.certificate.pem());
        let identity = read(&chain, &key).unwrap();
        assert_eq!(identity.names().dns, ["a.example"]);
        assert_eq!(identity.certified(SystemTime::now()).cert.len(), 2);
        assert!(!identity.is_slow());
        let one_file = chain + &key;
        assert_eq!(read(&one_file, &one_file).unwrap().certified.cert.len(), 2);
    }

    #[test]
    fn the_word_of_the_authority_is_shown_as_long_as_it_is_of_use() {
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(5_u64.into());
        let (certificate, key) = Authority::new().sign_pem(&params, &KeyPair::generate().unwrap());
        let mut identity = read(&certificate, &key).unwrap();
        let until = ocsp::tests::until();
        let other = ocsp::tests::good(&[6]);
        assert_eq!(identity.staple(other, until), Err(Useless::Other));
        assert_eq!(identity.certified(until).ocsp, None);
        let answer = ocsp::tests::good(&[5]);
        identity.staple(answer.clone(), until).unwrap();
        assert_eq!(identity.certified(until).ocsp, Some(answer));
        assert_eq!(identity.certified(until + Duration::from_secs(1)).ocsp, None);
    }

    #[test]
    fn a_key_of_rsa_is_slow() {
        let (certificate, key) = Authority::new().certify_rsa_pem(&["a"]);
        let identity = read(&certificate, &key).unwrap();
        assert!(identity.is_slow());
        assert!(identity.can_sign(&[SignatureScheme::RSA_PSS_SHA256]));
        assert!(!identity.can_sign(&[SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let authority = Authority::new();
        let (certificate, _) = authority.certify_pem(&["a"]);
        let (_, key) = authority.certify_pem(&["a"]);
        assert_eq!(read(&certificate, &key).unwrap_err(), Wrong::Pair);
        assert_eq!(read(&certificate, RSA_KEY).unwrap_err(), Wrong::Pair);
    }

    #[test]
    fn a_chain_that_begins_with_its_authority_is_told_from_a_foreign_key() {
        let authority = Authority::new();
        let (certificate, key) = authority.certify_pem(&["a"]);
        let chain = authority.certificate.pem() + &certificate;
        assert_eq!(read(&chain, &key).unwrap_err(), Wrong::Order);
    }

    #[test]
    fn files_of_another_kind_are_told_by_their_kind() {
        let authority = Authority::new();
        let (certificate, key) = authority.certify_pem(&["a"]);
        for text in ["", "nothing", &key] {
            assert_eq!(
                read(text, &key).unwrap_err(),
                Wrong::Certificate(Mistake::Missing),
                "{text}"
            );
        }
        for text in ["", "nothing", &certificate] {
            assert_eq!(
                read(&certificate, text).unwrap_err(),
                Wrong::Key(Mistake::Missing),
                "{text}"
            );
        }
        let (binary, binary_key) = (
            authority.certificate.der(),
            KeyPair::generate().unwrap().serialize_der(),
        );
        let outcome = Identity::from_pem(Path::new("a"), binary, key.as_bytes());
        assert_eq!(outcome.unwrap_err(), Wrong::Certificate(Mistake::Binary));
        let outcome = Identity::from_pem(Path::new("a"), certificate.as_bytes(), &binary_key);
        assert_eq!(outcome.unwrap_err(), Wrong::Key(Mistake::Binary));
    }

    #[test]
    fn a_mark_of_an_editor_and_other_ends_of_lines_are_no_mistakes() {
        let (certificate, key) = Authority::new().certify_pem(&["a"]);
        for end in ["\n", "\r\n", "\r", "  \n"] {
            let written = |text: &str| format!("\u{feff}{}", text.replace('\n', end));
            read(&written(&certificate), &written(&key)).unwrap();
        }
    }

    /// The second certificate would be missing in the chain that clients are shown, and in the list of authorities.
    #[test]
    fn files_that_were_joined_without_an_end_of_line_are_refused() {
        let authority = Authority::new();
        let (certificate, key) = authority.certify_pem(&["a"]);
        let chain = certificate.trim_end().to_owned() + &authority.certificate.pem();
        let expected = "a section begins in the line in which another ends";
        assert_eq!(reason(read(&chain, &key)), expected);
        assert_eq!(
            reason(read(&certificate, &(certificate.trim_end().to_owned() + &key))),
            expected
        );
        read(
            &(certificate.trim_end().to_owned() + "\n" + &authority.certificate.pem()),
            &key,
        )
        .unwrap();
    }

    #[test]
    fn a_note_about_encryption_is_no_encryption() {
        let (certificate, key) = Authority::new().certify_pem(&["a"]);
        read(&certificate, &format!("# NOT ENCRYPTED\n{key}")).unwrap();
    }

    #[test]
    fn an_encrypted_key_is_told_from_a_malformed_one() {
        let (certificate, key) = Authority::new().certify_pem(&["a"]);
        for encrypted in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIB\n-----END RSA PRIVATE KEY-----\n",
        ] {
            assert_eq!(
                read(&certificate, encrypted).unwrap_err(),
                Wrong::Key(Mistake::Encrypted)
            );
        }
        let of_no_use = UNUSABLE_KEY;
        let short = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
        assert_eq!(reason(read(&certificate, short)), of_no_use);
        let cut = &key[..key.len() - 10];
        assert_eq!(reason(read(&certificate, cut)), "the end of a section is missing");
    }

    #[test]
    fn a_damaged_certificate_is_refused_with_its_reason() {
        let (certificate, key) = Authority::new().certify_pem(&["a"]);
        let text = certificate.replace("MII", "***");
        assert_eq!(reason(read(&text, &key)), "a section is not in base64");
        let cut = &certificate[..certificate.len() - 10];
        assert_eq!(reason(read(cut, &key)), "the end of a section is missing");
        let other = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert!(reason(read(other, &key)).starts_with("the certificate is malformed ("));
    }
}
