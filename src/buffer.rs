//! Bytes that wait for a descriptor to take them: appended at the end, written from the front.
//!
//! This is the only such buffer in the program. A connection has one for its peer (`net::conn`), a direction of the
//! relay one for its sink, and a door that runs programs one for the input of each.

/// The capacity in bytes that an empty buffer may keep.
const KEEP: usize = 16 * 1024;

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

    /// Removes the first `written` bytes. At most half of the memory is ever filled with written bytes.
    pub fn consume(&mut self, written: usize) {
        self.from = (self.from + written).min(self.bytes.len());
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
            self.from = 0;
        } else if self.from > self.bytes.len() / 2 {
            self.bytes.drain(..self.from);
            self.from = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_bytes_come_out_once_and_in_order() {
        let (mut buffer, mut out) = (Buffer::default(), Vec::<u8>::new());
        for round in 0..50_u8 {
            buffer.end().extend([round; 7]);
            out.extend(&buffer.bytes()[..5]);
            buffer.consume(5);
        }
        assert_eq!(buffer.len(), 100);
        out.extend(buffer.bytes());
        buffer.consume(buffer.len());
        assert!(buffer.is_empty());
        assert_eq!(out, (0..50_u8).flat_map(|round| [round; 7]).collect::<Vec<_>>());
    }
}
