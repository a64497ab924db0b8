//! A residual connection whose addend passes a gate.
//!
//!   y = residual + dropout(sigmoid(gate) x)

mod backward;
mod cpu;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};

use crate::dropout::{self, Dropout};
use crate::flex::{Values, tensor};
use crate::simd::Level;

/// `residual + dropout(sigmoid(gate) x)`, element by element, in one pass: all have the same shape.
///
/// # Panics
/// If they have not.
pub fn gated_residual<const D: usize>(
    x: Tensor<D>,
    gate: Tensor<D>,
    residual: Tensor<D>,
    dropout: Dropout,
) -> Tensor<D> {
    assert!(
        x.dims() == gate.dims() && x.dims() == residual.dims(),
        "gated_residual: x {:?}, gate {:?} and residual {:?}",
        x.dims(),
        gate.dims(),
        residual.dims()
    );
    Tensor::from_dispatch(Dispatch::gated_residual_forward(
        x.into_dispatch(),
        gate.into_dispatch(),
        residual.into_dispatch(),
        dropout,
    ))
}

/// The operation, as each device runs it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait GatedResidualOps: Backend {
    /// See [`gated_residual`].
    fn gated_residual_forward(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        dropout: Dropout,
    ) -> FloatTensor<Self> {
        let passed = Self::float_mul(Self::sigmoid(gate), x);
        Self::float_add(residual, dropout::portable::<Self>(passed, dropout))
    }
}

/// The gradients of [`GatedResidualOps`]; real devices only.
pub trait GatedResidualGrad: Backend {
    /// From `x`, `gate` and the gradient of the result: the gradients of `x` and `gate`. (That of the residual is the
    /// gradient of the result.)
    fn gated_residual_grad(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        dropout: Dropout,
    ) -> [FloatTensor<Self>; 2] {
        let dy = dropout::portable::<Self>(dy, dropout);
        let open = Self::sigmoid(gate);
        let dx = Self::float_mul(dy, open.clone());
        let closed = Self::float_add_scalar(Self::float_neg(open), 1.0.into());
        [dx.clone(), Self::float_mul(Self::float_mul(dx, x), closed)]
    }
}

#[cfg(feature = "gpu")]
impl GatedResidualOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl GatedResidualGrad for burn::backend::Cube {}

impl GatedResidualOps for Flex {
    fn gated_residual_forward(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        dropout: Dropout,
    ) -> FloatTensor<Self> {
        let [x, gate, residual] = [x, gate, residual].map(Values::new);
        tensor(cpu::forward(Level::best(), x.f32(), gate.f32(), residual.f32(), dropout), x.shape())
    }
}

impl GatedResidualGrad for Flex {
    fn gated_residual_grad(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        dropout: Dropout,
    ) -> [FloatTensor<Self>; 2] {
        let [x, gate, dy] = [x, gate, dy].map(Values::new);
        let gradients = cpu::backward(Level::best(), x.f32(), gate.f32(), dy.f32(), dropout);
        gradients.map(|gradient| tensor(gradient, x.shape()))
    }
}
