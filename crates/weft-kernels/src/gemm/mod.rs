//! Products of `f32` matrices on the CPU.
//!
//! Every element of a product is one chain of fused multiply-adds over the inner axis, from the first to the
//! last, whatever the size of the matrices, the place of the element, the blocking or the number of threads.
//! So a row of the result depends on its own row of the left matrix only, bit for bit, and the work may be cut
//! in any way.

mod blocked;
mod kernel;
mod pack;
mod parallel;
mod strip;
#[cfg(test)]
mod tests;
mod transpose;

pub(crate) use blocked::{multiply, multiply_new};
pub(crate) use pack::Packed;
pub(crate) use parallel::product;
pub(crate) use parallel::{Block, Row, new_product, new_product_with};
pub(crate) use transpose::transpose;

/// Steps along the inner axis between two visits of the result. A panel of the right matrix of 256 steps of
/// 32 columns is 32 KiB and stays in the first-level cache while tiles of rows pass by.
const DEPTH: usize = 256;

/// What the chains of a product begin with.
#[derive(Debug, Clone, Copy)]
enum Start<'a> {
    /// Nothing.
    Zeros,
    /// What is in their place.
    Result,
    /// A value for each column, so that a bias costs nothing.
    Columns(&'a [f32]),
}

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
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    /// `rows` rows from `first`.
    pub(crate) fn slice_rows(self, first: usize, rows: usize) -> Self {
        assert!(first + rows <= self.rows, "gemm: rows {first} to {} of {}", first + rows, self.rows);
        Self { data: &self.data[(first * self.row_stride).min(self.data.len())..], rows, ..self }
    }

    /// Asserts that every element lies within `data`: the kernels read without bounds checks.
    fn check(&self) {
        let Self { data, rows, cols, row_stride, col_stride } = *self;
        let last = rows.saturating_sub(1) * row_stride + cols.saturating_sub(1) * col_stride;
        assert!(
            rows == 0 || cols == 0 || last < data.len(),
            "gemm: {rows} x {cols} with strides {row_stride} and {col_stride} goes past {} values",
            data.len()
        );
    }
}
