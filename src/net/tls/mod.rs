//! TLS 1.2 and 1.3 on both sides of a connection, by rustls.
//!
//! Before the first connection, and when they have changed, [`files`] reads the certificates and the keys. A certificate
//! with its key is an [`identity`]; its [`names`] say which host or person it is for, and an answer of [`ocsp`] that it
//! is not revoked; [`expiry`] is the end of both. The
//! identities of a door become its [`server`], which chooses one for each client. A program that connects to a door has a
//! [`client`] instead, with the authorities that it trusts. A server may ask its clients for certificates as well: the
//! [`verifier`] judges them, with a list of [`subjects`].
//!
//! The life of a connection: [`Engine`](engine::Engine) gets the bytes of the peer, makes the handshake, and says what
//! to send back. When the handshake is over, it knows what was [`Established`], and from then on it decrypts what comes
//! and encrypts what goes, until each side has said its end. [`transport`] joins it to a socket, and a [`meter`]
//! counts the connections that go wrong. A [`signature`] with a slow key is made elsewhere than the rest of its handshake.
//! [`provider`] names the cryptography below it, and [`error`] the ways in which all this fails.
//!
//! The invariants: whatever a peer sends has a bound in memory. The end of a stream is believed only if the peer has
//! said it by TLS (close_notify): any other end may be the work of a third party. A fault ends the connection, and
//! nothing that comes behind it is looked at.
//!
//! Deadlines and the decision which client may connect do not belong here.

pub mod choice;
pub mod client;
pub mod engine;
pub mod error;
pub mod expiry;
pub mod files;
pub mod identity;
pub mod meter;
pub mod names;
pub mod ocsp;
pub mod provider;
mod records;
pub mod server;
pub mod signature;
pub mod subjects;
pub mod transport;
pub mod verifier;

use std::fmt;

#[cfg(test)]
pub(super) mod scaffold;

/// A version of TLS. Older ones are spoken by neither side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2, RFC 5246.
    V1_2,
    /// TLS 1.3, RFC 8446.
    V1_3,
}

/// Writes the version as openssl and HAProxy do.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        })
    }
}

/// The most bytes of a subject in a log line.
const SHOWN: usize = 256;

/// The outcome of a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Established {
    /// The version that both sides speak.
    pub version: Version,
    /// On a server, the subject of the certificate that the client has shown, in the form of RFC 4514. `None` if it has
    /// shown none, and a server that asks for none gets none.
    pub subject: Option<String>,
    /// True if the handshake has resumed an earlier session: no certificate was looked at then.
    pub is_resumed: bool,
}

/// The outcome as it stands in log lines, of bounded length.
impl fmt::Display for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.version.fmt(f)?;
        match &self.subject {
            Some(subject) if subject.len() <= SHOWN => write!(f, ", subject {subject:?}"),
            Some(subject) => {
                let shown = (0..=SHOWN).rev().find_map(|end| subject.get(..end));
                write!(f, ", subject {:?}...", shown.unwrap_or_default())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_shown_escaped_and_cut() {
        let shown = |subject: &str| {
            let established = Established {
                version: Version::V1_2,
                subject: Some(subject.to_owned()),
                is_resumed: false,
            };
            established.to_string()
        };
        assert_eq!(shown("CN=a"), r#"TLSv1.2, subject "CN=a""#);
        let forged = shown("CN=a\"\n\u{202e}main: ready");
        assert_eq!(forged, r#"TLSv1.2, subject "CN=a\"\n\u{202e}main: ready""#);
        let exact = "x".repeat(256);
        assert_eq!(shown(&exact), format!("TLSv1.2, subject {exact:?}"));
        assert_eq!(shown(&format!("{exact}y")), format!("TLSv1.2, subject {exact:?}..."));
        let wide = "\u{e9}".repeat(200);
        let cut = "\u{e9}".repeat(128);
        assert_eq!(shown(&wide), format!("TLSv1.2, subject {cut:?}..."));
    }
}
