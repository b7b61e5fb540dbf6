//! Certificates that are replaced while the daemon runs: they are read when their files have changed, in whatever way
//! tools change them, and no connection notices. And the warnings that they will end, and have ended.

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::exec_client::run;
use crate::harness::{Address, Daemon, TempDir, WATCHDOG, temp_dir, wait_orphan, worker_command};
use crate::unresponsive_file_system::{ALONE, silence};
use crate::upgrade::upgrade;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

// ---- certificates ----------------------------------------------------------------------------------------------

/// The authority of all certificates of a test.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate and its key.
struct Issued {
    pem: String,
    key: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A certificate for this name, and for `localhost`.
    fn issue(&self, name: &str) -> Issued {
        self.issue_with(name, |_| ())
    }

    /// A certificate that ends at this time from now.
    fn issue_for(&self, name: &str, time: Duration) -> Issued {
        self.issue_with(name, |params| params.not_after = (SystemTime::now() + time).into())
    }

    fn issue_with(&self, name: &str, change: impl Fn(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new([name.to_owned(), "localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.serial_number = Some(SERIAL.into());
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            pem: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: key.serialize_der(),
        }
    }

    /// A client that trusts this authority, with a certificate of its own or without.
    fn client(&self, own: Option<&Issued>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        let config = ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match own {
            Some(own) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.key_der.clone()));
                config.with_client_auth_cert(vec![own.der.clone()], key).unwrap()
            }
            None => config.with_no_client_auth(),
        })
    }
}

// ---- files -----------------------------------------------------------------------------------------------------

/// A directory with certificates and a configuration.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(temp_dir())
    }

    fn place(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.place(name).to_str().expect("temporary paths are UTF-8").to_owned()
    }

    fn make(&self, directory: &str) {
        fs::create_dir_all(self.place(directory)).unwrap();
    }

    /// Writes over a file, or makes it.
    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let place = self.place(name);
        fs::write(&place, contents).unwrap();
        fs::set_permissions(&place, Permissions::from_mode(0o600)).unwrap();
    }

    /// Puts a new file in the place of another, as most editors do.
    fn replace(&self, name: &str, contents: impl AsRef<[u8]>) {
        self.write("new file", contents);
        fs::rename(self.place("new file"), self.place(name)).unwrap();
    }

    fn link(&self, name: &str, target: &str) {
        symlink(target, self.place(name)).unwrap();
    }

    fn write_pair(&self, cert: &str, key: &str, issued: &Issued) {
        self.write(cert, &issued.pem);
        self.write(key, &issued.key);
    }

    /// Writes the configuration of one pool with these keys; returns its path.
    fn configure(&self, keys: &str) -> String {
        let command = worker_command(&[]);
        let text = format!(
            "[pool.main]\ndaemon = {command:?}\nnum-daemons = 1\nqueue-timeout = '600s'\npersistent = true\n{keys}"
        );
        self.write("iotcpd.toml", text);
        self.path("iotcpd.toml")
    }

    /// The keys of a listener with TLS.
    fn keys(&self, cert: &str, key: &str) -> String {
        let (cert, key) = (self.path(cert), self.path(key));
        format!("listen = 'tls:127.0.0.1:0'\ncert = '{cert}'\nkey = '{key}'\n")
    }

    /// Starts a pool with these files, which must exist.
    #[track_caller]
    fn start(&self, cert: &str, key: &str) -> Daemon {
        let file = self.configure(&self.keys(cert, key));
        Daemon::with(["run", "--config", &file]).start()
    }
}

// ---- clients ---------------------------------------------------------------------------------------------------

type Connection = StreamOwned<ClientConnection, TcpStream>;

/// Connects, and makes the handshake.
fn connect(daemon: &Daemon, client: &Arc<ClientConfig>) -> std::io::Result<Connection> {
    let Address::Tcp(address) = daemon.addr() else {
        panic!("TLS goes over TCP")
    };
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(WATCHDOG))?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(client), name).unwrap(), socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Asks on a connection.
fn ask(connection: &mut Connection, line: &str) -> std::io::Result<String> {
    use std::io::{BufRead, BufReader, Write};
    writeln!(connection, "echo {line}")?;
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer)?;
    Ok(answer)
}

/// Checks that a new client is served with this certificate.
#[track_caller]
fn assert_shows(daemon: &Daemon, authority: &Authority, issued: &Issued) {
    let mut connection = connect(daemon, &authority.client(None)).unwrap();
    assert_eq!(connection.conn.peer_certificates(), Some(&[issued.der.clone()][..]));
    assert_eq!(ask(&mut connection, "served").unwrap(), "served\n");
}

// ---- ways to replace files -------------------------------------------------------------------------------------

/// A daemon whose certificate is replaced twice, each time in this way, while a client stays connected.
#[track_caller]
fn assert_renews(files: &Files, cert: &str, key: &str, first: &dyn Fn(&Issued), renew: &dyn Fn(&Issued, u32)) {
    let authority = Authority::new();
    let issued = authority.issue("name0.example");
    first(&issued);
    let daemon = files.start(cert, key);
    let mut living = connect(&daemon, &authority.client(None)).unwrap();
    for round in 1..3 {
        let name = format!("name{round}.example");
        let issued = authority.issue(&name);
        renew(&issued, round);
        let cert = files.path(cert);
        daemon.stderr_wait(&format!(
            "main: certificate {cert} was read again: it is for {name}, localhost, until 4096-01-01"
        ));
        assert_shows(&daemon, &authority, &issued);
        assert_eq!(ask(&mut living, "still here").unwrap(), "still here\n");
    }
}

#[test]
fn files_that_are_written_in_place_are_read() {
    let files = Files::new();
    let write = |issued: &Issued| files.write_pair("cert", "key", issued);
    assert_renews(&files, "cert", "key", &write, &|issued, _| write(issued));
}

#[test]
fn files_that_are_replaced_by_others_are_read() {
    let files = Files::new();
    let replace = |issued: &Issued| {
        files.replace("cert", &issued.pem);
        files.replace("key", &issued.key);
    };
    assert_renews(&files, "cert", "key", &replace, &|issued, _| replace(issued));
}

#[test]
fn a_file_that_is_gone_for_a_moment_is_read_when_it_is_back() {
    let files = Files::new();
    let both = |issued: &Issued| format!("{}{}", issued.pem, issued.key);
    let write = |issued: &Issued| files.write("both", both(issued));
    assert_renews(&files, "both", "both", &write, &|issued, _| {
        fs::remove_file(files.place("both")).unwrap();
        write(issued);
    });
}

#[test]
fn a_file_that_is_written_under_another_name_is_read() {
    let files = Files::new();
    files.make("elsewhere");
    let both = |issued: &Issued| format!("{}{}", issued.pem, issued.key);
    let first = |issued: &Issued| {
        files.write("elsewhere/both", both(issued));
        fs::hard_link(files.place("elsewhere/both"), files.place("both")).unwrap();
    };
    assert_renews(&files, "both", "both", &first, &|issued, _| {
        files.write("elsewhere/both", both(issued));
    });
}

/// certbot(1): a link to the newest file of an archive, which is removed and made again.
#[test]
fn links_into_an_archive_are_followed() {
    let files = Files::new();
    files.make("live/a");
    files.make("archive/a");
    let issue = |issued: &Issued, number: u32| {
        for (name, contents) in [("fullchain", &issued.pem), ("privkey", &issued.key)] {
            files.write(&format!("archive/a/{name}{number}.pem"), contents);
            let link = format!("live/a/{name}.pem");
            let _ = fs::remove_file(files.place(&link));
            files.link(&link, &format!("../../archive/a/{name}{number}.pem"));
        }
    };
    let (cert, key) = ("live/a/fullchain.pem", "live/a/privkey.pem");
    assert_renews(&files, cert, key, &|issued| issue(issued, 0), &issue);
}

/// A mounted secret: a link to a directory is replaced, and the old directory is removed.
#[test]
fn a_link_to_a_directory_is_followed() {
    let files = Files::new();
    let publish = |issued: &Issued, number: u32| {
        let directory = format!("..{number}");
        files.make(&directory);
        files.write_pair(&format!("{directory}/tls.crt"), &format!("{directory}/tls.key"), issued);
        files.link("..new", &directory);
        fs::rename(files.place("..new"), files.place("..data")).unwrap();
        if let Some(old) = number.checked_sub(1) {
            fs::remove_dir_all(files.place(&format!("..{old}"))).unwrap();
        }
    };
    let first = |issued: &Issued| {
        publish(issued, 0);
        files.link("tls.crt", "..data/tls.crt");
        files.link("tls.key", "..data/tls.key");
    };
    assert_renews(&files, "tls.crt", "tls.key", &first, &publish);
}

#[test]
fn a_directory_that_is_removed_and_made_again_is_followed() {
    let files = Files::new();
    let make = |issued: &Issued| {
        files.make("a/b");
        files.write_pair("a/b/cert", "a/b/key", issued);
    };
    assert_renews(&files, "a/b/cert", "a/b/key", &make, &|issued, _| {
        fs::remove_dir_all(files.place("a")).unwrap();
        make(issued);
    });
}

#[test]
fn a_directory_that_is_replaced_by_another_is_followed() {
    let files = Files::new();
    let make = |issued: &Issued, name: &str| {
        files.make(name);
        files.write_pair(&format!("{name}/cert"), &format!("{name}/key"), issued);
    };
    let first = |issued: &Issued| make(issued, "now");
    assert_renews(&files, "now/cert", "now/key", &first, &|issued, round| {
        make(issued, "next");
        fs::rename(files.place("now"), files.place(&format!("old{round}"))).unwrap();
        fs::rename(files.place("next"), files.place("now")).unwrap();
    });
}

/// Mounts and unmounts are no events of the files below.
#[test]
fn a_directory_that_is_mounted_over_another_is_read() {
    if !geteuid().is_root() {
        return;
    }
    let (files, authority) = (Files::new(), Authority::new());
    let [below, above] = ["below", "above"].map(|name| {
        files.make(name);
        let issued = authority.issue(&format!("{name}.example"));
        files.write_pair(&format!("{name}/cert"), &format!("{name}/key"), &issued);
        issued
    });
    let file = files.configure(&files.keys("below/cert", "below/key"));
    let daemon = Daemon::with(["run", "--config", &file]).through(&ALONE).start();
    assert_shows(&daemon, &authority, &below);
    let pid = daemon.pid().to_string();
    let change = |words: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &pid]).args(words);
        assert!(command.status().unwrap().success(), "{words:?}");
    };
    let (place, source) = (files.path("below"), files.path("above"));
    for round in 1..3 {
        change(&["mount", "--bind", &source, &place]);
        daemon.stderr_wait_nth("was read again: it is for above.example", round);
        assert_shows(&daemon, &authority, &above);
        change(&["umount", &place]);
        daemon.stderr_wait_nth("was read again: it is for below.example", round);
    }
}

/// As the private keys of Debian, whose directory a group may pass but not list.
#[test]
fn files_in_a_directory_that_may_not_be_listed_are_read_when_they_are_replaced() {
    let files = Files::new();
    files.make("private");
    let replace = |issued: &Issued| {
        files.replace("private/cert", &issued.pem);
        files.replace("private/key", &issued.key);
    };
    let first = |issued: &Issued| {
        replace(issued);
        fs::set_permissions(files.place("private"), Permissions::from_mode(0o300)).unwrap();
    };
    assert_renews(&files, "private/cert", "private/key", &first, &|issued, _| {
        replace(issued)
    });
}

#[test]
fn a_file_that_is_written_all_the_time_does_not_keep_the_others_from_being_read() {
    let (files, authority) = (Files::new(), Authority::new());
    files.write_pair("cert", "key", &authority.issue("a.example"));
    let daemon = files.start("cert", "key");
    let (end, ended) = mpsc::channel::<()>();
    let place = files.place("cert.ocsp");
    let writer = std::thread::spawn(move || {
        while ended.recv_timeout(Duration::from_millis(10)) == Err(RecvTimeoutError::Timeout) {
            fs::write(&place, "nonsense").unwrap();
        }
    });
    files.write_pair("cert", "key", &authority.issue("b.example"));
    daemon.stderr_wait("was read again: it is for b.example");
    drop(end);
    writer.join().unwrap();
}

// ---- files that cannot be used ---------------------------------------------------------------------------------

#[test]
fn a_bad_file_is_refused_once_and_the_old_certificate_stays_until_there_is_a_good_one() {
    let (files, authority) = (Files::new(), Authority::new());
    let old = authority.issue("old.example");
    files.write_pair("cert", "key", &old);
    let daemon = files.start("cert", "key");
    let mut living = connect(&daemon, &authority.client(None)).unwrap();
    let refused = "main: a changed file is refused and the old one stays: ";
    files.write("cert", "nonsense");
    let line = daemon.stderr_wait(&format!("{refused}there is no certificate in {}; ", files.path("cert")));
    assert!(line.contains("ERROR"), "{line}");
    assert_shows(&daemon, &authority, &old);
    // The same mistake is no second line.
    files.write("cert", "more nonsense");
    files.write("key", "nonsense");
    files.write("cert", &old.pem);
    daemon.stderr_wait(&format!("{refused}there is no key in {}; ", files.path("key")));
    assert_shows(&daemon, &authority, &old);
    assert_eq!(ask(&mut living, "still here").unwrap(), "still here\n");
    let new = authority.issue("new.example");
    files.write_pair("cert", "key", &new);
    daemon.stderr_wait("was read again: it is for new.example");
    assert_shows(&daemon, &authority, &new);
    files.write("cert", "nonsense");
    daemon.stderr_wait_nth(&format!("{refused}there is no certificate"), 2);
    files.write("cert", &new.pem);
    daemon.stderr_wait("main: the files of certificates are again as they were before");
    drop(living);
    daemon.signal(Signal::SIGTERM);
    let (_, _, stderr) = daemon.finish();
    assert_eq!(stderr.matches("is refused and the old").count(), 3, "{stderr}");
    assert_eq!(stderr.matches("was read again").count(), 1, "{stderr}");
}

#[test]
fn a_bad_file_keeps_no_other_certificate_from_being_renewed() {
    let (files, authority) = (Files::new(), Authority::new());
    let clients = [Authority::new(), Authority::new()];
    let issued = |name: &str| authority.issue(&format!("{name}.example"));
    let rule = |clients: &Authority| files.replace("clients", clients.certificate.pem());
    files.write_pair("cert1", "key1", &issued("a"));
    files.write_pair("cert2", "key2", &issued("b"));
    rule(&clients[0]);
    let [cert1, key1, cert2, key2, ca] = ["cert1", "key1", "cert2", "key2", "clients"].map(|name| files.path(name));
    let keys = format!(
        "listen = 'tls:127.0.0.1:0'\ncert = ['{cert1}', '{cert2}']\nkey = ['{key1}', '{key2}']\nclient-ca = '{ca}'\n"
    );
    let daemon = Daemon::with(["run", "--config", &files.configure(&keys)]).start();
    let ask_as = |clients: &Authority| {
        let client = authority.client(Some(&clients.issue("client")));
        let mut connection = connect(&daemon, &client)?;
        ask(&mut connection, "served")
    };
    files.write("cert1", "nonsense");
    files.write_pair("cert2", "key2", &issued("c"));
    daemon.stderr_wait(&format!(
        "is refused and the old one stays: there is no certificate in {cert1}"
    ));
    daemon.stderr_wait(&format!("certificate {cert2} was read again: it is for c.example"));
    files.write("clients", "nonsense");
    daemon.stderr_wait(&format!(
        "is refused and the old one stays: there is no CA certificate in {ca}"
    ));
    assert_eq!(ask_as(&clients[0]).unwrap(), "served\n");
    assert!(ask_as(&clients[1]).is_err(), "the old rule holds");
    rule(&clients[1]);
    daemon.stderr_wait(&format!("CA certificate {ca} was read again"));
    assert_eq!(ask_as(&clients[1]).unwrap(), "served\n");
    files.write_pair("cert1", "key1", &issued("d"));
    daemon.stderr_wait(&format!("certificate {cert1} was read again: it is for d.example"));
}

#[test]
fn a_key_that_comes_later_than_its_certificate_completes_it() {
    let (files, authority) = (Files::new(), Authority::new());
    let (old, new) = (authority.issue("old.example"), authority.issue("new.example"));
    files.write_pair("cert", "key", &old);
    let daemon = files.start("cert", "key");
    files.replace("cert", &new.pem);
    daemon.stderr_wait(&format!(
        "refused and the old one stays: key {} does not belong to certificate {}",
        files.path("key"),
        files.path("cert")
    ));
    assert_shows(&daemon, &authority, &old);
    files.replace("key", &new.key);
    daemon.stderr_wait("was read again: it is for new.example");
    assert_shows(&daemon, &authority, &new);
}

#[test]
fn a_file_that_is_removed_leaves_the_old_certificate() {
    let (files, authority) = (Files::new(), Authority::new());
    let (old, new) = (authority.issue("old.example"), authority.issue("new.example"));
    files.write_pair("cert", "key", &old);
    let daemon = files.start("cert", "key");
    fs::remove_file(files.place("key")).unwrap();
    daemon.stderr_wait(&format!(
        "cannot read key {}: No such file or directory",
        files.path("key")
    ));
    assert_shows(&daemon, &authority, &old);
    files.write_pair("cert", "key", &new);
    daemon.stderr_wait("was read again: it is for new.example");
}

#[test]
fn a_key_that_others_may_read_from_now_on_is_a_warning() {
    let (files, authority) = (Files::new(), Authority::new());
    files.write_pair("cert", "key", &authority.issue("a.example"));
    let daemon = files.start("cert", "key");
    fs::set_permissions(files.place("key"), Permissions::from_mode(0o644)).unwrap();
    let line = daemon.stderr_wait(&format!("key {} can be read by other users", files.path("key")));
    assert!(line.contains("WARN"), "{line}");
}

// ---- other files -----------------------------------------------------------------------------------------------

#[test]
fn the_authorities_of_clients_are_read_and_sessions_of_the_old_ones_end() {
    let (files, authority) = (Files::new(), Authority::new());
    let clients = [Authority::new(), Authority::new()];
    files.write_pair("cert", "key", &authority.issue("a.example"));
    files.write("clients", clients[0].certificate.pem());
    let rule = format!("client-ca = '{}'\n", files.path("clients"));
    let file = files.configure(&(files.keys("cert", "key") + &rule));
    let daemon = Daemon::with(["run", "--config", &file]).start();
    let [old, new] = clients
        .each_ref()
        .map(|clients| authority.client(Some(&clients.issue("client"))));
    let is_served = |client: &Arc<ClientConfig>| {
        let asked = connect(&daemon, client).and_then(|mut connection| {
            let answer = ask(&mut connection, "served")?;
            Ok((answer, connection.conn.handshake_kind()))
        });
        asked
            .ok()
            .filter(|(answer, _)| answer == "served\n")
            .map(|(_, kind)| kind)
    };
    assert_eq!(is_served(&old), Some(Some(HandshakeKind::Full)));
    assert_eq!(is_served(&old), Some(Some(HandshakeKind::Resumed)));
    assert_eq!(is_served(&new), None);
    let mut living = connect(&daemon, &old).unwrap();
    assert_eq!(ask(&mut living, "living").unwrap(), "living\n");
    files.replace("clients", clients[1].certificate.pem());
    daemon.stderr_wait(&format!(
        "main: CA certificate {} was read again",
        files.path("clients")
    ));
    assert_eq!(is_served(&new), Some(Some(HandshakeKind::Full)));
    assert_eq!(is_served(&old), None);
    assert_eq!(ask(&mut living, "still here").unwrap(), "still here\n");
    // A new certificate of the server ends no session.
    files.write_pair("cert", "key", &authority.issue("b.example"));
    daemon.stderr_wait("was read again: it is for b.example");
    assert_eq!(is_served(&new), Some(Some(HandshakeKind::Resumed)));
    files.write("clients", "nonsense");
    daemon.stderr_wait("refused and the old one stays: there is no CA certificate in");
    assert_eq!(is_served(&new), Some(Some(HandshakeKind::Resumed)));
}

/// The serial number of all certificates.
const SERIAL: u64 = 5;

/// A value in DER.
fn der(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let [high, low] = u16::try_from(contents.len()).unwrap().to_be_bytes();
    let length = match (high, low) {
        (0, low @ ..0x80) => vec![low],
        (0, low) => vec![0x81, low],
        (high, low) => vec![0x82, high, low],
    };
    [vec![tag], length, contents].concat()
}

/// An answer of OCSP (RFC 6960) that the certificates are good, for this time. Its signature is empty.
fn answer_for(time: Duration) -> Vec<u8> {
    let moment = |at: SystemTime| {
        let text = humantime::format_rfc3339_seconds(at).to_string();
        der(0x18, &[text.replace(['-', ':', 'T'], "").as_bytes()])
    };
    let now = moment(SystemTime::now());
    let algorithm = der(0x30, &[&der(0x06, &[&[0x2b, 0x0e, 3, 2, 0x1a]])]);
    let (hash, serial) = (der(0x04, &[&[7; 20]]), der(0x02, &[&[5]]));
    let certificate = der(0x30, &[&algorithm, &hash, &hash, &serial]);
    let until = der(0xa0, &[&moment(SystemTime::now() + time)]);
    let single = der(0x30, &[&certificate, &der(0x80, &[]), &now, &until]);
    let responder = der(0xa2, &[&hash]);
    let signed = der(0x30, &[&responder, &now, &der(0x30, &[&single])]);
    let basic = der(
        0x30,
        &[
            &signed,
            &der(0x30, &[&der(0x06, &[&[0x2a, 3]])]),
            &der(0x03, &[&[0; 65]]),
        ],
    );
    let kind = der(0x06, &[&[0x2b, 6, 1, 5, 5, 7, 48, 1, 1]]);
    let typed = der(0x30, &[&kind, &der(0x04, &[&basic])]);
    der(0x30, &[&der(0x0a, &[&[0]]), &der(0xa0, &[&typed])])
}

/// Returns true if the daemon sends an answer along, as openssl(1) sees it.
fn sends_answer(daemon: &Daemon) -> bool {
    let Address::Tcp(address) = daemon.addr() else {
        panic!("TLS goes over TCP")
    };
    let mut command = Command::new("openssl");
    command.args(["s_client", "-status", "-connect", &address.to_string()]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let is_sent = !text.contains("OCSP response: no response sent");
    assert_eq!(is_sent, text.contains("OCSP Response Status: successful"), "{text}");
    is_sent
}

#[test]
fn an_answer_of_ocsp_comes_is_renewed_and_goes() {
    let (files, authority) = (Files::new(), Authority::new());
    files.write_pair("cert", "key", &authority.issue("a.example"));
    let daemon = files.start("cert", "key");
    let answer = files.path("cert.ocsp");
    assert!(!sends_answer(&daemon));
    for nth in 1..3 {
        files.replace("cert.ocsp", answer_for(nth * DAY));
        let pattern = format!("main: OCSP answer {answer} was read again: it is good until ");
        daemon.stderr_wait_nth(&pattern, nth.try_into().unwrap());
        assert!(sends_answer(&daemon));
    }
    files.replace("cert.ocsp", "nonsense");
    daemon.stderr_wait(&format!("OCSP answer {answer} is refused and the old one stays: "));
    assert!(sends_answer(&daemon));
    fs::remove_file(&answer).unwrap();
    daemon.stderr_wait(&format!(
        "certificate {} has no OCSP answer any more",
        files.path("cert")
    ));
    assert!(!sends_answer(&daemon));
}

#[test]
fn an_answer_of_ocsp_that_ends_is_told_once_and_not_sent_any_more() {
    let (files, authority) = (Files::new(), Authority::new());
    files.write_pair("cert", "key", &authority.issue("a.example"));
    // On a busy machine the answer may have ended before the start.
    for seconds in [2, 4, 8, 16, 32, 64] {
        files.write("cert.ocsp", answer_for(Duration::from_secs(seconds)));
        let daemon = files.start("cert", "key");
        if !sends_answer(&daemon) {
            continue;
        }
        daemon.stderr_wait("cert.ocsp is not sent along any more: it is too old");
        assert!(!sends_answer(&daemon));
        // Reading the files again is no reason to say it again.
        fs::set_permissions(files.place("key"), Permissions::from_mode(0o644)).unwrap();
        daemon.stderr_wait("can be read by other users");
        daemon.signal(Signal::SIGTERM);
        let (_, _, stderr) = daemon.finish();
        assert_eq!(stderr.matches("cert.ocsp").count(), 1, "{stderr}");
        return;
    }
    panic!("the machine is too slow");
}

// ---- HUP, the end, an upgrade ----------------------------------------------------------------------------------

/// Waits for something that no event tells.
#[track_caller]
fn wait_until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < WATCHDOG, "it does not come");
        std::thread::yield_now();
    }
}

/// Returns true if the process has a thread that waits for changes.
fn watches(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let name = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.ok()?.path().join("comm")).ok();
    tasks.filter_map(name).any(|name| name == "certificates\n")
}

fn reload(daemon: &Daemon, nth: usize) {
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait_nth("the configuration was read again", nth);
}

#[test]
fn the_watched_files_follow_the_configuration() {
    let (files, authority) = (Files::new(), Authority::new());
    let issued = |name: &str| authority.issue(&format!("{name}.example"));
    files.write_pair("cert1", "key1", &issued("a"));
    files.write_pair("cert2", "key2", &issued("b"));
    let file = files.configure("listen = '127.0.0.1:0'\n");
    let daemon = Daemon::with(["run", "--config", &file]).start();
    let pid = daemon.pid();
    assert!(!watches(pid), "there is nothing to watch");
    files.configure(&files.keys("cert1", "key1"));
    reload(&daemon, 1);
    wait_until(|| watches(pid));
    files.write_pair("cert1", "key1", &issued("c"));
    daemon.stderr_wait("cert1 was read again: it is for c.example");
    files.configure(&files.keys("cert2", "key2"));
    reload(&daemon, 2);
    files.write_pair("cert1", "key1", &issued("d"));
    files.write_pair("cert2", "key2", &issued("e"));
    daemon.stderr_wait("cert2 was read again: it is for e.example");
    files.configure("listen = '127.0.0.1:0'\n");
    reload(&daemon, 3);
    wait_until(|| !watches(pid));
    files.configure(&files.keys("cert1", "key1"));
    reload(&daemon, 4);
    daemon.stderr_wait("cert1 is for d.example");
    let changed = issued("f");
    files.write_pair("cert1", "key1", &changed);
    daemon.stderr_wait("cert1 was read again: it is for f.example");
    assert_shows(&daemon, &authority, &changed);
    drop(daemon);
}

#[test]
fn a_hup_without_a_file_leaves_the_files_watched() {
    let (files, authority) = (Files::new(), Authority::new());
    files.write_pair("cert", "key", &authority.issue("a.example"));
    let command = worker_command(&[]);
    let (cert, key) = (files.path("cert"), files.path("key"));
    let flags = [
        "-n",
        "1",
        "-d",
        &command,
        "--listen",
        "tls:127.0.0.1:0",
        "--cert",
        &cert,
        "--key",
        &key,
    ];
    let daemon = Daemon::with(flags).start();
    for round in 1..3 {
        daemon.signal(Signal::SIGHUP);
        daemon.stderr_wait_nth("is for ", 2 * round);
        let name = format!("name{round}.example");
        files.write_pair("cert", "key", &authority.issue(&name));
        daemon.stderr_wait(&format!("was read again: it is for {name}"));
    }
}

#[test]
fn an_upgrade_leaves_the_watch_to_the_successor() {
    let (files, authority) = (Files::new(), Authority::new());
    files.write_pair("cert", "key", &authority.issue("a.example"));
    let daemon = files.start("cert", "key");
    let mut living = connect(&daemon, &authority.client(None)).unwrap();
    let old = daemon.pid();
    let new = upgrade(&daemon, old, 1);
    wait_until(|| !watches(old));
    wait_until(|| watches(new));
    let issued = authority.issue("b.example");
    files.write_pair("cert", "key", &issued);
    daemon.stderr_wait("was read again: it is for b.example");
    assert_shows(&daemon, &authority, &issued);
    assert_eq!(ask(&mut living, "still here").unwrap(), "still here\n");
    drop(living);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    kill(Pid::from_raw(new), Signal::SIGTERM).unwrap();
    wait_orphan(new);
}

#[test]
fn a_program_inherits_nothing_of_the_watch() {
    let (files, authority) = (Files::new(), Authority::new());
    files.write_pair("cert", "key", &authority.issue("a.example"));
    let (cert, key) = (files.path("cert"), files.path("key"));
    let program = ["--allow-program", "/bin/ls", "--allow-program", "/usr/bin/ls"];
    let daemon = Daemon::with(["exec", "127.0.0.1:0"])
        .args(&["--listen", "tls:127.0.0.1:0", "--cert", &cert, "--key", &key])
        .args(&program)
        .start();
    wait_until(|| watches(daemon.pid()));
    let descriptors = run(&daemon, &["/bin/ls", "-l", "/proc/self/fd"], b"").text();
    assert!(
        descriptors.contains("0 ->") && !descriptors.contains("inotify"),
        "{descriptors}"
    );
}

// ---- the kernel and file systems -------------------------------------------------------------------------------

/// A launcher that limits a resource of the kernel; `None` where this user may not.
fn limited(resource: &str) -> Option<Vec<String>> {
    let unshare = ["unshare", "--user", "--map-root-user"];
    let script = format!("echo 0 > /proc/sys/user/{resource} && exec \"$@\"");
    let mut trial = Command::new(unshare[0]);
    trial.args(&unshare[1..]).args(["sh", "-c", &script, "sh", "true"]);
    let may = trial.status().is_ok_and(|status| status.success());
    let launcher = unshare.map(str::to_owned).into_iter();
    may.then(|| {
        launcher
            .chain(["sh".into(), "-c".into(), script, "sh".into()])
            .collect()
    })
}

#[test]
fn without_inotify_the_log_says_so_and_hup_reads_the_files() {
    let (files, authority) = (Files::new(), Authority::new());
    for (resource, expected) in [
        (
            "max_inotify_instances",
            "changed certificates are not read by themselves: no more programs can watch files; raise \
             fs.inotify.max_user_instances, or send HUP",
        ),
        (
            "max_inotify_watches",
            "may not be seen: /: no more files can be watched; raise fs.inotify.max_user_watches, or send HUP",
        ),
    ] {
        let Some(launcher) = limited(resource) else { return };
        let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
        files.write_pair("cert", "key", &authority.issue("a.example"));
        let file = files.configure(&files.keys("cert", "key"));
        let daemon = Daemon::with(["run", "--config", &file]).through(&launcher).start();
        let line = daemon.stderr_wait(expected);
        assert!(line.contains("WARN"), "{line}");
        let issued = authority.issue("b.example");
        files.write_pair("cert", "key", &issued);
        reload(&daemon, 1);
        assert_shows(&daemon, &authority, &issued);
        daemon.stderr_wait_nth(expected, 2);
    }
}

#[test]
fn a_file_system_that_does_not_answer_holds_up_neither_hup_nor_the_end() {
    if !geteuid().is_root() {
        return;
    }
    let (files, authority) = (Files::new(), Authority::new());
    files.make("silent");
    files.write_pair("cert", "key", &authority.issue("a.example"));
    files.link("link", "cert");
    let file = files.configure(&files.keys("link", "key"));
    let daemon = Daemon::with(["run", "--config", &file]).through(&ALONE).start();
    let _silence = silence(&daemon, &files.place("silent"));
    files.link("new link", "silent/cert");
    fs::rename(files.place("new link"), files.place("link")).unwrap();
    // The thread is asleep in the file system, and no longer in poll(2).
    wait_until(|| hangs(daemon.pid()));
    assert_shows_any(&daemon, &authority);
    files.write_pair("cert2", "key2", &authority.issue("b.example"));
    files.configure(&files.keys("cert2", "key2"));
    reload(&daemon, 1);
    let issued = authority.issue("c.example");
    files.write_pair("cert2", "key2", &issued);
    daemon.stderr_wait("cert2 was read again: it is for c.example");
    assert_shows(&daemon, &authority, &issued);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[track_caller]
fn assert_shows_any(daemon: &Daemon, authority: &Authority) {
    let mut connection = connect(daemon, &authority.client(None)).unwrap();
    assert_eq!(ask(&mut connection, "served").unwrap(), "served\n");
}

/// Returns true if the thread that waits for changes waits for a file system.
fn hangs(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let read = |place: &Path, name: &str| fs::read_to_string(place.join(name)).unwrap_or_default();
    tasks.filter_map(Result::ok).any(|task| {
        let place = task.path();
        read(&place, "comm") == "certificates\n" && read(&place, "wchan").contains("fuse")
    })
}

// ---- the end of a certificate ----------------------------------------------------------------------------------

#[test]
fn a_certificate_that_ends_within_two_weeks_is_a_warning_at_the_start_and_at_hup() {
    let (files, authority) = (Files::new(), Authority::new());
    let hour = Duration::from_secs(60 * 60);
    files.write_pair("cert", "key", &authority.issue_for("a.example", 14 * DAY + hour));
    let daemon = files.start("cert", "key");
    let warning = format!("main: certificate {} expires in 14 days, on ", files.path("cert"));
    let line = daemon.stderr_wait(&warning);
    assert!(line.contains("WARN"), "{line}");
    assert_eq!(daemon.usr1().count("tls days left"), 14);
    reload(&daemon, 1);
    daemon.stderr_wait_nth(&warning, 2);
    // A new one that will not end so soon is no reason for a line.
    files.write_pair("cert", "key", &authority.issue_for("b.example", 15 * DAY + hour));
    daemon.stderr_wait("was read again: it is for b.example");
    assert_eq!(daemon.usr1().count("tls days left"), 15);
    files.write_pair("cert", "key", &authority.issue_for("c.example", 2 * DAY + hour));
    daemon.stderr_wait("expires in 2 days");
    daemon.signal(Signal::SIGTERM);
    let (_, _, stderr) = daemon.finish();
    assert_eq!(stderr.matches("expires").count(), 3, "{stderr}");
}

#[test]
fn the_two_weeks_and_the_end_are_told_when_they_come() {
    let (files, authority) = (Files::new(), Authority::new());
    let second = Duration::from_secs(1);
    files.write_pair("cert", "key", &authority.issue_for("a.example", 15 * DAY + 5 * second));
    files.write_pair("cert2", "key2", &authority.issue_for("b.example", 5 * second));
    let (cert, key) = (files.path("cert2"), files.path("key2"));
    let second = format!(
        "[exec.other]\nlisten = 'tls:127.0.0.1:0'\ncert = '{cert}'\nkey = '{key}'\n\
                          allow-program = '/bin/true'\n"
    );
    let file = files.configure(&(files.keys("cert", "key") + &second));
    let daemon = Daemon::with(["run", "--config", &file]).start();
    daemon.stderr_wait(&format!("main: certificate {} expires in 14 days", files.path("cert")));
    let line = daemon.stderr_wait(&format!("other: certificate {cert} has expired on "));
    assert!(line.contains("ERROR") && line.contains("clients refuse it"), "{line}");
    daemon.signal(Signal::SIGTERM);
    let (_, _, stderr) = daemon.finish();
    assert_eq!(stderr.matches("in 14 days").count(), 1, "{stderr}");
    assert_eq!(stderr.matches("has expired").count(), 1, "{stderr}");
}
