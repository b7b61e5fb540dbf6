//! Answers that are kept, and requests that share one.

use nix::sys::signal::Signal;

use crate::harness::{Client, Daemon, Gate, worker_command};

const CACHE: [&str; 4] = ["--cache-size", "1M", "--queue-timeout", "60s"];

fn pool(flags: &[&str]) -> Daemon {
    let daemon = Daemon::pool(1, &worker_command(&[]), &[&CACHE, flags].concat());
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    daemon
}

/// A client on a connection that stays, so that the daemon notices when it goes.
fn waiting(daemon: &Daemon, request: &str) -> Client {
    let mut client = daemon.client();
    client.send(format!("{request}\n"));
    client
}

#[test]
fn identical_requests_are_asked_once() {
    let daemon = pool(&[]);
    assert_eq!(daemon.ask("served"), "1\n");
    assert_eq!(daemon.ask("served"), "1\n");
    assert_eq!(daemon.ask("served "), "2\n", "one byte more is another request");
    assert_eq!(daemon.ask("served"), "1\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("cache hits"), stats.count("cache misses")), (2, 2));
    assert_eq!((stats.count("queries total"), stats.count("queries replied")), (4, 4));
    assert_eq!(stats.count("cache entries"), 2);
    assert!(stats.count("cache bytes") > 0);
}

#[test]
fn an_answer_is_good_for_a_while_and_no_longer() {
    let daemon = pool(&["--cache-ttl", "1s"]);
    assert_eq!(daemon.ask("served"), "1\n");
    let changed = std::iter::repeat_with(|| daemon.ask("served")).find(|answer| answer != "1\n");
    assert_eq!(changed.as_deref(), Some("2\n"));
}

#[test]
fn skipped_requests_are_asked_every_time() {
    let daemon = pool(&["--cache-skip", "^serv.d$"]);
    assert_eq!(daemon.ask("served"), "1\n");
    assert_eq!(daemon.ask("served"), "2\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("cache misses"), stats.count("cache entries")), (0, 0));
}

#[test]
fn identical_requests_at_the_same_time_share_one_worker() {
    let gate = Gate::new();
    let daemon = pool(&["--persistent"]);
    let request = format!("wait {} shared", gate.path());
    let mut clients = vec![waiting(&daemon, &request)];
    let arrival = gate.arrival();
    for number in 1..4 {
        clients.push(waiting(&daemon, &request));
        daemon.usr1_until(|stats| stats.count("cache shared") == number);
    }
    // One of them has asked something before and after: its answers keep their order.
    clients[2].send("echo after\n");
    arrival.open();
    for client in &mut clients {
        assert_eq!(client.read_line(), "shared");
    }
    assert_eq!(clients[2].read_line(), "after");
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries total"), stats.count("queries replied")), (5, 5));
    assert_eq!(
        waiting(&daemon, "served").read_line(),
        "3",
        "the worker was asked for three things"
    );
}

#[test]
fn the_others_still_get_their_answer_when_the_first_one_goes() {
    let gate = Gate::new();
    let daemon = pool(&["--persistent"]);
    let request = format!("wait {} shared", gate.path());
    let first = waiting(&daemon, &request);
    let arrival = gate.arrival();
    let mut second = waiting(&daemon, &request);
    daemon.usr1_until(|stats| stats.count("cache shared") == 1);
    first.reset();
    daemon.usr1_until(|stats| stats.count("connections") == 1);
    arrival.open();
    assert_eq!(second.read_line(), "shared");
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries total"), stats.count("queries replied")), (2, 1));
    assert_eq!(stats.count("queries timeout"), 1);
}

#[test]
fn the_first_may_go_before_any_worker_has_the_request() {
    for flags in [&["--persistent"][..], &[]] {
        let (held, gate) = (Gate::new(), Gate::new());
        let daemon = pool(flags);
        let mut busy = waiting(&daemon, &format!("wait {} busy", held.path()));
        let arrival = held.arrival();
        let request = format!("wait {} shared", gate.path());
        let first = waiting(&daemon, &request);
        daemon.usr1_until(|stats| stats.count("queue length") == 1);
        let mut second = waiting(&daemon, &request);
        daemon.usr1_until(|stats| stats.count("cache shared") == 1);
        first.reset();
        arrival.open();
        assert_eq!(busy.read_line(), "busy");
        gate.arrival().open();
        assert_eq!(second.read_line(), "shared", "{flags:?}");
        assert_eq!(waiting(&daemon, &request).read_line(), "shared", "{flags:?}");
    }
}

/// The same holds when it goes while it waits for a worker, whenever that is noticed: before its turn comes, or as it
/// comes.
#[test]
fn the_others_still_get_their_answer_when_the_first_one_goes_before_its_turn() {
    for is_noticed_before in [true, false] {
        let daemon = pool(&[]);
        let (gate, mut busy) = (Gate::new(), daemon.client());
        busy.send(format!("wait {} busy\n", gate.path()));
        let arrival = gate.arrival();
        let first = waiting(&daemon, "served");
        daemon.usr1_until(|stats| stats.count("queue length") == 1);
        let mut second = waiting(&daemon, "served");
        daemon.usr1_until(|stats| stats.count("cache shared") == 1);
        if is_noticed_before {
            first.reset();
            daemon.usr1_until(|stats| stats.count("connections") == 2);
            arrival.open();
        } else {
            daemon.signal(Signal::SIGSTOP);
            arrival.open();
            first.reset();
            daemon.signal(Signal::SIGCONT);
        }
        assert_eq!(busy.read_to_end(), b"busy\n");
        assert_eq!(second.read_to_end(), b"2\n");
    }
}

#[test]
fn a_request_without_a_waiting_client_is_dropped() {
    let (held, gate) = (Gate::new(), Gate::new());
    let daemon = pool(&["--persistent"]);
    let mut busy = waiting(&daemon, &format!("wait {} busy", held.path()));
    let arrival = held.arrival();
    let request = format!("wait {} never", gate.path());
    let clients = [waiting(&daemon, &request), waiting(&daemon, &request)];
    daemon.usr1_until(|stats| stats.count("cache shared") == 1 && stats.count("queue length") == 1);
    clients.into_iter().for_each(Client::reset);
    daemon.usr1_until(|stats| stats.count("queue length") == 0 && stats.count("queries timeout") == 2);
    arrival.open();
    assert_eq!(busy.read_line(), "busy");
    assert_eq!(waiting(&daemon, "served").read_line(), "2");
}

#[test]
fn a_refusal_goes_to_all_clients_of_the_shared_request_and_is_not_cached() {
    let gate = Gate::new();
    let daemon = pool(&["--persistent", "--retries", "0", "--busy-timeout", "500ms"]);
    assert_eq!(waiting(&daemon, "echo warm").read_line(), "warm");
    let request = format!("wait {} late", gate.path());
    let mut first = waiting(&daemon, &request);
    let arrival = gate.arrival();
    let mut second = waiting(&daemon, &request);
    assert_eq!(
        (first.read_line(), second.read_line()),
        ("ERR".to_owned(), "ERR".to_owned())
    );
    drop(arrival);
    let mut third = waiting(&daemon, &request);
    gate.arrival().open();
    assert_eq!(third.read_line(), "late");
    assert_eq!(daemon.usr1().count("queries failed"), 2);
}

#[test]
fn a_hup_forgets_everything() {
    let daemon = pool(&[]);
    let before = daemon.ask("pid");
    assert_eq!(daemon.ask("pid"), before);
    daemon.signal(Signal::SIGHUP);
    daemon.usr1_until(|stats| stats.count("restarts asked") == 1);
    let after = daemon.ask("pid");
    assert_ne!(after, before);
    assert_eq!(daemon.ask("pid"), after);
}

/// A worker out of step may have been so for a while: one of the answers that are kept may be another's.
#[test]
fn a_worker_that_is_lost_for_what_it_wrote_takes_the_kept_answers_with_it() {
    let numbered = worker_command(&["--concurrent"]);
    let channels = ["--concurrency", "4"];
    let netstrings = ["--worker-reply-framing", "netstring"];
    let plain = worker_command(&[]);
    let cases: [(&str, &str, &[&str], &str, &str); 5] = [
        ("two answers at once", &plain, &[], "two one other", "restarts desync"),
        ("another number", &numbered, &channels, "under 5 x", "restarts channel"),
        ("no number", &numbered, &channels, "raw x\\n", "restarts channel"),
        ("not its framing", &plain, &netstrings, "raw x", "restarts malformed"),
        ("two netstrings", &plain, &netstrings, "raw 1:a,1:b,", "restarts desync"),
    ];
    for (what, command, flags, request, restarts) in cases {
        let daemon = Daemon::pool(1, command, &[&CACHE[..], &["--retries", "0"], flags].concat());
        let known = if flags == netstrings {
            "raw 5:known,"
        } else {
            "echo known"
        };
        assert_eq!(daemon.ask(known), "known\n", "{what}");
        assert_eq!(daemon.usr1().count("cache entries"), 1, "{what}");
        daemon.ask(request);
        let stats = daemon.usr1_until(|stats| stats.count(restarts) == 1);
        assert_eq!(stats.count("cache entries"), 0, "{what}");
        assert_eq!(daemon.ask(known), "known\n", "{what}");
        assert_eq!(daemon.usr1().count("cache hits"), 0, "{what}");
    }
}

/// The same holds when the surplus line comes only later, between requests.
#[test]
fn an_unsolicited_line_empties_the_cache() {
    let (gate, daemon) = (Gate::new(), pool(&[]));
    let before = daemon.ask("pid");
    assert_eq!(daemon.ask(&format!("unasked {} late", gate.path())), "ok\n");
    gate.arrival().open();
    let stats = daemon.usr1_until(|stats| stats.count("restarts desync") == 1);
    assert_eq!(stats.count("cache entries"), 0);
    assert_ne!(daemon.ask("pid"), before);
}

/// A worker's death, or its being slow, makes no answer of before wrong.
#[test]
fn events_that_cast_no_doubt_on_answers_keep_the_cache() {
    for (request, restarts) in [("die", "restarts died"), ("hang", "restarts timeout")] {
        let daemon = pool(&["--busy-timeout", "300ms", "--retries", "0"]);
        assert_eq!(daemon.ask("echo known"), "known\n");
        assert_eq!(daemon.ask(request), "ERR\n");
        let stats = daemon.usr1_until(|stats| stats.count(restarts) == 1);
        assert_eq!(stats.count("cache entries"), 1, "{request}");
    }
}

/// Searched for one by one they would keep the loop for minutes (each among all others), and the watchdog would end the
/// test.
#[test]
fn many_clients_that_share_a_request_and_hang_up_together_delay_no_other() {
    const CLIENTS: usize = 200;
    const EACH: usize = 1000;
    let gate = Gate::new();
    let limits = ["--max-unanswered", "1000", "--busy-timeout", "600s", "--persistent"];
    let daemon = Daemon::pool(2, &worker_command(&[]), &[&CACHE[..], &limits].concat());
    let request = format!("wait {} shared\n", gate.path());
    let mut first = daemon.client();
    first.send(&request);
    let arrival = gate.arrival();
    let crowd: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = daemon.client();
            client.send(request.repeat(EACH));
            client
        })
        .collect();
    daemon.usr1_until(|stats| stats.count("cache shared") == (CLIENTS * EACH) as u64);
    daemon.signal(Signal::SIGSTOP);
    first.reset();
    crowd.into_iter().for_each(Client::reset);
    daemon.signal(Signal::SIGCONT);
    assert_eq!(waiting(&daemon, "echo other").read_line(), "other");
    daemon.usr1_until(|stats| stats.count("queries timeout") == (CLIENTS * EACH + 1) as u64);
    // The worker goes on with a request that no client waits for; asked again, another worker gets it.
    let mut again = waiting(&daemon, request.trim_end());
    gate.arrival().open();
    assert_eq!(again.read_line(), "shared");
    arrival.open();
}

/// Each copy of its own would be 125 MiB.
#[test]
fn the_bytes_of_a_shared_request_are_kept_once() {
    const CLIENTS: usize = 40;
    const EACH: usize = 64;
    let gate = Gate::new();
    let daemon = pool(&["--persistent", "--busy-timeout", "600s"]);
    let request = format!("wait {} {}\n", gate.path(), "x".repeat(50_000));
    let mut first = daemon.client();
    first.send(&request);
    let arrival = gate.arrival();
    let before = daemon.resident();
    let mut crowd: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = daemon.client();
            client.send(request.repeat(EACH));
            client
        })
        .collect();
    daemon.usr1_until(|stats| stats.count("cache shared") == (CLIENTS * EACH) as u64);
    let grown = daemon.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes for {} followers", CLIENTS * EACH);
    // The answers are bounded too: each client has to take some before it gets more.
    arrival.open();
    let before_last = &mut crowd[CLIENTS - 2];
    for _ in 0..EACH {
        assert_eq!(before_last.read_line().len(), 50_000);
    }
    let grown = daemon.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for {} answers", CLIENTS * EACH);
    let last = &mut crowd[CLIENTS - 1];
    for _ in 0..EACH {
        assert_eq!(last.read_line().len(), 50_000);
    }
}

crate::harness::over_tls! {
    identical_requests_at_the_same_time_share_one_worker,
    the_others_still_get_their_answer_when_the_first_one_goes,
}
