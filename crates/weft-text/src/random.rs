//! A counter-based random generator: the n-th number is a pure function of a key and n.
//!
//! SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", 2014) adds a constant to its
//! state and hashes it; so its n-th output is `mix(key + n * GOLDEN)`, which can be asked for in any order and by any
//! number of threads. Keys for independent streams come from hashing the seed with the stream's numbers.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64: every input bit reaches every output bit.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A stream of random numbers that can be read at any position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterRng {
    key: u64,
}

impl CounterRng {
    /// The stream for a seed and any numbers that name it, such as a purpose, an epoch or a step.
    ///
    /// Streams with different names are independent for all practical purposes.
    pub fn new(seed: u64, stream: &[u64]) -> Self {
        let mut key = mix(seed.wrapping_add(GOLDEN));
        for &name in stream {
            // The multiplication tells the places apart: a name that equals the seed must not cancel it.
            key = mix(key.wrapping_mul(GOLDEN) ^ mix(name.wrapping_add(GOLDEN)));
        }
        Self { key }
    }

    /// The number at a position: 64 uniform bits.
    pub fn at(&self, position: u64) -> u64 {
        mix(self.key.wrapping_add(position.wrapping_add(1).wrapping_mul(GOLDEN)))
    }

    /// An integer in `0..bound` for a position; 0 if the bound is 0.
    ///
    /// The upper 64 bits of a 128-bit product (Lemire, arXiv 1805.10941) without its rejection step, so that one
    /// position costs one number: some values are likelier than others by at most bound / 2^64.
    pub fn below(&self, position: u64, bound: u64) -> u64 {
        ((u128::from(self.at(position)) * u128::from(bound)) >> 64) as u64
    }

    /// Shuffles a slice (Fisher-Yates); the result depends on the stream and the slice's length only.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64, last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_outputs_are_those_of_splitmix64() {
        // Reference outputs for seed 1234567, published with the algorithm's common implementations.
        let stream = CounterRng { key: 1_234_567 };
        let found: Vec<u64> = (0..5).map(|position| stream.at(position)).collect();
        let wanted = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn streams_differ_by_every_name() {
        let keys: std::collections::BTreeSet<u64> = (0..10)
            .flat_map(|seed| (0..10).flat_map(move |a| (0..10).map(move |b| CounterRng::new(seed, &[a, b]).key)))
            .collect();
        assert_eq!(keys.len(), 1000);
    }

    #[test]
    fn below_is_uniform_enough() {
        let stream = CounterRng::new(7, &[1]);
        let mut counts = [0usize; 10];
        for position in 0..100_000 {
            counts[stream.below(position, 10) as usize] += 1;
        }
        // Standard deviation is 95: five of them.
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 475), "{counts:?}");
        assert_eq!(stream.below(3, 0), 0);
    }

    #[test]
    fn shuffle_reaches_every_order() {
        let orders: std::collections::BTreeSet<Vec<u8>> = (0..500)
            .map(|seed| {
                let mut items = vec![0, 1, 2, 3];
                CounterRng::new(seed, &[]).shuffle(&mut items);
                items
            })
            .collect();
        assert_eq!(orders.len(), 24);
    }
}
