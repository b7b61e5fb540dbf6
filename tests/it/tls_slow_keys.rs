//! Servers with a key of RSA, whose signatures take milliseconds: helper threads make them, no other client waits for them,
//! and whatever happens meanwhile, a signature reaches the connection that it was made for or none.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SignatureScheme, StreamOwned, SupportedProtocolVersion};

use crate::harness::{Address, Builder, Certificate, Daemon, Installation, WATCHDOG, reset_on_close, worker_command};
use crate::tls::other_doors;
use crate::upgrade::upgrade;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A number of signatures that takes most of a second.
const MANY: usize = 200;
/// A number of signatures that are made within the time for a handshake, even if the processors are busy.
const FEW: usize = 30;

/// Gives a daemon more priority, where this user may. Its threads for signatures have ten less than it has: beside other
/// programs that keep the processors busy they would make none within the time for a handshake.
const PREFERRED: [&str; 3] = ["nice", "-n", "-10"];

/// A persistent pool of one worker that listens in the clear and, with a key of RSA, over TLS.
struct Door {
    daemon: Daemon,
    certificate: Certificate,
    /// The place of the address with TLS among all that the daemon listens on.
    nth: usize,
}

impl Door {
    #[track_caller]
    fn new(flags: &[&str]) -> Self {
        Self::started(|builder| builder.args(flags))
    }

    #[track_caller]
    fn started(changed: impl FnOnce(Builder) -> Builder) -> Self {
        let certificate = Certificate::rsa();
        let command = worker_command(&[]);
        let tls = certificate.flags();
        let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
        let builder = Daemon::with(["-n", "1", "-d", &command, "--persistent", "--queue-timeout", "60s"])
            .args(&["--listen", "127.0.0.1:0"])
            .args(&tls);
        Self {
            daemon: changed(builder).through(&PREFERRED).start(),
            certificate,
            nth: 2,
        }
    }

    #[track_caller]
    fn socket(&self) -> TcpStream {
        let Address::Tcp(address) = self.daemon.nth_addr(self.nth) else {
            panic!("TLS goes over TCP")
        };
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(WATCHDOG)).unwrap();
        socket
    }

    /// A client that has sent its hello, which is to be answered with a signature.
    #[track_caller]
    fn begin(&self) -> Handshake {
        let mut handshake = Handshake(self.certificate.client(self.socket()));
        handshake.begin();
        handshake
    }

    fn begin_many(&self, count: usize) -> Vec<Handshake> {
        (0..count).map(|_| self.begin()).collect()
    }

    /// The threads that make signatures.
    fn helpers(&self) -> Vec<Thread> {
        helpers(self.daemon.pid())
    }
}

struct Thread {
    nice: i64,
    blocked: u64,
}

fn helpers(pid: i32) -> Vec<Thread> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.filter_map(|entry| thread(&entry.unwrap().path())).collect()
}

/// `None` if the thread has ended or is none of them.
fn thread(directory: &Path) -> Option<Thread> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    if read("comm")?.trim_end() != "helper" {
        return None;
    }
    let (stat, status) = (read("stat")?, read("status")?);
    // Field 19 is the nice value, and the third is the first behind the name (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(") ")?;
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
    Some(Thread {
        nice: fields.split(' ').nth(16)?.parse().ok()?,
        blocked: u64::from_str_radix(blocked.trim(), 16).ok()?,
    })
}

/// A handshake that has begun.
struct Handshake(StreamOwned<ClientConnection, TcpStream>);

impl Handshake {
    /// Sends the hello.
    fn begin(&mut self) {
        self.0.conn.write_tls(&mut self.0.sock).unwrap();
    }

    /// Returns true if something has come, be it the end.
    fn has_input(&self) -> bool {
        let mut wanted = [PollFd::new(self.0.sock.as_fd(), PollFlags::POLLIN)];
        poll(&mut wanted, PollTimeout::ZERO).unwrap() == 1
    }

    /// Completes the handshake, and asks. `None` if the daemon has closed before.
    fn ask(&mut self, text: &str) -> Option<String> {
        use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let kinds = [UnexpectedEof, ConnectionReset, BrokenPipe, ConnectionAborted];
        let closed = |error: std::io::Error| assert!(kinds.contains(&error.kind()), "{error}");
        let sent = self.0.write_all(format!("echo {text}\n").as_bytes());
        sent.and_then(|()| self.0.flush()).map_err(closed).ok()?;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(0) => return None,
                Ok(_) => line.push(byte[0]),
                Err(error) => {
                    closed(error);
                    return None;
                }
            }
        }
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// The certificate that the daemon has shown.
    fn shown(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().unwrap()[0].clone()
    }
}

/// Asks each, and returns the number of clients that were served. Each gets its own answer or none.
fn ask_each(handshakes: &mut [Handshake]) -> usize {
    let mut served = 0;
    for (number, handshake) in handshakes.iter_mut().enumerate() {
        if let Some(answer) = handshake.ask(&number.to_string()) {
            assert_eq!(answer, number.to_string());
            served += 1;
        }
    }
    served
}

/// Lets all but the newest few go, and checks that those are served.
#[track_caller]
fn assert_newest_are_served(mut handshakes: Vec<Handshake>) -> Vec<Handshake> {
    handshakes.drain(..handshakes.len() - FEW);
    assert_eq!(ask_each(&mut handshakes), FEW);
    handshakes
}

/// A client that trusts these certificates, and checks signatures of one kind of key alone.
fn client_of(certificates: &[&Certificate], version: &'static SupportedProtocolVersion, rsa: bool) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let own = CertificateDer::from_pem_file(certificate.path("cert.pem")).unwrap();
        roots.add(own).unwrap();
    }
    let mut provider = rustls::crypto::ring::default_provider();
    let accepted = &mut provider.signature_verification_algorithms;
    let is_rsa = |scheme: &SignatureScheme| scheme.as_str().is_some_and(|name| name.starts_with("RSA"));
    let of_one_kind = accepted.mapping.iter().filter(|(scheme, _)| is_rsa(scheme) == rsa);
    accepted.mapping = of_one_kind.copied().collect::<Vec<_>>().leak();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

#[test]
fn a_thread_with_less_priority_makes_signatures_once_one_is_needed() {
    let door = Door::new(&[]);
    let mut plain = door.daemon.client();
    plain.send("echo in the clear\n");
    assert_eq!(plain.read_line(), "in the clear");
    assert_eq!(door.helpers().len(), 0);
    assert_eq!(door.begin().ask("one").unwrap(), "one");
    let helpers = door.helpers();
    let own = fs::read_to_string(format!("/proc/{}/stat", door.daemon.pid())).unwrap();
    let own: i64 = own
        .rsplit_once(") ")
        .unwrap()
        .1
        .split(' ')
        .nth(16)
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(helpers.len(), 1);
    assert_eq!(helpers[0].nice, (own + 10).min(19));
    // All but KILL and STOP, and the two that the C library keeps for itself.
    for signal in [
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGCHLD,
        Signal::SIGUSR1,
        Signal::SIGURG,
    ] {
        assert_ne!(helpers[0].blocked & (1 << (signal as u64 - 1)), 0, "{signal}");
    }
}

#[test]
fn there_are_fewer_threads_for_signatures_than_processors() {
    let door = Door::new(&[]);
    assert_eq!(ask_each(&mut door.begin_many(FEW)), FEW);
    let processors = std::thread::available_parallelism().unwrap().get();
    let threads = door.helpers().len();
    assert!(threads == 1 || (threads < processors && threads <= 4), "{threads}");
}

#[test]
fn a_session_is_resumed_without_a_signature() {
    let door = Door::new(&[]);
    for (number, resumed) in [(1, 0), (2, 1), (3, 2)] {
        assert_eq!(door.begin().ask("one").unwrap(), "one");
        let stats = door.daemon.usr1();
        assert_eq!(
            (stats.count("tls handshakes"), stats.count("tls resumed")),
            (number, resumed)
        );
    }
}

#[test]
fn each_version_is_served_and_the_key_is_chosen_by_what_the_client_can_check() {
    let (fast, slow) = (Certificate::new(), Certificate::rsa());
    let (command, flags) = (worker_command(&[]), [fast.flags(), slow.flags()[2..].to_vec()].concat());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::with(["-n", "1", "-d", &command, "--persistent"])
        .args(&flags)
        .through(&PREFERRED)
        .start();
    let Address::Tcp(address) = daemon.addr() else {
        panic!("TLS goes over TCP")
    };
    for (rsa, certificate) in [(false, &fast), (true, &slow)] {
        for version in VERSIONS {
            let socket = TcpStream::connect(address).unwrap();
            socket.set_read_timeout(Some(WATCHDOG)).unwrap();
            let client = client_of(&[&fast, &slow], version, rsa);
            let mut handshake = Handshake(StreamOwned::new(client, socket));
            assert_eq!(handshake.ask("one").unwrap(), "one");
            let own = CertificateDer::from_pem_file(certificate.path("cert.pem")).unwrap();
            assert_eq!(handshake.shown(), own);
        }
        assert_eq!(helpers(daemon.pid()).len(), usize::from(rsa), "only RSA needs a thread");
    }
}

#[test]
fn a_client_that_sends_byte_by_byte_is_served() {
    let door = Door::new(&[]);
    let mut stream = door.certificate.client(door.socket());
    stream.sock.set_nodelay(true).unwrap();
    let mut hello = Vec::new();
    stream.conn.write_tls(&mut hello).unwrap();
    for byte in hello {
        stream.sock.write_all(&[byte]).unwrap();
    }
    assert_eq!(Handshake(stream).ask("slowly").unwrap(), "slowly");
}

#[test]
fn many_clients_at_once_are_served() {
    let door = Door::new(&[]);
    assert_eq!(ask_each(&mut door.begin_many(FEW)), FEW);
    let stats = door.daemon.usr1();
    let counts = ["tls handshakes", "tls waiting", "tls signing", "refused tls"];
    assert_eq!(counts.map(|label| stats.count(label)), [FEW as u64, 0, 0, 0]);
}

/// Were the loop to make the signatures, it would make at least one in each turn, and each answer takes two turns.
#[test]
fn a_client_in_the_clear_does_not_wait_for_the_signatures_of_others() {
    let door = Door::new(&[]);
    let mut plain = door.daemon.client();
    plain.send("echo before\n");
    assert_eq!(plain.read_line(), "before");
    let handshakes = door.begin_many(MANY);
    for number in 0..40 {
        plain.send(format!("echo {number}\n"));
        assert_eq!(plain.read_line(), number.to_string());
    }
    let unsigned = handshakes.iter().filter(|handshake| !handshake.has_input()).count();
    assert_ne!(unsigned, 0, "all signatures were made before 40 answers in the clear");
}

#[test]
fn the_statistics_and_the_dump_tell_of_handshakes_that_wait_for_a_signature() {
    let door = Door::new(&[]);
    let handshakes = door.begin_many(MANY);
    let stats = door.daemon.usr1_until(|stats| stats.count("tls signing") > 0);
    assert!(stats.count("tls waiting") >= stats.count("tls signing"));
    let dump = door.daemon.usr2();
    assert!(dump.iter().any(|line| line.ends_with("stage = signature")), "{dump:#?}");
    assert_newest_are_served(handshakes);
    door.daemon.usr1_until(|stats| stats.count("tls signing") == 0);
}

#[test]
fn of_too_many_that_wait_for_a_signature_the_oldest_are_refused_and_counted() {
    const TOO_MANY: usize = 1200;
    let door = Door::new(&["--max-connections", "4000", "--log-level", "debug"]);
    let connect = || Handshake(door.certificate.client(door.socket()));
    let mut handshakes: Vec<Handshake> = (0..TOO_MANY).map(|_| connect()).collect();
    door.daemon
        .usr1_until(|stats| stats.count("tls waiting") == TOO_MANY as u64);
    // While the daemon stands still they gather.
    door.daemon.signal(Signal::SIGSTOP);
    handshakes.iter_mut().for_each(Handshake::begin);
    door.daemon.signal(Signal::SIGCONT);
    door.daemon
        .stderr_wait("its TLS handshake waited for a signature with an RSA key, and too many newer ones wait");
    let refused = door.daemon.usr1().count("refused tls");
    assert!((1..=TOO_MANY as u64 - 257).contains(&refused), "{refused}");
    assert_newest_are_served(handshakes);
    assert_eq!(door.begin().ask("later").unwrap(), "later");
}

#[test]
fn a_client_that_goes_while_its_signature_is_awaited_ends_at_once() {
    let door = Door::new(&["--log-level", "debug"]);
    let others = door.begin_many(MANY);
    let (half, reset, closed) = (door.begin(), door.begin(), door.begin());
    half.0.sock.shutdown(Shutdown::Write).unwrap();
    reset_on_close(&reset.0.sock);
    drop((reset, closed));
    door.daemon
        .stderr_wait("its TLS handshake fails: it has closed the connection within the handshake");
    let mut rest = Vec::new();
    let ended = (&half.0.sock).read_to_end(&mut rest);
    assert!(rest.is_empty(), "{ended:?} after {} bytes", rest.len());
    assert!(
        others.iter().any(|other| !other.has_input()),
        "they were refused when others still waited"
    );
    let _served = assert_newest_are_served(others);
    door.daemon.usr1_until(|stats| stats.count("tls waiting") == 0);
}

#[test]
fn bytes_that_come_behind_the_hello_are_judged_behind_the_signature() {
    let door = Door::new(&[]);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x17\x03\x03\x00\x05never",
        &[0x16; 5000],
    ] {
        let handshake = door.begin();
        let mut sock = &handshake.0.sock;
        // The daemon may have closed already.
        let _ = sock.write_all(garbage);
        let mut said = Vec::new();
        let _ = sock.read_to_end(&mut said);
    }
    let stats = door.daemon.usr1_until(|stats| stats.count("refused tls") == 3);
    assert_eq!(stats.count("tls handshakes"), 0);
    assert_eq!(door.begin().ask("after all").unwrap(), "after all");
}

#[test]
fn a_header_of_a_proxy_may_stand_in_front() {
    let door = Door::new(&["--accept-proxy", "127.0.0.1"]);
    let mut stream = door.certificate.client(door.socket());
    let mut bytes = b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 443\r\n".to_vec();
    stream.conn.write_tls(&mut bytes).unwrap();
    stream.sock.write_all(&bytes).unwrap();
    let mut handshake = Handshake(stream);
    assert_eq!(handshake.ask("behind a proxy").unwrap(), "behind a proxy");
    let dump = door.daemon.usr2();
    assert!(dump.iter().any(|line| line.contains("192.0.2.7:1234")), "{dump:#?}");
}

#[test]
fn the_other_doors_are_told_of_signatures_as_well() {
    for daemon in other_doors(&Certificate::rsa()) {
        assert_eq!(helpers(daemon.pid()).len(), 1);
    }
}

#[test]
fn handshakes_that_wait_for_a_signature_keep_the_certificate_that_they_began_with() {
    let (certificate, renewed) = (Certificate::rsa(), Certificate::new());
    let (rsa, own) = (
        Certificate::rsa(),
        CertificateDer::from_pem_file(renewed.path("cert.pem")),
    );
    let command = worker_command(&[]);
    let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    let file = certificate.path("iotcpd.toml");
    fs::write(
        &file,
        format!(
            "[pool.main]\ndaemon = {command:?}\nnum-daemons = 1\nqueue-timeout = '600s'\npersistent = true\n\
             listen = 'tls:127.0.0.1:0'\ncert = '{cert}'\nkey = '{key}'\n"
        ),
    )
    .unwrap();
    let door = Door {
        daemon: Daemon::with(["run", "--config", &file]).through(&PREFERRED).start(),
        certificate,
        nth: 1,
    };
    let handshakes = door.begin_many(MANY);
    door.daemon.usr1_until(|stats| stats.count("tls signing") > 0);
    door.certificate.replace_by(&renewed);
    door.daemon.signal(Signal::SIGHUP);
    door.daemon.stderr_wait("the configuration was read again");
    let handshakes = assert_newest_are_served(handshakes);
    let before = CertificateDer::from_pem_file(rsa.path("cert.pem")).unwrap();
    assert!(handshakes.iter().all(|handshake| handshake.shown() == before));
    let mut later = Handshake(renewed.client(door.socket()));
    assert_eq!(later.ask("later").unwrap(), "later");
    assert_eq!(later.shown(), own.unwrap());
}

#[test]
fn a_daemon_that_drains_completes_what_it_can_in_time_and_ends() {
    let door = Door::new(&[]);
    let mut handshakes = door.begin_many(MANY);
    door.daemon.usr1_until(|stats| stats.count("tls signing") > 0);
    door.daemon.signal(Signal::SIGTERM);
    door.daemon.stderr_wait("draining");
    ask_each(&mut handshakes);
    drop(handshakes);
    assert!(door.daemon.finish().0.success());
}

#[test]
fn a_daemon_that_is_told_to_hurry_waits_for_no_signature() {
    let door = Door::new(&[]);
    let handshakes = door.begin_many(MANY);
    door.daemon.usr1_until(|stats| stats.count("tls signing") > 0);
    door.daemon.signal(Signal::SIGTERM);
    door.daemon.stderr_wait("draining");
    door.daemon.signal(Signal::SIGTERM);
    let (status, _, log) = door.daemon.finish();
    assert!(log.contains("told to end again"), "{log}");
    assert!(status.code().is_some(), "it has ended by itself");
    let unsigned = handshakes.iter().filter(|handshake| {
        let mut first = [0];
        !matches!((&handshake.0.sock).read(&mut first), Ok(1))
    });
    assert_ne!(unsigned.count(), 0);
}

#[test]
fn a_daemon_that_is_replaced_completes_the_handshakes_that_it_has_begun() {
    let installation = Installation::new();
    let door = Door::started(|builder| builder.installed_at(&installation.program()));
    let handshakes = door.begin_many(MANY);
    door.daemon.usr1_until(|stats| stats.count("tls signing") > 0);
    upgrade(&door.daemon, door.daemon.pid(), 1);
    assert_newest_are_served(handshakes);
}
