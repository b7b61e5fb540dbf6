//! Gates: they hold a scripted worker still, exactly as long as a test wants.
//!
//! A gate is a UNIX socket. A worker told to wait at it connects, says its pid, and reads until the other end closes;
//! the test learns of the arrival by accepting, and lets the worker go on by dropping it. Any number of workers may
//! wait at one gate; a gate whose test has gone is open.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

use super::patience;

/// A place where workers wait.
#[derive(Debug)]
pub(crate) struct Gate {
    listener: UnixListener,
    path: String,
    // Removes the socket with the gate.
    _directory: TempDir,
}

/// A worker that stands at a gate until this is dropped.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The worker's process number.
    pub(crate) pid: i32,
    stream: BufReader<UnixStream>,
}

impl Gate {
    /// A closed gate of its own name.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let directory = super::temp_dir();
        let path = directory
            .path()
            .join("gate")
            .to_str()
            .expect("temporary paths are UTF-8")
            .to_owned();
        let listener = UnixListener::bind(&path).unwrap_or_else(|error| panic!("cannot bind {path}: {error}"));
        Self {
            listener,
            path,
            _directory: directory,
        }
    }

    /// The gate's name in a request or a flag.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Waits until a worker stands here.
    #[track_caller]
    pub(crate) fn arrival(&self) -> Arrival {
        let timeout = PollTimeout::try_from(patience()).expect("the watchdog fits a poll");
        let mut wanted = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let arrived = poll(&mut wanted, timeout).expect("poll a gate");
        assert_eq!(arrived, 1, "no worker came to the gate {} in time", self.path);
        let (stream, _) = self.listener.accept().expect("accept at a gate");
        stream.set_read_timeout(Some(patience())).expect("set a read timeout");
        let mut stream = BufReader::new(stream);
        let mut pid = String::new();
        stream.read_line(&mut pid).expect("read a pid at a gate");
        let pid = pid
            .trim_end()
            .parse()
            .unwrap_or_else(|error| panic!("{pid:?} came to the gate: {error}"));
        Arrival { pid, stream }
    }
}

impl Arrival {
    /// Lets the worker go on; what a drop does, as a word.
    pub(crate) fn open(self) {}

    /// Waits until the worker has left the gate without having been released: it was killed.
    #[track_caller]
    pub(crate) fn wait_killed(mut self) {
        let mut rest = String::new();
        let read = self
            .stream
            .read_line(&mut rest)
            .expect("wait for a worker to be killed");
        assert_eq!(read, 0, "the worker at the gate said {rest:?}");
    }
}
