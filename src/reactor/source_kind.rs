//! The table of a service's sources: an enum with a variant for each kind, and the number of each variant in a token.
//!
//! [`source_kinds!`](crate::reactor::source_kinds) declares such an enum. The compiler numbers its variants and checks
//! that they fit into eight bits. The way back is a list of the same variants in the same order, so no two kinds share
//! a number and none takes the events of another.

use super::token::{Key, Kind, Source};

/// The kinds of sources of one service. Implemented by [`source_kinds!`](crate::reactor::source_kinds) alone.
pub trait SourceKind: Copy + 'static {
    /// All kinds, each at the index of its number.
    const ALL: &'static [Self];

    /// Returns the number of this kind, as tokens carry it.
    fn kind(self) -> Kind;

    /// Returns the source of this kind with this key.
    fn at(self, key: Key) -> Source {
        Source { kind: self.kind(), key }
    }

    /// Returns the source of a kind of which the service has only one.
    fn only(self) -> Source {
        self.at(Key::ONLY)
    }

    /// Returns the kind of a source of this service, or `None` for a number that no kind has.
    fn from_source(source: Source) -> Option<Self> {
        Self::ALL.get(usize::from(source.kind.0)).copied()
    }
}

/// Declares the enum of a service's kinds of sources, and implements [`SourceKind`] for it.
macro_rules! source_kinds {
    ($(#[$doc:meta])* $visibility:vis enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        $visibility enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $crate::reactor::SourceKind for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn kind(self) -> $crate::reactor::Kind {
                $crate::reactor::Kind(self as u8)
            }
        }
    };
}
pub(crate) use source_kinds;

#[cfg(test)]
mod tests {
    use super::*;

    source_kinds! {
        enum Sample {
            Listener,
            Client,
            Upkeep,
        }
    }

    #[test]
    fn every_kind_is_found_again_by_its_number_and_an_unknown_number_is_none() {
        let key = Key::new(7, 11);
        for kind in [Sample::Listener, Sample::Client, Sample::Upkeep] {
            assert_eq!(Sample::from_source(kind.at(key)), Some(kind));
            assert_eq!(kind.at(key).key, key);
            assert_eq!(kind.only().key, Key::ONLY);
        }
        let unknown = Source { kind: Kind(3), key };
        assert_eq!(Sample::from_source(unknown), None);
    }
}
