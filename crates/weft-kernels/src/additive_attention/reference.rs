//! The equations, one sentence after the other, in any precision.

use crate::recurrent::Cell;
use crate::recurrent::reference::{Real, step};

/// One query over one sentence: `keys` `[length, attention]`, `values` `[length, enc]`; context and weights.
pub(super) fn attend<R: Real>(query: &[R], keys: &[R], values: &[R], score: &[R], size: usize) -> (Vec<R>, Vec<R>) {
    let energies: Vec<R> = keys
        .chunks(query.len())
        .map(|key| {
            let terms = query.iter().zip(key).zip(score).map(|((&q, &k), &s)| s * (q + k).tanh());
            terms.fold(R::from(0.0), |sum, term| sum + term)
        })
        .collect();
    let largest = energies.iter().copied().reduce(|a, b| if b > a { b } else { a });
    let exponentials: Vec<R> = energies.iter().map(|&e| (e - largest.unwrap_or(e)).exp()).collect();
    let sum = exponentials.iter().fold(R::from(0.0), |sum, &e| sum + e);
    let weights: Vec<R> = exponentials.iter().map(|&e| e / sum).collect();
    let mut context = vec![R::from(0.0); size];
    for (&weight, value) in weights.iter().zip(values.chunks(size)) {
        context.iter_mut().zip(value).for_each(|(sum, &v)| *sum += weight * v);
    }
    (context, weights)
}

/// The inputs of a batch, row-major, in the operation's order.
#[derive(Clone)]
pub(super) struct Inputs<R> {
    pub(super) gates_x: Vec<R>,
    pub(super) query_weight: Vec<R>,
    pub(super) keys: Vec<R>,
    pub(super) values: Vec<R>,
    pub(super) score: Vec<R>,
    pub(super) context_weight: Vec<R>,
    pub(super) weight_hh: Vec<R>,
    pub(super) bias_hh: Vec<R>,
    pub(super) initial: Vec<R>,
}

/// `row * matrix`, where the matrix has `columns` columns.
fn product<R: Real>(row: &[R], matrix: &[R], columns: usize) -> Vec<R> {
    let mut result = vec![R::from(0.0); columns];
    for (&value, weights) in row.iter().zip(matrix.chunks(columns)) {
        result.iter_mut().zip(weights).for_each(|(sum, &w)| *sum += value * w);
    }
    result
}

/// The packed result (states, last states, contexts) and the weights `[batch, time, source_time]`.
pub(super) fn recurrence<R: Real>(
    cell: Cell,
    inputs: &Inputs<R>,
    source_lengths: &[usize],
    target_lengths: &[usize],
    [time, hidden, source_time, query_size, size]: [usize; 5],
) -> (Vec<R>, Vec<R>) {
    let (batch, columns) = (target_lengths.len(), cell.gates() * hidden);
    let mut states = vec![R::from(0.0); batch * time * hidden];
    let mut last = inputs.initial.clone();
    let mut contexts = vec![R::from(0.0); batch * time * size];
    let mut weights = vec![R::from(0.0); batch * time * source_time];
    for sentence in 0..batch {
        let first = |state: usize| (state * batch + sentence) * hidden..(state * batch + sentence + 1) * hidden;
        let mut h = inputs.initial[first(0)].to_vec();
        let mut c = if cell == Cell::Lstm { inputs.initial[first(1)].to_vec() } else { Vec::new() };
        let (start, length) = (sentence * source_time, source_lengths[sentence]);
        let keys = &inputs.keys[start * query_size..(start + length) * query_size];
        let values = &inputs.values[start * size..(start + length) * size];
        for position in sentence * time..sentence * time + target_lengths[sentence] {
            let query = product(&h, &inputs.query_weight, query_size);
            let (context, alphas) = attend(&query, keys, values, &inputs.score, size);
            let through = product(&context, &inputs.context_weight, columns);
            let x = &inputs.gates_x[position * columns..(position + 1) * columns];
            let x: Vec<R> = x.iter().zip(through).map(|(&x, c)| x + c).collect();
            step(cell, &x, &inputs.weight_hh, &inputs.bias_hh, &mut h, &mut c);
            states[position * hidden..(position + 1) * hidden].copy_from_slice(&h);
            contexts[position * size..(position + 1) * size].copy_from_slice(&context);
            weights[position * source_time..position * source_time + length].copy_from_slice(&alphas);
        }
        last[first(0)].copy_from_slice(&h);
        if cell == Cell::Lstm {
            last[first(1)].copy_from_slice(&c);
        }
    }
    states.extend(last);
    states.extend(contexts);
    (states, weights)
}
