//! The handshake of a tunnel client: its first stream, which brings the secret of the services that it serves.
//!
//! ```text
//! 0x11 0x11 | length of the secret, two bytes, big-endian | the secret | whatever follows is passed over
//! ```
//!
//! It may come in any pieces, and is refused at the first byte that is wrong. Which secrets are known does not belong here
//! (`secrets`).

use std::fmt;

use super::secrets::{LONGEST_SECRET, Secret};

/// The bytes that every handshake begins with.
const MAGIC: [u8; 2] = [0x11, 0x11];

/// The length of the part in front of the secret.
const PREFIX: usize = 4;

/// The reason for which a handshake is refused. It prints the end of a sentence that begins with the client, without the
/// secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not begin as a handshake does.
    Magic,
    /// The secret has no bytes.
    Empty,
    /// The secret has more than [`LONGEST_SECRET`] bytes: this many.
    TooLong(u16),
    /// The stream has ended before the secret was complete.
    Short,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Magic => f.write_str("its first stream does not begin as that of a tunnel client does"),
            Fault::Empty => f.write_str("it has an empty secret"),
            Fault::TooLong(length) => {
                write!(f, "its secret has {length} bytes, and the longest has {LONGEST_SECRET}")
            }
            Fault::Short => f.write_str("its first stream has ended before its secret was complete"),
        }
    }
}

/// A handshake of which the beginning has come.
#[derive(Debug, Default)]
pub struct Handshake {
    /// At most [`PREFIX`] and [`LONGEST_SECRET`] bytes.
    bytes: Hidden,
}

/// Bytes that are not shown.
#[derive(Default)]
struct Hidden(Vec<u8>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Handshake {
    /// Takes in the next bytes of the first stream. Returns the secret once it is complete; later bytes are passed over by
    /// the caller. Must not be called after an outcome.
    ///
    /// # Errors
    /// The fault in the handshake.
    pub fn take(&mut self, piece: &[u8]) -> Result<Option<Secret>, Fault> {
        let Hidden(bytes) = &mut self.bytes;
        let room = (PREFIX + LONGEST_SECRET).saturating_sub(bytes.len());
        bytes.extend_from_slice(piece.get(..room).unwrap_or(piece));
        let begins = bytes.iter().zip(&MAGIC).all(|(byte, magic)| byte == magic);
        if !begins {
            return Err(Fault::Magic);
        }
        let Some(([_, _, high, low], rest)) = bytes.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u16::from_be_bytes([*high, *low]);
        match usize::from(length) {
            0 => Err(Fault::Empty),
            LONGEST_SECRET.. if usize::from(length) > LONGEST_SECRET => Err(Fault::TooLong(length)),
            length => Ok(rest.get(..length).and_then(Secret::new)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(secret: &[u8]) -> Vec<u8> {
        let length = u16::try_from(secret.len()).unwrap().to_be_bytes();
        [&MAGIC[..], &length, secret].concat()
    }

    /// Gives a handshake these pieces until there is an outcome.
    fn taken<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Secret>, Fault> {
        let mut handshake = Handshake::default();
        for piece in pieces {
            match handshake.take(piece) {
                Ok(None) => {}
                outcome => return outcome,
            }
        }
        Ok(None)
    }

    #[test]
    fn a_handshake_is_the_same_however_it_is_split() {
        let bytes = [&written(b"TB2pbZ5FR8GQZp9W")[..], b"what follows"].concat();
        let secret = Secret::new(b"TB2pbZ5FR8GQZp9W");
        for at in 0..=bytes.len() {
            let (one, two) = bytes.split_at(at);
            assert_eq!(taken([one, two]), Ok(secret.clone()), "split at {at}");
        }
        assert_eq!(taken(bytes.chunks(1)), Ok(secret));
    }

    #[test]
    fn a_handshake_without_its_last_byte_is_not_complete() {
        let bytes = written(b"secret");
        for length in 0..bytes.len() {
            assert_eq!(taken([&bytes[..length]]), Ok(None), "{length} bytes");
        }
    }

    #[test]
    fn a_wrong_handshake_is_refused_at_its_first_wrong_byte() {
        for (bytes, fault) in [
            (&b"\x12"[..], Fault::Magic),
            (b"\x11\x12", Fault::Magic),
            (b"GET / HTTP/1.1\r\n", Fault::Magic),
            (b"\x11\x11\0\0", Fault::Empty),
            (b"\x11\x11\x10\x01", Fault::TooLong(4_097)),
            (b"\x11\x11\xff\xff", Fault::TooLong(65_535)),
        ] {
            assert_eq!(taken([bytes]), Err(fault), "{bytes:?}");
            let before = &bytes[..bytes.len() - 1];
            if fault != Fault::Magic {
                assert_eq!(taken([before]), Ok(None), "{before:?}");
            }
        }
    }

    #[test]
    fn the_longest_secret_is_taken() {
        let longest = vec![7; LONGEST_SECRET];
        assert_eq!(taken([&written(&longest)[..]]), Ok(Secret::new(&longest)));
        assert_eq!(Secret::new(&[]), None);
        assert_eq!(Secret::new(&vec![7; LONGEST_SECRET + 1]), None);
    }

    #[test]
    fn the_beginning_of_a_secret_is_shown_nowhere() {
        let mut handshake = Handshake::default();
        let bytes = written(b"hidden");
        assert_eq!(handshake.take(&bytes[..bytes.len() - 1]), Ok(None));
        let shown = format!("{handshake:?}");
        assert!(!shown.contains("hidde") && !shown.contains("104"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_bytes_take_more_memory_than_the_longest_handshake(pieces: Vec<Vec<u8>>, is_begun: bool) {
            let mut handshake = Handshake::default();
            let begin = if is_begun { &b"\x11\x11\x10\0"[..] } else { b"" };
            for piece in std::iter::once(begin).chain(pieces.iter().map(Vec::as_slice)) {
                let _ = handshake.take(piece);
                prop_assert!(handshake.bytes.0.len() <= PREFIX + LONGEST_SECRET);
            }
        }
    }
}
