//! What a client is told: pairs of netstrings, a type and its data.

use crate::framing::netstring::{END, begin, encode};
use crate::framing::signals;

/// The status that a refusal ends with: the door's own word, as of env(1), nohup(1) and timeout(1), and hardly a program's.
pub const REFUSED: u8 = 125;
/// What a shell ends with when it finds the program but cannot run it.
pub const CANNOT_RUN: u8 = 126;
/// What a shell ends with when there is no such program.
pub const NOT_FOUND: u8 = 127;

/// Which of a program's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a program has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has exited with this code, 0 to 255.
    Code(i32),
    /// A signal has ended it.
    Signal {
        /// The signal's number.
        number: i32,
        /// Whether it left a core dump.
        core_dumped: bool,
    },
}

/// Appends how a program has ended.
pub fn conclude(outcome: Outcome, wire: &mut Vec<u8>) {
    match outcome {
        Outcome::Code(code) => exit_code(code, wire),
        Outcome::Signal { number, .. } => term_signal(number, wire),
    }
}

/// Appends some of a program's output. It is never empty.
pub fn output(from: Output, bytes: &[u8], wire: &mut Vec<u8>) {
    let behind = around_output(from, bytes.len(), wire);
    wire.extend_from_slice(bytes);
    wire.extend_from_slice(behind);
}

/// Appends what stands before so many bytes of a program's output; what stands behind them.
pub fn around_output(from: Output, length: usize, before: &mut Vec<u8>) -> &'static [u8] {
    let kind: &[u8] = match from {
        Output::Stdout => b"stdout",
        Output::Stderr => b"stderr",
    };
    encode(kind, before);
    begin(length, before);
    END
}

/// Appends the end of a program that has exited.
fn exit_code(code: i32, wire: &mut Vec<u8>) {
    pair(b"exitcode", code.to_string().as_bytes(), wire);
}

/// Appends the end of a program that a signal has ended: its name without SIG, or its number where it has none.
fn term_signal(number: i32, wire: &mut Vec<u8>) {
    match signals::name_of(number) {
        Some(name) => pair(b"termsig", name.as_bytes(), wire),
        None => pair(b"termsig", number.to_string().as_bytes(), wire),
    }
}

/// Appends why there is no program, or none any more: a line on standard error, then a status.
pub fn refusal(why: &str, status: u8, wire: &mut Vec<u8>) {
    pair(b"stderr", format!("iotcpd: {why}\n").as_bytes(), wire);
    exit_code(status.into(), wire);
}

fn pair(kind: &[u8], data: &[u8], wire: &mut Vec<u8>) {
    encode(kind, wire);
    encode(data, wire);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_as_existing_clients_read_them() {
        let mut wire = Vec::new();
        output(Output::Stdout, b"hello", &mut wire);
        output(Output::Stderr, b"a,\n", &mut wire);
        exit_code(0, &mut wire);
        assert_eq!(wire, b"6:stdout,5:hello,6:stderr,3:a,\n,8:exitcode,1:0,");
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
