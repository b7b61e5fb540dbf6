//! Everything that one service accepts from: several listeners on the loop, a bounded number of connections per turn, none
//! while descriptors are short.
//!
//! A service that implements [`Accepting`] gives each its turn: [`Accepting::accept`] when a listener is ready or resumed,
//! [`Accepting::retry_accepting`] when its alarm has gone off. Which clients come in is the service's to decide. Whenever it has
//! closed a descriptor it says so to [`Listening::descriptor_freed`].

use std::fmt;
use std::io;
use std::time::Instant;

use super::accept::{Acceptor, Batch, Pause, Resume};
use super::addr::{ListenAddr, PeerAddr};
use super::conn::Conn;
use super::listener::Listener;
use super::origin::Origin;
use super::stream::Stream;
use crate::reactor::{Alarm, Context, Key, Kind, Source};

/// Connections accepted from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 64;
/// Turns' worth of connections that are still taken in when a service closes its listeners.
const LAST_BATCHES: usize = 64;

/// What a service does with its listeners: which clients come in, and where a pause is told, is its own; the turns are the same
/// for all.
pub trait Accepting {
    /// What it accepts from.
    fn listening_mut(&mut self) -> &mut Listening;

    /// Somebody has connected.
    fn admit(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin);

    /// Accepting has to pause; the line says why and what to do, for the log.
    fn log_pause(&mut self, cx: &mut Context<'_>, line: fmt::Arguments<'_>);

    /// One turn's share from one listener.
    fn accept(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(batch) = self.accept_batch(cx, key) else {
            return;
        };
        if let Some(pause) = self.listening_mut().settle(cx, key, batch) {
            let line = format_args!(
                "accepting pauses: {:?}; connections wait until one ends \
                 (raise the limit on open files, or lower --max-connections)",
                pause.why
            );
            self.log_pause(cx, line);
        }
    }

    /// How a batch has ended, once all that came in it are admitted; `None`: that address is not listened at any more.
    fn accept_batch(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Batch> {
        let (mut accepted, batch) = self.listening_mut().take(key, cx.now())?;
        for (stream, peer) in accepted.drain(..) {
            self.admit(cx, Conn::new(stream), Origin::direct(peer));
        }
        self.listening_mut().give_back(accepted);
        Some(batch)
    }

    /// All that have connected by now.
    fn accept_all(&mut self, cx: &mut Context<'_>) {
        for key in self.listening_mut().keys() {
            for _ in 0..LAST_BATCHES {
                let Some(Batch::More) = self.accept_batch(cx, key) else {
                    break;
                };
            }
        }
    }

    /// The alarm of a pause has gone off. Paused for want of descriptors, it tries again by itself once its time has come.
    fn retry_accepting(&mut self, cx: &mut Context<'_>, key: Key) {
        if self.listening_mut().alarm_fired(cx, key) {
            self.accept(cx, key);
        }
    }
}

/// All listeners of a service. A place in the list is a source's number, so it is never reused.
#[derive(Debug)]
pub struct Listening {
    /// The service's own name for this kind of source.
    kind: Kind,
    places: Vec<Option<Place>>,
    /// Those of one batch, on their way to becoming clients; kept for the next, so that a batch allocates nothing.
    accepted: Vec<(Stream, PeerAddr)>,
}

#[derive(Debug)]
struct Place {
    /// As the operator wrote it.
    configured: ListenAddr,
    acceptor: Acceptor,
    alarm: Alarm,
}

impl Listening {
    /// Listeners whose events come to the service as sources of `kind`, each with its address as it was written.
    pub fn new(kind: Kind, listeners: Vec<(ListenAddr, Listener)>) -> Self {
        Listening {
            kind,
            places: listeners.into_iter().map(Place::new).map(Some).collect(),
            accepted: Vec::with_capacity(ACCEPTS_PER_TURN),
        }
    }

    /// Begins to listen for clients; `name` is the service's, for the log.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn register(&mut self, cx: &Context<'_>, name: &str) -> io::Result<()> {
        let kind = self.kind;
        for (number, place) in self.places.iter_mut().enumerate() {
            if let Some(place) = place {
                place.register(cx, source(kind, number), name)?;
            }
        }
        Ok(())
    }

    /// Adds listeners, and closes those whose address is not in `listen` any more.
    pub fn replace(
        &mut self,
        cx: &mut Context<'_>,
        name: &str,
        listen: &[ListenAddr],
        new: Vec<(ListenAddr, Listener)>,
    ) {
        let kind = self.kind;
        for (number, place) in self.places.iter_mut().enumerate() {
            if let Some(place) = place.take_if(|place| !listen.contains(&place.configured)) {
                let Place {
                    configured, mut alarm, ..
                } = place;
                cx.set_alarm(&mut alarm, source(kind, number), None);
                log::info!(service:% = name; "{name}: no longer listening on {configured}");
            }
        }
        for mut place in new.into_iter().map(Place::new) {
            match place.register(cx, source(kind, self.places.len()), name) {
                Ok(()) => self.places.push(Some(place)),
                Err(error) => log::error!(service:% = name; "{name}: cannot watch {}: {error}", place.configured),
            }
        }
    }

    /// What is listened on, each with its address as it was written.
    pub fn iter(&self) -> impl Iterator<Item = (&ListenAddr, &Listener)> {
        let places = self.places.iter().flatten();
        places.filter_map(|place| Some((&place.configured, place.acceptor.listener()?)))
    }

    /// Lets go of the sockets, which another process goes on accepting from: their files stay, and so do clients that wait.
    pub fn leave(&mut self, cx: &Context<'_>) {
        for place in self.places.iter_mut().flatten() {
            // Not registered: a listener that could not be watched. There is nothing to be taken out then.
            let _ = cx.deregister(&mut place.acceptor);
            place.acceptor.disown_file();
        }
        self.close();
    }

    /// Closes all of them.
    pub fn close(&mut self) {
        // The alarm of a listener that pauses is left behind; it finds no listener.
        self.places.clear();
    }

    /// The keys of all places, those included that were given up.
    fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        (0..self.places.len()).map(numbered)
    }

    /// Accepts one turn's share from one listener. Gives the clients that have come, and how that has ended; `None`: nobody
    /// listens there any more.
    fn take(&mut self, key: Key, now: Instant) -> Option<(Vec<(Stream, PeerAddr)>, Batch)> {
        let Listening { places, accepted, .. } = self;
        let place = places.get_mut(key.slot())?.as_mut()?;
        let batch = place
            .acceptor
            .accept_batch(ACCEPTS_PER_TURN, now, |stream, peer| accepted.push((stream, peer)));
        Some((std::mem::take(accepted), batch))
    }

    /// The list of clients that came, now empty.
    fn give_back(&mut self, accepted: Vec<(Stream, PeerAddr)>) {
        debug_assert!(accepted.is_empty(), "somebody was forgotten");
        self.accepted = accepted;
    }

    /// Sees to it that accepting goes on after a batch: in the next turn, or when a pause is over. That pause, if there is
    /// one, for the log.
    fn settle(&mut self, cx: &mut Context<'_>, key: Key, batch: Batch) -> Option<Pause> {
        let at = source(self.kind, key.slot());
        match batch {
            Batch::Drained | Batch::Closed => None,
            Batch::More => {
                cx.resume_later(at);
                None
            }
            Batch::Paused(pause) => {
                if let Some(place) = self.get_mut(key) {
                    cx.set_alarm(&mut place.alarm, at, pause.until);
                }
                Some(pause)
            }
        }
    }

    /// The alarm of a pause has gone off: it is time to [`take`](Self::take) again. Whether anybody listens there still.
    fn alarm_fired(&mut self, cx: &Context<'_>, key: Key) -> bool {
        let place = self.get_mut(key);
        place.map(|place| cx.alarm_fired(&mut place.alarm)).is_some()
    }

    /// A descriptor has been closed: a listener that paused for want of one may go on.
    pub fn descriptor_freed(&mut self, cx: &mut Context<'_>) {
        let kind = self.kind;
        for (number, place) in self.places.iter_mut().enumerate() {
            let Some(place) = place else { continue };
            if place.acceptor.resume() == Resume::AcceptNow {
                cx.set_alarm(&mut place.alarm, source(kind, number), None);
                cx.resume_later(source(kind, number));
            }
        }
    }

    fn get_mut(&mut self, key: Key) -> Option<&mut Place> {
        self.places.get_mut(key.slot())?.as_mut()
    }
}

impl Place {
    fn new((configured, listener): (ListenAddr, Listener)) -> Self {
        Place {
            configured,
            acceptor: Acceptor::new(listener),
            alarm: Alarm::default(),
        }
    }

    fn register(&mut self, cx: &Context<'_>, at: Source, name: &str) -> io::Result<()> {
        self.acceptor.take_charge();
        cx.register(at, &mut self.acceptor, mio::Interest::READABLE)?;
        if let Some(listener) = self.acceptor.listener() {
            log::info!(service:% = name; "{name}: listening on {}", listener.local_addr());
        }
        Ok(())
    }
}

fn numbered(number: usize) -> Key {
    Key::numbered(u32::try_from(number).unwrap_or(u32::MAX))
}

fn source(kind: Kind, number: usize) -> Source {
    Source {
        kind,
        key: numbered(number),
    }
}
