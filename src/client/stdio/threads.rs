//! Standard input and the outputs, each on a thread of its own.
//!
//! One thread reads, and one per output writes, with blocking calls
//! ([`Standard`](crate::net::standard::Standard)), and the loop gets their results by mail. Memory is bounded both ways:
//! the reader stops while [`CHUNKS`] chunks lie in the mailbox, and so does the program that writes to it; a writer has
//! one batch at a time, and the loop gathers the next one meanwhile.
//!
//! A thread ends with its stream, or when the loop drops its end of the channel; a thread that then blocks in read(2)
//! or write(2) ends with the process.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;

use crate::reactor::Context;
use crate::reactor::helper::{Mailbox, Sender};

/// The number of chunks that the mailbox holds.
const CHUNKS: usize = 2;
/// The largest size of a chunk, in bytes.
const CHUNK: usize = 64 * 1024;

/// A message from the reading thread.
#[derive(Debug)]
pub(in crate::client) enum Chunk {
    Bytes(Vec<u8>),
    /// The input has ended. The last message.
    End,
    /// The input cannot be read. The last message.
    Failed(io::Error),
}

/// The loop's end of the reading thread.
#[derive(Debug)]
pub(in crate::client) struct InputThread {
    chunks: Mailbox<Chunk>,
}

impl InputThread {
    /// Starts the thread that reads `input`.
    ///
    /// # Errors
    /// EAGAIN if the thread cannot be created.
    pub(in crate::client) fn start(cx: &Context<'_>, input: impl Read + Send + 'static) -> io::Result<InputThread> {
        let (to, chunks) = cx.mailbox(CHUNKS);
        thread::Builder::new()
            .name("stdin".into())
            .spawn(move || read_all(input, &to))?;
        Ok(InputThread { chunks })
    }

    /// Returns the next chunk, if the thread has read one.
    pub(in crate::client) fn take_chunk(&self) -> Option<Chunk> {
        self.chunks.take()
    }
}

/// The loop's end of a writing thread.
#[derive(Debug)]
pub(in crate::client) struct OutputThread {
    batches: mpsc::Sender<Vec<u8>>,
    reports: Mailbox<io::Result<Vec<u8>>>,
    /// Tells if the thread has a batch.
    writer: Writer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Idle,
    Busy,
}

impl OutputThread {
    /// Starts a thread with this name that writes the [offered](Self::offer) batches to `output`.
    ///
    /// # Errors
    /// EAGAIN if the thread cannot be created.
    pub(in crate::client) fn start(
        cx: &Context<'_>,
        name: &str,
        output: impl Write + Send + 'static,
    ) -> io::Result<OutputThread> {
        // The mailbox holds the report about the one batch that is being written.
        let (to, reports) = cx.mailbox(1);
        let (batches, next_batch) = mpsc::channel();
        thread::Builder::new()
            .name(name.into())
            .spawn(move || write_all(output, &next_batch, &to))?;
        Ok(OutputThread {
            batches,
            reports,
            writer: Writer::Idle,
        })
    }

    /// Hands `batch` to the thread and leaves an empty one in its place; leaves it untouched while the thread is busy.
    pub(in crate::client) fn offer(&mut self, batch: &mut Vec<u8>) {
        if self.writer == Writer::Idle && !batch.is_empty() {
            self.writer = Writer::Busy;
            // Sending fails only after the thread has ended, and its last report held the reason.
            let _ = self.batches.send(std::mem::take(batch));
        }
    }

    /// Returns the result of the batch when the thread has finished it: the emptied buffer, to be used again. After an
    /// error nothing more is written.
    pub(in crate::client) fn take_report(&mut self) -> Option<io::Result<Vec<u8>>> {
        let report = self.reports.take()?;
        self.writer = Writer::Idle;
        Some(report)
    }

    /// Returns true if everything that was offered is written and reported.
    pub(in crate::client) fn is_idle(&self) -> bool {
        self.writer == Writer::Idle
    }
}

fn read_all(mut input: impl Read, to: &Sender<Chunk>) {
    loop {
        let mut bytes = vec![0; CHUNK];
        let chunk = match input.read(&mut bytes) {
            Ok(0) => Chunk::End,
            Ok(count) => {
                bytes.truncate(count);
                Chunk::Bytes(bytes)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => Chunk::Failed(error),
        };
        let last = !matches!(chunk, Chunk::Bytes(_));
        if to.send(chunk).is_err() || last {
            return;
        }
    }
}

fn write_all(mut output: impl Write, batches: &mpsc::Receiver<Vec<u8>>, to: &Sender<io::Result<Vec<u8>>>) {
    while let Ok(mut batch) = batches.recv() {
        let written = output.write_all(&batch).and_then(|()| output.flush());
        batch.clear();
        let failed = written.is_err();
        if to.send(written.map(|()| batch)).is_err() || failed {
            return;
        }
    }
}
