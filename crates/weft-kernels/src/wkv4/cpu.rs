//! The CPU kernel's way forward: channels are the lanes of vectors, positions pass one after the other.
#![expect(unsafe_code, reason = "tasks write different channels of the same rows")]

use pulp::{Simd, WithSimd};

use crate::fresh::zeros;
use crate::lanes::{Part, Shared, for_each_part, load, vectors};
use crate::simd::{Level, exp, exp2_of_negative};

/// Positions between two states that are kept: what the backward pass makes again of a vector of channels stays in the
/// first-level cache.
pub(super) const CHUNK: usize = 32;

/// The operands; see [`wkv4`](super::wkv4).
pub(super) struct Wkv<'a> {
    pub time: usize,
    pub hidden: usize,
    pub lengths: &'a [usize],
    pub receptance: &'a [f32],
    pub key: &'a [f32],
    pub value: &'a [f32],
    pub decay: &'a [f32],
    pub bonus: &'a [f32],
    pub initial: &'a [f32],
}

impl Wkv<'_> {
    /// States that are kept, for each sentence: one before every [`CHUNK`] positions, and the last one.
    pub(super) fn states(&self) -> usize {
        self.time.div_ceil(CHUNK) + 1
    }
}

/// The sums before a position, of a vector of channels: both are multiplied by the exponential of `exponent`.
#[derive(Clone, Copy)]
pub(super) struct State<S: Simd> {
    pub numerator: S::f32s,
    pub denominator: S::f32s,
    pub exponent: S::f32s,
}

impl<S: Simd> State<S> {
    /// State `index` of `[.., 3, hidden]`.
    #[inline(always)]
    pub(super) fn load(simd: S, states: &[f32], hidden: usize, index: usize, from: usize, width: usize) -> Self {
        let row = |i: usize| (3 * index + i) * hidden + from;
        Self {
            numerator: load(simd, states, row(0), width),
            denominator: load(simd, states, row(1), width),
            exponent: load(simd, states, row(2), width),
        }
    }

    /// The other way.
    ///
    /// # Safety
    /// As for [`Shared::store`].
    #[inline(always)]
    pub(super) unsafe fn store(self, simd: S, to: Shared, hidden: usize, index: usize, from: usize, width: usize) {
        for (i, lanes) in [self.numerator, self.denominator, self.exponent].into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { to.store(simd, (3 * index + i) * hidden + from, width, lanes) };
        }
    }
}

/// Two terms of a sum, as multiples of the exponential of the larger exponent: the factor of the larger one is 1.
#[derive(Clone, Copy)]
pub(super) struct Shares<S: Simd> {
    pub old: S::f32s,
    pub new: S::f32s,
    /// Whether the old exponent is the larger one.
    pub is_older: S::m32s,
}

impl<S: Simd> Shares<S> {
    /// Of two exponents; and the larger one, NaN if the new one is.
    #[inline(always)]
    fn of(simd: S, old: S::f32s, new: S::f32s) -> (Self, S::f32s) {
        let (one, zero) = (simd.splat_f32s(1.0), simd.splat_f32s(0.0));
        let apart = simd.sub_f32s(old, new);
        let binary = simd.mul_f32s(simd.abs_f32s(apart), simd.splat_f32s(-std::f32::consts::LOG2_E));
        let smaller = exp2_of_negative(simd, binary);
        let is_older = simd.greater_than_f32s(apart, zero);
        let shares = Self {
            old: simd.select_f32s(is_older, one, smaller),
            new: simd.select_f32s(is_older, smaller, one),
            is_older,
        };
        (shares, simd.select_f32s(is_older, old, new))
    }
}

/// What one vector of channels does at one position.
#[derive(Clone, Copy)]
pub(super) struct Position<S: Simd> {
    pub before: State<S>,
    /// What is read: the sums before, and the new value with its bonus.
    pub read: Shares<S>,
    /// What is remembered: the sums before, which decay, and the new value.
    pub kept: Shares<S>,
    /// Of the average that is read.
    pub numerator: S::f32s,
    pub denominator: S::f32s,
}

impl<S: Simd> Position<S> {
    /// The position, and the state after it.
    #[inline(always)]
    pub(super) fn pass(
        simd: S,
        before: State<S>,
        [decay, bonus]: [S::f32s; 2],
        key: S::f32s,
        value: S::f32s,
    ) -> (Self, State<S>) {
        let (read, _) = Shares::of(simd, before.exponent, simd.add_f32s(bonus, key));
        let (kept, exponent) = Shares::of(simd, simd.sub_f32s(before.exponent, decay), key);
        let position = Self {
            before,
            read,
            kept,
            numerator: simd.mul_add_f32s(read.old, before.numerator, simd.mul_f32s(read.new, value)),
            denominator: simd.mul_add_f32s(read.old, before.denominator, read.new),
        };
        let after = State {
            numerator: simd.mul_add_f32s(kept.old, before.numerator, simd.mul_f32s(kept.new, value)),
            denominator: simd.mul_add_f32s(kept.old, before.denominator, kept.new),
            exponent,
        };
        (position, after)
    }
}

/// The outputs `[batch * time, hidden]` with the last states `[batch * 3, hidden]` under them, and, if `keep`, the
/// states for the way back, `[batch, states, 3, hidden]`.
pub(super) fn forward(level: Level, wkv: &Wkv<'_>, keep: bool) -> (Vec<f32>, Vec<f32>) {
    let (batch, hidden) = (wkv.lengths.len(), wkv.hidden);
    let mut packed = zeros(batch * (wkv.time + 3) * hidden);
    let mut kept = zeros(if keep { batch * wkv.states() * 3 * hidden } else { 0 });
    let (outputs, states) = packed.split_at_mut(batch * wkv.time * hidden);
    let (outputs, states, to_kept) = (Shared::new(outputs), Shared::new(states), Shared::new(&mut kept));
    for_each_part(batch, hidden, |part| {
        level.run(Forward { wkv, part, outputs, states, kept: keep.then_some(to_kept) });
    });
    (packed, kept)
}

struct Forward<'a> {
    wkv: &'a Wkv<'a>,
    part: Part,
    outputs: Shared,
    states: Shared,
    kept: Option<Shared>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { wkv, part: Part { batch, channels, .. }, outputs, states, kept } = self;
        let hidden = wkv.hidden;
        let mut blocks = Vec::with_capacity(channels.len().div_ceil(S::F32_LANES));
        for (from, width) in vectors::<S>(&channels) {
            let parameters = [load(simd, wkv.decay, from, width), load(simd, wkv.bonus, from, width)];
            blocks.push((State::load(simd, wkv.initial, hidden, batch, from, width), parameters));
        }
        for t in 0..wkv.lengths[batch] {
            if let Some(kept) = kept.filter(|_| t % CHUNK == 0) {
                for ((from, width), (state, _)) in vectors::<S>(&channels).zip(&blocks) {
                    // SAFETY: these channels are this task's.
                    unsafe { state.store(simd, kept, hidden, batch * wkv.states() + t / CHUNK, from, width) };
                }
            }
            for ((from, width), (state, parameters)) in vectors::<S>(&channels).zip(&mut blocks) {
                let at = (batch * wkv.time + t) * hidden + from;
                let (key, value) = (load(simd, wkv.key, at, width), load(simd, wkv.value, at, width));
                let (position, after) = Position::pass(simd, *state, *parameters, key, value);
                *state = after;
                // sigmoid(r) a / b = a / (b (1 + exp(-r))): one division.
                let closed = exp(simd, simd.neg_f32s(load(simd, wkv.receptance, at, width)));
                let below = simd.mul_add_f32s(position.denominator, closed, position.denominator);
                // SAFETY: these channels are this task's.
                unsafe { outputs.store(simd, at, width, simd.div_f32s(position.numerator, below)) };
            }
        }
        for ((from, width), (state, _)) in vectors::<S>(&channels).zip(&blocks) {
            // SAFETY: these channels are this task's.
            unsafe {
                state.store(simd, states, hidden, batch, from, width);
                if let Some(kept) = kept {
                    state.store(simd, kept, hidden, (batch + 1) * wkv.states() - 1, from, width);
                }
            }
        }
    }
}
