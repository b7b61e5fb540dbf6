//! Standard input and the outputs, each on a thread of its own.
//!
//! They may be pipes, terminals or files, shared with other processes: making them non-blocking would change them for
//! everybody, and epoll(7) does not take files. So one thread reads and one for each output writes, all of them waiting
//! ([`Standard`](crate::net::standard::Standard)), and the loop hears of it by mail. Both ways are bounded: the reader waits
//! while [`CHUNKS`] chunks lie in the mailbox, and so does the writer at the other end; a writer has one batch at a time, and
//! the loop gathers the next one meanwhile.
//!
//! The threads end with their stream, or when the loop's end of them is gone; one that waits in read(2) or write(2) then ends
//! with the process.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;

use crate::reactor::Context;
use crate::reactor::helper::{Mailbox, Sender};

/// How many chunks may lie in the mailbox.
const CHUNKS: usize = 2;
/// The most bytes of one chunk.
const CHUNK: usize = 64 * 1024;

/// From standard input.
#[derive(Debug)]
pub(super) enum Chunk {
    Bytes(Vec<u8>),
    /// There will be no more.
    End,
    /// It cannot be read, and there will be no more.
    Failed(io::Error),
}

/// The loop's end of the reading thread.
#[derive(Debug)]
pub(super) struct Input {
    chunks: Mailbox<Chunk>,
}

impl Input {
    /// Starts to read: from now on chunks come.
    ///
    /// # Errors
    /// The thread could not be made: EAGAIN.
    pub(super) fn start(cx: &Context<'_>, input: impl Read + Send + 'static) -> io::Result<Input> {
        let (to, chunks) = cx.mailbox(CHUNKS);
        thread::Builder::new()
            .name("stdin".into())
            .spawn(move || read_all(input, &to))?;
        Ok(Input { chunks })
    }

    /// The next chunk, if it has come.
    pub(super) fn take(&self) -> Option<Chunk> {
        self.chunks.take()
    }
}

/// The loop's end of a writing thread.
#[derive(Debug)]
pub(super) struct Output {
    batches: mpsc::Sender<Vec<u8>>,
    reports: Mailbox<io::Result<Vec<u8>>>,
    /// Whether the writer has a batch.
    writer: Writer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Idle,
    Busy,
}

impl Output {
    /// Starts a thread of this name that writes what it is [offered](Self::offer).
    ///
    /// # Errors
    /// The thread could not be made: EAGAIN.
    pub(super) fn start(cx: &Context<'_>, name: &str, output: impl Write + Send + 'static) -> io::Result<Output> {
        // It holds the report on the one batch under way.
        let (to, reports) = cx.mailbox(1);
        let (batches, next_batch) = mpsc::channel();
        thread::Builder::new()
            .name(name.into())
            .spawn(move || write_all(output, &next_batch, &to))?;
        Ok(Output {
            batches,
            reports,
            writer: Writer::Idle,
        })
    }

    /// Gives the batch to the writer, if it is idle, and leaves an empty one.
    pub(super) fn offer(&mut self, batch: &mut Vec<u8>) {
        if self.writer == Writer::Idle && !batch.is_empty() {
            self.writer = Writer::Busy;
            // It fails only when the thread is gone, and the thread's last report has said why.
            let _ = self.batches.send(std::mem::take(batch));
        }
    }

    /// What has become of the batch, once the writer is done with it: its buffer comes back to be used again. After an error
    /// nothing more is written.
    pub(super) fn report(&mut self) -> Option<io::Result<Vec<u8>>> {
        let report = self.reports.take()?;
        self.writer = Writer::Idle;
        Some(report)
    }

    /// Whether everything that was offered is written, and reported.
    pub(super) fn is_idle(&self) -> bool {
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
