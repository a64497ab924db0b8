//! One query over one sentence, forward and backward: what a worker does alone.
use pulp::Simd;

use crate::recurrent::team::{read, write};
use crate::simd::{exp, tanh};

/// The source of one sentence: its `length` keys `[length, query_size]` and values `[length, size]`.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) keys: &'a [f32],
    pub(super) values: &'a [f32],
    /// `[query_size]`, the same for all sentences.
    pub(super) score: &'a [f32],
}

/// Calls `body(start, count)` for each vector of a row.
#[inline(always)]
fn vectors<S: Simd>(length: usize, mut body: impl FnMut(usize, usize)) {
    for start in (0..length).step_by(S::F32_LANES) {
        body(start, S::F32_LANES.min(length - start));
    }
}

/// Writes the weights `[length]` and the context; zeros for an empty sentence.
#[inline(always)]
pub(super) fn attend<S: Simd>(simd: S, query: &[f32], source: Source<'_>, weights: &mut [f32], context: &mut [f32]) {
    let zero = simd.splat_f32s(0.0);
    let (query_size, size) = (query.len(), context.len());
    for (at, energy) in weights.iter_mut().enumerate() {
        let key = &source.keys[at * query_size..(at + 1) * query_size];
        let mut sum = zero;
        vectors::<S>(
            query_size,
            #[inline(always)]
            |start, count| {
                let argument = simd.add_f32s(read(simd, query, start, count), read(simd, key, start, count));
                sum = simd.mul_add_f32s(tanh(simd, argument), read(simd, source.score, start, count), sum);
            },
        );
        *energy = simd.reduce_sum_f32s(sum);
    }
    softmax(simd, weights);
    vectors::<S>(
        size,
        #[inline(always)]
        |start, count| {
            let mut sum = zero;
            for (at, &weight) in weights.iter().enumerate() {
                let value = read(simd, source.values, at * size + start, count);
                sum = simd.mul_add_f32s(simd.splat_f32s(weight), value, sum);
            }
            write(simd, context, start, count, sum);
        },
    );
}

/// Energies to weights, in place. NaN or infinite energies give NaN.
#[inline(always)]
fn softmax<S: Simd>(simd: S, energies: &mut [f32]) {
    let largest = energies.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    let length = energies.len();
    vectors::<S>(
        length,
        #[inline(always)]
        |start, count| {
            let shifted = simd.sub_f32s(read(simd, energies, start, count), simd.splat_f32s(largest));
            write(simd, energies, start, count, exp(simd, shifted));
        },
    );
    energies.iter().for_each(|&weight| sum += weight);
    energies.iter_mut().for_each(|weight| *weight /= sum);
}

/// The gradients that one query gives.
pub(super) struct RowGradients<'a> {
    /// Written, `[query_size]`.
    pub(super) dquery: &'a mut [f32],
    /// Added to, `[length, query_size]`.
    pub(super) dkeys: &'a mut [f32],
    /// Added to, `[query_size]`.
    pub(super) dscore: &'a mut [f32],
}

/// Back through [`attend`] (but to the values), from the gradients of the context and, where `energies` holds
/// them on entry, of the weights. On return `energies` `[length]` holds those of the energies.
#[inline(always)]
pub(super) fn attend_backward<S: Simd>(
    simd: S,
    query: &[f32],
    source: Source<'_>,
    weights: &[f32],
    dcontext: &[f32],
    energies: &mut [f32],
    gradients: RowGradients<'_>,
) {
    let zero = simd.splat_f32s(0.0);
    let (query_size, size) = (query.len(), dcontext.len());
    for (at, energy) in energies.iter_mut().enumerate() {
        let value = &source.values[at * size..(at + 1) * size];
        let mut sum = zero;
        vectors::<S>(
            size,
            #[inline(always)]
            |start, count| {
                sum = simd.mul_add_f32s(read(simd, value, start, count), read(simd, dcontext, start, count), sum);
            },
        );
        *energy += simd.reduce_sum_f32s(sum);
    }
    let mean: f32 = energies.iter().zip(weights).map(|(d, w)| d * w).sum();
    energies.iter_mut().zip(weights).for_each(|(d, w)| *d = w * (*d - mean));
    let RowGradients { dquery, dkeys, dscore } = gradients;
    vectors::<S>(
        query_size,
        #[inline(always)]
        |start, count| {
            let query = read(simd, query, start, count);
            let score = read(simd, source.score, start, count);
            let mut query_sum = zero;
            let mut score_sum = read(simd, dscore, start, count);
            for (at, &denergy) in energies.iter().enumerate() {
                let key = at * query_size + start;
                let t = tanh(simd, simd.add_f32s(query, read(simd, source.keys, key, count)));
                let denergy = simd.splat_f32s(denergy);
                score_sum = simd.mul_add_f32s(denergy, t, score_sum);
                let slope = simd.negate_mul_add_f32s(t, t, simd.splat_f32s(1.0));
                let d = simd.mul_f32s(simd.mul_f32s(denergy, score), slope);
                query_sum = simd.add_f32s(query_sum, d);
                let sum = simd.add_f32s(read(simd, dkeys, key, count), d);
                write(simd, dkeys, key, count, sum);
            }
            write(simd, dquery, start, count, query_sum);
            write(simd, dscore, start, count, score_sum);
        },
    );
}

/// `dvalues[j] += weights[j] * dcontext`
#[inline(always)]
pub(super) fn values_backward<S: Simd>(simd: S, weights: &[f32], dcontext: &[f32], dvalues: &mut [f32]) {
    let size = dcontext.len();
    for (at, &weight) in weights.iter().enumerate() {
        vectors::<S>(
            size,
            #[inline(always)]
            |start, count| {
                let old = read(simd, dvalues, at * size + start, count);
                let gradient = read(simd, dcontext, start, count);
                write(
                    simd,
                    dvalues,
                    at * size + start,
                    count,
                    simd.mul_add_f32s(simd.splat_f32s(weight), gradient, old),
                );
            },
        );
    }
}
