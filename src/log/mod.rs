//! The log: a line per event on standard error.
//!
//! The life of a line: a macro of the `log` crate → [`Logger`] asks the [`filter`] whether it is wanted, and notes the time →
//! a bounded channel → the thread of the [`writer`] gives it its [`form`] and writes it, many at a time.
//!
//! What is logged and how it looks is decided by whoever starts the log ([`cli`](crate::cli)), and may be changed while it runs
//! ([`Control`]). By itself this room reads one variable, the one that tells whether standard error is the
//! [journal](is_standard_error).
//!
//! What holds: a line's time is that of the event; whoever logs never waits for whoever reads. What does not belong here: what
//! is worth a line, and how often (that is for each door to say).

mod filter;
mod form;
mod journal;
mod writer;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use log::{Metadata, Record};

pub use self::filter::{Filter, ROOMS, is_known, room};
pub use self::form::{Form, Line};
pub use self::journal::is_standard_error;
use self::writer::{Event, LAST_WORDS, Message, WAITING};

/// The key of a line's service, where it is about one: `log::info!(service = name; "...")`.
const SERVICE: &str = "service";

/// The running log; dropped at the end of the program, so that its last lines are written.
#[derive(Debug)]
pub struct Log {
    lines: SyncSender<Message>,
    shared: Arc<Shared>,
}

/// Changes what is logged and how, while it is.
#[derive(Debug, Clone)]
pub struct Control(Arc<Shared>);

/// What whoever logs and the thread have in common.
#[derive(Debug)]
struct Shared {
    filter: RwLock<Filter>,
    /// A number of [`FORMS`].
    form: AtomicU8,
    /// Lines that found no room.
    lost: AtomicU64,
}

const FORMS: [Form; 4] = [Form::Plain, Form::Time, Form::Journal, Form::Json];

impl Shared {
    fn set(&self, filter: Filter, form: Form) {
        log::set_max_level(filter.most());
        // A filter is whole even if whoever wrote it has panicked.
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

/// What the `log` crate writes into.
struct Logger {
    lines: SyncSender<Message>,
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
        let event = Event::of(record, SystemTime::now(), self.shared.form());
        match self.lines.try_send(Message::Event(event)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
            }
            // The thread could not be started: better to wait for the reader than to say nothing.
            Err(TrySendError::Disconnected(message)) => writer::write_here(message, self.shared.form()),
        }
    }

    fn flush(&self) {}
}

/// Starts logging. To be called once, before anything that logs.
#[must_use]
pub fn start(filter: Filter, form: Form) -> Log {
    let (lines, to_write) = mpsc::sync_channel(WAITING);
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
    // It fails only where a log runs already, and that one is as good.
    let _ = log::set_boxed_logger(Box::new(logger));
    // Without the thread the channel is disconnected, and lines are written where they arise.
    let _ = writer::start(to_write, Arc::clone(&shared));
    Log { lines, shared }
}

impl Log {
    /// A hold on it.
    #[must_use]
    pub fn control(&self) -> Control {
        Control(Arc::clone(&self.shared))
    }

    /// What its lines look like now.
    #[must_use]
    pub fn form(&self) -> Form {
        self.shared.form()
    }
}

impl Control {
    /// From now on.
    pub fn set(&self, filter: Filter, form: Form) {
        self.0.set(filter, form);
    }
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
    use log::{Level, Log as _};

    use super::*;

    fn logger(room: usize) -> (Logger, mpsc::Receiver<Message>) {
        let (lines, to_write) = mpsc::sync_channel(room);
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
    fn what_finds_no_room_is_counted_and_never_waits() {
        let (logger, to_write) = logger(2);
        for number in 0..5 {
            log(&logger, Level::Info, &format!("line {number}"));
        }
        assert_eq!(logger.shared.lost.load(Ordering::Relaxed), 3);
        let Message::Event(event) = to_write.recv().unwrap() else {
            panic!("it is a line")
        };
        assert_eq!(event.message, "line 0");
    }

    #[test]
    fn what_is_not_wanted_is_dropped_and_what_is_has_its_time() {
        let (logger, to_write) = logger(2);
        log(&logger, Level::Debug, "no");
        let mut filter = Filter::default();
        filter.set("iotcpd::net", log::LevelFilter::Debug);
        Control(Arc::clone(&logger.shared)).set(filter, Form::Json);
        assert_eq!(logger.shared.form(), Form::Json);
        let before = SystemTime::now();
        log(&logger, Level::Debug, "yes");
        let Message::Event(event) = to_write.recv().unwrap() else {
            panic!("it is a line")
        };
        assert_eq!(event.message, "yes");
        assert!(event.at >= before && event.at <= SystemTime::now());
    }
}
