//! `iotcpd route [FILE] [flags]`: one route door, described in a router.toml, like tcprouter.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::file::Foreign;
use super::route_store::{self, StoreCommand};
use super::write_to;
use crate::config::file::Source;
use crate::config::lower::log::LogSettings;
use crate::config::spec::route::RouteSpec;
use crate::daemon::{self, Plan};
use crate::doors::Options;
use crate::doors::route::explain::{Former, Hello, Request, explain, explain_request, former};
use crate::doors::route::options::Table;
use crate::error::{Blame, Error};
use crate::net::standard::Standard;

/// The file that tcprouter reads when none is named, in the working directory.
const DEFAULT: &str = "config.toml";

const EXAMPLES: &str = "\
Examples:
  cat > router.toml <<'END'
  [server]
  addr = \"0.0.0.0\"
  port = 443
  httpport = 0
  clientsport = 0
  [server.services.\"www.example.org\"]
  addr = \"10.0.0.5\"
  tlsport = 443
  END
  iotcpd check router.toml && iotcpd route --config router.toml
  iotcpd route --config router.toml --explain --sni www.example.org --alpn h2
  iotcpd route --config router.toml --explain --host www.example.org

Flags go over what the file says under the same name; --tls-listen and
--http-listen also over its ports.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_help_heading = "The store of services")]
pub(super) struct Flags {
    #[command(subcommand)]
    store: Option<StoreCommand>,
    /// The file that describes the door and its services, see iotcpd-route(1); read again at HUP
    /// [default: config.toml in this directory]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same, as a flag
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say which service of the file takes a TLS client with these --sni and --alpn, or an HTTP client with this --host,
    /// and why, and exit; the file may also be one of iotcpd run
    #[arg(long, help_heading = "Questions")]
    explain: bool,
    /// The name that the client asks for [default: none]
    #[arg(long, value_name = "NAME", requires = "explain", help_heading = "Questions")]
    sni: Option<String>,
    /// A protocol that the client offers; may be repeated [default: none]
    #[arg(long, value_name = "PROTOCOL", requires = "explain", help_heading = "Questions")]
    alpn: Vec<String>,
    /// The Host of an HTTP client, with a port or without [default: the client speaks TLS]
    #[arg(long, value_name = "NAME", requires = "explain", conflicts_with_all = ["sni", "alpn"], help_heading = "Questions")]
    host: Option<String>,
    /// The path that an HTTP client asks for [default: /]
    #[arg(long, value_name = "PATH", requires = "host", help_heading = "Questions")]
    path: Option<String>,
    #[command(flatten)]
    spec: RouteSpec,
}

pub(super) fn run(flags: Flags, log: LogSettings) -> Result<(), Error> {
    if let Some(command) = flags.store {
        return route_store::run(command);
    }
    if flags.explain {
        return answer(flags);
    }
    let source = source(flags)?;
    let contents = source.load()?;
    log.apply(&contents.log);
    daemon::run(Plan {
        services: contents.services,
        source: Some(source),
        log,
        secret: None,
    })
}

/// Prints the decision of each route door in the file.
fn answer(flags: Flags) -> Result<(), Error> {
    let (name, protocols) = (flags.sni.clone(), flags.alpn.clone());
    let (host, path) = (flags.host.clone(), flags.path.clone());
    let question = |table: &Arc<Table>, former: &Former| match &host {
        Some(host) => {
            let path = path.as_deref().unwrap_or("/");
            explain_request(table, former, Request { host, path })
        }
        None => {
            let (name, protocols) = (name.as_deref(), &protocols[..]);
            explain(table, former, Hello { name, protocols })
        }
    };
    // Only the table [server] has flags that override it.
    let has_flags = flags.spec != RouteSpec::default();
    let source = match source(flags)? {
        Source::Router { path, .. } if !has_flags => Source::Toml(path),
        source => source,
    };
    let services = source.load()?.services;
    let doors: Vec<_> = services
        .iter()
        .filter_map(|service| match service {
            Options::Route(options) => Some(options),
            _ => None,
        })
        .collect();
    for door in &doors {
        let former = former(door.store.as_ref());
        let told = question(&door.table, &former) + &former.told;
        let told = if doors.len() > 1 {
            format!("{}: {told}", door.front.name)
        } else {
            told
        };
        write_to(&mut Standard::Output, told);
    }
    if doors.is_empty() {
        let remedy = "name one with a table [server] or [route.NAME]";
        return Err(Error::new(Blame::Operator, "the file describes no route door", remedy));
    }
    Ok(())
}

/// Returns the file, with the flags that override it.
fn source(flags: Flags) -> Result<Source, Error> {
    let file = Foreign {
        format: "router.toml",
        default: DEFAULT.into(),
        remedy: "name the file with --config",
        other: ("cfg", |path| {
            format!("write iotcpd command --config {} if it is a torc.cfg", path.display())
        }),
    };
    let path = file.choose(flags.file.or(flags.config))?;
    Ok(Source::Router {
        path,
        flags: Box::new(flags.spec),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "route")]
    struct Command {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn the_file_is_named_in_either_way_and_flags_are_kept_with_it() {
        for line in [
            "route x -d --tls-listen unix:/x",
            "route --config x -d --tls-listen unix:/x",
        ] {
            let flags = Command::try_parse_from(line.split(' ')).unwrap().flags;
            let Ok(Source::Router { path, flags }) = source(flags) else {
                panic!("it is a router.toml")
            };
            assert!(*path == *"x" && flags.debug && flags.tls_listen == ["unix:/x"]);
        }
        assert!(Command::try_parse_from(["route", "x", "--config", "y"]).is_err());
    }

    #[test]
    fn a_question_is_about_one_client() {
        for (flags, is_one) in [
            ("--explain --host a --path /x", true),
            ("--explain --sni a --alpn h2", true),
            ("--explain --host a --sni a", false),
            ("--explain --host a --alpn h2", false),
            ("--explain --path /x", false),
            ("--host a", false),
        ] {
            let line = format!("route x {flags}");
            let words = line.split(' ');
            assert_eq!(Command::try_parse_from(words).is_ok(), is_one, "{line}");
        }
    }

    #[test]
    fn a_torc_cfg_is_for_another_command() {
        let flags = Command::try_parse_from(["route", "x.cfg"]).unwrap().flags;
        let remedy = "write iotcpd command --config x.cfg if it is a torc.cfg";
        assert_eq!(
            source(flags).unwrap_err().to_string(),
            format!("x.cfg is no router.toml: its name ends in .cfg; {remedy}")
        );
    }
}
