//! The standard streams of a client: on the loop where they can be polled, each on a thread of its own elsewhere.
//!
//! Sockets and pipes, which Squid and shells give, are read and written by the loop itself ([`polled`]). Files, which
//! epoll(7) does not take, terminals and other devices have [`threads`] with blocking calls, so that none of them stops
//! the loop. The choice is made when a stream is opened ([`Input`], [`Output`]). `call` uses the threads alone.
//!
//! The life of a chunk: an event of the input, or the mail of its thread → [`Input::read`], at the end of the turn →
//! the lines of the client. The life of an answer: it is appended to the batch of the turn → [`Output::write`] writes
//! the batch in one call, or hands it to the thread → what there was no room for is written when there is.
//!
//! Invariants: no stream is changed for other processes that share it
//! ([`Standard`]). Memory is bounded both ways: nothing is read before the client asks
//! for it, except by a thread, which holds a few chunks; and an output holds one batch, while the client gathers the
//! next one up to a bound of its own.

mod polled;
mod threads;

use std::io;

use crate::net::standard::Standard;
use crate::reactor::{Context, Readiness, Source};

use polled::{PolledInput, PolledOutput};
pub(super) use threads::{Chunk, InputThread, OutputThread};

/// Standard input.
#[derive(Debug)]
pub(super) enum Input {
    Polled(PolledInput),
    Thread(InputThread),
}

/// The outcome of a read.
#[derive(Debug)]
pub(super) enum ReadOutcome {
    /// Nothing has come. An event, or mail, tells when something has.
    Nothing,
    /// Some bytes were taken, and there may be more.
    Bytes,
    /// The input has ended. Nothing more must be read.
    End,
    /// The input cannot be read. Nothing more must be read.
    Failed(io::Error),
}

impl Input {
    /// Opens standard input. Its events, if there are any, come under `at` and must be [noted](Self::note).
    ///
    /// # Errors
    /// EAGAIN if the input needs a thread and that cannot be created.
    pub(super) fn open(cx: &mut Context<'_>, at: Source) -> io::Result<Input> {
        match Standard::Input
            .polled()
            .and_then(|stream| PolledInput::start(cx, stream, at))
        {
            Some(input) => Ok(Input::Polled(input)),
            None => InputThread::start(cx, Standard::Input).map(Input::Thread),
        }
    }

    /// Takes in an event of the input.
    pub(super) fn note(&mut self, readiness: Readiness) {
        match self {
            Input::Polled(input) => input.note(readiness),
            // A thread has no events but mail.
            Input::Thread(_) => {}
        }
    }

    /// Reads once and hands the bytes to `take`, at most as many as a read buffer of the loop holds.
    pub(super) fn read(&mut self, cx: &mut Context<'_>, take: impl FnOnce(&[u8])) -> ReadOutcome {
        match self {
            Input::Polled(input) => input.read(cx, take),
            Input::Thread(input) => match input.take_chunk() {
                None => ReadOutcome::Nothing,
                Some(Chunk::Bytes(bytes)) => {
                    take(&bytes);
                    ReadOutcome::Bytes
                }
                Some(Chunk::End) => ReadOutcome::End,
                Some(Chunk::Failed(error)) => ReadOutcome::Failed(error),
            },
        }
    }
}

/// Standard output or standard error.
#[derive(Debug)]
pub(super) enum Output {
    Polled(PolledOutput),
    Thread(OutputThread),
}

impl Output {
    /// Opens an output. Its events, if there are any, come under `at` and must be [noted](Self::note).
    ///
    /// # Errors
    /// EAGAIN if the output needs a thread and that cannot be created.
    pub(super) fn open(cx: &Context<'_>, stream: Standard, at: Source) -> io::Result<Output> {
        match stream.polled() {
            Some(polled) => Ok(Output::Polled(PolledOutput::new(polled, at))),
            None => OutputThread::start(cx, stream.name(), stream).map(Output::Thread),
        }
    }

    /// Takes in an event of the output.
    pub(super) fn note(&mut self, readiness: Readiness) {
        match self {
            Output::Polled(output) => output.note(readiness),
            // A thread has no events but mail.
            Output::Thread(_) => {}
        }
    }

    /// Writes `batch`, or takes it over to write it later, and leaves an empty one in its place; leaves it untouched
    /// while an earlier one is not written. Must be called in every turn, with an empty batch too, because it goes on
    /// with the earlier one; there is no system call while there is nothing to write or no room.
    ///
    /// # Errors
    /// Those of write(2), of this batch or the one before. Nothing more can be written.
    pub(super) fn write(&mut self, cx: &Context<'_>, batch: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Output::Polled(output) => output.write(cx, batch),
            Output::Thread(output) => {
                if let Some(buffer) = output.take_report().transpose()?
                    && batch.is_empty()
                {
                    *batch = buffer;
                }
                output.offer(batch);
                Ok(())
            }
        }
    }

    /// Returns true if everything that was taken over is written.
    pub(super) fn is_idle(&self) -> bool {
        match self {
            Output::Polled(output) => output.is_idle(),
            Output::Thread(output) => output.is_idle(),
        }
    }
}
