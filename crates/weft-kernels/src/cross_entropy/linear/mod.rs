//! The last layer of a language model and its loss in one: the logits of some rows at a time are made, turned
//! into losses and gradients, and forgotten. What is kept is as large as the weight, not rows times vocabulary.
//!
//! The gradients do not wait for the backward pass, which has only the gradient of the sum to multiply them by.

mod backward;
mod cpu;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, DeviceOps, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Int, Shape};

use super::{CrossEntropyGrad, CrossEntropyOps, Options};
use crate::Dropout;
use crate::flex::{Values, tensor};
use crate::in_place::unshared;
use crate::linear::{Activation, Gradients, How, LinearGrad, LinearOps, Operand, Saved, Wanted, WeightLayout};
use crate::simd::Level;

/// [`cross_entropy`](super::cross_entropy) of the logits `x W + bias`, which are never there all at once: `[1]`.
///
/// `x` is `[rows, hidden]`, `weight` is `[hidden, vocabulary]` or `[vocabulary, hidden]`, as `layout` says,
/// `bias` is `[vocabulary]` and `targets` is `[rows]`; the first three have gradients. Rows whose target is
/// `ignore` are left out, whatever `x` is there: they cost nothing, and have gradient 0.
/// Panics if the shapes do not fit or if another target is outside of the vocabulary.
pub fn linear_cross_entropy(
    x: Tensor<2>,
    weight: Tensor<2>,
    layout: WeightLayout,
    bias: Option<Tensor<1>>,
    targets: Tensor<1, Int>,
    label_smoothing: f32,
    ignore: Option<i32>,
) -> Tensor<1> {
    let ([rows, hidden], [input, vocab]) = (x.dims(), sizes(layout, weight.dims()));
    assert_eq!(hidden, input, "linear_cross_entropy: x does not fit the weight {:?}, {layout:?}", weight.dims());
    assert_eq!([rows], targets.dims(), "linear_cross_entropy: x needs one target a row");
    if let Some(bias) = &bias {
        assert_eq!([vocab], bias.dims(), "linear_cross_entropy: the bias needs one value for each token");
    }
    assert!(
        (0.0..=1.0).contains(&label_smoothing),
        "linear_cross_entropy: label smoothing {label_smoothing} is not in 0 to 1"
    );
    let bias = bias.map_or(Operand::Absent, |bias| Operand::Present(bias.into_dispatch()));
    Tensor::from_dispatch(Dispatch::linear_cross_entropy_forward(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias,
        targets.into_dispatch(),
        layout,
        Options { label_smoothing, ignore },
    ))
}

/// `[hidden, vocabulary]` of a weight of shape `dims`.
fn sizes(layout: WeightLayout, dims: [usize; 2]) -> [usize; 2] {
    match layout {
        WeightLayout::InOut => dims,
        WeightLayout::OutIn => [dims[1], dims[0]],
    }
}

/// A linear map without anything after it.
fn plain(layout: WeightLayout) -> How {
    How { layout, activation: Activation::None, dropout: Dropout::NONE }
}

/// Linear cross-entropy, as each device runs it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait LinearCrossEntropyOps: Backend + LinearOps + CrossEntropyOps {
    /// See [`linear_cross_entropy`].
    fn linear_cross_entropy_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: Operand<Self>,
        targets: IntTensor<Self>,
        layout: WeightLayout,
        options: Options,
    ) -> FloatTensor<Self> {
        let logits = Self::linear_forward(x, weight, bias, Operand::Absent, plain(layout));
        Self::cross_entropy_forward(logits, targets, options)
    }
}

/// The gradients of [`LinearCrossEntropyOps`]; real devices only.
pub trait LinearCrossEntropyGrad: Backend + LinearGrad + CrossEntropyGrad {
    /// The loss `[1]`, and its gradients as far as they are wanted.
    fn linear_cross_entropy_tracked(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Operand<Self>,
        targets: IntTensor<Self>,
        layout: WeightLayout,
        options: Options,
        wanted: Wanted,
    ) -> (FloatTensor<Self>, Gradients<FloatTensor<Self>>) {
        portable::<Self>(x, weight, bias, targets, layout, options, wanted)
    }

    /// `gradient` times the number `upstream`, `[1]`.
    fn linear_cross_entropy_scaled(gradient: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        let ones = vec![1; gradient.shape().num_dims()];
        Self::float_mul(gradient, Self::float_reshape(upstream, Shape::from(ones)))
    }
}

/// All logits at once, by operations that every device has.
fn portable<B: LinearGrad + CrossEntropyGrad>(
    mut x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Operand<B>,
    targets: IntTensor<B>,
    layout: WeightLayout,
    options: Options,
    wanted: Wanted,
) -> (FloatTensor<B>, Gradients<FloatTensor<B>>) {
    let ([rows, hidden], device) = (x.shape().dims(), x.device());
    if let Some(ignore) = options.ignore {
        // A NaN in a row that does not count would reach the weight's gradient: 0 times NaN.
        let ignored = B::int_equal_elem(targets.clone(), ignore.into(), device.defaults().bool_dtype);
        let ignored = B::bool_reshape(ignored, Shape::from([rows, 1]));
        x = B::float_mask_fill(x, B::bool_expand(ignored, Shape::from([rows, hidden])), 0.0.into());
    }
    let how = plain(layout);
    let (logits, _) = B::linear_forward_saving(x.clone(), weight.clone(), bias, Operand::Absent, how);
    let (loss, statistics) = B::cross_entropy_tracked(logits.clone(), targets.clone(), options);
    let one = B::float_ones(Shape::from([1]), &device, device.defaults().float_dtype);
    let gradient = B::cross_entropy_grad(logits, targets, statistics, one, options);
    (loss, B::linear_grad(x, weight, Saved::Nothing, gradient, how, wanted))
}

#[cfg(feature = "gpu")]
impl LinearCrossEntropyOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl LinearCrossEntropyGrad for burn::backend::Cube {}

/// The kernel on Flex tensors.
fn on_cpu(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    bias: Operand<Flex>,
    targets: IntTensor<Flex>,
    layout: WeightLayout,
    options: Options,
    wanted: Wanted,
) -> (FloatTensor<Flex>, Gradients<FloatTensor<Flex>>) {
    let (x, weight, targets) = (Values::new(x), Values::new(weight), Values::new(targets));
    let bias = match bias {
        Operand::Absent => None,
        Operand::Present(bias) => Some(Values::new(bias)),
    };
    let [hidden, vocab] = sizes(layout, weight.shape().dims());
    let operands = cpu::Operands {
        x: x.f32(),
        weight: weight.f32(),
        bias: bias.as_ref().map(Values::f32),
        targets: targets.i32(),
        hidden,
        vocab,
        layout,
        options,
    };
    let (loss, gradients) = cpu::loss(Level::best(), operands, wanted);
    let gradients = Gradients {
        x: gradients.x.map(|gradient| tensor(gradient, x.shape())),
        weight: gradients.weight.map(|gradient| tensor(gradient, weight.shape())),
        bias: gradients.bias.map(|gradient| tensor(gradient, [vocab])),
    };
    (tensor(vec![loss], [1]), gradients)
}

impl LinearCrossEntropyOps for Flex {
    fn linear_cross_entropy_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Operand<Self>,
        targets: IntTensor<Self>,
        layout: WeightLayout,
        options: Options,
    ) -> FloatTensor<Self> {
        let nothing = Wanted { x: false, weight: false, bias: false };
        on_cpu(x, weight, bias, targets, layout, options, nothing).0
    }
}

impl LinearCrossEntropyGrad for Flex {
    fn linear_cross_entropy_tracked(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Operand<Self>,
        targets: IntTensor<Self>,
        layout: WeightLayout,
        options: Options,
        wanted: Wanted,
    ) -> (FloatTensor<Self>, Gradients<FloatTensor<Self>>) {
        on_cpu(x, weight, bias, targets, layout, options, wanted)
    }

    fn linear_cross_entropy_scaled(mut gradient: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        let factor = Values::new(upstream).f32()[0];
        if factor == 1.0 {
            return gradient;
        }
        if let Some(values) = unshared(&mut gradient) {
            cpu::scale(values, factor);
            return gradient;
        }
        let (shape, mut values) = (gradient.shape(), Values::new(gradient).f32().to_vec());
        cpu::scale(&mut values, factor);
        tensor(values, shape)
    }
}
