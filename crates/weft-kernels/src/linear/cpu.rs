//! The CPU kernel: products from `gemm`, with all that is done element by element in the parts of the result that
//! are in the cache.
#![expect(unsafe_code, reason = "results are written part by part into new memory")]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::epilogue::{Change, Finish, Sum};
use super::{Activation, Gradients, Wanted, WeightLayout};
use crate::Dropout;
use crate::fresh::{Fresh, copied};
use crate::gemm::{Matrix, Packed, multiply_new, new_product, new_product_with};
use crate::simd::Level;

/// Rows over which one partial sum of the bias' gradient runs, and which one task takes in the backward pass.
/// Fixed, so that the sums do not depend on the number of threads; 112 rows of 1,024 values are 448 KiB, a
/// fraction of the second-level cache.
const ROWS_PER_PART: usize = 112;

/// From so many rows on, the gradient of `x` is made part by part right after that of the product, with a weight
/// packed once; below, that would pack more than it computes.
const FUSE_FROM_ROWS: usize = 448;

/// A weight as a matrix `[in, out]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight<'a> {
    matrix: Matrix<'a>,
    layout: WeightLayout,
}

impl<'a> Weight<'a> {
    /// `dims` is the shape as it is stored.
    pub(super) fn new(values: &'a [f32], dims: [usize; 2], layout: WeightLayout) -> Self {
        let stored = Matrix::new(values, dims[0], dims[1]);
        let matrix = if layout == WeightLayout::InOut { stored } else { stored.transposed() };
        Self { matrix, layout }
    }

    fn input(&self) -> usize {
        self.matrix.rows
    }

    pub(super) fn output(&self) -> usize {
        self.matrix.cols
    }
}

/// What the forward pass reads: `x` is `[rows, in]`, `bias` `[out]`, `residual` `[rows, out]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands<'a> {
    pub x: &'a [f32],
    pub weight: Weight<'a>,
    pub bias: Option<&'a [f32]>,
    pub residual: Option<&'a [f32]>,
}

/// The result, and its derivative by the product if `slope` is set.
pub(super) fn forward(
    level: Level,
    rows: usize,
    operands: Operands<'_>,
    activation: Activation,
    dropout: Dropout,
    slope: bool,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let Operands { x, weight, bias, residual } = operands;
    let x = Matrix::new(x, rows, weight.input());
    let columns = weight.output();
    // The chains of the product begin with the bias, so that often nothing is left to do.
    let nothing = activation == Activation::None && dropout.is_none() && residual.is_none() && !slope;
    new_product_with(level, x, weight.matrix, bias, slope, |block| {
        if !nothing {
            level.run(Finish { block, columns, residual, activation, dropout });
        }
    })
}

/// How the gradient of the result becomes that of the product.
#[derive(Debug, Clone, Copy)]
pub(super) enum Derivative<'a> {
    /// By dropout alone, if there is any.
    Dropout(Dropout),
    /// By ReLU, whose results are given, and by dropout, which scaled them so.
    Relu(&'a [f32], f32),
    /// The same by ReLU's square.
    SquaredRelu(&'a [f32], f32),
    /// By tanh, whose results are given.
    Tanh(&'a [f32]),
    /// The same by the logistic function.
    Sigmoid(&'a [f32]),
    /// By a factor for each element.
    Slope(&'a [f32]),
}

impl Derivative<'_> {
    fn is_identity(&self) -> bool {
        matches!(self, Self::Dropout(dropout) if dropout.is_none())
    }

    /// The same for elements from `start` up to `end`.
    fn slice(&self, start: usize, end: usize) -> Self {
        match self {
            Self::Dropout(dropout) => Self::Dropout(*dropout),
            Self::Relu(values, scale) => Self::Relu(&values[start..end], *scale),
            Self::SquaredRelu(values, scale) => Self::SquaredRelu(&values[start..end], *scale),
            Self::Tanh(values) => Self::Tanh(&values[start..end]),
            Self::Sigmoid(values) => Self::Sigmoid(&values[start..end]),
            Self::Slope(values) => Self::Slope(&values[start..end]),
        }
    }
}

/// The gradient of the result.
pub(super) enum Upstream<'a> {
    /// Somebody else reads it too.
    Shared(&'a [f32]),
    /// It may be written over.
    Owned(&'a mut [f32]),
}

/// Some rows of the backward pass.
struct Part<'a> {
    first: usize,
    rows: usize,
    upstream: Rows<'a>,
    sums: Option<&'a mut [f32]>,
    dx: Option<&'a mut [MaybeUninit<f32>]>,
}

/// The gradient of the result for these rows, and where that of the product goes.
enum Rows<'a> {
    /// They are the same.
    Same(&'a [f32]),
    /// It is written over the other.
    Over(&'a mut [f32]),
    /// It is written elsewhere.
    To(&'a [f32], &'a mut [MaybeUninit<f32>]),
}

/// The gradients, given that of the result.
pub(super) fn backward(
    level: Level,
    rows: usize,
    x: &[f32],
    weight: Weight<'_>,
    derivative: Derivative<'_>,
    dy: Upstream<'_>,
    wanted: Wanted,
) -> Gradients<Vec<f32>> {
    let (input, output) = (weight.input(), weight.output());
    let back = weight.matrix.transposed();
    let identity = derivative.is_identity();
    let mut dy = match dy {
        Upstream::Owned(values) if identity => Upstream::Shared(values),
        other => other,
    };
    let fused = wanted.x && rows >= FUSE_FROM_ROWS;
    let copies = !identity && matches!(dy, Upstream::Shared(_));
    let parts = rows.div_ceil(ROWS_PER_PART);
    let mut sums = vec![0.0; if wanted.bias { parts * output } else { 0 }];
    let mut copy = Fresh::new(if copies { rows * output } else { 0 });
    let mut dx = Fresh::new(if fused { rows * input } else { 0 });
    let packed = fused.then(|| Packed::parallel(level, back));
    if !identity || fused || wanted.bias {
        let (mut copy, mut dx, mut sums) = (copy.room(), dx.room(), &mut sums[..]);
        let (mut shared, mut owned): (&[f32], &mut [f32]) = match &mut dy {
            Upstream::Shared(values) => (values, &mut []),
            Upstream::Owned(values) => (&[], values),
        };
        let part = |index| {
            let first = index * ROWS_PER_PART;
            let rows = ROWS_PER_PART.min(rows - first);
            let count = rows * output;
            Part {
                first,
                rows,
                upstream: match (identity, copies) {
                    (true, _) => Rows::Same(shared.split_off(..count).expect("dy has all rows")),
                    (_, true) => Rows::To(
                        shared.split_off(..count).expect("dy has all rows"),
                        copy.split_off_mut(..count).expect("as large as dy"),
                    ),
                    _ => Rows::Over(owned.split_off_mut(..count).expect("dy has all rows")),
                },
                sums: wanted.bias.then(|| sums.split_off_mut(..output).expect("one for each part")),
                dx: fused.then(|| dx.split_off_mut(..rows * input).expect("as large as x")),
            }
        };
        let work: Vec<_> = (0..parts).map(part).collect();
        work.into_par_iter().with_max_len(1).for_each(|part| part.run(level, output, derivative, &packed));
    }
    let copied;
    let gradient: &[f32] = match dy {
        Upstream::Owned(values) => values,
        Upstream::Shared(values) if identity => values,
        Upstream::Shared(_) => {
            // SAFETY: the parts have written all rows.
            copied = unsafe { copy.filled(rows * output) };
            &copied
        }
    };
    let (x, gradient) = (Matrix::new(x, rows, input), Matrix::new(gradient, rows, output));
    Gradients {
        x: match (wanted.x, fused) {
            (false, _) => None,
            // SAFETY: the parts have written all rows.
            (true, true) => Some(unsafe { dx.filled(rows * input) }),
            (true, false) => Some(new_product(level, gradient, back)),
        },
        weight: wanted.weight.then(|| match weight.layout {
            WeightLayout::InOut => new_product(level, x.transposed(), gradient),
            WeightLayout::OutIn => new_product(level, gradient.transposed(), x),
        }),
        bias: wanted.bias.then(|| {
            let mut total = vec![0.0; output];
            for part in sums.chunks(output.max(1)) {
                total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
            }
            total
        }),
    }
}

impl Part<'_> {
    fn run(self, level: Level, output: usize, derivative: Derivative<'_>, packed: &Option<Packed>) {
        let Self { first, rows, upstream, sums, dx } = self;
        let start = first * output;
        let change = |values, sums| {
            let derivative = derivative.slice(start, start + rows * output);
            level.run(Change { values, columns: output, start, derivative, sums });
        };
        let gradient: &[f32] = match upstream {
            Rows::Same(values) => {
                if let Some(sums) = sums {
                    level.run(Sum { values, sums });
                }
                values
            }
            Rows::Over(values) => {
                change(&mut *values, sums);
                values
            }
            Rows::To(from, room) => {
                let values = copied(room, from);
                change(&mut *values, sums);
                values
            }
        };
        if let (Some(dx), Some(packed)) = (dx, packed) {
            multiply_new(level, Matrix::new(gradient, rows, output), packed, dx);
        }
    }
}
