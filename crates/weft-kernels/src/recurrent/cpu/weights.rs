//! Weights' gradients: one product over all running rows of all steps.
#![expect(unsafe_code, reason = "workers write their own columns of shared gradients")]

use std::ops::Range;

use pulp::Simd;

use super::super::product::Product;
use super::super::team::{Buffer, Shared};

/// Running rows that are summed at once: 512 rows of 512 states are 1 MiB, half of a second-level cache, and
/// are read from there once for each vector of units.
const ROWS_PER_PART: usize = 512;

/// `gradient = left^T * dgates` for the units of one worker, where `gradient` is `[rows, gates * hidden]`.
///
/// `dgates` is `[unit vector][total][gates][lane]`; `lefts` are `[total, rows padded to lanes]`, each for some of
/// the gates. The sums go through the running rows in their order, whatever the number of workers.
#[expect(clippy::too_many_arguments, reason = "sizes of two matrices")]
#[inline(always)]
pub(crate) fn weight_gradient<S: Simd>(
    simd: S,
    total: usize,
    gates: usize,
    hidden: usize,
    units: Range<usize>,
    dgates: Shared<'_>,
    lefts: &[(Shared<'_>, Range<usize>)],
    rows: usize,
    gradient: Shared<'_>,
) {
    let lanes = S::F32_LANES;
    let padded = rows.next_multiple_of(lanes);
    let mut sums = Buffer::new(units.len() * rows * gates * lanes);
    for from in (0..total).step_by(ROWS_PER_PART) {
        for (left, groups) in lefts {
            for (at, vector) in units.clone().enumerate() {
                let product = Product {
                    a: left.at(from * padded),
                    rows,
                    row_stride: 1,
                    inner_stride: padded,
                    chunk: ROWS_PER_PART.min(total - from),
                    chunks: 1,
                    chunk_stride: 0,
                    panel: dgates.at(((vector * total + from) * gates + groups.start) * lanes),
                    panel_stride: gates * lanes,
                    vectors: groups.len(),
                    out: sums[(at * rows * gates + groups.start) * lanes..].as_mut_ptr(),
                    out_stride: gates * lanes,
                    accumulate: true,
                };
                // SAFETY: the strides stay in the left matrix, which nobody writes any more, in this worker's
                // gradients and in the sums.
                unsafe { product.run(simd) };
            }
        }
    }
    for (at, vector) in units.enumerate() {
        let unit = vector * lanes;
        let count = lanes.min(hidden - unit);
        for row in 0..rows {
            for gate in 0..gates {
                let sum = &sums[((at * rows + row) * gates + gate) * lanes..][..count];
                let to = (row * gates + gate) * hidden + unit;
                // SAFETY: the owner's columns of the gradient.
                unsafe { gradient.slice_mut(to..to + count) }.copy_from_slice(sum);
            }
        }
    }
}
