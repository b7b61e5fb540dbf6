//! `iotcpd ask ADDRESS...`: asks a pool, for people, scripts and Squid.

use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::tls::TlsFlags;
use crate::client::ask::{self, ChannelIds, Mode, Options, Privacy};
use crate::config::spec::fail::{self, Fail};
use crate::config::units::{Escaped, Time};
use crate::error::Error;
use crate::net::addr::Connect;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
/// All lines on one connection take the fewest system calls.
const DEFAULT_CONNECTIONS: usize = 1;
const MAX_CONNECTIONS: usize = 16;
/// Long enough that a new connection costs nothing, short enough that lines find a daemon that a balancer has added.
const DEFAULT_AGE: Duration = Duration::from_secs(300);
/// The answer to a line that may be a question but whose channel-ID is in doubt: Squid asks again.
const CONTRADICTION: &[u8] = b"BH";
/// The range of time-outs: a shorter one is not enough for a network, and after a longer one Squid has given up.
const TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

const EXAMPLES: &str = "\
Examples:
  One question:
    echo 'http://ads.example/ 10.0.0.1/- - GET' | iotcpd ask 127.0.0.1:9991
  Squid's helper, with a second pool to fall back on (in squid.conf):
    url_rewrite_program /usr/local/bin/iotcpd ask --squid --channel-ids yes \\
        10.0.0.5:9991 10.0.0.6:9991
    url_rewrite_children 1 concurrency=500

With --squid it ends only when its input ends, whatever becomes of the pools.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Flags {
    /// The pools to ask, the next when one fails: 127.0.0.1:9991, [::1]:9991, tls:host:9443, unix:/run/iotcpd.sock
    #[arg(value_name = "ADDRESS", required = true)]
    #[allow(rustdoc::broken_intra_doc_links, reason = "--help shows this text as it is")]
    addresses: Vec<String>,
    /// Speak Squid's helper protocol, with or without channel-IDs
    #[arg(long)]
    squid: bool,
    /// Whether Squid's lines begin with channel-IDs: yes with concurrency=1 and more, no with 0 [default: auto]
    #[arg(long, value_name = "WHETHER", requires = "squid")]
    channel_ids: Option<ChannelIds>,
    /// How long an answer may take [default: 2s]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Time>,
    /// What is answered when no pool does; ERR lets the URL pass, BH says that the helper is broken [default: ERR]
    #[arg(long, value_name = "ERR|BH|TEXT", allow_hyphen_values = true)]
    on_failure: Option<Escaped>,
    /// The same in one word for Squid: open lets the URL pass, closed denies [default: open]
    #[arg(long, value_name = "WHAT")]
    fail: Option<Fail>,
    /// Where a browser is sent whose URL is denied by --fail closed [default: http://url-filter-unavailable.invalid/]
    #[arg(long, value_name = "URL")]
    #[allow(rustdoc::bare_urls, reason = "--help shows this text as it is")]
    fail_url: Option<String>,
    /// Connections to each pool that carry many lines, 1 to 16; 0: a connection for each line [default: 1]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// How old such a connection grows before it is replaced; 0: no limit [default: 5m]
    #[arg(long, value_name = "TIME")]
    max_connection_age: Option<Time>,
    /// Lines hold passwords: keep them out of core dumps and away from other processes of the same user
    #[arg(long)]
    confidential: bool,
    #[command(flatten)]
    tls: TlsFlags,
}

/// Not derived, so that the comments stay out of the help.
impl ValueEnum for ChannelIds {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Yes, Self::No]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Auto => "auto",
            Self::Yes => "yes",
            Self::No => "no",
        }))
    }
}

pub(super) fn run(flags: &Flags) -> Result<(), Error> {
    ask::run(options(flags)?)
}

fn options(flags: &Flags) -> Result<Options, Error> {
    let mut mistakes = Vec::new();
    let mut addresses = Vec::with_capacity(flags.addresses.len());
    for text in &flags.addresses {
        match text.parse::<Connect>() {
            Ok(address) => addresses.push(address),
            Err(error) => mistakes.push(format!("iotcpd: ADDRESS: {error}")),
        }
    }
    let tls = flags.tls.lower(&addresses, &mut mistakes);
    let timeout = flags.timeout.map_or(DEFAULT_TIMEOUT, |time| time.0);
    if !TIMEOUT.contains(&timeout) {
        let (shortest, longest) = (Time(*TIMEOUT.start()), Time(*TIMEOUT.end()));
        mistakes.push(format!(
            "iotcpd: --timeout: {} is out of range; write a value from {shortest} to {longest}",
            Time(timeout)
        ));
    }
    let connections = flags.connections.unwrap_or(DEFAULT_CONNECTIONS);
    if connections > MAX_CONNECTIONS {
        mistakes.push(format!(
            "iotcpd: --connections: {connections} is out of range; write a value from 0 to {MAX_CONNECTIONS}"
        ));
    }
    let on_failure = on_failure(flags, &mut mistakes);
    if mistakes.is_empty() {
        let mode = if flags.squid { Mode::Squid } else { Mode::Plain };
        Ok(Options {
            addresses,
            tls,
            mode,
            timeout,
            channel_ids: flags.channel_ids.unwrap_or(ChannelIds::Auto),
            on_contradiction: match flags.fail {
                Some(Fail::Closed) => on_failure.clone(),
                Some(Fail::Open) | None => CONTRADICTION.to_vec(),
            },
            on_failure,
            connections,
            max_connection_age: Some(flags.max_connection_age.map_or(DEFAULT_AGE, |time| time.0))
                .filter(|age| !age.is_zero()),
            privacy: if flags.confidential {
                Privacy::Confidential
            } else {
                Privacy::Public
            },
        })
    } else {
        Err(Error::mistakes(mistakes))
    }
}

/// Returns the answer to a line that no pool has answered.
fn on_failure(flags: &Flags, mistakes: &mut Vec<String>) -> Vec<u8> {
    let text = flags.on_failure.as_ref().map(|answer| answer.0.clone());
    if text.as_ref().is_some_and(|text| text.contains(&b'\n')) {
        mistakes.push("iotcpd: --on-failure: an answer is one line; leave out \\n, it is added".to_owned());
    }
    if text.is_some() && flags.fail.is_some() {
        let wrong = "it and --on-failure both say what a line gets that no pool has answered";
        mistakes.push(format!("iotcpd: --fail: {wrong}; leave one of the two out"));
    }
    let url = flags.fail_url.as_deref();
    if url.is_some() && flags.fail != Some(Fail::Closed) {
        let wrong = "it is where denied requests are sent, and nothing is denied without --fail closed";
        mistakes.push(format!(
            "iotcpd: --fail-url: {wrong}; give that as well, or leave it out"
        ));
    }
    if let Some((wrong, remedy)) = url.and_then(fail::url_mistake) {
        mistakes.push(format!("iotcpd: --fail-url: {wrong}; {remedy}"));
    }
    text.unwrap_or_else(|| flags.fail.unwrap_or(Fail::Open).answer(url))
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
    fn fail_open_and_closed_choose_the_answer() {
        let closed = lower("--squid --fail closed x:1").unwrap();
        assert_eq!(closed.on_failure, b"302:http://url-filter-unavailable.invalid/");
        assert_eq!(closed.on_contradiction, closed.on_failure);
        let closed = lower("--fail closed --fail-url http://a/ x:1").unwrap();
        assert_eq!(closed.on_failure, b"302:http://a/");
        let open = lower("--squid --fail open x:1").unwrap();
        assert_eq!(
            (open.on_failure, open.on_contradiction),
            (b"ERR".to_vec(), b"BH".to_vec())
        );
        for (line, why) in [
            (
                "--fail closed --on-failure ERR x:1",
                "--fail: it and --on-failure both say",
            ),
            (
                "--fail-url http://a/ x:1",
                "--fail-url: it is where denied requests are sent",
            ),
            (
                "--fail open --fail-url http://a/ x:1",
                "--fail-url: it is where denied requests are sent",
            ),
            (
                "--fail closed --fail-url a x:1",
                "--fail-url: it does not begin with http://",
            ),
        ] {
            let text = lower(line).unwrap_err().to_string();
            assert!(
                text.starts_with(&format!("iotcpd: {why}")) && text.contains("; "),
                "{text}"
            );
        }
    }

    #[test]
    fn channel_ids_need_the_squid_mode() {
        assert_eq!(lower("--squid x:1").unwrap().channel_ids, ChannelIds::Auto);
        assert_eq!(
            lower("--squid --channel-ids no x:1").unwrap().channel_ids,
            ChannelIds::No
        );
        assert_eq!(
            lower("--squid --channel-ids yes x:1").unwrap().channel_ids,
            ChannelIds::Yes
        );
        assert!(Ask::try_parse_from(["ask", "--channel-ids", "yes", "x:1"]).is_err());
    }

    #[test]
    fn connections_have_a_number_and_an_age_that_can_be_chosen() {
        let options = lower("x:1").unwrap();
        assert_eq!(
            (options.connections, options.max_connection_age),
            (1, Some(Duration::from_secs(300)))
        );
        let options = lower("--connections 16 --max-connection-age 0 x:1").unwrap();
        assert_eq!((options.connections, options.max_connection_age), (16, None));
        assert_eq!(lower("--connections 0 x:1").unwrap().connections, 0);
        let text = lower("--connections 17 x:1").unwrap_err().to_string();
        assert_eq!(
            text,
            "iotcpd: --connections: 17 is out of range; write a value from 0 to 16"
        );
    }

    #[test]
    fn every_mistake_is_reported() {
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
    fn an_address_is_required() {
        assert!(Ask::try_parse_from(["ask"]).is_err());
    }
}
