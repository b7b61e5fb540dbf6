//! A standard stream whose calls never wait, for an event loop.
//!
//! Two kinds of streams can be had so without a change of the open file that other processes share:
//!
//! - A stream socket takes a flag with each call (MSG_DONTWAIT in send(2)).
//! - A pipe is opened once more, by its name in /proc/self/fd. The new open file has flags of its own, and is as
//!   readable or writable as the process's right to the pipe makes it, so the first one is asked for its direction. The
//!   pipe of another user cannot be opened, nor any pipe without /proc.
//!
//! A short read of either leaves nothing behind, so that there is an event for whatever comes (epoll(7)). That is why
//! sockets and pipes that keep the bounds of messages are left out. So are files, which epoll does not take, and
//! terminals and other devices, whose drivers may have only one set of flags.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, event};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::sockopt::SockType as SockTypeOption;
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv, send};
use nix::sys::stat::{SFlag, fstat};

/// A standard stream that never waits: WouldBlock means "wait for the next event".
#[derive(Debug)]
pub struct PolledStream(Form);

#[derive(Debug)]
enum Form {
    /// The number of a descriptor that is open for as long as the process.
    Socket(RawFd),
    /// An open file of this process alone.
    Pipe(OwnedFd),
}

/// The direction in which a stream is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

impl PolledStream {
    /// Returns the stream of this descriptor, which must stay open for as long as the process. Returns `None` if it
    /// cannot be used without waiting, or not at all: the calls that wait report the reason.
    pub(super) fn open(descriptor: BorrowedFd<'_>, direction: Direction) -> Option<PolledStream> {
        let kind = SFlag::from_bits_truncate(fstat(descriptor).ok()?.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFSOCK {
            let is_stream = getsockopt(&descriptor, SockTypeOption).ok()? == SockType::Stream;
            is_stream.then(|| PolledStream(Form::Socket(descriptor.as_raw_fd())))
        } else if kind == SFlag::S_IFIFO {
            Some(PolledStream(Form::Pipe(open_again(descriptor, direction)?)))
        } else {
            None
        }
    }
}

/// Opens a pipe once more, in the direction for which it is open already.
fn open_again(pipe: BorrowedFd<'_>, direction: Direction) -> Option<OwnedFd> {
    let flags = OFlag::from_bits_retain(fcntl(pipe, FcntlArg::F_GETFL).ok()?);
    let (other, mut options) = match direction {
        Direction::Read => (OFlag::O_WRONLY, OpenOptions::new().read(true).to_owned()),
        Direction::Write => (OFlag::O_RDONLY, OpenOptions::new().write(true).to_owned()),
    };
    // A pipe with O_DIRECT keeps the bounds of messages, and O_PATH allows neither reading nor writing.
    if flags & OFlag::O_ACCMODE == other || flags.intersects(OFlag::O_DIRECT | OFlag::O_PATH) {
        return None;
    }
    let file = options
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    file.ok().map(Into::into)
}

impl Read for PolledStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(match &self.0 {
            Form::Socket(number) => recv(*number, buffer, MsgFlags::MSG_DONTWAIT)?,
            Form::Pipe(pipe) => nix::unistd::read(pipe, buffer)?,
        })
    }
}

impl Write for PolledStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        Ok(match &self.0 {
            Form::Socket(number) => send(*number, bytes, flags)?,
            Form::Pipe(pipe) => nix::unistd::write(pipe, bytes)?,
        })
    }

    /// Nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PolledStream {
    fn number(&self) -> RawFd {
        match &self.0 {
            Form::Socket(number) => *number,
            Form::Pipe(pipe) => pipe.as_fd().as_raw_fd(),
        }
    }
}

/// One open file that is standard input and standard output at once may be registered as both: epoll tells apart the
/// numbers of its descriptors.
impl event::Source for PolledStream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.number()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.number()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.number()).deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    fn flags(of: &impl AsFd) -> OFlag {
        OFlag::from_bits_retain(fcntl(of, FcntlArg::F_GETFL).unwrap())
    }

    fn is_polled(stream: &impl AsFd, direction: Direction) -> bool {
        PolledStream::open(stream.as_fd(), direction).is_some()
    }

    #[test]
    fn a_pipe_is_read_and_written_without_waiting_and_keeps_its_flags() {
        let (reader, writer) = io::pipe().unwrap();
        let before = (flags(&reader), flags(&writer));
        let mut input = PolledStream::open(reader.as_fd(), Direction::Read).unwrap();
        let mut output = PolledStream::open(writer.as_fd(), Direction::Write).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(input.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        while output.write(&[0; 4096]).is_ok() {}
        assert_eq!(output.write(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(input.read(&mut buffer).unwrap(), 8);
        assert_eq!((flags(&reader), flags(&writer)), before);
    }

    #[test]
    fn the_end_of_a_pipe_and_its_reader_that_has_gone_are_seen_as_through_the_first_open_file() {
        let (reader, writer) = io::pipe().unwrap();
        let mut input = PolledStream::open(reader.as_fd(), Direction::Read).unwrap();
        drop(writer);
        assert_eq!(input.read(&mut [0; 8]).unwrap(), 0);
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut output = PolledStream::open(writer.as_fd(), Direction::Write).unwrap();
        assert_eq!(output.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_socket_is_read_and_written_without_waiting_and_keeps_its_flags() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let before = flags(&ours);
        let mut stream = PolledStream::open(ours.as_fd(), Direction::Read).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        theirs.write_all(b"line\n").unwrap();
        assert_eq!(stream.read(&mut buffer).unwrap(), 5);
        while stream.write(&[0; 4096]).is_ok() {}
        assert_eq!(flags(&ours), before);
        drop(theirs);
        assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn streams_that_only_waiting_calls_can_use_are_left_to_these() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(!is_polled(&reader, Direction::Write), "the wrong way round");
        assert!(!is_polled(&writer, Direction::Read), "the wrong way round");
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_DIRECT)).unwrap();
        assert!(!is_polled(&reader, Direction::Read), "a pipe of messages");
        let (datagrams, _peer) = UnixDatagram::pair().unwrap();
        assert!(!is_polled(&datagrams, Direction::Read), "a socket of messages");
        let device = OpenOptions::new().read(true).open("/dev/null").unwrap();
        assert!(!is_polled(&device, Direction::Read), "a device");
        let file = tempfile::tempfile().unwrap();
        assert!(!is_polled(&file, Direction::Read), "a file");
    }
}
