//! The CPU kernel: two passes over a row in the forward pass (the second one from cache: 37,000 logits are
//! 148 KiB), one in the backward pass.

use pulp::{Scalar, Simd, WithSimd};
use rayon::prelude::*;

use super::Options;
use crate::simd::{Level, exp};

/// Rows that one task takes.
const ROWS_PER_PART: usize = 8;

/// What the forward pass knows of each row.
pub(super) struct Rows {
    pub(super) losses: Vec<f64>,
    /// The largest logit.
    pub(super) largest: Vec<f32>,
    /// `1 / sum(exp(logit - largest))`
    pub(super) reciprocal: Vec<f32>,
}

impl Rows {
    /// The sum of the losses, first row first.
    pub(super) fn total(&self) -> f32 {
        self.losses.iter().sum::<f64>() as f32
    }
}

/// Whether a row with this target counts.
pub(super) fn counts(target: i32, options: Options) -> bool {
    Some(target) != options.ignore
}

/// Panics if a target that counts is not below `vocab`.
pub(super) fn check(function: &str, targets: &[i32], vocab: usize, options: Options) {
    for (row, &target) in targets.iter().enumerate() {
        assert!(
            !counts(target, options) || (0..vocab as i64).contains(&i64::from(target)),
            "{function}: target {target} of row {row} is outside of the vocabulary of {vocab}"
        );
    }
}

/// `logits` is `[rows, vocab]`. Panics if a target that counts is not below `vocab`.
pub(super) fn forward(level: Level, logits: &[f32], vocab: usize, targets: &[i32], options: Options) -> Rows {
    check("cross_entropy", targets, vocab, options);
    let rows = targets.len();
    let (mut losses, mut largest, mut reciprocal) = (vec![0.0; rows], vec![0.0; rows], vec![0.0; rows]);
    losses
        .par_chunks_mut(ROWS_PER_PART)
        .zip(largest.par_chunks_mut(ROWS_PER_PART).zip(reciprocal.par_chunks_mut(ROWS_PER_PART)))
        .enumerate()
        .for_each(|(part, (losses, (largest, reciprocal)))| {
            for i in 0..losses.len() {
                let row = part * ROWS_PER_PART + i;
                if counts(targets[row], options) {
                    let sums = RowSums::new(level, &logits[row * vocab..][..vocab], options);
                    losses[i] = sums.loss(&logits[row * vocab..][..vocab], targets[row] as usize, options);
                    (largest[i], reciprocal[i]) = (sums.largest, 1.0 / sums.powers);
                }
            }
        });
    Rows { losses, largest, reciprocal }
}

/// The largest logit of a row, and what is summed over it.
pub(super) struct RowSums {
    pub(super) largest: f32,
    /// Of `exp(logit - largest)`.
    pub(super) powers: f32,
    /// Of `logit - largest`; 0 without label smoothing.
    centred: f32,
}

impl RowSums {
    pub(super) fn new(level: Level, logits: &[f32], options: Options) -> Self {
        level.run(Sums { logits, centred_sum: options.label_smoothing > 0.0 })
    }

    pub(super) fn loss(&self, logits: &[f32], target: usize, options: Options) -> f64 {
        // Everything relative to the largest logit: 1e4 + 0.001 has lost the 0.001.
        let smoothing = f64::from(options.label_smoothing);
        let mut loss = f64::from(self.powers).ln() - (1.0 - smoothing) * f64::from(logits[target] - self.largest);
        if smoothing > 0.0 {
            loss -= smoothing * f64::from(self.centred) / logits.len() as f64;
        }
        loss
    }
}

struct Sums<'a> {
    logits: &'a [f32],
    centred_sum: bool,
}

impl WithSimd for Sums<'_> {
    type Output = RowSums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> RowSums {
        let (vectors, rest) = S::as_simd_f32s(self.logits);
        // Four at a time: each maximum waits for the one before it.
        let (fours, singles) = pulp::as_arrays::<4, _>(vectors);
        let mut largest = [simd.splat_f32s(f32::NEG_INFINITY); 4];
        for four in fours {
            for (largest, &x) in largest.iter_mut().zip(four) {
                *largest = simd.max_f32s(x, *largest);
            }
        }
        for &x in singles {
            largest[0] = simd.max_f32s(x, largest[0]);
        }
        let pair = simd.max_f32s(largest[0], largest[1]);
        let largest = simd.reduce_max_f32s(simd.max_f32s(pair, simd.max_f32s(largest[2], largest[3])));
        let largest = rest.iter().fold(largest, |largest, &x| largest.max(x));

        let splat = simd.splat_f32s(largest);
        let (mut powers, mut centred) = ([simd.splat_f32s(0.0); 4], [simd.splat_f32s(0.0); 4]);
        for four in fours {
            for i in 0..4 {
                let x = simd.sub_f32s(four[i], splat);
                powers[i] = simd.add_f32s(powers[i], exp(simd, x));
                centred[i] = simd.add_f32s(centred[i], x);
            }
        }
        for &x in singles {
            let x = simd.sub_f32s(x, splat);
            powers[0] = simd.add_f32s(powers[0], exp(simd, x));
            centred[0] = simd.add_f32s(centred[0], x);
        }
        let sum =
            |[a, b, c, d]: [S::f32s; 4]| simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
        let (mut powers, mut centred) = (sum(powers), sum(centred));
        for &x in rest {
            powers += exp(Scalar, x - largest);
            centred += x - largest;
        }
        RowSums { largest, powers, centred: if self.centred_sum { centred } else { 0.0 } }
    }
}

/// What the gradient of the logits is made from.
pub(super) struct Gradient<'a> {
    pub(super) level: Level,
    pub(super) vocab: usize,
    pub(super) targets: &'a [i32],
    pub(super) largest: &'a [f32],
    pub(super) reciprocal: &'a [f32],
    /// The gradient of the loss.
    pub(super) upstream: f32,
    pub(super) options: Options,
}

impl Gradient<'_> {
    /// Turns `logits`, `[rows, vocab]`, into their gradient.
    pub(super) fn in_place(&self, logits: &mut [f32]) {
        logits.par_chunks_mut((ROWS_PER_PART * self.vocab).max(1)).enumerate().for_each(|(part, logits)| {
            for (i, logits) in logits.chunks_exact_mut(self.vocab).enumerate() {
                let row = part * ROWS_PER_PART + i;
                let (largest, reciprocal) = (self.largest[row], self.reciprocal[row]);
                if counts(self.targets[row], self.options) {
                    let target = self.targets[row] as usize;
                    row_gradient(self.level, logits, target, largest, reciprocal, self.upstream, self.options);
                } else {
                    logits.fill(0.0);
                }
            }
        });
    }
}

/// Turns the logits of a row into their gradient; `reciprocal` is that of the sum of powers.
pub(super) fn row_gradient(
    level: Level,
    logits: &mut [f32],
    target: usize,
    largest: f32,
    reciprocal: f32,
    upstream: f32,
    options: Options,
) {
    let smoothing = options.label_smoothing;
    let everywhere = upstream * smoothing / logits.len() as f32;
    level.run(Row { logits, largest, factor: reciprocal * upstream, everywhere });
    logits[target] -= upstream * (1.0 - smoothing);
}

/// `exp(logit - largest) * factor - everywhere`
struct Row<'a> {
    logits: &'a mut [f32],
    largest: f32,
    factor: f32,
    everywhere: f32,
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (largest, factor) = (simd.splat_f32s(self.largest), simd.splat_f32s(self.factor));
        let everywhere = simd.splat_f32s(-self.everywhere);
        let (vectors, rest) = S::as_mut_simd_f32s(self.logits);
        for x in vectors {
            *x = simd.mul_add_f32s(exp(simd, simd.sub_f32s(*x, largest)), factor, everywhere);
        }
        for x in rest {
            *x = exp(Scalar, *x - self.largest).mul_add(self.factor, -self.everywhere);
        }
    }
}
