//! `iotcpd route` with the file of tcprouter, and the other commands that take it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use crate::harness::{Address, Daemon, free_port, temp_dir};
use crate::route_peers::{Backend, INTERNAL_ERROR, UNRECOGNIZED_NAME, client_at, hello};
use crate::tunnel_peers::TunnelClient;

/// A file of tcprouter with these keys of the server, in the words of the original.
fn router_toml(server: &str, backend: &Backend, other: &Backend) -> String {
    let (port, other) = (backend.address().port(), other.address().port());
    format!(
        "[server]\naddr = \"127.0.0.1\"\n{server}\nhttpport = 0\nclientsport = 0\n\
         [server.services.\"www.example.org\"]\naddr = \"127.0.0.1\"\ntlsport = {port}\n\
         [server.services.\"CATCH_ALL\"]\naddr = \"127.0.0.1\"\ntlsport = {other}\n"
    )
}

/// Checks that a client of this name reaches this server.
#[track_caller]
fn expect_route(address: &Address, name: &str, backend: &Backend) {
    let _client = client_at(address, name, "ping");
    let mut served = backend.accept();
    served.expect(hello(name));
    served.expect("ping");
}

#[test]
fn the_file_of_tcprouter_is_served_at_its_port_by_each_command_that_takes_it() {
    let (backend, other) = (Backend::new(), Backend::new());
    let home = temp_dir();
    for (command, flag) in [("route", "--config"), ("route", "-config"), ("run", "--config")] {
        let port = free_port();
        let file = home.path().join("router.toml");
        fs::write(&file, router_toml(&format!("port = {port}"), &backend, &other)).unwrap();
        let daemon = Daemon::with([command, flag, file.to_str().unwrap()]).start();
        let address = Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        expect_route(&address, "WWW.example.org", &backend);
        expect_route(&address, "elsewhere.example", &other);
        assert_eq!(daemon.usr1().get("name"), Some("route"));
    }
}

/// The example of tcprouter's own documents, but for the address and the ports of the listeners, and without its store.
fn original(port: u16, tunnels: u16) -> String {
    format!(
        r#"[server]
addr = "127.0.0.1"        # for all three listeners
port = {port}              # TLS, routed by SNI; not decrypted
httpport = {}           # HTTP/1.x, routed by the Host header (port stripped)
clientsport = {tunnels}     # tunnel clients
[server.services."www.example.org"]
addr = "151.101.1.178"
tlsport = 443
httpport = 80
[server.services."behind-nat.example.org"]
clientsecret = "TB2pbZ5FR8"   # forward to the tunnel client that presented this secret
"#,
        free_port()
    )
}

#[test]
fn an_original_file_with_services_for_tunnels_runs_unchanged_and_shows_no_secret() {
    let home = temp_dir();
    let file = home.path().join("router.toml");
    let (port, tunnels) = (free_port(), free_port());
    fs::write(&file, original(port, tunnels)).unwrap();
    let checked = run(home.path(), &["check", "router.toml"]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let told = String::from_utf8(checked.stderr).unwrap();
    assert!(
        !told.contains("client-secret") && !told.contains("clientsport"),
        "{told}"
    );
    let daemon = Daemon::with([
        "route",
        "--config",
        file.to_str().unwrap(),
        "-d",
        "--log-connections",
        "--tunnel-wait",
        "0",
    ])
    .start();
    let address = Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let mut client = client_at(&address, "behind-nat.example.org", "");
    assert_eq!(client.read_to_end(), INTERNAL_ERROR);
    drop(client);
    let mut unknown = client_at(&address, "unknown.example.org", "");
    assert_eq!(unknown.read_to_end(), UNRECOGNIZED_NAME);
    daemon.stderr_wait("was not served: its service has no server, or no tunnel client");
    let tunnels = Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, tunnels)));
    let mut tunnel = TunnelClient::connect(&tunnels, "TB2pbZ5FR8");
    daemon.stderr_wait("is connected, and serves \"behind-nat.example.org\"");
    let mut client = client_at(&address, "behind-nat.example.org", "");
    let stream = tunnel.accept();
    tunnel.expect(stream, hello("behind-nat.example.org"));
    tunnel.send(stream, "from behind");
    tunnel.end(stream);
    client.half_close();
    assert_eq!(client.read_to_end(), b"from behind");
    tunnel.take_to_end(stream);
    daemon.stderr_wait(&format!("server=tunnel:{}", tunnel.name()));
    let dump = daemon.usr2().join("\n");
    let question = ["route", "router.toml", "--explain", "--sni", "behind-nat.example.org"];
    let explained = run(home.path(), &question);
    let explained = String::from_utf8(explained.stdout).unwrap();
    assert!(
        explained.ends_with(
            "the client goes to one of its tunnel clients; which of them are connected, the daemon alone knows\n"
        ),
        "{explained}"
    );
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    for text in [told, daemon.stderr.text(), dump, explained] {
        assert!(!text.contains("TB2pb"), "{text}");
    }
}

#[test]
fn the_file_is_read_again_and_flags_stay_over_it() {
    let (backend, other) = (Backend::new(), Backend::new());
    let home = temp_dir();
    let file = home.path().join("config.toml");
    fs::write(&file, router_toml("port = 1", &backend, &other)).unwrap();
    let daemon = Daemon::with(["route", file.to_str().unwrap(), "--tls-listen", "127.0.0.1:0"]).start();
    expect_route(&daemon.addr(), "www.example.org", &backend);
    fs::write(&file, router_toml("port = 1", &other, &backend)).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    expect_route(&daemon.addr(), "www.example.org", &other);
}

fn run(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iotcpd"))
        .args(arguments)
        .current_dir(home)
        .output()
        .unwrap()
}

#[test]
fn each_mistake_in_the_file_of_tcprouter_is_a_line_and_the_exit_status_2() {
    let home = temp_dir();
    let told = |arguments: &[&str]| {
        let output = run(home.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        told(&["route"]),
        "iotcpd: there is no config.toml; name the file with --config\n"
    );
    fs::write(home.path().join("config.toml"), "[server]\nport = 443\nhttpport = 0\n").unwrap();
    let mistakes = "config.toml:1:2: there is no key `clientsport`; write clientsport = 18000, or 0 for no such listener\n\
                    config.toml:1:2: no service is described; write a table with a name, such as \
                    [server.services.\"www.example.org\"]\n";
    for arguments in [
        &["route"][..],
        &["route", "-config=config.toml"],
        &["check", "config.toml"],
    ] {
        assert_eq!(told(arguments), mistakes, "{arguments:?}");
    }
    fs::write(home.path().join("run.toml"), "[route.web]\ntls-listen = '*:443'\n").unwrap();
    assert!(told(&["route", "run.toml"]).ends_with("is run with iotcpd run --config run.toml\n"));
}

#[test]
fn the_entry_that_decides_is_told_without_running_anything() {
    let home = temp_dir();
    let told = |arguments: &[&str]| {
        let output = run(home.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let service = "services.'*.example.org']\nalpn = 'h2'\naddr = '10.0.0.5:443'\n";
    let server = format!("[server]\nport = 443\nhttpport = 0\nclientsport = 0\n[server.{service}");
    let route = format!("[route.web]\ntls-listen = '127.0.0.1:443'\n[route.web.{service}");
    let decides = "www.example.org: the service *.example.org (file) decides, because no service has exactly this name, \
                   and of those with a * its end is the longest that fits; of its entries number 1 of 1 is the first \
                   whose alpn, h2, is offered; the client goes to 10.0.0.5:443\n";
    let refused = "www.example.org: the client is refused with the alert unrecognized_name, because each entry of the \
                   service *.example.org, which has the name, asks for an alpn that is not offered\n";
    let question = ["route", "config.toml", "--explain", "--sni", "WWW.example.org"];
    for text in [&server, &route] {
        fs::write(home.path().join("config.toml"), text).unwrap();
        assert_eq!(
            told(&[&question[..], &["--alpn", "http/1.1", "--alpn", "h2"]].concat()),
            decides
        );
        assert_eq!(told(&question), refused);
    }
    let by_http = [
        "route",
        "config.toml",
        "--explain",
        "--host",
        "WWW.example.org:80",
        "--path",
        "/x",
    ];
    assert_eq!(
        told(&by_http),
        "www.example.org: the client is refused with 404, because each entry of the service *.example.org, which has the \
         name, asks for an alpn that is not offered\n"
    );
    let both = server + &route.replace("127.0.0.1:443", "127.0.0.1:444");
    fs::write(home.path().join("config.toml"), both).unwrap();
    assert_eq!(told(&question), format!("route: {refused}web: {refused}"));
}
