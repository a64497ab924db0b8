//! A product on one thread, cut so that each part stays in the cache in which it is used again.
#![expect(unsafe_code, reason = "parts of a result that other threads write are reached through a pointer")]

use std::ops::Range;

use super::kernel::{self, Shape, Target};
use super::pack::{self, Packed, Scratch};
use super::{DEPTH, Matrix};
use crate::simd::Level;

/// Rows of the left matrix that are packed at once: 224 rows of a depth of 256 are 240 KiB, which stays in the
/// second-level cache while the panels of the right matrix pass by.
const MOST_ROWS: usize = 224;

/// `c = a b`, or `c += a b` if `accumulate`, on the calling thread. Row `i` of `c` begins at `i * c_stride`.
pub(crate) fn multiply(level: Level, a: Matrix<'_>, b: &Packed, c: &mut [f32], c_stride: usize, accumulate: bool) {
    let (rows, cols) = (a.rows, b.cols());
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(c_stride >= cols || rows == 1, "gemm: rows of {cols} values at a distance of {c_stride}");
    assert!((rows - 1) * c_stride + cols <= c.len(), "gemm: {rows} x {cols} results into {} values", c.len());
    // SAFETY: the lines above.
    unsafe { run(level, a, Right::Packed(b), 0..cols, c.as_mut_ptr(), c_stride, accumulate) };
}

/// The right matrix of a product.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    /// Already in the kernel's order.
    Packed(&'a Packed),
    /// As it lies: each panel is copied when it is needed, and is gone from the cache before it costs memory
    /// traffic. Right when few rows need it.
    Plain(Matrix<'a>),
}

impl Right<'_> {
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.rows(),
            Self::Plain(matrix) => matrix.rows,
        }
    }

    pub(super) fn cols(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.cols(),
            Self::Plain(matrix) => matrix.cols,
        }
    }
}

/// The columns `columns` of `a b`; `c` points at the first of them. `columns` begins at a whole panel.
///
/// # Safety
/// `a.rows` rows of `columns.len()` values at a distance of `c_stride` may be written at `c`, and nobody else
/// reads or writes them meanwhile.
pub(super) unsafe fn run(
    level: Level,
    a: Matrix<'_>,
    right: Right<'_>,
    columns: Range<usize>,
    c: *mut f32,
    c_stride: usize,
    accumulate: bool,
) {
    let (rows, inner) = (a.rows, a.cols);
    a.check();
    assert_eq!(inner, right.rows(), "gemm: a is {rows} x {inner}, b is {} x {}", right.rows(), right.cols());
    assert!(columns.end <= right.cols(), "gemm: columns up to {} of {}", columns.end, right.cols());
    match right {
        Right::Packed(packed) => packed.check(level),
        Right::Plain(matrix) => matrix.check(),
    }
    if inner == 0 && !accumulate {
        for row in 0..rows {
            // SAFETY: the caller's promise.
            unsafe { c.add(row * c_stride).write_bytes(0, columns.len()) };
        }
    }
    let shape = Shape::of(level);
    let width = shape.width();
    assert!(columns.start.is_multiple_of(width), "gemm: the columns begin within a panel");
    Scratch::with(|scratch| {
        let blocks = rows.div_ceil(MOST_ROWS);
        for block in 0..blocks {
            let (first, end) = (block * rows / blocks, (block + 1) * rows / blocks);
            let a = a.slice_rows(first, end - first);
            for start in (0..inner).step_by(DEPTH) {
                let steps = DEPTH.min(inner - start);
                let tiles = pack::left(level, &mut scratch.left, a, start, steps, shape.rows);
                for column in columns.clone().step_by(width) {
                    let panel = match right {
                        Right::Packed(packed) => packed.panel(start, steps, column / width),
                        Right::Plain(b) => pack::right(level, &mut scratch.panel, b, start, steps, column),
                    };
                    for tile in tiles.iter() {
                        let target = Target {
                            // SAFETY: within the rows and columns that the caller promises.
                            first: unsafe { c.add((first + tile.first) * c_stride + column - columns.start) },
                            stride: c_stride,
                            width: width.min(columns.end - column),
                            add: accumulate || start > 0,
                        };
                        // SAFETY: as above.
                        unsafe { kernel::tile(level, &tile, panel, steps, target) };
                    }
                }
            }
        }
    });
}
