//! The log: a line per event on standard error, written by a thread of its own.
//!
//! `LEVEL message`, without the time: whatever keeps the log (journald, syslog, a container's runtime) adds it, and two
//! would disagree. `RUST_LOG` chooses what is kept, as `env_logger` describes it; the default is `info`.
//!
//! A reader of standard error that does not read must not make the daemon wait. So a line is put into a bounded channel,
//! and the thread may wait in its place; lines that find the channel full are counted, and the count is logged when there is
//! room again.
//!
//! To wake a thread is dear where a line comes with every request: the processor that sleeps has to be fetched. So the thread
//! looks away for [`PAUSE`] whenever it has written, and then writes together what has come meanwhile. A line after a silence
//! is written at once.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use env_logger::{Env, Target};
use nix::sys::signal::SigSet;

use crate::net::standard::Standard;

/// Lines that wait at most, for a slow reader or for the end of a pause.
const WAITING: usize = 4096;
/// How long a line may wait behind the one before it.
const PAUSE: Duration = Duration::from_millis(5);
/// How much is written at once.
const BATCH: usize = 64 * 1024;
/// How long the end of the program waits for what is still to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The running log; dropped at the end of the program, so that its last lines are written.
#[derive(Debug)]
pub struct Log {
    lines: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Everything before this has been written: whoever asked is told.
    Flush(SyncSender<()>),
}

/// What the logger writes into.
struct Channel {
    lines: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Write for Channel {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.lines.try_send(Message::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            // The thread could not be started: better to wait for the reader than to say nothing.
            Err(TrySendError::Disconnected(_)) => Standard::Error.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging. To be called once, before anything that logs.
#[must_use]
pub fn start() -> Log {
    let (lines, to_write) = mpsc::sync_channel(WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let channel = Channel {
        lines: lines.clone(),
        lost: Arc::clone(&lost),
    };
    let started = env_logger::Builder::from_env(Env::default().default_filter_or("info"))
        .format(|out, record| writeln!(out, "{} {}", record.level(), record.args()))
        .target(Target::Pipe(Box::new(channel)))
        .try_init();
    // It fails only where a log runs already, and that one is as good.
    drop(started);
    // Without the thread the channel is disconnected, and lines are written where they arise.
    let _ = thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write(&to_write, &lost));
    Log { lines }
}

fn write(to_write: &Receiver<Message>, lost: &AtomicU64) {
    // They are the loop's. For SIGCHLD, which nobody wants, the kernel else wakes whoever does not block it at a moment when the
    // loop does. Fails only for an unknown operation.
    let _ = SigSet::all().thread_block();
    let mut batch = Vec::new();
    while let Ok(first) = to_write.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
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
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            let line = format!("WARN {count} lines are missing here: nobody read them in time\n");
            batch.extend_from_slice(line.as_bytes());
        }
        put(&mut batch);
        thread::sleep(PAUSE);
    }
}

fn put(lines: &mut Vec<u8>) {
    if !lines.is_empty() {
        // A closed standard error is nobody's loss.
        let _ = Standard::Error.write_all(lines);
    }
    lines.clear();
}

impl Drop for Log {
    fn drop(&mut self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            // The reader has had its time when this runs out.
            let _ = written.recv_timeout(LAST_WORDS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_never_waits() {
        let (lines, to_write) = mpsc::sync_channel(2);
        let lost = Arc::new(AtomicU64::new(0));
        let mut channel = Channel {
            lines,
            lost: Arc::clone(&lost),
        };
        for number in 0..5 {
            channel.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        assert_eq!(lost.load(Ordering::Relaxed), 3);
        assert!(matches!(to_write.recv().unwrap(), Message::Line(line) if line == b"line 0\n"));
    }
}
