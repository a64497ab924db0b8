//! The CPU kernel's way back, chunk after chunk from the last: the same products, each by what it was not before.
//! A chunk starts from the state that the forward pass kept, and what was replaced is kept too, so that nothing but the
//! weights is made again.
#![expect(unsafe_code, reason = "tasks write different heads of the same rows")]

use pulp::{Simd, WithSimd};

use super::STEEPEST;
use super::cpu::{CHUNK, Chunk, Head, ROWS, Recurrence, put, read_state, scale_rows, seen, whole, write_state};
use super::product::{Left, add_product, inner_products, padded};
use crate::fresh::zeros;
use crate::gemm::transpose;
use crate::lanes::{Shared, load, vectors};
use crate::simd::{Level, sigmoid};

/// The gradients of all operands, in their order; `gradient` is that of the packed result.
pub(super) fn backward(level: Level, recurrence: &Recurrence<'_>, kept: &[f32], gradient: &[f32]) -> [Vec<f32>; 7] {
    let inputs = recurrence.r.len();
    let mut results = [inputs, inputs, inputs, inputs, inputs, inputs, recurrence.initial.len()].map(zeros);
    let to = results.each_mut().map(|values| Shared::new(values));
    recurrence.for_each_head(|head| level.run(Backward { level, recurrence, head, kept, gradient, to }));
    results
}

struct Backward<'a> {
    level: Level,
    recurrence: &'a Recurrence<'a>,
    head: Head,
    kept: &'a [f32],
    gradient: &'a [f32],
    to: [Shared; 7],
}

/// The gradients of a chunk's matrices, and the states that they need; rows as in [`Chunk`].
struct Gradients {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Of what the queries read: u_t, o_t.
    results: Vec<f32>,
    weights: Vec<f32>,
    /// Of the state after the chunk, then of that before it; `[width, width]`, as the next.
    state: Vec<f32>,
    /// The states themselves.
    before: Vec<f32>,
    after: Vec<f32>,
    transposed: Vec<f32>,
    /// Of the logarithm of P, from the last position on.
    along: Vec<f32>,
}

impl Gradients {
    fn new(width: usize) -> Self {
        let rows = || vec![0.0; ROWS * width];
        let states = || vec![0.0; width * width];
        Self {
            queries: rows(),
            keys: rows(),
            values: rows(),
            results: rows(),
            weights: vec![0.0; ROWS * ROWS],
            state: states(),
            before: states(),
            after: states(),
            transposed: states(),
            along: vec![0.0; width],
        }
    }
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { level, recurrence, head, kept, gradient, to } = self;
        let (length, size, states) = (recurrence.lengths[head.batch], recurrence.size, recurrence.kept_states());
        let width = padded::<S>(size);
        let mut chunk = Chunk::new(width);
        let mut d = Gradients::new(width);
        let state_at = recurrence.state_at(head, 1, 0);
        let chunks = length.div_ceil(CHUNK);
        read_state(simd, &mut d.state, width, gradient, recurrence.r.len() + state_at, size);
        read_state(simd, &mut d.before, width, kept, recurrence.state_at(head, states, chunks), size);
        for index in (0..chunks).rev() {
            let (first, count) = (index * CHUNK, CHUNK.min(length - index * CHUNK));
            let rows = 2 * count;
            std::mem::swap(&mut d.before, &mut d.after);
            read_state(simd, &mut d.before, width, kept, recurrence.state_at(head, states, index), size);
            chunk.read(simd, recurrence, head, [first, count, first.saturating_sub(CHUNK)]);
            for t in 0..count {
                let at = recurrence.at(head, first + t);
                for (from, lanes) in vectors::<S>(&(0..size)) {
                    let replaced = load(simd, kept, recurrence.kept_size() + at + from, lanes);
                    put::<S>(&mut chunk.values, 2 * t * width + from, replaced);
                    put::<S>(&mut d.results, (2 * t + 1) * width + from, load(simd, gradient, at + from, lanes));
                }
            }
            // The state after the chunk is P (before + keys^T values): the gradients of P's logarithm and of the sum.
            for (key, along) in d.along.iter_mut().enumerate() {
                let mut sum = simd.splat_f32s(0.0);
                for from in (0..width).step_by(S::F32_LANES) {
                    let after = whole::<S>(&d.after, key * width + from);
                    sum = simd.mul_add_f32s(whole::<S>(&d.state, key * width + from), after, sum);
                }
                *along = simd.reduce_sum_f32s(sum);
            }
            scale_rows(simd, &mut d.state, width, chunk.decay(count));
            d.values.fill(0.0);
            add_product(simd, &mut d.values, Left::rows(&chunk.keys, width), &d.state, [rows, width, width]);
            // A value is read by the queries below it, and its own position's of r; what is replaced is itself a result.
            for row in 0..rows {
                chunk.weigh(simd, row);
            }
            for row in (0..rows).rev() {
                let below = row | 1;
                let value = &mut d.values[row * width..][..width];
                let weights = Left::line(&chunk.weights, below * ROWS + row, ROWS);
                add_product(simd, value, weights, &d.results[below * width..], [1, rows - below, width]);
                if row % 2 == 0 {
                    d.results[row * width..][..width].copy_from_slice(value);
                }
            }
            for row in 0..rows {
                let result = &d.results[row * width..][..width];
                inner_products(simd, &mut d.weights[row * ROWS..][..ROWS], result, &chunk.values, seen(row));
            }
            transpose(level, &d.before, width, width, width, &mut d.transposed, width);
            d.queries.fill(0.0);
            add_product(simd, &mut d.queries, Left::rows(&d.results, width), &d.transposed, [rows, width, width]);
            transpose(level, &d.state, width, width, width, &mut d.transposed, width);
            d.keys.fill(0.0);
            add_product(simd, &mut d.keys, Left::rows(&chunk.values, width), &d.transposed, [rows, width, width]);
            for row in 0..rows {
                let query = &mut d.queries[row * width..][..width];
                add_product(simd, query, Left::line(&d.weights, row * ROWS, 1), &chunk.keys, [1, seen(row), width]);
                let below = row | 1;
                let key = &mut d.keys[row * width..][..width];
                let weights = Left::line(&d.weights, below * ROWS + row, ROWS);
                add_product(simd, key, weights, &chunk.queries[below * width..], [1, rows - below, width]);
            }
            add_product(simd, &mut d.state, Left::columns(&chunk.queries, width), &d.results, [width, rows, width]);
            for t in (0..count).rev() {
                let at = recurrence.at(head, first + t);
                for (from, lanes) in vectors::<S>(&(0..size)) {
                    let (early, late) = (2 * t * width + from, (2 * t + 1) * width + from);
                    let before = whole::<S>(&chunk.decays, t * width + from);
                    let after = whole::<S>(&chunk.decays, (t + 1) * width + from);
                    let inverse = whole::<S>(&chunk.inverses, t * width + from);
                    let (da, dr) = (whole::<S>(&d.queries, early), whole::<S>(&d.queries, late));
                    let (db, dk) = (whole::<S>(&d.keys, early), whole::<S>(&d.keys, late));
                    // P's logarithm is the sum of those of the decays: a decay feels all P from its position on.
                    let along = whole::<S>(&d.along, from);
                    let along = simd.mul_add_f32s(dr, whole::<S>(&chunk.queries, late), along);
                    let along = simd.negate_mul_add_f32s(db, whole::<S>(&chunk.keys, early), along);
                    let along = simd.negate_mul_add_f32s(dk, whole::<S>(&chunk.keys, late), along);
                    put::<S>(&mut d.along, from, simd.mul_add_f32s(da, whole::<S>(&chunk.queries, early), along));
                    let open = sigmoid(simd, load(simd, recurrence.d, at + from, lanes));
                    let slope = simd.mul_f32s(open, simd.sub_f32s(simd.splat_f32s(1.0), open));
                    let dd = simd.mul_f32s(along, simd.mul_f32s(slope, simd.splat_f32s(-STEEPEST as f32)));
                    // Of b, which is -a rate.
                    let db = simd.mul_f32s(db, inverse);
                    let a = load(simd, recurrence.a, at + from, lanes);
                    let rate = load(simd, recurrence.rate, at + from, lanes);
                    let gradients = [
                        simd.mul_f32s(dr, after),
                        dd,
                        simd.mul_f32s(dk, inverse),
                        whole::<S>(&d.values, late),
                        simd.negate_mul_add_f32s(db, rate, simd.mul_f32s(da, before)),
                        simd.neg_f32s(simd.mul_f32s(db, a)),
                    ];
                    for (to, &gradient) in to.iter().zip(&gradients) {
                        // SAFETY: the values of this head are this task's.
                        unsafe { to.store(simd, at + from, lanes, gradient) };
                    }
                }
            }
        }
        // SAFETY: as above.
        unsafe { write_state(simd, to[6], state_at, &d.state, width, size) };
    }
}
