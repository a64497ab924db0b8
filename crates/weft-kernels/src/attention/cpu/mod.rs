//! The CPU kernel. One task takes some queries of one head of one sentence: it packs the keys and values that they
//! see, then takes a tile of queries at a time, and a span of keys at a time, through scores, softmax and the
//! product with the values, all in the second-level cache.

mod backward;
mod forward;
mod weights;

use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::Simd;
use rayon::prelude::*;

use super::few;
use super::memory::Operand;
use super::settings::{AttentionSettings, Sentence, Span, Tile};
use crate::dropout::Dropout;
use crate::panels::product::{Product, Ramp};
use crate::panels::scratch::pitch;
use crate::simd::tanh;
pub(super) use backward::{Gradients, Saved, backward};
pub(super) use forward::{Forward, forward};
pub(super) use weights::weights;

/// Queries per tile.
const TILE: usize = 64;

/// Keys per span of the forward pass: their scores, keys and values are 64 KiB each for heads of 64.
const SPAN: usize = 256;

/// Where spans start: a multiple of the width of a panel, on every level.
const ALIGN: usize = 32;

/// Queries that a task of the forward pass takes at least, so that long sentences give all cores work. Packing the
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
    /// `[heads, 2 * reach - 1]`, or nothing.
    pub(super) bias: &'a [f32],
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
    sentence: Sentence<'a>,
    /// What products of queries and keys are multiplied by: 1 / sqrt(head_dim).
    product_scale: f32,
    /// What scores are multiplied by in the exponent of two.
    scale: f32,
    softcap: Option<f32>,
    /// What is added to scores, by distance: the middle one is that of the own place. Nothing if empty.
    bias: &'a [f32],
    dropout: Dropout,
    /// The index for dropout of query 0 and key 0, and how many indices a query has.
    index: usize,
    q_time: usize,
    k_time: usize,
}

impl<'a> Call<'a> {
    fn head(&self, batch: usize, head: usize) -> Head<'a> {
        let Sizes { q_time, k_time, head_dim, .. } = self.sizes;
        let Self { settings, .. } = *self;
        let answering = head / settings.group() * head_dim;
        let distances = self.bias.len() / settings.num_heads;
        let product_scale = 1.0 / (head_dim as f64).sqrt();
        // Where scores are changed besides, they are scaled before.
        let remaining = if settings.softcap.is_some() || distances > 0 { 1.0 } else { product_scale };
        Head {
            q: self.q.from(batch, head * head_dim),
            k: self.k.from(batch, answering),
            v: self.v.from(batch, answering),
            q_stride: self.q.time_stride,
            k_stride: self.k.time_stride,
            v_stride: self.v.time_stride,
            head_dim,
            sentence: settings.sentence(batch, q_time, k_time),
            product_scale: product_scale as f32,
            scale: (std::f64::consts::LOG2_E * remaining) as f32,
            softcap: settings.softcap,
            bias: &self.bias[head * distances..][..distances],
            dropout: settings.dropout,
            index: (batch * settings.num_heads + head) * q_time * k_time,
            q_time,
            k_time,
        }
    }

    /// Runs `task` for every one of `count`, on all threads if there is enough to do. Tasks are the same on any number
    /// of threads.
    fn for_each(&self, count: usize, task: impl Fn(usize) + Sync) {
        let Sizes { batch, q_time, k_time, head_dim } = self.sizes;
        if 2 * batch * q_time * k_time * self.settings.num_heads * head_dim < WORTH_A_THREAD {
            (0..count).for_each(&task);
        } else {
            (0..count).into_par_iter().for_each(&task);
        }
    }

    /// The same for every (sentence, head, first query), where a task takes `queries` of them.
    fn for_each_head(&self, queries: usize, task: impl Fn(usize, usize, usize) + Sync) {
        let heads = self.settings.num_heads;
        let parts = self.sizes.q_time.div_ceil(queries).max(1);
        self.for_each(self.sizes.batch * heads * parts, |i| {
            task(i / parts / heads, i / parts % heads, i % parts * queries);
        });
    }

    /// How many queries a task of the forward pass takes: more where the sentence is long, since packing its keys costs
    /// more then.
    fn queries_per_task(&self) -> usize {
        (self.sizes.q_time / 8).next_multiple_of(QUERIES_PER_TASK).max(QUERIES_PER_TASK)
    }
}

/// Packed keys or values, from key `base` on.
#[derive(Clone, Copy)]
struct Panels<'a> {
    values: &'a [f32],
    base: usize,
    count: usize,
}

impl<'a> Panels<'a> {
    /// From the start of a span on, where keys are columns: the panels, and how many keys they hold.
    fn across(self, span: &Span, head_dim: usize) -> (&'a [f32], usize) {
        let skip = span.start - self.base;
        let used = (span.keys.1 - span.start).next_multiple_of(ALIGN);
        (&self.values[skip * head_dim..], used.min(self.count - skip))
    }
}

/// The keys that queries see, from a multiple of [`ALIGN`] on.
fn packed_keys(seen: &Range<usize>) -> (usize, usize) {
    let base = seen.start / ALIGN * ALIGN;
    (base, seen.end - base)
}

impl Head<'_> {
    /// The keys that the queries from `start` to below `end` see, blocks of the mask aside.
    fn seen(&self, start: usize, end: usize) -> Range<usize> {
        if start >= end {
            return 0..0;
        }
        let keys = Tile { sentence: self.sentence, first: start, count: end - start }.keys();
        keys.start.min(keys.end)..keys.end
    }

    /// Rows of `a`, one for each query of a tile, times the transpose of the packed rows of keys (or values) of a
    /// span. What a query does not see may hold anything.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "the parts of one product")]
    fn against_keys<S: Simd>(
        &self,
        simd: S,
        a: &[f32],
        a_row: usize,
        count: usize,
        span: &Span,
        keys: Panels<'_>,
        c: &mut [f32],
        c_row: usize,
    ) {
        let (panels, used) = keys.across(span, self.head_dim);
        simd.vectorize(Product {
            a,
            a_row,
            a_column: 1,
            b: panels,
            depth: self.head_dim,
            skip: 0,
            columns: Ramp { least: 0, most: used, ..span.to },
            from: Ramp::flat(0),
            to: Ramp::flat(self.head_dim),
            c,
            c_row,
            rows: count,
            accumulate: false,
        });
    }

    /// The products of one query with keys that are not packed, `keys` counted from `start`.
    #[inline(always)]
    fn products_in_place<S: Simd>(
        &self,
        simd: S,
        query: usize,
        start: usize,
        keys: &Range<usize>,
        products: &mut [f32],
    ) {
        let q = &self.q[query * self.q_stride..][..self.head_dim];
        let k = &self.k[(start + keys.start) * self.k_stride..];
        few::scores(simd, q, k, self.k_stride, &mut products[keys.clone()]);
    }

    /// Turns products of a query with the keys `seen`, counted from `start`, into scores: softcap, then bias. The slope of
    /// the softcap at each goes to `slopes`, if that is wanted.
    #[inline(always)]
    fn scores<S: Simd>(
        &self,
        simd: S,
        row: &mut [f32],
        query: usize,
        start: usize,
        seen: &Range<usize>,
        slopes: Option<&mut [f32]>,
    ) {
        let row = &mut row[seen.clone()];
        if let Some(cap) = self.softcap {
            let (inward, outward) = (self.product_scale / cap, cap);
            match slopes {
                Some(slopes) => {
                    for (score, slope) in
                        row.chunks_mut(S::F32_LANES).zip(slopes[seen.clone()].chunks_mut(S::F32_LANES))
                    {
                        let bent = tanh(simd, simd.mul_f32s(simd.partial_load_f32s(score), simd.splat_f32s(inward)));
                        let one = simd.splat_f32s(1.0);
                        simd.partial_store_f32s(
                            slope,
                            simd.mul_f32s(simd.add_f32s(one, bent), simd.sub_f32s(one, bent)),
                        );
                        simd.partial_store_f32s(score, simd.mul_f32s(bent, simd.splat_f32s(outward)));
                    }
                }
                None => {
                    for score in row.chunks_mut(S::F32_LANES) {
                        let bent = tanh(simd, simd.mul_f32s(simd.partial_load_f32s(score), simd.splat_f32s(inward)));
                        simd.partial_store_f32s(score, simd.mul_f32s(bent, simd.splat_f32s(outward)));
                    }
                }
            }
        }
        if self.bias.is_empty() {
            return;
        }
        let factor = simd.splat_f32s(if self.softcap.is_some() { 1.0 } else { self.product_scale });
        let bias = &self.bias[self.distance(query, start + seen.start)..];
        for (score, bias) in row.chunks_mut(S::F32_LANES).zip(bias.chunks(S::F32_LANES)) {
            let bias = simd.partial_load_f32s(&bias[..score.len()]);
            let sum = simd.mul_add_f32s(simd.partial_load_f32s(score), factor, bias);
            simd.partial_store_f32s(score, sum);
        }
    }

    /// Where the bias of a query and a key stands.
    fn distance(&self, query: usize, key: usize) -> usize {
        ((self.bias.len() / 2) as isize + key as isize - self.sentence.place(query)) as usize
    }

    #[inline(always)]
    fn first_index(&self, query: usize) -> usize {
        self.index + query * self.k_time
    }
}

/// `count` rows of `columns` values side by side, `pitch(columns)` apart. Rows of a packed tensor often stand a power of two
/// apart, and then they fight for the same few sets of the cache.
#[inline(always)]
fn gather_rows(from: &[f32], stride: usize, count: usize, columns: usize, to: &mut [f32]) {
    for (i, to) in to.chunks_exact_mut(pitch(columns)).take(count).enumerate() {
        to[..columns].copy_from_slice(&from[i * stride..][..columns]);
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

/// `values *= factor`, whole vectors.
#[inline(always)]
fn scale_by<S: Simd>(simd: S, values: &mut [f32], factor: f32) {
    let factors = simd.splat_f32s(factor);
    for value in S::as_mut_simd_f32s(values).0 {
        *value = simd.mul_f32s(*value, factors);
    }
}
