//! The CPU kernel: bound by memory, the hash included.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::Dropout;
use crate::simd::Level;

/// Elements that one task takes: 64 KiB, so that a task outweighs its own start.
const PART: usize = 1 << 14;

/// Applies `dropout` to `x`, whose first element has index 0.
pub(super) fn in_place(level: Level, x: &mut [f32], dropout: Dropout) {
    x.par_chunks_mut(PART).enumerate().for_each(|(part, x)| level.run(Apply { x, start: part * PART, dropout }));
}

struct Apply<'a> {
    x: &'a mut [f32],
    start: usize,
    dropout: Dropout,
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, start, dropout } = self;
        let (vectors, rest) = S::as_mut_simd_f32s(x);
        let done = start + vectors.len() * S::F32_LANES;
        for (i, x) in vectors.iter_mut().enumerate() {
            *x = dropout.apply(simd, Dropout::indices(simd, start + i * S::F32_LANES), *x);
        }
        for (i, x) in rest.iter_mut().enumerate() {
            *x = dropout.at(done + i, *x);
        }
    }
}
