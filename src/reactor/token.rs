//! What the kernel hands back with an event: 64 bits that say whose it is.
//!
//! `service 10 | kind 8 | slot 22 | generation 24`. The generation makes an event, or a timer, for something already
//! gone fall on the floor instead of on its successor in the same slot.

/// Which service a token belongs to; given out by the reactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub(super) u16);

/// A place in a [`GenerationalSlab`](super::slab::GenerationalSlab): a slot and which of its inhabitants is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl Key {
    /// For the one and only source of its kind in a service.
    pub const ONLY: Key = Key { slot: 0, generation: 0 };

    /// The position in the slab; reused after its owner has gone.
    pub fn slot(self) -> usize {
        // u32 to usize never loses anything where this program builds (see the assertion below).
        self.slot as usize
    }

    /// The key as a number, for a core that knows nothing of the reactor.
    pub fn to_bits(self) -> u64 {
        u64::from(self.slot) << GENERATION_BITS | u64::from(self.generation)
    }

    /// The other way round.
    #[expect(clippy::cast_possible_truncation, reason = "each field is masked to its width")]
    pub fn from_bits(bits: u64) -> Key {
        Key {
            slot: (bits >> GENERATION_BITS) as u32 & SLOT_MASK,
            generation: bits as u32 & GENERATION_MASK,
        }
    }

    /// A key of the service's own making: its inhabitant is told from others by `generation`, of which 24 bits count.
    pub fn new(slot: u32, generation: u32) -> Key {
        Key {
            slot: slot & SLOT_MASK,
            generation: generation & GENERATION_MASK,
        }
    }

    /// A key of the service's own making, for sources that it numbers itself and that never move: 0 to 2^22 - 1.
    /// Higher numbers wrap, which a service excludes by its limits.
    pub fn numbered(slot: u32) -> Key {
        Key {
            slot: slot & SLOT_MASK,
            generation: 0,
        }
    }
}

/// The number of a kind of sources inside a service. A service has an enum of them, which implements
/// [`SourceKind`](super::source_kind::SourceKind).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u8);

/// A source as its own service knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// What it is.
    pub kind: Kind,
    /// Which one.
    pub key: Key,
}

/// A source as the reactor knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(super) service: ServiceId,
    pub(super) source: Source,
}

const _: () = assert!(usize::BITS == 64, "tokens are 64 bits wide");
const GENERATION_BITS: u32 = 24;
pub(super) const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;
const SLOT_BITS: u32 = 22;
pub(super) const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;
const KIND_SHIFT: u32 = GENERATION_BITS + SLOT_BITS;
const KIND_MASK: usize = 0xff;
const SERVICE_SHIFT: u32 = KIND_SHIFT + u8::BITS;
const SERVICE_MASK: usize = 0x3ff;
/// How many services a reactor can hold, its own signals and waker left out.
pub(super) const MAX_SERVICES: u16 = 0x3fe;
/// The reactor itself.
pub(super) const REACTOR: ServiceId = ServiceId(0x3ff);

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
            service in 0u16..=0x3ff,
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
