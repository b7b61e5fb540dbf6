//! Bytes that wait for a descriptor to take them: appended at the end, written from the front.
//!
//! This is the only such buffer in the program. A connection has one for its peer (`net::conn`), a direction of the
//! relay one for its sink, a door that runs programs one for the input of each, and a client one for a standard stream
//! that it polls. The log and standard streams on threads need none: whole batches are written by calls that block.

use std::io::{self, ErrorKind, Write};

/// The capacity in bytes that an empty buffer may keep.
const KEEP: usize = 64 * 1024;

/// Bytes in the order in which they are to be written.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// The bytes before this place have been written.
    from: usize,
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, from: 0 }
    }
}

impl Buffer {
    /// The number of bytes that are not written yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.from
    }

    /// Returns true if everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory behind the bytes, to append to and for nothing else.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Drops all bytes and their memory.
    pub fn clear(&mut self) {
        *self = Buffer::default();
    }

    /// The bytes that are not written yet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }

    /// The same, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.from..).unwrap_or_default()
    }

    /// Writes as much as is taken at once, and returns the number of bytes taken; 0 if there is no room.
    ///
    /// # Errors
    /// Those of the first write, except WouldBlock and Interrupted. Nothing was taken then. An error of a later write
    /// is left to the next call.
    pub fn write_to(&mut self, to: impl Write) -> io::Result<usize> {
        let written = write_some(self.bytes(), to)?;
        self.consume(written);
        Ok(written)
    }

    /// Gives the buffer memory, unless it has some.
    pub fn lend_memory(&mut self, memory: impl FnOnce() -> Vec<u8>) {
        if self.bytes.capacity() == 0 {
            self.bytes = memory();
        }
    }

    /// Takes the memory of an empty buffer; a new vector if the buffer is not empty.
    pub fn release_memory(&mut self) -> Vec<u8> {
        if !self.is_empty() {
            return Vec::new();
        }
        self.from = 0;
        std::mem::take(&mut self.bytes)
    }

    /// Removes the first `written` bytes. At most half of the memory is ever filled with written bytes.
    pub fn consume(&mut self, written: usize) {
        self.from = (self.from + written).min(self.bytes.len());
        if self.is_empty() {
            // More than that is freed and not shrunk, which for a long message takes two system calls.
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
            self.bytes.clear();
            self.from = 0;
        } else if self.from > self.bytes.len() / 2 {
            self.bytes.drain(..self.from);
            self.from = 0;
        }
    }
}

/// Writes as many of these bytes as are taken at once. See [`Buffer::write_to`].
///
/// # Errors
/// Those of [`Buffer::write_to`].
pub fn write_some(bytes: &[u8], mut to: impl Write) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match to.write(rest) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) if written > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most `bytes` in a call, and has no room after `calls`.
    struct Taker {
        taken: Vec<u8>,
        bytes: usize,
        calls: usize,
    }

    impl Write for &mut Taker {
        fn write(&mut self, offered: &[u8]) -> io::Result<usize> {
            if self.calls == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.calls -= 1;
            let count = offered.len().min(self.bytes);
            self.taken.extend_from_slice(&offered[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn taker(bytes: usize, calls: usize) -> Taker {
        Taker {
            taken: Vec::new(),
            bytes,
            calls,
        }
    }

    #[test]
    fn writing_goes_on_until_there_is_no_room() {
        let (mut buffer, mut taker) = (Buffer::from(b"hello ".to_vec()), taker(2, 2));
        assert_eq!(buffer.write_to(&mut taker).unwrap(), 4);
        assert_eq!(buffer.write_to(&mut taker).unwrap(), 0);
        buffer.end().extend_from_slice(b"world");
        taker.calls = 100;
        assert_eq!(buffer.write_to(&mut taker).unwrap(), 7);
        assert!(buffer.is_empty());
        assert_eq!(taker.taken, b"hello world");
    }

    #[test]
    fn written_bytes_do_not_pile_up_in_memory() {
        const PIECE: usize = 64 * 1024;
        let (mut buffer, mut taker) = (Buffer::from(vec![7; 3 * PIECE]), taker(PIECE + 1, 0));
        for _ in 0..20 {
            buffer.end().extend_from_slice(&[7; PIECE]);
            taker.calls = 1;
            buffer.write_to(&mut taker).unwrap();
            assert!(buffer.bytes.len() <= 8 * PIECE, "{}", buffer.bytes.len());
        }
        assert_eq!(buffer.release_memory().capacity(), 0, "not while something is to go");
        taker.calls = 100;
        buffer.write_to(&mut taker).unwrap();
        assert_eq!(taker.taken.len(), 23 * PIECE);
    }

    /// To shrink it is to move it, and then the owner of a long message drops what is left.
    #[test]
    fn an_empty_buffer_keeps_its_memory_or_frees_it_whole() {
        for (length, kept) in [(1, 1), (KEEP, KEEP), (KEEP + 1, 0)] {
            let mut buffer = Buffer::from(vec![7; length]);
            buffer.write_to(Vec::new()).unwrap();
            assert_eq!(buffer.release_memory().capacity(), kept, "{length}");
        }
    }

    #[test]
    fn appended_bytes_come_out_once_and_in_order() {
        let (mut buffer, mut out) = (Buffer::default(), Vec::<u8>::new());
        for round in 0..50_u8 {
            buffer.end().extend([round; 7]);
            let mut taker = taker(5, 1);
            buffer.write_to(&mut taker).unwrap();
            out.extend(taker.taken);
        }
        assert_eq!(buffer.len(), 100);
        buffer.write_to(&mut out).unwrap();
        assert!(buffer.is_empty());
        assert_eq!(out, (0..50_u8).flat_map(|round| [round; 7]).collect::<Vec<_>>());
    }
}
