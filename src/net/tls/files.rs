//! The files of certificates and keys. Each mistake in them is told with its file, its reason and the remedy.
//!
//! Files are read on a thread of their own, never on the loop: a disk may be slow. The ends of certificates are the
//! matter of [`expiry`](super::expiry).

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use log::Level;
use nix::unistd::{getegid, getgroups};
use rustls::RootCertStore;

use super::Version;
use super::choice::Choice;
use super::client::ClientTls;
use super::error::{Fault, ISSUE_WITH_EXTENSIONS};
use super::expiry::remark_on_end;
use super::identity::{Identity, Mistake, Wrong, certificates_from_pem};
use super::ocsp::Useless;
use super::server::ServerTls;
use super::subjects::Subjects;
use super::verifier::ClientVerifier;
use crate::regular_file::{self, Kind, Refusal};

/// A file of certificates or of a key: a hundred times the usual size.
const PEM: Kind = Kind {
    largest: 1024 * 1024,
    remedy: "name a file of certificates or a key, in PEM",
};

/// A file with an answer of OCSP. rustls sends answers of at most 64 KiB.
const ANSWER: Kind = Kind {
    largest: 32 * 1024,
    remedy: "write the answer of one authority to it",
};

/// The files of a certificate and its key, which may be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The file of the certificate, and the chain behind it.
    pub certificate: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
}

/// The rule about the certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRule {
    /// The file of the authorities that certificates must come from.
    pub authorities: PathBuf,
    /// The names of which a certificate must have one.
    pub subjects: Subjects,
}

/// The reason why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// The event, with the name of the file.
    pub text: String,
    /// The advice to the operator.
    pub remedy: String,
    /// True if another try may succeed without a change of the file.
    pub is_passing: bool,
}

impl FileError {
    fn new(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            remedy: remedy.into(),
            is_passing: false,
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.text, self.remedy)
    }
}

/// A line for the log about a file that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The level at which it is logged.
    pub level: Level,
    /// The line.
    pub text: String,
}

/// Reads the identities of a server, and the authorities of its clients, and builds it: see [`ServerTls::build`]. `before`
/// is its predecessor: an answer of OCSP that it sends along stays if the new one is of no use. Returns with the server
/// what the log should say about the files at the moment `now`; the ends of certificates are not among that.
///
/// # Errors
/// Files that cannot be read or used: an error for each. Or there are no files at all.
pub fn read_server(
    files: &[IdentityFiles],
    lowest: Version,
    clients: Option<&ClientRule>,
    before: Option<&ServerTls>,
    now: SystemTime,
) -> Result<(ServerTls, Vec<Remark>), Vec<FileError>> {
    let parts = Parts::read(files, clients, before, now);
    if parts.errors.is_empty() {
        parts.build(lowest, before).map_err(|error| vec![error])
    } else {
        Err(parts.errors)
    }
}

/// Reads the same files as those of `before` again, and builds its successor, which keeps whatever of it cannot be
/// replaced: an identity, an answer of OCSP, the authorities of clients. Returns also what the log should say, as
/// [`read_server`] does, and the errors of files that cannot be read or used.
///
/// There is no server if none can be built; the errors say why.
pub fn read_server_again(
    files: &[IdentityFiles],
    lowest: Version,
    clients: Option<&ClientRule>,
    before: &ServerTls,
    now: SystemTime,
) -> (Option<(ServerTls, Vec<Remark>)>, Vec<FileError>) {
    let mut parts = Parts::read(files, clients, Some(before), now);
    let mut errors = std::mem::take(&mut parts.errors);
    let built = parts.is_complete.then(|| parts.build(lowest, Some(before)));
    let server = built.transpose().unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    (server, errors)
}

/// The parts of a server. For a part that cannot be read or used stands that of its predecessor.
struct Parts {
    identities: Vec<Identity>,
    clients: Option<Arc<ClientVerifier>>,
    remarks: Vec<Remark>,
    errors: Vec<FileError>,
    /// False if a part is missing, because the predecessor has none either.
    is_complete: bool,
}

impl Parts {
    fn read(
        files: &[IdentityFiles],
        clients: Option<&ClientRule>,
        before: Option<&ServerTls>,
        now: SystemTime,
    ) -> Self {
        let (mut identities, mut remarks, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (number, files) in files.iter().enumerate() {
            let identity = match read_identity(files) {
                Ok((identity, remark)) => {
                    remarks.extend(remark);
                    Some(identity)
                }
                Err(found) => {
                    errors.extend(found);
                    before
                        .and_then(|before| before.identities().nth(number))
                        .map(Identity::without_answer)
                }
            };
            if let Some(mut identity) = identity {
                remarks.extend(staple(&mut identity, before, now).err());
                identities.push(identity);
            }
        }
        let verifier = clients.and_then(|rule| match read_verifier(rule) {
            Ok(verifier) => Some(Arc::new(verifier)),
            Err(error) => {
                errors.push(error);
                before.and_then(ServerTls::clients).cloned()
            }
        });
        Self {
            is_complete: identities.len() == files.len() && verifier.is_some() == clients.is_some(),
            identities,
            clients: verifier,
            remarks,
            errors,
        }
    }

    fn build(self, lowest: Version, before: Option<&ServerTls>) -> Result<(ServerTls, Vec<Remark>), FileError> {
        let missing = || FileError::new("TLS needs a certificate", "name its file and the file of its key");
        let choice = Choice::new(self.identities).ok_or_else(missing)?;
        let server = ServerTls::build(choice, lowest, self.clients, before).map_err(|fault| unusable(&fault))?;
        Ok((server, self.remarks))
    }
}

fn read_verifier(rule: &ClientRule) -> Result<ClientVerifier, FileError> {
    let roots = read_authorities(&rule.authorities)?;
    ClientVerifier::new(roots, rule.subjects.clone()).map_err(|fault| unusable(&fault))
}

/// Reads the authorities that a client trusts, those of the system if `authorities` is absent, and the identity that it
/// shows, and builds it. Returns with it what the log should say about the files at the moment `now`.
///
/// # Errors
/// Files that cannot be read or used: an error for each.
pub fn read_client(
    authorities: Option<&Path>,
    identity: Option<&IdentityFiles>,
    now: SystemTime,
) -> Result<(ClientTls, Vec<Remark>), Vec<FileError>> {
    let roots = match authorities {
        Some(file) => read_authorities(file),
        None => system_authorities(),
    };
    let identity = identity.map(read_identity).transpose();
    let (roots, identity) = match (roots, identity) {
        (Ok(roots), Ok(identity)) => (roots, identity),
        (roots, identity) => {
            let others = identity.err().unwrap_or_default();
            return Err(roots.err().into_iter().chain(others).collect());
        }
    };
    let (identity, remark) = identity.unzip();
    let on_end = identity.as_ref().and_then(|identity| remark_on_end(identity, now));
    match ClientTls::build(roots, identity.as_ref()) {
        Ok(client) => Ok((client, remark.flatten().into_iter().chain(on_end).collect())),
        Err(fault) => Err(vec![unusable(&fault)]),
    }
}

fn unusable(fault: &Fault) -> FileError {
    FileError {
        is_passing: true,
        ..FileError::new(format!("TLS cannot be used: {fault}"), "look at the machine")
    }
}

/// Reads the certificates of the authorities that are trusted.
///
/// # Errors
/// The file cannot be read, has no certificate, or has one that is of no use.
pub fn read_authorities(file: &Path) -> Result<RootCertStore, FileError> {
    let (bytes, _) = read(Part::Authority, file)?;
    let wrong = |mistake| mistake_in_words(Part::Authority, &mistake, file);
    let mut roots = RootCertStore::empty();
    for certificate in certificates_from_pem(&bytes).map_err(wrong)? {
        let added = roots.add(certificate);
        added.map_err(|error| wrong(Mistake::Malformed(format!("it is of no use for TLS ({error})"))))?;
    }
    Ok(roots)
}

/// Reads the certificates of the authorities that the system trusts, from the places that OpenSSL knows. One that is of
/// no use is left out, for the operator has not chosen it.
///
/// # Errors
/// There are none.
fn system_authorities() -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(FileError::new(
            "the system has no CA certificates",
            "install its package ca-certificates, or name a file of them",
        ));
    }
    Ok(roots)
}

/// Reads a certificate and its key. Returns with them what the log should say: that others can read the key.
///
/// # Errors
/// A file cannot be read or used. Both files are looked at, so there may be an error for each.
fn read_identity(files: &IdentityFiles) -> Result<(Identity, Option<Remark>), Vec<FileError>> {
    let IdentityFiles { certificate, key } = files;
    let (certificates, keys) = (read(Part::Certificate, certificate), read(Part::Key, key));
    let ((certificates, _), (keys, metadata)) = match (certificates, keys) {
        (Ok(certificates), Ok(keys)) => (certificates, keys),
        // With one file for both, there is one error.
        (Err(error), Err(_)) if certificate == key => return Err(vec![error]),
        (certificates, keys) => return Err(certificates.err().into_iter().chain(keys.err()).collect()),
    };
    match Identity::from_pem(certificate, &certificates, &keys) {
        Ok(identity) => Ok((identity, remark_on_mode(key, &metadata))),
        Err(wrong) => Err(vec![in_words(&wrong, files)]),
    }
}

/// Returns the name of the file that may have the answer of OCSP for a certificate: `a.pem.ocsp` for `a.pem`.
#[must_use]
pub fn answer_file(certificate: &Path) -> PathBuf {
    let mut file = certificate.as_os_str().to_owned();
    file.push(".ocsp");
    file.into()
}

/// Adds the answer of OCSP to a certificate, if there is a file with one. One that is of no use leaves the answer that
/// the predecessor sends along with this certificate, unless it says that the certificate is not good.
///
/// # Errors
/// The remark that the answer is of no use. The certificate is as good as without it.
fn staple(identity: &mut Identity, before: Option<&ServerTls>, now: SystemTime) -> Result<(), Remark> {
    let file = answer_file(identity.file());
    let mut earlier = before.into_iter().flat_map(ServerTls::identities);
    let earlier = earlier.find(|earlier| earlier.has_same_chain(identity));
    let (reason, is_verdict) = match regular_file::read(&file, ANSWER) {
        Ok((answer, _)) => {
            if let Some(earlier) = earlier.filter(|earlier| earlier.answer() == Some(&*answer)) {
                // If it has ended, the log has said so.
                identity.keep_answer(earlier);
                return Ok(());
            }
            match identity.staple(answer, now) {
                Ok(()) => return Ok(()),
                Err(reason) => (reason.to_string(), reason == Useless::NotGood),
            }
        }
        Err(Refusal { is_missing: true, .. }) => return Ok(()),
        Err(Refusal { cause, .. }) => (cause, false),
    };
    let is_good = |earlier: &&Identity| earlier.answer_until().is_some_and(|until| now <= until);
    let fate = match earlier.filter(is_good) {
        Some(earlier) if !is_verdict => {
            identity.keep_answer(earlier);
            "is refused and the old one stays"
        }
        _ => "is not sent along",
    };
    Err(Remark {
        level: Level::Warn,
        text: format!("OCSP answer {} {fate}: {reason}", file.display()),
    })
}

/// The part that a file has in TLS.
#[derive(Debug, Clone, Copy)]
enum Part {
    Certificate,
    Authority,
    Key,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Authority => "CA certificate",
            Self::Key => "key",
        })
    }
}

fn read(part: Part, file: &Path) -> Result<(Vec<u8>, Metadata), FileError> {
    regular_file::read(file, PEM).map_err(|refusal| FileError {
        text: format!("cannot read {part} {}: {}", file.display(), refusal.cause),
        remedy: refusal.remedy.to_owned(),
        is_passing: refusal.is_passing,
    })
}

fn in_words(wrong: &Wrong, files: &IdentityFiles) -> FileError {
    let (certificate, key) = (files.certificate.display(), files.key.display());
    match wrong {
        Wrong::Certificate(mistake) => mistake_in_words(Part::Certificate, mistake, &files.certificate),
        Wrong::Key(mistake) => mistake_in_words(Part::Key, mistake, &files.key),
        Wrong::Pair => FileError::new(
            format!("key {key} does not belong to certificate {certificate}"),
            "name the key with which the certificate was requested",
        ),
        Wrong::Order => FileError::new(
            format!("key {key} belongs to a later certificate in {certificate}"),
            "put its certificate first in the file, and those of the authorities behind it",
        ),
    }
}

fn mistake_in_words(part: Part, mistake: &Mistake, file: &Path) -> FileError {
    let file = file.display();
    let tool = match part {
        Part::Certificate | Part::Authority => "x509",
        Part::Key => "pkey",
    };
    match mistake {
        Mistake::Missing => FileError::new(
            format!("there is no {part} in {file}"),
            format!("name the file in PEM that has the {part}"),
        ),
        Mistake::Binary => FileError::new(
            format!("{part} {file} is in DER and not in PEM"),
            format!("convert it with openssl {tool} -inform DER -in {file} -out NEW_FILE"),
        ),
        Mistake::Encrypted => FileError::new(
            format!("{part} {file} is encrypted"),
            format!("write it without its password with openssl {tool} -in {file} -out NEW_FILE"),
        ),
        Mistake::Version1 => FileError::new(
            format!("{part} {file} is of version 1 and has no extensions"),
            ISSUE_WITH_EXTENSIONS,
        ),
        Mistake::Malformed(reason) => FileError::new(
            format!("{part} {file} cannot be used: {reason}"),
            format!("name the file that was issued as the {part}"),
        ),
    }
}

fn remark_on_mode(key: &Path, metadata: &Metadata) -> Option<Remark> {
    let is_own_group = is_own_group(metadata.gid());
    let readers = others_that_may(metadata.mode(), is_own_group)?;
    Some(Remark {
        level: Level::Warn,
        text: format!("key {0} can be {readers}; chmod 0600 {0}", key.display()),
    })
}

/// Returns what others than the owner may do with a file of this mode. The group of the daemon itself may read it.
const fn others_that_may(mode: u32, is_own_group: bool) -> Option<&'static str> {
    match (mode & 0o022, mode & 0o044) {
        (0, 0) => None,
        (0, 0o040) if is_own_group => None,
        (0, _) => Some("read by other users"),
        _ => Some("replaced by other users"),
    }
}

fn is_own_group(group: u32) -> bool {
    let groups = getgroups().unwrap_or_default();
    getegid().as_raw() == group || groups.iter().any(|own| own.as_raw() == group)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::super::ocsp::tests::{good, revoked, until};
    use super::super::scaffold::Authority;
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// A folder with a certificate, `a.pem`, and its key, `a.key`.
    fn folder() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = Authority::new().certify_pem(&["a"]);
        write(&folder, "a.pem", certificate);
        write(&folder, "a.key", key);
        folder
    }

    fn write(folder: &TempDir, name: &str, contents: impl AsRef<[u8]>) {
        let path = folder.path().join(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    fn files(folder: &TempDir, certificate: &str, key: &str) -> IdentityFiles {
        IdentityFiles {
            certificate: folder.path().join(certificate),
            key: folder.path().join(key),
        }
    }

    /// The outcome in words, without the name of the folder.
    fn outcome(folder: &TempDir, names: &[(&str, &str)]) -> Result<Vec<Remark>, Vec<String>> {
        let files: Vec<_> = names
            .iter()
            .map(|(certificate, key)| files(folder, certificate, key))
            .collect();
        let folder = format!("{}/", folder.path().display());
        let read = read_server(&files, Version::V1_2, None, None, SystemTime::now());
        read.map(|(_, remarks)| remarks).map_err(|errors| {
            errors
                .iter()
                .map(|error| error.to_string().replace(&folder, ""))
                .collect()
        })
    }

    #[test]
    fn the_files_of_a_server_are_read() {
        let folder = folder();
        assert_eq!(outcome(&folder, &[("a.pem", "a.key")]), Ok(Vec::new()));
        let one_file = ["a.key", "a.pem"].map(|name| fs::read_to_string(folder.path().join(name)).unwrap());
        write(&folder, "both.pem", one_file.concat());
        assert_eq!(
            outcome(&folder, &[("both.pem", "both.pem"), ("a.pem", "a.key")]),
            Ok(Vec::new())
        );
    }

    #[test]
    fn every_file_with_a_mistake_is_told() {
        let folder = folder();
        fs::create_dir(folder.path().join("d")).unwrap();
        write(&folder, "big", vec![0; 1024 * 1024 + 1]);
        let missing = "No such file or directory; check the path and the permissions";
        let pairs = [
            ("none.pem", "none.key"),
            ("a.pem", "d"),
            ("big", "a.key"),
            ("one", "one"),
            ("a.pem", "a.key"),
        ];
        assert_eq!(
            outcome(&folder, &pairs),
            Err(vec![
                format!("cannot read certificate none.pem: {missing}"),
                format!("cannot read key none.key: {missing}"),
                "cannot read key d: it is a directory; name the file in it".to_owned(),
                "cannot read certificate big: it is larger than 1 MiB; name a file of certificates or a key, in PEM"
                    .to_owned(),
                format!("cannot read certificate one: {missing}"),
            ])
        );
        let none = "TLS needs a certificate; name its file and the file of its key".to_owned();
        assert_eq!(outcome(&folder, &[]), Err(vec![none]));
    }

    #[test]
    fn a_file_of_no_use_leaves_what_the_predecessor_has_of_it() {
        let folder = folder();
        write(&folder, "ca", Authority::new().certificate.pem());
        number(&folder, 5);
        let files = [files(&folder, "a.pem", "a.key"), files(&folder, "b.pem", "b.pem")];
        let rule = ClientRule {
            authorities: folder.path().join("ca"),
            subjects: Subjects::default(),
        };
        let now = SystemTime::now();
        let read = |rule| read_server(&files, Version::V1_2, rule, None, now).unwrap().0;
        let (first, open) = (read(Some(&rule)), read(None));
        write(&folder, "a.key", "nonsense");
        write(&folder, "ca", "nonsense");
        number(&folder, 6);
        let again = |before| read_server_again(&files, Version::V1_2, Some(&rule), before, now);
        let (server, errors) = again(&first);
        let (server, _) = server.unwrap();
        assert_eq!(errors.len(), 2);
        let stays = server
            .identities()
            .zip(first.identities())
            .map(|(new, old)| new.has_same_chain(old));
        assert_eq!(stays.collect::<Vec<_>>(), [true, false]);
        assert!(server.clients().is_some() && server.has_same_rule(&first));
        let (server, errors) = again(&open);
        assert!(server.is_none(), "a rule that cannot be held must not be left out");
        assert_eq!(errors.len(), 2);
    }

    #[test]
    fn a_file_of_no_use_is_told_with_the_remedy() {
        let folder = folder();
        let authority = Authority::new();
        let (certificate, key) = authority.certify_pem(&["a"]);
        write(&folder, "b.key", &key);
        write(&folder, "b.pem", authority.certificate.pem() + &certificate);
        write(&folder, "a.der", authority.certificate.der());
        write(&folder, "encrypted", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
        write(&folder, "cut", &certificate[..100]);
        for (certificate, key, expected) in [
            (
                "a.pem",
                "b.key",
                "key b.key does not belong to certificate a.pem; name the key with which the certificate was requested",
            ),
            (
                "b.pem",
                "b.key",
                "key b.key belongs to a later certificate in b.pem; put its certificate first in the file, and those \
                 of the authorities behind it",
            ),
            (
                "a.key",
                "a.key",
                "there is no certificate in a.key; name the file in PEM that has the certificate",
            ),
            (
                "a.pem",
                "a.pem",
                "there is no key in a.pem; name the file in PEM that has the key",
            ),
            (
                "a.der",
                "a.key",
                "certificate a.der is in DER and not in PEM; convert it with openssl x509 -inform DER -in a.der -out \
                 NEW_FILE",
            ),
            (
                "a.pem",
                "a.der",
                "key a.der is in DER and not in PEM; convert it with openssl pkey -inform DER -in a.der -out NEW_FILE",
            ),
            (
                "a.pem",
                "encrypted",
                "key encrypted is encrypted; write it without its password with openssl pkey -in encrypted -out \
                 NEW_FILE",
            ),
            (
                "cut",
                "a.key",
                "certificate cut cannot be used: the end of a section is missing; name the file that was issued as the \
                 certificate",
            ),
        ] {
            assert_eq!(outcome(&folder, &[(certificate, key)]), Err(vec![expected.to_owned()]));
        }
    }

    /// The errors of a client's files in words, without the name of the folder.
    fn client(folder: &TempDir, authorities: Option<&str>, identity: Option<(&str, &str)>) -> Vec<String> {
        let authorities = authorities.map(|file| folder.path().join(file));
        let identity = identity.map(|(certificate, key)| files(folder, certificate, key));
        let read = read_client(authorities.as_deref(), identity.as_ref(), SystemTime::now());
        let errors = read.err().unwrap_or_default();
        let folder = format!("{}/", folder.path().display());
        errors
            .iter()
            .map(|error| error.to_string().replace(&folder, ""))
            .collect()
    }

    #[test]
    fn the_files_of_a_client_are_read() {
        let folder = folder();
        let pair = Some(("a.pem", "a.key"));
        assert_eq!(client(&folder, Some("a.pem"), pair), [""; 0]);
        assert_eq!(client(&folder, Some("a.pem"), None), [""; 0]);
        assert_eq!(
            client(&folder, Some("none"), Some(("a.pem", "none.key"))),
            [
                "cannot read CA certificate none: No such file or directory; check the path and the permissions",
                "cannot read key none.key: No such file or directory; check the path and the permissions",
            ]
        );
        let other = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let good = fs::read_to_string(folder.path().join("a.pem")).unwrap();
        write(&folder, "other", good + other);
        let errors = client(&folder, Some("other"), pair);
        let expected = "CA certificate other cannot be used: it is of no use for TLS (";
        assert!(
            matches!(&errors[..], [error] if error.starts_with(expected)),
            "{errors:?}"
        );
        assert_eq!(
            client(&folder, Some("a.key"), pair),
            ["there is no CA certificate in a.key; name the file in PEM that has the CA certificate"]
        );
    }

    #[test]
    fn without_a_file_the_system_says_which_authorities_are_trusted() {
        let none = "the system has no CA certificates; install its package ca-certificates, or name a file of them";
        let errors = client(&folder(), None, None);
        assert!(errors.is_empty() || errors == [none], "{errors:?}");
    }

    #[test]
    fn a_key_that_others_can_read_is_remarked_on() {
        let folder = folder();
        let key = folder.path().join("a.key");
        fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
        let expected = Remark {
            level: Level::Warn,
            text: format!("key {0} can be read by other users; chmod 0600 {0}", key.display()),
        };
        assert_eq!(outcome(&folder, &[("a.pem", "a.key")]), Ok(vec![expected]));
        // The group of a new file is one of this process.
        fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(outcome(&folder, &[("a.pem", "a.key")]), Ok(Vec::new()));
    }

    /// Writes a certificate with this serial number, and its key, to `b.pem`.
    fn number(folder: &TempDir, serial: u64) {
        let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        params.serial_number = Some(serial.into());
        let (certificate, key) = Authority::new().sign_pem(&params, &rcgen::KeyPair::generate().unwrap());
        write(folder, "b.pem", certificate + &key);
    }

    fn server_of_b(folder: &TempDir, before: Option<&ServerTls>, now: SystemTime) -> (ServerTls, Vec<Remark>) {
        read_server(&[files(folder, "b.pem", "b.pem")], Version::V1_2, None, before, now).unwrap()
    }

    fn is_stapled(server: &ServerTls, now: SystemTime) -> bool {
        let mut identities = server.identities();
        identities.all(|identity| identity.certified(now).ocsp.is_some())
    }

    #[test]
    fn an_answer_of_ocsp_is_found_beside_its_certificate() {
        let folder = folder();
        number(&folder, 5);
        let now = until();
        let read = |now| {
            let (server, remarks) = server_of_b(&folder, None, now);
            (is_stapled(&server, now), remarks)
        };
        let useless = |reason| Remark {
            level: Level::Warn,
            text: format!(
                "OCSP answer {}/b.pem.ocsp is not sent along: {reason}",
                folder.path().display()
            ),
        };
        assert_eq!(read(now), (false, Vec::new()));
        write(&folder, "b.pem.ocsp", good(&[5]));
        assert_eq!(read(now), (true, Vec::new()));
        assert_eq!(read(now + DAY), (false, vec![useless("it is too old")]));
        write(&folder, "b.pem.ocsp", good(&[6]));
        assert_eq!(read(now), (false, vec![useless("it is about another certificate")]));
        fs::remove_file(folder.path().join("b.pem.ocsp")).unwrap();
        fs::create_dir(folder.path().join("b.pem.ocsp")).unwrap();
        assert_eq!(read(now), (false, vec![useless("it is a directory")]));
    }

    #[test]
    fn the_mode_of_a_key_decides() {
        let (read, replaced) = (Some("read by other users"), Some("replaced by other users"));
        for (mode, is_own_group, expected) in [
            (0o100_600, false, None),
            (0o100_400, false, None),
            (0o100_640, true, None),
            (0o100_640, false, read),
            (0o100_604, true, read),
            (0o100_644, true, read),
            (0o100_660, true, replaced),
            (0o100_602, true, replaced),
            (0o100_666, false, replaced),
        ] {
            assert_eq!(others_that_may(mode, is_own_group), expected, "{mode:o}");
        }
    }

    #[test]
    fn an_answer_of_no_use_leaves_the_old_one_as_long_as_that_is_good() {
        let folder = folder();
        number(&folder, 5);
        write(&folder, "b.pem.ocsp", good(&[5]));
        let now = until();
        let (first, _) = server_of_b(&folder, None, now);
        let read = |now| {
            let (server, remarks) = server_of_b(&folder, Some(&first), now);
            let texts = remarks.into_iter().map(|Remark { text, .. }| {
                let (_, text) = text.split_once("b.pem.ocsp ").unwrap();
                text.to_owned()
            });
            (is_stapled(&server, now), texts.collect::<Vec<_>>())
        };
        for (answer, reason) in [
            (b"nonsense".to_vec(), "it is no answer of OCSP in DER"),
            (good(&[6]), "it is about another certificate"),
        ] {
            write(&folder, "b.pem.ocsp", answer);
            let expected = format!("is refused and the old one stays: {reason}");
            assert_eq!(read(now), (true, vec![expected]));
            assert_eq!(read(now + DAY), (false, vec![format!("is not sent along: {reason}")]));
        }
        write(&folder, "b.pem.ocsp", revoked(&[5]));
        let expected = "is not sent along: it does not say that the certificate is good";
        assert_eq!(read(now), (false, vec![expected.to_owned()]));
        fs::remove_file(folder.path().join("b.pem.ocsp")).unwrap();
        assert_eq!(read(now), (false, Vec::new()));
        write(&folder, "b.pem.ocsp", good(&[5]));
        assert_eq!(read(now + DAY), (false, Vec::new()), "its end is no matter of reading");
        number(&folder, 6);
        let expected = "is not sent along: it is about another certificate";
        assert_eq!(
            read(now),
            (false, vec![expected.to_owned()]),
            "the old one is about the old certificate"
        );
    }
}
