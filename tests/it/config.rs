//! A daemon that runs from a file: several services, the file checked, and the file read again at HUP.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::harness::{Address, Client, Daemon, Gate, temp_dir, worker_command};

/// A configuration file in a directory of its own.
struct File {
    directory: TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> Self {
        let directory = temp_dir();
        let path = directory.path().join("iotcpd.toml");
        let file = Self { directory, path };
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.path, text).expect("write the configuration");
    }

    fn name(&self) -> &str {
        self.path.to_str().expect("temporary paths are UTF-8")
    }

    /// A UNIX socket beside the file, as the file writes it: an address that is known beforehand and free.
    fn socket(&self, name: &str) -> String {
        format!("unix:{}", self.directory.path().join(name).display())
    }

    #[track_caller]
    fn run(&self) -> Daemon {
        Daemon::with(["run", "--config", self.name()]).start()
    }

    /// The result of `check`: exit status, standard output, standard error.
    #[track_caller]
    fn check(&self) -> (Option<i32>, String, String) {
        let (status, stdout, stderr) = Daemon::with(["check", "--config", self.name()]).spawn().finish();
        (status.code(), stdout, stderr)
    }
}

/// The table of a pool of `workers` scripted workers (their command line has `flag`) that listens at `listen`.
fn pool(name: &str, workers: u32, flag: &str, listen: &[&str], more: &str) -> String {
    let command = worker_command(&[flag]);
    // Unless a test is about it, no request is refused for want of time.
    let patience = if more.contains("queue-timeout") {
        ""
    } else {
        "queue-timeout = '600s'\n"
    };
    format!("[pool.{name}]\n{patience}daemon = {command:?}\nnum-daemons = {workers}\nlisten = {listen:?}\n{more}\n")
}

#[track_caller]
fn ask(address: &str, line: &str) -> String {
    let address = Address::parse(address).unwrap_or_else(|| panic!("{address} is no address"));
    let mut client = Client::connect(&address);
    client.send(format!("{line}\n"));
    String::from_utf8_lossy(&client.read_to_end()).into_owned()
}

/// Sends HUP, for the `nth` time, and waits until the file has been read.
#[track_caller]
fn reload(daemon: &Daemon, nth: usize) {
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait_nth("the configuration was read again", nth);
}

#[test]
fn two_pools_run_from_one_file() {
    let file = File::new("");
    let (one, two) = (file.socket("one"), file.socket("two"));
    file.write(&(pool("one", 1, "first", &[&one], "") + &pool("two", 2, "second", &[&two, "127.0.0.1:0"], "")));
    assert_eq!(file.check(), (Some(0), "ok".to_owned(), String::new()));
    let daemon = file.run();
    assert_eq!(daemon.nth_addr(3).to_string().split(':').next(), Some("127.0.0.1"));
    assert_eq!(ask(&one, "arguments"), "\"first\"\n");
    assert_eq!(ask(&two, "arguments"), "\"second\"\n");
    daemon.usr1_until(|_| daemon.children().len() == 3);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn check_knows_which_framings_go_together() {
    let file = File::new(concat!(
        "[pool.one]\n",
        "daemon = 'cat'\n",
        "request-framing = 'until-empty-line'\n",
        "worker-reply-framing = 'quiet=1.5s'\n",
    ));
    assert_eq!(file.check(), (Some(0), "ok".to_owned(), String::new()));
    file.write("[pool.one]\nworker-reply-framing = 'eof'\npipeline = 4\n");
    let (status, _, said) = file.check();
    assert_eq!(status, Some(2));
    let at = format!(
        "{}:3:12: pipeline: with framing eof a worker takes one request and ends; leave it out",
        file.name()
    );
    assert!(said.contains(&at), "{said}");
    file.write("[pool.one]\nreply-framing = 'lines'\n");
    let (_, _, said) = file.check();
    assert!(
        said.contains(":2:17: reply-framing: `lines` is not a framing; write line, netstring, "),
        "{said}"
    );
}

#[test]
fn check_reports_every_mistake_and_its_place() {
    let file = File::new(concat!(
        "[pool.one]\n",
        "daemon = \"cat\"\n",
        "num-deamons = 4\n",
        "busy-timeout = \"soon\"\n",
        "port = 99999\n",
        "\n",
        "[pol.two]\n",
        "daemon = \"cat\"\n",
    ));
    let (status, stdout, stderr) = file.check();
    assert_eq!((status, stdout.as_str()), (Some(2), ""), "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    let expected = [
        ("3:1: ", "did you mean `num-daemons`?"),
        ("4:16: ", "not a length of time"),
        ("5:8: ", "0 to 65535"),
        ("7:2: ", "did you mean `pool`?"),
    ];
    assert_eq!(lines.len(), expected.len(), "{stderr}");
    for (line, (place, remedy)) in lines.iter().zip(expected) {
        assert!(
            line.starts_with(&format!("{}:{place}", file.name())),
            "{line} at {place}"
        );
        assert!(line.contains(remedy), "{line} says {remedy}");
    }
    // `run` refuses the same file in the same words.
    let (status, _, refused) = Daemon::with(["run", "--config", file.name()]).spawn().finish();
    assert_eq!((status.code(), refused), (Some(2), stderr));
}

#[test]
fn check_reports_a_file_that_is_no_toml_and_one_that_is_missing() {
    let file = File::new("[pool.one]\ndaemon = \"cat\n");
    let (status, stdout, stderr) = file.check();
    assert_eq!((status, stdout.as_str()), (Some(2), ""));
    assert!(stderr.starts_with(&format!("{}:2:", file.name())), "{stderr}");
    let (status, _, stderr) = Daemon::with(["check", "--config", "/no/such/file"]).spawn().finish();
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("/no/such/file"), "{stderr}");
}

#[test]
fn hup_applies_command_number_and_addresses() {
    let file = File::new("");
    let (kept, dropped, added) = (file.socket("kept"), file.socket("dropped"), file.socket("added"));
    file.write(&pool("main", 1, "before", &[&kept, &dropped], ""));
    let daemon = file.run();
    assert_eq!(ask(&dropped, "arguments"), "\"before\"\n");

    file.write(&pool("main", 3, "after", &[&kept, &added], ""));
    reload(&daemon, 1);
    daemon.stderr_wait("every worker has been replaced");
    for address in [&kept, &added] {
        assert_eq!(ask(address, "arguments"), "\"after\"\n");
    }
    let path = dropped.strip_prefix("unix:").expect("a UNIX socket");
    assert!(!PathBuf::from(path).exists(), "{path} is not listened on any more");
    let at_rest = |stats: &crate::harness::StatsBlock| {
        stats.count("daemon S_AVAILABLE") == 3 && stats.count("workers draining") + stats.count("workers stopping") == 0
    };
    daemon.usr1_until(at_rest);
    assert_eq!(daemon.children().len(), 3);

    file.write(&pool("main", 1, "fewer", &[&kept], ""));
    reload(&daemon, 2);
    daemon.stderr_wait_nth("every worker has been replaced", 2);
    daemon.usr1_until(|stats| {
        stats.count("daemon S_AVAILABLE") == 1 && stats.count("workers draining") + stats.count("workers stopping") == 0
    });
    assert_eq!(daemon.children().len(), 1);
    assert_eq!(ask(&kept, "arguments"), "\"fewer\"\n");
}

#[test]
fn hup_applies_time_outs_and_limits() {
    let gate = Gate::new();
    let file = File::new("");
    let socket = file.socket("s");
    file.write(&pool(
        "main",
        1,
        "x",
        &[&socket],
        "busy-timeout = 600\nqueue-timeout = '600s'",
    ));
    let daemon = file.run();
    let mut held = daemon.client();
    held.send(format!("wait {} held\n", gate.path()));
    let arrival = gate.arrival();

    let short = "queue-timeout = '1ms'\nbusy-timeout = '100ms'\nerror-reply = 'NO\\n'\nmax-request = 100";
    file.write(&pool("main", 1, "x", &[&socket], short));
    reload(&daemon, 1);
    daemon.stderr_wait("every worker has been replaced");
    arrival.open();
    assert_eq!(held.read_to_end(), b"held\n");
    // The new worker is held as well; its busy time-out ends that now.
    let mut held = daemon.client();
    held.send(format!("wait {} never\n", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(daemon.ask(&"x".repeat(101)), "NO\n", "over max-request");
    assert_eq!(held.read_to_end(), b"NO\n");
    arrival.wait_killed();
}

#[test]
fn hup_adds_and_removes_services() {
    let gate = Gate::new();
    let file = File::new("");
    let (stays, goes, comes) = (file.socket("stays"), file.socket("goes"), file.socket("comes"));
    file.write(&(pool("stays", 1, "stays", &[&stays], "") + &pool("goes", 1, "goes", &[&goes], "")));
    let daemon = file.run();
    let goes_at = Address::parse(&goes).expect("a UNIX socket");
    let mut last = Client::connect(&goes_at);
    last.send(format!("wait {} last\n", gate.path()));
    let arrival = gate.arrival();

    file.write(&(pool("stays", 1, "stays", &[&stays], "") + &pool("comes", 1, "comes", &[&comes], "")));
    reload(&daemon, 1);
    daemon.stderr_wait("goes: not in the configuration any more");
    assert_eq!(ask(&comes, "arguments"), "\"comes\"\n");
    assert_eq!(ask(&stays, "arguments"), "\"stays\"\n");
    let path = goes.strip_prefix("unix:").expect("a UNIX socket");
    assert!(!PathBuf::from(path).exists(), "{path} is still there");
    arrival.open();
    assert_eq!(last.read_to_end(), b"last\n", "what was in hand is finished");
    let log = daemon.stderr.text();
    assert!(!log.contains("goes: every worker has been replaced"), "{log}");

    // The name can come back, even where its predecessor may still be on its way out.
    file.write(&(pool("stays", 1, "stays", &[&stays], "") + &pool("goes", 1, "again", &[&goes], "")));
    reload(&daemon, 2);
    assert_eq!(ask(&goes, "arguments"), "\"again\"\n");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn a_tcp_address_moves_from_one_port_to_another() {
    let file = File::new("");
    // An address that no other test uses: another one that takes a free port of 127.0.0.1 might get the one given up
    // here.
    let old = std::net::SocketAddr::from(([127, 7, 7, 7], crate::harness::free_port()));
    file.write(&pool("main", 1, "x", &[&old.to_string()], ""));
    let daemon = file.run();
    assert_eq!(daemon.addr().port(), old.port());
    file.write(&pool("main", 1, "x", &["127.0.0.1:0"], ""));
    reload(&daemon, 1);
    assert_eq!(ask(&daemon.nth_addr(2).to_string(), "echo moved"), "moved\n");
    let refused = TcpStream::connect(old).expect_err("the address is closed");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_bad_file_is_refused_and_the_old_configuration_stays() {
    let file = File::new("");
    let (socket, taken) = (file.socket("s"), file.socket("taken"));
    file.write(&pool("main", 1, "good", &[&socket], ""));
    let daemon = file.run();
    let other = Daemon::with(["-n", "1", "-d", &worker_command(&[]), "--listen", &taken]).start();
    let bad = [
        (
            pool("main", 1, "bad", &[&socket], "busy-timout = 3"),
            "did you mean `busy-timeout`?".to_owned(),
        ),
        ("[pool.main]\nlisten = [".to_owned(), format!("{}:2:", file.name())),
        (
            format!("[pool.main]\ndaemon = '/no/such/program'\nlisten = {socket:?}\n"),
            "/no/such/program".to_owned(),
        ),
        (
            // The same pool under another name: its address is still held under the old one.
            pool("renamed", 1, "bad", &[&socket], ""),
            "is still held by main".to_owned(),
        ),
        (
            pool("main", 1, "bad", &[&socket], "worker-reply-framing = 'netstring'"),
            "main: the framings of a pool cannot change while it serves; restart the daemon".to_owned(),
        ),
        (
            pool("main", 1, "bad", &[&socket, &taken], ""),
            "in use by a running server".to_owned(),
        ),
    ];
    for (nth, (text, error)) in bad.iter().enumerate() {
        let worker = ask(&socket, "pid");
        file.write(text);
        reload(&daemon, nth + 1);
        daemon.stderr_wait(error);
        daemon.stderr_wait_nth("the old one stays", nth + 1);
        // Its workers are replaced all the same, by the old command: that is what HUP always does.
        daemon.stderr_wait_nth("every worker has been replaced", nth + 1);
        assert_eq!(ask(&socket, "arguments"), "\"good\"\n");
        assert_ne!(ask(&socket, "pid"), worker);
    }
    assert_eq!(ask(&taken, "echo untouched"), "untouched\n");
    drop(other);

    // A service whose address is taken keeps the others from changing too: all or nothing.
    fs::remove_file(&file.path).expect("remove the configuration");
    reload(&daemon, bad.len() + 1);
    daemon.stderr_wait(&format!("cannot read {}", file.name()));
    assert_eq!(ask(&socket, "arguments"), "\"good\"\n");

    // A correct file is then taken again.
    file.write(&pool("main", 1, "better", &[&socket], ""));
    reload(&daemon, bad.len() + 2);
    daemon.stderr_wait_nth("every worker has been replaced", bad.len() + 2);
    assert_eq!(ask(&socket, "arguments"), "\"better\"\n");
}

#[test]
fn a_new_service_that_cannot_run_is_refused_with_all_that_came_with_it() {
    let file = File::new("");
    let (stays, first, broken) = (file.socket("stays"), file.socket("first"), file.socket("broken"));
    file.write(&pool("stays", 1, "old", &[&stays], ""));
    let daemon = file.run();
    // Found and executable, so that only its start tells: it is no program.
    let garbage = file.directory.path().join("garbage");
    fs::write(&garbage, "garbage").expect("write a file");
    fs::set_permissions(&garbage, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let garbage = format!("[pool.third]\ndaemon = {garbage:?}\nlisten = {broken:?}\n");
    // The service that is there is named no longer: were part of this done, it would be gone.
    file.write(&(pool("first", 1, "new", &[&first], "") + &garbage));
    reload(&daemon, 1);
    daemon.stderr_wait("the old one stays");
    assert_eq!(ask(&stays, "arguments"), "\"old\"\n");
    for socket in [&first, &broken] {
        let path = socket.strip_prefix("unix:").expect("a UNIX socket");
        assert!(!PathBuf::from(path).exists(), "{path} is listened on");
    }
}

/// The result of `check` of a torc.cfg.
#[track_caller]
fn check_torc(text: &str) -> (Option<i32>, String, String) {
    let directory = temp_dir();
    let path = directory.path().join("torc.cfg");
    fs::write(&path, text).expect("write the configuration");
    let path = path.to_str().expect("temporary paths are UTF-8");
    let (status, stdout, stderr) = Daemon::with(["check", "--config", path]).spawn().finish();
    (status.code(), stdout, stderr.replace(path, "torc.cfg"))
}

#[test]
fn check_knows_a_torc_cfg_by_its_name() {
    let text = "// as torcd has it\nport = 3699;\nprocesses = (\n  { name = \"echo\"; threads = 50; cmd = \"/usr/bin/echo\"; argc = \
                2; },\n);\n";
    assert_eq!(check_torc(text), (Some(0), "ok".to_owned(), String::new()));
    let (status, stdout, stderr) =
        check_torc("port = 3699 $\nprocesses = ( { nam = \"echo\"; },\n { name = \"b\"; argc = -1 } );\n");
    let expected = "torc.cfg:1:13: `$` does not belong here; write \" around text, or leave it out\n\
                    torc.cfg:2:15: this command has no name; write for example name = \"uptime\"\n\
                    torc.cfg:3:11: cmd: it is not said which program to run; write for example cmd = \"/usr/bin/uptime\"\n\
                    torc.cfg:3:23: argc: -1 is out of range; write a value from 0 to 1000";
    assert_eq!((status, stdout.as_str(), stderr.as_str()), (Some(2), "", expected));
}

#[test]
fn check_reads_a_command_door_of_a_toml_file() {
    let file = File::new(
        "[command.a]\nlisten = 'unix:/x'\n[command.a.commands.up]\ncmd = 'uptime -p'\nargs = [['a', 'b'], 'int 1..5']\n",
    );
    assert_eq!(file.check(), (Some(0), "ok".to_owned(), String::new()));
    file.write(
        "[command.a]\nlisten = 'unix:/x'\n[command.a.commands.up]\ncmd = 'uptime -p'\nmax_wait = 5\nargs = ['^(']\n",
    );
    let (status, _, stderr) = file.check();
    assert_eq!(status, Some(2));
    let lines: Vec<_> = stderr
        .lines()
        .map(|line| line.strip_prefix(file.name()).unwrap())
        .collect();
    assert_eq!(lines[0], ":5:1: there is no key `max_wait`; did you mean `max-wait`?");
    assert!(
        lines[1].starts_with(":6:9: args: `^(` is not a regular expression at character 2"),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 2);
}

#[test]
fn the_command_door_wants_its_file() {
    let home = temp_dir();
    let say = |arguments: &[&str]| {
        let daemon = Daemon::with(["command"].iter().chain(arguments).copied());
        let (status, _, stderr) = daemon
            .env("TORC_HOME", home.path().to_str().expect("temporary paths are UTF-8"))
            .spawn()
            .finish();
        assert_eq!(status.code(), Some(2), "{stderr}");
        stderr
    };
    let path = home.path().join("torc.cfg");
    assert!(say(&[]).contains(&format!("there is no {}; name the file with --config", path.display())));
    assert!(say(&["--config", "x.toml"]).contains("write iotcpd run --config x.toml"));
    fs::write(&path, "port = 1;\nprocesses = 5;\n").expect("write the configuration");
    let said = say(&["--linger", "0"]);
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("iotcpd: --linger: 0s is out of range; "), "{said}");
    assert!(
        lines[1].starts_with(&format!("{}:2:13: processes: ", path.display())),
        "{said}"
    );
}

#[test]
fn hup_reads_a_torc_cfg_again_under_the_same_flags() {
    let home = temp_dir();
    let path = home.path().join("torc.cfg");
    let write = |settings: &str, name: &str| {
        let text =
            format!("list = \"no\"; {settings}\nprocesses = ( {{ name = \"{name}\"; cmd = \"/bin/echo\"; }} );\n");
        fs::write(&path, text).expect("write the configuration");
    };
    let socket = format!("unix:{}", home.path().join("s").display());
    let arguments = ["command", "--listen", &socket, "--list", "yes"];
    let daemon = Daemon::with(arguments).env("TORC_HOME", home.path().to_str().expect("temporary paths are UTF-8"));
    write("", "before");
    let daemon = daemon.start();
    assert_eq!(ask(&socket, "list"), "before\n");
    write("port = 1;", "after");
    reload(&daemon, 1);
    assert_eq!(ask(&socket, "list"), "after\n");
    write("linger = \"soon\";", "never");
    reload(&daemon, 2);
    daemon.stderr_wait(&format!(
        "{}:1:23: linger: `soon` is not a length of time",
        path.display()
    ));
    assert_eq!(ask(&socket, "list"), "after\n");
}

#[test]
fn hup_changes_the_commands_of_a_toml_file() {
    let file = File::new("");
    let socket = file.socket("s");
    let door = |command: &str| format!("[command.a]\nlisten = '{socket}'\n[command.a.commands.{command}");
    file.write(&door("say]\ncmd = '/bin/echo -n \"one two\"'\nargs = [['a', 'b']]\n"));
    let daemon = file.run();
    assert_eq!(ask(&socket, "say\na"), "torcd>one two a");
    file.write(&door("say]\ncmd = '/bin/echo three'\n"));
    reload(&daemon, 1);
    assert_eq!(ask(&socket, "say"), "three\n");
    file.write("[pool.a]\ndaemon = 'cat'\n");
    reload(&daemon, 2);
    daemon.stderr_wait("a service cannot become one of another kind");
    assert_eq!(ask(&socket, "say"), "three\n");
}
