//! The keys that each kind of table may have.

use std::sync::OnceLock;

use clap::{Args, Command};

use crate::config::spec::command::{CommandSpec, EntrySpec};
use crate::config::spec::exec::ExecSpec;
use crate::config::spec::log::LogTable;
use crate::config::spec::pool::PoolSpec;
use crate::config::spec::route::{RouteSpec, ServiceSpec, StoreSpec};
use crate::config::spec::tunnel::TunnelSpec;

/// A spec whose keys can stand in a file.
pub(super) trait Spec: Args {
    /// Returns the clap definition of the flags with the same names. It is created once, because a file may have any
    /// number of tables.
    fn definition() -> &'static Command;
}

/// Returns the definition in `place`, and creates it first if needed. Each spec has a place of its own.
fn made_once<S: Args>(place: &'static OnceLock<Command>) -> &'static Command {
    place.get_or_init(|| S::augment_args(Command::new("keys")))
}

impl Spec for PoolSpec {
    fn definition() -> &'static Command {
        static MADE: OnceLock<Command> = OnceLock::new();
        made_once::<Self>(&MADE)
    }
}

impl Spec for ExecSpec {
    fn definition() -> &'static Command {
        static MADE: OnceLock<Command> = OnceLock::new();
        made_once::<Self>(&MADE)
    }
}

impl Spec for CommandSpec {
    fn definition() -> &'static Command {
        static MADE: OnceLock<Command> = OnceLock::new();
        made_once::<Self>(&MADE)
    }
}

impl Spec for EntrySpec {
    fn definition() -> &'static Command {
        static MADE: OnceLock<Command> = OnceLock::new();
        made_once::<Self>(&MADE)
    }
}

impl Spec for RouteSpec {
    fn definition() -> &'static Command {
        static MADE: OnceLock<Command> = OnceLock::new();
        made_once::<Self>(&MADE)
    }
}

impl Spec for ServiceSpec {
    fn definition() -> &'static Command {
        static MADE: OnceLock<Command> = OnceLock::new();
        made_once::<Self>(&MADE)
    }
}

impl Spec for StoreSpec {
    fn definition() -> &'static Command {
        static MADE: OnceLock<Command> = OnceLock::new();
        made_once::<Self>(&MADE)
    }
}

impl Spec for TunnelSpec {
    fn definition() -> &'static Command {
        static MADE: OnceLock<Command> = OnceLock::new();
        made_once::<Self>(&MADE)
    }
}

impl Spec for LogTable {
    fn definition() -> &'static Command {
        static MADE: OnceLock<Command> = OnceLock::new();
        made_once::<Self>(&MADE)
    }
}
