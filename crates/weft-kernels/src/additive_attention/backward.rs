//! The autodiff step of additive attention. The tanh of queries and keys is made again, not kept.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{AdditiveAttentionGrad, AdditiveAttentionKept, AdditiveAttentionOps};

#[derive(Debug)]
struct Step {
    lengths: Vec<usize>,
}

impl<B: AdditiveAttentionGrad> Backward<B, 4> for Step {
    type State = AdditiveAttentionKept<B>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let gradients = B::additive_attention_grad(ops.state, gradient, &self.lengths);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: AdditiveAttentionOps + AdditiveAttentionGrad, C: CheckpointStrategy> AdditiveAttentionOps for Autodiff<B, C> {
    fn additive_attention_forward(
        query: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        score: FloatTensor<Self>,
        lengths: Vec<usize>,
    ) -> FloatTensor<Self> {
        let parents = [query.node(), keys.node(), values.node(), score.node()];
        let (query, keys) = (query.into_primitive(), keys.into_primitive());
        let (values, score) = (values.into_primitive(), score.into_primitive());
        match (Step { lengths: lengths.clone() }).prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let packed =
                    B::additive_attention_forward(query.clone(), keys.clone(), values.clone(), score.clone(), lengths);
                prep.finish(AdditiveAttentionKept { query, keys, values, score, packed: packed.clone() }, packed)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::additive_attention_forward(query, keys, values, score, lengths)),
        }
    }
}
