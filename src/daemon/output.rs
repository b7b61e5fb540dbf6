//! Standard output, written by a thread, so that a slow reader does not make the daemon wait.

use std::io::Write;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

use nix::sys::signal::SigSet;

use crate::net::standard::Standard;

/// The number of texts that may wait for a slow reader. Further texts are dropped, with a warning in the log.
const CAPACITY: usize = 16;
/// The time for which the end of the daemon waits until everything is printed.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// The writer of standard output. Dropping it waits for texts that are not printed yet.
#[derive(Debug)]
pub(super) struct Output {
    texts: Option<SyncSender<String>>,
    /// Disconnected when the writer has written everything.
    finished: Receiver<()>,
}

impl Output {
    pub(super) fn start() -> Self {
        let (texts, to_print) = mpsc::sync_channel::<String>(CAPACITY);
        let (still_at_work, finished) = mpsc::sync_channel(0);
        let write = move || {
            // Signals are handled by the loop alone.
            let _ = SigSet::all().thread_block();
            for text in to_print {
                // A closed standard output is no error: nothing but statistics is lost.
                let _ = Standard::Output.write_all(text.as_bytes());
            }
            drop(still_at_work);
        };
        if let Err(error) = std::thread::Builder::new().name("output".to_owned()).spawn(write) {
            log::error!("cannot print statistics: no thread: {error}");
        }
        Output {
            texts: Some(texts),
            finished,
        }
    }

    pub(super) fn print(&self, text: String) {
        if let Some(Err(_)) = self.texts.as_ref().map(|texts| texts.try_send(text)) {
            log::warn!("nobody reads standard output; what was asked for is dropped");
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.texts = None;
        // Nothing is ever sent on this channel: the wait ends when the writer does, or at its time limit.
        let _ = self.finished.recv_timeout(FINISH_TIMEOUT);
    }
}
