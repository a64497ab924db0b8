//! The CPU kernel: one row is read from memory once and then stays in the first-level cache.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::fresh::zeros;
use crate::simd::Level;

/// Rows that one task takes, and over which a partial sum of the gain's gradient runs. Fixed, so that the sums do not
/// depend on the number of threads; 64 rows of 512 values are 128 KiB, a fraction of the second-level cache.
pub(super) const ROWS_PER_PART: usize = 64;

/// `x` is `[rows, hidden]`, `gain` is `[hidden]`.
pub(super) fn forward(level: Level, x: &[f32], gain: &[f32], epsilon: f32) -> Vec<f32> {
    let mut y = zeros(x.len());
    let part = (ROWS_PER_PART * gain.len()).max(1);
    y.par_chunks_mut(part).zip(x.par_chunks(part)).for_each(|(y, x)| level.run(Forward { x, gain, epsilon, y }));
    y
}

/// The gradients of `x` and `gain`, given that of the result.
pub(super) fn backward(level: Level, x: &[f32], gain: &[f32], dy: &[f32], epsilon: f32) -> [Vec<f32>; 2] {
    let hidden = gain.len();
    let mut dx = zeros(x.len());
    let part = (ROWS_PER_PART * hidden).max(1);
    let mut partial = vec![0.0; x.len().div_ceil(part) * hidden];
    dx.par_chunks_mut(part)
        .zip(x.par_chunks(part).zip(dy.par_chunks(part)))
        .zip(partial.par_chunks_mut(hidden.max(1)))
        .for_each(|((dx, (x, dy)), dgain)| level.run(Backward { x, gain, dy, epsilon, dx, dgain }));
    let mut dgain = vec![0.0; hidden];
    for part in partial.chunks(hidden.max(1)) {
        dgain.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    [dx, dgain]
}

/// The reciprocal root mean square of a row.
#[inline(always)]
fn scale<S: Simd>(simd: S, row: &[f32], epsilon: f32) -> f32 {
    let (vectors, rest) = S::as_simd_f32s(row);
    let mut squares = simd.splat_f32s(0.0);
    for &x in vectors {
        squares = simd.mul_add_f32s(x, x, squares);
    }
    let mut sum = simd.reduce_sum_f32s(squares);
    for &x in rest {
        sum += x * x;
    }
    1.0 / (sum / row.len() as f32 + epsilon).sqrt()
}

struct Forward<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    epsilon: f32,
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let hidden = self.gain.len();
        let (gains, gain_rest) = S::as_simd_f32s(self.gain);
        for (x, y) in self.x.chunks_exact(hidden).zip(self.y.chunks_exact_mut(hidden)) {
            let scale = scale(simd, x, self.epsilon);
            let (xs, x_rest) = S::as_simd_f32s(x);
            let (ys, y_rest) = S::as_mut_simd_f32s(y);
            for ((y, &x), &gain) in ys.iter_mut().zip(xs).zip(gains) {
                *y = simd.mul_f32s(simd.mul_f32s(x, simd.splat_f32s(scale)), gain);
            }
            for ((y, &x), &gain) in y_rest.iter_mut().zip(x_rest).zip(gain_rest) {
                *y = x * scale * gain;
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
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let hidden = self.gain.len();
        let (gains, gain_rest) = S::as_simd_f32s(self.gain);
        let (dgains, dgain_rest) = S::as_mut_simd_f32s(self.dgain);
        let rows = self.x.chunks_exact(hidden).zip(self.dy.chunks_exact(hidden));
        for ((x, dy), dx) in rows.zip(self.dx.chunks_exact_mut(hidden)) {
            let scale = scale(simd, x, self.epsilon);
            let scales = simd.splat_f32s(scale);
            let (xs, x_rest) = S::as_simd_f32s(x);
            let (dys, dy_rest) = S::as_simd_f32s(dy);
            let (dxs, dx_rest) = S::as_mut_simd_f32s(dx);
            let mut along = simd.splat_f32s(0.0);
            for (i, (&x, &dy)) in xs.iter().zip(dys).enumerate() {
                let normal = simd.mul_f32s(x, scales);
                along = simd.mul_add_f32s(simd.mul_f32s(dy, gains[i]), normal, along);
                dgains[i] = simd.mul_add_f32s(dy, normal, dgains[i]);
            }
            let mut along = simd.reduce_sum_f32s(along);
            for (i, (&x, &dy)) in x_rest.iter().zip(dy_rest).enumerate() {
                along += dy * gain_rest[i] * x * scale;
                dgain_rest[i] += dy * x * scale;
            }
            // dx = (g - normal * mean(g * normal)) / root, where g = dy * gain
            let along = along / hidden as f32;
            for (i, dx) in dxs.iter_mut().enumerate() {
                let normal = simd.mul_f32s(xs[i], scales);
                let g = simd.mul_f32s(dys[i], gains[i]);
                *dx = simd.mul_f32s(simd.negate_mul_add_f32s(normal, simd.splat_f32s(along), g), scales);
            }
            for (i, dx) in dx_rest.iter_mut().enumerate() {
                *dx = (dy_rest[i] * gain_rest[i] - x_rest[i] * scale * along) * scale;
            }
        }
    }
}
