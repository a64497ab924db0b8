//! The CPU kernel: bound by memory.
#![expect(unsafe_code, reason = "results are written into new memory")]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::fresh::{Fresh, zeroed};
use crate::lanes::{load, store};
use crate::simd::{Level, sigmoid};

/// Values of the result that one task takes: 64 KiB, so that a task outweighs its own start.
const PART: usize = 1 << 14;

/// Rows of `inner` columns that one task takes.
fn rows_per_task(inner: usize) -> usize {
    (PART / inner.max(1)).max(1)
}

/// The result, rows of `inner` columns.
pub(super) fn forward(level: Level, x: &[f32], inner: usize) -> Vec<f32> {
    let size = x.len() / 2;
    let mut y = Fresh::new(size);
    let values = rows_per_task(inner) * inner.max(1);
    y.room()[..size].par_chunks_mut(values).zip(x.par_chunks(2 * values)).for_each(|(y, x)| {
        level.run(Forward { x, y: zeroed(y), inner });
    });
    // SAFETY: each part was written.
    unsafe { y.filled(size) }
}

struct Forward<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    inner: usize,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, y, inner } = self;
        for (x, y) in x.chunks_exact(2 * inner).zip(y.chunks_exact_mut(inner)) {
            let (gates, ups) = x.split_at(inner);
            for at in (0..inner).step_by(S::F32_LANES) {
                let count = S::F32_LANES.min(inner - at);
                let gate = load(simd, gates, at, count);
                let passed = simd.mul_f32s(gate, sigmoid(simd, gate));
                store(simd, y, at, count, simd.mul_f32s(passed, load(simd, ups, at, count)));
            }
        }
    }
}

/// The gradient of `x`, given that of the result.
pub(super) fn backward(level: Level, x: &[f32], dy: &[f32], inner: usize) -> Vec<f32> {
    let mut dx = Fresh::new(x.len());
    let values = rows_per_task(inner) * inner.max(1);
    let operands = x.par_chunks(2 * values).zip(dy.par_chunks(values));
    dx.room()[..x.len()].par_chunks_mut(2 * values).zip(operands).for_each(|(dx, (x, dy))| {
        level.run(Backward { x, dy, dx: zeroed(dx), inner });
    });
    // SAFETY: each part was written.
    unsafe { dx.filled(x.len()) }
}

struct Backward<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    inner: usize,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, dy, dx, inner } = self;
        let rows = x.chunks_exact(2 * inner).zip(dy.chunks_exact(inner)).zip(dx.chunks_exact_mut(2 * inner));
        for ((x, dy), dx) in rows {
            let ((gates, ups), (dgates, dups)) = (x.split_at(inner), dx.split_at_mut(inner));
            for at in (0..inner).step_by(S::F32_LANES) {
                let count = S::F32_LANES.min(inner - at);
                let (gate, dy) = (load(simd, gates, at, count), load(simd, dy, at, count));
                let open = sigmoid(simd, gate);
                let closed = simd.sub_f32s(simd.splat_f32s(1.0), open);
                let slope = simd.mul_f32s(open, simd.mul_add_f32s(gate, closed, simd.splat_f32s(1.0)));
                let dgate = simd.mul_f32s(simd.mul_f32s(dy, load(simd, ups, at, count)), slope);
                store(simd, dgates, at, count, dgate);
                store(simd, dups, at, count, simd.mul_f32s(dy, simd.mul_f32s(gate, open)));
            }
        }
    }
}
