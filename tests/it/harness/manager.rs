//! A service manager that hears what a daemon tells it: sd_notify(3).

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tempfile::TempDir;

use super::{Builder, patience, temp_dir};

/// The socket of a service manager.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: UnixDatagram,
    home: TempDir,
}

impl Manager {
    /// Starts one that no daemon has told anything yet.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let home = temp_dir();
        let socket = UnixDatagram::bind(home.path().join("notify")).expect("bind a socket");
        socket.set_read_timeout(Some(patience())).expect("set a time-out");
        Manager { socket, home }
    }

    /// The same daemon, told to tell it.
    pub(crate) fn watching(&self, builder: Builder) -> Builder {
        let path = self.home.path().join("notify");
        builder.env("NOTIFY_SOCKET", path.to_str().expect("temporary paths are UTF-8"))
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn told(&self) -> String {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message);
        let length = length.unwrap_or_else(|error| panic!("nothing was told: {error}"));
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    /// Waits for the message that the start is over; messages about the wait for it are skipped.
    #[track_caller]
    pub(crate) fn ready(&self) {
        let mut told = self.told();
        while told.starts_with("STATUS=waiting for ") {
            told = self.told();
        }
        assert_eq!(told, "READY=1");
    }

    /// Nothing has been told by now but what is waited for.
    #[track_caller]
    pub(crate) fn is_kept_waiting(&self) {
        self.socket.set_nonblocking(true).expect("not to wait");
        let mut message = [0; 4096];
        loop {
            match self.socket.recv(&mut message) {
                Ok(length) => {
                    let told = String::from_utf8_lossy(&message[..length]);
                    assert!(told.starts_with("STATUS=waiting for "), "{told}");
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.socket.set_nonblocking(false).expect("to wait again");
    }

    /// A directory that goes with it.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }
}
