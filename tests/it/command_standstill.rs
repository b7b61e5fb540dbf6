//! Clients of a command door that send everything before they read: as with an exec door, their programs wait for them,
//! and they for their programs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use crate::command::{CAT, Torc, quoted, torc};
use crate::exec_standstill;
use crate::harness::{Address, Client, Daemon, WATCHDOG};

/// A door on a UNIX socket: TCP sockets may hold some 32 MiB by themselves.
fn serve(torc: &Torc, flags: &[&str]) -> Daemon {
    let (file, socket) = (torc.path("torc.cfg"), torc.path("sock"));
    let (file, socket) = (file.to_str().unwrap(), format!("unix:{}", socket.display()));
    let arguments = ["command", "--config", file, "--listen", &socket];
    Daemon::with(arguments).args(flags).start()
}

/// It begins with what is no end of a line: a NUL behind the name would be one.
fn noise(length: usize) -> Vec<u8> {
    [b"x".to_vec(), exec_standstill::noise(length - 1)].concat()
}

/// Everything out, then everything in.
fn all_at_once(daemon: &Daemon, name: &str, input: &[u8]) -> Vec<u8> {
    let mut client = sent(daemon, name, input);
    client.half_close();
    client.read_to_end()
}

fn sent(daemon: &Daemon, name: &str, input: &[u8]) -> Client {
    let mut client = daemon.client();
    client.send([format!("{name}\n").as_bytes(), input].concat());
    client
}

#[test]
fn a_client_that_sends_everything_before_it_reads_gets_everything_back() {
    let torc = torc(&[CAT, &quoted("name = 'joined'; cmd = '/bin/cat'; join = true;")]);
    let daemon = serve(&torc, &[]);
    let input = noise(7_000_000);
    for name in ["cat", "joined"] {
        let back = all_at_once(&daemon, name, &input);
        assert!(back == input, "{name}: {} bytes", back.len());
    }
}

#[test]
fn many_clients_send_everything_before_they_read_at_once() {
    let torc = torc(&[CAT]);
    let daemon = serve(&torc, &[]);
    let input = noise(3_000_000);
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| assert!(all_at_once(&daemon, "cat", &input) == input));
        }
    });
}

#[test]
fn a_client_that_sends_more_than_may_be_held_is_refused_and_the_log_names_the_flag() {
    let torc = torc(&[CAT]);
    let daemon = serve(&torc, &["--max-buffer", "64KiB"]);
    let input = noise(8_000_000);
    let back = all_at_once(&daemon, "cat", &input);
    let told =
        b"torcd: cat: more input was sent than the server holds while none of the output is read (--max-buffer)\n";
    let came = back.strip_suffix(told).unwrap_or_else(|| {
        let end = String::from_utf8_lossy(&back[back.len().saturating_sub(200)..]);
        panic!("{} bytes, at their end {end:?}", back.len())
    });
    assert!(input.starts_with(came) && came.len() > 100_000, "{} bytes", came.len());
    let line = daemon.stderr_wait("--max-buffer");
    assert!(
        line.contains("\"cat\" is ended: its client has sent more than"),
        "{line}"
    );
    assert_eq!(daemon.usr1().count("runs refused"), 1);
    // The next one has all of the room again.
    let input = noise(2_000_000);
    assert!(all_at_once(&daemon, "cat", &input) == input);
}

/// A client that only reads late, with nothing more to say, delays no other.
#[test]
fn a_client_that_reads_late_is_waited_for() {
    let group = quoted("name = 'late'; cmd = '@/late'; threads = 2;");
    let torc = torc(&[CAT, &group]).script("late", "head -c 4000000 /dev/zero; exec cat");
    let daemon = serve(&torc, &["--max-buffer", "64KiB"]);
    let input = noise(100_000);
    let mut silent = sent(&daemon, "late", &input);
    // The pause lasts until another client, which began later, has been given up.
    all_at_once(&daemon, "cat", &noise(8_000_000));
    daemon.stderr_wait("--max-buffer");
    silent.half_close();
    let back = silent.read_to_end();
    assert_eq!(back.len(), 4_100_000);
    assert!(back.ends_with(&input));
}

/// Over TCP it is not known whether a client has read anything, so it may pause for longer than one on a UNIX socket.
#[test]
fn a_tcp_client_that_pauses_goes_on_afterwards() {
    let torc = torc(&[CAT]);
    let daemon = serve(&torc, &["--max-buffer", "64KiB", "--listen", "127.0.0.1:0"]);
    let input = noise(64 << 20);
    let Address::Tcp(address) = daemon.nth_addr(2) else {
        panic!("the second address is one of TCP")
    };
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(WATCHDOG)).unwrap();
    client.set_write_timeout(Some(WATCHDOG)).unwrap();
    let mut sender = client.try_clone().unwrap();
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            sender.write_all(&[b"cat\n", input.as_slice()].concat())?;
            sender.shutdown(Shutdown::Write)
        });
        daemon.usr1_until(|stats| stats.count("runs running") == 1);
        // The pause lasts until another client, which began later, has been given up.
        all_at_once(&daemon, "cat", &noise(8_000_000));
        daemon.stderr_wait("--max-buffer");
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert!(back == input, "{} bytes", back.len());
        sending.join().unwrap().unwrap();
    });
}

/// The first client of a shared program is the one whose input it gets, and the others get their output all the same.
#[test]
fn a_client_that_shares_its_program_gets_everything_as_well() {
    let group = quoted("name = 'joined'; cmd = '@/joined'; threads = 1; join = true;");
    let torc = torc(&[&group]).script("joined", "echo up; exec cat");
    let daemon = serve(&torc, &[]);
    let mut first = daemon.client();
    first.send("joined\n");
    first.read_text("up\n");
    let mut second = daemon.client();
    second.send("joined\n");
    second.read_text("up\n");
    let input = noise(7_000_000);
    thread::scope(|scope| {
        let reading = scope.spawn(|| second.read_to_end());
        first.send(&input);
        first.half_close();
        assert!(first.read_to_end() == input);
        assert!(reading.join().unwrap() == input);
    });
}
