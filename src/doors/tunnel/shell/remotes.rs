//! The servers: each has a place, in which its state decides when it is connected to.

use std::time::Duration;

use log::Level;

use super::super::core::remote::{Event, Remote as State, Step};
use super::super::options::Remote;
use super::super::report;
use super::{TunnelDoor, TunnelSource};
use crate::amount;
use crate::reactor::{Alarm, Context, Key, SourceKind};

/// The place of a server.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) options: Remote,
    pub(super) state: State,
    /// The tunnel that is being made, or takes streams.
    pub(super) current: Option<Key>,
    alarm: Alarm,
}

impl Slot {
    fn new(options: Remote, state: State) -> Self {
        Slot {
            options,
            state,
            current: None,
            alarm: Alarm::default(),
        }
    }
}

impl TunnelDoor {
    pub(super) fn remote_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        self.tell_remote(cx, key, Event::Deadline, "no connection in time");
    }

    /// Reports an event of a server, whose reason is `why`, and does what follows.
    pub(super) fn tell_remote(&mut self, cx: &mut Context<'_>, key: Key, event: Event, why: &str) {
        let Some(slot) = self.remotes.get_mut(key) else { return };
        let step = slot.state.handle(event, cx.now(), &mut self.jitter);
        let name = slot.options.address.to_string();
        match step {
            Step::Nothing => {}
            Step::Connect => {
                slot.current = None;
                self.begin_tunnel(cx, key);
            }
            Step::GiveUp(delay) => {
                self.counters.failed += 1;
                if let Some(current) = slot.current.take() {
                    self.drop_tunnel(cx, current);
                }
                self.note_failed(cx, &name, why, delay);
            }
            Step::Wait(delay) => {
                slot.current = None;
                self.note_failed(cx, &name, why, delay);
            }
        }
        self.set_remote_alarm(cx, key);
    }

    pub(super) fn set_remote_alarm(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(slot) = self.remotes.get_mut(key) {
            cx.set_alarm(&mut slot.alarm, TunnelSource::Remote.at(key), slot.state.deadline());
        }
    }

    /// Gives a server up for good.
    pub(super) fn remove_remote(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(mut slot) = self.remotes.remove(key) {
            cx.clear_alarm(&mut slot.alarm);
            if let Some(current) = slot.current {
                self.send_away(cx, current);
            }
        }
    }

    fn note_failed(&mut self, cx: &mut Context<'_>, name: &str, why: &str, delay: Duration) {
        let delay = amount::span(delay);
        let line = format_args!("{name}: {why}; it is connected to again in {delay}");
        self.front.note(cx, Level::Error, report::REMOTE, line);
    }

    /// Connects to the servers of the options that have no place yet, and gives up the others that have one.
    pub(super) fn follow_remotes(&mut self, cx: &mut Context<'_>) {
        let places: Vec<Key> = self.remotes.iter().map(|(key, _)| key).collect();
        let mut wanted = self.options.remotes.clone();
        let (timeout, longest) = (self.options.connect_timeout, self.options.backoff);
        for key in places {
            let Some(slot) = self.remotes.get_mut(key) else {
                continue;
            };
            match wanted.iter().position(|remote| *remote == slot.options) {
                Some(index) => {
                    wanted.remove(index);
                    slot.state.set_times(timeout, longest);
                }
                None => self.remove_remote(cx, key),
            }
        }
        for remote in wanted {
            let slot = Slot::new(remote, State::new(timeout, longest, cx.now()));
            if let Ok(key) = self.remotes.insert(slot) {
                self.set_remote_alarm(cx, key);
            }
        }
    }
}
