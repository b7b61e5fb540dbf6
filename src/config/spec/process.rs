//! The environment and the limits of a program: the part of a spec that every spawning door shares.

use clap::Args;
use serde::Deserialize;

use crate::config::units::{Size, Time, Whole};

/// The environment and the limits of a child process, as written.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[command(next_help_heading = "What programs run with")]
pub struct ProcessSpec {
    /// Run programs as this user, by name or number [default: the daemon's]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Run programs in this group, by name or number [default: the first group of --user]
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Start programs in this directory [default: the daemon's]
    #[arg(long, value_name = "DIR")]
    pub chdir: Option<String>,
    /// Set a variable in the programs' environment; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Start from an empty environment instead of the daemon's
    #[arg(long)]
    pub clear_env: bool,
    /// Scheduling priority of programs, -20 (first) to 19 (last) [default: the daemon's]
    #[arg(long, value_name = "NUM", allow_negative_numbers = true)]
    pub nice: Option<Whole>,
    /// Most address space of a program [default: the daemon's limit]
    #[arg(long, value_name = "SIZE")]
    pub limit_memory: Option<Size>,
    /// Most processor time of a program, in whole seconds [default: the daemon's limit]
    #[arg(long, value_name = "TIME")]
    pub limit_cpu: Option<Time>,
    /// Most open files of a program [default: the daemon's limit]
    #[arg(long, value_name = "NUM")]
    pub limit_open_files: Option<Whole>,
    /// Most processes of the programs' user [default: the daemon's limit]
    #[arg(long, value_name = "NUM")]
    pub limit_processes: Option<Whole>,
    /// Programs and their children can never gain privileges (no set-user-ID)
    #[arg(long)]
    pub no_new_privs: bool,
    /// What a program leaves in the background when it exits goes on, even beyond the daemon
    #[arg(long)]
    pub leave_background: bool,
    /// Programs can read only what programs need to run, and change no file (Landlock)
    #[arg(long)]
    pub sandbox: bool,
    /// With --sandbox: they can also read and execute this file or directory; may be repeated
    #[arg(long, value_name = "PATH")]
    pub sandbox_read: Vec<String>,
    /// With --sandbox: they can also read and change this file or directory; may be repeated
    #[arg(long, value_name = "PATH")]
    pub sandbox_write: Vec<String>,
}
