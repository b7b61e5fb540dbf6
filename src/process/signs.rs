//! The sign of a run: a variable of the environment by which a process is recognised as a descendant of that run's
//! child, wherever it has moved to, because every program passes its environment on to the programs that it starts.
//!
//! `IOTCPD_RUN=7f0c5a1e22d94b03-17` is the daemon's instance, a random number, and the number of the run in that
//! daemon. A daemon that is itself started in a run keeps that run's sign and adds its own after a blank: its children
//! belong to both. Forging a sign gains nothing: a process with one is only ended together with that run. A process
//! that removes the sign is not found by it, and the manual says so.
//!
//! Environments are read by a thread ([`Readings`]), because a read may take for ever ([`procfs`]).

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::procfs;
use super::strings::Strings;

/// The name of the variable.
pub const VARIABLE: &str = "IOTCPD_RUN";

/// The most bytes of a sign in the variable, with the characters around it: the instance, a hyphen and the run.
const LONGEST_SIGN: usize = "= ".len() + 16 + "-".len() + 20 + 1;

/// The time limit for reading the environment of one process.
const READ_TIMEOUT: Duration = Duration::from_millis(300);
/// The number of threads that may hang in reading environments. Beyond it no more are read.
const MAX_HANGING: usize = 4;

/// The number of one daemon, unique among all daemons that ever run on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instance(pub(super) u64);

impl Instance {
    pub(super) fn new() -> Self {
        Instance(RandomState::new().hash_one(std::process::id()))
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Returns the valid signs in this process's own environment.
pub(super) fn of_this_process() -> String {
    let value = std::env::var(VARIABLE).unwrap_or_default();
    let signs: Vec<&str> = value.split(' ').filter(|sign| parse(sign).is_some()).collect();
    signs.join(" ")
}

fn parse(sign: &str) -> Option<(Instance, u64)> {
    let (instance, run) = sign.split_once('-')?;
    let is_number = |text: &str, radix| text.chars().all(|c| c.is_digit(radix));
    let fits = instance.len() == 16 && is_number(instance, 16) && is_number(run, 10);
    let instance = u64::from_str_radix(instance, 16).ok().filter(|_| fits)?;
    Some((Instance(instance), run.parse().ok()?))
}

/// Returns the variable for a run of this instance. `outer` holds the signs of this process.
pub(super) fn entry(outer: &str, instance: Instance, run: u64) -> Strings {
    let blank = if outer.is_empty() { "" } else { " " };
    let mut entry = Strings::with_capacity(VARIABLE.len() + outer.len() + LONGEST_SIGN);
    // The outer signs are valid ones, which have no NUL.
    entry.push_text(format_args!("{VARIABLE}={outer}{blank}{instance}-{run}"));
    entry
}

/// The meaning of a process's environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// The process belongs to this run.
    Run(u64),
    /// The process has no sign of that instance.
    Foreign,
    /// The process has no environment at all: it was started without one, or is in the middle of an exec.
    Blank,
}

fn sign_in(environment: &[u8], instance: Instance) -> Sign {
    let value = |entry| <[u8]>::strip_prefix(entry, VARIABLE.as_bytes())?.strip_prefix(b"=");
    let mut values = environment.split(|byte| *byte == 0).filter_map(value);
    let run = values.find_map(|value| {
        let mut signs = std::str::from_utf8(value).ok()?.split(' ').filter_map(parse);
        signs.rfind(|(its, _)| *its == instance).map(|(_, run)| run)
    });
    match run {
        Some(run) => Sign::Run(run),
        None if environment.is_empty() => Sign::Blank,
        None => Sign::Foreign,
    }
}

/// The environments that are being read.
#[derive(Debug, Default)]
pub(super) struct Readings {
    /// The processes whose environments have not been reported, in the order in which they are read.
    waiting: BTreeSet<i32>,
    /// The time of the latest report, or of the start before the first one.
    since: Option<Instant>,
    /// Each thread holds a clone, so that the threads can be counted.
    threads: Arc<()>,
}

impl Readings {
    /// Has a thread read the environments of these processes and report each to `tell`, which returns false if no more
    /// reports are wanted. Returns false if there is no thread for it, because too many hang or the machine has none.
    /// Must not be called while a reading is under way.
    pub(super) fn start(
        &mut self,
        pids: &[i32],
        instance: Instance,
        now: Instant,
        tell: impl Fn(i32, Sign) -> bool + Send + 'static,
    ) -> bool {
        if Arc::strong_count(&self.threads) > MAX_HANGING {
            return false;
        }
        self.waiting = pids.iter().copied().collect();
        self.since = (!pids.is_empty()).then_some(now);
        let new = self.waiting.clone();
        let one_more = Arc::clone(&self.threads);
        let read = move || {
            let _until_its_end = one_more;
            for pid in new {
                // The environment of a process that has ended, or that belongs to another user, cannot be read.
                let sign = procfs::environment(pid).map_or(Sign::Foreign, |bytes| sign_in(&bytes, instance));
                if !tell(pid, sign) {
                    return;
                }
            }
        };
        let reads = thread::Builder::new().name("signs".to_owned()).spawn(read).is_ok();
        if !reads {
            (self.waiting, self.since) = (BTreeSet::new(), None);
        }
        reads
    }

    /// Records a report. Returns true if it was awaited.
    pub(super) fn receive(&mut self, pid: i32, now: Instant) -> bool {
        let awaited = self.waiting.remove(&pid);
        self.since = if self.waiting.is_empty() { None } else { Some(now) };
        awaited
    }

    /// Returns the time at which the present process exceeds its time limit.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + READ_TIMEOUT)
    }

    /// If the time limit is exceeded, gives the reading up and returns the processes that were not reported. The first
    /// of them is the one that hangs, whose thread may still return.
    pub(super) fn take_overdue(&mut self, now: Instant) -> BTreeSet<i32> {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return BTreeSet::new();
        }
        self.since = None;
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    const OURS: Instance = Instance(0x7f0c_5a1e_22d9_4b03);

    fn value(outer: &str, run: u64) -> Vec<u8> {
        [b"A=1\0", entry_of(outer, run).to_bytes_with_nul(), b"B=2\0"].concat()
    }

    fn entry_of(outer: &str, run: u64) -> CString {
        entry(outer, OURS, run).iter().next().unwrap().to_owned()
    }

    #[test]
    fn a_sign_is_read_as_it_was_written() {
        assert_eq!(entry_of("", 17).as_c_str(), c"IOTCPD_RUN=7f0c5a1e22d94b03-17");
        assert_eq!(sign_in(&value("", 17), OURS), Sign::Run(17));
        assert_eq!(sign_in(&value("", 17), Instance(1)), Sign::Foreign);
        assert_eq!(sign_in(b"", OURS), Sign::Blank);
    }

    #[test]
    fn a_daemon_within_a_run_adds_its_own() {
        let outer = "0000000000000001-5 0000000000000002-6";
        let both = value(outer, 17);
        assert_eq!(sign_in(&both, OURS), Sign::Run(17));
        assert_eq!(sign_in(&both, Instance(1)), Sign::Run(5));
        assert_eq!(sign_in(&both, Instance(2)), Sign::Run(6));
        assert_eq!(sign_in(&both, Instance(3)), Sign::Foreign);
    }

    #[test]
    fn a_malformed_sign_is_ignored() {
        for text in [
            "",
            "7f0c5a1e22d94b03",
            "7f0c5a1e22d94b03-",
            "7f0c5a1e22d94b03-x",
            "+f0c5a1e22d94b03-1",
            "7f0c-1",
            "7f0c5a1e22d94b03--1",
        ] {
            assert_eq!(parse(text), None, "{text}");
            let environment = format!("IOTCPD_RUN={text}\0");
            assert_eq!(sign_in(environment.as_bytes(), OURS), Sign::Foreign, "{text}");
        }
        assert_eq!(sign_in(b"XIOTCPD_RUN=7f0c5a1e22d94b03-1\0", OURS), Sign::Foreign);
    }

    #[test]
    fn a_hanging_read_does_not_delay_the_others() {
        let now = Instant::now();
        let mut readings = Readings::default();
        let (sender, receiver) = std::sync::mpsc::channel();
        let own = i32::try_from(std::process::id()).unwrap();
        readings.start(&[own], OURS, now, move |pid, sign| sender.send((pid, sign)).is_ok());
        assert_eq!(readings.take_overdue(now), BTreeSet::new());
        assert_eq!(readings.take_overdue(now + READ_TIMEOUT), BTreeSet::from([own]));
        assert_eq!(receiver.recv(), Ok((own, Sign::Foreign)));
        assert!(!readings.receive(own, now), "it came too late");
        // The thread counts until it has ended, a moment after its last report.
        while Arc::strong_count(&readings.threads) > 1 {
            thread::yield_now();
        }
        let (never, hangs) = std::sync::mpsc::channel::<()>();
        let hangs = Arc::new(std::sync::Mutex::new(hangs));
        for _ in 0..MAX_HANGING {
            let hangs = Arc::clone(&hangs);
            readings.start(&[own], OURS, now, move |_, _| hangs.lock().unwrap().recv().is_ok());
            assert_eq!(readings.take_overdue(now + READ_TIMEOUT), BTreeSet::from([own]));
        }
        readings.start(&[own], OURS, now, |_, _| panic!("no more threads than that hang"));
        assert_eq!(readings.deadline(), None);
        drop(never);
        while readings.deadline().is_none() {
            readings.start(&[own], OURS, now, |_, _| false);
        }
    }
}
