//! The CPU kernel. One task takes one head of one sentence: it packs keys and values, then takes a block of
//! queries at a time through scores, softmax and the product with the values, all in the second-level cache.
#![expect(unsafe_code, reason = "tasks write disjoint columns of one tensor, which slices cannot express")]

mod backward;

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::few;
use super::memory::{Operand, Scratch, Target, pitch, with_scratch};
use super::pack::{self, panels_size};
use super::product::{Product, Ramp};
use super::settings::{AttentionSettings, Sentence};
use super::softmax::{self, RowStatistics, scale_to_base_two};
use crate::dropout::Dropout;
use crate::fresh::Fresh;
use crate::simd::Level;
pub(super) use backward::{Saved, cross_backward, self_backward};

/// Queries per block: a multiple of both tile heights (8 and 6). Scores of 48 queries by 256 keys are 48 KiB.
const BLOCK: usize = 48;

/// Scores that a block may hold, so that it stays in the second-level cache (1 MiB twice in the backward pass
/// at most) when there are many keys: the block has fewer queries then.
const MOST_SCORES: usize = 1 << 16;

/// Queries that one task of the forward pass takes, so that long sentences give all cores work. Packing the
/// keys again for each is 1 / 256 of the work.
const QUERIES_PER_TASK: usize = 256;

/// Multiply-adds below which waking another thread costs more than it saves (about 10 us).
const WORTH_A_THREAD: usize = 1 << 19;

/// The sizes of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) q_time: usize,
    pub(super) k_time: usize,
    pub(super) head_dim: usize,
}

/// One call: what is read, and how.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) q: Operand<'a>,
    pub(super) k: Operand<'a>,
    pub(super) v: Operand<'a>,
    pub(super) sizes: Sizes,
    pub(super) settings: &'a AttentionSettings,
}

/// One head of one sentence.
#[derive(Clone, Copy)]
struct Head<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    q_stride: usize,
    k_stride: usize,
    v_stride: usize,
    head_dim: usize,
    sentence: Sentence,
    scale: f32,
    dropout: Dropout,
    /// The index for dropout of query 0 and key 0, and how many indices a query has.
    index: usize,
    q_time: usize,
    k_time: usize,
}

impl<'a> Call<'a> {
    fn head(&self, batch: usize, head: usize) -> Head<'a> {
        let Sizes { q_time, k_time, head_dim, .. } = self.sizes;
        let column = head * head_dim;
        Head {
            q: self.q.from(batch, column),
            k: self.k.from(batch, column),
            v: self.v.from(batch, column),
            q_stride: self.q.time_stride,
            k_stride: self.k.time_stride,
            v_stride: self.v.time_stride,
            head_dim,
            sentence: self.settings.sentence(batch, q_time, k_time),
            scale: scale_to_base_two(head_dim),
            dropout: self.settings.dropout,
            index: (batch * self.settings.num_heads + head) * q_time * k_time,
            q_time,
            k_time,
        }
    }

    /// Runs `task` for every (sentence, head, part of the queries). Tasks are the same on any number of threads.
    fn for_each(&self, queries_per_task: usize, task: impl Fn(usize, usize, usize) + Sync) {
        let Sizes { batch, q_time, k_time, head_dim } = self.sizes;
        let heads = self.settings.num_heads;
        let parts = q_time.div_ceil(queries_per_task).max(1);
        let run = |i: usize| task(i / parts / heads, i / parts % heads, i % parts * queries_per_task);
        let count = batch * heads * parts;
        let products = 2 * batch * q_time * k_time * heads * head_dim;
        if products < WORTH_A_THREAD {
            (0..count).for_each(run);
        } else {
            (0..count).into_par_iter().for_each(run);
        }
    }
}

/// The result `[batch, q_time, hidden]`, and if wanted what the backward pass needs of each row of scores:
/// `[batch, heads, q_time, 2]`.
pub(super) fn forward(level: Level, call: &Call<'_>, keep: bool) -> (Vec<f32>, Option<Vec<f32>>) {
    let Sizes { batch, q_time, head_dim, .. } = call.sizes;
    let heads = call.settings.num_heads;
    let hidden = heads * head_dim;
    let out_size = batch * q_time * hidden;
    let kept_size = if keep { batch * heads * q_time * 2 } else { 0 };
    let (mut out, mut kept) = (Fresh::new(out_size), Fresh::new(kept_size));
    let target = Target::new(out.room(), q_time * hidden, hidden);
    let statistics = keep.then(|| Target::new(kept.room(), heads * q_time * 2, q_time * 2));
    call.for_each(QUERIES_PER_TASK, |batch, head, start| {
        let (head, number) = (call.head(batch, head), head);
        with_scratch(|scratch| level.run(Forward { scratch, head, batch, number, start, target, statistics }));
    });
    // SAFETY: each task writes its head's columns and statistics of its queries, or of all that are left.
    let (out, kept) = unsafe { (out.filled(out_size), kept.filled(kept_size)) };
    (out, keep.then_some(kept))
}

/// Probabilities `[batch, heads, q_time, k_time]`, without dropout.
pub(super) fn weights(level: Level, call: &Call<'_>) -> Vec<f32> {
    let Sizes { batch, q_time, k_time, .. } = call.sizes;
    let heads = call.settings.num_heads;
    let size = batch * heads * q_time * k_time;
    let mut out = Fresh::new(size);
    out.room().fill(MaybeUninit::new(0.0));
    let target = Target::new(out.room(), heads * q_time * k_time, q_time * k_time);
    call.for_each(QUERIES_PER_TASK, |batch, number, start| {
        let head = Head { dropout: Dropout::NONE, ..call.head(batch, number) };
        with_scratch(|scratch| level.run(Weights { scratch, head, batch, number, start, target }));
    });
    // SAFETY: it started as zeros.
    unsafe { out.filled(size) }
}

impl Head<'_> {
    /// The queries per block, for up to `keys` keys.
    fn block(&self, keys: usize) -> usize {
        (MOST_SCORES / keys.max(1)).clamp(8, BLOCK)
    }

    /// The scores of `count` queries from `first` on, but for the scale.
    #[inline(always)]
    fn scores<S: Simd>(&self, simd: S, first: usize, count: usize, keys: &Panels<'_>, scores: &mut [f32]) {
        self.against_keys(simd, &self.q[first * self.q_stride..], self.q_stride, first, count, keys, scores);
    }

    /// Rows of `a`, one for each of `count` queries from `first` on, times the transpose of the packed rows of
    /// keys (or values).
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "the parts of one product")]
    fn against_keys<S: Simd>(
        &self,
        simd: S,
        a: &[f32],
        a_row: usize,
        first: usize,
        count: usize,
        keys: &Panels<'_>,
        c: &mut [f32],
    ) {
        simd.vectorize(Product {
            a,
            a_row,
            a_column: 1,
            b: keys.values,
            depth: self.head_dim,
            columns: Ramp { most: keys.count, ..self.sentence.seen_from(first) },
            from: Ramp::flat(0),
            to: Ramp::flat(self.head_dim),
            c,
            c_row: keys.pitch,
            rows: count,
            accumulate: false,
        });
    }

    /// The scores of one query, against keys that are not packed.
    #[inline(always)]
    fn scores_in_place<S: Simd>(&self, simd: S, query: usize, scores: &mut [f32]) {
        let q = &self.q[query * self.q_stride..][..self.head_dim];
        few::scores(simd, q, self.k, self.k_stride, &mut scores[..self.sentence.seen(query)]);
    }

    #[inline(always)]
    fn first_index(&self, query: usize) -> usize {
        self.index + query * self.k_time
    }
}

/// Packed keys or values.
struct Panels<'a> {
    values: &'a [f32],
    /// How many keys.
    count: usize,
    /// The row stride of scores against them.
    pitch: usize,
}

struct Forward<'a> {
    scratch: &'a mut Scratch,
    head: Head<'a>,
    batch: usize,
    number: usize,
    start: usize,
    target: Target<'a>,
    statistics: Option<Target<'a>>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { scratch, head, batch, number, start, target, statistics } = self;
        let (lanes, head_dim, sentence) = (S::F32_LANES, head.head_dim, head.sentence);
        let end = sentence.queries.min(start + QUERIES_PER_TASK);
        let store = Store { target, statistics, batch, number, head_dim };
        let last = head.q_time.min(start + QUERIES_PER_TASK);
        // The last query sees most.
        let keys = if start < end { sentence.seen(end - 1) } else { 0 };
        if keys == 0 {
            store.zero(start..last);
            return;
        }
        store.zero(end..last);
        let wide = head_dim.next_multiple_of(lanes);
        let (pitch, block) = (pitch(keys), head.block(keys).min(end - start));
        if sentence.queries <= few::MOST_QUERIES {
            let [scores, sums] = scratch.split([pitch, wide]);
            for query in start..end {
                let seen = sentence.seen(query);
                if seen == 0 {
                    store.zero(query..query + 1);
                } else {
                    head.scores_in_place(simd, query, scores);
                    let kept = softmax::powers(simd, scores, seen, head.scale, head.dropout, head.first_index(query));
                    few::sums(simd, &scores[..seen], head.v, head.v_stride, &mut sums[..head_dim]);
                    store.row(simd, query, sums, kept);
                }
            }
            return;
        }

        let (k_size, v_size) = (panels_size(head_dim, keys, lanes), panels_size(keys, head_dim, lanes));
        let [k, v, scores, sums] = scratch.split([k_size, v_size, block * pitch, block * wide]);
        pack::columns(simd, head.k, head.k_stride, keys, head_dim, k);
        pack::rows(simd, head.v, head.v_stride, keys, head_dim, v);
        let k = Panels { values: k, count: keys, pitch };
        for first in (start..end).step_by(block) {
            let count = block.min(end - first);
            head.scores(simd, first, count, &k, scores);
            let mut kept = [RowStatistics { shift: 0.0, inverse_sum: 0.0 }; BLOCK];
            for (i, row) in scores.chunks_exact_mut(pitch).take(count).enumerate() {
                let seen = sentence.seen(first + i);
                if seen > 0 {
                    let index = head.first_index(first + i);
                    kept[i] = softmax::powers(simd, row, seen, head.scale, head.dropout, index);
                }
            }
            simd.vectorize(Product {
                a: scores,
                a_row: pitch,
                a_column: 1,
                b: v,
                depth: keys,
                columns: Ramp::flat(head_dim),
                from: Ramp::flat(0),
                to: Ramp { most: keys, ..sentence.seen_from(first) },
                c: sums,
                c_row: wide,
                rows: count,
                accumulate: false,
            });
            for (i, row) in sums.chunks_exact(wide).take(count).enumerate() {
                if sentence.seen(first + i) == 0 {
                    store.zero(first + i..first + i + 1);
                } else {
                    store.row(simd, first + i, row, kept[i]);
                }
            }
        }
    }
}

/// Where one head of one sentence puts its results.
struct Store<'a> {
    target: Target<'a>,
    statistics: Option<Target<'a>>,
    batch: usize,
    number: usize,
    head_dim: usize,
}

impl Store<'_> {
    /// Stores the row of `query`, which only the task that calls this may write.
    #[inline(always)]
    fn row<S: Simd>(&self, simd: S, query: usize, row: &[f32], kept: RowStatistics) {
        let Self { batch, number, head_dim, .. } = *self;
        // SAFETY: one task alone writes the queries that it takes of a head.
        let to = unsafe { self.target.row(batch, query, number * head_dim, head_dim) };
        scaled_copy(simd, to, row, kept.inverse_sum);
        if let Some(statistics) = self.statistics {
            // SAFETY: as above.
            let to = unsafe { statistics.row(batch, number, query * 2, 2) };
            to.copy_from_slice(&[MaybeUninit::new(kept.shift), MaybeUninit::new(kept.inverse_sum)]);
        }
    }

    /// Zeros for `queries` that see no key or are padding; as for `row`.
    fn zero(&self, queries: std::ops::Range<usize>) {
        let Self { batch, number, head_dim, .. } = *self;
        for query in queries {
            // SAFETY: as for `row`.
            unsafe { self.target.zero(batch, query..query + 1, number * head_dim, head_dim) };
            if let Some(statistics) = self.statistics {
                // SAFETY: as for `row`.
                unsafe { statistics.row(batch, number, query * 2, 2) }.fill(MaybeUninit::new(0.0));
            }
        }
    }
}

struct Weights<'a> {
    scratch: &'a mut Scratch,
    head: Head<'a>,
    batch: usize,
    number: usize,
    start: usize,
    target: Target<'a>,
}

impl WithSimd for Weights<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Weights { scratch, head, batch, number, start, target } = self;
        let sentence = head.sentence;
        let end = sentence.queries.min(start + QUERIES_PER_TASK);
        if start >= end || sentence.seen(end - 1) == 0 {
            return;
        }
        let keys = sentence.seen(end - 1);
        let (pitch, block) = (pitch(keys), head.block(keys).min(end - start));
        let [k, scores] = scratch.split([panels_size(head.head_dim, keys, S::F32_LANES), block * pitch]);
        pack::columns(simd, head.k, head.k_stride, keys, head.head_dim, k);
        let k = Panels { values: k, count: keys, pitch };
        for first in (start..end).step_by(block) {
            let count = block.min(end - first);
            head.scores(simd, first, count, &k, scores);
            for (query, row) in (first..first + count).zip(scores.chunks_exact_mut(pitch)) {
                let seen = sentence.seen(query);
                if seen > 0 {
                    let kept = softmax::powers(simd, row, seen, head.scale, Dropout::NONE, 0);
                    // SAFETY: this task alone writes these queries of this head.
                    let to = unsafe { target.row(batch, number, query * head.k_time, seen) };
                    scaled_copy(simd, to, row, kept.inverse_sum);
                }
            }
        }
    }
}

/// `to = factor * from`, for the values that `to` has.
#[inline(always)]
fn scaled_copy<S: Simd>(simd: S, to: &mut [MaybeUninit<f32>], from: &[f32], factor: f32) {
    let (to_vectors, to_rest) = S::as_uninit_mut_simd_f32s(to);
    let (from_vectors, _) = S::as_simd_f32s(from);
    let factors = simd.splat_f32s(factor);
    let done = to_vectors.len() * S::F32_LANES;
    for (to, &from) in to_vectors.iter_mut().zip(from_vectors) {
        to.write(simd.mul_f32s(from, factors));
    }
    for (to, &from) in to_rest.iter_mut().zip(&from[done..]) {
        to.write(from * factor);
    }
}
