//! Who attends to whom.

use std::sync::Arc;

use super::block_mask::BlockMask;
use crate::dropout::Dropout;
use crate::panels::product::Ramp;

/// The numbers of one call besides its tensors.
#[derive(Debug, Clone)]
pub struct AttentionSettings {
    /// How many heads ask.
    pub num_heads: usize,
    /// How many heads answer; each serves `num_heads / num_kv_heads` asking ones.
    pub num_kv_heads: usize,
    /// Whether a query sees only keys up to its own place, counted from the end.
    pub causal: bool,
    /// How far a query sees, its own place included.
    pub window: Option<usize>,
    /// What scores are squeezed to.
    pub softcap: Option<f32>,
    /// Which blocks of keys each block of queries sees.
    pub blocks: Option<Arc<BlockMask>>,
    /// Dropout on the probabilities.
    pub dropout: Dropout,
    /// Valid queries per sentence; `None` means all.
    pub query_lengths: Option<Vec<usize>>,
    /// Valid keys per sentence; `None` means all.
    pub key_lengths: Option<Vec<usize>>,
}

impl AttentionSettings {
    /// The sentence at `batch` of tensors with `q_time` queries and `k_time` keys.
    pub(super) fn sentence(&self, batch: usize, q_time: usize, k_time: usize) -> Sentence<'_> {
        let length = |lengths: &Option<Vec<usize>>, time| lengths.as_ref().map_or(time, |lengths| lengths[batch]);
        Sentence {
            queries: length(&self.query_lengths, q_time),
            keys: length(&self.key_lengths, k_time),
            causal: self.causal,
            window: self.window,
            blocks: self.blocks.as_deref(),
        }
    }

    /// How many asking heads an answering head serves.
    pub(super) fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }
}

/// One sentence's lengths and mask: what its result depends on, whatever its batch-mates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sentence<'a> {
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) causal: bool,
    pub(super) window: Option<usize>,
    pub(super) blocks: Option<&'a BlockMask>,
}

impl<'a> Sentence<'a> {
    /// The place of `query` among the keys: the last query stands at the last key.
    pub(super) fn place(self, query: usize) -> isize {
        query as isize + self.keys as isize - self.queries as isize
    }

    /// Whether `query` sees `key`.
    pub(super) fn sees(self, query: usize, key: usize) -> bool {
        query < self.queries
            && (self.from(query).at(0)..self.to(query).at(0)).contains(&key)
            && self.blocks.is_none_or(|blocks| blocks.keeps(self.place(query), key))
    }

    /// The first key that each query from `first` on may see.
    pub(super) fn from(self, first: usize) -> Ramp {
        match self.window {
            Some(window) => Ramp::rising(self.place(first) + 1 - window as isize, self.keys),
            None => Ramp::flat(0),
        }
    }

    /// The end of the keys that each query from `first` on may see.
    pub(super) fn to(self, first: usize) -> Ramp {
        match (self.causal, self.window) {
            (true, _) => Ramp::rising(self.place(first) + 1, self.keys),
            (false, Some(window)) => Ramp::rising(self.place(first) + window as isize, self.keys),
            (false, None) => Ramp::flat(self.keys),
        }
    }

    /// The queries from `first` on that are taken together: up to `most`, before `end`, in one block of the mask.
    pub(super) fn tile(self, first: usize, end: usize, most: usize) -> Tile<'a> {
        let in_block = match self.blocks {
            Some(blocks) => {
                let (place, size) = (self.place(first), blocks.block_size() as isize);
                (if place < 0 { -place } else { size - place % size }) as usize
            }
            None => most,
        };
        Tile { sentence: self, first, count: in_block.min(most).min(end - first) }
    }
}

/// A few neighbouring queries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) sentence: Sentence<'a>,
    pub(super) first: usize,
    pub(super) count: usize,
}

impl<'a> Tile<'a> {
    /// The keys that they may see, whatever the blocks of the mask.
    pub(super) fn keys(self) -> std::ops::Range<usize> {
        let Self { sentence, first, count } = self;
        sentence.from(first).at(0)..sentence.to(first).at(count - 1)
    }

    /// The keys that they see, in pieces of at most `most`, each of which starts at a multiple of `align`.
    pub(super) fn spans(self, most: usize, align: usize) -> Spans<'a> {
        let keys = self.keys();
        let kept = self
            .sentence
            .blocks
            .map(|blocks| Kept { row: blocks.row(self.sentence.place(self.first)), size: blocks.block_size() });
        Spans { tile: self, at: keys.start, end: keys.end, kept, most, align }
    }
}

/// The blocks that a tile sees and that are still to come.
#[derive(Debug, Clone, Copy)]
struct Kept<'a> {
    row: &'a [u32],
    size: usize,
}

impl Kept<'_> {
    /// The next neighbouring blocks' keys from `at` on, `enough` or more if there are as many.
    fn next(&mut self, at: usize, enough: usize) -> Option<(usize, usize)> {
        let size = self.size;
        self.row = &self.row[self.row.partition_point(|&block| (block as usize + 1) * size <= at)..];
        let first = *self.row.first()? as usize;
        let from = at.max(first * size);
        let mut end = first + 1;
        while end * size < from + enough && self.row.get(end - first) == Some(&(end as u32)) {
            end += 1;
        }
        Some((from, end * size))
    }
}

/// See [`Tile::spans`].
#[derive(Debug, Clone)]
pub(super) struct Spans<'a> {
    tile: Tile<'a>,
    at: usize,
    end: usize,
    kept: Option<Kept<'a>>,
    most: usize,
    align: usize,
}

impl Iterator for Spans<'_> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let (from, to) = match &mut self.kept {
            Some(kept) => kept.next(self.at, self.most)?,
            None => (self.at, self.end),
        };
        let start = from / self.align * self.align;
        let to = to.min(self.end).min(start + self.most);
        if from >= to {
            return None;
        }
        self.at = to;
        Some(Span::new(self.tile, start, from, to))
    }
}

/// Neighbouring keys, as a tile sees them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// Where the panel of the first key starts.
    pub(super) start: usize,
    /// The first key, and the one after the last.
    pub(super) keys: (usize, usize),
    /// The keys that each query of the tile sees, counted from `start`.
    pub(super) from: Ramp,
    /// Where they end.
    pub(super) to: Ramp,
    /// The queries of the tile that see each key, from the first key on.
    pub(super) viewers_from: Ramp,
    /// Where they end.
    pub(super) viewers_to: Ramp,
}

impl Span {
    fn new(tile: Tile<'_>, start: usize, first: usize, end: usize) -> Self {
        let Tile { sentence, first: query, count } = tile;
        let here = |ramp: Ramp| Ramp {
            first: ramp.first - start as isize,
            slope: ramp.slope,
            least: first - start,
            most: end - start,
        };
        // Query i of the tile stands at place + i, and the first key at `first`.
        let ahead = first as isize - sentence.place(query);
        let viewers_from = match (sentence.causal, sentence.window) {
            (true, _) => Ramp::rising(ahead, count),
            (false, Some(window)) => Ramp::rising(ahead + 1 - window as isize, count),
            (false, None) => Ramp { most: count, ..Ramp::flat(0) },
        };
        let viewers_to = match sentence.window {
            Some(window) => Ramp::rising(ahead + window as isize, count),
            None => Ramp::flat(count),
        };
        let (from, to) = (here(sentence.from(query)), here(sentence.to(query)));
        Self { start, keys: (first, end), from, to, viewers_from, viewers_to }
    }

    /// The keys that query `i` of the tile sees, counted from `start`.
    #[inline(always)]
    pub(super) fn seen_by(&self, i: usize) -> std::ops::Range<usize> {
        self.from.at(i)..self.to.at(i)
    }
}
