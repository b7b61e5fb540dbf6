//! The bytes of an input as a series of decisions.

/// Hands out the bytes of an input from the front. When none are left every choice is the first one, so that any input
/// means something and a shorter one means less.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choices<'i> {
    bytes: &'i [u8],
}

impl<'i> Choices<'i> {
    pub(super) const fn new(bytes: &'i [u8]) -> Self {
        Self { bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else {
            return 0;
        };
        self.bytes = rest;
        *first
    }

    /// 0 to `bound` - 1; `bound` is at most 256.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    /// One of `items`, if there is any.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len())).copied()
    }

    /// Takes the next `length` bytes, or all that are left.
    pub(super) fn take(&mut self, length: usize) -> &'i [u8] {
        let (taken, rest) = self.bytes.split_at(length.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    /// The remaining bytes, cut at the same places in every run: into pieces of the lengths that `cuts` names in turn.
    pub(super) fn pieces(self, cuts: &'i [u8]) -> impl Iterator<Item = &'i [u8]> {
        let mut rest = self;
        let mut lengths = cuts.iter().copied().cycle();
        std::iter::from_fn(move || {
            let length = lengths.next().map_or(usize::MAX, |cut| usize::from(cut).max(1));
            (!rest.is_empty()).then(|| rest.take(length))
        })
    }
}
