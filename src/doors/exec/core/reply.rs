//! The answer to a client: pairs of netstrings, each a type and its data.

use std::io::{IoSlice, Write};

use crate::framing::netstring::{END, begin, encode};
use crate::framing::signals;

/// The most bytes of output in one pair. sockexec 3.1 puts no more into one, and clients rely on it: a known one takes
/// a pair for broken that is not complete within a millisecond.
pub const LONGEST: usize = 4096;
/// The most pairs in [`Pairs`].
pub const MOST_PAIRS: usize = 16;
/// The number of longest pairs in one [unit](Pairs::units).
const UNIT_PAIRS: usize = 8;
/// The most bytes of a [unit](units). A UNIX socket takes this much in one piece or not at all, as Linux keeps 32 KiB
/// and most of a page together, so that a reader sees all of it at once.
pub const UNIT: usize = UNIT_PAIRS * (LONGEST + b"6:stdout,4096:,".len());
/// The longest length of a string, with its colon.
const LONGEST_LENGTH: usize = b"4096:".len();
/// The pieces of a unit: a head and the data for each pair, and the end of the last pair.
const UNIT_PIECES: usize = 2 * UNIT_PAIRS + 1;
const MOST_PIECES: usize = 2 * UNIT_PIECES;
const _: () = assert!(MOST_PAIRS == 2 * UNIT_PAIRS);

/// The status of a refusal. It is that of env(1), nohup(1) and timeout(1) for their own failures, and hardly a
/// program's.
pub const REFUSED: u8 = 125;
/// The status of a shell that finds a program but cannot run it.
pub const CANNOT_RUN: u8 = 126;
/// The status of a shell that does not find a program.
pub const NOT_FOUND: u8 = 127;

/// One of a program's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The exit of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has exited with this code, 0 to 255.
    Code(i32),
    /// A signal has ended it.
    Signal {
        /// The signal's number.
        number: i32,
        /// True if it left a core dump.
        core_dumped: bool,
    },
}

/// Appends the exit of a program.
pub fn conclude(outcome: Outcome, wire: &mut Vec<u8>) {
    match outcome {
        Outcome::Code(code) => exit_code(code, wire),
        Outcome::Signal { number, .. } => term_signal(number, wire),
    }
}

/// Appends some of a program's output. It is never empty.
pub fn output(from: Output, bytes: &[u8], wire: &mut Vec<u8>) {
    for part in bytes.chunks(LONGEST) {
        pair(from.kind(), part, wire);
    }
}

/// Some of a program's output as pairs that refer to it, to be written without a copy. The pieces in their order are
/// the bytes that [`output`] appends.
#[derive(Debug)]
pub struct Pairs<'a> {
    pieces: [IoSlice<'a>; MOST_PIECES],
    count: usize,
}

/// The memory for the head of the last pair, which is the only one that is not constant.
#[derive(Debug, Default)]
pub struct Scratch(Vec<u8>);

impl<'a> Pairs<'a> {
    /// Makes pairs of at least one byte. Bytes beyond [`MOST_PAIRS`] times [`LONGEST`] are left out.
    pub fn of(from: Output, bytes: &'a [u8], scratch: &'a mut Scratch) -> Self {
        let parts = bytes.chunks(LONGEST).take(MOST_PAIRS);
        let pairs = parts.len();
        let (first, between) = from.heads();
        let heads_a_unit = |number: usize| number.is_multiple_of(UNIT_PAIRS);
        scratch.0.clear();
        scratch.0.reserve(between.len());
        if !heads_a_unit(pairs - 1) {
            scratch.0.extend_from_slice(END);
        }
        encode(from.kind(), &mut scratch.0);
        begin(parts.clone().next_back().map_or(0, <[u8]>::len), &mut scratch.0);
        let mut made = Pairs {
            pieces: [IoSlice::new(&[]); MOST_PIECES],
            count: 0,
        };
        for (number, part) in parts.enumerate() {
            made.add(if number + 1 == pairs {
                &scratch.0
            } else if heads_a_unit(number) {
                first
            } else {
                between
            });
            made.add(part);
            if number + 1 == pairs || heads_a_unit(number + 1) {
                made.add(END);
            }
        }
        made
    }

    fn add(&mut self, piece: &'a [u8]) {
        if let Some(place) = self.pieces.get_mut(self.count) {
            *place = IoSlice::new(piece);
            self.count += 1;
        }
    }

    /// The pieces in their order.
    #[must_use]
    pub fn pieces(&self) -> &[IoSlice<'a>] {
        self.pieces.get(..self.count).unwrap_or_default()
    }

    /// The same pieces in two, either of which makes up whole pairs of at most [`UNIT`] bytes. The second may be empty.
    #[must_use]
    pub fn units(&self) -> (&[IoSlice<'a>], &[IoSlice<'a>]) {
        let pieces = self.pieces();
        pieces.split_at_checked(UNIT_PIECES).unwrap_or((pieces, &[]))
    }

    /// Appends all but the first `written` bytes.
    pub fn rest(&self, mut written: usize, wire: &mut Vec<u8>) {
        for piece in self.pieces() {
            wire.extend_from_slice(piece.get(written..).unwrap_or_default());
            written = written.saturating_sub(piece.len());
        }
    }
}

/// Cuts pairs into units: whole pairs of at most [`UNIT`] bytes together. Bytes that are no pair are one unit with all
/// that follows; this file never writes such bytes.
pub fn units(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let mut end = 0;
        while let Some(length) = rest.get(end..).and_then(pair_length) {
            if end > 0 && end + length > UNIT {
                break;
            }
            end += length;
        }
        let end = if end == 0 { rest.len() } else { end };
        let (unit, behind) = rest.split_at_checked(end)?;
        rest = behind;
        (!unit.is_empty()).then_some(unit)
    })
}

/// The length of the first pair; `None` if it is not complete.
fn pair_length(wire: &[u8]) -> Option<usize> {
    let kind = string_length(wire)?;
    let whole = kind + string_length(wire.get(kind..)?)?;
    (whole <= wire.len()).then_some(whole)
}

/// The length of the first netstring.
fn string_length(wire: &[u8]) -> Option<usize> {
    let digits = wire.iter().take(LONGEST_LENGTH).position(|byte| *byte == b':')?;
    let length: usize = std::str::from_utf8(wire.get(..digits)?).ok()?.parse().ok()?;
    length.checked_add(digits + b":,".len())
}

impl Output {
    fn kind(self) -> &'static [u8] {
        match self {
            Output::Stdout => b"stdout",
            Output::Stderr => b"stderr",
        }
    }

    /// The heads of a longest pair: for the first pair, and for one behind another pair, whose end it begins with.
    fn heads(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Output::Stdout => (b"6:stdout,4096:", b",6:stdout,4096:"),
            Output::Stderr => (b"6:stderr,4096:", b",6:stderr,4096:"),
        }
    }
}

/// Appends an exit code.
fn exit_code(code: i32, wire: &mut Vec<u8>) {
    let digits = code.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1;
    wire.reserve(b"8:exitcode,3:255,".len());
    encode(b"exitcode", wire);
    begin(digits + usize::from(code < 0), wire);
    // Writing to a vector cannot fail.
    let _ = write!(wire, "{code}");
    wire.extend_from_slice(END);
}

/// Appends the signal that has ended a program: its name without SIG, or its number where it has none.
fn term_signal(number: i32, wire: &mut Vec<u8>) {
    match signals::name_of(number) {
        Some(name) => pair(b"termsig", name.as_bytes(), wire),
        None => pair(b"termsig", number.to_string().as_bytes(), wire),
    }
}

/// Appends the reason for which a client gets no program, or no exit status: a line on standard error, then a status.
pub fn refusal(why: &str, status: u8, wire: &mut Vec<u8>) {
    output(Output::Stderr, format!("iotcpd: {why}\n").as_bytes(), wire);
    exit_code(status.into(), wire);
}

fn pair(kind: &[u8], data: &[u8], wire: &mut Vec<u8>) {
    encode(kind, wire);
    encode(data, wire);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_as_existing_clients_read_them() {
        let mut wire = Vec::new();
        output(Output::Stdout, b"hello", &mut wire);
        output(Output::Stderr, b"a,\n", &mut wire);
        exit_code(0, &mut wire);
        assert_eq!(wire, b"6:stdout,5:hello,6:stderr,3:a,\n,8:exitcode,1:0,");
    }

    /// Reads pairs back, and holds their sizes.
    fn read_back(mut wire: &[u8]) -> (Vec<u8>, Vec<usize>) {
        fn string<'w>(wire: &mut &'w [u8]) -> &'w [u8] {
            let colon = wire.iter().position(|byte| *byte == b':').unwrap();
            let length: usize = std::str::from_utf8(&wire[..colon]).unwrap().parse().unwrap();
            let string = &wire[colon + 1..][..length];
            assert_eq!(wire[colon + 1 + length], b',');
            *wire = &wire[colon + length + 2..];
            string
        }
        let (mut bytes, mut sizes) = (Vec::new(), Vec::new());
        while !wire.is_empty() {
            assert_eq!(string(&mut wire), b"stderr");
            let part = string(&mut wire);
            bytes.extend_from_slice(part);
            sizes.push(part.len());
        }
        (bytes, sizes)
    }

    #[test]
    fn no_pair_is_longer_than_clients_take_and_the_pieces_are_the_pairs() {
        let bytes: Vec<u8> = (0..MOST_PAIRS * LONGEST).map(|at| at.to_le_bytes()[0]).collect();
        for length in [
            1,
            9,
            4095,
            4096,
            4097,
            8191,
            8192,
            8193,
            40_000,
            bytes.len() - 1,
            bytes.len(),
        ] {
            let bytes = &bytes[..length];
            let (mut wire, mut scratch) = (Vec::new(), Scratch::default());
            output(Output::Stderr, bytes, &mut wire);
            let (back, sizes) = read_back(&wire);
            assert_eq!(back, bytes);
            assert!(sizes.iter().all(|size| (1..=LONGEST).contains(size)), "{sizes:?}");
            assert_eq!(sizes.len(), length.div_ceil(LONGEST));
            let pairs = Pairs::of(Output::Stderr, bytes, &mut scratch);
            let mut whole = Vec::new();
            pairs.rest(0, &mut whole);
            assert!(whole == wire, "{length}");
            for written in (0..wire.len()).step_by(1013).chain([1, 13, 14, 15, wire.len()]) {
                let (mut rest, written) = (Vec::new(), written.min(wire.len()));
                pairs.rest(written, &mut rest);
                assert!(rest == wire[written..], "{length}: the rest behind {written}");
            }
            let mut again = Vec::new();
            let (first, second) = pairs.units();
            for pieces in [first, second] {
                let unit: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
                assert!(unit.len() <= UNIT, "{length}");
                again.extend(read_back(&unit).0);
            }
            assert!(again == bytes, "{length}");
        }
    }

    proptest! {
        /// However long the pairs are that wait, they are cut into whole ones, no fewer at a time than have room.
        #[test]
        fn units_are_cut_between_pairs(lengths in vec((any::<bool>(), 1..20_000_usize), 0..20)) {
            let mut wire = Vec::new();
            for (errors, length) in lengths {
                let from = if errors { Output::Stderr } else { Output::Stdout };
                output(from, &vec![b':'; length], &mut wire);
            }
            exit_code(7, &mut wire);
            let cut: Vec<&[u8]> = units(&wire).collect();
            prop_assert!(cut.concat() == wire);
            for unit in &cut {
                prop_assert!(unit.len() <= UNIT);
                let mut at = 0;
                while at < unit.len() {
                    at += pair_length(&unit[at..]).unwrap();
                }
                prop_assert_eq!(at, unit.len());
            }
            for two in cut.windows(2) {
                prop_assert!(two[0].len() + pair_length(two[1]).unwrap() > UNIT);
            }
        }
    }

    #[test]
    fn a_long_refusal_is_told_in_pairs_as_well() {
        let mut wire = Vec::new();
        refusal(&"\u{fffd}".repeat(3000), REFUSED, &mut wire);
        let wire = wire.strip_suffix(b"8:exitcode,3:125,").unwrap();
        assert_eq!(read_back(wire).1, [4096, 4096, 817]);
    }

    #[test]
    fn a_signal_is_told_by_its_name_and_one_without_by_its_number() {
        let told = |number| {
            let mut wire = Vec::new();
            term_signal(number, &mut wire);
            String::from_utf8(wire).unwrap()
        };
        assert_eq!(told(9), "7:termsig,4:KILL,");
        assert_eq!(told(34), "7:termsig,2:34,");
    }

    #[test]
    fn a_refusal_is_something_that_existing_clients_show() {
        let mut wire = Vec::new();
        refusal("no", REFUSED, &mut wire);
        assert_eq!(wire, b"6:stderr,11:iotcpd: no\n,8:exitcode,3:125,");
    }
}
