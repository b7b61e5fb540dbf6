//! Debian's HAProxy and nginx in front of a pool: the headers that real proxies send, and the clients that they name.
//!
//! A test starts a pool that believes the proxies on 127.0.0.1, and a proxy with its files in a directory of its own and
//! listeners on free ports. The clients connect to the proxy from other addresses of the loopback network, so that
//! client and proxy can be told apart. Where a proxy is missing its test fails.

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::harness::{Address, Client, Daemon, Program, TempDir, WATCHDOG, free_port, temp_dir, worker_command};

/// nginx's module for connections that are not HTTP, which is a package of its own.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// An address of clients that are denied. Others begin with 127.0.0 as well.
const DENIED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// A pool of two workers behind the proxies on 127.0.0.1, which are no clients themselves.
#[track_caller]
fn pool() -> Daemon {
    Daemon::pool(
        2,
        &worker_command(&[]),
        &[
            "--persistent",
            "--queue-timeout",
            "600s",
            "--idle-timeout",
            "600s",
            "--accept-proxy",
            "127.0.0.1",
            "--allow",
            "127.0.0.8/29",
            "--log-level",
            "debug",
        ],
    )
}

/// A running proxy.
struct Proxy {
    _program: Program,
    /// The addresses of its listeners.
    addresses: Vec<Address>,
    _home: TempDir,
}

impl Proxy {
    /// Starts the proxy and waits until it listens. `configure` writes a configuration that has listeners on the given
    /// ports; `command` runs the proxy with the file.
    #[track_caller]
    fn start<const N: usize>(
        program: &str,
        configure: impl FnOnce([u16; N]) -> String,
        command: impl FnOnce(&mut Command, &str),
    ) -> Self {
        let home = temp_dir();
        let ports = [(); N].map(|()| free_port());
        let file = home.path().join("configuration");
        fs::write(&file, configure(ports)).unwrap();
        let mut proxy = Command::new(program);
        // Debian keeps both where only root's PATH leads.
        let search = std::env::var("PATH").unwrap_or_default();
        proxy
            .env("PATH", format!("{search}:/usr/sbin:/sbin"))
            .current_dir(&home);
        command(&mut proxy, file.to_str().unwrap());
        let program = Program::start(&mut proxy);
        let deadline = Instant::now() + WATCHDOG;
        while !ports.iter().all(|port| has_listener(*port)) {
            if Instant::now() >= deadline {
                program.fail("does not listen");
            }
            thread::yield_now();
        }
        let addresses = ports.map(|port| Address::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        Self {
            _program: program,
            addresses: addresses.into(),
            _home: home,
        }
    }

    /// HAProxy with a listener for each of these words behind `server NAME ADDRESS`.
    #[track_caller]
    fn haproxy<const N: usize>(pool: &Daemon, servers: [&str; N]) -> Self {
        let port = pool.addr().port();
        let configure = |ports: [u16; N]| {
            let mut text =
                "defaults\nmode tcp\ntimeout connect 60s\ntimeout client 600s\ntimeout server 600s\n".to_owned();
            for (words, listens) in servers.iter().zip(ports) {
                writeln!(text, "listen at{listens}\nbind 127.0.0.1:{listens}").unwrap();
                writeln!(text, "server pool 127.0.0.1:{port} {words}").unwrap();
            }
            text
        };
        Self::start("haproxy", configure, |command, file| {
            // In the foreground, as one process.
            command.args(["-db", "-f", file]);
        })
    }

    #[track_caller]
    fn nginx(pool: &Daemon) -> Self {
        assert!(
            Path::new(STREAM_MODULE).exists(),
            "{STREAM_MODULE} is missing (scripts/install-peers installs the peers)"
        );
        let port = pool.addr().port();
        let configure = |[listens]: [u16; 1]| {
            format!(
                "load_module {STREAM_MODULE};\ndaemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\n\
                 events {{}}\nstream {{\n server {{\n listen 127.0.0.1:{listens};\n proxy_pass 127.0.0.1:{port};\n \
                 proxy_timeout 600s;\n proxy_protocol on;\n }}\n}}\n"
            )
        };
        Self::start("nginx", configure, |command, file| {
            command.args(["-e", "stderr", "-p", ".", "-c", file]);
        })
    }
}

/// Returns true if a program listens on this TCP port of IPv4. A connection would show the same, but a proxy would pass
/// it on.
fn has_listener(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let is_one = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&port) && fields[3] == LISTEN
    };
    table.lines().skip(1).any(is_one)
}

/// Asserts that the pool serves clients that come by this address of a proxy as the clients that they are.
#[track_caller]
fn assert_names_its_clients(pool: &Daemon, proxy: &Address) {
    let before = pool.usr1().count("refused denied");
    let mut clients: Vec<_> = (8..16)
        .map(|last| (last, Client::connect_from(Ipv4Addr::new(127, 0, 0, last), proxy)))
        .collect();
    // The first bytes come behind the header, many lines of each client at once.
    for (last, client) in &mut clients {
        let lines: String = (0..200).map(|line| format!("echo {last}-{line}\n")).collect();
        client.send(lines);
    }
    for (last, client) in &mut clients {
        for line in 0..200 {
            assert_eq!(client.read_line(), format!("{last}-{line}"));
        }
    }
    let dump = pool.usr2();
    for (last, client) in &clients {
        let shown = format!("127.0.0.{last}:{} (by way of 127.0.0.1:", client.local_port());
        assert!(dump.iter().any(|line| line.contains(&shown)), "{shown}: {dump:#?}");
    }
    let mut denied = Client::connect_from(DENIED, proxy);
    denied.send("echo never\n");
    assert_eq!(denied.read_to_end_or_reset(), b"");
    let stats = pool.usr1_until(|stats| stats.count("refused denied") > before);
    assert_eq!(stats.count("refused denied"), before + 1);
    pool.stderr_wait(&format!(
        "refused {DENIED}:{} (by way of 127.0.0.1:",
        denied.local_port()
    ));
}

#[test]
fn haproxy_names_its_clients_in_either_version_and_with_a_checksum() {
    let pool = pool();
    let proxy = Proxy::haproxy(
        &pool,
        [
            "send-proxy",
            "send-proxy-v2",
            "send-proxy-v2 proxy-v2-options crc32c,unique-id",
        ],
    );
    for address in &proxy.addresses {
        assert_names_its_clients(&pool, address);
    }
    assert_eq!(pool.usr1().count("refused proxy"), 0);
}

#[test]
fn the_health_checks_of_haproxy_are_answered_and_are_no_refusals() {
    let pool = pool();
    let proxy = Proxy::haproxy(&pool, ["send-proxy-v2 check check-send-proxy inter 20ms"]);
    pool.stderr_wait_nth("it has seen that the door answers", 3);
    assert_names_its_clients(&pool, &proxy.addresses[0]);
    let stats = pool.usr1();
    assert_eq!((stats.count("refused proxy"), stats.count("refused denied")), (0, 1));
}

#[test]
fn nginx_names_its_clients() {
    let pool = pool();
    let proxy = Proxy::nginx(&pool);
    assert_names_its_clients(&pool, &proxy.addresses[0]);
    assert_eq!(pool.usr1().count("refused proxy"), 0);
}
