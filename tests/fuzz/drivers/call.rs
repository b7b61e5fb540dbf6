//! Answers to `iotcpd call` of an exec door, or of a program in its place.

use super::Choices;
use iotcpd::internals::call::{AnswerError, AnswerReader, Finding, Output, ProgramEnd};

/// The contents of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    end: Option<ProgramEnd>,
    wrong: Option<AnswerError>,
}

/// `AnswerReader`: four bytes cut the rest. Every cut gives what the answer gives when it is looked at whole; and of an
/// answer that is made of whole pairs, each is what it says.
pub fn fuzz_call_answer(input: &[u8]) {
    let mut choices = Choices::new(input);
    let cuts = choices.take(4);
    let whole = read(choices.pieces(&[]));
    assert_eq!(read(choices.pieces(cuts)), whole, "cuts do not matter");
    assert!(whole.end.is_none() || whole.wrong.is_none(), "an end is an end");
    if let Some(ProgramEnd::Killed { number, .. }) = &whole.end {
        assert!(number.is_none_or(|number| (1..=64).contains(&number)));
    }
    let bytes: Vec<u8> = choices.pieces(&[]).flatten().copied().collect();
    if let Some(plain) = output_of_whole_pairs(&bytes) {
        let kinds = (whole.stdout.starts_with(&plain.0), whole.stderr.starts_with(&plain.1));
        assert_eq!(kinds, (true, true), "what was said is passed on");
    }
}

fn read<'i>(pieces: impl Iterator<Item = &'i [u8]>) -> Read {
    let (mut reader, mut read) = (AnswerReader::default(), Read::default());
    for piece in pieces {
        let mut rest = piece;
        loop {
            let (taken, found) = reader.advance(rest);
            assert!(taken <= rest.len(), "only what has come is taken");
            match found {
                Finding::NeedMore => {
                    assert_eq!(taken, rest.len(), "what is read is taken");
                    break;
                }
                Finding::Output(output, place) => {
                    let bytes = rest.get(place).unwrap_or_default();
                    assert!(!bytes.is_empty() && read.end.is_none(), "something, and before the end");
                    match output {
                        Output::Stdout => read.stdout.extend_from_slice(bytes),
                        Output::Stderr => read.stderr.extend_from_slice(bytes),
                    }
                }
                Finding::End(end) => assert_eq!(read.end.replace(end), None, "ended twice"),
                Finding::Invalid(wrong) => {
                    read.wrong = Some(wrong);
                    return read;
                }
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
    }
    read
}

/// The slow and obvious way: netstring by netstring, as long as they are whole pairs of output.
fn output_of_whole_pairs(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut stdout, mut stderr, mut rest) = (Vec::new(), Vec::new(), bytes);
    while let Some((kind, behind)) = netstring(rest) {
        let Some((data, behind)) = netstring(behind) else { break };
        match kind {
            b"stdout" => stdout.extend_from_slice(data),
            b"stderr" => stderr.extend_from_slice(data),
            _ => break,
        }
        rest = behind;
    }
    (rest.len() < bytes.len()).then_some((stdout, stderr))
}

fn netstring(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let (length, data) = (bytes.get(..colon)?, bytes.get(colon + 1..)?);
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    // Parsing takes what a netstring does not: a sign, zeros in front.
    if bytes.get(..colon)? != length.to_string().as_bytes() {
        return None;
    }
    let string = data.get(..length)?;
    let behind = data.get(length..)?.strip_prefix(b",")?;
    Some((string, behind))
}
