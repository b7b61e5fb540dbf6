//! The table: which service has a name, and by which of its rules a connection goes to which servers.
//!
//! A door has two tables ([`Tables`]), one from its file and one from its store. Each is built off the loop, is never
//! changed afterwards, and is replaced as a whole. A name is looked up as it is written, then by its suffixes from the
//! longest (`*.b.example` before `*.example`), then the service for all other names is taken ([`CATCH_ALL`]). In each
//! of these steps the file goes before the store. The number of look-ups depends on the dots in the name and not on the
//! size of a table, and no suffix longer than the longest one of a table is looked up in it.
//!
//! The first service found decides: if none of its rules takes the connection, no other service is tried.
//!
//! Names arrive in the form of [`Pattern`]: lower case, without a trailing dot. The state of servers, and which of
//! several gets a connection, do not belong here (`upstreams`, `balance`).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::checks::Check;
pub use super::pattern::{CATCH_ALL, Pattern, PatternError};
use super::secrets::{Secret, Secrets, Tunnel};

/// The protocol that the authority of a certificate offers for a challenge of ACME (RFC 8737).
pub const ACME: &[u8] = b"acme-tls/1";

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A port of a host.
    Network {
        /// An IP address without brackets, or a name that is resolved.
        host: Box<str>,
        /// The port, which is not 0.
        port: u16,
    },
    /// The path of a UNIX socket.
    Unix(Box<str>),
    /// The client of a tunnel that has connected from here. Never in a table.
    Tunnel(Box<str>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Network { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Network { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{path}"),
            Address::Tunnel(from) => write!(f, "tunnel:{from}"),
        }
    }
}

/// A server of a service, as its operator has written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The address.
    pub address: Address,
    /// The server's share of the connections, relative to the weights of the others. A server with 0 gets none.
    pub weight: u16,
}

/// The rule by which one of several servers is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// One after the other, by weight.
    #[default]
    RoundRobin,
    /// The server with the fewest connections for its weight.
    LeastConnections,
    /// The same server for the same client, as long as the server is not out.
    Sticky,
}

/// The servers that a connection may go to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Servers {
    /// The servers, each with another address.
    pub list: Box<[Server]>,
    /// The rule of choice.
    pub balance: Balance,
}

impl Servers {
    /// Returns true if a server has this address.
    pub fn has(&self, address: &Address) -> bool {
        self.list.iter().any(|server| server.address == *address)
    }
}

/// The port of a service that a connection goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    /// The port for TLS.
    Tls,
    /// The port for HTTP and for every protocol without TLS.
    Http,
    /// The responder to challenges of ACME, whatever they come by.
    Acme,
}

/// The end of the connections that a rule takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Servers that the door connects to. A way without servers is closed: the service cannot be reached that way.
    Servers {
        /// The servers for TLS, with their ports for it.
        tls: Option<Arc<Servers>>,
        /// The servers for everything else, with their ports for it.
        http: Option<Arc<Servers>>,
    },
    /// Another door of the process, by its name: it is handed the connection.
    Door(Arc<str>),
    /// A client that has opened a tunnel to the door.
    Tunnel(Tunnel),
}

/// TLS that ends at the door, before a connection goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedTls {
    /// The name of its server in the options of the door.
    pub server: Arc<str>,
    /// True if clients need a certificate. Connections without TLS are refused then.
    pub asks_clients: bool,
}

/// A rule of a service: the connections that it takes, and their end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The protocol that a client must offer by ALPN; `None` for a rule that takes every connection.
    pub alpn: Option<Box<[u8]>>,
    /// The TLS that clients speak with the door; `None` if it goes through to the server. With it, servers are reached by
    /// [`Way::Http`] alone.
    pub tls: Option<EndedTls>,
    /// The end of the connections.
    pub target: Target,
    /// The responder to challenges of ACME: one server. `None` if they go where all other connections go.
    pub acme: Option<Arc<Servers>>,
    /// True if requests of HTTP are sent on to the same address by https.
    pub redirects_to_https: bool,
    /// True if each request of HTTP/1 is judged, and not the first one of a connection alone.
    pub judges_each_request: bool,
    /// The longest time that one attempt to connect may take.
    pub connect_timeout: Duration,
    /// The time without a byte in either direction after which a connection is cut, if it ever is.
    pub idle_timeout: Option<Duration>,
    /// The header in front of the bytes of a client, by which its servers learn of its address; `None` for no header.
    pub send_proxy: Option<ProxyVersion>,
    /// The active check of the servers; `None` if only clients find out whether they are there.
    pub check: Option<Arc<Check>>,
    /// The number, among the programs of the door, of the program behind the only server; `None` if the server is
    /// always there.
    pub program: Option<usize>,
}

/// A version of the header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text, with the addresses alone.
    One,
    /// A binary header, with the name and the protocol that the client asks for as well.
    Two,
}

impl Rule {
    /// Returns the tunnel clients that connections of this way go to, or `None` if they go elsewhere.
    pub fn tunnel(&self, way: Way) -> Option<&Tunnel> {
        match (&self.target, way) {
            (Target::Tunnel(tunnel), Way::Tls | Way::Http) => Some(tunnel),
            (Target::Tunnel(_) | Target::Servers { .. } | Target::Door(_), _) => None,
        }
    }

    /// Returns the servers that are reached this way, or `None` if the way is closed, or ends elsewhere than at a server.
    pub fn servers(&self, way: Way) -> Option<&Arc<Servers>> {
        match (&self.target, way) {
            (_, Way::Acme) => self.acme.as_ref(),
            (Target::Servers { tls, .. }, Way::Tls) => tls.as_ref(),
            (Target::Servers { http, .. }, Way::Http) => http.as_ref(),
            (Target::Door(_) | Target::Tunnel(_), Way::Tls | Way::Http) => None,
        }
    }
}

/// A service: its name and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The name as it is written in the table, in lower case: `www.example.org`, `*.example.org` or `CATCH_ALL`.
    pub name: Arc<str>,
    /// The rules, of which the first that takes a connection decides. More than one is there if ALPN tells them apart.
    pub rules: Box<[Arc<Rule>]>,
}

impl Service {
    /// The secrets of the tunnel clients that its rules lead to.
    fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.rules.iter().filter_map(|rule| match &rule.target {
            Target::Tunnel(tunnel) => Some(&tunnel.secret),
            Target::Servers { .. } | Target::Door(_) => None,
        })
    }
}

/// The services of one source, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    exact: HashMap<Box<str>, Arc<Service>>,
    suffixes: HashMap<Box<str>, Arc<Service>>,
    catch_all: Option<Arc<Service>>,
    /// The length in bytes of the longest key of `suffixes`.
    longest_suffix: usize,
    /// The services that tunnel clients serve.
    secrets: Secrets,
}

impl Table {
    /// Adds a service. Returns the one that had the same name, which is no longer in the table.
    pub fn insert(&mut self, pattern: Pattern, rules: impl IntoIterator<Item = Rule>) -> Option<Arc<Service>> {
        let service = Arc::new(Service {
            name: pattern.to_string().into(),
            rules: rules.into_iter().map(Arc::new).collect(),
        });
        let added = Arc::clone(&service);
        let before = match pattern {
            Pattern::Exact(name) => self.exact.insert(name, service),
            Pattern::Suffix(suffix) => {
                self.longest_suffix = self.longest_suffix.max(suffix.len());
                self.suffixes.insert(suffix, service)
            }
            Pattern::CatchAll => self.catch_all.replace(service),
        };
        if let Some(before) = &before {
            self.secrets.remove(&before.name, before.secrets());
        }
        self.secrets.add(&added.name, added.secrets());
        before
    }

    /// Returns the secrets of its services.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Returns the service with exactly this name in the table.
    pub fn get(&self, pattern: &Pattern) -> Option<&Arc<Service>> {
        match pattern {
            Pattern::Exact(name) => self.exact(name),
            Pattern::Suffix(suffix) => self.suffix(suffix),
            Pattern::CatchAll => self.catch_all.as_ref(),
        }
    }

    /// Returns the number of services.
    pub fn len(&self) -> usize {
        self.exact.len() + self.suffixes.len() + usize::from(self.catch_all.is_some())
    }

    /// Returns true if the table has no service.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all services, in any order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.exact.values().chain(self.suffixes.values()).chain(&self.catch_all)
    }

    fn exact(&self, name: &str) -> Option<&Arc<Service>> {
        #[cfg(test)]
        tests::count_look_up();
        self.exact.get(name)
    }

    /// Returns the service for all names that end with this. The longest suffixes of a long name cost no look-up.
    fn suffix(&self, suffix: &str) -> Option<&Arc<Service>> {
        if suffix.len() > self.longest_suffix {
            return None;
        }
        #[cfg(test)]
        tests::count_look_up();
        self.suffixes.get(suffix)
    }
}

/// The source of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The file of the operator.
    File,
    /// The store.
    Store,
}

/// The step that has found a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The name is in the table.
    Exact,
    /// A `*` with the longest suffix of the name is in the table.
    Suffix,
    /// No service has the name, or the connection has none.
    CatchAll,
}

/// The rule that takes a connection, and how it was found.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'t> {
    /// The service that has the name.
    pub service: &'t Arc<Service>,
    /// The rule of it.
    pub rule: &'t Arc<Rule>,
    /// The number of the rule in its service, from 0.
    pub number: usize,
    /// The step that has found the service.
    pub why: Why,
    /// The table that has the service.
    pub source: Source,
    /// True if the connection is a challenge of ACME for which the rule has a responder.
    pub is_for_acme: bool,
    generation: u64,
}

impl Decision<'_> {
    /// Returns the decision for one connection that has come this way, which may outlive the table, or `None` if the
    /// rule has neither servers nor tunnel clients for it.
    pub fn choice(&self, way: Way) -> Option<Choice> {
        let way = if self.is_for_acme { Way::Acme } else { way };
        let servers = match self.rule.servers(way) {
            Some(servers) => Arc::clone(servers),
            None => self.rule.tunnel(way).map(|_| Arc::default())?,
        };
        Some(Choice {
            service: Arc::clone(&self.service.name),
            number: self.number,
            rule: Arc::clone(self.rule),
            servers,
            way,
            why: self.why,
            source: self.source,
            generation: self.generation,
        })
    }
}

/// The decision for one connection: where it goes, and why.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The name of the service as it is written in the table.
    pub service: Arc<str>,
    /// The number of the rule in its service, from 0.
    pub number: usize,
    /// The rule.
    pub rule: Arc<Rule>,
    /// The servers; none if they are [tunnel clients](Self::tunnel).
    pub servers: Arc<Servers>,
    /// The way to them.
    pub way: Way,
    /// The step that has found the service.
    pub why: Why,
    /// The table that has the service.
    pub source: Source,
    /// The [generation](Tables::generation) of the tables that have decided.
    pub generation: u64,
}

impl Choice {
    /// Returns the tunnel clients that the connection goes to, if it goes to such.
    pub fn tunnel(&self) -> Option<&Tunnel> {
        self.rule.tunnel(self.way)
    }

    /// Returns true if this decision leads to the same service in the same way, whatever servers it has now.
    pub fn is_same_service(&self, other: &Choice) -> bool {
        self.service == other.service && self.way == other.way
    }
}

/// The reason for which no rule takes a connection.
#[derive(Debug, Clone, Copy)]
pub enum Undecided<'t> {
    /// No service has the name, and there is none for all others.
    NoService,
    /// The service has the name, but each of its rules asks for a protocol that the client does not offer.
    NoProtocol(&'t Arc<Service>),
}

/// The tables of a door.
#[derive(Debug, Default)]
pub struct Tables {
    file: Arc<Table>,
    store: Arc<Table>,
    generation: u64,
}

impl Tables {
    /// Returns the table from a source.
    pub fn get(&self, source: Source) -> &Arc<Table> {
        match source {
            Source::File => &self.file,
            Source::Store => &self.store,
        }
    }

    /// Puts a table in the place of the one from the same source, and returns that. Dropping a large table takes
    /// milliseconds, which should not be spent on the loop.
    #[must_use]
    pub fn replace(&mut self, source: Source, table: Arc<Table>) -> Arc<Table> {
        self.generation += 1;
        let place = match source {
            Source::File => &mut self.file,
            Source::Store => &mut self.store,
        };
        std::mem::replace(place, table)
    }

    /// Returns the service that tunnel clients with this secret serve, and the number of others that they serve as well;
    /// `None` if the secret is unknown.
    pub fn served_with(&self, secret: &Secret) -> Option<(&Arc<str>, usize)> {
        let names = [&self.file, &self.store].map(|table| table.secrets.names(secret));
        let first = names.iter().flatten().find_map(|names| names.first())?;
        let all: usize = names.iter().flatten().map(|names| names.len()).sum();
        Some((first, all.saturating_sub(1)))
    }

    /// Returns true if a service is served by tunnel clients.
    pub fn have_secrets(&self) -> bool {
        !self.file.secrets.is_empty() || !self.store.secrets.is_empty()
    }

    /// Returns the number of tables that were replaced so far.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the rule that takes a connection. `name` must be in the form of a [`Pattern`]: lower case, without a
    /// trailing dot. `offers` returns true for a protocol that the client has offered by ALPN. A challenge of ACME
    /// (`is_acme`) goes to the responder of the service; a rule for exactly its protocol goes before.
    pub fn decide(
        &self,
        name: Option<&str>,
        offers: impl Fn(&[u8]) -> bool,
        is_acme: bool,
    ) -> Result<Decision<'_>, Undecided<'_>> {
        let found = name.and_then(|name| self.exact(name).or_else(|| self.suffix(name)));
        let (service, why, source) = found.or_else(|| self.catch_all()).ok_or(Undecided::NoService)?;
        let find = |takes: &dyn Fn(&Rule) -> bool| service.rules.iter().enumerate().find(|(_, rule)| takes(rule));
        let is_for = |rule: &Rule| rule.alpn.as_deref().is_some_and(&offers);
        let responder = if is_acme && find(&is_for).is_none() {
            find(&|rule| rule.acme.is_some())
        } else {
            None
        };
        let (number, rule) = responder
            .or_else(|| find(&|rule| rule.alpn.is_none() || is_for(rule)))
            .ok_or(Undecided::NoProtocol(service))?;
        Ok(Decision {
            is_for_acme: responder.is_some(),
            service,
            rule,
            number,
            why,
            source,
            generation: self.generation,
        })
    }

    fn exact(&self, name: &str) -> Option<(&Arc<Service>, Why, Source)> {
        self.first(Why::Exact, |table| table.exact(name))
    }

    fn suffix(&self, name: &str) -> Option<(&Arc<Service>, Why, Source)> {
        let suffixes = name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..));
        suffixes
            .filter_map(|suffix| self.first(Why::Suffix, |table| table.suffix(suffix)))
            .next()
    }

    fn catch_all(&self) -> Option<(&Arc<Service>, Why, Source)> {
        self.first(Why::CatchAll, |table| table.catch_all.as_ref())
    }

    /// Returns the service that one step finds, in the file before the store.
    fn first<'t>(
        &'t self,
        why: Why,
        step: impl Fn(&'t Table) -> Option<&'t Arc<Service>>,
    ) -> Option<(&'t Arc<Service>, Why, Source)> {
        let tables = [(&self.file, Source::File), (&self.store, Source::Store)];
        tables
            .into_iter()
            .find_map(|(table, source)| Some((step(table)?, why, source)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    thread_local! {
        static LOOK_UPS: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts a look-up in a map, by which the tests measure the work of a decision.
    pub(super) fn count_look_up() {
        LOOK_UPS.with(|count| count.set(count.get() + 1));
    }

    fn look_ups(work: impl FnOnce()) -> usize {
        let before = LOOK_UPS.with(Cell::get);
        work();
        LOOK_UPS.with(Cell::get) - before
    }

    /// Tables of these services, without servers.
    fn tables(file: &[&str], store: &[&str]) -> Tables {
        let mut tables = Tables::default();
        _ = tables.replace(Source::File, table(file));
        _ = tables.replace(Source::Store, table(store));
        tables
    }

    fn from_file(file: Table) -> Tables {
        let mut tables = Tables::default();
        _ = tables.replace(Source::File, Arc::new(file));
        tables
    }

    /// Servers on port 443 of these hosts, with equal weights.
    pub fn servers(hosts: &[&str]) -> Arc<Servers> {
        let server = |host: &&str| Server {
            address: Address::Network {
                host: (*host).into(),
                port: 443,
            },
            weight: 1,
        };
        Arc::new(Servers {
            list: hosts.iter().map(server).collect(),
            balance: Balance::RoundRobin,
        })
    }

    /// A decision for these servers, from the tables of this generation.
    pub fn choice(servers: &Arc<Servers>, generation: u64) -> Choice {
        let mut table = Table::default();
        table.insert(pattern("a.example"), [rule_to(servers)]);
        let tables = from_file(table);
        let decision = tables.decide(Some("a.example"), |_| false, false).expect("a service");
        Choice {
            generation,
            ..decision.choice(Way::Tls).expect("servers")
        }
    }

    /// A rule that sends TLS to these servers.
    pub fn rule_to(servers: &Arc<Servers>) -> Rule {
        Rule {
            target: Target::Servers {
                tls: Some(Arc::clone(servers)),
                http: None,
            },
            ..rule(None)
        }
    }

    fn pattern(text: &str) -> Pattern {
        text.parse().expect(text)
    }

    /// A rule that takes clients with this protocol, or all.
    fn rule(alpn: Option<&str>) -> Rule {
        Rule {
            alpn: alpn.map(|protocol| protocol.as_bytes().into()),
            tls: None,
            target: Target::Servers { tls: None, http: None },
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

    fn table(names: &[&str]) -> Arc<Table> {
        let mut table = Table::default();
        for name in names {
            table.insert(pattern(name), [rule(None)]);
        }
        Arc::new(table)
    }

    /// The decision for a client without ALPN.
    fn decided(tables: &Tables, name: Option<&str>) -> Option<(String, Why, Source)> {
        let decision = tables.decide(name, |_| false, false).ok()?;
        Some((decision.service.name.to_string(), decision.why, decision.source))
    }

    #[test]
    fn an_exact_name_goes_before_suffixes_and_the_longest_suffix_before_the_others() {
        let tables = tables(&["www.example.org", "*.example.org", "*.b.example.org", CATCH_ALL], &[]);
        for (name, service, why) in [
            (Some("www.example.org"), "www.example.org", Why::Exact),
            (Some("ftp.example.org"), "*.example.org", Why::Suffix),
            (Some("a.www.example.org"), "*.example.org", Why::Suffix),
            (Some("a.b.example.org"), "*.b.example.org", Why::Suffix),
            (Some("b.example.org"), "*.example.org", Why::Suffix),
            (Some("example.org"), CATCH_ALL, Why::CatchAll),
            (Some("notexample.org"), CATCH_ALL, Why::CatchAll),
            (None, CATCH_ALL, Why::CatchAll),
        ] {
            let expected = Some((service.to_owned(), why, Source::File));
            assert_eq!(decided(&tables, name), expected, "{name:?}");
        }
    }

    #[test]
    fn the_file_goes_before_the_store_in_each_step_and_never_over_a_better_match() {
        let mut tables = tables(
            &["a.example", "*.example", CATCH_ALL],
            &["a.example", "b.example", "*.c.example", CATCH_ALL],
        );
        for (name, service, source) in [
            ("a.example", "a.example", Source::File),
            ("b.example", "b.example", Source::Store),
            ("x.c.example", "*.c.example", Source::Store),
            ("c.example", "*.example", Source::File),
            ("other", CATCH_ALL, Source::File),
        ] {
            let (found, _, from) = decided(&tables, Some(name)).unwrap();
            assert_eq!((found.as_str(), from), (service, source), "{name}");
        }
        let replaced = tables.replace(Source::File, Arc::default());
        assert_eq!((replaced.len(), tables.generation()), (3, 3));
        assert_eq!(decided(&tables, None).unwrap().2, Source::Store);
        assert_eq!(decided(&Tables::default(), Some("a.example")), None);
    }

    #[test]
    fn the_first_rule_whose_protocol_the_client_offers_decides_and_no_other_service_is_tried() {
        let mut file = Table::default();
        file.insert(pattern("a.example"), [rule(Some("h2")), rule(None)]);
        file.insert(pattern("b.example"), [rule(Some("h2")), rule(Some("postgresql"))]);
        file.insert(Pattern::CatchAll, [rule(None)]);
        let tables = from_file(file);
        let number = |name, offer: &str| {
            let decision = tables.decide(Some(name), |protocol| protocol == offer.as_bytes(), false);
            decision.map(|decision| decision.number)
        };
        assert_eq!(number("a.example", "h2").unwrap(), 0);
        assert_eq!(number("a.example", "http/1.1").unwrap(), 1);
        assert_eq!(number("b.example", "postgresql").unwrap(), 1);
        let Err(Undecided::NoProtocol(service)) = number("b.example", "http/1.1") else {
            panic!("a service without a rule for the client");
        };
        assert_eq!(&*service.name, "b.example");
    }

    #[test]
    fn names_are_taken_in_lower_case_and_without_a_trailing_dot() {
        for (text, written) in [
            ("WWW.Example.ORG.", "www.example.org"),
            ("*.Example.org", "*.example.org"),
            ("CATCH_ALL", "CATCH_ALL"),
            ("catch_all", "catch_all"),
            ("::1", "::1"),
            ("_x.example", "_x.example"),
        ] {
            assert_eq!(pattern(text).to_string(), written);
        }
        assert_eq!(pattern("catch_all"), Pattern::Exact("catch_all".into()));
    }

    #[test]
    fn a_text_that_is_no_name_is_refused_with_its_reason() {
        let long = "a".repeat(254);
        for (text, error) in [
            ("", PatternError::NoName),
            (".", PatternError::NoName),
            ("*.", PatternError::NoName),
            ("*", PatternError::Asterisk),
            ("a.*.example", PatternError::Asterisk),
            ("*a.example", PatternError::Asterisk),
            ("*.*.example", PatternError::Asterisk),
            ("a b", PatternError::NoName),
            ("a\0", PatternError::NoName),
            ("ä.example", PatternError::NoName),
            ("a..b", PatternError::NoName),
            (".a", PatternError::NoName),
            (&long, PatternError::NoName),
        ] {
            assert_eq!(text.parse::<Pattern>(), Err(error), "{text:?}");
        }
        assert!("a".repeat(253).parse::<Pattern>().is_ok());
    }

    #[test]
    fn an_address_is_written_as_an_operator_writes_it() {
        let network = |host: &str| Address::Network {
            host: host.into(),
            port: 443,
        };
        assert_eq!(network("a.example").to_string(), "a.example:443");
        assert_eq!(network("::1").to_string(), "[::1]:443");
        assert_eq!(Address::Unix("/run/x".into()).to_string(), "unix:/run/x");
    }

    #[test]
    fn a_closed_way_and_a_tunnel_have_no_servers() {
        let tls_alone = rule_to(&servers(&["a"]));
        assert!(tls_alone.servers(Way::Tls).is_some() && tls_alone.servers(Way::Http).is_none());
        assert!(rule(None).servers(Way::Tls).is_none() && rule(None).servers(Way::Http).is_none());
    }

    #[test]
    fn a_decision_costs_the_same_with_ten_names_and_with_a_hundred_thousand() {
        let with = |count: usize| {
            let mut table = Table::default();
            for number in 0..count {
                let name = match number % 10 {
                    0 => format!("*.domain-{number:06}.example"),
                    _ => format!("host-{number:06}.domain.example"),
                };
                table.insert(pattern(&name), [rule(None)]);
            }
            from_file(table)
        };
        let (few, many) = (with(10), with(100_000));
        assert_eq!(many.get(Source::File).len(), 100_000);
        for name in [
            "host-000001.domain.example",
            "x.domain-000000.example",
            "unknown.a.b.c.d.e.example",
            "unknown",
        ] {
            let cost = |tables: &Tables| look_ups(|| _ = tables.decide(Some(name), |_| false, false));
            assert_eq!(cost(&few), cost(&many), "{name}");
        }
    }

    #[test]
    fn a_name_of_many_labels_costs_no_look_up_of_suffixes_longer_than_those_of_the_table() {
        let name = ["a"; 127].join(".");
        let cost = |names: &[&str]| {
            let tables = tables(names, &[]);
            look_ups(|| assert!(tables.decide(Some(&name), |_| false, false).is_err()))
        };
        // The exact name in both tables.
        assert_eq!(cost(&["b"]), 2);
        // And the last two labels.
        assert_eq!(cost(&["*.b.c"]), 4);
    }

    /// The same decision by a walk over all services: the longest pattern that fits is the best.
    fn linear(file: &[String], store: &[String], name: &str) -> Option<(String, Why, Source)> {
        let sources = [(file, Source::File), (store, Source::Store)];
        let services = sources.map(|(names, source)| names.iter().map(move |name| (name, source)));
        let rank = |service: &str| match service.strip_prefix('*') {
            None if service == name => Some((Why::Exact, usize::MAX)),
            None if service == CATCH_ALL => Some((Why::CatchAll, 0)),
            None => None,
            // The suffix has its dot here.
            Some(suffix) if name.len() >= suffix.len() && name.ends_with(suffix) => Some((Why::Suffix, suffix.len())),
            Some(_) => None,
        };
        services
            .into_iter()
            .flatten()
            .filter_map(|(service, source)| Some((service.clone(), rank(service)?, source)))
            // Of equals the first is kept: the file's.
            .reduce(|best, other| if other.1.1 > best.1.1 { other } else { best })
            .map(|(service, (why, _), source)| (service, why, source))
    }

    /// Names of few labels from few letters, so that many of them meet.
    fn host() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "ab"]), 1..5).prop_map(|labels| labels.join("."))
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        let service = (host(), 0..5_u8).prop_map(|(host, kind)| match kind {
            0 => CATCH_ALL.to_owned(),
            1 | 2 => format!("*.{host}"),
            3.. => host,
        });
        prop::collection::vec(service, 0..12)
    }

    proptest! {
        #[test]
        fn the_table_decides_as_a_walk_over_all_services_does(
            file in names(),
            store in names(),
            asked in prop::collection::vec(host(), 1..20),
        ) {
            let borrowed = |names: &'_ [String]| table(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let mut tables = Tables::default();
            _ = tables.replace(Source::File, borrowed(&file));
            _ = tables.replace(Source::Store, borrowed(&store));
            for name in asked {
                prop_assert_eq!(decided(&tables, Some(&name)), linear(&file, &store, &name));
            }
        }
    }
}
