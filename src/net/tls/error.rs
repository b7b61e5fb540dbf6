//! The ways in which a TLS connection fails, in a sentence each, which says which side has to change something.

use std::fmt;
use std::io::{self, ErrorKind};

use rustls::{AlertDescription, CertificateError, Error, OtherError, PeerIncompatible};

use super::verifier::NotListed;

/// The largest number of names of a certificate that a sentence repeats.
const NAMES: usize = 3;

/// The name of an error of webpki, which rustls passes on without a variant of its own. It is the one that an operator
/// meets first: `openssl req -x509` makes certificates of authorities.
const USED_AS_SERVER: &str = "CaUsedAsEndEntity";

/// The same of another that an operator meets soon: `openssl x509 -req` makes certificates without extensions.
const VERSION_1: &str = "UnsupportedCertVersion";

/// The remedy for it.
pub(super) const ISSUE_WITH_EXTENSIONS: &str =
    "issue it again with -extfile FILE behind openssl x509 -req, and a line such as subjectAltName=DNS:NAME in FILE";

/// The reason why a TLS connection cannot go on. "It" is the peer in every sentence; its own words are escaped.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The first bytes, which are given here, begin no message of TLS.
    NotTls(Vec<u8>),
    /// The peer has sent more than this number of bytes that carry no data.
    TooLong(usize),
    /// The connection has ended before its handshake was over.
    Left {
        /// False if the peer has not sent one byte, as the checks of a load balancer do.
        has_begun: bool,
    },
    /// As many records were encrypted as the key may protect. Only TLS 1.2 cannot change it.
    KeyIsUsedUp,
    /// The peer has shown no certificate, although it was asked for one.
    NoCertificate,
    /// The peer's certificate is good, but none of its names, which are given here for a message, is on the list.
    NotListed(String),
    /// A fault that rustls has found.
    Tls(Error),
}

impl Fault {
    /// Returns true if each further handshake between these sides would fail as well, until something is changed on one
    /// of them: a certificate, a version, or whether TLS is spoken at all. False for a connection that was ended or
    /// garbled, as by a server that restarts.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::NotTls(_) | Self::NoCertificate | Self::NotListed(_) => true,
            Self::TooLong(_) | Self::Left { .. } | Self::KeyIsUsedUp => false,
            Self::Tls(Error::AlertReceived(alert)) => is_judgement(*alert),
            Self::Tls(error) => matches!(error, Error::InvalidCertificate(_) | Error::PeerIncompatible(_)),
        }
    }
}

/// Returns true if an alert says what the peer requires of this side, and false if it tells of a mishap.
const fn is_judgement(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity
            | AlertDescription::UnrecognisedName
    )
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(CertificateError::Other(OtherError(other))) if other.is::<NotListed>() => {
                Self::NotListed(
                    other
                        .downcast_ref()
                        .map(|NotListed(names)| names.clone())
                        .unwrap_or_default(),
                )
            }
            other => Self::Tls(other),
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(ErrorKind::InvalidData, fault)
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls(bytes) => write!(f, "it speaks no TLS: it begins with \"{}\"", bytes.escape_ascii()),
            Self::TooLong(limit) => write!(f, "it sends more than {limit} bytes without data"),
            Self::Left { has_begun: true } => f.write_str("it has closed the connection within the handshake"),
            Self::Left { has_begun: false } => f.write_str("it has closed the connection before the handshake"),
            Self::KeyIsUsedUp => f.write_str("the key of this connection has encrypted as much as TLS 1.2 allows"),
            Self::NoCertificate => f.write_str("it sends no certificate"),
            Self::NotListed(names) => write!(f, "its certificate is for {names}, which is not on the list"),
            Self::Tls(error) => write_error(error, f),
        }
    }
}

fn write_error(error: &Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        Error::InvalidCertificate(error) => write_certificate(error, f),
        Error::AlertReceived(alert) => write_alert(*alert, f),
        Error::PeerIncompatible(lack) => write_lack(lack, f),
        Error::DecryptError => f.write_str("it sends a record that cannot be decrypted"),
        Error::PeerSentOversizedRecord => f.write_str("it sends a record that is too long"),
        Error::InvalidMessage(message) => write!(f, "it sends a malformed message ({message:?})"),
        Error::PeerMisbehaved(how) => write!(f, "it breaks the rules of TLS ({how:?})"),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            f.write_str("it sends a message at the wrong time")
        }
        other => write!(f, "this side fails: {}", other.to_string().escape_debug()),
    }
}

fn write_certificate(error: &CertificateError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            f.write_str("its certificate has expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            f.write_str("its certificate is not valid yet")
        }
        CertificateError::Revoked => f.write_str("its certificate is revoked"),
        CertificateError::UnknownIssuer => f.write_str("its certificate comes from no authority that is trusted here"),
        // An authority of the same name may also have a key of another kind.
        CertificateError::BadSignature | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => f
            .write_str(
            "a signature does not fit: on its certificate, which then comes from another authority of the same name, or on its handshake",
        ),
        CertificateError::BadEncoding => f.write_str("its certificate is malformed"),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            f.write_str("its certificate is for another purpose")
        }
        CertificateError::NotValidForName => f.write_str("its certificate is for another name"),
        CertificateError::NotValidForNameContext { expected, presented } => {
            write!(f, "its certificate is not for {}", expected.to_str())?;
            for (number, name) in presented.iter().take(NAMES).enumerate() {
                let before = if number == 0 { ", but for" } else { "," };
                write!(f, "{before} {}", bare(name).escape_debug())?;
            }
            f.write_str(if presented.len() > NAMES { " and others" } else { "" })
        }
        CertificateError::Other(reason) if reason.0.to_string() == USED_AS_SERVER => f.write_str(
            "its certificate is that of an authority (CA:TRUE), which is for no server and no client; sign one with it, \
             or make this one with basicConstraints=CA:FALSE",
        ),
        error if is_version_1(error) => write!(
            f,
            "its certificate is of version 1 and has no extensions; {ISSUE_WITH_EXTENSIONS}"
        ),
        other => write!(f, "its certificate is refused: {}", other.to_string().escape_debug()),
    }
}

/// Returns true if the certificate has no extensions.
pub(super) fn is_version_1(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Other(reason) if reason.0.to_string() == VERSION_1)
}

/// The name within the form in which rustls presents one: `DnsName("a.example")`, `IpAddress(::1)`.
fn bare(name: &str) -> &str {
    name.split_once('(')
        .map_or(name, |(_, inner)| inner.trim_end_matches(')').trim_matches('"'))
}

/// An alert is the peer's judgement about this side.
fn write_alert(alert: AlertDescription, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let meaning = match alert {
        AlertDescription::UnknownCA => "it does not trust the authority of this side's certificate",
        AlertDescription::CertificateExpired => "this side's certificate has expired",
        AlertDescription::CertificateRevoked => "this side's certificate is revoked",
        AlertDescription::CertificateRequired => "it asks for a certificate",
        AlertDescription::DecryptError => {
            "it finds a signature that does not fit: on this side's certificate, if it trusts another authority of the \
             same name, or on this side's handshake"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => "it does not accept this side's certificate",
        AlertDescription::AccessDenied => "it does not admit this side",
        AlertDescription::ProtocolVersion => "it allows no version of TLS that this side does",
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "it accepts nothing that this side offers"
        }
        AlertDescription::UnrecognisedName => "it does not know the name that it was asked for",
        AlertDescription::CloseNotify | AlertDescription::UserCanceled => "it has given up the handshake",
        _ => "it has found a fault",
    };
    write!(f, "{meaning} (alert {alert:?})")
}

fn write_lack(lack: &PeerIncompatible, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match lack {
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            f.write_str("it offers no version of TLS that is allowed here")
        }
        // Clients of TLS 1.1 and before do not know this extension.
        PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
            f.write_str("it offers no version of TLS that is allowed here, or only signatures with SHA-1")
        }
        PeerIncompatible::NoCipherSuitesInCommon => f.write_str("it has no cipher suite in common with this side"),
        PeerIncompatible::NoKxGroupsInCommon => f.write_str("it has no key exchange in common with this side"),
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            f.write_str("it accepts no signature that this side's key can make")
        }
        other => write!(f, "it lacks what this side requires ({other:?})"),
    }
}
