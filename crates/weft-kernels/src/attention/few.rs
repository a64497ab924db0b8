//! One query against a cache of keys and values: decoding. Each key and value is used once or a few times, so
//! they are read where they lie; packing them would cost more than the products.

use pulp::Simd;

/// Sentences with at most this many queries go this way.
pub(super) const MOST_QUERIES: usize = 2;

/// `scores[j] = q . k[j]` for keys that stand `stride` apart.
#[inline(always)]
pub(super) fn scores<S: Simd>(simd: S, q: &[f32], k: &[f32], stride: usize, scores: &mut [f32]) {
    let (q_vectors, q_rest) = S::as_simd_f32s(q);
    let q_rest = simd.partial_load_f32s(q_rest);
    let whole = q_vectors.len() * S::F32_LANES;
    for (j, score) in scores.iter_mut().enumerate() {
        let k = &k[j * stride..][..q.len()];
        let (k_vectors, k_rest) = S::as_simd_f32s(k);
        let mut sum = simd.splat_f32s(0.0);
        for (&q, &k) in q_vectors.iter().zip(k_vectors) {
            sum = simd.mul_add_f32s(q, k, sum);
        }
        if whole < q.len() {
            sum = simd.mul_add_f32s(q_rest, simd.partial_load_f32s(k_rest), sum);
        }
        *score = simd.reduce_sum_f32s(sum);
    }
}

/// `sums += sum over j of weights[j] * v[j]`.
#[inline(always)]
pub(super) fn add_sums<S: Simd>(simd: S, weights: &[f32], v: &[f32], stride: usize, sums: &mut [f32]) {
    let mut start = 0;
    while start < sums.len() {
        let vectors = (sums.len() - start) / S::F32_LANES;
        let width = match vectors {
            0 => columns::<S, 1>(simd, weights, &v[start..], stride, &mut sums[start..]),
            1 => columns::<S, 1>(simd, weights, &v[start..], stride, &mut sums[start..]),
            2 | 3 => columns::<S, 2>(simd, weights, &v[start..], stride, &mut sums[start..]),
            _ => columns::<S, 4>(simd, weights, &v[start..], stride, &mut sums[start..]),
        };
        start += width;
    }
}

/// [`add_sums`] for the first `VECTORS` vectors of columns, or for what is left if that is less than a vector.
/// Returns how many columns that was.
#[inline(always)]
fn columns<S: Simd, const VECTORS: usize>(
    simd: S,
    weights: &[f32],
    v: &[f32],
    stride: usize,
    sums: &mut [f32],
) -> usize {
    let lanes = S::F32_LANES;
    let width = (VECTORS * lanes).min(sums.len());
    let mut chains = [simd.splat_f32s(0.0); VECTORS];
    if width == VECTORS * lanes {
        for (j, &weight) in weights.iter().enumerate() {
            let weight = simd.splat_f32s(weight);
            let (v, _) = S::as_simd_f32s(&v[j * stride..][..width]);
            for (chain, &v) in chains.iter_mut().zip(v) {
                *chain = simd.mul_add_f32s(weight, v, *chain);
            }
        }
        for (sums, chain) in S::as_mut_simd_f32s(sums).0.iter_mut().zip(chains) {
            *sums = simd.add_f32s(*sums, chain);
        }
    } else {
        let mut chain = chains[0];
        for (j, &weight) in weights.iter().enumerate() {
            let v = simd.partial_load_f32s(&v[j * stride..][..width]);
            chain = simd.mul_add_f32s(simd.splat_f32s(weight), v, chain);
        }
        let before = simd.partial_load_f32s(&sums[..width]);
        simd.partial_store_f32s(&mut sums[..width], simd.add_f32s(before, chain));
    }
    width
}
