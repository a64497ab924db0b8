//! The products of attention: small, often ragged, one operand packed into panels.
//!
//! Every element of a result is one chain of fused multiply-adds over the inner axis in ascending order,
//! whatever the tile that it falls into. So a row's bits depend neither on its neighbours nor on how rows are
//! grouped, and continuing a sum that was stored gives the bits of the unbroken one.
#![expect(unsafe_code, reason = "register tiles read and write through pointers, checked once per product")]

use pulp::{Simd, WithSimd};

/// A bound that depends on the row: `first + slope * row`, kept between 0 and `most`.
///
/// A causal mask bounds which keys a query sees, and so which queries see a key; nothing beyond the bound is
/// computed, so that what lies there (a later token's NaN) cannot reach the result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ramp {
    pub(super) first: isize,
    pub(super) slope: isize,
    pub(super) most: usize,
}

impl Ramp {
    /// The same bound for every row.
    pub(super) const fn flat(most: usize) -> Self {
        Self { first: most as isize, slope: 0, most }
    }

    #[inline(always)]
    pub(super) fn at(self, row: usize) -> usize {
        (self.first + self.slope * row as isize).clamp(0, self.most as isize) as usize
    }
}

/// `c[row, column] (+)= sum over k of a[row, k] * b[k, column]`, for `k` from `from(row)` to below `to(row)`.
///
/// `c` is written in whole vectors; columns past `columns(row)`, up to the end of a panel, hold no result.
pub(super) struct Product<'a> {
    /// Element (row, k) stands at `row * a_row + k * a_column`.
    pub(super) a: &'a [f32],
    pub(super) a_row: usize,
    pub(super) a_column: usize,
    /// Panels: see [`super::pack`].
    pub(super) b: &'a [f32],
    /// How many rows `b` has: the whole inner axis.
    pub(super) depth: usize,
    pub(super) columns: Ramp,
    pub(super) from: Ramp,
    pub(super) to: Ramp,
    pub(super) c: &'a mut [f32],
    pub(super) c_row: usize,
    pub(super) rows: usize,
    /// Add to what `c` holds.
    pub(super) accumulate: bool,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        // 8 rows of 2 vectors, or 6 where there are 16 registers: enough chains to hide the latency of a
        // multiply-add, and fewer loads than multiply-adds.
        let most_rows = if S::REGISTER_COUNT >= 32 { 8 } else { 6 };
        let columns = self.columns.at(self.rows.saturating_sub(1)).max(self.columns.at(0));
        if self.rows == 0 || columns == 0 {
            return;
        }
        let padded = columns.next_multiple_of(2 * lanes).min(self.columns.most.next_multiple_of(lanes));
        assert!(padded <= self.c_row || self.rows == 1, "attention: a row of the product overlaps the next");
        assert!((self.rows - 1) * self.c_row + padded <= self.c.len(), "attention: product past its end");
        assert!(self.to.most <= self.depth && self.depth * padded <= self.b.len(), "attention: panels too short");
        let last = (self.rows - 1) * self.a_row + self.to.most.saturating_sub(1) * self.a_column;
        assert!(self.to.most == 0 || last < self.a.len(), "attention: left operand too short");

        let c = self.c.as_mut_ptr();
        let tiles = self.rows.div_ceil(most_rows);
        for start in (0..padded).step_by(2 * lanes) {
            let wide = start + lanes < self.columns.most.next_multiple_of(lanes);
            let mut row = 0;
            for tile in 0..tiles {
                let rows = self.rows / tiles + usize::from(tile < self.rows % tiles);
                if start < self.columns.at(row).max(self.columns.at(row + rows - 1)) {
                    self.tile_of(simd, c, row, rows, start, wide);
                }
                row += rows;
            }
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn tile_of<S: Simd>(&self, simd: S, c: *mut f32, row: usize, rows: usize, start: usize, wide: bool) {
        macro_rules! tiles {
            ($($rows:literal)*) => {
                match (rows, wide) {
                    // SAFETY: `with_simd` checked that every index of a row below `rows` is inside its slice.
                    $(($rows, true) => unsafe { self.tile::<S, $rows, 2>(simd, c, row, start) },
                    ($rows, false) => unsafe { self.tile::<S, $rows, 1>(simd, c, row, start) },)*
                    _ => unreachable!("a tile has 1 to 8 rows"),
                }
            };
        }
        tiles!(1 2 3 4 5 6 7 8)
    }

    /// `ROWS` rows of `VECTORS` vectors from column `start`.
    ///
    /// # Safety
    /// `c` is the start of `self.c`; the tile lies inside it, its panel inside `b`, and its rows inside `a`.
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        c: *mut f32,
        row: usize,
        start: usize,
    ) {
        let lanes = S::F32_LANES;
        let (a_row, a_column, c_row) = (self.a_row, self.a_column, self.c_row);
        // SAFETY: the caller's promise; panels before this one hold `depth` rows of `start` columns together.
        let (a, b, c) = unsafe {
            (self.a.as_ptr().add(row * a_row), self.b.as_ptr().add(start * self.depth), c.add(row * c_row + start))
        };
        let mut from = [0; ROWS];
        let mut to = [0; ROWS];
        for r in 0..ROWS {
            from[r] = self.from.at(row + r);
            to[r] = self.to.at(row + r);
        }
        let first = from[0].min(from[ROWS - 1]);
        let last = to[0].max(to[ROWS - 1]);
        // Between these two, every row takes part.
        let (mut common, mut end) = (from[0].max(from[ROWS - 1]), to[0].min(to[ROWS - 1]));
        if common >= end {
            (common, end) = (last.max(first), last.max(first));
        }

        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        if self.accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: inside `c`, by the caller's promise.
                    *sum = unsafe { c.add(r * c_row + v * lanes).cast::<S::f32s>().read_unaligned() };
                }
            }
        }
        // SAFETY: `k` is below `to`, so that the panel has row `k` and `a` column `k`.
        let panel = |k: usize| -> [S::f32s; VECTORS] {
            std::array::from_fn(|v| unsafe { b.add((k * VECTORS + v) * lanes).cast::<S::f32s>().read_unaligned() })
        };
        let ragged = |sums: &mut [[S::f32s; VECTORS]; ROWS], k: usize| {
            let b = panel(k);
            for r in 0..ROWS {
                if from[r] <= k && k < to[r] {
                    // SAFETY: as for `panel`.
                    let a = simd.splat_f32s(unsafe { *a.add(r * a_row + k * a_column) });
                    for v in 0..VECTORS {
                        sums[r][v] = simd.mul_add_f32s(a, b[v], sums[r][v]);
                    }
                }
            }
        };
        for k in first..common {
            ragged(&mut sums, k);
        }
        for k in common..end {
            let b = panel(k);
            for r in 0..ROWS {
                // SAFETY: as for `panel`.
                let a = simd.splat_f32s(unsafe { *a.add(r * a_row + k * a_column) });
                for v in 0..VECTORS {
                    sums[r][v] = simd.mul_add_f32s(a, b[v], sums[r][v]);
                }
            }
        }
        for k in end..last {
            ragged(&mut sums, k);
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                // SAFETY: inside `c`, by the caller's promise.
                unsafe { c.add(r * c_row + v * lanes).cast::<S::f32s>().write_unaligned(sum) };
            }
        }
    }
}
