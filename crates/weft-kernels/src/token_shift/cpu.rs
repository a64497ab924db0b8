//! The CPU kernel: whole rows pass, one after the other as they lie in memory.
#![expect(unsafe_code, reason = "tasks write different rows of the same results")]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::fresh::zeros;
use crate::lanes::{Shared, load, store, vectors};
use crate::simd::Level;

/// Positions of a task, over which its partial sum of the gradient of `mix` runs: fixed, so that the sums do not depend
/// on the number of threads.
const POSITIONS: usize = 64;

/// The operands; see [`token_shift`](super::token_shift).
pub(super) struct Shift<'a> {
    pub time: usize,
    pub hidden: usize,
    pub lengths: &'a [usize],
    pub x: &'a [f32],
    pub mix: &'a [f32],
    pub earlier: &'a [f32],
}

/// Some positions of a sentence.
struct Part {
    batch: usize,
    positions: Range<usize>,
}

impl Shift<'_> {
    /// Parts of a sentence.
    fn parts(&self) -> usize {
        self.time.div_ceil(POSITIONS)
    }

    /// Calls `work` for each part of each sentence, on all threads.
    fn for_each_part(&self, work: impl Fn(usize, Part) + Sync) {
        (0..self.lengths.len() * self.parts()).into_par_iter().for_each(|index| {
            let (batch, part) = (index / self.parts(), index % self.parts());
            let end = self.lengths[batch].min((part + 1) * POSITIONS);
            work(index, Part { batch, positions: part * POSITIONS..end });
        });
    }

    /// Where a position's values begin.
    fn at(&self, batch: usize, t: usize) -> usize {
        (batch * self.time + t) * self.hidden
    }

    /// Some channels of the position before.
    #[inline(always)]
    fn before<S: Simd>(&self, simd: S, batch: usize, t: usize, [from, width]: [usize; 2]) -> S::f32s {
        match t {
            0 => load(simd, self.earlier, batch * self.hidden + from, width),
            _ => load(simd, self.x, self.at(batch, t - 1) + from, width),
        }
    }

    /// `mix` and `1 - mix` of some channels.
    #[inline(always)]
    fn shares<S: Simd>(&self, simd: S, from: usize, width: usize) -> [S::f32s; 2] {
        let mix = load(simd, self.mix, from, width);
        [mix, simd.sub_f32s(simd.splat_f32s(1.0), mix)]
    }
}

/// The result, `[batch, time, hidden]`.
pub(super) fn forward(level: Level, shift: &Shift<'_>) -> Vec<f32> {
    let mut y = zeros(shift.x.len());
    let to = Shared::new(&mut y);
    shift.for_each_part(|_, part| level.run(Forward { shift, part, to }));
    y
}

struct Forward<'a> {
    shift: &'a Shift<'a>,
    part: Part,
    to: Shared,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shift, part: Part { batch, positions }, to } = self;
        for t in positions {
            let at = shift.at(batch, t);
            for (from, width) in vectors::<S>(&(0..shift.hidden)) {
                let [mix, rest] = shift.shares(simd, from, width);
                let before = shift.before(simd, batch, t, [from, width]);
                let x = load(simd, shift.x, at + from, width);
                let y = simd.mul_add_f32s(mix, x, simd.mul_f32s(rest, before));
                // SAFETY: these positions are this task's.
                unsafe { to.store(simd, at + from, width, y) };
            }
        }
    }
}

/// The gradients of `x`, `mix` and `earlier`, from that of the result.
pub(super) fn backward(level: Level, shift: &Shift<'_>, gradient: &[f32]) -> [Vec<f32>; 3] {
    let hidden = shift.hidden;
    let (mut x, mut earlier) = (zeros(shift.x.len()), vec![0.0; shift.earlier.len()]);
    // Of `mix`, for each part: added in order, so that they do not depend on the threads.
    let mut partial = vec![0.0; shift.lengths.len() * shift.parts() * hidden];
    let to = [&mut x, &mut earlier, &mut partial].map(|values| Shared::new(values));
    shift.for_each_part(|index, part| level.run(Backward { shift, index, part, gradient, to }));
    let mut mix = vec![0.0; hidden];
    for part in partial.chunks(hidden.max(1)) {
        mix.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    [x, mix, earlier]
}

struct Backward<'a> {
    shift: &'a Shift<'a>,
    index: usize,
    part: Part,
    gradient: &'a [f32],
    /// The gradients of `x` and `earlier`, and of `mix` for each part, `[batch, parts, hidden]`.
    to: [Shared; 3],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shift, index, part: Part { batch, positions }, gradient, to: [to_x, to_earlier, to_mix] } = self;
        let (hidden, length) = (shift.hidden, shift.lengths[batch]);
        // SAFETY: the sums of this part are this task's.
        let sums = unsafe { to_mix.part(index * hidden, hidden) };
        for t in positions {
            let at = shift.at(batch, t);
            for (from, width) in vectors::<S>(&(0..hidden)) {
                let [mix, rest] = shift.shares(simd, from, width);
                let x = load(simd, shift.x, at + from, width);
                let before = shift.before(simd, batch, t, [from, width]);
                let dy = load(simd, gradient, at + from, width);
                let next = match t + 1 < length {
                    true => load(simd, gradient, at + hidden + from, width),
                    false => simd.splat_f32s(0.0),
                };
                let sum = load(simd, sums, from, width);
                store(simd, sums, from, width, simd.mul_add_f32s(dy, simd.sub_f32s(x, before), sum));
                let dx = simd.mul_add_f32s(mix, dy, simd.mul_f32s(rest, next));
                // SAFETY: these positions are this task's, and so is what stands before the first.
                unsafe {
                    to_x.store(simd, at + from, width, dx);
                    if t == 0 {
                        to_earlier.store(simd, batch * hidden + from, width, simd.mul_f32s(rest, dy));
                    }
                }
            }
        }
    }
}
