//! The route door and other doors of the same process: connections that are handed over to a pool, an exec or a command
//! door, by the Host of their first request or as plain bytes.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::exec_client::request;
use crate::harness::{Address, Client, Daemon, Gate, Installation, TempDir, temp_dir, worker_command};
use crate::route_peers::{UNRECOGNIZED_NAME, hello};
use crate::upgrade::upgrade;

/// A file with several doors, which can be written again.
pub(crate) struct Doors {
    _home: TempDir,
    path: PathBuf,
}

impl Doors {
    pub(crate) fn new(text: &str) -> Self {
        let home = temp_dir();
        let doors = Self {
            path: home.path().join("iotcpd.toml"),
            _home: home,
        };
        doors.write(text);
        doors
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(&self.path, text).expect("write the file");
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("temporary paths are UTF-8")
    }

    #[track_caller]
    pub(crate) fn start(&self) -> Daemon {
        Daemon::with(["run", "--config", self.path()]).start()
    }

    /// The mistakes that `check` finds, without the name of the file.
    #[track_caller]
    pub(crate) fn mistakes(&self) -> String {
        let (status, _, told) = Daemon::with(["check", "--config", self.path()]).spawn().finish();
        assert!(!status.success(), "no mistake was found");
        told.replace(self.path(), "f")
    }
}

/// A route door, whose listener for TLS is its first and that for HTTP its second, with these keys.
pub(crate) fn route(keys: &str) -> String {
    format!("[route.web]\ntls-listen = '127.0.0.1:0'\nhttp-listen = '127.0.0.1:0'\n{keys}\n")
}

/// A service of it, with these keys.
pub(crate) fn service(name: &str, keys: &str) -> String {
    format!("[route.web.services.'{name}']\n{keys}\n")
}

/// A pool of one scripted worker that has no listener of its own, with these keys.
pub(crate) fn pool(name: &str, keys: &str) -> String {
    let worker = worker_command(&[]);
    format!(
        "[pool.{name}]\nhanded-over = true\nnum-daemons = 1\nqueue-timeout = '60s'\ndaemon = '''{worker}'''\n{keys}\n"
    )
}

/// All that comes back on a connection that begins with these bytes.
#[track_caller]
fn answer(address: &Address, bytes: impl AsRef<[u8]>) -> String {
    answer_to(Client::connect(address), bytes)
}

#[track_caller]
fn answer_to(mut client: Client, bytes: impl AsRef<[u8]>) -> String {
    // A client that is refused may find out while it sends.
    client.try_send(bytes).ok();
    String::from_utf8_lossy(&client.read_to_end_or_reset()).into_owned()
}

/// A daemon whose plain clients come to a pool, with these keys of the two doors.
#[track_caller]
fn one_pool(of_route: &str, of_pool: &str) -> (Daemon, Doors) {
    let doors = Doors::new(
        &[
            route(of_route),
            service("CATCH_ALL", "door = 'echo'"),
            pool("echo", of_pool),
        ]
        .concat(),
    );
    (doors.start(), doors)
}

/// Such pools write what they have gathered at the end of a turn of the loop, behind which nothing else happens here.
#[test]
fn a_pool_that_writes_ahead_or_keeps_its_clients_answers_without_another_event() {
    for keys in ["pipeline = 4", "persistent = true", "pipeline = 4\npersistent = true"] {
        let (daemon, _doors) = one_pool("", keys);
        for _ in 0..3 {
            let mut client = Client::connect(&daemon.addr());
            client.send("echo here\n");
            assert_eq!(client.read_line(), "here", "{keys}");
        }
    }
}

// ---- what is handed over ---------------------------------------------------------------------------------------

#[test]
fn plain_bytes_and_requests_of_a_name_come_to_their_pools_unchanged() {
    let text = [
        route(""),
        service("a.example", "door = 'first'"),
        service("*.b.example", "door = 'second'"),
        service("CATCH_ALL", "door = 'echo'"),
        pool("first", "error-reply = 'first\\n'\nmax-request = '10'"),
        pool("second", "error-reply = 'second\\n'\nmax-request = '10'"),
        pool("echo", ""),
    ];
    let doors = Doors::new(&text.concat());
    let daemon = doors.start();
    let (tls, http) = (daemon.nth_addr(1), daemon.nth_addr(2));
    assert_eq!(answer(&tls, "echo at once\n"), "at once\n");
    for number in 0..20 {
        assert_eq!(answer(&tls, format!("echo {number}\n")), format!("{number}\n"));
    }
    let mut slow = Client::connect(&tls);
    for byte in "echo byte by byte\n".bytes() {
        slow.send([byte]);
    }
    assert_eq!(slow.read_to_end(), b"byte by byte\n");
    let head = |host: &str| format!("GET /0123456789 HTTP/1.1\r\nHost: {host}\r\n\r\n");
    assert_eq!(answer(&http, head("a.example")), "first\n");
    assert_eq!(answer(&http, head("x.b.example:80")), "second\n");
    assert!(answer(&http, head("other.example")).starts_with("unknown GET"));
    // TLS without a name leads to a door that speaks none.
    assert_eq!(answer_bytes(&tls, &hello("a.example")), UNRECOGNIZED_NAME);
    let stats = daemon.usr1_of("web");
    assert_eq!(
        (stats.count("routes total"), stats.count("routes handed over")),
        (26, 25)
    );
    assert_eq!((stats.count("connections"), stats.count("hand-overs failed")), (0, 0));
    assert_eq!((stats.count("routes plain"), stats.count("routes http")), (22, 3));
}

#[track_caller]
fn answer_bytes(address: &Address, bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::connect(address);
    client.send(bytes);
    client.read_to_end()
}

#[test]
fn a_client_that_ends_at_once_gets_its_answer_and_one_that_resets_leaves_nothing_behind() {
    let (daemon, _doors) = one_pool("", "");
    let tls = daemon.addr();
    let mut client = Client::connect(&tls);
    client.send("echo and the end\n");
    client.half_close();
    assert_eq!(client.read_to_end(), b"and the end\n");
    for _ in 0..5 {
        let mut client = Client::connect(&tls);
        client.send("echo");
        client.reset();
    }
    daemon.usr1_until(|stats| stats.count("routes total") == 6 && stats.count("connections") == 0);
    while daemon.usr1_of("echo").count("connections") > 0 {}
    assert_eq!(answer(&tls, "echo still there\n"), "still there\n");
}

#[test]
fn a_kept_connection_stays_with_its_pool() {
    let (daemon, _doors) = one_pool("hello-timeout = '500ms'", "persistent = true");
    let mut client = Client::connect(&daemon.addr());
    for number in 0..50 {
        client.send(format!("echo {number}\n"));
        assert_eq!(client.read_line(), number.to_string());
    }
    assert_eq!(daemon.usr1_of("web").count("connections"), 0, "its place is free");
    assert_eq!(daemon.usr1_of("echo").count("connections"), 1);
}

// ---- the rules of the receiving door ---------------------------------------------------------------------------

#[test]
fn the_lists_of_the_receiving_door_are_held_against_the_client() {
    let of_pool = "deny = ['127.0.0.66', '192.0.2.66']";
    let (daemon, _doors) = one_pool("accept-proxy = '127.0.0.5'", of_pool);
    let tls = daemon.addr();
    let from = |last: u8| Client::connect_from(Ipv4Addr::new(127, 0, 0, last), &tls);
    assert_eq!(answer_to(from(7), "echo hello\n"), "hello\n");
    assert_eq!(answer_to(from(66), "echo hello\n"), "");
    let told = daemon.stderr_wait("handed over by web): not allowed by --allow and --deny");
    assert!(told.contains("refused 127.0.0.66:"), "{told}");
    let by_proxy = |client: &str| format!("PROXY TCP4 {client} 203.0.113.1 5 443\r\necho hello\n");
    assert_eq!(answer_to(from(5), by_proxy("192.0.2.7")), "hello\n");
    assert_eq!(answer_to(from(5), by_proxy("192.0.2.66")), "");
    daemon.stderr_wait("refused 192.0.2.66:5 (by way of 127.0.0.5:");
    assert_eq!(daemon.usr1_of("echo").count("refused denied"), 2);
}

#[test]
fn the_limits_of_the_receiving_door_hold_for_what_is_handed_over() {
    let gate = Gate::new();
    let of_pool = "max-connections = 2\nmax-connections-per-ip = 1\nerror-reply = 'full\\n'";
    let (daemon, _doors) = one_pool("max-connections = 1", of_pool);
    let tls = daemon.addr();
    let from = |last: u8| Client::connect_from(Ipv4Addr::new(127, 0, 0, last), &tls);
    let mut first = from(7);
    first.send(format!("wait {} first\n", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(answer_to(from(7), "echo second\n"), "full\n");
    let mut second = from(8);
    second.send("echo second\n");
    while daemon.usr1_of("echo").count("connections") < 2 {}
    assert_eq!(answer_to(from(9), "echo third\n"), "full\n");
    daemon.stderr_wait("handed over by web): as many connections as --max-connections-per-ip allows");
    daemon.stderr_wait("handed over by web): as many connections as --max-connections allows");
    arrival.open();
    assert_eq!(first.read_to_end(), b"first\n");
    assert_eq!(second.read_to_end(), b"second\n");
    while daemon.usr1_of("echo").count("connections") > 0 {}
    assert_eq!(answer_to(from(7), "echo free again\n"), "free again\n");
    let stats = daemon.usr1_of("echo");
    assert_eq!(
        (stats.count("refused max-conn"), stats.count("refused max-per-ip")),
        (1, 1)
    );
}

#[test]
fn an_exec_or_command_door_takes_what_is_handed_over_only_if_its_file_says_so() {
    let text = |exec: &str, command: &str| {
        [
            route(""),
            service("CATCH_ALL", "door = 'run'"),
            service("c.example", "door = 'named'"),
            format!("[exec.run]\n{exec}\n"),
            format!("[command.named]\n{command}\n[command.named.commands.GET]\ncmd = '/bin/echo served'\n"),
        ]
        .concat()
    };
    let listen = "listen = '127.0.0.1:0'";
    let doors = Doors::new(&text(listen, listen));
    let told = doors.mistakes();
    for line in [
        "f:6:8: door: the exec door `run` takes no connections that another door hands over; write handed-over = true in \
         [exec.run], and say with allow-program what may be run",
        "f:8:8: door: the command door `named` takes no connections that another door hands over; write handed-over = true \
         in [command.named]",
    ] {
        assert!(told.contains(line), "{told}");
    }
    doors.write(&text("handed-over = true", "handed-over = true"));
    let told = doors.mistakes();
    assert!(
        told.contains("handed-over: whoever reached another door could run anything here"),
        "{told}"
    );
    doors.write(&text(
        "handed-over = true\nallow-program = '/bin/echo'",
        "handed-over = true",
    ));
    let daemon = doors.start();
    let asked = [request(&["/bin/echo", "served"]), b"0:,".to_vec()].concat();
    let told = answer(&daemon.nth_addr(1), &asked);
    assert!(told.contains("7:served\n,"), "{told}");
    let told = answer(&daemon.nth_addr(2), "GET / HTTP/1.0\r\nHost: c.example\r\n\r\n");
    assert!(told.contains("GET"), "{told}");
    assert_eq!(daemon.usr1_of("web").count("routes handed over"), 2);
}

#[test]
fn mistakes_in_the_name_of_a_door_are_found_with_the_file() {
    let text = [
        route(""),
        service("a.example", "door = 'ech'"),
        service("b.example", "door = 'web'"),
        service("c.example", "door = 'other'"),
        service(
            "d.example",
            "door = 'echo'\naddr = '127.0.0.1'\nhttp-port = 80\nsend-proxy = 'v1'",
        ),
        "[route.other]\nhttp-listen = '127.0.0.1:0'\n[route.other.services.CATCH_ALL]\ndoor = 'nowhere'\n".to_owned(),
        pool("echo", ""),
    ];
    let told = Doors::new(&text.concat()).mistakes();
    for line in [
        "f:6:8: door: there is no door `ech` in this file; did you mean `echo`?",
        "f:8:8: door: `web` is this very door, whose connections would come back to it; ",
        "f:10:8: door: `other` is a route door, which takes no connections that another one hands over; ",
        "f:13:8: addr: connections go to the door `echo` of this process, and to no server; leave out one of addr and door",
        "f:14:13: http-port: connections go to the door `echo`",
        "f:15:14: send-proxy: connections go to the door `echo`",
        "f:19:8: door: there is no door `nowhere` in this file; describe it in a table such as [pool.nowhere]",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
}

// ---- changes and ends ------------------------------------------------------------------------------------------

#[test]
fn a_changed_file_is_held_against_the_same_rules_and_decides_what_comes_then() {
    let (daemon, doors) = one_pool("", "");
    let tls = daemon.addr();
    let mut early = Client::connect(&tls);
    early.send("");
    let without = [route(""), service("CATCH_ALL", "door = 'echo'"), pool("other", "")].concat();
    doors.write(&without);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("door: there is no door `echo` in this file; ");
    assert_eq!(answer(&tls, "echo as before\n"), "as before\n");
    doors.write(&without.replace("'echo'", "'other'"));
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait_nth("the configuration was read again", 2);
    daemon.stderr_wait("echo: not in the configuration any more");
    early.send("echo other\n");
    assert_eq!(early.read_to_end(), b"other\n");
    assert_eq!(answer(&tls, "echo other\n"), "other\n");
}

#[test]
fn a_client_that_was_accepted_before_the_end_is_served_whichever_door_it_is_for() {
    let gate = Gate::new();
    let (daemon, _doors) = one_pool("", "stop-timeout = '600s'");
    let tls = daemon.addr();
    let mut busy = Client::connect(&tls);
    busy.send(format!("wait {} first\n", gate.path()));
    let arrival = gate.arrival();
    let mut opening = Client::connect(&tls);
    daemon.usr1_until(|stats| stats.count("connections") == 1);
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("echo: draining");
    opening.send("echo second\n");
    arrival.open();
    assert_eq!(busy.read_to_end(), b"first\n");
    assert_eq!(opening.read_to_end(), b"second\n");
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn a_predecessor_serves_what_it_hands_over() {
    let gate = Gate::new();
    let text = [route(""), service("CATCH_ALL", "door = 'echo'"), pool("echo", "")].concat();
    let doors = Doors::new(&text);
    let installation = Installation::new();
    let daemon = Daemon::with(["run", "--config", doors.path()])
        .installed_at(&installation.program())
        .start();
    let tls = daemon.addr();
    let mut busy = Client::connect(&tls);
    busy.send(format!("wait {} first\n", gate.path()));
    let arrival = gate.arrival();
    let mut opening = Client::connect(&tls);
    daemon.usr1_until(|stats| stats.count("connections") == 1);
    upgrade(&daemon, daemon.pid(), 1);
    assert_eq!(answer(&tls, "echo new\n"), "new\n");
    opening.send("echo second\n");
    arrival.open();
    assert_eq!(busy.read_to_end(), b"first\n");
    assert_eq!(opening.read_to_end(), b"second\n");
    assert_eq!(daemon.wait_exit().code(), Some(0));
}
