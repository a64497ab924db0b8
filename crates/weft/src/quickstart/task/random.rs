//! Random draws that depend on a seed and a position only.

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), started at a place that is
/// mixed from a seed and a position.
pub(super) struct Draws {
    state: u64,
}

impl Draws {
    pub(super) fn new(seed: u64, position: u64) -> Self {
        Self { state: mixed(mixed(seed).wrapping_add(position)) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.state)
    }

    /// A number from 0 to `bound - 1`; each is as likely, up to `bound` in 2^64.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u32
    }

    /// One of the items.
    pub(super) fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u32) as usize]
    }

    /// Draws until the value is accepted.
    pub(super) fn until<T>(&mut self, draw: impl Fn(&mut Self) -> T, accept: impl Fn(&T) -> bool) -> T {
        loop {
            let value = draw(self);
            if accept(&value) {
                return value;
            }
        }
    }
}

fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
