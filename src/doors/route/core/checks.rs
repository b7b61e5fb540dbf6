//! The active checks: which server is asked when, and by which question.
//!
//! The life of a [`Subject`], which is a server of the file and the question that it is asked: it waits for its time, it
//! is [asked](Checker::begin) by the shell, and the [outcome](Checker::end) lets it wait for the next time. What an
//! outcome means for the server is decided by its [health](super::health).
//!
//! Invariants:
//! - At most [`MOST`] subjects are asked at the same time, however many there are; the one whose time came first is next.
//! - A subject is asked once at a time. One that a newer table does not have any more is not asked again, and the outcome
//!   of a question that is under way to it counts for nothing.
//! - The first question comes within [`FIRST`], the next ones at the interval with a jitter of a tenth, so that the
//!   questions to many servers spread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::table::{Address, ProxyVersion, Rule, Server, Servers, Table, Target, Way};
use crate::doors::jitter::Jitter;

/// The most subjects that are asked at the same time.
pub const MOST: usize = 16;
/// The time within which a subject is asked first.
const FIRST: Duration = Duration::from_secs(1);
/// The time after which a subject is asked again when nothing could be found out.
const AGAIN: Duration = Duration::from_secs(1);

/// The question of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Does it take connections?
    Tcp,
    /// Does it answer a GET of HTTP for this path well: with a status from 200 to 399?
    Http(Box<str>),
}

/// The check of a service, as its operator has written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The question.
    pub question: Question,
    /// The port that is asked; `None` for that of the servers.
    pub port: Option<u16>,
    /// The time from one question to the next.
    pub interval: Duration,
    /// The longest time that an answer may take, from connecting on.
    pub timeout: Duration,
}

/// A server of which the outcome of a check tells: one of those of a way of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The way.
    pub way: Way,
    /// The servers of the way.
    pub servers: Arc<Servers>,
    /// The address of the server.
    pub address: Arc<Address>,
}

/// A server that is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The service, by its name.
    pub service: Arc<str>,
    /// The number of the rule in the service.
    pub number: usize,
    /// The check.
    pub check: Arc<Check>,
    /// The address that is asked.
    pub address: Arc<Address>,
    /// The header that the server wants in front.
    pub send_proxy: Option<ProxyVersion>,
    /// The servers that the outcome is for.
    pub told: Vec<Told>,
}

impl Subject {
    /// Returns the subject with the servers that `other` is not for, if there are any.
    fn without(mut self, other: &Subject) -> Option<Subject> {
        let is_for = |subject: &Subject, told: &Told| {
            let mut all = subject.told.iter();
            all.any(|known| (known.way, &known.address) == (told.way, &told.address))
        };
        self.told.retain(|told| !is_for(other, told));
        Some(self).filter(|subject| !subject.told.is_empty())
    }
}

/// Returns everything that is checked for a table. It takes time in proportion to the table.
pub fn subjects(table: &Table) -> Vec<Subject> {
    let mut all = Vec::new();
    for service in table.services() {
        for (number, rule) in service.rules.iter().enumerate() {
            if let Some(check) = &rule.check {
                all.extend(asked(rule, check).into_iter().map(|(address, told)| Subject {
                    service: Arc::clone(&service.name),
                    number,
                    check: Arc::clone(check),
                    address: Arc::new(address),
                    send_proxy: rule.send_proxy,
                    told,
                }));
            }
        }
    }
    all
}

/// Returns the addresses that are asked for a rule, each with the servers that its answer is for.
fn asked(rule: &Rule, check: &Check) -> Vec<(Address, Vec<Told>)> {
    let Target::Servers { tls, http } = &rule.target else {
        return Vec::new();
    };
    let of_way = |way, servers: &Option<Arc<Servers>>| {
        let servers = servers
            .iter()
            .flat_map(|servers| servers.list.iter().map(move |server| (servers, server)));
        servers
            .map(|(servers, Server { address, .. })| Told {
                way,
                servers: Arc::clone(servers),
                address: Arc::new(address.clone()),
            })
            .collect::<Vec<_>>()
    };
    let (tls, http) = (of_way(Way::Tls, tls), of_way(Way::Http, http));
    let mut asked: BTreeMap<Address, Vec<Told>> = BTreeMap::new();
    let is_alone = |host| http.iter().filter(|told| host_of(&told.address) == host).count() == 1;
    for told in tls.iter().chain(&http) {
        let address = match (&*told.address, check.port, &check.question) {
            (Address::Network { host, .. }, Some(port), _) => Address::Network {
                host: host.clone(),
                port,
            },
            // The port for HTTP is asked on behalf of that for TLS as well.
            (address, None, Question::Http(_)) if told.way == Way::Tls => {
                let same = http.iter().find(|other| *other.address == *address);
                let host = host_of(address);
                let of_host = http
                    .iter()
                    .find(|other| host_of(&other.address) == host && is_alone(host));
                match same.or(of_host) {
                    Some(other) => (*other.address).clone(),
                    None => continue,
                }
            }
            (address, _, _) => address.clone(),
        };
        asked.entry(address).or_default().push(told.clone());
    }
    asked.into_iter().collect()
}

/// Returns the host of an address, without its port.
fn host_of(address: &Address) -> &str {
    match address {
        Address::Network { host, .. } => host,
        Address::Unix(path) => path,
        Address::Tunnel(from) => from,
    }
}

/// A subject, known to the shell by this number, which is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckId(pub u64);

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was good.
    Passed,
    /// It was not, or none has come, for this reason.
    Failed(String),
    /// Nothing was found out: the daemon lacks a descriptor, or the host is being looked up.
    Unknown,
}

/// The state of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is asked at this time.
    Waiting(Instant),
    /// It is being asked.
    Asked,
}

/// The last thing that was found out about a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The reason for which its check has failed; `None` if that has passed.
    pub fault: Option<String>,
    /// The time from which on its checks have passed, or have failed.
    pub since: Instant,
}

#[derive(Debug)]
struct Entry {
    subject: Subject,
    state: State,
    /// `None` until something was found out.
    found: Option<Found>,
}

impl Entry {
    fn note(&mut self, fault: Option<String>, now: Instant) {
        let same = |found: &&Found| found.fault.is_some() == fault.is_some();
        let since = self.found.as_ref().filter(same).map_or(now, |found| found.since);
        self.found = Some(Found { fault, since });
    }
}

/// The place of a subject, which it keeps when its table is replaced.
type Place = (Arc<str>, usize, Arc<Address>);

/// All subjects of a door. See the module.
#[derive(Debug)]
pub struct Checker {
    entries: BTreeMap<CheckId, Entry>,
    places: BTreeMap<Place, CheckId>,
    /// The subjects that wait, in the order of their times.
    waiting: BTreeSet<(Instant, CheckId)>,
    asked: usize,
    next: u64,
    jitter: Jitter,
}

impl Checker {
    /// A checker without subjects. `seed` feeds its jitter.
    pub fn new(seed: u64) -> Checker {
        Checker {
            entries: BTreeMap::new(),
            places: BTreeMap::new(),
            waiting: BTreeSet::new(),
            asked: 0,
            next: 0,
            jitter: Jitter::new(seed),
        }
    }

    /// Takes these subjects in place of the others. One that was there keeps its time. Returns the ones that are not checked
    /// any more, and those of which the outcome tells of less servers, each with the servers that it does not tell of any
    /// more.
    pub fn replace(&mut self, subjects: &[Subject], now: Instant) -> Vec<Subject> {
        let mut left = Vec::new();
        let mut before = std::mem::take(&mut self.places);
        for subject in subjects {
            let place = (
                Arc::clone(&subject.service),
                subject.number,
                Arc::clone(&subject.address),
            );
            let known = before.remove(&place).map(|id| self.same_question(id, subject, now));
            let id = known.unwrap_or_else(|| {
                self.next += 1;
                CheckId(self.next)
            });
            self.places.insert(place, id);
            match self.entries.get_mut(&id) {
                Some(entry) => {
                    let was = std::mem::replace(&mut entry.subject, subject.clone());
                    let is_slower = was.check.interval <= subject.check.interval;
                    left.extend(was.without(subject));
                    if !is_slower {
                        self.set_time(id, now);
                    }
                }
                None => {
                    let entry = Entry {
                        subject: subject.clone(),
                        state: State::Asked,
                        found: None,
                    };
                    self.entries.insert(id, entry);
                    self.asked += 1;
                    self.set_time(id, now);
                }
            }
        }
        left.extend(before.into_values().filter_map(|id| self.remove(id)));
        left
    }

    /// Returns the id of a subject that was known. It is another one if the subject is being asked something else than from
    /// now on, whose answer must not count.
    fn same_question(&mut self, id: CheckId, subject: &Subject, now: Instant) -> CheckId {
        let asks_another = |entry: &Entry| {
            let (was, is) = (&entry.subject.check, &subject.check);
            entry.state == State::Asked && (&was.question, was.port) != (&is.question, is.port)
        };
        if !self.entries.get(&id).is_some_and(asks_another) {
            return id;
        }
        let Some(entry) = self.entries.remove(&id) else {
            return id;
        };
        self.next += 1;
        let id = CheckId(self.next);
        self.entries.insert(id, entry);
        let at = self.soon(now);
        self.wait_until(id, at);
        id
    }

    /// Lets a subject wait for a time soon.
    fn set_time(&mut self, id: CheckId, now: Instant) {
        let at = self.soon(now);
        self.wait_until(id, at);
    }

    fn soon(&mut self, now: Instant) -> Instant {
        let most = u64::try_from(FIRST.as_millis()).unwrap_or(u64::MAX);
        now + Duration::from_millis(self.jitter.next() % most)
    }

    fn wait_until(&mut self, id: CheckId, at: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match std::mem::replace(&mut entry.state, State::Waiting(at)) {
            State::Waiting(before) => {
                self.waiting.remove(&(before, id));
            }
            State::Asked => self.asked -= 1,
        }
        self.waiting.insert((at, id));
    }

    fn remove(&mut self, id: CheckId) -> Option<Subject> {
        let entry = self.entries.remove(&id)?;
        match entry.state {
            State::Waiting(at) => {
                self.waiting.remove(&(at, id));
            }
            State::Asked => self.asked -= 1,
        }
        Some(entry.subject)
    }

    /// Returns the subject that is to be asked now, if there is one. [`end`](Self::end) must be called for it.
    pub fn begin(&mut self, now: Instant) -> Option<(CheckId, &Subject)> {
        let (at, id) = self.waiting.first().copied().filter(|(at, _)| *at <= now)?;
        if self.asked >= MOST {
            return None;
        }
        self.waiting.remove(&(at, id));
        self.asked += 1;
        let entry = self.entries.get_mut(&id)?;
        entry.state = State::Asked;
        Some((id, &entry.subject))
    }

    /// Takes in the outcome of a question. Returns its subject, unless that is not checked any more.
    pub fn end(&mut self, id: CheckId, outcome: &Outcome, now: Instant) -> Option<&Subject> {
        let entry = self.entries.get_mut(&id).filter(|entry| entry.state == State::Asked)?;
        let interval = self.jitter.around_duration(entry.subject.check.interval);
        let pause = match outcome {
            Outcome::Passed => {
                entry.note(None, now);
                interval
            }
            Outcome::Failed(why) => {
                entry.note(Some(why.clone()), now);
                interval
            }
            Outcome::Unknown => interval.min(AGAIN),
        };
        self.wait_until(id, now + pause);
        Some(&self.entries.get(&id)?.subject)
    }

    /// Returns the time at which the next subject is to be asked. `None` while no further one may be.
    pub fn next_time(&self) -> Option<Instant> {
        let first = self.waiting.first().filter(|_| self.asked < MOST);
        first.map(|(at, _)| *at)
    }

    /// Returns each subject, with the last thing that was found out about it.
    pub fn views(&self) -> impl Iterator<Item = (&Subject, Option<&Found>)> {
        let entries = self.entries.values();
        entries.map(|entry| (&entry.subject, entry.found.as_ref()))
    }

    /// Returns the number of subjects.
    pub fn count(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests;
