//! What follows RWKV-7's recurrence in one pass: each head's output normalised, its bonus for the position itself, and the
//! gate.  Peng et al., arXiv 2503.14456, section 4.1.
//!
//!   y = (gain * normal(o) + bias + (sum of a head's r * k * rho) v) * gate
//!
//! | here                         | shape                    |
//! |------------------------------|--------------------------|
//! | `o`, `r`, `k`, `v`, `gate`   | `[batch, time, hidden]`  |
//! | `rho`                        | `[heads, size]`          |
//! | `gain`, `bias`               | `[hidden]`               |
//!
//! `hidden` is `heads * size`; `normal` has mean 0 and variance 1 in each head.

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

/// What each position brings, `[batch, time, hidden]` each.
#[derive(Debug, Clone)]
pub struct Wkv7Output {
    /// What the recurrence read.
    pub o: Tensor<3>,
    /// With what it read.
    pub r: Tensor<3>,
    /// The position's own key.
    pub k: Tensor<3>,
    /// And value.
    pub v: Tensor<3>,
    /// Multiplies the result.
    pub gate: Tensor<3>,
}

/// What is learned.
#[derive(Debug, Clone)]
pub struct Wkv7OutputParameters {
    /// The bonus' weights, `[heads, size]`.
    pub rho: Tensor<2>,
    /// Of the normalisation, `[hidden]`.
    pub gain: Tensor<1>,
    /// Of the normalisation, `[hidden]`.
    pub bias: Tensor<1>,
}

/// Normalises, adds the bonus and gates: `[batch, time, hidden]`. `epsilon` is added to each head's variance.
///
/// # Panics
/// If shapes do not fit each other.
pub fn wkv7_output(inputs: Wkv7Output, parameters: Wkv7OutputParameters, epsilon: f64) -> Tensor<3> {
    let (Wkv7Output { o, r, k, v, gate }, Wkv7OutputParameters { rho, gain, bias }) = (inputs, parameters);
    let ([_, _, hidden], [heads, size]) = (o.dims(), rho.dims());
    assert!(
        [&r, &k, &v, &gate].iter().all(|input| input.dims() == o.dims()),
        "wkv7_output: o {:?}, r {:?}, k {:?}, v {:?} and gate {:?} differ",
        o.dims(),
        r.dims(),
        k.dims(),
        v.dims(),
        gate.dims()
    );
    assert!(
        hidden == heads * size && size > 0 && gain.dims() == [hidden] && bias.dims() == [hidden],
        "wkv7_output: rho {:?}, gain {:?} and bias {:?} for {hidden} channels",
        rho.dims(),
        gain.dims(),
        bias.dims()
    );
    Tensor::from_dispatch(Dispatch::wkv7_output_forward(
        o.into_dispatch(),
        r.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        gate.into_dispatch(),
        rho.into_dispatch(),
        gain.into_dispatch(),
        bias.into_dispatch(),
        epsilon,
    ))
}

/// The operands, in the order of [`Wkv7OutputOps::wkv7_output_forward`].
pub type Operands<B> = [FloatTensor<B>; 8];

/// The operation, as each device runs it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait Wkv7OutputOps: Backend {
    /// See [`wkv7_output`].
    #[allow(clippy::too_many_arguments, reason = "one for each symbol of the equation")]
    fn wkv7_output_forward(
        o: FloatTensor<Self>,
        r: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        rho: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        portable::forward::<Self>([o, r, k, v, gate, rho, gain, bias], epsilon)
    }
}

/// The gradients of [`Wkv7OutputOps`]; real devices only.
pub trait Wkv7OutputGrad: Backend {
    /// The gradients of all operands, from that of the result.
    fn wkv7_output_grad(operands: Operands<Self>, dy: FloatTensor<Self>, epsilon: f64) -> Operands<Self> {
        portable::backward::<Self>(operands, dy, epsilon)
    }
}

#[cfg(feature = "gpu")]
impl Wkv7OutputOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl Wkv7OutputGrad for burn::backend::Cube {}

impl Wkv7OutputOps for Flex {
    fn wkv7_output_forward(
        o: FloatTensor<Self>,
        r: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        rho: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let shape = o.shape();
        let operands = [o, r, k, v, gate, rho, gain, bias].map(Values::new);
        tensor(cpu::forward(Level::best(), &heads(&operands, epsilon)), shape)
    }
}

impl Wkv7OutputGrad for Flex {
    fn wkv7_output_grad(operands: Operands<Self>, dy: FloatTensor<Self>, epsilon: f64) -> Operands<Self> {
        let (operands, dy) = (operands.map(Values::new), Values::new(dy));
        let gradients = cpu::backward(Level::best(), &heads(&operands, epsilon), dy.f32());
        let mut shapes = operands.iter().map(Values::shape);
        gradients.map(|values| tensor(values, shapes.next().expect("one for each operand")))
    }
}

fn heads(operands: &[Values; 8], epsilon: f64) -> cpu::Heads<'_> {
    let [heads, size] = operands[5].shape().dims();
    let [o, r, k, v, gate, rho, gain, bias] = operands.each_ref().map(Values::f32);
    cpu::Heads { heads, size, epsilon: epsilon as f32, o, r, k, v, gate, rho, gain, bias }
}
