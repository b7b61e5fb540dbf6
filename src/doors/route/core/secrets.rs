//! The secrets by which services and their tunnel clients find each other, and the names of the services that have one.
//!
//! A secret is looked up by a hash with a key of the process, and compared in a time that tells
//! nothing of its bytes: the answers to guesses tell only that they are wrong.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::hint::black_box;
use std::sync::Arc;

/// The longest secret in bytes.
pub const LONGEST_SECRET: usize = 4_096;

/// The secret by which a service and its tunnel clients find each other. It is never shown, not even for debugging, and
/// the time of a comparison tells nothing but the lengths.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Returns the secret with these bytes: 1 to [`LONGEST_SECRET`], or `None`.
    pub fn new(bytes: &[u8]) -> Option<Secret> {
        (1..=LONGEST_SECRET)
            .contains(&bytes.len())
            .then(|| Secret(bytes.into()))
    }

    /// Returns the bytes, to be told to another process of this program.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        let difference = pairs.fold(0, |all, (one, other)| black_box(all | (one ^ other)));
        self.0.len() == other.0.len() && difference == 0
    }
}

impl Eq for Secret {}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The tunnel clients of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The secret that they present.
    pub secret: Secret,
    /// True if the one that has come last serves alone, and the others do not.
    pub takes_newest_alone: bool,
}

/// The names of the services of a table that each secret is of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// No set is empty.
    names: HashMap<Secret, BTreeSet<Arc<str>>>,
}

impl Secrets {
    /// Adds the service of this name, which has these secrets.
    pub(super) fn add<'s>(&mut self, name: &Arc<str>, secrets: impl Iterator<Item = &'s Secret>) {
        for secret in secrets {
            let names = self.names.entry(secret.clone()).or_default();
            names.insert(Arc::clone(name));
        }
    }

    /// Removes the service of this name, which has had these secrets.
    pub(super) fn remove<'s>(&mut self, name: &Arc<str>, secrets: impl Iterator<Item = &'s Secret>) {
        for secret in secrets {
            if let Some(names) = self.names.get_mut(secret) {
                names.remove(name);
                if names.is_empty() {
                    self.names.remove(secret);
                }
            }
        }
    }

    /// Returns the names of the services with this secret, of which there is at least one; or `None`.
    pub fn names(&self, secret: &Secret) -> Option<&BTreeSet<Arc<str>>> {
        self.names.get(secret)
    }

    /// Returns true if no service has a secret.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_secret_has_bytes_and_is_not_shown() {
        assert_eq!(Secret::new(&[]), None);
        assert_eq!(Secret::new(&[7; LONGEST_SECRET + 1]), None);
        assert_eq!(format!("{:?}", secret("hidden")), "***");
    }

    #[test]
    fn a_secret_is_known_as_long_as_a_service_has_it() {
        let (mut secrets, names) = (Secrets::default(), ["a", "b"].map(Arc::from));
        for name in &names {
            secrets.add(name, [secret("s")].iter());
        }
        assert_eq!(secrets.names(&secret("s")).map(BTreeSet::len), Some(2));
        assert_eq!(secrets.names(&secret("t")), None);
        for name in &names {
            assert!(!secrets.is_empty());
            secrets.remove(name, [secret("s"), secret("t")].iter());
        }
        assert!(secrets.is_empty());
    }

    proptest! {
        #[test]
        fn two_secrets_are_one_if_their_bytes_are(one in "[ab]{1,4}", other in "[ab]{1,4}") {
            prop_assert_eq!(secret(&one) == secret(&other), one == other);
        }
    }
}
