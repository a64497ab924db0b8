//! The passes over a row of scores that every choice needs: maxima of blocks, the log-normaliser, exponentials.
//!
//! They keep a fixed number of lanes, each summed in a fixed order, so that the result does not depend on the SIMD
//! level the machine has. `pulp` compiles the same loops for each level and picks one at run time.

use crate::DecodeError;

/// Scores per block: 256 bytes, four cache lines. The maxima of a 32,000-token row are then 500 numbers, and a
/// candidate search opens only the few blocks whose maximum can still win.
pub(crate) const BLOCK: usize = 64;
/// Independent accumulators: one AVX-512 register, two of AVX2, four of NEON or SSE.
const LANES: usize = 16;
/// Scores that are added in f32 before the sum goes on in f64: 32 additions per lane keep the error near one ulp.
const SUM_CHUNK: usize = 512;

/// Writes the maximum of each block of [`BLOCK`] scores to `maxima` and returns the row's maximum.
///
/// # Errors
/// NaN or plus infinity anywhere, an empty row, or a row of nothing but minus infinity; `row` names it.
pub(crate) fn block_maxima(scores: &[f32], row: usize, maxima: &mut Vec<f32>) -> Result<f32, DecodeError> {
    maxima.clear();
    if scores.is_empty() {
        return Err(DecodeError::EmptyVocabulary);
    }
    let any_nan = pulp::Arch::new().dispatch(BlockMaxima { scores, maxima });
    if any_nan {
        let token = scores.iter().position(|score| score.is_nan()).unwrap_or(0);
        return Err(DecodeError::NotANumber { row, token });
    }
    let max = maxima.iter().fold(f32::NEG_INFINITY, |max, &block| if block > max { block } else { max });
    if max == f32::NEG_INFINITY {
        return Err(DecodeError::NothingPossible { row });
    }
    if max == f32::INFINITY {
        let token = scores.iter().position(|&score| score == f32::INFINITY).unwrap_or(0);
        return Err(DecodeError::Infinite { row, token });
    }
    Ok(max)
}

/// `ln(sum of exp(score))`, given the row's maximum (finite).
pub(crate) fn log_sum_exp(scores: &[f32], max: f32) -> f64 {
    f64::from(max) + pulp::Arch::new().dispatch(SumExp { scores, max }).ln()
}

/// Writes `exp((score - max) / temperature)` of each score to `weights`; the temperature is above 0.
pub(crate) fn exp_all(scores: &[f32], max: f32, temperature: f32, weights: &mut Vec<f32>) {
    weights.clear();
    weights.resize(scores.len(), 0.0);
    pulp::Arch::new().dispatch(ExpAll { scores, max, temperature, weights });
}

// The loops are structs, not closures, so that `inline(always)` puts them into the function that `pulp` compiles for
// the machine's SIMD level.

/// Pushes the maxima of blocks; returns whether any score is NaN.
struct BlockMaxima<'a> {
    scores: &'a [f32],
    maxima: &'a mut Vec<f32>,
}

impl pulp::NullaryFnOnce for BlockMaxima<'_> {
    type Output = bool;

    #[inline(always)]
    fn call(self) -> bool {
        let mut nans = [0u32; LANES];
        for block in self.scores.chunks(BLOCK) {
            let mut lanes = [f32::NEG_INFINITY; LANES];
            let mut parts = block.chunks_exact(LANES);
            for part in &mut parts {
                for lane in 0..LANES {
                    let score = part[lane];
                    nans[lane] |= u32::from(score.is_nan());
                    lanes[lane] = larger(score, lanes[lane]);
                }
            }
            let mut max = lanes.into_iter().fold(f32::NEG_INFINITY, |max, lane| larger(lane, max));
            for &score in parts.remainder() {
                nans[0] |= u32::from(score.is_nan());
                max = larger(score, max);
            }
            self.maxima.push(max);
        }
        nans.iter().any(|&nan| nan != 0)
    }
}

/// The sum of `exp(score - max)`, at least 1 when `max` is the maximum.
struct SumExp<'a> {
    scores: &'a [f32],
    max: f32,
}

impl pulp::NullaryFnOnce for SumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn call(self) -> f64 {
        let mut total = 0.0f64;
        for chunk in self.scores.chunks(SUM_CHUNK) {
            let mut lanes = [0.0f32; LANES];
            let mut parts = chunk.chunks_exact(LANES);
            for part in &mut parts {
                for lane in 0..LANES {
                    lanes[lane] += exp_nonpositive(part[lane] - self.max);
                }
            }
            for &score in parts.remainder() {
                lanes[0] += exp_nonpositive(score - self.max);
            }
            total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
        }
        total
    }
}

struct ExpAll<'a> {
    scores: &'a [f32],
    max: f32,
    temperature: f32,
    weights: &'a mut [f32],
}

impl pulp::NullaryFnOnce for ExpAll<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (weight, &score) in self.weights.iter_mut().zip(self.scores) {
            *weight = exp_nonpositive((score - self.max) / self.temperature);
        }
    }
}

/// `score` if it is larger than `max`, else `max`; NaN is never larger.
#[inline(always)]
fn larger(score: f32, max: f32) -> f32 {
    if score > max { score } else { max }
}

/// `exp(x)` for `x <= 0`, written so that a compiler turns loops over it into SIMD. Within 2 ulp; 0 below -87, where
/// the true value is smaller than the smallest normal number.
///
/// exp(x) = 2^n * exp(r) with n the integer nearest to x / ln 2 and |r| <= ln(2) / 2, where the Taylor series to the
/// seventh power is off by less than 6e-9.
#[inline(always)]
fn exp_nonpositive(x: f32) -> f32 {
    const UNDERFLOW: f32 = -87.0;
    // Adding 1.5 * 2^23 rounds to an integer, which then sits in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, so that n * LN_2_HIGH is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > UNDERFLOW { x } else { UNDERFLOW };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut power = 1.0 / 5040.0f32;
    power = power * r + 1.0 / 720.0;
    power = power * r + 1.0 / 120.0;
    power = power * r + 1.0 / 24.0;
    power = power * r + 1.0 / 6.0;
    power = power * r + 0.5;
    power = power * r + 1.0;
    power = power * r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let value = power * f32::from_bits(exponent);
    if x > UNDERFLOW { value } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exp_is_within_two_ulp() {
        let mut worst = 0.0f64;
        for step in 0..870_000 {
            let x = -(step as f32) * 1e-4;
            let truth = f64::from(x).exp();
            worst = worst.max((f64::from(exp_nonpositive(x)) - truth).abs() / truth);
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "relative error {worst:e}");
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_nonpositive(0.0), 1.0);
    }

    #[test]
    fn broken_rows_are_errors_that_name_the_token() {
        let mut maxima = Vec::new();
        for length in [1, 15, 16, 17, 64, 65, 200] {
            for token in [0, length / 2, length - 1] {
                let mut scores = vec![0.5f32; length];
                scores[token] = f32::NAN;
                assert_eq!(block_maxima(&scores, 3, &mut maxima), Err(DecodeError::NotANumber { row: 3, token }));
                scores[token] = f32::INFINITY;
                assert_eq!(block_maxima(&scores, 3, &mut maxima), Err(DecodeError::Infinite { row: 3, token }));
            }
            let scores = vec![f32::NEG_INFINITY; length];
            assert_eq!(block_maxima(&scores, 1, &mut maxima), Err(DecodeError::NothingPossible { row: 1 }));
        }
        assert_eq!(block_maxima(&[], 0, &mut maxima), Err(DecodeError::EmptyVocabulary));
    }

    proptest! {
        /// A direct call is compiled for the oldest machine, a dispatched one for the level of this machine.
        #[test]
        fn every_simd_level_gives_the_same_bits(scores in prop::collection::vec(-30.0..0.0f32, 1..3000)) {
            use pulp::NullaryFnOnce;
            let portable = SumExp { scores: &scores, max: 0.0 }.call();
            prop_assert_eq!(pulp::Arch::new().dispatch(SumExp { scores: &scores, max: 0.0 }).to_bits(), portable.to_bits());
            let mut portable = vec![0.0; scores.len()];
            ExpAll { scores: &scores, max: 0.0, temperature: 0.7, weights: &mut portable }.call();
            let mut dispatched = Vec::new();
            exp_all(&scores, 0.0, 0.7, &mut dispatched);
            prop_assert_eq!(dispatched, portable);
        }

        #[test]
        fn agrees_with_plain_f64(scores in prop::collection::vec(prop_oneof![9 => -40.0..40.0f32, 1 => Just(f32::NEG_INFINITY)], 1..700)) {
            let plain_max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assume!(plain_max.is_finite());
            let mut maxima = Vec::new();
            let max = block_maxima(&scores, 0, &mut maxima).unwrap();
            prop_assert_eq!(max, plain_max);
            let plain: Vec<f32> = scores.chunks(BLOCK).map(|block| block.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect();
            prop_assert_eq!(&maxima, &plain);
            let truth = f64::from(max) + scores.iter().map(|&score| (f64::from(score) - f64::from(max)).exp()).sum::<f64>().ln();
            prop_assert!((log_sum_exp(&scores, max) - truth).abs() < 2e-6, "{} {}", log_sum_exp(&scores, max), truth);
        }
    }
}
