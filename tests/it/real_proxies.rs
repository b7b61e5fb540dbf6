//! Debian's HAProxy and nginx in front of a pool: the headers that real proxies send, and the clients that they name.
//!
//! A test starts a pool that believes the proxies on 127.0.0.1, and a proxy with its files in a directory of its own and
//! listeners on free ports. The clients connect to the proxy from other addresses of the loopback network, so that
//! client and proxy can be told apart. The proxy speaks with the pool in the clear, or by TLS, in front of which its
//! header stands. Where a proxy is missing its test fails.

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::harness::{
    Address, Certificate, Client, Daemon, Program, TempDir, WATCHDOG, free_port, temp_dir, worker_command,
};
use crate::tls_client_certificates::Authority;

/// nginx's module for connections that are not HTTP, which is a package of its own.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// An address of clients that are denied. Others begin with 127.0.0 as well.
const DENIED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// The name in the certificate of the proxies.
const BALANCER: &str = "balancer";

/// The flags of a pool behind the proxies on 127.0.0.1, which are no clients themselves.
const BEHIND_PROXIES: [&str; 11] = [
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
];

/// A pool of two workers that the proxies reach in the clear.
#[track_caller]
fn pool() -> Daemon {
    Daemon::pool(2, &worker_command(&[]), &BEHIND_PROXIES)
}

/// The same behind TLS, with the files of both sides. `is_asking`: the proxies must show the certificate in `client.pem`.
#[track_caller]
fn secured_pool(is_asking: bool) -> (Daemon, Certificate) {
    let (files, authority) = (Certificate::new(), Authority::named("authority"));
    files.write("client.pem", &authority.name(BALANCER).pem());
    let clients = files.write("clients.pem", &authority.pem);
    let (tls, worker) = (files.flags(), worker_command(&[]));
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    let rule = ["--client-ca", &clients, "--allow-subject", BALANCER];
    let pool = Daemon::with(["-n", "2", "-d", &worker])
        .args(&BEHIND_PROXIES)
        .args(&tls);
    let pool = pool.args(if is_asking { &rule } else { &[] });
    (pool.start(), files)
}

/// A running proxy.
pub(crate) struct Proxy {
    _program: Program,
    /// The addresses of its listeners.
    pub(crate) addresses: Vec<Address>,
    _home: TempDir,
}

/// The words behind `server NAME ADDRESS` of HAProxy for TLS with the owner of these files. `shows`: a certificate of
/// its own.
pub(crate) fn haproxy_tls(files: &Certificate, shows: bool) -> String {
    let (ca, own) = (files.path("cert.pem"), files.path("client.pem"));
    let mut words = format!("ssl verify required ca-file {ca} verifyhost localhost sni str(localhost)");
    if shows {
        write!(words, " crt {own}").unwrap();
    }
    words
}

/// The same for nginx, which sends a header in front of it, in a `server` of its configuration.
pub(crate) fn nginx_tls(files: &Certificate, versions: &str, shows: bool) -> String {
    let (ca, own) = (files.path("cert.pem"), files.path("client.pem"));
    let mut lines = format!(
        "proxy_protocol on;\nproxy_ssl on;\nproxy_ssl_protocols {versions};\nproxy_ssl_verify on;\n\
         proxy_ssl_trusted_certificate {ca};\nproxy_ssl_server_name on;\nproxy_ssl_name localhost;\n"
    );
    if shows {
        writeln!(lines, "proxy_ssl_certificate {own};\nproxy_ssl_certificate_key {own};").unwrap();
    }
    lines
}

impl Proxy {
    /// Starts the proxy and waits until it listens. `configure` writes a configuration that has listeners on the given
    /// ports; `command` runs the proxy with the file.
    #[track_caller]
    pub(crate) fn start<const N: usize>(
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
    pub(crate) fn haproxy<const N: usize>(door: &Daemon, servers: [&str; N]) -> Self {
        Self::haproxy_bound(door, "", servers)
    }

    /// The same with these words behind `bind ADDRESS`.
    #[track_caller]
    pub(crate) fn haproxy_bound<const N: usize>(door: &Daemon, bind: &str, servers: [&str; N]) -> Self {
        let port = door.addr().port();
        let configure = |ports: [u16; N]| {
            let mut text =
                "defaults\nmode tcp\nretries 0\ntimeout connect 60s\ntimeout client 600s\ntimeout server 600s\ntimeout check 60s\n".to_owned();
            for (words, listens) in servers.iter().zip(ports) {
                writeln!(text, "listen at{listens}\nbind 127.0.0.1:{listens} {bind}").unwrap();
                writeln!(text, "server door 127.0.0.1:{port} {words}").unwrap();
            }
            text
        };
        Self::start("haproxy", configure, |command, file| {
            // In the foreground, as one process.
            command.args(["-db", "-f", file]);
        })
    }

    /// nginx with a listener that has these words behind `listen ADDRESS`, and these lines.
    #[track_caller]
    pub(crate) fn nginx(door: &Daemon, listen: &str, lines: &str) -> Self {
        assert!(
            Path::new(STREAM_MODULE).exists(),
            "{STREAM_MODULE} is missing (scripts/install-peers installs the peers)"
        );
        let port = door.addr().port();
        let configure = |[listens]: [u16; 1]| {
            format!(
                "load_module {STREAM_MODULE};\ndaemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\n\
                 events {{}}\nstream {{\n server {{\n listen 127.0.0.1:{listens} {listen};\n proxy_pass 127.0.0.1:{port};\n \
                 proxy_timeout 600s;\n {lines} }}\n}}\n"
            )
        };
        Self::start("nginx", configure, |command, file| {
            command.args(["-e", "stderr", "-p", ".", "-c", file]);
        })
    }
}

/// Returns true if a program listens on this TCP port of IPv4. A connection would show the same, but a proxy would pass
/// it on.
pub(crate) fn has_listener(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let is_one = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&port) && fields[3] == LISTEN
    };
    table.lines().skip(1).any(is_one)
}

/// Asserts that the pool serves clients that come by this address of a proxy as the clients that they are. `tls`: the
/// words of the dump about the connection between proxy and pool.
#[track_caller]
fn assert_names_its_clients(pool: &Daemon, proxy: &Address, tls: &str) {
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
        let is_shown = |line: &String| line.contains(&shown) && line.ends_with(&format!("{tls})"));
        assert!(dump.iter().any(is_shown), "{shown}, {tls}: {dump:#?}");
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
        assert_names_its_clients(&pool, address, "");
    }
    assert_eq!(pool.usr1().count("refused proxy"), 0);
}

#[test]
fn the_health_checks_of_haproxy_are_answered_and_are_no_refusals() {
    let pool = pool();
    let proxy = Proxy::haproxy(&pool, ["send-proxy-v2 check check-send-proxy inter 20ms"]);
    pool.stderr_wait_nth("it has seen that the door answers", 3);
    assert_names_its_clients(&pool, &proxy.addresses[0], "");
    let stats = pool.usr1();
    assert_eq!((stats.count("refused proxy"), stats.count("refused denied")), (0, 1));
}

#[test]
fn nginx_names_its_clients() {
    let pool = pool();
    let proxy = Proxy::nginx(&pool, "", "proxy_protocol on;\n");
    assert_names_its_clients(&pool, &proxy.addresses[0], "");
    assert_eq!(pool.usr1().count("refused proxy"), 0);
}

// ---- by TLS ----------------------------------------------------------------------------------------------------

/// The words of the dump about a connection by TLS of a proxy.
fn shown(version: &str, shows: bool) -> String {
    let subject = if shows { ", subject \"CN=balancer\"" } else { "" };
    format!(", {version}{subject}")
}

#[test]
fn haproxy_names_its_clients_in_front_of_tls_with_a_certificate_of_its_own_and_without() {
    for shows in [false, true] {
        let (pool, files) = secured_pool(shows);
        let tls = haproxy_tls(&files, shows);
        let words = [
            "send-proxy",
            "send-proxy-v2",
            "send-proxy-v2-ssl-cn proxy-v2-options crc32c,authority",
            "send-proxy-v2 ssl-max-ver TLSv1.2",
        ];
        let servers = words.map(|words| format!("{tls} {words}"));
        let proxy = Proxy::haproxy(&pool, servers.each_ref().map(String::as_str));
        for (address, words) in proxy.addresses.iter().zip(words) {
            let version = if words.ends_with("1.2") { "TLSv1.2" } else { "TLSv1.3" };
            assert_names_its_clients(&pool, address, &shown(version, shows));
        }
        let stats = pool.usr1();
        let counted = ["refused proxy", "refused tls", "refused subject", "tls failed"].map(|row| stats.count(row));
        assert_eq!(counted, [0; 4]);
    }
}

#[test]
fn the_health_checks_of_haproxy_by_tls_are_answered_and_are_no_refusals() {
    let (pool, files) = secured_pool(true);
    let tls = haproxy_tls(&files, true);
    let servers = [
        "check-send-proxy",
        "check-ssl check-send-proxy",
        "no-check-ssl check-send-proxy",
    ];
    // The interval is also the time for the handshake of a check, and after three failures there is no way to the pool.
    let servers = servers.map(|words| format!("{tls} send-proxy-v2 check inter 2s {words}"));
    let proxy = Proxy::haproxy(&pool, servers.each_ref().map(String::as_str));
    // The proxy itself is no client, but its checks are answered, or it would take the pool for one that is down.
    pool.stderr_wait_nth(
        "(the proxy itself, TLSv1.3, subject \"CN=balancer\"): --allow does not name it",
        3,
    );
    for address in &proxy.addresses {
        assert_names_its_clients(&pool, address, &shown("TLSv1.3", true));
    }
    let stats = pool.usr1();
    // A busy proxy may break a check off.
    let counted = ["refused proxy", "refused subject", "tls failed", "tls cut"].map(|row| stats.count(row));
    assert_eq!(counted, [0; 4]);
}

#[test]
fn nginx_names_its_clients_in_front_of_tls_with_a_certificate_of_its_own_and_without() {
    for shows in [false, true] {
        let (pool, files) = secured_pool(shows);
        let proxy = Proxy::nginx(&pool, "", &nginx_tls(&files, "TLSv1.2 TLSv1.3", shows));
        assert_names_its_clients(&pool, &proxy.addresses[0], &shown("TLSv1.3", shows));
        let stats = pool.usr1();
        let counted = ["refused proxy", "refused tls", "refused subject", "tls failed"].map(|row| stats.count(row));
        assert_eq!(counted, [0; 4]);
    }
}
