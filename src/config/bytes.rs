//! Any bytes as text, and back.
//!
//! A torc.cfg may be older than UTF-8: a comment, a name or a path in it may hold any byte. Where a text is expected,
//! each byte that is not part of a UTF-8 character is represented by a private character of its own, which becomes that
//! byte again where bytes are expected.
//!
//! Invariant: [`bytes`] of [`text`] returns the original bytes, for any bytes.

use std::borrow::Cow;

/// The private character for byte `b` is this number plus `b`. The characters are for private use (plane 16), and in
/// practice no file holds them.
const BASE: u32 = 0x10_FF00;
const FIRST: char = '\u{10FF80}';
const LAST: char = '\u{10FFFF}';

/// Returns the text that represents these bytes; borrowed if they are plain text.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        // Nearly all files are ASCII; only the other ones are searched.
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

/// Returns the bytes that a text represents.
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

/// Returns the private character for a byte. Only bytes above 0x7f can be invalid by themselves.
fn private(byte: u8) -> char {
    char::from_u32(BASE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_text_is_unchanged() {
        for word in ["", "plain", "Grüße", "\u{ffff}\u{10fffd}"] {
            assert_eq!(bytes(&text(word.as_bytes())), word.as_bytes());
        }
        assert!(matches!(text("Grüße".as_bytes()), Cow::Borrowed(_)));
        assert_eq!(bytes(&text(b"caf\xe9 \xff")), b"caf\xe9 \xff");
    }

    proptest! {
        #[test]
        fn any_bytes_are_restored(all in proptest::collection::vec(any::<u8>(), 0..40), private in any::<bool>()) {
            let all = if private { [&all, "\u{10ff80}".as_bytes(), &all].concat() } else { all };
            prop_assert_eq!(bytes(&text(&all)), all);
        }
    }
}
