//! The command line: one file per subcommand, each with its flags, its help and one call into the room that does the
//! work.
//!
//! The life of a command: [`main`] parses the arguments, starts the log, passes the flags to one subcommand, and turns
//! the outcome into the exit status: 0, 1 for failures at run time, 2 for mistakes in flags or files, or the statuses
//! that `--exit-codes` of `exec` and `run` chooses; `call` returns that of its program. Without a subcommand the flags
//! are those of `pool`, so that the command lines of iotcpd 1.1 still work.
//!
//! Not here: the meaning of a service's flags, which is decided in [`config`](crate::config).

mod ask;
mod call;
mod check;
mod command;
mod exec;
mod exit_codes;
mod file;
mod getopt;
mod help;
mod logging;
mod pool;
mod refusal;
mod route;
mod route_store;
mod run;
mod socket;
mod tls;
mod tunnel;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use log::Level;
use nix::sys::signal::SigSet;

use crate::config::lower::log::LogSettings;
use crate::config::spec::log::LogSpec;
use crate::config::spec::pool::PoolSpec;
use crate::daemon;
use crate::error::{Error, ExitCodes, USAGE};
use crate::log::Form;
use crate::net::standard::Standard;

const SIGNALS_AND_EXAMPLES: &str = "\
Times are in seconds or written like 500ms, 15s, 2m, 1h; sizes are in bytes or like 64KiB, 1MiB.

Signals:
  USR1      print the statistics to standard output
  USR2      print every worker, the queue, the clients, and what they are doing
  HUP       replace all workers, one by one; read the configuration file again
  TERM INT  finish what is in hand, stop the workers, exit; a second one aborts
  URG       start the program anew, and hand it the sockets: an upgrade

Examples:
  Eight squidGuards for the machines of one network:
    iotcpd -n 8 -d 'squidGuard -c /etc/squidguard/squidGuard.conf' \\
           --max-request 12000 -i 10.0.0.5 -p 9991 --allow 10.0.0.0/8
  The same, asked by a Squid (in its squid.conf):
    url_rewrite_program /usr/local/bin/iotcpd ask --squid --channel-ids yes \\
        10.0.0.5:9991
    url_rewrite_children 1 concurrency=500
  Several pools from a file, checked first:
    iotcpd check /etc/iotcpd.toml && iotcpd run /etc/iotcpd.toml

Exit status: 0; 1 when something failed at run time; 2 when flags or configuration are wrong.

The manual page iotcpd(1) says more, iotcpd.toml(5) describes the file.";

/// A pool of stdio workers behind TCP and UNIX sockets: each client sends a line, gets the answer of one worker
/// that is kept running, and never that of another client.
#[derive(Debug, Parser)]
#[command(
    name = "iotcpd",
    version,
    propagate_version = true,
    disable_version_flag = true,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    infer_long_args = true,
    subcommand_help_heading = "Commands",
    override_usage = "iotcpd [OPTIONS]\n       iotcpd COMMAND [OPTIONS]",
    after_help = SIGNALS_AND_EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print the version
    #[arg(short, visible_short_alias = 'V', long, global = true, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    log: LogSpec,
    #[command(flatten)]
    pool: PoolSpec,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one pool described by flags (the default)
    Pool(Box<PoolSpec>),
    /// Run programs on request: each client names one, and gets its streams and exit status
    Exec(Box<exec::Flags>),
    /// Run commands named in a file: each client names one, and of each a limited number runs at once
    #[command(name = "command")]
    Named(Box<command::Flags>),
    /// Connect TLS clients to servers by name, as a router.toml describes it
    Route(Box<route::Flags>),
    /// Serve the clients of a route door elsewhere through a tunnel that is made from here
    Tunnel(Box<tunnel::Flags>),
    /// Run the services described in a file
    Run(run::Flags),
    /// Say what is wrong with a file, without running anything
    Check(check::Flags),
    /// Ask a pool: lines from standard input, replies to standard output; or be Squid's helper
    Ask(ask::Flags),
    /// Have an exec door run a program: its streams, its exit status, its signals
    Call(call::Flags),
    /// Show the help of a command
    Help(help::Flags),
}

/// Runs the program with its arguments, the first of which is its name.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Must be first, because a guard keeps its signals blocked.
    if daemon::was_guard(&arguments) {
        return ExitCode::SUCCESS;
    }
    listen_to_signals();
    if arguments.len() < 2 {
        write_to(&mut Standard::Output, Cli::command().render_help());
        return ExitCode::SUCCESS;
    }
    let form = logging::form_at_start(&arguments);
    let (cli, surplus) = match read_command_line(arguments, form) {
        Ok(read) => read,
        Err(status) => return status,
    };
    let codes = exit_codes(&cli);
    let role = Role::for_command(cli.command.as_ref());
    let (log, settings) = logging::start(cli.log, env::var_os(logging::VARIABLE), role.default_levels());
    for word in surplus {
        let what = format!(
            "`{}` belongs to no flag and is passed over; leave it out",
            word.to_string_lossy().escape_debug()
        );
        logging::print_message(log.form(), Level::Warn, &format!("iotcpd: {what}\n"), &what);
    }
    let outcome = dispatch(cli.command, &cli.pool, codes, settings);
    // Writes all remaining lines of the log before the reason for the end.
    let form = log.form();
    drop(log);
    match outcome {
        Ok(status) => status,
        Err(Failure { error, status }) => {
            logging::report_end(form, &error, role.serves());
            ExitCode::from(status)
        }
    }
}

/// Returns the flags and the words that belong to no flag. Prints anything that ends the program here, such as the help
/// or a mistake, and returns its exit status as the error.
///
/// The definition of all commands takes a third of a megabyte. So there is only one at a time, and none that outlives
/// this function: a mistake is worth a second one.
fn read_command_line(arguments: Vec<OsString>, form: Form) -> Result<(Cli, Vec<OsString>), ExitCode> {
    let line = getopt::read(&complete_definition(), arguments).map_err(|what| {
        logging::print_message(form, Level::Error, &format!("iotcpd: {what}\n"), &what);
        ExitCode::from(USAGE)
    })?;
    let cli = Cli::try_parse_from(&line.words).map_err(|error| {
        let definition = complete_definition();
        let command = line.words.get(1).and_then(|word| definition.find_subcommand(word));
        let command = command.unwrap_or(&definition);
        refusal::print(command, error, exit_codes::codes_in(command, &line.words), form)
    })?;
    Ok((cli, line.surplus))
}

/// Returns the definition of the command line in which each command has its global flags too.
fn complete_definition() -> clap::Command {
    let mut definition = Cli::command();
    definition.build();
    definition
}

/// The kind of program that a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A daemon described by flags.
    Door,
    /// A daemon described by a file.
    Services,
    /// A program that does one thing and ends.
    Tool,
}

impl Role {
    const fn for_command(command: Option<&Command>) -> Self {
        match command {
            None | Some(Command::Pool(_) | Command::Exec(_) | Command::Named(_) | Command::Tunnel(_)) => Role::Door,
            Some(Command::Route(_) | Command::Run(_)) => Role::Services,
            Some(Command::Check(_) | Command::Ask(_) | Command::Call(_) | Command::Help(_)) => Role::Tool,
        }
    }

    const fn serves(self) -> bool {
        matches!(self, Role::Door | Role::Services)
    }

    /// Returns the description of the levels that apply when neither a flag nor the environment chooses them.
    const fn default_levels(self) -> &'static str {
        match self {
            Role::Services => "info, or what the file says,",
            Role::Door | Role::Tool => "info",
        }
    }
}

/// The reason why a command ends, and its exit status.
#[derive(Debug)]
struct Failure {
    error: Error,
    status: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = error.blame().exit_status(ExitCodes::default());
        Failure { error, status }
    }
}

/// Unblocks all signals. The parent process may have blocked some, which is inherited, and TERM would never arrive.
/// Must be called before any thread exists, because a thread inherits the mask of its creator. Ignored signals need no
/// change here: the code that handles a signal installs its handler.
fn listen_to_signals() {
    // The call fails only for an unknown operation.
    let _ = SigSet::empty().thread_set_mask();
}

/// Returns the exit statuses of a command that was parsed.
fn exit_codes(cli: &Cli) -> ExitCodes {
    match &cli.command {
        Some(Command::Exec(flags)) => flags.exit_codes.codes(),
        Some(Command::Run(flags)) => flags.exit_codes.codes(),
        _ => ExitCodes::default(),
    }
}

/// Runs one command. Its exit status is 0, unless the command has a status of its own.
fn dispatch(
    command: Option<Command>,
    pool: &PoolSpec,
    codes: ExitCodes,
    log: LogSettings,
) -> Result<ExitCode, Failure> {
    let done = match command {
        None => pool::run(pool, log),
        Some(Command::Pool(spec)) => pool::run(&spec, log),
        Some(Command::Exec(flags)) => exec::run(&flags, log),
        Some(Command::Named(flags)) => command::run(*flags, log),
        Some(Command::Route(flags)) => route::run(*flags, log),
        Some(Command::Tunnel(flags)) => tunnel::run(*flags, log),
        Some(Command::Run(flags)) => run::run(flags, log),
        Some(Command::Check(flags)) => check::run(flags),
        Some(Command::Ask(flags)) => ask::run(&flags),
        Some(Command::Help(flags)) => help::run(&flags),
        Some(Command::Call(flags)) => return call::run(flags),
    };
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let status = error.blame().exit_status(codes);
            Err(Failure { error, status })
        }
    }
}

/// Returns the complete clap definition, for the help and for the test that compares it with the manual.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Writes to a standard stream. A closed stream is ignored, because a program that is about to end cannot report it
/// elsewhere.
fn write_to(stream: &mut impl Write, text: impl fmt::Display) {
    let _ = write!(stream, "{text}").and_then(|()| stream.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn the_pool_is_the_default() {
        let bare = parse("iotcpd -n 8 -p 1").unwrap();
        assert!(bare.command.is_none());
        let Some(Command::Pool(spelled_out)) = parse("iotcpd pool -n 8 -p 1").unwrap().command else {
            panic!("pool is a subcommand")
        };
        assert_eq!(*spelled_out, bare.pool);
    }

    #[test]
    fn flags_of_the_pool_do_not_go_with_another_command() {
        assert_eq!(parse("iotcpd -n 8 check --config f").unwrap_err().exit_code(), 2);
        assert_eq!(parse("iotcpd run -n 8 --config f").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_wrong_command_line_is_status_2_with_a_remedy() {
        let error = parse("iotcpd -b soon").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.to_string().contains("not a length of time; write for example 15"),
            "{error}"
        );
        let error = parse("iotcpd --queue-timout 1").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--queue-timeout"), "{error}");
        assert_eq!(parse("iotcpd run a b").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for line in ["iotcpd -h", "iotcpd --help", "iotcpd pool --help", "iotcpd ask -h"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 0, "{line}");
        }
        for line in ["iotcpd -v", "iotcpd --version"] {
            let version = parse(line).unwrap_err();
            assert_eq!(
                (version.exit_code(), version.to_string().as_str()),
                (0, "iotcpd 2.0.0\n"),
                "{line}"
            );
        }
    }

    #[test]
    fn short_and_long_help_are_the_same() {
        let help = parse("iotcpd -h").unwrap_err().to_string();
        assert_eq!(help, parse("iotcpd --help").unwrap_err().to_string());
        for part in [
            "Usage: iotcpd [OPTIONS]",
            "Commands:",
            "Workers:",
            "Signals:",
            "Examples:",
            "iotcpd(1)",
        ] {
            assert!(help.contains(part), "{part}");
        }
    }
}
