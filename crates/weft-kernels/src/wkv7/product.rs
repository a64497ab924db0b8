//! Products of the small matrices of a chunk. All have rows of one width, a whole number of tiles, so that nothing is
//! packed and no column needs care.
#![expect(unsafe_code, reason = "register tiles read and write through pointers, checked once per product")]

use pulp::Simd;

/// Columns of a tile, in vectors; widths are multiples of it.
const TILE_VECTORS: usize = 2;
const TILE_ROWS: usize = 4;

/// The width in which rows of `size` values are stored.
pub(super) fn padded<S: Simd>(size: usize) -> usize {
    size.next_multiple_of(TILE_VECTORS * S::F32_LANES)
}

/// A left matrix: element `(i, k)` is `values[i * row + k * step]`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub values: &'a [f32],
    pub row: usize,
    pub step: usize,
}

impl<'a> Left<'a> {
    /// Rows of `width` values.
    pub(super) fn rows(values: &'a [f32], width: usize) -> Self {
        Self { values, row: width, step: 1 }
    }

    /// Their transpose.
    pub(super) fn columns(values: &'a [f32], width: usize) -> Self {
        Self { values, row: 1, step: width }
    }

    /// One row, whose values lie `step` apart from `first` on.
    pub(super) fn line(values: &'a [f32], first: usize, step: usize) -> Self {
        Self { values: &values[first.min(values.len())..], row: 0, step }
    }
}

/// `to += left right`: `right` has `steps` rows of `width` values, `to` has `rows`.
#[inline(always)]
pub(super) fn add_product<S: Simd>(
    simd: S,
    to: &mut [f32],
    left: Left<'_>,
    right: &[f32],
    [rows, steps, width]: [usize; 3],
) {
    if rows == 0 || steps == 0 {
        return;
    }
    let tile = TILE_VECTORS * S::F32_LANES;
    let last = (rows - 1) * left.row + (steps - 1) * left.step;
    assert!(last < left.values.len() && steps * width <= right.len() && rows * width <= to.len());
    assert!(width.is_multiple_of(tile), "wkv7: rows of {width} values");
    let (left_first, right, to) = (left.values.as_ptr(), right.as_ptr(), to.as_mut_ptr());
    let strides = [left.row, left.step, width];
    let whole = rows / TILE_ROWS * TILE_ROWS;
    for row in (0..whole).step_by(TILE_ROWS) {
        for column in (0..width).step_by(tile) {
            // SAFETY: the tile's rows and columns lie within what was asserted.
            unsafe {
                let (left, to) = (left_first.add(row * left.row), to.add(row * width + column));
                tile_of::<S, TILE_ROWS, TILE_VECTORS>(simd, to, left, right.add(column), strides, steps);
            }
        }
    }
    for row in whole..rows {
        let mut column = 0;
        while column < width {
            // A row alone is wide instead of high: as many chains of multiply-adds hide their latency.
            // SAFETY: as above.
            unsafe {
                let (left, to, right) =
                    (left_first.add(row * left.row), to.add(row * width + column), right.add(column));
                let vectors = (width - column) / S::F32_LANES;
                if vectors >= 8 {
                    tile_of::<S, 1, 8>(simd, to, left, right, strides, steps);
                    column += 8 * S::F32_LANES;
                } else if vectors >= 4 {
                    tile_of::<S, 1, 4>(simd, to, left, right, strides, steps);
                    column += 4 * S::F32_LANES;
                } else {
                    tile_of::<S, 1, TILE_VECTORS>(simd, to, left, right, strides, steps);
                    column += tile;
                }
            }
        }
    }
}

/// `ROWS` rows of `VECTORS` vectors of a product.
///
/// # Safety
/// They can be read and written at `to`; `steps` values of each row can be read at `left`, and as many rows of `VECTORS`
/// vectors at `right`. The strides are those of left's rows, of its steps, and of the rows of `right` and `to`.
#[inline(always)]
unsafe fn tile_of<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    to: *mut f32,
    left: *const f32,
    right: *const f32,
    [row, step, width]: [usize; 3],
    steps: usize,
) {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    // SAFETY: the caller's promise, in all of this.
    unsafe {
        for (r, sums) in sums.iter_mut().enumerate() {
            *sums = to.add(r * width).cast::<[S::f32s; VECTORS]>().read_unaligned();
        }
        for k in 0..steps {
            let right = right.add(k * width).cast::<[S::f32s; VECTORS]>().read_unaligned();
            for (r, sums) in sums.iter_mut().enumerate() {
                let left = simd.splat_f32s(*left.add(r * row + k * step));
                for (sum, &right) in sums.iter_mut().zip(&right) {
                    *sum = simd.mul_add_f32s(left, right, *sum);
                }
            }
        }
        for (r, &sums) in sums.iter().enumerate() {
            to.add(r * width).cast::<[S::f32s; VECTORS]>().write_unaligned(sums);
        }
    }
}

/// Inner products that are made side by side.
const DOTS: usize = 8;

/// `to[i] = line . rows[i]` for at least the first `count` rows, all of the width of `line`; a few more, as far as there
/// are such, may be written too.
#[inline(always)]
pub(super) fn inner_products<S: Simd>(simd: S, to: &mut [f32], line: &[f32], rows: &[f32], count: usize) {
    let width = line.len();
    let (line, _) = S::as_simd_f32s(line);
    let groups = rows.chunks_exact(DOTS * width).zip(to.chunks_exact_mut(DOTS));
    for (rows, to) in groups.take(count.div_ceil(DOTS)) {
        let (rows, _) = S::as_simd_f32s(rows);
        let vectors = line.len();
        assert!(rows.len() == DOTS * vectors);
        let mut sums = [simd.splat_f32s(0.0); DOTS];
        for (at, &value) in line.iter().enumerate() {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = simd.mul_add_f32s(value, rows[i * vectors + at], *sum);
            }
        }
        for (to, &sum) in to.iter_mut().zip(&sums) {
            *to = simd.reduce_sum_f32s(sum);
        }
    }
}
