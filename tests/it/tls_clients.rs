//! `ask` and `call` by TLS: with real doors, with `openssl s_server`, and with servers that do not deserve trust.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use crate::ask::Asker;
use crate::harness::{Certificate, Daemon, Gate, Program, free_port, worker_command};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

fn iotcpd(arguments: &[&str]) -> Program {
    Program::start(Command::new(env!("CARGO_BIN_EXE_iotcpd")).args(arguments))
}

/// A pool of two workers behind TLS, and its certificate.
fn pool() -> (Daemon, Certificate) {
    let (certificate, command) = (Certificate::new(), worker_command(&[]));
    let tls = certificate.flags();
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    let pool = Daemon::with(["-n", "2", "-d", &command, "--queue-timeout", "60s"]);
    (pool.args(&tls).start(), certificate)
}

/// An exec door for shells behind TLS, and its certificate.
fn exec_door() -> (Daemon, Certificate) {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    let door = Daemon::with(["exec", "tls:127.0.0.1:0", "--allow-program", "/bin/sh"]);
    (door.args(&["--cert", &cert, "--key", &key]).start(), certificate)
}

#[track_caller]
fn asker(daemon: &Daemon, certificate: &Certificate, flags: &[&str]) -> Asker {
    let (ca, address) = (
        certificate.path("cert.pem"),
        format!("tls:localhost:{}", daemon.addr().port()),
    );
    Asker::start(&[flags, &["--timeout", "600s", "--ca", &ca, &address]].concat())
}

// ---- real doors ------------------------------------------------------------------------------------------------

#[test]
fn lines_on_connections_of_their_own_are_answered_over_tls() {
    let (daemon, certificate) = pool();
    let mut asker = asker(&daemon, &certificate, &["--connections", "0"]);
    for number in 0..20 {
        assert_eq!(asker.ask(&format!("echo {number}")), number.to_string());
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("queries replied"), stats.count("queries failed")), (20, 0));
}

#[test]
fn many_lines_share_a_connection_over_tls_which_ends_in_good_order() {
    let gate = Gate::new();
    let (daemon, certificate) = pool();
    let mut asker = asker(&daemon, &certificate, &["--squid", "--channel-ids", "yes"]);
    asker.send(format!("7 wait {} last\n8 echo first\n", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(asker.answer(), "8 first");
    arrival.open();
    assert_eq!(asker.answer(), "7 last");
    let long = "0123456789".repeat(300);
    assert_eq!(asker.ask(&format!("9 echo {long}")), format!("9 {long}"));
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 1);
    assert_eq!((stats.count("queries replied"), stats.count("queries failed")), (3, 0));
    drop(asker.program.stdin.take());
    assert!(asker.program.finish().0.success());
    daemon.usr1_until(|stats| stats.count("connections") == 0);
}

#[test]
fn a_call_is_the_program_that_it_calls_over_tls() {
    let (daemon, certificate) = exec_door();
    let (ca, address) = (
        certificate.path("cert.pem"),
        format!("tls:localhost:{}", daemon.addr().port()),
    );
    let mut call = iotcpd(&[
        "call",
        "--ca",
        &ca,
        &address,
        "/bin/sh",
        "-c",
        "cat; echo behind >&2; exit 7",
    ]);
    let bytes = "0123456789abcde\n".repeat(100_000);
    let mut stdin = call.stdin.take().unwrap();
    let sent = bytes.clone();
    let sending = thread::spawn(move || stdin.write_all(sent.as_bytes()));
    let (status, stdout, stderr) = call.finish();
    sending.join().unwrap().unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(7), "behind"));
    assert_eq!(stdout.len() + 1, bytes.len());
    assert!(bytes.starts_with(&stdout));
}

#[test]
fn a_call_passes_signals_on_over_tls() {
    let (daemon, certificate) = exec_door();
    let (ca, address) = (
        certificate.path("cert.pem"),
        format!("tls:localhost:{}", daemon.addr().port()),
    );
    let script = "trap 'echo got; exit 3' TERM; echo ready; while :; do read line || sleep 60 & wait; done";
    let call = iotcpd(&["call", "--ca", &ca, &address, "/bin/sh", "-c", script]);
    call.stdout.wait_from(0, |line| line == "ready").unwrap();
    call.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, stdout, _) = call.finish();
    assert_eq!((status.code(), stdout.as_str()), (Some(3), "ready\ngot"));
}

#[test]
fn a_door_without_tls_is_told_from_one_with_it() {
    let command = worker_command(&[]);
    let daemon = Daemon::with(["-n", "1", "-d", &command, "-p", "0"]).start();
    let certificate = Certificate::new();
    let (ca, address) = (
        certificate.path("cert.pem"),
        format!("tls:127.0.0.1:{}", daemon.addr().port()),
    );
    let call = iotcpd(&["call", "--ca", &ca, &address, "true"]);
    let (status, _, stderr) = call.finish();
    assert_eq!(status.code(), Some(125));
    assert!(
        stderr.contains(&format!("cannot connect to {address}: it ")),
        "{stderr}"
    );
}

#[test]
fn a_client_without_tls_learns_that_the_door_speaks_it() {
    let (daemon, _certificate) = pool();
    let address = format!("localhost:{}", daemon.addr().port());
    for flags in [&["--squid"][..], &["--connections", "0"], &["--connections", "1"]] {
        let mut asker = Asker::start(&[flags, &["--timeout", "600s", &address]].concat());
        assert_eq!(asker.ask("line"), "ERR");
        let why = format!("{address}: it speaks TLS; write tls: before its address");
        asker.program.stderr_wait(&why);
    }
    let (daemon, _certificate) = exec_door();
    let address = format!("localhost:{}", daemon.addr().port());
    let (status, _, stderr) = iotcpd(&["call", &address, "true"]).finish();
    assert_eq!(status.code(), Some(125));
    assert!(
        stderr.contains("is no answer of an exec door: it speaks TLS; write tls: before its address"),
        "{stderr}"
    );
}

// ---- other servers ---------------------------------------------------------------------------------------------

/// A server that answers each line with the line, and reports the kind of each handshake.
struct Echo {
    port: u16,
    handshakes: Receiver<Option<HandshakeKind>>,
}

impl Echo {
    fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (report, handshakes) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                let (config, report) = (Arc::clone(&config), report.clone());
                thread::spawn(move || {
                    let kind = echo(config, socket);
                    // The test may be over.
                    let _ = report.send(kind);
                });
            }
        });
        Self { port, handshakes }
    }
}

/// Serves one connection. Returns the kind of the handshake, if there was a line.
fn echo(config: Arc<ServerConfig>, socket: TcpStream) -> Option<HandshakeKind> {
    let connection = ServerConnection::new(config).ok()?;
    let mut reader = BufReader::new(StreamOwned::new(connection, socket));
    let mut line = String::new();
    let read = reader.read_line(&mut line);
    let stream = reader.get_mut();
    if read.unwrap_or(0) == 0 {
        // The alert is to arrive before the reset.
        let _ = stream.sock.shutdown(Shutdown::Write);
        return None;
    }
    let kind = stream.conn.handshake_kind();
    stream.write_all(line.as_bytes()).ok()?;
    stream.flush().ok()?;
    kind
}

fn server(certificate: &Certificate, version: &'static SupportedProtocolVersion, asks: bool) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = CertificateDer::from_pem_file(certificate.path("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(certificate.path("key.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(chain.clone()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap();
    let builder = if asks {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
        builder.with_client_cert_verifier(verifier.unwrap())
    } else {
        builder.with_no_client_auth()
    };
    Arc::new(builder.with_single_cert(vec![chain], key).unwrap())
}

#[test]
fn all_lines_but_the_first_resume_a_session() {
    for version in VERSIONS {
        let certificate = Certificate::new();
        let echo = Echo::start(server(&certificate, version, false));
        let (ca, address) = (certificate.path("cert.pem"), format!("tls:localhost:{}", echo.port));
        let mut asker = Asker::start(&["--connections", "0", "--timeout", "600s", "--ca", &ca, &address]);
        for number in 0..10 {
            assert_eq!(asker.ask(&format!("line {number}")), format!("line {number}"));
            let expected = if number == 0 {
                HandshakeKind::Full
            } else {
                HandshakeKind::Resumed
            };
            assert_eq!(echo.handshakes.recv().unwrap(), Some(expected), "{version:?}");
        }
    }
}

/// An `ask` with a line that no address answers; its log tells every fault.
#[track_caller]
fn refused(flags: &[&str]) -> Program {
    let mut asker = Asker::start(&[&["--log-level", "debug", "--timeout", "600s"], flags].concat());
    asker.send("line\n");
    asker.program
}

#[test]
fn a_server_without_trust_gets_no_line_and_the_next_address_does() {
    let (certificate, stranger) = (Certificate::new(), Certificate::new());
    let good = Echo::start(server(&certificate, VERSIONS[1], false));
    let bad = Echo::start(server(&stranger, VERSIONS[1], false));
    let ca = certificate.path("cert.pem");
    let address = |echo: &Echo| format!("tls:localhost:{}", echo.port);
    let mut asker = Asker::start(&["--timeout", "600s", "--ca", &ca, &address(&bad), &address(&good)]);
    assert_eq!(asker.ask("line"), "line");
    asker
        .program
        .stderr_wait(&format!("{}: a signature does not fit", address(&bad)));
    assert_eq!(bad.handshakes.recv().unwrap(), None);
}

/// With an hour for each line, one that was tried for half of its time would not be answered within this test.
#[test]
fn a_line_is_given_up_at_once_where_no_server_will_be_trusted_however_often_it_is_tried() {
    let (certificate, stranger) = (Certificate::new(), Certificate::new());
    let ca = stranger.path("cert.pem");
    for version in VERSIONS {
        for asks in [false, true] {
            let echo = Echo::start(server(&certificate, version, asks));
            let address = format!("tls:localhost:{}", echo.port);
            let trusted = if asks { certificate.path("cert.pem") } else { ca.clone() };
            for connections in ["0", "1"] {
                let flags = [
                    "--connections",
                    connections,
                    "--timeout",
                    "1h",
                    "--ca",
                    &trusted,
                    &address,
                ];
                let mut asker = Asker::start(&flags);
                assert_eq!(asker.ask("line"), "ERR");
                let line = asker.program.stderr_wait("1 line answered ERR");
                assert!(!line.contains("TLS fails"), "{line}");
                drop(asker.program.stdin.take());
                let (status, _, stderr) = asker.program.finish();
                assert_eq!(status.code(), Some(1), "{stderr}");
                assert!(
                    stderr.contains(
                        "see that TLS is spoken there, and compare --ca, --cert and --server-name with the certificates"
                    ),
                    "{stderr}"
                );
            }
        }
    }
}

/// The line that was given up has made the address one to be avoided, and there is no other.
#[test]
fn the_next_line_reaches_a_server_whose_certificate_was_mended() {
    let (certificate, stranger, command) = (Certificate::new(), Certificate::new(), worker_command(&[]));
    let port = free_port();
    let listen = format!("tls:127.0.0.1:{port}");
    let pool = |shown: &Certificate| {
        let (cert, key) = (shown.path("cert.pem"), shown.path("key.pem"));
        let tls = ["--listen", &listen, "--cert", &cert, "--key", &key];
        Daemon::with(["-n", "1", "-d", &command, "--queue-timeout", "600s"])
            .args(&tls)
            .start()
    };
    let (ca, address) = (certificate.path("cert.pem"), format!("tls:localhost:{port}"));
    for connections in ["0", "1"] {
        let mut daemon = pool(&certificate);
        let flags = ["--connections", connections, "--timeout", "1h", "--ca", &ca, &address];
        let mut asker = Asker::start(&[&["--squid", "--channel-ids", "no"], &flags[..]].concat());
        assert_eq!(asker.ask("echo one"), "one");
        for (shown, answer) in [(&stranger, "ERR"), (&stranger, "ERR"), (&certificate, "two")] {
            drop(daemon);
            daemon = pool(shown);
            assert_eq!(asker.ask("echo two"), answer);
        }
        asker.program.stderr_wait(&format!("{address} answers again"));
    }
}

#[test]
fn a_certificate_for_another_name_is_refused_unless_that_name_was_given() {
    let certificate = Certificate::new();
    let echo = Echo::start(server(&certificate, VERSIONS[1], false));
    let (ca, address) = (certificate.path("cert.pem"), format!("tls:127.0.0.1:{}", echo.port));
    let why = "its certificate is not for 127.0.0.1, but for localhost";
    refused(&["--ca", &ca, &address]).stderr_wait(&format!("{address}: {why}; it is tried again later"));
    let flags = ["--ca", &ca, "--timeout", "600s", "--server-name", "localhost", &address];
    assert_eq!(Asker::start(&flags).ask("line"), "line");
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_it_and_refuses_a_client_without_one() {
    for version in VERSIONS {
        let certificate = Certificate::new();
        let echo = Echo::start(server(&certificate, version, true));
        let (ca, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
        let address = format!("tls:localhost:{}", echo.port);
        let mut with = Asker::start(&["--timeout", "600s", "--ca", &ca, "--cert", &ca, "--key", &key, &address]);
        assert_eq!(with.ask("line"), "line");
        // Each version has its own alert.
        refused(&["--ca", &ca, &address]).stderr_wait(&format!("{address}: it a"));
        let (status, _, stderr) = iotcpd(&["call", "--ca", &ca, &address, "true"]).finish();
        assert_eq!(status.code(), Some(125));
        assert!(
            stderr.contains(&format!("cannot connect to {address}: it a")),
            "{stderr}"
        );
    }
}

/// As many instructions tell to make one: `openssl x509 -req` adds no extensions by itself.
#[test]
fn a_certificate_without_extensions_is_refused_with_the_remedy_wherever_it_is_shown() {
    let certificate = Certificate::new();
    let path = |name: &str| certificate.path(name);
    let openssl = |line: &str| {
        let words = line.split(' ').map(|word| match word.strip_prefix('@') {
            Some(name) => path(name),
            None => word.to_owned(),
        });
        let (status, _, stderr) = Program::start(Command::new("openssl").args(words)).finish();
        assert!(status.success(), "{line}: {stderr}");
    };
    let ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!(
        "req -x509 {ec} -subj /CN=authority -keyout @ca.key -out @ca.pem"
    ));
    openssl(&format!("req {ec} -subj /CN=web -keyout @web.key -out @web.csr"));
    openssl("x509 -req -in @web.csr -CA @ca.pem -CAkey @ca.key -days 9 -out @web.pem");
    let remedy = "is of version 1 and has no extensions; issue it again with -extfile FILE behind openssl x509 -req";
    let (ca, own, key) = (path("cert.pem"), path("web.pem"), path("web.key"));
    let ask = iotcpd(&["ask", "--ca", &ca, "--cert", &own, "--key", &key, "tls:localhost:1"]);
    let daemon = Daemon::with([
        "-d",
        "cat",
        "--listen",
        "tls:127.0.0.1:0",
        "--cert",
        &own,
        "--key",
        &key,
    ]);
    for (status, _, stderr) in [ask.finish(), daemon.spawn().finish()] {
        assert_eq!(status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(&format!("certificate {own} {remedy}")), "{stderr}");
    }
    let flags = certificate.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::with(["-d", "cat", "--client-ca", &path("ca.pem")])
        .args(&flags)
        .start();
    let (address, client) = (daemon.addr().to_string(), ["s_client", "-cert", &own, "-key", &key]);
    let client = Program::start(Command::new("openssl").args(client).args(["-connect", &address]));
    daemon.stderr_wait(&format!("its certificate {remedy}"));
    client.finish();
}

#[test]
fn a_reply_that_was_cut_is_no_reply() {
    let certificate = Certificate::new();
    let config = server(&certificate, VERSIONS[1], false);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let connection = ServerConnection::new(config).unwrap();
        let mut reader = BufReader::new(StreamOwned::new(connection, socket));
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let stream = reader.get_mut();
        stream.write_all(b"half of a rep").unwrap();
        stream.flush().unwrap();
        // The end of the connection without that of TLS.
        stream.sock.shutdown(Shutdown::Write).unwrap();
        reader.read_line(&mut line)
    });
    let (ca, address) = (certificate.path("cert.pem"), format!("tls:localhost:{port}"));
    let mut asker = Asker::start(&["--connections", "0", "--timeout", "600s", "--ca", &ca, &address]);
    assert_eq!(asker.ask("line"), "ERR");
    asker.program.stderr_wait("connection closed within the answer");
}

#[test]
fn openssl_answers_ask_in_both_versions() {
    let certificate = Certificate::new();
    let (ca, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = [
            "s_server",
            "-rev",
            "-accept",
            "127.0.0.1:0",
            version,
            "-cert",
            &ca,
            "-key",
            &key,
        ];
        let server = Program::start(Command::new("openssl").args(arguments));
        let (_, accepting) = server.stdout.wait_from(0, |line| line.starts_with("ACCEPT")).unwrap();
        let (_, port) = accepting.rsplit_once(':').unwrap();
        let address = format!("tls:localhost:{port}");
        let mut asker = Asker::start(&["--connections", "0", "--timeout", "600s", "--ca", &ca, &address]);
        for (line, reply) in [("abc", "cba"), ("one two", "owt eno")] {
            assert_eq!(asker.ask(line), reply, "{version}");
        }
    }
}
