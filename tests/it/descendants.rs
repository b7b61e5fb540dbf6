//! Processes that programs and workers start, and leave behind in groups and sessions of their own: they end with the
//! daemon.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::command::Torc;
use crate::exec_client::{ExecClient, door, request, sh};
use crate::harness::{Daemon, Installation, Program, TempDir, WATCHDOG, children_of, temp_dir};
use crate::upgrade::upgrade;

/// Says that it is there, and stays.
const ONE: &str = "echo here >&3; exec sleep 1000";

/// Starts one process of each kind, gives none its own streams, and says so when all have been started; each says that
/// it is there by itself.
const TREE: &str = r#"
exec 3>"$1"
d=$(dirname "$0")/one
(
    exec </dev/null >/dev/null 2>&1
    timeout 1000 sh "$d" &
    setsid sh "$d" &
    (setsid sh -c 'sh "$0" & sh "$0" & wait' "$d" &)
    setsid sh -c 'trap "" TERM; echo here >&3; sleep 1000; sleep 1000' &
    set -m
    sh "$d" &
    env -i sh "$d" &
)
"#;
/// The number of processes in it.
const IN_TREE: usize = 7;

/// Starts one that has lost its environment, its session and its parent.
const ESCAPE: &str = r#"
exec 3>"$1"
d=$(dirname "$0")/one
(env -i PATH="$PATH" setsid sh -c 'sh "$0" & exit' "$d" </dev/null >/dev/null 2>&1 &)
"#;

/// Scripts that start a tree, and what is heard of it.
pub(crate) struct Tree {
    directory: TempDir,
    heard: mpsc::Receiver<String>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let directory = temp_dir();
        let fifo = directory.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        fs::write(directory.path().join("one"), ONE).unwrap();
        fs::write(directory.path().join("tree"), TREE).unwrap();
        fs::write(directory.path().join("escape"), ESCAPE).unwrap();
        let (sender, heard) = mpsc::channel();
        // Open from now on, so that an open and a close by another process are noticed.
        let opened = File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(fifo)
            .unwrap();
        thread::spawn(move || {
            poll(&mut [PollFd::new(opened.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
            fcntl(&opened, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
            for line in BufReader::new(opened).lines() {
                sender.send(line.unwrap()).ok();
            }
            sender.send("gone".to_owned()).ok();
        });
        Self { directory, heard }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A script that has started the tree and then does this.
    fn script(&self, then: &str) -> String {
        let (tree, fifo) = (self.path("tree"), self.path("fifo"));
        format!("sh {} {}; {then}", tree.display(), fifo.display())
    }

    /// A script that has started one that escapes and then does this.
    pub(crate) fn escape(&self, then: &str) -> String {
        let (escape, fifo) = (self.path("escape"), self.path("fifo"));
        format!("sh {} {}; {then}", escape.display(), fifo.display())
    }

    #[track_caller]
    pub(crate) fn wait_one(&self) {
        assert_eq!(self.heard.recv_timeout(WATCHDOG).as_deref(), Ok("here"));
    }

    /// A worker that starts the tree when it is the first.
    fn worker(&self, then: &str) -> String {
        let (first, taken) = (self.path("first"), self.path("taken"));
        fs::write(&first, "").unwrap();
        let script = self.script("");
        format!(
            "sh -c 'mv {} {} 2>/dev/null && {{ {script} }}; {then}'",
            first.display(),
            taken.display()
        )
    }

    #[track_caller]
    fn wait_there(&self) {
        for _ in 0..IN_TREE {
            assert_eq!(self.heard.recv_timeout(WATCHDOG).as_deref(), Ok("here"));
        }
    }

    #[track_caller]
    pub(crate) fn wait_gone(&self) {
        let mut lines = std::iter::repeat_with(|| self.heard.recv_timeout(WATCHDOG));
        let other = lines.find(|line| line.as_deref() != Ok("here"));
        assert_eq!(other, Some(Ok("gone".to_owned())));
    }
}

fn start(daemon: &Daemon, script: &str) -> ExecClient {
    let mut client = ExecClient::connect(daemon);
    client.send(request(&["sh", "-c", script]));
    client
}

#[test]
fn descendants_end_with_a_program_that_ends_by_itself() {
    let (daemon, _home) = door(&[]);
    let tree = Tree::new();
    let mut client = start(&daemon, &tree.script("read end; exit 5"));
    tree.wait_there();
    client.send("1:\n,0:,");
    assert_eq!(client.outcome().code(), "5");
    tree.wait_gone();
    daemon.stderr_wait("had been left behind");
}

#[test]
fn descendants_end_with_a_program_that_is_over_its_time() {
    let (daemon, _home) = door(&["--timeout", "1s", "--kill-timeout", "100ms"]);
    for then in ["sleep 1000", "trap \"\" TERM; while :; do sleep 1000; done"] {
        let tree = Tree::new();
        let _client = start(&daemon, &tree.script(then));
        tree.wait_gone();
    }
}

#[test]
fn descendants_end_when_the_client_goes() {
    let (daemon, _home) = door(&[]);
    let tree = Tree::new();
    let client = start(&daemon, &tree.script("sleep 1000"));
    tree.wait_there();
    drop(client);
    tree.wait_gone();
}

#[test]
fn descendants_end_with_a_daemon_that_gets_term() {
    let (daemon, _home) = door(&["--stop-timeout", "100ms", "--kill-timeout", "100ms"]);
    let tree = Tree::new();
    let _client = start(&daemon, &tree.script("sleep 1000"));
    tree.wait_there();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait_exit().success());
    tree.wait_gone();
}

/// The last run, and the end of the daemon behind it.
#[test]
fn descendants_end_when_the_daemon_ends_with_their_program() {
    let (daemon, _home) = door(&[]);
    let tree = Tree::new();
    let mut client = start(&daemon, &tree.script("read end"));
    tree.wait_there();
    daemon.signal(Signal::SIGTERM);
    client.send("1:\n,0:,");
    assert_eq!(client.outcome().code(), "0");
    assert!(daemon.wait_exit().success());
    tree.wait_gone();
}

#[test]
fn descendants_do_not_outlive_a_daemon_that_is_killed() {
    let (daemon, _home) = door(&[]);
    let trees: Vec<_> = (0..3).map(|_| Tree::new()).collect();
    let _clients: Vec<_> = trees
        .iter()
        .map(|tree| start(&daemon, &tree.script("sleep 1000")))
        .collect();
    trees.iter().for_each(Tree::wait_there);
    daemon.signal(Signal::SIGKILL);
    trees.iter().for_each(Tree::wait_gone);
}

/// While it starts them.
#[test]
fn descendants_do_not_outlive_a_daemon_that_is_killed_at_any_moment() {
    for round in 0..10 {
        let (daemon, _home) = door(&[]);
        let tree = Tree::new();
        let _client = start(&daemon, &tree.script("sleep 1000"));
        for _ in 0..round.min(IN_TREE) {
            assert_eq!(tree.heard.recv_timeout(WATCHDOG).as_deref(), Ok("here"));
        }
        daemon.signal(Signal::SIGKILL);
        // Possibly no process has come so far as to open it.
        drop(File::options().read(true).write(true).open(tree.path("fifo")).unwrap());
        tree.wait_gone();
    }
}

#[test]
fn workers_take_theirs_with_them_however_they_end() {
    type End = fn(&Daemon);
    let ends: [(&str, End); 5] = [
        ("a HUP", |daemon| daemon.signal(Signal::SIGHUP)),
        ("the death of a worker", |daemon| {
            kill(Pid::from_raw(daemon.children()[0]), Signal::SIGKILL).unwrap();
        }),
        ("recycling", |daemon| assert_eq!(daemon.ask("hello"), "hello\n")),
        ("the end of the daemon", |daemon| daemon.signal(Signal::SIGTERM)),
        ("the death of the daemon", |daemon| daemon.signal(Signal::SIGKILL)),
    ];
    for (name, end) in ends {
        let tree = Tree::new();
        let daemon = Daemon::pool(1, &tree.worker("exec cat"), &["--max-requests", "1"]);
        tree.wait_there();
        end(&daemon);
        assert_eq!(tree.heard.recv_timeout(WATCHDOG).as_deref(), Ok("gone"), "{name}");
    }
}

#[test]
fn sessions_and_commands_take_theirs_with_them() {
    let tree = Tree::new();
    let daemon = Daemon::pool(1, &tree.worker("exec cat"), &["--mode", "session"]);
    tree.wait_there();
    let mut client = daemon.client();
    client.half_close();
    assert_eq!(client.read_to_end(), b"");
    tree.wait_gone();

    let tree = Tree::new();
    let torc = Torc::new(&[r#"name = "tree"; cmd = "@/run";"#]).script("run", &tree.script("sleep 1000"));
    let daemon = torc.serve(&["--kill-timeout", "100ms"]);
    let mut client = daemon.client();
    client.send("tree\n\n");
    tree.wait_there();
    client.reset();
    tree.wait_gone();
}

/// A daemon that a program starts belongs to that run, with all that is its own.
#[test]
fn a_daemon_within_a_run_ends_with_it_and_with_all_it_has_started() {
    let (daemon, home) = door(&[]);
    let tree = Tree::new();
    let socket = home.path().join("inner.sock");
    let inner = format!(
        "setsid {} exec {} 2>/dev/null & wait",
        env!("CARGO_BIN_EXE_iotcpd"),
        socket.display()
    );
    let client = start(&daemon, &inner);
    while !socket.exists() {
        thread::yield_now();
    }
    let call = Command::new(env!("CARGO_BIN_EXE_iotcpd"))
        .args(["call", socket.to_str().unwrap(), "sh", "-c", &tree.script("sleep 1000")])
        .spawn();
    tree.wait_there();
    drop(client);
    tree.wait_gone();
    assert!(!call.unwrap().wait().unwrap().success());
}

/// Both ends of an upgrade, and one in between.
#[test]
fn the_death_of_an_old_daemon_costs_the_new_one_nothing() {
    let (installation, home) = (Installation::of(env!("CARGO_BIN_EXE_iotcpd").as_ref()), temp_dir());
    let socket = home.path().join("exec.sock");
    let daemon = Daemon::with(["exec", socket.to_str().unwrap()])
        .installed_at(&installation.program())
        .start();
    let (old_tree, new_tree) = (Tree::new(), Tree::new());
    let _old_client = start(&daemon, &old_tree.script("sleep 1000"));
    old_tree.wait_there();
    let new = upgrade(&daemon, daemon.pid(), 1);
    let mut client = start(&daemon, &new_tree.script("read end; echo still there"));
    new_tree.wait_there();
    // It still has a client.
    daemon.signal(Signal::SIGKILL);
    old_tree.wait_gone();
    assert_eq!(sh(&daemon, "echo served").text(), "served\n");
    client.send("1:\n,0:,");
    assert_eq!(client.outcome().text(), "still there\n");
    new_tree.wait_gone();
    kill(Pid::from_raw(new), Signal::SIGKILL).unwrap();
}

#[test]
fn a_run_that_goes_on_keeps_its_own_while_others_end() {
    let (daemon, _home) = door(&[]);
    let tree = Tree::new();
    let mut client = start(&daemon, &tree.script("read end"));
    tree.wait_there();
    for _ in 0..20 {
        assert_eq!(sh(&daemon, "setsid sleep 1000 >/dev/null 2>&1 & echo x").text(), "x\n");
    }
    assert!(tree.heard.try_recv().is_err(), "all are there");
    client.send("1:\n,0:,");
    assert_eq!(client.outcome().code(), "0");
    tree.wait_gone();
}

/// The program that became the daemon had a child before, which does not concern the daemon.
#[test]
fn a_child_from_before_is_left_alone() {
    let home = temp_dir();
    let socket = home.path().join("exec.sock");
    let gate = home.path().join("gate");
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    let script =
        "setsid sleep 1000 & setsid sh -c 'sleep 1000 & read end < \"$1\"' sh \"$2\" & exec \"$0\" exec \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_iotcpd")]);
    command.args([&socket, &gate]);
    let daemon = Program::start(&mut command);
    daemon.stderr_wait("listening on");
    // Only now, for the daemon adopts nothing before it has asked for that.
    drop(File::options().write(true).open(&gate).unwrap());
    let sleepers = || {
        let children = children_of(daemon.pid()).into_iter();
        children
            .filter(|pid| crate::harness::name_of(*pid).as_deref() == Some("sleep"))
            .count()
    };
    // One from before, and the orphan of the other, which has ended and is reaped.
    while sleepers() != 2 || children_of(daemon.pid()).len() != 3 {
        thread::yield_now();
    }
    let mut client = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
    client.args([
        "call",
        socket.to_str().unwrap(),
        "sh",
        "-c",
        "setsid sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 &",
    ]);
    assert!(client.status().unwrap().success());
    daemon.stderr_wait_nth("had been left behind", 2);
    while sleepers() != 2 {
        thread::yield_now();
    }
    for pid in children_of(daemon.pid()) {
        if crate::harness::name_of(pid).as_deref() == Some("sleep") {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
    }
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait_exit().success());
}

/// Orphans become children of the daemon, and none stays a zombie for longer than a moment.
#[test]
fn orphans_are_reaped_and_statuses_are_not_stolen() {
    let (daemon, _home) = door(&[]);
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let script = format!("for i in 1 2 3 4 5 6; do (setsid true &) ; done; exit {number}");
            (number, start(&daemon, &script))
        })
        .collect();
    for (number, mut client) in clients {
        client.send("0:,");
        assert_eq!(client.outcome().code(), number.to_string());
    }
    let zombies = || {
        let all = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let parent = format!(") Z {} ", daemon.pid());
        all.filter(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(&parent)))
            .count()
    };
    let deadline = std::time::Instant::now() + WATCHDOG;
    while zombies() > 0 {
        assert!(std::time::Instant::now() < deadline, "zombies stay");
        thread::yield_now();
    }
}

/// In a container the daemon is process 1, and all orphans are its children.
#[test]
fn as_process_1_it_reaps_strangers_ends_by_term_and_takes_everything_with_it() {
    let home = temp_dir();
    // The shell that enters is a stranger, and leaves orphans.
    let script = r#"
        "$BINARY" call "$1" sh -c 'for i in 1 2 3 4 5; do (setsid true &); done; setsid sleep 1000 >/dev/null 2>&1 & exit 7'
        [ $? = 7 ] || exit 1
        (true & exec true) & (sleep 0.01 & exec true) & wait
        for i in $(seq 1000); do
            [ "$(ps -A -o stat= | grep -c Z)" = 0 ] && [ "$(pgrep -c sleep)" = 0 ] && exit 0
            sleep 0.01
        done
        ps -A -o pid,ppid,stat,args; exit 1"#;
    let socket = home.path().join("s");
    let mut command = Command::new("unshare");
    command
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
        ])
        .args([env!("CARGO_BIN_EXE_iotcpd"), "exec", socket.to_str().unwrap()])
        .env("BINARY", env!("CARGO_BIN_EXE_iotcpd"));
    let container = Program::start(&mut command);
    container.stderr_wait("listening on");
    let first = children_of(container.pid())[0];
    let inside = Command::new("nsenter")
        .args([
            "--preserve-credentials",
            "--user",
            "--pid",
            "--mount",
            "--target",
            &first.to_string(),
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(&socket)
        .env("BINARY", env!("CARGO_BIN_EXE_iotcpd"))
        .output()
        .expect("nsenter, of util-linux");
    assert!(inside.status.success(), "{}", String::from_utf8_lossy(&inside.stdout));
    kill(Pid::from_raw(first), Signal::SIGTERM).unwrap();
    assert!(container.wait_exit().success());
}

/// Where `/proc` is another namespace's, its numbers mean other processes: nothing is looked for there, and nothing is
/// killed.
#[test]
fn a_foreign_proc_is_not_believed() {
    let home = temp_dir();
    let socket = home.path().join("s");
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"])
        .args([env!("CARGO_BIN_EXE_iotcpd"), "exec", socket.to_str().unwrap()]);
    let container = Program::start(&mut command);
    container.stderr_wait("listening on");
    let call = || {
        let mut call = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
        call.args([
            "call",
            socket.to_str().unwrap(),
            "sh",
            "-c",
            "setsid true & sleep 1000 & exit 3",
        ]);
        call.status().unwrap().code()
    };
    assert_eq!((call(), call()), (Some(3), Some(3)));
    kill(Pid::from_raw(children_of(container.pid())[0]), Signal::SIGTERM).unwrap();
    assert!(container.wait_exit().success());
}

/// The rest of the environment is the operator's.
#[test]
fn everything_is_given_a_sign_of_its_own() {
    for flags in [
        &[][..],
        &["--clear-env", "--env", "PATH=/bin:/usr/bin"],
        &["--env", "IOTCPD_RUN=mine"],
    ] {
        let (daemon, _home) = door(flags);
        let signs = [(); 2].map(|()| sh(&daemon, "env | grep ^IOTCPD_RUN=; echo $IOTCPD_RUN").text());
        for sign in &signs {
            let (entry, value) = sign.trim_end().split_once('\n').expect("one entry and its value");
            assert_eq!(entry, format!("IOTCPD_RUN={value}"));
            assert!(!value.contains("mine") && !value.contains(' '), "{value}");
        }
        assert_ne!(signs[0], signs[1]);
    }
}

/// More than are looked at in one go.
#[test]
fn many_descendants_end_too_and_no_client_waits_for_it() {
    let (daemon, _home) = door(&[]);
    let tree = Tree::new();
    let fifo = tree.path("fifo");
    let script = format!(
        "exec 3>{}; i=0; while [ $i -lt 300 ]; do (setsid sleep 1000 >/dev/null 2>&1 </dev/null &); i=$((i+1)); done; echo up; read end",
        fifo.display()
    );
    let mut client = start(&daemon, &script);
    client.wait_output("up\n");
    client.send("1:\n,0:,");
    assert_eq!(client.outcome().code(), "0");
    assert_eq!(sh(&daemon, "echo served").text(), "served\n");
    tree.wait_gone();
}
