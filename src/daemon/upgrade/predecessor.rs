//! The daemon that is asked for an upgrade: starts its successor, serves until that one does, and lets go.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::super::{Daemon, Ending};
use super::invitation::{self, NOT_FOR_IT, Terms, VARIABLE};
use super::link::{Heard, Link};
use super::look::{self, Look, Seen};
use super::stage::{Action, Event, Stage, Why};
use super::word;
use crate::amount;
use crate::process::successor::{Handed, Image, Successor};

/// What a successor may take to be ready, besides the time that its workers may take.
const ALLOWANCE: Duration = Duration::from_secs(30);

/// What the daemon keeps for upgrades.
#[derive(Debug)]
pub(in crate::daemon) struct Upgrade {
    /// What would be started.
    image: io::Result<Image>,
    open_files: u64,
    /// At the file of the image, before it is started.
    look: Look,
    stage: Stage,
    under_way: Option<(Successor, Link)>,
    /// What came while it could not be done, and is done when it can.
    wanted: bool,
    hang_up: bool,
}

impl Upgrade {
    /// `open_files`: the soft limit that the daemon was started with, as its successor is to be told.
    pub(in crate::daemon) fn new(open_files: u64) -> Upgrade {
        Upgrade {
            image: Image::of_this_process(),
            open_files,
            look: Look::Not,
            stage: Stage::Idle,
            under_way: None,
            wanted: false,
            hang_up: false,
        }
    }

    /// Whether a reload has to wait; it is remembered.
    pub(in crate::daemon) fn postpones_hang_up(&mut self) -> bool {
        let postpones = self.stage.is_under_way();
        self.hang_up |= postpones;
        postpones
    }

    /// When the upgrade is to be looked after at the latest.
    pub(in crate::daemon) fn deadline(&self) -> Option<Instant> {
        self.look.deadline()
    }

    /// The child that is about to take over, or to end.
    pub(in crate::daemon) fn successor(&self) -> Option<Pid> {
        self.under_way.as_ref().map(|(successor, _)| successor.pid())
    }

    fn heard(&self) -> Option<Event> {
        let (_, link) = self.under_way.as_ref()?;
        link.hear().map(|heard| match heard {
            Heard::Word(word::READY) => Event::Ready,
            Heard::Word(word::SERVING) => Event::Serving,
            Heard::Word(_) => Event::Gibberish,
            Heard::Closed => Event::Silent,
            Heard::Overdue => Event::Overdue,
            Heard::Gone => Event::Gone,
        })
    }
}

impl Daemon {
    /// URG.
    pub(in crate::daemon) fn upgrade(&mut self) {
        if let Some(why) = self.forbids_upgrade() {
            log::warn!("no upgrade: {why}");
        } else if self.reloader.is_reading() {
            self.upgrade.wanted = true;
        } else if self.upgrade.stage == Stage::Idle {
            self.look_at_image();
        } else {
            self.advance_upgrade(Event::Asked);
        }
    }

    fn look_at_image(&mut self) {
        let Ok(image) = &self.upgrade.image else {
            return self.advance_upgrade(Event::Asked);
        };
        let program = image.program();
        if self.upgrade.look.is_under_way() {
            return log::warn!("no upgrade: one is under way already");
        }
        if self.upgrade.look.check_stuck() {
            return log::error!(
                "no upgrade: the file system that this program is on still does not answer; see why, and send URG again"
            );
        }
        let begun = self
            .upgrade
            .look
            .begin(program.to_owned(), &self.reactor, Instant::now());
        if let Err(error) = begun {
            log::error!("no upgrade: no thread to look at the program's file on: {error}; send URG again later");
        }
    }

    fn act_on_look(&mut self, seen: Seen) {
        match seen {
            Seen::Answered if self.reloader.is_reading() => self.upgrade.wanted = true,
            Seen::Answered => match self.forbids_upgrade() {
                Some(why) => log::warn!("no upgrade: {why}"),
                None => self.advance_upgrade(Event::Asked),
            },
            Seen::Overdue => log::error!(
                "upgrade failed: the file system that this program is on has not answered for {}; this daemon stays in \
                 service; see why, and send URG again",
                amount::span(look::PATIENCE)
            ),
        }
    }

    fn forbids_upgrade(&self) -> Option<&'static str> {
        if self.candidate.is_some() {
            Some("this process is itself about to take over from another")
        } else if self.ending != Ending::NotYet {
            Some("this daemon is ending")
        } else if std::process::id() == 1 {
            Some("this is process 1, with which its container ends; replace the container instead")
        } else if self.notifier.is_watched_blindly() {
            Some("systemd would take the end of this process for the end of the service; write Type=notify in its unit")
        } else {
            None
        }
    }

    /// What the successor has said by now; and an upgrade that has waited for a reload.
    pub(in crate::daemon) fn look_after_upgrade(&mut self) {
        while let Some(event) = self.upgrade.heard() {
            self.advance_upgrade(event);
        }
        if let Some(seen) = self.upgrade.look.seen(Instant::now()) {
            self.act_on_look(seen);
        }
        // What waits for a reload has nothing to do before its end.
        if !self.reloader.is_reading() && std::mem::take(&mut self.upgrade.wanted) {
            self.upgrade();
        }
    }

    /// This daemon was told to end.
    pub(in crate::daemon) fn end_upgrade(&mut self) {
        self.advance_upgrade(Event::Ending);
    }

    fn advance_upgrade(&mut self, event: Event) {
        let (stage, action) = self.upgrade.stage.on(event);
        self.upgrade.stage = stage;
        match action {
            Action::Nothing => {}
            Action::Start => self.start_successor(),
            Action::Refuse => log::warn!("no upgrade: one is under way already"),
            Action::Go => self.with_successor(|_, link| link.say(word::GO)),
            Action::HandOver => self.hand_over(),
            Action::Kill => self.with_successor(|successor, _| successor.kill()),
            Action::PassOn => self.with_successor(|successor, _| successor.signal(Signal::SIGTERM)),
            Action::Report(why) => self.report_failure(why),
        }
    }

    fn with_successor(&self, act: impl FnOnce(&Successor, &Link)) {
        if let Some((successor, link)) = &self.upgrade.under_way {
            act(successor, link);
        }
    }

    fn start_successor(&mut self) {
        self.notifier.reloading();
        match self.try_start() {
            Ok((successor, link)) => {
                log::info!("upgrade: process {} starts", successor.pid());
                self.upgrade.under_way = Some((successor, link));
            }
            Err(error) => {
                log::error!("upgrade failed: {error}; this daemon stays in service; mend it and send URG again");
                self.advance_upgrade(Event::NotStarted);
                self.notifier.reloaded();
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
        let time = ALLOWANCE.saturating_add(self.doors.start_timeout());
        let (ours, theirs) = UnixStream::pair().map_err(told("make a connection"))?;
        let terms = Terms {
            parent: i32::try_from(std::process::id()).unwrap_or_default(),
            connection: theirs.as_raw_fd(),
            time,
            open_files: self.upgrade.open_files,
        };
        let places = invitation::write_places(&self.doors.places(&mut self.reactor));
        let outgoing = self.doors.offer(&mut self.reactor);
        let (mut descriptors, table) = outgoing.map_err(told("duplicate the sockets"))?.into_parts();
        descriptors.push(OwnedFd::from(theirs));
        let successor = image.start(Handed {
            descriptors,
            variable: (VARIABLE, &format!("{terms}{places}{table}")),
            without: &NOT_FOR_IT,
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
        if std::mem::take(&mut self.upgrade.hang_up) {
            successor.signal(Signal::SIGHUP);
        }
        self.notifier.hand_over(successor.pid().as_raw());
        successor.let_go();
        self.doors.each(&mut self.reactor, |door, cx| door.hand_over(cx));
        if self.ending == Ending::NotYet {
            self.ending = Ending::HandedOver;
        }
    }

    fn report_failure(&mut self, why: Why) {
        let Some((mut successor, _link)) = self.upgrade.under_way.take() else {
            return;
        };
        // Dropped at the end of this, it is killed if it has closed the connection and stays.
        let status = match successor.reap() {
            Ok(Some(status)) => format!(" ({status})"),
            Ok(None) | Err(_) => String::new(),
        };
        let pid = successor.pid();
        if why == Why::ToldToEnd {
            log::info!("upgrade given up: {why}; process {pid} is gone{status}");
            return;
        }
        log::error!(
            "upgrade failed: process {pid}: {why}{status}; this daemon stays in service; \
             what the process has logged says more; mend it and send URG again"
        );
        self.notifier.reloaded();
        if std::mem::take(&mut self.upgrade.hang_up) {
            self.hang_up();
        }
    }
}
