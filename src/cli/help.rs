//! `iotcpd help [COMMAND]`: the text of `--help`, for the usual order of the words.

use clap::Args;

use super::write_to;
use crate::config::suggest::nearest;
use crate::error::{Blame, Error};
use crate::net::standard::Standard;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The command whose help is shown [default: that of iotcpd itself]
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

pub(super) fn run(flags: &Flags) -> Result<(), Error> {
    let help = help(flags.command.as_deref())?;
    write_to(&mut Standard::Output, help);
    Ok(())
}

fn help(command: Option<&str>) -> Result<String, Error> {
    let mut program = super::command();
    program.build();
    let Some(name) = command else {
        return Ok(program.render_help().to_string());
    };
    let names: Vec<_> = program
        .get_subcommands()
        .map(|known| known.get_name().to_owned())
        .collect();
    if let Some(command) = program.find_subcommand_mut(name) {
        return Ok(command.render_help().to_string());
    }
    let what = format!("there is no command called `{}`", name.escape_debug());
    Err(match nearest(name, names.iter().map(String::as_str)) {
        Some(meant) => Error::new(Blame::Operator, what, format_args!("did you mean iotcpd help {meant}?")),
        None => Error::new(
            Blame::Operator,
            what,
            format_args!("write one of: {}", names.join(", ")),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_prints_the_same_as_the_flag() {
        for (command, part) in [
            (None, "Usage: iotcpd [OPTIONS]"),
            (Some("pool"), "Usage: iotcpd pool [OPTIONS]"),
            (Some("exec"), "Usage: iotcpd exec [OPTIONS] <SOCKET>"),
            (Some("check"), "Usage: iotcpd check [OPTIONS] [FILE]"),
            (Some("help"), "Usage: iotcpd help [OPTIONS] [COMMAND]"),
        ] {
            let help = help(command).unwrap();
            assert!(help.contains(part), "{command:?}: {help}");
        }
    }

    #[test]
    fn an_unknown_command_gets_a_suggestion() {
        let told = |name| help(Some(name)).unwrap_err().to_string();
        assert_eq!(
            told("chek"),
            "there is no command called `chek`; did you mean iotcpd help check?"
        );
        assert_eq!(
            told("nosuch"),
            "there is no command called `nosuch`; write one of: pool, exec, command, route, tunnel, run, check, ask, call, help"
        );
    }
}
