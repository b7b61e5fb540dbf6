//! Visitors of services whose tunnel clients are still at the process before this one: they are passed on to it.
//!
//! After an upgrade a tunnel client that does not know the word go-away stays at the old process as long as one of its
//! streams does, and the visitors come to the new one. The two doors have a [`Link`]:
//!
//! ```text
//!  old process, which has sessions                        its successor, which has the visitors
//!  `+` and a secret: a session serves it        ---->     enters it as one that is elsewhere
//!  `-` and a secret: none does any more         ---->     forgets it; visitors wait, or go to a session of its own
//!                                               <----     a secret with a socket: one end of a pair, for a visitor
//!  WORD on that socket: a route has taken it    ---->     sends the bytes of the visitor, as to a server
//! ```
//!
//! A socket that is closed without the word was not taken, so the visitor goes elsewhere. The successor has the visitor, its
//! limits and its log; the old process relays bytes. After two upgrades a process may be both: it passes on what is passed
//! on to it, and stays until the first has no sessions any more.
//!
//! Invariants: what is told follows from the router's [`next_change`](super::super::core::tunnels::Tunnels::next_change);
//! a link that fails is dropped, and everything that was told by it with it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mio::Interest;
use mio::net::UnixStream;

use super::super::core::secrets::{LONGEST_SECRET, Secret};
use super::super::core::table::Address;
use super::super::core::tunnels::SessionId;
use super::super::options::TUNNEL;
use super::{RouteDoor, RouteSource};
use crate::net::addr::PeerAddr;
use crate::net::conn::Conn;
use crate::net::link::Link;
use crate::net::origin::Origin;
use crate::net::stream::Stream;
use crate::reactor::{Context, Readiness, SourceKind};

/// The byte that tells the successor that its visitor was taken.
pub(super) const WORD: &[u8] = b"\x06";
const SERVED: u8 = b'+';
const SERVED_NO_MORE: u8 = b'-';
/// The messages that are received in one turn.
const MESSAGES_PER_TURN: usize = 64;
/// The number from which on sessions of another process are numbered. No key is as large.
const ELSEWHERE: u64 = 1 << 63;

/// The links of a door.
#[derive(Debug, Default)]
pub(super) struct Passing {
    to_successor: Option<Outlet>,
    to_predecessor: Option<Inlet>,
}

/// The link to a successor, which may still be starting.
#[derive(Debug)]
struct Outlet {
    link: Link,
    /// The secrets of which the successor was told that they are served.
    told: HashSet<Secret>,
    /// The messages that wait for room.
    due: VecDeque<Vec<u8>>,
    is_full: bool,
}

/// The link to a predecessor.
#[derive(Debug)]
struct Inlet {
    link: Link,
    ids: HashMap<Secret, SessionId>,
    secrets: HashMap<SessionId, Secret>,
    next: u64,
    /// The visitors that wait for room, each with its secret: at most one for each route.
    due: VecDeque<(Secret, OwnedFd)>,
    is_full: bool,
}

impl Inlet {
    /// Sends what there is room for.
    fn flush(&mut self) -> io::Result<()> {
        while let Some((secret, socket)) = self.due.front().filter(|_| !self.is_full) {
            match self.link.send(secret.reveal(), Some(socket.as_fd())) {
                Ok(()) => _ = self.due.pop_front(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_full = true,
                Err(error) => {
                    // The other end of the pair finds it closed.
                    self.due.pop_front();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl Passing {
    /// The secret of sessions that the predecessor has.
    pub(super) fn secret_of(&self, session: SessionId) -> Option<Secret> {
        self.to_predecessor.as_ref()?.secrets.get(&session).cloned()
    }

    /// Returns true if a successor reaches sessions of the predecessor through this process, which must stay for that.
    pub(super) fn is_between(&self) -> bool {
        let has_sessions = self.to_predecessor.as_ref().is_some_and(|inlet| !inlet.ids.is_empty());
        has_sessions && self.to_successor.is_some()
    }

    /// Passes a visitor on to the predecessor, when that has room, and returns the socket by which it is reached.
    ///
    /// # Errors
    /// EMFILE; the predecessor has ended.
    pub(super) fn pass(&mut self, secret: Secret) -> io::Result<Stream> {
        let inlet = self.to_predecessor.as_mut().ok_or(ErrorKind::ConnectionRefused)?;
        let (near, far) = UnixStream::pair()?;
        inlet.due.push_back((secret, far.into()));
        inlet.flush()?;
        Ok(Stream::Unix(near))
    }
}

impl Outlet {
    /// Lists what has changed, if it is news.
    fn note(&mut self, secret: Secret, is_served: bool) {
        let sign = if is_served { SERVED } else { SERVED_NO_MORE };
        let message = [&[sign], secret.reveal()].concat();
        let is_news = if is_served {
            self.told.insert(secret)
        } else {
            self.told.remove(&secret)
        };
        if is_news {
            self.due.push_back(message);
        }
    }

    /// Sends what there is room for.
    fn flush(&mut self) -> io::Result<()> {
        while let Some(message) = self.due.front().filter(|_| !self.is_full) {
            match self.link.send(message, None) {
                Ok(()) => _ = self.due.pop_front(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_full = true,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl RouteDoor {
    // ---- the old process ---------------------------------------------------------------------------------------

    /// Makes a link for a successor that is about to start, and returns the successor's end.
    pub(super) fn make_link(&mut self, cx: &mut Context<'_>) -> Option<OwnedFd> {
        let listens = self.options.front.listen.iter().any(|listen| listen.mark == TUNNEL);
        if !listens && self.passing.to_predecessor.is_none() {
            return None;
        }
        self.drop_outlet(cx);
        // Without one, visitors wait for the tunnel clients to come over.
        let (mut link, far) = Link::pair().ok()?;
        let both = Interest::READABLE | Interest::WRITABLE;
        cx.register(RouteSource::Outlet.only(), &mut link, both).ok()?;
        self.passing.to_successor = Some(Outlet {
            link,
            told: HashSet::new(),
            due: VecDeque::new(),
            is_full: false,
        });
        self.router.tunnels_mut().tell_changes();
        self.tell_successor(cx);
        Some(far)
    }

    /// Tells a successor which secrets are served here. Must be called at the end of each turn.
    pub(super) fn tell_successor(&mut self, cx: &mut Context<'_>) {
        let Some(outlet) = &mut self.passing.to_successor else {
            return;
        };
        while let Some((secret, is_served)) = self.router.tunnels_mut().next_change() {
            outlet.note(secret, is_served);
        }
        if outlet.flush().is_err() {
            self.drop_outlet(cx);
        }
    }

    pub(super) fn outlet_ready(&mut self, cx: &mut Context<'_>, readiness: Readiness) {
        if let Some(outlet) = &mut self.passing.to_successor {
            outlet.is_full &= !readiness.writable;
        }
        self.take_visitors(cx);
        self.tell_successor(cx);
    }

    /// Takes the visitors that a successor passes on.
    pub(super) fn take_visitors(&mut self, cx: &mut Context<'_>) {
        let mut buffer = cx.lend_buffer();
        for turn in 0.. {
            if turn == MESSAGES_PER_TURN {
                cx.resume_later(RouteSource::Outlet.only());
                break;
            }
            let Some(outlet) = &self.passing.to_successor else {
                break;
            };
            match outlet.link.receive(&mut buffer) {
                Ok(Some(message)) => {
                    let secret = buffer.get(..message.length).and_then(Secret::new);
                    if let (Some(secret), Some(socket)) = (secret, message.socket) {
                        self.take_visitor(cx, secret, socket);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The successor has ended, or never served.
                Ok(None) | Err(_) => self.drop_outlet(cx),
            }
        }
        cx.return_buffer(buffer);
    }

    /// Relays a visitor of a successor to a tunnel client. A socket that is dropped was not taken.
    fn take_visitor(&mut self, cx: &mut Context<'_>, secret: Secret, socket: OwnedFd) {
        let socket = std::os::unix::net::UnixStream::from(socket);
        if socket.set_nonblocking(true).is_err() {
            return;
        }
        let mut conn = Conn::new(Stream::Unix(UnixStream::from_std(socket)));
        let origin = Origin::direct(PeerAddr::Unix);
        if self.front.count_in(&origin).is_err() {
            return;
        }
        let Some((life, step)) = self.router.pass(secret, cx.now()) else {
            return self.front.connection_closed(cx, &origin);
        };
        // A new socket has room for it.
        let _ = conn.send(WORD);
        self.insert_route(cx, life, conn, origin, |_, _, _| Some(step));
    }

    /// Drops the link to a successor.
    pub(super) fn drop_outlet(&mut self, cx: &mut Context<'_>) {
        if let Some(mut outlet) = self.passing.to_successor.take() {
            let _ = cx.deregister(&mut outlet.link);
            self.router.tunnels_mut().tell_no_changes();
        }
    }

    // ---- the successor -----------------------------------------------------------------------------------------

    /// Takes the link to a predecessor. Must be called before the door is started.
    pub(super) fn set_link(&mut self, link: Link) {
        self.passing.to_predecessor = Some(Inlet {
            link,
            ids: HashMap::new(),
            secrets: HashMap::new(),
            next: ELSEWHERE,
            due: VecDeque::new(),
            is_full: false,
        });
    }

    /// Listens to the predecessor, if there is one.
    pub(super) fn watch_predecessor(&mut self, cx: &mut Context<'_>) {
        if let Some(inlet) = &mut self.passing.to_predecessor
            && cx
                .register(
                    RouteSource::Inlet.only(),
                    &mut inlet.link,
                    Interest::READABLE | Interest::WRITABLE,
                )
                .is_err()
        {
            self.passing.to_predecessor = None;
        }
    }

    pub(super) fn inlet_ready(&mut self, cx: &mut Context<'_>, readiness: Readiness) {
        if let Some(inlet) = &mut self.passing.to_predecessor {
            inlet.is_full &= !readiness.writable;
            // After an error the visitor concerned finds its socket closed.
            let _ = inlet.flush();
        }
        self.hear_predecessor(cx);
    }

    /// Takes in what the predecessor tells.
    pub(super) fn hear_predecessor(&mut self, cx: &mut Context<'_>) {
        let mut buffer = [0; 1 + LONGEST_SECRET];
        for turn in 0.. {
            if turn == MESSAGES_PER_TURN {
                cx.resume_later(RouteSource::Inlet.only());
                break;
            }
            let Some(inlet) = &mut self.passing.to_predecessor else {
                break;
            };
            match inlet.link.receive(&mut buffer) {
                Ok(Some(message)) => {
                    let message = buffer.get(..message.length).and_then(<[u8]>::split_first);
                    if let Some((sign, secret)) = message
                        && let Some(secret) = Secret::new(secret)
                    {
                        self.note_elsewhere(cx, secret, *sign == SERVED);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(None) | Err(_) => self.drop_inlet(cx),
            }
        }
        self.wake_expectants(cx);
    }

    fn note_elsewhere(&mut self, cx: &Context<'_>, secret: Secret, is_served: bool) {
        let Some(inlet) = &mut self.passing.to_predecessor else {
            return;
        };
        if let Some(id) = inlet.ids.remove(&secret) {
            inlet.secrets.remove(&id);
            self.router.tunnels_mut().leave_elsewhere(id, cx.now());
        }
        if is_served {
            let id = SessionId(inlet.next);
            inlet.next += 1;
            inlet.ids.insert(secret.clone(), id);
            inlet.secrets.insert(id, secret.clone());
            let address = Arc::new(Address::Tunnel("the process before".into()));
            self.router.tunnels_mut().enter_elsewhere(id, secret, address);
        }
    }

    fn drop_inlet(&mut self, cx: &mut Context<'_>) {
        if let Some(mut inlet) = self.passing.to_predecessor.take() {
            let _ = cx.deregister(&mut inlet.link);
            for id in inlet.secrets.into_keys() {
                self.router.tunnels_mut().leave_elsewhere(id, cx.now());
            }
        }
    }
}
