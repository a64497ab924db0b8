//! Products of a few rows, as decoding needs them: bound by the memory that the right matrix comes from, so it is
//! read once, in place, along its rows.
#![expect(unsafe_code, reason = "loads without bounds checks; the sizes are asserted before the loop")]
#![expect(clippy::needless_range_loop, reason = "counters over registers, which are unrolled")]

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::kernel::{Origin, Shape};
use super::{Matrix, Start};
use crate::simd::Level;

/// Rows at most: with more, copying a panel to the first-level cache costs less than it saves.
const MOST_ROWS: usize = 4;

/// Computes the first of `columns` of `a b`, in whole strips, and returns how many. The rest is a matter of the
/// blocked product, as is everything where `b` has no contiguous rows or `a` too many.
///
/// # Safety
/// `a.rows` rows of `columns.len()` values at a distance of `c_stride` may be written at `c`, and hold values if
/// `begin` is `Start::Result`.
pub(super) unsafe fn run(
    level: Level,
    a: Matrix<'_>,
    b: Matrix<'_>,
    columns: Range<usize>,
    c: *mut f32,
    c_stride: usize,
    begin: Start<'_>,
) -> usize {
    if a.rows == 0 || a.rows > MOST_ROWS || b.col_stride != 1 || a.cols == 0 {
        return 0;
    }
    a.check();
    b.check();
    assert!(a.cols == b.rows && columns.end <= b.cols);
    let strip = Strip {
        steps: a.cols,
        a: a.data.as_ptr(),
        row_stride: a.row_stride,
        step_stride: a.col_stride,
        // SAFETY: `b` has a value in each of `columns`, if there are any; else the pointer is not used.
        b: b.data.as_ptr().wrapping_add(columns.start),
        b_stride: b.row_stride,
        c,
        c_stride,
        start: match begin {
            Start::Zeros => None,
            Start::Result => Some(Origin { first: c, stride: c_stride }),
            Start::Columns(values) => Some(Origin { first: values[columns.clone()].as_ptr(), stride: 0 }),
        },
        columns: columns.len(),
        panel: Shape::of(level).width(),
    };
    macro_rules! by_rows {
        ($simd:expr, $($rows:literal: $vectors:literal),*) => {
            match a.rows {
                $($rows => Simd::vectorize($simd, Rows::<$rows, $vectors>(strip)),)*
                _ => 0,
            }
        };
    }
    // As many sums as there are registers, less those of the row of `b` and the values of `a`.
    match level {
        Level::Scalar => by_rows!(pulp::Scalar, 1: 8, 2: 8, 3: 8, 4: 8),
        #[cfg(target_arch = "aarch64")]
        Level::Neon(simd) => by_rows!(simd, 1: 8, 2: 8, 3: 4, 4: 4),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(simd) => by_rows!(simd, 1: 8, 2: 4, 3: 4, 4: 2),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(simd) => by_rows!(simd, 1: 8, 2: 8, 3: 6, 4: 6),
    }
}

#[derive(Clone, Copy)]
struct Strip {
    steps: usize,
    a: *const f32,
    row_stride: usize,
    step_stride: usize,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    start: Option<Origin>,
    columns: usize,
    /// Columns of a panel, in which the blocked product goes on.
    panel: usize,
}

/// `ROWS` rows, strips of `VECTORS` vectors, and narrower ones where these do not fit.
struct Rows<const ROWS: usize, const VECTORS: usize>(Strip);

impl<const ROWS: usize, const VECTORS: usize> WithSimd for Rows<ROWS, VECTORS> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let mut done = 0;
        // SAFETY: the strips lie within the columns that `run` was promised.
        unsafe {
            done += strips::<S, ROWS, VECTORS>(simd, &self.0, done);
            if VECTORS > 4 {
                done += strips::<S, ROWS, 4>(simd, &self.0, done);
            }
            if VECTORS > 2 {
                done += strips::<S, ROWS, 2>(simd, &self.0, done);
            }
        }
        done
    }
}

/// As many strips as fit from column `first` on, if they are whole panels wide; returns how many columns that were.
///
/// # Safety
/// `first` lies within the columns.
#[inline(always)]
unsafe fn strips<S: Simd, const ROWS: usize, const VECTORS: usize>(simd: S, strip: &Strip, first: usize) -> usize {
    let width = VECTORS * S::F32_LANES;
    if !width.is_multiple_of(strip.panel) {
        return 0;
    }
    let count = (strip.columns - first) / width;
    for index in 0..count {
        // SAFETY: the caller's promise, and the strip fits.
        unsafe { one::<S, ROWS, VECTORS>(simd, strip, first + index * width) };
    }
    count * width
}

/// The strip that begins at column `first`.
///
/// # Safety
/// The strip lies within the columns.
#[inline(always)]
unsafe fn one<S: Simd, const ROWS: usize, const VECTORS: usize>(simd: S, strip: &Strip, first: usize) {
    let Strip { steps, mut a, row_stride, step_stride, b, b_stride, c, c_stride, start, .. } = *strip;
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    // SAFETY: `run` asserted that both operands hold what is read, and was promised that the result may be written.
    unsafe {
        let mut b = b.add(first);
        let c = |row: usize, v: usize| c.add(row * c_stride + first + v * S::F32_LANES).cast::<S::f32s>();
        if let Some(start) = start {
            for row in 0..ROWS {
                for v in 0..VECTORS {
                    let from = start.first.add(row * start.stride + first + v * S::F32_LANES);
                    sums[row][v] = from.cast::<S::f32s>().read_unaligned();
                }
            }
        }
        for _ in 0..steps {
            let mut left = [simd.splat_f32s(0.0); ROWS];
            for row in 0..ROWS {
                left[row] = simd.splat_f32s(*a.add(row * row_stride));
            }
            for v in 0..VECTORS {
                let right = b.add(v * S::F32_LANES).cast::<S::f32s>().read_unaligned();
                for row in 0..ROWS {
                    sums[row][v] = simd.mul_add_e_f32s(left[row], right, sums[row][v]);
                }
            }
            a = a.wrapping_add(step_stride);
            b = b.wrapping_add(b_stride);
        }
        for row in 0..ROWS {
            for v in 0..VECTORS {
                c(row, v).write_unaligned(sums[row][v]);
            }
        }
    }
}
