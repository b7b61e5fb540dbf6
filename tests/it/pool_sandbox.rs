//! Workers in a sandbox: what they can reach, and what is said when there can be none.

use std::fs;
use std::path::Path;

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use nix::sys::signal::Signal;

use crate::harness::{Daemon, TempDir, temp_dir};

/// Runs each line, and answers with what it has printed and whether it has succeeded.
const RUNS_LINES: &str = "while read -r line; do \
                          if out=$(sh -c \"$line\" 2>/dev/null </dev/null); then echo \"$out yes\"; else echo \"$out no\"; fi; \
                          done";

/// Returns true if this kernel has all that a sandbox needs.
pub(crate) fn possible() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V3))
        .is_ok()
}

/// Files `a/file` and `b/file`, and the paths of the two directories.
fn rooms() -> (TempDir, [String; 2]) {
    let directory = temp_dir();
    let rooms = ["a", "b"].map(|name| {
        let room = directory.path().join(name);
        fs::create_dir(&room).unwrap();
        fs::write(room.join("file"), format!("{name}\n")).unwrap();
        room.to_str().unwrap().to_owned()
    });
    (directory, rooms)
}

/// `None`: this kernel cannot, and the daemon has said so and ended.
fn sandboxed(flags: &[&str]) -> Option<Daemon> {
    let command = shell_words::join(["sh", "-c", RUNS_LINES]);
    let flags = [&["--queue-timeout", "60s", "--sandbox"], flags].concat();
    if possible() {
        return Some(Daemon::pool(1, &command, &flags));
    }
    let builder = Daemon::with(["-n", "1", "-d", &command, "-p", "0"]).args(&flags);
    let (status, _, stderr) = builder.spawn().finish();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("Landlock") && stderr.contains("or do without sandbox"),
        "{stderr}"
    );
    None
}

#[test]
fn workers_and_their_children_reach_what_they_are_given_and_nothing_else() {
    let (_directory, [read, write]) = rooms();
    let Some(daemon) = sandboxed(&["--sandbox-read", &read, "--sandbox-write", &write]) else {
        return;
    };
    for (line, answer) in [
        (format!("cat {read}/file"), "a yes\n"),
        (format!("echo more >> {read}/file"), " no\n"),
        (format!("rm {read}/file"), " no\n"),
        (
            format!("echo more >> {write}/file; cat {write}/file | tr '\\n' ' '"),
            "b more  yes\n",
        ),
        (format!("mkdir {write}/new && mv {write}/file {write}/new/"), " yes\n"),
        (format!("cp /bin/true {write}/program && {write}/program"), " no\n"),
        (format!("ls {read}/.."), " no\n"),
        ("cat /proc/self/environ".to_owned(), " no\n"),
        ("touch /tmp/iotcpd-made-in-a-sandbox".to_owned(), " no\n"),
        ("head -c 9 /dev/zero | wc -c".to_owned(), "9 yes\n"),
    ] {
        assert_eq!(daemon.ask(&line), answer, "{line}");
    }
    assert_eq!(fs::read_to_string(Path::new(&read).join("file")).unwrap(), "a\n");
    assert_eq!(
        fs::read_to_string(Path::new(&write).join("new/file")).unwrap(),
        "b\nmore\n"
    );
}

#[test]
fn a_worker_that_lies_outside_is_refused_at_the_start_with_the_reason() {
    let (_directory, [read, _]) = rooms();
    let program = format!("{read}/program");
    fs::copy("/bin/cat", &program).unwrap();
    let flags = ["-d", &program, "-p", "0", "--sandbox"];
    let (status, _, stderr) = Daemon::with(flags).spawn().finish();
    assert_eq!(status.code(), Some(1), "{stderr}");
    let reason = if possible() {
        "let the sandbox read it"
    } else {
        "Landlock"
    };
    assert!(stderr.contains(&program) && stderr.contains(reason), "{stderr}");
}

#[test]
fn a_path_that_is_not_there_is_a_mistake_of_its_flag() {
    for flag in ["--sandbox-read", "--sandbox-write"] {
        let arguments = ["-d", "cat", "-p", "0", "--sandbox", flag, "/no/such/path"];
        let (status, _, stderr) = Daemon::with(arguments).spawn().finish();
        assert_eq!(status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(flag) && stderr.contains("/no/such/path"), "{stderr}");
    }
}

#[test]
fn check_and_hup_look_at_the_paths() {
    let (directory, [read, write]) = rooms();
    let path = directory.path().join("iotcpd.toml");
    let name = path.to_str().unwrap();
    let socket = directory.path().join("socket");
    let write_file = |readable: &[&str]| {
        let command = shell_words::join(["sh", "-c", RUNS_LINES]);
        let text = format!(
            "[pool.one]\ndaemon = {command:?}\nnum-daemons = 1\nqueue-timeout = '60s'\nlisten = ['unix:{}']\nsandbox = true\n\
             sandbox-read = {readable:?}\n",
            socket.display()
        );
        fs::write(&path, text).unwrap();
    };
    write_file(&[&read, "/no/such/path"]);
    let (status, _, stderr) = Daemon::with(["check", "--config", name]).spawn().finish();
    assert_eq!(status.code(), Some(2), "{stderr}");
    let column = "sandbox-read = [\"".len() + read.len() + "\", \"".len();
    let at = format!("{name}:7:{column}: sandbox-read: cannot open `/no/such/path`: No such file or directory; ");
    assert!(stderr.starts_with(&at), "{stderr} does not begin with {at}");

    if !possible() {
        return;
    }
    write_file(&[&read]);
    let daemon = Daemon::with(["run", "--config", name]).start();
    assert_eq!(daemon.ask(&format!("cat {read}/file")), "a yes\n");
    assert_eq!(daemon.ask(&format!("cat {write}/file")), " no\n");
    write_file(&["/no/such/path"]);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("/no/such/path");
    daemon.stderr_wait("every worker has been replaced");
    assert_eq!(daemon.ask(&format!("cat {read}/file")), "a yes\n");
    write_file(&[&write]);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait_nth("every worker has been replaced", 2);
    assert_eq!(daemon.ask(&format!("cat {read}/file")), " no\n");
    assert_eq!(daemon.ask(&format!("cat {write}/file")), "b yes\n");
}
