//! The settings of an exec door as written: `iotcpd exec [flags] SOCKET`, and a table `[exec.NAME]` of a file.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::listen::ListenSpec;
use super::process::ProcessSpec;
use super::yes_no::YesNo;
use crate::config::units::{Size, Time};

/// All settings of an exec door. The flags of sockexec keep their letters.
// Three of the shared flags have letters and defaults of their own here.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[command(
    mut_arg("backlog", |flag| flag
        .short('q')
        .help("Length of the kernel's queue of connections not yet accepted [default: 100]")),
    mut_arg("socket_mode", |flag| flag
        .short('M')
        .help("Permissions of the UNIX sockets, in octal [default: 0660]")),
    mut_arg("max_connections", |flag| flag
        .short('m')
        .help("At most this many clients, and this many programs, at once [default: 100]")),
)]
pub struct ExecSpec {
    /// How programs are asked for: netstrings as of sockexec, or the command lines of sockproc [default: sockexec]
    #[arg(long, value_name = "PROTOCOL", help_heading = "Programs")]
    pub protocol: Option<Protocol>,
    /// A program that runs longer is ended: TERM, then KILL; 0: it may run as long as it likes [default: 60s]
    #[arg(short, long, value_name = "TIME", help_heading = "Programs")]
    pub timeout: Option<Time>,
    /// From TERM to KILL for a program that does not end [default: 10s]
    #[arg(short, long, value_name = "TIME", help_heading = "Programs")]
    pub kill_timeout: Option<Time>,
    /// How long output is awaited after a program's exit while something it has started holds it open [default: 1s]
    #[arg(long, value_name = "TIME", help_heading = "Programs")]
    pub linger: Option<Time>,
    /// How long programs may run on once the daemon is told to stop [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Programs")]
    pub stop_timeout: Option<Time>,
    /// The longest that the arguments of a program may be together, nine bytes more counted for each [default: 1MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Programs")]
    pub max_arguments: Option<Size>,
    /// With --protocol sockproc: how much output of a program is held until its end; one that writes more is ended [default: 4MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Programs")]
    pub max_output: Option<Size>,
    /// Only programs of this path, or of paths like this pattern, may be run; may be repeated [default: all]
    #[arg(long, value_name = "PATTERN", help_heading = "Programs")]
    pub allow_program: Vec<String>,
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

    /// Only this user may connect over a UNIX socket, by name or number; may be repeated [default: all]
    #[arg(long, value_name = "USER", help_heading = "Who may connect")]
    pub allow_user: Vec<String>,
    /// Only members of this group may connect over a UNIX socket, and who --allow-user names; may be repeated [default: all]
    #[arg(long, value_name = "GROUP", help_heading = "Who may connect")]
    pub allow_group: Vec<String>,

    /// How long a client may take until the arguments are complete [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub read_timeout: Option<Time>,
    /// How long a client may leave what is left of its output unread once its program has ended [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub write_timeout: Option<Time>,
    /// How much of a connection is held in memory each way before its sender has to wait [default: 256KiB]
    #[arg(long, value_name = "SIZE", help_heading = "Connections")]
    pub max_buffer: Option<Size>,

    /// The environment and the limits of the programs.
    #[command(flatten)]
    #[serde(flatten)]
    pub process: ProcessSpec,
}

/// The protocol in which a program is requested and its end is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The protocol of sockexec 3.1.
    Sockexec,
    /// The protocol of sockproc.
    Sockproc,
}

/// Not derived, for the reason given at [`HalfClose`](super::pool::HalfClose).
impl ValueEnum for Protocol {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Sockexec, Self::Sockproc]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Sockexec => "sockexec",
            Self::Sockproc => "sockproc",
        }))
    }
}
