//! The services of a store as a table of the door.
//!
//! An entry has a name and its servers; the rest of its rule is that of the door. The rules of names are those of the
//! file, but for one entry a mistake costs that entry alone.

use std::net::Ipv6Addr;
use std::sync::Arc;

use super::core::secrets::{Secret, Tunnel};
use super::core::table::{Address, Balance, CATCH_ALL, Pattern, Rule, Server, Servers, Table, Target};
use crate::store::entry::{self, Entry};
use crate::store::faults::Faults;
use crate::store::follow::Made;
use crate::store::reading::Listing;

/// Makes the table of a listing. `rule` is that of each service but for its target.
pub(super) fn table(listing: &Listing, rule: &Rule) -> Made<Arc<Table>> {
    let (mut table, mut faults) = (Table::default(), Faults::default());
    for entry in &**listing {
        match pattern(&entry.name) {
            Ok(pattern) => {
                table.insert(pattern, [rule_of(entry, rule)]);
            }
            Err(fault) => faults.note(entry.name.clone(), fault),
        }
    }
    Made {
        table: Arc::new(table),
        faults,
    }
}

fn pattern(name: &str) -> Result<Pattern, String> {
    if name != CATCH_ALL && name.eq_ignore_ascii_case(CATCH_ALL) {
        return Err(format!("the service for all other names is written {CATCH_ALL}"));
    }
    let is_address = name.parse::<Ipv6Addr>().is_ok();
    if !is_address && name.contains([':', '/', '[']) {
        return Err("its name has a scheme, a port or a path".to_owned());
    }
    name.parse::<Pattern>().map_err(|error| error.to_string())
}

fn rule_of(entry: &Entry, rule: &Rule) -> Rule {
    let target = match &entry.target {
        entry::Target::Server {
            host,
            tls_port,
            http_port,
        } => Target::Servers {
            tls: tls_port.map(|port| server(host, port)),
            http: http_port.map(|port| server(host, port)),
        },
        // The reading of an entry has seen to its length.
        entry::Target::Tunnel(secret) => match Secret::new(secret.reveal().as_bytes()) {
            Some(secret) => Target::Tunnel(Tunnel {
                secret,
                takes_newest_alone: false,
            }),
            None => Target::Servers { tls: None, http: None },
        },
    };
    Rule { target, ..rule.clone() }
}

fn server(host: &str, port: u16) -> Arc<Servers> {
    let host = host.into();
    let server = Server {
        address: Address::Network { host, port },
        weight: 1,
    };
    Arc::new(Servers {
        list: [server].into(),
        balance: Balance::default(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::doors::route::core::table::{Source, Tables, Way};

    fn rule() -> Rule {
        Rule {
            alpn: None,
            tls: None,
            target: Target::Servers { tls: None, http: None },
            acme: None,
            redirects_to_https: true,
            judges_each_request: false,
            connect_timeout: Duration::from_secs(7),
            idle_timeout: None,
            send_proxy: None,
            check: None,
            program: None,
        }
    }

    fn made(entries: &[(&str, &str)]) -> Made<Arc<Table>> {
        let read = |(name, value): &(&str, &str)| Entry::read(name.as_bytes(), value.as_bytes()).unwrap();
        table(&entries.iter().map(read).collect(), &rule())
    }

    #[test]
    fn an_entry_has_its_servers_and_the_rest_of_the_door() {
        let made = made(&[
            ("WWW.example.", r#"{"addr":"a.example","tlsport":443,"httpport":80}"#),
            ("*.example", r#"{"addr":"10.0.0.5:8443"}"#),
            ("CATCH_ALL", r#"{"addr":"::1","httpport":80}"#),
        ]);
        assert_eq!((made.table.len(), made.faults.len()), (3, 0));
        let mut tables = Tables::default();
        _ = tables.replace(Source::Store, made.table);
        let servers = |name, way| {
            let decision = tables.decide(Some(name), |_| false, false).unwrap();
            assert!(decision.rule.redirects_to_https && decision.rule.connect_timeout.as_secs() == 7);
            decision
                .rule
                .servers(way)
                .map(|servers| servers.list[0].address.to_string())
        };
        assert_eq!(servers("www.example", Way::Tls).as_deref(), Some("a.example:443"));
        assert_eq!(servers("www.example", Way::Http).as_deref(), Some("a.example:80"));
        assert_eq!(servers("x.example", Way::Http).as_deref(), Some("10.0.0.5:8443"));
        assert_eq!(servers("other", Way::Tls), None);
        assert_eq!(servers("other", Way::Http).as_deref(), Some("[::1]:80"));
    }

    #[test]
    fn a_name_that_no_service_can_have_costs_its_entry() {
        let value = r#"{"addr":"10.0.0.5:443"}"#;
        let names = ["a.example", "a.*", "http://a", "a:443", "a..b", "catch_all", "::1"];
        let made = made(&names.map(|name| (name, value)));
        assert_eq!((made.table.len(), made.faults.len()), (2, 5));
    }

    #[test]
    fn a_service_with_a_secret_ends_in_a_tunnel() {
        let made = made(&[("a.example", r#"{"clientsecret":"TB2pb"}"#)]);
        let secret = Secret::new(b"TB2pb").unwrap();
        assert!(made.table.secrets().names(&secret).is_some());
        let service = made.table.services().next().unwrap();
        let takes_newest_alone = false;
        assert_eq!(
            service.rules[0].target,
            Target::Tunnel(Tunnel {
                secret,
                takes_newest_alone
            })
        );
    }
}
