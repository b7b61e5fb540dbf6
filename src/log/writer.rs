//! The thread that writes the log.
//!
//! A reader of standard error that does not read must not make the daemon wait. So a line is put into a bounded channel,
//! and the thread may wait in its place; lines that find the channel full are counted, and the count is logged when there is
//! room again.
//!
//! To wake a thread is dear where a line comes with every request: the processor that sleeps has to be fetched. So the thread
//! looks away for [`PAUSE`] whenever it has written, and then writes together what has come meanwhile. A line after a silence
//! is written at once. What a line looks like is worked out here as well: it costs whoever logs nothing but its message.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;
use std::time::{Duration, SystemTime};

use log::{Level, Record};
use nix::sys::signal::SigSet;

use super::filter::room;
use super::form::{Form, Line};
use super::{SERVICE, Shared};
use crate::net::standard::Standard;

/// Lines that wait at most, for a slow reader or for the end of a pause.
pub(super) const WAITING: usize = 4096;
/// How long the end of the program waits for what is still to be written.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a line may wait behind the one before it.
const PAUSE: Duration = Duration::from_millis(5);
/// How much is written at once.
const BATCH: usize = 64 * 1024;
/// Most lines are no longer, so that most need one allocation.
const USUAL_LENGTH: usize = 160;

#[derive(Debug)]
pub(super) enum Message {
    Event(Event),
    /// Everything before this has been written: whoever asked is told.
    Flush(SyncSender<()>),
}

/// A line on its way.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) at: SystemTime,
    level: Level,
    target: Target,
    service: Option<Box<str>>,
    pub(super) message: String,
}

/// The path of the module that says it. Most lines know it for good.
#[derive(Debug)]
enum Target {
    Static(&'static str),
    Owned(Box<str>),
}

impl Event {
    /// What happened at this moment, to be written in that form; in another one as well, should that change meanwhile, but then
    /// perhaps without its service.
    pub(super) fn of(record: &Record<'_>, at: SystemTime, form: Form) -> Self {
        let mut message = String::with_capacity(USUAL_LENGTH);
        // Fails if a part of it does, and what there is until then is better than nothing.
        let _ = std::fmt::write(&mut message, *record.args());
        let service = match form {
            Form::Json => record.key_values().get(SERVICE.into()),
            Form::Plain | Form::Time | Form::Journal => None,
        };
        let target = match record.module_path_static() {
            Some(path) if path == record.target() => Target::Static(path),
            _ => Target::Owned(record.target().into()),
        };
        Event {
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

/// Writes one line on the thread that it is of.
pub(super) fn write_here(message: Message, form: Form) {
    if let Message::Event(event) = message {
        let mut line = Vec::new();
        event.write(form, std::process::id(), &mut line);
        put(&mut line);
    }
}

fn write(to_write: &Receiver<Message>, shared: &Shared) {
    // They are the loop's. For SIGCHLD, which nobody wants, the kernel else wakes whoever does not block it at a moment when the
    // loop does. Fails only for an unknown operation.
    let _ = SigSet::all().thread_block();
    let (pid, mut batch) = (std::process::id(), Vec::new());
    while let Ok(first) = to_write.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Event(event) => event.write(shared.form(), pid, &mut batch),
                Message::Flush(done) => {
                    put(&mut batch);
                    // Whoever asked may have given up.
                    let _ = done.try_send(());
                }
            }
            if batch.len() >= BATCH {
                put(&mut batch);
            }
            next = to_write.try_recv().ok();
        }
        let count = shared.lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            missing(count).write(shared.form(), pid, &mut batch);
        }
        put(&mut batch);
        thread::sleep(PAUSE);
    }
}

fn missing(count: u64) -> Event {
    Event {
        at: SystemTime::now(),
        level: Level::Warn,
        target: Target::Static(module_path!()),
        service: None,
        message: format!("{count} lines are missing here: nobody read them in time"),
    }
}

fn put(lines: &mut Vec<u8>) {
    if !lines.is_empty() {
        // A closed standard error is nobody's loss.
        let _ = Standard::Error.write_all(lines);
    }
    lines.clear();
}
