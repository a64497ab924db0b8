//! A counter-based generator: random numbers as a function of a seed and a position, without a state to carry.

/// Philox-4x32 with ten rounds: four random words from a `counter` under a `key`.
///
/// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3. Each round multiplies two of the
/// counter's words by constants, mixes the high halves with the other words and the key, and steps the key.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIER_0: u32 = 0xD251_1F53;
    const MULTIPLIER_1: u32 = 0xCD9E_8D57;
    const KEY_STEP_0: u32 = 0x9E37_79B9;
    const KEY_STEP_1: u32 = 0xBB67_AE85;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let product_0 = u64::from(MULTIPLIER_0) * u64::from(c0);
        let product_1 = u64::from(MULTIPLIER_1) * u64::from(c2);
        (c0, c1, c2, c3) = (
            (product_1 >> 32) as u32 ^ c1 ^ k0,
            product_1 as u32,
            (product_0 >> 32) as u32 ^ c3 ^ k1,
            product_0 as u32,
        );
        k0 = k0.wrapping_add(KEY_STEP_0);
        k1 = k1.wrapping_add(KEY_STEP_1);
    }
    [c0, c1, c2, c3]
}

/// A number in `[0, 1)` with 53 random bits that depends on `seed` and `position` alone.
pub fn uniform(seed: u64, position: u64) -> f64 {
    let counter = [position as u32, (position >> 32) as u32, 0, 0];
    let words = philox(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(words[1]) << 32 | u64::from(words[0])) >> 11;
    bits as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors of Philox publish with their library.
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniform_is_uniform() {
        for seed in [0, 1, u64::MAX] {
            let draws: Vec<f64> = (0..100_000).map(|position| uniform(seed, position)).collect();
            assert!(draws.iter().all(|&draw| (0.0..1.0).contains(&draw)));
            let mut counts = [0u32; 100];
            draws.iter().for_each(|&draw| counts[(draw * 100.0) as usize] += 1);
            // 99 degrees of freedom: 148.2 is exceeded by chance once in a thousand.
            let chi_square: f64 = counts.iter().map(|&count| (f64::from(count) - 1000.0).powi(2) / 1000.0).sum();
            assert!(chi_square < 148.2, "seed {seed}: {chi_square}");
        }
        assert_ne!(uniform(0, 1), uniform(1, 0));
        assert_ne!(uniform(0, 1), uniform(0, 1 << 32));
    }
}
