//! The watchdog over starts: no child holds up the thread that starts it for longer than a second, or three seconds if
//! the machine has no processor to spare.
//!
//! That thread stands still from the clone of a child to its exec ([`sys`]). In between the child may be kept from
//! running: once it has its own user, by a process of that user that stops it (`kill -STOP -1`), and by a file system
//! that does not answer when the child looks for its program. Meanwhile no client could be served and no signal
//! handled.
//!
//! So a thread watches each start. It is woken by a timer that is armed before the clone and disarmed after it, and not
//! by the starts themselves. At every [`TICK`] it checks the child. After [`MAX_HELD_TICKS`] ticks it kills the child,
//! and the start fails. A tick at which the child could run, and only waits for its turn on a busy machine, is not
//! counted: nothing holds it, and another child would fare no better. So that the loop does not stand still for that
//! either, [`MAX_TICKS`] limits all ticks. Ticks are counted by checks and not by the clock: if the daemon itself was
//! stopped meanwhile, that is one tick.
//!
//! **The right process is killed.** The kernel stores the child's pidfd before the starting thread stands still. The
//! number of that descriptor is valid until that thread closes it, which it cannot do before the end of the start; and
//! the end of a start happens under the same lock as a check with its kill. So the watchdog can never use another
//! descriptor with the same number. A child whose exec has succeeded just before the kill is killed nevertheless, and
//! that start has failed as well.
//!
//! **Limits**: a child that sleeps in the kernel and does not react even to KILL (a request that a file system has
//! taken and does not answer) cannot be ended. The log says so, and everything stands still until the kernel returns.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::sys;
use crate::amount;

/// The time between two checks of a start.
const TICK: Duration = Duration::from_millis(500);
/// The number of ticks without a runnable child after which it is killed, ...
const MAX_HELD_TICKS: u32 = 2;
/// ... and the number of ticks in all.
const MAX_TICKS: u32 = 6;
/// The number of ticks after which the log says that the kill has had no effect.
const REPORT_TICKS: u32 = 10;

/// The duration of a start after which a caller with more starts to make should first handle other events.
pub const SLOW: Duration = Duration::from_millis(100);

/// A handle on a watchdog; all clones share one. Its thread is started with the first start at the latest, and ends
/// with the last handle.
#[derive(Debug, Clone, Default)]
pub struct Watchdog(Arc<Owner>);

#[derive(Debug, Default)]
struct Owner {
    /// Locked during a whole start: a start on another thread waits for its turn.
    turn: Mutex<Option<Arc<Shared>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let turn = self.turn.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = turn.take() {
            *lock(&shared.stage) = Stage::Over;
            // An error: the timer does not exist. Nothing waits for the thread, which has nothing left to do.
            let _ = shared.arm(Duration::from_nanos(1));
        }
    }
}

/// The data that the starting thread and the watchdog's thread share.
#[derive(Debug)]
struct Shared {
    timer: TimerFd,
    stage: Mutex<Stage>,
    /// The pidfd of the present child, stored by the kernel; -1 if there is none yet.
    child: AtomicI32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No start is under way.
    Idle,
    /// A start is under way.
    Watching {
        /// The number of checks of this start.
        ticks: u32,
        /// The number of checks that found a child which waited for something other than a processor.
        held: u32,
    },
    /// A start is under way whose child was sent KILL.
    Killed { ticks: u32 },
    /// There will be no more starts.
    Over,
}

/// The result of a start that was watched.
#[derive(Debug)]
pub(super) struct Watched<R> {
    pub(super) outcome: R,
    /// True if its child was sent KILL.
    pub(super) killed: bool,
}

impl Watchdog {
    /// Starts the thread now, instead of with the first start.
    ///
    /// # Errors
    /// EAGAIN, EMFILE, ENOMEM.
    pub fn start(&self) -> io::Result<()> {
        Self::started(&mut lock(&self.0.turn)).map(drop)
    }

    fn started(turn: &mut Option<Arc<Shared>>) -> io::Result<&Shared> {
        Ok(match turn {
            Some(shared) => shared,
            none => none.insert(Shared::start()?),
        })
    }

    /// Calls `start` under the watchdog. `start` must have a child's pidfd stored in its argument before it stands
    /// still, and return once that child has exec'ed or ended.
    ///
    /// # Errors
    /// EAGAIN, EMFILE, ENOMEM: there can be no watchdog, and nothing was started.
    pub(super) fn over<R>(&self, start: impl FnOnce(&AtomicI32) -> R) -> Result<Watched<R>, Errno> {
        let mut turn = lock(&self.0.turn);
        let shared = Self::started(&mut turn).map_err(|error| errno_of(&error))?;
        shared.child.store(-1, Ordering::Relaxed);
        *lock(&shared.stage) = Stage::Watching { ticks: 0, held: 0 };
        shared.arm(TICK)?;
        let outcome = start(&shared.child);
        let stage = std::mem::replace(&mut *lock(&shared.stage), Stage::Idle);
        // This fails for no timer that exists. If it did, the thread would check in vain.
        let _ = shared.timer.unset();
        let killed = matches!(stage, Stage::Killed { .. });
        Ok(Watched { outcome, killed })
    }
}

impl Shared {
    fn start() -> io::Result<Arc<Self>> {
        let shared = Arc::new(Self {
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?,
            stage: Mutex::new(Stage::Idle),
            child: AtomicI32::new(-1),
        });
        let its = Arc::clone(&shared);
        let thread = thread::Builder::new().name("watchdog".to_owned());
        thread.spawn(move || its.watch())?;
        Ok(shared)
    }

    fn arm(&self, interval: Duration) -> nix::Result<()> {
        let expiration = Expiration::Interval(TimeSpec::from_duration(interval));
        self.timer.set(expiration, TimerSetTimeFlags::empty())
    }

    fn watch(&self) {
        // Signals are handled by the loop alone. This fails only for an unknown operation.
        let _ = SigSet::all().thread_block();
        loop {
            match self.timer.wait() {
                Ok(()) | Err(Errno::EINTR) => {}
                // A timer that exists returns no other error. Without one there is nothing to do.
                Err(_) => return,
            }
            if !self.look() {
                return;
            }
        }
    }

    /// Checks a start at a tick. Returns false if there will be no more starts.
    fn look(&self) -> bool {
        let mut stage = lock(&self.stage);
        *stage = match *stage {
            Stage::Over => return false,
            Stage::Idle => Stage::Idle,
            Stage::Watching { ticks, held } => {
                let (ticks, held) = (ticks + 1, held + u32::from(!self.can_run()));
                match held >= MAX_HELD_TICKS || ticks >= MAX_TICKS {
                    true => self.kill(ticks, held),
                    false => Stage::Watching { ticks, held },
                }
            }
            Stage::Killed { ticks } => {
                if ticks + 1 == REPORT_TICKS {
                    self.complain();
                }
                Stage::Killed { ticks: ticks + 1 }
            }
        };
        true
    }

    /// Must be called under the lock of the stage, so that the descriptor cannot be closed meanwhile.
    fn kill(&self, ticks: u32, held: u32) -> Stage {
        match self.child() {
            // ESRCH: the child has ended, and so will the start.
            Some(child) if sys::signal(child, Signal::SIGKILL).is_ok() => Stage::Killed { ticks },
            _ => Stage::Watching { ticks, held },
        }
    }

    /// Returns true if the child runs, or would if it had a processor. Returns false if that cannot be known.
    fn can_run(&self) -> bool {
        let stat = self.pid().and_then(|pid| fs::read(format!("/proc/{pid}/stat")).ok());
        let stat = stat.map(|stat| String::from_utf8_lossy(&stat).into_owned());
        stat.is_some_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R')))
    }

    /// Must be called under the lock of the stage, during a start.
    fn child(&self) -> Option<BorrowedFd<'_>> {
        sys::borrow(self.child.load(Ordering::Acquire))
    }

    /// Returns the child's process id, as /proc has it.
    fn pid(&self) -> Option<String> {
        let number = self.child()?.as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        Some(pid.trim().to_owned())
    }

    fn complain(&self) {
        log::error!(
            "the start of a program has kept everything waiting for {}: process {} sleeps in the kernel and does not heed \
             KILL; a file system that it needs does not answer, mend or unmount that",
            amount::span(TICK * REPORT_TICKS),
            self.pid().as_deref().unwrap_or("(unknown)")
        );
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks panics half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn errno_of(error: &io::Error) -> Errno {
    super::program::errno_of(error)
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;
    use std::sync::mpsc;

    use super::super::testing::{self, shell};
    use super::*;

    #[test]
    fn a_start_that_ends_leaves_its_child_alone() {
        let watchdog = Watchdog::default();
        for _ in 0..3 {
            let watched = watchdog.over(|_| 7).unwrap();
            assert_eq!((watched.outcome, watched.killed), (7, false));
        }
    }

    #[test]
    fn a_child_that_keeps_its_start_is_killed_and_another_one_is_not() {
        let watchdog = Watchdog::default();
        let (mut stuck, mut other) = (shell("read end"), shell("read end"));
        let pidfd = nix::unistd::dup(stuck.pidfd()).unwrap().into_raw_fd();
        let watched = watchdog.over(|place| {
            place.store(pidfd, Ordering::Release);
            testing::wait_readable(stuck.pidfd());
        });
        assert!(watched.unwrap().killed);
        assert_eq!(testing::wait(&mut stuck).to_string(), "signal 9 (SIGKILL)");
        assert_eq!(other.reap().unwrap(), None);
        nix::unistd::close(pidfd).unwrap();
    }

    #[test]
    fn a_start_without_a_child_yet_goes_on() {
        let watchdog = Watchdog::default();
        let shared = {
            let _ = watchdog.over(|_| ()).unwrap();
            Arc::clone(lock(&watchdog.0.turn).as_ref().unwrap())
        };
        let watched = watchdog.over(|_| {
            while !matches!(*lock(&shared.stage), Stage::Watching { held, .. } if held > MAX_HELD_TICKS) {
                thread::yield_now();
            }
        });
        assert!(!watched.unwrap().killed);
    }

    #[test]
    fn a_child_that_only_waits_for_a_processor_has_more_time() {
        let watchdog = Watchdog::default();
        watchdog.start().unwrap();
        let shared = Arc::clone(lock(&watchdog.0.turn).as_ref().unwrap());
        let mut busy = shell("while :; do :; done");
        let pidfd = nix::unistd::dup(busy.pidfd()).unwrap().into_raw_fd();
        let mut seen = Vec::new();
        let watched = watchdog.over(|place| {
            place.store(pidfd, Ordering::Release);
            loop {
                let stage = *lock(&shared.stage);
                if seen.last() != Some(&stage) {
                    seen.push(stage);
                }
                if let Stage::Killed { .. } = stage {
                    return testing::wait_readable(busy.pidfd());
                }
                thread::yield_now();
            }
        });
        assert!(watched.unwrap().killed);
        assert!(
            seen.contains(&Stage::Watching {
                ticks: MAX_HELD_TICKS,
                held: 0
            }),
            "{seen:?}"
        );
        assert_eq!(seen.last(), Some(&Stage::Killed { ticks: MAX_TICKS }), "{seen:?}");
        assert_eq!(testing::wait(&mut busy).to_string(), "signal 9 (SIGKILL)");
        nix::unistd::close(pidfd).unwrap();
    }

    #[test]
    fn its_thread_ends_with_the_last_handle() {
        let watchdog = Watchdog::default();
        let _ = watchdog.over(|_| ()).unwrap();
        let shared = Arc::downgrade(lock(&watchdog.0.turn).as_ref().unwrap());
        let other = watchdog.clone();
        drop(watchdog);
        assert!(shared.upgrade().is_some());
        drop(other);
        while shared.upgrade().is_some() {
            thread::yield_now();
        }
    }

    #[test]
    fn starts_of_two_threads_take_turns() {
        let watchdog = Watchdog::default();
        let (began, wait) = mpsc::channel();
        let (go, wait_to_go) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn({
                let watchdog = &watchdog;
                move || {
                    watchdog
                        .over(|_| (began.send(()).unwrap(), wait_to_go.recv().unwrap()))
                        .unwrap()
                }
            });
            wait.recv().unwrap();
            assert!(watchdog.0.turn.try_lock().is_err());
            go.send(()).unwrap();
        });
        assert!(!watchdog.over(|_| ()).unwrap().killed);
    }
}
