//! Workers that fail in the same way again and again: their common lines on standard error are logged once, and the
//! losses are counted.
//!
//! A worker is young until it has answered for the first time. The lines of the young workers of a pool are compared
//! with one text ([`Repeats`]). A line that continues the text is logged and added to it. A line that repeats the text
//! is held back ([`Words`]) until the fate of its worker is known:
//!
//! - The worker is lost after exactly the lines of the text: the held lines are dropped, and the line about the loss
//!   says that its last words were the same.
//! - The worker is lost with other lines, writes another line, answers, or has been held back for too long: the held
//!   lines are logged.
//!
//! Losses with the same cause and the same text are a row. The first loss of a row is logged as always, and later ones
//! with their number: the next few at once, and then ever more rarely. A row ends when a young worker answers or is
//! lost in another way; the line about that has the number of losses that were not logged, so that none goes
//! unmentioned.
//!
//! The memory is bounded: a number for each line ([`gist`]), and a limited number of lines and bytes. A worker that
//! writes more is no longer compared. Pure: the time is an argument.

use std::time::{Duration, Instant};

use super::gist::gist;

/// The most lines of one worker that are compared.
const MOST_LINES: usize = 128;
/// The most bytes of one worker that are held back.
const MOST_BYTES: usize = 16 * 1024;

/// The time for which lines are held back before a worker was lost with them.
const BRIEFLY: Duration = Duration::from_secs(1);
/// The time for which lines are held back after a worker was lost with them.
const PATIENTLY: Duration = Duration::from_secs(10);

/// The number of losses of a row that are logged in any case.
const FIRST: u32 = 5;
/// The first pause between two losses that are logged after these. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The lines that one worker has written to standard error while it is young.
#[derive(Debug, Default)]
pub(super) struct Words {
    gists: Vec<u64>,
    manner: Manner,
}

#[derive(Debug)]
enum Manner {
    /// Each line repeated the text or continued it. The repeated lines are held back.
    Along(Held),
    /// A line differed from the text, so all lines are logged as they come.
    Apart,
    /// The lines are too many to be compared, and are logged as they come.
    TooMuch,
    /// The worker is not young any more.
    Grown,
}

impl Default for Manner {
    fn default() -> Self {
        Manner::Along(Held::default())
    }
}

#[derive(Debug, Default)]
struct Held {
    lines: Vec<String>,
    bytes: usize,
    /// The time at which they are logged at the latest.
    until: Option<Instant>,
}

/// The text of the young workers of one pool, and the row of losses with it.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// The gists of the lines that were logged.
    text: Vec<u64>,
    /// True if a worker was lost with the text: a further line does not continue it but differs from it.
    is_complete: bool,
    row: Option<Row>,
}

#[derive(Debug)]
struct Row {
    cause: String,
    /// The gist of the cause with its details.
    key: u64,
    /// The number of losses.
    count: u32,
    /// The number of losses since the last one that was logged.
    untold: u32,
    /// The place of all losses, if it is the same.
    place: Option<usize>,
    pause: Duration,
    next: Option<Instant>,
}

/// The relation of a loss to the losses before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Again {
    /// The number of the loss in its row, from 1.
    pub(super) number: u32,
    /// True if the losses of the row were in several places.
    pub(super) in_several_places: bool,
    /// True if the worker has written lines, and a worker lost before it has written the same.
    pub(super) with_same_words: bool,
    /// True if the loss is to be logged; otherwise it is only counted.
    pub(super) is_told: bool,
}

/// A row of losses that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) cause: String,
    pub(super) count: u32,
    pub(super) untold: u32,
}

impl Words {
    /// Returns the words of a worker that is not compared with others.
    pub(super) fn of_grown() -> Self {
        Words {
            gists: Vec::new(),
            manner: Manner::Grown,
        }
    }

    pub(super) fn is_young(&self) -> bool {
        !matches!(self.manner, Manner::Grown)
    }

    /// Returns the time at which [`on_deadline`](Self::on_deadline) is needed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.manner {
            Manner::Along(held) => held.until,
            Manner::Apart | Manner::TooMuch | Manner::Grown => None,
        }
    }

    /// Logs the lines that were held back for too long.
    pub(super) fn on_deadline(&mut self, now: Instant, tell: &mut dyn FnMut(&str)) {
        if self.deadline().is_some_and(|until| until <= now) {
            self.speak_out(tell);
        }
    }

    /// Logs the lines that are held back, and every later line as it comes.
    fn speak_out(&mut self, tell: &mut dyn FnMut(&str)) {
        if let Manner::Along(held) = &mut self.manner {
            let lines = std::mem::take(&mut held.lines);
            self.manner = Manner::Apart;
            lines.iter().for_each(|line| tell(line));
        }
    }

    fn is_compared(&self) -> bool {
        matches!(self.manner, Manner::Along(_) | Manner::Apart)
    }
}

impl Held {
    /// Returns false if there is no room for the line.
    fn hold(&mut self, line: &str, until: Instant) -> bool {
        if self.bytes + line.len() > MOST_BYTES {
            return false;
        }
        self.bytes += line.len();
        self.lines.push(line.to_owned());
        self.until.get_or_insert(until);
        true
    }
}

impl Repeats {
    /// Takes a line that a worker has written, and gives the lines that are due to `tell`, which logs them.
    pub(super) fn hear(&mut self, words: &mut Words, line: &str, pid: i32, now: Instant, tell: &mut dyn FnMut(&str)) {
        if !words.is_compared() {
            return tell(line);
        }
        if words.gists.len() == MOST_LINES {
            words.speak_out(tell);
            words.manner = Manner::TooMuch;
            return tell(line);
        }
        let (gist, number) = (gist(line, pid), words.gists.len());
        let was_along = self.text.starts_with(&words.gists);
        words.gists.push(gist);
        let Manner::Along(held) = &mut words.manner else {
            return tell(line);
        };
        match self.text.get(number).filter(|_| was_along) {
            Some(known) if *known == gist => {
                let patience = if self.is_complete { PATIENTLY } else { BRIEFLY };
                if held.hold(line, now + patience) {
                    return;
                }
            }
            // This worker is the first to continue the text.
            None if was_along && !self.is_complete => {
                self.text.push(gist);
                return tell(line);
            }
            Some(_) | None => {}
        }
        words.speak_out(tell);
        tell(line);
    }

    /// Takes the loss of a young worker, and logs its held lines if they are new. `cause` and `detail` are the words of
    /// the log, without the worker's name. Returns the relation to earlier losses, and the row that this loss has
    /// ended, if it has.
    pub(super) fn lost(
        &mut self,
        words: &mut Words,
        (cause, detail): (&str, &str),
        (pid, place): (i32, usize),
        now: Instant,
        tell: &mut dyn FnMut(&str),
    ) -> (Again, Option<Ended>) {
        let is_same = words.is_compared() && words.gists == self.text;
        if is_same {
            words.manner = Manner::Grown;
        } else {
            words.speak_out(tell);
        }
        let gists = std::mem::take(&mut words.gists);
        let with_same_words = is_same && self.is_complete && !gists.is_empty();
        self.is_complete = true;
        self.text = gists;
        let key = gist(&format!("{cause}{detail}"), pid);
        match &mut self.row {
            Some(row) if is_same && row.key == key => (row.grows(place, with_same_words, now), None),
            row => {
                let before = row.replace(Row::new(cause, key, place));
                let first = Again {
                    number: 1,
                    in_several_places: false,
                    with_same_words,
                    is_told: true,
                };
                (first, before.map(Row::end))
            }
        }
    }

    /// Takes the first answer of a worker: its held lines are logged, and it is compared no more. Returns the row that
    /// has ended with it, if there was one.
    pub(super) fn proven(&mut self, words: &mut Words, tell: &mut dyn FnMut(&str)) -> Option<Ended> {
        words.speak_out(tell);
        *words = Words::of_grown();
        self.end()
    }

    /// Takes the end of a worker that was stopped on purpose. Its held lines are logged, unless workers were lost with
    /// them, so that the lines are in the log already.
    pub(super) fn gone(&self, words: &mut Words, tell: &mut dyn FnMut(&str)) {
        let is_known = self.is_complete && self.text.starts_with(&words.gists);
        if !is_known {
            words.speak_out(tell);
        }
        *words = Words::of_grown();
    }

    /// Ends the comparison of later workers with earlier ones. Returns the row that has ended with it, if there was
    /// one.
    pub(super) fn end(&mut self) -> Option<Ended> {
        (self.text, self.is_complete) = (Vec::new(), false);
        self.row.take().map(Row::end)
    }
}

impl Row {
    fn new(cause: &str, key: u64, place: usize) -> Self {
        Row {
            cause: cause.to_owned(),
            key,
            count: 1,
            untold: 0,
            place: Some(place),
            pause: FIRST_PAUSE,
            next: None,
        }
    }

    /// Adds a loss to the row.
    fn grows(&mut self, place: usize, with_same_words: bool, now: Instant) -> Again {
        self.count = self.count.saturating_add(1);
        self.place = self.place.filter(|before| *before == place);
        let is_told = self.count <= FIRST || self.next.is_none_or(|next| next <= now);
        if !is_told {
            self.untold = self.untold.saturating_add(1);
        } else {
            self.untold = 0;
            if self.count >= FIRST {
                self.next = Some(now + self.pause);
                self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
        Again {
            number: self.count,
            in_several_places: self.place.is_none(),
            with_same_words,
            is_told,
        }
    }

    fn end(self) -> Ended {
        Ended {
            cause: self.cause,
            count: self.count,
            untold: self.untold,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIED: &str = "exited with status 1";

    /// A pool, the words of its workers by number, and the log.
    struct Pool {
        repeats: Repeats,
        start: Instant,
        workers: Vec<Words>,
        log: Vec<String>,
    }

    impl Pool {
        fn new(workers: usize) -> Self {
            Pool {
                repeats: Repeats::default(),
                start: Instant::now(),
                workers: std::iter::repeat_with(Words::default).take(workers).collect(),
                log: Vec::new(),
            }
        }

        fn says(&mut self, worker: usize, line: &str) {
            self.says_at(0, worker, line);
        }

        fn says_at(&mut self, second: u64, worker: usize, line: &str) {
            let now = self.start + Duration::from_secs(second);
            let log = &mut self.log;
            let mut tell = |line: &str| log.push(format!("{worker}: {line}"));
            self.repeats.hear(&mut self.workers[worker], line, 4000, now, &mut tell);
        }

        fn dies(&mut self, worker: usize) -> (Again, Option<Ended>) {
            self.lose(0, worker, DIED)
        }

        /// Lets a worker be lost, and another take its place.
        fn lose(&mut self, second: u64, worker: usize, cause: &str) -> (Again, Option<Ended>) {
            let now = self.start + Duration::from_secs(second);
            let (log, mut words) = (&mut self.log, std::mem::take(&mut self.workers[worker]));
            let mut tell = |line: &str| log.push(format!("{worker}: {line}"));
            self.repeats
                .lost(&mut words, (cause, ""), (4000, worker), now, &mut tell)
        }

        fn answers(&mut self, worker: usize) -> Option<Ended> {
            let log = &mut self.log;
            let mut tell = |line: &str| log.push(format!("{worker}: {line}"));
            self.repeats.proven(&mut self.workers[worker], &mut tell)
        }

        fn waits_until(&mut self, second: u64, worker: usize) {
            let now = self.start + Duration::from_secs(second);
            let log = &mut self.log;
            self.workers[worker].on_deadline(now, &mut |line| log.push(format!("{worker}: {line}")));
        }

        fn told(&mut self) -> Vec<String> {
            std::mem::take(&mut self.log)
        }
    }

    fn first() -> Again {
        Again {
            number: 1,
            in_several_places: false,
            with_same_words: false,
            is_told: true,
        }
    }

    #[test]
    fn the_same_words_are_told_once_and_the_losses_are_counted() {
        let mut pool = Pool::new(1);
        for number in 1..=4 {
            pool.says(0, "starting");
            pool.says(0, "config error line 3");
            let (again, ended) = pool.dies(0);
            let with_same_words = number > 1;
            assert_eq!(
                (again, ended),
                (
                    Again {
                        number,
                        with_same_words,
                        ..first()
                    },
                    None
                )
            );
        }
        assert_eq!(pool.told(), ["0: starting", "0: config error line 3"]);
    }

    #[test]
    fn other_words_are_told_and_end_the_row() {
        let mut pool = Pool::new(1);
        for _ in 0..3 {
            pool.says(0, "starting");
            pool.says(0, "config error line 3");
            pool.dies(0);
        }
        pool.told();
        pool.says(0, "starting");
        assert_eq!(pool.told(), [""; 0]);
        pool.says(0, "config error line 4");
        assert_eq!(pool.told(), ["0: starting", "0: config error line 4"]);
        let (again, ended) = pool.dies(0);
        assert_eq!((again, ended.unwrap().count), (first(), 3));
        // Fewer words are other words, and so are more.
        pool.says(0, "starting");
        assert_eq!(pool.dies(0).0, first());
        assert_eq!(pool.told(), ["0: starting"]);
        pool.says(0, "starting");
        pool.says(0, "and more");
        assert_eq!(pool.told(), ["0: starting", "0: and more"]);
        assert_eq!(pool.dies(0).0, first());
        // As is none.
        assert_eq!(pool.dies(0).0, first());
        assert_eq!(pool.dies(0).0, Again { number: 2, ..first() });
    }

    #[test]
    fn many_that_say_the_same_at_once_say_it_once() {
        let mut pool = Pool::new(8);
        for worker in 0..8 {
            pool.says(worker, "starting");
        }
        // The worker that comes first goes on.
        for worker in (0..8).rev() {
            pool.says(worker, "config error");
        }
        assert_eq!(pool.told(), ["0: starting", "7: config error"]);
        let agains: Vec<_> = (0..8).map(|worker| pool.dies(worker).0).collect();
        let numbers: Vec<_> = agains.iter().map(|again| again.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(agains[1].in_several_places && agains[1].with_same_words);
        assert!(!agains[5].is_told);
        assert_eq!(pool.told(), [""; 0]);
    }

    #[test]
    fn another_cause_is_another_row() {
        let mut pool = Pool::new(1);
        pool.says(0, "oh");
        pool.dies(0);
        pool.says(0, "oh");
        let (again, ended) = pool.lose(0, 0, "exited with status 2");
        assert_eq!(
            (again.number, again.with_same_words, ended.unwrap().count),
            (1, true, 1)
        );
        assert_eq!(pool.told(), ["0: oh"]);
    }

    #[test]
    fn an_answer_releases_the_held_lines_and_ends_the_row() {
        let mut pool = Pool::new(2);
        for _ in 0..3 {
            pool.says(0, "starting");
            pool.dies(0);
        }
        pool.told();
        pool.says(0, "starting");
        let ended = pool.answers(0).unwrap();
        assert_eq!((ended.cause.as_str(), ended.count, ended.untold), (DIED, 3, 0));
        assert_eq!(pool.told(), ["0: starting"]);
        assert!(!pool.workers[0].is_young());
        pool.says(0, "starting");
        assert_eq!(pool.told(), ["0: starting"]);
        assert_eq!(pool.answers(1), None);
    }

    #[test]
    fn nothing_is_held_for_long() {
        let mut pool = Pool::new(2);
        pool.says(0, "starting");
        pool.says_at(3, 1, "starting");
        assert_eq!(pool.workers[1].deadline(), Some(pool.start + Duration::from_secs(4)));
        pool.waits_until(3, 1);
        assert_eq!(pool.told(), ["0: starting"]);
        pool.waits_until(4, 1);
        assert_eq!(pool.told(), ["1: starting"]);
        assert_eq!(pool.workers[1].deadline(), None);
        pool.says(1, "up");
        assert_eq!(pool.told(), ["1: up"]);
        // Longer where one was lost with it.
        pool.dies(0);
        pool.says(0, "starting");
        assert_eq!(pool.workers[0].deadline(), Some(pool.start + PATIENTLY));
    }

    #[test]
    fn the_held_lines_of_a_worker_that_is_stopped_are_logged_unless_a_loss_has_logged_them() {
        let mut pool = Pool::new(2);
        for lost in [false, true] {
            pool.says(0, "starting");
            pool.says(0, "no such table");
            if lost {
                pool.dies(0);
            }
            pool.says(1, "starting");
            pool.told();
            let (log, mut words) = (&mut pool.log, std::mem::take(&mut pool.workers[1]));
            pool.repeats.gone(&mut words, &mut |line| log.push(line.to_owned()));
            assert_eq!(pool.told().len(), usize::from(!lost));
            pool.workers[0] = Words::default();
        }
    }

    #[test]
    fn a_long_row_is_told_ever_more_rarely() {
        let mut pool = Pool::new(1);
        let told: Vec<u32> = (0..1000)
            .map(|second| pool.lose(second, 0, DIED).0)
            .filter(|again| again.is_told)
            .map(|again| again.number)
            .collect();
        assert_eq!(told, [1, 2, 3, 4, 5, 15, 35, 75, 155, 315, 635]);
        let ended = pool.lose(1000, 0, "was killed by signal 9 (SIGKILL)").1.unwrap();
        assert_eq!((ended.count, ended.untold), (1000, 365));
    }

    #[test]
    fn memory_is_bounded_and_a_worker_that_writes_too_much_is_not_held_back() {
        let mut pool = Pool::new(1);
        for round in 0..2 {
            for number in 0..200 {
                pool.says(0, &format!("line {number}"));
            }
            assert_eq!(pool.told().len(), 200, "{round}");
            assert!(pool.workers[0].gists.len() <= MOST_LINES);
            assert_eq!(pool.dies(0).0, first());
        }
        let mut pool = Pool::new(1);
        let long = "x".repeat(MOST_BYTES / 2);
        for told in [3, 3] {
            for _ in 0..3 {
                pool.says(0, &long);
            }
            assert_eq!(pool.told().len(), told);
            pool.dies(0);
        }
    }

    proptest! {
        /// For any events in any order, each line is in the log by the time that its worker answers, or, from some
        /// worker, by the time that its worker is lost.
        #[test]
        fn nothing_is_lost_without_a_word(steps: Vec<(usize, u8)>) {
            let mut pool = Pool::new(3);
            let mut said: [Vec<String>; 3] = Default::default();
            for (worker, what) in steps {
                let worker = worker % 3;
                match what % 16 {
                    0..=9 => {
                        let line = format!("line {}", what % 3);
                        pool.says(worker, &line);
                        said[worker].push(line);
                    }
                    10..=12 => {
                        pool.dies(worker);
                        for line in said[worker].drain(..) {
                            prop_assert!(pool.log.iter().any(|told| told.ends_with(&line)), "{}: {:?}", line, pool.log);
                        }
                    }
                    13 => {
                        pool.answers(worker);
                        for line in said[worker].drain(..) {
                            let told = format!("{worker}: {line}");
                            prop_assert!(pool.log.contains(&told), "{}: {:?}", told, pool.log);
                        }
                        pool.workers[worker] = Words::default();
                    }
                    _ => pool.waits_until(60, worker),
                }
            }
        }
    }
}
