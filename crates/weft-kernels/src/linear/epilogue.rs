//! What happens to a part of a product, or of a gradient, while it is in the cache.

use pulp::{Simd, WithSimd};

use super::Activation;
use super::cpu::Derivative;
use crate::Dropout;
use crate::gemm::{Block, Row};
use crate::simd::{sigmoid, tanh};

/// sqrt(2/π), and that times 0.044715.
const INNER: f32 = 0.797_884_6;
const CUBIC: f32 = 0.035_677_408;

/// Makes the result of a block of the product, and its slope where the block has room beside it.
pub(super) struct Finish<'a, 'b> {
    pub block: &'a mut Block<'b>,
    /// Columns of the whole result.
    pub columns: usize,
    /// Of the whole result.
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
    pub dropout: Dropout,
}

impl WithSimd for Finish<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
        match self.activation {
            Activation::None => self.rows(simd, |x| (x, one)),
            // Comparisons let NaN pass, as the maximum of some instruction sets would not.
            Activation::Relu => self.rows(simd, |x| {
                let slope = simd.select_f32s(simd.less_than_or_equal_f32s(x, zero), zero, one);
                (simd.select_f32s(simd.less_than_f32s(x, zero), zero, x), slope)
            }),
            Activation::SquaredRelu => self.rows(simd, |x| {
                let positive = simd.select_f32s(simd.less_than_f32s(x, zero), zero, x);
                (simd.mul_f32s(positive, positive), simd.add_f32s(positive, positive))
            }),
            Activation::Gelu => self.rows(simd, |x| gelu(simd, x)),
            Activation::Tanh => self.rows(simd, |x| {
                let y = tanh(simd, x);
                (y, simd.negate_mul_add_f32s(y, y, one))
            }),
            Activation::Sigmoid => self.rows(simd, |x| {
                let y = sigmoid(simd, x);
                (y, simd.negate_mul_add_f32s(y, y, y))
            }),
        }
    }
}

impl Finish<'_, '_> {
    #[inline(always)]
    fn rows<S: Simd>(self, simd: S, activate: impl Fn(S::f32s) -> (S::f32s, S::f32s)) {
        let Self { block, columns, residual, dropout, .. } = self;
        let (first_col, cols) = (block.first_col, block.cols);
        while let Some(Row { index, values, mut side }) = block.next_row() {
            let start = index * columns + first_col;
            let residual = residual.map(|residual| &residual[start..][..cols]);
            let mut at = 0;
            for values in values.chunks_mut(S::F32_LANES) {
                let range = at..at + values.len();
                let indices = Dropout::indices(simd, start + at);
                at = range.end;
                let (mut y, mut slope) = activate(load(simd, values));
                if !dropout.is_none() {
                    y = dropout.apply(simd, indices, y);
                    if side.is_some() {
                        slope = dropout.apply(simd, indices, slope);
                    }
                }
                if let Some(residual) = residual {
                    y = simd.add_f32s(y, load(simd, &residual[range.clone()]));
                }
                store(simd, values, y);
                if let Some(side) = &mut side {
                    store(simd, &mut side[range], slope);
                }
            }
        }
    }
}

/// GELU and its derivative. `(1 + tanh(u)) / 2` is the logistic function of `2u`: one exponential for both.
#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let square = simd.mul_f32s(x, x);
    let inner = simd.mul_add_f32s(square, simd.splat_f32s(2.0 * CUBIC), simd.splat_f32s(2.0 * INNER));
    let share = sigmoid(simd, simd.mul_f32s(x, inner));
    let y = simd.mul_f32s(x, share);
    let steep = simd.mul_add_f32s(square, simd.splat_f32s(6.0 * CUBIC), simd.splat_f32s(2.0 * INNER));
    let rest = simd.mul_f32s(y, simd.sub_f32s(simd.splat_f32s(1.0), share));
    (y, simd.mul_add_f32s(rest, steep, share))
}

/// Makes the gradient of the product from that of the result, in rows of `columns` values.
pub(super) struct Change<'a> {
    pub values: &'a mut [f32],
    pub columns: usize,
    /// The row-major index of the first value.
    pub start: usize,
    /// For these values.
    pub derivative: Derivative<'a>,
    /// The sums over rows are added here.
    pub sums: Option<&'a mut [f32]>,
}

impl WithSimd for Change<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
        match self.derivative {
            Derivative::Dropout(dropout) => {
                let start = self.start;
                self.rows(simd, &[], |at, dy, _| dropout.apply(simd, Dropout::indices(simd, start + at), dy));
            }
            Derivative::Relu(values, scale) => self.rows(simd, values, |_, dy, y| {
                let kept = simd.mul_f32s(dy, simd.splat_f32s(scale));
                simd.select_f32s(simd.less_than_or_equal_f32s(y, zero), zero, kept)
            }),
            // y = s x² has the slope 2 s x, which is twice the root of s y.
            Derivative::SquaredRelu(values, scale) => self.rows(simd, values, |_, dy, y| {
                let root = simd.sqrt_f32s(simd.mul_f32s(y, simd.splat_f32s(scale)));
                simd.mul_f32s(dy, simd.add_f32s(root, root))
            }),
            Derivative::Tanh(values) => {
                self.rows(simd, values, |_, dy, y| simd.mul_f32s(dy, simd.negate_mul_add_f32s(y, y, one)));
            }
            Derivative::Sigmoid(values) => {
                self.rows(simd, values, |_, dy, y| simd.mul_f32s(dy, simd.negate_mul_add_f32s(y, y, y)));
            }
            Derivative::Slope(values) => self.rows(simd, values, |_, dy, slope| simd.mul_f32s(dy, slope)),
        }
    }
}

impl Change<'_> {
    /// `change` is given the place of a vector, its values, and those of `beside`, if there are any.
    #[inline(always)]
    fn rows<S: Simd>(self, simd: S, beside: &[f32], change: impl Fn(usize, S::f32s, S::f32s) -> S::f32s) {
        let Self { values, columns, mut sums, .. } = self;
        let mut at = 0;
        for values in values.chunks_exact_mut(columns.max(1)) {
            let mut column = 0;
            for values in values.chunks_mut(S::F32_LANES) {
                let count = values.len();
                let beside = beside.get(at..at + count).map_or(simd.splat_f32s(0.0), |values| load(simd, values));
                let gradient = change(at, load(simd, values), beside);
                store(simd, values, gradient);
                if let Some(sums) = &mut sums {
                    let sums = &mut sums[column..column + count];
                    let sum = simd.add_f32s(load(simd, sums), gradient);
                    store(simd, sums, sum);
                }
                at += count;
                column += count;
            }
        }
    }
}

/// Adds rows as long as `sums`.
pub(super) struct Sum<'a> {
    pub values: &'a [f32],
    pub sums: &'a mut [f32],
}

impl WithSimd for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for row in self.values.chunks_exact(self.sums.len().max(1)) {
            let (sums, sums_rest) = S::as_mut_simd_f32s(self.sums);
            let (values, values_rest) = S::as_simd_f32s(row);
            sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum = simd.add_f32s(*sum, value));
            sums_rest.iter_mut().zip(values_rest).for_each(|(sum, value)| *sum += value);
        }
    }
}

/// A vector from up to as many values.
#[inline(always)]
fn load<S: Simd>(simd: S, from: &[f32]) -> S::f32s {
    match S::as_simd_f32s(from).0 {
        [vector, ..] => *vector,
        [] => simd.partial_load_f32s(from),
    }
}

/// The other way.
#[inline(always)]
fn store<S: Simd>(simd: S, to: &mut [f32], values: S::f32s) {
    if to.len() >= S::F32_LANES {
        S::as_mut_simd_f32s(to).0[0] = values;
    } else {
        simd.partial_store_f32s(to, values);
    }
}
