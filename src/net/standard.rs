//! The standard streams as this process was given them, without the courtesies of std.
//!
//! std opens /dev/null in the place of a closed one before `main`, and passes over the EBADF of one that was opened the
//! wrong way round, so that writes are lost without a word. Here both are errors, as they are to any other program.
//!
//! Blocking is a property of the open file, which other processes share (O_NONBLOCK in fcntl(2)), and some of them
//! change it. It is never changed here; a stream that does not block is waited for by poll(2). So these calls wait, and
//! belong on a thread of their own, or to a program that is about to end. Where a stream can be used without waiting and
//! without a change that others see, an event loop uses it as a [`PolledStream`].

mod polled;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::sys;
use polled::Direction;
pub use polled::PolledStream;

/// One of the three standard streams. Standard input is a reader, the others are writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standard {
    /// Standard input.
    Input,
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Standard {
    /// Returns the stream for use without waiting, if that is possible without a change that other processes see: it
    /// is a stream socket, or a pipe that this process may open.
    pub fn polled(self) -> Option<PolledStream> {
        match self {
            Standard::Input => PolledStream::open(io::stdin().as_fd(), Direction::Read),
            Standard::Output => PolledStream::open(io::stdout().as_fd(), Direction::Write),
            Standard::Error => PolledStream::open(io::stderr().as_fd(), Direction::Write),
        }
    }

    /// Makes one system call on the descriptor, waiting for it where it does not block. EBADF if it was closed when the
    /// program started.
    fn call(self, wanted: PollFlags, mut call: impl FnMut(BorrowedFd<'_>) -> nix::Result<usize>) -> io::Result<usize> {
        if sys::was_closed_at_start(self.number()) {
            return Err(Errno::EBADF.into());
        }
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let descriptor = match self {
            Standard::Input => stdin.as_fd(),
            Standard::Output => stdout.as_fd(),
            Standard::Error => stderr.as_fd(),
        };
        waiting(descriptor, wanted, || call(descriptor))
    }

    /// Returns the usual name of the stream.
    pub const fn name(self) -> &'static str {
        match self {
            Standard::Input => "stdin",
            Standard::Output => "stdout",
            Standard::Error => "stderr",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Standard::Input => 0,
            Standard::Output => 1,
            Standard::Error => 2,
        }
    }
}

/// Repeats `call` until the descriptor is ready for it, and through interruptions.
fn waiting(
    descriptor: BorrowedFd<'_>,
    wanted: PollFlags,
    mut call: impl FnMut() -> nix::Result<usize>,
) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::EAGAIN) => match poll(&mut [PollFd::new(descriptor, wanted)], PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            },
            Err(Errno::EINTR) => {}
            outcome => return outcome.map_err(Into::into),
        }
    }
}

impl Read for Standard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.call(PollFlags::POLLIN, |descriptor| nix::unistd::read(descriptor, buffer))
    }
}

impl Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.call(PollFlags::POLLOUT, |descriptor| nix::unistd::write(descriptor, bytes))
    }

    /// Nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::thread;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    fn without_blocking(end: impl Into<OwnedFd>) -> OwnedFd {
        let end = end.into();
        fcntl(&end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        end
    }

    #[test]
    fn an_empty_pipe_without_blocking_is_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        let reader = without_blocking(reader);
        let mut buffer = [0; 4];
        assert_eq!(nix::unistd::read(&reader, &mut buffer), Err(Errno::EAGAIN));
        let mut come = None;
        let outcome = waiting(reader.as_fd(), PollFlags::POLLIN, || {
            let outcome = nix::unistd::read(&reader, &mut buffer);
            // The first attempt finds nothing, and the bytes arrive after it.
            come.get_or_insert_with(|| writer.write_all(b"late").unwrap());
            outcome
        });
        assert_eq!((outcome.unwrap(), &buffer), (4, b"late"));
    }

    #[test]
    fn a_full_pipe_without_blocking_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let writer = without_blocking(writer);
        let mut written = 0;
        while let Ok(count) = nix::unistd::write(&writer, &[b'x'; 4096]) {
            written += count;
        }
        let drained = thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all.len())
        });
        let outcome = waiting(writer.as_fd(), PollFlags::POLLOUT, || {
            nix::unistd::write(&writer, b"end")
        });
        assert_eq!(outcome.unwrap(), 3);
        drop(writer);
        assert_eq!(drained.join().unwrap().unwrap(), written + 3);
    }
}
