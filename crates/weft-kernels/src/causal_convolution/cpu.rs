//! The CPU kernel: channels are the lanes of vectors, positions pass one after the other.
#![expect(unsafe_code, reason = "tasks write different channels of the same rows")]

use pulp::{Simd, WithSimd};

use crate::fresh::zeros;
use crate::lanes::{Part, Shared, for_each_part, load, vectors};
use crate::simd::{Level, sigmoid};

/// The operands; see [`causal_convolution`](super::causal_convolution).
pub(super) struct Convolution<'a> {
    pub time: usize,
    pub channels: usize,
    pub width: usize,
    pub lengths: &'a [usize],
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub initial: &'a [f32],
}

impl Convolution<'_> {
    /// Column `k` of the filters from a channel on.
    #[inline(always)]
    fn column<S: Simd>(&self, simd: S, k: usize, channel: usize, count: usize) -> S::f32s {
        let mut values = [0.0; 16];
        for (i, value) in values[..count].iter_mut().enumerate() {
            *value = self.weight[(channel + i) * self.width + k];
        }
        simd.partial_load_f32s(&values[..S::F32_LANES])
    }

    /// What stands `width - 1` before position `t`, or later: row `t` of the inputs with those before them.
    #[inline(always)]
    fn input<S: Simd>(&self, simd: S, batch: usize, t: usize, channel: usize, count: usize) -> S::f32s {
        match t.checked_sub(self.width - 1) {
            Some(t) => load(simd, self.x, (batch * self.time + t) * self.channels + channel, count),
            None => load(simd, self.initial, (batch * (self.width - 1) + t) * self.channels + channel, count),
        }
    }

    /// The sum before SiLU.
    #[inline(always)]
    fn sum<S: Simd>(&self, simd: S, at: [usize; 4], filter: &[S::f32s], bias: S::f32s) -> S::f32s {
        let [batch, t, channel, count] = at;
        let mut sum = bias;
        for (k, &weight) in filter.iter().enumerate() {
            sum = simd.mul_add_f32s(weight, self.input(simd, batch, t + k, channel, count), sum);
        }
        sum
    }
}

/// The result, `[batch, time, channels]`.
pub(super) fn forward(level: Level, convolution: &Convolution<'_>) -> Vec<f32> {
    let mut y = zeros(convolution.x.len());
    let to = Shared::new(&mut y);
    for_each_part(convolution.lengths.len(), convolution.channels, |part| level.run(Forward { convolution, part, to }));
    y
}

struct Forward<'a> {
    convolution: &'a Convolution<'a>,
    part: Part,
    to: Shared,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { convolution, part: Part { batch, channels, .. }, to } = self;
        let mut filter = vec![simd.splat_f32s(0.0); convolution.width];
        for (channel, count) in vectors::<S>(&channels) {
            for (k, weight) in filter.iter_mut().enumerate() {
                *weight = convolution.column(simd, k, channel, count);
            }
            let bias = load(simd, convolution.bias, channel, count);
            for t in 0..convolution.lengths[batch] {
                let sum = convolution.sum(simd, [batch, t, channel, count], &filter, bias);
                let at = (batch * convolution.time + t) * convolution.channels + channel;
                // SAFETY: these channels are this task's.
                unsafe { to.store(simd, at, count, simd.mul_f32s(sum, sigmoid(simd, sum))) };
            }
        }
    }
}

/// The gradients of `x`, `weight`, `bias` and `initial`, from that of the result.
pub(super) fn backward(level: Level, convolution: &Convolution<'_>, gradient: &[f32]) -> [Vec<f32>; 4] {
    let Convolution { channels, width, .. } = *convolution;
    let batch = convolution.lengths.len();
    let (mut x, mut initial) = (zeros(convolution.x.len()), vec![0.0; convolution.initial.len()]);
    // Of the filters and the bias, for each sentence: added in order, so that they do not depend on the threads.
    let mut partial = vec![0.0; batch * (width + 1) * channels];
    let to = Targets { x: Shared::new(&mut x), initial: Shared::new(&mut initial), partial: Shared::new(&mut partial) };
    for_each_part(batch, channels, |part| level.run(Backward { convolution, part, gradient, to }));
    let mut total = vec![0.0; (width + 1) * channels];
    for part in partial.chunks(total.len().max(1)) {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    let bias = total.split_off(width * channels);
    let weight = (0..channels * width).map(|i| total[i % width * channels + i / width]).collect();
    [x, weight, bias, initial]
}

/// Where gradients go; those of the parameters are `[batch, width + 1, channels]`, the filters' transposed and then
/// the bias'.
#[derive(Clone, Copy)]
struct Targets {
    x: Shared,
    initial: Shared,
    partial: Shared,
}

struct Backward<'a> {
    convolution: &'a Convolution<'a>,
    part: Part,
    gradient: &'a [f32],
    to: Targets,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { convolution, part: Part { batch, channels, .. }, gradient, to } = self;
        let (time, all, width) = (convolution.time, convolution.channels, convolution.width);
        let (length, zero) = (convolution.lengths[batch], simd.splat_f32s(0.0));
        let (mut filter, mut dfilter) = (vec![zero; width], vec![zero; width + 1]);
        // The gradients of the sums, with zeros after them.
        let mut dsums = vec![zero; length + width - 1];
        for (channel, count) in vectors::<S>(&channels) {
            for (k, weight) in filter.iter_mut().enumerate() {
                *weight = convolution.column(simd, k, channel, count);
            }
            let bias = load(simd, convolution.bias, channel, count);
            dfilter.fill(zero);
            for (t, dsum) in dsums[..length].iter_mut().enumerate() {
                let sum = convolution.sum(simd, [batch, t, channel, count], &filter, bias);
                // SiLU's derivative is sigmoid (1 + sum (1 - sigmoid)).
                let open = sigmoid(simd, sum);
                let slope = simd.mul_f32s(sum, simd.sub_f32s(simd.splat_f32s(1.0), open));
                let slope = simd.mul_add_f32s(open, slope, open);
                *dsum = simd.mul_f32s(load(simd, gradient, (batch * time + t) * all + channel, count), slope);
                for (k, dweight) in dfilter[..width].iter_mut().enumerate() {
                    let input = convolution.input(simd, batch, t + k, channel, count);
                    *dweight = simd.mul_add_f32s(*dsum, input, *dweight);
                }
                dfilter[width] = simd.add_f32s(dfilter[width], *dsum);
            }
            // Row `t` of the inputs, those before the first among them, was read by the sums `t - k` of filter value `k`.
            for t in 0..length + width - 1 {
                let mut dinput = zero;
                for (k, &weight) in filter.iter().enumerate() {
                    if let Some(&dsum) = t.checked_sub(k).and_then(|from| dsums.get(from)) {
                        dinput = simd.mul_add_f32s(weight, dsum, dinput);
                    }
                }
                // SAFETY: these channels are this task's.
                unsafe {
                    match t.checked_sub(width - 1) {
                        Some(t) => to.x.store(simd, (batch * time + t) * all + channel, count, dinput),
                        None => to.initial.store(simd, (batch * (width - 1) + t) * all + channel, count, dinput),
                    }
                }
            }
            for (k, &dweight) in dfilter.iter().enumerate() {
                // SAFETY: as above.
                unsafe { to.partial.store(simd, (batch * (width + 1) + k) * all + channel, count, dweight) };
            }
        }
    }
}
