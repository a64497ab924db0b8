//! Copies of the operands in the order in which the kernel reads them.
#![expect(unsafe_code, reason = "scratch memory that is written before it is read")]

use std::cell::RefCell;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::Shape;
use super::transpose::transpose;
use super::{DEPTH, Matrix};
use crate::simd::Level;

/// 64 bytes, aligned as a cache line: unaligned 512-bit loads would touch two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// `f32` values that begin at a cache line.
pub(super) struct Aligned(Vec<Line>);

impl Aligned {
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
        let (mut packed, panels) = Self::empty(level, b);
        let (width, block) = (packed.width, DEPTH * panels * packed.width);
        for (i, target) in packed.values.values_mut()[..b.rows * panels * width].chunks_mut(block.max(1)).enumerate() {
            let start = i * DEPTH;
            let steps = DEPTH.min(b.rows - start);
            for (panel, target) in target.chunks_exact_mut(steps * width).enumerate() {
                copy_panel(level, target, b, start, steps, panel * width);
            }
        }
        packed
    }

    /// [`Packed::new`] on all threads.
    pub(crate) fn parallel(level: Level, b: Matrix<'_>) -> Self {
        let (mut packed, panels) = Self::empty(level, b);
        let (width, block) = (packed.width, DEPTH * panels * packed.width);
        packed.values.values_mut()[..b.rows * panels * width].par_chunks_mut(block.max(1)).enumerate().for_each(
            |(i, target)| {
                let start = i * DEPTH;
                let steps = DEPTH.min(b.rows - start);
                target.par_chunks_exact_mut(steps * width).enumerate().for_each(|(panel, target)| {
                    copy_panel(level, target, b, start, steps, panel * width);
                });
            },
        );
        packed
    }

    /// Zeros in place of the values, and the number of panels in a block.
    fn empty(level: Level, b: Matrix<'_>) -> (Self, usize) {
        b.check();
        let width = Shape::of(level).width();
        let panels = b.cols.div_ceil(width);
        (Self { values: Aligned::zeros(b.rows * panels * width), rows: b.rows, cols: b.cols, width }, panels)
    }

    /// Rows of the matrix.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Asserts that the panels have the width of the level's kernel.
    pub(super) fn check(&self, level: Level) {
        assert_eq!(self.width, Shape::of(level).width(), "gemm: b was packed for another SIMD level");
    }

    /// Panel number `panel` of the block of `steps` rows that begins at row `start`.
    #[inline]
    pub(super) fn panel(&self, start: usize, steps: usize, panel: usize) -> &[f32] {
        let block = start * self.cols.div_ceil(self.width) * self.width;
        &self.values.values()[block + panel * steps * self.width..][..steps * self.width]
    }
}

/// One panel of a right matrix that is not packed, in scratch room.
pub(super) fn right<'a>(
    level: Level,
    room: &'a mut Aligned,
    b: Matrix<'_>,
    start: usize,
    steps: usize,
    column: usize,
) -> &'a [f32] {
    let count = steps * Shape::of(level).width();
    room.reserve(count);
    let target = &mut room.values_mut()[..count];
    copy_panel(level, target, b, start, steps, column);
    target
}

/// Copies `steps` rows of a panel's width from `column` on; columns past the last become zeros.
fn copy_panel(level: Level, target: &mut [f32], b: Matrix<'_>, start: usize, steps: usize, column: usize) {
    let width = Shape::of(level).width();
    let inside = width.min(b.cols - column);
    if inside < width {
        target.fill(0.0);
    }
    let from = &b.data[start * b.row_stride + column * b.col_stride..];
    if b.row_stride == 1 && b.col_stride != 1 {
        transpose(level, from, b.col_stride, inside, steps, target, width);
    } else if b.col_stride == 1 && inside == width {
        level.run(CopyRows { from, stride: b.row_stride, to: target, width });
    } else {
        for (step, row) in target.chunks_exact_mut(width).enumerate() {
            let from = &from[step * b.row_stride..];
            row[..inside].iter_mut().enumerate().for_each(|(j, value)| *value = from[j * b.col_stride]);
        }
    }
}

/// Copies rows of `width` values, a multiple of the lanes, next to each other.
struct CopyRows<'a> {
    from: &'a [f32],
    stride: usize,
    to: &'a mut [f32],
    width: usize,
}

impl WithSimd for CopyRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (row, to) in self.to.chunks_exact_mut(self.width).enumerate() {
            let from = &self.from[row * self.stride..][..self.width];
            S::as_mut_simd_f32s(to).0.copy_from_slice(S::as_simd_f32s(from).0);
        }
    }
}

/// From a row of a packed left matrix to the next. Odd in cache lines, so that the rows of a tile do not
/// compete for the same places of the first-level cache.
pub(super) const ROW: usize = DEPTH + 16;

/// Room for packed parts of both matrices, kept by each thread.
pub(super) struct Scratch {
    pub left: Aligned,
    pub panel: Aligned,
}

impl Scratch {
    /// Calls `work` with this thread's scratch room. `work` must not come back here.
    pub(super) fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        thread_local!(static SCRATCH: RefCell<Scratch> =
            const { RefCell::new(Scratch { left: Aligned(Vec::new()), panel: Aligned(Vec::new()) }) });
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

/// Copies `steps` columns from `start` of the left matrix, as tiles of at most `most` rows.
pub(super) fn left<'a>(
    level: Level,
    room: &'a mut Aligned,
    a: Matrix<'_>,
    start: usize,
    steps: usize,
    most: usize,
) -> Tiles<'a> {
    let rows = a.rows;
    // Copies of whole vectors may write past the last value of a tile.
    room.reserve(rows * ROW + 16);
    let target = room.values_mut();
    let from = &a.data[start * a.col_stride..];
    let order = if a.col_stride != 1 && a.row_stride == 1 { Order::Steps } else { Order::Rows };
    match order {
        Order::Rows if a.col_stride == 1 => {
            for (row, target) in target.chunks_exact_mut(ROW).take(rows).enumerate() {
                target[..steps].copy_from_slice(&from[row * a.row_stride..][..steps]);
            }
        }
        Order::Rows => {
            for (row, target) in target.chunks_exact_mut(ROW).take(rows).enumerate() {
                let from = &from[row * a.row_stride..];
                target[..steps].iter_mut().enumerate().for_each(|(step, value)| *value = from[step * a.col_stride]);
            }
        }
        Order::Steps => {
            let count = rows.div_ceil(most);
            for tile in 0..count {
                let (begin, end) = (tile * rows / count, (tile + 1) * rows / count);
                let (from, to) = (&from[begin..], &mut target[begin * steps..]);
                level.run(CopySteps { from, stride: a.col_stride, to, size: end - begin, steps });
            }
        }
    }
    Tiles { values: room.values(), rows, steps, most, order }
}

/// Copies `steps` pieces of `size` values next to each other; may write up to sixteen values further.
struct CopySteps<'a> {
    from: &'a [f32],
    stride: usize,
    to: &'a mut [f32],
    size: usize,
    steps: usize,
}

impl WithSimd for CopySteps<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { from, stride, to, size, steps } = self;
        for step in 0..steps {
            let (from, to) = (&from[step * stride..], &mut to[step * size..]);
            // A whole vector, whose surplus the next piece overwrites, where both sides have room for it.
            if size <= 16 && from.len() >= 16 && to.len() >= 16 {
                to[..16].copy_from_slice(&from[..16]);
            } else {
                to[..size].copy_from_slice(&from[..size]);
            }
        }
    }
}
