//! The CPU kernel: a head's values of a position are read from memory once and then stay in the first-level cache.
#![expect(unsafe_code, reason = "tasks write different rows of the same results")]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::fresh::zeros;
use crate::lanes::{Shared, load, vectors};
use crate::simd::Level;
use crate::wkv7::cpu::{put, whole};

/// Positions of a task, over which its partial sums of the parameters' gradients run: fixed, so that the sums do not
/// depend on the number of threads.
const POSITIONS: usize = 64;

/// The operands; see [`wkv7_output`](super::wkv7_output).
pub(super) struct Heads<'a> {
    pub heads: usize,
    pub size: usize,
    pub epsilon: f32,
    pub o: &'a [f32],
    pub r: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub gate: &'a [f32],
    pub rho: &'a [f32],
    pub gain: &'a [f32],
    pub bias: &'a [f32],
}

/// A head's deviation and bonus; its normal values lie in the scratch row.
struct Row {
    scale: f32,
    bonus: f32,
}

impl Heads<'_> {
    fn hidden(&self) -> usize {
        self.heads * self.size
    }

    fn parts(&self) -> usize {
        self.o.len().div_ceil(POSITIONS * self.hidden())
    }

    /// The rows of a part: a head's values at a position each.
    fn rows(&self, part: usize) -> std::ops::Range<usize> {
        let all = self.o.len() / self.size;
        part * POSITIONS * self.heads..all.min((part + 1) * POSITIONS * self.heads)
    }

    /// The normal values of a row into `normal`, zeros past the last.
    #[inline(always)]
    fn row<S: Simd>(&self, simd: S, row: usize, normal: &mut [f32]) -> Row {
        let (size, at) = (self.size, row * self.size);
        let channel = row % self.heads * size;
        let (mut sum, mut bonus) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        for (from, lanes) in vectors::<S>(&(0..size)) {
            sum = simd.add_f32s(sum, load(simd, self.o, at + from, lanes));
            let rk = simd.mul_f32s(load(simd, self.r, at + from, lanes), load(simd, self.k, at + from, lanes));
            bonus = simd.mul_add_f32s(rk, load(simd, self.rho, channel + from, lanes), bonus);
        }
        let mean = simd.splat_f32s(simd.reduce_sum_f32s(sum) / size as f32);
        for (from, lanes) in vectors::<S>(&(0..size)) {
            put::<S>(normal, from, simd.sub_f32s(load(simd, self.o, at + from, lanes), mean));
        }
        normal[size..].fill(0.0);
        let mut squares = simd.splat_f32s(0.0);
        for from in (0..size).step_by(S::F32_LANES) {
            let centred = whole::<S>(normal, from);
            squares = simd.mul_add_f32s(centred, centred, squares);
        }
        let scale = 1.0 / (simd.reduce_sum_f32s(squares) / size as f32 + self.epsilon).sqrt();
        for from in (0..size).step_by(S::F32_LANES) {
            put::<S>(normal, from, simd.mul_f32s(whole::<S>(normal, from), simd.splat_f32s(scale)));
        }
        Row { scale, bonus: simd.reduce_sum_f32s(bonus) }
    }

    /// Before the gate.
    #[inline(always)]
    fn sum<S: Simd>(&self, simd: S, [at, channel, from, lanes]: [usize; 4], normal: S::f32s, bonus: f32) -> S::f32s {
        let (gain, bias) = (load(simd, self.gain, channel + from, lanes), load(simd, self.bias, channel + from, lanes));
        let v = load(simd, self.v, at + from, lanes);
        simd.mul_add_f32s(simd.splat_f32s(bonus), v, simd.mul_add_f32s(gain, normal, bias))
    }
}

/// The result, as long as `o`.
pub(super) fn forward(level: Level, heads: &Heads<'_>) -> Vec<f32> {
    let mut y = zeros(heads.o.len());
    let to = Shared::new(&mut y);
    (0..heads.parts()).into_par_iter().for_each(|part| level.run(Forward { heads, part, to }));
    y
}

struct Forward<'a> {
    heads: &'a Heads<'a>,
    part: usize,
    to: Shared,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { heads, part, to } = self;
        let mut normal = vec![0.0; heads.size.next_multiple_of(S::F32_LANES)];
        for row in heads.rows(part) {
            let Row { bonus, .. } = heads.row(simd, row, &mut normal);
            let (at, channel) = (row * heads.size, row % heads.heads * heads.size);
            for (from, lanes) in vectors::<S>(&(0..heads.size)) {
                let sum = heads.sum(simd, [at, channel, from, lanes], whole::<S>(&normal, from), bonus);
                let y = simd.mul_f32s(sum, load(simd, heads.gate, at + from, lanes));
                // SAFETY: the rows of this part are this task's.
                unsafe { to.store(simd, at + from, lanes, y) };
            }
        }
    }
}

/// The gradients of all operands, in their order.
pub(super) fn backward(level: Level, heads: &Heads<'_>, dy: &[f32]) -> [Vec<f32>; 8] {
    let hidden = heads.hidden();
    let mut inputs: [Vec<f32>; 5] = std::array::from_fn(|_| zeros(heads.o.len()));
    let mut partial = vec![0.0; heads.parts() * 3 * hidden];
    let to = inputs.each_mut().map(|values| Shared::new(values));
    partial.par_chunks_mut(3 * hidden).enumerate().for_each(|(part, partial)| {
        level.run(Backward { heads, part, dy, to, partial });
    });
    let mut parameters = vec![0.0; 3 * hidden];
    for part in partial.chunks(3 * hidden) {
        parameters.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    let bias = parameters.split_off(2 * hidden);
    let gain = parameters.split_off(hidden);
    let [o, r, k, v, gate] = inputs;
    [o, r, k, v, gate, parameters, gain, bias]
}

struct Backward<'a> {
    heads: &'a Heads<'a>,
    part: usize,
    dy: &'a [f32],
    to: [Shared; 5],
    /// Of rho, gain and bias.
    partial: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { heads, part, dy, to, partial } = self;
        let (size, zero) = (heads.size, simd.splat_f32s(0.0));
        let (drho, rest) = partial.split_at_mut(heads.hidden());
        let (dgain, dbias) = rest.split_at_mut(heads.hidden());
        let width = size.next_multiple_of(S::F32_LANES);
        let (mut normal, mut dnormal) = (vec![0.0; width], vec![0.0; width]);
        for row in heads.rows(part) {
            let Row { scale, bonus } = heads.row(simd, row, &mut normal);
            let (at, channel) = (row * size, row % heads.heads * size);
            let (mut dbonus, mut level, mut along) = (zero, zero, zero);
            for (from, lanes) in vectors::<S>(&(0..size)) {
                let n = whole::<S>(&normal, from);
                let dsum = simd.mul_f32s(load(simd, dy, at + from, lanes), load(simd, heads.gate, at + from, lanes));
                let dn = simd.mul_f32s(dsum, load(simd, heads.gain, channel + from, lanes));
                put::<S>(&mut dnormal, from, dn);
                level = simd.add_f32s(level, dn);
                along = simd.mul_add_f32s(dn, n, along);
                dbonus = simd.mul_add_f32s(dsum, load(simd, heads.v, at + from, lanes), dbonus);
                add(simd, dgain, channel + from, lanes, simd.mul_f32s(dsum, n));
                add(simd, dbias, channel + from, lanes, dsum);
            }
            let level = simd.splat_f32s(simd.reduce_sum_f32s(level) / size as f32);
            let along = simd.splat_f32s(simd.reduce_sum_f32s(along) / size as f32);
            let dbonus = simd.splat_f32s(simd.reduce_sum_f32s(dbonus));
            for (from, lanes) in vectors::<S>(&(0..size)) {
                let n = whole::<S>(&normal, from);
                let dy = load(simd, dy, at + from, lanes);
                let dsum = simd.mul_f32s(dy, load(simd, heads.gate, at + from, lanes));
                let centred = simd.negate_mul_add_f32s(n, along, simd.sub_f32s(whole::<S>(&dnormal, from), level));
                let (r, k) = (load(simd, heads.r, at + from, lanes), load(simd, heads.k, at + from, lanes));
                let by_rho = simd.mul_f32s(dbonus, load(simd, heads.rho, channel + from, lanes));
                let gradients = [
                    simd.mul_f32s(centred, simd.splat_f32s(scale)),
                    simd.mul_f32s(by_rho, k),
                    simd.mul_f32s(by_rho, r),
                    simd.mul_f32s(dsum, simd.splat_f32s(bonus)),
                    simd.mul_f32s(dy, heads.sum(simd, [at, channel, from, lanes], n, bonus)),
                ];
                for (to, &gradient) in to.iter().zip(&gradients) {
                    // SAFETY: the rows of this part are this task's.
                    unsafe { to.store(simd, at + from, lanes, gradient) };
                }
                add(simd, drho, channel + from, lanes, simd.mul_f32s(dbonus, simd.mul_f32s(r, k)));
            }
        }
    }
}

/// Adds the first `lanes` of a vector.
#[inline(always)]
fn add<S: Simd>(simd: S, to: &mut [f32], at: usize, lanes: usize, values: S::f32s) {
    let sum = simd.add_f32s(load(simd, to, at, lanes), values);
    match S::as_mut_simd_f32s(&mut to[at..at + lanes]).0 {
        [whole, ..] => *whole = sum,
        [] => simd.partial_store_f32s(&mut to[at..at + lanes], sum),
    }
}
