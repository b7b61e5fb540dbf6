//! The 64 bits that the kernel returns with an event and that name its source.
//!
//! `service 12 | kind 8 | slot 22 | generation 22`. An event or an alarm for a source that no longer exists has a stale
//! generation, and so does not reach the next source in the same slot.

/// The number of a service, given out by the reactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub(super) u16);

/// A place in a [`GenerationalSlab`](super::slab::GenerationalSlab): a slot, and the generation of the value that is
/// meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl Key {
    /// The key of the only source of its kind in a service.
    pub const ONLY: Key = Key { slot: 0, generation: 0 };

    /// Returns the position in the slab, which is reused once its value is removed.
    pub fn slot(self) -> usize {
        // A u32 fits into a usize wherever this program builds (see the assertion below).
        self.slot as usize
    }

    /// Returns the key as a number, for a core that knows nothing of the reactor.
    pub fn to_bits(self) -> u64 {
        u64::from(self.slot) << GENERATION_BITS | u64::from(self.generation)
    }

    /// Returns the key of such a number.
    #[expect(clippy::cast_possible_truncation, reason = "each field is masked to its width")]
    pub fn from_bits(bits: u64) -> Key {
        Key {
            slot: (bits >> GENERATION_BITS) as u32 & SLOT_MASK,
            generation: bits as u32 & GENERATION_MASK,
        }
    }

    /// Returns a key that the service numbers itself. Values in the same slot differ in `generation`, of which 22 bits
    /// count.
    pub fn new(slot: u32, generation: u32) -> Key {
        Key {
            slot: slot & SLOT_MASK,
            generation: generation & GENERATION_MASK,
        }
    }

    /// Returns a key for sources that the service numbers itself and that never move: 0 to 2^22 - 1. Higher numbers
    /// wrap, which a service excludes by its limits.
    pub const fn numbered(slot: u32) -> Key {
        Key {
            slot: slot & SLOT_MASK,
            generation: 0,
        }
    }
}

/// The number of a kind of sources inside a service. A service has an enum of its kinds, which implements
/// [`SourceKind`](super::source_kind::SourceKind).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u8);

/// A source as its own service knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The kind of the source.
    pub kind: Kind,
    /// The key of the source among those of its kind.
    pub key: Key,
}

/// A source as the reactor knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(super) service: ServiceId,
    pub(super) source: Source,
}

const _: () = assert!(usize::BITS == 64, "tokens are 64 bits wide");
const GENERATION_BITS: u32 = 22;
pub(super) const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;
const SLOT_BITS: u32 = 22;
pub(super) const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;
const KIND_SHIFT: u32 = GENERATION_BITS + SLOT_BITS;
const KIND_MASK: usize = 0xff;
const SERVICE_SHIFT: u32 = KIND_SHIFT + u8::BITS;
const SERVICE_MASK: usize = 0xfff;
/// The number of services that a reactor can hold, besides its own id for signals and waker.
pub(super) const MAX_SERVICES: u16 = 0xffe;
/// The id of the reactor itself.
pub(super) const REACTOR: ServiceId = ServiceId(0xfff);

impl From<Token> for mio::Token {
    fn from(token: Token) -> mio::Token {
        let Source { kind, key } = token.source;
        mio::Token(
            usize::from(token.service.0) << SERVICE_SHIFT
                | usize::from(kind.0) << KIND_SHIFT
                | (key.slot as usize) << GENERATION_BITS
                | key.generation as usize,
        )
    }
}

impl From<mio::Token> for Token {
    #[expect(clippy::cast_possible_truncation, reason = "each field is masked to its width first")]
    fn from(mio::Token(bits): mio::Token) -> Token {
        Token {
            service: ServiceId(((bits >> SERVICE_SHIFT) & SERVICE_MASK) as u16),
            source: Source {
                kind: Kind(((bits >> KIND_SHIFT) & KIND_MASK) as u8),
                key: Key {
                    slot: (bits >> GENERATION_BITS) as u32 & SLOT_MASK,
                    generation: bits as u32 & GENERATION_MASK,
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_survives_its_packing(
            service in 0u16..=0xfff,
            kind: u8,
            slot in 0..=SLOT_MASK,
            generation in 0..=GENERATION_MASK,
        ) {
            let source = Source { kind: Kind(kind), key: Key { slot, generation } };
            let token = Token { service: ServiceId(service), source };
            prop_assert_eq!(Token::from(mio::Token::from(token)), token);
            prop_assert_eq!(Key::from_bits(source.key.to_bits()), source.key);
        }
    }
}
