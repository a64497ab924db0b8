//! The CPU kernel: one row is read from memory once and then stays in the first-level cache.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::fresh::zeros;
use crate::lanes::{load, store, vectors};
use crate::rms_norm::cpu::ROWS_PER_PART;
use crate::simd::{Level, sigmoid};

/// `x` and `gate` are `[rows, hidden]`, `gain` is `[hidden]`.
pub(super) fn forward(level: Level, x: &[f32], gate: &[f32], gain: &[f32], epsilon: f32) -> Vec<f32> {
    let mut y = zeros(x.len());
    let part = (ROWS_PER_PART * gain.len()).max(1);
    y.par_chunks_mut(part)
        .zip(x.par_chunks(part).zip(gate.par_chunks(part)))
        .for_each(|(y, (x, gate))| level.run(Forward { x, gate, gain, epsilon, y }));
    y
}

/// The gradients of `x`, `gate` and `gain`, given that of the result.
pub(super) fn backward(level: Level, [x, gate]: [&[f32]; 2], gain: &[f32], dy: &[f32], epsilon: f32) -> [Vec<f32>; 3] {
    let hidden = gain.len();
    let (mut dx, mut dgate) = (zeros(x.len()), zeros(x.len()));
    let part = (ROWS_PER_PART * hidden).max(1);
    let mut partial = vec![0.0; x.len().div_ceil(part) * hidden];
    let from = x.par_chunks(part).zip(gate.par_chunks(part)).zip(dy.par_chunks(part));
    let to = dx.par_chunks_mut(part).zip(dgate.par_chunks_mut(part)).zip(partial.par_chunks_mut(hidden.max(1)));
    from.zip(to).for_each(|(((x, gate), dy), ((dx, dgate), dgain))| {
        level.run(Backward { x, gate, gain, dy, epsilon, dx, dgate, dgain });
    });
    let mut dgain = vec![0.0; hidden];
    for part in partial.chunks(hidden.max(1)) {
        dgain.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    [dx, dgate, dgain]
}

/// Writes `x silu(gate)`, and returns the reciprocal of its root mean square.
#[inline(always)]
fn open<S: Simd>(simd: S, x: &[f32], gate: &[f32], epsilon: f32, h: &mut [f32]) -> f32 {
    let mut squares = simd.splat_f32s(0.0);
    for (at, width) in vectors::<S>(&(0..x.len())) {
        let gate = load(simd, gate, at, width);
        let opened = simd.mul_f32s(load(simd, x, at, width), simd.mul_f32s(gate, sigmoid(simd, gate)));
        squares = simd.mul_add_f32s(opened, opened, squares);
        store(simd, h, at, width, opened);
    }
    1.0 / (simd.reduce_sum_f32s(squares) / x.len() as f32 + epsilon).sqrt()
}

struct Forward<'a> {
    x: &'a [f32],
    gate: &'a [f32],
    gain: &'a [f32],
    epsilon: f32,
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let hidden = self.gain.len();
        let rows = self.x.chunks_exact(hidden).zip(self.gate.chunks_exact(hidden));
        for ((x, gate), y) in rows.zip(self.y.chunks_exact_mut(hidden)) {
            let scale = simd.splat_f32s(open(simd, x, gate, self.epsilon, y));
            for (at, width) in vectors::<S>(&(0..hidden)) {
                let normal = simd.mul_f32s(load(simd, y, at, width), scale);
                store(simd, y, at, width, simd.mul_f32s(normal, load(simd, self.gain, at, width)));
            }
        }
    }
}

struct Backward<'a> {
    x: &'a [f32],
    gate: &'a [f32],
    gain: &'a [f32],
    dy: &'a [f32],
    epsilon: f32,
    dx: &'a mut [f32],
    dgate: &'a mut [f32],
    dgain: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { gain, epsilon, dgain, .. } = self;
        let hidden = gain.len();
        let from = self.x.chunks_exact(hidden).zip(self.gate.chunks_exact(hidden)).zip(self.dy.chunks_exact(hidden));
        let to = self.dx.chunks_exact_mut(hidden).zip(self.dgate.chunks_exact_mut(hidden));
        for (((x, gate), dy), (dx, dgate)) in from.zip(to) {
            // `dx` holds x silu(gate) until its gradient is known.
            let scale = open(simd, x, gate, epsilon, dx);
            let scales = simd.splat_f32s(scale);
            let mut along = simd.splat_f32s(0.0);
            for (at, width) in vectors::<S>(&(0..hidden)) {
                let normal = simd.mul_f32s(load(simd, dx, at, width), scales);
                let dy = load(simd, dy, at, width);
                along = simd.mul_add_f32s(simd.mul_f32s(dy, load(simd, gain, at, width)), normal, along);
                let sum = simd.mul_add_f32s(dy, normal, load(simd, dgain, at, width));
                store(simd, dgain, at, width, sum);
            }
            // dh = (g - normal * mean(g * normal)) / root, where g = dy * gain
            let along = simd.splat_f32s(simd.reduce_sum_f32s(along) / hidden as f32);
            for (at, width) in vectors::<S>(&(0..hidden)) {
                let normal = simd.mul_f32s(load(simd, dx, at, width), scales);
                let g = simd.mul_f32s(load(simd, dy, at, width), load(simd, gain, at, width));
                let dh = simd.mul_f32s(simd.negate_mul_add_f32s(normal, along, g), scales);
                let (x, gate) = (load(simd, x, at, width), load(simd, gate, at, width));
                let sigmoid = sigmoid(simd, gate);
                // SiLU's derivative is sigmoid (1 + gate (1 - sigmoid)).
                let slope = simd.mul_f32s(gate, simd.sub_f32s(simd.splat_f32s(1.0), sigmoid));
                let slope = simd.mul_add_f32s(sigmoid, slope, sigmoid);
                store(simd, dx, at, width, simd.mul_f32s(dh, simd.mul_f32s(gate, sigmoid)));
                store(simd, dgate, at, width, simd.mul_f32s(simd.mul_f32s(dh, x), slope));
            }
        }
    }
}
