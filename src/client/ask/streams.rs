//! The standard streams of `ask`: lines are split from standard input, answers gather for standard output, and counts
//! for standard error.
//!
//! The caller takes a line when it has room for one, and none while the output [is full](Streams::is_full): so the
//! writer at the other end waits, and memory stays bounded. It [writes](Streams::write) once in a turn, so that answers
//! leave together.

use std::io;

use super::super::stdio::{Input, Output, ReadOutcome};
use super::input::{Line, Splitter};
use crate::net::standard::Standard;
use crate::reactor::{Context, Key, Kind, Readiness, Source};

/// The kind of these sources, whose key is the number of the descriptor.
pub(super) const STREAM: Kind = Kind(2);
/// Standard input, and on the run queue the lines that remained when their share of a turn was used up.
pub(super) const INPUT: Source = stream(0);
const OUTPUT: Source = stream(1);
const ERRORS: Source = stream(2);
/// The number of bytes waiting for standard output at which no more lines are read.
const OUTPUT_LIMIT: usize = 1024 * 1024;

const fn stream(number: u32) -> Source {
    Source {
        kind: STREAM,
        key: Key::numbered(number),
    }
}

/// The lines that come, and the answers and counts that go.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Present after [`attach`](Self::attach).
    ends: Option<Ends>,
    splitter: Splitter,
    input: InputState,
    /// The answers of this turn, and those for which there was no room.
    answers: Vec<u8>,
    broken_output: Option<io::Error>,
    /// Standard error. Present after the first output of USR1.
    errors: Option<Output>,
    counts: Vec<u8>,
}

/// Standard input and output.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) input: Input,
    pub(super) output: Output,
}

impl Ends {
    /// Opens both.
    ///
    /// # Errors
    /// EAGAIN if one needs a thread and that cannot be created.
    pub(super) fn open(cx: &mut Context<'_>) -> io::Result<Ends> {
        Ok(Ends {
            input: Input::open(cx, INPUT)?,
            output: Output::open(cx, Standard::Output, OUTPUT)?,
        })
    }
}

#[derive(Debug, Default)]
enum InputState {
    #[default]
    Open,
    Ended,
    Failed(io::Error),
}

/// The next part of the input.
#[derive(Debug)]
pub(super) enum NextLine {
    Line(Line),
    /// Something was read, perhaps less than a line, perhaps the end. There may be more.
    Unfinished,
    /// There is nothing at this moment, or the input is over.
    Nothing,
}

/// The end of a run.
#[derive(Debug)]
pub(super) enum RunEnd {
    /// The input has ended, and every line is answered.
    Done,
    /// Every line is answered, but the input could not be read to its end.
    InputFailed(io::Error),
    /// Standard output cannot be written.
    OutputFailed(io::Error),
}

impl Streams {
    /// Takes over standard input and output, after which lines arrive.
    pub(super) fn attach(&mut self, ends: Ends) {
        self.ends = Some(ends);
    }

    /// Takes in an event of a stream. What there is to read and write waits for the end of the turn.
    pub(super) fn note(&mut self, source: Source, readiness: Readiness) {
        match (source, &mut self.ends, &mut self.errors) {
            (INPUT, Some(ends), _) => ends.input.note(readiness),
            (OUTPUT, Some(ends), _) => ends.output.note(readiness),
            (ERRORS, _, Some(errors)) => errors.note(readiness),
            _ => {}
        }
    }

    /// Returns the next line, or reads once for it.
    pub(super) fn next_line(&mut self, cx: &mut Context<'_>) -> NextLine {
        if let Some(line) = self.splitter.next_line() {
            return NextLine::Line(line);
        }
        let (InputState::Open, Some(ends)) = (&self.input, &mut self.ends) else {
            return self.splitter.last_line().map_or(NextLine::Nothing, NextLine::Line);
        };
        match ends.input.read(cx, |bytes| self.splitter.push(bytes)) {
            ReadOutcome::Nothing => return NextLine::Nothing,
            ReadOutcome::Bytes => {}
            ReadOutcome::End => self.input = InputState::Ended,
            ReadOutcome::Failed(error) => self.input = InputState::Failed(error),
        }
        NextLine::Unfinished
    }

    /// Appends an answer, with its line end.
    pub(super) fn answer(&mut self, line: &[u8]) {
        self.answers.extend_from_slice(line);
    }

    /// Returns true if no line must be taken because answers wait to be written. [`write`](Self::write) resumes
    /// [`INPUT`] when that is over.
    pub(super) fn is_full(&self) -> bool {
        self.answers.len() >= OUTPUT_LIMIT
    }

    /// Writes what has gathered, as far as there is room.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) {
        self.write_counts(cx);
        let was_full = self.is_full();
        let Some(ends) = &mut self.ends else { return };
        match ends.output.write(cx, &mut self.answers) {
            Ok(()) if was_full && !self.is_full() => cx.resume_later(INPUT),
            Ok(()) => {}
            Err(error) => self.broken_output = Some(error),
        }
    }

    /// Prints counts on standard error.
    pub(super) fn print_counts(&mut self, cx: &mut Context<'_>, text: &str) {
        self.counts.extend_from_slice(text.as_bytes());
        if self.errors.is_none() {
            self.errors = Output::open(cx, Standard::Error, ERRORS).ok();
        }
        self.write_counts(cx);
    }

    fn write_counts(&mut self, cx: &Context<'_>) {
        let written = self.errors.as_mut().map(|errors| errors.write(cx, &mut self.counts));
        if !matches!(written, Some(Ok(()))) {
            // An error of standard error cannot be reported anywhere.
            self.counts.clear();
        }
    }

    /// Returns the end of the run, when it has ended: the output is broken, or no line is left in the input nor, by
    /// `is_answered`, in hand, and every answer is written.
    pub(super) fn take_end(&mut self, is_answered: bool) -> Option<RunEnd> {
        if let Some(error) = self.broken_output.take() {
            return Some(RunEnd::OutputFailed(error));
        }
        let is_written = self.answers.is_empty() && self.ends.as_ref().is_some_and(|ends| ends.output.is_idle());
        if !is_written || !is_answered || !self.splitter.is_drained() {
            return None;
        }
        match std::mem::take(&mut self.input) {
            InputState::Open => None,
            InputState::Ended => Some(RunEnd::Done),
            InputState::Failed(error) => Some(RunEnd::InputFailed(error)),
        }
    }
}
