//! `iotcpd ask --squid` between a client and its pool, on a socket, as Squid starts its helpers.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Target;
use crate::daemon;
use crate::secured;

/// The time that it allows a line: longer than a pool may take.
const TIMEOUT: &str = "10s";
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// One that was started; it is killed if it is dropped.
#[derive(Debug)]
pub(crate) struct AskProcess(Child);

impl AskProcess {
    /// Starts one that asks a pool over both its addresses. Returns the client's end of its standard streams as well.
    pub(crate) fn start(target: &Target) -> io::Result<(Self, UnixStream)> {
        let (ours, its) = UnixStream::pair()?;
        let its = OwnedFd::from(its);
        let mut command = Command::new(daemon::binary().map_err(|error| io::Error::other(error.to_string()))?);
        command
            .args(["ask", "--squid", "--channel-ids", "yes", "--timeout", TIMEOUT])
            .arg(format!("{}{}", target.mode.transport(), target.tcp))
            .arg(format!("unix:{}", target.unix.display()))
            .stdin(its.try_clone()?)
            .stdout(its)
            .stderr(Stdio::null());
        if target.mode.is_secured {
            let (certificate, _) = secured::files(&target.mode.home);
            command
                .arg("--ca")
                .arg(certificate)
                .args(["--server-name", secured::NAME]);
        }
        Ok((Self(command.spawn()?), ours))
    }

    /// Waits for its end, which the end of its input, or of its output's reader, has begun. Returns its fault if it has
    /// any.
    pub(crate) fn end(mut self, limit: Duration) -> Option<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) if status.success() => return None,
                Ok(Some(status)) => return Some(format!("ask ended by {status}")),
                Ok(None) if Instant::now() >= deadline => return Some("ask did not end".to_owned()),
                // It says nothing when it ends.
                Ok(None) => thread::sleep(LOOK_AGAIN),
                Err(error) => return Some(format!("ask: {error}")),
            }
        }
    }
}

impl Drop for AskProcess {
    fn drop(&mut self) {
        // Both fail if it has ended, as it should have.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
