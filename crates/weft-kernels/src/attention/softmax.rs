//! What is done to rows of scores: softmax, its gradient, dropout.
//!
//! Rows stand in scratch memory and are padded to whole vectors; a row's padding is read but never used.

use std::ops::Range;

use pulp::Simd;

use crate::dropout::Dropout;

/// What the backward pass needs to make a row's probabilities again: the probability of score `s` is
/// `2^((s - most) * scale) * inverse_sum`.
///
/// Two numbers instead of the usual logarithm of the sum: the probabilities of both passes are then the same
/// bits where a row was summed at once, and large scores lose no precision to the logarithm's rounding.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowStatistics {
    pub(super) most: f32,
    pub(super) inverse_sum: f32,
}

/// `2^x` for `x` up to 127, within 2 units in the last place; 0 below -126, NaN for NaN.
#[inline(always)]
fn power_of_two<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // x = n + r with |r| <= 1/2, exactly. Adding 1.5 * 2^23 + 127 rounds x and leaves n + 127 in the low bits,
    // which shifted into the exponent are 2^n. The polynomial is the minimax one, relative error 2e-9.
    let magic = simd.splat_f32s(12_582_912.0 + 127.0);
    let shifted = simd.add_f32s(x, magic);
    let r = simd.sub_f32s(x, simd.sub_f32s(shifted, magic));
    let mut p = simd.splat_f32s(1.534_581_2e-4);
    for coefficient in [1.339_993_1e-3, 9.618_489e-3, 5.550_328_8e-2, 2.402_264_7e-1, 6.931_472e-1, 1.0] {
        p = simd.mul_add_f32s(p, r, simd.splat_f32s(coefficient));
    }
    let bits = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let result = simd.mul_f32s(p, simd.transmute_f32s_u32s(bits));
    simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(-126.0)), simd.splat_f32s(0.0), result)
}

/// Writes `value` on both sides of `seen`, up to whole vectors, and returns these vectors.
///
/// What stands there is garbage, a NaN perhaps: a later token's, or left from another row.
#[inline(always)]
fn surrounded<'a, S: Simd>(_: S, row: &'a mut [f32], seen: &Range<usize>, value: f32) -> &'a mut [S::f32s] {
    let lanes = S::F32_LANES;
    let (start, end) = (seen.start / lanes * lanes, seen.end.next_multiple_of(lanes));
    row[start..seen.start].fill(value);
    row[seen.end..end].fill(value);
    S::as_mut_simd_f32s(&mut row[start..end]).0
}

/// A row of scores, of which some have been seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// The largest score.
    most: f32,
    /// The sum of powers, those that dropout drops included.
    sum: f32,
}

impl Row {
    /// Nothing seen yet.
    pub(super) const EMPTY: Self = Self { most: f32::MIN, sum: 0.0 };

    /// Turns the scores of the keys `seen` into powers and takes note of them. What was summed before is to be
    /// multiplied by the factor that is returned: the largest score may have grown.  Dao et al., arXiv 2205.14135,
    /// section 3.1.
    #[inline(always)]
    pub(super) fn powers<S: Simd>(&mut self, simd: S, scores: &mut [f32], seen: &Range<usize>, scale: f32) -> f32 {
        let vectors = surrounded(simd, scores, seen, f32::NEG_INFINITY);
        let mut most = [simd.splat_f32s(self.most); 4];
        let (fours, tail) = vectors.as_chunks::<4>();
        for four in fours {
            for (most, &score) in most.iter_mut().zip(four) {
                *most = simd.max_f32s(*most, score);
            }
        }
        for &score in tail {
            most[0] = simd.max_f32s(most[0], score);
        }
        let most = simd.max_f32s(simd.max_f32s(most[0], most[1]), simd.max_f32s(most[2], most[3]));
        let most = simd.reduce_max_f32s(most);
        let factor = if most == self.most { 1.0 } else { ((self.most - most) * scale).exp2() };

        let (scales, largest) = (simd.splat_f32s(scale), simd.splat_f32s(most));
        let mut sum = simd.splat_f32s(0.0);
        for score in vectors {
            *score = power_of_two(simd, simd.mul_f32s(simd.sub_f32s(*score, largest), scales));
            sum = simd.add_f32s(sum, *score);
        }
        *self = Self { most, sum: self.sum * factor + simd.reduce_sum_f32s(sum) };
        factor
    }

    /// What makes its probabilities again; all zeros if it saw nothing.
    pub(super) fn statistics(self) -> RowStatistics {
        if self.sum == 0.0 {
            return RowStatistics { most: 0.0, inverse_sum: 0.0 };
        }
        RowStatistics { most: self.most, inverse_sum: 1.0 / self.sum }
    }
}

/// Dropout of the values `seen` of a row, whose first value has the number `index`.
#[inline(always)]
pub(super) fn drop_out<S: Simd>(simd: S, row: &mut [f32], seen: &Range<usize>, dropout: Dropout, index: usize) {
    let start = seen.start / S::F32_LANES * S::F32_LANES;
    let (vectors, _) = S::as_mut_simd_f32s(&mut row[start..seen.end.next_multiple_of(S::F32_LANES)]);
    for (i, value) in vectors.iter_mut().enumerate() {
        *value = dropout.apply(simd, Dropout::indices(simd, index + start + i * S::F32_LANES), *value);
    }
}

/// What a row's gradient needs besides scores and products.
pub(super) struct RowGradient {
    pub(super) statistics: RowStatistics,
    pub(super) scale: f32,
    pub(super) dropout: Dropout,
    /// The number for dropout of the first value.
    pub(super) index: usize,
    /// The sum over all keys of probabilities times their gradients, where the row is not whole.
    pub(super) along: Option<f32>,
}

/// Turns the scores of the keys `seen` into probabilities (dropped ones 0, the others scaled) and the gradients of
/// probabilities into gradients of scores, but for what scores were multiplied by.
#[inline(always)]
pub(super) fn gradient<S: Simd>(
    simd: S,
    scores: &mut [f32],
    products: &mut [f32],
    seen: &Range<usize>,
    row: &RowGradient,
) {
    let lanes = S::F32_LANES;
    let scores = surrounded(simd, scores, seen, f32::NEG_INFINITY);
    let products = surrounded(simd, products, seen, 0.0);
    let (scales, largest) = (simd.splat_f32s(row.scale), simd.splat_f32s(row.statistics.most));
    let inverse = simd.splat_f32s(row.statistics.inverse_sum);
    let (index, dropped) = (row.index + seen.start / lanes * lanes, !row.dropout.is_none());
    let mut sum = simd.splat_f32s(0.0);
    for (i, (score, product)) in scores.iter_mut().zip(products.iter_mut()).enumerate() {
        let power = power_of_two(simd, simd.mul_f32s(simd.sub_f32s(*score, largest), scales));
        *score = simd.mul_f32s(power, inverse);
        if dropped {
            *product = row.dropout.apply(simd, Dropout::indices(simd, index + i * lanes), *product);
        }
        sum = simd.mul_add_f32s(*score, *product, sum);
    }
    // Of a row whose keys are all here the sum is taken again rather than given as out . dout: its terms are those
    // that cancel below, and where few keys share a row they must cancel exactly.
    let along = simd.splat_f32s(match row.along {
        Some(along) => along,
        None => simd.reduce_sum_f32s(sum),
    });
    for (i, (score, product)) in scores.iter_mut().zip(products.iter_mut()).enumerate() {
        *product = simd.mul_f32s(*score, simd.sub_f32s(*product, along));
        if dropped {
            *score = row.dropout.apply(simd, Dropout::indices(simd, index + i * lanes), *score);
        }
    }
}
