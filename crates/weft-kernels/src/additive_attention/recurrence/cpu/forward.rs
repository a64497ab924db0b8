//! Forward through time.
#![expect(unsafe_code, reason = "workers read and write parts of shared buffers")]

use pulp::Simd;

use super::super::super::rows::attend;
use super::super::AttentiveRecurrence;
use super::{Inputs, Sizes, Weights};
use crate::recurrent::Recurrence;
use crate::recurrent::cpu::{self, Context, lanes};
use crate::recurrent::panels::{Panels, panel_width};
use crate::recurrent::product::{MOST_VECTORS, Product};
use crate::recurrent::schedule::Schedule;
use crate::recurrent::team::{Buffer, Shared, Worker};
use crate::simd::Level;

/// The packed result (states, last states, contexts), the attention weights, and, if they are to be kept, the
/// cells' activations and the queries.
pub(in super::super) fn forward(
    level: Level,
    recurrence: &AttentiveRecurrence,
    sizes: Sizes,
    weights: Weights<'_>,
    inputs: Inputs<'_>,
    keep: bool,
) -> [Vec<f32>; 4] {
    let AttentiveRecurrence { cell, source_lengths, target_lengths } = recurrence;
    let Sizes { time, hidden, source_time, query_size, size } = sizes;
    let batch = target_lengths.len();
    let lanes = lanes(level);
    let running: usize = target_lengths.iter().sum();
    let mut alphas = vec![0.0; batch * time * source_time];
    let mut contexts = vec![0.0; batch * time * size];
    let mut step_contexts = Buffer::new(batch * size.next_multiple_of(lanes));
    let mut queries = vec![0.0; if keep { running } else { batch } * query_size.next_multiple_of(lanes)];
    let context = Attention {
        sizes,
        weights,
        source_lengths,
        alphas: Shared::new(&mut alphas),
        contexts: Shared::new(&mut contexts),
        step_contexts: Shared::new(&mut step_contexts),
        queries: Shared::new(&mut queries),
        keep,
    };
    let recurrence = Recurrence { cell: *cell, lengths: target_lengths.clone(), reverse: false };
    let (mut packed, activations) = cpu::forward(level, &recurrence, [time, hidden], inputs, context, keep);
    packed.extend_from_slice(&contexts);
    [packed, alphas, activations, queries]
}

#[derive(Clone, Copy)]
struct Attention<'a> {
    sizes: Sizes,
    weights: Weights<'a>,
    source_lengths: &'a [usize],
    /// `[batch, time, source_time]`
    alphas: Shared<'a>,
    /// `[batch, time, size]`
    contexts: Shared<'a>,
    /// The contexts of one step, `[row, padded size]`.
    step_contexts: Shared<'a>,
    /// `[running row, padded query_size]`, or of one step only if they are not kept.
    queries: Shared<'a>,
    keep: bool,
}

impl Context for Attention<'_> {
    type Local = Panels;

    fn size(self) -> usize {
        self.sizes.size
    }

    fn weight(&self) -> &[f32] {
        self.weights.context
    }

    fn begin<S: Simd>(self, _: S, worker: &Worker<'_>) -> Panels {
        let (query_size, lanes) = (self.sizes.query_size, S::F32_LANES);
        let vectors = query_size.div_ceil(lanes);
        let width = panel_width(vectors, MOST_VECTORS, worker.count());
        let share = worker.share(vectors.div_ceil(width));
        let mut panels = Panels::new(share, vectors, width, 1, self.sizes.hidden, lanes);
        panels.pack_rows(self.weights.query, query_size, 0..1, query_size, lanes);
        panels
    }

    #[inline(always)]
    fn prepare<S: Simd>(
        self,
        simd: S,
        panels: &Panels,
        worker: &Worker<'_>,
        schedule: &Schedule,
        step: usize,
        states: Shared<'_>,
    ) {
        let Sizes { time, hidden, source_time, query_size, size } = self.sizes;
        let (rows, lanes) = (schedule.active[step], S::F32_LANES);
        let (padded_query, padded) = (query_size.next_multiple_of(lanes), size.next_multiple_of(lanes));
        let first = if self.keep { schedule.before[step] } else { 0 };
        for (index, units) in panels.units.iter().enumerate() {
            let product = Product {
                a: states.at(0),
                rows,
                row_stride: hidden.next_multiple_of(lanes),
                inner_stride: 1,
                chunk: hidden,
                chunks: 1,
                chunk_stride: 0,
                panel: panels.panel(index).as_ptr(),
                panel_stride: units.len() * lanes,
                vector_stride: lanes,
                vectors: units.len(),
                out: self.queries.at(first * padded_query + units.start * lanes),
                out_stride: padded_query,
                accumulate: false,
            };
            // SAFETY: nobody writes the states of this phase; these columns of the queries are this worker's.
            unsafe { product.run(simd) };
        }
        worker.wait();
        for row in worker.share(rows) {
            let sentence = schedule.order[row];
            let position = sentence * time + schedule.position(row, step);
            let length = self.source_lengths[sentence];
            let query = (first + row) * padded_query;
            // SAFETY: inside the buffers; the queries are only read in this phase, the row's parts of the others
            // are this worker's.
            unsafe {
                let query = self.queries.slice(query..query + query_size);
                let alphas = self.alphas.slice_mut(position * source_time..position * source_time + length);
                let current = self.step_contexts.slice_mut(row * padded..row * padded + size);
                attend(simd, query, self.weights.source(self.sizes, sentence, length), alphas, current);
                self.contexts.slice_mut(position * size..(position + 1) * size).copy_from_slice(current);
            }
        }
        worker.wait();
    }

    fn step_contexts(&self) -> Shared<'_> {
        self.step_contexts
    }
}
