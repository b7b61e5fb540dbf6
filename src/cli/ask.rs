//! `iotcpd ask ADDRESS...`: asks a pool, for people, scripts and Squid.

use std::time::Duration;

use clap::Args;

use crate::client::ask::{self, Mode, Options};
use crate::config::units::{Escaped, Time};
use crate::error::Error;
use crate::net::addr::ConnectAddr;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_ANSWER: &[u8] = b"ERR";
/// Below it an answer could not come back over a network; above it Squid has long given up.
const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

const EXAMPLES: &str = "\
Examples:
  One question:
    echo 'http://ads.example/ 10.0.0.1/- - GET' | iotcpd ask 127.0.0.1:9991
  Squid's helper, with a second pool to fall back on (in squid.conf):
    url_rewrite_program /usr/bin/iotcpd ask --squid 10.0.0.5:9991 10.0.0.6:9991
    url_rewrite_children 1 concurrency=500

With --squid it ends only when its input ends, whatever becomes of the pools.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Flags {
    /// The pools to ask, the next when one fails: 127.0.0.1:9991, [::1]:9991, unix:/run/iotcpd.sock
    #[arg(value_name = "ADDRESS", required = true)]
    addresses: Vec<String>,
    /// Speak Squid's helper protocol, with or without channel-IDs
    #[arg(long)]
    squid: bool,
    /// How long an answer may take [default: 2s]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Time>,
    /// What is answered when no pool does; ERR lets the URL pass, BH says that the helper is broken [default: ERR]
    #[arg(long, value_name = "ERR|BH|TEXT", allow_hyphen_values = true)]
    on_failure: Option<Escaped>,
}

pub(super) fn run(flags: &Flags) -> Result<(), Error> {
    ask::run(options(flags)?)
}

fn options(flags: &Flags) -> Result<Options, Error> {
    let mut mistakes = Vec::new();
    let mut addresses = Vec::with_capacity(flags.addresses.len());
    for text in &flags.addresses {
        match text.parse::<ConnectAddr>() {
            Ok(address) => addresses.push(address),
            Err(error) => mistakes.push(format!("iotcpd: ADDRESS: {error}")),
        }
    }
    let timeout = flags.timeout.map_or(DEFAULT_TIMEOUT, |time| time.0);
    if !TIMEOUT.contains(&timeout) {
        let (shortest, longest) = (Time(*TIMEOUT.start()), Time(*TIMEOUT.end()));
        mistakes.push(format!(
            "iotcpd: --timeout: {} is out of range; write a value from {shortest} to {longest}",
            Time(timeout)
        ));
    }
    let on_failure = flags
        .on_failure
        .as_ref()
        .map_or_else(|| DEFAULT_ANSWER.to_vec(), |answer| answer.0.clone());
    if on_failure.contains(&b'\n') {
        mistakes.push("iotcpd: --on-failure: an answer is one line; leave out \\n, it is added".to_owned());
    }
    if mistakes.is_empty() {
        let mode = if flags.squid { Mode::Squid } else { Mode::Plain };
        Ok(Options {
            addresses,
            mode,
            timeout,
            on_failure,
        })
    } else {
        Err(Error::mistakes(mistakes))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::error::Blame;

    #[derive(Debug, Parser)]
    struct Ask {
        #[command(flatten)]
        flags: Flags,
    }

    fn lower(line: &str) -> Result<Options, Error> {
        let words = std::iter::once("ask").chain(line.split_whitespace());
        options(&Ask::try_parse_from(words).unwrap().flags)
    }

    #[test]
    fn an_address_is_enough() {
        let options = lower("127.0.0.1:9991").unwrap();
        assert_eq!(options.addresses, ["127.0.0.1:9991".parse().unwrap()]);
        assert_eq!((options.mode, options.timeout), (Mode::Plain, Duration::from_secs(2)));
        assert_eq!(options.on_failure, b"ERR");
    }

    #[test]
    fn everything_can_be_chosen() {
        let options = lower("--squid --timeout 500ms --on-failure BH [::1]:1 10.0.0.6:2").unwrap();
        assert_eq!(options.addresses.len(), 2);
        assert_eq!(
            (options.mode, options.timeout),
            (Mode::Squid, Duration::from_millis(500))
        );
        assert_eq!(options.on_failure, b"BH");
    }

    #[test]
    fn every_mistake_is_told() {
        let error = lower("nonsense --timeout 1ms --on-failure a\\nb").unwrap_err();
        assert_eq!(error.blame(), Blame::Operator);
        let text = error.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[0].starts_with("iotcpd: ADDRESS: ") && lines[0].contains("; "),
            "{text}"
        );
        assert_eq!(
            lines[1],
            "iotcpd: --timeout: 1ms is out of range; write a value from 10ms to 1h"
        );
        assert_eq!(
            lines[2],
            "iotcpd: --on-failure: an answer is one line; leave out \\n, it is added"
        );
    }

    #[test]
    fn without_an_address_there_is_nobody_to_ask() {
        assert!(Ask::try_parse_from(["ask"]).is_err());
    }
}
