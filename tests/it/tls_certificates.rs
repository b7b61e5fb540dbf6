//! The certificates of listeners with TLS: read at the start and at HUP, refused with their reason, checked beforehand.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;

use crate::harness::{Builder, Daemon, TempDir, WATCHDOG, temp_dir, untimed, worker_command};

/// A directory with certificates, keys and a configuration.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(temp_dir())
    }

    fn path(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        path.to_str().expect("temporary paths are UTF-8").to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Writes a certificate for this name to `cert` and its key to `key`.
    fn certify(&self, name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let cert = self.write("cert", &made.cert.pem());
        (cert, self.write("key", &made.signing_key.serialize_pem()))
    }

    /// Writes a configuration with one pool, which listens on this address and has these keys; returns its name.
    fn configure(&self, listen: &str, keys: &str) -> String {
        let command = worker_command(&[]);
        let text = format!("[pool.main]\ndaemon = {command:?}\nnum-daemons = 1\nlisten = '{listen}'\n{keys}");
        self.write("iotcpd.toml", &text)
    }

    /// The keys that name the certificate and the key.
    fn keys(&self) -> String {
        format!("cert = '{}'\nkey = '{}'\n", self.path("cert"), self.path("key"))
    }
}

fn pool(flags: &[&str]) -> Builder {
    let command = worker_command(&[]);
    Daemon::with(["-n", "1", "--queue-timeout", "600s", "-d", command.as_str()]).args(flags)
}

#[test]
fn the_log_names_the_hosts_of_a_certificate_and_its_end() {
    let files = Files::new();
    let (cert, key) = files.certify("a.example");
    let flags = ["--listen", "tls:127.0.0.1:0", "--cert", &cert, "--key", &key];
    let daemon = pool(&flags).spawn();
    daemon.stderr_wait(&format!("pool: certificate {cert} is for a.example, until 4096-01-01"));
    daemon.stderr_wait("pool: listening on tls:127.0.0.1:");
}

#[test]
fn one_file_may_hold_the_certificate_and_the_key() {
    let files = Files::new();
    let (cert, key) = files.certify("a.example");
    let both = fs::read_to_string(&cert).unwrap() + &fs::read_to_string(&key).unwrap();
    let both = files.write("both", &both);
    let daemon = pool(&["--listen", "tls:127.0.0.1:0", "--cert", &both]).spawn();
    daemon.stderr_wait(&format!("certificate {both} is for a.example"));
}

#[test]
fn a_start_and_a_check_refuse_files_that_are_of_no_use_with_the_same_words() {
    let files = Files::new();
    let (cert, key) = files.certify("a.example");
    let other = files.write("other", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    let empty = files.write("empty", "");
    for (cert, key, reason) in [
        ("/no/such/cert", &*key, "cannot read certificate /no/such/cert: "),
        (&cert, "/no/such/key", "cannot read key /no/such/key: "),
        (&cert, &other, "does not belong to certificate"),
        (&empty, &key, "there is no certificate in"),
        (&cert, &cert, "there is no key in"),
    ] {
        let (status, _, started) = pool(&["--listen", "tls:127.0.0.1:0", "--cert", cert, "--key", key])
            .spawn()
            .finish();
        assert_eq!(status.code(), Some(2), "{started}");
        assert!(started.contains(reason), "{started}");
        let file = files.configure("tls:127.0.0.1:0", &format!("cert = ['{cert}']\nkey = '{key}'\n"));
        let (status, _, checked) = Daemon::with(["check", "--config", &file]).spawn().finish();
        assert_eq!(status.code(), Some(2), "{checked}");
        let (_, words) = checked
            .split_once(":5:9: cert: ")
            .unwrap_or_else(|| panic!("{checked}"));
        assert!(started.contains(words.trim_end()), "{started}\n{checked}");
    }
}

#[test]
fn a_check_warns_of_a_key_that_others_can_read() {
    let files = Files::new();
    let (_, key) = files.certify("a.example");
    let file = files.configure("tls:127.0.0.1:0", &files.keys());
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let (status, stdout, stderr) = Daemon::with(["check", "--config", &file]).spawn().finish();
    assert_eq!((status.code(), stdout.as_str()), (Some(0), "ok"), "{stderr}");
    assert_eq!(
        untimed(&stderr),
        [format!(
            "WARN {file}:5:8: cert: key {key} can be read by other users; chmod 0600 {key}"
        )]
    );
}

#[test]
fn hup_reads_certificates_again_and_a_bad_one_leaves_the_old_one() {
    let files = Files::new();
    let (cert, key) = files.certify("old.example");
    let file = files.configure("tls:127.0.0.1:0", &files.keys());
    let flags = ["--listen", "tls:127.0.0.1:0", "--cert", &cert, "--key", &key];
    for (daemon, refused) in [
        (
            Daemon::with(["run", "--config", &file]),
            "is refused; the old one stays",
        ),
        (pool(&flags), "programs are started with what was there before"),
    ] {
        files.certify("old.example");
        let daemon = daemon.spawn();
        daemon.stderr_wait("is for old.example");
        daemon.stderr_wait("listening on tls:");
        files.certify("new.example");
        daemon.signal(Signal::SIGHUP);
        daemon.stderr_wait("is for new.example");
        files.write("key", "nonsense");
        daemon.signal(Signal::SIGHUP);
        daemon.stderr_wait(refused);
        daemon.stderr_wait(&format!(": there is no key in {key}"));
        files.certify("newest.example");
        daemon.signal(Signal::SIGHUP);
        daemon.stderr_wait("is for newest.example");
    }
}

#[test]
fn a_hup_that_changes_the_transport_alone_keeps_the_socket() {
    let files = Files::new();
    files.certify("a.example");
    let file = files.configure("127.0.0.1:0", "");
    let daemon = Daemon::with(["run", "--config", &file]).start();
    let address = daemon.addr();
    assert_eq!(daemon.ask("echo plain"), "plain\n");
    files.configure("tls:127.0.0.1:0", &files.keys());
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("main: 127.0.0.1:0 is tls:127.0.0.1:0 from now on");
    let mut client = TcpStream::connect(address.to_string()).unwrap();
    client.set_read_timeout(Some(WATCHDOG)).unwrap();
    client.write_all(b"echo plain\n").unwrap();
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let _ = client.read_to_end(&mut answer);
    assert!(!answer.ends_with(b"plain\n"), "a client without TLS is served");
    files.configure("127.0.0.1:0", "");
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("main: tls:127.0.0.1:0 is 127.0.0.1:0 from now on");
    assert_eq!(daemon.ask("echo again"), "again\n");
}

#[test]
fn a_unix_socket_of_the_service_manager_has_no_tls() {
    let files = Files::new();
    let (cert, key) = files.certify("a.example");
    let flags = ["--listen", "tls:systemd", "--cert", &cert, "--key", &key];
    let socket = UnixListener::bind(files.path("s")).unwrap();
    let (status, _, stderr) = pool(&flags).inherit(socket).spawn().finish();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("tls:systemd is unix:") && stderr.contains("needs no TLS"),
        "{stderr}"
    );
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    pool(&flags)
        .inherit(socket)
        .spawn()
        .stderr_wait("listening on tls:127.0.0.1:");
}
