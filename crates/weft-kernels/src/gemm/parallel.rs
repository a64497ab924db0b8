//! A product on all threads. How it is cut depends on their number, the result does not: see the room's text.
#![expect(unsafe_code, reason = "threads write disjoint parts of the same rows")]

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::blocked::{self, Right};
use super::kernel::Shape;
use super::{Matrix, Packed, Start};
use crate::fresh::Fresh;
use crate::simd::Level;

/// From so many rows on, the right matrix is packed once for all; below, packing it panel by panel where it is
/// used costs less than writing it to memory and reading it again.
const SHARE_FROM_ROWS: usize = 448;

/// Rows and columns of a part at most: 112 rows of 1,024 results are 448 KiB, still in the second-level cache
/// when `finish` takes them up.
const PART_ROWS: usize = 112;
const PART_COLS: usize = 1024;

/// The same without shared packing, where more rows use each packed panel again.
const UNSHARED_ROWS: usize = 256;

/// Parts for each thread, so that one which was held up holds up the others less.
const PARTS_EACH: usize = 2;

/// Multiplications below which another thread is not worth waking, and values of the right matrix from which
/// on reading them alone is.
const SERIAL_WORK: usize = 1 << 19;
const SERIAL_VALUES: usize = 1 << 16;

/// `c = a b`, or `c += a b` if `accumulate`; `c` is row-major without gaps.
pub(crate) fn product(level: Level, a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], accumulate: bool) {
    assert_eq!(c.len(), a.rows * b.cols, "gemm: {} x {} results into {} values", a.rows, b.cols, c.len());
    let begin = if accumulate { Start::Result } else { Start::Zeros };
    // SAFETY: `c` has room for the result.
    unsafe { run(level, a, b, c.as_mut_ptr(), None, begin, |_| {}) };
}

/// `a b`, row-major.
pub(crate) fn new_product(level: Level, a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    new_product_with(level, a, b, None, false, |_| {}).0
}

/// `a b`, plus `bias` in each row, after `finish` has seen and changed each part of it, while the part is in the
/// cache; and, if `side` is set, a second result of the same size that `finish` writes beside the first.
pub(crate) fn new_product_with(
    level: Level,
    a: Matrix<'_>,
    b: Matrix<'_>,
    bias: Option<&[f32]>,
    side: bool,
    finish: impl Fn(&mut Block<'_>) + Sync,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let count = a.rows * b.cols;
    let mut values = Fresh::new(count);
    let mut beside = side.then(|| Fresh::new(count));
    let to = values.room().as_mut_ptr().cast();
    let to_side = beside.as_mut().map(|beside| beside.room().as_mut_ptr().cast());
    // SAFETY: both have room for the result, and `run` writes every value of both.
    unsafe {
        run(level, a, b, to, to_side, bias.map_or(Start::Zeros, Start::Columns), finish);
        (values.filled(count), beside.map(|beside| beside.filled(count)))
    }
}

/// # Safety
/// `c` and `side` have room for `a.rows * b.cols` values; `c` holds values if `begin` is `Start::Result`.
unsafe fn run(
    level: Level,
    a: Matrix<'_>,
    b: Matrix<'_>,
    c: *mut f32,
    side: Option<*mut f32>,
    begin: Start<'_>,
    finish: impl Fn(&mut Block<'_>) + Sync,
) {
    let (rows, inner, cols) = (a.rows, a.cols, b.cols);
    if rows == 0 || cols == 0 {
        return;
    }
    let threads = match rows * inner * cols < SERIAL_WORK && inner * cols < SERIAL_VALUES {
        true => 1,
        false => rayon::current_num_threads(),
    };
    let packed = (rows >= SHARE_FROM_ROWS).then(|| Packed::parallel(level, b));
    let right = packed.as_ref().map_or(Right::Plain(b), Right::Packed);
    let width = Shape::of(level).width();
    let panels = cols.div_ceil(width);
    let least_cols = cols.div_ceil(PART_COLS);
    let (row_parts, col_parts) = match packed {
        // The columns of a shared right matrix are cut for the cache only; each row part does them in turn.
        Some(_) => (rows.div_ceil(PART_ROWS).next_multiple_of(threads), 1),
        None if threads == 1 => (rows.div_ceil(UNSHARED_ROWS), 1),
        None => {
            // Columns first: each part copies its rows again, and each part of the rows all columns.
            let wanted = PARTS_EACH * threads;
            let row_parts = rows.div_ceil(UNSHARED_ROWS);
            let col_parts = wanted.div_ceil(row_parts).max(least_cols).min(panels);
            let tiles = rows.div_ceil(Shape::of(level).rows);
            (row_parts.max(wanted.div_ceil(col_parts).min(tiles)), col_parts)
        }
    };
    let (target, side, stride) = (Pointer(c), side.map(Pointer), cols);
    let part = |index: usize| {
        let (row, col) = (index / col_parts, index % col_parts);
        let (first_row, end_row) = (row * rows / row_parts, (row + 1) * rows / row_parts);
        let (first_panel, end_panel) = (col * panels / col_parts, (col + 1) * panels / col_parts);
        let a = a.slice_rows(first_row, end_row - first_row);
        let chunks = (end_panel - first_panel).div_ceil(PART_COLS / width).max(1);
        for chunk in 0..chunks {
            let from = |chunk| (first_panel + chunk * (end_panel - first_panel) / chunks) * width;
            let columns = from(chunk)..from(chunk + 1).min(cols);
            let first = first_row * cols + columns.start;
            // SAFETY: parts cover disjoint rows and columns within the room that the caller promises.
            unsafe {
                let c = target.at(first);
                blocked::run(level, a, right, columns.clone(), c, cols, begin);
                let side = side.as_ref().map(|side| side.at(first));
                let (rows, first_col, cols) = (first_row..end_row, columns.start, columns.len());
                let mut block = Block { values: c, side, stride, rows, first_col, cols, result: PhantomData };
                finish(&mut block);
                while block.next_row().is_some() {}
            }
        }
    };
    if threads == 1 {
        (0..row_parts * col_parts).for_each(part);
    } else {
        (0..row_parts * col_parts).into_par_iter().with_max_len(1).for_each(part);
    }
}

/// A finished part of a product: some rows, and of these some columns.
pub(crate) struct Block<'a> {
    values: *mut f32,
    side: Option<*mut f32>,
    stride: usize,
    /// Those that are yet to come.
    rows: Range<usize>,
    /// The first column, counted in the whole result.
    pub first_col: usize,
    /// Columns.
    pub cols: usize,
    result: PhantomData<&'a mut [f32]>,
}

/// A row of a [`Block`].
pub(crate) struct Row<'a> {
    /// Counted in the whole result.
    pub index: usize,
    /// Its values, in the columns of the block.
    pub values: &'a mut [f32],
    /// Those of the second result, zeros as yet, if there is one.
    pub side: Option<&'a mut [f32]>,
}

impl Block<'_> {
    /// The rows, one after the other.
    #[inline]
    pub(crate) fn next_row(&mut self) -> Option<Row<'_>> {
        let index = self.rows.next()?;
        // SAFETY: within the part, whose values are written and which nobody else reads or writes while the block
        // lives. Those beside it are written here: a row of zeros fits the first-level cache and costs little.
        unsafe {
            let values = std::slice::from_raw_parts_mut(self.values, self.cols);
            self.values = self.values.wrapping_add(self.stride);
            let side = self.side.map(|side| {
                side.write_bytes(0, self.cols);
                self.side = Some(side.wrapping_add(self.stride));
                std::slice::from_raw_parts_mut(side, self.cols)
            });
            Some(Row { index, values, side })
        }
    }
}

struct Pointer(*mut f32);

// SAFETY: threads reach disjoint values through it.
unsafe impl Sync for Pointer {}

impl Pointer {
    /// # Safety
    /// As for the pointer itself.
    unsafe fn at(&self, index: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(index) }
    }
}
