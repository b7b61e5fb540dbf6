//! The runs that both sides of a comparison make: the program, its input, and the output that it must write.

use std::error::Error;
use std::ops::ControlFlow;

/// The words of a run on the command line.
pub(crate) const USAGE: &str = "AT_ONCE RUNS [--input TEXT | --zeros BYTES] PROGRAM ARGUMENT...";

/// Runs of one program.
pub(crate) struct Runs {
    /// The number of runs that are kept going.
    pub(crate) at_once: usize,
    /// The number of runs in all.
    pub(crate) count: usize,
    /// The input of each run.
    pub(crate) input: Vec<u8>,
    /// The number of zeros that each writes, where it does not write its input.
    zeros: Option<usize>,
    /// The program's name and its arguments.
    pub(crate) argv: Vec<String>,
}

impl Runs {
    /// Reads the words of [`USAGE`]. `--input`: the program writes its input; `--zeros`: it writes BYTES zeros.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, Box<dyn Error>> {
        let [at_once, count, rest @ ..] = words else {
            return Err(USAGE.into());
        };
        let (input, zeros, argv) = match rest {
            ["--input", text, argv @ ..] => (text.as_bytes().to_vec(), None, argv),
            ["--zeros", bytes, argv @ ..] => (Vec::new(), Some(bytes.parse()?), argv),
            argv => (Vec::new(), None, argv),
        };
        if argv.is_empty() {
            return Err(USAGE.into());
        }
        Ok(Self {
            at_once: at_once.parse()?,
            count: count.parse()?,
            input,
            zeros,
            argv: argv.iter().map(ToString::to_string).collect(),
        })
    }

    /// Returns true if `bytes` continue an output of which `before` bytes have come.
    pub(crate) fn continues(&self, before: usize, bytes: &[u8]) -> bool {
        match self.zeros {
            Some(zeros) => before + bytes.len() <= zeros && are_zeros(bytes),
            None => self.input.get(before..before + bytes.len()) == Some(bytes),
        }
    }

    /// Returns true if that is the length of the whole output.
    pub(crate) fn is_whole(&self, length: usize) -> bool {
        length == self.zeros.unwrap_or(self.input.len())
    }
}

/// Compared a good many at a time: one by one would cost more than to move them.
pub(crate) fn are_zeros(bytes: &[u8]) -> bool {
    let zeros = [0_u8; 4096];
    let compared = bytes.chunks(zeros.len()).try_for_each(|chunk| {
        if zeros.get(..chunk.len()) == Some(chunk) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    compared.is_continue()
}
