//! An administrator's view of a start, of an outage, and of its end: in the log, and from the service manager, which is
//! notified that the start is over when every door can serve and never before.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::harness::{Daemon, Gate, Manager, temp_dir, worker_command};

/// A request that waits for a worker ends when one is there, not because time has passed.
const PATIENT: [&str; 2] = ["--queue-timeout", "600s"];

/// A program in a file, which may be another one for the next process.
struct Script {
    directory: TempDir,
}

/// Answers each line with itself.
const SOUND: &str = "while read -r line; do printf '%s\\n' \"$line\"; done";

impl Script {
    fn new(text: &str) -> Self {
        let script = Script { directory: temp_dir() };
        script.becomes(text);
        script
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("script")
    }

    /// Renamed, so that no worker reads half of it.
    fn becomes(&self, text: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, text).expect("write a script");
        fs::rename(new, self.path()).expect("put a script into its place");
    }

    fn command(&self) -> String {
        format!("sh {}", self.path().display())
    }
}

fn count(daemon: &Daemon, words: &str) -> usize {
    daemon.stderr.text().lines().filter(|line| line.contains(words)).count()
}

// ---- the start -------------------------------------------------------------------------------------------------

#[test]
fn the_first_line_says_what_starts() {
    let command = worker_command(&["--quiet"]);
    let daemon = Daemon::with(["-n", "3", "-d", &command, "-p", "0"]).spawn();
    let first = daemon.stderr_wait("");
    let (version, pid) = (env!("CARGO_PKG_VERSION"), daemon.pid());
    let expected = format!("iotcpd {version} (pid {pid}) is starting: pool: 3 workers of {command}, on 127.0.0.1:0");
    assert!(first.ends_with(&expected), "{first}");
    assert!(first.contains("INFO"), "{first}");
    daemon.stderr_wait("pool: listening on 127.0.0.1:");
    daemon.stderr_wait("pool: ready, 3 of 3 workers serve");
    assert_eq!((count(&daemon, "is starting: "), count(&daemon, "ready, ")), (1, 1));
}

#[test]
fn several_services_are_in_one_line_and_each_says_when_it_is_ready() {
    let home = temp_dir();
    let (file, socket) = (home.path().join("f.toml"), home.path().join("s"));
    let text = format!(
        "[pool.web]\ndaemon = {:?}\nmin-workers = 2\nmax-workers = 9\nlisten = ['127.0.0.1:0', '[::1]:0']\n\
         [exec.jobs]\nlisten = 'unix:{}'\n\
         [command.admin]\nlisten = '127.0.0.1:0'\n[command.admin.commands.one]\ncmd = 'true'\n[command.admin.commands.two]\ncmd = 'true'\n",
        worker_command(&[]),
        socket.display()
    );
    fs::write(&file, text).expect("write a configuration");
    let daemon = Daemon::with(["run", "--config", file.to_str().expect("UTF-8")]).start();
    let line = daemon.stderr_wait("is starting: ");
    for part in [
        "web (pool): 2 to 9 workers of ",
        "scripted-worker, on 127.0.0.1:0, [::1]:0; ",
        "jobs (exec): whatever program a client names, on ",
        "admin (command): 2 commands (one, two), on 127.0.0.1:0",
    ] {
        assert!(line.contains(part), "{part:?} in {line:?}");
    }
    for line in ["web: ready, 2 of 2 workers serve", "jobs: ready", "admin: ready"] {
        daemon.stderr_wait(line);
    }
}

#[test]
fn the_line_is_one_line_of_bounded_length_whatever_the_command_is() {
    let command = format!("sh -c 'printf \"\\t\" >&2; exec cat; # {}\nend'", "x".repeat(10_000));
    let daemon = Daemon::pool(1, &command, &PATIENT);
    let line = daemon.stderr_wait("is starting: ");
    assert!(line.len() < 400 && line.contains("xxx..., on 127.0.0.1:0"), "{line}");
}

/// squidGuard itself would start, and let every URL pass.
#[test]
fn the_default_worker_is_not_started_without_its_configuration() {
    let home = temp_dir();
    let path = home.path().to_str().expect("temporary paths are UTF-8");
    let arguments = ["-p", "0", "--chdir", path];
    let (status, _, said) = Daemon::with(arguments).spawn().finish();
    assert_eq!(status.code(), Some(1), "{said}");
    let file = home.path().join("sg/adblock.conf");
    assert!(
        said.contains(file.to_str().expect("UTF-8")) && said.contains("--daemon (-d)"),
        "{said}"
    );
    assert!(said.contains("lets every URL pass"), "{said}");
    let configuration = home.path().join("f.toml");
    let text = format!("[pool.web]\nport = 0\nchdir = {path:?}\n");
    fs::write(&configuration, text).expect("write a configuration");
    for command in ["check", "run"] {
        let arguments = [command, "--config", configuration.to_str().expect("UTF-8")];
        let (status, _, said) = Daemon::with(arguments).spawn().finish();
        assert!(!status.success(), "{said}");
        assert!(
            said.contains("adblock.conf") && said.contains("say which program to run"),
            "{said}"
        );
    }
    // It is there: what stands in it is for squidGuard to judge.
    fs::create_dir(home.path().join("sg")).expect("make a directory");
    fs::write(&file, format!("dbhome {path}\nlogdir {path}\n")).expect("write squidGuard's configuration");
    Daemon::with(arguments)
        .start()
        .stderr_wait("pool: ready, 4 of 4 workers serve");
}

#[test]
fn a_squidguard_that_was_named_is_started_without_its_configuration_and_the_log_says_so() {
    let daemon = Daemon::pool(1, "squidGuard -c /no/such/file.conf", &[]);
    let line = daemon.stderr_wait("there is no \"/no/such/file.conf\"");
    assert!(line.contains("WARN") && line.contains("lets every URL pass"), "{line}");
    assert_eq!(daemon.ask("http://a/ 10.0.0.1/- - GET"), "ERR\n");
}

// ---- the service manager ---------------------------------------------------------------------------------------

#[test]
fn the_start_is_over_when_every_door_is_ready() {
    let (manager, gate) = (Manager::new(), Gate::new());
    let file = manager.home().join("f.toml");
    let pool = |name: &str, probe: &str| {
        let command = worker_command(&[]);
        let keys = format!("daemon = {command:?}\nnum-daemons = 1\nlisten = '127.0.0.1:0'\nqueue-timeout = 600\n");
        format!("[pool.{name}]\n{keys}probe = '{probe}'\nprobe-expect = '^fine$'\n")
    };
    let text = [
        pool("one", "echo fine"),
        pool("two", &format!("wait {} fine", gate.path())),
    ]
    .concat();
    fs::write(&file, text).expect("write a configuration");
    let daemon = manager
        .watching(Daemon::with(["run", "--config", file.to_str().expect("UTF-8")]))
        .start();
    daemon.stderr_wait("one: ready, 1 of 1 workers serve");
    let asked = gate.arrival();
    // The loop has looked since.
    daemon.usr1();
    manager.is_kept_waiting();
    assert_eq!(count(&daemon, "two: ready"), 0);
    asked.open();
    manager.ready();
    daemon.stderr_wait("two: ready, 1 of 1 workers serve");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(manager.told(), "STOPPING=1");
}

#[test]
fn no_start_is_over_without_a_worker_that_is_up() {
    for text in ["exit 4", "read -r line; exit 0", "echo hello; cat"] {
        let (manager, script) = (Manager::new(), Script::new(text));
        let probe = ["--probe", "q", "--probe-expect", "^q$"];
        let probe = if text == "exit 4" { &[][..] } else { &probe[..] };
        let command = script.command();
        let builder = Daemon::with(["-n", "2", "-d", &command, "-p", "0", "-a", "100ms"]);
        let daemon = manager.watching(builder.args(&PATIENT).args(probe)).start();
        let down = daemon.stderr_wait("pool: no worker can serve: ");
        assert!(down.contains("ERROR"), "{down}");
        // The end of a reload would be taken for the end of the start.
        daemon.signal(Signal::SIGHUP);
        daemon.stderr_wait("pool: replacing every worker");
        daemon.usr1();
        manager.is_kept_waiting();
        assert_eq!(count(&daemon, "pool: ready"), 0, "{text}");
        script.becomes(SOUND);
        daemon.signal(Signal::SIGHUP);
        assert_eq!(daemon.ask("mine"), "mine\n");
        manager.ready();
        daemon.stderr_wait("pool: ready, ");
        daemon.signal(Signal::SIGHUP);
        let mut told = manager.told();
        while told == "STATUS=ready" {
            told = manager.told();
        }
        assert!(told.starts_with("RELOADING=1\n"), "{told}");
        assert_eq!(manager.told(), "READY=1");
    }
}

/// A reload that has been applied is over, whatever has come of it: the service manager waits for its end.
#[test]
fn a_reload_is_over_though_its_workers_fail() {
    let (manager, script) = (Manager::new(), Script::new(SOUND));
    let command = script.command();
    let builder = Daemon::with(["-n", "1", "-d", &command, "-p", "0", "-a", "100ms"]);
    let daemon = manager.watching(builder.args(&PATIENT)).start();
    manager.ready();
    script.becomes("exit 1");
    daemon.signal(Signal::SIGHUP);
    assert!(manager.told().starts_with("RELOADING=1\n"));
    assert_eq!(manager.told(), "READY=1");
    daemon.stderr_wait("pool: no worker can serve: each dies soon after its start: the last one exited with status 1");
}

// ---- an outage -------------------------------------------------------------------------------------------------

#[test]
fn an_outage_is_logged_once_with_its_cause_and_its_end_with_its_cost() {
    let script = Script::new("exit 7");
    let flags = ["-a", "100ms", "--queue-timeout", "200ms"];
    let daemon = Daemon::pool(2, &script.command(), &flags);
    let down = daemon.stderr_wait("pool: no worker can serve: ");
    assert!(
        down.contains("each dies soon after its start: the last one exited with status 7; "),
        "{down}"
    );
    let meanwhile =
        "until one can, requests wait for --queue-timeout 200 ms and are then refused by \"ERR\", which lets URLs pass";
    assert!(down.contains(meanwhile), "{down}");
    assert!(down.contains("--fail closed") && down.contains("send HUP"), "{down}");
    for _ in 0..3 {
        assert_eq!(daemon.ask("mine"), "ERR\n");
    }
    daemon.usr1_until(|stats| stats.count("daemon spawns") >= 8);
    script.becomes(SOUND);
    daemon.signal(Signal::SIGHUP);
    let mut refused = 3;
    while daemon.ask("mine") != "mine\n" {
        refused += 1;
    }
    let over = daemon.stderr_wait("pool: a worker can serve again: none could for ");
    let cost = over.rsplit_once(", and ").map(|(_, cost)| cost);
    assert_eq!(
        cost,
        Some(format!("{refused} requests were refused").as_str()),
        "{over}"
    );
    assert!(over.contains("INFO"), "{over}");
    assert_eq!(count(&daemon, "no worker can serve"), 1);
}

#[test]
fn the_log_of_an_outage_says_what_happens_to_requests() {
    let told = |flags: &[&str]| {
        let flags = [&["-a", "100ms"], flags].concat();
        Daemon::pool(1, "false", &flags).stderr_wait("no worker can serve")
    };
    let closed = told(&["--fail", "closed", "--fail-url", "http://intranet.example/denied"]);
    assert!(
        closed.contains("are then denied by \"302:http://intranet.example/denied\""),
        "{closed}"
    );
    assert!(!closed.contains("--fail closed"), "{closed}");
    assert!(told(&["--error-reply", ""]).contains("are then closed without an answer"));
    assert!(told(&["--mode", "session"]).contains("connections wait for --queue-timeout"));
    assert!(told(&["--cache-size", "1MiB", "--cache-ttl", "1m"]).contains("--cache-size holds are given as before"));
}

#[test]
fn a_program_that_is_taken_away_is_named() {
    let home = temp_dir();
    let program = home.path().join("checker");
    fs::copy("/bin/sh", &program).expect("copy a shell");
    let command = format!("{} -c 'read -r line; exit 0'", program.display());
    let daemon = Daemon::pool(1, &command, &["-a", "100ms", "--retries", "0"]);
    daemon.stderr_wait("pool: ready");
    fs::remove_file(&program).expect("remove a program");
    daemon.ask("and end");
    let down = daemon.stderr_wait("no worker can serve: none can be started: ");
    assert!(
        down.contains(program.to_str().expect("UTF-8")) && down.contains("install it"),
        "{down}"
    );
}

#[test]
fn a_worker_that_dies_in_its_work_a_roll_and_an_end_are_no_outage() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &[&PATIENT[..], &["--retries", "0"]].concat());
    assert_eq!(daemon.ask("echo x"), "x\n");
    assert_eq!(daemon.ask("die"), "ERR\n");
    assert_eq!(daemon.ask("echo x"), "x\n");
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("every worker has been replaced");
    daemon.signal(Signal::SIGTERM);
    let (_, _, said) = daemon.finish();
    assert!(!said.contains("no worker can serve"), "{said}");
}

// ---- HUP -------------------------------------------------------------------------------------------------------

/// The old ones have gone, and the new ones do not serve.
#[test]
fn a_roll_whose_workers_all_fail_does_not_sound_like_a_success() {
    let command = worker_command(&[]);
    let probe = ["--probe", "echo no", "--probe-expect", "yes", "-a", "1h", "-n", "1"];
    let daemon = Daemon::with([&["-d", &command, "-p", "0"][..], &probe].concat()).spawn();
    daemon.stderr_wait("no worker can serve");
    daemon.signal(Signal::SIGHUP);
    let rolled = daemon.stderr_wait("every worker has been replaced");
    assert!(rolled.ends_with(", but none can serve yet"), "{rolled}");
}

#[test]
fn each_pool_and_no_other_door_says_that_its_workers_are_replaced() {
    let home = temp_dir();
    let file = home.path().join("f.toml");
    let pool = |name: &str| {
        let command = worker_command(&[]);
        format!("[pool.{name}]\ndaemon = {command:?}\nnum-daemons = 1\nlisten = '127.0.0.1:0'\n")
    };
    let others = "[exec.jobs]\nlisten = '127.0.0.1:0'\n[command.admin]\nlisten = '127.0.0.1:0'\n[command.admin.commands.one]\ncmd = 'true'\n";
    fs::write(
        &file,
        [&pool("one"), &pool("two"), others].map(|part: &str| part).concat(),
    )
    .expect("write a configuration");
    let daemon = Daemon::with(["run", "--config", file.to_str().expect("UTF-8")]).start();
    daemon.signal(Signal::SIGHUP);
    for name in ["one", "two"] {
        daemon.stderr_wait(&format!("{name}: every worker has been replaced"));
        assert_eq!(count(&daemon, &format!("{name}: replacing every worker")), 1);
    }
    assert_eq!(count(&daemon, "replacing every worker"), 2);
    let exec = Daemon::with(["exec", "127.0.0.1:0"]).start();
    exec.signal(Signal::SIGHUP);
    exec.stderr_wait("exec: programs that are started from now on");
    assert_eq!(count(&exec, "worker"), 0);
}
