//! The CPU kernel. A chunk of rows is cut into parts, one task each: logits, losses, their gradient in the
//! logits' place, the gradient of `x`; then all threads add the chunk to the gradient of the weight. Every
//! element of a product is one chain over the rows in order, so that neither chunks nor parts change a bit.

use rayon::prelude::*;

use super::Options;
use crate::cross_entropy::cpu::{RowSums, check, counts, row_gradient};
use crate::gemm::{Matrix, Packed, multiply, product};
use crate::linear::{Gradients, Wanted, WeightLayout};
use crate::simd::Level;

/// Rows whose logits are there at once: as many as a usual model is wide, so that they take as much memory as
/// the weight does, and often enough that adding to the weight's gradient costs little beside the products.
const CHUNK_ROWS: usize = 448;

/// Rows of a part: at most 112, whose packed weight then passes by seldom enough and which leaves two threads
/// something to share; at least 14, below which the products slow down.
const MOST_ROWS: usize = 112;
const LEAST_ROWS: usize = 14;

/// Columns of the bias' gradient that one task adds up, and elements that one task scales.
const COLUMNS: usize = 1024;
const ELEMENTS: usize = 1 << 16;

#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    /// `[rows, hidden]`
    pub(super) x: &'a [f32],
    /// `[hidden, vocab]` or `[vocab, hidden]`
    pub(super) weight: &'a [f32],
    /// `[vocab]`
    pub(super) bias: Option<&'a [f32]>,
    /// `[rows]`
    pub(super) targets: &'a [i32],
    pub(super) hidden: usize,
    pub(super) vocab: usize,
    pub(super) layout: WeightLayout,
    pub(super) options: Options,
}

/// The loss, and its gradients as far as they are wanted.
pub(super) fn loss(level: Level, operands: Operands<'_>, wanted: Wanted) -> (f32, Gradients<Vec<f32>>) {
    let Operands { x, weight, targets, hidden, vocab, layout, options, .. } = operands;
    check("linear_cross_entropy", targets, vocab, options);
    let zeros = |wanted: bool, count| wanted.then(|| vec![0.0f32; count]);
    let mut gradients = Gradients {
        x: zeros(wanted.x, x.len()),
        weight: zeros(wanted.weight, weight.len()),
        bias: zeros(wanted.bias, vocab),
    };
    let counted: Vec<usize> = (0..targets.len()).filter(|&row| counts(targets[row], options)).collect();
    if counted.is_empty() {
        return (0.0, gradients);
    }
    let matrix = match layout {
        WeightLayout::InOut => Matrix::new(weight, hidden, vocab),
        WeightLayout::OutIn => Matrix::new(weight, vocab, hidden).transposed(),
    };
    let forward = Packed::parallel(level, matrix);
    let backward = wanted.x.then(|| Packed::parallel(level, matrix.transposed()));
    let part = Part { level, operands, forward: &forward, backward: backward.as_ref(), wanted };
    let most = CHUNK_ROWS.min(counted.len());
    let mut buffers = Buffers {
        x: vec![0.0; most * hidden],
        logits: vec![0.0; most * vocab],
        dx: vec![0.0; if wanted.x { most * hidden } else { 0 }],
        losses: vec![0.0; most],
    };
    let mut total = 0.0;
    for rows in counted.chunks(CHUNK_ROWS) {
        total += buffers.fill(&part, rows);
        buffers.add_to(level, layout, hidden, vocab, rows, &mut gradients);
    }
    (total as f32, gradients)
}

/// `values *= factor`
pub(super) fn scale(values: &mut [f32], factor: f32) {
    values.par_chunks_mut(ELEMENTS).for_each(|values| values.iter_mut().for_each(|value| *value *= factor));
}

/// A chunk of rows that count, side by side.
struct Buffers {
    x: Vec<f32>,
    /// The logits, then their gradient.
    logits: Vec<f32>,
    dx: Vec<f32>,
    losses: Vec<f64>,
}

impl Buffers {
    /// Fills all buffers for `rows`; the sum of the losses.
    fn fill(&mut self, part: &Part<'_>, rows: &[usize]) -> f64 {
        let (hidden, vocab) = (part.operands.hidden, part.operands.vocab);
        for (to, &row) in self.x.chunks_exact_mut(hidden.max(1)).zip(rows) {
            to.copy_from_slice(&part.operands.x[row * hidden..][..hidden]);
        }
        let count = rows.len().div_ceil(rayon::current_num_threads()).clamp(LEAST_ROWS, MOST_ROWS);
        let dx = if part.wanted.x { &mut self.dx[..rows.len() * hidden] } else { &mut [] };
        // A zip ends with its shortest part: buffers that may be empty are cut by hand.
        let (mut x, mut dx, mut logits) = (&self.x[..], dx, &mut self.logits[..]);
        let mut tasks = Vec::new();
        for (rows, losses) in rows.chunks(count).zip(self.losses.chunks_mut(count)) {
            let n = rows.len();
            let (x_part, x_rest) = x.split_at(n * hidden);
            let (logits_part, logits_rest) = logits.split_at_mut(n * vocab);
            let (dx_part, dx_rest) = dx.split_at_mut(if part.wanted.x { n * hidden } else { 0 });
            tasks.push((rows, x_part, logits_part, dx_part, &mut losses[..n]));
            (x, logits, dx) = (x_rest, logits_rest, dx_rest);
        }
        tasks.into_par_iter().with_max_len(1).for_each(|(rows, x, logits, dx, losses)| {
            part.run(rows, x, logits, dx, losses);
        });
        self.losses[..rows.len()].iter().sum()
    }

    fn add_to(
        &self,
        level: Level,
        layout: WeightLayout,
        hidden: usize,
        vocab: usize,
        rows: &[usize],
        gradients: &mut Gradients<Vec<f32>>,
    ) {
        let dlogits = &self.logits[..rows.len() * vocab];
        if let Some(dx) = &mut gradients.x {
            for (from, &row) in self.dx.chunks_exact(hidden.max(1)).zip(rows) {
                dx[row * hidden..][..hidden].copy_from_slice(from);
            }
        }
        if let Some(dweight) = &mut gradients.weight {
            let (x, dlogits) = (Matrix::new(&self.x, rows.len(), hidden), Matrix::new(dlogits, rows.len(), vocab));
            match layout {
                WeightLayout::InOut => product(level, x.transposed(), dlogits, dweight, true),
                WeightLayout::OutIn => product(level, dlogits.transposed(), x, dweight, true),
            }
        }
        if let Some(dbias) = &mut gradients.bias {
            dbias.par_chunks_mut(COLUMNS).enumerate().for_each(|(block, sums)| {
                for row in dlogits.chunks_exact(vocab) {
                    let row = &row[block * COLUMNS..][..sums.len()];
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
            });
        }
    }
}

/// What a task needs besides its rows.
struct Part<'a> {
    level: Level,
    operands: Operands<'a>,
    forward: &'a Packed,
    backward: Option<&'a Packed>,
    wanted: Wanted,
}

impl Part<'_> {
    fn run(&self, rows: &[usize], x: &[f32], logits: &mut [f32], dx: &mut [f32], losses: &mut [f64]) {
        let Operands { bias, targets, hidden, vocab, options, .. } = self.operands;
        let level = self.level;
        // The chains of the product begin with the bias, as those of the linear map do.
        if let Some(bias) = bias {
            logits.chunks_exact_mut(vocab).for_each(|logits| logits.copy_from_slice(bias));
        }
        multiply(level, Matrix::new(x, rows.len(), hidden), self.forward, logits, vocab, bias.is_some());
        let backward = self.wanted.x || self.wanted.weight || self.wanted.bias;
        for ((logits, loss), &row) in logits.chunks_exact_mut(vocab).zip(losses).zip(rows) {
            let (sums, target) = (RowSums::new(level, logits, options), targets[row] as usize);
            *loss = sums.loss(logits, target, options);
            if backward {
                row_gradient(level, logits, target, sums.largest, 1.0 / sums.powers, 1.0, options);
            }
        }
        if let Some(packed) = self.backward {
            multiply(level, Matrix::new(logits, rows.len(), vocab), packed, dx, hidden, false);
        }
    }
}
