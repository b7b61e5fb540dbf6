//! Signals that a client passes on to its program. They are kept until the program is started, and sent to its process
//! group.

use log::Level;
use nix::sys::signal::Signal;

use super::super::core::client::ClientEvent;
use super::ExecDoor;
use super::connection::{Connection, Moved};
use crate::doors::programs::SYSTEM;
use crate::reactor::{Context, Key};

/// The signals that are not sent yet, in their order. As in the kernel, one that waits already is not kept twice, so
/// there are never more than there are kinds.
#[derive(Debug, Default)]
pub(super) struct Signals(Vec<i32>);

impl Signals {
    pub(super) fn keep(&mut self, signal: i32) {
        if !self.0.contains(&signal) {
            self.0.push(signal);
        }
    }
}

impl Connection {
    /// Takes the next signal to a program that has been started.
    pub(super) fn next_signal(&mut self) -> Moved {
        if self.program.is_none() || self.signals.0.is_empty() {
            return Moved::Nothing;
        }
        Moved::Event(ClientEvent::Signal(self.signals.0.remove(0)))
    }
}

impl ExecDoor {
    pub(super) fn signal_program(&mut self, cx: &mut Context<'_>, key: Key, number: i32) {
        let program = self.connections.get(key).and_then(|it| it.program.as_ref());
        // The reader of requests has checked that there is such a signal.
        let (Some(program), Ok(signal)) = (program, Signal::try_from(number)) else {
            return;
        };
        let (pid, sent) = (program.pid(), program.signal(signal));
        match sent {
            Ok(()) => self.trace(key, format_args!("{signal} for process {pid} and its group")),
            Err(error) => {
                let line = format_args!("cannot send {signal} to process {pid} and its group: {error}");
                self.front.note(cx, Level::Error, SYSTEM, line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_kind_is_kept_in_order() {
        let mut signals = Signals::default();
        for signal in [15, 2, 15, 15, 1] {
            signals.keep(signal);
        }
        assert_eq!(signals.0, [15, 2, 1]);
    }
}
