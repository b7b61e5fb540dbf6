//! The words of `iotcpd route --explain`: which entry of a table decides about a client of TLS or HTTP, and why.
//!
//! The decision is that of [`Tables::decide`], which the door asks as well, and a request is read as the door reads one;
//! only the words are made here.

use std::fmt::Write;
use std::sync::Arc;

use super::core::head::{self, Head};
use super::core::name::Name;
use super::core::table::{
    ACME, Balance, Decision, Server, Servers, Source, Table, Tables, Target, Undecided, Way, Why,
};
use super::options::StoreOptions;
use super::stored;
use crate::store::cache;

/// The part of a ClientHello by which a table decides.
#[derive(Debug, Clone, Copy)]
pub struct Hello<'h> {
    /// The name that the client asks for, if it names one.
    pub name: Option<&'h str>,
    /// The protocols that it offers.
    pub protocols: &'h [String],
}

/// The part of a store that can be known without asking it.
#[derive(Debug, Default)]
pub struct Former {
    /// The table of the last run; empty if it is not known.
    table: Arc<Table>,
    /// A line about the store, which ends in a line feed; empty if there is no store.
    pub told: String,
}

/// Returns the names that a store had when its table was last kept in a file. Reads that file.
pub fn former(store: Option<&StoreOptions>) -> Former {
    let Some(StoreOptions { settings, rule }) = store else {
        return Former::default();
    };
    let place = &settings.place;
    let (table, looked_at) = match settings.cache.as_deref().map(|path| (path, cache::read(path))) {
        Some((path, Ok(Some(cached)))) => {
            let table = stored::table(&cached.entries.into(), rule).table;
            let text = format!("{} of its names were looked at, from {}", table.len(), path.display());
            (table, text)
        }
        Some((path, Err(why))) => {
            let text = format!("its names were not looked at: {} cannot be read: {why}", path.display());
            (Arc::default(), text)
        }
        Some((_, Ok(None))) | None => (Arc::default(), "its names were not looked at".to_owned()),
    };
    Former {
        table,
        told: format!("the store at {place} was not asked; {looked_at}\n"),
    }
}

/// The part of a request of HTTP by which a table decides.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The header `Host`: a name, with a port or without.
    pub host: &'r str,
    /// The path.
    pub path: &'r str,
}

/// Returns the decision about a client of TLS by the table of a file and the former one of a store. One line that ends
/// in a line feed.
pub fn explain(table: &Arc<Table>, former: &Former, hello: Hello<'_>) -> String {
    let offers = |protocol: &[u8]| hello.protocols.iter().any(|offered| offered.as_bytes() == protocol);
    let tables = tables(table, former);
    told(&tables, hello.name, offers, offers(ACME), None)
}

/// The same about a client of HTTP.
pub fn explain_request(table: &Arc<Table>, former: &Former, request: Request<'_>) -> String {
    let Request { host, path } = request;
    let bytes = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let refused = |fault| format!("{host:?}: the client is refused with 400, because its request {fault}\n");
    // A line end would make another request of it.
    if [host, path].iter().any(|text| text.contains(char::is_control)) {
        return refused(head::Fault::Control);
    }
    match head::parse(bytes.as_bytes(), &mut head::Progress::default()) {
        head::Parsed::Head(head) => told(
            &tables(table, former),
            head.host,
            |_| false,
            head.is_acme_challenge(),
            Some(&head),
        ),
        head::Parsed::Wrong(fault) => refused(fault),
        // It has an end, or is too long.
        head::Parsed::NeedMore => refused(head::Fault::RequestLine),
    }
}

/// Returns the tables of a door with this file and this store.
fn tables(file: &Arc<Table>, former: &Former) -> Tables {
    let mut tables = Tables::default();
    drop(tables.replace(Source::File, Arc::clone(file)));
    drop(tables.replace(Source::Store, Arc::clone(&former.table)));
    tables
}

/// Returns the decision about a client that asks for this name, in a request of HTTP if there is a `head`.
fn told(
    tables: &Tables,
    written: Option<&str>,
    offers: impl Fn(&[u8]) -> bool,
    is_acme: bool,
    head: Option<&Head<'_>>,
) -> String {
    let name = written.and_then(|name| Name::parse(name.as_bytes()));
    let mut told = match (written, &name) {
        (_, Some(name)) => format!("{name}: "),
        (Some(written), None) => format!("{written:?}, which cannot be a name: "),
        (None, None) => "a client that names no host: ".to_owned(),
    };
    let said = match tables.decide(name.as_ref().map(Name::as_str), offers, is_acme) {
        Ok(decision) => decided(&mut told, &decision, head.is_some()),
        Err(undecided) => refused(&mut told, undecided, head.is_some()),
    };
    // Writing to a text does not fail.
    debug_assert!(said.is_ok());
    told.push('\n');
    told
}

fn decided(told: &mut String, decision: &Decision<'_>, is_http: bool) -> std::fmt::Result {
    let why = match decision.why {
        Why::Exact => "it has exactly this name",
        Why::Suffix => "no service has exactly this name, and of those with a * its end is the longest that fits",
        Why::CatchAll => "no other service has the name",
    };
    let (service, source) = (&decision.service.name, words_of(decision.source));
    write!(told, "the service {service} ({source}) decides, because {why}; ")?;
    let entries = decision.service.rules.len();
    if decision.is_for_acme {
        told.push_str("its acme-addr takes challenges of ACME; ");
    } else if entries > 1 || decision.rule.alpn.is_some() {
        write!(
            told,
            "of its entries number {} of {entries} is the first ",
            decision.number + 1
        )?;
        match &decision.rule.alpn {
            Some(protocol) => write!(told, "whose alpn, {}, is offered; ", protocol.escape_ascii())?,
            None => told.push_str("that fits, for it asks for no alpn; "),
        }
    }
    if is_http && decision.rule.redirects_to_https && !decision.is_for_acme {
        told.push_str("its redirect-https sends the client on to https");
        return Ok(());
    }
    let ends_here = !is_http && decision.rule.tls.is_some() && !decision.is_for_acme;
    if ends_here {
        told.push_str("its TLS ends here; ");
    }
    let is_plain = is_http || ends_here;
    let (way, port) = if is_plain {
        (Way::Http, "HTTP")
    } else {
        (Way::Tls, "TLS")
    };
    match (decision.choice(way), &decision.rule.target) {
        (Some(choice), _) if choice.tunnel().is_some() => told.push_str(
            "the client goes to one of its tunnel clients; which of them are connected, the daemon alone knows",
        ),
        (Some(choice), _) => {
            told.push_str(&goes_to(&choice.servers));
            if decision.rule.program.is_some() {
                told.push_str(", whose program is started if no server is there");
            }
        }
        (None, Target::Door(door)) if is_plain => write!(told, "the client is handed over to the door {door}")?,
        (None, Target::Door(door)) => write!(
            told,
            "the client is refused, because the door {door} takes no TLS and there is no tls to end it here"
        )?,
        (None, Target::Servers { .. } | Target::Tunnel(_)) => {
            write!(told, "it has no port for {port}, so the client is refused")?
        }
    }
    Ok(())
}

fn refused(told: &mut String, undecided: Undecided<'_>, is_http: bool) -> std::fmt::Result {
    told.push_str(match is_http {
        true => "the client is refused with 404, because ",
        false => "the client is refused with the alert unrecognized_name, because ",
    });
    match undecided {
        Undecided::NoService => told.push_str("no service has the name, and there is no CATCH_ALL"),
        Undecided::NoProtocol(service) => {
            let service = &service.name;
            write!(
                told,
                "each entry of the service {service}, which has the name, asks for an alpn that is not offered"
            )?;
        }
    }
    Ok(())
}

fn words_of(source: Source) -> &'static str {
    match source {
        Source::File => "file",
        Source::Store => "store",
    }
}

fn goes_to(servers: &Servers) -> String {
    let server = |server: &Server| match server.weight {
        1 => server.address.to_string(),
        weight => format!("{} (weight {weight})", server.address),
    };
    let list: Vec<String> = servers.list.iter().map(server).collect();
    let rule = match servers.balance {
        _ if list.len() < 2 => return format!("the client goes to {}", list.concat()),
        Balance::RoundRobin => "round-robin",
        Balance::LeastConnections => "least-connections",
        Balance::Sticky => "sticky",
    };
    format!("the client goes to one of {} ({rule})", list.join(", "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::doors::route::core::table::{Address, EndedTls, Rule};

    /// A rule with these servers for TLS: the last numbers of their addresses, which are their weights too.
    fn rule(alpn: Option<&str>, servers: &[u16]) -> Rule {
        let server = |number: &u16| Server {
            address: Address::Network {
                host: format!("10.0.0.{number}").into(),
                port: 443,
            },
            weight: *number,
        };
        let list: Box<[Server]> = servers.iter().map(server).collect();
        let balance = Balance::RoundRobin;
        Rule {
            alpn: alpn.map(|protocol| protocol.as_bytes().into()),
            tls: None,
            target: Target::Servers {
                tls: (!list.is_empty()).then(|| Arc::new(Servers { list, balance })),
                http: None,
            },
            acme: None,
            redirects_to_https: false,
            judges_each_request: false,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: None,
            send_proxy: None,
            check: None,
            program: None,
        }
    }

    fn explained(services: &[(&str, &[Rule])], name: Option<&str>, protocols: &[&str]) -> String {
        let mut table = Table::default();
        for (name, rules) in services {
            table.insert(name.parse().unwrap(), rules.to_vec());
        }
        let protocols: Vec<String> = protocols.iter().map(|name| (*name).to_owned()).collect();
        let protocols = &protocols;
        explain(&Arc::new(table), &Former::default(), Hello { name, protocols })
    }

    #[test]
    fn the_entry_that_decides_is_named_with_the_reason() {
        let services: [(&str, &[Rule]); 3] = [
            ("www.example.org", &[rule(None, &[1])]),
            ("*.example.org", &[rule(None, &[2])]),
            ("CATCH_ALL", &[rule(None, &[1, 3])]),
        ];
        let services = &services;
        let to_all = "the client goes to one of 10.0.0.1:443, 10.0.0.3:443 (weight 3) (round-robin)\n";
        let catch_all =
            format!("the service CATCH_ALL (file) decides, because no other service has the name; {to_all}");
        for (name, told) in [
            (
                Some("WWW.example.org."),
                "www.example.org: the service www.example.org (file) decides, because it has exactly this name; \
                 the client goes to 10.0.0.1:443\n"
                    .to_owned(),
            ),
            (
                Some("a.b.example.org"),
                "a.b.example.org: the service *.example.org (file) decides, because no service has exactly this name, \
                 and of those with a * its end is the longest that fits; the client goes to 10.0.0.2:443 (weight 2)\n"
                    .to_owned(),
            ),
            (Some("example.com"), format!("example.com: {catch_all}")),
            (Some("a..b"), format!("\"a..b\", which cannot be a name: {catch_all}")),
            (None, format!("a client that names no host: {catch_all}")),
        ] {
            assert_eq!(explained(services, name, &[]), told);
        }
    }

    #[test]
    fn an_entry_is_told_by_the_protocol_that_is_offered() {
        let services: [(&str, &[Rule]); 2] = [
            ("a", &[rule(Some("h2"), &[1]), rule(None, &[])]),
            ("b", &[rule(Some("h2"), &[1])]),
        ];
        let services = &services;
        let decides =
            |name: &str| format!("{name}: the service {name} (file) decides, because it has exactly this name; ");
        assert_eq!(
            explained(services, Some("a"), &["http/1.1", "h2"]),
            decides("a")
                + "of its entries number 1 of 2 is the first whose alpn, h2, is offered; the client goes to 10.0.0.1:443\n"
        );
        assert_eq!(
            explained(services, Some("a"), &["http/1.1"]),
            decides("a")
                + "of its entries number 2 of 2 is the first that fits, for it asks for no alpn; it has no \
                   port for TLS, so the client is refused\n"
        );
        assert_eq!(
            explained(services, Some("b"), &[]),
            "b: the client is refused with the alert unrecognized_name, because each entry of the service b, which has \
             the name, asks for an alpn that is not offered\n"
        );
    }

    #[test]
    fn a_client_that_no_service_takes_is_told_as_refused() {
        assert_eq!(
            explained(&[("a", &[rule(None, &[1])])], Some("b"), &[]),
            "b: the client is refused with the alert unrecognized_name, because no service has the name, and there is no \
             CATCH_ALL\n"
        );
    }

    #[test]
    fn tls_that_ends_here_is_told_with_the_door_that_the_client_comes_to() {
        let to_door = |tls| Rule {
            tls,
            target: Target::Door("pool".into()),
            ..rule(None, &[])
        };
        let ended = Some(EndedTls {
            server: "a".into(),
            asks_clients: false,
        });
        let rules = [to_door(ended)];
        let told = explained(&[("a", &rules)], Some("a"), &[]);
        assert!(
            told.ends_with("; its TLS ends here; the client is handed over to the door pool\n"),
            "{told}"
        );
        let rules = [to_door(None)];
        let told = explained(&[("a", &rules)], Some("a"), &[]);
        assert!(
            told.ends_with("refused, because the door pool takes no TLS and there is no tls to end it here\n"),
            "{told}"
        );
    }

    #[test]
    fn a_request_is_told_by_its_host_and_path() {
        let server = |host: &str| {
            let address = Address::Network {
                host: host.into(),
                port: 80,
            };
            let list = [Server { address, weight: 1 }].into();
            Some(Arc::new(Servers {
                list,
                balance: Balance::default(),
            }))
        };
        let plain = Rule {
            target: Target::Servers {
                tls: None,
                http: server("10.0.0.1"),
            },
            ..rule(None, &[])
        };
        let redirecting = Rule {
            redirects_to_https: true,
            acme: server("10.0.0.9"),
            ..plain.clone()
        };
        let mut table = Table::default();
        let door = Rule {
            target: Target::Door("pool".into()),
            ..plain.clone()
        };
        for (name, rule) in [("a", plain), ("b", redirecting), ("c", rule(None, &[1])), ("e", door)] {
            table.insert(name.parse().unwrap(), [rule]);
        }
        let table = Arc::new(table);
        let decides =
            |name: &str| format!("{name}: the service {name} (file) decides, because it has exactly this name; ");
        for (host, path, told) in [
            ("A.:8080", "/", decides("a") + "the client goes to 10.0.0.1:80"),
            (
                "b",
                "/x",
                decides("b") + "its redirect-https sends the client on to https",
            ),
            (
                "b",
                "/.well-known/acme-challenge/t",
                decides("b") + "its acme-addr takes challenges of ACME; the client goes to 10.0.0.9:80",
            ),
            (
                "c",
                "/",
                decides("c") + "it has no port for HTTP, so the client is refused",
            ),
            ("e", "/", decides("e") + "the client is handed over to the door pool"),
            (
                "d",
                "/",
                "d: the client is refused with 404, because no service has the name, and there is no CATCH_ALL"
                    .to_owned(),
            ),
        ] {
            assert_eq!(
                explain_request(&table, &Former::default(), Request { host, path }),
                told + "\n"
            );
        }
        for (host, path) in [
            ("a b", "/"),
            ("a", "/x y"),
            ("a\r\nX: y", "/"),
            ("a", "/\r\n\r\n"),
            ("http://a", "/"),
        ] {
            let told = explain_request(&table, &Former::default(), Request { host, path });
            let begin = format!("{host:?}: the client is refused with 400, because its request ");
            assert!(told.starts_with(&begin), "{told}");
        }
    }

    #[test]
    fn a_challenge_of_acme_goes_to_its_responder() {
        let with_acme = Rule {
            acme: Some(Arc::new(Servers {
                list: [Server {
                    address: Address::Unix("/run/acme".into()),
                    weight: 1,
                }]
                .into(),
                balance: Balance::default(),
            })),
            ..rule(None, &[5])
        };
        let told = explained(&[("a.example", &[with_acme])], Some("a.example"), &["acme-tls/1"]);
        let end = "its acme-addr takes challenges of ACME; the client goes to unix:/run/acme\n";
        assert!(told.ends_with(end), "{told}");
    }
}
