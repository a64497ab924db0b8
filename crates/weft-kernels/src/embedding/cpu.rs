//! The CPU kernel. The gradient of the table sorts tokens by id, so that every row of the table is one task's
//! alone and its sum runs in the order of the text, whatever the number of threads.
#![expect(unsafe_code, reason = "results are written row by row into new memory")]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::Lookup;
use crate::Dropout;
use crate::fresh::{Fresh, zeroed};
use crate::simd::Level;

/// Rows of the table or of the result that one task takes.
const ROWS_PER_PART: usize = 32;

/// `table` is `[vocab, hidden]`, `ids` is `[batch, time]`, `positions` is `[length, hidden]`. Panics if an id is
/// not below `vocab`.
pub(super) fn forward(
    level: Level,
    table: &[f32],
    hidden: usize,
    ids: &[i32],
    time: usize,
    positions: Option<&[f32]>,
    how: Lookup,
) -> Vec<f32> {
    if hidden == 0 {
        return Vec::new();
    }
    check(ids, table.len() / hidden);
    let count = ids.len() * hidden;
    let mut y = Fresh::new(count);
    y.room()[..count].par_chunks_mut(ROWS_PER_PART * hidden).enumerate().for_each(|(part, y)| {
        for (i, y) in zeroed(y).chunks_exact_mut(hidden).enumerate() {
            let token = part * ROWS_PER_PART + i;
            let row = &table[ids[token] as usize * hidden..][..hidden];
            let position = positions.map(|positions| &positions[(how.offset + token % time) * hidden..][..hidden]);
            level.run(Lookups { y, row, position, start: token * hidden, how });
        }
    });
    // SAFETY: the parts have covered all values.
    unsafe { y.filled(count) }
}

fn check(ids: &[i32], vocab: usize) {
    if let Some(id) = ids.iter().find(|&&id| !(0..vocab as i64).contains(&i64::from(id))) {
        panic!("embedding: token {id} is outside of the vocabulary of {vocab}");
    }
}

/// The gradient of the table, `[vocab, hidden]`; `dy` is `[batch, time, hidden]`.
pub(super) fn table_gradient(
    level: Level,
    vocab: usize,
    hidden: usize,
    ids: &[i32],
    dy: &[f32],
    how: Lookup,
) -> Vec<f32> {
    let mut gradient = vec![0.0; vocab * hidden];
    if hidden == 0 {
        return gradient;
    }
    check(ids, vocab);
    let (starts, tokens) = by_id(ids, vocab);
    gradient.par_chunks_mut(ROWS_PER_PART * hidden).enumerate().for_each(|(part, rows)| {
        for (i, sum) in rows.chunks_exact_mut(hidden).enumerate() {
            let id = part * ROWS_PER_PART + i;
            for &token in &tokens[starts[id]..starts[id + 1]] {
                let start = token as usize * hidden;
                level.run(Add { sum, dy: &dy[start..][..hidden], scale: how.scale, start, dropout: how.dropout });
            }
        }
    });
    gradient
}

/// The places of each id in `ids`: those of `id` are `tokens[starts[id]..starts[id + 1]]`, first one first.
fn by_id(ids: &[i32], vocab: usize) -> (Vec<usize>, Vec<u32>) {
    let mut starts = vec![0; vocab + 1];
    for &id in ids {
        starts[id as usize + 1] += 1;
    }
    for id in 0..vocab {
        starts[id + 1] += starts[id];
    }
    let mut next = starts.clone();
    let mut tokens = vec![0; ids.len()];
    for (token, &id) in ids.iter().enumerate() {
        tokens[next[id as usize]] = token as u32;
        next[id as usize] += 1;
    }
    (starts, tokens)
}

/// The gradient of the positions, `[length, hidden]`; `dy` is `[batch, time, hidden]`.
pub(super) fn positions_gradient(
    level: Level,
    length: usize,
    hidden: usize,
    time: usize,
    dy: &[f32],
    how: Lookup,
) -> Vec<f32> {
    let mut gradient = vec![0.0; length * hidden];
    if hidden * time == 0 {
        return gradient;
    }
    let batch = dy.len() / (time * hidden);
    let used = &mut gradient[how.offset * hidden..(how.offset + time) * hidden];
    used.par_chunks_mut(ROWS_PER_PART * hidden).enumerate().for_each(|(part, rows)| {
        for (i, sum) in rows.chunks_exact_mut(hidden).enumerate() {
            for sentence in 0..batch {
                let start = (sentence * time + part * ROWS_PER_PART + i) * hidden;
                level.run(Add { sum, dy: &dy[start..][..hidden], scale: 1.0, start, dropout: how.dropout });
            }
        }
    });
    gradient
}

/// One row of the result, whose first element has the row-major index `start`.
struct Lookups<'a> {
    y: &'a mut [f32],
    row: &'a [f32],
    position: Option<&'a [f32]>,
    start: usize,
    how: Lookup,
}

impl WithSimd for Lookups<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { y, row, position, start, how } = self;
        let Lookup { scale, dropout, .. } = how;
        let (ys, y_rest) = S::as_mut_simd_f32s(y);
        let (rows, row_rest) = S::as_simd_f32s(row);
        let done = start + ys.len() * S::F32_LANES;
        let scales = simd.splat_f32s(scale);
        if let Some(position) = position {
            let (positions, position_rest) = S::as_simd_f32s(position);
            for ((y, &row), &position) in ys.iter_mut().zip(rows).zip(positions) {
                *y = simd.mul_add_f32s(row, scales, position);
            }
            for ((y, &row), &position) in y_rest.iter_mut().zip(row_rest).zip(position_rest) {
                *y = row.mul_add(scale, position);
            }
        } else {
            for (y, &row) in ys.iter_mut().zip(rows) {
                *y = simd.mul_f32s(row, scales);
            }
            for (y, &row) in y_rest.iter_mut().zip(row_rest) {
                *y = row * scale;
            }
        }
        if !dropout.is_none() {
            for (i, y) in ys.iter_mut().enumerate() {
                *y = dropout.apply(simd, Dropout::indices(simd, start + i * S::F32_LANES), *y);
            }
            for (i, y) in y_rest.iter_mut().enumerate() {
                *y = dropout.at(done + i, *y);
            }
        }
    }
}

/// `sum += scale * dropout(dy)`, where the first element of `dy` has the row-major index `start`.
struct Add<'a> {
    sum: &'a mut [f32],
    dy: &'a [f32],
    scale: f32,
    start: usize,
    dropout: Dropout,
}

impl WithSimd for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sum, dy, scale, start, dropout } = self;
        let (sums, sum_rest) = S::as_mut_simd_f32s(sum);
        let (dys, dy_rest) = S::as_simd_f32s(dy);
        let done = start + sums.len() * S::F32_LANES;
        let scales = simd.splat_f32s(scale);
        if dropout.is_none() {
            for (sum, &dy) in sums.iter_mut().zip(dys) {
                *sum = simd.mul_add_f32s(dy, scales, *sum);
            }
        } else {
            for (i, (sum, &dy)) in sums.iter_mut().zip(dys).enumerate() {
                let dy = dropout.apply(simd, Dropout::indices(simd, start + i * S::F32_LANES), dy);
                *sum = simd.mul_add_f32s(dy, scales, *sum);
            }
        }
        for (i, (sum, &dy)) in sum_rest.iter_mut().zip(dy_rest).enumerate() {
            let dy = if dropout.is_none() { dy } else { dropout.at(done + i, dy) };
            *sum = dy.mul_add(scale, *sum);
        }
    }
}
