//! The CPU kernel's way forward: channels are the lanes of vectors, positions pass one after the other.
#![expect(unsafe_code, reason = "tasks write different channels of the same rows")]

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::fresh::zeros;
use crate::lanes::{Part, Shared, for_each_part, load, vectors};
use crate::simd::{Level, exp2_of_negative, sigmoid, softplus};

/// Positions between two states that are kept: the backward pass makes those between them again, and 32 positions
/// of 16 states of a vector of channels stay in the second-level cache with their gradients.
pub(super) const CHUNK: usize = 32;

/// A scan's operands; see [`selective_scan`](super::selective_scan).
pub(super) struct Scan<'a> {
    pub time: usize,
    pub inner: usize,
    pub states: usize,
    pub lengths: &'a [usize],
    pub x: &'a [f32],
    pub delta: &'a [f32],
    pub bc: &'a [f32],
    pub gate: &'a [f32],
    pub a_log: &'a [f32],
    pub skip: &'a [f32],
    pub bias: &'a [f32],
    pub initial: &'a [f32],
}

impl Scan<'_> {
    /// States that are kept, for each sentence.
    pub(super) fn chunks(&self) -> usize {
        self.time.div_ceil(CHUNK)
    }

    /// The rates `A` of the channels from `channel` on, in binary logarithms, and zeros past the last: one vector for
    /// each state.
    #[inline(always)]
    pub(super) fn rates<S: Simd>(&self, simd: S, channels: Range<usize>, rates: &mut [S::f32s]) {
        for (n, rate) in rates.iter_mut().enumerate() {
            let mut values = [0.0; 16];
            for (value, channel) in values.iter_mut().zip(channels.clone()) {
                *value = -self.a_log[channel * self.states + n].exp() * std::f32::consts::LOG2_E;
            }
            *rate = simd.partial_load_f32s(&values[..S::F32_LANES]);
        }
    }
}

/// The outputs `[batch * time, inner]` with the last states `[batch * states, inner]` under them, and, if `keep`, the
/// states before every [`CHUNK`] positions, `[batch, chunks, states, inner]`.
pub(super) fn forward(level: Level, scan: &Scan<'_>, keep: bool) -> (Vec<f32>, Vec<f32>) {
    let (batch, inner) = (scan.lengths.len(), scan.inner);
    let mut packed = zeros(batch * (scan.time + scan.states) * inner);
    let mut kept = zeros(if keep { batch * scan.chunks() * scan.states * inner } else { 0 });
    let (to, to_kept) = (Shared::new(&mut packed), Shared::new(&mut kept));
    for_each_part(batch, inner, |part| level.run(Forward { scan, part, packed: to, kept: keep.then_some(to_kept) }));
    (packed, kept)
}

struct Forward<'a> {
    scan: &'a Scan<'a>,
    part: Part,
    packed: Shared,
    kept: Option<Shared>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scan, part, packed, kept } = self;
        let (time, inner, states) = (scan.time, scan.inner, scan.states);
        let Part { batch, channels, .. } = part;
        let length = scan.lengths[batch];
        let blocks = channels.len().div_ceil(S::F32_LANES);
        let zero = simd.splat_f32s(0.0);
        let (mut rates, mut h) = (vec![zero; blocks * states], vec![zero; blocks * states]);
        for (block, (from, width)) in vectors::<S>(&channels).enumerate() {
            scan.rates(simd, from..from + width, &mut rates[block * states..][..states]);
            for (n, h) in h[block * states..][..states].iter_mut().enumerate() {
                *h = load(simd, scan.initial, (batch * states + n) * inner + from, width);
            }
        }
        for chunk in 0..length.div_ceil(CHUNK) {
            for (block, (from, width)) in vectors::<S>(&channels).enumerate() {
                let (rates, h) = (&rates[block * states..][..states], &mut h[block * states..][..states]);
                if let Some(kept) = kept {
                    for (n, &h) in h.iter().enumerate() {
                        let row = (batch * scan.chunks() + chunk) * states + n;
                        // SAFETY: these channels are this task's.
                        unsafe { kept.store(simd, row * inner + from, width, h) };
                    }
                }
                let (skip, bias) = (load(simd, scan.skip, from, width), load(simd, scan.bias, from, width));
                for t in chunk * CHUNK..length.min((chunk + 1) * CHUNK) {
                    let row = batch * time + t;
                    let at = row * inner + from;
                    let x = load(simd, scan.x, at, width);
                    let step = softplus(simd, simd.add_f32s(load(simd, scan.delta, at, width), bias));
                    let (b, c) = scan.bc[row * 2 * states..][..2 * states].split_at(states);
                    let y = advance(simd, rates, h, step, simd.mul_f32s(step, x), b, c);
                    let y = simd.mul_add_f32s(skip, x, y);
                    let gate = load(simd, scan.gate, at, width);
                    let y = simd.mul_f32s(y, simd.mul_f32s(gate, sigmoid(simd, gate)));
                    // SAFETY: these channels are this task's.
                    unsafe { packed.store(simd, at, width, y) };
                }
            }
        }
        for (block, (from, width)) in vectors::<S>(&channels).enumerate() {
            for (n, &h) in h[block * states..][..states].iter().enumerate() {
                let row = scan.lengths.len() * time + batch * states + n;
                // SAFETY: these channels are this task's.
                unsafe { packed.store(simd, row * inner + from, width, h) };
            }
        }
    }
}

/// One position of one vector of channels: the states go on, and are read.
#[inline(always)]
fn advance<S: Simd>(
    simd: S,
    rates: &[S::f32s],
    h: &mut [S::f32s],
    step: S::f32s,
    u: S::f32s,
    b: &[f32],
    c: &[f32],
) -> S::f32s {
    let mut y = simd.splat_f32s(0.0);
    for (((h, &rate), &b), &c) in h.iter_mut().zip(rates).zip(b).zip(c) {
        let decay = exp2_of_negative(simd, simd.mul_f32s(step, rate));
        *h = simd.mul_add_f32s(decay, *h, simd.mul_f32s(u, simd.splat_f32s(b)));
        y = simd.mul_add_f32s(*h, simd.splat_f32s(c), y);
    }
    y
}
