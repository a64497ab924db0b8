//! AdamW by Burn's own operations.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::AdamW;

pub(super) fn step<B: Backend>(
    parameter: FloatTensor<B>,
    gradient: FloatTensor<B>,
    first: FloatTensor<B>,
    second: FloatTensor<B>,
    options: AdamW,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let times = |x, factor: f64| B::float_mul_scalar(x, factor.into());
    let correction = |beta: f64| 1.0 - beta.powf(options.step as f64);
    let g = times(gradient, f64::from(options.gradient_scale));
    let first = B::float_add(first.clone(), times(B::float_sub(g.clone(), first), 1.0 - options.beta1));
    let square = times(B::float_mul(g.clone(), g), 1.0 - options.beta2);
    let second = B::float_add(times(second, options.beta2), square);
    let root = times(B::float_sqrt(second.clone()), 1.0 / correction(options.beta2).sqrt());
    let direction = B::float_div(first.clone(), B::float_add_scalar(root, options.epsilon.into()));
    let parameter = times(parameter, 1.0 - options.learning_rate * options.weight_decay);
    let parameter = B::float_sub(parameter, times(direction, options.learning_rate / correction(options.beta1)));
    (parameter, first, second)
}
