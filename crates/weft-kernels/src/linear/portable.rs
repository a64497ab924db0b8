//! The same by Burn's own operations, for every device.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, DeviceOps, TensorMetadata};
use burn::tensor::Shape;

use super::{Activation, Gradients, How, Saved, Saving, Wanted, WeightLayout, result_shape};
use crate::dropout;

/// The result and what is to be saved of it.
pub(super) fn forward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    residual: Option<FloatTensor<B>>,
    how: How,
    saving: Saving,
) -> (FloatTensor<B>, Saved<B>) {
    let [_, output] = how.layout.sizes(weight.shape().dims());
    let shape = result_shape(x.shape(), output);
    let mut y = matmul::<B>(rows::<B>(x), in_out::<B>(weight, how.layout));
    if let Some(bias) = bias {
        y = B::float_add(y, B::float_reshape(bias, Shape::from([1, output])));
    }
    let (y, slope) = activate::<B>(y, how.activation, saving == Saving::Slope);
    // Dropout counts row-major, so that two axes or more make no difference.
    let mut y = B::float_reshape(dropout::portable::<B>(y, how.dropout), shape.clone());
    if let Some(residual) = residual {
        y = B::float_add(y, residual);
    }
    let saved = match (saving, slope) {
        (Saving::Output, _) => Saved::Output(y.clone()),
        (_, Some(slope)) => Saved::Slope(B::float_reshape(dropout::portable::<B>(slope, how.dropout), shape)),
        (_, None) => Saved::Nothing,
    };
    (y, saved)
}

/// The gradients, given that of the result.
pub(super) fn backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    saved: Saved<B>,
    dy: FloatTensor<B>,
    how: How,
    wanted: Wanted,
) -> Gradients<FloatTensor<B>> {
    let (x_shape, output) = (x.shape(), dy.shape()[dy.shape().num_dims() - 1]);
    let bool_dtype = dy.device().defaults().bool_dtype;
    let gradient = match saved {
        Saved::Nothing => dropout::portable::<B>(dy, how.dropout),
        Saved::Output(y) if how.activation == Activation::Relu => {
            let scaled = B::float_mul_scalar(dy, how.dropout.scale().into());
            B::float_mask_fill(scaled, B::float_lower_equal_elem(y, 0.0.into(), bool_dtype), 0.0.into())
        }
        Saved::Output(y) if how.activation == Activation::SquaredRelu => {
            // y = s x² has the slope 2 s x, which is twice the root of s y.
            let root = B::float_sqrt(B::float_mul_scalar(y, (4.0 * how.dropout.scale()).into()));
            B::float_mul(dy, root)
        }
        Saved::Output(y) if how.activation == Activation::Sigmoid => B::float_mul(dy, less_square::<B>(y)),
        Saved::Output(y) => B::float_mul(dy, one_minus_square::<B>(y)),
        Saved::Slope(slope) => B::float_mul(dy, slope),
    };
    let (x, gradient) = (rows::<B>(x), rows::<B>(gradient));
    Gradients {
        x: wanted.x.then(|| {
            let back = B::float_transpose(in_out::<B>(weight, how.layout));
            B::float_reshape(matmul::<B>(gradient.clone(), back), x_shape)
        }),
        weight: wanted.weight.then(|| match how.layout {
            WeightLayout::InOut => matmul::<B>(B::float_transpose(x), gradient.clone()),
            WeightLayout::OutIn => matmul::<B>(B::float_transpose(gradient.clone()), x),
        }),
        bias: wanted.bias.then(|| B::float_reshape(B::float_sum_dim(gradient, 0), Shape::from([output]))),
    }
}

/// The activation of `x`, and its derivative if `slope` is set.
fn activate<B: Backend>(
    x: FloatTensor<B>,
    activation: Activation,
    slope: bool,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    let bool_dtype = x.device().defaults().bool_dtype;
    match activation {
        Activation::None => (x, None),
        Activation::Relu => {
            let derivative = slope.then(|| {
                let one = B::float_add_scalar(B::float_mul_scalar(x.clone(), 0.0.into()), 1.0.into());
                B::float_mask_fill(one, B::float_lower_equal_elem(x.clone(), 0.0.into(), bool_dtype), 0.0.into())
            });
            let negative = B::float_lower_elem(x.clone(), 0.0.into(), bool_dtype);
            (B::float_mask_fill(x, negative, 0.0.into()), derivative)
        }
        Activation::SquaredRelu => {
            let negative = B::float_lower_elem(x.clone(), 0.0.into(), bool_dtype);
            let positive = B::float_mask_fill(x, negative, 0.0.into());
            let derivative = slope.then(|| B::float_mul_scalar(positive.clone(), 2.0.into()));
            (B::float_mul(positive.clone(), positive), derivative)
        }
        Activation::Gelu => {
            let (inner, cubic) = (0.797_884_560_802_865_4, 0.044_715);
            let square = B::float_mul(x.clone(), x.clone());
            let along = B::float_add_scalar(B::float_mul_scalar(square.clone(), (inner * cubic).into()), inner.into());
            let t = B::float_tanh(B::float_mul(x.clone(), along));
            let share = B::float_mul_scalar(B::float_add_scalar(t.clone(), 1.0.into()), 0.5.into());
            let derivative = slope.then(|| {
                let steep = B::float_mul_scalar(square, (3.0 * inner * cubic).into());
                let steep = B::float_mul_scalar(B::float_add_scalar(steep, inner.into()), 0.5.into());
                let change = B::float_mul(B::float_mul(x.clone(), one_minus_square::<B>(t)), steep);
                B::float_add(share.clone(), change)
            });
            (B::float_mul(x, share), derivative)
        }
        Activation::Tanh => {
            let y = B::float_tanh(x);
            let derivative = slope.then(|| one_minus_square::<B>(y.clone()));
            (y, derivative)
        }
        Activation::Sigmoid => {
            let y = B::sigmoid(x);
            let derivative = slope.then(|| less_square::<B>(y.clone()));
            (y, derivative)
        }
    }
}

/// `y - y²`
fn less_square<B: Backend>(y: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sub(y.clone(), B::float_mul(y.clone(), y))
}

/// `1 - y²`
fn one_minus_square<B: Backend>(y: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add_scalar(B::float_neg(B::float_mul(y.clone(), y)), 1.0.into())
}

/// A product that may be empty or have nothing to sum, which not every device can do.
fn matmul<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    let (rows, inner, columns) = (a.shape()[0], a.shape()[1], b.shape()[1]);
    if rows * inner * columns == 0 {
        let dtype = a.dtype().into();
        return B::float_zeros(Shape::from([rows, columns]), &a.device(), dtype);
    }
    B::float_matmul(a, b)
}

/// `[.., columns]` as `[rows, columns]`.
fn rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let last = shape.num_dims() - 1;
    let rows = shape.iter().take(last).product();
    B::float_reshape(x, Shape::from([rows, shape[last]]))
}

/// A weight as `[in, out]`.
fn in_out<B: Backend>(weight: FloatTensor<B>, layout: WeightLayout) -> FloatTensor<B> {
    match layout {
        WeightLayout::InOut => weight,
        WeightLayout::OutIn => B::float_transpose(weight),
    }
}
