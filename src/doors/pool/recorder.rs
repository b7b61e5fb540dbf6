//! The flight recorder of one worker: its last requests and the time that each took, for the log when it hangs or dies.
//!
//! The life of an entry: [`begin`](Recorder::begin) when the worker gets a request → [`answered`](Recorder::answered)
//! when its reply is whole → overwritten by a later request, or logged when the worker is lost.
//!
//! Invariants:
//! - Without channel-IDs a worker answers in the order of its requests, so the entries without an answer are the last
//!   ones. With channel-IDs it answers in any order, and an answered entry makes room before an unanswered one, because
//!   the request to blame is often the oldest.
//! - An entry has a fixed size, and the number of entries is bounded from the start: no request costs an allocation.
//!
//! The reason of a loss, and the decision to log it, do not belong here.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::core::{ChannelId, ReplyTo};
use super::options::Disclosure;
use crate::amount;
use crate::process::stderr_log::printable;

/// The most bytes that are kept of a request: enough to find it again in the log of its client.
pub(super) const KEPT: usize = 256;

/// The last requests of one worker. The default one records nothing.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// The oldest first.
    entries: VecDeque<Entry>,
    capacity: usize,
    /// The number of requests without an answer, also of requests that are no longer kept.
    open: usize,
}

/// One request of the worker.
#[derive(Debug)]
pub(super) struct Entry {
    given: Instant,
    /// The channel-ID of the request, if it has one.
    channel: Option<ChannelId>,
    /// The time from then until its reply was whole. `None`: it has not been answered.
    took: Option<Duration>,
    /// The length of the whole request in bytes.
    length: usize,
    /// The first bytes of the request; zeros if they must not be shown.
    head: [u8; KEPT],
    disclosure: Disclosure,
}

impl Recorder {
    /// Returns a recorder of the last `capacity` requests. If a worker may have several in hand at once, there must be
    /// room for all of them: otherwise the oldest is not known.
    pub(super) fn new(capacity: usize) -> Self {
        Recorder {
            entries: VecDeque::with_capacity(capacity),
            capacity,
            open: 0,
        }
    }

    /// Records a request that the worker was given.
    pub(super) fn begin(&mut self, request: &[u8], channel: Option<ChannelId>, now: Instant, disclosure: Disclosure) {
        if self.capacity == 0 {
            return;
        }
        if self.entries.len() == self.capacity {
            let answered = channel.and_then(|_| self.entries.iter().position(|entry| entry.took.is_some()));
            self.entries.remove(answered.unwrap_or(0));
        }
        self.entries.push_back(Entry::new(request, channel, now, disclosure));
        self.open += 1;
    }

    /// Records the answer to a request. An answer to no request is ignored here.
    pub(super) fn answered(&mut self, which: ReplyTo, now: Instant) {
        let index = match which {
            ReplyTo::Oldest => self.oldest_open(),
            ReplyTo::Channel(channel) => self.entries.iter().position(|entry| entry.is_open_under(channel)),
        };
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            entry.took = Some(now.saturating_duration_since(entry.given));
        }
        self.open = self.open.saturating_sub(1);
    }

    /// Forgets the last `count` requests, of which no byte has reached the worker.
    pub(super) fn forget_newest(&mut self, count: usize) {
        for _ in 0..count.min(self.open) {
            self.entries.pop_back();
            self.open -= 1;
        }
    }

    /// Returns the request that the worker is working on: of several, the one that it has had longest.
    pub(super) fn in_hand(&self) -> Option<&Entry> {
        match self.entries.back()?.channel {
            None => self.entries.get(self.oldest_open()?),
            Some(_) => self.entries.iter().find(|entry| entry.took.is_none()),
        }
    }

    /// Returns the entries, the oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Returns the index of the oldest request without an answer. Returns `None` if it is no longer kept.
    fn oldest_open(&self) -> Option<usize> {
        self.entries.len().checked_sub(self.open)
    }
}

impl Entry {
    fn new(request: &[u8], channel: Option<ChannelId>, given: Instant, disclosure: Disclosure) -> Self {
        let mut head = [0; KEPT];
        let kept = match disclosure {
            Disclosure::Excerpts => request.get(..KEPT).unwrap_or(request),
            Disclosure::Nothing => b"",
        };
        if let Some(room) = head.get_mut(..kept.len()) {
            room.copy_from_slice(kept);
        }
        Entry {
            given,
            channel,
            took: None,
            length: request.len(),
            head,
            disclosure,
        }
    }

    fn is_open_under(&self, channel: ChannelId) -> bool {
        self.channel == Some(channel) && self.took.is_none()
    }

    /// Returns the time since the worker was given the request.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.given)
    }

    /// Returns the text of the request for the log. A request that was confidential when it came stays so.
    pub(super) fn text(&self, disclosure: Disclosure) -> impl fmt::Display + '_ {
        self.excerpt(disclosure)
    }

    /// Returns the same as an excerpt.
    pub(super) fn excerpt(&self, disclosure: Disclosure) -> Excerpt<'_> {
        let head = self.head.get(..self.length).unwrap_or(&self.head);
        Excerpt {
            head: (self.disclosure == Disclosure::Excerpts && disclosure == Disclosure::Excerpts).then_some(head),
            length: self.length,
        }
    }

    /// Returns the request and its outcome for a line of the log.
    pub(super) fn story(&self, now: Instant, disclosure: Disclosure) -> String {
        let (age, text) = (amount::span(self.age(now)), self.text(disclosure));
        match self.took {
            Some(took) => format!("given {age} ago, answered after {}: {text}", amount::span(took)),
            None => format!("given {age} ago, not answered: {text}"),
        }
    }
}

/// The beginning of a request or a reply for the log: between quotes, on one line and harmless to a terminal; or the
/// word that it is confidential. The bytes of requests and replies come into the log in no other way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Excerpt<'r> {
    /// The bytes to show. `None`: neither they nor their length are shown, which may be that of a password.
    head: Option<&'r [u8]>,
    length: usize,
}

impl<'r> Excerpt<'r> {
    pub(super) fn of(request: &'r [u8], disclosure: Disclosure) -> Self {
        let head = request.get(..KEPT).unwrap_or(request);
        Excerpt {
            head: (disclosure == Disclosure::Excerpts).then_some(head),
            length: request.len(),
        }
    }
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(head) = self.head else {
            return f.write_str("(confidential)");
        };
        let is_cut = head.len() < self.length;
        // In a text that was cut, the line end is in the missing part; the last byte here may only look like one.
        let line = match head {
            whole if is_cut => whole,
            [line @ .., b'\r', b'\n'] | [line @ .., b'\n'] => line,
            line => line,
        };
        write!(f, "\"{}\"", printable(line, ""))?;
        if is_cut {
            write!(f, " [cut, {}]", amount::limit(self.length))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: Disclosure = Disclosure::Excerpts;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn stories(recorder: &Recorder, now: Instant) -> Vec<String> {
        recorder.entries().map(|entry| entry.story(now, SHOWN)).collect()
    }

    #[test]
    fn the_last_are_kept_in_order_with_their_times() {
        let (start, mut recorder) = (Instant::now(), Recorder::new(2));
        for (number, at) in [(1, 0), (2, 1000), (3, 2000)] {
            recorder.begin(format!("line {number}\n").as_bytes(), None, start + ms(at), SHOWN);
            assert_eq!(recorder.in_hand().unwrap().age(start + ms(at + 250)), ms(250));
            recorder.answered(ReplyTo::Oldest, start + ms(at + 500));
            assert!(recorder.in_hand().is_none());
        }
        assert_eq!(
            stories(&recorder, start + ms(4000)),
            [
                "given 3 s ago, answered after 500 ms: \"line 2\"",
                "given 2 s ago, answered after 500 ms: \"line 3\""
            ]
        );
    }

    #[test]
    fn of_several_in_hand_the_oldest_is_answered_first() {
        let (start, mut recorder) = (Instant::now(), Recorder::new(3));
        for line in ["one\n", "two\n", "three\n"] {
            recorder.begin(line.as_bytes(), None, start, SHOWN);
        }
        recorder.answered(ReplyTo::Oldest, start + ms(1));
        assert_eq!(recorder.in_hand().unwrap().text(SHOWN).to_string(), "\"two\"");
        assert_eq!(
            stories(&recorder, start + ms(2)),
            [
                "given 2 ms ago, answered after 1 ms: \"one\"",
                "given 2 ms ago, not answered: \"two\"",
                "given 2 ms ago, not answered: \"three\""
            ]
        );
    }

    #[test]
    fn an_answer_to_a_forgotten_request_is_given_to_no_other_entry() {
        let (start, mut recorder) = (Instant::now(), Recorder::new(1));
        recorder.begin(b"one\n", None, start, SHOWN);
        recorder.begin(b"two\n", None, start, SHOWN);
        assert!(recorder.in_hand().is_none());
        recorder.answered(ReplyTo::Oldest, start + ms(1));
        assert_eq!(recorder.in_hand().unwrap().text(SHOWN).to_string(), "\"two\"");
        recorder.answered(ReplyTo::Oldest, start + ms(2));
        recorder.answered(ReplyTo::Oldest, start + ms(3));
        recorder.begin(b"three\n", None, start + ms(4), SHOWN);
        assert_eq!(recorder.in_hand().unwrap().text(SHOWN).to_string(), "\"three\"");
    }

    #[test]
    fn an_answer_is_noted_under_its_channel_and_an_unanswered_entry_is_kept_longest() {
        let (start, mut recorder) = (Instant::now(), Recorder::new(2));
        let channel = |number| ReplyTo::Channel(ChannelId(number));
        recorder.begin(b"slow\n", Some(ChannelId(5)), start, SHOWN);
        for number in [9, 4, 7] {
            recorder.begin(format!("{number}\n").as_bytes(), Some(ChannelId(number)), start, SHOWN);
            assert_eq!(recorder.in_hand().unwrap().length, 5);
            recorder.answered(channel(number), start + ms(1));
            recorder.answered(channel(number), start + ms(2));
            recorder.answered(channel(1), start + ms(3));
        }
        assert_eq!(
            stories(&recorder, start + ms(4)),
            [
                "given 4 ms ago, not answered: \"slow\"",
                "given 4 ms ago, answered after 1 ms: \"7\""
            ]
        );
        recorder.answered(channel(5), start + ms(5));
        assert!(recorder.in_hand().is_none());
    }

    #[test]
    fn nothing_is_kept_where_nothing_was_asked_for() {
        let mut recorder = Recorder::default();
        recorder.begin(b"one\n", None, Instant::now(), SHOWN);
        assert!(recorder.entries().next().is_none() && recorder.in_hand().is_none());
    }

    #[test]
    fn no_request_makes_it_allocate() {
        let (start, mut recorder) = (Instant::now(), Recorder::new(8));
        let room = recorder.entries.capacity();
        for _ in 0..100 {
            recorder.begin(&[b'x'; 1000], None, start, SHOWN);
            recorder.answered(ReplyTo::Oldest, start);
        }
        assert_eq!((recorder.entries.len(), recorder.entries.capacity()), (8, room));
    }

    #[test]
    fn a_request_is_shown_on_one_line_without_its_end_and_its_length_if_it_is_cut() {
        let shown = |request: &[u8]| Excerpt::of(request, SHOWN).to_string();
        assert_eq!(shown(b"http://x/ -\r\n"), "\"http://x/ -\"");
        assert_eq!(shown(b"\n"), "\"\"");
        assert_eq!(shown(b""), "\"\"");
        assert_eq!(shown(b"a\x1b[31m\rb\xff\n"), "\"a\\x1b[31m\\x0db\\xff\"");
        let long = [[b'x'; KEPT - 1].as_slice(), b"\n"].concat();
        assert_eq!(shown(&long), format!("\"{}\"", "x".repeat(KEPT - 1)));
        let cut = [[b'x'; KEPT].as_slice(), b"\n"].concat();
        assert_eq!(shown(&cut), format!("\"{}\" [cut, 257 bytes]", "x".repeat(KEPT)));
        let mut recorder = Recorder::new(1);
        recorder.begin(&cut, None, Instant::now(), SHOWN);
        assert_eq!(recorder.in_hand().unwrap().text(SHOWN).to_string(), shown(&cut));
    }

    #[test]
    fn a_confidential_request_is_neither_kept_nor_shown() {
        let (secret, now) = (b"user secret\n", Instant::now());
        assert_eq!(Excerpt::of(secret, Disclosure::Nothing).to_string(), "(confidential)");
        for (kept, told) in [
            (Disclosure::Nothing, Disclosure::Excerpts),
            (Disclosure::Excerpts, Disclosure::Nothing),
        ] {
            let mut recorder = Recorder::new(1);
            recorder.begin(secret, None, now, kept);
            let entry = recorder.in_hand().unwrap();
            assert_eq!(entry.text(told).to_string(), "(confidential)");
            assert_eq!(entry.story(now, told), "given 0 ms ago, not answered: (confidential)");
            assert_eq!(entry.head.starts_with(b"user"), kept == SHOWN);
        }
    }
}
