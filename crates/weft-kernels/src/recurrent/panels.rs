//! Weights, packed once per call into panels that the inner loop reads from beginning to end.

use std::ops::Range;

use super::team::Buffer;

/// The panels of a matrix that one worker multiplies with, each `inner` times `vectors` vectors of columns.
///
/// A worker packs its own panels, so that they lie in its own second-level cache for all time steps.
pub(crate) struct Panels {
    /// The unit vectors that each panel covers.
    pub(crate) units: Vec<Range<usize>>,
    data: Buffer,
    /// Values of a vector of columns over all inner indices, times the groups (gates) of a unit.
    per_unit: usize,
}

impl Panels {
    /// Room for the panels `share` out of all that cover `unit_vectors` vectors of units, `width` at a time;
    /// each unit has `groups` columns and there are `inner` rows.
    pub(crate) fn new(
        share: Range<usize>,
        unit_vectors: usize,
        width: usize,
        groups: usize,
        inner: usize,
        lanes: usize,
    ) -> Self {
        let units: Vec<_> = share.map(|panel| panel * width..((panel + 1) * width).min(unit_vectors)).collect();
        let per_unit = groups * inner * lanes;
        let covered: usize = units.iter().map(Range::len).sum();
        Self { units, data: Buffer::new(covered * per_unit), per_unit }
    }

    /// One panel: `[inner][groups][units][lanes]`.
    pub(crate) fn panel(&self, index: usize) -> &[f32] {
        let start = (self.units[index].start - self.units[0].start) * self.per_unit;
        &self.data[start..start + self.units[index].len() * self.per_unit]
    }

    fn panel_mut(&mut self, index: usize) -> &mut [f32] {
        let start = (self.units[index].start - self.units[0].start) * self.per_unit;
        let length = self.units[index].len() * self.per_unit;
        &mut self.data[start..start + length]
    }

    /// Packs `matrix` (`[inner, row_length]`): the column of a unit in a group is `group * hidden + unit`, for the
    /// groups given.
    pub(crate) fn pack_rows(
        &mut self,
        matrix: &[f32],
        row_length: usize,
        groups: Range<usize>,
        hidden: usize,
        lanes: usize,
    ) {
        for index in 0..self.units.len() {
            let units = self.units[index].clone();
            let width = units.len() * lanes;
            let (from, to) = (units.start * lanes, (units.end * lanes).min(hidden));
            let stride = groups.len() * width;
            let panel = self.panel_mut(index).chunks_exact_mut(stride);
            for (row, panel) in matrix.chunks_exact(row_length).zip(panel) {
                for (group, panel) in groups.clone().zip(panel.chunks_exact_mut(width)) {
                    panel[..to - from].copy_from_slice(&row[group * hidden + from..group * hidden + to]);
                }
            }
        }
    }

    /// Packs the transpose of `matrix` (`[hidden, row_length]`; its rows become the panels' columns), one group
    /// of columns wide: the inner index `k` is the matrix's column `columns[k]`, zero if there is none.
    pub(crate) fn pack_transposed(
        &mut self,
        matrix: &[f32],
        row_length: usize,
        columns: &[Option<usize>],
        hidden: usize,
        lanes: usize,
    ) {
        /// Inner indices that are packed together: a cache line of each of the matrix's rows.
        const BLOCK: usize = 16;
        for index in 0..self.units.len() {
            let units = self.units[index].clone();
            let stride = units.len() * lanes;
            let (from, to) = (units.start * lanes, (units.end * lanes).min(hidden));
            let panel = self.panel_mut(index);
            for (columns, panel) in columns.chunks(BLOCK).zip(panel.chunks_mut(BLOCK * stride)) {
                for (lane, row) in matrix.chunks_exact(row_length).take(to).skip(from).enumerate() {
                    for (k, column) in columns.iter().enumerate() {
                        panel[k * stride + lane] = column.map_or(0.0, |column| row[column]);
                    }
                }
            }
        }
    }
}

/// The inner indices of a product with gate gradients, which lie as `[unit vector][group][lane]`: the weights'
/// column of each, none where a vector reaches past the hidden units.
pub(crate) fn gate_columns(groups: Range<usize>, hidden: usize, lanes: usize) -> Vec<Option<usize>> {
    let mut columns = Vec::new();
    for vector in 0..hidden.div_ceil(lanes) {
        for group in groups.clone() {
            columns.extend((vector * lanes..(vector + 1) * lanes).map(|u| (u < hidden).then(|| group * hidden + u)));
        }
    }
    columns
}

/// Unit vectors per panel, at most `most`, so that every worker gets two panels if there are units enough.
/// (The result of an element does not depend on the panel that it lies in.)
pub(crate) fn panel_width(unit_vectors: usize, most: usize, workers: usize) -> usize {
    (unit_vectors / (2 * workers)).clamp(1, most)
}
