//! For the tests of this room: a stream cut into pieces, and what a framer makes of it.

use super::{Framer, Progress};

/// The payloads of all frames of a stream that comes in pieces of these lengths, the rest at once; then how many bytes are
/// left of an unfinished one, or why the framer gave up.
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

/// What `framer` makes of the stream when it comes whole is what it makes of it however it is cut.
#[track_caller]
pub(super) fn check_cuts(framer: &Framer, stream: &[u8], cuts: &[usize]) {
    let whole = cut_frames(framer.clone(), stream, &[]);
    assert_eq!(cut_frames(framer.clone(), stream, cuts), whole, "{cuts:?}");
}
