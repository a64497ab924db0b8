//! Normalisation over the last axis by its root mean square.  Zhang & Sennrich, arXiv 1910.07467, equation 4.
//!
//!   y = gain * x / sqrt(mean(x^2) + epsilon)

mod backward;
mod cpu;
pub mod gated;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};

use crate::flex::{Values, tensor};
use crate::layer_norm::as_rows;
use crate::simd::Level;

/// Scales the last axis of `x` to a mean square of 1, then by `gain`.
///
/// `x` is `[.., hidden]`, `gain` is `[hidden]`; the result has the shape of `x`.
///
/// # Panics
/// If `gain` does not fit.
pub fn rms_norm<const D: usize>(x: Tensor<D>, gain: Tensor<1>, epsilon: f64) -> Tensor<D> {
    assert_eq!([x.dims()[D - 1]], gain.dims(), "rms_norm: gain needs one value for each of the last axis of x");
    Tensor::from_dispatch(Dispatch::rms_norm_forward(x.into_dispatch(), gain.into_dispatch(), epsilon))
}

/// The normalisation, as each device runs it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait RmsNormOps: Backend {
    /// See [`rms_norm`].
    fn rms_norm_forward(x: FloatTensor<Self>, gain: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        let shape = x.shape();
        let x = as_rows::<Self>(x);
        let normal = Self::float_div(x.clone(), root_mean_square::<Self>(x, epsilon));
        Self::float_reshape(Self::float_mul(normal, as_rows::<Self>(gain)), shape)
    }
}

/// The gradients of [`RmsNormOps`]; real devices only.
pub trait RmsNormGrad: Backend {
    /// From `x`, `gain` and the gradient of the result: the gradients of `x` and `gain`.
    fn rms_norm_grad(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> [FloatTensor<Self>; 2] {
        let (shape, hidden) = (x.shape(), gain.shape());
        let (x, dy) = (as_rows::<Self>(x), as_rows::<Self>(dy));
        let root = root_mean_square::<Self>(x.clone(), epsilon);
        let normal = Self::float_div(x, root.clone());
        let dgain = Self::float_sum_dim(Self::float_mul(dy.clone(), normal.clone()), 0);
        // dx = (g - normal * mean(g * normal)) / root, where g = dy * gain
        let g = Self::float_mul(dy, as_rows::<Self>(gain));
        let along = Self::float_mean_dim(Self::float_mul(g.clone(), normal.clone()), 1);
        let dx = Self::float_div(Self::float_sub(g, Self::float_mul(normal, along)), root);
        [Self::float_reshape(dx, shape), Self::float_reshape(dgain, hidden)]
    }
}

/// For `x` `[rows, hidden]`: `[rows, 1]`.
fn root_mean_square<B: Backend>(x: FloatTensor<B>, epsilon: f64) -> FloatTensor<B> {
    let mean = B::float_mean_dim(B::float_mul(x.clone(), x), 1);
    B::float_sqrt(B::float_add_scalar(mean, epsilon.into()))
}

#[cfg(feature = "gpu")]
impl RmsNormOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl RmsNormGrad for burn::backend::Cube {}

impl RmsNormOps for Flex {
    fn rms_norm_forward(x: FloatTensor<Self>, gain: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        let (x, gain) = (Values::new(x), Values::new(gain));
        tensor(cpu::forward(Level::best(), x.f32(), gain.f32(), epsilon as f32), x.shape())
    }
}

impl RmsNormGrad for Flex {
    fn rms_norm_grad(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> [FloatTensor<Self>; 2] {
        let (x, gain, dy) = (Values::new(x), Values::new(gain), Values::new(dy));
        let [dx, dgain] = cpu::backward(Level::best(), x.f32(), gain.f32(), dy.f32(), epsilon as f32);
        [tensor(dx, x.shape()), tensor(dgain, gain.shape())]
    }
}
