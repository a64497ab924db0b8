//! The decoder in Burn's own operations.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::super::portable::{Past, attend, attend_backward};
use super::{AttentiveForward, AttentiveKept, AttentiveRecurrence, AttentiveTensors};
use crate::recurrent::portable::{Array, ended, kept_by_step, step, step_backward};

/// The activations kept are `[batch, target_time, (kept + states) * hidden]`, the queries are made again.
pub(super) fn forward<B: Backend>(
    tensors: AttentiveTensors<B>,
    recurrence: &AttentiveRecurrence,
) -> AttentiveForward<B> {
    let AttentiveRecurrence { cell, source_lengths, target_lengths } = recurrence;
    let gates_x = Array::<B>(tensors.gates_x);
    let (query_weight, context_weight) = (Array::<B>(tensors.query_weight), Array::<B>(tensors.context_weight));
    let (keys, values, score) = (Array::<B>(tensors.keys), Array::<B>(tensors.values), Array::<B>(tensors.score));
    let (weight, initial) = (Array::<B>(tensors.weight_hh), Array::<B>(tensors.initial));
    let ([batch, time, columns], [hidden, _]) = (gates_x.shape(), weight.shape());
    let [_, source_time, size] = values.shape();
    let bias = Array::<B>(tensors.bias_hh).reshape([1, columns]);
    let none = Array::<B>::zeros([0], &weight);
    if batch * time == 0 {
        let length = initial.count();
        return AttentiveForward {
            packed: initial.reshape([length]).0,
            weights: Array::zeros([batch, time, source_time], &weight).0,
            activations: none.clone().0,
            queries: none.0,
        };
    }
    let source = (source_time > 0).then(|| {
        let past = Past::new(source_lengths, source_time, &gates_x);
        (past.cleared(keys), past.cleared(values), past)
    });
    let mut states: Vec<_> = (0..cell.states()).map(|s| initial.slice(0, s * batch..(s + 1) * batch)).collect();
    let zeros = |width: usize| Array::<B>::zeros([batch, width], &gates_x);
    let (mut outputs, mut contexts, mut weights, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for position in 0..time {
        let clear = |rows: Array<B>| {
            let [_, width] = rows.shape();
            if width == 0 {
                rows
            } else {
                rows.replaced(ended(target_lengths, position, width, &gates_x), zeros(width))
            }
        };
        let (context, alphas) = match &source {
            Some((keys, values, past)) => {
                attend(&states[0].clone().matmul(query_weight.clone()), keys, values, &score, past)
            }
            None => (zeros(size), zeros(0)),
        };
        let x = clear(gates_x.at(position)) + context.clone().matmul(context_weight.clone());
        let (new, mut keep) = step(*cell, x, &states, &weight, &bias);
        keep.extend(states.iter().cloned());
        kept.push(Array::cat(keep, 1));
        outputs.push(clear(new[0].clone()));
        contexts.push(clear(context));
        weights.push(clear(alphas));
        let gone = || ended(target_lengths, position, hidden, &gates_x);
        states = new.into_iter().zip(states).map(|(new, old)| new.replaced(gone(), old)).collect();
    }
    let flat = |array: Array<B>| {
        let length = array.count();
        array.reshape([length])
    };
    let mut parts = vec![flat(Array::stack(outputs))];
    parts.extend(states.into_iter().map(flat));
    parts.push(flat(Array::stack(contexts)));
    let weights = if source_time == 0 { Array::zeros([batch, time, 0], &weight) } else { Array::stack(weights) };
    AttentiveForward {
        packed: Array::cat(parts, 0).0,
        weights: weights.0,
        activations: Array::stack(kept).0,
        queries: none.0,
    }
}

/// The gradients of all inputs in their order.
pub(super) fn backward<B: Backend>(
    kept: AttentiveKept<B>,
    gradient: FloatTensor<B>,
    recurrence: &AttentiveRecurrence,
) -> [FloatTensor<B>; 9] {
    let AttentiveRecurrence { cell, source_lengths, target_lengths } = recurrence;
    let (query_weight, context_weight) = (Array::<B>(kept.query_weight), Array::<B>(kept.context_weight));
    let (keys, values, score) = (Array::<B>(kept.keys), Array::<B>(kept.values), Array::<B>(kept.score));
    let (weight, initial, gradient) = (Array::<B>(kept.weight_hh), Array::<B>(kept.initial), Array::<B>(gradient));
    let (packed, alphas) = (Array::<B>(kept.forward.packed), Array::<B>(kept.forward.weights));
    let activations = Array::<B>(kept.forward.activations);
    let [hidden, columns] = weight.shape();
    let ([_, source_time, size], [batch, time, _]) = (values.shape(), alphas.shape());
    let [_, _, query_size] = keys.shape();
    let mut dquery_weight = Array::<B>::zeros([hidden, query_size], &weight);
    let mut dkeys = Array::<B>::zeros([batch, source_time, query_size], &weight);
    let mut dvalues = Array::<B>::zeros([batch, source_time, size], &weight);
    let mut dscore = Array::<B>::zeros([query_size], &weight);
    let mut dcontext_weight = Array::<B>::zeros([size, columns], &weight);
    let mut dweight = Array::<B>::zeros([hidden, columns], &weight);
    let mut dbias = Array::<B>::zeros([1, columns], &weight);
    if batch * time == 0 {
        let dgates_x = Array::<B>::zeros([batch, time, columns], &weight);
        let dinitial = gradient.reshape(initial.shape::<2>());
        return [
            dgates_x.0,
            dquery_weight.0,
            dkeys.0,
            dvalues.0,
            dscore.0,
            dcontext_weight.0,
            dweight.0,
            dbias.reshape([columns]).0,
            dinitial.0,
        ];
    }
    let (outputs, last) = (batch * time * hidden, batch * hidden);
    let after_states = outputs + cell.states() * last;
    let sequence = |array: &Array<B>, from: usize, width: usize| {
        array.slice(0, from..from + batch * time * width).reshape([batch, time, width])
    };
    let doutputs = sequence(&gradient, 0, hidden);
    let source = (source_time > 0).then(|| {
        let past = Past::new(source_lengths, source_time, &weight);
        let contexts = (sequence(&packed, after_states, size), sequence(&gradient, after_states, size));
        (past.cleared(keys), past.cleared(values), past, contexts)
    });
    let mut states: Vec<_> = (0..cell.states())
        .map(|s| gradient.slice(0, outputs + s * last..outputs + (s + 1) * last).reshape([batch, hidden]))
        .collect();
    let zeros = |width: usize| Array::<B>::zeros([batch, width], &weight);
    let mut dgates_x = vec![zeros(columns); time];
    for position in (0..time).rev() {
        let clear = |rows: Array<B>| {
            let [_, width] = rows.shape();
            rows.replaced(ended(target_lengths, position, width, &weight), zeros(width))
        };
        let mut after: Vec<_> = states.iter().map(|state| clear(state.clone())).collect();
        after[0] = after[0].clone() + clear(doutputs.at(position));
        let activations = activations.at(position);
        let part = |index: usize| activations.slice(1, index * hidden..(index + 1) * hidden);
        let kept: Vec<_> = (0..kept_by_step(*cell)).map(part).collect();
        let before = part(kept_by_step(*cell));
        let mut back = step_backward(*cell, &kept, before.clone(), &after, &weight);
        dgates_x[position] = clear(back.x.clone());
        dweight = dweight + back.weight;
        dbias = dbias + back.u.sum(0);
        if let Some((keys, values, past, (contexts, dcontexts))) = &source {
            let context = clear(contexts.at(position));
            let dcontext = back.x.clone().matmul(context_weight.clone().transpose()) + clear(dcontexts.at(position));
            dcontext_weight = dcontext_weight + context.transpose().matmul(back.x);
            let query = before.clone().matmul(query_weight.clone());
            let alphas = clear(alphas.at(position));
            let attend = attend_backward(&query, keys, values, &score, &alphas, &dcontext, None, past);
            back.states[0] = back.states[0].clone() + attend.query.clone().matmul(query_weight.clone().transpose());
            dquery_weight = dquery_weight + before.transpose().matmul(attend.query);
            dkeys = dkeys + attend.keys;
            dvalues = dvalues + attend.values;
            dscore = dscore + attend.score;
        }
        let gone = || ended(target_lengths, position, hidden, &weight);
        states = back.states.into_iter().zip(states).map(|(new, old)| new.replaced(gone(), old)).collect();
    }
    [
        Array::stack(dgates_x).0,
        dquery_weight.0,
        dkeys.0,
        dvalues.0,
        dscore.0,
        dcontext_weight.0,
        dweight.0,
        dbias.reshape([columns]).0,
        Array::cat(states, 0).0,
    ]
}
