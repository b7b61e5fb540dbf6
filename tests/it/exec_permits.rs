//! The exec door's permissions: the clients that may run a program, and the programs that they may run.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid, getgroups};

use crate::exec_client::{ExecClient, Outcome, door, request, run};
use crate::exec_foreign_clients::{PERL, finish, path_of};
use crate::harness::{Daemon, TempDir, temp_dir};
use crate::pool_sandbox::possible;

// ---- users and groups ----------------------------------------------------------------------------------------------

/// A door that lets in every client that reaches its socket, which all can, but for what these flags say.
#[track_caller]
fn open_door(flags: &[&str]) -> (Daemon, TempDir) {
    let home = temp_dir();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = home.path().join("exec.sock");
    let daemon = Daemon::with(["exec", "--socket-mode", "0666"])
        .args(flags)
        .args(&[socket.to_str().unwrap()])
        .start();
    (daemon, home)
}

/// Asks for `id` as another user, which takes root: status and complaint.
#[track_caller]
fn ask_as(daemon: &Daemon, user: &str, group: &str, groups: &str) -> (Option<i32>, String) {
    let mut client = Command::new("setpriv");
    client.args([&format!("--reuid={user}"), &format!("--regid={group}")]);
    match groups {
        "" => client.arg("--clear-groups"),
        groups => client.arg(format!("--groups={groups}")),
    };
    client.args(["perl", "-e", PERL, &path_of(daemon), "echo", "hello"]);
    let (status, _, complaint) = finish(client.current_dir("/"), b"");
    (status, complaint)
}

#[test]
fn only_users_that_are_listed_are_let_in() {
    let own = geteuid().to_string();
    let (daemon, _home) = open_door(&["--allow-user", &own]);
    assert_eq!(run(&daemon, &["echo", "hello"], b"").text(), "hello\n");
    // The user who runs this test is not user 54321.
    let (daemon, _home) = open_door(&["--allow-user", "54321"]);
    let refused = ExecClient::connect(&daemon).outcome();
    assert_eq!(refused.code(), "125");
    let why = refused.complaint();
    assert!(
        why.contains(&format!("uid {own}")) && why.contains("--allow-user"),
        "{why}"
    );
    let line = daemon.stderr_wait("refused unix");
    assert!(line.contains(&format!("uid {own} gid {}", getegid())), "{line}");
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused user"), stats.count("runs total")), (1, 0));
    assert_eq!(stats.count("connections"), 0);
}

#[test]
fn members_of_a_listed_group_are_let_in_by_any_of_their_groups() {
    let (daemon, _home) = open_door(&["--allow-group", &getegid().to_string()]);
    assert_eq!(run(&daemon, &["echo", "hello"], b"").text(), "hello\n");
    for group in getgroups().unwrap() {
        let (daemon, _home) = open_door(&["--allow-group", &group.to_string()]);
        assert_eq!(run(&daemon, &["echo", "hello"], b"").text(), "hello\n", "{group}");
    }
    let (daemon, _home) = open_door(&["--allow-group", "54321"]);
    assert_eq!(ExecClient::connect(&daemon).outcome().code(), "125");
}

/// Only root can change its user; other users try the two tests above as they are.
#[test]
fn root_sees_every_user_and_group_told_apart() {
    if !geteuid().is_root() {
        assert!(
            Command::new("setpriv")
                .args(["--reuid=54321", "true"])
                .status()
                .is_ok_and(|it| !it.success())
        );
        return;
    }
    let (daemon, _home) = open_door(&["--allow-user", "54321", "--allow-group", "777", "--allow-group", "778"]);
    for (user, group, groups, status) in [
        ("54321", "1", "", 0),
        ("54322", "777", "", 0),
        ("54322", "1", "5,778", 0),
        ("54322", "1", "5,779", 125),
        ("54322", "54321", "", 125),
        ("777", "1", "", 125),
        ("0", "0", "", 125),
    ] {
        let (code, complaint) = ask_as(&daemon, user, group, groups);
        assert_eq!(code, Some(status), "{user} {group} {groups}: {complaint}");
    }
    // More groups than are asked for at first.
    let many: Vec<String> = (1000..1100).map(|group| group.to_string()).collect();
    assert_eq!(
        ask_as(&daemon, "54322", "1", &format!("{},777", many.join(","))).0,
        Some(0)
    );
    assert_eq!(ask_as(&daemon, "54322", "1", &many.join(",")).0, Some(125));
    assert_eq!(daemon.usr1().count("refused user"), 5);
}

#[test]
fn a_list_of_users_needs_sockets_that_know_them() {
    let refused = |daemon: Daemon| {
        let (status, _, said) = daemon.finish();
        assert_eq!(status.code(), Some(2));
        said
    };
    let said = refused(Daemon::with(["exec", "--allow-user", "root", "127.0.0.1:0"]).spawn());
    assert!(said.contains("connects to 127.0.0.1:0 has no user"), "{said}");
    let inherited = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let said = refused(
        Daemon::with(["exec", "--allow-group", "root", "systemd"])
            .inherit(inherited)
            .spawn(),
    );
    assert!(said.contains("no user is known there"), "{said}");
}

// ---- programs ------------------------------------------------------------------------------------------------------

/// Programs at paths without links: `tools/ok`, `tools/sub/deep`, `other/no`, and links among them.
struct Programs {
    home: TempDir,
    root: PathBuf,
}

impl Programs {
    fn new() -> Self {
        let home = temp_dir();
        let root = fs::canonicalize(home.path()).unwrap();
        for directory in ["tools/sub", "other"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for program in ["tools/ok", "tools/sub/deep", "other/no"] {
            let path = root.join(program);
            fs::write(&path, "#!/bin/sh\necho \"ran as $0\"\n").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        symlink("../other/no", root.join("tools/evil")).unwrap();
        symlink("../tools/ok", root.join("other/alias")).unwrap();
        symlink("/bin/sh", root.join("other/written-out")).unwrap();
        symlink("other", root.join("tools/../linked")).unwrap();
        Self { home, root }
    }

    fn path(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }

    /// A door that permits these.
    #[track_caller]
    fn door(&self, permitted: &[&str], flags: &[&str]) -> Daemon {
        let permitted: Vec<String> = permitted
            .iter()
            .map(|pattern| format!("--allow-program={}", self.path(pattern)))
            .collect();
        let permitted: Vec<&str> = permitted.iter().map(String::as_str).collect();
        let socket = self.home.path().join("exec.sock");
        Daemon::with(["exec"])
            .args(&permitted)
            .args(flags)
            .args(&[socket.to_str().unwrap()])
            .start()
    }
}

#[track_caller]
fn assert_forbidden(outcome: &Outcome, path: &str) {
    assert_eq!((outcome.code(), outcome.text().as_str()), ("126", ""), "{outcome:?}");
    // The target of a link, and its existence, are the operator's business alone.
    assert_eq!(outcome.complaint(), NOT_ALLOWED, "{path}");
}

const NOT_ALLOWED: &str = "iotcpd: this program is not allowed (--allow-program)\n";

#[test]
fn only_programs_that_are_listed_are_run() {
    let programs = Programs::new();
    let daemon = programs.door(&["tools/*"], &["--log-args", "yes"]);
    let ok = programs.path("tools/ok");
    assert_eq!(run(&daemon, &[&ok], b"").text(), format!("ran as {ok}\n"));
    for (asked, is) in [("other/no", "other/no"), ("tools/sub/deep", "tools/sub/deep")] {
        assert_forbidden(&run(&daemon, &[&programs.path(asked), "x"], b""), &programs.path(is));
    }
    let shell = fs::canonicalize("/bin/sh").unwrap();
    assert_forbidden(
        &run(&daemon, &["sh", "-c", "echo broken out"], b""),
        shell.to_str().unwrap(),
    );
    assert_forbidden(&run(&daemon, &["no-such-program"], b""), "no-such-program");
    let stats = daemon.usr1();
    assert_eq!((stats.count("runs forbidden"), stats.count("runs not started")), (3, 1));
    let line = daemon.stderr_wait("did not get to run \"sh\"");
    assert!(
        line.contains(r#""sh" "-c" "echo broken out": status 126"#) && line.contains(&format!("uid {}", geteuid())),
        "{line}"
    );
}

#[test]
fn a_link_in_a_listed_directory_leads_nowhere_else() {
    let programs = Programs::new();
    let daemon = programs.door(&["tools/**/*"], &[]);
    let no = programs.path("other/no");
    for way_out in [
        "tools/evil",
        "tools/../other/no",
        "linked/no",
        "tools/sub/../../other/no",
        "tools//evil",
    ] {
        assert_forbidden(&run(&daemon, &[&programs.path(way_out)], b""), &no);
    }
    let deep = programs.path("tools/sub/deep");
    assert_eq!(run(&daemon, &[&deep], b"").text(), format!("ran as {deep}\n"));
}

#[test]
fn the_matched_path_is_the_path_that_runs() {
    let programs = Programs::new();
    let daemon = programs.door(&["tools/*"], &[]);
    let ok = format!("ran as {}\n", programs.path("tools/ok"));
    for way_in in ["other/alias", "linked/alias", "other/../tools/ok"] {
        assert_eq!(run(&daemon, &[&programs.path(way_in)], b"").text(), ok, "{way_in}");
    }
}

#[test]
fn each_program_that_is_refused_has_its_line() {
    let programs = Programs::new();
    let daemon = programs.door(&["tools/*"], &["--log-args", "yes"]);
    for number in 0..20 {
        assert_eq!(run(&daemon, &["/bin/sh", &number.to_string()], b"").code(), "126");
    }
    daemon.stderr_wait("\"19\": status 126");
    assert_eq!(daemon.stderr.text().matches("did not get to run").count(), 20);
}

#[test]
fn a_link_of_ones_own_does_not_choose_what_a_program_does() {
    let programs = Programs::new();
    // By a process of its own: were it open for writing here while another test starts something, it would be busy.
    let copied = Command::new("cp")
        .arg("/bin/sh")
        .arg(programs.root.join("tools/real"))
        .status();
    assert!(copied.unwrap().success());
    let daemon = programs.door(&["tools/*"], &[]);
    symlink("../tools/real", programs.root.join("other/mine")).unwrap();
    symlink("real", programs.root.join("tools/listed")).unwrap();
    let named = |name: &str| run(&daemon, &[&programs.path(name), "-c", "cat /proc/$$/cmdline"], b"").text();
    for (asked, told) in [
        ("other/mine", "tools/real"),
        ("tools/real", "tools/real"),
        ("tools/listed", "tools/listed"),
        ("tools/../other/mine", "tools/real"),
        ("other/../tools/real", "other/../tools/real"),
    ] {
        let name = named(asked);
        assert_eq!(name.split('\0').next(), Some(programs.path(told).as_str()), "{asked}");
    }
}

#[test]
fn a_path_that_is_written_out_may_be_a_link_and_permits_nothing_but_itself() {
    let programs = Programs::new();
    let daemon = programs.door(&["other/written-out"], &[]);
    let script = ["-c", "echo $0"];
    let written_out = programs.path("other/written-out");
    let outcome = run(&daemon, &[&[written_out.as_str()], &script[..]].concat(), b"");
    assert_eq!(outcome.text(), format!("{written_out}\n"));
    let shell = fs::canonicalize("/bin/sh").unwrap();
    for other in ["/bin/sh", &programs.path("linked/written-out"), shell.to_str().unwrap()] {
        assert_forbidden(
            &run(&daemon, &[&[other], &script[..]].concat(), b""),
            shell.to_str().unwrap(),
        );
    }
}

#[test]
fn a_name_is_looked_up_where_programs_are_and_judged_by_what_it_is() {
    let programs = Programs::new();
    let (tools, other) = (programs.path("tools"), programs.path("other"));
    let path = format!("--env=PATH={other}:{tools}");
    let daemon = programs.door(&["tools/*"], &[&path, "--chdir", &other]);
    let ok = format!("ran as {}\n", programs.path("tools/ok"));
    for name in ["ok", "alias", "./alias", "../tools/ok"] {
        assert_eq!(run(&daemon, &[name], b"").text(), ok, "{name}");
    }
    for name in ["no", "./no", "evil"] {
        assert_forbidden(&run(&daemon, &[name], b""), &programs.path("other/no"));
    }
}

#[test]
fn permissions_change_with_the_file() {
    let programs = Programs::new();
    let (file, socket) = (programs.root.join("f.toml"), programs.root.join("s"));
    let text = |pattern: &str| {
        let pattern = programs.path(pattern);
        format!(
            "[exec.jobs]\nlisten = 'unix:{}'\nallow-program = ['{pattern}']\n",
            socket.display()
        )
    };
    fs::write(&file, text("tools/*")).unwrap();
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()]).start();
    let (ok, no) = (programs.path("tools/ok"), programs.path("other/no"));
    assert_eq!(run(&daemon, &[&ok], b"").code(), "0");
    assert_forbidden(&run(&daemon, &[&no], b""), &no);
    fs::write(&file, text("other/n?")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    assert_eq!(run(&daemon, &[&no], b"").code(), "0");
    assert_forbidden(&run(&daemon, &[&ok], b""), &ok);
}

// ---- other machines ------------------------------------------------------------------------------------------------

#[test]
fn other_machines_are_let_in_only_to_programs_that_are_listed_and_that_is_said() {
    let echo = fs::canonicalize("/bin/echo").unwrap();
    let echo = echo.to_str().unwrap();
    let listens: [fn() -> crate::harness::Builder; 2] = [
        || Daemon::with(["exec", "0.0.0.0:0"]),
        || Daemon::with(["exec", "systemd"]).inherit(std::net::TcpListener::bind("0.0.0.0:0").unwrap()),
    ];
    for listen in listens {
        let (status, _, said) = listen().spawn().finish();
        assert_eq!(status.code(), Some(2));
        assert!(
            said.contains("could run anything") && said.contains("allow-program"),
            "{said}"
        );
        let daemon = listen().args(&["--allow-program", echo]).start();
        daemon.stderr_wait("can be reached from other machines");
        assert_eq!(run(&daemon, &["echo", "hello"], b"").text(), "hello\n");
        assert_eq!(run(&daemon, &["sh", "-c", "echo hello"], b"").code(), "126");
    }
}

#[test]
fn a_reload_does_not_lay_open_what_was_handed_over() {
    let home = temp_dir();
    let file = home.path().join("f.toml");
    let text = |permitted: &str| format!("[exec.jobs]\nlisten = 'systemd'\ntimeout = 9\n{permitted}");
    fs::write(&file, text("allow-program = '/bin/echo'\n")).unwrap();
    let inherited = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()])
        .inherit(inherited)
        .start();
    fs::write(&file, text("")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("could run anything");
    assert_eq!(
        run(&daemon, &["sh", "-c", "echo hello"], b"").code(),
        "126",
        "as before"
    );
}

/// The contents of a private folder do not concern a client that may not run its programs.
#[test]
fn a_list_of_programs_does_not_reveal_which_files_exist() {
    let programs = Programs::new();
    let daemon = programs.door(&["tools/*"], &[]);
    let private = programs.path("other");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["no", "none", "no/", "no/more", "", "../other/no", "."] {
        let outcome = run(&daemon, &[&format!("{private}/{name}")], b"");
        assert_eq!(
            (outcome.code(), outcome.complaint().as_str()),
            ("126", NOT_ALLOWED),
            "{name:?}"
        );
    }
    // The operator's log has the reason.
    daemon.stderr_wait("other/no\" is not allowed");
    daemon.stderr_wait("No such file or directory");
    daemon.stderr_wait("Not a directory");
}

/// Only root may mount.
#[test]
fn an_unresponsive_file_system_delays_only_the_client_that_names_it() {
    if !geteuid().is_root() {
        return;
    }
    let home = temp_dir();
    let place = home.path().to_str().unwrap();
    let launcher = [
        "unshare",
        "--mount",
        "python3",
        "-c",
        crate::child_environment::MOUNT_SILENCE,
        place,
    ];
    let daemon = Daemon::with(["exec", "127.0.0.1:0", "--allow-program", "/**"])
        .through(&launcher)
        .start();
    let named = |name: &str| {
        let mut client = ExecClient::connect(&daemon);
        client.send([request(&[name]), b"0:,".to_vec()].concat());
        client
    };
    let stuck: Vec<ExecClient> = (0..50).map(|n| named(&format!("{place}/tool{n}"))).collect();
    // While they wait others are served: over UNIX sockets another user's, here another address's.
    let address = daemon.addr();
    let mut other = crate::harness::Client::connect_from(std::net::Ipv4Addr::new(127, 0, 0, 9), &address);
    other.send([request(&["echo", "served"]), b"0:,".to_vec()].concat());
    assert_eq!(other.read_to_end(), b"6:stdout,7:served\n,8:exitcode,1:0,");
    for client in stuck {
        let outcome = client.outcome();
        assert_eq!((outcome.code(), outcome.complaint().as_str()), ("126", NOT_ALLOWED));
    }
    daemon.stderr_wait("its file system has not answered");
    // An address that is known not to answer is not asked again.
    let mut again = crate::harness::Client::connect_from(std::net::Ipv4Addr::new(127, 0, 0, 9), &address);
    again.send([request(&[&format!("{place}/another")]), b"0:,".to_vec()].concat());
    assert!(again.read_to_end().ends_with(b"8:exitcode,3:126,"));
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().count();
    assert!(threads < 20, "{threads}");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

// ---- what programs run with ----------------------------------------------------------------------------------------

/// The output of a shell of this door.
#[track_caller]
fn said(flags: &[&str], script: &str) -> String {
    let (daemon, _home) = door(flags);
    let outcome = run(&daemon, &["sh", "-c", script], b"");
    assert_eq!(outcome.code(), "0", "{}", outcome.complaint());
    outcome.text().trim_end().to_owned()
}

#[test]
fn programs_find_around_them_what_the_flags_say() {
    assert_eq!(said(&["--chdir", "/usr"], "pwd"), "/usr");
    assert_eq!(
        said(&["--env", "A=1=2", "--env", "B="], "echo $A,$B,${HOME+set}"),
        "1=2,,set"
    );
    assert_eq!(
        said(
            &["--clear-env", "--env", "PATH=/bin:/usr/bin"],
            "env | grep -v -e PWD -e SHLVL -e ^_= -e ^IPC -e ^PROTO= -e ^IOTCPD_RUN="
        ),
        "PATH=/bin:/usr/bin"
    );
    assert_eq!(said(&["--limit-open-files", "77"], "ulimit -n"), "77");
    assert_eq!(said(&["--limit-memory", "1GiB"], "ulimit -v"), "1048576");
    assert_eq!(said(&["--limit-cpu", "60"], "ulimit -t"), "60");
    assert_eq!(said(&["--nice", "19"], "nice"), "19");
    let privileges = |flags: &[&str]| said(flags, "grep NoNewPrivs /proc/self/status");
    assert!(privileges(&[]).ends_with('0') && privileges(&["--no-new-privs"]).ends_with('1'));
}

#[test]
fn programs_run_as_the_user_that_the_flags_say() {
    let flags = ["--user", "54321", "--group", "54322"];
    if geteuid().is_root() {
        assert_eq!(said(&flags, "id -u; id -g; id -G"), "54321\n54322\n54322");
    }
    // A daemon that may not change to that user says so at its start. Root may not either, without the capability.
    for flags in [&flags[..2], &flags[2..]] {
        let mut daemon = if geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-setgid", env!("CARGO_BIN_EXE_iotcpd")]);
            command
        } else {
            Command::new(env!("CARGO_BIN_EXE_iotcpd"))
        };
        let (status, _, complaint) = finish(daemon.arg("exec").args(flags).arg("unix:@iotcpd-never"), b"");
        assert_eq!(status, Some(2), "{complaint}");
        assert!(
            complaint.contains("may not run programs as another user or group"),
            "{complaint}"
        );
    }
}

#[test]
fn programs_in_a_sandbox_change_nothing_but_what_they_are_given() {
    let home = temp_dir();
    let given = fs::canonicalize(home.path()).unwrap();
    let flags = ["--sandbox", "--sandbox-write", given.to_str().unwrap()];
    if !possible() {
        let daemon = Daemon::with(["exec"])
            .args(&flags)
            .args(&["unix:@iotcpd-never"])
            .spawn();
        let (status, _, complaint) = daemon.finish();
        assert_eq!(status.code(), Some(1), "{complaint}");
        assert!(complaint.contains("Landlock"), "{complaint}");
        return;
    }
    let (daemon, other) = door(&flags);
    for (directory, status) in [(given.as_path(), "0"), (other.path(), "2")] {
        let script = format!("echo x > {}/new", directory.display());
        assert_eq!(run(&daemon, &["sh", "-c", &script], b"").code(), status, "{script}");
    }
    assert!(given.join("new").exists() && !other.path().join("new").exists());
}

#[test]
fn a_context_that_no_program_can_be_started_in_is_refused_at_start() {
    let home = temp_dir();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    for (directory, why) in [(Path::new("/no/such/place"), "No such file"), (&file, "no directory")] {
        let daemon = Daemon::with(["exec", "--chdir", directory.to_str().unwrap(), "unix:@iotcpd-never"]).spawn();
        let (status, _, said) = daemon.finish();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(
            said.contains("programs cannot be started in") && said.contains(why),
            "{said}"
        );
    }
}

#[test]
fn the_spawn_context_changes_with_the_file_for_later_requests() {
    let home = temp_dir();
    let (file, socket) = (home.path().join("f.toml"), home.path().join("s"));
    let text = |keys: &str| format!("[exec.jobs]\nlisten = 'unix:{}'\n{keys}\n", socket.display());
    fs::write(&file, text("env = 'WHO=before'")).unwrap();
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()]).start();
    let answer = || run(&daemon, &["sh", "-c", "echo $WHO $PWD"], b"").text();
    assert!(answer().starts_with("before "));
    fs::write(&file, text("env = 'WHO=after'\nchdir = '/'")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    assert_eq!(answer(), "after /\n");
    fs::write(&file, text("chdir = '/no/such/place'")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("programs cannot be started in");
    assert_eq!(answer(), "after /\n", "nothing has changed");
}

/// A HUP also looks again at the limits that the daemon has by now.
#[test]
fn a_hup_reads_the_limits_of_the_daemon_again() {
    let (daemon, _home) = door(&[]);
    let limit = || run(&daemon, &["sh", "-c", "ulimit -Hn"], b"").text();
    let before = limit();
    let status = Command::new("prlimit")
        .args(["--pid", &daemon.pid().to_string(), "--nofile=300:300"])
        .status();
    assert!(status.unwrap().success());
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("programs that are started from now on");
    assert_ne!(before, "300\n");
    assert_eq!(limit(), "300\n");
}
