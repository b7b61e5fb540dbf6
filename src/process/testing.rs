//! Helpers for the tests of this room: real children, and waits for their actions without sleeping.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::process::Command;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::child::Child;
use super::exit_status::ExitStatus;
use super::spawn::{PreparedProgram, SpawnDefaults, Stdio};
use super::spec::ProcessSpec;

/// Returns a spec of the shell running `script`.
pub(super) fn shell_spec(script: &str) -> ProcessSpec {
    ProcessSpec::new(["sh", "-c", script].map(Into::into).to_vec()).unwrap()
}

/// Starts a child with pipes as its streams.
pub(super) fn start(spec: &ProcessSpec) -> Child {
    PreparedProgram::prepare(spec, &SpawnDefaults::default())
        .unwrap()
        .spawn(Stdio::piped())
        .unwrap()
}

/// Starts the shell running `script`.
pub(super) fn shell(script: &str) -> Child {
    start(&shell_spec(script))
}

/// Returns everything that `spec` writes to its standard output until it ends.
pub(super) fn output_of(spec: &ProcessSpec) -> String {
    let mut child = start(spec);
    drop(child.stdin.take());
    let output = rest_of_output(&mut child);
    assert!(wait(&mut child).success(), "{output}");
    output
}

/// Returns a command that runs one test of this program in a process of its own, with `role` in its environment, where
/// the test plays its other part. `wrapper` is a program, with arguments, to run it under.
pub(super) fn other_part(test: &str, role: &str, wrapper: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut words = wrapper.iter().map(OsString::from).chain([program.into_os_string()]);
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .args(["--exact", test, "--nocapture"])
        .env(role, "1");
    command
}

/// Waits until there is something to read, or the other end is closed. Fails after half a minute.
pub(super) fn wait_readable(source: impl AsFd) {
    let mut fds = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
    assert_eq!(
        poll(&mut fds, PollTimeout::from(30_000_u16)),
        Ok(1),
        "nothing happened for half a minute"
    );
}

/// Waits until the child has exited, and reaps it.
pub(super) fn wait(child: &mut Child) -> ExitStatus {
    wait_readable(child.pidfd());
    child.reap().unwrap().unwrap()
}

/// Reads one line of the child's standard output, without its end.
pub(super) fn read_line(child: &mut Child) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        assert_eq!(
            read(child, &mut byte),
            1,
            "end of output after {:?}",
            String::from_utf8_lossy(&line)
        );
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

/// Reads the child's standard output until its end.
pub(super) fn rest_of_output(child: &mut Child) -> String {
    let (mut output, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match read(child, &mut buffer) {
            0 => return String::from_utf8(output).unwrap(),
            count => output.extend_from_slice(&buffer[..count]),
        }
    }
}

fn read(child: &mut Child, buffer: &mut [u8]) -> usize {
    let stdout = child.stdout.as_ref().unwrap();
    wait_readable(stdout);
    nix::unistd::read(stdout, buffer).unwrap()
}
