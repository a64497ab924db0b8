//! Who attends to whom.

use super::product::Ramp;
use crate::dropout::Dropout;

/// The numbers of one call besides its tensors.
#[derive(Debug, Clone)]
pub struct AttentionSettings {
    /// How many heads share the hidden axis.
    pub num_heads: usize,
    /// Whether a query sees only keys up to its own place, counted from the end.
    pub causal: bool,
    /// Dropout on the probabilities.
    pub dropout: Dropout,
    /// Valid queries per sentence; `None` means all.
    pub query_lengths: Option<Vec<usize>>,
    /// Valid keys per sentence; `None` means all.
    pub key_lengths: Option<Vec<usize>>,
}

impl AttentionSettings {
    /// The sentence at `batch` of tensors with `q_time` queries and `k_time` keys.
    pub(super) fn sentence(&self, batch: usize, q_time: usize, k_time: usize) -> Sentence {
        let length = |lengths: &Option<Vec<usize>>, time| lengths.as_ref().map_or(time, |lengths| lengths[batch]);
        Sentence {
            queries: length(&self.query_lengths, q_time),
            keys: length(&self.key_lengths, k_time),
            causal: self.causal,
        }
    }
}

/// One sentence's lengths: what its result depends on, whatever its batch-mates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sentence {
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) causal: bool,
}

impl Sentence {
    /// How many keys each query from `first` on sees: they are the first ones.
    pub(super) fn seen_from(self, first: usize) -> Ramp {
        if !self.causal {
            return Ramp::flat(self.keys);
        }
        let offset = self.keys as isize - self.queries as isize;
        Ramp { first: first as isize + 1 + offset, slope: 1, most: self.keys }
    }

    /// How many keys query `query` sees.
    pub(super) fn seen(self, query: usize) -> usize {
        self.seen_from(query).at(0)
    }

    /// For each key: the first of the `count` queries from `first` on that sees it, counted from `first`.
    pub(super) fn viewers(self, first: usize, count: usize) -> Ramp {
        if !self.causal {
            return Ramp { first: 0, slope: 0, most: count };
        }
        let offset = self.keys as isize - self.queries as isize;
        Ramp { first: -offset - first as isize, slope: 1, most: count }
    }
}
