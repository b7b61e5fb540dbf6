//! Standard input and output, each on a thread of its own.
//!
//! They may be pipes, terminals or files, shared with other processes: making them non-blocking would change them for
//! everybody, and epoll(7) does not take files. So one thread reads and one writes, both blocking, and the loop hears of
//! it by mail. Both ways are bounded: the reader waits while [`CHUNKS`] chunks lie in the mailbox, and so does whoever
//! writes to us; the writer has one batch at a time, and the loop gathers the next one meanwhile.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;

use super::resolver::Resolved;
use crate::reactor::Context;
use crate::reactor::helper::{Mailbox, Sender};

/// How many chunks may lie in the mailbox.
const CHUNKS: usize = 2;
/// The most bytes of one chunk.
const CHUNK: usize = 64 * 1024;
/// How many reports may lie in the mailbox; the loop takes them all whenever it is woken.
const REPORTS: usize = 16;

/// From standard input.
#[derive(Debug)]
pub(super) enum Chunk {
    Bytes(Vec<u8>),
    /// There will be no more.
    End,
    /// It cannot be read, and there will be no more.
    Failed(io::Error),
}

/// From the other threads.
#[derive(Debug)]
pub(super) enum Report {
    /// The batch is written. The buffer comes back to be used again.
    Written(io::Result<Vec<u8>>),
    Resolved(Resolved),
}

/// The loop's ends of the threads.
#[derive(Debug)]
pub(super) struct Stdio {
    pub(super) chunks: Mailbox<Chunk>,
    pub(super) reports: Mailbox<Report>,
    /// For further threads.
    pub(super) report_to: Sender<Report>,
    batches: mpsc::Sender<Vec<u8>>,
    /// Whether the writer has a batch.
    writer: Writer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Idle,
    Busy,
}

impl Stdio {
    /// Starts both threads. They end with the input, or when this value is gone; a thread that waits in read(2) then
    /// ends with the process.
    ///
    /// # Errors
    /// A thread could not be made: EAGAIN.
    pub(super) fn start(
        cx: &Context<'_>,
        input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
    ) -> io::Result<Stdio> {
        let (chunk_to, chunks) = cx.mailbox(CHUNKS);
        let (report_to, reports) = cx.mailbox(REPORTS);
        let (batches, next_batch) = mpsc::channel();
        let written_to = report_to.clone();
        thread::Builder::new()
            .name("stdin".into())
            .spawn(move || read_all(input, &chunk_to))?;
        thread::Builder::new()
            .name("stdout".into())
            .spawn(move || write_all(output, &next_batch, &written_to))?;
        Ok(Stdio {
            chunks,
            reports,
            report_to,
            batches,
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

    /// The writer has reported.
    pub(super) fn written(&mut self) {
        self.writer = Writer::Idle;
    }

    /// Whether everything that was offered is written.
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

fn write_all(mut output: impl Write, batches: &mpsc::Receiver<Vec<u8>>, to: &Sender<Report>) {
    while let Ok(mut batch) = batches.recv() {
        let written = output.write_all(&batch).and_then(|()| output.flush());
        batch.clear();
        let failed = written.is_err();
        if to.send(Report::Written(written.map(|()| batch))).is_err() || failed {
            return;
        }
    }
}
