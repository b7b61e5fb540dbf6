//! The PROXY protocol in front of every door: whose header is believed, what it decides, and what becomes of connections
//! whose header is wrong, late, or interrupted by the end of the daemon.

use std::fs;
use std::net::Ipv4Addr;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::command::{ECHO, torc};
use crate::exec_client::request;
use crate::harness::{Address, Client, Daemon, Installation, TempDir, temp_dir, worker_command};
use crate::upgrade::upgrade;

/// A line of version 1 for this client.
fn line(client: &str) -> String {
    format!("PROXY TCP4 {client} 203.0.113.1 56324 443\r\n")
}

/// A header of version 2 with this command and these fields behind the addresses of 192.0.2.7, port 56324.
fn binary(command: u8, fields: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 203, 0, 113, 1, 0xdc, 0x04, 1, 187];
    let length = u16::try_from(addresses.len() + fields.len()).unwrap().to_be_bytes();
    [
        b"\r\n\r\n\0\r\nQUIT\n",
        &[command, 0x11][..],
        &length,
        &addresses,
        fields,
    ]
    .concat()
}

const PROXIED: u8 = 0x21;
const LOCAL: u8 = 0x20;

/// A pool of one worker behind a proxy on 127.0.0.1.
#[track_caller]
fn pool(flags: &[&str]) -> Daemon {
    let flags = [&["--accept-proxy", "127.0.0.1", "--queue-timeout", "60s"], flags].concat();
    Daemon::pool(1, &worker_command(&[]), &flags)
}

/// Sends these bytes through the proxy, and reads to the end.
#[track_caller]
fn through(daemon: &Daemon, bytes: impl AsRef<[u8]>) -> String {
    let mut client = daemon.client();
    client.send(bytes);
    String::from_utf8_lossy(&client.read_to_end_or_reset()).into_owned()
}

/// The same for several pieces, each sent as a packet of its own.
#[track_caller]
fn in_pieces<'a>(daemon: &Daemon, pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut client = daemon.client();
    pieces.for_each(|piece| client.send(piece));
    String::from_utf8_lossy(&client.read_to_end()).into_owned()
}

/// A client that is no proxy.
#[track_caller]
fn directly(daemon: &Daemon) -> Client {
    Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), &daemon.addr())
}

/// A connection through the proxy that has sent a part of its header, which the daemon has read.
#[track_caller]
fn halfway(daemon: &Daemon, part: &str) -> Client {
    let mut client = daemon.client();
    client.send(part);
    let received = format!("received = {}", part.len());
    let by_way_of = format!("by way of = 127.0.0.1:{},", client.local_port());
    while !daemon
        .usr2()
        .iter()
        .any(|line| line.contains(&by_way_of) && line.contains(&received))
    {
        std::thread::yield_now();
    }
    client
}

// ---- the header ------------------------------------------------------------------------------------------------

#[test]
fn header_and_request_are_read_from_one_packet() {
    let daemon = pool(&[]);
    assert_eq!(through(&daemon, line("192.0.2.7") + "echo text\n"), "text\n");
    let request = [binary(PROXIED, b""), b"echo binary\n".to_vec()].concat();
    assert_eq!(through(&daemon, request), "binary\n");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("queries replied"), stats.count("refused proxy")), (2, 0));
}

#[test]
fn a_header_is_read_in_pieces_of_one_byte() {
    let daemon = pool(&[]);
    let text = (line("192.0.2.7") + "echo text\n").into_bytes();
    let bytes = [binary(PROXIED, &[4, 0, 2, 0, 0]), b"echo binary\n".to_vec()].concat();
    assert_eq!(in_pieces(&daemon, text.chunks(1)), "text\n");
    assert_eq!(in_pieces(&daemon, bytes.chunks(1)), "binary\n");
}

#[test]
fn log_and_dump_name_the_client_the_proxy_and_the_names_in_the_header() {
    let daemon = pool(&["--persistent", "--max-request", "16"]);
    let mut client = daemon.client();
    let within = b"\x05\0\0\0\0\x22\0\x02me";
    let fields = [&b"\x02\0\x0bwww.example\x20\0\x0a"[..], within].concat();
    client.send(binary(PROXIED, &fields));
    client.send("echo on\n");
    assert_eq!(client.read_line(), "on");
    let shown = format!(
        r#"192.0.2.7:56324 (by way of 127.0.0.1:{}, for "www.example", subject "me")"#,
        client.local_port()
    );
    let dump = daemon.usr2();
    assert!(dump.iter().any(|line| line.contains(&shown)), "{shown}: {dump:#?}");
    client.send("echo a line that is longer than sixteen bytes\n");
    let refusal = daemon.stderr_wait("its request is longer");
    assert!(refusal.contains(&format!("refused {shown}")), "{refusal}");
}

#[test]
fn bytes_that_are_no_header_are_refused_without_an_answer() {
    let daemon = pool(&[]);
    let mut cut = daemon.client();
    cut.send("PROXY TCP4 192.");
    cut.half_close();
    assert_eq!(cut.read_to_end(), b"");
    daemon.stderr_wait("it closed before the end of its PROXY header");
    for bytes in [
        &b"echo x\n"[..],
        b"PROXY TCP4 nonsense\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        &[b'P'; 100_000],
    ] {
        assert_eq!(through(&daemon, bytes), "");
    }
    for why in [
        "it begins without a PROXY header, which --accept-proxy asks of it",
        "its PROXY header is malformed",
        "its PROXY header has an unknown version or command",
        "its PROXY header is longer than 4096 bytes",
    ] {
        let line = daemon.stderr_wait(why);
        assert!(line.contains("refused 127.0.0.1:"), "{line}");
    }
    assert_eq!(through(&daemon, line("192.0.2.7") + "echo on\n"), "on\n");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("refused proxy"), stats.count("queries total")), (6, 1));
}

#[test]
fn a_header_that_is_never_completed_has_a_deadline() {
    let daemon = pool(&["--read-timeout", "600s"]);
    let (mut silent, mut slow) = (daemon.client(), daemon.client());
    slow.send("PROXY TCP4 192.");
    assert_eq!((silent.read_to_end(), slow.read_to_end()), (vec![], vec![]));
    daemon.stderr_wait_nth("its PROXY header was not complete in time", 2);
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused proxy"), stats.count("connections")), (2, 0));
}

// ---- the client ------------------------------------------------------------------------------------------------

#[test]
fn a_header_from_any_other_peer_is_data() {
    let daemon = pool(&["--error-reply", "NO\\n"]);
    let mut client = directly(&daemon);
    client.send("echo direct\n");
    assert_eq!(client.read_to_end(), b"direct\n");
    let mut liar = directly(&daemon);
    liar.send("PROXY TCP4 127.0.0.1 127.0.0.1 1 2\n");
    // The scripted worker knows no such order and says so, or dies; the line was a request in either case.
    liar.read_to_end();
    assert_eq!(daemon.usr1().count("queries total"), 2);
}

#[test]
fn access_lists_are_held_against_the_client_and_not_against_the_proxy() {
    let daemon = pool(&["--allow", "192.0.2.0/24", "--deny", "192.0.2.66"]);
    assert_eq!(through(&daemon, line("192.0.2.7") + "echo in\n"), "in\n");
    for client in ["192.0.2.66", "198.51.100.1", "127.0.0.1"] {
        assert_eq!(through(&daemon, line(client) + "echo x\n"), "", "{client}");
        let refusal = daemon.stderr_wait(&format!("refused {client}:56324 (by way of 127.0.0.1:"));
        assert!(refusal.contains("not allowed by --allow and --deny"), "{refusal}");
    }
    assert_eq!(
        through(&daemon, "PROXY UNKNOWN\r\necho x\n"),
        "",
        "no address passes no list"
    );
    daemon.stderr_wait("refused unknown (by way of 127.0.0.1:");
    assert_eq!(directly(&daemon).read_to_end_or_reset(), b"");
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused denied"), stats.count("refused proxy")), (5, 0));
}

#[test]
fn a_denied_proxy_may_not_connect() {
    let daemon = pool(&["--deny", "127.0.0.1"]);
    assert_eq!(daemon.client().read_to_end_or_reset(), b"");
    daemon.stderr_wait("not allowed by --deny, not as a proxy either");
    assert_eq!(daemon.usr1().count("refused denied"), 1);
}

#[test]
fn the_limit_for_one_address_counts_the_clients_behind_the_proxy() {
    let daemon = pool(&["--max-connections-per-ip", "1", "--persistent"]);
    let mut clients: Vec<Client> = ["192.0.2.7", "192.0.2.8"]
        .iter()
        .map(|address| {
            let mut client = daemon.client();
            client.send(line(address) + "echo in\n");
            assert_eq!(client.read_line(), "in");
            client
        })
        .collect();
    assert_eq!(through(&daemon, line("192.0.2.7") + "echo x\n"), "ERR\n");
    let refusal = daemon.stderr_wait("as many connections as --max-connections-per-ip allows");
    assert!(refusal.contains("refused 192.0.2.7:56324 (by way of "), "{refusal}");
    clients.remove(0);
    daemon.usr1_until(|stats| stats.count("connections") == 1);
    let mut next = daemon.client();
    next.send(line("192.0.2.7") + "echo in\n");
    assert_eq!(next.read_line(), "in");
}

#[test]
fn health_checks_are_answered_and_are_no_refusals() {
    let daemon = pool(&["--allow", "192.0.2.0/24", "--log-level", "debug"]);
    drop(daemon.client());
    daemon.stderr_wait("has closed before its PROXY header, as health checks do");
    assert_eq!(through(&daemon, binary(LOCAL, b"")), "");
    daemon.stderr_wait("(the proxy itself): --allow does not name it, and it has seen that the door answers");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("refused denied"), stats.count("refused proxy")), (0, 0));
}

#[test]
fn a_proxy_that_asks_for_itself_is_served_where_it_may_connect() {
    let daemon = pool(&["--allow", "127.0.0.0/8"]);
    let check = [binary(LOCAL, b""), b"echo alive\n".to_vec()].concat();
    assert_eq!(through(&daemon, check), "alive\n");
    let daemon = pool(&[]);
    assert_eq!(through(&daemon, "PROXY UNKNOWN\r\necho alive\n"), "alive\n");
    let mut knock = daemon.client();
    knock.send("PROXY UNKNOWN\r\n");
    knock.half_close();
    assert_eq!(knock.read_to_end(), b"");
    assert_eq!(daemon.usr1().count("queries failed"), 0);
}

#[test]
fn with_an_optional_header_a_connection_without_one_is_the_proxys_own() {
    let daemon = pool(&["--accept-proxy-optional", "--persistent"]);
    for (request, client) in [
        ("".to_owned(), "client = 127.0.0.1:"),
        (line("192.0.2.7"), "client = 192.0.2.7:"),
    ] {
        let mut one = daemon.client();
        one.send(request + "echo in\n");
        assert_eq!(one.read_line(), "in");
        let dump = daemon.usr2();
        assert!(dump.iter().any(|line| line.contains(client)), "{client}: {dump:#?}");
    }
    // The first letters of a signature are a request as well, once it is known that no more come.
    let mut short = daemon.client();
    short.send("P");
    short.half_close();
    assert_eq!(short.read_to_end(), b"ERR\n", "a line without its end");
    // Without a word from it a proxy's own connection is admitted when the header has not come in time.
    let mut late = daemon.client();
    let by_way_of = format!("by way of = 127.0.0.1:{},", late.local_port());
    while daemon.usr2().iter().any(|line| line.contains(&by_way_of)) {
        std::thread::yield_now();
    }
    late.send("echo late\n");
    assert_eq!(late.read_line(), "late");
}

// ---- many, and the end -----------------------------------------------------------------------------------------

#[test]
fn two_hundred_half_headers_do_not_keep_a_client_waiting() {
    let daemon = pool(&[]);
    let halves: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = daemon.client();
            client.send("PROXY TCP4 192.0.2.");
            client
        })
        .collect();
    daemon.usr1_until(|stats| stats.count("connections") == 200);
    let mut direct = directly(&daemon);
    direct.send("echo direct\n");
    assert_eq!(direct.read_to_end(), b"direct\n");
    assert_eq!(through(&daemon, line("192.0.2.7") + "echo proxied\n"), "proxied\n");
    let dump = daemon.usr2();
    assert!(
        dump.iter()
            .any(|line| line == "pool: arrivals: 200 whose PROXY header is awaited"),
        "{dump:#?}"
    );
    for mut client in halves {
        client.send("9 203.0.113.1 1 2\r\necho whole\n");
        assert_eq!(client.read_to_end(), b"whole\n");
    }
    assert_eq!(daemon.usr1().count("refused proxy"), 0);
}

#[test]
fn half_headers_take_at_most_half_of_the_places_and_the_oldest_makes_room() {
    let daemon = pool(&["--max-connections", "4"]);
    let [mut oldest, mut next] = [halfway(&daemon, "PROXY "), halfway(&daemon, "PROXY ")];
    let mut newest = halfway(&daemon, "PROXY ");
    assert_eq!(oldest.read_to_end(), b"");
    daemon.stderr_wait("as many wait for theirs as half of --max-connections allows");
    let mut clients = [directly(&daemon), directly(&daemon)];
    daemon.usr1_until(|stats| stats.count("connections") == 4);
    assert_eq!(
        through(&daemon, line("192.0.2.7") + "echo x\n"),
        "ERR\n",
        "all places are taken"
    );
    for client in &mut clients {
        client.send("echo direct\n");
        assert_eq!(client.read_to_end(), b"direct\n");
    }
    for client in [&mut next, &mut newest] {
        client.send("UNKNOWN\r\necho whole\n");
        assert_eq!(client.read_to_end(), b"whole\n");
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused max-conn"), stats.count("refused proxy")), (1, 1));
}

#[test]
fn a_daemon_that_drains_gives_half_headers_a_moment_and_serves_the_whole_ones() {
    let daemon = pool(&[]);
    let (mut quick, mut never) = (halfway(&daemon, "PROXY "), halfway(&daemon, "PROXY TCP4"));
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("draining, 2 clients connected");
    quick.send("UNKNOWN\r\necho last\n");
    assert_eq!(quick.read_to_end(), b"last\n");
    assert_eq!(never.read_to_end(), b"");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.stderr_wait("its PROXY header was not complete in time");
}

#[test]
fn a_client_that_is_admitted_while_the_daemon_drains_is_not_waited_for_longer_than_others() {
    let home = temp_dir();
    let file = command_file(&home);
    let doors = [
        pool(&["--read-timeout", "600s"]),
        Daemon::with([
            "command",
            "--config",
            &file,
            "--listen",
            "127.0.0.1:0",
            "--accept-proxy",
            "127.0.0.1",
        ])
        .args(&["--read-timeout", "600s", "--stop-timeout", "600s"])
        .start(),
        Daemon::with(["exec", "127.0.0.1:0", "--accept-proxy", "127.0.0.1"])
            .args(&[
                "--allow-program",
                "/bin/echo",
                "--read-timeout",
                "600s",
                "--stop-timeout",
                "600s",
            ])
            .start(),
    ];
    for daemon in doors {
        let mut client = halfway(&daemon, "PROXY ");
        daemon.signal(Signal::SIGTERM);
        daemon.stderr_wait("draining, 1 clients connected");
        client.send("UNKNOWN\r\n");
        client.read_to_end();
        assert_eq!(daemon.wait_exit().code(), Some(0));
    }
}

#[test]
fn a_daemon_that_is_stopped_at_once_waits_for_no_header() {
    let daemon = pool(&[]);
    let _half = halfway(&daemon, "PROXY ");
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn hup_ends_the_trust_in_a_proxy_also_for_headers_that_have_begun() {
    let home = temp_dir();
    let file = home.path().join("pool.toml");
    let write = |more: &str| {
        let daemon = worker_command(&[]);
        let text = format!("[pool.main]\ndaemon = {daemon:?}\nnum-daemons = 1\nport = 0\nqueue-timeout = 600\n{more}");
        fs::write(&file, text).unwrap();
    };
    write("accept-proxy = ['127.0.0.1', '127.0.0.3']\n");
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()]).start();
    let mut half = halfway(&daemon, "PROXY ");
    let mut stays = Client::connect_from(Ipv4Addr::new(127, 0, 0, 3), &daemon.addr());
    stays.send("PROXY TCP4 192.0.2.7 ");
    daemon.usr1_until(|stats| stats.count("connections") == 2);
    write("accept-proxy = '127.0.0.3'\n");
    daemon.signal(Signal::SIGHUP);
    assert_eq!(half.read_to_end_or_reset(), b"");
    daemon.stderr_wait("no longer allowed to send a PROXY header");
    stays.send("203.0.113.1 1 2\r\necho stays\n");
    assert_eq!(stays.read_to_end(), b"stays\n");
    assert_eq!(daemon.ask("echo plain"), "plain\n");
    assert_eq!(daemon.usr1().count("refused denied"), 1);
}

#[test]
fn an_upgrade_leaves_half_headers_to_the_process_that_has_read_them() {
    let installation = Installation::new();
    let daemon = installation.pool(&["-p", "0", "--accept-proxy", "127.0.0.1"]).start();
    let mut half = halfway(&daemon, "PROXY ");
    installation.install("v2");
    upgrade(&daemon, daemon.pid(), 1);
    half.send("UNKNOWN\r\necho old\n");
    assert_eq!(half.read_to_end(), b"old\n");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert_eq!(through(&daemon, line("192.0.2.7") + "echo new\n"), "new\n");
}

// ---- every door ------------------------------------------------------------------------------------------------

/// A pool of shells in session mode.
#[track_caller]
fn sessions(flags: &[&str]) -> Daemon {
    let flags = [&["--mode", "session", "--queue-timeout", "60s"], flags].concat();
    Daemon::pool(2, "sh -c 'exec cat'", &flags)
}

#[test]
fn bytes_behind_the_header_go_to_the_worker_of_a_session() {
    let home = temp_dir();
    let socket = format!("unix:{}", home.path().join("s").display());
    for flags in [
        &["--accept-proxy", "127.0.0.1"][..],
        &["--accept-proxy", "unix", "-i", "", "--listen", &socket],
    ] {
        let daemon = sessions(flags);
        let whole = (line("192.0.2.7") + "in one packet").into_bytes();
        for pieces in [vec![&whole[..]], whole.chunks(1).collect()] {
            let mut client = daemon.client();
            pieces.into_iter().for_each(|piece| client.send(piece));
            client.read_text("in one packet");
            client.send(" and more");
            client.half_close();
            assert_eq!(client.read_to_end(), b" and more");
        }
        let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
        assert_eq!(stats.count("sessions total"), 2);
    }
}

#[test]
fn processes_on_unix_sockets_are_proxies_only_if_that_is_said() {
    let home = temp_dir();
    let socket = home.path().join("s");
    let daemon = pool(&[
        "--listen",
        &format!("unix:{}", socket.display()),
        "--accept-proxy",
        "unix",
    ]);
    let address = Address::Unix(socket.display().to_string());
    let mut client = Client::connect(&address);
    client.send(line("192.0.2.7") + "echo unix\n");
    assert_eq!(client.read_to_end(), b"unix\n");
    let mut client = Client::connect(&address);
    client.send("nonsense");
    assert_eq!(client.read_to_end_or_reset(), b"");
    daemon.stderr_wait("refused unix: it begins without a PROXY header");

    let socket = home.path().join("t");
    let daemon = pool(&["--listen", &format!("unix:{}", socket.display())]);
    let mut client = Client::connect(&Address::Unix(socket.display().to_string()));
    client.send("echo direct\n");
    assert_eq!(client.read_to_end(), b"direct\n");
    drop(daemon);
}

/// A file of the command door with the command `echo`.
fn command_file(home: &TempDir) -> String {
    let file = home.path().join("commands.cfg");
    fs::write(
        &file,
        "processes = ( { name = \"echo\"; cmd = \"/bin/echo\"; argc = 1; } );\n",
    )
    .unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_command_door_serves_clients_behind_a_proxy() {
    let daemon = torc(&[ECHO]).serve(&["--accept-proxy", "127.0.0.1", "--allow", "192.0.2.7"]);
    let whole = (line("192.0.2.7") + "echo\na\nb\n").into_bytes();
    assert_eq!(in_pieces(&daemon, [&whole[..]].into_iter()), "torcd>torcd>a b\n");
    assert_eq!(in_pieces(&daemon, whole.chunks(1)), "torcd>torcd>a b\n");
    let run = daemon.stderr_wait("192.0.2.7:56324 (by way of 127.0.0.1:");
    assert!(run.contains("echo"), "{run}");
    assert_eq!(through(&daemon, "echo\na\nb\n"), "");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("refused proxy"), stats.count("runs total")), (1, 2));
}

#[test]
fn an_exec_door_serves_clients_behind_a_proxy() {
    let flags = ["--accept-proxy", "127.0.0.1", "--allow-program", "/bin/echo"];
    let daemon = Daemon::with(["exec", "127.0.0.1:0"]).args(&flags).start();
    let whole = [line("192.0.2.7").into_bytes(), request(&["/bin/echo", "hello"])].concat();
    for pieces in [vec![&whole[..]], whole.chunks(1).collect()] {
        let answer = in_pieces(&daemon, pieces.into_iter());
        assert!(
            answer.contains("6:hello\n,") && answer.contains("8:exitcode,1:0,"),
            "{answer}"
        );
    }
    let dump = daemon.stderr_wait("192.0.2.7:56324 (by way of 127.0.0.1:");
    assert!(dump.contains("echo"), "{dump}");
    assert_eq!(through(&daemon, request(&["/bin/echo"])), "");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("refused proxy"), stats.count("runs total")), (1, 2));
}

#[test]
fn an_exec_door_behind_a_proxy_needs_a_list_of_programs_whatever_the_header_claims() {
    let home = temp_dir();
    let socket = home.path().join("exec.sock");
    let address = format!("unix:{}", socket.display());
    for (listen, proxy) in [(&*address, "unix"), ("127.0.0.1:0", "127.0.0.1")] {
        let (status, _, stderr) = Daemon::with(["exec", listen, "--accept-proxy", proxy]).spawn().finish();
        assert_eq!(status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains("--accept-proxy") && stderr.contains("--allow-program"),
            "{stderr}"
        );
        let file = home.path().join("exec.toml");
        fs::write(
            &file,
            format!("[exec.main]\nlisten = '{listen}'\naccept-proxy = '{proxy}'\n"),
        )
        .unwrap();
        let (status, _, stderr) = Daemon::with(["check", "--config", file.to_str().unwrap()])
            .spawn()
            .finish();
        assert_ne!(status.code(), Some(0), "{stderr}");
        assert!(stderr.contains("accept-proxy: whoever reached the proxy"), "{stderr}");
    }
}

#[test]
fn a_list_of_users_refuses_whatever_came_by_way_of_a_proxy() {
    let home = temp_dir();
    let socket = home.path().join("exec.sock");
    let user = geteuid().to_string();
    let flags = [
        "--accept-proxy",
        "unix",
        "--allow-program",
        "/bin/echo",
        "--allow-user",
        &user,
    ];
    let (status, _, stderr) = Daemon::with(["exec", socket.to_str().unwrap()])
        .args(&flags)
        .spawn()
        .finish();
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("behind a proxy no user is known"), "{stderr}");

    let daemon = Daemon::with(["exec", socket.to_str().unwrap(), "--accept-proxy-optional"])
        .args(&flags)
        .start();
    let direct = through(&daemon, request(&["/bin/echo", "hello"]));
    assert!(direct.contains("6:hello\n,"), "{direct}");
    for header in [
        line("192.0.2.7").into_bytes(),
        line("127.0.0.1").into_bytes(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        binary(LOCAL, b""),
    ] {
        let answer = through(&daemon, [header, request(&["/bin/echo", "hello"])].concat());
        assert!(answer.contains("no user is known who could be allowed"), "{answer}");
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused user"), stats.count("runs total")), (4, 1));
}
