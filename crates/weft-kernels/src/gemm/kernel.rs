//! The innermost loops: a tile of the result stays in registers while the inner axis passes by.
#![expect(unsafe_code, reason = "loads without bounds checks; the sizes are asserted before the loop")]
#![expect(clippy::needless_range_loop, reason = "counters over registers, which are unrolled")]

use pulp::{Simd, WithSimd};

use super::pack::{Order, ROW, Tile};
use crate::simd::{Level, prefetch};

/// The size of a tile of the result: as many registers as the level has, less those of a row of the panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Rows at most.
    pub rows: usize,
    /// Vectors in a row.
    vectors: usize,
    /// Values in a vector.
    lanes: usize,
}

impl Shape {
    pub(super) fn of(level: Level) -> Self {
        match level {
            Level::Scalar => Self { rows: 4, vectors: 8, lanes: 1 },
            #[cfg(target_arch = "aarch64")]
            Level::Neon(_) => Self { rows: 6, vectors: 4, lanes: 4 },
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => Self { rows: 6, vectors: 2, lanes: 8 },
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => Self { rows: 14, vectors: 2, lanes: 16 },
        }
    }

    /// Columns of a tile.
    pub(super) fn width(self) -> usize {
        self.vectors * self.lanes
    }
}

/// The largest tile of any level.
const LARGEST: usize = 14 * 32;

/// Where a tile of the result goes.
pub(super) struct Target {
    /// Its first value.
    pub first: *mut f32,
    /// From a row to the next.
    pub stride: usize,
    /// Columns of the panel that are real.
    pub width: usize,
    /// What the chains begin with; zeros if there is nothing.
    pub start: Option<Origin>,
}

/// The first of the values that chains begin with.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub first: *const f32,
    /// From a row to the next; 0 if all rows begin alike.
    pub stride: usize,
}

/// Multiplies a tile of the left matrix with a panel of the right one.
///
/// # Safety
/// The rows and columns of the target may be written, and those of its start be read.
#[inline]
pub(super) unsafe fn tile(level: Level, tile: &Tile<'_>, panel: &[f32], steps: usize, target: Target) {
    let shape = Shape::of(level);
    let full = shape.width();
    let needed = if tile.order == Order::Rows { (tile.rows - 1) * ROW + steps } else { tile.rows * steps };
    assert!(panel.len() >= steps * full && tile.rows <= shape.rows && tile.values.len() >= needed);
    if target.width == full {
        // SAFETY: the sizes were asserted above, the target is the caller's promise.
        unsafe { dispatch(level, tile, panel, steps, target) };
        return;
    }
    let mut buffer = [0.0; LARGEST];
    let rows = (0..tile.rows).zip(buffer.chunks_exact_mut(full));
    // SAFETY: the buffer holds the largest tile, the target is the caller's promise.
    unsafe {
        if let Some(start) = target.start {
            for (row, buffer) in rows {
                start.first.add(row * start.stride).copy_to_nonoverlapping(buffer.as_mut_ptr(), target.width);
            }
        }
        let first = buffer.as_mut_ptr();
        let start = target.start.map(|_| Origin { first, stride: full });
        let inner = Target { first, stride: full, width: full, start };
        dispatch(level, tile, panel, steps, inner);
        for (row, buffer) in (0..tile.rows).zip(buffer.chunks_exact(full)) {
            buffer.as_ptr().copy_to_nonoverlapping(target.first.add(row * target.stride), target.width);
        }
    }
}

/// Runs the kernel for the tile's number of rows.
///
/// # Safety
/// The tile holds its rows of `steps` values, `panel` as many rows of a full width, and the target may be
/// written, and its start read, in full width.
unsafe fn dispatch(level: Level, tile: &Tile<'_>, panel: &[f32], steps: usize, target: Target) {
    let (a, b) = (tile.values.as_ptr(), panel.as_ptr());
    let operation = Operation { steps, a, b, c: target.first, c_stride: target.stride, start: target.start };
    macro_rules! by_rows {
        ($simd:expr, $vectors:literal, $($rows:literal)*) => {
            match (tile.rows, tile.order) {
                $(
                    ($rows, Order::Rows) => Simd::vectorize($simd, Kernel::<$rows, $vectors, ROW, 1>(operation)),
                    ($rows, Order::Steps) => Simd::vectorize($simd, Kernel::<$rows, $vectors, 1, $rows>(operation)),
                )*
                _ => unreachable!("a tile has at most the rows of the level's shape"),
            }
        };
    }
    match level {
        Level::Scalar => by_rows!(pulp::Scalar, 8, 1 2 3 4),
        #[cfg(target_arch = "aarch64")]
        Level::Neon(simd) => by_rows!(simd, 4, 1 2 3 4 5 6),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(simd) => by_rows!(simd, 2, 1 2 3 4 5 6),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(simd) => by_rows!(simd, 2, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    }
}

struct Operation {
    steps: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    c_stride: usize,
    start: Option<Origin>,
}

/// One tile: `ROWS` rows of `VECTORS` vectors; the left values lie `ROW_STRIDE` and `STEP_STRIDE` apart.
struct Kernel<const ROWS: usize, const VECTORS: usize, const ROW_STRIDE: usize, const STEP_STRIDE: usize>(Operation);

impl<const ROWS: usize, const VECTORS: usize, const ROW_STRIDE: usize, const STEP_STRIDE: usize> WithSimd
    for Kernel<ROWS, VECTORS, ROW_STRIDE, STEP_STRIDE>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Operation { steps, mut a, mut b, c, c_stride, start } = self.0;
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        // SAFETY: `dispatch` promises that the three operands hold what is read and written here.
        unsafe {
            if let Some(Origin { first, stride }) = start {
                for i in 0..ROWS {
                    for v in 0..VECTORS {
                        sums[i][v] = load(simd, first.add(i * stride + v * S::F32_LANES));
                    }
                }
            }
            for _ in 0..steps {
                let mut right = [simd.splat_f32s(0.0); VECTORS];
                for v in 0..VECTORS {
                    right[v] = load(simd, b.add(v * S::F32_LANES));
                }
                for v in (0..VECTORS * S::F32_LANES).step_by(16) {
                    prefetch(b.wrapping_add(AHEAD * VECTORS * S::F32_LANES + v));
                }
                for i in 0..ROWS {
                    let left = simd.splat_f32s(*a.add(i * ROW_STRIDE));
                    for v in 0..VECTORS {
                        sums[i][v] = simd.mul_add_e_f32s(left, right[v], sums[i][v]);
                    }
                }
                a = a.add(STEP_STRIDE);
                b = b.add(VECTORS * S::F32_LANES);
            }
            for i in 0..ROWS {
                for v in 0..VECTORS {
                    c.add(i * c_stride + v * S::F32_LANES).cast::<S::f32s>().write_unaligned(sums[i][v]);
                }
            }
        }
    }
}

/// Steps for which the panel is asked for ahead: the first tile of a panel finds it in the second-level cache.
const AHEAD: usize = 12;

/// # Safety
/// A vector's worth of values can be read at `from`.
#[inline(always)]
unsafe fn load<S: Simd>(_: S, from: *const f32) -> S::f32s {
    // SAFETY: the caller's promise; the vector types are plain values of any bits.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}
