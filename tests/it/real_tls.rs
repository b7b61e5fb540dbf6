//! The programs by which others reach a door over TLS: s_client of OpenSSL, socat, the client of GnuTLS, stunnel, curl.
//!
//! Each reaches every door by TLS 1.2 and by 1.3, with a certificate of its own and without. The certificates are made
//! by the tests, and trust is never switched off. Where a program is missing its test fails.

use std::fs;
use std::io::Write;
use std::process::Command;

use crate::ask::Asker;
use crate::command::torc;
use crate::exec_client::request;
use crate::harness::{Certificate, Client, Daemon, Program, worker_command};
use crate::real_proxies::{Proxy, haproxy_tls, nginx_tls};
use crate::tls_client_certificates::Authority;

/// The name in the certificate of clients.
const NAME: &str = "peer-1";

// ---- doors -----------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A pool that answers one line on a connection.
    Line,
    /// A pool that keeps connections.
    Lines,
    Session,
    Exec,
    Command,
}

const KINDS: [Kind; 5] = [Kind::Line, Kind::Lines, Kind::Session, Kind::Exec, Kind::Command];

impl Kind {
    /// A request, and the whole answer to it.
    fn talk(self) -> (Vec<u8>, &'static str) {
        match self {
            Kind::Line => (b"echo one\n".into(), "one\n"),
            Kind::Lines => (b"echo one\necho two\n".into(), "one\ntwo\n"),
            Kind::Session => (b"one\n".into(), "got one\n"),
            Kind::Exec => (request(&["/bin/echo", "one"]), "6:stdout,4:one\n,8:exitcode,1:0,"),
            Kind::Command => (b"say\none\n".into(), "torcd>one\n"),
        }
    }

    #[track_caller]
    fn start(self, flags: &[&str]) -> Daemon {
        let worker = worker_command(&[]);
        let session = shell_words::join(["sh", "-c", "read -r line; echo \"got $line\""]);
        let pool = |command: &str, more: &[&str]| {
            let arguments = ["-n", "2", "--queue-timeout", "600s", "-d", command];
            Daemon::with([&arguments[..], more, flags].concat()).start()
        };
        match self {
            Kind::Line => pool(&worker, &[]),
            Kind::Lines => pool(&worker, &["--persistent"]),
            Kind::Session => pool(&session, &["--mode", "session"]),
            // The flags begin with the listener, which stands for itself here.
            Kind::Exec => {
                Daemon::with([&["exec", flags[1], "--allow-program", "/bin/echo"], &flags[2..]].concat()).start()
            }
            Kind::Command => {
                let named = |name: &str| format!("name = '{name}'; cmd = '/bin/echo'; argc = 1; threads = 50;");
                let torc = torc(&[&named("say"), &named("say / HTTP/1.1")]);
                let file = torc.path("torc.cfg");
                Daemon::with([&["command", "--config", file.to_str().unwrap()], flags].concat()).start()
            }
        }
    }
}

/// A daemon with one listener, which speaks TLS.
struct Door {
    daemon: Daemon,
    files: Certificate,
}

/// A certificate for doors, and one for clients, with its key in the same file. `is_asking`: the doors require it.
fn files(is_asking: bool) -> (Certificate, Vec<String>) {
    let (files, authority) = (Certificate::new(), Authority::named("authority"));
    let mut flags = files.flags();
    files.write("clients.pem", &authority.pem);
    files.write("client.pem", &authority.name(NAME).pem());
    if is_asking {
        flags.extend(["--client-ca".to_owned(), files.path("clients.pem")]);
        flags.extend(["--allow-subject", NAME].map(str::to_owned));
    }
    (files, flags)
}

impl Door {
    #[track_caller]
    fn start(kind: Kind, is_asking: bool) -> Self {
        Self::with(kind, is_asking, &[])
    }

    #[track_caller]
    fn with(kind: Kind, is_asking: bool, more: &[&str]) -> Self {
        let (files, flags) = files(is_asking);
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let daemon = kind.start(&flags);
        Self { daemon, files }
    }

    fn reach(&self, version: Version, shows: bool) -> Reach {
        Reach {
            port: self.daemon.addr().port(),
            ca: self.files.path("cert.pem"),
            identity: shows.then(|| self.files.path("client.pem")),
            version,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1_2,
    V1_3,
}

impl Version {
    /// As most programs write it behind `TLSv` and the like.
    fn number(self) -> &'static str {
        match self {
            Version::V1_2 => "1.2",
            Version::V1_3 => "1.3",
        }
    }
}

/// The settings of a client.
#[derive(Debug)]
struct Reach {
    port: u16,
    /// The file of the authorities that it trusts.
    ca: String,
    /// The file of its certificate and key, if it has one.
    identity: Option<String>,
    version: Version,
}

// ---- programs on standard input and output ---------------------------------------------------------------------

/// The command of such a program.
type Peer = fn(&Reach) -> Command;

fn openssl(reach: &Reach) -> Command {
    let mut command = Command::new("openssl");
    let version = match reach.version {
        Version::V1_2 => "-tls1_2",
        Version::V1_3 => "-tls1_3",
    };
    command.args(["s_client", "-quiet", "-no_ign_eof", "-verify_return_error", version]);
    command.args(["-servername", "localhost", "-verify_hostname", "localhost"]);
    command.args(["-connect", &format!("127.0.0.1:{}", reach.port), "-CAfile", &reach.ca]);
    if let Some(identity) = &reach.identity {
        command.args(["-cert", identity, "-key", identity]);
    }
    command
}

fn socat(reach: &Reach) -> Command {
    let mut command = Command::new("socat");
    command.args(["-", &socat_address(reach)]);
    command
}

fn socat_address(reach: &Reach) -> String {
    let (version, port, ca) = (reach.version.number(), reach.port, &reach.ca);
    let own = reach
        .identity
        .as_ref()
        .map_or_else(String::new, |own| format!(",cert={own}"));
    format!(
        "OPENSSL:127.0.0.1:{port},verify=1,cafile={ca},commonname=localhost,snihost=localhost,\
         openssl-min-proto-version=TLS{version},openssl-max-proto-version=TLS{version}{own}"
    )
}

fn gnutls(reach: &Reach) -> Command {
    let mut command = Command::new("gnutls-cli");
    let version = format!("NORMAL:-VERS-ALL:+VERS-TLS{}", reach.version.number());
    command.args([
        "--priority",
        &version,
        "--x509cafile",
        &reach.ca,
        "--logfile",
        "/dev/null",
    ]);
    command.args(["--sni-hostname", "localhost", "--verify-hostname", "localhost"]);
    command.args(["--port", &reach.port.to_string()]);
    if let Some(identity) = &reach.identity {
        command.args(["--x509certfile", identity, "--x509keyfile", identity]);
    }
    command.arg("127.0.0.1");
    command
}

/// Makes a request by a program. Its input stays open until the answer is there: some leave at its end.
#[track_caller]
fn converse(command: &mut Command, kind: Kind) {
    let (says, hears) = kind.talk();
    let mut program = Program::start(command);
    let mut stdin = program.stdin.take().unwrap();
    stdin.write_all(&says).unwrap();
    if kind == Kind::Lines {
        let waited = program.stdout.wait_from(0, |line| line == "two");
        waited.unwrap_or_else(|why| program.fail(&format!("{kind:?}: {why}")));
        drop(stdin);
    }
    let (status, stdout, stderr) = program.finish();
    assert_eq!(stdout, hears.trim_end(), "{kind:?}, {command:?}: {stderr}");
    assert!(status.success(), "{kind:?}, {command:?}: {status}: {stderr}");
}

/// Asserts that a program reaches every door, and that both sides learn why it does not where it should not.
#[track_caller]
fn assert_reaches_every_door(peer: Peer) {
    for kind in KINDS {
        for is_asking in [false, true] {
            let door = Door::start(kind, is_asking);
            for version in [Version::V1_2, Version::V1_3] {
                converse(&mut peer(&door.reach(version, is_asking)), kind);
            }
            let stats = door.daemon.usr1_until(|stats| stats.count("connections") == 0);
            let counted = ["tls handshakes", "tls failed", "tls cut", "refused tls"].map(|row| stats.count(row));
            assert_eq!(counted, [2, 0, 0, 0], "{kind:?}");
        }
    }
}

/// Asserts that the log of a door tells why a program does not reach it.
#[track_caller]
fn assert_door_tells_why(peer: Peer) {
    for version in [Version::V1_2, Version::V1_3] {
        let door = Door::start(Kind::Line, true);
        let (stranger, namesake) = (Authority::named("stranger"), Authority::named("authority"));
        let stranger_pem = door.files.write("stranger.pem", &stranger.pem);
        let identity = |name: &str, authority: &Authority| door.files.write(name, &authority.name(NAME).pem());
        let reach = |identity: Option<String>| Reach {
            identity,
            ..door.reach(version, true)
        };
        let mistrustful = Reach {
            ca: stranger_pem,
            ..door.reach(version, true)
        };
        for (reach, reason) in [
            (reach(None), "it sends no certificate, which --client-ca asks for"),
            (
                reach(Some(identity("foreign.pem", &stranger))),
                "its certificate comes from no authority that is trusted here",
            ),
            (
                reach(Some(identity("namesake.pem", &namesake))),
                "which then comes from another authority of the same name",
            ),
            (
                mistrustful,
                "it does not trust the authority of this side's certificate (alert UnknownCA)",
            ),
        ] {
            let mut program = Program::start(&mut peer(&reach));
            let mut stdin = program.stdin.take().unwrap();
            // It may have ended already.
            stdin.write_all(b"echo one\n").ok();
            // socat says nothing of an alert that comes behind the handshake.
            let (_, stdout, stderr) = program.finish();
            assert_eq!(stdout, "", "{stderr}");
            door.daemon.stderr_wait(reason);
        }
        assert_eq!(door.daemon.usr1().count("queries total"), 0);
    }
}

#[test]
fn openssl_reaches_every_door() {
    assert_reaches_every_door(openssl);
}

#[test]
fn socat_reaches_every_door() {
    assert_reaches_every_door(socat);
}

/// Its input ends before the first answer, and it passes that on as the end of TLS.
#[test]
fn socat_gets_all_answers_behind_its_half_close() {
    for is_asking in [false, true] {
        let door = Door::start(Kind::Lines, is_asking);
        for version in [Version::V1_2, Version::V1_3] {
            let address = socat_address(&door.reach(version, is_asking));
            // `-t`: the time that it gives the other side to end.
            let mut program = Program::start(Command::new("socat").args(["-t", "600", "-", &address]));
            program.stdin.take().unwrap().write_all(&Kind::Lines.talk().0).unwrap();
            let (status, stdout, stderr) = program.finish();
            assert!(status.success(), "{status}: {stderr}");
            assert_eq!(stdout, "one\ntwo", "{stderr}");
        }
    }
}

#[test]
fn gnutls_reaches_every_door() {
    assert_reaches_every_door(gnutls);
}

#[test]
fn the_door_tells_why_openssl_does_not_reach_it() {
    assert_door_tells_why(openssl);
}

#[test]
fn the_door_tells_why_socat_does_not_reach_it() {
    assert_door_tells_why(socat);
}

// ---- curl ------------------------------------------------------------------------------------------------------

/// The arguments by which curl, which says a method and a path first, makes a request of a door, and a part of the answer.
fn curl_talk(kind: Kind) -> (&'static [&'static str], &'static str) {
    match kind {
        Kind::Line => (&["-X", "echo"], "/ HTTP/1.1"),
        Kind::Session => (&[], "got GET / HTTP/1.1"),
        // The last argument reaches to the end of the head.
        Kind::Exec => (
            &["-0", "-X", "1:2,9:/bin/echo,18:one", "--data-binary", ",0:,"],
            "6:stdout,19:one / HTTP/1.0",
        ),
        Kind::Command => (&["-X", "say"], "torcd>Host: localhost:"),
        Kind::Lines => (&[], ""),
    }
}

fn curl(reach: &Reach, talk: &[&str]) -> Command {
    let mut command = Command::new("curl");
    let (version, port) = (reach.version.number(), reach.port);
    command.args(["-q", "-sS", "--noproxy", "*", "--http0.9", "--cacert", &reach.ca]);
    command.args([&format!("--tlsv{version}"), "--tls-max", version]);
    if let Some(identity) = &reach.identity {
        command.args(["--cert", identity]);
    }
    if talk.contains(&"-0") {
        // Nothing stands between the first line and the body.
        let fields = ["Host:", "User-Agent:", "Accept:", "Content-Type:", "Content-Length:"];
        command.args(fields.iter().flat_map(|field| ["-H", field]));
    }
    command.args(["--resolve", &format!("localhost:{port}:127.0.0.1")]);
    command.args(talk).arg(format!("https://localhost:{port}/"));
    command
}

#[test]
fn curl_reaches_every_door_that_ends_the_connection() {
    for kind in KINDS.into_iter().filter(|kind| *kind != Kind::Lines) {
        let (says, hears) = curl_talk(kind);
        for is_asking in [false, true] {
            let door = Door::start(kind, is_asking);
            for version in [Version::V1_2, Version::V1_3] {
                let (status, stdout, stderr) =
                    Program::start(&mut curl(&door.reach(version, is_asking), says)).finish();
                assert!(stdout.contains(hears), "{kind:?}: {stdout}: {stderr}");
                assert!(status.success(), "{kind:?}: {status}: {stderr}");
                if is_asking {
                    let (status, stdout, _) = Program::start(&mut curl(&door.reach(version, false), says)).finish();
                    assert_eq!((status.success(), stdout.as_str()), (false, ""));
                }
            }
        }
    }
}

// ---- programs in front -----------------------------------------------------------------------------------------

fn stunnel(reach: &Reach) -> Proxy {
    let (port, ca, version) = (reach.port, &reach.ca, reach.version.number());
    let own = reach
        .identity
        .as_ref()
        .map_or_else(String::new, |own| format!("cert = {own}\nkey = {own}\n"));
    let configure = |[listens]: [u16; 1]| {
        format!(
            "foreground = yes\nsyslog = no\npid =\n[door]\nclient = yes\naccept = 127.0.0.1:{listens}\n\
             connect = 127.0.0.1:{port}\nsslVersion = TLSv{version}\nsni = localhost\ncheckHost = localhost\n\
             verifyChain = yes\nCAfile = {ca}\n{own}"
        )
    };
    Proxy::start("stunnel4", configure, |command, file| {
        command.arg(file);
    })
}

/// Asserts that clients without TLS reach every door by a program in front of it that speaks TLS with the door.
#[track_caller]
fn assert_leads_to_every_door(flags: &[&str], lead: impl Fn(&Door, Version, bool) -> Proxy) {
    for kind in KINDS {
        for is_asking in [false, true] {
            let door = Door::with(kind, is_asking, flags);
            for version in [Version::V1_2, Version::V1_3] {
                let proxy = lead(&door, version, is_asking);
                let mut client = Client::connect(&proxy.addresses[0]);
                let (says, hears) = kind.talk();
                client.send(says);
                client.read_text(hears);
                client.half_close();
                assert_eq!(client.read_to_end_or_reset(), b"", "{kind:?}");
            }
            let stats = door.daemon.usr1_until(|stats| stats.count("connections") == 0);
            let counted = ["tls handshakes", "tls failed", "tls cut", "refused tls"].map(|row| stats.count(row));
            assert_eq!(counted, [2, 0, 0, 0], "{kind:?}");
        }
    }
}

#[test]
fn stunnel_leads_to_every_door() {
    assert_leads_to_every_door(&[], |door, version, shows| stunnel(&door.reach(version, shows)));
}

#[test]
fn haproxy_leads_to_every_door() {
    assert_leads_to_every_door(&["--accept-proxy", "127.0.0.1"], |door, version, shows| {
        let (tls, version) = (haproxy_tls(&door.files, shows), version.number());
        let words = format!("{tls} ssl-min-ver TLSv{version} ssl-max-ver TLSv{version} send-proxy-v2");
        Proxy::haproxy(&door.daemon, [&words])
    });
}

#[test]
fn nginx_leads_to_every_door() {
    assert_leads_to_every_door(&["--accept-proxy", "127.0.0.1"], |door, version, shows| {
        let version = format!("TLSv{}", version.number());
        Proxy::nginx(&door.daemon, "", &nginx_tls(&door.files, &version, shows))
    });
}

// ---- one matter at a time --------------------------------------------------------------------------------------

/// Makes a request on a connection of its own by s_client with these arguments. Returns all that it said.
#[track_caller]
fn s_client(door: &Door, arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    let address = door.daemon.addr().to_string();
    command.args(["s_client", "-connect", &address, "-verify_return_error", "-ign_eof"]);
    let mut program = Program::start(command.args(arguments));
    program.stdin.take().unwrap().write_all(b"echo one\n").unwrap();
    let (status, stdout, stderr) = program.finish();
    assert!(
        status.success() && stdout.contains("one"),
        "{arguments:?}: {stdout}\n{stderr}"
    );
    stdout
}

#[test]
fn openssl_resumes_a_session_from_a_file() {
    for is_asking in [false, true] {
        let door = Door::start(Kind::Line, is_asking);
        let (ca, own, session) = (
            door.files.path("cert.pem"),
            door.files.path("client.pem"),
            door.files.path("session"),
        );
        let shown = ["-CAfile", &ca, "-servername", "localhost", "-cert", &own, "-key", &own];
        for (number, version) in (1..).zip(["-tls1_2", "-tls1_3"]) {
            let first = s_client(&door, &[&shown[..], &[version, "-sess_out", &session]].concat());
            assert!(first.contains("New, TLSv1."), "{first}");
            let second = s_client(&door, &[&shown[..], &[version, "-sess_in", &session]].concat());
            assert!(second.contains("Reused, TLSv1."), "{second}");
            let stats = door.daemon.usr1();
            let counted = (stats.count("tls handshakes"), stats.count("tls resumed"));
            assert_eq!(counted, (2 * number, number), "{version}");
        }
    }
}

#[test]
fn the_name_that_a_client_asks_for_chooses_its_certificate() {
    let files = Certificate::new();
    let mut flags = files.flags();
    for name in ["a.example", "*.b.example"] {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let both = made.cert.pem() + &made.signing_key.serialize_pem();
        let file = files.write(&name.replace('*', "any"), &both);
        flags.extend(["--cert", &file, "--key", &file].map(str::to_owned));
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = Kind::Line.start(&flags);
    let door = Door { daemon, files };
    for (asked, is_for, file) in [
        ("a.example", "a.example", "a.example"),
        ("A.Example", "a.example", "a.example"),
        ("x.b.example", "x.b.example", "any.b.example"),
        ("c.example", "localhost", "cert.pem"),
        ("x.y.b.example", "localhost", "cert.pem"),
    ] {
        let ca = door.files.path(file);
        let arguments = ["-servername", asked, "-verify_hostname", is_for, "-CAfile", &ca];
        s_client(&door, &arguments);
    }
    let ca = door.files.path("cert.pem");
    s_client(
        &door,
        &["-noservername", "-verify_hostname", "localhost", "-CAfile", &ca],
    );
}

/// Makes the authority's answer of OCSP about the certificate in `server.pem`, and puts it where the daemon looks for it.
#[track_caller]
fn answer_by_ocsp(files: &Certificate) {
    let path = |name: &str| files.path(name);
    let openssl = |arguments: &[&str]| {
        let (status, stdout, stderr) = Program::start(Command::new("openssl").args(arguments)).finish();
        assert!(status.success(), "{arguments:?}: {stderr}");
        stdout
    };
    let serial = openssl(&["x509", "-noout", "-serial", "-in", &path("server.pem")]);
    let serial = serial.trim_start_matches("serial=");
    let index = files.write(
        "index",
        &format!("V\t491231235959Z\t\t{serial}\tunknown\t/CN=localhost\n"),
    );
    let (ca, key) = (path("ca.pem"), path("ca.key"));
    let signed = ["-index", &index, "-CA", &ca, "-rsigner", &ca, "-rkey", &key];
    let asked = ["-issuer", &ca, "-cert", &path("server.pem"), "-ndays", "7", "-noverify"];
    openssl(&[&["ocsp"], &signed[..], &asked, &["-respout", &path("server.pem.ocsp")]].concat());
}

#[test]
fn the_answer_of_ocsp_is_good_for_openssl_and_for_curl() {
    let (files, authority) = (Certificate::new(), Authority::named("authority"));
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
    // curl looks for the authority in the chain that it is sent.
    let chain = authority.identify(&params).pem() + &authority.pem;
    let server = files.write("server.pem", &chain);
    let ca = files.write("ca.pem", &authority.pem);
    files.write("ca.key", &authority.key_pem());
    answer_by_ocsp(&files);
    let daemon = Kind::Line.start(&["--listen", "tls:127.0.0.1:0", "--cert", &server, "--key", &server]);
    let door = Door { daemon, files };
    let said = s_client(&door, &["-status", "-servername", "localhost", "-CAfile", &ca]);
    assert!(said.contains("OCSP Response Status: successful"), "{said}");
    assert!(said.contains("Cert Status: good"), "{said}");
    let reach = Reach {
        ca,
        ..door.reach(Version::V1_3, false)
    };
    let talk = ["--cert-status", "-X", "echo"];
    let (status, stdout, stderr) = Program::start(&mut curl(&reach, &talk)).finish();
    assert!(status.success() && stdout.contains("/ HTTP/1.1"), "{stdout}: {stderr}");
}

// ---- `ask`, with TLS that others speak for a pool --------------------------------------------------------------

/// The words for a program that speaks TLS in front of a pool without it, with clients that show a certificate.
#[derive(Debug)]
struct Wrapping<'a> {
    pool: &'a Daemon,
    /// The file of its certificate and key.
    own: String,
    /// The file of the authority of its clients.
    clients: String,
}

type Wrap = fn(&Wrapping<'_>) -> Proxy;

fn socat_server(Wrapping { pool, own, clients }: &Wrapping<'_>) -> Proxy {
    let to = format!("TCP:{}", pool.addr());
    let configure = |[listens]: [u16; 1]| {
        format!("OPENSSL-LISTEN:{listens},bind=127.0.0.1,fork,reuseaddr,cert={own},cafile={clients},verify=1")
    };
    Proxy::start("socat", configure, |command, file| {
        let listen = fs::read_to_string(file).unwrap();
        command.args(["-t", "600", &listen, &to]);
    })
}

fn stunnel_server(Wrapping { pool, own, clients }: &Wrapping<'_>) -> Proxy {
    let to = pool.addr();
    let configure = |[listens]: [u16; 1]| {
        format!(
            "foreground = yes\nsyslog = no\npid =\n[pool]\naccept = 127.0.0.1:{listens}\nconnect = {to}\n\
             cert = {own}\nkey = {own}\nCAfile = {clients}\nverifyChain = yes\n"
        )
    };
    Proxy::start("stunnel4", configure, |command, file| {
        command.arg(file);
    })
}

fn haproxy_server(Wrapping { pool, own, clients }: &Wrapping<'_>) -> Proxy {
    let bind = format!("ssl crt {own} ca-file {clients} verify required");
    Proxy::haproxy_bound(pool, &bind, [""])
}

fn nginx_server(Wrapping { pool, own, clients }: &Wrapping<'_>) -> Proxy {
    let lines = format!(
        "ssl_certificate {own};\nssl_certificate_key {own};\nssl_client_certificate {clients};\nssl_verify_client on;\n"
    );
    Proxy::nginx(pool, "ssl", &lines)
}

#[track_caller]
fn assert_ask_passes(wrap: Wrap) {
    let (files, _) = files(true);
    let pool = Daemon::pool(2, &worker_command(&[]), &["--queue-timeout", "600s"]);
    let both = ["cert.pem", "key.pem"].map(|name| fs::read_to_string(files.path(name)).unwrap());
    let wrapping = Wrapping {
        pool: &pool,
        own: files.write("server.pem", &both.concat()),
        clients: files.path("clients.pem"),
    };
    let proxy = wrap(&wrapping);
    let (ca, own) = (files.path("cert.pem"), files.path("client.pem"));
    let address = format!("tls:localhost:{}", proxy.addresses[0].port());
    for connections in ["0", "1"] {
        let flags = ["--connections", connections, "--ca", &ca, &address];
        let mut asker = Asker::start(&[&flags[..], &["--timeout", "600s", "--cert", &own]].concat());
        for number in 0..10 {
            assert_eq!(asker.ask(&format!("echo {number}")), number.to_string());
        }
        let (status, rest, stderr) = asker.end();
        assert_eq!((status, rest), (Some(0), Vec::new()), "{stderr}");
        // nginx refuses it by an end like that of a server which restarts, so it is tried for some time.
        let mut nameless = Asker::start(&[&flags[..], &["--timeout", "1s"]].concat());
        assert_eq!(nameless.ask("echo never"), "ERR");
        assert_eq!(nameless.end().0, Some(1));
    }
    let stats = pool.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("queries replied"), stats.count("queries failed")), (20, 0));
}

#[test]
fn ask_passes_by_socat() {
    assert_ask_passes(socat_server);
}

#[test]
fn ask_passes_by_stunnel() {
    assert_ask_passes(stunnel_server);
}

#[test]
fn ask_passes_by_haproxy() {
    assert_ask_passes(haproxy_server);
}

/// The words of a proxy about the certificate of its client are shown, and nothing depends on them.
#[test]
fn haproxy_that_speaks_tls_tells_the_version_and_the_subject_of_its_client() {
    let (files, _) = files(true);
    let flags = ["--persistent", "--queue-timeout", "600s", "--accept-proxy", "127.0.0.1"];
    let pool = Daemon::pool(2, &worker_command(&[]), &flags);
    let both = ["cert.pem", "key.pem"].map(|name| fs::read_to_string(files.path(name)).unwrap());
    let (own, clients) = (files.write("server.pem", &both.concat()), files.path("clients.pem"));
    let bind = format!("ssl crt {own} ca-file {clients} verify required");
    let proxy = Proxy::haproxy_bound(&pool, &bind, ["send-proxy-v2-ssl-cn"]);
    for version in [Version::V1_2, Version::V1_3] {
        let reach = Reach {
            port: proxy.addresses[0].port(),
            ca: files.path("cert.pem"),
            identity: Some(files.path("client.pem")),
            version,
        };
        let mut program = Program::start(&mut openssl(&reach));
        program.stdin.as_mut().unwrap().write_all(b"echo one\n").unwrap();
        program.stdout.wait_from(0, |line| line == "one").unwrap();
        let shown = format!(", with \"TLSv{}\", subject \"{NAME}\")", version.number());
        let dump = pool.usr2();
        let is_shown = |line: &String| line.contains("client = 127.0.0.1:") && line.ends_with(&shown);
        assert!(dump.iter().any(is_shown), "{shown}: {dump:#?}");
    }
}

#[test]
fn haproxy_that_speaks_tls_on_both_sides_is_told_from_its_client() {
    let authority = Authority::named("authority");
    let (door, clients) = {
        let door = Door::with(Kind::Lines, true, &["--accept-proxy", "127.0.0.1"]);
        let clients = door.files.write("authority.pem", &authority.pem);
        (door, clients)
    };
    let both = ["cert.pem", "key.pem"].map(|name| fs::read_to_string(door.files.path(name)).unwrap());
    let own = door.files.write("server.pem", &both.concat());
    let bind = format!("ssl crt {own} ca-file {clients} verify required");
    let server = format!("{} send-proxy-v2-ssl-cn", haproxy_tls(&door.files, true));
    let proxy = Proxy::haproxy_bound(&door.daemon, &bind, [&server]);
    let reach = Reach {
        port: proxy.addresses[0].port(),
        identity: Some(door.files.write("browser.pem", &authority.name("browser").pem())),
        ..door.reach(Version::V1_2, true)
    };
    let mut program = Program::start(&mut openssl(&reach));
    program.stdin.as_mut().unwrap().write_all(b"echo one\n").unwrap();
    program.stdout.wait_from(0, |line| line == "one").unwrap();
    let dump = door.daemon.usr2();
    let shown = ", with \"TLSv1.2\", subject \"browser\", TLSv1.3, subject \"CN=peer-1\")";
    assert!(dump.iter().any(|line| line.ends_with(shown)), "{dump:#?}");
}

#[test]
fn ask_passes_by_nginx() {
    assert_ask_passes(nginx_server);
}
