//! One arrival: a connection on its way through the stages in front of its door.
//!
//! ```text
//!                                              ┌──▸ Signature
//!                                              │        │
//! accepted ──▸ Preface ──client known──▸ Handshake ◂────┘ ──done──▸ complete
//!     │           └──without TLS───────────────────────────────────────▴
//!     └──────without a preface───────────────▴
//! ```
//!
//! An arrival is handed back with its [`Progress`] by every step, so that it is held by one owner at a time: by the
//! [table](super::arrivals), which knows its events and deadlines, or by the step that it is making.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Interest;

use super::handshake::{self, Failure, Share};
use super::preface::{Ending, Preface, Refusal, Verdict};
use crate::net::access::AccessList;
use crate::net::conn::{Conn, Received};
use crate::net::origin::{Asserted, Origin};
use crate::net::stream::PeerState;
use crate::net::tls::engine::Engine;
use crate::net::tls::error::Fault;
use crate::net::tls::server::ServerTls;
use crate::net::tls::signature::Unsigned;
use crate::net::tls::transport::Step;
use crate::reactor::{Alarm, Context, Key};

/// The time from accept to the end of the preface. A proxy sends it at once: this leaves room for a lost packet, which
/// is sent again after one second and after three.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) number: u64,
    pub(super) conn: Conn,
    pub(super) place: Place,
    /// The origin as far as it is known: that of its peer before the end of the preface.
    pub(super) origin: Origin,
    pub(super) accepted: Instant,
    pub(super) stage: Stage,
    /// The server that its handshake is made with, if there is to be one.
    pub(super) tls: Option<Arc<ServerTls>>,
    /// The deadline of the stage.
    pub(super) until: Instant,
    pub(super) is_registered: bool,
    pub(super) alarm: Alarm,
}

#[derive(Debug)]
pub(super) enum Stage {
    Preface(Reading),
    /// The client is known, and its handshake is being made.
    Handshake,
    /// Its handshake waits for a signature that a helper thread makes. What comes from the client is left in the kernel.
    Signature,
}

/// A preface that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    preface: Preface,
    /// The bytes that were read; once the preface is complete, the ones behind it.
    pub(super) received: Vec<u8>,
}

/// The place that an arrival has among the connections of its door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The client is not known before the end of the preface: the arrival counts in the total alone.
    Unidentified,
    /// The peer of the socket is the client: the arrival counts under its address as well.
    Direct,
    /// The door has admitted the connection before, knows it by this key, and keeps its place.
    Kept(Key),
}

/// The steps that an arrival has to take. There is one at least.
#[derive(Debug)]
pub(super) enum Plan {
    Preface(Preface, Option<Arc<ServerTls>>),
    Handshake(Arc<ServerTls>),
}

/// The next thing that is awaited of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doors) enum Awaited {
    Preface,
    Handshake,
    /// A signature, for the handshake.
    Signature,
}

/// The reason to end an arrival, before it is taken out of the poll.
#[derive(Debug)]
pub(super) enum End {
    Complete,
    NotPermitted,
    Refuse(Refusal),
    Fail(Failure),
    Close,
}

/// The progress of an arrival. One that goes on is handed back.
#[derive(Debug)]
pub(super) enum Progress {
    Waits(Arrival),
    MoreLater(Arrival),
    /// A helper thread has to make a signature first.
    NeedsSignature(Arrival, Unsigned),
    Ends(Arrival, End),
}

impl Arrival {
    /// An arrival that was accepted at this moment. It must [begin](Self::begin).
    pub(super) fn new(number: u64, conn: Conn, place: Place, origin: Origin, now: Instant) -> Self {
        Self {
            number,
            conn,
            place,
            origin,
            accepted: now,
            stage: Stage::Handshake,
            tls: None,
            until: now + PATIENCE,
            is_registered: false,
            alarm: Alarm::default(),
        }
    }

    /// Begins with the first stage of its plan. A preface is read as far as possible.
    pub(super) fn begin(self, plan: Plan, cx: &mut Context<'_>, access: &AccessList) -> Progress {
        match plan {
            Plan::Preface(preface, tls) => {
                let stage = Stage::Preface(Reading {
                    preface,
                    received: Vec::new(),
                });
                Self { stage, tls, ..self }.read(cx, access)
            }
            Plan::Handshake(tls) => self.begin_handshake(tls, cx),
        }
    }

    pub(super) fn awaited(&self) -> Awaited {
        match self.stage {
            Stage::Preface(_) => Awaited::Preface,
            Stage::Handshake => Awaited::Handshake,
            Stage::Signature => Awaited::Signature,
        }
    }

    /// A handshake writes as well.
    pub(super) fn interest(&self) -> Interest {
        match self.tls {
            None => Interest::READABLE,
            Some(_) => Interest::READABLE | Interest::WRITABLE,
        }
    }

    /// Goes on with a preface as far as possible. A handshake has to wait for its [turn](Self::advance).
    pub(super) fn read(mut self, cx: &mut Context<'_>, access: &AccessList) -> Progress {
        let verdict = match &mut self.stage {
            Stage::Preface(reading) => reading.read(&mut self.conn, cx),
            Stage::Handshake => return Progress::MoreLater(self),
            Stage::Signature => return self.await_signature(),
        };
        self.follow(verdict, access, cx)
    }

    /// Goes as far as possible.
    pub(super) fn advance(self, cx: &mut Context<'_>, share: &mut Share, access: &AccessList) -> Progress {
        match &self.stage {
            Stage::Preface(_) | Stage::Signature => self.read(cx, access),
            Stage::Handshake => self.advance_handshake(cx, share),
        }
    }

    /// Follows the verdict about a preface.
    fn follow(mut self, verdict: Verdict, access: &AccessList, cx: &mut Context<'_>) -> Progress {
        let (taken, asserted, details) = match verdict {
            // A short read has taken all that had come, and the registration tells of the rest; else no event does.
            Verdict::NeedMore if self.is_registered && self.conn.is_readable() && !self.conn.is_drained() => {
                return Progress::MoreLater(self);
            }
            Verdict::NeedMore => return Progress::Waits(self),
            Verdict::Refuse(refusal) => return Progress::Ends(self, End::Refuse(refusal)),
            Verdict::Close => return Progress::Ends(self, End::Close),
            Verdict::Complete { taken, client, details } => (taken, client, details),
        };
        let origin = &mut self.origin;
        (origin.asserted, origin.details) = (asserted, details.map(Into::into));
        let Stage::Preface(reading) = &mut self.stage else {
            return Progress::Waits(self);
        };
        reading.received.drain(..taken);
        let Some(tls) = self.tls.clone() else {
            return Progress::Ends(self, End::Complete);
        };
        // A health check of the proxy is over when the handshake is done: see `admission`.
        let is_proxy_itself = origin.asserted == Some(Asserted::Proxy);
        if !is_proxy_itself && !access.permits(origin) {
            return Progress::Ends(self, End::NotPermitted);
        }
        let early = std::mem::take(&mut reading.received);
        let conn = self.conn.restart(early);
        Self { conn, ..self }.begin_handshake(tls, cx)
    }

    /// Ends a stage whose time is over.
    pub(super) fn expire(self, access: &AccessList, cx: &mut Context<'_>) -> Progress {
        match &self.stage {
            Stage::Preface(Reading { preface, received, .. }) => {
                let verdict = preface.judge_rest(received, Ending::Deadline);
                self.follow(verdict, access, cx)
            }
            Stage::Handshake | Stage::Signature => Progress::Ends(self, End::Fail(Failure::TooSlow)),
        }
    }

    /// Begins a handshake, whose first step is made when the ones that wait for theirs have had it.
    fn begin_handshake(self, tls: Arc<ServerTls>, cx: &Context<'_>) -> Progress {
        let engine = match tls.engine() {
            Ok(engine) => engine,
            Err(fault) => return Progress::Ends(self, End::Fail(Failure::Fault(fault))),
        };
        // Tickets and the first answer leave in segments of their own, and the second is not to wait for the
        // acknowledgement of the first. An error: the client has gone, and the next call says so.
        let _ = self.conn.socket().set_nodelay();
        Progress::MoreLater(Self {
            conn: self.conn.secure(engine),
            stage: Stage::Handshake,
            tls: Some(tls),
            until: cx.now() + handshake::PATIENCE,
            ..self
        })
    }

    fn advance_handshake(mut self, cx: &mut Context<'_>, share: &mut Share) -> Progress {
        while share.begin(cx.now()) {
            let step = self.conn.advance_handshake();
            if !matches!(step, Ok(Step::Waiting)) {
                share.take();
            }
            let end = match step {
                Ok(Step::Waiting) => return Progress::Waits(self),
                Ok(Step::MoreLater) => continue,
                Ok(Step::NeedsSignature) => return self.ask_for_signature(),
                Ok(Step::Done) => self.complete(),
                Err(error) => {
                    let has_begun = self.conn.has_begun_handshake();
                    Failure::from_error(error, has_begun).map_or(End::Close, End::Fail)
                }
            };
            return Progress::Ends(self, end);
        }
        Progress::MoreLater(self)
    }

    fn ask_for_signature(mut self) -> Progress {
        let Some(unsigned) = self.conn.take_unsigned() else {
            // It is asked for already.
            return Progress::Waits(self);
        };
        self.stage = Stage::Signature;
        // The event for its end may have come before.
        match self.end_of_client() {
            None => Progress::NeedsSignature(self, unsigned),
            Some(end) => Progress::Ends(self, end),
        }
    }

    /// Must be called after an event.
    fn await_signature(self) -> Progress {
        match self.end_of_client() {
            None => Progress::Waits(self),
            Some(end) => Progress::Ends(self, end),
        }
    }

    /// Returns the end of an arrival whose client has ended its side: it cannot answer what would be signed.
    fn end_of_client(&self) -> Option<End> {
        match self.conn.socket().peer_state() {
            PeerState::Connected => None,
            PeerState::HalfClosed | PeerState::Gone => {
                let fault = Fault::Left { has_begun: true };
                Some(End::Fail(Failure::Fault(fault)))
            }
        }
    }

    /// Goes on with the engine that has made the signature, and sends it. The next step has to wait for its
    /// [turn](Self::advance).
    pub(super) fn take_signature(mut self, signed: Result<Engine, Fault>) -> Progress {
        let Stage::Signature = self.stage else {
            return Progress::Waits(self);
        };
        self.stage = Stage::Handshake;
        let taken = signed
            .map_err(Into::into)
            .and_then(|engine| self.conn.go_on_with(engine));
        match taken {
            Ok(()) => Progress::MoreLater(self),
            Err(error) => {
                let end = Failure::from_error(error, true).map_or(End::Close, End::Fail);
                Progress::Ends(self, end)
            }
        }
    }

    /// Completes an arrival whose handshake is done.
    fn complete(&mut self) -> End {
        self.origin.tls = self.conn.established().map(Into::into);
        End::Complete
    }
}

impl Reading {
    /// Reads once, and judges what has come so far.
    fn read(&mut self, conn: &mut Conn, cx: &mut Context<'_>) -> Verdict {
        let mut buffer = cx.lend_buffer();
        let room = Preface::MOST.saturating_sub(self.received.len());
        let verdict = match conn.read(buffer.get_mut(..room).unwrap_or_default()) {
            Received::Nothing => Verdict::NeedMore,
            Received::Bytes(count) => {
                self.received.extend_from_slice(buffer.get(..count).unwrap_or_default());
                self.preface.judge(&self.received)
            }
            Received::End => self.preface.judge_rest(&self.received, Ending::Closed),
            Received::Cut | Received::Failed => Verdict::Close,
        };
        cx.return_buffer(buffer);
        verdict
    }
}
