//! The bytes that one read of a tunnel has brought, until they are parsed or given to a stream.

use crate::net::conn::Received;

/// The number of bytes that one read takes at most.
const SIZE: usize = 16 << 10;

/// A piece of memory that is filled by reads, and taken from the front. It has no memory before the first read.
#[derive(Debug, Default)]
pub(super) struct Window {
    memory: Box<[u8]>,
    /// The bytes lie from here
    from: usize,
    /// to here.
    to: usize,
}

impl Window {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.get(self.from..self.to).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Takes this number of bytes away, or all if there are fewer.
    pub(super) fn consume(&mut self, count: usize) {
        self.from = self.to.min(self.from + count);
    }

    /// Takes as many bytes as the array has. `None` if there are fewer.
    pub(super) fn take<const COUNT: usize>(&mut self) -> Option<[u8; COUNT]> {
        let array = *self.bytes().first_chunk::<COUNT>()?;
        self.consume(COUNT);
        Some(array)
    }

    /// Reads once, so that there are at most `most` bytes, of which there are fewer now.
    pub(super) fn read(&mut self, most: usize, read: impl FnOnce(&mut [u8]) -> Received) -> Received {
        if self.memory.is_empty() {
            self.memory = vec![0; SIZE].into();
        }
        self.memory.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        let end = most.min(self.memory.len());
        match self.memory.get_mut(self.to..end).filter(|to| !to.is_empty()) {
            None => Received::Nothing,
            Some(to) => {
                let received = read(to);
                if let Received::Bytes(count) = received {
                    self.to += count;
                }
                received
            }
        }
    }
}
