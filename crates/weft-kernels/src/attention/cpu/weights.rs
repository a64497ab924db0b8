//! Probabilities to look at: queries one by one.
#![expect(unsafe_code, reason = "tasks write disjoint columns of one tensor, which slices cannot express")]

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};

use super::{ALIGN, Call, Head, QUERIES_PER_TASK, Sizes, scaled_copy};
use crate::attention::memory::Target;
use crate::attention::softmax::Row;
use crate::fresh::Fresh;
use crate::panels::scratch::{Scratch, pitch, with_scratch};
use crate::simd::Level;

/// Probabilities `[batch, heads, q_time, k_time]`, without dropout.
pub(in crate::attention) fn weights(level: Level, call: &Call<'_>) -> Vec<f32> {
    let Sizes { batch, q_time, k_time, .. } = call.sizes;
    let heads = call.settings.num_heads;
    let size = batch * heads * q_time * k_time;
    let mut out = Fresh::new(size);
    out.room().fill(MaybeUninit::new(0.0));
    let target = Target::new(out.room(), heads * q_time * k_time, q_time * k_time);
    call.for_each_head(QUERIES_PER_TASK, |batch, number, start| {
        let head = call.head(batch, number);
        with_scratch(|scratch| level.run(Weights { scratch, head, batch, number, start, target }));
    });
    // SAFETY: it started as zeros.
    unsafe { out.filled(size) }
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
        let [row_scores] = scratch.split([pitch(head.k_time)]);
        for query in start..head.sentence.queries.min(start + QUERIES_PER_TASK) {
            let spans = head.sentence.tile(query, query + 1, 1).spans(head.k_time.next_multiple_of(ALIGN), ALIGN);
            // First the sum over all spans, then what each key has of it.
            let mut row = Row::EMPTY;
            for summed in [false, true] {
                let kept = row.statistics();
                for span in spans.clone() {
                    let seen = span.seen_by(0);
                    head.products_in_place(simd, query, span.start, &seen, row_scores);
                    head.scores(simd, row_scores, query, span.start, &seen, None);
                    if !summed {
                        row.powers(simd, row_scores, &seen, head.scale);
                    } else {
                        let mut again = row;
                        again.powers(simd, row_scores, &seen, head.scale);
                        let first = query * head.k_time + span.start + seen.start;
                        // SAFETY: this task alone writes these queries of this head.
                        let to = unsafe { target.row(batch, number, first, seen.len()) };
                        scaled_copy(simd, to, &row_scores[seen.start..], kept.inverse_sum);
                    }
                }
            }
        }
    }
}
