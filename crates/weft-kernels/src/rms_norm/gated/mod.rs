//! A root mean square norm of what a gate lets through, as Mamba-2 ends a block. Dao & Gu, arXiv 2405.21060,
//! section 7; the order is that of the authors' code, gate first.
//!
//!   y = gain * h / sqrt(mean(h^2) + epsilon)          h = x silu(gate)

mod backward;
mod cpu;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};

use super::{RmsNormGrad, root_mean_square};
use crate::flex::{Values, tensor};
use crate::layer_norm::as_rows;
use crate::simd::Level;

/// Multiplies `x` with SiLU of `gate`, scales the last axis of the product to a mean square of 1, then by `gain`.
///
/// `x` and `gate` are `[.., hidden]`, `gain` is `[hidden]`; the result has the shape of `x`.
///
/// # Panics
/// If shapes do not fit each other.
pub fn gated_rms_norm<const D: usize>(x: Tensor<D>, gate: Tensor<D>, gain: Tensor<1>, epsilon: f64) -> Tensor<D> {
    assert_eq!(x.dims(), gate.dims(), "gated_rms_norm: x and its gate have the same shape");
    assert_eq!([x.dims()[D - 1]], gain.dims(), "gated_rms_norm: gain needs one value for each of the last axis of x");
    Tensor::from_dispatch(Dispatch::gated_rms_norm_forward(
        x.into_dispatch(),
        gate.into_dispatch(),
        gain.into_dispatch(),
        epsilon,
    ))
}

/// The gated norm, as each device runs it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait GatedRmsNormOps: Backend {
    /// See [`gated_rms_norm`].
    fn gated_rms_norm_forward(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let shape = x.shape();
        let open = Self::float_mul(gate.clone(), Self::sigmoid(gate));
        let h = as_rows::<Self>(Self::float_mul(x, open));
        let normal = Self::float_div(h.clone(), root_mean_square::<Self>(h, epsilon));
        Self::float_reshape(Self::float_mul(normal, as_rows::<Self>(gain)), shape)
    }
}

/// The gradients of [`GatedRmsNormOps`]; real devices only.
pub trait GatedRmsNormGrad: RmsNormGrad {
    /// The gradients of `x`, `gate` and `gain`, from that of the result.
    fn gated_rms_norm_grad(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> [FloatTensor<Self>; 3] {
        let sigmoid = Self::sigmoid(gate.clone());
        let silu = Self::float_mul(gate.clone(), sigmoid.clone());
        let [dh, dgain] = Self::rms_norm_grad(Self::float_mul(x.clone(), silu.clone()), gain, dy, epsilon);
        // SiLU's derivative is sigmoid + silu (1 - sigmoid).
        let closed = Self::float_add_scalar(Self::float_neg(sigmoid.clone()), 1f32.into());
        let slope = Self::float_add(sigmoid, Self::float_mul(silu.clone(), closed));
        let dgate = Self::float_mul(Self::float_mul(dh.clone(), x), slope);
        [Self::float_mul(dh, silu), dgate, dgain]
    }
}

#[cfg(feature = "gpu")]
impl GatedRmsNormOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl GatedRmsNormGrad for burn::backend::Cube {}

impl GatedRmsNormOps for Flex {
    fn gated_rms_norm_forward(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let [x, gate, gain] = [x, gate, gain].map(Values::new);
        tensor(cpu::forward(Level::best(), x.f32(), gate.f32(), gain.f32(), epsilon as f32), x.shape())
    }
}

impl GatedRmsNormGrad for Flex {
    fn gated_rms_norm_grad(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        epsilon: f64,
    ) -> [FloatTensor<Self>; 3] {
        let [x, gate, gain, dy] = [x, gate, gain, dy].map(Values::new);
        let [dx, dgate, dgain] =
            cpu::backward(Level::best(), [x.f32(), gate.f32()], gain.f32(), dy.f32(), epsilon as f32);
        [tensor(dx, x.shape()), tensor(dgate, x.shape()), tensor(dgain, gain.shape())]
    }
}
