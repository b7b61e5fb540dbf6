//! Accepting: a bounded number of connections per turn, none while descriptors are short.

use std::io;

use log::Level;

use super::super::options::Options;
use super::super::report::Topic;
use super::{Of, Pool};
use crate::net::accept::{Acceptor, Batch, Resume};
use crate::net::addr::{ListenAddr, PeerAddr};
use crate::net::listener::Listener;
use crate::net::stream::Stream;
use crate::reactor::{Alarm, Context, Key};

/// Connections accepted from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 64;
/// Turns' worth of connections that are still taken in when the pool closes its listeners.
const LAST_BATCHES: usize = 64;

/// Everything a pool accepts from. A place in the list is a source's number, so it is never reused.
#[derive(Debug)]
pub(super) struct Listening {
    places: Vec<Option<Door>>,
    /// Those of one batch, on their way to becoming clients; kept for the next, so that a batch allocates nothing.
    accepted: Vec<(Stream, PeerAddr)>,
}

#[derive(Debug)]
struct Door {
    /// As the operator wrote it.
    configured: ListenAddr,
    acceptor: Acceptor,
    alarm: Alarm,
}

impl Listening {
    pub(super) fn new(listeners: Vec<(ListenAddr, Listener)>) -> Self {
        let doors = listeners.into_iter().map(|(configured, listener)| {
            Some(Door {
                configured,
                acceptor: Acceptor::new(listener),
                alarm: Alarm::default(),
            })
        });
        Listening {
            places: doors.collect(),
            accepted: Vec::with_capacity(ACCEPTS_PER_TURN),
        }
    }

    pub(super) fn register(&mut self, cx: &Context<'_>, name: &str) -> io::Result<()> {
        for (number, door) in self.places.iter_mut().enumerate() {
            if let Some(door) = door {
                door.register(cx, number, name)?;
            }
        }
        Ok(())
    }

    /// Adds listeners, and closes those whose address the options do not name any more.
    pub(super) fn replace(&mut self, cx: &mut Context<'_>, options: &Options, new: Vec<(ListenAddr, Listener)>) {
        for (number, place) in self.places.iter_mut().enumerate() {
            if let Some(door) = place.take_if(|door| !options.listen.contains(&door.configured)) {
                let Door {
                    configured, mut alarm, ..
                } = door;
                cx.set_alarm(&mut alarm, Of::listener(number), None);
                log::info!("{}: no longer listening on {configured}", options.name);
            }
        }
        for door in Listening::new(new).places.into_iter().flatten() {
            let number = self.places.len();
            let mut door = door;
            match door.register(cx, number, &options.name) {
                Ok(()) => self.places.push(Some(door)),
                Err(error) => log::error!("{}: cannot watch {}: {error}", options.name, door.configured),
            }
        }
    }

    /// What is listened on, each with its address as it was written.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ListenAddr, &Listener)> {
        let doors = self.places.iter().flatten();
        doors.filter_map(|door| Some((&door.configured, door.acceptor.listener()?)))
    }

    /// Lets go of the sockets, which another process goes on accepting from: their files stay, and so does who waits.
    pub(super) fn leave(&mut self, cx: &Context<'_>) {
        for door in self.places.iter_mut().flatten() {
            // Not registered: a listener that could not be watched. There is nothing to be taken out then.
            let _ = cx.deregister(&mut door.acceptor);
            door.acceptor.disown_file();
        }
        self.close();
    }

    pub(super) fn close(&mut self) {
        // The alarm of a listener that pauses is left behind; it finds nobody.
        self.places.clear();
    }

    fn get_mut(&mut self, number: usize) -> Option<&mut Door> {
        self.places.get_mut(number)?.as_mut()
    }
}

impl Door {
    fn register(&mut self, cx: &Context<'_>, number: usize, name: &str) -> io::Result<()> {
        self.acceptor.take_charge();
        cx.register(Of::listener(number), &mut self.acceptor, mio::Interest::READABLE)?;
        if let Some(listener) = self.acceptor.listener() {
            log::info!("{name}: listening on {}", listener.local_addr());
        }
        Ok(())
    }
}

impl Pool {
    pub(super) fn accept(&mut self, cx: &mut Context<'_>, key: Key) {
        let number = key.slot();
        match self.accept_batch(cx, number) {
            None | Some(Batch::Drained | Batch::Closed) => {}
            Some(Batch::More) => cx.resume_later(Of::listener(number)),
            Some(Batch::Paused(pause)) => {
                let line = format_args!(
                    "accepting pauses: {:?}; connections wait until one ends \
                     (raise the limit on open files, or lower --max-connections)",
                    pause.why
                );
                self.note(cx, Level::Error, Topic::Accept, line);
                if let Some(door) = self.listening.get_mut(number) {
                    cx.set_alarm(&mut door.alarm, Of::listener(number), pause.until);
                }
            }
        }
    }

    fn accept_batch(&mut self, cx: &mut Context<'_>, number: usize) -> Option<Batch> {
        let Listening { places, accepted } = &mut self.listening;
        let door = places.get_mut(number)?.as_mut()?;
        let batch = door
            .acceptor
            .accept_batch(ACCEPTS_PER_TURN, cx.now(), |stream, peer| accepted.push((stream, peer)));
        let mut accepted = std::mem::take(accepted);
        for (stream, peer) in accepted.drain(..) {
            self.welcome(cx, stream, peer);
        }
        self.listening.accepted = accepted;
        Some(batch)
    }

    /// Everybody who has connected by now.
    pub(super) fn accept_all(&mut self, cx: &mut Context<'_>) {
        for number in 0..self.listening.places.len() {
            for _ in 0..LAST_BATCHES {
                let Some(Batch::More) = self.accept_batch(cx, number) else {
                    break;
                };
            }
        }
    }

    pub(super) fn retry_accepting(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(door) = self.listening.get_mut(key.slot()) {
            cx.alarm_fired(&mut door.alarm);
            // Paused for want of descriptors, it tries again by itself once its time has come.
            self.accept(cx, key);
        }
    }

    /// A descriptor has been closed: whoever paused for want of one may go on.
    pub(super) fn descriptor_freed(&mut self, cx: &mut Context<'_>) {
        for (number, door) in self.listening.places.iter_mut().enumerate() {
            let Some(door) = door else { continue };
            if door.acceptor.resume() == Resume::AcceptNow {
                cx.set_alarm(&mut door.alarm, Of::listener(number), None);
                cx.resume_later(Of::listener(number));
            }
        }
    }
}
