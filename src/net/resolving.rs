//! Look-ups of host names on helper threads, because getaddrinfo(3) blocks for as long as name servers are silent.
//!
//! The life of a look-up: a service [asks](Resolver::look_up) for a host. It waits until one of at most [`MOST_THREADS`]
//! threads is free, is made there, and its outcome comes by mail: the service is called and [takes](Resolver::take) it.
//!
//! The invariants:
//! - All decisions are made on the loop. A thread has one look-up at a time and shares nothing.
//! - Each host is looked up once at a time; asking again meanwhile changes nothing.
//! - At most [`MOST_WAITING`] look-ups wait. The threads start with the first look-ups, and no thread is waited for: one
//!   that is in a look-up when the program ends, ends with it.
//!
//! The age of an outcome, and what follows from it, do not belong here.

use std::collections::{HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::thread;

use nix::sys::signal::SigSet;

use crate::reactor::Context;
use crate::reactor::helper::{Mailbox, Sender};

/// The largest number of threads of one resolver.
const MOST_THREADS: usize = 4;
/// The largest number of hosts that wait for a thread.
const MOST_WAITING: usize = 1024;

/// Returns the addresses of a host, at least one. Blocks until the name servers have answered or were given up.
///
/// # Errors
/// getaddrinfo(3). NotFound if the host has no address.
pub fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    if found.is_empty() {
        return Err(ErrorKind::NotFound.into());
    }
    Ok(found)
}

/// The outcome of a look-up.
#[derive(Debug)]
pub struct Found {
    /// The host.
    pub host: Arc<str>,
    /// Its addresses, at least one, with port 0.
    pub addresses: io::Result<Vec<SocketAddr>>,
}

/// An outcome, and the place of the thread that is free again.
type Post = (usize, Found);

/// The look-ups of one service. See the module.
#[derive(Debug)]
pub struct Resolver {
    resolve: fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
    /// Both ends of the way from the threads; `None` before the first look-up.
    mail: Option<(Sender<Post>, Mailbox<Post>)>,
    threads: Vec<mpsc::Sender<Arc<str>>>,
    /// The places of the threads without a look-up.
    idle: Vec<usize>,
    waiting: VecDeque<Arc<str>>,
    /// The hosts that wait or are looked up.
    under_way: HashSet<Arc<str>>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::by(resolve)
    }
}

impl Resolver {
    /// A resolver that asks this function.
    fn by(resolve: fn(&str, u16) -> io::Result<Vec<SocketAddr>>) -> Self {
        Resolver {
            resolve,
            mail: None,
            threads: Vec::new(),
            idle: Vec::new(),
            waiting: VecDeque::new(),
            under_way: HashSet::new(),
        }
    }

    /// Looks up a host. The outcome comes by mail, once for each host however often it was asked for meanwhile.
    ///
    /// # Errors
    /// WouldBlock: too many hosts wait. clone(2): no thread can be started. No outcome comes then.
    pub fn look_up(&mut self, cx: &Context<'_>, host: &Arc<str>) -> io::Result<()> {
        if self.under_way.contains(host) {
            return Ok(());
        }
        if self.waiting.len() >= MOST_WAITING {
            return Err(ErrorKind::WouldBlock.into());
        }
        if self.idle.is_empty() && self.threads.len() < MOST_THREADS {
            let started = self.start_thread(cx);
            // The threads that there are do the work.
            if self.threads.is_empty() {
                started?;
            }
        }
        self.under_way.insert(Arc::clone(host));
        self.waiting.push_back(Arc::clone(host));
        self.hand_out();
        Ok(())
    }

    /// Takes the next outcome, if there is one. Must be called until there is none when mail has come.
    pub fn take(&mut self) -> Option<Found> {
        let (_, mailbox) = self.mail.as_ref()?;
        let (place, found) = mailbox.take()?;
        self.under_way.remove(&found.host);
        self.idle.push(place);
        self.hand_out();
        Some(found)
    }

    fn hand_out(&mut self) {
        while let Some(place) = self.idle.last().copied() {
            let Some(host) = self.waiting.pop_front() else { return };
            self.idle.pop();
            // A thread lives as long as its channel.
            if let Some(thread) = self.threads.get(place) {
                let _ = thread.send(host);
            }
        }
    }

    fn start_thread(&mut self, cx: &Context<'_>) -> io::Result<()> {
        let (post, _) = self.mail.get_or_insert_with(|| cx.mailbox(MOST_THREADS));
        let (give, hosts) = mpsc::channel::<Arc<str>>();
        let (place, post, resolve) = (self.threads.len(), post.clone(), self.resolve);
        let work = move || {
            // Signals are handled by the loop's thread.
            let _ = SigSet::all().thread_block();
            for host in hosts {
                let addresses = resolve(&host, 0);
                if post.send((place, Found { host, addresses })).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("resolver".to_owned()).spawn(work)?;
        self.threads.push(give);
        self.idle.push(place);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::reactor::{Reactor, Readiness, Service, ServiceId, Source};

    /// A service that keeps the outcomes of its look-ups.
    struct Asker {
        resolver: Resolver,
        found: Vec<(String, bool)>,
    }

    impl Service for Asker {
        fn handle_ready(&mut self, _: &mut Context<'_>, _: Source, _: Readiness) {}
        fn handle_timeout(&mut self, _: &mut Context<'_>, _: Source) {}
        fn resume(&mut self, _: &mut Context<'_>, _: Source) {}
        fn end_turn(&mut self, _: &mut Context<'_>) {}
        fn receive_mail(&mut self, _: &mut Context<'_>) {
            while let Some(found) = self.resolver.take() {
                self.found.push((found.host.to_string(), found.addresses.is_ok()));
            }
        }
    }

    struct Scene {
        reactor: Reactor<Asker>,
        asker: ServiceId,
    }

    impl Scene {
        fn new(resolve: fn(&str, u16) -> io::Result<Vec<SocketAddr>>) -> Self {
            let mut reactor = Reactor::new(&[]).unwrap();
            let asker = Asker {
                resolver: Resolver::by(resolve),
                found: Vec::new(),
            };
            let asker = reactor.add(Box::new(asker)).unwrap();
            Self { reactor, asker }
        }

        fn look_up(&mut self, host: &str) -> io::Result<()> {
            let host = host.into();
            let asked = |asker: &mut Asker, cx: &mut Context<'_>| asker.resolver.look_up(cx, &host);
            self.reactor.with(self.asker, asked).unwrap()
        }

        /// The outcomes, as soon as there are this many.
        fn found(&mut self, count: usize) -> Vec<(String, bool)> {
            let watchdog = Instant::now() + Duration::from_secs(30);
            loop {
                let found = self.reactor.with(self.asker, |asker, _| asker.found.clone()).unwrap();
                if found.len() >= count {
                    return found;
                }
                assert!(Instant::now() < watchdog, "{found:?}");
                self.reactor.turn(Some(watchdog)).unwrap();
            }
        }
    }

    #[test]
    fn a_host_is_found_and_one_that_does_not_exist_is_an_error() {
        let mut scene = Scene::new(resolve);
        scene.look_up("127.0.0.7").unwrap();
        assert_eq!(scene.found(1), [("127.0.0.7".to_owned(), true)]);
        // No name server is asked for a name with an empty label.
        scene.look_up("no..name").unwrap();
        assert_eq!(scene.found(2)[1], ("no..name".to_owned(), false));
    }

    /// Look-ups hang while this is locked.
    static GATE: Mutex<u32> = Mutex::new(0);

    fn hanging(_: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        *GATE.lock().unwrap() += 1;
        Ok(vec![([127, 0, 0, 1], 0).into()])
    }

    #[test]
    fn look_ups_that_hang_take_four_threads_and_a_bounded_queue_and_each_host_is_asked_once() {
        let mut scene = Scene::new(hanging);
        let gate = GATE.lock().unwrap();
        for _ in 0..3 {
            for number in 0..MOST_THREADS + MOST_WAITING {
                scene.look_up(&number.to_string()).unwrap();
            }
        }
        let error = scene.look_up("one more").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let threads = scene.reactor.with(scene.asker, |asker, _| asker.resolver.threads.len());
        assert_eq!(threads, Some(MOST_THREADS));
        drop(gate);
        let found = scene.found(MOST_THREADS + MOST_WAITING);
        let hosts: HashSet<&String> = found.iter().map(|(host, _)| host).collect();
        assert_eq!((hosts.len(), found.len()), (found.len(), MOST_THREADS + MOST_WAITING));
        assert_eq!(usize::try_from(*GATE.lock().unwrap()), Ok(found.len()));
        scene.look_up("one more").unwrap();
        assert!(scene.found(found.len() + 1).contains(&("one more".to_owned(), true)));
    }
}
