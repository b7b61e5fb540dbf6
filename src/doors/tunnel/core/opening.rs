//! The choice of the local service of a stream, by its first bytes.

/// The first byte of a TLS handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;
/// The beginnings of the two versions of the PROXY header.
const HEADER_1: &[u8] = b"PROXY ";
const HEADER_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of a header of version 2 without its body.
const FIXED_2: usize = 16;
/// The longest header of version 1, its end included.
const LONGEST_1: usize = 107;

/// One of the two local services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// The one for TLS.
    Tls,
    /// The one for everything else.
    Plain,
}

/// Returns the service by the bytes that have come so far; `None` if more are needed. A header of the PROXY protocol in
/// front does not count: the byte behind it decides.
pub fn choose(bytes: &[u8]) -> Option<Local> {
    let behind = behind_header(bytes)?;
    Some(match *behind.first()? {
        HANDSHAKE => Local::Tls,
        0..=0x15 | 0x17.. => Local::Plain,
    })
}

/// Returns the bytes behind a header, or all of them if there is none; `None` if the header is not complete.
fn behind_header(bytes: &[u8]) -> Option<&[u8]> {
    let may_become = |header: &[u8]| bytes.len() < header.len() && header.starts_with(bytes) && !bytes.is_empty();
    if let Some(rest) = bytes.strip_prefix(HEADER_1) {
        return match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => rest.get(end + 1..),
            // None of that length is one.
            None if bytes.len() > LONGEST_1 => Some(bytes),
            None => None,
        };
    }
    if bytes.starts_with(HEADER_2) {
        let length = bytes.get(FIXED_2 - 2..FIXED_2)?.first_chunk::<2>()?;
        let end = FIXED_2 + usize::from(u16::from_be_bytes(*length));
        return bytes.get(end..);
    }
    if may_become(HEADER_1) || may_become(HEADER_2) {
        return None;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_behind_a_header_chooses_at_every_split() {
        let binary = [HEADER_2, &[0x21, 0x11, 0, 12], &[9; 12]].concat();
        for (header, behind, expected) in [
            (&b""[..], &b"\x16\x03\x01"[..], Local::Tls),
            (b"", b"GET / HTTP/1.1", Local::Plain),
            (b"", b"P", Local::Plain),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"\x16\x03", Local::Tls),
            (b"PROXY UNKNOWN\r\n", b"POST", Local::Plain),
            (&binary, b"\x16\x03", Local::Tls),
            (&binary, b"\r\n", Local::Plain),
        ] {
            let all = [header, behind].concat();
            let needed = header.len() + 1;
            for length in 0..all.len() {
                let found = choose(&all[..length]);
                if length < needed {
                    assert_eq!(found, None, "{length} of {}", all.escape_ascii());
                } else if behind != b"P" {
                    assert!(found.is_none() || found == Some(expected));
                }
            }
            if behind.len() > 1 {
                assert_eq!(choose(&all), Some(expected), "{}", all.escape_ascii());
            }
        }
        // A method that begins like a header is told from it by its second letter.
        assert_eq!((choose(b"P"), choose(b"PO")), (None, Some(Local::Plain)));
        assert_eq!((choose(b"\r\n"), choose(b"\r\nG")), (None, Some(Local::Plain)));
        let endless = [HEADER_1, &[b'x'; LONGEST_1]].concat();
        assert_eq!(choose(&endless), Some(Local::Plain));
    }
}
