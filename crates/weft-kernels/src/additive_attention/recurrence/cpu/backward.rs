//! Backward through time.
#![expect(unsafe_code, reason = "workers read and write parts of shared buffers")]

use std::ops::Range;

use pulp::Simd;

use super::super::super::rows::{RowGradients, attend_backward};
use super::super::AttentiveRecurrence;
use super::{Forward, Sizes, Weights};
use crate::recurrent::cpu::{self, ContextGradient, Results, Upstream, lanes, weight_gradient};
use crate::recurrent::panels::{Panels, gate_columns, panel_width};
use crate::recurrent::product::{MOST_VECTORS, Product};
use crate::recurrent::schedule::Schedule;
use crate::recurrent::team::{Buffer, Shared, Worker, load};
use crate::recurrent::{Cell, Recurrence};
use crate::simd::Level;

/// The gradients of all inputs in the operation's order, from that of the packed result.
#[expect(clippy::too_many_arguments, reason = "inputs, results and the gradient")]
pub(in super::super) fn backward(
    level: Level,
    recurrence: &AttentiveRecurrence,
    sizes: Sizes,
    weights: Weights<'_>,
    weight_hh: &[f32],
    initial: &[f32],
    forward: Forward<'_>,
    gradient: &[f32],
) -> [Vec<f32>; 9] {
    let AttentiveRecurrence { cell, source_lengths, target_lengths } = recurrence;
    let Sizes { time, hidden, query_size, size, .. } = sizes;
    let (batch, lanes, gates) = (target_lengths.len(), lanes(level), cell.gates());
    let (padded_query, padded) = (query_size.next_multiple_of(lanes), size.next_multiple_of(lanes));
    let running: usize = target_lengths.iter().sum();
    let recurrent = (batch * time + cell.states() * batch) * hidden;
    let mut dqueries = Buffer::new(running * padded_query);
    let mut dcontexts = Buffer::new(batch * time * padded);
    let mut contexts = Buffer::new(running * padded);
    let mut dscores = vec![0.0; batch * query_size];
    let mut energies = vec![0.0; batch * sizes.source_time];
    let mut dquery_weight = vec![0.0; hidden * query_size];
    let mut dkeys = vec![0.0; weights.keys.len()];
    let mut dvalues = vec![0.0; weights.values.len()];
    let mut dcontext_weight = vec![0.0; size * gates * hidden];
    let context = Attention {
        cell: *cell,
        sizes,
        weights,
        source_lengths,
        queries: forward.queries,
        alphas: forward.weights,
        contexts_before: &forward.packed[recurrent..],
        gradient: &gradient[recurrent..],
        dqueries: Shared::new(&mut dqueries),
        dcontexts: Shared::new(&mut dcontexts),
        contexts: Shared::new(&mut contexts),
        dscores: Shared::new(&mut dscores),
        energies: Shared::new(&mut energies),
        dquery_weight: Shared::new(&mut dquery_weight),
        dkeys: Shared::new(&mut dkeys),
        dvalues: Shared::new(&mut dvalues),
        dcontext_weight: Shared::new(&mut dcontext_weight),
    };
    let recurrence = Recurrence { cell: *cell, lengths: target_lengths.clone(), reverse: false };
    let results = Results { packed: &forward.packed[..recurrent], activations: forward.activations };
    let [dgates_x, dweight, dbias, dinitial] =
        cpu::backward(level, &recurrence, [time, hidden], weight_hh, initial, results, &gradient[..recurrent], context);
    // Each sentence has a sum of its own; they are added in order.
    let mut dscore = vec![0.0; query_size];
    for part in dscores.chunks(query_size.max(1)) {
        dscore.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    [dgates_x, dquery_weight, dkeys, dvalues, dscore, dcontext_weight, dweight, dbias, dinitial]
}

#[derive(Clone, Copy)]
struct Attention<'a> {
    cell: Cell,
    sizes: Sizes,
    weights: Weights<'a>,
    source_lengths: &'a [usize],
    queries: &'a [f32],
    alphas: &'a [f32],
    /// `[batch, time, size]`, as the forward pass made them.
    contexts_before: &'a [f32],
    /// `[batch, time, size]`: the gradient of the contexts that went out.
    gradient: &'a [f32],
    /// `[running row, padded query_size]`
    dqueries: Shared<'a>,
    /// `[batch, time, padded size]`
    dcontexts: Shared<'a>,
    /// The contexts in the running rows' order, `[running row, padded size]`.
    contexts: Shared<'a>,
    /// `[batch, query_size]`
    dscores: Shared<'a>,
    /// Room for one sentence's energies each, `[batch, source_time]`.
    energies: Shared<'a>,
    dquery_weight: Shared<'a>,
    dkeys: Shared<'a>,
    dvalues: Shared<'a>,
    dcontext_weight: Shared<'a>,
}

/// What a worker prepares: its panels of the transposed context weights.
struct Local {
    panels: Panels,
}

impl ContextGradient for Attention<'_> {
    type Local = Local;

    fn size(self) -> usize {
        self.sizes.size
    }

    fn query_size(self) -> usize {
        self.sizes.query_size
    }

    fn query_weight(&self) -> &[f32] {
        self.weights.query
    }

    fn begin<S: Simd>(self, _: S, worker: &Worker<'_>) -> Local {
        let (size, hidden, lanes, gates) = (self.sizes.size, self.sizes.hidden, S::F32_LANES, self.cell.gates());
        let vectors = size.div_ceil(lanes);
        let width = panel_width(vectors, MOST_VECTORS, worker.count());
        let share = worker.share(vectors.div_ceil(width));
        let columns = gate_columns(0..gates, hidden, lanes);
        let mut panels = Panels::new(share, vectors, width, 1, columns.len(), lanes);
        panels.pack_transposed(self.weights.context, gates * hidden, &columns, size, lanes);
        Local { panels }
    }

    #[inline(always)]
    fn back<S: Simd>(
        self,
        simd: S,
        local: &Local,
        worker: &Worker<'_>,
        schedule: &Schedule,
        step: usize,
        dinputs: Shared<'_>,
    ) {
        self.contexts_backward(simd, local, schedule, step, dinputs);
        worker.wait();
        let Sizes { time, source_time, query_size, size, .. } = self.sizes;
        let lanes = S::F32_LANES;
        let (padded_query, padded) = (query_size.next_multiple_of(lanes), size.next_multiple_of(lanes));
        for row in worker.share(schedule.active[step]) {
            let sentence = schedule.order[row];
            let position = sentence * time + schedule.position(row, step);
            let length = self.source_lengths[sentence];
            let query = (schedule.before[step] + row) * padded_query;
            let keys = sentence * source_time * query_size;
            // SAFETY: inside the buffers; a row's and a sentence's parts are this worker's in this phase, and the
            // contexts' gradients are only read.
            unsafe {
                let energies = self.energies.slice_mut(sentence * source_time..sentence * source_time + length);
                energies.fill(0.0);
                let gradients = RowGradients {
                    dquery: self.dqueries.slice_mut(query..query + query_size),
                    dkeys: self.dkeys.slice_mut(keys..keys + length * query_size),
                    dscore: self.dscores.slice_mut(sentence * query_size..(sentence + 1) * query_size),
                };
                attend_backward(
                    simd,
                    &self.queries[query..query + query_size],
                    self.weights.source(self.sizes, sentence, length),
                    &self.alphas[position * source_time..][..length],
                    self.dcontexts.slice(position * padded..position * padded + size),
                    energies,
                    gradients,
                );
                let to = (schedule.before[step] + row) * padded;
                let context = &self.contexts_before[position * size..(position + 1) * size];
                self.contexts.slice_mut(to..to + size).copy_from_slice(context);
            }
        }
        worker.wait();
    }

    fn dqueries(&self) -> Option<Shared<'_>> {
        Some(self.dqueries)
    }

    #[inline(always)]
    fn finish<S: Simd>(
        self,
        simd: S,
        worker: &Worker<'_>,
        schedule: &Schedule,
        units: Range<usize>,
        dinputs: Shared<'_>,
        previous: Shared<'_>,
    ) {
        let Sizes { hidden, query_size, size, .. } = self.sizes;
        let (gates, total, lanes) = (self.cell.gates(), schedule.total, S::F32_LANES);
        if total == 0 {
            return; // the gradients are zero as they are
        }
        let lefts = [(self.contexts, 0..gates)];
        let (unit_stride, row_stride) = (total * gates * lanes, gates * lanes);
        let upstream = Upstream { values: dinputs, unit_stride, row_stride, gates, total };
        weight_gradient(simd, units, upstream, &lefts, size, hidden, self.dcontext_weight);
        let vectors = query_size.div_ceil(lanes);
        let upstream =
            Upstream { values: self.dqueries, unit_stride: lanes, row_stride: vectors * lanes, gates: 1, total };
        let queries = worker.share(vectors);
        weight_gradient(simd, queries, upstream, &[(previous, 0..1)], hidden, query_size, self.dquery_weight);
        for row in worker.share(schedule.order.len()) {
            self.values_backward(simd, schedule.order[row], schedule.lengths[row]);
        }
    }
}

impl Attention<'_> {
    /// The contexts' gradients at a step: what went out, and through the gates' inputs.
    #[inline(always)]
    fn contexts_backward<S: Simd>(
        &self,
        simd: S,
        local: &Local,
        schedule: &Schedule,
        step: usize,
        dinputs: Shared<'_>,
    ) {
        let Sizes { time, hidden, size, .. } = self.sizes;
        let (rows, lanes, gates) = (schedule.active[step], S::F32_LANES, self.cell.gates());
        let padded = size.next_multiple_of(lanes);
        let mut scratch = Buffer::new(rows * MOST_VECTORS * lanes);
        for (index, units) in local.panels.units.iter().enumerate() {
            let width = units.len() * lanes;
            let product = Product {
                a: dinputs.at(schedule.before[step] * gates * lanes),
                rows,
                row_stride: gates * lanes,
                inner_stride: 1,
                chunk: gates * lanes,
                chunks: hidden.div_ceil(lanes),
                chunk_stride: schedule.total * gates * lanes,
                panel: local.panels.panel(index).as_ptr(),
                panel_stride: width,
                vector_stride: lanes,
                vectors: units.len(),
                out: scratch.as_mut_ptr(),
                out_stride: width,
                accumulate: false,
            };
            // SAFETY: nobody writes this step's gradients now; the scratch has `rows` rows of the panel's width.
            unsafe { product.run(simd) };
            for row in 0..rows {
                let position = schedule.order[row] * time + schedule.position(row, step);
                for (u, vector) in units.clone().enumerate() {
                    let start = vector * lanes;
                    let count = lanes.min(size - start);
                    let outside = &self.gradient[position * size + start..][..count];
                    // SAFETY: ranges of a slice, of the scratch, and of this worker's columns.
                    unsafe {
                        let through = load(simd, scratch[row * width + u * lanes..].as_ptr(), lanes);
                        let sum = simd.add_f32s(through, load(simd, outside.as_ptr(), count));
                        self.dcontexts.store(simd, position * padded + start, lanes, sum);
                    }
                }
            }
        }
    }

    /// The values' gradient of one sentence: its attention weights, times its contexts' gradients.
    #[inline(always)]
    fn values_backward<S: Simd>(&self, simd: S, sentence: usize, steps: usize) {
        let Sizes { time, source_time, size, .. } = self.sizes;
        let (lanes, length) = (S::F32_LANES, self.source_lengths[sentence]);
        let vectors = size.div_ceil(lanes);
        if steps == 0 || length == 0 {
            return;
        }
        let mut sums = Buffer::new(length * MOST_VECTORS * lanes);
        for first in (0..vectors).step_by(MOST_VECTORS) {
            let last = (first + MOST_VECTORS).min(vectors);
            let (from, to) = (first * lanes, (last * lanes).min(size));
            let product = Product {
                a: self.alphas[sentence * time * source_time..].as_ptr(),
                rows: length,
                row_stride: 1,
                inner_stride: source_time,
                chunk: steps,
                chunks: 1,
                chunk_stride: 0,
                panel: self.dcontexts.at(sentence * time * vectors * lanes + from),
                panel_stride: vectors * lanes,
                vector_stride: lanes,
                vectors: last - first,
                out: sums.as_mut_ptr(),
                out_stride: MOST_VECTORS * lanes,
                accumulate: false,
            };
            // SAFETY: all steps are done: the weights and the contexts' gradients are only read.
            unsafe { product.run(simd) };
            for at in 0..length {
                let sum = &sums[at * MOST_VECTORS * lanes..][..to - from];
                let start = (sentence * source_time + at) * size;
                // SAFETY: the sentence is this worker's.
                unsafe { self.dvalues.slice_mut(start + from..start + to) }.copy_from_slice(sum);
            }
        }
    }
}
