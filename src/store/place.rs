//! The settings of a store: the place where it is, the way in, and how often it is read.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use super::entry::Secret;
use crate::net::addr::ConnectAddr;
use crate::net::tls::files::IdentityFiles;
use crate::regular_file::{self, Kind};

/// A store, and how it is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The place of the store.
    pub place: Place,
    /// The time between two full readings. Not zero.
    pub refresh: Duration,
    /// The file that keeps the last good table.
    pub cache: Option<PathBuf>,
}

/// The place of a store, and the way in. Two stores with equal places have the same services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The address. No abstract UNIX socket.
    pub address: ConnectAddr,
    /// The rules of TLS; `None` for a store that is spoken with in the clear. Only over TCP.
    pub tls: Option<StoreTls>,
    /// The user; `None` for the default one.
    pub user: Option<String>,
    /// The password, if one is asked for.
    pub password: Option<Password>,
    /// The number of the database.
    pub database: u32,
}

/// The files for TLS with a store. They are read with each connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreTls {
    /// The authorities of the store's certificate; `None` for the ones of the system.
    pub authorities: Option<PathBuf>,
    /// The certificate that the store is shown.
    pub identity: Option<IdentityFiles>,
}

/// The password of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// The password itself.
    Text(Secret),
    /// The file whose first line it is. Read with each connection.
    File(PathBuf),
}

/// A file with a password.
const PASSWORD: Kind = Kind {
    largest: 4_096,
    remedy: "write the password alone to it",
};

impl Password {
    /// Returns the password. Reads its file, which may take long.
    ///
    /// # Errors
    /// The file cannot be read, or has no password in its first line: a text with the remedy.
    pub fn read(&self) -> Result<Secret, String> {
        let path = match self {
            Password::Text(secret) => return Ok(secret.clone()),
            Password::File(path) => path,
        };
        let wrong = |cause: &str, remedy: &str| format!("{} is of no use: {cause}; {remedy}", path.display());
        let (bytes, _) = regular_file::read(path, PASSWORD).map_err(|refusal| wrong(&refusal.cause, refusal.remedy))?;
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let text = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok();
        text.and_then(Secret::new)
            .ok_or_else(|| wrong("its first line is no password", PASSWORD.remedy))
    }
}

/// The place in words for the log, which come behind "the store".
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if self.database != 0 {
            write!(f, " (database {})", self.database)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_file_is_the_password() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let password = Password::File(file.path().into());
        for (contents, expected) in [
            ("secret", Some("secret")),
            ("secret\r\nmore\n", Some("secret")),
            (" s p \n", Some(" s p ")),
            ("\nsecret", None),
            ("", None),
        ] {
            std::fs::write(file.path(), contents).unwrap();
            assert_eq!(
                password.read().ok().as_ref().map(Secret::reveal),
                expected,
                "{contents:?}"
            );
        }
        let missing = Password::File("/nowhere/password".into()).read().unwrap_err();
        assert!(missing.starts_with("/nowhere/password is of no use: "), "{missing}");
    }
}
