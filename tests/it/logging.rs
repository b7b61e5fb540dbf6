//! The log as its reader sees it: the lines that are logged, and their form.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::harness::{Builder, Daemon, temp_dir, untimed, worker_command};

/// A pool to be started, with more flags.
fn pool(flags: &[&str]) -> Builder {
    let command = worker_command(&[]);
    Daemon::with(["-n", "1", "-d", &command, "-p", "0"]).args(flags)
}

/// Ends it and returns its log.
fn log_of(daemon: &Daemon) -> String {
    daemon.signal(Signal::SIGTERM);
    daemon.finish().2
}

/// Returns true if it is `2026-11-29T23:31:46.123Z iotcpd[77]: `, of this process.
fn is_prefix(text: &str, pid: i32) -> bool {
    let shape: String = text
        .chars()
        .take(24)
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00T00:00:00.000Z" && text[24..] == format!(" iotcpd[{pid}]: ")
}

#[test]
fn a_meaningless_log_variable_is_reported_and_silences_nothing() {
    for (value, wrong) in [
        ("", "it is empty"),
        ("inf", "there is no level `inf`; did you mean `info`?"),
        (
            "iotcpd::servces=debug",
            "there is no room `iotcpd::servces`; did you mean `services`?",
        ),
        ("hyper=debug", "there is no room `hyper`"),
    ] {
        let daemon = pool(&[]).env("RUST_LOG", value).start();
        let told = daemon.stderr_wait("RUST_LOG");
        assert!(
            told.contains(": WARN RUST_LOG is ") && told.contains(&format!("`{value}`")),
            "{told}"
        );
        assert!(told.contains("info is logged") && told.contains(wrong), "{told}");
    }
    let daemon = pool(&[]).env("RUST_LOG", "iotcpd::doors::pool=debug").start();
    daemon.stderr_wait(" DEBUG pool: worker 0 ");
    assert!(!log_of(&daemon).contains("RUST_LOG"));
    // A flag goes before the variable.
    let daemon = pool(&["--log-level", "debug"]).env("RUST_LOG", "nonsense").start();
    daemon.stderr_wait(" DEBUG pool: worker 0 ");
    assert!(!log_of(&daemon).contains("RUST_LOG"));
    // Silence has to be asked for in words.
    let daemon = pool(&["--pid-file-of-nobody"]).env("RUST_LOG", "off").spawn();
    assert!(daemon.finish().2.contains("--pid-file-of-nobody"));
}

#[test]
fn a_mistake_in_a_flag_is_a_usage_error_with_a_suggestion() {
    for (flag, value, told) in [
        ("--log-level", "inf", "did you mean `info`?"),
        ("--log-level", "warn,pol=debug", "did you mean `pool`?"),
        (
            "--log-level",
            "pool=loud",
            "write error, warn, info, debug, trace or off",
        ),
        ("--log-level", "", "it is empty"),
        ("--log-format", "xml", "auto, plain, time, journal, json"),
    ] {
        for before in [
            &["pool"][..],
            &["exec"],
            &["command"],
            &["run"],
            &["check"],
            &["ask"],
            &["call"],
            &[],
        ] {
            let arguments = before.iter().copied().chain([flag, value]);
            let (status, _, stderr) = Daemon::with(arguments).spawn().finish();
            assert_eq!(status.code(), Some(2), "{before:?} {flag} {value}: {stderr}");
            assert!(
                stderr.contains(flag) && stderr.contains(told),
                "{before:?} {flag} {value}: {stderr}"
            );
        }
    }
}

#[test]
fn a_room_may_have_a_level_of_its_own() {
    let daemon = pool(&["--log-level", "error,pool=debug"]).spawn();
    daemon.stderr_wait(" DEBUG pool: worker 0 ");
    let log = log_of(&daemon);
    assert!(!log.contains("listening on"), "that is said by net: {log}");
    let daemon = pool(&["--log-level", "pool=warn"]).start();
    let log = log_of(&daemon);
    assert!(log.contains("listening on") && !log.contains("draining"), "{log}");
    let home = temp_dir();
    let up = home.path().join("up");
    mkfifo(&up, Mode::S_IRWXU).unwrap();
    let words = format!("sh -c 'echo said >&2; : > {}; cat'", up.display());
    let daemon = Daemon::with(["--log-level", "off,daemon=info", "-n", "1", "-d", &words, "-p", "0"]).spawn();
    // Opened once its worker does.
    let _reader = fs::File::open(&up).unwrap();
    daemon.stderr_wait(" is starting: ");
    let log = log_of(&daemon);
    let [line] = untimed(&log)[..] else { panic!("{log}") };
    assert!(line.starts_with("INFO iotcpd "), "{log}");
}

#[test]
fn the_flags_may_stand_before_the_name_of_a_command() {
    let home = temp_dir();
    let file = home.path().join("f.toml");
    let socket = home.path().join("s");
    fs::write(&file, format!("[exec.jobs]\nlisten = 'unix:{}'\n", socket.display())).unwrap();
    let file = file.to_str().unwrap();
    for arguments in [
        ["--log-format", "plain", "run", "--config", file],
        ["run", "--log-format", "plain", "--config", file],
        ["run", "--config", file, "--log-format", "plain"],
    ] {
        let daemon = Daemon::with(arguments).start();
        assert!(
            daemon
                .stderr_wait("listening on")
                .starts_with("INFO jobs: listening on")
        );
    }
}

/// A line of the pool, or that of the start.
fn is_told_by_it(line: &str) -> bool {
    line.starts_with("INFO pool: ") || line.starts_with("INFO iotcpd ")
}

#[test]
fn in_a_pipe_each_line_has_time_and_process() {
    let daemon = pool(&[]).start();
    let line = daemon.stderr_wait("INFO pool: listening on 127.0.0.1:");
    let (before, _) = line.split_once("INFO ").unwrap();
    assert!(is_prefix(before, daemon.pid()), "{line}");
    let log = log_of(&daemon);
    assert!(untimed(&log).iter().all(|line| is_told_by_it(line)), "{log}");
    let daemon = pool(&["--log-format", "plain"]).start();
    let log = log_of(&daemon);
    assert!(log.lines().all(is_told_by_it), "{log}");
}

/// Started by a shell that says of its standard error, or of another place, that it is the journal.
fn in_journal(builder: Builder, of: &str) -> Builder {
    let script = format!("JOURNAL_STREAM=$(stat -L -c {of} /proc/$$/fd/2) exec \"$0\" \"$@\"");
    builder.through(&["/bin/sh", "-c", &script])
}

#[test]
fn in_the_journal_each_line_has_its_priority_and_no_time() {
    let daemon = in_journal(pool(&[]), "%d:%i").start();
    assert!(
        daemon
            .stderr_wait("listening on")
            .starts_with("<6>INFO pool: listening on")
    );
    // The variable is inherited further than the stream.
    for other in ["%d:1%i", "1%d:%i", "%i", ":"] {
        let daemon = in_journal(pool(&[]), other).start();
        let line = daemon.stderr_wait("listening on");
        assert!(line.contains(" iotcpd[") && !line.contains('<'), "{other}: {line}");
    }
    let daemon = in_journal(pool(&["--log-format", "plain"]), "%d:%i").start();
    assert!(daemon.stderr_wait("listening on").starts_with("INFO "));
}

/// A daemon whose file gets two mistakes, and is read again: its log from then on.
fn refused_file(builder: impl Fn(Builder) -> Builder, file: &Path) -> (String, i32) {
    let good = "[exec.jobs]\nlisten = '127.0.0.1:0'\n";
    fs::write(file, good).unwrap();
    let daemon = builder(Daemon::with(["run", "--config", file.to_str().unwrap()])).start();
    fs::write(file, "[exec.jobs]\nlisten = '127.0.0.1:0'\nx = 1\ny = 2\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("there is no key `y`");
    let pid = daemon.pid();
    (log_of(&daemon), pid)
}

#[test]
fn a_reason_on_a_second_line_has_its_level() {
    let home = temp_dir();
    let file = home.path().join("f");
    let name = file.display();
    let reasons = [
        "ERROR the configuration was read again and is refused; the old one stays:".to_owned(),
        format!("ERROR   {name}:3:1: there is no key `x`; see iotcpd.toml(5) for those there are"),
        format!("ERROR   {name}:4:1: there is no key `y`; see iotcpd.toml(5) for those there are"),
    ];
    let (log, _) = refused_file(|builder| builder.args(&["--log-format", "plain"]), &file);
    let told: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(told, reasons, "{log}");
    let (log, pid) = refused_file(|builder| builder, &file);
    let told: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(told.len(), 3, "{log}");
    for (line, reason) in told.iter().zip(&reasons) {
        let before = line
            .strip_suffix(reason.as_str())
            .unwrap_or_else(|| panic!("{line} is not {reason}"));
        assert!(is_prefix(before, pid), "{line}");
    }
    let (log, _) = refused_file(|builder| in_journal(builder, "%d:%i"), &file);
    let told: Vec<_> = log.lines().filter_map(|line| line.strip_prefix("<3>")).collect();
    assert_eq!(told, reasons, "{log}");
    let (log, _) = refused_file(|builder| builder.args(&["--log-format", "json"]), &file);
    let objects = objects(&log);
    let told: Vec<_> = objects.iter().filter(|object| object["level"] == "ERROR").collect();
    let [told] = told.as_slice() else { panic!("{log}") };
    let message = reasons.join("\n").replace("ERROR   ", "").replace("ERROR ", "");
    assert_eq!(told["message"], message.as_str());
}

/// Each line is one.
fn objects(log: &str) -> Vec<Value> {
    let object = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log.lines().map(object).collect()
}

#[test]
fn to_a_collector_every_line_is_an_object() {
    let daemon = pool(&["--log-format", "json", "--log-level", "debug", "surplus"]).start();
    daemon.ask("stderr a \"quoted\" word\tand a tab");
    daemon.stderr_wait("quoted");
    let pid = daemon.pid();
    let log = log_of(&daemon);
    let objects = objects(&log);
    for object in &objects {
        assert_eq!(object["pid"], pid, "{object}");
        let time = object["time"].as_str().unwrap();
        assert!(is_prefix(&format!("{time} iotcpd[{pid}]: "), pid), "{object}");
        assert!(object["level"].is_string() && object["room"].is_string(), "{object}");
    }
    let with = |part: &str| {
        let is_it = |object: &&Value| object["message"].as_str().unwrap().contains(part);
        objects.iter().find(is_it).unwrap_or_else(|| panic!("no {part}: {log}"))
    };
    assert_eq!(with("`surplus` belongs to no flag")["level"], "WARN");
    let listening = with("listening on");
    assert_eq!(
        (&listening["room"], &listening["service"]),
        (&"net".into(), &"pool".into())
    );
    assert!(with("`surplus` belongs to no flag").get("service").is_none());
    assert_eq!(with("draining")["level"], "INFO");
    let said = with("quoted");
    assert_eq!((&said["room"], &said["service"]), (&"pool".into(), &"pool".into()));
    assert!(
        said["message"].as_str().unwrap().contains("a \"quoted\" word"),
        "{said}"
    );
}

/// Lines of code that the doors share name their door.
#[test]
fn lines_of_a_door_are_of_its_room() {
    let home = temp_dir();
    let socket = format!("unix:{}", home.path().join("s").display());
    let run = |flags: &[&str]| {
        let daemon = Daemon::with(["exec", &socket]).args(flags).start();
        let (status, _, told) =
            crate::harness::Program::start(std::process::Command::new(env!("CARGO_BIN_EXE_iotcpd")).args([
                "call",
                "-n",
                &socket["unix:".len()..],
                "/no/such/program",
            ]))
            .finish();
        assert_eq!(status.code(), Some(127), "{told}");
        log_of(&daemon)
    };
    let log = run(&["--log-format", "json"]);
    let about = |part: &str| {
        let objects = objects(&log);
        let is_it = |object: &Value| object["message"].as_str().unwrap().contains(part);
        objects
            .into_iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("no {part}: {log}"))
    };
    for part in ["/no/such/program", "draining"] {
        let object = about(part);
        assert_eq!(
            (&object["room"], &object["service"]),
            (&"exec".into(), &"exec".into()),
            "{object}"
        );
    }
    let log = run(&["--log-level", "exec=off"]);
    assert!(
        log.contains("listening on") && !log.contains("draining") && !log.contains("/no/such"),
        "{log}"
    );
}

#[test]
fn the_error_that_ends_a_daemon_has_the_format_of_its_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let end = |builder: fn(Builder) -> Builder| {
        let daemon = builder(Daemon::with(["exec", &address])).spawn();
        let (status, _, stderr) = daemon.finish();
        assert_eq!(status.code(), Some(1), "{stderr}");
        (stderr, daemon.pid())
    };
    let (told, pid) = end(|builder| builder);
    let (before, _) = told
        .split_once("ERROR exec: unable to listen")
        .unwrap_or_else(|| panic!("{told}"));
    assert!(is_prefix(before, pid), "{told}");
    let (told, _) = end(|builder| builder.args(&["--log-format", "plain"]));
    assert!(told.starts_with("ERROR exec: unable to listen"), "{told}");
    let (told, _) = end(|builder| in_journal(builder, "%d:%i"));
    assert!(told.lines().all(|line| line.starts_with("<3>ERROR ")), "{told}");
    let (told, _) = end(|builder| builder.args(&["--log-format", "json"]));
    assert!(objects(&told).iter().all(|object| object["level"] == "ERROR"), "{told}");
}

#[test]
fn a_usage_error_goes_to_people_in_plain_text_and_to_the_journal_with_a_priority() {
    let usage = |builder: Builder| {
        let (status, _, stderr) = builder.spawn().finish();
        assert_eq!(status.code(), Some(2), "{stderr}");
        stderr
    };
    for arguments in [
        &["-n", "0"][..],
        &["--ipv", "x"],
        &["--nosuch"],
        &["run", "/no/such/file"],
    ] {
        let told = usage(Daemon::with(arguments.iter().copied()));
        assert!(!told.contains("ERROR") && !told.contains("<3>"), "{told}");
        let told = usage(in_journal(Daemon::with(arguments.iter().copied()), "%d:%i"));
        assert!(told.lines().all(|line| line.starts_with("<3>ERROR ")), "{told}");
    }
    let told = usage(Daemon::with(["-n", "0", "--log-format", "json"]));
    assert_eq!(objects(&told).len(), 1, "{told}");
}

#[test]
fn a_file_may_say_it_and_flags_go_over_the_file() {
    let home = temp_dir();
    let file = home.path().join("f.toml");
    let write = |log: &str| {
        let command = worker_command(&[]);
        fs::write(
            &file,
            format!("{log}\n[pool.main]\ndaemon = \"{command}\"\nport = 0\nnum-daemons = 1\n"),
        )
        .unwrap();
    };
    let run = |flags: &[&str]| Daemon::with(["run", "--config", file.to_str().unwrap()]).args(flags);
    write("[log]\nlevel = 'debug'\nformat = 'plain'");
    let daemon = run(&[]).start();
    assert!(daemon.stderr_wait("DEBUG main: worker 0 (pid ").starts_with("DEBUG "));
    // It is read again, and counts from then on.
    write("[log]\nlevel = 'info'\nformat = 'json'");
    daemon.signal(Signal::SIGHUP);
    assert!(daemon.stderr_wait("the configuration was read again").starts_with('{'));
    daemon.stderr_wait("every worker has been replaced");
    assert_eq!(log_of(&daemon).matches(") is started").count(), 1, "it is of DEBUG");
    // A mistake changes nothing.
    write("[log]\nformat = 'plain'");
    let daemon = run(&[]).start();
    write("[log]\nlevel = 'inf'\nformat = 'json'");
    daemon.signal(Signal::SIGHUP);
    assert!(daemon.stderr_wait("did you mean `info`?").starts_with("ERROR   "));
    assert!(log_of(&daemon).ends_with("INFO main: draining, 0 clients connected"));
    // The order of the sources of the settings.
    write("[log]\nlevel = 'error'\nformat = 'json'");
    let daemon = run(&["--log-level", "debug", "--log-format", "plain"])
        .env("RUST_LOG", "warn")
        .start();
    assert!(daemon.stderr_wait(") is started").starts_with("DEBUG "));
    let daemon = run(&[]).env("RUST_LOG", "info").start();
    assert!(daemon.stderr_wait("listening on").starts_with('{'));
    let daemon = run(&[]).env("RUST_LOG", "nonsense").spawn();
    let told = daemon.stderr_wait("RUST_LOG is `nonsense`");
    assert!(told.contains("what the file says"), "{told}");
}

#[test]
fn an_unreadable_command_line_is_reported_in_the_format_that_it_asks_for() {
    for arguments in [
        &["--log-format", "json", "pool", "--bad"][..],
        &["pool", "--bad", "--log-format=json"],
        &["exec", "--log-format", "json"],
        &["check", "a", "b", "--log-format", "json"],
        &["--log-format", "json", "--log-level", "inf"],
    ] {
        let (status, _, told) = Daemon::with(arguments.iter().copied()).spawn().finish();
        assert_eq!(status.code(), Some(2), "{told}");
        let objects = objects(&told);
        assert!(objects.len() == 1 && objects[0]["level"] == "ERROR", "{told}");
    }
    let (_, _, told) = Daemon::with(["pool", "--log-format=journal", "--bad"]).spawn().finish();
    assert!(told.lines().all(|line| line.starts_with("<3>ERROR ")), "{told}");
}
