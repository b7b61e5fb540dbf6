//! Clients of TLS that must show a certificate: who is served, who is refused and why, and that neither a resumed session
//! nor a handshake begun earlier gets round a rule that has changed.

use std::cell::Cell;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use crate::harness::{Address, Certificate, Daemon, WATCHDOG, worker_command};

/// An authority that signs the certificates of clients.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// The certificate of a client, and its key.
pub(crate) struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn named(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    pub(crate) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    pub(crate) fn identify(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate, key }
    }

    /// An identity with this common name.
    pub(crate) fn name(&self, name: &str) -> Identity {
        self.identify(&named(name))
    }
}

impl Identity {
    /// The certificate with its key behind it, for one file.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem() + &self.key.serialize_pem()
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A pool behind TLS, whose settings are in a file, and the files of its certificates.
struct Door {
    daemon: Daemon,
    certificate: Certificate,
    changes: Cell<usize>,
}

/// The files of a door before it is started.
struct Files(Certificate);

impl Files {
    fn new() -> Self {
        Self(Certificate::new())
    }

    fn path(&self, name: &str) -> String {
        self.0.path(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        self.0.write(name, text)
    }

    /// Writes the file of a pool that accepts certificates of this authority with these names, or needs none.
    fn configure(&self, rule: Option<(&Authority, &[&str])>) -> String {
        configure(&self.0, rule)
    }

    fn start(self, file: &str) -> Door {
        Door {
            daemon: Daemon::with(["run", "--config", file]).start(),
            certificate: self.0,
            changes: Cell::new(0),
        }
    }
}

fn configure(certificate: &Certificate, rule: Option<(&Authority, &[&str])>) -> String {
    let path = |name: &str| certificate.path(name);
    let (command, cert, key) = (worker_command(&[]), path("cert.pem"), path("key.pem"));
    let mut text = format!(
        "[pool.main]\ndaemon = {command:?}\nnum-daemons = 1\nqueue-timeout = '600s'\npersistent = true\n\
         listen = 'tls:127.0.0.1:0'\ncert = '{cert}'\nkey = '{key}'\n"
    );
    if let Some((authority, subjects)) = rule {
        let file = path("clients.pem");
        fs::write(&file, &authority.pem).unwrap();
        text += &format!("client-ca = '{file}'\n");
        if !subjects.is_empty() {
            text += &format!("allow-subject = {subjects:?}\n");
        }
    }
    let file = path("iotcpd.toml");
    fs::write(&file, text).unwrap();
    file
}

type Connection = StreamOwned<ClientConnection, TcpStream>;

/// The outcome of a request.
#[derive(Debug, PartialEq)]
enum Outcome {
    Served {
        is_resumed: bool,
    },
    /// The daemon has said why.
    Alert(AlertDescription),
    /// The connection has ended, and without the end of TLS.
    Cut,
}

impl Door {
    #[track_caller]
    fn asking(authority: &Authority, subjects: &[&str]) -> Self {
        let files = Files::new();
        let file = files.configure(Some((authority, subjects)));
        files.start(&file)
    }

    /// Changes the rule, and waits until it holds.
    #[track_caller]
    fn change(&self, rule: Option<(&Authority, &[&str])>) {
        configure(&self.certificate, rule);
        self.daemon.signal(Signal::SIGHUP);
        self.changes.set(self.changes.get() + 1);
        self.daemon
            .stderr_wait_nth("is for localhost, until", self.changes.get() + 1);
    }

    /// The settings of a client that shows this identity, or none. Its sessions are kept from connection to connection.
    fn client(&self, identity: Option<&Identity>, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_file(self.certificate.path("cert.pem")).unwrap();
        roots.add(own).unwrap();
        let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            Some(Identity { certificate, key }) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
                config
                    .with_client_auth_cert(vec![certificate.der().clone()], key)
                    .unwrap()
            }
            None => config.with_no_client_auth(),
        };
        Arc::new(config)
    }

    fn connect(&self, client: &Arc<ClientConfig>) -> Connection {
        let Address::Tcp(address) = self.daemon.addr() else {
            panic!("TLS goes over TCP")
        };
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(WATCHDOG)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::clone(client), name).unwrap(), socket)
    }

    /// Makes a request on a connection of its own.
    #[track_caller]
    fn ask(&self, client: &Arc<ClientConfig>) -> Outcome {
        request(&mut self.connect(client))
    }
}

#[track_caller]
fn request(connection: &mut Connection) -> Outcome {
    let mut answer = [0; 3];
    let made = connection
        .write_all(b"echo ok\n")
        .and_then(|()| connection.read_exact(&mut answer));
    match made {
        Ok(()) => {
            assert_eq!(&answer, b"ok\n");
            let is_resumed = connection.conn.handshake_kind() == Some(HandshakeKind::Resumed);
            Outcome::Served { is_resumed }
        }
        Err(error) => refusal(connection, &error),
    }
}

/// An alert may wait behind an error of writing.
#[track_caller]
fn refusal(connection: &mut Connection, error: &io::Error) -> Outcome {
    let mut error = io::Error::new(error.kind(), error.to_string());
    for _ in 0..8 {
        if let Err(Error::AlertReceived(alert)) = connection.conn.process_new_packets() {
            return Outcome::Alert(alert);
        }
        match connection.conn.read_tls(&mut connection.sock) {
            Ok(0) => return Outcome::Cut,
            Ok(_) => {}
            Err(found) => error = found,
        }
    }
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => Outcome::Cut,
        _ => panic!("{error}"),
    }
}

const SERVED: Outcome = Outcome::Served { is_resumed: false };
const RESUMED: Outcome = Outcome::Served { is_resumed: true };
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

// ---- who is served ---------------------------------------------------------------------------------------------

#[test]
fn a_client_with_a_certificate_is_served_and_so_is_its_resumed_session() {
    let authority = Authority::named("authority");
    let door = Door::asking(&authority, &["squid-*", "*.example"]);
    let mut other = named("x");
    other.subject_alt_names = vec![rcgen::SanType::DnsName("a.Example".try_into().unwrap())];
    for identity in [authority.name("squid-1"), authority.identify(&other)] {
        for version in VERSIONS {
            let client = door.client(Some(&identity), version);
            assert_eq!((door.ask(&client), door.ask(&client)), (SERVED, RESUMED));
        }
    }
}

#[test]
fn any_other_client_is_refused_within_its_handshake_with_the_reason() {
    let (ours, foreign) = (Authority::named("authority"), Authority::named("foreign"));
    let mut expired = named("squid-1");
    (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let mut early = named("squid-1");
    early.not_before = date_time_ymd(4000, 1, 1);
    let mut of_server = named("squid-1");
    of_server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for (identity, alert, reason) in [
        (
            None,
            AlertDescription::CertificateRequired,
            "it sends no certificate, which --client-ca asks for",
        ),
        (
            Some(foreign.name("squid-1")),
            AlertDescription::UnknownCA,
            "its TLS handshake fails: its certificate comes from no authority that is trusted here",
        ),
        (
            Some(ours.identify(&expired)),
            AlertDescription::CertificateExpired,
            "its TLS handshake fails: its certificate has expired",
        ),
        (
            Some(ours.identify(&early)),
            AlertDescription::CertificateExpired,
            "its TLS handshake fails: its certificate is not valid yet",
        ),
        (
            Some(ours.identify(&of_server)),
            AlertDescription::UnsupportedCertificate,
            "its TLS handshake fails: its certificate is for another purpose",
        ),
        (
            Some(ours.name("nagios")),
            AlertDescription::CertificateUnknown,
            "its certificate is for nagios, which --allow-subject does not name",
        ),
    ] {
        let door = Door::asking(&ours, &["squid-*"]);
        for (version, lines) in VERSIONS.into_iter().zip(1..) {
            let client = door.client(identity.as_ref(), version);
            let outcome = door.ask(&client);
            // TLS 1.2 has no alert of its own for a missing certificate.
            let is_told = outcome == Outcome::Alert(alert)
                || (identity.is_none() && matches!(outcome, Outcome::Alert(_)) && version.version == TLS12.version);
            assert!(is_told, "{reason}: {outcome:?}");
            let line = door.daemon.stderr_wait_nth(reason, lines);
            assert!(line.contains("refused 127.0.0.1:"), "{line}");
        }
        let stats = door.daemon.usr1_until(|stats| stats.count("connections") == 0);
        let counted = ["queries total", "refused tls", "refused subject"].map(|row| stats.count(row));
        let is_good = alert == AlertDescription::CertificateUnknown;
        assert_eq!(counted, if is_good { [0, 0, 2] } else { [0, 2, 0] }, "{reason}");
    }
}

#[test]
fn openssl_is_served_with_its_certificate_and_refused_without() {
    let authority = Authority::named("authority");
    let door = Door::asking(&authority, &["squid-1"]);
    let Address::Tcp(address) = door.daemon.addr() else {
        panic!("TLS goes over TCP")
    };
    let identity = authority.name("squid-1");
    let both = door.certificate.write("client.pem", &identity.pem());
    let own: &[&str] = &["-cert", &both, "-key", &both];
    for (version, flags, answer) in [
        ("-tls1_2", own, "by openssl\n"),
        ("-tls1_3", own, "by openssl\n"),
        ("-tls1_2", &[], ""),
        ("-tls1_3", &[], ""),
    ] {
        let mut openssl = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-no_ign_eof",
                "-verify_return_error",
                "-servername",
                "localhost",
            ])
            .args([version, "-connect", &address.to_string()])
            .args(["-CAfile", &door.certificate.path("cert.pem")])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        let mut stdin = openssl.stdin.take().unwrap();
        // It may have ended already.
        let _ = stdin.write_all(b"echo by openssl\n");
        let mut stdout = openssl.stdout.take().unwrap();
        let mut said = vec![0; answer.len()];
        stdout.read_exact(&mut said).unwrap();
        if answer.is_empty() {
            // The end of its input would be a reason to leave before the alert.
            stdout.read_to_end(&mut said).unwrap();
        }
        drop(stdin);
        let output = openssl.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said), answer, "{output:?}");
        if answer.is_empty() {
            assert!(String::from_utf8_lossy(&output.stderr).contains("alert"), "{output:?}");
        }
    }
    door.daemon
        .stderr_wait_nth("it sends no certificate, which --client-ca asks for", 2);
}

// ---- a rule that changes ---------------------------------------------------------------------------------------

#[test]
fn a_session_is_not_resumed_once_the_list_of_names_has_changed() {
    let authority = Authority::named("authority");
    for version in VERSIONS {
        let door = Door::asking(&authority, &["squid-1", "squid-2"]);
        let clients = ["squid-1", "squid-2"].map(|name| door.client(Some(&authority.name(name)), version));
        for client in &clients {
            assert_eq!((door.ask(client), door.ask(client)), (SERVED, RESUMED));
        }
        let mut open = door.connect(&clients[0]);
        request(&mut open);
        door.change(Some((&authority, &["squid-2"])));
        assert_eq!(
            door.ask(&clients[0]),
            Outcome::Alert(AlertDescription::CertificateUnknown)
        );
        door.daemon
            .stderr_wait("its certificate is for squid-1, which --allow-subject does not name");
        assert_eq!(door.ask(&clients[1]), SERVED);
        assert!(
            matches!(request(&mut open), Outcome::Served { .. }),
            "it was connected before"
        );
    }
}

#[test]
fn a_session_is_not_resumed_once_the_authority_has_changed() {
    let (before, after) = (Authority::named("before"), Authority::named("after"));
    for version in VERSIONS {
        let door = Door::asking(&before, &[]);
        let old = door.client(Some(&before.name("squid-1")), version);
        assert_eq!((door.ask(&old), door.ask(&old)), (SERVED, RESUMED));
        door.change(Some((&after, &[])));
        assert_eq!(door.ask(&old), Outcome::Alert(AlertDescription::UnknownCA));
        let new = door.client(Some(&after.name("squid-1")), version);
        assert_eq!((door.ask(&new), door.ask(&new)), (SERVED, RESUMED));
    }
}

#[test]
fn a_session_without_a_certificate_is_not_resumed_once_one_is_needed() {
    let authority = Authority::named("authority");
    for version in VERSIONS {
        let files = Files::new();
        let file = files.configure(None);
        let door = files.start(&file);
        let client = door.client(None, version);
        assert_eq!((door.ask(&client), door.ask(&client)), (SERVED, RESUMED));
        door.change(Some((&authority, &[])));
        assert!(matches!(door.ask(&client), Outcome::Alert(_)));
        door.daemon
            .stderr_wait("it sends no certificate, which --client-ca asks for");
    }
}

#[test]
fn a_reload_that_leaves_the_rule_as_it_is_keeps_the_sessions() {
    let authority = Authority::named("authority");
    let door = Door::asking(&authority, &["squid-1"]);
    let client = door.client(Some(&authority.name("squid-1")), &TLS13);
    assert_eq!(door.ask(&client), SERVED);
    door.change(Some((&authority, &["squid-1"])));
    assert_eq!(door.ask(&client), RESUMED);
}

#[test]
fn a_handshake_that_was_begun_under_the_old_rule_ends_under_the_new_one() {
    let authority = Authority::named("authority");
    for version in VERSIONS {
        for (name, is_served) in [("squid-1", false), ("squid-2", true)] {
            let door = Door::asking(&authority, &["squid-1", "squid-2"]);
            let client = door.client(Some(&authority.name(name)), version);
            let mut half = door.connect(&client);
            half.conn.write_tls(&mut half.sock).unwrap();
            half.sock.peek(&mut [0]).unwrap();
            door.change(Some((&authority, &["squid-2"])));
            let outcome = request(&mut half);
            assert_eq!(outcome, if is_served { SERVED } else { Outcome::Cut }, "{name}");
            if !is_served {
                door.daemon
                    .stderr_wait("its certificate is for squid-1, which --allow-subject does not name");
            }
        }
    }
}

/// A certificate that has been valid for some time, and expires this number of seconds from now.
fn valid_for(seconds: u64) -> CertificateParams {
    let mut params = named("squid-1");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = (SystemTime::now() + Duration::from_secs(seconds)).into();
    params
}

#[test]
fn a_session_is_not_resumed_once_its_certificate_has_expired() {
    let authority = Authority::named("authority");
    let door = Door::asking(&authority, &[]);
    for version in VERSIONS {
        // On a busy machine a certificate may have expired before its first use: then the next lasts longer.
        let client = (1..)
            .map(|round| door.client(Some(&authority.identify(&valid_for(1 << round))), version))
            .find(|client| (door.ask(client), door.ask(client)) == (SERVED, RESUMED))
            .unwrap();
        let last = loop {
            match door.ask(&client) {
                Outcome::Served { is_resumed } => assert!(is_resumed),
                refused => break refused,
            }
        };
        assert_eq!(last, Outcome::Cut);
        let line = door.daemon.stderr_wait("its certificate has expired");
        assert!(line.contains("refused 127.0.0.1:"), "{line}");
    }
}

// ---- settings --------------------------------------------------------------------------------------------------

#[test]
fn a_start_and_a_check_refuse_a_file_of_authorities_that_is_of_no_use() {
    let files = Files::new();
    let authority = Authority::named("authority");
    let file = files.configure(Some((&authority, &[])));
    for (contents, reason) in [
        (None, "cannot read CA certificate"),
        (Some(""), "there is no CA certificate in"),
        (
            Some("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
            "cannot be used",
        ),
    ] {
        match contents {
            Some(text) => drop(files.write("clients.pem", text)),
            None => fs::remove_file(files.path("clients.pem")).unwrap(),
        }
        for command in [&["run", "--config", &file][..], &["check", "--config", &file]] {
            let (status, _, said) = Daemon::with(command.iter().copied()).spawn().finish();
            assert_eq!(status.code(), Some(2), "{said}");
            assert!(said.contains(reason) && said.contains("clients.pem"), "{said}");
        }
    }
}

#[test]
fn an_authority_that_cannot_be_read_at_hup_leaves_the_old_rule() {
    let authority = Authority::named("authority");
    let door = Door::asking(&authority, &[]);
    let client = door.client(Some(&authority.name("squid-1")), &TLS13);
    assert_eq!(door.ask(&client), SERVED);
    fs::write(door.certificate.path("clients.pem"), "nonsense").unwrap();
    door.daemon.signal(Signal::SIGHUP);
    door.daemon.stderr_wait("is refused; the old one stays");
    door.daemon.stderr_wait("there is no CA certificate in");
    assert_eq!(door.ask(&client), RESUMED);
    let nameless = door.client(None, &TLS13);
    assert!(matches!(door.ask(&nameless), Outcome::Alert(_)));
}

/// A pool with these addresses that accepts certificates of an authority.
fn pool(files: &Files, flags: &[&str]) -> crate::harness::Builder {
    let authorities = files.write("clients.pem", &Authority::named("authority").pem);
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    Daemon::with(["-n", "1", "-d", &worker_command(&[]), "--cert", &cert, "--key", &key])
        .args(&["--client-ca", &authorities])
        .args(flags)
}

#[test]
fn a_socket_of_the_service_manager_that_others_reach_in_the_clear_is_refused() {
    let files = Files::new();
    let flags = ["--listen", "tls:127.0.0.1:0", "--listen", "systemd"];
    let exposed = TcpListener::bind("0.0.0.0:0").unwrap();
    let (status, _, stderr) = pool(&files, &flags).inherit(exposed).spawn().finish();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("whoever reached it from another machine would need no certificate of client-ca"),
        "{stderr}"
    );
    let local = TcpListener::bind("127.0.0.1:0").unwrap();
    pool(&files, &flags)
        .inherit(local)
        .spawn()
        .stderr_wait("listening on tls:127.0.0.1:");
}

#[test]
fn an_exec_door_that_others_reach_needs_its_list_of_programs_all_the_same() {
    let files = Files::new();
    let authorities = files.write("clients.pem", &Authority::named("authority").pem);
    let both = files.path("cert.pem");
    let arguments = ["exec", "tls:0.0.0.0:0", "--cert", &both, "--client-ca", &authorities];
    let (status, _, stderr) = Daemon::with(arguments).spawn().finish();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("whoever reached tls:0.0.0.0:0 from another machine could run anything here"),
        "{stderr}"
    );
    let file = files.write(
        "exec.toml",
        &format!("[exec.main]\nlisten = 'tls:*:9443'\ncert = '{both}'\nclient-ca = '{authorities}'\n"),
    );
    let (status, _, stderr) = Daemon::with(["check", "--config", &file]).spawn().finish();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("could run anything here"), "{stderr}");
}

#[test]
fn an_exec_door_warns_of_clients_without_a_password_only_where_they_need_no_certificate() {
    let files = Files::new();
    let authorities = files.write("clients.pem", &Authority::named("authority").pem);
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let door = || {
        Daemon::with(["exec", "tls:0.0.0.0:0", "--allow-program", "/bin/echo"]).args(&["--cert", &cert, "--key", &key])
    };
    let warning = "can be reached from other machines";
    let (asking, open) = (door().args(&["--client-ca", &authorities]).start(), door().start());
    open.stderr_wait(warning);
    asking.stderr_wait("exec: ready");
    assert!(!asking.stderr.text().contains(warning), "{}", asking.stderr.text());
}

#[test]
fn a_proxy_that_reaches_a_socket_of_the_service_manager_brings_no_one_round_the_certificates() {
    let files = Files::new();
    let flags = ["--listen", "tls:127.0.0.1:0", "--listen", "systemd"];
    for (proxy, is_refused) in [("127.0.0.5", true), ("192.0.2.5", false)] {
        let local = TcpListener::bind("127.0.0.1:0").unwrap();
        let daemon = pool(&files, &flags)
            .args(&["--accept-proxy", proxy])
            .inherit(local)
            .spawn();
        if is_refused {
            let (status, _, stderr) = daemon.finish();
            assert_eq!(status.code(), Some(2), "{stderr}");
            let why = "whoever reached the proxy from another machine would need no certificate of client-ca";
            assert!(stderr.contains(why), "{stderr}");
        } else {
            daemon.stderr_wait("listening on tls:127.0.0.1:");
        }
    }
}

// ---- what the administrator and the programs learn -------------------------------------------------------------

#[test]
fn the_dump_and_the_log_name_the_subject_of_a_client_also_when_it_resumes_its_session() {
    let authority = Authority::named("authority");
    let door = Door::asking(&authority, &["squid-*"]);
    let client = door.client(Some(&authority.name("squid-1")), &TLS13);
    for outcome in [SERVED, RESUMED] {
        let mut connection = door.connect(&client);
        assert_eq!(request(&mut connection), outcome);
        let port = connection.sock.local_addr().unwrap().port();
        let named = format!("127.0.0.1:{port} (TLSv1.3, subject \"CN=squid-1\")");
        let dump = door.daemon.usr2();
        let is_named = dump.iter().any(|line| line.ends_with(&format!("client = {named}")));
        assert!(is_named, "{dump:#?}");
        connection.write_all(&[b'x'; 1_000_000]).ok();
        door.daemon.stderr_wait(&named);
    }
}

#[test]
fn a_program_learns_the_subject_of_its_client() {
    let (files, authority) = (Files::new(), Authority::named("authority"));
    let authorities = files.write("clients.pem", &authority.pem);
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let daemon = Daemon::with(["exec", "tls:127.0.0.1:0", "--allow-program", "/usr/bin/env"])
        .args(&["--cert", &cert, "--key", &key, "--client-ca", &authorities])
        .start();
    let (certificate, changes) = (files.0, Cell::new(0));
    let door = Door {
        daemon,
        certificate,
        changes,
    };
    let mut connection = door.connect(&door.client(Some(&authority.name("web, one")), &TLS13));
    let request = crate::exec_client::request(&["/usr/bin/env"]);
    connection.write_all(&[&request[..], b"0:,"].concat()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("IOTCPD_TLS_VERSION=TLSv1.3\n"), "{answer}");
    assert!(answer.contains("IOTCPD_TLS_SUBJECT=CN=web\\, one\n"), "{answer}");
}
