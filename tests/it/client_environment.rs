//! The variables that tell programs about their client, as under tcpserver and s6-ipcserver.

use std::collections::BTreeMap;
use std::fs;

use nix::unistd::{getegid, geteuid};

use crate::exec_client::request;
use crate::harness::{Builder, Client, Daemon, temp_dir};

const STALE: [(&str, &str); 9] = [
    ("PROTO", "SCTP"),
    ("TCPREMOTEIP", "192.0.2.1"),
    ("TCPREMOTEPORT", "1"),
    ("TCPREMOTEHOST", "stale.example"),
    ("TCPLOCALIP", "192.0.2.2"),
    ("TCPLOCALPORT", "2"),
    ("IPCREMOTEPID", "1"),
    ("IPCREMOTEEUID", "4711"),
    ("IPCREMOTEEGID", "4711"),
];

/// A daemon whose own environment has such variables of another client.
fn with_stale(arguments: &[&str]) -> Builder {
    let builder = Daemon::with(arguments.iter().copied());
    STALE
        .iter()
        .fold(builder, |builder, (name, value)| builder.env(name, value))
}

/// The lines that set one of these variables.
fn told(lines: &str) -> BTreeMap<String, String> {
    let ours = |name: &str| name == "PROTO" || name.starts_with("TCP") || name.starts_with("IPC");
    let pairs = lines.lines().filter_map(|line| line.split_once('='));
    let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    owned.filter(|(name, _)| ours(name)).collect()
}

fn map<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn of_this_process() -> BTreeMap<String, String> {
    map([
        ("PROTO", "IPC".to_owned()),
        ("IPCREMOTEPID", std::process::id().to_string()),
        ("IPCREMOTEEUID", geteuid().to_string()),
        ("IPCREMOTEEGID", getegid().to_string()),
    ])
}

fn over_tcp(client: &Client, daemon: &Daemon, address: &str) -> BTreeMap<String, String> {
    map([
        ("PROTO", "TCP".to_owned()),
        ("TCPREMOTEIP", address.to_owned()),
        ("TCPREMOTEPORT", client.local_port().to_string()),
        ("TCPLOCALIP", address.to_owned()),
        ("TCPLOCALPORT", daemon.addr().port().to_string()),
    ])
}

/// The output of `env` in the answer of an exec door.
fn env(client: &mut Client) -> String {
    client.send([request(&["/usr/bin/env"]), b"0:,".to_vec()].concat());
    let answer = String::from_utf8(client.read_to_end()).unwrap();
    let output = answer.strip_prefix("6:stdout,").expect("output");
    output.split_once(':').expect("its length").1.to_owned()
}

#[test]
fn programs_of_an_exec_door_get_the_address_of_their_client() {
    let home = temp_dir();
    let path = home.path().join("exec.sock");
    let unix = path.to_str().unwrap();
    for flags in [
        &[][..],
        &["--clear-env"],
        &["--env", "TCPREMOTEIP=set", "--env", "PROTO=set"],
    ] {
        let daemon = with_stale(&["exec", unix]).args(flags).start();
        let mut expected = of_this_process();
        if flags.len() > 1 {
            expected.insert("TCPREMOTEIP".to_owned(), "set".to_owned());
        }
        assert_eq!(told(&env(&mut daemon.client())), expected, "{flags:?}");
        drop(daemon);
        for (listen, address) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
            let daemon = with_stale(&["exec", listen]).args(flags).start();
            let mut client = daemon.client();
            let expected = over_tcp(&client, &daemon, address);
            assert_eq!(told(&env(&mut client)), expected, "{flags:?}");
        }
    }
}

/// Where one socket takes both families, a client of IPv4 is one of IPv4.
#[test]
fn an_ipv4_client_of_an_ipv6_socket_appears_as_ipv4() {
    let socket = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let _daemon = with_stale(&["exec", "systemd", "--allow-program", "/usr/bin/env"])
        .inherit(socket)
        .start();
    let mut client = Client::connect(&crate::harness::Address::Tcp(([127, 0, 0, 1], port).into()));
    let found = told(&env(&mut client));
    assert_eq!(
        (found["TCPREMOTEIP"].as_str(), found["TCPLOCALIP"].as_str()),
        ("127.0.0.1", "127.0.0.1")
    );
}

#[test]
fn programs_of_a_command_door_get_the_address_of_the_client_that_began_them() {
    let home = temp_dir();
    let file = home.path().join("f.toml");
    let socket = home.path().join("sock");
    let text =
        |listen: &str| format!("[command.c]\nlisten = '{listen}'\n[command.c.commands.who]\ncmd = '/usr/bin/env'\n");
    fs::write(&file, text(&format!("unix:{}", socket.display()))).unwrap();
    let daemon = with_stale(&["run", "--config", file.to_str().unwrap()]).start();
    assert_eq!(told(&daemon.ask("who")), of_this_process());
    drop(daemon);
    fs::write(&file, text("127.0.0.1:0")).unwrap();
    let daemon = with_stale(&["run", "--config", file.to_str().unwrap()]).start();
    let mut client = daemon.client();
    client.send("who\n");
    let expected = over_tcp(&client, &daemon, "127.0.0.1");
    assert_eq!(told(&String::from_utf8(client.read_to_end()).unwrap()), expected);
}

#[test]
fn workers_get_no_address_of_a_client() {
    let worker = "sh -c 'while read -r line; do echo \"$PROTO$TCPREMOTEIP$TCPLOCALIP$IPCREMOTEPID.\"; done'";
    let daemon = with_stale(&["-n", "1", "-d", worker, "-p", "0"]).start();
    assert_eq!(daemon.ask("x"), ".\n");
    let session = with_stale(&["--mode", "session", "-n", "1", "-d", "env", "-p", "0"]).start();
    assert_eq!(told(&session.ask("")), BTreeMap::new());
}
