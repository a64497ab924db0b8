//! The triangle of a chunk for one head: how position i reads position j <= i, and the gradients of that.

use pulp::Simd;

use super::cpu::{CHUNK, Scan};
use crate::panels::scratch::pitch;
use crate::simd::{exp2_of_negative, sigmoid, softplus};

/// From a row of a triangle to the next.
pub(super) const PITCH: usize = pitch(CHUNK);

/// Less than this left of a position is nothing: numbers near the smallest are slow, and no result feels these.
const NOTHING: f32 = 7.888_609e-31; // 2^-100

/// The steps of one head in a chunk.
pub(super) struct Steps {
    count: usize,
    /// Of the step by what softplus is applied to.
    pub slope: [f32; CHUNK],
    pub step: [f32; CHUNK],
    /// What a position leaves of the states.
    pub decay: [f32; CHUNK],
}

/// What is left of things in a chunk.
pub(super) struct Left {
    /// Of the state at its start, after each position.
    pub from_start: [f32; CHUNK],
    /// Of each position, after the last one.
    pub to_end: [f32; CHUNK],
}

impl Steps {
    /// Those of `count` positions of the batch's from `row` on.
    #[inline(always)]
    pub(super) fn new<S: Simd>(simd: S, scan: &Scan<'_>, head: usize, row: usize, count: usize) -> Self {
        let mut steps = Self { count, slope: [0.0; CHUNK], step: [0.0; CHUNK], decay: [0.0; CHUNK] };
        for (i, step) in steps.step[..count].iter_mut().enumerate() {
            *step = scan.dt[(row + i) * scan.heads + head] + scan.bias[head];
        }
        let rate = simd.splat_f32s(scan.rate(head) * std::f32::consts::LOG2_E);
        let (slopes, _) = S::as_mut_simd_f32s(&mut steps.slope);
        let (decays, _) = S::as_mut_simd_f32s(&mut steps.decay);
        let (values, _) = S::as_mut_simd_f32s(&mut steps.step);
        for ((slope, decay), value) in slopes.iter_mut().zip(decays).zip(values) {
            *slope = sigmoid(simd, *value);
            *value = softplus(simd, *value);
            *decay = exp2_of_negative(simd, simd.mul_f32s(*value, rate));
        }
        steps
    }

    /// Of the state at the chunk's start, after each position.
    fn left_of_start(&self) -> [f32; CHUNK] {
        let (mut left, mut from_start) = (1.0, [0.0; CHUNK]);
        for (to, &decay) in from_start[..self.count].iter_mut().zip(&self.decay) {
            left *= decay;
            left = if left < NOTHING { 0.0 } else { left };
            *to = left;
        }
        from_start
    }
}

/// What is left of something after one more position.
#[inline(always)]
fn faded<S: Simd>(simd: S, left: S::f32s, decay: S::f32s) -> S::f32s {
    let left = simd.mul_f32s(left, decay);
    let vanished = simd.less_than_f32s(left, simd.splat_f32s(NOTHING));
    simd.select_f32s(vanished, simd.splat_f32s(0.0), left)
}

/// M of the module's equation, and `skip` on its diagonal, from the products `C_i B_j`; nothing above the diagonal.
#[inline(always)]
pub(super) fn mix<S: Simd>(simd: S, steps: &Steps, skip: f32, products: &[f32], weights: &mut [f32]) -> Left {
    // Of each position, after position i.
    let mut left = [0.0; CHUNK];
    for i in 0..steps.count {
        let decay = simd.splat_f32s(steps.decay[i]);
        let (left_before, _) = S::as_mut_simd_f32s(&mut left[..i.next_multiple_of(S::F32_LANES)]);
        let (steps_before, _) = S::as_simd_f32s(&steps.step);
        let (products_before, _) = S::as_simd_f32s(&products[i * PITCH..][..PITCH]);
        let (weights_before, _) = S::as_mut_simd_f32s(&mut weights[i * PITCH..][..PITCH]);
        for (j, left) in left_before.iter_mut().enumerate() {
            *left = faded(simd, *left, decay);
            weights_before[j] = simd.mul_f32s(simd.mul_f32s(products_before[j], *left), steps_before[j]);
        }
        left[i] = 1.0;
        weights[i * PITCH + i] = products[i * PITCH + i] * steps.step[i] + skip;
    }
    Left { from_start: steps.left_of_start(), to_end: left }
}

/// What [`unmix`] finds.
pub(super) struct Unmixed {
    pub left: Left,
    /// The gradients of the steps as factors of M.
    pub step: [f32; CHUNK],
    /// The gradients of the logarithms of decays, summed up to each position: where it is read less where it reads.
    pub log: [f32; CHUNK],
    /// The gradient of `skip`.
    pub skip: f32,
}

/// From the gradient of M: M itself again, gradients of what it is made of, and, added to what is there, those of
/// `products`. Above the diagonal, `products` is zero and `dweights` is set to zero.
#[inline(always)]
pub(super) fn unmix<S: Simd>(
    simd: S,
    steps: &Steps,
    skip: f32,
    products: &[f32],
    dweights: &mut [f32],
    weights: &mut [f32],
    dproducts: &mut [f32],
) -> Unmixed {
    let count = steps.count;
    // On the diagonal nothing has decayed: kept out of the sums of the others, which it would drown.
    let (mut diagonal, mut dskip) = ([0.0; CHUNK], 0.0);
    for (i, diagonal) in diagonal.iter_mut().enumerate().take(count) {
        let at = i * PITCH + i;
        let gradient = dweights[at];
        dskip += gradient;
        *diagonal = gradient * products[at];
        dproducts[at] += gradient * steps.step[i];
        dweights[at] = 0.0;
        clear_after(dweights, i);
    }
    let (mut left, mut columns, mut rows) = ([0.0; CHUNK], [0.0; CHUNK], [0.0; CHUNK]);
    for i in 0..count {
        let decay = simd.splat_f32s(steps.decay[i]);
        let (left_before, _) = S::as_mut_simd_f32s(&mut left[..i.next_multiple_of(S::F32_LANES)]);
        let (columns, _) = S::as_mut_simd_f32s(&mut columns);
        let (steps_before, _) = S::as_simd_f32s(&steps.step);
        let (products, _) = S::as_simd_f32s(&products[i * PITCH..][..PITCH]);
        let (dweights, _) = S::as_simd_f32s(&dweights[i * PITCH..][..PITCH]);
        let (weights, _) = S::as_mut_simd_f32s(&mut weights[i * PITCH..][..PITCH]);
        let (dproducts, _) = S::as_mut_simd_f32s(&mut dproducts[i * PITCH..][..PITCH]);
        let mut row = simd.splat_f32s(0.0);
        for (j, left) in left_before.iter_mut().enumerate() {
            *left = faded(simd, *left, decay);
            let share = simd.mul_f32s(products[j], *left);
            weights[j] = simd.mul_f32s(share, steps_before[j]);
            dproducts[j] = simd.mul_add_f32s(simd.mul_f32s(dweights[j], *left), steps_before[j], dproducts[j]);
            columns[j] = simd.mul_add_f32s(dweights[j], share, columns[j]);
            row = simd.mul_add_f32s(dweights[j], weights[j], row);
        }
        rows[i] = simd.reduce_sum_f32s(row);
        left[i] = 1.0;
    }
    let (mut step, mut log) = ([0.0; CHUNK], [0.0; CHUNK]);
    for i in 0..count {
        weights[i * PITCH + i] = products[i * PITCH + i] * steps.step[i] + skip;
        step[i] = columns[i] + diagonal[i];
        log[i] = rows[i] - steps.step[i] * columns[i];
    }
    Unmixed { left: Left { from_start: steps.left_of_start(), to_end: left }, step, log, skip: dskip }
}

/// Zeros in a triangle's row `i` from behind the diagonal to where the last vector that touches it ends.
pub(super) fn clear_after(triangle: &mut [f32], i: usize) {
    const MOST_LANES: usize = 16;
    triangle[i * PITCH..][i + 1..(i + 1).next_multiple_of(MOST_LANES)].fill(0.0);
}
