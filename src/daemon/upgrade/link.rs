//! The connection between predecessor and successor: single bytes, a deadline for each, the end of either side heard.
//!
//! A thread listens, because the loop's sources belong to its services; what it hears comes by mail.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::doors::Door;
use crate::process::successor::Watch;
use crate::reactor::Reactor;
use crate::reactor::helper::{Mailbox, Sender};

/// From one word to the next. Neither side has anything to do in between but to say it.
const BETWEEN_WORDS: Duration = Duration::from_secs(30);
/// Long enough for a word that is there.
const MOMENT: Duration = Duration::from_millis(1);
/// How long a process may take to be gone once the connection has ended: to say its last words, or to be killed.
const LAST_MOMENTS: Duration = Duration::from_secs(5);
/// Words and ends that wait for the loop at most.
const WAITING: usize = 8;

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Word(u8),
    /// The other side has closed the connection, or has ended.
    Closed,
    /// Nothing was said in time.
    Overdue,
    /// The other side's process has ended, or cannot be ended.
    Gone,
}

#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    mailbox: Mailbox<Heard>,
}

impl Link {
    /// Listens for a first word, `by` this time; and after the end of the connection for that of a process, if one is given.
    pub(super) fn listen(
        stream: UnixStream,
        by: Instant,
        process: Option<Watch>,
        reactor: &Reactor<dyn Door>,
    ) -> io::Result<Link> {
        let (sender, mailbox) = reactor.mailbox(WAITING);
        let ears = stream.try_clone()?;
        let listen = move || listen(ears, by, process, &sender);
        std::thread::Builder::new().name("upgrade".to_owned()).spawn(listen)?;
        Ok(Link { stream, mailbox })
    }

    /// Says a word. One that cannot be said reaches nobody, and that is heard by the thread.
    pub(super) fn say(&self, word: u8) {
        let _ = (&self.stream).write_all(&[word]);
    }

    pub(super) fn hear(&self) -> Option<Heard> {
        self.mailbox.take()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The thread holds a copy, and reads: this ends both.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn listen(mut stream: UnixStream, mut by: Instant, process: Option<Watch>, sender: &Sender<Heard>) {
    let end = loop {
        match next_word(&mut stream, by) {
            Heard::Word(word) => {
                by = Instant::now() + BETWEEN_WORDS;
                if sender.send(Heard::Word(word)).is_err() {
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
        // Ended or not: it is not waited for any longer.
        let _ = process.wait(LAST_MOMENTS);
        let _ = sender.send(Heard::Gone);
    }
}

fn next_word(stream: &mut UnixStream, by: Instant) -> Heard {
    loop {
        let left = by.saturating_duration_since(Instant::now());
        // It is listened to once more when the time is over: this process may have been stopped meanwhile.
        if stream.set_read_timeout(Some(left.max(MOMENT))).is_err() {
            return Heard::Overdue;
        }
        let mut word = [0];
        match stream.read(&mut word) {
            Ok(1..) => return Heard::Word(word[0]),
            Ok(0) => return Heard::Closed,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut if left.is_zero() => return Heard::Overdue,
                // The time is looked at again above.
                ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                _ => return Heard::Closed,
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
    fn words_come_one_by_one_then_the_end() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        other.write_all(b"RS").unwrap();
        drop(other);
        for expected in [Heard::Word(b'R'), Heard::Word(b'S'), Heard::Closed] {
            assert_eq!(next_word(&mut one, soon()), expected);
        }
    }

    #[test]
    fn what_was_said_in_time_is_heard_however_late() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        other.write_all(b"R").unwrap();
        let long_ago = Instant::now();
        assert_eq!(next_word(&mut one, long_ago), Heard::Word(b'R'));
        assert_eq!(next_word(&mut one, long_ago), Heard::Overdue);
    }

    #[test]
    fn who_says_nothing_is_overdue() {
        let (mut one, _other) = UnixStream::pair().unwrap();
        assert_eq!(next_word(&mut one, Instant::now()), Heard::Overdue);
        let by = Instant::now() + Duration::from_millis(1);
        assert_eq!(next_word(&mut one, by), Heard::Overdue);
        assert!(Instant::now() >= by);
    }
}
