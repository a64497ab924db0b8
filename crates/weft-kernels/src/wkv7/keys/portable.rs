//! The same in Burn's own operations: what every device can run.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, DeviceOps, TensorMetadata};

use super::SHORTEST;
use crate::recurrent::portable::Array;

/// `k`, `xi` and their product, `[positions, heads, size]` and `[1, heads, size]`; the product's lengths as they are, and
/// not below [`SHORTEST`], `[positions, heads, 1]`.
fn scaled<B: Backend>(operands: [FloatTensor<B>; 2], size: usize) -> ([Array<B>; 3], [Array<B>; 2]) {
    let [k, xi] = operands.map(Array::<B>);
    let heads = xi.count() / size;
    let (positions, xi) = (k.count() / (heads * size), xi.reshape([1, heads, size]));
    let k = k.reshape([positions, heads, size]);
    let product = k.clone() * xi.clone();
    let length = Array::<B>(B::float_sqrt((product.clone() * product.clone()).sum(2).0));
    let divisor = Array(B::float_clamp_min(length.0.clone(), SHORTEST.into()));
    ([k, xi, product], [length, divisor])
}

pub(super) fn removal<B: Backend>(operands: [FloatTensor<B>; 2], size: usize) -> FloatTensor<B> {
    let shape = operands[0].shape();
    if shape.num_elements() == 0 {
        let [k, _] = operands;
        return k;
    }
    let ([.., product], [_, divisor]) = scaled::<B>(operands, size);
    Array::<B>(B::float_neg(B::float_div(product.0, divisor.0))).reshape(shape).0
}

pub(super) fn removal_backward<B: Backend>(
    operands: [FloatTensor<B>; 2],
    da: FloatTensor<B>,
    size: usize,
) -> [FloatTensor<B>; 2] {
    let [k_shape, xi_shape] = operands.each_ref().map(TensorMetadata::shape);
    if k_shape.num_elements() == 0 {
        return operands.map(|operand| Array::zeros(operand.shape(), &Array::<B>(operand)).0);
    }
    let ([k, xi, product], [length, divisor]) = scaled::<B>(operands, size);
    let dnormal = Array::<B>(B::float_neg(da)).reshape(k.shape::<3>());
    // What is too short is divided by a constant.
    let normal = Array::<B>(B::float_div(product.0, divisor.0.clone()));
    let bool_dtype = length.0.device().defaults().bool_dtype;
    let along = (dnormal.clone() * normal.clone()).sum(2);
    let short = B::float_lower_equal_elem(length.0, SHORTEST.into(), bool_dtype);
    let along = Array::<B>(B::float_mask_fill(along.0, short, 0.0.into()));
    let dproduct = Array::<B>(B::float_div((dnormal - normal * along).0, divisor.0));
    [(dproduct.clone() * xi).reshape(k_shape).0, (dproduct * k).sum(0).reshape(xi_shape).0]
}

/// `1 + (rate - 1) alpha`, with `rate - 1`; all `[positions, hidden]`.
fn share<B: Backend>(operands: [FloatTensor<B>; 3]) -> [Array<B>; 4] {
    let [k, rate, alpha] = operands.map(Array::<B>);
    let hidden = alpha.count();
    let positions = k.count() / hidden;
    let [k, rate] = [k, rate].map(|input| input.reshape([positions, hidden]));
    let (alpha, less) = (alpha.reshape([1, hidden]), Array::<B>(B::float_sub_scalar(rate.0, 1.0.into())));
    let share = Array::<B>(B::float_add_scalar((less.clone() * alpha.clone()).0, 1.0.into()));
    [k, alpha, less, share]
}

pub(super) fn replacement<B: Backend>(operands: [FloatTensor<B>; 3]) -> FloatTensor<B> {
    let shape = operands[0].shape();
    if shape.num_elements() == 0 {
        let [k, ..] = operands;
        return k;
    }
    let [k, .., share] = share::<B>(operands);
    (k * share).reshape(shape).0
}

pub(super) fn replacement_backward<B: Backend>(
    operands: [FloatTensor<B>; 3],
    dkey: FloatTensor<B>,
) -> [FloatTensor<B>; 3] {
    let shapes = operands.each_ref().map(TensorMetadata::shape);
    if shapes[0].num_elements() == 0 {
        return operands.map(|operand| Array::zeros(operand.shape(), &Array::<B>(operand)).0);
    }
    let [k, alpha, less, share] = share::<B>(operands);
    let dkey = Array::<B>(dkey).reshape(k.shape::<2>());
    let dshare = dkey.clone() * k;
    let gradients = [dkey * share, dshare.clone() * alpha, (dshare * less).sum(0)];
    let mut shapes = shapes.into_iter();
    gradients.map(|gradient| gradient.reshape(shapes.next().expect("one for each operand")).0)
}
