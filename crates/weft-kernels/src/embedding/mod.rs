//! Token embeddings: rows of a table by token, scaled, plus positions, then dropout, in one pass.
//! Vaswani et al., arXiv 1706.03762, sections 3.4 (scale and tied table), 3.5 (positions) and 5.4 (dropout).
//!
//! ```text
//! y[b, t] = dropout(scale * table[ids[b, t]] + positions[offset + t])
//! ```

mod backward;
mod cpu;
mod portable;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use burn::Tensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, ExtensionType, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Int, Shape};

use crate::Dropout;
use crate::flex::{Values, tensor};
use crate::simd::Level;

/// What happens to the rows of the table: by default, nothing.
#[derive(Debug, Clone)]
pub struct EmbeddingOptions {
    /// What the rows are multiplied by, before positions are added.
    pub scale: f32,
    /// `[length, hidden]`, added by place in the sequence; they may be trained.
    pub positions: Option<Tensor<2>>,
    /// The place of the first token of each sequence.
    pub offset: usize,
    /// Applied last.
    pub dropout: Dropout,
}

impl Default for EmbeddingOptions {
    fn default() -> Self {
        Self { scale: 1.0, positions: None, offset: 0, dropout: Dropout::NONE }
    }
}

/// Looks up `ids`, `[batch, time]`, in `table`, `[vocabulary, hidden]`: `[batch, time, hidden]`.
///
/// The result is `dropout(scale * table[ids] + positions[offset + t])`; table and positions have gradients.
/// Panics if there are fewer than `offset + time` positions, or if a token is outside of the vocabulary (a
/// device that would have to be waited for gives NaN).
pub fn embedding(table: Tensor<2>, ids: Tensor<2, Int>, options: EmbeddingOptions) -> Tensor<3> {
    let EmbeddingOptions { scale, positions, offset, dropout } = options;
    let ([_, hidden], [_, time]) = (table.dims(), ids.dims());
    if let Some(positions) = &positions {
        let dims = positions.dims();
        assert_eq!(dims[1], hidden, "embedding: positions {dims:?} are not as wide as the table {:?}", table.dims());
        assert!(dims[0] >= offset + time, "embedding: {} positions for {time} tokens from {offset} on", dims[0]);
    }
    let how = Lookup { scale, offset, dropout };
    let positions = positions.map_or(Positions::None, |positions| Positions::Added(positions.into_dispatch()));
    Tensor::from_dispatch(Dispatch::embedding_forward(table.into_dispatch(), ids.into_dispatch(), positions, how))
}

/// [`EmbeddingOptions`] without the tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lookup {
    /// See [`EmbeddingOptions::scale`].
    pub scale: f32,
    /// See [`EmbeddingOptions::offset`].
    pub offset: usize,
    /// See [`EmbeddingOptions::dropout`].
    pub dropout: Dropout,
}

/// What is added by place in the sequence. (Burn's extensions take no `Option` of a tensor.)
#[derive(Debug, Clone, ExtensionType)]
pub enum Positions<B: Backend> {
    /// Nothing.
    None,
    /// The rows of `[length, hidden]`.
    Added(FloatTensor<B>),
}

impl<B: Backend> Positions<B> {
    fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Self::None => None,
            Self::Added(positions) => Some(positions),
        }
    }
}

/// Embedding, as each device runs it.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait EmbeddingOps: Backend {
    /// See [`embedding`].
    fn embedding_forward(
        table: FloatTensor<Self>,
        ids: IntTensor<Self>,
        #[extension_type] positions: Positions<Self>,
        how: Lookup,
    ) -> FloatTensor<Self> {
        portable::forward::<Self>(table, ids, positions.into_option(), how)
    }
}

/// The gradients of [`EmbeddingOps`]; real devices only.
pub trait EmbeddingGrad: Backend {
    /// The gradient of a table of `vocab` rows, given that of the result, `[batch, time, hidden]`.
    fn embedding_table_grad(
        vocab: usize,
        ids: IntTensor<Self>,
        dy: FloatTensor<Self>,
        how: Lookup,
    ) -> FloatTensor<Self> {
        portable::table_gradient::<Self>(vocab, ids, dy, how)
    }

    /// The gradient of `length` positions, given that of the result, `[batch, time, hidden]`.
    fn embedding_positions_grad(length: usize, dy: FloatTensor<Self>, how: Lookup) -> FloatTensor<Self> {
        portable::positions_gradient::<Self>(length, dy, how)
    }
}

#[cfg(feature = "gpu")]
impl EmbeddingOps for burn::backend::Cube {}
#[cfg(feature = "gpu")]
impl EmbeddingGrad for burn::backend::Cube {}

impl EmbeddingOps for Flex {
    fn embedding_forward(
        table: FloatTensor<Self>,
        ids: IntTensor<Self>,
        positions: Positions<Self>,
        how: Lookup,
    ) -> FloatTensor<Self> {
        let ([_, hidden], [batch, time]) = (table.shape().dims(), ids.shape().dims());
        let (table, ids, positions) = (Values::new(table), Values::new(ids), positions.into_option().map(Values::new));
        let positions = positions.as_ref().map(Values::f32);
        let y = cpu::forward(Level::best(), table.f32(), hidden, ids.i32(), time, positions, how);
        tensor(y, [batch, time, hidden])
    }
}

impl EmbeddingGrad for Flex {
    fn embedding_table_grad(
        vocab: usize,
        ids: IntTensor<Self>,
        dy: FloatTensor<Self>,
        how: Lookup,
    ) -> FloatTensor<Self> {
        let [_, _, hidden] = dy.shape().dims();
        let (ids, dy) = (Values::new(ids), Values::new(dy));
        let gradient = cpu::table_gradient(Level::best(), vocab, hidden, ids.i32(), dy.f32(), how);
        tensor(gradient, Shape::from([vocab, hidden]))
    }

    fn embedding_positions_grad(length: usize, dy: FloatTensor<Self>, how: Lookup) -> FloatTensor<Self> {
        let [_, time, hidden] = dy.shape().dims();
        let dy = Values::new(dy);
        let gradient = cpu::positions_gradient(Level::best(), length, hidden, time, dy.f32(), how);
        tensor(gradient, Shape::from([length, hidden]))
    }
}
