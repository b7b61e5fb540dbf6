//! Tasks that keep a processor busy for longer than a call of a service may take, and the threads that do them.
//!
//! The life of a task: a service [gives](super::Context::give_task) it with a number of its own choice. It waits until a
//! thread is free. Services take turns then, so that none waits for all the tasks of another, and the lowest number of a
//! service comes first. The task sends its result through a [`Sender`] that it owns. Until it has
//! begun it can be withdrawn.
//!
//! The invariants:
//!
//! - All decisions are made on the loop. A thread has one task at a time and says when it is free again; it shares
//!   nothing, so the loop never waits for a thread that has lost its processor.
//! - The threads are fewer than the processors and have a lower priority than the loop, which so finds a processor
//!   whenever it wakes up. They are shared by all services, and the first is started with the first task.
//! - At most [`MOST_WAITING`] tasks of a service wait: with one more, the one that would have been next makes room.
//! - No thread is waited for. One that is in a task when the program ends, ends with it.
//!
//! A task that panics ends the program, as whatever panics on the loop does: the release profile aborts.
//!
//! Work that may wait for something else than a processor has threads of its own ([`helper`](super::helper)).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::num::NonZero;
use std::ops::Bound;
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::SigSet;

use super::helper::{Mailbox, Sender};
use super::sys;
use super::token::ServiceId;

/// A task for a helper thread.
pub type Task = Box<dyn FnOnce() + Send>;

/// The largest number of tasks of a service that wait for a thread.
const MOST_WAITING: usize = 256;

/// The largest number of threads, however many processors there are: what clients can demand has a bound.
pub(super) const MOST_THREADS: usize = 4;

/// The tasks of all services, and the threads for them.
pub(super) struct Tasks {
    waiting: BTreeMap<ServiceId, BTreeMap<u64, Task>>,
    /// The service whose turn was last.
    last: ServiceId,
    /// The number of threads that there may be; `None` before the first. To find it out takes reading files.
    most_threads: Option<usize>,
    threads: Vec<mpsc::Sender<Task>>,
    /// The places of the threads without a task.
    idle: Vec<usize>,
    post: Sender<usize>,
    /// The places of threads that have finished their task.
    finished: Mailbox<usize>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("threads", &self.threads.len())
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

impl Tasks {
    /// No tasks and no threads. `post` and `finished` are the ends of a channel for [`MOST_THREADS`] values.
    pub(super) fn new((post, finished): (Sender<usize>, Mailbox<usize>)) -> Self {
        Self {
            waiting: BTreeMap::new(),
            last: ServiceId(0),
            most_threads: None,
            threads: Vec::new(),
            idle: Vec::new(),
            post,
            finished,
        }
    }

    /// Makes sure that there is a thread.
    ///
    /// # Errors
    /// There is none, and none can be started.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        if self.threads.is_empty() {
            self.start_thread()?;
        }
        Ok(())
    }

    /// Adds a task. Returns the number of the task of the same service that had to make room.
    pub(super) fn give(&mut self, service: ServiceId, number: u64, task: Task) -> Option<u64> {
        self.waiting.entry(service).or_default().insert(number, task);
        self.hand_out();
        let waiting = self.waiting.get_mut(&service)?;
        if waiting.len() <= MOST_WAITING {
            return None;
        }
        let (displaced, _) = waiting.pop_first()?;
        Some(displaced)
    }

    /// Removes a task that has not begun.
    pub(super) fn withdraw(&mut self, service: ServiceId, number: u64) {
        if let Some(waiting) = self.waiting.get_mut(&service) {
            waiting.remove(&number);
            if waiting.is_empty() {
                self.waiting.remove(&service);
            }
        }
    }

    /// Gives further tasks to the threads that have finished theirs.
    pub(super) fn go_on(&mut self) {
        while let Some(place) = self.finished.take() {
            self.idle.push(place);
        }
        self.hand_out();
    }

    fn hand_out(&mut self) {
        while !self.waiting.is_empty() {
            let most = *self.most_threads.get_or_insert_with(most_threads);
            // Where no further thread starts, the others do the work.
            if self.idle.is_empty() && (self.threads.len() >= most || self.start_thread().is_err()) {
                return;
            }
            let Some(task) = self.next() else { return };
            // The thread lives as long as its channel.
            if let Some(thread) = self.idle.pop().and_then(|place| self.threads.get(place)) {
                let _ = thread.send(task);
            }
        }
    }

    /// Takes the task whose turn it is.
    fn next(&mut self) -> Option<Task> {
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let service = *self.waiting.range(behind).chain(&self.waiting).next()?.0;
        self.last = service;
        let waiting = self.waiting.get_mut(&service)?;
        let (_, task) = waiting.pop_first()?;
        if waiting.is_empty() {
            self.waiting.remove(&service);
        }
        Some(task)
    }

    fn start_thread(&mut self) -> io::Result<()> {
        let (give, tasks) = mpsc::channel::<Task>();
        let (place, post) = (self.threads.len(), self.post.clone());
        let work = move || {
            // Signals are handled by the loop's thread.
            let _ = SigSet::all().thread_block();
            sys::lower_priority();
            for task in tasks {
                task();
                if post.send(place).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("helper".to_owned()).spawn(work)?;
        self.threads.push(give);
        self.idle.push(place);
        Ok(())
    }
}

/// The number of threads that there may be: one at least, and else one less than the processors that this process may
/// use.
fn most_threads() -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    processors.saturating_sub(1).clamp(1, MOST_THREADS)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use super::super::Reactor;
    use super::super::tests::Idle;
    use super::*;

    /// A loop with two services, all of whose threads are kept in a task until `gates` is dropped.
    struct Scene {
        reactor: Reactor<Idle>,
        services: [ServiceId; 2],
        gates: Option<mpsc::Sender<()>>,
        done: Arc<Mutex<Vec<(usize, u64)>>>,
    }

    impl Scene {
        fn new() -> Self {
            let mut reactor: Reactor<Idle> = Reactor::new(&[]).unwrap();
            let services = [(); 2].map(|()| reactor.add(Box::new(Idle)).unwrap());
            let (gates, closed) = mpsc::channel::<()>();
            let closed = Arc::new(Mutex::new(closed));
            for number in 0..most_threads() as u64 {
                let closed = Arc::clone(&closed);
                let task = move || {
                    let _ = closed.lock().unwrap().recv();
                };
                reactor.with(services[0], |_, cx| cx.give_task(number, Box::new(task)));
            }
            Self {
                reactor,
                services,
                gates: Some(gates),
                done: Arc::default(),
            }
        }

        fn give(&mut self, service: usize, number: u64) -> Option<u64> {
            let done = Arc::clone(&self.done);
            let task = Box::new(move || done.lock().unwrap().push((service, number)));
            self.reactor
                .with(self.services[service], |_, cx| cx.give_task(number, task))
                .unwrap()
        }

        fn withdraw(&mut self, service: usize, number: u64) {
            self.reactor
                .with(self.services[service], |_, cx| cx.withdraw_task(number));
        }

        /// Lets the threads go on until that many tasks are done.
        fn finish(&mut self, count: usize) -> Vec<(usize, u64)> {
            self.gates = None;
            let watchdog = Instant::now() + Duration::from_secs(30);
            while self.done.lock().unwrap().len() < count {
                assert!(Instant::now() < watchdog, "{:?}", self.done);
                self.reactor.turn(Some(watchdog)).unwrap();
            }
            self.done.lock().unwrap().clone()
        }
    }

    /// The order in which tasks end is that in which they have begun if there is one thread.
    fn in_order(mut done: Vec<(usize, u64)>) -> Vec<(usize, u64)> {
        if most_threads() > 1 {
            done.sort_unstable();
        }
        done
    }

    #[test]
    fn services_take_turns_and_each_has_its_tasks_done_in_their_order() {
        let mut scene = Scene::new();
        for number in [12, 10, 11, 13] {
            assert_eq!(scene.give(0, number), None);
        }
        assert_eq!(scene.give(1, 5), None);
        let expected = vec![(1, 5), (0, 10), (0, 11), (0, 12), (0, 13)];
        assert_eq!(in_order(scene.finish(5)), in_order(expected));
    }

    #[test]
    fn a_task_that_is_withdrawn_is_not_done() {
        let mut scene = Scene::new();
        for number in 10..13 {
            scene.give(0, number);
        }
        scene.give(1, 11);
        scene.withdraw(0, 11);
        scene.withdraw(0, 99);
        let expected = vec![(1, 11), (0, 10), (0, 12)];
        assert_eq!(in_order(scene.finish(3)), in_order(expected));
    }

    #[test]
    fn the_task_that_would_be_next_makes_room_when_too_many_of_its_service_wait() {
        let mut scene = Scene::new();
        let most = MOST_WAITING as u64;
        for number in 10..10 + most {
            assert_eq!(scene.give(0, number), None);
        }
        assert_eq!(scene.give(0, 10 + most), Some(10));
        assert_eq!(scene.give(1, 1), None, "the other service has a bound of its own");
        let done = scene.finish(MOST_WAITING + 1);
        assert!(done.contains(&(0, 10 + most)) && !done.contains(&(0, 10)));
    }

    #[test]
    fn there_are_fewer_threads_than_processors() {
        let mut scene = Scene::new();
        for number in 10..100 {
            scene.give(0, number);
        }
        scene.finish(90);
        let processors = thread::available_parallelism().unwrap().get();
        let threads = scene.reactor.shared.tasks.threads.len();
        assert!(threads == 1 || threads < processors, "{threads}");
    }
}
