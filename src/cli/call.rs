//! `iotcpd call ADDRESS ARGV...`: has an exec door run a program, as sockexec.client does.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::slice;
use std::time::Duration;

use clap::Args;

use super::tls::TlsFlags;
use super::{Failure, socket};
use crate::client::call::{self, FAILED, Options, Signals, Stdin};
use crate::config::units::Time;
use crate::error::Error;
use crate::net::addr::Connect;

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The range of time-outs: a shorter one is not enough for a network, a longer one is of no use to a caller.
const CONNECT_TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

const EXAMPLES: &str = "\
Examples:
  iotcpd call /run/exec.sock ls -l
  tar c . | iotcpd call 127.0.0.1:9000 sh -c 'cat > backup.tar'

INT, QUIT and TERM are passed on to the program, a second one hangs up. HUP, USR1 and USR2 are passed on with --forward-all.

Exit status: that of the program; 128 and the number of the signal that has ended it; 125 when something else went wrong; 2 when the command line has to be written differently.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Flags {
    /// Where the exec door is: the path of a UNIX socket, 127.0.0.1:9000, [::1]:9000, host:9000, tls:host:9443, unix:@name
    #[arg(value_name = "ADDRESS")]
    #[allow(rustdoc::broken_intra_doc_links, reason = "--help shows this text as it is")]
    address: String,
    /// The program to be run, and its arguments, which may begin with dashes
    #[arg(
        value_name = "ARGV",
        required = true,
        num_args = 1..,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    arguments: Vec<OsString>,
    /// Send standard input even if it is a terminal
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Send no standard input: the program finds its end at once
    #[arg(short = 'n', long, conflicts_with = "stdin")]
    no_stdin: bool,
    /// Pass HUP, USR1 and USR2 on to the program, too, which are ignored else
    #[arg(long)]
    forward_all: bool,
    /// How long it may take to get a connection [default: 5s]
    #[arg(long, value_name = "TIME")]
    connect_timeout: Option<Time>,
    #[command(flatten)]
    tls: TlsFlags,
}

/// Runs the program. Its exit status becomes that of this process; [`FAILED`] is the status of all other failures.
pub(super) fn run(flags: Flags) -> Result<ExitCode, Failure> {
    let status = call::run(options(flags)?);
    status
        .map(ExitCode::from)
        .map_err(|error| Failure { error, status: FAILED })
}

fn options(flags: Flags) -> Result<Options, Error> {
    let mut mistakes = Vec::new();
    let address = socket::address(&flags.address).parse::<Connect>();
    let address = address.map_err(|error| mistakes.push(format!("iotcpd: ADDRESS: {error}")));
    let tls = flags
        .tls
        .lower(address.as_ref().map_or(&[], slice::from_ref), &mut mistakes);
    let connect_timeout = flags.connect_timeout.map_or(DEFAULT_CONNECT_TIMEOUT, |time| time.0);
    if !CONNECT_TIMEOUT.contains(&connect_timeout) {
        let (shortest, longest) = (Time(*CONNECT_TIMEOUT.start()), Time(*CONNECT_TIMEOUT.end()));
        mistakes.push(format!(
            "iotcpd: --connect-timeout: {} is out of range; write a value from {shortest} to {longest}",
            Time(connect_timeout)
        ));
    }
    match address {
        Ok(address) if mistakes.is_empty() => Ok(Options {
            address,
            tls,
            arguments: flags.arguments.into_iter().map(OsString::into_vec).collect(),
            stdin: match (flags.stdin, flags.no_stdin) {
                (_, true) => Stdin::Ignored,
                (true, false) => Stdin::Sent,
                (false, false) => Stdin::UnlessTerminal,
            },
            connect_timeout,
            signals: if flags.forward_all {
                Signals::All
            } else {
                Signals::ToEnd
            },
        }),
        _ => Err(Error::mistakes(mistakes)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::error::Blame;

    #[derive(Debug, Parser)]
    struct Call {
        #[command(flatten)]
        flags: Flags,
    }

    fn parse(line: &str) -> Result<Flags, clap::Error> {
        let words = std::iter::once("call").chain(line.split_whitespace());
        Call::try_parse_from(words).map(|it| it.flags)
    }

    fn lower(line: &str) -> Result<Options, Error> {
        options(parse(line).unwrap())
    }

    fn words(options: &Options) -> Vec<String> {
        let words = options.arguments.iter().map(|word| String::from_utf8_lossy(word));
        words.map(|word| word.into_owned()).collect()
    }

    #[test]
    fn arguments_after_the_program_belong_to_it() {
        let options = lower("/run/x.sock ls -l --color -n -i --help -h -- --connect-timeout 1").unwrap();
        assert_eq!(options.address, "unix:/run/x.sock".parse().unwrap());
        assert_eq!(
            words(&options).join(" "),
            "ls -l --color -n -i --help -h -- --connect-timeout 1"
        );
        assert_eq!(
            (options.stdin, options.connect_timeout),
            (Stdin::UnlessTerminal, DEFAULT_CONNECT_TIMEOUT)
        );
        let options = lower("x -- -odd").unwrap();
        assert_eq!(words(&options), ["-odd"]);
    }

    #[test]
    fn flags_before_the_program_belong_to_call() {
        let options = lower("-n --connect-timeout 500ms localhost:9000 cat -n").unwrap();
        assert_eq!(
            (options.stdin, words(&options).join(" ")),
            (Stdin::Ignored, "cat -n".into())
        );
        assert_eq!(options.connect_timeout, Duration::from_millis(500));
        assert_eq!(lower("-i x.sock cat").unwrap().stdin, Stdin::Sent);
        assert_eq!(lower("x.sock cat --forward-all").unwrap().signals, Signals::ToEnd);
        assert_eq!(lower("--forward-all x.sock cat").unwrap().signals, Signals::All);
        assert!(parse("-i -n x cat").is_err());
        assert!(parse("x").is_err() && parse("").is_err());
    }

    #[test]
    fn every_mistake_is_reported() {
        let error = lower("--connect-timeout 1ms 127.0.0.1:99999 cat").unwrap_err();
        assert_eq!(error.blame(), Blame::Operator);
        let text = error.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("iotcpd: ADDRESS: \"127.0.0.1:99999\""), "{text}");
        assert_eq!(
            lines[1],
            "iotcpd: --connect-timeout: 1ms is out of range; write a value from 10ms to 1h"
        );
    }
}
