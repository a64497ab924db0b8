//! The product of a few rows with a packed panel of columns: the inner loop of every step.
#![expect(unsafe_code, reason = "operands are read through strides, several workers beside each other")]

use pulp::{Simd, WithSimd};

use crate::simd::prefetch_far;

/// The most vectors that a panel may be wide.
pub(crate) const MOST_VECTORS: usize = 4;

/// Values of a panel that all rows pass before the next ones are read: 16 KiB, half of a first-level cache.
const PANEL_IN_CACHE: usize = 4096;

/// `out (+)= a * panel`, for `rows` rows of `a` and a panel of `vectors` vectors of columns.
///
/// Every element is one chain of fused multiply-adds over the inner index in its order (that goes through
/// the `chunks` of `a` one after the other), whatever the number of rows: a row's result does not depend on
/// the other rows.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    /// The first element of `a`.
    pub(crate) a: *const f32,
    /// Rows of `a` and `out`.
    pub(crate) rows: usize,
    /// From a row of `a` to the next.
    pub(crate) row_stride: usize,
    /// From one inner index to the next, inside a chunk.
    pub(crate) inner_stride: usize,
    /// Inner indices of a chunk.
    pub(crate) chunk: usize,
    /// Chunks.
    pub(crate) chunks: usize,
    /// From a chunk to the next.
    pub(crate) chunk_stride: usize,
    /// The panel's first element.
    pub(crate) panel: *const f32,
    /// From one inner index to the next in the panel.
    pub(crate) panel_stride: usize,
    /// From one vector to the next in the panel.
    pub(crate) vector_stride: usize,
    /// Vectors of the panel that take part, at most [`MOST_VECTORS`].
    pub(crate) vectors: usize,
    /// For each row, `vectors` vectors.
    pub(crate) out: *mut f32,
    /// From a row of `out` to the next.
    pub(crate) out_stride: usize,
    /// Whether the chains begin with what `out` holds; otherwise with zero.
    pub(crate) accumulate: bool,
}

impl Product {
    /// Runs it.
    ///
    /// # Safety
    /// Every element that the strides reach can be read (`a`, `panel`) or written (`out`), and no other
    /// worker writes them meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd>(self, simd: S) {
        if self.rows > 0 {
            simd.vectorize(self);
        }
    }
}

impl WithSimd for Product {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let most = (PANEL_IN_CACHE / (self.vectors * S::F32_LANES)).max(1);
        if self.chunk * self.chunks <= most {
            return self.rows(simd, 0);
        }
        // Long chunks are cut, short ones taken together; the chains go on with what the part before left.
        let (inner, together) = (most.min(self.chunk), (most / self.chunk).max(1));
        let mut accumulate = self.accumulate;
        for chunk in (0..self.chunks).step_by(together) {
            for first in (0..self.chunk).step_by(inner) {
                let part = Self {
                    a: self.a.wrapping_add(chunk * self.chunk_stride + first * self.inner_stride),
                    chunk: inner.min(self.chunk - first),
                    chunks: together.min(self.chunks - chunk),
                    panel: self.panel.wrapping_add((chunk * self.chunk + first) * self.panel_stride),
                    accumulate,
                    ..self
                };
                // What follows is the next part, or the next panel.
                part.rows(simd, part.chunk * part.chunks * part.panel_stride);
                accumulate = true;
            }
        }
    }
}

impl Product {
    /// All rows, in tiles; the panel is read once for each. Meanwhile so many values are asked for that begin where it
    /// ends.
    #[inline(always)]
    fn rows<S: Simd>(self, simd: S, ahead: usize) {
        // As many rows at once as leave a register for each accumulator, a row of the panel and a factor.
        let wide = S::REGISTER_COUNT >= 32;
        let most = match (self.vectors, wide) {
            (4, true) => 6,
            (4, false) => 3,
            (3, false) => 4,
            (2, false) => 6,
            _ => 8,
        };
        // Tiles of nearly the same height: a low one cannot hide the latency of its additions.
        let tiles = self.rows.div_ceil(most);
        for tile in 0..tiles {
            let (from, to) = (self.rows * tile / tiles, self.rows * (tile + 1) / tiles);
            for value in (ahead * tile / tiles..ahead * (tile + 1) / tiles).step_by(16) {
                prefetch_far(self.panel.wrapping_add(ahead + value));
            }
            match self.vectors {
                1 => self.columns::<S, 1>(simd, from, to - from),
                2 => self.columns::<S, 2>(simd, from, to - from),
                3 => self.columns::<S, 3>(simd, from, to - from),
                4 => self.columns::<S, 4>(simd, from, to - from),
                other => unreachable!("a panel of {other} vectors"),
            }
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const N: usize>(&self, simd: S, from: usize, rows: usize) {
        match rows {
            1 => self.tile::<S, 1, N>(simd, from),
            2 => self.tile::<S, 2, N>(simd, from),
            3 => self.tile::<S, 3, N>(simd, from),
            4 => self.tile::<S, 4, N>(simd, from),
            5 => self.tile::<S, 5, N>(simd, from),
            6 => self.tile::<S, 6, N>(simd, from),
            7 => self.tile::<S, 7, N>(simd, from),
            8 => self.tile::<S, 8, N>(simd, from),
            other => unreachable!("a tile of {other} rows"),
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(&self, simd: S, from: usize) {
        let mut sums = [[simd.splat_f32s(0.0); N]; M];
        // SAFETY: the promise of `run`: everything that the strides reach may be used.
        unsafe {
            let out = self.out.add(from * self.out_stride);
            if self.accumulate {
                for (m, row) in sums.iter_mut().enumerate() {
                    for (n, sum) in row.iter_mut().enumerate() {
                        *sum = out.add(m * self.out_stride + n * S::F32_LANES).cast::<S::f32s>().read_unaligned();
                    }
                }
            }
            let mut panel = self.panel;
            for chunk in 0..self.chunks {
                let mut a = self.a.add(from * self.row_stride + chunk * self.chunk_stride);
                for _ in 0..self.chunk {
                    // The smaller side stays in registers: both together would not fit where there are sixteen.
                    if M < N {
                        let mut factors = [simd.splat_f32s(0.0); M];
                        for (m, value) in factors.iter_mut().enumerate() {
                            *value = simd.splat_f32s(*a.add(m * self.row_stride));
                        }
                        for n in 0..N {
                            let vector = panel.add(n * self.vector_stride).cast::<S::f32s>().read_unaligned();
                            for (sums, &factor) in sums.iter_mut().zip(&factors) {
                                sums[n] = simd.mul_add_e_f32s(factor, vector, sums[n]);
                            }
                        }
                    } else {
                        let mut vectors = [simd.splat_f32s(0.0); N];
                        for (n, value) in vectors.iter_mut().enumerate() {
                            *value = panel.add(n * self.vector_stride).cast::<S::f32s>().read_unaligned();
                        }
                        for (m, sums) in sums.iter_mut().enumerate() {
                            let factor = simd.splat_f32s(*a.add(m * self.row_stride));
                            for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                                *sum = simd.mul_add_e_f32s(factor, vector, *sum);
                            }
                        }
                    }
                    a = a.add(self.inner_stride);
                    panel = panel.add(self.panel_stride);
                }
            }
            for (m, row) in sums.iter().enumerate() {
                for (n, &sum) in row.iter().enumerate() {
                    out.add(m * self.out_stride + n * S::F32_LANES).cast::<S::f32s>().write_unaligned(sum);
                }
            }
        }
    }
}
