//! The same in Burn's own operations: what every device can run.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use super::Operands;
use crate::recurrent::portable::Array;

/// What both directions need; all are `[positions, heads, size]`, sums over heads and parameters with axes of length 1.
struct Parts<B: Backend> {
    inputs: [Array<B>; 5],
    rho: Array<B>,
    gain: Array<B>,
    normal: Array<B>,
    deviation: Array<B>,
    bonus: Array<B>,
    /// Before the gate.
    sum: Array<B>,
}

fn mean<B: Backend>(x: Array<B>) -> Array<B> {
    Array(B::float_mean_dim(x.0, 2))
}

fn parts<B: Backend>(operands: Operands<B>, epsilon: f64) -> Parts<B> {
    let [o, r, k, v, gate, rho, gain, bias] = operands.map(Array::<B>);
    let [heads, size] = rho.shape();
    let positions = o.count() / (heads * size);
    let inputs = [o, r, k, v, gate].map(|input| input.reshape([positions, heads, size]));
    let [rho, gain, bias] = [rho, gain, bias].map(|parameter| parameter.reshape([1, heads, size]));
    let [o, r, k, v, _] = inputs.clone();
    let centred = o.clone() - mean(o);
    let variance = mean(centred.clone() * centred.clone());
    let deviation = Array::<B>(B::float_sqrt(B::float_add_scalar(variance.0, epsilon.into())));
    let normal = Array::<B>(B::float_div(centred.0, deviation.0.clone()));
    let bonus = (r * k * rho.clone()).sum(2);
    let sum = normal.clone() * gain.clone() + bias + bonus.clone() * v;
    Parts { inputs, rho, gain, normal, deviation, bonus, sum }
}

pub(super) fn forward<B: Backend>(operands: Operands<B>, epsilon: f64) -> FloatTensor<B> {
    let shape = operands[0].shape();
    if shape.num_elements() == 0 {
        let [o, ..] = operands;
        return o;
    }
    let Parts { inputs: [.., gate], sum, .. } = parts::<B>(operands, epsilon);
    (sum * gate).reshape(shape).0
}

pub(super) fn backward<B: Backend>(operands: Operands<B>, dy: FloatTensor<B>, epsilon: f64) -> Operands<B> {
    let shapes = operands.each_ref().map(TensorMetadata::shape);
    if shapes[0].num_elements() == 0 {
        return operands.map(|operand| Array::zeros(operand.shape(), &Array::<B>(operand)).0);
    }
    let Parts { inputs: [o, r, k, v, gate], rho, gain, normal, deviation, bonus, sum } = parts::<B>(operands, epsilon);
    let dy = Array::<B>(dy).reshape(o.shape::<3>());
    let dsum = dy.clone() * gate;
    let dnormal = dsum.clone() * gain;
    let along = mean(dnormal.clone() * normal.clone());
    let centred = dnormal.clone() - mean(dnormal) - normal.clone() * along;
    let dbonus = (dsum.clone() * v).sum(2);
    let gradients = [
        Array::<B>(B::float_div(centred.0, deviation.0)),
        dbonus.clone() * k.clone() * rho.clone(),
        dbonus.clone() * r.clone() * rho,
        dsum.clone() * bonus,
        dy * sum,
        (dbonus * r * k).sum(0),
        (dsum.clone() * normal).sum(0),
        dsum.sum(0),
    ];
    let mut shapes = shapes.into_iter();
    gradients.map(|gradient| gradient.reshape(shapes.next().expect("one for each operand")).0)
}
