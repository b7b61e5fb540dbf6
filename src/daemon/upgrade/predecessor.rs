//! The predecessor's side of an upgrade: it starts its successor, serves until the successor does, and then drains.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::super::{Daemon, Shutdown};
use super::file_check::{self, CheckOutcome, FileCheck};
use super::invitation::{self, LINKS_VARIABLE, REMOVED_VARIABLES, Terms, VARIABLE};
use super::link::{Link, LinkEvent};
use super::message;
use super::stage::{Action, Event, FailureReason, Stage};
use crate::amount;
use crate::process::successor::{Image, Inheritance, Successor};

/// The time that a successor has to become ready, in addition to the start time-out of its workers.
const START_ALLOWANCE: Duration = Duration::from_secs(30);

/// The state of upgrades in a daemon.
#[derive(Debug)]
pub(in crate::daemon) struct Upgrade {
    /// The program that an upgrade starts.
    image: io::Result<Image>,
    open_files: u64,
    /// The check of the program's file, which precedes its start.
    file_check: FileCheck,
    stage: Stage,
    under_way: Option<(Successor, Link)>,
    /// True if an upgrade was requested during a reload and must start after it.
    requested: bool,
    reload_postponed: bool,
}

impl Upgrade {
    /// Returns the state without an upgrade. `open_files` is the soft limit that the daemon was started with, for its
    /// successor.
    pub(in crate::daemon) fn new(open_files: u64) -> Upgrade {
        Upgrade {
            image: Image::of_this_process(),
            open_files,
            file_check: FileCheck::Idle,
            stage: Stage::Idle,
            under_way: None,
            requested: false,
            reload_postponed: false,
        }
    }

    /// Returns true if a reload must wait for the end of an upgrade, and remembers it in that case.
    pub(in crate::daemon) fn postpone_reload(&mut self) -> bool {
        let postpones = self.stage.is_under_way();
        self.reload_postponed |= postpones;
        postpones
    }

    /// Returns the time at which [`Daemon::poll_upgrade`] must be called at the latest.
    pub(in crate::daemon) fn deadline(&self) -> Option<Instant> {
        self.file_check.deadline()
    }

    /// Returns the process id of the child that is about to take over, or to end.
    pub(in crate::daemon) fn successor(&self) -> Option<Pid> {
        self.under_way.as_ref().map(|(successor, _)| successor.pid())
    }

    fn next_event(&self) -> Option<Event> {
        let (_, link) = self.under_way.as_ref()?;
        link.receive().map(|received| match received {
            LinkEvent::Message(message::READY) => Event::Ready,
            LinkEvent::Message(message::SERVING) => Event::Serving,
            LinkEvent::Message(_) => Event::UnknownMessage,
            LinkEvent::Closed => Event::Disconnected,
            LinkEvent::Overdue => Event::Overdue,
            LinkEvent::ProcessEnded => Event::ProcessEnded,
        })
    }
}

impl Daemon {
    /// Handles URG: starts an upgrade, unless something forbids it.
    pub(in crate::daemon) fn upgrade(&mut self) {
        if let Some(why) = self.upgrade_obstacle() {
            log::warn!("no upgrade: {why}");
        } else if self.reloader.is_reading() {
            self.upgrade.requested = true;
        } else if self.upgrade.stage == Stage::Idle {
            self.check_image();
        } else {
            self.advance_upgrade(Event::Requested);
        }
    }

    fn check_image(&mut self) {
        let Ok(image) = &self.upgrade.image else {
            return self.advance_upgrade(Event::Requested);
        };
        let program = image.program();
        if self.upgrade.file_check.is_under_way() {
            return log::warn!("no upgrade: one is under way already");
        }
        if self.upgrade.file_check.check_stuck() {
            return log::error!(
                "no upgrade: the file system that this program is on still does not answer; see why, and send URG again"
            );
        }
        let begun = self
            .upgrade
            .file_check
            .start(program.to_owned(), &self.reactor, Instant::now());
        if let Err(error) = begun {
            log::error!("no upgrade: no thread to look at the program's file on: {error}; send URG again later");
        }
    }

    fn handle_file_check(&mut self, outcome: CheckOutcome) {
        match outcome {
            CheckOutcome::Answered if self.reloader.is_reading() => self.upgrade.requested = true,
            CheckOutcome::Answered => match self.upgrade_obstacle() {
                Some(why) => log::warn!("no upgrade: {why}"),
                None => self.advance_upgrade(Event::Requested),
            },
            CheckOutcome::Overdue => log::error!(
                "upgrade failed: the file system that this program is on has not answered for {}; this daemon stays in \
                 service; see why, and send URG again",
                amount::span(file_check::TIMEOUT)
            ),
        }
    }

    fn upgrade_obstacle(&self) -> Option<&'static str> {
        if self.candidate.is_some() {
            Some("this process is itself about to take over from another")
        } else if self.shutdown != Shutdown::NotBegun {
            Some("this daemon is ending")
        } else if std::process::id() == 1 {
            Some("this is process 1, with which its container ends; replace the container instead")
        } else if self.notifier.is_watched_without_notify() {
            Some("systemd would take the end of this process for the end of the service; write Type=notify in its unit")
        } else {
            None
        }
    }

    /// Handles all messages of the successor, and an upgrade that has waited for a reload. Must be called after each
    /// turn of the loop.
    pub(in crate::daemon) fn poll_upgrade(&mut self) {
        while let Some(event) = self.upgrade.next_event() {
            self.advance_upgrade(event);
        }
        if let Some(outcome) = self.upgrade.file_check.take_outcome(Instant::now()) {
            self.handle_file_check(outcome);
        }
        // A requested upgrade has nothing to do before the reload ends.
        if !self.reloader.is_reading() && std::mem::take(&mut self.upgrade.requested) {
            self.upgrade();
        }
    }

    /// Gives an upgrade up, because this daemon was told to end.
    pub(in crate::daemon) fn abandon_upgrade(&mut self) {
        self.advance_upgrade(Event::ShutDown);
    }

    fn advance_upgrade(&mut self, event: Event) {
        let (stage, action) = self.upgrade.stage.handle(event);
        self.upgrade.stage = stage;
        match action {
            Action::Nothing => {}
            Action::Start => self.start_successor(),
            Action::Refuse => log::warn!("no upgrade: one is under way already"),
            Action::Go => self.with_successor(|_, link| link.send(message::GO)),
            Action::HandOver => self.hand_over(),
            Action::Kill => self.with_successor(|successor, _| successor.kill()),
            Action::ForwardTerm => self.with_successor(|successor, _| successor.signal(Signal::SIGTERM)),
            Action::Report(why) => self.report_failure(why),
        }
    }

    fn with_successor(&self, act: impl FnOnce(&Successor, &Link)) {
        if let Some((successor, link)) = &self.upgrade.under_way {
            act(successor, link);
        }
    }

    fn start_successor(&mut self) {
        self.notifier.report_reloading();
        match self.try_start() {
            Ok((successor, link)) => {
                log::info!("upgrade: process {} starts", successor.pid());
                self.upgrade.under_way = Some((successor, link));
            }
            Err(error) => {
                log::error!("upgrade failed: {error}; this daemon stays in service; mend it and send URG again");
                self.advance_upgrade(Event::NotStarted);
                self.notifier.report_reloaded();
            }
        }
    }

    fn try_start(&mut self) -> Result<(Successor, Link), String> {
        let told = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| format!("cannot {what}: {error}")
        };
        let image = self.upgrade.image.as_ref();
        let image = image.map_err(|error| format!("the program's file was not known at the start: {error}"))?;
        let time = START_ALLOWANCE.saturating_add(self.doors.start_timeout());
        let (ours, theirs) = UnixStream::pair().map_err(told("make a connection"))?;
        let terms = Terms {
            parent: i32::try_from(std::process::id()).unwrap_or_default(),
            connection: theirs.as_raw_fd(),
            time,
            open_files: self.upgrade.open_files,
        };
        let earlier = invitation::write_earlier(self.predecessors.running());
        let places = invitation::write_places(&self.doors.places(&mut self.reactor));
        let outgoing = self.doors.offer(&mut self.reactor);
        let (mut descriptors, table) = outgoing.map_err(told("duplicate the sockets"))?.into_parts();
        descriptors.push(OwnedFd::from(theirs));
        let links = self.doors.offer_links(&mut self.reactor);
        let lines = invitation::write_links(links.iter().map(|(service, link)| (service.as_str(), link.as_raw_fd())));
        descriptors.extend(links.into_iter().map(|(_, link)| link));
        let successor = image.start(Inheritance {
            descriptors,
            variables: &[
                (VARIABLE, &format!("{terms}{earlier}{places}{table}")),
                (LINKS_VARIABLE, &lines),
            ],
            without: &REMOVED_VARIABLES,
        });
        let successor = successor.map_err(told(&format!("run {}", image.program().display())))?;
        let watch = successor.watch().map_err(told("watch the new process"))?;
        let link = Link::listen(ours, Instant::now() + time, Some(watch), &self.reactor);
        Ok((successor, link.map_err(told("start a thread"))?))
    }

    fn hand_over(&mut self) {
        let Some((successor, _link)) = self.upgrade.under_way.take() else {
            return;
        };
        log::info!(
            "upgrade: process {} serves; this one finishes what it has in hand",
            successor.pid()
        );
        if std::mem::take(&mut self.upgrade.reload_postponed) {
            successor.signal(Signal::SIGHUP);
        }
        self.notifier.hand_over(successor.pid().as_raw());
        successor.release();
        self.renewal.stop();
        self.doors.expect_handed(&mut self.reactor);
        self.doors.each(&mut self.reactor, |door, cx| door.hand_over(cx));
        if self.shutdown == Shutdown::NotBegun {
            self.shutdown = Shutdown::HandedOver;
        }
    }

    fn report_failure(&mut self, why: FailureReason) {
        let Some((mut successor, _link)) = self.upgrade.under_way.take() else {
            return;
        };
        // Dropping the successor at the end of this function kills it if it has closed the connection and not ended.
        let status = match successor.reap() {
            Ok(Some(status)) => format!(" ({status})"),
            Ok(None) | Err(_) => String::new(),
        };
        let pid = successor.pid();
        if why == FailureReason::ShutDown {
            log::info!("upgrade given up: {why}; process {pid} is gone{status}");
            return;
        }
        log::error!(
            "upgrade failed: process {pid}: {why}{status}; this daemon stays in service; \
             what the process has logged says more; mend it and send URG again"
        );
        self.notifier.report_reloaded();
        if std::mem::take(&mut self.upgrade.reload_postponed) {
            self.handle_hup();
        }
    }
}
