//! Upgrades of a route door with tunnel clients: a client that does not know the word go-away stays at the old process as
//! long as one of its streams does, and gets the visitors of the new one there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::harness::{Client, Daemon, Installation, WATCHDOG, wait_orphan};
use crate::route_peers::{Backend, RouteFile, client, hello};
use crate::route_tunnel::{TUNNELS, http, serving, tunnels, visited, with_secret};
use crate::tunnel_peers::TunnelClient;
use crate::upgrade::{process_of, signal, upgrade};

const NAME: &str = "www.example.org";
const SECRET: &str = "TB2pbZ5FR8GQZp9W";

/// A door that can be upgraded, with these keys beside its listeners.
struct Door {
    daemon: Daemon,
    _file: RouteFile,
    _installation: Installation,
}

#[track_caller]
fn start(keys: &str, services: &[(&str, String)]) -> Door {
    let file = RouteFile::new(&format!("{TUNNELS}\n{keys}"), services);
    let installation = Installation::new();
    let daemon = Daemon::with(["run", "--config", file.path()])
        .installed_at(&installation.program())
        .start();
    Door {
        daemon,
        _file: file,
        _installation: installation,
    }
}

fn one_service() -> [(&'static str, String); 1] {
    [(NAME, with_secret(SECRET))]
}

/// Ends a stream and its visitor.
#[track_caller]
fn end(tunnel: &mut TunnelClient, (visitor, stream): (Client, u32)) {
    let mut visitor = visitor;
    tunnel.end(stream);
    visitor.half_close();
    tunnel.take_to_end(stream);
    assert_eq!(visitor.read_to_end(), b"");
}

#[test]
fn a_client_that_stays_for_its_streams_gets_the_visitors_of_the_successor() {
    let Door { daemon, .. } = &start("", &one_service());
    let mut tunnel = serving(daemon, SECRET);
    let old = visited(daemon, &mut tunnel, NAME);
    let successor = upgrade(daemon, daemon.pid(), 1);
    assert_eq!(tunnel.await_go_away(), 0);
    // Both ways, with an end of each side, over the old session.
    let visits: Vec<_> = (0..10).map(|_| visited(daemon, &mut tunnel, NAME)).collect();
    let counted = daemon.usr1_of_process(daemon.pid());
    assert_eq!(counted.count("connect passed"), 10);
    for visit in visits {
        end(&mut tunnel, visit);
    }
    let mut by_http = Client::connect(&http(daemon));
    by_http.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
    let stream = tunnel.accept();
    tunnel.expect(stream, format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
    tunnel.send(stream, "answer");
    by_http.read_text("answer");
    tunnel.reset(stream);
    by_http.read_to_end_or_reset();
    // Behind its last stream the client is closed, and until it is back visitors wait.
    end(&mut tunnel, old);
    tunnel.await_end();
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let mut early = client(daemon, NAME, "early");
    let mut back = TunnelClient::connect(&tunnels(daemon), SECRET);
    let stream = back.accept();
    back.expect(stream, [&hello(NAME)[..], b"early"].concat());
    back.send(stream, "served");
    early.read_text("served");
    drop((early, back));
    signal(successor, Signal::SIGTERM);
    wait_orphan(successor);
}

/// More than the link between the two has room for, while the old process does nothing.
#[test]
fn a_crowd_of_visitors_waits_until_the_old_process_takes_it() {
    const CROWD: usize = 500;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("a higher limit");
    let Door { daemon, .. } = &start("connect-timeout = '60s'", &one_service());
    let mut tunnel = serving(daemon, SECRET);
    let old = visited(daemon, &mut tunnel, NAME);
    let successor = upgrade(daemon, daemon.pid(), 1);
    daemon.stop();
    let mut crowd: Vec<Client> = (0..CROWD)
        .map(|number| client(daemon, NAME, &format!("{number:04}")))
        .collect();
    while daemon.usr1_of_process(successor).count("connections") < CROWD as u64 {}
    signal(daemon.pid(), Signal::SIGCONT);
    for _ in 0..CROWD {
        let stream = tunnel.accept();
        tunnel.expect(stream, hello(NAME));
        let number = tunnel.take_bytes(stream, 4);
        tunnel.send(stream, [b"to ", &number[..]].concat());
        tunnel.end(stream);
    }
    for (number, visitor) in crowd.iter_mut().enumerate() {
        visitor.half_close();
        assert_eq!(visitor.read_to_end(), format!("to {number:04}").into_bytes());
    }
    end(&mut tunnel, old);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    signal(successor, Signal::SIGTERM);
    wait_orphan(successor);
}

/// The second successor has no link to the first process but by way of the one between them.
#[test]
fn visitors_are_passed_on_over_two_upgrades() {
    let Door { daemon, .. } = &start("", &one_service());
    let mut tunnel = serving(daemon, SECRET);
    let old = visited(daemon, &mut tunnel, NAME);
    let second = upgrade(daemon, daemon.pid(), 1);
    let between = visited(daemon, &mut tunnel, NAME);
    let third = {
        signal(second, Signal::SIGURG);
        process_of(daemon, " serves; this one finishes", 2)
    };
    let last = visited(daemon, &mut tunnel, NAME);
    for visit in [last, between] {
        end(&mut tunnel, visit);
    }
    // Nothing is left to the second but its place between the others.
    let through = visited(daemon, &mut tunnel, NAME);
    for visit in [through, old] {
        end(&mut tunnel, visit);
    }
    tunnel.await_end();
    assert_eq!(daemon.wait_exit().code(), Some(0));
    // It may have ended before its parent, which has waited for it then.
    let deadline = Instant::now() + WATCHDOG;
    while Path::new(&format!("/proc/{second}")).exists() {
        assert!(Instant::now() < deadline, "process {second} did not end");
        waitpid(Pid::from_raw(second), Some(WaitPidFlag::WNOHANG)).ok();
    }
    signal(third, Signal::SIGTERM);
    wait_orphan(third);
}

/// A client of this program comes over at once, one that speaks as the original does stays for its streams, and the door is
/// upgraded under visitors of both without a pause.
#[test]
fn no_visitor_is_refused_over_an_upgrade_with_both_kinds_of_client() {
    const OURS: &str = "ours.example.org";
    const THEIRS: &str = "theirs.example.org";
    let services = [(OURS, with_secret("ours")), (THEIRS, with_secret(SECRET))];
    let Door { daemon, .. } = &start("", &services);
    let backend = Backend::new();
    let (local, remote) = (backend.address().to_string(), tunnels(daemon).to_string());
    let flags = ["tunnel", "--local", &local, "--remote", &remote];
    let client_of_ours = Daemon::with(flags).env("TRC_SECRET", "ours").spawn();
    daemon.stderr_wait("is connected, and serves");
    let mut theirs = serving(daemon, SECRET);
    let kept = visited(daemon, &mut theirs, THEIRS);
    // The servers stop behind the last visitor.
    let (stop, end_all) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let served = Arc::new(AtomicUsize::new(0));
    // The server behind the tunnel of this program answers and closes.
    let serving_ours = {
        let end_all = Arc::clone(&end_all);
        thread::spawn(move || {
            while !end_all.load(Ordering::Relaxed) {
                let mut served = backend.accept();
                served.expect(hello(OURS));
                served.send("ours");
            }
        })
    };
    let serving_theirs = {
        let end_all = Arc::clone(&end_all);
        thread::spawn(move || {
            while !end_all.load(Ordering::Relaxed) {
                let stream = theirs.accept();
                theirs.expect(stream, hello(THEIRS));
                theirs.send(stream, "theirs");
                theirs.end(stream);
            }
            theirs
        })
    };
    let address = daemon.addr();
    let visitors: Vec<_> = [(OURS, "ours"), (THEIRS, "theirs"), (OURS, "ours"), (THEIRS, "theirs")]
        .into_iter()
        .map(|(name, expected)| {
            let (address, stop, served) = (address.clone(), Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut visitor = Client::connect(&address);
                    visitor.send(hello(name));
                    visitor.read_text(expected);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let until = |more: usize| {
        let from = served.load(Ordering::Relaxed);
        while served.load(Ordering::Relaxed) < from + more {
            thread::yield_now();
        }
    };
    until(200);
    let successor = upgrade(daemon, daemon.pid(), 1);
    until(400);
    stop.store(true, Ordering::Relaxed);
    for visitor in visitors {
        visitor.join().expect("a visitor that was refused");
    }
    end_all.store(true, Ordering::Relaxed);
    // One more for each of the two servers, which wait for it.
    let mut last = [client(daemon, OURS, ""), client(daemon, THEIRS, "")];
    last[0].read_text("ours");
    last[1].read_text("theirs");
    serving_ours.join().expect("the server of ours");
    let mut theirs = serving_theirs.join().expect("the client of theirs");
    assert!(daemon.usr1_of_process(daemon.pid()).count("connect passed") > 0);
    drop(last);
    end(&mut theirs, kept);
    drop((theirs, client_of_ours));
    assert_eq!(daemon.wait_exit().code(), Some(0));
    signal(successor, Signal::SIGTERM);
    wait_orphan(successor);
}
