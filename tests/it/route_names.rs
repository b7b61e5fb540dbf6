//! Servers of a route door that are named by their hosts. The daemon has files of its own in the place of `/etc/hosts`
//! and `/etc/nsswitch.conf`, so no name server is asked.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::{Daemon, TempDir, WATCHDOG, temp_dir};
use crate::route_peers::{Backend, INTERNAL_ERROR, RouteFile, at, client, pair};

/// The place of the hosts that a daemon knows.
struct Hosts {
    home: TempDir,
    path: PathBuf,
}

impl Hosts {
    fn new(text: &str) -> Self {
        let hosts = Self::without_file();
        hosts.write(text);
        hosts
    }

    /// Hosts that are a FIFO: each look-up hangs until the FIFO is opened for writing.
    fn hanging() -> Self {
        let hosts = Self::without_file();
        mkfifo(&hosts.path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a FIFO");
        hosts
    }

    fn without_file() -> Self {
        let home = temp_dir();
        fs::write(home.path().join("nsswitch.conf"), "hosts: files\n").expect("a file");
        Self {
            path: home.path().join("hosts"),
            home,
        }
    }

    /// Writes the file again in its place.
    fn write(&self, text: &str) {
        fs::write(&self.path, text).expect("the file of hosts");
    }

    #[track_caller]
    fn start(&self, file: &RouteFile) -> Daemon {
        const SCRIPT: &str =
            r#"mount --bind "$0/hosts" /etc/hosts && mount --bind "$0/nsswitch.conf" /etc/nsswitch.conf && exec "$@""#;
        let home = self.home.path().to_str().expect("temporary paths are UTF-8");
        let launcher = [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            SCRIPT,
            home,
        ];
        Daemon::with(["run", "--config", file.path()])
            .through(&launcher)
            .start()
    }
}

/// The keys of a service at this port of a host.
fn named(host: &str, address: SocketAddr) -> String {
    format!("addr = '{host}'\ntls-port = {}", address.port())
}

/// Connects again and again until this backend is reached.
#[track_caller]
fn reach(daemon: &Daemon, backend: &Backend) {
    let watchdog = Instant::now() + WATCHDOG;
    loop {
        let client = client(daemon, "www.example", "");
        let is_decided = |active, connections| active == 1 || connections == 0;
        daemon.usr1_until(|stats| is_decided(stats.count("routes active"), stats.count("connections")));
        let is_reached = backend.has_connection();
        client.reset();
        daemon.usr1_until(|stats| stats.count("connections") == 0);
        if is_reached {
            return;
        }
        assert!(Instant::now() < watchdog, "it is never reached");
    }
}

#[test]
fn a_server_is_reached_by_the_name_of_its_host_in_the_file_of_this_machine() {
    let backend = Backend::new();
    let service = format!("addr = 'LocalHost:{}'", backend.address().port());
    let daemon = RouteFile::new("", &[("www.example", service)]).start();
    for _ in 0..3 {
        pair(&daemon, &backend, "www.example");
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("names looked up"), stats.count("names failed")), (1, 0));
}

#[test]
fn several_addresses_of_a_host_are_tried_in_turn_and_the_one_that_fails_is_the_last_from_then_on() {
    let hosts = Hosts::new("127.0.0.11 web\n127.0.0.1 web\n127.0.0.12 web\n");
    let backend = Backend::new();
    let service = named("web", backend.address());
    let daemon = hosts.start(&RouteFile::new("", &[("www.example", service)]));
    for _ in 0..4 {
        pair(&daemon, &backend, "www.example");
    }
    let stats = daemon.usr1();
    let counted = ["names looked up", "connect failed", "connect again", "backends out"].map(|row| stats.count(row));
    assert_eq!(counted, [1, 0, 0, 0]);
}

#[test]
fn a_check_passes_if_one_of_the_addresses_of_a_host_can_be_connected_to() {
    let hosts = Hosts::new("127.0.0.11 web\n127.0.0.1 web\n");
    let backend = Backend::new();
    let (good, bad) = (backend.address().port(), Backend::new().address().port());
    let check = "check = 'tcp'\ncheck-interval = '100ms'";
    let services = ["good", "bad"].map(|name| {
        let port = if name == "good" { good } else { bad };
        (name, format!("addr = 'web'\ntls-port = {port}\n{check}"))
    });
    let daemon = hosts.start(&RouteFile::new("", &services));
    let watchdog = Instant::now() + WATCHDOG;
    loop {
        let dump = daemon.usr2();
        let found = |name: &str, state: &str| {
            let mut lines = dump.iter();
            lines.any(|line| line.contains(&format!("check of {name:?}")) && line.contains(state))
        };
        if found("good", "state = passed") && found("bad", "state = failed") {
            break;
        }
        assert!(
            !found("good", "state = failed") && !found("bad", "state = passed"),
            "{dump:?}"
        );
        assert!(Instant::now() < watchdog, "{dump:?}");
    }
}

#[test]
fn a_host_that_does_not_exist_is_said_and_is_looked_up_again() {
    let hosts = Hosts::new("127.0.0.1 other\n");
    let backend = Backend::new();
    let services = [
        ("www.example", named("web", backend.address())),
        ("other.example", named("other", backend.address())),
    ];
    let daemon = hosts.start(&RouteFile::new("", &services));
    let mut refused = client(&daemon, "www.example", "ping");
    assert_eq!(refused.read_to_end(), INTERNAL_ERROR);
    daemon.stderr_wait("the host \"web\" of a server cannot be looked up");
    pair(&daemon, &backend, "other.example");
    let stats = daemon.usr1();
    assert_eq!((stats.count("names failed"), stats.count("connect failed")), (1, 1));
    hosts.write("127.0.0.1 web\n");
    reach(&daemon, &backend);
}

#[test]
fn a_host_is_looked_up_again_after_the_interval_and_its_addresses_stay_after_an_error() {
    let hosts = Hosts::new("127.0.0.1 web\n");
    let old = Backend::new();
    let new = Backend::on(([127, 0, 0, 2], old.address().port()).into());
    let keys = "resolve-interval = '200ms'";
    let daemon = hosts.start(&RouteFile::new(keys, &[("www.example", named("web", old.address()))]));
    pair(&daemon, &old, "www.example");
    hosts.write("127.0.0.2 web\n");
    reach(&daemon, &new);
    drop(old);
    hosts.write("127.0.0.1 other\n");
    let watchdog = Instant::now() + WATCHDOG;
    while daemon.usr1().count("names failed") == 0 {
        pair(&daemon, &new, "www.example");
        assert!(Instant::now() < watchdog);
    }
    pair(&daemon, &new, "www.example");
    daemon.stderr_wait("its last addresses stay");
    assert_eq!(daemon.usr1().count("connect failed"), 0);
}

#[test]
fn a_look_up_that_hangs_costs_its_clients_their_time_and_the_others_nothing() {
    let hosts = Hosts::hanging();
    let backend = Backend::new();
    let services = [
        (
            "www.example",
            named("web", backend.address()) + "\nconnect-timeout = '300ms'",
        ),
        (
            "slow.example",
            named("web", backend.address()) + "\nconnect-timeout = '10m'",
        ),
        ("other.example", at(backend.address())),
    ];
    let daemon = hosts.start(&RouteFile::new("", &services));
    let mut waiting = client(&daemon, "slow.example", "ping");
    let left = client(&daemon, "slow.example", "never");
    for _ in 0..3 {
        assert_eq!(client(&daemon, "www.example", "ping").read_to_end(), INTERNAL_ERROR);
        pair(&daemon, &backend, "other.example");
    }
    // Its reset is seen although it is not read.
    left.reset();
    daemon.usr1_until(|stats| stats.count("connections") == 1);
    let stats = daemon.usr1();
    assert_eq!((stats.count("connect late"), stats.count("names looked up")), (3, 0));
    // The resolver takes no FIFO for a file of hosts, once it has opened it.
    drop(fs::File::options().write(true).open(&hosts.path).expect("the FIFO"));
    assert_eq!(waiting.read_to_end(), INTERNAL_ERROR);
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("names looked up"), stats.count("names failed")), (1, 1));
}

#[test]
fn the_door_ends_although_a_look_up_hangs() {
    let hosts = Hosts::hanging();
    let service = named("web", ([127, 0, 0, 1], 1).into()) + "\nconnect-timeout = '10m'";
    let keys = "stop-timeout = '200ms'";
    let daemon = hosts.start(&RouteFile::new(keys, &[("www.example", service)]));
    let mut client = client(&daemon, "www.example", "ping");
    daemon.usr1_until(|stats| stats.count("routes tls") == 1);
    daemon.signal(Signal::SIGTERM);
    client.read_to_end_or_reset();
    assert_eq!(daemon.wait_exit().code(), Some(0));
}
