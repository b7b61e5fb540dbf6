//! Signals through the exec door: what stands behind the end of the input, an extension of sockexec's protocol.

use crate::exec_client::{ExecClient, door, netstring, request};

/// Says `up`, then what it gets; ends with 7 at TERM.
const TRAPS: &str = "trap 'echo INT' INT; trap 'echo HUP' HUP; trap 'echo USR1' USR1; trap 'echo TERM; exit 7' TERM; \
                     echo up; sleep 1000 & while :; do wait; done";

fn signal(name: &str) -> Vec<u8> {
    [netstring(b"signal"), netstring(name.as_bytes())].concat()
}

#[test]
fn signals_reach_the_program_as_often_as_they_come() {
    let (daemon, _home) = door(&[]);
    let mut client = ExecClient::connect(&daemon);
    client.send([request(&["sh", "-c", TRAPS]), b"0:,".to_vec()].concat());
    client.wait_output("up\n");
    for name in ["INT", "HUP", "USR1", "INT"] {
        for byte in signal(name) {
            client.send([byte]);
        }
        client.wait_output(&format!("{name}\n"));
    }
    client.send(signal("TERM"));
    let outcome = client.outcome();
    assert_eq!((outcome.text().as_str(), outcome.code()), ("TERM\n", "7"));
    assert_eq!(daemon.usr1().count("runs killed"), 0);
}

#[test]
fn a_signal_that_comes_before_the_program_has_started_is_kept_for_it() {
    let (daemon, _home) = door(&[]);
    for name in ["QUIT", "USR2"] {
        let mut client = ExecClient::connect(&daemon);
        client.send([request(&["sleep", "1000"]), b"0:,".to_vec(), signal(name)].concat());
        assert_eq!(client.outcome().end, ("termsig".to_owned(), name.to_owned()));
    }
}

#[test]
fn a_signal_reaches_a_program_that_reads_nothing() {
    let (daemon, _home) = door(&[]);
    let mut client = ExecClient::connect(&daemon);
    // More than its pipe holds, so that some of it waits in the door.
    let input = netstring(&[b'x'; 100_000]);
    client.send(
        [
            request(&["sh", "-c", "echo up; exec sleep 1000"]),
            input,
            b"0:,".to_vec(),
        ]
        .concat(),
    );
    client.wait_output("up\n");
    client.send(signal("TERM"));
    assert_eq!(client.outcome().end, ("termsig".to_owned(), "TERM".to_owned()));
}

#[test]
fn bytes_that_are_no_signal_are_ignored() {
    let (daemon, _home) = door(&[]);
    for nonsense in [
        &b"whatever follows"[..],
        &signal("KILL"),
        &signal("SIGINT"),
        &netstring(b"signal"),
        b"6:signal;3:INT,",
        b"0:,0:,0:,",
    ] {
        let mut client = ExecClient::connect(&daemon);
        client.send(request(&["sh", "-c", "echo up; cat; echo out"]));
        client.wait_output("up\n");
        client.send([&b"2:in,0:,"[..], nonsense].concat());
        let outcome = client.outcome();
        assert_eq!(
            (outcome.text().as_str(), outcome.code()),
            ("inout\n", "0"),
            "{nonsense:?}"
        );
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("runs refused"), stats.count("exit signal")), (0, 0));
}

#[test]
fn a_signal_is_nothing_before_the_end_of_the_input_and_nothing_to_a_program_that_has_exited() {
    let (daemon, home) = door(&["--linger", "30s"]);
    let mut client = ExecClient::connect(&daemon);
    client.send([request(&["cat"]), signal("TERM"), b"0:,".to_vec()].concat());
    assert_eq!(client.outcome().text(), "signalTERM");
    // A process that it has left behind is waited for, and is not its program.
    let fifo = home.path().join("go");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("(read line < {}; echo last) & echo up; exit 4", fifo.display());
    let mut client = ExecClient::connect(&daemon);
    client.send([request(&["sh", "-c", &script]), b"0:,".to_vec()].concat());
    client.wait_output("up\n");
    // The statistics know of no connection that lingers, but the dump does.
    daemon.usr1_until(|_| daemon.usr2().iter().any(|line| line.contains("lingering")));
    client.send(signal("TERM"));
    std::fs::write(fifo, "go\n").unwrap();
    let outcome = client.outcome();
    assert_eq!((outcome.text().as_str(), outcome.code()), ("last\n", "4"));
}

#[test]
fn a_client_that_reads_late_is_not_taken_for_a_held_output_and_all_that_it_gets_is_counted() {
    let (daemon, _home) = door(&["--linger", "1ms", "--max-buffer", "4KiB"]);
    let mut client = ExecClient::connect(&daemon);
    client.send([request(&["yes"]), b"0:,".to_vec()].concat());
    let dump_until = |wanted: &dyn Fn(&str) -> bool| {
        let connections = || daemon.usr2().into_iter().filter(|line| line.starts_with("c["));
        daemon.usr1_until(|_| connections().any(|line| wanted(&line)));
    };
    let number = |line: &str, of: &str| -> usize {
        let (_, rest) = line.split_once(of).unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    };
    // It sleeps because the pipe is full. When it does so turn after turn, in which more would have been moved, all is.
    let sleeps = |pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|it| it.contains(") S "));
    let full = |line: &str| number(line, "to client = ") >= 4096 && sleeps(number(line, "pid = "));
    let turns = std::cell::Cell::new(0);
    dump_until(&|line| {
        turns.set(if full(line) { turns.get() + 1 } else { 0 });
        turns.get() == 32
    });
    client.send(signal("TERM"));
    dump_until(&|line| line.contains("remains"));
    let outcome = client.outcome();
    let (stats, length) = (daemon.usr1(), outcome.stdout.len());
    assert_eq!(
        (stats.count("bytes stdout"), stats.count("runs cut")),
        (length as u64, 0)
    );
    daemon.stderr_wait(&format!("{length} out, 0 err"));
}

crate::harness::over_tls! {
    signals_reach_the_program_as_often_as_they_come,
    a_signal_reaches_a_program_that_reads_nothing,
    a_signal_that_comes_before_the_program_has_started_is_kept_for_it,
    bytes_that_are_no_signal_are_ignored,
    a_signal_is_nothing_before_the_end_of_the_input_and_nothing_to_a_program_that_has_exited,
    a_client_that_reads_late_is_not_taken_for_a_held_output_and_all_that_it_gets_is_counted,
}
