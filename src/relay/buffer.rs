//! Bytes on their way that found no room: written from the front, added at the end.

use std::io::{self, Write};

/// What a buffer may keep allocated when it is empty.
const KEEP: usize = 16 * 1024;

/// Bytes on their way.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// Where what is left begins.
    from: usize,
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, from: 0 }
    }
}

impl Buffer {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.from
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The end of it, to be appended to.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Drops all of them.
    pub fn clear(&mut self) {
        *self = Buffer::default();
    }

    /// What there is.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }

    /// One write(2) of what there is; how much of it went.
    ///
    /// # Errors
    /// Those of the write. Nothing has gone then.
    pub fn write_to(&mut self, mut to: impl Write) -> io::Result<usize> {
        let written = to.write(self.bytes())?;
        self.consume(written);
        Ok(written)
    }

    /// The first so many have gone.
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
    fn what_goes_in_comes_out_once_and_in_order() {
        let (mut buffer, mut out) = (Buffer::default(), Vec::new());
        for round in 0..50_u8 {
            buffer.end().extend([round; 7]);
            let mut room = [0; 5];
            let written = buffer.write_to(&mut room[..]).unwrap();
            out.extend(&room[..written]);
        }
        assert_eq!(buffer.len(), 100);
        while !buffer.is_empty() {
            buffer.write_to(&mut out).unwrap();
        }
        assert_eq!(out, (0..50_u8).flat_map(|round| [round; 7]).collect::<Vec<_>>());
    }
}
