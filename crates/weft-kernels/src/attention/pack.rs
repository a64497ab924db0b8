//! Packing one head's columns of a strided tensor into panels.
//!
//! A panel is two vectors wide (the last one may be one vector wide) and holds its rows one after the other:
//! panel `p` of a matrix with `depth` rows starts at `p * depth * 2 * lanes`. Columns past the matrix's own are
//! zeros. A product then streams through its panel, whatever the strides of the tensor.

use pulp::Simd;

/// How many values the panels of a `depth` by `columns` matrix take.
pub(super) fn panels_size(depth: usize, columns: usize, lanes: usize) -> usize {
    depth * columns.next_multiple_of(lanes)
}

/// Panels of the matrix whose row `r` is `source[r * stride..][..columns]`.
#[inline(always)]
pub(super) fn rows<S: Simd>(simd: S, source: &[f32], stride: usize, depth: usize, columns: usize, panels: &mut [f32]) {
    let lanes = S::F32_LANES;
    let padded = columns.next_multiple_of(lanes);
    for start in (0..padded).step_by(2 * lanes) {
        let width = (padded - start).min(2 * lanes);
        let used = (columns - start).min(width);
        let panel = &mut panels[start * depth..][..depth * width];
        for (row, to) in panel.chunks_exact_mut(width).enumerate() {
            let from = &source[row * stride + start..][..used];
            for (to, from) in to.chunks_exact_mut(lanes).zip(from.chunks(lanes)) {
                simd.partial_store_f32s(to, simd.partial_load_f32s(from));
            }
        }
    }
}

/// Panels of the transpose: column `r` of the matrix is `source[r * stride..][..depth]`.
#[inline(always)]
pub(super) fn columns<S: Simd>(
    _simd: S,
    source: &[f32],
    stride: usize,
    columns: usize,
    depth: usize,
    panels: &mut [f32],
) {
    let lanes = S::F32_LANES;
    let padded = columns.next_multiple_of(lanes);
    for start in (0..padded).step_by(2 * lanes) {
        let width = (padded - start).min(2 * lanes);
        let used = (columns - start).min(width);
        let panel = &mut panels[start * depth..][..depth * width];
        for lane in 0..used {
            let from = &source[(start + lane) * stride..][..depth];
            for (row, &value) in from.iter().enumerate() {
                panel[row * width + lane] = value;
            }
        }
        for row in panel.chunks_exact_mut(width) {
            row[used..].fill(0.0);
        }
    }
}
