//! What the kernel hands back with an event: 64 bits that say whose it is.
//!
//! `service 12 | kind 4 | slot 24 | generation 24`. The generation makes an event, or a timer, for something already
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
        u64::from(self.slot) << SLOT_BITS | u64::from(self.generation)
    }

    /// The other way round.
    #[expect(clippy::cast_possible_truncation, reason = "each field is masked to its width")]
    pub fn from_bits(bits: u64) -> Key {
        Key {
            slot: (bits >> SLOT_BITS) as u32 & SLOT_MASK,
            generation: bits as u32 & SLOT_MASK,
        }
    }

    /// A key of the service's own making: its inhabitant is told from others by `generation`, of which 24 bits count.
    pub fn new(slot: u32, generation: u32) -> Key {
        Key {
            slot: slot & SLOT_MASK,
            generation: generation & SLOT_MASK,
        }
    }

    /// A key of the service's own making, for sources that it numbers itself and that never move: 0 to 2^24 - 1.
    /// Higher numbers wrap, which a service excludes by its limits.
    pub fn numbered(slot: u32) -> Key {
        Key {
            slot: slot & SLOT_MASK,
            generation: 0,
        }
    }
}

/// Which kind of source inside a service, less than [`MAX_KINDS`]: the service's own enumeration.
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
pub(super) const SLOT_BITS: u32 = 24;
pub(super) const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;
/// How many kinds of sources a service can have. It asserts at compile time that it has no more: one too many would take
/// the events of the first.
pub const MAX_KINDS: usize = 16;
const KIND_MASK: usize = MAX_KINDS - 1;
const SERVICE_MASK: usize = 0xfff;
/// How many services a reactor can hold, its own signals and waker left out.
pub(super) const MAX_SERVICES: u16 = 0xffe;
/// The reactor itself.
pub(super) const REACTOR: ServiceId = ServiceId(0xfff);

impl From<Token> for mio::Token {
    fn from(token: Token) -> mio::Token {
        let Source { kind, key } = token.source;
        mio::Token(
            usize::from(token.service.0) << 52
                | (usize::from(kind.0) & KIND_MASK) << 48
                | (key.slot as usize) << SLOT_BITS
                | key.generation as usize,
        )
    }
}

impl From<mio::Token> for Token {
    #[expect(clippy::cast_possible_truncation, reason = "each field is masked to its width first")]
    fn from(mio::Token(bits): mio::Token) -> Token {
        Token {
            service: ServiceId(((bits >> 52) & SERVICE_MASK) as u16),
            source: Source {
                kind: Kind(((bits >> 48) & KIND_MASK) as u8),
                key: Key {
                    slot: (bits >> SLOT_BITS) as u32 & SLOT_MASK,
                    generation: bits as u32 & SLOT_MASK,
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
        fn a_token_survives_the_kernel(service in 0u16..=0xfff, kind in 0u8..16, slot in 0..=SLOT_MASK, generation in 0..=SLOT_MASK) {
            let source = Source { kind: Kind(kind), key: Key { slot, generation } };
            let token = Token { service: ServiceId(service), source };
            prop_assert_eq!(Token::from(mio::Token::from(token)), token);
            prop_assert_eq!(Key::from_bits(source.key.to_bits()), source.key);
        }
    }
}
