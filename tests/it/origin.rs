//! Whose address counts: clients of other machines, of proxies there and here, in clear and over TLS, held against each
//! list of each door.
//!
//! The tests run in a network of their own, in which this machine has addresses of three machines: a connection from one of
//! them comes from there, as far as the daemon can see. What an origin comes to in every combination is tested beside its
//! code (`net::origin`); here each rule is held by a daemon.

use std::net::Ipv4Addr;
use std::process::Command;

use crate::command::{ECHO, torc};
use crate::exec_client::request;
use crate::harness::{
    Certificate, Client, Daemon, is_over_tls, leave_daemons_to_another_process, over_tls, worker_command,
};

/// A client of another machine.
const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// A proxy on another machine.
const PROXY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);
/// A proxy on this machine.
const LOCAL_PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Runs a test of this file once more, in a network of its own, and then it runs to its end.
#[track_caller]
fn in_own_network(test: &str, run: impl FnOnce()) {
    const VARIABLE: &str = "IOTCPD_TEST_NETWORK";
    if std::env::var_os(VARIABLE).is_some() {
        return run();
    }
    leave_daemons_to_another_process();
    let test = if is_over_tls() {
        format!("origin::over_tls::{test}")
    } else {
        format!("origin::{test}")
    };
    let script = format!(
        "ip link set lo up && ip address add {REMOTE}/32 dev lo && ip address add {PROXY}/32 dev lo && exec \"$0\" \"$@\""
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env(VARIABLE, "own")
        .output()
        .expect("unshare, of util-linux");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{}{}", said[0], said[1]);
    assert!(said[0].contains("test result: ok. 1 passed"), "{}", said[0]);
}

/// A connection from this address, which begins with these bytes.
#[track_caller]
fn connect(daemon: &Daemon, from: Ipv4Addr, header: &[u8]) -> Client {
    let address = daemon.addr();
    let mut client = Client::connect_from(from, &address.without_tls());
    client.send(header);
    client.put_on_tls(&address)
}

/// The answer to this request on a connection from this address; nothing if it is refused.
#[track_caller]
fn ask(daemon: &Daemon, from: Ipv4Addr, header: &[u8], request: &[u8]) -> String {
    let mut client = connect(daemon, from, header);
    // A client that is refused may find out while it sends.
    let _ = client.try_send(request);
    String::from_utf8_lossy(&client.read_to_end_or_reset()).into_owned()
}

/// The answer to a request on a connection from this address that is admitted.
#[track_caller]
fn first_line(daemon: &Daemon, from: Ipv4Addr, header: &[u8]) -> String {
    let mut client = connect(daemon, from, header);
    client.send("echo in\n");
    client.read_line()
}

fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, body].concat()
}

/// A kind of header, and the client that it asserts; `None` if it does not name one.
fn headers() -> Vec<(Vec<u8>, Option<Ipv4Addr>)> {
    let addresses = |client: Ipv4Addr| [&client.octets()[..], &[203, 0, 113, 1, 0xdc, 4, 1, 187]].concat();
    let mut headers = vec![
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN 127.0.0.1 127.0.0.1 5 6\r\n".to_vec(), None),
        (version_2(0x21, 0x00, &addresses(LOCAL)), None),
        (version_2(0x21, 0x31, &[0; 216]), None),
    ];
    for client in [LOCAL, REMOTE] {
        let line = format!("PROXY TCP4 {client} 203.0.113.1 56324 443\r\n");
        let mapped = format!("PROXY TCP6 ::ffff:{client} ::1 56324 443\r\n");
        headers.push((line.into_bytes(), Some(client)));
        headers.push((mapped.into_bytes(), Some(client)));
        headers.push((version_2(0x21, 0x11, &addresses(client)), Some(client)));
    }
    headers
}

fn own_connection() -> Vec<u8> {
    version_2(0x20, 0x11, &[127, 0, 0, 1, 127, 0, 0, 1, 1, 2, 3, 4])
}

const PROXIES: [&str; 4] = ["--accept-proxy", "192.0.2.5", "--accept-proxy", "127.0.0.5"];

/// One request for each door, with a part of its answer.
fn doors(flags: &[&str]) -> [(Daemon, Vec<u8>, &'static str); 3] {
    let command = worker_command(&[]);
    let pool = [
        "-n",
        "1",
        "-d",
        &command,
        "--queue-timeout",
        "60s",
        "--listen",
        "127.0.0.1:0",
    ];
    let exec = ["exec", "127.0.0.1:0", "--allow-program", "/bin/echo"];
    [
        (
            Daemon::with(pool).args(flags).start(),
            b"echo served\n".to_vec(),
            "served\n",
        ),
        (
            Daemon::with(exec).args(flags).start(),
            [request(&["/bin/echo", "served"]), b"0:,".to_vec()].concat(),
            "7:served\n,",
        ),
        (torc(&[ECHO]).serve(flags), b"echo\nserved\nb\n".to_vec(), "served b\n"),
    ]
}

#[test]
fn the_access_lists_of_each_door_hold_the_client_and_no_other_address() {
    in_own_network(
        "the_access_lists_of_each_door_hold_the_client_and_no_other_address",
        || {
            let flags = [&["--allow", "127.0.0.0/8"][..], &PROXIES].concat();
            for (daemon, request, served) in doors(&flags) {
                let is_served = |from, header: &[u8]| ask(&daemon, from, header, &request).contains(served);
                assert!(is_served(LOCAL, b""));
                assert!(!is_served(REMOTE, b""), "another machine");
                daemon.stderr_wait("refused 192.0.2.7:");
                for (header, client) in headers() {
                    for proxy in [PROXY, LOCAL_PROXY] {
                        let expected = client == Some(LOCAL);
                        assert_eq!(is_served(proxy, &header), expected, "{proxy} {}", header.escape_ascii());
                    }
                }
                // The proxy itself is held against the list by its own address, whatever addresses the header has.
                assert!(!is_served(PROXY, &own_connection()));
                assert!(is_served(LOCAL_PROXY, &own_connection()));
            }
        },
    );
}

#[test]
fn the_limit_for_one_address_counts_clients_where_they_are_known_and_else_the_proxy() {
    let name = "the_limit_for_one_address_counts_clients_where_they_are_known_and_else_the_proxy";
    in_own_network(name, || {
        let flags = [&["--max-connections-per-ip", "1"][..], &PROXIES].concat();
        let command = worker_command(&[]);
        let daemon = Daemon::with(["-n", "1", "-d", &command, "--persistent", "--listen", "127.0.0.1:0"])
            .args(&flags)
            .start();
        // The place of the client that holds it, and the connections that come to the same place.
        let [unknown, local, remote] = [0, 4, 7].map(|number| headers().swap_remove(number));
        for ((proxy, (header, client)), other) in [
            ((PROXY, &local), Some(REMOTE)),
            ((PROXY, &remote), None),
            ((LOCAL_PROXY, &unknown), None),
        ] {
            let mut holder = connect(&daemon, proxy, header);
            holder.send("echo in\n");
            assert_eq!(holder.read_line(), "in");
            for (header, same) in headers() {
                let same_place = if client.is_some() {
                    same == *client
                } else {
                    same.is_none()
                };
                let answer = if same_place {
                    ask(&daemon, proxy, &header, b"echo in\n")
                } else {
                    first_line(&daemon, proxy, &header)
                };
                assert_eq!(
                    answer,
                    if same_place { "ERR\n" } else { "in" },
                    "{}",
                    header.escape_ascii()
                );
            }
            // Directly, the client's place is taken as well.
            if let Some(client) = client {
                let answer = ask(&daemon, *client, b"", b"echo in\n");
                assert_eq!(answer, if is_over_tls() { "" } else { "ERR\n" });
            }
            if let Some(other) = other {
                assert_eq!(first_line(&daemon, other, b""), "in");
            }
            drop(holder);
            daemon.usr1_until(|stats| stats.count("connections") == 0);
        }
    });
}
#[test]
fn each_door_says_that_a_limit_is_reached_and_then_its_end() {
    let flags = [&["--max-connections-per-ip", "1"][..], &PROXIES].concat();
    let [local, remote] = [4, 7].map(|number| headers().swap_remove(number).0);
    for ((daemon, ..), refusal) in doors(&flags)
        .into_iter()
        .zip(["ERR\n", "(--max-connections-per-ip)", "busy"])
    {
        let _holder = connect(&daemon, LOCAL_PROXY, &local);
        daemon.usr1_until(|stats| stats.count("connections") == 1);
        let said = connect(&daemon, LOCAL_PROXY, &local).read_to_end();
        assert!(String::from_utf8_lossy(&said).contains(refusal), "{said:?}");
        let _other = connect(&daemon, LOCAL_PROXY, &remote);
        daemon.usr1_until(|stats| stats.count("connections") == 2);
        let line = daemon.stderr_wait("--max-connections-per-ip");
        assert!(line.contains("refused 127.0.0.1:56324 (by way of 127.0.0.5:"), "{line}");
    }
}

const ANYTHING: &str = "it is another machine, which without --allow-program could run anything here";

/// A packet filter may lead another machine to a loopback address, which needs no list of programs.
#[test]
fn without_a_list_of_programs_an_exec_door_runs_nothing_for_another_machine() {
    in_own_network(
        "without_a_list_of_programs_an_exec_door_runs_nothing_for_another_machine",
        || {
            let daemon = Daemon::with(["exec", "127.0.0.1:0"]).start();
            let request = [request(&["echo", "served"]), b"0:,".to_vec()].concat();
            assert!(ask(&daemon, LOCAL, b"", &request).contains("7:served\n,"));
            assert_eq!(ask(&daemon, REMOTE, b"", &request), "");
            let line = daemon.stderr_wait(ANYTHING);
            assert!(line.contains("refused 192.0.2.7:"), "{line}");
            assert_eq!(daemon.usr1().count("refused denied"), 1);
        },
    );
}

#[test]
fn no_certificate_makes_a_client_of_another_machine_local() {
    in_own_network("no_certificate_makes_a_client_of_another_machine_local", || {
        for subject in ["127.0.0.1", "localhost", "root", "unix"] {
            let certificate = Certificate::of_clients(subject);
            let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
            let daemon = Daemon::with(["exec", "tls:127.0.0.1:0", "--cert", &cert, "--key", &key])
                .args(&["--client-ca", &cert, "--allow-subject", subject, "--deny", "192.0.2.5"])
                .start();
            let ask = |from| {
                let mut client = Client::connect_from(from, &daemon.addr()).secure(&certificate);
                let _ = client.try_send([request(&["echo", "served"]), b"0:,".to_vec()].concat());
                String::from_utf8_lossy(&client.read_to_end_or_reset()).into_owned()
            };
            assert!(ask(LOCAL).contains("7:served\n,"), "{subject}");
            assert_eq!(ask(REMOTE), "", "{subject}");
            let line = daemon.stderr_wait(ANYTHING);
            let named = format!(" (TLSv1.3, subject \"CN={subject}\"): ");
            assert!(line.contains("refused 192.0.2.7:") && line.contains(&named), "{line}");
            // Nor does it pass a list of addresses, which is held before it is shown.
            assert_eq!(Client::connect_from(PROXY, &daemon.addr()).read_to_end_or_reset(), b"");
            daemon.stderr_wait("refused 192.0.2.5:");
        }
    });
}

#[test]
fn programs_are_listed_wherever_a_proxy_or_another_machine_may_come_from() {
    let certificate = Certificate::of_clients("root");
    let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    let secured = ["--cert", &cert, "--key", &key];
    let asking = [
        "--cert",
        &cert,
        "--key",
        &key,
        "--client-ca",
        &cert,
        "--allow-subject",
        "root",
    ];
    for (listen, flags) in [
        ("0.0.0.0:0", &[][..]),
        ("[::]:0", &[]),
        ("*:0", &[]),
        ("tls:0.0.0.0:0", &secured),
        ("tls:*:0", &asking),
        ("127.0.0.1:0", &["--accept-proxy", "127.0.0.5"]),
        (
            "127.0.0.1:0",
            &["--accept-proxy", "127.0.0.5", "--accept-proxy-optional"],
        ),
        ("unix:@iotcpd-never", &["--accept-proxy", "unix"]),
    ] {
        let (status, _, said) = Daemon::with(["exec", listen]).args(flags).spawn().finish();
        assert_eq!(status.code(), Some(2), "{listen}: {said}");
        assert!(
            said.contains("could run anything") && said.contains("allow-program"),
            "{said}"
        );
    }
    let proxied = [&asking[..], &["--accept-proxy", "127.0.0.5"]].concat();
    let (status, _, said) = Daemon::with([&["exec", "tls:127.0.0.1:0"][..], &proxied].concat())
        .spawn()
        .finish();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("--accept-proxy: whoever reached the proxy"), "{said}");
}

over_tls! {
    each_door_says_that_a_limit_is_reached_and_then_its_end,
    without_a_list_of_programs_an_exec_door_runs_nothing_for_another_machine,
    the_access_lists_of_each_door_hold_the_client_and_no_other_address,
    the_limit_for_one_address_counts_clients_where_they_are_known_and_else_the_proxy,
}
