//! The products of attention and of chunks of positions: small, often ragged, one operand packed into panels.
//!
//! Every element of a result is one chain of fused multiply-adds over the inner axis in ascending order,
//! whatever the tile that it falls into. So a row's bits depend neither on its neighbours nor on how rows are
//! grouped, and continuing a sum that was stored gives the bits of the unbroken one.
#![expect(unsafe_code, reason = "register tiles read and write through pointers, checked once per product")]

use pulp::{Simd, WithSimd};

/// A bound that depends on the row: `first + slope * row`, kept between `least` and `most`.
///
/// A causal mask bounds which keys a query sees, and so which queries see a key; nothing beyond the bound is
/// computed, so that what lies there (a later token's NaN) cannot reach the result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ramp {
    pub(crate) first: isize,
    pub(crate) slope: isize,
    pub(crate) least: usize,
    pub(crate) most: usize,
}

impl Ramp {
    /// The same bound for every row.
    pub(crate) const fn flat(most: usize) -> Self {
        Self { first: most as isize, slope: 0, least: 0, most }
    }

    /// A bound that rises by one from row to row.
    pub(crate) const fn rising(first: isize, most: usize) -> Self {
        Self { first, slope: 1, least: 0, most }
    }

    #[inline(always)]
    pub(crate) fn at(self, row: usize) -> usize {
        (self.first + self.slope * row as isize).clamp(self.least as isize, self.most as isize) as usize
    }
}

/// `c[row, column] (+)= sum over k of a[row, k] * b[k, column]`, for `k` from `from(row)` to below `to(row)`.
///
/// `c` is written in whole vectors; columns past `columns(row)`, up to the end of a panel, hold no result.
pub(crate) struct Product<'a> {
    /// Element (row, k) stands at `row * a_row + k * a_column`.
    pub(crate) a: &'a [f32],
    pub(crate) a_row: usize,
    pub(crate) a_column: usize,
    /// Panels: see [`super::pack`].
    pub(crate) b: &'a [f32],
    /// How many rows `b` has.
    pub(crate) depth: usize,
    /// The row of `b` at which the inner axis starts.
    pub(crate) skip: usize,
    pub(crate) columns: Ramp,
    pub(crate) from: Ramp,
    pub(crate) to: Ramp,
    pub(crate) c: &'a mut [f32],
    pub(crate) c_row: usize,
    pub(crate) rows: usize,
    /// Add to what `c` holds.
    pub(crate) accumulate: bool,
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
        assert!(padded <= self.c_row || self.rows == 1, "product: a row overlaps the next");
        assert!((self.rows - 1) * self.c_row + padded <= self.c.len(), "product: past its end");
        assert!(
            self.skip + self.to.most <= self.depth && self.depth * padded <= self.b.len(),
            "product: panels too short"
        );
        let last = (self.rows - 1) * self.a_row + self.to.most.saturating_sub(1) * self.a_column;
        assert!(self.to.most == 0 || last < self.a.len(), "product: left operand too short");

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
                    // SAFETY: as above.
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
            let b = self.b.as_ptr().add(start * self.depth + self.skip * VECTORS * lanes);
            (self.a.as_ptr().add(row * a_row), b, c.add(row * c_row + start))
        };
        // Bounds rise or fall from row to row, so that those of the first and the last row say what is between.
        let (from, to) =
            ([row, row + ROWS - 1].map(|row| self.from.at(row)), [row, row + ROWS - 1].map(|row| self.to.at(row)));
        let (first, last) = (from[0].min(from[1]), to[0].max(to[1]));
        // Between these two, every row takes part.
        let (mut common, mut end) = (from[0].max(from[1]), to[0].min(to[1]));
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
        // Closures are not compiled for the instruction set of their caller: these loops are spelled out.
        // The order of the chain over k is kept: first the rows that begin early, then all, then those that end late.
        // SAFETY: as below.
        unsafe { self.ragged::<S, ROWS, VECTORS>(simd, &mut sums, first..common, row, a, b) };
        for k in common..end {
            // SAFETY: `k` is below `to`, so that the panel has row `k` and `a` column `k`.
            unsafe {
                let b = vectors::<S, VECTORS>(b.add(k * VECTORS * lanes));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = simd.splat_f32s(*a.add(r * a_row + k * a_column));
                    for v in 0..VECTORS {
                        sums[v] = simd.mul_add_f32s(a, b[v], sums[v]);
                    }
                }
            }
        }
        // SAFETY: as above.
        unsafe { self.ragged::<S, ROWS, VECTORS>(simd, &mut sums, end..last, row, a, b) };
        for (r, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                // SAFETY: inside `c`, by the caller's promise.
                unsafe { c.add(r * c_row + v * lanes).cast::<S::f32s>().write_unaligned(sum) };
            }
        }
    }
    /// The multiply-adds of a tile for the `range` of k in which only some rows take part.
    ///
    /// # Safety
    /// `a` and `b` have the rows and columns of the tile up to the end of the range.
    #[inline(always)]
    unsafe fn ragged<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        sums: &mut [[S::f32s; VECTORS]; ROWS],
        range: std::ops::Range<usize>,
        row: usize,
        a: *const f32,
        b: *const f32,
    ) {
        if range.is_empty() {
            return;
        }
        let (mut from, mut to) = ([0; ROWS], [0; ROWS]);
        for r in 0..ROWS {
            from[r] = self.from.at(row + r);
            to[r] = self.to.at(row + r);
        }
        for k in range {
            let now = simd.splat_u32s(k as u32);
            // SAFETY: the caller's promise.
            unsafe {
                let b = vectors::<S, VECTORS>(b.add(k * VECTORS * S::F32_LANES));
                for r in 0..ROWS {
                    // A selection, not a branch (the pattern is too irregular to predict) nor a factor of 0 (NaN).
                    let begun = simd.less_than_or_equal_u32s(simd.splat_u32s(from[r] as u32), now);
                    let takes_part = simd.and_m32s(begun, simd.less_than_u32s(now, simd.splat_u32s(to[r] as u32)));
                    let a = simd.splat_f32s(*a.add(r * self.a_row + k * self.a_column));
                    for v in 0..VECTORS {
                        let sum = simd.mul_add_f32s(a, b[v], sums[r][v]);
                        sums[r][v] = simd.select_f32s(takes_part, sum, sums[r][v]);
                    }
                }
            }
        }
    }
}

/// Consecutive vectors.
///
/// # Safety
/// They can be read.
#[inline(always)]
unsafe fn vectors<S: Simd, const VECTORS: usize>(from: *const f32) -> [S::f32s; VECTORS] {
    // SAFETY: the caller's promise; the vectors are plain numbers side by side.
    unsafe { from.cast::<[S::f32s; VECTORS]>().read_unaligned() }
}
