//! Cross-entropy by Burn's own operations.

use burn::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn::backend::{Backend, DeviceOps, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Shape};

use super::{Options, Statistics};

pub(super) struct Forward<B: Backend> {
    /// `[rows]`
    pub(super) losses: FloatTensor<B>,
    pub(super) statistics: Statistics<B>,
}

/// Which rows do not count, which have no valid target, and targets that can be looked up for all of them.
struct Targets<B: Backend> {
    ignored: Option<BoolTensor<B>>,
    invalid: BoolTensor<B>,
    safe: IntTensor<B>,
}

impl<B: Backend> Targets<B> {
    fn new(targets: IntTensor<B>, vocab: usize, ignore: Option<i32>) -> Self {
        let dtype = targets.device().defaults().bool_dtype;
        let ignored = ignore.map(|ignore| B::int_equal_elem(targets.clone(), ignore.into(), dtype));
        let below = B::int_lower_elem(targets.clone(), 0i32.into(), dtype);
        let above = B::int_greater_equal_elem(targets.clone(), (vocab as i64).into(), dtype);
        let invalid = B::bool_or(below, above);
        let safe = B::int_mask_fill(targets, invalid.clone(), 0i32.into());
        Self { ignored, invalid, safe }
    }
}

pub(super) fn forward<B: Backend>(logits: FloatTensor<B>, targets: IntTensor<B>, options: Options) -> Forward<B> {
    let [rows, vocab] = logits.shape().dims();
    let device = logits.device();
    if rows * vocab == 0 {
        let zeros = || B::float_zeros(Shape::from([rows]), &device, device.defaults().float_dtype);
        return Forward { losses: zeros(), statistics: Statistics { largest: zeros(), reciprocal: zeros() } };
    }
    let flat = |x| B::float_reshape(x, Shape::from([rows]));
    let targets = Targets::<B>::new(targets, vocab, options.ignore);
    let largest = B::float_max_dim(logits.clone(), 1);
    let centred = B::float_sub(logits, largest.clone());
    let sum = flat(B::float_sum_dim(B::float_exp(centred.clone()), 1));
    let index = B::int_reshape(targets.safe, Shape::from([rows, 1]));
    let at_target = flat(B::float_gather(1, centred.clone(), index));
    let smoothing = options.label_smoothing;
    let mut losses = B::float_sub(B::float_log(sum.clone()), B::float_mul_scalar(at_target, (1.0 - smoothing).into()));
    if smoothing > 0.0 {
        let mean = flat(B::float_mean_dim(centred, 1));
        losses = B::float_sub(losses, B::float_mul_scalar(mean, smoothing.into()));
    }
    losses = B::float_mask_fill(losses, targets.invalid, f32::NAN.into());
    if let Some(ignored) = targets.ignored {
        losses = B::float_mask_fill(losses, ignored, 0.0.into());
    }
    Forward { losses, statistics: Statistics { largest: flat(largest), reciprocal: B::float_recip(sum) } }
}

pub(super) fn gradient<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    statistics: Statistics<B>,
    upstream: FloatTensor<B>,
    options: Options,
) -> FloatTensor<B> {
    let [rows, vocab] = logits.shape().dims();
    if rows * vocab == 0 {
        return logits;
    }
    let column = |x| B::float_reshape(x, Shape::from([rows, 1]));
    let targets = Targets::<B>::new(targets, vocab, options.ignore);
    let smoothing = options.label_smoothing;
    let powers = B::float_exp(B::float_sub(logits, column(statistics.largest)));
    let p = B::float_mul(powers, column(statistics.reciprocal));
    let p = B::float_sub_scalar(p, (smoothing / vocab as f32).into());
    let index = B::int_reshape(targets.safe, Shape::from([rows, 1]));
    let device = p.device();
    let confidence =
        B::float_full(Shape::from([rows, 1]), (smoothing - 1.0).into(), &device, device.defaults().float_dtype);
    let difference = B::float_scatter(1, p, index, confidence, IndexingUpdateOp::Add);
    let gradient = B::float_mul(difference, B::float_reshape(upstream, Shape::from([1, 1])));
    let over_rows = |mask| B::bool_expand(B::bool_reshape(mask, Shape::from([rows, 1])), Shape::from([rows, vocab]));
    let gradient = B::float_mask_fill(gradient, over_rows(targets.invalid), f32::NAN.into());
    match targets.ignored {
        Some(ignored) => B::float_mask_fill(gradient, over_rows(ignored), 0.0.into()),
        None => gradient,
    }
}
