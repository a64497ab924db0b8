//! The CPU kernel: whole rows pass, one after the other as they lie in memory.
#![expect(unsafe_code, reason = "tasks write different rows of the same results")]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::fresh::zeros;
use crate::lanes::{Shared, load, store, vectors};
use crate::simd::{Level, sigmoid};

/// Positions of a task, over which its partial sums of the parameters' gradients run: fixed, so that the sums do not
/// depend on the number of threads. The way back makes a few sums again that are the next task's.
const POSITIONS: usize = 64;

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

/// Some positions of a sentence.
struct Part {
    index: usize,
    batch: usize,
    positions: Range<usize>,
}

impl Convolution<'_> {
    /// Parts of a sentence.
    fn parts(&self) -> usize {
        self.time.div_ceil(POSITIONS)
    }

    /// Calls `work` for each part of each sentence, on all threads.
    fn for_each_part(&self, work: impl Fn(Part) + Sync) {
        (0..self.lengths.len() * self.parts()).into_par_iter().for_each(|index| {
            let (batch, first) = (index / self.parts(), index % self.parts() * POSITIONS);
            work(Part { index, batch, positions: first..self.lengths[batch].min(first + POSITIONS) });
        });
    }

    /// The filters as rows, `[width, channels]`.
    fn filter(&self) -> Vec<f32> {
        let (width, channels) = (self.width, self.channels);
        (0..width * channels).map(|i| self.weight[i % channels * width + i / channels]).collect()
    }

    /// Where a position's values begin.
    fn at(&self, batch: usize, t: usize) -> usize {
        (batch * self.time + t) * self.channels
    }

    /// What stands `width - 1` before position `t`, or later: row `t` of the inputs with those before them.
    #[inline(always)]
    fn input<S: Simd>(&self, simd: S, batch: usize, t: usize, [channel, count]: [usize; 2]) -> S::f32s {
        match t.checked_sub(self.width - 1) {
            Some(t) => load(simd, self.x, self.at(batch, t) + channel, count),
            None => load(simd, self.initial, (batch * (self.width - 1) + t) * self.channels + channel, count),
        }
    }

    /// The sum before SiLU.
    #[inline(always)]
    fn sum<S: Simd>(&self, simd: S, filter: &[f32], [batch, t]: [usize; 2], channels: [usize; 2]) -> S::f32s {
        let [channel, count] = channels;
        let mut sum = load(simd, self.bias, channel, count);
        for k in 0..self.width {
            let weight = load(simd, filter, k * self.channels + channel, count);
            sum = simd.mul_add_f32s(weight, self.input(simd, batch, t + k, channels), sum);
        }
        sum
    }
}

/// The result, `[batch, time, channels]`.
pub(super) fn forward(level: Level, convolution: &Convolution<'_>) -> Vec<f32> {
    let (mut y, filter) = (zeros(convolution.x.len()), convolution.filter());
    let to = Shared::new(&mut y);
    convolution.for_each_part(|part| level.run(Forward { convolution, filter: &filter, part, to }));
    y
}

struct Forward<'a> {
    convolution: &'a Convolution<'a>,
    filter: &'a [f32],
    part: Part,
    to: Shared,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { convolution, filter, part: Part { batch, positions, .. }, to } = self;
        for t in positions {
            for (channel, count) in vectors::<S>(&(0..convolution.channels)) {
                let sum = convolution.sum(simd, filter, [batch, t], [channel, count]);
                let y = simd.mul_f32s(sum, sigmoid(simd, sum));
                // SAFETY: these positions are this task's.
                unsafe { to.store(simd, convolution.at(batch, t) + channel, count, y) };
            }
        }
    }
}

/// The gradients of `x`, `weight`, `bias` and `initial`, from that of the result.
pub(super) fn backward(level: Level, convolution: &Convolution<'_>, gradient: &[f32]) -> [Vec<f32>; 4] {
    let Convolution { channels, width, .. } = *convolution;
    let (mut x, mut initial) = (zeros(convolution.x.len()), vec![0.0; convolution.initial.len()]);
    // Of the filters as rows and then the bias, for each part: added in order, so that they do not depend on the threads.
    let mut partial = vec![0.0; convolution.lengths.len() * convolution.parts() * (width + 1) * channels];
    let (filter, to) = (&convolution.filter(), [&mut x, &mut initial, &mut partial].map(|values| Shared::new(values)));
    convolution.for_each_part(|part| level.run(Backward { convolution, filter, part, gradient, to }));
    let mut total = vec![0.0; (width + 1) * channels];
    for part in partial.chunks(total.len().max(1)) {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    let bias = total.split_off(width * channels);
    let weight = (0..channels * width).map(|i| total[i % width * channels + i / width]).collect();
    [x, weight, bias, initial]
}

struct Backward<'a> {
    convolution: &'a Convolution<'a>,
    filter: &'a [f32],
    part: Part,
    gradient: &'a [f32],
    /// The gradients of `x` and `initial`, and those of the parameters for each part, `[batch, parts, width + 1, channels]`.
    to: [Shared; 3],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { convolution, filter, part: Part { index, batch, positions }, gradient, to } = self;
        let (channels, width) = (convolution.channels, convolution.width);
        let [to_x, to_initial, to_parameters] = to;
        // SAFETY: the sums of this part are this task's.
        let sums = unsafe { to_parameters.part(index * (width + 1) * channels, (width + 1) * channels) };
        // The gradients of the sums that read these positions, a row for each position from the first on.
        let (first, end) = (positions.start, convolution.lengths[batch].min(positions.end + width - 1));
        let mut dsums = vec![0.0; end.saturating_sub(first) * channels];
        for t in first..end {
            for (channel, count) in vectors::<S>(&(0..channels)) {
                let sum = convolution.sum(simd, filter, [batch, t], [channel, count]);
                // SiLU's derivative is sigmoid (1 + sum (1 - sigmoid)).
                let open = sigmoid(simd, sum);
                let slope = simd.mul_f32s(sum, simd.sub_f32s(simd.splat_f32s(1.0), open));
                let slope = simd.mul_add_f32s(open, slope, open);
                let dy = load(simd, gradient, convolution.at(batch, t) + channel, count);
                let dsum = simd.mul_f32s(dy, slope);
                store(simd, &mut dsums, (t - first) * channels + channel, count, dsum);
                if t >= positions.end {
                    continue;
                }
                for k in 0..width {
                    let (at, input) = (k * channels + channel, convolution.input(simd, batch, t + k, [channel, count]));
                    let sum = load(simd, sums, at, count);
                    store(simd, sums, at, count, simd.mul_add_f32s(dsum, input, sum));
                }
                let (at, sum) = (width * channels + channel, load(simd, sums, width * channels + channel, count));
                store(simd, sums, at, count, simd.add_f32s(sum, dsum));
            }
        }
        let sums = Sums { convolution, filter, first, dsums: &dsums };
        let before = if first == 0 { width - 1 } else { 0 };
        for t in 0..before {
            for (channel, count) in vectors::<S>(&(0..channels)) {
                let at = (batch * (width - 1) + t) * channels + channel;
                // SAFETY: what stands before the first position is the first task's.
                unsafe { to_initial.store(simd, at, count, sums.dinput(simd, t, channel, count)) };
            }
        }
        for t in positions {
            for (channel, count) in vectors::<S>(&(0..channels)) {
                let dinput = sums.dinput(simd, t + width - 1, channel, count);
                // SAFETY: these positions are this task's.
                unsafe { to_x.store(simd, convolution.at(batch, t) + channel, count, dinput) };
            }
        }
    }
}

/// The gradients of some sums, a row for each position from `first` on.
struct Sums<'a> {
    convolution: &'a Convolution<'a>,
    filter: &'a [f32],
    first: usize,
    dsums: &'a [f32],
}

impl Sums<'_> {
    /// The gradient of row `t` of the inputs, those before the first position among them: filter value `k` read it for
    /// sum `t - k`.
    #[inline(always)]
    fn dinput<S: Simd>(&self, simd: S, t: usize, channel: usize, count: usize) -> S::f32s {
        let (channels, end) = (self.convolution.channels, self.first + self.dsums.len() / self.convolution.channels);
        let mut dinput = simd.splat_f32s(0.0);
        for k in 0..self.convolution.width {
            if let Some(sum) = t.checked_sub(k).filter(|sum| (self.first..end).contains(sum)) {
                let weight = load(simd, self.filter, k * channels + channel, count);
                let dsum = load(simd, self.dsums, (sum - self.first) * channels + channel, count);
                dinput = simd.mul_add_f32s(weight, dsum, dinput);
            }
        }
        dinput
    }
}
