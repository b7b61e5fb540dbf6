//! Headers of the PROXY protocol in front of the bytes of a routed client: in the words of the specification, and to
//! servers that read them. Where a program is missing its test fails.

use std::net::Ipv4Addr;
use std::process::Command;

use crate::harness::{Certificate, Client, Daemon, Program, temp_dir};
use crate::real_proxies::Proxy;
use crate::route_peers::{Backend, RouteFile, at, hello, hello_message, records};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The header of version 2 of a client on the loopback, with these fields.
fn binary(client: Ipv4Addr, from: u16, to: u16, fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = [client.octets(), [127, 0, 0, 1]].concat();
    body.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
    for (kind, text) in fields {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        body.extend([&[*kind][..], &length, text].concat());
    }
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x21, 0x11], &length, &body].concat()
}

#[test]
fn each_version_names_the_client_in_front_of_its_first_bytes() {
    let [line, header, plain] = std::array::from_fn(|_| Backend::new());
    let keys = |backend: &Backend, version: &str| format!("{}\nsend-proxy = '{version}'", at(backend.address()));
    let services = [
        ("one.example", keys(&line, "v1")),
        ("two.example", at(header.address())),
        ("none.example", keys(&plain, "none")),
    ];
    let daemon = RouteFile::new("send-proxy = 'v2'", &services).start();
    let to = daemon.addr().port();
    let from = Ipv4Addr::new(127, 0, 0, 9);
    for (name, backend) in [
        ("one.example", &line),
        ("two.example", &header),
        ("none.example", &plain),
    ] {
        let mut client = Client::connect_from(from, &daemon.addr());
        let port = client.local_port();
        client.send([&hello(name)[..], b"ping"].concat());
        let mut served = backend.accept();
        match name {
            "one.example" => served.expect(format!("PROXY TCP4 {from} 127.0.0.1 {port} {to}\r\n")),
            "two.example" => served.expect(binary(from, port, to, &[(2, name.as_bytes())])),
            _ => {}
        }
        served.expect(hello(name));
        served.expect("ping");
        served.send("pong");
        client.read_text("pong");
        client.half_close();
        assert_eq!(served.read_to_end(), b"");
        drop(served);
        assert_eq!(client.read_to_end(), b"");
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    let sent: usize = ["one.example", "two.example", "none.example"]
        .map(|name| hello(name).len() + 4)
        .iter()
        .sum();
    assert_eq!(stats.count("bytes in"), u64::try_from(sent).unwrap(), "without headers");
}

#[test]
fn the_name_is_that_of_the_client_and_the_protocol_its_first_or_that_of_the_service() {
    let backend = Backend::new();
    let file = RouteFile::new("send-proxy = 'v2'", &[]);
    let text = std::fs::read_to_string(file.path()).unwrap();
    let (entry, address) = ("[[route.web.services.CATCH_ALL]]", at(backend.address()));
    let text = format!("{text}\n{entry}\nalpn = 'h2'\n{address}\n{entry}\n{address}\n");
    std::fs::write(file.path(), text).unwrap();
    let daemon = file.start();
    let long = "a".repeat(60);
    let long = [&*long; 5].join(".");
    for (name, protocols, fields) in [
        (None, &[][..], &[][..]),
        (Some("WWW.Example."), &[], &[(2, &b"WWW.Example."[..])]),
        // No name of a host, or none that the header has room for.
        (Some("bad name"), &[], &[]),
        (Some(&*long), &[], &[]),
        (Some("a.b"), &["spdy", "http/1.1"], &[(1, b"spdy"), (2, b"a.b")]),
        (Some("a.b"), &["http/1.1", "h2"], &[(1, b"h2"), (2, b"a.b")]),
    ] {
        let mut client = Client::connect(&daemon.addr());
        let hello = records(&hello_message(name, protocols), 50);
        client.send(&hello);
        let mut served = backend.accept();
        let (from, to) = (client.local_port(), daemon.addr().port());
        served.expect(binary(Ipv4Addr::LOCALHOST, from, to, fields));
        served.expect(&hello);
    }
}

#[test]
fn the_client_that_a_proxy_in_front_names_is_passed_on() {
    let backend = Backend::new();
    let keys = "send-proxy = 'v1'\naccept-proxy = '127.0.0.1'";
    let daemon = RouteFile::new(keys, &[("CATCH_ALL", at(backend.address()))]).start();
    let to = daemon.addr().port();
    for (told, passed_on) in [
        (
            "PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\r\n",
            format!("PROXY TCP4 192.0.2.7 127.0.0.1 56324 {to}\r\n"),
        ),
        (
            "PROXY TCP6 2001:db8::7 2001:db8::1 5 443\r\n",
            format!("PROXY TCP6 2001:db8::7 ::ffff:127.0.0.1 5 {to}\r\n"),
        ),
        ("PROXY UNKNOWN\r\n", "PROXY UNKNOWN\r\n".to_owned()),
    ] {
        let mut client = Client::connect(&daemon.addr());
        client.send([told.as_bytes(), &hello("a.b")].concat());
        let mut served = backend.accept();
        served.expect(passed_on);
        served.expect(hello("a.b"));
    }
}

#[test]
fn a_client_of_a_unix_socket_is_unknown() {
    let (backend, home) = (Backend::new(), temp_dir());
    let socket = home.path().join("s");
    let file = RouteFile::new("send-proxy = 'v2'", &[("CATCH_ALL", at(backend.address()))]);
    let text = std::fs::read_to_string(file.path()).unwrap();
    let listen = format!("unix:{}", socket.display());
    std::fs::write(file.path(), text.replace("127.0.0.1:0", &listen)).unwrap();
    let daemon = file.start();
    let mut client = Client::connect(&daemon.addr());
    client.send(hello("a.b"));
    let mut served = backend.accept();
    served.expect([SIGNATURE, &[0x21, 0x00, 0, 6, 2, 0, 3], b"a.b"].concat());
    served.expect(hello("a.b"));
}

#[test]
fn the_second_server_gets_one_header_when_the_first_refuses() {
    let backend = Backend::new();
    let gone = Backend::new().address();
    let addresses = format!("addrs = ['{gone}', '{}']", backend.address());
    let daemon = RouteFile::new("send-proxy = 'v1'", &[("CATCH_ALL", addresses)]).start();
    for _ in 0..2 {
        let mut client = Client::connect(&daemon.addr());
        client.send([&hello("a.b")[..], b"ping"].concat());
        let (from, to) = (client.local_port(), daemon.addr().port());
        let mut served = backend.accept();
        served.expect(format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n"));
        served.expect(hello("a.b"));
        served.expect("ping");
    }
    assert_eq!(daemon.usr1().count("connect failed"), 1);
}

// ---- servers that read it --------------------------------------------------------------------------------------

/// The answer that curl gets for the name `localhost` from the server behind the door.
#[track_caller]
fn curl(daemon: &Daemon, files: &Certificate, flags: &[&str]) -> String {
    let port = daemon.addr().port();
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]);
    command.args(["--interface", "127.0.0.9"]);
    command.args(["--resolve", &format!("localhost:{port}:127.0.0.1")]);
    command.args(["--cacert", &files.path("cert.pem")]);
    command.args(flags).arg(format!("https://localhost:{port}/"));
    let (_, output, errors) = Program::start(&mut command).finish();
    output + &errors
}

#[track_caller]
fn assert_reads_both_versions(server: &Proxy, files: &Certificate, authority: &str) {
    for (version, authority) in [("v1", ""), ("v2", authority)] {
        let service = format!(
            "addr = '127.0.0.1'\ntls-port = {}\nsend-proxy = '{version}'",
            server.addresses[0].port()
        );
        let daemon = RouteFile::new("", &[("localhost", service)]).start();
        for flags in [&["--http1.1"][..], &["--http2"]] {
            let answer = curl(&daemon, files, flags);
            assert_eq!(
                answer.trim_end(),
                format!("client 127.0.0.9{authority}"),
                "{version}, {flags:?}"
            );
        }
    }
}

#[test]
fn nginx_learns_of_the_client() {
    let files = Certificate::new();
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let configure = |[port]: [u16; 1]| {
        format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\n\
             scgi_temp_path scgi;\nserver {{\nlisten 127.0.0.1:{port} ssl http2 proxy_protocol;\nssl_certificate {cert};\n\
             ssl_certificate_key {key};\nlocation / {{ return 200 \"client $proxy_protocol_addr\\n\"; }}\n}}\n}}\n"
        )
    };
    let server = Proxy::start("nginx", configure, |command, file| {
        command.args(["-e", "stderr", "-p", ".", "-c", file]);
    });
    assert_reads_both_versions(&server, &files, "");
}

#[test]
fn haproxy_learns_of_the_client_and_of_the_name() {
    let files = Certificate::new();
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let both = [cert, key].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    let pem = files.write("both.pem", &both);
    let configure = |[port]: [u16; 1]| {
        format!(
            "defaults\nmode http\ntimeout client 60s\ntimeout server 60s\ntimeout connect 60s\nfrontend f\n\
             bind 127.0.0.1:{port} accept-proxy ssl crt {pem} alpn h2,http/1.1\n\
             http-request return status 200 content-type text/plain lf-string \"client %[src]%[fc_pp_authority,regsub(^,' for ')]\\n\"\n"
        )
    };
    let server = Proxy::start("haproxy", configure, |command, file| {
        command.args(["-db", "-f", file]);
    });
    assert_reads_both_versions(&server, &files, " for localhost");
}
