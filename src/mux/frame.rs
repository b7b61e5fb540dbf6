//! The header of a frame of yamux version 0: `version u8 | kind u8 | flags u16 | stream u32 | length u32`, big-endian.

/// The length of a header in bytes.
pub const HEADER: usize = 12;
/// The only version that there is.
pub const VERSION: u8 = 0;

/// The purpose of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its length is that of the payload behind it.
    Data,
    /// Its length is added to what the receiver may send on the stream.
    WindowUpdate,
    /// With SYN a question, with ACK the answer. Its length is any number, which the answer repeats.
    Ping,
    /// The sender opens no more streams, and takes none. Its length is a code.
    GoAway,
}

/// The flags of a frame: any sum of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// The stream is opened.
    pub const SYN: Flags = Flags(1);
    /// The stream is accepted.
    pub const ACK: Flags = Flags(2);
    /// The sender has nothing more to send on the stream.
    pub const FIN: Flags = Flags(4);
    /// The stream is ended at once.
    pub const RST: Flags = Flags(8);

    /// Returns true if all of these flags are set.
    #[must_use]
    pub const fn has(self, flags: Flags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Returns these flags and those.
    #[must_use]
    pub const fn with(self, flags: Flags) -> Flags {
        Flags(self.0 | flags.0)
    }
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The purpose of the frame.
    pub kind: Kind,
    /// Its flags.
    pub flags: Flags,
    /// The number of its stream; 0 for the session.
    pub stream: u32,
    /// A length, an amount of credit, a number or a code.
    pub length: u32,
}

/// The reason why twelve bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHeader {
    /// It has this version.
    Version(u8),
    /// It has this kind.
    Kind(u8),
}

impl Header {
    /// Returns the bytes of a header.
    #[must_use]
    pub const fn bytes(self) -> [u8; HEADER] {
        let kind = match self.kind {
            Kind::Data => 0,
            Kind::WindowUpdate => 1,
            Kind::Ping => 2,
            Kind::GoAway => 3,
        };
        let [flags0, flags1] = self.flags.0.to_be_bytes();
        let [stream0, stream1, stream2, stream3] = self.stream.to_be_bytes();
        let [length0, length1, length2, length3] = self.length.to_be_bytes();
        [
            VERSION, kind, flags0, flags1, stream0, stream1, stream2, stream3, length0, length1, length2, length3,
        ]
    }

    /// Reads a header. Flags without a meaning are kept, and mean nothing.
    ///
    /// # Errors
    /// The reason why it is none.
    pub const fn parse(bytes: [u8; HEADER]) -> Result<Header, NoHeader> {
        let [
            version,
            kind,
            flags0,
            flags1,
            stream0,
            stream1,
            stream2,
            stream3,
            length0,
            length1,
            length2,
            length3,
        ] = bytes;
        if version != VERSION {
            return Err(NoHeader::Version(version));
        }
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::WindowUpdate,
            2 => Kind::Ping,
            3 => Kind::GoAway,
            other => return Err(NoHeader::Kind(other)),
        };
        Ok(Header {
            kind,
            flags: Flags(u16::from_be_bytes([flags0, flags1])),
            stream: u32::from_be_bytes([stream0, stream1, stream2, stream3]),
            length: u32::from_be_bytes([length0, length1, length2, length3]),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_has_the_form_of_the_original() {
        // As trc opens its first stream.
        let open = Header {
            kind: Kind::WindowUpdate,
            flags: Flags::SYN,
            stream: 1,
            length: 0,
        };
        assert_eq!(open.bytes(), [0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]);
        let end = Header {
            kind: Kind::Data,
            flags: Flags::FIN.with(Flags::ACK),
            stream: 0x0102_0304,
            length: 0x0506_0708,
        };
        assert_eq!(end.bytes(), [0, 0, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    proptest! {
        #[test]
        fn every_header_is_read_as_it_was_written(bytes: [u8; HEADER], kind in 0..5_u8) {
            let [_, _, rest @ ..] = bytes;
            let mut whole = [0; HEADER];
            whole[1] = kind;
            whole[2..].copy_from_slice(&rest);
            match Header::parse(whole) {
                Ok(header) => prop_assert_eq!(header.bytes(), whole),
                Err(error) => prop_assert!(kind == 4 && error == NoHeader::Kind(4)),
            }
            if bytes[0] != 0 {
                prop_assert_eq!(Header::parse(bytes), Err(NoHeader::Version(bytes[0])));
            }
        }
    }
}
