//! What a client is told, in the words of torcd where it has any.

use super::event::Refusal;

/// Asks for the next argument.
pub const PROMPT: &[u8] = b"torcd>";

/// Appends why there is no program, or no more of one. `name` is what the client has asked for.
pub fn refusal(name: &[u8], refusal: &Refusal, wire: &mut Vec<u8>) {
    wire.extend_from_slice(b"torcd: ");
    // These two as torcd says them, to the byte.
    match refusal {
        Refusal::Busy => return wire.extend_from_slice(b"busy"),
        Refusal::NotFound => {
            wire.extend_from_slice(name);
            return wire.extend_from_slice(b":Not found!\n");
        }
        _ => {}
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
    fn what_torcd_says_is_said_as_it_says_it() {
        assert_eq!(told("echo", &Refusal::Busy), "torcd: busy");
        assert_eq!(told("nonsense", &Refusal::NotFound), "torcd: nonsense:Not found!\n");
    }

    #[test]
    fn what_it_does_not_say_is_said_likewise() {
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
