//! The dump of `kill -USR2`, read line by line, as an administrator would who looks for the cause of something.

use std::cell::RefCell;
use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{hold as hold_command, holding};
use crate::exec_client::{ExecClient, door, request};
use crate::harness::{Arrival, Client, Daemon, Gate, temp_dir, worker_command};

/// No client or worker leaves by itself while a test looks.
const PATIENT: [&str; 4] = ["--queue-timeout", "600s", "-b", "600s"];

fn pool(workers: u32, flags: &[&str]) -> Daemon {
    let daemon = Daemon::pool(workers, &worker_command(&[]), &[&PATIENT[..], flags].concat());
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == u64::from(workers));
    daemon
}

/// The lines behind the registers of iotcpd 1.1, which come first and unchanged.
#[track_caller]
fn readable(daemon: &Daemon) -> Vec<String> {
    let dump = daemon.usr2();
    let is_register = |line: &str| line.is_empty() || line.starts_with("d[");
    let (registers, readable) = dump.split_at(dump.iter().position(|line| !is_register(line)).unwrap());
    assert!(registers.len().is_multiple_of(9), "{dump:#?}");
    assert!(!readable.iter().any(|line| is_register(line)), "{dump:#?}");
    assert!(readable.iter().all(|line| line.starts_with("pool: ")), "{dump:#?}");
    readable.to_vec()
}

/// The dump, as soon as it shows the wanted state.
#[track_caller]
fn readable_until(daemon: &Daemon, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
    let dump = RefCell::new(Vec::new());
    daemon.usr1_until(|_| {
        dump.replace(readable(daemon));
        wanted(&dump.borrow())
    });
    dump.into_inner()
}

/// The lines about something.
fn about<'d>(dump: &'d [String], what: &str) -> Vec<&'d str> {
    let begin = format!("pool: {what}");
    let lines = dump.iter().filter(|line| line.starts_with(&begin));
    lines.map(String::as_str).collect()
}

#[track_caller]
fn one<'d>(dump: &'d [String], what: &str) -> &'d str {
    match about(dump, what).as_slice() {
        [line] => line,
        lines => panic!("{lines:#?} of {dump:#?}"),
    }
}

/// The text of a line under a name, up to the next comma.
#[track_caller]
fn said<'l>(line: &'l str, name: &str) -> &'l str {
    let begin = format!("{name} = ");
    let (_, rest) = line
        .split_once(&begin)
        .unwrap_or_else(|| panic!("no {name} in {line:?}"));
    rest.split(", ").next().unwrap()
}

/// A client whose request holds a worker.
fn hold(daemon: &Daemon, text: &str) -> (Client, Arrival) {
    let (gate, mut client) = (Gate::new(), daemon.client());
    client.send(format!("wait {} {text}\n", gate.path()));
    (client, gate.arrival())
}

fn is_time(text: &str) -> bool {
    let mut words = text.split(' ');
    let number = words
        .next()
        .is_some_and(|number| number.trim_start_matches('<').parse::<f64>().is_ok());
    number && words.next().is_some_and(|unit| ["ms", "s", "min"].contains(&unit))
}

#[test]
fn each_worker_has_a_line_with_its_state_its_process_and_its_request() {
    let daemon = pool(2, &[]);
    assert_eq!(daemon.ask("echo once"), "once\n");
    let (client, arrival) = hold(&daemon, "held");
    let dump = readable(&daemon);
    let header = &dump[0];
    let version = concat!("pool: pool of iotcpd ", env!("CARGO_PKG_VERSION"), ", pid = ");
    assert!(
        header.starts_with(version) && header.contains(", up since 2"),
        "{header}"
    );
    assert_eq!(said(header, "pid"), daemon.pid().to_string());
    assert_eq!((said(header, "workers"), said(header, "clients")), ("2", "1 of 4096"));
    let workers = about(&dump, "worker ");
    let [busy, idle] = match workers.as_slice() {
        [one, other] if one.contains("busy") => [one, other],
        [one, other] => [other, one],
        _ => panic!("{dump:#?}"),
    };
    assert_eq!((said(idle, "state"), said(busy, "state")), ("idle", "busy"));
    assert_eq!(said(busy, "pid"), arrival.pid.to_string());
    assert_ne!(said(idle, "pid"), said(busy, "pid"));
    let served: u32 = workers
        .iter()
        .map(|line| said(line, "served").parse::<u32>().unwrap())
        .sum();
    assert_eq!(served, 1);
    for line in &workers {
        assert!(is_time(said(line, "age")), "{line}");
        let memory = said(line, "memory");
        assert!(memory.ends_with(" KiB") || memory.ends_with(" MiB"), "{line}");
    }
    assert!(
        said(busy, "since").ends_with(" ago") && is_time(said(busy, "since")),
        "{busy}"
    );
    assert_eq!(said(busy, "client"), format!("127.0.0.1:{}", client.local_port()));
    assert!(
        busy.contains(", request = \"wait ") && busy.ends_with(" held\""),
        "{busy}"
    );
    assert!(!idle.contains("request"), "{idle}");
    assert_eq!(one(&dump, "queue"), "pool: queue: nobody waits");
    assert_eq!(one(&dump, "clients"), "pool: clients: 1 connected");
    let line = one(&dump, "client ");
    assert_eq!((said(line, "state"), said(line, "unanswered")), ("waiting", "1"));
    assert_eq!(said(line, "client"), format!("127.0.0.1:{}", client.local_port()));
}

#[test]
fn the_dump_shows_what_each_client_does() {
    let home = temp_dir();
    let socket = format!("unix:{}", home.path().join("s").display());
    let daemon = pool(1, &["--listen", &socket, "--persistent", "--max-reply", "16M"]);
    let mut reading = Client::connect(&daemon.nth_addr(2));
    reading.send("not yet who");
    let mut idle = daemon.client();
    idle.send("echo one\n");
    assert_eq!(idle.read_line(), "one");
    // It takes nothing of an answer that no socket has room for.
    let mut writing = daemon.client();
    writing.send("big 12000000\n");
    let states = |dump: &[String]| -> Vec<String> {
        let mut states: Vec<_> = about(dump, "client ")
            .iter()
            .map(|line| said(line, "state").to_owned())
            .collect();
        states.sort();
        states
    };
    let dump = readable_until(&daemon, |dump| states(dump) == ["idle", "reading", "writing"]);
    let line = |state: &str| {
        *about(&dump, "client ")
            .iter()
            .find(|line| said(line, "state") == state)
            .unwrap()
    };
    assert_eq!(said(line("reading"), "held"), "11 bytes");
    let me = format!("unix (pid {} uid ", std::process::id());
    assert!(said(line("reading"), "client").starts_with(&me), "{}", line("reading"));
    assert_eq!(said(line("idle"), "unanswered"), "0");
    assert!(said(line("writing"), "held").ends_with(" MiB"), "{}", line("writing"));
}

#[test]
fn of_a_thousand_waiting_clients_the_dump_shows_the_first_and_counts_the_others() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let daemon = pool(1, &[]);
    let (_client, _arrival) = hold(&daemon, "held");
    let mut clients: Vec<Client> = (0..1000).map(|_| daemon.client()).collect();
    let long = "x".repeat(4000);
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("echo {number} {long}\n"));
    }
    daemon.usr1_until(|stats| stats.count("queue length") == 1000);
    let dump = readable(&daemon);
    let head = one(&dump, "queue: ");
    assert!(
        head.starts_with("pool: queue: 1000 waiting, the longest for "),
        "{head}"
    );
    let waiting = about(&dump, "waiting ");
    assert_eq!(waiting.len(), 100);
    assert!(waiting[0].starts_with("pool: waiting 1: since = "), "{}", waiting[0]);
    assert!(
        waiting[0].contains(", client = 127.0.0.1:") && waiting[0].contains("request = \"echo "),
        "{}",
        waiting[0]
    );
    assert_eq!(one(&dump, "clients"), "pool: clients: 1001 connected");
    assert_eq!(about(&dump, "client ").len(), 100);
    assert_eq!(
        about(&dump, "... and "),
        ["pool: ... and 900 more", "pool: ... and 901 more"]
    );
    assert!(
        dump.iter().all(|line| line.len() < 1000),
        "no line is longer than a screen or two"
    );
    assert!(dump.len() < 220, "{}", dump.len());
}

#[test]
fn the_dump_shows_any_request_as_one_harmless_line() {
    // This worker never answers.
    let daemon = Daemon::pool(1, "sleep 1000", &[&PATIENT[..], &["--request-framing", "nul"]].concat());
    let hostile =
        "a\nd[0].status = 1\n --- internal regs - 8< -------\npool: worker 9: state = idle\x1b[2J\r\u{202e}\u{85}\x07";
    let mut client = daemon.client();
    client.send([hostile.as_bytes(), b"\xff\0"].concat());
    let dump = readable_until(&daemon, |dump| !about(dump, "worker 0: state = busy").is_empty());
    let line = one(&dump, "worker ");
    let shown = "request = \"a\\x0ad[0].status = 1\\x0a --- internal regs - 8< -------\\x0apool: worker 9: state = idle\\x1b[2J\\x0d\\u{202e}\\u{85}\\x07\\xff";
    assert!(line.contains(shown), "{line}");
    let harmless = |line: &String| {
        line.chars()
            .all(|character| !character.is_control() && character != '\u{202e}')
    };
    assert!(dump.iter().all(harmless), "{dump:#?}");
}

#[test]
fn the_dump_of_a_confidential_pool_shows_no_request() {
    let daemon = pool(1, &["--confidential", "--persistent"]);
    let (client, arrival) = hold(&daemon, "s3cret");
    let mut waits = daemon.client();
    waits.send("s3cret of another\n");
    let mut reading = daemon.client();
    reading.send("s3cret of a third");
    daemon.usr1_until(|stats| stats.count("queue length") == 1 && stats.count("connections") == 3);
    let dump = readable(&daemon);
    assert!(!dump.join("\n").contains("s3cret"), "{dump:#?}");
    let line = one(&dump, "worker ");
    assert!(line.ends_with("request = (confidential)"), "{line}");
    assert_eq!(said(line, "client"), format!("127.0.0.1:{}", client.local_port()));
    assert!(
        one(&dump, "waiting 1").ends_with("request = (confidential)"),
        "{dump:#?}"
    );
    client.reset();
    daemon.usr1_until(|stats| stats.count("workers draining") == 1);
    let dump = readable(&daemon);
    let line = one(&dump, "worker ");
    assert!(line.ends_with("client = gone, request = (confidential)"), "{line}");
    arrival.open();
}

#[test]
fn a_request_that_came_while_the_pool_was_confidential_stays_so() {
    let home = temp_dir();
    let file = home.path().join("iotcpd.toml");
    let write = |confidential: bool| {
        let text = format!(
            "[pool.pool]\ndaemon = {:?}\nnum-daemons = 1\nport = 0\nqueue-timeout = \"600s\"\nbusy-timeout = \"600s\"\n\
             slow-log = \"1ms\"\nconfidential = {confidential}\n",
            worker_command(&[])
        );
        fs::write(&file, text).unwrap();
    };
    write(true);
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()]).start();
    let (mut client, arrival) = hold(&daemon, "s3cret");
    let mut waits = daemon.client();
    waits.send("echo s3cret of another\n");
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    write(false);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    let dump = readable(&daemon);
    assert!(!dump.join("\n").contains("s3cret"), "{dump:#?}");
    arrival.open();
    assert_eq!(client.read_to_end(), b"s3cret\n");
    let line = daemon.stderr_wait("more than --slow-log");
    assert!(line.ends_with(": (confidential)"), "{line}");
    // A request from now on is shown.
    let (_client, _arrival) = hold(&daemon, "open");
    assert!(readable(&daemon).iter().any(|line| line.ends_with(" open\"")));
}

#[test]
fn a_worker_without_a_process_says_when_the_next_one_is_started() {
    let daemon = Daemon::pool(2, "sh -c 'exit 1'", &["-a", "500s"]);
    let waits = |line: &&&str| line.contains("waiting for its next start");
    let dump = readable_until(&daemon, |dump| about(dump, "worker ").iter().filter(waits).count() == 2);
    assert_eq!(one(&dump, "clients"), "pool: clients: 0 connected");
    for line in about(&dump, "worker ") {
        let state = said(line, "state");
        let left = state
            .strip_prefix("waiting for its next start in ")
            .unwrap_or_else(|| panic!("{line}"));
        assert!(is_time(left), "{line}");
        assert_eq!(said(line, "pid"), "none");
    }
}

#[test]
fn the_dump_distinguishes_starting_probed_and_quarantined_workers() {
    let gate = Gate::new();
    let command = worker_command(&["--start-gate", gate.path(), "--ready", "up"]);
    let daemon = Daemon::with([
        "-n",
        "1",
        "-p",
        "0",
        "-d",
        &command,
        "--ready-line",
        "up",
        "--start-timeout",
        "600s",
    ])
    .args(&["--probe", "echo fine", "--probe-expect", "^good$", "-a", "500s"])
    .start();
    let arrival = gate.arrival();
    let dump = readable(&daemon);
    let line = one(&dump, "worker ");
    assert_eq!(
        (said(line, "state"), said(line, "pid")),
        ("starting", arrival.pid.to_string().as_str())
    );
    arrival.open();
    let waits = |line: &String| line.contains("quarantined, waiting for its next start in ");
    readable_until(&daemon, |dump| dump.iter().any(waits));

    let gate = Gate::new();
    let probe = format!("wait {} fine", gate.path());
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--probe", &probe, "--probe-expect", "fine"]);
    let asked = gate.arrival();
    let dump = readable(&daemon);
    assert_eq!(said(one(&dump, "worker "), "state"), "being probed");
    asked.open();
}

#[test]
fn the_dump_has_a_line_for_a_stopping_worker_and_for_its_successor() {
    let gate = Gate::new();
    let command = worker_command(&["--start-gate", gate.path(), "--ready", "up"]);
    let flags = [
        "--ready-line",
        "up",
        "--start-timeout",
        "600s",
        "--kill-timeout",
        "600s",
        "--persistent",
    ];
    let flags = [&PATIENT[..], &flags].concat();
    let daemon = Daemon::pool(1, &command, &flags);
    gate.arrival().open();
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    let (client, held) = hold(&daemon, "held");
    daemon.signal(Signal::SIGHUP);
    let successor = gate.arrival();
    let dump = readable(&daemon);
    let lines = about(&dump, "worker 0: ");
    assert_eq!(lines.len(), 2, "{dump:#?}");
    assert_eq!(
        (said(lines[0], "state"), said(lines[0], "pid")),
        ("busy", held.pid.to_string().as_str())
    );
    assert_eq!(
        (said(lines[1], "state"), said(lines[1], "pid")),
        ("starting to take over", successor.pid.to_string().as_str())
    );
    successor.open();
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    let dump = readable(&daemon);
    let lines = about(&dump, "worker 0: ");
    assert_eq!(
        (said(lines[0], "state"), said(lines[1], "state")),
        ("idle", "busy and then let go"),
        "{dump:#?}"
    );
    client.reset();
    let is_for_no_client = |line: &String| line.contains("busy for nobody and then let go");
    readable_until(&daemon, |dump| dump.iter().any(is_for_no_client));
    // A stopped process does not end on TERM.
    kill(Pid::from_raw(held.pid), Signal::SIGSTOP).unwrap();
    daemon.signal(Signal::SIGTERM);
    let is_stopping = |line: &String| line.starts_with("pool: worker 0: state = stopping, pid = ");
    readable_until(&daemon, |dump| {
        dump.iter().filter(|line| is_stopping(line)).count() == 1
    });
    kill(Pid::from_raw(held.pid), Signal::SIGCONT).unwrap();
    held.open();
}

#[test]
fn every_request_in_a_workers_hands_has_a_line_up_to_a_number() {
    for (flag, worker) in [("--pipeline", &[][..]), ("--concurrency", &["--concurrent"])] {
        let command = worker_command(worker);
        let daemon = Daemon::pool(1, &command, &[&PATIENT[..], &[flag, "64"]].concat());
        daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
        let (_client, _arrival) = hold(&daemon, "first");
        // They are held too, each at a gate that stays closed.
        let gate = Gate::new();
        let mut clients: Vec<Client> = (1..20).map(|_| daemon.client()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("wait {} {}\n", gate.path(), number + 1));
        }
        daemon.usr1_until(|stats| stats.count("queries ahead") + stats.count("queries concurrent") == 19);
        let dump = readable(&daemon);
        let line = one(&dump, "worker 0: ");
        assert_eq!(said(line, "in hand"), "20", "{flag}");
        assert!(line.ends_with(" first\""), "{line}");
        let others = about(&dump, "worker 0 also has: ");
        assert_eq!(others.len(), 9, "{dump:#?}");
        assert!(
            others
                .iter()
                .all(|line| line.contains("since = ") && line.contains("client = 127.0.0.1:")),
            "{others:#?}"
        );
        assert_eq!(about(&dump, "... and "), ["pool: ... and 10 more"]);
    }
}

#[test]
fn a_request_whose_client_has_gone_while_others_want_the_same_answer_says_so() {
    let daemon = pool(1, &["--persistent", "--cache-size", "1M"]);
    let (gate, mut first) = (Gate::new(), daemon.client());
    let request = format!("wait {} shared\n", gate.path());
    first.send(&request);
    let arrival = gate.arrival();
    let mut other = daemon.client();
    other.send(&request);
    daemon.usr1_until(|stats| stats.count("cache shared") == 1);
    let dump = readable(&daemon);
    let states: Vec<_> = about(&dump, "client ").iter().map(|line| said(line, "state")).collect();
    assert_eq!(states, ["waiting", "waiting"]);
    first.reset();
    let dump = readable_until(&daemon, |dump| about(dump, "client ").len() == 1);
    let line = one(&dump, "worker ");
    assert_eq!(
        (said(line, "state"), said(line, "client")),
        ("busy", "gone (others wait for the answer)")
    );
    assert!(line.ends_with(" shared\""), "{line}");
    arrival.open();
    assert_eq!(other.read_line(), "shared");
}

#[test]
fn the_dump_shows_a_session_with_its_worker_and_its_bytes_each_way() {
    let script = "read line; echo got it; read line";
    let command = shell_words::join(["sh", "-c", script]);
    let daemon = Daemon::pool(1, &command, &["--mode", "session", "--queue-timeout", "600s"]);
    let mut client = daemon.client();
    client.send("hello\n");
    assert_eq!(client.read_line(), "got it");
    let _waits = daemon.client();
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    let dump = readable(&daemon);
    let worker = one(&dump, "worker ");
    assert_eq!(said(worker, "state"), "busy");
    assert_eq!(said(worker, "client"), format!("127.0.0.1:{}", client.local_port()));
    let states: Vec<_> = about(&dump, "client ").iter().map(|line| said(line, "state")).collect();
    assert_eq!(states, ["session", "waiting"]);
    let session = about(&dump, "client ")[0];
    assert_eq!((said(session, "in"), said(session, "out")), ("6 bytes", "7 bytes"));
    assert_eq!(said(session, "held"), "0 bytes");
    assert!(
        one(&dump, "queue").starts_with("pool: queue: 1 waiting, the longest for "),
        "{dump:#?}"
    );
}

// ---- the other doors -------------------------------------------------------------------------------------------

/// The one line of a connection, a run or a command.
#[track_caller]
fn beginning<'d>(dump: &'d [String], what: &str) -> &'d str {
    let mut lines = dump.iter().filter(|line| line.starts_with(what));
    let line = lines.next().unwrap_or_else(|| panic!("no {what} in {dump:#?}"));
    assert_eq!(lines.next(), None, "{dump:#?}");
    line
}

#[test]
fn the_dump_of_an_exec_door_shows_each_program_with_its_client() {
    let (daemon, _home) = door(&["--log-args", "yes"]);
    let mut asks = ExecClient::connect(&daemon);
    let mut client = ExecClient::connect(&daemon);
    let script = "echo up; read line";
    client.send(request(&["sh", "-c", script, "\n\u{1b}[2Jd[0].status = 1"]));
    client.wait_output("up\n");
    let dump = daemon.usr2();
    let header = &dump[0];
    assert!(header.starts_with("exec: exec door of iotcpd "), "{header}");
    assert_eq!(said(header, "clients"), "2 of 100");
    let line = dump.iter().find(|line| line.contains("state = running"));
    let line = line.unwrap_or_else(|| panic!("{dump:#?}"));
    let pid: i32 = said(line, "pid").parse().unwrap();
    assert!(daemon.children().contains(&pid), "{line}");
    assert!(
        is_time(said(line, "age")) && said(line, "memory").ends_with("iB"),
        "{line}"
    );
    assert!(is_time(said(line, "connected for")), "{line}");
    let me = format!("unix (pid {} uid ", std::process::id());
    assert!(said(line, "client").starts_with(&me), "{line}");
    let program = r#"program = "sh" "-c" "echo up; read line" "\n\u{1b}[2Jd[0].status = 1", to program = "#;
    assert!(line.contains(program), "{line}");
    let line = dump.iter().find(|line| line.contains("state = asking")).unwrap();
    assert_eq!((said(line, "pid"), said(line, "program")), ("none", "none"));
    asks.send(request(&["true"]));
}

#[test]
fn the_dump_of_a_command_door_shows_commands_queues_clients_and_runs() {
    let torc = hold_command("threads = 1; queue = 5;");
    let daemon = torc.serve(&[]);
    let first = holding(&daemon, "hold\n");
    let mut waiting: Vec<Client> = (0..3).map(|_| daemon.client()).collect();
    for client in &mut waiting {
        client.send("hold\n");
    }
    daemon.usr1_until(|stats| stats.count("runs waiting") == 3);
    let dump = daemon.usr2();
    assert!(dump[0].starts_with("command: command door of iotcpd "), "{dump:#?}");
    assert_eq!(said(&dump[0], "clients"), "4 of 4096");
    assert!(
        dump.contains(&"\"hold\" running = 1 of 1, waiting = 3 of 5".to_owned()),
        "{dump:#?}"
    );
    let queue = beginning(&dump, "command: queue");
    assert!(
        queue.starts_with("command: queue of \"hold\": 3 waiting, the longest for "),
        "{queue}"
    );
    let queued: Vec<_> = dump.iter().filter(|line| line.contains("state = queued")).collect();
    assert_eq!(queued.len(), 3);
    for (line, client) in queued.iter().zip(&waiting) {
        assert!(
            is_time(said(line, "since")) && said(line, "since").ends_with(" ago"),
            "{line}"
        );
        assert_eq!(
            (said(line, "command"), said(line, "client")),
            ("\"hold\"", &*format!("127.0.0.1:{}", client.local_port()))
        );
    }
    let run = beginning(&dump, "r[");
    assert_eq!((said(run, "command"), said(run, "clients")), ("\"hold\"", "1"));
    assert_eq!(said(run, "client"), format!("127.0.0.1:{}", first.local_port()));
    let pid: i32 = said(run, "pid").parse().unwrap();
    assert!(daemon.children().contains(&pid), "{run}");
    assert!(
        is_time(said(run, "age")) && said(run, "memory").ends_with("iB"),
        "{run}"
    );
    let following = dump.iter().find(|line| line.contains("state = following")).unwrap();
    assert_eq!(said(following, "command"), "\"hold\"");
}
