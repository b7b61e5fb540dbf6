//! The tunnel client against a server that speaks byte for byte as tcprouter's does.

use std::fs;
use std::io::Read;
use std::net::Shutdown;

use nix::sys::signal::Signal;

use crate::harness::{Daemon, temp_dir, wait_orphan};
use crate::route_peers::Backend;
use crate::tunnel_gateway::{Gateway, SECRET, exchange, greeting};
use crate::tunnel_peers::{DATA, FIN, GO_AWAY, RST, SYN, WINDOW_UPDATE, header};
use crate::upgrade::{signal, upgrade};

#[test]
fn a_client_greets_and_serves_streams_by_their_first_byte() {
    let (gateway, plain, tls) = (Gateway::new(), Backend::new(), Backend::new());
    let flags = ["-local-tls", &tls.address().to_string()];
    let daemon = gateway.start(plain.address(), &flags);
    let mut tunnel = gateway.greeted();
    exchange(&mut tunnel, 2, &plain);
    // Behind the header of a proxy, and in pieces of a byte.
    let first = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n\x16\x03";
    tunnel.send(header(WINDOW_UPDATE, SYN, 4, 0));
    for byte in first {
        for piece in [header(DATA, 0, 4, 1), vec![*byte]].concat() {
            tunnel.send([piece]);
        }
    }
    tunnel.send(header(WINDOW_UPDATE, FIN, 4, 0));
    let mut served = tls.accept();
    assert_eq!(served.read_to_end(), first);
    served.send("answer behind the end of the client");
    drop(served);
    assert_eq!(
        tunnel.read_to_end_of(4),
        (b"answer behind the end of the client".to_vec(), true)
    );
    let stats = daemon.usr1_until(|stats| stats.count("streams active") == 0);
    let counts = [
        "remotes",
        "remotes up",
        "connects",
        "connects failed",
        "streams total",
        "streams refused",
    ];
    assert_eq!(counts.map(|label| stats.count(label)), [1, 1, 1, 0, 2, 0]);
}

#[test]
fn a_service_that_is_away_costs_its_own_stream() {
    let (gateway, local) = (Gateway::new(), Backend::new());
    let gone = Backend::new().address().to_string();
    let daemon = gateway.start(local.address(), &["-local-tls", &gone]);
    let mut tunnel = gateway.greeted();
    tunnel.open(2, b"ping");
    let mut served = local.accept();
    served.expect("ping");
    tunnel.open(4, b"\x16\x03\x01");
    assert_eq!(tunnel.read_to_end_of(4), (Vec::new(), false));
    daemon.stderr_wait(&format!(
        "a client was not served: the local service {gone} cannot be reached: Connection refused"
    ));
    served.send("pong");
    drop(served);
    assert_eq!(tunnel.read_to_end_of(2), (b"pong".to_vec(), true));
    exchange(&mut tunnel, 6, &local);
    assert_eq!(daemon.usr1().count("streams refused"), 1);
}

#[test]
fn a_server_that_refuses_is_tried_again_and_the_secret_is_in_no_log_and_no_dump() {
    let (gateway, local) = (Gateway::new(), Backend::new());
    let daemon = gateway.start(local.address(), &["-backoff", "1"]);
    for _ in 0..2 {
        let mut tunnel = gateway.accept();
        tunnel.greet();
    }
    daemon.stderr_wait(
        "the server has closed the tunnel, as one does that does not know the secret; it is connected to again in",
    );
    // Bytes that are no frames.
    let mut tunnel = gateway.greeted();
    tunnel.send("HTTP/1.1 400 Bad Request\r\n\r\n");
    daemon.stderr_wait("the server has sent bytes that are no yamux frame (version 72)");
    let mut tunnel = gateway.greeted();
    exchange(&mut tunnel, 2, &local);
    let told = daemon.usr2().join("\n");
    assert!(!told.contains(SECRET), "{told}");
    daemon.signal(Signal::SIGTERM);
    let (status, statistics, log) = daemon.finish();
    assert!(status.success(), "{status}");
    assert!(
        !statistics.contains(SECRET) && !log.contains(SECRET),
        "{statistics}{log}"
    );
}

#[test]
fn a_server_that_goes_away_is_connected_to_at_once_and_its_streams_stay() {
    let (gateway, local) = (Gateway::new(), Backend::new());
    let daemon = gateway.start(local.address(), &[]);
    let mut old = gateway.greeted();
    old.open(2, b"ping");
    let mut served = local.accept();
    served.expect("ping");
    old.send(header(GO_AWAY, 0, 0, 0));
    let mut new = gateway.greeted();
    exchange(&mut new, 2, &local);
    served.send("pong");
    drop(served);
    assert_eq!(old.read_to_end_of(2), (b"pong".to_vec(), true));
    old.send(header(WINDOW_UPDATE, FIN, 2, 0));
    // The old connection is closed behind its last stream.
    let mut rest = Vec::new();
    old.stream.read_to_end(&mut rest).expect("the end of the connection");
    assert_eq!(daemon.usr1().count("remotes up"), 1);
}

#[test]
fn a_session_that_is_cut_in_the_middle_of_a_frame_ends_its_streams_and_comes_back() {
    let (gateway, local) = (Gateway::new(), Backend::new());
    let daemon = gateway.start(local.address(), &[]);
    let mut tunnel = gateway.greeted();
    tunnel.open(2, b"ping");
    let mut served = local.accept();
    served.expect("ping");
    tunnel.send([&header(DATA, 0, 2, 1000)[..], b"a part"].concat());
    served.expect("a part");
    // Not closed over unread frames, which would be a reset.
    tunnel.stream.shutdown(Shutdown::Write).expect("shutdown");
    served.expect_reset();
    daemon.stderr_wait("the tunnel was cut in the middle of a frame");
    exchange(&mut gateway.greeted(), 2, &local);
}

#[test]
fn hup_keeps_the_tunnel_and_changes_the_service_and_a_new_secret_makes_a_new_tunnel() {
    let (gateway, first, second) = (Gateway::new(), Backend::new(), Backend::new());
    let home = temp_dir();
    let (file, secret) = (home.path().join("iotcpd.toml"), home.path().join("secret"));
    fs::write(&secret, format!("{SECRET}\n")).expect("a file");
    let write = |local: &Backend| {
        let (remote, local, secret) = (gateway.address(), local.address(), secret.display());
        let text = format!("[tunnel.t]\nremote = ['{remote}']\nlocal = '{local}'\nsecret-file = '{secret}'\n");
        fs::write(&file, text).expect("a file");
    };
    write(&first);
    let daemon = Daemon::with(["run", "--config", file.to_str().expect("UTF-8")]).spawn();
    let mut tunnel = gateway.greeted();
    exchange(&mut tunnel, 2, &first);
    write(&second);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    exchange(&mut tunnel, 4, &second);
    fs::write(&secret, "another\n").expect("a file");
    daemon.signal(Signal::SIGHUP);
    let mut new = gateway.accept();
    let _ = new.frame();
    assert_eq!(new.frame().1, greeting("another"));
}

/// As one does that is of this program, and does not know the secret.
#[test]
fn a_server_that_goes_away_again_and_again_is_waited_for() {
    let (gateway, local) = (Gateway::new(), Backend::new());
    let daemon = gateway.start(local.address(), &["-backoff", "1"]);
    for _ in 0..3 {
        gateway.greeted().send(header(GO_AWAY, 0, 0, 0));
    }
    daemon.stderr_wait(
        "the server has gone away, as one does that does not know the secret; it is connected to again in",
    );
    exchange(&mut gateway.greeted(), 2, &local);
    let stats = daemon.usr1();
    assert_eq!(
        ["connects", "servers gone away"].map(|label| stats.count(label)),
        [4, 3]
    );
}

/// Its service has nothing to say, and would be kept until idle-timeout.
#[test]
fn a_client_that_is_gone_behind_its_end_costs_its_service_no_longer() {
    let (gateway, local) = (Gateway::new(), Backend::new());
    let daemon = gateway.start(local.address(), &[]);
    let mut tunnel = gateway.greeted();
    let (mut first, mut second) = (tunnel.begin(2, &local), tunnel.begin(4, &local));
    for (stream, served) in [(2, &mut first), (4, &mut second)] {
        tunnel.send(header(WINDOW_UPDATE, FIN, stream, 0));
        assert_eq!(served.read_to_end(), b"");
    }
    assert_eq!(daemon.usr1().count("streams active"), 2);
    tunnel.send(header(WINDOW_UPDATE, RST, 2, 0));
    daemon.usr1_until(|stats| stats.count("streams active") == 1);
    // The other one loses its whole tunnel.
    drop(tunnel);
    daemon.usr1_until(|stats| stats.count("streams active") == 0);
}

#[test]
fn term_lets_everything_be_written_first() {
    const STREAMS: u32 = 40;
    let (gateway, local) = (Gateway::new(), Backend::new());
    let daemon = gateway.start(local.address(), &[]);
    let mut tunnel = gateway.greeted();
    let answer = vec![b'a'; 200_000];
    for stream in (1..=STREAMS).map(|number| 2 * number) {
        let mut served = tunnel.begin(stream, &local);
        tunnel.send(header(WINDOW_UPDATE, FIN, stream, 0));
        let answer = answer.clone();
        // The tunnel is full from some stream on, and takes no more of it.
        std::thread::spawn(move || served.send(answer));
    }
    daemon.usr1_until(|stats| stats.count("streams total") == u64::from(STREAMS));
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("draining");
    let mut bytes = Vec::new();
    tunnel.stream.read_to_end(&mut bytes).expect("the end of the tunnel");
    let (mut rest, mut data, mut ends, mut went_away) = (&bytes[..], 0, 0, false);
    while let Some((frame, behind)) = rest.split_first_chunk::<12>() {
        let length = u32::from_be_bytes([frame[8], frame[9], frame[10], frame[11]]) as usize;
        ends += u32::from(u16::from_be_bytes([frame[2], frame[3]]) & FIN != 0);
        went_away |= frame[1] == GO_AWAY;
        let payload = if frame[1] == DATA { length } else { 0 };
        data += payload;
        rest = behind.get(payload..).expect("a whole frame");
    }
    assert_eq!((data, ends, went_away), (40 * answer.len(), STREAMS, true));
    assert!(rest.is_empty());
    let (status, ..) = daemon.finish();
    assert!(status.success(), "{status}");
}

#[test]
fn clients_beyond_max_streams_are_turned_away_and_hup_raises_it() {
    let (gateway, local) = (Gateway::new(), Backend::new());
    let home = temp_dir();
    let file = home.path().join("iotcpd.toml");
    let write = |most: u32| {
        let (remote, local) = (gateway.address(), local.address());
        let keys = format!("remote = ['{remote}']\nlocal = '{local}'\nsecret = '{SECRET}'\nmax-streams = {most}\n");
        fs::write(&file, format!("[tunnel.t]\n{keys}")).expect("a file");
    };
    write(2);
    let daemon = Daemon::with(["run", "--config", file.to_str().expect("UTF-8")]).spawn();
    let mut tunnel = gateway.greeted();
    let _served = [2, 4].map(|stream| tunnel.begin(stream, &local));
    tunnel.open(6, b"ping");
    assert_eq!(tunnel.read_to_end_of(6), (Vec::new(), false));
    daemon.stderr_wait("a client was turned away: there are 2, as many as max-streams allows");
    write(3);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    exchange(&mut tunnel, 8, &local);
    let stats = daemon.usr1();
    assert_eq!(
        ["streams total", "streams limited"].map(|label| stats.count(label)),
        [3, 1]
    );
}

#[test]
fn a_secret_on_the_command_line_is_overwritten_there_and_known_to_a_successor() {
    let (gateway, local) = (Gateway::new(), Backend::new());
    let daemon = gateway.start(local.address(), &[]);
    let _first = gateway.greeted();
    let told = daemon.stderr_wait("--secret: ");
    assert!(told.contains("where it is overwritten"), "{told}");
    let shown = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).expect("a command line");
    let is_hidden = |pid: i32| {
        let line = String::from_utf8_lossy(&shown(pid)).into_owned();
        assert!(!line.contains(SECRET), "{line}");
        line.contains(&"x".repeat(SECRET.len()))
    };
    assert!(is_hidden(daemon.pid()));
    daemon.children().into_iter().for_each(|child| {
        is_hidden(child);
    });
    let successor = upgrade(&daemon, daemon.pid(), 1);
    let mut second = gateway.greeted();
    exchange(&mut second, 2, &local);
    assert!(is_hidden(successor));
    assert_eq!(daemon.wait_exit().code(), Some(0));
    signal(successor, Signal::SIGTERM);
    wait_orphan(successor);
}
