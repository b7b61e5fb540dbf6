//! The relay of a route: its bytes go both ways, until both sides have ended or one is lost.

use super::super::core::event::{ConnectFault, Event, Side, Step};
use super::super::core::filter::{Filter, Finding};
use super::super::core::head::Head;
use super::end::Server;
use super::routes::{Route, Stage};
use super::streams::Stream;
use super::tunnels::Sessions;
use super::{RouteDoor, RouteSource, filtering, id};
use crate::doors::socket_end::SocketEnd;
use crate::reactor::{Context, Key, Readiness, SourceKind};
use crate::relay::carrier::{Carrier, Tools};
use crate::relay::conversation::{self, Conversation, Outcome, Standing};
use crate::relay::pipes::Pipe;

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
    pub(super) server: Server,
    /// In per-request mode the bytes of both sides go through it.
    filter: Option<Box<Filter>>,
    /// The number of bytes that the server got before the conversation began.
    first: u64,
    /// The number of bytes of a header that the conversation begins with, which count for nothing.
    header: u64,
    /// The bytes that the statistics of the door have already.
    counted: Traffic,
}

impl Relay {
    /// A relay to a server that has got the first `sent` bytes; `rest` was held as well, and is still to be sent.
    pub(super) fn new(server: Server, sent: usize, rest: Vec<u8>, filter: Option<Box<Filter>>) -> Self {
        Relay {
            conversation: Conversation::new(rest, Vec::new()),
            server,
            filter,
            first: u64::try_from(sent).unwrap_or(u64::MAX),
            header: 0,
            counted: Traffic::default(),
        }
    }

    /// The same relay, whose rest begins with a header of this length.
    pub(super) fn behind_header(self, length: usize) -> Self {
        Relay {
            header: u64::try_from(length).unwrap_or(u64::MAX),
            ..self
        }
    }

    /// Takes in an event of the poll for the connection to the server.
    pub(super) fn note_server(&mut self, readiness: Readiness) {
        if let Server::Socket(end) = &mut self.server {
            end.note(readiness);
            self.note(Side::Server, readiness);
        }
    }

    /// Takes in that the stream of the server is to be looked at.
    pub(super) fn note_stream(&mut self, sessions: &Sessions) {
        if let Server::Stream(stream) = self.server {
            self.note(Side::Server, sessions.edges_of(stream));
        }
    }

    /// The stream of the server, if it has one, with what was to be written to it next. The relay must not be run again.
    pub(super) fn take_stream(&mut self) -> Option<(Stream, Option<Pipe>)> {
        match self.server {
            Server::Stream(stream) => Some((stream, self.conversation.take_rest(conversation::Side::Server))),
            Server::Socket(_) => None,
        }
    }

    /// The connection to the server, if it has one.
    pub(super) fn into_socket(self) -> Option<SocketEnd> {
        match self.server {
            Server::Socket(end) => Some(end),
            Server::Stream(_) => None,
        }
    }

    /// Returns true if a server behind a tunnel was lost before anything of it came.
    fn is_unanswered(&self) -> bool {
        matches!(self.server, Server::Stream(_)) && self.conversation.down().direction().delivered() == 0
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
            input: (self.first + up.direction().delivered()).saturating_sub(self.header),
            output: down.direction().delivered(),
            spliced: up.spliced() + down.spliced(),
        }
    }

    /// Moves bytes both ways. `admits` is asked about the head of each request, if these are judged.
    fn run(
        &mut self,
        client: &mut SocketEnd,
        sessions: &mut Sessions,
        admits: &mut dyn FnMut(&Head<'_>) -> bool,
        tools: &mut Tools<'_>,
    ) -> Standing {
        let (conversation, filter) = (&mut self.conversation, self.filter.as_deref_mut());
        match &mut self.server {
            Server::Socket(end) => run(conversation, filter, admits, (client, end), tools),
            Server::Stream(stream) => {
                sessions.touch(stream.session);
                match sessions.list.get_mut(stream.session) {
                    Some(tunnel) => {
                        let mut end = tunnel.session.end_of(stream.id);
                        run(conversation, filter, admits, (client, &mut end), tools)
                    }
                    // A session stays until its last stream is released.
                    None => Standing::Over(Outcome::Failed(conversation::Side::Server)),
                }
            }
        }
    }

    /// Returns the reason for which the filter has stopped, once the router can answer it.
    fn finding(&self) -> Option<Finding> {
        let filter = self.filter.as_deref()?;
        filtering::ripe(&self.conversation, filter)
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

    /// Returns true if a filtered client waits for nothing, and has begun its next request.
    fn is_in_head(&self) -> Option<bool> {
        let is_delivered = self.conversation.down().direction().held() == 0;
        self.filter.as_deref().map(|filter| is_delivered && filter.is_in_head())
    }

    /// Returns true if a filtered server has ended, the client knows it, and has nothing more to say to that server.
    fn is_deserted(&self) -> bool {
        let knows_it = self.conversation.down().direction().has_ended();
        knows_it && self.filter.as_deref().is_some_and(Filter::is_over)
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
            routes,
            router,
            pipes,
            traffic,
            sessions,
            ..
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
            pipes: &mut pipes.pipes,
            now,
        };
        let standing = relay.run(client, sessions, &mut |head| router.admits(life, head), &mut tools);
        cx.return_buffer(scratch);
        let more = relay.take_uncounted();
        traffic.add(more);
        for (count, side) in [(more.input, Side::Client), (more.output, Side::Server)] {
            if count > 0 {
                life.note_bytes(side, now);
            }
        }
        if let Some(is_begun) = relay.is_in_head() {
            router.note_head(life, is_begun, now);
        }
        let ended = relay.ended();
        let is_deserted = relay.is_deserted();
        let finding = relay.finding();
        let is_unanswered = relay.is_unanswered();
        self.pipes.tend(cx, &mut self.front);
        if let Some(finding) = finding {
            return self.tell_finding(cx, key, finding);
        }
        for side in ended.into_iter().flatten() {
            self.tell(cx, key, Event::Ended(side));
        }
        match standing {
            Standing::Waiting | Standing::MoreLater if is_deserted => self.begin_closing(cx, key, Side::Client),
            Standing::Waiting => {}
            Standing::MoreLater => cx.resume_later(RouteSource::Route.at(key)),
            // Both ends were reported.
            Standing::Over(Outcome::Complete) => {}
            Standing::Over(Outcome::Failed(conversation::Side::Server)) if is_unanswered => {
                self.tell(cx, key, Event::ConnectFailed(ConnectFault::Server));
            }
            Standing::Over(Outcome::Failed(side)) => self.tell(cx, key, Event::Lost(side_of(side))),
            // The other side may be about to send.
            Standing::Over(Outcome::Closed(side)) => self.begin_closing(cx, key, side_of(side).other()),
        }
    }

    /// Reports that the filter of a route has stopped, and for which reason.
    fn tell_finding(&mut self, cx: &mut Context<'_>, key: Key, finding: Finding) {
        let Some(Route {
            life,
            stage: Stage::Relaying(relay),
            ..
        }) = self.routes.get_mut(key)
        else {
            return;
        };
        let Some(filter) = relay.filter.as_deref_mut() else {
            return;
        };
        let event = match finding {
            Finding::Unfit => Event::Bytes(filter.held()),
            Finding::Garbled(side, fault) => Event::Garbled {
                side,
                fault,
                given: filter.given(),
            },
        };
        let step = self.router.advance(id(key), life, event, cx.now());
        if step == Step::Nothing {
            filter.resume();
            cx.resume_later(RouteSource::Route.at(key));
        }
        self.follow(cx, key, step);
    }
}

/// Runs a conversation, through a filter if there is one.
fn run<S: filtering::Strainable>(
    conversation: &mut Conversation,
    filter: Option<&mut Filter>,
    admits: &mut dyn FnMut(&Head<'_>) -> bool,
    (client, server): (&mut SocketEnd, &mut S),
    tools: &mut Tools<'_>,
) -> Standing {
    match filter {
        None => conversation.run(client, server, tools),
        Some(filter) => filtering::run(conversation, filter, admits, (client, server), tools),
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
