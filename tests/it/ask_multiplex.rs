//! `iotcpd ask` and connections that carry many lines: against peers that the test plays itself, line by line, and
//! against real pools that come and go. `doc/protocol.md` is the contract.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::ask::Asker;
use crate::harness::{Daemon, Gate, WATCHDOG, reset_on_close, temp_dir, worker_command};
use crate::upgrade_from_predecessor::predecessor;

const HELLO: &str = "iotcpd-multiplex 1";
const WELCOME: &str = "iotcpd-multiplex 1 max-unanswered=256 max-request=65536 at-once=64\n";

/// An address at which the test itself is the pool.
struct Peer {
    listener: TcpListener,
}

/// A connection that `ask` has made to a [`Peer`].
struct Session {
    reader: BufReader<TcpStream>,
}

impl Peer {
    fn new() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").expect("bind a peer"),
        }
    }

    fn address(&self) -> String {
        self.listener.local_addr().expect("its address").to_string()
    }

    /// Its next connection.
    #[track_caller]
    fn accept(&self) -> Session {
        let mut events = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(WATCHDOG).expect("it fits");
        assert_eq!(poll(&mut events, limit), Ok(1), "no connection has come");
        let (stream, _) = self.listener.accept().expect("accept as a peer");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        Session {
            reader: BufReader::new(stream),
        }
    }

    /// Its next connection, on which the hello was said and is answered.
    #[track_caller]
    fn accept_many(&self) -> Session {
        let mut session = self.accept();
        assert_eq!(session.line(), HELLO);
        session.send(WELCOME);
        session
    }

    /// Answers the one line of its next connection with what it was.
    #[track_caller]
    fn echo_one(&self) {
        let mut session = self.accept();
        let line = session.line();
        session.send(format!("re {line}\n"));
    }

    /// True if no connection waits to be accepted.
    fn is_idle(&self) -> bool {
        let mut events = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut events, PollTimeout::ZERO) == Ok(0)
    }
}

impl Session {
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("read as a peer");
        line.strip_suffix('\n').expect("a whole line").to_owned()
    }

    #[track_caller]
    fn lines(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    #[track_caller]
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader
            .get_mut()
            .write_all(bytes.as_ref())
            .expect("write as a peer");
    }

    /// Waits for the end of the other side, behind everything that was read.
    #[track_caller]
    fn wait_end(&mut self) {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).expect("the end of ask's side");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Waits until the other side has given the connection up.
    #[track_caller]
    fn wait_reset(&mut self) {
        let error = self.reader.read_to_end(&mut Vec::new()).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    /// Closes with a reset.
    fn reset(self) {
        reset_on_close(self.reader.get_ref());
    }
}

/// `ask` with channel-IDs and all the time in the world.
#[track_caller]
fn ask(flags: &[&str], peers: &[&Peer]) -> Asker {
    let addresses: Vec<String> = peers.iter().map(|peer| peer.address()).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let squid = ["--squid", "--channel-ids", "yes", "--timeout", "600s"];
    Asker::start(&[&squid, flags, &addresses].concat())
}

#[track_caller]
fn answers(asker: &mut Asker, count: usize) -> BTreeSet<String> {
    (0..count).map(|_| asker.answer()).collect()
}

/// The end of a run in which nothing was said on standard error.
#[track_caller]
fn end_in_silence(asker: Asker) {
    assert_eq!(asker.end(), (Some(0), Vec::new(), String::new()));
}

// ---- peers that know the protocol -------------------------------------------------------------------------------

#[test]
fn lines_wait_for_the_welcome_and_answers_may_come_in_any_order() {
    let peer = Peer::new();
    let mut asker = ask(&[], &[&peer]);
    asker.send("7 a\n007 b\n99999999999 c\n");
    let mut session = peer.accept();
    assert_eq!(session.line(), HELLO);
    for byte in WELCOME.as_bytes() {
        session.send([*byte]);
    }
    assert_eq!(session.lines(3), ["0 a", "1 b", "2 c"]);
    session.send("2 C\n1 B\n");
    assert_eq!([asker.answer(), asker.answer()], ["99999999999 C", "007 B"]);
    session.send("0");
    session.send(" A\n");
    assert_eq!(asker.answer(), "7 A");
    asker.send("8 d\n");
    assert_eq!(session.line(), "3 d");
    session.send("3\r\n");
    assert_eq!(
        asker.answer(),
        "8 ERR",
        "squidGuard leaves a URL alone by an empty line"
    );
    end_in_silence(asker);
    session.wait_end();
    assert!(peer.is_idle(), "one connection was enough");
}

#[test]
fn an_answer_that_squid_cannot_read_is_none_and_costs_no_other_line() {
    let peer = Peer::new();
    let mut asker = ask(&[], &[&peer]);
    asker.send("1 a\n2 b\n3 c\n");
    let mut session = peer.accept_many();
    session.lines(3);
    let long = vec![b'x'; 2 * 1024 * 1024];
    session.send([b"0 ", long.as_slice(), b"\n1 O\0K\n2 OK\n77 OK\n2 twice\n!later x\n"].concat());
    assert_eq!(
        answers(&mut asker, 3),
        ["1 ERR", "2 ERR", "3 OK"].map(str::to_owned).into()
    );
    asker.send("4 d\n");
    assert_eq!(session.line(), "3 d");
    session.send("3 D\n");
    assert_eq!(asker.answer(), "4 D");
}

#[test]
fn plain_lines_keep_their_order_and_no_more_are_under_way_than_the_workers_need() {
    let peer = Peer::new();
    let mut asker = Asker::start(&["--timeout", "600s", &peer.address()]);
    asker.send("a\nb\r\nc\n");
    let mut session = peer.accept();
    assert_eq!(session.line(), HELLO);
    session.send("iotcpd-multiplex 1 max-unanswered=9 max-request=9 at-once=1\n");
    assert_eq!(session.lines(2), ["0 a", "1 b\r"]);
    session.send("1 B\r\n");
    assert_eq!(session.line(), "2 c");
    session.send("2 C\n0 A\n");
    assert_eq!([asker.answer(), asker.answer(), asker.answer()], ["A", "B\r", "C"]);
    end_in_silence(asker);
}

#[test]
fn a_pool_that_drains_answers_what_it_has_and_the_next_lines_go_over_another_connection() {
    let peer = Peer::new();
    let mut asker = ask(&[], &[&peer]);
    asker.send("1 a\n2 b\n");
    let mut first = peer.accept_many();
    first.lines(2);
    first.send("!drain\n1 B\n");
    assert_eq!(asker.answer(), "2 B");
    first.wait_end();
    asker.send("3 c\n");
    let mut second = peer.accept_many();
    assert_eq!(second.line(), "0 c", "numbers begin anew");
    first.send("0 A\n");
    assert_eq!(asker.answer(), "1 A");
    second.send("0 C\n!drain\n");
    assert_eq!(asker.answer(), "3 C");
    second.wait_end();
    end_in_silence(asker);
}

#[test]
fn a_pool_that_ends_with_lines_unanswered_is_asked_again_at_once_and_is_not_to_blame() {
    let peer = Peer::new();
    let mut asker = ask(&[], &[&peer]);
    asker.send("1 a\n2 b\n");
    let mut first = peer.accept_many();
    first.lines(2);
    first.send("0 A\n");
    assert_eq!(asker.answer(), "1 A");
    drop(first);
    let mut second = peer.accept_many();
    assert_eq!(second.line(), "0 b");
    second.send("0 B\n");
    assert_eq!(asker.answer(), "2 B");
    end_in_silence(asker);
}

#[test]
fn the_lines_of_a_connection_that_breaks_or_talks_nonsense_are_asked_elsewhere() {
    for is_reset in [true, false] {
        let (peer, other) = (Peer::new(), Peer::new());
        let mut asker = ask(&[], &[&peer, &other]);
        asker.send("1 a\n2 b\n3 c\n4 d\n");
        let mut broken = peer.accept_many();
        assert_eq!(broken.lines(2), ["0 a", "1 c"]);
        let mut sound = other.accept_many();
        assert_eq!(sound.lines(2), ["0 b", "1 d"]);
        broken.send("1 C\n");
        assert_eq!(asker.answer(), "3 C");
        if is_reset {
            broken.reset();
        } else {
            broken.send("OK what is this\n");
            broken.wait_reset();
        }
        assert_eq!(sound.line(), "2 a");
        sound.send("2 A\n1 D\n0 B\n");
        assert_eq!(answers(&mut asker, 3), ["1 A", "2 B", "4 D"].map(str::to_owned).into());
        let reason = if is_reset {
            "connection lost: "
        } else {
            "a line came that is no answer"
        };
        asker.program.stderr_wait(&format!("{}: {reason}", peer.address()));
    }
}

#[test]
fn a_line_whose_time_is_over_is_cancelled_and_its_late_answer_dropped() {
    let peer = Peer::new();
    let address = peer.address();
    let mut asker = Asker::start(&["--squid", "--channel-ids", "yes", "--timeout", "500ms", &address]);
    asker.send("1 a\n2 b\n");
    let mut session = peer.accept_many();
    assert_eq!(session.lines(2), ["0 a", "1 b"]);
    session.send("1 B\n");
    assert_eq!([asker.answer(), asker.answer()], ["2 B", "1 ERR"]);
    assert_eq!(session.line(), "!cancel 0");
    session.send("0 late\n");
    asker.send("3 c\n");
    assert_eq!(session.line(), "2 c");
    session.send("2 C\n");
    assert_eq!(asker.answer(), "3 C");
}

#[test]
fn a_connection_on_which_nothing_comes_any_more_is_given_up() {
    let peer = Peer::new();
    let address = peer.address();
    let mut asker = Asker::start(&["--squid", "--channel-ids", "yes", "--timeout", "500ms", &address]);
    asker.send("1 a\n");
    let mut silent = peer.accept_many();
    assert_eq!(silent.line(), "0 a");
    assert_eq!(asker.answer(), "1 ERR");
    silent.wait_reset();
    asker.send("2 b\n");
    let mut session = peer.accept_many();
    assert_eq!(session.line(), "0 b");
    session.send("0 B\n");
    assert_eq!(asker.answer(), "2 B");
}

#[test]
fn another_connection_is_opened_when_every_open_one_has_lines_under_way() {
    let peer = Peer::new();
    let mut asker = ask(&["--connections", "2"], &[&peer]);
    asker.send("1 a\n");
    let mut first = peer.accept_many();
    assert_eq!(first.line(), "0 a");
    asker.send("2 b\n");
    assert_eq!(first.line(), "1 b", "no line waits for the second connection");
    let mut second = peer.accept_many();
    asker.program.signal(Signal::SIGUSR1);
    asker.program.stderr_wait("connections        2");
    asker
        .program
        .stderr_wait(&format!("multiplexed        {}", peer.address()));
    asker.send("3 c\n");
    assert_eq!(second.line(), "0 c");
    asker.send("4 d\n");
    assert_eq!(second.line(), "1 d", "the one with fewer lines under way");
    first.send("0 A\n1 B\n");
    second.send("0 C\n1 D\n");
    assert_eq!(
        answers(&mut asker, 4),
        ["1 A", "2 B", "3 C", "4 D"].map(str::to_owned).into()
    );
    assert!(peer.is_idle());
}

#[test]
fn an_old_connection_takes_no_more_lines_and_loses_none() {
    let peer = Peer::new();
    let mut asker = ask(&["--max-connection-age", "100ms"], &[&peer]);
    asker.send("1 a\n");
    let mut first = peer.accept_many();
    assert_eq!(first.line(), "0 a");
    first.wait_end();
    asker.send("2 b\n");
    let mut second = peer.accept_many();
    assert_eq!(second.line(), "0 b");
    first.send("0 A\n");
    second.send("0 B\n");
    assert_eq!(answers(&mut asker, 2), ["1 A", "2 B"].map(str::to_owned).into());
    second.wait_end();
    end_in_silence(asker);
}

// ---- peers that do not ------------------------------------------------------------------------------------------

/// iotcpd 1.1 gives the hello to a worker, which answers as squidGuard does; others close, or understand only a part.
#[test]
fn a_peer_that_answers_the_hello_in_another_way_gets_each_line_on_a_connection_of_its_own() {
    let other_ways: [&[u8]; 8] = [
        b"ERR\n",
        b"\n",
        b"BH message=\"squidGuard error parsing squid line\"\n",
        b"",
        b"half a line",
        b"iotcpd-multiplex 2 max-unanswered=1 max-request=1 at-once=1\n",
        b"iotcpd-multiplex 1\n",
        b"iotcpd-multiplex 1 max-unanswered=0 max-request=1 at-once=1\n",
    ];
    for other_way in other_ways {
        let peer = Peer::new();
        let mut asker = ask(&[], &[&peer]);
        asker.send("1 a\n2 b\n3 c\n");
        let mut session = peer.accept();
        assert_eq!(session.line(), HELLO);
        session.send(other_way);
        drop(session);
        for _ in 0..3 {
            peer.echo_one();
        }
        let expected = ["1 re a", "2 re b", "3 re c"].map(str::to_owned);
        assert_eq!(answers(&mut asker, 3), expected.into(), "{other_way:?}");
        asker.send("4 d\n");
        peer.echo_one();
        assert_eq!(asker.answer(), "4 re d", "it is remembered");
        end_in_silence(asker);
    }
}

#[test]
fn a_peer_that_resets_the_connection_of_the_hello_is_asked_line_by_line() {
    let peer = Peer::new();
    let mut asker = ask(&[], &[&peer]);
    asker.send("1 a\n");
    let mut session = peer.accept();
    assert_eq!(session.line(), HELLO);
    session.reset();
    peer.echo_one();
    assert_eq!(asker.answer(), "1 re a");
    end_in_silence(asker);
}

#[test]
fn a_peer_that_swallows_the_hello_is_asked_line_by_line_and_a_late_welcome_changes_nothing() {
    let peer = Peer::new();
    let mut asker = ask(&[], &[&peer]);
    asker.send("1 a\n2 b\n");
    let mut silent = peer.accept();
    assert_eq!(silent.line(), HELLO);
    silent.wait_reset();
    // The connection is closed: an error is as good as none.
    silent.reader.get_mut().write_all(WELCOME.as_bytes()).ok();
    for _ in 0..2 {
        peer.echo_one();
    }
    assert_eq!(answers(&mut asker, 2), ["1 re a", "2 re b"].map(str::to_owned).into());
    end_in_silence(asker);
}

#[test]
fn an_address_that_was_away_and_is_back_is_sent_another_hello_which_no_line_waits_for() {
    let peer = Peer::new();
    let mut asker = ask(&["--log-level", "debug"], &[&peer]);
    asker.send("1 a\n");
    let mut session = peer.accept();
    assert_eq!(session.line(), HELLO);
    session.send("ERR\n");
    drop(session);
    peer.echo_one();
    assert_eq!(asker.answer(), "1 re a");
    asker
        .program
        .stderr_wait("gets a connection for each line: another answer to the hello");
    asker.send("2 b\n");
    drop(peer.accept());
    peer.echo_one();
    assert_eq!(asker.answer(), "2 re b");
    asker.program.stderr_wait("answers again");
    asker.program.signal(Signal::SIGUSR1);
    let state = format!("line by line       {}: another answer to the hello", peer.address());
    asker.program.stderr_wait(&state);
    asker.send("3 c\n");
    let mut session = peer.accept();
    assert_eq!(session.line(), HELLO);
    peer.echo_one();
    assert_eq!(asker.answer(), "3 re c");
    session.send(WELCOME);
    asker.program.stderr_wait("takes many lines on one connection");
    asker.send("4 d\n");
    assert_eq!(session.line(), "0 d");
    session.send("0 D\n");
    assert_eq!(asker.answer(), "4 D");
}

#[test]
fn two_addresses_of_which_one_is_old_are_both_asked() {
    let (old, new) = (Peer::new(), Peer::new());
    let mut asker = ask(&[], &[&old, &new]);
    asker.send("1 a\n2 b\n");
    let mut session = old.accept();
    assert_eq!(session.line(), HELLO);
    let mut many = new.accept_many();
    assert_eq!(many.line(), "0 b");
    session.send("ERR\n");
    old.echo_one();
    assert_eq!(asker.answer(), "1 re a");
    many.send("0 B\n");
    assert_eq!(asker.answer(), "2 B");
    end_in_silence(asker);
}

#[test]
fn without_connections_for_many_lines_no_hello_is_said() {
    let peer = Peer::new();
    let mut asker = ask(&["--connections", "0"], &[&peer]);
    asker.send("1 a\n");
    peer.echo_one();
    assert_eq!(asker.answer(), "1 re a");
}

// ---- real pools -------------------------------------------------------------------------------------------------

#[track_caller]
fn pool(workers: u32, flags: &[&str]) -> Daemon {
    let patient = ["-b", "600s", "--queue-timeout", "600s"];
    Daemon::pool(workers, &worker_command(&[]), &[&patient, flags].concat())
}

/// Sends these lines, each with its number as channel-ID.
#[track_caller]
fn send_all(asker: &mut Asker, numbers: std::ops::Range<u32>) {
    for number in numbers {
        asker.send(format!("{number} echo answer-{number}\n"));
    }
}

fn expected(numbers: std::ops::Range<u32>) -> BTreeSet<String> {
    numbers.map(|number| format!("{number} answer-{number}")).collect()
}

#[test]
fn lines_that_come_all_at_once_are_all_answered() {
    let daemon = pool(1, &[]);
    let address = daemon.addr().to_string();
    for (connections, count) in [("1", 10_000), ("0", 3_000)] {
        let asking = [
            "--squid",
            "--channel-ids",
            "yes",
            "--timeout",
            "600s",
            "--connections",
            connections,
        ];
        let mut asker = Asker::start(&[&asking[..], &[&address]].concat());
        let lines: String = (0..count)
            .map(|number| format!("{number} echo answer-{number}\n"))
            .collect();
        asker.send(&lines);
        let answers: BTreeSet<String> = (0..count).map(|_| asker.answer()).collect();
        assert!(
            answers == expected(0..count),
            "{connections} connections: {} different answers",
            answers.len()
        );
        end_in_silence(asker);
    }
}

#[test]
fn a_pool_that_reads_its_configuration_again_loses_no_line() {
    let daemon = pool(2, &["--pipeline", "4"]);
    let address = daemon.addr().to_string();
    let mut asker = Asker::start(&["--squid", "--channel-ids", "yes", "--timeout", "600s", &address]);
    for round in 0..10 {
        let numbers = round * 300..(round + 1) * 300;
        send_all(&mut asker, numbers.clone());
        daemon.signal(Signal::SIGHUP);
        assert_eq!(answers(&mut asker, 300), expected(numbers));
    }
    end_in_silence(asker);
    assert_eq!(daemon.usr1().count("queries replied"), 3000);
}

/// Two daemons, of which one ends in this way in the middle of the lines.
#[track_caller]
fn lose_one_of_two(signal: Signal) {
    let (doomed, other) = (pool(2, &[]), pool(2, &[]));
    let addresses = [&doomed, &other].map(|daemon| daemon.addr().to_string());
    let mut asker = Asker::start(&[
        "--squid",
        "--channel-ids",
        "yes",
        "--timeout",
        "600s",
        &addresses[0],
        &addresses[1],
    ]);
    send_all(&mut asker, 0..1000);
    let first = answers(&mut asker, 100);
    doomed.signal(signal);
    send_all(&mut asker, 1000..2000);
    let mut all = answers(&mut asker, 1900);
    all.extend(first);
    assert_eq!(all, expected(0..2000), "{signal}");
    let (status, rest, stderr) = asker.end();
    assert_eq!((status, rest), (Some(0), Vec::new()));
    assert!(!stderr.contains("answered ERR"), "{stderr}");
}

#[test]
fn the_lines_of_a_daemon_that_ends_or_is_killed_are_asked_elsewhere() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        lose_one_of_two(signal);
    }
}

#[test]
fn a_line_that_runs_out_of_time_in_the_queue_costs_no_worker() {
    let gate = Gate::new();
    let daemon = pool(1, &[]);
    let address = daemon.addr().to_string();
    let mut asker = Asker::start(&["--squid", "--channel-ids", "yes", "--timeout", "2s", &address]);
    asker.send(format!("1 wait {} a\n", gate.path()));
    let arrival = gate.arrival();
    asker.send("2 echo b\n");
    assert_eq!(answers(&mut asker, 2), ["1 ERR", "2 ERR"].map(str::to_owned).into());
    arrival.open();
    assert_eq!(asker.ask("3 echo c"), "3 c");
    assert_eq!(
        daemon.usr1().count("queries replied"),
        1,
        "the second was taken out of the queue"
    );
}

/// The release of before gives the hello to a worker.
#[test]
fn a_daemon_of_the_release_before_is_asked_line_by_line_and_its_successor_in_the_new_way() {
    let home = temp_dir();
    let socket = format!("unix:{}", home.path().join("pool").display());
    let worker = worker_command(&[]);
    let flags = [
        "-n",
        "2",
        "-d",
        &worker,
        "--listen",
        &socket,
        "-b",
        "600s",
        "--queue-timeout",
        "600s",
    ];
    let old = Daemon::with(flags).installed_at(&predecessor()).start();
    let mut asker = Asker::start(&[
        "--squid",
        "--channel-ids",
        "yes",
        "--timeout",
        "600s",
        "--log-level",
        "debug",
        &socket,
    ]);
    send_all(&mut asker, 0..300);
    assert_eq!(answers(&mut asker, 300), expected(0..300));
    asker
        .program
        .stderr_wait("gets a connection for each line: another answer to the hello");
    drop(old);
    asker.send("300 echo answer-300\n");
    asker.program.stderr_wait(&format!("{socket}: "));
    let new = Daemon::with(flags).start();
    assert_eq!(asker.answer(), "300 answer-300");
    asker.program.stderr_wait("answers again");
    send_all(&mut asker, 301..400);
    assert_eq!(answers(&mut asker, 99), expected(301..400));
    asker.program.stderr_wait("takes many lines on one connection");
    send_all(&mut asker, 400..500);
    assert_eq!(answers(&mut asker, 100), expected(400..500));
    assert!(new.usr1().count("multiplexed lines") >= 100);
}
