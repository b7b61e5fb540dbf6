//! The greeting of a tunnel client: the first and only bytes of its first stream (protocols.md §5).

/// The number in front.
const MAGIC: u16 = 0x1111;

/// Returns the greeting with this secret: the number, the length of the secret, and the secret. `None` if the secret is too
/// long for its length.
pub fn greeting(secret: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(secret.len()).ok()?;
    Some([&MAGIC.to_be_bytes(), &length.to_be_bytes(), secret].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_that_of_the_original() {
        assert_eq!(greeting(b"TB2").as_deref(), Some(&b"\x11\x11\0\x03TB2"[..]));
        assert_eq!(greeting(&[7; 65_536]), None);
    }
}
