//! Helpers for the tests of this room: a stream is cut into pieces and given to a framer.

use super::{Framer, Progress};

/// Returns the payloads of all frames of a stream that arrives in pieces of the lengths `cuts` and then the rest at
/// once; and the number of bytes left of an unfinished message, or the error of the framer.
pub(super) fn cut_frames(mut framer: Framer, stream: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Result<usize, Progress>) {
    let (mut held, mut frames, mut fed) = (Vec::new(), Vec::new(), 0);
    for cut in cuts.iter().copied().chain([stream.len().max(1)]) {
        let end = stream.len().min(fed + cut);
        held.extend_from_slice(&stream[fed..end]);
        fed = end;
        while !held.is_empty() {
            match framer.advance(&held) {
                Progress::NeedMore => break,
                Progress::Frame(frame) => {
                    assert!(
                        frame.length <= held.len() && frame.length > 0,
                        "made of bytes that have come"
                    );
                    frames.push(frame.payload_in(&held).to_vec());
                    held.drain(..frame.length);
                }
                gives_up => return (frames, Err(gives_up)),
            }
        }
    }
    (frames, Ok(held.len()))
}

/// Checks that a stream in pieces gives the same result as the whole stream at once.
#[track_caller]
pub(super) fn check_cuts(framer: &Framer, stream: &[u8], cuts: &[usize]) {
    let whole = cut_frames(framer.clone(), stream, &[]);
    assert_eq!(cut_frames(framer.clone(), stream, cuts), whole, "{cuts:?}");
}
