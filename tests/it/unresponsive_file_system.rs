//! A file system that does not answer, where the daemon itself has to look at files: no client waits for it. Only root
//! may mount one; for other users these tests pass without a check.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::exec_client::{request, run};
use crate::harness::{Address, Client, Daemon, Program, temp_dir, worker_command};

/// Lays a file system that does not answer over a directory, for this daemon alone, as long as what is returned lives.
#[track_caller]
pub(crate) fn silence(daemon: &Daemon, place: &Path) -> Program {
    let pid = daemon.pid().to_string();
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--target", &pid]);
    command
        .args(["python3", "-c", crate::child_environment::MOUNT_SILENCE])
        .arg(place);
    command.args(["/bin/sh", "-c", "echo mounted >&2; exec sleep 1000"]);
    let mounted = Program::start(&mut command);
    mounted.stderr_wait("mounted");
    mounted
}

pub(crate) const ALONE: [&str; 2] = ["unshare", "--mount"];

/// Returns true if a door on a UNIX socket runs programs.
#[track_caller]
fn assert_serves(socket: &Path, expected: &str) {
    let address = Address::parse(&format!("unix:{}", socket.display())).unwrap();
    let mut client = Client::connect(&address);
    client.send([request(&["sh", "-c", "echo $WHO"]), b"0:,".to_vec()].concat());
    let answer = String::from_utf8_lossy(&client.read_to_end()).into_owned();
    assert!(answer.contains(expected), "{answer}");
}

/// A daemon with a file in which there is an exec door, and a directory that is silent.
struct Scene {
    file: PathBuf,
    socket: PathBuf,
    daemon: Daemon,
    /// Ends before the daemon does, or what is stuck in it would not go.
    _silence: Program,
    thing: String,
    _home: TempDir,
}

impl Scene {
    #[track_caller]
    fn new() -> Self {
        let home = temp_dir();
        let [place, file, socket] = ["silent", "f.toml", "s"].map(|name| home.path().join(name));
        fs::create_dir(&place).unwrap();
        write(&file, &socket, "before", "");
        let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()])
            .through(&ALONE)
            .start();
        Self {
            _silence: silence(&daemon, &place),
            thing: place.join("thing").display().to_string(),
            file,
            socket,
            daemon,
            _home: home,
        }
    }
}

fn write(file: &Path, socket: &Path, value: &str, more: &str) {
    let text = format!(
        "[exec.jobs]\nlisten = 'unix:{}'\nenv = 'WHO={value}'\n{more}",
        socket.display()
    );
    fs::write(file, text).unwrap();
}

#[test]
fn a_hup_that_names_it_leaves_all_as_it_was_and_the_next_one_works() {
    if !geteuid().is_root() {
        return;
    }
    let worker = worker_command(&[]);
    let pool = "[pool.main]\nlisten = '127.0.0.1:0'\n";
    let commands = "[command.admin.commands.one]\n";
    let ways: [&dyn Fn(&str) -> String; 6] = [
        &|thing| format!("chdir = '{thing}'\n"),
        &|thing| format!("sandbox-write = '{thing}'\n"),
        &|thing| format!("{pool}daemon = {worker:?}\nsandbox-read = '{thing}'\n"),
        &|thing| format!("{pool}daemon = '{thing}'\n"),
        &|thing| format!("[command.admin]\nlisten = '127.0.0.1:0'\n{commands}cmd = '{thing}'\n"),
        &|thing| format!("[command.admin]\nlisten = 'unix:{thing}'\n{commands}cmd = 'true'\n"),
    ];
    let scenes = ways.map(|way| (Scene::new(), way));
    for (scene, way) in &scenes {
        write(&scene.file, &scene.socket, "never", &way(&scene.thing));
        scene.daemon.signal(Signal::SIGHUP);
        // They come from the loop, after the signal.
        scene.daemon.usr1();
        assert_serves(&scene.socket, "before");
    }
    for (scene, _) in &scenes {
        scene.daemon.stderr_wait("is not waited for any more");
        assert_serves(&scene.socket, "before");
        write(&scene.file, &scene.socket, "after", "");
        scene.daemon.signal(Signal::SIGHUP);
        scene.daemon.stderr_wait_nth("the configuration was read again", 2);
        assert_serves(&scene.socket, "after");
        scene.daemon.signal(Signal::SIGTERM);
        assert_eq!(scene.daemon.wait_exit().code(), Some(0));
    }
}

#[test]
fn a_hup_without_a_file_looks_at_the_directory_of_now() {
    if !geteuid().is_root() {
        return;
    }
    let home = temp_dir();
    let daemon = Daemon::with(["exec", "127.0.0.1:0", "--chdir", home.path().to_str().unwrap()])
        .through(&ALONE)
        .start();
    assert_eq!(run(&daemon, &["echo", "served"], b"").text(), "served\n");
    let silence = silence(&daemon, home.path());
    daemon.signal(Signal::SIGHUP);
    daemon.usr1();
    daemon.stderr_wait("programs are started with what was there before");
    drop(silence);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn a_socket_whose_file_cannot_be_deleted() {
    if !geteuid().is_root() {
        return;
    }
    let home = temp_dir();
    let address = format!("unix:{}", home.path().join("s").display());
    let daemon = Daemon::with(["exec", &address]).through(&ALONE).start();
    let _silence = silence(&daemon, home.path());
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("is not deleted within");
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn an_upgrade_whose_program_cannot_be_read() {
    if !geteuid().is_root() {
        return;
    }
    let home = temp_dir();
    let program = home.path().join("iotcpd");
    // By a process of its own: were it open for writing here while another test starts something, it would be busy.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_iotcpd"))
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let daemon = Daemon::with(["exec", "127.0.0.1:0"])
        .installed_at(&program)
        .through(&ALONE)
        .start();
    let mounted = silence(&daemon, home.path());
    daemon.signal(Signal::SIGURG);
    daemon.usr1();
    assert_eq!(run(&daemon, &["echo", "served"], b"").text(), "served\n");
    daemon.signal(Signal::SIGURG);
    daemon.stderr_wait("no upgrade: one is under way already");
    daemon.stderr_wait("upgrade failed: the file system that");
    daemon.signal(Signal::SIGURG);
    daemon.stderr_wait("still does not answer");
    assert_eq!(run(&daemon, &["echo", "served"], b"").text(), "served\n");
    drop(mounted);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}
