//! One output stream of a program, line by line, and waits for a line of it.
//!
//! A reader thread appends lines until the stream ends; any number of tests wait on the condition variable. A wait ends
//! with its line, or fails at once when the stream has ended without it.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Instant;

use super::patience;

/// The lines of one stream so far. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transcript {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

/// Lines of a log without what stands before their levels: the time, and the program with its pid. Others as they are.
pub(crate) fn untimed(log: &str) -> Vec<&str> {
    let is_time = |word: &str| word.len() == 24 && word.ends_with('Z') && word.contains('T');
    let untimed = |line| match str::split_once(line, "]: ") {
        Some((before, rest)) if before.split_once(" iotcpd[").is_some_and(|(time, _)| is_time(time)) => rest,
        _ => line,
    };
    log.lines().map(untimed).collect()
}

impl Transcript {
    /// Reads `stream` to its end on a thread of its own.
    pub(crate) fn of(stream: impl Read + Send + 'static) -> Self {
        let transcript = Self::default();
        let writer = transcript.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                writer.push(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned());
                line.clear();
            }
            writer.end();
        });
        transcript
    }

    fn push(&self, line: String) {
        self.lock().lines.push(line);
        self.shared.changed.notify_all();
    }

    fn end(&self) {
        self.lock().ended = true;
        self.shared.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // A test that panicked while it held the lock has left the lines whole: each push is one step.
        self.shared
            .lines
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The number of lines: the place from which [`wait_from`](Self::wait_from) sees only later ones.
    pub(crate) fn len(&self) -> usize {
        self.lock().lines.len()
    }

    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        self.lock().lines.join("\n")
    }

    /// Waits for the first line at or behind place `from` that `wanted` accepts; returns its place and text.
    /// `Err` says why it will not come.
    pub(crate) fn wait_from(&self, from: usize, wanted: impl Fn(&str) -> bool) -> Result<(usize, String), String> {
        let deadline = Instant::now() + patience();
        let mut place = from;
        let mut lines = self.lock();
        loop {
            while let Some(line) = lines.lines.get(place) {
                if wanted(line) {
                    return Ok((place, line.clone()));
                }
                place += 1;
            }
            if lines.ended {
                return Err("the stream has ended without it".to_owned());
            }
            lines = self.wait_for_change(lines, deadline)?;
        }
    }

    /// Waits until the program and all processes that share its stream have closed it; returns everything.
    pub(crate) fn wait_ended(&self) -> Result<String, String> {
        let deadline = Instant::now() + patience();
        let mut lines = self.lock();
        while !lines.ended {
            lines = self.wait_for_change(lines, deadline)?;
        }
        Ok(lines.lines.join("\n"))
    }

    fn wait_for_change<'a>(
        &self,
        lines: MutexGuard<'a, Lines>,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, Lines>, String> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("nothing of the kind came in time".to_string());
        }
        let waited = self.shared.changed.wait_timeout(lines, left);
        Ok(waited.unwrap_or_else(std::sync::PoisonError::into_inner).0)
    }
}

#[test]
fn a_line_that_is_already_there_and_a_line_that_comes_later_are_both_found() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let transcript = Transcript::of(reader);
    std::io::Write::write_all(&mut writer, b"one\ntwo\nthr").unwrap();
    assert_eq!(transcript.wait_from(0, |line| line == "two"), Ok((1, "two".to_owned())));
    std::io::Write::write_all(&mut writer, b"ee\n").unwrap();
    assert_eq!(transcript.wait_from(2, |_| true), Ok((2, "three".to_owned())));
}

#[test]
fn a_line_that_cannot_come_any_more_is_an_error_at_once() {
    let (reader, writer) = std::io::pipe().unwrap();
    let transcript = Transcript::of(reader);
    drop(writer);
    assert!(transcript.wait_from(0, |_| true).is_err());
    assert_eq!(transcript.wait_ended(), Ok(String::new()));
}
