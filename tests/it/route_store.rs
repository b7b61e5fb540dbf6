//! The store of a route door, in a real Redis. The entries are written by redis-cli.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use base64ct::{Base64, Encoding};
use nix::sys::signal::Signal;

use crate::harness::{Certificate, Daemon, Program, StatsBlock, WATCHDOG, temp_dir};
use crate::route_peers::{Backend, RouteFile, UNRECOGNIZED_NAME, at, client, pair};
use crate::route_store_redis::RedisServer;

/// A reading of everything is far away: what comes before it was heard of.
const BY_NOTIFICATION: &str = "refresh = '10m'";

/// The keys of a door with its store at this server.
fn store_of(redis: &RedisServer, keys: &str) -> String {
    let more = if keys.is_empty() {
        String::new()
    } else {
        format!(", {keys}")
    };
    format!("store = {{ addr = '127.0.0.1', port = {}{more} }}", redis.port)
}

/// A door whose services are in this store alone, with these keys of the store.
#[track_caller]
fn door(redis: &RedisServer, keys: &str) -> (Daemon, RouteFile) {
    let file = RouteFile::new(&store_of(redis, keys), &[]);
    (file.start(), file)
}

fn plain(address: SocketAddr) -> String {
    format!(r#"{{"addr":"{}","tlsport":{}}}"#, address.ip(), address.port())
}

/// The form in which the library of tcprouter writes.
fn wrapped(name: &str, inner: &str) -> String {
    let value = Base64::encode_string(inner.as_bytes());
    format!(r#"{{"Key":"tcprouter/service/{name}","Value":"{value}","LastIndex":1}}"#)
}

fn key(name: &str) -> String {
    format!("/tcprouter/service/{name}")
}

/// Waits until the table of the store has this number of names.
#[track_caller]
fn names(daemon: &Daemon, count: u64) -> StatsBlock {
    daemon.usr1_until(|stats| stats.count("store names") == count)
}

#[track_caller]
fn is_unknown(daemon: &Daemon, name: &str) {
    assert_eq!(client(daemon, name, "").read_to_end(), UNRECOGNIZED_NAME, "{name}");
}

// ---- entries -------------------------------------------------------------------------------------------------------

#[test]
fn entries_of_each_form_and_key_are_routed_to_their_servers() {
    let (redis, backend) = (RedisServer::start(), Backend::new());
    let (address, port) = (backend.address(), backend.address().port());
    let older = format!(r#"{{"addr":"127.0.0.1:{port}","sni":"older.example","name":"a label"}}"#);
    let capitals = format!(r#"{{"Addr":"127.0.0.1","TLSPort":{port},"HTTPPort":0,"ClientSecret":""}}"#);
    for (key, value) in [
        (
            "/tcprouter/service/wrapped.example",
            wrapped("wrapped.example", &plain(address)),
        ),
        (
            "//tcprouter/services/capitals.example",
            wrapped("capitals.example", &capitals),
        ),
        ("tcprouter/service/plain.example", plain(address)),
        ("/tcprouter/services/Label", older),
        ("/tcprouter/service/*.wild.example", plain(address)),
        ("/tcprouter/service/CATCH_ALL", plain(address)),
        ("/tcprouter/elsewhere/other", "no entry".to_owned()),
    ] {
        redis.set(key, &value);
    }
    let (daemon, _file) = door(&redis, "");
    names(&daemon, 6);
    for name in [
        "wrapped.example",
        "Capitals.Example.",
        "plain.example",
        "older.example",
        "a.wild.example",
        "any.other.name",
    ] {
        pair(&daemon, &backend, name);
    }
    assert_eq!(daemon.usr1().count("store bad"), 0);
}

#[test]
fn an_entry_that_cannot_be_used_costs_itself_alone_and_is_told_without_its_value() {
    let (redis, backend) = (RedisServer::start(), Backend::new());
    redis.set(&key("good.example"), &plain(backend.address()));
    redis.set(&key("bad.example"), "the secret hunter2");
    redis.set(&key("empty.example"), "");
    redis.set(&key("long.example"), &" ".repeat(70_000));
    redis.set(&key("a..b"), &plain(backend.address()));
    redis.cli(&["LPUSH", &key("list.example"), "x"]);
    redis.set(&key("tunnel.example"), r#"{"clientsecret":"hunter2"}"#);
    let (daemon, _file) = door(&redis, "refresh = '100ms'");
    names(&daemon, 2);
    pair(&daemon, &backend, "good.example");
    for told in [
        "bad.example of the store cannot be used: it is no JSON",
        "empty.example of the store cannot be used: it is no JSON",
        "long.example of the store cannot be used: it is longer than",
        "list.example of the store cannot be used: it is no text",
        "a..b of the store cannot be used: a name has",
        "services of the store have a client-secret, but no tunnel client can connect",
    ] {
        daemon.stderr_wait(told);
    }
    let stats = daemon.usr1_until(|stats| stats.count("store readings") > 3);
    assert_eq!(stats.count("store bad"), 5);
    let log = daemon.stderr.text();
    assert!(!log.contains("hunter2"), "{log}");
    assert_eq!(log.matches("bad.example").count(), 1, "{log}");
    is_unknown(&daemon, "bad.example");
    // Mended, it counts.
    redis.set(&key("bad.example"), &plain(backend.address()));
    names(&daemon, 3);
    pair(&daemon, &backend, "bad.example");
}

#[test]
fn the_file_goes_before_the_store() {
    let (redis, [of_file, of_store]) = (RedisServer::start(), [Backend::new(), Backend::new()]);
    redis.set(&key("both.example"), &plain(of_store.address()));
    redis.set(&key("store.example"), &plain(of_store.address()));
    let file = RouteFile::new(&store_of(&redis, ""), &[("both.example", at(of_file.address()))]);
    let daemon = file.start();
    names(&daemon, 2);
    pair(&daemon, &of_file, "both.example");
    pair(&daemon, &of_store, "store.example");
}

#[test]
fn a_client_that_comes_before_the_first_reading_waits_for_it() {
    let (redis, backend) = (RedisServer::start(), Backend::new());
    redis.set(&key("a.example"), &plain(backend.address()));
    redis.program().stop();
    let (daemon, _file) = door(&redis, "");
    let early = client(&daemon, "a.example", "");
    daemon.usr1_until(|stats| stats.count("connections") == 1);
    assert!(!backend.has_connection());
    redis.program().signal(Signal::SIGCONT);
    backend.accept();
    drop(early);
}

// ---- changes -------------------------------------------------------------------------------------------------------

#[test]
fn changes_are_heard_of_at_once_and_flags_that_are_set_stay() {
    let (redis, [one, other]) = (
        RedisServer::with("notify-keyspace-events El"),
        [Backend::new(), Backend::new()],
    );
    redis.set(&key("a.example"), &plain(one.address()));
    let (daemon, _file) = door(&redis, BY_NOTIFICATION);
    names(&daemon, 1);
    let events = redis.cli(&["CONFIG", "GET", "notify-keyspace-events"]);
    assert!("ElKg$xe".chars().all(|event| events.contains(event)), "{events}");
    pair(&daemon, &one, "a.example");
    let readings = daemon.usr1().count("store readings");
    // Another address.
    redis.set(&key("a.example"), &plain(other.address()));
    daemon.usr1_until(|stats| stats.count("store readings") > readings);
    pair(&daemon, &other, "a.example");
    // A new name, a name that moves, and one that goes.
    redis.set("tcprouter/services/b.example", &plain(one.address()));
    names(&daemon, 2);
    redis.cli(&["RENAME", "tcprouter/services/b.example", &key("c.example")]);
    redis.set(&key("behind.example"), &plain(one.address()));
    names(&daemon, 3);
    pair(&daemon, &one, "c.example");
    is_unknown(&daemon, "b.example");
    redis.cli(&["DEL", &key("c.example")]);
    names(&daemon, 2);
    // And one whose time is up.
    redis.set(&key("d.example"), &plain(one.address()));
    names(&daemon, 3);
    redis.cli(&["PEXPIRE", &key("d.example"), "1"]);
    names(&daemon, 2);
}

#[test]
fn changes_in_another_database_are_not_those_of_the_store() {
    let (redis, backend) = (RedisServer::start(), Backend::new());
    redis.cli(&["-n", "3", "SET", &key("three.example"), &plain(backend.address())]);
    redis.set(&key("zero.example"), &plain(backend.address()));
    let (daemon, _file) = door(&redis, &format!("database = 3, {BY_NOTIFICATION}"));
    names(&daemon, 1);
    redis.set(&key("other.example"), &plain(backend.address()));
    redis.cli(&["-n", "3", "SET", &key("new.example"), &plain(backend.address())]);
    names(&daemon, 2);
    pair(&daemon, &backend, "new.example");
    is_unknown(&daemon, "other.example");
    is_unknown(&daemon, "zero.example");
}

#[test]
fn where_notifications_are_forbidden_changes_come_with_the_next_reading_and_one_warning() {
    for (rules, refused) in [
        ("&* +@all -config", "cannot be switched on (NOPERM"),
        (
            "resetchannels +@all",
            "its notifications are refused (it answers: NOPERM",
        ),
    ] {
        let redis = RedisServer::with(&format!("user default on nopass ~* {rules}\n"));
        let backend = Backend::new();
        let (daemon, _file) = door(&redis, "refresh = '100ms'");
        daemon.stderr_wait("connected to the store");
        redis.set(&key("a.example"), &plain(backend.address()));
        names(&daemon, 1);
        pair(&daemon, &backend, "a.example");
        redis.cli(&["DEL", &key("a.example")]);
        names(&daemon, 0);
        let log = daemon.stderr.text();
        let warnings = log.matches("changes may be seen after 100 ms only").count();
        assert_eq!(warnings, 1, "{log}");
        assert!(log.contains(refused), "{log}");
    }
}

// ---- the way in ----------------------------------------------------------------------------------------------------

#[test]
fn a_user_and_a_password_open_the_store_and_a_wrong_one_does_not() {
    let redis = RedisServer::with("user default off\nuser iotcpd on >hunter2 ~* &* +@all\n");
    let home = temp_dir();
    let password = home.path().join("password");
    fs::write(&password, "wrong\n").unwrap();
    let keys = format!(
        "username = 'iotcpd', password-file = '{}', refresh = '1s'",
        password.display()
    );
    let (daemon, file) = door(&redis, &keys);
    let told = daemon.stderr_wait("cannot be used");
    assert!(told.contains("assword"), "{told}");
    // A file is read with each attempt.
    fs::write(&password, "hunter2\n").unwrap();
    daemon.stderr_wait("connected again to the store");
    drop(daemon);
    file.write(&store_of(&redis, "username = 'iotcpd', password = 'hunter2'"), &[]);
    let daemon = file.start();
    daemon.stderr_wait("connected to the store");
    daemon.usr1_until(|stats| stats.count("store readings") > 0);
    let log = daemon.stderr.text() + &daemon.usr2().concat();
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn a_store_is_reached_by_tls_and_one_with_another_certificate_is_not() {
    let (own, foreign, backend) = (Certificate::new(), Certificate::new(), Backend::new());
    let (cert, key_file) = (own.path("cert.pem"), own.path("key.pem"));
    let mut redis = RedisServer::with_tls(&cert, &key_file, "tls-auth-clients no\n");
    redis.flags.extend(["--tls", "--cacert", &cert].map(str::to_owned));
    redis.set(&key("a.example"), &plain(backend.address()));
    let keys = |ca: &str| {
        let port = redis.port;
        format!("store = {{ addr = 'localhost', port = {port}, tls = true, ca = '{ca}', {BY_NOTIFICATION} }}")
    };
    let file = RouteFile::new(&keys(&foreign.path("cert.pem")), &[]);
    let daemon = file.start();
    let told = daemon.stderr_wait("cannot be used");
    assert!(told.contains("its certificate"), "{told}");
    file.write(&keys(&cert), &[]);
    daemon.signal(Signal::SIGHUP);
    names(&daemon, 1);
    pair(&daemon, &backend, "a.example");
    redis.set(&key("b.example"), &plain(backend.address()));
    names(&daemon, 2);
}

#[test]
fn a_store_is_reached_at_a_unix_socket() {
    let home = temp_dir();
    let socket = home.path().join("redis.sock");
    let redis = RedisServer::with(&format!("unixsocket {}", socket.display()));
    redis.set(&key("a.example"), &plain(Backend::new().address()));
    let file = RouteFile::new(&format!("store = {{ addr = 'unix:{}' }}", socket.display()), &[]);
    let daemon = file.start();
    names(&daemon, 1);
    let dump = daemon.usr2().join("\n");
    assert!(
        dump.contains("store: address = unix:") && dump.contains("state = connected"),
        "{dump}"
    );
}

// ---- failures ------------------------------------------------------------------------------------------------------

#[test]
fn the_last_table_stays_while_the_store_is_away_and_what_has_changed_meanwhile_comes_with_it() {
    let (mut redis, backend) = (RedisServer::start(), Backend::new());
    for name in ["a.example", "b.example"] {
        redis.set(&key(name), &plain(backend.address()));
    }
    let (daemon, _file) = door(&redis, BY_NOTIFICATION);
    names(&daemon, 2);
    redis.set(&key("c.example"), &plain(backend.address()));
    redis.cli(&["SAVE"]);
    names(&daemon, 3);
    redis.kill();
    let told = daemon.stderr_wait("is lost");
    assert!(told.contains("its last 3 names stay"), "{told}");
    pair(&daemon, &backend, "c.example");
    redis.start_again();
    daemon.stderr_wait("connected again to the store");
    redis.set(&key("d.example"), &plain(backend.address()));
    let stats = names(&daemon, 4);
    assert!(stats.count("store errors") > 0);
    pair(&daemon, &backend, "d.example");
}

#[test]
fn a_store_that_comes_back_empty_is_doubted_until_a_second_reading_agrees() {
    let (mut redis, backend) = (RedisServer::start(), Backend::new());
    for name in ["a.example", "b.example", "c.example"] {
        redis.set(&key(name), &plain(backend.address()));
    }
    let (daemon, _file) = door(&redis, "refresh = '2s'");
    names(&daemon, 3);
    redis.kill();
    redis.forget_data();
    redis.start_again();
    daemon.stderr_wait("the store has 0 names instead of 3");
    let stats = daemon.usr1();
    assert_eq!(stats.count("store names"), 3);
    pair(&daemon, &backend, "a.example");
    let stats = names(&daemon, 0);
    assert!(stats.count("store doubted") > 0);
    is_unknown(&daemon, "a.example");
}

#[test]
fn without_the_store_a_door_starts_with_the_table_of_its_last_run_or_with_none() {
    let (mut redis, backend, home) = (RedisServer::start(), Backend::new(), temp_dir());
    let cache = home.path().join("table");
    let keys = format!("table-cache = '{}'", cache.display());
    redis.set(&key("a.example"), &plain(backend.address()));
    let (daemon, file) = door(&redis, &keys);
    names(&daemon, 1);
    let deadline = Instant::now() + WATCHDOG;
    while !cache.exists() {
        assert!(Instant::now() < deadline, "the table is never written");
        daemon.usr1();
    }
    drop(daemon);
    redis.kill();
    let daemon = file.start();
    daemon.stderr_wait("1 names of the store from its table-cache");
    daemon.stderr_wait("cannot be used");
    pair(&daemon, &backend, "a.example");
    drop(daemon);
    fs::remove_file(&cache).unwrap();
    let daemon = file.start();
    is_unknown(&daemon, "a.example");
    assert_eq!(daemon.usr1().count("store names"), 0);
}

#[test]
fn explain_knows_the_names_of_the_last_run_and_says_that_the_store_was_not_asked() {
    let home = temp_dir();
    let cache = home.path().join("table");
    fs::write(
        &cache,
        "{\"iotcpd-table\":1,\"names\":1}\n{\"sni\":\"a.example\",\"addr\":\"10.0.0.5:443\"}\n",
    )
    .unwrap();
    let keys = format!(
        "store = {{ addr = '127.0.0.1:1', table-cache = '{}' }}",
        cache.display()
    );
    let file = RouteFile::new(&keys, &[]);
    let explain = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
        command.args(["route", file.path(), "--explain", "--sni", name]);
        Program::start(&mut command).finish().1
    };
    let told = explain("a.example");
    assert!(
        told.starts_with("a.example: the service a.example (store) decides"),
        "{told}"
    );
    assert!(
        told.contains("\nthe store at 127.0.0.1:1 was not asked; 1 of its names were looked at, from "),
        "{told}"
    );
    fs::remove_file(&cache).unwrap();
    let told = explain("a.example");
    assert!(
        told.ends_with("\nthe store at 127.0.0.1:1 was not asked; its names were not looked at"),
        "{told}"
    );
}

#[test]
fn a_store_that_hangs_is_given_up_and_holds_up_nothing() {
    let (redis, backend) = (RedisServer::start(), Backend::new());
    redis.set(&key("a.example"), &plain(backend.address()));
    let (daemon, _file) = door(&redis, "refresh = '100ms'");
    names(&daemon, 1);
    redis.program().stop();
    pair(&daemon, &backend, "a.example");
    daemon.stderr_wait("it does not answer in time");
    pair(&daemon, &backend, "a.example");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait_exit().success());
    redis.program().signal(Signal::SIGCONT);
}

#[test]
fn a_peer_that_is_no_redis_is_told_of_and_costs_nothing_else() {
    let (peer, backend) = (Backend::new(), Backend::new());
    let store = format!("store = {{ addr = '{}' }}", peer.address());
    let file = RouteFile::new(&store, &[("a.example", at(backend.address()))]);
    let daemon = file.start();
    for _ in 0..2 {
        let mut served = peer.accept();
        served.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        assert!(served.read_to_end().starts_with(b"*"));
    }
    let told = daemon.stderr_wait("cannot be used");
    assert!(told.contains("it answers: "), "{told}");
    pair(&daemon, &backend, "a.example");
    is_unknown(&daemon, "b.example");
}

// ---- put, del, list, import ----------------------------------------------------------------------------------------

/// Runs `iotcpd route` with these words for this store, and returns its exit status, output and errors.
#[track_caller]
fn tool(redis: &RedisServer, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
    command.arg("route").args(words);
    command.args(["--redis", &format!("127.0.0.1:{}", redis.port)]);
    let (status, output, errors) = Program::start(&mut command).finish();
    (status.code(), output, errors)
}

/// The same for words that must do.
#[track_caller]
fn done(redis: &RedisServer, words: &[&str]) -> String {
    let (status, output, errors) = tool(redis, words);
    assert_eq!((status, errors.as_str()), (Some(0), ""), "{words:?}");
    output
}

#[test]
fn a_service_that_is_put_is_served_listed_and_deleted() {
    let (redis, backend, home) = (RedisServer::start(), Backend::new(), temp_dir());
    let (daemon, _file) = door(&redis, BY_NOTIFICATION);
    let address = backend.address().to_string();
    done(&redis, &["put", "WWW.Example.org", &address]);
    names(&daemon, 1);
    pair(&daemon, &backend, "www.example.org");
    // It is in the form that tcprouter reads.
    let value = redis.cli(&["GET", "/tcprouter/service/www.example.org"]);
    assert!(
        value.starts_with(r#"{"Key":"tcprouter/service/www.example.org","Value":""#),
        "{value}"
    );
    let secret = home.path().join("secret");
    fs::write(&secret, "hunter2\n").unwrap();
    done(
        &redis,
        &["put", "tunnel.example", "--secret-file", secret.to_str().unwrap()],
    );
    redis.set(
        "//tcprouter/services/other.example",
        r#"{"addr":"10.0.0.5","tlsport":443}"#,
    );
    redis.set(
        "/tcprouter/service/x",
        r#"{"addr":"10.0.0.6:80","sni":"other.example"}"#,
    );
    redis.set("/tcprouter/service/bad", "hunter2");
    let (status, listed, warned) = tool(&redis, &["list"]);
    let port = backend.address().port();
    assert_eq!(status, Some(0));
    assert_eq!(
        listed,
        format!(
            "other.example 10.0.0.6 --tls-port 80 --http-port 80\ntunnel.example --secret-file ***\n\
             www.example.org 127.0.0.1 --tls-port {port} --http-port {port}"
        )
    );
    assert!(warned.contains("/tcprouter/service/bad of the store cannot be used") && !warned.contains("hunter2"));
    done(&redis, &["del", "www.example.org"]);
    names(&daemon, 2);
    is_unknown(&daemon, "www.example.org");
    // Under each key and in each form, and one that cannot be read.
    done(&redis, &["del", "Other.Example.", "bad"]);
    assert_eq!(redis.cli(&["KEYS", "*"]), "/tcprouter/service/tunnel.example");
    let (status, _, errors) = tool(&redis, &["del", "www.example.org"]);
    assert!(
        status == Some(1) && errors.contains("the store has no service www.example.org"),
        "{errors}"
    );
}

#[test]
fn the_services_of_a_file_are_imported_all_or_none_and_a_table_comes_back_from_its_file() {
    let (redis, backend, home) = (RedisServer::start(), Backend::new(), temp_dir());
    let cache = home.path().join("table");
    let own = RouteFile::new(
        "",
        &[
            ("a.example", at(backend.address())),
            ("CATCH_ALL", "addr = 'b.example:443'".into()),
        ],
    );
    assert_eq!(done(&redis, &["import", own.path()]), "2 services written");
    let before = done(&redis, &["list"]);
    let (daemon, _file) = door(&redis, &format!("table-cache = '{}'", cache.display()));
    names(&daemon, 2);
    pair(&daemon, &backend, "a.example");
    let deadline = Instant::now() + WATCHDOG;
    while !cache.exists() {
        assert!(Instant::now() < deadline, "the table is never written");
        daemon.usr1();
    }
    drop(daemon);
    redis.cli(&["FLUSHALL"]);
    done(&redis, &["import", cache.to_str().unwrap()]);
    assert_eq!(done(&redis, &["list"]), before);
    redis.cli(&["FLUSHALL"]);
    own.write(
        "",
        &[
            ("a.example", at(backend.address())),
            ("b.example", "addr = 'unix:/run/x'".into()),
        ],
    );
    let (status, _, errors) = tool(&redis, &["import", own.path()]);
    assert!(
        status == Some(2) && errors.contains("the service b.example cannot be put into the store"),
        "{errors}"
    );
    let lines = home.path().join("lines");
    let good = "{\"sni\":\"a.example\",\"addr\":\"10.0.0.5:443\"}";
    for bad in [
        "{\"sni\":\"b.example\"}",
        "{\"sni\":\"b:443\",\"addr\":\"10.0.0.5:443\"}",
    ] {
        fs::write(&lines, format!("{good}\n{bad}\n")).unwrap();
        let (status, _, errors) = tool(&redis, &["import", lines.to_str().unwrap()]);
        assert_eq!(status, Some(2), "{errors}");
    }
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
}

#[test]
fn the_store_of_the_tools_may_be_that_of_a_file_and_asks_for_the_password_by_other_ways_than_flags() {
    let redis = RedisServer::with("requirepass hunter2\n");
    let file = RouteFile::new(&store_of(&redis, "password = 'hunter2'"), &[]);
    let run = |words: &[&str], password: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
        command.arg("route").args(words);
        command.envs(password.map(|password| ("IOTCPD_REDIS_PASSWORD", password)));
        let (status, output, errors) = Program::start(&mut command).finish();
        (status.code(), output, errors)
    };
    let redis_flag = format!("--redis=127.0.0.1:{}", redis.port);
    let put = run(&["put", "a.example", "10.0.0.5:443", "--config", file.path()], None);
    assert_eq!(put, (Some(0), String::new(), String::new()));
    let (_, listed, _) = run(&["list", &redis_flag], Some("hunter2"));
    assert!(listed.starts_with("a.example 10.0.0.5 "), "{listed}");
    let (status, _, errors) = run(&["list", &redis_flag], None);
    assert!(status == Some(1) && errors.contains("cannot be used"), "{errors}");
    let (status, _, errors) = run(&["put", "a:443", "10.0.0.5:443", &redis_flag], None);
    assert!(
        status == Some(2) && errors.contains("cannot be the name of a service"),
        "{errors}"
    );
}

// ---- HUP -----------------------------------------------------------------------------------------------------------

#[test]
fn a_hup_changes_the_store_and_takes_it_away() {
    let (first, second, backend) = (RedisServer::start(), RedisServer::start(), Backend::new());
    first.set(&key("first.example"), &plain(backend.address()));
    for name in ["second.example", "third.example"] {
        second.set(&key(name), &plain(backend.address()));
    }
    let (daemon, file) = door(&first, "");
    names(&daemon, 1);
    file.write(&store_of(&second, ""), &[]);
    daemon.signal(Signal::SIGHUP);
    names(&daemon, 2);
    pair(&daemon, &backend, "third.example");
    is_unknown(&daemon, "first.example");
    file.write("", &[("file.example", at(backend.address()))]);
    daemon.signal(Signal::SIGHUP);
    names(&daemon, 0);
    is_unknown(&daemon, "third.example");
    pair(&daemon, &backend, "file.example");
}

#[test]
fn a_hup_with_other_settings_of_the_door_changes_the_services_of_the_store() {
    let (mut redis, backend) = (RedisServer::start(), Backend::new());
    redis.set(&key("a.example"), &plain(backend.address()));
    let (daemon, file) = door(&redis, "");
    names(&daemon, 1);
    // The store need not be there for it.
    redis.kill();
    daemon.stderr_wait("is lost");
    file.write(&format!("send-proxy = 'v1'\n{}", store_of(&redis, "")), &[]);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("read again");
    daemon.usr1_until(|_| {
        let _client = client(&daemon, "a.example", "");
        let mut begin = [0; 5];
        std::io::Read::read_exact(&mut backend.accept().stream, &mut begin).unwrap();
        begin == *b"PROXY"
    });
}

// ---- size ----------------------------------------------------------------------------------------------------------

/// SET for each of these services.
fn commands(numbers: std::ops::Range<u64>) -> String {
    let mut commands = String::new();
    for number in numbers {
        let value = format!(r#"{{\"addr\":\"10.0.0.5\",\"tlsport\":{}}}"#, number % 60_000 + 1);
        writeln!(commands, "SET {} \"{value}\"", key(&format!("a{number}.example"))).expect("a string");
    }
    commands
}

/// Half of the names are there before the door, and the others come at once while it follows the store.
#[track_caller]
fn follow_many(count: u64) {
    let (redis, backend) = (RedisServer::start(), Backend::new());
    redis.send_all(&commands(0..count / 2));
    let (daemon, _file) = door(&redis, BY_NOTIFICATION);
    names(&daemon, count / 2);
    redis.send_all(&commands(count / 2..count));
    names(&daemon, count);
    redis.set(&key("new.example"), &plain(backend.address()));
    names(&daemon, count + 1);
    pair(&daemon, &backend, "new.example");
}

/// More than are read one by one.
#[test]
fn thousands_of_names_that_change_at_once_are_all_heard_of() {
    follow_many(24_000);
}

#[test]
#[ignore = "takes seconds of a processor: scripts/test-peers"]
fn a_hundred_thousand_names_are_followed() {
    follow_many(100_000);
}
