//! What is told of a command line that clap does not take, and of the two questions that come the same way: help and version.
//!
//! Clap knows what is wrong; what to do instead is better known here. So its guesses give way to advice, where there is some
//! (`config::advice`), and to a suggestion only where one is near.

use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use log::Level;

use super::{logging, say};
use crate::config::advice;
use crate::config::suggest::nearest;
use crate::error::ExitCodes;
use crate::log::Form;
use crate::net::standard::Standard;

/// Tells what clap has to say: asked-for help and version too come this way, with status 0. `command` is what the line was
/// read as, `codes` what a mistake is told by, in this `form`.
pub(super) fn tell(command: &Command, mut error: clap::Error, codes: ExitCodes, form: Form) -> ExitCode {
    if error.kind() == ErrorKind::DisplayVersion {
        // Of one program there is one version, whichever of its commands is asked.
        say(
            &mut Standard::Output,
            concat!("iotcpd ", env!("CARGO_PKG_VERSION"), "\n"),
        );
        return ExitCode::SUCCESS;
    }
    if let Some(written) = unknown(&error) {
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::SuggestedSubcommand);
        error.remove(ContextKind::Suggested);
        if let Some(tip) = instead(command, &written) {
            let tip = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
            error.insert(ContextKind::Suggested, tip);
        }
    }
    if matches!(form, Form::Journal | Form::Json) && error.use_stderr() {
        let text = error.render().to_string();
        logging::tell(form, Level::Error, &text, text.strip_prefix("error: ").unwrap_or(&text));
    } else {
        // Nobody is left to be told that the terminal has gone.
        let _ = error.print();
    }
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(codes.usage()),
    }
}

/// The flag or command that there is not.
fn unknown(error: &clap::Error) -> Option<String> {
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

/// What to write in place of something unknown.
fn instead(command: &Command, written: &str) -> Option<String> {
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
