//! The CPU kernel: bound by memory, four streams read and three written.

use pulp::{Scalar, Simd, WithSimd};
use rayon::prelude::*;

use super::AdamW;
use crate::simd::Level;

/// Elements that one task takes: 64 KiB of each stream. A parameter of one part, a bias say, is done without
/// waking another core.
const PART: usize = 1 << 14;

/// Moves `parameter` and its moments one step.
pub(super) fn step(
    level: Level,
    parameter: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    options: &AdamW,
) {
    let factors = Factors::new(options);
    parameter
        .par_chunks_mut(PART)
        .zip(gradient.par_chunks(PART))
        .zip(first.par_chunks_mut(PART).zip(second.par_chunks_mut(PART)))
        .for_each(|((parameter, gradient), (first, second))| {
            level.run(Step { parameter, gradient, first, second, factors });
        });
}

/// What the step multiplies by, worked out in `f64` as `torch.optim` does.
#[derive(Clone, Copy)]
struct Factors {
    gradient: f32,
    /// What remains of the parameter after weight decay.
    kept: f32,
    first_share: f32,
    second_kept: f32,
    second_share: f32,
    /// Corrects the root of the second moment.
    root: f32,
    epsilon: f32,
    /// The learning rate, with the correction of the first moment.
    negative_rate: f32,
}

impl Factors {
    fn new(options: &AdamW) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(options.step as f64);
        Self {
            gradient: options.gradient_scale,
            kept: (1.0 - options.learning_rate * options.weight_decay) as f32,
            first_share: (1.0 - options.beta1) as f32,
            second_kept: options.beta2 as f32,
            second_share: (1.0 - options.beta2) as f32,
            root: (1.0 / correction(options.beta2).sqrt()) as f32,
            epsilon: options.epsilon as f32,
            negative_rate: (-options.learning_rate / correction(options.beta1)) as f32,
        }
    }
}

struct Step<'a> {
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    factors: Factors,
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (parameters, parameter_rest) = S::as_mut_simd_f32s(self.parameter);
        let (gradients, gradient_rest) = S::as_simd_f32s(self.gradient);
        let (firsts, first_rest) = S::as_mut_simd_f32s(self.first);
        let (seconds, second_rest) = S::as_mut_simd_f32s(self.second);
        let moments = firsts.iter_mut().zip(seconds);
        for ((p, &g), (m, v)) in parameters.iter_mut().zip(gradients).zip(moments) {
            (*p, *m, *v) = update(simd, *p, g, *m, *v, self.factors);
        }
        let moments = first_rest.iter_mut().zip(second_rest);
        for ((p, &g), (m, v)) in parameter_rest.iter_mut().zip(gradient_rest).zip(moments) {
            (*p, *m, *v) = update(Scalar, *p, g, *m, *v, self.factors);
        }
    }
}

/// The new parameter, first and second moment.
#[inline(always)]
fn update<S: Simd>(
    simd: S,
    p: S::f32s,
    g: S::f32s,
    m: S::f32s,
    v: S::f32s,
    factors: Factors,
) -> (S::f32s, S::f32s, S::f32s) {
    let splat = |x| simd.splat_f32s(x);
    let g = simd.mul_f32s(g, splat(factors.gradient));
    let m = simd.mul_add_f32s(simd.sub_f32s(g, m), splat(factors.first_share), m);
    let square = simd.mul_f32s(simd.mul_f32s(g, g), splat(factors.second_share));
    let v = simd.mul_add_f32s(v, splat(factors.second_kept), square);
    let root = simd.mul_add_f32s(simd.sqrt_f32s(v), splat(factors.root), splat(factors.epsilon));
    let p = simd.mul_f32s(p, splat(factors.kept));
    let p = simd.mul_add_f32s(simd.div_f32s(m, root), splat(factors.negative_rate), p);
    (p, m, v)
}

/// The sum of squares, in `f64`, parts added in order.
pub(super) fn squared_norm(level: Level, values: &[f32]) -> f64 {
    let parts: Vec<f64> = values.par_chunks(PART).map(|part| level.run(Squares(part))).collect();
    parts.iter().sum()
}

struct Squares<'a>(&'a [f32]);

impl WithSimd for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        // Sixteen sums, the same on every level: the compiler makes them vectors (pulp does not widen f32).
        let mut sums = [0.0f64; 16];
        let (blocks, rest) = pulp::as_arrays::<16, _>(self.0);
        for block in blocks {
            for (sum, &x) in sums.iter_mut().zip(block) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(rest) {
            *sum += f64::from(x) * f64::from(x);
        }
        sums.iter().sum()
    }
}
