//! The CPU kernel's way forward. One task takes a few heads of one sentence through its chunks, one after the other:
//! the products of C and B are made once for these heads, their states stay in the second-level cache.
#![expect(unsafe_code, reason = "tasks write different heads of the same rows")]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::mix::{Left, PITCH, Steps, mix};
use crate::fresh::zeros;
use crate::lanes::{Shared, load, store, vectors};
use crate::panels::pack::{self, panels_size};
use crate::panels::product::{Product, Ramp};
use crate::panels::scratch::{Scratch, pitch, with_scratch};
use crate::simd::Level;

/// Positions of a chunk: the triangle costs as much as half a chunk of states, so longer chunks do more work and
/// shorter ones read and write the states more often.
pub(super) const CHUNK: usize = 64;

/// Heads of a task.
const HEADS: usize = 4;

/// The operands; see [`state_space_dual`](super::state_space_dual).
pub(super) struct Scan<'a> {
    pub time: usize,
    pub heads: usize,
    pub width: usize,
    pub groups: usize,
    pub states: usize,
    pub lengths: &'a [usize],
    pub xbc: &'a [f32],
    pub dt: &'a [f32],
    pub a_log: &'a [f32],
    pub skip: &'a [f32],
    pub bias: &'a [f32],
    pub initial: &'a [f32],
}

/// Some heads of one group of one sentence.
pub(super) struct Part {
    pub batch: usize,
    pub group: usize,
    /// Counts the parts of the group.
    pub block: usize,
    pub heads: Range<usize>,
}

impl Scan<'_> {
    /// Columns of the outputs.
    pub(super) fn inner(&self) -> usize {
        self.heads * self.width
    }

    /// Columns of `xbc`.
    pub(super) fn columns(&self) -> usize {
        self.inner() + 2 * self.groups * self.states
    }

    /// States that are kept, for each sentence.
    pub(super) fn chunks(&self) -> usize {
        self.time.div_ceil(CHUNK)
    }

    /// Tasks of a group.
    pub(super) fn blocks(&self) -> usize {
        (self.heads / self.groups).div_ceil(HEADS)
    }

    /// One task for each sentence and each few heads of it, on all threads. How they are cut does not depend on the
    /// number of threads.
    pub(super) fn for_each_part(&self, work: impl Fn(Part) + Sync) {
        let (of_group, blocks) = (self.heads / self.groups, self.blocks());
        (0..self.lengths.len() * self.groups * blocks).into_par_iter().with_max_len(1).for_each(|task| {
            let (batch, group, block) = (task / blocks / self.groups, task / blocks % self.groups, task % blocks);
            let first = group * of_group + block * HEADS;
            work(Part { batch, group, block, heads: first..(first + HEADS).min((group + 1) * of_group) });
        });
    }

    /// `A`.
    pub(super) fn rate(&self, head: usize) -> f32 {
        -self.a_log[head].exp()
    }

    /// A head's x from a row of the batch's on; rows are [`columns`](Self::columns) apart.
    pub(super) fn x(&self, row: usize, head: usize) -> &[f32] {
        &self.xbc[row * self.columns() + head * self.width..]
    }

    /// A group's B.
    pub(super) fn b(&self, row: usize, group: usize) -> &[f32] {
        &self.xbc[row * self.columns() + self.inner() + group * self.states..]
    }

    /// A group's C.
    pub(super) fn c(&self, row: usize, group: usize) -> &[f32] {
        &self.xbc[row * self.columns() + self.inner() + (self.groups + group) * self.states..]
    }

    /// Where a head's state begins among those of all sentences.
    pub(super) fn state_at(&self, batch: usize, head: usize) -> usize {
        (batch * self.heads + head) * self.states * self.width
    }

    /// Where a head's state at the start of a chunk begins among those that are kept.
    pub(super) fn kept_at(&self, batch: usize, chunk: usize, head: usize) -> usize {
        ((batch * self.chunks() + chunk) * self.heads + head) * self.states * self.width
    }
}

/// The outputs `[batch * time, inner]` with the last states under them, and, if `keep`, the states at the start of
/// every chunk, `[batch, chunks, heads, states, width]`.
pub(super) fn forward(level: Level, scan: &Scan<'_>, keep: bool) -> (Vec<f32>, Vec<f32>) {
    let (batch, inner) = (scan.lengths.len(), scan.inner());
    let mut packed = zeros(batch * (scan.time + scan.states) * inner);
    let mut kept = zeros(if keep { batch * scan.chunks() * scan.states * inner } else { 0 });
    let (to, to_kept) = (Shared::new(&mut packed), Shared::new(&mut kept));
    scan.for_each_part(|part| {
        with_scratch(|scratch| {
            level.run(Forward { scan, part, scratch, packed: to, kept: keep.then_some(to_kept) });
        });
    });
    (packed, kept)
}

struct Forward<'a> {
    scan: &'a Scan<'a>,
    part: Part,
    scratch: &'a mut Scratch,
    packed: Shared,
    kept: Option<Shared>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scan, part: Part { batch, group, heads, .. }, scratch, packed, kept } = self;
        let (width, states, inner, stride) = (scan.width, scan.states, scan.inner(), scan.columns());
        let (lanes, length) = (S::F32_LANES, scan.lengths[batch]);
        let last_states = scan.lengths.len() * scan.time * inner;
        if length == 1 {
            let row = batch * scan.time;
            for head in heads {
                let (at, count) = (scan.state_at(batch, head), states * width);
                if let Some(kept) = kept {
                    // SAFETY: these heads are this task's.
                    let to = unsafe { kept.part(scan.kept_at(batch, 0, head), count) };
                    to.copy_from_slice(&scan.initial[at..][..count]);
                }
                // SAFETY: these heads are this task's; a state is no output.
                let (after, y) =
                    unsafe { (packed.part(last_states + at, count), packed.part(row * inner + head * width, width)) };
                one_position(simd, scan, [row, head, group], &scan.initial[at..][..count], after, y);
            }
            return;
        }
        let (wide, wide_b) = (width.next_multiple_of(lanes), pitch(states));
        let [all_states, b, b_across, products, weights, x, before, y] = scratch.split([
            heads.len() * states * wide,
            CHUNK * wide_b,
            panels_size(states, CHUNK, lanes),
            CHUNK * PITCH,
            CHUNK * PITCH,
            panels_size(CHUNK, width, lanes),
            panels_size(states, width, lanes),
            CHUNK * wide,
        ]);
        for (head, state) in heads.clone().zip(all_states.chunks_exact_mut(states * wide)) {
            copy_rows(&scan.initial[scan.state_at(batch, head)..], width, width, state, wide);
        }
        for chunk in 0..length.div_ceil(CHUNK) {
            let (row, count) = (batch * scan.time + chunk * CHUNK, CHUNK.min(length - chunk * CHUNK));
            let c = scan.c(row, group);
            pack::columns(simd, scan.b(row, group), stride, count, states, b_across);
            copy_rows(scan.b(row, group), stride, states, &mut b[..count * wide_b], wide_b);
            simd.vectorize(Product {
                columns: up_to_diagonal(count),
                ..whole(c, [stride, 1], b_across, [count, states, count], products, PITCH)
            });
            for (head, state) in heads.clone().zip(all_states.chunks_exact_mut(states * wide)) {
                if let Some(kept) = kept {
                    // SAFETY: these heads are this task's.
                    let to = unsafe { kept.part(scan.kept_at(batch, chunk, head), states * width) };
                    copy_rows(state, wide, width, to, width);
                }
                let steps = Steps::new(simd, scan, head, row, count);
                let Left { from_start, mut to_end } = mix(simd, &steps, scan.skip[head], products, weights);
                pack::rows(simd, scan.x(row, head), stride, count, width, x);
                pack::rows(simd, state, wide, states, width, before);
                simd.vectorize(whole(c, [stride, 1], before, [count, states, width], y, wide));
                scale_rows(simd, &mut y[..count * wide], wide, &from_start);
                simd.vectorize(Product {
                    to: up_to_diagonal(count),
                    accumulate: true,
                    ..whole(weights, [PITCH, 1], x, [count, count, width], y, wide)
                });
                for (i, y) in y.chunks_exact(wide).take(count).enumerate() {
                    // SAFETY: these heads are this task's.
                    let to = unsafe { packed.part((row + i) * inner + head * width, width) };
                    to.copy_from_slice(&y[..width]);
                }
                to_end.iter_mut().zip(&steps.step).for_each(|(left, step)| *left *= step);
                scale_panels(simd, x, count, width, &to_end);
                scale(simd, state, from_start[count - 1]);
                simd.vectorize(Product {
                    accumulate: true,
                    ..whole(b, [1, wide_b], x, [states, count, width], state, wide)
                });
            }
        }
        for (head, state) in heads.zip(all_states.chunks_exact(states * wide)) {
            let at = last_states + scan.state_at(batch, head);
            // SAFETY: these heads are this task's.
            copy_rows(state, wide, width, unsafe { packed.part(at, states * width) }, width);
        }
    }
}

/// The equations as they stand, for one position: with one, nothing is gained by products.
#[inline(always)]
fn one_position<S: Simd>(
    simd: S,
    scan: &Scan<'_>,
    [row, head, group]: [usize; 3],
    before: &[f32],
    after: &mut [f32],
    y: &mut [f32],
) {
    let steps = Steps::new(simd, scan, head, row, 1);
    let (step, decay) = (simd.splat_f32s(steps.step[0]), simd.splat_f32s(steps.decay[0]));
    let (x, skip) = (scan.x(row, head), simd.splat_f32s(scan.skip[head]));
    let (b, c) = (&scan.b(row, group)[..scan.states], &scan.c(row, group)[..scan.states]);
    for (from, width) in vectors::<S>(&(0..scan.width)) {
        let x = load(simd, x, from, width);
        let entering = simd.mul_f32s(x, step);
        let mut sum = simd.mul_f32s(x, skip);
        for (n, (&b, &c)) in b.iter().zip(c).enumerate() {
            let at = n * scan.width + from;
            let state = simd.mul_f32s(load(simd, before, at, width), decay);
            let state = simd.mul_add_f32s(entering, simd.splat_f32s(b), state);
            sum = simd.mul_add_f32s(state, simd.splat_f32s(c), sum);
            store(simd, after, at, width, state);
        }
        store(simd, y, from, width, sum);
    }
}

/// The bound of a triangle's rows: up to their own position.
pub(super) fn up_to_diagonal(count: usize) -> Ramp {
    Ramp::rising(1, count)
}

/// A product of `[rows, depth]` and `[depth, columns]`.
#[inline(always)]
pub(super) fn whole<'a>(
    a: &'a [f32],
    [a_row, a_column]: [usize; 2],
    b: &'a [f32],
    [rows, depth, columns]: [usize; 3],
    c: &'a mut [f32],
    c_row: usize,
) -> Product<'a> {
    let (columns, from, to) = (Ramp::flat(columns), Ramp::flat(0), Ramp::flat(depth));
    Product { a, a_row, a_column, b, depth, skip: 0, columns, from, to, c, c_row, rows, accumulate: false }
}

/// Rows of `width` values that stand `stride` apart, with zeros after them where `to` has longer rows.
#[inline(always)]
pub(super) fn copy_rows(from: &[f32], stride: usize, width: usize, to: &mut [f32], to_stride: usize) {
    for (i, to) in to.chunks_exact_mut(to_stride).enumerate() {
        let (to, rest) = to.split_at_mut(width);
        to.copy_from_slice(&from[i * stride..][..width]);
        rest.fill(0.0);
    }
}

/// Rows of whole vectors, each times its factor.
#[inline(always)]
pub(super) fn scale_rows<S: Simd>(simd: S, rows: &mut [f32], wide: usize, factors: &[f32]) {
    for (row, &factor) in rows.chunks_exact_mut(wide).zip(factors) {
        scale(simd, row, factor);
    }
}

/// The same for rows in panels, `depth` of them.
#[inline(always)]
pub(super) fn scale_panels<S: Simd>(simd: S, panels: &mut [f32], depth: usize, columns: usize, factors: &[f32]) {
    let padded = columns.next_multiple_of(S::F32_LANES);
    for start in (0..padded).step_by(2 * S::F32_LANES) {
        let wide = (padded - start).min(2 * S::F32_LANES);
        scale_rows(simd, &mut panels[start * depth..][..depth * wide], wide, factors);
    }
}

/// Whole vectors times a factor.
#[inline(always)]
pub(super) fn scale<S: Simd>(simd: S, values: &mut [f32], factor: f32) {
    let (vectors, _) = S::as_mut_simd_f32s(values);
    for value in vectors {
        *value = simd.mul_f32s(*value, simd.splat_f32s(factor));
    }
}
