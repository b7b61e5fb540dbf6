//! The messages about a command line that clap does not accept, and the answers to the two questions that clap treats
//! in the same way: help and version.
//!
//! clap knows the mistake, but this program knows the remedy better. So its guesses are replaced by an advice, where
//! there is one (`config::advice`), or by a suggestion, if a known word is near enough.

use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use log::Level;

use super::{logging, write_to};
use crate::config::advice;
use crate::config::suggest::nearest;
use crate::error::ExitCodes;
use crate::log::Form;
use crate::net::standard::Standard;

/// Prints the message of clap. Help and version are printed in this way too, with status 0. `command` is the command
/// that the line was parsed as, `codes` holds the status of a mistake, and `form` is the form of its message.
pub(super) fn print(command: &Command, mut error: clap::Error, codes: ExitCodes, form: Form) -> ExitCode {
    if error.kind() == ErrorKind::DisplayVersion {
        // There is one version for all commands of the program.
        write_to(
            &mut Standard::Output,
            concat!("iotcpd ", env!("CARGO_PKG_VERSION"), "\n"),
        );
        return ExitCode::SUCCESS;
    }
    if let Some(written) = unknown_word(&error) {
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::SuggestedSubcommand);
        error.remove(ContextKind::Suggested);
        if let Some(tip) = remedy(command, &written) {
            let tip = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
            error.insert(ContextKind::Suggested, tip);
        }
    }
    if matches!(form, Form::Journal | Form::Json) && error.use_stderr() {
        let text = error.render().to_string();
        logging::print_message(form, Level::Error, &text, text.strip_prefix("error: ").unwrap_or(&text));
    } else {
        // A closed terminal cannot be reported anywhere.
        let _ = error.print();
    }
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(codes.usage()),
    }
}

/// Returns the unknown flag or command.
fn unknown_word(error: &clap::Error) -> Option<String> {
    let what = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ => return None,
    };
    match error.get(what) {
        Some(ContextValue::String(written)) => Some(written.clone()),
        _ => None,
    }
}

/// Returns the remedy for an unknown flag or command.
fn remedy(command: &Command, written: &str) -> Option<String> {
    let flags = || command.get_arguments().filter_map(Arg::get_long);
    let has = |name: &str| flags().any(|flag| flag == name);
    if let Some(name) = written.strip_prefix("--") {
        let meant = || nearest(name, flags()).map(|meant| format!("did you mean --{meant}?"));
        return advice::for_flag(written, has).or_else(meant);
    }
    let is_number = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    if written.strip_prefix('-').is_some_and(is_number) {
        return Some(
            "what stands behind a flag begins with a dash only in another flag: write a number that is not negative"
                .to_owned(),
        );
    }
    if written.starts_with('-') {
        return advice::for_flag(written, has);
    }
    if written.contains(['/', '.']) {
        return Some(format!(
            "the services that a file describes are run by iotcpd run {written}"
        ));
    }
    let names = command.get_subcommands().map(Command::get_name);
    let names: Vec<_> = names.collect();
    let meant = || nearest(written, names.iter().copied()).map(|meant| format!("did you mean iotcpd {meant}?"));
    advice::for_flag(&format!("--{written}"), has).or_else(meant)
}
