//! The framings, written for chaos alone: the daemon's own framers cannot prove themselves.
//!
//! Clients and workers both speak by this. A payload never holds the end of a message; the caller must see to that.

/// One of the daemon's framings; [`Wire::Whole`] is `eof`, and `quiet`, where only a pause ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Line,
    Netstring,
    Nul,
    U32be,
    ContentLength,
    /// The payload stands without its last line feed here.
    EmptyLine,
    Whole,
}

const NAMES: [(&str, Wire); 7] = [
    ("line", Wire::Line),
    ("netstring", Wire::Netstring),
    ("nul", Wire::Nul),
    ("u32be", Wire::U32be),
    ("content-length", Wire::ContentLength),
    ("until-empty-line", Wire::EmptyLine),
    ("eof", Wire::Whole),
];

const LENGTH: &str = "Content-Length: ";
const HEAD_END: &[u8] = b"\r\n\r\n";

impl Wire {
    pub(crate) fn named(name: &str) -> Option<Self> {
        if name.starts_with("quiet=") {
            return Some(Self::Whole);
        }
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, wire)| *wire)
    }

    pub(crate) fn encode(self, payload: &[u8]) -> Vec<u8> {
        let length = payload.len();
        match self {
            Self::Line => [payload, b"\n"].concat(),
            Self::Netstring => [format!("{length}:").as_bytes(), payload, b","].concat(),
            Self::Nul => [payload, b"\0"].concat(),
            Self::U32be => [&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes(), payload].concat(),
            Self::ContentLength => {
                let head = format!("Content-Type: text/plain\r\n{LENGTH}{length}\r\n\r\n");
                [head.as_bytes(), payload].concat()
            }
            Self::EmptyLine => [payload, b"\n\n"].concat(),
            Self::Whole => payload.to_owned(),
        }
    }

    /// The first message and how many bytes it takes. `None`: it is not whole, or none; what only the end of the stream
    /// ends is never whole here.
    pub(crate) fn decode(self, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        let until = |end: &[u8]| {
            let place = memchr::memmem::find(bytes, end)?;
            Some((bytes.get(..place)?.to_owned(), place + end.len()))
        };
        let counted = |from: usize, length: usize, after: usize| {
            let payload = bytes.get(from..from.checked_add(length)?)?.to_owned();
            let taken = from + length + after;
            (bytes.len() >= taken).then_some((payload, taken))
        };
        match self {
            Self::Line => until(b"\n"),
            Self::Nul => until(b"\0"),
            Self::EmptyLine => until(b"\n\n"),
            Self::Netstring => {
                let colon = memchr::memchr(b':', bytes)?;
                let (payload, taken) = counted(colon + 1, number(bytes.get(..colon)?)?, 1)?;
                (bytes.get(taken - 1) == Some(&b',')).then_some((payload, taken))
            }
            Self::U32be => {
                let length = u32::from_be_bytes(*bytes.first_chunk()?);
                counted(4, usize::try_from(length).ok()?, 0)
            }
            Self::ContentLength => {
                let head = memchr::memmem::find(bytes, HEAD_END)?;
                let text = std::str::from_utf8(bytes.get(..head)?).ok()?;
                let length = text.lines().find_map(|line| line.strip_prefix(LENGTH))?;
                counted(head + HEAD_END.len(), length.parse().ok()?, 0)
            }
            Self::Whole => None,
        }
    }

    /// Bytes that begin no message, if there are any.
    pub(crate) fn garbage(self) -> Option<&'static [u8]> {
        match self {
            Self::Netstring => Some(b"nine:characters,"),
            Self::ContentLength => Some(b"no length at all\r\n\r\n"),
            Self::Line | Self::Nul | Self::U32be | Self::EmptyLine | Self::Whole => None,
        }
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
