//! `iotcpd exec` in the place of sockexec under a supervisor: its exit statuses, limits that the machine has less of,
//! and the supervisors themselves.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::exec_client::{ExecClient, door, run, sh};
use crate::harness::{Daemon, Program, TempDir, WATCHDOG, temp_dir};

// ---- exit statuses ---------------------------------------------------------------------------------------------

/// Runs it to its end.
#[track_caller]
fn status(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
    let (status, _, stderr) = Program::start(command.args(arguments)).finish();
    (status.code(), stderr)
}

#[test]
fn the_exit_status_is_the_number_that_the_supervisor_expects() {
    let home = temp_dir();
    let socket = home.path().join("s");
    let (socket, nowhere) = (socket.to_str().unwrap(), "/no/such/directory/s");
    for (arguments, as_iotcpd, as_sockexec) in [
        (&["exec", "--no-such-flag", socket][..], 2, 100),
        (&["exec"], 2, 100),
        (&["exec", socket, "and", "more"], 2, 100),
        (&["exec", "-t", "soon", socket], 2, 100),
        (&["exec", "-k", "0", socket], 2, 100),
        (&["exec", "-q", "0", socket], 2, 100),
        (&["exec", "-M", "9", socket], 2, 100),
        (&["exec", "--allow-user", "no such user", socket], 2, 100),
        (&["exec", nowhere], 1, 111),
        (&["exec", "--help"], 0, 0),
        (&["exec", "-v"], 0, 0),
    ] {
        let asked = |codes: &[&str]| {
            let (command, rest) = arguments.split_first().unwrap();
            status(&[&[*command], codes, rest].concat())
        };
        for (codes, expected) in [
            (&[][..], as_iotcpd),
            (&["--exit-codes", "iotcpd"], as_iotcpd),
            (&["--exit-codes", "sockexec"], as_sockexec),
            (&["--exit-codes=sockexec"], as_sockexec),
        ] {
            let (status, stderr) = asked(codes);
            assert_eq!(status, Some(expected), "{codes:?} {arguments:?}: {stderr}");
            assert_eq!(stderr.is_empty(), expected == 0, "{stderr}");
        }
        // Wherever it stands.
        let (status, stderr) = status(&[arguments, &["--exit-codes", "sockexec"]].concat());
        assert_eq!(status, Some(as_sockexec), "{arguments:?}: {stderr}");
    }
    assert_eq!(status(&["exec", "--exit-codes", "other", socket]).0, Some(2));
    // A program that ends by a signal has not failed.
    let (daemon, _home) = door(&["--exit-codes", "sockexec"]);
    assert_eq!(sh(&daemon, "exit 3").code(), "3");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.finish().0.code(), Some(0));
}

#[test]
fn a_file_that_is_run_has_them_on_the_command_line_too_and_no_key_for_them() {
    let home = temp_dir();
    let file = home.path().join("iotcpd.toml");
    let path = file.to_str().unwrap();
    let run = |text: &str| {
        fs::write(&file, text).unwrap();
        status(&["run", "--exit-codes", "sockexec", path])
    };
    for (text, expected) in [
        ("[exec.main]\nlisten = [\"unix:/no/such/directory/s\"]\n", 111),
        ("[exec.main]\nlisten = [\"unix:/x\"]\nexit-codes = \"sockexec\"\n", 100),
        ("[exec.main\n", 100),
    ] {
        let (status, stderr) = run(text);
        assert_eq!(status, Some(expected), "{text}: {stderr}");
    }
    assert_eq!(
        status(&["run", "--exit-codes", "sockexec", "/no/such/file"]).0,
        Some(100)
    );
    for other in [&["-p", "0"][..], &["command"], &["check", path]] {
        let arguments = [other, &["--exit-codes", "sockexec"]].concat();
        assert_eq!(status(&arguments).0, Some(2), "{other:?}");
    }
}

// ---- limits ----------------------------------------------------------------------------------------------------

fn exec(home: &TempDir, flags: &[&str]) -> crate::harness::Builder {
    let socket = format!("unix:{}", home.path().join("s").display());
    let arguments = [&["exec", &socket], flags].concat();
    Daemon::with(arguments.iter().copied())
}

#[track_caller]
fn room(warning: &str) -> usize {
    let (_, rest) = warning
        .split_once("leaves room for ")
        .unwrap_or_else(|| panic!("{warning}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn more_connections_than_the_limit_on_open_files_allows_are_lowered_with_a_warning() {
    for (flag, asked) in [("-m", "5000"), ("--max-connections", "4294967295")] {
        let home = temp_dir();
        let daemon = exec(&home, &[flag, asked]).open_files(256).start();
        let warning = daemon.stderr_wait("open files, 256,");
        assert!(
            warning.contains("WARN exec: ") && warning.contains(&format!("--max-connections {asked} is lowered")),
            "{warning}"
        );
        let room = room(&warning);
        assert!((10..60).contains(&room), "{warning}");
        // Exactly the reported number is served, and one more is refused.
        let mut idle: Vec<_> = (0..room).map(|_| ExecClient::connect(&daemon)).collect();
        daemon.usr1_until(|stats| stats.count("connections") == room as u64);
        let refused = ExecClient::connect(&daemon).outcome();
        assert!(refused.complaint().contains("too many connections"), "{refused:?}");
        idle.pop();
        daemon.usr1_until(|stats| stats.count("connections") < room as u64);
        assert_eq!(run(&daemon, &["true"], b"").code(), "0");
    }
}

#[test]
fn a_longer_backlog_than_the_kernel_has_is_lowered_with_a_warning() {
    let most = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let most: u64 = most.trim().parse().unwrap();
    for asked in [most + 1, u64::from(u32::MAX)] {
        let (home, asked) = (temp_dir(), asked.to_string());
        let daemon = exec(&home, &["-q", &asked]).start();
        let warning = daemon.stderr_wait("net.core.somaxconn");
        let said = format!(
            "exec: the kernel lets {most} connections wait to be accepted, and --backlog {asked} is lowered to that"
        );
        assert!(warning.contains("WARN ") && warning.contains(&said), "{warning}");
        assert_eq!(run(&daemon, &["true"], b"").code(), "0");
    }
    // A limit that is already reached is not mentioned.
    let (daemon, _home) = door(&["-q", &most.to_string()]);
    daemon.signal(Signal::SIGTERM);
    let (_, _, log) = daemon.finish();
    assert!(!log.contains("WARN"), "{log}");
}

#[test]
fn a_limit_from_a_file_is_lowered_too_and_those_of_pools_and_commands_where_possible() {
    let home = temp_dir();
    let (file, socket) = (home.path().join("iotcpd.toml"), home.path().join("s"));
    let write = |pool: &str| {
        let text = format!(
            "[exec.programs]\nlisten = [\"unix:{}\"]\nmax-connections = 5000\nbacklog = 4000000\n\
             [pool.checker]\nport = 0\ndaemon = \"cat\"\nnum-daemons = 1\n{pool}\n",
            socket.display()
        );
        fs::write(&file, text).unwrap();
    };
    write("max-connections = 20\nbacklog = 65535");
    let arguments = ["run", "--config", file.to_str().unwrap()];
    let daemon = Daemon::with(arguments).open_files(256).start();
    let warning = daemon.stderr_wait("programs: the limit on open files, 256, leaves room for ");
    assert!((1..60).contains(&room(&warning)), "{warning}");
    daemon.stderr_wait("programs: the kernel lets ");
    daemon.stderr_wait("checker: the kernel lets ");
    daemon.stderr_wait("checker: listening on ");
    // A pool is given what it is to have, or is not started.
    write("max-connections = 5000");
    let (code, stderr) = {
        let (status, _, stderr) = Daemon::with(arguments).open_files(256).spawn().finish();
        (status.code(), stderr)
    };
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("open files, 256, is too low"), "{stderr}");
}

// ---- supervisors -----------------------------------------------------------------------------------------------

/// A file of the service directory for s6.
fn dist(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("dist/s6/iotcpd-exec")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A directory as the supervisors of this kind have it, with `run` and `finish`.
struct Service {
    home: TempDir,
    /// The arguments of `finish`, one after the other.
    ends: Receiver<String>,
}

impl Service {
    fn new(flags: &str) -> Self {
        let home = temp_dir();
        let service = home.path().join("service");
        fs::create_dir(&service).unwrap();
        let ends = home.path().join("ends");
        mkfifo(&ends, Mode::S_IRWXU).unwrap();
        let (sender, receiver) = mpsc::channel();
        let fifo = ends.clone();
        thread::spawn(move || {
            while let Ok(mut fifo) = File::open(&fifo) {
                let mut told = String::new();
                if fifo.read_to_string(&mut told).is_err()
                    || told.lines().try_for_each(|line| sender.send(line.to_owned())).is_err()
                {
                    return;
                }
            }
        });
        let service = Self { home, ends: receiver };
        // The files of dist, with other paths. If the supervisor is killed, its services are killed with it.
        let daemon = format!("setpriv --pdeathsig KILL {}", env!("CARGO_BIN_EXE_iotcpd"));
        let run = dist("run").replace("/usr/local/bin/iotcpd", &daemon);
        let run = run.replace(
            "-t 30 /run/exec.sock",
            &format!("{flags} {}", service.socket().display()),
        );
        assert!(run.contains(&daemon) && run.contains(flags), "{run}");
        service.script("run", &run);
        let finish = format!("#!/bin/sh\necho \"$1\" > {}\n{}", ends.display(), dist("finish"));
        service.script("finish", &finish);
        service
    }

    fn directory(&self) -> PathBuf {
        self.home.path().join("service")
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("s")
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.directory().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    #[track_caller]
    fn supervised_by(&self, supervisor: &str) -> Program {
        Program::start(Command::new(supervisor).arg(self.directory()))
    }

    #[track_caller]
    fn control(&self, program: &str, flags: &str) -> String {
        let output = Command::new(program)
            .args(flags.split_whitespace())
            .arg(self.directory())
            .output();
        let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error} (scripts/install-peers)"));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn end(&self) -> String {
        self.ends.recv_timeout(WATCHDOG).expect("finish is called")
    }

    #[track_caller]
    fn serves(&self, supervisor: &Program) {
        supervisor_said(supervisor, "listening on");
        let socket = self.socket();
        let call = Command::new(env!("CARGO_BIN_EXE_iotcpd"))
            .args([Path::new("call"), &socket, Path::new("true")])
            .status();
        assert!(call.unwrap().success());
    }
}

/// The daemon's log is what the supervisor's children write, which is its own standard output here.
#[track_caller]
fn supervisor_said(supervisor: &Program, what: &str) {
    if let Err(why) = supervisor.stdout.wait_from(0, |line| line.contains(what)) {
        supervisor.fail(&format!("wanted {what:?}: {why}"));
    }
}

#[test]
fn s6_ends_and_starts_it_and_gives_up_on_a_mistake() {
    let service = Service::new("-t 30");
    let supervisor = service.supervised_by("s6-supervise");
    service.serves(&supervisor);
    service.control("s6-svc", "-wD -T 30000 -d");
    assert_eq!(service.end(), "0");
    service.control("s6-svc", "-wu -T 30000 -u");
    service.control("s6-svc", "-wD -T 30000 -k -d");
    assert_eq!(service.end(), "256", "by a signal");
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait_exit();

    let service = Service::new("-t soon");
    let supervisor = service.supervised_by("s6-supervise");
    assert_eq!(service.end(), "100");
    service.control("s6-svwait", "-D -t 30000");
    let status = service.control("s6-svstat", "");
    assert!(status.starts_with("down (exitcode 100) "), "{status}");
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait_exit();
    assert!(service.ends.try_recv().is_err(), "it was started once");

    // A fault that may go away by itself is tried again.
    let service = Service::new("/no/such/directory/s; exit $?; #");
    let supervisor = service.supervised_by("s6-supervise");
    assert_eq!((service.end().as_str(), service.end().as_str()), ("111", "111"));
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait_exit();
}

#[test]
fn runit_and_daemontools_start_and_end_it_too() {
    for (supervisor, control, down) in [("runsv", "sv", "force-stop"), ("supervise", "svc", "-d")] {
        let service = Service::new("-t 30");
        let supervisor = service.supervised_by(supervisor);
        service.serves(&supervisor);
        service.control(control, down);
        if control == "sv" {
            assert_eq!(service.end(), "0");
            service.control(control, "exit");
        } else {
            service.control(control, "-x");
        }
        supervisor.wait_exit();
        assert!(!service.socket().exists(), "it has taken its socket away");
    }
    let service = Service::new("-t soon");
    service.script(
        "finish",
        &format!(
            "#!/bin/sh\necho \"$1\" > {}\n[ \"$1\" -eq 100 ] && exec sv down .\nexit 0\n",
            service.home.path().join("ends").display()
        ),
    );
    let supervisor = service.supervised_by("runsv");
    assert_eq!(service.end(), "100");
    let is_down = || {
        let status = service.control("sv", "status");
        status.starts_with("down: ") && !status.contains("want up")
    };
    let deadline = Instant::now() + WATCHDOG;
    while !is_down() {
        assert!(Instant::now() < deadline, "it is left alone");
        thread::yield_now();
    }
    service.control("sv", "exit");
    supervisor.wait_exit();
    assert!(service.ends.try_recv().is_err(), "it was started once");
}
