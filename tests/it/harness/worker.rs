//! The scripted worker (`examples/scripted-worker.rs`, which documents its language): the command that a daemon starts
//! it with, and the worker itself driven by hand.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use super::Program;

/// The worker's program. A plain `cargo test` builds it; before `cargo test --test it` it takes
/// `cargo build --example scripted-worker`.
#[track_caller]
pub(crate) fn worker_path() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test program");
    let built = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("cargo's folder for a profile");
    let path = built.join("examples/scripted-worker");
    assert!(
        path.exists(),
        "{} is missing: cargo build --example scripted-worker",
        path.display()
    );
    path
}

/// The command line of a worker with these flags, for `--daemon`.
#[track_caller]
pub(crate) fn worker_command(flags: &[&str]) -> String {
    let path = worker_path();
    let path = path.to_str().expect("the path of the target folder is UTF-8");
    shell_words::join(std::iter::once(path).chain(flags.iter().copied()))
}

/// A worker on pipes, without any daemon.
#[derive(Debug)]
pub(crate) struct ScriptedWorker {
    /// The worker as a program.
    pub(crate) program: Program,
    seen: usize,
}

impl ScriptedWorker {
    /// Starts one.
    #[track_caller]
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self {
            program: Program::start(Command::new(worker_path()).args(flags)),
            seen: 0,
        }
    }

    /// Sends these bytes.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.program.stdin.as_mut().expect("its standard input is open");
        stdin
            .write_all(bytes.as_ref())
            .unwrap_or_else(|error| panic!("cannot write to the worker: {error}"));
    }

    /// The next line that it writes.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let waited = self.program.stdout.wait_from(self.seen, |_| true);
        let (_, line) = waited.unwrap_or_else(|why| self.program.fail(&format!("wanted a line: {why}")));
        self.seen += 1;
        line
    }

    /// Sends a line and returns the next one of its output.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &str) -> String {
        self.send(format!("{request}\n"));
        self.line()
    }
}
