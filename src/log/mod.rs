//! The log: a line per event on standard error.
//!
//! The life of a line: a macro of the `log` crate → [`Logger`] asks the [`filter`] whether the line is wanted, and
//! notes the time → a bounded [`queue`] → the thread of the [`writer`] gives the line its [`form`] and writes it, many
//! lines at a time.
//!
//! The caller of [`start`] ([`cli`](crate::cli)) decides which lines are logged and in which form, and may change both
//! while the log runs ([`Control`]). This room itself reads one environment variable, the one that tells if standard
//! error is the [journal](is_standard_error).
//!
//! Invariants: the time of a line is that of its event; the code that logs never waits for the reader of the log. Not
//! here: the decision which events deserve a line, and how often. Each door makes it for itself.

mod filter;
mod form;
mod journal;
mod queue;
mod writer;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, TrySendError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use log::{Metadata, Record};

pub use self::filter::{Filter, ROOMS, is_known, room};
pub use self::form::{Form, Line};
pub use self::journal::is_standard_error;
use self::writer::{FLUSH_TIMEOUT, Message, PendingLine, QUEUE_CAPACITY};

/// The key under which a log macro names the service of its line: `log::info!(service = name; "...")`.
const SERVICE: &str = "service";

/// The running log. Must be dropped at the end of the program, so that the last lines are written.
#[derive(Debug)]
pub struct Log {
    lines: queue::Sender<Message>,
    shared: Arc<Shared>,
}

/// A handle that changes which lines are logged and in which form, while the log runs.
#[derive(Debug, Clone)]
pub struct Control(Arc<Shared>);

/// The state that the logging code and the thread of the writer share.
#[derive(Debug)]
struct Shared {
    filter: RwLock<Filter>,
    /// An index into [`FORMS`].
    form: AtomicU8,
    /// The number of lines that were dropped because the queue was full, since the log last reported it.
    lost: AtomicU64,
}

const FORMS: [Form; 4] = [Form::Plain, Form::Time, Form::Journal, Form::Json];

impl Shared {
    fn set(&self, filter: Filter, form: Form) {
        log::set_max_level(filter.max_level());
        // A filter is always complete, even when a thread panicked while it held the lock.
        *self.filter.write().unwrap_or_else(PoisonError::into_inner) = filter;
        let number = FORMS.iter().position(|known| *known == form).unwrap_or_default();
        self.form
            .store(u8::try_from(number).unwrap_or_default(), Ordering::Relaxed);
    }

    fn form(&self) -> Form {
        let number = usize::from(self.form.load(Ordering::Relaxed));
        FORMS.get(number).copied().unwrap_or(Form::Plain)
    }
}

/// The receiver of the macros of the `log` crate.
struct Logger {
    lines: queue::Sender<Message>,
    shared: Arc<Shared>,
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let filter = self.shared.filter.read().unwrap_or_else(PoisonError::into_inner);
        filter.wants(metadata.target(), metadata.level())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let event = PendingLine::capture(record, SystemTime::now(), self.shared.form());
        match self.lines.try_send(Message::Line(event)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
            }
            // The thread could not be started: to wait for the reader is better than to say nothing.
            Err(TrySendError::Disconnected(message)) => writer::write_here(message, self.shared.form()),
        }
    }

    fn flush(&self) {}
}

/// Starts the log. Must be called once, before anything logs.
#[must_use]
pub fn start(filter: Filter, form: Form) -> Log {
    let (lines, to_write) = queue::bounded(QUEUE_CAPACITY);
    let shared = Arc::new(Shared {
        filter: RwLock::default(),
        form: AtomicU8::default(),
        lost: AtomicU64::default(),
    });
    shared.set(filter, form);
    let logger = Logger {
        lines: lines.clone(),
        shared: Arc::clone(&shared),
    };
    // It fails only where a log runs already, and that one serves as well.
    let _ = log::set_boxed_logger(Box::new(logger));
    // Without the thread the queue has no receiver, and each line is written by the thread that logs it.
    let _ = writer::start(to_write, Arc::clone(&shared));
    Log { lines, shared }
}

impl Log {
    /// Returns a handle by which the log can be changed.
    #[must_use]
    pub fn control(&self) -> Control {
        Control(Arc::clone(&self.shared))
    }

    /// Returns the present form of the lines.
    #[must_use]
    pub fn form(&self) -> Form {
        self.shared.form()
    }
}

impl Control {
    /// Replaces filter and form, for all lines from now on.
    pub fn set(&self, filter: Filter, form: Form) {
        self.0.set(filter, form);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            // When the time runs out, the reader has had its chance.
            let _ = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use log::{Level, Log as _};

    use super::*;

    fn logger(room: usize) -> (Logger, queue::Receiver<Message>) {
        let (lines, to_write) = queue::bounded(room);
        let shared = Shared {
            filter: RwLock::default(),
            form: AtomicU8::default(),
            lost: AtomicU64::default(),
        };
        let shared = Arc::new(shared);
        (Logger { lines, shared }, to_write)
    }

    fn log(logger: &Logger, level: Level, message: &str) {
        let mut record = Record::builder();
        let record = record.level(level).target("iotcpd::net::listener");
        logger.log(&record.args(format_args!("{message}")).build());
    }

    #[test]
    fn lines_that_find_the_queue_full_are_counted_and_do_not_wait() {
        let (logger, to_write) = logger(2);
        for number in 0..5 {
            log(&logger, Level::Info, &format!("line {number}"));
        }
        assert_eq!(logger.shared.lost.load(Ordering::Relaxed), 3);
        let Message::Line(event) = to_write.recv().unwrap() else {
            panic!("it is a line")
        };
        assert_eq!(event.message, "line 0");
    }

    #[test]
    fn unwanted_lines_are_dropped_and_wanted_ones_have_their_time() {
        let (logger, to_write) = logger(2);
        log(&logger, Level::Debug, "no");
        let mut filter = Filter::default();
        filter.set("iotcpd::net", log::LevelFilter::Debug);
        Control(Arc::clone(&logger.shared)).set(filter, Form::Json);
        assert_eq!(logger.shared.form(), Form::Json);
        let before = SystemTime::now();
        log(&logger, Level::Debug, "yes");
        let Message::Line(event) = to_write.recv().unwrap() else {
            panic!("it is a line")
        };
        assert_eq!(event.message, "yes");
        assert!(event.at >= before && event.at <= SystemTime::now());
    }
}
