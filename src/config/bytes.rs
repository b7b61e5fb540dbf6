//! Any bytes as text, and back.
//!
//! A torc.cfg may be older than UTF-8: a comment, a name or a path in it may hold any byte. Where a text is expected each byte
//! that is no part of a character stands as a private character of its own, and becomes that byte again where bytes are
//! wanted.
//!
//! What holds: [`bytes`] of [`text`] are the bytes that it was made of, whatever those were.

use std::borrow::Cow;

/// The character of byte `b` is this one and `b`. Private to whoever uses it (plane 16), and in no file that anybody writes.
const BASE: u32 = 0x10_FF00;
const FIRST: char = '\u{10FF80}';
const LAST: char = '\u{10FFFF}';

/// The text that stands for these bytes; borrowed where they are text.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        // Nearly all files are; the others are looked through.
        Ok(text) if text.is_ascii() || !text.contains(is_private) => Cow::Borrowed(text),
        _ => {
            let mut text = String::with_capacity(bytes.len());
            for chunk in bytes.utf8_chunks() {
                for character in chunk.valid().chars() {
                    if is_private(character) {
                        let mut buffer = [0; 4];
                        text.extend(character.encode_utf8(&mut buffer).bytes().map(private));
                    } else {
                        text.push(character);
                    }
                }
                text.extend(chunk.invalid().iter().copied().map(private));
            }
            Cow::Owned(text)
        }
    }
}

/// The bytes that a text stands for.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match u8::try_from(u32::from(character).wrapping_sub(BASE)) {
            Ok(byte) if is_private(character) => bytes.push(byte),
            _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

fn is_private(character: char) -> bool {
    (FIRST..=LAST).contains(&character)
}

/// Only bytes over 0x7f are no character by themselves.
fn private(byte: u8) -> char {
    char::from_u32(BASE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_text() {
        for word in ["", "plain", "Grüße", "\u{ffff}\u{10fffd}"] {
            assert_eq!(bytes(&text(word.as_bytes())), word.as_bytes());
        }
        assert!(matches!(text("Grüße".as_bytes()), Cow::Borrowed(_)));
        assert_eq!(bytes(&text(b"caf\xe9 \xff")), b"caf\xe9 \xff");
    }

    proptest! {
        #[test]
        fn all_bytes_come_back(all in proptest::collection::vec(any::<u8>(), 0..40), private in any::<bool>()) {
            let all = if private { [&all, "\u{10ff80}".as_bytes(), &all].concat() } else { all };
            prop_assert_eq!(bytes(&text(&all)), all);
        }
    }
}
