//! Certificates whose files change while the daemon runs, and the ends of certificates.
//!
//! The life of a change: the thread of the [`watcher`] hears of it from the kernel, waits until the files have
//! [settled](settling), and reads them, for a disk may be slow. What it has found comes to the loop by a mailbox. There
//! it is given to the door, which uses the new certificates for the handshakes that begin from then on, or logs why
//! they are refused and keeps the old ones. Connections stay as they are.
//!
//! A watcher is for the certificates that the doors have when it is started, and never learns of others. A HUP ends it
//! and starts the next, unless no door has TLS any more. Each has a number, and what comes from an earlier one is
//! dropped: so a HUP is never undone by what was found before it. The next one reads all files once, in case they have
//! changed in between. A thread that hangs in a file system is left alone. There may be only a few such.
//!
//! The ends of certificates need no thread. The loop has one deadline for all of them, at most a day away, at which each
//! door says what there is to say.

mod blindness;
mod settling;
mod trail;
mod watcher;

use std::io::{self, PipeWriter};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime};

use crate::doors::Door;
use crate::doors::front::options::TlsOptions;
use crate::doors::front::tls::PreparedTls;
use crate::doors::preparing::ServerId;
use crate::net::tls::files::FileError;
use crate::reactor::Reactor;
use crate::reactor::helper::{Mailbox, Sender};

/// The number of findings that may wait for the loop. A thread that finds more waits.
const MOST_FINDINGS: usize = 16;
/// The number of earlier threads that may not have ended yet. More of them than a burst of signals leaves are hanging.
const MOST_HANGING: usize = 8;

/// The certificates of a TLS server of a door.
#[derive(Debug, Clone)]
pub(super) struct Certificates {
    /// The names of the door and of the server.
    pub(super) id: ServerId,
    pub(super) options: TlsOptions,
    pub(super) tls: PreparedTls,
}

/// A finding of the thread, with the name of the server that it is about.
#[derive(Debug)]
enum Finding {
    Renewed(ServerId, PreparedTls),
    /// The files cannot be used. The mistakes are the ones that were not reported before.
    Refused(ServerId, Vec<FileError>),
    /// The files were refused, and are again as they were before.
    Restored(ServerId),
    /// Some changes will not be seen, for this reason.
    Blind(String),
}

/// The loop's side.
#[derive(Debug)]
pub(super) struct Renewal {
    sender: Sender<(u64, Finding)>,
    mailbox: Mailbox<(u64, Finding)>,
    /// The number of watchers so far, which is the number of the present one.
    started: u64,
    present: Option<Watcher>,
    /// Earlier watchers whose threads may not have ended yet.
    earlier: Vec<JoinHandle<()>>,
    /// The time at which the ends of certificates are to be looked at.
    look_at: Option<Instant>,
}

#[derive(Debug)]
struct Watcher {
    thread: JoinHandle<()>,
    /// The thread ends when this is closed.
    _stop: PipeWriter,
}

impl Renewal {
    pub(super) fn new(reactor: &Reactor<dyn Door>) -> Self {
        let (sender, mailbox) = reactor.mailbox(MOST_FINDINGS);
        Self {
            sender,
            mailbox,
            started: 0,
            present: None,
            earlier: Vec::new(),
            look_at: None,
        }
    }

    /// Watches the files of these certificates, and no others from now on.
    fn watch(&mut self, certificates: Vec<Certificates>) {
        self.stop();
        if certificates.is_empty() {
            return;
        }
        self.earlier.retain(|thread| !thread.is_finished());
        let started = if self.earlier.len() > MOST_HANGING {
            Err("a file system that they are or were on does not answer".to_owned())
        } else {
            self.start(certificates).map_err(|error| error.to_string())
        };
        match started {
            Ok(watcher) => self.present = Some(watcher),
            Err(error) => {
                log::warn!("changed certificates are not read by themselves: {error}; send HUP after each change");
            }
        }
    }

    fn start(&self, certificates: Vec<Certificates>) -> io::Result<Watcher> {
        let (stopped, stop) = io::pipe()?;
        let (number, sender) = (self.started, self.sender.clone());
        let report = move |finding| sender.send((number, finding)).is_ok();
        let life = move || watcher::run(certificates, report, &stopped);
        let thread = thread::Builder::new().name("certificates".to_owned()).spawn(life)?;
        Ok(Watcher { thread, _stop: stop })
    }

    /// Watches nothing any more. Waits for no thread.
    pub(super) fn stop(&mut self) {
        self.started += 1;
        self.look_at = None;
        self.earlier.extend(self.present.take().map(|watcher| watcher.thread));
    }

    /// Returns the time at which the ends of certificates must be looked at.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }

    fn take(&self) -> Option<Finding> {
        while let Some((number, finding)) = self.mailbox.take() {
            if number == self.started {
                return Some(finding);
            }
        }
        None
    }
}

impl super::Daemon {
    /// Watches the certificates that the doors have now. Must be called whenever they were given others.
    pub(super) fn watch_certificates(&mut self) {
        let certificates = self.doors.certificates(&mut self.reactor);
        self.renewal.watch(certificates);
        self.remark_on_ends();
    }

    /// Gives the doors the certificates that were read because their files have changed, and looks at the ends of
    /// certificates if that is due. Must be called after each turn of the loop.
    pub(super) fn renew_certificates(&mut self) {
        while let Some(finding) = self.renewal.take() {
            match finding {
                Finding::Renewed(ServerId { service, name }, tls) => {
                    self.doors.call(&mut self.reactor, &service, |door, _| {
                        door.front_mut().renew_tls(&name, tls)
                    });
                    self.remark_on_ends();
                }
                Finding::Refused(ServerId { service, .. }, mistakes) => {
                    self.doors.call(&mut self.reactor, &service, |door, _| {
                        door.front_mut().refuse_tls(&mistakes)
                    });
                }
                Finding::Restored(ServerId { service, .. }) => {
                    self.doors
                        .call(&mut self.reactor, &service, |door, _| door.front_mut().restore_tls());
                }
                Finding::Blind(line) => log::warn!("{line}"),
            }
        }
        if self.renewal.look_at.is_some_and(|at| at <= Instant::now()) {
            self.remark_on_ends();
        }
    }

    /// Logs what there is to say about the ends of certificates, and sets the time of the next look.
    fn remark_on_ends(&mut self) {
        let now = SystemTime::now();
        let remark = |door: &mut (dyn Door + 'static)| door.front_mut().remark_on_ends(now);
        let next = self.doors.each(&mut self.reactor, |door, _| remark(door));
        let next = next.into_iter().flatten().min();
        self.renewal.look_at = next.map(|wait| Instant::now() + wait);
    }
}
