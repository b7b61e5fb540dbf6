//! Messages that end in a byte which they cannot hold: the common part of [`line`](super::line) and
//! [`nul`](super::nul).

use super::{Frame, Progress, Unfit};

/// A framer for messages that end in such a byte.
#[derive(Debug, Clone)]
pub(super) struct Terminated {
    end: u8,
    longest: usize,
    scanned: usize,
}

impl Terminated {
    pub(super) fn by(end: u8, longest: usize) -> Self {
        Terminated {
            end,
            longest,
            scanned: 0,
        }
    }

    pub(super) fn advance(&mut self, bytes: &[u8]) -> Progress {
        let new = bytes.get(self.scanned..).unwrap_or_default();
        match memchr::memchr(self.end, new).map(|at| self.scanned + at) {
            Some(length) if length > self.longest => Progress::TooLong,
            Some(length) => {
                self.scanned = 0;
                Progress::Frame(Frame {
                    length: length + 1,
                    payload: 0..length,
                })
            }
            None if bytes.len() > self.longest => Progress::TooLong,
            None => {
                self.scanned = bytes.len();
                Progress::NeedMore
            }
        }
    }
}

/// Appends a message and the byte `end`. A message that already ends in it is not given a second one. Returns `unfit`
/// if the message holds it earlier.
pub(super) fn encode(payload: &[u8], end: u8, unfit: Unfit, wire: &mut Vec<u8>) -> Result<(), Unfit> {
    let text = match payload.split_last() {
        Some((last, before)) if *last == end => before,
        _ => payload,
    };
    if memchr::memchr(end, text).is_some() {
        return Err(unfit);
    }
    wire.extend_from_slice(text);
    wire.push(end);
    Ok(())
}
