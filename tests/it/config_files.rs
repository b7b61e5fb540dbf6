//! Configuration files that are no files: pipes, devices, directories, streams that never end.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::{Daemon, Program, temp_dir, untimed, worker_command};

/// The result of `check` of a file, with its exit status.
#[track_caller]
fn check(path: &Path) -> (Option<i32>, String) {
    let (status, _, stderr) = Daemon::with(["check", "--config", path.to_str().unwrap()])
        .spawn()
        .finish();
    (status.code(), stderr)
}

#[test]
fn a_configuration_that_is_no_regular_file_is_refused_without_a_wait() {
    let home = temp_dir();
    let place = |name: &str| home.path().join(name);
    for ending in ["toml", "cfg"] {
        let name = |kind: &str| place(&format!("{kind}.{ending}"));
        mkfifo(&name("pipe"), Mode::S_IRWXU).unwrap();
        fs::create_dir(name("directory")).unwrap();
        let _listener = UnixListener::bind(name("socket")).unwrap();
        symlink("/dev/zero", name("endless")).unwrap();
        symlink(name("pipe"), name("link")).unwrap();
        File::create(name("huge")).unwrap().set_len(1 << 40).unwrap();
        for (kind, what) in [
            (
                "pipe",
                "it is a pipe, which cannot be read again at HUP; write what comes out of it to a file",
            ),
            ("link", "it is a pipe"),
            ("directory", "it is a directory; name the file in it"),
            ("socket", "it is a socket"),
            ("endless", "it is a device"),
            ("huge", "it is larger than 16 MiB"),
            ("nothing", "No such file"),
        ] {
            let path = name(kind);
            let (status, told) = check(&path);
            assert_eq!(status, Some(2), "{told}");
            let expected = format!("iotcpd: cannot read {}: {what}", path.display());
            assert!(told.starts_with(&expected), "{told}");
        }
    }
}

#[test]
fn a_process_substitution_of_the_shell_is_a_pipe() {
    let script = format!(
        "exec {} check --config <(echo '[pool.main]')",
        env!("CARGO_BIN_EXE_iotcpd")
    );
    let program = Program::start(Command::new("bash").args(["-c", &script]));
    let (status, _, stderr) = program.finish();
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("it is a pipe"), "{stderr}");
}

#[test]
fn a_link_to_a_file_is_a_file() {
    let home = temp_dir();
    let (file, link) = (home.path().join("file"), home.path().join("link.toml"));
    fs::write(&file, "[pool.main]\ndaemon = 'cat'\nlisten = '127.0.0.1:0'\n").unwrap();
    symlink("file", &link).unwrap();
    assert_eq!(check(&link), (Some(0), String::new()));
}

/// The reading thread would wait for ever in its place, and every HUP and URG behind it.
#[test]
fn a_hup_that_finds_a_pipe_is_reported_and_the_next_one_works() {
    let home = temp_dir();
    let file = home.path().join("iotcpd.toml");
    let socket = home.path().join("s");
    let write = |argument: &str| {
        let command = worker_command(&[argument]);
        let text = format!(
            "[pool.main]\ndaemon = {command:?}\nnum-daemons = 1\nqueue-timeout = '60s'\nlisten = 'unix:{}'\n",
            socket.display()
        );
        fs::write(&file, text).unwrap();
    };
    write("first");
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()]).start();
    fs::remove_file(&file).unwrap();
    mkfifo(&file, Mode::S_IRWXU).unwrap();
    for nth in 1..=2 {
        daemon.signal(Signal::SIGHUP);
        let told = daemon.stderr_wait_nth("it is a pipe, which cannot be read again at HUP", nth);
        assert!(told.contains(file.to_str().unwrap()), "{told}");
        daemon.stderr_wait_nth("every worker has been replaced", nth);
        assert_eq!(daemon.ask("arguments"), "\"first\"\n", "the old configuration stays");
    }
    daemon.signal(Signal::SIGURG);
    daemon.stderr_wait("upgrade failed");
    fs::remove_file(&file).unwrap();
    write("second");
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait_nth("every worker has been replaced", 3);
    assert_eq!(daemon.ask("arguments"), "\"second\"\n");
}

/// Whatever shows only when the services are started.
#[test]
fn check_looks_for_what_the_services_need() {
    let home = temp_dir();
    let file = home.path().join("iotcpd.toml");
    let text = "[pool.main]\ndaemon = '/no/such/worker'\nlisten = 'unix:/run/none/a'\n\
        [exec.jobs]\nlisten = 'unix:/run/none/b'\nchdir = '/no/such/place'\n\
        allow-program = ['/bin/*', '/no/such/tool']\n\
        [command.admin]\nlisten = 'unix:/run/none/c'\n\
        [command.admin.commands.x]\ncmd = 'no-such-program -v'\n\
        [command.admin.commands.y]\ncmd = 'echo'\n";
    fs::write(&file, text).unwrap();
    let (status, told) = check(&file);
    assert_eq!(status, Some(2));
    let told = told.replace(file.to_str().unwrap(), "f");
    let told: Vec<_> = told.lines().collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[0].starts_with("f:2:10: daemon: cannot start \"/no/such/worker\": "),
        "{told:?}"
    );
    assert_eq!(
        told[1],
        "f:6:9: chdir: `/no/such/place` is no directory; make it, or name another"
    );
    assert!(
        told[2].starts_with("f:11:7: cmd: cannot start \"no-such-program\": "),
        "{told:?}"
    );
    // A missing address is reported where nothing else is wrong.
    let text = "[exec.jobs]\nlisten = 'unix:/run/none/b'\nallow-program = ['/bin/*', '/no/such/tool']\n";
    fs::write(&file, text).unwrap();
    let (status, told) = check(&file);
    assert_eq!(status, Some(0));
    let told = told.replace(file.to_str().unwrap(), "f");
    assert_eq!(
        untimed(&told),
        ["WARN f:3:28: allow-program: there is no `/no/such/tool`; nobody can run it yet"]
    );
}

/// Though the user of the same programs is not known, or their sandbox cannot be made.
#[test]
fn a_missing_directory_is_reported_beside_other_mistakes_of_its_programs() {
    let directory = temp_dir();
    let file = directory.path().join("f.toml");
    let text = "[pool.a]\ndaemon = 'cat'\nchdir = '/no/such/place'\nuser = 'no such user'\n\
        [exec.e]\nlisten = 'unix:/run/none/e'\nchdir = '/no/such/place'\nuser = 'no such user'\n\
        [command.c]\nlisten = 'unix:/run/none/c'\n\
        [command.c.commands.x]\ncmd = 'echo'\nchdir = '/no/such/place'\nuser = 'no such user'\n";
    fs::write(&file, text).unwrap();
    let (status, told) = check(&file);
    assert_eq!(status, Some(2));
    for (key, lines) in [("chdir: ", [3, 7, 13]), ("user: ", [4, 8, 14])] {
        let told: Vec<_> = told.lines().filter(|line| line.contains(key)).collect();
        let places = lines.map(|line| format!("f.toml:{line}:"));
        assert!(
            told.len() == 3 && told.iter().zip(&places).all(|(told, place)| told.contains(place)),
            "{told:?}"
        );
    }
}
