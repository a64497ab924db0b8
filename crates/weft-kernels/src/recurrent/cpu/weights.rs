//! Weights' gradients: one product over all running rows of all steps.
#![expect(unsafe_code, reason = "workers write their own columns of shared gradients")]

use std::ops::Range;

use pulp::Simd;

use super::super::product::{MOST_VECTORS, Product};
use super::super::team::{Buffer, Shared};

/// Running rows that are summed at once: 128 rows of four vectors of gradients are 16 or 32 KiB and stay in the
/// first-level cache while the states pass by; of 512 states they are 256 KiB, which stay in the second.
const ROWS_PER_PART: usize = 128;

/// States of a tile: 12 values of the result's rows, three, four or six times a level's tile.
const TILE: usize = 12;

/// Gradients of what a product made: for each vector of units and each running row, a vector for each gate.
#[derive(Clone, Copy)]
pub(crate) struct Upstream<'a> {
    pub(crate) values: Shared<'a>,
    /// From a vector of units to the next.
    pub(crate) unit_stride: usize,
    /// From a running row to the next.
    pub(crate) row_stride: usize,
    pub(crate) gates: usize,
    /// Running rows.
    pub(crate) total: usize,
}

/// `gradient = left^T * upstream` for the units of one worker, where `gradient` is `[rows, gates * hidden]`.
///
/// `lefts` are `[total, rows padded to lanes]`, each for some of the gates. The sums go through the running rows in
/// their order, whatever the number of workers.
#[inline(always)]
pub(crate) fn weight_gradient<S: Simd>(
    simd: S,
    units: Range<usize>,
    upstream: Upstream<'_>,
    lefts: &[(Shared<'_>, Range<usize>)],
    rows: usize,
    hidden: usize,
    gradient: Shared<'_>,
) {
    let Upstream { values, unit_stride, row_stride, gates, total } = upstream;
    let lanes = S::F32_LANES;
    let padded = rows.next_multiple_of(lanes);
    // A vector of columns for each gate, in each row of the result. One gate alone fills no tile: then several units'.
    let columns = units.len() * gates * lanes;
    let together = if gates == 1 { MOST_VECTORS } else { 1 };
    let mut sums = Buffer::new(rows * columns);
    let mut tiles = Buffer::new(rows.next_multiple_of(TILE) * ROWS_PER_PART);
    for from in (0..total).step_by(ROWS_PER_PART) {
        let part = ROWS_PER_PART.min(total - from);
        for (left, groups) in lefts {
            pack(&mut tiles, *left, from..from + part, rows, padded);
            for first in units.clone().step_by(together) {
                let vectors = together.min(units.end - first) * groups.len();
                for (tile, row) in tiles.chunks_exact(part * TILE).zip((0..rows).step_by(TILE)) {
                    let product = Product {
                        a: tile.as_ptr(),
                        rows: TILE.min(rows - row),
                        row_stride: 1,
                        inner_stride: TILE,
                        chunk: part,
                        chunks: 1,
                        chunk_stride: 0,
                        panel: values.at(first * unit_stride + from * row_stride + groups.start * lanes),
                        panel_stride: row_stride,
                        vector_stride: if gates == 1 { unit_stride } else { lanes },
                        vectors,
                        out: sums[row * columns + ((first - units.start) * gates + groups.start) * lanes..]
                            .as_mut_ptr(),
                        out_stride: columns,
                        accumulate: true,
                    };
                    // SAFETY: the strides stay in the tile, in this worker's gradients and in the sums.
                    unsafe { product.run(simd) };
                }
            }
        }
    }
    for row in 0..rows {
        for (at, vector) in units.clone().enumerate() {
            let unit = vector * lanes;
            let count = lanes.min(hidden - unit);
            for gate in 0..gates {
                let sum = &sums[row * columns + (at * gates + gate) * lanes..][..count];
                let to = (row * gates + gate) * hidden + unit;
                // SAFETY: the owner's columns of the gradient.
                unsafe { gradient.slice_mut(to..to + count) }.copy_from_slice(sum);
            }
        }
    }
}

/// Copies `part` of `left` (`[total, padded]`, of which the first `rows` columns count) into tiles, each
/// `[part][TILE]`: the products read them from beginning to end instead of a few values of every row.
fn pack(tiles: &mut [f32], left: Shared<'_>, part: Range<usize>, rows: usize, padded: usize) {
    let count = part.len();
    for (at, row) in part.enumerate() {
        // SAFETY: a row of the left matrix, which nobody writes any more.
        let row = unsafe { left.slice(row * padded..row * padded + rows) };
        for (tile, values) in row.chunks(TILE).enumerate() {
            tiles[(tile * count + at) * TILE..][..values.len()].copy_from_slice(values);
        }
    }
}
