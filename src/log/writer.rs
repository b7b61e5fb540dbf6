//! The thread that writes the log.
//!
//! A reader of standard error that stops reading must not make the daemon wait. So each line goes through a bounded
//! queue, and the thread waits instead of the daemon; lines that find the queue full are counted, and the count is
//! logged as soon as there is room again.
//!
//! Waking a thread is expensive when every request logs a line, because a sleeping processor has to be woken as well.
//! So the thread sleeps for [`PAUSE`] after each write, and then writes the lines of that time together. A line after a
//! silence is written at once. The thread also formats the lines: logging costs the caller only the text of the
//! message.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, SystemTime};

use log::{Level, Record};
use nix::sys::signal::SigSet;

use super::filter::room;
use super::form::{Form, Line};
use super::queue::Receiver;
use super::{SERVICE, Shared};
use crate::net::standard::Standard;

/// The number of lines that the queue holds, for a slow reader or for the end of a pause.
pub(super) const QUEUE_CAPACITY: usize = 4096;
/// The time that the end of the program waits for the remaining lines.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest time that a line waits after the one before it.
const PAUSE: Duration = Duration::from_millis(5);
/// The number of bytes after which a batch is written.
const BATCH: usize = 64 * 1024;
/// The capacity of a new message, in bytes: most messages are no longer, so that they need one allocation.
const USUAL_LENGTH: usize = 160;

#[derive(Debug)]
pub(super) enum Message {
    Line(PendingLine),
    /// A request to write everything before it, and then to answer on this channel.
    Flush(SyncSender<()>),
}

/// A line on its way to the writer.
#[derive(Debug)]
pub(super) struct PendingLine {
    pub(super) at: SystemTime,
    level: Level,
    target: Target,
    service: Option<Box<str>>,
    pub(super) message: String,
}

/// The path of the module that logs. For most lines it is known at compile time.
#[derive(Debug)]
enum Target {
    Static(&'static str),
    Owned(Box<str>),
}

impl PendingLine {
    /// Captures a record at the moment `at`, to be written in the form `form`. If the form changes before the line is
    /// written, the line is written in the new form, but perhaps without its service, which is kept for JSON only.
    pub(super) fn capture(record: &Record<'_>, at: SystemTime, form: Form) -> Self {
        let mut message = String::with_capacity(USUAL_LENGTH);
        // Formatting fails if a part of the message does; the text up to there is better than nothing.
        let _ = std::fmt::write(&mut message, *record.args());
        let service = match form {
            Form::Json => record.key_values().get(SERVICE.into()),
            Form::Plain | Form::Time | Form::Journal => None,
        };
        let target = match record.module_path_static() {
            Some(path) if path == record.target() => Target::Static(path),
            _ => Target::Owned(record.target().into()),
        };
        PendingLine {
            at,
            level: record.level(),
            target,
            service: service.map(|service| service.to_string().into()),
            message,
        }
    }

    fn write(&self, form: Form, pid: u32, out: &mut Vec<u8>) {
        let line = Line {
            at: self.at,
            level: self.level,
            room: match &self.target {
                Target::Static(path) => room(path),
                Target::Owned(path) => room(path),
            },
            service: self.service.as_deref(),
            message: &self.message,
        };
        form.write(&line, pid, out);
    }
}

pub(super) fn start(to_write: Receiver<Message>, shared: Arc<Shared>) -> io::Result<()> {
    let write = move || write(&to_write, &shared);
    thread::Builder::new().name("log".to_owned()).spawn(write).map(drop)
}

/// Writes one line on the calling thread.
pub(super) fn write_here(message: Message, form: Form) {
    if let Message::Line(event) = message {
        let mut line = Vec::new();
        event.write(form, std::process::id(), &mut line);
        write_out(&mut line);
    }
}

fn write(to_write: &Receiver<Message>, shared: &Shared) {
    // Signals belong to the loop. A pending SIGCHLD, for which the daemon has no handler, would else make the kernel
    // wake any thread that does not block it while the loop does. Blocking fails only for an unknown operation.
    let _ = SigSet::all().thread_block();
    let (pid, mut batch) = (std::process::id(), Vec::new());
    while let Ok(first) = to_write.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(event) => event.write(shared.form(), pid, &mut batch),
                Message::Flush(done) => {
                    write_out(&mut batch);
                    // The other side may have stopped waiting.
                    let _ = done.try_send(());
                }
            }
            if batch.len() >= BATCH {
                write_out(&mut batch);
            }
            next = to_write.try_recv();
        }
        let count = shared.lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            lost_lines(count).write(shared.form(), pid, &mut batch);
        }
        write_out(&mut batch);
        thread::sleep(PAUSE);
    }
}

fn lost_lines(count: u64) -> PendingLine {
    PendingLine {
        at: SystemTime::now(),
        level: Level::Warn,
        target: Target::Static(module_path!()),
        service: None,
        message: format!("{count} lines are missing here: nobody read them in time"),
    }
}

fn write_out(lines: &mut Vec<u8>) {
    if !lines.is_empty() {
        // The lines for a closed standard error have no reader.
        let _ = Standard::Error.write_all(lines);
    }
    lines.clear();
}
