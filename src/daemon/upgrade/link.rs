//! The connection between predecessor and successor: messages of one byte, with a deadline for each, and the end of
//! either side.
//!
//! A thread reads it, because the loop's sources belong to its services. Its events arrive in a mailbox.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::doors::Door;
use crate::process::successor::Watch;
use crate::reactor::Reactor;
use crate::reactor::helper::{Mailbox, Sender};

/// The time limit between two messages. Neither side has anything to do between them but to send the next one.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// A time-out that is enough to read a message that has arrived.
const MIN_READ_TIMEOUT: Duration = Duration::from_millis(1);
/// The time in which the other process must end once the connection has ended: it may still log its reason, or is being
/// killed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of events that may wait for the loop.
const MAILBOX_CAPACITY: usize = 8;

/// An event on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkEvent {
    Message(u8),
    /// The other side has closed the connection, or has ended.
    Closed,
    /// No message arrived in time.
    Overdue,
    /// The other side's process has ended, or has not ended in its time.
    ProcessEnded,
}

#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    mailbox: Mailbox<LinkEvent>,
}

impl Link {
    /// Listens for a first message until `by`. After the end of the connection, waits for the end of `process`, if one
    /// is given.
    pub(super) fn listen(
        stream: UnixStream,
        by: Instant,
        process: Option<Watch>,
        reactor: &Reactor<dyn Door>,
    ) -> io::Result<Link> {
        let (sender, mailbox) = reactor.mailbox(MAILBOX_CAPACITY);
        let stream_copy = stream.try_clone()?;
        let listen = move || listen(stream_copy, by, process, &sender);
        std::thread::Builder::new().name("upgrade".to_owned()).spawn(listen)?;
        Ok(Link { stream, mailbox })
    }

    /// Sends a message. If that fails, the connection has ended, which the thread reports.
    pub(super) fn send(&self, message: u8) {
        let _ = (&self.stream).write_all(&[message]);
    }

    pub(super) fn receive(&self) -> Option<LinkEvent> {
        self.mailbox.take()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The thread reads from a copy of the descriptor: this ends both.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn listen(mut stream: UnixStream, mut by: Instant, process: Option<Watch>, sender: &Sender<LinkEvent>) {
    let end = loop {
        match next_message(&mut stream, by) {
            LinkEvent::Message(message) => {
                by = Instant::now() + MESSAGE_TIMEOUT;
                if sender.send(LinkEvent::Message(message)).is_err() {
                    return;
                }
            }
            end => break end,
        }
    };
    if sender.send(end).is_err() {
        return;
    }
    if let Some(process) = process {
        // Ended or not, the process is not waited for any longer.
        let _ = process.wait(EXIT_TIMEOUT);
        let _ = sender.send(LinkEvent::ProcessEnded);
    }
}

fn next_message(stream: &mut UnixStream, by: Instant) -> LinkEvent {
    loop {
        let left = by.saturating_duration_since(Instant::now());
        // One more read follows when the time is over, because this process may have been stopped meanwhile.
        if stream.set_read_timeout(Some(left.max(MIN_READ_TIMEOUT))).is_err() {
            return LinkEvent::Overdue;
        }
        let mut message = [0];
        match stream.read(&mut message) {
            Ok(1..) => return LinkEvent::Message(message[0]),
            Ok(0) => return LinkEvent::Closed,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut if left.is_zero() => return LinkEvent::Overdue,
                // The time is checked again above.
                ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                _ => return LinkEvent::Closed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn messages_arrive_one_by_one_and_then_the_end() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        other.write_all(b"RS").unwrap();
        drop(other);
        for expected in [LinkEvent::Message(b'R'), LinkEvent::Message(b'S'), LinkEvent::Closed] {
            assert_eq!(next_message(&mut one, soon()), expected);
        }
    }

    #[test]
    fn a_message_sent_in_time_is_received_however_late() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        other.write_all(b"R").unwrap();
        let long_ago = Instant::now();
        assert_eq!(next_message(&mut one, long_ago), LinkEvent::Message(b'R'));
        assert_eq!(next_message(&mut one, long_ago), LinkEvent::Overdue);
    }

    #[test]
    fn a_silent_peer_is_overdue() {
        let (mut one, _other) = UnixStream::pair().unwrap();
        assert_eq!(next_message(&mut one, Instant::now()), LinkEvent::Overdue);
        let by = Instant::now() + Duration::from_millis(1);
        assert_eq!(next_message(&mut one, by), LinkEvent::Overdue);
        assert!(Instant::now() >= by);
    }
}
