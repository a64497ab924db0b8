//! Additive attention in Burn's own operations.

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, TensorMetadata};

use super::AdditiveAttentionKept;
use crate::recurrent::portable::{Array, mask};

/// The masks of positions past each sentence's length.
pub(super) struct Past<B: Backend> {
    /// `[batch, source_time]`
    pub(super) flat: BoolTensor<B>,
    lengths: Vec<usize>,
    source_time: usize,
}

impl<B: Backend> Past<B> {
    pub(super) fn new(lengths: &[usize], source_time: usize, like: &Array<B>) -> Self {
        let shape = [lengths.len(), source_time];
        let flat = mask(Self::values(lengths, source_time), shape, shape, like);
        Self { flat, lengths: lengths.to_vec(), source_time }
    }

    fn values(lengths: &[usize], source_time: usize) -> Vec<bool> {
        lengths.iter().flat_map(|&length| (0..source_time).map(move |at| at >= length)).collect()
    }

    /// Zeros where `[batch, source_time, width]` lies past a length: what stands there may be NaN.
    pub(super) fn cleared(&self, rows: Array<B>) -> Array<B> {
        let [batch, source_time, width] = rows.shape();
        let (from, to) = ([batch * source_time, 1], [batch * source_time, width]);
        let past = mask(Self::values(&self.lengths, self.source_time), from, to, &rows);
        let zeros = Array::zeros(to, &rows);
        rows.reshape(to).replaced(past, zeros).reshape([batch, source_time, width])
    }
}

/// tanh(query + keys), `[batch, source_time, attention]`.
fn hyperbolic<B: Backend>(query: &Array<B>, keys: &Array<B>) -> Array<B> {
    let [batch, width] = query.shape();
    (query.clone().reshape([batch, 1, width]) + keys.clone()).tanh()
}

/// `[batch, time, width]` times `[width]`, summed over the width: `[batch, time]`.
fn dot<B: Backend>(rows: Array<B>, vector: Array<B>) -> Array<B> {
    let [batch, time, width] = rows.shape();
    (rows * vector.reshape([1, 1, width])).sum(2).reshape([batch, time])
}

/// Contexts and weights; keys and values must be clear past the lengths.
pub(super) fn attend<B: Backend>(
    query: &Array<B>,
    keys: &Array<B>,
    values: &Array<B>,
    score: &Array<B>,
    past: &Past<B>,
) -> (Array<B>, Array<B>) {
    let [batch, source_time, size] = values.shape();
    let energies = dot(hyperbolic(query, keys), score.clone());
    let least = Array(B::float_add_scalar(Array::zeros([batch, source_time], query).0, (-1e30f32).into()));
    let energies = energies.replaced(past.flat.clone(), least);
    let shifted = energies.clone() - Array(B::float_max_dim(energies.0, 1));
    let exponentials =
        Array(B::float_exp(shifted.0)).replaced(past.flat.clone(), Array::zeros([batch, source_time], query));
    // A sentence of length 0 has a sum of 0: its weights are 0 / 1.
    let sum = exponentials.clone().sum(1);
    let empty = past.lengths.iter().map(|&length| length == 0).collect();
    let empty = mask(empty, [batch, 1], [batch, 1], query);
    let sum = Array::<B>(B::float_mask_fill(sum.0, empty, 1f32.into()));
    let weights = Array(B::float_div(exponentials.0, sum.0));
    let context = weights.clone().reshape([batch, 1, source_time]).matmul(values.clone()).reshape([batch, size]);
    (context, weights)
}

/// The gradients of one query.
pub(super) struct AttendGradient<B: Backend> {
    pub(super) query: Array<B>,
    pub(super) keys: Array<B>,
    pub(super) values: Array<B>,
    pub(super) score: Array<B>,
}

/// Back through [`attend`]; `dweights` if the weights have a gradient of their own.
#[expect(clippy::too_many_arguments, reason = "one for each symbol of the equations")]
pub(super) fn attend_backward<B: Backend>(
    query: &Array<B>,
    keys: &Array<B>,
    values: &Array<B>,
    score: &Array<B>,
    weights: &Array<B>,
    dcontext: &Array<B>,
    dweights: Option<Array<B>>,
    past: &Past<B>,
) -> AttendGradient<B> {
    let [batch, source_time, size] = values.shape();
    let [_, _, width] = keys.shape();
    let column = dcontext.clone().reshape([batch, 1, size]);
    let mut along = (values.clone() * column.clone()).sum(2).reshape([batch, source_time]);
    if let Some(dweights) = dweights {
        let zeros = Array::zeros([batch, source_time], query);
        along = along + dweights.replaced(past.flat.clone(), zeros);
    }
    let mean = (along.clone() * weights.clone()).sum(1);
    let denergies = (weights.clone() * (along - mean)).reshape([batch, source_time, 1]);
    let t = hyperbolic(query, keys);
    let dscore = (t.clone() * denergies.clone()).reshape([batch * source_time, width]).sum(0).reshape([width]);
    let darguments = denergies * score.clone().reshape([1, 1, width]) * (t.clone() * t).one_minus();
    AttendGradient {
        query: darguments.clone().sum(1).reshape([batch, width]),
        keys: darguments,
        values: weights.clone().reshape([batch, source_time, 1]) * column,
        score: dscore,
    }
}

/// `[batch, enc + source_time]`: contexts and weights.
pub(super) fn forward<B: Backend>(
    query: FloatTensor<B>,
    keys: FloatTensor<B>,
    values: FloatTensor<B>,
    score: FloatTensor<B>,
    lengths: &[usize],
) -> FloatTensor<B> {
    let (query, keys, values, score) = (Array::<B>(query), Array(keys), Array(values), Array(score));
    let [batch, source_time, size] = values.shape();
    if batch * source_time == 0 {
        return Array::zeros([batch, size + source_time], &query).0;
    }
    let past = Past::new(lengths, source_time, &query);
    let (context, weights) = attend(&query, &past.cleared(keys), &past.cleared(values), &score, &past);
    Array::cat(vec![context, weights], 1).0
}

/// The gradients of `query`, `keys`, `values` and `score`.
pub(super) fn backward<B: Backend>(
    kept: AdditiveAttentionKept<B>,
    gradient: FloatTensor<B>,
    lengths: &[usize],
) -> [FloatTensor<B>; 4] {
    let (query, keys) = (Array::<B>(kept.query), Array::<B>(kept.keys));
    let (values, score) = (Array::<B>(kept.values), Array::<B>(kept.score));
    let (packed, gradient) = (Array::<B>(kept.packed), Array::<B>(gradient));
    let [batch, source_time, size] = values.shape();
    if batch * source_time == 0 {
        let zeros = |array: Array<B>| Array::<B>::zeros(array.0.shape(), &query).0;
        return [zeros(query.clone()), zeros(keys), zeros(values), zeros(score)];
    }
    let past = Past::new(lengths, source_time, &query);
    let weights = packed.slice(1, size..size + source_time);
    let dcontext = gradient.slice(1, 0..size);
    let dweights = gradient.slice(1, size..size + source_time);
    let (keys, values) = (past.cleared(keys), past.cleared(values));
    let back = attend_backward(&query, &keys, &values, &score, &weights, &dcontext, Some(dweights), &past);
    [back.query.0, back.keys.0, back.values.0, back.score.0]
}
