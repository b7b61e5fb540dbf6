//! The first of README's two commands, on the machine's own squidGuard. Compiling is left out: what it would make is
//! this program.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use crate::harness::{TempDir, temp_dir};

/// A checkout in which the release binary is there already, and a `cargo` that is asked for it.
fn checkout() -> TempDir {
    let home = temp_dir();
    let path = |name: &str| home.path().join(name);
    // A copy, for it looks for its checkout above the folder that it is in.
    fs::create_dir(path("scripts")).unwrap();
    for name in ["quickstart", "install-peers"] {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
        fs::copy(format!("{source}/{name}"), path("scripts").join(name)).unwrap();
    }
    fs::create_dir_all(path("target/release")).unwrap();
    symlink(env!("CARGO_BIN_EXE_iotcpd"), path("target/release/iotcpd")).unwrap();
    fs::create_dir(path("bin")).unwrap();
    fs::write(path("bin/cargo"), "#!/bin/sh\necho \"cargo: $*\"\n").unwrap();
    fs::set_permissions(path("bin/cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    home
}

#[test]
fn it_says_what_takes_long_and_shows_a_pool_with_its_probe() {
    let home = checkout();
    // In a network of its own, where its port is free.
    let script = "ip link set lo up && PATH=$PWD/bin:$PATH && exec scripts/quickstart";
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .current_dir(home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut rest = said.as_str();
    for part in [
        "takes some minutes",
        "cargo: build --locked --release",
        "-P -c",
        "--max-request 12000",
        "--probe 'http://ads.example/ 127.0.0.1/- - GET' --probe-expect '^OK '",
        "http://ads.example/banner.gif  ->  OK status=302",
        "http://www.example.org/  ->  ERR",
        "probes asked",
        "all answers were as expected",
        "--max-request 12000",
        "--probe",
    ] {
        let Some((_, behind)) = rest.split_once(part) else {
            panic!("{part}: {said}")
        };
        rest = behind;
    }
}

#[test]
fn it_is_installed_with_the_versions_that_were_tested() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let installs: Vec<_> = readme.lines().filter(|line| line.contains("cargo install")).collect();
    assert!(!installs.is_empty());
    assert!(installs.iter().all(|line| line.contains("--locked")), "{installs:?}");
}
