//! Depthwise convolution over time that looks back only, followed by SiLU: each channel has a short filter of its own.
//! Gu & Dao, arXiv 2312.00752, figure 3.
//!
//!   y_t = silu(bias + w_0 x_(t-width+1) + ... + w_(width-1) x_t)
//!
//! | here              | shape                              |
//! |-------------------|------------------------------------|
//! | `x`               | `[batch, time, channels]`          |
//! | `weight`          | `[channels, width]`                |
//! | `bias`            | `[channels]`                       |
//! | `initial`         | `[batch, width - 1, channels]`     |

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

/// Convolves each channel of a ragged batch with its own filter, and applies SiLU.
///
/// `initial` stands before each sentence's first position, zeros if absent: the last `width - 1` inputs that came
/// before. `lengths` are the sentences' (all of `time` if absent): past them the result is zero, and what stands
/// there is never read. The result has the shape of `x`.
///
/// # Panics
/// If shapes do not fit each other, or a length exceeds `time`.
pub fn causal_convolution(
    x: Tensor<3>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    initial: Option<Tensor<3>>,
    lengths: Option<&[usize]>,
) -> Tensor<3> {
    let ([batch, time, channels], [rows, width]) = (x.dims(), weight.dims());
    assert!(
        rows == channels && width > 0 && bias.dims() == [channels],
        "causal_convolution: weight {:?} and bias {:?} for {channels} channels",
        weight.dims(),
        bias.dims()
    );
    let lengths = lengths.map_or_else(|| vec![time; batch], <[usize]>::to_vec);
    assert!(
        lengths.len() == batch && lengths.iter().all(|&length| length <= time),
        "causal_convolution: lengths {lengths:?} for x {:?}",
        x.dims()
    );
    let initial = initial.unwrap_or_else(|| Tensor::zeros([batch, width - 1, channels], &x.device()));
    assert_eq!(
        initial.dims(),
        [batch, width - 1, channels],
        "causal_convolution: before the first position stand width - 1 inputs"
    );
    Tensor::from_dispatch(Dispatch::causal_convolution_forward(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        initial.into_dispatch(),
        lengths,
    ))
}

/// The convolution, as each device runs it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait CausalConvolutionOps: Backend {
    /// See [`causal_convolution`].
    fn causal_convolution_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        portable::forward::<Self>([x, weight, bias, initial], &lengths)
    }
}

/// The gradients of [`CausalConvolutionOps`]; real devices only.
pub trait CausalConvolutionGrad: Backend {
    /// The gradients of `x`, `weight`, `bias` and `initial`, from that of the result.
    fn causal_convolution_grad(
        operands: [FloatTensor<Self>; 4],
        gradient: FloatTensor<Self>,
        lengths: &[usize],
    ) -> [FloatTensor<Self>; 4] {
        portable::backward::<Self>(operands, gradient, lengths)
    }
}

#[cfg(feature = "gpu")]
impl CausalConvolutionOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl CausalConvolutionGrad for burn::backend::Cube {}

impl CausalConvolutionOps for Flex {
    fn causal_convolution_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        initial: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        let shape = x.shape();
        let operands = [x, weight, bias, initial].map(Values::new);
        tensor(cpu::forward(Level::best(), &convolution(&operands, &lengths)), shape)
    }
}

impl CausalConvolutionGrad for Flex {
    fn causal_convolution_grad(
        operands: [FloatTensor<Self>; 4],
        gradient: FloatTensor<Self>,
        lengths: &[usize],
    ) -> [FloatTensor<Self>; 4] {
        let operands = operands.map(Values::new);
        let gradient = Values::new(gradient);
        let gradients = cpu::backward(Level::best(), &convolution(&operands, lengths), gradient.f32());
        let mut shapes = operands.iter().map(Values::shape);
        gradients.map(|values| tensor(values, shapes.next().expect("one for each operand")))
    }
}

fn convolution<'a>(operands: &'a [Values; 4], lengths: &'a [usize]) -> cpu::Convolution<'a> {
    let [_, time, channels] = operands[0].shape().dims();
    let [_, width] = operands[1].shape().dims();
    let [x, weight, bias, initial] = operands.each_ref().map(Values::f32);
    cpu::Convolution { time, channels, width, lengths, x, weight, bias, initial }
}
