//! The backward pass: probabilities are made again, a tile of queries and a span of keys at a time; the gradients of
//! keys and values grow in scratch memory from tile to tile.
#![expect(unsafe_code, reason = "tasks write disjoint columns of one tensor, which slices cannot express")]

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{ALIGN, Call, Head, Panels, SPAN, Sizes, TILE, gather_rows, packed_keys, scaled_copy};
use crate::attention::few;
use crate::attention::memory::{Operand, Target};
use crate::attention::settings::{Span, Spans, Tile};
use crate::attention::softmax::{self, RowGradient, RowStatistics};
use crate::panels::pack::{self, panels_size};
use crate::panels::product::{Product, Ramp};
use crate::panels::scratch::{self, Scratch, pitch, with_scratch};
use crate::simd::Level;

/// Queries per tile, and keys per span, where a tile sees more than one: scores, products and five operands of a span
/// share the cache, and what is added to gradients of keys and values is a sum over many queries.
const WIDE_TILE: usize = 128;
const SHORT_SPAN: usize = 128;

/// What the backward pass reads besides the call itself.
#[derive(Clone, Copy)]
pub(in crate::attention) struct Saved<'a> {
    /// What the forward pass kept of each row.
    pub(in crate::attention) statistics: &'a [f32],
    /// Its result.
    pub(in crate::attention) out: Operand<'a>,
    /// The gradient of the result.
    pub(in crate::attention) dout: Operand<'a>,
}

/// Where gradients go, zeros where nothing depends on an element.
#[derive(Clone, Copy)]
pub(in crate::attention) struct Gradients<'a> {
    pub(in crate::attention) q: Target<'a>,
    pub(in crate::attention) k: Target<'a>,
    pub(in crate::attention) v: Target<'a>,
    /// `[batch, heads, distances]`, if there is a bias.
    pub(in crate::attention) bias: Option<Target<'a>>,
}

/// Writes all of the gradients.
pub(in crate::attention) fn backward(level: Level, call: &Call<'_>, saved: &Saved<'_>, gradients: Gradients<'_>) {
    let (batch, heads) = (call.sizes.batch, call.settings.num_kv_heads);
    call.for_each(batch * heads, |i| {
        let (batch, number) = (i / heads, i % heads);
        with_scratch(|scratch| level.run(Task { scratch, call: *call, saved: *saved, batch, number, gradients }));
    });
}

/// One answering head of one sentence, and the heads that ask it.
struct Task<'a> {
    scratch: &'a mut Scratch,
    call: Call<'a>,
    saved: Saved<'a>,
    batch: usize,
    number: usize,
    gradients: Gradients<'a>,
}

/// Scratch memory for one tile and one span.
struct Room<'a> {
    q: &'a mut [f32],
    dout: &'a mut [f32],
    q_along: &'a mut [f32],
    dout_along: &'a mut [f32],
    /// The row stride of scores, products and slopes.
    pitch: usize,
    scores: &'a mut [f32],
    products: &'a mut [f32],
    /// Slopes of the softcap, if there is one.
    slopes: &'a mut [f32],
    dq: &'a mut [f32],
    /// The gradients of all keys and values that are packed.
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

/// Keys and values, packed.
#[derive(Clone, Copy)]
struct Packed<'a> {
    k_across: Panels<'a>,
    v_across: Panels<'a>,
    k_along: &'a [f32],
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Task { scratch, call, saved, batch, number, gradients } = self;
        let Sizes { q_time, k_time, head_dim, .. } = call.sizes;
        let (lanes, group) = (S::F32_LANES, call.settings.group());
        let asking = number * group..(number + 1) * group;
        let any = call.head(batch, asking.start);
        let end = any.sentence.queries;
        let seen = any.seen(0, end);
        let (base, keys) = if seen.is_empty() { (k_time, 0) } else { packed_keys(&seen) };
        let column = number * head_dim;
        // SAFETY: this task alone writes the keys and values of this head, and the queries of those that ask it.
        unsafe {
            gradients.k.zero(batch, 0..base, column, head_dim);
            gradients.v.zero(batch, 0..base, column, head_dim);
            gradients.k.zero(batch, base + keys..k_time, column, head_dim);
            gradients.v.zero(batch, base + keys..k_time, column, head_dim);
            for head in asking.clone() {
                gradients.q.zero(batch, if keys > 0 { end } else { 0 }..q_time, head * head_dim, head_dim);
                if let Some(bias) = gradients.bias {
                    bias.zero(batch, head..head + 1, 0, any.bias.len());
                }
            }
        }
        if keys == 0 {
            return;
        }

        let wide = head_dim.next_multiple_of(lanes);
        let (across, along) = (panels_size(head_dim, keys, lanes), panels_size(keys, head_dim, lanes));
        let per_tile = panels_size(WIDE_TILE, head_dim, lanes);
        let scores = (TILE * pitch(SPAN)).max(WIDE_TILE * pitch(SHORT_SPAN));
        let slopes = if any.softcap.is_some() { scores } else { 0 };
        let gathered = WIDE_TILE * pitch(head_dim);
        let [k_across, v_across, k_along, q, dout, q_along, dout_along, scores, products, slopes, dq, dk, dv] = scratch
            .split([
                across,
                across,
                along,
                gathered,
                gathered,
                per_tile,
                per_tile,
                scores,
                scores,
                slopes,
                WIDE_TILE * wide,
                keys * wide,
                keys * wide,
            ]);
        let (k, v) = (&any.k[base * any.k_stride..], &any.v[base * any.v_stride..]);
        pack::columns(simd, k, any.k_stride, keys, head_dim, k_across);
        pack::columns(simd, v, any.v_stride, keys, head_dim, v_across);
        pack::rows(simd, k, any.k_stride, keys, head_dim, k_along);
        let panels = |values| Panels { values, base, count: keys };
        let packed = Packed { k_across: panels(k_across), v_across: panels(v_across), k_along };
        dk.fill(0.0);
        dv.fill(0.0);
        let mut room = Room { q, dout, q_along, dout_along, pitch: 0, scores, products, slopes, dq, dk, dv };
        for number in asking {
            let rows = (batch * call.settings.num_heads + number) * q_time * 2;
            let asked = Asking {
                head: call.head(batch, number),
                out: saved.out.from(batch, number * head_dim),
                out_stride: saved.out.time_stride,
                dout: saved.dout.from(batch, number * head_dim),
                dout_stride: saved.dout.time_stride,
                statistics: &saved.statistics[rows..][..q_time * 2],
                batch,
                number,
                gradients,
            };
            let mut first = 0;
            while first < end {
                let mut tile = asked.head.sentence.tile(first, end, TILE);
                let mut spans = tile.spans(SPAN, ALIGN);
                let is_whole = spans.clone().nth(1).is_none();
                if !is_whole {
                    tile = asked.head.sentence.tile(first, end, WIDE_TILE);
                    spans = tile.spans(SHORT_SPAN, ALIGN);
                }
                room.pitch = pitch(if is_whole { SPAN } else { SHORT_SPAN });
                asked.tile(simd, tile, spans, is_whole, packed, &mut room);
                first += tile.count;
            }
        }
        for (key, (dk, dv)) in room.dk.chunks_exact(wide).zip(room.dv.chunks_exact(wide)).enumerate() {
            // SAFETY: this task alone writes the keys of this head.
            scaled_copy(simd, unsafe { gradients.k.row(batch, base + key, column, head_dim) }, dk, any.product_scale);
            // SAFETY: this task alone writes the values of this head.
            scaled_copy(simd, unsafe { gradients.v.row(batch, base + key, column, head_dim) }, dv, 1.0);
        }
    }
}

/// A head that asks.
struct Asking<'a> {
    head: Head<'a>,
    out: &'a [f32],
    out_stride: usize,
    dout: &'a [f32],
    dout_stride: usize,
    statistics: &'a [f32],
    batch: usize,
    number: usize,
    gradients: Gradients<'a>,
}

impl Asking<'_> {
    #[inline(always)]
    fn tile<S: Simd>(
        &self,
        simd: S,
        tile: Tile<'_>,
        spans: Spans<'_>,
        is_whole: bool,
        packed: Packed<'_>,
        room: &mut Room<'_>,
    ) {
        let Self { head, batch, number, .. } = *self;
        let (first, head_dim, pitch) = (tile.first, head.head_dim, room.pitch);
        let gathered_pitch = scratch::pitch(head_dim);
        let wide = head_dim.next_multiple_of(S::F32_LANES);
        let (q, dout) = (&head.q[first * head.q_stride..], &self.dout[first * self.dout_stride..]);
        gather_rows(q, head.q_stride, tile.count, head_dim, room.q);
        gather_rows(dout, self.dout_stride, tile.count, head_dim, room.dout);
        pack::rows(simd, room.q, gathered_pitch, tile.count, head_dim, room.q_along);
        pack::rows(simd, room.dout, gathered_pitch, tile.count, head_dim, room.dout_along);
        let mut along = [None; WIDE_TILE];
        if !is_whole {
            for (i, along) in along.iter_mut().take(tile.count).enumerate() {
                *along = Some(self.along(first + i));
            }
        }
        let mut begun = false;
        for span in spans {
            self.scores(simd, tile, &span, packed, room);
            let v_across = packed.v_across;
            head.against_keys(simd, room.dout, gathered_pitch, tile.count, &span, v_across, room.products, pitch);
            for (i, &along) in along.iter().take(tile.count).enumerate() {
                let seen = span.seen_by(i);
                if !seen.is_empty() {
                    self.row(simd, first + i, i, &span, &seen, along, room);
                }
            }
            simd.vectorize(Product {
                a: room.products,
                a_row: pitch,
                a_column: 1,
                b: packed.k_along,
                depth: packed.k_across.count,
                skip: span.start - packed.k_across.base,
                columns: Ramp::flat(head_dim),
                from: span.from,
                to: span.to,
                c: room.dq,
                c_row: wide,
                rows: tile.count,
                accumulate: begun,
            });
            begun = true;
            let at = (span.keys.0 - packed.k_across.base) * wide;
            let dv = (&*room.scores, &*room.dout_along, &mut room.dv[at..]);
            let dk = (&*room.products, &*room.q_along, &mut room.dk[at..]);
            for (a, b, c) in [dv, dk] {
                simd.vectorize(Product {
                    a: &a[span.keys.0 - span.start..],
                    a_row: 1,
                    a_column: pitch,
                    b,
                    depth: tile.count,
                    skip: 0,
                    columns: Ramp::flat(head_dim),
                    from: span.viewers_from,
                    to: span.viewers_to,
                    c,
                    c_row: wide,
                    rows: span.keys.1 - span.keys.0,
                    accumulate: true,
                });
            }
        }
        for (i, row) in room.dq.chunks_exact(wide).take(tile.count).enumerate() {
            if begun {
                // SAFETY: this task alone writes these queries of this head.
                let to = unsafe { self.gradients.q.row(batch, first + i, number * head_dim, head_dim) };
                scaled_copy(simd, to, row, head.product_scale);
            } else {
                // SAFETY: as above.
                unsafe { self.gradients.q.zero(batch, first + i..first + i + 1, number * head_dim, head_dim) };
            }
        }
    }

    /// The scores of a tile, as the forward pass had them.
    #[inline(always)]
    fn scores<S: Simd>(&self, simd: S, tile: Tile<'_>, span: &Span, packed: Packed<'_>, room: &mut Room<'_>) {
        let (head, pitch) = (&self.head, room.pitch);
        let in_place = head.sentence.queries <= few::MOST_QUERIES;
        if !in_place {
            let row_pitch = scratch::pitch(head.head_dim);
            head.against_keys(simd, room.q, row_pitch, tile.count, span, packed.k_across, room.scores, pitch);
        }
        for i in 0..tile.count {
            let (seen, query) = (span.seen_by(i), tile.first + i);
            let row = &mut room.scores[i * pitch..][..pitch];
            if in_place {
                // The same bits as in the forward pass, whose maximum and sum are used again.
                head.products_in_place(simd, query, span.start, &seen, row);
            }
            let slopes = if room.slopes.is_empty() { None } else { Some(&mut room.slopes[i * pitch..][..pitch]) };
            head.scores(simd, row, query, span.start, &seen, slopes);
        }
    }

    /// Row `i` of a tile's scores and products becomes probabilities and the gradients of products with keys.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "one row of one tile and span")]
    fn row<S: Simd>(
        &self,
        simd: S,
        query: usize,
        i: usize,
        span: &Span,
        seen: &Range<usize>,
        along: Option<f32>,
        room: &mut Room<'_>,
    ) {
        let (head, at) = (&self.head, i * room.pitch..(i + 1) * room.pitch);
        let gradient = RowGradient {
            statistics: RowStatistics { most: self.statistics[query * 2], inverse_sum: self.statistics[query * 2 + 1] },
            scale: head.scale,
            dropout: head.dropout,
            index: head.first_index(query) + span.start,
            along,
        };
        let products = &mut room.products[at.clone()];
        softmax::gradient(simd, &mut room.scores[at.clone()], products, seen, &gradient);
        if let Some(bias) = self.gradients.bias {
            let distance = head.distance(query, span.start + seen.start);
            // SAFETY: this task alone writes this head's part.
            let to = unsafe { bias.row(self.batch, self.number, distance, seen.len()) };
            for (to, &product) in to.iter_mut().zip(&products[seen.clone()]) {
                // SAFETY: it was zeroed when the task began.
                to.write(unsafe { to.assume_init_read() } + product);
            }
        }
        if !room.slopes.is_empty() {
            let slopes = &room.slopes[at][seen.clone()];
            products[seen.clone()].iter_mut().zip(slopes).for_each(|(product, slope)| *product *= slope);
        }
    }

    /// The sum over all keys of probabilities times their gradients: out . dout.  Dao, arXiv 2307.08691, section 3.1.
    fn along(&self, query: usize) -> f32 {
        let out = &self.out[query * self.out_stride..][..self.head.head_dim];
        let dout = &self.dout[query * self.dout_stride..][..self.head.head_dim];
        out.iter().zip(dout).map(|(out, dout)| out * dout).sum()
    }
}
