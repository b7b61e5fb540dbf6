//! Binary upgrade: URG starts the program again, the listening sockets go to it, and no client notices.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use crate::harness::{Address, Client, Daemon, Gate, Installation, TempDir, WATCHDOG};
use crate::harness::{program_of, temp_dir, wait_orphan, worker_command};

const LONG: &str = "600s";

/// Sends a signal to a process that is known to live.
#[track_caller]
pub(crate) fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("cannot send {signal} to {pid}: {error}"));
}

/// The process of the `nth` line that says `process N` and then this.
#[track_caller]
pub(crate) fn process_of(daemon: &Daemon, says: &str, nth: usize) -> i32 {
    let line = daemon.stderr_wait_nth(says, nth);
    let (_, rest) = line.split_once("process ").unwrap_or_else(|| panic!("{line}"));
    let word = rest.split(|c: char| !c.is_ascii_digit()).next();
    word.and_then(|pid| pid.parse().ok())
        .unwrap_or_else(|| panic!("{line}"))
}

/// Upgrades the daemon, whose process is `old`, for the `nth` time; returns the process that serves then.
#[track_caller]
pub(crate) fn upgrade(daemon: &Daemon, old: i32, nth: usize) -> i32 {
    signal(old, Signal::SIGURG);
    process_of(daemon, " serves; this one finishes", nth)
}

#[track_caller]
fn ask(address: &Address, line: &str) -> String {
    let mut client = Client::connect(address);
    client.send(format!("{line}\n"));
    String::from_utf8_lossy(&client.read_to_end()).into_owned()
}

/// Clients that ask one thing a connection, without a pause, and check each answer.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Receiver<()>,
    clients: Vec<JoinHandle<()>>,
}

/// The bytes that a client sends, and the ones that it must receive before the daemon closes. Made for each connection
/// from a text of its own.
pub(crate) type Talk = fn(&str) -> (Vec<u8>, Vec<u8>);

impl Load {
    /// Of pools of scripted workers at these addresses.
    fn on(addresses: &[Address]) -> Self {
        let echo: Talk = |text| (format!("echo {text}\n").into(), format!("{text}\n").into());
        Self::of(addresses.iter().map(|address| (address.clone(), echo)))
    }

    /// A client for each of these.
    pub(crate) fn of(talks: impl IntoIterator<Item = (Address, Talk)>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, answered) = mpsc::channel();
        let start = |(number, (address, talk)): (usize, (Address, Talk))| {
            let (stop, sender) = (Arc::clone(&stop), sender.clone());
            thread::spawn(move || ask_on(number, (&address, talk), &stop, &sender))
        };
        let clients = talks.into_iter().enumerate().map(start).collect();
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// Waits for `answers` more answers.
    #[track_caller]
    pub(crate) fn wait(&self, answers: usize) {
        while self.answered.try_recv().is_ok() {}
        for _ in 0..answers {
            self.answered.recv_timeout(WATCHDOG).expect("an answer");
        }
    }

    #[track_caller]
    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().expect("a client was answered each time");
        }
    }
}

fn ask_on(client: usize, (address, talk): (&Address, Talk), stop: &AtomicBool, answered: &Sender<()>) {
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let (says, hears) = talk(&format!("{client}-{number}"));
        let mut connection = Client::connect(address);
        connection.send(says);
        let heard = connection.read_to_end();
        assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(&hears));
        // The test may have ended by a failure of its own.
        answered.send(()).ok();
    }
}

// ---- without loss ----------------------------------------------------------------------------------------------

#[test]
fn under_load_three_upgrades_in_a_row_lose_nothing() {
    let (installation, home) = (Installation::new(), temp_dir());
    let path = home.path().join("s");
    let command = worker_command(&[]);
    let daemon = Daemon::with(["-n", "3", "-d", &command, "--queue-timeout", LONG, "-p", "0"])
        .args(&["--listen", &format!("unix:{}", path.display())])
        .installed_at(&installation.program())
        .start();
    let addresses = [daemon.nth_addr(1), daemon.nth_addr(2)];
    let [tcp, unix] = addresses.clone();
    let load = Load::on(&[tcp.clone(), unix.clone(), tcp, unix]);
    let mut serving = daemon.pid();
    for nth in 1..=3 {
        load.wait(50);
        let version = format!("v{}", nth + 1);
        installation.install(&version);
        let new = upgrade(&daemon, serving, nth);
        if nth == 1 {
            assert_eq!(daemon.wait_exit().code(), Some(0));
        } else {
            assert_eq!(wait_orphan(serving), WaitStatus::Exited(Pid::from_raw(serving), 0));
        }
        assert_eq!(program_of(new), Some(installation.version(&version)));
        serving = new;
    }
    load.wait(50);
    // Every worker is replaced in between, which no client notices either.
    signal(serving, Signal::SIGHUP);
    daemon.stderr_wait("every worker has been replaced");
    load.wait(50);
    load.end();
    let log = daemon.stderr.text();
    assert!(
        !log.contains("refused") && !log.contains("WARN") && !log.contains("ERROR"),
        "{log}"
    );
    assert!(path.exists());
    signal(serving, Signal::SIGTERM);
    assert_eq!(wait_orphan(serving), WaitStatus::Exited(Pid::from_raw(serving), 0));
    assert!(!path.exists(), "the last one has taken the socket's file along");
}

/// A pool in a file: the new daemon reads the file as it is then.
fn table(listen: &[&str], flags: &[&str], more: &str) -> String {
    let command = worker_command(flags);
    format!(
        "[pool.main]\nqueue-timeout = '{LONG}'\nbusy-timeout = '{LONG}'\nnum-daemons = 1\ndaemon = {command:?}\nlisten = {listen:?}\n{more}\n"
    )
}

/// A daemon that runs from a file, and where both are.
struct Running {
    daemon: Daemon,
    installation: Installation,
    home: TempDir,
}

impl Running {
    /// On the UNIX sockets of these names.
    #[track_caller]
    fn on(sockets: &[&str]) -> Self {
        let (installation, home) = (Installation::new(), temp_dir());
        let file = home.path().join("iotcpd.toml");
        let sockets: Vec<String> = sockets.iter().map(|name| socket(&home, name)).collect();
        let sockets: Vec<&str> = sockets.iter().map(String::as_str).collect();
        fs::write(&file, table(&sockets, &["old"], "")).unwrap();
        let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()])
            .installed_at(&installation.program())
            .start();
        Self {
            daemon,
            installation,
            home,
        }
    }

    fn socket(&self, name: &str) -> String {
        socket(&self.home, name)
    }

    fn write(&self, text: &str) {
        fs::write(self.home.path().join("iotcpd.toml"), text).unwrap();
    }

    #[track_caller]
    fn arguments(&self) -> String {
        self.daemon.ask("arguments")
    }

    /// Asserts that the daemon that was started first serves, as it did.
    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(self.arguments(), "\"old\"\n");
        assert!(self.home.path().join("s").exists());
    }
}

fn socket(home: &TempDir, name: &str) -> String {
    format!("unix:{}", home.path().join(name).display())
}

#[test]
fn the_old_one_serves_until_every_worker_of_the_new_one_is_ready_and_finishes_what_it_has() {
    let (start, hold) = (Gate::new(), Gate::new());
    let running = Running::on(&["s"]);
    let daemon = &running.daemon;
    let slow = ["--start-gate", start.path(), "--ready", "up", "new"];
    running.write(&table(
        &[&running.socket("s")],
        &slow,
        "ready-line = 'up'\nstart-timeout = '600s'",
    ));
    daemon.signal(Signal::SIGURG);
    let starting = start.arrival();
    let new = process_of(daemon, " starts", 1);
    assert_eq!(running.arguments(), "\"old\"\n");
    let silent = daemon.watched_client();
    let mut busy = daemon.client();
    busy.send(format!("wait {} finished\n", hold.path()));
    let held = hold.arrival();

    // There is one upgrade at a time, and a reload waits for its end.
    daemon.signal(Signal::SIGURG);
    daemon.stderr_wait("one is under way");
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("whoever serves after it");
    // The new one takes no orders to upgrade while it is none.
    signal(new, Signal::SIGURG);
    daemon.stderr_wait("itself about to take over");

    starting.open();
    assert_eq!(process_of(daemon, " serves; this one finishes", 1), new);
    // The reload is for the new one now: it replaces its worker.
    start.arrival().open();
    daemon.stderr_wait("the configuration was read again");
    daemon.stderr_wait("every worker has been replaced");
    assert!(running.arguments().contains("\"new\""));
    // A client of the old process stays with it, and is not hastened.
    held.open();
    assert_eq!(busy.read_to_end(), b"finished\n");
    let mut silent = silent;
    silent.send("arguments\n");
    assert_eq!(silent.read_to_end(), b"\"old\"\n");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert!(!daemon.stderr.text().contains("ERROR"));
}

/// At its minimum it would refuse what the old one carries, until it has grown as well.
#[test]
fn a_pool_that_has_grown_is_as_large_in_the_new_one_and_shrinks_again_when_idle() {
    let (installation, gate) = (Installation::new(), Gate::new());
    let command = worker_command(&[]);
    let size = ["--max-workers", "5", "--spare-workers", "0", "--queue-timeout", LONG];
    let flags = [
        "-d",
        &command,
        "-p",
        "0",
        "--worker-idle-timeout",
        "300ms",
        "-a",
        "100ms",
    ];
    let daemon = Daemon::with(flags)
        .args(&size)
        .installed_at(&installation.program())
        .start();
    let held: Vec<_> = (0..3)
        .map(|_| {
            let mut client = daemon.client();
            client.send(format!("wait {} held\n", gate.path()));
            (client, gate.arrival())
        })
        .collect();
    assert_eq!(daemon.usr1().count("workers current"), 3);
    installation.install("v2");
    upgrade(&daemon, daemon.pid(), 1);
    let workers_of_new = daemon.stderr_wait("needed for --worker-idle-timeout 300 ms and is let go; 2 are left");
    assert!(workers_of_new.contains("of at least 1"), "{workers_of_new}");
    for (mut client, arrival) in held {
        arrival.open();
        assert_eq!(client.read_to_end(), b"held\n");
    }
}

/// The first one may have long to go, with a session or at most `--stop-timeout`, and others come and go meanwhile.
#[test]
fn a_successor_that_ends_before_its_predecessor_leaves_no_zombie() {
    let (installation, gate) = (Installation::new(), Gate::new());
    let daemon = installation.pool(&["-p", "0"]).start();
    let mut busy = daemon.client();
    busy.send(format!("wait {} done\n", gate.path()));
    let held = gate.arrival();
    let second = upgrade(&daemon, daemon.pid(), 1);
    upgrade(&daemon, second, 2);
    let process = format!("/proc/{second}");
    daemon.usr1_until(|_| !Path::new(&process).exists());
    held.open();
    assert_eq!(busy.read_to_end(), b"done\n");
}

#[test]
fn addresses_come_and_go_with_the_file() {
    let running = Running::on(&["s", "dropped"]);
    let (kept, dropped, added) = (running.socket("s"), running.socket("dropped"), running.socket("added"));
    let renamed = table(&[&added, &kept], &["new"], "").replace("[pool.main]", "[pool.renamed]");
    running.write(&renamed);
    let new = upgrade(&running.daemon, running.daemon.pid(), 1);
    for address in [&kept, &added] {
        assert_eq!(ask(&Address::parse(address).unwrap(), "arguments"), "\"new\"\n");
    }
    running
        .daemon
        .stderr_wait(&format!("main: no longer listening on {dropped}"));
    assert!(!running.home.path().join("dropped").exists());
    running.daemon.wait_exit();
    signal(new, Signal::SIGTERM);
    wait_orphan(new);
    for name in ["s", "added"] {
        assert!(!running.home.path().join(name).exists(), "{name}");
    }
}

#[test]
fn a_kept_connection_gets_one_more_answer_and_term_closes_idle_ones_sooner() {
    let (installation, home) = (Installation::new(), temp_dir());
    let daemon = installation
        .pool(&["--persistent", "--listen", &socket(&home, "s")])
        .args(&["--idle-timeout", LONG, "--read-timeout", LONG, "--stop-timeout", LONG])
        .start();
    let (mut asks, mut idle) = (daemon.client(), daemon.client());
    for client in [&mut asks, &mut idle] {
        client.send("echo before\n");
        assert_eq!(client.read_line(), "before");
    }
    upgrade(&daemon, daemon.pid(), 1);
    asks.send("echo after\n");
    assert_eq!(asks.read_to_end(), b"after\n");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(idle.read_to_end(), b"");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let mut kept = daemon.client();
    kept.send("echo kept\n");
    assert_eq!(kept.read_line(), "kept", "by the new one, which TERM has not reached");
    assert!(home.path().join("s").exists());
}

#[test]
fn workers_get_the_limit_on_open_files_that_the_first_daemon_was_started_with() {
    let installation = Installation::new();
    let daemon = installation.pool(&["-p", "0"]).start();
    let before = daemon.ask("proc limits");
    assert!(before.contains("Max open files"), "{before}");
    upgrade(&daemon, daemon.pid(), 1);
    assert_eq!(daemon.ask("proc limits"), before);
    assert_eq!(
        daemon.ask("env IOTCPD_HANDOVER"),
        "\n",
        "what was meant for the daemon is not for its workers"
    );
    let descriptors = daemon.ask("descriptors");
    assert!(!descriptors.contains("socket:"), "{descriptors}");
}

// ---- the service manager ---------------------------------------------------------------------------------------

#[track_caller]
fn told(socket: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    let length = socket.recv(&mut message).expect("a message");
    String::from_utf8_lossy(&message[..length]).into_owned()
}

#[test]
fn the_service_manager_learns_the_new_main_pid_and_its_sockets_are_handed_on() {
    let (installation, home) = (Installation::new(), temp_dir());
    let path = home.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(WATCHDOG)).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = installation
        .pool(&["--listen", "systemd"])
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .inherit(socket)
        .start();
    assert_eq!(told(&manager), "READY=1");
    let mut serving = daemon.pid();
    for nth in 1..=2 {
        let new = upgrade(&daemon, serving, nth);
        assert!(told(&manager).starts_with("RELOADING=1\n"));
        assert_eq!(told(&manager), format!("MAINPID={new}\nREADY=1"));
        assert_eq!(daemon.ask("echo x"), "x\n");
        serving = new;
    }
    signal(serving, Signal::SIGTERM);
    assert_eq!(told(&manager), "STOPPING=1", "of the last one alone");
}

#[test]
fn a_failed_upgrade_ends_the_reload_for_the_service_manager() {
    let (installation, home) = (Installation::new(), temp_dir());
    let path = home.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(WATCHDOG)).unwrap();
    let daemon = installation
        .pool(&["-p", "0"])
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .start();
    assert_eq!(told(&manager), "READY=1");
    installation.turn_to(Path::new("/no/such/program"));
    daemon.signal(Signal::SIGURG);
    assert!(told(&manager).starts_with("RELOADING=1\n"));
    assert_eq!(told(&manager), "READY=1");
    let line = daemon.stderr_wait("upgrade failed");
    assert!(line.contains(installation.program().to_str().unwrap()), "{line}");
}

// ---- what goes wrong -------------------------------------------------------------------------------------------

#[test]
fn a_new_one_that_cannot_start_leaves_the_old_one_in_service() {
    let running = Running::on(&["s"]);
    let daemon = &running.daemon;
    let program = running.home.path().join("garbage");
    fs::write(&program, "garbage").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut failures = 0;
    let mut fails = |why: &str| {
        daemon.signal(Signal::SIGURG);
        failures += 1;
        let line = daemon.stderr_wait_nth("upgrade failed", failures);
        assert!(line.contains(why) && line.contains("stays in service"), "{line}");
        running.assert_untouched();
    };
    // A mistake in the file, which the new one names itself.
    running.write("[pool.main]\nlisten = [");
    fails("it ended before it could serve (exit status 2)");
    daemon.stderr_wait("iotcpd.toml:2:");
    // Workers that cannot be started.
    running.write(&table(&[&running.socket("s")], &[], "").replace("daemon =", "daemon = '/no/such/worker' #"));
    fails("exit status 1");
    // An address that another process has.
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    running.write(&table(&[&running.socket("s"), &taken.to_string()], &["new"], ""));
    fails("exit status 1");
    drop(holder);
    // Other programs.
    running.installation.turn_to(Path::new("/bin/false"));
    fails("exit status 1");
    running.installation.install_script("kill -9 $$");
    fails("signal 9");
    running.installation.turn_to(&program);
    fails("cannot run");

    // Once the cause is gone, an upgrade works.
    running.write(&table(&[&running.socket("s")], &["new"], ""));
    running.installation.install("v2");
    upgrade(daemon, daemon.pid(), 1);
    assert_eq!(running.arguments(), "\"new\"\n");
}

#[test]
fn a_reload_that_was_put_off_follows_an_upgrade_that_fails() {
    let running = Running::on(&["s"]);
    let (daemon, gate) = (&running.daemon, Gate::new());
    running.installation.install_script(&format!(
        "echo hanging >&2; exec {} --start-gate {}; exit 1",
        worker_command(&[]),
        gate.path()
    ));
    daemon.signal(Signal::SIGURG);
    let hanging = gate.arrival();
    running.write(&table(&[&running.socket("s")], &["reloaded"], ""));
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("whoever serves after it");
    running.assert_untouched();
    // Past its gate it finds the end of its input, and exits.
    hanging.open();
    daemon.stderr_wait("upgrade failed");
    daemon.stderr_wait("every worker has been replaced");
    assert_eq!(running.arguments(), "\"reloaded\"\n");
}

#[test]
fn told_to_end_meanwhile_the_old_one_ends_and_takes_the_new_one_along() {
    let running = Running::on(&["s"]);
    let (daemon, gate) = (&running.daemon, Gate::new());
    let slow = ["--start-gate", gate.path(), "--ready", "up"];
    running.write(&table(
        &[&running.socket("s")],
        &slow,
        "ready-line = 'up'\nstart-timeout = '600s'",
    ));
    daemon.signal(Signal::SIGURG);
    let starting = gate.arrival();
    daemon.signal(Signal::SIGTERM);
    starting.wait_killed();
    assert_eq!(
        daemon.finish().0.code(),
        Some(0),
        "nobody holds its standard error any more"
    );
    assert!(!running.home.path().join("s").exists());
}

#[test]
fn nothing_of_a_new_one_outlives_an_old_one_that_is_killed_before_the_change() {
    let running = Running::on(&["s"]);
    let (daemon, gate) = (&running.daemon, Gate::new());
    let slow = ["--start-gate", gate.path(), "--ready", "up"];
    running.write(&table(
        &[&running.socket("s")],
        &slow,
        "ready-line = 'up'\nstart-timeout = '600s'",
    ));
    daemon.signal(Signal::SIGURG);
    let starting = gate.arrival();
    daemon.signal(Signal::SIGKILL);
    starting.wait_killed();
    wait_orphan(process_of(daemon, " starts", 1));
}

#[test]
fn a_variable_that_was_meant_for_another_process_is_not_obeyed() {
    let command = worker_command(&[]);
    for (value, why) in [
        ("1 1 3 1000 1024\n", "child of process 1"),
        ("2 of another make\n", "not written by a program like this"),
    ] {
        let (status, _, stderr) = Daemon::with(["-n", "1", "-d", &command, "-p", "0"])
            .env("IOTCPD_HANDOVER", value)
            .spawn()
            .finish();
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
    }
}

crate::harness::over_tls! {
    under_load_three_upgrades_in_a_row_lose_nothing,
}
