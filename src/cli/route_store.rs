//! `iotcpd route put`, `del`, `list` and `import`: the services in the store of a route door, as the scripts of tcprouter
//! wrote them.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use log::Level;

use super::write_to;
use crate::client::store::{self, Entry, Target};
use crate::config::file::Source;
use crate::config::lower;
use crate::config::spec::route::StoreSpec;
use crate::config::units::Whole;
use crate::doors::Options;
use crate::doors::route::options::{
    Address, Options as RouteOptions, Password, Rule, Servers, StorePlace, Target as RuleTarget,
};
use crate::error::{Blame, Error};
use crate::net::standard::Standard;
use crate::regular_file::{self, Kind};

/// The environment variable with the password of the store.
const PASSWORD: &str = "IOTCPD_REDIS_PASSWORD";

/// A file of services: room for some hundred thousand.
const SERVICES: Kind = Kind {
    largest: 256 << 20,
    remedy: "split it",
};

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Put a service into the store, in the place of one with the same name
    Put(Put),
    /// Remove services from the store
    Del(Del),
    /// Print the services of the store, without their secrets
    List(List),
    /// Put the services of a file into the store
    Import(Import),
}

#[derive(Debug, Args)]
pub(super) struct Put {
    /// The name that clients ask for, *.SUFFIX or CATCH_ALL
    #[arg(value_name = "NAME")]
    name: String,
    /// The server: HOST or HOST:PORT
    #[arg(value_name = "ADDR", required_unless_present = "secret_file")]
    addr: Option<String>,
    /// The port of the server for TLS [default: the port in the address]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    tls_port: Option<u16>,
    /// The port of the server for HTTP [default: the port in the address]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    http_port: Option<u16>,
    /// The file whose first line is the secret of a tunnel, in the place of a server [default: none]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["addr", "tls_port", "http_port"])]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreFlags,
}

#[derive(Debug, Args)]
pub(super) struct Del {
    /// The names
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    store: StoreFlags,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    store: StoreFlags,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file: a router.toml or another one with a route door, or lines of JSON
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    store: StoreFlags,
}

/// The store that is meant.
#[derive(Debug, Args)]
#[command(next_help_heading = "The store")]
struct StoreFlags {
    /// The store of the route door in this file, in the place of the flags below [default: none]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["redis", "user", "password_file", "database", "tls"])]
    config: Option<PathBuf>,
    /// The store: HOST, HOST:PORT or unix:PATH [default: 127.0.0.1:6379]
    #[arg(long, value_name = "ADDR")]
    redis: Option<String>,
    /// The user [default: none]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The file whose first line is the password [default: the variable IOTCPD_REDIS_PASSWORD]
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// The number of the database [default: 0]
    #[arg(long, value_name = "NUMBER")]
    database: Option<Whole>,
    /// Speak TLS with the store
    #[arg(long)]
    tls: bool,
    /// With --tls: the authorities of its certificate, in PEM [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca: Option<String>,
    /// With --tls: the certificate that is shown to the store, in PEM [default: none]
    #[arg(long, value_name = "FILE", requires = "tls")]
    cert: Option<String>,
    /// The key of that certificate, in PEM [default: in the file of --cert]
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<String>,
}

pub(super) fn run(command: StoreCommand) -> Result<(), Error> {
    match command {
        StoreCommand::Put(flags) => {
            let entry = entry(&flags)?;
            store::put(&flags.store.place()?, &[entry])
        }
        StoreCommand::Del(flags) => {
            let missing = store::delete(&flags.store.place()?, &flags.names)?;
            if missing.is_empty() {
                return Ok(());
            }
            let what = format!("the store has no service {}", missing.join(", "));
            Err(Error::new(
                Blame::System,
                what,
                "see iotcpd route list for its services",
            ))
        }
        StoreCommand::List(flags) => {
            let listed = store::list(&flags.store.place()?)?;
            for fault in listed.faults {
                log::log!(Level::Warn, "{fault}");
            }
            let lines: String = listed.lines.into_iter().map(|line| line + "\n").collect();
            write_to(&mut Standard::Output, lines);
            Ok(())
        }
        StoreCommand::Import(flags) => {
            let entries = imported(&flags.file)?;
            store::put(&flags.store.place()?, &entries)?;
            write_to(
                &mut Standard::Output,
                format_args!("{} services written\n", entries.len()),
            );
            Ok(())
        }
    }
}

impl StoreFlags {
    /// Returns the place that is meant.
    fn place(self) -> Result<StorePlace, Error> {
        if let Some(path) = self.config {
            let name = path.display().to_string();
            let mut stores = doors_of(path)?.into_iter().filter_map(|door| door.store);
            return match (stores.next(), stores.next()) {
                (Some(store), None) => Ok(store.settings.place),
                (None, _) => Err(usage(
                    &format!("{name} has no route door with a store"),
                    "name the store with --redis",
                )),
                (Some(_), Some(_)) => Err(usage(&format!("{name} has several stores"), "name one with --redis")),
            };
        }
        let password = match &self.password_file {
            Some(_) => None,
            None => std::env::var(PASSWORD).ok().filter(|password| !password.is_empty()),
        };
        if self.user.is_some() && self.password_file.is_none() && password.is_none() {
            let remedy = format!("name a file with it with --password-file, or set {PASSWORD}");
            return Err(usage("--user: the user has no password", &remedy));
        }
        let spec = StoreSpec {
            addr: self.redis,
            username: self.user,
            password,
            password_file: self.password_file,
            database: self.database,
            tls: self.tls,
            ca: self.ca,
            cert: self.cert,
            key: self.key,
            ..StoreSpec::default()
        };
        let settings = lower::store(&spec).map_err(|mistakes| {
            let lines = mistakes.into_iter().map(|mut mistake| {
                if mistake.origin.key == "addr" {
                    mistake.origin.key = "redis";
                }
                format!("iotcpd: {}", mistake.for_flags())
            });
            Error::mistakes(lines.collect())
        })?;
        Ok(settings.place)
    }
}

fn usage(what: &str, remedy: &str) -> Error {
    Error::new(Blame::Operator, what, remedy)
}

/// Returns the route doors that a file describes.
fn doors_of(path: PathBuf) -> Result<Vec<RouteOptions>, Error> {
    let services = Source::Toml(path).load()?.services;
    let door = |service| match service {
        Options::Route(options) => Some(*options),
        _ => None,
    };
    Ok(services.into_iter().filter_map(door).collect())
}

fn entry(flags: &Put) -> Result<Entry, Error> {
    let name = lower::service_name(&flags.name).map_err(|mistake| Error::mistakes(vec![mistake]))?;
    let name = name.to_string();
    let Some(addr) = &flags.addr else {
        let path = flags.secret_file.clone().unwrap_or_default();
        let secret = Password::File(path).read();
        let secret = secret.map_err(|error| Error::mistakes(vec![format!("--secret-file: {error}")]))?;
        return Ok(Entry {
            name: name.into(),
            target: Target::Tunnel(secret),
        });
    };
    store::entry(&name, addr, flags.tls_port, flags.http_port).map_err(|fault| {
        usage(
            &format!("{name} cannot be put into the store: {fault}"),
            "write HOST:PORT, or --tls-port",
        )
    })
}

/// Returns the services of a file.
fn imported(path: &Path) -> Result<Vec<Entry>, Error> {
    let name = path.display().to_string();
    let (bytes, _) = regular_file::read(path, SERVICES)
        .map_err(|refusal| usage(&format!("{name} cannot be read: {}", refusal.cause), refusal.remedy))?;
    let in_file = |mistakes: Vec<String>| {
        Error::mistakes(
            mistakes
                .into_iter()
                .map(|mistake| format!("{name}: {mistake}"))
                .collect(),
        )
    };
    if bytes.trim_ascii_start().starts_with(b"{") {
        let text = String::from_utf8_lossy(&bytes);
        let entries = store::parse_lines(&text).map_err(in_file)?;
        let mistakes = entries
            .iter()
            .filter_map(|entry| lower::service_name(&entry.name).err());
        let mistakes: Vec<String> = mistakes.collect();
        return if mistakes.is_empty() {
            Ok(entries)
        } else {
            Err(in_file(mistakes))
        };
    }
    let (mut entries, mut mistakes) = (Vec::new(), Vec::new());
    for door in doors_of(path.to_owned())? {
        for service in door.table.services() {
            match &*service.rules {
                [rule] => match entry_of(&service.name, rule) {
                    Ok(entry) => entries.push(entry),
                    Err(why) => mistakes.push(format!(
                        "the service {} cannot be put into the store: {why}",
                        service.name
                    )),
                },
                _ => mistakes.push(format!(
                    "the service {} cannot be put into the store: it has several entries",
                    service.name
                )),
            }
        }
    }
    mistakes.sort();
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    if mistakes.is_empty() {
        Ok(entries)
    } else {
        Err(in_file(mistakes))
    }
}

/// Returns the entry of a service of a file, whose settings but its server are those of the door that reads it.
fn entry_of(name: &str, rule: &Rule) -> Result<Entry, String> {
    if rule.alpn.is_some() {
        return Err("an entry of a store has no alpn".to_owned());
    }
    let RuleTarget::Servers { tls, http } = &rule.target else {
        return Err("it leads to no server".to_owned());
    };
    let (tls, http) = (server(tls.as_deref())?, server(http.as_deref())?);
    let (host, tls_port, http_port) = match (tls, http) {
        (Some((host, tls)), Some((other, http))) if host == other => (host, Some(tls), Some(http)),
        (Some((host, tls)), None) => (host, Some(tls), None),
        (None, Some((host, http))) => (host, None, Some(http)),
        _ => return Err("it has no server, or two".to_owned()),
    };
    store::entry(name, host, tls_port, http_port)
}

/// Returns the host and the port of the one server.
fn server(servers: Option<&Servers>) -> Result<Option<(&str, u16)>, String> {
    let Some(servers) = servers else { return Ok(None) };
    match &*servers.list {
        [server] => match &server.address {
            Address::Network { host, port } => Ok(Some((host, *port))),
            Address::Unix(_) | Address::Tunnel(_) => Err("a store cannot name a UNIX socket".to_owned()),
        },
        _ => Err("an entry of a store has one server".to_owned()),
    }
}
