//! The reference for `iotcpd ask --squid` in `scripts/bench squid`: a helper of Squid's with one connection to a pool.
//! It has no deadlines, no second pool, no limits and no promises; what it reaches is what two sockets and two pipes
//! of this machine allow one thread.
//!
//! `bare-helper --kept ADDRESS`: the pool keeps its connections (`--persistent`) and answers in the order of the
//! requests, so that the channel-IDs stay here, in that order, and the lines go without them. `bare-helper
//! --multiplexed ADDRESS`: the first line is the hello, which the pool answers by one line; from then on the lines pass
//! unchanged, because those of the connection have the form of Squid's own (`doc/protocol.md`).
//!
//! The lines that one read brings leave in one write. The program ends with its input, or with an error when the pool
//! closes the connection.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const USAGE: &str = "usage: bare-helper --kept|--multiplexed ADDRESS";

/// The line with which a client asks for a multiplexed connection.
const HELLO: &str = "iotcpd-multiplex 1\n";

/// The bytes of one direction: whole lines leave, and the beginning of a line waits for its rest.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Lines {
    /// Takes what has been read. `rewrite` appends to the outgoing bytes the line that a whole line, with its end,
    /// becomes.
    fn take(&mut self, read: &[u8], mut rewrite: impl FnMut(&[u8], &mut Vec<u8>)) {
        for piece in read.split_inclusive(|byte| *byte == b'\n') {
            if piece.last() != Some(&b'\n') {
                self.partial.extend_from_slice(piece);
            } else if self.partial.is_empty() {
                rewrite(piece, &mut self.outgoing);
            } else {
                self.partial.extend_from_slice(piece);
                rewrite(&self.partial, &mut self.outgoing);
                self.partial.clear();
            }
        }
    }

    fn send(&mut self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.outgoing)?;
        self.outgoing.clear();
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (kept, address) = match words.as_slice() {
        ["--kept", address] => (true, address),
        ["--multiplexed", address] => (false, address),
        _ => return Err(USAGE.into()),
    };
    let pool = TcpStream::connect(address)?;
    pool.set_nodelay(true)?;
    if !kept {
        (&pool).write_all(HELLO.as_bytes())?;
        // The pool has been asked nothing yet, so that no more than this line is read.
        BufReader::new(&pool).read_line(&mut String::new())?;
    }
    relay(&pool, kept)
}

fn relay(mut pool: &TcpStream, kept: bool) -> Result<(), Box<dyn Error>> {
    // Without the buffer of std, and with no lock for each call.
    let mut squid_in = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut squid_out = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut buffer = vec![0; 64 * 1024];
    let (mut requests, mut answers) = (Lines::default(), Lines::default());
    let mut channels: VecDeque<Vec<u8>> = VecDeque::new();
    loop {
        let mut waited = [
            PollFd::new(squid_in.as_fd(), PollFlags::POLLIN),
            PollFd::new(pool.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut waited, PollTimeout::NONE)?;
        let [from_squid, from_pool] = waited.map(|it| it.any() == Some(true));
        if from_squid {
            let length = squid_in.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            requests.take(buffer.get(..length).unwrap_or_default(), |line, outgoing| {
                let end = line.iter().position(|byte| *byte == b' ').map_or(0, |space| space + 1);
                let (channel, request) = line.split_at(if kept { end } else { 0 });
                if kept {
                    channels.push_back(channel.to_vec());
                }
                outgoing.extend_from_slice(request);
            });
            requests.send(&mut pool)?;
        }
        if from_pool {
            let length = pool.read(&mut buffer)?;
            if length == 0 {
                return Err("the pool has closed the connection".into());
            }
            answers.take(buffer.get(..length).unwrap_or_default(), |answer, outgoing| {
                outgoing.extend(channels.pop_front().unwrap_or_default());
                outgoing.extend_from_slice(answer);
            });
            answers.send(&mut squid_out)?;
        }
    }
}
