//! The environment of a child, at every door and however the daemon was started: a session of its own, streams that are
//! its own, signals that arrive.

use std::fs;
use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::command::{ask, torc};
use crate::exec_client::{ExecClient, netstring, request, run, sh};
use crate::harness::{Builder, Daemon, Installation, Program, temp_dir};
use crate::upgrade::{signal, upgrade};

// ---- sessions and terminals ----------------------------------------------------------------------------------------

/// A daemon at a terminal: it leads a session whose controlling terminal that is. The other side is returned.
fn at_terminal(builder: Builder) -> (Daemon, OwnedFd) {
    let terminal = openpty(None, None).unwrap();
    let daemon = builder.through(&["setsid", "--ctty"]).stdin(terminal.slave).start();
    let own = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    assert_ne!(
        place(&own).terminal,
        0,
        "the daemon itself has a controlling terminal: {own}"
    );
    (daemon, terminal.master)
}

/// The fields of `/proc/PID/stat` that say where a process belongs.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    pid: i32,
    group: i32,
    session: i32,
    terminal: i32,
}

fn place(stat: &str) -> Place {
    let (pid, rest) = stat.split_once(" (").unwrap_or_else(|| panic!("no stat: {stat:?}"));
    let (_, rest) = rest.rsplit_once(") ").unwrap();
    let fields: Vec<i32> = rest
        .split(' ')
        .skip(1)
        .take(4)
        .map(|field| field.parse().unwrap())
        .collect();
    Place {
        pid: pid.parse().unwrap(),
        group: fields[1],
        session: fields[2],
        terminal: fields[3],
    }
}

/// A child that leads a group and a session and has no terminal.
#[track_caller]
fn assert_alone(stat: &str) {
    let found = place(stat);
    let pid = found.pid;
    let alone = Place {
        pid,
        group: pid,
        session: pid,
        terminal: 0,
    };
    assert_eq!(found, alone);
}

/// A worker that replies to each line with where it belongs.
const TELLS_PLACE: &str = "sh -c 'while read -r line; do cat /proc/$$/stat; done'";

#[test]
fn a_worker_of_a_daemon_at_a_terminal_is_in_no_session_of_the_daemons() {
    let (daemon, _terminal) = at_terminal(Daemon::with(["-n", "1", "-d", TELLS_PLACE, "-p", "0"]));
    assert_alone(&daemon.ask("where"));
    let probed = [
        "-n",
        "1",
        "-d",
        TELLS_PLACE,
        "-p",
        "0",
        "--probe",
        "where",
        "--probe-expect",
        " 0 -1 ",
    ];
    // The probe is answered by the worker itself: with a terminal of the daemon, a number would stand there.
    let (daemon, _terminal) = at_terminal(Daemon::with(probed));
    assert_alone(&daemon.ask("where"));
    let session = [
        "-n",
        "1",
        "-d",
        "sh -c 'read -r line; cat /proc/$$/stat'",
        "-p",
        "0",
        "--mode",
        "session",
    ];
    let (daemon, _terminal) = at_terminal(Daemon::with(session));
    assert_alone(&daemon.ask("where"));
}

#[test]
fn a_worker_with_a_terminal_of_its_own_has_that_and_no_other() {
    let arguments = ["-n", "1", "-d", TELLS_PLACE, "-p", "0", "--mode", "session", "--pty"];
    let (daemon, _terminal) = at_terminal(Daemon::with(arguments));
    let mut client = daemon.client();
    client.send("where\n");
    let found = place(&client.read_line());
    let own = place(&fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap());
    assert_eq!((found.group, found.session), (found.pid, found.pid));
    assert!(
        found.terminal != 0 && found.terminal != own.terminal,
        "{found:?} {own:?}"
    );
}

#[test]
fn a_program_run_on_request_is_in_no_session_of_the_daemons() {
    let (daemon, _terminal) = at_terminal(Daemon::with(["exec", "127.0.0.1:0"]));
    assert_alone(&run(&daemon, &["cat", "/proc/self/stat"], b"").text());
    let torc = torc(&["name = 'place'; cmd = '@/place'; argc = 0; threads = 5;"]).script("place", "cat /proc/$$/stat");
    let file = torc.path("torc.cfg");
    let arguments = ["command", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let (daemon, _terminal) = at_terminal(Daemon::with(arguments));
    assert_alone(&ask(&daemon, "place\n"));
}

/// The kernel refuses to open the terminal of the daemon, and so nothing can be typed into it.
#[test]
fn a_program_cannot_open_the_terminal_of_the_daemon() {
    let user = geteuid().is_root().then_some(["--user", "nobody"]);
    let arguments = ["exec", "127.0.0.1:0"].into_iter().chain(user.into_iter().flatten());
    let (daemon, _terminal) = at_terminal(Daemon::with(arguments));
    let tried = sh(&daemon, "if : </dev/tty; then echo opened; fi");
    assert_eq!(tried.text(), "", "{}", tried.complaint());
    assert!(tried.complaint().contains("/dev/tty"), "{}", tried.complaint());
}

// ---- streams -------------------------------------------------------------------------------------------------------

/// Opens each of its streams again by its name, and prints their owner.
const OPENS_AGAIN: &str = "read -r line </dev/stdin; echo \"$line\" >/dev/stdout; echo complaint >/dev/stderr; \
                           stat -L -c '%u:%g %a' /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2";

/// The flags that give children another user, and what their streams are to look like. Only root has another one to
/// give.
fn other_user() -> (Vec<&'static str>, String) {
    if geteuid().is_root() {
        (
            vec!["--user", "54321", "--group", "54322"],
            "54321:54322 600\n".to_owned(),
        )
    } else {
        (vec![], format!("{}:{} 600\n", geteuid(), nix::unistd::getegid()))
    }
}

#[test]
fn the_streams_of_a_program_belong_to_its_user() {
    let (user, whose) = other_user();
    let daemon = Daemon::with(["exec", "127.0.0.1:0"]).args(&user).start();
    let outcome = run(&daemon, &["sh", "-c", OPENS_AGAIN], b"hello\n");
    assert_eq!(outcome.text(), format!("hello\n{}", whose.repeat(3)));
    assert_eq!(outcome.complaint(), "complaint\n");
}

#[test]
fn the_streams_of_a_worker_belong_to_its_user() {
    let (user, whose) = other_user();
    let script = "while read -r line </dev/stdin; do \
                  echo complaint >/dev/stderr; stat -L -c '%u:%g %a' /proc/self/fd/[012] | tr '\\n' ' ' >/dev/stdout; echo; done";
    let command = shell_words::join(["sh", "-c", script]);
    let daemon = Daemon::pool(1, &command, &user);
    let three = format!("{}\n", whose.replace('\n', " ").repeat(3));
    assert_eq!(daemon.ask("whose"), three);
    daemon.stderr_wait("complaint");
    let flags = [&user[..], &["--mode", "session"]].concat();
    let daemon = Daemon::pool(1, &command, &flags);
    let mut client = daemon.client();
    client.send("whose\n");
    assert_eq!(format!("{}\n", client.read_line()), three);
}

#[test]
fn the_streams_of_a_command_belong_to_its_user() {
    let (user, whose) = other_user();
    let keys = match &user[..] {
        [_, user, _, group] => format!("user = '{user}'; group = '{group}';"),
        _ => String::new(),
    };
    let torc = torc(&[&format!(
        "name = 'whose'; cmd = '@/whose'; argc = 0; threads = 5; {keys}"
    )]);
    let torc = torc.script(
        "whose",
        "echo complaint >/dev/stderr; stat -L -c '%u:%g %a' /proc/self/fd/[012] >/dev/stdout",
    );
    let daemon = torc.serve(&[]);
    let said = ask(&daemon, "whose\n");
    assert!(said.contains("complaint") && said.contains(&whose.repeat(3)), "{said}");
}

/// `/dev/pts/N` can be opened by its owner; the group stays that of terminals.
#[test]
fn the_terminal_of_a_worker_belongs_to_its_user() {
    let (user, whose) = other_user();
    let command = shell_words::join([
        "sh",
        "-c",
        "while read -r line </dev/stdin; do stat -L -c %u /dev/stdin >/dev/stdout; done",
    ]);
    let flags = [&user[..], &["--mode", "session", "--pty"]].concat();
    let daemon = Daemon::pool(1, &command, &flags);
    let mut client = daemon.client();
    client.send("whose\n");
    assert_eq!(client.read_line().trim(), whose.split(':').next().unwrap());
}

// ---- starts --------------------------------------------------------------------------------------------------------

/// A PATH of such a length that a child searches it for tens of milliseconds, with its user's rights.
fn long_path() -> String {
    format!("PATH={}/bin:/usr/bin", "/x:".repeat(40_000))
}

/// Only root can give a child another user; other users try the same in the tests of the process room.
#[test]
fn a_child_that_its_user_stops_before_it_runs_delays_no_client() {
    if !geteuid().is_root() {
        return;
    }
    // A user of this test alone: all of its processes are stopped, again and again.
    let user = (800_000 + std::process::id()).to_string();
    let user = user.as_str();
    let arguments = [
        "exec",
        "127.0.0.1:0",
        "--user",
        user,
        "--group",
        user,
        "-t",
        "100ms",
        "-k",
        "100ms",
    ];
    let daemon = Daemon::with(arguments).args(&["--env", &long_path()]).start();
    let (reuid, regid) = (format!("--reuid={user}"), format!("--regid={user}"));
    let mut stopper = Command::new("setpriv");
    stopper.args([
        reuid.as_str(),
        regid.as_str(),
        "--clear-groups",
        "perl",
        "-e",
        "$| = 1; while (1) { kill 'STOP', -1 }",
    ]);
    let stopper = Program::start(&mut stopper);
    // Where it is stopped once it runs, its time is over; where it never gets there, its start has failed. It may also
    // have ended before it is stopped.
    let complaint = loop {
        let outcome = run(&daemon, &["true"], b"");
        if outcome.end.0 == "exitcode" && outcome.code() != "0" {
            break outcome.complaint();
        }
    };
    assert!(
        complaint.contains("was killed") && complaint.contains("stopped"),
        "{complaint}"
    );
    let mut waiting = ExecClient::connect(&daemon);
    waiting.send(request(&["true"]));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    drop(stopper);
}

/// Mounts, in a mount namespace of its own, a file system at a directory that answers nothing as long as the program
/// lives that this becomes; the directory comes first, then that program.
pub(crate) const MOUNT_SILENCE: &str = "
import ctypes, os, sys
place = sys.argv[1].encode()
fuse = os.open('/dev/fuse', os.O_RDWR)
os.set_inheritable(fuse, True)
libc = ctypes.CDLL(None, use_errno=True)
options = f'fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other'.encode()
if libc.mount(b'silence', place, b'fuse', 6, options) != 0:
    sys.exit(f'cannot mount: {os.strerror(ctypes.get_errno())}')
os.execv(sys.argv[2], sys.argv[2:])
";

/// Only root may mount.
#[test]
fn a_program_on_an_unresponsive_file_system_delays_no_client() {
    if !geteuid().is_root() {
        return;
    }
    let home = temp_dir();
    let place = home.path().to_str().unwrap();
    let launcher = ["unshare", "--mount", "python3", "-c", MOUNT_SILENCE, place];
    let daemon = Daemon::with(["exec", "127.0.0.1:0"]).through(&launcher).start();
    let refused = run(&daemon, &[&format!("{place}/tool")], b"");
    assert_eq!(refused.code(), "126");
    assert!(refused.complaint().contains("file system"), "{}", refused.complaint());
    assert_eq!(run(&daemon, &["echo", "served"], b"").text(), "served\n");
    let path = format!("PATH={place}:/bin:/usr/bin");
    let daemon = Daemon::with(["exec", "127.0.0.1:0", "--env", &path])
        .through(&launcher)
        .start();
    assert_eq!(run(&daemon, &["true"], b"").code(), "126");
    let mut waiting = ExecClient::connect(&daemon);
    waiting.send(request(&["true"]));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn a_program_is_searched_for_with_the_rights_of_its_user() {
    let home = temp_dir();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let [closed, open] = ["closed", "open"].map(|name| {
        let place = home.path().join(name);
        fs::create_dir(&place).unwrap();
        // A worker that waits for its client: one that does not is a lost one, after which another is started later.
        fs::write(place.join("tool"), format!("#!/bin/sh\nread line\necho {name}\n")).unwrap();
        fs::set_permissions(place.join("tool"), Permissions::from_mode(0o755)).unwrap();
        place
    });
    let (user, _) = other_user();
    let denied = if geteuid().is_root() { 0o700 } else { 0 };
    fs::set_permissions(&closed, Permissions::from_mode(denied)).unwrap();
    let path = format!("PATH={}:{}:/bin:/usr/bin", closed.display(), open.display());
    for list in [None, Some(["--allow-program", open.join("tool").to_str().unwrap()])] {
        let list = list.into_iter().flatten();
        let flags: Vec<_> = user.iter().copied().chain(["--env", &path]).chain(list).collect();
        let daemon = Daemon::with(["exec", "127.0.0.1:0"]).args(&flags).start();
        assert_eq!(run(&daemon, &["tool"], b"").text(), "open\n", "{flags:?}");
    }
    let flags: Vec<_> = user.iter().copied().chain(["--env", &path]).collect();
    let daemon = Daemon::with(["exec", "127.0.0.1:0"]).args(&flags).start();
    // It may lie in the directory that cannot be searched: so says a shell as well.
    assert_eq!(run(&daemon, &["no-such-tool"], b"").code(), "126");
    let daemon = Daemon::pool(
        1,
        "tool",
        &[&flags[..], &["--mode", "session", "--queue-timeout", "60s"]].concat(),
    );
    assert_eq!(daemon.ask("anything"), "open\n");
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
}

// ---- what is left in the background --------------------------------------------------------------------------------

/// Starts something that stays, and says which process that is.
const LEAVES: &str = "sleep 1000 >/dev/null 2>&1 & echo $!";

/// Running, and not merely not reaped.
fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// It is there when its daemon has been killed; then it is killed itself.
#[track_caller]
fn assert_outlives(daemon: Daemon, pid: i32) {
    assert!(is_alive(pid));
    daemon.signal(Signal::SIGKILL);
    daemon.wait_exit();
    wait_all_children_gone(&daemon);
    assert!(is_alive(pid), "it outlives the daemon");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// The guard has done what it does, and has gone.
fn wait_all_children_gone(daemon: &Daemon) {
    wait_guard_gone(daemon.pid());
}

/// The same, of the daemon with this process.
fn wait_guard_gone(daemon: i32) {
    let name = format!("guard of {daemon}");
    let guard = || {
        let found = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let line = fs::read_to_string(entry.ok()?.path().join("cmdline")).ok()?;
            line.replace('\0', " ").contains(&name).then_some(())
        });
        found.count()
    };
    while guard() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn background_processes_of_a_program_go_on_only_with_the_flag() {
    let daemon = Daemon::with(["exec", "127.0.0.1:0", "--leave-background"]).start();
    let pid = sh(&daemon, LEAVES).text().trim_end().parse().unwrap();
    daemon.stderr_wait("left in the background goes on");
    assert_eq!(sh(&daemon, "true").code(), "0");
    assert_eq!(daemon.usr1().count("runs background"), 1);
    assert_outlives(daemon, pid);
    let daemon = Daemon::with(["exec", "127.0.0.1:0"]).start();
    let pid: i32 = sh(&daemon, LEAVES).text().trim_end().parse().unwrap();
    while is_alive(pid) {
        std::thread::yield_now();
    }
    assert_eq!(daemon.usr1().count("runs background"), 0);
}

#[test]
fn background_processes_outlive_a_daemon_that_ends_in_good_order() {
    let daemon = Daemon::with(["exec", "127.0.0.1:0", "--leave-background"]).start();
    let pid: i32 = sh(&daemon, LEAVES).text().trim_end().parse().unwrap();
    daemon.stderr_wait("left in the background goes on");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    wait_all_children_gone(&daemon);
    assert!(is_alive(pid), "it outlives the daemon");
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// The one that left it has gone when its program is over; the successor knows nothing of it, and lets it be as well,
/// however it ends.
#[test]
fn background_processes_outlive_an_upgrade_and_the_successor() {
    for end in [Signal::SIGTERM, Signal::SIGKILL] {
        let installation = Installation::new();
        let daemon = Daemon::with(["exec", "127.0.0.1:0", "--leave-background"])
            .installed_at(&installation.program())
            .start();
        // One is left before the upgrade, another one while the successor serves already.
        let before: i32 = sh(&daemon, LEAVES).text().trim_end().parse().unwrap();
        daemon.stderr_wait_nth("left in the background goes on", 1);
        let mut late = ExecClient::connect(&daemon);
        late.send(request(&["sh", "-c", &format!("echo up; read -r line; {LEAVES}")]));
        late.wait_output("up\n");
        let new = upgrade(&daemon, daemon.pid(), 1);
        late.send([netstring(b"go\n"), b"0:,".to_vec()].concat());
        let after: i32 = late.outcome().text().trim_end().parse().unwrap();
        assert_eq!(daemon.wait_exit().code(), Some(0));
        wait_all_children_gone(&daemon);
        assert_eq!(sh(&daemon, "true").code(), "0");
        signal(new, end);
        while is_alive(new) {
            std::thread::yield_now();
        }
        wait_guard_gone(new);
        for pid in [before, after] {
            assert!(is_alive(pid), "{pid} outlives both");
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
    }
}

#[test]
fn background_processes_get_term_before_they_are_killed() {
    let home = temp_dir();
    let told = home.path().join("told");
    let asked = home.path().join("told.asked");
    for path in [&told, &asked] {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let leave = |server: &str| {
        let server = shell_words::quote(server).into_owned();
        format!("sh -c {server} \"$0\" >/dev/null 2>&1 & read -r line <\"$0\"; echo \"$line\"")
    };
    let heeds =
        leave("trap 'echo TERM >\"$0.asked\"; exit' TERM; echo up >\"$0\"; while :; do sleep 1000 & wait $!; done");
    let ignores = leave("trap '' TERM; echo $$ >\"$0\"; while :; do sleep 1000; done");
    let daemon = Daemon::with(["exec", "127.0.0.1:0"]).start();
    let left = |script: &str| run(&daemon, &["sh", "-c", script, told.to_str().unwrap()], b"").text();
    assert_eq!(left(&heeds), "up\n");
    assert_eq!(fs::read_to_string(&asked).unwrap(), "TERM\n");
    daemon.stderr_wait("left behind");
    let pid: i32 = left(&ignores).trim_end().parse().unwrap();
    while is_alive(pid) {
        std::thread::yield_now();
    }
}

#[test]
fn background_processes_of_a_command_go_on_with_the_flag() {
    let torc = torc(&["name = 'leave'; cmd = '@/leave'; argc = 0; threads = 5; leave_background = true;"]);
    let torc = torc.script("leave", LEAVES);
    let daemon = torc.serve(&[]);
    let pid = ask(&daemon, "leave\n").trim_end().parse().unwrap();
    daemon.stderr_wait("left in the background goes on");
    assert_eq!(daemon.usr1().count("runs background"), 1);
    assert_outlives(daemon, pid);
}

#[test]
fn background_processes_of_a_session_go_on_with_the_flag() {
    let command = shell_words::join(["sh", "-c", &format!("read -r line; {LEAVES}")]);
    let daemon = Daemon::pool(1, &command, &["--mode", "session", "--leave-background"]);
    let mut client = daemon.client();
    client.send("start\n");
    let pid = client.read_line().trim_end().parse().unwrap();
    daemon.stderr_wait("left in the background goes on");
    assert_eq!(daemon.usr1().count("left background"), 1);
    assert_outlives(daemon, pid);
}

// ---- signals -------------------------------------------------------------------------------------------------------

/// All signals that the daemon listens to, blocked and ignored by the program that starts it.
const DEAF: [&str; 3] = [
    "env",
    "--block-signal=TERM,HUP,INT,USR1,USR2,URG,CHLD,ALRM,PIPE",
    "--ignore-signal=TERM,HUP,INT,USR1,USR2,URG,CHLD,PIPE",
];

#[test]
fn a_daemon_that_was_started_with_its_signals_blocked_obeys_them() {
    let arguments = [
        "-n",
        "1",
        "-d",
        "sh -c 'while read -r line; do echo $$; done'",
        "-p",
        "0",
    ];
    let daemon = Daemon::with(arguments).through(&DEAF).start();
    let first = daemon.ask("who");
    assert_eq!(daemon.usr1().count("queries total"), 1);
    assert!(!daemon.usr2().is_empty());
    daemon.signal(Signal::SIGHUP);
    daemon.usr1_until(|stats| stats.count("restarts asked") == 1 && stats.count("daemon S_AVAILABLE") == 1);
    assert_ne!(daemon.ask("who"), first, "HUP replaces the worker");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn a_daemon_started_with_its_signals_ignored_knows_the_statuses_of_its_children() {
    let daemon = Daemon::with(["exec", "127.0.0.1:0"]).through(&DEAF).start();
    assert_eq!(run(&daemon, &["sh", "-c", "exit 7"], b"").code(), "7");
    // Its children have no signal blocked or ignored.
    let status = run(&daemon, &["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"], b"").text();
    let zero = "0000000000000000";
    assert_eq!(status, format!("SigBlk:\t{zero}\nSigIgn:\t{zero}\n"));
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}
