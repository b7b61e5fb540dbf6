//! The messages for an operator who has made a mistake, read as a person would.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::harness::{Daemon, temp_dir};

/// The exit status of a command line, and what it says on standard output and on standard error.
#[track_caller]
fn say(arguments: &[&str]) -> (Option<i32>, String, String) {
    let (status, stdout, stderr) = Daemon::with(arguments.iter().copied()).spawn().finish();
    (status.code(), stdout, stderr)
}

/// The message that a command line is refused with, which is status 2 and nothing on standard output.
#[track_caller]
fn told(arguments: &[&str]) -> String {
    let (status, stdout, stderr) = say(arguments);
    assert_eq!((status, stdout.as_str()), (Some(2), ""), "{arguments:?}: {stderr}");
    stderr
}

#[test]
fn a_flag_of_other_daemons_gets_what_takes_its_place() {
    for (flag, part) in [
        ("--pidfile", "it stays in the foreground, so that its supervisor"),
        ("--pid-file=/run/x", "it stays in the foreground"),
        ("--daemonize", "let a supervisor start it"),
        ("-D", "let a supervisor start it"),
        ("--no-daemon", "it always stays in the foreground; leave this out"),
        ("--logfile", "it writes its log to standard error"),
        ("--syslog", "the journal"),
        ("--workers", "said by --num-daemons"),
        ("--bind", "said by --listen"),
        ("-c", "iotcpd run FILE"),
        ("--uid", "the user of --user"),
        ("--ssl", "clients speak TLS where --listen has tls: in front"),
        ("--verbose", "said by --log-level"),
    ] {
        let told = told(&[flag, "5"]);
        assert!(told.contains(part), "{flag}: {told}");
        for wrong in ["similar argument", "did you mean", "to pass '"] {
            assert!(!told.contains(wrong), "{flag}: {told}");
        }
    }
    let in_exec = told(&["exec", "--bind", "127.0.0.1:0"]);
    assert!(in_exec.contains("said by --listen"), "{in_exec}");
}

#[test]
fn a_suggestion_is_near_or_there_is_none() {
    assert!(told(&["--queue-timout", "5"]).contains("did you mean --queue-timeout?"));
    assert!(told(&["check", "--confg", "x"]).contains("did you mean --config?"));
    assert!(told(&["chek", "x"]).contains("did you mean iotcpd check?"));
    for far in ["--children-of-the-sun", "--colour", "--xyz"] {
        let told = told(&[far, "5"]);
        assert!(
            told.contains(far) && !told.contains("did you mean") && !told.contains("tip"),
            "{told}"
        );
    }
    assert!(told(&["/etc/iotcpd.toml"]).contains("iotcpd run /etc/iotcpd.toml"));
}

#[test]
fn help_and_version_are_found_where_people_look_for_them() {
    let (_, flag, _) = say(&["check", "--help"]);
    let (status, help, stderr) = say(&["help", "check"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert_eq!(help, flag);
    let (status, help, _) = say(&["help"]);
    assert!(
        status == Some(0) && help.contains("Commands:") && help.contains("--num-daemons"),
        "{help}"
    );
    assert!(told(&["help", "ceck"]).contains("did you mean iotcpd help check?"));
    assert!(
        told(&["help", "nosuch"])
            .contains("write one of: pool, exec, command, route, tunnel, run, check, ask, call, help")
    );
    let version = concat!("iotcpd ", env!("CARGO_PKG_VERSION"));
    for line in [
        &["-V"][..],
        &["-v"],
        &["--version"],
        &["exec", "-V"],
        &["run", "-V"],
        &["pool", "--version"],
        &["call", "-v"],
    ] {
        let (status, stdout, stderr) = say(line);
        assert_eq!(
            (status, stdout.trim_end(), stderr.as_str()),
            (Some(0), version, ""),
            "{line:?}"
        );
    }
}

#[test]
fn a_file_is_named_by_itself_or_by_its_flag() {
    let home = temp_dir();
    let (toml, torc) = (home.path().join("f.toml"), home.path().join("f.cfg"));
    fs::write(&toml, "[pool.main]\ndaemon = 'cat'\nlisten = '127.0.0.1:0'\n").unwrap();
    fs::write(
        &torc,
        "port = 0;\nprocesses = ( { name = \"cat\"; cmd = \"/bin/cat\"; } );\n",
    )
    .unwrap();
    let (toml, torc) = (toml.to_str().unwrap(), torc.to_str().unwrap());
    for line in [&["check", toml][..], &["check", "--config", toml], &["check", torc]] {
        let (status, stdout, stderr) = say(line);
        assert_eq!(
            (status, stdout.trim_end(), stderr.as_str()),
            (Some(0), "ok", ""),
            "{line:?}"
        );
    }
    for line in [
        &["run", toml][..],
        &["run", torc],
        &["command", torc],
        &["command", "--config", torc],
    ] {
        // It is there when it listens.
        Daemon::with(line.iter().copied()).start();
    }
    assert!(told(&["run", toml, "--config", toml]).contains("cannot be used with"));
}

#[test]
fn without_a_file_the_usual_one_is_read() {
    if fs::symlink_metadata("/etc/iotcpd.toml").is_ok() {
        panic!("this machine has an /etc/iotcpd.toml: move it away for the test");
    }
    for command in ["run", "check"] {
        assert_eq!(
            told(&[command]).trim_end(),
            format!(
                "iotcpd: no file is named, and there is no /etc/iotcpd.toml; name the file with the services \
                 (iotcpd {command} FILE, or --config FILE), or write that one: iotcpd.toml(5) has an example"
            )
        );
    }
}

/// The message of `ask` for one line that it can ask nowhere, with these flags and addresses.
#[track_caller]
fn asked_in_vain(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
    command.arg("ask").args(["--timeout", "300ms"]).args(arguments);
    let mut asker = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    asker.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = asker.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ERR\n");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_error_of_the_system_is_reported_in_its_words_and_once() {
    let missing = temp_dir();
    let missing = missing.path().join("nosuch.sock");
    let missing = missing.to_str().unwrap();
    for (address, cause) in [
        (missing, "No such file or directory"),
        ("nohost.invalid:9991", "nohost.invalid:9991"),
        ("127.10.10.11:1", "Connection refused"),
    ] {
        let told = asked_in_vain(&[address]);
        assert_eq!(told.matches(cause).count(), 1, "{told}");
        assert!(told.contains("1 of 1 lines were not answered; see that"), "{told}");
        for nobody_s in ["entity not found", "(os error", "failed to lookup", "tried again"] {
            assert!(!told.contains(nobody_s), "{told}");
        }
    }
    let told = asked_in_vain(&["nohost.invalid:9991"]);
    assert!(told.contains("cannot resolve nohost.invalid:9991: "), "{told}");
    // Of several it matters which, and of Squid's helper when it began.
    let told = asked_in_vain(&[missing, "nohost.invalid:9991"]);
    assert_eq!(
        told.matches("cannot resolve nohost.invalid:9991: ").count(),
        1,
        "{told}"
    );
    let told = asked_in_vain(&["--squid", "nohost.invalid:9991"]);
    assert_eq!(
        told.matches("cannot resolve nohost.invalid:9991: ").count(),
        1,
        "{told}"
    );
    let (status, _, told) = say(&["call", missing, "true"]);
    let cause = format!("iotcpd: cannot connect to unix:{missing}: No such file or directory; ");
    assert!(status == Some(125) && told.starts_with(&cause), "{told}");
}

/// The message of `check` for a file of that name with this in it, without the name of its directory.
#[track_caller]
fn checked(name: &str, content: &[u8]) -> Vec<String> {
    let home = temp_dir();
    let path = home.path().join(name);
    fs::write(&path, content).unwrap();
    let directory = format!("{}/", home.path().display());
    let told = told(&["check", path.to_str().unwrap()]).replace(&directory, "");
    told.lines().map(str::to_owned).collect()
}

#[test]
fn the_error_for_a_key_outside_of_any_table_says_where_it_belongs() {
    let text = b"port = 9\nallow-program = ['/bin/*']\nnum_daemons = 2\nn = 2\ncolour = 1\n[pool.a]\ndaemon = 'cat'\n[ads]\nport = 8\n";
    assert_eq!(
        checked("f.toml", text),
        [
            "f.toml:1:1: `port` stands outside of any table; it is a key of a pool: write it below a header such as [pool.main]",
            "f.toml:2:1: `allow-program` stands outside of any table; it is a key of an exec door: write it below a header such as \
             [exec.main]",
            "f.toml:3:1: `num_daemons` stands outside of any table; did you mean `num-daemons`, below a header such as [pool.main]?",
            "f.toml:4:1: `n` stands outside of any table; did you mean `num-daemons`, below a header such as [pool.main]?",
            "f.toml:5:1: `colour` stands outside of any table; write the header of a service, such as [pool.main], and its keys below \
             it",
            "f.toml:8:2: there is no kind of service called `ads`; its keys are those of a pool, whose header is [pool.ads]",
        ]
    );
}

#[test]
fn the_error_for_a_file_of_another_kind_says_what_it_looks_like() {
    let program = fs::read("/proc/self/exe").unwrap();
    for (content, what) in [
        (&program[..4096], "a program (ELF)"),
        (b"{ \"pool\": {} }\n", "JSON"),
        (b"pool:\n  main:\n    port: 9991\n", "YAML"),
        (b"http_port 3128\nacl localnet src 10.0.0.0/8\n", "a squid.conf"),
        (b"#!/bin/sh\nexec cat\n", "a script"),
        (b"iotcpd -n 8 -d 'cat' -p 9991\n", "a command line"),
        (b"\xff\xfe[\0p\0o\0o\0l\0", "text in UTF-16"),
        (b"a\0b\0c", "a binary file"),
    ] {
        for (name, read_as) in [
            ("f.toml", "TOML, for its name does not end in .cfg"),
            ("f.cfg", "a torc.cfg, for its name ends in .cfg"),
        ] {
            let told = checked(name, content);
            assert_eq!(told.len(), 1, "{told:?}");
            let begins = format!("{name}:1:1: this is read as {read_as}, and looks like {what}; ");
            assert!(told[0].starts_with(&begins), "{told:?}");
        }
    }
    let torc = b"processes = ( { name = \"x\"; cmd = \"/bin/cat\"; } );\n";
    let told = checked("f.conf", torc);
    assert!(
        told[0].ends_with("looks like a torc.cfg; give it a name that ends in .cfg, or run it with iotcpd command"),
        "{told:?}"
    );
    let told = checked("f.cfg", b"[pool.main]\ndaemon = 'cat'\n");
    assert!(
        told[0].ends_with(
            "looks like a file for iotcpd run; give it a name that ends in .toml, and run it with iotcpd run"
        ),
        "{told:?}"
    );
    // A file that looks like no other kind is read, and its mistakes are reported.
    let told = checked("f.conf", b"hello world\n");
    assert!(
        told[0].starts_with("f.conf:1:1: this is read as TOML, for its name does not end in .cfg, and no service"),
        "{told:?}"
    );
    assert!(told[1].starts_with("f.conf:1:7: this is not TOML: "), "{told:?}");
    assert_eq!(
        checked("f.toml", b""),
        ["f.toml:1:1: no service is described; write a table such as [pool.main] and its keys below it"]
    );
}

/// One mistake that kept the next from being read is in each of these places.
#[test]
fn all_mistakes_are_reported_at_once() {
    let text = b"[pool.a]\ndaemon = \"cat '\"\nerror-reply = '\\q'\nmax-rss = 1\nfail-url = 'x'\nbusy-timeout = 0\nprobe = 'x'\n\
        # caf\xe9\n[pool.b]\ndaemon = '/no/such'\nlisten = '127.0.0.1:1'\nqueue-size = -1\n\
        [command.c]\nlisten = '127.0.0.1:1'\n[command.c.commands.x]\ncmd = '/no/such'\nthreads = 0\nargs = ['nothing']\n";
    let told = checked("f.toml", text);
    let places: Vec<_> = told
        .iter()
        .map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        places,
        [
            "f.toml:2:10 daemon",
            "f.toml:3:15 error-reply",
            "f.toml:4:11 max-rss",
            "f.toml:5:12 fail-url",
            "f.toml:5:12 fail-url",
            "f.toml:6:16 busy-timeout",
            "f.toml:7:9 probe",
            "f.toml:8:6 this is not UTF-8; save the file in that encoding",
            "f.toml:10:10 daemon",
            "f.toml:12:14 queue-size",
            "f.toml:16:7 cmd",
            "f.toml:17:11 threads",
            "f.toml:18:9 args",
        ],
        "{told:#?}"
    );
    let torc = b"processes = ( { name = \"x\"; cmd = \"/bin/cat\"; threads = \"many\"; } );\n";
    assert_eq!(
        checked("f.cfg", torc),
        ["f.cfg:1:57: threads: `many` is not a whole number; write for example 4 (in the command `x`)"]
    );
}

#[test]
fn of_many_mistakes_the_first_are_reported_and_the_others_counted() {
    let keys: String = (0..200_000).map(|number| format!("key-{number} = 1\n")).collect();
    let told = checked("f.toml", format!("[pool.a]\ndaemon = \"cat\"\n{keys}").as_bytes());
    assert_eq!(told.len(), 101);
    assert!(
        told[0].starts_with("f.toml:3:1: there is no key `key-0`; "),
        "{}",
        told[0]
    );
    assert_eq!(
        told[100],
        "f.toml:102:1: 199900 more mistakes stand below; mend those above first"
    );
}

#[test]
fn shell_syntax_where_there_is_no_shell_is_reported() {
    for (command, what, remedy) in [
        ("cat | grep x", "would understand `|`", "sh -c 'cat | grep x'"),
        ("cat && ls", "would understand `&&`", "sh -c 'cat && ls'"),
        (
            "cat 2>/dev/null",
            "would redirect anything by `2>/dev/null`",
            "goes to the log",
        ),
        ("cat > x", "would redirect anything by `>`", "sh -c 'cat > x'"),
        ("cat < x", "would redirect anything by `<`", "sh -c 'cat < x'"),
        ("cat &", "would put it in the background", "leave it out"),
        ("cat ; ls", "would understand `;`", "sh -c 'cat ; ls'"),
        (
            "cat $(date)",
            "would run what `$(date)` begins",
            "write what comes out of it",
        ),
        (
            "cat `date`",
            "would run what ``date`` begins",
            "write what comes out of it",
        ),
        (
            "cat $HOME",
            "would put the value of a variable in the place of `$HOME`",
            "write the value",
        ),
        (
            "LANG=C cat",
            "would set a variable by `LANG=C` in front",
            "set it by --env LANG=C, and begin with the program",
        ),
        (
            "~/bin/x",
            "would know whose home `~/bin/x` is in",
            "write the whole path, such as /home/NAME/bin/x",
        ),
    ] {
        let told = told(&["-d", command, "-p", "0"]);
        let begins = format!("iotcpd: --daemon: there is no shell here that {what}");
        assert!(told.starts_with(&begins) && told.contains(remedy), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    let in_a_file = b"[pool.a]\ndaemon = 'LANG=C cat'\n[command.b]\nlisten = '127.0.0.1:1'\n[command.b.commands.c]\ncmd = 'ls | wc'\n";
    let told = checked("f.toml", in_a_file);
    assert!(
        told[0].ends_with("; set it by env = \"LANG=C\", and begin with the program"),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("f.toml:6:7: cmd: there is no shell here that would understand `|`; "),
        "{told:?}"
    );
    // In quotes it is the program's.
    Daemon::pool(1, "sh -c 'exec cat | cat 2>/dev/null'", &[]);
    Daemon::pool(1, "grep --line-buffered -E '|' -e a|b -e \\>", &[]);
}

#[test]
fn a_flag_that_is_named_has_its_dashes_and_a_key_has_none() {
    for (flags, part) in [
        (
            &["--probe", "x"][..],
            "--probe: nothing says what its answer is to be; give --probe-expect with it",
        ),
        (
            &["--probe-expect", "x"],
            "--probe-expect: without a --probe there is no answer; give a --probe, or leave it out",
        ),
        (&["--cache-ttl", "5"], "give --cache-size as well"),
        (
            &["--min-workers", "5"],
            "give --max-workers as well, and no --num-daemons",
        ),
        (&["--idle-timeout", "5", "--no-multiplex"], "give --persistent as well"),
        (
            &["--socket-mode", "0600"],
            "add a --listen address such as unix:/run/iotcpd.sock",
        ),
        (&["--sandbox-read", "/"], "add --sandbox, or leave this out"),
        (&["--fail-url", "http://x/"], "give --fail closed as well"),
        (&["--start-timeout", "5"], "give a --ready-line or a --probe"),
        (
            &["-I", "::ffff:127.0.0.1"],
            "--ipv6: `::ffff:127.0.0.1` is not an IPv6 address; give it by --ipv4 127.0.0.1",
        ),
        (
            &["-i", "::1"],
            "--ipv4: `::1` is not an IPv4 address; give it by --ipv6 ::1",
        ),
        (
            &["-i", "127.0.0.1:80"],
            "the port is another setting: --ipv4 127.0.0.1 and --port 80",
        ),
    ] {
        let told = told(flags);
        assert!(told.contains(part), "{flags:?}: {told}");
        assert!(!told.contains('\u{1}') && !told.contains('\u{2}'), "{told:?}");
    }
    let told = checked("f.toml", b"[pool.a]\nprobe = 'x'\nmin-workers = 5\n");
    assert_eq!(
        told[0],
        "f.toml:2:9: probe: nothing says what its answer is to be; give probe-expect with it"
    );
    assert!(
        told[1].ends_with("; give max-workers as well, and no num-daemons, or leave it out"),
        "{told:?}"
    );
}

#[test]
fn an_interface_is_named_or_numbered() {
    for address in ["[::1%lo]:0", "[::1%1]:0"] {
        let daemon = Daemon::with(["-n", "1", "-d", "cat", "--listen", address]).start();
        assert!(
            daemon.addr().to_string().starts_with("[::1"),
            "{address}: {}",
            daemon.addr()
        );
    }
    Daemon::with(["-n", "1", "-d", "cat", "-I", "::1%lo", "-p", "0"]).start();
    let missing = "this machine has no network interface called \"nosuch0\"; write one that `ip link` lists";
    for flags in [
        &["--listen", "[fe80::1%nosuch0]:9991"][..],
        &["-I", "fe80::1%nosuch0"],
        &["ask", "[fe80::1%nosuch0]:9991"],
    ] {
        let told = told(flags);
        assert!(told.contains(missing), "{told}");
    }
    assert!(told(&["--allow", "fe80::1%lo"]).contains("write fe80::1"));
}

/// The mistakes that a new administrator makes.
#[test]
fn common_mistakes_are_reported_once_and_with_their_remedy() {
    let home = temp_dir();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let (file, long) = (file.to_str().unwrap(), format!("unix:/{}", "x".repeat(120)));
    for (arguments, status, told) in [
        (&["-n", "-3"][..], 2, "write a number that is not negative"),
        (
            &["--listen", "/run/x"],
            2,
            "a path stands behind unix: here; write unix:/run/x\n",
        ),
        (
            &["--listen", &long],
            2,
            "at most 107 bytes, this one has 121; write a shorter one\n",
        ),
        (&["exec", "13000"], 2, "iotcpd: SOCKET: \"13000\" is not an address"),
        (&["exec", "0.0.0.0:1"], 2, "or say with --allow-program what may be run"),
        (&["exec", file], 1, "what is there is not a socket and is not touched"),
        (
            &["call", "nohost", "ls"],
            125,
            "if this is a host, write its port behind it, as in HOST:9000",
        ),
        (
            &["-d", "/no/such/prog", "-p", "0"],
            1,
            "cannot start \"/no/such/prog\": looking it up: No such file",
        ),
        (
            &["-d", "cat", "-p", "0", "--chdir", "/no/such"],
            1,
            "cannot start \"cat\": entering its working directory",
        ),
    ] {
        let (found, stdout, stderr) = say(arguments);
        assert_eq!((found, stdout.as_str()), (Some(status), ""), "{arguments:?}: {stderr}");
        let stderr = format!("{}\n", stderr.trim_end());
        assert!(stderr.contains(told), "{arguments:?}: {stderr}");
        assert_eq!(
            stderr.matches("cannot start").count(),
            usize::from(told.contains("cannot start")),
            "{stderr}"
        );
    }
    let twice = checked("f.toml", b"[pool.a]\nport = 1\nport = 2\n[pool.a]\n[[pool.b]]\n");
    assert_eq!(
        twice,
        [
            "f.toml:3:1: `port` is written a second time; keep one of the two, or give this one another name",
            "f.toml:4:7: `a` is written a second time; keep one of the two, or give this one another name",
            "f.toml:5:8: each service has one table; write [pool.b], in single brackets",
        ]
    );
}
