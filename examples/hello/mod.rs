//! ClientHellos without cryptography, for the reference router and its load: one is written with a name and a length, and
//! the name is read from one that has come whole.
//!
//! Both are the least that the comparison needs. A hello split over records, for example, has no name here.

/// The bytes in front of the handshake's body: the header of the record, and that of the message.
const HEADERS: usize = 5 + 4;

/// Writes a hello that asks for this name, in one record of this number of bytes, or of a few more if they are too few.
#[allow(dead_code, reason = "the router writes none")]
pub(crate) fn write(name: &str, length: usize) -> Vec<u8> {
    let mut body = vec![3, 3];
    // The random bytes, and a session id of 32 bytes as for middleboxes.
    body.extend((0..32).map(|number: u8| number.wrapping_mul(91)));
    body.push(32);
    body.extend((0..32).map(|number: u8| number.wrapping_mul(77)));
    // TLS_AES_128_GCM_SHA256 and no compression.
    body.extend([0, 2, 0x13, 0x01, 1, 0]);
    let mut extensions = Vec::new();
    let entry = with_length(name.as_bytes(), 2);
    extension(&mut extensions, 0, &with_length(&[&[0][..], &entry].concat(), 2));
    // supported_versions: TLS 1.3.
    extension(&mut extensions, 43, &[2, 3, 4]);
    let padding = length.saturating_sub(HEADERS + body.len() + 2 + extensions.len() + 4);
    extension(&mut extensions, 21, &vec![0; padding]);
    body.extend(with_length(&extensions, 2));
    let message = [&[1][..], &with_length(&body, 3)].concat();
    [&[22, 3, 1][..], &with_length(&message, 2)].concat()
}

fn extension(to: &mut Vec<u8>, kind: u16, content: &[u8]) {
    to.extend(kind.to_be_bytes());
    to.extend(with_length(content, 2));
}

/// The bytes behind their number, which takes `digits` bytes.
fn with_length(bytes: &[u8], digits: usize) -> Vec<u8> {
    let length = bytes.len().to_be_bytes();
    [length.get(length.len() - digits..).unwrap_or_default(), bytes].concat()
}

/// The contents of a hello.
#[derive(Debug, PartialEq)]
#[allow(dead_code, reason = "the load has its own hellos")]
pub(crate) enum Found<'a> {
    /// It has not come whole.
    More,
    /// The name that it asks for, if it does.
    Name(Option<&'a str>),
}

/// Reads the name from a hello in one record.
#[allow(dead_code, reason = "not for everyone")]
pub(crate) fn read(bytes: &[u8]) -> Found<'_> {
    let Some((header, rest)) = bytes.split_at_checked(5) else {
        return Found::More;
    };
    let length = number(header.get(3..).unwrap_or_default());
    match rest.get(..length) {
        Some(message) if header.starts_with(&[22, 3]) => Found::Name(name_in(message)),
        None if header.starts_with(&[22, 3]) => Found::More,
        _ => Found::Name(None),
    }
}

fn name_in(message: &[u8]) -> Option<&str> {
    // The headers of the message, the version and the random bytes.
    let mut rest = message.strip_prefix(&[1])?.get(3 + 2 + 32..)?;
    take(&mut rest, 1)?;
    take(&mut rest, 2)?;
    take(&mut rest, 1)?;
    let mut extensions = take(&mut rest, 2)?;
    while let Some((kind, behind)) = extensions.split_at_checked(2) {
        extensions = behind;
        let mut content = take(&mut extensions, 2)?;
        if kind == [0, 0] {
            let mut list = take(&mut content, 2)?.strip_prefix(&[0])?;
            return std::str::from_utf8(take(&mut list, 2)?).ok();
        }
    }
    None
}

/// Takes the bytes behind their number.
fn take<'a>(from: &mut &'a [u8], digits: usize) -> Option<&'a [u8]> {
    let (length, rest) = from.split_at_checked(digits)?;
    let (taken, rest) = rest.split_at_checked(number(length))?;
    *from = rest;
    Some(taken)
}

fn number(digits: &[u8]) -> usize {
    digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit))
}
