//! Bytes on their way that found no room: written from the front, added at the end.

use std::io::{self, Write};

/// What a buffer may keep allocated when it is empty.
const KEEP: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Where what is left begins.
    from: usize,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.from
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The end of it, to be appended to.
    pub(super) fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Buffer::default();
    }

    /// One write(2) of what there is; how much of it went.
    pub(super) fn write_to(&mut self, mut to: impl Write) -> io::Result<usize> {
        let written = to.write(self.bytes.get(self.from..).unwrap_or_default())?;
        self.from += written;
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
            self.from = 0;
        } else if self.from > self.bytes.len() / 2 {
            self.bytes.drain(..self.from);
            self.from = 0;
        }
        Ok(written)
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
