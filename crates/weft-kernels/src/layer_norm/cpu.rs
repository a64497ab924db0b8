//! The CPU kernel: one row is read from memory once and then stays in the first-level cache.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::fresh::zeros;
use crate::simd::Level;

/// Rows that one task takes, and over which a partial sum of the parameters' gradients runs. Fixed, so that
/// the sums do not depend on the number of threads; 64 rows of 512 values are 128 KiB, a fraction of L2.
const ROWS_PER_PART: usize = 64;

/// `x` is `[rows, hidden]`, `gain` and `bias` are `[hidden]`.
pub(super) fn forward(level: Level, x: &[f32], gain: &[f32], bias: &[f32], epsilon: f32) -> Vec<f32> {
    let mut y = zeros(x.len());
    let part = (ROWS_PER_PART * gain.len()).max(1);
    y.par_chunks_mut(part).zip(x.par_chunks(part)).for_each(|(y, x)| level.run(Forward { x, gain, bias, epsilon, y }));
    y
}

/// The gradients of `x`, `gain` and `bias`, given that of the result.
pub(super) fn backward(level: Level, x: &[f32], gain: &[f32], dy: &[f32], epsilon: f32) -> [Vec<f32>; 3] {
    let hidden = gain.len();
    let mut dx = zeros(x.len());
    let part = (ROWS_PER_PART * hidden).max(1);
    let mut partial = vec![0.0; x.len().div_ceil(part) * 2 * hidden];
    dx.par_chunks_mut(part)
        .zip(x.par_chunks(part).zip(dy.par_chunks(part)))
        .zip(partial.par_chunks_mut((2 * hidden).max(1)))
        .for_each(|((dx, (x, dy)), sums)| {
            let (dgain, dbias) = sums.split_at_mut(hidden);
            level.run(Backward { x, gain, dy, epsilon, dx, dgain, dbias });
        });
    let mut sums = vec![0.0; 2 * hidden];
    for part in partial.chunks((2 * hidden).max(1)) {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    let dbias = sums.split_off(hidden);
    [dx, sums, dbias]
}

/// Mean and reciprocal standard deviation of a row.
#[inline(always)]
fn statistics<S: Simd>(simd: S, row: &[f32], epsilon: f32) -> (f32, f32) {
    let (vectors, rest) = S::as_simd_f32s(row);
    let count = row.len() as f32;
    let mut sum = simd.splat_f32s(0.0);
    for &x in vectors {
        sum = simd.add_f32s(sum, x);
    }
    let mean = (simd.reduce_sum_f32s(sum) + rest.iter().sum::<f32>()) / count;
    let mut squares = simd.splat_f32s(0.0);
    for &x in vectors {
        let centred = simd.sub_f32s(x, simd.splat_f32s(mean));
        squares = simd.mul_add_f32s(centred, centred, squares);
    }
    let tail = rest.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>();
    let variance = (simd.reduce_sum_f32s(squares) + tail) / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

struct Forward<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let hidden = self.gain.len();
        let (gains, gain_rest) = S::as_simd_f32s(self.gain);
        let (biases, bias_rest) = S::as_simd_f32s(self.bias);
        for (x, y) in self.x.chunks_exact(hidden).zip(self.y.chunks_exact_mut(hidden)) {
            let (mean, scale) = statistics(simd, x, self.epsilon);
            let (means, scales) = (simd.splat_f32s(mean), simd.splat_f32s(scale));
            let (xs, x_rest) = S::as_simd_f32s(x);
            let (ys, y_rest) = S::as_mut_simd_f32s(y);
            for (((y, &x), &gain), &bias) in ys.iter_mut().zip(xs).zip(gains).zip(biases) {
                let normal = simd.mul_f32s(simd.sub_f32s(x, means), scales);
                *y = simd.mul_add_f32s(normal, gain, bias);
            }
            for (((y, &x), &gain), &bias) in y_rest.iter_mut().zip(x_rest).zip(gain_rest).zip(bias_rest) {
                *y = (x - mean) * scale * gain + bias;
            }
        }
    }
}

struct Backward<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    dy: &'a [f32],
    epsilon: f32,
    dx: &'a mut [f32],
    dgain: &'a mut [f32],
    dbias: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let hidden = self.gain.len();
        let count = hidden as f32;
        let (gains, gain_rest) = S::as_simd_f32s(self.gain);
        let (dgains, dgain_rest) = S::as_mut_simd_f32s(self.dgain);
        let (dbiases, dbias_rest) = S::as_mut_simd_f32s(self.dbias);
        let rows = self.x.chunks_exact(hidden).zip(self.dy.chunks_exact(hidden));
        for ((x, dy), dx) in rows.zip(self.dx.chunks_exact_mut(hidden)) {
            let (mean, scale) = statistics(simd, x, self.epsilon);
            let (means, scales) = (simd.splat_f32s(mean), simd.splat_f32s(scale));
            let (xs, x_rest) = S::as_simd_f32s(x);
            let (dys, dy_rest) = S::as_simd_f32s(dy);
            let (dxs, dx_rest) = S::as_mut_simd_f32s(dx);

            // First pass: the parameters' sums, and the two means that dx needs.
            let (mut sum, mut along) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
            for (i, (&x, &dy)) in xs.iter().zip(dys).enumerate() {
                let normal = simd.mul_f32s(simd.sub_f32s(x, means), scales);
                let g = simd.mul_f32s(dy, gains[i]);
                sum = simd.add_f32s(sum, g);
                along = simd.mul_add_f32s(g, normal, along);
                dgains[i] = simd.mul_add_f32s(dy, normal, dgains[i]);
                dbiases[i] = simd.add_f32s(dbiases[i], dy);
            }
            let (mut sum, mut along) = (simd.reduce_sum_f32s(sum), simd.reduce_sum_f32s(along));
            for (i, (&x, &dy)) in x_rest.iter().zip(dy_rest).enumerate() {
                let normal = (x - mean) * scale;
                let g = dy * gain_rest[i];
                sum += g;
                along += g * normal;
                dgain_rest[i] += dy * normal;
                dbias_rest[i] += dy;
            }

            // Second pass: dx = (g - mean(g) - normal * mean(g * normal)) / deviation
            let (sum, along) = (sum / count, along / count);
            let (sums, alongs) = (simd.splat_f32s(sum), simd.splat_f32s(along));
            for (i, dx) in dxs.iter_mut().enumerate() {
                let normal = simd.mul_f32s(simd.sub_f32s(xs[i], means), scales);
                let g = simd.sub_f32s(simd.mul_f32s(dys[i], gains[i]), sums);
                *dx = simd.mul_f32s(simd.negate_mul_add_f32s(normal, alongs, g), scales);
            }
            for (i, dx) in dx_rest.iter_mut().enumerate() {
                let normal = (x_rest[i] - mean) * scale;
                *dx = (dy_rest[i] * gain_rest[i] - sum - normal * along) * scale;
            }
        }
    }
}
