//! Copies of the operands in the order in which the kernel reads them.
#![expect(unsafe_code, reason = "scratch memory that is written before it is read")]

use std::cell::RefCell;

use super::kernel::Shape;
use super::{DEPTH, Matrix};
use crate::simd::Level;

/// 64 bytes, aligned as a cache line: unaligned 512-bit loads would touch two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// `f32` values that begin at a cache line.
pub(super) struct Aligned(Vec<Line>);

impl Aligned {
    pub(super) const fn empty() -> Self {
        Self(Vec::new())
    }

    /// `count` zeros.
    pub(super) fn zeros(count: usize) -> Self {
        Self(vec![Line([0.0; 16]); count.div_ceil(16)])
    }

    /// Grows to at least `count` values; the values are whatever was there before.
    fn reserve(&mut self, count: usize) {
        if self.0.len() * 16 < count {
            self.0.resize(count.div_ceil(16), Line([0.0; 16]));
        }
    }

    pub(super) fn values(&self) -> &[f32] {
        // SAFETY: a `Line` is sixteen `f32` without padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 16) }
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        // SAFETY: a `Line` is sixteen `f32` without padding.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 16) }
    }
}

/// The right matrix of a product in the order in which the kernel reads it: blocks of [`DEPTH`] rows, in each
/// block panels of `width` columns, in each panel row after row. The last panel is filled up with zeros.
pub(crate) struct Packed {
    values: Aligned,
    rows: usize,
    cols: usize,
    width: usize,
}

impl Packed {
    /// Copies `b` for products on `level`.
    pub(crate) fn new(level: Level, b: Matrix<'_>) -> Self {
        b.check();
        let width = Shape::of(level).width();
        let panels = b.cols.div_ceil(width);
        let mut values = Aligned::zeros(b.rows * panels * width);
        let target = values.values_mut();
        for start in (0..b.rows).step_by(DEPTH) {
            let steps = DEPTH.min(b.rows - start);
            let block = &mut target[start * panels * width..][..steps * panels * width];
            for (panel, target) in block.chunks_exact_mut(steps * width).enumerate() {
                right(target, b, start, steps, panel * width, width);
            }
        }
        Self { values, rows: b.rows, cols: b.cols, width }
    }

    /// Rows of the matrix.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Columns of a panel.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The panels of a block of rows, with their numbers.
    pub(super) fn panels(&self, depth: usize, steps: usize) -> impl Iterator<Item = (usize, &[f32])> {
        let panels = self.cols.div_ceil(self.width);
        let block = &self.values.values()[depth * DEPTH * panels * self.width..][..steps * panels * self.width];
        block.chunks_exact(steps * self.width).enumerate()
    }
}

/// Copies `steps` rows of `width` columns; columns past the last become zeros.
fn right(target: &mut [f32], b: Matrix<'_>, start: usize, steps: usize, column: usize, width: usize) {
    let inside = width.min(b.cols - column);
    if b.col_stride == 1 {
        for (step, row) in target.chunks_exact_mut(width).enumerate() {
            let from = &b.data[(start + step) * b.row_stride + column..][..inside];
            row[..inside].copy_from_slice(from);
            row[inside..].fill(0.0);
        }
    } else {
        if inside < width {
            target.fill(0.0);
        }
        for j in 0..inside {
            let from = &b.data[(column + j) * b.col_stride..];
            for step in 0..steps {
                target[step * width + j] = from[(start + step) * b.row_stride];
            }
        }
    }
}

/// From a row of a packed left matrix to the next. Odd in cache lines, so that the rows of a tile do not
/// compete for the same places of the first-level cache.
pub(super) const ROW: usize = DEPTH + 16;

/// Room for a block of the left matrix, kept by each thread.
pub(super) struct Scratch(Aligned);

impl Scratch {
    /// Calls `work` with this thread's scratch room.
    pub(super) fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        thread_local!(static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch(Aligned::empty())) });
        SCRATCH.with_borrow_mut(work)
    }
}

/// How the values of a tile lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Row after row, [`ROW`] values from one to the next.
    Rows,
    /// Step after step, each the values of all rows of the tile.
    Steps,
}

/// Some rows of the left matrix, as the kernel takes them at once.
pub(super) struct Tile<'a> {
    /// The first row, counted from that of the block.
    pub first: usize,
    pub rows: usize,
    pub order: Order,
    pub values: &'a [f32],
}

/// A block of the left matrix, cut into tiles of at most `most` rows.
pub(super) struct Tiles<'a> {
    values: &'a [f32],
    rows: usize,
    steps: usize,
    most: usize,
    order: Order,
}

impl<'a> Tiles<'a> {
    /// The tiles, of nearly the same size: thirteen rows are 7 + 6, since a tile of one row wastes the kernel.
    pub(super) fn iter(&self) -> impl Iterator<Item = Tile<'a>> {
        let Self { values, rows, steps, order, .. } = *self;
        let count = rows.div_ceil(self.most);
        (0..count).map(move |i| {
            let (first, end) = (i * rows / count, (i + 1) * rows / count);
            let start = if order == Order::Rows { first * ROW } else { first * steps };
            Tile { first, rows: end - first, order, values: &values[start..] }
        })
    }
}

/// Copies a block of the left matrix: `rows` rows from `first`, `steps` columns from `start`.
pub(super) fn left<'a>(
    scratch: &'a mut Scratch,
    a: Matrix<'_>,
    first: usize,
    rows: usize,
    start: usize,
    steps: usize,
    most: usize,
) -> Tiles<'a> {
    scratch.0.reserve(rows * ROW);
    let target = scratch.0.values_mut();
    let order = if a.col_stride != 1 && a.row_stride == 1 { Order::Steps } else { Order::Rows };
    match order {
        Order::Rows if a.col_stride == 1 => {
            for (row, target) in target.chunks_exact_mut(ROW).take(rows).enumerate() {
                let from = &a.data[(first + row) * a.row_stride + start..][..steps];
                target[..steps].copy_from_slice(from);
            }
        }
        Order::Rows => {
            for (row, target) in target.chunks_exact_mut(ROW).take(rows).enumerate() {
                let from = &a.data[(first + row) * a.row_stride + start * a.col_stride..];
                target[..steps].iter_mut().enumerate().for_each(|(step, value)| *value = from[step * a.col_stride]);
            }
        }
        Order::Steps => {
            let count = rows.div_ceil(most);
            for i in 0..count {
                let (begin, end) = (i * rows / count, (i + 1) * rows / count);
                let size = end - begin;
                let target = &mut target[begin * steps..end * steps];
                for (step, target) in target.chunks_exact_mut(size).enumerate() {
                    target.copy_from_slice(&a.data[(start + step) * a.col_stride + first + begin..][..size]);
                }
            }
        }
    }
    Tiles { values: scratch.0.values(), rows, steps, most, order }
}
