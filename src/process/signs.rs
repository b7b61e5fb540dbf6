//! The sign by which a process is known as a descendant of a run or a worker, wherever it has moved to: a variable of its
//! environment, which every program is given and passes on to whatever it starts.
//!
//! `IOTCPD_RUN=7f0c5a1e22d94b03-17` is the daemon's instance, a number that chance made, and the number of the run in that
//! daemon. A daemon that is itself started in some run has that one's sign and writes its own behind it, with a blank between:
//! its children belong to both. Nothing is gained by writing another's sign: a process that bears one is only ended with that
//! run. One that takes it away is not found by it, and is told of in the manual.
//!
//! An environment is read by a thread ([`Readings`]), since that may take for ever ([`procfs`]).

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::procfs;

/// The variable.
pub const VARIABLE: &str = "IOTCPD_RUN";

/// How long the environment of one process may take to be read.
const PATIENCE: Duration = Duration::from_millis(300);
/// So many threads may hang in the environments of processes; beyond that no more are read.
const MOST_HANGING: usize = 4;

/// One daemon among all that are, were, and will be on this machine.
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

/// The signs that this process itself bears, as far as they are such.
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

/// The variable for a run of this instance; `outer`: of this process.
pub(super) fn entry(outer: &str, instance: Instance, run: u64) -> CString {
    let blank = if outer.is_empty() { "" } else { " " };
    CString::new(format!("{VARIABLE}={outer}{blank}{instance}-{run}")).unwrap_or_default()
}

/// What the environment of a process says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It belongs to this run.
    Run(u64),
    /// It bears no sign of that instance.
    Foreign,
    /// It has no environment at all: none was left to it, or it is in the middle of an exec.
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

/// Environments that are being read.
#[derive(Debug, Default)]
pub(super) struct Readings {
    /// Those that nothing has been heard of, in the order in which they are read.
    waiting: BTreeSet<i32>,
    /// Since when nothing has been heard of any.
    since: Option<Instant>,
    /// Each thread has one more of it.
    threads: Arc<()>,
}

impl Readings {
    /// Has these read, and each told once, by `tell`, which says whether anybody still listens. False: there is no thread
    /// for it, because too many hang or the machine has none. To be called when nothing is waited for.
    pub(super) fn start(
        &mut self,
        pids: &[i32],
        instance: Instance,
        now: Instant,
        tell: impl Fn(i32, Sign) -> bool + Send + 'static,
    ) -> bool {
        if Arc::strong_count(&self.threads) > MOST_HANGING {
            return false;
        }
        self.waiting = pids.iter().copied().collect();
        self.since = (!pids.is_empty()).then_some(now);
        let new = self.waiting.clone();
        let one_more = Arc::clone(&self.threads);
        let read = move || {
            let _until_its_end = one_more;
            for pid in new {
                // One that has gone, or is another user's, bears no sign that could be read.
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

    /// That one has been told of; whether it was awaited.
    pub(super) fn receive(&mut self, pid: i32, now: Instant) -> bool {
        let awaited = self.waiting.remove(&pid);
        self.since = if self.waiting.is_empty() { None } else { Some(now) };
        awaited
    }

    /// When it is not waited for any longer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
    }

    /// Nothing has been heard for too long: those that are given up, first of them the one that hangs. Its thread may come back.
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
    use super::*;

    const OURS: Instance = Instance(0x7f0c_5a1e_22d9_4b03);

    fn value(outer: &str, run: u64) -> Vec<u8> {
        [b"A=1\0", entry(outer, OURS, run).as_bytes(), b"\0B=2\0"].concat()
    }

    #[test]
    fn a_sign_is_read_as_it_was_written() {
        assert_eq!(entry("", OURS, 17).to_str(), Ok("IOTCPD_RUN=7f0c5a1e22d94b03-17"));
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
        assert_eq!(readings.take_overdue(now + PATIENCE), BTreeSet::from([own]));
        assert_eq!(receiver.recv(), Ok((own, Sign::Foreign)));
        assert!(!readings.receive(own, now), "it came too late");
        // The thread counts until it has ended, which is a moment after it has told.
        while Arc::strong_count(&readings.threads) > 1 {
            thread::yield_now();
        }
        let (never, hangs) = std::sync::mpsc::channel::<()>();
        let hangs = Arc::new(std::sync::Mutex::new(hangs));
        for _ in 0..MOST_HANGING {
            let hangs = Arc::clone(&hangs);
            readings.start(&[own], OURS, now, move |_, _| hangs.lock().unwrap().recv().is_ok());
            assert_eq!(readings.take_overdue(now + PATIENCE), BTreeSet::from([own]));
        }
        readings.start(&[own], OURS, now, |_, _| panic!("no more threads than that hang"));
        assert_eq!(readings.deadline(), None);
        drop(never);
        while readings.deadline().is_none() {
            readings.start(&[own], OURS, now, |_, _| false);
        }
    }
}
