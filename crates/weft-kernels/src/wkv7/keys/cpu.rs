//! The CPU kernels: a head's values of a position are read from memory once and then stay in the first-level cache.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::SHORTEST;
use crate::fresh::zeros;
use crate::lanes::{load, store, vectors};
use crate::simd::Level;

/// Positions of a task, over which its partial sums of the parameters' gradients run: fixed, so that the sums do not
/// depend on the number of threads.
const POSITIONS: usize = 64;

/// Values of a task's positions.
fn part(hidden: usize) -> usize {
    (POSITIONS * hidden).max(1)
}

/// The sum of the tasks' partial sums, in their order.
fn total(partial: &[f32], hidden: usize) -> Vec<f32> {
    let mut total = vec![0.0; hidden];
    for part in partial.chunks(hidden.max(1)) {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    total
}

/// `-normal(k * xi)`: heads of `size` values.
pub(super) fn removal(level: Level, k: &[f32], xi: &[f32], size: usize) -> Vec<f32> {
    let mut key = zeros(k.len());
    let part = part(xi.len());
    let parts = key.par_chunks_mut(part).zip(k.par_chunks(part));
    parts.for_each(|(key, k)| level.run(Removal { heads: Heads { k, xi, size }, key }));
    key
}

/// The gradients of `k` and `xi`, from that of the key.
pub(super) fn removal_backward(level: Level, k: &[f32], xi: &[f32], da: &[f32], size: usize) -> [Vec<f32>; 2] {
    let (hidden, part) = (xi.len(), part(xi.len()));
    let mut dk = zeros(k.len());
    let mut partial = vec![0.0; k.len().div_ceil(part) * hidden];
    dk.par_chunks_mut(part)
        .zip(k.par_chunks(part).zip(da.par_chunks(part)))
        .zip(partial.par_chunks_mut(hidden.max(1)))
        .for_each(|((dk, (k, da)), dxi)| level.run(RemovalBackward { heads: Heads { k, xi, size }, da, dk, dxi }));
    [dk, total(&partial, hidden)]
}

#[derive(Clone, Copy)]
struct Heads<'a> {
    k: &'a [f32],
    xi: &'a [f32],
    size: usize,
}

impl Heads<'_> {
    /// Where each head of each position begins, and its channels.
    fn starts(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.k.len()).step_by(self.size).map(move |at| (at, at % self.xi.len()))
    }

    /// What makes a head's length 1, and whether the length is more than the least.
    #[inline(always)]
    fn scale<S: Simd>(self, simd: S, at: usize, channel: usize) -> (f32, bool) {
        let mut squares = simd.splat_f32s(0.0);
        for (from, lanes) in vectors::<S>(&(0..self.size)) {
            let product = self.product(simd, at + from, channel + from, lanes);
            squares = simd.mul_add_f32s(product, product, squares);
        }
        let length = simd.reduce_sum_f32s(squares).sqrt();
        let short = length <= SHORTEST as f32;
        (1.0 / if short { SHORTEST as f32 } else { length }, !short)
    }

    #[inline(always)]
    fn product<S: Simd>(self, simd: S, at: usize, channel: usize, lanes: usize) -> S::f32s {
        simd.mul_f32s(load(simd, self.k, at, lanes), load(simd, self.xi, channel, lanes))
    }
}

struct Removal<'a> {
    heads: Heads<'a>,
    key: &'a mut [f32],
}

impl WithSimd for Removal<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { heads, key } = self;
        for (at, channel) in heads.starts() {
            let scale = simd.splat_f32s(-heads.scale(simd, at, channel).0);
            for (from, lanes) in vectors::<S>(&(0..heads.size)) {
                let product = heads.product(simd, at + from, channel + from, lanes);
                store(simd, key, at + from, lanes, simd.mul_f32s(product, scale));
            }
        }
    }
}

struct RemovalBackward<'a> {
    heads: Heads<'a>,
    da: &'a [f32],
    dk: &'a mut [f32],
    dxi: &'a mut [f32],
}

impl WithSimd for RemovalBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { heads, da, dk, dxi } = self;
        for (at, channel) in heads.starts() {
            let (scale, normal) = heads.scale(simd, at, channel);
            let scales = simd.splat_f32s(scale);
            let mut along = simd.splat_f32s(0.0);
            for (from, lanes) in vectors::<S>(&(0..heads.size)) {
                let product = heads.product(simd, at + from, channel + from, lanes);
                along = simd.mul_add_f32s(load(simd, da, at + from, lanes), product, along);
            }
            // With n = normal(k xi), the product's gradient is -(da - n (n . da)) / length.
            let along = if normal { simd.reduce_sum_f32s(along) * scale * scale } else { 0.0 };
            for (from, lanes) in vectors::<S>(&(0..heads.size)) {
                let (at, channel) = (at + from, channel + from);
                let product = heads.product(simd, at, channel, lanes);
                let da = load(simd, da, at, lanes);
                let dproduct = simd.mul_add_f32s(product, simd.splat_f32s(along), simd.neg_f32s(da));
                let dproduct = simd.mul_f32s(dproduct, scales);
                store(simd, dk, at, lanes, simd.mul_f32s(dproduct, load(simd, heads.xi, channel, lanes)));
                let sum = load(simd, dxi, channel, lanes);
                let sum = simd.mul_add_f32s(dproduct, load(simd, heads.k, at, lanes), sum);
                store(simd, dxi, channel, lanes, sum);
            }
        }
    }
}

/// `k * (1 + (rate - 1) * alpha)`
pub(super) fn replacement(level: Level, k: &[f32], rate: &[f32], alpha: &[f32]) -> Vec<f32> {
    let mut key = zeros(k.len());
    let part = part(alpha.len());
    let parts = key.par_chunks_mut(part).zip(k.par_chunks(part).zip(rate.par_chunks(part)));
    parts.for_each(|(key, (k, rate))| level.run(Replacement { k, rate, alpha, key }));
    key
}

/// The gradients of `k`, `rate` and `alpha`, from that of the key.
pub(super) fn replacement_backward(
    level: Level,
    k: &[f32],
    rate: &[f32],
    alpha: &[f32],
    dkey: &[f32],
) -> [Vec<f32>; 3] {
    let (hidden, part) = (alpha.len(), part(alpha.len()));
    let (mut dk, mut drate) = (zeros(k.len()), zeros(k.len()));
    let mut partial = vec![0.0; k.len().div_ceil(part) * hidden];
    let inputs = k.par_chunks(part).zip(rate.par_chunks(part)).zip(dkey.par_chunks(part));
    let outputs = dk.par_chunks_mut(part).zip(drate.par_chunks_mut(part)).zip(partial.par_chunks_mut(hidden.max(1)));
    inputs.zip(outputs).for_each(|(((k, rate), dkey), ((dk, drate), dalpha))| {
        level.run(ReplacementBackward { k, rate, alpha, dkey, dk, drate, dalpha });
    });
    [dk, drate, total(&partial, hidden)]
}

struct Replacement<'a> {
    k: &'a [f32],
    rate: &'a [f32],
    alpha: &'a [f32],
    key: &'a mut [f32],
}

impl WithSimd for Replacement<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { k, rate, alpha, key } = self;
        let one = simd.splat_f32s(1.0);
        for position in (0..k.len()).step_by(alpha.len().max(1)) {
            for (channel, lanes) in vectors::<S>(&(0..alpha.len())) {
                let at = position + channel;
                let less = simd.sub_f32s(load(simd, rate, at, lanes), one);
                let share = simd.mul_add_f32s(less, load(simd, alpha, channel, lanes), one);
                store(simd, key, at, lanes, simd.mul_f32s(load(simd, k, at, lanes), share));
            }
        }
    }
}

struct ReplacementBackward<'a> {
    k: &'a [f32],
    rate: &'a [f32],
    alpha: &'a [f32],
    dkey: &'a [f32],
    dk: &'a mut [f32],
    drate: &'a mut [f32],
    dalpha: &'a mut [f32],
}

impl WithSimd for ReplacementBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { k, rate, alpha, dkey, dk, drate, dalpha } = self;
        let one = simd.splat_f32s(1.0);
        for position in (0..k.len()).step_by(alpha.len().max(1)) {
            for (channel, lanes) in vectors::<S>(&(0..alpha.len())) {
                let at = position + channel;
                let less = simd.sub_f32s(load(simd, rate, at, lanes), one);
                let (alpha, dkey) = (load(simd, alpha, channel, lanes), load(simd, dkey, at, lanes));
                let dshare = simd.mul_f32s(dkey, load(simd, k, at, lanes));
                store(simd, dk, at, lanes, simd.mul_f32s(dkey, simd.mul_add_f32s(less, alpha, one)));
                store(simd, drate, at, lanes, simd.mul_f32s(dshare, alpha));
                let sum = load(simd, dalpha, channel, lanes);
                store(simd, dalpha, channel, lanes, simd.mul_add_f32s(dshare, less, sum));
            }
        }
    }
}
