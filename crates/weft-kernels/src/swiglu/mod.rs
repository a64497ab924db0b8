//! The gate of a SwiGLU layer.  Shazeer, arXiv 2002.05202, equation 6 (its products are ordinary ones).
//!
//!   y = silu(gate) up,   silu(x) = x / (1 + exp(-x))

mod backward;
mod cpu;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Slice};

use crate::flex::{Values, tensor};
use crate::simd::Level;

/// `silu(gate) up` of `x` `[batch, time, 2 * inner]` (gate | up): `[batch, time, inner]`.
///
/// # Panics
/// If the columns are not even in number.
pub fn swiglu(x: Tensor<3>) -> Tensor<3> {
    assert!(x.dims()[2].is_multiple_of(2), "swiglu: the last axis of {:?} is not gate | up", x.dims());
    Tensor::from_dispatch(Dispatch::swiglu_forward(x.into_dispatch()))
}

/// The operation, as each device runs it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait SwigluOps: Backend {
    /// See [`swiglu`].
    fn swiglu_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let [gate, up] = halves::<Self>(&x);
        Self::float_mul(Self::float_mul(gate.clone(), Self::sigmoid(gate)), up)
    }
}

/// The gradient of [`SwigluOps`]; real devices only.
pub trait SwigluGrad: Backend {
    /// From `x` and the gradient of the result: the gradient of `x`.
    fn swiglu_grad(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        let [gate, up] = halves::<Self>(&x);
        let open = Self::sigmoid(gate.clone());
        let passed = Self::float_mul(gate.clone(), open.clone());
        // silu' = open (1 + gate (1 - open)) = open + passed - passed open
        let slope =
            Self::float_sub(Self::float_add(open.clone(), passed.clone()), Self::float_mul(passed.clone(), open));
        let dgate = Self::float_mul(Self::float_mul(dy.clone(), up), slope);
        Self::float_cat(vec![dgate, Self::float_mul(dy, passed)], 2)
    }
}

fn halves<B: Backend>(x: &FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let shape = x.shape();
    let inner = shape[2] / 2;
    let all = |size: usize| Slice::from(0..size);
    [0, inner]
        .map(|start| B::float_slice(x.clone(), &[all(shape[0]), all(shape[1]), Slice::from(start..start + inner)]))
}

#[cfg(feature = "gpu")]
impl SwigluOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl SwigluGrad for burn::backend::Cube {}

impl SwigluOps for Flex {
    fn swiglu_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = Values::new(x);
        let shape = x.shape();
        let inner = shape[2] / 2;
        tensor(cpu::forward(Level::best(), x.f32(), inner), Shape::from([shape[0], shape[1], inner]))
    }
}

impl SwigluGrad for Flex {
    fn swiglu_grad(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, dy) = (Values::new(x), Values::new(dy));
        let inner = x.shape()[2] / 2;
        tensor(cpu::backward(Level::best(), x.f32(), dy.f32(), inner), x.shape())
    }
}
