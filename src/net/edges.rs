//! A stream's edges: mio tells of each once, so they are kept until a read or a write says WouldBlock. Then no call is made in
//! vain, and nothing that may be there is forgotten.
//!
//! Every error of a read or a write is decided here: EINTR is tried again, EAGAIN waits for the next edge, and any other
//! (ECONNRESET, EPIPE, ...) says that the peer has gone. What is read and written, and when, is the owner's business.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use super::stream::Stream;
use crate::reactor::Readiness;

/// What a stream may be good for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Edges {
    readable: bool,
    writable: bool,
}

/// What reading has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Nothing is there.
    Nothing,
    /// So many bytes.
    Bytes(usize),
    /// The peer has ended its side.
    End,
    /// The peer has gone.
    Gone,
}

/// What writing has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// There is no room.
    Nothing,
    /// So many bytes have gone.
    Bytes(usize),
    /// The peer does not read any more.
    Gone,
}

impl Edges {
    /// Of a stream that was just accepted: both are worth a try.
    pub const UNTRIED: Edges = Edges {
        readable: true,
        writable: true,
    };

    /// There was an event.
    pub fn note(&mut self, readiness: Readiness) {
        self.readable |= readiness.readable || readiness.read_closed;
        self.writable |= readiness.writable;
    }

    /// Something else has found that there may be more to be read.
    pub fn expect_input(&mut self) {
        self.readable = true;
    }

    /// Whether a read may find something.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.readable
    }

    /// Whether a write may be taken.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// One read; `buffer` is not empty.
    pub fn read(&mut self, mut stream: &Stream, buffer: &mut [u8]) -> Taken {
        if !self.readable {
            return Taken::Nothing;
        }
        match again(|| stream.read(buffer)) {
            Ok(0) => {
                self.readable = false;
                Taken::End
            }
            Ok(count) => Taken::Bytes(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Taken::Nothing
            }
            Err(_) => Taken::Gone,
        }
    }

    /// One write of these pieces, which are not all empty.
    pub fn write(&mut self, mut stream: &Stream, pieces: &[IoSlice<'_>]) -> Written {
        if !self.writable {
            return Written::Nothing;
        }
        self.written(again(|| match pieces {
            // A system call of its own kind, which is the cheaper one.
            [piece] => stream.write(piece),
            pieces => stream.write_vectored(pieces),
        }))
    }

    /// One call that writes these messages, and with `end` the end of this side behind them; they are not all empty: see
    /// [`Stream::send_messages`].
    pub fn write_messages(&mut self, stream: &Stream, messages: &[&[IoSlice<'_>]], end: bool) -> Written {
        if !self.writable {
            return Written::Nothing;
        }
        self.written(again(|| stream.send_messages(messages, end)))
    }

    fn written(&mut self, outcome: io::Result<usize>) -> Written {
        match outcome {
            Ok(count) => Written::Bytes(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                Written::Nothing
            }
            Err(_) => Written::Gone,
        }
    }
}

fn again(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scaffold::{unix_pair, wait_readable};
    use super::*;

    #[test]
    fn an_edge_is_kept_until_it_is_used_up() {
        let (served, mut client) = unix_pair();
        let (mut edges, mut buffer) = (Edges::UNTRIED, [0; 4]);
        assert_eq!(edges.read(&served, &mut buffer), Taken::Nothing);
        client.write_all(b"sixsix").expect("write");
        wait_readable(&served);
        assert_eq!(edges.read(&served, &mut buffer), Taken::Nothing, "nobody has told");
        edges.expect_input();
        assert_eq!(edges.read(&served, &mut buffer), Taken::Bytes(4));
        assert_eq!(edges.read(&served, &mut buffer), Taken::Bytes(2));
        drop(client);
        assert_eq!(edges.read(&served, &mut buffer), Taken::End);
        assert_eq!(edges.write(&served, &[IoSlice::new(b"x")]), Written::Gone);
    }

    #[test]
    fn the_last_bytes_bring_the_end_with_them_unless_some_find_no_room() {
        let (served, mut client) = unix_pair();
        let (mut edges, mut come) = (Edges::UNTRIED, Vec::new());
        let long = vec![7; 4 << 20];
        let Written::Bytes(some) = edges.write_messages(&served, &[&[IoSlice::new(&long)]], true) else {
            panic!("a fresh socket has room for some")
        };
        assert!(some < long.len());
        come.resize(some, 0);
        client.read_exact(&mut come).expect("what has gone");
        let last = |edges: &mut Edges| edges.write_messages(&served, &[&[IoSlice::new(b"last")]], true);
        assert_eq!(last(&mut edges), Written::Bytes(4));
        come.clear();
        client.read_to_end(&mut come).expect("the end");
        assert_eq!(come, b"last");
        assert_eq!(last(&mut edges), Written::Gone);
    }

    /// What a client relies on that takes a message for broken of which it finds a part.
    #[test]
    fn a_unix_socket_takes_a_message_whole_or_not_at_all() {
        let (served, mut client) = unix_pair();
        let (head, body) = ([1; 13], [2; 32_875]);
        let message = [IoSlice::new(&head), IoSlice::new(&body)];
        let whole = head.len() + body.len();
        let (mut edges, mut sum, mut rounds) = (Edges::UNTRIED, 0, 0);
        // The reader takes odd amounts, so that there is every kind of room.
        while rounds < 200 {
            match edges.write_messages(&served, &[&message[..]; 3], false) {
                Written::Bytes(count) => {
                    assert_eq!(count % whole, 0, "a part of a message has gone");
                    sum += count;
                }
                Written::Nothing => {
                    let mut come = vec![0; sum.min(7_001)];
                    client.read_exact(&mut come).expect("what has gone");
                    sum -= come.len();
                    edges.writable = true;
                }
                Written::Gone => panic!("it is there"),
            }
            rounds += 1;
        }
    }

    #[test]
    fn what_finds_no_room_waits_for_the_next_edge() {
        let (served, _client) = unix_pair();
        let mut edges = Edges::UNTRIED;
        let piece = [7; 65_536];
        while let Written::Bytes(_) = edges.write(&served, &[IoSlice::new(&piece), IoSlice::new(b",")]) {}
        assert!(!edges.writable());
        assert_eq!(edges.write(&served, &[IoSlice::new(b"x")]), Written::Nothing);
    }
}
