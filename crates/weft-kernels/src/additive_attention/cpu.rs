//! The CPU kernel of one query per sentence: sentences over all cores, one alone on each.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::rows::{RowGradients, Source, attend, attend_backward, values_backward};
use crate::simd::Level;

/// The tensors that go in, row-major.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    /// `[batch, query_size]`
    pub(super) query: &'a [f32],
    /// `[batch, source_time, query_size]`
    pub(super) keys: &'a [f32],
    /// `[batch, source_time, size]`
    pub(super) values: &'a [f32],
    /// `[query_size]`
    pub(super) score: &'a [f32],
    /// `[batch]`
    pub(super) lengths: &'a [usize],
}

/// Sizes of the axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) source_time: usize,
    pub(super) query_size: usize,
    pub(super) size: usize,
}

impl<'a> Inputs<'a> {
    /// One sentence's query and source.
    fn sentence(&self, sizes: Sizes, index: usize) -> (&'a [f32], Source<'a>) {
        let Sizes { source_time, query_size, size } = sizes;
        let (start, length) = (index * source_time, self.lengths[index]);
        let keys = &self.keys[start * query_size..(start + length) * query_size];
        let values = &self.values[start * size..(start + length) * size];
        let query = &self.query[index * query_size..(index + 1) * query_size];
        (query, Source { keys, values, score: self.score })
    }
}

/// `[batch, size + source_time]`: contexts and weights.
pub(super) fn forward(level: Level, inputs: Inputs<'_>, sizes: Sizes) -> Vec<f32> {
    let width = sizes.size + sizes.source_time;
    let mut packed = vec![0.0; inputs.lengths.len() * width];
    packed.par_chunks_mut(width.max(1)).enumerate().for_each(|(index, packed)| {
        let (query, source) = inputs.sentence(sizes, index);
        let (context, weights) = packed.split_at_mut(sizes.size);
        level.run(Attend { query, source, weights: &mut weights[..inputs.lengths[index]], context });
    });
    packed
}

/// The gradients of `query`, `keys`, `values` and `score`, from that of the packed result.
pub(super) fn backward(
    level: Level,
    inputs: Inputs<'_>,
    sizes: Sizes,
    packed: &[f32],
    gradient: &[f32],
) -> [Vec<f32>; 4] {
    let Sizes { source_time, query_size, size } = sizes;
    let width = size + source_time;
    let mut dquery = vec![0.0; inputs.query.len()];
    let mut dkeys = vec![0.0; inputs.keys.len()];
    let mut dvalues = vec![0.0; inputs.values.len()];
    // Each sentence has a sum of its own; they are added in order.
    let mut dscores = vec![0.0; inputs.query.len()];
    dquery
        .par_chunks_mut(query_size.max(1))
        .zip(dscores.par_chunks_mut(query_size.max(1)))
        .zip(dkeys.par_chunks_mut((source_time * query_size).max(1)))
        .zip(dvalues.par_chunks_mut((source_time * size).max(1)))
        .enumerate()
        .for_each(|(index, (((dquery, dscore), dkeys), dvalues))| {
            let (query, source) = inputs.sentence(sizes, index);
            let length = inputs.lengths[index];
            let weights = &packed[index * width + size..][..length];
            let (dcontext, dweights) = gradient[index * width..(index + 1) * width].split_at(size);
            level.run(AttendBackward {
                query,
                source,
                weights,
                dcontext,
                energies: &mut dweights[..length].to_vec(),
                gradients: RowGradients { dquery, dkeys, dscore },
                dvalues,
            });
        });
    let mut dscore = vec![0.0; query_size];
    for part in dscores.chunks(query_size.max(1)) {
        dscore.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    [dquery, dkeys, dvalues, dscore]
}

struct Attend<'a> {
    query: &'a [f32],
    source: Source<'a>,
    weights: &'a mut [f32],
    context: &'a mut [f32],
}

impl WithSimd for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        attend(simd, self.query, self.source, self.weights, self.context);
    }
}

struct AttendBackward<'a> {
    query: &'a [f32],
    source: Source<'a>,
    weights: &'a [f32],
    dcontext: &'a [f32],
    energies: &'a mut [f32],
    gradients: RowGradients<'a>,
    dvalues: &'a mut [f32],
}

impl WithSimd for AttendBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { query, source, weights, dcontext, energies, gradients, dvalues } = self;
        attend_backward(simd, query, source, weights, dcontext, energies, gradients);
        values_backward(simd, weights, dcontext, dvalues);
    }
}
