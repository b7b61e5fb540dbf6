//! Many programs at once: every byte counted, every order kept, nothing left behind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::exec_client::{ExecClient, door, request, run};
use crate::harness::{Daemon, WATCHDOG};

/// Runs `each` for `times` numbers, `at_once` at a time.
fn run_at_once(times: usize, at_once: usize, each: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= times {
                        return;
                    }
                    each(number);
                }
            });
        }
    });
}

fn nothing_is_left(daemon: &Daemon, descriptors: usize) {
    // All earlier connections have been accepted once this one has its answer.
    assert_eq!(run(daemon, &["true"], b"").code(), "0");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("runs running"), 0);
    // Processes left behind by programs are asked to end before they are killed, which takes a moment.
    let patience = std::time::Instant::now() + WATCHDOG;
    while daemon.children() != [0; 0] {
        assert!(
            std::time::Instant::now() < patience,
            "no process, and no zombie: {:?}",
            daemon.children()
        );
        std::thread::yield_now();
    }
    assert_eq!(open_descriptors(daemon), descriptors, "no descriptor");
}

fn open_descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

#[test]
fn every_byte_of_many_outputs_comes_before_the_end() {
    let (daemon, _home) = door(&[]);
    let before = open_descriptors(&daemon);
    run_at_once(400, 32, |_| {
        let outcome = run(&daemon, &["head", "-c", "1000000", "/dev/zero"], b"");
        assert_eq!((outcome.stdout.len(), outcome.stderr.len()), (1_000_000, 0));
        assert_eq!(outcome.code(), "0");
    });
    nothing_is_left(&daemon, before);
    assert_eq!(daemon.usr1().count("bytes stdout"), 400_000_000);
}

#[test]
fn many_short_programs_with_a_little_input_each_get_their_own() {
    let (daemon, _home) = door(&[]);
    let before = open_descriptors(&daemon);
    run_at_once(4000, 16, |number| {
        assert_eq!(run(&daemon, &["true"], b"").code(), "0");
        if number % 20 == 0 {
            let input = format!("input of {number}");
            let outcome = run(&daemon, &["sh", "-c", "cat; echo complaint >&2"], input.as_bytes());
            assert_eq!((outcome.text(), outcome.complaint()), (input, "complaint\n".to_owned()));
        }
    });
    nothing_is_left(&daemon, before);
    assert_eq!(daemon.usr1().count("exit zero"), 4201);
}

#[test]
fn clients_that_vanish_at_any_moment_leave_nothing_behind() {
    let (daemon, _home) = door(&["-k", "100ms"]);
    let before = open_descriptors(&daemon);
    let wire = [request(&["sh", "-c", "yes & cat; wait"]), b"5:hello,".to_vec()].concat();
    run_at_once(1000, 8, |number| {
        let mut client = ExecClient::connect(&daemon);
        client.send(&wire[..wire.len().min(number % (wire.len() + 8))]);
        if number % 3 == 0 && number % (wire.len() + 8) >= wire.len() {
            client.wait_output_begun();
        }
    });
    nothing_is_left(&daemon, before);
}

/// 95,000 words of one byte, each in a buffer of its own, took 5.3 MB for as long as their program ran.
#[test]
fn a_program_that_runs_costs_its_daemon_no_memory_for_its_arguments() {
    const RUNS: usize = 24;
    let (daemon, _home) = door(&["-m", "100", "--log-args", "yes"]);
    let mut words = vec!["sh", "-c", "echo $#; exec cat", "name"];
    words.extend(std::iter::repeat_n("x", 95_000));
    let begin = || {
        let mut client = ExecClient::connect(&daemon);
        client.send(request(&words));
        client.wait_output("95000\n");
        client
    };
    // Memory that one start needs for a moment is used again by the next.
    let mut running = vec![begin()];
    let before = daemon.resident();
    running.extend((0..RUNS).map(|_| begin()));
    let grown = daemon.resident().saturating_sub(before);
    assert!(grown < RUNS * 1_000_000, "{grown} bytes more for {RUNS} runs");
    for mut client in running {
        client.send("0:,");
        assert_eq!(client.outcome().code(), "0");
    }
    daemon.stderr_wait("ran \"sh\" \"-c\" \"echo $#; exec cat\" \"name\" \"x\"");
    daemon.stderr_wait("and 94988 more: exit status 0");
}
