//! The exec door, a test for every sentence about the protocol of sockexec 3.1 in PROGRAMS ON REQUEST of iotcpd(1).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::exec_client::{ExecClient, address_in, door, netstring, request, run, sh};
use crate::harness::{Daemon, WATCHDOG};

/// Receives a message when the program that has opened this FIFO for writing, and its children, have gone.
struct Holders {
    path: PathBuf,
    gone: mpsc::Receiver<()>,
}

impl Holders {
    fn of(directory: &Path) -> Self {
        let path = directory.join("fifo");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let (sender, gone) = mpsc::channel();
        let opened = path.clone();
        thread::spawn(move || {
            File::open(opened).unwrap().read_to_end(&mut Vec::new()).unwrap();
            sender.send(()).ok();
        });
        Self { path, gone }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    #[track_caller]
    fn wait_gone(&self) {
        self.gone.recv_timeout(WATCHDOG).expect("the group is ended");
    }
}

#[test]
fn streams_and_status_come_back_as_the_examples_show() {
    let (daemon, _home) = door(&[]);
    let mut client = ExecClient::connect(&daemon);
    client.send("1:1,3:cat,5:hello,0:,");
    assert_eq!(client.pair(), Some(("stdout".to_owned(), b"hello".to_vec())));
    assert_eq!(client.pair(), Some(("exitcode".to_owned(), b"0".to_vec())));
    assert_eq!(client.pair(), None);
    let uname = run(&daemon, &["uname", "-s"], b"");
    assert_eq!((uname.text().as_str(), uname.code()), ("Linux\n", "0"));
    let both = sh(&daemon, "echo out; echo err >&2; exit 7");
    assert_eq!(
        (both.text(), both.complaint(), both.code()),
        ("out\n".into(), "err\n".into(), "7")
    );
}

#[test]
fn it_serves_on_tcp_as_well() {
    let daemon = Daemon::with(["exec", "127.0.0.1:0"]).start();
    assert_eq!(run(&daemon, &["cat"], b"over tcp").text(), "over tcp");
}

#[test]
fn no_shell_is_involved() {
    let (daemon, _home) = door(&[]);
    assert_eq!(
        run(&daemon, &["echo", "$HOME `id` *", "", "a b"], b"").text(),
        "$HOME `id` *  a b\n"
    );
}

#[test]
fn a_program_that_cannot_be_started_ends_as_in_a_shell_and_says_why() {
    let (daemon, home) = door(&[]);
    let missing = run(&daemon, &["no-such-program"], b"");
    assert_eq!(missing.code(), "127");
    assert!(
        missing.complaint().contains("no-such-program"),
        "{}",
        missing.complaint()
    );
    let plain = home.path().join("plain");
    fs::write(&plain, "no program").unwrap();
    assert_eq!(run(&daemon, &[plain.to_str().unwrap()], b"").code(), "126");
    assert_eq!(daemon.usr1().count("runs not started"), 2);
}

#[test]
fn the_program_starts_when_its_arguments_are_complete_and_input_streams() {
    let (daemon, _home) = door(&[]);
    let mut client = ExecClient::connect(&daemon);
    for byte in request(&["sh", "-c", "echo up; cat"]) {
        client.send([byte]);
    }
    client.wait_output("up\n");
    // A string of input is passed on before its end has come.
    client.send("10:first");
    client.wait_output("first");
    client.send("12345,3:end,0:,");
    assert_eq!(client.outcome().text(), "12345end");
}

#[test]
fn the_end_of_the_input_in_a_write_of_its_own_runs_nothing_twice() {
    let (daemon, home) = door(&[]);
    let traces = home.path().join("traces");
    let script = format!("echo ran >> {}; echo up; cat", traces.display());
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&["sh", "-c", &script]));
    client.wait_output("up\n");
    client.send("0:,");
    assert_eq!(client.outcome().code(), "0");
    assert_eq!(fs::read_to_string(traces).unwrap(), "ran\n");
    assert_eq!(daemon.usr1().count("runs total"), 1);
}

#[test]
fn a_half_close_only_ends_the_input() {
    let (daemon, _home) = door(&[]);
    let mut client = ExecClient::connect(&daemon);
    client.send([request(&["cat"]), netstring(b"all of it")].concat());
    client.half_close();
    let outcome = client.outcome();
    assert_eq!((outcome.text().as_str(), outcome.code()), ("all of it", "0"));
}

#[test]
fn the_end_by_a_signal_names_the_signal() {
    let (daemon, _home) = door(&[]);
    let outcome = sh(&daemon, "kill -SEGV $$");
    assert_eq!(outcome.end, ("termsig".to_owned(), "SEGV".to_owned()));
    assert_eq!(daemon.usr1().count("exit signal"), 1);
}

#[test]
fn streams_may_be_closed_early_and_input_left_unread() {
    let (daemon, _home) = door(&[]);
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&["sh", "-c", "exec <&- >&- 2>&-; exit 5"]));
    assert_eq!(client.outcome().code(), "5", "before its input has ended");
    // More than pipe and buffers hold, which the daemon has to read away.
    let outcome = run(&daemon, &["true"], &vec![b'x'; 3_000_000]);
    assert_eq!((outcome.code(), outcome.text().as_str()), ("0", ""));
    let outcome = run(
        &daemon,
        &["sh", "-c", "exec <&-; echo still here"],
        &vec![b'x'; 300_000],
    );
    assert_eq!(outcome.text(), "still here\n");
}

#[test]
fn a_grandchild_that_holds_the_output_is_not_waited_for_and_does_not_survive() {
    let (daemon, home) = door(&["--linger", "100ms"]);
    let holders = Holders::of(home.path());
    let script = format!("exec 3>{}; sleep 1000 & echo done; exit 3", holders.path());
    let outcome = sh(&daemon, &script);
    assert_eq!((outcome.text().as_str(), outcome.code()), ("done\n", "3"));
    holders.wait_gone();
    assert_eq!(daemon.usr1().count("runs cut"), 1);
}

#[test]
fn output_of_a_grandchild_within_the_linger_is_passed_on() {
    let (daemon, home) = door(&["--linger", "30s"]);
    let fifo = home.path().join("go");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let script = format!("echo first; (read line < {}; echo last) & exit 4", fifo.display());
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&["sh", "-c", &script]));
    client.wait_output("first\n");
    fs::write(fifo, "go\n").unwrap();
    let outcome = client.outcome();
    assert_eq!((outcome.text().as_str(), outcome.code()), ("last\n", "4"));
}

#[test]
fn children_of_a_program_do_not_survive_it_though_they_hold_nothing() {
    let (daemon, home) = door(&[]);
    let holders = Holders::of(home.path());
    let script = format!("exec 3>{}; sleep 1000 <&- >&- 2>&- & exit 0", holders.path());
    assert_eq!(sh(&daemon, &script).code(), "0");
    holders.wait_gone();
    assert_eq!(daemon.usr1().count("runs cut"), 0);
}

#[test]
fn a_client_that_goes_while_its_program_is_being_ended_is_counted() {
    let (daemon, _home) = door(&["-t", "100ms"]);
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]));
    daemon.usr1_until(|stats| stats.count("runs timeout") == 1);
    drop(client);
    daemon.usr1_until(|stats| stats.count("runs vanished") == 1);
}

#[test]
fn a_client_that_goes_takes_its_program_and_its_children_along() {
    let (daemon, home) = door(&["-k", "100ms"]);
    let holders = Holders::of(home.path());
    let script = format!(
        "exec 3>{}; trap '' TERM; sleep 1000 & echo up; cat; wait",
        holders.path()
    );
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&["sh", "-c", &script]));
    client.wait_output("up\n");
    drop(client);
    holders.wait_gone();
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("runs vanished"), stats.count("runs killed")), (1, 1));
    assert_eq!(daemon.children(), Vec::<i32>::new(), "not even a zombie");
}

#[test]
fn a_program_over_its_time_is_ended_and_its_place_is_as_good_as_before() {
    let (daemon, _home) = door(&["-t", "100ms", "-m", "1", "--linger", "100ms"]);
    for _ in 0..3 {
        let outcome = run(&daemon, &["sleep", "1000"], b"");
        assert_eq!(outcome.end, ("termsig".to_owned(), "TERM".to_owned()));
        daemon.usr1_until(|stats| stats.count("connections") == 0);
    }
    assert_eq!(daemon.usr1().count("runs timeout"), 3);
}

#[test]
fn a_connection_over_the_limit_is_refused_and_closed() {
    let (daemon, _home) = door(&["-m", "1"]);
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&["sh", "-c", "echo up; cat"]));
    client.wait_output("up\n");
    let refused = ExecClient::connect(&daemon).outcome();
    assert_eq!(refused.code(), "125");
    assert!(
        refused.complaint().contains("--max-connections"),
        "{}",
        refused.complaint()
    );
    client.send("0:,");
    assert_eq!(client.outcome().code(), "0");
    assert_eq!(daemon.usr1().count("refused max-conn"), 1);
}

#[test]
fn a_name_of_any_length_makes_no_long_line_in_the_log() {
    let (daemon, _home) = door(&[]);
    let long = run(&daemon, &["\u{1}", &"x".repeat(500_000)], b"");
    assert_eq!(long.code(), "127");
    let long = run(&daemon, &[&"\u{1}".repeat(500_000)], b"");
    assert_eq!(long.code(), "126", "no name can be so long: ENAMETOOLONG");
    let line = daemon.stderr_wait("status 126");
    assert!(line.len() < 4096, "{} bytes", line.len());
}

#[test]
fn a_malformed_request_is_refused_with_its_reason_and_harms_no_other_client() {
    let (daemon, _home) = door(&["--max-arguments", "1KiB"]);
    let wrong: [(&str, &str); 9] = [
        ("hello\n", "begins with its length"),
        ("1:0,", "decimal number from 1"),
        ("1:x,", "decimal number from 1"),
        ("4:9999,", "--max-arguments"),
        // Each takes a pointer, however short it is.
        ("3:114,", "--max-arguments"),
        ("1:1,99999999999999999999999:", "--max-arguments"),
        ("1:1,4:true;", "comma"),
        ("1:1,3:a\0b,", "NUL"),
        ("1:1,0:,", "name"),
    ];
    for (text, why) in wrong {
        let mut client = ExecClient::connect(&daemon);
        client.send(text);
        let outcome = client.outcome();
        assert_eq!(outcome.code(), "125", "{text:?}");
        assert!(outcome.complaint().contains(why), "{text:?}: {}", outcome.complaint());
    }
    let mut client = ExecClient::connect(&daemon);
    client.send("1:2,4:echo,");
    client.half_close();
    assert!(client.outcome().complaint().contains("in the middle"));
    assert_eq!(daemon.usr1().count("runs refused"), 10);
    assert_eq!(run(&daemon, &["echo", "fine"], b"").text(), "fine\n");
}

#[test]
fn nonsense_behind_the_arguments_ends_the_program() {
    let (daemon, _home) = door(&["-k", "100ms"]);
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&[
        "sh",
        "-c",
        "trap '' TERM; echo up; while :; do sleep 1000; done",
    ]));
    client.wait_output("up\n");
    client.send("5:abc");
    client.half_close();
    let outcome = client.outcome();
    assert_eq!(outcome.code(), "125");
    assert!(outcome.complaint().contains("in the middle"), "{}", outcome.complaint());
    let stats = daemon.usr1();
    assert_eq!((stats.count("runs killed"), stats.count("exit signal")), (1, 1));
}

#[test]
fn arguments_that_never_come_are_refused_in_time() {
    let (daemon, _home) = door(&["--read-timeout", "100ms"]);
    let mut client = ExecClient::connect(&daemon);
    client.send("1:2,4:echo,");
    let outcome = client.outcome();
    assert_eq!(outcome.code(), "125");
    assert!(
        outcome.complaint().contains("--read-timeout"),
        "{}",
        outcome.complaint()
    );
}

#[test]
fn a_client_that_does_not_read_slows_its_program_and_not_the_daemon() {
    let (daemon, _home) = door(&["--max-buffer", "64KiB"]);
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&["head", "-c", "5000000", "/dev/zero"]));
    // The buffer is full, and stays so while others are served.
    let held = |daemon: &Daemon| -> usize {
        let dump = daemon.usr2();
        let line = dump.iter().find_map(|line| line.split_once("to client = "));
        line.map_or(0, |(_, bytes)| bytes.parse().unwrap())
    };
    daemon.usr1_until(|_| held(&daemon) >= 64 << 10);
    assert_eq!(sh(&daemon, "echo fine").text(), "fine\n");
    assert!(held(&daemon) < 66 << 10, "{}", held(&daemon));
    let outcome = client.outcome();
    assert_eq!((outcome.stdout.len(), outcome.code()), (5_000_000, "0"));
}

#[test]
fn a_program_that_does_not_read_slows_its_client() {
    let (daemon, home) = door(&["--max-buffer", "64KiB"]);
    let fifo = home.path().join("go");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let mut client = ExecClient::connect(&daemon);
    let script = format!("echo up; read line < {}; wc -c", fifo.display());
    client.send(request(&["sh", "-c", &script]));
    client.wait_output("up\n");
    let mut sender = client.sender();
    let sending = thread::spawn(move || {
        for _ in 0..50 {
            sender.write_all(&netstring(&[b'x'; 100_000])).unwrap();
        }
        sender.write_all(b"0:,").unwrap();
    });
    let held = |line: &String| {
        line.split_once("to program = ")
            .is_some_and(|(_, rest)| !rest.starts_with("0,"))
    };
    daemon.usr1_until(|_| daemon.usr2().iter().any(held));
    fs::write(fifo, "go\n").unwrap();
    sending.join().unwrap();
    assert_eq!(client.outcome().text().trim(), "5000000");
}

#[test]
fn each_run_is_in_the_log_with_its_arguments_or_without() {
    for (flags, shown) in [
        (&["--log-args", "yes"][..], r#"ran "echo" "secret": exit status 0"#),
        (&[], r#"ran "echo": exit status 0"#),
    ] {
        let (daemon, _home) = door(flags);
        run(&daemon, &["echo", "secret"], b"");
        let line = daemon.stderr_wait(" ran ");
        assert!(
            line.contains(shown) && line.contains("0 bytes in, 7 out, 0 err"),
            "{line}"
        );
        assert!(line.contains(&format!("uid {}", nix::unistd::geteuid())), "{line}");
    }
}

/// An argument may be a secret: without being told so, the daemon shows none of them anywhere.
#[test]
fn arguments_are_nowhere_to_be_seen_unless_that_was_asked_for() {
    let secret = "Pa55word";
    let (daemon, home) = door(&["-d", "-t", "300ms", "-k", "100ms", "--max-arguments", "1KiB"]);
    let plain = home.path().join("plain");
    fs::write(&plain, "no program").unwrap();
    run(&daemon, &["echo", secret], b"");
    run(&daemon, &["/no/such", secret], b"");
    run(&daemon, &[plain.to_str().unwrap(), secret], b"");
    run(&daemon, &["echo", secret, &"x".repeat(2000)], b"");
    run(&daemon, &["sleep", "60", secret], b"");
    let mut vanishes = ExecClient::connect(&daemon);
    vanishes.send(request(&["sh", "-c", "echo up; cat", secret]));
    vanishes.wait_output("up\n");
    let dump = daemon.usr2();
    drop(vanishes);
    daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert!(!dump.join("\n").contains(secret), "{dump:?}");
    daemon.signal(Signal::SIGTERM);
    let (_, _, log) = daemon.finish();
    assert!(log.contains("\"echo\"") && !log.contains(secret), "{log}");
}

#[test]
fn each_program_that_a_client_did_not_get_is_in_the_log_as_well() {
    for (flags, shown) in [
        (
            &["--log-args", "yes"][..],
            r#"did not get to run "/no/such" "secret": status 127: "#,
        ),
        (&[], r#"did not get to run "/no/such": status 127: "#),
    ] {
        let (daemon, _home) = door(flags);
        run(&daemon, &["/no/such", "secret"], b"");
        let line = daemon.stderr_wait("did not get");
        assert!(line.contains(shown) && line.contains("No such file"), "{line}");
        assert!(line.contains(&format!("uid {}", nix::unistd::geteuid())), "{line}");
    }
}

#[test]
fn starts_and_first_bytes_are_measured_where_there_are_any() {
    let (daemon, _home) = door(&[]);
    let longest = |what: &str| -> f64 {
        let label = format!("{what} max ms");
        daemon.usr1().get(&label).unwrap().parse().unwrap()
    };
    run(&daemon, &["/no/such"], b"");
    assert_eq!((longest("spawn"), longest("first"), longest("run")), (0.0, 0.0, 0.0));
    run(&daemon, &["true"], b"");
    assert!(longest("spawn") > 0.0 && longest("run") > 0.0);
    assert_eq!(longest("first"), 0.0, "it has written nothing");
    sh(&daemon, "echo oops >&2");
    let first = longest("first");
    assert!(first > 0.0);
    // Bytes behind the first do not concern it.
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&["sh", "-c", "echo a; read b; echo $b"]));
    client.wait_output("a\n");
    let first = longest("first");
    client.send("2:b\n,0:,");
    assert_eq!(client.outcome().text(), "b\n");
    assert_eq!(longest("first"), first);
}

#[test]
fn with_debug_each_step_is_in_the_log() {
    let (daemon, _home) = door(&["-d"]);
    run(&daemon, &["true"], b"");
    daemon.stderr_wait("connection 0: Started, now running");
}

#[test]
fn a_program_survives_hup_and_finishes_while_the_daemon_stops() {
    let (daemon, _home) = door(&[]);
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&["sh", "-c", "echo up; cat"]));
    client.wait_output("up\n");
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("programs that are started from now on");
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("draining, 1 clients connected");
    client.send("3:end,0:,");
    assert_eq!(client.outcome().text(), "end");
    assert!(daemon.wait_exit().success());
}

#[test]
fn an_upgrade_leaves_running_programs_to_their_clients() {
    let home = crate::harness::temp_dir();
    let daemon = Daemon::with(["exec", &address_in(&home)])
        .installed_at(Path::new(env!("CARGO_BIN_EXE_iotcpd")))
        .start();
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&["sh", "-c", "echo up; cat"]));
    client.wait_output("up\n");
    daemon.signal(Signal::SIGURG);
    daemon.stderr_wait("draining, 1 clients connected");
    assert_eq!(
        run(&daemon, &["echo", "from the successor"], b"").text(),
        "from the successor\n"
    );
    client.send("3:end,0:,");
    assert_eq!(client.outcome().text(), "end");
    assert!(daemon.wait_exit().success());
    assert_eq!(run(&daemon, &["echo", "still there"], b"").text(), "still there\n");
}

#[test]
fn when_stopping_takes_too_long_programs_are_killed_and_clients_informed() {
    let (daemon, _home) = door(&["--stop-timeout", "100ms"]);
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&["sh", "-c", "echo up; exec sleep 1000"]));
    client.wait_output("up\n");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(client.outcome().end, ("termsig".to_owned(), "TERM".to_owned()));
    assert!(daemon.wait_exit().success());
}

#[test]
fn a_second_signal_hurries() {
    let (daemon, _home) = door(&[]);
    let mut client = ExecClient::connect(&daemon);
    client.send(request(&[
        "sh",
        "-c",
        "trap '' TERM; echo up; while :; do sleep 1000; done",
    ]));
    client.wait_output("up\n");
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("draining");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait_exit().success());
}

#[test]
fn an_address_that_other_machines_reach_is_refused_at_start() {
    let daemon = Daemon::with(["exec", "0.0.0.0:0"]).spawn();
    let (status, _, said) = daemon.finish();
    assert_eq!(status.code(), Some(2));
    assert!(
        said.contains("whoever reached 0.0.0.0:0 from another machine could run anything"),
        "{said}"
    );
    let inherited = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let daemon = Daemon::with(["exec", "systemd"]).inherit(inherited).spawn();
    let (status, _, said) = daemon.finish();
    assert_eq!(status.code(), Some(2));
    assert!(said.contains("could run anything"), "{said}");
}

#[test]
fn a_file_may_have_pools_and_exec_doors_and_reload_changes_them() {
    let home = crate::harness::temp_dir();
    let file = home.path().join("iotcpd.toml");
    let (one, two) = (home.path().join("1.sock"), home.path().join("2.sock"));
    let text = |socket: &Path, timeout: &str| {
        format!(
            "[exec.jobs]\nlisten = 'unix:{}'\ntimeout = {timeout}\n[pool.p]\ndaemon = 'cat'\nport = 0\n",
            socket.display()
        )
    };
    fs::write(&file, text(&one, "0")).unwrap();
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()]).start();
    assert_eq!(run(&daemon, &["echo", "hello"], b"").text(), "hello\n");
    fs::write(&file, text(&two, "'100ms'")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    assert!(!one.exists(), "the socket is gone");
    let mut late = std::os::unix::net::UnixStream::connect(&two).unwrap();
    late.write_all(&request(&["sleep", "1000"])).unwrap();
    let mut said = String::new();
    late.read_to_string(&mut said).unwrap();
    assert_eq!(said, "7:termsig,4:TERM,");
}

crate::harness::over_tls! {
    streams_and_status_come_back_as_the_examples_show,
    a_program_that_cannot_be_started_ends_as_in_a_shell_and_says_why,
    the_program_starts_when_its_arguments_are_complete_and_input_streams,
    the_end_of_the_input_in_a_write_of_its_own_runs_nothing_twice,
    a_half_close_only_ends_the_input,
    the_end_by_a_signal_names_the_signal,
    streams_may_be_closed_early_and_input_left_unread,
    a_grandchild_that_holds_the_output_is_not_waited_for_and_does_not_survive,
    a_program_over_its_time_is_ended_and_its_place_is_as_good_as_before,
    a_malformed_request_is_refused_with_its_reason_and_harms_no_other_client,
    nonsense_behind_the_arguments_ends_the_program,
    arguments_that_never_come_are_refused_in_time,
    a_client_that_does_not_read_slows_its_program_and_not_the_daemon,
    a_program_survives_hup_and_finishes_while_the_daemon_stops,
    an_upgrade_leaves_running_programs_to_their_clients,
    when_stopping_takes_too_long_programs_are_killed_and_clients_informed,
    a_second_signal_hurries,
}
