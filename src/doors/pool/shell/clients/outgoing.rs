//! Bytes on their way out: gathered until the end of the turn, or left over by a descriptor that was full.

use std::io;

/// So much of what has gone may lie before what has not.
const COMPACT_BEYOND: usize = 64 * 1024;

/// The bytes that one descriptor is still to take.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    gone: usize,
    /// Its owner stands in the list of what is written at the end of the turn.
    is_listed: bool,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.gone >= self.bytes.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.gone)
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Its memory, when there is none yet.
    pub(crate) fn adopt(&mut self, buffer: impl FnOnce() -> Vec<u8>) {
        if self.bytes.capacity() == 0 {
            self.bytes = buffer();
        }
    }

    /// Its memory, which is of no use while nothing is to go.
    pub(crate) fn release(&mut self) -> Vec<u8> {
        if !self.is_empty() {
            return Vec::new();
        }
        self.gone = 0;
        std::mem::take(&mut self.bytes)
    }

    /// To be put on the list? Only who does not stand there yet.
    pub(crate) fn list(&mut self) -> bool {
        !std::mem::replace(&mut self.is_listed, true)
    }

    pub(crate) fn unlist(&mut self) {
        self.is_listed = false;
    }

    /// Writes as much as is taken at once; how much that was: 0 when the descriptor is full.
    ///
    /// # Errors
    /// Those of `write`, but for EAGAIN and EINTR; none of what is there has been taken.
    pub(crate) fn write(&mut self, write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        let written = write_some(self.bytes.get(self.gone..).unwrap_or_default(), write)?;
        self.gone += written;
        if self.is_empty() {
            self.bytes.clear();
            self.gone = 0;
        } else if self.gone > COMPACT_BEYOND {
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
        Ok(written)
    }
}

/// Writes as much as is taken at once; 0 when the descriptor is full.
pub(crate) fn write_some(bytes: &[u8], mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match write(rest) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The bytes that have gone are reported now; the error comes again.
            Err(_) if written > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a number of bytes a call, and is full after a number of calls.
    fn taker(sink: &mut Vec<u8>, bytes: usize, mut calls: usize) -> impl FnMut(&[u8]) -> io::Result<usize> {
        move |offered| {
            if calls == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            calls -= 1;
            let taken = offered.len().min(bytes);
            sink.extend_from_slice(&offered[..taken]);
            Ok(taken)
        }
    }

    #[test]
    fn what_is_pushed_goes_out_once_and_in_order() {
        let (mut outgoing, mut sink) = (Outgoing::default(), Vec::new());
        outgoing.push(b"hello ");
        assert_eq!(outgoing.write(taker(&mut sink, 2, 2)).unwrap(), 4);
        assert_eq!(outgoing.len(), 2);
        outgoing.push(b"world");
        assert_eq!(outgoing.write(taker(&mut sink, 100, 100)).unwrap(), 7);
        assert!(outgoing.is_empty());
        assert_eq!(sink, b"hello world");
    }

    #[test]
    fn what_has_gone_is_not_kept_for_long() {
        let (mut outgoing, mut sink) = (Outgoing::default(), Vec::new());
        outgoing.push(&vec![7; 3 * COMPACT_BEYOND]);
        for _ in 0..4 {
            outgoing.push(&vec![7; COMPACT_BEYOND]);
            outgoing.write(taker(&mut sink, COMPACT_BEYOND + 1, 1)).unwrap();
            assert!(outgoing.bytes.len() <= 4 * COMPACT_BEYOND, "{}", outgoing.bytes.len());
        }
        assert!(outgoing.release().is_empty(), "not while something is to go");
        outgoing.write(taker(&mut sink, usize::MAX, 1)).unwrap();
        assert_eq!(sink.len(), 7 * COMPACT_BEYOND);
        assert!(outgoing.release().capacity() > 0);
    }
}
