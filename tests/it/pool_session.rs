//! Session mode: a connection has a worker to itself until either ends. And workers on a terminal, in both modes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Address, Daemon, temp_dir, wait_all_gone};

/// A pool of `workers` shells in session mode, all of them ready.
fn sessions(workers: u32, script: &str, flags: &[&str]) -> Daemon {
    let command = shell_words::join(["sh", "-c", script]);
    let flags = [&["--mode", "session", "--queue-timeout", "60s"], flags].concat();
    let daemon = Daemon::pool(workers, &command, &flags);
    available(&daemon, workers);
    daemon
}

fn available(daemon: &Daemon, workers: u32) {
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == u64::from(workers));
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Bytes of no pattern that a block size could hide.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn ten_megabytes_come_back_unchanged_and_the_worker_is_replaced() {
    const LENGTH: usize = 10_000_000;
    let daemon = sessions(1, "exec cat", &[]);
    let before = daemon.children();
    let bytes = noise(LENGTH);
    let received = daemon.client().exchange(&bytes);
    assert!(received == bytes, "{} bytes came back", received.len());
    let stats =
        daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1 && stats.count("workers stopping") == 0);
    let count = |label| stats.count(label);
    assert_eq!(
        (count("session bytes in"), count("session bytes out")),
        (LENGTH as u64, LENGTH as u64)
    );
    assert_eq!(
        (count("sessions"), count("sessions total"), count("connections")),
        (0, 1, 0)
    );
    assert_eq!(
        (
            count("restarts spent"),
            count("restarts died"),
            count("queries replied")
        ),
        (1, 0, 1)
    );
    assert_ne!(daemon.children(), before);
}

#[test]
fn output_of_a_worker_before_its_first_client_goes_to_that_client() {
    let daemon = sessions(1, "echo hello; echo greeted >&2; read name; echo bye $name", &[]);
    for (number, name) in ["first", "second"].into_iter().enumerate() {
        daemon.stderr_wait_nth("greeted", number + 1);
        let mut client = daemon.client();
        assert_eq!(client.read_line(), "hello");
        client.send(format!("{name}\n"));
        assert_eq!(text(client.read_to_end()), format!("bye {name}\n"));
    }
    assert_eq!(daemon.usr1().count("restarts desync"), 0);
}

#[test]
fn output_behind_the_ready_line_goes_to_the_client_of_the_session() {
    let script = "printf 'loading\\nready\\nname? '; read name; echo you are $name";
    let daemon = sessions(1, script, &["--ready-line", "ready"]);
    let mut client = daemon.client();
    client.send("me\n");
    assert_eq!(text(client.read_to_end()), "name? you are me\n");
}

#[test]
fn the_end_of_either_side_is_passed_on_and_the_other_goes_on() {
    // sort says nothing before the end of its input.
    let daemon = sessions(2, "exec sort", &[]);
    assert_eq!(daemon.client().exchange(b"b\nc\na\n"), b"a\nb\nc\n");
    // This one ends its output first, and reads on.
    let daemon = sessions(
        1,
        "echo last; exec >&-; sum=$(cat | wc -c); echo had $sum bytes >&2",
        &[],
    );
    let mut client = daemon.client();
    client.send("x");
    assert_eq!(text(client.read_to_end()), "last\n");
    client.send("more\n");
    client.half_close();
    daemon.stderr_wait("had 6 bytes");
    daemon.usr1_until(|stats| stats.count("restarts spent") == 1);
}

/// The number of bytes sent to a client that does not read, once its worker sleeps on a full pipe and no more go.
fn held_back(daemon: &Daemon, worker: i32) -> u64 {
    let sleeps = || {
        let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('S')
    };
    let out = || daemon.usr1().count("session bytes out");
    daemon.usr1_until(|stats| {
        let before = stats.count("session bytes out");
        before > 0 && sleeps() && out() == before && sleeps() && out() == before
    });
    out()
}

#[test]
fn a_client_that_does_not_read_costs_no_memory_and_loses_nothing() {
    let daemon = sessions(1, "read go; exec head -c 50000000 /dev/zero", &[]);
    let mut client = daemon.client();
    client.send("go\n");
    let sent = held_back(&daemon, daemon.children()[0]);
    assert!(sent < 40_000_000, "it was not held back: {sent}");
    let resident = daemon.resident();
    assert!(resident < 40_000_000, "{resident}");
    let rest = client.read_to_end();
    assert!(
        rest.len() == 50_000_000 && rest.iter().all(|byte| *byte == 0),
        "{}",
        rest.len()
    );
}

#[test]
fn a_client_that_leaves_the_last_output_of_its_worker_unread_is_closed() {
    let home = temp_dir();
    let path = home.path().join("socket");
    let listen = format!("unix:{}", path.display());
    let flags = ["--write-timeout", "300ms", "--listen", &listen];
    let daemon = sessions(1, "exec cat /dev/zero", &flags);
    let worker = daemon.children()[0];
    // A UNIX socket: over TCP the kernel may find room for more after a while, and then nothing would be left unread.
    let client = UnixStream::connect(&path).unwrap();
    held_back(&daemon, worker);
    // Its pipe is full, and the socket as well.
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(
        (stats.count("refused slow-write"), stats.count("queries timeout")),
        (1, 0)
    );
    drop(client);
}

#[test]
fn output_of_a_worker_before_its_death_is_delivered_and_nothing_is_retried() {
    let daemon = sessions(1, "echo part; read x; kill -KILL $$", &[]);
    let mut client = daemon.client();
    assert_eq!(client.read_line(), "part");
    client.send("go\n");
    assert_eq!(text(client.read_to_end()), "");
    daemon.stderr_wait("ended in its session: signal 9");
    available(&daemon, 1);
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries retried"), stats.count("queries failed")), (0, 0));
    assert_eq!((stats.count("restarts spent"), stats.count("sessions total")), (1, 1));
}

#[test]
fn a_client_whose_worker_dies_before_anything_was_said_gets_another() {
    let daemon = sessions(1, "read x; echo $$ $x", &[]);
    let mut client = daemon.client();
    daemon.usr1_until(|stats| stats.count("sessions") == 1);
    let first = daemon.children()[0];
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    daemon.usr1_until(|stats| stats.count("queries retried") == 1 && stats.count("sessions") == 1);
    client.send("me\n");
    let said = text(client.read_to_end());
    assert!(said.ends_with(" me\n") && said != format!("{first} me\n"), "{said}");
    // The number of attempts is that of --retries, though no worker has ever proven itself.
    let daemon = sessions(1, "read x; echo $$ $x", &["--retries", "0"]);
    let mut client = daemon.client();
    daemon.usr1_until(|stats| stats.count("sessions") == 1);
    kill(Pid::from_raw(daemon.children()[0]), Signal::SIGKILL).unwrap();
    assert_eq!(text(client.read_to_end()), "ERR\n");
}

#[test]
fn a_client_that_vanishes_takes_its_worker_along() {
    // One that goes at the end of its input, and one that has to be told.
    for script in ["echo up; exec cat", "echo up; exec sleep 1000"] {
        let daemon = sessions(1, script, &[]);
        let worker = daemon.children()[0];
        let mut client = daemon.client();
        assert_eq!(client.read_line(), "up");
        client.reset();
        let gone = |stats: &crate::harness::StatsBlock| {
            stats.count("restarts spent") == 1 && stats.count("workers stopping") == 0
        };
        let stats = daemon.usr1_until(gone);
        assert_eq!((stats.count("queries timeout"), stats.count("connections")), (1, 0));
        available(&daemon, 1);
        assert!(!daemon.children().contains(&worker));
    }
}

#[test]
fn more_clients_than_workers_wait_or_are_refused() {
    let daemon = sessions(1, "exec cat", &[]);
    let mut first = daemon.client();
    first.send("one\n");
    assert_eq!(first.read_line(), "one");
    let mut second = daemon.client();
    second.send("two\n");
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    // One that leaves while it waits is not given anything.
    let third = daemon.client();
    daemon.usr1_until(|stats| stats.count("queue length") == 2);
    third.reset();
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    first.half_close();
    assert_eq!(text(first.read_to_end()), "");
    assert_eq!(second.read_line(), "two");

    let daemon = sessions(1, "exec cat", &["--queue-size", "0", "--error-reply", "busy\\n"]);
    let mut first = daemon.client();
    first.send("one\n");
    assert_eq!(first.read_line(), "one");
    let mut second = daemon.client();
    second.send("what I wanted to say\n");
    assert_eq!(text(second.read_to_end()), "busy\n");
}

#[test]
fn hup_replaces_idle_workers_and_leaves_sessions_alone() {
    let daemon = sessions(2, "while read x; do echo $$ $x; done", &[]);
    let mut client = daemon.client();
    client.send("a\n");
    let before = client.read_line();
    let idle: Vec<i32> = daemon.children();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("every worker has been replaced");
    client.send("a\n");
    assert_eq!(client.read_line(), before, "the session goes on with its worker");
    let mut other = daemon.client();
    other.send("b\n");
    let fresh: i32 = other.read_line().split(' ').next().unwrap().parse().unwrap();
    assert!(!idle.contains(&fresh));
    client.half_close();
    assert_eq!(text(client.read_to_end()), "");
}

#[test]
fn a_session_is_left_to_end_when_the_daemon_drains_but_not_for_ever() {
    let daemon = sessions(1, "exec cat", &[]);
    let mut client = daemon.client();
    client.send("one\n");
    assert_eq!(client.read_line(), "one");
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("draining");
    client.send("two\n");
    assert_eq!(client.read_line(), "two");
    client.half_close();
    assert_eq!(text(client.read_to_end()), "");
    assert_eq!(daemon.finish().0.code(), Some(0));

    let daemon = sessions(1, "exec cat", &["--stop-timeout", "200ms"]);
    let mut client = daemon.client();
    client.send("one\n");
    assert_eq!(client.read_line(), "one");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(text(client.read_to_end()), "", "no refusal in the middle of a session");
    assert_eq!(daemon.finish().0.code(), Some(0));
}

#[test]
fn a_session_that_takes_longer_than_it_may_is_ended() {
    let daemon = sessions(1, "echo up; exec sleep 1000", &["--busy-timeout", "300ms"]);
    let mut client = daemon.client();
    assert_eq!(text(client.read_to_end()), "up\n");
    daemon.usr1_until(|stats| stats.count("restarts timeout") == 1 && stats.count("refused busy-time") == 1);
}

#[test]
fn a_session_in_which_nothing_is_said_is_ended_if_that_is_asked_for() {
    let daemon = sessions(1, "while read x; do echo $x; done", &["--idle-timeout", "300ms"]);
    let mut client = daemon.client();
    client.send("one\n");
    assert_eq!(client.read_line(), "one");
    assert_eq!(text(client.read_to_end()), "");
    let stats = daemon.usr1_until(|stats| stats.count("restarts spent") == 1);
    assert_eq!((stats.count("closed idle"), stats.count("sessions")), (1, 0));
}

#[test]
fn a_unix_socket_does_as_well() {
    let directory = crate::harness::temp_dir();
    let socket = format!("unix:{}/s", directory.path().display());
    let daemon = Daemon::with(["-n", "1", "-d", "sort", "--mode", "session", "--listen", &socket]).start();
    let mut client = daemon.client();
    client.send("b\na\n");
    client.half_close();
    assert_eq!(text(client.read_to_end()), "a\nb\n");
}

#[test]
fn a_client_that_has_closed_a_unix_socket_keeps_neither_its_place_nor_its_worker() {
    let directory = crate::harness::temp_dir();
    let path = directory.path().join("s");
    let socket = format!("unix:{}", path.display());
    // It neither reads nor writes, so nothing else would ever tell that the client has gone.
    let flags = [
        "-n",
        "1",
        "-d",
        "sleep 1000",
        "--mode",
        "session",
        "--queue-timeout",
        "60s",
    ];
    let more = ["--write-timeout", "300ms", "--listen", &socket];
    let daemon = Daemon::with([&flags[..], &more[..]].concat()).start();
    let connect = || std::os::unix::net::UnixStream::connect(&path).unwrap();
    let served = connect();
    daemon.usr1_until(|stats| stats.count("sessions") == 1);
    let waiting = connect();
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    drop(waiting);
    daemon.usr1_until(|stats| stats.count("queue length") == 0 && stats.count("connections") == 1);
    drop(served);
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(
        (stats.count("queries timeout"), stats.count("refused slow-write")),
        (2, 0)
    );
    available(&daemon, 1);
    assert_eq!(
        daemon.usr1().count("sessions total"),
        1,
        "no client was served that had gone"
    );
}

#[test]
fn bytes_sent_before_the_close_of_a_unix_socket_reach_the_worker() {
    let directory = crate::harness::temp_dir();
    let path = directory.path().join("s");
    let socket = format!("unix:{}", path.display());
    let script = "sum=$(cat | wc -c); echo had $sum bytes >&2";
    let command = shell_words::join(["sh", "-c", script]);
    let daemon = Daemon::with(["-n", "1", "-d", &command, "--mode", "session", "--listen", &socket]).start();
    let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    client.write_all(&noise(100_000)).unwrap();
    drop(client);
    daemon.stderr_wait("had 100000 bytes");
    daemon.usr1_until(|stats| stats.count("connections") == 0);
}

#[test]
fn nothing_outlives_a_daemon_that_is_killed_in_the_middle_of_a_session() {
    let daemon = sessions(1, "echo up; sleep 1000 & wait", &["--pty"]);
    let mut client = daemon.client();
    assert_eq!(client.read_line(), "up");
    daemon.signal(Signal::SIGKILL);
    daemon.wait_exit();
    let mark = format!("IOTCPD_TEST_HOME={}", daemon.home().display());
    wait_all_gone(&mark).unwrap();
}

#[test]
fn the_mode_of_a_pool_is_for_its_life() {
    let directory = crate::harness::temp_dir();
    let file = directory.path().join("f.toml");
    let write = |mode: &str| {
        let text = format!("[pool.main]\ndaemon = 'cat'\nnum-daemons = 1\nport = 0\nmode = '{mode}'\n");
        std::fs::write(&file, text).unwrap();
    };
    write("session");
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()]).start();
    write("request");
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the mode of a pool cannot change while it serves; restart the daemon");
    assert_eq!(daemon.client().exchange(b"no line"), b"no line");
}

// ---- terminals ---------------------------------------------------------------------------------------------------

#[test]
fn a_worker_on_a_terminal_sees_one_and_the_end_of_its_input() {
    let script = "test -t 0 && test -t 1 && echo terminal; while read x; do echo got $x; done; echo over";
    let daemon = sessions(1, script, &["--pty"]);
    let mut client = daemon.client();
    assert_eq!(client.read_line(), "terminal");
    client.send("one\n");
    assert_eq!(
        client.read_line(),
        "got one",
        "no echo of what was sent, and no carriage return"
    );
    client.send("two\n");
    assert_eq!(client.read_line(), "got two");
    client.half_close();
    assert_eq!(text(client.read_to_end()), "over\n");
    daemon.usr1_until(|stats| stats.count("restarts spent") == 1 && stats.count("daemon S_AVAILABLE") == 1);
}

#[test]
fn a_megabyte_passes_a_terminal_unchanged() {
    const LENGTH: usize = 1_000_000;
    let daemon = sessions(1, &format!("exec head -c {LENGTH}"), &["--pty"]);
    let bytes = noise(LENGTH);
    let Address::Tcp(address) = daemon.addr() else {
        panic!("a pool listens on TCP")
    };
    let mut stream = TcpStream::connect(address).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let sending = std::thread::spawn(move || sender.write_all(&sent).unwrap());
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    sending.join().unwrap();
    assert!(received == bytes, "{} bytes came back", received.len());
}

/// sed keeps its output back from a pipe; this is what --pty is for.
#[test]
fn a_program_that_buffers_answers_at_once_on_a_terminal() {
    let command = shell_words::join(["sed", "s/^/re: /"]);
    let daemon = Daemon::pool(1, &command, &["--pty", "--retries", "0"]);
    assert_eq!(daemon.ask("one"), "re: one\n");
    assert_eq!(daemon.ask("two"), "re: two\n");
    assert_eq!(daemon.usr1().count("daemon spawns"), 1);
    let daemon = Daemon::pool(1, &command, &["--busy-timeout", "300ms"]);
    assert_eq!(daemon.ask("one"), "ERR\n");
    let line = daemon.stderr_wait("took longer than --busy-timeout");
    assert!(line.contains("stdbuf -oL") && line.contains("--pty"), "{line}");
}

crate::harness::over_tls! {
    ten_megabytes_come_back_unchanged_and_the_worker_is_replaced,
    output_of_a_worker_before_its_first_client_goes_to_that_client,
    output_behind_the_ready_line_goes_to_the_client_of_the_session,
    the_end_of_either_side_is_passed_on_and_the_other_goes_on,
    a_client_that_does_not_read_costs_no_memory_and_loses_nothing,
    output_of_a_worker_before_its_death_is_delivered_and_nothing_is_retried,
    a_client_whose_worker_dies_before_anything_was_said_gets_another,
    a_client_that_vanishes_takes_its_worker_along,
    more_clients_than_workers_wait_or_are_refused,
    hup_replaces_idle_workers_and_leaves_sessions_alone,
    a_session_is_left_to_end_when_the_daemon_drains_but_not_for_ever,
    a_session_that_takes_longer_than_it_may_is_ended,
    a_session_in_which_nothing_is_said_is_ended_if_that_is_asked_for,
    nothing_outlives_a_daemon_that_is_killed_in_the_middle_of_a_session,
    a_worker_on_a_terminal_sees_one_and_the_end_of_its_input,
}
