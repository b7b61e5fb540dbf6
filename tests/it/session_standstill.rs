//! Sessions whose clients send everything before they read, with workers that wait for their output to be read
//! meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;

use crate::exec_standstill::noise;
use crate::harness::{Address, Client, Daemon, TempDir, WATCHDOG, temp_dir};

/// More bytes than sockets and pipes alone hold, over TCP as well.
const LOTS: usize = 64 << 20;

/// Sessions with this worker on a UNIX socket, which keeps next to nothing by itself.
fn sessions(workers: usize, script: &str, flags: &[&str]) -> (Daemon, TempDir) {
    let (home, workers) = (temp_dir(), workers.to_string());
    let socket = home.path().join("sock");
    let (command, listen) = (
        shell_words::join(["sh", "-c", script]),
        format!("unix:{}", socket.display()),
    );
    let arguments = [
        "-n",
        &workers,
        "-d",
        &command,
        "--mode",
        "session",
        "--queue-timeout",
        "60s",
        "--listen",
        &listen,
        "--listen",
        "127.0.0.1:0",
    ];
    let daemon = Daemon::with(arguments).args(flags).start();
    (daemon, home)
}

fn unix(daemon: &Daemon) -> UnixStream {
    let Address::Unix(path) = daemon.nth_addr(1) else {
        panic!("the first address is a path")
    };
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream.set_write_timeout(Some(WATCHDOG)).unwrap();
    stream
}

fn tcp(daemon: &Daemon) -> TcpStream {
    let Address::Tcp(address) = daemon.nth_addr(2) else {
        panic!("the second address is one of TCP")
    };
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream.set_write_timeout(Some(WATCHDOG)).unwrap();
    stream
}

/// Everything out, the end behind it, then everything in.
fn all_at_once(address: &Address, input: &[u8]) -> Vec<u8> {
    let mut client = Client::connect(address);
    client.send(input);
    client.half_close();
    client.read_to_end()
}

#[test]
fn a_client_that_sends_everything_before_it_reads_gets_everything_back() {
    let (daemon, _home) = sessions(2, "exec cat", &["--max-buffer", "2MiB"]);
    let input = noise(LOTS);
    for address in [daemon.nth_addr(1), daemon.nth_addr(2)] {
        let back = all_at_once(&address, &input);
        assert!(back == input, "{address}: {} bytes", back.len());
    }
}

/// Input just below the default of `--max-buffer`.
#[test]
fn by_default_up_to_eight_megabytes_come_back_whole() {
    let (daemon, _home) = sessions(1, "exec cat", &[]);
    let input = noise(7 << 20);
    let back = all_at_once(&daemon.nth_addr(1), &input);
    assert!(back == input, "{} bytes", back.len());
}

/// Each byte is a message of its own to a UNIX socket, and takes a place of its own in a pipe.
#[test]
fn pieces_of_one_byte_come_back_whole_as_well() {
    let (daemon, _home) = sessions(1, "exec cat", &["--max-buffer", "64KiB"]);
    let input = noise(300_000);
    let mut client = unix(&daemon);
    for byte in &input {
        client.write_all(&[*byte]).unwrap();
    }
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert!(back == input, "{} bytes", back.len());
}

/// Without an end: the session goes on afterwards, and stands still another time.
#[test]
fn the_deadlock_of_a_session_is_resolved_more_than_once() {
    let (daemon, _home) = sessions(1, "exec cat", &[]);
    let input = noise(2 << 20);
    let mut client = unix(&daemon);
    for _ in 0..3 {
        client.write_all(&input).unwrap();
        let mut back = vec![0; input.len()];
        client.read_exact(&mut back).unwrap();
        assert!(back == input);
        client.write_all(b"and small").unwrap();
        let mut back = [0; 9];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"and small");
    }
}

/// A terminal has no end that could be told in one direction, so the worker knows how much there is.
#[test]
fn a_worker_on_a_terminal_gets_and_gives_everything_as_well() {
    let length = 3 << 20;
    let (daemon, _home) = sessions(1, &format!("exec head -c {length}"), &["--pty"]);
    let input = noise(length);
    let mut client = unix(&daemon);
    client.write_all(&input).unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert!(back == input, "{} bytes", back.len());
}

/// Forty that would hold 2 MiB each may hold 16 MiB together, and 64 KiB each. The ones without room wait for it, or
/// are ended.
#[test]
fn many_at_once_stay_within_the_limit_of_the_pool() {
    const CLIENTS: usize = 40;
    let (daemon, _home) = sessions(CLIENTS, "exec cat", &["--max-buffer", "64KiB"]);
    let input = noise(2 << 20);
    let before = daemon.resident();
    let highest = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = unix(&daemon);
                    if let Err(error) = client.write_all(&input) {
                        assert!(
                            matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
                            "{error}"
                        );
                    }
                    // An error: it was ended with input unread.
                    let _ = client.shutdown(std::net::Shutdown::Write);
                    let mut back = Vec::new();
                    let _ = client.read_to_end(&mut back);
                    assert!(input.starts_with(&back), "{} bytes", back.len());
                    back.len() == input.len()
                })
            })
            .collect();
        let mut highest = 0;
        while clients.iter().any(|client| !client.is_finished()) {
            // Each is an answer of the loop.
            daemon.usr1();
            highest = highest.max(daemon.resident());
        }
        let whole = clients.into_iter().map(|client| client.join().unwrap());
        assert!(
            whole.filter(|whole| *whole).count() >= 8,
            "as many as there is room for at once"
        );
        highest
    });
    // A growing vector takes twice its size for a moment.
    let most = 2 * ((16 << 20) + CLIENTS * (64 << 10)) + (8 << 20);
    assert!(
        highest.saturating_sub(before) < most,
        "{before} before, {highest} at most"
    );
}

#[test]
fn a_client_that_sends_more_than_may_be_held_is_ended_and_the_log_names_the_flag() {
    let (daemon, _home) = sessions(1, "exec cat", &["--max-buffer", "64KiB"]);
    let input = noise(8_000_000);
    let mut client = unix(&daemon);
    let mut sender = client.try_clone().unwrap();
    let (back, sent) = thread::scope(|scope| {
        let sending = scope.spawn(|| sender.write_all(&input));
        let line = daemon.stderr_wait("--max-buffer");
        assert!(line.contains("ended the session of"), "{line}");
        let mut back = Vec::new();
        // An error: it had more to send than is read away.
        let _ = client.read_to_end(&mut back);
        (back, sending.join().unwrap())
    });
    assert!(
        sent.is_err() && input.starts_with(&back) && back.len() > 100_000,
        "{} bytes",
        back.len()
    );
    let stats = daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    assert_eq!(stats.count("refused slow-write"), 1);
    // The next one has all of the room again.
    let input = noise(2_000_000);
    let back = all_at_once(&daemon.nth_addr(1), &input);
    assert!(back == input, "{} bytes", back.len());
}

/// Over TCP it is not known whether a client has read anything, so it may pause for longer than one on a UNIX socket.
#[test]
fn a_client_that_pauses_goes_on_afterwards() {
    let (daemon, _home) = sessions(2, "exec cat", &["--max-buffer", "64KiB"]);
    let input = noise(LOTS);
    let mut paused = tcp(&daemon);
    let mut sender = paused.try_clone().unwrap();
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            sender.write_all(&input).unwrap();
            sender.shutdown(std::net::Shutdown::Write).unwrap();
        });
        daemon.usr1_until(|stats| stats.count("session bytes out") > 100_000);
        // The pause lasts until another client, which began later, has been given up.
        let mut silent = unix(&daemon);
        let also = scope.spawn(move || silent.write_all(&noise(8_000_000)));
        daemon.stderr_wait("--max-buffer");
        assert!(also.join().unwrap().is_err());
        let mut back = Vec::new();
        paused.read_to_end(&mut back).unwrap();
        assert!(back == input, "{} bytes", back.len());
        sending.join().unwrap();
    });
}

/// Its worker writes without an end, so holding what the client sends helps neither; its client reads, and that is
/// enough.
#[test]
fn a_worker_without_an_end_does_not_keep_its_client_from_reading() {
    let (daemon, _home) = sessions(1, "exec yes", &[]);
    let mut client = unix(&daemon);
    client.write_all(&noise(2 << 20)).unwrap();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..20 {
        client.read_exact(&mut piece).unwrap();
        assert!(piece.chunks(2).all(|line| line == b"y\n"));
    }
}

/// No wait: the client has ended, and its bytes are for its worker.
#[test]
fn held_output_is_dropped_with_a_client_that_goes() {
    let (daemon, _home) = sessions(1, "exec cat", &[]);
    for _ in 0..3 {
        let mut client = unix(&daemon);
        client.write_all(&noise(4 << 20)).unwrap();
        drop(client);
        daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    }
}
