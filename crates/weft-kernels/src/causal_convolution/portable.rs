//! The convolution in Burn's own operations: what every device can run. The whole sequence is shifted once for each
//! value of the filters.

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, TensorMetadata};

use crate::recurrent::portable::{Array, mask};

/// What both directions need.
struct Sums<B: Backend> {
    /// The inputs with those before them, zeros past a sentence's length, `[batch, width - 1 + time, channels]`.
    inputs: Array<B>,
    /// Before SiLU, `[batch, time, channels]`.
    sums: Array<B>,
    /// Where sentences have ended, `[batch, time * channels]`.
    past: BoolTensor<B>,
}

/// Column `k` of the filters, `[1, 1, channels]`.
fn column<B: Backend>(weight: &Array<B>, k: usize) -> Array<B> {
    let [channels, _] = weight.shape();
    weight.slice(1, k..k + 1).reshape([1, 1, channels])
}

/// `[batch, time, channels]` with zeros where sentences have ended, whatever stands there.
fn within<B: Backend>(values: Array<B>, past: BoolTensor<B>) -> Array<B> {
    let [batch, time, channels] = values.shape();
    let flat = [batch, time * channels];
    let zeros = Array::zeros(flat, &values);
    values.reshape(flat).replaced(past, zeros).reshape([batch, time, channels])
}

fn sums<B: Backend>(operands: &[Array<B>; 4], lengths: &[usize]) -> Sums<B> {
    let [x, weight, bias, initial] = operands;
    let ([batch, time, channels], [_, width]) = (x.shape(), weight.shape());
    let flat = [batch, time * channels];
    let ended = lengths.iter().flat_map(|&length| (0..time * channels).map(move |i| i / channels >= length));
    let past = mask(ended.collect(), flat, flat, x);
    let inputs = Array::cat(vec![initial.clone(), within(x.clone(), past.clone())], 1);
    let mut sums = Array::zeros([batch, time, channels], &inputs) + bias.clone().reshape([1, 1, channels]);
    for k in 0..width {
        sums = sums + inputs.slice(1, k..k + time) * column(weight, k);
    }
    Sums { inputs, sums, past }
}

pub(super) fn forward<B: Backend>(operands: [FloatTensor<B>; 4], lengths: &[usize]) -> FloatTensor<B> {
    let operands = operands.map(Array::<B>);
    if operands[0].count() == 0 {
        let [x, ..] = operands;
        return x.0;
    }
    let Sums { sums, past, .. } = sums(&operands, lengths);
    within(sums.clone() * sums.sigmoid(), past).0
}

pub(super) fn backward<B: Backend>(
    operands: [FloatTensor<B>; 4],
    gradient: FloatTensor<B>,
    lengths: &[usize],
) -> [FloatTensor<B>; 4] {
    let operands = operands.map(Array::<B>);
    let ([batch, time, channels], [_, width]) = (operands[0].shape(), operands[1].shape());
    if operands[0].count() == 0 {
        return operands.map(|operand| Array::zeros(operand.0.shape(), &operand).0);
    }
    let Sums { inputs, sums, past } = sums(&operands, lengths);
    let open = sums.clone().sigmoid();
    let slope = open.clone() + sums * open.clone() * open.one_minus();
    let dsums = within(Array(gradient), past) * slope;
    let mut dinputs = Array::zeros([batch, width - 1 + time, channels], &inputs);
    let mut dweight = Vec::with_capacity(width);
    for k in 0..width {
        let before = Array::zeros([batch, k, channels], &inputs);
        let after = Array::zeros([batch, width - 1 - k, channels], &inputs);
        let parts = vec![before, dsums.clone() * column(&operands[1], k), after];
        dinputs = dinputs + Array::cat(parts.into_iter().filter(|part| part.count() > 0).collect(), 1);
        let product = (dsums.clone() * inputs.slice(1, k..k + time)).reshape([batch * time, channels]);
        dweight.push(product.sum(0).reshape([channels, 1]));
    }
    let dbias = dsums.reshape([batch * time, channels]).sum(0).reshape([channels]);
    let (before, x) = (dinputs.slice(1, 0..width - 1), dinputs.slice(1, width - 1..width - 1 + time));
    [x.0, Array::cat(dweight, 1).0, dbias.0, before.0]
}
