//! The names that one certificate may cover, although they go to different servers.
//!
//! A client of HTTP/2 whose connection has shown a certificate with another name of the same address uses it for that
//! name as well (RFC 9113 §9.1.1). The router does not see these requests, so they come to the wrong server. It is not
//! known here which names a certificate has: names side by side, and the name above them, are suspected.

use std::collections::HashMap;

use crate::config::quote::Quoted;
use crate::doors::route::options::{Pattern, Service, Table, Way};

/// Names below one domain, or equal to it.
struct Group {
    /// The index of the first of them.
    first: usize,
    is_told: bool,
}

/// Finds names that one certificate may cover and that go to different servers. `names` are those of `table`, in the
/// order of the file. Returns the index of the second such name of a domain, and the warning, for each domain once.
#[must_use]
pub fn coalescing(table: &Table, names: &[Pattern]) -> Vec<(usize, String)> {
    let mut warnings = Vec::new();
    let mut groups: HashMap<&str, Group> = HashMap::new();
    for (index, pattern) in names.iter().enumerate() {
        for domain in domains(pattern) {
            let group = groups.entry(domain).or_insert(Group {
                first: index,
                is_told: false,
            });
            let Some(first) = names.get(group.first).filter(|_| !group.is_told) else {
                continue;
            };
            if let (Some(one), Some(other)) = (table.get(first), table.get(pattern))
                && !has_same_servers(one, other)
            {
                group.is_told = true;
                warnings.push((index, warning(&one.name, &other.name)));
            }
        }
    }
    warnings
}

/// Returns the domains whose certificate may have the name: its own, and the one above it unless that is a registry's,
/// such as `org`.
fn domains(pattern: &Pattern) -> impl Iterator<Item = &str> {
    let (own, above) = match pattern {
        Pattern::Exact(name) => (Some(&**name), name.split_once('.').map(|(_, above)| above)),
        Pattern::Suffix(above) => (None, Some(&**above)),
        Pattern::CatchAll => (None, None),
    };
    own.into_iter().chain(above.filter(|above| above.contains('.')))
}

fn has_same_servers(one: &Service, other: &Service) -> bool {
    let servers = |service: &Service| -> Vec<_> {
        let rules = service.rules.iter();
        rules.map(|rule| rule.servers(Way::Tls).cloned()).collect()
    };
    servers(one) == servers(other)
}

fn warning(one: &str, other: &str) -> String {
    let (one, other) = (Quoted(one), Quoted(other));
    format!(
        "{one} and {other} go to different servers: if one certificate has both names, a client of HTTP/2 sends requests for \
         one over its connection to the other (coalescing); give each a certificate of its own, or let the servers answer 421 \
         to names that are not theirs"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::lower::{ServiceDefaults, service};
    use crate::config::spec::route::ServiceSpec;
    use std::time::Duration;

    /// The pairs of which a table warns whose names have the servers behind them.
    fn warned(services: &[(&str, &str)]) -> Vec<(usize, String)> {
        let mut table = Table::default();
        let mut names = Vec::new();
        for (name, addr) in services {
            let spec = ServiceSpec {
                addr: Some((*addr).to_owned()),
                ..ServiceSpec::default()
            };
            let defaults = ServiceDefaults {
                connect_timeout: Duration::from_secs(1),
                ..ServiceDefaults::default()
            };
            let pattern: Pattern = name.parse().unwrap();
            table.insert(pattern.clone(), [service("a", &spec, true, &defaults).unwrap().rule]);
            names.push(pattern);
        }
        coalescing(&table, &names)
    }

    #[test]
    fn names_side_by_side_with_different_servers_are_warned_of_once() {
        let found = warned(&[
            ("www.example.org", "10.0.0.1:443"),
            ("api.example.org", "10.0.0.2:443"),
            ("ftp.example.org", "10.0.0.3:443"),
            ("www.example.com", "10.0.0.4:443"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, 1);
        let begin = "`www.example.org` and `api.example.org` go to different servers: ";
        assert!(found[0].1.starts_with(begin), "{found:?}");
    }

    #[test]
    fn a_domain_and_the_star_below_it_are_beside_the_names_below_it() {
        for (one, other) in [
            ("example.org", "www.example.org"),
            ("www.example.org", "example.org"),
            ("*.example.org", "www.example.org"),
            ("*.example.org", "example.org"),
        ] {
            assert_eq!(
                warned(&[(one, "10.0.0.1:443"), (other, "10.0.0.2:443")]).len(),
                1,
                "{one} {other}"
            );
            assert_eq!(
                warned(&[(one, "10.0.0.1:443"), (other, "10.0.0.1:443")]),
                [],
                "{one} {other}"
            );
        }
    }

    #[test]
    fn names_that_no_certificate_has_together_are_not_warned_of() {
        let found = warned(&[
            ("a.org", "10.0.0.1:443"),
            ("b.org", "10.0.0.2:443"),
            ("*.com", "10.0.0.3:443"),
            ("c.com", "10.0.0.4:443"),
            ("www.a.b.org", "10.0.0.5:443"),
            ("CATCH_ALL", "10.0.0.6:443"),
        ]);
        assert_eq!(found, []);
    }
}
