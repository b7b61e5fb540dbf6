//! Where a pool listens: IPv4, IPv6, UNIX sockets with and without a file, sockets of a service manager; and what it
//! tells that service manager.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::{Address, Builder, Client, Daemon, WATCHDOG, temp_dir, worker_command};

/// A builder of a pool of one worker with these flags, which refuses no request for want of time.
#[track_caller]
fn builder(flags: &[&str]) -> Builder {
    let command = worker_command(&[]);
    Daemon::with(["-n", "1", "--queue-timeout", "600s", "-d", command.as_str()]).args(flags)
}

/// The same, ready for clients.
#[track_caller]
fn pool(flags: &[&str]) -> Daemon {
    builder(flags).start()
}

/// The same, expected to end at once: its exit status and standard error.
#[track_caller]
fn refused(flags: &[&str]) -> (Option<i32>, String) {
    let (status, _, stderr) = builder(flags).spawn().finish();
    (status.code(), stderr)
}

#[track_caller]
fn ask(address: &Address, line: &str) -> String {
    let mut client = Client::connect(address);
    client.send(format!("{line}\n"));
    String::from_utf8_lossy(&client.read_to_end()).into_owned()
}

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// The number of listeners that it has reported. All of them are reported before the first answer.
fn listeners(daemon: &Daemon) -> usize {
    assert_eq!(daemon.ask("echo up"), "up\n");
    daemon.stderr.text().matches("listening on ").count()
}

// ---- TCP -------------------------------------------------------------------------------------------------------

#[test]
fn ipv4_alone_is_the_default_and_ipv6_alone_binds_no_ipv4() {
    let daemon = pool(&["-p", "0"]);
    assert!(matches!(daemon.addr(), Address::Tcp(address) if address.ip().to_string() == "127.0.0.1"));
    assert_eq!(listeners(&daemon), 1);
    for flag in ["-I", "-6", "--ipv6"] {
        let daemon = pool(&[flag, "::1", "-p", "0"]);
        assert!(matches!(daemon.addr(), Address::Tcp(address) if address.ip() == Ipv6Addr::LOCALHOST));
        assert_eq!(listeners(&daemon), 1);
        assert_eq!(tcp_listeners(&daemon, "tcp"), 0, "its port is not its own on IPv4");
        assert_eq!(tcp_listeners(&daemon, "tcp6"), 1);
    }
}

/// The number of sockets of a family (`tcp`, `tcp6`) on which the daemon listens, as the kernel has it. To bind its
/// port on the other family would show the same only as long as no other program on the machine happens to have that
/// port.
fn tcp_listeners(daemon: &Daemon, family: &str) -> usize {
    const LISTEN: &str = "0A";
    let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    let links = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let sockets: BTreeSet<String> = links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let table = fs::read_to_string(format!("/proc/{}/net/{family}", daemon.pid())).unwrap();
    let lines = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|fields| fields[3] == LISTEN && sockets.contains(fields[9]))
        .count()
}

#[test]
fn both_families_side_by_side() {
    for flags in [["-i", "-I"], ["-4", "-6"], ["--ipv4", "--ipv6"]] {
        let daemon = pool(&[flags[0], "127.0.0.1", flags[1], "::1", "-p", "0"]);
        let mut answers: Vec<String> = (1..=2).map(|nth| ask(&daemon.nth_addr(nth), "pid")).collect();
        assert_eq!(listeners(&daemon), 2);
        answers.dedup();
        assert_eq!(answers.len(), 1, "one pool behind both: {answers:?}");
    }
}

#[test]
fn every_address_of_both_families_is_one_listener() {
    let daemon = builder(&["--listen", "*:0"]).spawn();
    let line = daemon.stderr_wait("listening on *:");
    let port: u16 = line
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    for host in ["127.0.0.1", "[::1]"] {
        let address = Address::parse(&format!("{host}:{port}")).unwrap();
        assert_eq!(ask(&address, &format!("echo {host}")), format!("{host}\n"));
    }
}

#[test]
fn listen_may_be_repeated_and_joins_the_old_flags() {
    let daemon = pool(&[
        "-i",
        "127.0.0.1",
        "-p",
        "0",
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "[::1]:0",
    ]);
    for nth in 1..=3 {
        assert_eq!(ask(&daemon.nth_addr(nth), &format!("echo {nth}")), format!("{nth}\n"));
    }
    assert_eq!(listeners(&daemon), 3);
}

// ---- UNIX sockets ----------------------------------------------------------------------------------------------

#[test]
fn a_unix_socket_has_its_mode_and_is_gone_after_an_orderly_end() {
    let home = temp_dir();
    let path = home.path().join("pool.sock");
    for mode in [0o600, 0o666] {
        let daemon = pool(&["--listen", &unix(&path), "--socket-mode", &format!("{mode:04o}")]);
        assert_eq!(daemon.addr(), Address::Unix(path.display().to_string()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        assert_eq!(daemon.ask("echo x"), "x\n");
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait_exit().code(), Some(0));
        assert!(!path.exists());
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let home = temp_dir();
    let path = home.path().join("pool.sock");
    let killed = pool(&["--listen", &unix(&path)]);
    killed.signal(Signal::SIGKILL);
    killed.wait_exit();
    assert!(fs::metadata(&path).unwrap().file_type().is_socket(), "left behind");

    let daemon = pool(&["--listen", &unix(&path)]);
    assert_eq!(daemon.ask("echo mine"), "mine\n");
    let (status, stderr) = refused(&["--listen", &unix(&path)]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stderr.contains(&unix(&path)) && stderr.contains("in use by a running server"),
        "{stderr}"
    );
    assert_eq!(daemon.ask("echo still mine"), "still mine\n");
}

#[test]
fn a_file_that_is_no_socket_is_not_touched() {
    let home = temp_dir();
    let path = home.path().join("precious");
    fs::write(&path, "data").unwrap();
    let (status, stderr) = refused(&["--listen", &unix(&path)]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("not a socket"), "{stderr}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
}

#[test]
fn a_directory_that_is_missing_is_named() {
    let home = temp_dir();
    let (status, stderr) = refused(&["--listen", &unix(&home.path().join("not/there"))]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stderr.contains(&format!("{}/not must exist", home.path().display())),
        "{stderr}"
    );
}

#[test]
fn an_abstract_socket_answers_and_leaves_no_file() {
    let name = format!("iotcpd-it-{}-abstract", std::process::id());
    let daemon = pool(&["--listen", &format!("unix:@{name}")]);
    daemon.stderr_wait(&format!("listening on unix:@{name}"));
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let mut client = UnixStream::connect_addr(&address).unwrap();
    client.set_read_timeout(Some(WATCHDOG)).unwrap();
    client.write_all(b"echo abstract\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "abstract\n");
    let (status, stderr) = refused(&["--listen", &format!("unix:@{name}")]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("in use"), "{stderr}");
}

// ---- the service manager's sockets -----------------------------------------------------------------------------

#[test]
fn an_inherited_socket_is_served_and_its_file_is_left_alone() {
    let home = temp_dir();
    let path = home.path().join("systemd.sock");
    let socket = UnixListener::bind(&path).unwrap();
    // A client that came before the daemon waits in the socket's backlog.
    let address = Address::Unix(path.display().to_string());
    let mut early = Client::connect(&address);
    early.send("echo early\n");
    let daemon = builder(&["--listen", "systemd"]).inherit(socket).start();
    assert_eq!(early.read_to_end(), b"early\n");
    assert_eq!(
        ask(&address, "env LISTEN_FDS"),
        "\n",
        "what was meant for the daemon is not for its workers"
    );
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert!(path.exists(), "the service manager's file");
}

#[test]
fn a_worker_does_not_inherit_the_socket() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = builder(&["--listen", "systemd"]).inherit(socket).start();
    let descriptors = daemon.ask("descriptors");
    assert!(!descriptors.contains("socket:"), "{descriptors}");
}

#[test]
fn sockets_that_were_not_handed_over_are_an_error() {
    let (status, stderr) = refused(&["--listen", "systemd"]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stderr.contains("LISTEN_FDS") && stderr.contains("socket unit"),
        "{stderr}"
    );

    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = builder(&["--listen", "systemd:http"]).inherit(socket).spawn();
    let (status, _, stderr) = daemon.finish();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("\"http\""), "{stderr}");
}

#[test]
fn variables_meant_for_another_process_are_not_obeyed() {
    let daemon = builder(&["--listen", "systemd"])
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "1")
        .spawn();
    let (status, _, stderr) = daemon.finish();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("process 1 (LISTEN_PID)"), "{stderr}");
}

// ---- telling the service manager -------------------------------------------------------------------------------

/// The next message to the service manager.
#[track_caller]
fn told(socket: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    let length = socket
        .recv(&mut message)
        .unwrap_or_else(|error| panic!("nothing was told: {error}"));
    String::from_utf8_lossy(&message[..length]).into_owned()
}

/// CLOCK_MONOTONIC in microseconds, as `systemd` compares it.
fn monotonic() -> i64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000
}

#[test]
fn the_service_manager_is_notified_of_start_reload_and_stop() {
    let home = temp_dir();
    let path = home.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(WATCHDOG)).unwrap();
    let file = home.path().join("pool.toml");
    fs::write(
        &file,
        format!(
            "[pool.main]\ndaemon = {:?}\nnum-daemons = 1\nqueue-timeout = 600\nport = 0\n",
            worker_command(&[])
        ),
    )
    .unwrap();
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()])
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .start();
    assert_eq!(told(&manager), "READY=1");
    assert_eq!(
        daemon.ask("env NOTIFY_SOCKET"),
        "\n",
        "its workers have nothing to tell it"
    );

    let before = monotonic();
    daemon.signal(Signal::SIGHUP);
    let reloading = told(&manager);
    let lines: Vec<&str> = reloading.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "RELOADING=1"), "{reloading}");
    let at: i64 = lines[1]
        .strip_prefix("MONOTONIC_USEC=")
        .and_then(|at| at.parse().ok())
        .unwrap();
    assert!((before..=monotonic()).contains(&at), "{reloading}");
    assert_eq!(told(&manager), "READY=1");

    daemon.signal(Signal::SIGTERM);
    assert_eq!(told(&manager), "STOPPING=1");
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn an_abstract_notify_socket_is_notified_too() {
    let name = format!("iotcpd-it-{}-notify", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_read_timeout(Some(WATCHDOG)).unwrap();
    let daemon = builder(&["-p", "0"]).env("NOTIFY_SOCKET", &format!("@{name}")).start();
    assert_eq!(told(&manager), "READY=1");
    // A pool described by flags has nothing to read again, but the sender of HUP waits for the message that it is done.
    daemon.signal(Signal::SIGHUP);
    assert!(told(&manager).starts_with("RELOADING=1\n"));
    assert_eq!(told(&manager), "READY=1");
    daemon.signal(Signal::SIGINT);
    assert_eq!(told(&manager), "STOPPING=1");
}

#[test]
fn a_service_manager_that_does_not_listen_stops_nothing() {
    let home = temp_dir();
    let missing = home.path().join("missing");
    // An address of its own: the port it gives up would be the next free one of 127.0.0.1 for other tests.
    let daemon = builder(&["-i", "127.9.9.9", "-p", "0"])
        .env("NOTIFY_SOCKET", missing.to_str().unwrap())
        .start();
    daemon.stderr_wait("READY=1");
    assert_eq!(daemon.ask("echo x"), "x\n");
    let Address::Tcp(address) = daemon.addr() else {
        panic!("a TCP pool")
    };
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert_eq!(
        TcpStream::connect(address).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
}
