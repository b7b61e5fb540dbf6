//! The client's side of the exec door: the request, and the answer, checked to its last byte.

use std::error::Error;

use crate::runs::Runs;

/// A request for a run: the arguments, the input, and its end.
pub(crate) fn request(runs: &Runs) -> [Vec<u8>; 3] {
    let string = |bytes: &[u8]| [format!("{}:", bytes.len()).as_bytes(), bytes, b","].concat();
    let mut arguments = string(runs.argv.len().to_string().as_bytes());
    arguments.extend(runs.argv.iter().flat_map(|word| string(word.as_bytes())));
    let input = match runs.input.as_slice() {
        [] => Vec::new(),
        input => string(input),
    };
    [arguments, input, string(b"")]
}

/// The meaning of the next bytes of an answer.
enum Expects {
    /// The length of a string.
    Length { value: usize },
    /// The remaining bytes of a string.
    Bytes { left: usize },
    /// The comma behind it.
    Comma,
}

/// An answer, read as it comes: pairs of netstrings, of which only what is short is kept.
pub(crate) struct Answer {
    expects: Expects,
    /// The type of the pair whose data comes next, as far as it is known.
    kind: Vec<u8>,
    in_data: bool,
    code: Vec<u8>,
    /// The number of bytes of output received.
    pub(crate) output: usize,
    /// The number of complete strings.
    pub(crate) strings: usize,
}

impl Answer {
    /// One of which nothing has come.
    pub(crate) fn new() -> Self {
        Self {
            expects: Expects::Length { value: 0 },
            kind: Vec::new(),
            in_data: false,
            code: Vec::new(),
            output: 0,
            strings: 0,
        }
    }

    /// Takes in what has come.
    ///
    /// # Errors
    /// It is another answer than it has to be.
    pub(crate) fn take(&mut self, runs: &Runs, mut bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        while let Some((&first, rest)) = bytes.split_first() {
            bytes = match self.expects {
                Expects::Length { value } => {
                    self.expects = match first {
                        b':' if value == 0 => Expects::Comma,
                        b':' => Expects::Bytes { left: value },
                        b'0'..=b'9' => Expects::Length {
                            value: value * 10 + usize::from(first - b'0'),
                        },
                        _ => return Err("what came is no netstring".into()),
                    };
                    rest
                }
                Expects::Bytes { left } => {
                    let (now, behind) = bytes.split_at(left.min(bytes.len()));
                    self.keep(runs, now)?;
                    self.expects = match left - now.len() {
                        0 => Expects::Comma,
                        left => Expects::Bytes { left },
                    };
                    behind
                }
                Expects::Comma if first == b',' => {
                    self.expects = Expects::Length { value: 0 };
                    self.strings += 1;
                    if self.in_data {
                        self.kind.clear();
                    }
                    self.in_data = !self.in_data;
                    rest
                }
                Expects::Comma => return Err("a netstring does not end with a comma".into()),
            };
        }
        Ok(())
    }

    /// Returns true if the bytes so far end within a string, behind its length.
    pub(crate) fn is_within_string(&self) -> bool {
        !matches!(self.expects, Expects::Length { .. })
    }

    fn keep(&mut self, runs: &Runs, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        match (self.in_data, self.kind.as_slice()) {
            (false, _) => self.kind.extend_from_slice(bytes),
            (true, b"stdout") if self.code.is_empty() && runs.continues(self.output, bytes) => {
                self.output += bytes.len()
            }
            (true, b"exitcode") => self.code.extend_from_slice(bytes),
            (true, kind) => {
                let (kind, data) = (String::from_utf8_lossy(kind), String::from_utf8_lossy(bytes));
                return Err(format!("{kind} is {data:?} after {} bytes of output", self.output).into());
            }
        }
        Ok(())
    }

    /// The end has come.
    ///
    /// # Errors
    /// Something is missing.
    pub(crate) fn check(&self, runs: &Runs) -> Result<(), Box<dyn Error>> {
        let between = matches!(self.expects, Expects::Length { value: 0 }) && !self.in_data;
        if !between || self.code != b"0" || !runs.is_whole(self.output) {
            let code = String::from_utf8_lossy(&self.code);
            return Err(format!(
                "an answer ended with exit code {code:?} after {} bytes of output",
                self.output
            )
            .into());
        }
        Ok(())
    }
}
