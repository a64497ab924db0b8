//! The CPU kernel: bound by memory.
#![expect(unsafe_code, reason = "results are written into new memory")]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::Dropout;
use crate::fresh::{Fresh, copied, zeroed};
use crate::lanes::load;
use crate::simd::{Level, sigmoid};

/// Elements that one task takes: 64 KiB of each operand, so that a task outweighs its own start.
const PART: usize = 1 << 14;

/// The result, of the shape of the operands.
pub(super) fn forward(level: Level, x: &[f32], gate: &[f32], residual: &[f32], dropout: Dropout) -> Vec<f32> {
    let mut y = Fresh::new(x.len());
    let operands = x.par_chunks(PART).zip(gate.par_chunks(PART)).zip(residual.par_chunks(PART));
    y.room()[..x.len()].par_chunks_mut(PART).zip(operands).enumerate().for_each(
        |(part, (room, ((x, gate), residual)))| {
            level.run(Forward { x, gate, y: copied(room, residual), start: part * PART, dropout });
        },
    );
    // SAFETY: each part was written.
    unsafe { y.filled(x.len()) }
}

struct Forward<'a> {
    x: &'a [f32],
    gate: &'a [f32],
    /// Holds the residual before.
    y: &'a mut [f32],
    start: usize,
    dropout: Dropout,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, gate, y, start, dropout } = self;
        for (i, y) in y.chunks_mut(S::F32_LANES).enumerate() {
            let (at, width) = (i * S::F32_LANES, y.len());
            let open = sigmoid(simd, load(simd, gate, at, width));
            let mut passed = simd.mul_f32s(open, load(simd, x, at, width));
            if !dropout.is_none() {
                passed = dropout.apply(simd, Dropout::indices(simd, start + at), passed);
            }
            let sum = simd.add_f32s(load(simd, y, 0, width), passed);
            store(simd, y, sum);
        }
    }
}

/// The gradients of `x` and `gate`, given that of the result.
pub(super) fn backward(level: Level, x: &[f32], gate: &[f32], dy: &[f32], dropout: Dropout) -> [Vec<f32>; 2] {
    let [mut dx, mut dgate] = [Fresh::new(x.len()), Fresh::new(x.len())];
    let rooms = [&mut dx, &mut dgate].map(|fresh| &mut fresh.room()[..x.len()]);
    let [to_dx, to_dgate] = rooms.map(|room| room.par_chunks_mut(PART));
    let operands = x.par_chunks(PART).zip(gate.par_chunks(PART)).zip(dy.par_chunks(PART));
    to_dx.zip(to_dgate).zip(operands).enumerate().for_each(|(part, ((dx, dgate), ((x, gate), dy)))| {
        level.run(Backward { x, gate, dy, dx: zeroed(dx), dgate: zeroed(dgate), start: part * PART, dropout });
    });
    // SAFETY: each part was written.
    unsafe { [dx.filled(x.len()), dgate.filled(x.len())] }
}

struct Backward<'a> {
    x: &'a [f32],
    gate: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    dgate: &'a mut [f32],
    start: usize,
    dropout: Dropout,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, gate, dy, dx, dgate, start, dropout } = self;
        for (i, (dx, dgate)) in dx.chunks_mut(S::F32_LANES).zip(dgate.chunks_mut(S::F32_LANES)).enumerate() {
            let (at, width) = (i * S::F32_LANES, dx.len());
            let mut dy = load(simd, dy, at, width);
            if !dropout.is_none() {
                dy = dropout.apply(simd, Dropout::indices(simd, start + at), dy);
            }
            let open = sigmoid(simd, load(simd, gate, at, width));
            let closed = simd.sub_f32s(simd.splat_f32s(1.0), open);
            let passed = simd.mul_f32s(dy, open);
            store(simd, dx, passed);
            store(simd, dgate, simd.mul_f32s(simd.mul_f32s(passed, load(simd, x, at, width)), closed));
        }
    }
}

/// Writes as many lanes as there is room for.
#[inline(always)]
fn store<S: Simd>(simd: S, to: &mut [f32], lanes: S::f32s) {
    match S::as_mut_simd_f32s(to).0 {
        [whole, ..] => *whole = lanes,
        [] => simd.partial_store_f32s(to, lanes),
    }
}
