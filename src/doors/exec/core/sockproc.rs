//! The protocol of sockproc, which is older than that of sockexec: a command line for a shell in, counted outputs back.
//!
//! ```text
//! → uptime -p CR LF   5 CR LF           hello
//!   command line      bytes of input    the input
//!
//! ← status:0 CR LF   12 CR LF           up 2 minutes   0 CR LF           (nothing)
//!   wait status      bytes of stdout    stdout         bytes of stderr   stderr
//! ```
//!
//! Since the counts come first, outputs are held until the program has ended, up to a limit ([`Held`]). Input is
//! streamed. Bytes behind the input are ignored. A client that ends its side before the announced number of bytes ends
//! the input there. A missing count is 0: the second line may be empty, and a client that ends its side behind the
//! command line, or in the middle of the count, has no input. A command line that is cut off is never run.
//!
//! The status is that of waitpid(2): the exit code times 256, or the number of the signal, plus 128 with a core dump.
//! The original prints this status, and its clients compare it with 0.

use super::arguments::Arguments;
use super::reply::{Outcome, Output};
use super::request::{End, Found, LONGEST_INPUT, PER_ARGUMENT, Wrong};

/// The shell that runs the command line. The original has bash here.
pub const SHELL: &str = "/bin/sh";

/// The exit code of a refusal.
pub const REFUSED: u8 = 100;

/// The most digits of a count. A longer one is noise.
const LONGEST_COUNT: usize = 20;

const CRLF: [u8; 2] = *b"\r\n";

const NO_COUNT: Wrong =
    Wrong::Malformed("the second line is to be the number of bytes of input, in digits, and to end with CR LF");

/// Reads one request.
#[derive(Debug, Clone)]
pub struct Reader {
    /// The most bytes of the command line.
    longest: usize,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// The part of the command line that was read, perhaps with the CR of its end.
    CommandLine(Vec<u8>),
    /// The digits that were read, perhaps with the CR of their end.
    Count { command: Vec<u8>, digits: Vec<u8> },
    /// The number of bytes of input that are to come.
    Input(u64),
    /// The input has ended. The bytes that follow are ignored.
    Ended,
    /// The bytes were no valid request.
    Refused(Wrong),
}

type Step = (State, usize, Option<Found>);

impl Reader {
    /// Creates a reader for arguments of at most `longest` bytes altogether, with [`PER_ARGUMENT`] more counted for
    /// each. The shell and its option are counted as well.
    #[must_use]
    pub fn new(longest: usize) -> Self {
        let beside: usize = around(&[]).words().map(|argument| argument.len() + PER_ARGUMENT).sum();
        Reader {
            longest: longest.saturating_sub(beside),
            state: State::CommandLine(Vec::new()),
        }
    }

    /// Reads up to the next thing that is found, as [`request::Reader::advance`](super::request::Reader::advance).
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Found) {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let (state, taken, found) = match std::mem::replace(&mut self.state, State::Ended) {
                State::CommandLine(line) => self.command_line(line, rest),
                State::Count { command, digits } => count(command, digits, rest),
                State::Input(left) => input(left, rest, at),
                State::Ended => (State::Ended, rest.len(), Some(Found::NeedMore)),
                State::Refused(wrong) => (State::Refused(wrong), 0, Some(Found::Wrong(wrong))),
            };
            self.state = state;
            at += taken;
            if let Some(found) = found {
                return (at, found);
            }
        }
    }

    /// Returns true if the end of the input was read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The state of the request when the client has ended its side.
    #[must_use]
    pub fn end(&self) -> End {
        match &self.state {
            State::CommandLine(line) if line.is_empty() => End::Nothing,
            State::CommandLine(_) | State::Refused(_) => End::Unfinished,
            State::Count { command, .. } => End::Arguments(around(command)),
            State::Input(_) | State::Ended => End::Clean,
        }
    }

    fn command_line(&self, mut line: Vec<u8>, rest: &[u8]) -> Step {
        let (taken, complete) = grow(&mut line, rest, self.longest);
        if said(&line, complete).len() > self.longest {
            return refused(Wrong::ArgumentsTooLong);
        }
        match complete {
            false => (State::CommandLine(line), taken, Some(Found::NeedMore)),
            true if line.contains(&0) => refused(Wrong::Nul),
            true => {
                let digits = Vec::new();
                (State::Count { command: line, digits }, taken, None)
            }
        }
    }
}

/// Adds bytes to a line, which may have `longest` bytes. Returns the number of bytes taken, and true if the line is
/// complete: then its end is removed. A line that is too long is left with a few bytes too many, for the caller to
/// refuse.
fn grow(line: &mut Vec<u8>, rest: &[u8], longest: usize) -> (usize, bool) {
    // The end may lie on both sides of a cut.
    if line.ends_with(b"\r") && rest.first() == Some(&b'\n') {
        line.pop();
        return (1, true);
    }
    let room = (longest + CRLF.len() + 1).saturating_sub(line.len());
    let seen = rest.get(..room).unwrap_or(rest);
    match seen.windows(CRLF.len()).position(|two| two == CRLF) {
        Some(end) => {
            line.extend_from_slice(seen.get(..end).unwrap_or_default());
            (end + CRLF.len(), true)
        }
        None => {
            line.extend_from_slice(seen);
            (seen.len(), false)
        }
    }
}

/// Returns the bytes that belong to a line in any case: a CR that was read last may belong to its end.
fn said(line: &[u8], complete: bool) -> &[u8] {
    let open = line.strip_suffix(b"\r").filter(|_| !complete);
    open.unwrap_or(line)
}

fn count(command: Vec<u8>, mut digits: Vec<u8>, rest: &[u8]) -> Step {
    let (taken, complete) = grow(&mut digits, rest, LONGEST_COUNT);
    let mut number = 0_u64;
    // The digits are checked in their order, so that the first error does not depend on where the bytes are cut.
    for (place, byte) in said(&digits, complete).iter().enumerate() {
        if !byte.is_ascii_digit() {
            return refused(NO_COUNT);
        }
        number = number.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
        if number > LONGEST_INPUT || place >= LONGEST_COUNT {
            return refused(Wrong::InputTooLong);
        }
    }
    if complete {
        (State::Input(number), taken, Some(Found::Arguments(around(&command))))
    } else {
        (State::Count { command, digits }, taken, Some(Found::NeedMore))
    }
}

fn input(left: u64, rest: &[u8], at: usize) -> Step {
    if left == 0 {
        return (State::Ended, 0, Some(Found::InputEnd));
    }
    if rest.is_empty() {
        return (State::Input(left), 0, Some(Found::NeedMore));
    }
    let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    let found = Found::Input(at..at + taken);
    (State::Input(left - taken as u64), taken, Some(found))
}

fn refused(wrong: Wrong) -> Step {
    (State::Refused(wrong), 0, Some(Found::Wrong(wrong)))
}

/// The arguments with which the shell runs a command line.
fn around(command: &[u8]) -> Arguments {
    let mut arguments = Arguments::default();
    for word in [SHELL.as_bytes(), b"-c", command] {
        arguments.extend(word);
        arguments.end_word();
    }
    arguments.complete()
}

/// The output of a program, held until its end.
#[derive(Debug)]
pub struct Held {
    /// The number of bytes that may still be held.
    room: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    cut: bool,
}

/// The result of holding some output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// All of it is held.
    All,
    /// Part of it is lost, for the first time.
    Cut,
    /// Part of it is lost, as before.
    CutAgain,
}

impl Held {
    /// Creates room for `longest` bytes of both outputs together.
    #[must_use]
    pub const fn new(longest: usize) -> Self {
        Held {
            room: longest,
            stdout: Vec::new(),
            stderr: Vec::new(),
            cut: false,
        }
    }

    /// The number of bytes that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stdout.len() + self.stderr.len()
    }

    /// Returns true if no byte is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Holds some of a program's output, as much as fits.
    pub fn keep(&mut self, from: Output, bytes: &[u8]) -> Kept {
        let kept = bytes.get(..self.room).unwrap_or(bytes);
        match from {
            Output::Stdout => self.stdout.extend_from_slice(kept),
            Output::Stderr => self.stderr.extend_from_slice(kept),
        }
        self.room -= kept.len();
        match (kept.len() < bytes.len(), self.cut) {
            (false, _) => Kept::All,
            (true, true) => Kept::CutAgain,
            (true, false) => {
                self.cut = true;
                Kept::Cut
            }
        }
    }

    /// Appends the whole answer: the exit of the program, and the output, of which nothing is held afterwards.
    pub fn conclude(&mut self, outcome: Outcome, wire: &mut Vec<u8>) {
        if std::mem::take(&mut self.cut) {
            self.complain("the output is longer than --max-output, and was cut");
        }
        let status = match outcome {
            Outcome::Code(code) => code << 8,
            Outcome::Signal { number, core_dumped } => number | if core_dumped { 0x80 } else { 0 },
        };
        wire.extend_from_slice(format!("status:{status}\r\n").as_bytes());
        for output in [std::mem::take(&mut self.stdout), std::mem::take(&mut self.stderr)] {
            wire.extend_from_slice(format!("{}\r\n", output.len()).as_bytes());
            wire.extend_from_slice(&output);
        }
    }

    /// Appends the whole answer of a client that gets no program, or no exit status: the reason stands behind the
    /// standard error that is held.
    pub fn refuse(&mut self, why: &str, status: u8, wire: &mut Vec<u8>) {
        self.complain(why);
        self.conclude(Outcome::Code(status.into()), wire);
    }

    /// Adds a line of the door's own, beyond the limit.
    fn complain(&mut self, why: &str) {
        if self.stderr.last().is_some_and(|last| *last != b'\n') {
            self.stderr.push(b'\n');
        }
        self.stderr.extend_from_slice(format!("iotcpd: {why}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// For command lines of up to 9 bytes.
    const ROOM: usize = 9 + "/bin/sh-c".len() + 3 * PER_ARGUMENT;

    #[derive(Debug, Default, PartialEq, Eq, Clone)]
    struct Read {
        command: Option<Vec<u8>>,
        input: Vec<u8>,
        ended: bool,
        wrong: Option<Wrong>,
    }

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Read, End) {
        let (mut reader, mut read) = (Reader::new(ROOM), Read::default());
        'pieces: for piece in pieces {
            let mut rest = piece;
            loop {
                let (taken, found) = reader.advance(rest);
                match found {
                    Found::NeedMore => {
                        assert_eq!(taken, rest.len(), "what is read is taken");
                        break;
                    }
                    Found::Arguments(arguments) => {
                        assert_eq!(read.command.replace(command_in(&arguments)), None, "twice");
                    }
                    Found::Input(range) => read.input.extend_from_slice(&rest[range]),
                    Found::InputEnd => assert!(!std::mem::replace(&mut read.ended, true), "ended twice"),
                    Found::Signal(signal) => panic!("this protocol has no signal {signal}"),
                    Found::Wrong(wrong) => {
                        read.wrong = Some(wrong);
                        break 'pieces;
                    }
                }
                rest = &rest[taken..];
            }
        }
        (read, reader.end())
    }

    fn command_in(arguments: &Arguments) -> Vec<u8> {
        let words: [&[u8]; 3] = arguments.words().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(words[..2], [&b"/bin/sh"[..], b"-c"]);
        words[2].to_vec()
    }

    #[test]
    fn a_request_is_read_at_every_split_point() {
        let request = b"a\rb\nc \r\r\n007\r\n12345\r\nwhat follows";
        let whole = Read {
            command: Some(b"a\rb\nc \r".to_vec()),
            input: b"12345\r\n".to_vec(),
            ended: true,
            wrong: None,
        };
        for cut in 0..=request.len() {
            let (left, right) = request.split_at(cut);
            assert_eq!(read([left, right]), (whole.clone(), End::Clean), "{cut}");
        }
        assert_eq!(read(request.chunks(1)), (whole, End::Clean));
    }

    #[test]
    fn without_input_the_program_is_told_at_once() {
        let (read, end) = read([&b"uptime\r\n0\r\n"[..]]);
        assert_eq!(
            (read.command, read.ended, end),
            (Some(b"uptime".to_vec()), true, End::Clean)
        );
    }

    #[test]
    fn a_malformed_request_is_refused() {
        for (text, wrong) in [
            (&b"0123456789\r\n"[..], Wrong::ArgumentsTooLong),
            (b"0123456789\r", Wrong::ArgumentsTooLong),
            (b"0123456789", Wrong::ArgumentsTooLong),
            (b"a\0\r\n", Wrong::Nul),
            (b"a\r\n1099511627777\r\n", Wrong::InputTooLong),
            (b"a\r\n99999999999999999999999999", Wrong::InputTooLong),
            (b"a\r\n000000000000000000001\r\n", Wrong::InputTooLong),
        ] {
            assert_eq!(read([text]).0.wrong, Some(wrong), "{text:?}");
            assert_eq!(read(text.chunks(1)).0.wrong, Some(wrong), "{text:?}");
        }
        for text in [
            &b"a\r\nx"[..],
            b"a\r\n1 \r\n",
            b"a\r\n-1\r\n",
            b"a\r\n1\n",
            b"a\r\n1\rx",
        ] {
            let wrong = read(text.chunks(1)).0.wrong;
            assert!(matches!(wrong, Some(Wrong::Malformed(_))), "{text:?}: {wrong:?}");
        }
        let (longest, end) = read([&b"012345678\r\n"[..]]);
        assert!(longest.wrong.is_none() && matches!(end, End::Arguments(_)), "{end:?}");
    }

    #[test]
    fn a_client_that_ends_its_side_ends_the_input() {
        for (text, end) in [
            (&b""[..], End::Nothing),
            (b"a", End::Unfinished),
            (b"a\r", End::Unfinished),
            (b"a\r\n5\r\n", End::Clean),
            (b"a\r\n5\r\nabc", End::Clean),
            (b"a\r\n5\r\nabcde", End::Clean),
        ] {
            assert_eq!(read([text]).1, end, "{text:?}");
        }
    }

    #[test]
    fn a_missing_count_is_zero() {
        let (empty, _) = read([&b"a\r\n\r\nwhat follows"[..]]);
        assert_eq!(
            (empty.command, empty.input, empty.ended, empty.wrong),
            (Some(b"a".to_vec()), Vec::new(), true, None)
        );
        for text in [&b"a\r\n"[..], b"a\r\n\r", b"a\r\n5", b"a\r\n5\r"] {
            let (read, end) = read(text.chunks(1));
            assert_eq!((read.command, read.wrong), (None, None), "{text:?}");
            let End::Arguments(arguments) = end else {
                panic!("{text:?}: {end:?}")
            };
            assert_eq!(command_in(&arguments), b"a");
        }
    }

    fn concluded(outcome: Outcome, output: &[(Output, &[u8])], longest: usize) -> String {
        let (mut held, mut wire) = (Held::new(longest), Vec::new());
        for (from, bytes) in output {
            held.keep(*from, bytes);
        }
        held.conclude(outcome, &mut wire);
        assert!(held.is_empty());
        String::from_utf8(wire).unwrap()
    }

    #[test]
    fn counts_come_before_what_they_count_and_streams_keep_their_order() {
        let output = [
            (Output::Stdout, &b"one "[..]),
            (Output::Stderr, b"ouch"),
            (Output::Stdout, b"two"),
        ];
        assert_eq!(
            concluded(Outcome::Code(0), &output, 11),
            "status:0\r\n7\r\none two4\r\nouch"
        );
    }

    #[test]
    fn the_status_is_that_of_waitpid() {
        let signal = |number, core_dumped| Outcome::Signal { number, core_dumped };
        for (outcome, status) in [
            (Outcome::Code(127), 32512),
            (Outcome::Code(100), 25600),
            (signal(9, false), 9),
            (signal(11, true), 139),
        ] {
            assert_eq!(concluded(outcome, &[], 0), format!("status:{status}\r\n0\r\n0\r\n"));
        }
    }

    #[test]
    fn output_over_the_limit_is_cut_and_the_client_is_told() {
        let mut held = Held::new(5);
        let kept = [b"abcd", b"efgh", b"ijkl"].map(|bytes| held.keep(Output::Stdout, bytes));
        assert_eq!(kept, [Kept::All, Kept::Cut, Kept::CutAgain]);
        assert_eq!(held.len(), 5);
        let mut wire = Vec::new();
        held.conclude(Outcome::Code(0), &mut wire);
        let line = "iotcpd: the output is longer than --max-output, and was cut\n";
        let expected = format!("status:0\r\n5\r\nabcde{}\r\n{line}", line.len());
        assert_eq!(String::from_utf8(wire).unwrap(), expected);
    }

    #[test]
    fn a_refusal_stands_on_a_line_of_its_own() {
        let (mut held, mut wire) = (Held::new(9), Vec::new());
        held.keep(Output::Stderr, b"half");
        held.refuse("no", 100, &mut wire);
        assert_eq!(wire, b"status:25600\r\n0\r\n16\r\nhalf\niotcpd: no\n");
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_matter(
            stream in "[a\r\n\0]{0,11}(\r\n)?[0-9\r]{0,3}(\r\n)?[a\r\n]{0,9}",
            cuts in proptest::collection::vec(1usize..5, 1..40),
        ) {
            let stream = stream.as_bytes();
            let mut pieces = Vec::new();
            let (mut rest, mut cuts) = (stream, cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, others) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                pieces.push(piece);
                rest = others;
            }
            let whole = read([stream]);
            prop_assert!(whole.0.command.iter().all(|command| command.len() <= 9));
            prop_assert_eq!(read(pieces), whole);
        }
    }
}
