//! Clients that were not written for this door: as Perl, nginx and people with nc speak sockexec's protocol.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::exec_client::{ExecClient, door, netstring, request};
use crate::harness::{Address, Daemon, Program, WATCHDOG};

/// A client in Perl as the examples of sockexec have it.
pub(crate) const PERL: &str = include_str!("peers/sockexec.pl");

#[track_caller]
pub(crate) fn path_of(daemon: &Daemon) -> String {
    match daemon.addr() {
        Address::Unix(path) => path,
        other => panic!("{other} is no path"),
    }
}

/// Runs a program to its end with this input: status, output, complaints.
#[track_caller]
pub(crate) fn finish(command: &mut Command, input: &[u8]) -> (Option<i32>, String, String) {
    let mut program = Program::start(command);
    // One that has ended wants no more.
    let _ = program.stdin.take().unwrap().write_all(input);
    let (status, stdout, stderr) = program.finish();
    (status.code(), stdout, stderr)
}

fn perl(daemon: &Daemon, arguments: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let path = path_of(daemon);
    finish(Command::new("perl").args(["-e", PERL, &path]).args(arguments), input)
}

#[test]
fn a_perl_client_gets_streams_and_status() {
    let (daemon, _home) = door(&[]);
    let said = perl(&daemon, &["sh", "-c", "cat; echo oops >&2; exit 3"], b"one\ntwo\n");
    assert_eq!(said, (Some(3), "one\ntwo".into(), "oops".into()));
    let (status, _, complaint) = perl(&daemon, &["no-such-program"], b"");
    assert_eq!(status, Some(127));
    assert!(complaint.contains("no-such-program"), "{complaint}");
    let killed = perl(&daemon, &["sh", "-c", "kill -KILL $$"], b"");
    assert_eq!(killed, (Some(254), String::new(), "// killed by signal KILL".into()));
}

#[test]
fn a_perl_client_shows_why_it_is_refused() {
    let (daemon, _home) = door(&["--max-arguments", "1KiB"]);
    let (status, _, complaint) = perl(&daemon, &["echo", &"x".repeat(2000)], b"");
    assert_eq!(status, Some(125));
    assert!(complaint.contains("--max-arguments"), "{complaint}");
}

/// nginx's Lua sends arguments and input in one go, and reads pairs until the end.
#[test]
fn a_client_that_sends_everything_and_reads_to_the_end_is_served() {
    let (daemon, _home) = door(&[]);
    let input = vec![b'x'; 200_000];
    let wire = [
        request(&["sh", "-c", "cat; cat >&2"]),
        netstring(&input),
        b"0:,".to_vec(),
    ]
    .concat();
    for _ in 0..20 {
        let mut client = ExecClient::connect(&daemon);
        let mut sender = client.sender();
        let wire = wire.clone();
        let sending = std::thread::spawn(move || sender.write_all(&wire).unwrap());
        client.wait_output_begun();
        let outcome = client.outcome();
        assert_eq!((outcome.code(), outcome.stderr.len()), ("0", 0));
        sending.join().unwrap();
    }
    assert_eq!(daemon.usr1().count("bytes stdout"), 4_000_000);
}

#[test]
fn nc_can_be_the_client() {
    let (daemon, _home) = door(&[]);
    let mut nc = Command::new("nc");
    nc.args(["-N", "-U", &path_of(&daemon)]);
    let (status, said, _) = finish(&mut nc, b"1:1,3:cat,5:hello,0:,");
    assert_eq!((status, said.as_str()), (Some(0), "6:stdout,5:hello,8:exitcode,1:0,"));
}

#[test]
fn a_client_that_only_listens_for_the_end_misses_nothing() {
    let (daemon, _home) = door(&[]);
    let mut socket = UnixStream::connect(path_of(&daemon)).unwrap();
    socket
        .write_all(&request(&["head", "-c", "3000000", "/dev/zero"]))
        .unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    // Nothing is read before the program must have filled every buffer on the way.
    daemon.usr1_until(|_| daemon.usr2().iter().any(|line| line.contains("to client = 262")));
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut socket, &mut all).unwrap();
    assert!(all.len() > 3_000_000 && all.ends_with(b"8:exitcode,1:0,"));
}

// ---- as nginx's Lua reads -------------------------------------------------------------------------------------

/// The answer to a request, in the netstrings that it is made of.
fn strings(mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !wire.is_empty() {
        let colon = wire.iter().position(|byte| *byte == b':').unwrap();
        let length: usize = std::str::from_utf8(&wire[..colon]).unwrap().parse().unwrap();
        found.push(wire[colon + 1..][..length].to_vec());
        assert_eq!(wire[colon + 1 + length], b',');
        wire = &wire[colon + length + 2..];
    }
    found
}

/// Reads what comes, in receives of 8,192 bytes, each of which is looked at by itself: whether every pair lies there
/// whole.
struct Receives {
    socket: UnixStream,
    whole: Vec<u8>,
    torn: usize,
}

impl Receives {
    /// One receive of everything that lies there; whether it was the end.
    fn all_there_is(&mut self) -> bool {
        self.socket.set_nonblocking(false).unwrap();
        let mut come = vec![0; 8192];
        let mut lying_there = Vec::new();
        let mut count = self.socket.read(&mut come).unwrap();
        let over = count == 0;
        self.socket.set_nonblocking(true).unwrap();
        while count > 0 {
            lying_there.extend(&come[..count]);
            count = self.socket.read(&mut come).unwrap_or(0);
        }
        self.torn += usize::from(!is_whole(&lying_there));
        self.whole.extend(lying_there);
        over
    }
}

/// Returns true if the last pair ends here.
fn is_whole(mut wire: &[u8]) -> bool {
    let mut strings = 0;
    while !wire.is_empty() {
        let Some(colon) = wire.iter().position(|byte| *byte == b':') else {
            return false;
        };
        let length: usize = std::str::from_utf8(&wire[..colon]).unwrap().parse().unwrap();
        let Some(rest) = wire.get(colon + length + 2..) else {
            return false;
        };
        (wire, strings) = (rest, strings + 1);
    }
    strings % 2 == 0
}

/// That client waits a millisecond for the rest of a pair of which it has found a part: so a part must never be there.
#[test]
fn pairs_are_short_and_lie_there_whole_however_slowly_they_are_read() {
    let (daemon, _home) = door(&[]);
    for script in [
        "head -c 3000000 /dev/zero",
        "head -c 1000000 /dev/zero & head -c 1000000 /dev/zero >&2; wait",
        "for i in $(seq 2000); do echo $i; head -c 700 /dev/zero >&2; done",
        "head -c 4096 /dev/zero",
        "head -c 4097 /dev/zero",
    ] {
        let mut socket = UnixStream::connect(path_of(&daemon)).unwrap();
        socket.set_read_timeout(Some(WATCHDOG)).unwrap();
        socket.write_all(&request(&["sh", "-c", script])).unwrap();
        socket.write_all(b"0:,").unwrap();
        let mut receives = Receives {
            socket,
            whole: Vec::new(),
            torn: 0,
        };
        while !receives.all_there_is() {}
        assert_eq!(receives.torn, 0, "{script}");
        let strings = strings(&receives.whole);
        let longest = strings.iter().map(Vec::len).max();
        assert!(longest <= Some(4096), "{script}: {longest:?}");
        assert_eq!(strings[strings.len() - 2..], [b"exitcode".to_vec(), b"0".to_vec()]);
    }
}

/// The same client takes an answer for broken if its end does not come with the last pair: nothing may be done between
/// the two.
#[test]
fn the_end_of_the_connection_leaves_with_the_last_pair() {
    let home = crate::harness::temp_dir();
    let path = home.path().join("exec.sock");
    for (listen, more) in [(path.to_str().unwrap(), false), ("127.0.0.1:0", true)] {
        let daemon = Daemon::with(["exec", listen]).start();
        let calls = home.path().join("calls");
        let mut strace = Command::new("strace");
        strace.args(["-p", &daemon.pid().to_string(), "-o", calls.to_str().unwrap()]);
        let strace = Program::start(strace.args(["-s", "4096", "-e", "trace=network,read,write,writev,close"]));
        strace.stderr_wait("attached");
        // One that says the end of its input, one that half-closes, and one that has more to say.
        for input in ["0:,", "", "0:,behind"] {
            let mut client = daemon.client();
            client.send([&request(&["echo", "out"]), input.as_bytes()].concat());
            if input.is_empty() {
                client.half_close();
            }
            assert_eq!(client.read_to_end(), b"6:stdout,4:out\n,8:exitcode,1:0,");
        }
        let mut refused = daemon.client();
        refused.send("nonsense");
        assert!(refused.read_to_end().ends_with(b"8:exitcode,3:125,"));
        drop(daemon);
        strace.wait_exit();
        let calls = fs::read_to_string(calls).unwrap();
        let calls: Vec<&str> = calls.lines().collect();
        let says_the_end = |at: &usize| calls[*at].starts_with("send") && calls[*at].contains("exitcode");
        let ends: Vec<usize> = (0..calls.len()).filter(says_the_end).collect();
        assert_eq!(ends.len(), 4);
        for at in ends {
            assert!(
                calls[at + 1].starts_with("shutdown("),
                "{}",
                calls[at..at + 2].join("\n")
            );
            // Told to wait for more, the bytes leave in the segment of the end.
            assert_eq!(calls[at].contains("MSG_MORE"), more, "{}", calls[at]);
        }
    }
}
