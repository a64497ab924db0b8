//! A linear map with what follows it, in one pass over the result.
//!
//!   y = residual + dropout(activation(x W + bias))
//!
//! The bias and all that comes after it are applied to a part of the product while it lies in the cache. GELU is
//! the form by tanh of Hendrycks & Gimpel, arXiv 1606.08415, section 2, which GPT-2 uses.

mod backward;
mod cpu;
mod epilogue;
mod portable;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, ExtensionType, Flex, backend_extension};
use burn::tensor::Shape;

use crate::Dropout;
use crate::flex::{Values, tensor};
use crate::in_place::unshared;
use crate::simd::Level;

/// What is applied to `x W + bias`, element by element.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`, So et al., arXiv 2109.08668, section 3.2.
    SquaredRelu,
    /// `x/2 (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))`.
    Gelu,
    /// The hyperbolic tangent.
    Tanh,
    /// The logistic function, `1 / (1 + exp(-x))`.
    Sigmoid,
}

/// Which axis of a weight is which.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WeightLayout {
    /// `[in, out]`.
    #[default]
    InOut,
    /// `[out, in]`, as a tied table of embeddings has it.
    OutIn,
}

/// What follows the linear map: by default, nothing.
#[derive(Debug, Clone, Default)]
pub struct Epilogue<const D: usize> {
    /// Applied first.
    pub activation: Activation,
    /// Applied next; elements are counted in the result.
    pub dropout: Dropout,
    /// Added last; it has the shape of the result.
    pub residual: Option<Tensor<D>>,
}

/// `residual + dropout(activation(x W + bias))`: `x` is `[.., in]`, the result `[.., out]`.
///
/// `weight` is `[in, out]` or `[out, in]`, as `layout` says, and `bias` is `[out]`. All four tensors have
/// gradients. On the CPU a row of the result depends on its own row of `x` only, bit for bit.
/// Panics if the shapes do not fit.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    layout: WeightLayout,
    bias: Option<Tensor<1>>,
    epilogue: Epilogue<D>,
) -> Tensor<D> {
    let Epilogue { activation, dropout, residual } = epilogue;
    let (from, [input, output]) = (x.dims(), layout.sizes(weight.dims()));
    assert_eq!(from[D - 1], input, "linear: x {from:?} does not fit the weight {:?}, {layout:?}", weight.dims());
    if let Some(bias) = &bias {
        assert_eq!(bias.dims(), [output], "linear: the bias needs one value for each column of the result");
    }
    if let Some(residual) = &residual {
        let mut wanted = from;
        wanted[D - 1] = output;
        assert_eq!(residual.dims(), wanted, "linear: the residual has not the shape of the result");
    }
    let bias = bias.map_or(Operand::Absent, |bias| Operand::Present(bias.into_dispatch()));
    let residual = residual.map_or(Operand::Absent, |residual| Operand::Present(residual.into_dispatch()));
    let how = How { layout, activation, dropout };
    Tensor::from_dispatch(Dispatch::linear_forward(x.into_dispatch(), weight.into_dispatch(), bias, residual, how))
}

impl WeightLayout {
    /// `[in, out]` of a weight of shape `dims`.
    fn sizes(self, dims: [usize; 2]) -> [usize; 2] {
        match self {
            Self::InOut => dims,
            Self::OutIn => [dims[1], dims[0]],
        }
    }
}

/// The options of [`linear`] without the tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct How {
    /// Of the weight.
    pub layout: WeightLayout,
    /// See [`Epilogue::activation`].
    pub activation: Activation,
    /// See [`Epilogue::dropout`].
    pub dropout: Dropout,
}

/// An operand that may be missing. (Burn's extensions take no `Option` of a tensor.)
#[derive(Debug, Clone, ExtensionType)]
pub enum Operand<B: Backend> {
    /// Missing.
    Absent,
    /// There.
    Present(FloatTensor<B>),
}

impl<B: Backend> Operand<B> {
    fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Self::Absent => None,
            Self::Present(tensor) => Some(tensor),
        }
    }
}

/// What the backward pass needs besides `x` and the weight.
#[derive(Debug, Clone)]
pub enum Saved<B: Backend> {
    /// Nothing: no activation. Dropout chooses again from its seed.
    Nothing,
    /// The result, which tells the derivative: ReLU's is 1 where it is positive, its square's twice the root, tanh's one
    /// less its square, the logistic function's the result less its square.
    Output(FloatTensor<B>),
    /// The derivative of the result by `x W + bias`, dropout included.
    Slope(FloatTensor<B>),
}

/// The way in which [`Saved`] is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saving {
    Nothing,
    Output,
    Slope,
}

impl How {
    /// The smallest of the ways: the result costs nothing, since it is somebody's input.
    fn saving(self, has_residual: bool) -> Saving {
        match self.activation {
            Activation::None => Saving::Nothing,
            Activation::Relu | Activation::SquaredRelu if !has_residual => Saving::Output,
            Activation::Tanh | Activation::Sigmoid if !has_residual && self.dropout.is_none() => Saving::Output,
            _ => Saving::Slope,
        }
    }
}

/// Which gradients are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// That of `x`.
    pub x: bool,
    /// That of the weight.
    pub weight: bool,
    /// That of the bias.
    pub bias: bool,
}

/// The gradients that were wanted. (That of the residual is the gradient of the result.)
#[derive(Debug, Clone)]
pub struct Gradients<T> {
    /// Of the shape of `x`.
    pub x: Option<T>,
    /// Of the shape of the weight.
    pub weight: Option<T>,
    /// `[out]`.
    pub bias: Option<T>,
}

/// The linear map, as each device runs it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait LinearOps: Backend {
    /// See [`linear`].
    fn linear_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: Operand<Self>,
        #[extension_type] residual: Operand<Self>,
        how: How,
    ) -> FloatTensor<Self> {
        portable::forward::<Self>(x, weight, bias.into_option(), residual.into_option(), how, Saving::Nothing).0
    }
}

/// The gradients of [`LinearOps`]; real devices only.
pub trait LinearGrad: Backend {
    /// [`LinearOps::linear_forward`] before a backward pass.
    fn linear_forward_saving(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Operand<Self>,
        residual: Operand<Self>,
        how: How,
    ) -> (FloatTensor<Self>, Saved<Self>) {
        let residual = residual.into_option();
        let saving = how.saving(residual.is_some());
        portable::forward::<Self>(x, weight, bias.into_option(), residual, how, saving)
    }

    /// The gradients, given that of the result, `dy`.
    fn linear_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        saved: Saved<Self>,
        dy: FloatTensor<Self>,
        how: How,
        wanted: Wanted,
    ) -> Gradients<FloatTensor<Self>> {
        portable::backward::<Self>(x, weight, saved, dy, how, wanted)
    }
}

#[cfg(feature = "gpu")]
impl LinearOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl LinearGrad for burn::backend::Cube {}

/// The shape of the result.
fn result_shape(x: Shape, output: usize) -> Shape {
    let mut shape = x;
    let last = shape.num_dims() - 1;
    shape[last] = output;
    shape
}

/// The kernel on Flex tensors: the result and, if asked for, the slope.
fn flex_forward(
    x: FloatTensor<Flex>,
    weight: FloatTensor<Flex>,
    bias: Operand<Flex>,
    residual: Operand<Flex>,
    how: How,
    slope: bool,
) -> (FloatTensor<Flex>, Option<FloatTensor<Flex>>) {
    let (weight, layout) = as_it_lies(weight, how.layout);
    let (x, weight) = (Values::new(x), Values::new(weight));
    let (bias, residual) = (bias.into_option().map(Values::new), residual.into_option().map(Values::new));
    let weight = cpu::Weight::new(weight.f32(), weight.shape().dims(), layout);
    let (bias, residual) = (bias.as_ref().map(Values::f32), residual.as_ref().map(Values::f32));
    let operands = cpu::Operands { x: x.f32(), weight, bias, residual };
    let shape = result_shape(x.shape(), weight.output());
    let rows = shape.iter().take(shape.num_dims() - 1).product();
    let (y, slope) = cpu::forward(Level::best(), rows, operands, how.activation, how.dropout, slope);
    (tensor(y, shape.clone()), slope.map(|slope| tensor(slope, shape)))
}

/// A weight that is stored column after column is one of the other layout.
fn as_it_lies(weight: FloatTensor<Flex>, layout: WeightLayout) -> (FloatTensor<Flex>, WeightLayout) {
    let swapped = weight.transpose(0, 1);
    match (weight.is_contiguous(), swapped.is_contiguous(), layout) {
        (false, true, WeightLayout::OutIn) => (swapped, WeightLayout::InOut),
        (false, true, WeightLayout::InOut) => (swapped, WeightLayout::OutIn),
        _ => (weight, layout),
    }
}

impl LinearOps for Flex {
    fn linear_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Operand<Self>,
        residual: Operand<Self>,
        how: How,
    ) -> FloatTensor<Self> {
        flex_forward(x, weight, bias, residual, how, false).0
    }
}

impl LinearGrad for Flex {
    fn linear_forward_saving(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Operand<Self>,
        residual: Operand<Self>,
        how: How,
    ) -> (FloatTensor<Self>, Saved<Self>) {
        let saving = how.saving(matches!(residual, Operand::Present(_)));
        let (y, slope) = flex_forward(x, weight, bias, residual, how, saving == Saving::Slope);
        let saved = match (saving, slope) {
            (_, Some(slope)) => Saved::Slope(slope),
            (Saving::Output, None) => Saved::Output(y.clone()),
            (_, None) => Saved::Nothing,
        };
        (y, saved)
    }

    fn linear_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        saved: Saved<Self>,
        mut dy: FloatTensor<Self>,
        how: How,
        wanted: Wanted,
    ) -> Gradients<FloatTensor<Self>> {
        let (x, weight) = (Values::new(x), Values::new(weight));
        let (x_shape, weight_shape) = (x.shape(), weight.shape());
        let (values, slope) = match saved {
            Saved::Nothing => (None, false),
            Saved::Output(output) => (Some(Values::new(output)), false),
            Saved::Slope(slope) => (Some(Values::new(slope)), true),
        };
        let derivative = match (&values, how.activation) {
            (None, _) => cpu::Derivative::Dropout(how.dropout),
            (Some(slope_values), _) if slope => cpu::Derivative::Slope(slope_values.f32()),
            (Some(output), Activation::Relu) => cpu::Derivative::Relu(output.f32(), how.dropout.scale()),
            (Some(output), Activation::SquaredRelu) => cpu::Derivative::SquaredRelu(output.f32(), how.dropout.scale()),
            (Some(output), Activation::Sigmoid) => cpu::Derivative::Sigmoid(output.f32()),
            (Some(output), _) => cpu::Derivative::Tanh(output.f32()),
        };
        let weight = cpu::Weight::new(weight.f32(), weight_shape.dims(), how.layout);
        let rows = x_shape.iter().take(x_shape.num_dims() - 1).product();
        let run = |dy: cpu::Upstream<'_>| cpu::backward(Level::best(), rows, x.f32(), weight, derivative, dy, wanted);
        let gradients = match unshared(&mut dy) {
            Some(dy) => run(cpu::Upstream::Owned(dy)),
            None => run(cpu::Upstream::Shared(Values::new(dy).f32())),
        };
        Gradients {
            bias: gradients.bias.map(|gradient| tensor(gradient, [weight.output()])),
            x: gradients.x.map(|gradient| tensor(gradient, x_shape)),
            weight: gradients.weight.map(|gradient| tensor(gradient, weight_shape)),
        }
    }
}
