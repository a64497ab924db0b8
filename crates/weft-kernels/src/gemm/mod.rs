//! Products of `f32` matrices on the CPU.
//!
//! Every element of a product is one chain of fused multiply-adds over the inner axis, from the first to the
//! last, whatever the size of the matrices, the place of the element, the blocking or the number of threads.
//! So a row of the result depends on its own row of the left matrix only, bit for bit, and the work may be cut
//! in any way.

mod kernel;
mod pack;
#[cfg(test)]
mod tests;

pub(crate) use pack::Packed;

use kernel::Shape;
use pack::Scratch;

use crate::simd::Level;

/// Steps along the inner axis between two visits of the result. A panel of the right matrix of 256 steps of
/// 32 columns is 32 KiB and stays in the first-level cache while tiles of rows pass by.
const DEPTH: usize = 256;

/// A view of a matrix: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    /// Where the elements lie.
    pub data: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// From a row to the next.
    pub row_stride: usize,
    /// From a column to the next.
    pub col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `data` as `rows` rows of `cols` values each.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "gemm: {rows} x {cols} values from {}", data.len());
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Rows and columns swapped; nothing moves.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            data: self.data,
        }
    }

    /// Asserts that every element lies within `data`: the kernels read without bounds checks.
    fn check(&self) {
        let last = self.rows.saturating_sub(1) * self.row_stride + self.cols.saturating_sub(1) * self.col_stride;
        assert!(
            self.rows == 0 || self.cols == 0 || last < self.data.len(),
            "gemm: {} x {} with strides {} and {} goes past {} values",
            self.rows,
            self.cols,
            self.row_stride,
            self.col_stride,
            self.data.len()
        );
    }
}

/// `c = a b`, or `c += a b` if `accumulate`, on the calling thread. Row `i` of `c` begins at `i * c_stride`.
pub(crate) fn multiply(level: Level, a: Matrix<'_>, b: &Packed, c: &mut [f32], c_stride: usize, accumulate: bool) {
    a.check();
    let (rows, cols) = (a.rows, b.cols());
    assert_eq!(a.cols, b.rows(), "gemm: the inner sizes of a {} x {} and b {} x {cols}", rows, a.cols, b.rows());
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(c_stride >= cols || rows == 1, "gemm: rows of {cols} values at a distance of {c_stride}");
    assert!((rows - 1) * c_stride + cols <= c.len(), "gemm: {rows} x {cols} results into {} values", c.len());
    if a.cols == 0 {
        if !accumulate {
            (0..rows).for_each(|row| c[row * c_stride..][..cols].fill(0.0));
        }
        return;
    }
    let shape = Shape::of(level);
    assert_eq!(shape.width(), b.width(), "gemm: b was packed for another SIMD level");
    Scratch::with(|scratch| {
        for first in (0..rows).step_by(shape.block_rows()) {
            let block = shape.block_rows().min(rows - first);
            for (depth, start) in (0..a.cols).step_by(DEPTH).enumerate() {
                let steps = DEPTH.min(a.cols - start);
                let tiles = pack::left(scratch, a, first, block, start, steps, shape.rows);
                for (panel, values) in b.panels(depth, steps) {
                    let column = panel * shape.width();
                    let width = shape.width().min(cols - column);
                    for tile in tiles.iter() {
                        let c = &mut c[(first + tile.first) * c_stride + column..];
                        kernel::tile(level, tile, values, steps, c, c_stride, width, accumulate || depth > 0);
                    }
                }
            }
        }
    });
}
