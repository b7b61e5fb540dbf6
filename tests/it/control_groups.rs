//! Where a control group is delegated to the daemon, it finds processes of a child that neither session nor environment
//! show.
//!
//! The tests make groups in a hierarchy that they mount in a namespace of their own, and so need to be root.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::descendants::Tree;
use crate::exec_client::{ExecClient, request, sh};
use crate::harness::{Daemon, Installation, TempDir, WATCHDOG, temp_dir};
use crate::upgrade::upgrade;

/// Mounts the hierarchy and goes to the group of this test, in that of the tests.
const ENTER: &str = r#"set -e; mount -t cgroup2 none "$0"; cd "$0$(sed -n s/^0:://p /proc/self/cgroup)"; "#;
const MAKE: &str = r#"mkdir "$1"; cd "$1"; "#;
const DELEGATE: &str = r#"python3 -c 'import os; os.setxattr(".", "user.delegate", b"1")'; "#;
const START: &str = r#"echo $$ >cgroup.procs; cd /; shift; exec "$@""#;

/// A group, and a daemon that is started in it.
struct Group {
    directory: TempDir,
    name: String,
}

impl Group {
    fn new() -> Self {
        let directory = temp_dir();
        let name = directory.path().file_name().unwrap().to_str().unwrap();
        let name = format!("test-{}", name.trim_start_matches('.'));
        Self { directory, name }
    }

    fn start(&self, setup: &str, flags: &[&str]) -> Daemon {
        self.start_at(Path::new(env!("CARGO_BIN_EXE_iotcpd")), setup, flags)
    }

    fn start_at(&self, program: &Path, setup: &str, flags: &[&str]) -> Daemon {
        let script = format!("{ENTER}{MAKE}{setup}{START}");
        let (mount, socket) = (self.directory.path(), self.directory.path().with_extension("sock"));
        let launcher = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            &script,
            mount.to_str().unwrap(),
            &self.name,
        ];
        Daemon::with(["exec"])
            .args(flags)
            .args(&[socket.to_str().unwrap()])
            .installed_at(program)
            .through(&launcher)
            .start()
    }

    /// The output of a script that runs in it.
    #[track_caller]
    fn inside(&self, script: &str) -> String {
        let script = format!("{ENTER}cd \"$1\"; {script}");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let output = command.arg(self.directory.path()).arg(&self.name).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The groups below it.
    fn groups(&self) -> Vec<String> {
        let found = self.inside("find . -mindepth 1 -type d | sort");
        found
            .lines()
            .map(|line| line.trim_start_matches("./").to_owned())
            .collect()
    }

    #[track_caller]
    fn wait_groups(&self, expected: &[String]) {
        let deadline = Instant::now() + WATCHDOG;
        while self.groups() != expected {
            assert!(Instant::now() < deadline, "{:?}, not {expected:?}", self.groups());
            std::thread::yield_now();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let socket = self.directory.path().with_extension("sock");
        let _ = std::fs::remove_file(socket);
        let script = format!(
            "{ENTER}[ -d \"$1\" ] || exit 0; echo 1 >\"$1/cgroup.kill\"; \
             for i in $(seq 1000); do find \"$1\" -depth -type d -exec rmdir {{}} + 2>/dev/null && exit 0; sleep 0.01; done; exit 1"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let status = command.arg(self.directory.path()).arg(&self.name).status();
        if !std::thread::panicking() {
            assert!(status.unwrap().success(), "the control group of a test stays");
        }
    }
}

fn start(daemon: &Daemon, script: &str) -> ExecClient {
    let mut client = ExecClient::connect(daemon);
    client.send(request(&["sh", "-c", script]));
    client
}

const OWN_GROUP: &str = "sed -n s/^0:://p /proc/self/cgroup";

#[test]
fn nothing_escapes_from_a_program_that_ends_by_itself() {
    let group = Group::new();
    let daemon = group.start(DELEGATE, &[]);
    let own = format!("iotcpd-{}", daemon.pid());
    let tree = Tree::new();
    let mut client = start(&daemon, &tree.escape("read end; exit 5"));
    tree.wait_one();
    group.wait_groups(&[own.clone(), format!("{own}/1")]);
    client.send("1:\n,0:,");
    assert_eq!(client.outcome().code(), "5");
    tree.wait_gone();
    daemon.stderr_wait("had been left behind");
    group.wait_groups(&[own]);
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait_exit().success());
    assert_eq!(group.groups(), [""; 0]);
}

#[test]
fn nothing_escapes_from_a_program_that_is_over_its_time_or_whose_client_goes() {
    let group = Group::new();
    let daemon = group.start(DELEGATE, &["--timeout", "1s", "--kill-timeout", "100ms"]);
    for then in ["sleep 1000", "trap \"\" TERM; while :; do sleep 1000; done"] {
        let tree = Tree::new();
        let client = start(&daemon, &tree.escape(then));
        tree.wait_one();
        tree.wait_gone();
        drop(client);
        let tree = Tree::new();
        let client = start(&daemon, &tree.escape(then));
        tree.wait_one();
        drop(client);
        tree.wait_gone();
    }
}

#[test]
fn nothing_escapes_from_a_daemon_that_ends_or_is_killed() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let group = Group::new();
        let daemon = group.start(DELEGATE, &[]);
        let tree = Tree::new();
        let client = start(&daemon, &tree.escape("sleep 1000"));
        tree.wait_one();
        daemon.signal(signal);
        drop(client);
        tree.wait_gone();
        group.wait_groups(&[]);
    }
}

#[test]
fn an_upgrade_gives_the_successor_a_group_beside_the_old_one() {
    let (group, installation) = (Group::new(), Installation::of(env!("CARGO_BIN_EXE_iotcpd").as_ref()));
    let daemon = group.start_at(&installation.program(), DELEGATE, &[]);
    let (old_tree, new_tree) = (Tree::new(), Tree::new());
    let _old_client = start(&daemon, &old_tree.escape("sleep 1000"));
    old_tree.wait_one();
    let new = upgrade(&daemon, daemon.pid(), 1);
    let mut client = start(&daemon, &new_tree.escape("read end; echo still there"));
    new_tree.wait_one();
    daemon.signal(Signal::SIGKILL);
    old_tree.wait_gone();
    let own = format!("iotcpd-{new}");
    group.wait_groups(&[own.clone(), format!("{own}/1")]);
    client.send("1:\n,0:,");
    assert_eq!(client.outcome().text(), "still there\n");
    new_tree.wait_gone();
    kill(Pid::from_raw(new), Signal::SIGKILL).unwrap();
    group.wait_groups(&[]);
}

#[test]
fn a_child_is_in_its_group_before_it_becomes_another_user() {
    let group = Group::new();
    let daemon = group.start(DELEGATE, &["--user", "nobody"]);
    let expected = format!("/iotcpd-{}/1\n", daemon.pid());
    let told = sh(&daemon, OWN_GROUP).text();
    assert!(told.ends_with(&expected), "{told}");
}

#[test]
fn programs_that_may_stay_in_the_background_have_no_group_and_stay() {
    let group = Group::new();
    let daemon = group.start(DELEGATE, &["--leave-background"]);
    let told = sh(
        &daemon,
        &format!("{OWN_GROUP}; setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $!"),
    );
    let text = told.text();
    let (own, pid) = text.trim_end().split_once('\n').unwrap();
    let (own, pid) = if own.starts_with('/') { (own, pid) } else { (pid, own) };
    assert!(own.ends_with(&group.name), "{own}");
    daemon.signal(Signal::SIGKILL);
    group.wait_groups(&[]);
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
}

#[test]
fn a_group_that_is_not_delegated_is_left_alone() {
    let group = Group::new();
    let daemon = group.start("", &[]);
    assert!(sh(&daemon, OWN_GROUP).text().trim_end().ends_with(&group.name));
    assert_eq!(group.groups(), [""; 0]);
}

#[test]
fn a_child_that_can_have_no_group_runs_without() {
    let group = Group::new();
    // The daemon's own is the last that may be made.
    let daemon = group.start(&format!("{DELEGATE} echo 1 >cgroup.max.descendants; "), &[]);
    for _ in 0..3 {
        assert_eq!(sh(&daemon, "echo served").text(), "served\n");
    }
    daemon.stderr_wait("cannot make the control group of a child");
}

#[test]
fn groups_of_dead_daemons_are_removed_and_those_of_living_ones_stay() {
    let group = Group::new();
    let left = "mkdir iotcpd-1 iotcpd-1/7 iotcpd-x other; ";
    let daemon = group.start(&format!("{DELEGATE}{left}"), &[]);
    let own = format!("iotcpd-{}", daemon.pid());
    assert_eq!(group.groups(), [own, "iotcpd-x".to_owned(), "other".to_owned()]);
}
