//! Messages to systemd about the state of the daemon: sd_notify(3), a datagram to the socket named in `NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::time::{ClockId, clock_gettime};

/// The number of characters after which a status is cut.
const LONGEST_STATUS: usize = 1024;

#[derive(Debug)]
pub(super) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    reported: Reported,
}

/// The state of this daemon as the service manager knows it. A reload during the start is not reported, because its end
/// would be taken for the end of the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reported {
    Nothing,
    Ready,
    Reloading,
}

impl Notifier {
    /// Returns a notifier for the socket that the environment names. Without such a socket, every call does nothing.
    pub(super) fn from_environment() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
            return Notifier {
                to: None,
                reported: Reported::Nothing,
            };
        };
        let address = match path.as_encoded_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&path),
        };
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        match (socket, address) {
            (Ok(socket), Ok(address)) => Notifier {
                to: Some((socket, address)),
                reported: Reported::Nothing,
            },
            (Err(error), _) | (_, Err(error)) => {
                log::warn!("cannot tell the service manager anything: NOTIFY_SOCKET: {error}");
                Notifier {
                    to: None,
                    reported: Reported::Nothing,
                }
            }
        }
    }

    /// Returns true if systemd watches this process without listening to notifications. Then the end of this process
    /// ends the service, even if a successor serves.
    pub(super) fn is_watched_without_notify(&self) -> bool {
        self.to.is_none()
            && was_started_by_systemd(std::env::var("SYSTEMD_EXEC_PID").ok().as_deref(), std::process::id())
    }

    /// Returns true if there is a service manager to notify.
    pub(super) fn is_connected(&self) -> bool {
        self.to.is_some()
    }

    /// Reports that the start is over.
    pub(super) fn report_ready(&mut self) {
        self.reported = Reported::Ready;
        self.send("READY=1");
    }

    /// Assumes that the start is over, because a predecessor has reported it.
    pub(super) fn assume_ready(&mut self) {
        self.reported = Reported::Ready;
    }

    /// Reports the state of the daemon in words, as one line.
    pub(super) fn report_status(&self, text: &str) {
        let text: String = text.chars().take(LONGEST_STATUS).filter(|c| !c.is_control()).collect();
        self.send(&format!("STATUS={text}"));
    }

    /// Reports the end of the reload or upgrade that [`report_reloading`](Self::report_reloading) has announced.
    pub(super) fn report_reloaded(&mut self) {
        if self.reported == Reported::Reloading {
            self.report_ready();
        }
    }

    /// Reports the beginning of a reload or an upgrade, with the time on the monotonic clock, as `Type=notify-reload`
    /// requires.
    pub(super) fn report_reloading(&mut self) {
        if self.reported == Reported::Nothing {
            return;
        }
        self.reported = Reported::Reloading;
        if let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) {
            let microseconds = now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000;
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
        }
    }

    /// Reports that the daemon is about to end.
    pub(super) fn report_stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Reports that another process serves and is to be watched. All of it is one message, because the service manager
    /// may listen only to the process that it watches. For the same reason it is the last message.
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

/// Returns true if `exec_pid` is this process. `SYSTEMD_EXEC_PID` (systemd.exec(5)) is inherited by all processes that
/// a service starts, and names only the first one.
fn was_started_by_systemd(exec_pid: Option<&str>, own_pid: u32) -> bool {
    exec_pid.and_then(|pid| pid.parse().ok()) == Some(own_pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Notifier {
        /// Returns a notifier and the socket that receives its messages, which does not block.
        pub(in crate::daemon) fn for_tests() -> (Self, UnixDatagram) {
            static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let name = format!("iotcpd-notify-test-{}-{number}", std::process::id());
            let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
            manager.set_nonblocking(true).unwrap();
            let notifier = Notifier {
                to: Some((UnixDatagram::unbound().unwrap(), manager.local_addr().unwrap())),
                reported: Reported::Nothing,
            };
            (notifier, manager)
        }
    }

    #[test]
    fn no_reload_is_reported_before_the_start_is_over_and_each_is_ended_once() {
        let (mut notifier, manager) = Notifier::for_tests();
        let mut message = [0; 256];
        let mut told = || {
            manager
                .recv(&mut message)
                .ok()
                .map(|length| message[..length.min(7)].to_vec())
        };
        notifier.report_reloading();
        notifier.report_reloaded();
        assert_eq!(told(), None);
        notifier.report_ready();
        notifier.report_reloading();
        notifier.report_reloaded();
        notifier.report_reloaded();
        for expected in [&b"READY=1"[..], b"RELOADI", b"READY=1"] {
            assert_eq!(told().as_deref(), Some(expected));
        }
        assert_eq!(told(), None);
    }

    #[test]
    fn only_the_process_that_systemd_has_started_was_started_by_it() {
        assert!(was_started_by_systemd(Some("7"), 7));
        for exec_pid in [None, Some("8"), Some(""), Some("x")] {
            assert!(!was_started_by_systemd(exec_pid, 7), "{exec_pid:?}");
        }
    }
}
