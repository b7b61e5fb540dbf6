//! Real clients and a real server on both sides of a route door: OpenSSL, curl, Chromium, nginx. Where a program is
//! missing its test fails.

use std::process::Command;

use crate::harness::{Certificate, Daemon, Program, temp_dir};
use crate::real_proxies::Proxy;
use crate::route_peers::RouteFile;

/// nginx, which serves HTTP over TLS under two names at one port, and says in each answer which name was asked for.
struct Site {
    _server: Proxy,
    files: Certificate,
    daemon: Daemon,
    _file: RouteFile,
}

impl Site {
    #[track_caller]
    fn start(keys: &str) -> Self {
        let files = Certificate::new();
        let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
        let configure = |[port]: [u16; 1]| {
            format!(
                "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
                 client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\n\
                 scgi_temp_path scgi;\nserver {{\nlisten 127.0.0.1:{port} ssl http2;\nssl_protocols TLSv1.2 TLSv1.3;\nssl_certificate {cert};\n\
                 ssl_certificate_key {key};\nlocation / {{ return 200 \"asked for $ssl_server_name\\n\"; }}\n\
                 location /big {{ root .; }}\n}}\n}}\n"
            )
        };
        let server = Proxy::start("nginx", configure, |command, file| {
            command.args(["-e", "stderr", "-p", ".", "-c", file]);
        });
        let port = server.addresses[0].port();
        let service = format!("addr = '127.0.0.1'\ntls-port = {port}");
        let file = RouteFile::new(keys, &[("localhost", service)]);
        let daemon = file.start();
        Self {
            _server: server,
            files,
            daemon,
            _file: file,
        }
    }

    /// Runs curl for this path with these flags, and returns its exit status and output.
    #[track_caller]
    fn curl(&self, name: &str, flags: &[&str]) -> (Option<i32>, String) {
        let port = self.daemon.addr().port();
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]);
        command.args(["--resolve", &format!("{name}:{port}:127.0.0.1")]);
        command.args(["--cacert", &self.files.path("cert.pem")]);
        command.args(flags).arg(format!("https://{name}:{port}/"));
        let (status, output, errors) = Program::start(&mut command).finish();
        (status.code(), output + &errors)
    }
}

#[test]
fn curl_reaches_a_site_by_its_name_with_either_version_of_http() {
    let site = Site::start("");
    for flags in [&["--http1.1"][..], &["--http2"], &["--tlsv1.3"], &["--tls-max", "1.2"]] {
        assert_eq!(
            site.curl("localhost", flags),
            (Some(0), "asked for localhost".to_owned()),
            "{flags:?}"
        );
    }
    assert_eq!(site.daemon.usr1().count("routes tls"), 4);
}

#[test]
fn curl_says_that_a_name_is_unknown() {
    let site = Site::start("");
    let (status, told) = site.curl("other.example", &[]);
    assert_ne!(status, Some(0));
    assert!(told.contains("unrecognized name"), "{told}");
}

#[test]
fn s_client_reaches_a_site_by_its_name_and_learns_that_another_is_unknown() {
    let site = Site::start("");
    let run = |name: &str| {
        let address = site.daemon.addr().to_string();
        let mut command = Command::new("openssl");
        command.args([
            "s_client",
            "-connect",
            &address,
            "-servername",
            name,
            "-quiet",
            "-verify_return_error",
        ]);
        command.args(["-CAfile", &site.files.path("cert.pem")]);
        let mut program = Program::start(&mut command);
        let mut stdin = program.stdin.take().unwrap();
        // A program that has failed already takes nothing.
        std::io::Write::write_all(
            &mut stdin,
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
        .ok();
        let (_, output, errors) = program.finish();
        drop(stdin);
        (output, errors)
    };
    let (output, errors) = run("localhost");
    assert!(output.ends_with("asked for localhost"), "{output}{errors}");
    let (output, errors) = run("other.example");
    assert!(
        output.is_empty() && errors.contains("unrecognized name"),
        "{output}{errors}"
    );
}

/// nginx with HTTP in the clear, behind a header of the PROXY protocol, and by TLS. It is sick while the file `sick` is
/// there.
#[test]
fn nginx_is_checked_and_out_while_it_answers_that_it_is_sick_and_when_it_is_gone() {
    let (files, home) = (Certificate::new(), temp_dir());
    let sick = home.path().join("sick");
    let (cert, key, file) = (files.path("cert.pem"), files.path("key.pem"), sick.display());
    let configure = |[plain, proxied, tls]: [u16; 3]| {
        format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\n\
             scgi_temp_path scgi;\nserver {{\nlisten 127.0.0.1:{plain};\nlisten 127.0.0.1:{proxied} proxy_protocol;\n\
             listen 127.0.0.1:{tls} ssl;\nssl_certificate {cert};\nssl_certificate_key {key};\n\
             location /healthz {{ if (-f {file}) {{ return 503; }} return 204; }}\n}}\n}}\n"
        )
    };
    let server = Proxy::start("nginx", configure, |command, file| {
        command.args(["-e", "stderr", "-p", ".", "-c", file]);
    });
    let port = |index: usize| server.addresses[index].port();
    let service = |keys: String| format!("addr = '127.0.0.1'\ncheck-interval = '100ms'\n{keys}");
    let http = |index, keys: &str| service(format!("http-port = {}\ncheck = '/healthz'\n{keys}", port(index)));
    let services = [
        ("plain.example", http(0, "")),
        ("first.example", http(1, "send-proxy = 'v1'")),
        ("second.example", http(1, "send-proxy = 'v2'")),
        ("tls.example", service(format!("tls-port = {}\ncheck = 'tcp'", port(2)))),
    ];
    let daemon = RouteFile::new("http-listen = '127.0.0.1:0'", &services).start();
    let out = |count| drop(daemon.usr1_until(|stats| stats.count("backends out") == count));
    let stats = daemon.usr1_until(|stats| stats.count("checks") >= 12);
    let counts = ["checked", "checks failed", "backends out"].map(|label| stats.count(label));
    assert_eq!(counts, [4, 0, 0]);
    std::fs::write(&sick, "").expect("a file");
    out(3);
    daemon.stderr_wait("checks in a row have failed (it has answered 503)");
    std::fs::remove_file(&sick).expect("a file");
    out(0);
    drop(server);
    out(4);
    daemon.stderr_wait("checks in a row have failed (Connection refused");
}

/// Its hello has the key share of a post-quantum group, and is larger than what one packet of a network carries.
#[test]
#[ignore = "a large peer: scripts/test-peers"]
fn chromium_reaches_a_site_by_its_name() {
    let site = Site::start("");
    let home = temp_dir();
    let port = site.daemon.addr().port();
    let mut command = Command::new("chromium");
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
    ]);
    command.args([
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]);
    command.args(["--ignore-certificate-errors", "--host-resolver-rules=MAP * 127.0.0.1"]);
    command.arg(format!("--user-data-dir={}", home.path().display()));
    command.args(["--dump-dom", &format!("https://localhost:{port}/")]);
    let (_, page, errors) = Program::start(&mut command).finish();
    assert!(page.contains("asked for localhost"), "{page}{errors}");
    let statistics = site.daemon.usr1();
    assert!(statistics.count("routes tls") >= 1);
    // A post-quantum key share alone has 1,216 bytes.
    assert!(statistics.count("bytes in") > 1_500, "{statistics:?}");
}
