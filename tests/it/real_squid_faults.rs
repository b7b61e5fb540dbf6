//! Debian's Squid under load while the pool behind `iotcpd ask --squid` is reconfigured, upgraded and killed, and while
//! the connections between the two are reset.
//!
//! Every URL that is fetched is blocked, and squidGuard sends each to a page that names it. So an answer that belongs
//! to another URL shows, and so does a URL for which no pool answered: its page loads.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::harness::{
    Address, BLOCKED_DOMAIN, Daemon, Installation, SquidGuard, WATCHDOG, free_port, reset_on_close, wait_orphan,
};
use crate::real_squid::{Squid, TlsFiles, Web, fetch, squidguard};
use crate::upgrade::{signal, upgrade};

/// The number of browsers, each of which waits for one page at a time.
const BROWSERS: usize = 24;
/// The number of times that each fault is repeated.
const ROUNDS: usize = 3;
/// The line of a pool that has done what HUP asked.
const REPLACED: &str = "every worker has been replaced";

// ---- the load --------------------------------------------------------------------------------------------------

/// Browsers that fetch one blocked URL after the other and check each answer.
struct Browsers {
    stop: Arc<AtomicBool>,
    /// The number of a browser that was answered rightly, or the fault that it saw.
    answers: Receiver<Result<usize, String>>,
    threads: Vec<JoinHandle<()>>,
}

impl Browsers {
    fn start(squid: &Squid, web: &Web) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, answers) = mpsc::channel();
        let threads = (0..BROWSERS).map(|browser| {
            let (stop, sender) = (Arc::clone(&stop), sender.clone());
            let (blocked, page) = (web.url(BLOCKED_DOMAIN, ""), web.url("127.0.0.1", "blocked?u="));
            let address = squid.address.clone();
            thread::spawn(move || {
                let urls = (0..).map(|number| format!("{blocked}{browser}-{number}"));
                for url in urls.take_while(|_| !stop.load(Ordering::SeqCst)) {
                    let response = fetch(&address, &url);
                    let is_right = response.location() == Some(format!("{page}{url}").as_str());
                    let told = if is_right {
                        Ok(browser)
                    } else {
                        Err(format!("{url}: {response:?}"))
                    };
                    // The test may have ended by a failure of its own.
                    sender.send(told).ok();
                }
            })
        });
        Self {
            threads: threads.collect(),
            stop,
            answers,
        }
    }

    /// Waits until every browser has got two more answers: all that were under way at the time of the call have come,
    /// and each browser has asked again.
    #[track_caller]
    fn wait_for_all(&self) {
        for told in self.answers.try_iter() {
            told.unwrap_or_else(|fault| panic!("{fault}"));
        }
        for _ in 0..2 {
            let mut missing: BTreeSet<usize> = (0..BROWSERS).collect();
            while !missing.is_empty() {
                let told = self.answers.recv_timeout(WATCHDOG);
                let told = told.unwrap_or_else(|_| panic!("the browsers {missing:?} were not answered"));
                missing.remove(&told.unwrap_or_else(|fault| panic!("{fault}")));
            }
        }
    }

    /// Stops, and fails if any answer was wrong.
    #[track_caller]
    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("every page came");
        }
        for told in self.answers {
            told.unwrap_or_else(|fault| panic!("{fault}"));
        }
    }
}

// ---- connections that can be reset -----------------------------------------------------------------------------

/// A forwarder of TCP connections to a pool, which resets them on command.
struct Forwarder {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
    signal: Arc<Mutex<ResetSignal>>,
    thread: Option<JoinHandle<()>>,
}

/// A stream whose end tells the connections that were begun since the last reset to reset themselves.
struct ResetSignal {
    /// Its drop is the signal.
    _sender: UnixStream,
    receiver: Arc<UnixStream>,
}

impl ResetSignal {
    fn new() -> Self {
        let (sender, receiver) = UnixStream::pair().expect("make a pair of sockets");
        Self {
            _sender: sender,
            receiver: Arc::new(receiver),
        }
    }
}

impl Forwarder {
    #[track_caller]
    fn to(pool: &Address) -> Self {
        let Address::Tcp(pool) = *pool else {
            panic!("a forwarder speaks TCP")
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a forwarder");
        let address = listener.local_addr().expect("a bound socket has an address");
        let ending = Arc::new(AtomicBool::new(false));
        let signal = Arc::new(Mutex::new(ResetSignal::new()));
        let (flag, shared) = (Arc::clone(&ending), Arc::clone(&signal));
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("accept for a pool");
                if flag.load(Ordering::SeqCst) {
                    return;
                }
                let server = TcpStream::connect(pool).expect("connect to the pool");
                let signal = Arc::clone(&shared.lock().unwrap_or_else(PoisonError::into_inner).receiver);
                thread::spawn(move || Forwarded { client, server, signal }.forward());
            }
        });
        Self {
            address,
            ending,
            signal,
            thread: Some(thread),
        }
    }

    /// Resets every connection, at both ends.
    fn reset_all(&self) {
        *self.signal.lock().unwrap_or_else(PoisonError::into_inner) = ResetSignal::new();
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees the flag.
        TcpStream::connect(self.address).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// One connection through a forwarder.
struct Forwarded {
    client: TcpStream,
    server: TcpStream,
    signal: Arc<UnixStream>,
}

impl Forwarded {
    /// Carries bytes until both sides have ended, or until one of them, or the forwarder, resets the connection.
    fn forward(self) {
        for stream in [&self.client, &self.server] {
            stream.set_nodelay(true).expect("send small pieces at once");
        }
        let (mut client_ended, mut server_ended) = (false, false);
        while !(client_ended && server_ended) {
            let interest = |ended: bool| if ended { PollFlags::empty() } else { PollFlags::POLLIN };
            let mut wanted = [
                PollFd::new(self.signal.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.client.as_fd(), interest(client_ended)),
                PollFd::new(self.server.as_fd(), interest(server_ended)),
            ];
            poll(&mut wanted, PollTimeout::NONE).expect("poll a forwarded connection");
            let [is_reset, client, server] = wanted.map(|fd| fd.any().unwrap_or_default());
            // After the end of a stream the only event is a reset.
            if is_reset || (client && client_ended) || (server && server_ended) {
                return self.reset();
            }
            let mut carried = || -> std::io::Result<()> {
                client_ended |= client && carry(&self.client, &self.server)?;
                server_ended |= server && carry(&self.server, &self.client)?;
                Ok(())
            };
            if is_broken(carried()) {
                return self.reset();
            }
        }
    }

    fn reset(self) {
        for stream in [self.client, self.server] {
            reset_on_close(&stream);
        }
    }
}

/// Carries what has come. Returns true at the end of it, which is passed on.
fn carry(mut from: &TcpStream, mut to: &TcpStream) -> std::io::Result<bool> {
    let mut bytes = [0; 64 * 1024];
    let length = from.read(&mut bytes)?;
    to.write_all(&bytes[..length])?;
    if length == 0 {
        to.shutdown(std::net::Shutdown::Write)?;
    }
    Ok(length == 0)
}

fn is_broken(carried: std::io::Result<()>) -> bool {
    let expected = [
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
        ErrorKind::NotConnected,
    ];
    match carried {
        Ok(()) => false,
        Err(error) if expected.contains(&error.kind()) => true,
        Err(error) => panic!("a forwarded connection: {error}"),
    }
}

// ---- the tests -------------------------------------------------------------------------------------------------

/// The flags of a pool of squidGuards that listens on this port (0: any) and never refuses for want of time.
fn pool(guard: &SquidGuard, port: &str) -> crate::harness::Builder {
    let command = guard.command();
    Daemon::with(["-n", "3", "-d", command.as_str(), "-p", port]).args(&["--pipeline", "16", "--queue-timeout", "600s"])
}

/// Squid that asks these two addresses, the other where one fails.
#[track_caller]
fn squid(addresses: [&dyn std::fmt::Display; 2]) -> Squid {
    let [first, second] = addresses;
    Squid::start(500, &format!("--channel-ids yes --timeout 600s {first} {second}"))
}

/// Installs the version of this round and upgrades to it. Returns the process that serves then.
#[track_caller]
fn replace(daemon: &Daemon, installation: &Installation, serving: i32, round: usize) -> i32 {
    installation.install(&format!("v{}", round + 1));
    let successor = upgrade(daemon, serving, round);
    // The old process ends, whatever connections its clients would keep.
    if serving == daemon.pid() {
        assert!(daemon.wait_exit().success());
    } else {
        wait_orphan(serving);
    }
    successor
}

#[test]
fn no_url_passes_and_none_gets_another_ones_answer_through_hup_upgrade_and_reset_connections() {
    let web = Web::start();
    let (guard, installation) = (squidguard(&web), Installation::new());
    let daemon = pool(&guard, "0").installed_at(&installation.program()).start();
    // The lines of a connection that was reset are asked over the other way to the same pool.
    let ways = [Forwarder::to(&daemon.addr()), Forwarder::to(&daemon.addr())];
    let squid = squid([&ways[0].address, &ways[1].address]);
    let browsers = Browsers::start(&squid, &web);
    let mut serving = daemon.pid();
    for round in 1..=ROUNDS {
        browsers.wait_for_all();
        for way in &ways {
            way.reset_all();
            browsers.wait_for_all();
        }
        signal(serving, Signal::SIGHUP);
        ways[round % 2].reset_all();
        daemon.stderr_wait_nth(REPLACED, round);
        browsers.wait_for_all();

        serving = replace(&daemon, &installation, serving, round);
    }
    browsers.wait_for_all();
    // All of it at once.
    signal(serving, Signal::SIGHUP);
    signal(serving, Signal::SIGURG);
    ways[0].reset_all();
    browsers.wait_for_all();
    browsers.end();
}

#[test]
fn no_url_passes_over_tls_with_a_certificate_through_hup_and_upgrade() {
    let (web, files) = (Web::start(), TlsFiles::new());
    let (guard, installation) = (squidguard(&web), Installation::new());
    let command = guard.command();
    let daemon = Daemon::with(["-n", "3", "-d", &command, "--pipeline", "16", "--queue-timeout", "600s"]);
    let daemon = files.serve(daemon).installed_at(&installation.program()).start();
    let asks = files.asks(&daemon.addr(), "squid.pem");
    let squid = Squid::start(500, &format!("--channel-ids yes {asks}"));
    let browsers = Browsers::start(&squid, &web);
    let mut serving = daemon.pid();
    for round in 1..=ROUNDS {
        browsers.wait_for_all();
        signal(serving, Signal::SIGHUP);
        daemon.stderr_wait_nth(REPLACED, round);
        browsers.wait_for_all();
        serving = replace(&daemon, &installation, serving, round);
    }
    browsers.wait_for_all();
    browsers.end();
}

#[test]
fn no_url_passes_while_one_of_two_pools_is_killed_and_comes_back() {
    let web = Web::start();
    let guard = squidguard(&web);
    let ports = [free_port(), free_port()].map(|port| port.to_string());
    let mut pools = ports.each_ref().map(|port| Some(pool(&guard, port).start()));
    let addresses = ports.each_ref().map(|port| format!("127.0.0.1:{port}"));
    let squid = squid([&addresses[0], &addresses[1]]);
    let browsers = Browsers::start(&squid, &web);
    for round in 0..2 * ROUNDS {
        browsers.wait_for_all();
        let place = round % 2;
        // By SIGKILL.
        drop(pools[place].take());
        browsers.wait_for_all();
        let back = pool(&guard, &ports[place]).start();
        back.usr1_until(|stats| stats.count("queries replied") > 0);
        pools[place] = Some(back);
    }
    browsers.wait_for_all();
    browsers.end();
}
