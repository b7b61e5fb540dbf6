//! The life of the thread that follows a store: a session with it, the end of that, a rest, and the next one.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::kept::{Former, Kept};
use super::{Made, Make, News, Orders, Report, Word};
use crate::amount;
use crate::reactor::helper::{Sender, ServiceGone};
use crate::store::ear::{Backlog, Ear, Heard};
use crate::store::faults::Faults;
use crate::store::keeper::{Extent, Keeper, Verdict};
use crate::store::key::Key;
use crate::store::place::Settings;
use crate::store::reading::{Listing, Reading};
use crate::store::redis::{Failure, Notifications, Redis};

/// The largest number of changed keys that are read one by one.
const MOST_CHANGED: usize = 10_000;
/// The longest time that a full reading may take.
const LONGEST_READING: Duration = Duration::from_secs(600);
/// The time for which the thread that listens may take to begin.
const EAR_PATIENCE: Duration = Duration::from_secs(15);
/// The delays between attempts to connect: the first one, and the longest.
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(15);

/// The end of a session with the store.
enum End {
    /// The thread must end.
    Stop,
    /// There are other settings.
    Changed,
    /// The store has failed.
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        End::Failed(failure)
    }
}

impl From<ServiceGone> for End {
    fn from(_: ServiceGone) -> Self {
        End::Stop
    }
}

/// The state of the thread.
pub(super) struct Thread<T> {
    settings: Settings,
    make: Make<T>,
    heard: Receiver<Word<T>>,
    /// For the ears.
    words: mpsc::Sender<Word<T>>,
    news: Sender<News<T>>,
    backlog: Arc<Backlog>,
    keeper: Keeper,
    /// The listing that is believed.
    good: Option<Listing>,
    reading: Reading,
    faults: Faults<Key>,
    /// The faults of names, which are found when a table is made.
    unfit: Faults<Box<str>>,
    /// The keys that have changed and were not read since.
    changed: BTreeSet<Key>,
    must_read_all: bool,
    /// The time until which changes are gathered.
    gather_until: Instant,
    /// The time until which not everything is read again, however many keys change.
    rest_until: Instant,
    /// The number of the present ear.
    ear: u64,
    /// The first word of the ear.
    begun: Option<Result<(), Failure>>,
    /// True if the log knows that changes are not heard of.
    is_told_of_polling: bool,
    kept: Kept,
    delay: Duration,
}

impl<T: Send + 'static> Thread<T> {
    pub(super) fn new(
        settings: Settings,
        make: Make<T>,
        heard: Receiver<Word<T>>,
        words: mpsc::Sender<Word<T>>,
        news: Sender<News<T>>,
    ) -> Self {
        Thread {
            keeper: Keeper::new(settings.refresh),
            kept: Kept::new(settings.cache.clone()),
            settings,
            make,
            heard,
            words,
            news,
            backlog: Arc::default(),
            good: None,
            reading: Reading::default(),
            faults: Faults::default(),
            unfit: Faults::default(),
            changed: BTreeSet::new(),
            must_read_all: false,
            gather_until: Instant::now(),
            rest_until: Instant::now(),
            ear: 0,
            begun: None,
            is_told_of_polling: false,
            delay: FIRST_DELAY,
        }
    }

    /// Follows the store until the thread must end.
    pub(super) fn run(&mut self) {
        let mut end = self.resume().err();
        loop {
            let end = match end.take() {
                Some(end) => end,
                None => match self.session() {
                    Ok(never) => match never {},
                    Err(end) => end,
                },
            };
            let rested = match end {
                End::Stop => return,
                End::Changed => self.remake(),
                End::Failed(failure) => self.rest(&failure),
            };
            if rested.is_err() {
                return;
            }
        }
    }

    // ---- the store -------------------------------------------------------------------------------------------------

    /// Follows the store until it fails.
    fn session(&mut self) -> Result<Infallible, End> {
        let place = self.settings.place.clone();
        let mut store = Redis::connect(&place)?;
        self.hear()?;
        self.ask_for_notifications(&mut store)?;
        self.ear += 1;
        let number = self.ear;
        let words = self.words.clone();
        let tell = move |heard| words.send(Word::Heard(number, heard)).is_ok();
        let _ear = Ear::open(place, Arc::clone(&self.backlog), tell)?;
        self.wait_for_ear()?;
        self.news.send(News::Connected)?;
        let mut due = self.read_all(&mut store)?;
        self.delay = FIRST_DELAY;
        loop {
            let now = Instant::now();
            self.write_file(now)?;
            if now >= due || (self.must_read_all && now >= self.rest_until) {
                due = self.read_all(&mut store)?;
            } else if self.must_read_all {
                self.hear_until(due.min(self.rest_until))?;
            } else if self.changed.is_empty() {
                self.hear_until(due)?;
            } else if now < self.gather_until {
                self.hear_until(due.min(self.gather_until))?;
            } else {
                self.read_changes(&mut store)?;
            }
        }
    }

    /// Has the store notify of changes, if it may be asked for that.
    fn ask_for_notifications(&mut self, store: &mut Redis) -> Result<(), End> {
        if let Notifications::Refused(why) = store.ask_for_notifications()? {
            self.tell_of_polling(&format!("its notifications cannot be switched on ({why})"))?;
        }
        Ok(())
    }

    /// Waits until the ear listens, or is known to hear nothing.
    fn wait_for_ear(&mut self) -> Result<(), End> {
        let until = Instant::now() + EAR_PATIENCE;
        self.begun = None;
        while Instant::now() < until {
            self.hear_until(until)?;
            match self.begun.take() {
                Some(Ok(())) => return Ok(()),
                Some(Err(failure)) => {
                    return self.tell_of_polling(&format!("its notifications are refused ({failure})"));
                }
                None => {}
            }
        }
        Err(End::Failed(Failure::new("it does not answer to SUBSCRIBE")))
    }

    fn tell_of_polling(&mut self, why: &str) -> Result<(), End> {
        if !self.is_told_of_polling {
            self.is_told_of_polling = true;
            let (place, refresh) = (&self.settings.place, amount::span(self.settings.refresh));
            let text = format!(
                "the store at {place}: {why}, so changes may be seen after {refresh} only; permit it CONFIG GET, CONFIG SET \
                 and PSUBSCRIBE, or set notify-keyspace-events to Kg$xe there"
            );
            self.news.send(News::Remark(text))?;
        }
        Ok(())
    }

    /// Reads all entries. Returns the time at which they are to be read again.
    fn read_all(&mut self, store: &mut Redis) -> Result<Instant, End> {
        let begun = Instant::now();
        // The keys are read later than they have changed.
        self.changed.clear();
        self.must_read_all = false;
        let (mut reading, mut faults) = (Reading::default(), Faults::default());
        let mut cursor = 0;
        loop {
            let (next, keys) = store.scan(cursor)?;
            let keys: Vec<Key> = keys.iter().filter_map(|key| Key::parse(key)).collect();
            store.read_into(keys, &mut reading, &mut faults)?;
            self.hear()?;
            cursor = next;
            if cursor == 0 {
                break;
            }
            if begun.elapsed() > LONGEST_READING {
                let longest = amount::span(LONGEST_READING);
                return Err(End::Failed(Failure::new(format!(
                    "reading it takes longer than {longest}"
                ))));
            }
        }
        let lines = faults.lines(&self.faults);
        self.reading = reading;
        self.faults = faults;
        self.offer(Extent::Full, begun, lines)?;
        let ended = Instant::now();
        self.rest_until = ended + (ended - begun);
        Ok(self.rest_until.max(begun + self.settings.refresh))
    }

    /// Reads the entries that have changed.
    fn read_changes(&mut self, store: &mut Redis) -> Result<(), End> {
        let begun = Instant::now();
        let keys: Vec<Key> = mem::take(&mut self.changed).into_iter().collect();
        let before = mem::take(&mut self.faults);
        let mut faults = Faults::default();
        let result = store.read_into(keys.clone(), &mut self.reading, &mut faults);
        self.faults = before;
        result?;
        let lines = faults.lines(&self.faults);
        for key in &keys {
            self.faults.forget(key);
        }
        self.faults.add(faults);
        self.offer(Extent::Changes, begun, lines)?;
        // At most half of the time is spent on changes, however many there are.
        self.gather_until = Instant::now() + begun.elapsed();
        Ok(())
    }

    /// Has the keeper decide about what was read, and tells the loop of it.
    fn offer(&mut self, extent: Extent, begun: Instant, lines: Vec<String>) -> Result<(), End> {
        let listing = self.reading.listing();
        let verdict = self.keeper.offer(&listing, extent, begun);
        let is_other = verdict == Verdict::Take && self.good.as_ref() != Some(&listing);
        let names = listing.len();
        let table = if is_other { Some(self.make(listing)?) } else { None };
        for line in lines {
            self.news.send(News::Fault(line))?;
        }
        let report = Report {
            begun,
            names,
            bad: self.faults.len() + self.unfit.len(),
            verdict,
            table,
        };
        Ok(self.news.send(News::Read(report))?)
    }

    /// Makes the table of a listing that is believed.
    fn make(&mut self, listing: Listing) -> Result<T, End> {
        let Made { table, faults } = (self.make)(&listing);
        for line in faults.lines(&self.unfit) {
            self.news.send(News::Fault(line))?;
        }
        self.unfit = faults;
        self.good = Some(listing);
        self.kept.is_old = true;
        Ok(table)
    }

    // ---- the loop and the ear --------------------------------------------------------------------------------------

    /// Takes in what has been said meanwhile.
    fn hear(&mut self) -> Result<(), End> {
        while let Ok(word) = self.heard.try_recv() {
            self.take(word)?;
        }
        self.must_read_all |= self.backlog.has_overflowed();
        Ok(())
    }

    /// Waits for a word, until this time at most.
    fn hear_until(&mut self, until: Instant) -> Result<(), End> {
        match self.heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(word) => self.take(word)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(End::Stop),
        }
        self.hear()
    }

    fn take(&mut self, word: Word<T>) -> Result<(), End> {
        match word {
            Word::Stop => return Err(End::Stop),
            Word::Change(settings, Orders(make)) => {
                if settings.place != self.settings.place {
                    self.keeper = Keeper::new(settings.refresh);
                    self.is_told_of_polling = false;
                }
                self.keeper.set_refresh(settings.refresh);
                self.settings = *settings;
                self.make = make;
                self.kept.move_to(self.settings.cache.clone());
                return Err(End::Changed);
            }
            Word::Discard(table) => drop(table),
            Word::Heard(ear, heard) => {
                if matches!(heard, Heard::Change(_)) {
                    self.backlog.leave();
                }
                if ear == self.ear {
                    self.note(heard)?;
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, heard: Heard) -> Result<(), End> {
        match heard {
            Heard::Begin => self.begun = Some(Ok(())),
            Heard::Refused(failure) => self.begun = Some(Err(failure)),
            Heard::Change(_) if self.must_read_all => {}
            Heard::Change(_) if self.changed.len() >= MOST_CHANGED => {
                self.changed.clear();
                self.must_read_all = true;
            }
            Heard::Change(key) => {
                self.changed.insert(key);
            }
            Heard::Failed(failure) => return Err(End::Failed(failure)),
        }
        Ok(())
    }

    /// Tells of a failure, and waits until the next attempt. Returns an error if the thread must end.
    fn rest(&mut self, failure: &Failure) -> Result<(), ServiceGone> {
        self.news.send(News::Failed(failure.to_string()))?;
        let until = Instant::now() + jittered(self.delay);
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
        while Instant::now() < until {
            match self.hear_until(until) {
                Ok(()) => {}
                Err(End::Stop) => return Err(ServiceGone),
                Err(End::Changed) => return self.remake(),
                // That of a connection that is given up already.
                Err(End::Failed(_)) => {}
            }
            if self.write_file(Instant::now()).is_err() {
                return Err(ServiceGone);
            }
        }
        Ok(())
    }

    /// Makes the table again, by other settings. Returns an error if the thread must end.
    fn remake(&mut self) -> Result<(), ServiceGone> {
        self.delay = FIRST_DELAY;
        if let Some(good) = self.good.clone() {
            let table = self.make(good).map_err(|_| ServiceGone)?;
            self.news.send(News::Remade(table))?;
        }
        Ok(())
    }

    // ---- the file --------------------------------------------------------------------------------------------------

    /// Begins with the table of a former run.
    fn resume(&mut self) -> Result<(), End> {
        let Former { listing, fault } = self.kept.read();
        if let Some(listing) = listing {
            self.keeper.resume(&listing);
            let table = self.make(listing)?;
            self.kept.is_old = false;
            let written = self.kept.modified();
            self.news.send(News::Cached { table, written })?;
        }
        self.remark(fault)
    }

    /// Writes the table that is believed to its file, unless that was done a moment ago.
    fn write_file(&mut self, now: Instant) -> Result<(), End> {
        let fault = self.good.as_ref().and_then(|good| self.kept.write(good, now));
        self.remark(fault)
    }

    fn remark(&self, line: Option<String>) -> Result<(), End> {
        if let Some(line) = line {
            self.news.send(News::Remark(line))?;
        }
        Ok(())
    }
}

/// Returns a delay of three quarters of this up to this, so that several daemons do not come at once.
fn jittered(delay: Duration) -> Duration {
    let chance = u32::try_from(RandomState::new().hash_one(0) % 256).unwrap_or_default();
    delay * (768 + chance) / 1024
}
