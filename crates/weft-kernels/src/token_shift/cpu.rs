//! The CPU kernel: channels are the lanes of vectors, positions pass one after the other.
#![expect(unsafe_code, reason = "tasks write different channels of the same rows")]

use pulp::{Simd, WithSimd};

use crate::fresh::zeros;
use crate::lanes::{Part, Shared, for_each_part, load, vectors};
use crate::simd::Level;

/// The operands; see [`token_shift`](super::token_shift).
pub(super) struct Shift<'a> {
    pub time: usize,
    pub hidden: usize,
    pub lengths: &'a [usize],
    pub x: &'a [f32],
    pub mix: &'a [f32],
    pub earlier: &'a [f32],
}

/// The result, `[batch, time, hidden]`.
pub(super) fn forward(level: Level, shift: &Shift<'_>) -> Vec<f32> {
    let mut y = zeros(shift.x.len());
    let to = Shared::new(&mut y);
    for_each_part(shift.lengths.len(), shift.hidden, |part| level.run(Forward { shift, part, to }));
    y
}

struct Forward<'a> {
    shift: &'a Shift<'a>,
    part: Part,
    to: Shared,
}

/// What one vector of channels carries from position to position.
struct Block<S: Simd> {
    mix: S::f32s,
    /// `1 - mix`.
    rest: S::f32s,
    /// Going forward the earlier input, going back this one.
    x: S::f32s,
    /// The gradients of the next result and of `mix`.
    next: S::f32s,
    dmix: S::f32s,
}

impl<S: Simd> Block<S> {
    #[inline(always)]
    fn new(simd: S, shift: &Shift<'_>, from: usize, width: usize, x: S::f32s) -> Self {
        let (mix, zero) = (load(simd, shift.mix, from, width), simd.splat_f32s(0.0));
        Self { mix, rest: simd.sub_f32s(simd.splat_f32s(1.0), mix), x, next: zero, dmix: zero }
    }
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shift, part: Part { batch, channels, .. }, to } = self;
        let mut blocks = Vec::with_capacity(channels.len().div_ceil(S::F32_LANES));
        for (from, width) in vectors::<S>(&channels) {
            let earlier = load(simd, shift.earlier, batch * shift.hidden + from, width);
            blocks.push(Block::new(simd, shift, from, width, earlier));
        }
        for t in 0..shift.lengths[batch] {
            for ((from, width), block) in vectors::<S>(&channels).zip(&mut blocks) {
                let at = (batch * shift.time + t) * shift.hidden + from;
                let x = load(simd, shift.x, at, width);
                let y = simd.mul_add_f32s(block.mix, x, simd.mul_f32s(block.rest, block.x));
                block.x = x;
                // SAFETY: these channels are this task's.
                unsafe { to.store(simd, at, width, y) };
            }
        }
    }
}

/// The gradients of `x`, `mix` and `earlier`, from that of the result.
pub(super) fn backward(level: Level, shift: &Shift<'_>, gradient: &[f32]) -> [Vec<f32>; 3] {
    let (mut x, mut earlier) = (zeros(shift.x.len()), zeros(shift.earlier.len()));
    // Of `mix`, for each sentence: added in order, so that they do not depend on the threads.
    let mut partial = vec![0.0; shift.earlier.len()];
    let to = Targets { x: Shared::new(&mut x), earlier: Shared::new(&mut earlier), partial: Shared::new(&mut partial) };
    for_each_part(shift.lengths.len(), shift.hidden, |part| level.run(Backward { shift, part, gradient, to }));
    let mut mix = vec![0.0; shift.hidden];
    for part in partial.chunks(shift.hidden.max(1)) {
        mix.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    [x, mix, earlier]
}

/// Where gradients go; that of `mix` is `[batch, hidden]`.
#[derive(Clone, Copy)]
struct Targets {
    x: Shared,
    earlier: Shared,
    partial: Shared,
}

struct Backward<'a> {
    shift: &'a Shift<'a>,
    part: Part,
    gradient: &'a [f32],
    to: Targets,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { shift, part: Part { batch, channels, .. }, gradient, to } = self;
        let (hidden, length) = (shift.hidden, shift.lengths[batch]);
        let first = batch * shift.time * hidden;
        let mut blocks = Vec::with_capacity(channels.len().div_ceil(S::F32_LANES));
        for (from, width) in vectors::<S>(&channels) {
            let last = match length.checked_sub(1) {
                Some(last) => load(simd, shift.x, first + last * hidden + from, width),
                None => simd.splat_f32s(0.0),
            };
            blocks.push(Block::new(simd, shift, from, width, last));
        }
        for t in (0..length).rev() {
            for ((from, width), block) in vectors::<S>(&channels).zip(&mut blocks) {
                let at = first + t * hidden + from;
                let earlier = match t {
                    0 => load(simd, shift.earlier, batch * hidden + from, width),
                    _ => load(simd, shift.x, at - hidden, width),
                };
                let dy = load(simd, gradient, at, width);
                block.dmix = simd.mul_add_f32s(dy, simd.sub_f32s(block.x, earlier), block.dmix);
                let dx = simd.mul_add_f32s(block.mix, dy, simd.mul_f32s(block.rest, block.next));
                (block.x, block.next) = (earlier, dy);
                // SAFETY: these channels are this task's.
                unsafe { to.x.store(simd, at, width, dx) };
            }
        }
        for ((from, width), block) in vectors::<S>(&channels).zip(&blocks) {
            let at = batch * hidden + from;
            // SAFETY: these channels are this task's.
            unsafe {
                to.earlier.store(simd, at, width, simd.mul_f32s(block.rest, block.next));
                to.partial.store(simd, at, width, block.dmix);
            }
        }
    }
}
