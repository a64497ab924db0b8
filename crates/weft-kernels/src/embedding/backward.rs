//! The autodiff step of embedding. It keeps the ids and two sizes, no values.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, TensorMetadata};

use super::{EmbeddingGrad, EmbeddingOps, Lookup, Positions};

#[derive(Debug)]
struct Step {
    how: Lookup,
    vocab: usize,
    /// The number of positions.
    length: usize,
}

/// With the table alone for a parent, or with the table and the positions.
impl<B: EmbeddingGrad, const N: usize> Backward<B, N> for Step {
    type State = IntTensor<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let Step { how, vocab, length } = self;
        let mut parents = ops.parents.into_iter();
        let [table, positions] = [parents.next().flatten(), parents.next().flatten()];
        if let Some(positions) = positions {
            grads.register::<B>(positions.id, B::embedding_positions_grad(length, dy.clone(), how));
        }
        if let Some(table) = table {
            grads.register::<B>(table.id, B::embedding_table_grad(vocab, ops.state, dy, how));
        }
    }
}

impl<B: EmbeddingOps + EmbeddingGrad, C: CheckpointStrategy> EmbeddingOps for Autodiff<B, C> {
    fn embedding_forward(
        table: FloatTensor<Self>,
        ids: IntTensor<Self>,
        positions: Positions<Self>,
        how: Lookup,
    ) -> FloatTensor<Self> {
        let vocab = table.shape()[0];
        let table_node = table.node();
        let table = table.into_primitive();
        match positions.into_option() {
            None => {
                let step = Step { how, vocab, length: 0 };
                let y = B::embedding_forward(table, ids.clone(), Positions::None, how);
                match Backward::<B, 1>::prepare::<C>(step, [table_node]).compute_bound().stateful() {
                    OpsKind::Tracked(prep) => prep.finish(ids, y),
                    OpsKind::UnTracked(prep) => prep.finish(y),
                }
            }
            Some(positions) => {
                let step = Step { how, vocab, length: positions.shape()[0] };
                let parents = [table_node, positions.node()];
                let y = B::embedding_forward(table, ids.clone(), Positions::Added(positions.into_primitive()), how);
                match Backward::<B, 2>::prepare::<C>(step, parents).compute_bound().stateful() {
                    OpsKind::Tracked(prep) => prep.finish(ids, y),
                    OpsKind::UnTracked(prep) => prep.finish(y),
                }
            }
        }
    }
}
