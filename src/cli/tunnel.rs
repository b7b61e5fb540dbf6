//! `iotcpd tunnel [flags]`: one tunnel door, described on the command line, like trc of tcprouter.

use std::env;

use clap::Args;

use crate::config::lower::log::LogSettings;
use crate::config::lower::{self, Mistake};
use crate::config::spec::tunnel::TunnelSpec;
use crate::config::units::Time;
use crate::daemon::{self, Plan};
use crate::doors;
use crate::doors::tunnel::options::Options;
use crate::error::Error;

/// The name of a door that has no table with a name.
const NAME: &str = "tunnel";

const EXAMPLES: &str = "\
Example:
  iotcpd tunnel --remote tls:gateway.example.org:18000 \\
      --secret-file /etc/tunnel.secret \\
      --local 127.0.0.1:80 --local-tls 127.0.0.1:443

Without tls: the secret, and whatever clients send in the clear, can be read on the way. Settings that no flag has are taken from the variables TRC_REMOTE, TRC_SECRET, TRC_LOCAL and TRC_BACKOFF.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Flags {
    #[command(flatten)]
    spec: TunnelSpec,
}

pub(super) fn run(flags: Flags, log: LogSettings) -> Result<(), Error> {
    let mut spec = flags.spec;
    let secret = spec.secret.clone();
    complete(&mut spec, |name| env::var(name).ok().filter(|value| !value.is_empty()));
    daemon::run(Plan {
        services: vec![doors::Options::Tunnel(Box::new(options(&spec)?))],
        source: None,
        log,
        secret,
    })
}

/// Takes from the variables of trc what no flag says.
fn complete(spec: &mut TunnelSpec, variable: impl Fn(&str) -> Option<String>) {
    if spec.remote.is_empty()
        && let Some(remotes) = variable("TRC_REMOTE")
    {
        let words = remotes.split([',', ' ']).filter(|word| !word.is_empty());
        spec.remote = words.map(str::to_owned).collect();
    }
    if spec.secret.is_none() && spec.secret_file.is_none() {
        spec.secret = variable("TRC_SECRET");
    }
    if spec.local.is_none() {
        spec.local = variable("TRC_LOCAL");
    }
    if spec.backoff.is_none() {
        spec.backoff = variable("TRC_BACKOFF").and_then(|text| text.parse::<Time>().ok());
    }
}

/// Returns the door that the flags describe, or a line for each mistake in them.
fn options(spec: &TunnelSpec) -> Result<Options, Error> {
    match lower::tunnel(NAME, spec, true) {
        Ok(lowered) => alone(lowered.options),
        Err(mistakes) => {
            let lines = mistakes.iter().map(Mistake::for_flags);
            Err(Error::mistakes(lines.map(|line| format!("iotcpd: {line}")).collect()))
        }
    }
}

/// Refuses a door that is to give its streams to another one: there is none.
fn alone(options: Options) -> Result<Options, Error> {
    match options.targets().first() {
        None => Ok(options),
        Some(name) => Err(Error::mistakes(vec![format!(
            "iotcpd: --local: there is no door {name} on a command line; describe both doors in a file, and start that \
             by iotcpd run"
        )])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_say_what_no_flag_says() {
        let variable = |name: &str| match name {
            "TRC_REMOTE" => Some("a:1,b:2".to_owned()),
            "TRC_SECRET" => Some("s".to_owned()),
            "TRC_LOCAL" => Some("c:3".to_owned()),
            "TRC_BACKOFF" => Some("7".to_owned()),
            _ => None,
        };
        let mut spec = TunnelSpec::default();
        complete(&mut spec, variable);
        assert_eq!(
            (spec.remote, spec.local.as_deref()),
            (vec!["a:1".to_owned(), "b:2".to_owned()], Some("c:3"))
        );
        assert_eq!(spec.backoff.map(|time| time.0.as_secs()), Some(7));
        let mut spec = TunnelSpec {
            remote: vec!["x:1".to_owned()],
            secret_file: Some("/x".to_owned()),
            ..TunnelSpec::default()
        };
        complete(&mut spec, variable);
        assert_eq!((spec.remote, spec.secret), (vec!["x:1".to_owned()], None));
    }
}
