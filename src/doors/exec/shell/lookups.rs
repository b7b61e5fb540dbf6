//! Looking up what a name means on threads, for a file system may take its time, or never answer.
//!
//! [`core::lookups`](super::super::core::lookups) says whose turn it is; here are the threads. One is started when there is none
//! without work, and stays; one that is stuck ends with the daemon.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use log::Level;
use nix::sys::signal::SigSet;

use super::super::core::lookups::{Asked, Id, Lookups, MOST, Peer};
use super::super::report::Topic;
use super::connection::Connection;
use super::permits::{Fit, Unfit};
use super::{ExecDoor, ExecSource};
use crate::doors::programs::RunsPrograms;
use crate::process::failure::SpawnError;
use crate::process::program::{Found, Lookup};
use crate::process::spec::Command;
use crate::reactor::helper::{Mailbox, Sender};
use crate::reactor::{Context, Key, SourceKind};

/// How long an answer is awaited.
const PATIENCE: Duration = Duration::from_secs(2);
/// A refusal is not told before this, counted from the question: how long the file system has taken would tell what is there.
const NO_SOONER: Duration = Duration::from_millis(50);

/// How far a connection's look-up has come.
#[derive(Debug, Default)]
pub(super) enum Looked {
    /// Nothing was looked up.
    #[default]
    Not,
    /// Asked.
    UnderWay { id: Id, peer: Peer, asked: Instant },
    /// It may be run.
    Fit(Fit),
    /// It may not; to be told then, or now.
    Unfit(Unfit, Option<Instant>),
}

impl Looked {
    /// When to come back.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Looked::UnderWay { asked, .. } => Some(*asked + PATIENCE),
            Looked::Unfit(_, at) => *at,
            Looked::Not | Looked::Fit(_) => None,
        }
    }
}

type Answer = Result<Found, SpawnError>;

/// What a thread is given.
#[derive(Debug)]
pub(super) struct Question {
    key: Key,
    lookup: Lookup,
    name: OsString,
}

/// What a thread has to say.
#[derive(Debug)]
struct Letter {
    id: Id,
    key: Key,
    /// Its place.
    from: usize,
    answer: Answer,
}

/// The threads, and whom they work for.
#[derive(Debug, Default)]
pub(super) struct Desk {
    lookups: Lookups<Question>,
    post: Option<(Sender<Letter>, Mailbox<Letter>)>,
    threads: Vec<mpsc::Sender<(Id, Question)>>,
    /// Those without work, by their place.
    idle: Vec<usize>,
}

impl Desk {
    fn open(&mut self, cx: &Context<'_>) {
        self.post = Some(cx.mailbox(MOST));
    }

    /// Gives out what is next, as long as there is something and somebody to do it.
    ///
    /// # Errors
    /// There is no thread, and none can be started; the question that it was for.
    fn give_out(&mut self) -> Result<(), (Id, Key, std::io::Error)> {
        while let Some((id, question)) = self.lookups.give_out() {
            let key = question.key;
            let place = match self.idle.pop() {
                Some(place) => place,
                None => self.start_thread().map_err(|error| (id, key, error))?,
            };
            // It ends only with this.
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
            // Signals are the loop's.
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
    /// Threads can be given something from here on.
    pub(in crate::doors::exec) fn open_desk(&mut self, cx: &Context<'_>) {
        self.desk.open(cx);
    }

    /// Has the program of a connection looked up.
    pub(super) fn look_up(&mut self, cx: &mut Context<'_>, key: Key, command: &Command) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let (peer, asked) = (peer_of(connection), cx.now());
        let name = command.program().to_owned();
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
            self.note(cx, Level::Error, Topic::System, line);
            self.desk.lookups.answered(id);
            if let Some(connection) = self.connections.get_mut(key) {
                connection.looked = Looked::Unfit(Unfit::Unanswered, Some(cx.now() + NO_SOONER));
                cx.resume_later(ExecSource::Client.at(key));
            }
        }
    }

    /// Threads may have found something.
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
        // It may have been given up.
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

    /// The alarm of a connection has gone off: its look-up may have taken too long, or its refusal be due.
    pub(super) fn look_at_the_clock(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.looked.deadline().is_none_or(|at| cx.now() < at) {
            return;
        }
        match &mut connection.looked {
            // What is due has no deadline any more.
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

/// A connection has gone.
pub(super) fn withdraw(desk: &mut Desk, connection: &Connection) {
    if let Looked::UnderWay { id, peer, .. } = connection.looked {
        desk.lookups.withdraw(peer, id);
    }
}

/// Whose look-ups are counted together.
fn peer_of(connection: &Connection) -> Peer {
    if let Some(address) = connection.origin.ip() {
        return at(address);
    }
    match connection.conn.socket().peer_credentials() {
        Ok(Some(user)) if connection.origin.is_direct() => Peer::User(user.uid),
        _ => Peer::Unknown,
    }
}

/// Of IPv6 one network, since whoever has one address of it has all.
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
