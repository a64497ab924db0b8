//! Softmax cross-entropy with label smoothing (Szegedy et al., arXiv 1512.00567, section 7), summed over rows.
//!
//! ```text
//! p = softmax(logits)
//! loss = -(1 - smoothing) * log p[target] - smoothing * mean(log p)
//! ```
//!
//! The logits are read, never copied: the probabilities are made again in the backward pass, over the logits
//! themselves when nobody else holds them.

mod backward;
mod cpu;
pub mod linear;
mod portable;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use linear::linear_cross_entropy;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Int;
use burn::{Tensor, tensor::Shape};

use crate::flex::{Values, tensor};
use crate::in_place::unshared;
use crate::simd::Level;

/// The sum over rows of the label-smoothed cross-entropy between softmax(`logits`) and `targets`, in nats: `[1]`.
///
/// `logits` is `[rows, vocabulary]`, `targets` is `[rows]`; `label_smoothing` spreads that share of the target's
/// probability evenly over the whole vocabulary. Rows whose target is `ignore` add nothing and have gradient 0,
/// whatever their logits are. No rows give 0. The gradient is written over the logits if this was their last
/// use.
///
/// Panics if another target is outside of the vocabulary (a device that would have to be waited for gives NaN).
pub fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    label_smoothing: f32,
    ignore: Option<i32>,
) -> Tensor<1> {
    let options = check("cross_entropy", &logits, &targets, label_smoothing, ignore);
    let (logits, targets) = (logits.into_dispatch(), targets.into_dispatch());
    Tensor::from_dispatch(Dispatch::cross_entropy_forward(logits, targets, options))
}

/// The loss of each row, `[rows]`, as [`cross_entropy`] sums them; for evaluation, it has no gradient.
pub fn cross_entropy_rows(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    label_smoothing: f32,
    ignore: Option<i32>,
) -> Tensor<1> {
    let options = check("cross_entropy_rows", &logits, &targets, label_smoothing, ignore);
    let (logits, targets) = (logits.into_dispatch(), targets.into_dispatch());
    Tensor::from_dispatch(Dispatch::cross_entropy_rows_forward(logits, targets, options))
}

fn check(
    function: &str,
    logits: &Tensor<2>,
    targets: &Tensor<1, Int>,
    label_smoothing: f32,
    ignore: Option<i32>,
) -> Options {
    let (logits, targets) = (logits.dims(), targets.dims());
    assert_eq!([logits[0]], targets, "{function}: logits {logits:?} need one target a row, not {targets:?}");
    assert!((0.0..=1.0).contains(&label_smoothing), "{function}: label smoothing {label_smoothing} is not in 0 to 1");
    Options { label_smoothing, ignore }
}

/// What the loss is, besides its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The share of the target's probability that is spread over the whole vocabulary.
    pub label_smoothing: f32,
    /// Rows with this target do not count.
    pub ignore: Option<i32>,
}

/// Cross-entropy, as each device runs it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait CrossEntropyOps: Backend {
    /// See [`cross_entropy`].
    fn cross_entropy_forward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: Options,
    ) -> FloatTensor<Self> {
        Self::float_sum(portable::forward::<Self>(logits, targets, options).losses)
    }

    /// See [`cross_entropy_rows`].
    fn cross_entropy_rows_forward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: Options,
    ) -> FloatTensor<Self> {
        portable::forward::<Self>(logits, targets, options).losses
    }
}

/// What the forward pass leaves to the backward pass: for each row, the largest logit and the reciprocal of the
/// sum of `exp(logit - largest)`. Two numbers, not the logarithm of a sum, which would lose the digits that a
/// large logit takes.
#[derive(Debug, Clone)]
pub struct Statistics<B: Backend> {
    /// `[rows]`
    pub largest: FloatTensor<B>,
    /// `[rows]`
    pub reciprocal: FloatTensor<B>,
}

/// The gradient of [`CrossEntropyOps`]; real devices only.
pub trait CrossEntropyGrad: Backend {
    /// The loss `[1]`, and what the backward pass needs of it.
    fn cross_entropy_tracked(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: Options,
    ) -> (FloatTensor<Self>, Statistics<Self>) {
        let forward = portable::forward::<Self>(logits, targets, options);
        (Self::float_sum(forward.losses), forward.statistics)
    }

    /// The gradient of the logits, given that of the loss, `[1]`.
    fn cross_entropy_grad(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        statistics: Statistics<Self>,
        upstream: FloatTensor<Self>,
        options: Options,
    ) -> FloatTensor<Self> {
        portable::gradient::<Self>(logits, targets, statistics, upstream, options)
    }
}

#[cfg(feature = "gpu")]
impl CrossEntropyOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl CrossEntropyGrad for burn::backend::Cube {}

/// The losses and statistics of every row, on the CPU.
fn rows_on_cpu(logits: FloatTensor<Flex>, targets: IntTensor<Flex>, options: Options) -> cpu::Rows {
    let vocab = logits.shape()[1];
    let (logits, targets) = (Values::new(logits), Values::new(targets));
    cpu::forward(Level::best(), logits.f32(), vocab, targets.i32(), options)
}

impl CrossEntropyOps for Flex {
    fn cross_entropy_forward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: Options,
    ) -> FloatTensor<Self> {
        tensor(vec![rows_on_cpu(logits, targets, options).total()], [1])
    }

    fn cross_entropy_rows_forward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: Options,
    ) -> FloatTensor<Self> {
        let losses: Vec<f32> =
            rows_on_cpu(logits, targets, options).losses.into_iter().map(|loss| loss as f32).collect();
        let rows = losses.len();
        tensor(losses, [rows])
    }
}

impl CrossEntropyGrad for Flex {
    fn cross_entropy_tracked(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: Options,
    ) -> (FloatTensor<Self>, Statistics<Self>) {
        let rows = rows_on_cpu(logits, targets, options);
        let (total, shape) = (rows.total(), Shape::from([rows.losses.len()]));
        let statistics =
            Statistics { largest: tensor(rows.largest, shape.clone()), reciprocal: tensor(rows.reciprocal, shape) };
        (tensor(vec![total], [1]), statistics)
    }

    fn cross_entropy_grad(
        mut logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        statistics: Statistics<Self>,
        upstream: FloatTensor<Self>,
        options: Options,
    ) -> FloatTensor<Self> {
        let (shape, targets) = (logits.shape(), Values::new(targets));
        let (largest, reciprocal) = (Values::new(statistics.largest), Values::new(statistics.reciprocal));
        let upstream = Values::new(upstream).f32()[0];
        let gradient = cpu::Gradient {
            level: Level::best(),
            vocab: shape[1],
            targets: targets.i32(),
            largest: largest.f32(),
            reciprocal: reciprocal.f32(),
            upstream,
            options,
        };
        if let Some(values) = unshared(&mut logits) {
            gradient.in_place(values);
            return logits;
        }
        let mut values = Values::new(logits).f32().to_vec();
        gradient.in_place(&mut values);
        tensor(values, shape)
    }
}
