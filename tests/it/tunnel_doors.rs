//! A tunnel client whose streams go to another door of the same process.

use crate::harness::Daemon;
use crate::route_doors::{Doors, pool};
use crate::route_peers::Backend;
use crate::tunnel_gateway::{Gateway, SECRET, Tunnel};
use crate::tunnel_peers::{FIN, WINDOW_UPDATE, header};

/// A tunnel door with these keys beside its server and its secret.
fn tunnel(gateway: &Gateway, keys: &str) -> String {
    let remote = gateway.address();
    format!("[tunnel.t]\nremote = ['{remote}']\nsecret = '{SECRET}'\n{keys}\n")
}

fn start(doors: &Doors) -> Daemon {
    Daemon::with(["run", "--config", doors.path()]).spawn()
}

/// The answer on a stream with these first bytes, and true for an end.
#[track_caller]
fn ask(tunnel: &mut Tunnel, stream: u32, bytes: impl AsRef<[u8]>) -> (String, bool) {
    tunnel.open(stream, bytes.as_ref());
    let (answer, has_ended) = tunnel.read_to_end_of(stream);
    if has_ended {
        tunnel.send(header(WINDOW_UPDATE, FIN, stream, 0));
    }
    (String::from_utf8_lossy(&answer).into_owned(), has_ended)
}

fn whole(answer: &str) -> (String, bool) {
    (answer.to_owned(), true)
}

fn reset() -> (String, bool) {
    (String::new(), false)
}

#[test]
fn streams_come_to_a_pool_that_has_no_port() {
    let gateway = Gateway::new();
    let doors = Doors::new(&[tunnel(&gateway, "local = 'door:echo'"), pool("echo", "")].concat());
    let daemon = start(&doors);
    let mut server = gateway.greeted();
    for stream in [2, 4, 6] {
        let answer = ask(&mut server, stream, format!("echo {stream}\n"));
        assert_eq!(answer, whole(&format!("{stream}\n")));
    }
    let stats = daemon.usr1_of("t");
    assert_eq!(
        ["streams total", "streams refused"].map(|label| stats.count(label)),
        [3, 0]
    );
    while daemon.usr1_of("t").count("streams active") + daemon.usr1_of("echo").count("connections") > 0 {}
}

#[test]
fn the_first_byte_chooses_between_a_service_and_a_door() {
    let (gateway, tls) = (Gateway::new(), Backend::new());
    let locals = format!("local = 'door:echo'\nlocal-tls = '{}'", tls.address());
    let doors = Doors::new(&[tunnel(&gateway, &locals), pool("echo", "")].concat());
    let _daemon = start(&doors);
    let mut server = gateway.greeted();
    server.open(2, b"\x16\x03\x01");
    tls.accept().expect(b"\x16\x03\x01");
    assert_eq!(ask(&mut server, 4, "echo plain\n"), whole("plain\n"));
}

/// A header is believed because the server of the tunnel sends it, and only where the file says that it does.
#[test]
fn the_lists_of_the_door_are_held_against_the_client_of_the_header() {
    let gateway = Gateway::new();
    let keys = "local = 'door:echo'\naccept-proxy = true";
    let lists = "allow = ['192.0.2.0/24', '127.0.0.0/8']";
    let doors = Doors::new(&[tunnel(&gateway, keys), pool("echo", lists)].concat());
    let daemon = start(&doors);
    let mut server = gateway.greeted();
    let from = |client: &str, rest: &str| format!("PROXY TCP4 {client} 203.0.113.1 5 443\r\n{rest}");
    assert_eq!(ask(&mut server, 2, from("192.0.2.7", "echo hello\n")), whole("hello\n"));
    ask(&mut server, 4, from("198.51.100.7", "echo hello\n"));
    let told = daemon.stderr_wait("handed over by t): not allowed by --allow and --deny");
    assert!(told.contains("refused 198.51.100.7:5 (by way of 127.0.0.1:"), "{told}");
    // That of the server's own machine is no address of this one.
    ask(&mut server, 6, from("127.0.0.1", "echo hello\n"));
    daemon.stderr_wait("refused unknown (by way of 127.0.0.1:");
    // In pieces of a byte, as it may come.
    server.send(header(WINDOW_UPDATE, 1, 8, 0));
    for byte in from("192.0.2.8", "echo slow\n").bytes() {
        server.send([&header(0, 0, 8, 1)[..], &[byte]].concat());
    }
    assert_eq!(server.read_to_end_of(8), (b"slow\n".to_vec(), true));
    // One without a header.
    assert_eq!(ask(&mut server, 10, "echo hello\n"), reset());
    daemon.stderr_wait("it does not begin with a PROXY header, which accept-proxy asks for");
    assert_eq!(ask(&mut server, 12, "PROXY TCP4 nonsense\r\n"), reset());
    assert_eq!(daemon.usr1_of("t").count("streams refused"), 2);
}

#[test]
fn without_accept_proxy_a_header_is_a_part_of_the_request_and_the_client_is_unknown() {
    let gateway = Gateway::new();
    let text = [
        tunnel(&gateway, "local = 'door:echo'"),
        pool("echo", "allow = ['127.0.0.0/8']"),
    ];
    let doors = Doors::new(&text.concat());
    let daemon = start(&doors);
    let mut server = gateway.greeted();
    ask(&mut server, 2, "PROXY TCP4 127.0.0.1 127.0.0.1 5 443\r\necho hello\n");
    let told = daemon.stderr_wait("not allowed by --allow and --deny");
    assert!(told.contains("refused unknown (by way of 127.0.0.1:"), "{told}");
}

#[test]
fn the_programs_of_an_exec_door_are_run_only_as_its_file_allows() {
    let gateway = Gateway::new();
    let text = |keys: &str| [tunnel(&gateway, "local = 'door:run'"), format!("[exec.run]\n{keys}\n")].concat();
    let doors = Doors::new(&text("listen = '127.0.0.1:0'"));
    let told = doors.mistakes();
    assert!(
        told.contains("f:4:9: local: the exec door `run` takes no connections that another door hands over"),
        "{told}"
    );
    doors.write(&text("handed-over = true"));
    let told = doors.mistakes();
    assert!(
        told.contains("handed-over: whoever reached another door could run anything here"),
        "{told}"
    );
    doors.write(&text("handed-over = true\nallow-program = ['/bin/echo']"));
    let _daemon = start(&doors);
    let mut server = gateway.greeted();
    let request = crate::exec_client::request(&["/bin/echo", "served"]);
    server.open(2, &request);
    let (answer, has_ended) = server.read_to_end_of(2);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(has_ended && answer.contains("served"), "{answer}");
}

#[test]
fn a_door_that_is_not_there_is_a_mistake_and_so_are_lists_of_headers_that_nothing_reads() {
    let gateway = Gateway::new();
    let doors = Doors::new(&[tunnel(&gateway, "local = 'door:ecko'"), pool("echo", "")].concat());
    let told = doors.mistakes();
    assert!(
        told.contains("f:4:9: local: there is no door `ecko` in this file; did you mean `echo`?"),
        "{told}"
    );
    doors.write(&tunnel(&gateway, "local = 'door:t'"));
    assert!(doors.mistakes().contains("`t` is this very door"));
    doors.write(&tunnel(&gateway, "local = '127.0.0.1:80'\naccept-proxy = true"));
    let told = doors.mistakes();
    assert!(
        told.contains("accept-proxy: no stream goes to a door of this process"),
        "{told}"
    );
    let flags = [
        "tunnel",
        "--remote",
        "127.0.0.1:1",
        "--secret",
        "s",
        "--local",
        "door:echo",
    ];
    let (status, _, told) = Daemon::with(flags).spawn().finish();
    assert!(
        !status.success() && told.contains("there is no door echo on a command line"),
        "{told}"
    );
}

/// The door of a file that was changed is another one for the next stream; a door that has gone resets its streams.
#[test]
fn a_door_that_leaves_at_hup_costs_the_streams_that_are_for_it() {
    let gateway = Gateway::new();
    let keys = |door: &str| tunnel(&gateway, &format!("local = 'door:{door}'"));
    let doors = Doors::new(&[keys("first"), pool("first", "")].concat());
    let daemon = start(&doors);
    let mut server = gateway.greeted();
    assert_eq!(ask(&mut server, 2, "echo first\n"), whole("first\n"));
    doors.write(&[keys("second"), pool("second", "")].concat());
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    assert_eq!(ask(&mut server, 4, "echo second\n"), whole("second\n"));
    assert_eq!(daemon.usr1_of("t").count("streams refused"), 0);
}
