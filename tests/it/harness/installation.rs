//! The program as it is installed, in several versions, for tests of an upgrade.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{Builder, Daemon, TempDir, worker_command};

/// A place where the program is installed: a name that is turned from one version to the next.
///
/// Versions are hard links, never copies: a file that was open for writing a moment ago, in this process with its many
/// threads, may be "busy" to the one that starts it.
pub(crate) struct Installation {
    directory: TempDir,
}

impl Installation {
    /// With version `v1`.
    pub(crate) fn new() -> Self {
        Self::of(Path::new(env!("CARGO_BIN_EXE_iotcpd")))
    }

    /// With this program as version `v1`.
    pub(crate) fn of(program: &Path) -> Self {
        // Beside the program, because hard links do not cross file systems.
        let directory = tempfile::Builder::new()
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        let installation = Self { directory };
        installation.install_program("v1", program);
        installation
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.directory.path().join("iotcpd")
    }

    pub(crate) fn version(&self, version: &str) -> PathBuf {
        self.directory.path().join(version).join("iotcpd")
    }

    /// The program under test as this version.
    pub(crate) fn install(&self, version: &str) {
        self.install_program(version, Path::new(env!("CARGO_BIN_EXE_iotcpd")));
    }

    fn install_program(&self, version: &str, program: &Path) {
        let file = self.version(version);
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::hard_link(program, &file).unwrap();
        self.turn_to(&file);
    }

    /// Turns the name to this program.
    pub(crate) fn turn_to(&self, file: &Path) {
        let new = self.directory.path().join("new");
        symlink(file, &new).unwrap();
        fs::rename(new, self.program()).unwrap();
    }

    /// A script, written by a program that has ended when it is run: see above.
    pub(crate) fn install_script(&self, text: &str) {
        let script = self.directory.path().join("script");
        let written = std::process::Command::new("sh")
            .args(["-c", "printf '#!/bin/sh\n%s\n' \"$1\" >\"$0\"; chmod +x \"$0\""])
            .args([script.as_os_str(), text.as_ref()])
            .status();
        assert!(written.unwrap().success());
        self.turn_to(&script);
    }

    /// A pool of one scripted worker that is started by the installed name, with these flags. It refuses no request for
    /// want of time.
    pub(crate) fn pool(&self, flags: &[&str]) -> Builder {
        Daemon::with(["-n", "1", "-d", &worker_command(&[]), "--queue-timeout", "600s"])
            .args(flags)
            .installed_at(&self.program())
    }
}
