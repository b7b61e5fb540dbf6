//! The replies to a client, in the words of torcd where it has any.

use super::event::Refusal;

/// The prompt for the next argument.
pub const PROMPT: &[u8] = b"torcd>";

/// Appends the reason for which the client gets no program, or no more output of one. `name` is the command that it has
/// asked for.
pub fn refusal(name: &[u8], refusal: &Refusal, wire: &mut Vec<u8>) {
    wire.extend_from_slice(b"torcd: ");
    // torcd says these two in the same words, to the byte.
    if *refusal == Refusal::Busy {
        return wire.extend_from_slice(b"busy");
    }
    if *refusal == Refusal::NotFound {
        wire.extend_from_slice(name);
        return wire.extend_from_slice(b":Not found!\n");
    }
    if !name.is_empty() {
        wire.extend_from_slice(name);
        wire.extend_from_slice(b": ");
    }
    wire.extend_from_slice(refusal.to_string().as_bytes());
    wire.push(b'\n');
}

/// Appends the names of all commands, a line each.
pub fn list<'n>(names: impl Iterator<Item = &'n [u8]>, wire: &mut Vec<u8>) {
    for name in names {
        wire.extend_from_slice(name);
        wire.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, why: &Refusal) -> String {
        let mut wire = Vec::new();
        refusal(name.as_bytes(), why, &mut wire);
        String::from_utf8(wire).unwrap()
    }

    #[test]
    fn refusals_that_torcd_has_are_in_its_words() {
        assert_eq!(told("echo", &Refusal::Busy), "torcd: busy");
        assert_eq!(told("nonsense", &Refusal::NotFound), "torcd: nonsense:Not found!\n");
    }

    #[test]
    fn refusals_that_torcd_does_not_have_are_lines_like_its_own() {
        let why = Refusal::Argument {
            number: 2,
            why: "has to be a whole number from 1 to 100".to_owned(),
        };
        assert_eq!(
            told("echo", &why),
            "torcd: echo: argument 2 has to be a whole number from 1 to 100\n"
        );
        assert_eq!(told("", &Refusal::Stop), "torcd: the server is shutting down\n");
        let mut wire = Vec::new();
        list([&b"a"[..], b"b"].into_iter(), &mut wire);
        assert_eq!(wire, b"a\nb\n");
    }
}
