//! The two keys of RWKV-7's recurrence, both made from one: where the state forgets, and where it learns.  Peng et al.,
//! arXiv 2503.14456, section 4.1.
//!
//!   a  = -normal(k * xi)                   the removal key, negated; `normal` gives each head length 1
//!   k~ = k * (1 + (rate - 1) * alpha)      the replacement key
//!
//! | here         | shape                    |
//! |--------------|--------------------------|
//! | `k`, `rate`  | `[batch, time, hidden]`  |
//! | `xi`,`alpha` | `[hidden]`               |

mod backward;
mod cpu;
mod portable;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};

use crate::flex::{Values, tensor};
use crate::simd::Level;

/// A head that is shorter is divided by this, as the authors' code does.
const SHORTEST: f64 = 1e-12;

/// `-normal(k * xi)`, each of `heads` heads at length 1.
///
/// # Panics
/// If shapes do not fit each other, or `heads` does not divide `hidden`.
pub fn removal_key(k: Tensor<3>, xi: Tensor<1>, heads: usize) -> Tensor<3> {
    let [_, _, hidden] = k.dims();
    assert!(heads > 0 && hidden > 0 && hidden.is_multiple_of(heads), "removal_key: {heads} heads of {hidden} values");
    assert_eq!(xi.dims(), [hidden], "removal_key: xi needs one value for each channel");
    Tensor::from_dispatch(Dispatch::removal_key_forward(k.into_dispatch(), xi.into_dispatch(), hidden / heads))
}

/// `k * (1 + (rate - 1) * alpha)`.
///
/// # Panics
/// If shapes do not fit each other.
pub fn replacement_key(k: Tensor<3>, rate: Tensor<3>, alpha: Tensor<1>) -> Tensor<3> {
    let [_, _, hidden] = k.dims();
    assert_eq!(k.dims(), rate.dims(), "replacement_key: k and rate differ");
    assert_eq!(alpha.dims(), [hidden], "replacement_key: alpha needs one value for each channel");
    let [k, rate] = [k, rate].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::replacement_key_forward(k, rate, alpha.into_dispatch()))
}

/// The operations, as each device runs them.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait Wkv7KeysOps: Backend {
    /// See [`removal_key`]; heads have `size` values.
    fn removal_key_forward(k: FloatTensor<Self>, xi: FloatTensor<Self>, size: usize) -> FloatTensor<Self> {
        portable::removal::<Self>([k, xi], size)
    }

    /// See [`replacement_key`].
    fn replacement_key_forward(
        k: FloatTensor<Self>,
        rate: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        portable::replacement::<Self>([k, rate, alpha])
    }
}

/// The gradients of [`Wkv7KeysOps`]; real devices only.
pub trait Wkv7KeysGrad: Backend {
    /// Of `k` and `xi`, from that of the removal key.
    fn removal_key_grad(
        operands: [FloatTensor<Self>; 2],
        da: FloatTensor<Self>,
        size: usize,
    ) -> [FloatTensor<Self>; 2] {
        portable::removal_backward::<Self>(operands, da, size)
    }

    /// Of `k`, `rate` and `alpha`, from that of the replacement key.
    fn replacement_key_grad(operands: [FloatTensor<Self>; 3], dkey: FloatTensor<Self>) -> [FloatTensor<Self>; 3] {
        portable::replacement_backward::<Self>(operands, dkey)
    }
}

#[cfg(feature = "gpu")]
impl Wkv7KeysOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl Wkv7KeysGrad for burn::backend::Cube {}

impl Wkv7KeysOps for Flex {
    fn removal_key_forward(k: FloatTensor<Self>, xi: FloatTensor<Self>, size: usize) -> FloatTensor<Self> {
        let shape = k.shape();
        let [k, xi] = [k, xi].map(Values::new);
        tensor(cpu::removal(Level::best(), k.f32(), xi.f32(), size), shape)
    }

    fn replacement_key_forward(
        k: FloatTensor<Self>,
        rate: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let shape = k.shape();
        let [k, rate, alpha] = [k, rate, alpha].map(Values::new);
        tensor(cpu::replacement(Level::best(), k.f32(), rate.f32(), alpha.f32()), shape)
    }
}

impl Wkv7KeysGrad for Flex {
    fn removal_key_grad(
        operands: [FloatTensor<Self>; 2],
        da: FloatTensor<Self>,
        size: usize,
    ) -> [FloatTensor<Self>; 2] {
        let ([k, xi], da) = (operands.map(Values::new), Values::new(da));
        let [dk, dxi] = cpu::removal_backward(Level::best(), k.f32(), xi.f32(), da.f32(), size);
        [tensor(dk, k.shape()), tensor(dxi, xi.shape())]
    }

    fn replacement_key_grad(operands: [FloatTensor<Self>; 3], dkey: FloatTensor<Self>) -> [FloatTensor<Self>; 3] {
        let ([k, rate, alpha], dkey) = (operands.map(Values::new), Values::new(dkey));
        let gradients = cpu::replacement_backward(Level::best(), k.f32(), rate.f32(), alpha.f32(), dkey.f32());
        let [dk, drate, dalpha] = gradients;
        [tensor(dk, k.shape()), tensor(drate, rate.shape()), tensor(dalpha, alpha.shape())]
    }
}
