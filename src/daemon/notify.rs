//! Telling systemd how things stand: sd_notify(3), a datagram to the socket named in `NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::time::{ClockId, clock_gettime};

#[derive(Debug)]
pub(super) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// Where there is no service manager that wants to know, every call does nothing.
    pub(super) fn from_environment() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
            return Notifier { to: None };
        };
        let address = match path.as_encoded_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&path),
        };
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        match (socket, address) {
            (Ok(socket), Ok(address)) => Notifier {
                to: Some((socket, address)),
            },
            (Err(error), _) | (_, Err(error)) => {
                log::warn!("cannot tell the service manager anything: NOTIFY_SOCKET: {error}");
                Notifier { to: None }
            }
        }
    }

    /// Whether systemd watches this process and listens to nothing that it says: to such a one the end of this process is
    /// the end of the service, whoever serves in its place.
    pub(super) fn is_watched_blindly(&self) -> bool {
        self.to.is_none()
            && was_started_by_systemd(std::env::var("SYSTEMD_EXEC_PID").ok().as_deref(), std::process::id())
    }

    /// Started, or reloaded.
    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    /// HUP was taken up. `Type=notify-reload` wants the time on the monotonic clock with it.
    pub(super) fn reloading(&self) {
        if let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) {
            let microseconds = now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000;
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
        }
    }

    /// TERM was taken up.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Another process serves now, and is the one to be watched. In one message, because the service manager may listen to
    /// none but the process that it watches; and the last one, for the same reason.
    pub(super) fn hand_over(&mut self, successor: i32) {
        self.send(&format!("MAINPID={successor}\nREADY=1"));
        self.to = None;
    }

    fn send(&self, state: &str) {
        let Some((socket, address)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            log::warn!(
                "cannot tell the service manager {}: {error}",
                state.lines().next().unwrap_or_default()
            );
        }
    }
}

/// `SYSTEMD_EXEC_PID` (systemd.exec(5)) is inherited by all that a service starts; only the service's own process is meant.
fn was_started_by_systemd(exec_pid: Option<&str>, own_pid: u32) -> bool {
    exec_pid.and_then(|pid| pid.parse().ok()) == Some(own_pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_that_systemd_has_started_was_started_by_it() {
        assert!(was_started_by_systemd(Some("7"), 7));
        for exec_pid in [None, Some("8"), Some(""), Some("x")] {
            assert!(!was_started_by_systemd(exec_pid, 7), "{exec_pid:?}");
        }
    }
}
