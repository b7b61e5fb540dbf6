//! The requests and answers of one HTTP/1 connection, one at a time, in per-request mode.
//!
//! ```text
//! Idle ── head of a request ── begin ──> Busy ── both bodies have ended ──> Idle
//!                                          └──── 101, or 2xx to CONNECT ──> Raw, for good
//! ```
//!
//! A client may send the next request before it has its answer. It is held until then: an answer of the router (421)
//! must not overtake the answer of the server. The bytes are passed on as they are; [`Exchange`] tells how many, and is
//! pure.
//!
//! The invariants: no head is passed on before it was begun, so each one is routed; a server never answers what was not
//! asked; and the end of a message is only what every program takes for it ([`body`]).

use std::fmt;

use super::body::{self, Body, Framing, framing};
use super::head::{self, Head, MOST_HEADERS, Progress};

/// The exchange of one connection.
#[derive(Debug, Clone)]
pub struct Exchange {
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// No request is under way. The head of the next one was searched up to here.
    Idle(Progress),
    /// A request is under way: the rest of its body, and of its answer.
    Busy {
        request: Body,
        answer: Answer,
        asked: Asked,
    },
    /// Both sides speak another protocol.
    Raw,
}

/// The rest of an answer.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// Its head was searched up to here.
    Head(Progress),
    /// Its body.
    Body(Body),
}

/// The methods whose answers end in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Head,
    Connect,
    Other,
}

/// The finding about the bytes of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromClient<'a> {
    /// Nothing can be passed on now: more bytes are needed, or the rest is for the time after the answer.
    Hold,
    /// The head of a request. It is to be routed, then [begun](Exchange::begin).
    Head(Head<'a>),
    /// This number of bytes, at least one, is to be passed on.
    Pass(usize),
    /// They are no valid request.
    Wrong(Fault),
}

/// The finding about the bytes of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromServer {
    /// More bytes are needed.
    Hold,
    /// This number of bytes, at least one, is to be passed on.
    Pass(usize),
    /// They are no valid answer.
    Wrong(Fault),
}

/// The part of the last answer that was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// Nothing but interim answers: another answer may take its place.
    Nothing,
    /// The beginning, or bytes of another protocol.
    Part,
    /// All of it, or no answer is owed.
    Whole,
}

/// A fault in a request or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The head has a fault.
    Head(head::Fault),
    /// The length of the body is not clear.
    Body(body::Fault),
    /// The server has sent bytes for which no request was made.
    Unasked,
    /// The server has ended before its answer was complete.
    BrokenOff,
    /// The server has changed the protocol before the request had ended.
    TooEarly,
    /// The server has changed the protocol to another HTTP, in which requests for other hosts would follow unseen, or
    /// does not name it.
    Protocol,
}

/// Writes the fault as the end of a sentence that begins "its request" or "its answer".
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Head(fault) => fault.fmt(f),
            Fault::Body(fault) => fault.fmt(f),
            Fault::Unasked => f.write_str("is not the answer to a request"),
            Fault::BrokenOff => f.write_str("is not there, or is broken off"),
            Fault::TooEarly => f.write_str("changes the protocol before the request has ended"),
            Fault::Protocol => f.write_str("changes to HTTP/2, or to a protocol without a name"),
        }
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Exchange {
            state: State::Idle(Progress::default()),
        }
    }
}

impl Exchange {
    /// Judges the bytes of the client that are held, all of them.
    pub fn from_client<'a>(&mut self, bytes: &'a [u8]) -> FromClient<'a> {
        match &mut self.state {
            State::Idle(progress) => match head::parse(bytes, progress) {
                head::Parsed::NeedMore => FromClient::Hold,
                head::Parsed::Head(head) => FromClient::Head(head),
                head::Parsed::Wrong(fault) => FromClient::Wrong(Fault::Head(fault)),
            },
            State::Busy { request, .. } => match request.advance(bytes) {
                Ok(0) => FromClient::Hold,
                Ok(count) => {
                    self.end_if_complete();
                    FromClient::Pass(count)
                }
                Err(fault) => FromClient::Wrong(Fault::Body(fault)),
            },
            State::Raw if bytes.is_empty() => FromClient::Hold,
            State::Raw => FromClient::Pass(bytes.len()),
        }
    }

    /// Begins the request with this head, which was found last. Returns the number of bytes that are to be passed on.
    pub fn begin(&mut self, head: &Head<'_>) -> Result<usize, Fault> {
        let request = body_behind(head)?;
        let asked = match head.method {
            "HEAD" => Asked::Head,
            "CONNECT" => Asked::Connect,
            _other => Asked::Other,
        };
        let answer = Answer::Head(Progress::default());
        self.state = State::Busy { request, answer, asked };
        Ok(head.bytes.len())
    }

    /// Judges the bytes of the server that are held, all of them.
    pub fn from_server(&mut self, bytes: &[u8]) -> FromServer {
        if bytes.is_empty() {
            return FromServer::Hold;
        }
        let found = match &mut self.state {
            State::Idle(_) => Err(Fault::Unasked),
            State::Raw => return FromServer::Pass(bytes.len()),
            State::Busy {
                answer: Answer::Body(body),
                ..
            } if body.is_ended() => Err(Fault::Unasked),
            State::Busy {
                answer: Answer::Body(body),
                ..
            } => body.advance(bytes).map_err(Fault::Body),
            State::Busy {
                answer: Answer::Head(progress),
                request,
                asked,
            } => match progress.find_end(bytes) {
                Ok(None) => Ok(0),
                Ok(Some(head)) => behind_head(head, *asked, request).map(|next| {
                    self.follow(next);
                    head.len()
                }),
                Err(fault) => Err(Fault::Head(fault)),
            },
        };
        match found {
            Ok(0) => FromServer::Hold,
            Ok(count) => {
                self.end_if_complete();
                FromServer::Pass(count)
            }
            Err(fault) => FromServer::Wrong(fault),
        }
    }

    /// Returns true if the end of the server's output is the end of an answer, or stands between two.
    pub fn may_server_end(&self) -> bool {
        match &self.state {
            State::Idle(_) | State::Raw => true,
            State::Busy {
                answer: Answer::Body(body),
                ..
            } => matches!(body, Body::UntilClose) || body.is_ended(),
            State::Busy {
                answer: Answer::Head(_),
                ..
            } => false,
        }
    }

    /// Returns true if no request is under way, so that an answer of the router may be sent.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle(_))
    }

    /// Returns true if the request under way is complete: what the client sends behind it is for the time after the
    /// answer.
    pub fn is_answer_awaited(&self) -> bool {
        match &self.state {
            State::Busy { request, .. } => request.is_ended(),
            State::Idle(_) | State::Raw => false,
        }
    }

    /// Returns the part of the last answer that was passed on.
    pub fn given(&self) -> Given {
        match &self.state {
            State::Idle(_) => Given::Whole,
            State::Raw => Given::Part,
            State::Busy { answer, .. } => match answer {
                Answer::Head(_) => Given::Nothing,
                Answer::Body(body) if body.is_ended() => Given::Whole,
                Answer::Body(_) => Given::Part,
            },
        }
    }

    /// Returns true if both sides have left HTTP/1, so that their bytes need not be judged any more.
    pub fn is_raw(&self) -> bool {
        matches!(self.state, State::Raw)
    }

    fn follow(&mut self, next: Behind) {
        match (&mut self.state, next) {
            (state, Behind::Raw) => *state = State::Raw,
            (State::Busy { answer, .. }, Behind::Answer(next)) => *answer = next,
            // No answer is under way.
            (State::Idle(_) | State::Raw, Behind::Answer(_)) => {}
        }
    }

    fn end_if_complete(&mut self) {
        let is_complete = match &self.state {
            State::Busy {
                request,
                answer: Answer::Body(answer),
                ..
            } => request.is_ended() && answer.is_ended(),
            State::Busy {
                answer: Answer::Head(_),
                ..
            }
            | State::Idle(_)
            | State::Raw => false,
        };
        if is_complete {
            *self = Exchange::default();
        }
    }
}

/// Returns the body behind the head of a request.
pub fn body_behind(head: &Head<'_>) -> Result<Body, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let lines = head.bytes.get(head.request_line..).unwrap_or_default();
    let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(lines, &mut headers) else {
        return Err(Fault::Head(head::Fault::Header));
    };
    Ok(match framing(headers, head.minor_version).map_err(Fault::Body)? {
        Framing::Length(length) => Body::Length(length),
        Framing::Chunked => Body::Size,
        Framing::Unsaid => Body::ENDED,
    })
}

/// Returns true if these headers of an answer 101 name the protocols that follow, and HTTP/2 is not among them.
fn leaves_http(headers: &[httparse::Header<'_>]) -> bool {
    let is_other = |protocol: &[u8]| {
        let name = protocol.trim_ascii().to_ascii_lowercase();
        !name.is_empty() && name != b"h2c" && name != b"h2" && !name.starts_with(b"http/")
    };
    let is_upgrade = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("upgrade");
    let upgrades: Vec<_> = headers.iter().filter(is_upgrade).collect();
    let are_others = |header: &&httparse::Header<'_>| header.value.split(|byte| *byte == b',').all(is_other);
    !upgrades.is_empty() && upgrades.iter().all(are_others)
}

/// The bytes behind the head of an answer.
enum Behind {
    /// The rest of the answer; another head, if this one was of an interim answer.
    Answer(Answer),
    /// Another protocol.
    Raw,
}

/// Reads the complete head of an answer, whose lines all end in CR LF.
fn behind_head(head: &[u8], asked: Asked, request: &Body) -> Result<Behind, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let is_complete = answer
        .parse(head)
        .is_ok_and(|status| status == httparse::Status::Complete(head.len()));
    let (true, Some(status), Some(minor_version)) = (is_complete, answer.code, answer.version) else {
        return Err(Fault::Head(head::Fault::Header));
    };
    let is_raw = status == 101 || (asked == Asked::Connect && (200..300).contains(&status));
    if is_raw {
        return match request.is_ended() {
            _any if status == 101 && !leaves_http(answer.headers) => Err(Fault::Protocol),
            true => Ok(Behind::Raw),
            false => Err(Fault::TooEarly),
        };
    }
    if (100..200).contains(&status) {
        return Ok(Behind::Answer(Answer::Head(Progress::default())));
    }
    let framing = framing(answer.headers, minor_version).map_err(Fault::Body)?;
    let has_no_body = asked == Asked::Head || status == 204 || status == 304;
    let body = match framing {
        _any if has_no_body => Body::ENDED,
        Framing::Length(length) => Body::Length(length),
        Framing::Chunked => Body::Size,
        Framing::Unsaid => Body::UntilClose,
    };
    Ok(Behind::Answer(Answer::Body(body)))
}

#[cfg(test)]
mod tests;
