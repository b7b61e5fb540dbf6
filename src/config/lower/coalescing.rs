//! The names that one certificate may cover, although they go to different servers.
//!
//! A client of HTTP/2 whose connection has shown a certificate with another name of the same address uses it for that
//! name as well (RFC 9113 §9.1.1). The router does not see these requests, so they come to the wrong server. It is not
//! known here which names a certificate has: names side by side, and the name above them, are suspected. Names whose
//! clients of HTTP/2 have no server by TLS are not: entries for other protocols, and services for HTTP alone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::config::quote::Quoted;
use crate::doors::route::options::{Pattern, Servers, Service, Table, Target, TunnelSecret, Way};

/// HTTP/2 over TLS, as clients offer it.
const HTTP_2: &[u8] = b"h2";

/// Names below one domain, or equal to it.
struct Group<'t> {
    /// The first of them, and the end of its clients of HTTP/2.
    first: &'t Service,
    end: End<'t>,
    is_told: bool,
}

/// The end of the clients of HTTP/2 that ask for a name.
#[derive(Clone, PartialEq)]
enum End<'t> {
    Servers(&'t Arc<Servers>),
    /// The tunnel clients with this secret, which may have several names.
    Tunnel(&'t TunnelSecret),
}

/// Finds names that one certificate may cover and that go to different servers. `names` are those of `table`, in the
/// order of the file. Returns the index of the second such name of a domain, and the warning, for each domain once. The
/// work is in proportion to the number of names.
#[must_use]
pub fn coalescing(table: &Table, names: &[Pattern]) -> Vec<(usize, String)> {
    let mut warnings = Vec::new();
    let mut groups: HashMap<&str, Group<'_>> = HashMap::new();
    for (index, pattern) in names.iter().enumerate() {
        let Some((service, end)) = table.get(pattern).and_then(|service| Some((&**service, end(service)?))) else {
            continue;
        };
        for domain in domains(pattern) {
            match groups.entry(domain) {
                Entry::Vacant(place) => {
                    let end = end.clone();
                    place.insert(Group {
                        first: service,
                        end,
                        is_told: false,
                    });
                }
                Entry::Occupied(mut group) => {
                    let group = group.get_mut();
                    if !group.is_told && group.end != end {
                        group.is_told = true;
                        warnings.push((index, warning(&group.first.name, &service.name)));
                    }
                }
            }
        }
    }
    warnings
}

/// Returns the end of the clients of HTTP/2 of a service; `None` if it has none for them.
fn end(service: &Service) -> Option<End<'_>> {
    let takes = |alpn: Option<&[u8]>| alpn.is_none_or(|protocol| protocol == HTTP_2);
    let rule = service.rules.iter().find(|rule| takes(rule.alpn.as_deref()))?;
    let way = if rule.tls.is_some() { Way::Http } else { Way::Tls };
    match &rule.target {
        // No door speaks HTTP/2.
        Target::Servers { .. } | Target::Door(_) => rule.servers(way).map(End::Servers),
        Target::Tunnel(tunnel) => Some(End::Tunnel(&tunnel.secret)),
    }
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
    use crate::config::units::Whole;
    use std::time::Duration;

    /// The pairs of which a table warns whose names have the servers behind them.
    fn warned(services: &[(&str, &str)]) -> Vec<(usize, String)> {
        let specs = services.iter().map(|(name, addr)| {
            let spec = ServiceSpec {
                addr: Some((*addr).to_owned()),
                ..ServiceSpec::default()
            };
            (*name, vec![spec])
        });
        warned_of(specs)
    }

    /// The same for services with these entries.
    fn warned_of<'n>(services: impl IntoIterator<Item = (&'n str, Vec<ServiceSpec>)>) -> Vec<(usize, String)> {
        let mut table = Table::default();
        let mut names = Vec::new();
        for (name, entries) in services {
            let defaults = ServiceDefaults {
                connect_timeout: Duration::from_secs(1),
                ..ServiceDefaults::default()
            };
            let pattern: Pattern = name.parse().unwrap();
            let rules = entries
                .iter()
                .map(|spec| service("a", spec, true, &defaults).unwrap().rule);
            table.insert(pattern.clone(), rules);
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

    /// An entry for a protocol, or for all, with a server for TLS, or one for HTTP alone.
    fn entry(alpn: Option<&str>, addr: &str, is_for_tls: bool) -> ServiceSpec {
        let port = Some(Whole(443));
        ServiceSpec {
            alpn: alpn.map(str::to_owned),
            addr: Some(addr.to_owned()),
            tls_port: port.filter(|_| is_for_tls),
            http_port: port.filter(|_| !is_for_tls),
            ..ServiceSpec::default()
        }
    }

    #[test]
    fn only_the_servers_of_clients_of_http_2_count() {
        let all = |addr: &str| entry(None, addr, true);
        let of = |protocol: &str, addr: &str| entry(Some(protocol), addr, true);
        for (one, other, is_warned) in [
            (vec![all("10.0.0.1")], vec![all("10.0.0.2")], true),
            (vec![all("10.0.0.1")], vec![of("h2", "10.0.0.2")], true),
            (vec![all("10.0.0.1")], vec![of("http/1.1", "10.0.0.2")], false),
            (
                vec![of("postgresql", "10.0.0.1")],
                vec![of("postgresql", "10.0.0.2")],
                false,
            ),
            (vec![all("10.0.0.1")], vec![entry(None, "10.0.0.2", false)], false),
            // The others of a name come by other protocols.
            (
                vec![of("h2", "10.0.0.1"), all("10.0.0.2")],
                vec![all("10.0.0.1")],
                false,
            ),
            (
                vec![of("http/1.1", "10.0.0.1"), all("10.0.0.2")],
                vec![all("10.0.0.1")],
                true,
            ),
        ] {
            let told = format!("{one:?} {other:?}");
            let found = warned_of([("www.example.org", one), ("api.example.org", other)]);
            assert_eq!(found.len(), usize::from(is_warned), "{told}");
        }
        let with_secret = |secret: &str| ServiceSpec {
            client_secret: Some(secret.into()),
            ..ServiceSpec::default()
        };
        let tunnel = with_secret("s");
        let through = |other| {
            warned_of([
                ("www.example.org", vec![tunnel.clone()]),
                ("api.example.org", vec![other]),
            ])
        };
        assert_eq!(through(all("10.0.0.1")).len(), 1);
        assert_eq!(through(with_secret("t")).len(), 1);
        assert_eq!(through(tunnel.clone()), []);
    }

    #[test]
    fn a_large_table_has_one_warning_for_each_domain() {
        let names: Vec<String> = (0..20_000)
            .map(|number| format!("n{number}.example{}.org", number % 100))
            .collect();
        let services = names.iter().enumerate().map(|(number, name)| {
            let addr = format!("10.0.{}.{}", number / 250, number % 250 + 1);
            (name.as_str(), vec![entry(None, &addr, true)])
        });
        assert_eq!(warned_of(services).len(), 100);
    }
}
