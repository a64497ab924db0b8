//! The forward pass.
#![expect(unsafe_code, reason = "tasks write disjoint columns of one tensor, which slices cannot express")]

use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{ALIGN, Call, Head, Panels, SPAN, Sizes, TILE, gather_rows, packed_keys, scale_by, scaled_copy};
use crate::attention::few;
use crate::attention::memory::Target;
use crate::attention::softmax::{self, Row, RowStatistics};
use crate::fresh::Fresh;
use crate::panels::pack::{self, panels_size};
use crate::panels::product::{Product, Ramp};
use crate::panels::scratch::{Scratch, pitch, with_scratch};
use crate::simd::Level;

/// The result.
pub(in crate::attention) struct Forward {
    /// `[batch, q_time, hidden]`.
    pub(in crate::attention) out: Vec<f32>,
    /// What the backward pass needs of each row of scores, `[batch, heads, q_time, 2]`, if that was wanted.
    pub(in crate::attention) statistics: Option<Vec<f32>>,
}

/// Attends.
pub(in crate::attention) fn forward(level: Level, call: &Call<'_>, keep: bool) -> Forward {
    let Sizes { batch, q_time, head_dim, .. } = call.sizes;
    let heads = call.settings.num_heads;
    let hidden = heads * head_dim;
    let out_size = batch * q_time * hidden;
    let kept_size = if keep { batch * heads * q_time * 2 } else { 0 };
    let (mut out, mut kept) = (Fresh::new(out_size), Fresh::new(kept_size));
    let target = Target::new(out.room(), q_time * hidden, hidden);
    let statistics = keep.then(|| Target::new(kept.room(), heads * q_time * 2, q_time * 2));
    let queries = call.queries_per_task();
    call.for_each_head(queries, |batch, number, start| {
        let head = call.head(batch, number);
        let store = Store { target, statistics, batch, number, head_dim };
        let queries = start..head.q_time.min(start + queries);
        with_scratch(|scratch| level.run(Task { scratch, head, queries, store }));
    });
    // SAFETY: each task writes its head's columns and statistics of its queries, or of all that are left.
    let (out, kept) = unsafe { (out.filled(out_size), kept.filled(kept_size)) };
    Forward { out, statistics: keep.then_some(kept) }
}

struct Task<'a> {
    scratch: &'a mut Scratch,
    head: Head<'a>,
    /// Padding included.
    queries: Range<usize>,
    store: Store<'a>,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Task { scratch, head, queries, store } = self;
        let sentence = head.sentence;
        let end = sentence.queries.min(queries.end).max(queries.start);
        store.zero(end..queries.end);
        let seen = head.seen(queries.start, end);
        if seen.is_empty() {
            store.zero(queries.start..end);
        } else if sentence.queries <= few::MOST_QUERIES {
            for query in queries.start..end {
                one_query(simd, scratch, &head, query, &store);
            }
        } else {
            tiles(simd, scratch, &head, queries.start..end, &seen, &store);
        }
    }
}

/// One query against keys where they lie.
#[inline(always)]
fn one_query<S: Simd>(simd: S, scratch: &mut Scratch, head: &Head<'_>, query: usize, store: &Store<'_>) {
    let tile = head.sentence.tile(query, query + 1, 1);
    let wide = head.head_dim.next_multiple_of(S::F32_LANES);
    let [scores, sums] = scratch.split([pitch(head.k_time), wide]);
    // One span for each stretch of keys that the mask leaves.
    let spans = tile.spans(head.k_time.next_multiple_of(ALIGN), ALIGN);
    let mut row = Row::EMPTY;
    sums.fill(0.0);
    for span in spans {
        let seen = span.seen_by(0);
        head.products_in_place(simd, query, span.start, &seen, scores);
        head.scores(simd, scores, query, span.start, &seen, None);
        let factor = row.powers(simd, scores, &seen, head.scale);
        if !head.dropout.is_none() {
            softmax::drop_out(simd, scores, &seen, head.dropout, head.first_index(query) + span.start);
        }
        if factor != 1.0 {
            scale_by(simd, sums, factor);
        }
        let v = &head.v[(span.start + seen.start) * head.v_stride..];
        few::add_sums(simd, &scores[seen], v, head.v_stride, &mut sums[..head.head_dim]);
    }
    store.row(simd, query, sums, row.statistics());
}

/// Tiles of `queries`, which see no other keys than `seen`.
#[inline(always)]
fn tiles<S: Simd>(
    simd: S,
    scratch: &mut Scratch,
    head: &Head<'_>,
    queries: Range<usize>,
    seen: &Range<usize>,
    store: &Store<'_>,
) {
    let (lanes, head_dim) = (S::F32_LANES, head.head_dim);
    let (wide, (base, keys)) = (head_dim.next_multiple_of(lanes), packed_keys(seen));
    let (k_size, v_size) = (panels_size(head_dim, keys, lanes), panels_size(keys, head_dim, lanes));
    let (row_pitch, pitch) = (pitch(head_dim), pitch(SPAN));
    let [k, v, q, scores, sums] = scratch.split([k_size, v_size, TILE * row_pitch, TILE * pitch, TILE * wide]);
    pack::columns(simd, &head.k[base * head.k_stride..], head.k_stride, keys, head_dim, k);
    pack::rows(simd, &head.v[base * head.v_stride..], head.v_stride, keys, head_dim, v);
    let k = Panels { values: k, base, count: keys };
    let mut first = queries.start;
    while first < queries.end {
        let tile = head.sentence.tile(first, queries.end, TILE);
        gather_rows(&head.q[first * head.q_stride..], head.q_stride, tile.count, head_dim, q);
        let mut rows = [Row::EMPTY; TILE];
        let mut begun = false;
        for span in tile.spans(SPAN, ALIGN) {
            head.against_keys(simd, q, row_pitch, tile.count, &span, k, scores, pitch);
            for (i, row) in rows.iter_mut().take(tile.count).enumerate() {
                let (seen, scores) = (span.seen_by(i), &mut scores[i * pitch..][..pitch]);
                if seen.is_empty() {
                    continue;
                }
                let query = first + i;
                head.scores(simd, scores, query, span.start, &seen, None);
                let factor = row.powers(simd, scores, &seen, head.scale);
                if !head.dropout.is_none() {
                    softmax::drop_out(simd, scores, &seen, head.dropout, head.first_index(query) + span.start);
                }
                if begun && factor != 1.0 {
                    scale_by(simd, &mut sums[i * wide..][..wide], factor);
                }
            }
            simd.vectorize(Product {
                a: scores,
                a_row: pitch,
                a_column: 1,
                b: v,
                depth: keys,
                skip: span.start - base,
                columns: Ramp::flat(head_dim),
                from: span.from,
                to: span.to,
                c: sums,
                c_row: wide,
                rows: tile.count,
                accumulate: begun,
            });
            begun = true;
        }
        for (i, row) in rows.iter().take(tile.count).enumerate() {
            if begun {
                store.row(simd, first + i, &sums[i * wide..][..wide], row.statistics());
            } else {
                store.zero(first + i..first + i + 1);
            }
        }
        first += tile.count;
    }
}

/// Where one head of one sentence puts its results.
struct Store<'a> {
    target: Target<'a>,
    statistics: Option<Target<'a>>,
    batch: usize,
    number: usize,
    head_dim: usize,
}

impl Store<'_> {
    /// Stores the row of `query`, which only the task that calls this may write; zeros if it sees no key.
    #[inline(always)]
    fn row<S: Simd>(&self, simd: S, query: usize, row: &[f32], kept: RowStatistics) {
        let Self { batch, number, head_dim, .. } = *self;
        // SAFETY: one task alone writes the queries that it takes of a head.
        let to = unsafe { self.target.row(batch, query, number * head_dim, head_dim) };
        scaled_copy(simd, to, row, kept.inverse_sum);
        if let Some(statistics) = self.statistics {
            // SAFETY: as above.
            let to = unsafe { statistics.row(batch, number, query * 2, 2) };
            to.copy_from_slice(&[MaybeUninit::new(kept.most), MaybeUninit::new(kept.inverse_sum)]);
        }
    }

    /// Zeros for `queries` that see no key or are padding; as for `row`.
    fn zero(&self, queries: Range<usize>) {
        let Self { batch, number, head_dim, .. } = *self;
        for query in queries {
            // SAFETY: as for `row`.
            unsafe { self.target.zero(batch, query..query + 1, number * head_dim, head_dim) };
            if let Some(statistics) = self.statistics {
                // SAFETY: as for `row`.
                unsafe { statistics.row(batch, number, query * 2, 2) }.fill(MaybeUninit::new(0.0));
            }
        }
    }
}
