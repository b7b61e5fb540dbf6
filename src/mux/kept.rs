//! The bytes of a stream that its owner did not take when they came, in small pieces of memory.
//!
//! The bound of a session counts bytes. One piece for all of them would be up to twice as large as its bytes ever were, and
//! would stay so until the last of them is taken: a peer whose streams stall with a byte each could have a window of
//! memory for each. So the memory follows the bytes, with less than two pieces more.

use std::collections::VecDeque;

/// The number of bytes in a piece, at most.
const PIECE: usize = 4 << 10;

/// Bytes in their order. None take no memory.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Pieces that are not empty. All but the last are full.
    pieces: VecDeque<Vec<u8>>,
    /// The number of bytes of the first piece that were taken.
    from: usize,
}

impl Kept {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Puts bytes behind the others.
    pub(super) fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let last = self.pieces.back_mut().filter(|piece| piece.len() < PIECE);
            let room = last.as_ref().map_or(PIECE, |piece| PIECE - piece.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            match last {
                Some(piece) => {
                    let wanted = (piece.len() + now.len()).max(2 * piece.capacity()).min(PIECE);
                    piece.reserve_exact(wanted.saturating_sub(piece.len()));
                    piece.extend_from_slice(now);
                }
                None => self.pieces.push_back(now.to_vec()),
            }
            bytes = later;
        }
    }

    /// Takes as many bytes as fit, and returns their number.
    pub(super) fn take(&mut self, mut to: &mut [u8]) -> usize {
        let mut taken = 0;
        while let Some(piece) = self.pieces.front().filter(|_| !to.is_empty()) {
            let bytes = piece.get(self.from..).unwrap_or_default();
            let count = bytes.len().min(to.len());
            let (now, later) = to.split_at_mut(count);
            now.copy_from_slice(bytes.get(..count).unwrap_or_default());
            to = later;
            taken += count;
            self.from += count;
            if self.from >= piece.len() {
                self.pieces.pop_front();
                self.from = 0;
            }
        }
        if self.pieces.is_empty() {
            // Thousands of idle streams would hold what each has needed once.
            self.clear();
        }
        taken
    }

    /// Drops all bytes.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the memory that is taken, in bytes.
    #[cfg(test)]
    fn memory(&self) -> usize {
        let list = self.pieces.capacity() * size_of::<Vec<u8>>();
        list + self.pieces.iter().map(Vec::capacity).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stream_that_has_stalled_keeps_the_memory_of_what_is_left() {
        let mut kept = Kept::default();
        for _ in 0..64 {
            kept.append(&[7; 16 << 10]);
        }
        let mut to = vec![0; (1 << 20) - 1];
        assert_eq!(kept.take(&mut to), to.len());
        assert!(kept.memory() <= 16 << 10, "{} bytes for one", kept.memory());
        assert_eq!(kept.take(&mut to), 1);
        assert_eq!(kept.memory(), 0);
    }

    proptest! {
        #[test]
        fn bytes_are_taken_in_their_order(steps in prop::collection::vec((any::<bool>(), 0..20_000_usize), 0..60)) {
            let (mut kept, mut model, mut next, mut most) = (Kept::default(), VecDeque::new(), 0_u8, 0);
            for (is_append, count) in steps {
                if is_append {
                    let bytes: Vec<u8> = (0..count).map(|_| { next = next.wrapping_mul(5).wrapping_add(3); next }).collect();
                    kept.append(&bytes);
                    model.extend(bytes);
                } else {
                    let mut to = vec![0; count];
                    let taken = kept.take(&mut to);
                    prop_assert_eq!(taken, count.min(model.len()));
                    prop_assert!(model.drain(..taken).eq(to[..taken].iter().copied()));
                }
                prop_assert_eq!(kept.is_empty(), model.is_empty());
                // The list has the room that it has needed once, or twice as much.
                most = most.max(model.len());
                prop_assert!(kept.memory() <= model.len() + 2 * PIECE + most / 64 + 200, "{}", kept.memory());
            }
        }
    }
}
