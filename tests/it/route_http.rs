//! The route door and HTTP: requests that go to a server by their Host, and the answers to requests that go nowhere.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Address, Client, Daemon, Program, free_port};
use crate::real_proxies::Proxy;
use crate::route_peers::{Backend, RouteFile, Served, UNRECOGNIZED_NAME, at, client, hello, hello_message, records};

/// The key of a listener for HTTP, which is the second listener of a door.
const HTTP: &str = "http-listen = '127.0.0.1:0'";

/// The keys of a service that is reached here by HTTP.
fn http_at(address: SocketAddr) -> String {
    format!("addr = '{}'\nhttp-port = {}", address.ip(), address.port())
}

/// A door with one service for `www.example.org`, and these keys.
#[track_caller]
fn door(keys: &str) -> (Daemon, Backend, RouteFile) {
    let backend = Backend::new();
    let services = [("www.example.org", http_at(backend.address()))];
    let file = RouteFile::new(&format!("{HTTP}\n{keys}"), &services);
    (file.start(), backend, file)
}

#[track_caller]
fn http(daemon: &Daemon) -> Address {
    daemon.nth_addr(2)
}

fn request(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// Everything that is answered to these bytes.
#[track_caller]
fn answer(daemon: &Daemon, bytes: impl AsRef<[u8]>) -> String {
    let mut client = Client::connect(&http(daemon));
    client.send(bytes);
    String::from_utf8(client.read_to_end()).expect("text")
}

/// Asserts that these bytes are answered by a page with this status, behind which the connection ends.
#[track_caller]
fn assert_page(daemon: &Daemon, bytes: impl AsRef<[u8]>, status: &str) {
    assert_is_page(
        &answer(daemon, bytes.as_ref()),
        status,
        &bytes.as_ref().escape_ascii().to_string(),
    );
}

#[track_caller]
fn assert_is_page(answer: &str, status: &str, asked: &str) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?} to {asked}"));
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
        "{head:?} to {asked}"
    );
    assert!(head.contains("\r\nConnection: close"), "{head:?}");
    assert!(
        head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
        "{answer:?}"
    );
}

/// The two sides of a request to this host that has reached its server unchanged.
#[track_caller]
fn pair(daemon: &Daemon, backend: &Backend, host: &str) -> (Client, Served) {
    let mut client = Client::connect(&http(daemon));
    let request = request(host);
    client.send(&request);
    let mut served = backend.accept();
    served.expect(&request);
    served.send("pong");
    client.read_text("pong");
    (client, served)
}

// ---- where requests go -----------------------------------------------------------------------------------------

#[test]
fn a_request_goes_to_the_server_of_its_host() {
    let [exact, wild, address, other, tls] = std::array::from_fn(|_| Backend::new());
    let both = format!(
        "addr = '127.0.0.1'\nhttp-port = {}\ntls-port = {}",
        exact.address().port(),
        tls.address().port()
    );
    let services = [
        ("www.example.org", both),
        ("*.example.org", http_at(wild.address())),
        ("::1", http_at(address.address())),
        ("CATCH_ALL", http_at(other.address())),
    ];
    let daemon = RouteFile::new(HTTP, &services).start();
    for (host, backend) in [
        ("www.example.org", &exact),
        ("WWW.Example.ORG.", &exact),
        ("www.example.org:80", &exact),
        ("www.example.org:8080", &exact),
        ("www.example.org:", &exact),
        ("a.example.org:1", &wild),
        ("[::1]", &address),
        ("[::1]:80", &address),
        ("www.example.com", &other),
        ("", &other),
    ] {
        let (mut client, mut served) = pair(&daemon, backend, host);
        client.half_close();
        assert_eq!(served.read_to_end(), b"");
        drop(served);
        assert_eq!(client.read_to_end(), b"", "{host}");
    }
    for (bytes, backend) in [
        (
            "GET http://www.example.org:80/x HTTP/1.1\r\nHost: www.example.org\r\n\r\n",
            &exact,
        ),
        (
            "GET http://WWW.example.org/ HTTP/1.1\r\nhOST: \twww.example.org \r\n\r\n",
            &exact,
        ),
        (
            "CONNECT www.example.org:443 HTTP/1.1\r\nHost: www.example.org:443\r\n\r\n",
            &exact,
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: www.example.org\r\n\r\n", &exact),
        ("GET / HTTP/1.0\r\n\r\n", &other),
        ("GET / HTTP/1.0\r\nHost: www.example.org\r\n\r\n", &exact),
    ] {
        let mut client = Client::connect(&http(&daemon));
        client.send(bytes);
        backend.accept().expect(bytes);
    }
    client(&daemon, "www.example.org", "");
    tls.accept().expect(hello("www.example.org"));
    let stats = daemon.usr1();
    assert_eq!((stats.count("routes http"), stats.count("routes tls")), (16, 1));
}

#[test]
fn a_request_comes_unchanged_in_whatever_pieces() {
    let (daemon, backend, _file) = door("");
    let request = "POST /a?b HTTP/1.1\r\nHost: www.example.org\r\nContent-Length: 4\r\nX-Y:  z \r\n\r\n";
    let mut client = Client::connect(&http(&daemon));
    for (number, byte) in request.bytes().enumerate() {
        assert!(!backend.has_connection(), "byte {number}");
        client.send([byte]);
    }
    let mut served = backend.accept();
    served.expect(request);
    client.send("body");
    served.expect("body");
    // Everything at once, its end too: the body, and a request for another host, which is not read.
    let behind = "bodyGET / HTTP/1.1\r\nHost: other.example\r\n\r\n";
    let mut client = Client::connect(&http(&daemon));
    client.send(format!("{request}{behind}"));
    client.half_close();
    let mut served = backend.accept();
    served.expect(request);
    assert_eq!(served.read_to_end(), behind.as_bytes());
    served.send("the answer");
    drop(served);
    assert_eq!(client.read_to_end(), b"the answer");
}

#[test]
fn a_large_body_behind_a_head_is_complete() {
    let (daemon, backend, _file) = door("");
    let body: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut client = Client::connect(&http(&daemon));
    let sent = body.clone();
    let sending = std::thread::spawn(move || {
        client.send([request("www.example.org").as_bytes(), &sent].concat());
        client
    });
    let mut served = backend.accept();
    served.expect(request("www.example.org"));
    served.expect(&body);
    let mut client = sending.join().expect("a client");
    served.send("thanks");
    drop(served);
    assert_eq!(client.read_to_end(), b"thanks");
}

#[test]
fn http_2_with_prior_knowledge_and_plain_bytes_go_to_the_catch_all() {
    let backend = Backend::new();
    let daemon = RouteFile::new(HTTP, &[("CATCH_ALL", http_at(backend.address()))]).start();
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut whole = Client::connect(&http(&daemon));
    whole.send(format!("{preface}settings"));
    backend.accept().expect(format!("{preface}settings"));
    let mut client = Client::connect(&http(&daemon));
    for byte in preface.bytes() {
        client.send([byte]);
    }
    backend.accept().expect(preface);
    for plain in ["SSH-2.0-x\r\n", "GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n"] {
        let mut client = Client::connect(&daemon.addr());
        client.send(plain);
        backend.accept().expect(plain);
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("routes http"), stats.count("routes plain")), (2, 2));
}

// ---- answers ---------------------------------------------------------------------------------------------------

#[test]
fn a_request_for_a_name_that_leads_nowhere_is_answered_by_404() {
    let tls = Backend::new();
    let backend = Backend::new();
    let services = [
        ("www.example.org", http_at(backend.address())),
        ("tls.example", at(tls.address())),
    ];
    let daemon = RouteFile::new(HTTP, &services).start();
    for host in ["example.org", "a.www.example.org", "tls.example", "", "[::1]:80"] {
        assert_page(&daemon, request(host), "404 Not Found");
    }
    assert_page(&daemon, "GET / HTTP/1.0\r\n\r\n", "404 Not Found");
    assert_page(&daemon, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "404 Not Found");
    let head = answer(&daemon, request("x").replace("GET", "HEAD"));
    assert!(
        head.starts_with("HTTP/1.1 404 ") && head.ends_with("\r\n\r\n"),
        "{head:?}"
    );
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("name unknown"), stats.count("head bad")), (8, 0));
    assert!(!backend.has_connection() && !tls.has_connection());
    daemon.stderr_wait("which asks for \"example.org\": no service has its name");
}

#[test]
fn a_head_with_a_fault_is_answered_by_400() {
    let (daemon, backend, _file) = door("");
    let host = "Host: www.example.org\r\n";
    let many = "X: y\r\n".repeat(200);
    let tls = hello("www.example.org");
    let wrong: [&[u8]; 17] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: www.example.org\r\nHost: www.example.org\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : www.example.org\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: www.example.org\0\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: www.example.org\r\n\r\n",
        b"GET / HTTP/1.1\nHost: www.example.org\n\n",
        b"\r\nGET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n",
        b"GET http://other.example/ HTTP/1.1\r\nHost: www.example.org\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: user@www.example.org\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: www.example.org:99999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: www.example.org, other.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: www.example.org\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        &tls,
        &[b"GET / HTTP/1.1\r\n", host.as_bytes(), many.as_bytes(), b"\r\n"].concat(),
    ];
    for bytes in wrong {
        assert_page(&daemon, bytes, "400 Bad Request");
    }
    assert!(!backend.has_connection());
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("head bad"), stats.count("hello bad")), (17, 0));
    daemon.stderr_wait(": its request has more than one Host");
}

#[test]
fn a_head_may_have_16_kib_and_not_a_byte_more() {
    let (daemon, backend, _file) = door("");
    let with = |length: usize| {
        let head = request("www.example.org");
        let head = head.strip_suffix("\r\n").expect("a head");
        format!(
            "{head}X: {}\r\n\r\n",
            "a".repeat(length - head.len() - "X: \r\n\r\n".len())
        )
    };
    let longest = with(16_384);
    let mut client = Client::connect(&http(&daemon));
    client.send(format!("{longest}body"));
    let mut served = backend.accept();
    served.expect(&longest);
    served.expect("body");
    assert_page(&daemon, with(16_385), "400 Bad Request");
    assert_page(&daemon, vec![b'a'; 1_000_000], "400 Bad Request");
    let mut endless = String::from("GET / HTTP/1.1\r\n");
    for number in 0..50_000 {
        write!(endless, "X-{number}: y\r\n").expect("a string");
    }
    assert_page(&daemon, endless, "400 Bad Request");
    assert!(!backend.has_connection());
}

#[test]
fn a_head_that_is_not_complete_in_time_is_answered_by_408() {
    let (daemon, backend, _file) = door("hello-timeout = '200ms'");
    for beginning in [
        "",
        "G",
        "GET / HTTP/1.1\r\nHost: www.example.org\r\n",
        "PRI * HTTP/2.0\r\n",
    ] {
        assert_page(&daemon, beginning, "408 Request Timeout");
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("head slow"), stats.count("hello slow")), (4, 0));
    assert!(!backend.has_connection());
}

#[test]
fn a_server_that_cannot_be_reached_is_answered_by_502() {
    let refused = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let (first, second) = (free_port(), free_port());
    let several = format!("addrs = ['127.0.0.1:{first}', '127.0.0.1:{second}']");
    let daemon = RouteFile::new(HTTP, &[("www.example.org", http_at(refused)), ("two.example", several)]).start();
    assert_page(&daemon, request("www.example.org"), "502 Bad Gateway");
    assert_page(
        &daemon,
        format!("{}{}", request("two.example"), "body".repeat(100_000)),
        "502 Bad Gateway",
    );
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("connect failed"), stats.count("connect again")), (3, 1));
}

#[test]
fn a_page_is_read_although_the_client_sends_on() {
    let (daemon, _backend, _file) = door("");
    let mut client = Client::connect(&http(&daemon));
    client.send([request("nowhere.example").into_bytes(), vec![7; 300_000]].concat());
    assert_is_page(
        &String::from_utf8(client.read_to_end()).expect("text"),
        "404 Not Found",
        "a large body",
    );
    client.try_send([7; 100_000]).ok();
    drop(client);
    daemon.usr1_until(|stats| stats.count("connections") == 0);
}

#[test]
fn a_client_that_leaves_before_its_head_is_whole_leaves_nothing_behind() {
    let (daemon, backend, _file) = door("");
    let request = request("www.example.org");
    for length in [0, 1, 30, request.len() - 1] {
        let mut client = Client::connect(&http(&daemon));
        client.send(&request[..length]);
        client.half_close();
        client.read_to_end_or_reset();
        let mut client = Client::connect(&http(&daemon));
        client.send(&request[..length]);
        client.reset();
    }
    daemon.usr1_until(|stats| stats.count("connections") == 0 && stats.count("hello left") == 8);
    assert!(!backend.has_connection());
}

// ---- redirections and challenges -------------------------------------------------------------------------------

#[test]
fn a_request_is_sent_on_to_https_where_the_door_or_its_service_says_so() {
    let backend = Backend::new();
    let keys = format!("{HTTP}\nredirect-https = true");
    let plain = format!("{}\nredirect-https = false", http_at(backend.address()));
    let services = [("www.example.org", at(backend.address())), ("plain.example", plain)];
    let daemon = RouteFile::new(&keys, &services).start();
    let port = daemon.addr().port();
    for (target, host, location) in [
        ("/a?b", "WWW.example.org:80", "www.example.org:PORT/a?b"),
        ("http://www.example.org/x", "www.example.org", "www.example.org:PORT/x"),
        (
            "//evil.example/",
            "www.example.org",
            "www.example.org:PORT//evil.example/",
        ),
    ] {
        let answer = answer(&daemon, format!("POST {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_is_page(&answer, "308 Permanent Redirect", target);
        let location = location.replace("PORT", &port.to_string());
        assert!(
            answer.contains(&format!("\r\nLocation: https://{location}\r\n")),
            "{answer}"
        );
    }
    pair(&daemon, &backend, "plain.example");
    assert_page(&daemon, request("other.example"), "404 Not Found");
    let stats = daemon.usr1_until(|stats| stats.count("routes redirected") == 3);
    assert_eq!(stats.count("name unknown"), 1);
    // For one service alone.
    let one = format!("{}\nredirect-https = true", at(backend.address()));
    let daemon = RouteFile::new(
        HTTP,
        &[("www.example.org", one), ("CATCH_ALL", http_at(backend.address()))],
    )
    .start();
    assert!(answer(&daemon, request("www.example.org")).starts_with("HTTP/1.1 308 "));
    pair(&daemon, &backend, "other.example");
}

#[test]
fn challenges_of_acme_go_to_a_server_of_their_own() {
    let [responder, site] = std::array::from_fn(|_| Backend::new());
    let keys = format!("{HTTP}\nredirect-https = true\nacme-addr = '{}'", responder.address());
    let daemon = RouteFile::new(&keys, &[("www.example.org", at(site.address()))]).start();
    let request = request("www.example.org").replace("GET /", "GET /.well-known/acme-challenge/token");
    let mut client = Client::connect(&http(&daemon));
    client.send(&request);
    responder.accept().expect(&request);
    for (protocols, backend) in [
        (&["acme-tls/1"][..], &responder),
        (&["h2", "http/1.1"], &site),
        (&[], &site),
    ] {
        let hello = records(&hello_message(Some("www.example.org"), protocols), 1 << 14);
        let mut client = Client::connect(&daemon.addr());
        client.send(&hello);
        backend.accept().expect(&hello);
    }
    assert!(!site.has_connection() && !responder.has_connection());
}

// ---- changes ---------------------------------------------------------------------------------------------------

#[test]
fn listeners_stay_what_they_are_when_the_file_is_read_again() {
    let (daemon, backend, file) = door("");
    file.write(
        &format!("{HTTP}\nredirect-https = true"),
        &[("www.example.org", at(backend.address()))],
    );
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    let location = format!("Location: https://www.example.org:{}/\r\n", daemon.addr().port());
    assert!(answer(&daemon, request("www.example.org")).contains(&location));
    client(&daemon, "www.example.org", "");
    backend.accept().expect(hello("www.example.org"));
    assert_eq!(client(&daemon, "nowhere.example", "").read_to_end(), UNRECOGNIZED_NAME);
}

#[test]
fn a_door_for_http_alone_listens_for_nothing_else() {
    let backend = Backend::new();
    let file = RouteFile::new("", &[("www.example.org", http_at(backend.address()))]);
    let text = std::fs::read_to_string(file.path()).expect("the file");
    std::fs::write(file.path(), text.replace("tls-listen", "http-listen")).expect("write the file");
    let daemon = file.start();
    let mut client = Client::connect(&daemon.addr());
    client.send(request("www.example.org"));
    backend.accept().expect(request("www.example.org"));
}

// ---- real programs ---------------------------------------------------------------------------------------------

#[test]
fn curl_reaches_a_site_of_nginx_by_its_host_and_is_told_of_its_faults() {
    let configure = |[port]: [u16; 1]| {
        format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\n\
             scgi_temp_path scgi;\nserver {{\nlisten 127.0.0.1:{port};\n\
             location / {{ return 200 \"$request_method $http_host $uri\\n\"; }}\n}}\n}}\n"
        )
    };
    let server = Proxy::start("nginx", configure, |command, file| {
        command.args(["-e", "stderr", "-p", ".", "-c", file]);
    });
    let refused = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let services = [
        (
            "www.example.org",
            http_at(SocketAddr::from((Ipv4Addr::LOCALHOST, server.addresses[0].port()))),
        ),
        ("down.example", http_at(refused)),
    ];
    let daemon = RouteFile::new(HTTP, &services).start();
    let curl = |flags: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]);
        command.args(["--write-out", "%{http_code}"]);
        command.args(flags).arg(format!("http://{}/page", http(&daemon)));
        let (status, output, errors) = Program::start(&mut command).finish();
        (status.code(), output + &errors)
    };
    let host = "Host: www.example.org";
    for (flags, told) in [
        (&["-H", host][..], "GET www.example.org /page\n200"),
        (&["-H", host, "--http1.0"], "GET www.example.org /page\n200"),
        (&["-H", host, "--data", "x=y"], "POST www.example.org /page\n200"),
        (&["-H", "Host: nowhere.example"], "404: no service has this name\n404"),
        (
            &["-H", "Host: down.example"],
            "502: the service cannot be reached now\n502",
        ),
        (&["-H", "Host: a, b"], "400: the request is not understood\n400"),
        (
            &["-H", "Host: nowhere.example", "--head", "--output", "/dev/null"],
            "404",
        ),
    ] {
        assert_eq!(curl(flags), (Some(0), told.to_owned()), "{flags:?}");
    }
}
