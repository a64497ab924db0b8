//! Packing one head's columns of a strided tensor into panels.
//!
//! A panel is two vectors wide (the last one may be one vector wide) and holds its rows one after the other:
//! panel `p` of a matrix with `depth` rows starts at `p * depth * 2 * lanes`. Columns past the matrix's own are
//! zeros. A product then streams through its panel, whatever the strides of the tensor.

use pulp::Simd;

/// How many values the panels of a `depth` by `columns` matrix take.
pub(crate) fn panels_size(depth: usize, columns: usize, lanes: usize) -> usize {
    depth * columns.next_multiple_of(lanes)
}

/// Panels of the matrix whose row `r` is `source[r * stride..][..columns]`.
#[inline(always)]
pub(crate) fn rows<S: Simd>(simd: S, source: &[f32], stride: usize, depth: usize, columns: usize, panels: &mut [f32]) {
    let lanes = S::F32_LANES;
    let padded = columns.next_multiple_of(lanes);
    for start in (0..padded).step_by(2 * lanes) {
        let width = (padded - start).min(2 * lanes);
        let used = (columns - start).min(width);
        let panel = &mut panels[start * depth..][..depth * width];
        for (row, to) in panel.chunks_exact_mut(width).enumerate() {
            let from = &source[row * stride + start..][..used];
            let (to, _) = S::as_mut_simd_f32s(to);
            let (vectors, rest) = S::as_simd_f32s(from);
            for (to, &from) in to.iter_mut().zip(vectors) {
                *to = from;
            }
            if !rest.is_empty() {
                to[vectors.len()] = simd.partial_load_f32s(rest);
            }
        }
    }
}

/// Panels of the transpose: column `r` of the matrix is `source[r * stride..][..depth]`.
#[inline(always)]
pub(crate) fn columns<S: Simd>(
    simd: S,
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
        let source = &source[start * stride..];
        if lanes >= 4 {
            four_by_four(simd, source, stride, used, depth, panel, width);
        } else {
            one_by_one(source, stride, used, depth, panel, width);
        }
    }
}

/// One panel of [`columns`], moving single values.
#[inline(always)]
fn one_by_one(source: &[f32], stride: usize, used: usize, depth: usize, panel: &mut [f32], width: usize) {
    for lane in 0..used {
        for (row, &value) in source[lane * stride..][..depth].iter().enumerate() {
            panel[row * width + lane] = value;
        }
    }
    for row in panel.chunks_exact_mut(width) {
        row[used..].fill(0.0);
    }
}

/// One panel of [`columns`], moving blocks of 4 by 4 transposed in registers, three times as fast as single values.
#[inline(always)]
fn four_by_four<S: Simd>(
    simd: S,
    source: &[f32],
    stride: usize,
    used: usize,
    depth: usize,
    panel: &mut [f32],
    width: usize,
) {
    let lanes = S::F32_LANES;
    let (panel, _) = panel.as_chunks_mut::<4>();
    for lane in (0..width).step_by(4) {
        for row in (0..depth).step_by(lanes) {
            let count = (depth - row).min(lanes);
            let mut vectors = [simd.splat_f32s(0.0); 4];
            for (i, vector) in vectors.iter_mut().enumerate() {
                if lane + i < used {
                    let from = &source[(lane + i) * stride + row..][..count];
                    *vector = match S::as_simd_f32s(from).0.first() {
                        Some(&whole) => whole,
                        None => simd.partial_load_f32s(from),
                    };
                }
            }
            // Four values of each vector at a time: block b of the result's vector i holds element 4 b + i of all
            // four, next to each other.
            let vectors = simd.deinterleave_shfl_f32s(vectors);
            let (blocks, _) = bytemuck::cast_slice::<S::f32s, f32>(&vectors).as_chunks::<4>();
            for i in 0..4 {
                for b in 0..lanes / 4 {
                    if 4 * b + i < count {
                        panel[((row + 4 * b + i) * width + lane) / 4] = blocks[i * (lanes / 4) + b];
                    }
                }
            }
        }
    }
}
