//! Debian's PostgreSQL on both sides of a route door: servers with and without TLS, and psql, which names them by its
//! `host`; and OpenSSL, which speaks TLS as PostgreSQL does. Where a program is missing its test fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::harness::{Certificate, Daemon, Program, TempDir, WATCHDOG, free_port, temp_dir};
use crate::real_proxies::has_listener;
use crate::route_peers::{RouteFile, at};

/// A program of PostgreSQL, of which Debian has the newest version in its own directory.
fn program(name: &str) -> Command {
    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").map(|all| all.flatten().map(|entry| entry.path()).max());
        let missing = "no PostgreSQL: scripts/install-peers postgresql installs it";
        versions.ok().flatten().expect(missing).join("bin")
    });
    Command::new(DIRECTORY.join(name))
}

/// The same, for a server, which refuses to run as root.
fn server_program(name: &str) -> Command {
    let program = program(name);
    if !geteuid().is_root() {
        return program;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.arg(program.get_program());
    command
}

/// The files of servers, which are copies of one set.
struct Clusters {
    home: TempDir,
}

impl Clusters {
    #[track_caller]
    fn new() -> Self {
        let home = temp_dir();
        let clusters = Self { home };
        if geteuid().is_root() {
            clusters.run(Command::new("chown").arg("postgres:").arg(clusters.home.path()));
        }
        let mut initdb = server_program("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--locale=C", "-D"]);
        clusters.run(initdb.arg(clusters.path("first")));
        clusters
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    #[track_caller]
    fn run(&self, command: &mut Command) {
        let (status, output, errors) = Program::start(command.current_dir(self.home.path())).finish();
        assert!(status.success(), "{command:?}: {output}{errors}");
    }

    /// Starts a server of this name, with these files of TLS if it speaks it.
    #[track_caller]
    fn start(&self, name: &str, tls: Option<&Certificate>) -> Server {
        let data = self.path(name);
        self.run(Command::new("cp").arg("-a").arg(self.path("first")).arg(&data));
        let (port, home) = (free_port(), data.to_str().unwrap());
        let mut command = server_program("postgres");
        command.args(["-D", home, "-p", &port.to_string()]).current_dir(&data);
        let name = format!("cluster_name={name}");
        let ssl = format!("ssl={}", tls.is_some());
        let settings = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            &name,
            &ssl,
        ];
        for setting in settings {
            command.args(["-c", setting]);
        }
        if let Some(files) = tls {
            for (file, copy, key) in [
                ("cert.pem", "server.crt", "ssl_cert_file"),
                ("key.pem", "server.key", "ssl_key_file"),
            ] {
                fs::copy(files.path(file), data.join(copy)).unwrap();
                fs::set_permissions(data.join(copy), fs::Permissions::from_mode(0o600)).unwrap();
                command.args(["-c", &format!("{key}={copy}")]);
            }
            if geteuid().is_root() {
                self.run(Command::new("chown").args(["-R", "postgres:"]).arg(&data));
            }
        }
        let program = Program::start(&mut command);
        program.stderr_wait("database system is ready to accept connections");
        Server { program, port }
    }
}

struct Server {
    program: Program,
    port: u16,
}

/// Its processes go with it.
impl Drop for Server {
    fn drop(&mut self) {
        self.program.signal(Signal::SIGQUIT);
        self.program.wait_exit();
    }
}

/// Asks psql the name of the server behind this host of a door, and if the connection has TLS there.
#[track_caller]
fn ask(daemon: &Daemon, host: &str, mode: &str) -> Result<String, String> {
    let port = daemon.addr().port();
    let target = format!(
        "host={host} hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres sslmode={mode} connect_timeout=60"
    );
    let question = "select current_setting('cluster_name'), ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let mut psql = program("psql");
    psql.args(["--no-psqlrc", "--no-align", "--tuples-only", "-c", question, &target]);
    let (status, output, errors) = Program::start(&mut psql).finish();
    if status.success() { Ok(output) } else { Err(errors) }
}

#[test]
fn psql_reaches_each_server_by_its_name_and_learns_that_one_has_no_tls() {
    let (clusters, files) = (Clusters::new(), Certificate::new());
    let one = clusters.start("one", Some(&files));
    let two = clusters.start("two", Some(&files));
    let off = clusters.start("off", None);
    let service = |server: &Server| format!("addr = '127.0.0.1'\ntls-port = {}", server.port);
    let services = [
        ("one.example.org", service(&one)),
        ("two.example.org", service(&two)),
        ("off.example.org", service(&off)),
        ("CATCH_ALL", format!("addr = '127.0.0.1'\nhttp-port = {}", off.port)),
    ];
    let daemon = RouteFile::new("", &services).start();
    for mode in ["require", "prefer", "allow"] {
        // One that would rather have none begins without, and is served by CATCH_ALL.
        let (name, tls) = if mode == "allow" { ("off", "f") } else { ("one", "t") };
        assert_eq!(
            ask(&daemon, "one.example.org", mode),
            Ok(format!("{name}|{tls}")),
            "{mode}"
        );
    }
    assert_eq!(ask(&daemon, "TWO.example.org", "require"), Ok("two|t".to_owned()));
    assert_eq!(ask(&daemon, "one.example.org", "disable"), Ok("off|f".to_owned()));
    let told = ask(&daemon, "off.example.org", "require").unwrap_err();
    assert!(told.contains("internal error"), "{told}");
    daemon.stderr_wait("has no TLS (it answered N to an SSLRequest)");
    let told = ask(&daemon, "other.example.org", "require").unwrap_err();
    assert!(told.contains("unrecognized name"), "{told}");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("connect no tls"), stats.count("backends out")), (1, 0));

    let address = daemon.addr().to_string();
    let mut s_client = Command::new("openssl");
    s_client.args([
        "s_client",
        "-starttls",
        "postgres",
        "-connect",
        &address,
        "-servername",
        "one.example.org",
    ]);
    s_client.args(["-brief", "-CAfile", &files.path("cert.pem"), "-verify_return_error"]);
    let program = Program::start(&mut s_client);
    program.stderr_wait("Verification: OK");
}

#[test]
fn direct_tls_for_postgresql_goes_by_its_protocol() {
    let files = Certificate::new();
    let port = free_port();
    let mut s_server = Command::new("openssl");
    s_server.args([
        "s_server",
        "-accept",
        &format!("127.0.0.1:{port}"),
        "-alpn",
        "postgresql",
        "-quiet",
    ]);
    s_server.args(["-cert", &files.path("cert.pem"), "-key", &files.path("key.pem")]);
    let server = Program::start(&mut s_server);
    let watchdog = Instant::now() + WATCHDOG;
    while !has_listener(port) {
        assert!(Instant::now() < watchdog, "it does not listen");
        std::thread::yield_now();
    }
    let service = format!("alpn = 'postgresql'\n{}", at(([127, 0, 0, 1], port).into()));
    let daemon = RouteFile::new("", &[("db.example.org", service)]).start();
    let address = daemon.addr().to_string();
    let s_client = |protocol: &str| {
        let mut command = Command::new("openssl");
        command.args([
            "s_client",
            "-connect",
            &address,
            "-servername",
            "db.example.org",
            "-alpn",
            protocol,
        ]);
        Program::start(command.args(["-CAfile", &files.path("cert.pem"), "-verify_return_error"]))
    };
    let served = s_client("postgresql");
    served
        .stdout
        .wait_from(0, |line| line.contains("ALPN protocol: postgresql"))
        .unwrap();
    let refused = s_client("h2");
    refused.stderr_wait("unrecognized name");
    drop((served, server));
}
