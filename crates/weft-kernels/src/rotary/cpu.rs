//! The CPU kernel: bound by memory.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::Rotation;
use crate::lanes::{load, store};
use crate::simd::Level;

/// Values that one task takes: 64 KiB, so that a task outweighs its own start.
const PART: usize = 1 << 14;

/// `x` `[batch, time, width]` with the heads in its first `columns` columns rotated.
pub(super) fn rotated(
    level: Level,
    x: &[f32],
    [time, width]: [usize; 2],
    columns: usize,
    rotation: &Rotation,
) -> Vec<f32> {
    let mut y = x.to_vec();
    let rows = (PART / width.max(1)).max(1);
    y.par_chunks_mut(rows * width.max(1)).enumerate().for_each(|(part, y)| {
        level.run(Rotate { y, first: part * rows, time, width, columns, rotation });
    });
    y
}

struct Rotate<'a> {
    /// Some rows, of which the first is row `first` of the tensor.
    y: &'a mut [f32],
    first: usize,
    time: usize,
    width: usize,
    columns: usize,
    rotation: &'a Rotation,
}

impl WithSimd for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { y, first, time, width, columns, rotation } = self;
        let half = rotation.half;
        for (i, row) in y.chunks_exact_mut(width).enumerate() {
            let angles = &rotation.table[(first + i) % time * 2 * half..][..2 * half];
            let (cosines, sines) = angles.split_at(half);
            for head in row[..columns].chunks_exact_mut(2 * half) {
                let (a, b) = head.split_at_mut(half);
                for at in (0..half).step_by(S::F32_LANES) {
                    let count = S::F32_LANES.min(half - at);
                    let (x, y) = (load(simd, a, at, count), load(simd, b, at, count));
                    let (cos, mut sin) = (load(simd, cosines, at, count), load(simd, sines, at, count));
                    if rotation.inverse {
                        sin = simd.neg_f32s(sin);
                    }
                    store(simd, a, at, count, simd.sub_f32s(simd.mul_f32s(x, cos), simd.mul_f32s(y, sin)));
                    store(simd, b, at, count, simd.add_f32s(simd.mul_f32s(y, cos), simd.mul_f32s(x, sin)));
                }
            }
        }
    }
}
