//! Layer normalisation over the last axis.  Ba, Kiros & Hinton, arXiv 1607.06450, equations 3 and 4.
//!
//!   y = gain * (x - mean(x)) / sqrt(var(x) + epsilon) + bias

mod backward;
mod cpu;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Shape;

use crate::flex::{Values, tensor};
use crate::simd::Level;

/// Normalises the last axis of `x` to mean 0 and variance 1, then scales and shifts it.
///
/// `x` is `[.., hidden]`, `gain` and `bias` are `[hidden]`; the result has the shape of `x`.
pub fn layer_norm<const D: usize>(x: Tensor<D>, gain: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let hidden = x.dims()[D - 1];
    assert_eq!([hidden], gain.dims(), "layer_norm: gain needs one value for each of the last axis of x");
    assert_eq!([hidden], bias.dims(), "layer_norm: bias needs one value for each of the last axis of x");
    Tensor::from_dispatch(Dispatch::layer_norm_forward(
        x.into_dispatch(),
        gain.into_dispatch(),
        bias.into_dispatch(),
        epsilon,
    ))
}

/// Layer normalisation, as each device runs it. (Methods end in `_forward`: Burn has a `layer_norm` of its own.)
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait LayerNormOps: Backend {
    /// See [`layer_norm`].
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let shape = x.shape();
        let (normal, _) = normalise::<Self>(as_rows::<Self>(x), epsilon);
        let scaled = Self::float_mul(normal, as_rows::<Self>(gain));
        Self::float_reshape(Self::float_add(scaled, as_rows::<Self>(bias)), shape)
    }
}

/// The gradients of [`LayerNormOps`]; real devices only.
pub trait LayerNormGrad: Backend {
    /// From `x`, `gain` and the gradient of the result: the gradients of `x`, `gain` and `bias`.
    fn layer_norm_grad(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> [FloatTensor<Self>; 3] {
        let (shape, hidden) = (x.shape(), gain.shape());
        let dy = as_rows::<Self>(dy);
        let (normal, deviation) = normalise::<Self>(as_rows::<Self>(x), epsilon);
        let dgain = Self::float_sum_dim(Self::float_mul(dy.clone(), normal.clone()), 0);
        let dbias = Self::float_sum_dim(dy.clone(), 0);
        // dx = (g - mean(g) - normal * mean(g * normal)) / deviation, where g = dy * gain
        let g = Self::float_mul(dy, as_rows::<Self>(gain));
        let along = Self::float_mean_dim(Self::float_mul(g.clone(), normal.clone()), 1);
        let centred = Self::float_sub(g.clone(), Self::float_mean_dim(g, 1));
        let dx = Self::float_div(Self::float_sub(centred, Self::float_mul(normal, along)), deviation);
        [Self::float_reshape(dx, shape), Self::float_reshape(dgain, hidden.clone()), Self::float_reshape(dbias, hidden)]
    }
}

/// `[.., hidden]` as `[rows, hidden]`.
pub(crate) fn as_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let hidden = shape[shape.num_dims() - 1];
    let rows = shape.num_elements().checked_div(hidden).unwrap_or(0);
    B::float_reshape(x, Shape::from([rows, hidden]))
}

/// For `x` `[rows, hidden]`: the normalised rows, and the standard deviations `[rows, 1]`.
fn normalise<B: Backend>(x: FloatTensor<B>, epsilon: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let centred = B::float_sub(x.clone(), B::float_mean_dim(x, 1));
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    let deviation = B::float_sqrt(B::float_add_scalar(variance, epsilon.into()));
    (B::float_div(centred, deviation.clone()), deviation)
}

#[cfg(feature = "gpu")]
impl LayerNormOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl LayerNormGrad for burn::backend::Cube {}

impl LayerNormOps for Flex {
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let (x, gain, bias) = (Values::new(x), Values::new(gain), Values::new(bias));
        let y = cpu::forward(Level::best(), x.f32(), gain.f32(), bias.f32(), epsilon as f32);
        tensor(y, x.shape())
    }
}

impl LayerNormGrad for Flex {
    fn layer_norm_grad(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> [FloatTensor<Self>; 3] {
        let (x, gain, dy) = (Values::new(x), Values::new(gain), Values::new(dy));
        let [dx, dgain, dbias] = cpu::backward(Level::best(), x.f32(), gain.f32(), dy.f32(), epsilon as f32);
        [tensor(dx, x.shape()), tensor(dgain, gain.shape()), tensor(dbias, gain.shape())]
    }
}
