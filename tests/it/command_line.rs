//! Command lines as they were written for iotcpd 1.1 and sockexec, which were read by getopt.

use crate::exec_client::door;
use crate::harness::{Daemon, worker_command};

#[test]
fn abbreviated_flags_mean_what_they_meant_whatever_has_come_since() {
    let command = worker_command(&[]);
    let daemon = Daemon::with(["--n", "2", "--d", &command, "--p=0", "--b", "15", "--al", "2"]).start();
    assert_eq!(daemon.ask("echo x"), "x\n");
    assert_eq!(daemon.usr1().count("daemon S_AVAILABLE"), 2);
    let (status, _, stderr) = Daemon::with(["--ipv", "127.0.0.1"]).spawn().finish();
    assert_eq!(status.code(), Some(2));
    assert_eq!(
        stderr,
        "iotcpd: --ipv may be one of several flags; write --ipv4 or --ipv6"
    );
}

#[test]
fn an_empty_address_is_none() {
    let command = worker_command(&[]);
    let daemon = Daemon::with(["-n", "1", "-d", &command, "-p", "0", "-i", "", "-I", "::1"]).start();
    assert_eq!(daemon.ask("echo x"), "x\n");
    let log = daemon.stderr.text();
    assert!(
        log.contains(": listening on [::1]:") && !log.contains("127.0.0.1"),
        "{log}"
    );
    let (status, _, stderr) = Daemon::with(["-n", "1", "-d", &command, "-i", ""]).spawn().finish();
    assert_eq!(status.code(), Some(2));
    assert!(
        stderr.contains("--ipv4: it is empty") && stderr.contains("give --ipv6 or --listen"),
        "{stderr}"
    );
}

#[test]
fn of_a_flag_given_twice_the_last_counts_and_lists_stay_lists() {
    let command = worker_command(&[]);
    let daemon = Daemon::with([
        "-n",
        "7",
        "-d",
        "/no/such/program",
        "-p",
        "1",
        "-n",
        "2",
        "-d",
        &command,
    ])
    .args(&[
        "-p",
        "0",
        "--allow",
        "127.0.0.1",
        "--allow",
        "192.0.2.1",
        "--persistent",
        "--persistent",
    ])
    .start();
    let mut client = daemon.client();
    client.send("echo x\n");
    assert_eq!(client.read_line(), "x", "allowed by the first of two");
    assert_eq!(daemon.usr1().count("daemon S_AVAILABLE"), 2);
    // The one of sockexec too.
    let (daemon, _home) = door(&[
        "-t", "1", "-m", "1", "-k", "1", "-t", "600", "-m", "5", "-k", "2", "-d", "-d",
    ]);
    assert!(!daemon.stderr.text().contains("ERROR"));
}

#[test]
fn words_that_belong_to_no_flag_are_passed_over_with_a_warning() {
    let command = worker_command(&[]);
    for arguments in [
        &["-n", "1", "surplus", "-d", &command, "-p", "0"][..],
        &["surplus", "-n", "1", "-d", &command, "-p", "0"],
        &["-n", "1", "-d", &command, "-p", "0", "--", "surplus"],
    ] {
        let daemon = Daemon::with(arguments.iter().copied()).start();
        daemon.stderr_wait("iotcpd: `surplus` belongs to no flag and is passed over; leave it out");
        assert_eq!(daemon.ask("echo x"), "x\n");
    }
    // A terminal is sent no control sequence.
    let daemon = Daemon::with(["-d", command.as_str(), "-p", "0", "--", "\x1b[31m"]).start();
    daemon.stderr_wait(r"iotcpd: `\u{1b}[31m` belongs to no flag and is passed over");
    // A word that may be meant for a command is not taken for an argument.
    for arguments in [&["serve"][..], &["chek", "--config", "x"], &["-n", "8", "check"]] {
        let (status, _, stderr) = Daemon::with(arguments.iter().copied()).spawn().finish();
        assert_eq!(status.code(), Some(2), "{stderr}");
    }
}

#[test]
fn numbers_may_stand_between_blanks_but_what_follows_them_is_a_mistake() {
    let command = worker_command(&[]);
    let daemon = Daemon::with(["-n", " 1 ", "-d", &command, "-p", "+0"]).start();
    assert_eq!(daemon.ask("echo x"), "x\n");
    for (flag, value) in [("-p", "9991x"), ("-n", "0"), ("-n", "two"), ("-b", "")] {
        let (status, _, stderr) = Daemon::with([flag, value]).spawn().finish();
        assert_eq!(status.code(), Some(2), "{flag} {value}: {stderr}");
    }
}
