//! Each position mixed with the one before it, channel by channel.  Peng et al., arXiv 2305.13048, section 3.1.1.
//!
//!   y_t = mix x_t + (1 - mix) x_(t-1)
//!
//! | here      | paper | shape                    |
//! |-----------|-------|--------------------------|
//! | `x`       | x     | `[batch, time, hidden]`  |
//! | `mix`     | μ     | `[hidden]`               |
//! | `earlier` | x_0   | `[batch, hidden]`        |

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

/// Mixes each position of a ragged batch with the one before it.
///
/// `earlier` stands before each sentence's first position, zeros if absent. `lengths` are the sentences' (all of `time`
/// if absent): past them the result is zero, and what stands there is never read. The result has the shape of `x`.
///
/// # Panics
/// If shapes do not fit each other, or a length exceeds `time`.
pub fn token_shift(x: Tensor<3>, mix: Tensor<1>, earlier: Option<Tensor<2>>, lengths: Option<&[usize]>) -> Tensor<3> {
    let [batch, time, hidden] = x.dims();
    assert_eq!(mix.dims(), [hidden], "token_shift: mix needs one value for each channel");
    let lengths = lengths.map_or_else(|| vec![time; batch], <[usize]>::to_vec);
    assert!(
        lengths.len() == batch && lengths.iter().all(|&length| length <= time),
        "token_shift: lengths {lengths:?} for x {:?}",
        x.dims()
    );
    let earlier = earlier.unwrap_or_else(|| Tensor::zeros([batch, hidden], &x.device()));
    assert_eq!(earlier.dims(), [batch, hidden], "token_shift: before the first position stands one row");
    Tensor::from_dispatch(Dispatch::token_shift_forward(
        x.into_dispatch(),
        mix.into_dispatch(),
        earlier.into_dispatch(),
        lengths,
    ))
}

/// The shift, as each device runs it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait TokenShiftOps: Backend {
    /// See [`token_shift`].
    fn token_shift_forward(
        x: FloatTensor<Self>,
        mix: FloatTensor<Self>,
        earlier: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        portable::forward::<Self>([x, mix, earlier], &lengths)
    }
}

/// The gradients of [`TokenShiftOps`]; real devices only.
pub trait TokenShiftGrad: Backend {
    /// The gradients of `x`, `mix` and `earlier`, from that of the result.
    fn token_shift_grad(
        operands: [FloatTensor<Self>; 3],
        gradient: FloatTensor<Self>,
        lengths: &[usize],
    ) -> [FloatTensor<Self>; 3] {
        portable::backward::<Self>(operands, gradient, lengths)
    }
}

#[cfg(feature = "gpu")]
impl TokenShiftOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl TokenShiftGrad for burn::backend::Cube {}

impl TokenShiftOps for Flex {
    fn token_shift_forward(
        x: FloatTensor<Self>,
        mix: FloatTensor<Self>,
        earlier: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        let shape = x.shape();
        let operands = [x, mix, earlier].map(Values::new);
        tensor(cpu::forward(Level::best(), &shift(&operands, &lengths)), shape)
    }
}

impl TokenShiftGrad for Flex {
    fn token_shift_grad(
        operands: [FloatTensor<Self>; 3],
        gradient: FloatTensor<Self>,
        lengths: &[usize],
    ) -> [FloatTensor<Self>; 3] {
        let operands = operands.map(Values::new);
        let gradient = Values::new(gradient);
        let gradients = cpu::backward(Level::best(), &shift(&operands, lengths), gradient.f32());
        let mut shapes = operands.iter().map(Values::shape);
        gradients.map(|values| tensor(values, shapes.next().expect("one for each operand")))
    }
}

fn shift<'a>(operands: &'a [Values; 3], lengths: &'a [usize]) -> cpu::Shift<'a> {
    let [_, time, hidden] = operands[0].shape().dims();
    let [x, mix, earlier] = operands.each_ref().map(Values::f32);
    cpu::Shift { time, hidden, lengths, x, mix, earlier }
}
