//! Several requests at once with one worker, told apart by channel-IDs: their order, and what becomes of them when it
//! answers astray, hangs or dies.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Arrival, Client, Daemon, Gate, temp_dir, worker_command};

/// `workers` concurrent workers, each proven: what happens to one of them now is counted.
fn pool(workers: u32, flags: &[&str]) -> Daemon {
    let flags = [&["--queue-timeout", "60s"], flags].concat();
    let daemon = Daemon::pool(workers, &worker_command(&["--concurrent"]), &flags);
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == u64::from(workers));
    let mut client = daemon.client();
    client.send("echo first\n");
    client.half_close();
    assert_eq!(client.read_to_end(), b"first\n");
    daemon
}

/// A client whose request stands at a gate.
struct Held {
    client: Client,
    gate: Gate,
    arrival: Arrival,
}

impl Held {
    fn at(daemon: &Daemon, text: &str) -> Self {
        let (gate, mut client) = (Gate::new(), daemon.client());
        client.send(format!("wait {} {text}\n", gate.path()));
        let arrival = gate.arrival();
        Self { client, gate, arrival }
    }

    fn answer(mut self) -> String {
        drop(self.arrival);
        String::from_utf8_lossy(&self.client.read_to_end()).into_owned()
    }

    /// The same request once more, with another worker.
    fn again(self) -> Self {
        let arrival = self.gate.arrival();
        assert_ne!(arrival.pid, self.arrival.pid);
        Self { arrival, ..self }
    }
}

#[test]
fn a_probe_has_a_number_too() {
    let probe = ["--probe", "echo alive", "--probe-interval", "1s", "--probe-expect"];
    let daemon = pool(1, &[&["--concurrency", "4"], &probe[..], &["^alive$"]].concat());
    let stats = daemon.usr1_until(|stats| stats.count("probes asked") >= 2);
    assert_eq!(stats.count("restarts probe"), 0);
    assert_eq!(daemon.ask("echo and goes on"), "and goes on\n");
    let wrong = [&["--concurrency", "4"], &probe[..], &["^dead$"]].concat();
    let wrong = Daemon::pool(1, &worker_command(&["--concurrent"]), &wrong);
    wrong.usr1_until(|stats| stats.count("restarts probe") >= 1 && stats.count("workers quarantine") == 1);
    let none = [&["--concurrency", "4"], &probe[..], &["^alive$"]].concat();
    let none = Daemon::pool(1, &worker_command(&[]), &none);
    let log = none.stderr_wait("is quarantined");
    let why = "it answered under a number that it had not been told, or under none: \"unknown ";
    assert!(log.contains(why) && log.contains("see --concurrency"), "{log}");
}

#[test]
fn answers_come_in_any_order_and_no_client_waits_for_another() {
    let daemon = pool(1, &["--concurrency", "4"]);
    let mut held: Vec<Held> = ["a", "b", "c"].map(|text| Held::at(&daemon, text)).into();
    assert_eq!(daemon.ask("echo past them all"), "past them all\n");
    held.push(Held::at(&daemon, "d"));
    let mut fifth = daemon.client();
    fifth.send("echo e\n");
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("queries concurrent"), stats.count("queries delayed")),
        (4, 1)
    );
    for (at, text) in [(2, "c\n"), (0, "a\n")] {
        assert_eq!(held.remove(at).answer(), text);
    }
    assert_eq!(fifth.read_to_end(), b"e\n");
    assert_eq!(held.remove(1).answer(), "d\n");
    assert_eq!(held.remove(0).answer(), "b\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries replied"), stats.count("queries ahead")), (7, 0));
    assert_eq!((stats.count("queries retried"), stats.count("daemon spawns")), (0, 1));
}

#[test]
fn an_idle_worker_is_preferred_and_then_the_one_with_the_fewest() {
    let daemon = pool(2, &["--concurrency", "8"]);
    let held: Vec<Held> = (0..4).map(|number| Held::at(&daemon, &number.to_string())).collect();
    let pids: Vec<i32> = held.iter().map(|held| held.arrival.pid).collect();
    assert_ne!(pids[0], pids[1]);
    assert_ne!(pids[2], pids[3], "three would be with one of them: {pids:?}");
    for (number, held) in held.into_iter().enumerate() {
        assert_eq!(held.answer(), format!("{number}\n"));
    }
}

#[test]
fn one_at_a_time_still_has_an_id_and_none_comes_twice() {
    let daemon = pool(1, &["--concurrency", "1"]);
    let mut ids: Vec<u32> = (0..20).map(|_| daemon.ask("id").trim_end().parse().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
    assert!(ids[0] > 0);
    let held = Held::at(&daemon, "slow");
    let mut second = daemon.client();
    second.send("echo second\n");
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    assert_eq!(held.answer(), "slow\n");
    assert_eq!(second.read_to_end(), b"second\n");
    assert_eq!(daemon.usr1().count("queries concurrent"), 0);
}

#[test]
fn only_the_id_is_taken_off_an_answer() {
    let daemon = pool(1, &["--concurrency", "4"]);
    assert_eq!(daemon.ask("bare"), "\n");
    assert_eq!(daemon.ask("echo "), "\n");
    assert_eq!(daemon.ask("echo  17 x"), " 17 x\n");
    assert_eq!(daemon.ask("length "), "7\n");
    assert_eq!(daemon.usr1().count("daemon spawns"), 1);
}

/// The late second answer would be the next client's if numbers were used again.
#[test]
fn a_late_second_answer_goes_to_no_client() {
    let daemon = pool(1, &["--concurrency", "2"]);
    let late = Gate::new();
    assert_eq!(daemon.ask(&format!("two-writes mine {} stray", late.path())), "mine\n");
    let at_late = late.arrival();
    let other = Held::at(&daemon, "other");
    drop(at_late);
    let other = other.again();
    assert_eq!(other.answer(), "other\n");
    let log = daemon.stderr_wait("has answered under a channel-ID that no request of its has");
    assert!(log.contains(" stray\" (an ID twice, or none: "), "{log}");
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("restarts channel"), stats.count("queries unknown")),
        (1, 1)
    );
    assert_eq!((stats.count("restarts desync"), stats.count("queries failed")), (0, 0));
}

#[test]
fn a_second_answer_in_the_same_write_goes_to_no_client() {
    let daemon = pool(1, &["--concurrency", "2"]);
    assert_eq!(daemon.ask("twice x"), "x\n");
    daemon.usr1_until(|stats| stats.count("restarts channel") == 1);
    assert_eq!(daemon.ask("echo y"), "y\n");
}

#[test]
fn an_unknown_or_missing_id_stops_the_worker_and_a_request_that_causes_it_twice_is_refused() {
    let daemon = pool(2, &["--concurrency", "2"]);
    // Both proven, so that a death over a request counts against it.
    let (one, two) = (Held::at(&daemon, "1"), Held::at(&daemon, "2"));
    assert_eq!((one.answer(), two.answer()), ("1\n".to_owned(), "2\n".to_owned()));
    // No number that is allotted is as large.
    assert_eq!(daemon.ask("under 2000000000 OK"), "ERR\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("restarts channel"), stats.count("refused died")), (2, 1));
}

#[test]
fn a_line_without_an_id_and_the_beginning_of_one_with_a_wrong_one_are_enough() {
    for line in ["raw OK\\n", "raw OK", "raw 2000000000 OK", "raw 017 OK"] {
        let daemon = pool(1, &["--concurrency", "2", "--retries", "0"]);
        assert_eq!(daemon.ask(line), "ERR\n");
        let stats = daemon.usr1();
        assert_eq!(
            (stats.count("restarts channel"), stats.count("refused died")),
            (1, 1),
            "{line}"
        );
    }
}

/// A helper's answer to the second half of a line that does not fit its buffer has no ID, whatever the half begins
/// with.
#[test]
fn a_line_taken_for_two_costs_the_worker_but_no_client_gets_a_wrong_answer() {
    let flags = ["--concurrency", "2", "--queue-timeout", "60s"];
    let daemon = Daemon::pool(1, &worker_command(&["--concurrent", "--max-line", "5000"]), &flags);
    assert_eq!(daemon.ask("echo first"), "first\n");
    let other = Held::at(&daemon, "other");
    let mut client = daemon.client();
    client.send(format!("echo {}\n", "x".repeat(6000)));
    let answer = client.read_to_end();
    assert!(
        answer.starts_with(b"xxx") && answer.len() < 5001,
        "its own, cut by the worker"
    );
    assert_eq!(other.again().answer(), "other\n");
    daemon.usr1_until(|stats| stats.count("restarts channel") == 1);
}

#[test]
fn when_a_worker_dies_each_is_asked_again_but_one_whose_answer_had_begun() {
    let daemon = pool(1, &["--concurrency", "3"]);
    let held = Held::at(&daemon, "whole");
    let (middle, mut begun) = (Gate::new(), daemon.client());
    begun.send(format!("partial head {} tail\n", middle.path()));
    // The next answer would stand in the middle of that one: the worker is at the gate, and has written the head.
    let _at_middle = middle.arrival();
    kill(Pid::from_raw(held.arrival.pid), Signal::SIGKILL).unwrap();
    assert_eq!(begun.read_to_end(), b"ERR\n");
    assert_eq!(held.again().answer(), "whole\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("restarts died"), stats.count("refused died")), (1, 1));
    assert_eq!((stats.count("queries retried"), stats.count("queries failed")), (1, 1));
}

#[test]
fn any_request_in_hand_may_be_to_blame_for_a_death() {
    let daemon = pool(1, &["--concurrency", "3", "--retries", "0"]);
    let mut held: Vec<Held> = ["a", "b"].map(|text| Held::at(&daemon, text)).into();
    let pid = held[0].arrival.pid;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    for held in &mut held {
        assert_eq!(held.client.read_to_end(), b"ERR\n");
    }
    let story = daemon.stderr_wait("was killed by signal 9");
    assert!(
        story.contains(" while it had 2 requests in hand; started again"),
        "{story}"
    );
    assert_eq!(daemon.usr1().count("refused died"), 2);
}

#[test]
fn a_request_that_takes_too_long_is_refused_and_the_others_go_on() {
    let daemon = pool(1, &["--concurrency", "2", "--busy-timeout", "3s"]);
    let pid = daemon.ask("pid");
    let mut hung = daemon.client();
    hung.send("hang\n");
    daemon.usr1_until(|stats| stats.count("daemon S_BUSY") == 1);
    assert_eq!(daemon.ask("pid"), pid);
    assert_eq!(hung.read_to_end(), b"ERR\n");
    daemon.stderr_wait("took longer than --busy-timeout 3 s and is stopped; started again at once");
    daemon.stderr_wait(" ago, not answered: \"hang\"");
    assert_ne!(daemon.ask("pid"), pid);
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("restarts timeout"), stats.count("refused busy-time")),
        (1, 1)
    );
}

#[test]
fn the_answer_to_a_client_that_has_gone_goes_to_no_other() {
    let daemon = pool(1, &["--concurrency", "2"]);
    let Held { client, arrival, .. } = Held::at(&daemon, "gone");
    let held = Held::at(&daemon, "mine");
    client.reset();
    let mut next = daemon.client();
    next.send("echo next\n");
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    drop(arrival);
    assert_eq!(next.read_to_end(), b"next\n");
    assert_eq!(held.answer(), "mine\n");
    assert_eq!(daemon.usr1().count("daemon spawns"), 1);
}

#[test]
fn the_id_does_not_count_for_the_longest_reply() {
    let daemon = pool(1, &["--concurrency", "2", "--max-reply", "20"]);
    let exact = "x".repeat(20);
    assert_eq!(daemon.ask(&format!("echo {exact}")), format!("{exact}\n"));
    let held = Held::at(&daemon, "other");
    assert_eq!(daemon.ask(&format!("echo {exact}y")), "ERR\n");
    let held = held.again();
    assert_eq!(daemon.ask("big 100000"), "ERR\n");
    assert_eq!(held.again().answer(), "other\n");
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("restarts oversize"), stats.count("refused long-reply")),
        (2, 2)
    );
}

/// A request longer than the pipe and a few short ones behind it, all of them on their way at the same time.
#[test]
fn requests_that_the_pipe_does_not_take_at_once_keep_their_ids() {
    let daemon = pool(1, &["--concurrency", "16", "--max-request", "1MiB"]);
    let held = Held::at(&daemon, "held");
    let mut long = daemon.client();
    long.send(format!("length {}\n", "x".repeat(900_000)));
    let mut short: Vec<Client> = (0..8).map(|_| daemon.client()).collect();
    for (number, client) in short.iter_mut().enumerate() {
        client.send(format!("echo {number}\n"));
    }
    assert_eq!(long.read_to_end(), b"900007\n");
    for (number, client) in short.iter_mut().enumerate() {
        assert_eq!(client.read_to_end(), format!("{number}\n").into_bytes());
    }
    assert_eq!(held.answer(), "held\n");
    assert_eq!(daemon.usr1().count("daemon spawns"), 1);
}

/// Their answers come in any order, and leave in that of the requests.
#[test]
fn a_kept_connection_shares_one_worker_among_its_requests() {
    let daemon = pool(1, &["--concurrency", "8", "--persistent"]);
    let (gate, mut client) = (Gate::new(), daemon.client());
    client.send(format!("wait {} first\n", gate.path()));
    let arrival = gate.arrival();
    client.send((1..30).map(|number| format!("echo {number}\n")).collect::<String>());
    daemon.usr1_until(|stats| stats.count("queries replied") == 30);
    assert!(!client.has_input(), "nothing goes out before the first answer");
    arrival.open();
    assert_eq!(client.read_line(), "first");
    for number in 1..30 {
        assert_eq!(client.read_line(), number.to_string());
    }
    assert_eq!(daemon.usr1().count("daemon spawns"), 1);
}

/// A program that knows nothing of IDs is not asked for ever, nor believed.
#[test]
fn a_worker_that_does_not_speak_the_protocol_is_not_believed() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--concurrency", "2", "--busy-timeout", "1s"]);
    assert_eq!(daemon.ask("echo x"), "ERR\n");
    let log = daemon.stderr_wait("has answered under a channel-ID that no request of its has");
    assert!(log.contains("see --concurrency"), "{log}");
}

#[test]
fn a_reload_changes_how_workers_are_spoken_to_when_they_are_replaced() {
    let directory = temp_dir();
    let file = directory.path().join("iotcpd.toml");
    let write = |flags: &[&str], more: &str| {
        let command = worker_command(flags);
        let text =
            format!("[pool.main]\nnum-daemons = 1\nport = 0\nqueue-timeout = '60s'\ndaemon = \"{command}\"\n{more}\n");
        fs::write(&file, text).unwrap();
    };
    write(&[], "");
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()]).start();
    assert_eq!(daemon.ask("echo plain"), "plain\n");
    let (gate, mut slow) = (Gate::new(), daemon.client());
    slow.send(format!("wait {} slow\n", gate.path()));
    let arrival = gate.arrival();
    write(&["--concurrent"], "concurrency = 4");
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("every worker has been replaced");
    let id = daemon.ask("id");
    assert!(id.trim_end().parse::<u32>().is_ok(), "{id:?}");
    // The old one ends as it was started.
    drop(arrival);
    assert_eq!(slow.read_to_end(), b"slow\n");
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("restarts channel"), stats.count("restarts desync")),
        (0, 0)
    );
}

/// An answer that the worker has given lies in its output when a write to it fails: it is read first.
#[test]
fn an_answer_counts_though_the_worker_has_closed_its_input_since() {
    let daemon = pool(1, &["--concurrency", "3"]);
    let (gate, written, mut first) = (Gate::new(), Gate::new(), daemon.client());
    first.send(format!("wait-twice {} {} first\n", gate.path(), written.path()));
    let arrival = gate.arrival();
    assert_eq!(daemon.ask("close-stdin"), "ok\n");
    daemon.signal(Signal::SIGSTOP);
    let mut second = daemon.client();
    second.send("echo second\n");
    arrival.open();
    let _written = written.arrival();
    daemon.signal(Signal::SIGCONT);
    assert_eq!(first.read_to_end(), b"first\n");
    assert_eq!(second.read_to_end(), b"second\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("restarts died"), stats.count("queries retried")), (1, 1));
}
