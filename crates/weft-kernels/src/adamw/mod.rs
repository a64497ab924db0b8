//! AdamW: Adam (Kingma & Ba, arXiv 1412.6980, algorithm 1) with decoupled weight decay (Loshchilov & Hutter,
//! arXiv 1711.05101, algorithm 2), and the norm of gradients that clipping needs.
//!
//! ```text
//! paper      here
//! g_t        gradient_scale * gradient
//! m_t, v_t   Moments::first, Moments::second
//! α, λ       learning_rate, weight_decay (the decay per step is their product, as in `torch.optim.AdamW`)
//! t          step, from 1 on
//! ```

mod cpu;
mod portable;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, DType, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Bytes, Shape};
use burn_flex::{FlexTensor, Layout};

use crate::flex::{Values, tensor};
use crate::in_place::unshared;
use crate::simd::Level;

/// One step's settings. Without weight decay it is Adam.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// What this step moves by; schedules change it from step to step.
    pub learning_rate: f64,
    /// The share of the gradients' running mean that is kept.
    pub beta1: f64,
    /// The share of the squared gradients' running mean that is kept.
    pub beta2: f64,
    /// Added to the root of the squared gradients' mean.
    pub epsilon: f64,
    /// The share of a parameter that goes per step, divided by the learning rate.
    pub weight_decay: f64,
    /// The number of this step, from 1 on: running means start at 0, and this corrects them.
    pub step: u64,
    /// What gradients are multiplied by first: clipping and the division by the number of tokens.
    pub gradient_scale: f32,
}

impl Default for AdamW {
    /// The values of arXiv 1412.6980, no weight decay, first step.
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            step: 1,
            gradient_scale: 1.0,
        }
    }
}

/// The running means of a parameter's gradients, each with the parameter's shape.
#[derive(Debug, Clone)]
pub struct Moments<const D: usize> {
    /// Of the gradients.
    pub first: Tensor<D>,
    /// Of their squares.
    pub second: Tensor<D>,
}

impl<const D: usize> Moments<D> {
    /// Before the first step: zeros.
    pub fn zeros(shape: [usize; D], device: &burn::tensor::Device) -> Self {
        Self { first: Tensor::zeros(shape, device), second: Tensor::zeros(shape, device) }
    }
}

/// Moves `parameter` one step against `gradient`: the new parameter and its moments, written over the old ones
/// where nobody else holds them.
///
/// All four tensors have the same shape and are plain ones, without autodiff. A NaN in the gradient goes into
/// the result: look at [`squared_norm`] first.
pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: Moments<D>,
    options: &AdamW,
) -> (Tensor<D>, Moments<D>) {
    let shape = parameter.dims();
    assert!(options.step > 0, "adamw: steps count from 1");
    assert_eq!(shape, gradient.dims(), "adamw: the gradient has another shape than the parameter");
    assert_eq!(shape, moments.first.dims(), "adamw: the first moment has another shape than the parameter");
    assert_eq!(shape, moments.second.dims(), "adamw: the second moment has another shape than the parameter");
    let (parameter, first, second) = Dispatch::adamw_step(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        moments.first.into_dispatch(),
        moments.second.into_dispatch(),
        *options,
    );
    let moments = Moments { first: Tensor::from_dispatch(first), second: Tensor::from_dispatch(second) };
    (Tensor::from_dispatch(parameter), moments)
}

/// The sum of the squares of a plain tensor, summed in `f64` on the CPU; NaN or infinite if an element is.
/// Waits for the device.
pub fn squared_norm<const D: usize>(gradient: &Tensor<D>) -> f64 {
    let norm = Tensor::<1>::from_dispatch(Dispatch::adamw_squared_norm(gradient.clone().into_dispatch()));
    norm.into_data().iter::<f64>().next().expect("one value")
}

/// AdamW, as each device runs it: for plain tensors only, it has no gradient.
#[backend_extension(Flex, Cube: cfg(feature = "gpu"))]
pub trait AdamWOps: Backend {
    /// See [`adamw`]: the new parameter, first and second moment.
    fn adamw_step(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        options: AdamW,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable::step::<Self>(parameter, gradient, first, second, options)
    }

    /// See [`squared_norm`]: `[1]`, of any float type.
    fn adamw_squared_norm(gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_sum(Self::float_mul(gradient.clone(), gradient))
    }
}

#[cfg(feature = "gpu")]
impl AdamWOps for burn::backend::Cube {}

/// `tensor` itself if it can be written over, otherwise a copy that can.
fn writable(mut values: FlexTensor) -> FlexTensor {
    if unshared(&mut values).is_some() {
        return values;
    }
    let shape = values.shape();
    tensor(Values::new(values).f32().to_vec(), shape)
}

impl AdamWOps for Flex {
    fn adamw_step(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        options: AdamW,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let gradient = Values::new(gradient);
        let [mut parameter, mut first, mut second] = [parameter, first, second].map(writable);
        cpu::step(
            Level::best(),
            unshared(&mut parameter).expect("made writable"),
            gradient.f32(),
            unshared(&mut first).expect("made writable"),
            unshared(&mut second).expect("made writable"),
            &options,
        );
        (parameter, first, second)
    }

    fn adamw_squared_norm(gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let norm = cpu::squared_norm(Level::best(), Values::new(gradient).f32());
        FlexTensor::new(Bytes::from_elems(vec![norm]), Layout::contiguous(Shape::from([1])), DType::F64)
    }
}
