//! TLS that ends at the route door: for servers that speak none, and for other doors of the process. Each client asks for
//! the name of its certificate.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::exec_client::request;
use crate::harness::{
    BLOCKED_DOMAIN, Certificate, Client, Daemon, Gate, Installation, Program, SquidGuard, worker_command,
};
use crate::real_proxies::Proxy;
use crate::route_doors::{Doors, pool, route, service};
use crate::route_peers::{Backend, UNRECOGNIZED_NAME, hello};
use crate::upgrade::upgrade;

/// The key of a service whose TLS ends with this certificate, and more of its keys.
fn tls(certificate: &Certificate, more: &str) -> String {
    let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    format!("tls = {{ cert = '{cert}', key = '{key}'{more} }}\n")
}

/// The keys of a server without TLS.
fn at(backend: &Backend) -> String {
    format!("addr = '127.0.0.1'\nhttp-port = {}\n", backend.address().port())
}

/// A client that has made its handshake.
#[track_caller]
fn secured(daemon: &Daemon, certificate: &Certificate) -> Client {
    Client::connect(&daemon.addr()).secure(certificate)
}

/// A door whose one service, `localhost`, leads to this server.
#[track_caller]
fn before(backend: &Backend, certificate: &Certificate, keys: &str) -> (Daemon, Doors) {
    let keys = [&tls(certificate, ""), &at(backend), keys].concat();
    let doors = Doors::new(&[route(""), service("localhost", &keys)].concat());
    (doors.start(), doors)
}

/// The bytes of a client up to its hello, with a socket on which they are not sent yet.
#[track_caller]
fn hello_of(
    daemon: &Daemon,
    certificate: &Certificate,
) -> (Vec<u8>, rustls::StreamOwned<rustls::ClientConnection, TcpStream>) {
    let address = daemon.addr().to_string();
    let mut client = certificate.client(TcpStream::connect(address).unwrap());
    let mut hello = Vec::new();
    client.conn.write_tls(&mut hello).unwrap();
    (hello, client)
}

// ---- servers ---------------------------------------------------------------------------------------------------

#[test]
fn the_server_gets_what_the_client_says_by_tls_and_each_end_is_passed_on() {
    let (backend, certificate) = (Backend::new(), Certificate::new());
    let (daemon, _doors) = before(&backend, &certificate, "");
    let mut client = secured(&daemon, &certificate);
    client.send("ping");
    let mut served = backend.accept();
    served.expect("ping");
    served.send("pong");
    client.read_text("pong");
    client.half_close();
    assert_eq!(served.read_to_end(), b"");
    served.send("behind the end of the client");
    drop(served);
    assert_eq!(client.read_to_end(), b"behind the end of the client");

    // The server may speak first, and end first.
    let mut client = secured(&daemon, &certificate);
    let mut served = backend.accept();
    served.send("welcome");
    client.read_text("welcome");
    served.half_close();
    assert_eq!(client.read_to_end(), b"");
    client.send("behind the end of the server");
    client.half_close();
    assert_eq!(served.read_to_end(), b"behind the end of the server");
    drop(served);
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("tls handshakes"), stats.count("routes tls")), (2, 2));
    assert_eq!((stats.count("tls cut"), stats.count("tls failed")), (0, 0));
    assert_eq!(
        (stats.count("bytes in"), stats.count("bytes out")),
        (4 + 28, 4 + 28 + 7)
    );
    assert_eq!(stats.count("bytes spliced"), 0);
}

#[test]
fn many_bytes_come_whole_both_ways() {
    let (backend, certificate) = (Backend::new(), Certificate::new());
    let (daemon, _doors) = before(&backend, &certificate, "");
    let mut client = secured(&daemon, &certificate);
    let mut served = backend.accept();
    let bytes: Vec<u8> = (0..8_000_000_u32)
        .map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let echo = std::thread::spawn(move || {
        let mut sender = served.stream.try_clone().unwrap();
        std::io::copy(&mut served.stream, &mut sender).unwrap();
    });
    assert!(client.exchange(&bytes) == bytes);
    echo.join().unwrap();
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("tls cut"), 0);
}

#[test]
fn the_end_is_said_to_a_client_that_reads_slowly() {
    let (backend, certificate) = (Backend::new(), Certificate::new());
    let (daemon, _doors) = before(&backend, &certificate, "");
    let mut client = secured(&daemon, &certificate);
    client.half_close();
    let mut served = backend.accept();
    assert_eq!(served.read_to_end(), b"");
    let bytes = vec![7; 20_000_000];
    let sending = std::thread::spawn(move || {
        served.send(&bytes);
        bytes.len()
    });
    daemon.usr1_until(|stats| stats.count("bytes out") > 1_000_000);
    // A missing close_notify would be an error.
    assert_eq!(client.read_to_end().len(), sending.join().unwrap());
}

#[test]
fn a_client_that_is_cut_is_no_client_that_has_ended() {
    let (backend, certificate) = (Backend::new(), Certificate::new());
    let (daemon, _doors) = before(&backend, &certificate, "");
    let mut client = secured(&daemon, &certificate);
    client.send("a part");
    let mut served = backend.accept();
    served.expect("a part");
    drop(client);
    served.expect_reset();
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("tls cut"), stats.count("relay cut client")), (1, 1));
    let mut client = secured(&daemon, &certificate);
    let mut served = backend.accept();
    client.send("question");
    served.expect("question");
    served.reset();
    client.expect_reset();
}

#[test]
fn a_hello_in_pieces_and_a_request_right_behind_the_handshake_are_read() {
    let (backend, certificate) = (Backend::new(), Certificate::new());
    let (daemon, _doors) = before(&backend, &certificate, "");
    let (hello, mut client) = hello_of(&daemon, &certificate);
    client.sock.set_nodelay(true).unwrap();
    for byte in hello {
        client.sock.write_all(&[byte]).unwrap();
    }
    // The rest of the handshake and the request leave together.
    client.write_all(b"request").unwrap();
    client.flush().unwrap();
    backend.accept().expect("request");
}

#[test]
fn a_handshake_with_a_slow_key_is_signed_by_a_thread() {
    let (backend, certificate) = (Backend::new(), Certificate::rsa());
    let (daemon, _doors) = before(&backend, &certificate, "");
    let clients: Vec<_> = (0..5).map(|_| hello_of(&daemon, &certificate)).collect();
    for (hello, client) in &clients {
        (&client.sock).write_all(hello).unwrap();
    }
    for (_, mut client) in clients {
        client.write_all(b"request").unwrap();
        backend.accept().expect("request");
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("tls handshakes"), stats.count("tls signing")), (5, 0));
}

#[test]
fn a_server_learns_of_the_name_and_the_agreed_protocol_by_a_header() {
    let (backend, certificate) = (Backend::new(), Certificate::new());
    let (daemon, _doors) = before(&backend, &certificate, "alpn = 'h2'\nsend-proxy = 'v2'");
    let mut client = certificate.client(TcpStream::connect(daemon.addr().to_string()).unwrap());
    client.conn = certificate.connection_offering(&["http/1.1", "h2"]);
    client.write_all(b"request").unwrap();
    let mut served = backend.accept();
    // Both addresses, and two fields of three bytes and their text.
    let length = 12 + 3 + 2 + 3 + 9;
    served.expect(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0");
    served.expect([length, 127, 0, 0, 1, 127, 0, 0, 1]);
    let ports = [client.sock.local_addr().unwrap().port(), daemon.addr().port()];
    served.expect(ports.map(u16::to_be_bytes).concat());
    served.expect(b"\x01\0\x02h2\x02\0\x09localhost");
    served.expect("request");
}

#[test]
fn a_client_that_fails_its_handshake_is_counted_and_told_and_hinders_no_other() {
    let (backend, certificate) = (Backend::new(), Certificate::new());
    let (daemon, _doors) = before(&backend, &certificate, "");
    // A hello that no client of TLS sends: it has no key.
    let mut wrong = Client::connect(&daemon.addr());
    wrong.send(hello("localhost"));
    wrong.read_to_end_or_reset();
    daemon.stderr_wait(": its TLS handshake fails: ");
    let mut left = Client::connect(&daemon.addr());
    left.send(hello_of(&daemon, &certificate).0);
    drop(left);
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0 && stats.count("refused tls") >= 2);
    assert_eq!(stats.count("tls waiting"), 0);
    assert!(!backend.has_connection());
    secured(&daemon, &certificate).send("ping");
    backend.accept().expect("ping");
}

#[test]
fn a_server_that_cannot_be_reached_ends_the_client_without_the_end_of_tls() {
    let certificate = Certificate::new();
    let backend = Backend::new();
    let keys = [tls(&certificate, ""), at(&backend)].concat();
    drop(backend);
    let doors = Doors::new(&[route(""), service("localhost", &keys)].concat());
    let daemon = doors.start();
    let mut client = secured(&daemon, &certificate);
    client.expect_cut();
    daemon.stderr_wait("was not served: server 127.0.0.1:");
}

#[test]
fn curl_reaches_a_plain_nginx_by_several_names_with_a_certificate_each() {
    let configure = |[port]: [u16; 1]| {
        format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\n\
             scgi_temp_path scgi;\nserver {{\nlisten 127.0.0.1:{port} proxy_protocol;\n\
             location / {{ return 200 \"$http_host for $proxy_protocol_addr, over http\"; }}\n}}\n}}\n"
        )
    };
    let server = Proxy::start("nginx", configure, |command, file| {
        command.args(["-e", "stderr", "-p", ".", "-c", file]);
    });
    let names = ["localhost", "a.example", "b.example"];
    let certificates = names.map(Certificate::of_host);
    let port = server.addresses[0].port();
    let services = names.iter().zip(&certificates).map(|(name, certificate)| {
        let keys = format!("addr = '127.0.0.1'\nhttp-port = {port}\nsend-proxy = 'v2'\n");
        service(name, &[tls(certificate, ""), keys].concat())
    });
    let doors = Doors::new(&[route(""), services.collect()].concat());
    let daemon = doors.start();
    for (name, certificate) in names.iter().zip(&certificates) {
        for flags in [&["--http1.1"][..], &["--http2"], &["--tls-max", "1.2"]] {
            let (status, answer) = curl(&daemon, name, certificate, flags);
            assert_eq!(status, Some(0), "{answer}");
            assert!(
                answer.starts_with(&format!("{name}:")) && answer.contains(" for 127.0.0.1, "),
                "{answer}"
            );
        }
    }
    let (status, told) = curl(&daemon, "a.example", &certificates[2], &[]);
    assert_ne!(status, Some(0), "the certificate of another name: {told}");
}

/// The exit status and the answer of curl for this name.
#[track_caller]
fn curl(daemon: &Daemon, name: &str, certificate: &Certificate, flags: &[&str]) -> (Option<i32>, String) {
    let port = daemon.addr().port();
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]);
    command.args(["--resolve", &format!("{name}:{port}:127.0.0.1")]);
    command.args(["--cacert", &certificate.path("cert.pem")]);
    command.args(flags).arg(format!("https://{name}:{port}/"));
    let (status, output, errors) = Program::start(&mut command).finish();
    (status.code(), output + &errors)
}

#[test]
fn an_entry_for_a_protocol_agrees_on_it() {
    let [h2, other] = std::array::from_fn(|_| Backend::new());
    let certificate = Certificate::new();
    let entry = |keys: &str, backend: &Backend| {
        let keys = [keys, &tls(&certificate, ""), &at(backend)].concat();
        format!("[[route.web.services.localhost]]\n{keys}\n")
    };
    let text = [route(""), entry("alpn = 'h2'\n", &h2), entry("", &other)];
    let doors = Doors::new(&text.concat());
    let daemon = doors.start();
    for (offered, agreed, backend) in [
        (&["h2", "http/1.1"][..], Some("h2"), &h2),
        (&["http/1.1"], None, &other),
        (&[], None, &other),
    ] {
        let mut client = certificate.client(TcpStream::connect(daemon.addr().to_string()).unwrap());
        client.conn = certificate.connection_offering(offered);
        client.write_all(b"ping").unwrap();
        backend.accept().expect("ping");
        let found = client
            .conn
            .alpn_protocol()
            .map(|it| String::from_utf8_lossy(it).into_owned());
        assert_eq!(found.as_deref(), agreed);
    }
}

#[test]
fn a_certificate_that_is_replaced_is_shown_without_a_restart() {
    let (backend, old, new) = (Backend::new(), Certificate::new(), Certificate::new());
    let (daemon, _doors) = before(&backend, &old, "");
    let mut up = secured(&daemon, &old);
    let mut served = backend.accept();
    old.replace_by(&new);
    daemon.stderr_wait("was read again: it is for localhost");
    secured(&daemon, &new).send("by the new one");
    backend.accept().expect("by the new one");
    up.send("still up");
    served.expect("still up");
}

// ---- certificates of clients -----------------------------------------------------------------------------------

#[test]
fn a_client_needs_a_certificate_where_the_service_asks_for_one_and_comes_by_no_other_way() {
    let (backend, certificate) = (Backend::new(), Certificate::of_clients("squid-1"));
    let ca = format!(
        ", client-ca = '{}', allow-subject = 'squid-*'",
        certificate.path("cert.pem")
    );
    let keys = [tls(&certificate, &ca), at(&backend)].concat();
    let doors = Doors::new(&[route("debug = true"), service("localhost", &keys)].concat());
    let daemon = doors.start();
    secured(&daemon, &certificate).send("ping");
    backend.accept().expect("ping");
    daemon.stderr_wait("subject \"CN=squid-1\"");
    let mut without = certificate.client_of(
        &rustls::version::TLS13,
        TcpStream::connect(daemon.addr().to_string()).unwrap(),
    );
    without.write_all(b"ping").ok();
    daemon.stderr_wait("it sends no certificate, which --client-ca asks for");
    let mut request = Client::connect(&daemon.nth_addr(2));
    request.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = String::from_utf8_lossy(&request.read_to_end()).into_owned();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(!backend.has_connection());
    // The names are another list now: a session of before is judged by it.
    doors.write(&[route(""), service("localhost", &keys.replace("squid-*", "mail-*"))].concat());
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    let _refused = secured(&daemon, &certificate);
    daemon.stderr_wait("which --allow-subject does not name");
    assert!(!backend.has_connection());
}

// ---- other doors -----------------------------------------------------------------------------------------------

#[test]
fn https_by_name_reaches_pools_with_a_certificate_each() {
    let names = ["a.example", "b.example", "c.example"];
    let certificates = names.map(Certificate::of_host);
    let mut text = route("");
    for (number, certificate) in certificates.iter().enumerate() {
        let keys = format!("{}door = 'pool{number}'", tls(certificate, ""));
        text += &service(names[number], &keys);
        text += &pool(&format!("pool{number}"), "persistent = true");
    }
    let doors = Doors::new(&text);
    let daemon = doors.start();
    for (number, certificate) in certificates.iter().enumerate() {
        let mut client = secured(&daemon, certificate);
        for request in 0..20 {
            client.send(format!("echo {number} {request}\n"));
            assert_eq!(client.read_line(), format!("{number} {request}"));
        }
        client.half_close();
        assert_eq!(client.read_to_end(), b"");
        let stats = daemon.usr1_of(&format!("pool{number}"));
        assert_eq!(stats.count("queries replied"), 20);
    }
    let mut unknown = Client::connect(&daemon.addr());
    unknown.send(hello("d.example"));
    assert_eq!(unknown.read_to_end(), UNRECOGNIZED_NAME);
    let stats = daemon.usr1_of("web");
    assert_eq!(
        (stats.count("tls handshakes"), stats.count("routes handed over")),
        (3, 3)
    );
}

#[test]
fn https_by_name_reaches_a_pool_of_squidguard() {
    let guard = SquidGuard::redirecting_to("302:http://127.0.0.1/blocked?u=%u");
    let certificates = ["filter.example", "other.example"].map(Certificate::of_host);
    let filter = format!(
        "[pool.filter]\nhanded-over = true\nnum-daemons = 2\nqueue-timeout = '600s'\ndaemon = '''{}'''\n",
        guard.command()
    );
    let text = [
        route(""),
        service(
            "filter.example",
            &format!("{}door = 'filter'", tls(&certificates[0], "")),
        ),
        service("other.example", &format!("{}door = 'echo'", tls(&certificates[1], ""))),
        filter,
        pool("echo", ""),
    ];
    let doors = Doors::new(&text.concat());
    let daemon = doors.start();
    for number in 0..20 {
        let mut client = secured(&daemon, &certificates[0]);
        client.send(format!("http://{BLOCKED_DOMAIN}/{number} 10.0.0.1/- - GET\n"));
        let expected = format!("OK status=302 url=\"http://127.0.0.1/blocked?u=http://{BLOCKED_DOMAIN}/{number}\"\n");
        assert_eq!(String::from_utf8_lossy(&client.read_to_end()), expected);
        let mut client = secured(&daemon, &certificates[0]);
        client.send("http://www.example.org/ 10.0.0.1/- - GET\n");
        assert_eq!(client.read_to_end(), b"ERR\n");
    }
    let mut client = secured(&daemon, &certificates[1]);
    client.send("echo hello\n");
    assert_eq!(client.read_to_end(), b"hello\n");
    assert_eq!(daemon.usr1_of("filter").count("queries replied"), 40);
}

#[test]
fn an_exec_door_gets_clients_whose_tls_has_ended() {
    let certificate = Certificate::of_clients("admin");
    let ca = format!(", client-ca = '{}'", certificate.path("cert.pem"));
    let text = [
        route(""),
        service("localhost", &format!("{}door = 'run'", tls(&certificate, &ca))),
        "[exec.run]\nhanded-over = true\nallow-program = '/bin/echo'\n".to_owned(),
    ];
    let doors = Doors::new(&text.concat());
    let daemon = doors.start();
    let mut client = secured(&daemon, &certificate);
    client.send([request(&["/bin/echo", "served"]), b"0:,".to_vec()].concat());
    let answer = String::from_utf8_lossy(&client.read_to_end()).into_owned();
    assert!(answer.contains("7:served\n,"), "{answer}");
    daemon.stderr_wait("subject \"CN=admin\", handed over by web");
}

#[test]
fn the_receiving_door_refuses_by_tls_what_is_over_its_limits_or_on_its_list() {
    let (gate, certificate) = (Gate::new(), Certificate::new());
    let of_pool = "max-connections = 1\nerror-reply = 'full\\n'\ndeny = ['127.0.0.66', '192.0.2.66']";
    let text = [
        route("accept-proxy = '127.0.0.5'"),
        service("localhost", &format!("{}door = 'echo'", tls(&certificate, ""))),
        pool("echo", of_pool),
    ];
    let doors = Doors::new(&text.concat());
    let daemon = doors.start();
    let mut first = secured(&daemon, &certificate);
    first.send(format!("wait {} first\n", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(secured(&daemon, &certificate).read_to_end(), b"full\n");
    arrival.open();
    assert_eq!(first.read_to_end(), b"first\n");
    while daemon.usr1_of("echo").count("connections") > 0 {}
    let from = |last: u8| Client::connect_from(Ipv4Addr::new(127, 0, 0, last), &daemon.addr());
    from(66).secure(&certificate).read_to_end_or_reset();
    daemon.stderr_wait("refused 127.0.0.66:");
    for (client, is_served) in [("192.0.2.7", true), ("192.0.2.66", false)] {
        let mut by_proxy = from(5);
        by_proxy.send(format!("PROXY TCP4 {client} 203.0.113.1 5 443\r\n"));
        let mut by_proxy = by_proxy.secure(&certificate);
        if is_served {
            by_proxy.send("echo served\n");
            assert_eq!(by_proxy.read_to_end(), b"served\n");
        } else {
            by_proxy.read_to_end_or_reset();
            daemon.stderr_wait("refused 192.0.2.66:5 (by way of 127.0.0.5:");
        }
    }
    assert_eq!(daemon.usr1_of("echo").count("refused denied"), 2);
}

#[test]
fn a_door_that_is_gone_when_the_handshake_is_done_is_told_and_the_client_is_closed() {
    let certificate = Certificate::new();
    let text = |door: &str| {
        let keys = format!("{}door = '{door}'", tls(&certificate, ""));
        [route(""), service("localhost", &keys), pool(door, "")].concat()
    };
    let doors = Doors::new(&text("echo"));
    let daemon = doors.start();
    let (hello, mut client) = hello_of(&daemon, &certificate);
    client.sock.write_all(&hello).unwrap();
    while daemon.usr1_of("web").count("tls waiting") == 0 {}
    doors.write(&text("other"));
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    client.write_all(b"echo hello\n").unwrap();
    daemon.stderr_wait("which is for the door echo: there is no such door any more");
    let stats = daemon.usr1_of("web");
    assert_eq!((stats.count("hand-overs failed"), stats.count("connections")), (1, 0));
    let mut client = secured(&daemon, &certificate);
    client.send("echo hello\n");
    assert_eq!(client.read_to_end(), b"hello\n");
}

#[test]
fn a_client_that_may_not_connect_any_more_is_closed_in_its_handshake() {
    let (backend, certificate) = (Backend::new(), Certificate::new());
    let text = |keys: &str| {
        let of_service = [tls(&certificate, ""), at(&backend)].concat();
        [route(keys), service("localhost", &of_service)].concat()
    };
    let doors = Doors::new(&text(""));
    let daemon = doors.start();
    let (hello, mut client) = hello_of(&daemon, &certificate);
    client.sock.write_all(&hello).unwrap();
    daemon.usr1_until(|stats| stats.count("tls waiting") == 1);
    doors.write(&text("deny = '127.0.0.1'"));
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("refused 127.0.0.1:");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("tls waiting"), stats.count("refused denied")), (0, 1));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn a_handshake_under_way_is_finished_before_the_end_and_by_a_predecessor() {
    let certificate = Certificate::new();
    let keys = format!("{}door = 'echo'", tls(&certificate, ""));
    let text = [
        route(""),
        service("localhost", &keys),
        pool("echo", "stop-timeout = '600s'"),
    ]
    .concat();
    let doors = Doors::new(&text);
    for is_upgraded in [false, true] {
        let installation = Installation::new();
        let daemon = Daemon::with(["run", "--config", doors.path()])
            .installed_at(&installation.program())
            .start();
        let (hello, mut client) = hello_of(&daemon, &certificate);
        client.sock.write_all(&hello).unwrap();
        while daemon.usr1_of("web").count("tls waiting") == 0 {}
        let silent = Client::connect(&daemon.addr());
        if is_upgraded {
            upgrade(&daemon, daemon.pid(), 1);
            let mut new = secured(&daemon, &certificate);
            new.send("echo new\n");
            assert_eq!(new.read_to_end(), b"new\n");
        } else {
            daemon.signal(Signal::SIGTERM);
            daemon.stderr_wait("web: draining");
        }
        client.write_all(b"echo hello\n").unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut client, &mut answer).unwrap();
        assert_eq!(answer, b"hello\n");
        drop(silent);
        assert_eq!(daemon.wait_exit().code(), Some(0));
    }
}

// ---- the file --------------------------------------------------------------------------------------------------

#[test]
fn mistakes_in_the_tls_of_a_service_are_found_with_the_file() {
    let certificate = Certificate::of_clients("admin");
    let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    let worker = worker_command(&[]);
    let asking = format!(
        "[pool.asking]\nlisten = 'tls:127.0.0.1:0'\ncert = '{cert}'\nkey = '{key}'\nclient-ca = '{cert}'\ndaemon = '''{worker}'''\n"
    );
    let text = [
        "[route.web]\ntls-listen = '127.0.0.1:0'\n".to_owned(),
        service("a.example", "tls = 'x'\naddr = '127.0.0.1:80'"),
        service("b.example", "tls = { key = 'x' }\naddr = '127.0.0.1:80'"),
        service(
            "c.example",
            &[&tls(&certificate, ""), "addr = '127.0.0.1'\ntls-port = 443"].concat(),
        ),
        service("d.example", &[&tls(&certificate, ""), "addr = '127.0.0.1'"].concat()),
        service("e.example", "door = 'asking'"),
        service("f.example", &[&tls(&certificate, ""), "door = 'asking'"].concat()),
        service("g.example", "tls = { cert = '/nowhere.pem' }\naddr = '127.0.0.1:80'"),
        service(
            "h.example",
            "tls = { cert = '/x', colour = 'red' }\naddr = '127.0.0.1:80'",
        ),
        asking,
    ];
    let told = Doors::new(&text.concat()).mistakes();
    for line in [
        "f:4:7: tls: this is a table; write tls = { cert = \"/etc/iotcpd/www.pem\", key = \"/etc/iotcpd/www.key\" }",
        "f:7:7: tls: key: it belongs to no certificate: cert is given not once; ",
        "f:7:7: tls: cert: there is no certificate to show to clients; name the file of one with cert",
        "f:12:12: tls-port: TLS ends at this door, and servers are reached without it; write http-port, or leave tls out",
        "f:15:8: addr: it is not said at which port the server listens; write http-port = 80 as well, or a port behind the address",
        "f:17:8: door: it takes no TLS, and only TLS comes for this name; ",
        "f:20:8: door: clients of `asking` need a certificate by its client-ca and allow-subject, ",
        "f:22:7: cert: ",
        "f:25:7: tls: unknown field `colour`",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    let same = format!(
        "{}door = 'asking'",
        tls(&certificate, &format!(", client-ca = '{cert}'"))
    );
    let good = Doors::new(&[route(""), service("localhost", &same), text[9].clone()].concat());
    let daemon = good.start();
    let mut client = secured(&daemon, &certificate);
    client.send("echo hello\n");
    assert_eq!(client.read_to_end(), b"hello\n");
}
