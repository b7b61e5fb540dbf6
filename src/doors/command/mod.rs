//! The command door: one of the commands named in its options is run for each client that asks for it, with the client's
//! arguments, and so many of each at once.
//!
//! The story of a connection. A client connects and sends a name, is prompted for each argument, and sends those
//! ([`core::exchange`] cuts the messages). Each is held against what the operator allows. [`core::scheduler`] starts a program
//! for the request, or has it wait, or share the output of one that runs, or be told `busy`. From then on what the client
//! sends is the program's input, and what the program puts out on either of its streams comes back as it is (`shell::runs`).
//! When it has exited, and its output has ended or has been awaited long enough, the client is let go.
//!
//! What holds: what a client sends is never a shell's text, only a name that is looked up and arguments that are passed on; a
//! client that is slow slows its own program and nothing else, unless it shares one, and then not for long; the memory of a
//! connection is bounded whatever passes. What does not belong here: who binds the listeners, and when to reload: that is the
//! daemon's.

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
use crate::reactor::Context;
use crate::stats::Snapshot;

pub use shell::{CommandDoor, Programs, lay_out};

impl Door for CommandDoor {
    fn start(&mut self, _cx: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn accept(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.begin_accepting(cx)
    }

    fn listeners(&self) -> Vec<(&ListenAddr, &Listener)> {
        self.listening().collect()
    }

    fn options(&self) -> super::Options {
        super::Options::Command(Box::new(self.current_options().clone()))
    }

    fn adopt(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        self.welcome(cx, conn, origin);
    }

    fn reload(&mut self, cx: &mut Context<'_>, options: super::Options, kit: Kit, new: Listeners) -> Result<(), Error> {
        match (options, kit) {
            (super::Options::Command(options), Kit::Command(programs)) => {
                self.change(cx, *options, programs, new);
                Ok(())
            }
            (other, _) => Err(super::other_kind(&self.current_options().front.name, &other)),
        }
    }

    fn equip(&mut self, kit: Kit) {
        if let Kit::Command(programs) = kit {
            self.start_with(programs);
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
