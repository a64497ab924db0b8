//! A product on one thread, cut so that each part stays in the cache in which it is used again.
#![expect(unsafe_code, reason = "parts of a result that other threads write are reached through a pointer")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::kernel::{self, Origin, Shape, Target};
use super::pack::{self, Packed, Scratch};
use super::{DEPTH, Matrix, Start, strip};
use crate::simd::Level;

/// Rows of the left matrix that are packed at once: 112 rows of a depth of 256 are 120 KiB, which stay in the
/// second-level cache while the panels of the right matrix pass by.
const MOST_ROWS: usize = 112;

/// Columns of a right matrix that are packed at once where they are used: 256 KiB.
const CHUNK: usize = 256;

/// `c = a b`, or `c += a b` if `accumulate`, on the calling thread. Row `i` of `c` begins at `i * c_stride`.
pub(crate) fn multiply(level: Level, a: Matrix<'_>, b: &Packed, c: &mut [f32], c_stride: usize, accumulate: bool) {
    let (rows, cols) = (a.rows, b.cols());
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(c_stride >= cols || rows == 1, "gemm: rows of {cols} values at a distance of {c_stride}");
    assert!((rows - 1) * c_stride + cols <= c.len(), "gemm: {rows} x {cols} results into {} values", c.len());
    // SAFETY: the lines above.
    unsafe {
        let start = if accumulate { Start::Result } else { Start::Zeros };
        run(level, a, Right::Packed(b), 0..cols, c.as_mut_ptr(), c_stride, start);
    }
}

/// `a b` into new memory, rows without gaps, on the calling thread.
pub(crate) fn multiply_new<'a>(
    level: Level,
    a: Matrix<'_>,
    b: &Packed,
    room: &'a mut [MaybeUninit<f32>],
) -> &'a mut [f32] {
    let cols = b.cols();
    assert_eq!(room.len(), a.rows * cols, "gemm: {} x {cols} results into room for {}", a.rows, room.len());
    let c = room.as_mut_ptr().cast::<f32>();
    // SAFETY: there is room for the result, and `run` writes every value of it.
    unsafe {
        run(level, a, Right::Packed(b), 0..cols, c, cols, Start::Zeros);
        std::slice::from_raw_parts_mut(c, room.len())
    }
}

/// The right matrix of a product.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    /// Already in the kernel's order.
    Packed(&'a Packed),
    /// As it lies: columns are copied when they are needed, and are gone from the cache before they cost memory
    /// traffic. Right when few rows need them.
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
/// Whichever loops run, each element is the same chain.
///
/// # Safety
/// `a.rows` rows of `columns.len()` values at a distance of `c_stride` may be written at `c`, and nobody else
/// reads or writes them meanwhile. They hold values if `begin` is `Start::Result`.
pub(super) unsafe fn run(
    level: Level,
    a: Matrix<'_>,
    right: Right<'_>,
    columns: Range<usize>,
    c: *mut f32,
    c_stride: usize,
    begin: Start<'_>,
) {
    let (rows, inner) = (a.rows, a.cols);
    a.check();
    assert_eq!(inner, right.rows(), "gemm: a is {rows} x {inner}, b is {} x {}", right.rows(), right.cols());
    assert!(columns.end <= right.cols(), "gemm: columns up to {} of {}", columns.end, right.cols());
    match right {
        Right::Packed(packed) => packed.check(level),
        Right::Plain(matrix) => matrix.check(),
    }
    if let Start::Columns(values) = begin {
        assert_eq!(values.len(), right.cols(), "gemm: one value to begin with for each column");
    }
    if inner == 0 {
        for row in 0..rows {
            // SAFETY: the caller's promise.
            unsafe {
                let c = c.add(row * c_stride);
                match begin {
                    Start::Zeros => c.write_bytes(0, columns.len()),
                    Start::Columns(values) => {
                        values[columns.clone()].as_ptr().copy_to_nonoverlapping(c, columns.len());
                    }
                    Start::Result => {}
                }
            }
        }
        return;
    }
    let (mut columns, mut c) = (columns, c);
    if let Right::Plain(b) = right {
        // SAFETY: the caller's promise.
        unsafe {
            let done = strip::run(level, a, b, columns.clone(), c, c_stride, begin);
            columns.start += done;
            c = c.add(done);
        }
        if columns.is_empty() {
            return;
        }
    }
    let start_column = columns.start;
    let shape = Shape::of(level);
    let width = shape.width();
    assert!(columns.start.is_multiple_of(width), "gemm: the columns begin within a panel");
    // Plain columns are packed for all rows at once, as many as stay in the second-level cache with the rest; rows of
    // the matrix are then read in pieces that the processor's own prefetching follows.
    let chunk = match right {
        Right::Packed(_) => columns.len(),
        Right::Plain(_) if rows <= 2 * shape.rows => width,
        Right::Plain(_) => CHUNK.next_multiple_of(width),
    };
    Scratch::with(|scratch| {
        for columns in columns.clone().step_by(chunk).map(|first| first..columns.end.min(first + chunk)) {
            // SAFETY: within the columns that the caller promises.
            let c = unsafe { c.add(columns.start - start_column) };
            for start in (0..inner).step_by(DEPTH) {
                let steps = DEPTH.min(inner - start);
                let panels = match right {
                    Right::Packed(packed) => packed.panels(start, steps, columns.clone()),
                    Right::Plain(b) => pack::right(level, &mut scratch.right, b, start, steps, columns.clone()),
                };
                let blocks = rows.div_ceil(MOST_ROWS);
                for block in 0..blocks {
                    let (first, end) = (block * rows / blocks, (block + 1) * rows / blocks);
                    let a = a.slice_rows(first, end - first);
                    let tiles = pack::left(level, &mut scratch.left, a, start, steps, shape.rows);
                    for (panel, values) in panels.chunks_exact(steps * width).enumerate() {
                        let column = panel * width;
                        for tile in tiles.iter() {
                            // SAFETY: within the rows and columns that the caller promises.
                            let c = unsafe { c.add((first + tile.first) * c_stride + column) };
                            let start = match begin {
                                Start::Result => Some(Origin { first: c, stride: c_stride }),
                                _ if start > 0 => Some(Origin { first: c, stride: c_stride }),
                                Start::Columns(values) => {
                                    Some(Origin { first: values[columns.start + column..].as_ptr(), stride: 0 })
                                }
                                Start::Zeros => None,
                            };
                            let width = width.min(columns.len() - column);
                            let target = Target { first: c, stride: c_stride, width, start };
                            // SAFETY: as above.
                            unsafe { kernel::tile(level, &tile, values, steps, target) };
                        }
                    }
                }
            }
        }
    });
}
