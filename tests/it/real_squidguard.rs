//! squidGuard behind the pool: Debian's program, with a database that it has made itself.
//!
//! Every answer to a blocked URL carries that URL, so each shows its request. Where squidGuard is missing these tests
//! fail.

use std::io::Write;
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::{Address, BLOCKED_DOMAIN, Client, Daemon, Manager, Program, SquidGuard};

/// No request is refused for want of time, however slow the machine.
const PATIENT: [&str; 2] = ["--queue-timeout", "600s"];

/// squidGuard's answer to a line that it cannot make sense of.
const NO_SENSE: &str = "BH message=\"squidGuard error parsing squid line\"\n";

/// The longest line, its newline not counted, that squidGuard 1.6 takes for one.
const SQUIDGUARD_LONGEST: usize = 12_286;

#[track_caller]
fn squidguard() -> SquidGuard {
    SquidGuard::redirecting_to("302:http://127.0.0.1/blocked?u=%u")
}

/// A line for a URL of the blocked domain, as Squid writes it.
fn line(path: &str) -> String {
    format!("http://{BLOCKED_DOMAIN}/{path} 10.0.0.1/- - GET")
}

/// The same, `length` bytes long; `name` stands at the beginning of its path.
fn line_of(length: usize, name: &str) -> String {
    let rest = length - line(name).len();
    line(&format!("{name}{}", "x".repeat(rest)))
}

fn answer(path: &str) -> String {
    format!("OK status=302 url=\"http://127.0.0.1/blocked?u=http://{BLOCKED_DOMAIN}/{path}\"\n")
}

/// Returns true if `reply` is an answer to the URL whose path begins with `path`; squidGuard cuts a long one.
fn is_for(reply: &str, path: &str) -> bool {
    let beginning = answer(path);
    reply.starts_with(beginning.trim_end_matches("\"\n")) && reply.ends_with("\"\n")
}

#[track_caller]
fn ask(address: &Address, line: &str) -> String {
    let mut client = Client::connect(address);
    client.send(format!("{line}\n"));
    String::from_utf8_lossy(&client.read_to_end()).into_owned()
}

#[test]
fn blocked_clean_and_senseless() {
    let guard = squidguard();
    let daemon = Daemon::pool(2, &guard.command(), &PATIENT);
    assert_eq!(daemon.ask(&line("banner.gif")), answer("banner.gif"));
    assert_eq!(daemon.ask("http://www.example.org/ 10.0.0.1/- - GET"), "ERR\n");
    assert_eq!(
        daemon.ask(&format!("{BLOCKED_DOMAIN}:443 10.0.0.1/- - CONNECT")),
        answer("").replace("http://ads.example/", "ads.example:443")
    );
    for senseless in ["garbage", "", "http://ads.example/ 10.0.0.1/- -"] {
        assert_eq!(daemon.ask(senseless), NO_SENSE, "{senseless:?}");
    }
    let mut crlf = daemon.client();
    crlf.send(format!("{}\r\n", line("crlf")));
    assert_eq!(String::from_utf8_lossy(&crlf.read_to_end()), answer("crlf"));
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries replied"), stats.count("restarts desync")), (7, 0));
}

/// squidGuard answers a line that is too long twice. The next client must not be given the second answer.
#[test]
fn the_second_answer_to_a_line_too_long_for_squidguard_goes_to_no_other_client() {
    let guard = squidguard();
    let daemon = Daemon::pool(3, &guard.command(), &["--queue-timeout", "600s", "-a", "100ms"]);
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let address = daemon.addr();
            thread::spawn(move || {
                for number in 0..60 {
                    let name = format!("{client}-{number}");
                    if number % 30 == 10 {
                        // Its sender's answer is squidGuard's affair, as long as it is not another client's.
                        let reply = ask(&address, &line_of(12_400, &name));
                        assert!(
                            [NO_SENSE, "ERR\n"].contains(&reply.as_str()),
                            "{name} was answered {reply:?}"
                        );
                    } else {
                        assert_eq!(ask(&address, &line(&name)), answer(&name));
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every client got its own answers");
    }
    // One for each long line. The last second answer may come after the last client has gone.
    let stats = daemon.usr1_until(|stats| stats.count("restarts desync") >= 8);
    assert_eq!(
        (stats.count("restarts desync"), stats.count("queries replied")),
        (8, 240)
    );
}

#[test]
fn a_line_too_long_for_squidguard_is_refused_where_the_limit_is_set_for_it() {
    let guard = squidguard();
    let daemon = Daemon::pool(
        1,
        &guard.command(),
        &["--max-request", "12000", "--queue-timeout", "600s"],
    );
    for number in 0..20 {
        let name = format!("{number}-");
        assert_eq!(daemon.ask(&line_of(12_400, &name)), "ERR\n");
        assert_eq!(daemon.ask(&line_of(12_001, &name)), "ERR\n");
        assert!(is_for(&daemon.ask(&line_of(12_000, &name)), &name));
        assert_eq!(daemon.ask(&line(&name)), answer(&name));
    }
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("refused long-line"), stats.count("restarts desync")),
        (40, 0)
    );
    assert_eq!(stats.count("daemon spawns"), 1);
}

/// At the lengths where buffers end: of one read, of squidGuard's line, and of the two together.
#[test]
fn lines_about_as_long_as_a_buffer() {
    let guard = squidguard();
    let daemon = Daemon::pool(1, &guard.command(), &["--queue-timeout", "600s", "-a", "100ms"]);
    let mut lost_step = 0;
    for length in (4093..=4098).chain(8190..=8194).chain(12_284..=12_290) {
        let name = format!("{length}-");
        let reply = daemon.ask(&line_of(length, &name));
        if length <= SQUIDGUARD_LONGEST {
            assert!(is_for(&reply, &name), "{length}: {reply:?}");
        } else {
            lost_step += 1;
            assert!(is_for(&reply, &name) || reply == NO_SENSE, "{length}: {reply:?}");
        }
        for number in 0..3 {
            let next = format!("{length}-next-{number}");
            assert_eq!(daemon.ask(&line(&next)), answer(&next));
        }
        assert_eq!(
            daemon.usr1().count("restarts desync"),
            lost_step,
            "after {length} bytes"
        );
    }
}

/// To squidGuard a NUL is the end of the string and not of the line.
#[test]
fn a_nul_costs_its_sender_alone() {
    let guard = squidguard();
    let daemon = Daemon::pool(1, &guard.command(), &PATIENT);
    let mut client = daemon.client();
    client.send(b"http://ads.example/a\0b 10.0.0.1/- - GET\n");
    assert_eq!(client.read_to_end(), b"ERR\n");
    assert_eq!(daemon.ask(&line("after")), answer("after"));
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused bad-line"), stats.count("daemon spawns")), (1, 1));
}

#[test]
fn nc_is_a_client() {
    let guard = squidguard();
    let daemon = Daemon::pool(1, &guard.command(), &PATIENT);
    let port = daemon.addr().port().to_string();
    // With -N it closes its sending side behind the line; without, it waits for the daemon to close.
    for flags in [&["-N"][..], &[]] {
        let mut nc = Program::start(Command::new("nc").args(flags).args(["127.0.0.1", &port]));
        let mut input = nc.stdin.take().expect("a pipe");
        input
            .write_all(format!("{}\n", line("nc")).as_bytes())
            .expect("write to nc");
        drop(input);
        let (status, stdout, stderr) = nc.finish();
        assert_eq!(
            (status.code(), stdout + "\n"),
            (Some(0), answer("nc")),
            "nc {flags:?}: {stderr}"
        );
    }
}

/// The probe that the manual recommends: a URL that is known to be blocked.
const PROBE: [&str; 6] = [
    "--probe",
    "http://ads.example/probe 127.0.0.1/- - GET",
    "--probe-expect",
    "^OK .*blocked[?]u=http://ads[.]example/probe",
    "--alarm-interval",
    "100ms",
];

/// Without a probe a squidGuard in emergency mode looks healthy.
#[test]
fn a_squidguard_in_emergency_mode_serves_no_client_until_it_is_repaired() {
    let guard = squidguard();
    guard.break_configuration();
    let unprobed = Daemon::pool(1, &guard.command(), &PATIENT);
    assert_eq!(unprobed.ask(&line("let-pass")), "ERR\n");
    assert_eq!(unprobed.usr1().count("queries replied"), 1);
    let daemon = Daemon::pool(1, &guard.command(), &[&PATIENT[..], &PROBE].concat());
    let told = daemon.stderr_wait("has failed its probe and is quarantined");
    assert!(told.contains("it answered \"ERR\", in which --probe-expect"), "{told}");
    let mut client = daemon.client();
    client.send(format!("{}\n", line("waits")));
    let stats = daemon.usr1_until(|stats| stats.count("queue length") == 1);
    assert_eq!(
        (stats.count("workers quarantine"), stats.count("queries replied")),
        (1, 0)
    );
    guard.mend_configuration();
    assert_eq!(String::from_utf8_lossy(&client.read_to_end()), answer("waits"));
    assert_eq!(daemon.usr1().count("workers quarantine"), 0);
}

#[test]
fn a_hup_to_a_broken_configuration_keeps_the_old_squidguards_in_service() {
    let guard = squidguard();
    let daemon = Daemon::pool(2, &guard.command(), &[&PATIENT[..], &PROBE].concat());
    assert_eq!(daemon.ask(&line("before")), answer("before"));
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 2);
    guard.break_configuration();
    daemon.signal(Signal::SIGHUP);
    let told = daemon.stderr_wait("stays in service");
    assert!(told.contains("has failed its probe"), "{told}");
    for number in 0..20 {
        let name = format!("meanwhile-{number}");
        assert_eq!(daemon.ask(&line(&name)), answer(&name));
    }
    assert_eq!(daemon.usr1().count("restarts asked"), 0);
    guard.mend_configuration();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("every worker has been replaced");
    assert_eq!(daemon.ask(&line("after")), answer("after"));
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries failed"), stats.count("restarts asked")), (0, 2));
}

/// With -P it exits where it would let everything pass: the pool is down, and denies what it is told to.
#[test]
fn a_squidguard_that_exits_instead_of_letting_all_pass_denies_until_it_is_mended() {
    let (guard, manager) = (squidguard(), Manager::new());
    guard.break_configuration();
    let command = guard.command().replacen("squidGuard", "squidGuard -P", 1);
    let flags = [
        "-n",
        "2",
        "-d",
        &command,
        "-p",
        "0",
        "-a",
        "100ms",
        "--queue-timeout",
        "200ms",
    ];
    let denied = "http://intranet.example/denied.html";
    let builder = Daemon::with(flags).args(&["--fail", "closed", "--fail-url", denied]);
    let daemon = manager.watching(builder).start();
    let down = daemon.stderr_wait("pool: no worker can serve: ");
    assert!(
        down.contains("each dies soon after its start: the last one exited with status 4; "),
        "{down}"
    );
    assert!(down.contains(&format!("are then denied by \"302:{denied}\"")), "{down}");
    assert_eq!(daemon.ask(&line("broken")), format!("302:{denied}\n"));
    daemon.usr1();
    manager.is_kept_waiting();
    guard.mend_configuration();
    daemon.signal(Signal::SIGHUP);
    while daemon.ask(&line("mended")) != answer("mended") {}
    manager.ready();
    daemon.stderr_wait("pool: a worker can serve again: none could for ");
}

#[test]
fn the_start_with_a_squidguard_in_emergency_mode_is_not_over_until_that_is_mended() {
    let (guard, manager) = (squidguard(), Manager::new());
    guard.break_configuration();
    let command = guard.command();
    let builder = Daemon::with(["-n", "1", "-d", &command, "-p", "0"]);
    let daemon = manager.watching(builder.args(&PATIENT).args(&PROBE)).start();
    let down = daemon.stderr_wait("pool: no worker can serve: none passes its probe: asked ");
    assert!(down.contains("it answered \"ERR\""), "{down}");
    daemon.usr1();
    manager.is_kept_waiting();
    guard.mend_configuration();
    manager.ready();
    daemon.stderr_wait("pool: ready, 1 of 1 workers serve");
    assert_eq!(daemon.ask(&line("mended")), answer("mended"));
}
