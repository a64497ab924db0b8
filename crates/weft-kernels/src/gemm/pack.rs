//! Copies of the operands in the order in which the kernel reads them.
#![expect(unsafe_code, reason = "scratch memory that is written before it is read")]

use std::cell::RefCell;
use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::Shape;
use super::transpose::transpose;
use super::{DEPTH, Matrix};
use crate::simd::{Level, prefetch_values};

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
    /// Copies `b` for products on `level`, on all threads.
    pub(crate) fn parallel(level: Level, b: Matrix<'_>) -> Self {
        let (mut packed, panels) = Self::empty(level, b);
        let (width, block) = (packed.width, DEPTH * panels * packed.width);
        packed.values.values_mut()[..b.rows * panels * width].par_chunks_mut(block.max(1)).enumerate().for_each(
            |(i, target)| {
                let start = i * DEPTH;
                let steps = DEPTH.min(b.rows - start);
                target.par_chunks_exact_mut(steps * width).enumerate().for_each(|(panel, target)| {
                    let first = panel * width;
                    copy_panels(level, target, b, start, steps, first..b.cols.min(first + width));
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

    /// The panels with `columns` of the block of `steps` rows that begins at row `start`.
    pub(super) fn panels(&self, start: usize, steps: usize, columns: Range<usize>) -> &[f32] {
        let block = start * self.cols.div_ceil(self.width) * self.width;
        let (first, end) = (columns.start / self.width, columns.end.div_ceil(self.width));
        &self.values.values()[block + first * steps * self.width..][..(end - first) * steps * self.width]
    }
}

/// The panels with `columns` of a right matrix that is not packed, in scratch room.
pub(super) fn right<'a>(
    level: Level,
    room: &'a mut Aligned,
    b: Matrix<'_>,
    start: usize,
    steps: usize,
    columns: Range<usize>,
) -> &'a [f32] {
    let width = Shape::of(level).width();
    let count = steps * columns.len().next_multiple_of(width);
    room.reserve(count);
    let target = &mut room.values_mut()[..count];
    copy_panels(level, target, b, start, steps, columns);
    target
}

/// Copies `steps` rows of `columns` as panels; columns past the last become zeros.
fn copy_panels(level: Level, target: &mut [f32], b: Matrix<'_>, start: usize, steps: usize, columns: Range<usize>) {
    let width = Shape::of(level).width();
    let from = &b.data[start * b.row_stride + columns.start * b.col_stride..];
    let whole = if b.col_stride == 1 { columns.len() / width } else { 0 };
    if whole > 0 {
        level.run(CopyRows { from, stride: b.row_stride, to: target, width, steps, panels: whole });
    }
    for (panel, target) in target.chunks_exact_mut(steps * width).enumerate().skip(whole) {
        let from = &from[panel * width * b.col_stride..];
        let inside = width.min(columns.len() - panel * width);
        if inside < width {
            target.fill(0.0);
        }
        if b.row_stride == 1 && b.col_stride != 1 {
            transpose(level, from, b.col_stride, inside, steps, target, width);
        } else {
            for (step, row) in target.chunks_exact_mut(width).enumerate() {
                let from = &from[step * b.row_stride..];
                row[..inside].iter_mut().enumerate().for_each(|(j, value)| *value = from[j * b.col_stride]);
            }
        }
    }
}

/// Copies contiguous rows as panels of `width` values, a multiple of the lanes. The rows are the outer loop, so that
/// they are read as they lie.
struct CopyRows<'a> {
    from: &'a [f32],
    stride: usize,
    to: &'a mut [f32],
    width: usize,
    steps: usize,
    panels: usize,
}

impl WithSimd for CopyRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match self.width / S::F32_LANES {
            2 => self.by::<S, 2>(),
            4 => self.by::<S, 4>(),
            _ => self.by::<S, 8>(),
        }
    }
}

impl CopyRows<'_> {
    /// With panels of `VECTORS` vectors.
    #[inline(always)]
    fn by<S: Simd, const VECTORS: usize>(self) {
        let Self { from, stride, to, width, steps, panels } = self;
        assert_eq!(width, VECTORS * S::F32_LANES);
        let to = S::as_mut_simd_f32s(to).0.as_chunks_mut::<VECTORS>().0;
        for step in 0..steps {
            if panels > 1 {
                prefetch_values(from, (step + AHEAD) * stride, panels * width);
            }
            let from = S::as_simd_f32s(&from[step * stride..][..panels * width]).0;
            for (panel, from) in from.as_chunks::<VECTORS>().0.iter().enumerate() {
                to[panel * steps + step] = *from;
            }
        }
    }
}

/// Rows that are asked for ahead of their use: pieces of rows are too short for the processor to foresee them.
const AHEAD: usize = 8;

/// From a row of a packed left matrix to the next. Odd in cache lines, so that the rows of a tile do not
/// compete for the same places of the first-level cache.
pub(super) const ROW: usize = DEPTH + 16;

/// Room for packed parts of both matrices, kept by each thread.
pub(super) struct Scratch {
    pub left: Aligned,
    pub right: Aligned,
}

impl Scratch {
    /// Calls `work` with this thread's scratch room. `work` must not come back here.
    pub(super) fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        thread_local!(static SCRATCH: RefCell<Scratch> =
            const { RefCell::new(Scratch { left: Aligned(Vec::new()), right: Aligned(Vec::new()) }) });
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
    room.reserve(rows * ROW);
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
        Order::Steps => level.run(CopySteps { from, stride: a.col_stride, to: target, rows, steps, most }),
    }
    Tiles { values: room.values(), rows, steps, most, order }
}

/// Copies columns that lie contiguously as tiles.
struct CopySteps<'a> {
    from: &'a [f32],
    stride: usize,
    to: &'a mut [f32],
    rows: usize,
    steps: usize,
    most: usize,
}

impl WithSimd for CopySteps<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        if self.most <= 8 { self.by::<8>() } else { self.by::<16>() }
    }
}

impl CopySteps<'_> {
    /// Copies `WIDTH` values for each step of a tile, at least as many as it has rows: the next steps overwrite the
    /// surplus. Only the end of a tile, where the next one begins, and that of the matrix need care.
    #[inline(always)]
    fn by<const WIDTH: usize>(self) {
        let Self { from, stride, to, rows, steps, most } = self;
        let count = rows.div_ceil(most);
        for step in 0..steps {
            prefetch_values(from, (step + AHEAD) * stride, rows);
            let from = &from[step * stride..];
            let (mut begin, mut tile) = (0, 0);
            while begin < rows {
                tile += 1;
                let end = tile * rows / count;
                let size = end - begin;
                let (from, to) = (&from[begin..], &mut to[begin * steps + step * size..]);
                match (from.first_chunk::<WIDTH>(), to.first_chunk_mut::<WIDTH>()) {
                    (Some(from), Some(to)) if step * size + WIDTH <= steps * size => *to = *from,
                    _ => to[..size].copy_from_slice(&from[..size]),
                }
                begin = end;
            }
        }
    }
}
