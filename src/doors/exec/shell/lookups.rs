//! Looks programs up on threads, since a file system may be slow, or never answer.
//!
//! [`core::lookups`](super::super::core::lookups) decides about turns; this file has the threads. A thread is started
//! when none is free, and stays; one that is stuck ends with the daemon.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use log::Level;
use nix::sys::signal::SigSet;

use super::super::core::lookups::{Asked, Id, Lookups, MOST, Peer};
use super::connection::Connection;
use super::permits::{Fit, Unfit};
use super::{ExecDoor, ExecSource};
use crate::doors::programs::{RunsPrograms, SYSTEM};
use crate::process::failure::SpawnError;
use crate::process::program::{Found, Lookup};
use crate::reactor::helper::{Mailbox, Sender};
use crate::reactor::{Context, Key, SourceKind};

/// The time for which an answer is awaited.
const PATIENCE: Duration = Duration::from_secs(2);
/// The least time from the question until a refusal is told: the time that the file system takes would tell which files
/// exist.
const NO_SOONER: Duration = Duration::from_millis(50);

/// The state of a connection's look-up.
#[derive(Debug, Default)]
pub(super) enum Looked {
    /// Nothing was looked up.
    #[default]
    Not,
    /// The look-up waits for a thread or for its answer.
    UnderWay { id: Id, peer: Peer, asked: Instant },
    /// The program may be run.
    Fit(Fit),
    /// The program may not be run. The client is told at this time; `None`: now.
    Unfit(Unfit, Option<Instant>),
}

impl Looked {
    /// The time at which the connection's alarm must go off.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Looked::UnderWay { asked, .. } => Some(*asked + PATIENCE),
            Looked::Unfit(_, at) => *at,
            Looked::Not | Looked::Fit(_) => None,
        }
    }
}

type Answer = Result<Found, SpawnError>;

/// The task of a thread.
#[derive(Debug)]
pub(super) struct Question {
    key: Key,
    lookup: Lookup,
    name: OsString,
}

/// The answer of a thread.
#[derive(Debug)]
struct Letter {
    id: Id,
    key: Key,
    /// The thread's place.
    from: usize,
    answer: Answer,
}

/// The threads and their tasks.
#[derive(Debug, Default)]
pub(super) struct Desk {
    lookups: Lookups<Question>,
    post: Option<(Sender<Letter>, Mailbox<Letter>)>,
    threads: Vec<mpsc::Sender<(Id, Question)>>,
    /// The places of free threads.
    idle: Vec<usize>,
}

impl Desk {
    fn open(&mut self, cx: &Context<'_>) {
        self.post = Some(cx.mailbox(MOST));
    }

    /// Gives tasks to threads, until no task is left or as many are under way as may be.
    ///
    /// # Errors
    /// No thread is free, and none can be started. The error names the task.
    fn give_out(&mut self) -> Result<(), (Id, Key, std::io::Error)> {
        while let Some((id, question)) = self.lookups.give_out() {
            let key = question.key;
            let place = match self.idle.pop() {
                Some(place) => place,
                None => self.start_thread().map_err(|error| (id, key, error))?,
            };
            // The thread lives as long as its channel.
            if let Some(thread) = self.threads.get(place) {
                let _ = thread.send((id, question));
            }
        }
        Ok(())
    }

    fn start_thread(&mut self) -> std::io::Result<usize> {
        let place = self.threads.len();
        let (give, work) = mpsc::channel::<(Id, Question)>();
        let Some((answers, _)) = &self.post else {
            return Err(std::io::ErrorKind::NotConnected.into());
        };
        let answers = answers.clone();
        let look = move || {
            // Signals are handled by the loop's thread.
            let _ = SigSet::all().thread_block();
            for (id, Question { key, lookup, name }) in work {
                let letter = Letter {
                    id,
                    key,
                    from: place,
                    answer: lookup.look(&name),
                };
                if answers.send(letter).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("lookup".to_owned()).spawn(look)?;
        self.threads.push(give);
        Ok(place)
    }
}

impl ExecDoor {
    /// Opens the mailbox of the threads. Must be called before the first look-up.
    pub(in crate::doors::exec) fn open_desk(&mut self, cx: &Context<'_>) {
        self.desk.open(cx);
    }

    /// Asks for the program of a connection to be looked up.
    pub(super) fn look_up(&mut self, cx: &mut Context<'_>, key: Key, name: OsString) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let (peer, asked) = (peer_of(connection), cx.now());
        let question = Question {
            key,
            lookup: self.spawner.lookup(),
            name: name.clone(),
        };
        connection.looked = match self.desk.lookups.ask(peer, name.as_bytes(), question) {
            Asked::Under(id) => Looked::UnderWay { id, peer, asked },
            Asked::Refused => Looked::Unfit(Unfit::Unanswered, Some(asked + NO_SOONER)),
        };
        self.give_out(cx);
    }

    fn give_out(&mut self, cx: &mut Context<'_>) {
        while let Err((id, key, error)) = self.desk.give_out() {
            let line = format_args!("no thread can be started to look up a program: {error}");
            self.front.note(cx, Level::Error, SYSTEM, line);
            self.desk.lookups.answered(id);
            if let Some(connection) = self.connections.get_mut(key) {
                connection.looked = Looked::Unfit(Unfit::Unanswered, Some(cx.now() + NO_SOONER));
                cx.resume_later(ExecSource::Client.at(key));
            }
        }
    }

    /// Takes the answers of the threads.
    pub(super) fn take_answers(&mut self, cx: &mut Context<'_>) {
        let mut any = false;
        loop {
            let letter = self.desk.post.as_ref().and_then(|(_, mailbox)| mailbox.take());
            let Some(Letter { id, key, from, answer }) = letter else {
                break;
            };
            any = true;
            self.desk.idle.push(from);
            self.desk.lookups.answered(id);
            self.take_answer(cx, key, id, answer);
        }
        if any {
            self.give_out(cx);
        }
    }

    fn take_answer(&mut self, cx: &mut Context<'_>, key: Key, id: Id, answer: Answer) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        // The look-up may have been given up.
        let Looked::UnderWay { id: awaited, asked, .. } = connection.looked else {
            return;
        };
        if awaited != id {
            return;
        }
        let verdict = answer.map_err(Unfit::Missing);
        match verdict.and_then(|found| Fit::of(&self.options.programs, found)) {
            Ok(fit) => {
                connection.looked = Looked::Fit(fit);
                self.queue_start(cx, key);
            }
            Err(unfit) => {
                connection.looked = Looked::Unfit(unfit, Some(asked + NO_SOONER));
                self.pump(cx, key);
            }
        }
    }

    /// Gives up a look-up that has taken too long, or tells a refusal that is due. Must be called when the alarm of the
    /// connection has gone off.
    pub(super) fn look_at_the_clock(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.looked.deadline().is_none_or(|at| cx.now() < at) {
            return;
        }
        match &mut connection.looked {
            // A refusal that is due has no deadline.
            Looked::Unfit(_, at) => *at = None,
            Looked::UnderWay { id, peer, .. } => {
                self.desk.lookups.give_up(*peer, *id);
                connection.looked = Looked::Unfit(Unfit::Unanswered, None);
                self.give_out(cx);
            }
            Looked::Not | Looked::Fit(_) => {}
        }
        self.queue_start(cx, key);
    }
}

/// Withdraws the look-up of a connection that is closed.
pub(super) fn withdraw(desk: &mut Desk, connection: &Connection) {
    if let Looked::UnderWay { id, peer, .. } = connection.looked {
        desk.lookups.withdraw(peer, id);
    }
}

/// Returns the peer that the look-ups of a connection are counted for.
fn peer_of(connection: &Connection) -> Peer {
    if let Some(address) = connection.peer.origin.ip() {
        return at(address);
    }
    match connection.peer.conn.socket().peer_credentials() {
        Ok(Some(user)) if connection.peer.origin.is_direct() => Peer::User(user.uid),
        _ => Peer::Unknown,
    }
}

/// Returns the peer of an address. It is a network for IPv6, since a client with one address of it has all.
fn at(address: IpAddr) -> Peer {
    Peer::Network(match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let at = |text: &str| at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1:2:3"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    }
}
