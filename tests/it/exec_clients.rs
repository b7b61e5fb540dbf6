//! Clients that were not written for this door: as Perl, nginx and people with nc speak sockexec's protocol.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::exec_client::{ExecClient, door, netstring, request};
use crate::harness::{Address, Daemon, Program};

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
fn nc_is_client_enough() {
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
