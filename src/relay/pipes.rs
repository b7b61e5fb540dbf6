//! Pipes through which bytes go from one socket to another without entering this program, and their budget.
//!
//! **Why a budget.** The kernel gives the pipes of an ordinary user 64 MiB in all (`pipe-user-pages-soft`, pipe(7)).
//! Beyond that each new pipe of the user holds 8 KiB, the standard streams of every worker included. So this process
//! has at most 32 pipes of 1 MiB, and pipes of the default size up to an eighth of the limit: 40 MiB in all. With a
//! lower limit it has fewer. If there is no pipe, the caller copies.
//!
//! **The life of a pipe:** it is [borrowed](Pipes::borrow) while it holds bytes. An empty one is
//! [given back](Pipes::give_back), waits in a short list for the next borrower, and is closed after some idle seconds.
//! One that is dropped with bytes in it is closed at once, for those bytes must never reach another connection.
//!
//! **Self-check.** Another process of the same user may have taken the memory, a predecessor during an upgrade above
//! all. So every new pipe is asked for its size. If it is smaller than a default pipe, or if it cannot be opened or
//! enlarged, it is closed, with all that wait in the lists, and no pipe is lent for [`PAUSE`].
//!
//! Invariant: each pipe of the process is counted in its [`Budget`] from before it is opened until after it is closed.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{SysconfVar, pipe2, sysconf};

/// The capacity of a large pipe in bytes. `pipe-max-size` may lower it.
const LARGE: usize = 1 << 20;
/// The number of large pipes in a process.
const MOST_LARGE: usize = 32;
/// The number of pages in a pipe of the default size.
const PLAIN_PAGES: usize = 16;
/// The number of default pipes where the kernel sets no limit.
const MOST_PLAIN: usize = 128;
/// The number of empty pipes of each size that one owner keeps.
const MOST_FREE: usize = 32;
/// The time after which an empty pipe that was not borrowed again is closed.
const IDLE: Duration = Duration::from_secs(10);
/// The time for which no pipe is lent after the kernel has refused one.
pub const PAUSE: Duration = Duration::from_secs(10);

/// The limits of the kernel for the pipes of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The size of a page in bytes.
    pub page: usize,
    /// The number of pages that all pipes of the user may have before new ones become small; 0 if there is no limit.
    pub user_pages: usize,
    /// The greatest capacity of one pipe in bytes.
    pub pipe_size: usize,
}

impl Limits {
    /// Reads the limits from `/proc/sys/fs`. Where that cannot be read, the limits are the kernel's defaults.
    #[must_use]
    pub fn of_this_system() -> Self {
        let number = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/fs/{name}")).ok()?;
            text.trim().parse::<usize>().ok()
        };
        // Beyond the hard limit there are no pipes at all.
        let soft = number("pipe-user-pages-soft").unwrap_or(16_384);
        let hard = number("pipe-user-pages-hard").unwrap_or(0);
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        Self {
            page: page.and_then(|page| usize::try_from(page).ok()).unwrap_or(4096),
            user_pages: [soft, hard].into_iter().filter(|limit| *limit > 0).min().unwrap_or(0),
            pipe_size: number("pipe-max-size").unwrap_or(LARGE),
        }
    }
}

/// The number of pipes that this process may have, and has. All its [`Pipes`] share it.
#[derive(Debug)]
pub struct Budget {
    page: usize,
    /// The capacity of a large pipe in bytes.
    large_size: usize,
    most: [usize; 2],
    open: [AtomicUsize; 2],
}

/// The two sizes of pipes, as indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Large,
    Plain,
}

impl Budget {
    /// Returns the budget of a process under these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let large_size = LARGE.min(limits.pipe_size);
        let large_pages = large_size / limits.page.max(1);
        let (large, plain) = match limits.user_pages {
            0 => (MOST_LARGE, MOST_PLAIN),
            pages => (
                MOST_LARGE.min(pages / 2 / large_pages.max(1)),
                MOST_PLAIN.min(pages / 8 / PLAIN_PAGES),
            ),
        };
        Self {
            page: limits.page,
            large_size,
            most: [if large_pages > PLAIN_PAGES { large } else { 0 }, plain],
            open: [AtomicUsize::new(0), AtomicUsize::new(0)],
        }
    }

    /// Returns the number of pipes that are open, and of the large ones among them.
    #[must_use]
    pub fn open(&self) -> (usize, usize) {
        let [large, plain] = self.open.each_ref().map(|open| open.load(Ordering::Relaxed));
        (large + plain, large)
    }

    /// Counts one more pipe, unless the budget has none left.
    fn take(self: &Arc<Self>, size: Size) -> Option<Place> {
        let (open, most) = match size {
            Size::Large => (&self.open[0], self.most[0]),
            Size::Plain => (&self.open[1], self.most[1]),
        };
        let more = |open: usize| (open < most).then_some(open + 1);
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place {
            budget: Arc::clone(self),
            size,
        })
    }
}

/// A place in the budget, which is free again when this is dropped.
#[derive(Debug)]
struct Place {
    budget: Arc<Budget>,
    size: Size,
}

impl Drop for Place {
    fn drop(&mut self) {
        let open = match self.size {
            Size::Large => &self.budget.open[0],
            Size::Plain => &self.budget.open[1],
        };
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A pipe. Both its ends are non-blocking.
#[derive(Debug)]
pub struct Pipe {
    /// The end from which bytes are taken.
    pub out: OwnedFd,
    /// The end into which bytes are put.
    pub into: OwnedFd,
    /// Behind the descriptors, so that it is freed after them.
    place: Place,
}

/// The reason why the kernel gave no pipe of full size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// The user has too many pages in pipes (`pipe-user-pages-soft`).
    Pages,
    /// A system call has failed: EMFILE, ENFILE, ENOMEM.
    Failed(Errno),
}

impl Pipe {
    /// Opens a pipe for this place and checks its size.
    fn open(place: Place) -> Result<Self, Shortage> {
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(Shortage::Failed)?;
        let size = fcntl(&out, FcntlArg::F_GETPIPE_SZ).map_err(Shortage::Failed)?;
        if usize::try_from(size).unwrap_or(0) < PLAIN_PAGES * place.budget.page {
            return Err(Shortage::Pages);
        }
        if place.size == Size::Large {
            let wanted = i32::try_from(place.budget.large_size).unwrap_or(i32::MAX);
            fcntl(&out, FcntlArg::F_SETPIPE_SZ(wanted)).map_err(|errno| match errno {
                Errno::EPERM => Shortage::Pages,
                other => Shortage::Failed(other),
            })?;
        }
        Ok(Self { out, into, place })
    }
}

/// The pipes of one owner: it lends them, and keeps the empty ones for a while.
#[derive(Debug)]
pub struct Pipes {
    budget: Arc<Budget>,
    /// Empty pipes, each with the time at which it was given back, the earliest in front.
    large: Vec<(Instant, Pipe)>,
    plain: Vec<(Instant, Pipe)>,
    /// Until then no pipe is lent.
    short_until: Option<Instant>,
    /// The number of times that the kernel had no pipe of full size.
    shortages: u64,
    shortage: Option<Shortage>,
}

impl Pipes {
    /// Returns an owner of pipes within this budget, which has none at first.
    #[must_use]
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            large: Vec::new(),
            plain: Vec::new(),
            short_until: None,
            shortages: 0,
            shortage: None,
        }
    }

    /// Lends an empty pipe, a large one if possible. Returns `None` if the budget has none left, or if the kernel has
    /// refused one within the last [`PAUSE`].
    pub fn borrow(&mut self, now: Instant) -> Option<Pipe> {
        if self.short_until.is_some_and(|until| now < until) {
            return None;
        }
        self.short_until = None;
        if let Some((_, pipe)) = self.large.pop() {
            return Some(pipe);
        }
        if let Some(place) = self.budget.take(Size::Large) {
            return self.open(place, now);
        }
        if let Some((_, pipe)) = self.plain.pop() {
            return Some(pipe);
        }
        let place = self.budget.take(Size::Plain)?;
        self.open(place, now)
    }

    fn open(&mut self, place: Place, now: Instant) -> Option<Pipe> {
        match Pipe::open(place) {
            Ok(pipe) => Some(pipe),
            Err(shortage) => {
                self.large.clear();
                self.plain.clear();
                self.short_until = Some(now + PAUSE);
                self.shortages += 1;
                self.shortage = Some(shortage);
                None
            }
        }
    }

    /// Takes a pipe back. It must be empty. It is closed if enough others wait already, or if pipes are short.
    pub fn give_back(&mut self, pipe: Pipe, now: Instant) {
        let free = match pipe.place.size {
            Size::Large => &mut self.large,
            Size::Plain => &mut self.plain,
        };
        if self.short_until.is_none() && free.len() < MOST_FREE {
            free.push((now, pipe));
        }
    }

    /// Closes the pipes that have been idle for long enough. Returns the time at which the next will have been.
    pub fn close_idle(&mut self, now: Instant) -> Option<Instant> {
        for free in [&mut self.large, &mut self.plain] {
            free.retain(|(since, _)| now < *since + IDLE);
        }
        let earliest = [&self.large, &self.plain].into_iter().filter_map(|free| free.first());
        earliest.map(|(since, _)| *since + IDLE).min()
    }

    /// Returns the number of times that the kernel had no pipe of full size, so that bytes were copied for a while.
    #[must_use]
    pub fn shortages(&self) -> u64 {
        self.shortages
    }

    /// Takes the reason of the last shortage, for the log: once for each.
    pub fn take_shortage(&mut self) -> Option<Shortage> {
        self.shortage.take()
    }

    /// Returns the budget.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(user_pages: usize) -> Limits {
        Limits {
            page: 4096,
            user_pages,
            pipe_size: 1 << 20,
        }
    }

    #[test]
    fn a_budget_leaves_most_of_the_users_pages_to_others() {
        for (pages, most) in [
            (0, [32, 128]),
            (16_384, [32, 128]),
            (4096, [8, 32]),
            (300, [0, 2]),
            (100, [0, 0]),
        ] {
            let budget = Budget::new(limits(pages));
            assert_eq!(budget.most, most, "{pages}");
            let used = most[0] * 256 + most[1] * PLAIN_PAGES;
            assert!(pages == 0 || used <= pages * 5 / 8, "{pages}");
        }
        // An administrator has lowered pipe-max-size, or pages are as large as that.
        for (page, pipe_size) in [(4096, 64 << 10), (64 << 10, 1 << 20)] {
            let limits = Limits {
                page,
                user_pages: 16_384,
                pipe_size,
            };
            assert_eq!(Budget::new(limits).most, [0, 128], "{page}");
        }
    }

    #[test]
    fn pipes_of_all_owners_are_counted_and_empty_ones_are_lent_again() {
        let (budget, now) = (Arc::new(Budget::new(limits(1024))), Instant::now());
        let (mut first, mut second) = (Pipes::new(Arc::clone(&budget)), Pipes::new(Arc::clone(&budget)));
        let mut lent: Vec<Pipe> = (0..5).map(|_| first.borrow(now).unwrap()).collect();
        lent.extend((0..5).map(|_| second.borrow(now).unwrap()));
        assert_eq!((budget.open(), budget.most), ((10, 2), [2, 8]));
        assert!(first.borrow(now).is_none() && second.borrow(now).is_none());
        assert_eq!(
            (first.shortages(), second.shortages()),
            (0, 0),
            "the budget is no shortage"
        );
        let number = std::os::fd::AsRawFd::as_raw_fd(&lent[0].out);
        first.give_back(lent.remove(0), now);
        assert!(second.borrow(now).is_none());
        let again = first.borrow(now).unwrap();
        assert_eq!(std::os::fd::AsRawFd::as_raw_fd(&again.out), number);
        drop((lent, again));
        assert_eq!(budget.open(), (0, 0));
    }

    #[test]
    fn empty_pipes_are_closed_when_they_were_idle_for_a_while() {
        let (budget, start) = (Arc::new(Budget::new(limits(0))), Instant::now());
        let mut pipes = Pipes::new(Arc::clone(&budget));
        let lent: Vec<Pipe> = (0..100).map(|_| pipes.borrow(start).unwrap()).collect();
        for pipe in lent {
            pipes.give_back(pipe, start);
        }
        assert_eq!(budget.open(), (64, 32), "more of them are not kept");
        let later = start + IDLE / 2;
        let pipe = pipes.borrow(later).unwrap();
        pipes.give_back(pipe, later);
        assert_eq!(pipes.close_idle(later), Some(start + IDLE));
        assert_eq!(pipes.close_idle(start + IDLE), Some(later + IDLE));
        assert_eq!(budget.open(), (1, 1), "one was borrowed in the meantime");
        assert_eq!(pipes.close_idle(later + IDLE), None);
        assert_eq!(budget.open(), (0, 0));
    }
}
