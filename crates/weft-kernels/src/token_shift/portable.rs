//! The shift in Burn's own operations: what every device can run.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use crate::recurrent::portable::{Array, mask};

/// `[batch, time, hidden]` with zeros past each length, whatever stands there.
fn within<B: Backend>(values: Array<B>, lengths: &[usize]) -> Array<B> {
    let [batch, time, hidden] = values.shape();
    let flat = [batch, time * hidden];
    let past = lengths.iter().flat_map(|&length| (0..time * hidden).map(move |i| i / hidden >= length)).collect();
    let past = mask(past, flat, flat, &values);
    let zeros = Array::zeros(flat, &values);
    values.reshape(flat).replaced(past, zeros).reshape([batch, time, hidden])
}

/// Inputs, those before them, mix and the rest to 1, the last two `[1, 1, hidden]`.
fn terms<B: Backend>(operands: [Array<B>; 3], lengths: &[usize]) -> [Array<B>; 4] {
    let [x, mix, earlier] = operands;
    let [batch, time, hidden] = x.shape();
    let x = within(x, lengths);
    let before = joined(earlier.reshape([batch, 1, hidden]), x.slice(1, 0..time - 1));
    let mix = mix.reshape([1, 1, hidden]);
    [x, before, mix.clone(), mix.one_minus()]
}

/// One after the other in time; one of them may be empty.
fn joined<B: Backend>(first: Array<B>, second: Array<B>) -> Array<B> {
    Array::cat([first, second].into_iter().filter(|part| part.count() > 0).collect(), 1)
}

pub(super) fn forward<B: Backend>(operands: [FloatTensor<B>; 3], lengths: &[usize]) -> FloatTensor<B> {
    let operands = operands.map(Array::<B>);
    if operands[0].count() == 0 {
        let [x, ..] = operands;
        return x.0;
    }
    let [x, before, mix, rest] = terms(operands, lengths);
    within(x * mix + before * rest, lengths).0
}

pub(super) fn backward<B: Backend>(
    operands: [FloatTensor<B>; 3],
    gradient: FloatTensor<B>,
    lengths: &[usize],
) -> [FloatTensor<B>; 3] {
    let operands = operands.map(Array::<B>);
    if operands[0].count() == 0 {
        return operands.map(|operand| Array::zeros(operand.0.shape(), &operand).0);
    }
    let [batch, time, hidden] = operands[0].shape();
    let [x, before, mix, rest] = terms(operands, lengths);
    let dy = within(Array(gradient), lengths);
    let dmix = (dy.clone() * (x - before)).reshape([batch * time, hidden]).sum(0).reshape([hidden]);
    let passed = dy.clone() * rest;
    let next = joined(passed.slice(1, 1..time), Array::zeros([batch, 1, hidden], &dy));
    [(dy * mix + next).0, dmix.0, passed.at(0).0]
}
