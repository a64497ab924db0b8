//! What is done to rows of scores: softmax, its gradient, dropout.
//!
//! Rows stand in scratch memory and are padded to whole vectors; a row's padding is read but never used.

use pulp::Simd;

use crate::dropout::Dropout;

/// What the backward pass needs to make a row's probabilities again: the probability of score `s` is
/// `2^(s * scale + shift) * inverse_sum`.
///
/// Two numbers instead of the usual logarithm of the sum: the probabilities of both passes are then the same
/// bits, and large scores lose no precision to the logarithm's rounding.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowStatistics {
    pub(super) shift: f32,
    pub(super) inverse_sum: f32,
}

/// `1 / sqrt(head_dim)`, times log2(e): powers of two are what hardware has.
pub(super) fn scale_to_base_two(head_dim: usize) -> f32 {
    (std::f64::consts::LOG2_E / (head_dim as f64).sqrt()) as f32
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

/// The first `count` lanes.
#[inline(always)]
fn first_lanes<S: Simd>(simd: S, count: usize) -> S::m32s {
    simd.mask_between_m32s(0, count as u32).mask()
}

/// Turns `count` scores into powers, not yet divided by their sum; dropped ones become 0 (the sum counts them).
///
/// `index` is the row's first index for dropout.
#[inline(always)]
pub(super) fn powers<S: Simd>(
    simd: S,
    row: &mut [f32],
    count: usize,
    scale: f32,
    dropout: Dropout,
    index: usize,
) -> RowStatistics {
    let lanes = S::F32_LANES;
    let (vectors, _) = S::as_mut_simd_f32s(&mut row[..count.next_multiple_of(lanes)]);
    let (whole, rest) = vectors.split_at_mut(count / lanes);
    let kept = first_lanes(simd, count % lanes);

    let lowest = simd.splat_f32s(f32::NEG_INFINITY);
    let mut most = [lowest; 4];
    let (fours, tail) = whole.as_chunks::<4>();
    for four in fours {
        for (most, &score) in most.iter_mut().zip(four) {
            *most = simd.max_f32s(*most, score);
        }
    }
    for &score in tail {
        most[0] = simd.max_f32s(most[0], score);
    }
    for &score in rest.iter() {
        most[1] = simd.max_f32s(most[1], simd.select_f32s(kept, score, lowest));
    }
    let most = simd.max_f32s(simd.max_f32s(most[0], most[1]), simd.max_f32s(most[2], most[3]));
    let shift = -simd.reduce_max_f32s(most) * scale;

    let (scales, shifts) = (simd.splat_f32s(scale), simd.splat_f32s(shift));
    let mut sum = simd.splat_f32s(0.0);
    for score in whole.iter_mut() {
        *score = power_of_two(simd, simd.mul_add_f32s(*score, scales, shifts));
        sum = simd.add_f32s(sum, *score);
    }
    for score in rest.iter_mut() {
        let power = power_of_two(simd, simd.mul_add_f32s(*score, scales, shifts));
        *score = simd.select_f32s(kept, power, simd.splat_f32s(0.0));
        sum = simd.add_f32s(sum, *score);
    }
    if !dropout.is_none() {
        for (i, power) in vectors.iter_mut().enumerate() {
            *power = dropout.apply(simd, Dropout::indices(simd, index + i * lanes), *power);
        }
    }
    RowStatistics { shift, inverse_sum: 1.0 / simd.reduce_sum_f32s(sum) }
}

/// What a row's gradient needs besides scores and products.
pub(super) struct RowGradient {
    pub(super) statistics: RowStatistics,
    pub(super) scale: f32,
    pub(super) dropout: Dropout,
    /// The row's first index for dropout.
    pub(super) index: usize,
}

/// Turns `count` scores into probabilities (dropped ones 0, the others scaled) and the gradients of
/// probabilities into gradients of scores, but for the factor `1 / sqrt(head_dim)`.
#[inline(always)]
pub(super) fn gradient<S: Simd>(simd: S, scores: &mut [f32], products: &mut [f32], count: usize, row: &RowGradient) {
    let lanes = S::F32_LANES;
    let padded = count.next_multiple_of(lanes);
    let (scores, _) = S::as_mut_simd_f32s(&mut scores[..padded]);
    let (products, _) = S::as_mut_simd_f32s(&mut products[..padded]);
    let (scales, shifts) = (simd.splat_f32s(row.scale), simd.splat_f32s(row.statistics.shift));
    let inverse = simd.splat_f32s(row.statistics.inverse_sum);
    let kept = first_lanes(simd, count % lanes);
    let (whole, dropped) = (count / lanes, !row.dropout.is_none());
    let mut along = simd.splat_f32s(0.0);
    for (i, (score, product)) in scores.iter_mut().zip(products.iter_mut()).enumerate() {
        let power = power_of_two(simd, simd.mul_add_f32s(*score, scales, shifts));
        *score = simd.mul_f32s(power, inverse);
        if dropped {
            *product = row.dropout.apply(simd, Dropout::indices(simd, row.index + i * lanes), *product);
        }
        if i == whole {
            *score = simd.select_f32s(kept, *score, simd.splat_f32s(0.0));
            *product = simd.select_f32s(kept, *product, simd.splat_f32s(0.0));
        }
        along = simd.mul_add_f32s(*score, *product, along);
    }
    // The sum over keys of p * dp could also be had as out . dout; but its terms are those that cancel below,
    // and where few keys share a row they must cancel exactly.
    let along = simd.splat_f32s(simd.reduce_sum_f32s(along));
    for (i, (score, product)) in scores.iter_mut().zip(products.iter_mut()).enumerate() {
        *product = simd.mul_f32s(*score, simd.sub_f32s(*product, along));
        if dropped {
            *score = row.dropout.apply(simd, Dropout::indices(simd, row.index + i * lanes), *score);
        }
    }
}
