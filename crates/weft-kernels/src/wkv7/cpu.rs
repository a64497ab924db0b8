//! The CPU kernel's way forward: chunks of positions pass one after the other, each a few products of matrices.
//!
//! Within a chunk, P_t is the product of the decays up to position t, P_0 = 1 before the first. Divided by it, states
//! only ever grow by products: with u_t = S_(t-1) a_t^T, what a position replaces,
//!
//!   S_t diag(1/P_t) = S_0 + sum over s <= t of u_s^T (b_s / P_s) + v_s^T (k_s / P_s)
//!
//! Two queries of each position read that sum, a_t P_(t-1) before the position adds to it and r_t P_t after, which gives
//! u_t and o_t. The rows of queries, of keys b_s / P_s and k_s / P_s, and of values u_s and v_s alternate: so a query's row
//! sees the keys and values above it, and its own position's if it is r's.
//!
//! The quotients stay in range since a decay is at least 0.545: after 16 positions P is at least 6e-5. P is multiplied
//! up in `f64`, so that it is rounded once however many positions it has.
#![expect(unsafe_code, reason = "tasks write different heads of the same rows")]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::STEEPEST;
use super::product::{Left, add_product, inner_products, padded};
use crate::fresh::zeros;
use crate::lanes::{Shared, load, vectors};
use crate::simd::{Level, exp, prefetch_values, sigmoid};

/// Positions of a chunk. Products with the state cost the same for each position whatever the chunk, those within it
/// more the longer it is.
pub(super) const CHUNK: usize = 16;

/// The operands; see [`wkv7`](super::wkv7).
pub(super) struct Recurrence<'a> {
    pub time: usize,
    pub heads: usize,
    pub size: usize,
    pub lengths: &'a [usize],
    pub r: &'a [f32],
    pub d: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub a: &'a [f32],
    pub rate: &'a [f32],
    pub initial: &'a [f32],
}

/// A sentence's head: a task.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub batch: usize,
    pub head: usize,
}

impl Recurrence<'_> {
    /// Calls `work` for each sentence's heads, on all threads.
    pub(super) fn for_each_head(&self, work: impl Fn(Head) + Sync) {
        let tasks = self.lengths.len() * self.heads;
        (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
            work(Head { batch: task / self.heads, head: task % self.heads });
        });
    }

    /// Where the values of a position begin.
    pub(super) fn at(&self, Head { batch, head }: Head, t: usize) -> usize {
        ((batch * self.time + t) * self.heads + head) * self.size
    }

    /// Asks for the values that a position's head will read: heads lie apart, which the processor does not foresee.
    #[inline(always)]
    pub(super) fn ask_for(&self, head: Head, t: usize) {
        if t < self.lengths[head.batch] {
            for values in [self.r, self.d, self.k, self.v, self.a, self.rate] {
                prefetch_values(values, self.at(head, t), self.size);
            }
        }
    }

    /// Where a state begins among `states` of each head, or, among the states under the outputs, 0 of 1.
    pub(super) fn state_at(&self, Head { batch, head }: Head, states: usize, index: usize) -> usize {
        ((batch * self.heads + head) * states + index) * self.size * self.size
    }

    /// States that are kept, for each head: before each chunk, and after the last.
    pub(super) fn kept_states(&self) -> usize {
        self.time.div_ceil(CHUNK) + 1
    }

    /// Where the states end that are kept, and what was replaced begins.
    pub(super) fn kept_size(&self) -> usize {
        self.lengths.len() * self.heads * self.kept_states() * self.size * self.size
    }
}

/// The outputs `[batch * time, hidden]` with the last states under them, and, if `keep`, the states before every
/// [`CHUNK`] positions and the last `[batch, heads, states, size, size]` with what was replaced, `[batch, time, hidden]`,
/// after them.
pub(super) fn forward(level: Level, recurrence: &Recurrence<'_>, keep: bool) -> (Vec<f32>, Vec<f32>) {
    let outputs = recurrence.r.len();
    let mut packed = zeros(outputs + recurrence.initial.len());
    let mut kept = zeros(if keep { recurrence.kept_size() + outputs } else { 0 });
    let (to, to_kept) = (Shared::new(&mut packed), Shared::new(&mut kept));
    recurrence.for_each_head(|head| {
        level.run(Forward { recurrence, head, packed: to, kept: keep.then_some(to_kept) });
    });
    (packed, kept)
}

/// The matrices of a chunk, rows of `width` values: two rows for each position.
pub(super) struct Chunk {
    pub width: usize,
    /// a_t P_(t-1), r_t P_t.
    pub queries: Vec<f32>,
    /// b_t / P_t, k_t / P_t.
    pub keys: Vec<f32>,
    /// u_t, v_t.
    pub values: Vec<f32>,
    /// Each query's inner product with each key, `[2 * CHUNK, 2 * CHUNK]`; only those that it sees are made.
    pub weights: Vec<f32>,
    /// P_0 and those after each position.
    pub decays: Vec<f32>,
    /// 1 / P after each position.
    pub inverses: Vec<f32>,
    product: Vec<f64>,
}

/// Rows of a chunk, and columns of its weights.
pub(super) const ROWS: usize = 2 * CHUNK;

/// How many of the rows above it and its own a query sees.
#[inline(always)]
pub(super) fn seen(query: usize) -> usize {
    query + query % 2
}

impl Chunk {
    pub(super) fn new(width: usize) -> Self {
        let rows = || vec![0.0; ROWS * width];
        Self {
            width,
            queries: rows(),
            keys: rows(),
            values: rows(),
            weights: vec![0.0; ROWS * ROWS],
            decays: vec![1.0; (CHUNK + 1) * width],
            inverses: vec![0.0; CHUNK * width],
            product: vec![1.0; width],
        }
    }

    /// Reads `count` positions from `first` on: all matrices but what is replaced. Those from `next` on are asked for.
    #[inline(always)]
    pub(super) fn read<S: Simd>(
        &mut self,
        simd: S,
        recurrence: &Recurrence<'_>,
        head: Head,
        [first, count, next]: [usize; 3],
    ) {
        let width = self.width;
        let steepest = simd.splat_f32s(-STEEPEST as f32);
        self.product.fill(1.0);
        for t in 0..count {
            recurrence.ask_for(head, next + t);
            let at = recurrence.at(head, first + t);
            let (before, after) = self.decays[t * width..][..2 * width].split_at_mut(width);
            for (from, lanes) in vectors::<S>(&(0..recurrence.size)) {
                let d = load(simd, recurrence.d, at + from, lanes);
                let w = exp(simd, simd.mul_f32s(steepest, sigmoid(simd, d)));
                put::<S>(after, from, w);
            }
            for (product, after) in self.product.iter_mut().zip(&mut *after) {
                *product *= f64::from(*after);
                *after = *product as f32;
            }
            let inverses = &mut self.inverses[t * width..][..width];
            let (early, late) = self.queries[2 * t * width..][..2 * width].split_at_mut(width);
            let (removal, addition) = self.keys[2 * t * width..][..2 * width].split_at_mut(width);
            let value = &mut self.values[(2 * t + 1) * width..][..width];
            for (from, lanes) in vectors::<S>(&(0..recurrence.size)) {
                let before = whole::<S>(before, from);
                let after = whole::<S>(after, from);
                let inverse = simd.div_f32s(simd.splat_f32s(1.0), after);
                put::<S>(inverses, from, inverse);
                let a = load(simd, recurrence.a, at + from, lanes);
                let r = load(simd, recurrence.r, at + from, lanes);
                let b = simd.neg_f32s(simd.mul_f32s(a, load(simd, recurrence.rate, at + from, lanes)));
                let k = load(simd, recurrence.k, at + from, lanes);
                let v = load(simd, recurrence.v, at + from, lanes);
                put::<S>(early, from, simd.mul_f32s(a, before));
                put::<S>(late, from, simd.mul_f32s(r, after));
                put::<S>(removal, from, simd.mul_f32s(b, inverse));
                put::<S>(addition, from, simd.mul_f32s(k, inverse));
                put::<S>(value, from, v);
            }
        }
    }

    /// The weights of query `row`.
    #[inline(always)]
    pub(super) fn weigh<S: Simd>(&mut self, simd: S, row: usize) {
        let query = &self.queries[row * self.width..][..self.width];
        inner_products(simd, &mut self.weights[row * ROWS..][..ROWS], query, &self.keys, seen(row));
    }

    /// The decay of the whole chunk of `count` positions.
    #[inline(always)]
    pub(super) fn decay(&self, count: usize) -> &[f32] {
        &self.decays[count * self.width..][..self.width]
    }
}

/// A whole vector, as rows of a chunk have.
#[inline(always)]
pub(super) fn whole<S: Simd>(values: &[f32], at: usize) -> S::f32s {
    S::as_simd_f32s(&values[at..at + S::F32_LANES]).0[0]
}

/// Writes one.
#[inline(always)]
pub(super) fn put<S: Simd>(values: &mut [f32], at: usize, vector: S::f32s) {
    S::as_mut_simd_f32s(&mut values[at..at + S::F32_LANES]).0[0] = vector;
}

/// A head's state `[size, size]`, with rows of `width` values in place of `size`.
#[inline(always)]
pub(super) fn read_state<S: Simd>(simd: S, to: &mut [f32], width: usize, from: &[f32], at: usize, size: usize) {
    for row in 0..size {
        for (column, lanes) in vectors::<S>(&(0..size)) {
            let values = load(simd, from, at + row * size + column, lanes);
            put::<S>(to, row * width + column, values);
        }
    }
}

/// The other way.
///
/// # Safety
/// As for [`Shared::store`].
#[inline(always)]
pub(super) unsafe fn write_state<S: Simd>(simd: S, to: Shared, at: usize, from: &[f32], width: usize, size: usize) {
    for row in 0..size {
        for (column, lanes) in vectors::<S>(&(0..size)) {
            let values = whole::<S>(from, row * width + column);
            // SAFETY: the caller's promise.
            unsafe { to.store(simd, at + row * size + column, lanes, values) };
        }
    }
}

/// Multiplies row `i` by `factors[i]`.
#[inline(always)]
pub(super) fn scale_rows<S: Simd>(simd: S, rows: &mut [f32], width: usize, factors: &[f32]) {
    for (row, &factor) in rows.chunks_exact_mut(width).zip(factors) {
        for value in S::as_mut_simd_f32s(row).0 {
            *value = simd.mul_f32s(*value, simd.splat_f32s(factor));
        }
    }
}

struct Forward<'a> {
    recurrence: &'a Recurrence<'a>,
    head: Head,
    packed: Shared,
    kept: Option<Shared>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { recurrence, head, packed, kept } = self;
        let (length, size, states) = (recurrence.lengths[head.batch], recurrence.size, recurrence.kept_states());
        let width = padded::<S>(size);
        let mut chunk = Chunk::new(width);
        let mut state = vec![0.0; width * width];
        let mut results = vec![0.0; ROWS * width];
        read_state(simd, &mut state, width, recurrence.initial, recurrence.state_at(head, 1, 0), size);
        for index in 0..length.div_ceil(CHUNK) {
            let (first, count) = (index * CHUNK, CHUNK.min(length - index * CHUNK));
            let rows = 2 * count;
            if let Some(kept) = kept {
                // SAFETY: the states of this head are this task's.
                unsafe { write_state(simd, kept, recurrence.state_at(head, states, index), &state, width, size) };
            }
            chunk.read(simd, recurrence, head, [first, count, first + CHUNK]);
            results.fill(0.0);
            add_product(simd, &mut results, Left::rows(&chunk.queries, width), &state, [rows, width, width]);
            for row in 0..rows {
                chunk.weigh(simd, row);
                let result = &mut results[row * width..][..width];
                let weights = Left::line(&chunk.weights, row * ROWS, 1);
                add_product(simd, result, weights, &chunk.values, [1, seen(row), width]);
                if row % 2 == 0 {
                    chunk.values[row * width..][..width].copy_from_slice(result);
                }
            }
            add_product(simd, &mut state, Left::columns(&chunk.keys, width), &chunk.values, [width, rows, width]);
            scale_rows(simd, &mut state, width, chunk.decay(count));
            for t in 0..count {
                let at = recurrence.at(head, first + t);
                for (from, lanes) in vectors::<S>(&(0..size)) {
                    let output = whole::<S>(&results, (2 * t + 1) * width + from);
                    // SAFETY: the values of this head are this task's.
                    unsafe { packed.store(simd, at + from, lanes, output) };
                    if let Some(kept) = kept {
                        let replaced = whole::<S>(&chunk.values, 2 * t * width + from);
                        // SAFETY: as above.
                        unsafe { kept.store(simd, recurrence.kept_size() + at + from, lanes, replaced) };
                    }
                }
            }
        }
        if let Some(kept) = kept {
            let at = recurrence.state_at(head, states, length.div_ceil(CHUNK));
            // SAFETY: as above.
            unsafe { write_state(simd, kept, at, &state, width, size) };
        }
        let at = recurrence.r.len() + recurrence.state_at(head, 1, 0);
        // SAFETY: as above.
        unsafe { write_state(simd, packed, at, &state, width, size) };
    }
}
