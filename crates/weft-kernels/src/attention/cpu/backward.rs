//! The backward pass: probabilities are made again, a block of queries at a time; the gradients of keys and values
//! grow in scratch memory from block to block.
#![expect(unsafe_code, reason = "tasks write disjoint columns of one tensor, which slices cannot express")]

use pulp::{Simd, WithSimd};

use super::{Call, Head, Panels, Sizes, scaled_copy};
use crate::attention::few;
use crate::attention::memory::{Operand, Scratch, Target, pitch, with_scratch};
use crate::attention::pack::{self, panels_size};
use crate::attention::product::{Product, Ramp};
use crate::attention::softmax::{self, RowGradient, RowStatistics};
use crate::fresh::Fresh;
use crate::simd::Level;

/// What the backward pass reads besides the call itself.
#[derive(Clone, Copy)]
pub(in crate::attention) struct Saved<'a> {
    /// What the forward pass kept of each row.
    pub(in crate::attention) statistics: &'a [f32],
    /// The gradient of the result.
    pub(in crate::attention) dout: Operand<'a>,
}

/// The gradient of the packed q | k | v `[batch, time, 3 * hidden]`.
pub(in crate::attention) fn self_backward(level: Level, call: &Call<'_>, saved: &Saved<'_>) -> Vec<f32> {
    let Sizes { batch, q_time: time, head_dim, .. } = call.sizes;
    let hidden = call.settings.num_heads * head_dim;
    let size = batch * time * 3 * hidden;
    let mut gradient = Fresh::new(size);
    let all = Target::new(gradient.room(), time * 3 * hidden, 3 * hidden);
    backward(level, call, saved, [all, all.skip(hidden), all.skip(2 * hidden)]);
    // SAFETY: `backward` writes all of its targets.
    unsafe { gradient.filled(size) }
}

/// The gradients of q `[batch, q_time, hidden]` and of the packed k | v `[batch, k_time, 2 * hidden]`.
pub(in crate::attention) fn cross_backward(level: Level, call: &Call<'_>, saved: &Saved<'_>) -> [Vec<f32>; 2] {
    let Sizes { batch, q_time, k_time, head_dim } = call.sizes;
    let hidden = call.settings.num_heads * head_dim;
    let (q_size, kv_size) = (batch * q_time * hidden, batch * k_time * 2 * hidden);
    let (mut dq, mut dkv) = (Fresh::new(q_size), Fresh::new(kv_size));
    let dk = Target::new(dkv.room(), k_time * 2 * hidden, 2 * hidden);
    let targets = [Target::new(dq.room(), q_time * hidden, hidden), dk, dk.skip(hidden)];
    backward(level, call, saved, targets);
    // SAFETY: `backward` writes all of its targets.
    unsafe { [dq.filled(q_size), dkv.filled(kv_size)] }
}

/// Writes the gradients of q, k and v, zeros where nothing depends on them.
fn backward(level: Level, call: &Call<'_>, saved: &Saved<'_>, gradients: [Target<'_>; 3]) {
    let Sizes { q_time, head_dim, .. } = call.sizes;
    call.for_each(q_time.max(1), |batch, number, _| {
        let statistics = &saved.statistics[(batch * call.settings.num_heads + number) * q_time * 2..][..q_time * 2];
        let dout = saved.dout;
        let column = number * head_dim;
        with_scratch(|scratch| {
            level.run(Backward {
                scratch,
                head: call.head(batch, number),
                batch,
                column,
                dout: dout.from(batch, column),
                dout_stride: dout.time_stride,
                statistics,
                gradients,
            });
        });
    });
}

struct Backward<'a> {
    scratch: &'a mut Scratch,
    head: Head<'a>,
    batch: usize,
    column: usize,
    dout: &'a [f32],
    dout_stride: usize,
    statistics: &'a [f32],
    gradients: [Target<'a>; 3],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Backward { scratch, head, batch, column, dout, dout_stride, statistics, gradients } = self;
        let [dq_target, dk_target, dv_target] = gradients;
        let (lanes, head_dim, sentence) = (S::F32_LANES, head.head_dim, head.sentence);
        let end = sentence.queries;
        let keys = if end > 0 { sentence.seen(end - 1) } else { 0 };
        // SAFETY: this task alone writes the queries, keys and values of this head.
        unsafe {
            dq_target.zero(batch, if keys > 0 { end } else { 0 }..head.q_time, column, head_dim);
            dk_target.zero(batch, keys..head.k_time, column, head_dim);
            dv_target.zero(batch, keys..head.k_time, column, head_dim);
        }
        if keys == 0 {
            return;
        }
        let wide = head_dim.next_multiple_of(lanes);
        let (pitch, block) = (pitch(keys), head.block(keys).min(end));
        let (across, along) = (panels_size(head_dim, keys, lanes), panels_size(keys, head_dim, lanes));
        let per_block = panels_size(block, head_dim, lanes);
        let [k_across, v_across, k_along, q_along, dout_along, scores, products, dq, dk, dv] = scratch.split([
            across,
            across,
            along,
            per_block,
            per_block,
            block * pitch,
            block * pitch,
            block * wide,
            keys * wide,
            keys * wide,
        ]);
        pack::columns(simd, head.k, head.k_stride, keys, head_dim, k_across);
        pack::columns(simd, head.v, head.v_stride, keys, head_dim, v_across);
        pack::rows(simd, head.k, head.k_stride, keys, head_dim, k_along);
        let k_across = Panels { values: k_across, count: keys, pitch };
        let v_across = Panels { values: v_across, count: keys, pitch };
        dk.fill(0.0);
        dv.fill(0.0);
        let plain_scale = (1.0 / (head_dim as f64).sqrt()) as f32;

        for first in (0..end).step_by(block) {
            let count = block.min(end - first);
            let seen = Ramp { most: keys, ..sentence.seen_from(first) };
            let last_seen = seen.at(count - 1);
            if last_seen == 0 {
                // SAFETY: this task alone writes these queries of this head.
                unsafe { dq_target.zero(batch, first..first + count, column, head_dim) };
                continue;
            }
            let dout = &dout[first * dout_stride..];
            pack::rows(simd, &head.q[first * head.q_stride..], head.q_stride, count, head_dim, q_along);
            pack::rows(simd, dout, dout_stride, count, head_dim, dout_along);
            if end <= few::MOST_QUERIES {
                // The same bits as in the forward pass, whose maximum and sum are used again below.
                for (i, row) in scores.chunks_exact_mut(pitch).take(count).enumerate() {
                    head.scores_in_place(simd, first + i, row);
                }
            } else {
                head.scores(simd, first, count, &k_across, scores);
            }
            head.against_keys(simd, dout, dout_stride, first, count, &v_across, products);
            let rows = scores.chunks_exact_mut(pitch).zip(products.chunks_exact_mut(pitch));
            for (i, (scores, products)) in rows.take(count).enumerate() {
                let query = first + i;
                let row = RowGradient {
                    statistics: RowStatistics { shift: statistics[query * 2], inverse_sum: statistics[query * 2 + 1] },
                    scale: head.scale,
                    dropout: head.dropout,
                    index: head.first_index(query),
                };
                softmax::gradient(simd, scores, products, seen.at(i), &row);
            }
            simd.vectorize(Product {
                a: products,
                a_row: pitch,
                a_column: 1,
                b: k_along,
                depth: keys,
                columns: Ramp::flat(head_dim),
                from: Ramp::flat(0),
                to: seen,
                c: dq,
                c_row: wide,
                rows: count,
                accumulate: false,
            });
            for (i, row) in dq.chunks_exact(wide).take(count).enumerate() {
                // SAFETY: this task alone writes these queries of this head.
                let to = unsafe { dq_target.row(batch, first + i, column, head_dim) };
                scaled_copy(simd, to, row, plain_scale);
            }
            for (a, b, c) in [(&*scores, &*dout_along, &mut *dv), (&*products, &*q_along, &mut *dk)] {
                simd.vectorize(Product {
                    a,
                    a_row: 1,
                    a_column: pitch,
                    b,
                    depth: count,
                    columns: Ramp::flat(head_dim),
                    from: sentence.viewers(first, count),
                    to: Ramp::flat(count),
                    c,
                    c_row: wide,
                    rows: last_seen,
                    accumulate: true,
                });
            }
        }
        for (key, (dk, dv)) in dk.chunks_exact(wide).zip(dv.chunks_exact(wide)).enumerate() {
            // SAFETY: this task alone writes the keys of this head.
            scaled_copy(simd, unsafe { dk_target.row(batch, key, column, head_dim) }, dk, plain_scale);
            // SAFETY: this task alone writes the values of this head.
            scaled_copy(simd, unsafe { dv_target.row(batch, key, column, head_dim) }, dv, 1.0);
        }
    }
}
