//! The relay of a route: its bytes go both ways, until both sides have ended or one is lost.

use log::Level;

use super::super::core::event::{Event, Side};
use super::super::report;
use super::end::End;
use super::routes::{Route, Stage};
use super::{RouteDoor, RouteSource};
use crate::reactor::{Context, Key, Readiness, SourceKind};
use crate::relay::carrier::{Carrier, Tools};
use crate::relay::conversation::{self, Conversation, Outcome, Standing};

/// The numbers of bytes that were passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct Traffic {
    /// From clients to servers.
    pub(in super::super) input: u64,
    /// From servers to clients.
    pub(in super::super) output: u64,
    /// Both ways, past the memory of this process.
    pub(in super::super) spliced: u64,
}

/// The relay of one route.
#[derive(Debug)]
pub(super) struct Relay {
    conversation: Conversation,
    pub(super) server: End,
    /// The number of bytes that the server got before the conversation began.
    first: u64,
    /// The bytes that the statistics of the door have already.
    counted: Traffic,
}

impl Relay {
    /// A relay to a server that has got the first `sent` bytes; `rest` was held as well, and is still to be sent.
    pub(super) fn new(server: End, sent: usize, rest: Vec<u8>) -> Self {
        Relay {
            conversation: Conversation::new(rest, Vec::new()),
            server,
            first: u64::try_from(sent).unwrap_or(u64::MAX),
            counted: Traffic::default(),
        }
    }

    /// Takes in an event of the poll for one side.
    pub(super) fn note(&mut self, side: Side, readiness: Readiness) {
        let side = match side {
            Side::Client => conversation::Side::Client,
            Side::Server => conversation::Side::Server,
        };
        self.conversation.note(side, readiness);
    }

    /// The bytes that were passed on so far.
    pub(super) fn traffic(&self) -> Traffic {
        let (up, down) = (self.conversation.up(), self.conversation.down());
        Traffic {
            input: self.first + up.direction().delivered(),
            output: down.direction().delivered(),
            spliced: up.spliced() + down.spliced(),
        }
    }

    /// Returns the bytes that were passed on since the last call.
    fn take_uncounted(&mut self) -> Traffic {
        let seen = self.traffic();
        let before = std::mem::replace(&mut self.counted, seen);
        Traffic {
            input: seen.input - before.input,
            output: seen.output - before.output,
            spliced: seen.spliced - before.spliced,
        }
    }

    /// Returns the sides whose output has ended and was passed on, with its end.
    fn ended(&self) -> [Option<Side>; 2] {
        let ended = |way: &Carrier, side| Some(side).filter(|_| way.direction().has_ended());
        let (up, down) = (self.conversation.up(), self.conversation.down());
        [ended(up, Side::Client), ended(down, Side::Server)]
    }
}

impl RouteDoor {
    /// Passes on what can be, and reports the ends that have come.
    pub(super) fn carry(&mut self, cx: &mut Context<'_>, key: Key) {
        let RouteDoor {
            routes, pipes, traffic, ..
        } = self;
        let Some(Route {
            client,
            life,
            stage: Stage::Relaying(relay),
            ..
        }) = routes.get_mut(key)
        else {
            return;
        };
        let (mut scratch, now) = (cx.lend_buffer(), cx.now());
        let mut tools = Tools {
            scratch: &mut scratch,
            pipes,
            now,
        };
        let standing = relay.conversation.run(client, &mut relay.server, &mut tools);
        cx.return_buffer(scratch);
        let more = relay.take_uncounted();
        traffic.add(more);
        for (count, side) in [(more.input, Side::Client), (more.output, Side::Server)] {
            if count > 0 {
                life.note_bytes(side, now);
            }
        }
        let ended = relay.ended();
        self.tend_pipes(cx);
        for side in ended.into_iter().flatten() {
            self.tell(cx, key, Event::Ended(side));
        }
        match standing {
            Standing::Waiting => {}
            Standing::MoreLater => cx.resume_later(RouteSource::Route.at(key)),
            // Both ends were reported.
            Standing::Over(Outcome::Complete) => {}
            Standing::Over(Outcome::Failed(side)) => self.tell(cx, key, Event::Lost(side_of(side))),
            // The other side may be about to send.
            Standing::Over(Outcome::Closed(side)) => self.begin_closing(cx, key, side_of(side).other()),
        }
    }

    /// Logs a shortage of pipes, and sees to it that idle ones are closed.
    fn tend_pipes(&mut self, cx: &mut Context<'_>) {
        if let Some(shortage) = self.pipes.take_shortage() {
            let line = report::short_of_pipes(shortage);
            self.front.note(cx, Level::Warn, report::PIPES, format_args!("{line}"));
        }
        if self.pipes_alarm.at().is_none() {
            self.close_idle_pipes(cx);
        }
    }

    pub(super) fn close_idle_pipes(&mut self, cx: &mut Context<'_>) {
        cx.clear_alarm(&mut self.pipes_alarm);
        let next = self.pipes.close_idle(cx.now());
        cx.set_alarm(&mut self.pipes_alarm, RouteSource::Pipes.only(), next);
    }
}

impl Traffic {
    fn add(&mut self, more: Traffic) {
        self.input += more.input;
        self.output += more.output;
        self.spliced += more.spliced;
    }
}

fn side_of(side: conversation::Side) -> Side {
    match side {
        conversation::Side::Client => Side::Client,
        conversation::Side::Server => Side::Server,
    }
}
