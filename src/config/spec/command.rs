//! The settings of a command door as written: `iotcpd command [flags]`, a table `[command.NAME]` of a file, the
//! settings of a torc.cfg; and of one of its commands: a table `[command.NAME.commands.CMD]`, or a group in the
//! `processes` of a torc.cfg.

use clap::Args;
use serde::Deserialize;

use super::listen::ListenSpec;
use super::overlay::{overlay, overlay_listening};
use super::process::ProcessSpec;
use super::yes_no::YesNo;
use crate::config::units::{Size, Time, Whole};

/// All settings of a command door, except its commands.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct CommandSpec {
    /// Whether the name `list` lists the commands [default: yes, unless a command is called so]
    #[arg(long, value_name = "WHETHER", help_heading = "Programs")]
    pub list: Option<YesNo>,
    /// From TERM to KILL for a program that does not end [default: 10s]
    #[arg(short, long, value_name = "TIME", help_heading = "Programs")]
    pub kill_timeout: Option<Time>,
    /// How long output is awaited after a program's exit while something it has started holds it open [default: 1s]
    #[arg(long, value_name = "TIME", help_heading = "Programs")]
    pub linger: Option<Time>,
    /// How long programs may run on once the daemon is told to stop [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Programs")]
    pub stop_timeout: Option<Time>,
    /// Whether the log shows the arguments of programs, or their names alone [default: no]
    #[arg(long, value_name = "WHETHER", help_heading = "Programs")]
    pub log_args: Option<YesNo>,
    /// True if connections that other doors of the same file hand over are taken: a key of files alone.
    #[arg(skip)]
    #[serde(skip)]
    pub handed_over: bool,
    /// Log each step of a connection
    #[arg(short, long, help_heading = "Programs")]
    pub debug: bool,

    /// Addresses, access and limits of the listeners.
    #[command(flatten)]
    #[serde(flatten)]
    pub listen: ListenSpec,

    /// How long a client may take until its last argument is complete [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub read_timeout: Option<Time>,
    /// How long a client may leave what is left of its output unread once its program has ended [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub write_timeout: Option<Time>,
    /// A name or argument without a terminator is complete when nothing has come for this time [default: 100ms]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub quiet_time: Option<Time>,
    /// The longest that a name or an argument may be [default: 4KiB]
    #[arg(long, value_name = "SIZE", help_heading = "Connections")]
    pub max_message: Option<Size>,
    /// How much of a connection is held in memory each way before its sender has to wait [default: 256KiB]
    #[arg(long, value_name = "SIZE", help_heading = "Connections")]
    pub max_buffer: Option<Size>,
}

/// All settings of one command. They are never flags; the clap definition lists the known keys.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EntrySpec {
    /// The program, and the arguments that stand before the client's
    #[arg(long, value_name = "CMD")]
    pub cmd: Option<String>,
    /// How many may run at once [default: 1]
    #[arg(long, value_name = "NUM")]
    pub threads: Option<Whole>,
    /// How many arguments the client sends [default: as many as args has elements, or 0]
    #[arg(long, value_name = "NUM")]
    pub argc: Option<Whole>,
    /// What each of these arguments may be, by its position [default: anything]
    #[arg(long, value_name = "ARGUMENT")]
    pub args: Vec<ArgumentSpec>,
    /// How many clients may wait when all threads are taken; 0: they are told that it is busy [default: 0]
    #[arg(long, value_name = "NUM")]
    pub queue: Option<Whole>,
    /// How long one client may wait; with queue [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub max_wait: Option<Time>,
    /// A client that asks for what is running already, with the same arguments, shares its output
    #[arg(long)]
    pub join: bool,
    /// A program that runs longer is ended: TERM, then KILL; 0: it may run as long as it likes [default: 0]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Time>,

    /// The environment and the limits of the program.
    #[command(flatten)]
    #[serde(flatten)]
    pub process: ProcessSpec,
}

/// The rule for an argument. [`lower`](crate::config::lower) reads the text, so that every mistake is reported.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "this says nothing about an argument; write \"any\", \"int 1..100\", \"^EXPRESSION$\", or a list of words"
)]
pub enum ArgumentSpec {
    /// `any`, `int 1..100`, or an expression that begins with `^`.
    Text(String),
    /// One of these words.
    Words(Vec<String>),
}

/// The conversion that clap requires of the type of an option.
impl From<&str> for ArgumentSpec {
    fn from(text: &str) -> Self {
        ArgumentSpec::Text(text.to_owned())
    }
}

impl CommandSpec {
    /// Overwrites settings in `under` with the settings made here: key by key, a list as a whole. A switch that is on
    /// in either is on. Returns the keys of the settings made here.
    pub fn overlay_onto(self, under: &mut CommandSpec) -> Vec<&'static str> {
        let CommandSpec {
            list,
            kill_timeout,
            linger,
            stop_timeout,
            log_args,
            debug,
            listen,
            read_timeout,
            write_timeout,
            quiet_time,
            max_message,
            max_buffer,
            // No flag sets it.
            handed_over: _,
        } = self;
        let mut said = Vec::new();
        overlay(&mut said, "list", list, &mut under.list);
        overlay(&mut said, "kill-timeout", kill_timeout, &mut under.kill_timeout);
        overlay(&mut said, "linger", linger, &mut under.linger);
        overlay(&mut said, "stop-timeout", stop_timeout, &mut under.stop_timeout);
        overlay(&mut said, "log-args", log_args, &mut under.log_args);
        overlay(&mut said, "debug", debug, &mut under.debug);
        overlay(&mut said, "read-timeout", read_timeout, &mut under.read_timeout);
        overlay(&mut said, "write-timeout", write_timeout, &mut under.write_timeout);
        overlay(&mut said, "quiet-time", quiet_time, &mut under.quiet_time);
        overlay(&mut said, "max-message", max_message, &mut under.max_message);
        overlay(&mut said, "max-buffer", max_buffer, &mut under.max_buffer);
        overlay_listening(&mut said, listen, &mut under.listen);
        said
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{Command, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        spec: CommandSpec,
    }

    #[test]
    fn settings_made_here_override_the_others() {
        let five = Some(Time(Duration::from_secs(5)));
        let mut under = CommandSpec {
            linger: five,
            quiet_time: five,
            debug: true,
            ..CommandSpec::default()
        };
        under.listen.listen = vec!["unix:/a".to_owned(), "unix:/b".to_owned()];
        under.listen.access.allow = vec!["::1".to_owned()];
        let mut over = CommandSpec {
            linger: Some(Time(Duration::from_secs(7))),
            ..CommandSpec::default()
        };
        over.listen.listen = vec!["unix:/c".to_owned()];
        assert_eq!(over.overlay_onto(&mut under), ["linger", "listen"]);
        assert_eq!(
            (under.linger, under.quiet_time),
            (Some(Time(Duration::from_secs(7))), five)
        );
        assert_eq!(
            (&*under.listen.listen, &*under.listen.access.allow),
            (&["unix:/c".to_owned()][..], &["::1".to_owned()][..])
        );
        assert!(under.debug);
    }

    #[test]
    fn every_flag_is_overlaid_under_its_own_name() {
        let command = CommandSpec::augment_args(Command::new("command"));
        for flag in command.get_arguments() {
            let name = flag.get_long().unwrap();
            let value = match name {
                "list" | "log-args" => Some("no"),
                "debug" | "accept-proxy-optional" => None,
                "socket-mode" => Some("0660"),
                "min-tls" => Some("1.3"),
                _ => Some("7"),
            };
            let flag = value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}"));
            let spec = Flags::try_parse_from(["command", &flag]).unwrap().spec;
            let mut under = CommandSpec::default();
            assert_eq!(spec.clone().overlay_onto(&mut under), [name]);
            assert_eq!(under, spec, "{flag}");
        }
    }
}
