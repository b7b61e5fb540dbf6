//! The exec door: a program of the client's choice is run for it, and its streams and exit status are framed back.
//!
//! The story of a connection. A client connects, is let in or not ([`core::permits`]), and sends arguments as netstrings
//! ([`core::request`] reads them). The program is looked up, may be run or not, and is started (`shell::programs`), what
//! follows goes into its standard input, and what it writes comes back as pairs of a type and data ([`core::reply`]), as fast
//! as both sides take it (`shell::connection`). When it has exited, and its outputs have ended or have been awaited long
//! enough, the client is told how, and let go. [`core::client`] decides all of it. What is said on the wire may also be another
//! protocol ([`core::protocol`]), with the same life behind it.
//!
//! What holds: nobody gets a program that the lists do not give him; a client that is slow slows its own program and nothing
//! else; the memory of a connection is bounded whatever passes; nothing that a program has started outlives the connection, but
//! where that is wanted. What does not belong here: who binds the listeners, and when to reload: that is the daemon's.

pub mod core;
pub mod options;
mod report;
mod shell;

use std::time::Instant;

use super::{Door, Kit, Listeners};
use crate::error::Error;
use crate::net::addr::ListenAddr;
use crate::net::conn::Conn;
use crate::net::listener::Listener;
use crate::net::origin::Origin;
use crate::process::spawn::{SpawnDefaults, Spawner};
use crate::reactor::Context;
use crate::stats::Snapshot;

pub use shell::ExecDoor;

/// What programs are started with. Whether they could be is to be known now: whoever asks for one could not mend it.
///
/// # Errors
/// What keeps every program from being started.
pub fn lay_out(options: &options::Options, defaults: &SpawnDefaults) -> Result<Spawner, Error> {
    shell::spawner(options, defaults)
}

impl Door for ExecDoor {
    fn start(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.open_desk(cx);
        Ok(())
    }

    fn accept(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.begin_accepting(cx)
    }

    fn listeners(&self) -> Vec<(&ListenAddr, &Listener)> {
        self.listening().collect()
    }

    fn options(&self) -> super::Options {
        super::Options::Exec(Box::new(self.current_options().clone()))
    }

    fn adopt(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        self.welcome(cx, conn, origin);
    }

    fn reload(&mut self, cx: &mut Context<'_>, options: super::Options, kit: Kit, new: Listeners) -> Result<(), Error> {
        match (options, kit) {
            (super::Options::Exec(options), Kit::Exec(spawner)) => self.change(cx, *options, *spawner, new),
            (other, _) => Err(super::other_kind(&self.current_options().front.name, &other)),
        }
    }

    fn equip(&mut self, kit: Kit) {
        if let Kit::Exec(spawner) = kit {
            self.start_with(*spawner);
        }
    }

    fn roll(&mut self, _cx: &mut Context<'_>) {
        // What runs was asked for by a client, who waits for its end: there is nothing to be replaced.
    }

    fn drain(&mut self, cx: &mut Context<'_>) {
        self.begin_draining(cx);
    }

    fn hand_over(&mut self, cx: &mut Context<'_>) {
        self.leave_to_successor(cx);
    }

    fn hurry(&mut self, cx: &mut Context<'_>) {
        self.hurry_everybody(cx);
    }

    fn is_finished(&self) -> bool {
        self.is_over()
    }

    fn snapshot(&self, now: Instant) -> Snapshot {
        self.report(now)
    }

    fn dump(&self, now: Instant) -> String {
        self.describe(now)
    }
}
