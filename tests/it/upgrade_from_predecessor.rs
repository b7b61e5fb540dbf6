//! Upgrade from the release of before, with the configuration that it was written for: what an administrator does with
//! each new version.
//!
//! The program of before is built by `scripts/predecessor` from this repository's own history. Everything is as it was
//! left by its administrator but the program: files, flags, addresses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::exec_client::{netstring, request};
use crate::harness::{Address, Client, Daemon, Gate, Installation, TempDir, program_of, temp_dir, worker_command};
use crate::upgrade::{Load, Talk, upgrade};

/// The release of before.
#[track_caller]
pub(crate) fn predecessor() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/predecessor");
    let output = Command::new(script).output().expect("run scripts/predecessor");
    assert!(
        output.status.success(),
        "scripts/predecessor failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

/// A file as it was written for the release of before. As many of its keys as go together: one that has got another
/// meaning since, or is refused, ends the upgrade.
fn configuration(home: &Path) -> String {
    let home = home.display().to_string();
    [pools(&home), programs(&home)].join("\n")
}

fn pools(home: &str) -> String {
    let worker = worker_command(&[]);
    format!(
        r#"
[pool.main]
daemon = {worker:?}
min-workers = 2
max-workers = 4
spare-workers = 1
worker-idle-timeout = "10m"
listen = ["unix:{home}/pool"]
socket-mode = "0600"
backlog = 100
allow = ["127.0.0.0/8"]
deny = ["192.0.2.0/24"]
max-connections = 500
max-connections-per-ip = 400
busy-timeout = "600s"
queue-size = 1000
queue-timeout = "600s"
retries = 1
alarm-interval = 2
max-requests = 100000
max-age = "24h"
max-rss = "2GiB"
kill-timeout = "5s"
stop-timeout = "600s"
record = 5
slow-log = "600s"
cache-size = "1MiB"
cache-ttl = "1m"
cache-skip = "^(echo|wait) "
request-framing = "line"
reply-framing = "line"
max-request = "64KiB"
max-reply = "1MiB"
read-timeout = "600s"
write-timeout = "600s"
error-reply = 'ERR\n'
half-close = "answer"
env = ["LANG=C"]
nice = 0
limit-open-files = 500
no-new-privs = true

[pool.several]
daemon = {concurrent:?}
num-daemons = 1
concurrency = 8
persistent = true
idle-timeout = "600s"
max-unanswered = 16
listen = "unix:{home}/several"
queue-timeout = "600s"
"#,
        concurrent = worker_command(&["--concurrent"]),
    )
}

fn programs(home: &str) -> String {
    format!(
        r#"
[exec.jobs]
listen = ["unix:{home}/exec"]
timeout = "600s"
kill-timeout = 10
linger = "1s"
stop-timeout = "600s"
max-arguments = "128KiB"
max-connections = 200
allow-program = ["/bin/*", "/usr/bin/*"]
log-args = "yes"
max-buffer = "64KiB"
no-new-privs = true

[exec.scripts]
listen = ["unix:{home}/sockproc"]
protocol = "sockproc"
max-output = "1MiB"

[command.admin]
listen = ["unix:{home}/command"]
list = "yes"
quiet-time = "50ms"
max-message = "4KiB"
stop-timeout = "600s"

[command.admin.commands.echo]
cmd = "/bin/echo"
args = ["any"]
threads = 4
queue = 100
max-wait = "600s"

[command.admin.commands.cat]
cmd = "/bin/cat"
threads = 5
timeout = "600s"

[command.admin.commands.shared]
cmd = "/bin/echo shared"
args = [["start", "stop"], "int 1..12"]
join = true
"#
    )
}

fn at(home: &TempDir, name: &str) -> Address {
    Address::parse(&format!("unix:{}", home.path().join(name).display())).unwrap()
}

fn echo(text: &str) -> (Vec<u8>, Vec<u8>) {
    (format!("echo {text}\n").into(), format!("{text}\n").into())
}

fn exec(text: &str) -> (Vec<u8>, Vec<u8>) {
    let answer: Vec<_> = [b"stdout", text.as_bytes(), b"exitcode", b"0"]
        .into_iter()
        .flat_map(netstring)
        .collect();
    (request(&["printf", "%s", text]), answer)
}

fn command(text: &str) -> (Vec<u8>, Vec<u8>) {
    (format!("echo\n{text}\n").into(), format!("torcd>{text}\n").into())
}

/// Checks a file with the program under test, which may have nothing to say against it.
#[track_caller]
fn check(file: &Path, door: &[&str]) {
    let arguments = ["check", "--config", file.to_str().unwrap()];
    let (status, stdout, stderr) = Daemon::with(arguments).args(door).spawn().finish();
    assert_eq!(status.code(), Some(0), "{stdout}{stderr}");
    assert_eq!(stderr, "", "of {}", file.display());
}

/// Asserts that the process runs the program under test, and that nothing was lost on the way.
#[track_caller]
fn assert_succeeded(daemon: &Daemon, installation: &Installation, serving: i32) {
    assert_eq!(program_of(serving), Some(installation.version("v2")));
    let log = daemon.stderr.text();
    for sign in ["refused", "WARN", "ERROR"] {
        assert!(!log.contains(sign), "{log}");
    }
}

#[test]
fn the_doors_of_a_file_go_over_under_load_and_lose_nothing() {
    let (installation, home) = (Installation::of(&predecessor()), temp_dir());
    let file = home.path().join("iotcpd.toml");
    fs::write(&file, configuration(home.path())).unwrap();
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()])
        .installed_at(&installation.program())
        .start();
    for nth in 1..=5 {
        daemon.nth_addr(nth);
    }
    assert_eq!(program_of(daemon.pid()), Some(installation.version("v1")));
    check(&file, &[]);
    let talks: [(&str, Talk); 3] = [("pool", echo), ("exec", exec), ("command", command)];
    let load = Load::of(talks.map(|(name, talk)| (at(&home, name), talk)));
    load.wait(60);

    // A request in hand is finished by the old process, however long it takes.
    let gate = Gate::new();
    let mut asked = Client::connect(&at(&home, "pool"));
    asked.send(format!("wait {} answered\n", gate.path()));
    let held = gate.arrival();
    let mut runs = Client::connect(&at(&home, "exec"));
    runs.send(request(&["sh", "-c", "echo runs; cat"]));
    runs.read_text("6:stdout,5:runs\n,");
    let mut commanded = Client::connect(&at(&home, "command"));
    commanded.send("cat\nbefore\n");
    commanded.read_text("before\n");
    let mut kept = Client::connect(&at(&home, "several"));
    kept.send("echo kept\n");
    assert_eq!(kept.read_line(), "kept");

    installation.install("v2");
    let serving = upgrade(&daemon, daemon.pid(), 1);
    load.wait(60);
    held.open();
    assert_eq!(asked.read_to_end(), b"answered\n");
    runs.send("4:more,0:,");
    assert_eq!(runs.read_to_end(), b"6:stdout,4:more,8:exitcode,1:0,");
    commanded.send("after\n");
    commanded.half_close();
    assert_eq!(commanded.read_to_end(), b"after\n");
    kept.send("echo last\n");
    assert_eq!(kept.read_to_end(), b"last\n");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    load.wait(60);
    load.end();

    // Every door is the new one's now.
    let ask = |name: &str, says: &[u8]| {
        let mut client = Client::connect(&at(&home, name));
        client.send(says);
        client.half_close();
        String::from_utf8_lossy(&client.read_to_end()).into_owned()
    };
    assert_eq!(ask("several", b"echo new\n"), "new\n");
    assert_eq!(
        ask("sockproc", b"echo script\r\n0\r\n"),
        "status:0\r\n7\r\nscript\n0\r\n"
    );
    assert_eq!(ask("command", b"shared\nstart\n12\n"), "torcd>torcd>shared start 12\n");
    assert_succeeded(&daemon, &installation, serving);
    kill(Pid::from_raw(serving), Signal::SIGTERM).unwrap();
    crate::harness::wait_orphan(serving);
    for name in ["pool", "several", "exec", "sockproc", "command"] {
        assert!(!home.path().join(name).exists(), "{name} is taken along");
    }
}

#[test]
fn a_door_that_is_described_by_a_torc_cfg_goes_over_under_load_and_loses_nothing() {
    let (installation, home) = (Installation::of(&predecessor()), temp_dir());
    let file = home.path().join("torc.cfg");
    let text = "// as torcd has it\nport = 3699; # not used: see the flags\nprocesses = (\n\
        { name = \"echo\"; threads = 50; cmd = \"/bin/echo\"; argc = 1; queue = 5; max_wait = \"1m\"; },\n\
        { name = \"cat\"; threads = 2; cmd = \"/bin/cat\"; }\n);\nread_timeout = \"600s\";\n";
    fs::write(&file, text).unwrap();
    let arguments = ["command", "--config", file.to_str().unwrap(), "--stop-timeout", "600s"];
    let daemon = Daemon::with(arguments)
        .args(&["--listen", "127.0.0.1:0"])
        .installed_at(&installation.program())
        .start();
    let load = Load::of([(daemon.addr(), command as Talk), (daemon.addr(), command)]);
    load.wait(40);
    let mut held = daemon.client();
    held.send("cat\nbefore\n");
    held.read_text("before\n");
    installation.install("v2");
    let serving = upgrade(&daemon, daemon.pid(), 1);
    load.wait(40);
    held.half_close();
    assert_eq!(held.read_to_end(), b"");
    load.wait(40);
    load.end();
    assert_succeeded(&daemon, &installation, serving);
}

#[test]
fn a_pool_of_flags_goes_over_and_its_kept_connections_get_one_more_answer() {
    let installation = Installation::of(&predecessor());
    let command = worker_command(&[]);
    let flags = ["-n", "3", "-d", &command, "-p", "0", "-b", "15", "-a", "2"];
    let daemon = Daemon::with(flags)
        .args(&["--queue-timeout", "600s", "--persistent", "--pipeline", "4"])
        .installed_at(&installation.program())
        .start();
    let address = daemon.addr();
    let mut kept = daemon.client();
    kept.send("echo before\n");
    assert_eq!(kept.read_line(), "before");
    installation.install("v2");
    let serving = upgrade(&daemon, daemon.pid(), 1);
    kept.send("echo last\n");
    assert_eq!(kept.read_to_end(), b"last\n");
    let mut new = Client::connect(&address);
    new.send("echo after\n");
    assert_eq!(new.read_line(), "after");
    assert_succeeded(&daemon, &installation, serving);
}
