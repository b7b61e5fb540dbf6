//! The listeners of one service: on the loop, a bounded number of connections a turn, none while descriptors are short.
//!
//! A service that implements [`Accepting`] gives each listener its turn: [`Accepting::accept`] when it is ready or
//! resumed, [`Accepting::retry_accepting`] when its alarm has gone off. Whenever the service has closed a descriptor it
//! calls [`Listening::descriptor_freed`]. Which clients are admitted is decided by the service.
//!
//! Bytes that are read before a client is admitted (the header of a proxy) are the service's affair as well: it holds
//! the connection back in [`Accepting::admit`], and admits it later with the [early bytes](Conn::with_early) and an
//! [`Origin`] that names the client.

use std::fmt;
use std::io;
use std::time::Instant;

use super::accept::{Acceptor, Batch, Pause, Resume};
use super::addr::{Listen, ListenAddr, Mark, PeerAddr, Transport};
use super::conn::Conn;
use super::listener::Listener;
use super::origin::Origin;
use super::stream::Stream;
use crate::reactor::{Alarm, Context, Key, Kind, Source};

/// Connections accepted from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 64;
/// Turns' worth of connections that are still taken in when a service closes its listeners.
const LAST_BATCHES: usize = 64;

/// A service that accepts connections. The service decides which clients are admitted and logs pauses; the turns are
/// the same for all services.
pub trait Accepting {
    /// The listeners of the service.
    fn listening_mut(&mut self) -> &mut Listening;

    /// Takes in a connection that was accepted this moment, refuses it, or holds it back until it is known which client
    /// it comes from. `transport` is that of the listener, whose mark is in `origin`.
    fn admit(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin, transport: Transport);

    /// Logs that accepting pauses. The line gives the reason and the remedy.
    fn log_pause(&mut self, cx: &mut Context<'_>, line: fmt::Arguments<'_>);

    /// Accepts one turn's share from one listener.
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

    /// Accepts one batch, admits its connections, and returns how it has ended; `None` if the listener is closed.
    fn accept_batch(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Batch> {
        let mut taken = self.listening_mut().take(key, cx.now())?;
        for (stream, peer) in taken.accepted.drain(..) {
            let origin = Origin {
                mark: taken.mark,
                ..Origin::direct(peer)
            };
            self.admit(cx, Conn::new(stream), origin, taken.transport);
        }
        self.listening_mut().give_back(taken.accepted);
        Some(taken.batch)
    }

    /// Accepts all connections that wait, up to a bound.
    fn accept_all(&mut self, cx: &mut Context<'_>) {
        for key in self.listening_mut().keys() {
            for _ in 0..LAST_BATCHES {
                let Some(Batch::More) = self.accept_batch(cx, key) else {
                    break;
                };
            }
        }
    }

    /// Accepts again after the alarm of a pause has gone off.
    fn retry_accepting(&mut self, cx: &mut Context<'_>, key: Key) {
        if self.listening_mut().clear_alarm(cx, key) {
            self.accept(cx, key);
        }
    }
}

/// All listeners of a service. A place in the list is a source's number, so it is never reused.
#[derive(Debug)]
pub struct Listening {
    /// The kind of source that the service uses for its listeners.
    kind: Kind,
    places: Vec<Option<Place>>,
    /// The connections of one batch. The memory is kept for the next, so that a batch allocates nothing.
    accepted: Vec<(Stream, PeerAddr)>,
}

/// The connections of one batch.
struct Taken {
    accepted: Vec<(Stream, PeerAddr)>,
    transport: Transport,
    mark: Mark,
    batch: Batch,
}

#[derive(Debug)]
struct Place {
    /// The listener as the operator wrote it.
    configured: Listen,
    acceptor: Acceptor,
    alarm: Alarm,
}

impl Listening {
    /// Listeners whose events come to the service as sources of `kind`, each as the operator wrote it.
    pub fn new(kind: Kind, listeners: Vec<(Listen, Listener)>) -> Self {
        Listening {
            kind,
            places: listeners.into_iter().map(Place::new).map(Some).collect(),
            accepted: Vec::with_capacity(ACCEPTS_PER_TURN),
        }
    }

    /// Registers the listeners with the reactor. `name` is the service's, for the log.
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

    /// Adds listeners, closes the ones whose address is not in `listen` any more, and gives the others the transport and
    /// the mark that they have there, for connections that are accepted from now on.
    pub fn replace(&mut self, cx: &mut Context<'_>, name: &str, listen: &[Listen], new: Vec<(Listen, Listener)>) {
        let kind = self.kind;
        let mut seen: Vec<ListenAddr> = Vec::new();
        for (number, slot) in self.places.iter_mut().enumerate() {
            let Some(place) = slot else { continue };
            let address = &place.configured.address;
            // Port 0 may be there twice, and one `systemd` may be several sockets.
            let before = seen.iter().filter(|other| *other == address).count();
            let mut same = listen.iter().filter(|listen| listen.address == *address);
            let found = same.clone().nth(before).or_else(|| same.next_back());
            seen.push(address.clone());
            match found {
                Some(listen) => place.configure(listen, name),
                None => {
                    cx.set_alarm(&mut place.alarm, source(kind, number), None);
                    log::info!(service:% = name; "{name}: no longer listening on {}", place.configured);
                    *slot = None;
                }
            }
        }
        for mut place in new.into_iter().map(Place::new) {
            match place.register(cx, source(kind, self.places.len()), name) {
                Ok(()) => self.places.push(Some(place)),
                Err(error) => log::error!(service:% = name; "{name}: cannot watch {}: {error}", place.configured),
            }
        }
    }

    /// The open listeners, each with its address as the operator wrote it.
    pub fn iter(&self) -> impl Iterator<Item = (&ListenAddr, &Listener)> {
        let places = self.places.iter().flatten();
        places.map(|place| (&place.configured.address, place.acceptor.listener()))
    }

    /// The open listeners with a mark.
    pub fn marked(&self, mark: Mark) -> impl Iterator<Item = &Listener> {
        let places = self.places.iter().flatten();
        let marked = places.filter(move |place| place.configured.mark == mark);
        marked.map(|place| place.acceptor.listener())
    }

    /// Closes the sockets here while another process goes on accepting from them: their files stay, and so do clients
    /// that wait.
    pub fn leave(&mut self, cx: &Context<'_>) {
        for place in self.places.iter_mut().flatten() {
            // An error means that the listener could not be registered, so there is nothing to be taken out.
            let _ = cx.deregister(&mut place.acceptor);
            place.acceptor.disown_file();
        }
        self.close();
    }

    /// Closes all listeners.
    pub fn close(&mut self) {
        // The alarm of a paused listener stays behind and finds no listener.
        self.places.clear();
    }

    /// The keys of all places, including those of closed listeners.
    fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        (0..self.places.len()).map(numbered)
    }

    /// Accepts one turn's share from one listener. Returns `None` if the listener is closed.
    fn take(&mut self, key: Key, now: Instant) -> Option<Taken> {
        let Listening { places, accepted, .. } = self;
        let place = places.get_mut(key.slot())?.as_mut()?;
        let batch = place
            .acceptor
            .accept_batch(ACCEPTS_PER_TURN, now, |stream, peer| accepted.push((stream, peer)));
        Some(Taken {
            accepted: std::mem::take(accepted),
            transport: place.configured.transport,
            mark: place.configured.mark,
            batch,
        })
    }

    /// Takes back the memory of a batch. All its connections must have been taken out.
    fn give_back(&mut self, accepted: Vec<(Stream, PeerAddr)>) {
        debug_assert!(accepted.is_empty(), "a connection was forgotten");
        self.accepted = accepted;
    }

    /// Plans the next batch: in the next turn, or at the end of a pause. Returns that pause, for the log.
    fn settle(&mut self, cx: &mut Context<'_>, key: Key, batch: Batch) -> Option<Pause> {
        let at = source(self.kind, key.slot());
        match batch {
            Batch::Drained => None,
            Batch::More => {
                cx.resume_later(at);
                None
            }
            Batch::Paused(pause) => {
                if let Some(place) = self.get_mut(key) {
                    cx.set_alarm(&mut place.alarm, at, Some(pause.until));
                }
                Some(pause)
            }
        }
    }

    /// Notes that the alarm of a pause has gone off. Returns true if the listener is still open.
    fn clear_alarm(&mut self, cx: &Context<'_>, key: Key) -> bool {
        let place = self.get_mut(key);
        place.map(|place| cx.clear_alarm(&mut place.alarm)).is_some()
    }

    /// Resumes listeners that paused for want of a descriptor. Must be called whenever the service has closed one.
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
    fn new((configured, listener): (Listen, Listener)) -> Self {
        Place {
            configured,
            acceptor: Acceptor::new(listener),
            alarm: Alarm::default(),
        }
    }

    fn register(&mut self, cx: &Context<'_>, at: Source, name: &str) -> io::Result<()> {
        self.acceptor.take_charge();
        cx.register(at, &mut self.acceptor, mio::Interest::READABLE)?;
        let (prefix, address) = (
            self.configured.transport.prefix(),
            self.acceptor.listener().local_addr(),
        );
        log::info!(service:% = name; "{name}: listening on {prefix}{address}");
        Ok(())
    }

    /// Takes on the transport and the mark of `listen`, which has the same address.
    fn configure(&mut self, listen: &Listen, name: &str) {
        let before = std::mem::replace(&mut self.configured, listen.clone());
        if before.transport != listen.transport {
            log::info!(service:% = name; "{name}: {before} is {listen} from now on");
        }
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
