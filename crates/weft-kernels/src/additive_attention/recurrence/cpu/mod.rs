//! The CPU kernel: the recurrent layer's walk through time, with a context that is made at each step by
//! attention. Queries are a product over all running rows, the attention itself is one sentence's affair.

mod backward;
mod forward;

pub(super) use crate::recurrent::cpu::Inputs;
pub(super) use backward::backward;
pub(super) use forward::forward;

use super::super::rows::Source;

/// Sizes of the axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) time: usize,
    pub(super) hidden: usize,
    pub(super) source_time: usize,
    pub(super) query_size: usize,
    pub(super) size: usize,
}

/// What the attention reads, row-major.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    /// `[hidden, query_size]`
    pub(super) query: &'a [f32],
    /// `[batch, source_time, query_size]`
    pub(super) keys: &'a [f32],
    /// `[batch, source_time, size]`
    pub(super) values: &'a [f32],
    /// `[query_size]`
    pub(super) score: &'a [f32],
    /// `[size, gates * hidden]`
    pub(super) context: &'a [f32],
}

impl<'a> Weights<'a> {
    /// One sentence's source.
    #[inline(always)]
    fn source(&self, sizes: Sizes, sentence: usize, length: usize) -> Source<'a> {
        let start = sentence * sizes.source_time;
        Source {
            keys: &self.keys[start * sizes.query_size..(start + length) * sizes.query_size],
            values: &self.values[start * sizes.size..(start + length) * sizes.size],
            score: self.score,
        }
    }
}

/// What the forward pass made.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    /// `[batch * time * hidden + states * batch * hidden + batch * time * size]`
    pub(super) packed: &'a [f32],
    /// `[batch, time, source_time]`
    pub(super) weights: &'a [f32],
    /// As the recurrent layer keeps them.
    pub(super) activations: &'a [f32],
    /// `[running row, padded query_size]`
    pub(super) queries: &'a [f32],
}
