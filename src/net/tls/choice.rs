//! The certificate that a server shows to a client: chosen by the name that the client asks for (SNI) and by the
//! signatures that it can check.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::identity::Identity;

/// The identities of a server, in the order in which the operator has named them. There is at least one.
#[derive(Debug)]
pub struct Choice {
    first: Identity,
    others: Vec<Identity>,
}

/// The relation of an identity to the name asked for. The least one is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Exact,
    /// By a name that begins with `*.`.
    Wildcard,
    /// A client that asks for another name, or for none, is shown the first: the client decides if that is good enough.
    Other,
}

impl Choice {
    /// Returns the choice among these; `None` if there are none.
    #[must_use]
    pub fn new(identities: impl IntoIterator<Item = Identity>) -> Option<Self> {
        let mut identities = identities.into_iter();
        Some(Self {
            first: identities.next()?,
            others: identities.collect(),
        })
    }

    /// The identities, in their order.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Returns the best identity of which `can_sign` is true, else the best of all: rustls then finds
    /// the words for the reason. Among equals it is the first.
    fn choose(&self, name: Option<&str>, can_sign: impl Fn(&Identity) -> bool) -> &Identity {
        let rank = |identity: &&Identity| (!can_sign(identity), fit(identity.names().hosts(), name));
        self.identities().min_by_key(rank).unwrap_or(&self.first)
    }

    /// Returns the identity for the client of this hello.
    fn choose_for(&self, hello: &ClientHello<'_>) -> &Identity {
        let can_sign = |identity: &Identity| identity.can_sign(hello.signature_schemes());
        self.choose(hello.server_name(), can_sign)
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose_for(&hello).certified(SystemTime::now()))
    }
}

/// The same choice, but slow keys refuse to sign.
#[derive(Debug)]
pub(super) struct Reserving(pub(super) Arc<Choice>);

impl ResolvesServerCert for Reserving {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let identity = self.0.choose_for(&hello);
        Some(if identity.is_slow() {
            identity.reserved()
        } else {
            identity.certified(SystemTime::now())
        })
    }
}

fn fit(hosts: &[String], name: Option<&str>) -> Fit {
    let Some(name) = name else {
        return Fit::Other;
    };
    if hosts.iter().any(|host| host.eq_ignore_ascii_case(name)) {
        return Fit::Exact;
    }
    // The star stands for a whole label, and for one only (RFC 6125).
    let parent = name.split_once('.').map(|(_, parent)| parent);
    let covers = |host: &String| match (host.strip_prefix("*."), parent) {
        (Some(suffix), Some(parent)) => suffix.eq_ignore_ascii_case(parent),
        _ => false,
    };
    if hosts.iter().any(covers) {
        Fit::Wildcard
    } else {
        Fit::Other
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::scaffold::Authority;
    use super::*;

    /// A choice among certificates for these names, whose files are 0, 1, 2 ...
    fn among(names: &[&[&str]]) -> Choice {
        let authority = Authority::new();
        let identity = |(number, names): (usize, &&[&str])| {
            let (certificate, key) = authority.certify_pem(names);
            let file = number.to_string();
            Identity::from_pem(Path::new(&file), certificate.as_bytes(), key.as_bytes()).unwrap()
        };
        Choice::new(names.iter().enumerate().map(identity)).unwrap()
    }

    fn chosen(choice: &Choice, name: Option<&str>) -> String {
        choice.choose(name, |_| true).file().display().to_string()
    }

    #[test]
    fn the_name_asked_for_decides() {
        let choice = among(&[
            &["first.example"],
            &["*.example", "*.b.example"],
            &["a.example", "A2.example"],
            &["*.c.b.example", "exact.b.example"],
        ]);
        for (name, expected) in [
            (Some("first.example"), "0"),
            (Some("a.example"), "2"),
            (Some("A.EXAMPLE"), "2"),
            (Some("a2.example"), "2"),
            (Some("any.example"), "1"),
            (Some("any.b.example"), "1"),
            (Some("exact.b.example"), "3"),
            (Some("d.c.b.example"), "3"),
            // The star is one label, and not none.
            (Some("e.d.c.b.example"), "0"),
            (Some("c.b.example"), "1"),
            (Some("example"), "0"),
            (Some(".example"), "1"),
            (Some("*.example"), "1"),
            (Some("other"), "0"),
            (Some(""), "0"),
            (None, "0"),
        ] {
            assert_eq!(chosen(&choice, name), expected, "{name:?}");
        }
    }

    #[test]
    fn among_equals_the_first_with_a_key_of_use_is_taken() {
        let choice = among(&[&["other"], &["a"], &["a"], &["*.b"], &["x.b"]]);
        let chosen = |name, useless: &[&str]| {
            let can_sign = |identity: &Identity| !useless.iter().any(|file| Path::new(file) == identity.file());
            choice.choose(Some(name), can_sign).file().display().to_string()
        };
        assert_eq!(chosen("a", &[]), "1");
        assert_eq!(chosen("a", &["1"]), "2");
        assert_eq!(chosen("x.b", &["4"]), "3");
        assert_eq!(chosen("unknown", &["0"]), "1");
        assert_eq!(chosen("a", &["0", "1", "2", "3", "4"]), "1", "rustls finds the words");
    }

    #[test]
    fn there_is_no_choice_among_none() {
        assert!(Choice::new([]).is_none());
    }
}
