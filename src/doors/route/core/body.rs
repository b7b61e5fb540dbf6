//! The body of an HTTP/1 message: where it ends.
//!
//! ```text
//! Content-Length: 5          that number of bytes
//! Transfer-Encoding: chunked
//!
//! 5;extension\r\n            a size in hexadecimal digits, and an extension or none
//! hello\r\n
//! 0\r\n                      the last size
//! Name: value\r\n            trailers or none
//! \r\n
//! ```
//!
//! Two programs that find different ends in the same bytes take a part of one message for another message: a request is
//! smuggled past the router. So everything is refused that some program reads in another way: both headers, either of
//! them twice, another coding than `chunked`, a sign or a blank in a length, a control character in the line of a size,
//! and trailers that say a length. The sizes are read by `httparse`, which alone would take an empty line for the last
//! size.
//!
//! [`Body`] is pure and holds no bytes: it is asked how many of the bytes that are held belong to the body, and these
//! are passed on as they are. A line that is not complete is held until it is, at most [`LONGEST_LINE`] bytes of it.

use std::fmt;

use super::head;

/// The longest line with the size of a chunk, in bytes.
pub const LONGEST_LINE: usize = 1 << 10;
/// The most trailers.
const MOST_TRAILERS: usize = 32;
/// The longest body and the longest chunk: the largest number that every program holds exactly.
const LONGEST: u64 = 1 << 53;

const LINE_END: &[u8] = b"\r\n";

/// The way in which the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The body has this number of bytes, or is absent.
    Length(u64),
    /// The body is cut into chunks.
    Chunked,
    /// Neither is said.
    Unsaid,
}

/// A fault in the framing of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both headers are there, or one of them twice.
    Ambiguous,
    /// The length is not a number in digits, or too large.
    Length,
    /// A coding other than `chunked`, or one in HTTP/1.0.
    Coding,
    /// The size of a chunk is malformed or too large, or its line is too long.
    Size,
    /// No end of line is behind a chunk.
    ChunkEnd,
    /// The trailers are malformed.
    Trailers,
}

/// Writes the fault as the end of a sentence that begins "its request" or "its answer".
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Ambiguous => "says the length of its body twice",
            Fault::Length => "has a Content-Length that is no number",
            Fault::Coding => "has a Transfer-Encoding other than chunked",
            Fault::Size => "has a chunk with a malformed size",
            Fault::ChunkEnd => "has a chunk without an end of line behind it",
            Fault::Trailers => "has malformed trailers",
        })
    }
}

/// Returns the way in which these headers tell the end of the body.
pub fn framing(headers: &[httparse::Header<'_>], minor_version: u8) -> Result<Framing, Fault> {
    let (mut length, mut coding) = (None, None);
    for header in headers {
        let place = match said_by(header.name) {
            Said::Length => &mut length,
            Said::Coding => &mut coding,
            Said::Unclear => return Err(Fault::Ambiguous),
            Said::Nothing => continue,
        };
        if place.replace(header.value).is_some() {
            return Err(Fault::Ambiguous);
        }
    }
    match (length, coding) {
        (None, None) => Ok(Framing::Unsaid),
        (Some(digits), None) => number(digits).map(Framing::Length).ok_or(Fault::Length),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") && minor_version > 0 => Ok(Framing::Chunked),
        (None, Some(_)) => Err(Fault::Coding),
        (Some(_), Some(_)) => Err(Fault::Ambiguous),
    }
}

/// The meaning of a header for the end of a body.
#[derive(PartialEq, Eq)]
enum Said {
    Length,
    Coding,
    /// Some programs compare only the letters of a name.
    Unclear,
    Nothing,
}

fn said_by(name: &str) -> Said {
    let is_like = |other: &str| {
        let same = |(one, other): (u8, u8)| one.eq_ignore_ascii_case(&other) || (one, other) == (b'_', b'-');
        name.len() == other.len() && name.bytes().zip(other.bytes()).all(same)
    };
    match (
        is_like("Content-Length"),
        is_like("Transfer-Encoding"),
        name.contains('_'),
    ) {
        (true, _, false) => Said::Length,
        (_, true, false) => Said::Coding,
        (true, _, true) | (_, true, true) => Said::Unclear,
        (false, false, _) => Said::Nothing,
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    text.parse().ok().filter(|number| *number <= LONGEST)
}

/// The rest of a body.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    /// This number of bytes; 0 if the body has ended.
    Length(u64),
    /// The line with the size of a chunk.
    Size,
    /// This number of bytes of a chunk, and the end of line behind it.
    Chunk(u64),
    /// The trailers, or the empty line in place of them.
    Trailers(head::Progress),
    /// All bytes until the connection ends.
    UntilClose,
}

impl Body {
    /// The end of a body.
    pub const ENDED: Body = Body::Length(0);

    /// Returns true if nothing of the body is left.
    pub fn is_ended(&self) -> bool {
        matches!(self, Body::Length(0))
    }

    /// Returns the number of these bytes that belong to the body, and goes on behind them. Must be called with all
    /// bytes that are held, the rest of the call before first. A fault is final, and is found when its bytes are the
    /// first.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            match self.step(rest) {
                Ok(count @ 1..) => taken += count,
                Err(fault) if taken == 0 => return Err(fault),
                Ok(_) | Err(_) => return Ok(taken),
            }
        }
    }

    /// Takes the next piece: a complete line, or data. Returns its length; 0 if none is there.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        match self {
            Body::UntilClose => Ok(bytes.len()),
            Body::Length(left) => Ok(count_down(left, bytes)),
            Body::Chunk(0) => match bytes.get(..LINE_END.len()) {
                Some(LINE_END) => {
                    *self = Body::Size;
                    Ok(LINE_END.len())
                }
                None if LINE_END.starts_with(bytes) => Ok(0),
                Some(_) | None => Err(Fault::ChunkEnd),
            },
            Body::Chunk(left) => Ok(count_down(left, bytes)),
            Body::Size => match size(bytes)? {
                None => Ok(0),
                Some((length, size)) => {
                    *self = if size == 0 {
                        Body::Trailers(head::Progress::default())
                    } else {
                        Body::Chunk(size)
                    };
                    Ok(length)
                }
            },
            Body::Trailers(progress) => match progress.find_end(bytes).map_err(|_| Fault::Trailers)? {
                None => Ok(0),
                Some(trailers) => {
                    check_trailers(trailers)?;
                    *self = Body::ENDED;
                    Ok(trailers.len())
                }
            },
        }
    }
}

/// Takes as many of the bytes as are left, and returns their number.
fn count_down(left: &mut u64, bytes: &[u8]) -> usize {
    let count = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= count as u64;
    count
}

/// Reads the line with the size of a chunk. Returns its length and the size; `None` if it is not complete.
fn size(bytes: &[u8]) -> Result<Option<(usize, u64)>, Fault> {
    let seen = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let end = memchr::memchr(b'\n', seen);
    let line = seen.get(..end.unwrap_or(seen.len())).unwrap_or_default();
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (before, behind) = line.split_at_checked(digits).unwrap_or_default();
    let is_begun = match (before, behind) {
        ([], []) => true,
        ([], [..]) => false,
        (_, [] | [b'\r']) => true,
        (_, [b';', rest @ ..]) => {
            let rest = rest.strip_suffix(b"\r").unwrap_or(rest);
            rest.iter().all(|byte| matches!(byte, b' '..=b'~'))
        }
        (_, [_, ..]) => false,
    };
    // Thirteen digits do not reach 2^53.
    if !is_begun || digits > 13 {
        return Err(Fault::Size);
    }
    let Some(end) = end else {
        let is_too_long = seen.len() == LONGEST_LINE;
        return if is_too_long { Err(Fault::Size) } else { Ok(None) };
    };
    let whole = seen
        .get(..=end)
        .filter(|line| line.ends_with(LINE_END))
        .ok_or(Fault::Size)?;
    match httparse::parse_chunk_size(whole) {
        Ok(httparse::Status::Complete((length, size))) if length == whole.len() => Ok(Some((length, size))),
        Ok(_) | Err(_) => Err(Fault::Size),
    }
}

/// Checks complete trailers: they are headers, and say no length.
fn check_trailers(trailers: &[u8]) -> Result<(), Fault> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    match httparse::parse_headers(trailers, &mut headers) {
        Ok(httparse::Status::Complete((length, headers)))
            if length == trailers.len() && headers.iter().all(|header| said_by(header.name) == Said::Nothing) =>
        {
            Ok(())
        }
        Ok(_) | Err(_) => Err(Fault::Trailers),
    }
}

#[cfg(test)]
mod tests;
